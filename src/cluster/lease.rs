//! A master's right to serve its slots: a lease that a majority of the masters grant, so it has stopped before its
//! replica can take its place.
//!
//! # The rule
//!
//! - A master pings every other master itself. A PONG that does not call it failing (PFAIL or FAIL in its gossip about
//!   the receiver) is a *grant*, which counts from when the ping that it answers was **sent**.
//! - A master with slots serves until [`LEASE`] of the node timeout after the latest moment from which it has grants of
//!   a majority, itself included. The clock is read for that when a write is admitted, so that a long turn, or a
//!   process that stood still, does not outlast the lease. It is checked again before a reply leaves: a write that was
//!   not acknowledged in time is not acknowledged at all, and its client's connection is closed.
//! - A node that answers with a grant promises not to vote for a replica of that master, unless an operator demands it,
//!   for a whole node timeout (half a second at least). A node that voted for a replica, or considers the master
//!   failed, or knows that one of its replicas owns its slots, gives no grant. A vote is a grant to the replica that
//!   gets it.
//!
//! # Why that is enough
//!
//! Let `n` masters have slots and `q = n / 2 + 1` be a majority. The lease rests on `q - 1` others, an election on `q`
//! others, as no master votes against itself unless it hands over (see below); `(q - 1) + q > n - 1`, so one master `v` is
//! in both. Let `s` be when the ping was sent, `r` when `v` answered it, `e` when `v` voted, `L` the lease and `T` the node
//! timeout.
//!
//! - `v` answered first: `s <= r` and `e > r + T`. The lease ends at `s + L <= r + L < r + T < e`, before anybody can
//!   be elected.
//! - `v` voted first: its answers are no grants until it knows how the election ended, and then it names the new owner.
//!
//! This assumes that both majorities are of the same masters, but in a failover `y` takes the place, and the vote, of
//! `x`. Any majority that still counts `x` contains a `w` that voted for `y`, and so:
//!
//! - While `x` does not know of it: `w` gives it no grant, so it holds no lease; and a node without a lease does not
//!   vote.
//! - While others do not know of it: until `w` knows how the election ended it considers `x` failed and says so in
//!   every packet, and the grant of a master that is said to have failed does not count.
//! - What `w` granted to others before it voted may rest on `x`, for a lease at most; `y` votes for nobody that long.
//!
//! That `y` seems to have failed does not tell `w` that nobody serves in the place of `x`: `x` may be one of those that say
//! so, while `y` rests on the rest. Without `x`, and long enough, it does.
//!
//! A master that hands over helps to elect its replica, if it does not reach enough others to do so. From its own vote on it
//! grants nothing and votes for nobody without saying that it holds no lease, as its place may be taken, and when it ceases to
//! hold its clients back it has no lease, until it knows how the election ended. A replica whose master held clients back for
//! it gives up when the link to that master breaks, or the master has another epoch: a master that has restarted, or was
//! replaced meanwhile, holds back nobody.
//!
//! The margin, `T - L`, is for clocks of different rates (each may be off by a sixteenth), for times cut to
//! milliseconds, and for the moment between the read of the clock and the reply. Times that may be old err on the safe
//! side: a ping is stamped with the time of its turn, which is before it leaves; what arrives is stamped with a time
//! read after it arrived.
//!
//! The lease does not delay a failover: the nodes in the majority that suspects a master have not heard of it for a
//! node timeout. And a healthy master does not lose its lease: its grants are renewed at least every half of the node
//! timeout, in a small cluster much more often, so there is room for an answer to be late by more than a third of it.
//!
//! # What is not promised
//!
//! All nodes must have the same node timeout and agree on who has slots: masters that gain their first slot, or lose
//! their last one, change what a majority is. A restarted node has forgotten how it voted. It does not vote for a node
//! timeout, which keeps its promises, but it does not know of an election whose end it has not heard of. CLUSTER
//! FAILOVER FORCE and TAKEOVER are the operator's responsibility. A Redis node grants and votes by its own rules: its
//! PONG says PFAIL too, but where only part of the masters lost contact with the master, it may vote soon after having
//! answered.

use super::node::{NodeFlags, NodeKey};
use super::wire::{Gossip, Header, PacketType};
use super::{Cluster, Env, LinkId};

