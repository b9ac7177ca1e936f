//! Real cluster nodes on loopback: serving, redirecting, failing over, remembering; also beside nodes of Redis.

use crate::common;

use common::cluster::{Node, TIMEOUT_MS, join, options, wait};
use common::{CLI, SERVER, TestServer, real_redis};
use redis::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn without_cluster_mode_there_is_no_cluster() {
    let server = TestServer::start(&[]);
    let mut node = Node { conn: server.connect(), server };
    for words in [&["CLUSTER", "INFO"][..], &["CLUSTER", "NODES"], &["READONLY"], &["ASKING"]] {
        assert_eq!(node.text(words), "ERR This instance has cluster support disabled");
    }
}

#[test]
fn one_fix_covers_thousands_of_slots() {
    let mut nodes = [Node::ours(), Node::ours(), Node::ours()];
    join(&mut nodes, false);
    assert_eq!(nodes[0].text(&["SET", "bar", "1"]), "OK");
    // The last node's slots have no keys at the others; this one has some at one of them, and no owner.
    nodes[2].server.kill();
    for node in &mut nodes[..2] {
        assert_eq!(node.text(&["CLUSTER", "DELSLOTS", "5061"]), "OK");
    }
    let address = format!("127.0.0.1:{}", nodes[0].server.port);
    let words = ["--cluster", "fix", &address, "--cluster-fix-with-unreachable-masters"];
    let began = Instant::now();
    let (stdin, stdout) = (Stdio::piped(), Stdio::piped());
    let mut cli = Command::new(CLI).args(words).stdin(stdin).stdout(stdout).spawn().unwrap();
    cli.stdin.take().unwrap().write_all(b"yes\nyes\n").unwrap();
    let out = cli.wait_with_output().unwrap();
    let (shown, took) = (String::from_utf8_lossy(&out.stdout), began.elapsed());
    assert!(shown.contains(&format!(">>> Covering slot 5061 with {address}")), "{shown}");
    // Each transaction brings one write of the nodes' table to the disk; one for each slot takes tens of seconds.
    assert!(took < Duration::from_secs(10), "{took:?}");
    for node in &mut nodes[..2] {
        wait("all slots are served", 10, || node.info("cluster_state") == "ok");
        assert_eq!(node.info("cluster_slots_assigned"), "16384");
    }
    assert_eq!(nodes[0].text(&["GET", "bar"]), "1");
}

