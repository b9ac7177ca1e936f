//! The source: slots of this node on their way to another one.

use super::describe::numbers;
use super::pull_source::SLOTS_CHANGED;
use super::pull_target::ChannelState;
use super::{
    Channel, Cluster, Dialect, Env, GRANT_LASTS_MS, GRANT_WAITS_MS, Grant, HOLD_MULT, Job, JobId, JobLink, Message,
    NodeId, NodeKey, Order, Ranges, SHORTEST_HOLD_MS, SMALL_BACKLOG, State, command, overlap,
};
use crate::cluster::AdminError;
use crate::cluster::admin::refuse;
use crate::cluster::wire::PacketType;
use crate::structs::slots::slots_in;

impl Cluster {
    // ---- commands ----

    /// Whether slots can be part of a new job, beside those that are asked for with it.
    pub(crate) fn check_exportable(&self, ranges: &Ranges, others: &[(Ranges, NodeKey)]) -> Result<(), AdminError> {
        for slot in slots_in(ranges) {
            if self.jobs.list.iter().any(|job| job.is_open(true) && job.slots.contains(slot)) {
                return refuse(format!("I am already migrating slot {slot}."));
            }
        }
        let meets = |range: &(u16, u16)| others.iter().flat_map(|(r, _)| r).any(|other| overlap(range, other));
        if ranges.iter().any(meets) {
            return refuse("Slot ranges in migrations overlap");
        }
        Ok(())
    }

    /// CLUSTER MIGRATESLOTS: begins a job for each target. `by` is who asked.
    pub(crate) fn migrate_slots(&mut self, asked: Vec<(Ranges, NodeKey)>, by: &str, env: &Env) {
        for (ranges, target) in asked {
            let (name, target) = (NodeId::random(&mut self.rng), self.nodes[target].id);
            let job = self.new_job(true, name, ranges, Some(target), env.now_ms);
            log::info!(
                "Slot migration initiated through CLUSTER MIGRATESLOTS command: {} (user request from '{by}')",
                job.description
            );
            self.jobs.list.push_front(job);
            self.connect_job(0, env);
        }
    }

    /// CLUSTER CANCELSLOTMIGRATIONS.
    pub(crate) fn cancel_slot_migrations(&mut self, by: &str, env: &Env) -> Result<(), AdminError> {
        let is_open = |job: &Job| job.is_export && job.state.is_in_progress();
        if !self.jobs.list.iter().any(is_open) {
            return refuse("No migrations ongoing");
        }
        for at in 0..self.jobs.list.len() {
            if is_open(&self.jobs.list[at]) {
                self.give_up(at, State::Cancelled, "", env);
            }
        }
        log::info!("Canceled all in progress slot migrations (user request from '{by}')");
        Ok(())
    }

    // ---- the link ----

    fn connect_job(&mut self, at: usize, env: &Env) {
        let Some(key) = self.jobs.list[at].target.and_then(|id| self.nodes.find(&id)) else {
            return self.fail_job(at, "Unable to connect to target node: target node not found", env);
        };
        self.connect_job_link(at, Channel::Main, key);
    }

    /// The link to the other side stands. `auth`: the command to authenticate with, if there is to be one.
    pub(crate) fn on_migration_connected(&mut self, link: JobLink, auth: Option<Vec<u8>>, env: &Env) {
        let Some(at) = self.jobs.at(link.job) else { return };
        if self.jobs.list[at].dialect == Dialect::Pull {
            return self.on_pull_connected(at, link.channel, auth, env);
        }
        if self.jobs.list[at].state != State::Connecting {
            return;
        }
        log::info!("Slot migration {} connection established.", self.jobs.list[at].description);
        match self.login_of_job(at, auth) {
            Some(bytes) => {
                self.order(Order::Send { link, bytes });
                self.move_to(at, State::ReadingAuthReply, env);
            }
            None => self.send_establish(at, env),
        }
    }

    fn send_establish(&mut self, at: usize, env: &Env) {
        let job = &self.jobs.list[at];
        let (id, name, source) = (job.id, job.name, self.myself().id);
        let numbers = numbers(&job.ranges);
        let mut args: Vec<&[u8]> = vec![b"CLUSTER", b"SYNCSLOTS", b"ESTABLISH", b"SOURCE", source.as_bytes()];
        args.extend([&b"NAME"[..], name.as_bytes(), b"SLOTSRANGE"]);
        args.extend(numbers.iter().map(|number| number.as_bytes()));
        let bytes = command(&args);
        self.order(Order::Send { link: id.main(), bytes });
        self.move_to(at, State::ReadingEstablishReply, env);
    }

