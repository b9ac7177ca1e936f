//! An I/O thread: the handle that the main thread has, and the loop.

use super::far::{INPUT_WINDOW, OUTPUT_WINDOW, Shared};
use super::finder::{Finder, FoundCounts};
use super::mailbox::{Batch, KEPT_BYTES, Mailbox};
use super::pace::Pace;
use crate::net::handshakes::Handshakes;
use crate::net::listener::reason;
use crate::net::{ClientId, Conn, Secured, Source};
use crate::sys::alloc::OwnArena;
use crate::sys::process;
use mio::{Events, Poll, Waker};
use slab::Slab;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Bytes asked for by one read.
const READ_BYTES: usize = 16 * 1024;
/// A link that sent this much at once is read into memory of its own, which the main thread need not copy.
const MUCH_BYTES: usize = 4 * 1024;
/// Reads from one link before others get their turn.
const READS_PER_TURN: usize = 16;
/// What was handed over is passed on from this size on, before the main thread's turn ends: with the next reply of usual
/// size it fits the room that batches keep.
const POST_BYTES: usize = KEPT_BYTES - 16 * 1024;
/// How long a link that was closed may take for the rest of its output, milliseconds, and how many may at once, on all
/// threads.
const LINGER_MS: i64 = 10_000;
const MOST_LINGERING: usize = 1024;
/// Longest sleep with something that has its time.
const TICK: Duration = Duration::from_millis(100);
/// How often a thread at work says how much processor time it has had.
const COUNT_EVERY: Duration = Duration::from_millis(5);

/// What the main thread wants of an I/O thread.
#[derive(Debug)]
pub(super) enum Order {
    Adopt {
        client: ClientId,
        conn: Box<Conn>,
        shared: Arc<Shared>,
    },
    /// So many bytes of the batch are output of a client.
    Write {
        client: ClientId,
        len: usize,
    },
    /// So many bytes of the client's input were taken.
    Taken {
        client: ClientId,
        bytes: usize,
    },
    Nodelay {
        client: ClientId,
        on: bool,
    },
    /// Give the connection back when its output is written: with a report, or here.
    Release {
        client: ClientId,
        to: Option<Sender<Box<Conn>>>,
    },
    /// Close it: when its output is written, or at once.
    Close {
        client: ClientId,
        at_once: bool,
    },
    /// Do its handshake.
    Handshake {
        secure: Secure,
    },
    Stop,
}

/// A connection before or after its handshake, registered nowhere.
#[derive(Debug)]
pub(crate) struct Secure {
    pub(crate) conn: Box<Conn>,
    pub(crate) whose: Secured,
}

/// What an I/O thread has to tell.
#[derive(Debug)]
pub(crate) enum Report {
    /// So many bytes of the batch came from the peer of a client, and so many requests were found in them, which count if a request
    /// begins with the first byte.
    Input { client: ClientId, len: usize, found: FoundCounts },
    /// Much input of a client, by itself.
    MuchInput { client: ClientId, bytes: Vec<u8> },
    /// The peer sends no more, or the connection failed and is closed.
    Ended { client: ClientId, end: Result<(), io::ErrorKind> },
    /// Output that found no room may be handed over.
    Room { client: ClientId },
    /// A connection that was asked for.
    Released { client: ClientId, conn: Box<Conn> },
    /// A handshake is done.
    Secured { secure: Secure },
    /// Stands where one was that was seen to.
    SeenTo,
}

/// The main thread's handle of an I/O thread.
pub(crate) struct IoThread {
    /// Its place in the list of threads, and how many there are.
    pub(super) index: usize,
    count: usize,
    /// What the main thread has for it and has not posted yet: used for each reply.
    staged: Apart<Mutex<Batch<Order>>>,
    orders: Apart<Mailbox<Order>>,
    reports: Apart<Mailbox<Report>>,
    /// Its processor time, nanoseconds, as of not long ago.
    busy_ns: AtomicU64,
    handle: Mutex<Option<JoinHandle<()>>>,
}

