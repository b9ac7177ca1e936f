//! Connections whose handshake goes on. They are no clients yet: they take no client's place, have a time by which to be
//! done, and only so many of them are there at once. Handshakes cost much more than requests, so what is done for them in
//! one turn is limited; those who are served already come first.

use super::listener::reason;
use super::{Conn, Secured, Source};
use mio::Registry;
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Handshakes at once, on all threads; with more, the oldest is given up.
const MOST: usize = 1024;
/// How long a handshake may take, milliseconds.
const TIMEOUT_MS: i64 = 10_000;
/// What handshakes may take of one turn.
const TIME_PER_TURN: Duration = Duration::from_millis(2);

#[derive(Debug)]
struct Pending {
    conn: Conn,
    whose: Secured,
    generation: u32,
    is_ready: bool,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Handshakes {
    most: usize,
    pending: Slab<Pending>,
    next_generation: u32,
    /// In the order in which they came: slot, generation, and when the time is up, monotonic milliseconds.
    order: VecDeque<(usize, u32, i64)>,
    /// Those whose sockets are ready.
    ready: VecDeque<(usize, u32)>,
}

impl Default for Handshakes {
    fn default() -> Handshakes {
        Handshakes::one_of(1)
    }
}

impl Handshakes {
    /// One of so many that may have [`MOST`] together.
    pub(crate) fn one_of(count: usize) -> Handshakes {
        Handshakes {
            most: (MOST / count.max(1)).max(1),
            pending: Slab::new(),
            next_generation: 0,
            order: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Whether something can be done without waiting.
    pub(crate) fn is_due(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// How many there are of these.
    pub(crate) fn count(&self, whose: Secured) -> usize {
        self.pending.iter().filter(|(_, pending)| pending.whose == whose).count()
    }

    fn get(&mut self, index: usize, generation: u32) -> Option<&mut Pending> {
        self.pending.get_mut(index).filter(|p| p.generation == generation)
    }

    /// Takes one away, if it is still there.
    fn take(&mut self, index: usize, generation: u32) -> Option<Pending> {
        self.get(index, generation)?;
        Some(self.pending.remove(index))
    }

    /// Takes away one that has to go: its time is up, or there are too many.
    fn take_overdue(&mut self, now_ms: i64) -> Option<Pending> {
        while let Some(&(index, generation, until_ms)) = self.order.front() {
            let is_there = self.get(index, generation).is_some();
            if is_there && until_ms > now_ms && self.pending.len() < self.most {
                return None;
            }
            self.order.pop_front();
            if is_there {
                return self.take(index, generation);
            }
        }
        None
    }

    /// Begins the handshake of a connection with TLS that is registered nowhere.
    pub(crate) fn begin(&mut self, mut conn: Conn, whose: Secured, registry: &Registry, now_ms: i64) {
        self.give_up_late(registry, now_ms);
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1) & ((1 << 28) - 1);
        let slot = self.pending.vacant_entry();
        let index = slot.key();
        if let Err(e) = conn.register(registry, Source::Handshake(index as u32, generation).token()) {
            return log_failure(&conn, whose, &e);
        }
        slot.insert(Pending { conn, whose, generation, is_ready: false });
        self.order.push_back((index, generation, now_ms + TIMEOUT_MS));
    }

    /// Gives up what takes too long.
    pub(crate) fn give_up_late(&mut self, registry: &Registry, now_ms: i64) {
        while let Some(mut pending) = self.take_overdue(now_ms) {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the handshake takes too long");
            log_failure(&pending.conn, pending.whose, &error);
            let _ = pending.conn.deregister(registry);
        }
    }

    /// A socket is ready.
    pub(crate) fn note_ready(&mut self, index: u32, generation: u32) {
        let index = index as usize;
        if let Some(pending) = self.get(index, generation)
            && !std::mem::replace(&mut pending.is_ready, true)
        {
            self.ready.push_back((index, generation));
        }
    }

    /// Goes on with handshakes whose peers have answered. Those that are done are given to `done`, and no longer registered.
    pub(crate) fn run(&mut self, registry: &Registry, done: &mut dyn FnMut(Conn, Secured)) {
        if self.ready.is_empty() {
            return;
        }
        let begun = Instant::now();
        while let Some((index, generation)) = self.ready.pop_front() {
            let Some(pending) = self.get(index, generation) else { continue };
            pending.is_ready = false;
            let result = pending.conn.finish_connecting();
            if !matches!(result, Ok(false))
                && let Some(Pending { mut conn, whose, .. }) = self.take(index, generation)
            {
                let _ = conn.deregister(registry);
                match result {
                    Ok(_) => done(conn, whose),
                    Err(e) => log_failure(&conn, whose, &e),
                }
            }
            if begun.elapsed() >= TIME_PER_TURN {
                break;
            }
        }
    }
}

fn log_failure(conn: &Conn, whose: Secured, error: &io::Error) {
    let shown = |address: Option<std::net::SocketAddr>| address.map_or("?".into(), |a| a.to_string());
    let (peer, local) = (shown(conn.peer()), shown(conn.local()));
    let what = match whose {
        Secured::Bus => "Error accepting cluster node connection",
        Secured::Client | Secured::Opened | Secured::Operator => "Error accepting a client connection",
    };
    log::warn!("{what}: {} (addr={peer} laddr={local})", reason(error));
}
