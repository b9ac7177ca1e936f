//! The append-only log: its directory and manifest, writing it, rewriting it, and replaying it.
//!
//! Since Redis 7 the log is several files: at most one base (a snapshot, or commands), then increments in order. The
//! manifest names them; files it does not name do not belong to the log.

pub(crate) mod append;
pub(crate) mod manifest;
pub(crate) mod reader;

pub(crate) use manifest::{AofDir, Manifest};
