//! Slots that move to another node as a whole: the jobs on both sides, without I/O.
//!
//! The owner of slots (source) sends what they hold to the node that is to have them (target) as commands, and the writes
//! that came meanwhile. It holds back further writes to those slots, says so in the stream, and lets the target take over:
//! the target takes a new config epoch, owns the slots, and tells everybody. Nobody is sent to and fro meanwhile, and no slot
//! is half here and half there. There are two ways to say so (`CLUSTER SYNCSLOTS`): in Valkey 9 the source connects and
//! pushes, in Redis 8.4 the target connects, twice, and pulls. See [`Dialect`].
//!
//! What keeps a slot with exactly one owner:
//!
//! - A source that has let the target take over holds writes back until it knows what came of it: the claim arrives over the
//!   bus, or the target answers a ping that was sent after the time in which it might take over and does not claim the slots,
//!   or the cluster has declared it failed. In the last case the source takes an epoch that beats a claim it has not heard of.
//! - A target takes over at once when it may, and not at all later than [`GRANT_LASTS_MS`] after it asked, which is less than
//!   a source waits: that is looked at in the turn in which it takes over. It does so under an epoch that is greater than any
//!   it knows, and only while a majority of the masters answers it.
//! - The target knows the epoch of a source that has let it take over, and that epoch stays: the source takes no other one,
//!   lets no replica take its place, and takes over no slots itself until it knows what came of it.
//!
//! Until the end keys of slots that come are hidden, on the target and its replicas, which hear of the job's beginning and end
//! in the stream. A job that fails deletes them.
//!
//! Links and keys belong to the server (`server/cluster/slot_migration`), which carries out [`Order`]s and reports events.
//! Files: `export` (the source's side), `fail_point` (links that break on purpose), `import` (the target's and its replicas'),
//! `login` (how who connects does so), `pull_source` and `pull_target` (what differs where the target pulls), `describe` (what is shown).

mod describe;
mod export;
mod fail_point;
mod import;
mod login;
mod pull_source;
mod pull_target;
#[cfg(test)]
mod pull_tests;
#[cfg(test)]
mod tests;

pub(in crate::cluster) use describe::{Grant, parse_grants};
pub(crate) use describe::{JobView, TaskView};
pub(crate) use fail_point::FailPoint;
pub(crate) use import::{Establish, Origin};
pub(crate) use pull_source::Sync;
pub(crate) use pull_target::{NUMBERS, in_order};

use std::collections::VecDeque;

use pull_target::Pull;

use super::admin::refuse;
use super::node::{NodeId, NodeKey};
use super::{Action, AdminError, Cluster, Env};
use crate::resp::Reply;
use crate::structs::slots::{Slot, SlotSet, slots_in};

/// How long after it asked a target may take over.
const GRANT_LASTS_MS: i64 = 1500;
/// For so long a source may wait with a grant.
const GRANT_WAITS_MS: i64 = 1000;
/// How long a source waits at least for news of a takeover it has granted.
const SHORTEST_HOLD_MS: i64 = 2000;
/// How many times `cluster-manual-failover-timeout` a source holds writes back.
const HOLD_MULT: i64 = 2;
/// Between two signs of life.
const ACK_MS: i64 = 1000;
/// So much may be unsent when writes are held back, whatever is configured: the link takes it in no time. Bytes.
const SMALL_BACKLOG: u64 = 16 * 1024;

/// A target that is lost with its replicas right after the takeover may have acknowledged what the source, which takes the
/// slots back, has not.
const NOT_DURABLE: &str = "Slots do not move as a whole while cluster-durable-acks is on";

/// A job; no number is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct JobId(pub(crate) u64);

/// Who connects to whom, and in whose words both sides talk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Dialect {
    /// The source connects to the target: Valkey 9.
    Push,
    /// The target connects to the source, once for the stream and once for the snapshot: Redis 8.4.
    Pull,
}

/// What a connection of a job is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Channel {
    /// What both sides say, and the stream; where the source pushes, the snapshot as well.
    Main,
    Snapshot,
}

/// A connection of a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct JobLink {
    pub(crate) job: JobId,
    pub(crate) channel: Channel,
}

impl JobId {
    pub(crate) fn main(self) -> JobLink {
        JobLink { job: self, channel: Channel::Main }
    }

    pub(crate) fn snapshot(self) -> JobLink {
        JobLink { job: self, channel: Channel::Snapshot }
    }
}

/// Inclusive ranges of slots, as they were named.
pub(crate) type Ranges = Vec<(Slot, Slot)>;

