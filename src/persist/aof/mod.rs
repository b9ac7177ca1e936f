//! The append-only log: its directory and manifest, writing it, rewriting it, and replaying it.
//!
//! Since Redis 7 the log is several files: at most one base (a snapshot, or commands), then increments in order. The
//! manifest names them; files it does not name do not belong to the log.

pub mod append;
pub(crate) mod load;
pub mod manifest;
pub mod reader;
pub(crate) mod writing;

pub use manifest::{AofDir, AofFile, Manifest, ManifestError};
pub use reader::{AofReader, ReadError, Record};
