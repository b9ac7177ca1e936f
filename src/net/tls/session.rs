//! A TLS session over a socket: bytes in and out, the handshake on the way.
//!
//! A session at rest holds no buffers: all sessions of a thread receive into one room and send from another. What is kept
//! is the beginning of a record whose rest is to come, text that was deciphered beyond what was asked for, and records that
//! the socket did not take yet; each is bounded.
//!
//! Invariant: bytes count as written when their records are in the socket. Of records that the socket takes only in part,
//! the last byte of text counts as not yet written, so that whoever writes waits for the socket and comes again as he does
//! without TLS; the byte is then counted without being sent twice.

use rustix::net::{RecvFlags, SendFlags};
use rustls::InvalidMessage;
use rustls::client::{ClientConfig, UnbufferedClientConnection};
use rustls::pki_types::ServerName;
use rustls::server::{ServerConfig, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Bytes received at once, and of one record at most.
const RECEIVE_BYTES: usize = 64 * 1024;
const RECORD_BYTES: usize = 16 * 1024 + 2048;
/// Text of one record at most, and what is enciphered between two sends.
const FRAGMENT_BYTES: usize = 16 * 1024;
const BATCH_BYTES: usize = 4 * FRAGMENT_BYTES;
/// What a record has besides its text, and what else may go along (a change of keys).
const RECORD_OVERHEAD: usize = 64;
const BATCH_OVERHEAD: usize = 1024;
/// A peer that sends more than this of what makes no record or handshake message is done with.
const MAX_INCOMPLETE: usize = 256 * 1024;

/// What the sessions of a thread share.
struct Rooms {
    received: Vec<u8>,
    sealed: Vec<u8>,
    gathered: Vec<u8>,
}

thread_local! {
    static ROOMS: RefCell<Rooms> = RefCell::new(Rooms {
        received: vec![0; RECEIVE_BYTES + RECORD_BYTES],
        sealed: vec![0; BATCH_BYTES + 5 * RECORD_OVERHEAD + BATCH_OVERHEAD],
        gathered: Vec::new(),
    });
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// Where a handshake has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Handshake,
    Open,
    /// The peer has sent its last byte.
    PeerClosed,
    Failed,
}

pub(crate) struct Session {
    side: Side,
    stage: Stage,
    /// The beginning of what is to become a record, or a message of the handshake.
    incomplete: Vec<u8>,
    /// Text beyond what was asked for, from `text_at` on.
    text: Vec<u8>,
    text_at: usize,
    /// Records the socket did not take, from `unsent_at` on.
    unsent: Vec<u8>,
    unsent_at: usize,
    /// The last byte of the text in `unsent` does not count as written yet.
    owes_byte: bool,
    /// The last receive came back full: the socket may hold more.
    may_hold_more: bool,
    /// The socket waits by itself, so a record is waited for.
    pub(crate) blocking: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("stage", &self.stage).finish_non_exhaustive()
    }
}

/// What became of bytes that were handed to the session.
enum Step {
    Again,
    /// It gave text.
    Text,
    /// It needs more.
    Short,
    PeerClosed,
    Failed(rustls::Error),
}

impl Session {
    pub(crate) fn server(config: &Arc<ServerConfig>) -> io::Result<Session> {
        let connection = UnbufferedServerConnection::new(config.clone()).map_err(io::Error::other)?;
        Ok(Session::new(Side::Server(connection)))
    }

    pub(crate) fn client(config: &Arc<ClientConfig>, name: ServerName<'static>) -> io::Result<Session> {
        let connection = UnbufferedClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        Ok(Session::new(Side::Client(connection)))
    }

    fn new(side: Side) -> Session {
        Session {
            side,
            stage: Stage::Handshake,
            incomplete: Vec::new(),
            text: Vec::new(),
            text_at: 0,
            unsent: Vec::new(),
            unsent_at: 0,
            owes_byte: false,
            may_hold_more: false,
            blocking: false,
        }
    }

    /// Whether a read may give something without an event of the socket.
    pub(crate) fn holds_more(&self) -> bool {
        self.holds_text() || self.may_hold_more || self.stage == Stage::PeerClosed
    }

    /// Whether text waits that was received already.
    pub(crate) fn holds_text(&self) -> bool {
        self.text_at < self.text.len()
    }

