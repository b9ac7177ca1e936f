//! Large clusters: what they send, how soon they agree, how soon every slot is served again after a failure.
//!
//! `HEXAD_SIM_NODES=1000 cargo test --release --lib a_cluster_as_large_as_asked_for -- --ignored --nocapture`; the other
//! variables are read in [`Scenario::asked_for`].

use super::*;
use std::time::Instant;

/// A cluster of masters with a replica each, of which some masters fail at once.
struct Scenario {
    nodes: usize,
    timeout_ms: i64,
    /// How many masters fail.
    victims: usize,
    /// They stand still rather than die, so that no connection breaks.
    stand_still: bool,
    /// The longest time a packet takes, ms.
    latency_ms: i64,
    /// How many nodes of those that work stand still at any time, for a second at most, as on a busy machine.
    starved: usize,
    seed: u64,
}

/// How a cluster came about, and what it does while nothing happens. Rates are of one node, per second.
struct Formed {
    /// Until every node knew every other and all views agreed.
    formed_ms: i64,
    /// Writes of `nodes.conf` by a node until then.
    saves: f64,
    packets: f64,
    bytes: f64,
    /// Processor time, that of the simulator included, us.
    took_us: f64,
}

/// What came of a failure.
struct Failed {
    /// Until the last slot was served again.
    served_ms: i64,
    elections: usize,
    /// Until all views agreed after those that failed were back.
    back_ms: i64,
}

/// What this thread has had of the processor, us.
fn processor_us() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or(0.0) / 1000.0
}

impl Scenario {
    fn asked_for() -> Scenario {
        let read = |name: &str, default: i64| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default);
        let nodes = read("HEXAD_SIM_NODES", 300) as usize;
        Scenario {
            nodes,
            timeout_ms: read("HEXAD_SIM_TIMEOUT", 2000),
            victims: read("HEXAD_SIM_VICTIMS", nodes as i64 / 6) as usize,
            stand_still: read("HEXAD_SIM_STOP", 0) != 0,
            latency_ms: read("HEXAD_SIM_LATENCY", 3),
            starved: read("HEXAD_SIM_STARVED", 0) as usize,
            seed: read("HEXAD_SIM_SEED", 11) as u64,
        }
    }

    fn run(&self) -> (Formed, Failed) {
        let (mut sim, formed) = self.form();
        let failed = self.fail(&mut sim);
        println!("{} steps", sim.steps);
        (formed, failed)
    }

    fn form(&self) -> (Sim, Formed) {
        let mut sim = Sim::new(self.seed, self.nodes / 2, 1, self.timeout_ms);
        let formed_ms = sim.formed_ms.iter().sum();
        let forming = sim.report("forming", formed_ms);
        println!("every node known after {} ms, views agreed {} ms later", sim.formed_ms[0], sim.formed_ms[1]);
        sim.latency_ms = 0..self.latency_ms;
        sim.run_for(self.timeout_ms + 1000);
        sim.take_sent();
        let idle_ms = self.timeout_ms.max(4000);
        let began_us = processor_us();
        sim.run_for(idle_ms);
        let took_us = processor_us() - began_us;
        let idle = sim.report("idle", idle_ms);
        let rate = |of: f64| of * 1000.0 / idle_ms as f64 / self.nodes as f64;
        let formed = Formed {
            formed_ms,
            saves: forming.saves as f64 / self.nodes as f64,
            packets: rate(idle.packets as f64),
            bytes: rate(idle.bytes as f64),
            took_us: rate(took_us),
        };
        (sim, formed)
    }

    /// Some masters fail at once; then they are back.
    fn fail(&self, sim: &mut Sim) -> Failed {
        let masters = self.nodes / 2;
        let master_of = |shard: usize| sim.of_shard(shard, masters).find(|no| sim.cluster(*no).myself().is_voter());
        let victims: Vec<NodeNo> = (0..self.victims).filter_map(|i| master_of(i * masters / self.victims)).collect();
        for no in &victims {
            if self.stand_still { sim.nodes[*no].paused = true } else { sim.crash(*no) }
        }
        (sim.promotions, sim.elections) = (0, HashSet::new());
        let served_ms = sim.until_all_served(&victims, masters, self.starved, self.timeout_ms * 10 + 10_000);
        sim.report("failing over", *served_ms.last().unwrap_or(&1));
        let elections = sim.elections.len();
        println!(
            "{} failed: served again after {:?} to {:?} ms; {elections} elections begun, {} won",
            victims.len(),
            served_ms.first(),
            served_ms.last(),
            sim.promotions
        );
        for no in victims {
            sim.nodes[no].paused = false;
            sim.step(no, |_, _| ());
            sim.restart(no);
        }
        let back_ms = sim.settle();
        sim.report("coming back", back_ms);
        println!("views agreed {back_ms} ms after they were back");
        Failed { served_ms: served_ms.last().copied().unwrap_or(0), elections, back_ms }
    }
}

impl Sim {
    /// What was sent and written since the last call.
    fn take_sent(&mut self) -> Sent {
        self.nodes.iter_mut().map(|n| std::mem::take(&mut n.sent)).fold(Sent::default(), |a, b| Sent {
            packets: a.packets + b.packets,
            bytes: a.bytes + b.bytes,
            saves: a.saves + b.saves,
        })
    }

    fn report(&mut self, what: &str, ms: i64) -> Sent {
        let sent = self.take_sent();
        let nodes = self.nodes.len() as f64;
        let rate = 1000.0 / ms.max(1) as f64 / nodes;
        println!(
            "{what}: {:.1} packets/s, {:.1} KB/s and {:.2} writes of nodes.conf a node, in {ms} ms",
            sent.packets as f64 * rate,
            sent.bytes as f64 / 1024.0 * rate,
            sent.saves as f64 / nodes
        );
        sent
    }

