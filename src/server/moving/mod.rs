//! MIGRATE under way: keys on their way to another server, while the loop goes on.
//!
//! What is to be sent is put together in slices, the answers are waited for as any other input is, and what the target has
//! taken over is deleted in slices. Meanwhile the client waits, and so does everybody who would write to the keys, which are
//! as they were sent until they go. What writes without having named a key (a script, expiry) does not wait: such a key stays
//! here, and MIGRATE says so. In transactions and scripts nobody can wait: there this server stands still for as long as it
//! takes.
//!
//! All moves share a millisecond of a turn. Each has its turn before any has another one.
//!
//! Connections are kept for a few seconds, since keys of a slot are usually moved one after the other.

mod target;

use crate::catalog::error::CmdError;
use crate::keyspace::effects::notify;
use crate::keyspace::expire::is_due;
use crate::keyspace::watch::{WatchedKey, copier};
use crate::net::reactor::Ready;
use crate::net::{ClientId, Source};
use crate::persist::rdb::SlicedDump;
use crate::persist::snapshot::value_view;
use crate::resp::Reply;
use crate::resp::encode::{put_arg, put_bulk_header, put_command, put_header};
use crate::server::Server;
use crate::server::clients::Client;
use crate::server::dispatch::blocked::{BlockKind, BlockState, WaitEnd};
use crate::structs::slots::{Slot, key_slot};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use target::{Exchange, Exchanged, Outgoing, Stepped, Target};

/// Connections kept at most.
const KEPT_ITEMS: usize = 64;
/// A connection that was not used for longer than this is closed.
const KEPT_S: i64 = 10;
/// The longest slice of a turn, for all moves.
const SLICE: Duration = Duration::from_millis(1);
/// A payload is put together in pieces of this size, and small ones gather up to it, bytes.
const PIECE_BYTES: usize = 64 * 1024;
/// While payloads of so many bytes are on their way, those of others are not begun.
const MOST_PAYLOADS: usize = 256 << 20;
/// Keys that are told of by one DEL at most.
const KEYS_PER_DEL: usize = 256;

const NOT_CONNECTED: CmdError = CmdError::of("IOERR error or timeout connecting to the client");
const NOT_WRITTEN: CmdError = CmdError::of("IOERR error or timeout writing to target instance");
const NOT_READ: CmdError = CmdError::of("IOERR error or timeout reading to target instance");
const CHANGED: CmdError = CmdError::of("ERR A key was changed on its way by who had not named it, and stays here");
const ELSEWHERE: CmdError = CmdError::of("ERR Another node came to own the keys while they were on their way");

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
    /// In the order in which they have their turn.
    moves: VecDeque<Move>,
    next_number: u32,
    next_mark: u32,
    /// By database, the keys to which writes wait, and how many moves each is held by.
    held: HashMap<usize, HashMap<Vec<u8>, usize>>,
    /// By the number of who watches it for a move, whether a key was changed after its payload was begun.
    changed: HashMap<ClientId, bool>,
    /// Bytes of all payloads.
    payloads: usize,
}

#[derive(Debug)]
struct Move {
    client: ClientId,
    from_db: usize,
    /// This server was a replica when it began.
    was_replica: bool,
    /// The slot of the keys, if this node owned it when it began.
    slot: Option<Slot>,
    /// The client waits, and so do others.
    waits: bool,
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
    /// Something came for it.
    has_event: bool,
    /// It does not begin before others have ended.
    is_put_off: bool,
    /// Bytes of its payloads.
    payloads: usize,
    may_retry: bool,
    /// When what it waits for is given up.
    until: Option<Instant>,
}

#[derive(Debug)]
struct MovingKey {
    name: Vec<u8>,
    /// Who watches it for us, as long as that is of interest.
    mark: Option<ClientId>,
    /// Writes to it wait.
    is_held: bool,
}

