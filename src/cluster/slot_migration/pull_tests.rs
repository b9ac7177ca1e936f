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

/// The target pulls, and waits for the snapshot.
fn before_snapshot(mut pair: Pair) -> Pair {
    pair.snapshots = false;
    pair.begin_pull();
    pair.run(500);
    pair
}

fn task(pair: &Pair, side: usize) -> TaskView {
    pair.nodes[side].slot_tasks(None).remove(0)
}

/// Each attempt that failed has deleted the slots once.
fn check_deleted(pair: &Pair, what: &str) {
    let task = task(pair, 1);
    let failed = task.retries as usize + usize::from(task.state == "canceled");
    let all: Vec<Slot> = [SLOT, 100, 101, 102].repeat(failed);
    // One that is cancelled between attempts has nothing to delete.
    let is_right = pair.deleted == all || task.state == "canceled" && pair.deleted == all[4..];
    assert!(is_right, "{what}: {:?} after {task:?}", pair.deleted);
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
    assert!(pair.nodes[1].myself().epochs.config >= 2 && pair.deleted.is_empty());
    let propagated: Vec<String> = pair.propagated.iter().map(|text| String::from_utf8(text.clone()).unwrap()).collect();
    assert!(propagated[0].starts_with("CLUSTER SYNCSLOTS ESTABLISH NAME "), "{propagated:?}");
    assert!(propagated[1].starts_with("CLUSTER SYNCSLOTS FINISH STATE SUCCESS NAME "), "{propagated:?}");
    let (source, target) = (task(&pair, 0), task(&pair, 1));
    assert_eq!((source.operation, target.operation, source.name), ("migrate", "import", target.name));
    assert_eq!((source.slots.as_str(), target.slots.as_str()), ("7-7 100-102", "7-7 100-102"));
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
                check_deleted(&pair, &what);
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
                6 if seed % 4 == 0 => pair.nodes[0].on_data_flushed(None, &Env::at(pair.now_ms)),
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
        check_deleted(&pair, &format!("seed {seed}"));
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
    check_deleted(&pair, "at last");
    pair.check_settled("at last");
    assert_eq!((pair.owner(Source), task(&pair, 1).retries), ("b", 1));
}

#[test]
fn a_grant_that_a_target_was_kept_from_using_is_not_taken() {
    for pulls in [false, true] {
        let mut pair = quick();
        pair.nodes[0].config.manual_failover_timeout_ms = 500;
        if pulls {
            pair.begin_pull()
        } else {
            pair.begin()
        }
        while pair.nodes[1].jobs.list.front().is_none_or(|job| job.state != State::MayTakeOver) {
            pair.run_until_delivered(pair.delivered + 1);
            pair.turn(Source);
        }
        if pulls {
            pair.turn(Target);
        }
        assert_eq!((pair.state(Source), pair.state(Target)), ("failover-granted", "failover-granted"));
        // It answers a ping before it goes on.
        pair.now_ms += 2500;
        pair.gossip();
        pair.turn(Source);
        assert_eq!((pair.state(Source), pair.owner(Source)), ("failed", "a"));
        pair.turn(Target);
        pair.turn(Target);
        pair.check_one_serves();
        assert!(pair.message(Target).starts_with("The target could not take over in time"), "{}", pair.message(Target));
        pair.run_until_settled(10_000);
        pair.check_settled("at last");
        assert_eq!(pair.owner(Source), if pulls { "b" } else { "a" });
    }
}

#[test]
fn nothing_more_is_read_from_a_link_that_is_lost() {
    for channel in [Channel::Main, Channel::Snapshot] {
        let mut pair = before_snapshot(Pair::new());
        assert_eq!(states(&pair), ("wait-bgsave-start", "init-rdbchannel"));
        let job = pair.jobs[1].unwrap();
        assert!(pair.nodes[1].awaits_reply(job.snapshot()));
        pair.nodes[1].on_migration_link_lost(JobLink { job, channel }, &Env::at(pair.now_ms));
        assert!(!pair.nodes[1].awaits_reply(job.snapshot()) && !pair.nodes[1].awaits_reply(job.main()));
    }
}

