//! Keys in slots that another node serves go, in slices: what a slice leaves stays hidden until its turn. Replicas and the log
//! hear of every key.

use super::JobId;
use crate::catalog::CmdError;
use crate::keyspace::effects::notify;
use crate::net::ClientId;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use crate::structs::slots::{SLOT_COUNT, Slot, SlotSet, slots_in};
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

/// How keys go that are to be deleted; DEBUG ASM-TRIM-METHOD chooses another way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TrimMethod {
    /// In slices, and replicas and the log hear of every key. On a replica, what its master says goes at once.
    #[default]
    ByKey,
    /// In slices, and replicas and the log hear of the slots; a replica goes through them by itself.
    BySlot,
    /// All at once, to be freed in the background; replicas and the log hear of the slots.
    AtOnce,
    /// They stay.
    Never,
}

/// Slots whose keys go that were named together.
#[derive(Debug, Default)]
struct Part {
    named: SlotSet,
    /// Those that are left, in order.
    queue: VecDeque<Slot>,
    /// More of this turn may join it.
    is_open: bool,
    /// It was told of in the log, and if it has to be, to replicas and the file.
    is_scheduled: bool,
    /// Replicas know of the slots: they need not hear of keys.
    is_told: bool,
    /// Our master told of it.
    is_of_master: bool,
    is_begun: bool,
}

/// What CLUSTER INFO says of keys that go in slices.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrimFigures {
    /// Parts; not those that came up while writes are paused.
    pub(crate) running: usize,
    /// Keys that the part begun last had, and how many of them went.
    pub(crate) keys: usize,
    pub(crate) trimmed: usize,
    /// Parts, since the start.
    pub(crate) started: u64,
    pub(crate) completed: u64,
    pub(crate) cancelled: u64,
}

/// The slots whose keys go, in order.
#[derive(Debug, Default)]
pub(super) struct Trim {
    parts: VecDeque<Part>,
    /// The same slots, to be looked up.
    pub(super) queued: SlotSet,
    /// Where the first one is gone on with.
    cursor: u64,
    /// There are slots in it that are not hidden yet: they are in this turn.
    is_longer: bool,
    /// Jobs that wait for slots.
    jobs: Vec<(JobId, SlotSet)>,
    figures: TrimFigures,
    /// For debugging: how, and the time from one key to the next, microseconds; negative: none goes.
    method: TrimMethod,
    delay_us: i64,
    next_key_at: Option<Instant>,
}

impl Trim {
    pub(super) fn slots(&self) -> impl Iterator<Item = Slot> + '_ {
        self.parts.iter().flat_map(|part| part.queue.iter().copied())
    }

    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// DEBUG has it stand still.
    fn is_stopped(&self) -> bool {
        self.delay_us < 0
    }

    /// Slots with keys are to be gone through, those that are not on the list yet.
    fn add(&mut self, slots: &SlotSet, joins: bool) {
        let slots = slots.without(&self.queued);
        if slots.is_empty() {
            return;
        }
        self.queued = self.queued.with(&slots);
        self.is_longer = true;
        match self.parts.back_mut().filter(|part| joins && part.is_open) {
            Some(part) => {
                part.named = part.named.with(&slots);
                part.queue.extend(slots.iter());
            }
            None => {
                let queue = slots.iter().collect();
                self.parts.push_back(Part { named: slots, queue, is_open: joins, ..Part::default() });
            }
        }
    }

    /// Nothing is left in the first slot.
    fn end_slot(&mut self, slot: Slot) {
        self.queued.remove(slot);
        let Some(part) = self.parts.front_mut() else { return };
        part.queue.pop_front();
        if part.queue.is_empty()
            && let Some(part) = self.parts.pop_front()
        {
            let trimmed = self.figures.trimmed;
            self.figures.completed += 1;
            log::info!("Active trim completed for slots: {}, {trimmed} keys trimmed.", text_of(&part.named));
        }
    }

    /// Nothing is left in these slots, which went by other means.
    fn drop_slots(&mut self, slots: &SlotSet) {
        slots.iter().for_each(|slot| _ = self.queued.remove(slot));
        self.parts.iter_mut().for_each(|part| part.queue.retain(|slot| !slots.contains(*slot)));
        self.parts.retain(|part| !part.queue.is_empty());
        self.cursor = 0;
    }

    /// Forgets what is to go.
    fn cancel(&mut self, is_meant: impl Fn(&Part) -> bool) {
        let (gone, kept): (VecDeque<Part>, _) =
            std::mem::take(&mut self.parts).into_iter().partition(|part| is_meant(part));
        for part in &gone {
            part.queue.iter().for_each(|slot| _ = self.queued.remove(*slot));
            log::info!("Cancelling the pending trim job for slots: {}", text_of(&part.named));
        }
        self.figures.cancelled += gone.len() as u64;
        (self.parts, self.cursor, self.is_longer) = (kept, 0, true);
    }
}

