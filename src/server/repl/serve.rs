//! Towards replicas: attaching them, feeding them the stream, and what goes with it every second and every turn.
//!
//! A replica is a client with the REPLICA flag and a record in [`Repl::replicas`]. Its output is its reply buffer (only
//! what this room puts there), then the snapshot file, then the shared stream from its cursor on, strictly in this order.
//! How a snapshot is made and how it reaches replicas is in `snapshot`.

use crate::catalog::{CmdError, error};
use crate::net::ClientId;
use crate::net::listener::reason;
use crate::repl::LogLine;
use crate::repl::failover::{Candidate, FailoverState, FailoverStep, Target};
use crate::repl::handshake::command;
use crate::repl::history::PsyncDecision;
use crate::repl::primary::{self, FullSyncStep, Replica, ReplicaState};
use crate::repl::state::{Attached, InfoContext};
use crate::resp::Reply;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::blocked::{BlockKind, WaitEnd};
use crate::server::dispatch::pause::PausePurpose;
use std::io;

/// Bytes of the stream written to one replica in one turn.
const STREAM_BYTES_PER_TURN: usize = 4 << 20;
/// Pieces of one vectored write.
const STREAM_SLICES: usize = 64;

impl Server {
    // ---- attaching and detaching

    /// How logs call the replica a client is or is about to be.
    pub(crate) fn replica_name(&self, id: ClientId) -> String {
        if let Some(attached) = self.repl.replica_of(id) {
            return attached.name();
        }
        let Some(c) = self.clients.get(id) else { return String::new() };
        let peer_ip = c.peer.map(|peer| peer.ip().to_string());
        let announced = self.repl.announced.iter().find(|(client, _)| *client == id).map(|(_, announced)| announced);
        match announced {
            Some(announced) => announced.name(peer_ip.as_deref(), c.number),
            None => primary::Announcement::default().name(peer_ip.as_deref(), c.number),
        }
    }