    /// Whether a line is awaited on a link that is not a client's yet.
    pub(crate) fn awaits_reply(&self, link: JobLink) -> bool {
        let Some(at) = self.jobs.at(link.job) else { return false };
        match self.jobs.list[at].dialect {
            Dialect::Push => matches!(self.jobs.list[at].state, State::ReadingAuthReply | State::ReadingEstablishReply),
            Dialect::Pull => self.pull_awaits_reply(at, link.channel),
        }
    }

    /// A line came while the link is not a client's yet.
    pub(crate) fn on_migration_reply(&mut self, link: JobLink, line: &[u8], env: &Env) {
        let Some(at) = self.jobs.at(link.job) else { return };
        if self.jobs.list[at].dialect == Dialect::Pull {
            return self.on_pull_reply(at, link.channel, line, env);
        }
        if self.meet_challenge(at, Channel::Main, line) {
            return;
        }
        let refused = line.starts_with(b"-");
        let line = String::from_utf8_lossy(line);
        match self.jobs.list[at].state {
            State::ReadingAuthReply if refused => {
                self.fail_job(at, &format!("Failed to AUTH to target node: {line}"), env);
            }
            State::ReadingAuthReply => {
                log::info!("Successfully authenticated slot migration {}", self.jobs.list[at].description);
                self.send_establish(at, env);
            }
            State::ReadingEstablishReply if refused => {
                self.fail_job(at, &format!("Received error during handshake to target: {line}"), env);
            }
            State::ReadingEstablishReply => {
                self.order(Order::Adopt { link });
                self.jobs.list[at].acked_ms = env.now_ms;
                self.move_to(at, State::WaitingToSnapshot, env);
                // The target waits for it.
                self.say(at, Message::Ack);
            }
            _ => self.fail_job(at, "Unexpected reply from target", env),
        }
    }

    // ---- the snapshot ----

    /// What the slots hold is on its way.
    pub(crate) fn on_snapshot_started(&mut self, job: JobId, env: &Env) {
        if let Some(at) = self.jobs.at(job) {
            log::info!("Beginning snapshot of slot migration {}.", self.jobs.list[at].description);
            let pull = &mut self.jobs.list[at].pull;
            (pull.channel, pull.snapshot_ms, pull.is_told) = (ChannelState::Transfer, env.now_ms, true);
            self.move_to(at, State::Snapshotting, env);
            self.tell_task(at);
        }
    }

    /// All of the snapshot is on its way.
    pub(crate) fn on_snapshot_ended(&mut self, job: JobId, env: &Env) {
        let Some(at) = self.jobs.at(job).filter(|at| self.jobs.list[*at].state == State::Snapshotting) else { return };
        let description = self.jobs.list[at].description.clone();
        // The target says so at once if it is no longer there.
        self.jobs.list[at].acked_ms = env.now_ms;
        if self.jobs.list[at].dialect == Dialect::Pull {
            self.order(Order::Send { link: job.snapshot(), bytes: Message::SnapshotEof.command() });
            self.jobs.list[at].pull.channel = ChannelState::Completed;
        } else {
            self.say(at, Message::SnapshotEof);
        }
        self.move_to(at, State::Streaming, env);
        log::info!("Slot migration {description} snapshot finished, starting streaming.");
    }

    // ---- the hand-over ----

    pub(super) fn on_message_of_target(&mut self, at: usize, message: Message, env: &Env) {
        match (message, self.jobs.list[at].state) {
            (Message::RequestPause, State::Streaming) => self.move_to(at, State::WaitingToPause, env),
            (Message::RequestFailover, State::Paused) if self.jobs.list[at].asked_ms.is_none() => {
                self.jobs.list[at].asked_ms = Some(env.now_ms);
                self.grant(at, env);
            }
            _ => self.refuse_message(at, message, env),
        }
    }

    fn hold_ms(&self, dialect: Dialect) -> i64 {
        match dialect {
            Dialect::Push => self.config.manual_failover_timeout_ms.saturating_mul(HOLD_MULT),
            Dialect::Pull => self.config.slot_pull_hold_ms,
        }
    }

