//! Buckets of one cache line, what hangs behind them, and arrays of them that come and go by segments.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem;
use std::ptr;

/// Places in a bucket.
pub(super) const SLOTS: usize = 7;

/// Buckets in a full segment (128 KiB): what one step allocates, clears or frees at most.
pub(super) const SEGMENT_LOG2: u32 = 11;
pub(super) const SEGMENT_BUCKETS: usize = 1 << SEGMENT_LOG2;

pub(super) const TAG_BYTES: u64 = 0x00ff_ffff_ffff_ffff;
pub(super) const LOW_BITS: u64 = 0x0001_0101_0101_0101;
pub(super) const HIGH_BITS: u64 = 0x0080_8080_8080_8080;
pub(super) const CHAINED: u8 = 0x80;
#[cfg(test)]
pub(super) const TAGGED_MASK: u8 = 0x7f;

/// Possible numbers of places of a bucket that hangs behind a full one.
pub(super) const CHILD_ROOMS: [usize; 3] = [3, 5, SLOTS];

/// A cache line: the memory of a bucket of an array.
#[repr(C, align(64))]
pub(super) struct Line([u64; 8]);

/// The start of a bucket, aligned to 8 bytes. Its places follow, 8 bytes each.
#[repr(C, align(8))]
struct Head {
    /// The low byte of each item's hash, 1 in place of 0; 0 where there is no item.
    tags: [u8; SLOTS],
    /// Bit `i`: item `i` is tagged. Bit 7: the last place holds another bucket.
    meta: u8,
}

/// Where a bucket is, if there is one, and how many places it has: those of an array have `SLOTS`, those that hang behind
/// others may have fewer. The low bits of the address say how many fewer.
///
/// It is a mere address, and any may be made. A bucket is *alive* if it is not none and its memory belongs to the
/// table: those that an [`Array`] returns and those behind them are, until a change of the table frees them. Functions
/// that read a bucket rely on that, and are unsafe.
pub(super) struct Bucket<T> {
    at: *mut Head,
    _of: PhantomData<*mut T>,
}

impl<T> Clone for Bucket<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Bucket<T> {}

/// The bits of an address that say how many places a bucket lacks.
const LACKS: usize = 7;

/// The tag of a hash: never 0.
pub(super) fn tag_of(hash: u64) -> u8 {
    let tag = hash as u8;
    if tag == 0 { 1 } else { tag }
}

