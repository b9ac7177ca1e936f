//! What operators see: statistics, INFO, MONITOR and their like.

pub mod monitor;
pub mod stats;
