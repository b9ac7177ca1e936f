//! How a replica becomes master: by the votes of a majority of the masters with slots.
//!
//! Safety: a master votes once an epoch, and persists the vote before it answers. After a restart it votes only in epochs
//! greater than all it voted in; until then a request may come late, after it voted in a greater epoch for a replica of
//! another master; about one master it votes in ascending epochs only. It votes only for a replica whose master it
//! considers failed (or in a manual failover) and to which no promise binds it any more (see `lease`); not for two replicas
//! of one master within two node timeouts; not against an owner of a slot by an epoch that the replica has not heard of, or
//! that its election would not beat; not for one that has not shown that it has what was acknowledged, where that is asked
//! for (see `durable`). A replica counts each voter once, and only votes given in the epoch of its election. Replicas with
//! less data wait longer.
//!
//! Speed: the request follows a FAIL message on the same links, so every voter knows of the failure when it gets the
//! request, and the best replica asks at once. The others keep the delays of Redis. If several masters failed, the
//! replicas of each take other epochs, so that their elections do not take each other's votes. When a replica's turn comes is in
//! `rank`, and what siblings do that ask at the same time in `rivals`.

mod rank;
mod rivals;
mod vote;

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Node, NodeId, NodeKey};
use super::wire::{Body, Header, MFLAG_FORCE_ACK, MFLAG_NO_LEASE};
use super::{Cluster, Env, LinkId};
use rivals::Rival;

/// An election that met another one is repeated in a new epoch after a random time of this order, doubled each time.
const CONTENTION_MS: i64 = 60;
/// If there are only elections in greater epochs, this much later, or after the last vote: it is Redis nodes alone that
/// may have no vote left. Doubled each time, at most so often: a new epoch gives up the votes of the last one, and masters with
/// too little of the processor to keep their leases vote one by one, whenever they have one.
const OVERTAKEN_MS: i64 = 500;
const MOST_DOUBLINGS: u32 = 4;
/// How soon a voter is asked again in one election.
const LEAST_REPEAT_MS: i64 = 100;
/// The reason why a replica does not fail over is logged at most this often.
const RELOG_MS: i64 = 10_000;

/// Why a replica whose master failed is not master yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CantFailover {
    No,
    NotAgreed,
    Forbidden,
    DataAge,
    WaitingDelay,
    Expired,
    WaitingVotes,
    NoEpochLeft,
    DataIncomplete,
    WaitingSupport,
}

impl CantFailover {
    /// The word that CLUSTER INFO has for it.
    fn word(self) -> &'static str {
        match self {
            CantFailover::No => "none",
            CantFailover::NotAgreed => "master_failure_not_agreed",
            CantFailover::Forbidden => "forbidden_by_config",
            CantFailover::DataAge => "data_too_old",
            CantFailover::WaitingDelay => "waiting_delay",
            CantFailover::Expired => "election_expired",
            CantFailover::WaitingVotes => "waiting_votes",
            CantFailover::NoEpochLeft => "no_epoch_left",
            CantFailover::DataIncomplete => "data_incomplete",
            CantFailover::WaitingSupport => "waiting_support",
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            CantFailover::No => "Unknown reason code.",
            CantFailover::NotAgreed => {
                "The master is not reached, but no majority of the masters has agreed that it failed."
            }
            CantFailover::Forbidden => "The configuration option 'cluster-replica-no-failover' forbids it.",
            CantFailover::DataAge => {
                "Disconnected from master for longer than allowed. Please check the 'cluster-replica-validity-factor' \
                 configuration option."
            }
            CantFailover::WaitingDelay => "Waiting the delay before I can start a new failover.",
            CantFailover::Expired => "Failover attempt expired.",
            CantFailover::NoEpochLeft => "The current epoch is the greatest there can be.",
            CantFailover::DataIncomplete => {
                "This replica has restarted since it last had what its master had, and may lack acknowledged writes."
            }
            CantFailover::WaitingSupport => {
                "Waiting for other replicas to say that this one has all acknowledged writes."
            }
            CantFailover::WaitingVotes => "Waiting for votes, but majority still not reached.",
        }
    }
}

/// The current election of this replica, or its last one.
#[derive(Clone, Debug, Default)]
pub(super) struct Election {
    /// When votes are due to be, or were, asked for. `None` before the first election for this master.
    at_ms: Option<i64>,
    /// How many siblings have more data, and, if none, how many have as much and go first.
    rank: usize,
    ties: usize,
    /// Whether votes, or first the support of the shard, were asked for.
    asked: bool,
    /// The nodes of the shard that support this one, and whether those are too few still.
    supporters: BTreeSet<NodeId>,
    waits_for_support: bool,
    asked_ms: i64,
    /// When they were first asked for in this epoch.
    first_asked_ms: i64,
    epoch: u64,
    /// Who voted for us, and whether it held a lease.
    votes: BTreeMap<NodeId, bool>,
    /// The voters that have promised themselves to siblings.
    denied: BTreeSet<NodeId>,
    /// The siblings that have asked for votes since we did.
    rivals: BTreeMap<NodeId, Rival>,
    /// The greatest epoch that was given up, and how often one was.
    withdrawn: u64,
    withdrawals: u32,
    /// How many attempts there were for this master, this one included.
    attempts: u32,
    /// Votes may be gone to another replica, or our master has an epoch that this one does not beat: they are to be asked for
    /// in a new epoch.
    contended: bool,
    /// When the last vote came.
    last_vote_ms: i64,
    /// When to try in a new epoch if contended, and how often that was done.
    retry_ms: i64,
    retries: u32,
}

impl Election {
    /// The one after this for the same master, which begins at that time.
    fn next(&self, at_ms: i64) -> Election {
        let Election { rank, ties, withdrawn, withdrawals, attempts, .. } = *self;
        Election {
            at_ms: Some(at_ms),
            rank,
            ties,
            withdrawn,
            withdrawals,
            attempts: attempts + 1,
            ..Election::default()
        }
    }
}

