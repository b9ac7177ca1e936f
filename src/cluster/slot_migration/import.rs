//! The target: slots of another node on their way to this one, or to this one's master.

use super::describe::{MasterTask, parse_import, parse_task};
use super::{Cluster, Dialect, Env, GRANT_LASTS_MS, Job, JobId, Message, NodeId, NodeKey, Ranges, State};
use crate::cluster::AdminError;
use crate::cluster::admin::refuse;
use crate::structs::slots::{SlotSet, slots_in};

/// Who says that slots come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// The node that they come from.
    Source,
    /// The stream of our master, or what was written down.
    Tracked,
}

/// What CLUSTER SYNCSLOTS ESTABLISH says.
#[derive(Clone, Debug)]
pub(crate) struct Establish {
    pub(crate) source: Option<NodeKey>,
    pub(crate) name: NodeId,
    pub(crate) ranges: Ranges,
    /// Who owns them.
    pub(crate) owner: Option<NodeKey>,
}

impl Cluster {
    // ---- the beginning ----

    /// Whether one of the slots is on its way here already, or about to be.
    pub(crate) fn check_importable(&self, ranges: &Ranges) -> Result<(), AdminError> {
        if self.is_imported(&slots_in(ranges).collect(), None) {
            return refuse("Slot is already being imported on the target by a different migration");
        }
        Ok(())
    }

    /// CLUSTER SYNCSLOTS ESTABLISH: keys of these slots are about to come.
    pub(crate) fn establish(&mut self, asked: Establish, origin: Origin, env: &Env) -> Result<JobId, AdminError> {
        if origin == Origin::Source && asked.source != asked.owner {
            return refuse("Target node does not agree about current slot ownership");
        }
        if let Some(job) = self.jobs.list.iter().find(|job| job.name == asked.name && !job.is_export)
            && !job.state.is_final()
        {
            // It is written down more than once.
            return match origin {
                Origin::Tracked => Ok(job.id),
                Origin::Source => refuse("There is a job of this name"),
            };
        }
        if origin == Origin::Tracked {
            // The next attempt of a job whose last one failed.
            let is_former = |job: &Job| job.is_tracking_only && job.state.is_final() && job.name == asked.name;
            self.jobs.list.retain(|job| !is_former(job));
        }
        let source = asked.source.map(|key| self.nodes[key].id);
        let mut job = self.new_job(false, asked.name, asked.ranges, source, env.now_ms);
        if origin == Origin::Tracked {
            job.state = State::OnPrimary;
            (job.is_tracking_only, job.has_link) = (true, false);
        }
        log::info!("New slot import job created: {}.", job.description);
        let id = job.id;
        self.jobs.list.push_front(job);
        self.order(super::Order::Review);
        if origin == Origin::Source {
            self.tell_task(0);
        }
        Ok(id)
    }

    /// An import that a snapshot tells of.
    pub(crate) fn track_import(&mut self, text: &[u8], env: &Env) {
        let Some((name, ranges)) = parse_import(text) else {
            return log::warn!("Invalid slot import in a snapshot: {}", text.escape_ascii());
        };
        let asked = Establish { source: None, name, ranges, owner: None };
        // What comes from a snapshot is not refused.
        let _ = self.establish(asked, Origin::Tracked, env);
    }

    /// What a master that is a Redis 8 says of its import, in the stream or a snapshot. Whether it is news.
    pub(crate) fn track_task(&mut self, text: &[u8], env: &Env) -> bool {
        let Some(MasterTask { name, ranges, is_done, is_over }) = parse_task(text) else { return false };
        let is_open = |job: &Job| job.name == name && job.is_tracking_only && job.is_open(false);
        match (self.jobs.list.iter().any(is_open), is_done) {
            (true, true) => self.finish_import(name, true, "", env).is_ok(),
            // What has come of one that failed goes by TRIMSLOTS, and is hidden until then.
            (true, false) => false,
            (false, _) if is_over => false,
            (false, _) => {
                let asked = Establish { source: None, name, ranges, owner: None };
                self.establish(asked, Origin::Tracked, env).is_ok()
            }
        }
    }

    /// All keys in these slots went by the word of our master: imports of which it told are over that had no others.
    pub(crate) fn on_slots_trimmed(&mut self, slots: &SlotSet, env: &Env) {
        for at in 0..self.jobs.list.len() {
            let job = &self.jobs.list[at];
            if job.state == State::OnPrimary && job.slots.without(slots).is_empty() {
                self.move_to(at, State::Failed, env);
            }
        }
    }

