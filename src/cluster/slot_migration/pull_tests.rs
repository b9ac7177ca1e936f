//! The pair of `tests` where the target pulls.

use super::tests::Side::{Source, Target};
use super::tests::{A, B, Pair, SLOT, START_MS, node};
use super::*;
use crate::cluster::ClusterConfig;
use crate::cluster::node::NodeFlags;

/// A pair whose source does not wait long for news.
fn quick() -> Pair {
    let mut pair = Pair::new();
    pair.nodes[0].config.slot_pull_hold_ms = 2000;
    pair
}

fn task(pair: &Pair, side: usize) -> TaskView {
    pair.nodes[side].slot_tasks(None).remove(0)
}

fn states(pair: &Pair) -> (&'static str, &'static str) {
    (task(pair, 0).state, task(pair, 1).state)
}

#[test]
fn slots_come_to_the_target_that_asks_for_them() {
    let mut pair = Pair::new();
    pair.begin_pull();
    assert_eq!(task(&pair, 1).state, "none");
    pair.run(2000);
    pair.check_settled("as planned");
    assert_eq!((pair.owner(Source), states(&pair)), ("b", ("completed", "completed")));
    assert!(pair.nodes[1].myself().config_epoch >= 2 && pair.deleted.is_empty());
    let propagated: Vec<String> = pair.propagated.iter().map(|text| String::from_utf8(text.clone()).unwrap()).collect();
    assert!(propagated[0].starts_with("CLUSTER SYNCSLOTS ESTABLISH NAME "), "{propagated:?}");
    assert!(propagated[1].starts_with("CLUSTER SYNCSLOTS FINISH STATE SUCCESS NAME "), "{propagated:?}");
    let (source, target) = (task(&pair, 0), task(&pair, 1));
    assert_eq!((source.operation, target.operation, source.name), ("migrate", "import", target.name));
    assert_eq!((source.slots.as_str(), target.slots.as_str()), ("7 100-102", "7 100-102"));
    assert_eq!((target.retries, target.last_error.as_str(), target.nodes.0.as_str()), (0, "", A));
    assert!(source.ended_ms >= source.begun_ms && source.held_ms < 200, "{source:?}");
}

#[test]
fn a_cut_at_any_moment_is_followed_by_another_attempt() {
    for late in [false, true] {
        for link in [None, Some(Channel::Main), Some(Channel::Snapshot)] {
            let mut first = [0, 0];
            for count in 0..18 {
                let what = format!("cut of {link:?} after {count} messages, late: {late}");
                let mut pair = quick();
                pair.bus = !late;
                pair.begin_pull();
                pair.run_until_delivered(count);
                match link {
                    None => pair.cut(),
                    Some(link) => pair.cut_link(link),
                }
                let owner = pair.owner(Target).to_string();
                first[usize::from(owner == "b")] += 1;
                if late {
                    pair.run(2500);
                }
                pair.bus = true;
                pair.run_until_settled(30_000);
                pair.deleted = vec![SLOT, 100, 101, 102];
                pair.check_settled(&what);
                assert_eq!(pair.owner(Source), "b", "{what}: {:?} {:?}", task(&pair, 0), task(&pair, 1));
            }
            assert!(first[0] > 5, "{first:?}");
        }
    }
}

