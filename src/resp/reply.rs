//! Writes replies in RESP2 or RESP3 into a buffer.
//!
//! One method per kind of reply; what RESP2 lacks is written as its nearest equivalent, as Redis does.

use crate::structs::bytes::{append_bulk, append_line};
use crate::structs::lend::Lent;
use crate::structs::numbers::f64_text;
use std::io::{self, IoSlice};

/// A place in the reply whose array or map header is written once its length is known.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Mark(usize);

/// The reply buffer. `resp3` says which protocol the client asked for.
#[derive(Debug, Default)]
pub struct Reply {
    pub buf: Vec<u8>,
    pub(crate) resp3: bool,
    /// Long strings may be lent to this reply, as it will be sent soon.
    pub(crate) borrows: bool,
    /// The lent strings, each with the index in `buf` that it goes before.
    lent: Vec<(usize, Lent)>,
}

/// The shortest string that is lent, bytes: sending one more piece has its cost, too.
const MIN_LENT_BYTES: usize = 2048;
/// Number and bytes of lent strings at which a reply should be sent.
const MAX_LENT: usize = 31;
const MAX_LENT_BYTES: usize = 256 * 1024;

impl Reply {
    pub fn new(resp3: bool) -> Reply {
        Reply { resp3, ..Reply::default() }
    }

    /// A reply in RESP2 that appends to `buf`.
    pub(crate) fn over(buf: Vec<u8>) -> Reply {
        Reply { buf, ..Reply::default() }
    }

