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
//! With durable acknowledgements (`server/cluster/durable.rs`) the same gate stays shut until replicas have confirmed what
//! was executed.
//!
//! Invariant: a byte is sent only if every command whose effects it may tell of has been synced and confirmed, as far as
//! that is asked for, and after the bytes that its client was to get before. Links to replicas and the cluster bus are not kept back: a replica may be ahead of our
//! disk, as nobody was told of it.

use crate::catalog::CmdRef;
use crate::catalog::row::{cat, flag};
use crate::cluster::Cluster;
use crate::config::AppendFsync;
use crate::net::ClientId;
use crate::persist::aof::manifest::reason;
use crate::persist::gate::{Opened, Step, Syncer};
use crate::persist::state::AofState;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::cluster::durable::DurableRole;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Confirmations are waited for for a node timeout, and this long at least, milliseconds.
const MIN_PATIENCE_MS: i64 = 500;

impl Server {
    /// Whether all that was executed has gone to the AOF, if it is to, and is as durable as it has to be.
    pub(crate) fn is_all_written(&self) -> bool {
        self.persist.aof.writing.buf().is_empty() && !self.is_output_gated() && self.is_all_confirmed()
    }

    /// Whether replicas have confirmed all that was executed, if they are to.
    fn is_all_confirmed(&self) -> bool {
        !self.has_durable_acks() || self.confirmed_offset() >= self.repl_offset()
    }

    /// Whether the log is synced before anybody is told of what it has.
    pub(crate) fn syncs_always(&self) -> bool {
        self.persist.aof.state != AofState::Off && self.cfg.appendfsync == AppendFsync::Always
    }

    /// Whether replies have to wait for a sync or for replicas, but for those that tell only of what is durable.
    pub(crate) fn is_output_gated(&self) -> bool {
        self.persist.gate.is_shut()
    }

    /// Whether it is not replicas alone that replies wait for.
    pub(crate) fn is_output_gated_by_disk(&self) -> bool {
        self.persist.gate.is_shut_by_disk()
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
        // A script may read keys that it does not name.
        command.row.has(flag::READONLY)
            && command.row.categories() & cat::SCRIPTING == 0
            && command.row.keys.len() == 1
            && keys.peek().is_some()
            && keys.all(|at| !self.ks.effects.unsynced.contains(args.at(at)))
    }

    /// Whether replies of the command tell nothing that is in the data set.
    pub(crate) fn tells_no_data(&self, cmd: CmdRef) -> bool {
        let row = self.commands.get(cmd).row;
        let changes = flag::WRITE | flag::MAY_REPLICATE | flag::PROTECTED;
        let is_apart = row.categories() & (cat::TRANSACTION | cat::SCRIPTING) == 0;
        row.keys.is_empty()
            && row.flags & changes == 0
            && is_apart
            && (row.has(flag::STALE) || row.categories() & cat::CONNECTION != 0)
            && !matches!(row.name, "cluster|countkeysinslot" | "cluster|getkeysinslot")
    }

    /// Whether this reply to a write says that replicas are missing: so nothing was done. (What a script says may be anything.)
    pub(crate) fn refused_for_replicas(&self, cmd: CmdRef, reply: &[u8]) -> bool {
        self.commands.get(cmd).row.has(flag::WRITE) && reply.starts_with(b"-NOREPLICAS")
    }

    /// Keeps a client's output back.
    pub(crate) fn hold_output(&mut self, id: ClientId) {
        // Nothing was executed since the sync under way began: the output tells nothing that it does not cover.
        let is_covered = match self.persist.gate.awaited_offset() {
            Some(offset) => offset >= self.repl_offset(),
            None => self.persist.aof.writing.buf().is_empty(),
        };
        let end = self.clients.get(id).filter(|_| is_covered).map(|c| c.out.end());
        self.persist.gate.hold(id, end);
    }

