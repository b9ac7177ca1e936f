//! A snapshot that comes piece by piece, as a replica gets it from its primary.
//!
//! `FeedLoad` is the load of such a snapshot from a [`Feed`], with what must follow it.
//!
//! Invariant: no byte beyond the announced length, or beyond the end mark, is asked for or taken. Where the bytes come from,
//! and when there are more, is the caller's business.

use super::load::LoadedRepl;
use super::loading::{Asks, Env, How, Slice, SnapshotLoad, Step};
use super::rdb::{Error, Feed};
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// An item of which no more than this is there is tried again as soon as more comes.
const QUICKLY_READ: usize = 64 * 1024;
/// Otherwise it waits so long for each byte of it, that trying again and again takes no large part of the time.
const WAIT_NS_PER_BYTE: u64 = 40;

/// An item that was tried though not all of it is there.
#[derive(Debug, Clone, Copy)]
struct Tried {
    len: usize,
    at: Instant,
}

impl Tried {
    /// Whether to try again with `len` bytes: what is read in vain must stay a small part of the work.
    fn is_over(self, len: usize, now: Instant) -> bool {
        len > self.len
            && (self.len <= QUICKLY_READ
                || len / 2 >= self.len
                || now.duration_since(self.at) >= Duration::from_nanos(WAIT_NS_PER_BYTE * self.len as u64))
    }
}

/// Why such a load failed.
#[derive(Debug)]
pub(crate) enum FeedError {
    Snapshot(Error),
    /// What follows the snapshot is not its end mark.
    Mark,
}

/// How such a load goes on.
#[derive(Debug)]
pub(crate) enum FeedStep {
    /// The slice is used up.
    Pause,
    /// More bytes are needed.
    Starved,
    Asks(Asks),
    Done(LoadedRepl),
}

/// The load of a snapshot that comes piece by piece.
pub(crate) struct FeedLoad {
    snapshot: SnapshotLoad<Feed>,
    /// What follows the snapshot.
    mark: Option<Vec<u8>>,
    /// Bytes that may still come.
    left: u64,
    tried: Option<Tried>,
    /// Everything but the end mark is there.
    loaded: Option<LoadedRepl>,
}

impl FeedLoad {
    /// A snapshot of `length` bytes, or one after which `mark` comes.
    pub(crate) fn new(how: &How, length: Option<u64>, mark: Option<Vec<u8>>) -> FeedLoad {
        let mut load = FeedLoad {
            snapshot: SnapshotLoad::new(Feed::default(), how),
            mark,
            left: length.unwrap_or(u64::MAX),
            tried: None,
            loaded: None,
        };
        load.end_if_complete();
        load
    }

    pub(crate) fn snapshot(&self) -> &SnapshotLoad<Feed> {
        &self.snapshot
    }

    /// Takes what of these bytes belongs to the snapshot; gives how many.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) -> usize {
        let len = bytes.len();
        while self.left > 0 && !bytes.is_empty() {
            // Reading from a slice cannot fail.
            let _ = self.receive(|room| bytes.read(room));
        }
        len - bytes.len()
    }

    /// Has `read` fill some room, as a read from a link does: 0 is the end.
    pub(crate) fn receive(&mut self, read: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        let left = self.left;
        let feed = self.snapshot.source_mut();
        let count = feed.receive(left, read)?;
        if count == 0 && left > 0 {
            feed.close();
        }
        self.left -= count as u64;
        self.end_if_complete();
        Ok(count)
    }

    fn end_if_complete(&mut self) {
        if self.left == 0 {
            self.snapshot.source_mut().close();
        }
    }

    /// No more comes, for this reason.
    pub(crate) fn fail(&mut self, why: io::ErrorKind) {
        self.snapshot.source_mut().fail(why);
    }

    /// Whether there is something to do with the bytes that are there.
    pub(crate) fn may_go_on(&mut self, now: Instant) -> bool {
        let Some(tried) = self.tried else { return true };
        let feed = self.snapshot.source_mut();
        feed.is_ended() || tried.is_over(feed.unread().len(), now)
    }

    /// Bytes that came and were not read yet.
    pub(crate) fn gathered(&mut self) -> usize {
        self.snapshot.source_mut().unread().len()
    }

    /// Whether all there will be of the snapshot, or more than is needed to tell, has come.
    pub(crate) fn is_complete(&mut self) -> bool {
        let feed = self.snapshot.source_mut();
        feed.is_ended() || self.mark.as_ref().is_some_and(|mark| feed.unread().ends_with(mark))
    }

    /// Goes on until the slice is used up or the bytes are.
    pub(crate) fn step(&mut self, env: &mut Env<'_>, slice: &mut Slice) -> Result<FeedStep, FeedError> {
        self.tried = None;
        if self.loaded.is_none() {
            match self.snapshot.step(env, slice).map_err(FeedError::Snapshot)? {
                Step::Pause => return Ok(FeedStep::Pause),
                Step::Asks(asks) => return Ok(FeedStep::Asks(asks)),
                Step::Starved => return Ok(self.starved()),
                Step::Done(position) => self.loaded = Some(position),
            }
        }
        let feed = self.snapshot.source_mut();
        if let Some(mark) = &self.mark {
            let found = feed.unread();
            if found.len() < mark.len() && mark.starts_with(found) && !feed.is_ended() {
                return Ok(self.starved());
            }
            if !found.starts_with(mark) {
                return Err(FeedError::Mark);
            }
        }
        Ok(FeedStep::Done(self.loaded.take().unwrap_or_default()))
    }

    fn starved(&mut self) -> FeedStep {
        self.tried = Some(Tried { len: self.snapshot.source_mut().unread().len(), at: Instant::now() });
        FeedStep::Starved
    }
}

#[cfg(test)]
mod tests;
