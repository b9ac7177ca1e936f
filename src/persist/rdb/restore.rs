//! Reading the payload of RESTORE in slices, so that a large value holds nobody up.
//!
//! The checksum comes first, as nothing of what was damaged on its way is to be looked at. Then the value is read in parts, of
//! which each has its bytes in a window of the payload. The payload stays with the caller.

use super::Feed;
use super::decode::{Item, Reader, Value};
use super::dump::{DumpError, How, Parts, read_layout, refused, stored};
use crate::structs::crc64;
use std::io::Read;
use std::time::Instant;

/// So much of the checksum is computed before the next look at the clock, bytes.
const CHECKED: usize = 64 << 10;
/// The size of the window, bytes.
const FED: u64 = 256 << 10;

/// How far a payload has been read.
pub(crate) struct SlicedRestore {
    how: How,
    stage: Stage,
    /// So much of the payload comes to the window at once, bytes.
    fed: u64,
}

enum Stage {
    /// The checksum of what lies before this place.
    Checking(usize, u64),
    Reading(Box<Reading>),
}

struct Reading {
    reader: Reader<Feed>,
    /// So much of the payload has been in the window.
    at: usize,
    /// So much comes to it at once.
    fed: u64,
}

impl SlicedRestore {
    pub(crate) fn new(how: How) -> SlicedRestore {
        SlicedRestore { how, stage: Stage::Checking(0, 0), fed: FED }
    }

    /// With a window of this size, bytes.
    #[cfg(test)]
    pub(crate) fn fed(self, fed: u64) -> SlicedRestore {
        SlicedRestore { fed, ..self }
    }

    /// Goes on until `deadline` with a payload, which is the same each time. Gives the value when that is read.
    pub(crate) fn step(&mut self, payload: &[u8], deadline: Instant) -> Option<Result<Value, DumpError>> {
        loop {
            if let Some(end) = self.go_on(payload).transpose() {
                return Some(end);
            }
            if Instant::now() >= deadline {
                return None;
            }
        }
    }

    /// One piece of work, which may be the last.
    fn go_on(&mut self, payload: &[u8]) -> Result<Option<Value>, DumpError> {
        let parts = Parts::of(payload, self.how.newer, self.how.skip_checksum)?;
        match &mut self.stage {
            Stage::Checking(at, crc) if parts.sum.is_some() && *at < parts.summed.len() => {
                let piece = &parts.summed[*at..parts.summed.len().min(*at + CHECKED)];
                (*at, *crc) = (*at + piece.len(), crc64::crc64(*crc, piece));
                Ok(None)
            }
            Stage::Checking(_, crc) if parts.sum.is_some_and(|sum| sum != *crc) => Err(DumpError::Footer),
            Stage::Checking(..) => {
                self.stage = Stage::Reading(Box::new(Reading::begin(parts.value, &self.how, self.fed)?));
                Ok(None)
            }
            Stage::Reading(reading) => reading.go_on(parts.value)?.map(stored).transpose(),
        }
    }
}

impl Reading {
    fn begin(bytes: &[u8], how: &How, fed: u64) -> Result<Reading, DumpError> {
        let reader = Reader::new(Feed::default(), false).deep(how.deep).limits(&how.limits);
        let mut reading = Reading { reader, at: 0, fed };
        reading.feed(bytes);
        let layout = read_layout(&mut reading.reader, how)?;
        reading.reader.begin_value(layout);
        Ok(reading)
    }

    fn feed(&mut self, bytes: &[u8]) {
        let feed = self.reader.source_mut();
        // Reading from a slice cannot fail.
        self.at += feed.receive(self.fed, |room| (&bytes[self.at..]).read(room)).unwrap_or_default();
        if self.at == bytes.len() {
            feed.close();
        }
    }

    fn go_on(&mut self, bytes: &[u8]) -> Result<Option<Value>, DumpError> {
        match self.reader.next_item() {
            Ok(Item::Part) => Ok(None),
            Ok(Item::Starved) => {
                self.feed(bytes);
                Ok(None)
            }
            Ok(Item::Key(item)) => Ok(Some(item.value)),
            Ok(_) => Err(DumpError::Value),
            Err(e) => Err(refused(e)),
        }
    }
}