    /// Lets the target take over which has asked for it.
    fn grant(&mut self, at: usize, env: &Env) {
        let dialect = self.jobs.list[at].dialect;
        if dialect == Dialect::Pull {
            self.note_asked(at, env);
        }
        let (now_ms, Some(asked_ms)) = (env.now_ms, self.jobs.list[at].asked_ms) else { return };
        if now_ms > self.jobs.list[at].hold_until_ms {
            return self.fail_job(at, "Unpaused before failover completed", env);
        }
        // A node that may not serve any more has nothing to give.
        if !self.holds_lease(now_ms) || self.owner_of_job(at) != Some(self.myself) {
            return self.fail_job(at, "Slots are no longer owned by myself", env);
        }
        if !self.may_grant(at, env) {
            // Later than this the target would not take it any more; one that pulls asks again.
            if now_ms - asked_ms > GRANT_WAITS_MS && dialect == Dialect::Push {
                self.fail_job(at, "The takeover could not be granted in time", env);
            }
            return self.wake_at(now_ms + 10);
        }
        const { assert!(GRANT_LASTS_MS < SHORTEST_HOLD_MS) };
        let job = &mut self.jobs.list[at];
        job.hold_until_ms = job.hold_until_ms.max(now_ms + SHORTEST_HOLD_MS);
        let word = match dialect {
            Dialect::Push => Message::FailoverGranted,
            Dialect::Pull => job.stream_eof(),
        };
        self.say(at, word);
        self.move_to(at, State::Granted, env);
    }

    /// What stood in `nodes.conf` when this node starts: such a target may have taken over, and nobody may have heard of it.
    pub(in crate::cluster) fn take_up_grants(&mut self, grants: &[Grant], now_ms: i64) {
        if !self.is_master() {
            return;
        }
        for grant in grants {
            let mut job = self.new_job(true, grant.name, grant.ranges.clone(), Some(grant.target), now_ms);
            (job.state, job.has_link, job.hold_until_ms) = (State::Granted, false, now_ms + SHORTEST_HOLD_MS);
            log::info!("Slot migration {} may have been handed over before the restart.", job.description);
            self.jobs.list.push_front(job);
            self.order(Order::Review);
        }
    }

    /// Whether our epoch is known to the target, so that its own will be greater, and will stay as it is until the takeover.
    fn may_grant(&mut self, at: usize, env: &Env) -> bool {
        let job = &self.jobs.list[at];
        let Some(key) = job.target.and_then(|id| self.nodes.find(&id)) else { return false };
        if self.manual.in_progress() || self.takes_over_soon() || self.gives_later(job.dialect) {
            return false;
        }
        let (_, since_ms) = self.jobs.epoch;
        let node = &self.nodes[key];
        if node.granted_ms > since_ms {
            return true;
        }
        if let Some(link) = node.link
            && job.ack_sent_ms < env.now_ms
            && since_ms < env.now_ms
        {
            self.jobs.list[at].ack_sent_ms = env.now_ms;
            self.send_ping(link, PacketType::Ping, env);
        }
        false
    }

    /// Whoever has let another node take over takes nothing over itself. Where nodes pull from each other, in a circle of
    /// whatever length, one with a smaller id than that which it pulls from gives first; those with a greater one wait.
    fn gives_later(&self, dialect: Dialect) -> bool {
        let comes = |state| matches!(state, State::CatchingUp | State::WaitingForEof);
        let is_first = |job: &Job| comes(job.state) && job.source < Some(self.myself().id);
        dialect == Dialect::Pull && self.jobs.list.iter().any(is_first)
    }

    fn try_to_pause(&mut self, at: usize, env: &Env) {
        let dialect = self.jobs.list[at].dialect;
        let (hold_ms, is_later) = (self.hold_ms(dialect), self.gives_later(dialect));
        let (most, most_ahead) = (self.config.slot_migration_max_backlog, self.config.slot_pull_max_lag);
        // A node that has asked to take slots over grants none until it has: two of them would wait for each other.
        let takes_over_soon = self.takes_over_soon();
        let job = &mut self.jobs.list[at];
        let is_small = match dialect {
            Dialect::Push => most.is_none_or(|most| job.unsent <= most.max(SMALL_BACKLOG)),
            Dialect::Pull => job.pull.lag() <= most_ahead,
        };
        let waits = self.jobs.prevents_pause || self.manual.in_progress() || takes_over_soon || is_later;
        if waits || !is_small {
            return;
        }
        log::info!(
            "Pausing writes (remaining_repl_size is {}) to allow slot migration {} to finalize failover.",
            job.unsent,
            job.description
        );
        job.hold_until_ms = env.now_ms.saturating_add(hold_ms);
        job.paused_ms = Some(env.now_ms);
        if dialect == Dialect::Push {
            self.say(at, Message::Paused);
        }
        self.move_to(at, State::Paused, env);
    }

