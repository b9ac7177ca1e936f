//! A hash table of owned 8-byte pointers that know their own key: the keyspace's dictionary, and that of large hashes
//! and sets.
//!
//! A bucket is one cache line: seven items, a byte of hash for each, and a byte that says which of them are tagged (for
//! the keyspace: have an expire) and whether the last place holds a further bucket instead of an item. A look-up reads
//! one line, compares seven hash bytes at once, and as a rule touches only the item it wants.
//!
//! The bucket of an item is given by the *top* bits of its hash, so a table is a list of items in order of hash, cut
//! into `2^k` equal ranges. Everything else follows from that:
//!
//! - Growing and shrinking go through the ranges in order. At any time the ranges below one mark live in the new array
//!   and all others in the old one, so a look-up visits one array, never two. Arrays are cut into segments that come and
//!   go as the mark passes, so no step allocates, clears or frees more than one of them.
//! - A SCAN cursor is a position in hash space, whatever the table's size: a call emits the bucket around the position
//!   and returns where that bucket ends. Elements present throughout are met, and twice only when the table shrank in
//!   between. Cursors go out with their bits reversed, which makes them small numbers.
//!
//! Invariants: [`Table::check_invariants`] lists them. Left to others: when a child process makes resizing dear (they
//! set [`ResizePolicy`]), and calling [`Table::rehash_for`] when there is time.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt::Write as _;
use std::hash::Hasher as _;
use std::mem::{self, MaybeUninit};
use std::ops::{Deref, DerefMut};
use std::ptr;

use siphasher::sip::SipHasher13;

/// What a table holds: an owned pointer of 8 bytes that leads to its key.
pub trait TableItem {
    fn key(&self) -> &[u8];

    /// Whether the item counts for [`Table::tagged_len`] and is met by [`Table::scan_tagged`].
    fn tagged(&self) -> bool;
}

/// The key of the hash function, drawn once a process so that nobody outside can aim for collisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashSeed(pub [u8; 16]);

impl HashSeed {
    /// SipHash-1-3 of `key`.
    pub fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_key(&self.0);
        hasher.write(key);
        hasher.finish()
    }
}

/// Whether a table may resize.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ResizePolicy {
    #[default]
    Allow,
    /// A child process shares the memory: touch as little as possible, and grow only when the table is overfull by
    /// [`FORCE_RATIO`].
    Avoid,
    /// Never.
    Forbid,
}

/// Places in a bucket.
const SLOTS: usize = 7;
/// A table grows when it holds more than this many items a bucket.
const GROW_LOAD: usize = 6;
/// How many times the usual load forces a table to grow under [`ResizePolicy::Avoid`].
pub const FORCE_RATIO: usize = 5;
/// A table shrinks when it holds fewer items than one for this many places.
const SHRINK_SPARSITY: usize = 10;
/// Buckets in a full segment (256 KiB).
const SEGMENT_LOG2: u32 = 12;
const SEGMENT_BUCKETS: usize = 1 << SEGMENT_LOG2;
/// The largest factor, as a power of two, by which one resize changes the size of a table that holds items: it bounds
/// the work of one step.
const MAX_RESIZE_LOG2: u32 = 4;

const TAG_BYTES: u64 = 0x00ff_ffff_ffff_ffff;
const LOW_BITS: u64 = 0x0001_0101_0101_0101;
const HIGH_BITS: u64 = 0x0080_8080_8080_8080;
const CHAINED: u8 = 0x80;
const TAGGED_MASK: u8 = 0x7f;

#[repr(C, align(64))]
struct Bucket<T> {
    /// The low byte of each item's hash, 1 in place of 0; 0 where there is no item.
    tags: [u8; SLOTS],
    /// Bit `i`: item `i` is tagged. Bit 7: the last place holds a pointer to another bucket.
    meta: u8,
    slots: [MaybeUninit<T>; SLOTS],
}

/// The tag of a hash: never 0.
fn tag_of(hash: u64) -> u8 {
    let tag = hash as u8;
    if tag == 0 { 1 } else { tag }
}

/// The places named by the high bits of a mask.
struct Places(u64);

impl Iterator for Places {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let place = self.0.trailing_zeros() as usize / 8;
        self.0 &= self.0 - 1;
        Some(place)
    }
}

impl<T> Bucket<T> {
    fn word(&self) -> u64 {
        let mut word = [0; 8];
        word[..SLOTS].copy_from_slice(&self.tags);
        word[SLOTS] = self.meta;
        u64::from_le_bytes(word)
    }

    /// The places whose tag is `tag` (and now and then one more: the caller compares keys).
    fn matches(&self, tag: u8) -> Places {
        let x = (self.word() & TAG_BYTES) ^ (LOW_BITS * u64::from(tag));
        Places(x.wrapping_sub(LOW_BITS) & !x & HIGH_BITS)
    }

    /// A bit for each place that holds an item; exact.
    fn occupied_mask(&self) -> u64 {
        let word = self.word() & TAG_BYTES;
        (((word & !HIGH_BITS) + (HIGH_BITS - LOW_BITS)) | word) & HIGH_BITS
    }

    fn occupied(&self) -> Places {
        Places(self.occupied_mask())
    }

    /// The items in this bucket, not in those behind it.
    fn count(&self) -> usize {
        self.occupied_mask().count_ones() as usize
    }

