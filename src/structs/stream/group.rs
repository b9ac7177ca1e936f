//! A consumer group: how far it has read, its consumers, and the entries delivered to them but not acknowledged.
//!
//! Invariant: every pending entry belongs to one consumer, and its id is in that consumer's list and in no other.

use super::id::StreamId;
use slab::Slab;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeFrom;
use std::sync::Arc;

/// Identifies a consumer within its group until it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerId(u32);

/// An entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pending {
    /// When it was delivered last, unix ms.
    pub(crate) time_ms: i64,
    /// How often it was delivered.
    pub(crate) deliveries: u64,
    pub(crate) owner: ConsumerId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Consumer {
    name: Arc<[u8]>,
    /// When it last asked for something, unix ms.
    pub(crate) seen_ms: i64,
    /// When it last got something, unix ms; -1: never.
    pub(crate) active_ms: i64,
    pending: BTreeSet<StreamId>,
}

impl Consumer {
    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    /// The name, for use beyond the consumer's life.
    pub(crate) fn shared_name(&self) -> Arc<[u8]> {
        self.name.clone()
    }

    pub(crate) fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// The ids of its pending entries from `from` on.
    pub(crate) fn pending_from(&self, from: StreamId) -> impl Iterator<Item = StreamId> {
        self.pending.range(from..).copied()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// The last entry that was delivered to the group.
    pub(crate) last_id: StreamId,
    /// How many entries up to that one were ever added to the stream; -1: not known.
    pub(crate) entries_read: i64,
    pending: BTreeMap<StreamId, Pending>,
    consumers: Slab<Consumer>,
    names: BTreeMap<Arc<[u8]>, ConsumerId>,
}

impl PartialEq for Group {
    fn eq(&self, other: &Group) -> bool {
        let pending = |g: &Group| -> Vec<_> {
            let named =
                g.pending.iter().map(|(id, p)| (*id, p.time_ms, p.deliveries, g.consumer(p.owner).name.clone()));
            named.collect()
        };
        (self.last_id, self.entries_read) == (other.last_id, other.entries_read)
            && self.consumers().eq(other.consumers())
            && pending(self) == pending(other)
    }
}

impl Eq for Group {}

impl Group {
    pub(crate) fn new(last_id: StreamId, entries_read: i64) -> Group {
        Group { last_id, entries_read, pending: BTreeMap::new(), consumers: Slab::new(), names: BTreeMap::new() }
    }

    pub(crate) fn find_consumer(&self, name: &[u8]) -> Option<ConsumerId> {
        self.names.get(name).copied()
    }

    pub(crate) fn consumer(&self, id: ConsumerId) -> &Consumer {
        &self.consumers[id.0 as usize]
    }

    pub(crate) fn consumer_mut(&mut self, id: ConsumerId) -> &mut Consumer {
        &mut self.consumers[id.0 as usize]
    }

    /// Adds a consumer; `None` if there is one of this name.
    pub(crate) fn create_consumer(&mut self, name: &[u8], now_ms: i64) -> Option<ConsumerId> {
        if self.names.contains_key(name) {
            return None;
        }
        let name: Arc<[u8]> = name.into();
        let consumer = Consumer { name: name.clone(), seen_ms: now_ms, active_ms: -1, pending: BTreeSet::new() };
        let id = ConsumerId(u32::try_from(self.consumers.insert(consumer)).expect("below four billion consumers"));
        self.names.insert(name, id);
        Some(id)
    }

    /// Removes a consumer with its pending entries, and returns their number; `None`: there is none of this name.
    pub(crate) fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let id = self.names.remove(name)?;
        let consumer = self.consumers.remove(id.0 as usize);
        for entry in &consumer.pending {
            self.pending.remove(entry);
        }
        Some(consumer.pending.len())
    }

    pub(crate) fn consumer_count(&self) -> usize {
        self.names.len()
    }

    /// The consumers, in the order of their names' bytes.
    pub(crate) fn consumers(&self) -> impl Iterator<Item = &Consumer> {
        self.names.values().map(|id| self.consumer(*id))
    }

    pub(crate) fn pending_len(&self) -> usize {
        self.pending.len()
    }

    pub(crate) fn pending(&self, id: StreamId) -> Option<&Pending> {
        self.pending.get(&id)
    }

    /// The pending entries from an id on.
    pub(crate) fn pending_from(&self, from: StreamId) -> impl DoubleEndedIterator<Item = (StreamId, &Pending)> {
        let range: RangeFrom<StreamId> = from..;
        self.pending.range(range).map(|(id, p)| (*id, p))
    }

    /// Notes another delivery of the entry to its owner.
    pub(crate) fn redeliver(&mut self, id: StreamId, now_ms: i64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.time_ms = now_ms;
            pending.deliveries = pending.deliveries.wrapping_add(1);
        }
    }

    /// Makes an entry pending for `pending.owner`, whoever had it before.
    pub(crate) fn assign(&mut self, id: StreamId, pending: Pending) {
        if let Some(before) = self.pending.insert(id, pending) {
            if before.owner == pending.owner {
                return;
            }
            self.consumer_mut(before.owner).pending.remove(&id);
        }
        self.consumer_mut(pending.owner).pending.insert(id);
    }

    /// Removes an entry from the pending ones. False if it was not pending.
    pub(crate) fn acknowledge(&mut self, id: StreamId) -> bool {
        let Some(pending) = self.pending.remove(&id) else { return false };
        self.consumer_mut(pending.owner).pending.remove(&id);
        true
    }

    /// Bytes of memory besides itself, an estimate.
    pub(crate) fn mem_bytes(&self) -> usize {
        // Trees fill about two thirds of their nodes.
        let tree = |len: usize, item: usize| len * item * 3 / 2;
        let consumers = self.consumers().map(|c| c.name.len() + tree(c.pending.len(), size_of::<StreamId>()));
        size_of::<Group>()
            + tree(self.pending.len(), size_of::<(StreamId, Pending)>())
            + self.consumers.capacity() * size_of::<Consumer>()
            + tree(self.names.len(), size_of::<(Arc<[u8]>, ConsumerId)>())
            + consumers.sum::<usize>()
    }

    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.names.len(), self.consumers.len());
        assert!(self.names.iter().all(|(name, id)| *name == self.consumer(*id).name));
        assert_eq!(self.consumers().map(|c| c.pending.len()).sum::<usize>(), self.pending.len());
        assert!(self.pending.iter().all(|(id, p)| self.consumer(p.owner).pending.contains(id)));
    }
}
