//! Listpacks: rows of short strings and integers in one stretch of bytes, the format of small lists, hashes, sets, sorted
//! sets and stream nodes in RDB files, DUMP payloads and memory.
//!
//! Six bytes of header (length of the whole, 32 bits; number of elements, 16 bits, 65535 meaning "count them"), the
//! elements, and a byte 255. An element is an encoding byte that contains a short value, or is followed by the value;
//! then the length of both in 1 to 5 bytes that are read backwards:
//!
//! | encoding | element |
//! | --- | --- |
//! | `0xxxxxxx` | integer 0 to 127 |
//! | `10xxxxxx` | string of up to 63 bytes |
//! | `110xxxxx` + 1 | 13-bit integer |
//! | `1110xxxx` + 1 | string of up to 4095 bytes |
//! | `11110000` + 4 | longer string, its length little-endian |
//! | `1111nnnn` + 2, 3, 4, 8 | integer of 16, 24, 32 or 64 bits, little-endian (`nnnn` from 1 to 4) |
//!
//! (Source: the listpack specification by Salvatore Sanfilippo.) Text that reads as an integer is stored as one.
//!
//! Invariant: the bytes are always a valid listpack, so that walking it needs no checks beyond the slice's own; bytes
//! from outside enter through [`Listpack::from_bytes`] alone.

use std::fmt;
use std::hint::black_box;

use self::block::Block;
use super::entry::IntBuf;
use super::numbers::parse_i64;

mod block;
pub(crate) mod dense;
#[cfg(test)]
mod tests;

const HEADER_LEN: usize = 6;
const END: u8 = 0xff;
/// A count that says "count them".
const UNKNOWN_COUNT: u16 = u16::MAX;
/// Integers have at most this many characters.
const MAX_INT_LEN: usize = 20;
/// A listpack must not grow beyond this, bytes: its length field has 32 bits, and copying it should not take long.
pub(crate) const MAX_SAFE_LEN: usize = 1 << 30;

/// Why bytes are no listpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadListpack {
    /// Where, in bytes from the start.
    pub(crate) offset: usize,
    pub(crate) reason: &'static str,
}

impl fmt::Display for BadListpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "listpack: {} at byte {}", self.reason, self.offset)
    }
}

impl std::error::Error for BadListpack {}

/// An element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Item<'a> {
    Int(i64),
    Str(&'a [u8]),
}

