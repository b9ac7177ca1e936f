//! Scenarios of a cluster, over many seeds.

use super::*;

pub(super) fn seeds(default: u64) -> std::ops::Range<u64> {
    let read = |name: &str, default| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
    let first = read("HEXAD_SIM_SEED", 1);
    first..first + read("HEXAD_SIM_SEEDS", default)
}

#[test]
fn a_killed_master_is_replaced_soon_after_the_node_timeout() {
    for seed in seeds(3) {
        let mut sim = Sim::new(seed, 3, 1 + seed as usize % 2, 2000);
        let warm_up = 3000 + sim.rng.i64(0..2000);
        sim.run_for(warm_up);
        let victim = sim.rng.usize(0..3);
        let slot = sim.cluster(victim).myself().slots.iter().next().unwrap();
        sim.crash(victim);
        let ms = sim.until_served(slot, victim, 10_000);
        println!("seed {seed}: served again after {ms} ms");
        assert!(ms <= 2000 + SLACK_MS, "seed {seed}: {ms} ms");
        sim.restart(victim);
        sim.settle();
        assert!(sim.cluster(victim).myself().is_replica());
    }
}

#[test]
fn the_replica_with_most_data_wins() {
    for seed in seeds(3) {
        let mut sim = Sim::new(seed, 3, 3, 2000);
        let victim = sim.rng.usize(0..3);
        let replicas: Vec<NodeNo> = (3..12).filter(|no| no % 3 == victim).collect();
        let best = replicas[sim.rng.usize(0..replicas.len())];
        sim.crash(victim);
        // The offset of each when the master died.
        for no in &replicas {
            sim.nodes[*no].offset = if *no == best { 1000 } else { 900 };
        }
        let slot = (victim * SLOT_COUNT / 3) as Slot;
        sim.until_served(slot, victim, 10_000);
        assert!(sim.cluster(best).myself().is_master(), "seed {seed}");
    }
}

#[test]
fn a_master_that_stood_still_does_not_accept_when_it_wakes() {
    let mut sim = Sim::new(7, 3, 1, 2000);
    sim.nodes[1].paused = true;
    let slot = (SLOT_COUNT / 3 + 5) as Slot;
    sim.until_served(slot, 1, 10_000);
    sim.nodes[1].paused = false;
    let now = sim.now;
    let c = sim.nodes[1].cluster.as_mut().unwrap();
    assert!(c.is_up(), "it does not know yet");
    c.turn_begins(now);
    assert!(!c.is_up(), "the first thing it does");
    sim.step(1, |_, _| ());
    sim.settle();
    assert!(sim.cluster(1).myself().is_replica());
}

/// A process that was not run for a while need not stop if nobody can have taken its place.
#[test]
fn a_master_that_stood_still_goes_on_while_its_lease_lasts() {
    let mut sim = Sim::new(7, 3, 1, 2000);
    sim.nodes[1].paused = true;
    sim.run_for(1300);
    sim.nodes[1].paused = false;
    sim.step(1, |_, _| ());
    assert!(sim.takes_writes(1));
    let end = sim.now + 5000;
    while sim.now < end {
        sim.run_for(20);
        assert!(sim.takes_writes(1), "{} ms before the end", end - sim.now);
    }
}

