//! A primary and its replicas in one process, under a simulated clock and network.
//!
//! Every node is the real state machine. Around it is as little of a server as it takes: a dataset of numbers, commands
//! that set them, snapshots of it. Connections deliver bytes in order, late and in pieces; they break, also in the middle of
//! a snapshot, and stand still when two nodes are parted. Roles change: replicas are promoted, follow each other in chains,
//! and take over by FAILOVER, while every primary that thinks it is one goes on writing. A replica that asks for an offset
//! which its master holds of the same history must get it. Once the network is whole and the roles are settled, all nodes
//! must come to the same stream, byte for byte, and to the same data.
//!
//! `HEXAD_SIM_SEEDS` sets how many seeds are tried, `HEXAD_SIM_SEED` the first one; a failure names its seed.

mod network;
mod tests;

use super::bulk::MARK_LEN;
use super::primary::RunningChild;
use super::*;
use crate::config::ReplDisklessLoad;
use crate::resp::encode;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const START_MS: i64 = 1_700_000_000_000;
/// A replica that lets more than this pile up is closed.
const OUTPUT_LIMIT: usize = 200_000;

type NodeNo = usize;
type ConnNo = u64;
/// Values by database and key.
type Data = BTreeMap<(usize, u64), u64>;

/// Bytes on their way, with the time they arrive, and when the other side has hung up.
#[derive(Default)]
struct Pipe {
    pieces: VecDeque<(i64, Vec<u8>)>,
    closed_ms: Option<i64>,
}

impl Pipe {
    /// Sends bytes; they get nowhere once the connection is broken.
    fn send(&mut self, due_ms: i64, bytes: Vec<u8>) {
        if self.closed_ms.is_none() {
            self.pieces.push_back((due_ms, bytes));
        }
    }

    /// The next piece that has arrived.
    fn next(&mut self, now_ms: i64) -> Option<Vec<u8>> {
        let is_due = self.pieces.front().is_some_and(|(due_ms, _)| *due_ms <= now_ms);
        if is_due { self.pieces.pop_front().map(|(_, bytes)| bytes) } else { None }
    }
}

struct Conn {
    replica: NodeNo,
    link: LinkId,
    /// The replica's client for the master, once the link has become one.
    adopted: Option<ClientId>,
    master: NodeNo,
    client: ClientId,
    up_ms: i64,
    is_up: bool,
    to_master: Pipe,
    to_replica: Pipe,
    /// What the master has not parsed yet.
    input: Vec<u8>,
    /// What the master has to send before the stream: replies, then the file.
    out: Vec<u8>,
    file: Option<Vec<u8>>,
    close_after_out: bool,
    replica_open: bool,
    master_open: bool,
}

struct Child {
    target: SnapshotTarget,
    clients: Vec<ClientId>,
    bytes: Vec<u8>,
    ends_ms: i64,
    ok: bool,
}

struct Loading {
    link: LinkId,
    framing: Framing,
    bytes: Vec<u8>,
}

struct Node {
    repl: Repl,
    cfg: Config,
    data: Data,
    /// Database that the master's client has selected, and what it has not executed yet.
    db: usize,
    input: Vec<u8>,
    received: Option<Vec<u8>>,
    dump: Vec<u8>,
    child: Option<Child>,
    loading: Option<Loading>,
    paused: bool,
    closing: Vec<ClientId>,
    cron_ms: i64,
    log: VecDeque<String>,
}

struct World {
    rng: fastrand::Rng,
    now_ms: i64,
    nodes: Vec<Node>,
    conns: BTreeMap<ConnNo, Conn>,
    next: u64,
    /// Pairs of nodes between which nothing moves.
    parted: BTreeSet<(NodeNo, NodeNo)>,
    has_faults: bool,
    /// Clients in WAIT that were answered.
    released: Vec<(ClientId, WaitAnswer)>,
}

fn encode(position: &Position, data: &Data) -> Vec<u8> {
    let pairs: Vec<String> = data.iter().map(|((db, key), value)| format!("{db} {key} {value}")).collect();
    format!("SNAPSHOT {}\n{}\nEND", position.db, pairs.join("\n")).into_bytes()
}

