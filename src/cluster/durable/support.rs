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
        if self.is_of_other_shard(candidate) {
            return self.tell_record(candidate, env);
        }
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
        self.durable.voters_know.clear();
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

    /// Asks voters for the record that they know: ours may be an older one, whose members are gone.
    pub(in crate::cluster) fn ask_for_records(&mut self, epoch: u64, env: &Env) {
        let progress = Progress { lineage: self.durable.lineage, offset: env.repl_offset };
        let voters = self.nodes.iter().filter(|(key, n)| n.is_voter() && !n.failed() && self.is_of_other_shard(*key));
        let voters: Vec<NodeKey> = voters.map(|(key, _)| key).collect();
        self.tell_all(&voters, &Message::Ask { epoch, progress }, env);
    }

    /// Whether so many support us that one of them, or we, must have whatever was acknowledged, by the record that we know or by
    /// those of so many voters that they could elect us.
    pub(in crate::cluster) fn is_supported(&self, supporters: &BTreeSet<NodeId>) -> bool {
        let Some(record) = self.my_record() else { return true };
        let supporters: Vec<NodeId> = supporters.iter().copied().chain([self.myself().id]).collect();
        let master = self.myself().replica_of.map(|key| self.nodes[key].id);
        let is_convinced = |known: &Option<Record>| {
            known.as_ref().is_none_or(|record| record.copies == 0 || record.is_shown_by(&supporters, master))
        };
        let voters = self.nodes.iter().filter(|(_, n)| n.is_voter());
        let convinced = voters.filter(|(_, n)| self.durable.voters_know.get(&n.id).is_some_and(is_convinced)).count();
        record.is_shown_by(&supporters, master) || convinced >= self.quorum()
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

    fn is_of_other_shard(&self, key: NodeKey) -> bool {
        let master = self.nodes[key].replica_of.unwrap_or(key);
        self.nodes[master].shard_id != self.myself().shard_id
    }

    /// The record that this voter knows of a candidate's shard, or that it knows none. It promises nothing.
    fn tell_record(&mut self, candidate: NodeKey, env: &Env) {
        let Some(master) = self.nodes[candidate].replica_of.filter(|_| self.myself().is_voter()) else { return };
        let shard = self.nodes[master].shard_id;
        let record = self.durable.shards.get(&shard).and_then(|shard| shard.record.clone());
        self.tell(candidate, &Message::Known { shard, promised: 0, promised_to: None, record }, env);
    }

    /// Takes in what a voter knows of a shard.
    pub(super) fn on_known(
        &mut self,
        sender: NodeKey,
        id: NodeId,
        promised: u64,
        promised_to: Option<NodeId>,
        record: Option<Record>,
    ) {
        if self.nodes.iter().all(|(_, n)| n.shard_id != id) {
            return;
        }
        let is_mine = self.is_replica() && self.myself().shard_id == id;
        if is_mine {
            self.durable.voters_know.insert(self.nodes[sender].id, record.clone());
            self.todo.failover = true;
        }
        let shard = self.durable.shards.entry(id).or_default();
        let before = shard.clone();
        shard.take_in(promised, promised_to, record, is_mine);
        if *shard != before {
            self.save_claims();
        }
    }

    /// We leave our shard, and may have a vote about it some day: whoever we supported has shown to us alone that it has all that
    /// was acknowledged, which is enough for no vote.
    pub(in crate::cluster) fn leave_durable_shard(&mut self) {
        let id = self.myself().shard_id;
        if let Some(shard) = self.durable.shards.get_mut(&id) {
            shard.promised_to = None;
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Lead, Lineage, MODULE_ID, Proposal};
    use super::*;
    use crate::cluster::wire::{self, Body};
    use crate::cluster::{Action, ClusterConfig};

    /// Three masters, the first of which has two replicas.
    const IDS: [char; 5] = ['a', 'b', 'c', 'd', 'e'];

    fn id(of: char) -> NodeId {
        NodeId::parse(of.to_string().repeat(40).as_bytes()).unwrap()
    }

    /// What one of them knows.
    fn node(me: char) -> Cluster {
        let mut text = String::new();
        for (at, name) in IDS.into_iter().enumerate() {
            let (role, master) = if at < 3 { ("master", "-".into()) } else { ("slave", id('a').to_string()) };
            let (shard, myself) = (id(if at < 3 { name } else { 'a' }), if name == me { "myself," } else { "" });
            let slots = if at < 3 { format!("{at}") } else { String::new() };
            text += &format!(
                "{} 127.0.0.1:{at}@1{at},,shard-id={shard} {myself}{role} {master} 0 0 {} connected {slots}\n",
                id(name),
                at + 1
            );
        }
        Cluster::from_nodes_conf(ClusterConfig::default(), 1, 1_000_000, &text).unwrap()
    }

    fn record(owner: char, epoch: u64, version: u64, members: &[char]) -> Record {
        let members = members.iter().map(|name| id(*name)).collect();
        Record { owner: id(owner), lineage: Lineage { epoch, run: 1 }, version, copies: 1, members }
    }

    /// Whether this voter would vote for `d` in that epoch, supported by these.
    fn votes(voter: &mut Cluster, epoch: u64, supporters: &[char]) -> bool {
        let [candidate, master] = ['d', 'a'].map(|name| voter.nodes.find(&id(name)).unwrap());
        voter.durable.evidence.insert(id('d'), (epoch, supporters.iter().map(|name| id(*name)).collect()));
        voter.check_evidence(candidate, master, epoch).is_ok()
    }

    /// One voter knew the older record and voted for `d` by that; who takes the place of another voter hears of the newer one, too.
    #[test]
    fn what_was_shown_by_an_older_record_is_not_shown_by_a_newer_one() {
        let (older, newer) = (record('a', 1, 1, &['d']), record('a', 1, 2, &['d', 'e']));
        for (first, second, is_enough) in
            [(&older, &newer, false), (&newer, &older, false), (&newer, &newer, true), (&older, &older, true)]
        {
            for promise_first in [true, false] {
                let mut voter = node('b');
                let other = voter.nodes.find(&id('c')).unwrap();
                let mut tell = |promised: bool, record: &Record| {
                    let (promised, to) = if promised { (20, Some(id('d'))) } else { (1, Some(id('a'))) };
                    voter.on_known(other, id('a'), promised, to, Some(record.clone()));
                };
                tell(promise_first, first);
                tell(!promise_first, second);
                // Whoever promised itself by the newer record was shown by that.
                let shown_by = if promise_first { first } else { second };
                let is_enough = is_enough || shown_by.version == 2;
                assert_eq!(votes(&mut voter, 25, &['d']), is_enough, "{first:?} {second:?} {promise_first}");
                assert!(votes(&mut voter, 25, &['d', 'e']) && !votes(&mut voter, 19, &['d', 'e']));
            }
        }
    }

    #[test]
    fn who_lost_an_election_has_to_show_what_the_winner_s_record_asks_for() {
        let mut voter = node('b');
        let master = voter.nodes.find(&id('a')).unwrap();
        let [loser, winner] = ['d', 'e'].map(|name| voter.nodes.find(&id(name)).unwrap());
        voter.on_known(master, id('a'), 1, Some(id('a')), Some(record('a', 1, 1, &['d', 'e'])));
        voter.note_durable_vote(loser, master, 20);
        assert!(votes(&mut voter, 25, &['d']));
        voter.on_propose(winner, id('a'), record('e', 20, 1, &['a', 'd']), &Env::at(1_000_000));
        assert!(
            !votes(&mut voter, 25, &['d']) && votes(&mut voter, 25, &['d', 'a']) && votes(&mut voter, 25, &['d', 'e'])
        );
    }

    #[test]
    fn whom_a_replica_supported_has_shown_nothing_to_the_voter_that_it_becomes_elsewhere() {
        let mut c = node('e');
        let [master, other] = ['a', 'c'].map(|name| c.nodes.find(&id(name)).unwrap());
        c.on_known(master, id('a'), 1, Some(id('a')), Some(record('a', 1, 1, &['d', 'e'])));
        let shard = c.my_shard_mut();
        (shard.promised, shard.promised_to) = (20, Some(id('d')));
        assert!(votes(&mut c, 25, &['d']));
        c.set_master(other);
        assert!(!votes(&mut c, 25, &['d']) && votes(&mut c, 25, &['d', 'e']));
    }

    const NOW_MS: i64 = 1_000_000;

    /// What one of five masters knows, `a` to `c`, `g` and `h`. `d` and `e` are replicas of the first, and `f` of the third.
    fn one_of_five(me: char) -> Cluster {
        let masters = ['a', 'b', 'c', 'g', 'h'];
        let mut text = String::new();
        for (at, (name, of)) in
            masters.map(|name| (name, name)).into_iter().chain([('d', 'a'), ('e', 'a'), ('f', 'c')]).enumerate()
        {
            let (role, master) = if name == of { ("master", "-".into()) } else { ("slave", id(of).to_string()) };
            let (myself, slots) =
                (if name == me { "myself," } else { "" }, if name == of { at.to_string() } else { String::new() });
            text += &format!(
                "{} 127.0.0.1:{at}@1{at},,shard-id={} {myself}{role} {master} 0 0 {} connected {slots}\n",
                id(name),
                id(of),
                at + 1
            );
        }
        let mut c = Cluster::from_nodes_conf(ClusterConfig::default(), 1, NOW_MS, &text).unwrap();
        c.size = masters.len();
        let owner = c.nodes.find(&id('a')).unwrap();
        c.on_known(owner, id('a'), 1, Some(id('a')), Some(record('a', 1, 1, &['d'])));
        c
    }

    fn key_of(c: &Cluster, name: char) -> NodeKey {
        c.nodes.find(&id(name)).unwrap()
    }

    /// What this voter answers to a record of `a`, if it does, is heard there.
    fn accepts(voter: &mut Cluster, owner: &mut Cluster, record: &Record) {
        let (env, key) = (Env::at(NOW_MS), key_of(voter, 'a'));
        voter.connect(key, NOW_MS);
        voter.on_propose(key, id('a'), record.clone(), &env);
        let answers = voter.flush_and_save(&env).into_iter().filter_map(|action| match action {
            Action::Send { packet, .. } => match wire::decode(&packet).ok()?.body {
                Body::Module { module_id: MODULE_ID, kind, payload } => Message::decode(kind, payload),
                _ => None,
            },
            _ => None,
        });
        let sender = key_of(owner, voter.myself().id.as_bytes()[0].into());
        answers.for_each(|answer| owner.on_durable_message(sender, answer, &env));
    }

    /// Of the five `a` counts itself, `c`, whose place may be taken already, and `b`, who has voted for that. Whoever took it would
    /// know the older record alone, by which `d` has all that was acknowledged; so would the two others, and they would elect `d`.
    #[test]
    fn who_accepts_a_record_after_its_vote_about_a_voter_does_not_count_with_that_one() {
        let newer = record('a', 1, 2, &['d', 'e']);
        let proposed = || {
            let mut owner = one_of_five('a');
            owner.durable.lead = Some(Lead { lineage: newer.lineage, start: 0, stream: [b's'; 40] });
            owner.durable.proposals.push(Proposal {
                record: newer.clone(),
                is_told: true,
                told_ms: 0,
                first_told_ms: 0,
                accepted: BTreeMap::from([(id('a'), Vec::new())]),
                change: 0,
                stands: false,
            });
            owner
        };
        let stands = |owner: &Cluster| owner.durable.proposals[0].stands;
        let has_newer = |c: &Cluster| c.durable.shards[&id('a')].record.as_ref() == Some(&newer);

        // It accepts before it votes, and tells of the record with its vote.
        let (mut owner, mut voter, mut replaced) = (proposed(), one_of_five('b'), one_of_five('c'));
        accepts(&mut replaced, &mut owner, &newer);
        accepts(&mut voter, &mut owner, &newer);
        assert!(stands(&owner));

        // It votes before.
        let (mut owner, mut voter) = (proposed(), one_of_five('b'));
        let [heir, master] = ['f', 'c'].map(|name| key_of(&voter, name));
        let node = &mut voter.nodes[master];
        (node.voted_for, node.voted_ms, node.voted_epoch) = (Some(id('f')), NOW_MS, 10);
        assert!(!has_newer(&voter), "what it tells with its vote");
        accepts(&mut replaced, &mut owner, &newer);
        accepts(&mut voter, &mut owner, &newer);
        assert!(has_newer(&voter) && !stands(&owner));
        // The election came to nothing.
        voter.nodes[heir].data_received_ms = NOW_MS + voter.election_lasts_ms() + 1;
        accepts(&mut voter, &mut owner, &newer);
        assert!(stands(&owner));

        // It was won, as the voter hears, but not the owner of the record.
        let mut owner = proposed();
        let slots = voter.nodes[master].slots.clone();
        voter.take_in_owner(heir, crate::cluster::node::Epochs::agreed_on(10), &slots, &Env::at(NOW_MS));
        accepts(&mut replaced, &mut owner, &newer);
        accepts(&mut voter, &mut owner, &newer);
        assert!(!stands(&owner));
        let heir = key_of(&owner, 'f');
        owner.take_in_owner(heir, crate::cluster::node::Epochs::agreed_on(10), &slots, &Env::at(NOW_MS));
        accepts(&mut voter, &mut owner, &newer);
        assert!(!stands(&owner), "the one that was replaced is no voter");
    }
}
