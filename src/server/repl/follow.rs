//! Towards the master: connecting, introducing this server, receiving the dataset, and following the stream.
//!
//! The link's state is in [`MasterLink`](crate::repl::link::MasterLink); this file moves it, with sockets and files. Once the
//! stream is followed, the master is a client with the MASTER flag: its commands run like any other's, and the bytes of
//! those that took effect are handed on to this server's own replicas unchanged. How a received dataset is put into
//! memory is in `load`.

use crate::config::ReplDisklessLoad;
use crate::net::listener::reason;
use crate::net::reactor::Ready;
use crate::net::{ClientId, Conn, Source};
use crate::repl::bulk::{BulkEvent, BulkReader, Framing};
use crate::repl::failover::FailoverState;
use crate::repl::handshake::{Action, Handshake, HandshakeConfig, Outcome, command};
use crate::repl::history::ReplId;
use crate::repl::link::{CachedMaster, LinkState, OnlineMaster, TempFile, Transfer};
use crate::repl::{LogLine, link};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::sys::os_error;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::task::Poll;

/// Bytes asked for by one read of a dataset.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of a dataset read in one turn.
const READ_BYTES_PER_TURN: usize = 4 << 20;
/// The first pause before another attempt to reach the master, in milliseconds; each further one is twice as long.
const RETRY_PAUSE_MIN_MS: i64 = 20;
/// The longest pause; whatever comes later is left to the periodic work.
const RETRY_PAUSE_MAX_MS: i64 = 640;
/// Bytes of a received file after which it is handed to the disk.
const SYNC_EVERY_BYTES: u64 = 8 << 20;

impl Server {
    // ---- choosing a master

    /// Makes this server a replica of the one at `host` and `port`.
    pub(crate) fn set_master(&mut self, host: &str, port: u16) {
        let was_primary = !self.repl.is_replica();
        self.name_master(None);
        self.drop_online_master();
        self.disconnect_blocked_clients();
        self.name_master(Some((host.to_owned(), port)));
        self.cancel_sync(false);
        if was_primary {
            self.discard_cached_master();
            self.cache_own_history();
        }
        self.role_changed();
        self.repl.master.state = LinkState::Connect;
        self.repl.master.retry_pause_ms = 0;
        self.repl.master.looking_up = false;
        self.connect_again();
    }

    /// Makes this server a primary. Its replicas may continue with it under the id they know.
    pub(crate) fn unset_master(&mut self) {
        if !self.repl.is_replica() {
            return;
        }
        self.name_master(None);
        self.drop_online_master();
        self.discard_cached_master();
        self.cancel_sync(false);
        self.repl.history.shift().emit();
        self.disconnect_replicas();
        self.repl.master.state = LinkState::None;
        // Nobody knows which database the new stream begins in.
        self.repl.stream_db = None;
        self.repl.no_replicas_since_s = self.now_s();
        self.repl.master.down_since_s = 0;
        self.role_changed();
        self.restart_aof_after_role_change();
    }

    /// From here on the lines of the log are those of the role this makes.
    fn name_master(&mut self, address: Option<(String, u16)>) {
        self.repl.master.address = address;
        self.show_log_role();
    }

    fn role_changed(&mut self) {
        self.show_role();
    }

    /// A former primary may be able to continue with its successor: it knows where its own stream ends.
    fn cache_own_history(&mut self) {
        log::info!(
            "Before turning into a replica, using my own master parameters to synthesize a cached master: I may be able \
             to synchronize with the new master with just a partial transfer."
        );
        self.repl.master.cached =
            Some(CachedMaster { id: self.repl.history.id, offset: self.repl.history.offset, db: 0 });
    }

    /// Uses the history a dataset was saved with: the stream it stands at can be continued by a replica, and as a second
    /// history by a primary's replicas.
    pub(crate) fn restore_history(&mut self, id: ReplId, offset: i64, stream_db: usize) {
        if self.repl.is_replica() {
            self.repl.history.id = id;
            self.repl.history.offset = offset;
            self.cache_own_history();
            if let Some(cached) = &mut self.repl.master.cached {
                cached.db = stream_db;
            }
            return;
        }
        let history = &mut self.repl.history;
        history.second_id = id;
        history.second_offset = offset + 1;
        history.offset += offset;
        if let Some(backlog) = &mut self.repl.backlog {
            backlog.rebase(offset);
        }
        self.repl.no_replicas_since_s = self.now_s();
    }

