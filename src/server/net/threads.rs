//! Which links live on I/O threads, and what those threads report.
//!
//! With few busy clients, the main thread serves them itself: a way over another thread costs each request more than it
//! saves. With many, each link moves to a thread as soon as it is heard of, and comes home in the same way.
//!
//! No more threads have links than there is work for: each time a thread wakes, or wakes the main thread, costs as much as
//! several requests, and the more there is for it to do then, the less that is for each.

use crate::net::io::{Batch, Far, Finder, FoundAt, Home, IoThread, Report, Secure};
use crate::net::listener::reason;
use crate::net::reactor::Ready;
use crate::net::{ClientId, Conn, Link, Secured, Source};
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags, FOUND_FAR, ToRun};
use crate::server::dispatch::ahead::{self, Ahead};
use crate::server::net::serve::READ_BYTES;
use std::borrow::Cow;
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// How long clients are counted that are heard of, and the main thread's work, milliseconds.
const PERIOD_MS: i64 = 50;
/// Links move to the threads when the main thread was at work for so much of a period, with so many clients.
const BUSY_US: u64 = 10_000;
const SEVERAL_CLIENTS: u32 = 4;
/// For how many periods clients have to be few before links come home, and what is few.
const QUIET_PERIODS: u32 = 10;
const FEW_CLIENTS: usize = 2;
/// Another thread gets links when one of them was at work for so much of a period, in percent; one fewer has links when
/// those that are left would have had so much to do each, in so many periods in a row.
const FULL_PERCENT: u128 = 80;
const SPARE_PERCENT: u128 = 65;
const SPARE_PERIODS: u32 = 10;
/// How often the work of the threads is compared, milliseconds, and what difference is too much.
const BALANCE_MS: i64 = 1000;
const IMBALANCE: Duration = Duration::from_millis(200);
/// Turns in a row that may pass without the poll while there are reports to see to.
const MOST_UNPOLLED: u32 = 4;
/// How long the main thread waits for a link that it needs at once.
const HOME_AT_ONCE: Duration = Duration::from_secs(1);

/// Reports of a thread that were taken, and what of them was seen to.
#[derive(Debug, Default)]
struct Arrived {
    batch: Batch<Report>,
    next: usize,
    bytes_at: usize,
    found_at: FoundAt,
}

/// Where input that came from a thread is.
enum Came {
    /// In a batch that arrived from this thread; and where in that what was found in it is.
    InBatch(usize, Range<usize>, FoundAt),
    ByItself(Vec<u8>),
}

#[derive(Default)]
pub(crate) struct IoThreads {
    threads: Vec<Arc<IoThread>>,
    /// By thread.
    arrived: Vec<Arrived>,
    links: Vec<usize>,
    /// How long they were at work in the periods since that was compared.
    busy: Vec<Duration>,
    /// Links move to the threads: to the first ones, so many.
    is_spread: bool,
    in_use: usize,
    /// Periods in a row in which one fewer would have done.
    spare_periods: u32,
    /// The time each thread had been at work when the period began.
    busy_before: Vec<Duration>,
    /// The number of the period, and when it began.
    period: u64,
    period_began_ms: i64,
    /// The time the main thread had been at work when it began, microseconds.
    worked_us: u64,
    /// Clients heard of in it whose links live here, a bit for each 64th of them; the number of those elsewhere; and how many
    /// periods before it were quiet.
    heard_here: u64,
    heard: usize,
    quiet_periods: u32,
    next_balance_ms: i64,
    /// The threads had input in the last turn.
    is_busy: bool,
    /// Turns since the poll was asked.
    turns_unpolled: u32,
    /// Links that came home at once, and are not watched yet.
    came_home: Vec<ClientId>,
    /// The thread of the next handshake.
    next_handshake: usize,
    /// Connections that came back while their clients were in the middle of a command.
    held: Vec<(ClientId, Box<Conn>, usize)>,
    /// What was read, and handed over to be written, for INFO.
    pub(crate) reads: u64,
    pub(crate) writes: u64,
}

