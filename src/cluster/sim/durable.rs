//! Data in a simulation: clients with unique writes, replication of them, and what was acknowledged.
//!
//! A node's data is the list of the writes it has, of which the replication offset is the number. A replica copies its
//! master's list over a link that breaks with a partition; one whose list is not the beginning of its master's gets the
//! whole, and has nothing while it does. A crash loses the list, unless all nodes keep theirs. At no time have more
//! copies of a shard been lost than acknowledged writes have beside the master's.

use super::super::Confirmation;
use super::written::{Log, Numbers, Write};
use super::*;

/// Nodes keep what they have over a crash as with `appendfsync always`, or lose it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Disk {
    Keeps,
    Loses,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Confirm {
    to: NodeNo,
    from: NodeNo,
    /// The link it was sent over.
    link: u64,
    offset: i64,
    promised: u64,
    lineage: (u64, u64),
}

pub(super) struct Data {
    /// The id of the stream that the offset is one of.
    pub(super) stream: [u8; 40],
    pub(super) writes: Log,
    /// Whether it follows its master's stream, over which link.
    pub(super) is_linked: bool,
    link: u64,
    /// How often its master had restarted when the link was made.
    master_run: u64,
    /// Until when it receives the whole data set.
    receives_until: Option<i64>,
    /// Until when nothing is copied, though the link is up.
    stalls_until: i64,
    /// Its data was lost and is not there again.
    pub(super) is_lost: bool,
    pub(super) keeps: bool,
    /// As a master: how many of its writes were acknowledged, and since when a replica's link is gone, until that is noticed.
    acknowledged: usize,
    /// How many it had when it became master, went on as one, or was given what another one had in a slot.
    pub(super) inherited: usize,
    gone: BTreeMap<NodeNo, Option<i64>>,
    /// The link of each replica that it knows of.
    links: BTreeMap<NodeNo, u64>,
}

impl Default for Data {
    fn default() -> Data {
        Data {
            stream: [b'0'; 40],
            writes: Log::default(),
            is_linked: false,
            link: 0,
            master_run: 0,
            receives_until: None,
            stalls_until: 0,
            is_lost: false,
            keeps: false,
            acknowledged: 0,
            inherited: 0,
            gone: BTreeMap::new(),
            links: BTreeMap::new(),
        }
    }
}

impl Data {
    pub(super) fn unlink(&mut self) {
        self.is_linked = false;
        self.link += 1;
        if self.receives_until.take().is_some() {
            self.is_lost = true;
        }
    }

    /// Its node is master now.
    pub(super) fn lead(&mut self, stream: [u8; 40]) {
        self.unlink();
        self.stream = stream;
        self.inherited = self.writes.len();
    }

    pub(super) fn crash(&mut self) {
        self.unlink();
        self.acknowledged = 0;
        self.gone.clear();
        self.links.clear();
        if !self.keeps {
            self.writes.clear();
            self.is_lost = true;
        }
    }
}

/// What clients were told is written to a slot.
#[derive(Default)]
pub(super) struct Acknowledged {
    pub(super) writes: Numbers,
    next: u32,
}

/// A shard, by the number of its first master.
#[derive(Default)]
pub(super) struct Shard {
    /// Those who left it, with what they had, while they may count.
    pub(super) left: Vec<NodeId>,
}

/// To how many slots of each master clients write.
const SLOTS_WRITTEN: usize = 4;

impl Sim {
    pub(super) fn disk(&mut self, disk: Disk) {
        for no in 0..self.nodes.len() {
            self.nodes[no].data.keeps = disk == Disk::Keeps;
            self.step(no, |_, _| ());
        }
    }

    /// The id of a replication stream.
    pub(super) fn new_stream(&mut self) -> [u8; 40] {
        *NodeId::random(&mut self.rng).as_bytes()
    }

    pub(super) fn shard_of(&self, no: NodeNo) -> usize {
        self.nodes[no].shard
    }

    /// The slots that clients write to.
    pub(super) fn slots_written(&self) -> impl Iterator<Item = Slot> + use<> {
        let count = self.shards.len() * SLOTS_WRITTEN;
        (0..count).map(move |at| (at * SLOT_COUNT / count) as Slot)
    }

    /// Whether a crash of this node leaves a copy of everything.
    pub(super) fn may_lose_data_of(&self, no: NodeNo) -> bool {
        self.copies == 0 || self.nodes[no].data.keeps || self.may_leave_shard(no)
    }