#[test]
fn asking_holds_for_the_transaction_that_follows_and_for_nothing_else() {
    let mut nodes = [Node::ours(), Node::ours()];
    join(&mut nodes, false);
    let ids: Vec<String> = nodes.iter_mut().map(Node::id).collect();
    let [from, to] = &mut nodes;
    // That of bar.
    assert_eq!(to.text(&["CLUSTER", "SETSLOT", "5061", "IMPORTING", &ids[0]]), "OK");
    assert_eq!(from.text(&["CLUSTER", "SETSLOT", "5061", "MIGRATING", &ids[1]]), "OK");
    assert_eq!(from.text(&["GET", "bar"]), format!("ASK 5061 127.0.0.1:{}", to.server.port));
    let moved = format!("MOVED 5061 127.0.0.1:{}", from.server.port);
    let all = |to: &mut Node, requests: &[&[&str]]| requests.iter().map(|words| to.text(words)).collect::<Vec<_>>();
    let (asking, get, set) = (&["ASKING"][..], &["GET", "bar"][..], &["SET", "bar", "1"][..]);
    assert_eq!(all(to, &[asking, set, get]), ["OK", "OK", &moved], "for one request");
    let transaction = all(to, &[asking, &["MULTI"], set, get, &["EXEC"], get]);
    let done = "array([ok, bulk-string('\"1\"')])";
    assert_eq!(transaction, ["OK", "OK", "QUEUED", "QUEUED", done, &moved]);
    assert_eq!(all(to, &[asking, &["MULTI"], &["DISCARD"], get]), ["OK", "OK", "OK", &moved]);
    // What is refused is a request, too.
    for refused in [&["NOSUCH"][..], &["GET"], &["CLUSTER", "NOSUCH"], &["EXEC"]] {
        assert_eq!(all(to, &[asking, refused, get])[2], moved, "{refused:?}");
    }
    assert_eq!(all(to, &[asking, &["ASKING", "x"], get])[2], "1", "this one asks as well");
    // A command that waits for keys may still do so when they come.
    let waiting = std::thread::spawn({
        let mut conn = to.server.connect();
        move || redis::pipe().cmd("ASKING").ignore().cmd("BLPOP").arg("{bar}l").arg(10).query::<Value>(&mut conn)
    });
    wait("it waits", 10, || to.text(&["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    assert_eq!(all(to, &[asking, &["RPUSH", "{bar}l", "a"]]), ["OK", "int(1)"]);
    assert!(format!("{:?}", waiting.join().unwrap().unwrap()).contains("'\"a\"'"));
}

#[test]
fn slots_are_served_moved_and_redirected() {
    let mut nodes = [Node::ours(), Node::ours(), Node::ours()];
    join(&mut nodes, false);
    let ports: Vec<u16> = nodes.iter().map(|n| n.server.port).collect();
    let ids: Vec<String> = nodes.iter_mut().map(Node::id).collect();
    // foo is in slot 12182, which the third node owns; bar in 5061, the first one's.
    let [first, second, third] = &mut nodes;
    assert_eq!(first.text(&["CLUSTER", "KEYSLOT", "foo"]), "int(12182)");
    assert_eq!(first.text(&["SET", "foo", "1"]), format!("MOVED 12182 127.0.0.1:{}", ports[2]));
    assert_eq!(third.text(&["SET", "foo", "1"]), "OK");
    assert_eq!(first.text(&["DEL", "bar", "foo"]), "CROSSSLOT Keys in request don't hash to the same slot");
    assert_eq!(third.text(&["CLUSTER", "COUNTKEYSINSLOT", "12182"]), "int(1)");
    assert!(first.text(&["CLUSTER", "ADDSLOTS", "12182"]).contains("Slot 12182 is already busy"));

    // The slot moves to the second node.
    assert_eq!(second.text(&["CLUSTER", "SETSLOT", "12182", "IMPORTING", &ids[2]]), "OK");
    assert_eq!(third.text(&["CLUSTER", "SETSLOT", "12182", "MIGRATING", &ids[1]]), "OK");
    assert_eq!(third.text(&["GET", "foo"]), "1");
    assert_eq!(third.text(&["SET", "{foo}new", "1"]), format!("ASK 12182 127.0.0.1:{}", ports[1]));
    let again = "TRYAGAIN Multiple keys request during rehashing of slot";
    assert_eq!(third.text(&["DEL", "foo", "{foo}new"]), again);
    assert_eq!(second.text(&["SET", "{foo}new", "1"]), format!("MOVED 12182 127.0.0.1:{}", ports[2]));
    assert_eq!(second.text(&["ASKING"]), "OK");
    assert_eq!(second.text(&["SET", "{foo}new", "1"]), "OK");
    let refused = third.text(&["CLUSTER", "SETSLOT", "12182", "NODE", &ids[1]]);
    assert!(refused.contains("while I still hold keys for this hash slot"), "{refused}");
    assert_eq!(third.text(&["DEL", "foo"]), "int(1)");
    assert_eq!(second.text(&["CLUSTER", "SETSLOT", "12182", "NODE", &ids[1]]), "OK");
    assert_eq!(third.text(&["CLUSTER", "SETSLOT", "12182", "NODE", &ids[1]]), "OK");
    let moved = format!("MOVED 12182 127.0.0.1:{}", ports[1]);
    wait("everybody knows of the new owner", 10, || first.text(&["GET", "foo"]) == moved);
    assert_eq!(second.text(&["GET", "{foo}new"]), "1");

    // What a transaction touches counts as a whole.
    assert_eq!(second.text(&["MULTI"]), "OK");
    assert_eq!(second.text(&["SET", "bar", "1"]), format!("MOVED 5061 127.0.0.1:{}", ports[0]));
    assert!(second.text(&["EXEC"]).starts_with("EXECABORT"));
}

#[test]
fn a_killed_master_is_replaced_and_comes_back_as_replica() {
    let mut nodes: Vec<Node> = (0..6).map(|_| Node::ours()).collect();
    join(&mut nodes, true);
    let victim = nodes[0].id();
    assert_eq!(nodes[0].text(&["SET", "bar", "kept"]), "OK");
    assert_eq!(nodes[0].text(&["WAIT", "1", "5000"]), "int(1)");
    nodes[0].server.kill();
    let took = wait("the replica took over", 20, || nodes[3].text(&["SET", "{bar}2", "x"]) == "OK");
    println!("writes were accepted after {took:?}");
    assert!(took < Duration::from_millis(2 * TIMEOUT_MS + 500), "{took:?}");
    assert_eq!(nodes[3].text(&["GET", "bar"]), "kept");
    nodes[0].server.restart();
    nodes[0].conn = nodes[0].server.connect();
    assert_eq!(nodes[0].id(), victim, "it remembers who it is");
    wait("it follows its successor", 20, || nodes[0].text(&["CLUSTER", "NODES"]).contains("myself,slave"));
    wait("all is well", 20, || nodes.iter_mut().all(|n| !n.text(&["CLUSTER", "NODES"]).contains("fail")));
}

/// The others see it and it sees them, but nobody answers its pings: it cannot know that they still let it serve.
#[test]
fn a_master_stops_when_its_pings_are_not_answered() {
    let mut nodes = [Node::ours(), Node::ours(), Node::ours()];
    join(&mut nodes, false);
    assert_eq!(nodes[0].text(&["SET", "bar", "1"]), "OK");
    assert_eq!(nodes[0].text(&["DEBUG", "DROP-CLUSTER-PACKET-FILTER", "1"]), "OK");
    let took = wait("it stops", 10, || nodes[0].text(&["SET", "bar", "2"]) == "CLUSTERDOWN The cluster is down");
    assert!(took < Duration::from_millis(TIMEOUT_MS), "{took:?}");
    assert_eq!(nodes[0].info("cluster_state"), "fail");
    assert!(!nodes[0].text(&["CLUSTER", "NODES"]).contains("fail"), "it suspects nobody");
    assert_eq!(nodes[0].text(&["DEBUG", "DROP-CLUSTER-PACKET-FILTER", "-1"]), "OK");
    wait("it goes on", 10, || nodes[0].text(&["SET", "bar", "3"]) == "OK");
}

/// It may have been stopped in the middle of a turn, with requests at hand.
#[test]
fn a_master_that_stood_still_acknowledges_nothing() {
    let mut nodes: Vec<Node> = (0..6).map(|_| Node::ours()).collect();
    join(&mut nodes, true);
    let pid = nix::unistd::Pid::from_raw(nodes[0].server.pid() as i32);
    let done = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..2)
        .map(|_| {
            let (done, stream) = (done.clone(), TcpStream::connect(("127.0.0.1", nodes[0].server.port)).unwrap());
            std::thread::spawn(move || {
                let requests = "SET bar x\r\n".repeat(2000);
                let (mut replies, mut stream) = (BufReader::new(stream.try_clone().unwrap()), stream);
                let mut last = Instant::now();
                while !done.load(Ordering::Relaxed) && stream.write_all(requests.as_bytes()).is_ok() {
                    let mut line = String::new();
                    for _ in 0..2000 {
                        line.clear();
                        if replies.read_line(&mut line).is_ok() && line.starts_with("+OK") {
                            last = Instant::now();
                        }
                    }
                }
                last
            })
        })
        .collect();
    std::thread::sleep(Duration::from_millis(300));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    wait("the replica took over", 20, || nodes[3].text(&["SET", "{bar}2", "x"]) == "OK");
    let taken_over = Instant::now();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    wait("it follows its successor", 20, || nodes[0].text(&["CLUSTER", "NODES"]).contains("myself,slave"));
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        assert!(writer.join().unwrap() < taken_over, "it took a write after its replica did");
    }
}

#[test]
fn manual_failover_loses_no_write_and_takes_no_time() {
    let mut nodes: Vec<Node> = (0..6).map(|_| Node::ours()).collect();
    join(&mut nodes, true);
    assert_eq!(nodes[4].text(&["CLUSTER", "FAILOVER"]), "OK");
    let took = wait("the replica took over", 10, || nodes[4].text(&["CLUSTER", "NODES"]).contains("myself,master"));
    assert!(took < Duration::from_secs(2), "{took:?}");
    wait("the old master follows", 10, || nodes[1].text(&["CLUSTER", "NODES"]).contains("myself,slave"));
    let refused = nodes[0].text(&["CLUSTER", "FAILOVER"]);
    assert_eq!(refused, "ERR You should send CLUSTER FAILOVER to a replica");
}

#[test]
fn a_replica_that_leaves_its_shard_takes_nothing_along() {
    let options = ["--appendonly", "yes", "--cluster-allow-replica-migration", "no"];
    let mut nodes: Vec<Node> = (0..6).map(|_| Node::with_options(Path::new(SERVER), &options)).collect();
    join(&mut nodes, true);
    assert_eq!(nodes[0].text(&["SET", "{bar}", "x"]), "OK");
    wait("the replica has it", 10, || nodes[3].text(&["DBSIZE"]) == "int(1)");
    let shard = nodes[3].text(&["CLUSTER", "MYSHARDID"]);
    let listen = |node: &Node, channel: &str| {
        let mut conn = node.server.connect();
        conn.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        redis::cmd("SSUBSCRIBE").arg(channel).exec(&mut conn).unwrap();
        conn
    };
    let mut listening = listen(&nodes[3], "{bar}channel");
    assert!(nodes[3].text(&["CLUSTER", "REPLICATE", "NO", "TWO"]).contains("unknown subcommand"));
    assert!(nodes[3].text(&["CLUSTER", "REPLICATE", "a", "b", "c"]).contains("wrong number of arguments"));
    assert_eq!(nodes[3].text(&["CLUSTER", "REPLICATE", "NO", "ONE"]), "OK");
    let told = format!("{:?}", listening.recv_response().unwrap());
    assert!(told.contains("sunsubscribe"), "{told}");
    assert!(nodes[3].text(&["CLUSTER", "NODES"]).contains("myself,master"));
    assert_ne!(nodes[3].text(&["CLUSTER", "MYSHARDID"]), shard);
    let id = nodes[3].id();
    wait("the others know that", 10, || {
        let nodes = nodes[1].text(&["CLUSTER", "NODES"]);
        nodes.lines().any(|line| line.starts_with(&id) && line.contains(" master - "))
    });
    // Nor does its log bring anything back.
    assert_eq!(nodes[3].text(&["DBSIZE"]), "int(0)");
    assert_eq!(nodes[3].text(&["DEBUG", "LOADAOF"]), "OK");
    assert_eq!(nodes[3].text(&["DBSIZE"]), "int(0)");
    // A master is one already.
    assert_eq!(nodes[3].text(&["CLUSTER", "REPLICATE", "NO", "ONE"]), "OK");
    // From one shard to another.
    let mut listening = listen(&nodes[4], "{tag}channel");
    let first = nodes[0].id();
    assert_eq!(nodes[4].text(&["CLUSTER", "REPLICATE", &first]), "OK");
    let told = format!("{:?}", listening.recv_response().unwrap());
    assert!(told.contains("sunsubscribe"), "{told}");
    // The replica of another master that is reset has nothing either.
    wait("it has what its new master has", 10, || nodes[4].text(&["DBSIZE"]) == "int(1)");
    assert_eq!(nodes[4].text(&["CLUSTER", "RESET"]), "OK");
    assert_eq!(nodes[4].text(&["DEBUG", "LOADAOF"]), "OK");
    assert_eq!(nodes[4].text(&["DBSIZE"]), "int(0)");
}

#[test]
fn a_large_message_reaches_every_node_and_leaves_no_memory_behind() {
    let mut nodes = [Node::ours(), Node::ours(), Node::ours()];
    join(&mut nodes, false);
    let mut listener = nodes[2].server.connect();
    let mut listener = listener.as_pubsub();
    listener.subscribe("news").unwrap();
    for len in [1, 60_000, 5_000_000, 70_000] {
        let message = "x".repeat(len);
        nodes[0].text(&["PUBLISH", "news", &message]);
        assert!(listener.get_message().unwrap().get_payload::<String>().unwrap() == message, "{len}");
    }
    for node in &mut nodes {
        let info = node.text(&["INFO", "memory"]);
        let links = info.lines().find_map(|l| l.strip_prefix("mem_cluster_links:")).unwrap();
        assert!(links.trim().parse::<usize>().unwrap() < 150_000, "{links}");
    }
}

#[test]
fn nodes_conf_is_locked_and_survives_a_crash() {
    let mut node = Node::ours();
    let id = node.id();
    assert_eq!(node.text(&["CLUSTER", "ADDSLOTSRANGE", "5", "9"]), "OK");
    assert_eq!(node.text(&["CLUSTER", "SAVECONFIG"]), "OK");
    let mut second = Command::new(SERVER);
    let port = common::free_port().to_string();
    second.args(["--port", &port, "--logfile", "other.log", "--dir"]).arg(node.server.dir.path()).args(options());
    let status = second.status().expect("it starts");
    assert_eq!(status.code(), Some(1));
    let log = std::fs::read_to_string(node.server.dir.path().join("other.log")).unwrap();
    assert!(log.contains("Sorry, the cluster configuration file nodes.conf is already used by a different"), "{log}");
    node.server.kill();
    node.server.restart();
    node.conn = node.server.connect();
    assert_eq!(node.id(), id);
    assert!(node.text(&["CLUSTER", "NODES"]).trim_end().ends_with(" 5-9"));
}

/// Redis and we in one cluster: each sees the other's news, and both kinds of replica are elected.
#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn beside_redis() {
    let redis = real_redis();
    // Before 7.2 Redis cannot read the data set of a 7.2 master, so it is no replica of ours then.
    let version =
        Command::new(&redis).arg("--version").output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned());
    let replicas_too = version.is_ok_and(|v| v.contains("v=7.2") || v.contains("v=7.4") || v.contains("v=8."));
    let mut nodes: Vec<Node> = (0..6)
        .map(|i| if i == 1 || (i % 2 == 1 && replicas_too) { Node::start(&redis) } else { Node::ours() })
        .collect();
    join(&mut nodes, true);
    // Node 4, ours, follows node 1, of Redis; node 3, perhaps of Redis, follows node 0, ours.
    for (victim, heir, key) in [(0, 3, "bar"), (1, 4, "c")] {
        wait("the heir is in sync", 20, || {
            nodes[heir].text(&["INFO", "replication"]).contains("master_link_status:up")
        });
        nodes[victim].server.kill();
        let took = wait("the replica took over", 20, || nodes[heir].text(&["SET", key, "x"]) == "OK");
        println!("node {heir} took over from {victim} after {took:?}");
        nodes[victim].server.restart();
        nodes[victim].conn = nodes[victim].server.connect();
        wait("the old master follows", 30, || nodes[victim].text(&["CLUSTER", "NODES"]).contains("myself,slave"));
        wait("all is well", 30, || {
            nodes.iter_mut().all(|n| n.info("cluster_state") == "ok" && !n.text(&["CLUSTER", "NODES"]).contains("fail"))
        });
    }
}

