//! Hexad.

pub mod cluster;
