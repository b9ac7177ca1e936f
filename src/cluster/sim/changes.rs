//! What operators change while faults go on: slots move by SETSLOT, replicas are given to other masters, nodes leave and come
//! back as new ones, clocks change their rates.
//!
//! An operator does one of these after the other, and goes on where a fault came in between. Nothing is written to a slot on its
//! way until all agree on whose it is: who moves slots by hand while nodes are away answers for that.

use super::*;

/// A slot on its way from one master to another.
pub(super) struct Move {
    pub(super) slot: Slot,
    from: NodeNo,
    to: NodeNo,
    step: Step,
}

#[derive(Clone, Copy)]
enum Step {
    Begin,
    /// The target has what is in the slot, up to this offset of its stream.
    Copied(i64),
    /// It owns the slot, as it says.
    Taken,
    /// It is to be seen whose it is.
    InDoubt,
}

/// What operators are at.
#[derive(Default)]
pub(super) struct Changes {
    are_on: bool,
    /// A node that was reset, and the shard that it is to join.
    joining: Option<(NodeNo, usize)>,
    /// Slots that were ever on their way.
    pub(super) moved: SlotSet,
    counts: [u32; 4],
}

fn id_of(c: &Cluster) -> [u8; NodeId::LEN] {
    *c.myself().id.as_bytes()
}

impl Sim {
    pub(super) fn start_changes(&mut self) {
        self.changes.are_on = true;
        self.after(200, Event::Operate);
    }

    /// Operators end what they are at, and remove what is left of nodes that are no more.
    fn end_changes(&mut self) {
        self.changes.are_on = false;
        let end = self.now + 120_000;
        while self.moving.is_some() || self.changes.joining.is_some() || !self.is_settled() {
            if self.now >= end {
                self.dump();
                panic!("seed {}: operators do not come to an end", self.seed);
            }
            self.run_for(500);
            let ids: HashSet<NodeId> = self.alive().map(|(_, c)| c.myself().id).collect();
            for no in 0..self.nodes.len() {
                let known = self.cluster(no).nodes().iter();
                let gone: Vec<NodeId> =
                    known.filter(|(_, n)| !n.in_handshake() && !ids.contains(&n.id)).map(|(_, n)| n.id).collect();
                for id in gone {
                    self.step(no, move |c, env| drop(c.forget(id.as_bytes(), env)));
                }
            }
        }
    }

    pub(super) fn is_moving(&self, slot: Slot) -> bool {
        self.moving.as_ref().is_some_and(|on_its_way| on_its_way.slot == slot)
    }

    /// Whether everybody is there and reaches everybody.
    fn is_whole(&self) -> bool {
        self.blocked.is_empty() && self.nodes.iter().all(|n| n.cluster.is_some() && !n.paused)
    }

    pub(super) fn operate(&mut self) {
        if self.changes.are_on || self.moving.is_some() || self.changes.joining.is_some() {
            self.after(20, Event::Operate);
        }
        self.note_shards();
        self.note_who_left();
        self.go_on_moving();
        self.go_on_joining();
        if !self.changes.are_on || self.rng.u32(0..40) != 0 {
            return;
        }
        let no = self.rng.usize(0..self.nodes.len());
        match self.rng.u32(0..4) {
            0 => self.begin_move(),
            1 => self.give_away(no),
            2 => self.replace_replica(no),
            _ => {
                let rate = self.some_rate(0.06);
                self.set_rate(no, rate);
                self.changes.counts[3] += 1;
            }
        }
    }

    // ---- shards ----

    /// Replicas that went to another master by themselves.
    fn note_shards(&mut self) {
        for no in 0..self.nodes.len() {
            let Some(c) = &self.nodes[no].cluster else { continue };
            let master = c.myself().replica_of.and_then(|key| no_of(&c.node(key).ip));
            let Some(shard) = master.map(|master| self.nodes[master].shard) else { continue };
            if shard != self.nodes[no].shard {
                self.nodes[no].shard = shard;
                self.nodes[no].data.is_lost = true;
            }
        }
    }

