//! The memory of a listpack: bytes that begin with their own length (32 bits, little-endian), in a block of the
//! allocator that may have unused room before and after them.
//!
//! Its whole description is one word, so that a small listpack costs no more than its block:
//!
//! | bits of the word | what |
//! | --- | --- |
//! | 0 to 55 | the address of the first byte; those of a process have no more bits |
//! | 56 | whether there is room before it |
//! | 57 to 63 | the number of the block's size class; 0 for the empty listpack that all share, which is in no block |
//!
//! The size of the room before the first byte is stored in that room: in the last byte if it is less than [`LONG_GAP`];
//! otherwise that byte is 0, and the three before it hold the size.
//!
//! Invariant: the word and the size of the room before are right, all bytes up to the bytes' own length were written,
//! and room before, bytes and room after make up the block.
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::ptr::{self, NonNull};

use crate::structs::bytes::copy;
use crate::structs::{class_bytes, class_number, size_class};

/// Bytes of the length at the beginning.
const LEN_BYTES: usize = 4;
/// The bytes of an empty listpack.
pub(super) static EMPTY: [u8; 7] = [7, 0, 0, 0, 0, 0, super::END];

const ADDRESS_BITS: u32 = 56;
const ADDRESS: usize = (1 << ADDRESS_BITS) - 1;
const HAS_GAP: usize = 1 << ADDRESS_BITS;
const CLASS_SHIFT: u32 = ADDRESS_BITS + 1;
const _: () = assert!(usize::BITS == 64, "an address leaves a byte of a word free");

/// From this much room before on, its length takes four bytes.
const LONG_GAP: usize = 4;
/// Most room before, bytes: as much as nodes of lists can use, and less than three bytes can hold.
const MAX_GAP: usize = 1 << 20;
/// Shorter listpacks, bytes, get no room before: all that comes after a change is quickly moved.
const GAP_FROM: usize = 384;
/// Up to this length, bytes, a block has no more room than its size class.
const SMALL_LEN: usize = 2048;

pub(super) struct Block {
    word: NonNull<u8>,
}

// SAFETY: a block is owned by one `Block` alone, as a vector's is; the shared empty one is never written to.
unsafe impl Send for Block {}
// SAFETY: whoever has a shared reference can only read.
unsafe impl Sync for Block {}

impl Block {
    /// The empty listpack; takes no memory.
    pub(crate) fn empty() -> Block {
        Block { word: NonNull::from(&EMPTY).cast() }
    }

    /// A copy of `bytes`, which begin with their length, in a block of at least `room` bytes.
    fn copied(bytes: &[u8], room: usize) -> Block {
        let capacity = size_class(room.max(bytes.len()));
        let first = allocate(capacity);
        // SAFETY: the block is new, and large enough.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), first, bytes.len()) };
        Block { word: word(first, class_number(capacity), 0) }
    }

    /// The empty listpack in a block of at least `room` bytes.
    pub(crate) fn with_room(room: usize) -> Block {
        Block::copied(&EMPTY, room)
    }

    /// Takes over a vector that begins with its own length.
    pub(crate) fn from_vec(mut bytes: Vec<u8>) -> Block {
        let len = bytes.first_chunk().map(|len| u32::from_le_bytes(*len) as usize);
        assert_eq!(len, Some(bytes.len()), "the length that bytes begin with");
        let class = size_class(bytes.len());
        // The allocator returns whole classes, so as a rule neither moves anything.
        if bytes.capacity() < class {
            bytes.reserve_exact(class - bytes.len());
        } else {
            bytes.shrink_to(class);
        }
        if bytes.capacity() != class {
            return Block::copied(&bytes, 0);
        }
        let first = bytes.leak().as_mut_ptr();
        Block { word: word(first, class_number(class), 0) }
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        if self.class() == 0 || self.gap() > 0 {
            return self.bytes().to_vec();
        }
        let (len, capacity) = (self.len(), self.capacity());
        let first = self.first();
        std::mem::forget(self);
        // SAFETY: the block is from the global allocator, with this size and an alignment of 1, has `len` bytes that
        // were written, and is nobody else's any more.
        unsafe { Vec::from_raw_parts(first, len, capacity) }
    }

    #[inline]
    fn first(&self) -> *mut u8 {
        self.word.as_ptr().map_addr(|word| word & ADDRESS)
    }

    /// The number of its size class; 0 if it is the shared empty one.
    #[inline]
    fn class(&self) -> usize {
        self.word.addr().get() >> CLASS_SHIFT
    }