/// In cache lines of its own (two, as processors fetch pairs of them), so that what another thread does beside it costs nothing.
#[repr(align(128))]
struct Apart<T>(T);

impl std::fmt::Debug for IoThread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IoThread").field("index", &self.index).finish_non_exhaustive()
    }
}

impl IoThread {
    /// Starts the thread of this number, from 0, of so many, on some processors (see [`process::set_cpu_affinity`]). `main`
    /// wakes the main thread.
    pub(crate) fn start(
        (index, count): (usize, usize),
        cpus: &str,
        finder: Finder,
        main: Arc<Waker>,
    ) -> io::Result<Arc<IoThread>> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), Source::Waker.token())?);
        let shared = Arc::new(IoThread {
            index,
            count,
            staged: Apart(Mutex::new(Batch::with_room())),
            orders: Apart(Mailbox::new(waker, Batch::with_room())),
            reports: Apart(Mailbox::new(main, Batch::default())),
            busy_ns: AtomicU64::new(0),
            handle: Mutex::new(None),
        });
        let cpus = cpus.to_owned();
        let worker = Worker {
            shared: shared.clone(),
            poll,
            finder,
            pace: Pace::new(),
            links: Vec::new(),
            handshakes: Handshakes::one_of(count),
            reports: Batch::default(),
            unfinished: Vec::new(),
            lingering: Slab::new(),
            started: Instant::now(),
        };
        let handle = thread::Builder::new().name(format!("io_thd_{}", index + 1)).spawn(move || {
            process::set_cpu_affinity(&cpus);
            // The more there is to do after a sleep, the less each part of it costs: whoever it is that sends may go on.
            process::let_others_finish();
            process::sleep_exactly();
            let _arena = OwnArena::take();
            worker.run();
        })?;
        *shared.handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        Ok(shared)
    }

    fn staged(&self) -> MutexGuard<'_, Batch<Order>> {
        // Only the main thread locks it, so it never waits.
        self.staged.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn order(&self, order: Order) {
        self.staged().messages.push(order);
    }

    /// Hands over the first `len` bytes of these.
    pub(super) fn write(&self, client: ClientId, slices: &[IoSlice<'_>], len: usize) {
        let mut staged = self.staged();
        let mut left = len;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            staged.bytes.extend_from_slice(part);
            left -= part.len();
        }
        match staged.messages.last_mut() {
            Some(Order::Write { client: last, len: so_far }) if *last == client => *so_far += len,
            _ => staged.messages.push(Order::Write { client, len }),
        }
        if staged.bytes.len() >= POST_BYTES {
            self.post_batch(&mut staged);
        }
    }

    /// Begins a handshake.
    pub(crate) fn secure(&self, secure: Secure) {
        self.order(Order::Handshake { secure });
    }

    /// Passes on what was said since this was called last.
    pub(crate) fn post(&self) {
        let mut staged = self.staged();
        if !staged.is_empty() {
            self.post_batch(&mut staged);
        }
    }

    fn post_batch(&self, staged: &mut Batch<Order>) {
        if let Err(e) = self.orders.0.post(staged) {
            log::warn!("An I/O thread could not be woken: {}", reason(&e));
        }
    }

    /// Takes what the thread has reported first; `into` has to be empty. Returns how many more batches of reports there are.
    pub(crate) fn take_reports(&self, into: &mut Batch<Report>) -> usize {
        self.reports.0.take(into)
    }

    pub(crate) fn has_reports(&self) -> bool {
        !self.reports.0.is_empty()
    }

    /// To be asked before the main thread sleeps: whether this thread has nothing to tell. It wakes the main thread when it
    /// has.
    pub(crate) fn lets_main_sleep(&self) -> bool {
        self.reports.0.may_sleep()
    }

    /// Memory of output that is on its way to it, bytes.
    pub(crate) fn output_on_the_way(&self) -> usize {
        self.orders.0.on_the_way() + self.staged().bytes.len()
    }

    /// The processor time it has had.
    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_ns.load(Ordering::Relaxed))
    }

    /// Has what was written leave as far as sockets take it, and ends the thread.
    pub(crate) fn stop(&self) {
        self.order(Order::Stop);
        self.post();
        if let Some(handle) = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = handle.join();
        }
    }
}

