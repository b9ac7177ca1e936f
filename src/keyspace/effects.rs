//! What commands changed, in order, until `dispatch` drains it: commands to propagate, key events, values to free.

use super::unsynced::UnsyncedKeys;
use super::{Entry, db::Tables, object};
use crate::resp::Reply;
use crate::tracking::table::KeyTable;

/// Classes of keyspace events, the flags of `notify-keyspace-events`.
pub mod notify {
    pub const KEYSPACE: u32 = 1 << 0;
    pub const KEYEVENT: u32 = 1 << 1;
    pub const GENERIC: u32 = 1 << 2;
    pub const STRING: u32 = 1 << 3;
    pub const LIST: u32 = 1 << 4;
    pub const SET: u32 = 1 << 5;
    pub const HASH: u32 = 1 << 6;
    pub const ZSET: u32 = 1 << 7;
    pub const EXPIRED: u32 = 1 << 8;
    pub const EVICTED: u32 = 1 << 9;
    pub const STREAM: u32 = 1 << 10;
    pub const KEY_MISS: u32 = 1 << 11;
    pub const MODULE: u32 = 1 << 13;
    pub const NEW: u32 = 1 << 14;
}

/// Where a propagated command goes.
pub mod target {
    pub const AOF: u8 = 1;
    pub const REPLICAS: u8 = 2;
    pub const ALL: u8 = AOF | REPLICAS;
}

/// One command to propagate: its bytes in `PropQueue::bytes`.
#[derive(Clone, Debug)]
pub struct PropOp {
    pub db: usize,
    pub targets: u8,
    pub start: usize,
    pub end: usize,
}

/// Commands to propagate, already in the form of the replication stream.
#[derive(Debug, Default)]
pub struct PropQueue {
    pub bytes: Vec<u8>,
    pub ops: Vec<PropOp>,
}

/// A keyspace event to publish.
#[derive(Clone, Debug)]
pub struct KeyEvent {
    pub class: u32,
    pub event: &'static str,
    pub key: Vec<u8>,
    pub db: usize,
}

/// A key that changed, whatever its database.
#[derive(Clone, Debug)]
pub struct ModifiedKey {
    pub key: Vec<u8>,
    /// By a command, rather than because its time came or room was needed.
    pub by_command: bool,
}

#[derive(Default)]
pub struct Effects {
    /// Changes since the last save, as INFO's `rdb_changes_since_last_save`.
    pub dirty: u64,
    pub props: PropQueue,
    /// Some sink takes propagated commands (AOF on, or a backlog exists).
    pub has_sinks: bool,
    /// What the running command is to be propagated as, in place of its own arguments: bytes of one command each.
    pub replacement: Option<Vec<Vec<u8>>>,
    /// Targets the running command is kept from, or sent to even though it changed nothing.
    pub prevented: u8,
    pub forced: u8,
    /// Targets that the commands of the running script are kept from (`redis.set_repl`).
    pub withheld: u8,
    /// More than one command of one unit goes without MULTI around it (expiry and eviction cycles).
    pub no_multi: bool,
    pub events: Vec<KeyEvent>,
    /// `notify-keyspace-events`.
    pub notify_flags: u32,
    /// Keys that came to hold something while clients wait for keys.
    pub ready_keys: Vec<(usize, Vec<u8>)>,
    pub wants_ready: bool,
    /// Some client is to learn, too, that a key it waits for went away.
    pub wants_gone: bool,
    /// Any key may have come to hold something: databases were exchanged.
    pub any_ready: bool,
    /// Keys changed, while some client tracks keys.
    pub modified_keys: Vec<ModifiedKey>,
    pub wants_modified: bool,
    /// Whole databases were emptied, while some client tracks keys.
    pub flushed: bool,
    /// Keys whose changes are not durable yet.
    pub unsynced: UnsyncedKeys,
    /// Values for the helper thread to free.
    pub garbage: Vec<Garbage>,
}

