//! What a primary and its replicas come to, over many seeds.

use super::*;

/// Three nodes, two of them replicas of the first, that are the same.
fn in_sync(seed: u64) -> World {
    let mut world = World::new(seed, 3);
    world.follow(1, 0);
    world.follow(2, 0);
    world.write();
    world.run(3000);
    world.converge();
    world
}

#[test]
fn nodes_come_to_the_same_stream_whatever_happens() {
    let number = |name: &str, default| std::env::var(name).map_or(default, |n| n.parse().unwrap());
    let first = number("HEXAD_SIM_SEED", 1);
    for seed in first..first + number("HEXAD_SIM_SEEDS", 200) {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed, 3);
            world.follow(1, 0);
            world.follow(2, usize::from(seed % 2 == 0));
            world.has_faults = true;
            for _ in 0..1000 {
                world.step();
                world.write();
                if world.rng.u32(0..20) == 0 {
                    world.disturb();
                }
            }
            world.settle();
            for _ in 0..50 {
                world.step();
                world.write();
            }
            world.converge();
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

#[test]
fn links_that_break_cost_no_full_synchronization() {
    for seed in 1..20 {
        let mut world = in_sync(seed);
        let before = world.full_syncs();
        for _ in 0..30 {
            world.write();
            for no in world.conns.keys().copied().collect::<Vec<_>>() {
                world.break_conn(no);
            }
            world.run(200);
            world.write();
        }
        world.converge();
        assert_eq!(world.full_syncs(), before, "seed {seed}\n{}", world.logs());
    }
}

#[test]
fn a_promoted_replica_continues_with_the_others() {
    for seed in 1..20 {
        let mut world = in_sync(seed);
        let before = world.full_syncs();
        world.event(1, Repl::stop_following);
        world.follow(2, 1);
        world.follow(0, 2);
        world.write();
        world.converge();
        assert_eq!(world.nodes[1].repl.stats().sync_partial_ok, 1);
        assert_eq!(world.full_syncs(), before, "seed {seed}\n{}", world.logs());
    }
}

#[test]
fn failover_swaps_roles_and_loses_nothing() {
    for seed in 1..20 {
        let mut world = in_sync(seed);
        let before = world.full_syncs();
        world.write();
        assert!(world.event(0, |repl, env| repl.request_failover(None, 4000, false, env)).is_ok());
        assert!(world.nodes[0].paused);
        let data = world.nodes[0].data.clone();
        world.run(5000);
        let primary = world.nodes.iter().position(|node| !node.repl.is_replica()).unwrap();
        assert!(primary != 0 && !world.nodes[0].paused, "seed {seed}\n{}", world.logs());
        assert_eq!(world.nodes[primary].data, data);
        // The third one goes on with the old primary, which is a replica now.
        world.converge();
        assert_eq!(world.full_syncs(), before, "seed {seed}\n{}", world.logs());
    }
}

#[test]
fn who_waits_is_told_when_replicas_have_what_was_written() {
    let mut world = in_sync(1);
    let client = ClientId { index: 0, generation: 9 };
    let before = world.nodes[0].repl.offset();
    world.parted.extend([(0, 1), (0, 2)]);
    while world.nodes[0].repl.offset() == before {
        world.write();
    }
    let offset = world.nodes[0].repl.offset();
    world.nodes[0].repl.wait_for(client, Awaited::Acks { offset, replicas: 2 });
    // Those who wait for more, for what nobody has written, or not any longer, hold nobody up.
    let others = [(1, offset, 3), (2, offset + 1_000_000, 2), (3, offset - 1, 2)];
    for (index, offset, replicas) in others {
        world.nodes[0].repl.wait_for(ClientId { index, generation: 9 }, Awaited::Acks { offset, replicas });
    }
    let gone = Awaited::Acks { offset: offset - 1, replicas: 2 };
    world.nodes[0].repl.forget_waiter(ClientId { index: 3, generation: 9 }, gone);
    world.run(1000);
    assert_eq!(world.released, []);
    world.parted.clear();
    world.run(1000);
    assert_eq!(world.released, [(client, WaitAnswer::Acks(2))]);
    for (index, offset, replicas) in others {
        let waits = Awaited::Acks { offset, replicas };
        world.nodes[0].repl.forget_waiter(ClientId { index, generation: 9 }, waits);
    }
    assert!(!world.nodes[0].repl.is_restless());

    let on_disk = Awaited::Disk { offset, local: 1, replicas: 0 };
    assert_eq!(world.nodes[0].repl.wait_answer(on_disk, None), WaitAnswer::Disk { local: 0, replicas: 0 });
    assert!(world.nodes[0].repl.wait_answer(on_disk, Some(offset)).meets(on_disk));
    world.nodes[0].repl.wait_for(client, on_disk);
    world.run(1);
    assert_eq!(world.released[1..], [(client, WaitAnswer::NoAof)]);
}
