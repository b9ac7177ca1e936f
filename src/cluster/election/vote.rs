//! What a master does with a replica's request for its vote: whether it gives it, and what it remembers of that.

use super::super::node::{NodeFlags, NodeKey};
use super::super::wire::{Body, Header, MFLAG_FORCE_ACK, MFLAG_NO_LEASE};
use super::super::{Cluster, Env};

/// How many votes a master remembers besides the greatest epoch.
pub(super) const REMEMBERED_VOTES: usize = 4096;
/// How long a master that holds clients back, or reaches few others, leaves it to the others to vote about its own place; and for how
/// many elections one that waits to be replaced for another reason does.
pub(super) const OTHERS_VOTE_MS: i64 = 50;
const OTHERS_ELECTIONS: i64 = 2;

impl Cluster {
    pub(in crate::cluster) fn on_vote_request(&mut self, candidate: NodeKey, header: &Header, env: &Env) {
        let epoch = header.current_epoch;
        self.note_request(candidate, header, env);
        // Only masters with slots have a vote.
        if !self.myself().is_voter() {
            return;
        }
        let node = &self.nodes[candidate];
        let who = format!("{} ({})", node.id, node.human_name);
        match self.check_vote_request(candidate, header, env) {
            Err(why) => {
                log::warn!("Failover auth denied to {who}: {why}");
                self.tell_if_promised_to_sibling(candidate, epoch, env);
            }
            Ok(master) => {
                self.grant_vote(candidate, master, epoch, env);
                log::info!("Failover auth granted to {who} for epoch {epoch}");
            }
        }
    }

    /// The master that the candidate may replace, or why it gets no vote.
    fn check_vote_request(&mut self, candidate: NodeKey, header: &Header, env: &Env) -> Result<NodeKey, String> {
        let (node, epoch) = (&self.nodes[candidate], header.current_epoch);
        if self.has_voted_in(epoch) {
            return Err(format!("already voted for epoch {epoch}"));
        }
        if node.is_master() {
            return Err("it is a master node".into());
        }
        let Some(master) = node.replica_of else { return Err("I don't know its master".into()) };
        let forced = header.mflags & MFLAG_FORCE_ACK != 0;
        // Who may have our place may vote as well.
        if !forced && self.vote_is_open(self.myself) {
            return Err("I have voted for who is to take my own place".into());
        }
        if master == self.myself && self.leaves_it_to_others(candidate, env) {
            return Err("there are others to vote about my own place".into());
        }
        if master == self.myself && !self.hands_over_to(candidate) && self.vote_is_open(master) {
            return Err("I have voted about my own place, and do not know how that ended".into());
        }
        let node = &self.nodes[candidate];
        if !self.nodes[master].failed() && !forced {
            return Err("its master is up".into());
        }
        if !forced && self.is_back(master, env) {
            return Err("its master answers again".into());
        }
        if !forced && self.is_refuted(master, env) {
            return Err("others hear of its master".into());
        }
        if let Some(left_ms) = self.promise_lasts_ms(master, env).filter(|_| !forced) {
            return Err(format!("its master may serve for {left_ms} milliseconds more"));
        }
        let may_vote = if master == self.myself { self.holds_lease(env.now_ms) } else { forced || self.may_vote(env) };
        if !may_vote {
            return Err("I may have been replaced myself, or have only just been elected".into());
        }
        // The same replica may ask again in a newer epoch: it gets at most one vote of ours in each.
        let left_ms = self.config.node_timeout_ms * 2 - (env.now_ms - self.nodes[master].voted_ms);
        if left_ms > 0 && self.nodes[master].voted_for != Some(node.id) {
            return Err(format!("can't vote about this master before {left_ms} milliseconds"));
        }
        // A request that comes late: the election of the greater epoch may have been won.
        let voted_epoch = self.nodes[master].voted_epoch;
        if epoch <= voted_epoch {
            return Err(format!("voted about its master in epoch {voted_epoch} > ({epoch})"));
        }
        let newer = self.claimed_owners(&header.slots).find_map(|(slot, owner)| {
            let owned_by = self.nodes[owner].epochs.config;
            let is_newer = self.compare_claims(owner, candidate, header.epochs).is_gt();
            (is_newer || owned_by >= epoch).then_some((slot, owner, owned_by))
        });
        if let Some((slot, owner, owned_by)) = newer {
            // It may never hear that from the owner, which may be its master.
            self.send_update(candidate, owner, env);
            return Err(format!(
                "slot {slot} epoch ({owned_by}) > reqEpoch ({}), or not less than that of the election ({epoch})",
                header.epochs.config
            ));
        }
        self.check_evidence(candidate, master, epoch)?;
        Ok(master)
    }

