//! A walk over slots that move: gives each key as commands, a slice at a time, while the keys are in use.
//!
//! Keys go slot by slot and within a slot in order of their hashes, so it can be told of any key, there or not, whether the
//! walk has passed it. Two rules keep the target's keys right:
//!
//! - A write goes into the stream if all its keys have been sent. One to a key that is yet to be sent does not: the key goes
//!   later, as it is then. Nothing need be remembered for it, and nothing is sent on its account.
//! - A write that also takes from a key which was not sent, or only in part, does not go either. What it changed of keys that
//!   were sent is sent again, whole: such keys are `late`.
//!
//! So once a key has gone, it is at the target what it is here after every command of the stream.
//!
//! A value that is too large for a slice goes in parts. When it is written to meanwhile it is late, too, and begun again, at
//! the end of the line, so that it waits for nobody and nobody waits for it. One that was begun so often that more would be
//! wasted is held: writes to it wait until it has gone, which its length bounds, as no part of it waits for the target then.
//! (Scripts that write to keys they have not named, and keys that expire or are evicted, do not wait: the value is begun again.)
//!
//! Keys that are late go before those that are yet to be passed, but not for ever: a page of the latter has its turn after
//! some of the former, so the walk ends however fast keys become late.

use crate::keyspace::{Db, Entry, KeyHash};
use crate::persist::as_commands::{Place, put_entry};
use crate::resp::encode::put_command;
use crate::structs::slots::{Slot, SlotSet};
use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;

/// Keys found at once.
const PAGE_KEYS: usize = 64;
/// A value is held when it has been begun so often before.
const BEGUN_AGAIN: u32 = 2;
/// A longer string goes in parts of this length, bytes.
const LONGEST_STRING: usize = 256 * 1024;
/// What is late goes first until it has cost so much: bytes, and for each key some more.
const LATE_BEFORE_PAGE: usize = 64 * 1024;
const COST_OF_LATE_KEY: usize = 1024;

/// A key that was passed and is not sent, or not as it is now.
#[derive(Debug)]
struct Late {
    place: Place,
    /// The target may have something under this name.
    may_be_there: bool,
    /// It was sent whole before, so writes to it have gone, and this is to come after them.
    is_again: bool,
    /// How often it was begun in vain.
    begun: u32,
}

/// What a slice gives. Where keys go by another way than writes, as some nodes want it, and are taken in first, the parts differ.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Keys that are sent for the first time.
    pub(super) keys: Vec<u8>,
    /// Keys that are sent again: they go as writes do.
    pub(super) again: Vec<u8>,
}

impl Output {
    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.again.len()
    }
}

#[derive(Debug)]
pub(super) struct Walk {
    /// The slots that are not done, in order; the first one is under way.
    slots: VecDeque<Slot>,
    /// Where in it.
    cursor: u64,
    late: HashMap<Vec<u8>, Late>,
    /// The keys that are late, in the order in which they go. Only the first one may have gone in part.
    line: VecDeque<Vec<u8>>,
    /// The length of their names together.
    name_bytes: usize,
    /// What they have cost since the last page.
    late_cost: usize,
    /// A key is held no longer, which those who wait have not been told.
    has_let_go: bool,
    longest_string: usize,
}

/// A key of a command, and whether that only reads it.
pub(super) type KeyUse<'a> = (&'a [u8], bool);

impl Walk {
    pub(super) fn new(slots: &SlotSet) -> Walk {
        Walk {
            slots: slots.iter().collect(),
            cursor: 0,
            late: HashMap::new(),
            line: VecDeque::new(),
            name_bytes: 0,
            late_cost: 0,
            has_let_go: false,
            longest_string: LONGEST_STRING,
        }
    }

    /// Appends what comes next, until `goes_on` says no (it is told how much there is). Whether all has been sent.
    pub(super) fn go_on(&mut self, db: &Db, out: &mut Output, goes_on: &mut dyn FnMut(usize) -> bool) -> bool {
        while self.send_late(db, out, goes_on) {
            let Some(slot) = self.slots.front() else { return true };
            self.late_cost = 0;
            self.send_page(db, *slot, &mut out.keys, goes_on);
            if !goes_on(out.len()) {
                break;
            }
        }
        self.line.is_empty() && self.slots.is_empty()
    }

    /// Sends the keys of a page, as many as there is time for; the others are late.
    fn send_page(&mut self, db: &Db, slot: Slot, out: &mut Vec<u8>, goes_on: &mut dyn FnMut(usize) -> bool) {
        let (cursor, longest_string) = (self.cursor, self.longest_string);
        let mut is_over = false;
        self.cursor = db.scan_slot(slot, cursor, PAGE_KEYS, |entry| {
            let mut place = Place::START;
            if !is_over {
                put_part(out, entry, &mut place, longest_string, goes_on);
                is_over = place != Place::Done || !goes_on(out.len());
            }
            if place != Place::Done {
                self.add_late(entry.key(), Late { place, may_be_there: false, is_again: false, begun: 0 });
            }
        });
        if self.cursor == 0 {
            self.slots.pop_front();
        }
    }

