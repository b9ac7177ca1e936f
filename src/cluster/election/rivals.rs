//! Replicas of one master that ask for votes at the same time.
//!
//! A voter gives its vote about a master to one of its replicas, and to no other within two node timeouts. Two that ask at once,
//! as they do where news takes longer than the delays between them, may share the votes so that neither has a majority; and each
//! new vote binds its voter anew, so that they would share them again and again. So a voter says to whom it gives no vote that
//! another has it. Who has less data than the other, or the greater id, asks for no more, and when it cannot have a majority or
//! has waited for what was on its way, it withdraws: it says so, and its voters are free. Votes that may still come are not
//! given up before. Who stays asks again, in a new epoch if need be. Who withdrew comes back when that should be over, and each
//! time by another delay.
//!
//! A Redis node says nothing of that, and hears nothing: its vote is free again after its time, and the other asks until then.
//!
//! Safety: who withdraws counts no vote of that epoch any more, nor of one before, so none of them can make it a master.
//! Where candidates need the support of their shard (see `durable`) the promises decide between them.

use std::cmp::Reverse;

use super::rank::JITTER_MS;
use super::{Header, MOST_DOUBLINGS};
use crate::cluster::durable::Message;
use crate::cluster::node::NodeKey;
use crate::cluster::{Cluster, Env};

/// A sibling that asks for votes, too.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rival {
    /// It has more data, or as much and the smaller id.
    Ahead,
    Behind,
}

/// Who gives way waits for votes for so long at least.
const LEAST_WAIT_MS: i64 = 500;

impl Cluster {
    // ---- a candidate ----

    /// Another replica asks for votes while we do.
    pub(super) fn note_request(&mut self, candidate: NodeKey, header: &Header, env: &Env) {
        if !self.election.asked || candidate == self.myself {
            return;
        }
        let is_sibling = self.is_sibling(candidate);
        if is_sibling && !self.needs_support() && !self.manual.in_progress() {
            let id = self.nodes[candidate].id;
            let theirs = (header.offset as i64, Reverse(id));
            let rival =
                if theirs > (env.repl_offset, Reverse(self.myself().id)) { Rival::Ahead } else { Rival::Behind };
            self.election.rivals.insert(id, rival);
            self.todo.failover = true;
        } else if is_sibling || header.current_epoch == self.election.epoch {
            self.election.contended = true;
            self.wake_at(self.election.retry_ms);
        }
    }

    /// The epoch of the election in which we have asked for votes, if we have.
    pub(in crate::cluster) fn epoch_of_election(&self) -> Option<u64> {
        self.election.asked.then_some(self.election.epoch)
    }

    /// A voter has promised its vote to a sibling.
    pub(in crate::cluster) fn on_denied(&mut self, sender: NodeKey, epoch: u64) {
        if self.election.asked && self.election.epoch == epoch {
            self.election.denied.insert(self.nodes[sender].id);
            self.todo.failover = true;
        }
    }

    /// Whether a sibling that is ahead of us asks for votes: we ask for no more.
    pub(super) fn gives_way(&self) -> bool {
        !self.manual.in_progress() && self.election.rivals.values().any(|rival| *rival == Rival::Ahead)
    }

    /// Whether too many voters have promised themselves to siblings for a majority to be left.
    fn is_lost(&self) -> bool {
        let may_vote = self.nodes.iter().filter(|(_, n)| n.is_voter() && !n.failed());
        may_vote.filter(|(_, n)| !self.election.denied.contains(&n.id)).count() < self.quorum()
    }

    /// Whether it is for a sibling to be elected now. Who is ahead has so long that votes given before are free again; it may be
    /// that it does not reach enough voters.
    pub(super) fn is_in_vain(&self, is_over: bool, env: &Env) -> bool {
        let patience_ms = 2 * self.election_ms();
        let began_ms = self.election.at_ms.unwrap_or(env.now_ms);
        let is_late = !self.election.rivals.is_empty() && env.now_ms - began_ms > patience_ms;
        // By now the votes have come that were on their way; masters that had no lease yet are for the other to ask.
        let waited_ms = env.now_ms - self.election.first_asked_ms;
        let is_idle = waited_ms > (self.config.node_timeout_ms / 2).max(LEAST_WAIT_MS);
        !self.manual.in_progress() && (is_late || self.gives_way() && (is_over || is_idle || self.is_lost()))
    }

