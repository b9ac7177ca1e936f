//! Durable acknowledgements: what a master of a shard may say is written, and who may take its place, so that no
//! failover loses what was acknowledged. The argument for its safety is `docs/DURABILITY.md`.
//!
//! # The rule
//!
//! - The replicas that count are a [`Record`]: its members, and in how many of them (`copies`) a write has to be
//!   before it is acknowledged. A master changes it by proposing the next version; it stands when a majority of the
//!   masters with slots have it on disk. Until then writes have to satisfy the old and the new one, and a new one is
//!   told to others only when as many of its members as it asks for have all that was acknowledged.
//! - Who writes a stream, and since when, is a [`Lineage`]. A replica's data is as good as its [`Progress`]: the lineage
//!   it followed last, and how far.
//! - A candidate asks its shard for support before it asks for votes. A member supports it unless its own progress is
//!   greater, and promises, on disk, to confirm nothing more to a master of an earlier epoch. A candidate needs the
//!   support of so many members that one of them has whatever was acknowledged: `members - copies + 1`. The support of
//!   the master itself is enough, too: it gives it when it has stopped writing and the candidate has all.
//! - A voter that knows the record votes only for a candidate with that support.
//!
//! Nothing here rests on clocks: a lease (see `lease`) is what keeps reads fresh, promises are what keeps data.
//!
//! Owns the records and promises, and how far writes are confirmed. Who supports and elects whom is in `support`, what is
//! said in `message`, what is on disk in `conf`. Holding replies back is the server's (`server/persist/gate.rs`).

mod conf;
mod message;
mod support;

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Node, NodeId, NodeKey};
use super::{Cluster, Env};
use crate::structs::crc64::crc64;
pub(super) use message::{MODULE_ID, Message};

/// Messages that were not answered are sent again after this.
const REPEAT_MS: i64 = 500;
/// A member that is gone for so long, or for half the node timeout, does not count any more.
const GONE_MS: i64 = 500;
/// Nothing is confirmed, not even that there is nothing.
const NOTHING: i64 = -1;
/// So many records may be told of and not stand yet.
const MOST_PROPOSALS: usize = 8;
/// A replica that is asked to has this long for it, besides three node timeouts.
const CHOSEN_MS: i64 = 5000;
/// A master that cannot go on asks a replica to take its place this often.
const TAKE_OVER_MS: i64 = 1000;

/// A stream of writes: the epoch by which its writer became master, and a number for each time it had to begin anew.
/// The greater one holds all that was acknowledged in lesser ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lineage {
    pub(crate) epoch: u64,
    pub(crate) run: u64,
}

/// A lineage, and the replication offset at which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lead {
    lineage: Lineage,
    start: i64,
    /// The id of the replication stream that this is an offset of.
    stream: [u8; 40],
}

/// How good a node's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Progress {
    lineage: Lineage,
    offset: i64,
}

/// Which replicas of a shard count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// The master that proposed it, which has all that was acknowledged while it stands.
    owner: NodeId,
    /// What that master writes.
    lineage: Lineage,
    version: u64,
    /// In how many of them a write has to be before it is acknowledged; 0: acknowledgements do not wait.
    copies: u32,
    members: Vec<NodeId>,
}

impl Record {
    fn order(&self) -> (Lineage, u64) {
        (self.lineage, self.version)
    }

    fn is_member(&self, id: NodeId) -> bool {
        self.members.contains(&id)
    }

    /// Whether this node may have all that was acknowledged.
    fn may_stand(&self, id: NodeId) -> bool {
        self.owner == id || self.is_member(id)
    }

    /// Whether one of these nodes must have all that was acknowledged. `elected`: the master that was elected last.
    fn is_shown_by(&self, supporters: &[NodeId], elected: Option<NodeId>) -> bool {
        supporters.contains(&self.owner)
            || elected.is_some_and(|elected| supporters.contains(&elected))
            || self.supporters(supporters) >= self.supporters_needed()
    }

    /// How many members a candidate needs, itself included.
    fn supporters_needed(&self) -> usize {
        (self.members.len() + 1).saturating_sub(self.copies as usize)
    }

    fn supporters(&self, among: &[NodeId]) -> usize {
        self.members.iter().filter(|id| among.contains(id)).count()
    }
}

/// What is known of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shard {
    /// The greatest epoch of an election in which we supported a candidate or voted for it.
    promised: u64,
    /// Whom that was, if it has shown by the record here that it has all that was acknowledged, as its owner has. In our own
    /// shard, where we have no vote: whom we support.
    promised_to: Option<NodeId>,
    record: Option<Record>,
}

