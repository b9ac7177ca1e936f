//! The source where the target pulls: it is connected to twice, and lets the target take over as soon as that has run all
//! that was said.

use super::pull_target::ChannelState;
use super::{Cluster, Dialect, Env, GRANT_WAITS_MS, Job, JobId, Message, NodeId, NodeKey, Ranges, State};
use crate::cluster::AdminError;
use crate::cluster::admin::refuse;
use crate::structs::slots::slots_in;

/// Why a task ends whose slots, or some of them, have gone to others.
pub(super) const SLOTS_CHANGED: &str = "Cancelled due to slots configuration updated";
/// What a target that tries again is told of a task that was cancelled here. One of ours takes it for the end.
pub(super) const CANCELLED_HERE: &str = "The task was cancelled on the source";

/// What CLUSTER SYNCSLOTS SYNC says, and who says it.
#[derive(Clone, Debug)]
pub(crate) struct Sync {
    pub(crate) name: NodeId,
    pub(crate) ranges: Ranges,
    pub(crate) target: NodeKey,
    /// The target wants the grant numbered.
    pub(crate) is_numbered: bool,
}

impl Job {
    /// How the target is told to take over.
    pub(super) fn stream_eof(&self) -> Message {
        Message::StreamEof(self.pull.is_numbered.then_some(self.pull.words))
    }
}

impl Cluster {
    /// CLUSTER SYNCSLOTS SYNC: another node is to have these slots. `None`: it is to ask again.
    pub(crate) fn serve_pull(&mut self, asked: Sync, env: &Env) -> Result<Option<JobId>, AdminError> {
        self.check_pull_allowed()?;
        for slot in slots_in(&asked.ranges) {
            if self.owner[usize::from(slot)] != Some(self.myself) {
                return refuse("This node is not the owner of the slots");
            }
        }
        let node = &self.nodes[asked.target];
        let id = node.id;
        if !node.is_master() || asked.target == self.myself {
            return refuse(format!("Destination node {id} is not a master, or this node itself"));
        }
        let mut former = None;
        if let Some(at) = self.jobs.list.iter().position(|job| job.is_export && job.name == asked.name) {
            let job = &self.jobs.list[at];
            if job.target != Some(id) {
                return refuse("There is a task of this name");
            }
            if job.state == State::Granted {
                return Ok(None);
            }
            if job.state == State::Cancelled && !job.pull.may_return {
                return refuse(CANCELLED_HERE);
            }
            if !job.state.is_final() {
                self.fail_job(at, "The target began anew", env);
            }
            // The same task goes on.
            former = self.jobs.list.remove(at);
        }
        let is_away = |slot| self.jobs.list.iter().any(|job| job.is_open(true) && job.slots.contains(slot));
        if slots_in(&asked.ranges).any(is_away) {
            return refuse("Another ASM task is already in progress");
        }
        if self.manual.in_progress() || self.jobs.refuses_to_begin() {
            return Ok(None);
        }
        let mut job = self.new_job(true, asked.name, asked.ranges, Some(id), env.now_ms);
        (job.dialect, job.state) = (Dialect::Pull, State::WaitingForChannel);
        job.pull.is_numbered = asked.is_numbered;
        if let Some(former) = former {
            job.pull.retries = former.pull.retries + 1;
            (job.created_ms, job.message) = (former.created_ms, former.message);
        }
        log::info!("Slot migration asked for by its target: {}", job.description);
        let id = job.id;
        self.jobs.list.push_front(job);
        Ok(Some(id))
    }

