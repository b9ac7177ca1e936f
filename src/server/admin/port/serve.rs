//! Reading requests and writing responses, a little of each connection at a time.

use super::{Connection, HEAD_MS, IDLE_MS, LINGER_MS, RESPONSE_MS};
use crate::admin::http::{self, BodyLen, MAX_HEAD_BYTES, Parsed, Request, Status};
use crate::net::reactor::Ready;
use crate::server::Server;
use crate::server::admin::port::routes::Response;
use std::io::{self, Write};

/// What operators may take of one turn, about, microseconds.
const TIME_PER_TURN_US: i64 = 1_000;
/// Bytes written at a time.
const WRITE_BYTES: usize = 64 * 1024;

/// How a step of a connection ended.
enum Step {
    /// More can be done.
    Again,
    /// Its socket has to be waited for.
    Wait,
    Answer(Box<Request>),
    Refuse(Status),
    /// More output is to be made.
    Continue,
    Close,
}

impl Server {
    pub(crate) fn on_operator_ready(&mut self, index: u32, generation: u32, event: Ready) {
        let index = index as usize;
        if let Some(c) = self.port.get(index, generation) {
            c.is_readable |= event.readable || event.closed;
            c.is_writable |= event.writable || event.closed;
            self.port.queue(index, generation);
        }
    }

    /// When operators are to be served, wall clock.
    pub(crate) fn operators_deadline_ms(&self) -> Option<i64> {
        let left_us = self.port.due_us()? - self.clock.mono_us();
        // Before that nothing would be done.
        Some(self.clock.ms() + (left_us.max(0) + 999) / 1000)
    }

    /// Serves operators for a slice of the turn, one step of each in turn.
    pub(crate) fn serve_operators(&mut self) {
        let Some(due_us) = self.port.due_us() else { return };
        let begun_us = self.clock.tick_us();
        if begun_us < due_us {
            return;
        }
        for listener in std::mem::take(&mut self.port.unaccepted) {
            self.accept_operators(listener);
        }
        let mut now_us = begun_us;
        while let Some((index, generation)) = self.port.ready.pop_front() {
            self.step_operator(index, generation);
            now_us = self.clock.tick_us();
            if now_us - begun_us >= TIME_PER_TURN_US {
                break;
            }
        }
        self.port.pace.took(now_us - begun_us, now_us);
    }

    fn step_operator(&mut self, index: usize, generation: u32) {
        let now_ms = self.clock.mono_ms();
        let Some(c) = self.port.get(index, generation) else { return };
        c.is_queued = false;
        match c.step(now_ms) {
            Step::Again => {}
            Step::Wait => return,
            Step::Close => return self.close_operator(index, generation),
            Step::Refuse(status) => {
                self.port.count("", status);
                let response = Response::error(status);
                if let Some(c) = self.port.get(index, generation) {
                    c.respond(&Request::default(), response, now_ms);
                }
            }
            Step::Answer(request) => {
                let peer = c.peer;
                let response = self.answer_operator(&request, peer);
                if let Some(c) = self.port.get(index, generation) {
                    c.respond(&request, response, now_ms);
                }
            }
            Step::Continue => {
                let Some(mut task) = c.task.take() else { return };
                let (piece, is_done) = task.go_on(self);
                if let Some(c) = self.port.get(index, generation) {
                    c.append(&piece, is_done);
                    c.task = (!is_done).then_some(task);
                }
            }
        }
        self.port.queue(index, generation);
    }
}

impl Connection {
    /// Does one thing that is to be done.
    fn step(&mut self, now_ms: i64) -> Step {
        if self.sent < self.output.len() {
            return self.write_some();
        }
        if !self.output.is_empty() {
            self.output = Vec::new();
            self.sent = 0;
            if self.task.is_none() {
                if self.closes {
                    self.conn.end_output();
                }
                self.until_ms = now_ms
                    + match self.input.is_empty() {
                        _ if self.closes => LINGER_MS,
                        true => IDLE_MS,
                        // More was sent than one request.
                        false => HEAD_MS,
                    };
            }
        }
        if self.task.is_some() {
            return Step::Continue;
        }
        if self.closes {
            self.input.clear();
            return self.read_some(now_ms);
        }
        match http::parse(&self.input) {
            Parsed::Request(request, len) => {
                self.input.drain(..len);
                Step::Answer(request)
            }
            Parsed::Bad(status) => Step::Refuse(status),
            Parsed::Partial => self.read_some(now_ms),
        }
    }

    fn read_some(&mut self, now_ms: i64) -> Step {
        if !self.is_readable {
            return Step::Wait;
        }
        self.input.reserve_exact(MAX_HEAD_BYTES - self.input.len());
        let begins = self.input.is_empty() && !self.closes;
        match self.conn.read_to_spare(&mut self.input) {
            Ok(0) => Step::Close,
            Ok(_) => {
                if begins {
                    self.until_ms = now_ms + HEAD_MS;
                }
                Step::Again
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.is_readable = false;
                if self.input.is_empty() {
                    self.input = Vec::new();
                }
                Step::Wait
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Step::Again,
            Err(_) => Step::Close,
        }
    }

    fn write_some(&mut self) -> Step {
        if !self.is_writable {
            return Step::Wait;
        }
        let end = self.output.len().min(self.sent + WRITE_BYTES);
        match self.conn.write(&self.output[self.sent..end]) {
            Ok(0) => Step::Close,
            Ok(n) => {
                self.sent += n;
                Step::Again
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                self.is_writable = false;
                Step::Wait
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Step::Again,
            Err(_) => Step::Close,
        }
    }

    fn respond(&mut self, request: &Request, response: Response, now_ms: i64) {
        let is_whole = response.task.is_none();
        let len = match (is_whole, request.is_1_0) {
            (true, _) => BodyLen::Known(response.body.len()),
            (false, false) => BodyLen::Chunks,
            (false, true) => BodyLen::ToTheEnd,
        };
        let keeps_alive = request.keeps_alive && len != BodyLen::ToTheEnd;
        self.output = http::head(response.status, response.content_type, len, keeps_alive, &response.more);
        self.sent = 0;
        self.closes = !keeps_alive;
        self.is_chunked = len == BodyLen::Chunks;
        self.until_ms = now_ms + RESPONSE_MS;
        if request.is_head {
            return;
        }
        if is_whole {
            self.output.extend_from_slice(&response.body);
        } else {
            self.append(&response.body, false);
            self.task = response.task;
        }
    }

    /// Adds a piece of a body that is not known as a whole.
    fn append(&mut self, piece: &[u8], is_last: bool) {
        if !self.is_chunked {
            return self.output.extend_from_slice(piece);
        }
        if !piece.is_empty() {
            self.output.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
            self.output.extend_from_slice(piece);
            self.output.extend_from_slice(b"\r\n");
        }
        if is_last {
            self.output.extend_from_slice(b"0\r\n\r\n");
        }
    }
}
