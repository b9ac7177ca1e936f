//! What a snapshot is read from, for readers that must not wait for it.

use std::io::{self, BufRead, BufReader, Read};

/// Room for what comes at once, bytes.
const ROOM: usize = 256 * 1024;
/// A buffer that a large item has made larger than this shrinks when that is read.
const KEEP_ROOM: usize = 8 * ROOM;

/// A source that, when it has no more for the moment, says `WouldBlock` and can be read again from an earlier place.
pub(crate) trait Source: BufRead {
    /// The place to go back to is here.
    fn keep(&mut self) {}

    /// Goes back to that place. False: this source always has something to give, or is at its end.
    fn go_back(&mut self) -> bool {
        false
    }
}

impl<R: Read> Source for BufReader<R> {}
impl Source for &[u8] {}

/// Why no more bytes come.
#[derive(Debug, Clone, Copy)]
enum End {
    Closed,
    Failed(io::ErrorKind),
}

/// Bytes that came piece by piece and were not read yet. It never waits: who reads past its end is told that it would have to,
/// and goes back to the beginning of the item it was reading.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    /// Those from `at` to `filled` are to be read. The rest is room.
    bytes: Vec<u8>,
    at: usize,
    filled: usize,
    /// Where to go back to.
    kept: usize,
    end: Option<End>,
}

impl Feed {
    /// Has `read` fill the room for at most so many bytes. Nobody is in the middle of an item.
    pub(crate) fn receive(
        &mut self,
        most: u64,
        read: impl FnOnce(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        if self.at > 0 {
            self.bytes.copy_within(self.at..self.filled, 0);
            (self.filled, self.at, self.kept) = (self.filled - self.at, 0, 0);
        }
        if self.bytes.len() > KEEP_ROOM && self.filled < ROOM {
            self.bytes.truncate(2 * ROOM);
            self.bytes.shrink_to_fit();
        }
        if self.bytes.len() - self.filled < ROOM {
            self.bytes.resize(self.filled + self.filled.max(ROOM), 0);
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(self.bytes.len() - self.filled);
        let count = read(&mut self.bytes[self.filled..self.filled + most])?;
        self.filled += count;
        Ok(count)
    }

    /// No more comes: that was all.
    pub(crate) fn close(&mut self) {
        self.end = Some(End::Closed);
    }

    /// No more comes, for this reason.
    pub(crate) fn fail(&mut self, why: io::ErrorKind) {
        self.end.get_or_insert(End::Failed(why));
    }

    /// Whether no more comes.
    pub(crate) fn is_ended(&self) -> bool {
        self.end.is_some()
    }

    /// What came and was not read yet.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.at..self.filled]
    }
}

impl Read for Feed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Feed {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.end {
            _ if self.at < self.filled => Ok(&self.bytes[self.at..self.filled]),
            None => Err(io::ErrorKind::WouldBlock.into()),
            Some(End::Closed) => Ok(&[]),
            Some(End::Failed(kind)) => Err(kind.into()),
        }
    }

    #[inline]
    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Source for Feed {
    fn keep(&mut self) {
        self.kept = self.at;
    }

    fn go_back(&mut self) -> bool {
        self.at = self.kept;
        true
    }
}
