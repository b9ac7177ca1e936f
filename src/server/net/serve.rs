//! Serving clients: accepting, reading, writing, closing.

use crate::net::io::FoundAt;
use crate::net::listener::reason;
use crate::net::reactor::Ready;
use crate::net::{ClientId, Conn, Link, Secured};
use crate::server::Server;
use crate::server::clients::{ClientFlags, ToRun};
use crate::server::dispatch::admit::is_local;
use crate::server::dispatch::ahead::{self, Ahead};
use crate::server::dispatch::input::IMPORT_SLICE_US;
use crate::sys::reserve;
use std::io::{self, Read, Write};

/// Connections accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 1000;
/// Bytes asked for by one read.
pub(super) const READ_BYTES: usize = 16 * 1024;

/// What is reserved for an argument of which so many bytes are to come. Behind a very large one there is room for the next read:
/// to make it when all has come would be to move all.
pub(in crate::server) fn room_for_argument(wanted: usize) -> usize {
    if wanted > 1 << 20 { wanted + READ_BYTES } else { wanted }
}
/// Reads from one client in one turn.
const READS_PER_TURN: usize = 16;
/// Bytes written to one client in one turn, so that one large reply does not starve the others.
const WRITE_BYTES_PER_TURN: usize = 1 << 20;

/// Listeners, by their places in the list of them, at which connections may wait that no event will tell of.
#[derive(Debug, Default)]
pub(crate) struct Unaccepted {
    /// They had more than their share of a turn.
    next_turn: Vec<usize>,
    /// There were no descriptors, or accepting failed for another reason that passes.
    starved: Vec<usize>,
    /// The log tells of that.
    is_logged: bool,
}

impl Unaccepted {
    pub(crate) fn is_due(&self) -> bool {
        !self.next_turn.is_empty()
    }

    /// There may be descriptors again.
    fn retry(&mut self) {
        self.next_turn.append(&mut self.starved);
    }

    pub(crate) fn forget(&mut self) {
        *self = Unaccepted::default();
    }
}