/// `a-b c-d`
fn text_of(slots: &SlotSet) -> String {
    let ranges: Vec<String> = slots.ranges().iter().map(|(first, last)| format!("{first}-{last}")).collect();
    ranges.join(" ")
}

impl Server {
    /// Whether keys are left in those of the slots that another node serves, from another time. They go.
    pub(crate) fn trims_first(&mut self, slots: &SlotSet) -> bool {
        let Some(machine) = self.cluster() else { return false };
        let slots = slots.without(&machine.myself().slots);
        let left = self.ks.dbs[0].slots_with_keys(&slots);
        self.add_to_trim(&left, false);
        !left.is_empty()
    }

    /// All keys in slots that another node serves now are to go, together with others of this turn if it `joins` these.
    pub(in crate::server::cluster) fn add_to_trim(&mut self, slots: &SlotSet, joins: bool) {
        let Some(bus) = &mut self.bus else { return };
        let trim = &mut bus.migrations.trim;
        if trim.method != TrimMethod::Never {
            trim.add(&self.ks.dbs[0].slots_with_keys(slots), joins);
        }
    }

    /// Our master, or the log, says that the keys in these slots go: what comes next may be about the same slots. Whether that
    /// was done at once.
    pub(crate) fn trim_as_told(&mut self, slots: &SlotSet, by_master: bool) {
        let goes_by_itself = by_master && self.trim_method() == TrimMethod::BySlot;
        if !goes_by_itself {
            let removed = self.ks.flush_slots(slots, true);
            self.ks.effects.dirty += removed as u64;
            return;
        }
        let Some(bus) = &mut self.bus else { return };
        let trim = &mut bus.migrations.trim;
        let before = trim.parts.len();
        trim.add(&self.ks.dbs[0].slots_with_keys(slots), false);
        if let Some(part) = trim.parts.get_mut(before) {
            (part.is_told, part.is_of_master) = (true, true);
        }
    }

    /// DEBUG ASM-TRIM-METHOD.
    pub(crate) fn set_trim_method(&mut self, method: TrimMethod, delay_us: i64) {
        let Some(bus) = &mut self.bus else { return };
        let mine = bus.machine.slots_of_shard();
        let left = SlotSet::of_range(0, SLOT_COUNT as Slot - 1).without(mine);
        let trim = &mut bus.migrations.trim;
        let was = std::mem::replace(&mut trim.method, method);
        (trim.delay_us, trim.next_key_at) = (delay_us, None);
        if was == TrimMethod::Never && !self.is_replica() {
            let coming = self.cluster().map(|machine| machine.importing_slots()).unwrap_or_default();
            self.add_to_trim(&left.without(&coming), false);
        }
    }

    fn trim_method(&self) -> TrimMethod {
        self.bus.as_ref().map_or(TrimMethod::default(), |bus| bus.migrations.trim.method)
    }

    pub(crate) fn trim_figures(&self) -> TrimFigures {
        let Some(bus) = &self.bus else { return TrimFigures::default() };
        let trim = &bus.migrations.trim;
        // What waits for the end of a pause does not run, and nobody is to wait for it.
        let waits = self.writes_paused() && !self.is_replica();
        let running = trim.parts.iter().filter(|part| part.is_scheduled || !waits).count();
        TrimFigures { running, ..trim.figures }
    }

    /// The keys of a job go.
    pub(super) fn delete_for_job(&mut self, job: JobId, slots: &SlotSet) {
        self.add_to_trim(slots, false);
        if let Some(bus) = &mut self.bus {
            bus.migrations.trim.jobs.push((job, slots.clone()));
        }
    }

    /// Whether keys are left that are to go.
    pub(crate) fn is_trimming(&self) -> bool {
        self.bus.as_ref().is_some_and(|bus| !bus.migrations.trim.is_empty())
    }

    /// Whether a slice can be gone on with at once.
    pub(crate) fn trims_now(&self) -> bool {
        let is_due = |trim: &Trim| !trim.is_stopped() && trim.next_key_at.is_none_or(|at| at <= Instant::now());
        self.is_trimming()
            && (!self.writes_paused() || self.is_replica())
            && self.bus.as_ref().is_some_and(|bus| is_due(&bus.migrations.trim))
    }

    /// Keys go here by the word of our master.
    pub(crate) fn trims_as_replica(&self) -> bool {
        self.is_trimming() && self.is_replica()
    }

