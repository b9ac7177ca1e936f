//! Towards replicas: attaching them, the snapshot each begins with, what they acknowledge, and who is silent for too long.
//!
//! A replica's output is what is pushed to its client, then the snapshot file, then the shared stream from its cursor on,
//! strictly in this order.

use super::failover::{Candidate, Failover, FailoverState, FailoverStep, Target};
use super::history::{PsyncDecision, ReplId};
use super::primary::{
    self, Announcement, FullSyncStep, Replica, ReplicaState, RunningChild, SnapshotConfig, SnapshotPlan, SnapshotTarget,
};
use super::{Action, Attached, Env, MasterSession, Repl};
use crate::catalog::CmdError;
use crate::config::Config;
use crate::net::ClientId;
use crate::resp::encode::command;

/// A client that is, or is about to become, a replica.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) client: ClientId,
    /// Its number, for logs.
    pub(crate) number: u64,
    /// Address of its connection.
    pub(crate) ip: Option<String>,
}

/// The position in a stream that a dataset corresponds to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// History of the stream.
    pub(crate) id: ReplId,
    /// Its newest byte.
    pub(crate) offset: i64,
    /// Database it has selected.
    pub(crate) db: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct SnapshotStart {
    /// Where it goes.
    pub(crate) target: SnapshotTarget,
    /// No keys are wanted.
    pub(crate) exclude_data: bool,
    /// No functions are wanted.
    pub(crate) exclude_functions: bool,
    /// Where the dataset stands.
    pub(crate) position: Position,
    /// The replicas it is for.
    pub(crate) waiting: Vec<ClientId>,
}

fn snapshot_config(cfg: &Config) -> SnapshotConfig {
    SnapshotConfig {
        diskless: cfg.repl_diskless_sync,
        delay_s: cfg.repl_diskless_sync_delay,
        max_replicas: cfg.repl_diskless_sync_max_replicas as usize,
    }
}

impl Repl {
    // ---- finding them

    pub(super) fn attached(&self, client: ClientId) -> Option<&Attached> {
        self.replicas.iter().find(|attached| attached.client == client)
    }

    pub(super) fn attached_mut(&mut self, client: ClientId) -> Option<&mut Attached> {
        self.replicas.iter_mut().find(|attached| attached.client == client)
    }

    pub(super) fn records(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().map(|attached| &attached.replica)
    }

    fn clients_in(&self, state: ReplicaState) -> Vec<ClientId> {
        let found = self.replicas.iter().filter(|attached| attached.replica.state == state);
        found.map(|attached| attached.client).collect()
    }

    /// How logs call the replica a client is or is about to be.
    pub(crate) fn replica_name(&self, peer: &Peer) -> String {
        if let Some(attached) = self.attached(peer.client) {
            return attached.name();
        }
        let announced = self.announced.iter().find(|(client, _)| *client == peer.client).map(|(_, told)| told);
        announced.unwrap_or(&Announcement::default()).name(peer.ip.as_deref(), peer.number)
    }

    /// What a client has announced so far, to be changed.
    pub(crate) fn announcement_mut(&mut self, client: ClientId) -> &mut Announcement {
        if let Some(at) = self.replicas.iter().position(|attached| attached.client == client) {
            return &mut self.replicas[at].replica.announced;
        }
        let at = match self.announced.iter().position(|(id, _)| *id == client) {
            Some(at) => at,
            None => {
                self.announced.push((client, Announcement::default()));
                self.announced.len() - 1
            }
        };
        &mut self.announced[at].1
    }

    /// Takes what a client has announced; it becomes part of its replica record.
    fn take_announcement(&mut self, client: ClientId) -> Announcement {
        match self.announced.iter().position(|(id, _)| *id == client) {
            Some(at) => self.announced.swap_remove(at).1,
            None => Announcement::default(),
        }
    }

    // ---- attaching and detaching

    fn attach(&mut self, peer: Peer, replica: Replica, is_fresh: bool) {
        let Peer { client, number, ip: peer_ip } = peer;
        self.act(Action::BecomeReplica { client, is_fresh });
        self.replicas.push(Attached { client, number, peer_ip, replica, stalled: false });
    }

