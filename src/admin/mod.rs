//! What operators see: statistics, INFO, MONITOR and their like.

pub mod config;
pub mod monitor;
pub mod stats;