impl Shard {
    /// Who proposes a record was elected, or was master all the time: no lesser election counts any more, nor does whoever we
    /// voted for in the same one.
    fn take_in_record(&mut self, record: Record) {
        if record.lineage.epoch >= self.promised {
            (self.promised, self.promised_to) = (record.lineage.epoch, Some(record.owner));
        }
        self.record = Some(record);
    }

    /// Takes in what another voter knows. What was shown to one by an older record is not shown by a newer one: the promise
    /// binds us, but whom it was made to has to show anew what it has. Not so in our own shard (`is_mine`), where we have no vote.
    fn take_in(&mut self, promised: u64, promised_to: Option<NodeId>, record: Option<Record>, is_mine: bool) {
        let order = |record: &Option<Record>| record.as_ref().map(Record::order);
        let (ours, theirs) = (order(&self.record), order(&record));
        let was = (self.promised, self.promised_to);
        let (is_greater, is_same) = (promised > self.promised, (promised, promised_to) == was);
        if is_greater {
            (self.promised, self.promised_to) = (promised, promised_to);
        }
        let shown_by = if is_greater { theirs } else { ours };
        if !is_mine && !is_same && shown_by < ours.max(theirs) {
            self.promised_to = None;
        }
        if let Some(record) = record.filter(|_| theirs > ours) {
            self.take_in_record(record);
        }
    }
}

/// What a replica has, as it says with its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Confirmation {
    /// The greatest epoch of an election in which it supported somebody: it confirms nothing to an earlier master.
    pub(crate) promised: u64,
    pub(crate) lineage: Lineage,
    pub(crate) offset: i64,
}

/// A record that was told to others.
#[derive(Clone, Debug)]
struct Proposal {
    record: Record,
    /// It is told to others when its members have enough.
    is_told: bool,
    told_ms: i64,
    first_told_ms: i64,
    /// Who has it on disk, ourselves included, and for replicas of whom each had voted by then, as far as the end is not known.
    accepted: BTreeMap<NodeId, Vec<NodeId>>,
    /// The number of the change by which it is on our own disk.
    change: u64,
    /// A majority of the voters has it. Looked at every tick and when one accepts: acknowledgements are too many for that.
    stands: bool,
}

impl Proposal {
    /// It should have been accepted long ago.
    fn is_old(&self, now_ms: i64) -> bool {
        now_ms - self.first_told_ms > 6 * REPEAT_MS
    }
}

/// Why a master does not accept writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Which replicas count is not agreed on yet.
    NotAgreed,
    /// Too few replicas confirm.
    TooFewReplicas,
    /// A replica has begun to take our place.
    Promised,
    /// We may have lost what was acknowledged.
    Incomplete,
}

impl Refusal {
    /// The word that CLUSTER INFO has for it.
    fn word(self) -> &'static str {
        match self {
            Refusal::NotAgreed => "not_agreed",
            Refusal::TooFewReplicas => "too_few_replicas",
            Refusal::Promised => "being_replaced",
            Refusal::Incomplete => "data_incomplete",
        }
    }
}

/// All that a node keeps for this.
#[derive(Clone, Debug, Default)]
pub(super) struct Durable {
    shards: BTreeMap<NodeId, Shard>,
    /// What our data belongs to.
    lineage: Lineage,
    /// Our data may lack what was acknowledged, or we do not know.
    is_incomplete: bool,
    /// On disk is a log that has all of it, and is synced before anything is acknowledged.
    is_logged: bool,
    /// A master's own lineage.
    lead: Option<Lead>,
    lead_told_ms: i64,
    proposals: Vec<Proposal>,
    confirmations: BTreeMap<NodeId, Confirmation>,
    /// The greatest epoch in which a replica of ours has promised itself.
    promised_by_replicas: u64,
    /// Members that do not confirm, and since when.
    gone: BTreeMap<NodeId, i64>,
    /// Everything up to here was confirmed.
    confirmed: i64,
    /// This master was a member of a record that asks for one copy: no election goes past it.
    has_first_word: bool,
    /// Nothing was confirmed for long, though something was to be.
    is_stalled: bool,
    asked_to_take_over_ms: i64,
    /// How often another replica was chosen for that, and when the one that is was chosen; 0: none is.
    take_overs: usize,
    chosen_ms: i64,
    /// A replica's master, and what that said of its lineage.
    follows: Option<(NodeKey, Lead)>,
    /// The replication link may still be the one to another master.
    is_relinking: bool,
    /// The lineage of the data that is on disk.
    saved: Lineage,
    /// The latest evidence of candidates.
    evidence: BTreeMap<NodeId, (u64, Vec<NodeId>)>,
    /// What voters know of our shard, as far as they have told since we stand.
    voters_know: BTreeMap<NodeId, Option<Record>>,
}

