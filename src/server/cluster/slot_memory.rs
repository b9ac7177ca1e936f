//! What the keys of slots take of memory, for CLUSTER SLOT-STATS: added up when it is asked for, key by key as MEMORY USAGE
//! does, so that nothing has to be kept for it. Of many keys the asking client waits, and they are gone through in slices
//! between other work; what is changed meanwhile may be in the sum as it was or as it is.

use crate::catalog::CmdError;
use crate::keyspace::{Entry, object};
use crate::net::ClientId;
use crate::resp::Args;
use crate::server::Server;
use crate::structs::slots::Slot;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many keys are gone through at once, within a fraction of a millisecond.
const FEW_KEYS: usize = 1000;
/// The longest slice of a turn.
const SLICE: Duration = Duration::from_millis(1);
const PAGE_KEYS: usize = 64;
/// A sum that was not fetched for so long is old: the call for which it was made was refused when it came to run again.
const OLD: Duration = Duration::from_secs(10);
/// Elements of large values that are looked at, as MEMORY USAGE does unless told otherwise.
const SAMPLES: usize = 5;

const CANNOT_WAIT: CmdError =
    CmdError::of("TRYAGAIN There are too many keys to add their memory up at once, within a transaction or script");

/// Bytes by slot; slots without keys are not named.
pub(crate) type MemoryOfSlots = HashMap<Slot, u64>;

/// The sums that clients wait for.
#[derive(Debug, Default)]
pub(crate) struct SlotMemory {
    walks: Vec<Walk>,
}

#[derive(Debug)]
struct Walk {
    client: ClientId,
    /// What is yet to be gone through, the next one last, and where in it.
    slots: Vec<Slot>,
    cursor: u64,
    found: MemoryOfSlots,
    /// When all was gone through.
    done_at: Option<Instant>,
}

fn bytes_of(entry: &Entry) -> u64 {
    object::memory_usage(entry, SAMPLES) as u64
}

impl Server {
    /// The memory of slots, for the command that a client is running; `None`: the client waits, and the command is run again.
    pub(crate) fn memory_of_slots(
        &mut self,
        id: ClientId,
        args: Args<'_>,
        slots: &[Slot],
    ) -> Result<Option<MemoryOfSlots>, CmdError> {
        let db = &self.ks.dbs[0];
        let with_keys: Vec<Slot> = slots.iter().copied().filter(|slot| db.slot_len(*slot) > 0).collect();
        let walks = &mut self.slot_memory.walks;
        let is_old = |walk: &Walk| walk.done_at.is_some_and(|at| at.elapsed() > OLD);
        walks.retain(|walk| self.clients.get(walk.client).is_some() && !is_old(walk));
        if let Some(at) = walks.iter().position(|walk| walk.client == id) {
            if walks[at].done_at.is_some() {
                return Ok(Some(walks.swap_remove(at).found));
            }
            self.postpone_this(id, args);
            return Ok(None);
        }
        if with_keys.iter().map(|slot| db.slot_len(*slot)).sum::<usize>() <= FEW_KEYS {
            let sum = |slot: Slot| (slot, db.slot_entries(slot).map(bytes_of).sum());
            return Ok(Some(with_keys.into_iter().map(sum).collect()));
        }
        if !self.may_postpone_this(id) {
            return Err(CANNOT_WAIT);
        }
        self.slot_memory.walks.push(Walk {
            client: id,
            slots: with_keys,
            cursor: 0,
            found: MemoryOfSlots::new(),
            done_at: None,
        });
        self.postpone_this(id, args);
        Ok(None)
    }

    /// Whether there is something to add up.
    pub(crate) fn adds_memory_up(&self) -> bool {
        self.slot_memory.walks.iter().any(|walk| !walk.slots.is_empty())
    }

    /// Before the loop sleeps: a slice of it.
    pub(crate) fn add_memory_up(&mut self) {
        if !self.adds_memory_up() || self.depth > 0 || self.is_loading() {
            return;
        }
        let deadline = Instant::now() + SLICE;
        let walks = &mut self.slot_memory.walks;
        walks.retain(|walk| self.clients.get(walk.client).is_some());
        let mut is_one_done = false;
        for walk in walks.iter_mut().filter(|walk| !walk.slots.is_empty()) {
            while let Some(slot) = walk.slots.last().copied().filter(|_| Instant::now() < deadline) {
                let sum = walk.found.entry(slot).or_default();
                walk.cursor = self.ks.dbs[0].scan_slot(slot, walk.cursor, PAGE_KEYS, |entry| *sum += bytes_of(entry));
                if walk.cursor == 0 {
                    walk.slots.pop();
                }
            }
            if walk.slots.is_empty() {
                walk.done_at = Some(Instant::now());
                is_one_done = true;
            }
        }
        if is_one_done {
            self.release_postponed();
        }
    }
}
