//! What a client has yet to be sent: full chunks in order, then the reply buffer being written.

use crate::resp::Reply;
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// A reply buffer beyond this is set aside as a chunk when a command ends, bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// A drained reply buffer larger than this gives its memory back, bytes.
const KEEP_BYTES: usize = 16 * 1024;
const MAX_SLICES: usize = 64;

#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Vec<u8>>,
    /// Where commands write; taken out while one runs.
    pub cur: Reply,
    /// Bytes of the first slice that have been sent.
    sent: usize,
    /// Bytes in `chunks`.
    chunk_bytes: usize,
}

impl Output {
    /// Bytes yet to be sent.
    pub fn pending(&self) -> usize {
        self.chunk_bytes + self.cur.buf.len() - self.sent
    }

    pub fn is_empty(&self) -> bool {
        self.pending() == 0
    }

    /// Number of full chunks, for CLIENT LIST's `oll`.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// Bytes in the buffer being written, for CLIENT LIST's `obl`.
    pub fn cur_len(&self) -> usize {
        self.cur.buf.len()
    }

    /// Memory held, in bytes.
    pub fn mem_bytes(&self) -> usize {
        self.chunks.iter().map(|c| c.capacity()).sum::<usize>() + self.cur.buf.capacity()
    }

    /// Sets a large reply buffer aside, so that it never moves again while it waits to be sent.
    pub fn roll(&mut self) {
        if self.cur.buf.len() >= CHUNK_BYTES {
            let full = std::mem::take(&mut self.cur.buf);
            self.chunk_bytes += full.len();
            self.chunks.push_back(full);
        }
    }

    /// Adds bytes behind everything that is there.
    pub fn append(&mut self, bytes: &[u8]) {
        self.cur.raw(bytes);
        self.roll();
    }

    /// Drops everything unsent.
    pub fn clear(&mut self) {
        let resp3 = self.cur.resp3;
        *self = Output { cur: Reply::new(resp3), ..Output::default() };
    }

    /// Writes as much as the peer takes, up to `limit` bytes. Gives the bytes sent; `WouldBlock` is not an error here.
    pub fn write_to(
        &mut self,
        limit: usize,
        mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut total = 0;
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
        while let Some(first) = self.chunks.front() {
            if self.sent < first.len() {
                return;
            }
            self.sent -= first.len();
            self.chunk_bytes -= first.len();
            self.chunks.pop_front();
        }
        if self.sent == self.cur.buf.len() {
            self.sent = 0;
            if self.cur.buf.capacity() > KEEP_BYTES {
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
