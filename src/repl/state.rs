//! The replication room's state: the history, the shared buffer, the attached replicas, and the link to a master.
//!
//! Invariants: while there is a backlog it ends where the history does; attached replicas imply a backlog; a cursor
//! belongs to exactly one attached replica. What moves between these states and sockets is in `serve` (towards replicas)
//! and `follow` (towards the master).

use super::backlog::{Backlog, BacklogMemory, TRIM_BLOCKS_PER_CRON};
use super::failover::Failover;
use super::history::History;
use super::link::MasterLink;
use super::primary::{self, Announcement, Replica, ReplicaState};
use super::snapshot::{SnapshotFile, SnapshotPipe};
use crate::net::ClientId;
use std::fmt::Write as _;

/// A replica and the client it came as.
#[derive(Debug)]
pub(crate) struct Attached {
    /// The client.
    pub(crate) client: ClientId,
    /// The client's number, for logs.
    pub(crate) number: u64,
    /// Address of the connection.
    pub(crate) peer_ip: Option<String>,
    /// What is known about the replica.
    pub(crate) replica: Replica,
    /// The snapshot file being sent.
    pub(crate) file: Option<SnapshotFile>,
    /// Its socket takes nothing more: wait until it says so.
    pub(crate) stalled: bool,
}

impl Attached {
    /// How logs call it.
    pub(crate) fn name(&self) -> String {
        self.replica.announced.name(self.peer_ip.as_deref(), self.number)
    }

    /// The address INFO and ROLE show.
    pub(crate) fn ip(&self) -> Option<String> {
        match &self.replica.announced.ip {
            Some(ip) => Some(String::from_utf8_lossy(ip).into_owned()),
            None => self.peer_ip.clone(),
        }
    }
}

/// Counters INFO reports.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReplStats {
    /// Full synchronizations asked for.
    pub(crate) sync_full: u64,
    /// Partial ones served.
    pub(crate) sync_partial_ok: u64,
    /// Partial ones asked for and refused.
    pub(crate) sync_partial_err: u64,
}

/// The room's state.
#[derive(Debug)]
pub(crate) struct Repl {
    /// Ids and offsets.
    pub(crate) history: History,
    /// The stream; `None` until someone needs it.
    pub(crate) backlog: Option<Backlog>,
    /// Database the stream has selected; `None`: the next command is to select one.
    pub(crate) stream_db: Option<usize>,
    /// Attached replicas, in the order they came.
    pub(crate) replicas: Vec<Attached>,
    /// What clients announced with REPLCONF and have not used yet.
    pub(crate) announced: Vec<(ClientId, Announcement)>,
    /// Since when there are no replicas, in Unix seconds.
    pub(crate) no_replicas_since_s: i64,
    /// Replicas that count for `min-replicas-to-write`.
    pub(crate) good_replicas: usize,
    /// The stream has grown by a block since replicas' limits were last looked at.
    output_grew: bool,
    /// Clients in WAIT and WAITAOF, and some that no longer are.
    pub(crate) waiters: Vec<ClientId>,
    /// Ask all replicas for an acknowledgement before the loop sleeps.
    pub(crate) want_acks: bool,
    /// The dump file was written only for replicas, and is to be removed when they have it.
    pub(crate) dump_is_for_replicas: bool,
    /// How often the periodic work ran.
    pub(crate) cron_loops: u64,
    /// The snapshot being streamed to replicas.
    pub(crate) pipe: Option<SnapshotPipe>,
    /// The link to our master.
    pub(crate) master: MasterLink,
    /// The planned change of roles.
    pub(crate) failover: Failover,
    /// Counters.
    pub(crate) stats: ReplStats,
}

/// What INFO's replication section needs from elsewhere.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InfoContext {
    /// Unix time in seconds.
    pub(crate) now_s: i64,
    /// `replica-priority`.
    pub(crate) priority: i64,
    /// `replica-read-only`.
    pub(crate) read_only: bool,
    /// `replica-announced`.
    pub(crate) announced: bool,
    /// `min-replicas-to-write` and `min-replicas-max-lag` are both in use.
    pub(crate) counts_good: bool,
    /// `repl-backlog-size` in bytes.
    pub(crate) backlog_size: u64,
}

