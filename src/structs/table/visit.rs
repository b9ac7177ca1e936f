//! Ways to go over a table: iteration, cursors, random picks, statistics and the check of its invariants.

#![allow(unsafe_code)]

use std::fmt::Write as _;
use std::mem;

use super::bucket::{Bucket, Line, Places, SEGMENT_LOG2, SLOTS, Segment, for_each, nth, prefetch};
use super::{Table, TableItem};

impl<T: TableItem> Table<T> {
    /// Every item, in order of hash.
    pub(crate) fn iter(&self) -> Iter<'_, T> {
        /// Fewer items are in a near cache as a rule.
        const MANY: usize = 1000;
        let mut all = Iter {
            table: self,
            bucket: Bucket::NONE,
            coming: None,
            position: Some(0),
            fetches: self.len > MANY,
            places: Places(0),
            left: self.len,
        };
        if self.len > 0 {
            all.come();
        }
        all
    }

    /// The bucket around a position of hash space, and where its range ends (`None`: at the end).
    fn range_at(&self, position: u64) -> (Bucket<T>, Option<u64>) {
        let (array, index, bucket) = self.head(position);
        let log2 = self.arrays[array].log2;
        let next = ((index as u128 + 1) << (64 - log2)) as u64;
        (bucket, (next != 0).then_some(next))
    }

    /// Calls `f` for each item in the chain of a hash, with whether it is tagged.
    fn for_each_at<'t>(&'t self, position: u64, f: impl FnMut(&'t T, bool)) {
        // SAFETY: the first bucket for a hash is none or alive, and the table is borrowed.
        unsafe { for_each(self.head(position).2, f) }
    }

    /// Calls `f` with the items around `cursor` (0 to begin) and returns the next cursor, 0 at the end. Every item
    /// present from the first call to the last is seen at least once, whatever changes in between.
    pub(crate) fn scan(&self, cursor: u64, mut f: impl FnMut(&T)) -> u64 {
        if self.len == 0 {
            return 0;
        }
        let position = cursor.reverse_bits();
        self.for_each_at(position, |item, _| f(item));
        self.range_at(position).1.map_or(0, u64::reverse_bits)
    }

    /// As [`Self::scan`], but returns only about `most` items (at least 1) of a range with more, in order of hash: the
    /// cursor then says where in the range to go on. Its highest 14 bits are 0 if those of the earlier cursors were.
    pub(crate) fn scan_page(&self, cursor: u64, most: usize, mut f: impl FnMut(&T)) -> u64 {
        /// Lowest bits of a position that stay 0, so that callers can use these bits of a cursor.
        const FREE_BITS: u32 = 14;
        if self.len == 0 {
            return 0;
        }
        // A few more items are cheaper than splitting a range.
        let most = most.saturating_add(2 + most / 16);
        let position = cursor.reverse_bits();
        let (array, index, _) = self.head(position);
        let next = self.range_at(position).1.map_or(0, u64::reverse_bits);
        let begins = (index as u128) << (64 - self.arrays[array].log2) == u128::from(position);
        let mut count = 0;
        self.for_each_at(position, |_, _| count += 1);
        if begins && count <= most {
            self.for_each_at(position, |item, _| f(item));
            return next;
        }
        let mut items = Vec::with_capacity(count);
        self.for_each_at(position, |item, _| items.push((self.hash(item.key()), item)));
        items.retain(|(hash, _)| *hash >= position);
        items.sort_unstable_by_key(|(hash, _)| *hash);
        // Between two hashes, the position with the fewest bits, for short cursors.
        let part = |at: usize| {
            let (before, after) = (items[at - 1].0, items[at].0);
            let differ = (before ^ after).checked_ilog2()?;
            (differ >= FREE_BITS).then_some(after >> differ << differ)
        };
        let first = most.min(items.len());
        let cut = (first..items.len()).find_map(|at| Some((at, part(at)?)));
        let (shown, next) = cut.map_or((items.len(), next), |(at, position)| (at, position.reverse_bits()));
        items[..shown].iter().for_each(|(_, item)| f(item));
        next
    }

    /// As [`Self::scan`] for tagged items only. Goes on until it has seen some or passed many buckets without any.
    pub(crate) fn scan_tagged(&self, cursor: u64, mut f: impl FnMut(&T)) -> u64 {
        /// Buckets without tagged items that one call passes at most.
        const MAX_BARREN: usize = 128;
        if self.tagged == 0 {
            return 0;
        }
        let mut position = cursor.reverse_bits();
        for _ in 0..MAX_BARREN {
            let Some(at) = self.next_tagged_segment(position) else {
                return 0;
            };
            let mut met = false;
            self.for_each_at(at, |item, tagged| {
                if tagged {
                    met = true;
                    f(item);
                }
            });
            match self.range_at(at).1 {
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
    pub(crate) fn random(&self, rng: &mut fastrand::Rng) -> Option<&T> {
        if self.is_lopsided() && self.is_countable() && self.len > 0 {
            return self.iter().nth(rng.usize(..self.len));
        }
        self.pick(rng, self.len, |_| true)
    }

    /// A tagged item, each about as likely as any other; `None` when there is none.
    pub(crate) fn random_tagged(&self, rng: &mut fastrand::Rng) -> Option<&T> {
        self.pick(rng, self.tagged, |tagged| tagged)
    }

    /// Whether the table is small enough to count through.
    fn is_countable(&self) -> bool {
        const MAX_BUCKETS: usize = 1 << 14;
        self.arrays[0].buckets() + self.arrays[1].buckets() <= MAX_BUCKETS
    }

    /// Whether most items are in long chains although the table has room, as when a scan deleted all but its last
    /// ranges.
    fn is_lopsided(&self) -> bool {
        let room = (self.arrays[0].buckets() + self.arrays[1].buckets()) * SLOTS;
        self.child_room > self.len / 4 * 3 && self.len < room
    }

    /// Picks among `candidates` items that `wanted` accepts.
    fn pick(&self, rng: &mut fastrand::Rng, candidates: usize, wanted: impl Fn(bool) -> bool) -> Option<&T> {
        /// Random draws before falling back to a walk.
        const MAX_DRAWS: usize = 256;
        if candidates == 0 {
            return None;
        }
        // A table that may not grow gets fuller than usual.
        let lots = SLOTS.max(self.len / self.arrays[0].buckets()) * 3;
        // A position falls on a bucket in proportion to its range, and then on one of `lots` lots for each fine bucket,
        // of which each item holds one. So every item is as likely as any other, as long as no chain has more items
        // than lots.
        let fine = self.arrays[0].log2.max(self.arrays[1].log2);
        for _ in 0..MAX_DRAWS {
            let position = rng.u64(..);
            let (array, _, bucket) = self.head(position);
            let width = 1 << (fine - self.arrays[array].log2);
            let lot = rng.usize(..lots * width);
            // SAFETY: the first bucket for a hash is none or alive, and the table is borrowed.
            if let Some(item) = unsafe { nth(bucket, lot) }
                && wanted(item.tagged())
            {
                return Some(item);
            }
        }
        if candidates == self.len && self.is_countable() {
            return self.iter().nth(rng.usize(..self.len));
        }
        // Few wanted items in a large table: takes the first one from a random position on.
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
                let mut seen = 0;
                self.for_each_at(position, |item, tagged| {
                    if wanted(tagged) {
                        seen += 1;
                        if rng.usize(..seen) == 0 {
                            found = Some(item);
                        }
                    }
                });
                match self.range_at(position).1 {
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

    /// The bytes of memory of the table itself, without its items.
    pub(crate) fn mem_bytes(&self) -> usize {
        let arrays: usize = self
            .arrays
            .iter()
            .map(|array| {
                let present = array.segments.iter().filter(|segment| !segment.buckets.is_null()).count();
                present * array.segment_buckets() * mem::size_of::<Line>()
                    + array.segments.capacity() * mem::size_of::<Segment>()
            })
            .sum();
        arrays + (self.children + self.child_room) * mem::size_of::<u64>()
    }

    /// A text about sizes and chain lengths, for DEBUG HTSTATS.
    pub(crate) fn stats(&self) -> String {
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
            let mut longest = 0;
            let mut lengths = [0usize; 64];
            for index in 0..array.buckets() {
                let mut here = 0;
                // SAFETY: an array's buckets are none or alive, and the table is borrowed.
                unsafe { for_each(array.bucket(index), |_: &T, _| here += 1) };
                items += here;
                used += usize::from(here > 0);
                longest = longest.max(here);
                lengths[here.min(63)] += 1;
            }
            let name = if number == 0 { "main hash table" } else { "rehashing target" };
            let _ = write!(
                out,
                "Hash table {number} stats ({name}):\n table size: {}\n number of elements: {items}\n buckets: {}\n \
                 different slots: {used}\n max chain length: {longest}\n avg items a bucket: {:.02}\n Items a bucket distribution:\n",
                array.buckets() * SLOTS,
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
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let (mut len, mut tagged_len) = (0, 0);
        let (mut children, mut child_room) = (0, 0);
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
                while !bucket.is_none() {
                    if bucket != head {
                        children += 1;
                        child_room += bucket.room();
                    }
                    // SAFETY: the buckets of a chain are alive while the table is borrowed.
                    let (items, tagged, child) = unsafe { self.check_bucket(bucket, bucket == head, (number, index)) };
                    len += items;
                    tagged_len += tagged;
                    in_segments[index >> SEGMENT_LOG2] += tagged;
                    bucket = child;
                }
            }
            for (segment, tagged) in array.segments.iter().zip(in_segments) {
                assert_eq!(segment.tagged, tagged, "tagged items of a segment");
            }
        }
        assert_eq!(self.len, len);
        assert_eq!(self.tagged, tagged_len);
        assert_eq!((self.children, self.child_room), (children, child_room));
    }

    /// Returns how many items a bucket of this array and index has, how many of them are tagged, and the next bucket.
    ///
    /// # Safety
    /// The bucket must be alive.
    #[cfg(test)]
    unsafe fn check_bucket(&self, here: Bucket<T>, is_head: bool, at: (usize, usize)) -> (usize, usize, Bucket<T>) {
        let mut items = 0;
        // SAFETY: the caller's promise; places with a tag hold items.
        unsafe {
            assert!(!is_head || here.room() == SLOTS);
            assert!(is_head || here.count() >= 2 || here.chained(), "a child of one item");
            assert!(here.count() <= here.room());
            if here.chained() {
                assert_eq!(here.room(), SLOTS, "something after a small bucket");
                assert_eq!(here.count(), SLOTS - 1, "a gap before the end of a chain");
                assert_eq!(here.tag(SLOTS - 1), 0);
                assert!(!here.is_tagged(SLOTS - 1));
            }
            assert_eq!(here.tagged_count(), (0..SLOTS).filter(|i| here.is_tagged(*i)).count());
            for place in 0..SLOTS {
                if here.tag(place) == 0 {
                    assert!(!here.is_tagged(place), "a tag bit without an item");
                    continue;
                }
                let item = here.item(place);
                let hash = self.hash(item.key());
                assert_eq!(here.tag(place), super::bucket::tag_of(hash), "hash byte");
                assert_eq!((self.array_of(hash), self.arrays[at.0].index(hash)), at, "array and bucket");
                assert_eq!(here.is_tagged(place), item.tagged(), "tag bit");
                items += 1;
            }
            (items, here.tagged_count(), here.child())
        }
    }
}

/// Every item of a table.
pub struct Iter<'t, T: TableItem> {
    table: &'t Table<T>,
    bucket: Bucket<T>,
    /// The bucket after it, and where the one after that begins.
    coming: Option<Bucket<T>>,
    position: Option<u64>,
    /// The items of a bucket are fetched from memory while those of the one before it are given.
    fetches: bool,
    places: Places,
    left: usize,
}

impl<T: TableItem> Iter<'_, T> {
    /// Goes on to the bucket that comes.
    #[inline]
    fn come(&mut self) {
        let Some(position) = self.position else { return };
        let (bucket, next) = self.table.range_at(position);
        if self.fetches && !bucket.is_none() {
            // SAFETY: the table is borrowed, so its buckets stay; places with a tag hold items.
            unsafe { bucket.occupied().for_each(|place| prefetch(bucket.address(place))) };
        }
        self.coming = Some(bucket);
        self.position = next;
    }
}

impl<'t, T: TableItem> Iterator for Iter<'t, T> {
    type Item = &'t T;

    fn next(&mut self) -> Option<&'t T> {
        if self.left == 0 {
            return None;
        }
        loop {
            // SAFETY: the table is borrowed, so its buckets and items stay; places with a tag hold items.
            unsafe {
                if let Some(place) = self.places.next() {
                    self.left -= 1;
                    return Some(self.bucket.item(place));
                }
                if !self.bucket.is_none() {
                    self.bucket = self.bucket.child();
                }
                if self.bucket.is_none() {
                    self.bucket = self.coming.take()?;
                    self.come();
                }
                if !self.bucket.is_none() {
                    self.places = self.bucket.occupied();
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
