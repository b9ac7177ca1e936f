//! The target where it pulls: it connects to the source, asks for slots, takes in their snapshot by a second connection, and
//! then what was said by the first one meanwhile.
//!
//! An attempt that fails deletes what came, and another one follows a second later, until the job is cancelled or cannot
//! succeed any more. Each asks whoever owns the slots by then.
//!
//! A source lets the target take over as soon as it hears that the target is not far behind, without being asked. A source
//! that is one of ours says after how many such words it did, so that the target knows how old the grant is at most. With a
//! Redis it does not: there, a target that has stood still drops the attempt.

use super::describe::numbers;
use super::pull_source::CANCELLED_HERE;
use super::{
    Channel, Cluster, Dialect, Env, GRANT_LASTS_MS, Job, JobId, JobLink, Message, NOT_DURABLE, NodeId, NodeKey, Order,
    Ranges, State, command, overlap,
};
use crate::cluster::AdminError;
use crate::cluster::admin::refuse;
use crate::cluster::secret::is_same;
use crate::structs::slots::{SlotSet, slots_in};
use std::collections::VecDeque;

/// From one attempt to the next, and until a source that is not ready is asked again.
pub(super) const RETRY_MS: i64 = 1000;
/// From one word of how much was run to the next; if there is news, and if there is none.
const NEWS_MS: i64 = 10;
const WORD_MS: i64 = 100;
/// From one look at whether an attempt may begin to the next: it takes one at each slot.
const LOOK_MS: i64 = 20;
/// The times of so many of those are known.
const WORDS_KNOWN: usize = 256;
/// What a source says when its snapshot cannot be sent.
const FAILED_TO_SEND: &str = "RDB channel - Failed to send slots snapshot";
const STOOD_STILL: &str = "This node stood still for too long";
/// Tells a source of ours to number its grant. Redis passes over what it does not know.
pub(crate) const NUMBERS: &[u8] = b"numbered-eof";

/// Where the connection for the snapshot stands. The names shown are Redis's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum ChannelState {
    #[default]
    None,
    Connecting,
    ReadingAuthReply,
    ReadingReply,
    /// On a source: until the end of the turn, in which the snapshot begins.
    Waiting,
    Transfer,
    Completed,
}

impl ChannelState {
    pub(super) const ALL: [ChannelState; 7] = [
        ChannelState::None,
        ChannelState::Connecting,
        ChannelState::ReadingAuthReply,
        ChannelState::ReadingReply,
        ChannelState::Waiting,
        ChannelState::Transfer,
        ChannelState::Completed,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            ChannelState::None => "none",
            ChannelState::Connecting => "connecting",
            ChannelState::ReadingAuthReply => "auth-reply",
            ChannelState::ReadingReply => "rdbchannel-reply",
            ChannelState::Waiting => "wait-bgsave-start",
            ChannelState::Transfer => "rdbchannel-transfer",
            ChannelState::Completed => "completed",
        }
    }
}

/// What a job has besides where the target pulls.
#[derive(Clone, Debug, Default)]
pub(super) struct Pull {
    pub(super) channel: ChannelState,
    /// How many attempts failed.
    pub(super) retries: u64,
    /// When the next attempt, or the next question, is due.
    pub(super) due_ms: i64,
    /// Bytes of the stream: handed to the link of an export, and run by the target.
    pub(super) streamed: u64,
    pub(super) applied: u64,
    /// How often the target has said how much it has run, how much that was, and when it did so lately.
    pub(super) words: u64,
    pub(super) told: u64,
    pub(super) word_times: VecDeque<(u64, i64)>,
    /// The grant is to be numbered.
    pub(super) is_numbered: bool,
    /// When an export's snapshot began, and when the target had first run what gathered meanwhile.
    pub(super) snapshot_ms: i64,
    pub(super) caught_up_ms: Option<i64>,
    /// The target of an export that was cancelled may try again.
    pub(super) may_return: bool,
    /// The takeover was granted in an earlier turn.
    pub(super) is_heard: bool,
    /// Replicas and the log have heard of this attempt: the source has agreed to it. Of an export: replicas have.
    pub(super) is_told: bool,
}

