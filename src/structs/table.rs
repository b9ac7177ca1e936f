//! A hash table of owned 8-byte pointers that lead to their key: for the keyspace, large hashes, sets and sorted sets.
//!
//! A bucket is one cache line: seven items, a byte of hash for each, and a byte that says which of them are tagged (in
//! the keyspace: have an expire time) and whether the last place holds a further bucket instead of an item. A look-up
//! reads one line, compares seven hash bytes at once, and as a rule touches only the item it wants. A further bucket
//! has as many places as needed, three at first.
//!
//! The bucket of an item is given by the *top* bits of its hash, so a table is a list of items in order of hash, cut
//! into `2^k` equal ranges. Everything else follows from that:
//!
//! - Growing and shrinking go through the ranges in order. At any time the ranges below one mark live in the new array
//!   and all others in the old one, so a look-up visits one array, never two. Arrays are cut into segments that come and
//!   go as the mark passes, so no step allocates, clears or frees more than one of them.
//! - A SCAN cursor is a position in hash space, whatever the table's size: a call emits the bucket around the position
//!   and returns where that bucket ends. Elements present throughout are seen, and twice only when the table shrank in
//!   between. Cursors go out with their bits reversed, which makes them small numbers.
//!
//! Invariants: [`Table::check_invariants`] lists them. Left to callers: setting [`ResizePolicy`] while a child process
//! makes resizing expensive, and calling [`Table::rehash_step`] when there is time.

#![allow(unsafe_code)]

use std::mem;

use super::bytes::is_same;
use super::sip::hash13;

mod bucket;
mod hint;
mod place;
mod visit;

#[cfg(test)]
mod tests;

pub(crate) use bucket::prefetch;
use bucket::{Array, Bucket, CHILD_ROOMS, SEGMENT_LOG2, SLOTS, free_array, index_of, tag_of};
pub(crate) use hint::Hint;
use hint::Memory;
pub use place::{ItemMut, OccupiedEntry, TableEntry, VacantEntry};

/// What a table holds: an owned pointer of 8 bytes that leads to its key.
pub trait TableItem {
    fn key(&self) -> &[u8];

    /// Whether the item counts for [`Table::tagged_len`] and is seen by [`Table::scan_tagged`].
    fn tagged(&self) -> bool;
}

/// The key of the hash function, random for each process, so that nobody outside can provoke collisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSeed(pub [u8; 16]);

impl HashSeed {
    /// SipHash-1-3 of `key`.
    #[inline]
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        hash13(&self.0, key)
    }
}

/// Whether a table may resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) enum ResizePolicy {
    #[default]
    Allow,
    /// A child process shares the memory: touch as little as possible, and grow only when the table is overfull by
    /// [`FORCE_RATIO`].
    Avoid,
    /// Never.
    Forbid,
}

/// The steps of prefetching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The bucket that a hash belongs to.
    Bucket,
    /// The items in it whose tags match, or else the bucket behind it.
    Item,
    /// The items in the bucket behind it.
    Behind,
}

/// What a look-up does with the item it found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Give,
    /// Treat it as missing.
    Hide,
    /// Take it out.
    Take,
}

/// Number of keys looked up together where there are many.
pub(crate) const TOGETHER: usize = 16;

/// A table grows when it holds more than this many items a bucket.
const GROW_LOAD: usize = 8;
/// How many times the usual load forces a table to grow under [`ResizePolicy::Avoid`].
pub(crate) const FORCE_RATIO: usize = 5;
/// A table shrinks when it holds fewer items than one for this many places.
const SHRINK_SPARSITY: usize = 10;
/// The largest factor, as a power of two, by which one resize changes a table that holds items: it bounds the work of
/// one step.
const MAX_RESIZE_LOG2: u32 = 4;

/// The number of buckets, as a power of two, of the smallest table for `len` items at the usual load.
fn log2_for(len: usize) -> u32 {
    len.div_ceil(GROW_LOAD).max(1).next_power_of_two().ilog2()
}