impl Server {
    pub(crate) fn accept_clients(&mut self, ahead: &mut Ahead, listener: usize) {
        // What was lent to a save comes back before clients get anything.
        reserve::refill();
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(l) = self.listeners.get(listener) else { return };
            match l.accept() {
                Ok(conn) => {
                    let is_tls = l.is_tls();
                    self.unaccepted.is_logged = false;
                    if !is_tls {
                        self.add_connection(ahead, conn);
                    } else if self.has_too_many_clients() {
                        // It would not understand a reply before the handshake, and that is not worth it.
                        self.stats.rejected_connections += 1;
                    } else {
                        self.begin_handshake(conn, Secured::Client);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => {}
                Err(e) => {
                    if !std::mem::replace(&mut self.unaccepted.is_logged, true) {
                        log::warn!("Accepting client connection: {}", reason(&e));
                    }
                    if !self.unaccepted.starved.contains(&listener) {
                        self.unaccepted.starved.push(listener);
                    }
                    return;
                }
            }
        }
        self.unaccepted.next_turn.push(listener);
    }

    /// Goes on accepting where connections may wait.
    pub(crate) fn accept_rest(&mut self, ahead: &mut Ahead) {
        for listener in std::mem::take(&mut self.unaccepted.next_turn) {
            self.accept_clients(ahead, listener);
        }
    }

    /// Tries again what failed for want of descriptors: by the cron, as others than clients have some, too.
    pub(crate) fn retry_accepting(&mut self) {
        reserve::refill();
        self.unaccepted.retry();
    }

    fn has_too_many_clients(&self) -> bool {
        self.clients.connected + self.cluster_link_count() >= self.cfg.maxclients as usize
    }

    /// Begins the handshake of a connection that was accepted.
    pub(crate) fn begin_handshake(&mut self, conn: Conn, whose: Secured) {
        conn.set_nodelay(true);
        match conn.secure(self.tls.contexts(), whose) {
            Ok(conn) => {
                if let Some(conn) = self.secure_elsewhere(conn, whose) {
                    self.handshakes.begin(conn, whose, self.reactor.registry(), self.clock.mono_ms());
                }
            }
            Err(e) => log::warn!("Error accepting a client connection: {}", reason(&e)),
        }
    }

    /// Gives up handshakes that take too long: by the cron.
    pub(crate) fn handshakes_cron(&mut self) {
        self.handshakes.give_up_late(self.reactor.registry(), self.clock.mono_ms());
    }

    /// Goes on with handshakes whose peers have answered.
    pub(crate) fn run_handshakes(&mut self, ahead: &mut Ahead) {
        if !self.handshakes.is_due() {
            return;
        }
        let mut done = Vec::new();
        self.handshakes.run(self.reactor.registry(), &mut |conn, whose| done.push((conn, whose)));
        for (conn, whose) in done {
            match whose {
                Secured::Client | Secured::Opened => self.add_connection(ahead, conn),
                Secured::Bus => self.accept_link(conn),
                Secured::Operator => self.add_operator(conn),
            }
        }
    }

    /// Makes a client of a connection, which has its handshake done if there is to be one and is not registered.
    pub(crate) fn add_connection(&mut self, ahead: &mut Ahead, mut conn: Conn) {
        if self.has_too_many_clients() {
            // The socket's buffer takes a line as short as this.
            let _ = conn.write(b"-ERR max number of clients reached\r\n");
            self.stats.rejected_connections += 1;
            return;
        }
        conn.set_nodelay(true);
        conn.set_keepalive(self.cfg.tcp_keepalive);
        let id = self.clients.add(Some(conn), self.clock.ms());
        self.set_durable_default(id);
        self.clients.connected += 1;
        self.stats.connections_received += 1;
        let unix = self.cfg.unixsocket.clone();
        let Some(c) = self.clients.get_mut(id) else { return };
        if c.is(ClientFlags::UNIX_SOCKET) {
            log::debug!("Accepted connection to {unix}");
            c.path = Some(unix);
        } else {
            log::debug!("Accepted {}", c.addr());
        }
        // Those who came before a password was set stay welcome.
        c.flags.set(ClientFlags::AUTHENTICATED, !self.auth_required);
        let token = crate::net::Source::Client(id).token();
        let registered = c.conn.as_mut().map(|s| s.register(self.reactor.registry(), token));
        if let Some(Err(e)) = registered {
            log::warn!("Error registering the event for the new client: {}", reason(&e));
            self.clients.close_later(id);
            return;
        }
        if self.is_protected_from(id) {
            let c = self.clients.get_mut(id).expect("just added");
            c.out.append(PROTECTED_MODE.as_bytes());
            c.flags.add(ClientFlags::CLOSE_AFTER_REPLY);
            self.clients.want_write(id);
            self.stats.rejected_connections += 1;
            return;
        }
        // Whoever connects as a rule has something to say at once.
        if !self.send_away(id) {
            self.take_input(ahead, id, false);
        }
    }

    /// Protected mode refuses everyone from elsewhere while the default user has no password.
    fn is_protected_from(&self, id: ClientId) -> bool {
        self.cfg.protected_mode && !self.auth_required && self.clients.get(id).is_some_and(|c| !is_local(c))
    }

    #[inline]
    pub(crate) fn on_client_ready(&mut self, ahead: &mut Ahead, id: ClientId, event: Ready) {
        if event.writable && self.clients.get(id).is_some_and(|c| !c.out.is_empty() || c.is(ClientFlags::REPLICA)) {
            self.clients.want_write(id);
        }
        if event.readable && !self.send_away(id) {
            self.take_input(ahead, id, event.closed);
        }
    }

    /// Reads what a client has sent, to be run with the input of others. Whoever turns out to be gone is gone before any of
    /// that runs. `closed`: the peer closed its side.
    fn take_input(&mut self, ahead: &mut Ahead, id: ClientId, closed: bool) {
        if self.is_nested_turn() {
            // Within a long command: its look-ahead is under way.
            return self.read_client(ahead, id, closed);
        }
        match self.read_some(id) {
            ReadOutcome::Stopped => {}
            outcome => {
                let more = outcome == ReadOutcome::More || closed;
                self.clients.to_run.push(ToRun { id, more, found: FoundAt::default() });
            }
        }
        if self.clients.to_run.len() >= ahead::CLIENTS {
            self.run_inputs(ahead);
        }
    }

    /// Runs the input of the clients that were read.
    pub(crate) fn run_inputs(&mut self, ahead: &mut Ahead) {
        let mut read = std::mem::take(&mut self.clients.to_run);
        if read.is_empty() {
            return;
        }
        self.clients.batch.clear();
        self.clients.batch.extend_from_slice(&read);
        let limit = self.cfg.client_query_buffer_limit as usize;
        self.process_batch(ahead);
        self.clients.found.clear();
        for ToRun { id, more, .. } in read.drain(..) {
            self.check_query_limit(id, limit);
            if more {
                self.read_client(ahead, id, true);
            }
        }
        self.clients.to_run = read;
    }

    /// Reads what the client has sent, up to its share of the turn, and runs it. `to_the_end`: the peer has closed, so the
    /// end is to be looked for even behind a short read.
    fn read_client(&mut self, ahead: &mut Ahead, id: ClientId, to_the_end: bool) {
        if self.clients.current == Some(id) {
            // A turn within a long command of this very client: its buffers are in use, and its next command waits.
            return self.clients.want_read(id);
        }
        let limit = self.cfg.client_query_buffer_limit as usize;
        let is_import = self.clients.get(id).is_some_and(|c| c.is(ClientFlags::IMPORT));
        let begun_us = self.clock.mono_us();
        for _ in 0..READS_PER_TURN {
            let outcome = self.read_some(id);
            if outcome == ReadOutcome::Stopped {
                return;
            }
            self.process_input(ahead, id);
            self.check_query_limit(id, limit);
            if outcome == ReadOutcome::Drained && !to_the_end {
                return;
            }
            if is_import && self.clock.mono_us() - begun_us >= IMPORT_SLICE_US {
                break;
            }
        }
        // More may be there: the edge has been used up, so the client is looked at again without waiting.
        self.clients.want_read(id);
    }

    /// One read into the query buffer.
    fn read_some(&mut self, id: ClientId) -> ReadOutcome {
        let Some(c) = self.clients.get_mut(id) else { return ReadOutcome::Stopped };
        if c.is(ClientFlags::IMPORT) && c.is(ClientFlags::PENDING_READ) {
            // It had its time of this turn, and what there is comes first.
            return ReadOutcome::Stopped;
        }
        if c.is(ClientFlags::CLOSE_ASAP.union(ClientFlags::CLOSE_AFTER_REPLY)) {
            return self.drop_input(id);
        }
        // A large argument is read in one piece, right into its final place.
        let wanted = c.parser.wanted_len().map_or(0, |n| (c.query_pos + n).saturating_sub(c.query.len()));
        let old_len = c.query.len();
        let room = match wanted {
            // The rest of an argument that has its room already.
            1.. if old_len > READ_BYTES => wanted.min(1 << 20),
            _ => READ_BYTES.max(wanted.min(1 << 20)),
        };
        if c.query.capacity() - old_len < room {
            if wanted > READ_BYTES {
                c.query.reserve_exact(room_for_argument(wanted));
            } else {
                c.query.reserve(room);
            }
        }
        let Link { conn: Some(conn), query, .. } = &mut c.link else { return ReadOutcome::Stopped };
        let room = query.capacity() - old_len;
        let read = conn.read_to_spare(query);
        let is_more = conn.holds_more();
        match read {
            Ok(0) => {
                self.end_input(id);
                ReadOutcome::Stopped
            }
            Ok(n) => {
                self.note_read(id, n);
                if n < room && !is_more { ReadOutcome::Drained } else { ReadOutcome::More }
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => ReadOutcome::Stopped,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => ReadOutcome::More,
            Err(e) => {
                log::debug!("Reading from client: {}", reason(&e));
                self.close_now(id);
                ReadOutcome::Stopped
            }
        }
    }

    /// A client sends no more: it is closed, after what it has sent has run and the replies have left as far as its socket
    /// takes them.
    fn end_input(&mut self, id: ClientId) {
        let Some(c) = self.clients.get(id) else { return };
        if c.is(ClientFlags::PENDING_READ) && c.query.len() > c.query_pos {
            // Its share of the turn was used up; the end will still be there.
            return;
        }
        let has_replies = !c.out.is_empty() && !c.is(ClientFlags::CLOSE_ASAP.union(ClientFlags::REPLICA));
        if has_replies && self.clients.current != Some(id) {
            if !self.is_all_written() {
                // They wait for the disk.
                if let Some(c) = self.clients.get_mut(id) {
                    c.flags.add(ClientFlags::CLOSE_AFTER_REPLY);
                }
                return self.clients.want_write(id);
            }
            self.write_now(id);
        }
        log::debug!("Client closed connection {}", self.describe_client(id));
        self.close_now(id);
    }

    /// So many bytes came from a client.
    #[inline(always)]
    pub(super) fn note_read(&mut self, id: ClientId, bytes: usize) {
        let now_ms = self.clock.ms();
        let Some(c) = self.clients.get_mut(id) else { return };
        c.last_interaction_ms = now_ms;
        let from_master = c.is(ClientFlags::MASTER);
        self.stats.note_input(bytes, from_master);
        self.stats.reads_processed += 1;
        if from_master {
            self.note_master_read(bytes);
        }
    }

    /// A client that is about to be closed is read only to see its end.
    fn drop_input(&mut self, id: ClientId) -> ReadOutcome {
        let mut scratch = [0u8; 4096];
        let Some(conn) = self.clients.get_mut(id).and_then(|c| c.conn.as_mut()) else { return ReadOutcome::Stopped };
        match conn.read(&mut scratch) {
            Ok(0) => {
                self.end_input(id);
                ReadOutcome::Stopped
            }
            Ok(_) => ReadOutcome::More,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                ReadOutcome::Stopped
            }
            Err(_) => {
                self.close_now(id);
                ReadOutcome::Stopped
            }
        }
    }

    pub(super) fn check_query_limit(&mut self, id: ClientId, limit: usize) {
        let Some(c) = self.clients.get(id) else { return };
        let unread = c.query.len() - c.query_pos;
        if unread > 0 && c.last_command.is_none() && c.query[c.query_pos..].starts_with(TLS_HELLO) {
            log::warn!("A TLS handshake from {} on a port without TLS: closing the connection", c.addr());
            return self.clients.close_later(id);
        }
        if unread + c.multi.mem_bytes() <= limit || c.is(ClientFlags::MASTER) {
            return;
        }
        let info = self.describe_client(id);
        log::warn!("Closing client that reached max query buffer length: {info} (qbuf initial bytes: {unread})");
        self.stats.client_query_buffer_limit_disconnections += 1;
        self.clients.close_later(id);
    }

    /// Looks again at clients whose sockets or buffers held more than their share of the last turn.
    pub(crate) fn read_pending(&mut self, ahead: &mut Ahead) {
        for id in std::mem::take(&mut self.clients.pending_reads) {
            let Some(c) = self.clients.get_mut(id) else { continue };
            c.flags.remove(ClientFlags::PENDING_READ);
            if c.query.len() > c.query_pos && self.clients.current != Some(id) {
                self.process_input(ahead, id);
            }
            // The event that told of its end may have come while it could not be read.
            self.read_client(ahead, id, true);
        }
    }

    /// Goes on with clients that were released from blocking.
    pub(crate) fn process_unblocked(&mut self, ahead: &mut Ahead) {
        for id in std::mem::take(&mut self.clients.unblocked) {
            let Some(c) = self.clients.get_mut(id) else { continue };
            c.flags.remove(ClientFlags::UNBLOCKED);
            self.process_input(ahead, id);
        }
    }

    /// Sends what clients have waiting.
    pub(crate) fn write_pending(&mut self) {
        let gated = self.is_output_gated();
        let gated_by_disk = gated && self.is_output_gated_by_disk();
        let mut ids = std::mem::take(&mut self.clients.pending_writes);
        // The stream leaves first: whoever has a reply in hand may ask a replica next.
        self.want_replica_writes();
        let stream = std::mem::take(&mut self.clients.pending_writes);
        let is_node = self.bus.is_some();
        for id in stream.into_iter().chain(ids.drain(..)) {
            if is_node && self.is_reply_late(id) {
                // What became of the write is for the new master to say.
                self.clients.close_later(id);
            }
            if let Some(c) = self.clients.get_mut(id) {
                c.flags.remove(ClientFlags::PENDING_WRITE);
                let waits = gated_by_disk || (gated && !c.is(ClientFlags::NOT_DURABLE));
                if waits && !c.is(ClientFlags::EXPORT) {
                    self.write_client(id, true);
                } else {
                    self.write_now(id);
                }
            }
        }
        if is_node {
            self.note_replies_left();
        }
        // The room serves the next turn, too. Those who are to be written to again have come meanwhile.
        ids.append(&mut self.clients.pending_writes);
        self.clients.pending_writes = ids;
    }

    /// Sends a client what it has waiting, which nothing holds back.
    pub(crate) fn write_now(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            c.out.release_all();
            self.write_client(id, false);
        }
    }

