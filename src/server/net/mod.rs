//! Accepting, reading, writing and closing client connections.

pub(crate) mod serve;
pub(crate) mod threads;
pub(crate) mod upkeep;
