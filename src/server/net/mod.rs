//! Accepting, reading, writing and closing client connections.

pub mod serve;
pub mod upkeep;