    /// Sends a client what it has waiting; `gated`: no more than what is known to be durable.
    fn write_client(&mut self, id: ClientId, gated: bool) {
        let Some(c) = self.clients.get_mut(id) else { return };
        if c.is(ClientFlags::CLOSE_ASAP) {
            return;
        }
        if c.is(ClientFlags::REPLICA) {
            return self.write_replica(id);
        }
        let is_export = c.is(ClientFlags::EXPORT);
        let Link { conn: Some(conn), out, .. } = &mut c.link else { return };
        // Over the memory limit, a large backlog is worth sending in one go.
        let limit = WRITE_BYTES_PER_TURN.min(out.released());
        let is_far = matches!(conn, Conn::Far(_));
        match out.write_to(limit, |slices| conn.write_vectored(slices)) {
            Ok(sent) => {
                c.out.settle();
                self.stats.net_output_bytes += sent as u64;
                self.stats.writes_processed += (sent > 0) as u64;
                self.io.writes += (sent > 0 && is_far) as u64;
                if gated && c.out.pending() > c.out.released() {
                    // The rest follows when it is durable.
                    c.flags.add(ClientFlags::PENDING_WRITE);
                    self.hold_output(id);
                } else if sent >= WRITE_BYTES_PER_TURN && !c.out.is_empty() {
                    // The socket still takes bytes: no event will come.
                    self.clients.want_write(id);
                } else if c.out.is_empty() && c.is(ClientFlags::CLOSE_AFTER_REPLY) {
                    self.clients.close_later(id);
                }
                self.check_output_limit(id);
                self.update_client_memory(id);
                if is_export {
                    self.wrote_to_target(id);
                }
            }
            Err(e) => {
                log::debug!("Error writing to client: {}", reason(&e));
                self.clients.close_later(id);
            }
        }
    }

