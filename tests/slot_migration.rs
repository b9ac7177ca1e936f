//! Slots that move as a whole, between real nodes: under load, with large values, with replicas on both sides, and with
//! either side failing at any moment.

use crate::common;

use common::cluster::{Node, join, wait};
use common::{CLI, SERVER};
use redis::{Connection, Value};
use std::collections::HashMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The slot of `bar`, which the first node owns.
pub(crate) const SLOT: &str = "5061";

/// Masters with no replicas, or one each.
pub(crate) fn nodes(masters: usize, replicas: bool) -> Vec<Node> {
    let count = if replicas { masters * 2 } else { masters };
    let mut nodes: Vec<Node> = (0..count)
        .map(|_| {
            Node::with_options(
                Path::new(SERVER),
                &["--cluster-allow-replica-migration", "no", "--repl-diskless-sync-delay", "0"],
            )
        })
        .collect();
    join(&mut nodes, replicas);
    nodes
}

/// Has a node begin to move the slot; the name of the job.
pub(crate) fn begin(nodes: &mut [Node], from: usize, to: usize, slots: &[&str]) -> String {
    let id = nodes[to].id();
    let mut words = vec!["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE"];
    words.extend(slots);
    words.extend(["NODE", &id]);
    assert_eq!(nodes[from].text(&words), "OK");
    jobs(&mut nodes[from])[0]["name"].clone()
}

fn jobs(node: &mut Node) -> Vec<HashMap<String, String>> {
    let jobs: Vec<HashMap<String, Value>> =
        redis::cmd("CLUSTER").arg("GETSLOTMIGRATIONS").query(&mut node.conn).unwrap();
    jobs.into_iter().map(|job| job.into_iter().map(|(name, value)| (name, shown(&value))).collect()).collect()
}

/// A field of a job or task.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::BulkString(b) => String::from_utf8(b.clone()).unwrap(),
        Value::Int(n) => n.to_string(),
        other => format!("{other:?}"),
    }
}

fn job(node: &mut Node, name: &str) -> HashMap<String, String> {
    jobs(node).into_iter().find(|job| job["name"] == name).unwrap_or_default()
}

fn state(node: &mut Node, name: &str) -> String {
    job(node, name).remove("state").unwrap_or_default()
}

fn message(node: &mut Node, name: &str) -> String {
    job(node, name).remove("message").unwrap_or_default()
}

pub(crate) fn wait_for_state(node: &mut Node, name: &str, wanted: &str) {
    let start = Instant::now();
    while state(node, name) != wanted {
        assert!(start.elapsed() < Duration::from_secs(20), "not {wanted}: {:?}", job(node, name));
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn prevent(nodes: &mut [Node], what: &str, on: &str) {
    for node in nodes {
        assert_eq!(node.text(&["DEBUG", "SLOTMIGRATION", what, on]), "OK");
    }
}

pub(crate) fn keys_in(node: &mut Node) -> String {
    node.text(&["CLUSTER", "COUNTKEYSINSLOT", SLOT])
}

/// A client that writes to keys with the tag `bar` wherever they are served, and notes what it was told.
pub(crate) struct Writer {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Written>,
}

#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The last number acknowledged for each key.
    acknowledged: HashMap<String, u64>,
    count: u64,
    /// Redirections and refusals that no client should see while a slot moves as a whole.
    unwanted: Vec<String>,
    longest: Duration,
}

impl Writer {
    /// `mset`: two keys at once, which must always be together.
    pub(crate) fn start(ports: Vec<u16>, number: usize) -> Writer {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let mut written = Written::default();
            let (mut at, mut next) = (0, 0u64);
            let mut conn: Option<Connection> = None;
            while !stopped.load(Ordering::Relaxed) {
                let Some(c) = &mut conn else {
                    let client = redis::Client::open(format!("redis://127.0.0.1:{}/", ports[at])).unwrap();
                    conn = client.get_connection_with_timeout(Duration::from_millis(500)).ok();
                    if let Some(c) = &conn {
                        c.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                    } else {
                        at = (at + 1) % ports.len();
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    continue;
                };
                next += 1;
                let (a, b) = (format!("{{bar}}w{number}:{}", next % 50), format!("{{bar}}x{number}:{}", next % 50));
                let start = Instant::now();
                let reply = redis::cmd("MSET").arg(&a).arg(next).arg(&b).arg(next).query::<Value>(c);
                match reply {
                    Ok(_) => {
                        written.count += 1;
                        written.longest = written.longest.max(start.elapsed());
                        written.acknowledged.insert(a, next);
                        written.acknowledged.insert(b, next);
                    }
                    Err(e) if e.code() == Some("MOVED") => {
                        let port = e.detail().and_then(|d| d.rsplit(':').next()?.parse().ok()).unwrap();
                        at = ports.iter().position(|p| *p == port).unwrap();
                        conn = None;
                    }
                    Err(e) if ["ASK", "TRYAGAIN", "CROSSSLOT"].contains(&e.code().unwrap_or_default()) => {
                        written.unwanted.push(e.to_string());
                    }
                    Err(_) => {
                        conn = None;
                        at = (at + 1) % ports.len();
                    }
                }
            }
            written
        });
        Writer { stop, thread }
    }

    pub(crate) fn finish(self) -> Written {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Everything that was acknowledged is there, or something newer.
pub(crate) fn check_written(node: &mut Node, written: &Written) {
    assert_eq!(written.unwanted, Vec::<String>::new());
    for (key, last) in &written.acknowledged {
        let there: u64 = node.text(&["GET", key]).parse().unwrap_or_else(|_| panic!("{key} is not there"));
        assert!(there >= *last, "{key}: {there} instead of {last}");
    }
}

/// The one node that says that it owns the slot, by its own account.
fn owners(nodes: &mut [Node], among: &[usize]) -> Vec<usize> {
    among.iter().copied().filter(|i| nodes[*i].text(&["GET", "bar"]) == "nil").collect()
}

#[test]
fn a_slot_moves_under_load_and_nobody_notices_but_for_one_redirection() {
    let mut nodes = nodes(3, true);
    let ports: Vec<u16> = nodes.iter().map(|n| n.server.port).collect();
    for n in 0..2000 {
        assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), &n.to_string()]), "OK");
    }
    let writers: Vec<Writer> = (0..3).map(|n| Writer::start(vec![ports[0], ports[1]], n)).collect();
    std::thread::sleep(Duration::from_millis(300));
    let mut names = Vec::new();
    for (from, to) in [(0, 1), (1, 0), (0, 1)] {
        let name = begin(&mut nodes, from, to, &[SLOT, SLOT]);
        wait_for_state(&mut nodes[from], &name, "success");
        wait_for_state(&mut nodes[to], &name, "success");
        names.push(name);
        std::thread::sleep(Duration::from_millis(200));
    }
    for writer in writers {
        let written = writer.finish();
        assert!(written.count > 200, "{}", written.count);
        assert!(written.longest < Duration::from_millis(1500), "held up for {:?}", written.longest);
        check_written(&mut nodes[1], &written);
    }
    assert_eq!(nodes[1].text(&["GET", "{bar}77"]), "77");
    assert_eq!(nodes[0].text(&["GET", "bar"]), format!("MOVED {SLOT} 127.0.0.1:{}", ports[1]));
    assert_eq!((keys_in(&mut nodes[0]).as_str(), nodes[0].text(&["DBSIZE"]).as_str()), ("int(0)", "int(0)"));
    // Every node knows, and replicas have what their masters have, by the same stream as before.
    for node in &mut nodes[2..] {
        wait("it knows the owner", 5, || node.text(&["GET", "bar"]).ends_with(&format!(":{}", ports[1])));
    }
    let digests =
        |nodes: &mut [Node], i: usize| (nodes[i].text(&["DEBUG", "DIGEST"]), nodes[i + 3].text(&["DEBUG", "DIGEST"]));
    for i in 0..2 {
        wait("its replica has the same", 5, || {
            let (a, b) = digests(&mut nodes, i);
            a == b
        });
        assert!(nodes[i].text(&["INFO", "stats"]).contains("sync_full:1\r\n"));
    }
    wait("the replica shows the keys", 5, || nodes[4].text(&["DBSIZE"]) == nodes[1].text(&["DBSIZE"]));
    assert_eq!(state(&mut nodes[4], &names[2]), "success");
    assert_eq!(jobs(&mut nodes[3]).iter().filter(|job| job["operation"] == "IMPORT").count(), 1);
}

