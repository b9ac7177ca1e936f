//! A machine with too little processor for its nodes: every turn of every node comes late.

use super::*;

/// What nodes that run were seen to do.
#[derive(Default)]
struct Seen {
    /// Milliseconds in which a master with slots that runs took no writes.
    refused_ms: i64,
    /// Masters that run and were replaced.
    replaced: usize,
}

impl Sim {
    /// Runs, and looks every few milliseconds whether masters serve, all but these.
    fn look_on(&mut self, ms: i64, dead: &[NodeNo]) -> Seen {
        let (end, mut seen) = (self.now + ms, Seen::default());
        let masters = |sim: &Sim| -> Vec<NodeNo> {
            sim.alive().filter(|(_, c)| c.myself().is_voter()).map(|(no, _)| no).collect()
        };
        let mut before = masters(self);
        while self.now < end {
            self.run_for(10);
            let now = masters(self);
            seen.replaced += before.iter().filter(|no| !now.contains(no) && !dead.contains(no)).count();
            seen.refused_ms += 10 * now.iter().filter(|no| !self.takes_writes(**no)).count() as i64;
            before = now;
        }
        seen
    }
}

/// A cluster on a starved machine.
struct Starved {
    masters: usize,
    replicas: usize,
    timeout_ms: i64,
    /// The longest time between two turns of a node.
    late_ms: i64,
    /// How many masters die.
    victims: usize,
}

impl Starved {
    fn by_seed(seed: u64) -> Starved {
        let masters = 6 + seed as usize % 10;
        Starved {
            masters,
            replicas: 1 + seed as usize % 7 / 5,
            timeout_ms: [1000, 2000, 5000, 15_000][seed as usize % 4],
            late_ms: [100, 200, 300][seed as usize % 3],
            victims: masters / 3,
        }
    }

    /// Who is dead is replaced, and nobody else; how long after the node timeout.
    fn run(&self, seed: u64) -> i64 {
        let (masters, timeout) = (self.masters, self.timeout_ms);
        let mut sim = Sim::new(seed, masters, self.replicas, timeout);
        sim.set_rates(0.02);
        sim.late_ms = 0..self.late_ms;
        sim.disk_ms = 0..1;
        sim.run_for(3000);
        let calm = sim.look_on(timeout * 3, &[]);
        assert_eq!(calm.replaced, 0, "seed {seed}: who runs, if late, is replaced");
        let apart = masters / self.victims;
        let victims: Vec<NodeNo> = (0..self.victims).map(|i| i * apart + sim.rng.usize(0..apart)).collect();
        victims.iter().for_each(|no| sim.crash(*no));
        let slots: Vec<Slot> = victims.iter().map(|no| (no * SLOT_COUNT / masters) as Slot).collect();
        let served_ms = sim.run_until("all slots are served", timeout + 60_000, |sim| {
            let owns = |slot: Slot| sim.alive().any(|(_, c)| c.owner_of(slot) == Some(c.my_key()));
            slots.iter().all(|slot| owns(*slot))
        });
        let after = sim.look_on(timeout, &victims);
        assert_eq!(after.replaced, 0, "seed {seed}: who runs, if late, is replaced");
        println!(
            "seed {seed}: {masters} masters with {} each, timeout {timeout}, {} late: refused {} ms before, served again {} ms \
             after the timeout",
            self.replicas,
            self.late_ms,
            calm.refused_ms,
            served_ms - timeout
        );
        served_ms - timeout
    }
}

/// Their requests take longer than the delays between them.
#[test]
fn siblings_whose_requests_cross_do_not_split_the_votes_for_ever() {
    for seed in tests::seeds(6) {
        let starved = Starved {
            masters: 4 + seed as usize % 4,
            replicas: 2 + seed as usize % 3 / 2,
            timeout_ms: 1000,
            late_ms: 300,
            victims: 1 + seed as usize % 2,
        };
        let ms = starved.run(seed);
        assert!(ms <= 6000, "seed {seed}: {ms} ms");
    }
}

#[test]
fn a_starved_cluster_replaces_who_is_dead_and_nobody_else() {
    for seed in tests::seeds(1) {
        Starved::by_seed(seed).run(seed);
    }
}

/// Of each master that dies two replicas ask for votes while those of other masters do.
#[test]
fn a_third_of_many_masters_with_two_replicas_each_is_replaced_on_a_starved_machine() {
    let ms = Starved::by_seed(68).run(68);
    assert!(ms <= 6000, "{ms} ms");
}
