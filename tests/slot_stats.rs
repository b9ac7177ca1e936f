//! CLUSTER SLOT-STATS: what counts for which slot.

use crate::common;

use common::SERVER;
use common::cluster::{Node, join, wait};
use redis::Value;
use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;

/// Of `{bar}`.
const SLOT: i64 = 5061;

fn node(options: &[&str]) -> Node {
    let mut node = Node::with_options(Path::new(SERVER), options);
    assert_eq!(node.text(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]), "OK");
    wait("it serves", 10, || node.info("cluster_state") == "ok");
    node
}

/// What is shown of slots, those of which all is 0 left out.
fn stats(node: &mut Node, words: &[&str]) -> Vec<(i64, BTreeMap<String, i64>)> {
    let reply: Vec<(i64, Vec<Value>)> =
        redis::cmd("CLUSTER").arg("SLOT-STATS").arg(words).query(&mut node.conn).expect("figures");
    let of_slot = |(slot, fields): (i64, Vec<Value>)| {
        let pairs = fields.chunks(2).map(|pair| {
            let name: String = redis::from_redis_value(&pair[0]).expect("a name");
            (name, redis::from_redis_value(&pair[1]).expect("a number"))
        });
        (slot, pairs.collect::<BTreeMap<String, i64>>())
    };
    reply.into_iter().map(of_slot).collect()
}

fn seen(node: &mut Node) -> Vec<(i64, BTreeMap<String, i64>)> {
    let all = stats(node, &["SLOTSRANGE", "0", "16383"]);
    all.into_iter().filter(|(_, figures)| figures.values().any(|figure| *figure != 0)).collect()
}

/// Bytes in and out of the slot, which is the only one of which there is something.
fn bytes(node: &mut Node) -> (i64, i64) {
    let seen = seen(node);
    assert_eq!(seen.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [SLOT], "{seen:?}");
    (seen[0].1["network-bytes-in"], seen[0].1["network-bytes-out"])
}

fn begin_anew(node: &mut Node) {
    assert_eq!(node.text(&["FLUSHALL"]), "OK");
    assert_eq!(node.text(&["CONFIG", "RESETSTAT"]), "OK");
    assert_eq!(seen(node), []);
}

#[test]
fn commands_count_for_the_slot_of_their_keys() {
    let mut node = node(&["--cluster-slot-stats-enabled", "cpu", "net"]);
    node.call(&["SET", "{bar}k", "value"]).unwrap();
    // *3 $3 SET $6 {bar}k $5 value, and +OK.
    assert_eq!(bytes(&mut node), (36, 5));
    let of_set = seen(&mut node)[0].1["cpu-usec"];
    let stat = node.text(&["INFO", "commandstats"]);
    assert!(stat.contains(&format!("cmdstat_set:calls=1,usec={of_set},")), "{of_set}: {stat}");
    // Without keys, or of keys of several slots as a script may use them: of no slot.
    begin_anew(&mut node);
    node.call(&["INFO"]).unwrap();
    let script = "#!lua flags=allow-cross-slot-keys\nredis.call('SET', KEYS[1], 'x') redis.call('GET', 'foo')";
    node.call(&["EVAL", script, "1", "{bar}k"]).unwrap();
    let seen_now = seen(&mut node);
    assert_eq!((seen_now.len(), seen_now[0].1["key-count"], seen_now[0].1["network-bytes-in"]), (1, 1, 0));
    // A script is one command, whatever it calls.
    begin_anew(&mut node);
    node.call(&["EVAL", "redis.call('SET', KEYS[1], 'x') return 1", "1", "{bar}k"]).unwrap();
    let mut request = redis::cmd("EVAL");
    request.arg("redis.call('SET', KEYS[1], 'x') return 1").arg("1").arg("{bar}k");
    assert_eq!(bytes(&mut node), (request.get_packed_command().len() as i64, 4));
    // A transaction with its MULTI; what it queues counts when it is queued.
    begin_anew(&mut node);
    redis::pipe().atomic().cmd("SET").arg("{bar}k").arg("value").query::<()>(&mut node.conn).unwrap();
    assert_eq!(bytes(&mut node), (15 + 36 + 14, 4 + 5));
    // What is typed counts as it was typed.
    begin_anew(&mut node);
    let mut typed = TcpStream::connect(("127.0.0.1", node.server.port)).unwrap();
    typed.write_all(b"SET {bar}k value\r\n").unwrap();
    wait("it has run", 10, || !seen(&mut node).is_empty());
    assert_eq!(bytes(&mut node), (18, 5));
    // A slot that leaves and comes back begins anew; and only slots of this node are shown.
    node.call(&["CLUSTER", "DELSLOTS", "5061"]).unwrap();
    assert_eq!(stats(&mut node, &["SLOTSRANGE", "5060", "5062"]).len(), 2);
    node.call(&["CLUSTER", "ADDSLOTS", "5061"]).unwrap();
    let figures = &stats(&mut node, &["SLOTSRANGE", "5061", "5061"])[0].1;
    assert_eq!((figures["key-count"], figures["network-bytes-in"]), (1, 0));
}