#[test]
fn the_bus_answers_while_a_replica_loads() {
    let mut nodes = [Node::ours(), Node::ours()];
    join(&mut nodes, true);
    let [master, replica] = &mut nodes;
    for (name, value) in [("repl-diskless-sync-delay", "0"), ("repl-diskless-sync", "yes")] {
        assert_eq!(master.text(&["CONFIG", "SET", name, value]), "OK");
    }
    assert_eq!(master.text(&["DEBUG", "POPULATE", "4000"]), "OK");
    // Longer than a node may keep silent.
    assert_eq!(replica.text(&["CONFIG", "SET", "key-load-delay", "1000"]), "OK");
    assert_eq!(master.text(&["DEBUG", "CHANGE-REPL-ID"]), "OK");
    master.call(&["CLIENT", "KILL", "TYPE", "replica"]).unwrap();
    let is_loading = |node: &mut Node| node.text(&["INFO", "persistence"]).contains("\r\nloading:1");
    wait("the replica loads", 10, || is_loading(replica));
    let took = wait("the replica has loaded", 60, || {
        let known = master.text(&["CLUSTER", "NODES"]);
        assert!(!known.contains("fail"), "{known}");
        !is_loading(replica)
    });
    assert!(took > Duration::from_millis(2 * TIMEOUT_MS), "{took:?}");
    wait("the replica follows", 10, || replica.text(&["INFO", "replication"]).contains("master_link_status:up"));
    assert_eq!(replica.text(&["DBSIZE"]), "int(4000)");
}