/// Where an item is: the bucket of its chain, the place in it, and the hash that leads there.
struct Spot<T> {
    hash: u64,
    bucket: Bucket<T>,
    place: usize,
}

impl<T> Clone for Spot<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Spot<T> {}

/// The table. See the file's head.
pub struct Table<T: TableItem> {
    /// `arrays[0]` is the table; during a resize `arrays[1]` is the new one.
    arrays: [Array<T>; 2],
    /// Ranges of the coarser of the two arrays that already live in `arrays[1]`.
    moved: usize,
    len: usize,
    tagged: usize,
    /// Number of buckets that hang behind others, and of their places.
    children: usize,
    child_room: usize,
    seed: HashSeed,
    policy: ResizePolicy,
    memory: Memory,
}

// SAFETY: a table owns its buckets and items and shares neither.
unsafe impl<T: TableItem + Send> Send for Table<T> {}

impl<T: TableItem> Table<T> {
    /// An empty table without memory.
    pub const fn new(seed: HashSeed) -> Table<T> {
        const {
            assert!(mem::size_of::<T>() == mem::size_of::<*mut u8>() && mem::align_of::<T>() <= 8);
            assert!(mem::size_of::<Bucket<T>>() == mem::size_of::<T>());
        }
        Table {
            arrays: [Array::none(), Array::none()],
            moved: 0,
            len: 0,
            tagged: 0,
            children: 0,
            child_room: 0,
            seed,
            policy: ResizePolicy::Allow,
            memory: Memory::NONE,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of items whose [`TableItem::tagged`] is true.
    pub(crate) fn tagged_len(&self) -> usize {
        self.tagged
    }

    pub(crate) fn seed(&self) -> HashSeed {
        self.seed
    }

    /// The hash for this table's `*_hashed` functions.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        self.seed.hash(key)
    }

    pub(crate) fn is_rehashing(&self) -> bool {
        !self.arrays[1].is_none()
    }

    /// The size of the coarser array.
    fn unit_log2(&self) -> u32 {
        self.arrays[0].log2.min(self.arrays[1].log2)
    }

    /// The array that holds the items of this hash.
    fn array_of(&self, hash: u64) -> usize {
        usize::from(self.is_rehashing() && index_of(hash, self.unit_log2()) < self.moved)
    }

    /// The first bucket for this hash, or none.
    fn head(&self, hash: u64) -> (usize, usize, Bucket<T>) {
        let array = self.array_of(hash);
        let of = &self.arrays[array];
        if of.is_none() {
            return (array, 0, Bucket::NONE);
        }
        let index = of.index(hash);
        (array, index, of.bucket(index))
    }

    #[inline(always)]
    fn find(&self, hash: u64, key: &[u8]) -> Option<Spot<T>> {
        let mut bucket = self.head(hash).2;
        let tag = tag_of(hash);
        while !bucket.is_none() {
            // SAFETY: the buckets of a chain are alive while the table is borrowed; a place with a tag holds an item.
            unsafe {
                for place in bucket.matches(tag) {
                    if bucket.tag(place) == tag && is_same(bucket.item(place).key(), key) {
                        return Some(Spot { hash, bucket, place });
                    }
                }
                bucket = bucket.child();
            }
        }
        None
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    pub fn get(&self, key: &[u8]) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        self.get_hashed(self.hash(key), key)
    }

    /// As [`Self::get`] with `hash(key)` computed before.
    pub(crate) fn get_hashed(&self, hash: u64, key: &[u8]) -> Option<&T> {
        let spot = self.find(hash, key)?;
        // SAFETY: a spot names a place that holds an item.
        Some(unsafe { spot.bucket.item(spot.place) })
    }

    /// As [`Self::get_mut`] with `hash(key)` computed before.
    #[inline]
    pub(crate) fn get_mut_hashed(&mut self, hash: u64, key: &[u8]) -> Option<ItemMut<'_, T>> {
        let spot = self.find(hash, key)?;
        Some(ItemMut { table: self, spot })
    }

