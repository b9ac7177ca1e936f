//! The data: databases, lookups with their expiry and statistics, and the record of what a command changed.
//!
//! A command never touches a database's table itself: it goes through `Keyspace`, which expires lazily, counts hits,
//! keeps the access clock, wakes watchers and notes what is to be propagated. Sending all that on is `dispatch`'s.

pub mod db;
pub mod effects;
pub mod object;
pub mod watch;

pub use db::{Db, EntryMut};
pub use effects::Effects;
pub use object::{Entry, Object};

use crate::structs::entry::{NewValue, OwnedValue};
use crate::structs::table::HashSeed;
use watch::WatchTable;

/// How a lookup treats a key whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpirePolicy {
    /// It is deleted, and the deletion propagated.
    Delete,
    /// It is invisible but stays: the master's DEL will come (replicas), or deletion is paused.
    Hide,
    /// It is visible: the master's own stream and the AOF decide alone.
    Ignore,
}

/// Counters of lookups and expiry, as INFO stats has them.
#[derive(Debug, Default, Clone)]
pub struct KeyspaceStats {
    pub hits: u64,
    pub misses: u64,
    pub expired: u64,
    pub evicted: u64,
    pub expire_cycle_cpu_us: u64,
    pub expired_stale_perc: f64,
    pub expired_time_cap_reached: u64,
}

/// What a lookup counts and touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Touch {
    /// A read by a client: counts a hit or a miss and moves the access clock.
    Read,
    /// A write: moves the access clock.
    Write,
    /// Leaves no trace (OBJECT, TYPE, EXISTS-like looks).
    None,
}

pub struct Keyspace {
    pub dbs: Vec<Db>,
    pub effects: Effects,
    pub stats: KeyspaceStats,
    pub watch: WatchTable,
    /// Wall clock the running command sees, ms since 1970. One value for the whole of a command, transaction or script.
    pub now_ms: i64,
    pub expire_policy: ExpirePolicy,
    /// LRU clock or LFU counter update to give to touched keys; see `object::touch`.
    pub access: object::AccessClock,
    /// Deleting an expired key propagates UNLINK rather than DEL, and frees on the helper thread.
    pub lazy_expire: bool,
    /// CLIENT NO-TOUCH of the running client, or a child process at work.
    pub no_touch: bool,
}

impl Keyspace {
    /// `count` databases; with `per_slot`, tables by hash slot (cluster mode).
    pub fn new(count: usize, per_slot: bool, seed: HashSeed) -> Keyspace {
        Keyspace {
            dbs: (0..count).map(|_| Db::new(per_slot, seed)).collect(),
            effects: Effects::default(),
            stats: KeyspaceStats::default(),
            watch: WatchTable::default(),
            now_ms: 0,
            expire_policy: ExpirePolicy::Delete,
            access: object::AccessClock::default(),
            lazy_expire: false,
            no_touch: false,
        }
    }

    /// Whether an expire time has come.
    pub fn is_past(&self, expire_ms: i64) -> bool {
        self.expire_policy != ExpirePolicy::Ignore && expire_ms < self.now_ms
    }

