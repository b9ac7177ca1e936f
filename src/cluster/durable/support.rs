//! Durable acknowledgements in an election: who supports a candidate of the shard, what the candidate shows, and what voters
//! ask for and pass on.

use std::collections::BTreeSet;

use super::{Confirmation, Message, Progress, Record, Shard};
use crate::cluster::election::CantFailover;
use crate::cluster::node::{NodeId, NodeKey};
use crate::cluster::{Cluster, Env};

impl Cluster {
    // ---- the shard ----

    pub(super) fn on_ask(&mut self, candidate: NodeKey, epoch: u64, progress: Progress, env: &Env) {
        let ours = Progress { lineage: self.durable.lineage, offset: env.repl_offset };
        let is_whole = !self.durable.is_incomplete && env.stream.is_some();
        let is_heir = self.nodes[candidate].replica_of == Some(self.myself);
        let may = if self.is_master() {
            // It has stopped writing for this replica, which has everything.
            is_heir && self.hands_over_to(candidate) && is_whole && progress.offset == env.repl_offset
        } else {
            // Whether it counts is for the voters to say, by the record that they have.
            self.is_sibling(candidate) && is_whole && progress >= ours
        };
        let me = self.nodes[candidate].id;
        let shard = self.my_shard_mut();
        let is_new = epoch > shard.promised;
        if !may || !(is_new || (epoch == shard.promised && shard.promised_to == Some(me))) {
            if epoch == shard.promised {
                self.note_rival(epoch);
            }
            return;
        }
        if is_new && is_heir {
            // It has confirmed everything so far by asking.
            self.count_heir(me, env);
        }
        let shard = self.my_shard_mut();
        if is_new {
            (shard.promised, shard.promised_to) = (epoch, Some(me));
            self.save_to_tell();
            self.yield_election(env);
        }
        log::info!("Supporting {} in the election of epoch {epoch}", self.nodes[candidate].id);
        self.once_saved(|c| c.tell(candidate, &Message::Support { epoch }, env));
    }

    /// The replica that takes over has all that this master wrote, so that what waits for confirmation is as good as it can
    /// be: whoever is elected from now on has it, too.
    fn count_heir(&mut self, heir: NodeId, env: &Env) {
        if let Some(lead) = self.durable.lead {
            let confirmation = Confirmation { promised: 0, lineage: lead.lineage, offset: env.repl_offset };
            self.durable.confirmations.insert(heir, confirmation);
            self.advance_confirmed();
            self.durable.confirmations.remove(&heir);
        }
    }

    // ---- a candidate ----

    /// Whether this replica can vouch for its data, if its shard asks for that. In a manual failover it has what the master
    /// has.
    pub(in crate::cluster) fn may_stand(&self, env: &Env) -> Result<(), CantFailover> {
        let has_all = self.manual.has_master_offset() && env.master_link_up;
        let is_whole = !self.durable.is_incomplete && env.stream.is_some();
        if self.my_record().is_none_or(|record| record.copies == 0) || has_all || is_whole {
            return Ok(());
        }
        Err(CantFailover::DataIncomplete)
    }

    /// Whether votes may be asked for only with the support of the shard.
    pub(in crate::cluster) fn needs_support(&self) -> bool {
        self.my_record().map_or(self.config.durable_acks > 0, |record| record.copies > 0)
    }

    /// Begins to stand in the election of this epoch: from now on nothing is confirmed to our master.
    pub(in crate::cluster) fn stand(&mut self, epoch: u64) {
        let id = self.myself().id;
        let shard = self.my_shard_mut();
        (shard.promised, shard.promised_to) = (epoch, Some(id));
        self.save_to_tell();
    }

    /// Whether this node still stands in the election of that epoch.
    pub(in crate::cluster) fn stands_in(&self, epoch: u64) -> bool {
        let id = self.myself().id;
        self.my_shard().is_some_and(|shard| shard.promised == epoch && shard.promised_to == Some(id))
    }

