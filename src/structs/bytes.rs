//! Short byte strings: comparing and copying them without a call, as nearly all keys, names and values are short.
//!
//! A string of up to twice a width is covered by two pieces of that width that overlap. Other copies of a length
//! unknown at compile time go to the C library, which takes longer to decide how to copy than to copy.

#![allow(unsafe_code)]

use std::ptr;

/// Room that [`append_bulk`] makes besides the string: the kind, the digits of a length, and two line ends, bytes.
const BULK_ROOM: usize = 32;

/// A string of so many bytes is no small thing to a buffer: see [`make_room`].
const LARGE: usize = 4096;

/// Whether two strings are equal.
#[inline(always)]
pub(crate) fn is_same(a: &[u8], b: &[u8]) -> bool {
    #[inline(always)]
    fn ends<const N: usize>(text: &[u8]) -> Option<(&[u8; N], &[u8; N])> {
        Some((text.first_chunk()?, text.last_chunk()?))
    }
    if a.len() != b.len() {
        return false;
    }
    match a.len() {
        8..=16 => ends::<8>(a) == ends::<8>(b),
        17..=32 => ends::<16>(a) == ends::<16>(b),
        4..=7 => ends::<4>(a) == ends::<4>(b),
        2..=3 => ends::<2>(a) == ends::<2>(b),
        _ => a == b,
    }
}

/// Adds a string to the end.
#[inline]
pub(crate) fn append(buf: &mut Vec<u8>, bytes: &[u8]) {
    make_room(buf, bytes.len());
    // SAFETY: there is room for the bytes after those that are there, and they do not overlap it.
    unsafe {
        copy(bytes, buf.as_mut_ptr().add(buf.len()));
        buf.set_len(buf.len() + bytes.len());
    }
}

/// Makes room for so many bytes more.
#[inline(always)]
fn make_room(buf: &mut Vec<u8>, bytes: usize) {
    if buf.capacity() - buf.len() < bytes {
        grow(buf, bytes);
    }
}

/// A buffer grows to twice its size when it is full, so that its bytes move seldom. For a large string half as much again
/// does as well, and then nothing is left over that somebody gives back later by moving all of it.
#[cold]
#[inline(never)]
fn grow(buf: &mut Vec<u8>, bytes: usize) {
    if bytes < LARGE || bytes < buf.len() / 2 {
        buf.reserve(bytes);
    } else if buf.is_empty() {
        // The allocator would move what the old block holds.
        *buf = Vec::with_capacity(bytes);
    } else {
        buf.reserve_exact(bytes);
    }
}

/// Adds a piece of a string, `len` bytes from `at` on. A short piece is copied together with the bytes after it, if
/// there are enough and there is room: deciding how to copy less would take longer.
#[inline(always)]
pub(crate) fn append_piece(buf: &mut Vec<u8>, string: &[u8], at: usize, len: usize) {
    /// Bytes copied for a short piece.
    const WIDE: usize = 64;
    if len <= WIDE && at <= string.len() && string.len() - at >= WIDE && buf.capacity() - buf.len() >= WIDE {
        // SAFETY: there are `WIDE` bytes to copy, and room for as many after those that are there, not overlapping the
        // string; the bytes of the new length are written.
        unsafe {
            let from = string.as_ptr().add(at).cast::<[u8; WIDE]>();
            buf.as_mut_ptr().add(buf.len()).cast::<[u8; WIDE]>().write_unaligned(from.read_unaligned());
            buf.set_len(buf.len() + len);
        }
    } else {
        append(buf, &string[at..at + len]);
    }
}

/// Adds a line of a kind and a number: `:12\r\n`.
#[inline]
pub(crate) fn append_line(buf: &mut Vec<u8>, kind: u8, n: i64) {
    buf.reserve(BULK_ROOM);
    // SAFETY: a kind, at most 20 characters of a number and a line end fit into the room.
    unsafe {
        let end = write_line(buf.as_mut_ptr().add(buf.len()), kind, n);
        buf.set_len(end.offset_from_unsigned(buf.as_ptr()));
    }
}