    /// Looks a key up for a client that reads it.
    pub fn read(&mut self, db: usize, key: &[u8]) -> Option<EntryMut<'_>> {
        self.lookup(db, key, Touch::Read)
    }

    /// Looks a key up for changing it.
    pub fn write(&mut self, db: usize, key: &[u8]) -> Option<EntryMut<'_>> {
        self.lookup(db, key, Touch::Write)
    }

    /// Looks a key up without a trace; an expired one is still removed.
    pub fn peek(&mut self, db: usize, key: &[u8]) -> Option<&Entry> {
        self.remove_if_expired(db, key);
        let hidden = self.expire_policy == ExpirePolicy::Hide;
        self.dbs[db].get(key).filter(|e| !(hidden && e.expire_ms().is_some_and(|t| t < self.now_ms)))
    }

    pub fn lookup(&mut self, db: usize, key: &[u8], touch: Touch) -> Option<EntryMut<'_>> {
        self.remove_if_expired(db, key);
        let hidden = self.expire_policy == ExpirePolicy::Hide;
        let now = self.now_ms;
        let found = self.dbs[db].get_mut(key).filter(|e| !(hidden && e.expire_ms().is_some_and(|t| t < now)));
        match found {
            Some(mut entry) => {
                if touch == Touch::Read {
                    self.stats.hits += 1;
                }
                if touch != Touch::None && !self.no_touch {
                    self.access.touch(&mut entry);
                }
                Some(entry)
            }
            None => {
                if touch == Touch::Read {
                    self.stats.misses += 1;
                    self.effects.notify(effects::notify::KEY_MISS, "keymiss", key, db);
                }
                None
            }
        }
    }

    pub fn exists(&mut self, db: usize, key: &[u8]) -> bool {
        self.peek(db, key).is_some()
    }

    /// Deletes the key if its time has come and the policy lets us; propagates the deletion.
    fn remove_if_expired(&mut self, db: usize, key: &[u8]) {
        if self.expire_policy != ExpirePolicy::Delete || self.dbs[db].expires_len() == 0 {
            return;
        }
        let due = self.dbs[db].get(key).and_then(|e| e.expire_ms()).is_some_and(|t| t < self.now_ms);
        if due {
            self.expire_now(db, key);
        }
    }

    /// Removes a key whose time has come, with everything that goes with it.
    pub fn expire_now(&mut self, db: usize, key: &[u8]) {
        let Some(entry) = self.dbs[db].remove(key) else { return };
        let lazy = self.lazy_expire;
        self.effects.free(entry, lazy);
        self.effects.propagate_now(db, &[if lazy { b"UNLINK" } else { b"DEL" }, key]);
        self.effects.notify(effects::notify::EXPIRED, "expired", key, db);
        self.signal_modified(db, key);
        self.stats.expired += 1;
    }

    /// Stores a value, in place of what is there. The time to live goes unless `keep_ttl`.
    pub fn set(&mut self, db: usize, key: &[u8], value: NewValue<'_, Object>, keep_ttl: bool) {
        let Some(mut entry) = self.dbs[db].get_mut(key) else {
            self.insert(db, key, value, None);
            return self.signal_modified(db, key);
        };
        entry.set_value(value);
        self.access.reset(&mut entry);
        let drop_ttl = !keep_ttl && entry.has_expire();
        drop(entry);
        if drop_ttl {
            self.dbs[db].set_expire(key, None);
        }
        self.signal_modified(db, key);
    }

    /// Adds a key that is known to be absent. Does not signal the change: see `signal_modified`.
    pub fn insert(&mut self, db: usize, key: &[u8], value: NewValue<'_, Object>, expire_ms: Option<i64>) {
        let mut entry = Entry::new(key, value, expire_ms);
        self.access.init(&mut entry);
        self.dbs[db].insert_new(entry);
        self.effects.notify(effects::notify::NEW, "new", key, db);
        self.effects.ready(db, key);
    }

    /// Removes a key and gives its value back.
    pub fn take(&mut self, db: usize, key: &[u8]) -> Option<(OwnedValue<Object>, Option<i64>)> {
        let entry = self.dbs[db].remove(key)?;
        let expire = entry.expire_ms();
        Some((entry.take_value(), expire))
    }

    /// Deletes a key; `lazy` frees its value on the helper thread when that is worth it. The change is signalled; the
    /// event and the count of changes are the caller's.
    pub fn delete(&mut self, db: usize, key: &[u8], lazy: bool) -> bool {
        let Some(entry) = self.dbs[db].remove(key) else { return false };
        self.effects.free(entry, lazy);
        self.signal_modified(db, key);
        true
    }

    /// Sets or removes the expire time of a key that is there.
    pub fn set_expire(&mut self, db: usize, key: &[u8], expire_ms: Option<i64>) {
        self.dbs[db].set_expire(key, expire_ms);
    }

    /// To be called for every key whose value or time to live changed.
    pub fn signal_modified(&mut self, db: usize, key: &[u8]) {
        self.watch.touch(db, key);
        self.effects.modified(db, key);
    }

    /// Empties one database or all; gives the number of keys removed. Watchers of present keys are touched.
    pub fn flush(&mut self, db: Option<usize>, lazy: bool) -> usize {
        let range = match db {
            Some(d) => d..d + 1,
            None => 0..self.dbs.len(),
        };
        let mut removed = 0;
        for d in range {
            self.watch.touch_flushed(d, &self.dbs[d], None);
            removed += self.dbs[d].len();
            let old = self.dbs[d].take_all();
            self.effects.free_tables(old, lazy);
        }
        removed
    }

    /// Exchanges the contents of two databases.
    pub fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        self.watch.touch_flushed(a, &self.dbs[a], Some(&self.dbs[b]));
        self.watch.touch_flushed(b, &self.dbs[b], Some(&self.dbs[a]));
        self.dbs.swap(a, b);
    }

    pub fn total_keys(&self) -> usize {
        self.dbs.iter().map(Db::len).sum()
    }
}