    /// Tells all who may have voted for us, or wait for us, that no votes of this election count any more; its epoch, if votes were
    /// asked for.
    pub(in crate::cluster) fn tell_withdrawn(&mut self, env: &Env) -> Option<u64> {
        let election = &mut self.election;
        if !election.asked || election.waits_for_support {
            return None;
        }
        let epoch = election.withdrawn.max(election.epoch);
        election.withdrawn = epoch;
        let concerned = self.nodes.iter().filter(|(key, n)| n.is_voter() || self.is_sibling(*key));
        let concerned: Vec<NodeKey> =
            concerned.filter(|(key, n)| *key != self.myself && !n.failed()).map(|(key, _)| key).collect();
        self.tell_all(&concerned, &Message::Withdrawn { epoch }, env);
        Some(epoch)
    }

    /// Gives up the election and leaves time for another's.
    pub(super) fn withdraw(&mut self, env: &Env) {
        if let Some(epoch) = self.tell_withdrawn(env) {
            self.election.withdrawals += 1;
            log::info!("Giving up the failover election of epoch {epoch} for that of another replica.");
        }
        // Where voters are slow one election may take as long as several.
        let times = self.election.withdrawals.clamp(1, MOST_DOUBLINGS);
        let at_ms = env.now_ms + self.election_ms() * i64::from(times) + self.rng.i64(0..JITTER_MS << times);
        self.election = self.election.next(at_ms);
        self.wake_at(at_ms);
    }

    /// Another candidate of our shard is supported: its election is to end first. Two by turns would split the votes again and
    /// again.
    pub(in crate::cluster) fn yield_election(&mut self, env: &Env) {
        if self.is_replica() && self.election.at_ms.is_some() && !self.manual.in_progress() {
            self.withdraw(env);
        }
    }

    /// A vote came of an election that is not under way: the request for it was slower than the word that it was given up.
    pub(super) fn answer_stale_vote(&mut self, voter: NodeKey, epoch: u64, env: &Env) {
        if epoch <= self.election.withdrawn && self.is_replica() {
            self.tell(voter, &Message::Withdrawn { epoch }, env);
        }
    }

    // ---- a voter, and a sibling ----

    /// Tells a candidate that was denied our vote if a sibling has it, and keeps it for some time.
    pub(super) fn tell_if_promised_to_sibling(&mut self, candidate: NodeKey, epoch: u64, env: &Env) {
        let node = &self.nodes[candidate];
        let Some(master) = node.replica_of.map(|master| &self.nodes[master]) else { return };
        let is_bound = env.now_ms - master.voted_ms < self.config.node_timeout_ms * 2;
        if is_bound && master.voted_for.is_some_and(|id| id != node.id) {
            self.tell(candidate, &Message::Denied { epoch }, env);
        }
    }

