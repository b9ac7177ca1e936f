//! Replication as the server drives it: what the machine ([`Repl`]) is told of the rest of the server, and how what it
//! asks for is carried out. The rules are all in `repl`; here are sockets, files, children and clients.
//!
//! Files: `follow` (the connection to the master), `load` (a dataset from there on its way into memory), `serve` (output to
//! replicas, and replies to those who wait for them), `snapshot` (how a snapshot is made and reaches replicas).

pub(crate) mod follow;
pub(crate) mod load;
pub(crate) mod serve;
pub(crate) mod snapshot;

use crate::catalog::CmdError;
use crate::config::PropagationErrorBehavior;
use crate::net::ClientId;
use crate::persist::child::ChildKind;
use crate::repl::{Action, Env, LinkId, MasterSession, Repl, RunningChild};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::blocked::{BlockKind, WaitEnd};
use crate::server::dispatch::pause::{PauseKind, PausePurpose};
use crate::sys::log as log_sink;

/// Bytes of the stream logged when a command from the master fails.
const SHOWN_STREAM_BYTES: usize = 256;

/// The sockets, files and pipes that replication has open.
#[derive(Debug, Default)]
pub(crate) struct ReplIo {
    master: follow::MasterSocket,
    /// The link whose dataset is being loaded: nobody else reads from it.
    loading: Option<LinkId>,
    /// When a keepalive was last sent while loading, in Unix seconds.
    keepalive_sent_s: i64,
    /// The snapshot being streamed to replicas.
    pipe: Option<snapshot::SnapshotPipe>,
    /// The dump file on its way to replicas.
    files: Vec<snapshot::SnapshotFile>,
}

impl ReplIo {
    /// Whether a dataset from the master is being loaded.
    pub(crate) fn is_loading(&self) -> bool {
        self.loading.is_some()
    }
}

