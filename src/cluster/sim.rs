//! Many cluster nodes in one process, under a simulated clock and network.
//!
//! Every node is the real state machine. The network is made of connections as TCP gives them (ordered; broken, refused
//! or stalled rather than lossy) with random delays, one-way and two-way partitions, and now and then a lost packet.
//! Nodes crash, also in the middle of carrying out actions, restart from the `nodes.conf` they wrote, and stand still
//! for a while; their clocks may run at different rates. After every step the promises of the protocol are checked.
//!
//! Every node has clients, on either side of a partition, that write all the time. A node that stands still is treated
//! as in a long turn: its clients are served by its old state and the current time.
//!
//! `HEXAD_SIM_SEEDS` sets how many seeds are tried, `HEXAD_SIM_SEED` the first one; a failure names its seed. With
//! `HEXAD_SIM_LOG=info`, or another level, what the nodes log is shown.

mod changes;
mod check;
mod durable;
mod faults;
mod forming;
mod hand_over;
mod log_lines;
mod scale;
mod starved;
mod tests;
mod written;

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, HashSet, VecDeque};
use std::rc::Rc;

use super::node::{NodeFlags, NodeId};
use super::wire::{self, PacketType};
use super::{Action, Broken, Cluster, ClusterConfig, Dropped, Env, FailoverMode, LinkId, LinkMap, SetSlot};
use crate::structs::slots::{SLOT_COUNT, Slot, SlotSet};

const START_MS: i64 = 1_700_000_000_000;
/// How late the machine may be: its tick, and the latency of a packet.
const SLACK_MS: i64 = 300;
/// No clock goes slower.
const SLOWEST: f64 = 0.97;
/// The shortest term of leases.
const SHORTEST_TERM_MS: i64 = 500;

type NodeNo = usize;
type ConnNo = usize;

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A node is to wake, unless it was set to wake at another time since.
    Wake(NodeNo),
    /// The first packet on its way to that side of a connection arrives.
    Arrive(ConnNo, usize),
    /// The attempt to connect reaches the other side.
    Dial(ConnNo),
    /// The end of a connection reaches that side.
    Hangup(ConnNo, usize),
    Replicate,
    /// What a replica has, on its way to its master.
    Confirm(Box<durable::Confirm>),
    /// The file of that number is in its place, if the node has not restarted more often since.
    Written(NodeNo, u64, u64),
    Fault,
    /// Operators go on with what they are at.
    Operate,
    Restart(NodeNo),
    /// What a node is told of its seeds' addresses.
    Seek(NodeNo),
    Resume(NodeNo),
    Heal(u64),
}

struct Conn {
    /// The node that opened it and the one that accepted it.
    ends: [NodeNo; 2],
    links: [Option<LinkId>; 2],
    /// The packets on their way to each end.
    queues: [VecDeque<Rc<[u8]>>; 2],
    /// When the last packet to each end arrives: order is kept.
    last_ms: [i64; 2],
    established: bool,
    refused: bool,
}

struct SimNode {
    cluster: Option<Cluster>,
    conf: String,
    /// What is being written beside the loop, and the greatest epoch of a vote that is in what was written.
    writing: Option<Writing>,
    saved_vote_epoch: u64,
    config: ClusterConfig,
    links: LinkMap<ConnNo>,
    /// When it is to wake.
    wake_ms: i64,
    has_keys: bool,
    paused: bool,
    /// When its last turn was, and when the next can be: it gets little of the processor.
    turn_ms: i64,
    busy_until_ms: i64,
    /// The rate of its clock, since when it has that.
    rate: f64,
    rated_ms: i64,
    /// What it told then.
    told_ms: i64,
    /// Until when clients are held back, so that nothing is written.
    clients_held_ms: i64,
    /// Dies after carrying out so many more actions.
    doomed: Option<usize>,
    offset: i64,
    data: durable::Data,
    /// The number of its shard.
    shard: usize,
    repl_from: Option<NodeNo>,
    repl_heard_ms: i64,
    last_vote_epoch: u64,
    my_epoch: (NodeId, u64),
    current_epoch: u64,
    heard: Heard,
    suspects: HashSet<NodeId>,
    /// Whether it took writes after its last step, for how many slots and by which epoch.
    serving: (bool, usize, u64),
    sent: Sent,
    /// When it could communicate with each other one last, as of the last change; `i64::MAX`: it can.
    reached_ms: Vec<i64>,
    /// Since when it has been cut off from a majority.
    cut_ms: Option<i64>,
    restarts: u64,
}