    /// The item, if `judge` gives it; one that `judge` takes out is returned as the error. `judge` may change the item,
    /// but neither its key nor [`TableItem::tagged`]. `hash` is that of the key, `hint` says where it may be.
    #[inline(always)]
    pub(crate) fn get_mut_or_take_near(
        &mut self,
        (hash, hint): (u64, Hint),
        key: &[u8],
        judge: impl FnOnce(&mut T) -> Verdict,
    ) -> Result<ItemMut<'_, T>, Option<T>> {
        let spot = self.find_or_take((hash, hint), key, judge)?;
        Ok(ItemMut { table: self, spot })
    }

    #[inline(always)]
    fn find_or_take(
        &mut self,
        (hash, hint): (u64, Hint),
        key: &[u8],
        judge: impl FnOnce(&mut T) -> Verdict,
    ) -> Result<Spot<T>, Option<T>> {
        let Some(spot) = self.find_near(hash, hint, key) else { return Err(None) };
        // SAFETY: a spot names a place that holds an item; the table is exclusively ours.
        match judge(unsafe { spot.bucket.item_mut(spot.place) }) {
            Verdict::Give => Ok(spot),
            Verdict::Hide => Err(None),
            Verdict::Take => Err(Some(ItemMut { table: self, spot }.remove())),
        }
    }

    /// Prefetches what a look-up of this hash will touch, one step at a time with some time in between. After
    /// [`Step::Item`] returns whether there is anything to do for [`Step::Behind`].
    #[inline(always)]
    pub(crate) fn prefetch(&self, hash: u64, step: Step) -> bool {
        let bucket = self.head(hash).2;
        match step {
            Step::Bucket => bucket.prefetch(),
            Step::Item => return self.prefetch_item(hash).0,
            // SAFETY: the buckets of a chain are alive while the table is borrowed.
            Step::Behind if !bucket.is_none() => unsafe {
                let behind = bucket.child();
                if !behind.is_none() {
                    behind.prefetch_items(tag_of(hash));
                }
            },
            Step::Behind => {}
        }
        false
    }

    /// The hashes of some keys, at most [`TOGETHER`]. Prefetches what look-ups of them will touch.
    pub(crate) fn hash_together(&self, keys: &[Vec<u8>]) -> [u64; TOGETHER] {
        let mut hashes = [0; TOGETHER];
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.hash(key);
            self.prefetch(*hash, Step::Bucket);
        }
        for hash in hashes.iter().take(keys.len()) {
            self.prefetch(*hash, Step::Item);
        }
        hashes
    }

    /// The first result of `pick` for the items whose tag matches this hash; keys are not compared.
    pub(crate) fn likely<'t, R>(&'t self, hash: u64, pick: impl Fn(&'t T) -> Option<R>) -> Option<R> {
        let mut bucket = self.head(hash).2;
        let tag = tag_of(hash);
        while !bucket.is_none() {
            // SAFETY: the buckets of a chain are alive, and the items in them stay, for as long as the table is borrowed; a
            // place with a tag holds an item.
            unsafe {
                for place in bucket.matches(tag).filter(|place| bucket.tag(*place) == tag) {
                    let picked = pick(bucket.item(place));
                    if picked.is_some() {
                        return picked;
                    }
                }
                bucket = bucket.child();
            }
        }
        None
    }

    /// The place of a key, to look at, fill or empty with one hash and one search.
    pub fn entry<'t>(&'t mut self, key: &[u8]) -> TableEntry<'t, T> {
        self.entry_hashed(self.hash(key), key)
    }

    /// As [`Self::entry`] with `hash(key)` computed before.
    pub(crate) fn entry_hashed<'t>(&'t mut self, hash: u64, key: &[u8]) -> TableEntry<'t, T> {
        self.entry_near((hash, Hint::NONE), key)
    }

    /// As [`Self::entry_hashed`], with a hint where the item may be.
    #[inline]
    pub(crate) fn entry_near<'t>(&'t mut self, (hash, hint): (u64, Hint), key: &[u8]) -> TableEntry<'t, T> {
        self.step();
        match self.find_near(hash, hint, key) {
            Some(spot) => TableEntry::Occupied(OccupiedEntry { item: ItemMut { table: self, spot } }),
            None => TableEntry::Vacant(VacantEntry { table: self, hash }),
        }
    }

    /// Adds an item whose key the table does not hold yet.
    pub fn insert_new(&mut self, item: T) {
        let hash = self.hash(item.key());
        self.step();
        debug_assert!(self.find(hash, item.key()).is_none());
        self.place(hash, item);
    }

    /// As [`Self::insert_new`] with `hash(key)` computed before.
    pub(crate) fn insert_new_hashed(&mut self, hash: u64, item: T) {
        self.step();
        debug_assert_eq!(hash, self.hash(item.key()));
        self.place(hash, item);
    }

    fn place(&mut self, hash: u64, item: T) -> Spot<T> {
        self.grow_if_full();
        let array = self.array_of(hash);
        let tagged = item.tagged();
        self.len += 1;
        self.tagged += usize::from(tagged);
        self.link(array, hash, tagged, item)
    }

    /// Puts an item into a chain and counts it for the segment.
    fn link(&mut self, array: usize, hash: u64, tagged: bool, item: T) -> Spot<T> {
        let of = &mut self.arrays[array];
        let index = of.index(hash);
        let mut bucket = of.bucket_or_new(index);
        let mut parent = Bucket::NONE;
        *of.tagged_mut(index) += usize::from(tagged);
        // SAFETY: the buckets of a chain are alive, and the table is ours. Only children have fewer places than `SLOTS`, and
        // nothing but their parents points to them, which have all. A full bucket without a child has an item in its last
        // place; it moves to the child, whose places are free.
        unsafe {
            loop {
                if let Some(place) = bucket.free_place() {
                    bucket.put(place, tag_of(hash), tagged, item);
                    return Spot { hash, bucket, place };
                }
                let child = bucket.child();
                if !child.is_none() {
                    (parent, bucket) = (bucket, child);
                } else if bucket.room() < SLOTS {
                    self.child_room -= bucket.room();
                    bucket = bucket.grown();
                    self.child_room += bucket.room();
                    parent.set_child(bucket);
                } else {
                    let child = Bucket::new_child(CHILD_ROOMS[0]);
                    self.children += 1;
                    self.child_room += child.room();
                    let (tag, tagged, last) = bucket.take(SLOTS - 1);
                    child.put(0, tag, tagged, last);
                    bucket.set_child(child);
                    (parent, bucket) = (bucket, child);
                }
            }
        }
    }

    /// Frees a child.
    ///
    /// # Safety
    /// It must be a child of this table whose items were taken out and that nothing points to any more.
    unsafe fn free_child(&mut self, child: Bucket<T>) {
        self.children -= 1;
        self.child_room -= child.room();
        // SAFETY: the caller's promise.
        unsafe { child.free_child() }
    }

    /// Takes the item of a spot out of its chain and closes the gap from the chain's end.
    fn unlink(&mut self, spot: Spot<T>) -> T {
        // SAFETY: the spot names an item.
        let (_, tagged, item) = unsafe { spot.bucket.take(spot.place) };
        self.len -= 1;
        self.tagged -= usize::from(tagged);
        let (array, index, head) = self.head(spot.hash);
        *self.arrays[array].tagged_mut(index) -= usize::from(tagged);

        // Only the last bucket of a chain may have gaps.
        let mut parent = Bucket::NONE;
        let mut last = spot.bucket;
        // SAFETY: the buckets of a chain are alive, and the table is ours. Occupied places hold items; the spot's place holds
        // none any more. The last place of a parent is free once it has no child, and then nothing points to that.
        unsafe {
            while last.chained() {
                (parent, last) = (last, last.child());
            }
            if last != spot.bucket {
                let from = last.occupied().next().expect("a child is never empty");
                let (tag, tagged, moved) = last.take(from);
                spot.bucket.put(spot.place, tag, tagged, moved);
            } else if self.children > 0 {
                // The last bucket of the chain itself lost an item: find its parent.
                if head != last {
                    parent = head;
                    while parent.child() != last {
                        parent = parent.child();
                    }
                }
            }
            if !parent.is_none() && last.count() <= 1 {
                parent.clear_child();
                if let Some(from) = last.occupied().next() {
                    let (tag, tagged, moved) = last.take(from);
                    parent.put(SLOTS - 1, tag, tagged, moved);
                }
                self.free_child(last);
            }
        }
        item
    }

    pub(crate) fn remove(&mut self, key: &[u8]) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        self.remove_hashed(self.hash(key), key)
    }

    /// As [`Self::remove`] with `hash(key)` computed before.
    pub(crate) fn remove_hashed(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        let item = self.remove_unshrunk(hash, key)?;
        self.shrink_if_sparse();
        Some(item)
    }

    /// Removes several items, and then resizes the table once, to what is left. Returns how many there were.
    pub(crate) fn remove_several<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) -> usize {
        let removed = keys.filter(|key| self.remove_unshrunk(self.hash(key), key).is_some()).count();
        self.shrink_if_sparse();
        removed
    }

    /// As [`Self::remove_several`]; returns the items.
    pub(crate) fn take_several<'k>(&mut self, keys: impl Iterator<Item = &'k [u8]>) -> Vec<T> {
        let taken = keys.filter_map(|key| self.remove_unshrunk(self.hash(key), key)).collect();
        self.shrink_if_sparse();
        taken
    }

    fn remove_unshrunk(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        self.step();
        let spot = self.find(hash, key)?;
        Some(self.unlink(spot))
    }

    /// Updates the tag bit after a change of an item.
    #[inline(always)]
    fn refresh_tag(&mut self, Spot { hash, bucket, place }: Spot<T>) {
        // SAFETY: the spot names an item of this table, which is ours.
        unsafe {
            let tagged = bucket.item(place).tagged();
            if tagged != bucket.is_tagged(place) {
                bucket.set_tagged(place, tagged);
                self.count_tagged(hash, tagged);
            }
        }
    }

    /// Counts that an item of this hash became tagged, or ceased to be.
    #[inline(never)]
    fn count_tagged(&mut self, hash: u64, tagged: bool) {
        let (array, index, _) = self.head(hash);
        let in_segment = self.arrays[array].tagged_mut(index);
        if tagged {
            self.tagged += 1;
            *in_segment += 1;
        } else {
            self.tagged -= 1;
            *in_segment -= 1;
        }
    }
}

