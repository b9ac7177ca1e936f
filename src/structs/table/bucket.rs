//! Buckets of one cache line, and arrays of them that come and go by segments.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::mem::{self, MaybeUninit};
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
pub(super) const TAGGED_MASK: u8 = 0x7f;

#[repr(C, align(64))]
pub(super) struct Bucket<T> {
    /// The low byte of each item's hash, 1 in place of 0; 0 where there is no item.
    pub(super) tags: [u8; SLOTS],
    /// Bit `i`: item `i` is tagged. Bit 7: the last place holds a pointer to another bucket.
    pub(super) meta: u8,
    pub(super) slots: [MaybeUninit<T>; SLOTS],
}

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
    pub(super) fn word(&self) -> u64 {
        // SAFETY: the tags and the flags are the first eight bytes of the (aligned) bucket; any bytes are a word.
        u64::from_le(unsafe { ptr::from_ref(self).cast::<u64>().read() })
    }

    /// The places whose tag is `tag` (and now and then one more: the caller compares keys).
    pub(super) fn matches(&self, tag: u8) -> Places {
        let x = (self.word() & TAG_BYTES) ^ (LOW_BITS * u64::from(tag));
        Places(x.wrapping_sub(LOW_BITS) & !x & HIGH_BITS)
    }

    /// A bit for each place that holds an item; exact.
    pub(super) fn occupied_mask(&self) -> u64 {
        let word = self.word() & TAG_BYTES;
        (((word & !HIGH_BITS) + (HIGH_BITS - LOW_BITS)) | word) & HIGH_BITS
    }

    pub(super) fn occupied(&self) -> Places {
        Places(self.occupied_mask())
    }

    /// The items in this bucket, not in those behind it.
    pub(super) fn count(&self) -> usize {
        self.occupied_mask().count_ones() as usize
    }

    pub(super) fn tagged_count(&self) -> usize {
        (self.meta & TAGGED_MASK).count_ones() as usize
    }

    pub(super) fn chained(&self) -> bool {
        self.meta & CHAINED != 0
    }

    /// Places that an item can take.
    pub(super) fn capacity(&self) -> usize {
        if self.chained() { SLOTS - 1 } else { SLOTS }
    }

    pub(super) fn free_place(&self) -> Option<usize> {
        let free = !self.occupied_mask() & HIGH_BITS;
        let place = free.trailing_zeros() as usize / 8;
        (free != 0 && place < self.capacity()).then_some(place)
    }

    pub(super) fn child(&self) -> *mut Bucket<T> {
        if self.chained() {
            // SAFETY: a chained bucket's last place holds the child's address, written by `set_child`.
            unsafe { self.slots[SLOTS - 1].as_ptr().cast::<*mut Bucket<T>>().read() }
        } else {
            ptr::null_mut()
        }
    }

    pub(super) fn set_child(&mut self, child: *mut Bucket<T>) {
        debug_assert_eq!(self.tags[SLOTS - 1], 0);
        self.meta = self.meta & !(1 << (SLOTS - 1)) | CHAINED;
        // SAFETY: a place has the size and alignment of a pointer (asserted in `Table::new`).
        unsafe { self.slots[SLOTS - 1].as_mut_ptr().cast::<*mut Bucket<T>>().write(child) }
    }

    pub(super) fn clear_child(&mut self) {
        self.meta &= !CHAINED;
    }

    /// # Safety
    /// Place `i` must hold an item.
    pub(super) unsafe fn item(&self, i: usize) -> &T {
        // SAFETY: the caller's promise.
        unsafe { self.slots[i].assume_init_ref() }
    }

    pub(super) fn set_tagged(&mut self, i: usize, tagged: bool) {
        self.meta = self.meta & !(1 << i) | u8::from(tagged) << i;
    }

    pub(super) fn is_tagged(&self, i: usize) -> bool {
        self.meta & 1 << i != 0
    }

    pub(super) fn put(&mut self, i: usize, tag: u8, tagged: bool, item: T) {
        debug_assert!(self.tags[i] == 0 && i < self.capacity());
        self.slots[i].write(item);
        self.tags[i] = tag;
        self.set_tagged(i, tagged);
    }

    /// Takes the item at place `i` out: its tag, whether it was tagged, itself.
    ///
    /// # Safety
    /// Place `i` must hold an item.
    pub(super) unsafe fn take(&mut self, i: usize) -> (u8, bool, T) {
        let tag = mem::take(&mut self.tags[i]);
        let tagged = self.is_tagged(i);
        self.set_tagged(i, false);
        // SAFETY: the caller's promise; the tag is cleared, so nobody reads the place again.
        (tag, tagged, unsafe { self.slots[i].assume_init_read() })
    }
}

pub(super) fn buckets_layout<T>(count: usize) -> Layout {
    Layout::array::<Bucket<T>>(count).expect("a segment fits the address space")
}

/// Empty buckets: all zeros.
pub(super) fn allocate_buckets<T>(count: usize) -> *mut Bucket<T> {
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
pub(super) unsafe fn free_buckets<T>(at: *mut Bucket<T>, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { dealloc(at.cast(), buckets_layout::<T>(count)) }
}

pub(super) struct Segment<T> {
    /// Null: all its buckets are empty and it has no memory.
    pub(super) buckets: *mut Bucket<T>,
    /// Tagged items in it.
    pub(super) tagged: usize,
}

/// `2^log2` buckets in segments.
pub(super) struct Array<T> {
    pub(super) log2: u32,
    pub(super) segments: Vec<Segment<T>>,
}

impl<T> Array<T> {
    pub(super) const fn none() -> Array<T> {
        Array { log2: 0, segments: Vec::new() }
    }

    pub(super) fn new(log2: u32) -> Array<T> {
        let count = 1usize << log2.saturating_sub(SEGMENT_LOG2);
        let mut segments = Vec::with_capacity(count);
        segments.resize_with(count, || Segment { buckets: ptr::null_mut(), tagged: 0 });
        Array { log2, segments }
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

    /// Bucket `i`, or null where its segment has no memory.
    pub(super) fn bucket(&self, i: usize) -> *mut Bucket<T> {
        let segment = self.segments[i >> SEGMENT_LOG2].buckets;
        if segment.is_null() {
            segment
        } else {
            // SAFETY: a segment holds as many buckets as the mask leaves possible, or all there are.
            unsafe { segment.add(i & (SEGMENT_BUCKETS - 1)) }
        }
    }

    /// Bucket `i`, making its segment's memory if there is none.
    pub(super) fn bucket_or_new(&mut self, i: usize) -> *mut Bucket<T> {
        let count = self.segment_buckets();
        let segment = &mut self.segments[i >> SEGMENT_LOG2];
        if segment.buckets.is_null() {
            segment.buckets = allocate_buckets(count);
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
            unsafe { free_buckets(buckets, count) }
        }
    }
}

/// The top `log2` bits of a hash.
pub(super) fn index_of(hash: u64, log2: u32) -> usize {
    // In two steps because a shift by 64 is not defined.
    ((hash >> 1) >> (63 - log2)) as usize
}

/// Calls `f` for each item of a chain, with its tag bit.
pub(super) fn for_each<'t, T>(mut bucket: *mut Bucket<T>, mut f: impl FnMut(&'t T, bool))
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
pub fn prefetch<P>(at: *const P) {
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
