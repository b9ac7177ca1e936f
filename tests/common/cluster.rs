//! Nodes of a cluster, on loopback.

use super::{SERVER, TestServer};
use redis::{Connection, RedisResult, Value};
use std::path::Path;
use std::time::{Duration, Instant};

pub(crate) const TIMEOUT_MS: u64 = 1500;

pub(crate) struct Node {
    pub(crate) server: TestServer,
    pub(crate) conn: Connection,
}

pub(crate) fn options() -> Vec<String> {
    let timeout = TIMEOUT_MS.to_string();
    ["--cluster-enabled", "yes", "--cluster-node-timeout", &timeout, "--enable-debug-command", "yes"]
        .map(String::from)
        .to_vec()
}

impl Node {
    pub(crate) fn start(binary: &Path) -> Node {
        Node::with_options(binary, &[])
    }

    pub(crate) fn with_options(binary: &Path, more: &[&str]) -> Node {
        let options = options();
        let options: Vec<&str> = options.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let server = TestServer::start_binary(binary, &options);
        let conn = server.connect();
        Node { server, conn }
    }

    pub(crate) fn ours() -> Node {
        Node::start(Path::new(SERVER))
    }

    pub(crate) fn call(&mut self, words: &[&str]) -> RedisResult<Value> {
        super::try_run(&mut self.conn, words)
    }

    pub(crate) fn text(&mut self, words: &[&str]) -> String {
        text_of(self.call(words))
    }

    pub(crate) fn id(&mut self) -> String {
        self.text(&["CLUSTER", "MYID"])
    }

    pub(crate) fn info(&mut self, field: &str) -> String {
        let info = self.text(&["CLUSTER", "INFO"]);
        let line = info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().trim().to_owned()
    }
}

/// A reply as text; of an error its code and what it says.
pub(crate) fn text_of(reply: RedisResult<Value>) -> String {
    match reply {
        Ok(Value::BulkString(b)) => String::from_utf8(b).unwrap(),
        Ok(Value::SimpleString(s)) => s,
        Ok(Value::VerbatimString { text, .. }) => text,
        Ok(Value::Okay) => "OK".into(),
        Ok(other) => format!("{other:?}"),
        Err(e) => format!("{} {}", e.code().unwrap_or("ERR"), e.detail().unwrap_or_default()),
    }
}

pub(crate) fn wait(what: &str, seconds: u64, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// The first half of the nodes are masters that share the slots, the others their replicas, if `replicas`.
pub(crate) fn join(nodes: &mut [Node], replicas: bool) {
    let masters = if replicas { nodes.len() / 2 } else { nodes.len() };
    for (i, node) in nodes.iter_mut().enumerate() {
        assert_eq!(node.text(&["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()]), "OK");
        if i < masters {
            let at = |n: usize| n * 16384 / masters;
            let (first, last) = (at(i).to_string(), (at(i + 1) - 1).to_string());
            assert_eq!(node.text(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]), "OK");
        }
    }
    let port = nodes[0].server.port.to_string();
    for node in &mut nodes[1..] {
        assert_eq!(node.text(&["CLUSTER", "MEET", "127.0.0.1", &port]), "OK");
    }
    let known = nodes.len().to_string();
    wait("all nodes know each other", 30, || {
        nodes
            .iter_mut()
            .all(|n| n.info("cluster_known_nodes") == known && !n.text(&["CLUSTER", "NODES"]).contains("handshake"))
    });
    for i in masters..nodes.len() {
        let master = nodes[i - masters].id();
        wait("the replica knows its master", 10, || nodes[i].text(&["CLUSTER", "REPLICATE", &master]) == "OK");
    }
    wait("the cluster is up everywhere", 30, || nodes.iter_mut().all(|n| n.info("cluster_state") == "ok"));
    wait("all replicas are in sync", 30, || {
        nodes[masters..].iter_mut().all(|n| n.text(&["INFO", "replication"]).contains("master_link_status:up"))
    });
}