impl Pull {
    /// Bytes that the target has not run.
    pub(super) fn lag(&self) -> u64 {
        self.streamed.saturating_sub(self.applied)
    }
}

impl Job {
    /// Why it ends, with where it stood.
    pub(super) fn tell_state(&self, message: &str) -> String {
        if self.dialect == Dialect::Push || message.is_empty() {
            return message.to_string();
        }
        let (state, channel) = (self.state.redis_name(), self.pull.channel.name());
        format!("{message} (state: {state}, rdb_channel_state: {channel})")
    }
}

impl Cluster {
    // ---- commands ----

    /// The owner of slots that this node might pull, if that may be asked for.
    fn source_of(&self, ranges: &Ranges) -> Result<NodeKey, AdminError> {
        self.check_pull_allowed()?;
        let mut source = None;
        for slot in slots_in(ranges) {
            let Some(key) = self.owner[usize::from(slot)] else {
                return refuse(format!("slot has no owner: {slot}"));
            };
            if *source.get_or_insert(key) != key {
                return refuse("slots belong to different source nodes");
            }
        }
        source.map_or_else(|| refuse("No slot ranges specified"), Ok)
    }

    /// Whether this node may pull slots, or have them pulled from it.
    pub(super) fn check_pull_allowed(&self) -> Result<(), AdminError> {
        if !self.is_master() {
            return refuse("slot migration not allowed on replica.");
        }
        if !self.importing.is_empty() || !self.migrating.is_empty() {
            return refuse("all slot states must be STABLE to start a slot migration task.");
        }
        if self.is_durable() {
            return refuse(NOT_DURABLE);
        }
        Ok(())
    }

    /// CLUSTER MIGRATION IMPORT: begins a job, whose name it gives. `by` is who asked.
    pub(crate) fn pull_slots(&mut self, ranges: Ranges, by: &str, env: &Env) -> Result<NodeId, AdminError> {
        self.check_pull_allowed()?;
        let meets = |range: &(u16, u16)| {
            // One that was cancelled is waited for.
            let open = self.jobs.list.iter().filter(|job| job.is_open(false) && !job.is_ending());
            open.flat_map(|job| &job.ranges).any(|other| overlap(range, other))
        };
        if let Some((first, last)) = ranges.iter().find(|range| meets(range)) {
            return refuse(format!("overlapping import exists for slot range: {first}-{last}"));
        }
        let source = self.source_of(&ranges)?;
        if source == self.myself {
            return refuse("this node is already the owner of the slot range");
        }
        if let Some(at) = self.jobs.list.iter().position(|job| job.retries() && job.is_open(false) && !job.is_ending())
        {
            if self.jobs.list[at].state != State::Retrying {
                return refuse("another ASM task is already in progress");
            }
            self.give_up(at, State::Cancelled, "Given up for another import", env);
        }
        let name = NodeId::random(&mut self.rng);
        let mut job = self.new_job(false, name, ranges, Some(self.nodes[source].id), env.now_ms);
        (job.dialect, job.state, job.has_link, job.begun_ms) = (Dialect::Pull, State::Waiting, false, None);
        log::info!("Slot import asked for by CLUSTER MIGRATION: {} (user request from '{by}')", job.description);
        self.jobs.list.push_front(job);
        Ok(name)
    }

    /// Cancels what is pulled here, as nothing may be written here from now on.
    pub(crate) fn cancel_pulls(&mut self, why: &str, env: &Env) {
        for at in 0..self.jobs.list.len() {
            let job = &self.jobs.list[at];
            if job.retries() && job.state.is_in_progress() {
                self.give_up(at, State::Cancelled, &format!("Cancelled due to {why}"), env);
            }
        }
    }

