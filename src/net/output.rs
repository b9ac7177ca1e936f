//! What is still to be sent to a client: full chunks in order, then the reply buffer being written.

use crate::resp::Reply;
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// Smallest and largest size of a reply buffer, bytes.
pub(crate) const MIN_BUFFER_BYTES: usize = 1024;
pub(crate) const MAX_BUFFER_BYTES: usize = 16 * 1024;
/// An empty reply buffer larger than this is freed, bytes, so that the next large reply of any client is written into
/// memory that is still in the cache.
const KEPT_BYTES: usize = 4 * 1024;
/// How much larger than the reply before it a reply may be without moving, bytes.
const NEXT_ROOM: usize = 64;
const MAX_SLICES: usize = 64;

#[derive(Debug)]
pub(crate) struct Output {
    chunks: VecDeque<Vec<u8>>,
    /// How many of the last chunks may still have spare capacity: see `settle`.
    unsettled: usize,
    /// The reply buffer; taken out while a command runs.
    pub(crate) cur: Reply,
    /// Bytes of the first slice that have been sent.
    sent: usize,
    /// Bytes in `chunks`.
    chunk_bytes: usize,
    /// Memory of `chunks`.
    chunk_capacity: usize,
    /// Replies beyond this many bytes become chunks when their command ends, so that they never move again. Follows
    /// what the client needs, see `resize`.
    buffer_size: usize,
    /// Bytes sent since the client connected, and the offset up to which sending need not wait for the disk: see
    /// `persist::gate`.
    sent_total: u64,
    safe_until: u64,
}

impl Default for Output {
    fn default() -> Output {
        Output {
            chunks: VecDeque::new(),
            unsettled: 0,
            cur: Reply::default(),
            sent: 0,
            chunk_bytes: 0,
            chunk_capacity: 0,
            buffer_size: MIN_BUFFER_BYTES,
            sent_total: 0,
            safe_until: 0,
        }
    }
}

impl Output {
    /// Bytes yet to be sent.
    pub(crate) fn pending(&self) -> usize {
        self.chunk_bytes + self.cur.buf.len() - self.sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending() == 0
    }

    /// Number of full chunks, for CLIENT LIST's `oll`.
    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes in the buffer being written, for CLIENT LIST's `obl`.
    pub(crate) fn cur_len(&self) -> usize {
        self.cur.buf.len()
    }

    /// Memory held, in bytes.
    pub(crate) fn mem_bytes(&self) -> usize {
        self.chunk_mem() + self.cur.buf.capacity().max(self.buffer_size)
    }

    /// Memory of the full chunks, in bytes: what output buffer limits apply to.
    pub(crate) fn chunk_mem(&self) -> usize {
        self.chunk_capacity + self.chunks.len() * size_of::<Vec<u8>>()
    }

    /// Size of the buffer replies are written into, in bytes.
    pub(crate) fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    /// Gives the reply buffer another size. What waits in it stays.
    pub(crate) fn resize(&mut self, bytes: usize) {
        self.buffer_size = bytes;
        self.cur.buf.shrink_to(bytes);
    }

    /// Sets a large reply aside, so that it never moves again while it waits to be sent.
    pub(crate) fn roll(&mut self) {
        if self.cur.buf.len() <= self.buffer_size {
            return;
        }
        let mut cur = std::mem::take(&mut self.cur);
        self.set_aside(&mut cur, self.buffer_size + 1);
        self.cur = cur;
    }

    /// How much may be added to so much that waits before a chunk is made of it, bytes: as much again, so that much of it is
    /// few chunks.
    fn append_size(&self, waiting: usize) -> usize {
        self.buffer_size.max(waiting.min(MAX_BUFFER_BYTES))
    }

    /// Makes a chunk of what is in `cur` if it has at least `at_least` bytes; it goes after everything that is there.
    pub(crate) fn set_aside(&mut self, cur: &mut Reply, at_least: usize) {
        if cur.buf.len() < at_least {
            return;
        }
        // The next reply is perhaps as large: it is not to leave much room in a chunk of its own, which `settle` would move.
        self.make_chunk(cur, self.buffer_size.min(cur.buf.len() + NEXT_ROOM));
    }

    /// Makes a chunk of `cur`, which gets so many bytes for what comes next.
    fn make_chunk(&mut self, cur: &mut Reply, next_size: usize) {
        let full = std::mem::replace(&mut cur.buf, Vec::with_capacity(next_size));
        self.chunk_bytes += full.len();
        self.chunk_capacity += full.capacity();
        self.chunks.push_back(full);
        self.unsettled += 1;
    }