/// Cuts, delays, a bus that is down, flushes, cancels, and a target that is slow, in an order that a seed says.
#[test]
fn whatever_happens_when_each_slot_has_one_owner() {
    let mut moved = 0;
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut pair = quick();
        pair.begin_pull();
        let mut is_cancelled = false;
        for _ in 0..rng.u32(1..60) {
            match rng.u32(0..19) {
                0 => pair.cut_link(Channel::Main),
                1 => pair.cut_link(Channel::Snapshot),
                2 => pair.bus = !pair.bus,
                3 => pair.now_ms += rng.i64(0..4000),
                4 => pair.streamed[0] += 10,
                5 => pair.streamed[1] = pair.streamed[0],
                6 if seed % 4 == 0 => pair.nodes[0].on_data_flushed(&Env::at(pair.now_ms)),
                7 if seed % 8 == 1 => {
                    is_cancelled |= pair.nodes[1].cancel_tasks(None, &Env::at(pair.now_ms)) > 0;
                }
                8..=11 => pair.gossip(),
                12..=14 => pair.turn(Source),
                15..=17 => pair.turn(Target),
                _ => {}
            }
            if rng.u32(0..3) > 0 {
                pair.deliver(if rng.bool() { Source } else { Target });
            }
            pair.now_ms += rng.i64(0..40);
            pair.check_one_serves();
        }
        pair.bus = true;
        for _ in 0..20 {
            pair.streamed[1] = pair.streamed[0];
            pair.run_until_settled(1000);
        }
        pair.deleted = vec![SLOT, 100, 101, 102];
        let states = (pair.state(Source), pair.state(Target));
        assert!(
            is_cancelled || seed % 4 == 0 || pair.owner(Target) == "b",
            "seed {seed}: {states:?} {:?}",
            task(&pair, 1)
        );
        moved += usize::from(pair.owner(Target) == "b");
        assert_eq!(pair.owner(Source), pair.owner(Target), "seed {seed}");
        assert!(pair.nodes[0].held_slots().is_empty() && pair.nodes[1].importing_slots().is_empty(), "seed {seed}");
        pair.nodes.iter().for_each(Cluster::check_invariants);
    }
    assert!(moved > 20, "{moved}");
}

#[test]
fn a_grant_that_was_long_on_its_way_is_not_taken() {
    let mut pair = Pair::new();
    pair.begin_pull();
    while pair.nodes[0].slot_tasks(None).first().is_none_or(|task| task.state != "stream-eof") {
        pair.run_until_delivered(pair.delivered + 1);
        pair.turn(Source);
        pair.now_ms += 1;
    }
    pair.now_ms += GRANT_LASTS_MS + 1;
    while pair.deliver(Target) {}
    assert!(pair.message(Target).starts_with("Failover was granted too late (state: wait-stream-eof"));
    pair.turn(Target);
    pair.run(1000);
    assert_eq!((pair.owner(Target), pair.state(Source)), ("a", "failover-granted"));
    // The source is not ready until it knows that nothing came of it.
    pair.run_until_settled(20_000);
    pair.deleted = vec![SLOT, 100, 101, 102];
    pair.check_settled("at last");
    assert_eq!((pair.owner(Source), task(&pair, 1).retries), ("b", 1));
}

/// A Redis says nothing of how old its grant is.
#[test]
fn a_target_that_stood_still_takes_nothing_from_a_redis() {
    for (stands_ms, is_granted) in [(100, false), (100, true), (GRANT_LASTS_MS + 1, false), (GRANT_LASTS_MS + 1, true)]
    {
        let mut pair = Pair::new();
        let source = pair.nodes[1].find(A.as_bytes()).unwrap();
        pair.nodes[1].nodes[source].secret = Some([b's'; 40]);
        pair.nodes[0].slot_migration_debug().prevents_pause = true;
        pair.begin_pull();
        pair.run(1000);
        assert_eq!(states(&pair), ("handoff-prep", "wait-stream-eof"));
        pair.nodes[0].slot_migration_debug().prevents_pause = false;
        if is_granted {
            pair.turn(Source);
            pair.turn(Source);
            assert_eq!(states(&pair).0, "stream-eof");
        }
        pair.now_ms += stands_ms;
        pair.run(500);
        match stands_ms {
            100 => assert_eq!(states(&pair), ("completed", "completed")),
            _ => assert!(task(&pair, 1).last_error.starts_with("This node stood still for too long"), "{is_granted}"),
        }
    }
}

