//! One database: its keys in one table, or in one table a hash slot in cluster mode.

use super::Entry;
use super::object::Object;
use crate::structs::slots::{SLOT_COUNT, SlotSet, key_slot};
use crate::structs::table::{
    HashSeed, Hint, ItemMut, ResizePolicy, Step, Table, TableEntry, VacantEntry, Verdict, prefetch,
};
use std::ops::{Deref, DerefMut};
use std::time::Instant;

/// The hash of a key for its table, a hint where it may be there, and in cluster mode its hash slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyHash {
    pub(crate) hash: u64,
    pub(super) hint: Hint,
    pub(crate) slot: u16,
}

impl KeyHash {
    /// A placeholder for no key.
    pub(crate) const NONE: KeyHash = KeyHash { hash: 0, hint: Hint::NONE, slot: 0 };

    /// One that was computed elsewhere, as [`KeyHash::of`] does.
    #[inline]
    pub(crate) fn known(hash: u64, slot: u16) -> KeyHash {
        KeyHash { hash, hint: Hint::NONE, slot }
    }

    /// `per_slot`: there is a table for each hash slot.
    #[inline]
    pub(crate) fn of(seed: HashSeed, per_slot: bool, key: &[u8]) -> KeyHash {
        KeyHash { hash: seed.hash(key), hint: Hint::NONE, slot: if per_slot { key_slot(key) } else { 0 } }
    }
}

/// The tables of a database, all of them at once: what a flush takes out.
pub(crate) enum Tables {
    One(Box<Table<Entry>>),
    PerSlot(Box<[Option<Box<Table<Entry>>>]>),
}

impl Tables {
    pub(crate) fn len(&self) -> usize {
        match self {
            Tables::One(t) => t.len(),
            Tables::PerSlot(slots) => slots.iter().flatten().map(|t| t.len()).sum(),
        }
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = &Entry> + '_> {
        match self {
            Tables::One(t) => Box::new(t.iter()),
            Tables::PerSlot(slots) => Box::new(slots.iter().flatten().flat_map(|t| t.iter())),
        }
    }

    /// The table of this hash, if it exists.
    #[inline(always)]
    fn of_mut(&mut self, hash: KeyHash) -> Option<&mut Table<Entry>> {
        match self {
            Tables::One(t) => Some(t),
            Tables::PerSlot(slots) => slots[hash.slot as usize].as_deref_mut(),
        }
    }
}

/// The counters of a database.
#[derive(Default)]
struct Counts {
    keys: usize,
    expires: usize,
}

impl Counts {
    /// Counts that an entry was taken out of its table.
    fn taken(&mut self, entry: &Entry) {
        self.keys -= 1;
        self.expires -= entry.has_expire() as usize;
    }
}

/// An entry in its place in the table, for changing it.
pub(crate) struct EntryMut<'a> {
    item: ItemMut<'a, Entry>,
    counts: &'a mut Counts,
}

impl<'a> EntryMut<'a> {
    /// The entry, for as long as its table is borrowed.
    #[inline(always)]
    pub(super) fn into_ref(self) -> &'a Entry {
        self.item.into_ref()
    }

    /// Sets or removes the expire time, and updates the database's count of them.
    pub(crate) fn set_expire(&mut self, expire_ms: Option<i64>) {
        let had = self.item.has_expire();
        self.item.set_expire(expire_ms);
        self.counts.expires = self.counts.expires + expire_ms.is_some() as usize - had as usize;
    }

    /// Takes the entry out of its table.
    pub(crate) fn remove(self) -> Entry {
        let entry = self.item.remove();
        self.counts.taken(&entry);
        entry
    }
}

impl Deref for EntryMut<'_> {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.item
    }
}

impl DerefMut for EntryMut<'_> {
    fn deref_mut(&mut self) -> &mut Entry {
        &mut self.item
    }
}

/// The place of a key, found with one search.
pub(crate) enum Place<'a> {
    Occupied(EntryMut<'a>),
    Vacant(VacantPlace<'a>),
}

/// The place of a key that is not there.
pub(crate) struct VacantPlace<'a> {
    place: VacantEntry<'a, Entry>,
    counts: &'a mut Counts,
}