    /// CLUSTER SYNCSLOTS RDBCHANNEL: the second connection of the job of this name.
    pub(crate) fn open_snapshot_channel(&mut self, name: NodeId, env: &Env) -> Result<JobId, AdminError> {
        let is_open = |job: &Job| job.dialect == Dialect::Pull && job.is_open(true);
        if !self.jobs.list.iter().any(is_open) {
            return refuse("No slot migration task in progress");
        }
        let is_meant = |job: &Job| is_open(job) && job.name == name && job.state == State::WaitingForChannel;
        let Some(at) = self.jobs.list.iter().position(is_meant) else {
            return refuse("Another migration task is already in progress");
        };
        let job = &mut self.jobs.list[at];
        (job.pull.channel, job.heard_ms) = (ChannelState::Waiting, env.now_ms);
        let id = job.id;
        self.move_to(at, State::WaitingToSnapshot, env);
        Ok(id)
    }

    /// An attempt that has failed is followed by another one, unless its slots have gone elsewhere: then it was the last one. The
    /// target may have heard of that first, and broken its links off.
    pub(super) fn cancel_failed_exports(&mut self, env: &Env) {
        for at in 0..self.jobs.list.len() {
            let job = &self.jobs.list[at];
            let has_failed = job.is_export && job.dialect == Dialect::Pull && job.state == State::Failed;
            let is_newest = || self.jobs.list.iter().take(at).all(|newer| job.slots.without(&newer.slots) == job.slots);
            if job.is_tracking_only || !has_failed || !is_newest() {
                continue;
            }
            let owner = self.owner_of_job(at);
            if owner != Some(self.myself) && owner.map(|key| self.nodes[key].id) != job.target {
                let message = job.tell_state(SLOTS_CHANGED);
                self.jobs.list[at].message = message;
                self.conclude(at, State::Cancelled, env);
            }
        }
    }

    pub(super) fn on_message_of_puller(&mut self, at: usize, message: Message, env: &Env) {
        let job = &mut self.jobs.list[at];
        match message {
            Message::Applied { bytes, is_caught_up } => {
                job.acked_ms = env.now_ms;
                if is_caught_up {
                    job.pull.caught_up_ms.get_or_insert(env.now_ms);
                }
                job.pull.words += 1;
                job.pull.applied = job.pull.applied.max(bytes);
                job.asked_ms = Some(env.now_ms);
                if job.state == State::Streaming && !self.jobs.stays_in_stream() {
                    self.move_to(at, State::WaitingToPause, env);
                }
            }
            Message::Remark => {}
            _ => self.refuse_message(at, message, env),
        }
    }

    /// The target has run what gathered while it took in the snapshot, but is so far behind what is written since that writes
    /// are not held back, and has had the time for it: the longer one of what is configured and twice what the snapshot took.
    pub(super) fn falls_behind(&self, at: usize, env: &Env) -> bool {
        let pull = &self.jobs.list[at].pull;
        let Some(caught_up_ms) = pull.caught_up_ms.filter(|_| pull.lag() > self.config.slot_pull_max_lag) else {
            return false;
        };
        let usual_ms = caught_up_ms.saturating_sub(pull.snapshot_ms).saturating_mul(2);
        env.now_ms - caught_up_ms > self.config.slot_pull_drain_ms.max(usual_ms)
    }

    /// Writes are held back: whether the target has run all there is. It need not ask; but one that wants the grant numbered
    /// has to have said so in a word that it still remembers. A Redis says it every 100 ms only, and takes over before it writes
    /// its log: where replies of ours are as good as on disk, writes are held until it has said so, as it could be killed right
    /// then, and have the slots without what we have answered for.
    pub(super) fn note_asked(&mut self, at: usize, env: &Env) {
        let job = &mut self.jobs.list[at];
        let is_there = if job.pull.is_numbered {
            job.asked_ms.is_some_and(|asked_ms| env.now_ms - asked_ms <= GRANT_WAITS_MS) && job.pull.lag() == 0
        } else {
            job.backlog == 0 && (!env.syncs_replies || job.pull.lag() == 0)
        };
        job.asked_ms = match is_there {
            true => job.asked_ms.or(Some(env.now_ms)),
            false => None,
        };
        if !is_there {
            self.wake_at(env.now_ms + 10);
        }
    }
}
