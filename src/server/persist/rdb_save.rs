//! Snapshots into `dbfilename`: SAVE, BGSAVE, save points, and what is done when a child has written one.

use crate::persist::aof::manifest::{fsync_dir, reason};
use crate::persist::child::ChildKind;
use crate::persist::saves::{Action, Env, SaveEnd, Stage};
use crate::persist::snapshot::{FileSink, SnapshotOptions};
use crate::server::Server;
use crate::sys::fork::Ended;
use crate::sys::reserve::open_in_need;
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io;
use std::os::fd::RawFd;
use std::path::Path;

fn temp_name(pid: u32) -> String {
    format!("temp-{pid}.rdb")
}

fn working_directory() -> String {
    std::env::current_dir().map_or_else(|_| "unknown".to_owned(), |dir| dir.display().to_string())
}

impl Server {
    pub(crate) fn now_s(&self) -> i64 {
        self.clock.ms() / 1000
    }

    /// Writes a snapshot into a file of any name. Failures are logged and leave no file behind.
    fn save_to_file(
        &self,
        path: &Path,
        options: &SnapshotOptions,
        reporter: Option<&mut crate::persist::child::Reporter>,
    ) -> io::Result<()> {
        let file = open_in_need(|| File::create(path)).inspect_err(|e| {
            log::warn!(
                "Failed opening the temp RDB file {} (in server root dir {}) for saving: {}",
                path.display(),
                working_directory(),
                reason(e)
            );
        })?;
        let sink = FileSink::new(file, self.cfg.rdb_save_incremental_fsync);
        let written = self.write_snapshot(sink, options, reporter).map_err(|e| ("rdbSaveRio", e));
        written.and_then(|sink| sink.finish(options.keep_cache).map_err(|e| ("fsync", e))).map_err(|(step, e)| {
            log::warn!("Write error while saving DB to the disk({step}): {}", reason(&e));
            let _ = fs::remove_file(path);
            e
        })
    }

    /// Writes a snapshot and puts it in place of `dbfilename`. True when it is there and durable; failures are logged.
    fn save_and_rename(
        &self,
        options: &SnapshotOptions,
        reporter: Option<&mut crate::persist::child::Reporter>,
    ) -> bool {
        let temp = temp_name(std::process::id());
        let temp = Path::new(&temp);
        let target = Path::new(&self.cfg.dbfilename);
        if self.save_to_file(temp, options, reporter).is_err() {
            return false;
        }
        if let Err(e) = fs::rename(temp, target) {
            log::warn!(
                "Error moving temp DB file {} on the final destination {} (in server root dir {}): {}",
                temp.display(),
                target.display(),
                working_directory(),
                reason(&e)
            );
            let _ = fs::remove_file(temp);
            return false;
        }
        if let Err(e) = fsync_dir(target.parent().unwrap_or(Path::new(""))) {
            log::warn!("Failed to fsync directory while saving DB: {}", reason(&e));
            return false;
        }
        log::info!("DB saved on disk");
        true
    }

    /// Saves in the foreground. `keep_cache` when the file will be read again soon.
    pub(crate) fn save_rdb(&mut self, keep_cache: bool) -> bool {
        let options = SnapshotOptions { repl: self.repl_info(), keep_cache, ..SnapshotOptions::default() };
        if !self.save_and_rename(&options, None) {
            return false;
        }
        self.ks.effects.dirty = 0;
        let now_s = self.now_s();
        self.persist.saves.saved(now_s);
        true
    }

    /// Starts saving in the background; false when it could not be started.
    pub(crate) fn start_bgsave(&mut self, options: SnapshotOptions) -> bool {
        if self.has_child() {
            return false;
        }
        let now_s = self.now_s();
        self.persist.saves.attempt(self.ks.effects.dirty, now_s);
        let forked =
            self.fork_child(ChildKind::RdbDisk, |server, reporter| server.save_and_rename(&options, Some(reporter)));
        match forked {
            Ok(pid) => {
                log::info!("Background saving started by pid {pid}");
                self.persist.saves.started(now_s);
                true
            }
            Err(e) => {
                self.persist.saves.not_started();
                log::warn!("Can't save in background: fork: {}", reason(&e));
                false
            }
        }
    }