    /// This process is about to end.
    pub(crate) fn cancel_at_exit(&mut self, env: &Env) {
        for at in 0..self.jobs.list.len() {
            if self.jobs.list[at].is_at_work() {
                self.give_up(at, State::Cancelled, "Cancelled due to server shutdown", env);
            }
        }
    }

    /// A node is about to be forgotten: its jobs end.
    pub(in crate::cluster) fn end_jobs_with(&mut self, node: &NodeId, env: &Env) {
        for at in 0..self.jobs.list.len() {
            let job = &mut self.jobs.list[at];
            if !job.is_at_work() || ![job.source, job.target].contains(&Some(*node)) {
                continue;
            }
            // It may come back, and try again.
            job.pull.may_return = true;
            match job.dialect {
                Dialect::Push => self.fail_job(at, "The other node was forgotten", env),
                Dialect::Pull => self.give_up(at, State::Cancelled, "Cancelled due to node deleted", env),
            }
        }
    }

    /// CLUSTER MIGRATION CANCEL: of the job of this name, or of all; how many there were.
    pub(crate) fn cancel_tasks(&mut self, name: Option<&[u8]>, env: &Env) -> usize {
        let mut count = 0;
        for at in 0..self.jobs.list.len() {
            let job = &mut self.jobs.list[at];
            let is_meant = name.is_none_or(|name| job.name.as_bytes() == name) && !job.state.is_final();
            if !is_meant || job.is_tracking_only {
                continue;
            }
            match (job.state, job.outcome) {
                // It would be tried again.
                (State::CleaningUp, State::Failed) if job.retries() => {
                    (job.outcome, job.ended_ms) = (State::Cancelled, Some(env.now_ms));
                }
                // It ends as it is.
                (State::CleaningUp, _) => continue,
                _ if job.late_end.is_some() => continue,
                _ => self.give_up(at, State::Cancelled, "Cancelled by a command", env),
            }
            count += 1;
        }
        count
    }

    // ---- the beginning of an attempt ----

    /// Between attempts.
    pub(super) fn begin_attempt(&mut self, at: usize, env: &Env) {
        let job = &mut self.jobs.list[at];
        if env.now_ms < job.pull.due_ms {
            let due_ms = job.pull.due_ms;
            return self.wake_at(due_ms);
        }
        job.pull.due_ms = env.now_ms + LOOK_MS;
        if job.state == State::Retrying {
            job.pull.retries += 1;
            self.move_to(at, State::Waiting, env);
        }
        if self.source_to_pull(at, env).is_some() {
            let job = &self.jobs.list[at];
            let (job, slots) = (job.id, job.slots.clone());
            self.order(Order::Prepare { job, slots });
        }
        self.wake_at(env.now_ms + LOOK_MS);
    }

    /// Who has the slots now, as they may have gone to another node since they were asked for. Ends a job that has nothing to
    /// pull any more; one whose slots come in another way waits.
    fn source_to_pull(&mut self, at: usize, env: &Env) -> Option<NodeKey> {
        let job = &self.jobs.list[at];
        let is_imported = self.is_imported(&job.slots, Some(job.id));
        let why = match self.source_of(&job.ranges) {
            Ok(source) if source == self.myself => "slots owned by myself now".to_string(),
            Ok(source) => return Some(source).filter(|_| !is_imported),
            Err(AdminError(text)) => text,
        };
        self.give_up(at, State::Cancelled, &format!("Given up: {why}"), env);
        None
    }

