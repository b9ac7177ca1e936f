//! Keys changed by commands that are not durable in the AOF yet, while `appendfsync always` keeps replies back.
//!
//! A reply about other keys alone need not wait. Keys are known by their hashes, whatever their database. A collision
//! makes a reply wait needlessly, which does no harm.
//!
//! Invariant: a key that a propagated command changed is in here until a later sync is done.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

#[derive(Debug, Default)]
struct Generation {
    hashes: HashSet<u64>,
    /// Unknown keys changed, so it holds all keys.
    all: bool,
}

impl Generation {
    fn clear(&mut self) {
        self.hashes.clear();
        self.all = false;
    }
}

#[derive(Debug, Default)]
pub(crate) struct UnsyncedKeys {
    wanted: bool,
    hasher: RandomState,
    /// Keys changed since the last sync began.
    gathering: Generation,
    /// Keys covered by the sync under way.
    syncing: Generation,
    /// Keys named so far, and how many there were when the last command was propagated.
    named: u64,
    named_before: u64,
}

impl UnsyncedKeys {
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Begins or ends tracking. What changed before it began is not known.
    pub(crate) fn set_wanted(&mut self, wanted: bool) {
        if wanted != self.wanted {
            self.wanted = wanted;
            self.gathering.clear();
            self.syncing.clear();
            self.gathering.all = true;
            self.syncing.all = true;
        }
    }

    /// Notes that a key changes.
    #[inline]
    pub(crate) fn note(&mut self, key: &[u8]) {
        if self.wanted {
            self.add(key);
        }
    }

    #[inline(never)]
    fn add(&mut self, key: &[u8]) {
        self.named += 1;
        self.gathering.hashes.insert(self.hasher.hash_one(key));
    }

    /// Notes that any key may have changed.
    pub(crate) fn note_all(&mut self) {
        self.gathering.all = true;
    }

    /// Notes that a command goes to the AOF. If no key was named for it, it may have changed any.
    pub(crate) fn command_propagated(&mut self) {
        if self.named == self.named_before {
            self.note_all();
        }
        self.named_before = self.named;
    }

    /// A sync begins that covers everything so far, also what the one before covers if that is not done.
    pub(crate) fn sync_begins(&mut self) {
        std::mem::swap(&mut self.gathering, &mut self.syncing);
        self.syncing.all |= self.gathering.all;
        self.syncing.hashes.extend(self.gathering.hashes.drain());
        self.gathering.clear();
    }

    /// Whether anything has changed since the last sync began.
    pub(crate) fn has_changes(&self) -> bool {
        self.gathering.all || !self.gathering.hashes.is_empty()
    }

    /// The sync that began last is done.
    pub(crate) fn sync_done(&mut self) {
        self.syncing.clear();
    }

    /// Whether the key may have changes that are not durable.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let generations = [&self.gathering, &self.syncing];
        if generations.iter().any(|g| g.all) {
            return true;
        }
        let hash = self.hasher.hash_one(key);
        generations.iter().any(|g| g.hashes.contains(&hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> UnsyncedKeys {
        let mut keys = UnsyncedKeys::default();
        keys.set_wanted(true);
        assert!(keys.contains(b"any"), "what changed before is not known");
        keys.sync_begins();
        keys.sync_done();
        keys
    }

    #[test]
    fn a_key_stays_until_a_later_sync_is_done() {
        let mut keys = wanted();
        keys.note(b"a");
        assert!(keys.contains(b"a") && !keys.contains(b"b"));
        keys.sync_begins();
        keys.note(b"b");
        keys.note(b"a");
        keys.sync_done();
        assert!(keys.contains(b"a") && keys.contains(b"b") && !keys.contains(b"c"));
        keys.sync_begins();
        assert!(keys.contains(b"a") && keys.contains(b"b"));
        keys.sync_done();
        assert!(!keys.contains(b"a") && !keys.contains(b"b"));
    }

    #[test]
    fn a_command_that_names_no_key_stands_for_all() {
        let mut keys = wanted();
        keys.note(b"a");
        keys.command_propagated();
        assert!(!keys.contains(b"b"));
        keys.command_propagated();
        assert!(keys.contains(b"b"));
        keys.sync_begins();
        assert!(keys.contains(b"b"));
        keys.sync_done();
        assert!(!keys.contains(b"b"));
    }
}