impl Server {
    /// Gives the machine an event, and carries out what it asks for.
    pub(crate) fn with_repl<R>(&mut self, event: impl FnOnce(&mut Repl, &Env<'_>) -> R) -> R {
        let (ks, bus) = (&self.ks, &self.bus);
        let vouched_offset = self.vouched_offset();
        let env = Env {
            now_ms: self.clock.ms(),
            cfg: &self.cfg,
            is_loading: self.is_loading(),
            writes_paused: self.writes_paused(),
            manual_failover: self.cluster_manual_failover(),
            fsynced_offset: self.persist.aof.fsynced_reploff,
            child: match self.child_kind() {
                None => RunningChild::None,
                Some(ChildKind::RdbDisk) => RunningChild::SnapshotToDisk,
                Some(ChildKind::RdbSocket) => RunningChild::SnapshotToSockets,
                Some(ChildKind::Aof) => RunningChild::Other,
            },
            master: self.master_session(),
            has_no_keys: &|| ks.total_keys() == 0,
            vouch: &|| bus.as_ref().and_then(|bus| bus.vouch_for(vouched_offset?)),
            node_id: bus.as_ref().map(|bus| &bus.machine.myself().id.as_bytes()[..]),
        };
        let result = event(&mut self.repl, &env);
        self.act_for_repl();
        result
    }

    fn master_session(&self) -> Option<MasterSession> {
        let c = self.clients.get(self.repl.master_client()?)?;
        let is_broken = c.is(ClientFlags::PROTOCOL_ERROR.union(ClientFlags::BLOCKED));
        Some(MasterSession { db: c.db, is_broken })
    }

    /// Carries out what the machine asks for. What comes of an action is the machine's next event, and goes before the
    /// actions that are left.
    fn act_for_repl(&mut self) {
        if self.repl.has_actions() {
            for action in self.repl.take_actions() {
                self.do_for_repl(action);
            }
        }
    }

    fn do_for_repl(&mut self, action: Action) {
        match action {
            Action::Log(line) => line.emit(),
            Action::LogAs(role) => log_sink::set_role(role),
            Action::ShowRole => self.show_role(),
            Action::RestartAofAfterRoleChange => self.restart_aof_after_role_change(),
            Action::RestartAofAfterSync => self.restart_aof_after_sync(),
            Action::DropBacklog(backlog) => self.background.files.submit(move || drop(backlog)),
            Action::PauseWrites => self.pause_clients(PausePurpose::Failover, PauseKind::Write, i64::MAX),
            Action::ResumeWrites => self.unpause_clients(PausePurpose::Failover),
            Action::DisconnectBlocked => self.disconnect_blocked_clients(),

            Action::Connect { link, host, port } => self.connect_to_master(link, &host, port),
            Action::CloseLink { link } => self.close_master_link(link),
            Action::SendToMaster { link, bytes } => self.send_to_master(link, &bytes),
            Action::OpenReceivedFile { link } => self.open_received_file(link),
            Action::StoreReceived { link, bytes } => self.store_received(link, &bytes),
            Action::LoadReceivedFile { link, rest } => {
                if self.repl.is_current(link) {
                    self.load_received_file(&rest);
                }
            }
            Action::LoadFromLink { link, framing, rest } => {
                if self.repl.is_current(link) {
                    self.load_from_master_link(framing, &rest);
                }
            }
            Action::AdoptLink { link, db, rest } => self.adopt_master_link(link, db, &rest),

            Action::BecomeReplica { client, is_fresh } => self.become_replica(client, is_fresh),
            Action::DismissReplica { client } => self.dismiss_replica(client),
            Action::Push { client, bytes } => self.clients.push(client, &bytes),
            Action::WantWrite { client } => self.clients.want_write(client),
            Action::CheckOutput { client } => drop(self.check_output_limit(client)),
            Action::CloseLater { client } => self.clients.close_later(client),
            Action::Free { client } => self.free_client(client),
            Action::Release { client, answer } => self.release_waiter(client, answer),

            Action::StartSnapshot(start) => self.start_snapshot_for_replicas(start),
            Action::SendFile { client } => self.begin_sending_file(client),
            Action::LeaveSnapshot { client } => self.leave_snapshot(client),
            Action::KillSnapshot => self.kill_rdb_child(),
            Action::ReapChild => self.check_child_done(),
            Action::RemoveDump => self.remove_dump_made_for_replicas(),
        }
    }

    // ---- the role

    /// Takes the role the configuration asks for; before anything is loaded.
    pub(crate) fn start_as_configured(&mut self) {
        match self.cfg.replicaof.clone() {
            Some((host, port)) => self.start_as_replica_of(host, port),
            None => self.show_role(),
        }
    }

    /// Takes the role of a replica of that server; before anything is loaded.
    pub(crate) fn start_as_replica_of(&mut self, host: String, port: u16) {
        self.repl.start_as_replica_of(host, port, self.clock.ms());
        self.show_role();
    }

    /// Makes this server a replica of the one at `host` and `port`.
    pub(crate) fn set_master(&mut self, host: &str, port: u16) {
        self.with_repl(|repl, env| repl.follow(host, port, env));
    }

    /// Makes this server a primary.
    pub(crate) fn unset_master(&mut self) {
        self.with_repl(|repl, env| repl.stop_following(env));
    }

    /// The role as log lines, `replicaof` and the out-of-memory score show it.
    fn show_role(&mut self) {
        log_sink::set_role(self.repl.log_role());
        self.cfg.replicaof = self.repl.master_address().cloned();
        // A score that cannot be set is in the log.
        let _ = self.apply_oom_score();
    }

    /// Whether this server is a replica.
    pub(crate) fn is_replica(&self) -> bool {
        self.repl.is_replica()
    }

    /// Whether clients may not write here.
    pub(crate) fn is_read_only_replica(&self) -> bool {
        self.repl.is_replica() && self.cfg.replica_read_only
    }

    /// Whether clients get no data now, since it may be stale.
    pub(crate) fn serves_nothing_stale(&self) -> bool {
        self.repl.may_be_stale() && !self.cfg.replica_serve_stale_data
    }

    /// Releases all clients that wait for something only a primary has.
    fn disconnect_blocked_clients(&mut self) {
        const GONE: CmdError = CmdError::of(
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        );
        // Whoever waits for a key of a slot that is elsewhere now goes on there, and a shutdown goes on here.
        self.redirect_blocked();
        for id in self.blocked.clients.clone() {
            let block = self.clients.get(id).and_then(|c| c.block.as_ref());
            if block.is_none_or(|block| block.kind == BlockKind::Shutdown) {
                continue;
            }
            self.reply_error_to(id, &GONE);
            self.unblock(id, WaitEnd::Failed);
            if let Some(c) = self.clients.get_mut(id) {
                c.flags.add(ClientFlags::CLOSE_AFTER_REPLY);
            }
        }
    }

    // ---- every turn and every cron run

    /// When the next attempt to reach the master is due, if that is before the periodic work.
    pub(crate) fn repl_deadline_ms(&self) -> Option<i64> {
        self.repl.next_deadline_ms()
    }

    /// Does what is due.
    pub(crate) fn repl_timers(&mut self) {
        if self.repl.is_due(self.clock.ms()) {
            self.with_repl(Repl::on_time);
        }
    }

    /// Before the loop sleeps.
    pub(crate) fn repl_before_sleep(&mut self) {
        if self.repl.is_restless() {
            self.with_repl(Repl::before_sleep);
        }
        self.repl.trim();
        self.release_master_link();
    }

    /// The periodic work; to be called at every cron run.
    pub(crate) fn repl_cron(&mut self) {
        // A change of roles is pursued faster.
        let period_ms = if self.repl.is_failing_over() { 100 } else { 1000 };
        if !self.is_loading() && self.every_ms(period_ms) {
            self.with_repl(Repl::cron);
        }
    }

    /// A client is about to go.
    pub(crate) fn repl_before_free(&mut self, id: ClientId) {
        if self.repl.knows(id) {
            self.forget_confirmer(id);
            self.with_repl(|repl, env| repl.on_client_gone(id, env));
        }
    }

    // ---- the stream

    /// Gives one command to the stream.
    pub(crate) fn feed_replicas(&mut self, db: Option<usize>, command: &[u8]) {
        self.repl.feed(db, command);
        self.act_for_repl();
    }

    /// Offset of the newest byte of the stream.
    pub(crate) fn repl_offset(&self) -> i64 {
        self.repl.offset()
    }

    /// `repl-backlog-size` changed.
    pub(crate) fn resize_backlog(&mut self) {
        self.cfg.repl_backlog_size = self.cfg.repl_backlog_size.max(crate::config::MIN_BACKLOG_SIZE);
        self.repl.resize_backlog(self.cfg.repl_backlog_size as usize);
    }

    // ---- replies that nobody reads

    /// Looks at the reply to a command that came over a link between servers: nobody reads it there.
    pub(crate) fn check_link_reply(&mut self, id: ClientId, was_replica: bool, reply: &[u8]) {
        let Some(c) = self.clients.get(id) else { return };
        if reply.is_empty() {
            return;
        }
        if c.is(ClientFlags::IMPORT) {
            if let Some(error) = reply.strip_prefix(b"-") {
                self.fail_import(id, &CmdError::bytes(error.trim_ascii_end().to_vec()));
            }
            return;
        }
        let from_replica = was_replica && c.is(ClientFlags::REPLICA) && !c.is(ClientFlags::MONITOR);
        if from_replica {
            let command = c.last_command.map_or("<unknown>", |row| row.name);
            let who = self.describe_client(id);
            log::warn!("Replica generated a reply to command '{command}', disconnecting it: {who}");
            self.clients.close_later(id);
        } else if !c.is(ClientFlags::MASTER.union(ClientFlags::AOF)) {
            return;
        }
        if let Some(error) = reply.strip_prefix(b"-") {
            let error = error.strip_suffix(b"\r\n").unwrap_or(error).to_vec();
            self.note_internal_error(id, &CmdError::bytes(error));
        }
    }

    /// A command that another server sent (our master, a replica, the AOF) failed. Nobody reads the reply, but it hints
    /// at datasets that differ.
    fn note_internal_error(&mut self, id: ClientId, error: &CmdError) {
        let Some(c) = self.clients.get(id) else { return };
        let (from, to) = if c.is(ClientFlags::AOF) {
            ("server", "AOF-loading-client")
        } else if c.is(ClientFlags::MASTER) {
            ("replica", "master")
        } else if c.is(ClientFlags::REPLICA) {
            ("master", "replica")
        } else {
            return;
        };
        let command = c.last_command.map_or("<unknown>", |row| row.name);
        log::warn!(
            "== CRITICAL == This {from} is sending an error to its {to}: '-{error}' after processing the command \
             '{command}'"
        );
        if c.is(ClientFlags::MASTER)
            && let Some(latest) = self.repl.latest_stream(SHOWN_STREAM_BYTES)
        {
            log::info!("Latest backlog is: '{}'", latest.escape_ascii());
        }
        self.stats.unexpected_error_replies += 1;
        let from_master = c.is(ClientFlags::MASTER) && self.cfg.replica_read_only;
        let fatal = match self.cfg.propagation_error_behavior {
            PropagationErrorBehavior::Ignore => false,
            PropagationErrorBehavior::Panic => from_master || c.is(ClientFlags::AOF),
            PropagationErrorBehavior::PanicOnReplicas => from_master,
        };
        if fatal {
            // Asked for by the operator: better no replica than one that differs.
            panic!("This {from} panicked sending an error to its {to} after processing the command '{command}'");
        }
    }
}