fn decode(bytes: &[u8]) -> Option<(usize, Data)> {
    let text = std::str::from_utf8(bytes).ok()?.strip_prefix("SNAPSHOT ")?.strip_suffix("\nEND")?;
    let (db, pairs) = text.split_once('\n')?;
    let pair = |line: &str| {
        let words: Vec<u64> = line.split(' ').map(|word| word.parse().ok()).collect::<Option<_>>()?;
        Some(((words[0] as usize, words[1]), words[2]))
    };
    Some((db.parse().ok()?, pairs.lines().filter(|line| !line.is_empty()).map(pair).collect::<Option<_>>()?))
}

/// The first whole request of `input` and its length; an empty line is one without words.
fn parse(input: &[u8]) -> Option<(usize, Vec<Vec<u8>>)> {
    let line = |at: usize| {
        let end = at + input.get(at..)?.iter().position(|b| *b == b'\n')?;
        Some((end + 1, input[at..end].strip_suffix(b"\r").unwrap_or(&input[at..end])))
    };
    let number = |text: &[u8]| std::str::from_utf8(&text[1..]).unwrap().parse::<usize>().unwrap();
    let (mut at, head) = line(0)?;
    if head.first() != Some(&b'*') {
        return Some((at, head.split(|b| *b == b' ').filter(|w| !w.is_empty()).map(<[u8]>::to_vec).collect()));
    }
    let mut words = Vec::new();
    for _ in 0..number(head) {
        let (next, head) = line(at)?;
        let len = number(head);
        words.push(input.get(next..next + len)?.to_vec());
        at = next + len + 2;
    }
    (at <= input.len()).then_some((at, words))
}

fn text(word: &[u8]) -> &str {
    std::str::from_utf8(word).unwrap()
}