    /// Whether the rest of its shard has a copy of everything without what this node has.
    pub(super) fn may_leave_shard(&self, no: NodeNo) -> bool {
        let shard = self.shard_of(no);
        let lost =
            (0..self.nodes.len()).filter(|other| self.shard_of(*other) == shard && self.nodes[*other].data.is_lost);
        let lost = lost.count() + self.shards[shard].left.len();
        self.nodes[no].data.is_lost || (lost as u32) < self.copies
    }

    /// Its replicas see their connections end, where that reaches them.
    pub(super) fn unlink_replicas(&mut self, no: NodeNo) {
        for replica in 0..self.nodes.len() {
            let node = &self.nodes[replica];
            if node.repl_from == Some(no) && node.data.is_linked && self.passes(no, replica) {
                self.nodes[replica].data.unlink();
                if !self.nodes[replica].paused {
                    self.step(replica, |_, _| ());
                }
            }
        }
    }

    pub(super) fn restart_data(&mut self, no: NodeNo) {
        let stream = self.new_stream();
        let node = &mut self.nodes[no];
        node.data.stream = stream;
        node.data.inherited = node.data.writes.len();
        if self.copies > 0 {
            node.offset = node.data.writes.len() as i64;
            if let Some(c) = node.cluster.as_mut().filter(|_| node.data.keeps) {
                c.on_data_loaded(true);
            }
        }
    }

    /// What puts the rules to the test: replicas that lag far behind, and a master that dies while whoever has most is cut off.
    pub(super) fn inject_data_fault(&mut self, no: NodeNo) {
        let shard: Vec<NodeNo> = (0..self.nodes.len()).filter(|n| self.shard_of(*n) == self.shard_of(no)).collect();
        let is_master = |n: &NodeNo| self.nodes[*n].cluster.as_ref().is_some_and(|c| c.myself().is_voter());
        let Some(master) = shard.iter().copied().find(is_master) else { return };
        let mut replicas: Vec<NodeNo> = shard.into_iter().filter(|n| *n != master).collect();
        if replicas.is_empty() {
            return;
        }
        replicas.sort_by_key(|n| self.nodes[*n].data.writes.len());
        let lags = self.rng.usize(0..=replicas.len());
        for n in &replicas[..lags] {
            self.nodes[*n].data.stalls_until = self.now + self.fault_ms(300..4000);
        }
        if self.rng.bool() {
            return;
        }
        let (fault, best) = (self.next_fault, replicas[replicas.len() - 1]);
        self.next_fault += 1;
        for other in (0..self.nodes.len()).filter(|n| *n != best) {
            self.blocked.extend([((best, other), fault), ((other, best), fault)]);
        }
        if self.rng.bool() {
            self.crash(master);
        } else {
            // It still reaches the best, but no voter.
            for other in (0..self.nodes.len()).filter(|n| *n != best && *n != master) {
                self.blocked.extend([((master, other), fault), ((other, master), fault)]);
            }
            self.blocked.retain(|ends, f| *f != fault || ![(best, master), (master, best)].contains(ends));
        }
        self.note_cuts();
        let ms = self.fault_ms(500..8000);
        self.after(ms, Event::Heal(fault));
    }

    /// Clients write, replicas copy, and confirm.
    pub(super) fn replicate_data(&mut self) {
        for no in 0..self.nodes.len() {
            if self.nodes[no].cluster.is_none() || self.nodes[no].paused {
                continue;
            }
            if self.cluster(no).myself().is_master() {
                self.write(no);
                self.miss_replicas(no);
            } else if let Some(from) = self.nodes[no].repl_from {
                self.copy(no, from);
            }
        }
        self.check_acknowledged();
    }

    fn write(&mut self, no: NodeNo) {
        if !self.takes_writes(no) || self.cluster(no).check_confirmable().is_err() {
            return;
        }
        let c = self.cluster(no);
        let mine = |slot: &Slot| c.owner_of(*slot) == Some(c.my_key()) && !self.is_moving(*slot);
        let mine: Vec<Slot> = self.slots_written().filter(mine).collect();
        for _ in 0..self.rng.u32(0..3).min(mine.len() as u32) {
            let slot = mine[self.rng.usize(0..mine.len())];
            let known = self.acknowledged.entry(slot).or_default();
            known.next += 1;
            let write = (slot, known.next);
            self.nodes[no].data.writes.push(write);
        }
        self.nodes[no].offset = self.nodes[no].data.writes.len() as i64;
    }