    /// A client goes away: if it was a replica, its record and its place in the stream go with it.
    pub(super) fn detach(&mut self, client: ClientId, env: &Env) {
        self.announced.retain(|(id, _)| *id != client);
        let Some(at) = self.replicas.iter().position(|attached| attached.client == client) else { return };
        let gone = self.replicas.remove(at);
        self.notice(format!("Connection with replica {} lost.", gone.name()));
        if let (Some(backlog), Some(cursor)) = (&mut self.backlog, gone.replica.cursor) {
            backlog.remove_cursor(cursor);
        }
        if gone.replica.state.needs_snapshot() {
            self.act(Action::LeaveSnapshot { client });
        }
        // A snapshot made for it alone is made for nobody.
        if gone.replica.state == ReplicaState::WaitBgsaveEnd
            && !self.records().any(|replica| replica.state == ReplicaState::WaitBgsaveEnd)
            && env.cfg.save.is_empty()
            && env.child == RunningChild::SnapshotToDisk
        {
            self.act(Action::KillSnapshot);
        }
        if self.replicas.is_empty() {
            self.no_replicas_since_s = env.now_s();
        }
        self.refresh_good_replicas(env);
    }

    /// Closes the connections of all replicas: they come back and see what changed.
    pub(super) fn disconnect_replicas(&mut self, env: &Env) {
        let clients: Vec<ClientId> = self.replicas.iter().map(|attached| attached.client).collect();
        for client in clients {
            // The record goes at once, so that nothing of a new history reaches this connection.
            self.detach(client, env);
            self.act(Action::CloseLater { client });
        }
    }

    // ---- SYNC and PSYNC

    /// What keeps clients from becoming replicas now.
    pub(crate) fn may_synchronize(&self) -> Result<(), CmdError> {
        if self.is_failing_over() {
            return Err(CmdError::of("NOMASTERLINK Can't SYNC while failing over"));
        }
        if self.may_be_stale() {
            return Err(CmdError::of("NOMASTERLINK Can't SYNC while not connected with my master"));
        }
        Ok(())
    }

    /// Whether the master of a replica that has `asked_id` may make it the master.
    pub(crate) fn may_take_over(&self, asked_id: &[u8]) -> Result<(), CmdError> {
        if !self.is_replica() {
            return Err(CmdError::of("ERR PSYNC FAILOVER can't be sent to a master."));
        }
        if !self.history.id.matches(asked_id) {
            return Err(CmdError::of("ERR PSYNC FAILOVER replid must match my replid."));
        }
        Ok(())
    }

    /// PSYNC (`asked` holds the id and the offset wanted) or SYNC. Returns the reply to a replica that continues; to one
    /// that has to wait for a snapshot it is written when the snapshot begins.
    pub(crate) fn synchronize(&mut self, peer: Peer, asked: Option<(&[u8], i64)>, env: &Env) -> Option<String> {
        let name = self.replica_name(&peer);
        if let Some((asked_id, asked_offset)) = asked {
            match self.history.decide_psync(self.backlog.as_ref(), asked_id, asked_offset, &name) {
                PsyncDecision::Partial { offset, backlog_bytes } => {
                    let reply = self.continue_replica(peer, offset, env);
                    self.stats.sync_partial_ok += 1;
                    self.notice(format!(
                        "Partial resynchronization request from {name} accepted. Sending {backlog_bytes} bytes of \
                         backlog starting from offset {offset}."
                    ));
                    self.refresh_good_replicas(env);
                    return Some(reply);
                }
                PsyncDecision::Full { refused, lines } => {
                    lines.into_iter().for_each(|line| self.log(line));
                    self.stats.sync_partial_err += u64::from(refused);
                }
            }
        }
        self.stats.sync_full += 1;
        let client = peer.client;
        let replica = Replica::waiting(self.take_announcement(client), asked.is_none(), env.now_s());
        self.attach(peer, replica, true);
        if self.backlog.is_none() {
            // A backlog from scratch has no past that anyone could continue.
            self.history.start_new();
            self.need_backlog(env);
            self.notice(format!(
                "Replication backlog created, my new replication IDs are '{}' and '{}'",
                self.history.id, self.history.second_id
            ));
        }
        self.plan_full_sync(client, env);
        None
    }