/// What becomes of a link.
#[derive(Debug)]
enum Fate {
    Stays,
    /// It goes back to the main thread once its output is written.
    Leaves(Option<Sender<Box<Conn>>>),
}

/// A link on its thread.
#[derive(Debug)]
struct Here {
    client: ClientId,
    conn: Box<Conn>,
    shared: Arc<Shared>,
    /// Output the socket did not take, from `unsent_at` on.
    unsent: Vec<u8>,
    unsent_at: usize,
    /// Bytes passed on that the main thread has not taken, as far as is known.
    untaken: usize,
    /// What the last read gave, and in which window that was.
    last_read: usize,
    read_in: u32,
    /// The socket may hold more than was read.
    has_more: bool,
    /// The peer closed its side, or the descriptor failed: no further event will tell, so it is read to its end.
    is_closed: bool,
    /// The peer sends no more, and the main thread was told.
    has_ended: bool,
    is_unfinished: bool,
    fate: Fate,
}

impl Here {
    fn new(client: ClientId, conn: Box<Conn>, shared: Arc<Shared>) -> Here {
        Here {
            client,
            conn,
            shared,
            unsent: Vec::new(),
            unsent_at: 0,
            untaken: 0,
            last_read: 0,
            read_in: 0,
            has_more: false,
            is_closed: false,
            has_ended: false,
            is_unfinished: false,
            fate: Fate::Stays,
        }
    }

    fn has_unsent(&self) -> bool {
        self.unsent_at < self.unsent.len()
    }

    /// Writes `bytes` as far as the socket takes them. Returns how many that were.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self.conn.write_vectored(&[IoSlice::new(&bytes[at..])]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => at += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if at > 0 {
            // Only this thread changes it.
            self.shared.written.store(self.shared.written.load(Ordering::Relaxed) + at as u64, Ordering::SeqCst);
        }
        Ok(at)
    }

    fn write_unsent(&mut self) -> io::Result<()> {
        let unsent = std::mem::take(&mut self.unsent);
        let result = self.write(&unsent[self.unsent_at..]);
        self.unsent = unsent;
        self.unsent_at += result?;
        if self.unsent_at == self.unsent.len() {
            (self.unsent, self.unsent_at) = (Vec::new(), 0);
        }
        Ok(())
    }

    /// Output of its client.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = if self.has_unsent() { 0 } else { self.write(bytes)? };
        // What was sent is given up as soon as it is as much as the rest, so that moving that costs little.
        if self.unsent_at > 0 && self.unsent_at >= self.unsent.len() - self.unsent_at {
            self.unsent.drain(..self.unsent_at);
            self.unsent_at = 0;
        }
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Whether somebody waits for room and there is enough of it now.
    fn has_room_again(&self) -> bool {
        let left = self.unsent.len() - self.unsent_at;
        left as u64 <= OUTPUT_WINDOW / 2 && self.shared.wants_room.load(Ordering::SeqCst) && {
            self.shared.wants_room.store(false, Ordering::SeqCst);
            true
        }
    }
}

