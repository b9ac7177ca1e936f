//! When a replica's turn comes to ask for votes: by its data, and by how many masters fail together.

use super::super::node::{NodeFlags, NodeKey};
use super::super::{Cluster, Env};
use super::Election;

/// The delay of a replica that is not the best, besides a second for each better one and a random part of
/// [`JITTER_MS`].
const FIXED_DELAY_MS: i64 = 500;
pub(super) const JITTER_MS: i64 = 500;
const RANK_DELAY_MS: i64 = 1000;
/// The delay between equally good replicas, in the order of their ids, so that they do not split the votes.
pub(super) const TIE_DELAY_MS: i64 = 250;
/// The delay of the best replica if others have not announced their offset since the master fell silent.
pub(super) const STALE_RANK_DELAY_MS: i64 = 250;
/// If several masters failed, the delay between their replicas' elections, in the order of the masters' ids: a Redis
/// node gives no vote in an epoch less than the greatest it has heard of.
const MASTER_DELAY_MS: i64 = 10;
impl Cluster {
    pub(super) fn schedule_election(&mut self, master: NodeKey, env: &Env) {
        let now = env.now_ms;
        let (mut rank, ties, stale) = self.rank_among_siblings(master, env);
        let failed_before = self.failed_before(master);
        let delay = if self.manual.in_progress() {
            rank = 0;
            self.todo.failover = true;
            0
        } else if rank == 0 {
            ties as i64 * TIE_DELAY_MS
                + if stale { STALE_RANK_DELAY_MS } else { 0 }
                + failed_before as i64 * MASTER_DELAY_MS
        } else {
            FIXED_DELAY_MS + self.rng.i64(0..JITTER_MS) + rank as i64 * RANK_DELAY_MS
        };
        self.election = Election { rank, ties, ..self.election.next(now + delay) };
        self.wake_at(now + delay);
        if delay == 0 && !self.manual.in_progress() {
            log::info!("This is the best ranked replica and can initiate the election immediately.");
        }
        log::info!(
            "Start of election delayed for {delay} milliseconds (rank #{rank}, primary rank #{failed_before}, offset {}).",
            env.repl_offset
        );
        // So that the others know their rank.
        self.pong_to_siblings(env);
        if delay == 0 {
            self.todo.failover = true;
        }
    }

    /// How many masters, failed or suspected, are to be replaced before `master`. Of those that fail together one is
    /// agreed to have failed a moment after the other.
    pub(super) fn failed_before(&self, master: NodeKey) -> usize {
        let id = self.nodes[master].id;
        self.nodes.iter().take_while(|(_, n)| n.id < id).filter(|(_, n)| !n.healthy() && n.is_voter()).count()
    }

    /// How many replicas of `master` have more data than we; how many have as much and a smaller id; and whether an
    /// offset is older than the master's last sign of life, so that the count may be wrong. Replicas that are
    /// unreachable or do not compete do not count.
    fn rank_among_siblings(&self, master: NodeKey, env: &Env) -> (usize, usize, bool) {
        let silent_since = self.nodes[master].last_alive_ms();
        let (mut better, mut ties, mut stale) = (0, 0, false);
        for &key in &self.nodes[master].replicas {
            let n = &self.nodes[key];
            if key == self.myself || n.flags.has(NodeFlags::NOFAILOVER) || !n.healthy() {
                continue;
            }
            better += usize::from(n.repl_offset > env.repl_offset);
            ties += usize::from(n.repl_offset == env.repl_offset && n.id < self.myself().id);
            stale |= n.repl_offset_ms <= silent_since;
        }
        (better, ties, stale)
    }

    /// Lowers our rank if new offsets show that others are better, or as good; it is never raised. Replicas that still hear
    /// from their master learn only now how far the others are.
    pub(super) fn worsen_rank(&mut self, master: NodeKey, env: &Env) {
        let Some(at_ms) = self.election.at_ms else {
            return;
        };
        let (rank, ties, _) = self.rank_among_siblings(master, env);
        let election = &mut self.election;
        if rank > election.rank {
            let from_best = if election.rank == 0 { FIXED_DELAY_MS } else { 0 };
            let added = (rank - election.rank) as i64 * RANK_DELAY_MS + from_best;
            log::info!("Replica rank updated to #{rank}, added {added} milliseconds of delay.");
            (election.rank, election.at_ms) = (rank, Some(at_ms + added));
        } else if election.rank == 0 && ties > election.ties {
            let added = (ties - election.ties) as i64 * TIE_DELAY_MS;
            (election.ties, election.at_ms) = (ties, Some(at_ms + added));
        }
    }
}