    fn continue_replica(&mut self, peer: Peer, offset: i64, env: &Env) -> String {
        let announced = self.take_announcement(peer.client);
        let psync2 = announced.capabilities.psync2;
        let backlog = self.backlog.as_mut().expect("there is a backlog to continue from");
        let cursor = backlog.add_cursor(offset).expect("the backlog holds the offset");
        self.attach(peer, Replica::continuing(announced, cursor, env.now_s()), false);
        if psync2 { format!("CONTINUE {}", self.history.id) } else { "CONTINUE".to_owned() }
    }

    fn plan_full_sync(&mut self, client: ClientId, env: &Env) {
        let (newcomer, others): (Vec<_>, Vec<_>) = self.replicas.iter().partition(|attached| attached.client == client);
        let Some(newcomer) = newcomer.first() else { return };
        let records: Vec<&Replica> = others.iter().map(|attached| &attached.replica).collect();
        let config = snapshot_config(env.cfg);
        let (step, line) = primary::on_full_sync_request(&newcomer.replica, &records, env.child, config);
        let shared = match step {
            FullSyncStep::Share { with } => Some((records[with].cursor, records[with].snapshot_offset)),
            FullSyncStep::Start(_) | FullSyncStep::Wait => None,
        };
        if let Some((cursor, offset)) = shared {
            if let (Some(backlog), Some(other)) = (&mut self.backlog, cursor)
                && let Some(attached) = self.replicas.iter_mut().find(|attached| attached.client == client)
                && !attached.replica.announced.rdb_only
            {
                attached.replica.cursor = Some(backlog.copy_cursor(other));
            }
            self.begin_full_resync(client, offset);
        }
        if let Some(line) = line {
            self.log(line);
        }
        if let FullSyncStep::Start(plan) = step {
            self.start_snapshot(plan, env);
        }
    }

    /// Puts a replica that waited onto the stream from `offset` on: that is where its snapshot stands.
    fn begin_full_resync(&mut self, client: ClientId, offset: i64) {
        // Every snapshot is followed by a stream that selects its database anew.
        self.stream_db = None;
        let Some(attached) = self.replicas.iter_mut().find(|attached| attached.client == client) else { return };
        let replica = &mut attached.replica;
        replica.snapshot_offset = offset;
        replica.state = ReplicaState::WaitBgsaveEnd;
        if !replica.announced.rdb_only && replica.cursor.is_none() {
            replica.cursor = self.backlog.as_mut().and_then(|backlog| backlog.add_cursor(offset + 1));
        }
        if !replica.pre_psync {
            let bytes = format!("+FULLRESYNC {} {offset}\r\n", self.history.id).into_bytes();
            self.act(Action::Push { client, bytes });
        }
    }

    // ---- snapshots

    /// The position a snapshot taken now corresponds to, to be stored in it; `None` while there is none to speak of.
    pub(crate) fn position(&self, master: Option<MasterSession>) -> Option<Position> {
        let db = if !self.is_replica() {
            self.backlog.as_ref()?;
            // Whatever was selected: before the next command of the stream comes a SELECT if need be.
            self.stream_db.unwrap_or(0)
        } else if self.master.online().is_some() {
            master?.db
        } else {
            self.master.cached?.db
        };
        Some(Position { id: self.history.id, offset: self.history.offset, db })
    }

    /// Starts a snapshot if replicas wait for one, have waited long enough, and nothing else is being written.
    fn start_due_snapshot(&mut self, env: &Env) {
        if env.child != RunningChild::None {
            return;
        }
        if let Some(plan) = primary::due_snapshot(self.records(), snapshot_config(env.cfg), env.now_s()) {
            self.start_snapshot(plan, env);
        }
    }

