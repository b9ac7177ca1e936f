//! The data: databases, lookups with their expiry and statistics, and the record of what a command changed.
//!
//! A command never touches a database's table itself: it goes through `Keyspace`, which expires lazily, counts hits,
//! keeps the access clock, marks watchers and notes what is to be propagated. `server/dispatch` carries that on.

pub(crate) mod damaged;
pub(crate) mod db;
pub(crate) mod digest;
pub(crate) mod effects;
pub(crate) mod evict;
pub(crate) mod expire;
pub(crate) mod hash;
pub(crate) mod hashes;
pub(crate) mod list;
pub(crate) mod object;
pub(crate) mod set;
#[cfg(test)]
pub(crate) mod touched;
pub(crate) mod unsynced;
pub(crate) mod watch;
pub(crate) mod zset;

pub(crate) use db::{Db, EntryMut, KeyHash, Place};
pub(crate) use effects::Effects;
pub(crate) use object::{Entry, Object};

use crate::structs::entry::NewValue;
use crate::structs::slots::SlotSet;
use crate::structs::table::{HashSeed, Verdict};
use effects::notify;
use expire::is_due;
use watch::WatchTable;

/// How a lookup treats an expired key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpirePolicy {
    /// It is deleted, and the deletion propagated.
    Delete,
    /// Reads do not see it, but leave the deletion to the master; writes delete it (writable replicas).
    DeleteOnWrite,
    /// It is invisible but stays: the master's DEL will come (replicas), or deletion is paused.
    Hide,
    /// It is visible: only the master's stream or the AOF deletes it.
    Ignore,
}

/// Counters of lookups and expiry, as INFO stats has them.
#[derive(Debug, Default, Clone)]
pub(crate) struct KeyspaceStats {
    pub(crate) hits: u64,
    pub(crate) misses: u64,
    pub(crate) expired: u64,
    pub(crate) evicted: u64,
    pub(crate) expire_cycle_cpu_us: u64,
    pub(crate) expired_stale_perc: f64,
    pub(crate) expired_time_cap_reached: u64,
}

/// What a lookup counts and touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    /// A read by a client: counts a hit or a miss and moves the access clock.
    Read,
    /// A read that counts but is no access of the value (EXISTS, TYPE, TTL).
    Look,
    /// As `Look` without the `keymiss` event (OBJECT).
    Inspect,
    /// A write: moves the access clock.
    Write,
    /// Leaves no trace.
    None,
}

/// What storing a value does to the key's time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    Clear,
    Keep,
    /// Absolute, ms.
    At(i64),
}

pub(crate) struct Keyspace {
    pub(crate) dbs: Vec<Db>,
    pub(crate) effects: Effects,
    pub(crate) stats: KeyspaceStats,
    pub(crate) watch: WatchTable,
    /// How often data was flushed.
    pub(crate) flushes: u64,
    /// Wall clock the running command sees, ms since 1970. One value for the whole of a command, transaction or script.
    pub(crate) now_ms: i64,
    pub(crate) expire_policy: ExpirePolicy,
    /// LRU clock or LFU counter update to give to touched keys; see `object::touch`.
    pub(crate) access: object::AccessClock,
    /// Deleting an expired key propagates UNLINK rather than DEL, and frees on the helper thread.
    pub(crate) lazy_expire: bool,
    /// A value that a new one replaces is freed on the helper thread.
    pub(crate) lazy_server_del: bool,
    pub(crate) expiry: expire::ActiveExpiry,
    pub(crate) eviction: evict::Eviction,
    /// CLIENT NO-TOUCH of the running client, or a child process at work.
    pub(crate) no_touch: bool,
    /// List elements of at least so many bytes get a node of their own.
    pub(crate) packed_threshold: usize,
    /// The hash seed of all tables.
    pub(crate) seed: HashSeed,
    per_slot: bool,
    /// Damaged values were taken in at some time.
    pub(crate) may_be_damaged: bool,
    /// Hashes of the running command's keys, as far as they were computed before it ran.
    pub(crate) hashes: hashes::ExpectedKeys,
}