    /// When the next key goes, where DEBUG slows that down; wall clock ms.
    pub(crate) fn trim_deadline_ms(&self) -> Option<i64> {
        let trim = &self.bus.as_ref().filter(|_| self.is_trimming())?.migrations.trim;
        trim.next_key_at.filter(|_| !trim.is_stopped()).map(|at| self.clock.ms_until(at))
    }

    /// Whether keys in one of these slots are to go.
    pub(crate) fn is_trimming_any(&self, mut slots: impl Iterator<Item = Slot>) -> bool {
        let Some(bus) = self.bus.as_ref().filter(|_| self.is_trimming()) else { return false };
        slots.any(|slot| bus.migrations.trim.queued.contains(slot))
    }

    /// The slots whose keys are to go: no snapshot need have them.
    pub(crate) fn slots_trimmed(&self) -> SlotSet {
        self.bus.as_ref().map_or_else(SlotSet::default, |bus| bus.migrations.trim.queued.clone())
    }

    /// Before the loop sleeps: a slice. Whether the machine has something to do on account of it.
    pub(crate) fn trim_slots(&mut self) -> bool {
        let Some(bus) = &self.bus else { return false };
        let trim = &bus.migrations.trim;
        if self.depth > 0 || trim.is_empty() && trim.jobs.is_empty() {
            return false;
        }
        // A replica that takes over has what was written until then, and nothing is to come after it.
        if self.writes_paused() && !self.is_replica() {
            return false;
        }
        if self.is_replica() {
            // Our master sees to its keys, but for those of which it has told us.
            self.cancel_trims(|part| !part.is_of_master);
            if !self.is_trimming() {
                return false;
            }
        }
        if let Some(bus) = &mut self.bus
            && std::mem::take(&mut bus.migrations.trim.is_longer)
        {
            self.schedule_trims();
            self.review_slots();
        }
        let waits = self.bus.as_ref().is_some_and(|bus| bus.migrations.trim.is_stopped());
        if waits { self.note_trimmed_jobs() } else { self.trim_until(Instant::now() + SLICE) }
    }

    fn cancel_trims(&mut self, is_meant: fn(&Part) -> bool) {
        let Some(bus) = &mut self.bus else { return };
        let trim = &mut bus.migrations.trim;
        let had_jobs = !std::mem::take(&mut trim.jobs).is_empty();
        if trim.parts.iter().any(is_meant) {
            trim.cancel(is_meant);
        } else if !had_jobs {
            return;
        }
        self.review_slots();
        // Commands that wait for slots to be empty do not wait on a replica.
        self.release_postponed();
    }

    /// Another data set is about to take the place of the one whose keys were to go.
    pub(crate) fn forget_trims(&mut self) {
        if self.is_trimming() {
            self.cancel_trims(|_| true);
        }
    }

    /// Says what is about to go, and has it go at once if that is how.
    fn schedule_trims(&mut self) {
        let Some(bus) = &mut self.bus else { return };
        let trim = &mut bus.migrations.trim;
        let method = trim.method;
        let mut told = Vec::new();
        for part in trim.parts.iter_mut().filter(|part| !part.is_scheduled) {
            (part.is_scheduled, part.is_open) = (true, false);
            let keys = self.ks.dbs[0].slots_len(&part.named);
            let slots = text_of(&part.named);
            if !part.is_of_master {
                log::info!(
                    "Detected keys in slots that do not belong to this node. Scheduling trim for {keys} keys in slots: {slots}"
                );
                if matches!(method, TrimMethod::BySlot | TrimMethod::AtOnce) {
                    part.is_told = true;
                    told.push(part.named.clone());
                }
            }
            match method {
                TrimMethod::AtOnce => log::info!("Background trim started for slots: {slots} to trim {keys} keys."),
                _ => log::info!("Active trim scheduled for slots: {slots}"),
            }
        }
        for slots in told {
            if method == TrimMethod::AtOnce {
                self.take_out(&slots);
            }
            self.tell_of_trim(&slots);
        }
        if method == TrimMethod::AtOnce {
            self.release_postponed();
        }
    }

    /// All keys in these slots go, and are freed in the background.
    fn take_out(&mut self, slots: &SlotSet) {
        self.begin_effects();
        let removed = self.ks.flush_slots(slots, true);
        self.ks.effects.dirty += removed as u64;
        if let Some(bus) = &mut self.bus {
            bus.migrations.trim.drop_slots(slots);
        }
    }