impl World {
    fn new(seed: u64, count: usize) -> World {
        fastrand::seed(seed);
        let mut rng = fastrand::Rng::with_seed(seed);
        let nodes = (0..count).map(|n| {
            let mut cfg = Config {
                port: n as u16 + 1,
                repl_timeout: 5,
                repl_ping_replica_period: rng.i64(1..4),
                repl_backlog_size: rng.u64(1..5) << 14,
                repl_diskless_sync: rng.bool(),
                repl_diskless_sync_delay: rng.i64(0..2),
                ..Config::default()
            };
            let ways = [ReplDisklessLoad::Disabled, ReplDisklessLoad::OnEmptyDb, ReplDisklessLoad::Swapdb];
            cfg.repl_diskless_load = *rng.choice(&ways).unwrap();
            Node {
                repl: Repl::new(START_MS / 1000),
                cfg,
                data: Data::new(),
                db: 0,
                input: Vec::new(),
                received: None,
                dump: Vec::new(),
                child: None,
                loading: None,
                paused: false,
                closing: Vec::new(),
                cron_ms: START_MS + rng.i64(0..1000),
                log: VecDeque::new(),
            }
        });
        let nodes = nodes.collect();
        World {
            rng,
            now_ms: START_MS,
            nodes,
            conns: BTreeMap::new(),
            next: 0,
            parted: BTreeSet::new(),
            has_faults: false,
            released: Vec::new(),
        }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// True once in so many times, while things may go wrong.
    fn fault(&mut self, one_in: u32) -> bool {
        self.has_faults && self.rng.u32(0..one_in) == 0
    }

    fn later(&mut self) -> i64 {
        self.now_ms + if self.rng.u32(0..10) == 0 { self.rng.i64(0..300) } else { self.rng.i64(0..20) }
    }

    fn conn_of(&self, node: NodeNo, link: LinkId) -> Option<ConnNo> {
        let found = self.conns.iter().find(|(_, c)| c.replica == node && c.link == link && c.replica_open);
        found.map(|(no, _)| *no)
    }

    fn conn_of_client(&self, node: NodeNo, client: ClientId) -> Option<ConnNo> {
        let found = self.conns.iter().find(|(_, c)| c.master == node && c.client == client && c.master_open);
        found.map(|(no, _)| *no)
    }

    // ---- the server around a machine

    fn event<R>(&mut self, n: NodeNo, event: impl FnOnce(&mut Repl, &Env) -> R) -> R {
        let node = &mut self.nodes[n];
        let has_no_keys = node.data.is_empty();
        let env = Env {
            now_ms: self.now_ms,
            cfg: &node.cfg,
            is_loading: node.loading.is_some(),
            writes_paused: node.paused,
            manual_failover: false,
            fsynced_offset: None,
            child: match node.child.as_ref().map(|child| child.target) {
                None => RunningChild::None,
                Some(SnapshotTarget::Disk) => RunningChild::SnapshotToDisk,
                Some(SnapshotTarget::Sockets) => RunningChild::SnapshotToSockets,
            },
            master: node.repl.master_client().map(|_| MasterSession { db: node.db, is_broken: false }),
            has_no_keys: &|| has_no_keys,
            vouch: &|| None,
            node_id: None,
        };
        let result = event(&mut node.repl, &env);
        for action in node.repl.take_actions() {
            self.carry_out(n, action);
        }
        result
    }

    fn carry_out(&mut self, n: NodeNo, action: Action) {
        match action {
            Action::OpenReceivedFile { link }
            | Action::StoreReceived { link, .. }
            | Action::LoadReceivedFile { link, .. }
            | Action::LoadFromLink { link, .. }
            | Action::AdoptLink { link, .. }
                if !self.is_current(n, link) => {}
            Action::Log(line) => self.log(n, &line.text),
            Action::LogAs(_)
            | Action::ShowRole
            | Action::RestartAofAfterRoleChange
            | Action::RestartAofAfterSync
            | Action::DropBacklog(_)
            | Action::DisconnectBlocked
            | Action::WantWrite { .. }
            | Action::BecomeReplica { .. } => {}
            Action::Release { client, answer } => self.released.push((client, answer)),
            Action::PauseWrites => self.nodes[n].paused = true,
            Action::ResumeWrites => self.nodes[n].paused = false,

            Action::Connect { link, port, .. } => self.dial(n, link, usize::from(port) - 1),
            Action::CloseLink { link } => self.close_link(n, link),
            Action::SendToMaster { link, bytes } => self.send_to_master(n, link, bytes),
            Action::OpenReceivedFile { .. } => self.open_received(n),
            Action::StoreReceived { bytes, .. } => self.store_received(n, &bytes),
            Action::LoadReceivedFile { rest, .. } => {
                if let Some(bytes) = self.nodes[n].received.take() {
                    self.load(n, &bytes, &rest);
                }
            }
            Action::LoadFromLink { link, framing, rest } => {
                self.nodes[n].loading = Some(Loading { link, framing, bytes: rest });
                self.go_on_loading(n);
            }
            Action::AdoptLink { link, db, rest } => self.adopt(n, link, db, rest),

            Action::DismissReplica { client } => self.with_conn(n, client, |conn| conn.close_after_out = true),
            Action::Push { client, bytes } => self.with_conn(n, client, |conn| conn.out.extend(bytes)),
            Action::CheckOutput { client } => {
                if self.nodes[n].repl.output_memory(client) > OUTPUT_LIMIT {
                    self.nodes[n].closing.push(client);
                }
            }
            Action::CloseLater { client } => self.nodes[n].closing.push(client),
            Action::Free { client } => self.free(n, client),

            Action::StartSnapshot(start) => self.start_snapshot(n, start),
            Action::SendFile { client } => self.send_file(n, client),
            Action::LeaveSnapshot { client } => {
                self.with_child(n, |child| child.clients.retain(|other| *other != client))
            }
            Action::KillSnapshot => {
                let ends_ms = self.now_ms;
                self.with_child(n, |child| (child.ok, child.ends_ms) = (false, ends_ms));
            }
            Action::ReapChild => self.reap(n),
            Action::RemoveDump => self.event(n, |repl, _| repl.on_dump_removed()),
        }
    }

    fn is_current(&self, n: NodeNo, link: LinkId) -> bool {
        self.nodes[n].repl.is_current(link)
    }

    fn log(&mut self, n: NodeNo, text: &str) {
        let log = &mut self.nodes[n].log;
        log.push_back(format!("{} {text}", self.now_ms - START_MS));
        if log.len() > 60 {
            log.pop_front();
        }
    }

    fn with_conn(&mut self, n: NodeNo, client: ClientId, change: impl FnOnce(&mut Conn)) {
        if let Some(no) = self.conn_of_client(n, client) {
            change(self.conns.get_mut(&no).unwrap());
        }
    }

    fn with_child(&mut self, n: NodeNo, change: impl FnOnce(&mut Child)) {
        if let Some(child) = &mut self.nodes[n].child {
            change(child);
        }
    }

    fn close_link(&mut self, n: NodeNo, link: LinkId) {
        let node = &mut self.nodes[n];
        node.received = None;
        node.loading = node.loading.take().filter(|loading| loading.link != link);
        if let Some(no) = self.conn_of(n, link) {
            self.hang_up(no, true);
        }
    }

    fn open_received(&mut self, n: NodeNo) {
        if self.fault(200) {
            self.event(n, |repl, env| repl.on_open_failed("disk full", env));
        } else {
            self.nodes[n].received = Some(Vec::new());
        }
    }

    fn store_received(&mut self, n: NodeNo, bytes: &[u8]) {
        if self.nodes[n].received.is_none() {
        } else if self.fault(500) {
            self.event(n, |repl, _| repl.on_store_failed("disk full"));
        } else if let Some(received) = &mut self.nodes[n].received {
            received.extend(bytes);
        }
    }

    fn adopt(&mut self, n: NodeNo, link: LinkId, db: usize, rest: Vec<u8>) {
        let client = ClientId { index: self.number() as u32, generation: 0 };
        let no = self.conn_of(n, link).expect("a current link has a connection");
        self.conns.get_mut(&no).unwrap().adopted = Some(client);
        let node = &mut self.nodes[n];
        (node.db, node.input) = (db, rest);
        node.repl.on_adopted(client);
    }

    fn start_snapshot(&mut self, n: NodeNo, start: SnapshotStart) {
        if self.nodes[n].child.is_some() || self.fault(30) {
            return self.event(n, |repl, _| repl.on_snapshot_refused());
        }
        let (ends_ms, ok) = (self.now_ms + self.rng.i64(1..400), !self.fault(20));
        let node = &mut self.nodes[n];
        let (bytes, clients) = (encode(&start.position, &node.data), start.waiting.clone());
        node.child = Some(Child { target: start.target, clients, bytes, ends_ms, ok });
        self.event(n, |repl, env| repl.on_snapshot_started(start, env));
    }

    fn send_file(&mut self, n: NodeNo, client: ClientId) {
        if self.fault(100) {
            return self.event(n, |repl, _| repl.on_file_failed(client, "no such file"));
        }
        let dump = self.nodes[n].dump.clone();
        self.event(n, |repl, _| repl.on_file_opened(client, dump.len() as u64));
        self.with_conn(n, client, |conn| conn.file = Some(dump));
    }

    fn reap(&mut self, n: NodeNo) {
        let Some(child) = self.nodes[n].child.take_if(|child| child.ends_ms <= self.now_ms) else { return };
        match child.target {
            SnapshotTarget::Disk => self.nodes[n].dump = child.bytes,
            SnapshotTarget::Sockets => {
                let mark = format!("{:040}", self.rng.u64(..));
                let whole = [b"$EOF:", mark.as_bytes(), b"\r\n", &child.bytes, mark.as_bytes()].concat();
                // A child that fails has sent a part.
                let sent = if child.ok { whole.len() } else { self.rng.usize(0..whole.len()) };
                for client in child.clients {
                    if let Some(no) = self.conn_of_client(n, client) {
                        self.conns.get_mut(&no).unwrap().out.extend(&whole[..sent]);
                    }
                }
            }
        }
        self.event(n, |repl, env| repl.on_snapshot_ended(child.target, child.ok, env));
    }

    /// Puts a dataset in place of the one at hand.
    fn load(&mut self, n: NodeNo, bytes: &[u8], rest: &[u8]) {
        self.event(n, Repl::adopt_new_dataset);
        self.nodes[n].data.clear();
        if self.fault(100) {
            return self.event(n, |repl, _| repl.restart_sync());
        }
        let (db, data) =
            decode(bytes).unwrap_or_else(|| panic!("no snapshot: {}\n{}", bytes.escape_ascii(), self.logs()));
        self.nodes[n].data = data;
        self.event(n, |repl, env| repl.finish_full_sync(db, rest, env));
    }

    fn go_on_loading(&mut self, n: NodeNo) {
        let Some(Loading { framing, bytes, .. }) = &self.nodes[n].loading else { return };
        let len = match framing {
            Framing::Length(len) if bytes.len() as u64 >= *len => *len as usize,
            Framing::Mark(mark) => match bytes.windows(MARK_LEN).position(|found| found == mark) {
                Some(len) => {
                    assert_eq!(len + MARK_LEN, bytes.len(), "the stream waits for the replica");
                    len
                }
                None => return,
            },
            Framing::Length(_) => return,
        };
        let Loading { framing, bytes, .. } = self.nodes[n].loading.take().unwrap();
        self.load(n, &bytes[..len], &[]);
        if matches!(framing, Framing::Length(_)) {
            let (node, rest) = (&mut self.nodes[n], &bytes[len..]);
            node.repl.note_master_read(rest.len(), self.now_ms / 1000);
            node.input.extend(rest);
        }
    }

    /// Runs what a replica's master has sent.
    fn run_stream(&mut self, n: NodeNo) {
        while let Some(client) = self.nodes[n].repl.master_client()
            && let Some((len, words)) = parse(&self.nodes[n].input)
        {
            let words: Vec<&str> = words.iter().map(|word| text(word)).collect();
            let node = &mut self.nodes[n];
            match words[..] {
                [] | ["PING"] => {}
                ["SELECT", db] => node.db = db.parse().unwrap(),
                ["SET", key, value] => {
                    node.data.insert((node.db, key.parse().unwrap()), value.parse().unwrap());
                }
                ["REPLCONF", "GETACK", "*"] => self.event(n, |repl, env| repl.acknowledge_to_master(env)),
                _ => panic!("{words:?} in the stream"),
            }
            let bytes: Vec<u8> = self.nodes[n].input.drain(..len).collect();
            self.event(n, |repl, _| repl.on_consumed(client, &bytes, false));
        }
    }

    /// Runs what came over a connection to a master.
    fn run_requests(&mut self, no: ConnNo) {
        while let Some(conn) = self.conns.get_mut(&no).filter(|conn| conn.master_open)
            && let Some((len, words)) = parse(&conn.input)
        {
            conn.input.drain(..len);
            let (n, client) = (conn.master, conn.client);
            if words.is_empty() {
                self.nodes[n].repl.note_alive(client, self.now_ms / 1000);
                continue;
            }
            let reply = if self.nodes[n].loading.is_some() && words[0] != b"REPLCONF" {
                Some("-LOADING the dataset".to_owned())
            } else {
                self.request(n, client, &words)
            };
            if let Some(conn) = self.conns.get_mut(&no) {
                conn.out.extend(reply.into_iter().flat_map(|reply| format!("{reply}\r\n").into_bytes()));
            }
        }
    }

    fn request(&mut self, n: NodeNo, client: ClientId, words: &[Vec<u8>]) -> Option<String> {
        let words: Vec<&str> = words.iter().map(|word| text(word)).collect();
        let peer = Peer { client, number: u64::from(client.index), ip: Some("10.0.0.1".into()) };
        match words[..] {
            ["PING"] => return Some("+PONG".into()),
            ["REPLCONF", "ACK", processed, ..] => {
                let (processed, now_s) = (processed.parse().unwrap(), self.now_ms / 1000);
                self.event(n, |repl, _| repl.on_ack(client, processed, None, now_s));
                self.event(n, |repl, _| repl.release_stream(client));
                return None;
            }
            ["REPLCONF", "listening-port", port] => {
                self.nodes[n].repl.announcement_mut(client).listening_port = port.parse().unwrap();
            }
            ["REPLCONF", "capa", ..] => {
                let capabilities = &mut self.nodes[n].repl.announcement_mut(client).capabilities;
                (capabilities.eof, capabilities.psync2) = (true, true);
            }
            ["PSYNC", id, offset, ..] => {
                if words.len() == 4 {
                    if let Err(e) = self.nodes[n].repl.may_take_over(id.as_bytes()) {
                        return Some(format!("-{e}"));
                    }
                    self.event(n, Repl::stop_following);
                }
                if let Err(e) = self.nodes[n].repl.may_synchronize() {
                    return Some(format!("-{e}"));
                }
                let offset = offset.parse().unwrap();
                let is_held = self.holds(n, id, offset);
                let reply = self.event(n, |repl, env| repl.synchronize(peer, Some((id.as_bytes(), offset)), env));
                assert_eq!(reply.is_some(), is_held, "node {n} was asked for {id}:{offset}");
                return reply.map(|reply| format!("+{reply}"));
            }
            _ => panic!("{words:?} to a master"),
        }
        Some("+OK".into())
    }

    /// Whether a node can give the stream of this history from an offset on.
    fn holds(&self, n: NodeNo, id: &str, offset: i64) -> bool {
        let repl = &self.nodes[n].repl;
        let history = &repl.history;
        let is_common =
            history.id.as_str() == id || history.second_id.as_str() == id && offset <= history.second_offset;
        is_common && repl.backlog.as_ref().is_some_and(|b| (b.first_offset()..=b.end_offset()).contains(&offset))
    }

    // ---- time

    fn step(&mut self) {
        self.now_ms += self.rng.i64(1..60);
        for no in self.conns.keys().copied().collect::<Vec<_>>() {
            self.deliver(no);
        }
        for n in 0..self.nodes.len() {
            self.run_stream(n);
            self.reap(n);
            let (now_ms, node) = (self.now_ms, &self.nodes[n]);
            if node.repl.is_due(now_ms) {
                self.event(n, Repl::on_time);
            }
            let node = &mut self.nodes[n];
            if now_ms >= node.cron_ms && node.loading.is_none() {
                node.cron_ms = now_ms + if node.repl.is_failing_over() { 100 } else { 1000 };
                self.event(n, Repl::cron);
            }
            self.event(n, Repl::before_sleep);
            self.nodes[n].repl.trim();
            if let Some(backlog) = &self.nodes[n].repl.backlog {
                backlog.check_invariants();
                assert_eq!(backlog.end_offset(), self.nodes[n].repl.history.offset + 1);
            }
        }
        for no in self.conns.keys().copied().collect::<Vec<_>>() {
            self.flush(no);
        }
        for n in 0..self.nodes.len() {
            for client in std::mem::take(&mut self.nodes[n].closing) {
                self.free(n, client);
            }
        }
        self.conns.retain(|_, conn| conn.replica_open || conn.master_open);
    }

    fn run(&mut self, ms: i64) {
        let end_ms = self.now_ms + ms;
        while self.now_ms < end_ms {
            self.step();
        }
    }

    /// Every primary that may writes a little.
    fn write(&mut self) {
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            if node.repl.is_replica() || node.paused || node.loading.is_some() {
                continue;
            }
            for _ in 0..self.rng.u32(0..6) {
                let (db, key, value) = (self.rng.usize(0..3), self.rng.u64(0..200), self.rng.u64(..));
                let words = [key.to_string(), value.to_string()];
                let command = encode::command(&[b"SET", words[0].as_bytes(), words[1].as_bytes()]);
                self.nodes[n].data.insert((db, key), value);
                self.event(n, |repl, _| repl.feed(Some(db), &command));
            }
        }
    }

