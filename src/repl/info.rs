//! What others are shown of replication: INFO, ROLE, the cluster, memory reports and what a shutdown logs.

use super::Repl;
use super::backlog::{Backlog, BacklogMemory};
use super::history::History;
use super::link::LinkState;
use super::primary::{Replica, ReplicaState};
use crate::net::ClientId;

/// What ROLE shows.
pub(crate) enum RoleView<'a> {
    /// Where the master is, how far the link has come, and the offset processed; -1 while the stream is not followed.
    Replica { host: &'a str, port: u16, state: &'static str, applied: i64 },
    /// The offset, and of every replica that is online its address, port and the offset it has acknowledged.
    Primary { offset: i64, replicas: Vec<(String, i64, i64)> },
}

/// Which replica a master that is about to end can tell to take over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Heir {
    /// This cluster node: it has everything.
    Ready(Vec<u8>),
    /// None has everything yet.
    Behind,
    /// There is none.
    Missing,
    /// There are replicas which would not understand it.
    Unaware,
}

/// The link to our master, for INFO and those who watch.
#[derive(Debug)]
pub(crate) struct MasterView {
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The name of how far the link has come, as in ROLE.
    pub(crate) state: &'static str,
    pub(crate) is_up: bool,
    /// Seconds since the master was last heard of; -1 while the link is down.
    pub(crate) last_io_s: i64,
    /// Offsets of its stream: read, and processed.
    pub(crate) read: i64,
    pub(crate) applied: i64,
    pub(crate) transfer: Option<TransferView>,
    /// Seconds the link has been down; -1 if it never was up.
    pub(crate) down_s: i64,
}

/// A data set that is being received from the master.
#[derive(Debug)]
pub(crate) struct TransferView {
    pub(crate) read: i64,
    /// 0: not known; -1: not known yet.
    pub(crate) expected: i64,
    /// Seconds since something came.
    pub(crate) last_io_s: i64,
}

/// A replica, for INFO and those who watch.
#[derive(Debug)]
pub(crate) struct ReplicaView {
    pub(crate) ip: String,
    pub(crate) port: i64,
    pub(crate) state: ReplicaState,
    /// The version of Hexad that it runs, if it says so.
    pub(crate) version: Option<String>,
    /// The offset it has acknowledged, and seconds since it did so.
    pub(crate) offset: i64,
    pub(crate) lag_s: i64,
    /// Seconds since it asked for synchronization.
    pub(crate) attached_s: i64,
}