impl Cluster {
    // ---- what the server asks ----

    /// Whether acknowledgements of this master's writes wait for replicas.
    pub(crate) fn has_durable_acks(&self) -> bool {
        self.myself().is_voter() && (self.config.durable_acks > 0 || self.my_record().is_some_and(|r| r.copies > 0))
    }

    /// Up to which offset everything is confirmed.
    pub(crate) fn confirmed_offset(&self) -> i64 {
        self.durable.confirmed
    }

    /// Whether a write may be accepted now, as far as it can be confirmed.
    pub(crate) fn check_confirmable(&self) -> Result<(), Refusal> {
        if !self.has_durable_acks() {
            return Ok(());
        }
        if self.durable.is_incomplete {
            return Err(Refusal::Incomplete);
        }
        let Some(lead) = self.durable.lead else { return Err(Refusal::NotAgreed) };
        if self.my_promise() > lead.lineage.epoch {
            return Err(Refusal::Promised);
        }
        let told = || self.durable.proposals.iter().filter(|p| p.is_told);
        let standing = told().find(|p| p.stands);
        if standing.is_none_or(|p| p.record.copies < self.config.durable_acks) {
            return Err(Refusal::NotAgreed);
        }
        let enough = |record: &Record| self.confirming(record).count() >= record.copies as usize;
        if told().all(|p| enough(&p.record)) && !self.durable.is_stalled {
            Ok(())
        } else {
            Err(Refusal::TooFewReplicas)
        }
    }

    /// What this replica is to say with its acknowledgement. `None` if it cannot vouch for its data: the lineage of that has
    /// to be on disk. A promise counts from when it is made, as the support that goes with it tells of what we had then.
    pub(crate) fn confirmation(&self, offset: i64) -> Option<Confirmation> {
        let (_, lead) = self.durable.follows?;
        let (promised, lineage) = (self.my_promise(), self.durable.saved);
        let may = self.is_replica() && !self.durable.is_incomplete && !self.durable.is_relinking;
        (may && lineage == lead.lineage).then_some(Confirmation { promised, lineage, offset })
    }

    /// A replica has confirmed.
    pub(crate) fn on_confirmation(&mut self, id: NodeId, confirmation: Confirmation, env: &Env) {
        let Some(lead) = self.durable.lead.filter(|_| self.is_master()) else { return };
        if self.nodes.find(&id).is_none_or(|key| self.nodes[key].replica_of != Some(self.myself)) {
            return;
        }
        if confirmation.lineage != lead.lineage || confirmation.offset > env.repl_offset {
            return;
        }
        if self.durable.confirmations.insert(id, confirmation).is_none() {
            self.wake_at(env.now_ms);
        }
        self.durable.gone.remove(&id);
        self.advance_proposals(env);
    }

    /// A replica's link is gone: it confirms nothing until it says so anew.
    pub(crate) fn on_confirmer_gone(&mut self, id: NodeId, env: &Env) {
        if self.durable.confirmations.remove(&id).is_some() {
            self.durable.gone.insert(id, env.now_ms);
            self.wake_at(env.now_ms + self.gone_after_ms());
        }
    }

    /// Whether replicas must not take this node's data for that of its shard.
    pub(crate) fn lacks_data(&self) -> bool {
        self.durable.is_incomplete && self.is_master() && self.has_durable_acks()
    }

    /// Whether what was executed long ago is not confirmed yet, so that more would only wait as well.
    pub(crate) fn set_stalled(&mut self, is_stalled: bool) {
        self.durable.is_stalled = is_stalled;
    }

    /// The data set is about to be replaced by another one.
    pub(crate) fn on_data_replaced(&mut self) {
        self.durable.is_incomplete = true;
    }

    /// The data set was loaded at start. From a log (`from_log`) that had everything before, it has everything.
    pub(crate) fn on_data_loaded(&mut self, from_log: bool) {
        if from_log && self.durable.is_logged && self.is_master() {
            self.durable.is_incomplete = false;
        }
    }

    /// Whether all data is in a log on disk, which is synced before anything is acknowledged.
    pub(crate) fn set_logged(&mut self, is_logged: bool) {
        if self.durable.is_logged != is_logged {
            self.durable.is_logged = is_logged;
            if self.is_durable_known() {
                self.save_synced();
            }
        }
    }

    /// Whether this master has taken over data of which it is not known yet whether enough replicas have it.
    pub(crate) fn inherits_unconfirmed(&self) -> bool {
        self.durable.lead.is_none_or(|lead| self.durable.confirmed < lead.start)
    }