    /// Goes on with the handshake. Whether it is done; an error ends the connection.
    pub(crate) fn handshake(&mut self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        while self.stage == Stage::Handshake {
            if self.incomplete.is_empty() {
                // A client speaks first.
                self.process(&mut [], 0, &mut |_| {})?;
            }
            if !self.flush(fd)? {
                return Ok(false);
            }
            if self.stage != Stage::Handshake {
                break;
            }
            match self.receive(fd, 0, &mut |_| {}) {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed the connection")),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock && !self.blocking => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        match self.stage {
            Stage::Handshake | Stage::Open | Stage::PeerClosed => self.flush(fd),
            Stage::Failed => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }

    /// Reads up to `room` bytes of text, handed to `put` in pieces. Their number, 0 at the end.
    pub(crate) fn read(&mut self, fd: BorrowedFd<'_>, room: usize, put: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        if self.holds_text() {
            let piece = &self.text[self.text_at..];
            let piece = &piece[..piece.len().min(room)];
            put(piece);
            self.text_at += piece.len();
            let given = piece.len();
            if self.text_at == self.text.len() {
                (self.text, self.text_at) = (Vec::new(), 0);
            }
            return Ok(given);
        }
        if self.stage == Stage::Handshake && !self.handshake(fd)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.holds_text() {
            // It came along with the end of the handshake.
            return self.read(fd, room, put);
        }
        loop {
            match self.stage {
                Stage::PeerClosed => return Ok(0),
                Stage::Failed => return Err(io::ErrorKind::ConnectionAborted.into()),
                Stage::Handshake | Stage::Open => {}
            }
            let mut given = 0;
            let received = self.receive(fd, room, &mut |piece| {
                given += piece.len();
                put(piece);
            });
            if given > 0 {
                return Ok(given);
            }
            if received? == 0 {
                self.stage = Stage::PeerClosed;
                return Ok(0);
            }
            if self.stage == Stage::Open && !self.may_hold_more && !self.blocking {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }

    /// One receive. The number of bytes off the socket; text up to `room` goes to `put` and what is beyond is kept.
    fn receive(&mut self, fd: BorrowedFd<'_>, room: usize, put: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        ROOMS.with_borrow_mut(|rooms| {
            let kept = self.incomplete.len();
            // As much as there is room for, or the rest of the record.
            let wanted = (room + room / 128).clamp(RECORD_BYTES, RECEIVE_BYTES).max(kept + 1024);
            if rooms.received.len() < wanted {
                rooms.received.resize(wanted, 0);
            }
            let received = rustix::net::recv(fd, &mut rooms.received[kept..wanted], RecvFlags::empty());
            let received = match received {
                Ok((_, received)) => received,
                Err(e) => {
                    self.may_hold_more = false;
                    return Err(e.into());
                }
            };
            self.may_hold_more = kept + received == wanted;
            if received == 0 {
                return Ok(0);
            }
            let bytes = &mut rooms.received[..kept + received];
            bytes[..kept].copy_from_slice(&self.incomplete);
            let processed = self.process(bytes, room, put);
            let sent = if self.unsent.is_empty() { Ok(true) } else { self.flush(fd) };
            let used = processed?;
            sent?;
            let rest = &bytes[used..];
            if rest.len() > MAX_INCOMPLETE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a message of the handshake is too large"));
            }
            if rest.is_empty() {
                self.incomplete = Vec::new();
            } else {
                self.incomplete.clear();
                self.incomplete.extend_from_slice(rest);
            }
            Ok(received)
        })
    }

