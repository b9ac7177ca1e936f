//! What is counted of each slot: time and bytes of the commands on its keys (CLUSTER SLOT-STATS).
//!
//! A slot begins at nothing when it gets or loses its owner in this node's eyes. What is counted when is decided by
//! `server/cluster/slot_meter`.

use super::Cluster;
use crate::structs::slots::{SLOT_COUNT, Slot, SlotSet};

/// Counts of one slot, or of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SlotCounts {
    /// Time that commands took, microseconds.
    pub(crate) cpu_us: u64,
    /// Bytes of requests; of replies, messages to subscribers and what went to replicas.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// Counts of all slots. There is no table before there is something to count.
#[derive(Debug, Default)]
pub(crate) struct SlotStats {
    slots: Vec<SlotCounts>,
}

impl SlotStats {
    pub(crate) fn of(&self, slot: Slot) -> SlotCounts {
        self.slots.get(usize::from(slot)).copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, slot: Slot, more: SlotCounts) {
        if self.slots.is_empty() {
            self.slots = vec![SlotCounts::default(); SLOT_COUNT];
        }
        let Some(counts) = self.slots.get_mut(usize::from(slot)) else { return };
        counts.cpu_us += more.cpu_us;
        counts.bytes_in += more.bytes_in;
        counts.bytes_out += more.bytes_out;
    }

    pub(super) fn reset(&mut self, slot: Slot) {
        if let Some(counts) = self.slots.get_mut(usize::from(slot)) {
            *counts = SlotCounts::default();
        }
    }

    /// Begins anew, and gives the memory back.
    pub(crate) fn reset_all(&mut self) {
        self.slots = Vec::new();
    }
}

impl Cluster {
    pub(crate) fn slot_stats(&self) -> &SlotStats {
        &self.slot_stats
    }

    pub(crate) fn slot_stats_mut(&mut self) -> &mut SlotStats {
        &mut self.slot_stats
    }

    /// The slots of this node, or of the master that it is a replica of.
    pub(crate) fn slots_of_shard(&self) -> &SlotSet {
        &self.nodes[self.top_master(self.myself)].slots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_until_they_begin_anew() {
        let mut stats = SlotStats::default();
        assert_eq!(stats.of(7), SlotCounts::default());
        stats.reset(7);
        let call = SlotCounts { cpu_us: 5, bytes_in: 33, bytes_out: 5 };
        stats.add(7, call);
        stats.add(7, call);
        stats.add(16383, call);
        assert_eq!(stats.of(7), SlotCounts { cpu_us: 10, bytes_in: 66, bytes_out: 10 });
        stats.reset(7);
        assert_eq!((stats.of(7), stats.of(16383)), (SlotCounts::default(), call));
        stats.reset_all();
        assert_eq!(stats.of(16383), SlotCounts::default());
    }
}
