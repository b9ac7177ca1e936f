//! The arguments of one command: slices of the buffer they arrived in.

use std::ops::Index;

/// Start and length of an argument within its buffer, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Span {
    /// The bytes of the argument; `buf` is its buffer.
    #[inline(always)]
    pub(crate) fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.start..self.start + self.len]
    }
}

/// The arguments of a command, name first. Copying it copies two slices.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a> {
    buf: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Args<'a> {
    /// `spans` lie within `buf`.
    pub(crate) fn new(buf: &'a [u8], spans: &'a [Span]) -> Args<'a> {
        debug_assert!(spans.iter().all(|s| s.start + s.len <= buf.len()));
        Args { buf, spans }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.spans.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|s| s.of(self.buf))
    }

    /// The argument, with the lifetime of the buffer rather than of this view.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> &'a [u8] {
        self.spans[index].of(self.buf)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &'a [u8]> + ExactSizeIterator + use<'a> {
        let buf = self.buf;
        self.spans.iter().map(move |s| s.of(buf))
    }

    /// The arguments from `index` on.
    pub(crate) fn from(&self, index: usize) -> Args<'a> {
        Args { buf: self.buf, spans: self.spans.get(index..).unwrap_or(&[]) }
    }

    /// The arguments from `start` up to `end`, which is not included.
    pub(crate) fn between(&self, start: usize, end: usize) -> Args<'a> {
        Args { buf: self.buf, spans: self.spans.get(start..end).unwrap_or(&[]) }
    }

    /// Whether the lines around the arguments end as they are written: what finds requests does not look at every line end.
    pub(crate) fn are_well_framed(&self) -> bool {
        let header_ends =
            self.buf.iter().position(|b| *b == b'\r').is_some_and(|end| self.buf[end..].starts_with(b"\r\n"));
        header_ends
            && self
                .spans
                .iter()
                .all(|s| self.buf[..s.start].ends_with(b"\r\n") && self.buf[s.start + s.len..].starts_with(b"\r\n"))
    }

    /// Sum of the arguments' lengths, in bytes.
    pub(crate) fn total_len(&self) -> usize {
        self.spans.iter().map(|s| s.len).sum()
    }

    pub(crate) fn to_owned(self) -> OwnedArgs {
        let mut owned = OwnedArgs::with_capacity(self.total_len(), self.len());
        self.iter().for_each(|arg| owned.push(arg));
        owned
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];
    #[inline]
    fn index(&self, index: usize) -> &[u8] {
        self.at(index)
    }
}

/// Arguments with a buffer of their own: queued, blocked or made by the server itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedArgs {
    buf: Vec<u8>,
    spans: Vec<Span>,
}

impl OwnedArgs {
    /// With room for `count` arguments of so many bytes together.
    pub(crate) fn with_capacity(bytes: usize, count: usize) -> OwnedArgs {
        OwnedArgs { buf: Vec::with_capacity(bytes), spans: Vec::with_capacity(count) }
    }

    /// Whether so many more arguments of so many bytes together fit without moving.
    pub(crate) fn has_room(&self, bytes: usize, count: usize) -> bool {
        self.buf.capacity() - self.buf.len() >= bytes && self.spans.capacity() - self.spans.len() >= count
    }

    pub(crate) fn push(&mut self, arg: &[u8]) {
        self.spans.push(Span { start: self.buf.len(), len: arg.len() });
        self.buf.extend_from_slice(arg);
    }

    /// Makes room for so many bytes of arguments; false if there is no memory for them.
    pub(crate) fn try_reserve(&mut self, bytes: usize) -> bool {
        self.buf.try_reserve(bytes).is_ok()
    }

    /// Takes all arguments out and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.buf.clear();
        self.spans.clear();
    }

    pub(crate) fn as_args(&self) -> Args<'_> {
        Args { buf: &self.buf, spans: &self.spans }
    }

    /// Bytes held, for memory accounting.
    pub(crate) fn mem_bytes(&self) -> usize {
        self.buf.capacity() + self.spans.capacity() * size_of::<Span>()
    }
}

impl<'a> FromIterator<&'a [u8]> for OwnedArgs {
    fn from_iter<I: IntoIterator<Item = &'a [u8]>>(args: I) -> OwnedArgs {
        let mut out = OwnedArgs::default();
        args.into_iter().for_each(|a| out.push(a));
        out
    }
}