/// The places named by the high bits of a mask.
pub(super) struct Places(pub(super) u64);

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
    pub(super) const NONE: Bucket<T> = Bucket { at: ptr::null_mut(), _of: PhantomData };

    pub(super) fn is_none(self) -> bool {
        self.at.is_null()
    }

    /// An empty bucket in memory of its own, with `room` places.
    pub(super) fn new_child(room: usize) -> Bucket<T> {
        let layout = child_layout(room);
        // SAFETY: the layout is not empty. All zeros is a valid bucket: no tags, no child, uninitialised items.
        let at = unsafe { alloc_zeroed(layout) }.cast::<Head>();
        if at.is_null() {
            handle_alloc_error(layout);
        }
        Bucket { at: at.map_addr(|a| a | (SLOTS - room)), _of: PhantomData }
    }

    /// Moves the contents of a small child to a new, larger one.
    ///
    /// # Safety
    /// It must be a child with fewer places than `SLOTS`, and not be used afterwards.
    pub(super) unsafe fn grown(self) -> Bucket<T> {
        let room = self.room();
        let larger = Bucket::new_child(CHILD_ROOMS.into_iter().find(|r| *r > room).expect("it is not the largest"));
        // SAFETY: both are alive and apart; the larger one has room for all there is, which then is nowhere else.
        unsafe {
            ptr::copy_nonoverlapping(self.head().cast::<u64>(), larger.head().cast::<u64>(), 1 + room);
            self.free_child();
        }
        larger
    }

    /// # Safety
    /// It must be a child whose items were taken out, and not be used afterwards.
    pub(super) unsafe fn free_child(self) {
        // SAFETY: `new_child` allocated it with the same layout.
        unsafe { dealloc(self.head().cast(), child_layout(self.room())) }
    }

    fn head(self) -> *mut Head {
        self.at.map_addr(|a| a & !LACKS)
    }

    /// Number of places it has.
    pub(super) fn room(self) -> usize {
        SLOTS - (self.at.addr() & LACKS)
    }

    /// Where a place is, whether or not it holds an item.
    ///
    /// # Safety
    /// The bucket must be alive and have a place `i`.
    unsafe fn place(self, i: usize) -> *mut T {
        debug_assert!(i < self.room());
        // SAFETY: the bucket is alive, and its places follow the head.
        unsafe { self.head().add(1).cast::<T>().add(i) }
    }

    /// The tags and the flags.
    ///
    /// # Safety
    /// The bucket must be alive.
    unsafe fn word(self) -> u64 {
        // SAFETY: the bucket is alive, and begins with eight aligned bytes; any bytes are a word.
        u64::from_le(unsafe { self.head().cast::<u64>().read() })
    }

    /// The places whose tag is `tag` (and now and then one more, which need not even exist: the caller compares tags, then
    /// keys).
    ///
    /// # Safety
    /// The bucket must be alive.
    #[inline(always)]
    pub(super) unsafe fn matches(self, tag: u8) -> Places {
        // SAFETY: the bucket is alive.
        let x = (unsafe { self.word() } & TAG_BYTES) ^ (LOW_BITS * u64::from(tag));
        Places(x.wrapping_sub(LOW_BITS) & !x & HIGH_BITS)
    }

    /// The tag of a place, 0 if it holds no item.
    ///
    /// # Safety
    /// The bucket must be alive.
    pub(super) unsafe fn tag(self, i: usize) -> u8 {
        // SAFETY: the bucket is alive.
        unsafe { (*self.head()).tags[i] }
    }

    /// # Safety
    /// The bucket must be alive.
    unsafe fn meta(self) -> u8 {
        // SAFETY: the bucket is alive.
        unsafe { (*self.head()).meta }
    }

    /// # Safety
    /// The bucket must be alive, and the table be held exclusively.
    unsafe fn set_meta(self, meta: u8) {
        // SAFETY: the bucket is alive and ours.
        unsafe { (*self.head()).meta = meta }
    }

    /// A bit for each place that holds an item; exact.
    ///
    /// # Safety
    /// The bucket must be alive.
    unsafe fn occupied_mask(self) -> u64 {
        // SAFETY: the bucket is alive.
        let word = unsafe { self.word() } & TAG_BYTES;
        (((word & !HIGH_BITS) + (HIGH_BITS - LOW_BITS)) | word) & HIGH_BITS
    }

    /// The places that hold items, as they are now.
    ///
    /// # Safety
    /// The bucket must be alive.
    pub(super) unsafe fn occupied(self) -> Places {
        // SAFETY: the bucket is alive.
        Places(unsafe { self.occupied_mask() })
    }

    /// The items in this bucket, not in those behind it.
    ///
    /// # Safety
    /// The bucket must be alive.
    pub(super) unsafe fn count(self) -> usize {
        // SAFETY: the bucket is alive.
        unsafe { self.occupied_mask() }.count_ones() as usize
    }

    /// # Safety
    /// The bucket must be alive.
    #[cfg(test)]
    pub(super) unsafe fn tagged_count(self) -> usize {
        // SAFETY: the bucket is alive.
        (unsafe { self.meta() } & TAGGED_MASK).count_ones() as usize
    }

    /// Whether a bucket hangs behind this one.
    ///
    /// # Safety
    /// The bucket must be alive.
    pub(super) unsafe fn chained(self) -> bool {
        // SAFETY: the bucket is alive.
        unsafe { self.meta() & CHAINED != 0 }
    }

    /// Places that an item can take.
    ///
    /// # Safety
    /// The bucket must be alive.
    unsafe fn capacity(self) -> usize {
        // SAFETY: the bucket is alive.
        if unsafe { self.chained() } { SLOTS - 1 } else { self.room() }
    }

    /// The first place that an item can take and none has.
    ///
    /// # Safety
    /// The bucket must be alive.
    pub(super) unsafe fn free_place(self) -> Option<usize> {
        // SAFETY: the bucket is alive.
        let (free, capacity) = unsafe { (!self.occupied_mask() & HIGH_BITS, self.capacity()) };
        let place = free.trailing_zeros() as usize / 8;
        (free != 0 && place < capacity).then_some(place)
    }

    /// The bucket that hangs behind this one, which then is alive, or none.
    ///
    /// # Safety
    /// The bucket must be alive.
    pub(super) unsafe fn child(self) -> Bucket<T> {
        // SAFETY: the bucket is alive. If it is chained its last place holds the child, written by `set_child`.
        unsafe { if self.chained() { self.place(SLOTS - 1).cast::<Bucket<T>>().read() } else { Bucket::NONE } }
    }

    /// Hangs a bucket behind this one.
    ///
    /// # Safety
    /// Both buckets must be alive, and the table be held exclusively. This one must have `SLOTS` places, of which the last is
    /// free or holds the child it had.
    pub(super) unsafe fn set_child(self, child: Bucket<T>) {
        // SAFETY: the bucket is alive and ours; a place has the size and alignment of a pointer (asserted in `Table::new`).
        unsafe {
            debug_assert_eq!((self.tag(SLOTS - 1), self.room()), (0, SLOTS));
            self.set_meta(self.meta() & !(1 << (SLOTS - 1)) | CHAINED);
            self.place(SLOTS - 1).cast::<Bucket<T>>().write(child);
        }
    }

    /// Forgets the bucket behind this one.
    ///
    /// # Safety
    /// The bucket must be alive, and the table be held exclusively.
    pub(super) unsafe fn clear_child(self) {
        // SAFETY: the bucket is alive and ours.
        unsafe { self.set_meta(self.meta() & !CHAINED) }
    }

    /// # Safety
    /// The bucket must be alive and its place `i` hold an item, and nobody change or free it during `'t`.
    pub(super) unsafe fn item<'t>(self, i: usize) -> &'t T {
        // SAFETY: the caller's promise.
        unsafe { &*self.place(i) }
    }

    /// # Safety
    /// The bucket must be alive and its place `i` hold an item, and nobody else look at it or free it during `'t`.
    pub(super) unsafe fn item_mut<'t>(self, i: usize) -> &'t mut T {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.place(i) }
    }

    /// What stands in a place of an array's bucket, as an address: a useless one where there is no item.
    ///
    /// # Safety
    /// The bucket must be alive and have a place `i`.
    pub(super) unsafe fn address(self, i: usize) -> *const u8 {
        // SAFETY: the bucket is alive; a place has the size of a pointer, and its bytes were zeroed or written.
        unsafe { self.place(i).cast::<*const u8>().read() }
    }

    /// Prefetches the bucket, if there is one.
    pub(super) fn prefetch(self) {
        prefetch(self.at);
    }

    /// A place of an array's bucket, as an address: that of the bucket, a cache line, and the number of the place in its
    /// lowest bits.
    pub(super) fn place_address(self, i: usize) -> *const u8 {
        debug_assert!(i < SLOTS && self.room() == SLOTS);
        self.at.cast::<u8>().map_addr(|a| a | i)
    }

    pub(super) fn at_place(address: *const u8) -> (Bucket<T>, usize) {
        let at = address.cast_mut().map_addr(|a| a & !LACKS).cast();
        (Bucket { at, _of: PhantomData }, address.addr() & LACKS)
    }

    /// Prefetches what a look-up in this bucket of an array touches next: the items with this tag or, if there are
    /// none, the bucket behind it. Returns the place of the first of them, or the last place, and whether it is the
    /// latter. Which it is cannot be predicted, so the usual path does not branch.
    ///
    /// # Safety
    /// The bucket must be alive and have `SLOTS` places.
    #[inline]
    pub(super) unsafe fn prefetch_next(self, tag: u8) -> (usize, bool) {
        /// The bit of `matches` for the last place, which may hold the bucket behind.
        const LAST: u64 = 1 << (8 * SLOTS - 1);
        debug_assert_eq!(self.room(), SLOTS);
        // SAFETY: the bucket is alive and has all the places there can be.
        unsafe {
            let mut places = self.matches(tag).0;
            let first = (places | LAST).trailing_zeros() as usize / 8;
            prefetch_entry(self.address(first).map_addr(|a| a & !LACKS));
            let is_behind = places == 0 && self.chained();
            // Two items with one tag are rare.
            places &= places.wrapping_sub(1);
            if places != 0 {
                Places(places).for_each(|place| prefetch_entry(self.address(place)));
            }
            (first, is_behind)
        }
    }

    /// Prefetches the items with this tag.
    ///
    /// # Safety
    /// The bucket must be alive.
    #[inline]
    pub(super) unsafe fn prefetch_items(self, tag: u8) {
        // SAFETY: the bucket is alive, and places with a tag are there.
        unsafe {
            self.matches(tag)
                .filter(|place| self.tag(*place) == tag)
                .for_each(|place| prefetch_entry(self.address(place)));
        }
    }

    /// # Safety
    /// The bucket must be alive, and the table be held exclusively.
    pub(super) unsafe fn set_tagged(self, i: usize, tagged: bool) {
        // SAFETY: the bucket is alive and ours.
        unsafe { self.set_meta(self.meta() & !(1 << i) | u8::from(tagged) << i) }
    }

    /// # Safety
    /// The bucket must be alive.
    pub(super) unsafe fn is_tagged(self, i: usize) -> bool {
        // SAFETY: the bucket is alive.
        unsafe { self.meta() & 1 << i != 0 }
    }

    /// # Safety
    /// The bucket must be alive, and the table be held exclusively.
    unsafe fn set_tag(self, i: usize, tag: u8) {
        // SAFETY: the bucket is alive and ours.
        unsafe { (*self.head()).tags[i] = tag }
    }

    /// Puts an item into place `i`.
    ///
    /// # Safety
    /// The bucket must be alive, the table be held exclusively, and place `i` be one that an item can take and none has.
    pub(super) unsafe fn put(self, i: usize, tag: u8, tagged: bool, item: T) {
        // SAFETY: the bucket is alive and ours; the place is there and holds no item.
        unsafe {
            debug_assert!(self.tag(i) == 0 && i < self.capacity());
            self.place(i).write(item);
            self.set_tag(i, tag);
            self.set_tagged(i, tagged);
        }
    }

    /// Takes the item at place `i` out. Returns its tag, whether it was tagged, and the item.
    ///
    /// # Safety
    /// The bucket must be alive, the table be held exclusively, and place `i` hold an item.
    pub(super) unsafe fn take(self, i: usize) -> (u8, bool, T) {
        // SAFETY: the bucket is alive and ours; the tag is cleared, so nobody reads the item from the place again.
        unsafe {
            let (tag, tagged) = (self.tag(i), self.is_tagged(i));
            self.set_tag(i, 0);
            self.set_tagged(i, false);
            (tag, tagged, self.place(i).read())
        }
    }
}

