//! Rewriting the append-only log: a child writes the data set as a new base while commands go to a new increment; when it
//! is done, the manifest names both, and what they replace becomes history and is removed.
//!
//! Each step leaves a manifest on disk whose files make up the whole data set.

use crate::persist::aof::append::open_incr;
use crate::persist::aof::manifest::{reason, shown};
use crate::persist::child::ChildKind;
use crate::persist::snapshot::{FileSink, SnapshotOptions};
use crate::persist::state::AofState;
use crate::resp::encode::put_command;
use crate::server::Server;
use crate::sys::fork::Ended;
use crate::sys::reserve::open_in_need;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

fn child_temp(pid: u32) -> PathBuf {
    PathBuf::from(format!("temp-rewriteaof-bg-{pid}.aof"))
}

fn writer_temp(pid: u32) -> PathBuf {
    PathBuf::from(format!("temp-rewriteaof-{pid}.aof"))
}

impl Server {
    /// Writes a base into `path`, by way of a temporary file. False when it failed, which is logged.
    pub(crate) fn write_base(&self, path: &Path) -> bool {
        self.write_base_reporting(path, None)
    }

    fn write_base_reporting(&self, path: &Path, reporter: Option<&mut crate::persist::child::Reporter>) -> bool {
        let temp = writer_temp(std::process::id());
        let file = match open_in_need(|| File::create(&temp)) {
            Ok(file) => file,
            Err(e) => {
                log::warn!("Opening the temp file for AOF rewrite in rewriteAppendOnlyFile(): {}", reason(&e));
                return false;
            }
        };
        let sink = FileSink::new(file, self.cfg.aof_rewrite_incremental_fsync);
        let written = if self.cfg.aof_use_rdb_preamble {
            let options = SnapshotOptions { aof_base: true, ..SnapshotOptions::default() };
            self.write_snapshot(sink, &options, reporter)
        } else {
            self.write_commands(sink, reporter)
        };
        if let Err(e) = written.and_then(|sink| sink.finish(false)) {
            log::warn!("Write error writing append only file on disk: {}", reason(&e));
            let _ = fs::remove_file(&temp);
            return false;
        }
        if let Err(e) = fs::rename(&temp, path) {
            log::warn!("Error moving temp append only file on the final destination: {}", reason(&e));
            let _ = fs::remove_file(&temp);
            return false;
        }
        true
    }

    /// Starts a rewrite in the background; false when it could not be started, which is logged.
    pub(crate) fn start_bgrewrite(&mut self) -> bool {
        if self.has_child() {
            return false;
        }
        if self.persist.aof.dir.create().is_err() {
            self.persist.aof.rewrites.not_started();
            return false;
        }
        // The new increment begins with a SELECT.
        self.persist.aof.writing.select_anew();
        self.flush_aof_now();
        if !self.open_next_incr() {
            self.persist.aof.rewrites.not_started();
            return false;
        }
        if self.persist.aof.state == AofState::WaitRewrite {
            // Offsets of the log that was on before must not be taken for offsets of this one.
            self.drain_aof_syncs();
            let offset = self.repl_offset();
            self.persist.aof.shared.set_reploff(offset);
            self.persist.aof.fsynced_reploff = Some(0);
        }
        self.persist.aof.rewrites.count_one();
        let forked = self.fork_child(ChildKind::Aof, |server, reporter| {
            let temp = child_temp(std::process::id());
            let ok = server.write_base_reporting(&temp, Some(reporter));
            if ok {
                log::info!("Successfully created the temporary AOF base file {}", temp.display());
            }
            ok
        });
        match forked {
            Ok(pid) => {
                log::info!("Background append only file rewriting started by pid {pid}");
                self.log_imports();
                let now_s = self.now_s();
                self.persist.aof.rewrites.started(now_s);
                true
            }
            Err(e) => {
                self.persist.aof.rewrites.not_started();
                log::warn!("Can't rewrite append only file in background: fork: {}", reason(&e));
                false
            }
        }
    }

    /// What a new base holds of slots on their way here is told by the increment after it.
    fn log_imports(&mut self) {
        for import in self.cluster().map_or_else(Vec::new, |machine| machine.import_commands()) {
            let mut command = Vec::new();
            put_command(&mut command, &import.iter().map(Vec::as_slice).collect::<Vec<_>>());
            self.feed_aof(Some(0), &command);
        }
    }

    /// Opens the increment for what comes after the fork. While the log is being switched on it has a temporary name and
    /// no place in the manifest yet.
    fn open_next_incr(&mut self) -> bool {
        let aof = &self.persist.aof;
        let dir = aof.dir.clone();
        let mut manifest = None;
        let name = match aof.state {
            AofState::Off => return true,
            AofState::WaitRewrite => dir.temp_incr_name(),
            AofState::On => {
                let next = manifest.insert(aof.manifest.clone());
                next.new_incr(&dir.filename)
            }
        };
        let file = match open_incr(&dir.path(&name), true) {
            Ok(file) => file,
            Err(e) => {
                log::warn!("Can't open the append-only file {}: {}", shown(&name), reason(&e));
                return false;
            }
        };
        if let Some(manifest) = &mut manifest
            && dir.persist(manifest).is_err()
        {
            return false;
        }
        log::info!("Creating AOF incr file {} on background rewrite", shown(&name));
        self.retire_aof_file();
        let aof = &mut self.persist.aof;
        aof.file = Some(Arc::new(file));
        aof.writing.begin_increment(0);
        if let Some(manifest) = manifest {
            aof.manifest = manifest;
        }
        true
    }

