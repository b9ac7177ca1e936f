//! LZF, the compression of long strings in RDB files.
//!
//! A stream is a row of runs. A control byte below 32 is followed by that many bytes plus one, taken as they are. Any
//! other says "copy": its upper three bits are the length less two (7: the next byte is added), its lower five and the
//! byte after it (or after that added byte) the distance back less one. Any stream that LibLZF writes can be read here
//! and the other way round; the two may find different matches.

#![allow(unsafe_code)]

use super::bytes::copy;
use std::cell::RefCell;
use std::ops::Range;

/// Why a stream cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LzfError {
    /// The stream ends inside a run; where, in bytes.
    Truncated(usize),
    /// A copy from before the beginning; where it stands.
    BadDistance(usize),
    /// It does not yield the length that was promised.
    BadLength,
}

impl std::fmt::Display for LzfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LzfError::Truncated(at) => write!(f, "LZF stream ends inside a run at byte {at}"),
            LzfError::BadDistance(at) => write!(f, "LZF copy from before the beginning at byte {at}"),
            LzfError::BadLength => f.write_str("LZF stream has another length than promised"),
        }
    }
}

impl std::error::Error for LzfError {}

const MAX_LITERAL: usize = 32;
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 2 + 7 + 255;
const MAX_DISTANCE: usize = 1 << DISTANCE_BITS;
const DISTANCE_BITS: u32 = 13;
/// Size of the table of places, as a power of two.
const MAX_HASH_BITS: u32 = 14;
/// Bytes after its first three that a match is compared one by one.
const ONE_BY_ONE: usize = 16;
/// How far before the place where it is found a match may begin: what is compared one by one fits into a copy then.
const MAX_BEFORE: usize = MAX_MATCH - MIN_MATCH - ONE_BY_ONE;
/// Bytes of room that writing a stream takes beyond its greatest length.
const SPARE: usize = MAX_LITERAL + 4;
/// After so many bytes without a match (as a power of two) the search takes one more byte a step.
const PATIENCE: u32 = 6;

thread_local! {
    /// The compressor's table, kept from one string to the next: clearing it takes longer than compressing a short
    /// string.
    static COMPRESSOR: RefCell<Compressor> = const { RefCell::new(Compressor::new()) };
}

/// Appends the compressed form of `input` to `out` and returns true; if that takes more than `max_len` bytes, leaves
/// `out` as it was and returns false.
pub(crate) fn compress_into(input: &[u8], max_len: usize, out: &mut Vec<u8>) -> bool {
    COMPRESSOR.with_borrow_mut(|compressor| compressor.compress_into(input, max_len, out))
}

/// Compresses `input`; `None` if that takes more than `max_len` bytes.
pub fn compress(input: &[u8], max_len: usize) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    compress_into(input, max_len, &mut out).then_some(out)
}

/// Where three bytes were last seen, by their hash. Positions count on through all compressed strings, so that those of
/// earlier strings are out of reach of a copy and the table need not be cleared in between.
struct Compressor {
    /// Empty until first used.
    seen: Vec<u32>,
    /// The position of the next string's first byte.
    base: u32,
}

impl Compressor {
    const fn new() -> Compressor {
        Compressor { seen: Vec::new(), base: 0 }
    }

    /// Claims positions for a string of `len` bytes and returns the first. `None` for strings of 4 GiB and more.
    fn claim(&mut self, len: usize) -> Option<u32> {
        // The gap between two strings is longer than a copy reaches.
        let room = u32::try_from(len).ok()?.checked_add(MAX_DISTANCE as u32)?;
        if self.seen.is_empty() || self.base.checked_add(room).is_none() {
            self.seen.clear();
            self.seen.resize(1 << MAX_HASH_BITS, 0);
            // Entries never filled are out of reach, too.
            self.base = MAX_DISTANCE as u32 + 1;
        }
        let base = self.base;
        self.base = base.checked_add(room)?;
        Some(base)
    }

