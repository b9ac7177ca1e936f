//! Connections whose handshake goes on. They are no clients yet: they take no client's place, have a time by which to be
//! done, and only so many of them are there at once. Handshakes cost much more than requests, so what is done for them in
//! one turn is limited; those who are served already come first.

use crate::net::listener::reason;
use crate::net::{Conn, Secured, Source};
use crate::server::Server;
use crate::server::dispatch::ahead::Ahead;
use slab::Slab;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// Handshakes at once; with more, the oldest is given up.
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
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    pending: Slab<Pending>,
    next_generation: u32,
    /// In the order in which they came: slot, generation, and when the time is up, monotonic milliseconds.
    order: VecDeque<(usize, u32, i64)>,
    /// Those whose sockets are ready.
    ready: VecDeque<(usize, u32)>,
}

impl Handshakes {
    /// Whether something can be done without waiting.
    pub(crate) fn is_due(&self) -> bool {
        !self.ready.is_empty()
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
            if is_there && until_ms > now_ms && self.pending.len() < MOST {
                return None;
            }
            self.order.pop_front();
            if is_there {
                return self.take(index, generation);
            }
        }
        None
    }

    pub(crate) fn note_ready(&mut self, index: u32, generation: u32) {
        let index = index as usize;
        if let Some(pending) = self.get(index, generation)
            && !std::mem::replace(&mut pending.is_ready, true)
        {
            self.ready.push_back((index, generation));
        }
    }
}

impl Server {
    /// Begins the handshake of a connection that was accepted.
    pub(crate) fn begin_handshake(&mut self, conn: Conn, whose: Secured) {
        let now_ms = self.clock.mono_ms();
        conn.set_nodelay(true);
        let secured = conn.secure(self.tls.contexts(), whose).and_then(|mut conn| {
            self.give_up_handshakes(now_ms);
            let generation = self.handshakes.next_generation;
            self.handshakes.next_generation = generation.wrapping_add(1) & ((1 << 28) - 1);
            let slot = self.handshakes.pending.vacant_entry();
            let index = slot.key();
            conn.register(self.reactor.registry(), Source::Handshake(index as u32, generation).token())?;
            slot.insert(Pending { conn, whose, generation, is_ready: false });
            self.handshakes.order.push_back((index, generation, now_ms + TIMEOUT_MS));
            Ok(())
        });
        if let Err(e) = secured {
            log::warn!("Error accepting a client connection: {}", reason(&e));
        }
    }

    /// Gives up what takes too long.
    fn give_up_handshakes(&mut self, now_ms: i64) {
        while let Some(mut pending) = self.handshakes.take_overdue(now_ms) {
            log_failure(&pending, &io::Error::new(io::ErrorKind::TimedOut, "the handshake takes too long"));
            let _ = pending.conn.deregister(self.reactor.registry());
        }
    }

    /// To be called by the cron.
    pub(crate) fn handshakes_cron(&mut self) {
        self.give_up_handshakes(self.clock.mono_ms());
    }

    /// Goes on with handshakes whose peers have answered.
    pub(crate) fn run_handshakes(&mut self, ahead: &mut Ahead) {
        if self.handshakes.ready.is_empty() {
            return;
        }
        let begun = Instant::now();
        while let Some((index, generation)) = self.handshakes.ready.pop_front() {
            self.run_handshake(ahead, index, generation);
            if begun.elapsed() >= TIME_PER_TURN {
                break;
            }
        }
    }

    fn run_handshake(&mut self, ahead: &mut Ahead, index: usize, generation: u32) {
        let Some(pending) = self.handshakes.get(index, generation) else { return };
        pending.is_ready = false;
        let done = pending.conn.finish_connecting();
        if matches!(done, Ok(false)) {
            return;
        }
        let Some(mut pending) = self.handshakes.take(index, generation) else { return };
        if let Err(e) = done {
            log_failure(&pending, &e);
            let _ = pending.conn.deregister(self.reactor.registry());
            return;
        }
        match pending.whose {
            Secured::Client | Secured::Opened => self.add_connection(ahead, pending.conn),
            Secured::Bus => self.add_bus_connection(pending.conn),
        }
    }

    /// Closes all of them.
    pub(crate) fn drop_handshakes(&mut self) {
        self.handshakes = Handshakes::default();
    }
}

fn log_failure(pending: &Pending, error: &io::Error) {
    let shown = |address: Option<std::net::SocketAddr>| address.map_or("?".into(), |a| a.to_string());
    let (peer, local) = (shown(pending.conn.peer()), shown(pending.conn.local()));
    let what = match pending.whose {
        Secured::Bus => "Error accepting cluster node connection",
        Secured::Client | Secured::Opened => "Error accepting a client connection",
    };
    log::warn!("{what}: {} (addr={peer} laddr={local})", reason(error));
}
