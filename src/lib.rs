//! Hexad.