    /// Nothing is left in the slots, and writes are not paused.
    pub(crate) fn on_import_ready(&mut self, job: JobId, env: &Env) {
        let Some(at) = self.jobs.at(job).filter(|at| self.jobs.list[*at].state == State::Waiting) else { return };
        let Some(source) = self.source_to_pull(at, env) else { return };
        let id = self.nodes[source].id;
        let description = self.describe_job(false, self.jobs.list[at].name, &self.jobs.list[at].ranges, Some(id));
        let job = &mut self.jobs.list[at];
        (job.source, job.description, job.owners_seen) = (Some(id), description, None);
        job.pull = Pull { retries: job.pull.retries, ..Pull::default() };
        (job.begun_ms, job.heard_ms, job.acked_ms) = (job.begun_ms.or(Some(env.now_ms)), env.now_ms, env.now_ms);
        job.has_link = true;
        self.move_to(at, State::Connecting, env);
        self.connect_job_link(at, Channel::Main, source);
    }

    // ---- both links, until they are clients ----

    pub(super) fn on_pull_connected(&mut self, at: usize, channel: Channel, auth: Option<Vec<u8>>, env: &Env) {
        if self.break_on_purpose(at, env) {
            return;
        }
        let auth = self.login_of_job(at, auth);
        let job = &mut self.jobs.list[at];
        let link = JobLink { job: job.id, channel };
        match (channel, job.state, job.pull.channel) {
            (Channel::Main, State::Connecting, _) => {
                if auth.is_some() {
                    self.move_to(at, State::ReadingAuthReply, env);
                } else {
                    self.send_conf(at, env);
                }
            }
            (Channel::Snapshot, State::OpeningChannel, ChannelState::Connecting) => {
                if auth.is_some() {
                    job.pull.channel = ChannelState::ReadingAuthReply;
                } else {
                    self.ask_for_snapshot(at);
                }
            }
            _ => return,
        }
        if let Some(bytes) = auth {
            self.order(Order::Send { link, bytes });
        }
    }

    fn send_conf(&mut self, at: usize, env: &Env) {
        let me = self.myself().id;
        let mut words: Vec<&[u8]> = vec![b"CLUSTER", b"SYNCSLOTS", b"CONF", b"NODE-ID", me.as_bytes()];
        if self.is_source_ours(at) {
            words.extend([&b"CAPA"[..], NUMBERS]);
        }
        let (link, bytes) = (self.jobs.list[at].id.main(), command(&words));
        self.order(Order::Send { link, bytes });
        self.move_to(at, State::ReadingConfReply, env);
    }

    fn is_source_ours(&self, at: usize) -> bool {
        self.other_side(at).is_none_or(|key| self.nodes[key].secret.is_none())
    }

    fn send_sync(&mut self, at: usize, env: &Env) {
        let job = &self.jobs.list[at];
        let numbers = numbers(&job.ranges);
        let mut words: Vec<&[u8]> = vec![b"CLUSTER", b"SYNCSLOTS", b"SYNC", job.name.as_bytes()];
        words.extend(numbers.iter().map(|number| number.as_bytes()));
        let (link, bytes) = (job.id.main(), command(&words));
        self.order(Order::Send { link, bytes });
        self.move_to(at, State::ReadingSyncReply, env);
    }

    fn ask_for_snapshot(&mut self, at: usize) {
        let job = &mut self.jobs.list[at];
        job.pull.channel = ChannelState::ReadingReply;
        let bytes = command(&[b"CLUSTER", b"SYNCSLOTS", b"RDBCHANNEL", job.name.as_bytes()]);
        let link = job.id.snapshot();
        self.order(Order::Send { link, bytes });
    }

    pub(super) fn pull_awaits_reply(&self, at: usize, channel: Channel) -> bool {
        let job = &self.jobs.list[at];
        match channel {
            Channel::Main => {
                matches!(job.state, State::ReadingAuthReply | State::ReadingConfReply | State::ReadingSyncReply)
            }
            Channel::Snapshot => {
                job.state == State::OpeningChannel
                    && matches!(job.pull.channel, ChannelState::ReadingAuthReply | ChannelState::ReadingReply)
            }
        }
    }

