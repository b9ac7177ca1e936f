//! What persistence keeps in memory.

use super::aof::append::FsyncShared;
use super::aof::{AofDir, Manifest};
use super::child::{Child, ChildKind, ChildStats};
use super::gate::Gate;
use crate::config::Config;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// Whether commands go to the append-only log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AofState {
    Off,
    On,
    /// Just switched on: the first rewrite has to end before the log is complete.
    WaitRewrite,
}

/// The append-only log.
#[derive(Debug)]
pub(crate) struct Aof {
    pub(crate) state: AofState,
    pub(crate) dir: AofDir,
    pub(crate) manifest: Manifest,
    /// The increment being written; shared with the thread that syncs it.
    pub(crate) file: Option<Arc<File>>,
    /// Commands not written yet.
    pub(crate) buf: Vec<u8>,
    /// Database the log has selected, `None` when the next command must say.
    pub(crate) selected_db: Option<usize>,
    /// Bytes of all files of the log.
    pub(crate) current_size: u64,
    /// Bytes of the increment being written, and how many of them were given to a sync.
    pub(crate) incr_size: u64,
    pub(crate) incr_synced: u64,
    /// Bytes of the log after its last rewrite.
    pub(crate) rewrite_base_size: u64,
    pub(crate) last_fsync_s: i64,
    /// How long to sleep before each sync with `appendfsync always`: DEBUG AOF-SYNC-SLEEP.
    pub(crate) sync_sleep_us: u64,
    /// Since when a write waits for a slow sync.
    pub(crate) postponed_since_s: Option<i64>,
    pub(crate) delayed_fsync: u64,
    pub(crate) last_write_ok: bool,
    pub(crate) last_write_errno: i32,
    pub(crate) last_error_log_s: i64,
    pub(crate) rewrite_scheduled: bool,
    pub(crate) last_rewrite_ok: bool,
    pub(crate) rewrites: u64,
    pub(crate) consecutive_failures: u64,
    pub(crate) rewrite_start_s: Option<i64>,
    pub(crate) rewrite_last_s: Option<i64>,
    /// The second the last `#TS:` line told.
    pub(crate) timestamp_s: i64,
    pub(crate) limit: RewriteLimit,
    /// Replication offset that is on disk; `None` while the log is off.
    pub(crate) fsynced_reploff: Option<i64>,
    pub(crate) shared: Arc<FsyncShared>,
}

/// Keeps failing rewrites from leaving a file behind every second: after three in a row the next waits a minute, then
/// two, four, up to an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RewriteLimit {
    delay_minutes: i64,
    next_s: i64,
}

impl RewriteLimit {
    const FAILURES: u64 = 3;
    const MAX_MINUTES: i64 = 60;

    /// Whether an automatic rewrite has to wait. `Some(minutes)` in the second place when a wait begins.
    pub(crate) fn is_limited(&mut self, failures: u64, now_s: i64) -> (bool, Option<i64>) {
        if failures < Self::FAILURES {
            *self = RewriteLimit::default();
            return (false, None);
        }
        if self.next_s != 0 {
            if now_s < self.next_s {
                return (true, None);
            }
            self.next_s = 0;
            return (false, None);
        }
        self.delay_minutes = (self.delay_minutes * 2).clamp(1, Self::MAX_MINUTES);
        self.next_s = now_s + self.delay_minutes * 60;
        (true, Some(self.delay_minutes))
    }
}

/// Snapshots.
#[derive(Debug)]
pub(crate) struct Rdb {
    pub(crate) last_save_s: i64,
    pub(crate) last_bgsave_ok: bool,
    pub(crate) last_bgsave_try_s: i64,
    pub(crate) bgsave_scheduled: bool,
    pub(crate) dirty_before_bgsave: u64,
    pub(crate) save_start_s: Option<i64>,
    pub(crate) save_last_s: Option<i64>,
    pub(crate) saves: u64,
    pub(crate) loaded_keys: u64,
    pub(crate) loaded_expired: u64,
}

