//! The append-only log: its directory and manifest, and the reader of its files.
//!
//! Since Redis 7 the log is several files: at most one base (a snapshot, or commands), then increments in order. The
//! manifest names them; files it does not name do not belong to the log.

pub mod manifest;
pub mod quoting;
pub mod reader;

pub use manifest::{AofDir, AofFile, Manifest, ManifestError};
pub use reader::{AofReader, ReadError, Record};
