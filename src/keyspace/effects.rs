//! What commands changed, in order, until `server/dispatch` drains it: commands to propagate, key events, values to
//! free.

use super::unsynced::UnsyncedKeys;
use super::{Entry, db::Tables, object};
use crate::resp::Reply;
use crate::sys::background::Discarded;

/// Classes of keyspace events: the flags of `notify-keyspace-events`.
pub(crate) mod notify {
    pub(crate) const KEYSPACE: u32 = 1 << 0;
    pub(crate) const KEYEVENT: u32 = 1 << 1;
    pub(crate) const GENERIC: u32 = 1 << 2;
    pub(crate) const STRING: u32 = 1 << 3;
    pub(crate) const LIST: u32 = 1 << 4;
    pub(crate) const SET: u32 = 1 << 5;
    pub(crate) const HASH: u32 = 1 << 6;
    pub(crate) const ZSET: u32 = 1 << 7;
    pub(crate) const EXPIRED: u32 = 1 << 8;
    pub(crate) const EVICTED: u32 = 1 << 9;
    pub(crate) const STREAM: u32 = 1 << 10;
    pub(crate) const KEY_MISS: u32 = 1 << 11;
    pub(crate) const NEW: u32 = 1 << 14;
}

/// Where a propagated command goes.
pub(crate) mod target {
    pub(crate) const AOF: u8 = 1;
    pub(crate) const REPLICAS: u8 = 2;
    pub(crate) const ALL: u8 = AOF | REPLICAS;
}

/// One command to propagate: its bytes in `PropQueue::bytes`.
#[derive(Clone, Debug)]
pub(crate) struct PropOp {
    pub(crate) db: usize,
    pub(crate) targets: u8,
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// Commands to propagate, already in the form of the replication stream.
#[derive(Debug, Default)]
pub(crate) struct PropQueue {
    pub(crate) bytes: Vec<u8>,
    pub(crate) ops: Vec<PropOp>,
}

/// A keyspace event to publish.
#[derive(Clone, Debug)]
pub(crate) struct KeyEvent {
    pub(crate) event: &'static str,
    pub(crate) key: Vec<u8>,
    pub(crate) db: usize,
}

/// A key that changed, whatever its database.
#[derive(Clone, Debug)]
pub(crate) struct ModifiedKey {
    pub(crate) key: Vec<u8>,
    /// It was changed by a command, not by expiry or eviction.
    pub(crate) by_command: bool,
}

#[derive(Default)]
pub(crate) struct Effects {
    /// Changes since the last save, as INFO's `rdb_changes_since_last_save`.
    pub(crate) dirty: u64,
    pub(crate) props: PropQueue,
    /// Propagated commands go somewhere (AOF on, or a backlog exists), as of when this began.
    pub(crate) has_sinks: bool,
    /// What is propagated in place of the running command: the bytes of one command each.
    pub(crate) replacement: Option<Vec<Vec<u8>>>,
    /// Targets the running command is kept from, or sent to even though it changed nothing.
    pub(crate) prevented: u8,
    pub(crate) forced: u8,
    /// Targets that the running script keeps its commands from (`redis.set_repl`).
    pub(crate) withheld: u8,
    /// Several commands are propagated without MULTI around them (expiry and eviction cycles).
    pub(crate) no_multi: bool,
    pub(crate) events: Vec<KeyEvent>,
    /// `notify-keyspace-events`.
    pub(crate) notify_flags: u32,
    /// Keys that got a value while clients wait for keys, with their database.
    pub(crate) ready_keys: Vec<(usize, Vec<u8>)>,
    pub(crate) wants_ready: bool,
    /// Some client also waits for a key to be deleted.
    pub(crate) wants_gone: bool,
    /// Any key may have got a value: databases were swapped.
    pub(crate) any_ready: bool,
    /// Keys that changed while some client tracks keys.
    pub(crate) modified_keys: Vec<ModifiedKey>,
    pub(crate) wants_modified: bool,
    /// Whole databases were emptied, while some client tracks keys.
    pub(crate) flushed: bool,
    /// Keys whose changes are not durable yet.
    pub(crate) unsynced: UnsyncedKeys,
    /// Values for the helper thread to free.
    pub(crate) garbage: Vec<Discarded>,
}

/// Freeing more allocations than this holds the loop up for most of a millisecond.
const LONG_FREE: usize = 4096;
/// Values sampled to estimate the size of all.
const SAMPLED_VALUES: usize = 32;
/// Elements sampled to estimate the size of a value.
const SAMPLED_ELEMENTS: usize = 5;

impl Effects {
    /// True if nothing has gathered except, perhaps, a replacement for the running command.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        // Without branches, as it is called after every command.
        let gathered = self.props.ops.len()
            | self.events.len()
            | self.ready_keys.len()
            | self.modified_keys.len()
            | self.garbage.len();
        gathered == 0 && !(self.any_ready | self.flushed)
    }