#[test]
fn a_task_between_attempts_leaves_alone_what_comes_in_another_way() {
    let mut pair = before_snapshot(Pair::new());
    pair.cut();
    pair.turn(Target);
    assert_eq!(task(&pair, 1).state, "failed");
    assert!(pair.nodes[1].check_importable(&vec![(50, 101)]).is_err());
    assert_eq!(pair.nodes[1].check_importable(&vec![(103, 104)]), Ok(()));
    // It comes nevertheless, from a node that asked before.
    let (env, source) = (Env::at(pair.now_ms), pair.nodes[1].find(A.as_bytes()));
    let name = NodeId::parse(&[b'5'; 40]).unwrap();
    let asked = Establish { source, name, ranges: vec![(100, 100)], owner: source };
    pair.nodes[1].establish(asked, Origin::Source, &env).unwrap();
    let (prepared, deleted) = (pair.prepared, pair.deleted.len());
    pair.run(3000);
    let pulled = || pair.nodes[1].slot_tasks(None).into_iter().find(|task| task.name != name).unwrap();
    assert_eq!((pulled().state, pair.prepared, pair.deleted.len()), ("none", prepared, deleted));
    // Now they are ours.
    for slot in [SLOT, 100, 101, 102] {
        let me = pair.nodes[1].my_key();
        pair.nodes[1].unbind(slot);
        pair.nodes[1].bind(slot, me);
    }
    pair.turn(Target);
    let pulled = pair.nodes[1].slot_tasks(None).into_iter().find(|task| task.name != name).unwrap();
    assert_eq!((pulled.state, pair.prepared, pair.deleted.len()), ("canceled", prepared, deleted));
    assert!(pulled.last_error.starts_with("Given up: slots owned by myself now (state: none"), "{}", pulled.last_error);
}

#[test]
fn a_task_of_a_target_that_was_a_replica_meanwhile_is_not_tried_again() {
    for is_told in [true, false] {
        let mut pair = Pair::new();
        pair.snapshots = false;
        pair.begin_pull();
        match is_told {
            true => pair.run(500),
            false => pair.run_until_delivered(2),
        }
        let (me, third) = (pair.nodes[1].my_key(), pair.nodes[1].find(&[b'c'; 40]).unwrap());
        pair.nodes[1].unbind_all_of(me);
        pair.nodes[1].set_master(third);
        pair.turn(Target);
        assert_eq!(pair.state(Target), if is_told { "occurring-on-primary" } else { "cancelled" });
        pair.nodes[1].set_node_as_master(me);
        for _ in 0..60 {
            pair.turn(Target);
            pair.now_ms += 50;
        }
        assert_eq!(pair.state(Target), if is_told { "failed" } else { "cancelled" });
        assert!(pair.nodes[1].importing_slots().is_empty() && pair.nodes[1].jobs.open == 0);
        assert_eq!(pair.nodes[1].cancel_tasks(None, &Env::at(pair.now_ms)), 0);
    }
}

#[test]
fn replicas_hear_of_an_attempt_when_the_source_has_agreed() {
    let mut pair = Pair::new();
    let target = pair.nodes[0].find(B.as_bytes()).unwrap();
    pair.nodes[0].migrating.insert(3, target);
    pair.begin_pull();
    pair.run(5000);
    assert!(task(&pair, 1).retries > 2, "{:?}", task(&pair, 1));
    assert!(pair.propagated.is_empty() && pair.nodes[1].imports_text().is_empty());
    pair.nodes[0].migrating.clear();
    pair.run(3000);
    assert_eq!((states(&pair), pair.propagated.len()), (("completed", "completed"), 2));
}

#[test]
fn a_task_that_is_cancelled_on_the_source_is_over_for_the_target_too() {
    let mut pair = before_snapshot(Pair::new());
    assert_eq!(pair.nodes[0].cancel_tasks(None, &Env::at(pair.now_ms)), 1);
    pair.run(3000);
    assert_eq!(states(&pair), ("canceled", "canceled"));
    let error = task(&pair, 1).last_error;
    assert!(error.starts_with("Given up: The task was cancelled on the source"), "{error}");
    check_deleted(&pair, "cancelled");
    // Another task is another matter.
    (pair.snapshots, pair.deleted) = (true, Vec::new());
    pair.begin_pull();
    pair.run(2000);
    assert_eq!(states(&pair), ("completed", "completed"));
}