/// The lease, in eighths of the node timeout.
const LEASE: i64 = 7;
/// How often within a node timeout the grants are counted while half of the lease is left: in a large cluster many come, and
/// there are many to count.
const COUNTS_A_TERM: i64 = 32;
/// A shorter lease could not be kept: with a node timeout below this, leases and promises count this long, and
/// elections wait.
const SHORTEST_TERM_MS: i64 = 500;
/// How long after its request a vote may decide an election: the longer of this and so many node timeouts.
const ELECTION_MS: i64 = 2000;
const ELECTION_TIMEOUTS: i64 = 2;
/// For how many node timeouts it counts that a node considers another failed. A node whose grant counts has said so
/// again within one, if it still does.
const OPINION_TERMS: i64 = 3;

impl Cluster {
    /// Whether this node may serve its slots at this time. Always true if it is not a master with slots, or the only
    /// one.
    #[inline]
    pub(crate) fn holds_lease(&self, now_ms: i64) -> bool {
        now_ms < self.lease_end_ms
    }

    /// The node timeout for leases and promises.
    pub(super) fn term_ms(&self) -> i64 {
        self.config.node_timeout_ms.max(SHORTEST_TERM_MS)
    }

    pub(super) fn lease_ms(&self) -> i64 {
        self.term_ms() * LEASE / 8
    }

    /// Until when the grants that we have amount to a lease.
    fn granted_until_ms(&self, now_ms: i64) -> i64 {
        if !self.myself().is_voter() {
            return i64::MAX;
        }
        // Our heir may have been elected with our own vote. While clients are held back for it nobody is served.
        if !self.manual.paused && self.vote_is_open(self.myself) {
            return 0;
        }
        let mut voters = 1;
        let mut grants: Vec<i64> = Vec::new();
        for (key, n) in self.nodes.iter().filter(|(key, n)| *key != self.myself && n.is_voter()) {
            voters += 1;
            // The grant of a node that may have been replaced does not count.
            if !n.failed() && !self.vote_is_open(key) && !self.is_doubted_by_voter(key, now_ms) {
                grants.push(n.granted_ms);
            }
        }
        let needed = voters / 2;
        if needed == 0 {
            return i64::MAX;
        }
        if grants.len() < needed {
            return 0;
        }
        let (_, oldest, _) = grants.select_nth_unstable_by(needed - 1, |a, b| b.cmp(a));
        *oldest + self.lease_ms()
    }

    /// Whether a master with slots, which works, has said lately that it considers this node failed.
    pub(super) fn is_doubted_by_voter(&self, key: NodeKey, now_ms: i64) -> bool {
        self.nodes[key].failed_by.iter().any(|(doubter, said_ms)| {
            let n = &self.nodes[*doubter];
            n.is_voter() && !n.failed() && now_ms - said_ms <= self.term_ms() * OPINION_TERMS
        })
    }

    /// Updates the lease after a change. A granted lease stands until its end: adding a master, for example, does not
    /// shorten it.
    pub(super) fn renew_lease(&mut self, now_ms: i64) {
        let until_ms = self.granted_until_ms(now_ms);
        self.lease_counted_ms = now_ms;
        self.lease_end_ms = match self.lease_end_ms {
            // Until now there was no other master, or we had no slots, which an operator changed.
            i64::MAX if until_ms != i64::MAX => until_ms.max(now_ms + self.lease_ms()),
            old => old.max(until_ms),
        };
        self.note_known_epoch(until_ms);
    }

    /// Our epoch is agreed on when a majority has granted what it was asked after we took it: nobody of them votes for a replica of
    /// ours that asks by a lesser one, as long as it does not forget it.
    fn note_known_epoch(&mut self, granted_until_ms: i64) {
        let me = &self.nodes[self.myself];
        let is_known = granted_until_ms == i64::MAX || granted_until_ms - self.lease_ms() > self.own_epoch_ms;
        if me.epochs.are_own() && me.is_voter() && is_known {
            let epoch = me.epochs.config;
            self.nodes[self.myself].set_epoch(epoch);
            self.save_later();
        }
    }

    /// An epoch of our own that a majority does not take to be known is taken anew when there is a later one: they may have voted in a
    /// later one for who is our replica no more.
    pub(super) fn renew_own_epoch(&mut self, env: &Env) {
        let me = &self.nodes[self.myself];
        let is_stale = me.epochs.are_own() && me.epochs.config < self.current_epoch && me.is_voter();
        if is_stale && env.now_ms - self.own_epoch_ms > self.term_ms() * OPINION_TERMS && !self.has_granted() {
            self.take_epoch(1);
        }
    }

