//! Listpacks: rows of short strings and integers in one stretch of bytes, the format of small lists, hashes, sets, sorted
//! sets and stream nodes in RDB files, DUMP payloads and memory.
//!
//! Six bytes of header (length of the whole, 32 bits; number of elements, 16 bits, 65535 meaning "count them"), the
//! elements, and a byte 255. An element is an encoding byte with a short value in it, or followed by one, then the
//! length of all that once more in 1 to 5 bytes that are read backwards:
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

use super::entry::IntBuf;
use super::numbers::parse_i64;
use super::size_class;

#[cfg(test)]
mod tests;

const HEADER_LEN: usize = 6;
const END: u8 = 0xff;
/// A count that says "count them".
const UNKNOWN_COUNT: u16 = u16::MAX;
/// Up to this length, bytes, a listpack grows by the allocator's size classes.
const SMALL_LEN: usize = 2048;
/// Integers have at most this many characters.
const MAX_INT_LEN: usize = 20;
/// A listpack must not grow beyond this: its length field is 32 bits wide, and copying it should stay bearable.
pub const MAX_SAFE_LEN: usize = 1 << 30;

/// Why bytes are no listpack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadListpack {
    /// Where, in bytes from the beginning.
    pub offset: usize,
    pub reason: &'static str,
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
    pub fn of(text: &'a [u8]) -> Item<'a> {
        if text.len() <= MAX_INT_LEN
            && let Some(value) = parse_i64(text)
        {
            return Item::Int(value);
        }
        Item::Str(text)
    }

    /// The element's text; an integer's is written to `int`.
    pub fn bytes<'b>(&self, int: &'b mut IntBuf) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Item::Int(value) => int.format(*value),
            Item::Str(bytes) => bytes,
        }
    }

    pub fn to_vec(&self) -> Vec<u8> {
        self.bytes(&mut IntBuf::new()).to_vec()
    }

    /// The length of the element's text.
    pub fn text_len(&self) -> usize {
        self.bytes(&mut IntBuf::new()).len()
    }

    /// Whether the element's text is `text`.
    pub fn is(&self, text: &[u8]) -> bool {
        match self {
            Item::Str(bytes) => *bytes == text,
            Item::Int(_) => *self == Item::of(text),
        }
    }

    /// The element as an integer, if its text is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Item::Int(value) => Some(*value),
            Item::Str(bytes) => parse_i64(bytes),
        }
    }

    /// Bytes that the element takes in a listpack.
    pub fn encoded_len(&self) -> usize {
        let mut head = [0; 9];
        let len = self.encode_head(&mut head) + self.body().len();
        len + back_len_len(len)
    }

    fn body(&self) -> &'a [u8] {
        match self {
            Item::Int(_) => &[],
            Item::Str(bytes) => bytes,
        }
    }

    /// Writes all but a string's bytes and the length behind. Returns how many bytes it wrote.
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

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        let mut head = [0; 9];
        let len = self.encode_head(&mut head);
        out.extend_from_slice(&head[..len]);
        out.extend_from_slice(self.body());
        push_back_len(out, out.len() - start);
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

/// Seven bits a byte, the highest first, all but the first byte marked: whoever comes from behind reads on while the
/// mark is there.
fn push_back_len(out: &mut Vec<u8>, len: usize) {
    let bytes = back_len_len(len);
    for i in (0..bytes).rev() {
        let mark = if i + 1 == bytes { 0 } else { 0x80 };
        out.push((len >> (7 * i)) as u8 & 0x7f | mark);
    }
}

/// Reads the length that ends before `end`: it, and how many bytes it takes itself.
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

/// Reads the element at `at`: it, and the length of encoding and value.
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
        [first @ 0xc0..=0xdf, low, ..] => {
            let value = i16::from(first & 0x1f) << 8 | i16::from(low);
            // Bit 12 is the sign.
            Some((Item::Int(i64::from(value << 3 >> 3)), 2))
        }
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