impl Cluster {
    /// Schedules, starts, repeats or wins the election, as due.
    pub(super) fn advance_election(&mut self, env: &Env) {
        let now = env.now_ms;
        self.check_consent(env);
        let manual = self.manual.may_win(now);
        let Some(master) = self.myself().replica_of.filter(|_| self.is_replica()) else {
            self.cant_failover = CantFailover::No;
            return;
        };
        if let Some(reason) = self.needs_no_election(master, manual) {
            self.log_cant_failover(reason, env);
            return;
        }
        if let Err(reason) = self.may_stand(env) {
            self.log_cant_failover(reason, env);
            return;
        }
        if !manual && !self.data_is_recent(env) {
            self.log_cant_failover(CantFailover::DataAge, env);
            return;
        }
        let Some(at_ms) = self.election.at_ms.filter(|_| now - self.began_ms() <= self.election_lasts_ms()) else {
            self.schedule_election(master, env);
            return;
        };
        if !self.election.asked && !self.manual.in_progress() {
            self.worsen_rank(master, env);
        }
        let at_ms = self.election.at_ms.unwrap_or(at_ms);
        if now < at_ms {
            self.wake_at(at_ms);
            self.log_cant_failover(CantFailover::WaitingDelay, env);
            return;
        }
        match self.election.asked {
            true => self.go_on_with_election(master, env),
            false if now - at_ms > self.election_ms() => self.log_cant_failover(CantFailover::Expired, env),
            false => self.ask_for_votes(master, env),
        }
    }

    /// Wins the election that was begun, repeats it or gives it up, as due.
    fn go_on_with_election(&mut self, master: NodeKey, env: &Env) {
        let (now, has_rivals) = (env.now_ms, !self.election.rivals.is_empty());
        let is_over = now - self.began_ms() > self.election_ms();
        let may_repeat = has_rivals || self.election.at_ms.is_some_and(|at_ms| now - at_ms <= self.election_ms());
        if !is_over && self.has_majority(master) && self.still_stands() {
            self.win_election(env);
        } else if self.is_in_vain(is_over, env) {
            self.withdraw(env);
        } else if is_over && !has_rivals {
            // A master that voted for us itself is bound until it hears of it.
            if self.manual.in_progress() && self.election.withdrawn < self.election.epoch {
                self.tell_withdrawn(env);
            }
            self.log_cant_failover(CantFailover::Expired, env);
        } else if is_over || (may_repeat && now >= self.retry_ms()) {
            self.election.retries += 1;
            self.ask_for_votes(master, env);
        } else {
            if may_repeat {
                self.wake_at(self.retry_ms());
            }
            if !self.gives_way() {
                self.on_supported(env);
                self.ask_again(env);
            }
            let waits_for_support = self.election.waits_for_support;
            let reason = if waits_for_support { CantFailover::WaitingSupport } else { CantFailover::WaitingVotes };
            self.log_cant_failover(reason, env);
        }
    }

    /// Whether the votes are enough. One that was replaced since does not count: who has its place may have voted, too. So may who
    /// has the place of one that held no lease. That alone elects nobody twice, but with the vote of the master itself it may.
    fn has_majority(&self, master: NodeKey) -> bool {
        let is_voter = |id: &NodeId| self.nodes.find(id).is_some_and(|key| self.nodes[key].is_voter());
        let own = self.nodes[master].id;
        let others = || self.election.votes.iter().filter(|(id, _)| **id != own && is_voter(id));
        let with_own = || {
            self.election.votes.contains_key(&own)
                && others().filter(|(_, leased)| **leased).count() + 1 >= self.quorum()
        };
        others().count() >= self.quorum() || with_own()
    }

    /// When the election began that is under way: each epoch is one of its own, as votes count for so long after they were first
    /// asked for in it. Where support is needed a candidate is to look anew who has most.
    fn began_ms(&self) -> i64 {
        let first_asked_ms = (self.election.asked && !self.needs_support()).then_some(self.election.first_asked_ms);
        first_asked_ms.or(self.election.at_ms).unwrap_or(0)
    }

    /// Why this replica is not to ask for votes, if it is so.
    fn needs_no_election(&self, master: NodeKey, manual: bool) -> Option<CantFailover> {
        let n = &self.nodes[master];
        match (manual, n.failed(), n.timed_out()) {
            _ if n.slot_count == 0 => Some(CantFailover::No),
            (true, ..) => None,
            (false, true, _) => self.config.replica_no_failover.then_some(CantFailover::Forbidden),
            (false, false, true) => Some(CantFailover::NotAgreed),
            (false, false, false) => Some(CantFailover::No),
        }
    }

    /// When to try in a new epoch.
    fn retry_ms(&self) -> i64 {
        let election = &self.election;
        match election.contended {
            _ if self.gives_way() => i64::MAX,
            true => election.retry_ms,
            false if self.current_epoch > election.epoch => {
                let doublings = (election.retries + election.attempts.saturating_sub(1)).min(MOST_DOUBLINGS);
                election.retry_ms.max(election.last_vote_ms) + (OVERTAKEN_MS << doublings)
            }
            false => i64::MAX,
        }
    }

    /// Whether our data is recent enough: the replication link was not down for too long. The time it took to find the
    /// master failed does not count.
    fn data_is_recent(&self, env: &Env) -> bool {
        let factor = self.config.replica_validity_factor;
        let timeout = self.config.node_timeout_ms;
        let age = if env.data_age_ms > timeout { env.data_age_ms - timeout } else { env.data_age_ms };
        let allowed =
            self.config.repl_ping_period_s.saturating_mul(1000).saturating_add(timeout.saturating_mul(factor));
        factor == 0 || age <= allowed
    }

