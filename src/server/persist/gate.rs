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
use crate::persist::gate::{READERS_STAY_US, WORTH_HANDING_OVER_US, WORTH_WAITING_US, fail, sleep};
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use std::sync::atomic::Ordering;
use std::time::Instant;

impl Server {
    /// Whether all that was executed has gone to the AOF, if it is to, and is as durable as it has to be.
    pub(crate) fn is_all_written(&self) -> bool {
        self.persist.aof.buf.is_empty() && !self.is_output_gated()
    }

    /// Whether replies have to wait for a sync, but for those that tell only of what is durable.
    pub(crate) fn is_output_gated(&self) -> bool {
        self.persist.gate.is_syncing() || self.persist.gate.gathering_until_us.is_some()
    }

    /// When the log is to be written though nothing happens, monotonic microseconds.
    pub(crate) fn gather_deadline_us(&self) -> Option<i64> {
        self.persist.gate.gathering_until_us
    }

    /// Whether what has to go to the log should wait for more to come. `may` it; `answering`: clients whose changes became
    /// durable are only now about to be told.
    pub(super) fn awaits_more_changes(&mut self, may: bool, answering: bool) -> bool {
        self.persist.gate.gathering_until_us = None;
        if !may || self.exit.is_some() {
            return false;
        }
        let now_us = self.clock.tick_us();
        let waiting = self.clients_waiting_for_sync();
        let gate = &mut self.persist.gate;
        gate.gathering_until_us = if answering { Some(now_us) } else { gate.gather.wait_until(waiting, now_us) };
        gate.gathering_until_us.is_some()
    }

    /// Clients with output that tells of what is not durable.
    fn clients_waiting_for_sync(&self) -> usize {
        let ids = self.clients.pending_writes.iter().chain(&self.persist.gate.held);
        ids.filter(|id| self.clients.get(**id).is_some_and(|c| c.out.pending() > c.out.released())).count()
    }

    /// Whether all that a client is about to be told may be durable, as far as what it was told before goes. False if that
    /// is not kept book of, as nothing is held back.
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
        if self.persist.aof.buf.is_empty()
            && let Some(c) = self.clients.get(id)
        {
            self.persist.gate.covered.push((id, c.out.end()));
        }
        self.persist.gate.held.push(id);
    }

    /// A sync for `appendfsync always` is under way.
    pub(super) fn is_gate_syncing(&self) -> bool {
        self.persist.gate.is_syncing()
    }

    /// Once a turn, before anything else of the log: looks whether the sync under way is done. Whether clients are to be told
    /// that it is.
    pub(super) fn check_gate(&mut self) -> bool {
        let gate = &mut self.persist.gate;
        if gate.is_syncing()
            || gate.gathering_until_us.is_some()
            || (gate.covered.is_empty() && gate.held.is_empty() && gate.covers == 0)
        {
            return false;
        }
        let errno = gate.shared.errno.load(Ordering::Acquire);
        if errno != 0 {
            fail(&std::io::Error::from_raw_os_error(errno));
        }
        let covers = std::mem::take(&mut gate.covers);
        for (id, until) in std::mem::take(&mut gate.covered) {
            if let Some(c) = self.clients.get_mut(id) {
                c.out.release(until);
            }
        }
        if covers > 0 {
            let aof = &mut self.persist.aof;
            aof.incr_synced = aof.incr_synced.max(covers.min(aof.incr_size));
            let us = self.persist.gate.shared.last_us.load(Ordering::Relaxed);
            self.note_sync(self.persist.gate.held.len(), us);
        }
        self.stop_holding()
    }

    /// Takes note of a sync that is done, after which so many clients are told something or wait for the next.
    fn note_sync(&mut self, clients: usize, us: u64) {
        self.ks.effects.unsynced.sync_done();
        self.persist.gate.gather.expect(clients, us, self.clock.tick_us());
        self.note_latency("aof-fsync-always", us as i64 / 1000);
    }

    /// Lets the clients' output that was kept back be looked at anew. Whether there was any.
    fn stop_holding(&mut self) -> bool {
        let held = std::mem::take(&mut self.persist.gate.held);
        for id in &held {
            if let Some(c) = self.clients.get_mut(*id) {
                c.flags.remove(ClientFlags::PENDING_WRITE);
                self.clients.want_write(*id);
            }
        }
        !held.is_empty()
    }

    /// Whether the loop should sync the log itself, by what the last sync took and whom it would keep waiting.
    fn syncs_in_loop(&self) -> bool {
        let gate = &self.persist.gate;
        match gate.shared.last_us.load(Ordering::Relaxed) {
            0..WORTH_HANDING_OVER_US => true,
            WORTH_HANDING_OVER_US..WORTH_WAITING_US => {
                gate.read_us.is_none_or(|at| self.clock.mono_us() - at >= READERS_STAY_US)
            }
            _ => false,
        }
    }

    /// Syncs what was written to the log. Returns at once if that takes long: the gate is shut then.
    pub(super) fn sync_behind_gate(&mut self) {
        let now_s = self.now_s();
        let offset = self.repl_offset();
        let aof = &mut self.persist.aof;
        let Some(file) = aof.file.clone() else { return };
        aof.last_fsync_s = now_s;
        let sleep_us = aof.sync_sleep_us;
        self.ks.effects.unsynced.sync_begins();
        if self.syncs_in_loop() {
            let start = Instant::now();
            sleep(sleep_us);
            if let Err(e) = file.sync_data() {
                fail(&e);
            }
            let us = start.elapsed().as_micros() as u64;
            let (aof, gate) = (&mut self.persist.aof, &mut self.persist.gate);
            gate.shared.last_us.store(us, Ordering::Relaxed);
            aof.incr_synced = aof.incr_size;
            aof.shared.set_reploff(offset);
            self.stop_holding();
            return self.note_sync(self.clients.pending_writes.len(), us);
        }
        let (aof, gate) = (&mut self.persist.aof, &mut self.persist.gate);
        gate.covers = aof.incr_size;
        gate.started += 1;
        let waiting = self.clients.pending_writes.iter().chain(&gate.held);
        let ends = waiting.filter_map(|id| self.clients.get(*id).map(|c| (*id, c.out.end())));
        gate.covered = ends.collect();
        let (shared, synced, waker) = (gate.shared.clone(), aof.shared.clone(), self.reactor.waker());
        self.background.fsync.submit(move || {
            let start = Instant::now();
            sleep(sleep_us);
            match file.sync_data() {
                Ok(()) => synced.set_reploff(offset),
                Err(e) => shared.errno.store(e.raw_os_error().unwrap_or(libc::EIO), Ordering::Release),
            }
            shared.last_us.store(start.elapsed().as_micros() as u64, Ordering::Relaxed);
            shared.done.fetch_add(1, Ordering::Release);
            // The loop looks at the counter in its next turn in any case.
            let _ = waker.wake();
        });
    }

    /// Waits for the sync under way and takes note of it.
    pub(super) fn wait_for_gate(&mut self) {
        while self.persist.gate.is_syncing() {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        self.check_gate();
    }
}