impl IoThreads {
    pub(crate) fn are_there(&self) -> bool {
        !self.threads.is_empty()
    }

    /// Whether clients are served through the threads.
    pub(crate) fn are_active(&self) -> bool {
        self.is_spread
    }

    /// The number of the period.
    pub(crate) fn period(&self) -> u64 {
        self.period
    }

    /// Memory of output that is on its way to the threads. It is gone in a moment, so no keys have to go for it; and of some of
    /// it, such as invalidations, there would be more for every key.
    pub(crate) fn output_on_the_way(&self) -> usize {
        self.threads.iter().map(|thread| thread.output_on_the_way()).sum()
    }

    /// Passes on what the threads are to do.
    fn post(&self) {
        for thread in &self.threads {
            thread.post();
        }
    }

    fn has_reports(&self) -> bool {
        self.threads.iter().any(|thread| thread.has_reports())
    }

    /// Whether the loop may sleep; a report ends its sleep.
    fn let_loop_sleep(&self) -> bool {
        self.held.is_empty() && self.threads.iter().all(|thread| thread.lets_main_sleep())
    }

    fn is_spent(&self, thread: usize) -> bool {
        self.arrived[thread].next >= self.arrived[thread].batch.messages.len()
    }

    /// Takes what a thread has reported first, once all that was taken before was seen to. Returns how many more batches there
    /// are.
    fn take(&mut self, thread: usize) -> usize {
        if !self.is_spent(thread) {
            return 0;
        }
        let arrived = &mut self.arrived[thread];
        arrived.batch.clear();
        (arrived.next, arrived.bytes_at, arrived.found_at) = (0, 0, FoundAt::default());
        self.threads[thread].take_reports(&mut arrived.batch)
    }

    /// The thread a link is best at.
    fn least_loaded(&self) -> usize {
        (0..self.in_use).min_by_key(|at| self.links[*at]).unwrap_or(0)
    }

    /// Links move to the threads as soon as the main thread has had that much to do in a period. `worked_us`: the time it has been
    /// at work since it was started.
    fn spread_if_busy(&mut self, worked_us: u64) {
        let is_busy = worked_us.saturating_sub(self.worked_us) >= BUSY_US;
        if !self.is_spread && is_busy && self.heard_here.count_ones() >= SEVERAL_CLIENTS {
            self.is_spread = true;
            self.quiet_periods = 0;
        }
    }

    /// Takes note of what a period has shown; `worked_us` as above. Returns the thread that is to have links, too, if one is.
    fn end_period(&mut self, now_ms: i64, worked_us: u64, always: bool) -> Option<usize> {
        let elapsed = Duration::from_millis((now_ms - self.period_began_ms).max(1) as u64);
        self.period_began_ms = now_ms;
        self.period += 1;
        (self.worked_us, self.heard_here) = (worked_us, 0);
        match std::mem::take(&mut self.heard) {
            // Nobody suffers.
            0 => {}
            1..=FEW_CLIENTS => self.quiet_periods += 1,
            _ => self.quiet_periods = 0,
        }
        if self.is_spread && self.quiet_periods >= QUIET_PERIODS && !always {
            self.is_spread = false;
        }
        let work: Vec<Duration> = self.threads.iter().zip(&mut self.busy_before).map(since).collect();
        self.busy.iter_mut().zip(&work).for_each(|(busy, work)| *busy += *work);
        if always { None } else { self.use_as_needed(elapsed, &work) }
    }

