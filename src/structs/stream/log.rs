//! A stream's log: entries in the order of their ids, added at the end, trimmed from the beginning, deleted anywhere.
//!
//! Deleting an entry marks it; its bytes go with its node, when no live entry is left in that. Nodes are begun, trimmed
//! and dropped exactly when a 7.2 server does so, since replicas and payloads show them.
//!
//! Invariant: the length is the number of live entries, except for a constant difference if it was loaded with one
//! (early versions of Redis 5 miscounted, and a 7.2 server goes on from what they wrote); the first id is the first
//! live one's (0-0 without any), and no entry is beyond the last id.

use super::id::StreamId;
use super::node::{Entry, Head, Node};
use super::nodes::{At, Nodes};
use crate::structs::listpack::Pos;

/// Largest node where no limit is set, bytes: what a listpack can hold.
const NODE_BYTES_MAX: usize = 1 << 30;
/// Most memory allocated at once for a new node, bytes.
const PREALLOC_MAX: usize = 4096;

/// How large a node may become: `stream-node-max-bytes` and `stream-node-max-entries`; 0 stands for no limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) node_bytes: usize,
    pub(crate) node_entries: u64,
}

/// What a stream stores besides its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) last_id: StreamId,
    /// Highest id that XDEL ever removed.
    pub(crate) max_deleted_id: StreamId,
    /// Entries that were ever added.
    pub(crate) entries_added: u64,
}

/// Which entries trimming leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TrimBy {
    /// So many entries, the newest.
    Len(u64),
    /// Entries from this id on.
    MinId(StreamId),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Trim {
    pub(crate) by: TrimBy,
    /// Only whole nodes go.
    pub(crate) approx: bool,
    /// Most entries to remove; 0: any number.
    pub(crate) limit: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log {
    nodes: Nodes,
    live: u64,
    /// By how much the reported length exceeds `live`.
    miscount: i64,
    first_id: StreamId,
    pub(crate) counters: Counters,
}

/// A log of nodes that are read one after the other.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    log: Log,
    /// Of the last node.
    last_id: Option<StreamId>,
    /// Nodes from the first on that does not follow those before it.
    loose: Vec<Node>,
    /// Ids do not grow within some node: those of deleted entries.
    is_mixed: bool,
}

impl Growing {
    /// Adds a node. `in_order`: the ids grow within it; otherwise those of deleted entries may not.
    pub(crate) fn push(&mut self, node: Node, in_order: bool) {
        let follows = self.last_id.is_none_or(|last| last < node.id);
        self.last_id = Some(node.last_id());
        self.is_mixed |= !in_order;
        if follows && self.loose.is_empty() {
            self.log.push_node(node);
        } else {
            self.loose.push(node);
        }
    }

    /// The nodes, as they were added.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.log.nodes().chain(&self.loose)
    }

    /// The log, recorded as `len` entries. Deleted entries out of order are left out. The error says what is contradictory.
    pub(crate) fn done(&mut self, counters: Counters, len: u64) -> Result<Log, &'static str> {
        let mut log = if self.is_mixed || !self.loose.is_empty() || self.last_id > Some(counters.last_id) {
            self.compacted(counters.last_id)?
        } else {
            std::mem::take(&mut self.log)
        };
        log.counters = counters;
        log.miscount = len.wrapping_sub(log.live) as i64;
        log.first_id = log.first_live();
        Ok(log)
    }

    /// A log of the entries that are not deleted, none of which may be beyond `last_id`.
    fn compacted(&self, last_id: StreamId) -> Result<Log, &'static str> {
        let mut nodes: Vec<Node> = self.nodes().filter_map(Node::compacted).collect();
        nodes.sort_by_key(|node| node.id);
        if !nodes.windows(2).all(|pair| pair[0].last_id() < pair[1].id) {
            return Err("entries out of order");
        }
        if nodes.last().is_some_and(|node| node.last_id() > last_id) {
            return Err("an entry beyond the last id");
        }
        let mut log = Log::default();
        nodes.into_iter().for_each(|node| log.push_node(node));
        Ok(log)
    }
}

impl Log {
    /// Adds a loaded node after all others.
    fn push_node(&mut self, node: Node) {
        self.live += node.counts().0;
        self.nodes.push(node);
    }

