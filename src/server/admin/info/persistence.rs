//! INFO persistence.

use super::Facts;
use super::row::{Figure, field, value};
use crate::admin::figure::Value;
use crate::persist::state::{AofState, Loading};
use std::sync::atomic::Ordering::Relaxed;

pub(super) static ROWS: &[Figure] = &[
    field("loading", |f| f.srv.persist.loading.as_ref().is_some_and(|l| !l.is_async).into())
        .gauge("redis_loading_dump_file", "Whether a data set is being loaded."),
    field("async_loading", |f| f.srv.persist.loading.as_ref().is_some_and(|l| l.is_async).into())
        .gauge("redis_async_loading", "Whether a data set is being loaded beside the one that is served."),
    field("current_cow_peak", |f| f.srv.persist.child_stats.cow_peak.into())
        .gauge("hexad_current_cow_peak_bytes", "The most memory that was copied while the child at work saved."),
    field("current_cow_size", |f| f.srv.persist.child_stats.cow_bytes.into())
        .gauge("hexad_current_cow_size_bytes", "Memory that was copied while the child at work saves."),
    field("current_cow_size_age", |f| f.srv.persist.child_stats.cow_at.map_or(0, |at| at.elapsed().as_secs()).into()),
    field("current_fork_perc", |f| {
        let child = &f.srv.persist.child_stats;
        Value::Decimal(match child.keys_total {
            0 => 0.0,
            total => child.keys_processed as f64 / total as f64 * 100.0,
        })
    }),
    field("current_save_keys_processed", |f| f.srv.persist.child_stats.keys_processed.into()),
    field("current_save_keys_total", |f| f.srv.persist.child_stats.keys_total.into()),
    field("rdb_changes_since_last_save", |f| f.srv.ks.effects.dirty.into())
        .gauge("redis_rdb_changes_since_last_save", "Changes since the last snapshot."),
    field("rdb_bgsave_in_progress", |f| f.srv.persist.is_saving().into())
        .gauge("redis_rdb_bgsave_in_progress", "Whether a child writes a snapshot."),
    field("rdb_last_save_time", |f| f.srv.persist.saves.last_save_s().into())
        .gauge("redis_rdb_last_save_timestamp_seconds", "When the last snapshot was written."),
    field("rdb_last_bgsave_status", |f| Value::Ok(f.srv.persist.saves.is_ok()))
        .gauge("redis_rdb_last_bgsave_status", "Whether the last snapshot was written."),
    field("rdb_last_bgsave_time_sec", |f| f.srv.persist.saves.times_s().1.unwrap_or(-1).into())
        .gauge("redis_rdb_last_bgsave_duration_sec", "How long the last snapshot took."),
    field("rdb_current_bgsave_time_sec", |f| {
        since(f, f.srv.persist.is_saving(), f.srv.persist.saves.times_s().0).into()
    })
    .gauge("redis_rdb_current_bgsave_duration_sec", "How long the snapshot under way has taken; -1: there is none."),
    field("rdb_saves", |f| f.srv.persist.saves.count().into())
        .gauge("redis_rdb_saves_total", "Snapshots written since the start."),
    field("rdb_last_cow_size", |f| f.srv.persist.child_stats.rdb_last_cow_bytes.into())
        .gauge("redis_rdb_last_cow_size_bytes", "Memory that was copied during the last snapshot."),
    field("rdb_last_load_keys_expired", |f| f.srv.persist.last_load.expired.into())
        .gauge("redis_rdb_last_load_expired_keys", "Expired keys in the snapshot that was last loaded."),
    field("rdb_last_load_keys_loaded", |f| f.srv.persist.last_load.keys.into())
        .gauge("redis_rdb_last_load_loaded_keys", "Keys loaded from the snapshot that was last loaded."),
    value(|f| (f.now_s - f.srv.persist.saves.last_save_s()).max(0).into())
        .gauge("hexad_rdb_last_save_age_seconds", "Time since the last snapshot was written, or since the start."),
    field("aof_enabled", |f| (f.srv.persist.aof.state != AofState::Off).into())
        .gauge("redis_aof_enabled", "Whether changes go to the log."),
    field("aof_rewrite_in_progress", |f| f.srv.persist.is_rewriting().into())
        .gauge("redis_aof_rewrite_in_progress", "Whether the log is being rewritten."),
    field("aof_rewrite_scheduled", |f| f.srv.persist.aof.rewrites.is_scheduled().into())
        .gauge("redis_aof_rewrite_scheduled", "Whether the log is to be rewritten after the child at work."),
    field("aof_last_rewrite_time_sec", |f| f.srv.persist.aof.rewrites.times_s().1.unwrap_or(-1).into())
        .gauge("redis_aof_last_rewrite_duration_sec", "How long the last rewrite took."),
    field("aof_current_rewrite_time_sec", |f| {
        since(f, f.srv.persist.is_rewriting(), f.srv.persist.aof.rewrites.times_s().0).into()
    })
    .gauge("redis_aof_current_rewrite_duration_sec", "How long the rewrite under way has taken; -1: there is none."),
    field("aof_last_bgrewrite_status", |f| Value::Ok(f.srv.persist.aof.rewrites.is_ok()))
        .gauge("redis_aof_last_bgrewrite_status", "Whether the last rewrite went well."),
    field("aof_rewrites", |f| f.srv.persist.aof.rewrites.count().into())
        .counter("hexad_aof_rewrites_total", "Rewrites of the log since the start."),
    field("aof_rewrites_consecutive_failures", |f| f.srv.persist.aof.rewrites.failures().into())
        .gauge("hexad_aof_rewrites_consecutive_failures", "Rewrites that failed, one after the other."),
    field("aof_last_write_status", |f| {
        let aof = &f.srv.persist.aof;
        Value::Ok(aof.writing.is_ok() && aof.shared.is_ok())
    })
    .gauge("redis_aof_last_write_status", "Whether the log can be written."),
    field("aof_last_cow_size", |f| f.srv.persist.child_stats.aof_last_cow_bytes.into())
        .gauge("redis_aof_last_cow_size_bytes", "Memory that was copied during the last rewrite."),
    field("module_fork_in_progress", |_| 0u8.into()).gauge("redis_module_fork_in_progress", "There are no modules."),
    field("module_fork_last_cow_size", |_| 0u8.into())
        .gauge("redis_module_fork_last_cow_size", "There are no modules."),
    field("aof_current_size", |f| of_log(f, |f| f.srv.persist.aof.current_size.into()))
        .gauge("redis_aof_current_size_bytes", "Size of the log."),
    field("aof_base_size", |f| of_log(f, |f| f.srv.persist.aof.rewrites.base_bytes().into()))
        .gauge("redis_aof_base_size_bytes", "Size of the log after its last rewrite."),
    field("aof_pending_rewrite", |f| of_log(f, |f| f.srv.persist.aof.rewrites.is_scheduled().into()))
        .gauge("redis_aof_pending_rewrite", "Whether a rewrite waits for the child at work."),
    field("aof_buffer_length", |f| of_log(f, |f| f.srv.persist.aof.writing.buf().len().into()))
        .gauge("redis_aof_buffer_length", "Bytes that wait to be written to the log."),
    field("aof_pending_bio_fsync", |f| of_log(f, |f| f.srv.background.fsync.pending().into()))
        .gauge("redis_aof_pending_bio_fsync", "Syncs that are under way or wait."),
    field("aof_delayed_fsync", |f| of_log(f, |f| f.srv.persist.aof.writing.delayed().into()))
        .gauge("redis_aof_delayed_fsync", "Writes that did not wait for a sync that took too long."),
    value(|f| of_log(f, |f| f.srv.persist.aof.shared.syncs.load(Relaxed).into()))
        .counter("hexad_aof_fsyncs_total", "Syncs of the log."),
    value(|f| of_log(f, |f| Value::Micros(f.srv.persist.aof.shared.syncs_us.load(Relaxed))))
        .counter("hexad_aof_fsync_seconds_total", "Time that syncs of the log took."),
    value(|f| of_log(f, |f| Value::Micros(f.srv.persist.aof.shared.last_us.load(Relaxed))))
        .gauge("hexad_aof_last_fsync_duration_seconds", "How long the last sync of the log took."),
    value(|f| {
        let last_s = f.srv.persist.aof.shared.last_s.load(Relaxed);
        of_log(f, |f| (f.now_s - f.srv.persist.aof.shared.last_s.load(Relaxed)).max(0).into()).only_if(last_s > 0)
    })
    .gauge("hexad_aof_last_fsync_age_seconds", "Time since the log was last synced."),
    value(|f| of_log(f, |f| f.srv.persist.gate.is_shut().into()))
        .gauge("hexad_gate_shut", "Whether replies wait for a sync."),
    value(|f| of_log(f, |f| f.srv.persist.gate.held().len().into()))
        .gauge("hexad_gate_held_clients", "Clients whose replies wait for a sync."),
    field("loading_start_time", |f| of_load(f, |l, _| l.start_s.into())),
    field("loading_total_bytes", |f| of_load(f, |l, _| l.total_bytes.into()))
        .gauge("hexad_loading_total_bytes", "Size of the data set being loaded; 0: not known."),
    field("loading_rdb_used_mem", |f| of_load(f, |l, _| l.rdb_used_mem.into())),
    field("loading_loaded_bytes", |f| of_load(f, |l, _| l.loaded_bytes.into()))
        .gauge("hexad_loading_loaded_bytes", "How much of it was read."),
    field("loading_loaded_perc", |f| of_load(f, |l, _| Value::Decimal(progress(l).0))),
    field("loading_eta_seconds", |f| {
        of_load(f, |l, now_s| {
            let elapsed = now_s - l.start_s;
            Value::Int(if elapsed == 0 { 1 } else { elapsed * progress(l).1 / (l.loaded_bytes as i64 + 1) })
        })
    })
    .gauge("hexad_loading_eta_seconds", "How long the load may still take."),
];