    /// Settles on how many threads have links, of which each was at work for so much of a period. Returns the one that joins.
    fn use_as_needed(&mut self, period: Duration, work: &[Duration]) -> Option<usize> {
        let work = &work[..self.in_use];
        let percent = |work: Duration| work.as_nanos() * 100 / period.as_nanos();
        let most = work.iter().copied().max().map_or(0, percent);
        let of_fewer = SPARE_PERCENT * (work.len() as u128 - 1);
        if most >= FULL_PERCENT {
            self.spare_periods = 0;
            if self.in_use < self.links.len() {
                self.in_use += 1;
                return Some(self.in_use - 1);
            }
        } else if percent(work.iter().sum()) < of_fewer {
            self.spare_periods += 1;
            if self.spare_periods >= SPARE_PERIODS {
                self.spare_periods = 0;
                self.in_use -= 1;
            }
        } else {
            self.spare_periods = 0;
        }
        None
    }

    /// The threads that had most and least to do since this was asked last, and the part of the first one's links that
    /// should move to the other; if that is worth it.
    fn imbalance(&mut self) -> Option<(usize, usize, usize)> {
        let mut work: Vec<Duration> = self.busy.iter_mut().map(std::mem::take).collect();
        work.truncate(self.in_use);
        let most = (0..work.len()).max_by_key(|at| work[*at])?;
        let least = (0..work.len()).min_by_key(|at| work[*at])?;
        let difference = work[most] - work[least];
        if difference < IMBALANCE {
            return None;
        }
        let share = difference.as_secs_f64() / 2.0 / work[most].as_secs_f64();
        let count = (self.links[most] as f64 * share) as usize;
        (count > 0).then_some((most, least, count))
    }
}

/// How long a thread was at work since this was asked last.
fn since((thread, before): (&Arc<IoThread>, &mut Duration)) -> Duration {
    let busy = thread.busy();
    busy.saturating_sub(std::mem::replace(before, busy))
}

/// Whether a client's connection may move away from the main thread.
fn may_leave(c: &Client) -> bool {
    let stays = ClientFlags::REPLICA
        .union(ClientFlags::MASTER)
        .union(ClientFlags::EXPORT)
        .union(ClientFlags::SCRIPT_DEBUG)
        .union(ClientFlags::CLOSE_ASAP)
        .union(ClientFlags::CLOSE_AFTER_REPLY);
    !c.is(stays) && matches!(c.conn, Some(Conn::Tcp(_) | Conn::Unix(_) | Conn::Tls(_)))
}

impl Server {
    /// Starts the threads that the configuration asks for: the main thread counts as one.
    pub(crate) fn start_io_threads(&mut self) -> io::Result<()> {
        let count = self.cfg.io_threads - 1;
        let finder = Finder { seed: self.ks.seed, per_slot: self.ks.is_per_slot() };
        for index in 0..count {
            let thread = IoThread::start((index, count), &self.cfg.server_cpulist, finder, self.reactor.waker())?;
            self.io.threads.push(thread);
        }
        self.io.arrived.resize_with(count, Arrived::default);
        self.io.links.resize(count, 0);
        self.io.busy.resize(count, Duration::ZERO);
        self.io.busy_before.resize(count, Duration::ZERO);
        self.io.is_spread = count > 0 && self.cfg.io_threads_always_active;
        self.io.in_use = if self.io.is_spread { count } else { count.min(1) };
        Ok(())
    }

    /// Ends the threads; what was written to clients leaves as far as their sockets take it.
    pub(crate) fn stop_io_threads(&mut self) {
        for thread in std::mem::take(&mut self.io.threads) {
            thread.stop();
        }
    }

    /// Whether handshakes are done elsewhere: begins this one, if so.
    pub(super) fn secure_elsewhere(&mut self, conn: Conn, whose: Secured) -> Option<Conn> {
        let count = self.io.threads.len();
        if count == 0 || whose != Secured::Client {
            return Some(conn);
        }
        // Handshakes are no links yet: one thread after the other.
        self.io.next_handshake = (self.io.next_handshake + 1) % count;
        let thread = &self.io.threads[self.io.next_handshake];
        thread.secure(Secure { conn: Box::new(conn), whose });
        None
    }

    /// Moves a client's link to a thread, if that is how clients are served now. Whether it lives on one.
    #[inline]
    pub(super) fn send_away(&mut self, id: ClientId) -> bool {
        self.io.is_spread && self.send_away_now(id)
    }