#[test]
fn what_hinders_an_attempt_for_a_while_does_not_end_the_task() {
    let mut pair = Pair::new();
    pair.begin_pull();
    pair.run_until_delivered(9);
    let job = pair.jobs[1].unwrap();
    pair.nodes[1].on_migration_hindered(job, "busy", &Env::at(pair.now_ms));
    pair.turn(Target);
    assert_eq!((task(&pair, 1).state, task(&pair, 1).ended_ms), ("failed", None));
    assert!(task(&pair, 1).last_error.starts_with("busy"));
    while pair.deliver(Source) {}
    pair.turn(Source);
    // The source remembers the task from one attempt to the next.
    let first = task(&pair, 0);
    assert_eq!((first.state, first.last_error.is_empty()), ("failed", false));
    while task(&pair, 0).retries == 0 {
        pair.run(50);
    }
    assert_eq!((task(&pair, 0).created_ms, task(&pair, 0).last_error), (first.created_ms, first.last_error));
    pair.run(2000);
    assert_eq!((states(&pair), task(&pair, 1).retries), (("completed", "completed"), 1));
    check_deleted(&pair, "tried again");
}

#[test]
fn a_cancel_counts_what_it_cancels() {
    for fails_first in [false, true] {
        let mut pair = before_snapshot(Pair::new());
        let (env, job) = (Env::at(pair.now_ms), pair.jobs[1].unwrap());
        if fails_first {
            pair.nodes[1].on_migration_link_lost(job.main(), &env);
        }
        assert_eq!(pair.nodes[1].cancel_tasks(None, &env), 1);
        assert_eq!((task(&pair, 1).state, task(&pair, 1).ended_ms), ("canceled", Some(env.now_ms)));
        assert_eq!(pair.nodes[1].jobs.list[0].state, State::CleaningUp);
        assert_eq!(pair.nodes[1].cancel_tasks(None, &env), 0);
        pair.run(3000);
        assert_eq!((task(&pair, 1).state, task(&pair, 1).ended_ms), ("canceled", Some(env.now_ms)));
    }
    // One of the other dialect that has failed has failed.
    let mut pair = Pair::new();
    pair.snapshots = false;
    pair.begin();
    pair.run(500);
    let (env, job) = (Env::at(pair.now_ms), pair.jobs[1].unwrap());
    pair.nodes[1].on_migration_link_lost(job.main(), &env);
    assert_eq!(pair.nodes[1].cancel_tasks(None, &env), 0);
    // A source whose slots may have been taken is told once.
    let mut pair = Pair::new();
    pair.nodes[1].slot_migration_debug().prevents_failover = true;
    pair.begin_pull();
    pair.run(1000);
    assert_eq!(states(&pair).0, "stream-eof");
    let env = Env::at(pair.now_ms);
    assert_eq!((pair.nodes[0].cancel_tasks(None, &env), pair.nodes[0].cancel_tasks(None, &env)), (1, 0));
}

#[test]
fn of_nodes_that_pull_from_each_other_the_one_with_the_smaller_id_gives_first() {
    let mut pair = Pair::new();
    pair.nodes[0].slot_migration_debug().prevents_pause = true;
    pair.begin_pull();
    pair.run(1000);
    assert_eq!(states(&pair), ("handoff-prep", "wait-stream-eof"));
    // The other way all is ready, too.
    let (env, name) = (Env::at(pair.now_ms), NodeId::parse(&[b'5'; 40]).unwrap());
    let (first, target) = (pair.nodes[1].find(A.as_bytes()).unwrap(), pair.nodes[1].my_key());
    let asked = |target| Sync { name, ranges: vec![(8200, 8200)], target, is_numbered: false };
    assert!(pair.nodes[1].serve_pull(asked(target), &env).is_err(), "to itself");
    let job = pair.nodes[1].serve_pull(asked(first), &env).unwrap().unwrap();
    pair.nodes[1].open_snapshot_channel(name, &env).unwrap();
    pair.nodes[1].on_snapshot_started(job, &env);
    pair.nodes[1].on_snapshot_ended(job, &env);
    pair.nodes[1].on_migration_message(job.main(), Message::Applied { bytes: 0, is_caught_up: false }, &env);
    pair.run(500);
    let given = |pair: &Pair| pair.nodes[1].slot_tasks(Some(name.as_bytes())).remove(0).state;
    assert_eq!((given(&pair), pair.nodes[1].held_slots().is_empty()), ("handoff-prep", true));
    pair.nodes[0].slot_migration_debug().prevents_pause = false;
    pair.run(500);
    assert_eq!((given(&pair), pair.owner(Target)), ("stream-eof", "b"));
}