    /// The epoch of a new election: the next one, or, if several masters failed, the next of those that fall to the
    /// replicas of `master` by its place among all masters, as every node counts them.
    fn election_epoch(&self, master: NodeKey) -> Option<u64> {
        let next = self.current_epoch.checked_add(1)?;
        let id = self.nodes[master].id;
        let voters = || self.nodes.iter().filter(|(_, n)| n.is_voter());
        if voters().filter(|(_, n)| !n.healthy()).count() < 2 {
            return Some(next);
        }
        let (count, place) = (voters().count() as u64, voters().filter(|(_, n)| n.id < id).count() as u64);
        let ahead = (place + count - next % count) % count;
        Some(next.checked_add(ahead).unwrap_or(next))
    }

    fn ask_for_votes(&mut self, master: NodeKey, env: &Env) {
        let Some(epoch) = self.election_epoch(master) else {
            return self.log_cant_failover(CantFailover::NoEpochLeft, env);
        };
        self.current_epoch = epoch;
        self.election.epoch = self.current_epoch;
        self.election.asked = true;
        self.election.asked_ms = env.now_ms;
        self.election.first_asked_ms = env.now_ms;
        self.election.contended = false;
        self.election.votes.clear();
        self.election.denied.clear();
        self.election.supporters.clear();
        let patience = CONTENTION_MS << self.election.retries.min(5);
        self.election.retry_ms = env.now_ms + patience + self.rng.i64(0..patience);
        log::info!("Starting a failover election for epoch {}.", self.current_epoch);
        // The voters must know of the failure when the request reaches them. This is sent only while the failure is
        // recent: later they may have cleared it with good reason.
        let failed = &self.nodes[master];
        if failed.failed() && env.now_ms - failed.fail_time_ms < self.config.node_timeout_ms {
            let id = failed.id;
            self.broadcast(&Body::Fail(id), 0, env);
        }
        self.save_to_tell();
        self.election.waits_for_support = self.needs_support();
        if self.election.waits_for_support {
            self.stand(epoch);
            self.once_saved(|c| c.ask_for_support(epoch, env));
            self.on_supported(env);
        } else {
            let mflags = self.request_flags(env);
            self.once_saved(|c| c.broadcast(&Body::AuthRequest, mflags, env));
        }
        self.todo.state = true;
        self.wake_at(env.now_ms + self.repeat_after_ms());
    }

    /// A node of our shard supports us in the election of that epoch.
    pub(super) fn on_support(&mut self, sender: NodeKey, epoch: u64) {
        if self.election.asked && self.election.epoch == epoch {
            self.election.supporters.insert(self.nodes[sender].id);
            self.todo.failover = true;
        }
    }

    /// Asks for votes if enough of the shard support us.
    fn on_supported(&mut self, env: &Env) {
        if !self.election.waits_for_support || !self.is_supported(&self.election.supporters) {
            return;
        }
        self.election.waits_for_support = false;
        let links: Vec<LinkId> = self.reachable().filter_map(|(_, n)| n.link).collect();
        self.once_saved(|c| {
            c.show_supporters(env);
            c.send_request(&links, env);
        });
    }

    /// Shows those voters who support us whose votes are missing.
    fn show_supporters(&mut self, env: &Env) {
        let votes = &self.election.votes;
        let missing =
            self.nodes.iter().filter(|(key, n)| *key != self.myself && n.is_voter() && !votes.contains_key(&n.id));
        let missing: Vec<NodeKey> = missing.map(|(key, _)| key).collect();
        self.show_evidence(&missing, self.election.epoch, &self.election.supporters.clone(), env);
    }

    /// Asks for votes in the epoch of the election: a vote in the greatest one would not count, and another candidate may
    /// need it.
    fn send_request(&mut self, links: &[LinkId], env: &Env) {
        let header = Header { current_epoch: self.election.epoch, ..self.header(self.request_flags(env), env) };
        self.send_packet(links, &header, &Body::AuthRequest);
    }

    #[cfg(test)]
    pub(super) fn supporters(&self) -> &BTreeSet<NodeId> {
        &self.election.supporters
    }

    /// Whether we have not promised ourselves to another candidate since.
    fn still_stands(&self) -> bool {
        !self.needs_support() || self.stands_in(self.election.epoch)
    }

    /// A sibling stands in the same epoch: neither supports the other.
    pub(super) fn note_rival(&mut self, epoch: u64) {
        if self.election.asked && self.election.epoch == epoch {
            self.election.contended = true;
            self.wake_at(self.election.retry_ms);
        }
    }

    /// A manual failover for which the master is still to stop writing asks for nothing that another election could not.
    fn request_flags(&self, env: &Env) -> u8 {
        if self.manual.may_win(env.now_ms) { MFLAG_FORCE_ACK } else { 0 }
    }

    fn repeat_after_ms(&self) -> i64 {
        // A master that holds clients back for us may have left it to others first.
        if self.manual.in_progress() { LEAST_REPEAT_MS } else { (self.config.node_timeout_ms / 4).max(LEAST_REPEAT_MS) }
    }

    /// A request or its answer may have been lost with a link. Asking again in the same epoch cannot get a second vote
    /// from anybody.
    fn ask_again(&mut self, env: &Env) {
        let due = self.election.asked_ms + self.repeat_after_ms();
        if env.now_ms < due {
            self.wake_at(due);
            return;
        }
        self.election.asked_ms = env.now_ms;
        if self.needs_support() {
            // Voters may know of a newer record than we.
            let epoch = self.election.epoch;
            self.once_saved(|c| c.ask_for_support(epoch, env));
            if self.election.waits_for_support {
                self.ask_for_records(epoch, env);
                return self.wake_at(env.now_ms + self.repeat_after_ms());
            }
            self.once_saved(|c| c.show_supporters(env));
        }
        let links = self.voter_links(|n| !self.election.votes.contains_key(&n.id));
        if !links.is_empty() {
            self.once_saved(|c| c.send_request(&links, env));
        }
        self.wake_at(env.now_ms + self.repeat_after_ms());
    }