/// Resizing.
impl<T: TableItem> Table<T> {
    pub(crate) fn set_resize_policy(&mut self, policy: ResizePolicy) {
        self.policy = policy;
    }

    /// Makes room for `len` items in all, as far as one resize may go.
    pub(crate) fn reserve(&mut self, len: usize) {
        let wanted = log2_for(len);
        if self.is_rehashing() || (!self.arrays[0].is_none() && wanted <= self.arrays[0].log2) {
            return;
        }
        self.resize(wanted);
    }

    fn grow_if_full(&mut self) {
        if self.arrays[0].is_none() {
            self.arrays[0] = Array::new(0);
            self.memory = Memory::next();
        }
        if self.is_rehashing() || self.policy == ResizePolicy::Forbid {
            return;
        }
        let load = match self.policy {
            ResizePolicy::Allow => GROW_LOAD,
            _ => GROW_LOAD * FORCE_RATIO,
        };
        if self.len >= self.arrays[0].buckets() * load {
            self.resize(log2_for(self.len + 1));
        }
    }

    /// Begins to shrink a table that holds few items for its size. Removing does so by itself when the policy allows.
    pub(crate) fn shrink_if_sparse(&mut self) {
        if self.policy != ResizePolicy::Allow || self.is_rehashing() || self.arrays[0].is_none() {
            return;
        }
        let array = &self.arrays[0];
        if array.log2 > 0 && self.len * SHRINK_SPARSITY < array.buckets() * SLOTS {
            // Half full afterwards, so that it will not grow again soon.
            self.resize(log2_for(self.len * 2).min(array.log2));
        }
    }