impl Repl {
    /// See [`RoleView`].
    pub(crate) fn role(&self) -> RoleView<'_> {
        if let Some((host, port)) = &self.master.address {
            let applied = self.master.online().map_or(-1, |online| online.applied);
            return RoleView::Replica { host, port: *port, state: self.master.state.name(), applied };
        }
        let online = self.replicas.iter().filter(|attached| attached.replica.state == ReplicaState::Online);
        let shown = online.filter_map(|attached| {
            let replica = &attached.replica;
            Some((attached.ip()?, replica.announced.listening_port, replica.ack_offset))
        });
        RoleView::Primary { offset: self.history.offset, replicas: shown.collect() }
    }

    /// Host and port of the master; `None` when this server is a primary.
    pub(crate) fn master_address(&self) -> Option<&(String, u16)> {
        self.master.address.as_ref()
    }

    /// Whether this server is a replica whose data may be stale: it does not follow its master's stream.
    pub(crate) fn may_be_stale(&self) -> bool {
        self.is_replica() && !matches!(self.master.state, LinkState::Connected(_))
    }

    /// Offset of the newest byte of the stream.
    pub(crate) fn offset(&self) -> i64 {
        self.history.offset
    }

    /// Offset of the stream this server has processed as a replica; 0 when it is none.
    pub(crate) fn replica_offset(&self) -> i64 {
        if self.is_replica() { self.master.applied_offset().unwrap_or(0).max(0) } else { 0 }
    }

    /// Whether this server has all that its master wrote up to an offset, and goes on from there.
    pub(crate) fn follows_stream(&self) -> bool {
        self.master.online().is_some()
    }

    /// The id of the stream that the offset is one of, for a replica that of its master's; `None` if what was processed of
    /// it is not known.
    pub(crate) fn stream_id(&self) -> Option<[u8; 40]> {
        let is_known = !self.is_replica() || self.master.applied_offset().is_some();
        is_known.then(|| self.history.id.as_bytes().try_into().expect("forty digits"))
    }

    /// For a replica: how long ago its master was last heard of, or the link to it was lost, in seconds.
    pub(crate) fn data_age_s(&self, now_s: i64) -> i64 {
        let master = &self.master;
        // A link that was lost is noticed later than it was last heard on.
        let lost_s = if master.down_since_s == 0 { 0 } else { master.down_since_s.min(master.heard_s) };
        (now_s - master.online().map_or(lost_s, |online| online.last_io_s)).max(0)
    }

    /// How many replicas are attached.
    pub(crate) fn replica_count(&self) -> usize {
        self.replicas.len()
    }

    /// Counters of INFO.
    pub(crate) fn stats(&self) -> super::ReplStats {
        self.stats
    }

    /// Sets them to 0.
    pub(crate) fn reset_stats(&mut self) {
        self.stats = super::ReplStats::default();
    }

    /// Memory a replica's lag keeps, in bytes; 0 for other clients.
    pub(crate) fn output_memory(&self, client: ClientId) -> usize {
        let cursor = self.attached(client).and_then(|attached| attached.replica.cursor);
        match (&self.backlog, cursor) {
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

    /// Whether all replicas have everything, so that a shutdown loses nothing.
    pub(crate) fn all_in_sync(&self) -> bool {
        self.records().all(|replica| replica.ack_offset >= self.newest_content())
    }

    /// Which replica can be told to take over, as `rank` says how fit a node is: the less the better.
    pub(crate) fn heir(&self, rank: impl Fn(&[u8]) -> Option<u32>) -> Heir {
        // Who waits for a snapshot reads it later, with the rest of the stream.
        let reads_it = |replica: &&Replica| !replica.announced.rdb_only;
        if self.records().filter(reads_it).any(|replica| replica.announced.node_id.is_none()) {
            return Heir::Unaware;
        }
        let fit = self
            .records()
            .filter_map(|replica| {
                let id = replica.announced.node_id.as_deref()?;
                let has_all = replica.ack_offset >= self.newest_content();
                Some((rank(id)?, id, replica.state == ReplicaState::Online && has_all))
            })
            .collect::<Vec<_>>();
        let ready = fit.iter().filter(|(.., is_ready)| *is_ready).min();
        match ready {
            Some((_, id, _)) => Heir::Ready(id.to_vec()),
            None if fit.is_empty() => Heir::Missing,
            None => Heir::Behind,
        }
    }

    /// The lines a shutdown logs about replicas, in order.
    pub(crate) fn shutdown_report(&self, now_s: i64) -> Vec<String> {
        let mut lines = Vec::new();
        let mut lagging = 0;
        for attached in &self.replicas {
            let replica = &attached.replica;
            if replica.ack_offset < self.newest_content() {
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

    /// The link to the master; `None` when this server is a primary.
    pub(crate) fn master_view(&self, now_s: i64) -> Option<MasterView> {
        self.master.view(now_s)
    }

    /// The replicas, in the order they came; without those that wanted a snapshot alone, or whose address is not known.
    pub(crate) fn replica_views(&self, now_s: i64) -> impl Iterator<Item = ReplicaView> {
        let shown = self.replicas.iter().filter_map(|attached| Some((attached.ip()?, &attached.replica)));
        shown.filter(|(_, replica)| replica.state != ReplicaState::RdbTransmitted).map(move |(ip, replica)| {
            ReplicaView {
                ip,
                port: replica.announced.listening_port,
                state: replica.state,
                version: replica.announced.version.clone(),
                offset: replica.ack_offset,
                lag_s: replica.lag_s(now_s),
                attached_s: now_s - replica.waiting_since_s,
            }
        })
    }

    /// Replicas that count for `min-replicas-to-write`.
    pub(crate) fn good_replicas(&self) -> usize {
        self.good_replicas
    }

    /// The name of the state of a planned change of roles.
    pub(crate) fn failover_state(&self) -> &'static str {
        self.failover.state().name()
    }

    /// The stream, and the one before it with where that ended.
    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// Offset of the first byte of the backlog and how many it holds; `None` while there is no backlog.
    pub(crate) fn backlog_range(&self) -> Option<(i64, u64)> {
        self.backlog.as_ref().map(|backlog| (backlog.first_offset(), backlog.history_len()))
    }
}