    pub(super) fn on_vote(&mut self, sender: NodeKey, header: &Header, env: &Env) {
        let n = &self.nodes[sender];
        // The epoch in the header is the one the vote was given in.
        if n.is_voter() && self.election.asked && header.current_epoch == self.election.epoch {
            self.election.votes.insert(n.id, header.mflags & MFLAG_NO_LEASE == 0);
            self.election.last_vote_ms = env.now_ms;
            self.todo.failover = true;
            self.take_in_grant(sender, self.election.first_asked_ms, env);
        } else {
            self.answer_stale_vote(sender, header.current_epoch, env);
        }
    }

    fn win_election(&mut self, env: &Env) {
        log::info!("Failover election won: I'm the new master.");
        let epoch = self.election.epoch;
        let me = &mut self.nodes[self.myself];
        if me.epochs.config < epoch {
            me.set_epoch(epoch);
            log::info!("configEpoch set to {epoch} after successful failover");
        }
        // It is as if we had voted for ourselves.
        self.last_vote_epoch = self.last_vote_epoch.max(epoch);
        self.unknown_votes_until = self.unknown_votes_until.max(epoch);
        // The lease is what the votes amount to.
        self.lease_end_ms = 0;
        self.replace_my_master(env);
    }

    /// The old election was about another master, or is over.
    pub(super) fn forget_election(&mut self) {
        self.election = Election::default();
        self.cant_failover = CantFailover::No;
    }

    /// Why we have not taken our master's place, for CLUSTER INFO: a word, and how much is missing.
    pub(crate) fn cant_failover_reason(&self) -> String {
        let (word, needed) = (self.cant_failover.word(), self.quorum());
        match (self.cant_failover, self.myself().replica_of) {
            (CantFailover::NotAgreed, Some(m)) => {
                format!("{word},reports={},needed={needed}", self.nodes[m].fail_reports.len())
            }
            (CantFailover::WaitingSupport, _) => {
                let (supporters, needed) = self.support_count(&self.election.supporters);
                format!("{word},supporters={supporters},needed={needed}")
            }
            (CantFailover::WaitingVotes | CantFailover::Expired, _) => {
                format!("{word},votes={},needed={needed}", self.election.votes.len())
            }
            _ => word.to_owned(),
        }
    }

    fn log_cant_failover(&mut self, reason: CantFailover, env: &Env) {
        if reason == self.cant_failover && env.now_ms - self.cant_failover_logged_ms < RELOG_MS {
            return;
        }
        self.cant_failover = reason;
        // A failover within its usual time is not logged.
        let recent = self.config.node_timeout_ms + 5000;
        let master = self.myself().replica_of.map(|m| &self.nodes[m]);
        let is_recent = |m: &Node| {
            let since_ms = if m.failed() { m.fail_time_ms } else { m.ping_sent_ms + self.config.node_timeout_ms };
            env.now_ms - since_ms < recent
        };
        if reason == CantFailover::No || master.is_some_and(is_recent) {
            return;
        }
        self.cant_failover_logged_ms = env.now_ms;
        log::info!("Currently unable to failover: {}", reason.text());
        if matches!(reason, CantFailover::WaitingVotes | CantFailover::Expired) {
            log::info!(
                "Needed quorum: {}. Number of votes received so far: {}",
                self.quorum(),
                self.election.votes.len()
            );
        }
    }
    /// A voter told us this epoch of our master, which a request must name and an election beat.
    pub(super) fn note_epoch_to_beat(&mut self, config_epoch: u64, is_news: bool) {
        if self.election.asked && config_epoch >= self.election.epoch {
            self.election.contended = true;
            self.wake_at(self.election.retry_ms);
        } else if is_news {
            self.election.asked_ms = 0;
            self.todo.failover = true;
        }
    }

    pub(super) fn is_sibling(&self, key: NodeKey) -> bool {
        self.myself().replica_of.is_some() && self.nodes[key].replica_of == self.myself().replica_of
    }