/// Where a job stands. The names shown are Valkey's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    // On the source.
    Connecting,
    ReadingAuthReply,
    ReadingEstablishReply,
    WaitingToSnapshot,
    Snapshotting,
    Streaming,
    WaitingToPause,
    Paused,
    Granted,
    // On the target.
    WaitingForAck,
    ReceivingSnapshot,
    WaitingForPaused,
    RequestedFailover,
    MayTakeOver,
    CleaningUp,
    /// On a replica of the target, or where the data came from a file.
    OnPrimary,
    // On a target that pulls.
    /// Until nothing is left in the slots and writes are not paused.
    Waiting,
    ReadingConfReply,
    /// The source is not ready; it is asked again.
    WaitingToSync,
    ReadingSyncReply,
    OpeningChannel,
    /// What was said while the snapshot came is run.
    CatchingUp,
    WaitingForEof,
    /// An attempt failed, and the next one follows.
    Retrying,
    // On a source that is pulled from.
    WaitingForChannel,
    // At the end.
    Success,
    Cancelled,
    Failed,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Connecting => "connecting",
            State::ReadingAuthReply => "reading-auth-response",
            State::ReadingEstablishReply => "reading-establish-response",
            State::WaitingToSnapshot => "waiting-to-snapshot",
            State::Snapshotting => "snapshotting",
            State::Streaming => "replicating",
            State::WaitingToPause => "waiting-to-pause",
            State::Paused => "failover-paused",
            State::Granted | State::MayTakeOver => "failover-granted",
            State::WaitingForAck => "waiting-for-ack",
            State::ReceivingSnapshot => "receiving-snapshot",
            State::WaitingForPaused => "waiting-for-paused",
            State::RequestedFailover => "failover-requested",
            State::CleaningUp => "cleaning-up",
            State::OnPrimary => "occurring-on-primary",
            State::Success => "success",
            State::Cancelled => "cancelled",
            State::Failed | State::Retrying => "failed",
            State::Waiting => "none",
            State::ReadingConfReply => "handshake-reply",
            State::WaitingToSync => "send-syncslots",
            State::ReadingSyncReply => "syncslots-reply",
            State::OpeningChannel => "init-rdbchannel",
            State::CatchingUp => "streaming-buffer",
            State::WaitingForEof => "wait-stream-eof",
            State::WaitingForChannel => "wait-rdbchannel",
        }
    }

    /// What Redis calls it, where it has a name for it.
    pub(crate) fn redis_name(self) -> &'static str {
        match self {
            State::ReadingAuthReply => "auth-reply",
            State::WaitingToSnapshot => "wait-bgsave-start",
            State::Snapshotting => "send-bulk-and-stream",
            State::Streaming => "send-stream",
            State::WaitingToPause => "handoff-prep",
            State::Paused => "handoff",
            State::Granted => "stream-eof",
            State::ReceivingSnapshot => "accumulate-buffer",
            State::MayTakeOver => "takeover",
            State::Success => "completed",
            State::Cancelled => "canceled",
            other => other.name(),
        }
    }

    /// The job is over, and only there to be shown.
    fn is_final(self) -> bool {
        matches!(self, State::Success | State::Cancelled | State::Failed)
    }

    /// The slots are still on their way.
    fn is_in_progress(self) -> bool {
        !self.is_final() && self != State::CleaningUp
    }

    /// The other side is to hear from us.
    fn shows_life(self) -> bool {
        matches!(
            self,
            State::WaitingToSnapshot
                | State::Streaming
                | State::WaitingToPause
                | State::Paused
                | State::ReceivingSnapshot
                | State::WaitingForPaused
                | State::RequestedFailover
        )
    }

    /// There is a link that may fall silent.
    fn may_time_out(self) -> bool {
        self.has_begun() && self.is_in_progress() && !matches!(self, State::Granted | State::OnPrimary)
    }

    /// An attempt is under way: keys may come.
    fn has_begun(self) -> bool {
        !matches!(self, State::Waiting | State::Retrying)
    }

    /// The other side may be let take over before anything else is written down.
    fn may_grant(self) -> bool {
        matches!(self, State::WaitingToPause | State::Paused | State::Granted)
    }

    /// Writes to the slots are held back.
    fn holds_writes(self) -> bool {
        matches!(self, State::Paused | State::Granted)
    }
}