impl Keyspace {
    /// `count` databases; with `per_slot`, tables by hash slot (cluster mode).
    pub(crate) fn new(count: usize, per_slot: bool, seed: HashSeed) -> Keyspace {
        Keyspace {
            dbs: (0..count).map(|_| Db::new(per_slot, seed)).collect(),
            effects: Effects::default(),
            stats: KeyspaceStats::default(),
            watch: WatchTable::default(),
            flushes: 0,
            now_ms: 0,
            expire_policy: ExpirePolicy::Delete,
            access: object::AccessClock::default(),
            lazy_expire: false,
            lazy_server_del: false,
            expiry: expire::ActiveExpiry::default(),
            eviction: evict::Eviction::default(),
            no_touch: false,
            packed_threshold: object::PACKED_THRESHOLD,
            seed,
            per_slot,
            may_be_damaged: false,
            hashes: hashes::ExpectedKeys::default(),
        }
    }

    /// True if commands have left nothing to carry on except, perhaps, a replacement for the running one.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.effects.is_quiet() && self.watch.dirty.is_empty()
    }

    /// Cluster mode: one table a hash slot.
    pub(crate) fn is_per_slot(&self) -> bool {
        self.per_slot
    }

    /// The hash of a key, whatever its database.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash::of(self.seed, self.per_slot, key)
    }

    /// As `hash`, unless it was computed before.
    #[inline(always)]
    fn known_hash(&mut self, key: &[u8]) -> KeyHash {
        match self.hashes.take(key) {
            Some(hash) => hash,
            None => self.hash(key),
        }
    }

    /// See `Db`: the steps in which the memory of a key is prefetched.
    #[inline(always)]
    pub(crate) fn prefetch(&self, db: usize, hashes: impl Iterator<Item = KeyHash>) {
        self.dbs[db].prefetch(hashes);
    }

    pub(crate) fn prefetch_bucket(&self, db: usize, hash: KeyHash) {
        self.dbs[db].prefetch_bucket(hash);
    }

    #[inline(always)]
    pub(crate) fn prefetch_entry(&self, db: usize, hash: &mut KeyHash) -> bool {
        self.dbs[db].prefetch_entry(hash)
    }

    pub(crate) fn prefetch_entry_behind(&self, db: usize, hash: KeyHash) {
        self.dbs[db].prefetch_entry_behind(hash);
    }

    /// The hash of a member or field of a collection.
    pub(crate) fn hash_member(&self, member: &[u8]) -> u64 {
        self.seed.hash(member)
    }

    /// The value of the key that likely has this hash, if it is an object; keys are not compared.
    pub(crate) fn likely_object(&self, db: usize, key: KeyHash) -> Option<&Object> {
        self.dbs[db].likely_object(key)
    }

    /// Notes and logs that a damaged value was loaded.
    pub(crate) fn note_damaged(&mut self, key: &[u8], damaged: &damaged::Damaged) {
        damaged.warn(key);
        self.may_be_damaged = true;
    }

    /// Whether the value of a key is damaged.
    #[cold]
    pub(crate) fn is_damaged(&self, db: usize, key: &[u8]) -> bool {
        let value = self.dbs[db].get(key).and_then(|entry| entry.object());
        matches!(value, Some(Object::Damaged(_)))
    }

    /// Whether an entry has expired for the running command; never under [`ExpirePolicy::Ignore`].
    #[inline]
    pub(crate) fn is_past(&self, entry: &Entry) -> bool {
        is_past(entry, self.expire_policy, self.now_ms)
    }

    /// Looks a key up for a client that reads it.
    #[inline]
    pub(crate) fn read(&mut self, db: usize, key: &[u8]) -> Option<&Entry> {
        self.lookup_inline(db, key, Touch::Read).map(EntryMut::into_ref)
    }

    /// As `read`, for reads that change the value: a cached count, how far a group has read.
    pub(crate) fn read_mut(&mut self, db: usize, key: &[u8]) -> Option<EntryMut<'_>> {
        self.lookup(db, key, Touch::Read)
    }

    /// Looks a key up for changing it.
    pub(crate) fn write(&mut self, db: usize, key: &[u8]) -> Option<EntryMut<'_>> {
        self.lookup(db, key, Touch::Write)
    }

    /// Looks a key up without a trace; an expired one is still removed.
    pub(crate) fn peek(&mut self, db: usize, key: &[u8]) -> Option<EntryMut<'_>> {
        self.lookup(db, key, Touch::None)
    }

    pub(crate) fn lookup(&mut self, db: usize, key: &[u8], touch: Touch) -> Option<EntryMut<'_>> {
        self.lookup_inline(db, key, touch)
    }

    /// For callers whose `touch` is a constant.
    #[inline(always)]
    fn lookup_inline(&mut self, db: usize, key: &[u8], touch: Touch) -> Option<EntryMut<'_>> {
        let hash = self.known_hash(key);
        let Keyspace { dbs, effects, stats, watch, access, .. } = self;
        let found = dbs[db].get_mut_or_take_hashed(hash, key, |entry| {
            if is_past(entry, self.expire_policy, self.now_ms) {
                return on_expired(self.expire_policy, touch);
            }
            if matches!(touch, Touch::Read | Touch::Write) && !self.no_touch {
                access.touch(entry);
            }
            Verdict::Give
        });
        let counts = matches!(touch, Touch::Read | Touch::Look | Touch::Inspect);
        match found {
            Ok(entry) => {
                stats.hits += u64::from(counts);
                return Some(entry);
            }
            Err(None) => {}
            Err(Some(entry)) => note_expired(effects, watch, stats, db, entry, self.lazy_expire),
        }
        if counts {
            stats.misses += 1;
            if touch != Touch::Inspect {
                effects.notify(notify::KEY_MISS, "keymiss", key, db);
            }
        }
        None
    }

    /// Whether the key is there, without a trace.
    pub(crate) fn exists(&mut self, db: usize, key: &[u8]) -> bool {
        self.peek(db, key).is_some()
    }

    /// Removes an expired key, with all effects of that.
    pub(crate) fn expire_now(&mut self, db: usize, key: &[u8]) {
        let Some(entry) = self.dbs[db].remove(key) else { return };
        note_expiry(&mut self.effects, &mut self.watch, &mut self.stats, db, &entry, self.lazy_expire);
        self.effects.free(entry, self.lazy_expire);
    }

    /// Stores a value, in place of any old one. The time to live goes unless `keep_ttl`.
    pub(crate) fn set(&mut self, db: usize, key: &[u8], value: NewValue<'_, Object>, keep_ttl: bool) {
        self.store(db, key, value, if keep_ttl { Ttl::Keep } else { Ttl::Clear });
    }

    /// Stores a value, in place of any old one, with one search for the key.
    pub(crate) fn store(&mut self, db: usize, key: &[u8], value: NewValue<'_, Object>, ttl: Ttl) {
        let rule = ExpiryRule { policy: self.expire_policy, now_ms: self.now_ms };
        let hash = self.known_hash(key);
        let is_new = match store_at(self.dbs[db].place(hash, key), key, value, ttl, rule, &self.access) {
            Stored::Replaced => false,
            Stored::Added => true,
            Stored::Displaced(old, value) => {
                let ttl = match (ttl, old.expire_ms()) {
                    (Ttl::Keep, Some(at)) => Ttl::At(at),
                    _ => ttl,
                };
                let entry = new_entry(key, value, ttl, &self.access);
                if self.access.lfu {
                    entry.set_lru(old.lru());
                }
                self.dbs[db].insert_new_hashed(hash, entry);
                self.effects.gone(db, key);
                self.effects.free(old, self.lazy_server_del);
                false
            }
            Stored::Expired(old, value) => {
                let Keyspace { effects, stats, watch, .. } = self;
                note_expired(effects, watch, stats, db, old, self.lazy_expire);
                self.dbs[db].insert_new_hashed(hash, new_entry(key, value, ttl, &self.access));
                true
            }
        };
        if is_new {
            self.effects.notify(notify::NEW, "new", key, db);
            self.effects.ready(db, key);
        }
        self.signal_modified(db, key);
    }

    /// Adds a key that is known to be absent. Does not signal the change: see `signal_modified`.
    pub(crate) fn insert(&mut self, db: usize, key: &[u8], value: NewValue<'_, Object>, expire_ms: Option<i64>) {
        let mut entry = Entry::new(key, value, expire_ms);
        self.access.init(&mut entry);
        let hash = self.known_hash(key);
        self.dbs[db].insert_new_hashed(hash, entry);
        self.effects.notify(notify::NEW, "new", key, db);
        self.effects.ready(db, key);
    }

    /// Deletes a key; `lazy` frees its value on the helper thread when that is worth it. Signals the change; the event
    /// and the count of changes are left to the caller.
    pub(crate) fn delete(&mut self, db: usize, key: &[u8], lazy: bool) -> bool {
        let hash = self.known_hash(key);
        let Some(entry) = self.dbs[db].remove_hashed(hash, key) else { return false };
        self.effects.gone(db, key);
        self.effects.free(entry, lazy);
        self.signal_modified(db, key);
        true
    }

    /// As `delete`, but an expired key is expired rather than deleted where the policy allows.
    pub(crate) fn delete_unexpired(&mut self, db: usize, key: &[u8], lazy: bool) -> bool {
        let hash = self.known_hash(key);
        let Keyspace { dbs, effects, stats, watch, .. } = self;
        let Some(entry) = dbs[db].get_mut_hashed(hash, key) else { return false };
        let due = is_due(entry.expire_ms(), self.now_ms);
        let entry = entry.remove();
        if due && self.expire_policy == ExpirePolicy::Delete {
            note_expired(effects, watch, stats, db, entry, self.lazy_expire);
            return false;
        }
        effects.gone(db, key);
        effects.free(entry, lazy);
        self.signal_modified(db, key);
        true
    }

    /// Removes a key that is to be replaced; signals nothing.
    pub(crate) fn remove(&mut self, db: usize, key: &[u8], lazy: bool) {
        if let Some(entry) = self.dbs[db].remove(key) {
            self.effects.gone(db, key);
            self.effects.free(entry, lazy);
        }
    }

    /// Moves a value with its time to live and access field to a key that is absent.
    pub(crate) fn move_key(&mut self, from: (usize, &[u8]), to: (usize, &[u8])) {
        let Some(old) = self.dbs[from.0].remove(from.1) else { return };
        self.effects.gone(from.0, from.1);
        self.add_entry(to.0, old.with_key(to.1));
        self.signal_modified(from.0, from.1);
        self.signal_modified(to.0, to.1);
    }

    /// Copies a value with its time to live to a key that is absent.
    pub(crate) fn copy_key(&mut self, from: (usize, &[u8]), to: (usize, &[u8])) {
        let Some(old) = self.dbs[from.0].get(from.1) else { return };
        let mut entry = Entry::new(to.1, object::duplicate(old), old.expire_ms());
        self.access.init(&mut entry);
        self.add_entry(to.0, entry);
        self.signal_modified(to.0, to.1);
    }

    fn add_entry(&mut self, db: usize, entry: Entry) {
        self.effects.notify(notify::NEW, "new", entry.key(), db);
        self.effects.ready(db, entry.key());
        self.dbs[db].insert_new(entry);
    }

    /// A key at random that has not expired.
    pub(crate) fn random_key(&mut self, db: usize) -> Option<Vec<u8>> {
        // Where expired keys stay there may be nothing else: then one of them is returned.
        let mut tries = 100;
        loop {
            let key = self.dbs[db].random()?.key().to_vec();
            tries -= 1;
            if self.exists(db, &key) || (tries <= 0 && self.dbs[db].get(&key).is_some()) {
                return Some(key);
            }
        }
    }

    /// To be called for every key whose value or time to live changed.
    #[inline]
    pub(crate) fn signal_modified(&mut self, db: usize, key: &[u8]) {
        #[cfg(test)]
        touched::note_change(key);
        if !self.watch.is_empty() {
            self.touch_watched(db, key);
        }
        self.effects.modified(key, true);
    }

    /// A key changed in a way that Redis takes for none where clients watch it, as the groups of a stream do.
    pub(crate) fn signal_aside(&mut self, db: usize, key: &[u8]) {
        if !self.watch.is_empty() {
            self.watch.touch_aside(db, key);
        }
    }

    #[inline(never)]
    fn touch_watched(&mut self, db: usize, key: &[u8]) {
        let present = self.dbs[db].get(key).is_some();
        self.watch.touch(db, key, present);
    }

    /// Empties one database or all; returns the number of keys removed. Watchers of present keys are marked.
    pub(crate) fn flush(&mut self, db: Option<usize>, lazy: bool) -> usize {
        let range = match db {
            Some(d) => d..d + 1,
            None => 0..self.dbs.len(),
        };
        let mut removed = 0;
        for d in range {
            self.watch.touch_flushed(d, &self.dbs[d], None, self.now_ms);
            removed += self.dbs[d].len();
            let old = self.dbs[d].take_all();
            self.effects.free_tables(old, lazy);
        }
        self.flushes += 1;
        self.effects.flushed |= self.effects.wants_modified;
        self.effects.unsynced.note_all();
        self.effects.any_ready |= self.effects.wants_gone;
        removed
    }

    /// Deletes all keys of these slots. How many there were.
    pub(crate) fn flush_slots(&mut self, slots: &SlotSet, lazy: bool) -> usize {
        let mut old = self.dbs[0].take_slots(slots);
        let removed = old.len();
        self.watch.touch_flushed(0, &old, None, self.now_ms);
        self.effects.free_tables(old.take_all(), lazy);
        self.effects.flushed |= self.effects.wants_modified && removed > 0;
        self.effects.unsynced.note_all();
        self.effects.any_ready |= self.effects.wants_gone;
        removed
    }

    /// Exchanges the contents of two databases.
    pub(crate) fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        self.watch.touch_flushed(a, &self.dbs[a], Some(&self.dbs[b]), self.now_ms);
        self.watch.touch_flushed(b, &self.dbs[b], Some(&self.dbs[a]), self.now_ms);
        self.dbs.swap(a, b);
        // Clients wait for keys of a database by its number.
        self.effects.any_ready |= self.effects.wants_ready;
        self.effects.unsynced.note_all();
    }

    pub(crate) fn total_keys(&self) -> usize {
        self.dbs.iter().map(Db::len).sum()
    }
}