impl<T> PartialEq for Bucket<T> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

fn child_layout(room: usize) -> Layout {
    Layout::array::<u64>(1 + room).expect("a bucket fits the address space")
}

fn lines_layout(count: usize) -> Layout {
    Layout::array::<Line>(count).expect("a segment fits the address space")
}

/// Empty buckets: all zeros.
fn allocate_lines(count: usize) -> *mut Line {
    let layout = lines_layout(count);
    // SAFETY: the layout is not empty. All zeros is a valid bucket: no tags, no child, uninitialised items.
    let at = unsafe { alloc_zeroed(layout) }.cast::<Line>();
    if at.is_null() {
        handle_alloc_error(layout);
    }
    at
}

/// # Safety
/// `at` must come from `allocate_lines` with the same count, and not be used afterwards.
unsafe fn free_lines(at: *mut Line, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { dealloc(at.cast(), lines_layout(count)) }
}

pub(super) struct Segment {
    /// Null: all its buckets are empty and it has no memory.
    pub(super) buckets: *mut Line,
    /// Number of tagged items in it.
    pub(super) tagged: usize,
}

/// `2^log2` buckets in segments.
pub(super) struct Array<T> {
    pub(super) log2: u32,
    pub(super) segments: Vec<Segment>,
    _of: PhantomData<*mut T>,
}

