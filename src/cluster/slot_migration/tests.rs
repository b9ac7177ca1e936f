//! A source and a target without links between them but those made here, under a clock that stands until it is moved.
//! Here the source pushes; `pull_tests` has the same pair where the target pulls.

use super::*;
use crate::cluster::ClusterConfig;
use crate::cluster::node::NodeFlags;

pub(super) const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(super) const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const C: &str = "cccccccccccccccccccccccccccccccccccccccc";
const IDS: [&str; 3] = [A, B, C];
pub(super) const SLOT: Slot = 7;
pub(super) const START_MS: i64 = 1_000_000;

/// Where things go from: the source or the target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Side {
    Source,
    Target,
}
use Side::{Source, Target};

pub(super) fn node(myself: &str, config: ClusterConfig) -> Cluster {
    let flags = |id| if id == myself { "myself,master" } else { "master" };
    let text = format!(
        "{A} 10.0.0.1:7000@17000 {} - 0 0 1 connected 0-8191\n{B} 10.0.0.2:7001@17001 {} - 0 0 2 connected 8192-15999\n\
         {C} 10.0.0.3:7002@17002 {} - 0 0 3 connected 16000-16383\n",
        flags(A),
        flags(B),
        flags(C),
    );
    let mut c = Cluster::from_nodes_conf(config, 1, START_MS, &text).unwrap();
    c.flush(&Env::at(START_MS));
    (c.state_ok, c.lease_end_ms) = (true, i64::MAX);
    c.nodes.for_each_mut(|node| node.granted_ms = START_MS + 1);
    c
}

/// Both nodes and one that only listens, what is on its way between them, and what the server of each has done.
pub(super) struct Pair {
    pub(super) nodes: [Cluster; 3],
    pub(super) now_ms: i64,
    /// Commands and replies, by receiver. Nothing: the link is cut there.
    pub(super) queues: [VecDeque<(Channel, Vec<u8>)>; 2],
    /// The ids by which both know the link; `None`: it is cut there.
    pub(super) jobs: [Option<JobId>; 2],
    /// The same of a second link for the snapshot.
    pub(super) second: [Option<JobId>; 2],
    /// The target pulls. It wants the grant numbered, if it said so.
    pulls: bool,
    is_numbered: bool,
    /// Bytes of the stream that the source has said and the target has run.
    pub(super) streamed: [u64; 2],
    /// Packets of the bus pass.
    pub(super) bus: bool,
    /// But not between these two.
    no_bus_between: Option<(usize, usize)>,
    pub(super) snapshots: bool,
    pub(super) delivered: usize,
    pub(super) deleted: Vec<Slot>,
    /// How often the target was to see whether its slots are empty.
    pub(super) prepared: usize,
    pub(super) propagated: Vec<Vec<u8>>,
    /// What replicas alone were told.
    pub(super) told: Vec<String>,
}

impl Pair {
    pub(super) fn new() -> Pair {
        let config = || ClusterConfig { require_full_coverage: false, ..ClusterConfig::default() };
        Pair {
            nodes: IDS.map(|id| node(id, config())),
            now_ms: START_MS,
            queues: Default::default(),
            jobs: [None, None],
            second: [None, None],
            pulls: false,
            is_numbered: false,
            streamed: [0, 0],
            bus: true,
            no_bus_between: None,
            snapshots: true,
            delivered: 0,
            deleted: Vec::new(),
            prepared: 0,
            propagated: Vec::new(),
            told: Vec::new(),
        }
    }

    pub(super) fn begin(&mut self) {
        let (ranges, env) = (vec![(SLOT, SLOT), (100, 102)], Env::at(self.now_ms));
        let target = self.nodes[0].find(B.as_bytes()).unwrap();
        self.nodes[0].migrate_slots(vec![(ranges, target)], "a test", &env);
    }

    pub(super) fn begin_pull(&mut self) {
        self.pulls = true;
        let env = Env::at(self.now_ms);
        self.nodes[1].pull_slots(vec![(SLOT, SLOT), (100, 102)], "a test", &env).unwrap();
    }

