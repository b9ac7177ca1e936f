//! A cluster node that is told to stop has a replica take over first: clients see redirections and nothing else.

use crate::common;

use common::SERVER;
use common::cluster::{Node, join, wait};
use common::load::Load;
use std::path::Path;
use std::time::{Duration, Instant};

/// A node that the machine leaves without processor for a node timeout rightly refuses its clients: where they are to notice
/// nothing it must not be short.
const PATIENT_MS: &str = "20000";

fn be_patient(nodes: &mut [Node]) {
    for node in nodes {
        assert_eq!(node.text(&["CONFIG", "SET", "cluster-node-timeout", PATIENT_MS]), "OK");
    }
}

fn six(more: &[&str]) -> Vec<Node> {
    let more = [&["--repl-diskless-sync-delay", "0"], more].concat();
    let mut nodes: Vec<Node> = (0..6).map(|_| Node::with_options(Path::new(SERVER), &more)).collect();
    join(&mut nodes, true);
    nodes
}

fn reconnect(node: &mut Node) {
    node.server.restart();
    node.conn = node.server.connect();
    wait("it follows or serves, and the cluster is up", 30, || {
        let info = node.text(&["INFO", "replication"]);
        (info.contains("role:master") || info.contains("master_link_status:up")) && node.info("cluster_state") == "ok"
    });
}

/// Restarts all nodes one after the other under load; gives how long each took to end.
fn restart_all(nodes: &mut [Node], stop_node: impl Fn(&mut Node) -> Duration) -> Vec<Duration> {
    let addresses: Vec<String> = nodes.iter().map(|n| format!("127.0.0.1:{}", n.server.port)).collect();
    be_patient(nodes);
    let load = Load::start(&addresses);
    std::thread::sleep(Duration::from_millis(300));
    let mut took = Vec::new();
    for at in 0..nodes.len() {
        let was_master = nodes[at].text(&["ROLE"]).contains("master");
        took.push(stop_node(&mut nodes[at]));
        let log = nodes[at].server.log();
        assert_eq!(log.contains("Another node serves the slots of this one now"), was_master, "{log}");
        reconnect(&mut nodes[at]);
        be_patient(&mut nodes[at..=at]);
        assert!(nodes[at].text(&["ROLE"]).contains("slave"), "another node has its place");
        // Those who follow the new master have all to be back before the next one goes.
        wait("all replicas are in sync", 30, || {
            nodes.iter_mut().all(|n| !n.text(&["INFO", "replication"]).contains("master_link_status:down"))
        });
    }
    load.finish(&addresses);
    took
}

fn by_signal(node: &mut Node) -> Duration {
    node.server.terminate(10)
}

fn by_command(node: &mut Node) -> Duration {
    let start = Instant::now();
    let _ = node.call(&["SHUTDOWN", "NOSAVE"]);
    wait("it ends", 10, || node.server.child.try_wait().is_ok_and(|status| status.is_some()));
    start.elapsed()
}

#[test]
fn all_nodes_restart_by_signal_and_no_client_notices() {
    let took = restart_all(&mut six(&["--appendonly", "yes"]), by_signal);
    println!("{took:?}");
    // It did not come to the end of shutdown-timeout.
    assert!(took.iter().all(|took| *took < Duration::from_secs(8)), "{took:?}");
}

#[test]
fn all_nodes_restart_by_command_and_no_client_notices() {
    // With nothing on disk they come back empty.
    restart_all(&mut six(&[]), by_command);
}

#[test]
fn with_durable_acknowledgements_it_is_the_same() {
    let mut nodes = six(&["--cluster-durable-acks", "1", "--appendonly", "yes"]);
    for node in &mut nodes[..3] {
        wait("writes are accepted", 20, || node.info("cluster_durable_state") == "ok");
    }
    let took = by_signal(&mut nodes[0]);
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert!(nodes[0].server.log().contains("Another node serves"), "{}", nodes[0].server.log());
    wait("its replica is the master", 5, || nodes[3].text(&["ROLE"]).contains("master"));
    reconnect(&mut nodes[0]);
    wait("writes are accepted", 20, || nodes[3].text(&["SET", "bar", "1"]) == "OK");
}