    fn tagged_count(&self) -> usize {
        (self.meta & TAGGED_MASK).count_ones() as usize
    }

    fn chained(&self) -> bool {
        self.meta & CHAINED != 0
    }

    /// Places that an item can take.
    fn capacity(&self) -> usize {
        if self.chained() { SLOTS - 1 } else { SLOTS }
    }

    fn free_place(&self) -> Option<usize> {
        let free = !self.occupied_mask() & HIGH_BITS;
        let place = free.trailing_zeros() as usize / 8;
        (free != 0 && place < self.capacity()).then_some(place)
    }

    fn child(&self) -> *mut Bucket<T> {
        if self.chained() {
            // SAFETY: a chained bucket's last place holds the child's address, written by `set_child`.
            unsafe { self.slots[SLOTS - 1].as_ptr().cast::<*mut Bucket<T>>().read() }
        } else {
            ptr::null_mut()
        }
    }

    fn set_child(&mut self, child: *mut Bucket<T>) {
        debug_assert_eq!(self.tags[SLOTS - 1], 0);
        self.meta = self.meta & !(1 << (SLOTS - 1)) | CHAINED;
        // SAFETY: a place has the size and alignment of a pointer (asserted in `Table::new`).
        unsafe { self.slots[SLOTS - 1].as_mut_ptr().cast::<*mut Bucket<T>>().write(child) }
    }

    fn clear_child(&mut self) {
        self.meta &= !CHAINED;
    }

    /// # Safety
    /// Place `i` must hold an item.
    unsafe fn item(&self, i: usize) -> &T {
        // SAFETY: the caller's promise.
        unsafe { self.slots[i].assume_init_ref() }
    }

    fn set_tagged(&mut self, i: usize, tagged: bool) {
        self.meta = self.meta & !(1 << i) | u8::from(tagged) << i;
    }

    fn is_tagged(&self, i: usize) -> bool {
        self.meta & 1 << i != 0
    }

    fn put(&mut self, i: usize, tag: u8, tagged: bool, item: T) {
        debug_assert!(self.tags[i] == 0 && i < self.capacity());
        self.slots[i].write(item);
        self.tags[i] = tag;
        self.set_tagged(i, tagged);
    }

    /// Takes the item at place `i` out: its tag, whether it was tagged, itself.
    ///
    /// # Safety
    /// Place `i` must hold an item.
    unsafe fn take(&mut self, i: usize) -> (u8, bool, T) {
        let tag = mem::take(&mut self.tags[i]);
        let tagged = self.is_tagged(i);
        self.set_tagged(i, false);
        // SAFETY: the caller's promise; the tag is cleared, so nobody reads the place again.
        (tag, tagged, unsafe { self.slots[i].assume_init_read() })
    }
}

fn buckets_layout<T>(count: usize) -> Layout {
    Layout::array::<Bucket<T>>(count).expect("a segment fits the address space")
}

/// Empty buckets: all zeros.
fn allocate_buckets<T>(count: usize) -> *mut Bucket<T> {
    let layout = buckets_layout::<T>(count);
    // SAFETY: the layout is not empty. All zeros is a valid bucket: no tags, no child, uninitialised items.
    let at = unsafe { alloc_zeroed(layout) }.cast::<Bucket<T>>();
    if at.is_null() {
        handle_alloc_error(layout);
    }
    at
}

/// # Safety
/// `at` must come from `allocate_buckets` with the same count, and not be used afterwards.
unsafe fn free_buckets<T>(at: *mut Bucket<T>, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { dealloc(at.cast(), buckets_layout::<T>(count)) }
}

struct Segment<T> {
    /// Null: all its buckets are empty and it has no memory.
    buckets: *mut Bucket<T>,
    /// Tagged items in it.
    tagged: usize,
}

/// `2^log2` buckets in segments.
struct Array<T> {
    log2: u32,
    segments: Vec<Segment<T>>,
}

impl<T> Array<T> {
    const fn none() -> Array<T> {
        Array { log2: 0, segments: Vec::new() }
    }

    fn new(log2: u32) -> Array<T> {
        let count = 1usize << log2.saturating_sub(SEGMENT_LOG2);
        let mut segments = Vec::with_capacity(count);
        segments.resize_with(count, || Segment { buckets: ptr::null_mut(), tagged: 0 });
        Array { log2, segments }
    }

    fn is_none(&self) -> bool {
        self.segments.is_empty()
    }

    fn buckets(&self) -> usize {
        if self.is_none() { 0 } else { 1 << self.log2 }
    }

    fn segment_buckets(&self) -> usize {
        1 << self.log2.min(SEGMENT_LOG2)
    }

    fn index(&self, hash: u64) -> usize {
        index_of(hash, self.log2)
    }

    /// Bucket `i`, or null where its segment has no memory.
    fn bucket(&self, i: usize) -> *mut Bucket<T> {
        let segment = self.segments[i >> SEGMENT_LOG2].buckets;
        if segment.is_null() {
            segment
        } else {
            // SAFETY: a segment holds as many buckets as the mask leaves possible, or all there are.
            unsafe { segment.add(i & (SEGMENT_BUCKETS - 1)) }
        }
    }

    /// Bucket `i`, making its segment's memory if there is none.
    fn bucket_or_new(&mut self, i: usize) -> *mut Bucket<T> {
        let count = self.segment_buckets();
        let segment = &mut self.segments[i >> SEGMENT_LOG2];
        if segment.buckets.is_null() {
            segment.buckets = allocate_buckets(count);
        }
        self.bucket(i)
    }