    /// Those who left a shard count no more as soon as its master has agreed on others.
    fn note_who_left(&mut self) {
        for shard in 0..self.shards.len() {
            if self.shards[shard].left.is_empty() {
                continue;
            }
            let leads = |(no, _): &(NodeNo, &Cluster)| self.nodes[*no].shard == shard && self.takes_writes(*no);
            let Some((_, c)) = self.alive().find(leads) else { continue };
            let Some(members) = c.members_that_count() else { continue };
            self.shards[shard].left.retain(|id| members.contains(id));
        }
    }

    fn is_replica_that_runs(&self, no: NodeNo) -> bool {
        !self.nodes[no].paused && self.nodes[no].cluster.as_ref().is_some_and(|c| c.myself().is_replica())
    }

    /// Whether so many others that run follow its master that writes can be acknowledged there. A node that is to join the shard,
    /// or is away, may never do so.
    fn is_spare(&self, no: NodeNo) -> bool {
        let master = |no: NodeNo| {
            let c = self.nodes[no].cluster.as_ref()?;
            c.myself().replica_of.map(|key| c.node(key).id)
        };
        let others = (0..self.nodes.len()).filter(|other| *other != no && master(*other) == master(no));
        master(no).is_some() && others.count() >= self.copies as usize
    }

    fn leave_shard(&mut self, no: NodeNo, shard: usize) {
        let (id, old) = (self.cluster(no).myself().id, self.nodes[no].shard);
        self.shards[old].left.push(id);
        self.nodes[no].shard = shard;
        self.nodes[no].data.is_lost = true;
    }

    fn some_master(&mut self, wanted: impl Fn(&Sim, NodeNo) -> bool) -> Option<NodeNo> {
        let masters: Vec<NodeNo> = (0..self.nodes.len())
            .filter(|no| !self.nodes[*no].paused && self.takes_writes(*no) && wanted(self, *no))
            .collect();
        (!masters.is_empty()).then(|| masters[self.rng.usize(0..masters.len())])
    }

    /// CLUSTER REPLICATE on a replica of another master.
    fn give_away(&mut self, no: NodeNo) {
        let old = self.nodes[no].shard;
        let may = self.is_replica_that_runs(no) && self.may_leave_shard(no) && self.is_spare(no);
        if !may || self.nodes[no].data.is_lost {
            return;
        }
        let Some(to) = self.some_master(|sim, master| sim.nodes[master].shard != old) else { return };
        let (id, shard) = (id_of(self.cluster(to)), self.nodes[to].shard);
        if self.cluster(no).find(&id).is_some_and(|key| self.cluster(no).node(key).is_master()) {
            self.leave_shard(no, shard);
            self.step(no, move |c, _| c.replicate(&id, false).expect("a master that it knows"));
            self.changes.counts[1] += 1;
        }
    }

    /// CLUSTER RESET HARD on a replica, CLUSTER FORGET on all others, CLUSTER MEET and REPLICATE as a new node.
    fn replace_replica(&mut self, no: NodeNo) {
        let is_free =
            self.changes.joining.is_none() && self.is_whole() && self.nodes.iter().all(|n| n.doomed.is_none());
        if !is_free || !self.is_replica_that_runs(no) || !self.may_leave_shard(no) || !self.is_spare(no) {
            return;
        }
        let old = self.nodes[no].shard;
        let Some(to) = self.some_master(|_, _| true) else { return };
        let (id, shard) = (id_of(self.cluster(no)), self.nodes[to].shard);
        self.leave_shard(no, shard);
        (self.nodes[no].current_epoch, self.nodes[no].last_vote_epoch) = (0, 0);
        self.step(no, |c, _| c.reset(true, false).expect("a replica"));
        let stream = self.new_stream();
        let data = &mut self.nodes[no].data;
        data.crash();
        data.writes.clear();
        (data.stream, data.is_lost) = (stream, true);
        self.nodes[no].offset = 0;
        for other in (0..self.nodes.len()).filter(|other| *other != no) {
            self.step(other, move |c, env| drop(c.forget(&id, env)));
        }
        let known = (0..self.nodes.len()).filter(|other| *other != no && self.nodes[*other].shard != old).min();
        let host = ip_of(known.unwrap_or(to));
        self.step(no, move |c, env| c.meet(host.as_bytes(), 6379, 16379, env).expect("an address"));
        self.changes.joining = Some((no, shard));
        self.changes.counts[2] += 1;
    }