    // ---- operators

    fn follow(&mut self, n: NodeNo, master: NodeNo) {
        self.event(n, |repl, env| repl.follow("10.0.0.1", master as u16 + 1, env));
    }

    /// Whether `n` gets its stream from `from`, directly or by others.
    fn is_below(&self, n: NodeNo, from: NodeNo) -> bool {
        let mut at = n;
        for _ in 0..self.nodes.len() {
            if at == from {
                return true;
            }
            match self.nodes[at].repl.master_address() {
                Some((_, port)) => at = usize::from(*port) - 1,
                None => return false,
            }
        }
        true
    }

    /// Something goes wrong, or somebody changes roles.
    fn disturb(&mut self) {
        let count = self.nodes.len();
        let (a, b) = (self.rng.usize(0..count), self.rng.usize(0..count));
        let is_busy = self.nodes[a].repl.is_failing_over() || self.nodes[a].loading.is_some();
        match self.rng.u32(0..100) {
            0..30 => {
                if let Some(no) = self.rng.choice(self.conns.keys().copied().collect::<Vec<_>>()) {
                    self.break_conn(no);
                }
            }
            30..45 => drop(self.parted.insert((a.min(b), a.max(b)))),
            45..70 => self.parted.clear(),
            70..80 if !is_busy => self.event(a, Repl::stop_following),
            80..92 if !is_busy && !self.is_below(b, a) => self.follow(a, b),
            92..98 if !is_busy => {
                let timeout_ms = self.rng.i64(0..3000);
                // Refused unless it is a primary with replicas.
                let _ = self.event(a, |repl, env| repl.request_failover(None, timeout_ms, false, env));
            }
            _ => self.event(a, |repl, env| repl.abort_failover("Failover manually aborted", env)),
        }
    }