/// A version of `nodes.conf`.
struct Writing {
    /// `None`: another one was written since, or all versions are too long.
    conf: Option<String>,
    vote_epoch: u64,
}

/// What a node sent and wrote.
#[derive(Clone, Copy, Default)]
struct Sent {
    packets: u64,
    bytes: u64,
    /// Writes of `nodes.conf`.
    saves: u64,
}

/// When a node heard of each other one last, by its own clock.
#[derive(Default)]
struct Heard {
    /// By number, under the id that it has now.
    nodes: Vec<Option<(NodeId, i64)>>,
    /// Ids that nodes had before.
    former: HashMap<NodeId, i64>,
}

impl Heard {
    fn note(&mut self, no: NodeNo, id: NodeId, now_ms: i64) {
        if no >= self.nodes.len() {
            self.nodes.resize(no + 1, None);
        }
        match self.nodes[no].replace((id, now_ms)) {
            Some((former, ms)) if former != id => drop(self.former.insert(former, ms)),
            _ => {}
        }
    }

    fn last_ms(&self, id: NodeId) -> Option<i64> {
        let now = self.nodes.iter().flatten().find(|(known, _)| *known == id);
        now.map(|(_, ms)| *ms).or_else(|| self.former.get(&id).copied())
    }
}

/// All connections there ever were, by number.
#[derive(Default)]
struct Conns(Vec<Option<Box<Conn>>>);

impl Conns {
    fn add(&mut self, conn: Conn) -> ConnNo {
        self.0.push(Some(Box::new(conn)));
        self.0.len() - 1
    }

    fn get(&self, no: ConnNo) -> Option<&Conn> {
        self.0[no].as_deref()
    }

    fn get_mut(&mut self, no: ConnNo) -> Option<&mut Conn> {
        self.0[no].as_deref_mut()
    }

    fn remove(&mut self, no: ConnNo) -> Option<Box<Conn>> {
        self.0[no].take()
    }
}