    fn compress_into(&mut self, input: &[u8], max_len: usize, out: &mut Vec<u8>) -> bool {
        let Some(base) = self.claim(input.len()) else { return false };
        let max_len = max_len.min(input.len() + input.len() / MAX_LITERAL + 1);
        out.reserve(max_len + SPARE);
        // Short strings use so few places that they stay in the nearest cache.
        let pack = match input.len() {
            ..=127 => pack::<8>,
            128..=511 => pack::<10>,
            512..=2047 => pack::<12>,
            _ => pack::<MAX_HASH_BITS>,
        };
        // SAFETY: there is room for so many bytes and those to spare; of these, as many as `pack` says were written. `base`
        // was claimed for this input.
        unsafe {
            let to = out.as_mut_ptr().add(out.len());
            let Some(len) = pack(&mut self.seen, base, input, to, max_len) else { return false };
            out.set_len(out.len() + len);
        }
        true
    }
}

/// Writes the compressed form of `input`, at most `max_len` bytes, and returns its length; `None` if it is longer. `base` is
/// the position of the first byte, and `BITS` says how much of the table is used.
///
/// # Safety
/// At `to` there must be room for `max_len` bytes and [`SPARE`]. `base` must be what [`Compressor::claim`] gave for this
/// input, and `seen` that compressor's table.
unsafe fn pack<const BITS: u32>(
    seen: &mut [u32],
    base: u32,
    input: &[u8],
    to: *mut u8,
    max_len: usize,
) -> Option<usize> {
    const { assert!(BITS <= MAX_HASH_BITS) };
    let seen: &mut [u32; 1 << MAX_HASH_BITS] = seen.first_chunk_mut().expect("the table of places");
    let hash = |four: u32| ((four << 8).wrapping_mul(0x9e37_79b1) >> (32 - BITS)) as usize;
    let Range { start, end } = input.as_ptr_range();
    let before_end = |len: usize| start.wrapping_add(input.len().saturating_sub(len - 1));
    // Before these places four bytes can be read, and a match be compared byte by byte.
    let (limit, near_limit) = (before_end(4), before_end(MIN_MATCH + ONE_BY_ONE + 1));
    let from_address = base.wrapping_sub(start.addr() as u32);
    let position = |at: *const u8| from_address.wrapping_add(at.addr() as u32);
    // SAFETY: the caller's promise.
    let mut packed = unsafe { Packed::new(to, max_len, end) };
    let mut literal_from = start;
    let mut at = start;
    let mut misses = 0usize;
    while at < limit {
        // SAFETY: it is before the limit.
        let four = unsafe { four_at(at) };
        // SAFETY: a hash has no more bits than a place of the table.
        let place = unsafe { seen.get_unchecked_mut(hash(four)) };
        let back = position(at).wrapping_sub(*place).wrapping_sub(1) as usize;
        *place = position(at);
        // SAFETY: positions that near are those of this string.
        if back >= MAX_DISTANCE || unsafe { four_at(at.sub(back + 1)) ^ four } << 8 != 0 {
            misses += 1;
            at = at.wrapping_add(1 + (misses >> PATIENCE));
            continue;
        }
        let mut from = at;
        if at != literal_from {
            // A long step, or the match before, may have skipped the start of this one.
            let first = literal_from.max(start.wrapping_add(back + 1)).max(at.wrapping_sub(MAX_BEFORE));
            // SAFETY: the bytes compared are those before places after the first, and so far back from there.
            while from > first && unsafe { *from.sub(1) == *from.sub(back + 2) } {
                from = from.wrapping_sub(1);
            }
            // SAFETY: both are places in the string.
            if from != literal_from && !unsafe { packed.literals(literal_from, from) } {
                return None;
            }
        }
        let longest = end.min(from.wrapping_add(MAX_MATCH));
        let mut next = at.wrapping_add(MIN_MATCH);
        // Where a short loop ends a processor foresees, and goes on from there before it has compared; not so where the
        // end is computed from wider pieces.
        let far = if at < near_limit { next.wrapping_add(ONE_BY_ONE) } else { next };
        // SAFETY: up to `far` bytes can be read, and as many so far back; `longest` is not after the end.
        unsafe {
            loop {
                if next == far {
                    next = match_end(next, back, longest);
                    break;
                }
                if *next != *next.sub(back + 1) {
                    break;
                }
                next = next.add(1);
            }
        }
        let len = next.addr() - from.addr();
        // SAFETY: it begins so far back, and has a length that a copy may have.
        if !unsafe { packed.copy(back, len) } {
            return None;
        }
        // Remember the match's last positions too: what follows often begins there.
        if next <= limit {
            for inside in [next.wrapping_sub(2), next.wrapping_sub(1)] {
                // SAFETY: it is before the limit; and as above.
                unsafe { *seen.get_unchecked_mut(hash(four_at(inside))) = position(inside) };
            }
        }
        misses = misses.saturating_sub(8 * len);
        at = next;
        literal_from = next;
    }
    // SAFETY: as above.
    let whole = literal_from == end || unsafe { packed.literals(literal_from, end) };
    whole.then(|| packed.to.addr() - to.addr())
}