    /// Why the keys in these slots cannot be deleted by TRIMSLOTS, if so.
    pub(crate) fn check_trimmable(&self, slots: &SlotSet) -> Result<(), AdminError> {
        if let Some(slot) = slots.first_common(&self.myself().slots) {
            return refuse(format!("the slot {slot} is served by this node"));
        }
        match slots.first_common(&self.importing_slots()) {
            Some(slot) => refuse(format!("the slot {slot} is on its way to this node")),
            None => Ok(()),
        }
    }

    // ---- what the source says ----

    pub(super) fn on_message_of_source(&mut self, at: usize, message: Message, env: &Env) {
        let job = &mut self.jobs.list[at];
        match (message, job.state) {
            (Message::SnapshotEof, State::ReceivingSnapshot) => {
                log::info!(
                    "Slot migration {} successfully received slot snapshot. Beginning incremental stream...",
                    job.description
                );
                self.say(at, Message::RequestPause);
                self.move_to(at, State::WaitingForPaused, env);
            }
            (Message::Paused, State::WaitingForPaused) => {
                job.is_paused = true;
                self.request_failover(at, env);
            }
            (Message::FailoverGranted, State::RequestedFailover) => {
                if env.now_ms - job.requested_ms > GRANT_LASTS_MS {
                    return self.fail_job(at, "Failover was granted too late", env);
                }
                self.move_to(at, State::MayTakeOver, env);
            }
            _ => self.refuse_message(at, message, env),
        }
    }

    /// Asks for the takeover once the source has paused; one that may not serve now, after it stood still, say, waits with it.
    fn request_failover(&mut self, at: usize, env: &Env) {
        let may_serve = self.may_take_over(env) && self.yields_to_no_export();
        let job = &mut self.jobs.list[at];
        if !job.is_paused || job.state != State::WaitingForPaused {
            return;
        }
        if !may_serve {
            self.wake_at(env.now_ms + 10);
        } else {
            job.requested_ms = env.now_ms;
            self.say(at, Message::RequestFailover);
            self.move_to(at, State::RequestedFailover, env);
        }
    }

    /// Whether a majority of the masters is there to hear of it, and nobody is about to take our place.
    fn may_take_over(&self, env: &Env) -> bool {
        // One without slots holds a lease without asking anybody.
        let is_reached = self.is_answered_by_majority(env.now_ms - self.lease_ms());
        self.holds_lease(env.now_ms) && is_reached && !self.manual.in_progress() && !self.has_granted()
    }

    /// Of takeovers that wait for each other, one goes on: that of the node whose id is smaller.
    fn yields_to_no_export(&self) -> bool {
        let is_first = |job: &Job| job.state != State::Paused || Some(self.myself().id) < job.target;
        self.jobs.list.iter().filter(|job| job.is_export).all(is_first)
    }

    /// Whether this node has asked to take slots over, and may take a new epoch for it.
    pub(super) fn takes_over_soon(&self) -> bool {
        self.jobs.list.iter().any(|job| matches!(job.state, State::RequestedFailover | State::MayTakeOver))
    }

    // ---- the turn ----

    pub(super) fn advance_import(&mut self, at: usize, env: &Env) {
        let job = &self.jobs.list[at];
        if job.state == State::CleaningUp && !self.is_master() {
            let outcome = job.outcome;
            return if job.is_told() { self.leave_to_master(at, env) } else { self.conclude(at, outcome, env) };
        }
        let is_told = job.is_told();
        if !job.state.is_in_progress() {
            return;
        }
        match (self.is_master(), job.state) {
            (true, State::Waiting | State::Retrying) => self.begin_attempt(at, env),
            // Nobody would say how it ended.
            (false, _) if !is_told => {
                self.give_up(at, State::Cancelled, "Cancelled due to a failover", env);
            }
            // The master that we replaced had taken them over.
            (true, State::OnPrimary) if self.owner_of_job(at) == Some(self.myself) => {
                self.end_job(at, State::Success, "", env);
            }
            (true, State::OnPrimary) => self.fail_job(at, "A failover occurred during slot import", env),
            (false, State::OnPrimary) => {}
            (false, _) => self.leave_to_master(at, env),
            (true, _) => {
                let owner = match self.note_owners(at) {
                    true => self.owner_of_job(at).map(|key| self.nodes[key].id),
                    false => self.jobs.list[at].source,
                };
                if owner == Some(self.myself().id) {
                    self.end_for_good(at, "Slots were unexpectedly assigned to myself during import", env);
                } else if owner != self.jobs.list[at].source {
                    self.fail_job(at, "Slots are no longer owned by source node", env);
                } else if self.jobs.list[at].state == State::MayTakeOver {
                    self.use_grant(at, env);
                } else if self.jobs.list[at].dialect == Dialect::Pull {
                    self.advance_pull(at, env);
                } else {
                    self.request_failover(at, env);
                }
            }
        }
    }