/// A data set being loaded.
#[derive(Debug, Clone, Default)]
pub(crate) struct Loading {
    /// Into databases set aside, while the old ones are still served.
    pub(crate) is_async: bool,
    pub(crate) start_s: i64,
    /// 0 when it is not known.
    pub(crate) total_bytes: u64,
    pub(crate) loaded_bytes: u64,
    /// Memory the data set took where it was saved.
    pub(crate) rdb_used_mem: u64,
}

/// The room's state.
#[derive(Debug)]
pub(crate) struct Persist {
    pub(crate) aof: Aof,
    pub(crate) rdb: Rdb,
    pub(crate) gate: Gate,
    pub(crate) child: Option<Child>,
    pub(crate) child_stats: ChildStats,
    pub(crate) loading: Option<Loading>,
    /// When a write that was obeyed despite a failing disk was last logged.
    pub(crate) ignored_disk_error_ms: i64,
    /// DEBUG SET-SKIP-CHECKSUM-VALIDATION.
    pub(crate) skip_checksum: bool,
    /// DEBUG AOF-FLUSH-SLEEP, microseconds.
    pub(crate) aof_flush_sleep_us: u64,
}

impl Persist {
    pub(crate) fn new(cfg: &Config, now_s: i64) -> Persist {
        Persist {
            aof: Aof {
                state: if cfg.appendonly { AofState::On } else { AofState::Off },
                dir: AofDir {
                    dirname: PathBuf::from(&cfg.appenddirname),
                    filename: cfg.appendfilename.as_bytes().to_vec(),
                },
                manifest: Manifest::default(),
                file: None,
                buf: Vec::new(),
                selected_db: None,
                current_size: 0,
                incr_size: 0,
                incr_synced: 0,
                rewrite_base_size: 0,
                last_fsync_s: now_s,
                sync_sleep_us: 0,
                postponed_since_s: None,
                delayed_fsync: 0,
                last_write_ok: true,
                last_write_errno: 0,
                last_error_log_s: 0,
                rewrite_scheduled: false,
                last_rewrite_ok: true,
                rewrites: 0,
                consecutive_failures: 0,
                rewrite_start_s: None,
                rewrite_last_s: None,
                timestamp_s: 0,
                limit: RewriteLimit::default(),
                fsynced_reploff: cfg.appendonly.then_some(0),
                shared: Arc::new(FsyncShared::default()),
            },
            rdb: Rdb {
                last_save_s: now_s,
                last_bgsave_ok: true,
                last_bgsave_try_s: 0,
                bgsave_scheduled: false,
                dirty_before_bgsave: 0,
                save_start_s: None,
                save_last_s: None,
                saves: 0,
                loaded_keys: 0,
                loaded_expired: 0,
            },
            gate: Gate::default(),
            child: None,
            child_stats: ChildStats::default(),
            loading: None,
            ignored_disk_error_ms: 0,
            skip_checksum: false,
            aof_flush_sleep_us: 0,
        }
    }

    /// A snapshot child is at work.
    pub(crate) fn is_saving(&self) -> bool {
        self.child.as_ref().is_some_and(|c| c.kind.is_rdb())
    }

    /// The log is being rewritten.
    pub(crate) fn is_rewriting(&self) -> bool {
        self.child.as_ref().is_some_and(|c| c.kind == ChildKind::Aof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failing_rewrites_wait_longer_and_longer() {
        let mut limit = RewriteLimit::default();
        assert_eq!(limit.is_limited(2, 0), (false, None));
        let mut now = 1000;
        for minutes in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(limit.is_limited(3, now), (true, Some(minutes)));
            assert_eq!(limit.is_limited(3, now + minutes * 60 - 1), (true, None));
            now += minutes * 60;
            assert_eq!(limit.is_limited(3, now), (false, None));
        }
        assert_eq!(limit.is_limited(0, now), (false, None));
        assert_eq!(limit.is_limited(3, now), (true, Some(1)));
    }
}