#[test]
fn keys_that_have_come_are_hidden_until_the_slot_is_there_and_go_if_it_does_not_come() {
    let mut nodes = nodes(2, true);
    prevent(&mut nodes[..2], "PREVENT-PAUSE", "1");
    for n in 0..300 {
        assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), "x", "EX", "1000"]), "OK");
    }
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "waiting-to-pause");
    assert_eq!(nodes[0].text(&["SET", "{bar}later", "y"]), "OK");
    for i in [1, 3] {
        wait("all keys have come", 10, || keys_in(&mut nodes[i]) == "int(301)");
        for words in [&["DBSIZE"][..], &["KEYS", "*"], &["RANDOMKEY"], &["SCAN", "0", "COUNT", "1000"]] {
            let shown = nodes[i].text(words);
            assert!(
                ["int(0)", "array([])", "nil", "array([bulk-string('\"0\"'), array([])])"].contains(&&*shown),
                "{shown}"
            );
        }
        assert!(!nodes[i].text(&["INFO", "keyspace"]).contains("keys="));
        assert!(nodes[i].text(&["GET", "{bar}1"]).starts_with("MOVED"));
    }
    assert_eq!(job(&mut nodes[1], &name)["operation"], "IMPORT");
    assert_eq!(state(&mut nodes[3], &name), "occurring-on-primary");
    assert!(
        nodes[1].text(&["CLIENT", "LIST"]).contains("flags=i ")
            && nodes[0].text(&["CLIENT", "LIST"]).contains("flags=E ")
    );
    let target = nodes[1].id();
    assert!(nodes[0].text(&["CLUSTER", "SETSLOT", "1", "MIGRATING", &target]).contains("Slot export in progress"));
    // A replica that comes anew hides them, too.
    nodes[3].server.kill();
    nodes[3].server.restart();
    nodes[3].conn = nodes[3].server.connect();
    wait("the keys are there again", 20, || keys_in(&mut nodes[3]) == "int(301)");
    assert_eq!(
        (nodes[3].text(&["DBSIZE"]), state(&mut nodes[3], &name)),
        ("int(0)".into(), "occurring-on-primary".into())
    );

    assert_eq!(nodes[0].text(&["CLUSTER", "CANCELSLOTMIGRATIONS"]), "OK");
    assert_eq!(state(&mut nodes[0], &name), "cancelled");
    for i in [1, 3] {
        wait_for_state(&mut nodes[i], &name, "failed");
        wait("they are gone", 5, || keys_in(&mut nodes[i]) == "int(0)");
    }
    assert_eq!(nodes[0].text(&["DBSIZE"]), "int(301)");
    assert!(nodes[0].text(&["CLUSTER", "CANCELSLOTMIGRATIONS"]).contains("No migrations ongoing"));
    // And the next time it goes through.
    prevent(&mut nodes[..2], "PREVENT-PAUSE", "0");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "success");
    assert_eq!((nodes[1].text(&["DBSIZE"]), nodes[0].text(&["DBSIZE"])), ("int(301)".into(), "int(0)".into()));
    wait("the replica shows them", 5, || nodes[3].text(&["DBSIZE"]) == "int(301)");
    assert!(nodes[3].text(&["INFO", "keyspace"]).contains("keys=301,expires=300,"));
}