    pub(super) fn on_pull_reply(&mut self, at: usize, channel: Channel, line: &[u8], env: &Env) {
        // It may be of an attempt that has failed by now.
        if !self.pull_awaits_reply(at, channel) || self.break_on_purpose(at, env) {
            return;
        }
        self.jobs.list[at].heard_ms = env.now_ms;
        if self.meet_challenge(at, channel, line) {
            return;
        }
        match channel {
            Channel::Main => self.on_main_reply(at, line, env),
            Channel::Snapshot => self.on_snapshot_reply(at, line, env),
        }
    }

    fn on_main_reply(&mut self, at: usize, line: &[u8], env: &Env) {
        let refuse = |machine: &mut Cluster, what| machine.fail_pull_link(at, Channel::Main, &refusal(what, line), env);
        match self.jobs.list[at].state {
            State::ReadingAuthReply if line == b"+OK" => self.send_conf(at, env),
            State::ReadingAuthReply => refuse(self, "AUTH"),
            State::ReadingConfReply if line == b"+OK" => self.send_sync(at, env),
            State::ReadingConfReply => refuse(self, "CLUSTER SYNCSLOTS CONF"),
            State::ReadingSyncReply if line.starts_with(b"+RDBCHANNELSYNCSLOTS") => {
                // Keys may come from now on.
                self.jobs.list[at].pull.is_told = true;
                let command = self.jobs.list[at].import_command();
                self.order(Order::Propagate(command));
                self.tell_task(at);
                self.open_snapshot_link(at, env);
            }
            State::ReadingSyncReply if line.strip_prefix(b"-ERR ") == Some(CANCELLED_HERE.as_bytes()) => {
                self.end_for_good(at, CANCELLED_HERE, env);
            }
            State::ReadingSyncReply if line.starts_with(b"-NOTREADY") => {
                log::info!(
                    "Source node replied to SYNCSLOTS SYNC with -NOTREADY, will retry later: {}",
                    self.jobs.list[at].description
                );
                self.jobs.list[at].pull.due_ms = env.now_ms + RETRY_MS;
                self.move_to(at, State::WaitingToSync, env);
            }
            State::ReadingSyncReply => refuse(self, "CLUSTER SYNCSLOTS SYNC"),
            _ => {}
        }
    }

    fn open_snapshot_link(&mut self, at: usize, env: &Env) {
        let Some(source) = self.other_side(at) else {
            return self.fail_pull_link(at, Channel::Snapshot, "the source is not known any more", env);
        };
        self.jobs.list[at].pull.channel = ChannelState::Connecting;
        self.move_to(at, State::OpeningChannel, env);
        self.connect_job_link(at, Channel::Snapshot, source);
    }

    fn on_snapshot_reply(&mut self, at: usize, line: &[u8], env: &Env) {
        let job = &mut self.jobs.list[at];
        match job.pull.channel {
            ChannelState::ReadingAuthReply if line == b"+OK" => self.ask_for_snapshot(at),
            ChannelState::ReadingAuthReply => self.fail_pull_link(at, Channel::Snapshot, &refusal("AUTH", line), env),
            // It says that it is there until it can begin.
            ChannelState::ReadingReply if line.is_empty() => {}
            ChannelState::ReadingReply if line.starts_with(b"+SLOTSSNAPSHOT") => {
                job.pull.channel = ChannelState::Transfer;
                let link = job.id.snapshot();
                self.order(Order::Adopt { link });
                self.move_to(at, State::ReceivingSnapshot, env);
            }
            ChannelState::ReadingReply => {
                let why = refusal("CLUSTER SYNCSLOTS RDBCHANNEL", line);
                self.fail_pull_link(at, Channel::Snapshot, &why, env);
            }
            _ => {}
        }
    }

    // ---- what the source says, and how much of it was run ----

    /// What comes over this link is for later: the snapshot is not there yet.
    pub(crate) fn gathers_stream(&self, link: JobLink) -> bool {
        let Some(at) = self.jobs.at(link.job).filter(|_| link.channel == Channel::Main) else { return false };
        let job = &self.jobs.list[at];
        let is_coming = matches!(job.state, State::OpeningChannel | State::ReceivingSnapshot);
        job.dialect == Dialect::Pull && !job.is_export && is_coming
    }

