//! Hexad.

pub mod repl;