    fn resize(&mut self, log2: u32) {
        debug_assert!(!self.is_rehashing());
        if self.len == 0 {
            let old = mem::replace(&mut self.arrays[0], Array::new(log2));
            self.memory = Memory::next();
            free_array(old, |_| unreachable!("an empty table has no items"));
            return;
        }
        let now = self.arrays[0].log2;
        let log2 = log2.clamp(now.saturating_sub(MAX_RESIZE_LOG2), now + MAX_RESIZE_LOG2);
        if log2 != now {
            self.arrays[1] = Array::new(log2);
            self.moved = 0;
        }
    }

    /// Whether moving buckets is allowed now.
    fn may_rehash(&self) -> bool {
        if !self.is_rehashing() {
            return false;
        }
        match self.policy {
            ResizePolicy::Allow => true,
            ResizePolicy::Avoid => {
                let grows = self.arrays[1].log2 > self.arrays[0].log2;
                grows && self.len >= self.arrays[0].buckets() * GROW_LOAD * FORCE_RATIO
            }
            ResizePolicy::Forbid => false,
        }
    }

    /// Does the share of a resize that every change of the table takes.
    fn step(&mut self) {
        if self.is_rehashing() {
            self.rehash_step(1);
        }
    }

    /// Moves at most `ranges` ranges of the table. Returns whether there is more to move (and moving is allowed).
    pub(crate) fn rehash_step(&mut self, ranges: usize) -> bool {
        for _ in 0..ranges {
            if !self.may_rehash() {
                return false;
            }
            self.move_range();
        }
        self.may_rehash()
    }

