//! What persistence keeps in memory.

use super::aof::append::FsyncShared;
use super::aof::{AofDir, Manifest};
use super::child::{Child, ChildKind, ChildStats};
use super::gate::Gate;
use super::loading::Counts;
use super::saves::{Rewrites, Saves};
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
    pub last_fsync_s: i64,
    /// How long to sleep before each sync with `appendfsync always`: DEBUG AOF-SYNC-SLEEP.
    pub sync_sleep_us: u64,
    /// Since when a write waits for a slow sync.
    pub postponed_since_s: Option<i64>,
    pub delayed_fsync: u64,
    pub last_write_ok: bool,
    pub last_write_errno: i32,
    pub last_error_log_s: i64,
    /// The second the last `#TS:` line told.
    pub timestamp_s: i64,
    pub(crate) rewrites: Rewrites,
    /// Replication offset that is on disk; `None` while the log is off.
    pub fsynced_reploff: Option<i64>,
    pub shared: Arc<FsyncShared>,
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
    pub(crate) saves: Saves,
    /// Of the last load.
    pub(crate) last_load: Counts,
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
                last_fsync_s: now_s,
                sync_sleep_us: 0,
                postponed_since_s: None,
                delayed_fsync: 0,
                last_write_ok: true,
                last_write_errno: 0,
                last_error_log_s: 0,
                timestamp_s: 0,
                rewrites: Rewrites::default(),
                fsynced_reploff: cfg.appendonly.then_some(0),
                shared: Arc::new(FsyncShared::default()),
            },
            saves: Saves::new(now_s),
            last_load: Counts::default(),
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
