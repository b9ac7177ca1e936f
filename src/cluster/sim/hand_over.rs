//! A master that is to end has a replica take over.

use super::tests::seeds;
use super::*;
use crate::cluster::HandOverState;

/// Ends the wait of `replicate`: the replica has what its master has.
fn hand_over(sim: &mut Sim, master: NodeNo, replica: NodeNo) {
    sim.run_for(100);
    let id = *sim.cluster(replica).myself().id.as_bytes();
    assert_eq!(sim.cluster(master).rank_as_heir(&id, false), Some(0));
    assert!(sim.cluster(master).may_be_replaced(true));
    sim.step(master, |c, env| c.hand_over(&id, env));
    assert!(!sim.takes_writes(master), "it stops writing at once");
    sim.run_for(60);
    assert_eq!(sim.nodes[replica].offset, sim.nodes[master].offset);
}

#[test]
fn a_master_that_is_to_end_stops_writing_before_its_replica_begins() {
    for seed in seeds(4) {
        let masters = [1, 3, 5][seed as usize % 3];
        let mut sim = Sim::new(seed, masters, 2, 2000);
        let master = sim.rng.usize(0..masters);
        let replica = master + masters * sim.rng.usize(1..3);
        hand_over(&mut sim, master, replica);
        assert_eq!(sim.cluster(master).hand_over_state(), HandOverState::UnderWay);
        let offset = sim.nodes[master].offset;
        sim.step(replica, |c, env| c.take_over_as_told(env));
        let ms = sim.run_until("it took over", 1000, |sim| {
            let old = sim.cluster(master);
            // Nobody is told that the cluster is down: requests wait, and then they are sent on.
            assert!(old.holds_all_clients() || old.is_up());
            old.hand_over_state() == HandOverState::Done && sim.takes_writes(replica)
        });
        println!("seed {seed}: {ms} ms");
        assert_eq!(sim.nodes[master].offset, offset);
        assert!(sim.cluster(master).myself().is_replica() && sim.nodes[master].clients_held_ms == 0);
        sim.crash(master);
        sim.run_for(3000);
        sim.restart(master);
        sim.settle();
    }
}

/// What the new master says may come later than what the old one does: between the two somebody serves the slots, too.
#[test]
fn others_may_hear_from_the_old_master_who_took_over() {
    for seed in seeds(4) {
        let mut sim = Sim::new(seed, 3, 1, 2000);
        hand_over(&mut sim, 0, 3);
        sim.blocked.insert((3, 1), 1);
        sim.note_cuts();
        sim.step(3, |c, env| c.take_over_as_told(env));
        sim.run_until("another knows who took over", 1000, |sim| {
            let c = sim.cluster(1);
            assert!(c.is_up());
            let owner = c.node(c.owner_of(0).expect("nobody seems to serve the slot"));
            owner.id == sim.cluster(3).myself().id
        });
        sim.blocked.clear();
        sim.settle();
    }
}

/// The order was called off, say, but the replica may yet obey.
#[test]
fn a_master_that_stays_writes_again_only_when_its_replica_has_given_up() {
    let mut sim = Sim::new(3, 3, 1, 2000);
    hand_over(&mut sim, 1, 4);
    sim.run_for(5000);
    assert!(!sim.takes_writes(1));
    assert_eq!(sim.cluster(1).hand_over_state(), HandOverState::UnderWay);
    sim.run_for(800);
    assert!(sim.takes_writes(1));
    assert_eq!(sim.cluster(1).hand_over_state(), HandOverState::Failed);
}

#[test]
fn without_a_majority_nobody_is_told_to_take_over() {
    let mut sim = Sim::new(5, 3, 1, 2000);
    let id = *sim.cluster(4).myself().id.as_bytes();
    assert_eq!(sim.cluster(1).rank_as_heir(sim.cluster(3).myself().id.as_bytes(), true), None);
    sim.nodes[4].config.replica_no_failover = true;
    let config = sim.nodes[4].config.clone();
    sim.step(4, |c, _| c.set_config(config));
    sim.run_for(2000);
    assert_eq!((sim.cluster(1).rank_as_heir(&id, false), sim.cluster(1).rank_as_heir(&id, true)), (None, Some(1)));
    sim.step(1, |c, env| c.hand_over(&id, env));
    sim.crash(0);
    sim.run_for(100);
    assert_eq!(sim.cluster(1).hand_over_state(), HandOverState::UnderWay, "two of three are enough");
    sim.crash(2);
    // At once, not when they are found to have failed.
    sim.run_for(100);
    assert!(!sim.cluster(1).may_be_replaced(true));
    assert_eq!(sim.cluster(1).hand_over_state(), HandOverState::Failed);
}

/// It stood in the stream for longer than the master waited: the replica stood still, or lost its connection.
#[test]
fn an_order_that_comes_late_deposes_nobody() {
    for seed in seeds(6) {
        let mut sim = Sim::new(seed, 3, 1, 2000);
        hand_over(&mut sim, 1, 4);
        // What the master sends while it waits is on its way, too, in half of the cases.
        let stood_still = seed % 2 == 0;
        if stood_still {
            sim.nodes[4].paused = true;
        }
        sim.run_for(6000);
        if stood_still {
            sim.nodes[4].paused = false;
        }
        sim.run_until("the master takes writes again", 10_000, |sim| sim.takes_writes(1));
        let promotions = sim.promotions;
        sim.step(4, |c, env| c.take_over_as_told(env));
        for _ in 0..80 {
            sim.run_for(100);
            assert!(sim.cluster(1).myself().is_master() && sim.nodes[1].clients_held_ms <= sim.now, "seed {seed}");
        }
        assert_eq!(sim.promotions, promotions, "seed {seed}");
        assert!(sim.takes_writes(1) && !sim.cluster(4).manual_failover_in_progress());
    }
}

/// It does not wait for what comes of it (`shutdown-timeout 0`).
#[test]
fn a_master_that_told_its_replica_and_ended_is_replaced_before_it_is_missed() {
    for seed in seeds(4) {
        let mut sim = Sim::new(seed, 3, 1, 5000);
        hand_over(&mut sim, 1, 4);
        let is_gone_first = seed % 2 == 0;
        if is_gone_first {
            sim.crash(1);
        }
        sim.step(4, |c, env| c.take_over_as_told(env));
        sim.crash(1);
        let ms = sim.run_until("it took over", 3000, |sim| sim.takes_writes(4));
        println!("seed {seed}: {ms} ms");
        sim.restart(1);
        sim.settle();
    }
}
