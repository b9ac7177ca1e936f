//! Towards the master: choosing one, connecting, introducing this server, receiving the dataset, and following the stream.
//!
//! Once the stream is followed, the master is a client whose commands run like any other's, and the bytes of those that
//! took effect are handed on to this server's own replicas unchanged.

use super::bulk::{BulkEvent, BulkReader, Framing};
use super::handshake::{self, Handshake, HandshakeConfig, Outcome};
use super::history::ReplId;
use super::link::{CachedMaster, LinkState, OnlineMaster, Transfer};
use super::{Action, Env, LinkId, LogLine, Repl};
use crate::config::ReplDisklessLoad;
use crate::net::ClientId;
use crate::resp::encode::command;
use crate::sys::log::Role;

/// The first pause before another attempt to reach the master, in milliseconds; each further one is twice as long.
const RETRY_PAUSE_MIN_MS: i64 = 20;
/// The longest pause; whatever comes later is left to the periodic work.
const RETRY_PAUSE_MAX_MS: i64 = 640;

impl Repl {
    // ---- choosing a master

    /// Takes the role of a replica of that server before anything is loaded: the first attempt to reach it is made as
    /// soon as the dataset is there.
    pub(crate) fn start_as_replica_of(&mut self, host: String, port: u16, now_ms: i64) {
        self.master.address = Some((host, port));
        self.master.state = LinkState::Connect;
        self.master.retry_at_ms = Some(now_ms);
    }

    /// Makes this server a replica of the one at `host` and `port`.
    pub(crate) fn follow(&mut self, host: &str, port: u16, env: &Env) {
        let was_primary = !self.is_replica();
        self.name_master(None);
        self.drop_online_master(env);
        self.act(Action::DisconnectBlocked);
        self.name_master(Some((host.to_owned(), port)));
        self.give_up_sync();
        if was_primary {
            self.discard_cached_master();
            self.cache_own_history();
        }
        self.act(Action::ShowRole);
        self.master.state = LinkState::Connect;
        self.master.retry_pause_ms = 0;
        self.master.looking_up = false;
        self.connect_again();
    }

    /// Makes this server a primary. Its replicas may continue with it under the id they know.
    pub(crate) fn stop_following(&mut self, env: &Env) {
        if !self.is_replica() {
            return;
        }
        self.name_master(None);
        self.drop_online_master(env);
        self.discard_cached_master();
        self.give_up_sync();
        let line = self.history.shift();
        self.log(line);
        self.disconnect_replicas(env);
        self.master.state = LinkState::Idle;
        // Nobody knows which database the new stream begins in.
        self.stream_db = None;
        self.no_replicas_since_s = env.now_s();
        self.master.down_since_s = 0;
        self.act(Action::ShowRole);
        self.act(Action::RestartAofAfterRoleChange);
    }

    /// From here on the lines of the log are those of the role this makes.
    fn name_master(&mut self, address: Option<(String, u16)>) {
        self.master.address = address;
        self.act(Action::LogAs(self.log_role()));
    }

    /// The role that log lines show.
    pub(crate) fn log_role(&self) -> Role {
        if self.is_replica() { Role::Replica } else { Role::Primary }
    }

    /// A former primary may be able to continue with its successor: it knows where its own stream ends.
    fn cache_own_history(&mut self) {
        self.notice(
            "Before turning into a replica, using my own master parameters to synthesize a cached master: I may be able \
             to synchronize with the new master with just a partial transfer.",
        );
        self.master.cached = Some(CachedMaster { id: self.history.id, offset: self.history.offset, db: 0 });
    }

    /// Uses the history a dataset was saved with: the stream it stands at can be continued by a replica, and as a second
    /// history by a primary's replicas.
    pub(crate) fn restore_history(&mut self, id: ReplId, offset: i64, stream_db: usize, env: &Env) {
        if self.is_replica() {
            self.history.id = id;
            self.history.offset = offset;
            self.cache_own_history();
            if let Some(cached) = &mut self.master.cached {
                cached.db = stream_db;
            }
            return;
        }
        let history = &mut self.history;
        history.second_id = id;
        history.second_offset = offset + 1;
        history.offset += offset;
        if let Some(backlog) = &mut self.backlog {
            backlog.rebase(offset);
        }
        self.no_replicas_since_s = env.now_s();
    }