    fn tagged_mut(&mut self, i: usize) -> &mut usize {
        &mut self.segments[i >> SEGMENT_LOG2].tagged
    }

    /// Frees the memory of segment `s`, whose buckets must be empty.
    fn free_segment(&mut self, s: usize) {
        let count = self.segment_buckets();
        let segment = &mut self.segments[s];
        debug_assert_eq!(segment.tagged, 0);
        let buckets = mem::replace(&mut segment.buckets, ptr::null_mut());
        if !buckets.is_null() {
            // SAFETY: it came from `bucket_or_new` with the same count.
            unsafe { free_buckets(buckets, count) }
        }
    }
}

/// The top `log2` bits of a hash.
fn index_of(hash: u64, log2: u32) -> usize {
    // In two steps because a shift by 64 is not defined.
    ((hash >> 1) >> (63 - log2)) as usize
}

/// The smallest table, as a power of two, that holds `len` items at the usual load.
fn log2_for(len: usize) -> u32 {
    len.div_ceil(GROW_LOAD).max(1).next_power_of_two().ilog2()
}

/// Where an item is: array (0 or 1), bucket index, the bucket of its chain, the place in it.
struct Spot<T> {
    array: usize,
    index: usize,
    bucket: *mut Bucket<T>,
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
    /// `arrays[0]` is the table; while it is being resized `arrays[1]` is what it becomes.
    arrays: [Array<T>; 2],
    /// Ranges of the coarser of the two arrays that already live in `arrays[1]`.
    moved: usize,
    len: usize,
    tagged: usize,
    /// Buckets that hang behind others.
    children: usize,
    seed: HashSeed,
    policy: ResizePolicy,
    paused: u32,
}

// SAFETY: a table owns its buckets and items and shares neither.
unsafe impl<T: TableItem + Send> Send for Table<T> {}

impl<T: TableItem> Table<T> {
    /// An empty table without memory.
    pub const fn new(seed: HashSeed) -> Table<T> {
        const {
            assert!(mem::size_of::<T>() == mem::size_of::<*mut u8>() && mem::align_of::<T>() <= 8);
            assert!(mem::size_of::<Bucket<T>>() == 64);
        }
        Table {
            arrays: [Array::none(), Array::none()],
            moved: 0,
            len: 0,
            tagged: 0,
            children: 0,
            seed,
            policy: ResizePolicy::Allow,
            paused: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Items whose [`TableItem::tagged`] is true.
    pub fn tagged_len(&self) -> usize {
        self.tagged
    }

    pub fn seed(&self) -> HashSeed {
        self.seed
    }

    /// The hash that this table's `*_hashed` functions want.
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.seed.hash(key)
    }

    pub fn is_rehashing(&self) -> bool {
        !self.arrays[1].is_none()
    }

    /// The coarser of the two arrays' size.
    fn unit_log2(&self) -> u32 {
        self.arrays[0].log2.min(self.arrays[1].log2)
    }

    /// The array that holds the items of this hash.
    fn array_of(&self, hash: u64) -> usize {
        usize::from(self.is_rehashing() && index_of(hash, self.unit_log2()) < self.moved)
    }

    /// The first bucket for this hash, or null.
    fn head(&self, hash: u64) -> (usize, usize, *mut Bucket<T>) {
        let array = self.array_of(hash);
        let of = &self.arrays[array];
        if of.is_none() {
            return (array, 0, ptr::null_mut());
        }
        let index = of.index(hash);
        (array, index, of.bucket(index))
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<Spot<T>> {
        let (array, index, mut bucket) = self.head(hash);
        let tag = tag_of(hash);
        while !bucket.is_null() {
            // SAFETY: a non-null bucket of the table is alive; a place with a tag holds an item.
            unsafe {
                let here = &*bucket;
                for place in here.matches(tag) {
                    if here.tags[place] == tag && here.item(place).key() == key {
                        return Some(Spot { array, index, bucket, place });
                    }
                }
                bucket = here.child();
            }
        }
        None
    }

    pub fn contains(&self, key: &[u8]) -> bool {
        self.get(key).is_some()
    }

    pub fn get(&self, key: &[u8]) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        self.get_hashed(self.hash(key), key)
    }

    /// As [`Self::get`] with `hash(key)` computed before.
    pub fn get_hashed(&self, hash: u64, key: &[u8]) -> Option<&T> {
        let spot = self.find(hash, key)?;
        // SAFETY: a spot names a place that holds an item.
        Some(unsafe { (*spot.bucket).item(spot.place) })
    }

    /// The item for change. What the change does to [`TableItem::tagged`] is noticed when the guard is dropped; the key
    /// must not change.
    pub fn get_mut(&mut self, key: &[u8]) -> Option<ItemMut<'_, T>> {
        if self.len == 0 {
            return None;
        }
        self.get_mut_hashed(self.hash(key), key)
    }

