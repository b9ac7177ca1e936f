//! Acknowledgements that wait for replicas: what was acknowledged is there whoever serves, and who cannot promise it does
//! not.

use crate::common;

use common::SERVER;
use common::cluster::{Node, join, wait};
use redis::Value;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Three masters with as many replicas as told, by turns.
fn durable_cluster(replicas: usize, acks: &str) -> Vec<Node> {
    let mut nodes: Vec<Node> = (0..3 * (1 + replicas))
        .map(|_| Node::with_options(Path::new(SERVER), &["--cluster-durable-acks", acks]))
        .collect();
    if replicas == 1 {
        join(&mut nodes, true);
    } else {
        let (masters, others) = nodes.split_at_mut(3);
        join(masters, false);
        let port = masters[0].server.port.to_string();
        let ids: Vec<String> = masters.iter_mut().map(Node::id).collect();
        for (i, node) in others.iter_mut().enumerate() {
            assert_eq!(node.text(&["CLUSTER", "MEET", "127.0.0.1", &port]), "OK");
            wait("it knows its master", 10, || node.text(&["CLUSTER", "REPLICATE", &ids[i % 3]]) == "OK");
        }
    }
    for node in &mut nodes[..3] {
        wait("writes are accepted", 20, || node.info("cluster_durable_state") == "ok");
    }
    nodes
}

/// Writes `bar` and a number, again and again, through whichever of the nodes takes it; what was acknowledged.
fn write_on(ports: Vec<u16>, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<u64>> {
    std::thread::spawn(move || {
        let (mut acknowledged, mut next, mut at) = (Vec::new(), 0u64, 0);
        while !stop.load(Ordering::Relaxed) {
            let connected = redis::Client::open(format!("redis://127.0.0.1:{}/", ports[at % ports.len()]))
                .and_then(|c| c.get_connection_with_timeout(Duration::from_millis(300)));
            at += 1;
            let Ok(mut conn) = connected else { continue };
            let _ = conn.set_read_timeout(Some(Duration::from_millis(1000)));
            while !stop.load(Ordering::Relaxed) {
                next += 1;
                match redis::cmd("SET").arg(format!("{{bar}}{next}")).arg(next).query::<Value>(&mut conn) {
                    Ok(Value::Okay) => acknowledged.push(next),
                    _ => break,
                }
            }
        }
        acknowledged
    })
}

fn missing(node: &mut Node, acknowledged: &[u64]) -> Vec<u64> {
    let is_there = |node: &mut Node, n: &u64| node.text(&["GET", &format!("{{bar}}{n}")]) == n.to_string();
    acknowledged.iter().copied().filter(|n| !is_there(node, n)).collect()
}

/// Who serves the slot of `bar`, among these.
fn owner(nodes: &mut [Node], among: &[usize]) -> Option<usize> {
    among.iter().copied().find(|i| nodes[*i].text(&["SET", "bar", "x"]) == "OK")
}

#[test]
fn a_killed_master_takes_nothing_acknowledged_with_it() {
    let mut nodes = durable_cluster(1, "1");
    let (stop, ports) = (Arc::new(AtomicBool::new(false)), vec![nodes[0].server.port, nodes[3].server.port]);
    let writers: Vec<_> = (0..4).map(|_| write_on(ports.clone(), stop.clone())).collect();
    std::thread::sleep(Duration::from_millis(800));
    nodes[0].server.kill();
    // The only replica cannot promise anything alone.
    wait("the replica took over", 10, || nodes[3].text(&["ROLE"]).contains("master"));
    wait("it says why it takes no writes", 10, || {
        nodes[3].info("cluster_durable_state") == "too_few_replicas"
            || nodes[3].info("cluster_durable_state") == "not_agreed"
    });
    assert!(nodes[3].text(&["SET", "bar", "1"]).starts_with("NOREPLICAS"));
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<u64> = writers.into_iter().flat_map(|w| w.join().unwrap()).collect();
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    assert_eq!(missing(&mut nodes[3], &acknowledged), Vec::<u64>::new());
    // With the old one back as its replica it goes on.
    nodes[0].server.restart();
    wait("writes are accepted", 20, || nodes[3].text(&["SET", "bar", "1"]) == "OK");
}

#[test]
fn a_master_that_lost_its_data_in_a_crash_does_not_spread_that() {
    let mut nodes = durable_cluster(1, "1");
    for n in 0..50 {
        assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), &n.to_string()]), "OK");
    }
    // It is back before anybody has missed it, with nothing.
    nodes[0].server.kill();
    nodes[0].server.restart();
    nodes[0].conn = nodes[0].server.connect();
    wait("its replica took over", 10, || nodes[3].text(&["ROLE"]).contains("master"));
    wait("writes are accepted", 20, || nodes[3].text(&["SET", "bar", "1"]) == "OK");
    assert_eq!(missing(&mut nodes[3], &(0..50).collect::<Vec<u64>>()), Vec::<u64>::new());
    wait("the old master has the data again", 10, || nodes[0].text(&["DBSIZE"]) == "int(51)");
}