    fn discard_cached_master(&mut self) {
        if self.repl.master.cached.take().is_some() {
            log::info!("Discarding previously cached master state.");
        }
    }

    // ---- connecting

    /// Starts connecting; what becomes of it is seen in [`on_master_link_ready`](Self::on_master_link_ready).
    pub(super) fn connect_to_master(&mut self) {
        let Some((host, port)) = self.repl.master.address.clone() else { return };
        let ends = self.connection_ends(&host, port);
        self.repl.master.looking_up = ends.is_pending();
        let Poll::Ready(ends) = ends else { return };
        let connected = ends.and_then(|(target, source)| open_connection(target, source)).and_then(|conn| {
            let mut conn = self.secure(conn, self.cfg.tls_replication)?;
            conn.register(self.reactor.registry(), Source::MasterLink.token())?;
            Ok(conn)
        });
        match connected {
            Ok(conn) => {
                self.repl.master.conn = Some(conn);
                self.repl.master.last_io_s = self.now_s();
                self.repl.master.state = LinkState::Connecting;
                log::info!("MASTER <-> REPLICA sync started");
                // Nearby, the connection is up by now.
                self.finish_connecting();
            }
            Err(e) => {
                log::warn!("Unable to connect to MASTER: {}", reason(&e));
                self.plan_retry();
            }
        }
    }

    /// The address of a host, and the one to connect from if the configuration names one. Pending while a name is looked
    /// up.
    pub(crate) fn connection_ends(
        &mut self,
        host: &str,
        port: u16,
    ) -> Poll<io::Result<(SocketAddr, Option<SocketAddr>)>> {
        let source = self.cfg.bind_source_addr.as_str();
        let mut sources = if source.is_empty() { Poll::Ready(Ok(Vec::new())) } else { self.resolver.addresses(source) };
        let targets = match self.resolver.addresses(host) {
            Poll::Ready(Ok(targets)) => targets,
            Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
            Poll::Pending => return Poll::Pending,
        };
        let Poll::Ready(sources) = &mut sources else { return Poll::Pending };
        let target = targets[0];
        let ends = std::mem::replace(sources, Ok(Vec::new())).and_then(|sources| {
            let same_family = sources.iter().find(|s| s.is_ipv4() == target.is_ipv4());
            if same_family.is_none() && !source.is_empty() {
                return Err(io::Error::from_raw_os_error(nix::libc::EADDRNOTAVAIL));
            }
            Ok((SocketAddr::new(target, port), same_family.map(|s| SocketAddr::new(*s, 0))))
        });
        Poll::Ready(ends)
    }

    /// Plans the next attempt after a failed one: soon at first, as most failures are short (a master that restarts, or
    /// that has just lost its own), then after longer and longer pauses, and in the end with the periodic work alone.
    fn plan_retry(&mut self) {
        let now_ms = self.clock.ms();
        let link = &mut self.repl.master;
        let pause_ms = link.retry_pause_ms.max(RETRY_PAUSE_MIN_MS);
        link.retry_at_ms = (pause_ms <= RETRY_PAUSE_MAX_MS).then_some(now_ms + pause_ms);
        link.retry_pause_ms = (pause_ms * 2).min(RETRY_PAUSE_MAX_MS * 2);
    }

    /// When the next attempt to reach the master is due, if that is before the periodic work.
    pub(crate) fn repl_deadline_ms(&self) -> Option<i64> {
        self.repl.master.retry_at_ms
    }

    /// Makes the attempt that is due.
    pub(crate) fn repl_timers(&mut self) {
        if self.repl.master.looking_up && !self.is_loading() {
            self.go_on_connecting();
        }
        let Some(due_ms) = self.repl.master.retry_at_ms else { return };
        if self.is_loading() || self.clock.ms() < due_ms {
            return;
        }
        self.connect_again();
    }