    /// A PONG came on the link that we opened to this node, which calls us failing by these flags: with PFAIL it gives no grant,
    /// with FAIL it takes back those it gave. When the ping was sent that it answers, if it answers one.
    pub(super) fn take_in_answer(&mut self, link: LinkId, key: NodeKey, doubt: NodeFlags, env: &Env) -> Option<i64> {
        let l = self.links.get_mut(&link)?;
        let sent_ms = l.pings.pop_front()?;
        l.is_answered = true;
        let usual_ms = &mut self.nodes[key].answers_in_ms;
        *usual_ms += (env.now_ms - sent_ms - *usual_ms) / 8;
        if !doubt.has_any(NodeFlags::PFAIL | NodeFlags::FAIL) {
            self.take_in_grant(key, sent_ms, env);
        } else if doubt.has(NodeFlags::FAIL) && self.nodes[key].granted_ms <= sent_ms {
            // A grant given later, with a vote, stays.
            self.nodes[key].granted_ms = 0;
            self.lose_lease(env.now_ms);
        }
        Some(sent_ms)
    }

    /// The node promised, in an answer to what was sent at `sent_ms`, not to vote against us.
    pub(super) fn take_in_grant(&mut self, key: NodeKey, sent_ms: i64, env: &Env) {
        let node = &mut self.nodes[key];
        node.granted_ms = node.granted_ms.max(sent_ms);
        // To look at all masters for every answer would be too much for a large cluster.
        if self.lease_end_ms.saturating_sub(env.now_ms) < self.lease_ms() / 2 {
            self.renew_lease(env.now_ms);
        } else {
            self.todo.lease = true;
        }
    }

    /// Whether the lease ends so soon that grants are asked for without delay.
    pub(super) fn lease_is_short(&self, now_ms: i64) -> bool {
        self.lease_end_ms.saturating_sub(now_ms) < self.lease_ms() / 3
    }

    /// The flags by which the gossip of a packet calls us failing, if it does.
    pub(super) fn doubt(&self, gossip: &[Gossip]) -> NodeFlags {
        let id = self.myself().id;
        let mine = gossip.iter().filter(|g| g.id == id);
        mine.fold(NodeFlags::default(), |all, g| all | g.flags.only(NodeFlags::PFAIL | NodeFlags::FAIL))
    }

    /// Forgets all grants, when a majority considers us failed.
    pub(super) fn forget_grants(&mut self, env: &Env) {
        self.nodes.for_each_mut(|n| n.granted_ms = 0);
        self.lose_lease(env.now_ms);
    }

    /// Ends the lease when the remaining grants end, after others were withdrawn.
    pub(super) fn lose_lease(&mut self, now_ms: i64) {
        self.lease_end_ms = self.granted_until_ms(now_ms);
        if !self.holds_lease(now_ms) {
            self.todo.state = true;
        }
    }

    /// Updates the state when the lease has ended.
    pub(super) fn watch_lease(&mut self, env: &Env) {
        if self.todo.lease && env.now_ms - self.lease_counted_ms >= self.term_ms() / COUNTS_A_TERM {
            self.todo.lease = false;
            self.renew_lease(env.now_ms);
        }
        if !self.holds_lease(env.now_ms) {
            self.todo.state = true;
        } else if self.state_ok && self.lease_end_ms != i64::MAX {
            self.wake_at(self.lease_end_ms);
        }
    }

    /// Notes that `reporter` considers a node failed, or no longer.
    pub(super) fn note_opinion(&mut self, key: NodeKey, reporter: NodeKey, failed: bool, env: &Env) {
        let doubters = &mut self.nodes[key].failed_by;
        doubters.retain(|(doubter, _)| *doubter != reporter);
        if failed {
            doubters.push((reporter, env.now_ms));
        }
    }

    // ---- the grantor's side ----

    /// Whether we may vote: we hold a lease, and have been master for so long that nothing rests on what our
    /// predecessor granted.
    pub(super) fn may_vote(&self, env: &Env) -> bool {
        self.holds_lease(env.now_ms) && env.now_ms - self.elected_ms > self.term_ms()
    }

    /// Answers a PING or MEET, with a grant or, by calling the sender failed, without.
    pub(super) fn answer_ping(&mut self, link: LinkId, sender: Option<NodeKey>, header: &Header, env: &Env) {
        let mut gossip = self.gossip_section(self.gossip_wanted(), env);
        if let Some(key) = sender {
            // Somebody may have our place, and our vote, already; but what we have promised before still holds.
            let may_grant = !self.vote_is_open(self.myself);
            if may_grant && self.grants_to(key, header) {
                self.nodes[key].promised_ms = env.now_ms;
            } else {
                let mut entry = self.gossip_entry(key, env);
                entry.flags.set(if may_grant { NodeFlags::FAIL } else { NodeFlags::PFAIL });
                gossip.push(entry);
            }
        }
        self.send_ping_body(link, PacketType::Pong, gossip, env);
    }