struct Sim {
    seed: u64,
    rng: fastrand::Rng,
    now: i64,
    seq: u64,
    events: BinaryHeap<Reverse<(i64, u64, Event)>>,
    nodes: Vec<SimNode>,
    conns: Conns,
    /// Directions in which nothing passes, with the fault that blocks them.
    blocked: HashMap<(NodeNo, NodeNo), u64>,
    latency_ms: std::ops::Range<i64>,
    /// For how long a node does not run after each of its turns.
    late_ms: std::ops::Range<i64>,
    /// How often clients write and replicas copy.
    replicate_ms: i64,
    loss: f64,
    /// How long it takes to write `nodes.conf` beside the loop.
    disk_ms: std::ops::Range<i64>,
    disk_rng: fastrand::Rng,
    faults: bool,
    next_fault: u64,
    /// So many times as soon as usual faults follow each other, and end.
    haste: i64,
    votes: HashMap<(NodeId, u64), NodeNo>,
    claims: BTreeMap<u64, Vec<(NodeId, SlotSet)>>,
    /// Until when two masters of one slot are allowed, by an operator's order.
    forced_until_ms: i64,
    steps: u64,
    /// In how many replicas writes are before they are acknowledged; 0: what is written is not looked at.
    copies: u32,
    shards: Vec<durable::Shard>,
    /// What clients were told is written.
    acknowledged: BTreeMap<Slot, durable::Acknowledged>,
    looks: usize,
    /// A slot on its way from one master to another.
    moving: Option<changes::Move>,
    changes: changes::Changes,
    /// The elections that were begun, and how many replicas took a master's place.
    elections: HashSet<(NodeNo, u64)>,
    promotions: u64,
    /// The node that did not agree with the others when that was last looked at.
    odd: Cell<NodeNo>,
    /// How long it took at the start until every node knew every other, and from then until all views agreed.
    formed_ms: [i64; 2],
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
        Sim::with_copies(seed, masters, replicas, timeout_ms, 0)
    }

    fn with_copies(seed: u64, masters: usize, replicas: usize, timeout_ms: i64, copies: u32) -> Sim {
        let mut sim = Sim::empty(seed, masters, copies);
        let count = masters * (1 + replicas);
        for no in 0..count {
            let config =
                ClusterConfig { node_timeout_ms: timeout_ms, durable_acks: copies, ..ClusterConfig::default() };
            let cluster = sim.add_node(config);
            cluster.set_config_epoch(no as i64 + 1).unwrap();
            if no < masters {
                let at = |n: usize| (n * SLOT_COUNT / masters) as Slot;
                cluster.add_slots(&[(at(no), (at(no + 1) - 1))]).unwrap();
            }
        }
        for no in 1..count {
            let target = sim.rng.usize(0..no);
            sim.step(no, |c, env| c.meet(ip_of(target).as_bytes(), 6379, 16379, env).unwrap());
        }
        sim.step(0, |_, _| ());
        sim.after(50, Event::Replicate);
        sim.formed_ms[0] = sim.run_until("every node knows every other", 60_000, |sim| {
            sim.alive().all(|(_, c)| c.nodes().len() == count && c.nodes().iter().all(|(_, n)| !n.in_handshake()))
        });
        for no in masters..count {
            let master = *sim.nodes[no % masters].cluster.as_ref().unwrap().myself().id.as_bytes();
            sim.step(no, move |c, _| c.replicate(&master, false).unwrap());
        }
        sim.formed_ms[1] = sim.settle();
        sim
    }

    /// No nodes yet.
    fn empty(seed: u64, masters: usize, copies: u32) -> Sim {
        log_lines::show_if_asked();
        Sim {
            seed,
            rng: fastrand::Rng::with_seed(seed),
            now: START_MS,
            seq: 0,
            events: BinaryHeap::new(),
            nodes: Vec::new(),
            conns: Conns::default(),
            blocked: HashMap::new(),
            latency_ms: 0..3,
            late_ms: 0..1,
            replicate_ms: 10,
            loss: 0.0,
            disk_ms: 1..4,
            disk_rng: fastrand::Rng::with_seed(!seed),
            faults: false,
            next_fault: 1,
            haste: 1,
            votes: HashMap::new(),
            claims: BTreeMap::new(),
            forced_until_ms: 0,
            steps: 0,
            copies,
            shards: (0..masters).map(|_| durable::Shard::default()).collect(),
            acknowledged: BTreeMap::new(),
            looks: 0,
            moving: None,
            changes: changes::Changes::default(),
            elections: HashSet::new(),
            promotions: 0,
            odd: Cell::new(0),
            formed_ms: [0; 2],
        }
    }

    /// In a large cluster some checks after every step would take all the time.
    fn is_large(&self) -> bool {
        self.nodes.len() > 50
    }

    /// One more node, which knows nobody.
    fn add_node(&mut self, config: ClusterConfig) -> &mut Cluster {
        let cluster = Cluster::new(config.clone(), self.rng.u64(..), self.now);
        let my_epoch = (cluster.myself().id, 0);
        self.nodes.push(SimNode {
            cluster: Some(cluster),
            conf: String::new(),
            writing: None,
            saved_vote_epoch: 0,
            config,
            links: LinkMap::default(),
            wake_ms: i64::MAX,
            has_keys: false,
            paused: false,
            turn_ms: 0,
            busy_until_ms: 0,
            rate: 1.0,
            rated_ms: self.now,
            told_ms: self.now,
            clients_held_ms: 0,
            doomed: None,
            offset: i64::from(self.copies == 0),
            data: durable::Data::default(),
            shard: self.nodes.len() % self.shards.len().max(1),
            repl_from: None,
            repl_heard_ms: self.now,
            last_vote_epoch: 0,
            my_epoch,
            current_epoch: 0,
            heard: Heard::default(),
            suspects: HashSet::new(),
            serving: (false, 0, 0),
            sent: Sent::default(),
            reached_ms: Vec::new(),
            cut_ms: None,
            restarts: 0,
        });
        self.nodes.last_mut().and_then(|node| node.cluster.as_mut()).expect("just added")
    }

    /// A node's own time.
    fn local_ms(&self, no: NodeNo) -> i64 {
        let node = &self.nodes[no];
        node.told_ms + ((self.now - node.rated_ms) as f64 * node.rate) as i64
    }

    /// From now on a node's clock goes at this rate.
    fn set_rate(&mut self, no: NodeNo, rate: f64) {
        let told_ms = self.local_ms(no);
        let node = &mut self.nodes[no];
        (node.rate, node.rated_ms, node.told_ms) = (rate, self.now, told_ms);
        // What it is to wake for comes sooner or later than before.
        if self.nodes[no].cluster.is_some() {
            self.wake_when_due(no);
        }
    }

    fn some_rate(&mut self, spread: f64) -> f64 {
        1.0 + (self.rng.f64() - 0.5) * spread
    }

    /// All clocks go at rates that differ by so much at most.
    fn set_rates(&mut self, spread: f64) {
        for no in 0..self.nodes.len() {
            let rate = self.some_rate(spread);
            self.set_rate(no, rate);
        }
    }

    /// Whether a client's write to this node's slots is accepted now.
    fn takes_writes(&self, no: NodeNo) -> bool {
        let (node, now) = (&self.nodes[no], self.local_ms(no));
        let Some(c) = &node.cluster else { return false };
        c.myself().is_voter() && c.is_up() && c.holds_lease(now) && node.clients_held_ms <= now
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
        log_lines::are_of(no, self.now - START_MS);
        let node = &mut self.nodes[no];
        let Some(mut cluster) = node.cluster.take() else { return };
        let env = Env {
            now_ms: now,
            repl_offset: node.offset,
            data_age_ms: self.now - node.repl_heard_ms,
            replicating: node.repl_from.is_some(),
            master_link_up: node.data.is_linked,
            stream: Some(node.data.stream),
            has_keys: node.has_keys,
            syncs_replies: false,
            slots_with_keys: &|_| SlotSet::default(),
        };
        cluster.turn_begins(now);
        work(&mut cluster, &env);
        if self.copies > 0 {
            // One that was reset has forgotten it.
            cluster.set_logged(node.data.keeps);
        }
        cluster.tick(&env);
        let actions = cluster.flush(&env);
        self.end_turn(no);
        self.nodes[no].cluster = Some(cluster);
        self.carry_out(no, actions);
        if self.nodes[no].cluster.is_some() {
            self.wake_when_due(no);
            self.check(no);
        }
    }

    /// What comes at the same time is of the same turn.
    fn end_turn(&mut self, no: NodeNo) {
        if self.late_ms.end > 1 && self.nodes[no].turn_ms != self.now {
            self.nodes[no].turn_ms = self.now;
            self.nodes[no].busy_until_ms = self.now + self.rng.i64(self.late_ms.clone());
        }
    }

    /// Until when a node does not run, if it does not.
    fn late_until(&self, no: NodeNo) -> Option<i64> {
        let node = &self.nodes[no];
        (node.busy_until_ms > self.now && node.turn_ms != self.now).then_some(node.busy_until_ms)
    }

    fn wake_when_due(&mut self, no: NodeNo) {
        let node = &self.nodes[no];
        let due = self.cluster(no).next_deadline_ms();
        let due = node.rated_ms + ((due - node.told_ms) as f64 / node.rate).ceil() as i64;
        let due = due.max(self.now + 1).max(node.busy_until_ms);
        if due < node.wake_ms {
            self.nodes[no].wake_ms = due;
            self.at(due, Event::Wake(no));
        }
    }

    /// It may have done what was due in another turn.
    fn wake(&mut self, no: NodeNo) {
        if self.nodes[no].wake_ms != self.now {
            return;
        }
        self.nodes[no].wake_ms = i64::MAX;
        if let Some(until_ms) = self.late_until(no) {
            self.nodes[no].wake_ms = until_ms;
            return self.at(until_ms, Event::Wake(no));
        }
        let local_ms = self.local_ms(no);
        let node = &self.nodes[no];
        match &node.cluster {
            Some(c) if !node.paused && c.next_deadline_ms() <= local_ms => self.step(no, |_, _| ()),
            Some(_) if !node.paused => self.wake_when_due(no),
            _ => {}
        }
    }

    fn carry_out(&mut self, no: NodeNo, actions: Vec<Action>) {
        for action in actions {
            match self.nodes[no].doomed {
                Some(0) if self.may_lose_data_of(no) => return self.crash(no),
                // It goes on, and leaves nothing undone.
                Some(0) => self.nodes[no].doomed = None,
                Some(n) => self.nodes[no].doomed = Some(n - 1),
                None => {}
            }
            match action {
                Action::SaveConfig { .. } => self.save_config(no),
                Action::WriteConfig { number, .. } => self.write_config(no, number),
                Action::Connect { link, ip, port } => {
                    assert_eq!(port, 16379);
                    let to = no_of(&ip).expect("an address of a node");
                    let conn = self.conns.add(Conn {
                        ends: [no, to],
                        links: [Some(link), None],
                        queues: Default::default(),
                        last_ms: [0; 2],
                        established: false,
                        refused: false,
                    });
                    self.nodes[no].links.insert(link, conn);
                    let ms = self.latency();
                    self.after(ms, Event::Dial(conn));
                }
                Action::CloseLink { link } => self.hang_up(no, link),
                Action::Send { link, packet } => {
                    self.check_packet(no, &packet);
                    self.transmit(no, link, packet);
                }
                Action::SetReplicationMaster { ip, .. } => {
                    self.nodes[no].data.unlink();
                    self.nodes[no].repl_from = no_of(&ip);
                }
                Action::UnsetReplicationMaster => {
                    self.nodes[no].repl_from = None;
                    let stream = self.new_stream();
                    self.nodes[no].data.lead(stream);
                    self.promotions += 1;
                }
                Action::PauseClients { until_ms, .. } => self.nodes[no].clients_held_ms = until_ms,
                Action::UnpauseClients => self.nodes[no].clients_held_ms = 0,
                Action::SeekSeeds => {
                    let ms = self.latency();
                    self.after(ms, Event::Seek(no));
                }
                _ => {}
            }
        }
    }

    fn save_config(&mut self, no: NodeNo) {
        self.write_config_text(no);
        self.put_written_in_place(no);
    }

    /// Takes down what the file is to be.
    fn write_config_text(&mut self, no: NodeNo) {
        let conf = (!self.is_large()).then(|| self.cluster(no).nodes_conf());
        let vote_epoch = self.cluster(no).last_vote_epoch();
        self.nodes[no].sent.saves += 1;
        self.nodes[no].writing = Some(Writing { conf, vote_epoch });
    }

    fn write_config(&mut self, no: NodeNo, number: u64) {
        self.write_config_text(no);
        let ms = self.disk_rng.i64(self.disk_ms.clone());
        let restarts = self.nodes[no].restarts;
        if ms == 0 {
            // A quick disk is waited for.
            return self.written_in_turn(no, number);
        }
        self.after(ms, Event::Written(no, number, restarts));
    }

    fn written_in_turn(&mut self, no: NodeNo, number: u64) {
        self.put_written_in_place(no);
        self.step(no, |c, env| c.on_config_written(number, env));
    }

    fn written(&mut self, no: NodeNo, number: u64, restarts: u64) {
        let node = &self.nodes[no];
        if node.cluster.is_none() || node.restarts != restarts {
            return;
        }
        if node.paused {
            return self.after(20, Event::Written(no, number, restarts));
        }
        if let Some(until_ms) = self.late_until(no) {
            return self.at(until_ms, Event::Written(no, number, restarts));
        }
        self.written_in_turn(no, number);
    }

    /// Unless a later one is there already.
    fn put_written_in_place(&mut self, no: NodeNo) {
        let node = &mut self.nodes[no];
        if let Some(Writing { conf, vote_epoch }) = node.writing.take() {
            node.saved_vote_epoch = vote_epoch;
            node.conf = conf.unwrap_or_default();
        }
    }

    fn transmit(&mut self, no: NodeNo, link: LinkId, packet: Rc<[u8]>) {
        let Some(&no_conn) = self.nodes[no].links.get(&link) else { return };
        let sent = &mut self.nodes[no].sent;
        (sent.packets, sent.bytes) = (sent.packets + 1, sent.bytes + packet.len() as u64);
        let lost = self.loss > 0.0 && self.rng.f64() < self.loss;
        let ms = self.latency();
        let now = self.now;
        let Some(conn) = self.conns.get_mut(no_conn) else { return };
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
        let Some(conn) = self.conns.get_mut(no_conn) else { return };
        let mine = usize::from(!(conn.ends[0] == no && conn.links[0] == Some(link)));
        conn.links[mine] = None;
        let ms = self.latency();
        self.after(ms, Event::Hangup(no_conn, 1 - mine));
    }

    fn crash(&mut self, no: NodeNo) {
        if !self.may_lose_data_of(no) {
            self.nodes[no].doomed = None;
            return;
        }
        let is_large = self.is_large();
        // It may have come to its place, though nobody was told.
        if self.disk_rng.bool() {
            self.put_written_in_place(no);
        }
        let node = &mut self.nodes[no];
        node.writing = None;
        // To write it out whenever it is saved would take much of the time.
        if let Some(c) = node.cluster.as_ref().filter(|_| is_large) {
            node.conf = c.nodes_conf();
        }
        node.data.crash();
        node.cluster = None;
        node.wake_ms = i64::MAX;
        node.doomed = None;
        node.paused = false;
        node.clients_held_ms = 0;
        node.cut_ms = None;
        let mut links: Vec<LinkId> = node.links.keys().copied().collect();
        links.sort_unstable();
        for link in links {
            self.hang_up(no, link);
        }
        let ms = self.fault_ms(200..12_000);
        if self.faults {
            self.after(ms, Event::Restart(no));
        }
        self.unlink_replicas(no);
    }

    fn restart(&mut self, no: NodeNo) {
        if self.nodes[no].cluster.is_some() {
            return;
        }
        let (now, seed) = (self.local_ms(no), self.rng.u64(..));
        let node = &mut self.nodes[no];
        let cluster = Cluster::from_nodes_conf(node.config.clone(), seed, now, &node.conf).expect("what a node wrote");
        assert!(cluster.last_vote_epoch() >= node.saved_vote_epoch, "a vote was forgotten over a restart");
        // What nobody was told may be.
        node.last_vote_epoch = cluster.last_vote_epoch();
        node.restarts += 1;
        // The current epoch may be lower after a restart: what others said is not saved.
        node.current_epoch = 0;
        node.repl_from = None;
        node.repl_heard_ms = self.now;
        node.suspects = cluster.nodes().iter().filter(|(_, n)| n.timed_out()).map(|(_, n)| n.id).collect();
        node.cluster = Some(cluster);
        self.restart_data(no);
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
            // Checking after every event would take most of the time, in a large cluster after every few milliseconds, too.
            let apart = if within_ms > 30_000 { 50 } else { 5 };
            let until = self.now + apart * (1 + self.nodes.len() as i64 / 100);
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
            Event::Wake(no) => self.wake(no),
            Event::Dial(conn) => self.dial(conn),
            Event::Arrive(conn, side) => self.arrive(conn, side),
            Event::Hangup(conn, side) => self.hangup_arrives(conn, side),
            Event::Replicate => {
                if self.copies == 0 {
                    self.replicate();
                    self.after(50, Event::Replicate);
                } else {
                    self.replicate_data();
                    self.after(self.replicate_ms, Event::Replicate);
                }
            }
            Event::Confirm(confirm) => self.confirm(&confirm),
            Event::Written(no, number, restarts) => self.written(no, number, restarts),
            Event::Fault => self.inject_fault(),
            Event::Operate => self.operate(),
            Event::Restart(no) => self.restart(no),
            Event::Seek(no) => {
                let Some(c) = self.nodes[no].cluster.as_ref().filter(|_| !self.nodes[no].paused) else { return };
                let hosts: Vec<String> = c.seeds().iter().map(|seed| seed.host.clone()).collect();
                for (at, host) in hosts.into_iter().enumerate() {
                    self.step(no, |c, env| c.on_seed(at, vec![host], env));
                }
            }
            Event::Resume(no) => {
                self.nodes[no].paused = false;
                // Handles the packets that came meanwhile: in a turn packets are read before timers run.
                self.step(no, |_, _| ());
            }
            Event::Heal(fault) => {
                self.blocked.retain(|_, f| *f != fault);
                self.note_cuts();
            }
        }
    }

    fn dial(&mut self, no: ConnNo) {
        let Some(conn) = self.conns.get(no) else { return };
        let [from, to] = conn.ends;
        let Some(link) = conn.links[0] else {
            self.conns.remove(no);
            return;
        };
        if let Some(until_ms) = self.late_until(from) {
            return self.at(until_ms, Event::Dial(no));
        }
        if self.nodes[from].paused || self.nodes[to].paused || !self.passes(from, to) || !self.passes(to, from) {
            // A lost SYN is sent again.
            self.after(100, Event::Dial(no));
            return;
        }
        if self.nodes[to].cluster.is_none() {
            self.conns.get_mut(no).unwrap().refused = true;
            let ms = self.latency();
            self.after(ms, Event::Hangup(no, 0));
            return;
        }
        let (now, local) = (self.now, self.local_ms(to));
        let accepted = self.nodes[to].cluster.as_mut().unwrap().on_accept(local, ip_of(from), ip_of(to));
        self.nodes[to].links.insert(accepted, no);
        let conn = self.conns.get_mut(no).unwrap();
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
        let Some(conn) = self.conns.get(no) else { return };
        let (from, to) = (conn.ends[1 - side], conn.ends[side]);
        if let Some(until_ms) = self.late_until(to) {
            return self.at(until_ms, Event::Arrive(no, side));
        }
        if self.nodes[to].paused || !self.passes(from, to) {
            // It stays in a buffer until the partition ends.
            self.after(20, Event::Arrive(no, side));
            return;
        }
        let conn = self.conns.get_mut(no).unwrap();
        let (Some(packet), Some(link)) = (conn.queues[side].pop_front(), conn.links[side]) else { return };
        let sender = NodeId::parse(&packet[40..80]).expect("what a node sends");
        if !self.is_large()
            && self.nodes[to].cluster.as_ref().is_some_and(|c| !c.broken.dropped.has(wire::packet_type(&packet)))
        {
            let now = self.local_ms(to);
            self.nodes[to].heard.note(from, sender, now);
        }
        self.step(to, |c, env| c.on_packet(link, &packet, env));
    }

    fn hangup_arrives(&mut self, no: ConnNo, side: usize) {
        let Some(conn) = self.conns.get(no) else { return };
        let (from, to) = (conn.ends[1 - side], conn.ends[side]);
        let refused = conn.refused;
        // In a turn of its own it would be late for what waits once more.
        if let Some(until_ms) = self.late_until(to) {
            return self.at(until_ms, Event::Hangup(no, side));
        }
        if self.nodes[to].paused || (!refused && !self.passes(from, to)) {
            self.after(50, Event::Hangup(no, side));
            return;
        }
        let conn = self.conns.remove(no).unwrap();
        if let Some(link) = conn.links[side]
            && self.nodes[to].links.remove(&link).is_some()
        {
            self.step(to, |c, env| {
                if refused {
                    c.on_link_refused(link);
                }
                c.on_link_closed(link, env);
            });
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
            } else if let Some(from) = self.nodes[no].repl_from {
                let up = self.nodes[from].cluster.as_ref().is_some_and(|m| m.myself().is_master())
                    && !self.nodes[from].paused
                    && self.passes(no, from)
                    && self.passes(from, no);
                self.nodes[no].data.is_linked = up;
                if up {
                    self.nodes[no].offset = self.nodes[from].offset;
                    self.nodes[no].repl_heard_ms = self.now;
                }
            }
        }
    }

    // ---- faults ----
}
