//! The append-only log as the server drives it.

pub mod append;
pub mod load;
pub mod rewrite;
