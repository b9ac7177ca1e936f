//! Many cluster nodes in one process, under a simulated clock and network.
//!
//! Every node is the real state machine. The network is made of connections as TCP gives them (ordered; broken, refused
//! or stalled rather than lossy) with random delays, one-way and two-way partitions, and now and then a packet that is
//! lost all the same. Nodes crash, also in the middle of carrying out what the machine asked for, restart from the
//! `nodes.conf` they wrote, and stand still for a while; their clocks may go at different rates. After every step the
//! promises of the protocol are checked.
//!
//! Every node has clients, on either side of a partition, that write all the time. A node that stands still counts as one
//! in a long turn: its clients are served by what it knew, and by the clock.
//!
//! `HEXAD_SIM_SEEDS` sets how many seeds are tried, `HEXAD_SIM_SEED` the first one; a failure names its seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

use hexad::cluster::node::{NodeFlags, NodeId};
use hexad::cluster::wire::{self, PacketType};
use hexad::cluster::{Action, Cluster, ClusterConfig, Env, FailoverMode, LinkId, SetSlot};
use hexad::structs::slots::{SLOT_COUNT, Slot, SlotSet};

const START_MS: i64 = 1_700_000_000_000;
/// Later than a deadline the machine may be by: its tick, and the latency of a packet.
const SLACK_MS: i64 = 300;
/// Leases count no less.
const SHORTEST_TERM_MS: i64 = 500;

type NodeNo = usize;
type ConnNo = u64;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Wake(NodeNo, u64),
    /// The first packet on its way to that side of a connection arrives.
    Arrive(ConnNo, usize),
    /// The attempt to connect reaches the other side.
    Dial(ConnNo),
    /// The end of a connection reaches that side.
    Hangup(ConnNo, usize),
    Replicate,
    Fault,
    Restart(NodeNo),
    Resume(NodeNo),
    Heal(u64),
}

struct Conn {
    /// Opener and acceptor.
    ends: [NodeNo; 2],
    links: [Option<LinkId>; 2],
    /// To each end.
    queues: [VecDeque<Rc<[u8]>>; 2],
    /// When the last packet to each end arrives: order is kept.
    last_ms: [i64; 2],
    established: bool,
    refused: bool,
}

struct SimNode {
    cluster: Option<Cluster>,
    conf: String,
    config: ClusterConfig,
    links: BTreeMap<LinkId, ConnNo>,
    wake: u64,
    paused: bool,
    /// How fast its clock goes, and since when.
    rate: f64,
    rated_ms: i64,
    /// Clients are held back until then: nothing is written.
    clients_held_ms: i64,
    /// Dies after carrying out so many more actions.
    doomed: Option<usize>,
    offset: i64,
    repl_from: Option<String>,
    repl_heard_ms: i64,
    last_vote_epoch: u64,
    my_epoch: (NodeId, u64),
    current_epoch: u64,
    suspects: HashSet<NodeId>,
    /// Since when it has been cut off from a majority.
    cut_ms: Option<i64>,
    restarts: u64,
}

struct Sim {
    seed: u64,
    rng: fastrand::Rng,
    now: i64,
    seq: u64,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    nodes: Vec<SimNode>,
    conns: HashMap<ConnNo, Conn>,
    next_conn: ConnNo,
    /// Directions in which nothing passes, with the fault that blocks them.
    blocked: HashMap<(NodeNo, NodeNo), u64>,
    latency_ms: std::ops::Range<i64>,
    loss: f64,
    faults: bool,
    next_fault: u64,
    heard: HashMap<(NodeNo, NodeId), i64>,
    votes: HashMap<(NodeId, u64), NodeNo>,
    claims: BTreeMap<u64, Vec<(NodeId, SlotSet)>>,
    /// Until then an operator's order excuses two masters of one slot.
    forced_until_ms: i64,
    steps: u64,
}

fn ip_of(no: NodeNo) -> String {
    format!("10.0.{}.{}", no / 250, no % 250 + 1)
}

fn no_of(ip: &str) -> Option<NodeNo> {
    let mut parts = ip.split('.').skip(2);
    let (high, low): (usize, usize) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    Some(high * 250 + low - 1)
}

