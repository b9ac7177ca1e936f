//! Hexad.

pub mod config;
pub mod sys;