    /// As [`Self::get_mut`] with `hash(key)` computed before.
    pub fn get_mut_hashed(&mut self, hash: u64, key: &[u8]) -> Option<ItemMut<'_, T>> {
        let spot = self.find(hash, key)?;
        Some(ItemMut { table: self, spot })
    }

    /// Begins to bring the bucket of a hash into the cache.
    pub fn prefetch(&self, hash: u64) {
        prefetch(self.head(hash).2);
    }

    /// Begins to bring the items that a look-up of this hash will compare into the cache; worth its while some time
    /// after [`Self::prefetch`].
    pub fn prefetch_items(&self, hash: u64) {
        let bucket = self.head(hash).2;
        if bucket.is_null() {
            return;
        }
        // SAFETY: a non-null bucket of the table is alive.
        let here = unsafe { &*bucket };
        for place in here.matches(tag_of(hash)) {
            // SAFETY: reads the place as the address it is, without using it; an unfilled place gives a useless one.
            prefetch(unsafe { here.slots[place].as_ptr().cast::<*const u8>().read() });
        }
    }

    /// The place of a key, to look at, fill or empty with one hash and one search.
    pub fn entry<'t>(&'t mut self, key: &[u8]) -> TableEntry<'t, T> {
        self.entry_hashed(self.hash(key), key)
    }

    /// As [`Self::entry`] with `hash(key)` computed before.
    pub fn entry_hashed<'t>(&'t mut self, hash: u64, key: &[u8]) -> TableEntry<'t, T> {
        self.step();
        match self.find(hash, key) {
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
    pub fn insert_new_hashed(&mut self, hash: u64, item: T) {
        self.step();
        debug_assert_eq!(hash, self.hash(item.key()));
        self.place(hash, item);
    }

    fn place(&mut self, hash: u64, item: T) -> Spot<T> {
        self.grow_if_full();
        let array = self.array_of(hash);
        let index = self.arrays[array].index(hash);
        let tagged = item.tagged();
        self.len += 1;
        self.tagged += usize::from(tagged);
        self.link(array, index, tag_of(hash), tagged, item)
    }

    /// Puts an item into a chain and counts it for the segment.
    fn link(&mut self, array: usize, index: usize, tag: u8, tagged: bool, item: T) -> Spot<T> {
        let of = &mut self.arrays[array];
        let mut bucket = of.bucket_or_new(index);
        *of.tagged_mut(index) += usize::from(tagged);
        loop {
            // SAFETY: the bucket is alive and the table exclusively ours.
            let here = unsafe { &mut *bucket };
            if let Some(place) = here.free_place() {
                here.put(place, tag, tagged, item);
                return Spot { array, index, bucket, place };
            }
            let child = here.child();
            if !child.is_null() {
                bucket = child;
                continue;
            }
            let child = allocate_buckets::<T>(1);
            self.children += 1;
            // SAFETY: a full bucket has an item in its last place, which moves to the child; the child is fresh.
            unsafe {
                let (tag, tagged, last) = here.take(SLOTS - 1);
                (*child).put(0, tag, tagged, last);
            }
            here.set_child(child);
            bucket = child;
        }
    }

    /// Takes the item of a spot out of its chain and closes the gap from the chain's end.
    fn unlink(&mut self, spot: Spot<T>) -> T {
        // SAFETY: the spot names an item; every bucket of a chain is alive, and the table exclusively ours.
        unsafe {
            let (_, tagged, item) = (*spot.bucket).take(spot.place);
            self.len -= 1;
            self.tagged -= usize::from(tagged);
            *self.arrays[spot.array].tagged_mut(spot.index) -= usize::from(tagged);

            // Only the last bucket of a chain may have gaps.
            let mut parent = ptr::null_mut::<Bucket<T>>();
            let mut last = spot.bucket;
            while (*last).chained() {
                parent = last;
                last = (*last).child();
            }
            if last != spot.bucket {
                let from = (*last).occupied().next().expect("a child is never empty");
                let (tag, tagged, moved) = (*last).take(from);
                (*spot.bucket).put(spot.place, tag, tagged, moved);
            } else if self.children > 0 {
                // The end of the chain itself lost an item: find what it hangs on.
                let head = self.arrays[spot.array].bucket(spot.index);
                if head != last {
                    parent = head;
                    while (*parent).child() != last {
                        parent = (*parent).child();
                    }
                }
            }
            if !parent.is_null() && (*last).count() <= 1 {
                (*parent).clear_child();
                if let Some(from) = (*last).occupied().next() {
                    let (tag, tagged, moved) = (*last).take(from);
                    (*parent).put(SLOTS - 1, tag, tagged, moved);
                }
                free_buckets(last, 1);
                self.children -= 1;
            }
            item
        }
    }

    pub fn remove(&mut self, key: &[u8]) -> Option<T> {
        if self.len == 0 {
            return None;
        }
        self.remove_hashed(self.hash(key), key)
    }

    /// As [`Self::remove`] with `hash(key)` computed before.
    pub fn remove_hashed(&mut self, hash: u64, key: &[u8]) -> Option<T> {
        self.step();
        let spot = self.find(hash, key)?;
        let item = self.unlink(spot);
        self.shrink_if_sparse();
        Some(item)
    }

    /// Drops every item and all memory, here and now.
    pub fn clear(&mut self) {
        drop(self.take());
    }

    /// Leaves an empty table behind and returns all there was, for instance to be dropped on another thread.
    pub fn take(&mut self) -> Table<T> {
        let mut empty = Table::new(self.seed);
        empty.policy = self.policy;
        mem::replace(self, empty)
    }

    /// Notices a change of [`TableItem::tagged`] that was made behind the table's back.
    pub fn update_tag(&mut self, key: &[u8]) {
        drop(self.get_mut(key));
    }

    fn refresh_tag(&mut self, spot: Spot<T>) {
        // SAFETY: the spot names an item of this table.
        unsafe {
            let bucket = &mut *spot.bucket;
            let tagged = bucket.item(spot.place).tagged();
            if tagged != bucket.is_tagged(spot.place) {
                bucket.set_tagged(spot.place, tagged);
                let in_segment = self.arrays[spot.array].tagged_mut(spot.index);
                if tagged {
                    self.tagged += 1;
                    *in_segment += 1;
                } else {
                    self.tagged -= 1;
                    *in_segment -= 1;
                }
            }
        }
    }
}

