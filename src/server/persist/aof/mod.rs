//! The append-only log as the server drives it.

pub(crate) mod append;
pub(crate) mod load;
pub(crate) mod rewrite;