    /// What is there now could not be sent at once and may wait long: gives back the spare capacity of chunks that have
    /// much. (Most chunks leave in the turn that wrote them; moving their bytes would be wasted.)
    pub(crate) fn settle(&mut self) {
        let first = self.chunks.len().saturating_sub(std::mem::take(&mut self.unsettled));
        for chunk in self.chunks.range_mut(first..) {
            if chunk.capacity() - chunk.len() > chunk.len() / 2 {
                self.chunk_capacity -= chunk.capacity();
                chunk.shrink_to_fit();
                self.chunk_capacity += chunk.capacity();
            }
        }
    }

    /// Takes `cur` out for commands to write into, with room for what the client usually gets.
    pub(crate) fn take_cur(&mut self) -> Reply {
        let mut cur = std::mem::take(&mut self.cur);
        if cur.buf.capacity() == 0 && self.buffer_size > KEPT_BYTES {
            cur.buf.reserve_exact(self.buffer_size);
        }
        cur
    }

    /// Adds bytes after everything that is there.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        let size = self.append_size(self.chunk_bytes);
        if self.cur.buf.len() + bytes.len() <= size {
            self.cur.raw(bytes);
            return;
        }
        let mut cur = std::mem::take(&mut self.cur);
        if !cur.buf.is_empty() {
            let next_size = self.append_size(self.chunk_bytes + cur.buf.len());
            self.make_chunk(&mut cur, next_size);
        }
        cur.raw(bytes);
        self.set_aside(&mut cur, size + 1);
        self.cur = cur;
    }

    /// The same, without a copy.
    pub(crate) fn append_owned(&mut self, bytes: Vec<u8>) {
        let mut cur = std::mem::take(&mut self.cur);
        self.set_aside(&mut cur, 1);
        self.cur = cur;
        self.set_aside(&mut Reply::over(bytes), 1);
    }

    /// Drops everything unsent.
    pub(crate) fn clear(&mut self) {
        let resp3 = self.cur.resp3;
        *self = Output {
            cur: Reply::new(resp3),
            buffer_size: self.buffer_size,
            sent_total: self.sent_total,
            safe_until: self.sent_total,
            ..Output::default()
        };
    }

    /// Drops what was not released.
    pub(crate) fn drop_unreleased(&mut self) {
        let parts = self.chunks.iter().chain([&self.cur.buf]);
        let kept: Vec<u8> = parts.flatten().copied().skip(self.sent).take(self.released()).collect();
        self.clear();
        self.append(&kept);
        self.release_all();
    }

    /// Counts bytes that were sent without passing through here, while nothing was pending.
    pub(crate) fn note_sent(&mut self, bytes: usize) {
        debug_assert!(self.is_empty());
        self.sent_total += bytes as u64;
    }

    /// Where the output ends, counted from the client's first byte.
    pub(crate) fn end(&self) -> u64 {
        self.sent_total + self.pending() as u64
    }

    /// Everything up to here may be sent, whatever is still on its way to the disk.
    pub(crate) fn release(&mut self, until: u64) {
        self.safe_until = self.safe_until.max(until);
    }

    /// Everything there is so far may be sent.
    pub(crate) fn release_all(&mut self) {
        self.release(self.end());
    }

    /// Number of pending bytes that were released.
    pub(crate) fn released(&self) -> usize {
        self.safe_until.saturating_sub(self.sent_total) as usize
    }

    /// Writes as much as the peer takes, `limit` bytes at most. Returns the bytes sent; `WouldBlock` is not an error
    /// here.
    pub(crate) fn write_to(
        &mut self,
        limit: usize,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut total = 0;
        if self.chunks.is_empty() {
            // The usual case.
            let part = &self.cur.buf[self.sent..];
            let part = &part[..part.len().min(limit)];
            if !part.is_empty() {
                match write(&[IoSlice::new(part)]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(sent) => {
                        let all = sent == part.len();
                        self.consume(sent);
                        total = sent;
                        if !all {
                            return Ok(total);
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
        }
        while !self.is_empty() && total < limit {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut n = 0;
            let mut offered = 0;
            let mut skip = self.sent;
            for part in self.chunks.iter().map(|c| c.as_slice()).chain([self.cur.buf.as_slice()]) {
                if n == MAX_SLICES {
                    break;
                }
                let part = &part[skip.min(part.len())..];
                skip = 0;
                let part = &part[..part.len().min(limit - total - offered)];
                if !part.is_empty() {
                    slices[n] = IoSlice::new(part);
                    offered += part.len();
                    n += 1;
                }
            }
            match write(&slices[..n]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    total += sent;
                    self.consume(sent);
                    if sent < offered {
                        break;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(total)
    }

    fn consume(&mut self, bytes: usize) {
        self.sent += bytes;
        self.sent_total += bytes as u64;
        while let Some(first) = self.chunks.front() {
            if self.sent < first.len() {
                return;
            }
            self.sent -= first.len();
            self.chunk_bytes -= first.len();
            self.chunk_capacity -= first.capacity();
            self.chunks.pop_front();
        }
        if self.sent == self.cur.buf.len() {
            self.sent = 0;
            if self.cur.buf.capacity() > KEPT_BYTES {
                self.cur.buf = Vec::new();
            } else {
                self.cur.buf.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_what_was_released_is_counted_as_such() {
        let take = |out: &mut Output, limit| {
            let mut got = Vec::new();
            out.write_to(limit, |slices| {
                slices.iter().for_each(|s| got.extend_from_slice(s));
                Ok(slices.iter().map(|s| s.len()).sum())
            })
            .unwrap();
            got
        };
        let mut out = Output::default();
        out.append(b"first");
        assert_eq!(out.released(), 0);
        out.release(out.end());
        out.append(b"second");
        assert_eq!(out.released(), 5);
        assert_eq!(take(&mut out, 3), b"fir");
        assert_eq!((out.released(), out.pending()), (2, 8));
        let released = out.released();
        assert_eq!(take(&mut out, released), b"st");
        assert_eq!((out.released(), out.end()), (0, 11));
        assert_eq!(take(&mut out, 0), b"");
        out.clear();
        assert_eq!((out.released(), out.end()), (0, 5));
        out.append(b"x");
        assert_eq!(out.released(), 0);
        out.release(out.end());
        assert_eq!(take(&mut out, 9), b"x");
    }

    #[test]
    fn large_replies_of_a_size_leave_no_room_behind() {
        let mut out = Output::default();
        out.resize(MAX_BUFFER_BYTES);
        let mut cur = out.take_cur();
        for _ in 0..3 {
            cur.bulk(&[b'x'; 10_000]);
            out.set_aside(&mut cur, 1);
        }
        let places = |out: &Output| out.chunks.iter().map(|c| c.as_ptr()).collect::<Vec<_>>();
        let before = places(&out);
        out.settle();
        assert_eq!(places(&out)[1..], before[1..]);
        assert!(out.chunks.iter().all(|c| c.capacity() < 10_200), "{}", out.chunk_capacity);
    }

    #[test]
    fn what_is_added_bit_by_bit_waits_in_few_chunks_that_are_full() {
        let mut out = Output::default();
        for _ in 0..2000 {
            out.append(&[b'x'; 60]);
        }
        assert_eq!(out.pending(), 120_000);
        assert!(out.chunk_count() <= 12, "{}", out.chunk_count());
        assert!(out.chunk_capacity <= out.chunk_bytes * 21 / 20, "{} of {}", out.chunk_bytes, out.chunk_capacity);
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            parts in proptest::collection::vec(0usize..200_000, 1..6),
            takes in proptest::collection::vec(1usize..70_000, 1..40),
        ) {
            let mut out = Output::default();
            let mut expected = Vec::new();
            let mut got = Vec::new();
            let mut takes = takes.into_iter().cycle();
            for (i, n) in parts.into_iter().enumerate() {
                let bytes: Vec<u8> = (0..n).map(|k| (k * 7 + i) as u8).collect();
                expected.extend_from_slice(&bytes);
                out.append(&bytes);
                let mut budget = takes.next().unwrap();
                out.write_to(usize::MAX, |slices| {
                    if budget == 0 {
                        return Err(io::ErrorKind::WouldBlock.into());
                    }
                    let mut sent = 0;
                    for s in slices {
                        let n = s.len().min(budget);
                        got.extend_from_slice(&s[..n]);
                        sent += n;
                        budget -= n;
                    }
                    Ok(sent)
                }).unwrap();
                prop_assert_eq!(out.pending(), expected.len() - got.len());
            }
            out.write_to(usize::MAX, |slices| {
                slices.iter().for_each(|s| got.extend_from_slice(s));
                Ok(slices.iter().map(|s| s.len()).sum())
            }).unwrap();
            prop_assert!(out.is_empty());
            prop_assert_eq!(got, expected);
        }
    }
}
