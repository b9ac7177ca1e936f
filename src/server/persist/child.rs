//! The child process at work, of which there is at most one: forking it, what it reports while it runs, and its end.
//!
//! The child sees the server as it was at the fork and never touches a socket or the event loop; it reports through a
//! pipe and through its exit code.

use crate::persist::child::{Child, ChildKind, Reporter};
use crate::server::Server;
use crate::server::admin::config::ProcessClass;
use crate::sys::fork::{self, Ended, Side};
use crate::sys::{process, reserve};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Read};
use std::time::Instant;

impl Server {
    pub(crate) fn has_child(&self) -> bool {
        self.persist.child.is_some()
    }

    pub(crate) fn child_kind(&self) -> Option<ChildKind> {
        self.persist.child.as_ref().map(Child::kind)
    }

    /// Forks. `work` runs in the child and says whether it succeeded, which becomes the exit code.
    pub(crate) fn fork_child(
        &mut self,
        kind: ChildKind,
        work: impl FnOnce(&mut Server, &mut Reporter) -> bool,
    ) -> io::Result<Pid> {
        if self.has_child() {
            return Err(io::Error::from_raw_os_error(libc::EEXIST));
        }
        let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_CLOEXEC;
        let (read, write) = reserve::open_in_need(|| Ok(nix::unistd::pipe2(flags)?))?;
        let start = Instant::now();
        match fork::fork_process()? {
            Side::Child => {
                drop(read);
                fork::reset_child_signals();
                self.appear_as_child(kind);
                self.release_in_child();
                let mut reporter = Reporter::new(File::from(write), kind.label());
                let ok = work(self, &mut reporter);
                if ok {
                    reporter.send(true, 0);
                }
                fork::exit_child(i32::from(!ok));
            }
            Side::Parent(pid) => {
                let fork_us = start.elapsed().as_micros() as u64;
                self.persist.child_stats.forked(fork_us, self.ks.total_keys() as u64);
                self.persist.child = Some(Child::new(pid, kind, File::from(read)));
                self.set_avoid_resize(true);
                self.note_latency("fork", fork_us as i64 / 1000);
                if kind == ChildKind::RdbSocket && self.admin.debug.stops.after_fork {
                    crate::sys::process::stop();
                }
                Ok(pid)
            }
        }
    }

    /// Gives the child its title, its processors and its out-of-memory score. A score that cannot be set is in the log.
    fn appear_as_child(&mut self, kind: ChildKind) {
        fork::set_process_name(kind.process_name());
        self.show_title_of(kind.process_name());
        process::set_cpu_affinity(match kind {
            ChildKind::RdbDisk | ChildKind::RdbSocket => &self.cfg.bgsave_cpulist,
            ChildKind::Aof => &self.cfg.aof_rewrite_cpulist,
        });
        let _ = self.set_oom_score(ProcessClass::Child);
    }

    /// What a child must not keep: ports, so that a successor of a killed parent can listen.
    pub(crate) fn release_in_child(&mut self) {
        for listener in self.listeners.iter().chain(self.port.listeners()) {
            // The parent's descriptors stay open; nothing here uses the child's again.
            let _ = nix::unistd::close(listener.raw_fd());
        }
        for fd in self.bus.iter().flat_map(|bus| bus.descriptors()) {
            let _ = nix::unistd::close(fd);
        }
    }

    /// While a child shares our memory, resizing tables would copy it.
    fn set_avoid_resize(&mut self, avoid: bool) {
        let avoid = avoid || !self.admin.debug.dict_resizing;
        for db in &mut self.ks.dbs {
            db.set_avoid_resize(avoid);
        }
    }

    /// Takes in what the child has reported.
    pub(crate) fn receive_child_info(&mut self) {
        let Some(child) = &mut self.persist.child else { return };
        let mut buf = [0; 1536];
        // The pipe does not block; its end and its emptiness both end the reading.
        while let Ok(n @ 1..) = child.pipe().read(&mut buf) {
            child.take_reports(&buf[..n], &mut self.persist.child_stats);
        }
    }

    /// Deals with the child's end if it has come.
    pub(crate) fn check_child_done(&mut self) {
        let Some(child) = &self.persist.child else { return };
        let pid = child.pid();
        match fork::reap(pid, false) {
            Ok(None) => {}
            Ok(Some(ended)) => self.child_done(ended),
            Err(e) => {
                log::warn!("waitpid() returned an error: {}. child_pid = {pid}", e.desc());
                self.forget_child();
            }
        }
    }

    fn child_done(&mut self, ended: Ended) {
        let Some(child) = &self.persist.child else { return };
        let (pid, kind) = (child.pid(), child.kind());
        if ended == Ended::Exit(0) {
            self.receive_child_info();
        }
        // The handlers may want to fork anew, so the child is forgotten first.
        self.forget_child();
        match kind {
            ChildKind::RdbDisk | ChildKind::RdbSocket => self.bgsave_done(kind, pid, ended),
            ChildKind::Aof => self.bgrewrite_done(pid, ended),
        }
    }

    fn forget_child(&mut self) {
        self.persist.child = None;
        self.persist.child_stats.gone();
        self.set_avoid_resize(false);
    }

    /// Ends a snapshot child; its end is dealt with like any other, by `check_child_done`.
    pub(crate) fn kill_rdb_child(&self) {
        if let Some(child) = &self.persist.child
            && child.kind().is_rdb()
        {
            let _ = kill(child.pid(), Signal::SIGUSR1);
        }
    }

    /// Ends a rewrite of the log and waits for it.
    pub(crate) fn kill_aof_child(&mut self) {
        let Some(child) = &self.persist.child else { return };
        if child.kind() != ChildKind::Aof {
            return;
        }
        let pid = child.pid();
        log::info!("Killing running AOF rewrite child: {pid}");
        if kill(pid, Signal::SIGUSR1).is_ok() {
            let _ = fork::reap(pid, true);
        }
        self.remove_aof_temp_files(pid);
        self.forget_child();
        self.persist.aof.rewrites.stopped();
    }
}