/// What the other side of a link says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Ack,
    SnapshotEof,
    RequestPause,
    Paused,
    RequestFailover,
    FailoverGranted,
    /// A target that pulls has run so many bytes of the stream, and all that was said while it took in the snapshot.
    Applied {
        bytes: u64,
        is_caught_up: bool,
    },
    /// To a target that pulls: there is no more, and it is to take over; and, if it numbers what it says, after how many
    /// [`Message::Applied`] that was said.
    StreamEof(Option<u64>),
    /// Nothing has to be done about it.
    Remark,
    Unknown,
}

impl Message {
    /// By the words after CLUSTER SYNCSLOTS.
    pub(crate) fn of(word: &[u8], rest: &[&[u8]]) -> Message {
        let number = |at: usize| std::str::from_utf8(rest.get(at)?).ok()?.parse().ok();
        match &*word.to_ascii_uppercase() {
            b"ACK" if rest.len() == 2 => {
                let is_caught_up = rest[0].eq_ignore_ascii_case(State::WaitingForEof.name().as_bytes());
                number(1).map_or(Message::Remark, |bytes| Message::Applied { bytes, is_caught_up })
            }
            b"STREAM-EOF" => Message::StreamEof(number(0)),
            b"FAIL" | b"CONF" => Message::Remark,
            b"ACK" => Message::Ack,
            b"SNAPSHOT-EOF" => Message::SnapshotEof,
            b"REQUEST-PAUSE" => Message::RequestPause,
            b"PAUSED" => Message::Paused,
            b"REQUEST-FAILOVER" => Message::RequestFailover,
            b"FAILOVER-GRANTED" => Message::FailoverGranted,
            _ => Message::Unknown,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Message::Ack => "ACK",
            Message::SnapshotEof => "SNAPSHOT-EOF",
            Message::RequestPause => "REQUEST-PAUSE",
            Message::Paused => "PAUSED",
            Message::RequestFailover => "REQUEST-FAILOVER",
            Message::FailoverGranted => "FAILOVER-GRANTED",
            Message::Applied { .. } => "ACK",
            Message::StreamEof(_) => "STREAM-EOF",
            Message::Remark => "CONF",
            Message::Unknown => "UNKNOWN",
        }
    }

    fn command(self) -> Vec<u8> {
        let number = match self {
            Message::StreamEof(Some(number)) => Some(number.to_string()),
            _ => None,
        };
        let mut words: Vec<&[u8]> = vec![b"CLUSTER", b"SYNCSLOTS", self.word().as_bytes()];
        words.extend(number.as_ref().map(|number| number.as_bytes()));
        command(&words)
    }
}

/// Whether ranges have a slot in common.
fn overlap((a, b): &(Slot, Slot), (c, d): &(Slot, Slot)) -> bool {
    a <= d && c <= b
}

/// A command as a request.
fn command(args: &[&[u8]]) -> Vec<u8> {
    let mut out = Reply::default();
    out.command(args.iter().copied());
    out.buf
}

/// What the server is to do for a job.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    /// See whether anything is left in the slots of another time, and have it deleted; if not, and writes are not paused,
    /// `on_import_ready`.
    Prepare { job: JobId, slots: SlotSet },
    /// Connect to the client port of the other side; then `on_migration_connected`, or `on_migration_failed`.
    Connect { link: JobLink, ip: String, port: u16 },
    /// Queue bytes on a link.
    Send { link: JobLink, bytes: Vec<u8> },
    /// The handshake is over: what the link says from now on are commands.
    Adopt { link: JobLink },
    /// Give what the slots hold to the link that is for it, part by part, and writes to what has gone. Then
    /// `on_snapshot_started` and, at its end, `on_snapshot_ended`.
    Snapshot { job: JobId, slots: SlotSet },
    /// Close the job's links, which the machine has forgotten, and what else serves the job.
    Close { job: JobId },
    /// Close the link that the snapshot came by.
    CloseSnapshotLink { job: JobId },
    /// Delete all keys in these slots, then `on_slots_deleted`.
    Delete { job: JobId, slots: SlotSet },
    /// Give a command to the replicas and the log.
    Propagate(Vec<Vec<u8>>),
    /// Give a command to the replicas alone.
    Tell(Vec<Vec<u8>>),
    /// `held_slots` or `importing_slots` changed.
    Review,
}