    fn go_on_joining(&mut self) {
        let Some((no, shard)) = self.changes.joining else { return };
        let Some(c) = self.nodes[no].cluster.as_ref().filter(|_| !self.nodes[no].paused) else { return };
        if c.myself().is_replica() {
            self.changes.joining = None;
            return;
        }
        let mine = id_of(c);
        if c.nodes().len() == 1 {
            // Whoever it was to meet was gone.
            let to = self.rng.usize(0..self.nodes.len());
            return self.step(no, move |c, env| drop(c.meet(ip_of(to).as_bytes(), 6379, 16379, env)));
        }
        let Some(to) = self.some_master(|sim, master| sim.nodes[master].shard == shard) else { return };
        let id = id_of(self.cluster(to));
        if self.cluster(to).find(&mine).is_some() && self.cluster(no).find(&id).is_some() {
            self.step(no, move |c, _| drop(c.replicate(&id, false)));
        }
    }

    // ---- a slot that moves ----

    fn begin_move(&mut self) {
        let slots: Vec<Slot> = self.slots_written().collect();
        let slot = slots[self.rng.usize(0..slots.len())];
        let owns = |sim: &Sim, no: NodeNo| sim.cluster(no).owner_of(slot) == Some(sim.cluster(no).my_key());
        let (Some(from), None) = (self.some_master(owns), &self.moving) else { return };
        // The last slot stays: a master without slots has no vote, and what a majority is would be another matter.
        let Some(to) = self.some_master(|_, no| no != from).filter(|_| self.cluster(from).myself().slot_count > 1)
        else {
            return;
        };
        self.moving = Some(Move { slot, from, to, step: Step::Begin });
        self.changes.moved.insert(slot);
        self.changes.counts[0] += 1;
    }

    fn set_slot(&mut self, no: NodeNo, slot: Slot, what: fn(&[u8]) -> SetSlot<'_>, id: [u8; NodeId::LEN]) -> bool {
        let mut done = false;
        self.step(no, |c, env| done = c.check_set_slot_allowed().is_ok() && c.set_slot(slot, what(&id), env).is_ok());
        done
    }

    fn go_on_moving(&mut self) {
        let Some(Move { slot, from, to, step }) = self.moving else { return };
        let runs = |no: NodeNo| !self.nodes[no].paused && self.takes_writes(no);
        let both = runs(from)
            && runs(to)
            && self.cluster(from).owner_of(slot) == Some(self.cluster(from).my_key())
            && self.cluster(to).check_confirmable().is_ok();
        let next = match step {
            Step::Begin if both => self.copy_slot(slot, from, to),
            Step::Copied(upto) if both && self.cluster(to).confirmed_offset() < upto => Step::Copied(upto),
            Step::Copied(_) if both => {
                let id = id_of(self.cluster(to));
                if self.set_slot(to, slot, |id| SetSlot::Node(id), id) { Step::Taken } else { Step::InDoubt }
            }
            Step::Taken => {
                if both {
                    let id = id_of(self.cluster(to));
                    self.set_slot(from, slot, |id| SetSlot::Node(id), id);
                }
                Step::InDoubt
            }
            Step::Begin | Step::Copied(_) | Step::InDoubt => Step::InDoubt,
        };
        self.moving = Some(Move { slot, from, to, step: next });
        if matches!(next, Step::InDoubt) && self.agree_on(slot) {
            for no in 0..self.nodes.len() {
                let c = self.cluster(no);
                if c.migrating.contains_key(&slot) || c.importing.contains_key(&slot) {
                    self.set_slot(no, slot, |_| SetSlot::Stable, [0; NodeId::LEN]);
                }
            }
            self.moving = None;
        }
    }

    fn copy_slot(&mut self, slot: Slot, from: NodeNo, to: NodeNo) -> Step {
        let ids = [from, to].map(|no| id_of(self.cluster(no)));
        let begun = self.set_slot(to, slot, |id| SetSlot::Importing(id), ids[0])
            && self.set_slot(from, slot, |id| SetSlot::Migrating(id), ids[1]);
        if !begun || self.nodes[to].cluster.is_none() || self.nodes[from].cluster.is_none() {
            return Step::InDoubt;
        }
        let [here, there] = [from, to].map(|no| &self.nodes[no].data.writes);
        let moved = here.part(0, here.len()).iter().filter(|write| write.0 == slot && !there.contains(**write));
        let moved: Vec<_> = moved.copied().collect();
        moved.into_iter().for_each(|write| self.nodes[to].data.writes.push(write));
        let count = self.nodes[to].data.writes.len();
        (self.nodes[to].offset, self.nodes[to].data.inherited) = (count as i64, count);
        Step::Copied(self.nodes[to].offset)
    }