#[test]
fn whichever_side_is_killed_the_slot_has_one_owner_and_all_acknowledged_writes() {
    for (state_at_kill, victim) in [
        ("snapshotting", 0),
        ("snapshotting", 1),
        ("waiting-to-pause", 0),
        ("waiting-to-pause", 1),
        ("failover-granted", 1),
    ] {
        let mut nodes: Vec<Node> = (0..3)
            .map(|_| Node::with_options(Path::new(SERVER), &["--appendonly", "yes", "--appendfsync", "always"]))
            .collect();
        join(&mut nodes, false);
        for n in 0..200 {
            assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), &n.to_string()]), "OK");
        }
        let what = if state_at_kill == "failover-granted" { "PREVENT-FAILOVER" } else { "PREVENT-PAUSE" };
        prevent(&mut nodes, what, "1");
        if state_at_kill == "snapshotting" {
            assert_eq!(nodes[0].text(&["CONFIG", "SET", "rdb-key-save-delay", "5000"]), "OK");
        }
        let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
        wait_for_state(&mut nodes[0], &name, state_at_kill);
        nodes[victim].server.kill();
        nodes[victim].server.restart();
        nodes[victim].conn = nodes[victim].server.connect();
        if victim == 1 {
            let ended =
                if state_at_kill == "failover-granted" { "Unpaused before" } else { "Connection lost to target" };
            wait("the source knows", 20, || message(&mut nodes[0], &name).starts_with(ended));
        } else {
            wait_for_state(&mut nodes[1], &name, "failed");
        }
        wait("the source serves", 20, || nodes[0].text(&["SET", "{bar}new", "1"]) == "OK");
        assert_eq!(owners(&mut nodes, &[0, 1]), [0], "{state_at_kill} {victim}");
        assert_eq!(nodes[0].text(&["DBSIZE"]), "int(201)");
        wait("nothing is left on the target", 10, || keys_in(&mut nodes[1]) == "int(0)");
        assert!(!nodes[1].text(&["CLUSTER", "NODES"]).contains("[5061-<-"), "an operator has nothing to do");
        prevent(&mut nodes, what, "0");
        let _ = nodes[0].text(&["CONFIG", "SET", "rdb-key-save-delay", "0"]);
        let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
        wait_for_state(&mut nodes[0], &name, "success");
        assert_eq!(nodes[1].text(&["DBSIZE"]), "int(201)");
    }
}

#[test]
fn a_failover_of_either_shard_ends_the_job_and_loses_nothing() {
    for failing in [0, 1] {
        let mut nodes = nodes(2, true);
        prevent(&mut nodes, "PREVENT-PAUSE", "1");
        for n in 0..200 {
            assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), "x"]), "OK");
        }
        let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
        wait_for_state(&mut nodes[0], &name, "waiting-to-pause");
        wait("the target's replica has the keys", 10, || keys_in(&mut nodes[3]) == "int(200)");
        wait("the source's replica has them", 10, || keys_in(&mut nodes[2]) == "int(200)");
        assert_eq!(nodes[failing + 2].text(&["CLUSTER", "FAILOVER"]), "OK");
        wait("the replica took over", 10, || nodes[failing + 2].text(&["ROLE"]).contains("master"));
        for i in [0, 1] {
            wait_for_state(&mut nodes[i], &name, "failed");
        }
        for i in [1, 3] {
            wait("the target's shard has none", 10, || keys_in(&mut nodes[i]) == "int(0)");
        }
        for i in [0, 2] {
            assert_eq!(keys_in(&mut nodes[i]), "int(200)");
        }
    }
}

#[test]
fn who_waits_or_listens_in_the_slot_is_sent_on_when_it_has_moved() {
    let mut nodes = nodes(2, false);
    let port = nodes[1].server.port;
    let blocked = std::thread::spawn({
        let mut conn = nodes[0].server.connect();
        move || redis::cmd("BLPOP").arg("{bar}list").arg(20).query::<Value>(&mut conn).unwrap_err()
    });
    let mut listening = nodes[0].server.connect();
    redis::cmd("SSUBSCRIBE").arg("{bar}channel").exec(&mut listening).unwrap();
    wait("one waits", 5, || nodes[0].text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    prevent(&mut nodes, "PREVENT-FAILOVER", "1");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "failover-granted");
    // Writes to the slot wait, reads and other slots do not.
    assert_eq!(nodes[0].text(&["GET", "{bar}k"]), "nil");
    assert_eq!(nodes[0].text(&["SET", "{06S}k", "v"]), "OK");
    let writes: [&[&str]; 3] = [&["SET", "{bar}k", "v"], &["EVAL", "return 1", "1", "{bar}k"], &["PFCOUNT", "{bar}h"]];
    let held: Vec<_> = writes
        .iter()
        .map(|words| {
            let (words, mut conn) =
                (words.iter().map(|w| w.to_string()).collect::<Vec<_>>(), nodes[0].server.connect());
            std::thread::spawn(move || {
                let mut cmd = redis::cmd(&words[0]);
                cmd.arg(&words[1..]).query::<Value>(&mut conn).unwrap_err()
            })
        })
        .collect();
    let info = nodes[0].text(&["INFO", "clients"]);
    assert!(info.contains("paused_reason:slot_migration_in_progress\r\npaused_actions:write\r\n"), "{info}");
    std::thread::sleep(Duration::from_millis(100));
    assert!(held.iter().all(|thread| !thread.is_finished()));
    prevent(&mut nodes, "PREVENT-FAILOVER", "0");
    let start = Instant::now();
    for thread in held.into_iter().chain([blocked]) {
        let error = thread.join().unwrap();
        assert_eq!((error.code(), error.detail()), (Some("MOVED"), Some(format!("{SLOT} 127.0.0.1:{port}").as_str())));
    }
    assert!(start.elapsed() < Duration::from_millis(800), "{:?}", start.elapsed());
    let push = listening.recv_response().unwrap();
    assert!(format!("{push:?}").contains("sunsubscribe"), "{push:?}");
    assert!(nodes[0].text(&["INFO", "clients"]).contains("paused_reason:none\r\n"));
}