/// A job. See [`State`] for where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    id: JobId,
    name: NodeId,
    is_export: bool,
    dialect: Dialect,
    ranges: Ranges,
    slots: SlotSet,
    source: Option<NodeId>,
    target: Option<NodeId>,
    created_ms: i64,
    /// When it began to do something, when it was over, and when it held writes back.
    begun_ms: Option<i64>,
    ended_ms: Option<i64>,
    paused_ms: Option<i64>,
    updated_ms: i64,
    acked_ms: i64,
    ack_sent_ms: i64,
    /// When something last came over an import's link, or went over the one for an export's snapshot.
    heard_ms: i64,
    state: State,
    /// What it becomes when it has cleaned up.
    outcome: State,
    message: String,
    /// For logs.
    description: String,
    /// Until when writes are held back; when the takeover was asked for.
    hold_until_ms: i64,
    requested_ms: i64,
    /// The source of an import holds writes back.
    is_paused: bool,
    /// The target has asked for the takeover, and when.
    asked_ms: Option<i64>,
    /// It was to end so after the takeover was granted: what comes of that decides.
    late_end: Option<(State, String)>,
    /// Another process does the work, or did.
    is_tracking_only: bool,
    has_link: bool,
    /// The changes of owners up to which its slots have been looked at.
    owners_seen: Option<u64>,
    /// Bytes that wait to be sent, in all and after the link last took some.
    backlog: u64,
    unsent: u64,
    /// What there is only where the target pulls.
    pull: Pull,
}

impl Job {
    /// It tries again when it fails.
    fn retries(&self) -> bool {
        self.dialect == Dialect::Pull && !self.is_export && !self.is_tracking_only
    }

    /// Replicas and the log know of it: they are to hear how it ends.
    fn is_told(&self) -> bool {
        match self.is_export {
            true => self.pull.is_told,
            false => self.state.has_begun() && (self.dialect == Dialect::Push || self.pull.is_told),
        }
    }

    /// It is an export, or an import if that is what is asked for, and is not over.
    fn is_open(&self, is_export: bool) -> bool {
        self.is_export == is_export && !self.state.is_final()
    }

    /// It was cancelled, and what has come is being deleted.
    fn is_ending(&self) -> bool {
        (self.state, self.outcome) == (State::CleaningUp, State::Cancelled)
    }

    /// The slots are on their way, and this process has a part in it.
    fn is_at_work(&self) -> bool {
        self.state.is_in_progress() && !self.is_tracking_only
    }
}

/// All jobs, the newest first.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    list: VecDeque<Job>,
    /// How many of them are not over.
    open: usize,
    next: u64,
    /// The changes of owners up to which exports that have failed were looked at.
    owners_seen: u64,
    /// Our config epoch, and when we were first seen to have it.
    epoch: (u64, i64),
    /// DEBUG SLOTMIGRATION: sources do not pause, targets do not take over.
    pub(crate) prevents_pause: bool,
    pub(crate) prevents_failover: bool,
    /// DEBUG ASM-FAILPOINT: where links break.
    pub(crate) fail_point: Option<FailPoint>,
}

impl Jobs {
    fn at(&self, id: JobId) -> Option<usize> {
        self.list.iter().position(|job| job.id == id)
    }
}

impl Cluster {
    // ---- what the server asks ----

    /// Whether there is a job that is not over, or one that has failed may have lost its slots.
    pub(crate) fn slots_migrate(&self) -> bool {
        self.jobs.open > 0 || !self.jobs.list.is_empty() && self.jobs.owners_seen != self.owner_changes
    }

    /// DEBUG SLOTMIGRATION.
    pub(crate) fn slot_migration_debug(&mut self) -> &mut Jobs {
        &mut self.jobs
    }

    fn slots_where(&self, is_meant: impl Fn(&Job) -> bool) -> SlotSet {
        self.jobs.list.iter().filter(|job| is_meant(job)).flat_map(|job| job.slots.iter()).collect()
    }

    /// Slots to which writes are held back.
    pub(crate) fn held_slots(&self) -> SlotSet {
        self.slots_where(|job| job.state.holds_writes())
    }

    /// Whether another node may take slots of ours at this moment.
    pub(super) fn has_granted(&self) -> bool {
        self.jobs.open > 0 && self.jobs.list.iter().any(|job| job.state == State::Granted)
    }

    /// Slots that we have let this node take.
    pub(super) fn granted_to(&self, node: NodeKey) -> SlotSet {
        if !self.has_granted() {
            return SlotSet::default();
        }
        let id = self.nodes[node].id;
        self.slots_where(|job| job.state == State::Granted && job.target == Some(id))
    }

    /// Whether acknowledged writes are to survive whatever happens.
    fn is_durable(&self) -> bool {
        self.config.durable_acks > 0 || self.has_durable_acks()
    }