/// The four bytes from `at` on, the first one lowest.
///
/// # Safety
/// There must be four.
#[inline(always)]
unsafe fn four_at(at: *const u8) -> u32 {
    // SAFETY: the caller's promise.
    u32::from_le(unsafe { at.cast::<u32>().read_unaligned() })
}

/// Where bytes that equal those `back` and one before them end, from `at` on; `end` at the latest.
///
/// # Safety
/// What is compared must be readable, and `at` not after `end`.
#[inline(never)]
unsafe fn match_end(mut at: *const u8, back: usize, end: *const u8) -> *const u8 {
    // SAFETY: the caller's promise; what is read lies before the end.
    unsafe {
        while end.addr() - at.addr() >= 8 {
            let eight = |at: *const u8| u64::from_le(at.cast::<u64>().read_unaligned());
            let differ = eight(at) ^ eight(at.sub(back + 1));
            if differ != 0 {
                return at.add(differ.trailing_zeros() as usize / 8);
            }
            at = at.add(8);
        }
        while at < end && *at == *at.sub(back + 1) {
            at = at.add(1);
        }
    }
    at
}

/// A stream being written: the next byte at `to`, where there is room up to `to_end` and [`SPARE`] bytes beyond. `end` is
/// the end of what is compressed.
struct Packed {
    to: *mut u8,
    to_end: *mut u8,
    end: *const u8,
}

impl Packed {
    /// # Safety
    /// At `to` there must be room for `max_len` bytes and [`SPARE`].
    unsafe fn new(to: *mut u8, max_len: usize, end: *const u8) -> Packed {
        // SAFETY: the caller's promise.
        Packed { to, to_end: unsafe { to.add(max_len) }, end }
    }

    /// Writes bytes as they are. False if the stream becomes too long.
    ///
    /// # Safety
    /// They must be a part, and not an empty one, of what is compressed.
    #[inline(always)]
    unsafe fn literals(&mut self, mut from: *const u8, to: *const u8) -> bool {
        // SAFETY: the caller's promise.
        unsafe {
            while to.addr() - from.addr() > MAX_LITERAL {
                if !self.literal(from, MAX_LITERAL) {
                    return false;
                }
                from = from.add(MAX_LITERAL);
            }
            self.literal(from, to.addr() - from.addr())
        }
    }

    /// Writes a run of `count` bytes. False if the stream becomes too long.
    ///
    /// # Safety
    /// There must be so many, at least one and at most [`MAX_LITERAL`].
    #[inline(always)]
    unsafe fn literal(&mut self, from: *const u8, count: usize) -> bool {
        debug_assert!((1..=MAX_LITERAL).contains(&count));
        if count + 1 > self.to_end.addr() - self.to.addr() {
            return false;
        }
        // SAFETY: there is room for the run, and for as many bytes as are copied to have no need to count them.
        unsafe {
            self.to.write(count as u8 - 1);
            let to = self.to.add(1);
            if self.end.addr() - from.addr() >= MAX_LITERAL {
                to.cast::<[u8; MAX_LITERAL]>().write(from.cast::<[u8; MAX_LITERAL]>().read());
            } else {
                copy(std::slice::from_raw_parts(from, count), to);
            }
            self.to = to.add(count);
        }
        true
    }