/// Asks a node again and again; the longest time that its main thread worked before it answered. (What else runs on the machine
/// does not count, and this is an unoptimised build.)
fn watch(node: &Node, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<Duration> {
    let (mut conn, path) = (node.server.connect(), format!("/proc/{}/schedstat", node.server.pid()));
    let worked_ns = move || -> u64 {
        let text = std::fs::read_to_string(&path).unwrap();
        text.split(' ').next().unwrap().parse().unwrap()
    };
    std::thread::spawn(move || {
        let mut longest = 0;
        while !stop.load(Ordering::Relaxed) {
            let start = worked_ns();
            redis::cmd("PING").exec(&mut conn).unwrap();
            longest = longest.max(worked_ns() - start);
            std::thread::sleep(Duration::from_micros(200));
        }
        Duration::from_nanos(longest)
    })
}

#[test]
fn large_values_go_in_pieces_and_hold_up_nobody() {
    let mut nodes = nodes(2, false);
    const FIELDS: usize = 300_000;
    // Many fields, a long list, and a long string.
    for from in (0..FIELDS).step_by(20_000) {
        let mut cmd = redis::cmd("HSET");
        cmd.arg("{bar}hash");
        (from..from + 20_000).for_each(|n| {
            cmd.arg(format!("field:{n}")).arg(n);
        });
        cmd.exec(&mut nodes[0].conn).unwrap();
    }
    for _ in 0..10 {
        redis::cmd("RPUSH").arg("{bar}list").arg((0..20_000).collect::<Vec<_>>()).exec(&mut nodes[0].conn).unwrap();
    }
    assert_eq!(nodes[0].text(&["SETRANGE", "{bar}string", "8000000", "x"]), "int(8000001)");
    // None of them as a whole may wait for the target.
    assert_eq!(nodes[0].text(&["CONFIG", "SET", "client-output-buffer-limit", "slave 6mb 0 0"]), "OK");
    let digest = nodes[0].text(&["DEBUG", "DIGEST"]);
    let stop = Arc::new(AtomicBool::new(false));
    let watchers: Vec<_> = nodes.iter().map(|node| watch(node, stop.clone())).collect();
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    // While it is on its way it is written to.
    let mut n = 0;
    while state(&mut nodes[0], &name) != "success" {
        let _ = nodes[0].call(&["HSET", "{bar}hash", "field:7", &n.to_string()]);
        n += 1;
        assert!(n < 60_000, "{:?}", job(&mut nodes[0], &name));
        std::thread::sleep(Duration::from_millis(1));
    }
    stop.store(true, Ordering::Relaxed);
    assert!(nodes[0].text(&["INFO", "stats"]).contains("total_forks:0\r\n"));
    let longest: Vec<Duration> = watchers.into_iter().map(|w| w.join().unwrap()).collect();
    assert!(longest.iter().all(|l| *l < Duration::from_millis(60)), "{longest:?}");
    // Where much else runs beside this, nodes lose sight of each other for a moment.
    wait("all of it is served there", 20, || nodes[1].text(&["HLEN", "{bar}hash"]) == "int(300000)");
    assert!(n > 2 && nodes[1].text(&["HSET", "{bar}hash", "field:7", "7"]) == "int(0)");
    assert_eq!(
        (keys_in(&mut nodes[0]).as_str(), nodes[1].text(&["LLEN", "{bar}list"]).as_str()),
        ("int(0)", "int(200000)")
    );
    // This takes long, as the build is not optimised.
    assert_eq!(nodes[1].text(&["DEBUG", "DIGEST"]), digest);
}

#[test]
fn a_target_that_stands_still_costs_no_more_than_the_output_limit() {
    let mut nodes = nodes(3, false);
    prevent(&mut nodes[..1], "PREVENT-PAUSE", "1");
    let limit = "slave 4mb 0 0";
    assert_eq!(nodes[0].text(&["CONFIG", "SET", "client-output-buffer-limit", limit]), "OK");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "waiting-to-pause");
    let stopped = nix::unistd::Pid::from_raw(nodes[1].server.pid() as i32);
    nix::sys::signal::kill(stopped, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let value = "x".repeat(1 << 20);
    let mut waiting = 0;
    for n in 0..200 {
        assert_eq!(nodes[0].text(&["SET", "{bar}k", &value]), "OK");
        let job = job(&mut nodes[0], &name);
        waiting = waiting.max(job["remaining_repl_size"].parse::<usize>().unwrap());
        if job["state"] == "failed" {
            break;
        }
        assert!(n < 199, "{job:?}");
    }
    nix::sys::signal::kill(stopped, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert!(waiting < 8 << 20, "{waiting} bytes waited");
    assert!(message(&mut nodes[0], &name).starts_with("Connection lost to target"));
    wait_for_state(&mut nodes[1], &name, "failed");
    assert_eq!(keys_in(&mut nodes[1]), "int(0)");
}

#[test]
fn a_slot_is_flushed_here_and_on_replicas_and_no_other_one() {
    let mut nodes = nodes(3, true);
    for n in 0..30 {
        assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), "x"]), "OK");
    }
    assert_eq!(nodes[0].text(&["SET", "{06S}", "x"]), "OK");
    let said = |node: &mut Node, words: &[&str]| node.text(words);
    assert!(said(&mut nodes[0], &["CLUSTER", "FLUSHSLOT", "16384"]).contains("Invalid or out of range slot"));
    assert!(said(&mut nodes[0], &["CLUSTER", "FLUSHSLOT", SLOT, "LATER"]).contains("syntax error"));
    assert!(said(&mut nodes[3], &["CLUSTER", "FLUSHSLOT", SLOT]).contains("READONLY"));
    wait("the replica has them", 10, || keys_in(&mut nodes[3]) == "int(30)");
    // Events are for each key.
    assert_eq!(nodes[0].text(&["CONFIG", "SET", "notify-keyspace-events", "Eg"]), "OK");
    let mut listening = nodes[0].server.connect();
    let mut events = listening.as_pubsub();
    events.subscribe("__keyevent@0__:del").unwrap();
    events.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(nodes[0].text(&["CLUSTER", "FLUSHSLOT", SLOT, "SYNC"]), "OK");
    let mut keys: Vec<String> = (0..30).map(|_| events.get_message().unwrap().get_payload().unwrap()).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 30);
    assert_eq!((keys_in(&mut nodes[0]), nodes[0].text(&["DBSIZE"])), ("int(0)".into(), "int(1)".into()));
    wait("the replica has not", 10, || keys_in(&mut nodes[3]) == "int(0)");
    assert_eq!(nodes[3].text(&["DBSIZE"]), "int(1)");
    // A transaction on a key of it fails.
    assert_eq!(nodes[0].text(&["SET", "{bar}", "x"]), "OK");
    assert_eq!(nodes[0].text(&["WATCH", "{bar}"]), "OK");
    let mut other = nodes[0].server.connect();
    let () = redis::cmd("CLUSTER").arg("FLUSHSLOT").arg(SLOT).arg("ASYNC").query(&mut other).unwrap();
    assert_eq!(nodes[0].text(&["MULTI"]), "OK");
    assert_eq!(nodes[0].text(&["EXEC"]), "nil");
}

