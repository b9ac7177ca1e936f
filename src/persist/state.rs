//! What persistence keeps in memory.

use super::aof::append::FsyncShared;
use super::aof::writing::Writing;
use super::aof::{AofDir, Manifest};
use super::child::{Child, ChildKind, ChildStats};
use super::gate::Gate;
use super::loading::Counts;
use super::saves::{Restart, Rewrites, Saves};
use crate::config::Config;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    pub(crate) writing: Writing,
    /// Bytes of all files of the log.
    pub(crate) current_size: u64,
    /// How long to sleep before each sync with `appendfsync always`: DEBUG AOF-SYNC-SLEEP.
    pub(crate) sync_sleep_us: u64,
    pub(crate) rewrites: Rewrites,
    pub(crate) restart: Restart,
    /// Replication offset that is on disk; `None` while the log is off.
    pub(crate) fsynced_reploff: Option<i64>,
    pub(crate) shared: Arc<FsyncShared>,
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
    pub(crate) saves: Saves,
    pub(crate) last_load: Counts,
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
                writing: Writing::new(now_s),
                current_size: 0,
                sync_sleep_us: 0,
                rewrites: Rewrites::default(),
                restart: Restart::default(),
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
        }
    }

    /// A snapshot child is at work.
    pub(crate) fn is_saving(&self) -> bool {
        self.child.as_ref().is_some_and(|c| c.kind().is_rdb())
    }

    /// The log is being rewritten.
    pub(crate) fn is_rewriting(&self) -> bool {
        self.child.as_ref().is_some_and(|c| c.kind() == ChildKind::Aof)
    }

    /// Why writes are refused, if they are.
    #[inline]
    pub(crate) fn refusal(&self, cfg: &Config) -> Option<Refusal> {
        if cfg.stop_writes_on_bgsave_error && !cfg.save.is_empty() && !self.saves.is_ok() {
            return Some(Refusal::Snapshot);
        }
        match self.aof.state {
            AofState::Off => None,
            _ if !self.aof.writing.is_ok() => Some(Refusal::Log { errno: self.aof.writing.errno() }),
            _ if !self.aof.shared.is_ok() => {
                Some(Refusal::Log { errno: self.aof.shared.errno.load(Ordering::Acquire) })
            }
            AofState::On | AofState::WaitRewrite => None,
        }
    }
}

/// Why writes are refused: what they change could not be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The last snapshot failed.
    Snapshot,
    /// The log cannot be written or synced.
    Log { errno: i32 },
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SavePoint;

    #[test]
    fn writes_are_refused_while_the_disk_fails() {
        let save = vec![SavePoint { seconds: 1, changes: 1 }];
        let mut cfg = Config { save, appendonly: true, ..Config::default() };
        let mut persist = Persist::new(&cfg, 1000);
        assert_eq!(persist.refusal(&cfg), None);
        persist.aof.writing.failed(0, Some(libc::EIO), 1000);
        assert_eq!(persist.refusal(&cfg), Some(Refusal::Log { errno: libc::EIO }));
        persist.aof.writing.wrote_all();
        assert_eq!(persist.refusal(&cfg), None);
        persist.saves.not_started();
        assert_eq!(persist.refusal(&cfg), Some(Refusal::Snapshot));
        cfg.stop_writes_on_bgsave_error = false;
        assert_eq!(persist.refusal(&cfg), None);
        cfg.stop_writes_on_bgsave_error = true;
        persist.saves.saved(1001);
        assert_eq!(persist.refusal(&cfg), None);
    }
}