/// Partitions of all kinds, and standing still, one after the other, with clocks that differ.
fn part_and_stand_still(seed: u64, timeout: i64) {
    let masters = 3 + seed as usize % 3;
    let mut sim = Sim::new(seed, masters, 1 + seed as usize % 2, timeout);
    sim.set_rates(0.06);
    sim.run_for(2000);
    let (mut promoted, mut least) = (0, i64::MAX);
    for _ in 0..8 {
        sim.latency_ms = 0..[3, 20, 50][sim.rng.usize(0..3)];
        let count = sim.nodes.len();
        let voters: Vec<NodeNo> = (0..count).filter(|no| sim.cluster(*no).myself().is_voter()).collect();
        let old = voters[sim.rng.usize(0..voters.len())];
        let slot = sim.cluster(old).myself().slots.iter().next().unwrap();
        // Alone, with some others, or cut off from some only; in both directions or in one.
        let company = [0.0, 0.0, 0.3, 0.5][sim.rng.usize(0..4)];
        let inside: Vec<NodeNo> = (0..count).filter(|no| *no == old || sim.rng.f64() < company).collect();
        let leaky = if sim.rng.u32(0..3) == 0 { 0.3 } else { 0.0 };
        let directions = sim.rng.u32(1..=3).max(sim.rng.u32(1..=3));
        let stands_still = sim.rng.u32(0..3) == 0;
        let fault = sim.next_fault;
        sim.next_fault += 1;
        if stands_still {
            sim.nodes[old].paused = true;
        } else {
            for a in 0..count {
                for b in 0..count {
                    if inside.contains(&a) == inside.contains(&b) || sim.rng.f64() < leaky {
                        continue;
                    }
                    if directions & if inside.contains(&a) { 1 } else { 2 } != 0 {
                        sim.blocked.insert((a, b), fault);
                    }
                }
            }
            sim.note_cuts();
        }
        let end = sim.now + sim.rng.i64(timeout / 2..timeout.max(500) * 5);
        let mut last_write = sim.now;
        let mut first_write = None;
        while sim.now < end {
            sim.run_for(5);
            if sim.takes_writes(old) {
                last_write = sim.now;
            }
            let heir = (0..count)
                .find(|no| *no != old && sim.takes_writes(*no) && sim.cluster(*no).myself().slots.contains(slot));
            if heir.is_some() {
                first_write = first_write.or(Some(sim.now));
            }
        }
        if let Some(first) = first_write {
            promoted += 1;
            least = least.min(first - last_write);
        }
        sim.blocked.clear();
        sim.note_cuts();
        if stands_still {
            sim.nodes[old].paused = false;
            sim.step(old, |_, _| ());
        }
        // A node timeout of that order leaves no time for an answer.
        if timeout < 500 {
            sim.latency_ms = 0..3;
        }
        sim.settle();
    }
    println!("seed {seed}: {promoted} promoted, the least margin {least} ms of a node timeout of {timeout}");
}

#[test]
fn a_master_stops_before_its_replica_takes_over() {
    for seed in seeds(4) {
        part_and_stand_still(seed, [1000, 2000, 5000][seed as usize % 3]);
    }
}

/// Leases and promises then last half a second, suspicions the configured time.
#[test]
fn a_master_stops_in_time_however_short_the_node_timeout() {
    for seed in seeds(4) {
        part_and_stand_still(seed, [400, 150, 50, 10][seed as usize % 4]);
    }
}

#[test]
fn who_stands_still_for_less_than_the_timeout_is_never_suspected() {
    for seed in seeds(5) {
        let mut sim = Sim::new(seed, 3, 1, 2000);
        let warm_up = sim.rng.i64(0..3000);
        sim.run_for(warm_up);
        sim.nodes[1].paused = true;
        let still_ms = sim.rng.i64(1500..1950);
        sim.run_for(still_ms);
        let id = sim.cluster(1).myself().id;
        for (no, c) in sim.alive().filter(|(no, _)| *no != 1) {
            let (_, seen) = c.nodes().iter().find(|(_, n)| n.id == id).unwrap();
            assert!(seen.healthy(), "seed {seed}: node {no} gave up after {still_ms} ms");
        }
        sim.nodes[1].paused = false;
        sim.run_for(5000);
        assert!(sim.cluster(1).myself().is_master(), "seed {seed}");
    }
}

/// As DEBUG can do it. The node still hears of the others, and they of it.
#[test]
fn answers_that_are_lost_for_long_are_got_over() {
    for seed in seeds(3) {
        for lost in [PacketType::Ping, PacketType::Pong] {
            for no in [0, 3] {
                let timeout = 1000;
                let mut sim = Sim::new(seed, 3, 1, timeout);
                sim.nodes[no].cluster.as_mut().unwrap().broken.dropped = Dropped::Type(lost as u16);
                sim.run_for(10 * timeout);
                sim.nodes[no].cluster.as_mut().unwrap().broken.dropped = Dropped::None;
                let ms = sim.settle();
                assert!(ms <= 3 * timeout, "seed {seed}: {ms} ms after {lost:?} was lost on node {no}");
                // It stays so.
                let end = sim.now + 5 * timeout;
                while sim.now < end {
                    sim.run_for(20);
                    assert!(sim.is_settled(), "seed {seed}: after {lost:?} was lost on node {no}");
                }
            }
        }
    }
}

