//! What others are shown of replication: INFO, ROLE, the cluster, memory reports and what a shutdown logs.

use super::Repl;
use super::backlog::{Backlog, BacklogMemory};
use super::link::LinkState;
use super::primary::ReplicaState;
use crate::config::Config;
use crate::net::ClientId;
use std::fmt::Write as _;

/// What ROLE shows.
pub(crate) enum RoleView<'a> {
    /// Where the master is, how far the link has come, and the offset processed; -1 while the stream is not followed.
    Replica { host: &'a str, port: u16, state: &'static str, applied: i64 },
    /// The offset, and of every replica that is online its address, port and the offset it has acknowledged.
    Primary { offset: i64, replicas: Vec<(String, i64, i64)> },
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
    pub(crate) fn info(&self, cfg: &Config, now_s: i64) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "role:{}\r", if self.is_replica() { "slave" } else { "master" });
        if self.is_replica() {
            self.master.info(&mut out, now_s);
            let _ = writeln!(
                out,
                "slave_priority:{}\r\nslave_read_only:{}\r\nreplica_announced:{}\r",
                cfg.replica_priority,
                u8::from(cfg.replica_read_only),
                u8::from(cfg.replica_announced)
            );
        }
        let _ = writeln!(out, "connected_slaves:{}\r", self.replicas.len());
        if cfg.min_replicas_to_write > 0 && cfg.min_replicas_max_lag > 0 {
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
                replica.lag_s(now_s)
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
            cfg.repl_backlog_size,
        );
        out
    }
}