    pub(in crate::cluster) fn on_withdrawn(&mut self, sender: NodeKey, epoch: u64, env: &Env) {
        let id = self.nodes[sender].id;
        if let Some(master) = self.nodes[sender].replica_of {
            let master = &mut self.nodes[master];
            if master.voted_for == Some(id) && master.voted_epoch <= epoch {
                (master.voted_for, master.voted_ms) = (None, 0);
            }
        }
        if !self.is_sibling(sender) || !self.election.asked {
            return;
        }
        self.election.rivals.remove(&id);
        self.todo.failover = true;
        if epoch < self.election.epoch {
            // Its voters can vote for us in this epoch.
            self.election.denied.clear();
            self.election.asked_ms = 0;
        } else {
            // Not in this one, in which they have voted; but the votes that we need may be on their way.
            let patience_ms = if self.is_lost() { 0 } else { self.repeat_after_ms() };
            (self.election.contended, self.election.retry_ms) = (true, env.now_ms + patience_ms);
            self.wake_at(self.election.retry_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{A, B, C, D, START_MS, ask_for_votes, cluster, env, key};
    use super::*;
    use crate::cluster::node::{Node, NodeFlags, NodeId};
    use crate::cluster::{Action, durable, wire};

    /// Another replica of the same master, which is known.
    fn add_sibling(c: &mut Cluster, digit: &str) -> NodeKey {
        let id = NodeId::parse(digit.repeat(NodeId::LEN).as_bytes()).unwrap();
        let (master, sibling) = (key(c, A), c.nodes.insert(Node::new(id, id, NodeFlags::REPLICA, START_MS)));
        c.nodes[sibling].replica_of = Some(master);
        c.nodes[master].replicas.push(sibling);
        c.connect(sibling, START_MS);
        sibling
    }

    /// A replica that has asked for votes, at this time.
    fn candidate(digit: &str) -> (Cluster, NodeKey, i64) {
        let mut replica = cluster(D, 5);
        let sibling = add_sibling(&mut replica, digit);
        let now_ms = ask_for_votes(&mut replica);
        replica.flush_and_save(&env(now_ms));
        (replica, sibling, now_ms)
    }

    /// The sibling's request, with as much data as we have.
    fn asks(c: &mut Cluster, sibling: NodeKey, epoch: u64, now_ms: i64) {
        let sender = c.nodes[sibling].id;
        let header = Header { sender, current_epoch: epoch, offset: 1, ..cluster(D, 5).header(0, &env(now_ms)) };
        c.current_epoch = c.current_epoch.max(epoch);
        c.on_vote_request(sibling, &header, &env(now_ms));
    }

    /// The messages of this kind that are sent, and the requests for votes, with the epoch of each.
    fn said(c: &mut Cluster, now_ms: i64) -> (Vec<Message>, Vec<u64>) {
        let (mut messages, mut requests) = (Vec::new(), Vec::new());
        for action in c.flush_and_save(&env(now_ms)) {
            let Action::Send { packet, .. } = action else { continue };
            let packet = wire::decode(&packet).unwrap();
            match packet.body {
                wire::Body::Module { module_id: durable::MODULE_ID, kind, payload } => {
                    messages.extend(Message::decode(kind, payload));
                }
                wire::Body::AuthRequest => requests.push(packet.header.current_epoch),
                _ => {}
            }
        }
        messages.dedup();
        requests.dedup();
        (messages, requests)
    }

    #[test]
    fn who_is_behind_withdraws_when_too_few_votes_are_left() {
        let (mut c, sibling, now_ms) = candidate("1");
        asks(&mut c, sibling, 6, now_ms);
        for later_ms in [0, 100, 600, 900] {
            c.advance_election(&env(now_ms + later_ms));
            assert_eq!(said(&mut c, now_ms + later_ms), (vec![], vec![]), "votes may come, but it asks for no more");
        }
        let voter = key(&c, B);
        c.on_denied(voter, 5);
        assert!(said(&mut c, now_ms + 900).0.is_empty(), "of another election");
        c.on_denied(voter, 6);
        let now_ms = now_ms + 900;
        assert_eq!(said(&mut c, now_ms), (vec![Message::Withdrawn { epoch: 6 }], vec![]));
        assert!(!c.election.asked && c.election.at_ms.unwrap() >= now_ms + c.election_ms());
        // A vote was slower than that.
        let header = Header { current_epoch: 6, ..cluster(B, 6).header(0, &env(now_ms)) };
        c.on_vote(voter, &header, &env(now_ms));
        assert_eq!(said(&mut c, now_ms).0, [Message::Withdrawn { epoch: 6 }]);
        assert!(c.election.votes.is_empty());
    }

    #[test]
    fn who_is_ahead_asks_again_when_the_other_has_withdrawn() {
        for (epoch, asked_in) in [(6, 7), (5, 6)] {
            let (mut c, sibling, now_ms) = candidate("e");
            asks(&mut c, sibling, epoch, now_ms);
            let voter = key(&c, B);
            c.on_denied(voter, 6);
            c.advance_election(&env(now_ms + 100));
            assert_eq!(said(&mut c, now_ms + 100), (vec![], vec![]), "it has the other vote");
            c.on_withdrawn(sibling, epoch, &env(now_ms + 200));
            c.advance_election(&env(now_ms + 200));
            assert_eq!(said(&mut c, now_ms + 200).1, [asked_in]);
        }
    }

    /// Those votes that were denied may be of a Redis node, or the other may be dead.
    #[test]
    fn who_is_ahead_tries_for_as_long_as_votes_are_bound_and_then_leaves_time_for_the_other() {
        let (mut c, sibling, mut now_ms) = candidate("e");
        asks(&mut c, sibling, 6, now_ms);
        let (began_ms, mut epochs) = (now_ms, Vec::new());
        while c.election.asked {
            now_ms += 50;
            c.tick(&env(now_ms));
            epochs.extend(said(&mut c, now_ms).1);
        }
        epochs.dedup();
        assert_eq!(epochs, [6, 7]);
        assert!(now_ms - began_ms >= 2 * c.election_ms() && now_ms - began_ms < 2 * c.election_ms() + 500);
    }

    #[test]
    fn a_voter_is_free_when_who_it_voted_for_has_withdrawn() {
        for (withdrawn, is_free) in [(5, false), (6, true), (7, true)] {
            let (mut voter, now_ms) = (cluster(B, 5), START_MS + 5000);
            let (sibling, first) = (add_sibling(&mut voter, "1"), key(&voter, D));
            voter.lease_end_ms = i64::MAX;
            voter.connect(first, now_ms);
            asks(&mut voter, first, 6, now_ms);
            assert_eq!(voter.nodes[key(&voter, A)].voted_for, Some(voter.nodes[first].id));
            said(&mut voter, now_ms);
            asks(&mut voter, sibling, 7, now_ms);
            assert_eq!(said(&mut voter, now_ms).0, [Message::Denied { epoch: 7 }]);
            voter.on_withdrawn(first, withdrawn, &env(now_ms));
            assert_eq!(voter.vote_is_open(key(&voter, A)), !is_free);
            asks(&mut voter, sibling, 7, now_ms);
            assert_eq!(said(&mut voter, now_ms).0.is_empty(), is_free, "{withdrawn}");
            assert_eq!(voter.nodes[key(&voter, A)].voted_for == Some(voter.nodes[sibling].id), is_free);
        }
    }

    #[test]
    fn who_has_more_data_is_ahead_and_of_equals_who_has_the_smaller_id() {
        for (digit, offset, expected) in [
            ("1", 1, Rival::Ahead),
            ("e", 1, Rival::Behind),
            ("e", 2, Rival::Ahead),
            ("1", 0, Rival::Behind),
            // One that has nothing yet says 0; an offset is no unsigned number.
            ("1", u64::MAX, Rival::Behind),
        ] {
            let (mut c, sibling, now_ms) = candidate(digit);
            let sender = c.nodes[sibling].id;
            let header = Header { sender, current_epoch: 6, offset, ..cluster(D, 5).header(0, &env(now_ms)) };
            c.on_vote_request(sibling, &header, &env(now_ms));
            assert_eq!(c.election.rivals.get(&sender), Some(&expected), "{digit} {offset}");
            assert_eq!(c.gives_way(), expected == Rival::Ahead);
        }
    }

    /// Replicas of other masters do not share its votes, but perhaps its epoch.
    #[test]
    fn a_candidate_for_another_place_is_no_rival() {
        for (epoch, contended) in [(6, true), (7, false)] {
            let (mut c, _, now_ms) = candidate("1");
            let other = key(&c, B);
            let header = Header { current_epoch: epoch, ..cluster(B, epoch).header(0, &env(now_ms)) };
            c.on_vote_request(other, &header, &env(now_ms));
            assert!(c.election.rivals.is_empty() && !c.gives_way());
            assert_eq!(c.election.contended, contended, "{epoch}");
        }
    }

    /// Where the shard has to support a candidate, the promises of its nodes decide between them.
    #[test]
    fn with_durable_acknowledgements_nobody_gives_way() {
        let (mut c, sibling, now_ms) = candidate("1");
        c.config.durable_acks = 1;
        asks(&mut c, sibling, 6, now_ms);
        assert!(c.election.rivals.is_empty() && c.election.contended && !c.gives_way());
    }

    /// An operator chose this one.
    #[test]
    fn in_a_manual_failover_nobody_gives_way() {
        let (mut c, sibling, now_ms) = candidate("1");
        c.manual.ends_ms = Some(now_ms + 5000);
        c.manual.can_start = true;
        asks(&mut c, sibling, 6, now_ms);
        let voter = key(&c, B);
        c.on_denied(voter, 6);
        assert!(!c.gives_way() && !c.is_in_vain(true, &env(now_ms + 20_000)));
        c.yield_election(&env(now_ms));
        assert!(c.election.asked);
    }

    /// A majority may be left of those who have not said anything.
    #[test]
    fn an_election_is_lost_when_those_who_may_vote_are_too_few() {
        let (mut c, sibling, now_ms) = candidate("1");
        asks(&mut c, sibling, 6, now_ms);
        assert!(!c.is_lost(), "of three one has failed, and two are enough");
        let (one, other) = (key(&c, B), key(&c, C));
        c.on_denied(one, 6);
        c.on_denied(one, 6);
        assert!(c.is_lost());
        c.election.denied.clear();
        c.nodes[other].flags.set(NodeFlags::FAIL);
        assert!(c.is_lost(), "who has failed does not vote");
    }

    /// By then the votes have come that were on their way.
    #[test]
    fn who_is_behind_withdraws_when_its_votes_had_time_to_come() {
        let (mut c, sibling, now_ms) = candidate("1");
        asks(&mut c, sibling, 6, now_ms);
        let idle_ms = c.config.node_timeout_ms / 2;
        let asked_ms = c.election.first_asked_ms;
        c.advance_election(&env(asked_ms + idle_ms));
        assert_eq!(said(&mut c, asked_ms + idle_ms).0, []);
        c.advance_election(&env(asked_ms + idle_ms + 1));
        assert_eq!(said(&mut c, asked_ms + idle_ms + 1).0, [Message::Withdrawn { epoch: 6 }]);
    }

    /// Each time it leaves more time to others, and not for ever more.
    #[test]
    fn who_withdraws_again_and_again_leaves_more_time() {
        let (mut c, _, now_ms) = candidate("1");
        let mut waits = Vec::new();
        for _ in 0..8 {
            c.election.asked = true;
            c.withdraw(&env(now_ms));
            assert!(!c.election.asked && c.election.rivals.is_empty() && c.election.votes.is_empty());
            let times = i64::from(c.election.withdrawals.clamp(1, MOST_DOUBLINGS));
            let least_ms = c.election_ms() * times;
            waits.push(c.election.at_ms.unwrap() - now_ms);
            assert!((least_ms..least_ms + (JITTER_MS << times)).contains(waits.last().unwrap()), "{waits:?}");
        }
        assert!(waits[0] < waits[7]);
        assert_eq!((c.election.withdrawals, c.election.withdrawn), (8, 6));
    }

    /// No vote of an epoch that was given up, or of one before, makes a master; one of another election is no matter of ours.
    #[test]
    fn late_votes_are_given_back_if_they_were_asked_for() {
        let (mut c, _, now_ms) = candidate("1");
        c.withdraw(&env(now_ms));
        said(&mut c, now_ms);
        let voter = key(&c, B);
        for (epoch, is_given_back) in [(5, true), (6, true), (7, false)] {
            let header = Header { current_epoch: epoch, ..cluster(B, epoch).header(0, &env(now_ms)) };
            c.on_vote(voter, &header, &env(now_ms));
            let expected = if is_given_back { vec![Message::Withdrawn { epoch }] } else { vec![] };
            assert_eq!(said(&mut c, now_ms).0, expected);
        }
        assert!(c.election.votes.is_empty());
    }

    /// A voter says that a sibling has its vote while that binds it, and in no other case.
    #[test]
    fn a_voter_says_that_its_vote_is_a_siblings_while_it_is() {
        let (mut voter, now_ms) = (cluster(B, 5), START_MS + 5000);
        let (sibling, first) = (add_sibling(&mut voter, "1"), key(&voter, D));
        voter.connect(first, now_ms);
        asks(&mut voter, first, 6, now_ms);
        assert_eq!(said(&mut voter, now_ms).0, [], "it has no lease, and has voted for nobody");
        voter.lease_end_ms = i64::MAX;
        asks(&mut voter, first, 6, now_ms);
        said(&mut voter, now_ms);
        asks(&mut voter, first, 6, now_ms);
        assert_eq!(said(&mut voter, now_ms).0, [], "the vote is its own");
        let bound_ms = 2 * voter.config.node_timeout_ms;
        asks(&mut voter, sibling, 7, now_ms + bound_ms - 1);
        assert_eq!(said(&mut voter, now_ms).0, [Message::Denied { epoch: 7 }]);
        asks(&mut voter, sibling, 7, now_ms + bound_ms);
        assert_eq!(said(&mut voter, now_ms).0, []);
        assert_eq!(voter.nodes[key(&voter, A)].voted_for, Some(voter.nodes[sibling].id));
    }
}
