//! Clusters with a name and a secret, and clusters that come about by themselves.

use crate::common;

use common::SERVER;
use common::cluster::{Node, join, text_of, wait};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECRET: &str = "correct-horse-battery";
const OTHER: &str = "staple-correct-horse";

fn node(options: &[&str]) -> Node {
    Node::with_options(Path::new(SERVER), options)
}

fn meet(who: &mut Node, whom: &Node) {
    assert_eq!(who.text(&["CLUSTER", "MEET", "127.0.0.1", &whom.server.port.to_string()]), "OK");
}

fn known(node: &mut Node) -> usize {
    node.text(&["CLUSTER", "NODES"]).lines().filter(|line| !line.contains("handshake")).count()
}

fn refused(node: &mut Node, by: &str) -> u64 {
    node.info(&format!("total_cluster_links_refused_by_{by}")).parse().unwrap_or(0)
}

/// Both ways of meeting come to nothing, and `ours` counts them.
fn stays_alone(ours: &mut Node, other: &mut Node, by: &str) {
    let before = known(ours);
    let count = refused(ours, by);
    meet(other, ours);
    wait("it is turned away", 5, || refused(ours, by) > count);
    meet(ours, other);
    std::thread::sleep(Duration::from_millis(2 * common::cluster::TIMEOUT_MS));
    assert_eq!((known(ours), known(other)), (before, 1));
    assert!(!ours.text(&["CLUSTER", "NODES"]).contains("handshake"));
}

#[test]
fn clusters_with_different_names_stay_apart() {
    let mut ours = [node(&["--cluster-name", "red"]), node(&["--cluster-name", "red"])];
    join(&mut ours, false);
    let mut blue = node(&["--cluster-name", "blue"]);
    stays_alone(&mut ours[0], &mut blue, "name");
    let log = ours[0].server.log();
    assert!(log.contains("it is of the cluster 'blue', and this node of 'red'"), "{log}");
    let mut unnamed = node(&[]);
    stays_alone(&mut ours[0], &mut unnamed, "name");
    assert!(ours[0].server.log().contains("it is of no cluster, and this node of 'red'"));
    // A name may be given and changed while the cluster runs.
    for names in ["red green", "green red", "green"] {
        for node in &mut ours {
            assert_eq!(node.text(&["CONFIG", "SET", "cluster-name", names]), "OK");
        }
        std::thread::sleep(Duration::from_millis(300));
    }
    assert_eq!(blue.text(&["CONFIG", "SET", "cluster-name", "green"]), "OK");
    meet(&mut blue, &ours[1]);
    wait("it is let in", 10, || ours.iter_mut().all(|node| known(node) == 3));
    assert!(ours[0].text(&["CONFIG", "SET", "cluster-name", "no=good"]).contains("argument must be names"));
}

#[test]
fn a_secret_keeps_others_out() {
    let mut ours = [node(&["--cluster-secret", SECRET]), node(&["--cluster-secret", SECRET])];
    join(&mut ours, false);
    let mut other = node(&["--cluster-secret", OTHER]);
    stays_alone(&mut ours[0], &mut other, "secret");
    let mut plain = node(&[]);
    stays_alone(&mut ours[0], &mut plain, "secret");
    assert!(ours[0].text(&["CONFIG", "SET", "cluster-secret", "short"]).contains("at least 16"));
    assert_eq!(ours[0].text(&["CONFIG", "GET", "cluster-*"]).matches("secret").count(), 0);
    // Nor is it anywhere else.
    let mut monitor = TcpStream::connect(("127.0.0.1", ours[0].server.port)).unwrap();
    monitor.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    assert_eq!(ours[0].text(&["CONFIG", "SET", "slowlog-log-slower-than", "0"]), "OK");
    assert_eq!(ours[0].text(&["CONFIG", "SET", "cluster-secret", &format!("{SECRET} {OTHER}")]), "OK");
    assert_eq!(ours[0].text(&["ECHO", "seen"]), "seen");
    let mut seen = Vec::new();
    let _ = monitor.read_to_end(&mut seen);
    let slow = format!("{:?}", ours[0].call(&["SLOWLOG", "GET", "-1"]));
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.contains("seen") && slow.contains("cluster-secret") && slow.contains("(redacted)"), "{seen} {slow}");
    for text in [seen, slow, ours[0].server.log()] {
        assert!(!text.contains(SECRET) && !text.contains(OTHER), "{text}");
    }
}