    /// Bytes allocated.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        class_bytes(self.class())
    }

    /// Bytes of room before the first one.
    #[inline]
    fn gap(&self) -> usize {
        if self.word.addr().get() & HAS_GAP == 0 {
            return 0;
        }
        // SAFETY: there is room, so at least a byte of it, and its length was written there; four bytes if it is zero.
        unsafe {
            match self.first().sub(1).read() {
                0 => {
                    let [a, b, c, _] = self.first().sub(LONG_GAP).cast::<[u8; LONG_GAP]>().read();
                    usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16
                }
                short => usize::from(short),
            }
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        // SAFETY: there always are at least as many bytes as the length takes.
        let len = unsafe { self.first().cast::<[u8; LEN_BYTES]>().read() };
        u32::from_le_bytes(len) as usize
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes were written there, and nobody changes them while this is borrowed.
        unsafe { std::slice::from_raw_parts(self.first(), self.len()) }
    }

    /// Overwrites bytes, but not the length.
    #[inline]
    pub(crate) fn write(&mut self, at: usize, bytes: &[u8]) {
        assert!(self.class() != 0 && at >= LEN_BYTES && at <= self.len() && bytes.len() <= self.len() - at);
        // SAFETY: all of it is within the bytes of a block of its own, which `bytes` cannot be in.
        unsafe { put(self.first().add(at), bytes) };
    }

    /// Replaces the bytes `from..to` by `parts`, one after the other. The shorter side of the rest is moved.
    #[inline]
    pub(crate) fn splice(&mut self, from: usize, to: usize, parts: [&[u8]; 3]) {
        let len = self.len();
        assert!(LEN_BYTES <= from && from <= to && to <= len, "bytes outside of a listpack");
        let (old, new) = (to - from, parts[0].len() + parts[1].len() + parts[2].len());
        if new > old {
            self.widen(from, to, new - old);
        } else if new < old {
            self.narrow(from, to, old - new);
        }
        if new > 0 {
            assert!(self.class() != 0);
            // SAFETY: `from + new` bytes are within the block, which is its own and in which `parts` cannot be.
            unsafe {
                let mut at = self.first().add(from);
                for part in parts {
                    put(at, part);
                    at = at.add(part.len());
                }
            }
        }
    }

    /// As `splice` of three parts after the first `BEFORE` bytes, for frequent additions: only if there is room before.
    /// Returns whether it was done.
    #[inline]
    pub(crate) fn add_front<const BEFORE: usize>(&mut self, (head, text, back): (u8, &[u8], u8)) -> bool {
        let (len, gap, added) = (self.len(), self.gap(), text.len() + 2);
        let Ok(new_len) = u32::try_from(len + added) else { return false };
        if len < GAP_FROM || gap < added {
            return false;
        }
        assert!(LEN_BYTES <= BEFORE && BEFORE <= GAP_FROM);
        let first = self.first();
        // SAFETY: there are `BEFORE` bytes, as there are more than `GAP_FROM`, and room for `added` more before them, in a
        // block of its own, as there is room; `text` is not in it.
        unsafe {
            let moved = first.sub(added);
            moved.cast::<[u8; BEFORE]>().write(first.cast::<[u8; BEFORE]>().read());
            moved.cast::<[u8; LEN_BYTES]>().write(new_len.to_le_bytes());
            let at = moved.add(BEFORE);
            at.write(head);
            copy(text, at.add(1));
            at.add(1 + text.len()).write(back);
            self.word = word(moved, self.class(), gap - added);
        }
        true
    }

    /// As `splice` of three parts before the last byte, which is `end`, for frequent additions: only if there is room
    /// after. Returns whether it was done.
    #[inline]
    pub(crate) fn add_back(&mut self, (head, text, back): (u8, &[u8], u8), end: u8) -> bool {
        let (len, added) = (self.len(), text.len() + 2);
        let Ok(new_len) = u32::try_from(len + added) else { return false };
        if self.class() == 0 || self.capacity() < self.gap() + len + added {
            return false;
        }
        let first = self.first();
        // SAFETY: there is the length, and the last byte, and room for `added` more after it, in a block of its own;
        // `text` is not in it.
        unsafe {
            first.cast::<[u8; LEN_BYTES]>().write(new_len.to_le_bytes());
            let at = first.add(len - 1);
            at.write(head);
            copy(text, at.add(1));
            at.add(1 + text.len()).cast::<[u8; 2]>().write([back, end]);
        }
        true
    }

    /// As `splice` of nothing in place of all from a byte on but the last one, which is `end`, for frequent removals.
    #[inline]
    pub(crate) fn cut_back(&mut self, from: usize, end: u8) {
        assert!(self.class() != 0 && LEN_BYTES <= from && from < self.len());
        let first = self.first();
        // SAFETY: the byte is one of those that were written, and there is the length, in a block of its own.
        unsafe {
            first.cast::<[u8; LEN_BYTES]>().write((from as u32 + 1).to_le_bytes());
            first.add(from).write(end);
        }
    }

    /// As `splice` of nothing in place of `removed` bytes after the first `BEFORE`, for frequent removals: only if there may be
    /// more room before. Returns whether it was done.
    #[inline]
    pub(crate) fn cut_front<const BEFORE: usize>(&mut self, removed: usize) -> bool {
        let (len, gap) = (self.len(), self.gap());
        if len < GAP_FROM || removed > len - GAP_FROM || gap + removed > MAX_GAP {
            return false;
        }
        assert!(LEN_BYTES <= BEFORE && BEFORE <= GAP_FROM && self.class() != 0);
        let first = self.first();
        // SAFETY: `BEFORE` bytes at the beginning and `removed` and as many after it are among the `len` that were written, in
        // a block of its own; what lies before the new first byte is room.
        unsafe {
            let moved = first.add(removed);
            moved.cast::<[u8; BEFORE]>().write(first.cast::<[u8; BEFORE]>().read());
            moved.cast::<[u8; LEN_BYTES]>().write(((len - removed) as u32).to_le_bytes());
            self.word = word(moved, self.class(), gap + removed);
        }
        true
    }

    /// Widens the bytes `from..to` by `added`; they are to be written next.
    #[inline]
    fn widen(&mut self, from: usize, to: usize, added: usize) {
        let len = self.len();
        let new_len = u32::try_from(len + added).expect("a listpack below 4 GiB");
        let (before, behind) = (from, len - to);
        let mut gap = self.gap();
        let room = self.capacity().saturating_sub(gap + len);
        // The shorter side moves, unless only the other one has room and is not nearly all of the bytes.
        let near_all = len / 4 * 3;
        let at_front = len >= GAP_FROM
            && added <= MAX_GAP
            && if before < behind {
                gap >= added || room < added || behind > near_all
            } else {
                gap >= added && room < added && before <= near_all
            };
        if if at_front { gap } else { room } < added {
            self.make_room(added, at_front);
            gap = self.gap();
        }
        let first = self.first();
        // SAFETY: there is room for `added` bytes on the side that moves, in a block of its own: before the first byte,
        // or after the last one.
        unsafe {
            let first = if at_front {
                let moved = first.sub(added);
                ptr::copy(first, moved, before);
                self.word = word(moved, self.class(), gap - added);
                moved
            } else {
                shift(first.add(to), first.add(to + added), behind);
                first
            };
            first.cast::<[u8; LEN_BYTES]>().write(new_len.to_le_bytes());
        }
    }

    /// Removes the first `removed` of the bytes `from..to`. The rest of them is to be written next.
    fn narrow(&mut self, from: usize, to: usize, removed: usize) {
        assert!(self.class() != 0, "the shared empty listpack has no elements");
        let len = self.len();
        let (before, behind) = (from, len - to);
        let gap = self.gap();
        let mut first = self.first();
        let new_len = (len - removed) as u32;
        // SAFETY: what moves, moves within the bytes that were written, of a block of its own.
        unsafe {
            if len >= GAP_FROM && before < behind && gap + removed <= MAX_GAP {
                let moved = first.add(removed);
                ptr::copy(first, moved, before);
                self.word = word(moved, self.class(), gap + removed);
                first = moved;
            } else {
                shift(first.add(to), first.add(to - removed), behind);
            }
            first.cast::<[u8; LEN_BYTES]>().write(new_len.to_le_bytes());
        }
    }

    /// Makes room for `added` bytes on a side.
    #[cold]
    fn make_room(&mut self, added: usize, at_front: bool) {
        let (len, gap, capacity) = (self.len(), self.gap(), self.capacity());
        let room = capacity.saturating_sub(len);
        // Moving all of it within the block has to leave enough room for many more changes at either end; a small one
        // is moved so that nothing is lost.
        if room >= added && (len < GAP_FROM || room - added >= len / 8) {
            let half = (room - added) / 2;
            let new_gap = match (len < GAP_FROM, at_front) {
                (true, _) => 0,
                (false, true) => (added + half).min(MAX_GAP),
                (false, false) => half.min(MAX_GAP),
            };
            let first = self.first();
            // SAFETY: the block is its own, as it has room, and begins `gap` bytes before; with so much room before it,
            // the bytes end within the block.
            unsafe {
                let moved = first.sub(gap).add(new_gap);
                ptr::copy(first, moved, len);
                self.word = word(moved, self.class(), new_gap);
            }
            return;
        }
        let wanted = len + added;
        let new_capacity = size_class(if wanted <= SMALL_LEN { wanted } else { wanted + wanted / 4 });
        if at_front {
            self.relocate(new_capacity, (new_capacity - len).min(MAX_GAP));
        } else if self.class() == 0 || gap > 0 {
            self.relocate(new_capacity, 0);
        } else {
            self.resize(new_capacity);
        }
    }

    /// Resizes a block without room before, not below the length.
    fn resize(&mut self, new_capacity: usize) {
        // SAFETY: the block was allocated with this layout, and the new size is a size class, so not zero.
        let first = unsafe { alloc::realloc(self.first(), layout(self.capacity()), new_capacity) };
        if first.is_null() {
            alloc::handle_alloc_error(layout(new_capacity));
        }
        self.word = word(first, class_number(new_capacity), 0);
    }

    /// Moves into a new block, with `new_gap` bytes of room before.
    fn relocate(&mut self, new_capacity: usize, new_gap: usize) {
        let len = self.len();
        assert!(new_gap + len <= new_capacity);
        let block = allocate(new_capacity);
        // SAFETY: the new block has room for gap and bytes.
        let new = unsafe {
            let first = block.add(new_gap);
            ptr::copy_nonoverlapping(self.first(), first, len);
            Block { word: word(first, class_number(new_capacity), new_gap) }
        };
        *self = new;
    }

    /// Moves to a smaller block if one is large enough.
    pub(crate) fn shrink(&mut self) {
        let new_capacity = size_class(self.len());
        if new_capacity >= self.capacity() {
            return;
        }
        if self.gap() > 0 {
            self.relocate(new_capacity, 0);
        } else {
            self.resize(new_capacity);
        }
    }

    /// Asserts what the file's head promises.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let (len, gap, capacity) = (self.len(), self.gap(), self.capacity());
        if self.class() == 0 {
            assert_eq!((self.bytes(), gap), (&EMPTY[..], 0), "no block, but not empty");
            return;
        }
        assert!(gap <= MAX_GAP, "{gap} bytes of room before");
        assert_eq!(capacity, size_class(capacity));
        assert!(gap + len <= capacity, "{len} bytes behind {gap} in a block of {capacity}");
    }
}

