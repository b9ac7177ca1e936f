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
pub enum AofState {
    Off,
    On,
    /// Just switched on: the first rewrite has to end before the log is complete.
    WaitRewrite,
}

/// The append-only log.
#[derive(Debug)]
pub struct Aof {
    pub state: AofState,
    pub dir: AofDir,
    pub manifest: Manifest,
    /// The increment being written; shared with the thread that syncs it.
    pub file: Option<Arc<File>>,
    /// Commands not written yet.
    pub buf: Vec<u8>,
    /// Database the log has selected, `None` when the next command must say.
    pub selected_db: Option<usize>,
    /// Bytes of all files of the log.
    pub current_size: u64,
    /// Bytes of the increment being written, and how many of them were given to a sync.
    pub incr_size: u64,
    pub incr_synced: u64,
    /// Bytes of the log after its last rewrite.
    pub rewrite_base_size: u64,
    pub last_fsync_s: i64,
    /// How long to sleep before each sync with `appendfsync always`: DEBUG AOF-SYNC-SLEEP.
    pub sync_sleep_us: u64,
    /// Since when a write waits for a slow sync.
    pub postponed_since_s: Option<i64>,
    pub delayed_fsync: u64,
    pub last_write_ok: bool,
    pub last_write_errno: i32,
    pub last_error_log_s: i64,
    pub rewrite_scheduled: bool,
    pub last_rewrite_ok: bool,
    pub rewrites: u64,
    pub consecutive_failures: u64,
    pub rewrite_start_s: Option<i64>,
    pub rewrite_last_s: Option<i64>,
    /// The second the last `#TS:` line told.
    pub timestamp_s: i64,
    pub limit: RewriteLimit,
    /// Replication offset that is on disk; `None` while the log is off.
    pub fsynced_reploff: Option<i64>,
    pub shared: Arc<FsyncShared>,
}

/// Keeps failing rewrites from leaving a file behind every second: after three in a row the next waits a minute, then
/// two, four, up to an hour.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RewriteLimit {
    delay_minutes: i64,
    next_s: i64,
}

impl RewriteLimit {
    const FAILURES: u64 = 3;
    const MAX_MINUTES: i64 = 60;

    /// Whether an automatic rewrite has to wait. `Some(minutes)` in the second place when a wait begins.
    pub fn is_limited(&mut self, failures: u64, now_s: i64) -> (bool, Option<i64>) {
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
pub struct Rdb {
    pub last_save_s: i64,
    pub last_bgsave_ok: bool,
    pub last_bgsave_try_s: i64,
    pub bgsave_scheduled: bool,
    pub dirty_before_bgsave: u64,
    pub save_start_s: Option<i64>,
    pub save_last_s: Option<i64>,
    pub saves: u64,
    pub loaded_keys: u64,
    pub loaded_expired: u64,
}

/// A data set being loaded.
#[derive(Debug, Clone, Default)]
pub struct Loading {
    /// Into databases set aside, while the old ones are still served.
    pub is_async: bool,
    pub start_s: i64,
    /// 0 when it is not known.
    pub total_bytes: u64,
    pub loaded_bytes: u64,
    /// Memory the data set took where it was saved.
    pub rdb_used_mem: u64,
}

/// The room's state.
#[derive(Debug)]
pub struct Persist {
    pub aof: Aof,
    pub rdb: Rdb,
    pub gate: Gate,
    pub child: Option<Child>,
    pub child_stats: ChildStats,
    pub loading: Option<Loading>,
    /// When a write that was obeyed despite a failing disk was last logged.
    pub ignored_disk_error_ms: i64,
    /// DEBUG SET-SKIP-CHECKSUM-VALIDATION.
    pub skip_checksum: bool,
    /// DEBUG AOF-FLUSH-SLEEP, microseconds.
    pub aof_flush_sleep_us: u64,
    /// When it was last logged that a command of the master could not be written.
    pub ignored_disk_error_log_ms: i64,
}

impl Persist {
    pub fn new(cfg: &Config, now_s: i64) -> Persist {
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
            ignored_disk_error_log_ms: 0,
        }
    }

    /// A snapshot child is at work.
    pub fn is_saving(&self) -> bool {
        self.child.as_ref().is_some_and(|c| c.kind.is_rdb())
    }

    /// The log is being rewritten.
    pub fn is_rewriting(&self) -> bool {
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