    /// Whether slots of this node are on their way to another one with it.
    pub(crate) fn is_export(&self, id: JobId) -> bool {
        self.jobs.at(id).is_some_and(|at| self.jobs.list[at].is_export)
    }

    pub(crate) fn slots_of_job(&self, id: JobId) -> Option<&SlotSet> {
        self.jobs.at(id).map(|at| &self.jobs.list[at].slots)
    }

    /// Whether a majority of the masters has answered what was sent to them after that time.
    fn is_answered_by_majority(&self, since_ms: i64) -> bool {
        let others = self.nodes.iter().filter(|(key, n)| *key != self.myself && n.is_voter());
        let answered = others.filter(|(_, n)| !n.failed() && n.granted_ms > since_ms).count();
        answered + usize::from(self.myself().is_voter()) >= self.quorum()
    }

    /// Slots whose keys are not to be seen yet.
    pub(crate) fn importing_slots(&self) -> SlotSet {
        self.slots_where(|job| job.is_open(false) && job.state.has_begun())
    }

    /// Whether an import, besides this one, has one of these slots, even if it has not begun or is between two attempts.
    fn is_imported(&self, slots: &SlotSet, besides: Option<JobId>) -> bool {
        let meets = |job: &Job| job.slots.first_common(slots).is_some();
        self.jobs.list.iter().any(|job| job.is_open(false) && Some(job.id) != besides && meets(job))
    }

    /// Why CLUSTER SETSLOT cannot touch a slot, or open it, if so: a slot of a task is left alone, and while jobs of the other
    /// dialect are under way no slot is opened.
    pub(crate) fn check_no_slot_migration(&self, slot: Slot, opens: bool) -> Result<(), AdminError> {
        let is_task_of = |job: &Job| {
            let is_over = job.state.is_final() || job.is_ending();
            job.dialect == Dialect::Pull && !is_over && !job.is_tracking_only && job.slots.contains(slot)
        };
        if self.jobs.list.iter().any(is_task_of) {
            return refuse(format!(
                "Slot {slot} is in an active atomic slot migration: CLUSTER SETSLOT is possible when the task is over, or was \
                 cancelled by CLUSTER MIGRATION CANCEL"
            ));
        }
        let open = |is_export| {
            let is_meant = |job: &Job| job.dialect == Dialect::Push && job.is_open(is_export);
            opens && self.jobs.list.iter().any(is_meant)
        };
        if open(false) {
            return refuse("Slot import in progress. Cannot perform manual slot migration");
        }
        if open(true) {
            return refuse("Slot export in progress. Cannot perform manual slot migration");
        }
        Ok(())
    }

    /// Whether a migration may begin here at all.
    pub(crate) fn check_slot_migration_allowed(&self) -> Result<(), AdminError> {
        if !self.is_master() {
            return refuse("Slot migration can only be used on primary nodes.");
        }
        if self.is_durable() {
            return refuse(NOT_DURABLE);
        }
        if !self.importing.is_empty() {
            return refuse("Slots are being manually imported");
        }
        if !self.migrating.is_empty() {
            return refuse("Slots are being manually migrated");
        }
        Ok(())
    }

    /// Adds a range to those of one job. All slots of it must have one owner, that of the others if there are any.
    pub(crate) fn add_range(
        &self,
        ranges: &mut Ranges,
        owner: &mut Option<NodeKey>,
        (first, last): (Slot, Slot),
    ) -> Result<(), AdminError> {
        for slot in first..=last {
            let Some(key) = self.owner[usize::from(slot)] else {
                return refuse(format!("Slot {slot} has no node served."));
            };
            if *owner.get_or_insert(key) != key {
                return refuse("Requested slots span multiple shards");
            }
        }
        if let Some((a, b)) = ranges.iter().find(|range| overlap(range, &(first, last))) {
            return refuse(format!("Slot range {first}-{last} overlaps with previous range {a}-{b}."));
        }
        ranges.push((first, last));
        Ok(())
    }

    // ---- events of both sides ----

    /// How it stands with a job's link: bytes that wait in all, and after it last took some.
    pub(crate) fn note_migration_backlog(&mut self, job: JobId, backlog: u64, unsent: u64) {
        if let Some(at) = self.jobs.at(job) {
            (self.jobs.list[at].backlog, self.jobs.list[at].unsent) = (backlog, unsent);
        }
    }

    /// Something came over a job's link lately.
    pub(crate) fn note_migration_heard(&mut self, job: JobId, heard_ms: i64) {
        if let Some(at) = self.jobs.at(job) {
            self.jobs.list[at].heard_ms = self.jobs.list[at].heard_ms.max(heard_ms);
        }
    }