    pub(super) fn state(&self, side: Side) -> &'static str {
        self.nodes[side as usize].slot_migrations().first().map_or("none", |job| job.state)
    }

    pub(super) fn message(&self, side: Side) -> String {
        self.nodes[side as usize].slot_migrations()[0].message.clone()
    }

    pub(super) fn owner(&self, side: Side) -> &str {
        let node = &self.nodes[side as usize];
        node.nodes[node.owner_of(SLOT).unwrap()].id.as_str().get(..1).unwrap()
    }

    /// The end of a turn on one side.
    pub(super) fn turn(&mut self, side: Side) {
        let env = Env::at(self.now_ms);
        let at = side as usize;
        if let Some(job) = self.jobs[at] {
            match side {
                Source => self.nodes[0].note_migration_streamed(job, self.streamed[0]),
                Target => self.nodes[1].note_migration_applied(job, self.streamed[1], true, &env),
            }
        }
        self.nodes[at].advance_slot_migrations(&env);
        loop {
            let actions = self.nodes[at].flush(&env);
            if actions.is_empty() {
                break;
            }
            for action in actions {
                if let Action::SlotMigration(order) = action {
                    self.carry_out(side, order);
                }
            }
        }
    }

    fn carry_out(&mut self, side: Side, order: Order) {
        let env = Env::at(self.now_ms);
        let (at, other) = (side as usize, 1 - side as usize);
        match order {
            Order::Connect { link, ip, port } => {
                let address = if self.pulls { ("10.0.0.1", 7000) } else { ("10.0.0.2", 7001) };
                assert_eq!((ip.as_str(), port), address);
                *self.link(at, link.channel) = Some(link.job);
                self.nodes[at].on_migration_connected(link, None, &env);
            }
            Order::Send { link, bytes } => {
                if *self.link(at, link.channel) == Some(link.job) {
                    self.queues[other].push_back((link.channel, bytes));
                }
            }
            Order::Close { job } => {
                self.close(at, Channel::Snapshot, job);
                self.close(at, Channel::Main, job);
            }
            Order::CloseSnapshotLink { job } => self.close(at, Channel::Snapshot, job),
            Order::Prepare { job, .. } => {
                self.prepared += 1;
                self.nodes[at].on_import_ready(job, &env);
            }
            Order::Snapshot { job, .. } if self.snapshots => {
                if self.pulls {
                    self.queues[1].push_back((Channel::Snapshot, b"+SLOTSSNAPSHOT\r\n".to_vec()));
                }
                self.nodes[at].on_snapshot_started(job, &env);
                self.nodes[at].on_snapshot_ended(job, &env);
            }
            // A source that is not ready says that it is there, as a Redis does that waits for another child.
            Order::Snapshot { job, .. } if self.pulls => {
                self.nodes[0].note_migration_heard(job, self.now_ms);
                self.queues[1].push_back((Channel::Snapshot, b"\n".to_vec()));
            }
            Order::Delete { job, slots } => {
                self.deleted.extend(slots.iter());
                self.nodes[at].on_slots_deleted(job, &env);
            }
            Order::Propagate(command) => self.propagated.push(command.join(&b' ')),
            Order::Tell(command) => self.told.push(String::from_utf8(command.join(&b' ')).unwrap()),
            Order::Snapshot { .. } | Order::Adopt { .. } | Order::Review => {}
        }
    }

    fn link(&mut self, at: usize, channel: Channel) -> &mut Option<JobId> {
        match channel {
            Channel::Main => &mut self.jobs[at],
            Channel::Snapshot => &mut self.second[at],
        }
    }

    fn close(&mut self, at: usize, channel: Channel, job: JobId) {
        if self.link(at, channel).take_if(|link| *link == job).is_some() {
            self.queues[1 - at].push_back((channel, Vec::new()));
        }
    }

    /// Gives one side what is next for it; false if there is nothing.
    pub(super) fn deliver(&mut self, side: Side) -> bool {
        let at = side as usize;
        let Some((channel, bytes)) = self.queues[at].pop_front() else { return false };
        self.delivered += 1;
        let env = Env::at(self.now_ms);
        let text = String::from_utf8(bytes).unwrap();
        let words: Vec<&str> = text.lines().skip(1).filter(|line| !line.starts_with('$')).collect();
        match (words.as_slice(), *self.link(at, channel)) {
            ([], Some(job)) if text.starts_with(['+', '-', '\n']) => {
                let link = JobLink { job, channel };
                self.nodes[at].on_migration_reply(link, text.trim_end().as_bytes(), &env);
            }
            ([], Some(job)) => {
                *self.link(at, channel) = None;
                self.nodes[at].on_migration_link_lost(JobLink { job, channel }, &env);
            }
            (["AUTH", "internal connection", _], None) => {
                self.queues[1].push_back((channel, b"+OK\r\n".to_vec()));
            }
            (["CLUSTER", "SYNCSLOTS", word, rest @ ..], None) if side == Source && self.pulls => {
                self.answer_puller(word, rest);
            }
            (["CLUSTER", "SYNCSLOTS", "ESTABLISH", "SOURCE", source, "NAME", name, "SLOTSRANGE", ..], None) => {
                assert_eq!(*source, A);
                let node = &mut self.nodes[1];
                let source = node.find(source.as_bytes());
                let name = NodeId::parse(name.as_bytes()).unwrap();
                let asked =
                    Establish { source, name, ranges: vec![(SLOT, SLOT), (100, 102)], owner: node.owner_of(SLOT) };
                let reply = match node.establish(asked, Origin::Source, &env) {
                    Ok(job) => {
                        self.jobs[1] = Some(job);
                        "+OK\r\n".to_string()
                    }
                    Err(e) => format!("-ERR {e}\r\n"),
                };
                self.queues[0].push_back((Channel::Main, reply.into_bytes()));
            }
            (["CLUSTER", "SYNCSLOTS", word, rest @ ..], Some(job)) => {
                let rest: Vec<&[u8]> = rest.iter().map(|word| word.as_bytes()).collect();
                let message = Message::of(word.as_bytes(), &rest);
                self.nodes[at].on_migration_message(JobLink { job, channel }, message, &env);
            }
            _ => {}
        }
        true
    }

    /// What a target that pulls says where the source knows no link.
    fn answer_puller(&mut self, word: &str, rest: &[&str]) {
        let env = Env::at(self.now_ms);
        let node = &mut self.nodes[0];
        let name = NodeId::parse(rest[0].as_bytes());
        let (channel, reply) = match word {
            "CONF" => {
                assert_eq!(rest[..2], ["NODE-ID", B]);
                self.is_numbered = rest[2..] == ["CAPA", "numbered-eof"];
                (Channel::Main, "+OK\r\n".to_string())
            }
            "SYNC" => {
                let (target, ranges) = (node.find(B.as_bytes()).unwrap(), vec![(SLOT, SLOT), (100, 102)]);
                let asked = Sync { name: name.unwrap(), ranges, target, is_numbered: self.is_numbered };
                let reply = match node.serve_pull(asked, &env) {
                    Ok(Some(job)) => {
                        (self.jobs[0], self.streamed) = (Some(job), [0, 0]);
                        "+RDBCHANNELSYNCSLOTS\r\n".to_string()
                    }
                    Ok(None) => "-NOTREADY\r\n".to_string(),
                    Err(e) => format!("-ERR {e}\r\n"),
                };
                (Channel::Main, reply)
            }
            "RDBCHANNEL" => match node.open_snapshot_channel(name.unwrap(), &env) {
                Ok(job) => return self.second[0] = Some(job),
                Err(e) => (Channel::Snapshot, format!("-ERR {e}\r\n")),
            },
            // It was on its way when the link went.
            _ => return,
        };
        self.queues[1].push_back((channel, reply.into_bytes()));
    }

    /// The connection is gone, with all that is on its way; each side hears of it.
    pub(super) fn cut(&mut self) {
        self.cut_link(Channel::Snapshot);
        self.cut_link(Channel::Main);
    }

    pub(super) fn cut_link(&mut self, channel: Channel) {
        for at in 0..2 {
            self.queues[at].retain(|(other, _)| *other != channel);
            if let Some(job) = self.link(at, channel).take() {
                self.nodes[at].on_migration_link_lost(JobLink { job, channel }, &Env::at(self.now_ms));
            }
        }
    }

    /// What the bus tells all, if it works: the owner with the greater epoch wins, and pings are answered.
    pub(super) fn gossip(&mut self) {
        let env = Env::at(self.now_ms);
        for (from, at) in [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)] {
            let is_cut = self.no_bus_between.is_some_and(|(a, b)| (a, b) == (from, at) || (b, a) == (from, at));
            if is_cut || !self.bus {
                continue;
            }
            let header = self.nodes[from].header(0, &env);
            let node = &mut self.nodes[at];
            let about = node.find(IDS[from].as_bytes()).unwrap();
            node.take_in_header(about, &header, &env);
            node.resolve_epoch_collision(about, &header);
            node.take_in_slots(about, &header, &env);
            node.nodes[about].granted_ms = self.now_ms;
            // Who claims what another has by a greater epoch is told so.
            let owner = header.slots.iter().find_map(|slot| {
                let owner = &node.nodes[node.claimed_owner(slot)?];
                (owner.epochs.config > header.epochs.config).then(|| (owner.id, owner.epochs, owner.slots.clone()))
            });
            if let Some((id, epochs, slots)) = owner {
                let about = self.nodes[from].find(id.as_bytes()).unwrap();
                self.nodes[from].take_in_owner(about, epochs, &slots, &env);
            }
        }
    }

    /// Lets everything take its course for so long.
    pub(super) fn run(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            for side in [Source, Target] {
                while self.deliver(side) {}
                self.turn(side);
            }
            self.gossip();
            self.check_one_serves();
            self.now_ms += 50;
        }
    }

    /// Lets everything take its course until nothing of it is left, for so long at most.
    pub(super) fn run_until_settled(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        let is_over = |node: &Cluster| node.jobs.open == 0;
        while self.now_ms < end_ms {
            self.run(50);
            let is_known = self.owner(Source) == self.owner(Target);
            if is_known && is_over(&self.nodes[0]) && is_over(&self.nodes[1]) {
                return self.run(100);
            }
        }
    }

    /// Never do both serve writes.
    pub(super) fn check_one_serves(&self) {
        let is_source = self.owner(Source) == "a" && !self.nodes[0].held_slots().contains(SLOT);
        assert!(!is_source || self.owner(Target) != "b", "both serve writes");
    }

    /// Goes on until so many messages were delivered.
    pub(super) fn run_until_delivered(&mut self, count: usize) {
        for _ in 0..200 {
            for side in [Source, Target] {
                self.turn(side);
                if self.delivered >= count {
                    return;
                }
                self.deliver(side);
                if self.delivered >= count {
                    return;
                }
            }
        }
    }

    /// Everybody agrees on one owner, and nothing is left of the job.
    pub(super) fn check_settled(&self, what: &str) {
        assert_eq!(self.owner(Source), self.owner(Target), "{what}");
        let third = &self.nodes[2];
        assert_eq!(third.nodes[third.owner_of(SLOT).unwrap()].id.as_str().get(..1), Some(self.owner(Source)), "{what}");
        assert!(self.nodes[0].held_slots().is_empty(), "{what}: writes are held back");
        assert!(self.nodes[1].importing_slots().is_empty(), "{what}: slots are hidden");
        let is_moved = self.owner(Source) == "b";
        let ended = [self.state(Source), self.state(Target)];
        match is_moved {
            true => assert_eq!(ended, ["success", "success"], "{what}"),
            false => {
                assert!(["failed", "cancelled", "none"].contains(&ended[0]), "{what}: {ended:?}");
                assert!(["failed", "none"].contains(&ended[1]), "{what}: {ended:?}");
                assert!(ended[1] == "none" || self.deleted == [SLOT, 100, 101, 102], "{what}: {:?}", self.deleted);
            }
        }
        self.nodes.iter().for_each(Cluster::check_invariants);
    }

    /// The same, and the slots have moved.
    pub(super) fn check_moved(&self, what: &str) {
        self.check_settled(what);
        assert_eq!(self.owner(Source), "b", "{what}");
    }
}

