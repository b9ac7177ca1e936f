//! The walk of the Redis Cluster tutorial, from six empty folders to adding and removing nodes, with a client at work all
//! the while that notices every lost write.
//!
//! `TUTORIAL_SERVER` may name another redis-server, to see whether the walk itself is right.

use crate::common;

use common::load::Load;
use common::{CLI, SERVER, free_port, in_root, wait_for};
use redis::cluster::{ClusterClient, ClusterConnection};
use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Short, so that failures are noticed soon.
const NODE_TIMEOUT_MS: u32 = 1000;

fn server_binary() -> PathBuf {
    std::env::var_os("TUTORIAL_SERVER").map_or_else(|| SERVER.into(), PathBuf::from)
}

/// A node as the tutorial makes them: a folder with a configuration file, and a server started there.
struct Node {
    port: u16,
    dir: TempDir,
    child: Child,
}

impl Node {
    fn start() -> Node {
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "port {port}\nbind 127.0.0.1\ncluster-enabled yes\ncluster-config-file nodes.conf\n\
             cluster-node-timeout {NODE_TIMEOUT_MS}\nappendonly yes\nsave \"\"\nlogfile server.log\n\
             enable-debug-command local\nrepl-diskless-sync-delay 0\n"
        );
        fs::write(dir.path().join("redis.conf"), config).unwrap();
        let child = spawn(dir.path());
        let node = Node { port, dir, child };
        node.wait_up();
        node
    }

    fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = spawn(self.dir.path());
        self.wait_up();
    }

    fn wait_up(&self) {
        wait_for(20, "the node answers", || self.ask(&["ping"]) == "PONG");
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The reply to a command, as redis-cli prints it.
    fn ask(&self, words: &[&str]) -> String {
        let port = self.port.to_string();
        let mut args = vec!["-p", &port];
        args.extend(words);
        cli(&args).stdout
    }

    fn id(&self) -> String {
        self.ask(&["cluster", "myid"])
    }

    fn is_master(&self) -> bool {
        self.ask(&["role"]).starts_with("master")
    }

    /// The field of INFO or CLUSTER INFO.
    fn field(&self, words: &[&str], name: &str) -> String {
        let text = self.ask(words);
        let value = text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().to_string()
    }

    fn cluster_is_ok(&self) -> bool {
        self.field(&["cluster", "info"], "cluster_state") == "ok"
    }

    fn slots(&self) -> usize {
        let text = self.ask(&["cluster", "nodes"]);
        let own = text.lines().find(|line| line.contains("myself")).unwrap_or_default();
        let ranges = own.split(' ').skip(8).filter(|word| !word.starts_with('['));
        ranges
            .map(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                last.parse::<usize>().unwrap() + 1 - first.parse::<usize>().unwrap()
            })
            .sum()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("end of the log of {}:", self.port);
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path) -> Child {
    Command::new(server_binary())
        .arg("./redis.conf")
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

struct Output {
    stdout: String,
    stderr: String,
    code: i32,
}

impl Output {
    fn require(self) -> Output {
        assert_eq!(self.code, 0, "{}\n{}", self.stdout, self.stderr);
        self
    }
}

fn cli(args: &[&str]) -> Output {
    run(Command::new(CLI).args(args), "")
}

fn cli_with(args: &[&str], input: &str) -> Output {
    run(Command::new(CLI).args(args), input)
}

fn run(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .env_remove("REDISCLI_AUTH")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    Output {
        stdout: String::from_utf8_lossy(&output.stdout).trim_end().to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        code: output.status.code().unwrap_or(-1),
    }
}

fn six_nodes() -> Vec<Node> {
    (0..6).map(|_| Node::start()).collect()
}

fn addresses(nodes: &[Node]) -> Vec<String> {
    nodes.iter().map(Node::address).collect()
}

fn wait_cluster_ok(nodes: &[&Node]) {
    wait_for(20, "every node finds the cluster in order", || nodes.iter().all(|node| node.cluster_is_ok()));
}

/// Waits until `check` is content, seen from this node.
fn wait_checked(node: &Node) {
    wait_for(20, "the check finds nothing", || cli(&["--cluster", "check", &node.address()]).code == 0);
}

/// A client that increments keys all over the cluster and compares what it reads with what was acknowledged.
struct Traffic {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    worker: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Counts {
    writes: AtomicU64,
    errors: AtomicU64,
    lost: AtomicU64,
    last_error: Mutex<String>,
}

impl Traffic {
    fn start(nodes: &[Node]) -> Traffic {
        let urls: Vec<String> = nodes.iter().map(|node| format!("redis://{}/", node.address())).collect();
        let client = ClusterClient::builder(urls)
            .retries(4)
            .min_retry_wait(10)
            .max_retry_wait(100)
            .connection_timeout(Duration::from_millis(500))
            .response_timeout(Duration::from_secs(2))
            .build()
            .unwrap();
        let (stop, counts) = (Arc::new(AtomicBool::new(false)), Arc::new(Counts::default()));
        let (worker_stop, worker_counts) = (stop.clone(), counts.clone());
        let worker = std::thread::spawn(move || work(&client, &worker_stop, &worker_counts));
        Traffic { stop, counts, worker: Some(worker) }
    }

    fn lost(&self) -> u64 {
        self.counts.lost.load(Ordering::Relaxed)
    }

    fn errors(&self) -> u64 {
        self.counts.errors.load(Ordering::Relaxed)
    }

    /// Waits until so many more writes have been acknowledged.
    fn wait_writes(&self, more: u64) {
        let goal = self.counts.writes.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.counts.writes.load(Ordering::Relaxed) < goal {
            let error = || self.counts.last_error.lock().unwrap().clone();
            assert!(Instant::now() < deadline, "writes do not go on; the last error: {}", error());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(worker) = self.worker.take() {
            let _ = worker.join();
        }
    }
}

fn work(client: &ClusterClient, stop: &AtomicBool, counts: &Counts) {
    let mut known: HashMap<String, u64> = HashMap::new();
    let mut connection: Option<ClusterConnection> = None;
    let mut rng = fastrand::Rng::with_seed(1);
    while !stop.load(Ordering::Relaxed) {
        let key = format!("counter:{}", rng.u32(..2000));
        if let Err(error) = increment(client, &mut connection, &key, &mut known, counts) {
            counts.errors.fetch_add(1, Ordering::Relaxed);
            *counts.last_error.lock().unwrap() = error.to_string();
            // It may be asking a node that has left the cluster, which neither serves a slot nor knows who does.
            connection = None;
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn increment(
    client: &ClusterClient,
    connection: &mut Option<ClusterConnection>,
    key: &str,
    known: &mut HashMap<String, u64>,
    counts: &Counts,
) -> redis::RedisResult<()> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(client.get_connection()?),
    };
    let read: Option<u64> = redis::cmd("GET").arg(key).query(connection)?;
    let read = read.unwrap_or(0);
    if let Some(expected) = known.get(key) {
        counts.lost.fetch_add(expected.saturating_sub(read), Ordering::Relaxed);
    }
    // What was read is what counts from now on: an unacknowledged write may have happened.
    known.insert(key.to_string(), read);
    let written: u64 = redis::cmd("INCR").arg(key).query(connection)?;
    known.insert(key.to_string(), written);
    counts.writes.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[test]
fn the_tutorial_by_hand() {
    let mut nodes = six_nodes();
    create_by_hand(&nodes);
    redirections_and_hash_tags(&nodes);
    let traffic = Traffic::start(&nodes);
    traffic.wait_writes(2000);
    reshard(&nodes, &traffic);
    let (crashed, promoted) = crash_a_master(&mut nodes, &traffic);
    rejoin(&mut nodes, crashed, promoted);
    manual_failover(&nodes, crashed, &traffic);
    add_and_remove(&nodes, &traffic);
}

fn create_by_hand(nodes: &[Node]) {
    let addresses = addresses(nodes);
    let mut args = vec!["--cluster", "create"];
    args.extend(addresses.iter().map(String::as_str));
    args.extend(["--cluster-replicas", "1"]);
    let refused = cli_with(&args, "no\n");
    assert!(
        refused.stdout.ends_with("Can I set the above configuration? (type 'yes' to accept):"),
        "{}",
        refused.stdout
    );
    assert_eq!(nodes[0].slots(), 0);
    let output = cli_with(&args, "yes\n").require().stdout;
    for line in [
        ">>> Performing hash slots allocation on 6 nodes...",
        "Master[0] -> Slots 0 - 5460",
        "Master[1] -> Slots 5461 - 10922",
        "Master[2] -> Slots 10923 - 16383",
        ">>> Assign a different config epoch to each node",
        "Waiting for the cluster to join",
        "[OK] All nodes agree about slots configuration.",
        "[OK] All 16384 slots covered.",
    ] {
        assert!(output.contains(line), "{line} is missing in\n{output}");
    }
    let all: Vec<&Node> = nodes.iter().collect();
    wait_cluster_ok(&all);
    let again = cli_with(&args, "yes\n");
    assert_eq!(again.code, 1);
    assert!(again.stdout.contains("is not empty"), "{}", again.stdout);
    wait_checked(&nodes[3]);
}

fn redirections_and_hash_tags(nodes: &[Node]) {
    let port = nodes[0].port.to_string();
    let text = cli_with(&["-c", "-p", &port], "set foo bar\nset hello world\nget foo\nget hello\n").require().stdout;
    assert_eq!(
        text,
        format!(
            "-> Redirected to slot [12182] located at {1}\nOK\n-> Redirected to slot [866] located at {0}\nOK\n\
             -> Redirected to slot [12182] located at {1}\nbar\n-> Redirected to slot [866] located at {0}\nworld",
            nodes[0].address(),
            nodes[2].address(),
        )
    );
    assert_eq!(nodes[0].ask(&["set", "foo", "x"]), format!("MOVED 12182 {}", nodes[2].address()));
    assert_eq!(nodes[0].ask(&["-c", "mset", "{user}:name", "Ann", "{user}:age", "7"]), "OK");
    assert_eq!(nodes[0].ask(&["-c", "mget", "{user}:name", "{user}:age"]), "Ann\n7");
    assert!(nodes[0].ask(&["-c", "mset", "a", "1", "b", "2"]).starts_with("CROSSSLOT"));
}

fn reshard(nodes: &[Node], traffic: &Traffic) {
    let target = nodes[0].id();
    let before = nodes[0].slots();
    let output = cli_with(&["--cluster", "reshard", &nodes[3].address()], &format!("1000\n{target}\nall\nyes\n"));
    let output = output.require().stdout;
    assert!(output.contains("How many slots do you want to move (from 1 to 16384)? "), "{output}");
    assert!(output.contains("Ready to move 1000 slots."), "{output}");
    assert_eq!(nodes[0].slots(), before + 1000);
    traffic.wait_writes(1000);
    assert_eq!((traffic.lost(), traffic.errors()), (0, 0));
    wait_checked(&nodes[1]);
}

/// Returns the indices of the node that crashed and of the replica that took its place.
fn crash_a_master(nodes: &mut [Node], traffic: &Traffic) -> (usize, usize) {
    let crashed = 1;
    assert!(nodes[crashed].is_master());
    let id = nodes[crashed].id();
    let line = nodes[0].ask(&["cluster", "replicas", &id]);
    let promoted = nodes.iter().position(|node| line.contains(&format!(":{}@", node.port))).unwrap();
    wait_for(10, "the replica is in step", || {
        nodes[promoted].field(&["info", "replication"], "master_link_status") == "up"
    });
    nodes[crashed].ask(&["debug", "segfault"]);
    wait_for(10, "the node is dead", || nodes[crashed].child.try_wait().unwrap().is_some());
    wait_for(20, "the replica is promoted", || nodes[promoted].is_master());
    let living: Vec<&Node> = nodes.iter().filter(|node| node.port != nodes[crashed].port).collect();
    wait_cluster_ok(&living);
    traffic.wait_writes(1000);
    (crashed, promoted)
}

fn rejoin(nodes: &mut [Node], crashed: usize, promoted: usize) {
    nodes[crashed].restart();
    let port = nodes[promoted].port.to_string();
    wait_for(20, "the old master replicates the new one", || {
        nodes[crashed].field(&["info", "replication"], "master_port") == port
            && nodes[crashed].field(&["info", "replication"], "master_link_status") == "up"
    });
    wait_checked(&nodes[0]);
}

fn manual_failover(nodes: &[Node], replica: usize, traffic: &Traffic) {
    traffic.wait_writes(500);
    let lost = traffic.lost();
    assert_eq!(nodes[replica].ask(&["cluster", "failover"]), "OK");
    wait_for(10, "the replica is master again", || nodes[replica].is_master());
    traffic.wait_writes(2000);
    assert_eq!(traffic.lost(), lost, "a manual failover loses no write");
    wait_checked(&nodes[0]);
}

fn add_and_remove(nodes: &[Node], traffic: &Traffic) {
    let lost = traffic.lost();
    let known = nodes[0].address();
    let master = Node::start();
    let output = cli(&["--cluster", "add-node", &master.address(), &known]).require().stdout;
    assert!(output.ends_with("[OK] New node added correctly."), "{output}");
    wait_for(20, "the new node is known", || {
        nodes.iter().all(|node| node.ask(&["cluster", "nodes"]).contains(&master.id()))
    });
    wait_checked(&nodes[0]);
    let id = master.id();
    let replica = Node::start();
    let args = ["--cluster", "add-node", &replica.address(), &known, "--cluster-slave", "--cluster-master-id", &id];
    cli(&args).require();
    wait_for(20, "the new replica follows", || replica.field(&["info", "replication"], "master_link_status") == "up");
    wait_cluster_ok(&[&master]);
    let from = nodes[2].id();
    let move_slots = |from: &str, to: &str| {
        let args = ["--cluster", "reshard", &known, "--cluster-from", from, "--cluster-to", to];
        let args: Vec<&str> = args.into_iter().chain(["--cluster-slots", "50", "--cluster-yes"]).collect();
        cli(&args).require();
    };
    move_slots(&from, &id);
    assert_eq!(master.slots(), 50);
    let refused = cli(&["--cluster", "del-node", &known, &id]);
    assert_eq!(refused.code, 1);
    assert!(refused.stdout.contains("is not empty! Reshard data away and try again."), "{}", refused.stdout);
    let moved = replica.id();
    cli(&["--cluster", "del-node", &known, &moved]).require();
    wait_checked(&nodes[0]);
    move_slots(&id, &from);
    wait_checked(&nodes[0]);
    cli(&["--cluster", "del-node", &known, &id]).require();
    wait_for(20, "the node is forgotten", || nodes.iter().all(|node| !node.ask(&["cluster", "nodes"]).contains(&id)));
    wait_checked(&nodes[0]);
    traffic.wait_writes(1000);
    assert_eq!(traffic.lost(), lost, "moving slots loses no write");
}

/// A folder with the programs under the names by which scripts look for them.
fn programs() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    symlink(server_binary(), dir.path().join("redis-server")).unwrap();
    symlink(CLI, dir.path().join("redis-cli")).unwrap();
    let script = in_root("utils/redis-trib.rb");
    fs::copy(script, dir.path().join("redis-trib.rb")).unwrap();
    dir
}

#[test]
fn redis_trib_spelling() {
    let programs = programs();
    let trib = |args: &[&str], input: &str| run(Command::new(programs.path().join("redis-trib.rb")).args(args), input);
    let nodes = six_nodes();
    let addresses = addresses(&nodes);
    let mut args = vec!["create", "--replicas", "1"];
    args.extend(addresses.iter().map(String::as_str));
    let output = trib(&args, "yes\n").require().stdout;
    assert!(output.ends_with("[OK] All 16384 slots covered."), "{output}");
    wait_cluster_ok(&nodes.iter().collect::<Vec<_>>());
    let known = addresses[0].as_str();
    assert!(trib(&["check", known], "").require().stdout.contains("1 additional replica(s)"));
    assert!(trib(&["info", known], "").require().stdout.contains("[OK] 0 keys in 3 masters."));
    let (from, to) = (nodes[1].id(), nodes[0].id());
    trib(&["reshard", "--from", &from, "--to", &to, "--slots", "3", "--yes", known], "").require();
    assert_eq!((nodes[0].slots(), nodes[1].slots()), (5464, 5459));
    trib(&["rebalance", "--threshold", "0.01", known], "").require();
    assert_eq!(nodes[0].slots(), 5461);
    let output = trib(&["call", known, "ping"], "").require().stdout;
    assert_eq!(output.matches("PONG").count(), 6, "{output}");
    let output = trib(&["set-timeout", known, "1500"], "").require().stdout;
    assert!(output.ends_with(">>> New node timeout set. 6 OK, 0 ERR."), "{output}");
    assert!(fs::read_to_string(nodes[5].dir.path().join("redis.conf")).unwrap().contains("cluster-node-timeout 1500"));
    wait_checked(&nodes[0]);
    let extra = Node::start();
    trib(&["add-node", "--slave", "--master-id", &to, &extra.address(), known], "").require();
    wait_for(20, "the replica is known", || nodes[0].ask(&["cluster", "replicas", &to]).contains(&extra.id()));
    trib(&["del-node", known, &extra.id()], "").require();
    assert_eq!(trib(&["frobnicate"], "").code, 1);
}

/// The servers of a script, which run in the background: ended with the test however it ends.
struct Background(Vec<i32>);

impl Drop for Background {
    fn drop(&mut self) {
        for pid in &self.0 {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// A port followed by `count` ports that are this test's own.
fn base_port(count: u16) -> u16 {
    let mut run = vec![free_port()];
    while run.len() <= usize::from(count) {
        let next = free_port();
        if run.last() != Some(&(next - 1)) {
            run.clear();
        }
        run.push(next);
    }
    run[0]
}

/// `utils/create-cluster` in a folder of its own.
struct Script {
    dir: TempDir,
    _programs: TempDir,
    base: u16,
}

impl Script {
    fn new(timeout_ms: u32) -> Script {
        let (programs, dir) = (programs(), tempfile::tempdir().unwrap());
        let base = base_port(6);
        let settings = format!(
            "BIN_PATH={}\nPORT={base}\nTIMEOUT={timeout_ms}\nNODES=6\nREPLICAS=1\n\
             ADDITIONAL_OPTIONS=\"--bind 127.0.0.1 --repl-diskless-sync-delay 0\"\n",
            programs.path().display()
        );
        fs::write(dir.path().join("config.sh"), settings).unwrap();
        Script { dir, _programs: programs, base }
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        let script = in_root("utils/create-cluster/create-cluster");
        run(Command::new(script).args(args).current_dir(self.dir.path()), input)
    }

    fn pids(&self) -> Vec<i32> {
        let text = self.run(&["call", "info", "server"], "").stdout;
        text.lines().filter_map(|line| line.trim().strip_prefix("process_id:")?.parse().ok()).collect()
    }

    /// Ends the nodes, after which nothing is left.
    fn end(&self, mut background: Background) {
        self.run(&["stop"], "").require();
        wait_for(10, "all nodes are gone", || self.pids().is_empty());
        background.0.clear();
        self.run(&["clean"], "").require();
        let left: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["config.sh"]);
    }
}

#[test]
fn the_create_cluster_script() {
    let script = Script::new(NODE_TIMEOUT_MS);
    let base = script.base;
    let output = script.run(&["start"], "").require().stdout;
    assert!(output.starts_with(&format!("Starting {}\n", base + 1)), "{output}");
    wait_for(10, "all nodes are up", || script.pids().len() == 6);
    let mut background = Background(script.pids());
    let output = script.run(&["create"], "yes\n").require().stdout;
    assert!(output.ends_with("[OK] All 16384 slots covered."), "{output}");
    for name in ["nodes-P.conf", "P.log", "appendonlydir-P"] {
        let name = name.replace('P', &(base + 6).to_string());
        assert!(script.dir.path().join(&name).exists(), "{name} is missing");
    }
    let port = (base + 1).to_string();
    wait_for(10, "the cluster takes writes", || cli(&["-c", "-p", &port, "set", "foo", "bar"]).stdout == "OK");
    script.run(&["restart"], "").require();
    wait_for(10, "all nodes are up again", || script.pids().len() == 6);
    background.0.extend(script.pids());
    wait_for(20, "the cluster is back", || cli(&["-c", "-p", &port, "get", "foo"]).stdout == "bar");
    script.end(background);
    assert_eq!(script.run(&["frobnicate"], "").code, 1);
}

#[test]
fn the_create_cluster_script_replaces_node_by_node_unnoticed() {
    let script = Script::new(5000);
    let output = script.run(&["form"], "");
    let mut background = Background(script.pids());
    assert!(output.require().stdout.ends_with("The cluster is formed"));
    let addresses: Vec<String> = (1..=6).map(|id| format!("127.0.0.1:{}", script.base + id)).collect();
    let load = Load::start(&addresses);
    let output = script.run(&["roll"], "");
    background.0.extend(script.pids());
    output.require();
    assert_eq!(script.pids().len(), 6);
    load.finish(&addresses);
    // They still know what they were told.
    let last = (script.base + 6).to_string();
    assert!(cli(&["-p", &last, "config", "get", "cluster-name"]).stdout.contains("create-cluster-"));
    script.end(background);
}