    fn discard_cached_master(&mut self) {
        if self.master.cached.take().is_some() {
            self.notice("Discarding previously cached master state.");
        }
    }

    // ---- connecting

    /// Whether a link is the one there is: what concerns another one has come too late.
    pub(crate) fn is_current(&self, link: LinkId) -> bool {
        self.master.link == link
    }

    fn connect(&mut self) {
        let Some((host, port)) = self.master.address.clone() else { return };
        let link = self.master.renumber();
        self.master.state = LinkState::Connecting;
        self.act(Action::Connect { link, host, port });
    }

    /// The master's name is being looked up; the attempt is repeated by [`on_time`](Self::on_time).
    pub(crate) fn on_look_up(&mut self) {
        self.master.looking_up = true;
        self.master.state = LinkState::Connect;
    }

    /// The connection is being made.
    pub(crate) fn on_connecting(&mut self, env: &Env) {
        self.master.looking_up = false;
        self.master.last_io_s = env.now_s();
        self.notice("MASTER <-> REPLICA sync started");
    }

    /// There is no way to connect.
    pub(crate) fn on_connect_failed(&mut self, why: &str, env: &Env) {
        self.master.looking_up = false;
        self.master.state = LinkState::Connect;
        self.warn(format!("Unable to connect to MASTER: {why}"));
        self.plan_retry(env);
    }

    /// The connection that was being made has failed.
    pub(crate) fn on_connection_error(&mut self, why: &str, env: &Env) {
        self.warn(format!("Error condition on socket for SYNC: {why}"));
        self.fail_link(env);
    }

    /// The connection is up.
    pub(crate) fn on_connected(&mut self, env: &Env) {
        let (handshake, actions) = Handshake::start(self.handshake_config(env), env.now_ms as u64);
        self.master.state = LinkState::Handshake(handshake);
        self.on_handshake(actions, &[], env);
    }

    /// Plans the next attempt after a failed one: soon at first, as most failures are short (a master that restarts, or
    /// that has just lost its own), then after longer and longer pauses, and in the end with the periodic work alone.
    fn plan_retry(&mut self, env: &Env) {
        let link = &mut self.master;
        let pause_ms = link.retry_pause_ms.max(RETRY_PAUSE_MIN_MS);
        link.retry_at_ms = (pause_ms <= RETRY_PAUSE_MAX_MS).then_some(env.now_ms + pause_ms);
        link.retry_pause_ms = (pause_ms * 2).min(RETRY_PAUSE_MAX_MS * 2);
    }

    /// When the next attempt to reach the master is due, if that is before the periodic work.
    pub(crate) fn next_deadline_ms(&self) -> Option<i64> {
        self.master.retry_at_ms
    }

    /// Whether [`on_time`](Self::on_time) has anything to do.
    pub(crate) fn is_due(&self, now_ms: i64) -> bool {
        self.master.looking_up || self.master.retry_at_ms.is_some_and(|due_ms| now_ms >= due_ms)
    }

    /// Makes the attempt that is due.
    pub(crate) fn on_time(&mut self, env: &Env) {
        if env.is_loading {
            return;
        }
        if self.master.looking_up {
            self.go_on_connecting();
        }
        if self.master.retry_at_ms.is_some_and(|due_ms| env.now_ms >= due_ms) {
            self.connect_again();
        }
    }

    /// Connects if the master's name has been looked up meanwhile.
    fn go_on_connecting(&mut self) {
        match self.master.state {
            LinkState::Connect => self.connect(),
            _ => self.master.looking_up = false,
        }
    }

    /// Connects, unless a connection is there or under way.
    fn connect_again(&mut self) {
        self.master.retry_at_ms = None;
        if self.master.looking_up {
            return self.go_on_connecting();
        }
        if matches!(self.master.state, LinkState::Connect)
            && let Some((host, port)) = &self.master.address
        {
            self.notice(format!("Connecting to MASTER {host}:{port}"));
            self.connect();
        }
    }