    /// What was said while the snapshot came is being run.
    pub(crate) fn catches_up(&self, job: JobId) -> bool {
        self.jobs.at(job).is_some_and(|at| self.jobs.list[at].state == State::CatchingUp)
    }

    pub(super) fn on_message_of_pulled(&mut self, at: usize, channel: Channel, message: Message, env: &Env) {
        let state = self.jobs.list[at].state;
        match (message, channel, state) {
            (Message::Remark, ..) => {}
            (Message::SnapshotEof, Channel::Snapshot, State::ReceivingSnapshot) => {
                let job = &mut self.jobs.list[at];
                log::info!("Slot migration {} has its snapshot.", job.description);
                job.pull.channel = ChannelState::Completed;
                let id = job.id;
                self.order(Order::CloseSnapshotLink { job: id });
                self.order(Order::Adopt { link: id.main() });
                self.move_to(at, State::CatchingUp, env);
                self.tell_applied(at, env);
            }
            (Message::StreamEof(number), Channel::Main, State::CatchingUp | State::WaitingForEof) => {
                self.on_stream_eof(at, number, env);
            }
            _ => self.refuse_message(at, message, env),
        }
    }

    fn on_stream_eof(&mut self, at: usize, number: Option<u64>, env: &Env) {
        let job = &self.jobs.list[at];
        let is_numbered = self.is_source_ours(at);
        let said_ms = |number| job.pull.word_times.iter().find(|(n, _)| *n == number).map(|(_, said_ms)| *said_ms);
        // What is not known any more is too old.
        let asked_ms = if is_numbered { number.and_then(said_ms).unwrap_or(i64::MIN) } else { job.ack_sent_ms };
        if env.now_ms.saturating_sub(asked_ms) > GRANT_LASTS_MS {
            let text = if is_numbered { "Failover was granted too late" } else { STOOD_STILL };
            return self.fail_job(at, text, env);
        }
        self.jobs.list[at].requested_ms = asked_ms;
        // It leaves when all that was run is as durable as it is to be.
        self.tell_applied(at, env);
        self.move_to(at, State::MayTakeOver, env);
        self.wake_at(env.now_ms);
    }

    /// Whether all that the source has said is as durable as it is to be: what was said after it has left.
    pub(super) fn is_stream_durable(&mut self, at: usize, env: &Env) -> bool {
        let job = &mut self.jobs.list[at];
        if job.dialect == Dialect::Push || std::mem::replace(&mut job.pull.is_heard, true) && job.backlog == 0 {
            return true;
        }
        self.wake_at(env.now_ms + 1);
        false
    }

    /// So many bytes of the stream were run by now; `is_all`: no more has come.
    pub(crate) fn note_migration_applied(&mut self, job: JobId, bytes: u64, is_all: bool, env: &Env) {
        let Some(at) = self.jobs.at(job) else { return };
        let job = &mut self.jobs.list[at];
        job.pull.applied = bytes;
        if job.state == State::CatchingUp && is_all {
            self.move_to(at, State::WaitingForEof, env);
            self.tell_applied(at, env);
        }
    }

    /// So many bytes of the stream were handed to the link of an export.
    pub(crate) fn note_migration_streamed(&mut self, job: JobId, bytes: u64) {
        if let Some(at) = self.jobs.at(job) {
            self.jobs.list[at].pull.streamed = bytes;
        }
    }

    fn tell_applied(&mut self, at: usize, env: &Env) {
        let job = &mut self.jobs.list[at];
        job.ack_sent_ms = env.now_ms;
        let pull = &mut job.pull;
        (pull.words, pull.told) = (pull.words + 1, pull.applied);
        if pull.word_times.len() == WORDS_KNOWN {
            pull.word_times.pop_front();
        }
        pull.word_times.push_back((pull.words, env.now_ms));
        let (state, bytes) = (job.state.redis_name(), pull.applied.to_string());
        let bytes = command(&[b"CLUSTER", b"SYNCSLOTS", b"ACK", state.as_bytes(), bytes.as_bytes()]);
        let link = job.id.main();
        self.order(Order::Send { link, bytes });
    }