impl Sim {
    /// `masters` masters sharing the slots, each with `replicas` replicas, settled.
    fn new(seed: u64, masters: usize, replicas: usize, timeout_ms: i64) -> Sim {
        let mut sim = Sim {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            now: START_MS,
            seq: 0,
            events: BinaryHeap::new(),
            nodes: Vec::new(),
            conns: HashMap::new(),
            next_conn: 0,
            blocked: HashMap::new(),
            latency_ms: 0..3,
            loss: 0.0,
            faults: false,
            next_fault: 1,
            heard: HashMap::new(),
            votes: HashMap::new(),
            claims: BTreeMap::new(),
            forced_until_ms: 0,
            steps: 0,
        };
        let count = masters * (1 + replicas);
        for no in 0..count {
            let config = ClusterConfig { node_timeout_ms: timeout_ms, ..ClusterConfig::default() };
            let mut cluster = Cluster::new(config.clone(), sim.rng.u64(..), sim.now);
            cluster.set_config_epoch(no as i64 + 1).unwrap();
            if no < masters {
                let at = |n: usize| (n * SLOT_COUNT / masters) as Slot;
                cluster.add_slots(&[(at(no), (at(no + 1) - 1))]).unwrap();
            }
            let my_epoch = (cluster.myself().id, 0);
            sim.nodes.push(SimNode {
                cluster: Some(cluster),
                conf: String::new(),
                config,
                links: BTreeMap::new(),
                wake: 0,
                paused: false,
                rate: 1.0,
                rated_ms: START_MS,
                clients_held_ms: 0,
                doomed: None,
                offset: 1,
                repl_from: None,
                repl_heard_ms: START_MS,
                last_vote_epoch: 0,
                my_epoch,
                current_epoch: 0,
                suspects: HashSet::new(),
                cut_ms: None,
                restarts: 0,
            });
        }
        for no in 1..count {
            let target = sim.rng.usize(0..no);
            sim.step(no, |c, env| c.meet(ip_of(target).as_bytes(), 6379, 16379, env).unwrap());
        }
        sim.step(0, |_, _| ());
        sim.after(50, Event::Replicate);
        sim.run_until("every node knows every other", 60_000, |sim| {
            sim.alive().all(|(_, c)| c.nodes().len() == count && c.nodes().iter().all(|(_, n)| !n.in_handshake()))
        });
        for no in masters..count {
            let master = *sim.nodes[no % masters].cluster.as_ref().unwrap().myself().id.as_bytes();
            sim.step(no, move |c, _| c.replicate(&master, false).unwrap());
        }
        sim.settle();
        sim
    }

    /// A node's own time.
    fn local_ms(&self, no: NodeNo) -> i64 {
        let node = &self.nodes[no];
        node.rated_ms + ((self.now - node.rated_ms) as f64 * node.rate) as i64
    }

    /// Whether a client's write to this node's slots is accepted now.
    fn takes_writes(&self, no: NodeNo) -> bool {
        let (node, now) = (&self.nodes[no], self.local_ms(no));
        let Some(c) = &node.cluster else { return false };
        c.myself().is_voter() && c.state_ok() && c.holds_lease(now) && node.clients_held_ms <= now
    }

    fn alive(&self) -> impl Iterator<Item = (NodeNo, &Cluster)> {
        self.nodes.iter().enumerate().filter_map(|(no, n)| n.cluster.as_ref().map(|c| (no, c)))
    }

    fn cluster(&self, no: NodeNo) -> &Cluster {
        self.nodes[no].cluster.as_ref().expect("the node runs")
    }

    fn at(&mut self, when: i64, event: Event) {
        self.seq += 1;
        self.events.push(Reverse((when.max(self.now), self.seq, event)));
    }

    fn after(&mut self, ms: i64, event: Event) {
        self.at(self.now + ms, event);
    }

    fn latency(&mut self) -> i64 {
        self.rng.i64(self.latency_ms.clone())
    }

    fn passes(&self, from: NodeNo, to: NodeNo) -> bool {
        !self.blocked.contains_key(&(from, to))
    }

    // ---- a node's turn ----