    /// Starts the snapshot `plan` asks for, for all replicas that wait for one like it.
    fn start_snapshot(&mut self, plan: SnapshotPlan, env: &Env) {
        let SnapshotPlan { target, requirements, .. } = plan;
        let to = match target {
            SnapshotTarget::Disk => "disk",
            SnapshotTarget::Sockets => "replicas sockets",
        };
        self.notice(format!("Starting BGSAVE for SYNC with target: {to}"));
        let Some(position) = self.position(env.master) else {
            self.warn(
                "BGSAVE for replication: replication information not available, can't generate the RDB file right now. \
                 Try later.",
            );
            return self.on_snapshot_refused();
        };
        let waiting = self.replicas.iter().filter(|attached| {
            let replica = &attached.replica;
            replica.state == ReplicaState::WaitBgsaveStart && replica.announced.requirements == requirements
        });
        let waiting = waiting.map(|attached| attached.client).collect();
        self.act(Action::StartSnapshot(SnapshotStart {
            target,
            exclude_data: requirements.exclude_data,
            exclude_functions: requirements.exclude_functions,
            position,
            waiting,
        }));
    }

    /// The child runs.
    pub(crate) fn on_snapshot_started(&mut self, start: SnapshotStart, env: &Env) {
        match start.target {
            SnapshotTarget::Disk => self.dump_is_for_replicas |= env.cfg.rdb_del_sync_files,
            SnapshotTarget::Sockets => self.streaming = true,
        }
        for client in start.waiting {
            self.begin_full_resync(client, start.position.offset);
        }
    }

    /// There is no snapshot: replicas that wait for one are refused.
    pub(crate) fn on_snapshot_refused(&mut self) {
        self.warn("BGSAVE for replication failed");
        for client in self.clients_in(ReplicaState::WaitBgsaveStart) {
            self.replicas.retain(|attached| attached.client != client);
            let bytes = b"-ERR BGSAVE failed, replication can't continue\r\n".to_vec();
            self.act(Action::Push { client, bytes });
            self.act(Action::DismissReplica { client });
        }
    }

    /// A snapshot child has ended: replicas that waited for it go on, or are dropped if it failed.
    pub(crate) fn on_snapshot_ended(&mut self, target: SnapshotTarget, ok: bool, env: &Env) {
        if target == SnapshotTarget::Sockets {
            self.streaming = false;
        }
        for client in self.clients_in(ReplicaState::WaitBgsaveEnd) {
            if !ok {
                self.warn("SYNC failed. BGSAVE child returned an error");
                self.act(Action::CloseLater { client });
                continue;
            }
            match target {
                SnapshotTarget::Disk => self.act(Action::SendFile { client }),
                SnapshotTarget::Sockets => self.on_snapshot_streamed(client, env),
            }
        }
        self.start_due_snapshot(env);
    }

    fn on_snapshot_streamed(&mut self, client: ClientId, env: &Env) {
        let Some(attached) = self.attached_mut(client) else { return };
        // The replica finds the end mark by nothing following it: the stream waits until it says that it has it.
        attached.replica.stream_waits_for_ack = true;
        let name = attached.name();
        self.notice(format!(
            "Streamed RDB transfer with replica {name} succeeded (socket). Waiting for REPLCONF ACK from replica to \
             enable streaming"
        ));
        self.on_snapshot_sent(client, env);
    }

    /// The dump file is open for a replica, and has so many bytes.
    pub(crate) fn on_file_opened(&mut self, client: ClientId, size: u64) {
        let Some(attached) = self.attached_mut(client) else { return };
        attached.replica.state = ReplicaState::SendBulk;
        self.act(Action::Push { client, bytes: format!("${size}\r\n").into_bytes() });
    }

    /// The dump file cannot be opened.
    pub(crate) fn on_file_failed(&mut self, client: ClientId, why: &str) {
        self.warn(format!("SYNC failed. Can't open/stat DB after BGSAVE: {why}"));
        self.act(Action::CloseLater { client });
    }

    /// A piece of a streamed snapshot was written to a replica's connection, wholly or in part.
    pub(crate) fn note_piece(&mut self, client: ClientId, is_whole: bool, progress: bool, now_s: i64) {
        let Some(attached) = self.attached_mut(client) else { return };
        let since = &mut attached.replica.partial_write_since_s;
        if is_whole {
            *since = None;
        } else if progress || since.is_none() {
            *since = Some(now_s);
        }
    }

