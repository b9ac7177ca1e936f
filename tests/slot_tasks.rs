//! Slots that move as a whole where the target pulls, between real nodes, a Redis 8 among them.

use crate::common;
use crate::slot_migration::{
    SLOT, Writer, begin, check_written, keys_in, nodes, prevent, reshard, shown, wait_for_state,
};

use common::cluster::{Node, join, wait};
use common::{SERVER, left_out};
use redis::Value;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Has a node pull the slots; the id of the task.
fn pull(node: &mut Node, first: &str, last: &str) -> String {
    node.text(&["CLUSTER", "MIGRATION", "IMPORT", first, last])
}

/// A field of a task, or nothing.
fn task(node: &mut Node, id: &str, field: &str) -> String {
    let reply: Vec<Vec<Value>> =
        redis::cmd("CLUSTER").arg(&["MIGRATION", "STATUS", "ID", id]).query(&mut node.conn).unwrap();
    let fields = reply.first().map(Vec::as_slice).unwrap_or_default();
    let found = fields.chunks(2).find(|pair| shown(&pair[0]) == field);
    found.map_or_else(String::new, |pair| shown(&pair[1]))
}

fn wait_for_task(node: &mut Node, id: &str, wanted: &str) {
    let start = Instant::now();
    while task(node, id, "state") != wanted {
        let (state, error) = (task(node, id, "state"), task(node, id, "last_error"));
        assert!(start.elapsed() < Duration::from_secs(20), "{state} instead of {wanted}: {error}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Small and large collections with the tag `bar`: the command that fills one, its key, how many numbers that is given,
/// and the command that tells how many elements they make.
const COLLECTIONS: [(&str, &str, usize, &str, usize); 8] = [
    ("RPUSH", "{bar}l", 10, "LLEN", 10),
    ("RPUSH", "{bar}L", 1200, "LLEN", 1200),
    ("SADD", "{bar}s", 10, "SCARD", 10),
    ("SADD", "{bar}S", 1200, "SCARD", 1200),
    ("HSET", "{bar}h", 10, "HLEN", 5),
    ("HSET", "{bar}H", 1200, "HLEN", 600),
    ("ZADD", "{bar}z", 10, "ZCARD", 5),
    ("ZADD", "{bar}Z", 1200, "ZCARD", 600),
];

/// Values of each type, with the tag `bar`.
fn fill(node: &mut Node) {
    let numbers: Vec<String> = (0..1200).map(|n| n.to_string()).collect();
    for (command, key, given, _, _) in COLLECTIONS {
        let mut words = vec![command, key];
        words.extend(numbers[..given].iter().map(String::as_str));
        node.call(&words).unwrap();
    }
    for n in 1..20 {
        node.call(&["XADD", "{bar}x", &format!("{n}-1"), "f", "v"]).unwrap();
    }
    node.call(&["XGROUP", "CREATE", "{bar}x", "g", "0"]).unwrap();
    node.call(&["XREADGROUP", "GROUP", "g", "c", "COUNT", "5", "STREAMS", "{bar}x", ">"]).unwrap();
    node.call(&["SET", "{bar}t", "v", "EX", "1000"]).unwrap();
    node.call(&["SET", "{bar}", "plain"]).unwrap();
}

fn check_filled(node: &mut Node) {
    for (_, key, _, command, count) in COLLECTIONS {
        assert_eq!(node.text(&[command, key]), format!("int({count})"), "{key}");
    }
    assert_eq!(node.text(&["XLEN", "{bar}x"]), "int(19)");
    let pending: Vec<Value> = redis::cmd("XPENDING").arg(&["{bar}x", "g"]).query(&mut node.conn).unwrap();
    assert_eq!(pending[0], Value::Int(5));
    let ttl: i64 = redis::cmd("TTL").arg("{bar}t").query(&mut node.conn).unwrap();
    assert!((900..=1000).contains(&ttl), "{ttl}");
    assert_eq!(node.text(&["GET", "{bar}"]), "plain");
}

/// Moves the slot from one node to the other under load, by the target's asking.
fn pull_under_load(nodes: &mut [Node], from: usize, to: usize) -> String {
    let ports = vec![nodes[from].server.port, nodes[to].server.port];
    let writers: Vec<Writer> = (0..2).map(|n| Writer::start(ports.clone(), n)).collect();
    std::thread::sleep(Duration::from_millis(100));
    let id = pull(&mut nodes[to], "5000", "5099");
    wait_for_task(&mut nodes[to], &id, "completed");
    wait_for_task(&mut nodes[from], &id, "completed");
    std::thread::sleep(Duration::from_millis(100));
    for writer in writers {
        check_written(&mut nodes[to], &writer.finish());
    }
    check_filled(&mut nodes[to]);
    wait("what was left behind is gone", 10, || keys_in(&mut nodes[from]) == "int(0)");
    id
}

#[test]
fn a_target_pulls_slots_and_tries_again_when_that_fails() {
    let mut nodes = nodes(3, false);
    fill(&mut nodes[0]);
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    assert_eq!(nodes[0].text(&["FUNCTION", "LOAD", library]), "lib");
    let id = pull_under_load(&mut nodes, 0, 1);
    assert_eq!(
        (task(&mut nodes[1], &id, "slots"), task(&mut nodes[1], &id, "retries")),
        ("5000-5099".into(), "0".into())
    );
    assert_eq!(
        (task(&mut nodes[0], &id, "operation"), task(&mut nodes[1], &id, "operation")),
        ("migrate".into(), "import".into())
    );
    assert_eq!(nodes[1].text(&["FCALL", "f", "0"]), "int(1)");
    // Each attempt ends when the link does; then the keys that have come are gone, and another attempt follows.
    prevent(&mut nodes[..2], "PREVENT-PAUSE", "1");
    let id = pull(&mut nodes[0], "5000", "5099");
    wait_for_task(&mut nodes[0], &id, "wait-stream-eof");
    assert!(keys_in(&mut nodes[0]) != "int(0)" && nodes[0].text(&["DBSIZE"]) == "int(0)");
    nodes[1].call(&["CLIENT", "KILL", "TYPE", "replica"]).unwrap();
    wait_for_task(&mut nodes[0], &id, "failed");
    assert!(task(&mut nodes[0], &id, "last_error").starts_with("Main channel: the link broke"));
    wait_for_task(&mut nodes[0], &id, "wait-stream-eof");
    assert_eq!(task(&mut nodes[0], &id, "retries"), "1");
    // What is cancelled is not tried again.
    assert_eq!(nodes[0].text(&["CLUSTER", "MIGRATION", "CANCEL", "ID", &id]), "int(1)");
    assert_eq!(task(&mut nodes[0], &id, "state"), "canceled");
    wait("the source knows", 10, || task(&mut nodes[1], &id, "state") == "failed");
    assert_eq!((keys_in(&mut nodes[0]), nodes[1].text(&["GET", "{bar}"])), ("int(0)".into(), "plain".into()));
    prevent(&mut nodes[..2], "PREVENT-PAUSE", "0");
    pull_under_load(&mut nodes, 1, 0);
}

#[test]
fn nodes_that_pull_from_each_other_at_the_same_time_both_succeed() {
    let mut nodes = nodes(2, false);
    // Slot 5061 of the first and 16383 of the second.
    for round in 0..2 {
        let (a, b) = if round == 0 { (0, 1) } else { (1, 0) };
        prevent(&mut nodes, "PREVENT-PAUSE", "1");
        let tasks = [(b, pull(&mut nodes[b], SLOT, SLOT)), (a, pull(&mut nodes[a], "16383", "16383"))];
        for (node, id) in &tasks {
            wait_for_task(&mut nodes[*node], id, "wait-stream-eof");
        }
        prevent(&mut nodes, "PREVENT-PAUSE", "0");
        for (node, id) in &tasks {
            wait_for_task(&mut nodes[*node], id, "completed");
            assert_eq!(task(&mut nodes[*node], id, "retries"), "0");
        }
        wait("both know", 10, || tasks.iter().all(|(node, id)| task(&mut nodes[1 - node], id, "state") == "completed"));
    }
}

/// What a Redis 8 says to its replicas and in its log of slots that have gone, and what operators may say.
#[test]
fn keys_of_slots_that_others_serve_are_trimmed() {
    let mut nodes = nodes(2, false);
    let cases: [(&[&str], &str); 6] = [
        (&["UNKNOWN", "1", "100", "200"], "missing ranges"),
        (&["RANGES", "2", "100", "200"], "invalid number of ranges"),
        (&["RANGES", "0", "100", "200"], "invalid number of ranges"),
        (&["RANGES", "1", "100", "16384"], "out of range slot"),
        (&["RANGES", "1", "200", "100"], "greater than end slot number"),
        (&["RANGES", "2", "1", "2", "5000", "8191"], "is served by this node"),
    ];
    for (words, wanted) in cases {
        let said = nodes[0].text(&[&["TRIMSLOTS"], words].concat());
        assert!(said.contains(wanted), "{words:?}: {said}");
    }
    // A key that another node serves is there while its slot is open.
    let first = nodes[0].id();
    assert_eq!(nodes[1].text(&["CLUSTER", "SETSLOT", SLOT, "IMPORTING", &first]), "OK");
    assert_eq!(nodes[1].text(&["ASKING"]), "OK");
    assert_eq!(nodes[1].text(&["SET", "bar", "x"]), "OK");
    assert_eq!(keys_in(&mut nodes[1]), "int(1)");
    assert_eq!(nodes[1].text(&["TRIMSLOTS", "RANGES", "2", "1", "2", "5000", "5999"]), "OK");
    wait("it is gone", 5, || keys_in(&mut nodes[1]) == "int(0)");
    assert_eq!(nodes[1].text(&["CLUSTER", "SETSLOT", SLOT, "STABLE"]), "OK");
    // In a log it stands among other commands, and is about what is before it.
    let mut node = Node::with_options(Path::new(SERVER), &["--appendonly", "yes", "--appendfsync", "always"]);
    assert_eq!(node.text(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    wait("it serves", 10, || node.text(&["SET", "{bar}1", "x"]) == "OK");
    assert_eq!((node.text(&["SET", "{bar}2", "x"]), node.text(&["SET", "foo", "x"])), ("OK".into(), "OK".into()));
    node.server.kill();
    let log = node.server.dir.path().join("appendonlydir/appendonly.aof.1.incr.aof");
    let mut text = std::fs::read(&log).unwrap();
    for words in [&["TRIMSLOTS", "RANGES", "1", "5000", "5099"][..], &["SET", "{bar}3", "x"]] {
        text.extend(redis::cmd(words[0]).arg(&words[1..]).get_packed_command());
    }
    std::fs::write(&log, text).unwrap();
    node.server.restart();
    node.conn = node.server.connect();
    wait("it serves", 10, || node.info("cluster_state") == "ok");
    assert_eq!((node.text(&["DBSIZE"]), node.text(&["EXISTS", "{bar}3"])), ("int(2)".into(), "int(1)".into()));
}

/// With a node of Redis 8.4 or later (`REDIS_8_SERVER`): left out where none is named.
#[test]
fn slots_move_as_a_whole_to_and_from_a_redis_8() {
    let Some(binary) = std::env::var_os("REDIS_8_SERVER") else {
        return left_out("REDIS_8_SERVER names no redis-server");
    };
    let start = |binary: &Path| Node::with_options(binary, &["--repl-diskless-sync-delay", "0"]);
    let mut nodes = vec![start(Path::new(SERVER)), start(Path::new(&binary)), start(Path::new(SERVER))];
    join(&mut nodes, false);
    fill(&mut nodes[0]);
    for _ in 0..2 {
        pull_under_load(&mut nodes, 0, 1);
        pull_under_load(&mut nodes, 1, 0);
    }
    // Values that 7.2 does not have end the task, and nothing is lost.
    pull_under_load(&mut nodes, 0, 1);
    nodes[1].call(&["HEXPIRE", "{bar}h", "1000", "FIELDS", "1", "0"]).unwrap();
    let id = pull(&mut nodes[0], "5000", "5099");
    wait_for_task(&mut nodes[0], &id, "canceled");
    let error = task(&mut nodes[0], &id, "last_error");
    assert!(error.contains("of type 25") || error.contains("unknown command"), "{error}");
    check_filled(&mut nodes[1]);
    assert_eq!(keys_in(&mut nodes[0]), "int(0)");
    // It stays of that type until it is made anew.
    nodes[1].call(&["DEL", "{bar}h"]).unwrap();
    nodes[1].call(&["HSET", "{bar}h", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]).unwrap();
    // The tool asks the target, as that is what both understand.
    let address = format!("127.0.0.1:{}", nodes[0].server.port);
    let (from, to) = (nodes[1].id(), nodes[0].id());
    reshard(&address, &from, &to, "200");
    check_filled(&mut nodes[0]);
    let tasks: Vec<Value> =
        redis::cmd("CLUSTER").arg(&["MIGRATION", "STATUS", "ALL"]).query(&mut nodes[0].conn).unwrap();
    assert!(tasks.len() > 3, "{tasks:?}");
}

/// DEBUG ASM-FAILPOINT: whichever link breaks wherever the task stands, the error says so, and the next attempt succeeds.
#[test]
fn a_task_gets_over_a_link_that_breaks_anywhere() {
    let points = [
        (1, "import-main-channel", "connecting"),
        (1, "import-main-channel", "handshake-reply"),
        (1, "import-main-channel", "syncslots-reply"),
        (1, "import-main-channel", "accumulate-buffer"),
        (1, "import-main-channel", "streaming-buffer"),
        (1, "import-main-channel", "wait-stream-eof"),
        (1, "import-rdb-channel", "connecting"),
        (1, "import-rdb-channel", "rdbchannel-reply"),
        (1, "import-rdb-channel", "rdbchannel-transfer"),
        (0, "migrate-main-channel", "wait-rdbchannel"),
        (0, "migrate-main-channel", "send-bulk-and-stream"),
        (0, "migrate-main-channel", "send-stream"),
        (0, "migrate-main-channel", "handoff"),
        (0, "migrate-rdb-channel", "wait-bgsave-start"),
        (0, "migrate-rdb-channel", "send-bulk-and-stream"),
    ];
    let mut nodes = nodes(3, false);
    fill(&mut nodes[0]);
    assert!(nodes[0].text(&["DEBUG", "ASM-FAILPOINT", "migrate-main-channel", "nowhere"]).contains("ERR"));
    for (side, channel, state) in points {
        assert_eq!(nodes[side].text(&["DEBUG", "ASM-FAILPOINT", channel, state]), "OK");
        let id = pull(&mut nodes[1], "5000", "5099");
        let name = if channel.contains("main") { "Main channel" } else { "RDB channel" };
        let breaks = |error: String| error.starts_with(name) && error.contains(state);
        wait(&format!("{channel} {state}"), 10, || breaks(task(&mut nodes[side], &id, "last_error")));
        assert_eq!(nodes[side].text(&["DEBUG", "ASM-FAILPOINT", "", ""]), "OK");
        wait_for_task(&mut nodes[1], &id, "completed");
        check_filled(&mut nodes[1]);
        wait("what was left behind is gone", 10, || keys_in(&mut nodes[0]) == "int(0)");
        let id = pull(&mut nodes[0], "5000", "5099");
        wait_for_task(&mut nodes[0], &id, "completed");
        wait("the other one knows", 10, || task(&mut nodes[1], &id, "state") == "completed");
    }
    // A source that is not ready is asked again.
    assert_eq!(nodes[0].text(&["DEBUG", "ASM-FAILPOINT", "migrate-main-channel", "none"]), "OK");
    let id = pull(&mut nodes[1], "5000", "5099");
    wait_for_task(&mut nodes[1], &id, "send-syncslots");
    assert_eq!(nodes[0].text(&["DEBUG", "ASM-FAILPOINT", "", ""]), "OK");
    wait_for_task(&mut nodes[1], &id, "completed");
    assert_eq!(task(&mut nodes[1], &id, "retries"), "0");
}

/// A figure of CLUSTER INFO about keys that go.
fn trim(node: &mut Node, name: &str) -> u64 {
    node.info(&format!("cluster_slot_migration_{name}")).parse().expect("a number")
}

/// DEBUG ASM-TRIM-METHOD: in slices by slot, at once, or not at all; and replicas follow.
#[test]
fn what_is_left_behind_goes_as_debug_chooses() {
    let mut nodes = nodes(2, true);
    let count = |node: &mut Node| -> i64 { redis::cmd("DBSIZE").query(&mut node.conn).unwrap() };
    let set = |node: &mut Node, words: &[&str]| {
        assert_eq!(node.text(&[&["DEBUG", "ASM-TRIM-METHOD"], words].concat()), "OK");
    };
    // The masters, then their replicas.
    let (source, target, follower) = (0, 1, 2);
    for n in 0..300 {
        nodes[source].call(&["SET", &format!("{{bar}}{n}"), "x"]).unwrap();
    }
    for node in [source, follower] {
        set(&mut nodes[node], &["active", "-1"]);
    }
    let id = pull(&mut nodes[target], SLOT, SLOT);
    wait_for_task(&mut nodes[target], &id, "completed");
    for node in [source, follower] {
        wait("there is something to trim", 10, || trim(&mut nodes[node], "active_trim_running") == 1);
        assert_eq!((keys_in(&mut nodes[node]), count(&mut nodes[node])), ("int(300)".into(), 0));
    }
    // It does not come back before it is gone; a snapshot does not have it.
    assert_eq!(nodes[source].text(&["SAVE"]), "OK");
    let back = pull(&mut nodes[source], SLOT, SLOT);
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(task(&mut nodes[source], &back, "state"), "none");
    assert!(nodes[source].server.log().contains("300 keys skipped"));
    // The follower first: when its master is done keys come back, and what is left of the slot goes at once.
    for node in [follower, source] {
        set(&mut nodes[node], &["active", "10"]);
        wait("it is gone", 10, || trim(&mut nodes[node], "active_trim_running") == 0);
        let figures = ["active_trim_current_job_keys", "active_trim_current_job_trimmed"];
        assert_eq!(figures.map(|name| trim(&mut nodes[node], name)), [300, 300]);
        assert_eq!(trim(&mut nodes[node], "stats_active_trim_completed"), 1);
    }
    wait_for_task(&mut nodes[source], &back, "completed");
    wait("the replica has it", 10, || count(&mut nodes[follower]) == 300);
    // At once, on both.
    set(&mut nodes[source], &["bg"]);
    set(&mut nodes[follower], &["default"]);
    let id = pull(&mut nodes[target], SLOT, SLOT);
    wait_for_task(&mut nodes[target], &id, "completed");
    for node in [source, follower] {
        wait("it is gone", 10, || keys_in(&mut nodes[node]) == "int(0)");
        wait("it was freed", 10, || nodes[node].text(&["INFO", "memory"]).contains("lazyfreed_objects:300"));
    }
    // Not at all, until it is to go again.
    set(&mut nodes[target], &["none"]);
    let id = pull(&mut nodes[source], SLOT, SLOT);
    wait_for_task(&mut nodes[source], &id, "completed");
    wait("the other one knows", 10, || task(&mut nodes[target], &id, "state") == "completed");
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!((keys_in(&mut nodes[target]), trim(&mut nodes[target], "active_trim_running")), ("int(300)".into(), 0));
    set(&mut nodes[target], &["default"]);
    wait("it is gone", 10, || keys_in(&mut nodes[target]) == "int(0)");
    assert_eq!(count(&mut nodes[source]), 300);
}

/// CLIENT PAUSE cancels what is pulled, and what has come goes when it is over. Until then nothing is under way that anybody could
/// wait for, and the slots are not given out.
#[test]
fn keys_of_a_cancelled_task_wait_for_the_end_of_a_pause() {
    let mut nodes = nodes(2, false);
    let (source, target) = (0, 1);
    for n in 0..1000 {
        nodes[source].call(&["SET", &format!("{{bar}}{n}"), "x"]).unwrap();
    }
    nodes[source].call(&["CONFIG", "SET", "rdb-key-save-delay", "5000"]).unwrap();
    let id = pull(&mut nodes[target], SLOT, SLOT);
    wait("keys come", 10, || keys_in(&mut nodes[target]) != "int(0)");
    assert_eq!(nodes[target].text(&["CLIENT", "PAUSE", "100000", "WRITE"]), "OK");
    wait_for_task(&mut nodes[target], &id, "canceled");
    let under_way = |node: &mut Node| ["active_tasks", "active_trim_running"].map(|name| trim(node, name));
    assert_eq!(under_way(&mut nodes[target]), [0, 0]);
    assert_ne!(keys_in(&mut nodes[target]), "int(0)");
    let refused = nodes[target].text(&["CLUSTER", "SETSLOT", SLOT, "STABLE"]);
    assert!(refused.contains("There is a pending trim job for slot"), "{refused}");
    assert_eq!(nodes[target].text(&["CLIENT", "UNPAUSE"]), "OK");
    assert_eq!(nodes[target].text(&["CLUSTER", "SETSLOT", SLOT, "STABLE"]), "OK");
    assert_eq!((keys_in(&mut nodes[target]), under_way(&mut nodes[target])), ("int(0)".into(), [0, 0]));
    assert_eq!(nodes[source].text(&["DBSIZE"]), "int(1000)");
}

/// What is written while the snapshot comes waits at the target, up to a limit, and is run after it.
#[test]
fn what_is_written_meanwhile_gathers_at_the_target() {
    let mut nodes = nodes(2, false);
    for (limit, most) in [("0", 100_000_000), ("64kb", 1_000_000)] {
        nodes[1].call(&["CONFIG", "SET", "replica-full-sync-buffer-limit", limit]).unwrap();
        nodes[0].call(&["FLUSHALL"]).unwrap();
        for n in 0..10 {
            nodes[0].call(&["SET", &format!("{{bar}}{n}"), "x"]).unwrap();
        }
        nodes[0].call(&["CONFIG", "SET", "rdb-key-save-delay", "100000"]).unwrap();
        let id = pull(&mut nodes[1], SLOT, SLOT);
        wait_for_task(&mut nodes[1], &id, "accumulate-buffer");
        // Those that have gone are sent again.
        let value = "v".repeat(100_000);
        while task(&mut nodes[1], &id, "state") == "accumulate-buffer" {
            for n in 0..10 {
                let _ = nodes[0].call(&["SET", &format!("{{bar}}{n}"), &value]);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        wait_for_task(&mut nodes[1], &id, "completed");
        let info = nodes[1].text(&["INFO", "memory"]);
        let peak = info.lines().find_map(|l| l.strip_prefix("mem_cluster_slot_migration_input_buffer_peak:"));
        let peak: usize = peak.expect("the field").trim().parse().expect("bytes");
        assert!(
            (if limit == "0" { 1_000_000 } else { 60_000 }..most).contains(&peak) || limit != "0",
            "{limit}: {peak}"
        );
        assert_eq!(nodes[1].text(&["STRLEN", "{bar}3"]), "int(100000)");
        nodes[0].call(&["CONFIG", "SET", "rdb-key-save-delay", "0"]).unwrap();
        wait("the other one knows", 10, || task(&mut nodes[0], &id, "state") == "completed");
        let id = pull(&mut nodes[0], SLOT, SLOT);
        wait_for_task(&mut nodes[0], &id, "completed");
        wait("the other one knows", 10, || task(&mut nodes[1], &id, "state") == "completed");
    }
}

/// HMAC-SHA-256, in hexadecimal digits, with a key of no more than a block.
fn code(secret: &str, parts: &[&str]) -> String {
    let mut key = [0u8; 64];
    key[..secret.len()].copy_from_slice(secret.as_bytes());
    let inner = Sha256::new_with_prefix(key.map(|byte| byte ^ 0x36)).chain_update(parts.concat()).finalize();
    let outer = Sha256::new_with_prefix(key.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize();
    outer.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A connection of somebody who says that he is a node of the cluster.
struct Stranger(BufReader<TcpStream>);

impl Stranger {
    fn at(node: &Node) -> Stranger {
        Stranger(BufReader::new(TcpStream::connect(("127.0.0.1", node.server.port)).unwrap()))
    }

    fn say(&mut self, words: &[&str]) -> String {
        self.0.get_mut().write_all(&redis::cmd(words[0]).arg(&words[1..]).get_packed_command()).unwrap();
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        line.trim_end().to_string()
    }

    fn log_in(&mut self, said: &str) -> String {
        self.say(&["AUTH", "internal connection", said])
    }

    fn challenge(&mut self) -> String {
        let said = self.log_in("challenge");
        said.strip_prefix("+CHALLENGE ").unwrap_or_else(|| panic!("{said}")).to_string()
    }
}

const SECRET: &str = "what-only-nodes-of-this-cluster-know";
const OTHER_SECRET: &str = "what-nodes-of-another-cluster-know";

fn nodes_with_secret() -> Vec<Node> {
    let mut nodes: Vec<Node> = (0..3)
        .map(|_| {
            Node::with_options(Path::new(SERVER), &["--cluster-secret", SECRET, "--repl-diskless-sync-delay", "0"])
        })
        .collect();
    join(&mut nodes, false);
    nodes
}

/// Nobody has configured `masterauth`: nodes log in by `cluster-secret`, whichever of them connects.
#[test]
fn nodes_of_one_secret_let_each_other_in_to_move_slots() {
    let mut nodes = nodes_with_secret();
    fill(&mut nodes[0]);
    for locked in [&["CONFIG", "SET", "requirepass", "only-people-know"][..], &["ACL", "SETUSER", "default", "off"]] {
        for node in &mut nodes {
            assert_eq!(node.text(locked), "OK");
        }
        assert!(Stranger::at(&nodes[0]).say(&["PING"]).starts_with("-NOAUTH"));
        let id = pull(&mut nodes[1], "5000", "5099");
        wait_for_task(&mut nodes[1], &id, "completed");
        assert_eq!(task(&mut nodes[1], &id, "retries"), "0");
        check_filled(&mut nodes[1]);
        wait("the other one knows", 10, || task(&mut nodes[0], &id, "state") == "completed");
        let name = begin(&mut nodes, 1, 0, &["5000", "5099"]);
        wait_for_state(&mut nodes[1], &name, "success");
        check_filled(&mut nodes[0]);
        wait("what was left behind is gone", 10, || keys_in(&mut nodes[1]) == "int(0)");
    }
    // One that shows another secret is refused, whichever way it asks, until it shows the right one.
    let both = format!("{OTHER_SECRET} {SECRET}");
    assert_eq!(nodes[1].text(&["CONFIG", "SET", "cluster-secret", &both]), "OK");
    let id = pull(&mut nodes[1], "5000", "5099");
    wait("it is refused", 5, || task(&mut nodes[1], &id, "last_error").contains("AUTH: -WRONGPASS"));
    let target = nodes[0].id();
    assert_eq!(
        nodes[1].text(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "6000", "6000", "NODE", &target]),
        "OK",
        "a slot of the second of three nodes"
    );
    let jobs = |node: &mut Node| format!("{:?}", node.call(&["CLUSTER", "GETSLOTMIGRATIONS"]).unwrap());
    wait("so is this", 5, || jobs(&mut nodes[1]).contains("Failed to AUTH to target node: -WRONGPASS"));
    assert_eq!(nodes[1].text(&["CONFIG", "SET", "cluster-secret", SECRET]), "OK");
    wait_for_task(&mut nodes[1], &id, "completed");
    check_filled(&mut nodes[1]);
}

/// A code counts once, on the connection whose challenge it answers, and lets in for nothing but moves of slots.
#[test]
fn a_code_of_the_secret_is_no_use_elsewhere_or_again() {
    let mut nodes = nodes_with_secret();
    let ids: Vec<String> = nodes.iter_mut().map(Node::id).collect();
    for node in &mut nodes {
        assert_eq!(node.text(&["CONFIG", "SET", "requirepass", "only-people-know"]), "OK");
    }
    let answer = |secret: &str, id: &str, challenge: &str| code(secret, &["hexad connection ", id, challenge]);
    let mut first = Stranger::at(&nodes[0]);
    let challenge = first.challenge();
    let right = answer(SECRET, &ids[0], &challenge);
    for wrong in [
        answer(OTHER_SECRET, &ids[0], &challenge),
        answer(SECRET, &ids[1], &challenge),
        answer(SECRET, &ids[0], ""),
        challenge.clone(),
    ] {
        assert!(first.log_in(&wrong).starts_with("-WRONGPASS"));
    }
    assert_eq!(first.log_in(&right), "+OK");
    assert!(first.say(&["CLUSTER", "SYNCSLOTS", "CONF", "NODE-ID", &ids[1]]).starts_with("+OK"));
    assert!(first.say(&["GET", "bar"]).starts_with("-NOAUTH"));
    // Who has heard all that says it again, here and at another node.
    for node in &nodes {
        let mut replayed = Stranger::at(node);
        assert!(replayed.log_in(&right).starts_with("-WRONGPASS"));
        assert_ne!(replayed.challenge(), challenge);
        assert!(replayed.log_in(&right).starts_with("-WRONGPASS"));
        assert!(replayed.say(&["CLUSTER", "SYNCSLOTS", "CONF", "NODE-ID", &ids[1]]).starts_with("-NOAUTH"));
    }
    // Where there is no secret there is nothing to answer.
    let plain = Node::ours();
    assert!(Stranger::at(&plain).log_in("challenge").starts_with("-WRONGPASS"));
}