impl Repl {
    /// A server that starts as a primary without replicas.
    pub(crate) fn new(now_s: i64) -> Self {
        Repl {
            history: History::new(),
            backlog: None,
            stream_db: None,
            replicas: Vec::new(),
            announced: Vec::new(),
            no_replicas_since_s: now_s,
            good_replicas: 0,
            output_grew: false,
            waiters: Vec::new(),
            want_acks: false,
            dump_is_for_replicas: false,
            // The run at number 0 would be before any replica can be there.
            cron_loops: 1,
            pipe: None,
            master: MasterLink::default(),
            failover: Failover::default(),
            stats: ReplStats::default(),
        }
    }

    /// Whether this server is a replica.
    pub(crate) fn is_replica(&self) -> bool {
        self.master.address.is_some()
    }

    /// Whether a command that changed something has to be turned into stream bytes.
    pub(crate) fn takes_stream(&self) -> bool {
        self.backlog.is_some() && !self.is_replica()
    }

    /// The attached replica of this client.
    pub(crate) fn replica_of(&self, client: ClientId) -> Option<&Attached> {
        self.replicas.iter().find(|attached| attached.client == client)
    }

    /// See [`replica_of`](Self::replica_of).
    pub(crate) fn replica_of_mut(&mut self, client: ClientId) -> Option<&mut Attached> {
        self.replicas.iter_mut().find(|attached| attached.client == client)
    }

    /// The records of all replicas.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().map(|attached| &attached.replica)
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
    pub(crate) fn take_announcement(&mut self, client: ClientId) -> Announcement {
        match self.announced.iter().position(|(id, _)| *id == client) {
            Some(at) => self.announced.swap_remove(at).1,
            None => Announcement::default(),
        }
    }

    /// Starts keeping a backlog of `size` bytes.
    pub(crate) fn create_backlog(&mut self, size: usize) {
        assert!(self.backlog.is_none(), "there is one already");
        self.backlog = Some(Backlog::new(size, self.history.offset + 1));
    }

    /// Gives the backlog up; the caller may free it elsewhere.
    pub(crate) fn take_backlog(&mut self) -> Option<Backlog> {
        assert!(self.replicas.is_empty(), "replicas read from the backlog");
        self.backlog.take()
    }

    /// Adds a command to the stream as a primary; `db` is `None` for commands that concern no database. Does nothing on
    /// a replica: it hands its master's stream on unchanged.
    pub(crate) fn feed(&mut self, db: Option<usize>, command: &[u8]) {
        if self.is_replica() {
            return;
        }
        if self.backlog.is_none() {
            // Nothing keeps the bytes, but the offset moves on: it also tells which writes are on disk.
            self.history.offset += 1;
            return;
        }
        if let Some(db) = db
            && self.stream_db != Some(db)
        {
            let digits = db.to_string();
            self.append(&super::handshake::command(&[b"SELECT", digits.as_bytes()]));
            self.stream_db = Some(db);
        }
        self.append(command);
    }

