//! Hexad.

pub mod structs;