#[test]
fn a_secret_is_given_and_changed_while_the_cluster_runs() {
    let mut ours: Vec<Node> = (0..3).map(|_| node(&[])).collect();
    join(&mut ours, false);
    for secrets in [
        format!("- {SECRET}"),
        format!("{SECRET} -"),
        SECRET.to_owned(),
        format!("{SECRET} {OTHER}"),
        format!("{OTHER} {SECRET}"),
        OTHER.to_owned(),
    ] {
        for node in &mut ours {
            assert_eq!(node.text(&["CONFIG", "SET", "cluster-secret", &secrets]), "OK");
            std::thread::sleep(Duration::from_millis(200));
        }
        wait("all links stand", 5, || {
            ours.iter_mut().all(|node| !node.text(&["CLUSTER", "NODES"]).contains("disconnected"))
        });
        assert!(ours.iter_mut().all(|node| node.info("cluster_state") == "ok" && refused(node, "secret") == 0));
    }
    let mut late = node(&["--cluster-secret", OTHER]);
    meet(&mut late, &ours[0]);
    wait("it is let in", 10, || ours.iter_mut().all(|node| known(node) == 4));
}

#[cfg_attr(not(has_redis), ignore = "there is no real redis-server")]
#[test]
fn a_redis_node_is_turned_away_from_a_cluster_with_a_name_or_a_secret() {
    let mut redis = Node::start(&common::real_redis());
    let mut named = node(&["--cluster-name", "red"]);
    stays_alone(&mut named, &mut redis, "name");
    let mut secret = node(&["--cluster-secret", SECRET]);
    stays_alone(&mut secret, &mut redis, "secret");
    // A Redis node that is a member stays one.
    let mut mixed = [node(&[]), Node::start(&common::real_redis())];
    join(&mut mixed, false);
    assert_eq!(mixed[0].text(&["CONFIG", "SET", "cluster-name", "red"]), "OK");
    std::thread::sleep(Duration::from_millis(3 * common::cluster::TIMEOUT_MS));
    assert_eq!((mixed[0].info("cluster_state"), known(&mut mixed[0])), ("ok".into(), 2));
    assert_eq!(mixed[1].info("cluster_state"), "ok");
}

/// Hands on what comes to a port, and keeps what the opening side sent.
fn record(to: u16) -> (u16, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, kept) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let keep = kept.clone();
    std::thread::spawn(move || {
        let Ok((mut from, _)) = listener.accept() else { return };
        let mut target = TcpStream::connect(("127.0.0.1", to)).unwrap();
        let (mut back, mut answers) = (from.try_clone().unwrap(), target.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
        let mut bytes = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut bytes) {
            keep.lock().unwrap().extend_from_slice(&bytes[..n]);
            if target.write_all(&bytes[..n]).is_err() {
                return;
            }
        }
    });
    (port, kept)
}

#[test]
fn what_was_recorded_on_a_link_is_of_no_use() {
    let (mut ours, mut other) = (node(&["--cluster-secret", SECRET]), node(&["--cluster-secret", SECRET]));
    let bus = ours.server.port + 10_000;
    let (proxy, kept) = record(bus);
    assert_eq!(other.text(&["CLUSTER", "MEET", "127.0.0.1", &ours.server.port.to_string(), &proxy.to_string()]), "OK");
    wait("they know each other", 10, || known(&mut ours) == 2 && known(&mut other) == 2);
    let recorded = kept.lock().unwrap().clone();
    assert!(recorded.starts_with(b"HexSeal1") && recorded.len() > 2300, "{}", recorded.len());
    let received = |node: &mut Node| node.info("cluster_stats_messages_meet_received");
    let (before, meets) = (refused(&mut ours, "secret"), received(&mut ours));
    for _ in 0..3 {
        let mut replay = TcpStream::connect(("127.0.0.1", bus)).unwrap();
        replay.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        replay.write_all(&recorded).unwrap();
        // Its greeting, which anybody gets, and then the end.
        let mut answer = Vec::new();
        let _ = replay.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.len() == 24 && answer.starts_with(b"HexSeal1"), "{}", answer.len());
    }
    wait("they are counted", 5, || refused(&mut ours, "secret") == before + 3);
    assert_eq!((received(&mut ours), known(&mut ours)), (meets, 2));
}

/// Servers on ports that are known before they start, which is what seeds are.
struct Formed {
    dirs: Vec<tempfile::TempDir>,
    ports: Vec<u16>,
    seeds: String,
    nodes: Vec<Option<std::process::Child>>,
}

impl Formed {
    fn new(count: usize, seed_host: &str) -> Formed {
        let ports: Vec<u16> = (0..count).map(|_| common::free_port()).collect();
        let seeds: Vec<String> = ports[..3].iter().map(|port| format!("{seed_host}:{port}")).collect();
        let dirs = (0..count).map(|_| tempfile::tempdir().unwrap()).collect();
        Formed { dirs, ports, seeds: seeds.join(" "), nodes: (0..count).map(|_| None).collect() }
    }

