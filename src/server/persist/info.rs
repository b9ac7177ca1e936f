//! The Persistence section of INFO. Field names and formats are Redis 7.2's.

use crate::persist::state::AofState;
use crate::server::Server;
use std::fmt::Write;

fn ok_or_err(ok: bool) -> &'static str {
    if ok { "ok" } else { "err" }
}

impl Server {
    /// The section with its heading; lines end with CR LF.
    pub(crate) fn info_persistence(&self) -> String {
        let now_s = self.now_s();
        let p = &self.persist;
        let (aof, rdb, child) = (&p.aof, &p.rdb, &p.child_stats);
        let is_async = p.loading.as_ref().is_some_and(|l| l.is_async);
        let fork_perc = match child.keys_total {
            0 => 0.0,
            total => child.keys_processed as f64 / total as f64 * 100.0,
        };
        let since = |running: bool, start: Option<i64>| if running { now_s - start.unwrap_or(now_s) } else { -1 };
        let mut out = String::from("# Persistence\r\n");
        let mut line = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a string cannot fail.
            let _ = write!(out, "{name}:{value}\r\n");
        };
        line("loading", &u8::from(p.loading.is_some() && !is_async));
        line("async_loading", &u8::from(is_async));
        line("current_cow_peak", &child.cow_peak);
        line("current_cow_size", &child.cow_bytes);
        line("current_cow_size_age", &child.cow_at.map_or(0, |at| at.elapsed().as_secs()));
        line("current_fork_perc", &format_args!("{fork_perc:.2}"));
        line("current_save_keys_processed", &child.keys_processed);
        line("current_save_keys_total", &child.keys_total);
        line("rdb_changes_since_last_save", &self.ks.effects.dirty);
        line("rdb_bgsave_in_progress", &u8::from(p.is_saving()));
        line("rdb_last_save_time", &rdb.last_save_s);
        line("rdb_last_bgsave_status", &ok_or_err(rdb.last_bgsave_ok));
        line("rdb_last_bgsave_time_sec", &rdb.save_last_s.unwrap_or(-1));
        line("rdb_current_bgsave_time_sec", &since(p.is_saving(), rdb.save_start_s));
        line("rdb_saves", &rdb.saves);
        line("rdb_last_cow_size", &child.rdb_last_cow_bytes);
        line("rdb_last_load_keys_expired", &rdb.loaded_expired);
        line("rdb_last_load_keys_loaded", &rdb.loaded_keys);
        line("aof_enabled", &u8::from(aof.state != AofState::Off));
        line("aof_rewrite_in_progress", &u8::from(p.is_rewriting()));
        line("aof_rewrite_scheduled", &u8::from(aof.rewrite_scheduled));
        line("aof_last_rewrite_time_sec", &aof.rewrite_last_s.unwrap_or(-1));
        line("aof_current_rewrite_time_sec", &since(p.is_rewriting(), aof.rewrite_start_s));
        line("aof_last_bgrewrite_status", &ok_or_err(aof.last_rewrite_ok));
        line("aof_rewrites", &aof.rewrites);
        line("aof_rewrites_consecutive_failures", &aof.consecutive_failures);
        line("aof_last_write_status", &ok_or_err(aof.last_write_ok && aof.shared.is_ok()));
        line("aof_last_cow_size", &child.aof_last_cow_bytes);
        line("module_fork_in_progress", &0);
        line("module_fork_last_cow_size", &0);
        if self.cfg.appendonly {
            line("aof_current_size", &aof.current_size);
            line("aof_base_size", &aof.rewrite_base_size);
            line("aof_pending_rewrite", &u8::from(aof.rewrite_scheduled));
            line("aof_buffer_length", &aof.buf.len());
            line("aof_pending_bio_fsync", &self.background.fsync.pending());
            line("aof_delayed_fsync", &aof.delayed_fsync);
        }
        if let Some(loading) = &p.loading {
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
            let elapsed = now_s - loading.start_s;
            let eta = match elapsed {
                0 => 1,
                _ => elapsed * remaining / (loaded as i64 + 1),
            };
            line("loading_start_time", &loading.start_s);
            line("loading_total_bytes", &total);
            line("loading_rdb_used_mem", &loading.rdb_used_mem);
            line("loading_loaded_bytes", &loaded);
            line("loading_loaded_perc", &format_args!("{perc:.2}"));
            line("loading_eta_seconds", &eta);
        }
        out
    }
}