    fn reaches(&self, no: NodeNo, master: NodeNo) -> bool {
        let m = &self.nodes[master];
        m.cluster.as_ref().is_some_and(|c| c.myself().is_master() && !c.lacks_data())
            && !m.paused
            && self.passes(no, master)
            && self.passes(master, no)
    }

    fn copy(&mut self, no: NodeNo, from: NodeNo) {
        if !self.reaches(no, from) {
            // It is noticed late, or at once.
            if self.rng.u32(0..20) == 0 {
                self.nodes[no].data.unlink();
            }
            return;
        }
        let run = self.nodes[from].restarts;
        if std::mem::replace(&mut self.nodes[no].data.master_run, run) != run && self.nodes[no].data.is_linked {
            // It knows of no such connection.
            self.nodes[no].data.unlink();
            return self.step(no, |_, _| ());
        }
        self.nodes[no].repl_heard_ms = self.now;
        if self.nodes[no].data.stalls_until > self.now {
            return;
        }
        let [theirs, mine] = [from, no].map(|no| &self.nodes[no].data.writes);
        let (is_beginning, have) = (mine.is_beginning_of(theirs), mine.len());
        let (more, stream) = (theirs.len().saturating_sub(have), self.nodes[from].data.stream);
        let now = self.now;
        if let Some(until) = self.nodes[no].data.receives_until {
            if now < until {
                return;
            }
            let data = &mut self.nodes[no].data;
            data.receives_until = None;
            data.is_linked = true;
            self.nodes[no].data.writes = self.nodes[from].data.writes.clone();
        } else if is_beginning {
            // Some of it at a time.
            let more = self.rng.usize(0..=more);
            let new = self.nodes[from].data.writes.part(have, more).to_vec();
            let data = &mut self.nodes[no].data;
            new.into_iter().for_each(|write| data.writes.push(write));
            data.is_linked = true;
        } else {
            let ms = self.rng.i64(0..300);
            let data = &mut self.nodes[no].data;
            (data.receives_until, data.is_linked) = (Some(now + ms), false);
            data.writes.clear();
            data.is_lost = true;
            self.nodes[no].cluster.as_mut().expect("it runs").on_data_replaced();
        }
        let node = &mut self.nodes[no];
        node.offset = node.data.writes.len() as i64;
        if node.data.is_linked {
            node.data.stream = stream;
        }
        self.step(no, |_, _| ());
        self.send_confirmation(no, from);
    }

    fn send_confirmation(&mut self, from: NodeNo, to: NodeNo) {
        let node = &self.nodes[from];
        let Some(c) = node.cluster.as_ref().filter(|_| node.data.is_linked && node.doomed.is_none()) else { return };
        let Some(Confirmation { promised, lineage, offset }) = c.confirmation(node.offset) else { return };
        let link = node.data.link;
        let master = &self.nodes[to].data;
        // What others had acknowledged it has inherited.
        if offset >= master.acknowledged.max(master.inherited) as i64 {
            self.nodes[from].data.is_lost = false;
        }
        let confirm = Confirm { to, from, link, offset, promised, lineage: (lineage.epoch, lineage.run) };
        let ms = self.latency();
        self.after(ms, Event::Confirm(Box::new(confirm)));
    }

    pub(super) fn confirm(&mut self, confirm: &Confirm) {
        let &Confirm { to, from, link, offset, promised, lineage } = confirm;
        if !self.passes(from, to) || self.nodes[to].paused {
            return; // A later one says the same.
        }
        let id = self.nodes[from].my_epoch.0;
        let data = &mut self.nodes[to].data;
        if data.links.get(&from).is_some_and(|known| *known > link) {
            return; // That link was replaced by another one.
        }
        data.links.insert(from, link);
        data.gone.remove(&from);
        let lineage = super::super::Lineage { epoch: lineage.0, run: lineage.1 };
        self.step(to, |c, env| c.on_confirmation(id, Confirmation { promised, lineage, offset }, env));
        self.acknowledge(to);
    }

    /// Replies leave.
    fn acknowledge(&mut self, no: NodeNo) {
        if !self.takes_writes(no) || !self.cluster(no).has_durable_acks() {
            return;
        }
        let upto = self.cluster(no).confirmed_offset().max(0) as usize;
        let (c, data) = (self.cluster(no), &self.nodes[no].data);
        let from = data.acknowledged.min(upto);
        let news = (from..).zip(data.writes.part(from, upto - from));
        // What it did not write itself may have been acknowledged by another one, or not at all. Nobody is told of it
        // where the slot has been given away since.
        let news = news.filter(|(at, (slot, _))| *at >= data.inherited || c.owner_of(*slot) == Some(c.my_key()));
        let news: Vec<Write> = news.map(|(_, write)| *write).collect();
        for (slot, write) in news {
            self.acknowledged.entry(slot).or_default().writes.insert(write);
        }
        self.nodes[no].data.acknowledged = upto;
    }