    /// The link of a job said something.
    pub(crate) fn on_migration_message(&mut self, link: JobLink, message: Message, env: &Env) {
        let Some(at) = self.jobs.at(link.job) else { return };
        // What it says may end the state that it finds the job in.
        if !self.jobs.list[at].state.is_in_progress() || self.break_on_purpose(at, env) {
            return;
        }
        let job = &mut self.jobs.list[at];
        match message {
            Message::Unknown => self.on_migration_failed(link.job, "Unknown SYNCSLOTS subcommand used", env),
            _ if job.dialect == Dialect::Pull && job.is_export => self.on_message_of_puller(at, message, env),
            _ if job.dialect == Dialect::Pull => self.on_message_of_pulled(at, link.channel, message, env),
            Message::Ack => {
                job.acked_ms = env.now_ms;
                if job.state == State::WaitingForAck {
                    self.move_to(at, State::ReceivingSnapshot, env);
                }
            }
            _ if job.is_export => self.on_message_of_target(at, message, env),
            _ => self.on_message_of_source(at, message, env),
        }
    }

    /// A job's link is gone.
    pub(crate) fn on_migration_link_lost(&mut self, link: JobLink, env: &Env) {
        let Some(at) = self.jobs.at(link.job) else { return };
        let job = &mut self.jobs.list[at];
        if job.dialect == Dialect::Pull {
            return self.on_pull_link_lost(at, link.channel, env);
        }
        job.has_link = false;
        if !job.is_at_work() {
            return;
        }
        log::info!("Slot migration {} connection lost", job.description);
        // What has become of a takeover is not known by that.
        if job.state == State::Granted {
            return;
        }
        let side = if job.is_export { "target" } else { "source" };
        let text = format!(
            "Connection lost to {side}. Check CLUSTER GETSLOTMIGRATIONS on the {side} node for more information."
        );
        self.fail_job(at, &text, env);
    }

    /// A job cannot go on, and would not if it were tried again. (A source leaves it to the target to see that.)
    pub(crate) fn on_migration_failed(&mut self, job: JobId, why: &str, env: &Env) {
        match self.jobs.at(job).filter(|at| self.jobs.list[*at].state.is_in_progress()) {
            Some(at) if self.jobs.list[at].is_export => self.fail_job(at, why, env),
            Some(at) => self.end_for_good(at, why, env),
            None => {}
        }
    }

    /// A job cannot go on at this moment.
    pub(crate) fn on_migration_hindered(&mut self, job: JobId, why: &str, env: &Env) {
        if let Some(at) = self.jobs.at(job).filter(|at| self.jobs.list[*at].state.is_in_progress()) {
            self.fail_job(at, why, env);
        }
    }

    /// There is no link to the other side.
    pub(crate) fn on_migration_unconnected(&mut self, link: JobLink, why: &str, env: &Env) {
        let Some(at) = self.jobs.at(link.job).filter(|at| self.jobs.list[*at].state.is_in_progress()) else { return };
        match self.jobs.list[at].dialect {
            Dialect::Push => self.fail_job(at, &format!("Unable to connect to target node: {why}"), env),
            Dialect::Pull => self.fail_pull_link(at, link.channel, why, env),
        }
    }

    /// All keys went, or all of `slot`.
    pub(crate) fn on_data_flushed(&mut self, slot: Option<Slot>, env: &Env) {
        for at in 0..self.jobs.list.len() {
            let job = &self.jobs.list[at];
            if job.is_at_work() && slot.is_none_or(|slot| job.slots.contains(slot)) {
                self.end_for_good(at, "Data was flushed", env);
            }
        }
    }

    // ---- the turn ----

    /// Goes on with all jobs. To be called before the loop sleeps, when everything that was executed is in the streams.
    pub(crate) fn advance_slot_migrations(&mut self, env: &Env) {
        if self.jobs.epoch.0 != self.myself().epochs.config {
            self.jobs.epoch = (self.myself().epochs.config, env.now_ms);
        }
        for at in 0..self.jobs.list.len() {
            let job = &self.jobs.list[at];
            if job.state.is_final() {
                continue;
            }
            if job.is_at_work() && self.is_durable() {
                self.end_for_good(at, NOT_DURABLE, env);
            }
            self.check_time(at, env);
            self.break_on_purpose(at, env);
            if self.jobs.list[at].is_export {
                self.advance_export(at, env);
            } else {
                self.advance_import(at, env);
            }
            self.show_life(at, env);
        }
        if std::mem::replace(&mut self.jobs.owners_seen, self.owner_changes) != self.owner_changes {
            self.cancel_failed_exports(env);
        }
    }