impl<'a> Item<'a> {
    /// What `text` is stored as.
    pub(crate) fn of(text: &'a [u8]) -> Item<'a> {
        if text.len() <= MAX_INT_LEN
            && let Some(value) = parse_i64(text)
        {
            return Item::Int(value);
        }
        Item::Str(text)
    }

    /// The element's text; an integer's is written to `int`.
    pub(crate) fn bytes<'b>(&self, int: &'b mut IntBuf) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Item::Int(value) => int.format(*value),
            Item::Str(bytes) => bytes,
        }
    }

    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.bytes(&mut IntBuf::new()).to_vec()
    }

    /// The length of the element's text.
    pub(crate) fn text_len(&self) -> usize {
        self.bytes(&mut IntBuf::new()).len()
    }

    /// Whether the element's text is `text`.
    pub(crate) fn is(&self, text: &[u8]) -> bool {
        match self {
            Item::Str(bytes) => *bytes == text,
            Item::Int(_) => *self == Item::of(text),
        }
    }

    /// The element as an integer, if its text is one.
    pub(crate) fn as_i64(&self) -> Option<i64> {
        match self {
            Item::Int(value) => Some(*value),
            Item::Str(bytes) => parse_i64(bytes),
        }
    }

    /// For short text: the byte before it in a listpack, the text, and the byte after it.
    #[inline]
    fn short_parts(&self) -> Option<(u8, &'a [u8], u8)> {
        match *self {
            Item::Str(text) if text.len() < 64 => Some((0x80 | text.len() as u8, text, text.len() as u8 + 1)),
            _ => None,
        }
    }

    /// Bytes that the element takes in a listpack.
    #[inline]
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Item::Str(text) if text.len() < 64 => text.len() + 2,
            _ => self.long_encoded_len(),
        }
    }

    fn long_encoded_len(&self) -> usize {
        let len = self.encode_head(&mut [0; 9]) + self.body().len();
        len + back_len_len(len)
    }

    fn body(&self) -> &'a [u8] {
        match self {
            Item::Int(_) => &[],
            Item::Str(bytes) => bytes,
        }
    }

    /// Writes all but a string's bytes and the length after them. Returns how many bytes it wrote.
    fn encode_head(&self, head: &mut [u8; 9]) -> usize {
        match *self {
            Item::Str(bytes) => match bytes.len() {
                len @ 0..64 => {
                    head[0] = 0x80 | len as u8;
                    1
                }
                len @ 64..4096 => {
                    head[0] = 0xe0 | (len >> 8) as u8;
                    head[1] = len as u8;
                    2
                }
                len => {
                    let len = u32::try_from(len).expect("an element below 4 GiB");
                    head[0] = 0xf0;
                    head[1..5].copy_from_slice(&len.to_le_bytes());
                    5
                }
            },
            Item::Int(value @ 0..128) => {
                head[0] = value as u8;
                1
            }
            Item::Int(value @ -4096..4096) => {
                head[0] = 0xc0 | (value >> 8 & 0x1f) as u8;
                head[1] = value as u8;
                2
            }
            Item::Int(value) => {
                let (code, len) = match value {
                    -0x8000..0x8000 => (0xf1, 2),
                    -0x80_0000..0x80_0000 => (0xf2, 3),
                    -0x8000_0000..0x8000_0000 => (0xf3, 4),
                    _ => (0xf4, 8),
                };
                head[0] = code;
                head[1..=len].copy_from_slice(&value.to_le_bytes()[..len]);
                1 + len
            }
        }
    }

    #[inline]
    fn encode(&self) -> Encoded<'a> {
        let mut encoded = Encoded { head: [0; 9], head_len: 0, body: self.body(), back: [0; 5], back_len: 0 };
        encoded.head_len = self.encode_head(&mut encoded.head);
        let len = encoded.head_len + encoded.body.len();
        encoded.back_len = back_len_len(len);
        write_back_len(&mut encoded.back[..encoded.back_len], len);
        encoded
    }
}

/// An element as it lies in a listpack, in three parts.
struct Encoded<'a> {
    head: [u8; 9],
    head_len: usize,
    /// A string's bytes.
    body: &'a [u8],
    /// The length of head and body.
    back: [u8; 5],
    back_len: usize,
}

impl Encoded<'_> {
    #[inline]
    fn parts(&self) -> [&[u8]; 3] {
        [&self.head[..self.head_len], self.body, &self.back[..self.back_len]]
    }
}