    /// Whether everybody is there and sees the same owner of a slot, who serves it.
    fn agree_on(&self, slot: Slot) -> bool {
        let mut owners = self.alive().map(|(_, c)| c.owner_of(slot).map(|key| c.node(key).id));
        let first = owners.next().flatten();
        let served = self.alive().any(|(no, c)| Some(c.myself().id) == first && self.takes_writes(no));
        served && self.is_whole() && owners.all(|owner| owner == first)
    }
}

fn nothing_is_lost_while_things_move(seed: u64) -> String {
    let masters = 3 + seed as usize % 2;
    let copies = 1 + (seed / 2) as u32 % 2;
    let replicas = copies as usize + 1;
    let timeout = [1000, 2000][seed as usize % 2];
    let mut sim = Sim::with_copies(seed, masters, replicas, timeout, copies);
    sim.disk(if seed.is_multiple_of(3) { durable::Disk::Keeps } else { durable::Disk::Loses });
    sim.until_confirmable(30_000);
    sim.set_rates(0.06);
    sim.start_faults();
    sim.start_changes();
    sim.run_for(40_000);
    sim.end_faults();
    sim.end_changes();
    let served = sim.until_confirmable(60_000);
    sim.run_for(2000);
    sim.check_all_data();
    let acknowledged = sim.acknowledged_counts();
    assert!(acknowledged.iter().all(|count| *count > 20), "seed {seed}: {acknowledged:?}");
    let [moved, given, replaced, rated] = sim.changes.counts;
    format!(
        "seed {seed}: {copies} of {replicas}, acknowledged {acknowledged:?}, {} promotions, {moved} slots moved, {given} \
         replicas given away, {replaced} replaced, {rated} clocks changed, writing after {served} ms",
        sim.promotions
    )
}

#[test]
#[ignore = "takes long: `make simulate`"]
fn nothing_acknowledged_is_lost_while_slots_and_replicas_move() {
    for seed in tests::seeds(3) {
        println!("{}", nothing_is_lost_while_things_move(seed));
    }
}

/// A master takes an epoch by itself as nobody hears it any more, as it does for a slot that it imports. That is no less than the
/// epoch of who is elected in its place.
#[test]
fn an_epoch_that_nobody_heard_of_does_not_beat_an_election() {
    for seed in tests::seeds(12) {
        let mut sim = Sim::with_copies(seed, 3, 2, 1000, 1);
        sim.disk(durable::Disk::Keeps);
        sim.until_confirmable(10_000);
        let old = sim.rng.usize(0..3);
        // Now and then one of the others hears of it.
        let told = (old + sim.rng.usize(1..9)) % 9;
        let cut: Vec<(NodeNo, NodeNo)> = (0..9).filter(|no| *no != old).flat_map(|no| [(old, no), (no, old)]).collect();
        sim.blocked.extend(cut.iter().filter(|way| seed % 3 > 0 || way.1 != told).map(|way| (*way, 0)));
        sim.note_cuts();
        let (slot, before) =
            (sim.cluster(old).myself().slots.iter().next().expect("a master"), sim.cluster(old).current_epoch());
        sim.step(old, |c, _| assert!(c.bump_my_epoch().0));
        assert!(sim.cluster(old).myself().epochs.config > before);
        sim.run_for(200);
        sim.blocked.extend(cut.iter().map(|way| (*way, 0)));
        sim.note_cuts();
        if seed % 4 == 1 {
            sim.latency_ms = 30..40;
        }
        let ms = sim.until_served(slot, old, 10_000);
        assert!(ms <= 1000 + SLACK_MS, "seed {seed}: {ms} ms");
        if seed % 4 == 1 {
            // Its heir does the same before others have heard that it was elected.
            let owns = |(_, c): &(NodeNo, &Cluster)| c.owner_of(slot) == Some(c.my_key());
            let heir = sim.alive().filter(|(no, _)| *no != old).find(owns).map(|(no, _)| no).expect("it is served");
            sim.crash(heir);
            sim.latency_ms = 0..3;
            sim.restart(heir);
            sim.step(heir, |c, _| c.take_epoch(1));
        }
        sim.run_for(3000);
        if seed % 2 == 0 {
            sim.crash(old);
        }
        sim.blocked.clear();
        sim.note_cuts();
        sim.restart(old);
        sim.settle();
        assert!(sim.cluster(old).myself().is_replica(), "seed {seed}: it took over again");
        sim.check_all_data();
    }
}