    #[inline]
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
    }

    pub(crate) fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A status without line breaks.
    pub(crate) fn simple(&mut self, text: &str) {
        self.simple_bytes(text.as_bytes());
    }

    pub(crate) fn simple_bytes(&mut self, text: &[u8]) {
        self.buf.push(b'+');
        self.raw(text);
        self.crlf();
    }

    /// An error; `text` begins with its code (`ERR ...`). Line breaks in it become blanks.
    pub(crate) fn error(&mut self, text: &[u8]) {
        self.buf.push(b'-');
        let text = text.strip_suffix(b"\r\n").unwrap_or(text);
        self.buf.extend(text.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }));
        self.crlf();
    }

    pub(crate) fn int(&mut self, n: i64) {
        // The most frequent replies.
        match n {
            0 => self.raw(b":0\r\n"),
            1 => self.raw(b":1\r\n"),
            _ => self.prefixed(b':', n),
        }
    }

    /// A boolean; an integer in RESP2.
    pub(crate) fn boolean(&mut self, value: bool) {
        match (self.resp3, value) {
            (true, true) => self.raw(b"#t\r\n"),
            (true, false) => self.raw(b"#f\r\n"),
            (false, v) => self.int(v as i64),
        }
    }

    pub fn bulk(&mut self, bytes: &[u8]) {
        append_bulk(&mut self.buf, bytes);
    }

    /// Whether a string of this length is to be lent rather than copied.
    pub(crate) fn borrows(&self, len: usize) -> bool {
        self.borrows && len >= MIN_LENT_BYTES && self.lent.len() < MAX_LENT
    }

    /// A bulk string, sent from where it lies.
    pub(crate) fn bulk_lent(&mut self, text: Lent) {
        self.prefixed(b'$', text.len() as i64);
        self.lent.push((self.buf.len(), text));
        self.crlf();
    }

    pub(crate) fn has_lent(&self) -> bool {
        !self.lent.is_empty()
    }

    /// Whether to send the reply before more is lent.
    pub(crate) fn is_full_of_lent(&self) -> bool {
        self.lent.len() >= MAX_LENT || self.lent.iter().map(|(_, text)| text.len()).sum::<usize>() >= MAX_LENT_BYTES
    }

    /// The parts of the reply, in order.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.lent.iter().map(|(at, _)| *at));
        let ends = self.lent.iter().map(|(at, _)| *at).chain([self.buf.len()]);
        let texts = self.lent.iter().map(|(_, text)| &text[..]).chain([&[][..]]);
        starts.zip(ends).zip(texts).flat_map(|((start, end), text)| [&self.buf[start..end], text])
    }

    /// Offers all of it to `write`, once, and ends the loans: what was not taken is copied. Returns the number of bytes
    /// taken.
    pub(crate) fn send_lent(&mut self, write: impl FnOnce(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); 2 * MAX_LENT + 1];
        let mut count = 0;
        for part in self.parts().filter(|part| !part.is_empty()) {
            slices[count] = IoSlice::new(part);
            count += 1;
        }
        let result = write(&slices[..count]);
        self.keep_from(*result.as_ref().unwrap_or(&0));
        result
    }

    /// Ends the loans by copying what was lent.
    pub(crate) fn own_lent(&mut self) {
        if self.has_lent() {
            self.keep_from(0);
        }
    }

    /// For a reply that will not be sent soon: ends the loans, and takes no more.
    pub(crate) fn stop_borrowing(&mut self) {
        self.own_lent();
        self.borrows = false;
    }

    /// Copies all from a byte on, and forgets what is before it.
    fn keep_from(&mut self, from: usize) {
        let total = self.parts().map(<[u8]>::len).sum::<usize>();
        if from >= total {
            self.buf.clear();
        } else {
            let mut own = Vec::with_capacity(total - from);
            let mut skip = from;
            for part in self.parts() {
                own.extend_from_slice(&part[skip.min(part.len())..]);
                skip = skip.saturating_sub(part.len());
            }
            self.buf = own;
        }
        self.lent.clear();
    }

    pub(crate) fn bulk_str(&mut self, text: &str) {
        self.bulk(text.as_bytes());
    }

    /// An integer as a bulk string.
    pub(crate) fn bulk_int(&mut self, n: i64) {
        let mut text = itoa::Buffer::new();
        self.bulk(text.format(n).as_bytes());
    }

    /// A string with a hint of its format (three letters); a bulk string in RESP2.
    pub(crate) fn verbatim(&mut self, format: &str, text: &[u8]) {
        if !self.resp3 {
            return self.bulk(text);
        }
        self.prefixed(b'=', text.len() as i64 + 4);
        self.raw(format.as_bytes());
        self.buf.push(b':');
        self.raw(text);
        self.crlf();
    }

    /// A double already printed as Redis prints it; a bulk string in RESP2.
    pub(crate) fn double_text(&mut self, text: &str) {
        if self.resp3 {
            self.buf.push(b',');
            self.raw(text.as_bytes());
            self.crlf();
        } else {
            self.bulk_str(text);
        }
    }

    /// A double; a bulk string in RESP2.
    pub(crate) fn double(&mut self, value: f64) {
        let text = f64_text(value);
        if self.resp3 {
            self.buf.push(b',');
            self.raw(&text);
            self.crlf();
        } else {
            self.bulk(&text);
        }
    }

    /// A number too large for an integer reply; a bulk string in RESP2.
    pub(crate) fn big_number(&mut self, digits: &str) {
        if self.resp3 {
            self.buf.push(b'(');
            self.raw(digits.as_bytes());
            self.crlf();
        } else {
            self.bulk_str(digits);
        }
    }

    /// "No value": `_` in RESP3, a null bulk string in RESP2.
    pub(crate) fn null(&mut self) {
        if self.resp3 { self.raw(b"_\r\n") } else { self.raw(b"$-1\r\n") }
    }

    /// "No array": `_` in RESP3, a null array in RESP2.
    pub(crate) fn null_array(&mut self) {
        if self.resp3 { self.raw(b"_\r\n") } else { self.raw(b"*-1\r\n") }
    }

    pub(crate) fn array(&mut self, len: usize) {
        self.prefixed(b'*', len as i64);
    }

    /// A map of `len` pairs; a flat array in RESP2.
    pub(crate) fn map(&mut self, len: usize) {
        if self.resp3 { self.prefixed(b'%', len as i64) } else { self.prefixed(b'*', len as i64 * 2) }
    }

    pub(crate) fn set(&mut self, len: usize) {
        self.prefixed(if self.resp3 { b'~' } else { b'*' }, len as i64);
    }

    /// An out-of-band push; an array in RESP2.
    pub(crate) fn push(&mut self, len: usize) {
        self.prefixed(if self.resp3 { b'>' } else { b'*' }, len as i64);
    }

    /// Begins an aggregate whose length is not known yet; end it with `close_array`, `close_map` or `close_set`.
    /// Aggregates that are open at the same time close in the reverse order.
    pub(crate) fn open(&mut self) -> Mark {
        Mark(self.buf.len())
    }

    pub(crate) fn close_array(&mut self, mark: Mark, len: usize) {
        self.close(mark, b'*', len);
    }

    /// `len` pairs were written since `mark`.
    pub(crate) fn close_map(&mut self, mark: Mark, len: usize) {
        if self.resp3 { self.close(mark, b'%', len) } else { self.close(mark, b'*', len * 2) }
    }

    pub(crate) fn close_set(&mut self, mark: Mark, len: usize) {
        self.close(mark, if self.resp3 { b'~' } else { b'*' }, len);
    }

    fn close(&mut self, mark: Mark, kind: u8, len: usize) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(len).as_bytes();
        let header = digits.len() + 3;
        let end = self.buf.len();
        self.buf.resize(end + header, 0);
        self.buf.copy_within(mark.0..end, mark.0 + header);
        let slot = &mut self.buf[mark.0..mark.0 + header];
        slot[0] = kind;
        slot[1..=digits.len()].copy_from_slice(digits);
        slot[header - 2..].copy_from_slice(b"\r\n");
    }

    fn prefixed(&mut self, kind: u8, n: i64) {
        append_line(&mut self.buf, kind, n);
    }

    fn crlf(&mut self) {
        self.buf.extend_from_slice(b"\r\n");
    }

    /// A command as a client would send it: the form of the replication stream and the AOF.
    pub(crate) fn command<'a>(&mut self, args: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.prefixed(b'*', args.len() as i64);
        args.for_each(|a| self.bulk(a));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_sent_of_lent_strings_is_copied() {
        use crate::structs::entry::{Entry, NewValue};
        let texts = [vec![b'x'; 3000], vec![b'y'; 2500]];
        let entries = texts.each_ref().map(|t| Entry::<u8>::new(b"key", NewValue::Str(t), None));
        let mut expected = Reply::default();
        expected.simple("OK");
        texts.iter().for_each(|t| expected.bulk(t));
        expected.ok();
        for sent in [0, 1, 5, 12, 2000, 3012, 3020, 4000, expected.buf.len() - 1, expected.buf.len()] {
            let mut r = Reply::default();
            r.simple("OK");
            entries.iter().for_each(|e| r.bulk_lent(e.lend().unwrap()));
            r.ok();
            let mut got = Vec::new();
            r.send_lent(|slices| {
                let all: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                got.extend_from_slice(&all[..sent]);
                Ok(sent)
            })
            .unwrap();
            assert!(!r.has_lent());
            got.extend_from_slice(&r.buf);
            assert!(got == expected.buf, "{sent} sent");
        }
        let mut r = Reply::default();
        r.bulk_lent(entries[0].lend().unwrap());
        assert!(r.send_lent(|_| Err(io::ErrorKind::WouldBlock.into())).is_err());
        assert!(!r.has_lent());
        let mut whole = Reply::default();
        whole.bulk(&texts[0]);
        assert!(r.buf == whole.buf);
    }

    #[test]
    fn strings_of_every_length_are_written_whole() {
        let text: Vec<u8> = (0..200).collect();
        let mut r = Reply::default();
        let mut expected = Vec::new();
        for len in 0..text.len() {
            r.bulk(&text[..len]);
            expected.extend_from_slice(format!("${len}\r\n").as_bytes());
            expected.extend_from_slice(&text[..len]);
            expected.extend_from_slice(b"\r\n");
        }
        assert_eq!(r.buf, expected);
    }

    #[test]
    fn deferred_lengths_nest() {
        let mut r = Reply::default();
        let outer = r.open();
        r.int(7);
        let inner = r.open();
        r.bulk(b"x");
        r.close_array(inner, 1);
        r.close_array(outer, 2);
        assert_eq!(r.buf, b"*2\r\n:7\r\n*1\r\n$1\r\nx\r\n");
    }

    #[test]
    fn maps_and_nulls_differ_by_protocol() {
        let mut two = Reply::new(false);
        two.map(1);
        two.null();
        two.null_array();
        two.boolean(true);
        assert_eq!(two.buf, b"*2\r\n$-1\r\n*-1\r\n:1\r\n");
        let mut three = Reply::new(true);
        three.map(1);
        three.null();
        three.null_array();
        three.boolean(true);
        assert_eq!(three.buf, b"%1\r\n_\r\n_\r\n#t\r\n");
    }

    #[test]
    fn numbers_of_every_length() {
        for n in [0, 7, 9, 10, 42, 99, 100, -1, -10, i64::MAX, i64::MIN] {
            let mut r = Reply::default();
            r.int(n);
            assert_eq!(r.buf, format!(":{n}\r\n").as_bytes());
        }
        for len in [0, 1, 9, 10, 99, 100, 1000] {
            let mut r = Reply::default();
            r.bulk(&vec![b'x'; len]);
            assert_eq!(r.buf, format!("${len}\r\n{}\r\n", "x".repeat(len)).as_bytes());
        }
    }

    #[test]
    fn errors_stay_on_one_line() {
        let mut r = Reply::default();
        r.error(b"ERR a\r\nb");
        assert_eq!(r.buf, b"-ERR a  b\r\n");
    }
}
