//! Keys in slots that another node serves go, in slices: what a slice leaves stays hidden until its turn. Replicas and the log
//! hear of every key.

use super::JobId;
use crate::catalog::CmdError;
use crate::keyspace::effects::notify;
use crate::net::ClientId;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use crate::structs::slots::{Slot, SlotSet, slots_in};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The longest slice.
const SLICE: Duration = Duration::from_millis(1);
/// The longest time for which keys are deleted within a command that cannot wait.
const AT_ONCE: Duration = Duration::from_millis(5);
/// Keys found at once.
const PAGE_KEYS: usize = 64;

/// Besides SETSLOT, which names one.
const GIVE_OUT_SLOTS: [&str; 5] =
    ["cluster|addslots", "cluster|addslotsrange", "cluster|flushslots", "cluster|replicate", "cluster|reset"];
const STILL_THERE: CmdError = CmdError::of("TRYAGAIN Keys that such slots had before are still being deleted");

/// The slots whose keys go, in order.
#[derive(Debug, Default)]
pub(super) struct Trim {
    queue: VecDeque<Slot>,
    /// The same slots, to be looked up.
    queued: SlotSet,
    /// Where the first one is gone on with.
    cursor: u64,
    /// There are slots in it that are not hidden yet: they are in this turn.
    is_longer: bool,
    /// Jobs that wait for slots.
    jobs: Vec<(JobId, SlotSet)>,
}

impl Trim {
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.queue.iter().copied()
    }
}

impl Server {
    /// All keys in a slot that another node serves now are to go.
    pub(in crate::server::cluster) fn delete_slot(&mut self, slot: Slot) {
        self.add_to_trim(std::iter::once(slot));
    }

    /// Whether keys are left in those of the slots that another node serves, from another time. They go.
    pub(crate) fn trims_first(&mut self, slots: &SlotSet) -> bool {
        let Some(machine) = self.cluster() else { return false };
        let slots = slots.without(&machine.myself().slots);
        let is_left = slots.iter().any(|slot| self.ks.dbs[0].slot_len(slot) > 0);
        if is_left {
            self.add_to_trim(slots.iter());
        }
        is_left
    }

    fn add_to_trim(&mut self, slots: impl Iterator<Item = Slot>) {
        let Some(bus) = &mut self.bus else { return };
        let Trim { queue, queued, is_longer, .. } = &mut bus.migrations.trim;
        queue.extend(slots.filter(|slot| self.ks.dbs[0].slot_len(*slot) > 0 && queued.insert(*slot)));
        *is_longer = true;
    }

    /// The keys of a job go.
    pub(super) fn delete_for_job(&mut self, job: JobId, slots: &SlotSet) {
        self.add_to_trim(slots.iter());
        if let Some(bus) = &mut self.bus {
            bus.migrations.trim.jobs.push((job, slots.clone()));
        }
    }

    /// Whether keys are left that are to go.
    pub(crate) fn is_trimming(&self) -> bool {
        self.bus.as_ref().is_some_and(|bus| !bus.migrations.trim.queue.is_empty())
    }

    /// Whether keys in one of these slots are to go.
    pub(crate) fn is_trimming_any(&self, mut slots: impl Iterator<Item = Slot>) -> bool {
        let Some(bus) = self.bus.as_ref().filter(|_| self.is_trimming()) else { return false };
        slots.any(|slot| bus.migrations.trim.queued.contains(slot))
    }

    /// Before the loop sleeps: a slice. Whether the machine has something to do on account of it.
    pub(crate) fn trim_slots(&mut self) -> bool {
        let Some(bus) = &self.bus else { return false };
        let trim = &bus.migrations.trim;
        if self.depth > 0 || trim.queue.is_empty() && trim.jobs.is_empty() {
            return false;
        }
        // A replica that takes over has what was written until then, and nothing is to come after it.
        if self.writes_paused() && !self.is_replica() {
            return false;
        }
        if self.is_replica() {
            // Our master sees to its keys.
            if let Some(bus) = &mut self.bus {
                bus.migrations.trim = Trim::default();
            }
            self.review_slots();
            // Commands that wait for slots to be empty do not wait on a replica.
            self.release_postponed();
            return false;
        }
        if let Some(bus) = &mut self.bus
            && std::mem::take(&mut bus.migrations.trim.is_longer)
        {
            self.review_slots();
        }
        self.trim_until(Instant::now() + SLICE)
    }

