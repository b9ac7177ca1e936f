//! The ids of entries: a time in milliseconds and a sequence number within the same millisecond.

use std::fmt;
use std::ops::Deref;

/// An entry's id. Ids are ordered by their time, then by their sequence number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamId {
    /// Unix time, ms, as a rule.
    pub(crate) ms: u64,
    pub(crate) seq: u64,
}

impl StreamId {
    /// `0-0`, which no entry has.
    pub(crate) const MIN: StreamId = StreamId { ms: 0, seq: 0 };
    pub(crate) const MAX: StreamId = StreamId { ms: u64::MAX, seq: u64::MAX };

    pub(crate) const fn new(ms: u64, seq: u64) -> StreamId {
        StreamId { ms, seq }
    }

    /// The id right after; `None` after the last one.
    pub(crate) fn next(self) -> Option<StreamId> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(StreamId { ms: self.ms, seq }),
            None => Some(StreamId { ms: self.ms.checked_add(1)?, seq: 0 }),
        }
    }

    /// The id right before; `None` before the first one.
    pub(crate) fn prev(self) -> Option<StreamId> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(StreamId { ms: self.ms, seq }),
            None => Some(StreamId { ms: self.ms.checked_sub(1)?, seq: u64::MAX }),
        }
    }

    /// Both numbers in network byte order: the form of RDB files, whose bytes are ordered as the ids are.
    pub(crate) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; 16]) -> StreamId {
        let both = u128::from_be_bytes(bytes);
        StreamId { ms: (both >> 64) as u64, seq: both as u64 }
    }

    /// The id as text, with this character between the numbers.
    fn text_with(self, between: u8) -> IdText {
        let mut out = IdText { bytes: [0; 41], len: 0 };
        let mut digits = itoa::Buffer::new();
        out.push(digits.format(self.ms).as_bytes());
        out.push(&[between]);
        out.push(digits.format(self.seq).as_bytes());
        out
    }

    /// The id as clients see it: `ms-seq`.
    pub(crate) fn text(self) -> IdText {
        self.text_with(b'-')
    }

    /// The id as digests take it: `ms.seq`.
    pub(crate) fn digest_text(self) -> IdText {
        self.text_with(b'.')
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// An id's text, without an allocation.
pub(crate) struct IdText {
    bytes: [u8; 41],
    len: usize,
}

impl IdText {
    fn push(&mut self, text: &[u8]) {
        self.bytes[self.len..self.len + text.len()].copy_from_slice(text);
        self.len += text.len();
    }
}

impl Deref for IdText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