    pub(super) fn advance_export(&mut self, at: usize, env: &Env) {
        if !self.jobs.list[at].state.is_in_progress() || self.meet_new_owner(at, env) {
            return;
        }
        let job = &self.jobs.list[at];
        match job.state {
            State::WaitingToSnapshot => {
                let (job, slots) = (job.id, job.slots.clone());
                self.order(Order::Snapshot { job, slots });
            }
            State::Streaming | State::WaitingToPause if self.falls_behind(at, env) => {
                self.fail_job(at, "Sync buffer drain timeout", env);
            }
            State::WaitingToPause => self.try_to_pause(at, env),
            State::Paused if env.now_ms >= job.hold_until_ms => {
                log::warn!("Slot migration {} timed out during slot failover.", job.description);
                let text = match job.dialect {
                    Dialect::Push => "Timed out before streaming completed",
                    Dialect::Pull => "Server paused timeout",
                };
                self.fail_job(at, text, env);
            }
            State::Paused => self.grant(at, env),
            State::Granted if env.now_ms > job.hold_until_ms => self.find_out(at, env),
            _ => {}
        }
    }

    /// Ends a job whose slots have another owner now. Whether it did.
    fn meet_new_owner(&mut self, at: usize, env: &Env) -> bool {
        if !self.note_owners(at) && self.is_master() {
            return false;
        }
        let job = &self.jobs.list[at];
        match self.owner_of_job(at) {
            Some(owner) if owner == self.myself && self.is_master() => false,
            Some(owner) if Some(self.nodes[owner].id) == job.target => {
                log::info!("Slot migration {} slots are now owned by target node.", job.description);
                self.end_job(at, State::Success, "", env);
                true
            }
            _ => {
                log::warn!("Slot migration {} contains slots that are no longer all owned by myself", job.description);
                let (outcome, text) = match job.dialect {
                    Dialect::Push => (State::Failed, "Slots are no longer owned by myself"),
                    Dialect::Pull => (State::Cancelled, SLOTS_CHANGED),
                };
                self.end_job(at, outcome, text, env);
                true
            }
        }
    }

    /// The target of a job, or the replica that has taken its place.
    fn heir_of_target(&self, job: &Job) -> Option<NodeKey> {
        job.target.and_then(|id| self.nodes.find(&id)).map(|key| self.top_master(key))
    }

    /// Whether other nodes may take slots under an epoch that a new one of ours would beat.
    fn others_may_take(&self, at: usize, env: &Env) -> bool {
        let may_take = |job: &Job| {
            let node = self.heir_of_target(job);
            let is_out = node.is_none_or(|key| self.nodes[key].failed());
            job.state == State::Granted && !(is_out && env.now_ms > job.hold_until_ms)
        };
        self.jobs.list.iter().enumerate().any(|(other, job)| other != at && may_take(job))
    }

    /// The time is over in which the target could take over, and nothing was heard of it. If it had, it would claim the slots
    /// in its answer to a ping that was sent since.
    fn find_out(&mut self, at: usize, env: &Env) {
        let job = &self.jobs.list[at];
        let since = job.hold_until_ms;
        let node = self.heir_of_target(job).map(|key| &self.nodes[key]);
        let answered = node.is_some_and(|n| n.is_master() && n.granted_ms > since);
        let is_out = node.is_none_or(|n| n.failed());
        // A majority that has answered since would have told us of a claim that it knows of.
        let is_unheard = is_out && self.holds_lease(env.now_ms) && self.is_answered_by_majority(since);
        if answered || is_unheard && !self.others_may_take(at, env) {
            if !answered {
                // It may come back with a claim that nobody has heard of: ours is to be the newer one, even if its epoch was
                // the next one, too.
                self.take_epoch(2);
            }
            let text = "Unpaused before migration completed (the target did not take over)";
            let late_end = self.jobs.list[at].late_end.take();
            let (outcome, text) = late_end.unwrap_or_else(|| (State::Failed, text.to_string()));
            return self.end_job(at, outcome, &text, env);
        }
        if self.jobs.list[at].ack_sent_ms <= since
            && let Some(link) = node.and_then(|n| n.link)
        {
            self.jobs.list[at].ack_sent_ms = env.now_ms;
            self.send_ping(link, PacketType::Ping, env);
        }
        self.wake_at(env.now_ms + 50);
    }
}