    /// This node is a replica now: to delete keys would be to differ from its master, which will say what becomes of the job.
    fn leave_to_master(&mut self, at: usize, env: &Env) {
        self.close_job_link(at);
        let job = &mut self.jobs.list[at];
        if job.dialect == Dialect::Pull {
            job.message = job.tell_state("Cancelled due to a failover");
            job.ended_ms = Some(env.now_ms);
        }
        job.is_tracking_only = true;
        self.move_to(at, State::OnPrimary, env);
    }

    /// The takeover was granted. Whatever kept us since: if it is too late, the source may have taken that back.
    fn use_grant(&mut self, at: usize, env: &Env) {
        if self.jobs.prevents_failover {
            // This debugging aid does not make it old.
            self.jobs.list[at].requested_ms = env.now_ms;
        } else if env.now_ms - self.jobs.list[at].requested_ms > GRANT_LASTS_MS {
            self.fail_job(at, "The target could not take over in time", env);
        } else if self.is_stream_durable(at, env) {
            match self.may_take_over(env) {
                true => self.take_over(at, env),
                false => self.wake_at(env.now_ms + 10),
            }
        }
    }

    /// The slots become ours.
    fn take_over(&mut self, at: usize, env: &Env) {
        // A new one in any case: that is how others see that what we claim is news.
        self.take_epoch(1);
        self.rebind_all(&self.jobs.list[at].slots.clone(), self.myself);
        // On disk before anybody hears of it, and then all hear of it at once.
        self.save_synced();
        self.todo.state = true;
        self.todo.announce = true;
        log::info!(
            "Slot migration {} completed successfully. This node is now the owner of the slots",
            self.jobs.list[at].description
        );
        self.end_job(at, State::Success, "", env);
    }

    // ---- the end ----

    /// The keys of a job that failed are deleted.
    pub(crate) fn on_slots_deleted(&mut self, job: JobId, env: &Env) {
        if let Some(at) = self.jobs.at(job).filter(|at| self.jobs.list[*at].state == State::CleaningUp) {
            let outcome = self.jobs.list[at].outcome;
            self.conclude(at, outcome, env);
        }
    }

    /// CLUSTER SYNCSLOTS FINISH, of our master or from the log.
    pub(crate) fn finish_import(
        &mut self,
        name: NodeId,
        is_success: bool,
        message: &str,
        env: &Env,
    ) -> Result<(), AdminError> {
        let Some(at) = self.jobs.list.iter().position(|job| job.name == name && !job.is_export) else {
            return refuse("No such slot migration job");
        };
        let job = &mut self.jobs.list[at];
        job.message = message.to_string();
        let outcome = if is_success { State::Success } else { State::Failed };
        log::info!("Slot migration {} finished. State: {}", job.description, outcome.name());
        self.move_to(at, outcome, env);
        Ok(())
    }

    /// The data set is loaded at start. A master has lost the link that its imports came by; a replica's master goes on.
    pub(crate) fn on_imports_loaded(&mut self, env: &Env) {
        for at in 0..self.jobs.list.len() {
            let job = &self.jobs.list[at];
            if self.is_master() && job.is_tracking_only && job.state.is_in_progress() {
                self.fail_job(at, "Process restarted", env);
            }
        }
    }

    /// Another data set is about to take the place of the one that imports were tracked for.
    pub(crate) fn forget_imports(&mut self, env: &Env) {
        for at in 0..self.jobs.list.len() {
            let job = &mut self.jobs.list[at];
            if job.is_tracking_only && job.state.is_in_progress() {
                job.message = "Full resynchronization occurred".into();
                self.move_to(at, State::Failed, env);
            }
        }
    }
}