    /// Gives up what is going on with the master short of following its stream. Returns whether there was anything.
    fn give_up_sync(&mut self) -> bool {
        match self.master.state {
            LinkState::Connecting | LinkState::Handshake(_) | LinkState::Transfer(_) => self.close_link(),
            LinkState::Idle | LinkState::Connect | LinkState::Connected(_) => return false,
        }
        true
    }

    /// Gives up what is going on with the master short of following its stream, and starts anew at once.
    pub(crate) fn restart_sync(&mut self) {
        if self.give_up_sync()
            && let Some((host, port)) = &self.master.address
        {
            self.notice(format!("Reconnecting to MASTER {host}:{port} after failure"));
            self.connect();
        }
    }

    /// Closes the connection after a failure, to be tried again.
    fn fail_link(&mut self, env: &Env) {
        self.close_link();
        self.plan_retry(env);
    }

    /// Closes the connection; the periodic work connects again.
    fn close_link(&mut self) {
        self.act(Action::CloseLink { link: self.master.link });
        self.master.renumber();
        self.master.state = LinkState::Connect;
    }

    fn handshake_config(&self, env: &Env) -> HandshakeConfig {
        let cfg = env.cfg;
        let given = |bytes: &Vec<u8>| (!bytes.is_empty()).then(|| bytes.clone());
        HandshakeConfig {
            user: given(&cfg.masteruser),
            password: given(&cfg.masterauth),
            listening_port: match cfg.replica_announce_port {
                0 if cfg.tls_replication && cfg.tls_port != 0 => cfg.tls_port,
                0 => cfg.port,
                port => port,
            },
            announce_ip: (!cfg.replica_announce_ip.is_empty()).then(|| cfg.replica_announce_ip.clone()),
            resume: self.master.cached.map(|cached| (cached.id, cached.offset + 1)),
            failover: self.failover.is_in_progress(),
            node_id: env.node_id.map(<[u8]>::to_vec),
        }
    }

    // ---- what comes over the link

    /// Bytes came over the connection before it was a client's.
    pub(crate) fn on_master_bytes(&mut self, bytes: &[u8], env: &Env) {
        match &mut self.master.state {
            LinkState::Handshake(handshake) => {
                let (used, actions) = handshake.receive(bytes, env.now_ms as u64);
                self.on_handshake(actions, &bytes[used..], env);
            }
            LinkState::Transfer(_) => self.take_dataset(bytes, env),
            LinkState::Idle | LinkState::Connect | LinkState::Connecting | LinkState::Connected(_) => {}
        }
    }

    /// The connection has ended, or failed for a reason.
    pub(crate) fn on_master_closed(&mut self, why: Option<&str>, env: &Env) {
        match &mut self.master.state {
            LinkState::Handshake(handshake) => {
                let actions = handshake.disconnected(why.unwrap_or("Connection lost"));
                self.on_handshake(actions, &[], env);
            }
            LinkState::Transfer(transfer) => {
                let doing = if transfer.framing.is_none() { "reading bulk count from" } else { "trying to sync with" };
                self.warn(format!("I/O error {doing} MASTER: {}", why.unwrap_or("connection lost")));
                self.restart_sync();
            }
            LinkState::Idle | LinkState::Connect | LinkState::Connecting | LinkState::Connected(_) => {}
        }
    }

    /// The connection did not take what was to be sent.
    pub(crate) fn on_write_failed(&mut self, why: &str, env: &Env) {
        self.warn(format!("Sending command to master in replication handshake: -Writing to master: {why}"));
        if self.failover.is_in_progress() {
            self.abort_failover("Write error to failover target", env);
        } else {
            self.fail_link(env);
        }
    }