    /// On a replica: our master writes to keys. What goes from their slots in slices goes now, so that what comes stays.
    pub(crate) fn trim_before_master_writes(&mut self, id: ClientId, slots: impl FnOnce() -> SlotSet) {
        if !self.is_trimming() || !self.clients.get(id).is_some_and(|c| c.is(ClientFlags::MASTER)) {
            return;
        }
        let slots: SlotSet = slots().iter().filter(|slot| self.is_trimming_any(std::iter::once(*slot))).collect();
        if !slots.is_empty() {
            self.take_out(&slots);
            self.review_slots();
        }
    }

    /// TRIMSLOTS, to replicas and the log.
    fn tell_of_trim(&mut self, slots: &SlotSet) {
        let ranges = slots.ranges();
        let numbers = ranges.iter().flat_map(|(first, last)| [usize::from(*first), usize::from(*last)]);
        let numbers: Vec<String> =
            std::iter::once(ranges.len()).chain(numbers).map(|number| number.to_string()).collect();
        let mut words: Vec<Vec<u8>> = vec![b"TRIMSLOTS".to_vec(), b"RANGES".to_vec()];
        words.extend(numbers.into_iter().map(String::into_bytes));
        self.propagate_of_job(crate::keyspace::effects::target::ALL, &words);
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
        if let Some(slot) = self.slot_trimmed_later(slots) {
            return Err(CmdError::text(format!("ERR There is a pending trim job for slot {slot}")));
        }
        if self.may_postpone_this(id) {
            self.postpone_this(id, args);
            return Ok(true);
        }
        let _ = self.trim_until(Instant::now() + AT_ONCE);
        if is_meant(self) { Err(STILL_THERE) } else { Ok(false) }
    }

    /// A slot in which keys of another time are left, and nobody can tell when they will be gone: writes are paused.
    fn slot_trimmed_later(&self, slots: Option<&[(Slot, Slot)]>) -> Option<Slot> {
        let trim = &self.bus.as_ref()?.migrations.trim;
        if !self.writes_paused() && !trim.is_stopped() {
            return None;
        }
        trim.slots().find(|slot| slots.is_none_or(|ranges| ranges.iter().any(|(a, b)| (a..=b).contains(&slot))))
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
            self.begin_trim_part();
            let most = self.keys_to_trim();
            if most == 0 {
                break;
            }
            let mut page = Vec::new();
            let next = self.ks.dbs[0].scan_slot(slot, cursor, most, |entry| page.push(entry.key().to_vec()));
            for key in page.iter().take(most) {
                self.trim_key(key);
            }
            let is_done = next == 0 && self.ks.dbs[0].slot_len(slot) == 0;
            slots_done |= is_done;
            let Some(bus) = &mut self.bus else { return false };
            let trim = &mut bus.migrations.trim;
            // What of a page is left is found again by the next round.
            trim.cursor = if page.len() > most { cursor } else { next };
            if is_done {
                trim.end_slot(slot);
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
        Some((*trim.parts.front()?.queue.front()?, trim.cursor))
    }

    /// The first part is about to be gone on with.
    fn begin_trim_part(&mut self) {
        let Some(bus) = &mut self.bus else { return };
        let Trim { parts, figures, .. } = &mut bus.migrations.trim;
        let Some(part) = parts.front_mut().filter(|part| !part.is_begun) else { return };
        part.is_begun = true;
        let keys = self.ks.dbs[0].slots_len(&part.named);
        (figures.keys, figures.trimmed) = (keys, 0);
        figures.started += 1;
        log::info!("Active trim initiated for slots: {}, to trim {keys} keys.", text_of(&part.named));
    }

    /// How many keys may go now.
    fn keys_to_trim(&mut self) -> usize {
        let Some(bus) = &mut self.bus else { return 0 };
        let trim = &mut bus.migrations.trim;
        if trim.delay_us <= 0 {
            return PAGE_KEYS;
        }
        let now = Instant::now();
        let at = *trim.next_key_at.get_or_insert(now);
        if at > now {
            return 0;
        }
        trim.next_key_at = Some(at + Duration::from_micros(trim.delay_us.unsigned_abs()));
        1
    }

    fn trim_key(&mut self, key: &[u8]) {
        let lazy = self.cfg.lazyfree_lazy_server_del;
        let Some(bus) = &mut self.bus else { return };
        let Trim { parts, figures, .. } = &mut bus.migrations.trim;
        if !self.ks.delete(0, key, lazy) {
            return;
        }
        figures.trimmed += 1;
        self.ks.effects.dirty += 1;
        if parts.front().is_some_and(|part| part.is_told) {
            return;
        }
        let word: &[u8] = if lazy { b"UNLINK" } else { b"DEL" };
        self.ks.effects.propagate_now(0, &[word, key]);
        self.ks.effects.notify(notify::GENERIC, "del", key, 0);
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
