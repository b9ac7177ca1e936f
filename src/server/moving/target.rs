//! The connection to the target of MIGRATE, and what is said over it: commands out, a line for each back. Nothing here waits.

use crate::net::Conn;
use std::io::{self, Read, Write};
use std::ops::Range;

/// Bytes written in one step.
const BYTES_PER_STEP: usize = 1 << 20;
/// Longest reply line taken in.
const MAX_REPLY_LINE: usize = 1024;
/// Replies taken in in one step.
const REPLIES_PER_STEP: usize = 1024;

/// A connection to a target, kept for the next MIGRATE.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) conn: Conn,
    /// Its number in the poll.
    pub(super) number: u32,
    is_connected: bool,
    /// Database the target has selected for it, if known.
    pub(super) db: Option<i64>,
    pub(super) used_s: i64,
    input: Vec<u8>,
    /// So much of it was looked at.
    seen: usize,
}

impl Target {
    pub(super) fn new(conn: Conn, number: u32) -> Target {
        Target { conn, number, is_connected: false, db: None, used_s: 0, input: Vec::new(), seen: 0 }
    }

    /// Whether the connection stands.
    pub(super) fn finish_connecting(&mut self) -> io::Result<bool> {
        if !self.is_connected && self.conn.finish_connecting()? {
            self.is_connected = true;
            self.conn.set_nodelay(true);
        }
        Ok(self.is_connected)
    }

    /// Whether nothing more has come, and the target is still there: what it says unasked would be taken for the answer
    /// to the next thing it is told.
    pub(super) fn is_idle(&mut self) -> bool {
        self.seen == self.input.len()
            && matches!(self.conn.read(&mut [0; 64]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Where in the input the next line is, without its end, if one is there.
    fn read_line(&mut self) -> io::Result<Option<Range<usize>>> {
        loop {
            let start = self.seen;
            if let Some(len) = memchr::memchr(b'\n', &self.input[start..]) {
                self.seen += len + 1;
                let is_cr = len > 0 && self.input[start + len - 1] == b'\r';
                return Ok(Some(start..start + len - usize::from(is_cr)));
            }
            self.input.drain(..start);
            self.seen = 0;
            if self.input.len() > MAX_REPLY_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
            if !self.conn.read_some(&mut self.input)? {
                return Ok(None);
            }
        }
    }
}

/// What is sent, in pieces, which stay until all is over: it may have to be sent again.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    pieces: Vec<Vec<u8>>,
    /// The piece that is being sent, and how much of it went.
    at: (usize, usize),
}

impl Outgoing {
    pub(super) fn add(&mut self, piece: Vec<u8>) {
        self.pieces.push(piece);
    }

    /// To be sent from the beginning, with this before it in place of what was there.
    pub(super) fn begin(&mut self, head: Vec<u8>) {
        if let Some(first) = self.pieces.first_mut() {
            *first = head;
        }
        self.at = (0, 0);
    }

    /// The first piece is room for what `begin` puts there.
    pub(super) fn new() -> Outgoing {
        Outgoing { pieces: vec![Vec::new()], at: (0, 0) }
    }

    pub(super) fn is_sent(&self) -> bool {
        self.pieces[self.at.0.min(self.pieces.len())..].iter().all(Vec::is_empty)
    }

    fn rest(&self) -> Option<&[u8]> {
        self.pieces.get(self.at.0).map(|piece| &piece[self.at.1..])
    }

    fn advance(&mut self, count: usize) {
        self.at.1 += count;
        while self.pieces.get(self.at.0).is_some_and(|piece| self.at.1 >= piece.len()) {
            self.at = (self.at.0 + 1, 0);
        }
    }
}

/// How an exchange went.
#[derive(Debug)]
pub(super) enum Exchanged {
    /// Every key it answered for was taken over; `error` is the first refusal.
    Done { moved: Vec<usize>, error: Option<Vec<u8>> },
    /// The connection failed before any key was answered for.
    NothingSent { writing: bool, cause: io::Error },
    /// It failed after some were.
    Broken { moved: Vec<usize>, error: Option<Vec<u8>> },
}

/// What was answered so far.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// Replies that come before those of the keys.
    pub(super) replies_before: usize,
    /// The keys in the order in which they go.
    pub(super) sent: Vec<usize>,
    answered: usize,
    refused_before: Option<Vec<u8>>,
    moved: Vec<usize>,
    error: Option<Vec<u8>>,
}

/// What a step of an exchange came to.
#[derive(Debug)]
pub(super) enum Stepped {
    /// It goes on when the connection is ready again. Whether anything went or came.
    Waits(bool),
    /// The connection takes or gives more, but others have their turn.
    HasMore,
    Over(Exchanged),
}

impl Exchange {
    /// Sends and reads what can be.
    pub(super) fn step(&mut self, target: &mut Target, out: &mut Outgoing) -> Stepped {
        let (mut budget, mut has_moved) = (BYTES_PER_STEP, false);
        loop {
            out.advance(0);
            let Some(rest) = out.rest() else { break };
            match target.conn.write(&rest[..rest.len().min(budget)]) {
                Ok(0) => return Stepped::Waits(has_moved),
                Ok(count) => {
                    has_moved = true;
                    out.advance(count);
                    budget -= count;
                    if budget == 0 {
                        return Stepped::HasMore;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Stepped::Waits(has_moved),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => return Stepped::Over(Exchanged::NothingSent { writing: true, cause }),
            }
        }
        let most = self.answered + REPLIES_PER_STEP;
        while self.answered < self.replies_before + self.sent.len() {
            if self.answered == most {
                return Stepped::HasMore;
            }
            match target.read_line() {
                Ok(Some(line)) => self.take(&target.input[line]),
                Ok(None) => return Stepped::Waits(has_moved),
                Err(cause) => return Stepped::Over(self.failed(false, cause)),
            }
            has_moved = true;
        }
        let (moved, error) = (std::mem::take(&mut self.moved), self.error.take());
        Stepped::Over(Exchanged::Done { moved, error })
    }

    fn take(&mut self, line: &[u8]) {
        let is_refusal = line.starts_with(b"-");
        if self.answered < self.replies_before {
            if is_refusal && self.refused_before.is_none() {
                self.refused_before = Some(line.to_vec());
            }
        } else {
            let refusal = self.refused_before.as_deref().or(is_refusal.then_some(line));
            match refusal {
                Some(refusal) => _ = self.error.get_or_insert_with(|| refusal[1..].to_vec()),
                None => self.moved.push(self.sent[self.answered - self.replies_before]),
            }
        }
        self.answered += 1;
    }

    /// The connection failed.
    pub(super) fn failed(&mut self, writing: bool, cause: io::Error) -> Exchanged {
        if self.answered <= self.replies_before {
            return Exchanged::NothingSent { writing, cause };
        }
        Exchanged::Broken { moved: std::mem::take(&mut self.moved), error: self.error.take() }
    }

    /// It begins anew.
    pub(super) fn forget_answers(&mut self) {
        *self = Exchange { sent: std::mem::take(&mut self.sent), ..Exchange::default() };
    }
}