    /// The network is whole, and everybody follows the new primary, directly or by others.
    fn settle(&mut self) {
        self.has_faults = false;
        self.parted.clear();
        let mut order: Vec<NodeNo> = (0..self.nodes.len()).collect();
        self.rng.shuffle(&mut order);
        for n in order.clone() {
            self.event(n, |repl, env| repl.abort_failover("Failover manually aborted", env));
        }
        // Who was asked to take over may do so yet.
        self.run(2000);
        for n in order.clone() {
            while self.nodes[n].loading.is_some() {
                self.step();
            }
        }
        self.event(order[0], Repl::stop_following);
        for at in 1..order.len() {
            let master = order[self.rng.usize(0..at)];
            let is_there =
                self.nodes[order[at]].repl.master_address().is_some_and(|(_, port)| usize::from(*port) == master + 1);
            if !is_there {
                self.follow(order[at], master);
            }
        }
    }

    /// What keeps the nodes from being the same; `None` once they are.
    fn difference(&self) -> Option<String> {
        let first = self.nodes.iter().position(|node| !node.repl.is_replica())?;
        let primary = &self.nodes[first];
        for (n, node) in self.nodes.iter().enumerate() {
            let (ours, theirs) = (&primary.repl.history, &node.repl.history);
            if node.repl.may_be_stale() || (ours.id, ours.offset) != (theirs.id, theirs.offset) {
                return Some(format!("node {n} is at {theirs:?}, its primary {first} at {ours:?}"));
            }
            if node.data != primary.data {
                return Some(format!("node {n} has other data than its primary {first}"));
            }
            if let (Some(ours), Some(theirs)) = (&primary.repl.backlog, &node.repl.backlog) {
                let held = ours.history_len().min(theirs.history_len()) as usize;
                if ours.latest(held) != theirs.latest(held) {
                    return Some(format!("node {n} has another stream than its primary {first}"));
                }
            }
        }
        None
    }

    fn converge(&mut self) {
        let end_ms = self.now_ms + 60_000;
        while let Some(difference) = self.difference() {
            if self.now_ms > end_ms {
                panic!("{difference}\n{}", self.logs());
            }
            self.step();
        }
    }

    fn logs(&self) -> String {
        let logs =
            self.nodes.iter().enumerate().flat_map(|(n, node)| node.log.iter().map(move |line| format!("{n}: {line}")));
        logs.collect::<Vec<_>>().join("\n")
    }

    fn full_syncs(&self) -> u64 {
        self.nodes.iter().map(|node| node.repl.stats().sync_full).sum()
    }
}