    fn step(&mut self, no: NodeNo, work: impl FnOnce(&mut Cluster, &Env)) {
        let now = self.local_ms(no);
        let node = &mut self.nodes[no];
        let Some(mut cluster) = node.cluster.take() else { return };
        let keys = |_| 0;
        let env = Env {
            now_ms: now,
            repl_offset: node.offset,
            data_age_ms: self.now - node.repl_heard_ms,
            replicating: node.repl_from.is_some(),
            keys_in_slot: &keys,
        };
        cluster.turn_begins(now);
        work(&mut cluster, &env);
        cluster.tick(&env);
        let actions = cluster.flush(&env);
        let due = cluster.next_deadline_ms();
        self.nodes[no].cluster = Some(cluster);
        self.carry_out(no, actions);
        if self.nodes[no].cluster.is_some() {
            self.nodes[no].wake += 1;
            let wake = self.nodes[no].wake;
            let node = &self.nodes[no];
            let due = node.rated_ms + ((due - node.rated_ms) as f64 / node.rate).ceil() as i64;
            self.at(due.max(self.now + 1), Event::Wake(no, wake));
            self.check(no);
        }
    }

    fn carry_out(&mut self, no: NodeNo, actions: Vec<Action>) {
        let mut saved = false;
        for action in actions {
            match self.nodes[no].doomed {
                Some(0) => return self.crash(no),
                Some(n) => self.nodes[no].doomed = Some(n - 1),
                None => {}
            }
            match action {
                Action::SaveConfig { .. } => {
                    saved = true;
                    self.nodes[no].conf = self.cluster(no).nodes_conf();
                }
                Action::Connect { link, ip, port } => {
                    assert_eq!(port, 16379);
                    let to = no_of(&ip).expect("an address of a node");
                    self.next_conn += 1;
                    let conn = self.next_conn;
                    self.nodes[no].links.insert(link, conn);
                    self.conns.insert(
                        conn,
                        Conn {
                            ends: [no, to],
                            links: [Some(link), None],
                            queues: Default::default(),
                            last_ms: [0; 2],
                            established: false,
                            refused: false,
                        },
                    );
                    let ms = self.latency();
                    self.after(ms, Event::Dial(conn));
                }
                Action::CloseLink { link } => self.hang_up(no, link),
                Action::Send { link, packet } => {
                    self.check_packet(no, &packet, saved);
                    self.transmit(no, link, packet);
                }
                Action::SetReplicationMaster { ip, .. } => self.nodes[no].repl_from = Some(ip),
                Action::UnsetReplicationMaster => self.nodes[no].repl_from = None,
                Action::PauseClients { until_ms } => self.nodes[no].clients_held_ms = until_ms,
                Action::UnpauseClients => self.nodes[no].clients_held_ms = 0,
                _ => {}
            }
        }
    }