impl<T> Array<T> {
    pub(super) const fn none() -> Array<T> {
        Array { log2: 0, segments: Vec::new(), _of: PhantomData }
    }

    pub(super) fn new(log2: u32) -> Array<T> {
        let count = 1usize << log2.saturating_sub(SEGMENT_LOG2);
        let mut segments = Vec::with_capacity(count);
        segments.resize_with(count, || Segment { buckets: ptr::null_mut(), tagged: 0 });
        Array { log2, segments, _of: PhantomData }
    }

    pub(super) fn is_none(&self) -> bool {
        self.segments.is_empty()
    }

    pub(super) fn buckets(&self) -> usize {
        if self.is_none() { 0 } else { 1 << self.log2 }
    }

    pub(super) fn segment_buckets(&self) -> usize {
        1 << self.log2.min(SEGMENT_LOG2)
    }

    pub(super) fn index(&self, hash: u64) -> usize {
        index_of(hash, self.log2)
    }

    /// Bucket `i`, or none where its segment has no memory.
    pub(super) fn bucket(&self, i: usize) -> Bucket<T> {
        let segment = self.segments[i >> SEGMENT_LOG2].buckets;
        if segment.is_null() {
            Bucket::NONE
        } else {
            // SAFETY: a segment holds as many buckets as the mask leaves possible, or all there are.
            Bucket { at: unsafe { segment.add(i & (SEGMENT_BUCKETS - 1)) }.cast(), _of: PhantomData }
        }
    }