    /// A master notices that a replica's link is gone.
    fn miss_replicas(&mut self, no: NodeNo) {
        let mut missed = Vec::new();
        for (&replica, &link) in &self.nodes[no].data.links {
            let node = &self.nodes[replica];
            let is_there = node.cluster.is_some()
                && node.data.is_linked
                && node.repl_from == Some(no)
                && link == node.data.link
                && self.passes(replica, no);
            if !is_there {
                missed.push(replica);
            }
        }
        let now = self.now;
        self.nodes[no].data.gone.retain(|replica, _| missed.contains(replica));
        for replica in missed {
            let id = self.nodes[replica].my_epoch.0;
            let since = self.nodes[no].data.gone.entry(replica).or_insert(Some(now));
            if since.is_some_and(|since| now - since > 200) {
                *since = None;
                self.step(no, |c, env| c.on_confirmer_gone(id, env));
            }
        }
    }

    /// Whoever serves a slot has all that was acknowledged in it. One after the other is looked at: what it lacks it does not
    /// get while it serves.
    fn check_acknowledged(&mut self) {
        const TURNS: usize = 5;
        self.looks += 1;
        for no in (self.looks % TURNS..self.nodes.len()).step_by(TURNS) {
            if self.now >= self.forced_until_ms && self.takes_writes(no) {
                self.check_data(no);
            }
        }
    }

    fn check_data(&self, no: NodeNo) {
        let (c, have) = (self.cluster(no), &self.nodes[no].data.writes);
        // Who gives a slot away has none of its keys any more, and redirects.
        let served = |slot: &Slot| c.owner_of(*slot) == Some(c.my_key()) && !c.migrating.contains_key(slot);
        for slot in self.slots_written().filter(served) {
            let Some(acknowledged) = self.acknowledged.get(&slot) else { continue };
            if let Some(lost) = acknowledged.writes.first_missing_in(have.of(slot)) {
                self.dump();
                panic!(
                    "seed {}: node {no} serves slot {slot} without write {lost}, which was acknowledged, at {} ms",
                    self.seed,
                    self.now - START_MS
                );
            }
        }
    }

    /// How many writes were acknowledged to the slots of each master, as they were dealt out at first.
    pub(super) fn acknowledged_counts(&self) -> Vec<usize> {
        let slots: Vec<Slot> = self.slots_written().collect();
        let count = |slot: &Slot| self.acknowledged.get(slot).map_or(0, |known| known.writes.len());
        slots.chunks(SLOTS_WRITTEN).map(|slots| slots.iter().map(count).sum()).collect()
    }

    /// Everybody who serves has everything.
    pub(super) fn check_all_data(&self) {
        let masters: Vec<NodeNo> = self.alive().filter(|(_, c)| c.myself().is_voter()).map(|(no, _)| no).collect();
        masters.iter().for_each(|no| self.check_data(*no));
    }

    fn serves_durably(&self) -> bool {
        (0..self.shards.len()).all(|shard| {
            self.alive()
                .any(|(no, c)| self.shard_of(no) == shard && self.takes_writes(no) && c.check_confirmable() == Ok(()))
        })
    }

    pub(super) fn until_confirmable(&mut self, within_ms: i64) -> i64 {
        self.run_until("every shard takes writes", within_ms, Sim::serves_durably)
    }
}

/// Crashes, partitions, pauses, manual failovers, with clients that write all the time.
fn nothing_acknowledged_is_lost(seed: u64) -> String {
    let masters = 3 + seed as usize % 2;
    let copies = 1 + (seed / 2) as u32 % 2;
    let replicas = copies as usize + (seed / 4) as usize % 2;
    let timeout = [1000, 2000][seed as usize % 2];
    let mut sim = Sim::with_copies(seed, masters, replicas, timeout, copies);
    sim.disk(if seed.is_multiple_of(3) { Disk::Keeps } else { Disk::Loses });
    sim.until_confirmable(30_000);
    sim.set_rates(0.06);
    sim.start_faults();
    sim.run_for(30_000);
    sim.end_faults();
    let settled = sim.settle();
    let served = sim.until_confirmable(60_000);
    sim.run_for(2000);
    sim.check_all_data();
    let acknowledged = sim.acknowledged_counts();
    assert!(acknowledged.iter().all(|count| *count > 50), "seed {seed}: {acknowledged:?}");
    format!(
        "seed {seed}: {copies} of {replicas}, acknowledged {acknowledged:?}, {} promotions, settled after {settled} ms, \
         then writing after {served} ms",
        sim.promotions
    )
}