    fn attach_replica(&mut self, id: ClientId, replica: Replica) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.flags.add(ClientFlags::REPLICA);
        let peer_ip = c.peer.map(|peer| peer.ip().to_string());
        let number = c.number;
        self.clients.connected = self.clients.connected.saturating_sub(1);
        self.repl.replicas.push(Attached { client: id, number, peer_ip, replica, file: None, stalled: false });
    }

    /// A client goes away: if it was a replica, its record and its place in the stream go with it.
    pub(super) fn detach_replica(&mut self, id: ClientId) {
        self.repl.announced.retain(|(client, _)| *client != id);
        let Some(at) = self.repl.replicas.iter().position(|attached| attached.client == id) else { return };
        let gone = self.repl.replicas.remove(at);
        log::info!("Connection with replica {} lost.", gone.name());
        if let (Some(backlog), Some(cursor)) = (&mut self.repl.backlog, gone.replica.cursor) {
            backlog.remove_cursor(cursor);
        }
        if let Some(file) = gone.file {
            self.background.files.submit(move || drop(file));
        }
        self.replica_left_snapshot(id, gone.replica.state);
        if self.repl.replicas.is_empty() {
            self.repl.no_replicas_since_s = self.now_s();
        }
        self.refresh_good_replicas();
    }

    /// Closes the connections of all replicas: they come back and see what changed.
    pub(crate) fn disconnect_replicas(&mut self) {
        let ids: Vec<ClientId> = self.repl.replicas.iter().map(|attached| attached.client).collect();
        for id in ids {
            // The record goes at once, so that nothing of a new history reaches this connection.
            self.detach_replica(id);
            self.clients.close_later(id);
        }
    }

    // ---- SYNC and PSYNC

    /// PSYNC (`asked` holds the id and the offset wanted) or SYNC. The reply to a replica that continues, or the lack of
    /// one to a replica that has to wait for a snapshot, is all that is written to `out`.
    pub(crate) fn synchronize(&mut self, id: ClientId, asked: Option<(&[u8], i64)>, out: &mut Reply) {
        let name = self.replica_name(id);
        if let Some((asked_id, asked_offset)) = asked {
            let decision = self.repl.history.decide_psync(self.repl.backlog.as_ref(), asked_id, asked_offset, &name);
            match decision {
                PsyncDecision::Partial { offset, backlog_bytes } => {
                    self.continue_replica(id, offset, out);
                    self.repl.stats.sync_partial_ok += 1;
                    log::info!(
                        "Partial resynchronization request from {name} accepted. Sending {backlog_bytes} bytes of \
                         backlog starting from offset {offset}."
                    );
                    self.refresh_good_replicas();
                    return;
                }
                PsyncDecision::Full { refused, lines } => {
                    lines.iter().for_each(LogLine::emit);
                    self.repl.stats.sync_partial_err += u64::from(refused);
                }
            }
        }
        self.repl.stats.sync_full += 1;
        let announced = self.repl.take_announcement(id);
        if self.cfg.repl_disable_tcp_nodelay
            && let Some(conn) = self.clients.get(id).and_then(|c| c.conn.as_ref())
        {
            conn.set_nodelay(false);
        }
        let replica = Replica::waiting(announced, asked.is_none(), self.now_s());
        self.attach_replica(id, replica);
        if self.repl.backlog.is_none() {
            // A backlog from scratch has no past that anyone could continue.
            self.repl.history.start_new();
            self.repl.create_backlog(self.cfg.repl_backlog_size as usize);
            log::info!(
                "Replication backlog created, my new replication IDs are '{}' and '{}'",
                self.repl.history.id,
                self.repl.history.second_id
            );
        }
        self.plan_full_sync(id);
    }

    fn continue_replica(&mut self, id: ClientId, offset: i64, out: &mut Reply) {
        let announced = self.repl.take_announcement(id);
        let psync2 = announced.capabilities.psync2;
        let backlog = self.repl.backlog.as_mut().expect("there is a backlog to continue from");
        let cursor = backlog.add_cursor(offset).expect("the backlog holds the offset");
        let replica = Replica::continuing(announced, cursor, self.now_s());
        self.attach_replica(id, replica);
        if psync2 {
            out.simple(&format!("CONTINUE {}", self.repl.history.id));
        } else {
            out.simple("CONTINUE");
        }
    }

    fn plan_full_sync(&mut self, id: ClientId) {
        let (newcomer, others): (Vec<_>, Vec<_>) =
            self.repl.replicas.iter().partition(|attached| attached.client == id);
        let Some(newcomer) = newcomer.first() else { return };
        let records: Vec<&Replica> = others.iter().map(|attached| &attached.replica).collect();
        let config = self.snapshot_config();
        let (step, line) = primary::on_full_sync_request(&newcomer.replica, &records, self.running_child(), config);
        let shared = match step {
            FullSyncStep::Share { with } => Some((records[with].cursor, records[with].snapshot_offset)),
            _ => None,
        };
        if let Some((cursor, offset)) = shared {
            self.share_snapshot(id, cursor, offset);
        }
        if let Some(line) = line {
            line.emit();
        }
        if let FullSyncStep::Start(plan) = step {
            self.start_snapshot_for_replicas(plan);
        }
    }

    /// Puts a replica that waited onto the stream from `offset` on: that is where its snapshot stands.
    pub(super) fn setup_full_resync(&mut self, id: ClientId, offset: i64) {
        // Every snapshot is followed by a stream that selects its database anew.
        self.repl.stream_db = None;
        let history_id = self.repl.history.id;
        let Some(at) = self.repl.replicas.iter().position(|attached| attached.client == id) else { return };
        let backlog = self.repl.backlog.as_mut();
        let replica = &mut self.repl.replicas[at].replica;
        replica.snapshot_offset = offset;
        replica.state = ReplicaState::WaitBgsaveEnd;
        if !replica.announced.rdb_only && replica.cursor.is_none() {
            replica.cursor = backlog.and_then(|backlog| backlog.add_cursor(offset + 1));
        }
        if !replica.pre_psync {
            self.clients.push(id, format!("+FULLRESYNC {history_id} {offset}\r\n").as_bytes());
        }
    }

    fn share_snapshot(&mut self, id: ClientId, cursor: Option<crate::repl::backlog::CursorId>, offset: i64) {
        if let (Some(backlog), Some(other)) = (&mut self.repl.backlog, cursor) {
            let copy = backlog.copy_cursor(other);
            match self.repl.replicas.iter_mut().find(|attached| attached.client == id) {
                Some(attached) if !attached.replica.announced.rdb_only => attached.replica.cursor = Some(copy),
                _ => backlog.remove_cursor(copy),
            }
        }
        self.setup_full_resync(id, offset);
    }

    /// The snapshot has reached the replica: it is online, or done if it wanted no more. Returns whether it stays.
    pub(super) fn put_replica_online(&mut self, id: ClientId) -> bool {
        let now_s = self.now_s();
        let Some(attached) = self.repl.replica_of_mut(id) else { return false };
        let name = attached.name();
        if attached.replica.announced.rdb_only {
            attached.replica.state = ReplicaState::RdbTransmitted;
            log::info!("RDB transfer completed, rdb only replica ({name}) should be disconnected asap");
            return false;
        }
        attached.replica.state = ReplicaState::Online;
        attached.replica.ack_time_s = now_s;
        self.refresh_good_replicas();
        log::info!("Synchronization with replica {name} succeeded");
        true
    }

    /// REPLCONF ACK from a replica.
    pub(crate) fn acknowledge(&mut self, id: ClientId, processed: i64, fsynced: Option<i64>) {
        let now_s = self.now_s();
        let waits = self.repl.replica_of(id).is_some_and(|a| a.replica.state == ReplicaState::WaitBgsaveEnd);
        if let Some(attached) = self.repl.replica_of_mut(id) {
            attached.replica.acknowledge(processed, fsynced, now_s);
        }
        if waits {
            // The replica may be faster than the news of the child's end.
            self.check_child_done();
        }
        if let Some(attached) = self.repl.replica_of_mut(id)
            && attached.replica.stream_waits_for_ack
            && attached.replica.state == ReplicaState::Online
        {
            attached.replica.stream_waits_for_ack = false;
            self.clients.want_write(id);
        }
    }

    // ---- output

    /// Gives one command to the stream.
    pub(crate) fn feed_replicas(&mut self, db: Option<usize>, command: &[u8]) {
        self.repl.feed(db, command);
        self.limit_replica_output();
    }

    /// Gives a command that concerns no database to the stream.
    pub(crate) fn feed_replicas_plain(&mut self, arguments: &[&[u8]]) {
        self.repl.feed(None, &command(arguments));
        self.limit_replica_output();
    }

    /// Closes replicas that let too much of the stream pile up.
    pub(super) fn limit_replica_output(&mut self) {
        if !self.repl.take_output_grew() {
            return;
        }
        let fed: Vec<ClientId> =
            self.repl.replicas.iter().filter(|a| a.replica.cursor.is_some()).map(|a| a.client).collect();
        for id in fed {
            self.check_output_limit(id);
        }
    }

    /// Marks every replica that has something to be sent and whose socket takes it.
    pub(crate) fn want_replica_writes(&mut self) {
        if self.repl.replicas.is_empty() {
            return;
        }
        let ready = self.repl.replicas.iter().filter(|a| !a.stalled && self.repl.has_output(a)).map(|a| a.client);
        let ready: Vec<ClientId> = ready.collect();
        for id in ready {
            self.clients.want_write(id);
        }
    }

    /// Sends a replica what it has waiting: replies, the snapshot file, the stream.
    pub(crate) fn write_replica(&mut self, id: ClientId) {
        if let Err(e) = self.try_write_replica(id) {
            log::debug!("Error writing to client: {}", reason(&e));
            self.clients.close_later(id);
        }
    }

    fn try_write_replica(&mut self, id: ClientId) -> io::Result<()> {
        if self.clients.current == Some(id) {
            return Ok(()); // Its replies are elsewhere while its command runs.
        }
        let Some(c) = self.clients.get_mut(id) else { return Ok(()) };
        if c.is(ClientFlags::CLOSE_ASAP) {
            return Ok(()); // It is to come back and see what became of its place in the stream.
        }
        let Some(conn) = c.link.conn.as_mut() else { return Ok(()) };
        if !c.link.out.is_empty() {
            let sent = c.link.out.write_to(usize::MAX, |slices| conn.write_vectored(slices))?;
            self.stats.net_repl_output_bytes += sent as u64;
            if !c.out.is_empty() {
                return Ok(());
            }
        }
        if c.is(ClientFlags::CLOSE_AFTER_REPLY) {
            self.clients.close_later(id);
            return Ok(());
        }
        self.write_snapshot_piece(id)?;
        if !self.send_snapshot_file(id)? {
            return Ok(());
        }
        self.send_stream(id)
    }

    fn send_stream(&mut self, id: ClientId) -> io::Result<()> {
        let Some(conn) = self.clients.get_mut(id).and_then(|c| c.conn.as_mut()) else { return Ok(()) };
        let repl = &mut self.repl;
        let Some(at) = repl.replicas.iter().position(|attached| attached.client == id) else { return Ok(()) };
        repl.replicas[at].stalled = false;
        let mut total = 0;
        while repl.has_output(&repl.replicas[at]) {
            if total >= STREAM_BYTES_PER_TURN {
                self.clients.want_write(id);
                break;
            }
            let (Some(backlog), Some(cursor)) = (&mut repl.backlog, repl.replicas[at].replica.cursor) else { break };
            let slices = backlog.slices_from(backlog.cursor_offset(cursor), STREAM_SLICES, STREAM_BYTES_PER_TURN);
            match conn.write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    backlog.advance(cursor, sent);
                    total += sent;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    repl.replicas[at].stalled = true;
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.stats.net_repl_output_bytes += total as u64;
        Ok(())
    }

    /// Tries to send all replicas everything now: before evicting, so that what waits for them does not count against
    /// the memory limit longer than needed.
    pub(crate) fn flush_replicas(&mut self) {
        let ready = self.repl.replicas.iter().filter(|a| !a.stalled && self.repl.has_output(a)).map(|a| a.client);
        let ready: Vec<ClientId> = ready.collect();
        for id in ready {
            self.write_replica(id);
        }
    }

    // ---- waiting for acknowledgements

    /// A client blocked in WAIT or WAITAOF: replicas are asked to acknowledge before the loop sleeps.
    pub(crate) fn wait_for_acks(&mut self, id: ClientId) {
        self.repl.waiters.push(id);
        self.repl.want_acks = true;
    }

    /// Releases clients in WAIT and WAITAOF that have what they wait for.
    pub(crate) fn serve_waiting_for_acks(&mut self) {
        if self.repl.waiters.is_empty() {
            return;
        }
        let waiting: Vec<(ClientId, BlockKind)> = self
            .repl
            .waiters
            .iter()
            .filter_map(|id| {
                let kind = &self.clients.get(*id)?.block.as_ref()?.kind;
                matches!(kind, BlockKind::Wait { .. } | BlockKind::WaitAof { .. }).then(|| (*id, kind.clone()))
            })
            .collect();
        self.repl.waiters = waiting.iter().map(|(id, _)| *id).collect();
        for (id, kind) in waiting {
            let mut reply = Reply::default();
            let mut end = WaitEnd::Answered;
            match kind {
                BlockKind::Wait { offset, replicas } => {
                    let acked = primary::count_acks(self.repl.records(), offset) as i64;
                    if acked < replicas {
                        continue;
                    }
                    reply.int(acked);
                }
                BlockKind::WaitAof { local, .. } if local > 0 && !self.cfg.appendonly => {
                    self.write_error(&mut reply, &WAITAOF_NO_AOF);
                    end = WaitEnd::Failed;
                }
                BlockKind::WaitAof { offset, local, replicas } => {
                    let (on_disk, acked) = self.aof_acks(offset);
                    if on_disk < local || acked < replicas {
                        continue;
                    }
                    write_aof_acks(&mut reply, on_disk, acked);
                }
                _ => continue,
            }
            self.clients.reply(id, &reply.buf);
            self.unblock(id, end);
        }
    }

    /// Whether this server (0 or 1) and how many replicas have `offset` on disk.
    pub(crate) fn aof_acks(&self, offset: i64) -> (i64, i64) {
        let on_disk = i64::from(self.persist.aof.fsynced_reploff.unwrap_or(-1) >= offset);
        (on_disk, primary::count_aof_acks(self.repl.records(), offset) as i64)
    }

    /// The reply of a client whose WAIT or WAITAOF ran out of time.
    pub(crate) fn reply_to_late_wait(&mut self, id: ClientId, kind: &BlockKind) {
        let mut reply = Reply::default();
        match *kind {
            BlockKind::Wait { offset, .. } => {
                reply.int(primary::count_acks(self.repl.records(), offset) as i64);
            }
            BlockKind::WaitAof { offset, .. } => {
                let (on_disk, acked) = self.aof_acks(offset);
                write_aof_acks(&mut reply, on_disk, acked);
            }
            _ => return,
        }
        self.clients.reply(id, &reply.buf);
    }

    // ---- admission

    /// Writes need enough good replicas, if any are asked for.
    pub(crate) fn check_good_replicas(&mut self, is_write: bool) -> Result<(), CmdError> {
        let needed = self.cfg.min_replicas_to_write;
        let counts = needed > 0 && self.cfg.min_replicas_max_lag > 0 && !self.repl.is_replica();
        if is_write && counts && (self.repl.good_replicas as i64) < needed {
            return Err(error::NO_REPLICAS);
        }
        Ok(())
    }

    /// Whether clients may not write here.
    pub(crate) fn is_read_only_replica(&self) -> bool {
        self.repl.is_replica() && self.cfg.replica_read_only
    }

    /// Whether clients get no data now, since it may be stale.
    pub(crate) fn serves_nothing_stale(&self) -> bool {
        self.repl.is_replica()
            && self.repl.master.state != crate::repl::link::LinkState::Connected
            && !self.cfg.replica_serve_stale_data
    }

    /// Offset of the newest byte of the stream.
    pub(crate) fn repl_offset(&self) -> i64 {
        self.repl.history.offset
    }

    pub(crate) fn refresh_good_replicas(&mut self) {
        let now_s = self.now_s();
        self.repl.refresh_good_replicas(self.cfg.min_replicas_max_lag, now_s);
    }

    /// INFO's replication section, without its title.
    pub(crate) fn replication_info(&self) -> String {
        self.repl.info(InfoContext {
            now_s: self.now_s(),
            priority: self.cfg.replica_priority,
            read_only: self.cfg.replica_read_only,
            announced: self.cfg.replica_announced,
            counts_good: self.cfg.min_replicas_to_write > 0 && self.cfg.min_replicas_max_lag > 0,
            backlog_size: self.cfg.repl_backlog_size,
        })
    }

    // ---- every turn and every second

    /// Before the loop sleeps: asks for acknowledgements, moves a failover on, serves waiters.
    pub(crate) fn repl_before_sleep(&mut self) {
        self.serve_waiting_for_acks();
        if self.repl.want_acks && !self.writes_paused() {
            self.ask_for_acks();
            self.repl.want_acks = false;
        }
        self.step_failover();
        self.repl.trim();
        self.release_master_link();
    }

    /// Asks every replica to acknowledge at once.
    pub(crate) fn ask_for_acks(&mut self) {
        if !self.repl.replicas.is_empty() {
            self.feed_replicas_plain(&[b"REPLCONF", b"GETACK", b"*"]);
        }
    }

    /// The periodic work towards replicas; about once a second.
    pub(super) fn cron_towards_replicas(&mut self) {
        let now_s = self.now_s();
        let ping_due = self.repl.cron_loops.is_multiple_of(self.cfg.repl_ping_replica_period.max(1) as u64);
        if ping_due && !self.repl.replicas.is_empty() && !self.stream_must_stand_still() {
            self.feed_replicas_plain(&[b"PING"]);
        }
        self.keep_waiting_replicas_alive();
        self.drop_silent_replicas(now_s);
        self.drop_unused_backlog(now_s);
        self.start_due_snapshot();
        self.remove_dump_made_for_replicas();
        self.refresh_good_replicas();
        self.repl.cron_loops += 1;
    }

    /// Starts a snapshot if replicas wait for one, have waited long enough, and nothing else is being written.
    pub(super) fn start_due_snapshot(&mut self) {
        if self.has_child() {
            return;
        }
        let plan = primary::due_snapshot(self.repl.records(), self.snapshot_config(), self.now_s());
        if let Some(plan) = plan {
            self.start_snapshot_for_replicas(plan);
        }
    }

    /// A PING would move the offset that a planned change of roles waits for.
    fn stream_must_stand_still(&self) -> bool {
        let planned = self.repl.failover.has_deadline() || self.cluster_manual_failover();
        planned && self.writes_paused()
    }

    /// An empty line tells a replica that waits for a snapshot file that its master is alive.
    fn keep_waiting_replicas_alive(&mut self) {
        let streaming = self.repl.pipe.is_some();
        let waiting: Vec<ClientId> = self
            .repl
            .replicas
            .iter()
            .filter(|attached| match attached.replica.state {
                ReplicaState::WaitBgsaveStart => true,
                ReplicaState::WaitBgsaveEnd => !streaming,
                ReplicaState::SendBulk | ReplicaState::Online | ReplicaState::RdbTransmitted => false,
            })
            .map(|attached| attached.client)
            .collect();
        for id in waiting {
            self.clients.push(id, b"\n");
        }
    }

    fn drop_silent_replicas(&mut self, now_s: i64) {
        let streaming = self.repl.pipe.is_some();
        let timeout_s = self.cfg.repl_timeout;
        let silent: Vec<(ClientId, LogLine)> = self
            .repl
            .replicas
            .iter()
            .filter_map(|attached| {
                let line = attached.replica.timed_out(streaming, now_s, timeout_s, &attached.name())?;
                Some((attached.client, line))
            })
            .collect();
        for (id, line) in silent {
            line.emit();
            self.free_client(id);
        }
    }

    fn drop_unused_backlog(&mut self, now_s: i64) {
        let ttl_s = self.cfg.repl_backlog_ttl;
        let unused = self.repl.replicas.is_empty() && self.repl.backlog.is_some() && !self.repl.is_replica();
        if ttl_s == 0 || !unused || now_s - self.repl.no_replicas_since_s <= ttl_s {
            return;
        }
        // Without a backlog the offset no longer tells how much was written, so the history must not be continued.
        self.repl.history.start_new();
        self.drop_backlog();
        log::info!("Replication backlog freed after {ttl_s} seconds without connected replicas.");
    }

    /// Gives the backlog up; there are no replicas.
    pub(super) fn drop_backlog(&mut self) {
        if let Some(backlog) = self.repl.take_backlog() {
            self.background.files.submit(move || drop(backlog));
        }
    }

    /// `repl-backlog-size` changed.
    pub(crate) fn resize_backlog(&mut self) {
        self.cfg.repl_backlog_size = self.cfg.repl_backlog_size.max(crate::config::MIN_BACKLOG_SIZE);
        if let Some(backlog) = &mut self.repl.backlog {
            backlog.resize(self.cfg.repl_backlog_size as usize);
        }
    }

    // ---- planned change of roles

    fn step_failover(&mut self) {
        if self.repl.failover.state() != FailoverState::WaitForSync {
            return;
        }
        let candidates: Vec<Candidate> = self.repl.replicas.iter().map(candidate).collect();
        let now_ms = self.clock.ms() as u64;
        let (step, line) = self.repl.failover.tick(&candidates, self.repl.history.offset, now_ms);
        if let Some(line) = line {
            line.emit();
        }
        self.do_failover_step(step);
    }

    /// Ends a planned change of roles for this reason, if there is one.
    pub(crate) fn abort_failover(&mut self, why: &str) {
        let (step, line) = self.repl.failover.abort(why);
        if let Some(line) = line {
            line.emit();
        }
        self.do_failover_step(step);
    }

    /// The other side took over.
    pub(super) fn complete_failover(&mut self) {
        self.repl.failover.clear();
        self.unpause_clients(PausePurpose::Failover);
    }

    fn do_failover_step(&mut self, step: FailoverStep) {
        match step {
            FailoverStep::Wait => {}
            FailoverStep::Follow(target) => self.set_master(&target.host, target.port as u16),
            FailoverStep::Aborted { return_to_primary } => {
                if return_to_primary {
                    self.unset_master();
                }
                self.unpause_clients(PausePurpose::Failover);
            }
        }
    }
}

fn candidate(attached: &Attached) -> Candidate {
    let target = attached.ip().map(|host| Target { host, port: attached.replica.announced.listening_port });
    Candidate { target, ack_offset: attached.replica.ack_offset }
}

/// WAITAOF asks for the local disk while there is no AOF.
pub(crate) const WAITAOF_NO_AOF: CmdError =
    CmdError::of("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.");

/// WAITAOF's reply.
pub(crate) fn write_aof_acks(out: &mut Reply, on_disk: i64, acked: i64) {
    out.array(2);
    out.int(on_disk);
    out.int(acked);
}