    /// Hands bytes to the session; how many of them it is done with. What is to be sent is in `unsent` then.
    fn process(&mut self, bytes: &mut [u8], room: usize, put: &mut dyn FnMut(&[u8])) -> io::Result<usize> {
        let Session { side, text, unsent, .. } = self;
        let mut left = room;
        let mut deliver = |piece: &[u8]| {
            let now = if text.is_empty() { piece.len().min(left) } else { 0 };
            if now > 0 {
                put(&piece[..now]);
                left -= now;
            }
            text.extend_from_slice(&piece[now..]);
        };
        let mut used = 0;
        let outcome = loop {
            let (done, next) = match side {
                Side::Server(c) => step(c.process_tls_records(&mut bytes[used..]), &mut deliver, unsent),
                Side::Client(c) => step(c.process_tls_records(&mut bytes[used..]), &mut deliver, unsent),
            };
            used += done;
            match next {
                // The usual case: asked again, it would say that it needs more.
                Step::Text if used == bytes.len() && is_content(side) => break Step::Short,
                Step::Again | Step::Text => {}
                outcome => break outcome,
            }
        };
        match outcome {
            Step::Again | Step::Text | Step::Short => {
                if self.stage == Stage::Handshake && !self.is_handshaking() {
                    self.stage = Stage::Open;
                }
            }
            Step::PeerClosed => {
                self.stage = Stage::PeerClosed;
                used = bytes.len();
            }
            Step::Failed(error) => {
                self.stage = Stage::Failed;
                // Whoever speaks something else would take an alert for an answer.
                if !matches!(error, rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType)) {
                    self.take_alert();
                }
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        Ok(used)
    }

    fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Server(c) => c.is_handshaking(),
            Side::Client(c) => c.is_handshaking(),
        }
    }

    /// What the peer is to be told of a failure.
    fn take_alert(&mut self) {
        let Session { side, unsent, .. } = self;
        // No further: what the session notes of the bytes it has seen holds for those bytes alone.
        match side {
            Side::Server(c) => {
                while c.wants_write() {
                    step(c.process_tls_records(&mut []), &mut |_| {}, unsent);
                }
            }
            Side::Client(c) => {
                while c.wants_write() {
                    step(c.process_tls_records(&mut []), &mut |_| {}, unsent);
                }
            }
        }
    }

    /// Sends what waits. Whether nothing does any more.
    pub(crate) fn flush(&mut self, fd: BorrowedFd<'_>) -> io::Result<bool> {
        while self.unsent_at < self.unsent.len() {
            match rustix::net::send(fd, &self.unsent[self.unsent_at..], SendFlags::NOSIGNAL) {
                Ok(sent) => self.unsent_at += sent,
                Err(rustix::io::Errno::AGAIN) => return Ok(false),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        (self.unsent, self.unsent_at) = (Vec::new(), 0);
        Ok(true)
    }

    /// Writes as much as the socket takes. See the module's invariant for what counts.
    pub(crate) fn write(&mut self, fd: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        if offered == 0 {
            return Ok(0);
        }
        if self.stage == Stage::Failed {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if self.stage == Stage::Handshake && !self.handshake(fd)? || !self.flush(fd)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut written = usize::from(std::mem::take(&mut self.owes_byte));
        let mut cursor = Cursor::new(slices, written);
        while written < offered {
            let (batch, all_sent) = self.write_batch(fd, &mut cursor)?;
            written += batch;
            if !all_sent {
                self.owes_byte = true;
                written -= 1;
                break;
            }
        }
        if written == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }

    /// Enciphers and sends one batch: its bytes of text, and whether all of it went.
    fn write_batch(&mut self, fd: BorrowedFd<'_>, cursor: &mut Cursor<'_>) -> io::Result<(usize, bool)> {
        ROOMS.with_borrow_mut(|rooms| {
            let Rooms { sealed, gathered, .. } = rooms;
            let text = cursor.next(gathered);
            let bytes = self.seal(text, sealed)?;
            let batch = text.len();
            if gathered.capacity() > 2 * BATCH_BYTES {
                *gathered = Vec::new();
            }
            let mut sent = 0;
            if !self.flush(fd)? {
                // What the session had to say of itself goes first.
                self.unsent.extend_from_slice(&sealed[..bytes]);
                return Ok((batch, false));
            }
            while sent < bytes {
                match rustix::net::send(fd, &sealed[sent..bytes], SendFlags::NOSIGNAL) {
                    Ok(n) => sent += n,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(rustix::io::Errno::AGAIN) => {
                        self.unsent = sealed[sent..bytes].to_vec();
                        self.unsent_at = 0;
                        return Ok((batch, false));
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            Ok((batch, true))
        })
    }

    /// Enciphers text into the room; the number of bytes.
    fn seal(&mut self, text: &[u8], room: &mut Vec<u8>) -> io::Result<usize> {
        loop {
            // The session is always given what it has seen the beginning of.
            let Session { side, incomplete, unsent, text: received, .. } = self;
            let mut deliver = |piece: &[u8]| received.extend_from_slice(piece);
            let (done, next) = match side {
                Side::Server(c) => {
                    encrypt_or_step(c.process_tls_records(incomplete), text, room, &mut deliver, unsent)?
                }
                Side::Client(c) => {
                    encrypt_or_step(c.process_tls_records(incomplete), text, room, &mut deliver, unsent)?
                }
            };
            incomplete.drain(..done);
            match next {
                Sealed::Bytes(bytes) => return Ok(bytes),
                Sealed::NotYet(Step::Again | Step::Text) => {}
                Sealed::NotYet(Step::PeerClosed) => self.stage = Stage::PeerClosed,
                Sealed::NotYet(Step::Short) => return Err(io::ErrorKind::NotConnected.into()),
                Sealed::NotYet(Step::Failed(e)) => {
                    self.stage = Stage::Failed;
                    return Err(io::Error::new(io::ErrorKind::InvalidData, e));
                }
            }
        }
    }

    /// Nothing more is said to the peer: another process goes on with the connection.
    pub(crate) fn fall_silent(&mut self) {
        self.stage = Stage::Failed;
    }

    /// Tells the peer that nothing more comes, as far as the socket takes that at once.
    pub(crate) fn say_goodbye(&mut self, fd: BorrowedFd<'_>) {
        if !matches!(self.stage, Stage::Open | Stage::PeerClosed) || !self.unsent.is_empty() {
            return;
        }
        let mut alert = [0; 256];
        let bytes = match &mut self.side {
            Side::Server(c) => goodbye(c.process_tls_records(&mut self.incomplete), &mut alert),
            Side::Client(c) => goodbye(c.process_tls_records(&mut self.incomplete), &mut alert),
        };
        // The peer notices the end of the connection in any case.
        let _ = rustix::net::send(fd, &alert[..bytes], SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    }
}

enum Sealed {
    Bytes(usize),
    /// The session asks for something else first.
    NotYet(Step),
}

/// Enciphers text if the session is ready for it. The number of received bytes it is done with, and what came of it.
fn encrypt_or_step<D>(
    status: UnbufferedStatus<'_, '_, D>,
    text: &[u8],
    room: &mut Vec<u8>,
    deliver: &mut dyn FnMut(&[u8]),
    unsent: &mut Vec<u8>,
) -> io::Result<(usize, Sealed)> {
    let UnbufferedStatus { discard, state: Ok(ConnectionState::WriteTraffic(mut traffic)) } = status else {
        let (done, next) = step(status, deliver, unsent);
        return Ok((done, Sealed::NotYet(next)));
    };
    loop {
        match traffic.encrypt(text, room) {
            Ok(bytes) => return Ok((discard, Sealed::Bytes(bytes))),
            Err(EncryptError::InsufficientSize(needed)) => room.resize(needed.required_size, 0),
            Err(e) => return Err(io::Error::other(e)),
        }
    }
}

fn goodbye<D>(status: UnbufferedStatus<'_, '_, D>, alert: &mut [u8]) -> usize {
    match status.state {
        Ok(ConnectionState::WriteTraffic(mut traffic)) => traffic.queue_close_notify(alert).unwrap_or(0),
        _ => 0,
    }
}

/// Whether a session has all text handed on, nothing to send, and no end to tell of.
fn is_content(side: &Side) -> bool {
    match side {
        Side::Server(c) => c.wants_read() && !c.wants_write(),
        Side::Client(c) => c.wants_read() && !c.wants_write(),
    }
}

/// Does what the session asks for next. The number of bytes it is done with.
fn step<D>(status: UnbufferedStatus<'_, '_, D>, deliver: &mut dyn FnMut(&[u8]), unsent: &mut Vec<u8>) -> (usize, Step) {
    let mut used = status.discard;
    let next = match status.state {
        Ok(ConnectionState::ReadTraffic(mut traffic)) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    used += record.discard;
                    deliver(record.payload);
                }
                Some(Err(e)) => break Step::Failed(e),
                None => break Step::Text,
            }
        },
        Ok(ConnectionState::EncodeTlsData(mut data)) => {
            let at = unsent.len();
            if let Err(EncodeError::InsufficientSize(needed)) = data.encode(&mut []) {
                unsent.resize(at + needed.required_size, 0);
                let encoded = data.encode(&mut unsent[at..]).unwrap_or(0);
                unsent.truncate(at + encoded);
            }
            Step::Again
        }
        // It is in `unsent`, and leaves before anything that comes later.
        Ok(ConnectionState::TransmitTlsData(data)) => {
            data.done();
            Step::Again
        }
        Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Step::PeerClosed,
        Ok(_) => Step::Short,
        Err(e) => Step::Failed(e),
    };
    (used, next)
}

/// Takes slices apart into pieces that are enciphered at once: what is large as it stands, what is small gathered.
struct Cursor<'a> {
    slices: &'a [IoSlice<'a>],
    /// Bytes of the first slice that are done with.
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(slices: &'a [IoSlice<'a>], skip: usize) -> Cursor<'a> {
        let mut cursor = Cursor { slices, at: skip };
        cursor.drop_empty();
        cursor
    }

    fn drop_empty(&mut self) {
        while let [first, rest @ ..] = self.slices
            && self.at >= first.len()
        {
            self.at -= first.len();
            self.slices = rest;
        }
    }

    fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        self.drop_empty();
    }

    /// The next piece; not empty unless nothing is left.
    fn next<'b>(&mut self, gathered: &'b mut Vec<u8>) -> &'b [u8]
    where
        'a: 'b,
    {
        let slices = self.slices;
        let [first, rest @ ..] = slices else { return &[] };
        let piece: &'a [u8] = &first[self.at..];
        if rest.is_empty() || piece.len() >= FRAGMENT_BYTES {
            let piece = &piece[..piece.len().min(BATCH_BYTES)];
            self.advance(piece.len());
            return piece;
        }
        gathered.clear();
        while let [first, ..] = self.slices {
            let piece = &first[self.at..];
            let piece = &piece[..piece.len().min(BATCH_BYTES - gathered.len())];
            if piece.is_empty() {
                break;
            }
            gathered.extend_from_slice(piece);
            self.advance(piece.len());
        }
        gathered
    }
}
