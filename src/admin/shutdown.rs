//! A shutdown under way: how it was asked for, who waits for it, until when it is put off.

use crate::catalog::CmdError;
use crate::config::ShutdownOnSignal;

/// How to shut down; all false: save if there are save points, wait for replicas.
pub(crate) type ShutdownFlags = ShutdownOnSignal;

/// The answer to those whose SHUTDOWN came to nothing.
pub(crate) const FAILED: CmdError = CmdError::of("ERR Errors trying to SHUTDOWN. Check logs.");

#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    /// A shutdown that waits for replicas: how, and until when at most (wall clock ms).
    pub(crate) waiting: Option<(ShutdownFlags, i64)>,
    /// The last signal that asked for a shutdown since one was called off.
    pub(crate) last_signal: i32,
    /// A signal that could not be obeyed while the first AOF was being written.
    pub(crate) put_off: Option<i32>,
}

impl Shutdown {
    /// When the shutdown that waits goes on even so, wall clock ms.
    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        self.waiting.map(|(_, at)| at)
    }
}
