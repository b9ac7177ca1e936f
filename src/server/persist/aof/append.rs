//! Writing the append-only log: what is fed to it, when it is written, when it is synced, and what follows from errors.
//!
//! Commands collect in a buffer that is written once a turn, before replies leave. With `appendfsync always` the same
//! step syncs it, so whoever has a reply has the write on disk. A command stays in the buffer until it is written.

use crate::catalog::error::CmdError;
use crate::catalog::row::Command;
use crate::config::AppendFsync;
use crate::persist::Logged;
use crate::persist::aof::append::{ERROR_LOG_S, KEEP_BUF_BYTES, POSTPONE_S, open_incr, write_most};
use crate::persist::aof::manifest::{reason, shown};
use crate::persist::child::ChildKind;
use crate::persist::snapshot::put_command;
use crate::persist::state::AofState;
use crate::server::Server;
use std::fs::File;
use std::io::{self};
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
        if self.cfg.aof_timestamp_enabled && aof.timestamp_s < now_s {
            aof.timestamp_s = now_s;
            aof.buf.extend_from_slice(format!("#TS:{now_s}\r\n").as_bytes());
        }
        if let Some(db) = db
            && aof.selected_db != Some(db)
        {
            put_command(&mut aof.buf, &[b"SELECT", itoa::Buffer::new().format(db).as_bytes()]);
            aof.selected_db = Some(db);
        }
        aof.buf.extend_from_slice(command);
    }

    /// Whether the log takes commands, or soon will.
    pub(crate) fn aof_wants_commands(&self) -> bool {
        self.persist.aof.state != AofState::Off && self.persist.loading.is_none()
    }

    /// Once a turn, before replies leave.
    pub(crate) fn flush_aof(&mut self) {
        let answering = self.check_gate();
        let always = self.persist.aof.state != AofState::Off && self.cfg.appendfsync == AppendFsync::Always;
        self.ks.effects.unsynced.set_wanted(always);
        if self.persist.aof.state == AofState::Off {
            return;
        }
        let start_us = self.clock.tick_us();
        self.write_aof(false, answering);
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

    fn write_aof(&mut self, force: bool, answering: bool) {
        let now_s = self.now_s();
        let policy = self.cfg.appendfsync;
        if self.is_gate_syncing() {
            // What comes meanwhile is written and synced together, next.
            return;
        }
        if self.persist.aof.buf.is_empty() {
            self.sync_aof_if_due(policy, now_s);
            return;
        }
        if self.awaits_more_changes(policy == AppendFsync::Always && !force, answering) {
            return;
        }
        let syncing = policy == AppendFsync::Everysec && self.is_aof_syncing();
        if syncing && !force {
            let aof = &mut self.persist.aof;
            // A write would only wait for the disk like the sync does, and the clients with it.
            let since = *aof.postponed_since_s.get_or_insert(now_s);
            if now_s - since < POSTPONE_S {
                return;
            }
            aof.delayed_fsync += 1;
            log::info!(
                "Asynchronous AOF fsync is taking too long (disk is busy?). Writing the AOF buffer without waiting for \
                 fsync to complete, this may slow down Redis."
            );
        }
        if self.persist.aof_flush_sleep_us > 0 {
            std::thread::sleep(Duration::from_micros(self.persist.aof_flush_sleep_us));
        }
        let aof = &mut self.persist.aof;
        aof.postponed_since_s = None;
        let Some(file) = aof.file.clone() else { return };
        let began = Instant::now();
        let (written, error) = write_most(&file, &aof.buf);
        self.note_aof_write_latency(began.elapsed());
        let aof = &mut self.persist.aof;
        if written < aof.buf.len() {
            self.on_aof_write_error(&file, written, error, policy, now_s);
            return;
        }
        if !aof.last_write_ok {
            log::info!("AOF write error looks solved, Redis can write again.");
            aof.last_write_ok = true;
        }
        aof.current_size += written as u64;
        aof.incr_size += written as u64;
        if aof.buf.capacity() > KEEP_BUF_BYTES {
            aof.buf = Vec::new();
        } else {
            aof.buf.clear();
        }
        self.sync_aof_if_due(policy, now_s);
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

    fn on_aof_write_error(
        &mut self,
        file: &File,
        mut written: usize,
        error: Option<io::Error>,
        policy: AppendFsync,
        now_s: i64,
    ) {
        let aof = &mut self.persist.aof;
        let may_log = now_s - aof.last_error_log_s > ERROR_LOG_S;
        if may_log {
            aof.last_error_log_s = now_s;
        }
        aof.last_write_errno = error.as_ref().and_then(io::Error::raw_os_error).unwrap_or(libc::ENOSPC);
        if written == 0 {
            if may_log && let Some(e) = &error {
                log::warn!("Error writing to the AOF file: {}", reason(e));
            }
        } else {
            if may_log {
                let expected = aof.buf.len();
                log::warn!("Short write while writing to the AOF file: (nwritten={written}, expected={expected})");
            }
            aof.last_write_errno = libc::ENOSPC;
            match file.set_len(aof.incr_size) {
                Ok(()) => written = 0,
                Err(e) if may_log => log::warn!(
                    "Could not remove short write from the append-only file.  Redis may refuse to load the AOF the next \
                     time it starts.  ftruncate: {}",
                    reason(&e)
                ),
                Err(_) => {}
            }
        }
        if policy == AppendFsync::Always {
            // Replies of this turn are in the output buffers already, and what they tell cannot be taken back.
            log::warn!("Can't recover from AOF write error when the AOF fsync policy is 'always'. Exiting...");
            std::process::exit(1);
        }
        aof.last_write_ok = false;
        aof.current_size += written as u64;
        aof.incr_size += written as u64;
        aof.buf.drain(..written);
    }

    fn sync_aof_if_due(&mut self, policy: AppendFsync, now_s: i64) {
        let busy_child = self.cfg.no_appendfsync_on_rewrite && self.has_child();
        let offset = self.repl_offset();
        let syncing = self.is_aof_syncing();
        let aof = &mut self.persist.aof;
        let Some(file) = aof.file.clone() else { return };
        if aof.incr_synced == aof.incr_size || busy_child {
            return;
        }
        match policy {
            AppendFsync::No => {}
            AppendFsync::Always => self.sync_behind_gate(),
            AppendFsync::Everysec => {
                if now_s <= aof.last_fsync_s {
                    return;
                }
                if !syncing {
                    let shared = aof.shared.clone();
                    self.background.fsync.submit(move || shared.sync(&file, offset));
                    aof.incr_synced = aof.incr_size;
                }
                aof.last_fsync_s = now_s;
            }
        }
    }

    /// Retries what had to wait.
    pub(crate) fn aof_cron(&mut self) {
        let aof = &self.persist.aof;
        if aof.state == AofState::Off {
            return;
        }
        if aof.postponed_since_s.is_some() || (!aof.last_write_ok && self.every_ms(1000)) {
            self.write_aof(false, false);
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
            self.persist.aof.last_fsync_s = self.now_s();
        }
    }

    /// `appendonly` was set to `no`.
    pub(crate) fn stop_aof(&mut self) {
        if self.persist.aof.state == AofState::Off {
            return;
        }
        self.flush_aof_now();
        let now_s = self.now_s();
        let aof = &mut self.persist.aof;
        if let Some(file) = aof.file.take() {
            match file.sync_data() {
                Ok(()) => aof.last_fsync_s = now_s,
                Err(e) => log::warn!("Fail to fsync the AOF file: {}", reason(&e)),
            }
        }
        aof.selected_db = None;
        aof.state = AofState::Off;
        aof.rewrite_scheduled = false;
        aof.incr_size = 0;
        aof.incr_synced = 0;
        aof.fsynced_reploff = None;
        aof.buf = Vec::new();
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
            self.persist.aof.rewrite_scheduled = true;
            log::info!(
                "AOF was enabled but there is already another background operation. An AOF background was scheduled to \
                 start when possible."
            );
        } else if in_exec {
            self.persist.aof.rewrite_scheduled = true;
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
        aof.last_fsync_s = now_s;
        if !aof.shared.is_ok() {
            log::warn!("AOF reopen, just ignore the AOF fsync error in bio job");
            aof.shared.forgive();
        }
        if !aof.last_write_ok {
            log::warn!("AOF reopen, just ignore the last error.");
            aof.last_write_ok = true;
        }
        true
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
        let aof = &self.persist.aof;
        if self.cfg.stop_writes_on_bgsave_error && !self.cfg.save.is_empty() && !self.persist.rdb.last_bgsave_ok {
            return Some(CmdError::of(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. \
                 Commands that may modify the data set are disabled, because this instance is configured to report \
                 errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the \
                 Redis logs for details about the RDB error.",
            ));
        }
        let errno = match aof.state {
            AofState::Off => return None,
            _ if !aof.last_write_ok => aof.last_write_errno,
            _ if !aof.shared.is_ok() => aof.shared.errno.load(Ordering::Acquire),
            _ => return None,
        };
        let text = nix::errno::Errno::from_raw(errno).desc();
        Some(CmdError::text(format!("MISCONF Errors writing to the AOF file: {text}")))
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
        aof.incr_size = dir.file_size(&name).unwrap_or(0);
        aof.incr_synced = aof.incr_size;
        let verb = if had_incr { "Opening" } else { "Creating" };
        log::info!("{verb} AOF incr file {} on server start", shown(&name));
        Ok(())
    }
}
