//! How the side that connects logs in at the other one.

use super::pull_target::ChannelState;
use super::{Channel, Cluster, Dialect, JobLink, Order, State, command};
use crate::cluster::node::NodeKey;
use crate::cluster::secret::ASKS_FOR_CHALLENGE;

/// What a node of ours says before a number that is to be answered.
const CHALLENGE: &[u8] = b"+CHALLENGE ";

fn login(secret: &[u8]) -> Vec<u8> {
    command(&[b"AUTH", b"internal connection", secret])
}

impl Cluster {
    /// The node at the other end of the job's links.
    pub(super) fn other_side(&self, at: usize) -> Option<NodeKey> {
        let job = &self.jobs.list[at];
        let node = if job.is_export { job.target } else { job.source };
        self.nodes.find(&node?)
    }

    /// The first that there is of what the other side may take: its secret, if it is a Redis, as those tell each other over the
    /// bus; a code of ours, for which a challenge is asked for; `masterauth`; or, where a source may need no password, the number
    /// that nodes of ours have settled on.
    pub(super) fn login_of_job(&self, at: usize, masterauth: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let node = self.other_side(at);
        let pulls = self.jobs.list[at].dialect == Dialect::Pull;
        let of_redis = node.and_then(|key| self.nodes[key].secret.as_ref()).map(|secret| login(secret));
        let challenged = || node.filter(|key| self.answers_challenge_of(*key)).map(|_| login(ASKS_FOR_CHALLENGE));
        let number = || node.filter(|_| pulls).and_then(|key| self.number_at(key)).map(|number| login(number));
        of_redis.or_else(challenged).or(masterauth).or_else(number)
    }

    /// Answers a challenge, if a line is one and that is what is waited for.
    pub(super) fn meet_challenge(&mut self, at: usize, channel: Channel, line: &[u8]) -> bool {
        let Some(challenge) = line.strip_prefix(CHALLENGE) else { return false };
        let job = &self.jobs.list[at];
        let logs_in = match channel {
            Channel::Main => job.state == State::ReadingAuthReply,
            Channel::Snapshot => job.pull.channel == ChannelState::ReadingAuthReply,
        };
        let node = self.other_side(at).filter(|key| logs_in && self.answers_challenge_of(*key));
        let Some(answer) = node.and_then(|key| self.answer_to(key, challenge)) else { return false };
        let link = JobLink { job: job.id, channel };
        self.order(Order::Send { link, bytes: login(answer.as_bytes()) });
        true
    }
}