#[derive(Debug)]
enum Stage {
    Connecting,
    Encoding(Box<Encoding>),
    Exchanging,
    Ending(Box<Ending>),
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

/// What is left to be done when the target has answered, or will not.
#[derive(Debug)]
struct Ending {
    /// The keys that the target has taken over, and those that have not been seen to here.
    moved: Vec<usize>,
    left: std::ops::Range<usize>,
    result: Result<(), CmdError>,
    /// What becomes of keys that stay although the target has them.
    stays: Option<CmdError>,
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
    fn is_any(&self) -> bool {
        !self.moves.is_empty()
    }

    /// Whether writes to a key wait, of this database or, where that is not known, of any.
    pub(crate) fn holds(&self, db: Option<usize>, key: &[u8]) -> bool {
        match db {
            Some(db) => self.held.get(&db).is_some_and(|keys| keys.contains_key(key)),
            None => self.held.values().any(|keys| keys.contains_key(key)),
        }
    }

    /// Whether writes to any key wait.
    pub(crate) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    fn hold(&mut self, db: usize, key: &mut MovingKey) {
        key.is_held = true;
        *self.held.entry(db).or_default().entry(key.name.clone()).or_default() += 1;
    }

    fn let_go(&mut self, db: usize, key: &mut MovingKey) {
        let is_held = std::mem::take(&mut key.is_held);
        let Some(keys) = self.held.get_mut(&db).filter(|_| is_held) else { return };
        if let Some(count) = keys.get_mut(&key.name) {
            *count -= 1;
            if *count == 0 {
                keys.remove(&key.name);
            }
        }
        if keys.is_empty() {
            self.held.remove(&db);
        }
    }

    /// Somebody watched a key that changed, and it was no client.
    pub(crate) fn note_changed(&mut self, mark: ClientId) {
        if let Some(is_changed) = self.changed.get_mut(&mark) {
            *is_changed = true;
        }
    }

    /// Whether a key was changed since its payload was begun.
    fn is_changed(&self, key: &MovingKey) -> bool {
        key.mark.is_some_and(|mark| self.changed.get(&mark).copied().unwrap_or_default())
    }

    /// The payload of a key is begun. Whether that had been done before, and the key was changed since.
    fn begins(&mut self, key: &MovingKey) -> bool {
        key.mark.and_then(|mark| self.changed.get_mut(&mark)).is_some_and(std::mem::take)
    }

    /// Whether the payloads of one more may be put together.
    fn has_room(&self) -> bool {
        self.payloads < MOST_PAYLOADS
    }