/// Nor does it bring back a slot that the heir has given to another shard since.
#[test]
fn an_epoch_that_nobody_heard_of_does_not_beat_who_has_a_slot_from_the_heir() {
    for seed in tests::seeds(8) {
        let mut sim = Sim::with_copies(seed, 3, 2, 1000, 1);
        sim.disk(durable::Disk::Keeps);
        sim.until_confirmable(10_000);
        let (old, count) = (sim.rng.usize(0..3), sim.nodes.len());
        let slot = sim.slots_written().find(|slot| sim.cluster(old).myself().slots.contains(*slot)).expect("a master");
        let others = || (0..count).filter(|no| *no != old);
        sim.blocked.extend(others().flat_map(|no| [((old, no), 0), ((no, old), 0)]));
        sim.note_cuts();
        sim.step(old, |c, _| c.take_epoch(4));
        sim.until_served(slot, old, 10_000);
        if seed % 4 < 3 {
            sim.until_confirmable(10_000);
        }
        let owns = |(_, c): &(NodeNo, &Cluster)| c.owner_of(slot) == Some(c.my_key());
        let heir = sim.alive().filter(|(no, _)| *no != old).find(owns).map(|(no, _)| no).expect("it is served");
        let to = (old + 1 + sim.rng.usize(0..2)) % 3;
        let ids = [heir, to].map(|no| id_of(sim.cluster(no)));
        sim.run_until("the target knows the heir", 5000, |sim| {
            let c = sim.cluster(to);
            c.find(&ids[0]).is_some_and(|key| c.owner_of(slot) == Some(key))
        });
        sim.moving = Some(Move { slot, from: heir, to, step: Step::Begin });
        sim.changes.moved.insert(slot);
        assert!(matches!(sim.copy_slot(slot, heir, to), Step::Copied(_)), "seed {seed}");
        for no in [to, heir] {
            assert!(sim.set_slot(no, slot, |id| SetSlot::Node(id), ids[1]), "seed {seed}");
        }
        sim.moving = None;
        let epoch = sim.cluster(to).myself().epochs.config;
        assert!(epoch < sim.cluster(old).myself().epochs.config, "seed {seed}: {epoch}");
        sim.run_for(2000);
        sim.blocked.clear();
        sim.note_cuts();
        sim.settle();
        for (no, c) in sim.alive() {
            let owner = c.owner_of(slot).map(|key| c.node(key).id);
            assert_eq!(owner, Some(sim.cluster(to).myself().id), "seed {seed}: as node {no} sees it");
        }
        sim.until_confirmable(10_000);
        sim.check_all_data();
    }
}

/// One that a majority hears of counts at once, and for good.
#[test]
fn an_epoch_that_a_majority_knows_is_agreed_on() {
    let mut sim = Sim::new(1, 3, 1, 1000);
    sim.step(0, |c, _| assert!(c.bump_my_epoch().0));
    let (id, epoch) = (id_of(sim.cluster(0)), sim.cluster(0).myself().epochs.config);
    assert!(sim.cluster(0).myself().epochs.agreed < epoch);
    assert!(sim.cluster(0).nodes_conf().contains(&format!(" agreedEpochs {}:1", String::from_utf8_lossy(&id))));
    sim.run_for(1000);
    for (no, c) in sim.alive() {
        let n = c.node(c.find(&id).expect("they know each other"));
        assert_eq!((n.epochs.config, n.epochs.agreed), (epoch, epoch), "as node {no} sees it");
    }
    assert!(!sim.cluster(0).nodes_conf().contains("agreedEpochs"));
}