    /// CLUSTER INFO's lines about it; none if this is not used here.
    pub(super) fn describe_durable(&self) -> String {
        let record = self.my_record();
        if self.config.durable_acks == 0 && record.is_none() {
            return String::new();
        }
        let state = match self.check_confirmable() {
            Ok(()) if self.has_durable_acks() => "ok",
            Ok(()) => "off",
            Err(refusal) => refusal.word(),
        };
        let record = record.map_or((0, 0), |r| (r.copies, r.members.len()));
        format!(
            "cluster_durable_acks:{}\r\ncluster_durable_members:{}\r\ncluster_durable_state:{state}\r\n",
            record.0, record.1
        )
    }

    // ---- the shard ----

    fn my_shard(&self) -> Option<&Shard> {
        self.durable.shards.get(&self.myself().shard_id)
    }

    fn my_shard_mut(&mut self) -> &mut Shard {
        let id = self.myself().shard_id;
        self.durable.shards.entry(id).or_default()
    }

    fn my_record(&self) -> Option<&Record> {
        self.my_shard()?.record.as_ref()
    }

    /// The replicas that count, as agreed on by all that was proposed; for simulations.
    #[cfg(test)]
    pub(super) fn members_that_count(&self) -> Option<Vec<NodeId>> {
        let told = || self.durable.proposals.iter().filter(|p| p.is_told);
        told().any(|p| p.stands).then(|| told().flat_map(|p| p.record.members.clone()).collect())
    }

    /// What an election depends on, for simulations.
    #[cfg(test)]
    pub(super) fn describe_support(&self) -> String {
        let Durable { lineage, is_incomplete, .. } = self.durable;
        format!("{lineage:?}, incomplete {is_incomplete}, {:?}, supported by {:?}", self.my_shard(), self.supporters())
    }

    fn my_promise(&self) -> u64 {
        self.my_shard().map_or(0, |shard| shard.promised)
    }

    /// Whether this replica counts, so that it must not leave its shard by itself.
    pub(super) fn is_counted(&self) -> bool {
        let id = self.myself().id;
        self.my_record().is_some_and(|record| record.copies > 0 && record.may_stand(id))
    }

    /// In how many replicas writes of our shard have to be before they are acknowledged.
    pub(super) fn copies_wanted(&self) -> usize {
        self.my_record().map_or(0, |record| record.copies).max(self.config.durable_acks) as usize
    }

    pub(super) fn tell(&mut self, to: NodeKey, message: &Message, env: &Env) {
        self.tell_all(&[to], message, env);
    }

    pub(super) fn tell_all(&mut self, to: &[NodeKey], message: &Message, env: &Env) {
        self.send_module(to, MODULE_ID, message.encode(), env);
    }

    pub(super) fn on_durable_message(&mut self, sender: NodeKey, message: Message, env: &Env) {
        match message {
            Message::Lead(lead) => self.on_lead(sender, lead, env),
            Message::Ask { epoch, progress } => self.on_ask(sender, epoch, progress, env),
            Message::Support { epoch } => self.on_support(sender, epoch),
            Message::Evidence { epoch, supporters } => {
                self.durable.evidence.insert(self.nodes[sender].id, (epoch, supporters));
            }
            Message::Propose { shard, record } => self.on_propose(sender, shard, record, env),
            Message::Accepted { lineage, version, voters, voted } => {
                self.on_accepted(sender, (lineage, version), (voters, voted), env);
            }
            Message::Known { shard, promised, promised_to, record } => {
                self.on_known(sender, shard, promised, promised_to, record);
            }
            Message::Promised { epoch } => {
                if self.nodes[sender].replica_of == Some(self.myself) {
                    self.durable.promised_by_replicas = self.durable.promised_by_replicas.max(epoch);
                }
            }
            Message::TakeOver { forced } => self.on_take_over(sender, forced, env),
            Message::Denied { epoch } => self.on_denied(sender, epoch),
            Message::Withdrawn { epoch } => self.on_withdrawn(sender, epoch, env),
        }
    }

    /// Every tick.
    pub(super) fn durable_tick(&mut self, env: &Env) {
        if self.is_replica() {
            self.follow_lead(env);
        } else if self.myself().is_voter() && (self.config.durable_acks > 0 || self.my_record().is_some()) {
            self.lead_shard(env);
        }
    }

    /// A node is forgotten, and so is its shard if it was the last of it.
    pub(super) fn forget_durable(&mut self, key: NodeKey) {
        let (id, shard) = (self.nodes[key].id, self.nodes[key].shard_id);
        self.durable.evidence.remove(&id);
        if self.nodes.iter().all(|(other, n)| other == key || n.shard_id != shard) {
            self.durable.shards.remove(&shard);
        }
        if self.durable.follows.is_some_and(|(master, _)| master == key) {
            self.durable.follows = None;
        }
    }