impl Clone for Block {
    fn clone(&self) -> Block {
        if self.class() == 0 { Block::empty() } else { Block::copied(self.bytes(), 0) }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.class() != 0 {
            // SAFETY: the block begins before the room before, was allocated with this layout and is not used any more.
            unsafe { alloc::dealloc(self.first().sub(self.gap()), layout(self.capacity())) };
        }
    }
}

/// The layout of a block of a size class: that of a vector's.
fn layout(capacity: usize) -> Layout {
    Layout::array::<u8>(capacity).expect("a block smaller than the address space")
}

fn allocate(capacity: usize) -> *mut u8 {
    let layout = layout(capacity);
    // SAFETY: a size class is never zero.
    let block = unsafe { alloc::alloc(layout) };
    if block.is_null() {
        alloc::handle_alloc_error(layout);
    }
    block
}

/// The word for bytes at `first`, in a block of a class, after `gap` bytes of room. Writes the size to the room.
#[inline]
fn word(first: *mut u8, class: usize, gap: usize) -> NonNull<u8> {
    assert!(first.addr() & !ADDRESS == 0, "an address has at most {ADDRESS_BITS} bits");
    let mut tag = class << CLASS_SHIFT;
    if gap > 0 {
        tag |= HAS_GAP;
        // SAFETY: every caller has `gap` bytes of its block before `first`.
        unsafe {
            if gap < LONG_GAP {
                first.sub(1).write(gap as u8);
            } else {
                let [a, b, c, ..] = gap.to_le_bytes();
                first.sub(LONG_GAP).cast::<[u8; LONG_GAP]>().write([a, b, c, 0]);
            }
        }
    }
    NonNull::new(first.map_addr(|address| address | tag)).expect("a block has an address")
}

/// Copies bytes that do not overlap the target; one byte, which is frequent, without a call.
///
/// # Safety
///
/// As many bytes at `at` can be written, and `bytes` does not overlap them.
#[inline]
unsafe fn put(at: *mut u8, bytes: &[u8]) {
    // SAFETY: as the caller promises.
    unsafe {
        match bytes {
            [byte] => at.write(*byte),
            _ => ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()),
        }
    }
}

/// Moves `len` bytes; one byte, the end mark alone, without a call.
///
/// # Safety
///
/// So many bytes at `from` can be read, and at `to` be written.
#[inline]
unsafe fn shift(from: *mut u8, to: *mut u8, len: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        match len {
            1 => to.write(from.read()),
            _ => ptr::copy(from, to, len),
        }
    }
}