#[test]
fn who_waits_for_a_key_is_sent_on_and_the_signal_may_name_it() {
    let mut nodes = six(&["--auto-failover-on-shutdown", "no", "--shutdown-on-sigterm", "nosave", "failover"]);
    let mut waiting = nodes[0].server.connect();
    let waits = std::thread::spawn(move || redis::cmd("BLPOP").arg("bar").arg(0).query::<redis::Value>(&mut waiting));
    wait("it waits", 5, || nodes[0].text(&["INFO", "clients"]).contains("blocked_clients:1"));
    nodes[0].server.terminate(5);
    let answer = waits.join().unwrap().unwrap_err();
    assert!(answer.to_string().contains(&nodes[3].server.port.to_string()), "{answer}");
    assert!(nodes[3].text(&["ROLE"]).contains("master"));
    // By command the default of the directive counts: it ends as it is.
    let start = Instant::now();
    by_command(&mut nodes[1]);
    assert!(nodes[4].text(&["ROLE"]).contains("slave") && start.elapsed() < Duration::from_secs(1));
}

#[test]
fn now_skips_it_and_abort_ends_it() {
    let mut nodes = six(&["--shutdown-timeout", "30"]);
    let _ = nodes[0].call(&["SHUTDOWN", "NOSAVE", "NOW"]);
    std::thread::sleep(Duration::from_secs(1));
    assert!(!nodes[3].server.log().contains("Forced failover primary request accepted"));
    // A replica that stands still is waited for, unless the order is taken back.
    nodes[4].server.signal("-STOP");
    assert_eq!(nodes[1].text(&["SET", "foo", "1"]).split(' ').next(), Some("MOVED"));
    assert_eq!(nodes[1].text(&["SET", "hello", "1"]).split(' ').next(), Some("MOVED"));
    let mut other = nodes[1].server.connect();
    assert!(redis::cmd("PUBLISH").arg("x").arg("y").query::<i64>(&mut other).is_ok());
    assert_eq!(nodes[1].text(&["DEBUG", "SET-ACTIVE-EXPIRE", "1"]), "OK");
    // The stream moves on, so the replica is behind.
    let slot_key = (0..).map(|n: u32| n.to_string()).find(|key| nodes[1].text(&["SET", key, "1"]) == "OK").unwrap();
    let mut conn = nodes[1].server.connect();
    let asks = std::thread::spawn(move || redis::cmd("SHUTDOWN").arg("NOSAVE").query::<redis::Value>(&mut conn));
    wait("it waits", 5, || nodes[1].text(&["INFO", "server"]).contains("shutdown_in_milliseconds"));
    assert_eq!(nodes[1].text(&["SHUTDOWN", "ABORT"]), "OK");
    assert!(asks.join().unwrap().unwrap_err().to_string().contains("Errors trying to SHUTDOWN"));
    assert_eq!(nodes[1].text(&["SET", &slot_key, "2"]), "OK");
    nodes[4].server.signal("-CONT");
    assert!(nodes[4].text(&["ROLE"]).contains("slave"));
}

