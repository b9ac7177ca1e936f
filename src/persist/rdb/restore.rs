//! Reading the payload of RESTORE in slices, so that a large value holds nobody up.
//!
//! The checksum comes first, as nothing of what was damaged on its way is to be looked at. Then the value is read in parts, of
//! which each has its bytes in a window of the payload. The payload stays with the caller.

use super::Source;
use super::decode::{Item, Reader, Value};
use super::dump::{DumpError, Footer, How, read_end, read_layout, stored};
use crate::structs::crc64;
use std::io::{self, BufRead, Read};
use std::time::Instant;

/// So much of the checksum is computed before the next look at the clock, bytes.
const CHECKED: usize = 64 << 10;
/// The size of the window, bytes.
const FED: usize = 256 << 10;

/// How far a payload has been read.
pub(crate) struct SlicedRestore {
    how: How,
    stage: Stage,
    /// So much of the payload comes to the window at once, bytes.
    fed: usize,
}

enum Stage {
    /// The checksum of what lies before this place.
    Checking(usize, u64),
    Reading(Box<Reading>),
}

struct Reading {
    reader: Reader<Window>,
    /// So much of the payload has been in the window.
    at: usize,
    /// So much comes to it at once.
    fed: usize,
    /// Something follows the value.
    has_end: bool,
}

impl SlicedRestore {
    pub(crate) fn new(how: How) -> SlicedRestore {
        SlicedRestore { how, stage: Stage::Checking(0, 0), fed: FED }
    }

    /// With a window of this size, bytes.
    #[cfg(test)]
    pub(crate) fn fed(self, fed: usize) -> SlicedRestore {
        SlicedRestore { fed, ..self }
    }

    /// Goes on until `deadline` with a payload, which is the same each time. Gives the value when that is read.
    pub(crate) fn step(&mut self, payload: &[u8], deadline: Instant) -> Option<Result<Value, DumpError>> {
        loop {
            if let Err(end) = self.go_on(payload) {
                return Some(end);
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    /// One piece of work. The error is what all of it came to.
    fn go_on(&mut self, payload: &[u8]) -> Result<(), Result<Value, DumpError>> {
        let footer = Footer::of(payload, &self.how).map_err(Err)?;
        let read_from = footer.read_from(payload, &self.how);
        match &mut self.stage {
            Stage::Checking(at, crc) if footer.has_sum(&self.how) && *at < footer.summed.len() => {
                let piece = &footer.summed[*at..footer.summed.len().min(*at + CHECKED)];
                (*at, *crc) = (*at + piece.len(), crc64::crc64(*crc, piece));
            }
            Stage::Checking(_, crc) => {
                if footer.has_sum(&self.how) && footer.sum != *crc {
                    return Err(Err(DumpError::Footer));
                }
                self.stage = Stage::Reading(Box::new(Reading::begin(read_from, &self.how, self.fed).map_err(Err)?));
            }
            Stage::Reading(reading) => match reading.go_on(read_from) {
                Ok(None) => {}
                Ok(Some(value)) => return Err(stored(value)),
                Err(e) => return Err(Err(e)),
            },
        }
        Ok(())
    }
}

impl Reading {
    fn begin(bytes: &[u8], how: &How, fed: usize) -> Result<Reading, DumpError> {
        let reader = Reader::new(Window::default(), false).deep(how.deep && !how.newer).limits(&how.limits);
        let mut reading = Reading { reader, at: 0, fed, has_end: false };
        reading.feed(bytes);
        let (layout, has_end) = read_layout(&mut reading.reader, how)?;
        reading.has_end = has_end;
        reading.reader.begin_value(layout);
        Ok(reading)
    }

    fn feed(&mut self, bytes: &[u8]) {
        let next = bytes.len().min(self.at + self.fed);
        self.reader.source_mut().add(&bytes[self.at..next], next == bytes.len());
        self.at = next;
    }

    fn go_on(&mut self, bytes: &[u8]) -> Result<Option<Value>, DumpError> {
        match self.reader.next_item() {
            Ok(Item::Part) => Ok(None),
            Ok(Item::Starved) => {
                self.feed(bytes);
                Ok(None)
            }
            Ok(Item::Key(item)) => {
                if self.has_end {
                    // A few numbers, of which the window may hold but some.
                    while self.at < bytes.len() {
                        self.feed(bytes);
                    }
                    read_end(&mut self.reader)?;
                }
                Ok(Some(item.value))
            }
            Ok(_) => Err(DumpError::Value),
            Err(e) => {
                log::debug!("{e}");
                Err(DumpError::Value)
            }
        }
    }
}

/// A part of a payload, to which the next is added when it has been read.
#[derive(Default)]
struct Window {
    bytes: Vec<u8>,
    at: usize,
    /// Where to go back to.
    kept: usize,
    /// Nothing comes any more.
    is_last: bool,
}

impl Window {
    /// Nobody is in the middle of something.
    fn add(&mut self, bytes: &[u8], is_last: bool) {
        self.bytes.drain(..self.at);
        (self.at, self.kept, self.is_last) = (0, 0, is_last);
        self.bytes.extend_from_slice(bytes);
    }
}

impl Read for Window {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Window {
    #[inline]
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let left = &self.bytes[self.at..];
        if left.is_empty() && !self.is_last { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(left) }
    }

    #[inline]
    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Source for Window {
    fn keep(&mut self) {
        self.kept = self.at;
    }

    fn go_back(&mut self) -> bool {
        self.at = self.kept;
        true
    }
}
