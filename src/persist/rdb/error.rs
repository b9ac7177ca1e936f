//! What can go wrong while a snapshot is read, and where.

use super::newer_kind;
use std::fmt;
use std::io;
use std::panic::Location;

/// A failed read. `offset` counts bytes from the magic; a primitive that was cut short is not counted.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) offset: u64,
    pub(crate) kind: ErrorKind,
    /// The reading function that gave up; the log line names it.
    pub(crate) at: &'static Location<'static>,
}

#[derive(Debug)]
pub(crate) enum ErrorKind {
    /// The source failed.
    Io(io::Error),
    /// The source ended inside the snapshot.
    Eof,
    /// The first five bytes are not `REDIS`.
    Signature,
    /// A version this server does not read.
    Version(i64),
    /// The bytes contradict the format.
    Corrupt(String),
    /// A byte that is neither an opcode nor a value type.
    UnknownType(u8),
    /// What this byte stands for in a newer version cannot be held.
    Newer(u8),
    /// Module data, which needs the module that wrote it. `aux` when it belongs to no key.
    Module { name: String, aux: bool },
    /// The checksum in the file is not that of its bytes.
    Checksum { expected: u64, got: u64 },
}

impl Error {
    #[track_caller]
    pub(crate) fn new(offset: u64, kind: ErrorKind) -> Error {
        Error { offset, kind, at: Location::caller() }
    }

    /// Whether nothing is wrong but that there are no more bytes for the moment.
    pub(crate) fn is_starved(&self) -> bool {
        matches!(&self.kind, ErrorKind::Io(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the bytes are wrong, as opposed to missing: a broken link may be retried, damage may not.
    pub(crate) fn is_corruption(&self) -> bool {
        match self.kind {
            ErrorKind::Io(_) | ErrorKind::Eof => false,
            ErrorKind::Signature
            | ErrorKind::Version(_)
            | ErrorKind::Corrupt(_)
            | ErrorKind::UnknownType(_)
            | ErrorKind::Newer(_)
            | ErrorKind::Module { .. }
            | ErrorKind::Checksum { .. } => true,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::Io(e) => write!(f, "Read error: {e}"),
            ErrorKind::Eof => f.write_str("Unexpected EOF reading RDB file"),
            ErrorKind::Signature => f.write_str("Wrong signature trying to load DB from file"),
            ErrorKind::Version(v) => write!(f, "Can't handle RDB format version {v}"),
            ErrorKind::Corrupt(reason) => f.write_str(reason),
            ErrorKind::UnknownType(t) => write!(f, "Unknown RDB encoding type {t}"),
            ErrorKind::Newer(byte) => {
                let what = newer_kind(*byte).unwrap_or("something unknown");
                write!(f, "A newer version wrote it, and it has {what}, which cannot be held here")
            }
            ErrorKind::Module { name, aux: false } => {
                write!(f, "The RDB file contains module data I can't load: no matching module type '{name}'")
            }
            ErrorKind::Module { name, aux: true } => {
                write!(f, "The RDB file contains AUX module data I can't load: no matching module '{name}'")
            }
            ErrorKind::Checksum { .. } => f.write_str("RDB CRC error"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.at.file().rsplit('/').next().unwrap_or_default();
        write!(
            f,
            "Internal error in RDB reading offset {}, function at {file}:{} -> {}",
            self.offset,
            self.at.line(),
            self.kind
        )
    }
}

impl std::error::Error for Error {}
