//! The port for operators: HTTP for those who watch, served by the same loop in slices, so that clients never wait for it.
//!
//! - here: its connections, of which there is a limited number; they are no clients
//! - `serve`: reading and writing them
//! - `routes`: who may ask for what, and what is answered
//! - `api`: what the page for operators is fed with; the page itself is in `admin/page/`
//! - `health`: whether this server is ready
//!
//! Invariant: everything on it only reads. What is understood of HTTP is in `admin::http`.

mod api;
mod health;
mod routes;
mod serve;

use crate::admin::history::History;
use crate::admin::logins::Logins;
use crate::net::listener::{self, Listener, reason};
use crate::net::{Conn, Secured, Source};
use crate::server::Server;
use routes::Task;
use slab::Slab;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::net::SocketAddr;

/// Connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 16;
/// How long the head of a request may take to come, milliseconds.
const HEAD_MS: i64 = 5_000;
/// How long a response may take to be fetched, milliseconds.
const RESPONSE_MS: i64 = 30_000;
/// How long a connection may do nothing, milliseconds: longer than it takes until the next scrape.
const IDLE_MS: i64 = 120_000;
/// How long what still comes is thrown away after the last response, milliseconds: the peer might not see it otherwise.
const LINGER_MS: i64 = 1_000;

#[derive(Debug)]
struct Connection {
    conn: Conn,
    peer: Option<SocketAddr>,
    generation: u32,
    /// What of requests has come and was not answered yet.
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// Makes more output when that is sent.
    task: Option<Task>,
    is_chunked: bool,
    /// It ends after the output.
    closes: bool,
    /// When its time is up, monotonic milliseconds.
    until_ms: i64,
    is_queued: bool,
    /// The socket may give or take more.
    is_readable: bool,
    is_writable: bool,
}

impl Connection {
    /// Nothing is under way.
    fn is_idle(&self) -> bool {
        self.input.is_empty() && self.output.is_empty() && self.task.is_none() && !self.closes
    }
}

/// Sees to it that operators, whatever they ask for, take no more than a share of the loop.
#[derive(Debug, Default)]
struct Pace {
    /// Nothing is done before this time, monotonic microseconds.
    next_us: i64,
}

impl Pace {
    /// For each microsecond that operators took, so many go to others.
    const OTHERS: i64 = 19;

    /// Something was done that ended now.
    fn took(&mut self, us: i64, now_us: i64) {
        self.next_us = now_us + us * Pace::OTHERS;
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct Port {
    listeners: Vec<Listener>,
    /// Listeners, by their places, at which connections may wait.
    unaccepted: Vec<usize>,
    conns: Slab<Connection>,
    next_generation: u32,
    /// Connections with something to do.
    ready: VecDeque<(usize, u32)>,
    pace: Pace,
    logins: Logins,
    history: History,
    /// Requests by path and status.
    pub(crate) requests: BTreeMap<(&'static str, u16), u64>,
    /// How long the last scrape took, microseconds.
    pub(crate) scrape_us: u64,
}

impl Port {
    /// When there is something to do, monotonic microseconds.
    pub(crate) fn due_us(&self) -> Option<i64> {
        let is_waiting = !self.ready.is_empty() || !self.unaccepted.is_empty();
        is_waiting.then_some(self.pace.next_us)
    }

    pub(crate) fn listeners(&self) -> &[Listener] {
        &self.listeners
    }

    pub(crate) fn connections(&self) -> usize {
        self.conns.len()
    }

    fn get(&mut self, index: usize, generation: u32) -> Option<&mut Connection> {
        self.conns.get_mut(index).filter(|c| c.generation == generation)
    }

    /// There is something to do for a connection.
    fn queue(&mut self, index: usize, generation: u32) {
        if let Some(c) = self.get(index, generation)
            && !std::mem::replace(&mut c.is_queued, true)
        {
            self.ready.push_back((index, generation));
        }
    }
}

impl Server {
    /// Opens the listeners that the configuration asks for, in place of those there are. The error is for the log.
    pub(crate) fn open_operators_port(&mut self) -> Result<(), String> {
        self.close_operators_port();
        let cfg = &self.cfg;
        if cfg.admin_port == 0 {
            return Ok(());
        }
        let failed = |e: &dyn std::fmt::Display| format!("Failed listening on port {} (admin): {e}", cfg.admin_port);
        let opened = listener::listen_tcp(&cfg.admin_bind, cfg.admin_port, cfg.tcp_backlog, &self.bind_names);
        let mut opened = opened.map_err(|e| failed(&reason(&e)))?;
        if opened.is_empty() {
            return Err(failed(&"no address to listen on"));
        }
        if cfg.admin_tls {
            opened = opened.into_iter().map(Listener::for_tls).collect();
        }
        for (i, l) in opened.iter_mut().enumerate() {
            l.register(self.reactor.registry(), Source::OperatorsListener(i as u32).token())
                .map_err(|e| failed(&reason(&e)))?;
        }
        self.port.listeners = opened;
        log::info!("Operators are served on port {}", cfg.admin_port);
        Ok(())
    }

    /// Closes listeners and connections.
    pub(crate) fn close_operators_port(&mut self) {
        let registry = self.reactor.registry();
        self.port.unaccepted.clear();
        self.port.history.forget();
        for mut listener in std::mem::take(&mut self.port.listeners) {
            let _ = listener.deregister(registry);
        }
        for mut c in self.port.conns.drain() {
            let _ = c.conn.deregister(registry);
        }
    }

    pub(crate) fn accept_operators(&mut self, listener: usize) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(l) = self.port.listeners.get(listener) else { return };
            match l.accept() {
                Ok(conn) if !l.is_tls() => self.add_operator(conn),
                // Handshakes count, too, as they cost more than anything that follows.
                Ok(_) if self.handshakes.count(Secured::Operator) >= self.cfg.admin_max_connections => {}
                Ok(conn) => self.begin_handshake(conn, Secured::Operator),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    // It may be there again when somebody else comes, which is soon enough.
                    return log::debug!("Accepting a connection of an operator: {}", reason(&e));
                }
            }
        }
        self.port.unaccepted.push(listener);
    }

