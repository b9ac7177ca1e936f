//! Streams: a log of entries, each with an id and fields, and the groups of consumers that share in reading it.
//!
//! `log` holds the entries, in nodes whose bytes (`node`) are those of RDB files and DUMP payloads; `group` holds what
//! was delivered to whom and not acknowledged yet. Nothing here reads a clock: callers pass the time.
//!
//! Invariant: ids grow from entry to entry, deleted ones that still take space included, and never exceed the last id;
//! every pending entry has exactly one owner.

mod group;
mod id;
mod log;
mod node;
mod nodes;
#[cfg(test)]
mod tests;

pub(crate) use group::{ConsumerId, Group, Pending};
pub(crate) use id::StreamId;
pub(crate) use log::{Counters, Growing, Limits, Log, Trim, TrimBy};
pub(crate) use node::{Entry, Node};

use std::collections::BTreeMap;

/// A stream: its log, and its groups by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stream {
    pub(crate) log: Log,
    groups: BTreeMap<Box<[u8]>, Group>,
}

impl Stream {
    pub(crate) fn new() -> Stream {
        Stream::default()
    }

    /// A stream from a log and groups that were loaded.
    pub(crate) fn from_parts(log: Log, groups: BTreeMap<Box<[u8]>, Group>) -> Stream {
        Stream { log, groups }
    }

    pub(crate) fn group(&self, name: &[u8]) -> Option<&Group> {
        self.groups.get(name)
    }

    /// The log together with one of its groups, for delivering from one to the other.
    pub(crate) fn group_mut(&mut self, name: &[u8]) -> Option<(&Log, &mut Group)> {
        self.groups.get_mut(name).map(|group| (&self.log, group))
    }

    /// Adds a group. False if there is one of this name.
    pub(crate) fn create_group(&mut self, name: &[u8], last_id: StreamId, entries_read: i64) -> bool {
        if self.groups.contains_key(name) {
            return false;
        }
        self.groups.insert(name.into(), Group::new(last_id, entries_read));
        true
    }

    /// Removes a group with all that was pending in it.
    pub(crate) fn destroy_group(&mut self, name: &[u8]) -> bool {
        self.groups.remove(name).is_some()
    }

    pub(crate) fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// The groups, in the order of their names' bytes.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&[u8], &Group)> {
        self.groups.iter().map(|(name, group)| (&name[..], group))
    }

    /// How many entries the group has not read yet; `None` where deleted ones make that uncertain.
    pub(crate) fn lag(&self, group: &Group) -> Option<i64> {
        let added = self.log.counters.entries_added as i64;
        if added == 0 {
            return Some(0);
        }
        let read = if group.entries_read != -1 && !self.log.has_deleted_from(group.last_id) {
            group.entries_read
        } else {
            self.log.added_up_to(group.last_id)? as i64
        };
        Some(added.wrapping_sub(read))
    }

    /// Number of allocations that freeing it takes, roughly.
    pub(crate) fn free_effort(&self) -> usize {
        let pending = self.groups.values().next().map_or(0, Group::pending_len);
        self.log.node_count() + self.groups.len() * (1 + pending)
    }

    /// Bytes of memory, itself included; for a long log an estimate from so many nodes (0: all of them).
    pub(crate) fn mem_bytes_sampled(&self, samples: usize) -> usize {
        let groups = self.groups.iter().map(|(name, group)| name.len() + group.mem_bytes());
        size_of::<Stream>() + self.log.mem_bytes_sampled(samples) + groups.sum::<usize>()
    }

    /// Asserts what the file's head promises.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.log.check_invariants();
        self.groups.values().for_each(Group::check_invariants);
    }
}