    /// Connects if the master's name has been looked up meanwhile.
    fn go_on_connecting(&mut self) {
        if self.repl.master.state == LinkState::Connect {
            self.connect_to_master();
        } else {
            self.repl.master.looking_up = false;
        }
    }

    /// Connects, unless a connection is there or under way.
    fn connect_again(&mut self) {
        self.repl.master.retry_at_ms = None;
        if self.repl.master.looking_up {
            return self.go_on_connecting();
        }
        if self.repl.master.state == LinkState::Connect
            && let Some((host, port)) = &self.repl.master.address
        {
            log::info!("Connecting to MASTER {host}:{port}");
            self.connect_to_master();
        }
    }

    /// Gives up what is going on with the master short of following its stream. With `reconnect`, starts anew at once.
    pub(super) fn cancel_sync(&mut self, reconnect: bool) -> bool {
        match self.repl.master.state {
            LinkState::Connecting | LinkState::Handshake | LinkState::Transfer => {}
            LinkState::None | LinkState::Connect | LinkState::Connected => return false,
        }
        self.close_master_link();
        if reconnect && let Some((host, port)) = &self.repl.master.address {
            log::info!("Reconnecting to MASTER {host}:{port} after failure");
            self.connect_to_master();
        }
        true
    }

    /// Closes the connection after a failure, to be tried again.
    fn fail_master_link(&mut self) {
        self.close_master_link();
        self.plan_retry();
    }

    /// Closes the connection; the periodic work connects again.
    fn close_master_link(&mut self) {
        let link = &mut self.repl.master;
        if let Some(mut conn) = link.conn.take() {
            // It is closed right away, which takes it out of the poll as well.
            let _ = conn.deregister(self.reactor.registry());
        }
        link.outbox.clear();
        link.handshake = None;
        link.transfer = None;
        link.keepalive = None;
        link.state = LinkState::Connect;
    }

    /// The link's connection is ready for something.
    pub(crate) fn on_master_link_ready(&mut self, event: Ready) {
        if self.repl.master.loading {
            return;
        }
        match self.repl.master.state {
            LinkState::Connecting => self.finish_connecting(),
            LinkState::Handshake | LinkState::Transfer if self.script_is_busy() => self.repl.master.held_back = true,
            LinkState::Handshake => {
                if event.writable {
                    self.flush_link_outbox();
                }
                self.read_handshake();
            }
            LinkState::Transfer => self.read_dataset(),
            LinkState::None | LinkState::Connect | LinkState::Connected => {}
        }
    }

    /// Asks for what was held back to be told of again.
    pub(super) fn release_master_link(&mut self) {
        if std::mem::take(&mut self.repl.master.held_back) {
            self.rearm_master_link();
        }
    }

    fn finish_connecting(&mut self) {
        let Some(conn) = &mut self.repl.master.conn else { return };
        match conn.finish_connecting() {
            Ok(true) => {}
            Ok(false) => return, // Not yet.
            Err(e) => {
                log::warn!("Error condition on socket for SYNC: {}", reason(&e));
                return self.fail_master_link();
            }
        }
        let config = self.handshake_config();
        let (handshake, actions) = Handshake::start(config, self.clock.ms() as u64);
        self.repl.master.handshake = Some(handshake);
        self.repl.master.state = LinkState::Handshake;
        self.do_handshake_actions(actions, &[]);
    }

    fn handshake_config(&self) -> HandshakeConfig {
        let given = |bytes: &Vec<u8>| (!bytes.is_empty()).then(|| bytes.clone());
        let announced_port = self.cfg.replica_announce_port;
        HandshakeConfig {
            user: given(&self.cfg.masteruser),
            password: given(&self.cfg.masterauth),
            listening_port: match announced_port {
                0 if self.cfg.tls_replication && self.cfg.tls_port != 0 => self.cfg.tls_port,
                0 => self.cfg.port,
                port => port,
            },
            announce_ip: (!self.cfg.replica_announce_ip.is_empty()).then(|| self.cfg.replica_announce_ip.clone()),
            resume: self.repl.master.cached.map(|cached| (cached.id, cached.offset + 1)),
            failover: self.repl.failover.state() == FailoverState::InProgress,
        }
    }