#[test]
fn who_waits_counts_when_it_is_answered() {
    let mut node = node(&["--cluster-slot-stats-enabled", "yes"]);
    let mut waiting = node.server.connect();
    let waiter = std::thread::spawn(move || {
        let first: Value = redis::cmd("BLPOP").arg(&["{bar}l", "0"]).query(&mut waiting).unwrap();
        let second: Value = redis::cmd("BLPOP").arg(&["{bar}l", "0.1"]).query(&mut waiting).unwrap();
        (first, second)
    });
    wait("it waits", 10, || node.text(&["INFO", "clients"]).contains("blocked_clients:1"));
    assert_eq!(seen(&mut node), []);
    node.call(&["RPUSH", "{bar}l", "value"]).unwrap();
    let (_, second) = waiter.join().unwrap();
    assert_eq!(second, Value::Nil);
    // 34 bytes and 27, 38 and 4, 36 and 5.
    wait("all was counted", 10, || bytes(&mut node) == (34 + 38 + 36, 27 + 4 + 5));
}

#[test]
fn what_goes_to_replicas_and_subscribers_counts_and_replicas_count_what_comes() {
    let options = ["--cluster-slot-stats-enabled", "yes", "--repl-diskless-sync-delay", "0"];
    let mut nodes: Vec<Node> = (0..2).map(|_| Node::with_options(Path::new(SERVER), &options)).collect();
    join(&mut nodes, true);
    wait("the replica is there", 20, || nodes[1].text(&["INFO", "replication"]).contains("master_link_status:up"));
    assert_eq!(nodes[0].text(&["CONFIG", "RESETSTAT"]), "OK");
    nodes[0].call(&["SET", "{bar}k", "value"]).unwrap();
    assert_eq!(bytes(&mut nodes[0]), (36, 5 + 36));
    wait("the replica has it", 10, || !seen(&mut nodes[1]).is_empty());
    assert_eq!(bytes(&mut nodes[1]), (36, 0));
    let mut subscriber = nodes[0].server.connect();
    redis::cmd("SSUBSCRIBE").arg("{bar}c").query::<Value>(&mut subscriber).unwrap();
    begin_anew(&mut nodes[0]);
    assert_eq!(nodes[0].text(&["SPUBLISH", "{bar}c", "hello"]), "int(1)");
    // The reply, and *3 $8 smessage $6 {bar}c $5 hello.
    assert_eq!(bytes(&mut nodes[0]), (41, 4 + 41));
}