    /// Adds bytes to the stream as they are.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        if let Some(backlog) = &mut self.backlog {
            self.output_grew |= backlog.append(bytes) > 0;
            self.history.offset += bytes.len() as i64;
            debug_assert_eq!(backlog.end_offset(), self.history.offset + 1);
        }
    }

    /// Whether the stream has grown by a block since the last call.
    pub(crate) fn take_output_grew(&mut self) -> bool {
        std::mem::take(&mut self.output_grew)
    }

    /// Whether a replica has bytes waiting that may be written.
    pub(crate) fn has_output(&self, attached: &Attached) -> bool {
        match (&self.backlog, attached.replica.cursor) {
            (Some(backlog), Some(cursor)) => attached.replica.may_stream() && backlog.pending(cursor) > 0,
            _ => false,
        }
    }

    /// Memory a replica's lag keeps, in bytes.
    pub(crate) fn output_memory(&self, attached: &Attached) -> usize {
        match (&self.backlog, attached.replica.cursor) {
            (Some(backlog), Some(cursor)) => backlog.held_by(cursor),
            _ => 0,
        }
    }

    /// Memory figures of the shared buffer.
    pub(crate) fn memory(&self) -> BacklogMemory {
        self.backlog.as_ref().map_or_else(BacklogMemory::default, |backlog| backlog.memory(!self.replicas.is_empty()))
    }

    /// Memory of the shared buffer that eviction does not count, since it goes by itself.
    pub(crate) fn memory_not_counted(&self) -> usize {
        self.backlog.as_ref().map_or(0, Backlog::memory_beyond_size)
    }

    /// Gives history back that is no longer needed.
    pub(crate) fn trim(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.trim(TRIM_BLOCKS_PER_CRON);
        }
    }

    /// Counts the good replicas anew; 0 as limit for the lag means nobody cares.
    pub(crate) fn refresh_good_replicas(&mut self, max_lag_s: i64, now_s: i64) {
        self.good_replicas = primary::good_replicas(self.records(), max_lag_s, now_s);
    }

    /// Whether all replicas have everything, so that a shutdown loses nothing.
    pub(crate) fn all_in_sync(&self) -> bool {
        self.records().all(|replica| replica.ack_offset == self.history.offset)
    }

    /// The lines a shutdown logs about replicas, in order.
    pub(crate) fn shutdown_report(&self, now_s: i64) -> Vec<String> {
        let mut lines = Vec::new();
        let mut lagging = 0;
        for attached in &self.replicas {
            let replica = &attached.replica;
            if replica.ack_offset != self.history.offset {
                lagging += 1;
                lines.push(format!(
                    "Lagging replica {} reported offset {} behind master, lag={}, state={}.",
                    attached.name(),
                    self.history.offset - replica.ack_offset,
                    replica.lag_s(now_s),
                    replica.state.name()
                ));
            }
        }
        let count = self.replicas.len();
        if count > 0 {
            lines.push(format!("{} of {count} replicas are in sync when shutting down.", count - lagging));
        }
        lines
    }

    /// INFO's replication section, without its title.
    pub(crate) fn info(&self, context: InfoContext) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "role:{}\r", if self.is_replica() { "slave" } else { "master" });
        if self.is_replica() {
            self.master.info(&mut out, context.now_s);
            let _ = writeln!(
                out,
                "slave_priority:{}\r\nslave_read_only:{}\r\nreplica_announced:{}\r",
                context.priority,
                u8::from(context.read_only),
                u8::from(context.announced)
            );
        }
        let _ = writeln!(out, "connected_slaves:{}\r", self.replicas.len());
        if context.counts_good {
            let _ = writeln!(out, "min_slaves_good_slaves:{}\r", self.good_replicas);
        }
        let shown = self.replicas.iter().filter_map(|attached| Some((attached.ip()?, &attached.replica)));
        for (i, (ip, replica)) in shown.filter(|(_, r)| r.state != ReplicaState::RdbTransmitted).enumerate() {
            let _ = writeln!(
                out,
                "slave{i}:ip={ip},port={},state={},offset={},lag={}\r",
                replica.announced.listening_port,
                replica.state.name(),
                replica.ack_offset,
                replica.lag_s(context.now_s)
            );
        }
        let (first, held) = match &self.backlog {
            Some(backlog) => (backlog.first_offset(), backlog.history_len()),
            None => (0, 0),
        };
        let _ = writeln!(
            out,
            "master_failover_state:{}\r\nmaster_replid:{}\r\nmaster_replid2:{}\r\nmaster_repl_offset:{}\r\n\
             second_repl_offset:{}\r\nrepl_backlog_active:{}\r\nrepl_backlog_size:{}\r\n\
             repl_backlog_first_byte_offset:{first}\r\nrepl_backlog_histlen:{held}\r",
            self.failover.state().name(),
            self.history.id,
            self.history.second_id,
            self.history.offset,
            self.history.second_offset,
            u8::from(self.backlog.is_some()),
            context.backlog_size,
        );
        out
    }
}