#[test]
fn slots_go_to_the_target_which_takes_them_under_a_new_epoch() {
    let mut pair = Pair::new();
    pair.begin();
    pair.run(1000);
    pair.check_settled("as planned");
    assert_eq!((pair.owner(Source), pair.owner(Target)), ("b", "b"));
    assert!(pair.nodes[1].myself().epochs.config >= 2 && pair.deleted.is_empty());
    let propagated = String::from_utf8(pair.propagated.concat()).unwrap();
    assert!(propagated.starts_with("CLUSTER SYNCSLOTS FINISH STATE SUCCESS NAME "), "{propagated}");
    // Nothing that was not asked for.
    assert_eq!(pair.nodes[1].owner_of(99), pair.nodes[1].find(A.as_bytes()));
}

#[test]
fn a_cut_at_any_moment_leaves_each_slot_with_one_owner_and_its_keys_there() {
    // With the bus at work, and with news of the takeover that are late.
    for late in [false, true] {
        let mut owners = [0, 0];
        for count in 0..14 {
            let mut pair = Pair::new();
            pair.bus = !late;
            pair.begin();
            pair.run_until_delivered(count);
            pair.cut();
            pair.run(8000);
            let owner = pair.owner(Target).to_string();
            if late && owner == "b" {
                assert_eq!(pair.state(Source), "failover-granted", "the source waits for news");
                assert!(pair.nodes[0].held_slots().contains(SLOT));
            }
            pair.bus = true;
            pair.run(20_000);
            pair.check_settled(&format!("cut after {count} messages, late: {late}"));
            assert_eq!(pair.owner(Source), owner, "what the target took is not taken back");
            owners[usize::from(owner == "b")] += 1;
        }
        assert!(owners[0] > 5 && owners[1] > 1, "{owners:?}");
    }
}

