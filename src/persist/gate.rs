//! Who is kept back until what they are told is on disk, with `appendfsync always`, or in enough replicas, and the sync or
//! the confirmations that they wait for.
//!
//! Decides and takes note; sockets, the file and the thread that syncs it are the server's (`server/persist/gate.rs`). The time
//! is told, monotonic microseconds.
//!
//! Invariant: what [`Gate::check`] lets go is covered by a sync that is done, and confirmed if that is asked for.

use super::gather::Gather;
use crate::net::ClientId;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

/// A disk that syncs in less than this, microseconds, is synced by the loop itself: handing over would cost more.
const WORTH_HANDING_OVER_US: u64 = 150;
/// So is one that syncs in less than this, microseconds, when nobody is there whom the loop could serve meanwhile.
const WORTH_WAITING_US: u64 = 1_000;
/// Somebody is there who was served so short a time ago, microseconds.
const READERS_STAY_US: i64 = 100_000;

/// What the syncing thread tells the loop.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Number of syncs that are done.
    done: AtomicU64,
    /// The error of one that failed; 0: none.
    errno: AtomicI32,
    last_us: AtomicU64,
}

impl Shared {
    /// A sync took so long, and failed with this error if that is not 0.
    pub(crate) fn finish(&self, errno: i32, us: u64) {
        if errno != 0 {
            self.errno.store(errno, Ordering::Release);
        }
        self.last_us.store(us, Ordering::Relaxed);
        self.done.fetch_add(1, Ordering::Release);
    }
}

/// What has become of the sync that was under way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing that anybody waits for.
    Nothing,
    /// It failed: what was promised cannot be kept.
    Failed(i32),
    Opened(Opened),
}

/// What may go on now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    /// Bytes of the increment that are on disk, and how long the sync took; `None`: nothing was synced.
    pub(crate) synced: Option<(u64, u64)>,
    /// Clients whose output may leave, and up to where.
    pub(crate) released: Vec<(ClientId, u64)>,
    /// Clients whose output was kept back and is to be looked at anew.
    pub(crate) held: Vec<ClientId>,
    /// Whether replicas have confirmed what they were waited for.
    pub(crate) confirmed: bool,
}

/// Who is to sync.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Syncer {
    /// The loop, which waits for it.
    Loop,
    /// The thread, while the loop goes on.
    Thread,
}

#[derive(Debug, Default)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
    /// Number of syncs that were handed over.
    started: u64,
    /// Bytes of the increment that the sync under way will have covered.
    covers: u64,
    /// Clients with output that the sync under way covers, and up to where.
    covered: Vec<(ClientId, u64)>,
    /// Clients with output that is kept back. They are marked as having a write pending.
    held: Vec<ClientId>,
    gather: Gather,
    /// Replicas are to have the stream up to here, since when they are waited for, and up to where they have it.
    awaits: Option<(i64, i64)>,
    confirmed: i64,
    /// Changes wait for others before they are written; until when.
    gathering_until_us: Option<i64>,
    /// When a client was last told something that did not have to wait.
    read_us: Option<i64>,
}

impl Gate {
    pub(crate) fn is_syncing(&self) -> bool {
        self.shared.done.load(Ordering::Acquire) < self.started
    }

    /// Whether replicas have not confirmed yet what they are waited for.
    pub(crate) fn awaits_replicas(&self) -> bool {
        self.awaits.is_some_and(|(offset, _)| self.confirmed < offset)
    }

    /// Up to which offset replicas are to have the stream, if they are waited for.
    pub(crate) fn awaited_offset(&self) -> Option<i64> {
        self.awaits.map(|(offset, _)| offset)
    }

    /// For how long replicas have been waited for, microseconds; 0: they are not.
    pub(crate) fn awaits_for_us(&self, now_us: i64) -> i64 {
        self.awaits.filter(|_| self.awaits_replicas()).map_or(0, |(_, since_us)| now_us - since_us)
    }

    /// So many replicas as it takes have the stream up to here.
    pub(crate) fn note_confirmed(&mut self, offset: i64) {
        self.confirmed = offset;
    }

    /// What waits now waits for replicas to have the stream up to `offset` as well.
    pub(crate) fn await_replicas(&mut self, offset: i64, now_us: i64) {
        self.awaits = Some((offset, now_us));
    }

