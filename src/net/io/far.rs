//! A connection that lives on an I/O thread, as the main thread sees it.

use super::thread::{IoThread, Order};
use crate::net::{ClientId, Conn};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

/// Bytes of output that may be on their way to the socket of one link.
pub(super) const OUTPUT_WINDOW: u64 = 256 * 1024;
/// Bytes of input of one link that the main thread has not taken yet; its thread stops reading then.
pub(super) const INPUT_WINDOW: usize = 64 * 1024;
/// The thread is told what was taken when it comes to so many bytes.
const TOLD_BYTES: usize = INPUT_WINDOW / 4;

/// Where a connection lives, or is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    Main,
    /// An I/O thread, by its place in the list of them.
    Thread(usize),
}

/// What both sides of a link know of its output.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Bytes written to the socket since the link came to the thread.
    pub(super) written: AtomicU64,
    /// Somebody waits for room.
    pub(super) wants_room: AtomicBool,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Far {
    thread: Arc<IoThread>,
    client: ClientId,
    shared: Arc<Shared>,
    /// Bytes handed over, and how many of them were known to be written when that was looked at last.
    given: u64,
    written: Cell<u64>,
    /// The period in which it was asked last what stays unwritten; the bytes handed over by then, and by the time before.
    asked_in: u64,
    given_then: u64,
    given_before: u64,
    /// Bytes that came and could not be taken at once.
    received: Vec<u8>,
    /// Bytes taken that the thread was not told of.
    taken: usize,
    /// How it ended.
    end: Option<Result<(), io::ErrorKind>>,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
    fd: RawFd,
    is_tls: bool,
    is_unix: bool,
    /// Where it is about to move.
    pub(crate) moving_to: Option<Home>,
    /// The period in which it was last heard of.
    pub(crate) heard_in: u64,
    /// The connection is no longer with the thread.
    is_gone: bool,
    /// When it is closed, what was not written is of no use to anybody.
    discards: bool,
}

impl Far {
    /// Gives a connection to a thread. It is not registered anywhere.
    pub(crate) fn new(thread: &Arc<IoThread>, client: ClientId, conn: Conn) -> Far {
        let shared = Arc::new(Shared::default());
        let far = Far {
            thread: thread.clone(),
            client,
            shared: shared.clone(),
            given: 0,
            written: Cell::new(0),
            asked_in: 0,
            given_then: 0,
            given_before: 0,
            received: Vec::new(),
            taken: 0,
            end: None,
            peer: conn.peer(),
            local: conn.local(),
            fd: conn.as_raw_fd(),
            is_tls: conn.is_tls(),
            is_unix: conn.is_unix(),
            moving_to: None,
            heard_in: 0,
            is_gone: false,
            discards: false,
        };
        thread.order(Order::Adopt { client, conn: Box::new(conn), shared });
        far
    }

    pub(crate) fn home(&self) -> usize {
        self.thread.index
    }

    pub(in crate::net) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    pub(in crate::net) fn local(&self) -> Option<SocketAddr> {
        self.local
    }

    pub(in crate::net) fn raw_fd(&self) -> RawFd {
        self.fd
    }

    pub(in crate::net) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(in crate::net) fn is_unix(&self) -> bool {
        self.is_unix
    }

    pub(in crate::net) fn set_nodelay(&self, on: bool) {
        self.thread.order(Order::Nodelay { client: self.client, on });
    }

    /// Memory of what came and was not taken, bytes.
    pub(crate) fn received_mem(&self) -> usize {
        self.received.capacity()
    }