    /// Frees clients marked for it.
    pub(crate) fn free_closing(&mut self) {
        for id in std::mem::take(&mut self.clients.closing) {
            self.free_client(id);
        }
    }

    /// Takes a client away at once. Never for the client whose command runs.
    pub(crate) fn free_client(&mut self, id: ClientId) {
        if self.clients.current == Some(id) {
            self.clients.closing.push(id);
            return;
        }
        self.repl_before_free(id);
        self.forget_migration_client(id);
        self.unsubscribe_all(id);
        self.forget_tracking(id);
        self.discard_transaction(id);
        self.unwatch_all(id);
        let Some(mut c) = self.clients.remove(id) else { return };
        self.client_memory.forget(&mut c);
        if let Some(state) = c.block.take() {
            self.forget_block(id, &state);
        }
        self.clients.monitors.retain(|m| *m != id);
        if let Some(mut conn) = c.conn.take() {
            self.note_link_gone(&mut conn, c.is(ClientFlags::KILLED));
            let _ = conn.deregister(self.reactor.registry());
            self.unaccepted.retry();
            if !c.is(ClientFlags::REPLICA.union(ClientFlags::MASTER)) || c.is(ClientFlags::MONITOR) {
                self.clients.connected = self.clients.connected.saturating_sub(1);
            }
        }
    }
}

/// How a client begins that takes this for a port with TLS. It would wait for an answer that is none of ours.
const TLS_HELLO: &[u8] = &[0x16, 3];

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadOutcome {
    /// The read came back short: the socket is empty.
    Drained,
    /// There may be more.
    More,
    /// Nothing more is to be read now.
    Stopped,
}

const PROTECTED_MODE: &str = "-DENIED Redis is running in protected mode because protected mode is enabled and no \
password is set for the default user. In this mode connections are only accepted from the loopback interface. If you \
want to connect from external computers to Redis you may adopt one of the following solutions: 1) Just disable \
protected mode sending the command 'CONFIG SET protected-mode no' from the loopback interface by connecting to Redis \
from the same host the server is running, however MAKE SURE Redis is not publicly accessible from internet if you do \
so. Use CONFIG REWRITE to make this change permanent. 2) Alternatively you can just disable the protected mode by \
editing the Redis configuration file, and setting the protected mode option to 'no', and then restarting the server. \
3) If you started the server manually just for testing, restart it with the '--protected-mode no' option. 4) Set up an \
authentication password for the default user. NOTE: You only need to do one of the above things in order for the server \
to start accepting connections from the outside.\r\n";