    #[cold]
    fn send_away_now(&mut self, id: ClientId) -> bool {
        if self.clients.current == Some(id) {
            return false;
        }
        let Some(c) = self.clients.get_mut(id).filter(|c| may_leave(c)) else { return false };
        let Some(mut conn) = c.link.conn.take() else { return false };
        // One that was not registered need not be forgotten.
        let _ = conn.deregister(self.reactor.registry());
        self.settle_at(id, conn, self.io.least_loaded());
        true
    }

    fn settle_at(&mut self, id: ClientId, conn: Conn, at: usize) {
        let thread = &self.io.threads[at];
        if let Some(c) = self.clients.get_mut(id) {
            c.link.conn = Some(Conn::Far(Box::new(Far::new(thread, id, conn))));
            self.io.links[at] += 1;
            if !c.out.is_empty() {
                // That the socket takes it shows to the thread, which has none of it.
                self.clients.want_write(id);
            }
        }
    }

    /// A client's connection goes away; `is_killed`: with what is on its way to the peer.
    pub(super) fn note_link_gone(&mut self, conn: &mut Conn, is_killed: bool) {
        if let Conn::Far(far) = conn {
            self.io.links[far.home()] -= 1;
            if is_killed {
                far.discard_output();
            }
        }
    }

    /// The client's connection, on this thread: there is something that only works here. False if it cannot be had.
    pub(crate) fn bring_home(&mut self, id: ClientId) -> bool {
        let Some(c) = self.clients.get_mut(id) else { return false };
        let Some(Conn::Far(far)) = &mut c.link.conn else { return true };
        if !far.is_at_rest() {
            return false;
        }
        let home = far.home();
        let Some(conn) = far.call_home(HOME_AT_ONCE) else {
            self.clients.close_later(id);
            return false;
        };
        self.io.links[home] -= 1;
        c.link.conn = Some(conn);
        // What its thread has read comes before what is read here.
        self.io.came_home.push(id);
        true
    }

    /// Watches the sockets of links that came home at once.
    fn watch_came_home(&mut self) {
        for id in std::mem::take(&mut self.io.came_home) {
            if let Some(conn) = self.clients.get_mut(id).and_then(|c| c.link.conn.take()) {
                self.settle_here(id, conn);
            }
        }
    }

    fn settle_here(&mut self, id: ClientId, mut conn: Conn) {
        if let Err(e) = conn.register(self.reactor.registry(), Source::Client(id).token()) {
            log::warn!("Error registering the event for the new client: {}", reason(&e));
            self.clients.close_later(id);
        }
        let holds_more = conn.holds_more();
        let Some(c) = self.clients.get_mut(id) else { return };
        c.link.conn = Some(conn);
        if holds_more {
            self.clients.want_read(id);
        }
    }

    /// The poll of a turn. While the threads are busy and have nothing at hand, others may run before the loop sleeps, so that it
    /// need not: waking costs much more than a request. With reports at hand, the poll itself can wait for a few turns.
    pub(crate) fn poll_with_io_threads(&mut self, timeout: Duration) -> io::Result<Vec<Ready>> {
        self.io.post();
        if self.io.is_busy && !timeout.is_zero() && !self.io.has_reports() {
            std::thread::yield_now();
        }
        let may_sleep = !timeout.is_zero() && self.io.let_loop_sleep();
        // The bus and the replication links are served first in every turn.
        let may_wait = self.bus.is_none() && !self.has_replicas() && self.repl.master_client().is_none();
        if !may_sleep && may_wait && self.io.is_busy && self.io.turns_unpolled < MOST_UNPOLLED {
            self.io.turns_unpolled += 1;
            return Ok(self.reactor.nothing());
        }
        self.io.turns_unpolled = 0;
        self.reactor.poll(Some(if may_sleep { timeout } else { Duration::ZERO }))
    }