    /// Bytes that were handed over and are not written, as far as that is known.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten_beyond(0)
    }

    /// By how many bytes that is more than `few`. What the other thread writes to is looked at only if it may be: that costs
    /// more than much of what a request does.
    pub(crate) fn unwritten_beyond(&self, few: usize) -> usize {
        let beyond = |written: u64| ((self.given - written) as usize).saturating_sub(few);
        if beyond(self.written.get()) == 0 {
            return 0;
        }
        self.written.set(self.shared.written.load(Ordering::Relaxed));
        beyond(self.written.get())
    }

    /// Bytes that were handed over before this period and are not written: the peer does not take them. It shows when this is
    /// asked in several periods.
    pub(crate) fn lasting(&mut self, period: u64) -> usize {
        if self.asked_in != period {
            self.asked_in = period;
            self.given_before = std::mem::replace(&mut self.given_then, self.given);
        }
        self.given_before.saturating_sub(self.shared.written.load(Ordering::Relaxed)) as usize
    }

    /// Whether the peer has closed, or the connection failed.
    pub(in crate::net) fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// When it is closed, what was not written is not to be.
    pub(crate) fn discard_output(&mut self) {
        self.discards = true;
    }

    /// How many bytes may be handed over. If it is less than `wanted`, the thread tells when there is room again.
    fn room(&mut self, wanted: u64) -> u64 {
        let room = |written: u64| OUTPUT_WINDOW.saturating_sub(self.given - written);
        if room(self.written.get()) < wanted {
            self.written.set(self.shared.written.load(Ordering::Acquire));
        }
        let room_now = room(self.written.get());
        if room_now >= wanted {
            return room_now;
        }
        // First the wish, then another look: the thread does it the other way round, so one of us sees the other.
        self.shared.wants_room.store(true, Ordering::SeqCst);
        self.written.set(self.shared.written.load(Ordering::SeqCst));
        room(self.written.get())
    }

    pub(in crate::net) fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(Err(kind)) = self.end {
            return Err(kind.into());
        }
        if self.moving_to.is_some() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        let room = self.room(wanted as u64) as usize;
        if room == 0 && wanted > 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let sent = wanted.min(room);
        self.thread.write(self.client, slices, sent);
        self.given += sent as u64;
        Ok(sent)
    }

    /// Keeps bytes that came from the peer until they are read.
    pub(crate) fn keep(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
    }

    pub(crate) fn holds_input(&self) -> bool {
        !self.received.is_empty()
    }

    /// Takes note of bytes that came and were taken without being kept.
    pub(crate) fn note_taken(&mut self, bytes: usize) {
        self.taken += bytes;
        if self.taken >= TOLD_BYTES {
            self.thread.order(Order::Taken { client: self.client, bytes: std::mem::take(&mut self.taken) });
        }
    }

    /// The peer has closed, or the connection failed.
    pub(crate) fn note_end(&mut self, end: Result<(), io::ErrorKind>) {
        self.end = Some(end);
    }

    /// Gives `take` up to `most` bytes of what came. Returns how many, 0 at the end.
    pub(in crate::net) fn read(&mut self, most: usize, take: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        if self.received.is_empty() {
            return match self.end {
                None => Err(io::ErrorKind::WouldBlock.into()),
                Some(Ok(())) => Ok(0),
                Some(Err(kind)) => Err(kind.into()),
            };
        }
        let count = most.min(self.received.len());
        take(&self.received[..count]);
        if count == self.received.len() {
            self.received = Vec::new();
        } else {
            self.received.drain(..count);
        }
        self.note_taken(count);
        Ok(count)
    }

    /// Asks for the connection back, to go elsewhere. It comes with a report; nothing is written until then.
    pub(crate) fn move_to(&mut self, home: Home) {
        if self.moving_to.is_none() && self.end.is_none() {
            self.moving_to = Some(home);
            self.thread.order(Order::Release { client: self.client, to: None });
        }
    }

    /// Whether the connection can be had at once: nothing is on its way.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.moving_to.is_none() && self.end.is_none() && self.received.is_empty() && self.unwritten() == 0
    }

    /// Gets the connection of one that is at rest back now. None within that time, and it is lost.
    pub(crate) fn call_home(&mut self, within: Duration) -> Option<Conn> {
        let (sender, conn) = mpsc::channel();
        self.thread.order(Order::Release { client: self.client, to: Some(sender) });
        self.thread.post();
        let conn = conn.recv_timeout(within).ok()?;
        self.is_gone = true;
        Some(*conn)
    }

    /// The connection came back: there is nothing left to be closed.
    pub(crate) fn forget(&mut self) {
        self.is_gone = true;
    }
}

impl Drop for Far {
    fn drop(&mut self) {
        if !self.is_gone {
            self.thread.order(Order::Close { client: self.client, at_once: self.discards });
        }
    }
}
