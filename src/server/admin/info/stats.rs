//! INFO stats.

use super::InfoText;
use crate::admin::metrics::Rate;
use crate::pubsub::Kind;
use crate::server::Server;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    let (s, m, k) = (&srv.stats, &srv.admin.metrics, &srv.ks.stats);
    out.field("total_connections_received", s.connections_received);
    out.field("total_commands_processed", s.commands_processed);
    out.field("instantaneous_ops_per_sec", m.rate(Rate::Commands));
    out.field("total_net_input_bytes", s.net_input_bytes + s.net_repl_input_bytes);
    out.field("total_net_output_bytes", s.net_output_bytes + s.net_repl_output_bytes);
    out.field("total_net_repl_input_bytes", s.net_repl_input_bytes);
    out.field("total_net_repl_output_bytes", s.net_repl_output_bytes);
    for (name, rate) in [
        ("instantaneous_input_kbps", Rate::NetInput),
        ("instantaneous_output_kbps", Rate::NetOutput),
        ("instantaneous_input_repl_kbps", Rate::ReplInput),
        ("instantaneous_output_repl_kbps", Rate::ReplOutput),
    ] {
        out.decimal(name, m.rate(rate) as f64 / 1024.0);
    }
    out.field("rejected_connections", s.rejected_connections);
    srv.info_sync_stats(out);
    out.field("expired_keys", k.expired);
    out.decimal("expired_stale_perc", k.expired_stale_perc);
    out.field("expired_time_cap_reached_count", k.expired_time_cap_reached);
    out.field("expire_cycle_cpu_milliseconds", k.expire_cycle_cpu_us / 1000);
    out.field("evicted_keys", k.evicted);
    out.field("evicted_clients", s.evicted_clients);
    srv.info_eviction_stats(out);
    out.field("keyspace_hits", k.hits);
    out.field("keyspace_misses", k.misses);
    srv.info_pubsub_stats(out);
    srv.info_fork_stats(out);
    srv.info_migration_stats(out);
    for name in [
        "active_defrag_hits",
        "active_defrag_misses",
        "active_defrag_key_hits",
        "active_defrag_key_misses",
        "total_active_defrag_time",
        "current_active_defrag_time",
    ] {
        // Defragmentation is the allocator's own.
        out.field(name, 0);
    }
    srv.info_tracking_stats(out);
    out.field("unexpected_error_replies", s.unexpected_error_replies);
    out.field("total_error_replies", s.total_error_replies);
    out.field("dump_payload_sanitizations", s.dump_payload_sanitizations);
    out.field("total_reads_processed", s.reads_processed);
    out.field("total_writes_processed", s.writes_processed);
    out.field("io_threaded_reads_processed", srv.io.reads);
    out.field("io_threaded_writes_processed", srv.io.writes);
    out.field("reply_buffer_shrinks", s.reply_buffer_shrinks);
    out.field("reply_buffer_expands", s.reply_buffer_expands);
    out.field("eventloop_cycles", m.cycles);
    out.field("eventloop_duration_sum", m.cycles_us);
    out.field("eventloop_duration_cmd_sum", m.commands_us);
    out.field("instantaneous_eventloop_cycles_per_sec", m.rate(Rate::Cycles));
    out.field("instantaneous_eventloop_duration_usec", m.rate(Rate::CycleTime));
    let turns = m.turns.percentiles(&[50.0, 99.0, 99.9]).unwrap_or(vec![0; 3]);
    for (name, ns) in ["loop_turn_usec_p50", "loop_turn_usec_p99", "loop_turn_usec_p999"].into_iter().zip(turns) {
        out.field(name, ns / 1000);
    }
    out.field("loop_turn_usec_max", m.longest_cycle_us);
    srv.info_acl_stats(out);
}

/// Figures of rooms, at the place INFO has them.
impl Server {
    // repl
    fn info_sync_stats(&self, out: &mut InfoText) {
        let stats = self.repl.stats();
        out.field("sync_full", stats.sync_full);
        out.field("sync_partial_ok", stats.sync_partial_ok);
        out.field("sync_partial_err", stats.sync_partial_err);
    }
    // memory
    fn info_eviction_stats(&self, out: &mut InfoText) {
        let (total_us, current_us) = self.ks.eviction.exceeded_us();
        out.field("total_eviction_exceeded_time", total_us / 1000);
        out.field("current_eviction_exceeded_time", current_us / 1000);
    }
    // pubsub
    fn info_pubsub_stats(&self, out: &mut InfoText) {
        out.field("pubsub_channels", self.pubsub.listeners(Kind::Channel).len());
        out.field("pubsub_patterns", self.pubsub.listeners(Kind::Pattern).len());
        out.field("pubsubshard_channels", self.pubsub.listeners(Kind::Shard).len());
    }
    // persist
    fn info_fork_stats(&self, out: &mut InfoText) {
        out.field("latest_fork_usec", self.persist.child_stats.latest_fork_us);
        out.field("total_forks", self.persist.child_stats.total_forks);
    }
    // cluster, repl
    fn info_migration_stats(&self, out: &mut InfoText) {
        out.field("migrate_cached_sockets", self.migrate.len());
        out.field("slave_expires_tracked_keys", self.ks.expiry.own_of_replica.len());
    }
    // tracking
    fn info_tracking_stats(&self, out: &mut InfoText) {
        out.field("tracking_total_keys", self.tracking.total_keys());
        out.field("tracking_total_items", self.tracking.total_items());
        out.field("tracking_total_prefixes", self.tracking.total_prefixes());
    }
    // acl
    fn info_acl_stats(&self, out: &mut InfoText) {
        out.field("acl_access_denied_auth", self.stats.acl_denied_auth);
        out.field("acl_access_denied_cmd", self.stats.acl_denied_cmd);
        out.field("acl_access_denied_key", self.stats.acl_denied_key);
        out.field("acl_access_denied_channel", self.stats.acl_denied_channel);
    }
}