    /// The output of these clients is covered by what replicas are waited for alone.
    pub(crate) fn cover(&mut self, covered: Vec<(ClientId, u64)>) {
        self.covered = covered;
    }

    /// Those whose output was kept back do not wait for replicas any more; whoever comes after them does. Gives who they are.
    pub(crate) fn give_up(&mut self) -> Vec<ClientId> {
        self.covered.clear();
        std::mem::take(&mut self.held)
    }

    /// Nothing is to be confirmed by replicas any more.
    pub(crate) fn stop_awaiting(&mut self) {
        self.awaits = None;
    }

    /// Whether what tells of changes has to wait.
    pub(crate) fn is_shut(&self) -> bool {
        self.awaits_replicas() || self.is_shut_by_disk()
    }

    /// Whether it has to wait for the disk.
    pub(crate) fn is_shut_by_disk(&self) -> bool {
        self.is_syncing() || self.gathering_until_us.is_some()
    }

    /// When the log is to be written though nothing happens.
    pub(crate) fn gathering_until_us(&self) -> Option<i64> {
        self.gathering_until_us
    }

    pub(crate) fn held(&self) -> &[ClientId] {
        &self.held
    }

    /// A client is told something that does not have to wait.
    pub(crate) fn note_read(&mut self, now_us: i64) {
        self.read_us = Some(now_us);
    }

    /// Nothing waits for more to come.
    pub(crate) fn stop_gathering(&mut self) {
        self.gathering_until_us = None;
    }

    /// Whether what has to go to the log should wait for more to come. So many clients wait for its sync; `answering`: those
    /// whose changes became durable are only now about to be told.
    pub(crate) fn gathers(&mut self, waiting: usize, answering: bool, now_us: i64) -> bool {
        self.gathering_until_us = if answering { Some(now_us) } else { self.gather.wait_until(waiting, now_us) };
        self.gathering_until_us.is_some()
    }

    /// Keeps a client's output back; up to `covered`, if that is given, the sync under way covers it.
    pub(crate) fn hold(&mut self, id: ClientId, covered: Option<u64>) {
        self.covered.extend(covered.map(|end| (id, end)));
        self.held.push(id);
    }

    /// Looks whether the sync under way is done.
    pub(crate) fn check(&mut self) -> Step {
        let is_idle = self.covered.is_empty() && self.held.is_empty() && self.covers == 0 && self.awaits.is_none();
        if self.is_shut() || is_idle {
            return Step::Nothing;
        }
        match self.shared.errno.load(Ordering::Acquire) {
            0 => {}
            errno => return Step::Failed(errno),
        }
        let covers = std::mem::take(&mut self.covers);
        Step::Opened(Opened {
            synced: (covers > 0).then(|| (covers, self.shared.last_us.load(Ordering::Relaxed))),
            released: std::mem::take(&mut self.covered),
            held: std::mem::take(&mut self.held),
            confirmed: self.awaits.take().is_some(),
        })
    }

    /// A sync is done that so many clients waited for, or that they waited for while it was under way.
    pub(crate) fn expect(&mut self, clients: usize, us: u64, now_us: i64) {
        self.gather.expect(clients, us, now_us);
    }

    /// Who is to sync next, by what the last sync took and whom the loop would keep waiting.
    pub(crate) fn syncer(&self, now_us: i64) -> Syncer {
        let nobody_reads = || self.read_us.is_none_or(|at| now_us - at >= READERS_STAY_US);
        match self.shared.last_us.load(Ordering::Relaxed) {
            0..WORTH_HANDING_OVER_US => Syncer::Loop,
            WORTH_HANDING_OVER_US..WORTH_WAITING_US if nobody_reads() => Syncer::Loop,
            _ => Syncer::Thread,
        }
    }

    /// The loop has synced everything, which took so long. Gives whose output was kept back.
    pub(crate) fn synced(&mut self, us: u64) -> Vec<ClientId> {
        self.shared.last_us.store(us, Ordering::Relaxed);
        std::mem::take(&mut self.held)
    }

    /// A sync is handed over that covers so many bytes of the increment, and the output of these clients up to there. Gives
    /// what the thread is to tell.
    pub(crate) fn shut(&mut self, covers: u64, covered: Vec<(ClientId, u64)>) -> Arc<Shared> {
        self.covers = covers;
        self.covered = covered;
        self.started += 1;
        self.shared.clone()
    }
}

#[cfg(test)]
mod tests;