#[test]
fn a_slot_that_is_flushed_while_it_moves_stays() {
    let mut nodes = nodes(3, false);
    prevent(&mut nodes[..1], "PREVENT-PAUSE", "1");
    for side in [0, 1] {
        assert_eq!(nodes[0].text(&["SET", "{bar}", "x"]), "OK");
        let moving = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
        let other = begin(&mut nodes, 0, 2, &["0", "0"]);
        wait_for_state(&mut nodes[0], &moving, "waiting-to-pause");
        wait_for_state(&mut nodes[0], &other, "waiting-to-pause");
        assert_eq!(nodes[side].text(&["CLUSTER", "FLUSHSLOT", SLOT]), "OK");
        wait_for_state(&mut nodes[0], &moving, "failed");
        wait_for_state(&mut nodes[1], &moving, "failed");
        assert_eq!(message(&mut nodes[side], &moving), "Data was flushed");
        wait("nothing is left there", 10, || keys_in(&mut nodes[1]) == "int(0)");
        assert_eq!(keys_in(&mut nodes[0]), if side == 0 { "int(0)" } else { "int(1)" });
        // The other slot is none of its business.
        assert_eq!(state(&mut nodes[0], &other), "waiting-to-pause");
        assert_eq!(nodes[0].text(&["CLUSTER", "CANCELSLOTMIGRATIONS"]), "OK");
        wait_for_state(&mut nodes[2], &other, "failed");
    }
}

