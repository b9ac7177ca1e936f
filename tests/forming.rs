//! Clusters with a name and a secret, and clusters that come about by themselves.

mod common;

use common::SERVER;
use common::cluster::{Node, join, wait};
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
    let file = ours[0].server.dir.path().join("nodes.conf");
    assert!(!std::fs::read_to_string(file).unwrap().contains(SECRET));
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