    /// The snapshot has reached the replica: it is online, or done if it wanted no more.
    pub(crate) fn on_snapshot_sent(&mut self, client: ClientId, env: &Env) {
        let Some(attached) = self.attached_mut(client) else { return };
        let name = attached.name();
        if attached.replica.announced.rdb_only {
            attached.replica.state = ReplicaState::RdbTransmitted;
            self.notice(format!("RDB transfer completed, rdb only replica ({name}) should be disconnected asap"));
            return self.act(Action::CloseLater { client });
        }
        attached.replica.state = ReplicaState::Online;
        attached.replica.ack_time_s = env.now_s();
        self.refresh_good_replicas(env);
        self.notice(format!("Synchronization with replica {name} succeeded"));
    }

    /// Removes the dump file in a server that keeps none for itself, once no replica needs it.
    fn remove_dump_made_for_replicas(&mut self, env: &Env) {
        self.dump_is_for_replicas &= env.cfg.rdb_del_sync_files;
        let keeps_nothing = env.cfg.save.is_empty() && !env.cfg.appendonly;
        let needed = self.records().any(|replica| replica.state.needs_snapshot());
        if self.dump_is_for_replicas && keeps_nothing && !needed {
            self.act(Action::RemoveDump);
        }
    }

    /// The dump file was there, and goes.
    pub(crate) fn on_dump_removed(&mut self) {
        self.dump_is_for_replicas = false;
        self.notice("Removing the RDB file used to feed replicas in a persistence-less instance");
    }

    // ---- what they tell

    /// REPLCONF ACK from a replica. To be followed by [`release_stream`](Self::release_stream).
    pub(crate) fn on_ack(&mut self, client: ClientId, processed: i64, fsynced: Option<i64>, now_s: i64) {
        let Some(attached) = self.attached_mut(client) else { return };
        attached.replica.acknowledge(processed, fsynced, now_s);
        if attached.replica.state == ReplicaState::WaitBgsaveEnd {
            // The replica may be faster than the news of the child's end.
            self.act(Action::ReapChild);
        }
    }

    /// A replica that has acknowledged gets the stream, if that was what it waited for.
    pub(crate) fn release_stream(&mut self, client: ClientId) {
        if let Some(attached) = self.attached_mut(client)
            && attached.replica.stream_waits_for_ack
            && attached.replica.state == ReplicaState::Online
        {
            attached.replica.stream_waits_for_ack = false;
            self.act(Action::WantWrite { client });
        }
    }

    /// An empty line from a replica shows that it is alive.
    pub(crate) fn note_alive(&mut self, client: ClientId, now_s: i64) {
        if let Some(attached) = self.attached_mut(client) {
            attached.replica.ack_time_s = now_s;
        }
    }

    /// Counts the good replicas anew.
    pub(crate) fn refresh_good_replicas(&mut self, env: &Env) {
        self.good_replicas = primary::good_replicas(self.records(), env.cfg.min_replicas_max_lag, env.now_s());
    }

    /// Whether writes have as many good replicas as they need, if any are asked for.
    pub(crate) fn has_enough_replicas(&self, cfg: &Config) -> bool {
        let needed = cfg.min_replicas_to_write;
        let counts = needed > 0 && cfg.min_replicas_max_lag > 0 && !self.is_replica();
        !counts || self.good_replicas as i64 >= needed
    }

    // ---- every second

    /// The periodic work towards replicas; about once a second.
    pub(super) fn cron_towards_replicas(&mut self, env: &Env) {
        let ping_due = self.cron_loops.is_multiple_of(env.cfg.repl_ping_replica_period.max(1) as u64);
        // A PING would move the offset that a planned change of roles waits for.
        let is_planned = self.failover.has_deadline() || env.manual_failover;
        if ping_due && !self.replicas.is_empty() && !(is_planned && env.writes_paused) {
            self.feed(None, &command(&[b"PING"]));
        }
        self.keep_waiting_replicas_alive();
        self.drop_silent_replicas(env);
        self.drop_unused_backlog(env);
        self.start_due_snapshot(env);
        self.remove_dump_made_for_replicas(env);
        self.refresh_good_replicas(env);
        self.cron_loops += 1;
    }