    pub(in crate::cluster) fn ask_for_support(&mut self, epoch: u64, env: &Env) {
        let Some(master) = self.myself().replica_of else { return };
        let progress = Progress { lineage: self.durable.lineage, offset: env.repl_offset };
        let siblings = self.nodes[master].replicas.iter().copied().filter(|key| *key != self.myself);
        let asked: Vec<NodeKey> = siblings.chain([master]).collect();
        self.tell_all(&asked, &Message::Ask { epoch, progress }, env);
    }

    /// Whether so many support us that one of them, or we, must have whatever was acknowledged.
    pub(in crate::cluster) fn is_supported(&self, supporters: &BTreeSet<NodeId>) -> bool {
        let Some(record) = self.my_record() else { return true };
        let supporters: Vec<NodeId> = supporters.iter().copied().chain([self.myself().id]).collect();
        let master = self.myself().replica_of.map(|key| self.nodes[key].id);
        record.is_shown_by(&supporters, master)
    }

    /// How many supporters there are, and how many it takes.
    pub(in crate::cluster) fn support_count(&self, supporters: &BTreeSet<NodeId>) -> (usize, usize) {
        let needed = self.my_record().map_or(0, Record::supporters_needed);
        (supporters.len() + 1, needed)
    }

    pub(in crate::cluster) fn show_evidence(
        &mut self,
        to: &[NodeKey],
        epoch: u64,
        supporters: &BTreeSet<NodeId>,
        env: &Env,
    ) {
        let supporters = supporters.iter().copied().chain([self.myself().id]).collect();
        self.tell_all(to, &Message::Evidence { epoch, supporters }, env);
    }

    // ---- a voter ----

    /// Whether a candidate for the place of `master` has shown enough support to be voted for in this epoch.
    pub(in crate::cluster) fn check_evidence(
        &self,
        candidate: NodeKey,
        master: NodeKey,
        epoch: u64,
    ) -> Result<(), &'static str> {
        let Some(shard) = self.durable.shards.get(&self.nodes[master].shard_id) else { return Ok(()) };
        let Some(record) = shard.record.as_ref().filter(|record| record.copies > 0) else { return Ok(()) };
        let id = self.nodes[candidate].id;
        if epoch < shard.promised || (epoch == shard.promised && shard.promised_to != Some(id)) {
            return Err("its shard was promised to another candidate");
        }
        match self.durable.evidence.get(&id) {
            Some((of, supporters)) if *of == epoch && record.is_shown_by(supporters, shard.promised_to) => Ok(()),
            _ => Err("it has not shown that it has all acknowledged writes"),
        }
    }

    /// What this voter knows of all shards goes to whom it votes for: a new master takes the place of a voter that knew.
    pub(in crate::cluster) fn tell_known(&mut self, candidate: NodeKey, env: &Env) {
        for (shard, known) in self.durable.shards.clone() {
            let Shard { promised, promised_to, record } = known;
            self.tell(candidate, &Message::Known { shard, promised, promised_to, record }, env);
        }
    }

    /// Takes in what another voter knows of a shard.
    pub(super) fn on_known(&mut self, id: NodeId, promised: u64, promised_to: Option<NodeId>, record: Option<Record>) {
        if self.nodes.iter().all(|(_, n)| n.shard_id != id) {
            return;
        }
        let shard = self.durable.shards.entry(id).or_default();
        let before = shard.clone();
        if promised > shard.promised {
            (shard.promised, shard.promised_to) = (promised, promised_to);
        }
        let is_newer = |record: &Record| shard.record.as_ref().is_none_or(|known| known.order() < record.order());
        if let Some(record) = record.filter(is_newer) {
            shard.take_in_record(record);
        }
        if *shard != before {
            self.save_claims();
        }
    }

    /// A vote for a candidate for the place of `master`: nothing of that is accepted any more.
    pub(in crate::cluster) fn note_durable_vote(&mut self, candidate: NodeKey, master: NodeKey, epoch: u64) {
        let (candidate, shard) = (self.nodes[candidate].id, self.nodes[master].shard_id);
        if let Some(shard) = self.durable.shards.get_mut(&shard) {
            (shard.promised, shard.promised_to) = (epoch, Some(candidate));
        }
    }
}