/// Resizing.
impl<T: TableItem> Table<T> {
    pub fn set_resize_policy(&mut self, policy: ResizePolicy) {
        self.policy = policy;
    }

    /// Stops moving buckets until [`Self::resume_rehash`] was called as often.
    pub fn pause_rehash(&mut self) {
        self.paused += 1;
    }

    pub fn resume_rehash(&mut self) {
        debug_assert!(self.paused > 0);
        self.paused = self.paused.saturating_sub(1);
    }

    /// Makes room for `len` items in all, as far as one resize may go.
    pub fn reserve(&mut self, len: usize) {
        let wanted = log2_for(len);
        if self.is_rehashing() || (!self.arrays[0].is_none() && wanted <= self.arrays[0].log2) {
            return;
        }
        self.resize(wanted);
    }

    fn grow_if_full(&mut self) {
        if self.arrays[0].is_none() {
            self.arrays[0] = Array::new(0);
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
    pub fn shrink_if_sparse(&mut self) {
        if self.policy != ResizePolicy::Allow || self.is_rehashing() || self.arrays[0].is_none() {
            return;
        }
        let array = &self.arrays[0];
        if array.log2 > 0 && self.len * SHRINK_SPARSITY < array.buckets() * SLOTS {
            // Half full afterwards, so that growing again is not near.
            self.resize(log2_for(self.len * 2).min(array.log2));
        }
    }

    fn resize(&mut self, log2: u32) {
        debug_assert!(!self.is_rehashing());
        if self.len == 0 {
            let old = mem::replace(&mut self.arrays[0], Array::new(log2));
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
        if !self.is_rehashing() || self.paused > 0 {
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

    /// The share of a resize that every change of the table does.
    fn step(&mut self) {
        if self.is_rehashing() {
            self.rehash_step(1);
        }
    }

    /// Moves at most `ranges` ranges of the table. Returns whether there is more to move (and moving is allowed).
    pub fn rehash_step(&mut self, ranges: usize) -> bool {
        for _ in 0..ranges {
            if !self.may_rehash() {
                return false;
            }
            self.move_range();
        }
        self.may_rehash()
    }

    /// Moves about `buckets` buckets. Returns whether there is more to do; a finished resize that is followed by another
    /// counts as more.
    pub fn rehash_for(&mut self, buckets: usize) -> bool {
        if !self.is_rehashing() {
            self.shrink_if_sparse();
            if !self.is_rehashing() {
                return false;
            }
        }
        let span = 1 << (self.arrays[0].log2 - self.unit_log2());
        self.rehash_step(buckets.div_ceil(span).max(1))
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
        while !bucket.is_null() {
            // SAFETY: the chain's buckets are alive; each item is taken out once, each child freed once.
            unsafe {
                for place in (*bucket).occupied() {
                    prefetch((*bucket).slots[place].as_ptr().cast::<*const u8>().read());
                }
                for place in (*bucket).occupied() {
                    let (tag, tagged, item) = (*bucket).take(place);
                    let hash = self.seed.hash(item.key());
                    let to = self.arrays[1].index(hash);
                    self.link(1, to, tag, tagged, item);
                    tagged_items += usize::from(tagged);
                }
                let child = (*bucket).child();
                (*bucket).clear_child();
                if bucket != head {
                    free_buckets(bucket, 1);
                    self.children -= 1;
                }
                bucket = child;
            }
        }
        tagged_items
    }
}

/// Visiting.
impl<T: TableItem> Table<T> {
    /// Every item, in order of hash.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { table: self, position: Some(0), bucket: ptr::null(), places: Places(0), left: self.len }
    }

    /// The bucket around a position of hash space, and where its range ends (`None`: at the end).
    fn range_at(&self, position: u64) -> (*mut Bucket<T>, Option<u64>) {
        let (array, index, bucket) = self.head(position);
        let log2 = self.arrays[array].log2;
        let next = ((index as u128 + 1) << (64 - log2)) as u64;
        (bucket, (next != 0).then_some(next))
    }

    /// Emits the items around `cursor` (0 to begin) and returns the cursor to go on with, 0 at the end. Every item that
    /// is there from the first call to the last is emitted at least once, whatever happens in between.
    pub fn scan(&self, cursor: u64, mut f: impl FnMut(&T)) -> u64 {
        if self.len == 0 {
            return 0;
        }
        let (bucket, next) = self.range_at(cursor.reverse_bits());
        for_each(bucket, |item, _| f(item));
        next.map_or(0, u64::reverse_bits)
    }

    /// As [`Self::scan`] for tagged items alone. Goes on until it met some or passed a good many buckets without any.
    pub fn scan_tagged(&self, cursor: u64, mut f: impl FnMut(&T)) -> u64 {
        /// Buckets without tagged items that one call looks at.
        const MAX_BARREN: usize = 128;
        if self.tagged == 0 {
            return 0;
        }
        let mut position = cursor.reverse_bits();
        for _ in 0..MAX_BARREN {
            let Some(at) = self.next_tagged_segment(position) else {
                return 0;
            };
            let (bucket, next) = self.range_at(at);
            let mut met = false;
            for_each(bucket, |item, tagged| {
                if tagged {
                    met = true;
                    f(item);
                }
            });
            match next {
                None => return 0,
                Some(next) if met => return next.reverse_bits(),
                Some(next) => position = next,
            }
        }
        position.reverse_bits()
    }

    /// The first position from `position` on whose segment has tagged items.
    fn next_tagged_segment(&self, mut position: u64) -> Option<u64> {
        loop {
            let array = self.array_of(position);
            let of = &self.arrays[array];
            let segment = of.index(position) >> SEGMENT_LOG2;
            if of.segments[segment].tagged > 0 {
                return Some(position);
            }
            // The end of the segment, or of the array's share of the table if that comes first.
            let mut next = ((segment as u128 + 1) << SEGMENT_LOG2) << (64 - of.log2);
            if array == 1 {
                next = next.min((self.moved as u128) << (64 - self.unit_log2()));
            }
            position = u64::try_from(next).ok()?;
        }
    }

    /// An item, each as likely as any other; `None` when the table is empty.
    pub fn random(&self, rng: &mut fastrand::Rng) -> Option<&T> {
        self.pick(rng, self.len, |_| true)
    }

    /// A tagged item, each about as likely as any other; `None` when there is none.
    pub fn random_tagged(&self, rng: &mut fastrand::Rng) -> Option<&T> {
        self.pick(rng, self.tagged, |tagged| tagged)
    }

    /// Picks among `candidates` items that `wanted` accepts.
    fn pick(&self, rng: &mut fastrand::Rng, candidates: usize, wanted: impl Fn(bool) -> bool) -> Option<&T> {
        /// Draws before falling back on a walk, and buckets walked before falling back on a whole search.
        const MAX_DRAWS: usize = 256;
        if candidates == 0 {
            return None;
        }
        // A position falls on a bucket as often as its range is wide, and then on one of `lots` lots a fine bucket, of
        // which each item holds one: so every item is as likely as any other, as long as no chain has more items.
        let fine = self.arrays[0].log2.max(self.arrays[1].log2);
        let lots = if self.tagged_only(candidates) { SLOTS * 3 } else { SLOTS * 2 };
        for _ in 0..MAX_DRAWS {
            let position = rng.u64(..);
            let (array, _, bucket) = self.head(position);
            let width = 1 << (fine - self.arrays[array].log2);
            let mut lot = rng.usize(..lots * width);
            let mut found = None;
            for_each(bucket, |item, _| {
                if lot == 0 && found.is_none() {
                    found = Some(item);
                } else {
                    lot = lot.wrapping_sub(1);
                }
            });
            if let Some(item) = found
                && wanted(item.tagged())
            {
                return Some(item);
            }
        }
        // Few wanted items in a large table: from a random position on, the first that there is.
        let start = rng.u64(..);
        let mut found = None;
        for origin in [start, 0] {
            let mut position = origin;
            while found.is_none() {
                if self.tagged_only(candidates) {
                    match self.next_tagged_segment(position) {
                        Some(at) => position = at,
                        None => break,
                    }
                }
                let (bucket, next) = self.range_at(position);
                let mut seen = 0;
                for_each(bucket, |item, tagged| {
                    if wanted(tagged) {
                        seen += 1;
                        if rng.usize(..seen) == 0 {
                            found = Some(item);
                        }
                    }
                });
                match next {
                    Some(next) => position = next,
                    None => break,
                }
            }
        }
        found
    }

    fn tagged_only(&self, candidates: usize) -> bool {
        candidates == self.tagged && self.tagged < self.len
    }

    /// Shows up to `n` items from about a random position on to `f`: quick, not fair; for eviction. Returns how many.
    pub fn sample<'t>(&'t self, n: usize, rng: &mut fastrand::Rng, f: impl FnMut(&'t T)) -> usize {
        self.sample_where(n, rng, false, f)
    }

    /// As [`Self::sample`] for tagged items alone.
    pub fn sample_tagged<'t>(&'t self, n: usize, rng: &mut fastrand::Rng, f: impl FnMut(&'t T)) -> usize {
        self.sample_where(n, rng, true, f)
    }

    fn sample_where<'t>(
        &'t self,
        n: usize,
        rng: &mut fastrand::Rng,
        tagged_only: bool,
        mut f: impl FnMut(&'t T),
    ) -> usize {
        let n = n.min(if tagged_only { self.tagged } else { self.len });
        if n == 0 {
            return 0;
        }
        let mut count = 0;
        let mut position = rng.u64(..);
        // Once around the whole table at most.
        let mut wrapped = false;
        let start = position;
        while count < n && !(wrapped && position >= start) {
            let next = if tagged_only { self.next_tagged_segment(position) } else { Some(position) };
            let next = next.and_then(|at| {
                let (bucket, next) = self.range_at(at);
                for_each(bucket, |item, tagged| {
                    if count < n && (tagged || !tagged_only) {
                        count += 1;
                        f(item);
                    }
                });
                next
            });
            match next {
                Some(next) => position = next,
                None if wrapped => break,
                None => {
                    wrapped = true;
                    position = 0;
                }
            }
        }
        count
    }

    /// The bytes of memory of the table itself, without its items.
    pub fn mem_bytes(&self) -> usize {
        let arrays: usize = self
            .arrays
            .iter()
            .map(|array| {
                let present = array.segments.iter().filter(|segment| !segment.buckets.is_null()).count();
                present * array.segment_buckets() * mem::size_of::<Bucket<T>>()
                    + array.segments.capacity() * mem::size_of::<Segment<T>>()
            })
            .sum();
        arrays + self.children * mem::size_of::<Bucket<T>>()
    }

    /// Places for items in the table, in both arrays while it is being resized.
    pub fn capacity(&self) -> usize {
        (self.arrays[0].buckets() + self.arrays[1].buckets()) * SLOTS
    }

    /// A text about sizes and chain lengths, for DEBUG HTSTATS.
    pub fn stats(&self) -> String {
        let mut out = String::new();
        if self.is_empty() {
            out.push_str("No stats available for empty dictionaries\n");
            return out;
        }
        for (number, array) in self.arrays.iter().enumerate() {
            if array.is_none() {
                continue;
            }
            let mut items = 0;
            let mut used = 0;
            let mut lengths = [0usize; 64];
            for index in 0..array.buckets() {
                let mut here = 0;
                for_each(array.bucket(index), |_: &T, _| here += 1);
                items += here;
                used += usize::from(here > 0);
                lengths[here.min(63)] += 1;
            }
            let name = if number == 0 { "main hash table" } else { "rehashing target" };
            let _ = write!(
                out,
                "Hash table {number} stats ({name}):\n table size: {}\n number of elements: {items}\n buckets: {}\n \
                 used buckets: {used}\n avg items a bucket: {:.02}\n Items a bucket distribution:\n",
                array.buckets() * 8,
                array.buckets(),
                items as f64 / array.buckets() as f64,
            );
            for (length, count) in lengths.iter().enumerate().filter(|(_, count)| **count > 0) {
                let more = if length == 63 { ">= " } else { "" };
                let share = *count as f64 * 100.0 / array.buckets() as f64;
                let _ = writeln!(out, "   {more}{length}: {count} ({share:.02}%)");
            }
        }
        out
    }

    /// Asserts everything the table relies on; reads every item.
    pub fn check_invariants(&self) {
        let mut len = 0;
        let mut tagged_len = 0;
        let mut children = 0;
        assert!(
            self.arrays[0].is_none()
                || self.arrays[0].segments.len() == 1 << self.arrays[0].log2.saturating_sub(SEGMENT_LOG2)
        );
        assert!(self.is_rehashing() || self.moved == 0);
        for (number, array) in self.arrays.iter().enumerate() {
            let mut in_segments = vec![0; array.segments.len()];
            for index in 0..array.buckets() {
                let head = array.bucket(index);
                let mut bucket = head;
                while !bucket.is_null() {
                    // SAFETY: non-null buckets are alive, places with a tag hold items.
                    let here = unsafe { &*bucket };
                    if bucket != head {
                        children += 1;
                        assert!(here.count() >= 2 || here.chained(), "a child of one item");
                    }
                    if here.chained() {
                        assert_eq!(here.count(), SLOTS - 1, "a gap before the end of a chain");
                        assert_eq!(here.tags[SLOTS - 1], 0);
                        assert!(!here.is_tagged(SLOTS - 1));
                    }
                    assert_eq!(here.tagged_count(), (0..SLOTS).filter(|i| here.is_tagged(*i)).count());
                    for place in 0..SLOTS {
                        if here.tags[place] == 0 {
                            assert!(!here.is_tagged(place), "a tag bit without an item");
                            continue;
                        }
                        // SAFETY: as above.
                        let item = unsafe { here.item(place) };
                        let hash = self.hash(item.key());
                        assert_eq!(here.tags[place], tag_of(hash), "hash byte");
                        assert_eq!(array.index(hash), index, "bucket");
                        assert_eq!(self.array_of(hash), number, "array");
                        assert_eq!(here.is_tagged(place), item.tagged(), "tag bit");
                        len += 1;
                        tagged_len += usize::from(item.tagged());
                        in_segments[index >> SEGMENT_LOG2] += usize::from(item.tagged());
                    }
                    bucket = here.child();
                }
            }
            for (segment, tagged) in array.segments.iter().zip(in_segments) {
                assert_eq!(segment.tagged, tagged, "tagged items of a segment");
            }
        }
        assert_eq!(self.len, len);
        assert_eq!(self.tagged, tagged_len);
        assert_eq!(self.children, children);
    }
}

/// Calls `f` for each item of a chain, with its tag bit.
fn for_each<'t, T>(mut bucket: *mut Bucket<T>, mut f: impl FnMut(&'t T, bool))
where
    T: 't,
{
    while !bucket.is_null() {
        // SAFETY: callers pass a bucket of a table borrowed for 't; places with a tag hold items.
        unsafe {
            let here: &'t Bucket<T> = &*bucket;
            for place in here.occupied() {
                f(here.item(place), here.is_tagged(place));
            }
            bucket = here.child();
        }
    }
}

/// Begins to bring the cache line at `at` near.
fn prefetch<P>(at: *const P) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch of any address is harmless.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Frees an array, its children and its items through `f`.
fn free_array<T>(mut array: Array<T>, mut f: impl FnMut(T)) {
    let count = array.segment_buckets();
    for segment in &mut array.segments {
        let buckets = mem::replace(&mut segment.buckets, ptr::null_mut());
        if buckets.is_null() {
            continue;
        }
        for i in 0..count {
            // SAFETY: every item is read out once, every child and the segment freed once with its own layout.
            unsafe {
                let head = buckets.add(i);
                let mut bucket = head;
                while !bucket.is_null() {
                    for place in (*bucket).occupied() {
                        f((*bucket).take(place).2);
                    }
                    let child = (*bucket).child();
                    if bucket != head {
                        free_buckets(bucket, 1);
                    }
                    bucket = child;
                }
            }
        }
        // SAFETY: it came from `bucket_or_new` with the same count.
        unsafe { free_buckets(buckets, count) }
    }
}

impl<T: TableItem> Drop for Table<T> {
    fn drop(&mut self) {
        for array in &mut self.arrays {
            free_array(mem::replace(array, Array::none()), drop);
        }
    }
}

/// An item for change; see [`Table::get_mut`].
pub struct ItemMut<'t, T: TableItem> {
    table: &'t mut Table<T>,
    spot: Spot<T>,
}

impl<T: TableItem> Deref for ItemMut<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the spot names an item, and the table is borrowed for as long as it does.
        unsafe { (*self.spot.bucket).item(self.spot.place) }
    }
}