    /// An empty line tells a replica that waits for a snapshot file that its master is alive.
    fn keep_waiting_replicas_alive(&mut self) {
        let mut waiting = self.clients_in(ReplicaState::WaitBgsaveStart);
        if !self.streaming {
            waiting.extend(self.clients_in(ReplicaState::WaitBgsaveEnd));
        }
        for client in waiting {
            self.act(Action::Push { client, bytes: b"\n".to_vec() });
        }
    }

    fn drop_silent_replicas(&mut self, env: &Env) {
        let (streaming, now_s, timeout_s) = (self.streaming, env.now_s(), env.cfg.repl_timeout);
        let silent = self.replicas.iter().filter_map(|attached| {
            let line = attached.replica.timed_out(streaming, now_s, timeout_s, &attached.name())?;
            Some((attached.client, line))
        });
        for (client, line) in silent.collect::<Vec<_>>() {
            self.log(line);
            self.detach(client, env);
            self.act(Action::Free { client });
        }
    }

    // ---- planned change of roles

    /// Whether a change of roles is under way.
    pub(crate) fn is_failing_over(&self) -> bool {
        self.failover.state() != FailoverState::None
    }

    /// FAILOVER: plans a change of roles with this replica, or with any; `timeout_ms` is 0 for no limit.
    pub(crate) fn request_failover(
        &mut self,
        target: Option<Target>,
        timeout_ms: i64,
        force: bool,
        env: &Env,
    ) -> Result<(), CmdError> {
        if self.is_failing_over() {
            return Err(CmdError::of("ERR FAILOVER already in progress."));
        }
        if self.is_replica() {
            return Err(CmdError::of("ERR FAILOVER is not valid when server is a replica."));
        }
        if self.replicas.is_empty() {
            return Err(CmdError::of("ERR FAILOVER requires connected replicas."));
        }
        if force && (timeout_ms == 0 || target.is_none()) {
            return Err(CmdError::of("ERR FAILOVER with force option requires both a timeout and target HOST and IP."));
        }
        if let Some(target) = &target {
            let found = self.replicas.iter().find(|attached| {
                attached.replica.announced.listening_port == target.port
                    && attached.ip().is_some_and(|ip| ip.eq_ignore_ascii_case(&target.host))
            });
            match found {
                None => return Err(CmdError::of("ERR FAILOVER target HOST and PORT is not a replica.")),
                Some(attached) if attached.replica.state != ReplicaState::Online => {
                    return Err(CmdError::of("ERR FAILOVER target replica is not online."));
                }
                Some(_) => {}
            }
        }
        let deadline_ms = (timeout_ms > 0).then(|| env.now_ms.saturating_add(timeout_ms) as u64);
        let line = self.failover.request(target, deadline_ms, force);
        self.log(line);
        self.act(Action::PauseWrites);
        Ok(())
    }

    pub(super) fn step_failover(&mut self, env: &Env) {
        if !self.failover.is_waiting() {
            return;
        }
        let candidates: Vec<Candidate> = self.replicas.iter().map(candidate).collect();
        let (step, line) = self.failover.tick(&candidates, self.history.offset, env.now_ms as u64);
        if let Some(line) = line {
            self.log(line);
        }
        self.do_failover_step(step, env);
    }

    /// Ends a planned change of roles for this reason, if there is one.
    pub(crate) fn abort_failover(&mut self, why: &str, env: &Env) {
        let (step, line) = self.failover.abort(why);
        if let Some(line) = line {
            self.log(line);
        }
        self.do_failover_step(step, env);
    }

    /// The other side took over.
    pub(super) fn complete_failover(&mut self) {
        self.failover = Failover::default();
        self.act(Action::ResumeWrites);
    }

    fn do_failover_step(&mut self, step: FailoverStep, env: &Env) {
        match step {
            FailoverStep::Wait => {}
            FailoverStep::Follow(target) => self.follow(&target.host, target.port as u16, env),
            FailoverStep::Aborted { return_to_primary } => {
                if return_to_primary {
                    self.stop_following(env);
                }
                self.act(Action::ResumeWrites);
            }
        }
    }
}

fn candidate(attached: &Attached) -> Candidate {
    let target = attached.ip().map(|host| Target { host, port: attached.replica.announced.listening_port });
    Candidate { target, ack_offset: attached.replica.ack_offset }
}