#[test]
fn several_jobs_run_beside_each_other_and_what_ends_one_does_not_end_another() {
    let mut nodes = nodes(3, false);
    // Slots 5061, 0 and 1 of the first node.
    for (tag, count) in [("{bar}", 50), ("{06S}", 60), ("{Qi}", 70)] {
        for n in 0..count {
            assert_eq!(nodes[0].text(&["SET", &format!("{tag}{n}"), "x"]), "OK");
        }
    }
    prevent(&mut nodes[..1], "PREVENT-PAUSE", "1");
    let (second, third) = (nodes[1].id(), nodes[2].id());
    let words =
        ["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", SLOT, SLOT, "NODE", &second, "SLOTSRANGE", "0", "0", "NODE", &third];
    assert_eq!(nodes[0].text(&words), "OK");
    let more = begin(&mut nodes, 0, 2, &["1", "1"]);
    let names: Vec<String> = jobs(&mut nodes[0]).into_iter().map(|mut job| job.remove("name").unwrap()).collect();
    assert_eq!(names[0], more);
    for name in &names {
        wait_for_state(&mut nodes[0], name, "waiting-to-pause");
    }
    assert!(
        nodes[0]
            .text(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", "1", "1", "NODE", &second])
            .contains("already migrating slot 1")
    );
    assert_eq!(nodes[1].text(&["FLUSHALL"]), "OK");
    wait("the second node's job has failed", 10, || {
        let ended = jobs(&mut nodes[0]).iter().filter(|job| job["state"] == "failed").count();
        ended == 1
    });
    assert_eq!(jobs(&mut nodes[1])[0]["message"], "Data was flushed");
    prevent(&mut nodes[..1], "PREVENT-PAUSE", "0");
    wait("the others go through", 10, || {
        jobs(&mut nodes[0]).iter().filter(|job| job["state"] == "success").count() == 2
    });
    assert_eq!((nodes[2].text(&["DBSIZE"]), nodes[0].text(&["DBSIZE"])), ("int(130)".into(), "int(50)".into()));
    // All slots of a node.
    let name = begin(&mut nodes, 0, 1, &["2", "5460"]);
    wait_for_state(&mut nodes[0], &name, "success");
    assert_eq!((nodes[1].text(&["DBSIZE"]), nodes[0].text(&["DBSIZE"])), ("int(50)".into(), "int(0)".into()));
    assert!(nodes[0].text(&["CLUSTER", "NODES"]).contains("myself,master"));
}

#[test]
fn who_may_not_or_cannot_is_told_so_by_the_job() {
    let mut nodes = nodes(2, false);
    assert_eq!(nodes[1].text(&["CONFIG", "SET", "requirepass", "secret"]), "OK");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "failed");
    assert!(message(&mut nodes[0], &name).contains("NOAUTH"), "{}", message(&mut nodes[0], &name));
    assert_eq!(nodes[0].text(&["CONFIG", "SET", "masterauth", "wrong"]), "OK");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "failed");
    assert!(message(&mut nodes[0], &name).starts_with("Failed to AUTH to target node: -WRONGPASS"));
    assert_eq!(nodes[0].text(&["CONFIG", "SET", "masterauth", "secret"]), "OK");
    // No memory for what comes.
    for n in 0..100 {
        assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), &"x".repeat(1000)]), "OK");
    }
    assert_eq!(nodes[1].text(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "failed");
    wait_for_state(&mut nodes[1], &name, "failed");
    assert_eq!(message(&mut nodes[1], &name), "Ran out of memory (OOM) during slot import");
    assert_eq!(
        (nodes[1].text(&["CONFIG", "SET", "maxmemory", "0"]), keys_in(&mut nodes[1])),
        ("OK".into(), "int(0)".into())
    );
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "success");
    assert_eq!(nodes[1].text(&["DBSIZE"]), "int(100)");
}

#[test]
fn with_durable_acknowledgements_on_either_side_slots_do_not_move_as_a_whole() {
    let mut nodes = nodes(2, false);
    assert_eq!(nodes[1].text(&["CONFIG", "SET", "cluster-durable-acks", "1"]), "OK");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "failed");
    assert!(message(&mut nodes[0], &name).contains("cluster-durable-acks"), "{}", message(&mut nodes[0], &name));
    assert_eq!(nodes[1].text(&["CONFIG", "SET", "cluster-durable-acks", "0"]), "OK");
    wait("it is off", 20, || nodes[1].info("cluster_state") == "ok");
    assert_eq!(nodes[0].text(&["CONFIG", "SET", "cluster-durable-acks", "1"]), "OK");
    let id = nodes[1].id();
    let refusal = nodes[0].text(&["CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", SLOT, SLOT, "NODE", &id]);
    assert!(refusal.contains("cluster-durable-acks"), "{refusal}");
}

/// Runs commands one after the other over a connection of its own; what the last of them gave.
fn in_background(node: &Node, commands: &[&[&str]]) -> std::thread::JoinHandle<redis::RedisResult<Value>> {
    let mut conn = node.server.connect();
    let commands: Vec<redis::Cmd> = commands
        .iter()
        .map(|words| {
            let mut cmd = redis::cmd(words[0]);
            cmd.arg(&words[1..]);
            cmd
        })
        .collect();
    std::thread::spawn(move || {
        let mut last = Ok(Value::Nil);
        for cmd in commands {
            last = cmd.query(&mut conn);
        }
        last
    })
}

#[test]
fn what_may_write_anywhere_waits_until_the_outcome_is_known() {
    let mut nodes = nodes(2, false);
    assert_eq!(nodes[0].text(&["SET", "{bar}k", "v"]), "OK");
    prevent(&mut nodes, "PREVENT-FAILOVER", "1");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "failover-granted");
    let script = "#!lua flags=allow-cross-slot-keys\nreturn redis.call('DEL', '{bar}k')";
    let held = [
        in_background(&nodes[0], &[&["EVAL", script, "1", "{06S}k"]]),
        in_background(&nodes[0], &[&["MULTI"], &["GET", "{06S}k"], &["FLUSHALL"], &["EXEC"]]),
        in_background(&nodes[0], &[&["FLUSHALL"]]),
    ];
    wait("they wait", 10, || nodes[0].text(&["INFO", "clients"]).contains("blocked_clients:3\r\n"));
    // A transaction elsewhere does not, nor does a script that only reads.
    let other = in_background(&nodes[0], &[&["MULTI"], &["SET", "{06S}x", "v"], &["EXEC"]]);
    assert_eq!(format!("{:?}", other.join().unwrap()), "Ok(array([ok]))");
    assert_eq!(nodes[0].text(&["EVAL_RO", "return redis.call('GET', KEYS[1])", "1", "{06S}x"]), "v");
    assert!(held.iter().all(|thread| !thread.is_finished()));
    prevent(&mut nodes, "PREVENT-FAILOVER", "0");
    wait_for_state(&mut nodes[0], &name, "success");
    for thread in held {
        let _ = thread.join().unwrap();
    }
    assert_eq!(nodes[1].text(&["GET", "{bar}k"]), "v");
}