impl<T: TableItem> DerefMut for ItemMut<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and exclusively.
        unsafe { (*self.spot.bucket).slots[self.spot.place].assume_init_mut() }
    }
}

impl<T: TableItem> Drop for ItemMut<'_, T> {
    fn drop(&mut self) {
        self.table.refresh_tag(self.spot);
    }
}

impl<'t, T: TableItem> ItemMut<'t, T> {
    /// Takes the item out of the table.
    pub fn remove(self) -> T {
        // The item is gone afterwards: its tag must not be read again.
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped and not used again, so the reference is moved out once.
        let table = unsafe { ptr::read(&this.table) };
        table.refresh_tag(this.spot);
        let item = table.unlink(this.spot);
        table.shrink_if_sparse();
        item
    }

    /// Puts another item with the same key in its place and returns the old one.
    pub fn replace(&mut self, item: T) -> T {
        debug_assert!(item.key() == self.key());
        mem::replace(&mut **self, item)
    }
}

/// The place of a key in a table.
pub enum TableEntry<'t, T: TableItem> {
    Occupied(OccupiedEntry<'t, T>),
    Vacant(VacantEntry<'t, T>),
}

pub struct OccupiedEntry<'t, T: TableItem> {
    item: ItemMut<'t, T>,
}

impl<'t, T: TableItem> OccupiedEntry<'t, T> {
    pub fn get(&self) -> &T {
        &self.item
    }