    fn grants_to(&self, key: NodeKey, header: &Header) -> bool {
        // What we have voted for may not be beaten by an epoch that it took without knowing.
        let n = &self.nodes[key];
        let is_beaten = header.epochs.are_own() && header.epochs.config <= n.voted_epoch;
        n.healthy() && !is_beaten && !self.vote_is_open(key) && !self.was_replaced(key, header)
    }

    /// Whether this master, which claims to serve these slots, has been replaced without knowing it: a node of its
    /// shard, or one we voted for, owns some of them by a greater epoch; or it owns none of what it claims. That others
    /// own some happens for a moment when slots move, and is no reason to stop it.
    fn was_replaced(&self, key: NodeKey, header: &Header) -> bool {
        let n = &self.nodes[key];
        if n.slots == header.slots {
            return false;
        }
        let mut keeps_some = header.slots.is_empty();
        for (_, owner) in self.claimed_owners(&header.slots) {
            if owner == key || self.compare_claims(owner, key, header.epochs).is_le() {
                keeps_some = true;
            } else if self.nodes[owner].shard_id == n.shard_id || n.voted_for == Some(self.nodes[owner].id) {
                return true;
            }
        }
        !keeps_some && header.slots.iter().all(|slot| self.claimed_owner(slot).is_some())
    }

    /// For how many milliseconds our promise still binds us not to vote for a replica of this master, if at all.
    /// Promises that we may have made before we started, or before we forgot the master, bind us too.
    pub(super) fn promise_lasts_ms(&self, master: NodeKey, env: &Env) -> Option<i64> {
        let n = &self.nodes[master];
        let left = n.promised_ms.max(n.created_ms) + self.term_ms() - env.now_ms;
        (left >= 0).then_some(left + 1)
    }

    /// Whether we voted for a replica of this master, which may be ourselves, in an election whose result we do not know. It is
    /// known when the replica has won (it, or the master it follows since, has that epoch), when the votes for it no longer
    /// count, or when it serves nothing, whatever the result.
    pub(super) fn vote_is_open(&self, master: NodeKey) -> bool {
        let n = &self.nodes[master];
        let Some(key) = n.voted_for.and_then(|id| self.nodes.find(&id)) else {
            return false;
        };
        let heir = &self.nodes[key];
        let told = heir.data_received_ms > n.voted_ms + self.election_lasts_ms();
        // Until it knows how its election ended it follows the master that it was to replace.
        let follows = heir.replica_of.filter(|followed| *followed != master);
        let won = follows.map_or(0, |m| self.nodes[m].epochs.agreed).max(heir.epochs.agreed) >= n.voted_epoch;
        !(told || won || self.is_out(key, master))
    }

    /// Whether who may have been elected in this master's place serves nothing: the election is over, and since a term at least so
    /// many voters consider it failed that no majority is left to rest on. The master itself does not count, as its place is taken.
    fn is_out(&self, heir: NodeKey, master: NodeKey) -> bool {
        let (n, now_ms) = (&self.nodes[heir], self.last_turn_ms);
        let over_ms = self.nodes[master].voted_ms + self.election_lasts_ms() + self.term_ms();
        if !n.failed() || now_ms <= over_ms.max(n.fail_time_ms + self.term_ms()) {
            return false;
        }
        let others = self.nodes.iter().filter(|(key, n)| n.is_voter() && ![heir, master].contains(key));
        let grants =
            |key: NodeKey| key != self.myself && !n.failed_by.iter().any(|(by, ms)| *by == key && *ms > over_ms);
        let (left, all) = others.fold((0, 1), |(left, all), (key, _)| (left + usize::from(grants(key)), all + 1));
        left < all / 2
    }

    /// For how long after the request votes count; then voters may vote about this master again.
    pub(super) fn election_ms(&self) -> i64 {
        (self.config.node_timeout_ms * ELECTION_TIMEOUTS).max(ELECTION_MS)
    }

    /// The same and a little more, for clocks of different rates.
    pub(super) fn election_lasts_ms(&self) -> i64 {
        let election_ms = self.election_ms();
        election_ms + election_ms / 4
    }
}