    /// The running command is to be propagated; `dirty_before` is what `dirty` was before it.
    #[inline]
    pub(crate) fn has_to_propagate(&self, dirty_before: u64) -> bool {
        self.has_sinks && (self.dirty != dirty_before || self.forced != 0)
    }

    /// Forgets how the last command asked to be propagated.
    #[inline]
    pub(crate) fn forget_command(&mut self) {
        if self.replacement.is_some() {
            self.replacement = None;
        }
        self.forced = 0;
        self.prevented = 0;
    }

    /// Whether events of a class are recorded.
    #[inline]
    pub(crate) fn wants_events(&self, class: u32) -> bool {
        self.notify_flags & class != 0 && self.notify_flags & (notify::KEYSPACE | notify::KEYEVENT) != 0
    }

    /// Records an event if its class is enabled.
    #[inline]
    pub(crate) fn notify(&mut self, class: u32, event: &'static str, key: &[u8], db: usize) {
        if self.wants_events(class) {
            self.add_event(event, key, db);
        }
    }

    #[cold]
    fn add_event(&mut self, event: &'static str, key: &[u8], db: usize) {
        self.events.push(KeyEvent { event, key: key.to_vec(), db });
    }

    /// Adds a command to propagate, after those there are and before the running command's own.
    pub(crate) fn propagate_now(&mut self, db: usize, args: &[&[u8]]) {
        self.propagate(db, target::ALL, args.iter().copied());
    }

