//! MIGRATE under way: keys on their way to another server, while the loop goes on.
//!
//! What is to be sent is put together in slices, and the answers are waited for as any other input is. Meanwhile the client
//! waits, and so does everybody who would write to the keys, which are as they were sent until they go. What writes without
//! having named a key (a script, expiry) does not wait: such a key stays here, and MIGRATE says so. In transactions and scripts
//! nobody can wait: there this server stands still for as long as it takes.
//!
//! Connections are kept for a few seconds, since keys of a slot are usually moved one after the other.

mod target;

use crate::catalog::error::CmdError;
use crate::keyspace::effects::notify;
use crate::keyspace::expire::is_due;
use crate::keyspace::watch::WatchedKey;
use crate::net::reactor::Ready;
use crate::net::{ClientId, Source};
use crate::persist::as_commands::{put_arg, put_bulk_header, put_command, put_header};
use crate::persist::rdb::SlicedDump;
use crate::persist::snapshot::value_view;
use crate::resp::Reply;
use crate::server::Server;
use crate::server::dispatch::blocked::{BlockKind, BlockState, WaitEnd};
use crate::server::repl::follow::open_connection;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use target::{Exchange, Exchanged, Outgoing, Stepped, Target};

/// Connections kept at most.
const KEPT_ITEMS: usize = 64;
/// A connection that was not used for longer than this is closed.
const KEPT_S: i64 = 10;
/// The longest slice of a turn in which payloads are put together.
const SLICE: Duration = Duration::from_millis(1);
/// A payload is put together in pieces of this size, and small ones gather up to it, bytes.
const PIECE_BYTES: usize = 64 * 1024;

const NOT_CONNECTED: CmdError = CmdError::of("IOERR error or timeout connecting to the client");
const NOT_WRITTEN: CmdError = CmdError::of("IOERR error or timeout writing to target instance");
const NOT_READ: CmdError = CmdError::of("IOERR error or timeout reading to target instance");
const CHANGED: CmdError = CmdError::of("ERR A key was changed on its way by who had not named it, and stays here");

/// What a call asks for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) host: Vec<u8>,
    pub(crate) port: Vec<u8>,
    pub(crate) db: i64,
    pub(crate) timeout: Duration,
    pub(crate) copy: bool,
    pub(crate) replace: bool,
    /// AUTH with its arguments; empty: none.
    pub(crate) auth: Vec<Vec<u8>>,
    pub(crate) keys: Vec<Vec<u8>>,
}

/// Connections that are kept, and moves under way.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    kept: HashMap<(Vec<u8>, Vec<u8>), Target>,
    moves: Vec<Move>,
    next_number: u32,
    next_mark: u32,
}

#[derive(Debug)]
struct Move {
    client: ClientId,
    from_db: usize,
    request: Request,
    keys: Vec<MovingKey>,
    target: Option<Target>,
    /// Where the target may be, and where else if it is not there.
    all_addresses: Vec<IpAddr>,
    addresses: VecDeque<IpAddr>,
    stage: Stage,
    /// What is to be sent was put together.
    is_encoded: bool,
    out: Outgoing,
    exchange: Exchange,
    /// It goes on without an event.
    is_busy: bool,
    /// Something came while it could not go on.
    has_event: bool,
    may_retry: bool,
    /// When what it waits for is given up.
    until: Option<Instant>,
}

#[derive(Debug)]
struct MovingKey {
    name: Vec<u8>,
    /// Who watches it for us.
    mark: ClientId,
    /// It was changed after its payload was begun.
    is_changed: bool,
}

#[derive(Debug)]
enum Stage {
    Connecting,
    Encoding(Box<Encoding>),
    Exchanging,
}

/// How far what is to be sent was put together.
#[derive(Debug, Default)]
struct Encoding {
    /// The key at hand.
    at: usize,
    dump: SlicedDump,
    pieces: Vec<Vec<u8>>,
    /// Commands that are small.
    gathered: Vec<u8>,
}

enum Step {
    /// It goes on when its connection is ready.
    Waits,
    /// It goes on in the next turn.
    HasMore,
    Over(Result<(), CmdError>),
}

