//! DEBUG ASM-FAILPOINT: where a link of a job whose target pulls breaks on purpose, to see that both sides get over it.

use super::pull_target::ChannelState;
use super::{Channel, Cluster, Dialect, Env, Job, Jobs, State};

/// A side, one of its links, and where the job stands, in Redis's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FailPoint {
    is_export: bool,
    channel: Channel,
    state: &'static str,
}

/// Where a job may stand whose target pulls.
const STATES: [State; 17] = [
    State::Waiting,
    State::Connecting,
    State::ReadingAuthReply,
    State::ReadingConfReply,
    State::WaitingToSync,
    State::ReadingSyncReply,
    State::OpeningChannel,
    State::ReceivingSnapshot,
    State::CatchingUp,
    State::WaitingForEof,
    State::WaitingForChannel,
    State::WaitingToSnapshot,
    State::Snapshotting,
    State::Streaming,
    State::WaitingToPause,
    State::Paused,
    State::Granted,
];

impl FailPoint {
    /// By the names of the link and of the state.
    pub(crate) fn parse(channel: &[u8], state: &[u8]) -> Option<FailPoint> {
        let (is_export, channel) = match &*channel.to_ascii_lowercase() {
            b"import-main-channel" => (false, Channel::Main),
            b"import-rdb-channel" => (false, Channel::Snapshot),
            b"migrate-main-channel" => (true, Channel::Main),
            b"migrate-rdb-channel" => (true, Channel::Snapshot),
            _ => return None,
        };
        let names = STATES.iter().map(|state| state.redis_name());
        let mut names = names.chain(ChannelState::ALL.iter().map(|state| state.name()));
        let state = names.find(|name| name.as_bytes().eq_ignore_ascii_case(state))?;
        Some(FailPoint { is_export, channel, state })
    }

    fn is_at(&self, is_export: bool, channel: Channel, state: &str) -> bool {
        (self.is_export, self.channel, self.state) == (is_export, channel, state)
    }

    fn meets(&self, job: &Job) -> bool {
        let state = match (job.is_export, self.channel) {
            // A source follows its state alone.
            (false, Channel::Snapshot) => job.pull.channel.name(),
            _ => job.state.redis_name(),
        };
        job.dialect == Dialect::Pull && job.is_at_work() && self.is_at(job.is_export, self.channel, state)
    }
}

impl Jobs {
    /// A source is to say that it is not ready.
    pub(super) fn refuses_to_begin(&self) -> bool {
        self.fail_point.is_some_and(|point| point.is_at(true, Channel::Main, State::Waiting.redis_name()))
    }

    /// A source is not to prepare the hand-over.
    pub(super) fn stays_in_stream(&self) -> bool {
        self.fail_point.is_some_and(|point| point.is_at(true, Channel::Main, State::WaitingToPause.redis_name()))
    }
}

impl Cluster {
    /// Has a link of the job break if this is where it is to. Whether it did.
    pub(super) fn break_on_purpose(&mut self, at: usize, env: &Env) -> bool {
        let Some(point) = self.jobs.fail_point.filter(|point| point.meets(&self.jobs.list[at])) else { return false };
        log::info!("A link of slot migration {} breaks on purpose at {}", self.jobs.list[at].description, point.state);
        self.on_pull_link_lost(at, point.channel, env);
        true
    }
}