#[test]
fn writes_are_held_back_from_the_pause_until_the_outcome_is_known() {
    let mut pair = Pair::new();
    pair.bus = false;
    pair.begin();
    let mut states = Vec::new();
    for count in 1..14 {
        pair.run_until_delivered(count);
        pair.turn(Source);
        let held = pair.nodes[0].held_slots();
        states.push((pair.state(Source), held.contains(SLOT) && held.contains(101)));
    }
    for (state, is_held) in &states {
        assert_eq!(*is_held, ["failover-paused", "failover-granted"].contains(state), "{states:?}");
    }
    assert_eq!(states.last(), Some(&("failover-granted", true)));
    assert_eq!(pair.owner(Target), "b");
    pair.run(60_000);
    assert_eq!(pair.state(Source), "failover-granted", "without news there is nothing to go by");
    pair.bus = true;
    pair.run(100);
    pair.check_settled("at last");
}

#[test]
fn a_grant_that_was_long_on_its_way_is_not_taken() {
    let mut pair = Pair::new();
    pair.begin();
    while pair.state(Source) != "failover-granted" {
        pair.run_until_delivered(pair.delivered + 1);
        pair.turn(Source);
    }
    assert_eq!(pair.state(Target), "failover-requested");
    pair.now_ms += GRANT_LASTS_MS + 1;
    while pair.deliver(Target) {}
    pair.turn(Target);
    assert_eq!((pair.state(Target), pair.message(Target).as_str()), ("failed", "Failover was granted too late"));
    pair.run(15_000);
    pair.check_settled("late grant");
    assert_eq!(pair.owner(Target), "a");
}

