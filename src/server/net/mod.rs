//! Accepting, reading, writing and closing client connections.

pub(crate) mod handshakes;
pub(crate) mod serve;
pub(crate) mod upkeep;