    /// Bucket `i`, making its segment's memory if there is none.
    pub(super) fn bucket_or_new(&mut self, i: usize) -> Bucket<T> {
        let count = self.segment_buckets();
        let segment = &mut self.segments[i >> SEGMENT_LOG2];
        if segment.buckets.is_null() {
            segment.buckets = allocate_lines(count);
        }
        self.bucket(i)
    }

    pub(super) fn tagged_mut(&mut self, i: usize) -> &mut usize {
        &mut self.segments[i >> SEGMENT_LOG2].tagged
    }

    /// Frees the memory of segment `s`, whose buckets must be empty.
    pub(super) fn free_segment(&mut self, s: usize) {
        let count = self.segment_buckets();
        let segment = &mut self.segments[s];
        debug_assert_eq!(segment.tagged, 0);
        let buckets = mem::replace(&mut segment.buckets, ptr::null_mut());
        if !buckets.is_null() {
            // SAFETY: it came from `bucket_or_new` with the same count.
            unsafe { free_lines(buckets, count) }
        }
    }
}

/// The top `log2` bits of a hash.
pub(super) fn index_of(hash: u64, log2: u32) -> usize {
    // In two steps because a shift by 64 is not defined.
    ((hash >> 1) >> (63 - log2)) as usize
}

/// Calls `f` for each item of a chain, with its tag bit.
///
/// # Safety
/// The bucket must be none, or alive and the first of a chain of a table that is borrowed for `'t`.
pub(super) unsafe fn for_each<'t, T>(mut bucket: Bucket<T>, mut f: impl FnMut(&'t T, bool))
where
    T: 't,
{
    while !bucket.is_none() {
        // SAFETY: what hangs behind a bucket that is alive is so too, and nobody changes a table that is borrowed; places
        // with a tag hold items.
        unsafe {
            for place in bucket.occupied() {
                f(bucket.item(place), bucket.is_tagged(place));
            }
            bucket = bucket.child();
        }
    }
}

/// The item of a chain with `index` others before it, if there are so many.
///
/// # Safety
/// As for [`for_each`].
pub(super) unsafe fn nth<'t, T>(mut bucket: Bucket<T>, mut index: usize) -> Option<&'t T>
where
    T: 't,
{
    while !bucket.is_none() {
        // SAFETY: as in `for_each`.
        unsafe {
            let count = bucket.count();
            if index < count {
                return bucket.occupied().nth(index).map(|place| bucket.item(place));
            }
            index -= count;
            bucket = bucket.child();
        }
    }
    None
}

/// Prefetches the block of an item. Unless aligned to a cache line, it usually reaches into a second one.
#[inline(always)]
fn prefetch_entry(at: *const u8) {
    prefetch(at);
    prefetch(at.wrapping_add(63));
}

/// Prefetches the cache line at `at`.
pub(crate) fn prefetch<P>(at: *const P) {
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
pub(super) fn free_array<T>(mut array: Array<T>, mut f: impl FnMut(T)) {
    /// The items of a bucket are prefetched this many buckets before they are freed.
    const AHEAD: usize = 2;
    let count = array.segment_buckets();
    for segment in &mut array.segments {
        let buckets = mem::replace(&mut segment.buckets, ptr::null_mut());
        if buckets.is_null() {
            continue;
        }
        for i in 0..count {
            // SAFETY: the segment has so many buckets, none of which is freed yet; every item is read out once, every
            // child freed once. What is only prefetched is read as addresses.
            unsafe {
                if i + AHEAD < count {
                    let next = Bucket::<T> { at: buckets.add(i + AHEAD).cast(), _of: PhantomData };
                    next.occupied().for_each(|place| prefetch(next.address(place)));
                }
                let first = Bucket { at: buckets.add(i).cast(), _of: PhantomData };
                let mut bucket = first;
                while !bucket.is_none() {
                    for place in bucket.occupied() {
                        f(bucket.take(place).2);
                    }
                    let child = bucket.child();
                    if bucket != first {
                        bucket.free_child();
                    }
                    bucket = child;
                }
            }
        }
        // SAFETY: it came from `bucket_or_new` with the same count.
        unsafe { free_lines(buckets, count) }
    }
}