    /// Takes a connection in, which has its handshake done if there is to be one and is not registered.
    pub(crate) fn add_operator(&mut self, mut conn: Conn) {
        if self.port.conns.len() >= self.cfg.admin_max_connections && !self.close_idle_operator() {
            // The socket's buffer takes it.
            let _ = conn.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            return;
        }
        conn.set_nodelay(true);
        let generation = self.port.next_generation;
        self.port.next_generation = generation.wrapping_add(1) & ((1 << 28) - 1);
        let slot = self.port.conns.vacant_entry();
        let index = slot.key();
        if let Err(e) = conn.register(self.reactor.registry(), Source::Operator(index as u32, generation).token()) {
            return log::warn!("Error registering the event for an operator: {}", reason(&e));
        }
        slot.insert(Connection {
            peer: conn.peer(),
            conn,
            generation,
            input: Vec::new(),
            output: Vec::new(),
            sent: 0,
            task: None,
            is_chunked: false,
            closes: false,
            until_ms: self.clock.mono_ms() + HEAD_MS,
            is_queued: false,
            is_readable: true,
            is_writable: true,
        });
        self.port.queue(index, generation);
    }

    /// Makes room: closes the idle connection whose time is up first. False: there is none.
    fn close_idle_operator(&mut self) -> bool {
        let idle = self.port.conns.iter().filter(|(_, c)| c.is_idle()).min_by_key(|(_, c)| c.until_ms);
        let Some((index, generation)) = idle.map(|(index, c)| (index, c.generation)) else { return false };
        self.close_operator(index, generation);
        true
    }

    fn close_operator(&mut self, index: usize, generation: u32) {
        if self.port.get(index, generation).is_some() {
            let mut c = self.port.conns.remove(index);
            let _ = c.conn.deregister(self.reactor.registry());
        }
    }

    /// Closes connections whose time is up, and takes samples: by the cron.
    pub(crate) fn operators_cron(&mut self) {
        if self.port.listeners.is_empty() {
            return;
        }
        if self.every_ms(1000) {
            self.note_history();
        }
        let now_ms = self.clock.mono_ms();
        let overdue = self.port.conns.iter().filter(|(_, c)| c.until_ms <= now_ms);
        for (index, generation) in overdue.map(|(index, c)| (index, c.generation)).collect::<Vec<_>>() {
            self.close_operator(index, generation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_take_a_twentieth_of_the_loop() {
        let (mut pace, mut now_us, mut taken_us) = (Pace::default(), 0, 0);
        while now_us < 1_000_000 {
            // There is always something to do, of any length.
            now_us = now_us.max(pace.next_us);
            let us = 50 + now_us % 900;
            (now_us, taken_us) = (now_us + us, taken_us + us);
            pace.took(us, now_us);
        }
        assert!((48_000..52_000).contains(&taken_us), "{taken_us}");
    }
}
