//! What the rest of the server asks of replication: before and after commands, as clients come and go, and in time.

use crate::catalog::CmdError;
use crate::config::PropagationErrorBehavior;
use crate::net::ClientId;
use crate::repl::failover::FailoverState;
use crate::repl::link::LinkState;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use crate::server::dispatch::blocked::{BlockKind, WaitEnd};
use crate::sys::log as log_sink;

/// Bytes of the stream logged when a command from the master fails.
const SHOWN_STREAM_BYTES: usize = 256;

impl Server {
    /// Whether this server is a replica.
    pub(crate) fn is_replica(&self) -> bool {
        self.repl.is_replica()
    }

    /// Takes the role the configuration asks for; before anything is loaded.
    pub(crate) fn start_as_configured(&mut self) {
        if let Some(address) = self.cfg.replicaof.clone() {
            self.begin_as_replica_of(address);
        }
        self.show_role();
    }

    /// Takes the role of a replica of that server; before anything is loaded.
    pub(crate) fn start_as_replica_of(&mut self, host: String, port: u16) {
        self.begin_as_replica_of((host, port));
        self.show_role();
    }

    /// The first attempt to reach the master is made as soon as the dataset is loaded.
    fn begin_as_replica_of(&mut self, address: (String, u16)) {
        self.repl.master.address = Some(address);
        self.repl.master.state = LinkState::Connect;
        self.repl.master.retry_at_ms = Some(self.clock.ms());
    }

    /// The role as log lines, `replicaof` and the out-of-memory score show it.
    pub(super) fn show_role(&mut self) {
        self.show_log_role();
        self.cfg.replicaof.clone_from(&self.repl.master.address);
        // A score that cannot be set is in the log.
        let _ = self.apply_oom_score();
    }

    pub(super) fn show_log_role(&self) {
        log_sink::set_role(if self.repl.is_replica() { log_sink::Role::Replica } else { log_sink::Role::Primary });
    }

    /// Looks at the reply to a command that came over a link between servers: nobody reads it there.
    pub(crate) fn check_link_reply(&mut self, id: ClientId, was_replica: bool, reply: &[u8]) {
        let Some(c) = self.clients.get(id) else { return };
        if reply.is_empty() {
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

    pub(crate) fn has_replicas(&self) -> bool {
        !self.repl.replicas.is_empty()
    }

    /// Every replica has acknowledged all of the stream.
    pub(crate) fn replicas_caught_up(&self) -> bool {
        self.repl.all_in_sync()
    }

    /// Asks replicas for their offsets, so that a wait for them ends soon.
    pub(crate) fn ask_replicas_for_offsets(&mut self) {
        if !self.writes_paused() {
            self.ask_for_acks();
        }
    }

    /// Says which replicas have not caught up when the server ends.
    pub(crate) fn log_lagging_replicas(&self) {
        for line in self.repl.shutdown_report(self.now_s()) {
            log::info!("{line}");
        }
    }

    /// Sends replicas what can be sent without waiting.
    pub(crate) fn flush_replica_output(&mut self) {
        self.flush_replicas();
    }

    /// Bytes of the shared stream that a replica's lag holds.
    pub(crate) fn replica_output_bytes(&self, c: &Client) -> usize {
        self.repl.replica_of(c.id).map_or(0, |attached| self.repl.output_memory(attached))
    }

    /// Gives this server's history a new name, so that replicas have to start over.
    pub(crate) fn change_replication_ids(&mut self) {
        log::info!("Changing replication IDs after receiving DEBUG change-repl-id");
        self.repl.history.start_new();
    }

    /// An empty line from a replica shows that it is alive.
    pub(crate) fn note_empty_request(&mut self, id: ClientId) {
        let now_s = self.now_s();
        if let Some(attached) = self.repl.replica_of_mut(id) {
            attached.replica.ack_time_s = now_s;
        }
    }

    /// A command that another server sent (our master, a replica, the AOF) failed. Nobody reads the reply, but it hints
    /// at datasets that differ.
    pub(crate) fn note_internal_error(&mut self, id: ClientId, error: &CmdError) {
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
            && let Some(backlog) = &self.repl.backlog
            && backlog.history_len() > 0
        {
            log::info!("Latest backlog is: '{}'", backlog.latest(SHOWN_STREAM_BYTES).escape_ascii());
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

    /// A client is about to go.
    pub(crate) fn repl_before_free(&mut self, id: ClientId) {
        self.master_client_lost(id);
        self.detach_replica(id);
    }

    /// What a client that waited in vain is told, if it waited for replication. Returns whether it did.
    pub(crate) fn repl_reply_on_timeout(&mut self, id: ClientId, kind: &BlockKind) -> bool {
        let waited = matches!(kind, BlockKind::Wait { .. } | BlockKind::WaitAof { .. });
        if waited {
            self.reply_to_late_wait(id, kind);
        }
        waited
    }

    /// The periodic work; to be called at every cron run.
    pub(crate) fn repl_cron(&mut self) {
        // A change of roles is pursued faster.
        let period_ms = if self.repl.failover.state() == FailoverState::None { 1000 } else { 100 };
        if self.is_loading() || !self.every_ms(period_ms) {
            return;
        }
        self.cron_towards_master();
        self.cron_towards_replicas();
    }

    /// Releases all clients that wait for something only a primary has.
    pub(super) fn disconnect_blocked_clients(&mut self) {
        const GONE: CmdError = CmdError::of(
            "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        );
        for id in self.blocked.clients.clone() {
            self.reply_error_to(id, &GONE);
            self.unblock(id, WaitEnd::Failed);
            if let Some(c) = self.clients.get_mut(id) {
                c.flags.add(ClientFlags::CLOSE_AFTER_REPLY);
            }
        }
    }
}