    /// `rest` is what followed the last reply. What is to be sent leaves first: the master can work on it meanwhile.
    fn on_handshake(&mut self, steps: Vec<handshake::Action>, rest: &[u8], env: &Env) {
        let link = self.master.link;
        let mut outcome = None;
        let mut lines = Vec::new();
        for step in steps {
            match step {
                handshake::Action::Log(line) => lines.push(line),
                handshake::Action::Send(bytes) => self.act(Action::SendToMaster { link, bytes }),
                handshake::Action::Done(done) => outcome = Some(done),
            }
        }
        lines.into_iter().for_each(|line| self.log(line));
        if let Some(outcome) = outcome {
            self.finish_handshake(outcome, rest, env);
        }
    }

    fn finish_handshake(&mut self, outcome: Outcome, rest: &[u8], env: &Env) {
        self.master.last_io_s = env.now_s();
        if self.failover.is_in_progress() {
            match &outcome {
                Outcome::Continue { .. } | Outcome::FullResync { .. } => self.complete_failover(),
                Outcome::Sync | Outcome::Failed { psync_refused: true } => {
                    return self.abort_failover("Failover target rejected psync request", env);
                }
                Outcome::Failed { psync_refused: false } => {}
            }
        }
        match outcome {
            Outcome::Continue { id } => self.continue_with_master(id, rest, env),
            Outcome::FullResync { from } => self.begin_transfer(from, rest, env),
            Outcome::Sync => self.begin_transfer(None, rest, env),
            Outcome::Failed { .. } => self.fail_link(env),
        }
    }

    fn continue_with_master(&mut self, id: Option<ReplId>, rest: &[u8], env: &Env) {
        let Some(mut cached) = self.master.cached.take() else {
            // It was asked for everything and has no position to continue from.
            self.warn("Master accepted a partial resynchronization that was not asked for");
            return self.fail_link(env);
        };
        if let Some(id) = id.filter(|id| *id != cached.id) {
            self.notice(format!("Master replication ID changed to {id}"));
            // What is common stays good for our own replicas; they have to hear of the new id.
            self.history.id = cached.id;
            self.history.shift_to(id);
            cached.id = id;
            self.disconnect_replicas(env);
        }
        self.need_backlog(env);
        self.go_online(Some(cached.id), cached.offset, cached.db, rest, env);
        self.notice("MASTER <-> REPLICA sync: Master accepted a Partial Resynchronization.");
    }

    /// Turns the link's connection into the client that runs the master's commands.
    fn go_online(&mut self, id: Option<ReplId>, offset: i64, db: usize, rest: &[u8], env: &Env) {
        self.master.state = LinkState::Connected(OnlineMaster {
            client: None,
            id,
            applied: offset,
            read: offset + rest.len() as i64,
            unapplied: Vec::new(),
            last_io_s: env.now_s(),
        });
        self.master.retry_pause_ms = 0;
        self.master.down_since_s = 0;
        self.act(Action::AdoptLink { link: self.master.link, db, rest: rest.to_vec() });
    }

    /// The connection is a client now.
    pub(crate) fn on_adopted(&mut self, client: ClientId) {
        if let Some(online) = self.master.online_mut() {
            online.client = Some(client);
        }
    }

    // ---- the dataset

    fn begin_transfer(&mut self, from: Option<(ReplId, i64)>, rest: &[u8], env: &Env) {
        let to_file = match env.cfg.repl_diskless_load {
            ReplDisklessLoad::Disabled => true,
            ReplDisklessLoad::OnEmptyDb => !(env.has_no_keys)(),
            ReplDisklessLoad::Swapdb => false,
        };
        let transfer = Transfer { reader: BulkReader::new(), framing: None, from, read: 0, to_file };
        self.master.state = LinkState::Transfer(transfer);
        if to_file {
            self.act(Action::OpenReceivedFile { link: self.master.link });
        }
        self.take_dataset(rest, env);
    }

    /// The file for the dataset cannot be made.
    pub(crate) fn on_open_failed(&mut self, why: &str, env: &Env) {
        self.warn(format!("Opening the temp file needed for MASTER <-> REPLICA synchronization: {why}"));
        self.fail_link(env);
    }

    /// Part of the dataset cannot be written to its file.
    pub(crate) fn on_store_failed(&mut self, why: &str) {
        self.warn(format!(
            "Write error or short write writing to the DB dump file needed for MASTER <-> REPLICA synchronization: {why}"
        ));
        self.restart_sync();
    }