fn since(f: &Facts<'_>, is_running: bool, start_s: Option<i64>) -> i64 {
    if is_running { f.now_s - start_s.unwrap_or(f.now_s) } else { -1 }
}

/// What is shown while there is a log.
fn of_log(f: &Facts<'_>, value: fn(&Facts<'_>) -> Value) -> Value {
    if f.srv.cfg.appendonly { value(f) } else { Value::Absent }
}

/// What is shown during a load.
fn of_load(f: &Facts<'_>, value: fn(&Loading, i64) -> Value) -> Value {
    f.srv.persist.loading.as_ref().map_or(Value::Absent, |loading| value(loading, f.now_s))
}

/// How far a load is, percent, and how many bytes remain.
fn progress(loading: &Loading) -> (f64, i64) {
    let (loaded, total) = (loading.loaded_bytes, loading.total_bytes);
    if total > 0 {
        (loaded as f64 / total as f64 * 100.0, total as i64 - loaded as i64)
    } else if loading.rdb_used_mem > 0 {
        // The memory it took is a poor guess at the length of a snapshot that comes over a link.
        let percent = (loaded as f64 / loading.rdb_used_mem as f64 * 100.0).min(99.99);
        (percent, (loading.rdb_used_mem as i64 - loaded as i64).max(1))
    } else {
        (0.0, 1)
    }
}