#[test]
fn links_of_dropped_packets_stay_closed_while_debug_says_so() {
    let mut sim = Sim::new(6, 3, 1, 5000);
    let links = |sim: &Sim| sim.cluster(0).nodes().iter().filter(|(_, n)| n.link.is_some()).count();
    assert_eq!(links(&sim), 5);
    let broken = Broken { dropped: Dropped::All, closes_links: true, no_random_pings: false, no_reconnection: true };
    sim.step(0, |c, _| *c.broken_mut() = broken);
    sim.run_for(4000);
    assert_eq!(links(&sim), 0);
    sim.step(0, |c, _| *c.broken_mut() = Broken::default());
    sim.settle();
    assert_eq!(links(&sim), 5);
}

/// In the order of `redis-cli`: for a moment all but the old owner may know that a slot has a new owner.
#[test]
fn slots_that_move_stop_nobody() {
    for seed in seeds(3) {
        let mut sim = Sim::new(seed, 5, 1, 3000);
        let ids: Vec<NodeId> = (0..5).map(|no| sim.cluster(no).myself().id).collect();
        // The old owner gets requests until it knows; its keys are gone, so it redirects them.
        sim.forced_until_ms = i64::MAX;
        sim.latency_ms = 20..80;
        for round in 0..40 {
            let (from, to) = (round % 5, (round + 1 + sim.rng.usize(0..4)) % 5);
            if from == to {
                continue;
            }
            let slot = sim.cluster(from).myself().slots.iter().last().unwrap();
            let given = |what: fn(&'static [u8]) -> SetSlot<'static>, id: NodeId| {
                move |c: &mut Cluster, env: &Env| {
                    let id: &'static [u8] = Box::leak(Box::new(*id.as_bytes()));
                    c.set_slot(slot, what(id), env).unwrap();
                }
            };
            sim.step(to, given(SetSlot::Importing, ids[from]));
            sim.step(from, given(SetSlot::Migrating, ids[to]));
            sim.run_for(5);
            sim.step(to, given(SetSlot::Node, ids[to]));
            let apart = sim.rng.i64(0..250);
            for _ in 0..=apart {
                sim.run_for(1);
                assert!((0..5).all(|no| sim.takes_writes(no)), "seed {seed}, round {round}");
            }
            sim.step(from, given(SetSlot::Node, ids[to]));
            for _ in 0..200 {
                sim.run_for(1);
                assert!((0..5).all(|no| sim.takes_writes(no)), "seed {seed}, round {round}");
            }
        }
    }
}

#[test]
fn manual_failover_takes_no_time() {
    for seed in seeds(3) {
        let mut sim = Sim::new(seed, 3, 1, 5000);
        sim.step(3, |c, env| c.failover(FailoverMode::Coordinated, env).unwrap());
        let ms = sim.until_served(0, 0, 5000);
        assert!(ms < 300, "seed {seed}: {ms} ms");
        sim.settle();
        assert!(sim.cluster(0).myself().is_replica());
    }
}

/// Its new master may not have heard yet whose replica it is.
#[test]
fn a_node_that_just_came_back_can_take_over_at_once() {
    for seed in seeds(3) {
        let mut sim = Sim::new(seed, 3, 1, 1000);
        sim.crash(0);
        sim.until_served(0, 0, 5000);
        sim.run_for(1000);
        sim.restart(0);
        sim.run_until("the old master follows the new one", 5000, |sim| sim.cluster(0).myself().is_replica());
        sim.step(0, |c, env| c.failover(FailoverMode::Coordinated, env).unwrap());
        let ms = sim.until_served(0, 3, 5000);
        assert!(ms < 1500, "seed {seed}: {ms} ms");
        sim.settle();
        assert!(sim.cluster(3).myself().is_replica());
    }
}

/// Two masters of five and two others do not reach each other, and either side came to think that the other has failed while the
/// fifth was away. That one reaches all; so do replicas.
fn parted_in_the_middle(seed: u64, replicas: usize) -> Sim {
    let mut sim = Sim::new(seed, 5, replicas, 1000);
    sim.run_for(2000);
    let cut = |a: NodeNo, b: NodeNo| [(a, b), (b, a)];
    let sides: Vec<_> = [(0, 2), (0, 3), (1, 2), (1, 3)].into_iter().flat_map(|(a, b)| cut(a, b)).collect();
    let away: Vec<_> = (0..4).flat_map(|other| cut(4, other)).collect();
    sim.blocked.extend(sides.iter().chain(&away).map(|way| (*way, 0)));
    sim.note_cuts();
    let ms = sim.rng.i64(1500..4000);
    sim.run_for(ms);
    sim.blocked.retain(|way, _| !away.contains(way));
    sim.note_cuts();
    sim
}

/// For as long as the sides do not reach each other.
#[test]
fn who_reaches_both_sides_of_a_partition_serves() {
    for seed in seeds(8) {
        let mut sim = parted_in_the_middle(seed, seed as usize % 2);
        sim.run_for(12_000);
        for _ in 0..50 {
            sim.run_for(100);
            let serving =
                sim.alive().filter(|(no, _)| sim.takes_writes(*no)).map(|(no, c)| (no, c.myself().slot_count));
            let serving: Vec<(NodeNo, usize)> = serving.collect();
            assert_eq!(serving.iter().map(|(_, slots)| slots).sum::<usize>(), SLOT_COUNT, "seed {seed}: {serving:?}");
        }
    }
}

/// It has been taken for failed before, by some wrongly. Without the one that reaches both sides there would be no majority.
#[test]
fn who_dies_in_a_partition_is_replaced() {
    for seed in seeds(8) {
        let mut sim = parted_in_the_middle(seed, 1);
        sim.run_for(12_000);
        let victims: Vec<NodeNo> = (0..4).filter(|no| sim.takes_writes(*no)).collect();
        let victim = victims[sim.rng.usize(0..victims.len())];
        let slot = sim.cluster(victim).myself().slots.iter().next().unwrap();
        sim.crash(victim);
        let ms = sim.until_served(slot, victim, 30_000);
        println!("seed {seed}: {victim} of {victims:?} replaced after {ms} ms");
        assert!(ms <= 1000 + SLACK_MS, "seed {seed}: {ms} ms");
    }
}

#[test]
fn without_a_majority_nobody_is_elected() {
    let mut sim = Sim::new(3, 3, 1, 1000);
    sim.crash(0);
    sim.crash(1);
    sim.run_for(20_000);
    assert!(sim.alive().all(|(no, c)| !c.is_up() && (c.myself().is_replica() == (no >= 3))));
    sim.restart(0);
    sim.restart(1);
    sim.settle();
}

/// It raised its epoch, and died before its replica, which it could not reach, heard of that.
#[test]
fn a_replica_learns_from_voters_which_epoch_to_beat() {
    for seed in seeds(3) {
        let mut sim = Sim::new(seed, 3, 1, 2000);
        let known = |sim: &Sim, no: NodeNo| {
            let c = sim.cluster(no);
            c.node(c.find(sim.cluster(0).myself().id.as_bytes()).unwrap()).epochs.config
        };
        sim.blocked.insert((0, 3), 1);
        sim.note_cuts();
        for _ in 0..3 {
            // All of them have the greatest epoch in turn.
            sim.step(1, |c, _| assert!(c.bump_my_epoch().0));
            sim.run_for(20);
            sim.step(0, |c, _| assert!(c.bump_my_epoch().0));
            sim.run_for(20);
        }
        assert_eq!(known(&sim, 1), sim.cluster(0).myself().epochs.config, "announced at once");
        assert!(known(&sim, 3) < known(&sim, 1));
        sim.crash(0);
        let ms = sim.until_served(0, 0, 10_000);
        assert!(ms <= 2000 + SLACK_MS + 200, "seed {seed}: {ms} ms");
    }
}

#[test]
fn what_an_operator_changes_is_announced_at_once() {
    let mut sim = Sim::new(4, 3, 1, 15_000);
    let seen = |sim: &Sim, no: NodeNo| {
        let c = sim.cluster(5);
        c.node(c.find(sim.cluster(no).myself().id.as_bytes()).unwrap()).clone()
    };
    let config =
        ClusterConfig { replica_no_failover: true, announce_hostname: "h".into(), ..sim.nodes[3].config.clone() };
    sim.step(3, |c, _| c.set_config(config));
    sim.step(0, |c, _| c.del_slots(&[(0, 0)]).unwrap());
    sim.run_for(20);
    assert!(seen(&sim, 3).flags.has(NodeFlags::NOFAILOVER) && seen(&sim, 3).hostname == "h");
    sim.step(1, |c, _| {
        // It hears that nobody claims the slot, which is ours then.
        assert!(c.unclaimed.contains(0));
    });
}

#[test]
fn who_is_reset_leaves_its_shard() {
    let mut sim = Sim::new(5, 3, 1, 1000);
    let shard = |sim: &Sim, no: NodeNo| sim.cluster(no).myself().shard_id;
    assert_eq!(shard(&sim, 0), shard(&sim, 3));
    sim.step(3, |c, _| c.reset(false, true).unwrap());
    assert_ne!(shard(&sim, 0), shard(&sim, 3));
    let before = shard(&sim, 3);
    // A master alone stays what it is.
    sim.step(3, |c, _| c.reset(false, false).unwrap());
    assert_eq!(shard(&sim, 3), before);
}

#[test]
fn a_spare_replica_moves_to_an_orphaned_master() {
    let mut sim = Sim::new(5, 3, 2, 1000);
    sim.crash(3);
    sim.crash(6);
    sim.run_until("a replica migrates", 30_000, |sim| {
        let c = sim.cluster(0);
        let orphan = c.find(sim.cluster(0).myself().id.as_bytes()).unwrap();
        c.node(orphan).replicas.iter().any(|r| c.node(*r).healthy())
    });
}

#[test]
fn promises_hold_under_faults() {
    for seed in seeds(3) {
        let masters = 3 + seed as usize % 3;
        let mut sim = Sim::new(seed, masters, 1 + seed as usize % 2, [1000, 2000, 3000][seed as usize % 3]);
        sim.start_faults();
        sim.run_for(40_000);
        sim.end_faults();
        let ms = sim.settle();
        let restarts: u64 = sim.nodes.iter().map(|n| n.restarts).sum();
        println!(
            "seed {seed}: {} steps, {restarts} restarts, {} votes, epoch {}, settled after {ms} ms",
            sim.steps,
            sim.votes.len(),
            sim.cluster(0).current_epoch()
        );
    }
}

/// It answered, but could not connect to the node that met it in time.
#[test]
fn who_is_cut_off_while_it_is_met_joins_all_the_same() {
    for seed in seeds(6) {
        let mut sim = Sim::new(seed, 3, 0, 1000);
        let config = ClusterConfig { node_timeout_ms: 1000, ..ClusterConfig::default() };
        sim.add_node(config);
        let id = *sim.cluster(3).myself().id.as_bytes();
        sim.step(3, |c, env| c.meet(ip_of(0).as_bytes(), 6379, 16379, env).unwrap());
        sim.run_until("the other one answers", 5000, |sim| {
            sim.cluster(3).nodes().iter().any(|(_, n)| !n.flags.has(NodeFlags::MYSELF) && !n.in_handshake())
        });
        if seed % 2 == 0 {
            sim.run_until("it is known", 5000, |sim| sim.cluster(0).find(&id).is_some());
        }
        sim.blocked.extend((0..3).flat_map(|no| [((3, no), 0), ((no, 3), 0)]));
        sim.run_for(3000);
        sim.blocked.clear();
        sim.run_until("all know it", 8000, |sim| (0..3).all(|no| sim.cluster(no).find(&id).is_some()));
    }
}

/// Two of the three masters that miss it do not hear from each other, and the fifth reaches it: they cannot tell how many miss it,
/// but others can. Its replica may not take its place at first.
#[test]
fn who_is_missed_by_a_majority_that_does_not_see_itself_is_replaced() {
    for seed in seeds(6) {
        let mut sim = Sim::new(seed, 5, 1, 1000);
        sim.run_for(2000);
        let (gone, heir) = (2, 7);
        let set = |sim: &mut Sim, no_failover: bool| {
            let config = ClusterConfig { replica_no_failover: no_failover, ..sim.nodes[heir].config.clone() };
            sim.step(heir, |c, _| c.apply_config(config, false));
        };
        set(&mut sim, true);
        let cuts = [(0, gone), (1, gone), (3, gone), (0, 3), (heir, gone)];
        sim.blocked.extend(cuts.into_iter().flat_map(|(a, b)| [((a, b), 0), ((b, a), 0)]));
        sim.note_cuts();
        let ms = sim.rng.i64(6000..9000);
        sim.run_for(ms);
        set(&mut sim, false);
        let slot = (gone * SLOT_COUNT / 5) as Slot;
        let ms = sim.until_served(slot, gone, 20_000);
        println!("seed {seed}: served after {ms} ms");
        assert!(ms <= 3000, "seed {seed}: {ms} ms");
    }
}