impl Moving {
    /// Number of connections kept.
    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }

    /// Closes what has not been used of late.
    pub(crate) fn close_idle(&mut self, now_s: i64) {
        // Closing takes it out of the poll as well.
        self.kept.retain(|_, target| now_s - target.used_s <= KEPT_S);
    }

    /// Whether keys are on their way.
    pub(crate) fn is_any(&self) -> bool {
        !self.moves.is_empty()
    }

    /// Whether writes to a key wait.
    pub(crate) fn holds(&self, key: &[u8]) -> bool {
        let is_held = |going: &&Move| !going.request.copy || !matches!(going.stage, Stage::Exchanging);
        self.moves.iter().filter(is_held).any(|going| going.keys.iter().any(|k| k.name == key))
    }

    /// Somebody watched a key that changed, and it was no client.
    pub(crate) fn note_changed(&mut self, mark: ClientId) {
        let keys = self.moves.iter_mut().flat_map(|going| &mut going.keys);
        keys.filter(|key| key.mark == mark).for_each(|key| key.is_changed = true);
    }

    fn keep(&mut self, request: &Request, mut target: Target, now_s: i64) {
        target.used_s = now_s;
        if self.kept.len() >= KEPT_ITEMS
            && let Some(any) = self.kept.keys().next().cloned()
        {
            self.kept.remove(&any);
        }
        self.kept.insert((request.host.clone(), request.port.clone()), target);
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Redis does not wait for a connection and only hears of this when it writes.
pub(crate) fn not_connected(e: &io::Error) -> CmdError {
    if e.kind() == io::ErrorKind::ConnectionRefused || is_timeout(e) { NOT_WRITTEN } else { NOT_CONNECTED }
}

impl Server {
    /// Begins to move keys, which are there, to where `addresses` say that the target is. The client waits if `waits`.
    /// Otherwise it is over when this returns.
    pub(crate) fn move_keys(
        &mut self,
        (client, from_db): (ClientId, usize),
        request: Request,
        found: &[usize],
        addresses: Vec<IpAddr>,
        waits: bool,
    ) -> Option<Result<(), CmdError>> {
        let keys = found.iter().map(|at| self.mark_key(from_db, &request.keys[*at])).collect();
        let mut going = Move {
            client,
            from_db,
            keys,
            target: None,
            addresses: addresses.iter().copied().collect(),
            all_addresses: addresses,
            stage: Stage::Connecting,
            is_encoded: false,
            out: Outgoing::new(),
            exchange: Exchange::default(),
            is_busy: true,
            has_event: false,
            may_retry: true,
            until: None,
            request,
        };
        let mut result = self.connect_move(&mut going).err().map(Err);
        while result.is_none() {
            match self.step_move(&mut going, Instant::now() + SLICE) {
                Step::Over(over) => result = Some(over),
                _ if waits => {
                    self.block(client, BlockState { kind: BlockKind::Moving, deadline_ms: None, command: None });
                    self.moving.moves.push(going);
                    return None;
                }
                Step::Waits => going.wait(),
                Step::HasMore => {}
            }
        }
        self.forget_marks(&going);
        result
    }

    fn mark_key(&mut self, db: usize, name: &[u8]) -> MovingKey {
        self.moving.next_mark = self.moving.next_mark.wrapping_add(1);
        let mark = ClientId { index: u32::MAX, generation: self.moving.next_mark };
        self.ks.watch.add(mark, &WatchedKey { db, key: name.to_vec(), was_expired: false });
        MovingKey { name: name.to_vec(), mark, is_changed: false }
    }

    fn forget_marks(&mut self, going: &Move) {
        for MovingKey { name, mark, .. } in &going.keys {
            self.ks.watch.remove(*mark, WatchedKey { db: going.from_db, key: name.clone(), was_expired: false });
        }
    }

    /// Takes the connection to the target that is kept, or opens one.
    fn connect_move(&mut self, going: &mut Move) -> Result<(), CmdError> {
        let at = (going.request.host.clone(), going.request.port.clone());
        (going.stage, going.until) = (Stage::Connecting, None);
        going.target = self.moving.kept.remove(&at);
        if going.target.is_some() { Ok(()) } else { self.open_next(going, io::ErrorKind::NotFound.into()) }
    }

    /// Opens a connection to the next address; `failure` is what became of the one before.
    fn open_next(&mut self, going: &mut Move, mut failure: io::Error) -> Result<(), CmdError> {
        let port = std::str::from_utf8(&going.request.port).ok().and_then(|port| port.parse::<u16>().ok());
        let port = port.ok_or(NOT_CONNECTED)?;
        going.until.get_or_insert_with(|| Instant::now() + going.request.timeout);
        while let Some(address) = going.addresses.pop_front() {
            // Nodes whose bus is under TLS take keys under TLS, too.
            let opened = open_connection(SocketAddr::new(address, port), None)
                .and_then(|conn| self.secure(conn, self.cfg.tls_cluster));
            self.moving.next_number = self.moving.next_number.wrapping_add(1);
            let number = self.moving.next_number;
            let registered = opened.and_then(|mut conn| {
                conn.register(self.reactor.registry(), Source::Moving(number).token())?;
                Ok(conn)
            });
            match registered {
                Ok(conn) => {
                    going.target = Some(Target::new(conn, number));
                    return Ok(());
                }
                Err(e) => failure = e,
            }
        }
        Err(not_connected(&failure))
    }

    /// Goes on with a move for as long as it need not wait, at most until `deadline`.
    fn step_move(&mut self, going: &mut Move, deadline: Instant) -> Step {
        loop {
            going.is_busy = false;
            let Some(target) = &mut going.target else { return Step::Over(Err(NOT_CONNECTED)) };
            match going.stage {
                Stage::Connecting => match target.finish_connecting() {
                    Ok(true) if going.is_encoded => going.begin_exchange(),
                    Ok(true) => (going.until, going.stage) = (None, Stage::Encoding(Box::default())),
                    Ok(false) if going.is_late() => return Step::Over(Err(NOT_WRITTEN)),
                    Ok(false) => return Step::Waits,
                    Err(e) => {
                        if let Err(over) = self.open_next(going, e) {
                            return Step::Over(Err(over));
                        }
                    }
                },
                Stage::Encoding(_) => {
                    if !self.encode_move(going, deadline) {
                        going.is_busy = true;
                        return Step::HasMore;
                    }
                    going.is_encoded = true;
                    going.begin_exchange();
                }
                Stage::Exchanging => match going.exchange.step(target, &mut going.out) {
                    Stepped::HasMore => {
                        going.is_busy = true;
                        going.hold_on();
                        return Step::HasMore;
                    }
                    Stepped::Waits(has_moved) => {
                        if has_moved {
                            going.hold_on();
                        }
                        if !going.is_late() {
                            return Step::Waits;
                        }
                        let over = going.exchange.failed(!going.out.is_sent(), io::ErrorKind::TimedOut.into());
                        return self.end_exchange(going, over);
                    }
                    Stepped::Over(Exchanged::NothingSent { cause, .. }) if going.may_retry && !is_timeout(&cause) => {
                        // It is common for a kept connection to have been closed; a timeout would only be doubled.
                        going.may_retry = false;
                        going.exchange.forget_answers();
                        going.addresses = going.all_addresses.iter().copied().collect();
                        if let Err(over) = self.connect_move(going) {
                            return Step::Over(Err(over));
                        }
                    }
                    Stepped::Over(over) => return self.end_exchange(going, over),
                },
            }
        }
    }

    /// Puts together what is to be sent, until `deadline`. Whether all of it is there.
    fn encode_move(&mut self, going: &mut Move, deadline: Instant) -> bool {
        let Stage::Encoding(encoding) = &mut going.stage else { return true };
        let (now_ms, compress) = (self.clock.ms(), self.cfg.rdbcompression);
        while let Some(key) = going.keys.get_mut(encoding.at) {
            if std::mem::take(&mut key.is_changed) {
                (encoding.dump, encoding.pieces) = Default::default();
            }
            let entry = self.ks.dbs[going.from_db].get(&key.name);
            // Keys whose time has come meanwhile are left out.
            if let Some(entry) = entry.filter(|entry| !is_due(entry.expire_ms(), now_ms)) {
                let mut piece = Vec::new();
                let is_whole = encoding.dump.go_on(&mut piece, value_view(entry), compress, &mut |gathered| {
                    gathered < PIECE_BYTES && Instant::now() < deadline
                });
                encoding.pieces.push(piece);
                if !is_whole {
                    if Instant::now() < deadline {
                        continue;
                    }
                    return false;
                }
                let ttl_ms = entry.expire_ms().map_or(0, |at| (at - now_ms).max(1));
                let verb: &[u8] = if self.cfg.cluster_enabled { b"RESTORE-ASKING" } else { b"RESTORE" };
                let end: &[&[u8]] = if going.request.replace { &[b"REPLACE"] } else { &[] };
                encoding.put_restore(&mut going.out, (verb, &key.name, ttl_ms), end);
                going.exchange.sent.push(encoding.at);
            }
            encoding.at += 1;
            (encoding.dump, encoding.pieces) = Default::default();
            if Instant::now() >= deadline && encoding.at < going.keys.len() {
                return false;
            }
        }
        going.out.add(std::mem::take(&mut encoding.gathered));
        true
    }

    /// The target has answered, or will not: what it has taken over goes.
    fn end_exchange(&mut self, going: &mut Move, over: Exchanged) -> Step {
        let (moved, error, is_broken) = match over {
            Exchanged::NothingSent { writing: true, .. } => return Step::Over(Err(NOT_WRITTEN)),
            Exchanged::NothingSent { .. } => return Step::Over(Err(NOT_READ)),
            Exchanged::Done { moved, error } => (moved, error, false),
            Exchanged::Broken { moved, error } => (moved, error, true),
        };
        if let Some(mut target) = going.target.take_if(|_| !is_broken) {
            target.db = error.is_none().then_some(going.request.db);
            let now_s = self.now_s();
            self.moving.keep(&going.request, target, now_s);
        }
        self.forget_marks(going);
        let stays = !going.request.copy && self.remove_moved(going, &moved);
        Step::Over(match error {
            Some(text) => Err(CmdError::bytes([b"ERR Target instance replied with error: ", &text[..]].concat())),
            None if is_broken => Err(NOT_READ),
            None if stays => Err(CHANGED),
            None => Ok(()),
        })
    }

    /// Deletes the keys the target has confirmed; the log and the replicas hear of a DEL. Whether one stays that has changed.
    fn remove_moved(&mut self, going: &Move, moved: &[usize]) -> bool {
        if self.is_replica() {
            // It has become one, and the keys are its master's.
            return !moved.is_empty();
        }
        let mut words: Vec<&[u8]> = vec![b"DEL"];
        let mut stays = false;
        for MovingKey { name, is_changed, .. } in moved.iter().map(|at| &going.keys[*at]) {
            if *is_changed {
                stays |= self.ks.dbs[going.from_db].get(name).is_some();
            } else if self.ks.delete(going.from_db, name, false) {
                self.ks.effects.notify(notify::GENERIC, "del", name, going.from_db);
                self.ks.effects.dirty += 1;
                words.push(name);
            }
        }
        match words.len() {
            1 => {}
            _ if self.depth > 0 => self.ks.effects.replace_with(&words),
            _ => self.ks.effects.propagate_now(going.from_db, &words),
        }
        stays
    }

    // ---- the turn ----

    /// The connection to a target is ready for something.
    pub(crate) fn on_moving_ready(&mut self, number: u32, event: Ready) {
        let is_meant = |target: &Target| target.number == number;
        if let Some(at) = self.moving.moves.iter().position(|going| going.target.as_ref().is_some_and(is_meant)) {
            if self.may_go_on_moving() {
                self.go_on_with_move(at, Instant::now() + SLICE);
            } else {
                self.moving.moves[at].has_event = true;
            }
            return;
        }
        if !event.readable {
            return;
        }
        // A target says nothing by itself, but it may be gone.
        self.moving.kept.retain(|_, target| {
            let is_idle = |target: &mut Target| {
                matches!(target.conn.read(&mut [0; 64]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
            };
            !is_meant(target) || is_idle(target)
        });
    }

    /// Nothing goes on within a script, and nothing may be deleted while writes are paused: a replica that takes over has what was
    /// written until then.
    fn may_go_on_moving(&self) -> bool {
        self.depth == 0 && !self.writes_paused()
    }

    /// Before the loop sleeps: goes on with what needs no event, and gives up what took too long.
    pub(crate) fn go_on_moving(&mut self) {
        if !self.moving.is_any() || !self.may_go_on_moving() {
            return;
        }
        let deadline = Instant::now() + SLICE;
        // Each is the first one in its turn.
        self.moving.moves.rotate_left(1);
        let mut at = 0;
        while let Some(going) = self.moving.moves.get(at) {
            let is_next = (going.is_busy || going.has_event) && Instant::now() < deadline || going.is_late();
            let before = self.moving.moves.len();
            if is_next {
                self.go_on_with_move(at, deadline);
            }
            at += usize::from(self.moving.moves.len() == before);
        }
    }

    fn go_on_with_move(&mut self, at: usize, deadline: Instant) {
        let mut going = self.moving.moves.swap_remove(at);
        going.has_event = false;
        self.begin_effects();
        let was_held = !going.request.copy || !matches!(going.stage, Stage::Exchanging);
        let stepped = self.step_move(&mut going, deadline);
        let Step::Over(result) = stepped else {
            let lets_go = was_held && going.request.copy && matches!(going.stage, Stage::Exchanging);
            self.moving.moves.push(going);
            if lets_go {
                self.release_postponed();
            }
            return;
        };
        self.forget_marks(&going);
        self.drain_effects();
        let client = going.client;
        match result {
            Ok(()) => {
                let mut reply = Reply::default();
                reply.ok();
                self.clients.reply(client, &reply.buf);
                self.unblock(client, WaitEnd::Answered);
            }
            Err(error) => {
                self.reply_error_to(client, &error);
                self.unblock(client, WaitEnd::Failed);
            }
        }
        let offset = self.repl_offset();
        if let Some(c) = self.clients.get_mut(client) {
            c.write_offset = offset;
        }
        self.serve_ready_keys();
        self.release_postponed();
    }

    /// Whether a move goes on at once.
    pub(crate) fn is_moving(&self) -> bool {
        self.moving.moves.iter().any(|going| going.is_busy || going.has_event) && self.may_go_on_moving()
    }

    /// When a move is given up that waits, wall clock ms.
    pub(crate) fn moving_deadline_ms(&self) -> Option<i64> {
        let until = self.moving.moves.iter().filter_map(|going| going.until).min().filter(|_| !self.writes_paused())?;
        Some(self.clock.ms() + until.saturating_duration_since(Instant::now()).as_millis() as i64 + 1)
    }
}

impl Move {
    /// Something went on: the time for the next thing begins.
    fn hold_on(&mut self) {
        self.until = Some(Instant::now() + self.request.timeout);
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }

    fn begin_exchange(&mut self) {
        let Some(target) = &self.target else { return };
        let (mut head, mut replies) = (Vec::new(), 0);
        if !self.request.auth.is_empty() {
            let words: Vec<&[u8]> = self.request.auth.iter().map(Vec::as_slice).collect();
            put_command(&mut head, &words);
            replies += 1;
        }
        if target.db != Some(self.request.db) {
            put_command(&mut head, &[b"SELECT", self.request.db.to_string().as_bytes()]);
            replies += 1;
        }
        self.out.begin(head);
        self.exchange.replies_before = replies;
        self.stage = Stage::Exchanging;
        self.hold_on();
    }

    /// Stands still until the connection is ready, or nothing more is to be expected.
    fn wait(&self) {
        let Some(fd) = self.target.as_ref().and_then(|target| target.conn.fd()) else { return };
        let left = self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let is_writing = !matches!(self.stage, Stage::Exchanging) || !self.out.is_sent();
        let flags = if is_writing { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let most = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        // Whatever came of it shows in the next step.
        let _ = poll(&mut [PollFd::new(fd, flags)], most);
    }
}

impl Encoding {
    /// The payload is whole: gives out the command that takes it over.
    fn put_restore(&mut self, out: &mut Outgoing, (verb, key, ttl_ms): (&[u8], &[u8], i64), end: &[&[u8]]) {
        let ttl = ttl_ms.to_string();
        let len: usize = self.pieces.iter().map(Vec::len).sum();
        put_header(&mut self.gathered, 4 + end.len());
        [verb, key, ttl.as_bytes()].iter().for_each(|arg| put_arg(&mut self.gathered, arg));
        put_bulk_header(&mut self.gathered, len);
        for piece in self.pieces.drain(..) {
            if piece.len() < PIECE_BYTES / 4 {
                self.gathered.extend_from_slice(&piece);
            } else {
                out.add(std::mem::take(&mut self.gathered));
                out.add(piece);
            }
        }
        self.gathered.extend_from_slice(b"\r\n");
        end.iter().for_each(|arg| put_arg(&mut self.gathered, arg));
        if self.gathered.len() >= PIECE_BYTES {
            out.add(std::mem::take(&mut self.gathered));
        }
    }
}