#[test]
fn a_replica_takes_over_only_when_it_is_known_who_has_the_slot() {
    let mut nodes = nodes(2, true);
    for n in 0..100 {
        assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), "x"]), "OK");
    }
    prevent(&mut nodes[..2], "PREVENT-FAILOVER", "1");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "failover-granted");
    assert_eq!(nodes[2].text(&["CLUSTER", "FAILOVER"]), "OK");
    std::thread::sleep(Duration::from_millis(700));
    assert!(nodes[0].text(&["ROLE"]).contains("master"));
    prevent(&mut nodes[..2], "PREVENT-FAILOVER", "0");
    wait("it took over", 20, || nodes[2].text(&["ROLE"]).contains("master"));
    assert_eq!(owners(&mut nodes, &[1]), [1]);
    assert_eq!(keys_in(&mut nodes[1]), "int(100)");
    // What the old master had not deleted goes here.
    wait("nothing is left", 10, || keys_in(&mut nodes[2]) == "int(0)" && keys_in(&mut nodes[0]) == "int(0)");
}

#[test]
fn what_the_source_had_not_deleted_goes_after_a_restart_or_a_failover() {
    for failover in [false, true] {
        let mut nodes: Vec<Node> = (0..if failover { 4 } else { 2 })
            .map(|_| {
                let options = ["--appendonly", "yes", "--cluster-allow-replica-migration", "no"];
                Node::with_options(Path::new(SERVER), &options)
            })
            .collect();
        join(&mut nodes, failover);
        for n in 0..100 {
            assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), "x"]), "OK");
        }
        if failover {
            wait("the replica has them", 10, || keys_in(&mut nodes[2]) == "int(100)");
        }
        prevent(&mut nodes[..2], "PREVENT-FAILOVER", "1");
        let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
        wait_for_state(&mut nodes[0], &name, "failover-granted");
        // Nothing is deleted while writes are paused.
        assert_eq!(nodes[0].text(&["CLIENT", "PAUSE", "100000", "WRITE"]), "OK");
        prevent(&mut nodes[..2], "PREVENT-FAILOVER", "0");
        wait_for_state(&mut nodes[0], &name, "success");
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!((keys_in(&mut nodes[0]), nodes[0].text(&["DBSIZE"])), ("int(100)".into(), "int(0)".into()));
        if failover {
            wait("the replica knows", 10, || nodes[2].text(&["GET", "bar"]).starts_with("MOVED"));
            assert_eq!(nodes[2].text(&["CLUSTER", "FAILOVER", "TAKEOVER"]), "OK");
            wait("the replica took over", 20, || nodes[2].text(&["ROLE"]).contains("master"));
        } else {
            nodes[0].server.kill();
            nodes[0].server.restart();
            nodes[0].conn = nodes[0].server.connect();
        }
        let master = if failover { 2 } else { 0 };
        wait("nothing is left", 20, || keys_in(&mut nodes[master]) == "int(0)");
        assert!(!nodes[master].text(&["CLUSTER", "NODES"]).contains("[5061-<-"), "an operator has nothing to do");
        assert_eq!(nodes[1].text(&["DBSIZE"]), "int(100)");
        // And it can come back.
        wait("both serve", 20, || {
            nodes[master].info("cluster_state") == "ok" && nodes[1].info("cluster_state") == "ok"
        });
        let name = begin(&mut nodes, 1, master, &[SLOT, SLOT]);
        wait_for_state(&mut nodes[1], &name, "success");
        assert_eq!(nodes[master].text(&["DBSIZE"]), "int(100)");
    }
}

#[test]
fn a_transaction_that_gives_a_slot_out_anew_waits_until_its_old_keys_are_gone() {
    let mut nodes = nodes(2, false);
    for n in 0..100 {
        assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), "x"]), "OK");
    }
    prevent(&mut nodes, "PREVENT-FAILOVER", "1");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "failover-granted");
    // Nothing is deleted while writes are paused.
    assert_eq!(nodes[0].text(&["CLIENT", "PAUSE", "100000", "WRITE"]), "OK");
    prevent(&mut nodes, "PREVENT-FAILOVER", "0");
    wait_for_state(&mut nodes[0], &name, "success");
    let other = in_background(&nodes[0], &[&["MULTI"], &["CLUSTER", "SETSLOT", "1", "STABLE"], &["EXEC"]]);
    assert_eq!(format!("{:?}", other.join().unwrap()), "Ok(array([ok]))");
    let transaction = in_background(&nodes[0], &[&["MULTI"], &["CLUSTER", "SETSLOT", SLOT, "STABLE"], &["EXEC"]]);
    wait("it waits", 10, || nodes[0].text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    assert_eq!(keys_in(&mut nodes[0]), "int(100)");
    assert_eq!(nodes[0].text(&["CLIENT", "UNPAUSE"]), "OK");
    assert_eq!(format!("{:?}", transaction.join().unwrap()), "Ok(array([ok]))");
    assert_eq!(keys_in(&mut nodes[0]), "int(0)");
}

#[test]
fn keys_that_a_target_has_of_another_time_are_not_mixed_with_those_that_come() {
    let mut nodes = nodes(2, false);
    assert_eq!(nodes[1].text(&["DEBUG", "POPULATE", "10", "{bar}"]), "OK");
    assert_eq!(keys_in(&mut nodes[1]), "int(10)");
    assert_eq!(nodes[0].text(&["RPUSH", "{bar}:0", "a", "b"]), "int(2)");
    let name = begin(&mut nodes, 0, 1, &[SLOT, SLOT]);
    wait_for_state(&mut nodes[0], &name, "success");
    assert_eq!((nodes[1].text(&["LLEN", "{bar}:0"]), keys_in(&mut nodes[1])), ("int(2)".into(), "int(1)".into()));
}