/// What the helper thread frees.
pub enum Garbage {
    Entry(Entry),
    Tables(Tables),
    Tracking(KeyTable),
}

impl Effects {
    /// Nothing has gathered but, perhaps, what the running command is to be propagated as.
    #[inline]
    pub fn is_quiet(&self) -> bool {
        // At once, as it is asked after every command.
        let gathered = self.props.ops.len()
            | self.events.len()
            | self.ready_keys.len()
            | self.modified_keys.len()
            | self.garbage.len();
        gathered == 0 && !(self.any_ready | self.flushed)
    }

    /// The running command is to be propagated; `dirty_before` is what `dirty` was before it.
    #[inline]
    pub fn has_to_propagate(&self, dirty_before: u64) -> bool {
        self.has_sinks && (self.dirty != dirty_before || self.forced != 0)
    }

    /// Forgets what the command that ran said about how it is to be propagated.
    #[inline]
    pub fn forget_command(&mut self) {
        if self.replacement.is_some() {
            self.replacement = None;
        }
        self.forced = 0;
        self.prevented = 0;
    }

    /// Records an event if its class is asked for.
    #[inline]
    pub fn notify(&mut self, class: u32, event: &'static str, key: &[u8], db: usize) {
        if self.notify_flags & class != 0 && self.notify_flags & (notify::KEYSPACE | notify::KEYEVENT) != 0 {
            self.add_event(class, event, key, db);
        }
    }

    #[cold]
    fn add_event(&mut self, class: u32, event: &'static str, key: &[u8], db: usize) {
        self.events.push(KeyEvent { class, event, key: key.to_vec(), db });
    }

    /// Adds a command to propagate, behind what is there and before the running command's own.
    pub fn propagate_now(&mut self, db: usize, args: &[&[u8]]) {
        self.propagate(db, target::ALL, args.iter().copied());
    }

    pub fn propagate<'a>(&mut self, db: usize, targets: u8, args: impl ExactSizeIterator<Item = &'a [u8]>) {
        if !self.has_sinks {
            return;
        }
        let start = self.props.bytes.len();
        let mut writer = Reply::over(std::mem::take(&mut self.props.bytes));
        writer.command(args);
        self.props.bytes = writer.buf;
        self.props.ops.push(PropOp { db, targets, start, end: self.props.bytes.len() });
    }

    /// The running command is propagated as this one; may be called several times for several commands.
    pub fn replace_with(&mut self, args: &[&[u8]]) {
        if !self.has_sinks {
            return;
        }
        let mut writer = Reply::default();
        writer.command(args.iter().copied());
        self.replacement.get_or_insert_with(Vec::new).push(writer.buf);
    }

    #[inline]
    pub fn modified(&mut self, key: &[u8], by_command: bool) {
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
    pub fn ready(&mut self, db: usize, key: &[u8]) {
        if self.wants_ready {
            self.ready_keys.push((db, key.to_vec()));
        }
    }

    /// A key was deleted, or something else took its place.
    #[inline]
    pub fn gone(&mut self, db: usize, key: &[u8]) {
        if self.wants_gone {
            self.ready_keys.push((db, key.to_vec()));
        }
    }

    /// Frees an entry, on the helper thread when it is asked for and large enough to be worth it.
    pub fn free(&mut self, entry: Entry, lazy: bool) {
        if lazy && object::free_effort(&entry) > 64 {
            self.garbage.push(Garbage::Entry(entry));
        }
    }

    pub fn free_tables(&mut self, tables: Tables, lazy: bool) {
        if lazy {
            self.garbage.push(Garbage::Tables(tables));
        }
    }
}

impl Garbage {
    /// Number of keys it was, as INFO counts them.
    pub fn objects(&self) -> usize {
        match self {
            Garbage::Entry(_) => 1,
            Garbage::Tables(t) => t.len(),
            Garbage::Tracking(_) => 0,
        }
    }
}