    /// Sees to what the threads have reported, and to how clients are served; `events`: those of this turn.
    pub(crate) fn see_to_io_threads(&mut self, ahead: &mut Ahead, events: &[Ready]) {
        for (id, conn, thread) in std::mem::take(&mut self.io.held) {
            self.take_back(id, conn, thread);
        }
        for event in events {
            if let Source::Client(id) = event.source {
                self.io.heard_here |= 1 << (id.index % 64);
            }
        }
        let mut far = 0;
        for thread in 0..self.io.threads.len() {
            // A turn around this one may have been in the middle of it.
            self.see_to_reports(ahead, thread);
            let more = self.io.take(thread);
            far += self.see_to_reports(ahead, thread);
            // All that is there now, as links that came home are watched after what their threads had read.
            for _ in 0..more {
                self.io.take(thread);
                far += self.see_to_reports(ahead, thread);
            }
        }
        self.io.is_busy = far > 0;
        if !self.is_nested_turn() {
            self.watch_came_home();
        }
        let now_ms = self.clock.mono_ms();
        let worked_us = self.admin.metrics.cycles_us;
        self.io.spread_if_busy(worked_us);
        if now_ms >= self.io.period_began_ms + PERIOD_MS {
            let joins = self.io.end_period(now_ms, worked_us, self.cfg.io_threads_always_active);
            if let Some(thread) = joins {
                self.give_share(thread);
            }
        }
        if now_ms >= self.io.next_balance_ms {
            self.io.next_balance_ms = now_ms + BALANCE_MS;
            self.balance_links();
        }
    }

    /// Sees to the reports that were taken from a thread. Gives from how many clients there was input.
    fn see_to_reports(&mut self, ahead: &mut Ahead, thread: usize) -> usize {
        let mut inputs = 0;
        while !self.io.is_spent(thread) {
            let arrived = &mut self.io.arrived[thread];
            let at = arrived.next;
            arrived.next += 1;
            match std::mem::replace(&mut arrived.batch.messages[at], Report::SeenTo) {
                Report::Input { client, len, found } => {
                    let bytes = arrived.bytes_at..arrived.bytes_at + len;
                    let found = arrived.found_at.next(found);
                    (arrived.bytes_at, arrived.found_at) = (bytes.end, found);
                    inputs += 1;
                    self.take_far_input(ahead, client, Came::InBatch(thread, bytes, found));
                }
                Report::MuchInput { client, bytes } => {
                    inputs += 1;
                    self.take_far_input(ahead, client, Came::ByItself(bytes));
                }
                Report::Ended { client, end } => self.end_far(ahead, client, end),
                Report::Room { client } => self.clients.want_write(client),
                Report::Released { client, conn } => self.take_back(client, conn, thread),
                Report::Secured { secure: Secure { conn, .. } } => self.add_connection(ahead, *conn),
                Report::SeenTo => {}
            }
        }
        inputs
    }

