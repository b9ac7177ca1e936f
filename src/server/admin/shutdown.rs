//! The end of the server: asked for by SHUTDOWN or a signal, put off until replicas have caught up, called off, finished.
//!
//! While a shutdown waits for replicas, writes are paused and the clients that asked are blocked. The rooms that have
//! something to bring to an end do it in the functions at the bottom.

use super::hand_over::NO_HEIR;
use crate::admin::shutdown::{FAILED, HandOver, Shutdown, ShutdownFlags};
use crate::cluster::Cluster;
use crate::config::Supervised;
use crate::server::Server;
use crate::server::dispatch::blocked::{BlockKind, WaitEnd};
use crate::server::dispatch::pause::{PauseKind, PausePurpose};
use crate::sys::{service, signals};

impl Server {
    /// Looks at what signals asked for and at a shutdown that waits; called by the cron.
    pub(crate) fn shutdown_cron(&mut self) {
        if self.admin.shutdown.waiting.is_some() {
            self.go_on_shutting_down(true);
        } else if let Some(signal) = signals::stop_requested() {
            self.on_stop_signal(signal);
        } else if !self.is_writing_first_aof()
            && let Some(signal) = self.admin.shutdown.put_off.take()
        {
            self.on_stop_signal(signal);
        }
    }

    fn on_stop_signal(&mut self, signal: i32) {
        let flags = match signal {
            libc::SIGINT => self.cfg.shutdown_on_sigint,
            _ => self.cfg.shutdown_on_sigterm,
        };
        self.begin_shutdown(flags);
        if self.exit.is_none() && self.admin.shutdown.waiting.is_none() {
            // It failed, and the log says why: the next signal tries again, unless time alone helps.
            signals::forget_stop();
            if self.is_writing_first_aof() {
                log::info!("The server is going to exit when the AOF is written.");
                self.admin.shutdown.put_off = Some(signal);
            }
        }
    }

    /// Shuts down, at once or when replicas have caught up. A shutdown that waits already goes its way.
    pub(crate) fn begin_shutdown(&mut self, flags: ShutdownFlags) {
        if self.admin.shutdown.waiting.is_some() {
            return;
        }
        log::info!("User requested shutdown...");
        if self.cfg.supervised == Supervised::Systemd {
            service::tell_systemd_stopping();
        }
        let hands_over = self.wants_to_hand_over(flags);
        if flags.now || self.cfg.shutdown_timeout == 0 {
            // Without a moment to wait for what comes of it.
            if hands_over {
                self.tell_heir(flags);
            }
            return self.finish_shutdown(flags);
        }
        let in_sync = self.repl.all_in_sync();
        if in_sync && !hands_over {
            return self.finish_shutdown(flags);
        }
        let at = self.clock.ms() + self.cfg.shutdown_timeout * 1000;
        self.admin.shutdown.waiting = Some((flags, at));
        self.ask_replicas_for_offsets();
        self.pause_clients(PausePurpose::Shutdown, PauseKind::Write, i64::MAX);
        if !in_sync {
            log::info!("Waiting for replicas before shutting down.");
        }
        if hands_over {
            self.admin.shutdown.hand_over = HandOver::Wanted;
        }
    }

    /// Looks whether what a shutdown waits for has come; at the end of every turn, and in the cron.
    pub(crate) fn go_on_shutting_down(&mut self, in_cron: bool) {
        let Some((flags, at)) = self.admin.shutdown.waiting.filter(|_| self.exit.is_none()) else { return };
        let is_due = match self.admin.shutdown.hand_over {
            HandOver::No => self.repl.all_in_sync(),
            HandOver::Wanted => {
                self.admin.shutdown.hand_over = self.tell_heir(flags);
                false
            }
            HandOver::Told => {
                self.advance_hand_over(flags);
                false
            }
            // To look at all clients in every turn would be too much.
            HandOver::Done { at_ms } => {
                let is_again_master = self.cluster().is_some_and(Cluster::owns_slots);
                if is_again_master {
                    // Whoever took over has failed or handed back.
                    self.pause_clients(PausePurpose::Shutdown, PauseKind::Write, i64::MAX);
                    self.ask_replicas_for_offsets();
                    self.admin.shutdown.hand_over = HandOver::Wanted;
                }
                !is_again_master && in_cron && self.has_sent_clients_on(at_ms)
            }
        };
        if is_due || self.clock.ms() >= at {
            if self.admin.shutdown.hand_over == HandOver::Wanted {
                log::info!("{NO_HEIR}");
            }
            self.finish_shutdown(flags);
        }
    }

    /// Ends everything and sets the exit code, unless data would be lost: then the server goes on.
    fn finish_shutdown(&mut self, mut flags: ShutdownFlags) {
        self.kill_debug_sessions();
        if self.is_loading() {
            // Half of a data set must not replace the whole one on disk.
            (flags.save, flags.nosave) = (false, true);
        }
        self.log_lagging_replicas();
        if !self.persist_shutdown(flags.save, flags.nosave, flags.force) {
            log::warn!("Errors trying to shut down the server. Check the logs for more information.");
            self.cancel_shutdown();
            return;
        }
        if !self.cfg.pidfile.is_empty() {
            log::info!("Removing the pid file.");
            let _ = std::fs::remove_file(&self.cfg.pidfile);
        }
        self.flush_replicas();
        self.end_slot_migrations_at_exit();
        self.close_listeners();
        log::warn!("Redis is now ready to exit, bye bye...");
        self.exit = Some(0);
    }

    fn close_listeners(&mut self) {
        self.handshakes = Default::default();
        self.close_operators_port();
        for mut listener in std::mem::take(&mut self.listeners) {
            let _ = listener.deregister(self.reactor.registry());
        }
        if !self.cfg.unixsocket.is_empty() {
            log::info!("Removing the unix socket file.");
            if std::fs::remove_file(&self.cfg.unixsocket).is_err() {
                log::warn!("Error removing the unix socket file: {}", std::io::Error::last_os_error());
            }
        }
    }

    /// Calls a shutdown off that a signal asked for or that waits for replicas. False: there is none.
    pub(crate) fn abort_shutdown(&mut self) -> bool {
        if self.admin.shutdown.waiting.is_some() {
            self.cancel_shutdown();
        } else if signals::stop_requested().is_some() || self.admin.shutdown.put_off.is_some() {
            signals::forget_stop();
            self.admin.shutdown.put_off = None;
        } else {
            return false;
        }
        log::info!("Shutdown manually aborted.");
        true
    }

    fn cancel_shutdown(&mut self) {
        self.admin.shutdown = Shutdown::default();
        signals::forget_stop();
        let waiting: Vec<_> = self.blocked.clients.iter().copied().collect();
        for id in waiting {
            let is_ours =
                self.clients.get(id).and_then(|c| c.block.as_ref()).is_some_and(|b| b.kind == BlockKind::Shutdown);
            if is_ours {
                self.reply_error_to(id, &FAILED);
                self.unblock(id, WaitEnd::Failed);
            }
        }
        self.unpause_clients(PausePurpose::Shutdown);
    }
}