    /// The master and the replicas of a shard.
    fn of_shard(&self, shard: usize, masters: usize) -> impl Iterator<Item = NodeNo> + use<> {
        (shard..self.nodes.len()).step_by(masters)
    }

    fn starve(&mut self, victims: &[NodeNo], count: usize) {
        let still = self.nodes.iter().filter(|n| n.paused).count();
        for _ in still..count {
            let no = self.rng.usize(0..self.nodes.len());
            if !victims.contains(&no) && !self.nodes[no].paused {
                self.nodes[no].paused = true;
                let ms = self.rng.i64(10..1000);
                self.after(ms, Event::Resume(no));
            }
        }
    }

    /// After how long a replica served the slots of each of these masters, in ascending order.
    fn until_all_served(&mut self, victims: &[NodeNo], masters: usize, starved: usize, within_ms: i64) -> Vec<i64> {
        let (start, mut left, mut times) = (self.now, victims.to_vec(), Vec::new());
        while !left.is_empty() {
            assert!(self.now - start <= within_ms, "seed {}: nobody serves the slots of {left:?}", self.seed);
            self.run_for(5);
            self.starve(victims, starved);
            left.retain(|victim| {
                let slot = (victim % masters * SLOT_COUNT / masters) as Slot;
                let heirs = self.of_shard(victim % masters, masters).filter(|no| no != victim);
                let served =
                    heirs.filter_map(|no| self.nodes[no].cluster.as_ref()).any(|c| c.myself().slots.contains(slot));
                if served {
                    times.push(self.now - start);
                }
                !served
            });
        }
        // As long as a slot is not served, none is, unless full coverage is not required.
        self.run_until("the cluster is up", within_ms, |sim| {
            sim.alive().all(|(no, c)| c.is_up() || sim.nodes[no].paused)
        });
        times
    }
}

#[test]
#[ignore = "as large as asked for, and as slow"]
fn a_cluster_as_large_as_asked_for() {
    Scenario::asked_for().run();
}

/// One master of a thousand nodes, then a third of all masters: `make simulate-large`.
#[test]
#[ignore = "takes minutes"]
fn a_thousand_nodes_lose_nothing_and_cost_less_than_their_number() {
    const SIZES: [usize; 4] = [60, 100, 300, 1000];
    let timeout_ms = 15_000;
    let formed = SIZES.map(|nodes| {
        let began = Instant::now();
        println!("== {nodes} nodes");
        let one = Scenario { nodes, timeout_ms, victims: 1, stand_still: false, latency_ms: 3, starved: 0, seed: 21 };
        let third = Scenario { victims: nodes / 6, ..one };
        let (mut sim, formed) = one.form();
        assert!(formed.formed_ms <= 10_000, "{} ms", formed.formed_ms);
        let served_ms = one.fail(&mut sim).served_ms;
        assert!(served_ms <= timeout_ms + 500, "{served_ms} ms");
        let served_ms = third.fail(&mut sim).served_ms;
        assert!(served_ms <= timeout_ms + 2000, "{served_ms} ms");
        println!("took {:.0} s", began.elapsed().as_secs_f64());
        formed
    });
    let [few, .., many] = &formed;
    let growth = SIZES[3] as f64 / SIZES[0] as f64;
    for (what, few, many) in [("packets", few.packets, many.packets), ("bytes", few.bytes, many.bytes)] {
        println!("{what}: {:.2} times as much for {growth:.1} times the nodes", many / few);
        assert!(many / few < growth, "{what}");
    }
    // The memory of a thousand nodes is in no cache, that of one of them is.
    println!("processor time, us a node-second: {:?}", formed.map(|f| f.took_us.round()));
}

#[test]
fn a_third_of_the_masters_is_replaced_at_once() {
    let scenario =
        Scenario { nodes: 60, timeout_ms: 2000, victims: 10, stand_still: false, latency_ms: 3, starved: 0, seed: 11 };
    let (formed, failed) = scenario.run();
    assert!(formed.formed_ms <= 4000, "{} ms", formed.formed_ms);
    assert!(formed.saves <= 10.0, "{}", formed.saves);
    assert!(formed.packets <= 60.0, "{}", formed.packets);
    assert!(failed.served_ms <= 2000 + 500, "{} ms", failed.served_ms);
    assert_eq!(failed.elections, 10, "one each");
    assert!(failed.back_ms <= 3000, "{} ms", failed.back_ms);
}

/// Its connections stand, so that only pings show that it is absent, and each master pings it seldom.
#[test]
fn a_master_that_stands_still_is_missed_by_all_as_soon_as_by_one() {
    let scenario =
        Scenario { nodes: 60, timeout_ms: 15_000, victims: 1, stand_still: true, latency_ms: 3, starved: 0, seed: 12 };
    let (formed, failed) = scenario.run();
    assert!(formed.packets <= 15.0, "{}", formed.packets);
    assert!(failed.served_ms <= 15_000 + 500, "{} ms", failed.served_ms);
}

/// There are few others to notice it.
#[test]
fn one_of_three_masters_that_stands_still_is_missed_soon() {
    for (timeout_ms, seed) in [(5000, 13), (15_000, 14)] {
        let scenario =
            Scenario { nodes: 6, timeout_ms, victims: 1, stand_still: true, latency_ms: 3, starved: 0, seed };
        let (_, failed) = scenario.run();
        assert!(failed.served_ms <= timeout_ms + 700, "{} ms", failed.served_ms);
    }
}
