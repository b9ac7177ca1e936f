//! A shutdown under way: how it was asked for, and until when it waits for replicas.

use crate::catalog::CmdError;
use crate::config::ShutdownOnSignal;

/// How to shut down; all false: save if there are save points, wait for replicas.
pub(crate) type ShutdownFlags = ShutdownOnSignal;

/// The error of a SHUTDOWN that failed.
pub(crate) const FAILED: CmdError = CmdError::of("ERR Errors trying to SHUTDOWN. Check logs.");

/// A replica takes over before this server ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum HandOver {
    /// Not or no longer.
    #[default]
    No,
    /// As soon as one has everything.
    Wanted,
    /// One has been told to.
    Told,
    /// One has, at this time (wall clock ms), and clients are sent there.
    Done { at_ms: i64 },
}

#[derive(Debug, Default)]
pub(crate) struct Shutdown {
    /// A shutdown that waits for replicas: how, and until when at most (wall clock ms).
    pub(crate) waiting: Option<(ShutdownFlags, i64)>,
    /// Whether a replica takes over first, and how far that has come.
    pub(crate) hand_over: HandOver,
    /// A signal that could not be obeyed while the first AOF was being written.
    pub(crate) put_off: Option<i32>,
}

impl Shutdown {
    /// When a waiting shutdown goes on without the replicas, wall clock ms.
    pub(crate) fn deadline_ms(&self) -> Option<i64> {
        self.waiting.map(|(_, at)| at)
    }
}