#[test]
fn with_too_few_replicas_writes_are_refused_at_once_and_reads_go_on() {
    let mut nodes = durable_cluster(1, "1");
    assert_eq!(nodes[0].text(&["SET", "bar", "1"]), "OK");
    nodes[3].server.kill();
    wait("it is missed", 10, || nodes[0].info("cluster_durable_state") == "too_few_replicas");
    let start = Instant::now();
    assert!(nodes[0].text(&["SET", "bar", "2"]).starts_with("NOREPLICAS"));
    assert_eq!(nodes[0].text(&["EVAL", "return redis.call('get', KEYS[1])", "1", "bar"]), "1");
    assert_eq!((nodes[0].text(&["GET", "bar"]), nodes[0].text(&["PING"])), ("1".into(), "PONG".into()));
    assert!(start.elapsed() < Duration::from_millis(500));
    assert_eq!(nodes[0].info("cluster_durable_state"), "too_few_replicas");
    // Who can do without may write, and is answered at once; the others do not see it.
    let mut other = nodes[0].server.connect();
    redis::cmd("CLIENT").arg("DURABLE").arg("OFF").exec(&mut other).unwrap();
    assert_eq!(redis::cmd("SET").arg("{bar}3").arg("x").query(&mut other), Ok(Value::Okay));
    assert_eq!(redis::cmd("GET").arg("{bar}3").query::<String>(&mut other).unwrap(), "x");
    assert_eq!(nodes[0].text(&["GET", "bar"]), "1");
    redis::cmd("CLIENT").arg("DURABLE").arg("ON").exec(&mut other).unwrap();
    let refused = redis::cmd("SET").arg("{bar}3").arg("y").query::<Value>(&mut other).unwrap_err();
    assert_eq!(refused.code(), Some("NOREPLICAS"));
    // The operator may do without.
    assert_eq!(nodes[0].text(&["CONFIG", "SET", "cluster-durable-acks", "0"]), "OK");
    wait("writes are accepted", 10, || nodes[0].text(&["SET", "bar", "3"]) == "OK");
}

#[test]
fn a_replica_that_stops_confirming_leaves_writers_with_a_clear_answer() {
    let mut nodes = durable_cluster(1, "1");
    assert_eq!(nodes[0].text(&["SET", "bar", "1"]), "OK");
    nodes[3].server.signal("-STOP");
    let told = Arc::new(Mutex::new(Vec::new()));
    let waiting: Vec<_> = (0..3)
        .map(|n| {
            let (mut conn, told) = (nodes[0].server.connect(), told.clone());
            std::thread::spawn(move || {
                let reply = redis::cmd("SET").arg(format!("{{bar}}{n}")).arg("1").query::<Value>(&mut conn);
                told.lock().unwrap().push(reply.map_err(|e| e.to_string()));
            })
        })
        .collect();
    let reader = nodes[0].text(&["GET", "{bar}other"]);
    waiting.into_iter().for_each(|w| w.join().unwrap());
    // From now on nobody else is let in for that.
    let mut late = nodes[0].server.connect();
    let refused = redis::cmd("SET").arg("{bar}late").arg("1").query::<Value>(&mut late).unwrap_err();
    assert_eq!(refused.code(), Some("NOREPLICAS"));
    assert_eq!(nodes[0].info("cluster_durable_state"), "too_few_replicas");
    nodes[3].server.signal("-CONT");
    let told = told.lock().unwrap();
    assert!(told.iter().all(|reply| reply.as_ref().is_err_and(|e| e.contains("UNCERTAIN"))), "{told:?}");
    assert_eq!(reader, "nil", "other keys are told of");
    nodes[0].conn = nodes[0].server.connect();
    wait("writes are accepted again", 20, || nodes[0].text(&["SET", "bar", "1"]) == "OK");
}

#[test]
fn failovers_by_hand_lose_nothing() {
    let mut nodes = durable_cluster(2, "1");
    let members = [0, 3, 6];
    let stop = Arc::new(AtomicBool::new(false));
    let ports: Vec<u16> = members.iter().map(|i| nodes[*i].server.port).collect();
    let writers: Vec<_> = (0..3).map(|_| write_on(ports.clone(), stop.clone())).collect();
    let mut master = 0;
    for (round, mode) in [None, Some("FORCE"), None].into_iter().enumerate() {
        std::thread::sleep(Duration::from_millis(300));
        let next = members[(round + 1) % 3];
        wait("it follows", 10, || nodes[next].text(&["INFO", "replication"]).contains("master_link_status:up"));
        let words: Vec<&str> = ["CLUSTER", "FAILOVER"].into_iter().chain(mode).collect();
        assert_eq!(nodes[next].text(&words), "OK");
        wait("it took over", 10, || nodes[next].text(&["ROLE"]).contains("master"));
        wait("writes are accepted", 10, || owner(&mut nodes, &[next]).is_some());
        wait("the old master follows", 10, || nodes[master].text(&["ROLE"]).contains("slave"));
        master = next;
    }
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<u64> = writers.into_iter().flat_map(|w| w.join().unwrap()).collect();
    assert!(acknowledged.len() > 100, "{}", acknowledged.len());
    assert_eq!(missing(&mut nodes[master], &acknowledged), Vec::<u64>::new());
}