#[test]
fn a_source_waits_with_a_grant_no_longer_than_was_said() {
    let mut pair = Pair::new();
    pair.nodes[1].slot_migration_debug().prevents_failover = true;
    pair.nodes[0].config.manual_failover_timeout_ms = 5000;
    pair.begin();
    pair.run(500);
    let job = &pair.nodes[0].jobs.list[0];
    assert_eq!((job.state, job.hold_until_ms), (State::Granted, job.paused_ms.unwrap() + 10_000));
}

#[test]
fn a_target_that_is_lost_after_the_grant_gives_the_slots_back_and_cannot_take_them_later() {
    let mut pair = Pair::new();
    pair.bus = false;
    pair.begin();
    pair.run(1000);
    assert_eq!((pair.owner(Target), pair.state(Source)), ("b", "failover-granted"));
    // It took over and died before anybody heard of it: the cluster finds that it has failed.
    let lost = pair.nodes[1].myself().epochs.config;
    let target = pair.nodes[0].find(B.as_bytes()).unwrap();
    pair.nodes[0].nodes[target].flags.set(NodeFlags::FAIL);
    for _ in 0..400 {
        assert_eq!(pair.nodes[0].bump_my_epoch().0, pair.state(Source) != "failover-granted");
        pair.turn(Source);
        pair.now_ms += 50;
    }
    assert_eq!(pair.state(Source), "failover-granted", "those who would know of a claim have not answered");
    let third = pair.nodes[0].find(C.as_bytes()).unwrap();
    pair.nodes[0].nodes[third].granted_ms = pair.now_ms;
    pair.now_ms += 50;
    pair.turn(Source);
    assert_eq!((pair.state(Source), pair.owner(Source)), ("failed", "a"));
    assert!(pair.nodes[0].myself().epochs.config > lost);
    // It comes back.
    pair.bus = true;
    pair.nodes[0].nodes[target].flags.clear(NodeFlags::FAIL);
    pair.run(1000);
    assert_eq!((pair.owner(Source), pair.owner(Target)), ("a", "a"));
}

#[test]
fn a_takeover_is_news_also_where_the_target_had_the_greatest_epoch() {
    let mut pair = Pair::new();
    pair.nodes[1].take_epoch(1);
    pair.run(100);
    let old = pair.nodes[1].myself().epochs.config;
    // The source hears of it by the third node alone.
    pair.no_bus_between = Some((0, 1));
    pair.begin();
    pair.run(1000);
    pair.check_moved("told by another");
    assert!(pair.nodes[1].myself().epochs.config > old);
}

#[test]
fn the_epoch_of_a_source_stays_while_its_slots_may_be_taken() {
    let mut pair = Pair::new();
    pair.nodes[1].slot_migration_debug().prevents_failover = true;
    pair.begin();
    pair.run(300);
    assert_eq!(pair.state(Source), "failover-granted");
    let epoch = pair.nodes[0].myself().epochs.config;
    // The third node has the same one: the source would take another.
    pair.nodes[2].nodes.for_each_mut(|node| {
        if node.id.as_bytes() == C.as_bytes() {
            node.set_epoch(epoch);
        }
    });
    for node in &mut pair.nodes[..2] {
        let third = node.find(C.as_bytes()).unwrap();
        node.nodes[third].set_epoch(epoch);
    }
    pair.run(300);
    assert_eq!((pair.nodes[0].myself().epochs.config, pair.nodes[0].bump_my_epoch()), (epoch, (false, epoch)));
    pair.nodes[1].slot_migration_debug().prevents_failover = false;
    pair.run(500);
    pair.check_moved("then it went on");
    assert!(pair.nodes[0].myself().epochs.config > epoch, "and the collision was resolved");
}

