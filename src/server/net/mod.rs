//! Accepting, reading, writing and closing client connections.

pub(crate) mod handshakes;
pub mod serve;
pub mod upkeep;
