//! A shutdown under way: how it was asked for, and until when it waits for replicas.

use crate::catalog::CmdError;
use crate::config::ShutdownOnSignal;

/// How to shut down; all false: save if there are save points, wait for replicas.
pub(crate) type ShutdownFlags = ShutdownOnSignal;

/// The error of a SHUTDOWN that failed.
pub(crate) const FAILED: CmdError = CmdError::of("ERR Errors trying to SHUTDOWN. Check logs.");

#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    /// A shutdown that waits for replicas: how, and until when at most (wall clock ms).
    pub(crate) waiting: Option<(ShutdownFlags, i64)>,
    /// A signal that could not be obeyed while the first AOF was being written.
    pub(crate) put_off: Option<i32>,
}

impl Shutdown {
    /// When a waiting shutdown goes on without the replicas, wall clock ms.
    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        self.waiting.map(|(_, at)| at)
    }
}