    /// Shards that no known node is of are gone.
    fn forget_unknown_shards(&mut self) {
        let known: BTreeSet<NodeId> = self.nodes.iter().map(|(_, n)| n.shard_id).collect();
        self.durable.shards.retain(|id, _| known.contains(id));
    }

    /// At the end of a turn.
    pub(super) fn durable_flushed(&mut self) {
        self.durable.is_relinking = false;
    }

    pub(super) fn data_lineage(&self) -> Lineage {
        self.durable.lineage
    }

    /// That is on disk now.
    pub(super) fn note_saved_lineage(&mut self, lineage: Lineage) {
        self.durable.saved = lineage;
    }

    // ---- the master ----

    fn lead_shard(&mut self, env: &Env) {
        if self.durable.is_incomplete && self.config.durable_acks > 0 {
            return self.ask_to_take_over(true, env);
        }
        if std::mem::take(&mut self.durable.is_incomplete) {
            log::warn!("Acknowledged writes may be lost: cluster-durable-acks is 0, so this node serves what it has.");
            self.todo.state = true;
        }
        let Some(stream) = env.stream else { return };
        let lead = self.durable.lead.filter(|lead| lead.stream == stream);
        let lead = lead.unwrap_or_else(|| self.begin_lineage(stream, env));
        if self.my_promise() > lead.lineage.epoch {
            return self.ask_to_take_over(false, env);
        }
        self.tell_lead(lead, env);
        self.note_standing();
        self.propose_as_due(lead, env);
        self.advance_proposals(env);
        // Some of our shard, or voters, have begun to replace us: they confirm nothing more to us, or accept no proposal.
        let replaced = match self.check_confirmable() {
            Err(Refusal::TooFewReplicas | Refusal::NotAgreed) if self.is_deserted(lead) => true,
            _ => self.durable.proposals.last().is_some_and(|p| p.is_told && !p.stands && p.is_old(env.now_ms)),
        };
        if replaced {
            self.ask_to_take_over(false, env);
        }
    }

    /// Whether a replica of ours has promised itself to another, as far as we have heard.
    fn is_deserted(&self, lead: Lead) -> bool {
        let confirmed = self.durable.confirmations.values().map(|c| c.promised).max();
        confirmed.max(Some(self.durable.promised_by_replicas)) > Some(lead.lineage.epoch)
    }

    /// A master that was not elected as one since it started takes a lineage that nobody has followed.
    fn begin_lineage(&mut self, stream: [u8; 40], env: &Env) -> Lead {
        let old = self.durable.lineage;
        let is_first = old == Lineage::default() && self.my_record().is_none();
        let epoch = if old.epoch == 0 { self.myself().epochs.config } else { old.epoch };
        let lineage = Lineage { epoch, run: old.run + 1 };
        let lead = Lead { lineage, start: env.repl_offset, stream };
        // Where every election takes our support, what we have is as safe as what was acknowledged: for nobody to be told of
        // it would do no good.
        let has_first_word = std::mem::take(&mut self.durable.has_first_word);
        self.durable.confirmed = if is_first || has_first_word { lead.start } else { NOTHING };
        self.durable.lineage = lineage;
        self.durable.lead = Some(lead);
        self.durable.lead_told_ms = 0;
        self.durable.confirmations.clear();
        self.durable.gone.clear();
        self.durable.proposals.clear();
        if self.is_durable_known() {
            self.save_to_tell();
        }
        lead
    }

    /// This replica is the master now, by the epoch it has taken.
    pub(super) fn lead_from_now(&mut self, env: &Env) {
        let id = self.myself().id;
        let has_first_word = self.my_record().is_some_and(|record| record.copies == 1 && record.is_member(id));
        let durable = &mut self.durable;
        (durable.is_incomplete, durable.follows, durable.lead) = (false, None, None);
        durable.has_first_word = has_first_word;
        durable.confirmed = if has_first_word { env.repl_offset } else { NOTHING };
        self.durable.lineage = Lineage { epoch: self.myself().epochs.config, run: 0 };
        // The stream gets its own id when the server knows.
        self.wake_at(env.now_ms);
    }

    /// This node follows a master now, of this shard or, if `is_other`, of another one.
    pub(super) fn stop_leading(&mut self, is_other: bool) {
        let durable = &mut self.durable;
        durable.lead = None;
        durable.follows = None;
        durable.is_relinking = true;
        durable.is_incomplete |= is_other;
        durable.proposals.clear();
        durable.confirmations.clear();
        durable.gone.clear();
        if is_other {
            self.leave_durable_shard();
        }
    }