/// How a lookup treats expired keys.
#[derive(Clone, Copy)]
struct ExpiryRule {
    policy: ExpirePolicy,
    now_ms: i64,
}

enum Stored<'v> {
    Replaced,
    Added,
    /// The old entry is taken out, as freeing it may be work for later; nothing was stored yet.
    Displaced(Entry, NewValue<'v, Object>),
    /// The old entry is taken out, as it had expired; nothing was stored yet.
    Expired(Entry, NewValue<'v, Object>),
}

fn store_at<'v>(
    place: Place<'_>,
    key: &[u8],
    value: NewValue<'v, Object>,
    ttl: Ttl,
    rule: ExpiryRule,
    access: &object::AccessClock,
) -> Stored<'v> {
    let mut entry = match place {
        Place::Vacant(place) => {
            place.insert(new_entry(key, value, ttl, access));
            return Stored::Added;
        }
        Place::Occupied(entry) => entry,
    };
    let gone = is_past(&entry, rule.policy, rule.now_ms);
    if gone && deletes_expired(rule.policy, Touch::Write) {
        return Stored::Expired(entry.remove(), value);
    }
    if !gone && entry.object().is_some() {
        return Stored::Displaced(entry.remove(), value);
    }
    entry.set_value(value);
    access.reset(&mut entry);
    match ttl {
        Ttl::At(at) => entry.set_expire(Some(at)),
        Ttl::Keep if !gone => {}
        Ttl::Keep | Ttl::Clear if entry.has_expire() => entry.set_expire(None),
        Ttl::Keep | Ttl::Clear => {}
    }
    if gone { Stored::Added } else { Stored::Replaced }
}

