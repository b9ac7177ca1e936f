//! Clusters that form by themselves.

use super::tests::seeds;
use super::*;

/// So many nodes, of which the first ones are seeds, for clusters of three masters with a replica each.
fn blank(seed: u64, count: usize, seeds: usize, timeout_ms: i64) -> Sim {
    let mut sim = Sim::empty(seed, 3, 0);
    let mut listed: Vec<String> = (0..seeds).map(|no| format!("{}:6379", ip_of(no))).collect();
    for no in 0..count {
        // The order in which they are written does not matter.
        sim.rng.shuffle(&mut listed);
        let config = ClusterConfig {
            node_timeout_ms: timeout_ms,
            names: vec!["red".into()],
            seeds: listed.clone(),
            form_masters: 3,
            form_replicas: 1,
            zone: ["a", "b", "c"][no % 3].into(),
            ..ClusterConfig::default()
        };
        sim.add_node(config);
    }
    for no in 0..count {
        sim.step(no, |_, _| ());
    }
    sim.after(50, Event::Replicate);
    sim
}

/// Masters with slots, and those of them whose replica is in another zone.
fn shape(sim: &Sim) -> (usize, usize) {
    let c = sim.cluster(0);
    let zone = |key| no_of(&c.node(key).ip).unwrap_or(0) % 3;
    let masters: Vec<_> = c.nodes().iter().filter(|(_, n)| n.is_voter()).collect();
    let spread = |key, n: &&crate::cluster::node::Node| n.replicas.iter().any(|r| zone(*r) != zone(key));
    (masters.len(), masters.iter().filter(|(key, n)| spread(*key, n)).count())
}

fn is_formed(sim: &Sim) -> bool {
    let is_done = |c: &Cluster| c.describe_info().contains("cluster_forming:done");
    let done = sim.alive().filter(|(_, c)| is_done(c)).count();
    done >= 6 && sim.is_settled()
}

#[test]
fn six_nodes_become_a_cluster_and_others_wait_until_they_are_wanted() {
    for seed in seeds(4) {
        let mut sim = blank(seed, 6 + seed as usize % 3, [1, 3, 5][seed as usize % 3], 2000);
        let ms = sim.run_until("it is formed", 20_000, is_formed);
        println!("seed {seed}: formed after {ms} ms");
        assert!(ms < 8000, "seed {seed}: {ms} ms");
        assert_eq!(shape(&sim), (3, 3), "seed {seed}");
        // A seventh has no place, until one more is wanted.
        let config = sim.nodes[0].config.clone();
        sim.add_node(config);
        let late = sim.nodes.len() - 1;
        sim.step(late, |_, _| ());
        sim.run_for(8000);
        assert!(sim.cluster(late).describe_info().contains("cluster_forming:spare"), "seed {seed}");
        for no in 0..sim.nodes.len() {
            sim.nodes[no].config.form_replicas = 2;
            let config = sim.nodes[no].config.clone();
            sim.step(no, |c, _| c.set_config(config));
        }
        let spares = sim.nodes.len() - 6;
        sim.run_until("the spare ones have places", 10_000, |sim| {
            sim.alive().all(|(_, c)| c.myself().slot_count > 0 || c.myself().is_replica())
        });
        sim.settle();
        let c = sim.cluster(0);
        let mut counts: Vec<usize> =
            c.nodes().iter().filter(|(_, n)| n.is_voter()).map(|(_, n)| n.replicas.len()).collect();
        counts.sort_unstable();
        assert_eq!(counts.iter().sum::<usize>(), 3 + spares);
        assert!(counts[2] - counts[0] <= 1, "seed {seed}: {counts:?}");
    }
}

#[test]
fn nothing_is_formed_with_a_node_or_most_seeds_missing() {
    for seed in seeds(2) {
        let mut sim = blank(seed, 12, 3, 2000);
        // Enough for a cluster on either side; the first seed alone on one, the others on the other.
        let fault = sim.next_fault;
        for a in 0..12 {
            for b in (0..12).filter(|b| a % 2 != b % 2) {
                sim.blocked.insert((a, b), fault);
            }
        }
        // Seeds are 0, 1 and 2: two of them are even, and the first is.
        for b in (0..12).filter(|b| *b != 2) {
            sim.blocked.insert((2, b), fault);
            sim.blocked.insert((b, 2), fault);
        }
        sim.run_for(30_000);
        assert!(sim.alive().all(|(_, c)| c.myself().slot_count == 0 && c.myself().is_master()), "seed {seed}");
        sim.blocked.clear();
        sim.run_until("it is formed", 30_000, is_formed);
        assert_eq!(shape(&sim).0, 3);
        let mut five = blank(seed + 100, 5, 3, 2000);
        five.run_for(30_000);
        assert!(five.alive().all(|(_, c)| c.myself().slot_count == 0 && c.myself().is_master()));
    }
}

#[test]
fn who_has_data_or_is_of_a_cluster_is_left_alone() {
    let mut sim = blank(3, 6, 3, 2000);
    sim.step(4, |c, _| c.add_slots(&[(0, 100)]).unwrap());
    sim.run_for(20_000);
    assert_eq!(sim.cluster(4).myself().slot_count, 101);
    assert!(sim.alive().all(|(no, c)| no == 4 || c.myself().slot_count == 0 && c.myself().is_master()));
}

/// The founder, or anybody else, ends at any moment.
#[test]
fn whoever_crashes_while_it_forms_there_is_one_cluster_in_the_end() {
    for seed in seeds(12) {
        let mut sim = blank(seed, 6 + seed as usize % 4, 3, 2000);
        sim.faults = true;
        for _ in 0..3 {
            let first_actions = sim.rng.usize(1..400);
            let no = [0, sim.rng.usize(0..6)][sim.rng.usize(0..2)];
            sim.nodes[no].doomed = Some(first_actions);
        }
        if seed % 2 == 0 {
            sim.start_faults();
        }
        sim.run_for(30_000);
        sim.faults = false;
        for no in 0..sim.nodes.len() {
            sim.nodes[no].doomed = None;
            sim.nodes[no].paused = false;
            sim.restart(no);
        }
        sim.blocked.clear();
        sim.note_cuts();
        let ms = sim.run_until("it is formed", 150_000, is_formed);
        println!("seed {seed}: formed {ms} ms after the last fault");
        assert_eq!(shape(&sim).0, 3, "seed {seed}");
    }
}
