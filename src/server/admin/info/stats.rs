//! INFO stats.

use super::Facts;
use super::commands::histogram;
use super::row::{Figure, distributions, field, value};
use crate::admin::figure::Value;
use crate::admin::metrics::Rate;
use crate::pubsub::Kind;

pub(super) static ROWS: &[Figure] = &[
    field("total_connections_received", |f| f.srv.stats.connections_received.into())
        .counter("redis_connections_received_total", "Connections that were accepted."),
    field("total_commands_processed", |f| f.srv.stats.commands_processed.into())
        .counter("redis_commands_processed_total", "Commands that were run."),
    field("instantaneous_ops_per_sec", |f| f.srv.admin.metrics.rate(Rate::Commands).into())
        .gauge("hexad_instantaneous_ops_per_sec", "Commands a second, of late."),
    field("total_net_input_bytes", |f| (f.srv.stats.net_input_bytes + f.srv.stats.net_repl_input_bytes).into())
        .counter("redis_net_input_bytes_total", "Bytes received, the replication stream included."),
    field("total_net_output_bytes", |f| (f.srv.stats.net_output_bytes + f.srv.stats.net_repl_output_bytes).into())
        .counter("redis_net_output_bytes_total", "Bytes sent, the replication stream included."),
    field("total_net_repl_input_bytes", |f| f.srv.stats.net_repl_input_bytes.into())
        .counter("redis_net_repl_input_bytes_total", "Bytes received from the master."),
    field("total_net_repl_output_bytes", |f| f.srv.stats.net_repl_output_bytes.into())
        .counter("redis_net_repl_output_bytes_total", "Bytes sent to replicas."),
    field("instantaneous_input_kbps", |f| kilobytes(f, Rate::NetInput)),
    field("instantaneous_output_kbps", |f| kilobytes(f, Rate::NetOutput)),
    field("instantaneous_input_repl_kbps", |f| kilobytes(f, Rate::ReplInput)),
    field("instantaneous_output_repl_kbps", |f| kilobytes(f, Rate::ReplOutput)),
    field("rejected_connections", |f| f.srv.stats.rejected_connections.into())
        .counter("redis_rejected_connections_total", "Connections that were refused, as there were too many."),
    field("sync_full", |f| f.srv.repl.stats().sync_full.into())
        .gauge("redis_replica_resyncs_full", "Full synchronizations of replicas."),
    field("sync_partial_ok", |f| f.srv.repl.stats().sync_partial_ok.into())
        .gauge("redis_replica_partial_resync_accepted", "Replicas that went on where they were."),
    field("sync_partial_err", |f| f.srv.repl.stats().sync_partial_err.into())
        .gauge("redis_replica_partial_resync_denied", "Replicas that wanted to go on where they were and could not."),
    field("expired_keys", |f| f.srv.ks.stats.expired.into()).counter("redis_expired_keys_total", "Keys that expired."),
    field("expired_stale_perc", |f| Value::Decimal(f.srv.ks.stats.expired_stale_perc))
        .gauge("redis_expired_stale_percentage", "About how many of the keys with a time to live have expired."),
    field("expired_time_cap_reached_count", |f| f.srv.ks.stats.expired_time_cap_reached.into())
        .counter("redis_expired_time_cap_reached_total", "Searches for expired keys that ran out of time."),
    field("expire_cycle_cpu_milliseconds", |f| (f.srv.ks.stats.expire_cycle_cpu_us / 1000).into())
        .counter("redis_expire_cycle_cpu_time_ms_total", "Time spent on the search for expired keys."),
    field("evicted_keys", |f| f.srv.ks.stats.evicted.into())
        .counter("redis_evicted_keys_total", "Keys that were evicted for want of memory."),
    field("evicted_clients", |f| f.srv.stats.evicted_clients.into())
        .counter("redis_evicted_clients_total", "Clients that were closed for want of memory."),
    field("total_eviction_exceeded_time", |f| (f.srv.ks.eviction.exceeded_us().0 / 1000).into())
        .counter("redis_eviction_exceeded_time_ms_total", "For how long memory was above its limit."),
    field("current_eviction_exceeded_time", |f| (f.srv.ks.eviction.exceeded_us().1 / 1000).into())
        .gauge("redis_current_eviction_exceeded_time_ms", "For how long memory has been above its limit now."),
    field("keyspace_hits", |f| f.srv.ks.stats.hits.into())
        .counter("redis_keyspace_hits_total", "Look-ups that found a key."),
    field("keyspace_misses", |f| f.srv.ks.stats.misses.into())
        .counter("redis_keyspace_misses_total", "Look-ups that found none."),
    field("pubsub_channels", |f| f.srv.pubsub.listeners(Kind::Channel).len().into())
        .gauge("redis_pubsub_channels", "Channels with subscribers."),
    field("pubsub_patterns", |f| f.srv.pubsub.listeners(Kind::Pattern).len().into())
        .gauge("redis_pubsub_patterns", "Patterns with subscribers."),
    field("pubsubshard_channels", |f| f.srv.pubsub.listeners(Kind::Shard).len().into())
        .gauge("redis_pubsubshard_channels", "Sharded channels with subscribers."),
    field("latest_fork_usec", |f| f.srv.persist.child_stats.latest_fork_us.into())
        .gauge("redis_latest_fork_seconds", "How long the last fork took.")
        .in_units_of(1e-6),
    field("total_forks", |f| f.srv.persist.child_stats.total_forks.into())
        .counter("hexad_forks_total", "Children that were forked."),
    field("migrate_cached_sockets", |f| f.srv.moving.len().into())
        .gauge("redis_migrate_cached_sockets_total", "Connections that MIGRATE keeps."),
    field("slave_expires_tracked_keys", |f| f.srv.ks.expiry.own_of_replica.len().into())
        .gauge("redis_slave_expires_tracked_keys", "Keys with a time to live that a writable replica has of its own."),
    field("active_defrag_hits", |_| 0u8.into()).gauge("redis_defrag_hits", DEFRAG),
    field("active_defrag_misses", |_| 0u8.into()).gauge("redis_defrag_misses", DEFRAG),
    field("active_defrag_key_hits", |_| 0u8.into()).gauge("redis_defrag_key_hits", DEFRAG),
    field("active_defrag_key_misses", |_| 0u8.into()).gauge("redis_defrag_key_misses", DEFRAG),
    field("total_active_defrag_time", |_| 0u8.into()),
    field("current_active_defrag_time", |_| 0u8.into()),
    field("tracking_total_keys", |f| f.srv.tracking.total_keys().into())
        .gauge("redis_tracking_total_keys", "Keys that clients have cached."),
    field("tracking_total_items", |f| f.srv.tracking.total_items().into())
        .gauge("redis_tracking_total_items", "Keys that clients have cached, counted for each client."),
    field("tracking_total_prefixes", |f| f.srv.tracking.total_prefixes().into())
        .gauge("redis_tracking_total_prefixes", "Prefixes whose changes clients are told of."),
    field("unexpected_error_replies", |f| f.srv.stats.unexpected_error_replies.into())
        .counter("redis_unexpected_error_replies", "Errors where none are expected: from the master or the log."),
    field("total_error_replies", |f| f.srv.stats.total_error_replies.into())
        .counter("redis_total_error_replies", "Error replies."),
    field("dump_payload_sanitizations", |f| f.srv.stats.dump_payload_sanitizations.into())
        .counter("redis_dump_payload_sanitizations", "Values of RESTORE that were examined through and through."),
    field("total_reads_processed", |f| f.srv.stats.reads_processed.into())
        .counter("redis_total_reads_processed", "Reads from clients."),
    field("total_writes_processed", |f| f.srv.stats.writes_processed.into())
        .counter("redis_total_writes_processed", "Writes to clients."),
    field("io_threaded_reads_processed", |f| f.srv.io.reads.into())
        .counter("redis_io_threaded_reads_processed", "Reads by I/O threads."),
    field("io_threaded_writes_processed", |f| f.srv.io.writes.into())
        .counter("redis_io_threaded_writes_processed", "Writes by I/O threads."),
    value(|f| f.srv.stats.client_query_buffer_limit_disconnections.into())
        .counter("redis_client_query_buffer_limit_disconnections_total", "Clients closed as they sent too much."),
    value(|f| f.srv.stats.client_output_buffer_limit_disconnections.into()).counter(
        "redis_client_output_buffer_limit_disconnections_total",
        "Clients closed as their output grew too much.",
    ),
    field("reply_buffer_shrinks", |f| f.srv.stats.reply_buffer_shrinks.into())
        .counter("redis_reply_buffer_shrinks_total", "Reply buffers that were made smaller."),
    field("reply_buffer_expands", |f| f.srv.stats.reply_buffer_expands.into())
        .counter("redis_reply_buffer_expands_total", "Reply buffers that were made larger."),
    field("eventloop_cycles", |f| f.srv.admin.metrics.cycles.into())
        .counter("redis_eventloop_cycles_total", "Turns of the loop."),
    field("eventloop_duration_sum", |f| f.srv.admin.metrics.cycles_us.into())
        .counter("redis_eventloop_duration_sum_usec_total", "Time spent in turns of the loop, sleep excluded."),
    field("eventloop_duration_cmd_sum", |f| f.srv.admin.metrics.commands_us.into())
        .counter("redis_eventloop_duration_cmd_sum_usec_total", "Time spent in commands."),
    field("instantaneous_eventloop_cycles_per_sec", |f| f.srv.admin.metrics.rate(Rate::Cycles).into())
        .gauge("redis_instantaneous_eventloop_cycles_per_sec", "Turns of the loop a second, of late."),
    field("instantaneous_eventloop_duration_usec", |f| f.srv.admin.metrics.rate(Rate::CycleTime).into())
        .gauge("redis_instantaneous_eventloop_duration_usec", "How long a turn of the loop takes, of late."),
    field("loop_turn_usec_p50", |f| f.turns_us()[0].into()),
    field("loop_turn_usec_p99", |f| f.turns_us()[1].into()),
    field("loop_turn_usec_p999", |f| f.turns_us()[2].into()),
    field("loop_turn_usec_max", |f| f.srv.admin.metrics.longest_cycle_us.into())
        .gauge("hexad_loop_turn_seconds_max", "The longest turn of the loop.")
        .in_units_of(1e-6),
    distributions(|f, distribution| {
        let m = &f.srv.admin.metrics;
        histogram(&m.turns, m.cycles_us).into_iter().for_each(|counts| distribution(&[], counts));
    })
    .histogram("hexad_loop_turn_usec", "Turns of the loop by how many microseconds they took at most."),
    field("acl_access_denied_auth", |f| f.srv.stats.acl_denied_auth.into())
        .counter("redis_acl_access_denied_auth_total", "Wrong passwords."),
    field("acl_access_denied_cmd", |f| f.srv.stats.acl_denied_cmd.into())
        .counter("redis_acl_access_denied_cmd_total", "Commands that their user may not run."),
    field("acl_access_denied_key", |f| f.srv.stats.acl_denied_key.into())
        .counter("redis_acl_access_denied_key_total", "Keys that their user may not touch."),
    field("acl_access_denied_channel", |f| f.srv.stats.acl_denied_channel.into())
        .counter("redis_acl_access_denied_channel_total", "Channels that their user may not use."),
];

const DEFRAG: &str = "Defragmentation is the allocator's own.";

fn kilobytes(f: &Facts<'_>, rate: Rate) -> Value {
    Value::Decimal(f.srv.admin.metrics.rate(rate) as f64 / 1024.0)
}