    /// Starts a child that writes a snapshot, framed by an end mark, into a pipe. The caller keeps the reading end, and
    /// closes `exit_pipe`'s writing end when the child may go: until then it stays, so that its end is not taken for the
    /// end of the transfer. `parents_ends` are the ends of both pipes that stay with the parent.
    pub(crate) fn start_rdb_to_pipe(
        &mut self,
        options: SnapshotOptions,
        pipe: File,
        exit_pipe: File,
        parents_ends: [RawFd; 2],
    ) -> io::Result<Pid> {
        let pid = self
            .fork_child(ChildKind::RdbSocket, |server, reporter| {
                use std::io::Read;
                for end in parents_ends {
                    // As long as this process has them too, it does not see the parent close them.
                    let _ = nix::unistd::close(end);
                }
                let ok = server.write_framed_snapshot(&pipe, &options, Some(reporter)).is_ok();
                drop(pipe);
                let mut exit_pipe = exit_pipe;
                // Nothing ever comes: the read returns when the parent closes its end or dies.
                let _ = exit_pipe.read(&mut [0]);
                ok
            })
            .inspect_err(|e| log::warn!("Can't save in background: fork: {}", reason(e)))?;
        log::info!("Background RDB transfer started by pid {pid}");
        let now_s = self.now_s();
        self.persist.saves.started(now_s);
        Ok(pid)
    }

    pub(super) fn bgsave_done(&mut self, kind: ChildKind, pid: Pid, ended: Ended) {
        let end = match (kind, ended) {
            (ChildKind::RdbDisk, Ended::Exit(0)) => {
                log::info!("Background saving terminated with success");
                SaveEnd::Done
            }
            (ChildKind::RdbDisk, Ended::Exit(_)) => {
                log::warn!("Background saving error");
                SaveEnd::Failed
            }
            (ChildKind::RdbDisk, Ended::Signal(signal)) => {
                log::warn!("Background saving terminated by signal {signal}");
                self.remove_rdb_temp_file(pid);
                // This is how we end a child ourselves, which is no failure.
                if signal == libc::SIGUSR1 { SaveEnd::Stopped } else { SaveEnd::Failed }
            }
            (_, ended) => {
                match ended {
                    Ended::Exit(0) => log::info!("Background RDB transfer terminated with success"),
                    Ended::Exit(_) => log::warn!("Background transfer error"),
                    Ended::Signal(signal) => log::warn!("Background transfer terminated by signal {signal}"),
                }
                SaveEnd::Transfer
            }
        };
        let now_s = self.now_s();
        let saved = self.persist.saves.child_ended(end, now_s);
        self.ks.effects.dirty = self.ks.effects.dirty.saturating_sub(saved);
        self.repl_bgsave_done(kind, ended == Ended::Exit(0));
    }

    pub(super) fn remove_rdb_temp_file(&self, pid: Pid) {
        self.unlink_in_background(Path::new(&temp_name(pid.as_raw() as u32)));
    }

    /// Removes a file. Its blocks are given back on the helper thread, which for a large file takes long.
    pub(crate) fn unlink_in_background(&self, path: &Path) {
        let open = File::open(path);
        if fs::remove_file(path).is_ok()
            && let Ok(file) = open
        {
            self.background.files.submit(move || drop(file));
        }
    }

    /// What persistence does at every cron run.
    pub(crate) fn persist_cron(&mut self) {
        if self.is_loading() {
            return;
        }
        let is_new_second = self.every_ms(1000);
        let now_s = self.now_s();
        if is_new_second {
            self.moving.close_idle(now_s);
        }
        for stage in Stage::ALL {
            let env = Env { now_s, dirty: self.ks.effects.dirty, cfg: &self.cfg, is_new_second };
            if let Some(action) = self.persist.due(stage, &env) {
                self.carry_out_save(action, is_new_second);
            }
        }
    }