    fn move_range(&mut self) {
        let unit_log2 = self.unit_log2();
        let span = 1usize << (self.arrays[0].log2 - unit_log2);
        let first = self.moved * span;
        for index in first..first + span {
            let tagged = self.empty_chain(index);
            *self.arrays[0].tagged_mut(index) -= tagged;
        }
        self.moved += 1;
        let done = first + span;
        if done.is_multiple_of(self.arrays[0].segment_buckets()) {
            self.arrays[0].free_segment((done - 1) >> SEGMENT_LOG2);
            self.memory = Memory::next();
        }
        if self.moved == 1 << unit_log2 {
            self.arrays[0] = mem::replace(&mut self.arrays[1], Array::none());
            self.moved = 0;
            self.shrink_if_sparse();
        }
    }

    /// Moves the items of one bucket of the old array to the new one. Returns how many were tagged.
    fn empty_chain(&mut self, index: usize) -> usize {
        let head = self.arrays[0].bucket(index);
        let mut bucket = head;
        let mut tagged_items = 0;
        while !bucket.is_none() {
            // SAFETY: the buckets of a chain are alive, and the table is ours; nothing is added to this chain meanwhile.
            // Occupied places hold items. A child that is left behind is empty, and what pointed to it is cleared or gone.
            unsafe {
                for place in bucket.occupied() {
                    prefetch(bucket.address(place));
                }
                for place in bucket.occupied() {
                    let (_, tagged, item) = bucket.take(place);
                    let hash = self.seed.hash(item.key());
                    self.link(1, hash, tagged, item);
                    tagged_items += usize::from(tagged);
                }
                let child = bucket.child();
                bucket.clear_child();
                if bucket != head {
                    self.free_child(bucket);
                }
                bucket = child;
            }
        }
        tagged_items
    }
}

impl<T: TableItem> Drop for Table<T> {
    fn drop(&mut self) {
        for array in &mut self.arrays {
            free_array(mem::replace(array, Array::none()), drop);
        }
    }
}