    /// Goes on with an attempt whose slots are still where they were.
    pub(super) fn advance_pull(&mut self, at: usize, env: &Env) {
        let job = &self.jobs.list[at];
        match job.state {
            State::WaitingToSync if env.now_ms >= job.pull.due_ms => self.send_sync(at, env),
            State::CatchingUp | State::WaitingForEof => {
                let silent_ms = env.now_ms - job.ack_sent_ms;
                if silent_ms > GRANT_LASTS_MS && !self.is_source_ours(at) {
                    // It may have let us take over long ago, and taken that back.
                    return self.fail_job(at, STOOD_STILL, env);
                }
                let wait_ms = if job.pull.applied == job.pull.told { WORD_MS } else { NEWS_MS };
                if silent_ms >= wait_ms {
                    self.tell_applied(at, env);
                }
                self.wake_at(env.now_ms + wait_ms);
            }
            _ => {}
        }
    }

    // ---- the end ----
    //
    // Of what is said then, tools that know Redis look for the name of the channel and for a timeout.

    /// A link is not there, or says that it cannot go on: another attempt may.
    pub(super) fn fail_pull_link(&mut self, at: usize, channel: Channel, why: &str, env: &Env) {
        let text = match channel {
            Channel::Main => format!("Main channel: the source cannot be asked for the slots: {why}"),
            Channel::Snapshot => format!("RDB channel: the source cannot be asked for a snapshot: {why}"),
        };
        self.fail_job(at, &text, env);
    }

    pub(super) fn on_pull_link_lost(&mut self, at: usize, channel: Channel, env: &Env) {
        let job = &mut self.jobs.list[at];
        if channel == Channel::Main {
            job.has_link = false;
        }
        // A source closes nothing after it has let the target take over, and the target closes what it does not need.
        if !job.is_at_work() || !job.state.has_begun() || job.state == State::Granted {
            return;
        }
        match (channel, job.pull.channel) {
            (Channel::Snapshot, ChannelState::Completed) => {}
            (Channel::Snapshot, _) if job.is_export => {
                self.fail_job(at, FAILED_TO_SEND, env);
            }
            (Channel::Snapshot, _) => self.fail_job(at, "RDB channel: the link broke", env),
            (Channel::Main, _) => self.fail_job(at, "Main channel: the link broke", env),
        }
    }

    pub(super) fn time_out_pull(&mut self, at: usize, env: &Env) {
        let job = &self.jobs.list[at];
        let text = match job.pull.channel {
            ChannelState::Transfer if job.is_export => FAILED_TO_SEND,
            ChannelState::Transfer => "RDB channel - Connection timeout",
            _ => "Main channel - Connection timeout",
        };
        self.fail_job(at, text, env);
    }

    /// Whether a secret is one by which nodes of this cluster know each other.
    pub(crate) fn is_secret_of_node(&self, said: &[u8]) -> bool {
        let secrets = self.nodes.iter().filter_map(|(_, node)| node.secret.as_ref());
        secrets.fold(false, |found, secret| found | is_same(secret, said))
    }
}

/// What a source has replied.
fn refusal(to: &str, line: &[u8]) -> String {
    format!("it replied to {to}: {}", String::from_utf8_lossy(line))
}

/// Ranges in order, those beside each other as one; or a slot that stands there twice.
pub(crate) fn in_order(ranges: &Ranges) -> Result<Ranges, u16> {
    let mut slots = SlotSet::default();
    match slots_in(ranges).find(|slot| !slots.insert(*slot)) {
        Some(twice) => Err(twice),
        None => Ok(slots.ranges()),
    }
}