    fn flush_link_outbox(&mut self) {
        let link = &mut self.repl.master;
        let Some(conn) = &mut link.conn else { return };
        while !link.outbox.is_empty() {
            match conn.write(&link.outbox) {
                Ok(sent) => drop(link.outbox.drain(..sent)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    log::warn!(
                        "Sending command to master in replication handshake: -Writing to master: {}",
                        reason(&e)
                    );
                    if self.repl.failover.state() == FailoverState::InProgress {
                        self.abort_failover("Write error to failover target");
                    } else {
                        self.fail_master_link();
                    }
                    return;
                }
            }
        }
    }

    // ---- the introduction

    fn read_handshake(&mut self) {
        let mut buffer = [0u8; 4096];
        loop {
            let now_ms = self.clock.ms() as u64;
            let link = &mut self.repl.master;
            let (Some(conn), Some(handshake)) = (&mut link.conn, &mut link.handshake) else { return };
            let actions = match conn.read(&mut buffer) {
                Ok(0) => handshake.disconnected("Connection lost"),
                Ok(count) => {
                    self.stats.note_input(count, true);
                    let (used, actions) = handshake.receive(&buffer[..count], now_ms);
                    self.do_handshake_actions(actions, &buffer[used..count]);
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => handshake.disconnected(&reason(&e)),
            };
            return self.do_handshake_actions(actions, &[]);
        }
    }

    /// `rest` is what followed the last reply. What is to be sent leaves first: the master can work on it meanwhile.
    fn do_handshake_actions(&mut self, actions: Vec<Action>, rest: &[u8]) {
        for action in &actions {
            if let Action::Send(bytes) = action {
                self.repl.master.outbox.extend_from_slice(bytes);
            }
        }
        self.flush_link_outbox();
        for action in actions {
            match action {
                Action::Log(line) => line.emit(),
                Action::Send(_) => {}
                Action::Done(outcome) => return self.finish_handshake(outcome, rest),
            }
        }
    }

    fn finish_handshake(&mut self, outcome: Outcome, rest: &[u8]) {
        if self.repl.master.conn.is_none() {
            return; // It was closed when it did not take the last command.
        }
        self.repl.master.last_io_s = self.now_s();
        self.repl.master.handshake = None;
        if self.repl.failover.state() == FailoverState::InProgress {
            match &outcome {
                Outcome::Continue { .. } | Outcome::FullResync { .. } => self.complete_failover(),
                Outcome::Sync | Outcome::Failed { psync_refused: true } => {
                    return self.abort_failover("Failover target rejected psync request");
                }
                Outcome::Failed { psync_refused: false } => {}
            }
        }
        match outcome {
            Outcome::Continue { id } => self.continue_with_master(id, rest),
            Outcome::FullResync { from } => self.begin_transfer(from, rest),
            Outcome::Sync => self.begin_transfer(None, rest),
            Outcome::Failed { .. } => self.fail_master_link(),
        }
    }

    fn continue_with_master(&mut self, id: Option<ReplId>, rest: &[u8]) {
        let Some(mut cached) = self.repl.master.cached.take() else {
            // It was asked for everything and has no position to continue from.
            log::warn!("Master accepted a partial resynchronization that was not asked for");
            return self.fail_master_link();
        };
        if let Some(id) = id.filter(|id| *id != cached.id) {
            log::info!("Master replication ID changed to {id}");
            // What is common stays good for our own replicas; they have to hear of the new id.
            self.repl.history.id = cached.id;
            self.repl.history.shift_to(id);
            cached.id = id;
            self.disconnect_replicas();
        }
        if self.repl.backlog.is_none() {
            self.repl.create_backlog(self.cfg.repl_backlog_size as usize);
        }
        self.go_online(Some(cached.id), cached.offset, cached.db, rest);
        log::info!("MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization.");
    }

    /// Turns the link's connection into the client that runs the master's commands.
    pub(super) fn go_online(&mut self, id: Option<ReplId>, offset: i64, db: usize, rest: &[u8]) {
        let Some(conn) = self.repl.master.conn.take() else { return self.fail_master_link() };
        conn.set_nodelay(true);
        conn.set_keepalive(self.cfg.tcp_keepalive);
        let client = self.clients.add(Some(conn), self.clock.ms());
        let now_s = self.now_s();
        let Some(c) = self.clients.get_mut(client) else { return };
        c.flags.add(ClientFlags::MASTER.union(ClientFlags::AUTHENTICATED));
        c.db = db;
        c.query.extend_from_slice(rest);
        let registry = self.reactor.registry();
        let moved = c.conn.as_mut().map(|conn| conn.reregister(registry, Source::Client(client).token()));
        self.repl.master.online = Some(OnlineMaster {
            client,
            id,
            applied: offset,
            read: offset + rest.len() as i64,
            unapplied: Vec::new(),
            last_io_s: now_s,
        });
        self.repl.master.state = LinkState::Connected;
        self.repl.master.retry_pause_ms = 0;
        self.repl.master.down_since_s = 0;
        if let Some(Err(e)) = moved {
            log::warn!("Error resurrecting the cached master, impossible to add the readable handler: {}", reason(&e));
            self.clients.close_later(client);
            return;
        }
        self.clients.want_read(client);
    }

    // ---- the dataset

    fn begin_transfer(&mut self, from: Option<(ReplId, i64)>, rest: &[u8]) {
        let file = if self.uses_diskless_load() {
            None
        } else {
            match self.create_transfer_file() {
                Ok(file) => Some(file),
                Err(e) => {
                    log::warn!("Opening the temp file needed for MASTER <-> REPLICA synchronization: {}", os_error(&e));
                    return self.fail_master_link();
                }
            }
        };
        self.repl.master.state = LinkState::Transfer;
        self.repl.master.transfer = Some(Transfer { reader: BulkReader::new(), framing: None, from, read: 0, file });
        if self.take_dataset(rest) {
            self.read_dataset();
        }
    }

    fn uses_diskless_load(&self) -> bool {
        match self.cfg.repl_diskless_load {
            ReplDisklessLoad::Disabled => false,
            ReplDisklessLoad::OnEmptyDb => self.ks.total_keys() == 0,
            ReplDisklessLoad::Swapdb => true,
        }
    }

    fn create_transfer_file(&self) -> io::Result<TempFile> {
        let path = std::path::PathBuf::from(format!("temp-{}.{}.rdb", self.now_s(), std::process::id()));
        let file = std::fs::OpenOptions::new().write(true).create_new(true).open(&path)?;
        Ok(TempFile { file, path, synced: 0, kept: false })
    }

    fn read_dataset(&mut self) {
        let mut buffer = vec![0u8; READ_BYTES];
        let mut total = 0;
        loop {
            if self.repl.master.state != LinkState::Transfer {
                return;
            }
            if total >= READ_BYTES_PER_TURN && !self.repl.master.conn.as_ref().is_some_and(Conn::holds_text) {
                // The edge is used up: ask to be told again.
                self.rearm_master_link();
                return;
            }
            let link = &mut self.repl.master;
            let Some(conn) = &mut link.conn else { return };
            let in_header = link.transfer.as_ref().is_none_or(|transfer| transfer.framing.is_none());
            let lost = match conn.read(&mut buffer) {
                Ok(0) => "connection lost".to_owned(),
                Ok(count) => {
                    total += count;
                    self.stats.note_input(count, true);
                    if !self.take_dataset(&buffer[..count]) {
                        return;
                    }
                    continue;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => reason(&e),
            };
            if in_header {
                log::warn!("I/O error reading bulk count from MASTER: {lost}");
            } else {
                log::warn!("I/O error trying to sync with MASTER: {lost}");
            }
            self.cancel_sync(true);
            return;
        }
    }

    fn rearm_master_link(&mut self) {
        let registry = self.reactor.registry();
        if let Some(conn) = &mut self.repl.master.conn
            && let Err(e) = conn.reregister(registry, Source::MasterLink.token())
        {
            log::warn!("Can't create readable event for SYNC: {}", reason(&e));
            self.cancel_sync(true);
        }
    }

    /// Takes bytes of the transfer. Returns whether it goes on.
    fn take_dataset(&mut self, bytes: &[u8]) -> bool {
        let mut input = bytes;
        loop {
            let now_s = self.now_s();
            let Some(transfer) = &mut self.repl.master.transfer else { return false };
            self.repl.master.last_io_s = now_s;
            let event = match transfer.reader.next(&mut input) {
                Ok(Some(event)) => event,
                Ok(None) => return true,
                Err(e) => {
                    log::warn!("{e}");
                    self.cancel_sync(true);
                    return false;
                }
            };
            let written = match event {
                BulkEvent::Keepalive => Ok(()),
                BulkEvent::Header(framing) => {
                    transfer.framing = Some(framing);
                    let to = if transfer.file.is_some() { "to disk" } else { "to parser" };
                    match framing {
                        Framing::Mark(_) => {
                            log::info!("MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF {to}");
                        }
                        Framing::Length(length) => {
                            log::info!("MASTER <-> REPLICA sync: receiving {length} bytes from master {to}");
                        }
                    }
                    if transfer.file.is_none() {
                        self.load_from_master_link(framing, input);
                        return false;
                    }
                    Ok(())
                }
                BulkEvent::Data(data) => write_received(transfer, data),
                BulkEvent::Held(data) => write_received(transfer, &data),
                BulkEvent::End => {
                    self.load_received_file(input);
                    return false;
                }
            };
            self.sync_received_part();
            if let Err(e) = written {
                log::warn!(
                    "Write error or short write writing to the DB dump file needed for MASTER <-> REPLICA \
                     synchronization: {}",
                    os_error(&e)
                );
                self.cancel_sync(true);
                return false;
            }
        }
    }

    /// Spreads the writing to disk over the transfer, so that the end does not wait for everything at once.
    fn sync_received_part(&mut self) {
        let Some(transfer) = &mut self.repl.master.transfer else { return };
        let Some(target) = &mut transfer.file else { return };
        if transfer.read - target.synced < SYNC_EVERY_BYTES {
            return;
        }
        target.synced = transfer.read;
        if let Ok(file) = target.file.try_clone() {
            // A failure shows again, and is dealt with, at the end.
            self.background.fsync.submit(move || drop(file.sync_data()));
        }
    }

    /// The dataset at hand is another one: nobody can continue what was here.
    pub(super) fn adopt_new_dataset(&mut self) {
        self.discard_cached_master();
        self.disconnect_replicas();
        self.drop_backlog();
    }

    /// The dataset is in memory: follows the stream behind it.
    pub(super) fn finish_full_sync(
        &mut self,
        from: Option<(ReplId, i64)>,
        stream_db: usize,
        framing: Option<Framing>,
        rest: &[u8],
    ) {
        let (id, offset) = match from {
            Some((id, offset)) => (Some(id), offset),
            None => (None, -1),
        };
        self.repl.history.id = id.unwrap_or(ReplId::NONE);
        self.repl.history.offset = offset;
        self.repl.history.clear_second();
        if self.repl.backlog.is_none() {
            self.repl.create_backlog(self.cfg.repl_backlog_size as usize);
        }
        self.repl.master.transfer = None;
        self.repl.master.keepalive = None;
        self.go_online(id, offset, stream_db, rest);
        log::info!("MASTER <-> REPLICA sync: Finished with success");
        if matches!(framing, Some(Framing::Mark(_))) {
            // The master waits for this before it sends its stream.
            self.acknowledge_to_master();
        }
        self.restart_aof_after_sync();
    }

    // ---- following the stream

    /// So many bytes of the stream were read.
    pub(crate) fn note_master_read(&mut self, bytes: usize) {
        let now_s = self.now_s();
        if let Some(online) = &mut self.repl.master.online {
            online.read += bytes as i64;
            online.last_io_s = now_s;
        }
    }

    /// The client's request that consisted of `bytes` was processed. For the master's this moves the offset and feeds our
    /// own replicas, unless the command has yet to take effect.
    pub(crate) fn input_consumed(&mut self, id: ClientId, bytes: &[u8]) {
        let Some(c) = self.clients.get(id) else { return };
        if !c.is(ClientFlags::MASTER) {
            return;
        }
        let pending = c.is(ClientFlags::MULTI.union(ClientFlags::BLOCKED));
        let Some(online) = &mut self.repl.master.online else { return };
        if online.client != id {
            return;
        }
        if pending {
            online.unapplied.extend_from_slice(bytes);
            return;
        }
        let mut applied = std::mem::take(&mut online.unapplied);
        if applied.is_empty() {
            online.applied += bytes.len() as i64;
            self.repl.append(bytes);
        } else {
            applied.extend_from_slice(bytes);
            online.applied += applied.len() as i64;
            self.repl.append(&applied);
        }
        self.limit_replica_output();
    }

    /// Tells the master how far its stream was processed.
    pub(crate) fn acknowledge_to_master(&mut self) {
        let Some(online) = &self.repl.master.online else { return };
        let client = online.client;
        let applied = online.applied.to_string();
        let fsynced = self.persist.aof.fsynced_reploff.map(|offset| offset.to_string());
        let mut arguments: Vec<&[u8]> = vec![b"REPLCONF", b"ACK", applied.as_bytes()];
        if let Some(fsynced) = &fsynced {
            arguments.extend([&b"FACK"[..], fsynced.as_bytes()]);
        }
        self.clients.push(client, &command(&arguments));
    }

    /// The master's client is going away. Keeps its position to continue from, unless its stream turned out broken.
    pub(super) fn master_client_lost(&mut self, id: ClientId) {
        if self.repl.master.online.as_ref().is_none_or(|online| online.client != id) {
            return;
        }
        let Some(online) = self.repl.master.online.take() else { return };
        log::info!("Connection with master lost.");
        let (broken, db) = match self.clients.get(id) {
            Some(c) => (c.is(ClientFlags::PROTOCOL_ERROR.union(ClientFlags::BLOCKED)), c.db),
            None => (true, 0),
        };
        if !broken && let Some(history) = online.id {
            log::info!("Caching the disconnected master state.");
            self.repl.master.cached = Some(CachedMaster { id: history, offset: online.applied, db });
        }
        self.repl.master.state = LinkState::Connect;
        self.repl.master.down_since_s = self.now_s();
        self.repl.master.heard_s = online.last_io_s;
        if let Some((host, port)) = &self.repl.master.address {
            log::info!("Reconnecting to MASTER {host}:{port}");
            self.connect_to_master();
        }
    }

    /// Ends following the stream at once.
    fn drop_online_master(&mut self) {
        let Some(client) = self.repl.master.online.as_ref().map(|online| online.client) else { return };
        self.master_client_lost(client);
        self.clients.close_later(client);
    }

    // ---- every second

    /// The periodic work towards the master; about once a second.
    pub(super) fn cron_towards_master(&mut self) {
        if !self.repl.is_replica() {
            return;
        }
        let now_s = self.now_s();
        let now_ms = self.clock.ms() as u64;
        let timeout_s = self.cfg.repl_timeout;
        let silent_s = now_s - self.repl.master.last_io_s;
        let timed_out = match self.repl.master.state {
            LinkState::Connecting if silent_s > timeout_s => {
                Some(LogLine::warning("Timeout connecting to the MASTER..."))
            }
            LinkState::Handshake => {
                self.repl.master.handshake.as_ref().and_then(|h| h.timed_out(now_ms, timeout_s as u64 * 1000))
            }
            LinkState::Transfer if silent_s > timeout_s => Some(LogLine::warning(
                "Timeout receiving bulk data from MASTER... If the problem persists try to set the 'repl-timeout' \
                 parameter in redis.conf to a larger value.",
            )),
            _ => None,
        };
        if let Some(line) = timed_out {
            line.emit();
            self.cancel_sync(true);
        }
        if let Some(link::OnlineMaster { last_io_s, .. }) = &self.repl.master.online
            && now_s - last_io_s > timeout_s
        {
            log::warn!("MASTER timeout: no data nor PING received...");
            self.drop_online_master();
        }
        self.connect_again();
        if self.repl.master.online.as_ref().is_some_and(|online| online.id.is_some()) {
            self.acknowledge_to_master();
        }
    }

    /// Shows the master that this server is alive while it is busy with a dataset; at most once a second.
    pub(crate) fn keep_master_link_alive(&mut self) {
        let now_s = self.now_s();
        let link = &mut self.repl.master;
        if link.keepalive_sent_s == now_s {
            return;
        }
        // One byte either goes or does not; nothing depends on it.
        if let Some(fd) = &link.keepalive {
            link.keepalive_sent_s = now_s;
            let _ = nix::unistd::write(fd, b"\n");
        } else if let Some(conn) = link.conn.as_mut().filter(|conn| conn.is_tls()) {
            link.keepalive_sent_s = now_s;
            let _ = conn.write(b"\n");
        }
    }
}

fn write_received(transfer: &mut Transfer, data: &[u8]) -> io::Result<()> {
    let Some(target) = &mut transfer.file else { return Ok(()) };
    target.file.write_all(data)?;
    transfer.read += data.len() as u64;
    Ok(())
}

/// A connection being made to an address, from another one if it is given.
pub(crate) fn open_connection(target: SocketAddr, source: Option<SocketAddr>) -> io::Result<Conn> {
    let Some(source) = source else {
        return mio::net::TcpStream::connect(target).map(Conn::Tcp);
    };
    use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage, sockopt};
    use std::os::fd::{AsRawFd, OwnedFd};
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let fd: OwnedFd = socket::socket(family, SockType::Stream, flags, None)?;
    socket::setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    socket::bind(fd.as_raw_fd(), &SockaddrStorage::from(source))?;
    match socket::connect(fd.as_raw_fd(), &SockaddrStorage::from(target)) {
        Ok(()) | Err(nix::errno::Errno::EINPROGRESS) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(Conn::Tcp(mio::net::TcpStream::from_std(std::net::TcpStream::from(fd))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sys::resolve::Resolver;
    use std::net::TcpListener;
    use std::sync::Mutex;
    use std::sync::mpsc::channel;

    #[test]
    fn a_name_that_takes_long_to_look_up_holds_up_nothing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (release, held) = channel();
        let (woken, wakes) = channel();
        let held = Mutex::new(held);
        let look_up = move |name: &str| {
            assert_eq!(name, "master.invalid");
            held.lock().unwrap().recv().unwrap()
        };
        let mut server = Server::new(Config::default(), String::new()).unwrap();
        server.resolver = Resolver::with(look_up, move || woken.send(()).unwrap());
        server.set_master("master.invalid", port);
        for _ in 0..3 {
            server.repl_timers();
            server.connect_again();
            assert!(server.repl.master.looking_up && server.repl.master.state == LinkState::Connect);
        }
        // It is not there: that is an attempt that failed, and the next one is planned.
        release.send(Err(io::Error::other("no such name"))).unwrap();
        wakes.recv().unwrap();
        server.repl_timers();
        assert!(!server.repl.master.looking_up && server.repl.master.retry_at_ms.is_some());
        server.connect_again();
        release.send(Ok(vec![listener.local_addr().unwrap().ip()])).unwrap();
        wakes.recv().unwrap();
        server.repl_timers();
        assert!(matches!(server.repl.master.state, LinkState::Connecting | LinkState::Handshake));
        // An address does not wait for what is looked up.
        server.set_master("master.invalid", port);
        server.set_master("127.0.0.1", port);
        assert!(matches!(server.repl.master.state, LinkState::Connecting | LinkState::Handshake));
        // Other tests watch how much memory this process uses.
        std::mem::forget(server);
    }
}