    pub fn get_mut(&mut self) -> &mut T {
        &mut self.item
    }

    /// The item for as long as the table is borrowed.
    pub fn into_mut(self) -> ItemMut<'t, T> {
        self.item
    }

    /// Puts another item with the same key in and returns the old one.
    pub fn replace(&mut self, item: T) -> T {
        self.item.replace(item)
    }

    pub fn remove(self) -> T {
        self.item.remove()
    }
}

pub struct VacantEntry<'t, T: TableItem> {
    table: &'t mut Table<T>,
    hash: u64,
}

impl<'t, T: TableItem> VacantEntry<'t, T> {
    /// Adds the item, whose key must be the one that was looked for.
    pub fn insert(self, item: T) -> ItemMut<'t, T> {
        debug_assert_eq!(self.hash, self.table.hash(item.key()));
        let spot = self.table.place(self.hash, item);
        ItemMut { table: self.table, spot }
    }
}

/// Every item of a table.
pub struct Iter<'t, T: TableItem> {
    table: &'t Table<T>,
    /// Where the next bucket begins.
    position: Option<u64>,
    bucket: *const Bucket<T>,
    places: Places,
    left: usize,
}

impl<'t, T: TableItem> Iterator for Iter<'t, T> {
    type Item = &'t T;

    fn next(&mut self) -> Option<&'t T> {
        if self.left == 0 {
            return None;
        }
        loop {
            // SAFETY: the table is borrowed, so its buckets and items stay.
            unsafe {
                if let Some(place) = self.places.next() {
                    self.left -= 1;
                    let here: &'t Bucket<T> = &*self.bucket;
                    return Some(here.item(place));
                }
                if !self.bucket.is_null() {
                    self.bucket = (*self.bucket).child();
                }
                if self.bucket.is_null() {
                    let (bucket, next) = self.table.range_at(self.position?);
                    self.bucket = bucket;
                    self.position = next;
                }
                if !self.bucket.is_null() {
                    self.places = (*self.bucket).occupied();
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T: TableItem> ExactSizeIterator for Iter<'_, T> {}

impl<'t, T: TableItem> IntoIterator for &'t Table<T> {
    type Item = &'t T;
    type IntoIter = Iter<'t, T>;

    fn into_iter(self) -> Iter<'t, T> {
        self.iter()
    }
}