/// A row of elements. See the file's head.
#[derive(Clone, PartialEq, Eq)]
pub struct Listpack {
    bytes: Vec<u8>,
}

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
        Listpack::with_capacity(0)
    }

    /// An empty listpack with room for `elements` bytes of encoded elements.
    pub fn with_capacity(elements: usize) -> Listpack {
        let mut bytes = Vec::with_capacity(HEADER_LEN + elements + 1);
        bytes.extend_from_slice(&[HEADER_LEN as u8 + 1, 0, 0, 0, 0, 0, END]);
        Listpack { bytes }
    }

    /// Takes over bytes from outside after checking all of them.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Listpack, BadListpack> {
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
        let mut at = HEADER_LEN;
        let mut count = 0usize;
        while at < end {
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
        Ok(Listpack { bytes })
    }

    /// Takes back bytes that `into_bytes` or `as_bytes` gave.
    pub(super) fn from_own_bytes(bytes: Vec<u8>) -> Listpack {
        debug_assert!(Listpack::from_bytes(bytes.clone()).is_ok());
        Listpack { bytes }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The length in bytes, header and end included.
    pub fn total_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes allocated.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// Gives back memory that is not in use.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Whether `additional` more bytes of elements keep it within [`MAX_SAFE_LEN`].
    pub fn safe_to_add(&self, additional: usize) -> bool {
        self.bytes.len().saturating_add(additional) <= MAX_SAFE_LEN
    }

    fn count_field(&self) -> u16 {
        u16::from_le_bytes([self.bytes[4], self.bytes[5]])
    }

    /// The number of elements; beyond 65534 it walks over all of them.
    pub fn len(&self) -> usize {
        match self.count_field() {
            UNKNOWN_COUNT => self.iter().count(),
            count => usize::from(count),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_LEN + 1
    }

    /// The end mark's place.
    fn end(&self) -> usize {
        self.bytes.len() - 1
    }

    #[inline]
    fn parse(&self, at: usize) -> (Item<'_>, usize) {
        // Most elements are short strings, whose length takes one byte on either side.
        if let Some(first @ 0x80..=0xbf) = self.bytes.get(at)
            && let Some(text) = self.bytes.get(at + 1..).and_then(|rest| rest.get(..usize::from(first & 0x3f)))
        {
            return (Item::Str(text), at + text.len() + 2);
        }
        self.parse_any(at)
    }

    fn parse_any(&self, at: usize) -> (Item<'_>, usize) {
        let (item, len) = read_item(&self.bytes[..self.end()], at).expect("a place holds an element");
        (item, at + len + back_len_len(len))
    }

    fn before(&self, at: usize) -> usize {
        let (len, own) = read_back_len(&self.bytes, at).expect("an element ends with its length");
        at - own - len
    }

    pub fn first(&self) -> Option<Pos> {
        (!self.is_empty()).then_some(Pos(HEADER_LEN))
    }

    pub fn last(&self) -> Option<Pos> {
        (!self.is_empty()).then(|| Pos(self.before(self.end())))
    }

    pub fn next(&self, pos: Pos) -> Option<Pos> {
        let next = self.parse(pos.0).1;
        (next < self.end()).then_some(Pos(next))
    }

    pub fn prev(&self, pos: Pos) -> Option<Pos> {
        (pos.0 > HEADER_LEN).then(|| Pos(self.before(pos.0)))
    }

    pub fn get(&self, pos: Pos) -> Item<'_> {
        self.parse(pos.0).0
    }

    /// The place of an index; negative ones count from the end, -1 being the last. Walks from the nearer end.
    pub fn seek(&self, index: i64) -> Option<Pos> {
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
    pub fn iter(&self) -> Iter<'_> {
        Iter { list: self, front: HEADER_LEN, back: self.end() }
    }

    /// The elements from a place on.
    pub fn iter_from(&self, pos: Pos) -> Iter<'_> {
        Iter { list: self, front: pos.0, back: self.end() }
    }

    /// The elements up to a place, that one included.
    pub fn iter_to(&self, pos: Pos) -> Iter<'_> {
        Iter { list: self, front: HEADER_LEN, back: self.parse(pos.0).1 }
    }

    /// The first element from `from` on whose text is `text`, looking at one element, then skipping `skip` (1 to look
    /// at the fields of field-value pairs only).
    pub fn find(&self, from: Pos, text: &[u8], skip: usize) -> Option<Pos> {
        let wanted = Item::of(text);
        let end = self.end();
        let mut at = from.0;
        let mut skipping = 0;
        while at < end {
            let (item, next) = self.parse(at);
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

    /// Makes room for `added` more bytes. A small listpack, of which there may be very many, takes no more memory than the
    /// allocator would give it anyway; a larger one grows by doubling.
    fn make_room(&mut self, added: usize) {
        let len = self.bytes.len();
        if self.bytes.capacity() - len >= added {
            return;
        }
        let wanted = len + added;
        if wanted <= SMALL_LEN {
            self.bytes.reserve_exact(size_class(wanted) - len);
        } else {
            self.bytes.reserve(added);
        }
    }

    /// Puts `new` in place of the bytes `from..to`, which hold `removed` elements, with `added` in `new`.
    fn splice(&mut self, from: usize, to: usize, new: &[u8], removed: usize, added: usize) {
        let total = self.bytes.len() - (to - from) + new.len();
        let total = u32::try_from(total).expect("a listpack below 4 GiB");
        if from == to && new.is_empty() {
            // Only the header is to follow what was written already.
        } else if from == to {
            // Opening a gap by hand: `splice` of a vector does not reserve in steps.
            self.make_room(new.len());
            let old_len = self.bytes.len();
            self.bytes.resize(old_len + new.len(), 0);
            self.bytes.copy_within(from..old_len, from + new.len());
            self.bytes[from..from + new.len()].copy_from_slice(new);
        } else {
            self.bytes.splice(from..to, new.iter().copied());
        }
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
        if self.count_field() != UNKNOWN_COUNT {
            let count = usize::from(self.count_field()) - removed + added;
            let count = u16::try_from(count).unwrap_or(UNKNOWN_COUNT);
            self.bytes[4..6].copy_from_slice(&count.to_le_bytes());
        }
    }

    fn insert_at(&mut self, at: usize, item: Item<'_>) -> Pos {
        if at == self.end() {
            // At the end, where most go, the element is written in place.
            self.make_room(item.encoded_len());
            self.bytes.pop();
            item.encode(&mut self.bytes);
            self.bytes.push(END);
            let end = self.bytes.len();
            self.splice(end, end, &[], 0, 1);
        } else {
            let mut new = Vec::with_capacity(item.encoded_len());
            item.encode(&mut new);
            self.splice(at, at, &new, 0, 1);
        }
        Pos(at)
    }

    /// Adds an element at the end.
    pub fn push_back(&mut self, text: &[u8]) -> Pos {
        self.insert_at(self.end(), Item::of(text))
    }

    /// Adds an element at the beginning.
    pub fn push_front(&mut self, text: &[u8]) -> Pos {
        self.insert_at(HEADER_LEN, Item::of(text))
    }

    /// Adds an element of a known kind at the end; text that reads as an integer should come as one.
    pub fn push_item(&mut self, item: Item<'_>) -> Pos {
        self.insert_at(self.end(), item)
    }

    /// Adds elements of a known kind at the end, all in one go.
    pub fn push_items<'a>(&mut self, items: impl IntoIterator<Item = Item<'a>>) {
        self.bytes.pop();
        let mut added = 0;
        for item in items {
            item.encode(&mut self.bytes);
            added += 1;
        }
        self.bytes.push(END);
        let end = self.bytes.len();
        self.splice(end, end, &[], 0, added);
    }

    /// Adds an integer at the end.
    pub fn push_int(&mut self, value: i64) -> Pos {
        self.insert_at(self.end(), Item::Int(value))
    }

    /// Adds an element before another; the place of the new one.
    pub fn insert_before(&mut self, pos: Pos, text: &[u8]) -> Pos {
        self.insert_at(pos.0, Item::of(text))
    }

    /// Adds an element behind another; the place of the new one.
    pub fn insert_after(&mut self, pos: Pos, text: &[u8]) -> Pos {
        let next = self.parse(pos.0).1;
        self.insert_at(next, Item::of(text))
    }

    /// Puts another element in an element's place, which stays the same.
    pub fn replace(&mut self, pos: Pos, text: &[u8]) {
        self.replace_item(pos, Item::of(text));
    }

    /// As [`Self::replace`] with an integer.
    pub fn replace_int(&mut self, pos: Pos, value: i64) {
        let next = self.parse(pos.0).1;
        let mut head = [0; 9];
        let len = Item::Int(value).encode_head(&mut head);
        // An integer's own length takes one byte.
        if len + 1 == next - pos.0 {
            self.bytes[pos.0..pos.0 + len].copy_from_slice(&head[..len]);
            self.bytes[pos.0 + len] = len as u8;
        } else {
            self.replace_item(pos, Item::Int(value));
        }
    }

    fn replace_item(&mut self, pos: Pos, item: Item<'_>) {
        let next = self.parse(pos.0).1;
        let mut new = Vec::with_capacity(item.encoded_len());
        item.encode(&mut new);
        if new.len() == next - pos.0 {
            self.bytes[pos.0..next].copy_from_slice(&new);
        } else {
            self.splice(pos.0, next, &new, 1, 1);
        }
    }

    /// Removes an element; the place of the one behind it.
    pub fn remove(&mut self, pos: Pos) -> Option<Pos> {
        self.remove_run(pos, 1)
    }

    /// Removes up to `count` elements from a place on; the place of the one behind them.
    pub fn remove_run(&mut self, pos: Pos, count: usize) -> Option<Pos> {
        let mut to = pos.0;
        let mut removed = 0;
        while removed < count && to < self.end() {
            to = self.parse(to).1;
            removed += 1;
        }
        self.splice(pos.0, to, &[], removed, 0);
        (pos.0 < self.end()).then_some(pos)
    }

    /// Removes up to `count` elements from an index on (negative: from the end). How many.
    pub fn remove_range(&mut self, index: i64, count: usize) -> usize {
        let Some(pos) = self.seek(index) else {
            return 0;
        };
        let before = self.len();
        self.remove_run(pos, count);
        before - self.len()
    }

    /// Adds all elements of another listpack at the end.
    pub fn append(&mut self, other: &Listpack) {
        let elements = &other.bytes[HEADER_LEN..other.end()];
        let end = self.end();
        self.splice(end, end, elements, 0, other.len());
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        *self = Listpack::new();
    }

    /// Asserts that the bytes are a valid listpack.
    pub fn check_invariants(&self) {
        if let Err(bad) = Listpack::from_bytes(self.bytes.clone()) {
            panic!("{bad}");
        }
    }
}

/// The elements of a listpack.
#[derive(Clone)]
pub struct Iter<'a> {
    list: &'a Listpack,
    front: usize,
    back: usize,
}

impl Iter<'_> {
    /// The place of the element that comes next from the front.
    pub fn place(&self) -> Option<Pos> {
        (self.front < self.back).then_some(Pos(self.front))
    }

    /// Whether no element is left.
    pub fn is_over(&self) -> bool {
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
        let (item, next) = self.list.parse(self.front);
        self.front = next;
        Some(item)
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    fn next_back(&mut self) -> Option<Item<'a>> {
        if self.front >= self.back {
            return None;
        }
        self.back = self.list.before(self.back);
        Some(self.list.parse(self.back).0)
    }
}

impl<'a> IntoIterator for &'a Listpack {
    type Item = Item<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}