    /// Whether a replica of ours that asks for our vote is to wait for those of the others. With our own we are bound until we know
    /// how the election ended, and masters that all are to be replaced would wait for each other.
    fn leaves_it_to_others(&mut self, candidate: NodeKey, env: &Env) -> bool {
        let are_few = self.voters_reached() < self.quorum();
        let wait_ms = match (self.manual.paused, self.holds_all_clients() || are_few) {
            (true, true) => 0,
            (true, false) | (false, true) => OTHERS_VOTE_MS,
            (false, false) => self.election_ms() * OTHERS_ELECTIONS,
        };
        let (id, now_ms) = (self.nodes[candidate].id, env.now_ms);
        let is_over = |last_ms: i64| now_ms - last_ms > self.election_ms();
        let known = self.heir_asked.filter(|(asked, _, last_ms)| *asked == id && !is_over(*last_ms));
        let first_ms = known.map_or(now_ms, |(_, first_ms, _)| first_ms);
        self.heir_asked = Some((id, first_ms, now_ms));
        now_ms - first_ms < wait_ms
    }

    /// The vote is on disk before it leaves.
    fn grant_vote(&mut self, candidate: NodeKey, master: NodeKey, epoch: u64, env: &Env) {
        let is_leased = self.holds_lease(env.now_ms) && !self.vote_is_open(self.myself);
        self.note_vote(epoch);
        self.note_durable_vote(candidate, master, epoch);
        self.tell_known(candidate, env);
        self.nodes[master].voted_ms = env.now_ms;
        self.nodes[master].voted_for = Some(self.nodes[candidate].id);
        self.nodes[master].voted_epoch = epoch;
        self.note_doubtful(master);
        self.note_doubtful(candidate);
        if master == self.myself {
            self.lose_lease(env.now_ms);
        }
        self.nodes[candidate].promised_ms = env.now_ms;
        // Its request shows that it works, and a replica's failure is cleared at once.
        self.nodes[candidate].flags.clear(NodeFlags::PFAIL);
        if self.nodes[candidate].failed() {
            self.clear_failure_if_possible(candidate, true, env);
        }
        self.save_to_tell();
        // We may have no link yet to a candidate that has just come back, and a vote that does not arrive is lost for
        // the epoch. So it is answered on the link of its request then.
        let node = &self.nodes[candidate];
        if let Some(link) = node.link.or(node.inbound) {
            let mflags = if is_leased { 0 } else { MFLAG_NO_LEASE };
            let header = Header { current_epoch: epoch, ..self.header(mflags, env) };
            self.once_saved(|c| c.send_packet(&[link], &header, &Body::AuthAck));
        }
    }

    /// Whether we voted, or may have voted, in this epoch.
    pub(super) fn has_voted_in(&self, epoch: u64) -> bool {
        epoch <= self.last_vote_epoch && (epoch <= self.unknown_votes_until || self.voted_epochs.contains(&epoch))
    }

    pub(super) fn note_vote(&mut self, epoch: u64) {
        self.voted_epochs.insert(epoch);
        if self.voted_epochs.len() > REMEMBERED_VOTES
            && let Some(oldest) = self.voted_epochs.pop_first()
        {
            self.unknown_votes_until = self.unknown_votes_until.max(oldest);
        }
        self.last_vote_epoch = self.last_vote_epoch.max(epoch);
    }
}