    fn carry_out_save(&mut self, action: Action, is_new_second: bool) {
        match action {
            Action::SaveAtPoint { changes, seconds } => {
                log::info!("{changes} changes in {seconds} seconds. Saving...");
                self.start_bgsave(self.snapshot_options());
            }
            Action::SaveAsScheduled => {
                if self.start_bgsave(self.snapshot_options()) {
                    self.persist.saves.unschedule();
                }
            }
            Action::RewriteAtGrowth { percent } => {
                log::info!("Starting automatic rewriting of AOF on {percent}% growth");
                self.start_bgrewrite();
            }
            Action::RewriteAsScheduled => {
                self.start_bgrewrite();
            }
            Action::SayRewritesWait { minutes } => log::warn!(
                "Background AOF rewrite has repeatedly failed and triggered the limit, will retry in {minutes} minutes"
            ),
            Action::LookAtChild => {
                if is_new_second {
                    self.receive_child_info();
                }
                self.check_child_done();
            }
            Action::RetryLog => self.write_aof(false, false),
            Action::RestartLog => self.restart_aof(),
        }
    }

    fn snapshot_options(&self) -> SnapshotOptions {
        SnapshotOptions { repl: self.repl_info(), ..SnapshotOptions::default() }
    }

    /// Ends children, writes out the log and, if it is to be, a last snapshot. False when stopping now would lose data
    /// that could be kept; with `force` it is never false.
    pub(crate) fn persist_shutdown(&mut self, save: bool, nosave: bool, force: bool) -> bool {
        let child = self.persist.child.as_ref().map(|c| (c.kind(), c.pid()));
        if let Some((kind, pid)) = child
            && kind.is_rdb()
        {
            log::warn!("There is a child saving an .rdb. Killing it!");
            self.kill_rdb_child();
            if kind == ChildKind::RdbDisk {
                self.remove_rdb_temp_file(pid);
            }
        }
        if let Some((ChildKind::Aof, _)) = child {
            if self.is_writing_first_aof() {
                if !force {
                    log::warn!("Writing initial AOF, can't exit.");
                    return false;
                }
                log::warn!("Writing initial AOF. Exit anyway.");
            }
            log::warn!("There is a child rewriting the AOF. Killing it!");
            self.kill_aof_child();
        }
        if self.persist.aof.state != crate::persist::state::AofState::Off {
            log::info!("Calling fsync() on the AOF file.");
            self.flush_aof_now();
            if let Some(file) = &self.persist.aof.file
                && let Err(e) = file.sync_data()
            {
                log::warn!("Fail to fsync the AOF file: {}.", reason(&e));
            }
        }
        if save || (!self.cfg.save.is_empty() && !nosave) {
            log::info!("Saving the final RDB snapshot before exiting.");
            if !self.save_rdb(true) {
                if !force {
                    log::warn!("Error trying to save the DB, can't exit.");
                    return false;
                }
                log::warn!("Error trying to save the DB. Exit anyway.");
            }
        }
        true
    }

    /// The AOF was turned on and a child writes the data set that it begins with: ending now would leave none.
    pub(crate) fn is_writing_first_aof(&self) -> bool {
        let is_aof = self.persist.child.as_ref().is_some_and(|c| c.kind() == ChildKind::Aof);
        is_aof && self.persist.aof.state == crate::persist::state::AofState::WaitRewrite
    }

    /// FLUSHALL emptied everything: a save under way is of no use, and the file of the last one is to say so.
    pub(crate) fn after_flush_all(&mut self) {
        self.kill_rdb_child();
        if !self.cfg.save.is_empty() {
            self.save_rdb(false);
        }
    }
}
