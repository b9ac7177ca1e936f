//! RESTORE of a large value, read in slices of a turn.
//!
//! The client waits, its request stays where it is as if it had just come, and for all others nothing has happened yet. When the
//! value is there the request runs, as any other does, and finds it. In transactions, scripts and the log nobody can wait: there
//! it is read at once.
//!
//! One value is read at a time, so no more is held that nobody has than before.

use crate::net::ClientId;
use crate::persist::rdb::{DumpError, DumpHow, SlicedRestore, Value};
use crate::resp::{Parsed, RequestParser};
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use crate::server::dispatch::blocked::{BlockKind, BlockState, WaitEnd};
use crate::sys::background::Discarded;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Payloads that are smaller than this are read at once, bytes.
const LARGE: usize = 64 << 10;
/// The longest slice of a turn.
const SLICE: Duration = Duration::from_millis(1);

/// Values that are being read, and who waits for it.
#[derive(Default)]
pub(crate) struct Restoring {
    current: Option<Current>,
    waiting: VecDeque<(ClientId, DumpHow)>,
}

struct Current {
    client: ClientId,
    state: State,
}

enum State {
    Reading(Box<SlicedRestore>),
    /// Of a payload of so many bytes.
    Read(usize, Result<Value, DumpError>),
    /// The request does not lie in the buffer of its client.
    AtOnce,
}

/// What a client that restores is to do.
pub(crate) enum Restored {
    /// Its request has been put off.
    Later,
    AtOnce,
    Value(Result<Value, DumpError>),
}

impl Restoring {
    fn take(&mut self, client: ClientId, len: usize) -> Option<Restored> {
        let current =
            self.current.take_if(|current| current.client == client && !matches!(current.state, State::Reading(_)))?;
        match current.state {
            State::Read(of, value) if of == len => Some(Restored::Value(value)),
            _ => Some(Restored::AtOnce),
        }
    }

    fn has(&self, client: ClientId) -> bool {
        self.current.as_ref().is_some_and(|current| current.client == client)
            || self.waiting.iter().any(|(waiting, _)| *waiting == client)
    }

    pub(crate) fn is_any(&self) -> bool {
        self.current.is_some() || !self.waiting.is_empty()
    }

    /// Whether there is something to go on with.
    pub(crate) fn is_busy(&self) -> bool {
        match &self.current {
            Some(current) => matches!(current.state, State::Reading(_)),
            None => !self.waiting.is_empty(),
        }
    }
}

impl Server {
    /// The value of a payload that a client restores.
    pub(crate) fn restored(&mut self, client: ClientId, payload: &[u8], how: DumpHow) -> Restored {
        if let Some(restored) = self.restoring.take(client, payload.len()) {
            return restored;
        }
        if payload.len() < LARGE || !self.may_restore_later(client) {
            return Restored::AtOnce;
        }
        if !self.restoring.has(client) {
            self.restoring.waiting.push_back((client, how));
        }
        self.block(client, BlockState { kind: BlockKind::Postponed, deadline_ms: None, command: None });
        self.postponed.push(client);
        Restored::Later
    }

    /// Whether a client can wait, and what it runs is the next request in its buffer.
    fn may_restore_later(&self, client: ClientId) -> bool {
        let may = |c: &Client| {
            let cannot = ClientFlags::DENY_BLOCKING
                .union(ClientFlags::MULTI)
                .union(ClientFlags::IMPORT)
                .union(ClientFlags::AOF)
                .union(ClientFlags::REPROCESSING);
            c.conn.is_some() && !c.is(cannot) && c.taken_query.1 > 0
        };
        self.depth == 1 && self.clients.current == Some(client) && self.clients.get(client).is_some_and(may)
    }

    /// Before the loop sleeps: goes on with the value at hand for a while.
    pub(crate) fn go_on_restoring(&mut self) {
        let deadline = Instant::now() + SLICE;
        while let Some(mut current) = self.restoring.current.take().or_else(|| self.next_to_restore()) {
            let client = current.client;
            let c = self.clients.get(client);
            let is_put_off = c.and_then(|c| c.block.as_ref()).is_some_and(|block| block.kind == BlockKind::Postponed);
            if !is_put_off && !c.is_some_and(|c| c.is(ClientFlags::UNBLOCKED)) {
                // The client went away, or its request came to something else.
                self.background.free(vec![Discarded { counted: 0, bytes: 0, garbage: Box::new(current) }]);
                continue;
            }
            let State::Reading(sliced) = &mut current.state else {
                self.restoring.current = Some(current);
                return;
            };
            let state = match self.payload_of(client) {
                None => Some(State::AtOnce),
                Some(payload) => sliced.step(payload, deadline).map(|value| State::Read(payload.len(), value)),
            };
            let is_over = state.is_some();
            current.state = state.unwrap_or(current.state);
            self.restoring.current = Some(current);
            if is_over && is_put_off {
                self.unblock(client, WaitEnd::Runs);
            }
            return;
        }
    }

    fn next_to_restore(&mut self) -> Option<Current> {
        let (client, how) = self.restoring.waiting.pop_front()?;
        Some(Current { client, state: State::Reading(Box::new(SlicedRestore::new(how))) })
    }

    /// The payload in the request that is the next in a client's buffer.
    fn payload_of(&self, client: ClientId) -> Option<&[u8]> {
        let c = self.clients.get(client)?;
        let request = c.query.get(c.query_pos..)?;
        let mut parser = RequestParser::default();
        match parser.parse(request, self.request_limits(client)) {
            Ok(Parsed::Command { .. }) => {
                let span = parser.spans().get(3)?;
                request.get(span.start..span.start + span.len)
            }
            _ => None,
        }
    }
}