    /// Sets the last id, which no live entry may exceed. Deleted entries that do are removed.
    pub(crate) fn set_last_id(&mut self, id: StreamId) {
        self.counters.last_id = id;
        while let Some(at) = self.nodes.last()
            && self.nodes.get(at).last_id() > id
        {
            match self.nodes.get(at).compacted() {
                Some(node) => {
                    assert!(node.last_id() <= id, "no entry is beyond the last id");
                    self.nodes.remove(at);
                    self.nodes.push(node);
                }
                None => self.nodes.remove(at),
            }
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.live.saturating_add_signed(self.miscount)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    pub(crate) fn last_id(&self) -> StreamId {
        self.counters.last_id
    }

    /// The first entry's id; 0-0 when there is none.
    pub(crate) fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// The id for an entry added at this time; `None` when there is none left.
    pub(crate) fn next_id(&self, now_ms: u64) -> Option<StreamId> {
        let last = self.counters.last_id;
        if now_ms > last.ms { Some(StreamId::new(now_ms, 0)) } else { last.next() }
    }

    /// Adds an entry of `count` fields, `bytes` long in all, at the end. Its id must exceed the last one.
    pub(crate) fn append<'a, F>(&mut self, id: StreamId, count: usize, bytes: usize, fields: F, limits: Limits)
    where
        F: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        assert!(id > self.counters.last_id, "ids grow");
        let node_bytes = match limits.node_bytes {
            0 => NODE_BYTES_MAX,
            bytes => bytes.min(NODE_BYTES_MAX),
        };
        let mut capacity = 0;
        let mut appended = false;
        if let Some(tail) = self.nodes.last_mut() {
            let full = tail.total_bytes() + bytes >= node_bytes
                || (limits.node_entries > 0 && {
                    let (live, deleted) = tail.counts();
                    live.saturating_add(deleted) >= limits.node_entries
                });
            if full {
                // Entries of a stream are alike: the next node will likely have the size of this one.
                capacity = tail.total_bytes().min(PREALLOC_MAX).min(node_bytes);
                tail.shrink_to_fit();
            } else {
                tail.append(id, count, fields.clone());
                appended = true;
            }
        }
        if !appended {
            self.nodes.push(Node::new(id, count, fields, capacity));
        }
        self.live += 1;
        self.counters.entries_added = self.counters.entries_added.wrapping_add(1);
        self.counters.last_id = id;
        if self.live == 1 {
            self.first_id = id;
        }
    }

    /// The live entries from `start` to `end`, both included.
    pub(crate) fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        Range::new(self, start, end, false)
    }

    /// As [`Self::range`], but from `end` to `start`.
    pub(crate) fn range_back(&self, start: StreamId, end: StreamId) -> Range<'_> {
        Range::new(self, start, end, true)
    }

    /// All live entries.
    pub(crate) fn iter(&self) -> Range<'_> {
        self.range(StreamId::MIN, StreamId::MAX)
    }

    pub(crate) fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        self.range(id, id).next()
    }

    #[cfg(test)]
    pub(crate) fn contains(&self, id: StreamId) -> bool {
        self.get(id).is_some()
    }

    /// The id of the last live entry.
    pub(crate) fn last_live(&self) -> Option<StreamId> {
        self.range_back(StreamId::MIN, StreamId::MAX).next().map(|e| e.id)
    }

    fn first_live(&self) -> StreamId {
        self.iter().next().map_or(StreamId::MIN, |e| e.id)
    }

    /// The id of the first entry that still takes space, deleted or not; without any, the largest possible id.
    pub(crate) fn first_stored(&self) -> StreamId {
        let Some(at) = self.nodes.first() else { return StreamId::MAX };
        let node = self.nodes.get(at);
        let head = node.head();
        head.entries_at.map_or(StreamId::MAX, |at| node.entry_at(&head, at).id)
    }

    /// Deletes the entries of these ids. Returns how many there were.
    pub(crate) fn delete(&mut self, ids: &[StreamId]) -> u64 {
        let mut deleted = 0;
        let mut first_gone = false;
        for id in ids {
            if self.delete_one(*id) {
                deleted += 1;
                first_gone |= *id == self.first_id;
                self.counters.max_deleted_id = self.counters.max_deleted_id.max(*id);
            }
        }
        if first_gone {
            self.first_id = self.first_live();
        }
        deleted
    }

    fn delete_one(&mut self, id: StreamId) -> bool {
        let Some(at) = self.nodes.floor(id) else { return false };
        let node = self.nodes.get_mut(at);
        let head = node.head();
        let mut next = head.entries_at;
        while let Some(place) = next {
            let entry = node.entry_at(&head, place);
            if entry.id >= id {
                if entry.id > id || entry.is_deleted() {
                    return false;
                }
                if head.live == 1 {
                    self.nodes.remove(at);
                } else {
                    node.mark_deleted(&entry);
                    node.count_deleted(1);
                }
                self.live -= 1;
                return true;
            }
            next = node.behind(&entry);
        }
        false
    }

    /// Removes entries from the beginning. Returns how many.
    pub(crate) fn trim(&mut self, trim: Trim) -> u64 {
        let mut deleted = 0;
        while let Some(at) = self.nodes.first() {
            if let TrimBy::Len(len) = trim.by
                && self.len() <= len
            {
                break;
            }
            let node = self.nodes.get(at);
            let (live, _) = node.counts();
            if trim.limit > 0 && deleted + live > trim.limit {
                break;
            }
            let whole = match trim.by {
                TrimBy::Len(len) => self.len().checked_sub(live).is_some_and(|left| left >= len),
                TrimBy::MinId(id) => node.last_id() < id,
            };
            if whole {
                self.nodes.remove(at);
                self.live -= live;
                deleted += live;
                continue;
            }
            if !trim.approx {
                deleted += self.trim_within(at, trim.by);
            }
            break;
        }
        if deleted > 0 {
            self.first_id = self.first_live();
        }
        deleted
    }

    /// Marks entries of a node as deleted, up to where trimming ends.
    fn trim_within(&mut self, at: At, by: TrimBy) -> u64 {
        let before = self.len();
        let node = self.nodes.get_mut(at);
        let head = node.head();
        let mut deleted = 0;
        let mut next = head.entries_at;
        while let Some(place) = next {
            let entry = node.entry_at(&head, place);
            let stop = match by {
                TrimBy::Len(len) => before.saturating_sub(deleted) <= len,
                TrimBy::MinId(id) => entry.id >= id,
            };
            if stop {
                break;
            }
            next = node.behind(&entry);
            if !entry.is_deleted() {
                node.mark_deleted(&entry);
                deleted += 1;
            }
        }
        node.count_deleted(deleted);
        self.live -= deleted;
        deleted
    }

    /// Whether an entry that was deleted one by one may be among those from `start` on.
    pub(crate) fn has_deleted_from(&self, start: StreamId) -> bool {
        let deleted = self.counters.max_deleted_id;
        !self.is_empty() && deleted != StreamId::MIN && self.first_id <= deleted && start <= deleted
    }

    /// How many entries were ever added up to and including this id; `None` where that is unknown.
    pub(crate) fn added_up_to(&self, id: StreamId) -> Option<u64> {
        let Counters { last_id, max_deleted_id, entries_added } = self.counters;
        if entries_added == 0 {
            return Some(0);
        }
        if id == last_id || (self.is_empty() && id < last_id) {
            return Some(entries_added);
        }
        if id > last_id {
            return None;
        }
        let no_holes = max_deleted_id == StreamId::MIN || max_deleted_id < self.first_id;
        let before_first = entries_added.wrapping_sub(self.len());
        match id.cmp(&self.first_id) {
            std::cmp::Ordering::Less if no_holes => Some(before_first),
            std::cmp::Ordering::Equal if no_holes => Some(before_first.wrapping_add(1)),
            _ => None,
        }
    }

    /// Number of nodes of a radix tree over the ids of our nodes: the size of the index that clients see.
    pub(crate) fn radix_node_count(&self) -> usize {
        self.nodes.radix_len()
    }

    /// Bytes of memory besides itself; for a long log an estimate from so many nodes (0: all of them).
    pub(crate) fn mem_bytes_sampled(&self, samples: usize) -> usize {
        let samples = if samples == 0 { usize::MAX } else { samples };
        let looked_at = self.nodes.len().min(samples);
        let sum: usize = self.nodes.iter().take(looked_at).map(Node::capacity).sum();
        let of_nodes = match looked_at {
            0 => 0,
            n => (sum as f64 / n as f64 * self.nodes.len() as f64) as usize,
        };
        self.nodes.mem_bytes() + of_nodes
    }

    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.nodes.check_invariants();
        self.nodes.iter().for_each(Node::check_invariants);
        assert_eq!(self.nodes.iter().map(|n| n.counts().0).sum::<u64>(), self.live);
        assert_eq!(self.iter().count() as u64, self.live);
        assert_eq!(self.first_live(), self.first_id);
        assert!(self.nodes.iter().all(|n| n.last_id() <= self.counters.last_id));
    }
}