#[test]
fn a_target_that_does_not_know_the_epoch_of_the_source_gets_no_grant() {
    let mut pair = Pair::new();
    pair.no_bus_between = Some((0, 1));
    pair.snapshots = false;
    pair.begin();
    pair.run(300);
    pair.nodes[0].take_epoch(5);
    let target = pair.nodes[0].find(B.as_bytes()).unwrap();
    pair.turn(Source);
    let id = pair.jobs[0].unwrap();
    let env = Env::at(pair.now_ms);
    pair.nodes[0].on_snapshot_started(id, &env);
    pair.nodes[0].on_snapshot_ended(id, &env);
    pair.run(500);
    assert_eq!(pair.state(Source), "failover-paused");
    pair.nodes[0].nodes[target].granted_ms = pair.now_ms;
    pair.run(100);
    assert_eq!(pair.state(Target), "success");
    pair.no_bus_between = None;
    pair.run(500);
    pair.check_settled("after its answer");
    // And one that does not answer in time gets none at all.
    let mut pair = Pair::new();
    pair.nodes[0].nodes[target].granted_ms = 0;
    pair.no_bus_between = Some((0, 1));
    pair.begin();
    pair.run(3000);
    assert_eq!(pair.message(Source), "The takeover could not be granted in time");
    pair.no_bus_between = None;
    pair.run(500);
    pair.check_settled("no answer");
}

#[test]
fn who_cannot_reach_a_majority_neither_gives_nor_takes() {
    for side in [Source, Target] {
        let mut pair = Pair::new();
        pair.begin();
        let before = if side == Source { "failover-paused" } else { "failover-granted" };
        while pair.state(Source) != before {
            pair.run_until_delivered(pair.delivered + 1);
            pair.turn(Source);
        }
        pair.nodes[side as usize].lease_end_ms = pair.now_ms;
        pair.run(100);
        assert_eq!((pair.owner(Source), pair.owner(Target)), ("a", "a"), "{side:?}");
        pair.nodes[side as usize].lease_end_ms = i64::MAX;
        pair.run(15_000);
        pair.check_settled(&format!("{side:?}"));
    }
}

#[test]
fn silence_ends_a_job_and_a_cancelled_one_cleans_up() {
    let mut pair = Pair::new();
    pair.snapshots = false;
    pair.begin();
    pair.run(500);
    assert_eq!((pair.state(Source), pair.state(Target)), ("waiting-to-snapshot", "receiving-snapshot"));
    pair.run(70_000);
    assert_eq!(pair.state(Source), "waiting-to-snapshot", "both show that they are alive");
    let env = Env::at(pair.now_ms);
    assert_eq!(pair.nodes[0].cancel_slot_migrations("a test", &env), Ok(()));
    pair.run(100);
    pair.check_settled("cancelled");
    assert_eq!(pair.state(Source), "cancelled");
    assert!(pair.nodes[0].cancel_slot_migrations("a test", &env).is_err());

    // Now nobody answers.
    let mut pair = Pair::new();
    pair.begin();
    pair.turn(Source);
    for _ in 0..62 {
        pair.now_ms += 1000;
        pair.turn(Source);
    }
    assert_eq!(pair.message(Source), "Timed out after too long with no interaction");
}

#[test]
fn a_cancel_after_the_grant_waits_for_what_has_become_of_it() {
    for takes_over in [false, true] {
        let mut pair = Pair::new();
        pair.bus = false;
        pair.nodes[1].slot_migration_debug().prevents_failover = !takes_over;
        pair.begin();
        pair.run(500);
        assert_eq!(pair.state(Source), "failover-granted");
        let env = Env::at(pair.now_ms);
        assert_eq!(pair.nodes[0].cancel_slot_migrations("a test", &env), Ok(()));
        assert!(pair.nodes[0].held_slots().contains(SLOT));
        pair.bus = true;
        pair.run(15_000);
        pair.check_settled("cancelled late");
        assert_eq!(pair.state(Source), if takes_over { "success" } else { "cancelled" });
    }
}

#[test]
fn whatever_ends_a_job_after_the_grant_leaves_writes_held_until_the_outcome_is_known() {
    type Event = fn(&mut Cluster, JobId, &Env);
    let events: [Event; 3] = [
        |node, _, env| node.on_data_flushed(None, env),
        |node, job, env| node.on_migration_failed(job, "nonsense", env),
        |node, job, env| node.on_migration_message(job.main(), Message::RequestPause, env),
    ];
    for event in events {
        let mut pair = Pair::new();
        pair.bus = false;
        pair.begin();
        pair.run(500);
        assert_eq!((pair.state(Source), pair.state(Target)), ("failover-granted", "success"));
        let (job, env) = (pair.nodes[0].jobs.list[0].id, Env::at(pair.now_ms));
        event(&mut pair.nodes[0], job, &env);
        pair.run(500);
        assert_eq!(pair.state(Source), "failover-granted");
        assert!(pair.nodes[0].held_slots().contains(SLOT));
        pair.bus = true;
        pair.run(500);
        pair.check_settled("the target had taken over");
    }
}