/// The same in a moment: few faults that follow each other closely, for very many seeds.
fn nothing_acknowledged_is_lost_in_a_moment(seed: u64) -> u64 {
    let copies = 1 + (seed / 2) as u32 % 2;
    let replicas = copies as usize + (seed / 4) as usize % 2;
    let timeout = [500, 1000][seed as usize % 2];
    let mut sim = Sim::with_copies(seed, 3, replicas, timeout, copies);
    sim.disk(if seed.is_multiple_of(3) { Disk::Keeps } else { Disk::Loses });
    sim.until_confirmable(30_000);
    sim.set_rates(0.06);
    (sim.haste, sim.replicate_ms) = (4, 40);
    sim.start_faults();
    sim.run_for(6000);
    sim.end_faults();
    sim.until_confirmable(60_000);
    // A master that was replaced by force may not have heard of it.
    sim.run_until("one master serves each slot", 10_000, |sim| {
        let serves = |no: &NodeNo| sim.takes_writes(*no);
        let all: Vec<&SlotSet> =
            (0..sim.nodes.len()).filter(serves).map(|no| &sim.cluster(no).myself().slots).collect();
        all.iter().enumerate().all(|(at, slots)| all[..at].iter().all(|others| slots.first_common(others).is_none()))
    });
    for no in (0..sim.nodes.len()).filter(|no| sim.takes_writes(*no)) {
        sim.check_data(no);
    }
    let acknowledged = sim.acknowledged_counts();
    assert!(acknowledged.iter().all(|count| *count > 0), "seed {seed}: {acknowledged:?}");
    sim.promotions
}

#[test]
fn no_quick_series_of_failovers_loses_what_was_acknowledged() {
    let seeds = tests::seeds(200);
    let promotions: u64 = seeds.clone().map(nothing_acknowledged_is_lost_in_a_moment).sum();
    println!("{} seeds: {promotions} promotions", seeds.count());
}

#[test]
fn no_failover_loses_what_was_acknowledged() {
    for seed in tests::seeds(30) {
        println!("{}", nothing_acknowledged_is_lost(seed));
    }
}

#[test]
fn a_killed_master_is_replaced_as_soon_and_writes_go_on() {
    for seed in tests::seeds(4) {
        let mut sim = Sim::with_copies(seed, 3, 2, 2000, 1);
        sim.until_confirmable(10_000);
        sim.run_for(1000);
        assert!(sim.acknowledged_counts().iter().all(|count| *count > 20), "writes are acknowledged");
        sim.crash(0);
        let ms = sim.until_served(0, 0, 10_000);
        assert!(ms <= 2000 + SLACK_MS, "seed {seed}: {ms} ms");
        let ms = sim.until_confirmable(10_000);
        assert!(ms <= 500, "seed {seed}: {ms} ms until writes are accepted");
    }
}

/// The replica that has most does not know that another one does not count any more, and only voters could tell it.
#[test]
fn a_candidate_hears_from_voters_which_replicas_count() {
    for seed in tests::seeds(4) {
        let mut sim = Sim::with_copies(seed, 3, 3, 2000, 1);
        sim.disk(Disk::Keeps);
        sim.until_confirmable(10_000);
        let [master, candidate, gone, behind] = [0, 3, 6, 9];
        let drop = |sim: &mut Sim, dropped: Dropped| {
            sim.nodes[candidate].cluster.as_mut().expect("it runs").broken_mut().dropped = dropped;
        };
        drop(&mut sim, Dropped::Type(PacketType::Module as u16));
        sim.crash(gone);
        sim.run_for(4000);
        let counted = sim.cluster(master).members_that_count().map_or(0, |members| members.len());
        assert_eq!(counted, 2, "seed {seed}");
        sim.nodes[behind].data.stalls_until = i64::MAX;
        sim.run_for(500);
        assert!(sim.nodes[candidate].offset > sim.nodes[behind].offset, "seed {seed}");
        sim.crash(master);
        sim.run_for(50);
        drop(&mut sim, Dropped::None);
        let ms = sim.until_served(0, master, 10_000);
        assert!(ms <= 3000, "seed {seed}: {ms} ms");
        sim.check_all_data();
    }
}