    fn start(&mut self, no: usize) {
        let file = self.dirs[no].path().join("redis.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nlogfile server.log\nsave \"\"\ncluster-enabled yes\ncluster-node-timeout 1500\n\
             cluster-name red\ncluster-secret {SECRET}\ncluster-seeds {}\ncluster-form-masters 3\n\
             repl-diskless-sync-delay 0\navailability-zone zone-{}\n",
            self.ports[no],
            self.dirs[no].path().display(),
            self.seeds,
            no % 3
        );
        std::fs::write(&file, text).unwrap();
        self.nodes[no] = Some(std::process::Command::new(SERVER).arg(&file).spawn().unwrap());
    }

    fn stop(&mut self, no: usize) {
        if let Some(mut child) = self.nodes[no].take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn ask(&self, no: usize, words: &[&str]) -> String {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.ports[no])).unwrap();
        let Ok(mut conn) = client.get_connection_with_timeout(Duration::from_secs(2)) else { return String::new() };
        text_of(common::try_run(&mut conn, words))
    }

    fn wait_formed(&self, nodes: &[usize]) -> Duration {
        wait("the cluster is formed and up", 40, || {
            nodes.iter().all(|no| {
                let info = self.ask(*no, &["CLUSTER", "INFO"]);
                let is_replica = self.ask(*no, &["INFO", "replication"]).contains("role:slave");
                let is_synced = !is_replica || self.ask(*no, &["INFO", "replication"]).contains("status:up");
                info.contains("cluster_state:ok") && info.contains("cluster_forming:done") && is_synced
            })
        })
    }
}

impl Drop for Formed {
    fn drop(&mut self) {
        for no in 0..self.nodes.len() {
            if std::thread::panicking() {
                let log = std::fs::read_to_string(self.dirs[no].path().join("server.log")).unwrap_or_default();
                eprintln!("log of node {no}:\n{log}");
            }
            self.stop(no);
        }
    }
}

#[test]
fn six_nodes_with_a_configuration_are_a_cluster_and_a_seventh_helps() {
    let mut cluster = Formed::new(7, "localhost");
    for no in 0..5 {
        cluster.start(no);
    }
    // Five are not enough.
    wait("five wait for the sixth", 20, || cluster.ask(1, &["CLUSTER", "INFO"]).contains("waiting,seen=5,wanted=6"));
    cluster.start(5);
    let all: Vec<usize> = (0..6).collect();
    println!("formed {:?} after the sixth began", cluster.wait_formed(&all));
    let nodes = cluster.ask(0, &["CLUSTER", "NODES"]);
    assert_eq!((nodes.matches("master").count(), nodes.matches("slave").count()), (3, 3), "{nodes}");
    for slots in ["0-5460", "5461-10922", "10923-16383"] {
        assert!(nodes.contains(slots), "{nodes}");
    }
    // No shard is in one zone.
    let zone_of_port = |port: &str| cluster.ports.iter().position(|p| p.to_string() == port).unwrap() % 3;
    let lines: Vec<Vec<&str>> = nodes.lines().map(|line| line.split(' ').collect()).collect();
    let port = |line: &[&str]| line[1].split(['@', ',']).next().unwrap().rsplit(':').next().unwrap().to_owned();
    for replica in lines.iter().filter(|line| line[2].contains("slave")) {
        let master = lines.iter().find(|line| line[0] == replica[3]).unwrap();
        assert_ne!(zone_of_port(&port(replica)), zone_of_port(&port(master)), "{nodes}");
    }
    // One more is a spare one, until it is wanted.
    cluster.start(6);
    wait("it is a spare one", 20, || cluster.ask(6, &["CLUSTER", "INFO"]).contains("cluster_forming:spare"));
    std::thread::sleep(Duration::from_secs(3));
    assert!(cluster.ask(6, &["INFO", "replication"]).contains("role:master"));
    for no in 0..7 {
        assert_eq!(cluster.ask(no, &["CONFIG", "SET", "cluster-form-replicas", "2"]), "OK");
    }
    wait("it is a replica", 20, || cluster.ask(6, &["INFO", "replication"]).contains("master_link_status:up"));
    // All of them come back elsewhere, as pods do; the seeds, which are names there, at the old places.
    for no in 3..7 {
        cluster.stop(no);
        cluster.ports[no] = common::free_port();
    }
    for no in 0..3 {
        cluster.stop(no);
    }
    for no in 0..7 {
        cluster.start(no);
    }
    println!("found again after {:?}", cluster.wait_formed(&(0..7).collect::<Vec<_>>()));
    wait("it knows where all of them are", 20, || {
        let nodes = cluster.ask(6, &["CLUSTER", "NODES"]);
        assert_eq!((nodes.lines().count(), nodes.matches("master").count()), (7, 3), "{nodes}");
        cluster.ports.iter().all(|port| nodes.contains(&format!(":{port}@")))
    });
}