    /// Writes a copy of `len` bytes from `back` and one before. False if the stream becomes too long.
    ///
    /// # Safety
    /// Both must be within what a copy can say. The stream must not be longer than its greatest length.
    #[inline(always)]
    unsafe fn copy(&mut self, back: usize, len: usize) -> bool {
        debug_assert!(back < MAX_DISTANCE && (MIN_MATCH..=MAX_MATCH).contains(&len));
        let code = len as u32 - 2;
        let is_long = code >= 7;
        // Its higher bits first.
        let back = u32::from((back as u16).swap_bytes());
        let long = 7 << 5 | back & 0xff | code.wrapping_sub(7) << 8 | (back & 0xff00) << 8;
        let word = if is_long { long } else { code << 5 | back };
        // SAFETY: four bytes are to spare.
        unsafe {
            let next = self.to.add(2 + usize::from(is_long));
            if next > self.to_end {
                return false;
            }
            self.to.cast::<u32>().write_unaligned(word.to_le());
            self.to = next;
        }
        true
    }
}

/// Decompresses a stream that must yield exactly `len` bytes.
pub fn decompress(stream: &[u8], len: usize) -> Result<Vec<u8>, LzfError> {
    let mut out = Vec::new();
    check_promise(stream, len)?;
    out.reserve_exact(len);
    unpack(stream, 0..stream.len(), len, &mut out)?;
    Ok(out)
}

/// Bytes of a stream that are decompressed at once: to less than 2 MiB.
const PART: usize = 16 << 10;

/// As [`decompress`], in parts: appends what the next part of the stream, from `at` on, yields to `out`, which begins empty, and
/// moves `at`. Returns whether that was the last.
pub(crate) fn decompress_part(stream: &[u8], at: &mut usize, len: usize, out: &mut Vec<u8>) -> Result<bool, LzfError> {
    if *at == 0 {
        check_promise(stream, len)?;
        out.reserve_exact(len);
    }
    *at = unpack(stream, *at..stream.len().min(*at + PART), len, out)?;
    Ok(*at == stream.len())
}

/// As [`decompress`], into a vector that is reused: it grows as needed, with some to spare. Its old contents are
/// dropped in any case.
pub(crate) fn decompress_into(stream: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), LzfError> {
    out.clear();
    check_promise(stream, len)?;
    out.reserve(len + MAX_LITERAL);
    unpack(stream, 0..stream.len(), len, out).map(|_| ())
}

/// A stream yields at most 88 bytes for each of its own: a longer promise gets no memory.
fn check_promise(stream: &[u8], len: usize) -> Result<(), LzfError> {
    if len > stream.len().saturating_mul(MAX_MATCH) { Err(LzfError::BadLength) } else { Ok(()) }
}

/// Decompresses the runs that begin in this part of a stream into a vector with room for `len` bytes, the exact length of all
/// that the stream yields. What comes before the part must be there already. Returns where the next run begins.
fn unpack(stream: &[u8], part: Range<usize>, len: usize, out: &mut Vec<u8>) -> Result<usize, LzfError> {
    assert!(out.capacity() >= len && out.len() <= len);
    let mut unpacked = Unpacked { to: out.as_mut_ptr(), at: out.len(), len, room: out.capacity() };
    let starts = &stream[..part.end];
    let mut at = part.start;
    while let Some(control) = starts.get(at) {
        let (start, control) = (at, usize::from(*control));
        at += 1;
        if control < MAX_LITERAL {
            let run = control + 1;
            let literals = &stream[at..];
            if run > literals.len() {
                return Err(LzfError::Truncated(start));
            }
            unpacked.literals(literals, run)?;
            at += run;
            continue;
        }
        let mut count = (control >> 5) + 2;
        let Some(mut back) = stream.get(at) else { return Err(LzfError::Truncated(at)) };
        at += 1;
        if count == 7 + 2 {
            count += usize::from(*back);
            let Some(behind) = stream.get(at) else { return Err(LzfError::Truncated(at)) };
            back = behind;
            at += 1;
        }
        let distance = ((control & 31) << 8 | usize::from(*back)) + 1;
        if distance > unpacked.at {
            return Err(LzfError::BadDistance(start));
        }
        // SAFETY: so many bytes were written before.
        unsafe { unpacked.copy(distance, count)? };
    }
    if at == stream.len() && unpacked.at != len {
        return Err(LzfError::BadLength);
    }
    // SAFETY: so many bytes were written.
    unsafe { out.set_len(unpacked.at) };
    Ok(at)
}

