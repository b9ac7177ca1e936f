//! Keeps replies back until what they tell is on disk, with `appendfsync always`.
//!
//! The log is written once a turn and synced on the helper thread, while the loop goes on reading and executing. Until
//! the sync is done no reply leaves that was produced after the written commands: not those to the commands themselves,
//! and not those of readers who may have seen their effects. What is executed meanwhile is covered by the next sync.
//!
//! A client that only read keys without such changes does not wait.
//!
//! Before the log is written, changes may wait a moment for others (`gather.rs`). While nobody asks for what is durable, all
//! clients wait for the sync anyway, and a quick disk is synced by the loop itself.
//!
//! Invariant: a byte is sent only if every command whose effects it may tell of has been synced, and after the bytes that
//! its client was to get before. Links to replicas and the cluster bus are not kept back: a replica may be ahead of our
//! disk, as nobody was told of it.

use crate::catalog::CmdRef;
use crate::catalog::row::flag;
use crate::net::ClientId;
use crate::persist::aof::manifest::reason;
use crate::persist::gate::{Opened, Step, Syncer};
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Server {
    /// Whether all that was executed has gone to the AOF, if it is to, and is as durable as it has to be.
    pub(crate) fn is_all_written(&self) -> bool {
        self.persist.aof.writing.buf().is_empty() && !self.is_output_gated()
    }

    /// Whether replies have to wait for a sync, but for those that tell only of what is durable.
    pub(crate) fn is_output_gated(&self) -> bool {
        self.persist.gate.is_shut()
    }

    /// When the log is to be written though nothing happens, monotonic microseconds.
    pub(crate) fn gather_deadline_us(&self) -> Option<i64> {
        self.persist.gate.gathering_until_us()
    }

    /// Whether what has to go to the log should wait for more to come. `may` it; `answering`: clients whose changes became
    /// durable are only now about to be told.
    pub(super) fn awaits_more_changes(&mut self, may: bool, answering: bool) -> bool {
        self.persist.gate.stop_gathering();
        if !may || self.exit.is_some() {
            return false;
        }
        let now_us = self.clock.tick_us();
        let waiting = self.clients_waiting_for_sync();
        self.persist.gate.gathers(waiting, answering, now_us)
    }

    /// Clients with output that tells of what is not durable.
    fn clients_waiting_for_sync(&self) -> usize {
        let ids = self.clients.pending_writes.iter().chain(self.persist.gate.held());
        ids.filter(|id| self.clients.get(**id).is_some_and(|c| c.out.pending() > c.out.released())).count()
    }

    /// Whether all that a client is about to be told may be durable, as far as what it was told before goes. False if that
    /// is not tracked, as nothing is held back.
    pub(crate) fn may_tell_durable(&self, id: ClientId) -> bool {
        self.ks.effects.unsynced.is_wanted()
            && self.clients.get(id).is_some_and(|c| c.out.released() >= c.out.pending())
    }

    /// Whether the reply to this command tells only of keys whose changes are all on disk.
    pub(crate) fn tells_only_durable(&self, cmd: CmdRef, args: Args<'_>) -> bool {
        let command = self.commands.get(cmd);
        let mut keys = command.keys.positions(args.len()).peekable();
        command.row.has(flag::READONLY)
            && command.row.keys.len() == 1
            && keys.peek().is_some()
            && keys.all(|at| !self.ks.effects.unsynced.contains(args.at(at)))
    }

    /// Keeps a client's output back.
    pub(crate) fn hold_output(&mut self, id: ClientId) {
        // Nothing was executed since the sync under way began: the output tells nothing that it does not cover.
        let is_covered = self.persist.aof.writing.buf().is_empty();
        let end = self.clients.get(id).filter(|_| is_covered).map(|c| c.out.end());
        self.persist.gate.hold(id, end);
    }

    /// A sync for `appendfsync always` is under way.
    pub(super) fn is_gate_syncing(&self) -> bool {
        self.persist.gate.is_syncing()
    }

    /// Once a turn, before anything else of the log: looks whether the sync under way is done. Whether clients are to be told
    /// that it is.
    pub(super) fn check_gate(&mut self) -> bool {
        let Opened { synced, released, held } = match self.persist.gate.check() {
            Step::Nothing => return false,
            Step::Failed(errno) => fail(&std::io::Error::from_raw_os_error(errno)),
            Step::Opened(opened) => opened,
        };
        for (id, until) in released {
            if let Some(c) = self.clients.get_mut(id) {
                c.out.release(until);
            }
        }
        if let Some((covers, us)) = synced {
            self.persist.aof.writing.synced_to(covers);
            self.note_sync(held.len(), us);
        }
        self.stop_holding(&held);
        !held.is_empty()
    }

    /// Takes note of a sync that is done, after which so many clients are told something or wait for the next.
    fn note_sync(&mut self, clients: usize, us: u64) {
        self.ks.effects.unsynced.sync_done();
        self.persist.gate.expect(clients, us, self.clock.tick_us());
        self.note_latency("aof-fsync-always", us as i64 / 1000);
        self.persist.aof.shared.took(us);
    }

    /// Lets output that was kept back be looked at anew.
    fn stop_holding(&mut self, held: &[ClientId]) {
        for id in held {
            if let Some(c) = self.clients.get_mut(*id) {
                c.flags.remove(ClientFlags::PENDING_WRITE);
                self.clients.want_write(*id);
            }
        }
    }

    /// Syncs what was written to the log. Returns at once if that takes long: the gate is shut then.
    pub(super) fn sync_behind_gate(&mut self) {
        let now_s = self.now_s();
        let offset = self.repl_offset();
        let aof = &mut self.persist.aof;
        let Some(file) = aof.file.clone() else { return };
        aof.writing.note_sync(now_s);
        let sleep_us = aof.sync_sleep_us;
        self.ks.effects.unsynced.sync_begins();
        match self.persist.gate.syncer(self.clock.mono_us()) {
            Syncer::Loop => {
                let start = Instant::now();
                sleep(sleep_us);
                if let Err(e) = file.sync_data() {
                    fail(&e);
                }
                let us = start.elapsed().as_micros() as u64;
                self.persist.aof.writing.synced_to(u64::MAX);
                self.persist.aof.shared.set_reploff(offset);
                let held = self.persist.gate.synced(us);
                self.stop_holding(&held);
                self.note_sync(self.clients.pending_writes.len(), us);
            }
            Syncer::Thread => self.hand_over_sync(file, sleep_us, offset),
        }
    }

    /// Has the thread sync what was written.
    fn hand_over_sync(&mut self, file: Arc<File>, sleep_us: u64, offset: i64) {
        let (aof, gate) = (&mut self.persist.aof, &mut self.persist.gate);
        let waiting = self.clients.pending_writes.iter().chain(gate.held());
        let ends = waiting.filter_map(|id| self.clients.get(*id).map(|c| (*id, c.out.end()))).collect();
        let shared = gate.shut(aof.writing.size(), ends);
        let (synced, waker) = (aof.shared.clone(), self.reactor.waker());
        self.background.fsync.submit(move || {
            let start = Instant::now();
            sleep(sleep_us);
            let errno = match file.sync_data() {
                Ok(()) => {
                    synced.set_reploff(offset);
                    0
                }
                Err(e) => e.raw_os_error().unwrap_or(libc::EIO),
            };
            shared.finish(errno, start.elapsed().as_micros() as u64);
            // The loop looks at the counter in its next turn in any case.
            let _ = waker.wake();
        });
    }

    /// Waits for the sync under way and takes note of it.
    pub(super) fn wait_for_gate(&mut self) {
        while self.persist.gate.is_syncing() {
            std::thread::sleep(Duration::from_micros(200));
        }
        self.check_gate();
    }
}

/// What DEBUG AOF-SYNC-SLEEP asks for.
fn sleep(us: u64) {
    if us > 0 {
        std::thread::sleep(Duration::from_micros(us));
    }
}

/// What has been promised cannot be kept.
fn fail(e: &std::io::Error) -> ! {
    log::warn!("Can't persist AOF for fsync error when the AOF fsync policy is 'always': {}. Exiting...", reason(e));
    std::process::exit(1)
}