    fn tell_lead(&mut self, lead: Lead, env: &Env) {
        let now = env.now_ms;
        if now - self.durable.lead_told_ms < REPEAT_MS.min(self.config.node_timeout_ms / 8) {
            return;
        }
        self.durable.lead_told_ms = now;
        let replicas = self.myself().replicas.iter().copied();
        let unaware = replicas.filter(|key| !self.durable.confirmations.contains_key(&self.nodes[*key].id));
        let unaware: Vec<NodeKey> = unaware.collect();
        // One that has restarted from what it had long ago may have confirmed more before than it has now: whatever that was,
        // we have it by now.
        let start = env.repl_offset.max(lead.start);
        self.once_saved(|c| c.tell_all(&unaware, &Message::Lead(Lead { start, ..lead }), env));
    }

    /// Who has promised itself beyond this epoch confirms nothing to us.
    fn my_epoch(&self) -> u64 {
        self.durable.lead.map_or(0, |lead| lead.lineage.epoch)
    }

    fn gone_after_ms(&self) -> i64 {
        GONE_MS.max(self.config.node_timeout_ms / 2)
    }

    /// The members that confirm and have not promised themselves to another.
    fn confirming<'a>(&'a self, record: &'a Record) -> impl Iterator<Item = &'a Confirmation> {
        let epoch = self.my_epoch();
        let confirmations = record.members.iter().filter_map(|id| self.durable.confirmations.get(id));
        confirmations.filter(move |c| c.promised <= epoch)
    }

    /// Up to which offset as many members as this record asks for have everything.
    fn confirmed_by(&self, record: &Record) -> i64 {
        let copies = record.copies as usize;
        if copies == 0 {
            return i64::MAX;
        }
        let mut offsets: Vec<i64> = self.confirming(record).map(|c| c.offset).collect();
        offsets.sort_unstable_by(|a, b| b.cmp(a));
        offsets.get(copies - 1).copied().unwrap_or(0)
    }

    /// The masters that claim slots as a number, to see whether another node knows of the same.
    fn voters_number(&self) -> u64 {
        let is_all_claimed = self.unclaimed.is_empty();
        let claims = |n: &Node| n.is_voter() && (is_all_claimed || !n.slots.without(&self.unclaimed).is_empty());
        self.nodes.iter().filter(|(_, n)| claims(n)).fold(0, |all, (_, n)| all ^ crc64(0, n.id.as_bytes()))
    }

    /// The masters whose places a replica may have taken by our vote: we do not know how the election ended.
    fn open_votes(&self) -> Vec<NodeId> {
        let voted =
            self.nodes.iter().filter(|(key, n)| n.is_voter() && n.voted_for.is_some() && self.vote_is_open(*key));
        voted.map(|(_, n)| n.id).collect()
    }

    /// Looks which proposals a majority of the voters has, ourselves included. What stands replaces what was before it. A voter does
    /// not count together with one that may have helped to replace it before it accepted the record, as whoever did so was told
    /// nothing of that.
    fn note_standing(&mut self) {
        if self.durable.proposals.is_empty() {
            return;
        }
        let (needed, me) = (self.quorum(), self.myself().id);
        let voters = self.nodes.iter().filter(|(key, n)| *key != self.myself && n.is_voter());
        let voters: Vec<NodeId> = voters.map(|(_, n)| n.id).collect();
        let open = self.open_votes();
        for proposal in &mut self.durable.proposals {
            if let Some(voted) = proposal.accepted.get_mut(&me) {
                voted.retain(|id| open.contains(id));
            }
            let lists = voters.iter().chain([&me]).filter_map(|id| proposal.accepted.get(id));
            let replaced: Vec<&NodeId> = lists.flatten().collect();
            let counts = |id: &&NodeId| proposal.accepted.contains_key(id) && !replaced.contains(id);
            let accepted = voters.iter().filter(counts).count();
            proposal.stands = proposal.is_told && self.saving.has(proposal.change) && accepted + 1 >= needed;
        }
        if let Some(at) = self.durable.proposals.iter().rposition(|p| p.stands) {
            self.durable.proposals.drain(..at);
        }
    }