/// Copies `count` bytes, where there is no room for a whole step. It stands apart as the compiler would make one call to the C
/// library of this and of the copy of a known length.
///
/// # Safety
/// As of `copy_nonoverlapping`.
#[cold]
#[inline(never)]
unsafe fn at_an_end(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller's promise.
    unsafe { to.copy_from_nonoverlapping(from, count) }
}

/// Copies at least `count` bytes, not none, in whole steps.
///
/// # Safety
/// There must be room for them. The source must be at least a step before the target, and be written when its step
/// comes.
#[inline(always)]
unsafe fn steps<const STEP: usize>(from: *const u8, to: *mut u8, count: usize) {
    let mut done = 0;
    loop {
        // SAFETY: the caller's promise.
        unsafe { to.add(done).copy_from_nonoverlapping(from.add(done), STEP) };
        done += STEP;
        if done >= count {
            return;
        }
    }
}

/// The output so far: `at` bytes at `to`, of the `len` that the stream promises. There is `room` for as many or more.
struct Unpacked {
    to: *mut u8,
    at: usize,
    len: usize,
    room: usize,
}

impl Unpacked {
    /// Bytes written at a time if there is room, however few are wanted; the short step is for copies from nearer than
    /// that.
    const STEP: usize = 16;
    const SHORT_STEP: usize = 8;
    /// The most bytes that are copied one by one.
    const FEW: usize = 8;

    /// Where the next bytes go, if `count` of them are still promised.
    fn next(&self, count: usize) -> Result<*mut u8, LzfError> {
        if count > self.len - self.at {
            return Err(LzfError::BadLength);
        }
        // SAFETY: not beyond the room, which is for `len` bytes at least.
        Ok(unsafe { self.to.add(self.at) })
    }

    /// Appends the first `count` of these bytes, at most [`MAX_LITERAL`].
    #[inline(always)]
    fn literals(&mut self, bytes: &[u8], count: usize) -> Result<(), LzfError> {
        let to = self.next(count)?;
        // SAFETY: there is room for `count` bytes, or for as many as are copied; and as many to read. What is read is apart
        // from what is written.
        unsafe {
            match bytes.first_chunk::<MAX_LITERAL>() {
                Some(bytes) if self.room - self.at >= MAX_LITERAL => to.cast::<[u8; MAX_LITERAL]>().write(*bytes),
                _ => at_an_end(bytes.as_ptr(), to, count),
            }
        }
        self.at += count;
        Ok(())
    }

    /// Appends `count` bytes from `distance` before the end; the copy may overlap its own output.
    ///
    /// # Safety
    /// So many bytes must have been written.
    #[inline(always)]
    unsafe fn copy(&mut self, distance: usize, count: usize) -> Result<(), LzfError> {
        let to = self.next(count)?;
        let room = self.room - self.at;
        // SAFETY: what is read was written before, here or by the caller's promise, and there is room for `count` bytes.
        unsafe {
            let from = to.sub(distance);
            if count <= Self::FEW {
                // One by one, as a processor waits where one load reads what several stores have just written.
                for i in 0..Self::FEW {
                    if i < count {
                        to.add(i).write(from.add(i).read());
                    }
                }
            } else {
                Self::copy_many(from, to, distance, count, room);
            }
        }
        self.at += count;
        Ok(())
    }