#[test]
fn a_node_without_slots_takes_none_where_no_majority_answers_it() {
    let mut pair = Pair::new();
    for node in &mut pair.nodes {
        let target = node.find(B.as_bytes()).unwrap();
        node.unbind_all_of(target);
        node.todo.state = true;
        node.flush(&Env::at(START_MS));
        (node.state_ok, node.lease_end_ms) = (true, i64::MAX);
    }
    pair.nodes[1].nodes.for_each_mut(|node| node.granted_ms = 0);
    pair.bus = false;
    pair.begin();
    pair.run(3000);
    assert_eq!((pair.owner(Target), pair.state(Source)), ("a", "failover-paused"));
    pair.bus = true;
    pair.run(500);
    pair.check_moved("now it does");
}

#[test]
fn keys_left_in_slots_that_went_are_known_after_a_restart_and_to_replicas() {
    let mut pair = Pair::new();
    let keys: &dyn Fn(&SlotSet) -> SlotSet = &|slots| slots.common(&SlotSet::of_range(SLOT, SLOT));
    let env = Env { slots_with_keys: keys, ..Env::at(START_MS) };
    let deleted = Action::DelKeysInSlots(SlotSet::of_range(SLOT, SLOT));
    let target = pair.nodes[0].find(B.as_bytes()).unwrap();
    let claimed: SlotSet = [SLOT, 100].into_iter().chain(8192..16000).collect();
    pair.nodes[0].take_in_owner(target, crate::cluster::node::Epochs::agreed_on(9), &claimed, &env);
    assert!(pair.nodes[0].flush(&env).contains(&deleted));
    let text = pair.nodes[0].nodes_conf();
    assert!(text.contains(" leftoverSlots 7-7"), "{text}");
    let mut again = Cluster::from_nodes_conf(ClusterConfig::default(), 1, START_MS, &text).unwrap();
    again.adopt_loaded_keys(&env);
    assert!(again.importing.is_empty() && again.flush(&env).contains(&deleted));
    // What is gone is forgotten.
    again.note_leftovers(&Env::at(START_MS));
    assert!(!again.nodes_conf().contains("leftoverSlots"));
    // A replica of the source, which takes its place.
    let text = text.replace("myself,master", "master").replace(" leftoverSlots 7-7", "");
    let at = text.find("vars").unwrap();
    let text = format!(
        "{}{} 10.0.0.4:7003@17003 myself,slave {A} 0 0 1 connected\n{}",
        text[..at].replace(" 0-6 8-99 101-8191", " 0-8191").replace(" 7 100 8192-15999", " 8192-15999"),
        "d".repeat(40),
        &text[at..]
    );
    let mut replica = Cluster::from_nodes_conf(ClusterConfig::default(), 1, START_MS, &text).unwrap();
    let source = replica.find(A.as_bytes()).unwrap();
    assert_eq!(replica.owner_of(SLOT), Some(source), "{text}");
    let target = replica.find(B.as_bytes()).unwrap();
    replica.take_in_owner(target, crate::cluster::node::Epochs::agreed_on(10), &claimed, &env);
    assert!(!replica.flush(&env).contains(&deleted), "its master does that");
    replica.replace_my_master(&env);
    assert!(replica.flush(&env).contains(&deleted));
}

#[test]
fn a_flush_a_demotion_and_slots_that_leave_otherwise_end_a_job() {
    type Event = fn(&mut Pair);
    let events: [(&str, Event); 4] = [
        ("Data was flushed", |pair| pair.nodes[0].on_data_flushed(None, &Env::at(pair.now_ms))),
        (
            "Connection lost to target. Check CLUSTER GETSLOTMIGRATIONS on the target node for more information.",
            |pair| {
                pair.nodes[1].on_data_flushed(None, &Env::at(pair.now_ms));
            },
        ),
        ("Slots are no longer owned by myself", |pair| {
            pair.nodes[0].unbind(101);
        }),
        (
            "Connection lost to target. Check CLUSTER GETSLOTMIGRATIONS on the target node for more information.",
            |pair| {
                pair.nodes[1].unbind(101);
            },
        ),
    ];
    for (text, event) in events {
        let mut pair = Pair::new();
        pair.snapshots = false;
        (pair.bus, pair.now_ms) = (false, START_MS);
        pair.begin();
        pair.run(500);
        event(&mut pair);
        pair.run(500);
        assert_eq!((pair.state(Source), pair.message(Source).as_str()), ("failed", text));
        assert_eq!(pair.state(Target), "failed");
        assert!(pair.deleted.contains(&SLOT));
    }
}