    /// Proposes another record if the one that was proposed last is not what it should be.
    fn propose_as_due(&mut self, lead: Lead, env: &Env) {
        let copies = self.config.durable_acks;
        let Some(members) = self.members_wanted(copies, env) else { return };
        let last = self.durable.proposals.last();
        if last.is_some_and(|p| p.record.copies == copies && p.record.members == members) {
            return;
        }
        if last.is_some_and(|p| p.is_told && !p.stands && env.now_ms - p.told_ms < REPEAT_MS) {
            return; // One after the other, if that is possible.
        }
        self.durable.proposals.retain(|p| p.is_told);
        if self.durable.proposals.len() >= MOST_PROPOSALS {
            return;
        }
        let newest = self.durable.proposals.iter().map(|p| p.record.version).max();
        let version = newest.max(self.my_record().map(|r| r.version)).unwrap_or(0) + 1;
        let record = Record { owner: self.myself().id, lineage: lead.lineage, version, copies, members };
        self.durable.proposals.push(Proposal {
            record,
            is_told: false,
            told_ms: 0,
            first_told_ms: env.now_ms,
            accepted: BTreeMap::new(),
            change: 0,
            stands: false,
        });
    }

    /// Which replicas should count: those that confirm, and those that did a moment ago; `None` if there are too few for
    /// any change.
    fn members_wanted(&self, copies: u32, env: &Env) -> Option<Vec<NodeId>> {
        if copies == 0 {
            return Some(Vec::new());
        }
        let epoch = self.my_epoch();
        let is_mine = |id: &NodeId| {
            let key = self.nodes.find(id);
            key.is_some_and(|key| self.nodes[key].replica_of == Some(self.myself) && !self.nodes[key].failed())
        };
        let confirming = self.durable.confirmations.iter().filter(|(_, c)| c.promised <= epoch).map(|(id, _)| *id);
        let last = self.durable.proposals.last().map_or(&[][..], |p| &p.record.members);
        let is_back_soon = |id: &NodeId| {
            let since = self.durable.gone.get(id);
            since.is_some_and(|since| env.now_ms - since < self.gone_after_ms())
                || self.durable.confirmations.contains_key(id)
        };
        let missed = last.iter().filter(|id| is_back_soon(id)).copied();
        let wanted: BTreeSet<NodeId> = confirming.chain(missed).filter(is_mine).collect();
        (wanted.len() >= copies as usize).then(|| wanted.into_iter().collect())
    }

    /// Tells others of the proposals whose members have enough, and takes note of how far writes are confirmed.
    fn advance_proposals(&mut self, env: &Env) {
        let Some(lead) = self.durable.lead else { return };
        if self.my_promise() > lead.lineage.epoch || self.durable.is_incomplete {
            return;
        }
        self.advance_confirmed();
        let floor = self.durable.confirmed.max(lead.start);
        if let Some(at) = self.durable.proposals.iter().position(|p| !p.is_told)
            && self.confirmed_by(&self.durable.proposals[at].record) >= floor
        {
            self.durable.proposals[at].is_told = true;
            self.durable.proposals[at].first_told_ms = env.now_ms;
            let record = self.durable.proposals[at].record.clone();
            // We are a voter, too.
            let (me, voted) = (self.myself().id, self.open_votes());
            self.durable.proposals[at].accepted.insert(me, voted);
            self.my_shard_mut().take_in_record(record);
            self.durable.proposals[at].change = self.save_to_tell();
            self.note_standing();
            self.advance_confirmed();
        }
        self.tell_proposal(env);
    }

    fn advance_confirmed(&mut self) {
        let told = || self.durable.proposals.iter().filter(|p| p.is_told);
        if told().any(|p| p.stands) {
            // Without a record that asks for copies nothing is confirmed.
            let all = told().map(|p| self.confirmed_by(&p.record)).min().filter(|all| *all < i64::MAX);
            self.durable.confirmed = self.durable.confirmed.max(all.unwrap_or(0));
        }
    }

    /// Tells the newest proposal to all who have not accepted it, or may not count with others, again and again.
    fn tell_proposal(&mut self, env: &Env) {
        let Some(newest) = self.durable.proposals.iter_mut().rfind(|p| p.is_told) else { return };
        if env.now_ms - newest.told_ms < REPEAT_MS {
            return;
        }
        newest.told_ms = env.now_ms;
        let (record, accepted) = (newest.record.clone(), newest.accepted.clone());
        let others = self.nodes.iter().filter(|(key, n)| *key != self.myself && !n.in_handshake() && !n.failed());
        let is_done = |n: &Node| accepted.get(&n.id).is_some_and(Vec::is_empty);
        let others: Vec<NodeKey> = others.filter(|(_, n)| !is_done(n)).map(|(key, _)| key).collect();
        let message = Message::Propose { shard: self.myself().shard_id, record };
        self.once_saved(|c| c.tell_all(&others, &message, env));
    }