struct Worker {
    shared: Arc<IoThread>,
    poll: Poll,
    finder: Finder,
    pace: Pace,
    /// By the places of their clients.
    links: Vec<Option<Box<Here>>>,
    handshakes: Handshakes,
    /// Not posted yet.
    reports: Batch<Report>,
    /// Links that were not read to their ends.
    unfinished: Vec<ClientId>,
    /// Links that were closed and have output left, and until when they may, milliseconds.
    lingering: Slab<(Here, i64)>,
    started: Instant,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(1024);
        let mut orders = Batch::with_room();
        let mut is_stopping = false;
        let mut counted = Instant::now();
        // It has slept for a moment since the last event.
        let mut has_napped = false;
        while !is_stopping {
            let nap = self.pace.nap().filter(|_| !has_napped && self.has_nothing_at_hand());
            if let Some(nap) = nap {
                thread::sleep(nap);
                has_napped = true;
            }
            let sleep = if nap.is_some() { Some(Duration::ZERO) } else { self.sleep_time() };
            if let Err(e) = self.poll.poll(&mut events, sleep) {
                if e.kind() != io::ErrorKind::Interrupted {
                    log::warn!("The event loop of an I/O thread failed: {}", reason(&e));
                    std::process::exit(1);
                }
                events.clear();
            }
            has_napped &= events.is_empty();
            for event in &events {
                let is_readable = event.is_readable() || event.is_read_closed() || event.is_error();
                let is_writable = event.is_writable() || event.is_write_closed() || event.is_error();
                let is_closed = event.is_read_closed() || event.is_write_closed() || event.is_error();
                match Source::of(event.token()) {
                    Some(Source::Client(client)) => {
                        self.on_ready(client, is_readable, is_writable, is_closed);
                    }
                    Some(Source::Handshake(index, generation)) => self.handshakes.note_ready(index, generation),
                    Some(Source::Lingering(index)) => self.linger(index as usize),
                    _ => {}
                }
            }
            self.read_unfinished();
            self.post();
            let more = self.shared.orders.0.take(&mut orders);
            is_stopping = self.carry_out(&mut orders);
            for _ in 0..more {
                self.shared.orders.0.take(&mut orders);
                is_stopping |= self.carry_out(&mut orders);
            }
            self.run_handshakes();
            self.end_lingering();
            self.post();
            let now = Instant::now();
            self.pace.note_time(now);
            if now - counted >= COUNT_EVERY {
                counted = now;
                self.shared.busy_ns.store(process::thread_cpu_time().as_nanos() as u64, Ordering::Relaxed);
            }
        }
    }

    fn has_nothing_at_hand(&self) -> bool {
        self.unfinished.is_empty() && !self.handshakes.is_due() && self.shared.orders.0.is_empty()
    }

    /// How long it may sleep, once it is known that nothing is wanted of it.
    fn sleep_time(&self) -> Option<Duration> {
        if !self.unfinished.is_empty() || self.handshakes.is_due() || !self.shared.orders.0.may_sleep() {
            return Some(Duration::ZERO);
        }
        (!self.lingering.is_empty() || !self.handshakes.is_empty()).then_some(TICK)
    }

    fn now_ms(&self) -> i64 {
        self.started.elapsed().as_millis() as i64
    }

    fn post(&mut self) {
        if let Err(e) = self.shared.reports.0.post(&mut self.reports) {
            log::warn!("The main thread could not be woken: {}", reason(&e));
        }
    }

    fn link(&mut self, client: ClientId) -> Option<&mut Here> {
        self.links.get_mut(client.index as usize)?.as_deref_mut().filter(|here| here.client == client)
    }

    // ---- orders

    /// True if it is to stop.
    fn carry_out(&mut self, orders: &mut Batch<Order>) -> bool {
        let mut at = 0;
        let mut is_stopping = false;
        let Batch { messages, bytes, .. } = orders;
        for order in messages.drain(..) {
            match order {
                Order::Adopt { client, conn, shared } => self.adopt(client, conn, shared),
                Order::Write { client, len } => {
                    let output = &bytes[at..at + len];
                    at += len;
                    let Some(here) = self.link(client) else { continue };
                    if let Err(e) = here.send(output) {
                        self.end(client, Err(e.kind()));
                    } else {
                        self.after_write(client);
                    }
                }
                Order::Taken { client, bytes } => {
                    let Some(here) = self.link(client) else { continue };
                    here.untaken -= bytes.min(here.untaken);
                    if here.has_more && here.untaken < INPUT_WINDOW {
                        self.read(client);
                    }
                }
                Order::Nodelay { client, on } => {
                    if let Some(here) = self.link(client) {
                        here.conn.set_nodelay(on);
                    }
                }
                Order::Release { client, to } => {
                    if let Some(here) = self.link(client) {
                        here.fate = Fate::Leaves(to);
                        self.meet_fate(client);
                    }
                }
                Order::Close { client, at_once } => self.close(client, at_once),
                Order::Handshake { secure: Secure { conn, whose } } => {
                    let now_ms = self.now_ms();
                    self.handshakes.begin(*conn, whose, self.poll.registry(), now_ms);
                }
                Order::Stop => is_stopping = true,
            }
        }
        orders.clear();
        self.shared.orders.0.note_done(orders);
        is_stopping
    }

    fn adopt(&mut self, client: ClientId, mut conn: Box<Conn>, shared: Arc<Shared>) {
        if let Err(e) = conn.register(self.poll.registry(), Source::Client(client).token()) {
            log::warn!("Error registering the event for the new client: {}", reason(&e));
            return self.reports.messages.push(Report::Ended { client, end: Err(e.kind()) });
        }
        let index = client.index as usize;
        if self.links.len() <= index {
            self.links.resize_with(index + 1, || None);
        }
        let holds_more = conn.holds_more();
        self.links[index] = Some(Box::new(Here::new(client, conn, shared)));
        if holds_more {
            self.read(client);
        }
    }

    // ---- links

    fn on_ready(&mut self, client: ClientId, is_readable: bool, is_writable: bool, is_closed: bool) {
        let Some(here) = self.link(client) else { return };
        here.is_closed |= is_closed;
        if is_writable && here.has_unsent() {
            if let Err(e) = here.write_unsent() {
                return self.end(client, Err(e.kind()));
            }
            self.after_write(client);
        }
        if is_readable {
            self.read(client);
        }
    }

    /// Output was written.
    fn after_write(&mut self, client: ClientId) {
        let Some(here) = self.link(client) else { return };
        if here.has_room_again() {
            self.reports.messages.push(Report::Room { client });
        }
        self.meet_fate(client);
    }

    /// Gives a link back that is to leave, if its output is written.
    fn meet_fate(&mut self, client: ClientId) {
        let Some(here) = self.link(client) else { return };
        if matches!(here.fate, Fate::Stays) || here.has_unsent() {
            return;
        }
        let Some(mut here) = self.take(client) else { return };
        let _ = here.conn.deregister(self.poll.registry());
        match here.fate {
            Fate::Leaves(Some(to)) => {
                // What was read before comes first.
                self.post();
                if let Err(back) = to.send(here.conn) {
                    self.reports.messages.push(Report::Released { client, conn: back.0 });
                }
            }
            _ => self.reports.messages.push(Report::Released { client, conn: here.conn }),
        }
    }

    fn take(&mut self, client: ClientId) -> Option<Here> {
        self.link(client)?;
        self.links[client.index as usize].take().map(|here| *here)
    }

    /// The connection is at its end.
    fn end(&mut self, client: ClientId, end: Result<(), io::ErrorKind>) {
        if let Some(mut here) = self.take(client) {
            let _ = here.conn.deregister(self.poll.registry());
            self.reports.messages.push(Report::Ended { client, end });
        }
    }

    // ---- links that were closed

    /// Closes a link, at once or when its output is written.
    fn close(&mut self, client: ClientId, at_once: bool) {
        let until_ms = self.now_ms() + LINGER_MS;
        let Some(mut here) = self.take(client) else { return };
        let registry = self.poll.registry();
        if here.has_unsent() && !at_once && self.lingering.len() < MOST_LINGERING / self.shared.count {
            // Its place may be another client's at once.
            let slot = self.lingering.vacant_entry();
            if here.conn.reregister(registry, Source::Lingering(slot.key() as u32).token()).is_ok() {
                slot.insert((here, until_ms));
                return;
            }
        }
        let _ = here.conn.deregister(registry);
    }

    /// Goes on with the output of a link that was closed. What still comes on it is of no interest, but its failure is.
    fn linger(&mut self, index: usize) {
        let Some((here, _)) = self.lingering.get_mut(index) else { return };
        let mut scratch = Vec::with_capacity(READ_BYTES);
        let is_done = here.write_unsent().is_err()
            || !here.has_unsent()
            || match here.conn.read_to_spare(&mut scratch) {
                Ok(_) => false,
                Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
            };
        if is_done {
            self.stop_lingering(index);
        }
    }

    fn stop_lingering(&mut self, index: usize) {
        let (mut here, _) = self.lingering.remove(index);
        let _ = here.conn.deregister(self.poll.registry());
    }

    /// Closes links that take too long for the rest of their output.
    fn end_lingering(&mut self) {
        if self.lingering.is_empty() {
            return;
        }
        let now_ms = self.now_ms();
        let late: Vec<usize> = self.lingering.iter().filter(|(_, l)| l.1 <= now_ms).map(|(at, _)| at).collect();
        for index in late {
            self.stop_lingering(index);
        }
    }

    // ---- input

    /// Reads what a peer has sent, up to the link's share, and passes it on.
    fn read(&mut self, client: ClientId) {
        let Worker { links, reports, unfinished, finder, pace, .. } = self;
        let found = links.get_mut(client.index as usize).and_then(Option::as_deref_mut);
        let Some(here) = found.filter(|here| here.client == client) else { return };
        if here.has_ended {
            return;
        }
        pace.note_read(&mut here.read_in);
        here.has_more = true;
        for _ in 0..READS_PER_TURN {
            if here.untaken >= INPUT_WINDOW {
                return;
            }
            let mut own = Vec::new();
            let is_own = here.last_read >= MUCH_BYTES;
            let bytes = if is_own { &mut own } else { &mut reports.bytes };
            bytes.reserve(READ_BYTES);
            let (before, room) = (bytes.len(), bytes.capacity() - bytes.len());
            match here.conn.read_to_spare(bytes) {
                Ok(0) => {
                    // The peer may yet read what is on its way to it.
                    here.has_ended = true;
                    return reports.messages.push(Report::Ended { client, end: Ok(()) });
                }
                Ok(_) => {
                    let len = bytes.len() - before;
                    here.untaken += len;
                    here.last_read = len;
                    match reports.messages.last_mut() {
                        _ if is_own => reports.messages.push(Report::MuchInput { client, bytes: own }),
                        Some(Report::Input { client: last, len: so_far, .. }) if *last == client => *so_far += len,
                        _ => {
                            let found = finder.find(&reports.bytes[before..], &mut reports.found);
                            reports.messages.push(Report::Input { client, len, found });
                        }
                    }
                    if len < room && !here.is_closed && !here.conn.holds_more() {
                        // Should the peer close later, an event tells.
                        here.has_more = false;
                        return;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    here.has_more = false;
                    return;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return self.end(client, Err(e.kind())),
            }
        }
        if !std::mem::replace(&mut here.is_unfinished, true) {
            unfinished.push(client);
        }
    }

    fn read_unfinished(&mut self) {
        for client in std::mem::take(&mut self.unfinished) {
            if let Some(here) = self.link(client) {
                here.is_unfinished = false;
                self.read(client);
            }
        }
    }

    // ---- handshakes

    fn run_handshakes(&mut self) {
        let now_ms = self.now_ms();
        let Worker { handshakes, poll, reports, .. } = self;
        handshakes.give_up_late(poll.registry(), now_ms);
        handshakes.run(poll.registry(), &mut |conn, whose| {
            let secure = Secure { conn: Box::new(conn), whose };
            reports.messages.push(Report::Secured { secure });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn output_that_never_runs_dry_takes_no_more_room() {
        let (ours, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let conn = Box::new(Conn::Unix(mio::net::UnixStream::from_std(ours)));
        let mut here = Here::new(ClientId { index: 0, generation: 0 }, conn, Arc::default());
        let piece = [7u8; 20_000];
        while here.unsent.len() < 10 * piece.len() {
            here.send(&piece).unwrap();
        }
        let mut got = vec![0; 20_000];
        for _ in 0..500 {
            here.send(&piece).unwrap();
            peer.read_exact(&mut got).unwrap();
            here.write_unsent().unwrap();
            assert!(here.has_unsent());
        }
        assert!(here.unsent.capacity() < 1_000_000, "{}", here.unsent.capacity());
    }
}
