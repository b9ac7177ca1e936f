//! The data structures that everything else is built on.
//!
//! A leaf: nothing here depends on the server, its clock or its configuration. Every structure owns its memory, checks
//! bytes that come from outside, and offers `check_invariants` where an internal promise could break.

pub(crate) mod bytes;
pub mod crc64;
pub mod entry;
pub(crate) mod geohash;
pub mod glob;
mod grisu;
pub(crate) mod hll;
pub(crate) mod intset;
pub(crate) mod lend;
pub mod listpack;
pub(crate) mod long_double;
pub mod lzf;
pub(crate) mod numbers;
pub mod ordered;
pub(crate) mod quicklist;
pub(crate) mod sip;
pub(crate) mod slots;
pub(crate) mod stream;
pub mod table;
pub(crate) mod ziplist;

/// The step of the allocator's small size classes, bytes, as configured at its build.
pub(crate) const QUANTUM: usize = 8;

/// The bytes that the allocator hands out for a request of `size` bytes: jemalloc's size classes (eight steps of
/// [`QUANTUM`], then four classes a doubling). An [`entry::Entry`] always asks for a whole class, so the class is also
/// the capacity it can use in place.
pub(crate) const fn size_class(size: usize) -> usize {
    if size <= 8 {
        8
    } else if size <= 8 * QUANTUM {
        size.next_multiple_of(QUANTUM)
    } else {
        size.next_multiple_of(1 << ((size - 1).ilog2() - 2))
    }
}

/// The number of a size class, given its bytes: from 1 on, below 128 for all that have at most 8 GiB.
pub(crate) const fn class_number(class: usize) -> usize {
    if class <= 8 * QUANTUM {
        class / QUANTUM
    } else {
        let power = (class - 1).ilog2();
        let doublings = (power - (8 * QUANTUM).ilog2()) as usize;
        8 + 4 * doublings + ((class - (1 << power)) >> (power - 2))
    }
}

/// The bytes of the size class of a number; 0 has none.
#[inline]
pub(crate) const fn class_bytes(number: usize) -> usize {
    if number <= 8 {
        number * QUANTUM
    } else {
        let (doublings, steps) = ((number - 9) / 4, (number - 9) % 4 + 1);
        (8 * QUANTUM + steps * 2 * QUANTUM) << doublings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_classes_are_numbered_in_order() {
        let (mut number, mut class) = (1, 8);
        while class <= 8 << 30 {
            assert_eq!((class_number(class), class_bytes(number)), (number, class));
            (number, class) = (number + 1, size_class(class + 1));
        }
        assert_eq!((number - 1, class_bytes(0)), (116, 0));
    }

    #[test]
    fn size_classes_are_jemallocs() {
        for (ask, got) in [
            (0, 8),
            (8, 8),
            (9, 16),
            (41, 48),
            (49, 56),
            (65, 80),
            (33, 40),
            (48, 48),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (513, 640),
            (16384, 16384),
            (16385, 20480),
        ] {
            assert_eq!(size_class(ask), got, "{ask}");
        }
    }
}