    /// A voter that knows of other voters than we do does not count, and is asked again: it may have helped to replace one whom we
    /// count, which it knows and we do not.
    fn on_accepted(&mut self, sender: NodeKey, order: (Lineage, u64), (voters, voted): (u64, Vec<NodeId>), env: &Env) {
        let id = self.nodes[sender].id;
        if voters != self.voters_number() {
            return;
        }
        if let Some(proposal) = self.durable.proposals.iter_mut().find(|p| p.record.order() == order) {
            proposal.accepted.insert(id, voted);
        }
        self.note_standing();
        self.advance_proposals(env);
    }

    /// We cannot go on. `forced`: we do not have all that was acknowledged, or do not know.
    fn ask_to_take_over(&mut self, forced: bool, env: &Env) {
        if env.now_ms - self.durable.asked_to_take_over_ms < TAKE_OVER_MS || self.manual.in_progress() {
            return;
        }
        self.durable.asked_to_take_over_ms = env.now_ms;
        let mut replicas: Vec<NodeKey> = self.myself().replicas.clone();
        replicas.retain(|key| {
            let n = &self.nodes[*key];
            n.healthy() && (!forced || self.my_record().is_none_or(|record| record.may_stand(n.id)))
        });
        replicas.sort_by_key(|key| std::cmp::Reverse(self.nodes[*key].repl_offset));
        if replicas.is_empty() {
            return;
        }
        // The best may not be able to: each has time for an election.
        if env.now_ms - self.durable.chosen_ms > CHOSEN_MS + 3 * self.config.node_timeout_ms {
            self.durable.take_overs += usize::from(self.durable.chosen_ms != 0);
            self.durable.chosen_ms = env.now_ms;
        }
        let chosen = replicas[self.durable.take_overs % replicas.len()];
        log::info!(
            "Asking replica {} to take over: {}",
            self.nodes[chosen].id,
            if forced { "this node may lack acknowledged writes." } else { "a failover has begun already." }
        );
        self.tell(chosen, &Message::TakeOver { forced }, env);
    }

    // ---- a member ----

    fn on_lead(&mut self, sender: NodeKey, lead: Lead, env: &Env) {
        if self.myself().replica_of == Some(sender) {
            // What was told first is enough, and one that is behind is not to run after what is written meanwhile.
            let is_known = |(master, known): (NodeKey, Lead)| {
                master == sender && (known.lineage, known.stream) == (lead.lineage, lead.stream)
            };
            if !self.durable.follows.is_some_and(is_known) {
                self.durable.follows = Some((sender, lead));
            }
            self.follow_lead(env);
            let epoch = self.my_promise();
            if epoch > lead.lineage.epoch {
                self.tell(sender, &Message::Promised { epoch }, env);
            }
        }
    }

    /// Whether the data is of the lineage that our master writes, at last.
    fn follow_lead(&mut self, env: &Env) {
        let Some((master, lead)) = self.durable.follows else { return };
        let is_linked = env.master_link_up && !self.durable.is_relinking && self.myself().replica_of == Some(master);
        let is_beyond = env.stream == Some(lead.stream) && env.repl_offset >= lead.start;
        if !is_linked || self.my_promise() > lead.lineage.epoch || !is_beyond {
            return;
        }
        if self.durable.lineage != lead.lineage || self.durable.is_incomplete {
            self.durable.lineage = lead.lineage;
            self.durable.is_incomplete = false;
            self.save_to_tell();
        }
    }

    fn on_propose(&mut self, sender: NodeKey, shard: NodeId, record: Record, env: &Env) {
        // It tells again, so there is time to hear which shard it is of.
        if self.nodes[sender].shard_id != shard || self.nodes[sender].id != record.owner {
            return;
        }
        self.forget_unknown_shards();
        let known = self.durable.shards.entry(shard).or_default();
        if record.lineage.epoch < known.promised {
            return;
        }
        let (lineage, version) = record.order();
        let newest = known.record.as_ref().map(Record::order);
        if newest.is_some_and(|newest| newest > (lineage, version)) {
            return;
        }
        if newest != Some((lineage, version)) {
            known.take_in_record(record);
            self.save_to_tell();
        }
        // For whom we vote from now on we tell of the record as well.
        let (voters, voted) = (self.voters_number(), self.open_votes());
        self.once_saved(|c| c.tell(sender, &Message::Accepted { lineage, version, voters, voted }, env));
    }

    fn on_take_over(&mut self, sender: NodeKey, forced: bool, env: &Env) {
        if self.myself().replica_of == Some(sender) && !self.manual.in_progress() {
            log::info!("Our master asks to be replaced.");
            self.begin_manual_failover(forced, env);
        }
    }
}