    pub(crate) fn bgrewrite_done(&mut self, pid: Pid, ended: Ended) {
        let start = Instant::now();
        match ended {
            Ended::Exit(0) => {
                log::info!("Background AOF rewrite terminated with success");
                let ok = self.install_rewrite(pid);
                self.persist.aof.rewrites.note(ok);
                if ok {
                    log::info!("Background AOF rewrite finished successfully");
                    let aof = &mut self.persist.aof;
                    if aof.state == AofState::WaitRewrite {
                        aof.state = AofState::On;
                        aof.fsynced_reploff = Some(aof.shared.reploff());
                    }
                    log::debug!("Background AOF rewrite signal handler took {}us", start.elapsed().as_micros());
                }
            }
            Ended::Exit(_) => {
                self.persist.aof.rewrites.note(false);
                log::warn!("Background AOF rewrite terminated with error");
            }
            Ended::Signal(signal) => {
                // SIGUSR1 is how we end a child ourselves, which is no failure.
                if signal != libc::SIGUSR1 {
                    self.persist.aof.rewrites.note(false);
                }
                log::warn!("Background AOF rewrite terminated by signal {signal}");
            }
        }
        self.remove_aof_temp_files(pid);
        let now_s = self.now_s();
        let aof = &mut self.persist.aof;
        aof.rewrites.child_ended(now_s);
        if aof.state == AofState::WaitRewrite {
            aof.writing.drop_buf();
            // The next attempt begins with a snapshot that has what this increment had.
            aof.rewrites.schedule();
            let temp = aof.dir.temp_incr_name();
            log::info!("Removing the temp incr aof file {} in the background", shown(&temp));
            let path = aof.dir.path(&temp);
            self.unlink_in_background(&path);
        }
    }

    /// Makes what the child wrote the base of the log. False when that failed, which is logged and leaves the log as it
    /// was.
    fn install_rewrite(&mut self, pid: Pid) -> bool {
        let temp = child_temp(pid.as_raw() as u32);
        let dir = self.persist.aof.dir.clone();
        let mut manifest = self.persist.aof.manifest.clone();
        let base = manifest.new_base(&dir.filename, self.cfg.aof_use_rdb_preamble);
        let base_path = dir.path(&base);
        if let Err(e) = fs::rename(&temp, &base_path) {
            log::warn!(
                "Error trying to rename the temporary AOF base file {} into {}: {}",
                temp.display(),
                base_path.display(),
                reason(&e)
            );
            return false;
        }
        log::info!("Successfully renamed the temporary AOF base file {} into {}", temp.display(), shown(&base));
        let mut new_incr = None;
        if self.persist.aof.state == AofState::WaitRewrite {
            let temp = dir.temp_incr_name();
            let incr = manifest.new_incr(&dir.filename);
            if let Err(e) = fs::rename(dir.path(&temp), dir.path(&incr)) {
                log::warn!(
                    "Error trying to rename the temporary AOF incr file {} into {}: {}",
                    dir.path(&temp).display(),
                    dir.path(&incr).display(),
                    reason(&e)
                );
                self.unlink_in_background(&base_path);
                return false;
            }
            log::info!("Successfully renamed the temporary AOF incr file {} into {}", shown(&temp), shown(&incr));
            new_incr = Some(incr);
        }
        manifest.retire_incr(self.persist.aof.file.is_some());
        if dir.persist(&mut manifest).is_err() {
            self.unlink_in_background(&base_path);
            if let Some(incr) = new_incr {
                self.unlink_in_background(&dir.path(&incr));
            }
            return false;
        }
        let aof = &mut self.persist.aof;
        aof.manifest = manifest;
        if aof.state != AofState::Off {
            aof.current_size = dir.file_size(&base).unwrap_or(0) + aof.writing.size();
            aof.rewrites.set_base_bytes(aof.current_size);
        }
        self.remove_aof_history();
        true
    }

    /// Removes files of earlier logs, unless `aof-disable-auto-gc` keeps them.
    pub(crate) fn remove_aof_history(&mut self) {
        if self.cfg.aof_disable_auto_gc || self.persist.aof.manifest.history.is_empty() {
            return;
        }
        let dir = self.persist.aof.dir.clone();
        for file in std::mem::take(&mut self.persist.aof.manifest.history) {
            log::info!("Removing the history file {} in the background", shown(&file.name));
            self.unlink_in_background(&dir.path(&file.name));
        }
        self.persist.aof.manifest.dirty = true;
        // A manifest that still names removed history does no harm: only its live files are loaded.
        let _ = dir.persist(&mut self.persist.aof.manifest);
    }

    pub(crate) fn remove_aof_temp_files(&self, pid: Pid) {
        let pid = pid.as_raw() as u32;
        self.unlink_in_background(&child_temp(pid));
        self.unlink_in_background(&writer_temp(pid));
    }
}