/// Adds a string as RESP has it, with its length before it and a line end after it: `$3\r\nfoo\r\n`.
#[inline]
pub(crate) fn append_bulk(buf: &mut Vec<u8>, bytes: &[u8]) {
    make_room(buf, bytes.len() + BULK_ROOM);
    // SAFETY: the line takes 23 bytes at most, and after the string there is room for a line end; the string does not
    // overlap the buffer.
    unsafe {
        let at = write_line(buf.as_mut_ptr().add(buf.len()), b'$', bytes.len() as i64);
        copy(bytes, at);
        let end = at.add(bytes.len());
        end.cast::<[u8; 2]>().write_unaligned(*b"\r\n");
        buf.set_len(end.add(2).offset_from_unsigned(buf.as_ptr()));
    }
}

/// Writes a kind, a number and a line end, and returns where they end.
///
/// # Safety
/// There must be room for 23 bytes at `at`.
#[inline(always)]
unsafe fn write_line(at: *mut u8, kind: u8, n: i64) -> *mut u8 {
    // SAFETY: of the caller; the numbers of one and two digits take four and five bytes.
    unsafe {
        at.write(kind);
        if (0..10).contains(&n) {
            at.add(1).cast::<[u8; 3]>().write_unaligned([b'0' + n as u8, b'\r', b'\n']);
            return at.add(4);
        }
        if (10..100).contains(&n) {
            let (tens, ones) = (b'0' + (n / 10) as u8, b'0' + (n % 10) as u8);
            at.add(1).cast::<[u8; 4]>().write_unaligned([tens, ones, b'\r', b'\n']);
            return at.add(5);
        }
        let mut digits = at.add(1);
        if n < 0 {
            digits.write(b'-');
            digits = digits.add(1);
        }
        let end = write_digits(digits, n.unsigned_abs());
        end.cast::<[u8; 2]>().write_unaligned(*b"\r\n");
        end.add(2)
    }
}

/// The digits of 0 to 99.
const PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[b'0'; 2]; 100];
    let mut n = 0;
    while n < 100 {
        pairs[n] = [b'0' + n as u8 / 10, b'0' + n as u8 % 10];
        n += 1;
    }
    pairs
};

/// Writes a number in its place, and returns where it ends. Copying it from a buffer would have to wait for the smaller
/// writes to that buffer.
///
/// # Safety
/// There must be room for 20 bytes at `at`.
#[inline(always)]
unsafe fn write_digits(at: *mut u8, mut n: u64) -> *mut u8 {
    let len = 1 + n.checked_ilog10().unwrap_or(0) as usize;
    // SAFETY: of the caller; there are as many digits as the logarithm says, and one or two of them are left at the
    // end.
    unsafe {
        let mut left = at.add(len);
        while n >= 100 {
            left = left.sub(2);
            left.cast::<[u8; 2]>().write_unaligned(PAIRS[(n % 100) as usize]);
            n /= 100;
        }
        if n >= 10 {
            at.cast::<[u8; 2]>().write_unaligned(PAIRS[n as usize]);
        } else {
            at.write(b'0' + n as u8);
        }
        at.add(len)
    }
}