#[test]
fn a_replica_follows_an_import_and_cleans_up_when_it_is_promoted() {
    let mut pair = Pair::new();
    pair.snapshots = false;
    pair.begin();
    pair.run(500);
    let texts = pair.nodes[1].imports_text();
    assert_eq!(texts.len(), 1);
    // As a replica would have it, from a snapshot; its master is gone by now.
    let mut replica = node(B, ClusterConfig::default());
    let env = Env::at(pair.now_ms);
    replica.track_import(texts[0].as_bytes(), &env);
    replica.track_import(texts[0].as_bytes(), &env);
    replica.track_import(b"nonsense 1-2", &env);
    let jobs = replica.slot_migrations();
    assert_eq!((jobs.len(), jobs[0].state, jobs[0].nodes), (1, "occurring-on-primary", None));
    assert_eq!(replica.importing_slots(), [SLOT, 100, 101, 102].into_iter().collect());
    replica.advance_slot_migrations(&env);
    assert_eq!(replica.slot_migrations()[0].state, "cleaning-up");
    assert_eq!(replica.slot_migrations()[0].message, "A failover occurred during slot import");
    // Its master tries again: that is the same job.
    let mut replica = node(B, ClusterConfig::default());
    for _ in 0..3 {
        replica.track_import(texts[0].as_bytes(), &env);
        let name = replica.slot_migrations()[0].name;
        assert_eq!((replica.slot_migrations().len(), replica.jobs.open), (1, 1));
        assert_eq!(replica.finish_import(name, false, "", &env), Ok(()));
    }
    // Or its master says how it ended.
    let mut replica = node(B, ClusterConfig::default());
    replica.track_import(texts[0].as_bytes(), &env);
    let name = replica.slot_migrations()[0].name;
    assert_eq!(replica.finish_import(name, true, "", &env), Ok(()));
    assert!(replica.importing_slots().is_empty() && replica.slot_migrations()[0].state == "success");
    let commands = pair.nodes[1].import_commands();
    let text = String::from_utf8(commands[0].join(&b' ')).unwrap();
    assert!(text.starts_with("CLUSTER SYNCSLOTS ESTABLISH NAME ") && text.ends_with(" SLOTSRANGE 7 7 100 102"));
}

#[test]
fn only_so_many_jobs_that_are_over_are_kept() {
    let mut pair = Pair::new();
    for _ in 0..5 {
        pair.snapshots = false;
        pair.begin();
        let env = Env::at(pair.now_ms);
        pair.nodes[0].cancel_slot_migrations("a test", &env).unwrap();
        pair.turn(Source);
    }
    assert_eq!(pair.nodes[0].slot_migrations().len(), 5);
    pair.nodes[0].config.slot_migration_log_len = 2;
    let last = pair.nodes[0].slot_migrations()[0].name;
    pair.nodes[0].tick(&Env::at(pair.now_ms + 1000));
    let left = pair.nodes[0].slot_migrations();
    assert_eq!((left.len(), left[0].name), (2, last));
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let mut c = node(A, ClusterConfig::default());
    let refusal = |result: Result<(), AdminError>| result.unwrap_err().0;
    let (mut ranges, mut owner) = (Ranges::new(), None);
    assert_eq!(c.add_range(&mut ranges, &mut owner, (0, 5)), Ok(()));
    assert_eq!(
        refusal(c.add_range(&mut ranges, &mut owner, (3, 6))),
        "Slot range 3-6 overlaps with previous range 0-5."
    );
    assert_eq!(refusal(c.add_range(&mut ranges, &mut owner, (8191, 8192))), "Requested slots span multiple shards");
    c.unbind(9);
    assert_eq!(refusal(c.add_range(&mut ranges, &mut owner, (9, 9))), "Slot 9 has no node served.");
    let target = c.find(B.as_bytes()).unwrap();
    let others = [(vec![(5, 7)], target)];
    assert_eq!(refusal(c.check_exportable(&ranges, &others)), "Slot ranges in migrations overlap");
    assert_eq!(c.check_exportable(&vec![(1, 4)], &others), Ok(()));
    c.migrate_slots(vec![(vec![(1, 4)], target)], "a test", &Env::at(START_MS));
    assert_eq!(refusal(c.check_exportable(&ranges, &[])), "I am already migrating slot 1.");
    assert!(refusal(c.check_no_slot_migration(9, true)).starts_with("Slot export in progress"));
    assert_eq!(c.check_no_slot_migration(1, false), Ok(()));
    assert_eq!(c.check_slot_migration_allowed(), Ok(()));
    c.migrating.insert(3, target);
    assert_eq!(refusal(c.check_slot_migration_allowed()), "Slots are being manually migrated");
}
