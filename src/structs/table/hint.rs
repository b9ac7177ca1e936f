//! Where an item probably is: what prefetching leaves for the look-up that follows.

#![allow(unsafe_code)]

use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use super::bucket::{Bucket, tag_of};
use super::{Spot, Table, TableItem, is_same};

/// The place in an array's bucket that held an item with the tag of a hash, or any place if none did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hint {
    /// See [`Bucket::place_address`].
    at: *const u8,
    /// The [`Memory`] of the table that it was found in.
    pub(super) of: Memory,
}

impl Hint {
    /// Nothing is known.
    pub(crate) const NONE: Hint = Hint { at: ptr::null(), of: Memory(u32::MAX) };
}

impl Default for Hint {
    fn default() -> Hint {
        Hint::NONE
    }
}

/// Identifies the memory of a table's arrays: changes as soon as some of it is freed, and differs between tables. (It
/// wraps after four billion changes. A hint lives for less than a turn.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Memory(u32);

impl Memory {
    /// That of a table without memory, for which there are no hints.
    pub(super) const NONE: Memory = Memory(0);

    pub(super) fn next() -> Memory {
        static USED: AtomicU32 = AtomicU32::new(0);
        Memory(USED.fetch_add(1, Ordering::Relaxed) % (u32::MAX - 1) + 1)
    }
}

impl<T: TableItem> Table<T> {
    /// As [`Table::prefetch`] with [`super::Step::Item`]; also returns a hint for the look-up.
    #[inline(always)]
    pub(crate) fn prefetch_item(&self, hash: u64) -> (bool, Hint) {
        let bucket = self.head(hash).2;
        if bucket.is_none() {
            return (false, Hint::NONE);
        }
        // SAFETY: an array's bucket has all places, and is alive while the table is borrowed.
        let (place, is_behind) = unsafe { bucket.prefetch_next(tag_of(hash)) };
        (is_behind, Hint { at: bucket.place_address(place), of: self.memory })
    }

    /// As `find`, but tries the place of the hint first. Any hint is allowed.
    #[inline(always)]
    pub(super) fn find_near(&self, hash: u64, hint: Hint, key: &[u8]) -> Option<Spot<T>> {
        if hint.of == self.memory {
            let (bucket, place) = Bucket::<T>::at_place(hint.at);
            // SAFETY: no memory of this table's arrays was freed since the hint was made, so the bucket is alive; a place
            // with a tag holds an item.
            unsafe {
                if bucket.tag(place) == tag_of(hash) && is_same(bucket.item(place).key(), key) {
                    return Some(Spot { hash, bucket, place });
                }
            }
        }
        self.find(hash, key)
    }
}