/// Live entries of a log, in either direction.
#[derive(Clone)]
pub(crate) struct Range<'a> {
    log: &'a Log,
    /// The node it is in, with what its head says.
    node: Option<(At, Head)>,
    /// The entry that comes next in that node.
    at: Option<Pos>,
    start: StreamId,
    end: StreamId,
    back: bool,
}

impl<'a> Range<'a> {
    fn new(log: &'a Log, start: StreamId, end: StreamId, back: bool) -> Range<'a> {
        let mut range = Range { log, node: None, at: None, start, end, back };
        let first = if back { log.nodes.floor(end) } else { log.nodes.floor(start).or_else(|| log.nodes.first()) };
        if start <= end {
            range.enter(first);
        }
        range
    }

    fn enter(&mut self, at: Option<At>) {
        self.node = at.map(|at| (at, self.log.nodes.get(at).head()));
        self.at = match &self.node {
            Some((at, _)) if self.back => self.log.nodes.get(*at).last_entry(),
            Some((_, head)) => head.entries_at,
            None => None,
        };
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        loop {
            let (node_at, head) = self.node?;
            let node = self.log.nodes.get(node_at);
            let Some(at) = self.at else {
                let next = if self.back { self.log.nodes.prev(node_at) } else { self.log.nodes.next(node_at) };
                self.enter(next);
                continue;
            };
            let entry = node.entry_at(&head, at);
            let over = if self.back { entry.id < self.start } else { entry.id > self.end };
            if over {
                self.node = None;
                return None;
            }
            self.at = if self.back { node.before(&entry) } else { node.behind(&entry) };
            let within = if self.back { entry.id <= self.end } else { entry.id >= self.start };
            if within && !entry.is_deleted() {
                return Some(node.view(&head, &entry));
            }
        }
    }
}
