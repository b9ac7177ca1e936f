//! A master that is to end has a replica take over.

use super::tests::seeds;
use super::*;
use crate::cluster::HandOverState;

/// Ends the wait of `replicate`: the replica has what its master has.
fn hand_over(sim: &mut Sim, master: NodeNo, replica: NodeNo) {
    sim.run_for(100);
    let id = *sim.cluster(replica).myself().id.as_bytes();
    assert_eq!(sim.cluster(master).rank_as_heir(&id, false), Some(0));
    assert!(sim.cluster(master).may_be_replaced());
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
        sim.step(replica, |c, env| c.failover(FailoverMode::Force, env).unwrap());
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
    assert!(!sim.cluster(1).may_be_replaced());
    assert_eq!(sim.cluster(1).hand_over_state(), HandOverState::Failed);
}