/// Copies a string to where there is room for it.
///
/// # Safety
/// There must be room for all of `from` at `to`, not overlapping `from`.
#[inline(always)]
pub(super) unsafe fn copy(from: &[u8], to: *mut u8) {
    /// Copies `N` bytes of the beginning and of the end.
    ///
    /// # Safety
    /// As of `copy`; there are `N` bytes at least.
    #[inline(always)]
    unsafe fn ends<const N: usize>(from: *const u8, to: *mut u8, len: usize) {
        // SAFETY: both pieces lie within the `len` bytes. Both are read before one is written.
        unsafe {
            let first = from.cast::<[u8; N]>().read_unaligned();
            let last = from.add(len - N).cast::<[u8; N]>().read_unaligned();
            to.cast::<[u8; N]>().write_unaligned(first);
            to.add(len - N).cast::<[u8; N]>().write_unaligned(last);
        }
    }
    let (len, from) = (from.len(), from.as_ptr());
    // SAFETY: of the caller, and the lengths are those that are wanted.
    unsafe {
        match len {
            17..=32 => ends::<16>(from, to, len),
            8..=16 => ends::<8>(from, to, len),
            4..=7 => ends::<4>(from, to, len),
            2..=3 => ends::<2>(from, to, len),
            1 => to.write(*from),
            0 => {}
            33..=64 => ends::<32>(from, to, len),
            _ => ptr::copy_nonoverlapping(from, to, len),
        }
    }
}

/// Appends bytes as a quoted string with escapes, readable as a line of redis-cli.
pub(crate) fn append_quoted(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for b in bytes {
        match b {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', *b]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            7 => out.extend_from_slice(b"\\a"),
            8 => out.extend_from_slice(b"\\b"),
            0x20..=0x7e => out.push(*b),
            other => out.extend_from_slice(format!("\\x{other:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn strings_of_every_length_are_added_and_compared() {
        let text: Vec<u8> = (0..200u8).collect();
        for len in 0..=200 {
            let mut buf = b"before".to_vec();
            append(&mut buf, &text[..len]);
            assert_eq!(buf, [b"before", &text[..len]].concat());
            assert!(is_same(&text[..len], &buf[6..]));
            assert!(!is_same(&text[..len], &buf[5..]));
            for at in 0..len {
                buf[6 + at] ^= 0x80;
                assert!(!is_same(&text[..len], &buf[6..]), "{at} of {len}");
                buf[6 + at] ^= 0x80;
            }
        }
    }

    #[test]
    fn large_strings_leave_no_room_and_move_seldom() {
        let text = vec![b'x'; 10_000];
        let mut buf = Vec::with_capacity(8000);
        append_bulk(&mut buf, &text);
        assert_eq!(buf.capacity(), 10_000 + BULK_ROOM);
        append_bulk(&mut buf, &text);
        assert_eq!(buf, [b"$10000\r\n", &text[..], b"\r\n"].concat().repeat(2));
        assert!(buf.capacity() <= buf.len() + BULK_ROOM);
        let mut grown = 0;
        for _ in 0..1000 {
            let before = buf.capacity();
            append(&mut buf, &text);
            grown += usize::from(buf.capacity() != before);
        }
        assert!(grown < 20, "{grown}");
    }

    #[test]
    fn pieces_of_every_length_are_added() {
        let text: Vec<u8> = (0..150u8).collect();
        for room in [0, 64, 200] {
            for (at, len) in (0..=150).flat_map(|at| (0..=150 - at).map(move |len| (at, len))) {
                let mut buf = Vec::with_capacity(room);
                append_piece(&mut buf, &text, at, len);
                assert_eq!(buf, text[at..at + len], "{len} from {at} on");
            }
        }
    }

    proptest! {
        #[test]
        fn lines_and_bulk_strings_are_what_formatting_gives(
            n in prop_oneof![-200i64..2000, any::<i64>(), (0..19u32, -2..2i64).prop_map(|(e, d)| 10i64.pow(e) + d)],
            len in 0usize..1500,
            room in 0usize..64,
        ) {
            let mut buf = Vec::with_capacity(room);
            append_line(&mut buf, b':', n);
            prop_assert_eq!(&buf, &format!(":{n}\r\n").into_bytes());
            let text = "x".repeat(len);
            append_bulk(&mut buf, text.as_bytes());
            prop_assert_eq!(buf, format!(":{n}\r\n${len}\r\n{text}\r\n").into_bytes());
        }
    }
}