    /// Whether a move can go on at once.
    fn is_ready(&self, going: &Move) -> bool {
        going.is_busy || going.has_event || going.is_put_off && self.has_room()
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
        let keys: Vec<MovingKey> = found.iter().map(|at| self.mark_key(from_db, &request.keys[*at])).collect();
        let slot = keys.first().map(|key| key_slot(&key.name)).filter(|slot| self.owns_slot(*slot));
        let mut going = Move {
            client,
            from_db,
            was_replica: self.is_replica(),
            slot,
            waits,
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
            is_put_off: false,
            payloads: 0,
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
                    if !going.lets_write() {
                        going.keys.iter_mut().for_each(|key| self.moving.hold(from_db, key));
                    }
                    self.moving.moves.push_back(going);
                    return None;
                }
                Step::Waits => going.wait(),
                Step::HasMore => {}
            }
        }
        self.forget_move(&mut going);
        result
    }

    /// Whether this server is a node of a cluster and owns a slot.
    fn owns_slot(&self, slot: Slot) -> bool {
        self.cluster().is_some_and(|machine| machine.owner_of(slot) == Some(machine.my_key()))
    }

    fn mark_key(&mut self, db: usize, name: &[u8]) -> MovingKey {
        self.moving.next_mark = self.moving.next_mark.wrapping_add(1);
        let mark = copier(self.moving.next_mark);
        self.moving.changed.insert(mark, false);
        self.ks.watch.add(mark, &WatchedKey { db, key: name.to_vec(), was_expired: false });
        MovingKey { name: name.to_vec(), mark: Some(mark), is_held: false }
    }

    /// What becomes of a key is of no interest any more.
    fn forget_key(&mut self, db: usize, key: &mut MovingKey) {
        self.moving.let_go(db, key);
        if let Some(mark) = key.mark.take() {
            self.moving.changed.remove(&mark);
            self.ks.watch.remove(mark, WatchedKey { db, key: key.name.clone(), was_expired: false });
        }
    }

    fn forget_move(&mut self, going: &mut Move) {
        going.keys.iter_mut().for_each(|key| self.forget_key(going.from_db, key));
        self.moving.payloads -= std::mem::take(&mut going.payloads);
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
            let is_secured = self.cfg.tls_cluster;
            self.moving.next_number = self.moving.next_number.wrapping_add(1);
            let number = self.moving.next_number;
            match self.connect((SocketAddr::new(address, port), None), is_secured, Source::Moving(number)) {
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
            if let Stage::Ending(_) = going.stage {
                return self.step_ending(going, deadline);
            }
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
                    going.is_put_off = going.waits && going.payloads == 0 && !self.moving.has_room();
                    if going.is_put_off {
                        return Step::Waits;
                    }
                    if !self.encode_move(going, deadline) {
                        going.is_busy = true;
                        return Step::HasMore;
                    }
                    going.is_encoded = true;
                    going.begin_exchange();
                }
                Stage::Exchanging => {
                    if let Some(step) = self.step_exchange(going) {
                        return step;
                    }
                }
                Stage::Ending(_) => {}
            }
        }
    }

    /// Goes on with what is said between the target and here, unless it is over (`None`).
    fn step_exchange(&mut self, going: &mut Move) -> Option<Step> {
        let target = going.target.as_mut()?;
        let over = match going.exchange.step(target, &mut going.out) {
            Stepped::HasMore => {
                going.is_busy = true;
                going.hold_on();
                return Some(Step::HasMore);
            }
            Stepped::Waits(has_moved) => {
                if has_moved {
                    going.hold_on();
                }
                if !going.is_late() {
                    return Some(Step::Waits);
                }
                going.exchange.failed(!going.out.is_sent(), io::ErrorKind::TimedOut.into())
            }
            Stepped::Over(Exchanged::NothingSent { cause, .. }) if going.may_retry && !is_timeout(&cause) => {
                // It is common for a kept connection to have been closed; a timeout would only be doubled.
                going.may_retry = false;
                going.exchange.forget_answers();
                going.addresses = going.all_addresses.iter().copied().collect();
                return self.connect_move(going).err().map(|error| Step::Over(Err(error)));
            }
            Stepped::Over(over) => over,
        };
        match self.end_exchange(going, over) {
            Ok(ending) => going.stage = Stage::Ending(Box::new(ending)),
            Err(error) => return Some(Step::Over(Err(error))),
        }
        None
    }

    /// Puts together what is to be sent, until `deadline`. Whether all of it is there.
    fn encode_move(&mut self, going: &mut Move, deadline: Instant) -> bool {
        let Stage::Encoding(encoding) = &mut going.stage else { return true };
        let (now_ms, compress) = (self.clock.ms(), self.cfg.rdbcompression);
        while let Some(key) = going.keys.get_mut(encoding.at) {
            if self.moving.begins(key) {
                let dropped = encoding.begin_anew();
                going.payloads -= dropped;
                self.moving.payloads -= dropped;
            }
            let entry = self.ks.dbs[going.from_db].get(&key.name);
            // Keys whose time has come meanwhile are left out.
            if let Some(entry) = entry.filter(|entry| !is_due(entry.expire_ms(), now_ms)) {
                let mut piece = Vec::new();
                let is_whole = encoding.dump.go_on(&mut piece, value_view(entry), compress, &mut |gathered| {
                    gathered < PIECE_BYTES && Instant::now() < deadline
                });
                going.payloads += piece.len();
                self.moving.payloads += piece.len();
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
            // Of one that has gone meanwhile there may be pieces.
            let dropped = encoding.begin_anew();
            going.payloads -= dropped;
            self.moving.payloads -= dropped;
            if Instant::now() >= deadline && encoding.at < going.keys.len() {
                return false;
            }
        }
        going.out.add(std::mem::take(&mut encoding.gathered));
        true
    }

    /// The target has answered, or will not. What is to be done then, if the target has said anything of the keys.
    fn end_exchange(&mut self, going: &mut Move, over: Exchanged) -> Result<Ending, CmdError> {
        let (moved, error, is_broken) = match over {
            Exchanged::NothingSent { writing: true, .. } => return Err(NOT_WRITTEN),
            Exchanged::NothingSent { .. } => return Err(NOT_READ),
            Exchanged::Done { moved, error } => (moved, error, false),
            Exchanged::Broken { moved, error } => (moved, error, true),
        };
        if let Some(mut target) = going.target.take()
            && !is_broken
            && target.is_idle()
        {
            target.db = error.is_none().then_some(going.request.db);
            let now_s = self.now_s();
            self.moving.keep(&going.request, target, now_s);
        }
        going.until = None;
        let result = match error {
            Some(text) => Err(CmdError::bytes([b"ERR Target instance replied with error: ", &text[..]].concat())),
            None if is_broken => Err(NOT_READ),
            None => Ok(()),
        };
        Ok(Ending { left: 0..moved.len(), moved, result, stays: None })
    }

    /// Deletes the keys that the target has confirmed, until `deadline`; the log and the replicas hear of a DEL.
    fn step_ending(&mut self, going: &mut Move, deadline: Instant) -> Step {
        let Stage::Ending(ending) = &mut going.stage else { return Step::HasMore };
        let mut deleted: Vec<usize> = Vec::new();
        // What they belong to may be somebody else's by now: a master's, or another node's.
        let is_elsewhere =
            self.is_replica() != going.was_replica || going.slot.is_some_and(|slot| !self.owns_slot(slot));
        while let Some(at) = ending.left.next().map(|at| ending.moved[at]) {
            let key = &mut going.keys[at];
            let is_changed = self.moving.is_changed(key);
            self.forget_key(going.from_db, key);
            if going.request.copy {
                // It stays in any case.
            } else if is_elsewhere {
                ending.stays = Some(ELSEWHERE);
            } else if is_changed {
                if self.ks.dbs[going.from_db].get(&key.name).is_some() {
                    ending.stays.get_or_insert(CHANGED);
                }
            } else if self.ks.delete(going.from_db, &key.name, false) {
                self.ks.effects.notify(notify::GENERIC, "del", &key.name, going.from_db);
                self.ks.effects.dirty += 1;
                deleted.push(at);
            }
            if self.depth == 0 && (deleted.len() == KEYS_PER_DEL || Instant::now() >= deadline) {
                break;
            }
        }
        let mut words: Vec<&[u8]> = vec![b"DEL"];
        words.extend(deleted.iter().map(|at| &going.keys[*at].name[..]));
        match deleted.len() {
            0 => {}
            _ if self.depth > 0 => self.ks.effects.replace_with(&words),
            _ => self.ks.effects.propagate_now(going.from_db, &words),
        }
        if !ending.left.is_empty() {
            going.is_busy = true;
            return Step::HasMore;
        }
        let stays = ending.stays.take();
        Step::Over(std::mem::replace(&mut ending.result, Ok(())).and(stays.map_or(Ok(()), Err)))
    }

    // ---- the turn ----

    /// The connection to a target is ready for something.
    pub(crate) fn on_moving_ready(&mut self, number: u32, event: Ready) {
        let is_meant = |target: &Target| target.number == number;
        if let Some(going) = self.moving.moves.iter_mut().find(|going| going.target.as_ref().is_some_and(is_meant)) {
            // It goes on before the loop sleeps, within the share of all moves.
            going.has_event = true;
        } else if event.readable {
            // A target says nothing by itself, but it may be gone.
            self.moving.kept.retain(|_, target| !is_meant(target) || target.is_idle());
        }
    }

    /// Nothing goes on within a script, and nothing may be deleted while writes are paused: a replica that takes over has what was
    /// written until then.
    fn may_go_on_moving(&self) -> bool {
        self.depth == 0 && !self.writes_paused()
    }

    /// Whether nothing of a move may be deleted now: its slot is about to be another node's, and what is deleted now
    /// would stay there.
    fn waits_for_slot(&self, going: &Move) -> bool {
        let Some(slot) = going.slot else { return false };
        self.bus.as_ref().is_some_and(|bus| bus.migrations.holds(Some(slot)))
    }

    /// Before the loop sleeps: goes on with what can go on, and gives up what took too long.
    pub(crate) fn go_on_moving(&mut self) {
        if !self.moving.is_any() || !self.may_go_on_moving() {
            return;
        }
        let deadline = Instant::now() + SLICE;
        if self.moving.moves.iter().any(Move::is_late) {
            self.step_each(deadline, |_, going| Some(going.is_late()));
        }
        // Who has had no turn when the time is over is the first in the next one.
        self.step_each(deadline, |moving, going| (Instant::now() < deadline).then(|| moving.is_ready(going)));
    }

    /// Goes on with each move, once, of which `is_next` says so, until it says nothing.
    fn step_each(&mut self, deadline: Instant, is_next: impl Fn(&Moving, &Move) -> Option<bool>) {
        for _ in 0..self.moving.moves.len() {
            let Some(going) = self.moving.moves.front() else { return };
            let Some(is_next) = is_next(&self.moving, going) else { return };
            let goes_on = is_next && !self.waits_for_slot(going);
            let Some(going) = self.moving.moves.pop_front() else { return };
            if goes_on {
                self.go_on_with_move(going, deadline);
            } else {
                self.moving.moves.push_back(going);
            }
        }
    }

    fn go_on_with_move(&mut self, mut going: Move, deadline: Instant) {
        going.has_event = false;
        self.begin_effects();
        let stepped = self.step_move(&mut going, deadline);
        let Step::Over(result) = stepped else {
            self.drain_effects();
            // Who is only copied may be written to as soon as the copy is there.
            if going.lets_write() && going.keys.first().is_some_and(|key| key.is_held) {
                going.keys.iter_mut().for_each(|key| self.moving.let_go(going.from_db, key));
                self.release_postponed();
            }
            self.moving.moves.push_back(going);
            return;
        };
        self.forget_move(&mut going);
        self.drain_effects();
        // Who waits no longer has been answered: this server has become a replica.
        let is_waited_for = |c: &Client| c.block.as_ref().is_some_and(|block| block.kind == BlockKind::Moving);
        if self.clients.get(going.client).is_some_and(is_waited_for) {
            self.answer_move(going.client, result);
        }
        self.serve_ready_keys();
        self.release_postponed();
    }

    fn answer_move(&mut self, client: ClientId, result: Result<(), CmdError>) {
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
    }

    /// Whether a move goes on at once.
    pub(crate) fn is_moving(&self) -> bool {
        let goes_on = |going: &Move| self.moving.is_ready(going) && !self.waits_for_slot(going);
        self.moving.moves.iter().any(goes_on) && self.may_go_on_moving()
    }

    /// When a move is given up that waits, wall clock ms.
    pub(crate) fn moving_deadline_ms(&self) -> Option<i64> {
        let waiting = self.moving.moves.iter().filter(|going| !self.waits_for_slot(going));
        let until = waiting.filter_map(|going| going.until).min().filter(|_| self.may_go_on_moving())?;
        Some(self.clock.ms_until(until))
    }
}

impl Move {
    /// Something went on: the time for the next thing begins.
    fn hold_on(&mut self) {
        self.until = Some(Instant::now() + self.request.timeout);
    }

    /// Whether its keys may be written to: what is copied only, once the copy is there.
    fn lets_write(&self) -> bool {
        self.request.copy && matches!(self.stage, Stage::Exchanging | Stage::Ending(_))
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
    /// The next payload begins at its beginning. How many bytes were put together in vain.
    fn begin_anew(&mut self) -> usize {
        self.dump = SlicedDump::default();
        self.pieces.drain(..).map(|piece| piece.len()).sum()
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_together_in_vain_does_not_count() {
        let mut encoding = Encoding { pieces: vec![vec![1; 10], vec![2; 5]], ..Encoding::default() };
        assert_eq!((encoding.begin_anew(), encoding.begin_anew()), (15, 0));
        assert!(encoding.pieces.is_empty());
    }
}