#[test]
fn a_source_holds_writes_back_only_when_the_target_is_close_behind() {
    let mut pair = Pair::new();
    pair.begin_pull();
    pair.streamed = [0, 0];
    pair.run_until_delivered(9);
    pair.streamed[0] = 5 << 20;
    pair.run(2000);
    assert_eq!((states(&pair), pair.owner(Target)), (("handoff-prep", "wait-stream-eof"), "a"));
    assert!(pair.nodes[0].held_slots().is_empty());
    // Close enough to hold writes back, but there is more to be run.
    pair.streamed[1] = (5 << 20) - 1000;
    pair.run(500);
    assert_eq!(states(&pair).0, "handoff");
    assert!(pair.nodes[0].held_slots().contains(SLOT));
    pair.streamed[1] = 5 << 20;
    pair.run(500);
    pair.check_settled("all was run");
    assert_eq!(pair.owner(Source), "b");
}

#[test]
fn held_writes_go_on_when_the_target_does_not_keep_up() {
    let mut pair = Pair::new();
    pair.nodes[0].config.slot_pull_hold_ms = 1000;
    pair.begin_pull();
    pair.run_until_delivered(9);
    pair.streamed[0] = 1000;
    pair.run(500);
    assert_eq!(states(&pair).0, "handoff");
    pair.run(1000);
    let error = task(&pair, 0).last_error;
    assert_eq!(error, "Server paused timeout (state: handoff, rdb_channel_state: completed)");
    assert!(pair.nodes[0].held_slots().is_empty());
    pair.run_until_settled(10_000);
    assert_eq!(pair.owner(Source), "b", "the next attempt succeeds");
}

#[test]
fn a_cancelled_or_hopeless_task_is_not_tried_again() {
    type Event = fn(&mut Pair) -> &'static str;
    let events: [Event; 4] = [
        |pair| {
            let env = Env::at(pair.now_ms);
            let name = task(pair, 1).name;
            assert_eq!(pair.nodes[1].cancel_tasks(Some(b"nobody"), &env), 0);
            assert_eq!(pair.nodes[1].cancel_tasks(Some(name.as_bytes()), &env), 1);
            "Cancelled due to user request"
        },
        |pair| {
            pair.nodes[1].on_data_flushed(&Env::at(pair.now_ms));
            "Cancelled due to: Data was flushed"
        },
        |pair| {
            let job = pair.jobs[1].unwrap();
            pair.nodes[1].on_migration_failed(job, "of a type", &Env::at(pair.now_ms));
            "Cancelled due to: of a type"
        },
        |pair| {
            pair.nodes[1].config.durable_acks = 1;
            "Cancelled due to: Slots do not move as a whole while cluster-durable-acks is on"
        },
    ];
    for event in events {
        let mut pair = Pair::new();
        pair.snapshots = false;
        pair.begin_pull();
        pair.run(500);
        let text = event(&mut pair);
        pair.run(1500);
        assert_eq!(states(&pair), ("failed", "canceled"));
        assert!(task(&pair, 1).last_error.starts_with(text), "{}", task(&pair, 1).last_error);
        assert_eq!((pair.owner(Source), pair.deleted.as_slice()), ("a", &[SLOT, 100, 101, 102][..]));
        let last = String::from_utf8(pair.propagated.pop().unwrap()).unwrap();
        assert!(last.starts_with("CLUSTER SYNCSLOTS FINISH STATE FAILED NAME "), "{last}");
    }
}