fn back_len_len(len: usize) -> usize {
    match len {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

/// Writes seven bits a byte, the highest first, all but the first byte marked: a reader coming from the end goes on
/// while the mark is there.
fn write_back_len(out: &mut [u8], len: usize) {
    if let [short] = out {
        *short = len as u8;
        return;
    }
    for (i, byte) in out.iter_mut().rev().enumerate() {
        *byte = (len >> (7 * i)) as u8 & 0x7f | 0x80;
    }
    out[0] &= 0x7f;
}

/// Reads the length that ends before `end`: the length, and how many bytes it takes.
fn read_back_len(bytes: &[u8], end: usize) -> Option<(usize, usize)> {
    let mut len = 0;
    for i in 0..5 {
        let byte = *bytes.get(end.checked_sub(i + 1)?)?;
        len |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((len, i + 1));
        }
    }
    None
}

/// For each encoding byte, the length of encoding and value if the byte alone gives it; else 0. Each of these lengths
/// takes one byte at the end of its element.
const SHORT_LEN: [u8; 256] = {
    let mut lens = [0; 256];
    let mut first = 0;
    while first < 256 {
        lens[first] = match first {
            0..=0x7f => 1,
            0x80..=0xbf => 1 + (first as u8 & 0x3f),
            0xc0..=0xdf => 2,
            0xf1 => 3,
            0xf2 => 4,
            0xf3 => 5,
            0xf4 => 9,
            _ => 0,
        };
        first += 1;
    }
    lens
};

/// Looks up lengths of successive elements. Most have the length of the one before: while they do, the processor goes
/// on to the next ones without waiting for the table.
struct ShortLens {
    first: u8,
    len: usize,
}

impl ShortLens {
    fn new() -> ShortLens {
        ShortLens { first: 0, len: usize::from(SHORT_LEN[0]) }
    }

    /// The entry of [`SHORT_LEN`] for an encoding byte.
    #[inline(always)]
    fn of(&mut self, first: u8) -> usize {
        if first != self.first {
            // Opaque, so that the compiler keeps the branch.
            *self = ShortLens { first: black_box(first), len: usize::from(SHORT_LEN[usize::from(first)]) };
        }
        self.len
    }
}

/// The integer in the lower five bits of one byte and in the next one. The highest bit is the sign.
#[inline(always)]
fn int_of_13_bits(first: u8, low: u8) -> i64 {
    let value = i16::from(first & 0x1f) << 8 | i16::from(low);
    i64::from(value << 3 >> 3)
}

/// Reads the element at `at`: the element, and the length of encoding and value.
fn read_item(bytes: &[u8], at: usize) -> Option<(Item<'_>, usize)> {
    let rest = bytes.get(at..)?;
    let int = |len: usize| -> Option<(Item<'_>, usize)> {
        let bytes = rest.get(1..=len)?;
        let mut wide = if bytes[len - 1] & 0x80 == 0 { [0; 8] } else { [0xff; 8] };
        wide[..len].copy_from_slice(bytes);
        Some((Item::Int(i64::from_le_bytes(wide)), 1 + len))
    };
    let string = |head: usize, len: usize| -> Option<(Item<'_>, usize)> {
        Some((Item::Str(rest.get(head..head.checked_add(len)?)?), head + len))
    };
    match *rest {
        [first @ 0..=0x7f, ..] => Some((Item::Int(i64::from(first)), 1)),
        [first @ 0x80..=0xbf, ..] => string(1, usize::from(first & 0x3f)),
        [first @ 0xc0..=0xdf, low, ..] => Some((Item::Int(int_of_13_bits(first, low)), 2)),
        [first @ 0xe0..=0xef, low, ..] => string(2, usize::from(first & 0x0f) << 8 | usize::from(low)),
        [0xf0, a, b, c, d, ..] => string(5, u32::from_le_bytes([a, b, c, d]) as usize),
        [0xf1, ..] => int(2),
        [0xf2, ..] => int(3),
        [0xf3, ..] => int(4),
        [0xf4, ..] => int(8),
        _ => None,
    }
}

/// The place of an element. Any change of the listpack before it makes it stale; a stale place gives another element or
/// panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos(usize);

/// Reads the element at a place: the element, and where the next one is.
#[inline]
fn parse(bytes: &[u8], at: usize) -> (Item<'_>, usize) {
    // Most elements are short strings, whose length takes one byte on either side, or small integers.
    if let Some(first @ 0x80..=0xbf) = bytes.get(at)
        && let Some(text) = bytes.get(at + 1..).and_then(|rest| rest.get(..usize::from(first & 0x3f)))
    {
        return (Item::Str(text), at + text.len() + 2);
    }
    match bytes.get(at) {
        Some(small @ 0..=0x7f) => (Item::Int(i64::from(*small)), at + 2),
        _ => parse_any(bytes, at),
    }
}

fn parse_any(bytes: &[u8], at: usize) -> (Item<'_>, usize) {
    match bytes[at..] {
        [first @ 0xc0..=0xdf, low, ..] => return (Item::Int(int_of_13_bits(first, low)), at + 3),
        [0xf1, low, high, ..] => return (Item::Int(i64::from(i16::from_le_bytes([low, high]))), at + 4),
        _ => {}
    }
    let (item, len) = read_item(&bytes[..bytes.len() - 1], at).expect("a place holds an element");
    (item, at + len + back_len_len(len))
}

/// Where the element that ends at a place begins.
fn before(bytes: &[u8], at: usize) -> usize {
    let (len, own) = read_back_len(bytes, at).expect("an element ends with its length");
    at - own - len
}

/// A row of elements. See the file's head.
///
/// One pointer large; an empty one that never had an element takes no other memory.
#[derive(Clone)]
pub struct Listpack {
    block: Block,
}

impl PartialEq for Listpack {
    fn eq(&self, other: &Listpack) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Listpack {}

impl Default for Listpack {
    fn default() -> Listpack {
        Listpack::new()
    }
}

impl fmt::Debug for Listpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Listpack {
    pub fn new() -> Listpack {
        Listpack { block: Block::empty() }
    }

    /// An empty listpack with room for `elements` bytes of encoded elements.
    pub(crate) fn with_capacity(elements: usize) -> Listpack {
        match elements {
            0 => Listpack::new(),
            _ => Listpack { block: Block::with_room(HEADER_LEN + elements + 1) },
        }
    }

    /// Takes over bytes from outside after checking them all.
    #[cfg(test)]
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Result<Listpack, BadListpack> {
        Listpack::from_bytes_or_back(bytes).map_err(|(bad, _)| bad)
    }

    /// As [`Self::from_bytes`]; returns the bytes with the error.
    pub(crate) fn from_bytes_or_back(bytes: Vec<u8>) -> Result<Listpack, (BadListpack, Vec<u8>)> {
        match Listpack::check(&bytes) {
            Ok(()) => Ok(Listpack { block: Block::from_vec(bytes) }),
            Err(bad) => Err((bad, bytes)),
        }
    }

    /// Whether bytes begin and end like a listpack with elements; what is in between is not checked.
    pub(crate) fn is_framed(bytes: &[u8]) -> bool {
        Listpack::check_frame(bytes).is_ok() && bytes[4..HEADER_LEN] != [0, 0]
    }

    fn check_frame(bytes: &[u8]) -> Result<(), BadListpack> {
        let bad = |offset, reason| Err(BadListpack { offset, reason });
        if bytes.len() < HEADER_LEN + 1 {
            return bad(0, "too short");
        }
        let total = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if total as usize != bytes.len() {
            return bad(0, "another length than its header says");
        }
        let end = bytes.len() - 1;
        if bytes[end] != END {
            return bad(end, "no end mark");
        }
        Ok(())
    }

    fn check(bytes: &[u8]) -> Result<(), BadListpack> {
        Listpack::check_frame(bytes)?;
        let bad = |offset, reason| Err(BadListpack { offset, reason });
        let end = bytes.len() - 1;
        let mut at = HEADER_LEN;
        let mut count = 0usize;
        let mut lens = ShortLens::new();
        while at < end {
            let first = bytes[at];
            // Between strings of one length there are small integers as a rule, whose length is known beforehand.
            if first < 0x80 && at + 1 < end && bytes[at + 1] == 1 {
                count += 1;
                at += 2;
                continue;
            }
            let short = lens.of(first);
            if short != 0 && at + short < end && usize::from(bytes[at + short]) == short {
                count += 1;
                at += short + 1;
                continue;
            }
            let Some((_, len)) = read_item(&bytes[..end], at) else {
                return bad(at, "broken element");
            };
            let next = at + len + back_len_len(len);
            if next > end || read_back_len(&bytes[..next], next) != Some((len, back_len_len(len))) {
                return bad(at + len, "wrong length behind an element");
            }
            count += 1;
            at = next;
        }
        let claimed = u16::from_le_bytes([bytes[4], bytes[5]]);
        if claimed != UNKNOWN_COUNT && usize::from(claimed) != count {
            return bad(4, "another number of elements than its header says");
        }
        Ok(())
    }

    /// As [`Self::from_bytes_or_back`], of pairs of a short element and a small integer, ordered by the integers and then by the
    /// elements' texts: one walk checks both. Bytes that are anything else, or broken, come back.
    pub(crate) fn from_pairs_in_order(bytes: Vec<u8>) -> Result<Listpack, Vec<u8>> {
        if Listpack::check_frame(&bytes).is_ok() && Listpack::are_pairs_in_order(&bytes) {
            Ok(Listpack { block: Block::from_vec(bytes) })
        } else {
            Err(bytes)
        }
    }

    /// Of bytes with a right frame.
    fn are_pairs_in_order(bytes: &[u8]) -> bool {
        let end = bytes.len() - 1;
        let mut at = HEADER_LEN;
        let mut count = 0usize;
        // Where the element before stands, and its integer.
        let mut last = None;
        while at < end {
            let (place, first) = (at, bytes[at]);
            // Worked out rather than looked up where it is a string: the next place waits for this.
            let short = match first {
                0x80..=0xbf => 1 + usize::from(first & 0x3f),
                _ => usize::from(SHORT_LEN[usize::from(first)]),
            };
            at += short + 1;
            if short == 0 || at + 1 >= end || usize::from(bytes[at - 1]) != short {
                return false;
            }
            let (int, int_len) = match bytes[at..end] {
                [small @ 0..=0x7f, 1, ..] => (i64::from(small), 1),
                [first @ 0xc0..=0xdf, low, 2, ..] => (int_of_13_bits(first, low), 2),
                [0xf1, low, high, 3, ..] => (i64::from(i16::from_le_bytes([low, high])), 3),
                _ => return false,
            };
            at += int_len + 1;
            count += 2;
            if let Some((last_place, last_int)) = last.replace((place, int))
                && (int < last_int || int == last_int && !Listpack::is_text_before(bytes, last_place, place))
            {
                return false;
            }
        }
        let claimed = u16::from_le_bytes([bytes[4], bytes[5]]);
        claimed == UNKNOWN_COUNT || usize::from(claimed) == count
    }

    /// Whether the text of the element at `a` is less than that of the one at `b`, or the same.
    fn is_text_before(bytes: &[u8], a: usize, b: usize) -> bool {
        parse(bytes, a).0.bytes(&mut IntBuf::new()) <= parse(bytes, b).0.bytes(&mut IntBuf::new())
    }

    /// Takes bytes that `into_bytes` or `as_bytes` returned.
    pub(super) fn from_own_bytes(bytes: Vec<u8>) -> Listpack {
        debug_assert_eq!(Listpack::check(&bytes), Ok(()));
        Listpack { block: Block::from_vec(bytes) }
    }

    #[inline]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.block.bytes()
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.block.into_vec()
    }

    /// The length in bytes, header and end included.
    pub fn total_bytes(&self) -> usize {
        self.block.len()
    }

    /// Bytes allocated.
    pub(crate) fn capacity(&self) -> usize {
        self.block.capacity()
    }

    /// Frees memory that is not in use.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.block.shrink();
    }

    /// Whether `additional` more bytes of elements keep it within [`MAX_SAFE_LEN`].
    pub(crate) fn safe_to_add(&self, additional: usize) -> bool {
        self.total_bytes().saturating_add(additional) <= MAX_SAFE_LEN
    }

    fn count_field(&self) -> u16 {
        let bytes = self.as_bytes();
        u16::from_le_bytes([bytes[4], bytes[5]])
    }

    /// The number of elements; beyond 65534 it walks over all of them.
    pub(crate) fn len(&self) -> usize {
        match self.count_field() {
            UNKNOWN_COUNT => self.iter().count(),
            count => usize::from(count),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.total_bytes() == HEADER_LEN + 1
    }

    /// The end mark's place.
    fn end(&self) -> usize {
        self.total_bytes() - 1
    }

    /// The place after an element.
    fn behind(&self, pos: Pos) -> usize {
        parse(self.as_bytes(), pos.0).1
    }

    pub(crate) fn first(&self) -> Option<Pos> {
        (!self.is_empty()).then_some(Pos(HEADER_LEN))
    }

    pub(crate) fn last(&self) -> Option<Pos> {
        (!self.is_empty()).then(|| Pos(before(self.as_bytes(), self.end())))
    }

    pub(crate) fn next(&self, pos: Pos) -> Option<Pos> {
        let next = self.behind(pos);
        (next < self.end()).then_some(Pos(next))
    }

    pub(crate) fn prev(&self, pos: Pos) -> Option<Pos> {
        (pos.0 > HEADER_LEN).then(|| Pos(before(self.as_bytes(), pos.0)))
    }

    pub(crate) fn get(&self, pos: Pos) -> Item<'_> {
        parse(self.as_bytes(), pos.0).0
    }

    /// The place of an index; negative ones count from the end, -1 being the last. Walks from the nearer end.
    pub(crate) fn seek(&self, index: i64) -> Option<Pos> {
        let (mut from_end, mut steps) =
            if index < 0 { (true, index.unsigned_abs() - 1) } else { (false, index.unsigned_abs()) };
        if self.count_field() != UNKNOWN_COUNT {
            let len = self.len() as u64;
            if steps >= len {
                return None;
            }
            if steps > len / 2 {
                from_end = !from_end;
                steps = len - 1 - steps;
            }
        }
        let mut pos = if from_end { self.last()? } else { self.first()? };
        for _ in 0..steps {
            pos = if from_end { self.prev(pos)? } else { self.next(pos)? };
        }
        Some(pos)
    }

    /// All elements, from either end.
    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter { bytes: self.as_bytes(), front: HEADER_LEN, back: self.end() }
    }

    /// The elements from a place on.
    pub(crate) fn iter_from(&self, pos: Pos) -> Iter<'_> {
        Iter { bytes: self.as_bytes(), front: pos.0, back: self.end() }
    }

    /// The elements up to a place, that one included.
    pub(crate) fn iter_to(&self, pos: Pos) -> Iter<'_> {
        Iter { bytes: self.as_bytes(), front: HEADER_LEN, back: self.behind(pos) }
    }

    /// The first element from `from` on whose text is `text`; after each element `skip` are skipped (1: looks only at
    /// the fields of field-value pairs).
    pub(crate) fn find(&self, from: Pos, text: &[u8], skip: usize) -> Option<Pos> {
        let wanted = Item::of(text);
        let bytes = self.as_bytes();
        let end = bytes.len() - 1;
        let mut at = from.0;
        let mut skipping = 0;
        while at < end {
            let (item, next) = parse(bytes, at);
            if skipping > 0 {
                skipping -= 1;
            } else {
                // An integer may be stored as a string in bytes from outside.
                if item == wanted || (matches!(item, Item::Str(_)) && item.is(text)) {
                    return Some(Pos(at));
                }
                skipping = skip;
            }
            at = next;
        }
        None
    }

    /// Puts `parts` in place of the bytes `from..to`, which hold `removed` elements, with `added` in `parts`.
    #[inline]
    fn splice(&mut self, from: usize, to: usize, parts: [&[u8]; 3], removed: usize, added: usize) {
        self.block.splice(from, to, parts);
        if removed != added && self.count_field() != UNKNOWN_COUNT {
            let count = usize::from(self.count_field()) - removed + added;
            let count = u16::try_from(count).unwrap_or(UNKNOWN_COUNT);
            self.block.write(4, &count.to_le_bytes());
        }
    }

    #[inline]
    fn insert_at(&mut self, at: usize, item: Item<'_>) -> Pos {
        self.splice(at, at, item.encode().parts(), 0, 1);
        Pos(at)
    }

    /// Adds an element at the end.
    pub fn push_back(&mut self, text: &[u8]) -> Pos {
        self.push_item(Item::of(text))
    }

    /// Adds an element at the beginning.
    pub(crate) fn push_front(&mut self, text: &[u8]) -> Pos {
        self.push_item_front(Item::of(text))
    }

    /// Adds an element of a known kind at the end; text that reads as an integer should be passed as one.
    pub(crate) fn push_item(&mut self, item: Item<'_>) -> Pos {
        let end = self.end();
        if let Some(parts) = item.short_parts()
            && self.block.add_back(parts, END)
        {
            self.count_one_more();
            return Pos(end);
        }
        self.insert_at(end, item)
    }

    /// As [`Self::push_item`], at the beginning.
    pub(crate) fn push_item_front(&mut self, item: Item<'_>) -> Pos {
        if let Some(parts) = item.short_parts()
            && self.block.add_front::<HEADER_LEN>(parts)
        {
            self.count_one_more();
            return Pos(HEADER_LEN);
        }
        self.insert_at(HEADER_LEN, item)
    }

    fn count_one_more(&mut self) {
        // The count saturates at the value for "unknown".
        self.block.write(4, &self.count_field().saturating_add(1).to_le_bytes());
    }

    fn count_one_less(&mut self) {
        let count = self.count_field();
        if count != UNKNOWN_COUNT {
            self.block.write(4, &(count - 1).to_le_bytes());
        }
    }

    /// Adds elements of a known kind at the end.
    pub(crate) fn push_items<'a>(&mut self, items: impl IntoIterator<Item = Item<'a>>) {
        for item in items {
            self.push_item(item);
        }
    }

    /// Adds an integer at the end.
    pub(crate) fn push_int(&mut self, value: i64) -> Pos {
        self.insert_at(self.end(), Item::Int(value))
    }

    /// Adds an element before another. Returns the place of the new one.
    pub(crate) fn insert_before(&mut self, pos: Pos, text: &[u8]) -> Pos {
        self.insert_at(pos.0, Item::of(text))
    }

    /// Adds an element after another. Returns the place of the new one.
    pub(crate) fn insert_after(&mut self, pos: Pos, text: &[u8]) -> Pos {
        self.insert_at(self.behind(pos), Item::of(text))
    }

    /// Replaces an element; its place stays the same.
    pub(crate) fn replace(&mut self, pos: Pos, text: &[u8]) {
        self.replace_item(pos, Item::of(text));
    }

    /// As [`Self::replace`] with an integer.
    pub(crate) fn replace_int(&mut self, pos: Pos, value: i64) {
        self.replace_item(pos, Item::Int(value));
    }

    fn replace_item(&mut self, pos: Pos, item: Item<'_>) {
        self.splice(pos.0, self.behind(pos), item.encode().parts(), 1, 1);
    }

    /// Removes the last element and calls `f` with it.
    #[inline]
    pub(crate) fn pop_back<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let pos = self.last()?;
        let shown = f(self.get(pos));
        self.block.cut_back(pos.0, END);
        self.count_one_less();
        Some(shown)
    }

    /// Removes the first element and calls `f` with it.
    #[inline]
    pub(crate) fn pop_front<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let pos = self.first()?;
        let (item, next) = parse(self.as_bytes(), pos.0);
        let shown = f(item);
        if self.block.cut_front::<HEADER_LEN>(next - pos.0) {
            self.count_one_less();
        } else {
            self.splice(pos.0, next, [&[]; 3], 1, 0);
        }
        Some(shown)
    }

    /// Removes an element. Returns the place of the one after it.
    pub(crate) fn remove(&mut self, pos: Pos) -> Option<Pos> {
        self.remove_run(pos, 1)
    }

    /// Removes up to `count` elements from a place on. Returns the place of the one after them.
    pub(crate) fn remove_run(&mut self, pos: Pos, count: usize) -> Option<Pos> {
        let mut to = pos.0;
        let mut removed = 0;
        while removed < count && to < self.end() {
            to = self.behind(Pos(to));
            removed += 1;
        }
        self.splice(pos.0, to, [&[]; 3], removed, 0);
        (pos.0 < self.end()).then_some(pos)
    }

    /// Removes up to `count` elements from an index on (negative: from the end). Returns how many.
    pub(crate) fn remove_range(&mut self, index: i64, count: usize) -> usize {
        let Some(pos) = self.seek(index) else {
            return 0;
        };
        let before = self.len();
        self.remove_run(pos, count);
        before - self.len()
    }

    /// Adds all elements of another listpack at the end.
    pub(crate) fn append(&mut self, other: &Listpack) {
        let elements = &other.as_bytes()[HEADER_LEN..other.end()];
        let end = self.end();
        self.splice(end, end, [elements, &[], &[]], 0, other.len());
    }

    /// Asserts that the bytes are a valid listpack and that the record of their memory is right.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.block.check_invariants();
        if let Err(bad) = Listpack::check(self.as_bytes()) {
            panic!("{bad}");
        }
    }
}

/// The elements of a listpack.
#[derive(Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    front: usize,
    back: usize,
}

impl Iter<'_> {
    /// The place of the element that comes next from the front.
    pub(crate) fn place(&self) -> Option<Pos> {
        (self.front < self.back).then_some(Pos(self.front))
    }

    /// Whether no element is left.
    pub(crate) fn is_over(&self) -> bool {
        self.front >= self.back
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if self.front >= self.back {
            return None;
        }
        let (item, next) = parse(self.bytes, self.front);
        self.front = next;
        Some(item)
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    fn next_back(&mut self) -> Option<Item<'a>> {
        if self.front >= self.back {
            return None;
        }
        self.back = before(self.bytes, self.back);
        Some(parse(self.bytes, self.back).0)
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = Item<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