fn new_entry(key: &[u8], value: NewValue<'_, Object>, ttl: Ttl, access: &object::AccessClock) -> Entry {
    let expire_ms = if let Ttl::At(at) = ttl { Some(at) } else { None };
    let mut entry = Entry::new(key, value, expire_ms);
    access.init(&mut entry);
    entry
}

/// Whether an entry has expired; never under [`ExpirePolicy::Ignore`].
#[inline(always)]
fn is_past(entry: &Entry, policy: ExpirePolicy, now_ms: i64) -> bool {
    is_due(entry.expire_ms(), now_ms) && policy != ExpirePolicy::Ignore
}

/// Whether a lookup of this kind deletes an expired key it meets.
fn deletes_expired(policy: ExpirePolicy, touch: Touch) -> bool {
    match policy {
        ExpirePolicy::Delete => true,
        ExpirePolicy::DeleteOnWrite => touch == Touch::Write,
        ExpirePolicy::Hide | ExpirePolicy::Ignore => false,
    }
}

/// What a look-up does with an expired key.
fn on_expired(policy: ExpirePolicy, touch: Touch) -> Verdict {
    if deletes_expired(policy, touch) { Verdict::Take } else { Verdict::Hide }
}

/// All effects of removing an expired key; frees its entry.
fn note_expired(
    effects: &mut Effects,
    watch: &mut WatchTable,
    stats: &mut KeyspaceStats,
    db: usize,
    entry: Entry,
    lazy: bool,
) {
    note_expiry(effects, watch, stats, db, &entry, lazy);
    effects.free(entry, lazy);
}

/// As `note_expired`, but does not free the entry.
fn note_expiry(
    effects: &mut Effects,
    watch: &mut WatchTable,
    stats: &mut KeyspaceStats,
    db: usize,
    entry: &Entry,
    lazy: bool,
) {
    let key = entry.key();
    effects.propagate_now(db, &[if lazy { b"UNLINK" } else { b"DEL" }, key]);
    effects.notify(notify::EXPIRED, "expired", key, db);
    watch.touch(db, key, false);
    effects.modified(key, false);
    effects.gone(db, key);
    stats.expired += 1;
}