    pub(crate) fn propagate<'a>(&mut self, db: usize, targets: u8, args: impl ExactSizeIterator<Item = &'a [u8]>) {
        if !self.has_sinks {
            return;
        }
        let start = self.props.bytes.len();
        let mut writer = Reply::over(std::mem::take(&mut self.props.bytes));
        writer.command(args);
        self.props.bytes = writer.buf;
        self.props.ops.push(PropOp { db, targets, start, end: self.props.bytes.len() });
    }

    /// Propagates this command in place of the running one; may be called several times for several commands.
    pub(crate) fn replace_with(&mut self, args: &[&[u8]]) {
        if !self.has_sinks {
            return;
        }
        let mut writer = Reply::default();
        writer.command(args.iter().copied());
        self.replacement.get_or_insert_with(Vec::new).push(writer.buf);
    }

    #[inline]
    pub(crate) fn modified(&mut self, key: &[u8], by_command: bool) {
        self.unsynced.note(key);
        if self.wants_modified {
            self.add_modified(key, by_command);
        }
    }

    #[cold]
    fn add_modified(&mut self, key: &[u8], by_command: bool) {
        self.modified_keys.push(ModifiedKey { key: key.to_vec(), by_command });
    }

    #[inline]
    pub(crate) fn ready(&mut self, db: usize, key: &[u8]) {
        if self.wants_ready {
            self.ready_keys.push((db, key.to_vec()));
        }
    }

    /// To be called when a key was deleted or replaced.
    #[inline]
    pub(crate) fn gone(&mut self, db: usize, key: &[u8]) {
        if self.wants_gone {
            self.ready_keys.push((db, key.to_vec()));
        }
    }

    /// Frees an entry: on the helper thread if `lazy` and large enough to be worth it, or so large that it would hold
    /// up the loop.
    pub(crate) fn free(&mut self, entry: Entry, lazy: bool) {
        let effort = object::free_effort(&entry);
        let is_lazy = lazy && effort > 64;
        if is_lazy || effort > LONG_FREE {
            let bytes = object::value_bytes_sampled(&entry, SAMPLED_ELEMENTS);
            self.garbage.push(Discarded { counted: usize::from(is_lazy), bytes, garbage: Box::new(entry) });
        }
    }

    /// As `free`, of whole tables.
    pub(crate) fn free_tables(&mut self, tables: Tables, lazy: bool) {
        let is_long = || {
            let mut effort = 0;
            tables.len() > LONG_FREE
                || tables.iter().any(|entry| {
                    effort += object::free_effort(entry);
                    effort > LONG_FREE
                })
        };
        if lazy || is_long() {
            let sampled = tables.iter().take(SAMPLED_VALUES);
            let bytes = sampled.map(|entry| size_of::<usize>() + object::value_bytes_sampled(entry, SAMPLED_ELEMENTS));
            let bytes = bytes.sum::<usize>() * (tables.len() / SAMPLED_VALUES).max(1);
            let counted = if lazy { tables.len() } else { 0 };
            self.garbage.push(Discarded { counted, bytes, garbage: Box::new(tables) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Keyspace;
    use crate::keyspace::hash::{Hash, HashLimits};
    use crate::structs::entry::NewValue;
    use crate::structs::table::HashSeed;

    fn hash(fields: usize) -> Entry {
        let limits = HashLimits { packed: 128, packed_value: 64, seed: HashSeed([3; 16]) };
        let mut hash = Hash::new();
        for n in 0..fields {
            let field = format!("field {n}");
            hash.will_grow([field.as_bytes(), b"value"].into_iter(), &limits);
            hash.set(field.as_bytes(), b"value", &limits);
        }
        Entry::new(b"key", hash.into(), None)
    }

    #[test]
    fn what_would_hold_the_loop_up_is_freed_aside_whether_asked_for_or_not() {
        let mut effects = Effects::default();
        let mut handed = |fields, lazy| {
            effects.free(hash(fields), lazy);
            effects.garbage.pop().map(|discarded| (discarded.counted, discarded.bytes > fields * 5))
        };
        assert_eq!(handed(10, true), None);
        assert_eq!(handed(200, false), None);
        assert_eq!(handed(200, true), Some((1, true)));
        assert_eq!(handed(LONG_FREE + 1, false), Some((0, true)));
        assert_eq!(handed(LONG_FREE + 1, true), Some((1, true)));
    }

    #[test]
    fn tables_of_many_keys_or_of_large_values_are_freed_aside() {
        for per_slot in [false, true] {
            let seed = HashSeed([3; 16]);
            let flushed = |entries: Vec<Entry>, lazy| {
                let mut ks = Keyspace::new(1, per_slot, seed);
                entries.into_iter().for_each(|entry| ks.dbs[0].insert_new(entry));
                let tables = ks.dbs[0].take_all();
                ks.effects.free_tables(tables, lazy);
                ks.effects.garbage.pop().map(|discarded| discarded.counted)
            };
            let strings = |count: usize| {
                let value = |n: usize| Entry::new(format!("key:{n}").as_bytes(), NewValue::Int(n as i64), None);
                (0..count).map(value).collect::<Vec<_>>()
            };
            assert_eq!(flushed(strings(100), false), None);
            assert_eq!(flushed(strings(100), true), Some(100));
            // Not freed lazily on request, so not counted.
            assert_eq!(flushed(strings(LONG_FREE + 1), false), Some(0));
            assert_eq!(flushed(vec![hash(LONG_FREE + 1)], false), Some(0));
        }
    }
}
