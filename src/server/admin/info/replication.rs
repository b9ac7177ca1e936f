//! INFO replication.

use super::Facts;
use super::row::{Figure, Sampled, field, lines, samples, value};
use crate::admin::figure::Value;
use crate::repl::{MasterView, ReplicaView};

pub(super) static ROWS: &[Figure] = &[
    field("role", |f| if f.srv.repl.is_replica() { "slave".into() } else { "master".into() }),
    field("master_host", |f| of_link(f, |m| m.host.clone().into())),
    field("master_port", |f| of_link(f, |m| m.port.into())),
    field("master_link_status", |f| of_link(f, |m| if m.is_up { "up".into() } else { "down".into() })),
    field("master_last_io_seconds_ago", |f| of_link(f, |m| m.last_io_s.into())),
    field("master_sync_in_progress", |f| of_link(f, |m| m.transfer.is_some().into())),
    field("slave_read_repl_offset", |f| of_link(f, |m| m.read.into())),
    field("slave_repl_offset", |f| of_link(f, |m| m.applied.into())),
    samples(|f, sample| with_link(f, sample, |m| f64::from(u8::from(m.is_up))))
        .gauge("redis_master_link_up", "Whether this replica follows its master's stream."),
    samples(|f, sample| with_link(f, sample, |m| m.last_io_s as f64))
        .gauge("redis_master_last_io_seconds_ago", "Time since the master was last heard of; -1: the link is down."),
    samples(|f, sample| with_link(f, sample, |m| f64::from(u8::from(m.transfer.is_some()))))
        .gauge("redis_master_sync_in_progress", "Whether a data set is being received from the master."),
    samples(|f, sample| with_link(f, sample, |m| m.applied as f64))
        .gauge("redis_slave_repl_offset", "How much of its master's stream this replica has processed."),
    samples(|f, sample| {
        let Some(m) = f.master() else { return };
        let (port, read_only) = (m.port.to_string(), if f.srv.cfg.replica_read_only { "1" } else { "0" });
        sample(&[("master_host", &m.host), ("master_port", &port), ("read_only", read_only)], 1.0);
    })
    .gauge("redis_slave_info", "Whom this replica follows."),
    value(|f| of_link(f, |m| (m.read - m.applied).max(0).into()))
        .gauge("hexad_replica_unprocessed_bytes", "What this replica has read of the stream and not processed."),
    value(|f| if f.srv.repl.is_replica() { f.srv.repl.data_age_s(f.now_s).into() } else { Value::Absent })
        .gauge("hexad_replica_data_age_seconds", "Time since this replica's master was last heard of, link or not."),
    field("master_sync_total_bytes", |f| of_link(f, |m| of_transfer(m, |t| t.expected))),
    field("master_sync_read_bytes", |f| of_link(f, |m| of_transfer(m, |t| t.read)))
        .gauge("hexad_master_sync_read_bytes", "How much of its master's data set this replica has received."),
    field("master_sync_left_bytes", |f| of_link(f, |m| of_transfer(m, |t| t.expected - t.read))),
    field("master_sync_perc", |f| {
        of_link(f, |m| {
            m.transfer.as_ref().map_or(Value::Absent, |t| {
                Value::Decimal(if t.expected != 0 { t.read as f64 / t.expected as f64 * 100.0 } else { 0.0 })
            })
        })
    }),
    field("master_sync_last_io_seconds_ago", |f| of_link(f, |m| of_transfer(m, |t| t.last_io_s))),
    field("master_link_down_since_seconds", |f| of_link(f, |m| Value::from(m.down_s).only_if(!m.is_up)))
        .gauge("hexad_master_link_down_seconds", "How long the link to the master has been down; -1: it never was up."),
    field("slave_priority", |f| of_replica(f, f.srv.cfg.replica_priority.into()))
        .gauge("redis_slave_priority", "The lower, the sooner Sentinel promotes it; 0: never."),
    field("slave_read_only", |f| of_replica(f, f.srv.cfg.replica_read_only.into())),
    field("replica_announced", |f| of_replica(f, f.srv.cfg.replica_announced.into())),
    field("connected_slaves", |f| f.srv.repl.replica_count().into())
        .gauge("redis_connected_slaves", "Replicas that are attached."),
    field("min_slaves_good_slaves", |f| {
        let is_asked = f.srv.cfg.min_replicas_to_write > 0 && f.srv.cfg.min_replicas_max_lag > 0;
        Value::from(f.srv.repl.good_replicas()).only_if(is_asked)
    })
    .gauge("hexad_good_replicas", "Replicas that count for min-replicas-to-write."),
    lines(|f, line| {
        for (i, r) in f.srv.repl.replica_views(f.now_s).enumerate() {
            let text = format_args!(
                "ip={},port={},state={},offset={},lag={}",
                r.ip,
                r.port,
                r.state.name(),
                r.offset,
                r.lag_s
            );
            line(&format!("slave{i}"), Value::text(text));
        }
    }),
    samples(|f, sample| with_replicas(f, sample, |_, r| r.offset as f64))
        .gauge("redis_connected_slave_offset_bytes", "The offset that a replica has acknowledged."),
    samples(|f, sample| with_replicas(f, sample, |_, r| r.lag_s as f64))
        .gauge("redis_connected_slave_lag_seconds", "Time since a replica last acknowledged what it has."),
    samples(|f, sample| with_replicas(f, sample, |f, r| (f.srv.repl.offset() - r.offset).max(0) as f64))
        .gauge("hexad_connected_replica_lag_bytes", "How much of the stream a replica has not acknowledged."),
    field("master_failover_state", |f| f.srv.repl.failover_state().into()),
    field("master_replid", |f| Value::text(f.srv.repl.history().id)),
    field("master_replid2", |f| Value::text(f.srv.repl.history().second_id)),
    field("master_repl_offset", |f| f.srv.repl.history().offset.into())
        .gauge("redis_master_repl_offset", "The offset of the newest byte of the stream."),
    field("second_repl_offset", |f| f.srv.repl.history().second_offset.into())
        .gauge("redis_second_repl_offset", "Up to where replicas of the former master may go on; -1: nowhere."),
    field("repl_backlog_active", |f| f.srv.repl.backlog_range().is_some().into())
        .gauge("redis_repl_backlog_is_active", "Whether there is a backlog."),
    field("repl_backlog_size", |f| f.srv.cfg.repl_backlog_size.into())
        .gauge("redis_replication_backlog_bytes", "How much of the stream is kept for replicas that come back."),
    field("repl_backlog_first_byte_offset", |f| f.srv.repl.backlog_range().map_or(0, |(first, _)| first).into())
        .gauge("redis_repl_backlog_first_byte_offset", "The offset of the first byte of the backlog."),
    field("repl_backlog_histlen", |f| f.srv.repl.backlog_range().map_or(0, |(_, len)| len).into())
        .gauge("redis_repl_backlog_history_bytes", "How much the backlog holds."),
];

fn of_link(f: &Facts<'_>, value: fn(&MasterView) -> Value) -> Value {
    f.master().map_or(Value::Absent, value)
}

fn of_transfer(m: &MasterView, value: fn(&crate::repl::TransferView) -> i64) -> Value {
    m.transfer.as_ref().map_or(Value::Absent, |transfer| value(transfer).into())
}

fn of_replica(f: &Facts<'_>, value: Value) -> Value {
    value.only_if(f.srv.repl.is_replica())
}

/// A sample with the address of the master, if this is a replica.
fn with_link(f: &Facts<'_>, sample: &mut Sampled<'_>, value: fn(&MasterView) -> f64) {
    if let Some(m) = f.master() {
        sample(&[("master_host", &m.host), ("master_port", &m.port.to_string())], value(m));
    }
}

fn with_replicas(f: &Facts<'_>, sample: &mut Sampled<'_>, value: fn(&Facts<'_>, &ReplicaView) -> f64) {
    for r in f.srv.repl.replica_views(f.now_s) {
        let labels = [("slave_ip", &*r.ip), ("slave_port", &*r.port.to_string()), ("slave_state", r.state.name())];
        sample(&labels, value(f, &r));
    }
}
