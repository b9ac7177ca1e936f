//! Hexad.

pub mod config;