impl VacantPlace<'_> {
    /// Adds an entry, whose key must be the one that was looked for.
    pub(crate) fn insert(self, entry: Entry) {
        self.counts.keys += 1;
        self.counts.expires += entry.has_expire() as usize;
        self.place.insert(entry);
    }
}

pub(crate) struct Db {
    tables: Tables,
    seed: HashSeed,
    counts: Counts,
    /// Mean time to live of the keys that active expiry looked at, ms.
    pub(crate) avg_ttl_ms: i64,
    /// The cursor at which active expiry goes on.
    pub(crate) expire_cursor: u64,
    /// The slot at which `rehash` goes on.
    rehash_slot: usize,
    /// Slots whose keys are not shown: they are on their way here, or about to be deleted.
    hidden: Option<SlotSet>,
}

impl Db {
    pub(crate) fn new(per_slot: bool, seed: HashSeed) -> Db {
        Db {
            tables: empty_tables(per_slot, seed),
            seed,
            counts: Counts::default(),
            avg_ttl_ms: 0,
            expire_cursor: 0,
            rehash_slot: 0,
            hidden: None,
        }
    }

    /// An empty database of the same layout.
    pub(crate) fn empty_like(other: &Db) -> Db {
        Db::new(other.is_per_slot(), other.seed)
    }

    pub(crate) fn len(&self) -> usize {
        self.counts.keys
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.counts.keys == 0
    }

    /// Number of keys with a time to live.
    pub(crate) fn expires_len(&self) -> usize {
        self.counts.expires
    }

    /// Hides the keys of these slots, and no others: they are not found by going through the keys, not counted for clients,
    /// and neither expire by themselves nor are evicted. Who names one finds it.
    pub(crate) fn hide(&mut self, slots: SlotSet) {
        self.hidden = (self.is_per_slot() && !slots.is_empty()).then_some(slots);
    }

    fn is_hidden(&self, slot: usize) -> bool {
        self.hidden.as_ref().is_some_and(|hidden| hidden.contains(slot as u16))
    }

    /// The weight of all tables of hidden slots.
    fn hidden_sum(&self, weight: impl Fn(&Table<Entry>) -> usize) -> usize {
        let (Some(hidden), Tables::PerSlot(slots)) = (&self.hidden, &self.tables) else { return 0 };
        hidden.iter().filter_map(|slot| slots[usize::from(slot)].as_deref()).map(weight).sum()
    }

    /// Number of keys that are not hidden.
    pub(crate) fn shown_len(&self) -> usize {
        self.len() - self.hidden_sum(|t| t.len())
    }

    /// Of those, the number with a time to live.
    pub(crate) fn shown_expires_len(&self) -> usize {
        self.expires_len() - self.hidden_sum(|t| t.tagged_len())
    }

