//! Reads the packed formats before listpacks: ziplists and zipmaps, as old RDB files and DUMP payloads have them. They
//! are never written.
//!
//! A ziplist is its length in bytes and the offset of its last element (32 bits each), the number of elements (16 bits,
//! 65535 meaning "count them"), the elements and a byte 255. An element is the length of the one before it (one byte, or
//! 254 and four bytes), an encoding, and the value. (Source: the format's description in Redis's `ziplist.c`.)
//!
//! A zipmap is a count byte, then pairs of strings, each with its length (one byte, or 254 and four bytes); a value's
//! length is followed by a byte that counts unused bytes after the value. A byte 255 ends it.

use super::listpack::Item;

const HEADER_LEN: usize = 10;
const END: u8 = 0xff;
const LONG: u8 = 0xfe;
const UNKNOWN_COUNT: u16 = u16::MAX;

fn little_u32(bytes: &[u8]) -> Option<usize> {
    Some(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize)
}

/// An integer of 1 to 8 bytes, little-endian, sign-extended.
fn little_int(bytes: &[u8]) -> i64 {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut wide = if negative { [0xff; 8] } else { [0; 8] };
    wide[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(wide)
}

/// Reads encoding and value: the element, and the length of both.
fn read_value(bytes: &[u8]) -> Option<(Item<'_>, usize)> {
    let string = |head: usize, len: usize| Some((Item::Str(bytes.get(head..head.checked_add(len)?)?), head + len));
    let int = |len: usize| Some((Item::Int(little_int(bytes.get(1..=len)?)), 1 + len));
    match *bytes.first()? {
        first @ 0x00..=0x3f => string(1, usize::from(first)),
        first @ 0x40..=0x7f => string(2, usize::from(first & 0x3f) << 8 | usize::from(*bytes.get(1)?)),
        0x80 => string(5, u32::from_be_bytes(bytes.get(1..5)?.try_into().ok()?) as usize),
        0xc0 => int(2),
        0xd0 => int(4),
        0xe0 => int(8),
        0xf0 => int(3),
        0xfe => int(1),
        first @ 0xf1..=0xfd => Some((Item::Int(i64::from(first & 0x0f) - 1), 1)),
        _ => None,
    }
}

/// The elements of a ziplist; `None` if it is malformed.
pub(crate) fn read_ziplist(bytes: &[u8]) -> Option<Vec<Item<'_>>> {
    let total = little_u32(bytes)?;
    let tail = little_u32(bytes.get(4..)?)?;
    let claimed = u16::from_le_bytes(bytes.get(8..10)?.try_into().ok()?);
    if total != bytes.len() || *bytes.last()? != END {
        return None;
    }
    let end = bytes.len() - 1;
    let mut items = Vec::new();
    let mut at = HEADER_LEN;
    let (mut last, mut before) = (at, 0);
    while at < end {
        let (prev_len, head) = match bytes[at] {
            LONG => (little_u32(bytes.get(at + 1..end)?)?, 5),
            len => (usize::from(len), 1),
        };
        if prev_len != before {
            return None;
        }
        let (item, len) = read_value(bytes.get(at + head..end)?)?;
        items.push(item);
        (last, before) = (at, head + len);
        at += before;
    }
    let counted = claimed == UNKNOWN_COUNT || usize::from(claimed) == items.len();
    (at == end && tail == last && counted).then_some(items)
}

/// Alternating keys and values of a zipmap; `None` if it is malformed or empty.
pub(crate) fn read_zipmap(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let claimed = *bytes.first().filter(|count| **count > 0)?;
    let mut at = 1;
    let mut strings = Vec::new();
    loop {
        let len = match *bytes.get(at)? {
            END => break,
            LONG => {
                at += 5;
                // A length that fits the short form must use it: other readers assume so when they look for what
                // follows.
                little_u32(bytes.get(at - 4..)?).filter(|len| *len >= usize::from(LONG))?
            }
            len => {
                at += 1;
                usize::from(len)
            }
        };
        let is_value = !strings.len().is_multiple_of(2);
        let unused = if is_value {
            at += 1;
            usize::from(*bytes.get(at - 1)?)
        } else {
            0
        };
        strings.push(bytes.get(at..at.checked_add(len)?)?);
        at = at.checked_add(len + unused)?;
    }
    let whole = at + 1 == bytes.len() && strings.len().is_multiple_of(2);
    let counted = claimed >= LONG || usize::from(claimed) == strings.len() / 2;
    (whole && counted).then_some(strings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ziplist_of_every_encoding() {
        let values: [&[u8]; 9] = [
            b"\x02ab",
            b"\x40\x03abc",
            b"\x80\x00\x00\x00\x01x",
            b"\xc0\x00\x80",
            b"\xf0\xff\xff\xff",
            b"\xd0\x01\x00\x00\x00",
            b"\xe0\x00\x00\x00\x00\x00\x00\x00\x80",
            b"\xfe\x85",
            b"\xfd",
        ];
        let mut zl = vec![0; HEADER_LEN];
        let mut before = 0;
        let mut tail = 0;
        for value in values {
            tail = zl.len();
            zl.push(before as u8);
            zl.extend_from_slice(value);
            before = value.len() + 1;
        }
        zl.push(END);
        let total = zl.len() as u32;
        zl[..4].copy_from_slice(&total.to_le_bytes());
        zl[4..8].copy_from_slice(&(tail as u32).to_le_bytes());
        zl[8..10].copy_from_slice(&9u16.to_le_bytes());
        let items = read_ziplist(&zl).unwrap();
        let texts: Vec<String> = items.iter().map(|i| String::from_utf8(i.to_vec()).unwrap()).collect();
        assert_eq!(texts, ["ab", "abc", "x", "-32768", "-1", "1", "-9223372036854775808", "-123", "12"]);
        for cut in 0..zl.len() {
            assert!(read_ziplist(&zl[..cut]).is_none());
        }
        for i in 0..zl.len() {
            let mut bad = zl.clone();
            bad[i] ^= 0x55;
            let _ = read_ziplist(&bad);
        }
    }

    #[test]
    fn a_zipmap() {
        let map = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world!!\xff";
        assert_eq!(read_zipmap(map).unwrap(), [&b"foo"[..], b"bar", b"hello", b"world"]);
        for cut in 0..map.len() {
            assert!(read_zipmap(&map[..cut]).is_none());
        }
        let long = [b"\x01\xfe\xfe\0\0\0", &[b'x'; 254][..], b"\x03\x00bar\xff"].concat();
        assert_eq!(read_zipmap(&long).unwrap(), [&[b'x'; 254][..], b"bar"]);
        assert_eq!(read_zipmap(b"\x01\xfe\x03\0\0\0foo\x03\x00bar\xff"), None);
    }
}
