//! What a transfer of a snapshot to replicas keeps: the file being sent, or the pipe from the child and who takes part.
//! How it goes is in `server/repl/snapshot.rs`.

use crate::net::ClientId;
use std::fs::File;
use std::os::fd::OwnedFd;

/// Bytes of a file or of the pipe handed on at once.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of a file sent to one replica in one turn.
pub(crate) const FILE_BYTES_PER_TURN: usize = 4 << 20;
/// Bytes taken from the pipe in one turn.
pub(crate) const PIPE_BYTES_PER_TURN: usize = 4 << 20;

/// The dump file on its way to a replica.
#[derive(Debug)]
pub(crate) struct SnapshotFile {
    pub(crate) file: File,
    pub(crate) size: u64,
    pub(crate) sent: u64,
}

/// A replica that a streamed snapshot goes to.
#[derive(Debug)]
pub(crate) struct PipeTarget {
    pub(crate) client: ClientId,
    /// Bytes of the current piece it has got.
    pub(crate) sent: usize,
}

/// A streamed snapshot on its way to replicas.
#[derive(Debug)]
pub(crate) struct SnapshotPipe {
    /// Where the child writes to; `None` once its end was read.
    pub(crate) reader: Option<File>,
    /// Closing it lets the child go.
    pub(crate) release: Option<OwnedFd>,
    /// What was read last.
    pub(crate) piece: Vec<u8>,
    pub(crate) targets: Vec<PipeTarget>,
}

impl SnapshotPipe {
    /// Some replica has not got all of the current piece.
    pub(crate) fn is_held_up(&self) -> bool {
        self.targets.iter().any(|target| target.sent < self.piece.len())
    }
}