    /// A sync for `appendfsync always` is under way, or has to be confirmed before the next one.
    pub(super) fn is_gate_syncing(&self, forced: bool) -> bool {
        let gate = &self.persist.gate;
        gate.is_syncing() || (!forced && gate.awaits_replicas() && self.syncs_always())
    }

    /// With durable acknowledgements, once a turn: what was executed has to be confirmed before anybody is told of it.
    pub(super) fn await_replicas(&mut self) {
        let offset = self.repl_offset();
        if self.persist.gate.is_shut() || self.confirmed_offset() >= offset {
            return;
        }
        if self.cluster().is_some_and(Cluster::inherits_unconfirmed) {
            self.ks.effects.unsynced.note_all();
        }
        // The stream has more than changes: nobody is told of those.
        if !self.ks.effects.unsynced.has_changes() {
            return;
        }
        let now_us = self.clock.tick_us();
        self.ks.effects.unsynced.sync_begins();
        let ends = self.waiting_ends();
        self.persist.gate.cover(ends);
        self.persist.gate.await_replicas(offset, now_us);
    }

    /// Where the output of those ends who may have something to be told.
    fn waiting_ends(&self) -> Vec<(ClientId, u64)> {
        let waiting = self.clients.pending_writes.iter().chain(self.persist.gate.held());
        waiting.filter_map(|id| self.clients.get(*id).map(|c| (*id, c.out.end()))).collect()
    }

    /// Looks whether replicas have confirmed what they are waited for, or it makes no sense to wait any longer.
    fn check_confirmed(&mut self) {
        let offset = self.confirmed_offset();
        self.persist.gate.note_confirmed(offset);
        match self.note_durable_role() {
            DurableRole::None => {}
            // The operator does without.
            DurableRole::Ended => self.persist.gate.stop_awaiting(),
            DurableRole::Deposed => {
                // What was executed in this turn is the old master's, too.
                let mut ids = self.stop_waiting();
                ids.extend_from_slice(&self.clients.pending_writes);
                self.give_up_unconfirmed(&ids);
                self.persist.gate.stop_awaiting();
            }
            DurableRole::Master => {
                let patience_us = self.cfg.cluster_node_timeout.max(MIN_PATIENCE_MS).saturating_mul(1000);
                let is_stalled = self.persist.gate.awaits_for_us(self.clock.tick_us()) > patience_us;
                self.note_stalled(is_stalled);
                if is_stalled {
                    let ids = self.stop_waiting();
                    self.give_up_unconfirmed(&ids);
                }
            }
        }
    }

    /// Lets those go whose output is kept back; the gate stays shut.
    fn stop_waiting(&mut self) -> Vec<ClientId> {
        let held = self.persist.gate.give_up();
        self.stop_holding(&held);
        held
    }

    /// Once a turn, before anything else of the log: looks whether the sync under way is done. Whether clients are to be told
    /// that it is.
    pub(super) fn check_gate(&mut self) -> bool {
        if self.bus.is_some() {
            self.check_confirmed();
        }
        let Opened { synced, released, held, confirmed } = match self.persist.gate.check() {
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
        if confirmed {
            self.ks.effects.unsynced.sync_done();
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
        let waits_for_replicas = self.has_durable_acks();
        match self.persist.gate.syncer(self.clock.mono_us()) {
            Syncer::Loop if !waits_for_replicas => {
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
            Syncer::Loop | Syncer::Thread => {
                self.hand_over_sync(file, sleep_us, offset);
                if waits_for_replicas {
                    let now_us = self.clock.tick_us();
                    self.persist.gate.await_replicas(offset, now_us);
                }
            }
        }
    }

    /// Has the thread sync what was written.
    fn hand_over_sync(&mut self, file: Arc<File>, sleep_us: u64, offset: i64) {
        let ends = self.waiting_ends();
        let (aof, gate) = (&mut self.persist.aof, &mut self.persist.gate);
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