    /// Input of a client came from a thread.
    fn take_far_input(&mut self, ahead: &mut Ahead, id: ClientId, came: Came) {
        let is_running = self.clients.current == Some(id);
        let is_nested = self.is_nested_turn();
        let Server { io, clients, .. } = self;
        let Some(c) = clients.get_mut(id) else { return };
        let (bytes, found) = match came {
            Came::InBatch(thread, range, at) => {
                let batch = &io.arrived[thread].batch;
                (Cow::Borrowed(&batch.bytes[range]), Some(batch.found.at(at)))
            }
            Came::ByItself(bytes) => (Cow::Owned(bytes), None),
        };
        io.reads += 1;
        let count = bytes.len();
        let Link { conn: Some(Conn::Far(far)), query, query_pos, parser, .. } = &mut c.link else {
            // It was needed here at once, and came home before what was read from it.
            c.link.query.extend_from_slice(&bytes);
            return clients.want_read(id);
        };
        if far.heard_in != io.period {
            far.heard_in = io.period;
            io.heard += 1;
        }
        if !io.is_spread {
            far.move_to(Home::Main);
        } else if far.home() >= io.in_use {
            far.move_to(Home::Thread(io.least_loaded()));
        }
        if c.flags.has(ClientFlags::CLOSE_ASAP.union(ClientFlags::CLOSE_AFTER_REPLY)) {
            // Nobody wants it any more.
            return far.note_taken(count);
        }
        if is_running || far.holds_input() {
            // Its buffers are in use.
            far.keep(&bytes);
            return clients.want_read(id);
        }
        far.note_taken(count);
        // A request begins here only if none is under way; within a long command nobody looks ahead.
        let may_begin = query.is_empty() && !parser.in_multibulk() && !is_nested;
        let found = found.filter(|(requests, _)| may_begin && !requests.is_empty());
        if found.is_some() {
            c.ahead = FOUND_FAR;
        }
        let wanted = parser.wanted_len().map_or(0, |n| (*query_pos + n).saturating_sub(query.len()));
        if wanted > count {
            query.reserve_exact(wanted.min(1 << 20));
        }
        match bytes {
            Cow::Owned(bytes) if query.is_empty() && wanted <= count => *query = bytes,
            bytes => {
                // As much as one read of a link of our own would make room for; but the rest of a large argument has its
                // room already.
                let is_rest = wanted > 0 && query.len() > READ_BYTES;
                let room = if is_rest { count } else { READ_BYTES.max(count) };
                if query.capacity() - query.len() < room {
                    query.reserve(room);
                }
                query.extend_from_slice(&bytes);
            }
        }
        let found_at = found.map_or(FoundAt::default(), |found| clients.found.add(found));
        self.note_read(id, count);
        self.input_is_there(ahead, ToRun { id, more: false, found: found_at });
    }

    fn end_far(&mut self, ahead: &mut Ahead, id: ClientId, end: Result<(), io::ErrorKind>) {
        let Some(c) = self.clients.get_mut(id) else { return };
        let Some(Conn::Far(far)) = &mut c.link.conn else { return };
        far.note_end(end);
        // What came before its end runs first.
        if let Some(client) = self.clients.to_run.iter_mut().find(|client| client.id == id) {
            client.more = true;
            return;
        }
        self.on_client_ready(
            ahead,
            id,
            Ready { source: Source::Client(id), readable: true, writable: false, closed: true },
        );
    }

    /// A connection came back, to stay or to go to another thread.
    fn take_back(&mut self, id: ClientId, conn: Box<Conn>, thread: usize) {
        let is_running = self.clients.current == Some(id);
        // Whoever is gone has no use for it.
        let Some(c) = self.clients.get_mut(id) else { return };
        let Some(Conn::Far(far)) = &mut c.link.conn else { return };
        if is_running || far.holds_input() {
            return self.io.held.push((id, conn, thread));
        }
        let to = far.moving_to.unwrap_or(Home::Main);
        far.forget();
        self.io.links[thread] -= 1;
        match to {
            Home::Thread(at) => self.settle_at(id, *conn, at),
            Home::Main => self.settle_here(id, *conn),
        }
        if self.clients.get(id).is_some_and(|c| !c.out.is_empty() || c.is(ClientFlags::REPLICA)) {
            self.clients.want_write(id);
        }
    }

    /// Moves links from a thread that has much more to do than another.
    fn balance_links(&mut self) {
        let Some((from, to, count)) = self.io.imbalance() else { return };
        self.move_busy_links(from, to, count);
    }

    /// Gives a thread that had no links its share of those of each other one.
    fn give_share(&mut self, to: usize) {
        for from in 0..to {
            self.move_busy_links(from, to, self.io.links[from] / (to + 1));
        }
    }