    /// The same, in as many steps as it takes.
    ///
    /// # Safety
    /// `to` must be `distance` after `from`, all in between be written, and `room` for as many bytes be at `to`, not less than
    /// `count`.
    unsafe fn copy_many(from: *const u8, to: *mut u8, distance: usize, count: usize, room: usize) {
        // SAFETY: what is read was written before, here or by the caller's promise. There is room for `count` bytes, and for
        // whole steps where they are taken; a step reads what lies at least a step before what it writes.
        unsafe {
            if distance >= Self::STEP && count.next_multiple_of(Self::STEP) <= room {
                steps::<{ Self::STEP }>(from, to, count);
            } else if distance >= Self::SHORT_STEP && count.next_multiple_of(Self::SHORT_STEP) <= room {
                steps::<{ Self::SHORT_STEP }>(from, to, count);
            } else if distance == 1 {
                to.write_bytes(from.read(), count);
            } else if distance >= count {
                to.copy_from_nonoverlapping(from, count);
            } else {
                // The output repeats itself, so each round can copy twice as much.
                let mut done = 0;
                let mut width = distance;
                while done < count {
                    let here = width.min(count - done);
                    to.add(done).copy_from_nonoverlapping(from, here);
                    done += here;
                    width += here;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(input: &[u8]) -> usize {
        let packed = compress(input, usize::MAX).expect("no limit");
        assert_eq!(decompress(&packed, input.len()).as_deref(), Ok(input));
        let mut again = b"what was there before".to_vec();
        assert_eq!(decompress_into(&packed, input.len(), &mut again), Ok(()));
        assert_eq!(again, input);
        let (mut at, mut parts) = (0, Vec::new());
        while !decompress_part(&packed, &mut at, input.len(), &mut parts).unwrap() {}
        assert_eq!(parts, input);
        packed.len()
    }

    fn noise(len: usize) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(7);
        (0..len).map(|_| rng.u8(..)).collect()
    }

    #[test]
    fn a_match_found_late_may_be_longer_than_a_copy() {
        // After so much noise the search takes steps longer than a copy.
        let mut rng = fastrand::Rng::with_seed(11);
        let input: Vec<u8> = (0..2_500_000).map(|_| rng.u8(..)).collect();
        for len in (400..8000).step_by(400) {
            let block: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
            there_and_back(&[&input[..], &block, &block, &block].concat());
        }
    }

    #[test]
    fn repetition_shrinks() {
        assert!(there_and_back(&[b'a'; 10_000]) < 200);
        assert!(there_and_back(&b"the quick brown fox ".repeat(100)) < 100);
        assert_eq!(compress(b"abcdefgh", 8), None);
        assert_eq!(compress(&[0; 100], 20).map(|packed| packed.len() <= 20), Some(true));
    }

    #[test]
    fn periods_of_every_length_shrink_wherever_the_string_ends() {
        for period in 1..45 {
            let text = noise(period).repeat(450 / period + 1);
            for len in 0..450 {
                let packed = there_and_back(&text[..len]);
                assert!(packed <= period + 12 + len.saturating_sub(period) / 80, "{packed} for {len} of {period}");
            }
        }
    }

    #[test]
    fn a_long_stream_is_decompressed_in_parts() {
        let input = [noise(100_000), noise(50_000), vec![b'x'; 3_000_000]].concat();
        there_and_back(&input);
        let packed = compress(&input, usize::MAX).unwrap();
        let (mut at, mut out, mut parts) = (0, Vec::new(), 0);
        while !decompress_part(&packed, &mut at, input.len(), &mut out).unwrap() {
            parts += 1;
            assert!(out.len() < parts * (2 << 20));
        }
        assert!(parts > 5, "{parts}");
        for len in [input.len() - 1, input.len() + 1] {
            let (mut at, mut out) = (0, Vec::new());
            let bad = (0..packed.len()).find_map(|_| decompress_part(&packed, &mut at, len, &mut out).err());
            assert_eq!(bad, Some(LzfError::BadLength));
        }
    }

    #[test]
    fn strings_know_nothing_of_those_before_them() {
        let text = noise(4000).repeat(3);
        let mut compressor = Compressor::new();
        let mut packed = |input: &[u8], base: Option<u32>| {
            compressor.base = base.unwrap_or(compressor.base);
            let mut out = b"kept".to_vec();
            assert!(compressor.compress_into(input, usize::MAX, &mut out));
            assert_eq!(decompress(&out[4..], input.len()).as_deref(), Ok(input));
            out.split_off(4)
        };
        let first = packed(&text, None);
        assert!(first.len() < text.len() / 2);
        // The same text again, within reach if positions did not count on; and where the count wraps.
        assert_eq!(packed(&text, None), first);
        for left in [0, 1, 4, 8192, 8193, 10_000, 20_191, 20_192, 20_193, 30_000] {
            assert_eq!(packed(&text, Some(u32::MAX - left)), first, "{left} left");
        }
    }

    #[test]
    fn what_does_not_shrink_leaves_nothing_behind() {
        let noise = noise(5000);
        for len in [1, 3, 20, 31, 32, 33, 100, 5000] {
            let mut out = b"kept".to_vec();
            assert!(!compress_into(&noise[..len], len.saturating_sub(4), &mut out), "{len}");
            assert_eq!(out, b"kept");
        }
        // Long noise does not hide what can be compressed after it.
        let then = [&noise[..], &[b'a'; 3000]].concat();
        assert!(there_and_back(&then) < 5300);
    }

    #[test]
    fn the_limit_is_kept_to_the_byte() {
        let input = b"abcabcabcabcabcabc-0123456789-abcabcabc-0123456789-".repeat(9);
        let len = there_and_back(&input);
        for limit in 0..len + 3 {
            assert_eq!(compress(&input, limit).map(|packed| packed.len()), (limit >= len).then_some(len), "{limit}");
        }
    }

    #[test]
    fn copies_of_every_distance_and_length_are_read() {
        let before: Vec<u8> = (0..40u8).collect();
        for distance in 1..=before.len() {
            for count in 3..300 {
                let mut stream = vec![31];
                stream.extend_from_slice(&before[..32]);
                stream.push(7);
                stream.extend_from_slice(&before[32..]);
                let mut left: usize = count;
                while left >= 3 {
                    let here = if left <= MAX_MATCH { left } else { MAX_MATCH - 3 };
                    match here - 2 {
                        code @ ..7 => stream.extend_from_slice(&[(code << 5) as u8, distance as u8 - 1]),
                        code => stream.extend_from_slice(&[7 << 5, (code - 7) as u8, distance as u8 - 1]),
                    }
                    left -= here;
                }
                let mut want = before.clone();
                for _ in 0..count - left {
                    want.push(want[want.len() - distance]);
                }
                let mut again = Vec::new();
                for spare in [0, 1, 40] {
                    again.reserve_exact(want.len() + spare);
                    assert_eq!(
                        decompress_into(&stream, want.len(), &mut again),
                        Ok(()),
                        "{count} from {distance} back"
                    );
                    assert_eq!(again, want);
                }
                assert_eq!(decompress(&stream, want.len()), Ok(want.clone()), "{count} from {distance} back");
                assert_eq!(decompress(&stream, want.len() - 1), Err(LzfError::BadLength));
                assert_eq!(decompress(&stream, want.len() + 1), Err(LzfError::BadLength));
            }
        }
    }

    #[test]
    fn a_stream_of_liblzf_is_read() {
        // "aaaaaaaaaaaaaaaaaaaa" as LibLZF 3.6 writes it: a literal, a copy of 18 from one back, a literal.
        let stream = [0x01, b'a', b'a', 0xe0, 0x07, 0x00, 0x01, b'a', b'a'];
        assert_eq!(decompress(&stream, 20), Ok(vec![b'a'; 20]));
    }

    #[test]
    fn broken_streams_are_refused() {
        assert_eq!(decompress(&[5, b'a'], 6), Err(LzfError::Truncated(0)));
        assert_eq!(decompress(&[0, b'a', 0x20], 5), Err(LzfError::Truncated(3)));
        assert_eq!(decompress(&[0, b'a', 0x20, 1], 4), Err(LzfError::BadDistance(2)));
        assert_eq!(decompress(&[0, b'a', 0x20, 0], 3), Err(LzfError::BadLength));
        assert_eq!(decompress(&[0, b'a'], 2), Err(LzfError::BadLength));
        assert_eq!(decompress(&[0, b'a'], usize::MAX), Err(LzfError::BadLength));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(input in any::<Vec<u8>>(), times in 1usize..20) {
            there_and_back(&input.repeat(times));
        }

        #[test]
        fn few_letters_come_back(input in "[ab]{0,2000}") {
            there_and_back(input.as_bytes());
        }

        #[test]
        fn no_stream_panics(stream in any::<Vec<u8>>(), len in 0usize..5_000) {
            let read = decompress(&stream, len);
            let mut again = Vec::new();
            prop_assert_eq!(decompress_into(&stream, len, &mut again).map(|()| again), read);
        }
    }
}