    fn add_late(&mut self, key: &[u8], late: Late) {
        self.name_bytes += key.len();
        if late.place == Place::START {
            self.line.push_back(key.to_vec());
        } else {
            self.line.push_front(key.to_vec());
        }
        self.late.insert(key.to_vec(), late);
    }

    /// Sends what is late. Whether a page comes next.
    fn send_late(&mut self, db: &Db, out: &mut Output, goes_on: &mut dyn FnMut(usize) -> bool) -> bool {
        while let Some(key) = self.line.front() {
            let Some(late) = self.late.get_mut(key) else { return false };
            // What was begun is gone on with, and nobody is to wait for a page.
            let is_next = late.place != Place::START || late.begun >= BEGUN_AGAIN || self.slots.is_empty();
            if self.late_cost >= LATE_BEFORE_PAGE && !is_next {
                return true;
            }
            let way = if late.is_again { &mut out.again } else { &mut out.keys };
            let before = way.len();
            if late.may_be_there && late.place == Place::START {
                put_command(way, &[b"DEL", key]);
                late.may_be_there = false;
            }
            match db.get(key) {
                Some(entry) => put_part(way, entry, &mut late.place, self.longest_string, goes_on),
                None => late.place = Place::Done,
            }
            self.late_cost += way.len() - before;
            if late.place != Place::Done {
                return false;
            }
            self.late_cost += COST_OF_LATE_KEY;
            self.has_let_go |= late.begun >= BEGUN_AGAIN;
            self.name_bytes -= key.len();
            if let Some(key) = self.line.pop_front() {
                self.late.remove(&key);
            }
            if !goes_on(out.len()) {
                return false;
            }
        }
        true
    }

    /// Whether a key, if it is there, has been sent as it is.
    fn has_sent(&self, hash: KeyHash, key: &[u8]) -> bool {
        self.has_passed(hash) && !self.late.contains_key(key)
    }

    fn has_passed(&self, hash: KeyHash) -> bool {
        match self.slots.front() {
            Some(slot) if *slot == hash.slot => hash.hash < self.cursor.reverse_bits(),
            Some(slot) => hash.slot < *slot,
            None => true,
        }
    }

    /// Whether a command that has been carried out goes into the stream. If it does not, what it changed is sent later.
    pub(super) fn takes(&mut self, db: &Db, keys: &[KeyUse<'_>]) -> bool {
        if keys.iter().all(|(key, _)| self.has_sent(db.hash(key), key)) {
            return true;
        }
        for (key, _) in keys.iter().filter(|(_, is_read)| !is_read) {
            self.note_change(db.hash(key), key);
        }
        false
    }

    /// What is sent of a key is no longer right.
    fn note_change(&mut self, hash: KeyHash, key: &[u8]) {
        if let Some(late) = self.late.get_mut(key) {
            if late.place != Place::START {
                self.has_let_go |= late.begun >= BEGUN_AGAIN;
                *late = Late { place: Place::START, may_be_there: true, begun: late.begun + 1, ..*late };
                // It was the first.
                self.line.rotate_left(1);
            }
        } else if self.has_passed(hash) {
            self.add_late(key, Late { place: Place::START, may_be_there: true, is_again: true, begun: 0 });
        }
    }

    /// The key that is not to be written to until it has gone.
    pub(super) fn held(&self) -> Option<&[u8]> {
        let first = self.line.front()?;
        (self.late.get(first)?.begun >= BEGUN_AGAIN).then_some(first)
    }

    /// Whether part of a key has gone, and the next part comes next.
    pub(super) fn is_within_key(&self) -> bool {
        let first = self.line.front().and_then(|key| self.late.get(key));
        first.is_some_and(|late| late.place != Place::START)
    }

    /// Whether a key is held no longer of which [`Walk::take_let_go`] has not told.
    pub(super) fn has_let_go(&self) -> bool {
        self.has_let_go
    }

    pub(super) fn take_let_go(&mut self) -> bool {
        std::mem::take(&mut self.has_let_go)
    }

    /// Memory of what is noted of keys, bytes.
    pub(super) fn memory(&self) -> usize {
        let of_key = size_of::<(Vec<u8>, Late)>() + size_of::<Vec<u8>>();
        self.late.len() * of_key + 2 * self.name_bytes
    }
}

fn put_part(
    out: &mut Vec<u8>,
    entry: &Entry,
    place: &mut Place,
    longest_string: usize,
    goes_on: &mut dyn FnMut(usize) -> bool,
) {
    let put: Result<(), Infallible> = put_entry(out, entry, place, longest_string, &mut |out| Ok(goes_on(out.len())));
    let Ok(()) = put;
}

#[cfg(test)]
mod tests;