    fn transmit(&mut self, no: NodeNo, link: LinkId, packet: Rc<[u8]>) {
        let Some(&no_conn) = self.nodes[no].links.get(&link) else { return };
        let lost = self.loss > 0.0 && self.rng.f64() < self.loss;
        let ms = self.latency();
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&no_conn) else { return };
        if lost {
            return;
        }
        let side = usize::from(conn.links[0] == Some(link) && conn.ends[0] == no);
        conn.queues[side].push_back(packet);
        if conn.established {
            conn.last_ms[side] = conn.last_ms[side].max(now + ms);
            let at = conn.last_ms[side];
            self.at(at, Event::Arrive(no_conn, side));
        }
    }

    fn hang_up(&mut self, no: NodeNo, link: LinkId) {
        let Some(no_conn) = self.nodes[no].links.remove(&link) else { return };
        let Some(conn) = self.conns.get_mut(&no_conn) else { return };
        let mine = usize::from(!(conn.ends[0] == no && conn.links[0] == Some(link)));
        conn.links[mine] = None;
        let ms = self.latency();
        self.after(ms, Event::Hangup(no_conn, 1 - mine));
    }

    fn crash(&mut self, no: NodeNo) {
        let node = &mut self.nodes[no];
        node.cluster = None;
        node.doomed = None;
        node.paused = false;
        node.clients_held_ms = 0;
        node.cut_ms = None;
        let links: Vec<LinkId> = node.links.keys().copied().collect();
        for link in links {
            self.hang_up(no, link);
        }
        let ms = self.rng.i64(200..12_000);
        if self.faults {
            self.after(ms, Event::Restart(no));
        }
    }

    fn restart(&mut self, no: NodeNo) {
        if self.nodes[no].cluster.is_some() {
            return;
        }
        let (now, seed) = (self.local_ms(no), self.rng.u64(..));
        let node = &mut self.nodes[no];
        let cluster = Cluster::from_nodes_conf(node.config.clone(), seed, now, &node.conf).expect("what a node wrote");
        assert!(cluster.last_vote_epoch() >= node.last_vote_epoch, "a vote was forgotten over a restart");
        node.restarts += 1;
        // Nothing is promised of this one: what others said is not written down.
        node.current_epoch = 0;
        node.repl_from = None;
        node.repl_heard_ms = self.now;
        node.suspects = cluster.nodes().iter().filter(|(_, n)| n.timed_out()).map(|(_, n)| n.id).collect();
        node.cluster = Some(cluster);
        self.step(no, |_, _| ());
    }

    // ---- events ----

    fn run_for(&mut self, ms: i64) {
        let end = self.now + ms;
        while let Some(Reverse((when, _, _))) = self.events.peek() {
            if *when > end {
                break;
            }
            self.next_event();
        }
        self.now = end;
    }

    fn run_until(&mut self, what: &str, within_ms: i64, done: impl Fn(&Sim) -> bool) -> i64 {
        let start = self.now;
        while !done(self) {
            if self.now - start > within_ms {
                self.dump();
                panic!("seed {}: not within {within_ms} ms: {what}", self.seed);
            }
            // Looking after every event would be most of the work.
            let until = self.now + if within_ms > 30_000 { 50 } else { 5 };
            while self.events.peek().is_some_and(|Reverse((when, ..))| *when <= until) {
                self.next_event();
            }
            self.now = self.now.max(until);
        }
        self.now - start
    }

    fn next_event(&mut self) {
        let Some(Reverse((when, _, event))) = self.events.pop() else { return };
        self.now = self.now.max(when);
        self.steps += 1;
        match event {
            Event::Wake(no, wake) => {
                if self.nodes[no].wake == wake && !self.nodes[no].paused {
                    self.step(no, |_, _| ());
                }
            }
            Event::Dial(conn) => self.dial(conn),
            Event::Arrive(conn, side) => self.arrive(conn, side),
            Event::Hangup(conn, side) => self.hangup_arrives(conn, side),
            Event::Replicate => {
                self.replicate();
                self.after(50, Event::Replicate);
            }
            Event::Fault => self.inject_fault(),
            Event::Restart(no) => self.restart(no),
            Event::Resume(no) => {
                self.nodes[no].paused = false;
                // What came meanwhile has been waiting: in a turn packets are read before timers run.
                self.step(no, |_, _| ());
            }
            Event::Heal(fault) => {
                self.blocked.retain(|_, f| *f != fault);
                self.note_cuts();
            }
        }
    }

    fn dial(&mut self, no: ConnNo) {
        let Some(conn) = self.conns.get(&no) else { return };
        let [from, to] = conn.ends;
        let Some(link) = conn.links[0] else {
            self.conns.remove(&no);
            return;
        };
        if self.nodes[from].paused || self.nodes[to].paused || !self.passes(from, to) || !self.passes(to, from) {
            // A lost SYN is sent again.
            self.after(100, Event::Dial(no));
            return;
        }
        if self.nodes[to].cluster.is_none() {
            self.conns.get_mut(&no).unwrap().refused = true;
            let ms = self.latency();
            self.after(ms, Event::Hangup(no, 0));
            return;
        }
        let (now, local) = (self.now, self.local_ms(to));
        let accepted = self.nodes[to].cluster.as_mut().unwrap().on_accept(local, ip_of(from), ip_of(to));
        self.nodes[to].links.insert(accepted, no);
        let conn = self.conns.get_mut(&no).unwrap();
        conn.links[1] = Some(accepted);
        conn.established = true;
        let waiting = conn.queues[1].len();
        conn.last_ms[1] = now + 1;
        for _ in 0..waiting {
            self.at(now + 1, Event::Arrive(no, 1));
        }
        self.step(from, |c, env| c.on_link_connected(link, ip_of(from), env));
    }

    fn arrive(&mut self, no: ConnNo, side: usize) {
        let Some(conn) = self.conns.get(&no) else { return };
        let (from, to) = (conn.ends[1 - side], conn.ends[side]);
        if self.nodes[to].paused || !self.passes(from, to) {
            // It stands in a buffer, ours or theirs, until the way is free.
            self.after(20, Event::Arrive(no, side));
            return;
        }
        let conn = self.conns.get_mut(&no).unwrap();
        let (Some(packet), Some(link)) = (conn.queues[side].pop_front(), conn.links[side]) else { return };
        let sender = NodeId::parse(&packet[40..80]).expect("what a node sends");
        self.heard.insert((to, sender), self.now);
        self.step(to, |c, env| c.on_packet(link, &packet, env));
    }

    fn hangup_arrives(&mut self, no: ConnNo, side: usize) {
        let Some(conn) = self.conns.get(&no) else { return };
        let (from, to) = (conn.ends[1 - side], conn.ends[side]);
        let refused = conn.refused;
        if self.nodes[to].paused || (!refused && !self.passes(from, to)) {
            self.after(50, Event::Hangup(no, side));
            return;
        }
        let conn = self.conns.remove(&no).unwrap();
        if let Some(link) = conn.links[side]
            && self.nodes[to].links.remove(&link).is_some()
        {
            self.step(to, |c, env| c.on_link_closed(link, env));
        }
    }

    /// Masters that accept writes write; replicas in reach of their master follow.
    fn replicate(&mut self) {
        for no in 0..self.nodes.len() {
            let Some(c) = &self.nodes[no].cluster else { continue };
            if self.nodes[no].paused {
                continue;
            }
            if c.myself().is_master() {
                self.nodes[no].offset += i64::from(self.takes_writes(no));
            } else if let Some(from) = self.nodes[no].repl_from.as_deref().and_then(no_of) {
                let up = self.nodes[from].cluster.as_ref().is_some_and(|m| m.myself().is_master())
                    && !self.nodes[from].paused
                    && self.passes(no, from)
                    && self.passes(from, no);
                if up {
                    self.nodes[no].offset = self.nodes[from].offset;
                    self.nodes[no].repl_heard_ms = self.now;
                }
            }
        }
    }

    // ---- faults ----

    fn start_faults(&mut self) {
        self.faults = true;
        self.after(500, Event::Fault);
    }

    fn inject_fault(&mut self) {
        if !self.faults {
            return;
        }
        let count = self.nodes.len();
        let no = self.rng.usize(0..count);
        let fault = self.next_fault;
        self.next_fault += 1;
        match self.rng.u32(0..12) {
            0..=2 => self.nodes[no].doomed = Some(self.rng.usize(0..12)),
            3 => {
                // Two at once: their replicas' elections meet.
                self.crash(no);
                self.crash((no + 1) % count);
            }
            4 | 5 if self.nodes[no].cluster.is_some() && !self.nodes[no].paused => {
                self.nodes[no].paused = true;
                let ms = self.rng.i64(100..6000);
                self.after(ms, Event::Resume(no));
            }
            6..=8 => {
                // Cut off a group, or one node; in one direction or in both.
                let size = if self.rng.bool() { 1 } else { self.rng.usize(1..=count / 2) };
                let mut all: Vec<NodeNo> = (0..count).collect();
                self.rng.shuffle(&mut all);
                let (inside, outside) = all.split_at(size);
                let directions = self.rng.u32(1..=3).max(self.rng.u32(1..=3));
                for a in inside {
                    for b in outside {
                        if directions & 1 != 0 {
                            self.blocked.insert((*a, *b), fault);
                        }
                        if directions & 2 != 0 {
                            self.blocked.insert((*b, *a), fault);
                        }
                    }
                }
                self.note_cuts();
                let ms = self.rng.i64(300..9000);
                self.after(ms, Event::Heal(fault));
            }
            9 => {
                // Links break that were fine.
                let conns: Vec<(NodeNo, LinkId)> = self
                    .nodes
                    .iter()
                    .enumerate()
                    .flat_map(|(no, n)| n.links.keys().map(move |l| (no, *l)))
                    .collect::<std::collections::BTreeSet<_>>()
                    .into_iter()
                    .collect();
                for (no, link) in conns {
                    if self.rng.u32(0..5) == 0 && self.nodes[no].links.contains_key(&link) && !self.nodes[no].paused {
                        self.hang_up(no, link);
                        self.step(no, |c, env| c.on_link_closed(link, env));
                    }
                }
            }
            10 => {
                let high = [3, 20, 80][self.rng.usize(0..3)];
                self.latency_ms = 0..high;
                self.loss = [0.0, 0.0, 0.002][self.rng.usize(0..3)];
            }
            _ => {
                let mode = [FailoverMode::Coordinated, FailoverMode::Force][self.rng.usize(0..2)];
                if !self.nodes[no].paused {
                    if mode == FailoverMode::Force {
                        self.forced_until_ms = self.now + 20_000;
                    }
                    self.step(no, |c, env| drop(c.failover(mode, env)));
                }
            }
        }
        let ms = self.rng.i64(100..4000);
        self.after(ms, Event::Fault);
    }

    fn end_faults(&mut self) {
        self.faults = false;
        self.blocked.clear();
        self.note_cuts();
        self.latency_ms = 0..3;
        self.loss = 0.0;
        for no in 0..self.nodes.len() {
            self.nodes[no].doomed = None;
            if self.nodes[no].paused {
                self.nodes[no].paused = false;
                self.step(no, |_, _| ());
            }
            self.restart(no);
        }
    }

    /// Notes since when each node cannot talk, either way, to a majority of the masters it knows.
    fn note_cuts(&mut self) {
        for no in 0..self.nodes.len() {
            let Some(c) = &self.nodes[no].cluster else { continue };
            let since = self.nodes[no].cut_ms;
            self.nodes[no].cut_ms = if self.is_cut(no, c) { Some(since.unwrap_or(self.now)) } else { None };
        }
    }

    fn is_cut(&self, no: NodeNo, c: &Cluster) -> bool {
        let voters: Vec<NodeNo> =
            c.nodes().iter().filter(|(_, n)| n.is_voter()).filter_map(|(_, n)| no_of(&n.ip)).collect();
        let reached = voters.iter().filter(|v| **v == no || (self.passes(no, **v) && self.passes(**v, no))).count();
        // One direction is enough to hear of each other now and then, so only full cuts count.
        let half_open = voters.iter().any(|v| *v != no && (self.passes(no, *v) != self.passes(*v, no)));
        reached < voters.len() / 2 + 1 && !half_open
    }

    // ---- promises ----

    fn check_packet(&mut self, no: NodeNo, packet: &[u8], saved: bool) {
        if wire::packet_type(packet) == PacketType::AuthAck as u16 {
            let p = wire::decode(packet).expect("what a node sends");
            let (voter, epoch) = (p.header.sender, p.header.current_epoch);
            assert!(saved, "seed {}: {voter} votes before the vote is on disk", self.seed);
            let previous = self.votes.insert((voter, epoch), no);
            assert!(previous.is_none(), "seed {}: {voter} votes twice in epoch {epoch}", self.seed);
        }
    }

    fn check(&mut self, no: NodeNo) {
        let seed = self.seed;
        let now = self.now;
        let Some(c) = self.nodes[no].cluster.as_ref() else { return };
        if self.steps.is_multiple_of(256) {
            c.check_invariants();
        }
        let me = c.myself();
        let node = &self.nodes[no];
        assert!(c.last_vote_epoch() >= node.last_vote_epoch, "seed {seed}: lastVoteEpoch went back");
        assert!(c.current_epoch() >= node.current_epoch, "seed {seed}: currentEpoch went back");
        if me.is_master() && node.my_epoch.0 == me.id {
            assert!(me.config_epoch >= node.my_epoch.1, "seed {seed}: configEpoch went back");
        }

        // Nobody is suspected before the node timeout has passed since it was heard of.
        let timeout = node.config.node_timeout_ms;
        let mut suspects = HashSet::new();
        for (_, n) in c.nodes().iter().filter(|(_, n)| n.timed_out()) {
            suspects.insert(n.id);
            let is_new = !node.suspects.contains(&n.id);
            if let Some(heard) = self.heard.get(&(no, n.id)).filter(|_| is_new) {
                assert!(
                    (now - heard) as f64 * node.rate >= timeout as f64 - 1.0,
                    "seed {seed}: {} suspects {} {} ms after it was heard of",
                    me.id,
                    n.id,
                    now - heard
                );
            }
        }

        // A master without majority stops accepting. What was on its way may have told it of other masters since.
        let cut = node.cut_ms.filter(|_| me.is_master() && c.state_ok() && self.is_cut(no, c));
        if let Some(cut) = cut {
            let bound = (timeout.max(SHORTEST_TERM_MS) as f64 / node.rate) as i64 + SLACK_MS;
            assert!(now - cut <= bound, "seed {seed}: {} accepts {} ms into a minority", me.id, now - cut);
        }

        // No slot is served by two masters at one time.
        if self.takes_writes(no) && now >= self.forced_until_ms {
            for (other, c) in self.alive().filter(|(other, _)| *other != no && self.takes_writes(*other)) {
                if let Some(slot) = me.slots.first_common(&c.myself().slots) {
                    self.dump();
                    panic!("seed {seed}: nodes {no} and {other} take writes for slot {slot} at {} ms", now - START_MS);
                }
            }
        }

        // No slot is served by two masters in one epoch, not even at different times.
        let changed = node.my_epoch != (me.id, me.config_epoch);
        let serves = me.is_master() && me.slot_count > 0;
        let (id, epoch) = (me.id, me.config_epoch);
        if serves && (changed || self.steps.is_multiple_of(64)) {
            let slots = me.slots.clone();
            let claims = self.claims.entry(epoch).or_default();
            for (other, theirs) in claims.iter().filter(|(other, _)| *other != id) {
                let both = slots.first_common(theirs);
                assert!(both.is_none(), "seed {seed}: {id} and {other} serve slot {both:?} in epoch {epoch}");
            }
            match claims.iter_mut().find(|(other, _)| *other == id) {
                Some((_, known)) => *known = known.iter().chain(slots.iter()).collect(),
                None => claims.push((id, slots)),
            }
        }
        let (vote, current) = (c.last_vote_epoch(), c.current_epoch());
        let node = &mut self.nodes[no];
        node.last_vote_epoch = vote;
        node.current_epoch = current;
        node.my_epoch = (id, if serves { epoch } else { 0 });
        node.suspects = suspects;
    }

    /// All nodes agree, the cluster is up for all of them, and everybody is fine.
    fn is_settled(&self) -> bool {
        let mut views = self.alive().map(|(_, c)| {
            (0..SLOT_COUNT as Slot).step_by(64).map(|s| c.owner_of(s).map(|k| c.node(k).id)).collect::<Vec<_>>()
        });
        let first = views.next().expect("somebody is alive");
        let fine = |c: &Cluster| {
            c.state_ok()
                && c.nodes().iter().all(|(_, n)| n.healthy() && (n.is_replica() == n.replica_of.is_some()))
                && c.nodes().iter().all(|(_, n)| !n.flags.has(NodeFlags::NOADDR))
        };
        self.alive().all(|(_, c)| fine(c)) && views.all(|v| v == first) && self.roles_agree()
    }

    fn roles_agree(&self) -> bool {
        let mut epochs = HashSet::new();
        self.alive().all(|(_, c)| {
            let me = c.myself();
            let my_master = me.replica_of.map(|m| c.node(m).id);
            let distinct = !me.is_voter() || epochs.insert(me.config_epoch);
            distinct
                && self.alive().all(|(_, other)| {
                    other.find(me.id.as_bytes()).is_some_and(|key| {
                        let n = other.node(key);
                        n.is_master() == me.is_master() && n.replica_of.map(|m| other.node(m).id) == my_master
                    })
                })
        })
    }

    fn settle(&mut self) -> i64 {
        let timeout = self.nodes[0].config.node_timeout_ms;
        self.run_until("all views agree", 60_000 + 12 * timeout, Sim::is_settled)
    }

    fn dump(&self) {
        for (no, c) in self.alive() {
            eprintln!("node {no} state {} epoch {}", c.state_ok(), c.current_epoch());
            if no < 8 {
                eprintln!("{}", c.describe_nodes(false));
            }
        }
    }

    /// How long until `slot` is served by somebody else than `old`.
    fn until_served(&mut self, slot: Slot, old: NodeNo, within_ms: i64) -> i64 {
        self.run_until("the slot is served again", within_ms, |sim| {
            sim.alive().any(|(no, c)| no != old && c.state_ok() && c.owner_of(slot) == Some(c.my_key()))
        })
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
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
        // What each had received when the master died.
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
    assert!(c.state_ok(), "it does not know yet");
    c.turn_begins(now);
    assert!(!c.state_ok(), "the first thing it does");
    sim.step(1, |_, _| ());
    sim.settle();
    assert!(sim.cluster(1).myself().is_replica());
}