    /// Slots are about to be given out anew (all, or `slots`): whether the command waits until nothing is left in them of
    /// another time. Where it cannot wait, as in a script, what there is time for goes at once; if that is not all, the command
    /// is refused.
    pub(crate) fn waits_for_trim(
        &mut self,
        id: ClientId,
        args: Args<'_>,
        slots: Option<&[(Slot, Slot)]>,
    ) -> Result<bool, CmdError> {
        let is_meant = |server: &Server| match slots {
            Some(slots) => server.is_trimming_any(slots_in(slots)),
            None => server.is_trimming(),
        };
        if !is_meant(self) || self.is_replica() {
            return Ok(false);
        }
        let waits =
            self.clients.get(id).is_some_and(|c| c.conn.is_some() && !c.is(ClientFlags::MULTI)) && self.depth == 1;
        if waits {
            self.postpone_this(id, args);
            return Ok(true);
        }
        let _ = self.trim_until(Instant::now() + AT_ONCE);
        if is_meant(self) { Err(STILL_THERE) } else { Ok(false) }
    }

    /// Whether a transaction is to give out slots anew in which keys of another time are left. It waits as a whole.
    pub(crate) fn transaction_waits_for_trim(&self, c: &Client) -> bool {
        let gives_out = |name: &str, args: Args<'_>| match name {
            "cluster|setslot" => {
                let slot = args.get(2).and_then(|slot| std::str::from_utf8(slot).ok()?.parse().ok());
                self.is_trimming_any(slot.into_iter())
            }
            _ => GIVE_OUT_SLOTS.contains(&name),
        };
        let is_exec = c.is(ClientFlags::MULTI) && self.is_trimming() && !self.is_replica();
        is_exec && c.multi.queued.iter().any(|(cmd, args)| gives_out(self.commands.get(cmd).row.name, args))
    }

    /// Deletes keys until `deadline`. Whether the machine has something to do on account of it.
    fn trim_until(&mut self, deadline: Instant) -> bool {
        self.begin_effects();
        let mut slots_done = false;
        while let Some((slot, cursor)) = self.next_to_trim() {
            let mut page = Vec::new();
            let next = self.ks.dbs[0].scan_slot(slot, cursor, PAGE_KEYS, |entry| page.push(entry.key().to_vec()));
            for key in &page {
                self.trim_key(key);
            }
            let is_done = next == 0 && self.ks.dbs[0].slot_len(slot) == 0;
            slots_done |= is_done;
            let Some(bus) = &mut self.bus else { return false };
            let trim = &mut bus.migrations.trim;
            trim.cursor = next;
            if is_done && let Some(slot) = trim.queue.pop_front() {
                trim.queued.remove(slot);
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        if self.depth == 0 {
            self.ks.effects.no_multi = true;
            self.drain_effects();
            self.ks.effects.no_multi = false;
        }
        let jobs_done = self.note_trimmed_jobs();
        if slots_done {
            self.review_slots();
            // Sources of such slots may wait.
            self.release_postponed();
        }
        jobs_done
    }

    fn next_to_trim(&self) -> Option<(Slot, u64)> {
        let trim = &self.bus.as_ref()?.migrations.trim;
        Some((*trim.queue.front()?, trim.cursor))
    }

    fn trim_key(&mut self, key: &[u8]) {
        let lazy = self.cfg.lazyfree_lazy_server_del;
        if self.ks.delete(0, key, lazy) {
            let word: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
            self.ks.effects.propagate_now(0, &[word, key]);
            self.ks.effects.notify(notify::GENERIC, "del", key, 0);
            self.ks.effects.dirty += 1;
        }
    }

    /// Tells the machine of jobs whose keys are all gone.
    fn note_trimmed_jobs(&mut self) -> bool {
        let Some(bus) = &mut self.bus else { return false };
        let trim = &mut bus.migrations.trim;
        if trim.jobs.is_empty() {
            return false;
        }
        let jobs = std::mem::take(&mut trim.jobs);
        let (done, waiting): (Vec<_>, _) =
            jobs.into_iter().partition(|(_, slots)| slots.without(&trim.queued) == *slots);
        trim.jobs = waiting;
        for (job, _) in &done {
            self.with_cluster(|machine, env| machine.on_slots_deleted(*job, env));
        }
        !done.is_empty()
    }
}