    fn take_dataset(&mut self, bytes: &[u8], env: &Env) {
        let link = self.master.link;
        let mut input = bytes;
        loop {
            let LinkState::Transfer(transfer) = &mut self.master.state else { return };
            self.master.last_io_s = env.now_s();
            let stored = match transfer.reader.next(&mut input) {
                Ok(Some(BulkEvent::Data(data))) => data.to_vec(),
                Ok(Some(BulkEvent::Held(data))) => data,
                Ok(Some(BulkEvent::Keepalive)) => continue,
                Ok(Some(BulkEvent::Header(framing))) => {
                    transfer.framing = Some(framing);
                    let is_whole = !transfer.to_file;
                    self.note_framing(framing, if is_whole { "to parser" } else { "to disk" });
                    if is_whole {
                        return self.act(Action::LoadFromLink { link, framing, rest: input.to_vec() });
                    }
                    continue;
                }
                Ok(Some(BulkEvent::End)) => {
                    return self.act(Action::LoadReceivedFile { link, rest: input.to_vec() });
                }
                Ok(None) => return,
                Err(e) => {
                    self.warn(e.to_string());
                    return self.restart_sync();
                }
            };
            transfer.read += stored.len() as u64;
            self.act(Action::StoreReceived { link, bytes: stored });
        }
    }

    fn note_framing(&mut self, framing: Framing, to: &str) {
        self.notice(match framing {
            Framing::Mark(_) => {
                format!("MASTER <-> REPLICA sync: receiving streamed RDB from master with EOF {to}")
            }
            Framing::Length(length) => {
                format!("MASTER <-> REPLICA sync: receiving {length} bytes from master {to}")
            }
        });
    }

    /// The dataset that is being received belongs to the history of the one at hand, so that is an earlier state of it.
    pub(crate) fn receives_own_history(&self) -> bool {
        self.master.transfer().and_then(|transfer| transfer.from).is_some_and(|(id, _)| id == self.history.id)
    }

    /// So many bytes of the dataset were loaded off the link.
    pub(crate) fn note_loaded(&mut self, bytes: Option<u64>, now_s: i64) {
        if let (Some(bytes), LinkState::Transfer(transfer)) = (bytes, &mut self.master.state) {
            transfer.read = transfer.read.max(bytes);
        }
        self.master.last_io_s = now_s;
    }

    /// The dataset at hand is another one: nobody can continue what was here.
    pub(crate) fn adopt_new_dataset(&mut self, env: &Env) {
        self.discard_cached_master();
        self.disconnect_replicas(env);
        self.drop_backlog();
    }

    /// The dataset is in memory: follows the stream after it, which begins with `rest`.
    pub(crate) fn finish_full_sync(&mut self, stream_db: usize, rest: &[u8], env: &Env) {
        // Another master may have been chosen meanwhile.
        let Some(&Transfer { from, framing, .. }) = self.master.transfer() else { return };
        let (id, offset) = match from {
            Some((id, offset)) => (Some(id), offset),
            None => (None, -1),
        };
        self.history.id = id.unwrap_or(ReplId::NONE);
        self.history.offset = offset;
        self.history.clear_second();
        self.need_backlog(env);
        self.go_online(id, offset, stream_db, rest, env);
        self.notice("MASTER <-> REPLICA sync: Finished with success");
        if matches!(framing, Some(Framing::Mark(_))) {
            // The master waits for this before it sends its stream.
            self.acknowledge_to_master(env);
        }
        self.act(Action::RestartAofAfterSync);
    }

    // ---- following the stream

    /// The client that runs the master's commands.
    pub(crate) fn master_client(&self) -> Option<ClientId> {
        self.master.online().and_then(|online| online.client)
    }

    /// So many bytes of the stream were read.
    pub(crate) fn note_master_read(&mut self, bytes: usize, now_s: i64) {
        if let Some(online) = self.master.online_mut() {
            online.read += bytes as i64;
            online.last_io_s = now_s;
        }
    }