    /// The entries that are not hidden.
    pub(crate) fn shown(&self) -> Box<dyn Iterator<Item = &Entry> + '_> {
        match (&self.tables, &self.hidden) {
            (Tables::PerSlot(slots), Some(_)) => {
                let shown = slots.iter().enumerate().filter(|(slot, _)| !self.is_hidden(*slot));
                Box::new(shown.filter_map(|(_, t)| t.as_deref()).flat_map(|t| t.iter()))
            }
            _ => self.iter(),
        }
    }

    pub(crate) fn is_per_slot(&self) -> bool {
        matches!(self.tables, Tables::PerSlot(_))
    }

    /// The hash of a key, for the `*_hashed` functions.
    pub(crate) fn hash(&self, key: &[u8]) -> KeyHash {
        KeyHash::of(self.seed, self.is_per_slot(), key)
    }

    fn table(&self, hash: KeyHash) -> Option<&Table<Entry>> {
        match &self.tables {
            Tables::One(t) => Some(t),
            Tables::PerSlot(slots) => slots[hash.slot as usize].as_deref(),
        }
    }

    /// Prefetches what says where keys are: their buckets, or in cluster mode the tables of their slots.
    #[inline(always)]
    pub(crate) fn prefetch(&self, hashes: impl Iterator<Item = KeyHash>) {
        match &self.tables {
            Tables::One(t) => hashes.for_each(|hash| _ = t.prefetch(hash.hash, Step::Bucket)),
            Tables::PerSlot(slots) => {
                hashes.filter_map(|hash| slots[hash.slot as usize].as_deref()).for_each(|t| prefetch(t));
            }
        }
    }

    /// In cluster mode, some time after `prefetch`: prefetches the key's bucket.
    pub(crate) fn prefetch_bucket(&self, hash: KeyHash) {
        if let Some(t) = self.table(hash) {
            t.prefetch(hash.hash, Step::Bucket);
        }
    }

    /// Some time after its bucket: prefetches the key's entry, and notes where it is. Returns whether
    /// `prefetch_entry_behind` has anything to do.
    #[inline(always)]
    pub(crate) fn prefetch_entry(&self, hash: &mut KeyHash) -> bool {
        let Some(table) = self.table(*hash) else { return false };
        let (is_behind, hint) = table.prefetch_item(hash.hash);
        hash.hint = hint;
        is_behind
    }

    /// Some time later: prefetches an entry whose bucket hangs behind another.
    pub(crate) fn prefetch_entry_behind(&self, hash: KeyHash) {
        if let Some(t) = self.table(hash) {
            t.prefetch(hash.hash, Step::Behind);
        }
    }

    /// An object whose key likely has this hash; keys are not compared.
    pub(crate) fn likely_object(&self, hash: KeyHash) -> Option<&Object> {
        self.table(hash)?.likely(hash.hash, Entry::object)
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<&Entry> {
        #[cfg(test)]
        super::touched::note_lookup(key);
        let hash = self.hash(key);
        self.table(hash)?.get_hashed(hash.hash, key)
    }

    /// The entry, for changing it.
    pub(crate) fn get_mut(&mut self, key: &[u8]) -> Option<EntryMut<'_>> {
        self.get_mut_hashed(self.hash(key), key)
    }

    /// As `get_mut` with `hash(key)` computed before.
    #[inline]
    pub(crate) fn get_mut_hashed(&mut self, hash: KeyHash, key: &[u8]) -> Option<EntryMut<'_>> {
        #[cfg(test)]
        super::touched::note_lookup(key);
        let table = self.tables.of_mut(hash)?;
        table.get_mut_hashed(hash.hash, key).map(|item| EntryMut { item, counts: &mut self.counts })
    }

    /// The entry if `judge` gives it; one that `judge` takes out is returned as the error. `judge` may change its
    /// access clock.
    #[inline(always)]
    pub(crate) fn get_mut_or_take_hashed(
        &mut self,
        hash: KeyHash,
        key: &[u8],
        judge: impl FnOnce(&mut Entry) -> Verdict,
    ) -> Result<EntryMut<'_>, Option<Entry>> {
        #[cfg(test)]
        super::touched::note_lookup(key);
        let table = self.tables.of_mut(hash).ok_or(None)?;
        match table.get_mut_or_take_near((hash.hash, hash.hint), key, judge) {
            Ok(item) => Ok(EntryMut { item, counts: &mut self.counts }),
            Err(taken) => Err(taken.inspect(|entry| self.counts.taken(entry))),
        }
    }

    /// The key's place, to change what is there or to fill it; with `hash(key)` computed before.
    #[inline]
    pub(crate) fn place(&mut self, hash: KeyHash, key: &[u8]) -> Place<'_> {
        #[cfg(test)]
        super::touched::note_change(key);
        let counts = &mut self.counts;
        let table = match &mut self.tables {
            Tables::One(t) => t,
            Tables::PerSlot(slots) => {
                let seed = self.seed;
                slots[hash.slot as usize].get_or_insert_with(|| Box::new(Table::new(seed)))
            }
        };
        match table.entry_near((hash.hash, hash.hint), key) {
            TableEntry::Occupied(e) => Place::Occupied(EntryMut { item: e.into_mut(), counts }),
            TableEntry::Vacant(place) => Place::Vacant(VacantPlace { place, counts }),
        }
    }

    /// Makes room for `len` keys in all, unless there is a table for each slot.
    pub(crate) fn reserve(&mut self, len: usize) {
        if let Tables::One(t) = &mut self.tables {
            t.reserve(len);
        }
    }

    /// Adds an entry whose key is known to be absent.
    pub(crate) fn insert_new(&mut self, entry: Entry) {
        self.insert_new_hashed(self.hash(entry.key()), entry);
    }

    /// As `insert_new` with the hash of its key computed before.
    pub(crate) fn insert_new_hashed(&mut self, hash: KeyHash, entry: Entry) {
        #[cfg(test)]
        super::touched::note_change(entry.key());
        self.counts.keys += 1;
        self.counts.expires += entry.has_expire() as usize;
        match &mut self.tables {
            Tables::One(t) => t.insert_new_hashed(hash.hash, entry),
            Tables::PerSlot(slots) => {
                let seed = self.seed;
                let table = slots[hash.slot as usize].get_or_insert_with(|| Box::new(Table::new(seed)));
                table.insert_new_hashed(hash.hash, entry);
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<Entry> {
        self.remove_hashed(self.hash(key), key)
    }

    /// As `remove` with `hash(key)` computed before.
    pub(crate) fn remove_hashed(&mut self, hash: KeyHash, key: &[u8]) -> Option<Entry> {
        #[cfg(test)]
        super::touched::note_change(key);
        let entry = match &mut self.tables {
            Tables::One(t) => t.remove_hashed(hash.hash, key)?,
            Tables::PerSlot(slots) => {
                let place = &mut slots[hash.slot as usize];
                let table = place.as_deref_mut()?;
                let entry = table.remove_hashed(hash.hash, key)?;
                if table.is_empty() {
                    *place = None;
                }
                entry
            }
        };
        self.counts.keys -= 1;
        self.counts.expires -= entry.has_expire() as usize;
        Some(entry)
    }

    /// Takes everything out and leaves the database empty.
    pub(crate) fn take_all(&mut self) -> Tables {
        self.counts = Counts::default();
        self.avg_ttl_ms = 0;
        self.expire_cursor = 0;
        let empty = empty_tables(self.is_per_slot(), self.seed);
        std::mem::replace(&mut self.tables, empty)
    }

    /// Takes the tables of these slots out: a database of the same layout that has them and no others.
    pub(crate) fn take_slots(&mut self, taken: &SlotSet) -> Db {
        let mut out = Db::empty_like(self);
        let (Tables::PerSlot(from), Tables::PerSlot(to)) = (&mut self.tables, &mut out.tables) else { return out };
        for slot in taken.iter().map(usize::from) {
            let Some(table) = from[slot].take() else { continue };
            let (keys, expires) = (table.len(), table.tagged_len());
            (out.counts.keys, out.counts.expires) = (out.counts.keys + keys, out.counts.expires + expires);
            (self.counts.keys, self.counts.expires) = (self.counts.keys - keys, self.counts.expires - expires);
            to[slot] = Some(table);
        }
        out
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = &Entry> + '_> {
        self.tables.iter()
    }

    /// The entries besides those of these slots, of tables a slot.
    pub(crate) fn iter_besides<'a>(&'a self, besides: &'a SlotSet) -> Box<dyn Iterator<Item = &'a Entry> + 'a> {
        match &self.tables {
            Tables::PerSlot(slots) if !besides.is_empty() => {
                let kept = slots.iter().enumerate().filter(|(slot, _)| !besides.contains(*slot as u16));
                Box::new(kept.filter_map(|(_, t)| t.as_deref()).flat_map(|t| t.iter()))
            }
            _ => self.iter(),
        }
    }

    /// One step of SCAN: calls `f` for some keys, about `most` at most, and returns the next cursor, 0 at the end. In
    /// cluster mode the low bits of the cursor are the slot.
    pub(crate) fn scan(&self, cursor: u64, most: usize, mut f: impl FnMut(&Entry)) -> u64 {
        match &self.tables {
            Tables::One(t) => t.scan_page(cursor, most, &mut f),
            Tables::PerSlot(slots) => {
                let weight = |slot, t: &Table<Entry>| if self.is_hidden(slot) { 0 } else { t.len() };
                scan_slots(slots, cursor, weight, |t, c| t.scan_page(c, most, &mut f))
            }
        }
    }

    /// As `scan`, over keys with a time to live only; both pass over what is hidden.
    pub(crate) fn scan_expiring(&self, cursor: u64, mut f: impl FnMut(&Entry)) -> u64 {
        match &self.tables {
            Tables::One(t) => t.scan_tagged(cursor, &mut f),
            Tables::PerSlot(slots) => {
                let weight = |slot, t: &Table<Entry>| if self.is_hidden(slot) { 0 } else { t.tagged_len() };
                scan_slots(slots, cursor, weight, |t, c| t.scan_tagged(c, &mut f))
            }
        }
    }

    /// A key at random that is not hidden, each with about the same chance.
    pub(crate) fn random(&self) -> Option<&Entry> {
        self.random_table(|t| t.len())?.random(&mut fastrand::Rng::new())
    }

    /// A key with a time to live at random.
    pub(crate) fn random_expiring(&self) -> Option<&Entry> {
        self.random_table(|t| t.tagged_len())?.random_tagged(&mut fastrand::Rng::new())
    }

    /// A table, with a chance in proportion to its weight.
    fn random_table(&self, weight: impl Fn(&Table<Entry>) -> usize) -> Option<&Table<Entry>> {
        match &self.tables {
            Tables::One(t) => Some(t),
            Tables::PerSlot(slots) => {
                let shown = || slots.iter().enumerate().filter(|(slot, _)| !self.is_hidden(*slot));
                let tables = || shown().filter_map(|(_, t)| t.as_deref());
                let total: usize = tables().map(&weight).sum();
                if total == 0 {
                    return None;
                }
                let mut at = fastrand::usize(..total);
                tables().find(|t| {
                    let w = weight(t);
                    let here = at < w;
                    at = at.saturating_sub(w);
                    here
                })
            }
        }
    }

    /// Calls `f` with about `count` keys (`expiring`: with a time to live) that are adjacent at a random place.
    pub(crate) fn sample(&self, count: usize, expiring: bool, mut f: impl FnMut(&Entry)) {
        let mut seen = 0;
        // Rather than searching a table with few keys for long, its keys are seen more than once.
        for _ in 0..count.saturating_mul(2) {
            let Some(table) = self.likely_table(expiring) else { return };
            let mut emit = |entry: &Entry| {
                seen += 1;
                f(entry);
            };
            let cursor = fastrand::u64(..);
            if expiring {
                table.scan_tagged(cursor, &mut emit);
            } else {
                table.scan(cursor, &mut emit);
            }
            if seen >= count {
                return;
            }
        }
    }

    /// A table at random, the larger ones more likely. An exact choice among all of them would take long.
    fn likely_table(&self, expiring: bool) -> Option<&Table<Entry>> {
        let weight = |t: &Table<Entry>| if expiring { t.tagged_len() } else { t.len() };
        match &self.tables {
            Tables::One(t) => Some(t),
            Tables::PerSlot(slots) => {
                const TRIES: usize = 32;
                let mut total = 0;
                let mut chosen = None;
                for _ in 0..TRIES {
                    let slot = fastrand::usize(..SLOT_COUNT);
                    let Some(table) = slots[slot].as_deref().filter(|_| !self.is_hidden(slot)) else { continue };
                    total += weight(table);
                    if weight(table) > 0 && fastrand::usize(..total) < weight(table) {
                        chosen = Some(table);
                    }
                }
                chosen.or_else(|| self.random_table(weight))
            }
        }
    }

    /// Number of keys in a hash slot, in cluster mode.
    pub(crate) fn slot_len(&self, slot: u16) -> usize {
        match &self.tables {
            Tables::One(_) => 0,
            Tables::PerSlot(slots) => slots[slot as usize].as_ref().map_or(0, |t| t.len()),
        }
    }

    /// Those of these slots that have keys. One walk, so that the tables, which lie anywhere, are waited for together.
    pub(crate) fn slots_with_keys(&self, of: &SlotSet) -> SlotSet {
        of.iter().filter(|slot| self.slot_len(*slot) > 0).collect()
    }

    /// Number of keys in these slots.
    pub(crate) fn slots_len(&self, of: &SlotSet) -> usize {
        of.iter().map(|slot| self.slot_len(slot)).sum()
    }

    /// One step of going through the keys of a hash slot, as `scan` does; hidden or not.
    pub(crate) fn scan_slot(&self, slot: u16, cursor: u64, most: usize, mut f: impl FnMut(&Entry)) -> u64 {
        match &self.tables {
            Tables::One(_) => 0,
            Tables::PerSlot(slots) => slots[slot as usize].as_deref().map_or(0, |t| t.scan_page(cursor, most, &mut f)),
        }
    }

    /// The entries of a slot; none without tables a slot.
    pub(crate) fn slot_entries(&self, slot: u16) -> impl Iterator<Item = &Entry> {
        let table = match &self.tables {
            Tables::One(_) => None,
            Tables::PerSlot(slots) => slots[slot as usize].as_ref(),
        };
        table.into_iter().flat_map(|t| t.iter())
    }

    /// Moves buckets of tables that are being resized, until `deadline`; frees the tables of empty slots. Some of the slots get
    /// their turn each time: nearly always none of them has anything to do.
    pub(crate) fn rehash(&mut self, deadline: Instant) {
        let step = |t: &mut Table<Entry>| while t.is_rehashing() && Instant::now() < deadline && t.rehash_step(100) {};
        match &mut self.tables {
            Tables::One(t) => step(t),
            Tables::PerSlot(slots) => {
                let (from, count) = (self.rehash_slot, slots.len());
                let to = (from + count / REHASH_SHARE).min(count);
                for (at, place) in slots[from..to].iter_mut().enumerate() {
                    let Some(t) = place else { continue };
                    if t.is_empty() {
                        *place = None;
                        continue;
                    }
                    step(t);
                    if t.is_rehashing() && Instant::now() >= deadline {
                        self.rehash_slot = from + at;
                        return;
                    }
                }
                self.rehash_slot = to % count;
            }
        }
    }

    /// While a child process shares our memory, tables are resized only when they must be.
    pub(crate) fn set_avoid_resize(&mut self, avoid: bool) {
        let policy = if avoid { ResizePolicy::Avoid } else { ResizePolicy::Allow };
        match &mut self.tables {
            Tables::One(t) => t.set_resize_policy(policy),
            Tables::PerSlot(slots) => slots.iter_mut().flatten().for_each(|t| t.set_resize_policy(policy)),
        }
    }

    /// Memory of the tables themselves, in bytes.
    pub(crate) fn table_bytes(&self) -> usize {
        match &self.tables {
            Tables::One(t) => t.mem_bytes(),
            Tables::PerSlot(slots) => {
                slots.len() * size_of::<usize>() + slots.iter().flatten().map(|t| t.mem_bytes()).sum::<usize>()
            }
        }
    }

    /// Text about the tables, for DEBUG HTSTATS.
    pub(crate) fn stats(&self) -> String {
        match &self.tables {
            Tables::One(t) => t.stats(),
            Tables::PerSlot(slots) => {
                format!("{} slots hold keys, {} keys\n", slots.iter().flatten().count(), self.len())
            }
        }
    }
}

fn empty_tables(per_slot: bool, seed: HashSeed) -> Tables {
    if per_slot {
        Tables::PerSlot((0..SLOT_COUNT).map(|_| None).collect())
    } else {
        Tables::One(Box::new(Table::new(seed)))
    }
}

/// Bits of the cursor that hold the slot.
const SLOT_BITS: u32 = 14;
/// Of tables a slot, one in so many gets its turn to be rehashed each time.
const REHASH_SHARE: usize = 4;

/// One step through the tables of all slots; those whose `weight` is 0 are passed over.
fn scan_slots(
    slots: &[Option<Box<Table<Entry>>>],
    cursor: u64,
    weight: impl Fn(usize, &Table<Entry>) -> usize,
    mut step: impl FnMut(&Table<Entry>, u64) -> u64,
) -> u64 {
    let start = (cursor & (SLOT_COUNT as u64 - 1)) as usize;
    let next =
        |from: usize| (from..slots.len()).find(|slot| slots[*slot].as_deref().is_some_and(|t| weight(*slot, t) > 0));
    // If this slot has nothing left, the same step goes on with the next one.
    let Some(slot) = next(start) else { return 0 };
    let inner = if slot == start { cursor >> SLOT_BITS } else { 0 };
    let inner = slots[slot].as_deref().map_or(0, |t| step(t, inner));
    if inner != 0 {
        return inner << SLOT_BITS | slot as u64;
    }
    next(slot + 1).unwrap_or(0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structs::entry::NewValue;
    use std::time::Duration;

    #[test]
    fn what_is_hidden_is_found_by_its_name_alone() {
        let mut db = Db::new(true, HashSeed([7; 16]));
        for (tag, expire_ms) in [("{foo}", None), ("{bar}", Some(5))] {
            for n in 0..100 {
                db.insert_new(Entry::new(format!("{tag}{n}").as_bytes(), NewValue::Int(n), expire_ms));
            }
        }
        let scanned = |db: &Db, expiring| {
            let (mut keys, mut cursor) = (Vec::new(), 0);
            loop {
                let mut note = |entry: &Entry| keys.push(entry.key().to_vec());
                cursor = if expiring { db.scan_expiring(cursor, &mut note) } else { db.scan(cursor, 10, &mut note) };
                if cursor == 0 {
                    break keys;
                }
            }
        };
        assert_eq!((db.shown_len(), db.shown_expires_len(), scanned(&db, false).len()), (200, 100, 200));
        db.hide([key_slot(b"bar")].into_iter().collect());
        assert_eq!((db.shown_len(), db.shown_expires_len()), (100, 0));
        assert_eq!((db.len(), db.expires_len(), db.iter().count()), (200, 100, 200));
        assert!(
            scanned(&db, false)
                .iter()
                .chain(db.shown().map(Entry::key).map(<[u8]>::to_vec).collect::<Vec<_>>().iter())
                .all(|key| key.starts_with(b"{foo}"))
        );
        assert_eq!((scanned(&db, false).len(), scanned(&db, true).len(), db.shown().count()), (100, 0, 100));
        assert!(db.random_expiring().is_none() && (0..50).all(|_| db.random().unwrap().key().starts_with(b"{foo}")));
        db.sample(50, false, |entry| assert!(entry.key().starts_with(b"{foo}")));
        assert!(db.get(b"{bar}7").is_some() && db.slot_len(key_slot(b"bar")) == 100);
        db.hide(SlotSet::default());
        assert_eq!(db.shown_len(), 200);
    }

    #[test]
    fn all_slots_get_their_turn_to_be_rehashed() {
        let mut db = Db::new(true, HashSeed([7; 16]));
        for n in 0..500 {
            for tag in ["{foo}", "{bar}"] {
                db.insert_new(Entry::new(format!("{tag}{n}").as_bytes(), NewValue::Int(n), None));
            }
        }
        let is_rehashing = |db: &Db| match &db.tables {
            Tables::One(_) => unreachable!("there is one a slot"),
            Tables::PerSlot(slots) => slots.iter().flatten().any(|t| t.is_rehashing()),
        };
        let mut n = 500;
        while !is_rehashing(&db) {
            db.insert_new(Entry::new(format!("{{foo}}{n}").as_bytes(), NewValue::Int(n), None));
            n += 1;
        }
        for _ in 0..REHASH_SHARE {
            db.rehash(Instant::now() + Duration::from_secs(60));
        }
        assert!(!is_rehashing(&db));
        assert!(db.rehash_slot == 0, "a round is over");
    }
}