/// The replica may obey until it has given up, so until then nothing may be written that it does not have.
#[test]
fn after_abort_writes_wait_for_a_replica_that_was_told() {
    let mut nodes = six(&[]);
    // It gets no votes.
    assert_eq!(nodes[3].text(&["DEBUG", "DROP-CLUSTER-PACKET-FILTER", "6"]), "OK");
    let mut conn = nodes[0].server.connect();
    let asks = std::thread::spawn(move || redis::cmd("SHUTDOWN").query::<redis::Value>(&mut conn));
    wait("the replica is told", 5, || nodes[0].server.log().contains("Perform auto failover to replica"));
    let told = Instant::now();
    assert_eq!(nodes[0].text(&["SHUTDOWN", "ABORT"]), "OK");
    assert!(asks.join().unwrap().is_err());
    // Those who voted for the replica grant the master nothing until that election is over.
    wait("it takes writes again", 15, || nodes[0].text(&["SET", "bar", "1"]) == "OK");
    assert!(told.elapsed() > Duration::from_secs(4), "{:?}", told.elapsed());
    assert!(nodes[3].text(&["ROLE"]).contains("slave"));
    // The same without an end: it takes as long as it may, and no longer.
    assert_eq!(nodes[0].text(&["CONFIG", "SET", "shutdown-timeout", "3"]), "OK");
    let took = nodes[0].server.terminate(10);
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(6), "{took:?}");
}

/// Without waiting for it: that it is gone shows when nobody listens there any more.
#[test]
fn a_master_that_does_not_wait_is_replaced_before_it_is_missed() {
    let mut nodes = six(&["--shutdown-timeout", "0"]);
    be_patient(&mut nodes);
    nodes[0].server.terminate(5);
    wait("its replica is the master", 5, || nodes[3].text(&["ROLE"]).contains("master"));
    let _ = nodes[1].call(&["SHUTDOWN", "NOSAVE", "NOW", "FAILOVER"]);
    wait("its replica is the master", 5, || nodes[4].text(&["ROLE"]).contains("master"));
}

/// Both nodes of a shard are stopped, the second one while the first sends its clients on.
#[test]
fn a_node_that_stops_takes_over_from_nobody() {
    let mut nodes = six(&[]);
    // A client that was there lately, and says nothing more.
    let mut idle = nodes[0].server.connect();
    redis::cmd("PING").query::<String>(&mut idle).unwrap();
    let mut other = nodes[0].server.connect();
    nodes[0].server.signal("-TERM");
    wait("its replica is the master", 5, || nodes[3].text(&["ROLE"]).contains("master"));
    let _ = redis::cmd("PING").query::<String>(&mut other);
    nodes[3].server.signal("-TERM");
    for at in [0, 3] {
        nodes[at].server.wait_end(15);
    }
    let log = nodes[0].server.log();
    assert!(!log.contains("Failover election won"), "{log}");
}

#[test]
fn a_whole_cluster_ends_without_delay() {
    let mut nodes = six(&[]);
    // Two of three masters are gone: nobody can be elected.
    nodes[0].server.kill();
    nodes[1].server.kill();
    nodes[3].server.kill();
    nodes[4].server.kill();
    let took = nodes[2].server.terminate(10);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(nodes[2].server.log().contains("too few masters are reached"));
    // A replica just ends, and so does a server that is no node of a cluster.
    assert!(nodes[5].server.terminate(10) < Duration::from_secs(1));
    let mut alone = common::TestServer::start(&[]);
    let told = common::try_run::<String>(&mut alone.connect(), &["SHUTDOWN", "FAILOVER"]).unwrap_err();
    assert!(told.to_string().contains("only supported in cluster mode"), "{told}");
    assert!(alone.terminate(10) < Duration::from_secs(1));
}

#[cfg_attr(not(has_redis_7_2), ignore = "no redis-server of 7.2 or later is installed")]
#[test]
fn a_redis_replica_that_does_not_know_the_order_is_not_given_it() {
    let mut nodes: Vec<Node> = (0..3).map(|_| Node::ours()).collect();
    nodes.extend((0..3).map(|_| Node::start(&common::real_redis())));
    join(&mut nodes, true);
    let took = nodes[0].server.terminate(10);
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(nodes[0].server.log().contains("since there are legacy replicas"));
    assert!(!nodes[3].server.log().contains("CRITICAL"), "{}", nodes[3].server.log());
    wait("it was replaced in the usual way", 10, || nodes[3].text(&["ROLE"]).contains("master"));
}
