//! The Persistence section of INFO. Field names and formats are Redis 7.2's.

use crate::persist::state::{AofState, Loading};
use crate::server::Server;
use std::fmt::{Display, Write};

fn ok_or_err(ok: bool) -> &'static str {
    if ok { "ok" } else { "err" }
}

/// Lines of the section.
struct Lines(String);

impl Lines {
    fn put(&mut self, name: &str, value: impl Display) {
        // Writing to a string cannot fail.
        let _ = write!(self.0, "{name}:{value}\r\n");
    }
}

impl Server {
    /// The section with its heading; lines end with CR LF.
    pub(crate) fn info_persistence(&self) -> String {
        let p = &self.persist;
        let mut lines = Lines(String::from("# Persistence\r\n"));
        self.info_of_snapshots(&mut lines);
        self.info_of_log(&mut lines);
        if let Some(loading) = &p.loading {
            info_of_load(loading, self.now_s(), &mut lines);
        }
        lines.0
    }

    fn info_of_snapshots(&self, lines: &mut Lines) {
        let p = &self.persist;
        let (saves, child) = (&p.saves, &p.child_stats);
        let (start, took) = saves.times_s();
        let is_async = p.loading.as_ref().is_some_and(|l| l.is_async);
        let fork_perc = match child.keys_total {
            0 => 0.0,
            total => child.keys_processed as f64 / total as f64 * 100.0,
        };
        lines.put("loading", u8::from(p.loading.is_some() && !is_async));
        lines.put("async_loading", u8::from(is_async));
        lines.put("current_cow_peak", child.cow_peak);
        lines.put("current_cow_size", child.cow_bytes);
        lines.put("current_cow_size_age", child.cow_at.map_or(0, |at| at.elapsed().as_secs()));
        lines.put("current_fork_perc", format_args!("{fork_perc:.2}"));
        lines.put("current_save_keys_processed", child.keys_processed);
        lines.put("current_save_keys_total", child.keys_total);
        lines.put("rdb_changes_since_last_save", self.ks.effects.dirty);
        lines.put("rdb_bgsave_in_progress", u8::from(p.is_saving()));
        lines.put("rdb_last_save_time", saves.last_save_s());
        lines.put("rdb_last_bgsave_status", ok_or_err(saves.is_ok()));
        lines.put("rdb_last_bgsave_time_sec", took.unwrap_or(-1));
        lines.put("rdb_current_bgsave_time_sec", self.seconds_since(p.is_saving(), start));
        lines.put("rdb_saves", saves.count());
        lines.put("rdb_last_cow_size", child.rdb_last_cow_bytes);
        lines.put("rdb_last_load_keys_expired", p.last_load.expired);
        lines.put("rdb_last_load_keys_loaded", p.last_load.keys);
    }

    fn info_of_log(&self, lines: &mut Lines) {
        let p = &self.persist;
        let aof = &p.aof;
        let (start, took) = aof.rewrites.times_s();
        lines.put("aof_enabled", u8::from(aof.state != AofState::Off));
        lines.put("aof_rewrite_in_progress", u8::from(p.is_rewriting()));
        lines.put("aof_rewrite_scheduled", u8::from(aof.rewrites.is_scheduled()));
        lines.put("aof_last_rewrite_time_sec", took.unwrap_or(-1));
        lines.put("aof_current_rewrite_time_sec", self.seconds_since(p.is_rewriting(), start));
        lines.put("aof_last_bgrewrite_status", ok_or_err(aof.rewrites.is_ok()));
        lines.put("aof_rewrites", aof.rewrites.count());
        lines.put("aof_rewrites_consecutive_failures", aof.rewrites.failures());
        lines.put("aof_last_write_status", ok_or_err(aof.writing.is_ok() && aof.shared.is_ok()));
        lines.put("aof_last_cow_size", p.child_stats.aof_last_cow_bytes);
        lines.put("module_fork_in_progress", 0);
        lines.put("module_fork_last_cow_size", 0);
        if self.cfg.appendonly {
            lines.put("aof_current_size", aof.current_size);
            lines.put("aof_base_size", aof.rewrites.base_bytes());
            lines.put("aof_pending_rewrite", u8::from(aof.rewrites.is_scheduled()));
            lines.put("aof_buffer_length", aof.writing.buf().len());
            lines.put("aof_pending_bio_fsync", self.background.fsync.pending());
            lines.put("aof_delayed_fsync", aof.writing.delayed());
        }
    }

    fn seconds_since(&self, running: bool, start_s: Option<i64>) -> i64 {
        let now_s = self.now_s();
        if running { now_s - start_s.unwrap_or(now_s) } else { -1 }
    }
}

fn info_of_load(loading: &Loading, now_s: i64, lines: &mut Lines) {
    let (loaded, total) = (loading.loaded_bytes, loading.total_bytes);
    let (mut perc, mut remaining) = (0.0, 1);
    if total > 0 {
        perc = loaded as f64 / total as f64 * 100.0;
        remaining = total as i64 - loaded as i64;
    } else if loading.rdb_used_mem > 0 {
        // The memory it took is a poor guess at the length of a snapshot that comes over a link.
        perc = (loaded as f64 / loading.rdb_used_mem as f64 * 100.0).min(99.99);
        remaining = (loading.rdb_used_mem as i64 - loaded as i64).max(1);
    }
    let eta = match now_s - loading.start_s {
        0 => 1,
        elapsed => elapsed * remaining / (loaded as i64 + 1),
    };
    lines.put("loading_start_time", loading.start_s);
    lines.put("loading_total_bytes", total);
    lines.put("loading_rdb_used_mem", loading.rdb_used_mem);
    lines.put("loading_loaded_bytes", loaded);
    lines.put("loading_loaded_perc", format_args!("{perc:.2}"));
    lines.put("loading_eta_seconds", eta);
}