#[test]
fn a_target_that_becomes_a_replica_leaves_the_task_to_its_master() {
    let mut pair = quick();
    pair.snapshots = false;
    pair.begin_pull();
    pair.run(500);
    assert_eq!(task(&pair, 1).state, "init-rdbchannel");
    let me = pair.nodes[1].myself;
    let third = pair.nodes[1].nodes.iter().map(|(key, _)| key).find(|key| *key != me).unwrap();
    pair.nodes[1].nodes[me].flags.clear(NodeFlags::MASTER);
    pair.nodes[1].nodes[me].replica_of = Some(third);
    pair.turn(Target);
    let shown = task(&pair, 1);
    assert_eq!((shown.state, pair.state(Target)), ("canceled", "occurring-on-primary"));
    assert!(shown.last_error.starts_with("Cancelled due to a failover (state: init-rdbchannel"), "{shown:?}");
    assert!(pair.nodes[1].importing_slots().contains(SLOT) && pair.deleted.is_empty());
    // And if it takes the place of that one, it cleans up and does not begin anew.
    pair.nodes[1].nodes[me].flags.set(NodeFlags::MASTER);
    pair.nodes[1].nodes[me].replica_of = None;
    for _ in 0..40 {
        pair.now_ms += 100;
        pair.turn(Target);
    }
    assert_eq!((task(&pair, 1).state, pair.deleted.len()), ("canceled", 4));
    assert!(pair.nodes[1].importing_slots().is_empty());
}

#[test]
fn slots_that_go_elsewhere_end_the_task_of_the_source() {
    let mut pair = quick();
    pair.snapshots = false;
    pair.begin_pull();
    pair.run(500);
    pair.nodes[0].unbind(101);
    pair.run(200);
    let shown = task(&pair, 0);
    assert_eq!((shown.state, pair.state(Target)), ("canceled", "failed"));
    assert!(shown.last_error.starts_with("Cancelled due to slots configuration updated"), "{shown:?}");
}

#[test]
fn silence_ends_an_attempt() {
    let mut pair = Pair::new();
    for node in &mut pair.nodes {
        node.config.repl_timeout_ms = 3000;
    }
    pair.snapshots = false;
    pair.begin_pull();
    pair.run(4000);
    assert_eq!((states(&pair), task(&pair, 1).retries), (("wait-bgsave-start", "init-rdbchannel"), 0));
    // Nothing comes any more.
    for _ in 0..8 {
        pair.now_ms += 500;
        pair.queues[1].clear();
        pair.turn(Source);
        pair.turn(Target);
    }
    assert!(task(&pair, 1).last_error.contains("Connection timeout"), "{:?}", task(&pair, 1));
}

#[test]
fn what_cannot_be_pulled_is_refused() {
    let mut c = node(B, ClusterConfig::default());
    let env = Env::at(START_MS);
    let mut refusal = |ranges: &[(Slot, Slot)]| c.pull_slots(ranges.to_vec(), "a test", &env).unwrap_err().0;
    assert_eq!(refusal(&[(8200, 8201)]), "this node is already the owner of the slot range");
    assert_eq!(refusal(&[(1, 2), (16000, 16001)]), "slots belong to different source nodes");
    c.unbind(9);
    assert_eq!(c.pull_slots(vec![(9, 9)], "a test", &env).unwrap_err().0, "slot has no owner: 9");
    c.pull_slots(vec![(1, 4)], "a test", &env).unwrap();
    let text = c.pull_slots(vec![(4, 5)], "a test", &env).unwrap_err().0;
    assert_eq!(text, "overlapping import exists for slot range: 4-5");
    let text = c.pull_slots(vec![(6, 6)], "a test", &env).unwrap_err().0;
    assert_eq!(text, "another ASM task is already in progress");
    assert_eq!(c.cancel_tasks(None, &env), 1);
    let source = c.find(A.as_bytes()).unwrap();
    c.importing.insert(3, source);
    let text = c.pull_slots(vec![(6, 6)], "a test", &env).unwrap_err().0;
    assert_eq!(text, "all slot states must be STABLE to start a slot migration task.");
    assert_eq!(in_order(&vec![(7, 8), (1, 2), (3, 6)]), Ok(vec![(1, 8)]));
    assert_eq!(in_order(&vec![(7, 8), (1, 2), (8, 9)]), Err(8));
    assert!(!c.is_secret_of_node(&[7; 40]));
    c.nodes[source].secret = Some([7; 40]);
    assert!(c.is_secret_of_node(&[7; 40]) && !c.is_secret_of_node(&[7; 39]) && !c.is_secret_of_node(&[8; 40]));
}