    /// Drops the oldest of those that are over.
    pub(in crate::cluster) fn forget_old_jobs(&mut self) {
        let most = self.config.slot_migration_log_len;
        let list = &mut self.jobs.list;
        let mut at = list.len();
        while list.len() > most && at > 0 {
            at -= 1;
            if list[at].state.is_final() {
                list.remove(at);
            }
        }
    }

    fn check_time(&mut self, at: usize, env: &Env) {
        let job = &self.jobs.list[at];
        let heard_ms = job.heard_ms.max(job.acked_ms);
        if job.state.may_time_out() && env.now_ms - heard_ms > self.config.repl_timeout_ms {
            log::warn!("Timing out slot migration {} after not receiving ack for too long", job.description);
            match job.dialect {
                Dialect::Push => self.fail_job(at, "Timed out after too long with no interaction", env),
                Dialect::Pull => self.time_out_pull(at, env),
            }
        }
    }

    fn show_life(&mut self, at: usize, env: &Env) {
        let job = &mut self.jobs.list[at];
        if job.dialect == Dialect::Push && job.state.shows_life() && env.now_ms - job.ack_sent_ms >= ACK_MS {
            job.ack_sent_ms = env.now_ms;
            self.say(at, Message::Ack);
        }
    }

    // ---- steps ----

    fn order(&mut self, order: Order) {
        self.actions.push(Action::SlotMigration(order));
    }

    fn say(&mut self, at: usize, message: Message) {
        let link = self.jobs.list[at].id.main();
        self.order(Order::Send { link, bytes: message.command() });
    }

    fn move_to(&mut self, at: usize, state: State, env: &Env) {
        let job = &mut self.jobs.list[at];
        log::info!("Slot migration {} state transition: {} -> {}", job.description, job.state.name(), state.name());
        let reviews = job.state.holds_writes() != state.holds_writes()
            || job.state.has_begun() != state.has_begun()
            || state.is_final();
        self.jobs.open = self.jobs.open + usize::from(job.state.is_final()) - usize::from(state.is_final());
        let was_granting = job.state.may_grant();
        (job.state, job.updated_ms) = (state, env.now_ms);
        if reviews {
            self.order(Order::Review);
        }
        // Known after a restart, too, from before the moment that counts: nobody waits for the disk then.
        match (was_granting, state.may_grant()) {
            (false, true) => self.save_synced(),
            (true, false) => self.save_later(),
            _ => {}
        }
    }

    /// What the other side says has no place where the job stands.
    fn refuse_message(&mut self, at: usize, message: Message, env: &Env) {
        let job = &self.jobs.list[at];
        log::warn!(
            "Received CLUSTER SYNCSLOTS {} for slot migration {}, which is {}. Failing migration.",
            message.word(),
            job.description,
            job.state.name()
        );
        self.fail_job(at, "Unexpected state machine transition", env);
    }

    /// Has a link of a job to this node opened.
    fn connect_job_link(&mut self, at: usize, channel: Channel, to: NodeKey) {
        let (job, node) = (&self.jobs.list[at], &self.nodes[to]);
        let (ip, port) = (node.ip.clone(), node.client_port(self.config.tls_replication));
        log::info!("Connecting slot migration {} (ip: {ip}, port {port})", job.description);
        let link = JobLink { job: job.id, channel };
        self.order(Order::Connect { link, ip, port });
    }

    fn close_job_link(&mut self, at: usize) {
        let job = &mut self.jobs.list[at];
        job.has_link = false;
        let job = job.id;
        self.order(Order::Close { job });
    }

    fn fail_job(&mut self, at: usize, message: &str, env: &Env) {
        self.give_up(at, State::Failed, message, env);
    }

    /// Ends a job which another attempt would not help.
    fn end_for_good(&mut self, at: usize, message: &str, env: &Env) {
        match self.jobs.list[at].dialect {
            Dialect::Push => self.fail_job(at, message, env),
            Dialect::Pull => self.give_up(at, State::Cancelled, &format!("Given up: {message}"), env),
        }
    }

    /// Ends a job, unless the target may have taken over already: then that decides, and only the link is closed.
    fn give_up(&mut self, at: usize, outcome: State, message: &str, env: &Env) {
        let job = &mut self.jobs.list[at];
        if job.state != State::Granted {
            return self.end_job(at, outcome, message, env);
        }
        if job.late_end.is_none() {
            job.late_end = Some((outcome, message.to_string()));
            self.close_job_link(at);
        }
    }