    /// Moves so many links that were heard of lately.
    fn move_busy_links(&mut self, from: usize, to: usize, count: usize) {
        let period = self.io.period;
        let is_busy = |far: &&mut Box<Far>| far.home() == from && far.moving_to.is_none() && far.heard_in + 1 >= period;
        let far = self.clients.iter_mut().filter_map(|c| match &mut c.link.conn {
            Some(Conn::Far(far)) => Some(far),
            _ => None,
        });
        far.filter(is_busy).take(count).for_each(|far| far.move_to(Home::Thread(to)));
    }

    /// Input of a client stands in its query buffer: it runs with that of others.
    fn input_is_there(&mut self, ahead: &mut Ahead, client: ToRun) {
        let id = client.id;
        if self.is_nested_turn() {
            // Within a long command: its look-ahead is under way.
            self.process_input(ahead, id);
            return self.check_query_limit(id, self.cfg.client_query_buffer_limit as usize);
        }
        match self.clients.to_run.last_mut() {
            Some(last) if last.id == id => {
                // Something is found only where the buffer was empty: what was found before has run.
                if client.found.is_some() {
                    last.found = client.found;
                }
            }
            _ => self.clients.to_run.push(client),
        }
        if self.clients.to_run.len() >= ahead::CLIENTS {
            self.run_inputs(ahead);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_millis(50);

    fn work(ms: &[u64]) -> Vec<Duration> {
        ms.iter().copied().map(Duration::from_millis).collect()
    }

    #[test]
    fn links_move_as_soon_as_several_clients_keep_the_main_thread_busy() {
        let mut io = IoThreads { worked_us: 500, heard_here: 0b111, ..IoThreads::default() };
        io.spread_if_busy(500 + 5 * BUSY_US);
        assert!(!io.is_spread, "few clients");
        io.heard_here = 0b1111;
        io.spread_if_busy(499 + BUSY_US);
        assert!(!io.is_spread, "little work in this period");
        io.spread_if_busy(500 + BUSY_US);
        assert!(io.is_spread);
        io.end_period(PERIOD_MS, 500 + BUSY_US, true);
        assert!(io.is_spread && (io.worked_us, io.heard_here) == (500 + BUSY_US, 0));
    }

    #[test]
    fn as_many_threads_have_links_as_there_is_work_for() {
        let mut io = IoThreads { links: vec![0; 3], in_use: 1, ..IoThreads::default() };
        assert_eq!(io.use_as_needed(PERIOD, &work(&[39, 0, 0])), None);
        assert_eq!(io.use_as_needed(PERIOD, &work(&[40, 0, 0])), Some(1));
        assert_eq!(io.use_as_needed(PERIOD, &work(&[10, 41, 0])), Some(2));
        assert_eq!((io.use_as_needed(PERIOD, &work(&[50, 50, 50])), io.in_use), (None, 3));
        // A longer period has more work in it.
        assert_eq!((io.use_as_needed(2 * PERIOD, &work(&[79, 79, 79])), io.in_use), (None, 3));
    }

    #[test]
    fn a_thread_is_left_out_when_the_others_would_not_feel_it() {
        let mut io = IoThreads { links: vec![0; 2], in_use: 2, ..IoThreads::default() };
        for _ in 0..3 * SPARE_PERIODS {
            // As much as one could do, but then it would have to come back soon.
            assert_eq!((io.use_as_needed(PERIOD, &work(&[16, 17])), io.in_use), (None, 2));
        }
        for _ in 1..SPARE_PERIODS {
            assert_eq!((io.use_as_needed(PERIOD, &work(&[16, 16])), io.in_use), (None, 2));
        }
        io.use_as_needed(PERIOD, &work(&[20, 20]));
        for left in (0..SPARE_PERIODS).rev() {
            assert_eq!(io.in_use, 2);
            io.use_as_needed(PERIOD, &work(&[2, 0]));
            assert_eq!(io.in_use == 1, left == 0);
        }
        for _ in 0..3 * SPARE_PERIODS {
            io.use_as_needed(PERIOD, &work(&[0, 0]));
        }
        assert_eq!(io.in_use, 1);
    }
}
