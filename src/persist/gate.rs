//! Who is kept back until what they are told is on disk, with `appendfsync always`, and the sync they wait for. When that
//! begins and ends is in `server/persist/gate.rs`.

use super::aof::manifest::reason;
use super::gather::Gather;
use crate::net::ClientId;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// A disk that syncs in less than this, microseconds, is synced by the loop itself: handing over would cost more.
pub(crate) const WORTH_HANDING_OVER_US: u64 = 150;
/// As well one that syncs in less than this, microseconds, when nobody is there whom the loop could serve meanwhile.
pub(crate) const WORTH_WAITING_US: u64 = 1_000;
/// Somebody is there who was served so short a time ago, microseconds.
pub(crate) const READERS_STAY_US: i64 = 100_000;

/// What the syncing thread tells the loop.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Number of syncs that are done.
    pub(crate) done: AtomicU64,
    /// The error of one that failed; 0: none.
    pub(crate) errno: AtomicI32,
    pub(crate) last_us: AtomicU64,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    pub(crate) shared: Arc<Shared>,
    /// Number of syncs that were handed over.
    pub(crate) started: u64,
    /// Bytes of the increment that the sync under way will have covered.
    pub(crate) covers: u64,
    /// Clients with output that the sync under way covers, and up to where.
    pub(crate) covered: Vec<(ClientId, u64)>,
    /// Clients with output that is kept back. They are marked as having a write pending.
    pub(crate) held: Vec<ClientId>,
    pub(crate) gather: Gather,
    /// Changes wait for others before they are written; until when.
    pub(crate) gathering_until_us: Option<i64>,
    /// When a client was last told something that did not have to wait, monotonic microseconds.
    pub(crate) read_us: Option<i64>,
}

impl Gate {
    pub(crate) fn is_syncing(&self) -> bool {
        self.shared.done.load(Ordering::Acquire) < self.started
    }

    /// A client is told something that does not have to wait.
    pub(crate) fn note_read(&mut self, now_us: i64) {
        self.read_us = Some(now_us);
    }
}

/// What DEBUG AOF-SYNC-SLEEP asks for.
pub(crate) fn sleep(us: u64) {
    if us > 0 {
        std::thread::sleep(Duration::from_micros(us));
    }
}

/// What has been promised cannot be kept.
pub(crate) fn fail(e: &std::io::Error) -> ! {
    log::warn!("Can't persist AOF for fsync error when the AOF fsync policy is 'always': {}. Exiting...", reason(e));
    std::process::exit(1)
}