    /// Ends a job. One that brought keys here deletes them first, unless it succeeded.
    fn end_job(&mut self, at: usize, outcome: State, message: &str, env: &Env) {
        let is_master = self.is_master();
        let job = &mut self.jobs.list[at];
        job.message = job.tell_state(message);
        job.hold_until_ms = 0;
        let cleans = !job.is_export && is_master && outcome != State::Success && job.state.has_begun();
        self.close_job_link(at);
        if cleans {
            let job = &mut self.jobs.list[at];
            job.outcome = outcome;
            if outcome == State::Cancelled {
                job.ended_ms = Some(env.now_ms);
            }
            log::info!("Cleaning up slot migration {} after {}: {}", job.description, outcome.name(), job.message);
            let (id, slots) = (job.id, job.slots.clone());
            self.move_to(at, State::CleaningUp, env);
            let slots = slots.without(&self.myself().slots);
            self.order(Order::Delete { job: id, slots });
        } else {
            self.conclude(at, outcome, env);
        }
    }

    /// The last step of a job: it is over, and replicas and the log hear of it.
    fn conclude(&mut self, at: usize, outcome: State, env: &Env) {
        let is_master = self.is_master();
        let job = &mut self.jobs.list[at];
        let (tells, is_tried_again) = (job.is_told(), job.retries() && is_master && outcome == State::Failed);
        if is_tried_again {
            job.pull.due_ms = env.now_ms + pull_target::RETRY_MS;
        } else {
            job.ended_ms.get_or_insert(env.now_ms);
        }
        self.move_to(at, if is_tried_again { State::Retrying } else { outcome }, env);
        let job = &self.jobs.list[at];
        let level = if outcome == State::Failed { log::Level::Warn } else { log::Level::Info };
        let message = if job.message.is_empty() { "none" } else { &job.message };
        log::log!(level, "Slot migration {} finished. State: {}, Message: {message}", job.description, outcome.name());
        if tells && self.is_master() {
            let job = &self.jobs.list[at];
            let finish = (!job.is_export).then(|| job.finish_command());
            self.actions.extend(finish.map(|command| Action::SlotMigration(Order::Propagate(command))));
            self.tell_task(at);
        }
    }

    /// Tells replicas in Redis's words how it stands with a job: one of theirs deletes keys that are not its own, if it takes
    /// our place, in the slots of the last one of which it was told.
    fn tell_task(&mut self, at: usize) {
        if let Some(command) = self.jobs.list[at].task_command() {
            self.order(Order::Tell(command));
        }
    }

    /// A job that is counted as open: it has to be put on the list.
    fn new_job(&mut self, is_export: bool, name: NodeId, ranges: Ranges, other: Option<NodeId>, now_ms: i64) -> Job {
        self.jobs.next += 1;
        self.jobs.open += 1;
        let me = Some(self.myself().id);
        let (source, target) = if is_export { (me, other) } else { (other, other.and(me)) };
        let slots = slots_in(&ranges).collect();
        Job {
            id: JobId(self.jobs.next),
            name,
            is_export,
            dialect: Dialect::Push,
            description: self.describe_job(is_export, name, &ranges, other),
            ranges,
            slots,
            source,
            target,
            created_ms: now_ms,
            begun_ms: Some(now_ms),
            ended_ms: None,
            paused_ms: None,
            updated_ms: now_ms,
            acked_ms: now_ms,
            ack_sent_ms: now_ms,
            heard_ms: now_ms,
            state: if is_export { State::Connecting } else { State::WaitingForAck },
            outcome: State::Failed,
            message: String::new(),
            hold_until_ms: 0,
            requested_ms: 0,
            is_paused: false,
            asked_ms: None,
            late_end: None,
            is_tracking_only: false,
            has_link: true,
            owners_seen: None,
            backlog: 0,
            unsent: 0,
            pull: Pull::default(),
        }
    }

    /// Whether its slots may have other owners than when this was last asked.
    fn note_owners(&mut self, at: usize) -> bool {
        let seen = self.jobs.list[at].owners_seen.replace(self.owner_changes);
        seen != Some(self.owner_changes)
    }

    /// The node that owns all slots of a job.
    fn owner_of_job(&self, at: usize) -> Option<NodeKey> {
        let mut owners = self.jobs.list[at].slots.iter().map(|slot| self.owner[usize::from(slot)]);
        let first = owners.next()??;
        owners.all(|owner| owner == Some(first)).then_some(first)
    }
}