#[test]
fn slots_are_shown_in_order_and_only_what_is_counted_of_them() {
    let mut node = node(&[]);
    for (tag, keys) in [("bar", 3), ("foo", 2), ("x", 1)] {
        for n in 0..keys {
            node.call(&["SET", &format!("{{{tag}}}{n}"), &"v".repeat(100 * keys)]).unwrap();
        }
    }
    let first = stats(&mut node, &["ORDERBY", "KEY-COUNT", "LIMIT", "3"]);
    let counts: Vec<i64> = first.iter().map(|(_, figures)| figures["key-count"]).collect();
    assert_eq!((counts, first[0].0, first[0].1.len()), (vec![3, 2, 1], SLOT, 1));
    let last = stats(&mut node, &["ORDERBY", "key-count", "ASC", "LIMIT", "2"]);
    assert_eq!(last.iter().map(|(slot, _)| *slot).collect::<Vec<_>>(), [0, 1]);
    for words in [
        &["ORDERBY", "cpu-usec"][..],
        &["ORDERBY", "memory-bytes"],
        &["ORDERBY", "key-count", "LIMIT", "0"],
        &["ORDERBY", "key-count", "ASC", "DESC"],
        &["ORDERBY", "key-count", "down"],
        &["SLOTSRANGE", "5", "4"],
        &["SLOTSRANGE", "0", "16384"],
    ] {
        assert!(node.call(&[&["CLUSTER", "SLOT-STATS"], words].concat()).is_err(), "{words:?}");
    }
    node.call(&["CONFIG", "SET", "cluster-slot-stats-enabled", "mem"]).unwrap();
    let shown: Vec<String> =
        redis::cmd("CONFIG").arg(&["GET", "cluster-slot-stats-enabled"]).query(&mut node.conn).unwrap();
    assert_eq!(shown[1], "mem");
    let first = stats(&mut node, &["ORDERBY", "memory-bytes", "LIMIT", "4"]);
    let usage: i64 = redis::cmd("MEMORY").arg(&["USAGE", "{bar}0"]).query(&mut node.conn).unwrap();
    let bytes: Vec<i64> = first.iter().map(|(_, figures)| figures["memory-bytes"]).collect();
    assert_eq!((bytes[0], bytes[3]), (3 * usage, 0));
    assert!(bytes.is_sorted_by(|a, b| a >= b) && first.iter().all(|(_, figures)| figures.len() == 2));
}

/// Of many keys the sum takes some time: others are served meanwhile.
#[test]
fn memory_of_many_keys_is_added_up_between_other_work() {
    let mut node = node(&["--cluster-slot-stats-enabled", "mem", "--enable-debug-command", "yes"]);
    assert_eq!(node.text(&["DEBUG", "POPULATE", "200000", "{bar}", "100"]), "OK");
    node.call(&["SET", "foo", "x"]).unwrap();
    let usage = |node: &mut Node, key: &str| -> i64 {
        redis::cmd("MEMORY").arg(&["USAGE", key]).query(&mut node.conn).unwrap()
    };
    let shown = seen(&mut node);
    let (of_bar, of_foo) = (usage(&mut node, "{bar}:100000"), usage(&mut node, "foo"));
    assert_eq!(
        (shown.len(), shown[0].0, shown[0].1["key-count"], shown[1].1["memory-bytes"]),
        (2, SLOT, 200_000, of_foo)
    );
    // Names of fewer digits may take less.
    let sum = shown[0].1["memory-bytes"];
    assert!((200_000 * (of_bar - 16)..=200_000 * of_bar).contains(&sum), "{sum} {of_bar}");
    // Who cannot wait is told so.
    let words = ["CLUSTER", "SLOT-STATS", "SLOTSRANGE", "0", "16383"];
    let mut pipe = redis::pipe();
    let refused = pipe.atomic().cmd(words[0]).arg(&words[1..]).query::<Value>(&mut node.conn);
    assert!(format!("{refused:?}").contains("TRYAGAIN") || format!("{refused:?}").contains("TryAgain"), "{refused:?}");
}