#[test]
fn nodes_that_give_slots_to_each_other_at_the_same_time_both_succeed() {
    let mut nodes = nodes(2, false);
    // Slot 5061 of the first and 16383 of the second.
    for round in 0..4 {
        let (a, b) = if round % 2 == 0 { (0, 1) } else { (1, 0) };
        let first = begin(&mut nodes, a, b, &[SLOT, SLOT]);
        let second = begin(&mut nodes, b, a, &["16383", "16383"]);
        wait_for_state(&mut nodes[a], &first, "success");
        wait_for_state(&mut nodes[b], &second, "success");
        wait_for_state(&mut nodes[b], &first, "success");
    }
}

#[test]
fn a_link_of_a_job_says_nothing_but_what_belongs_to_it() {
    let mut nodes = nodes(2, false);
    let source = nodes[0].id();
    let refused: [(&str, &[&str]); 3] = [
        ("set", &["SET", "foo", "v"]),
        ("config|set", &["CONFIG", "SET", "maxmemory-samples", "7"]),
        ("get", &["GET", "{bar}k"]),
    ];
    for (at, (command, words)) in refused.into_iter().enumerate() {
        let name = &format!("{at}123456789012345678901234567890123456789");
        let mut link = nodes[1].server.connect();
        let establish = ["SYNCSLOTS", "ESTABLISH", "SOURCE", &source, "NAME", name, "SLOTSRANGE", SLOT, SLOT];
        redis::cmd("CLUSTER").arg(&establish).exec(&mut link).unwrap();
        let mut say = |words: &[&str]| {
            link.send_packed_command(&redis::cmd(words[0]).arg(&words[1..]).get_packed_command()).unwrap();
        };
        say(&["SELECT", "0"]);
        say(&["SET", "{bar}k", "v"]);
        wait("it came", 10, || keys_in(&mut nodes[1]) == "int(1)");
        assert_eq!(state(&mut nodes[1], name), "waiting-for-ack");
        say(words);
        wait_for_state(&mut nodes[1], name, "failed");
        let message = message(&mut nodes[1], name);
        assert!(message.contains(&format!("'{command}' is no part of")), "{message}");
        assert_eq!(nodes[1].text(&["GET", "foo"]), "nil");
        assert_eq!(keys_in(&mut nodes[1]), "int(0)");
    }
    assert!(nodes[1].text(&["CONFIG", "GET", "maxmemory-samples"]).contains('5'));
}

/// A debugging aid slows keys down, and nothing else.
#[test]
fn slots_without_keys_take_no_time() {
    let mut nodes = nodes(2, false);
    assert_eq!(nodes[0].text(&["SET", "bar", "x"]), "OK");
    assert_eq!(nodes[0].text(&["CONFIG", "SET", "rdb-key-save-delay", "300000"]), "OK");
    let name = begin(&mut nodes, 0, 1, &["5000", "5099"]);
    // A hundred times that would be more than is waited for.
    wait_for_state(&mut nodes[0], &name, "success");
    assert_eq!(nodes[1].text(&["GET", "bar"]), "x");
}

/// What `redis-cli --cluster` shows, which ends well.
fn manage(words: &[&str]) -> String {
    common::text(Command::new(CLI).arg("--cluster").args(words))
}

/// So many slots go from one node to another.
pub(crate) fn reshard(address: &str, from: &str, to: &str, slots: &str) -> String {
    let ends = ["--cluster-from", from, "--cluster-to", to];
    manage(&[&["reshard", address][..], &ends, &["--cluster-slots", slots, "--cluster-yes"]].concat())
}

#[test]
fn redis_cli_moves_slots_as_a_whole_where_both_nodes_can() {
    let mut nodes = nodes(3, false);
    for n in 0..50 {
        assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), "x"]), "OK");
    }
    let address = format!("127.0.0.1:{}", nodes[0].server.port);
    let (from, to) = (nodes[0].id(), nodes[1].id());
    let shown = reshard(&address, &from, &to, "5100");
    assert!(shown.contains("Moving slot 5061 from"), "{shown}");
    let job = jobs(&mut nodes[0]).remove(0);
    assert_eq!((job["slot_ranges"].as_str(), job["state"].as_str()), ("0-5099", "success"));
    assert_eq!((nodes[1].text(&["DBSIZE"]), nodes[0].text(&["DBSIZE"])), ("int(50)".into(), "int(0)".into()));
    manage(&["rebalance", &address]);
    assert!(jobs(&mut nodes[1]).iter().any(|job| job["operation"] == "EXPORT" && job["state"] == "success"));
    assert!(manage(&["check", &address]).contains("[OK] All 16384 slots covered."));
    // A node that has given its last slot away follows the one that has it, and says nothing while it loads what that has.
    let last = nodes[1].id();
    for n in 0..300 {
        assert_eq!(nodes[0].text(&["SET", &format!("{{bar}}{n}"), "x"]), "OK");
    }
    for (name, value) in [
        ("cluster-allow-replica-migration", "yes"),
        ("key-load-delay", "1000"),
        ("loading-process-events-interval-bytes", "1024"),
    ] {
        assert_eq!(nodes[1].text(&["CONFIG", "SET", name, value]), "OK");
    }
    let weight = format!("{last}=0");
    assert!(!manage(&["rebalance", &address, "--cluster-weight", &weight]).contains("LOADING"));
    wait("it is a replica", 20, || nodes[1].text(&["ROLE"]).contains("slave"));
}
