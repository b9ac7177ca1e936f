//! Keeps replies back until what they tell is on disk, with `appendfsync always`.
//!
//! The log is written once a turn and synced on the helper thread, while the loop goes on reading and executing. Until
//! the sync is done no reply leaves that was produced after the written commands: not those to the commands themselves,
//! and not those of readers who may have seen their effects. What is executed meanwhile is covered by the next sync.
//!
//! A client that only read keys without such changes does not wait.
//!
//! Before the log is written, changes may wait a moment for others (`gather.rs`). While nobody asks for what is durable, all
//! clients wait for the sync anyway, and a quick disk is synced by the loop itself.
//!
//! Invariant: a byte is sent only if every command whose effects it may tell of has been synced, and after the bytes that
//! its client was to get before. Links to replicas and the cluster bus are not kept back: a replica may be ahead of our
//! disk, as nobody was told of it.

use super::aof::manifest::reason;
use super::gather::Gather;
use crate::net::ClientId;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// A disk that syncs in less than this, microseconds, is synced by the loop itself: handing over would cost more.
pub const WORTH_HANDING_OVER_US: u64 = 150;
/// As well one that syncs in less than this, microseconds, when nobody is there whom the loop could serve meanwhile.
pub const WORTH_WAITING_US: u64 = 1_000;
/// Somebody is there who was served so short a time ago, microseconds.
pub const READERS_STAY_US: i64 = 100_000;

/// What the syncing thread tells the loop.
#[derive(Debug, Default)]
pub struct Shared {
    /// Number of syncs that are done.
    pub done: AtomicU64,
    /// The error of one that failed; 0: none.
    pub errno: AtomicI32,
    pub last_us: AtomicU64,
}

#[derive(Debug, Default)]
pub struct Gate {
    pub shared: Arc<Shared>,
    /// Number of syncs that were handed over.
    pub started: u64,
    /// Bytes of the increment that the sync under way will have covered.
    pub covers: u64,
    /// Clients with output that the sync under way covers, and up to where.
    pub covered: Vec<(ClientId, u64)>,
    /// Clients with output that is kept back. They are marked as having a write pending.
    pub held: Vec<ClientId>,
    pub gather: Gather,
    /// Changes wait for others before they are written; until when.
    pub gathering_until_us: Option<i64>,
    /// When a client was last told something that did not have to wait, monotonic microseconds.
    pub read_us: Option<i64>,
}

impl Gate {
    pub fn is_syncing(&self) -> bool {
        self.shared.done.load(Ordering::Acquire) < self.started
    }

    /// A client is told something that does not have to wait.
    pub fn note_read(&mut self, now_us: i64) {
        self.read_us = Some(now_us);
    }
}

/// What DEBUG AOF-SYNC-SLEEP asks for.
pub fn sleep(us: u64) {
    if us > 0 {
        std::thread::sleep(Duration::from_micros(us));
    }
}

/// What has been promised cannot be kept.
pub fn fail(e: &std::io::Error) -> ! {
    log::warn!("Can't persist AOF for fsync error when the AOF fsync policy is 'always': {}. Exiting...", reason(e));
    std::process::exit(1)
}