/// Partitions of all kinds, and standing still, one after the other, with clocks that differ.
fn part_and_stand_still(seed: u64, timeout: i64) {
    let masters = 3 + seed as usize % 3;
    let mut sim = Sim::new(seed, masters, 1 + seed as usize % 2, timeout);
    for node in &mut sim.nodes {
        (node.rate, node.rated_ms) = (1.0 + (sim.rng.f64() - 0.5) * 0.06, sim.now);
    }
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

/// Leases and promises count half a second then, suspicions the time that is configured.
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

/// As DEBUG can do. The node goes on hearing of the others, and they of it.
#[test]
fn answers_that_are_lost_for_long_are_got_over() {
    for seed in seeds(3) {
        for lost in [PacketType::Ping, PacketType::Pong] {
            for no in [0, 3] {
                let timeout = 1000;
                let mut sim = Sim::new(seed, 3, 1, timeout);
                sim.nodes[no].cluster.as_mut().unwrap().set_drop_filter(Some(lost as u16));
                sim.run_for(10 * timeout);
                sim.nodes[no].cluster.as_mut().unwrap().set_drop_filter(None);
                let ms = sim.settle();
                assert!(ms <= 3 * timeout, "seed {seed}: {ms} ms after {lost:?} was lost on node {no}");
                // And it stays so.
                let end = sim.now + 5 * timeout;
                while sim.now < end {
                    sim.run_for(20);
                    assert!(sim.is_settled(), "seed {seed}: after {lost:?} was lost on node {no}");
                }
            }
        }
    }
}

/// In the order of `redis-cli`: for a moment everybody but the old owner may know that a slot is another's.
#[test]
fn slots_that_move_stop_nobody() {
    for seed in seeds(3) {
        let mut sim = Sim::new(seed, 5, 1, 3000);
        let ids: Vec<NodeId> = (0..5).map(|no| sim.cluster(no).myself().id).collect();
        // The old owner takes what clients ask of it until it is told; its keys are gone, so it sends them on.
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

#[test]
fn without_a_majority_nobody_is_elected() {
    let mut sim = Sim::new(3, 3, 1, 1000);
    sim.crash(0);
    sim.crash(1);
    sim.run_for(20_000);
    assert!(sim.alive().all(|(no, c)| !c.state_ok() && (c.myself().is_replica() == (no >= 3))));
    sim.restart(0);
    sim.restart(1);
    sim.settle();
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

#[test]
fn a_large_cluster_settles_and_fails_over() {
    let count = std::env::var("HEXAD_SIM_NODES").ok().and_then(|v| v.parse().ok()).unwrap_or(100);
    let mut sim = Sim::new(11, count / 2, 1, 5000);
    let victims: Vec<NodeNo> = (0..count / 10).collect();
    for no in &victims {
        sim.crash(*no);
    }
    for no in &victims {
        let slot = (no * SLOT_COUNT / (count / 2)) as Slot;
        let start = sim.now;
        sim.until_served(slot, *no, 20_000);
        println!("slot {slot}: {} ms later", sim.now - start);
    }
    for no in victims {
        sim.restart(no);
    }
    sim.settle();
}