#[test]
fn writes_may_be_held_back_for_as_long_as_can_be_said() {
    let mut pair = Pair::new();
    pair.nodes[0].config.slot_pull_hold_ms = i64::MAX;
    pair.begin_pull();
    pair.run(2000);
    pair.check_moved("as planned");
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
    pair.check_moved("all was run");
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
fn an_attempt_whose_target_does_not_catch_up_ends() {
    let mut pair = Pair::new();
    pair.nodes[0].config.slot_pull_drain_ms = 3000;
    pair.begin_pull();
    pair.run_until_delivered(9);
    pair.streamed[0] = 5 << 20;
    pair.run(2800);
    assert_eq!(states(&pair), ("handoff-prep", "wait-stream-eof"));
    pair.run(600);
    let error = task(&pair, 0).last_error;
    assert!(error.starts_with("Sync buffer drain timeout"), "{error}");
    pair.run_until_settled(10_000);
    assert_eq!(pair.owner(Source), "b", "the next attempt succeeds");
}

/// How long the snapshot took says how fast the target is.
#[test]
fn a_target_that_took_long_for_the_snapshot_has_twice_that_to_catch_up() {
    let mut c = node(A, ClusterConfig::default());
    c.config.slot_pull_drain_ms = 3000;
    let name = NodeId::parse(&[b'5'; 40]).unwrap();
    let asked = Sync { name, ranges: vec![(1, 4)], target: c.find(B.as_bytes()).unwrap(), is_numbered: false };
    c.serve_pull(asked, &Env::at(START_MS)).unwrap();
    let pull = &mut c.jobs.list[0].pull;
    (pull.streamed, pull.snapshot_ms) = (5 << 20, START_MS);
    let falls_behind = |c: &Cluster, ms| c.falls_behind(0, &Env::at(START_MS + ms));
    assert!(!falls_behind(&c, 100_000), "it is still at the snapshot");
    c.jobs.list[0].pull.caught_up_ms = Some(START_MS + 10_000);
    assert_eq!([29_999, 30_001].map(|ms| falls_behind(&c, ms)), [false, true]);
    c.jobs.list[0].pull.snapshot_ms = START_MS + 9000;
    assert_eq!([12_999, 13_001].map(|ms| falls_behind(&c, ms)), [false, true]);
    c.jobs.list[0].pull.applied = 4 << 20;
    assert!(!falls_behind(&c, 100_000), "it is close");
}

/// A Redis takes over before its log is written: what we have answered for is to be in it by then, if answers are to last.
#[test]
fn a_redis_that_pulls_is_let_take_over_when_it_has_run_all_that_is_to_last() {
    let mut c = node(A, ClusterConfig::default());
    let name = NodeId::parse(&[b'5'; 40]).unwrap();
    let asked = Sync { name, ranges: vec![(1, 4)], target: c.find(B.as_bytes()).unwrap(), is_numbered: false };
    c.serve_pull(asked, &Env::at(START_MS)).unwrap();
    for (applied, syncs_replies, is_there) in
        [(0, false, true), (0, true, false), (999, true, false), (1000, true, true)]
    {
        let job = &mut c.jobs.list[0];
        (job.asked_ms, job.backlog, job.pull.streamed, job.pull.applied) = (None, 0, 1000, applied);
        c.note_asked(0, &Env { syncs_replies, ..Env::at(START_MS) });
        assert_eq!(c.jobs.list[0].asked_ms.is_some(), is_there, "{applied} {syncs_replies}");
    }
    // What is not sent is not run.
    c.jobs.list[0].backlog = 1;
    c.note_asked(0, &Env::at(START_MS));
    assert_eq!(c.jobs.list[0].asked_ms, None);
}

#[test]
fn whether_an_attempt_may_begin_is_looked_at_now_and_then() {
    let mut c = node(B, ClusterConfig::default());
    c.pull_slots(vec![(1, 4)], "a test", &Env::at(START_MS)).unwrap();
    let is_look = |action: &Action| matches!(action, Action::SlotMigration(Order::Prepare { .. }));
    let mut looks = 0;
    for ms in 0..100 {
        let env = Env::at(START_MS + ms);
        c.advance_slot_migrations(&env);
        looks += c.flush(&env).iter().filter(|action| is_look(action)).count();
    }
    assert_eq!(looks, 5);
}

/// Whether the source is killed before or after the target has taken over: it holds writes back until it knows.
#[test]
fn a_source_that_was_restarted_knows_whom_it_may_have_let_take_over() {
    for is_taken in [false, true] {
        let mut pair = quick();
        pair.nodes[1].slot_migration_debug().prevents_failover = true;
        pair.begin_pull();
        pair.run(1000);
        assert_eq!(states(&pair), ("stream-eof", "takeover"));
        let text = pair.nodes[0].nodes_conf();
        pair.bus = false;
        if is_taken {
            pair.nodes[1].slot_migration_debug().prevents_failover = false;
            (0..3).for_each(|_| pair.turn(Target));
            assert_eq!(pair.owner(Target), "b");
        }
        pair.nodes[0] = Cluster::from_nodes_conf(pair.nodes[0].config.clone(), 1, pair.now_ms, &text).unwrap();
        pair.cut();
        // It does not try again.
        pair.nodes[1].cancel_tasks(None, &Env::at(pair.now_ms));
        (pair.nodes[0].state_ok, pair.nodes[0].lease_end_ms) = (true, i64::MAX);
        pair.run(5000);
        assert!(pair.nodes[0].held_slots().contains(SLOT), "nothing is known yet");
        pair.bus = true;
        pair.run(1000);
        assert_eq!(
            (pair.owner(Source), pair.nodes[0].held_slots().is_empty()),
            (if is_taken { "b" } else { "a" }, true)
        );
        assert!(!pair.nodes[0].nodes_conf().contains("grantedSlots"));
    }
}

#[test]
fn what_is_written_down_of_grants_is_read() {
    let text = format!("{}:{A}:7-7,100-102;{}:{B}:0-0", "5".repeat(40), "6".repeat(40));
    let grants = parse_grants(&text).unwrap();
    assert_eq!((grants.len(), grants[0].ranges.as_slice()), (2, &[(7, 7), (100, 102)][..]));
    assert_eq!(grants[1].target.as_str(), B);
    for wrong in ["", "x", &text[1..], format!("{text};").as_str(), text.replace("0-0", "0-16384").as_str()] {
        assert_eq!(parse_grants(wrong), None, "{wrong}");
    }
}

/// What a Redis 8 tells its replicas of an import, and we tell ours.
#[test]
fn a_replica_hides_what_its_master_imports_until_that_is_over() {
    let mut pair = Pair::new();
    pair.begin_pull();
    pair.run(2000);
    let words = |state: &str| format!("{}:{A}:{B}:import:{state}:7-7 100-102", task(&pair, 1).name);
    let of_target: Vec<&String> = pair.told.iter().filter(|told| told.contains(":import:")).collect();
    let told = |state| format!("CLUSTER SYNCSLOTS CONF ASM-TASK {}", words(state));
    assert_eq!(of_target, [&told("syncslots-reply"), &told("completed")]);
    assert!(pair.told.iter().any(|told| told.contains(":migrate:send-bulk-and-stream:7-7 100-102")), "{:?}", pair.told);

    let mut c = node(B, ClusterConfig::default());
    let (me, env) = (c.myself, Env::at(START_MS));
    c.nodes[me].flags.clear(NodeFlags::MASTER);
    let track = |c: &mut Cluster, text: &str| (c.track_task(text.as_bytes(), &env), !c.importing_slots().is_empty());
    assert_eq!(track(&mut c, &words("failed")), (false, false), "one that is over");
    assert_eq!(track(&mut c, &words("connecting")), (true, true));
    assert_eq!(track(&mut c, &words("accumulate-buffer")), (false, true));
    assert_eq!(track(&mut c, &words("completed")), (true, false));
    // What came of one that failed is hidden until it goes.
    assert_eq!(track(&mut c, &words("connecting")), (true, true));
    assert_eq!(track(&mut c, &words("failed")), (false, true));
    c.on_slots_trimmed(&[7].into_iter().collect(), &env);
    assert!(c.importing_slots().contains(7), "not all of it");
    c.on_slots_trimmed(&[7, 100, 101, 102].into_iter().collect(), &env);
    assert!(c.importing_slots().is_empty());
    for other in [words("connecting").replace("import", "migrate").as_str(), "", ":::::", "x:y:z:import:connecting:1-2"]
    {
        assert_eq!(track(&mut c, other), (false, false), "{other}");
    }
}

#[test]
fn a_pause_of_clients_ends_what_is_pulled_here_and_a_node_that_is_forgotten_may_come_back() {
    let mut pair = before_snapshot(quick());
    let env = Env::at(pair.now_ms);
    pair.nodes[0].cancel_pulls("client pause requested", &env);
    assert_eq!(states(&pair).0, "wait-bgsave-start", "a source writes nothing here");
    pair.nodes[1].cancel_pulls("client pause requested", &env);
    assert_eq!(states(&pair).1, "canceled");
    assert!(task(&pair, 1).last_error.starts_with("Cancelled due to client pause requested"));
    // Another one may be asked for at once, and begins when what came is gone.
    pair.begin_pull();
    assert_eq!((pair.deleted.len(), states(&pair).1), (0, "none"));
    pair.snapshots = true;
    pair.run_until_settled(5000);
    assert_eq!((pair.deleted.len(), pair.owner(Source)), (4, "b"));

    let mut pair = before_snapshot(quick());
    let target = NodeId::parse(B.as_bytes()).unwrap();
    pair.nodes[0].end_jobs_with(&target, &Env::at(pair.now_ms));
    assert_eq!(states(&pair).0, "canceled");
    assert!(task(&pair, 0).last_error.starts_with("Cancelled due to node deleted"));
    pair.snapshots = true;
    pair.run_until_settled(5000);
    assert_eq!((pair.owner(Source), task(&pair, 0).retries), ("b", 1));
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
            "Cancelled by a command"
        },
        |pair| {
            pair.nodes[1].on_data_flushed(None, &Env::at(pair.now_ms));
            "Given up: Data was flushed"
        },
        |pair| {
            let job = pair.jobs[1].unwrap();
            pair.nodes[1].on_migration_failed(job, "of a type", &Env::at(pair.now_ms));
            "Given up: of a type"
        },
        |pair| {
            pair.nodes[1].config.durable_acks = 1;
            "Given up: Slots do not move as a whole while cluster-durable-acks is on"
        },
    ];
    for event in events {
        let mut pair = before_snapshot(Pair::new());
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
    let mut pair = before_snapshot(quick());
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
    let mut pair = before_snapshot(quick());
    pair.nodes[0].unbind(101);
    pair.run(200);
    let shown = task(&pair, 0);
    assert_eq!((shown.state, pair.state(Target)), ("canceled", "failed"));
    assert!(shown.last_error.starts_with("Cancelled due to slots configuration updated"), "{shown:?}");
    // The same if the target hears of it first, and breaks off.
    let mut pair = before_snapshot(quick());
    pair.cut();
    pair.run(50);
    assert_eq!(task(&pair, 0).state, "failed");
    pair.nodes[0].unbind(101);
    pair.run(50);
    let shown = task(&pair, 0);
    assert!(shown.state == "canceled" && shown.last_error.starts_with("Cancelled due to slots"), "{shown:?}");
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
    // Nor is one of its slots opened, closed or given away by hand; others are no matter of it.
    for opens in [false, true] {
        let text = c.check_no_slot_migration(4, opens).unwrap_err().0;
        assert!(text.starts_with("Slot 4 is in an active atomic slot migration"), "{text}");
        assert_eq!(c.check_no_slot_migration(5, opens), Ok(()));
    }
    assert_eq!(c.cancel_tasks(None, &env), 1);
    assert_eq!(c.check_no_slot_migration(4, true), Ok(()));
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