    /// Whether there may soon be an election about our master.
    pub(super) fn is_my_master_silent(&self, env: &Env) -> bool {
        let master = self.myself().replica_of.map(|m| &self.nodes[m]);
        master.is_some_and(|m| env.now_ms - m.last_alive_ms() > self.config.node_timeout_ms / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::NodeFlags;
    use super::super::{Action, ClusterConfig, wire};
    use super::rank::{STALE_RANK_DELAY_MS, TIE_DELAY_MS};
    use super::vote::{OTHERS_VOTE_MS, REMEMBERED_VOTES};
    use super::*;

    pub(super) const START_MS: i64 = 1_000_000;
    pub(super) const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    pub(super) const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    pub(super) const C: &str = "cccccccccccccccccccccccccccccccccccccccc";
    pub(super) const D: &str = "dddddddddddddddddddddddddddddddddddddddd";

    /// The node `me` of three masters, of which the first failed, and a replica of that one.
    pub(super) fn cluster(me: &str, current_epoch: u64) -> Cluster {
        let text: String = [
            (A, "master,fail - 0 0 1 connected 0-5460"),
            (B, "master - 0 0 2 connected 5461-10922"),
            (C, "master - 0 0 3 connected 10923-16383"),
            (D, &format!("slave {A} 0 0 1 connected")),
        ]
        .iter()
        .map(|(id, rest)| format!("{id} 127.0.0.1:7000@17000 {}{rest}\n", if *id == me { "myself," } else { "" }))
        .collect();
        let text = format!("{text}vars currentEpoch {current_epoch} lastVoteEpoch 1\n");
        let config = ClusterConfig { node_timeout_ms: 2000, ..ClusterConfig::default() };
        Cluster::from_nodes_conf(config, 1, START_MS, &text).unwrap()
    }

    pub(super) fn env(now_ms: i64) -> Env<'static> {
        Env { repl_offset: 1, replicating: true, master_link_up: true, ..Env::at(now_ms) }
    }

    fn sent(actions: &[Action], kind: wire::PacketType) -> bool {
        let is_kind = |a: &Action| matches!(a, Action::Send { packet, .. } if wire::packet_type(packet) == kind as u16);
        actions.iter().any(is_kind)
    }

    /// The request of the replica for the vote of the master, at this time.
    fn request(voter: &mut Cluster, now_ms: i64, mflags: u8) -> bool {
        let replica = voter.nodes.find(&NodeId::parse(D.as_bytes()).unwrap()).unwrap();
        voter.connect(replica, now_ms);
        voter.lease_end_ms = i64::MAX;
        let epoch = voter.current_epoch + 1;
        let link = voter.on_accept(now_ms, "127.0.0.1".into(), "127.0.0.1".into());
        let mut header = cluster(D, epoch).header(mflags, &env(now_ms));
        header.current_epoch = epoch;
        voter.on_packet(link, &wire::encode(&header, &wire::Body::AuthRequest), &env(now_ms));
        sent(&voter.flush_and_save(&env(now_ms)), wire::PacketType::AuthAck)
    }

    #[test]
    fn a_voter_keeps_its_promise() {
        // Promises it may have made before it started bind it for a node timeout.
        let mut voter = cluster(B, 5);
        assert!(!request(&mut voter, START_MS + 2000, 0));
        assert!(request(&mut voter, START_MS + 2001, 0));
        // Later promises bind it, too, unless an operator forces the failover.
        let promised_ms = START_MS + 8000;
        for (later_ms, mflags, votes) in [(2000, 0, false), (2001, 0, true), (500, MFLAG_FORCE_ACK, true)] {
            let mut voter = cluster(B, 5);
            let master = voter.nodes.find(&NodeId::parse(A.as_bytes()).unwrap()).unwrap();
            voter.nodes[master].flags.clear(NodeFlags::FAIL);
            let link = voter.on_accept(promised_ms, "127.0.0.1".into(), "127.0.0.1".into());
            let ping = wire::Body::Ping { kind: wire::PacketType::Ping, gossip: vec![], extensions: vec![] };
            voter.on_packet(link, &wire::encode(&cluster(A, 5).header(0, &env(promised_ms)), &ping), &env(promised_ms));
            voter.nodes[master].flags.set(NodeFlags::FAIL);
            assert_eq!(request(&mut voter, promised_ms + later_ms, mflags), votes, "{later_ms}");
        }
        // A node that was just elected does not vote.
        let mut voter = cluster(B, 5);
        voter.elected_ms = START_MS + 5000;
        assert!(!request(&mut voter, START_MS + 7000, 0));
        assert!(request(&mut voter, START_MS + 7001, 0));
    }

    /// Where others do not consider it failed each vote would keep it without its lease, until the next one.
    #[test]
    fn about_who_answers_again_for_long_nobody_votes() {
        for (answered_ms, later_ms, mflags, votes) in
            [(4000, 5000, 0, true), (4001, 5000, 0, false), (4001, 5000, MFLAG_FORCE_ACK, true), (4001, 6002, 0, true)]
        {
            let mut voter = cluster(B, 5);
            let master = key(&voter, A);
            let node = &mut voter.nodes[master];
            (node.fail_time_ms, node.answered_ms) = (START_MS, START_MS + answered_ms);
            assert_eq!(request(&mut voter, START_MS + later_ms, mflags), votes, "{answered_ms} {later_ms} {mflags}");
        }
    }

    /// Of two elections at once the request of the one that began first may come last.
    #[test]
    fn a_vote_is_given_once_in_each_epoch_whatever_their_order() {
        let mut voter = cluster(B, 50);
        voter.note_vote(9);
        assert_eq!([1, 7, 9, 10].map(|epoch| voter.has_voted_in(epoch)), [true, false, true, false]);
        voter.note_vote(7);
        assert!(voter.has_voted_in(7) && !voter.has_voted_in(8) && voter.last_vote_epoch == 9);
        // What was voted in since the file was written is not known any more.
        let again = Cluster::from_nodes_conf(ClusterConfig::default(), 1, START_MS, &voter.nodes_conf()).unwrap();
        assert!(again.has_voted_in(8) && !again.has_voted_in(10));
        for epoch in 10..10 + 2 * REMEMBERED_VOTES as u64 {
            voter.note_vote(epoch);
        }
        assert!(voter.has_voted_in(8) && voter.voted_epochs.len() == REMEMBERED_VOTES);

        // The answer names the epoch that the vote was given in, not the greatest.
        let mut voter = cluster(B, 50);
        let (link, now_ms) = (voter.on_accept(START_MS, "127.0.0.1".into(), "127.0.0.1".into()), START_MS + 5000);
        voter.lease_end_ms = i64::MAX;
        let header = Header { current_epoch: 8, ..cluster(D, 8).header(0, &env(now_ms)) };
        voter.on_packet(link, &wire::encode(&header, &wire::Body::AuthRequest), &env(now_ms));
        let acks: Vec<u64> = voter
            .flush_and_save(&env(now_ms))
            .iter()
            .filter_map(|action| match action {
                Action::Send { packet, .. } => wire::decode(packet).ok(),
                _ => None,
            })
            .filter(|packet| packet.body == wire::Body::AuthAck)
            .map(|packet| packet.header.current_epoch)
            .collect();
        assert_eq!((acks, voter.current_epoch, voter.last_vote_epoch), (vec![8], 50, 8));
    }

    pub(super) fn key(c: &Cluster, id: &str) -> NodeKey {
        c.nodes.find(&NodeId::parse(id.as_bytes()).unwrap()).unwrap()
    }

    /// Has a replica with links to the voters ask for their votes. Gives the time then.
    pub(super) fn ask_for_votes(replica: &mut Cluster) -> i64 {
        for voter in [B, C] {
            let voter = key(replica, voter);
            replica.connect(voter, START_MS);
        }
        let mut now_ms = START_MS;
        while !replica.election.asked {
            replica.tick(&env(now_ms));
            now_ms += 1;
        }
        now_ms
    }

    /// What a node sends of that type.
    fn packets(c: &mut Cluster, kind: wire::PacketType, now_ms: i64) -> Vec<Header> {
        let actions = c.flush_and_save(&env(now_ms));
        let packets = actions.iter().filter_map(|action| match action {
            Action::Send { packet, .. } if wire::packet_type(packet) == kind as u16 => wire::decode(packet).ok(),
            _ => None,
        });
        packets.map(|packet| packet.header).collect()
    }

    /// The answer, by type, to the replica's request in this epoch; its master has `config_epoch` as far as it knows.
    fn answer(voter: &mut Cluster, epoch: u64, config_epoch: u64, now_ms: i64) -> Option<wire::PacketType> {
        let replica = key(voter, D);
        voter.connect(replica, now_ms);
        voter.lease_end_ms = i64::MAX;
        let link = voter.on_accept(now_ms, "127.0.0.1".into(), "127.0.0.1".into());
        let header = Header {
            current_epoch: epoch,
            epochs: super::super::node::Epochs::agreed_on(config_epoch),
            ..cluster(D, epoch).header(0, &env(now_ms))
        };
        voter.on_packet(link, &wire::encode(&header, &wire::Body::AuthRequest), &env(now_ms));
        let actions = voter.flush_and_save(&env(now_ms));
        [wire::PacketType::AuthAck, wire::PacketType::Update].into_iter().find(|kind| sent(&actions, *kind))
    }

    #[test]
    fn a_vote_beats_what_was_voted_and_who_owns_the_slots() {
        use wire::PacketType::{AuthAck, Update};
        let mut voter = cluster(B, 50);
        let (now_ms, master) = (START_MS + 5000, key(&voter, A));
        voter.nodes[master].set_epoch(8);
        // The candidate must know of its master's epoch, and is told of it; and its own must be greater.
        assert_eq!(answer(&mut voter, 10, 7, now_ms), Some(Update));
        assert_eq!(answer(&mut voter, 8, 8, now_ms), Some(Update));
        assert_eq!(answer(&mut voter, 10, 8, now_ms), Some(AuthAck));
        // However late, no vote is given about that master in a lesser epoch.
        assert_eq!(answer(&mut voter, 9, 8, now_ms + 100), None);
        assert_eq!(answer(&mut voter, 9, 8, now_ms + 60_000), None);
        assert_eq!(voter.nodes[master].voted_epoch, 10);
        assert_eq!(answer(&mut voter, 11, 8, now_ms + 60_000), Some(AuthAck));
    }

    #[test]
    fn an_open_vote_is_not_closed_by_the_master_it_was_about() {
        let mut voter = cluster(B, 50);
        let (now_ms, master, heir) = (START_MS + 5000, key(&voter, A), key(&voter, D));
        assert_eq!(answer(&mut voter, 51, 1, now_ms), Some(wire::PacketType::AuthAck));
        voter.nodes[master].set_epoch(60);
        assert!(voter.vote_is_open(master));
        voter.nodes[heir].set_epoch(51);
        assert!(!voter.vote_is_open(master));
    }

    /// They may be the majority of which the replaced master is one, while its heir rests on the others.
    #[test]
    fn an_open_vote_is_closed_when_all_others_say_that_the_heir_failed() {
        let mut voter = cluster(B, 50);
        let (now_ms, [master, other, heir]) = (START_MS + 5000, [A, C, D].map(|id| key(&voter, id)));
        assert_eq!(answer(&mut voter, 51, 1, now_ms), Some(wire::PacketType::AuthAck));
        voter.nodes[heir].flags.set(NodeFlags::FAIL);
        voter.nodes[heir].fail_time_ms = now_ms;
        let over_ms = now_ms + voter.election_lasts_ms() + voter.term_ms();
        voter.note_opinion(heir, other, true, &env(over_ms));
        voter.last_turn_ms = over_ms + 10;
        assert!(voter.vote_is_open(master), "it said so while the election was on");
        voter.note_opinion(heir, master, true, &env(over_ms + 10));
        assert!(voter.vote_is_open(master));
        voter.note_opinion(heir, other, true, &env(over_ms + 10));
        assert!(!voter.vote_is_open(master));
    }

    /// The master of the replica, which is well, and reaches nobody else.
    fn alone() -> Cluster {
        let mut c = cluster(A, 50);
        let me = c.myself;
        c.nodes[me].flags.clear(NodeFlags::FAIL);
        c
    }

    /// Somebody may have its place, and its vote, until it knows how the election ended.
    #[test]
    fn a_master_with_a_vote_about_its_own_place_neither_serves_nor_grants_nor_votes() {
        let (mut master, now_ms) = (alone(), START_MS + 5000);
        assert!(!request(&mut master, now_ms, MFLAG_FORCE_ACK), "others may vote first");
        assert!(request(&mut master, now_ms + OTHERS_VOTE_MS, MFLAG_FORCE_ACK));
        assert!(!master.holds_lease(now_ms + OTHERS_VOTE_MS) && master.vote_is_open(master.myself));
        let link = master.on_accept(now_ms, "127.0.0.1".into(), "127.0.0.1".into());
        let ping = wire::Body::Ping { kind: wire::PacketType::Ping, gossip: vec![], extensions: vec![] };
        let other = cluster(B, 50).header(0, &env(now_ms));
        master.on_packet(link, &wire::encode(&other, &ping), &env(now_ms + 100));
        let actions = master.flush_and_save(&env(now_ms + 100));
        let pong = actions.iter().find_map(|action| match action {
            Action::Send { packet, .. } if wire::packet_type(packet) == wire::PacketType::Pong as u16 => Some(packet),
            _ => None,
        });
        let wire::Body::Ping { gossip, .. } = wire::decode(pong.expect("an answer")).unwrap().body else { panic!() };
        let flags = cluster(B, 50).doubt(&gossip);
        assert!(flags.has(NodeFlags::PFAIL) && !flags.has(NodeFlags::FAIL), "what was promised before holds");
        // While clients are held back nobody is served; then it may have been replaced.
        let mut master = alone();
        (master.manual.paused, master.manual.replica) = (true, Some(key(&master, D)));
        let other = key(&master, B);
        master.nodes[other].granted_ms = now_ms;
        assert!(request(&mut master, now_ms, MFLAG_FORCE_ACK) && master.holds_lease(now_ms));
        master.last_turn_ms = now_ms;
        master.reset_manual_failover();
        assert!(!master.holds_lease(now_ms));
    }

    /// Who has its place may have voted, too; with the master's own vote two could be elected.
    #[test]
    fn votes_without_a_lease_do_not_count_together_with_the_master_s_own() {
        for (votes, is_enough) in [
            (vec![(B, true), (C, false)], true),
            (vec![(A, true), (B, true)], true),
            (vec![(A, true), (B, false)], false),
            (vec![(A, true), (D, true)], false),
        ] {
            let mut replica = cluster(D, 5);
            let master = key(&replica, A);
            replica.size = 3;
            for (id, is_leased) in &votes {
                replica.election.votes.insert(NodeId::parse(id.as_bytes()).unwrap(), *is_leased);
            }
            assert_eq!(replica.has_majority(master), is_enough, "{votes:?}");
        }
    }

    #[test]
    fn a_master_that_restarted_or_was_replaced_holds_nobody_back_for_its_replica() {
        for (is_linked, epoch, goes_on) in [(true, 1, true), (false, 1, false), (true, 9, false), (true, 3, true)] {
            let mut replica = cluster(D, 5);
            let (master, now_ms) = (key(&replica, A), START_MS + 5000);
            replica.nodes[master].flags.clear(NodeFlags::FAIL);
            // It has taken an epoch by itself.
            replica.nodes[master].epochs.config = 3;
            replica.begin_manual_failover(false, &env(now_ms));
            let mut header = cluster(A, 5).header(wire::MFLAG_PAUSED, &env(now_ms));
            replica.take_in_header(master, &header, &env(now_ms));
            replica.check_consent(&env(now_ms));
            header.epochs = crate::cluster::node::Epochs::agreed_on(epoch);
            replica.take_in_header(master, &header, &env(now_ms + 1));
            replica.check_consent(&Env { master_link_up: is_linked, ..env(now_ms + 1) });
            assert_eq!(replica.manual.in_progress(), goes_on, "{is_linked} {epoch}");
        }
    }

    #[test]
    fn a_request_is_repeated_in_its_epoch_and_a_new_one_beats_the_master() {
        let mut replica = cluster(D, 5);
        let mut now_ms = ask_for_votes(&mut replica);
        let epochs = |c: &mut Cluster, now_ms: i64| -> Vec<u64> {
            let mut epochs: Vec<u64> =
                packets(c, wire::PacketType::AuthRequest, now_ms).iter().map(|h| h.current_epoch).collect();
            epochs.dedup();
            epochs
        };
        assert_eq!(epochs(&mut replica, now_ms), [6]);
        // Another election began.
        replica.current_epoch = 9;
        now_ms = replica.election.asked_ms + replica.repeat_after_ms();
        replica.advance_election(&env(now_ms));
        assert_eq!(epochs(&mut replica, now_ms), [6]);
        // The master has an epoch that this election does not beat.
        let master = key(&replica, A);
        let slots = replica.nodes[master].slots.clone();
        replica.take_in_owner(master, crate::cluster::node::Epochs::agreed_on(5), &slots, &env(now_ms));
        assert_eq!((epochs(&mut replica, now_ms), replica.election.contended), (vec![6], false));
        replica.take_in_owner(master, crate::cluster::node::Epochs::agreed_on(6), &slots, &env(now_ms));
        replica.advance_election(&env(now_ms));
        assert_eq!(epochs(&mut replica, now_ms), [10]);
        // A vote that comes shows that voters are at it.
        replica.current_epoch = 11;
        let (voter, before) = (key(&replica, B), replica.retry_ms());
        let header = Header { current_epoch: 10, ..cluster(B, 11).header(0, &env(now_ms)) };
        replica.on_vote(voter, &header, &env(now_ms + 400));
        assert_eq!(replica.retry_ms(), now_ms + 400 + 2 * OVERTAKEN_MS);
        assert!(before < replica.retry_ms());
        // Who won votes in no epoch up to its own.
        replica.win_election(&env(now_ms + 400));
        assert!(replica.has_voted_in(10) && !replica.has_voted_in(11));
    }

    #[test]
    fn replicas_of_different_masters_choose_different_epochs() {
        let mut replica = cluster(D, 5);
        let masters = [A, B, C].map(|id| replica.nodes.find(&NodeId::parse(id.as_bytes()).unwrap()).unwrap());
        assert_eq!(replica.election_epoch(masters[0]), Some(6), "it is alone");
        // Suspected is enough: that it failed is agreed on a moment later.
        replica.nodes[masters[1]].flags.set(NodeFlags::PFAIL);
        assert_eq!(masters.map(|master| replica.failed_before(master)), [0, 1, 2]);
        assert_eq!(masters.map(|master| replica.election_epoch(master)), [Some(6), Some(7), Some(8)]);
        replica.current_epoch = 7;
        assert_eq!(masters.map(|master| replica.election_epoch(master)), [Some(9), Some(10), Some(8)]);
        replica.current_epoch = u64::MAX;
        assert_eq!(replica.election_epoch(masters[0]), None);
    }

    #[test]
    fn cluster_info_says_why_there_is_no_failover() {
        let reason = |replica: &mut Cluster, now_ms: i64| {
            let env = Env { data_age_ms: 100, ..env(now_ms) };
            replica.tick(&env);
            replica.flush_and_save(&env);
            let info = replica.describe_info();
            let field = info.lines().find_map(|line| line.strip_prefix("cluster_cant_failover_reason:"));
            field.unwrap().to_owned()
        };
        let mut replica = cluster(D, 5);
        let master = replica.nodes.find(&NodeId::parse(A.as_bytes()).unwrap()).unwrap();
        replica.nodes[master].flags.clear(NodeFlags::FAIL);
        assert_eq!(reason(&mut replica, START_MS), "none");
        replica.nodes[master].flags.set(NodeFlags::PFAIL);
        assert_eq!(reason(&mut replica, START_MS + 200), "master_failure_not_agreed,reports=0,needed=2");
        replica.nodes[master].flags.set(NodeFlags::FAIL);
        replica.config.replica_no_failover = true;
        assert_eq!(reason(&mut replica, START_MS + 400), "forbidden_by_config");
        replica.config.replica_no_failover = false;
        replica.config.repl_ping_period_s = 0;
        replica.config.replica_validity_factor = -1;
        assert_eq!(reason(&mut replica, START_MS + 600), "data_too_old");
        replica.config.replica_validity_factor = 10;
        reason(&mut replica, START_MS + 800);
        assert_eq!(reason(&mut replica, START_MS + 1000), "waiting_votes,votes=0,needed=2");
    }

    #[test]
    fn of_siblings_that_turn_out_to_be_as_good_one_waits() {
        for (digit, offset, delay_ms) in
            [("1", 1, STALE_RANK_DELAY_MS + TIE_DELAY_MS), ("e", 1, STALE_RANK_DELAY_MS), ("1", 0, STALE_RANK_DELAY_MS)]
        {
            let mut replica = cluster(D, 5);
            let (master, id) = (key(&replica, A), NodeId::parse(digit.repeat(40).as_bytes()).unwrap());
            let sibling = replica.nodes.insert(Node::new(id, id, NodeFlags::REPLICA, START_MS));
            replica.nodes[sibling].replica_of = Some(master);
            replica.nodes[master].replicas.push(sibling);
            let mut now_ms = START_MS;
            while replica.election.at_ms.is_none() {
                now_ms += 1;
                replica.nodes[sibling].pong_received_ms = now_ms;
                replica.tick(&env(now_ms));
            }
            assert_eq!(replica.election.at_ms, Some(now_ms + STALE_RANK_DELAY_MS), "it may have more");
            replica.nodes[sibling].repl_offset = offset;
            for later_ms in [1, 2] {
                replica.advance_election(&env(now_ms + later_ms));
                assert_eq!(replica.election.at_ms, Some(now_ms + delay_ms), "{digit} {offset}");
            }
        }
    }

    /// It may still reach a master that the others do not.
    #[test]
    fn a_replica_takes_its_master_back_when_that_serves_or_nobody_misses_it() {
        for (serves, is_missed, is_back) in [(true, true, true), (false, true, false), (false, false, true)] {
            let mut replica = cluster(D, 5);
            let (master, voter, now_ms) = (key(&replica, A), key(&replica, B), START_MS + 5000);
            replica.nodes[master].fail_time_ms = START_MS;
            replica.note_opinion(master, voter, is_missed, &env(now_ms));
            replica.clear_failure_if_possible(master, serves, &env(now_ms));
            assert_eq!(replica.nodes[master].healthy(), is_back, "{serves} {is_missed}");
        }
    }

    #[test]
    fn the_greatest_epoch_neither_wraps_nor_panics() {
        for (epoch, begins) in [(u64::MAX - 1, true), (u64::MAX, false)] {
            let mut replica = cluster(D, epoch);
            let mut asked = false;
            for now_ms in (START_MS..START_MS + 20_000).step_by(50) {
                replica.tick(&env(now_ms));
                replica.flush_and_save(&env(now_ms));
                asked |= replica.election.asked;
                assert!(replica.current_epoch() >= epoch);
            }
            assert_eq!((asked, replica.current_epoch()), (begins, u64::MAX));
        }
        let mut master = cluster(B, u64::MAX);
        assert_eq!(master.bump_my_epoch(), (true, u64::MAX));
        assert_eq!(master.bump_my_epoch(), (false, u64::MAX));
        // Another node has the greatest epoch, too, and says so in every packet.
        let link = master.on_accept(START_MS, "127.0.0.1".into(), "127.0.0.1".into());
        let mut header = cluster(C, u64::MAX).header(0, &env(START_MS));
        (header.epochs.config, header.offset) = (u64::MAX, u64::MAX);
        for kind in [wire::PacketType::Ping, wire::PacketType::Pong, wire::PacketType::Meet] {
            let ping = wire::Body::Ping { kind, gossip: vec![], extensions: vec![] };
            for _ in 0..2 {
                master.on_packet(link, &wire::encode(&header, &ping), &env(START_MS));
                master.tick(&env(START_MS));
                master.flush_and_save(&env(START_MS));
            }
        }
        assert_eq!((master.current_epoch(), master.myself().epochs.config), (u64::MAX, u64::MAX));
    }
}
