//! Writing the append-only log: what is fed to it, when it is written, when it is synced, and what follows from errors.
//!
//! Commands collect in a buffer that is written once a turn, before replies leave. With `appendfsync always` the same
//! step syncs it, so whoever has a reply has the write on disk. A command stays in the buffer until it is written.

use crate::catalog::error::CmdError;
use crate::catalog::row::Command;
use crate::config::AppendFsync;
use crate::persist::Logged;
use crate::persist::aof::append::{open_incr, write_most};
use crate::persist::aof::manifest::{reason, shown};
use crate::persist::aof::writing::{Due, Failure, SyncHow, WriteEnv};
use crate::persist::child::ChildKind;
use crate::persist::saves::Tried;
use crate::persist::state::{AofState, Refusal};
use crate::server::Server;
use std::fs::File;
use std::io::{self};
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Server {
    /// Takes a command into the log. `command` is in the form of the request protocol.
    pub(crate) fn feed_aof(&mut self, db: Option<usize>, command: &[u8]) {
        let now_s = self.now_s();
        let rewriting = self.child_kind() == Some(ChildKind::Aof);
        let aof = &mut self.persist.aof;
        let takes = match aof.state {
            AofState::Off => false,
            AofState::On => true,
            // The rewrite that is to complete the log has not begun: its snapshot will contain this command.
            AofState::WaitRewrite => rewriting,
        };
        if !takes {
            return;
        }
        aof.writing.feed(db, command, self.cfg.aof_timestamp_enabled, now_s);
    }

    /// Whether the log takes commands, or soon will.
    pub(crate) fn aof_wants_commands(&self) -> bool {
        self.persist.aof.state != AofState::Off && self.persist.loading.is_none()
    }

    /// Once a turn, before replies leave.
    pub(crate) fn flush_aof(&mut self) {
        let answering = self.check_gate();
        let (always, confirmed) = (self.syncs_always(), self.has_durable_acks());
        self.ks.effects.unsynced.set_wanted(always || confirmed);
        if self.persist.aof.state == AofState::Off {
            if confirmed {
                self.await_replicas();
            }
            return;
        }
        let start_us = self.clock.tick_us();
        self.write_aof(false, answering);
        if confirmed {
            self.await_replicas();
        }
        if self.persist.aof.state == AofState::On && self.persist.aof.fsynced_reploff.is_some() {
            self.persist.aof.fsynced_reploff = Some(self.persist.aof.shared.reploff());
        }
        self.admin.metrics.aof_us += (self.clock.tick_us() - start_us).max(0) as u64;
    }

    /// Writes without waiting for a sync that is under way.
    pub(crate) fn flush_aof_now(&mut self) {
        if self.persist.aof.state != AofState::Off {
            self.wait_for_gate();
            self.write_aof(true, false);
            self.wait_for_gate();
        }
    }

    fn is_aof_syncing(&self) -> bool {
        self.background.fsync.pending() > 0
    }

    pub(crate) fn write_aof(&mut self, forced: bool, answering: bool) {
        if self.is_gate_syncing(forced) {
            // What comes meanwhile is written and synced together, next.
            return;
        }
        let env = self.write_env(forced);
        if !self.persist.aof.writing.buf().is_empty()
            && self.awaits_more_changes(env.policy == AppendFsync::Always && !forced, answering)
        {
            return;
        }
        match self.persist.aof.writing.due(&env) {
            Due::Wait => return,
            Due::Sync => return self.sync_aof_if_due(&env),
            Due::Write => {}
            Due::WriteDespiteSync => log::info!(
                "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer without waiting for \
                 fsync to complete, this may slow down Redis."
            ),
        }
        if self.persist.aof_flush_sleep_us > 0 {
            std::thread::sleep(Duration::from_micros(self.persist.aof_flush_sleep_us));
        }
        let Some(file) = self.persist.aof.file.clone() else { return };
        let began = Instant::now();
        let (written, error) = write_most(&file, self.persist.aof.writing.buf());
        self.note_aof_write_latency(began.elapsed());
        let aof = &mut self.persist.aof;
        if written < aof.writing.buf().len() {
            return self.on_aof_write_error(&file, written, error, &env);
        }
        let (count, is_solved) = aof.writing.wrote_all();
        aof.current_size += count;
        if is_solved {
            log::info!("AOF write error looks solved, Redis can write again.");
        }
        self.sync_aof_if_due(&env);
    }

    fn write_env(&self, forced: bool) -> WriteEnv {
        WriteEnv {
            now_s: self.now_s(),
            policy: self.cfg.appendfsync,
            forced,
            syncing: self.is_aof_syncing(),
            spares_disk: self.cfg.no_appendfsync_on_rewrite && self.has_child(),
        }
    }

    /// A slow write counts twice: by what may have slowed it down, and as such.
    fn note_aof_write_latency(&mut self, took: Duration) {
        let ms = took.as_millis() as i64;
        let event = if self.is_aof_syncing() {
            "aof-write-pending-fsync"
        } else if self.has_child() {
            "aof-write-active-child"
        } else {
            "aof-write-alone"
        };
        self.note_latency(event, ms);
        self.note_latency("aof-write", ms);
    }

    fn on_aof_write_error(&mut self, file: &File, mut written: usize, error: Option<io::Error>, env: &WriteEnv) {
        let writing = &mut self.persist.aof.writing;
        let errno = error.as_ref().and_then(io::Error::raw_os_error);
        let Failure { may_say, is_short } = writing.failed(written, errno, env.now_s);
        if is_short {
            if may_say {
                let expected = writing.buf().len();
                log::warn!("Short write while writing to the AOF file: (nwritten={written}, expected={expected})");
            }
            match file.set_len(writing.size()) {
                Ok(()) => written = 0,
                Err(e) if may_say => log::warn!(
                    "Could not remove short write from the append-only file.  Redis may refuse to load the AOF the next \
                     time it starts.  ftruncate: {}",
                    reason(&e)
                ),
                Err(_) => {}
            }
        } else if may_say && let Some(e) = &error {
            log::warn!("Error writing to the AOF file: {}", reason(e));
        }
        if env.policy == AppendFsync::Always {
            // Replies of this turn are in the output buffers already, and what they tell cannot be taken back.
            log::warn!("Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting...");
            std::process::exit(1);
        }
        writing.keep(written);
        self.persist.aof.current_size += written as u64;
    }

    fn sync_aof_if_due(&mut self, env: &WriteEnv) {
        let offset = self.repl_offset();
        // Writing may have taken as long as the sync that was under way.
        let env = WriteEnv { syncing: self.is_aof_syncing(), ..*env };
        let aof = &mut self.persist.aof;
        let Some(file) = aof.file.clone() else { return };
        match aof.writing.sync_due(&env) {
            None => {}
            Some(SyncHow::BehindGate) => self.sync_behind_gate(),
            Some(SyncHow::Aside) => {
                let shared = aof.shared.clone();
                self.background.fsync.submit(move || shared.sync(&file, offset));
            }
        }
    }

    /// Waits until the syncing thread has nothing left.
    pub(crate) fn drain_aof_syncs(&self) {
        while self.is_aof_syncing() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Syncs a file that is no longer written and closes it, on the helper thread.
    pub(crate) fn retire_aof_file(&mut self) {
        if let Some(file) = self.persist.aof.file.take() {
            let shared = self.persist.aof.shared.clone();
            let offset = self.repl_offset();
            self.background.fsync.submit(move || {
                shared.sync(&file, offset);
                drop(file);
            });
            let now_s = self.now_s();
            self.persist.aof.writing.note_sync(now_s);
        }
    }

    /// `appendonly` was set to `no`.
    pub(crate) fn stop_aof(&mut self) {
        self.persist.aof.restart.cancel();
        if self.persist.aof.state == AofState::Off {
            return;
        }
        self.flush_aof_now();
        let now_s = self.now_s();
        let aof = &mut self.persist.aof;
        if let Some(file) = aof.file.take() {
            match file.sync_data() {
                Ok(()) => aof.writing.note_sync(now_s),
                Err(e) => log::warn!("Fail to fsync the AOF file: {}", reason(&e)),
            }
        }
        aof.writing.select_anew();
        aof.state = AofState::Off;
        aof.rewrites.unschedule();
        aof.writing.begin_increment(0);
        aof.fsynced_reploff = None;
        aof.writing.drop_buf();
        aof.shared.set_reploff(0);
        self.kill_aof_child();
    }

    /// `appendonly` was set to `yes`. False when the rewrite that has to come first cannot be started.
    pub(crate) fn start_aof(&mut self, in_exec: bool) -> bool {
        if self.persist.aof.state != AofState::Off {
            return true;
        }
        self.persist.aof.state = AofState::WaitRewrite;
        let kind = self.child_kind();
        if kind.is_some_and(|k| k != ChildKind::Aof) {
            self.persist.aof.rewrites.schedule();
            log::info!(
                "AOF was enabled but there is already another background operation. An AOF background was scheduled to \
                 start when possible."
            );
        } else if in_exec {
            self.persist.aof.rewrites.schedule();
            log::info!("AOF was enabled during a transaction. An AOF background was scheduled to start when possible.");
        } else {
            if kind == Some(ChildKind::Aof) {
                // Its increment is not being written, so its result could not be continued.
                log::info!(
                    "AOF was enabled but there is already an AOF rewriting in background. Stopping background AOF and \
                     starting a rewrite now."
                );
                self.kill_aof_child();
            }
            if !self.start_bgrewrite() {
                self.persist.aof.state = AofState::Off;
                log::warn!(
                    "Redis needs to enable the AOF but can't trigger a background AOF rewrite operation. Check the above \
                     logs for more info about the error."
                );
                return false;
            }
        }
        let now_s = self.now_s();
        let aof = &mut self.persist.aof;
        aof.writing.note_sync(now_s);
        if !aof.shared.is_ok() {
            log::warn!("AOF reopen, just ignore the AOF fsync error in bio job");
            aof.shared.forgive();
        }
        if aof.writing.forgive() {
            log::warn!("AOF reopen, just ignore the last error.");
        }
        true
    }

    /// Switches the log on again after a full synchronization, now or a little later. A replica that cannot keep its promise
    /// ends.
    pub(crate) fn restart_aof(&mut self) {
        let is_on = self.start_aof(false);
        let now_s = self.now_s();
        match self.persist.aof.restart.tried(is_on, now_s) {
            Tried::Done => {}
            Tried::Again => log::warn!(
                "Failed enabling the AOF after successful master synchronization! Trying it again in one second."
            ),
            Tried::Over => {
                log::warn!(
                    "FATAL: this replica instance finished the synchronization with its master, but the AOF can't be \
                     turned on. Exiting now."
                );
                std::process::exit(1);
            }
        }
    }

    /// `appendonly` was set. In a transaction the rewrite has to wait for its end.
    pub(crate) fn apply_appendonly(&mut self) -> Result<(), String> {
        if !self.cfg.appendonly {
            self.stop_aof();
        } else if !self.start_aof(self.depth > 1) {
            return Err("Unable to turn on AOF. Check server logs.".into());
        }
        Ok(())
    }

    /// `appendfsync` was set. What other threads still sync must not be taken for what this one has synced.
    pub(crate) fn apply_appendfsync(&mut self) {
        if self.cfg.appendfsync == AppendFsync::Always {
            self.drain_aof_syncs();
        }
    }

    /// Refuses writes, and PING for whoever watches us, while they cannot reach the disk.
    pub(crate) fn check_disk(&mut self, row: &Command, is_write: bool) -> Result<(), CmdError> {
        if !is_write && row.name != "ping" {
            return Ok(());
        }
        self.disk_error().map_or(Ok(()), Err)
    }

    /// A write of the master's stream or of the log being loaded cannot be refused when the disk fails: the process ends,
    /// unless `replica-ignore-disk-write-errors`.
    pub(crate) fn obey_despite_disk(&mut self) {
        const LOG_EVERY_MS: i64 = 10_000;
        if self.disk_error().is_none() {
            return;
        }
        assert!(self.cfg.replica_ignore_disk_write_errors, "Replica was unable to write command to disk.");
        let now = self.clock.ms();
        if now > self.persist.ignored_disk_error_ms + LOG_EVERY_MS {
            self.persist.ignored_disk_error_ms = now;
            log::warn!("Replica is applying a command even though it is unable to write to disk.");
        }
    }

    /// Why writes are refused, if they are: the last snapshot failed, or the log cannot be written.
    pub(crate) fn disk_error(&self) -> Option<CmdError> {
        Some(match self.persist.refusal(&self.cfg)? {
            Refusal::Snapshot => CmdError::of(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
                 Commands that may modify the data set are disabled, because this instance is configured to report \
                 errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the \
                 Redis logs for details about the RDB error.",
            ),
            Refusal::Log { errno } => {
                let text = nix::errno::Errno::from_raw(errno).desc();
                CmdError::text(format!("MISCONF Errors writing to the AOF file: {text}"))
            }
        })
    }

    /// At the start, after loading: a base if there is nothing yet, and the increment to write to. `Err` ends the server.
    pub(crate) fn open_aof_on_start(&mut self) -> Result<(), Logged> {
        if self.persist.aof.state != AofState::On {
            return Ok(());
        }
        let dir = self.persist.aof.dir.clone();
        dir.create().map_err(|_| Logged)?;
        if self.persist.aof.manifest.is_empty() {
            let name = self.persist.aof.manifest.new_base(&dir.filename, self.cfg.aof_use_rdb_preamble);
            if !self.write_base(&dir.path(&name)) {
                return Err(Logged);
            }
            log::info!("Creating AOF base file {} on server start", shown(&name));
        }
        let had_incr = !self.persist.aof.manifest.incr.is_empty();
        let name = self.persist.aof.manifest.last_incr(&dir.filename);
        let file = open_incr(&dir.path(&name), false).map_err(|e| {
            log::warn!("Can't open the append-only file {}: {}", shown(&name), reason(&e));
            Logged
        })?;
        dir.persist(&mut self.persist.aof.manifest).map_err(|_| Logged)?;
        let aof = &mut self.persist.aof;
        aof.file = Some(Arc::new(file));
        aof.writing.begin_increment(dir.file_size(&name).unwrap_or(0));
        let verb = if had_incr { "Opening" } else { "Creating" };
        log::info!("{verb} AOF incr file {} on server start", shown(&name));
        Ok(())
    }
}