    /// A request that consisted of `bytes` was processed for this client. For the master's this moves the offset and
    /// feeds our own replicas, unless the command has yet to take effect (`is_pending`).
    pub(crate) fn on_consumed(&mut self, client: ClientId, bytes: &[u8], is_pending: bool) {
        let Some(online) = self.master.online_mut().filter(|online| online.client == Some(client)) else { return };
        if is_pending {
            online.unapplied.extend_from_slice(bytes);
            return;
        }
        let mut applied = std::mem::take(&mut online.unapplied);
        online.applied += (applied.len() + bytes.len()) as i64;
        if applied.is_empty() {
            self.append(bytes);
        } else {
            applied.extend_from_slice(bytes);
            self.append(&applied);
        }
    }

    /// Tells the master how far its stream was processed.
    pub(crate) fn acknowledge_to_master(&mut self, env: &Env) {
        let Some(online) = self.master.online() else { return };
        let applied = online.applied.to_string();
        let fsynced = env.fsynced_offset.map(|offset| offset.to_string());
        let mut arguments: Vec<&[u8]> = vec![b"REPLCONF", b"ACK", applied.as_bytes()];
        if let Some(fsynced) = &fsynced {
            arguments.extend([&b"FACK"[..], fsynced.as_bytes()]);
        }
        let vouched = (env.vouch)().unwrap_or_default();
        arguments.extend(vouched.iter().map(Vec::as_slice));
        let (link, bytes) = (self.master.link, command(&arguments));
        self.act(Action::SendToMaster { link, bytes });
    }

    /// The master's client is going away. Keeps its position to continue from, unless its stream turned out broken.
    pub(super) fn lose_online_master(&mut self, env: &Env) {
        let LinkState::Connected(online) = std::mem::replace(&mut self.master.state, LinkState::Connect) else {
            unreachable!("its client was found");
        };
        self.notice("Connection with master lost.");
        if let (Some(id), Some(session)) = (online.id, env.master.filter(|session| !session.is_broken)) {
            self.notice("Caching the disconnected master state.");
            self.master.cached = Some(CachedMaster { id, offset: online.applied, db: session.db });
        }
        self.master.down_since_s = env.now_s();
        self.master.heard_s = online.last_io_s;
        if let Some((host, port)) = &self.master.address {
            self.notice(format!("Reconnecting to MASTER {host}:{port}"));
            self.connect();
        }
    }

    /// Ends following the stream at once.
    fn drop_online_master(&mut self, env: &Env) {
        match self.master.online().map(|online| online.client) {
            Some(Some(client)) => {
                self.lose_online_master(env);
                self.act(Action::CloseLater { client });
            }
            // It was about to become a client.
            Some(None) => self.close_link(),
            None => {}
        }
    }

    // ---- every second

    /// The periodic work towards the master; about once a second.
    pub(super) fn cron_towards_master(&mut self, env: &Env) {
        if !self.is_replica() {
            return;
        }
        let (now_s, timeout_s) = (env.now_s(), env.cfg.repl_timeout);
        let is_silent = now_s - self.master.last_io_s > timeout_s;
        let timed_out = match &self.master.state {
            LinkState::Connecting if is_silent => Some(LogLine::warning("Timeout connecting to the MASTER...")),
            LinkState::Handshake(handshake) => handshake.timed_out(env.now_ms as u64, timeout_s as u64 * 1000),
            LinkState::Transfer(_) if is_silent => Some(LogLine::warning(
                "Timeout receiving bulk data from MASTER... If the problem persists try to set the 'repl-timeout' \
                 parameter in redis.conf to a larger value.",
            )),
            _ => None,
        };
        if let Some(line) = timed_out {
            self.log(line);
            self.restart_sync();
        }
        if self.master.online().is_some_and(|online| now_s - online.last_io_s > timeout_s) {
            self.warn("MASTER timeout: no data nor PING received...");
            self.drop_online_master(env);
        }
        self.connect_again();
        if self.master.online().is_some_and(|online| online.id.is_some()) {
            self.acknowledge_to_master(env);
        }
    }
}
