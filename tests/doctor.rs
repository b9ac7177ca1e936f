//! DOCTOR and CLUSTER DOCTOR: what is found, where it is told, and that it is told once.

use crate::common;
use crate::common_tls;

use common::{CLI, TestServer, free_port, run, try_run, wait_for};
use common_tls::{Certs, TlsServer};
use redis::{Connection, Value};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

/// Severities and texts by the ids of findings. What is wrong with the machine is left out.
fn findings(c: &mut Connection, words: &[&str]) -> BTreeMap<String, (String, String)> {
    let all: Vec<BTreeMap<String, String>> = run(c, words);
    let found = all.into_iter().map(|mut f| {
        let mut take = |name: &str| f.remove(name).unwrap_or_else(|| panic!("no {name}"));
        assert!(!take("advice").is_empty());
        (take("id"), (take("severity"), take("text")))
    });
    found.filter(|(id, _)| id != "overcommit" && id != "memory-of-machine").collect()
}

fn of_cluster(c: &mut Connection) -> BTreeMap<String, (String, String)> {
    findings(c, &["CLUSTER", "DOCTOR"])
}

fn metrics(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn what_is_wrong_with_a_server_is_told_once() {
    let port = free_port();
    let server = TestServer::start(&["--admin-port", &port.to_string()]);
    let mut c = server.connect();
    assert_eq!(findings(&mut c, &["DOCTOR"]), BTreeMap::new());
    assert!(try_run::<Value>(&mut c, &["CLUSTER", "DOCTOR"]).is_err());
    run::<()>(&mut c, &["CONFIG", "SET", "maxmemory", "1mb"]);
    run::<()>(&mut c, &["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    assert_eq!(findings(&mut c, &["DOCTOR"]), BTreeMap::new(), "keys would be evicted");
    run::<()>(&mut c, &["CONFIG", "SET", "maxmemory", "100", "maxmemory-policy", "noeviction"]);
    let found = findings(&mut c, &["DOCTOR"]);
    let (severity, text) = &found["memory-full"];
    assert_eq!(severity, "critical");
    assert!(text.starts_with("Writes are refused: ") && text.contains(" of the 100B of maxmemory"), "{text}");
    assert!(metrics(port).contains("\nhexad_doctor_findings{id=\"memory-full\",severity=\"critical\"} 1\n"));
    let told = || server.log().matches("# Doctor (memory-full): Writes are refused: ").count();
    wait_for(20, "the log is told", || told() == 1);
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(told(), 1);
    run::<()>(&mut c, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(findings(&mut c, &["DOCTOR"]), BTreeMap::new());
}

#[test]
fn a_replica_without_its_master_is_told_of() {
    let replica = TestServer::start(&["--replicaof", "127.0.0.1", "1"]);
    let mut c = replica.connect();
    wait_for(20, "it is found", || findings(&mut c, &["DOCTOR"]).contains_key("master-link-down"));
    let (severity, text) = &findings(&mut c, &["DOCTOR"])["master-link-down"];
    assert_eq!(severity, "critical");
    let start = "This replica serves old data: the link to its master 127.0.0.1:1 never was up (it is at '";
    assert!(text.starts_with(start), "{text}");
}

fn node(options: &[&str]) -> TestServer {
    let usual = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--repl-diskless-sync-delay", "0"];
    TestServer::start(&[&usual, options].concat())
}

fn meet(c: &mut Connection, other: &TestServer) {
    run::<()>(c, &["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
}

#[test]
fn what_is_wrong_with_slots_is_found() {
    let (a, mut b) = (node(&[]), node(&[]));
    let (mut ca, mut cb) = (a.connect(), b.connect());
    let found = of_cluster(&mut ca);
    let (severity, text) = &found["slots-uncovered"];
    assert_eq!(severity, "critical");
    assert_eq!(text, "16384 of the 16384 slots belong to no node: requests for their keys fail.");
    run::<()>(&mut ca, &["CLUSTER", "ADDSLOTSRANGE", "0", "9999"]);
    run::<()>(&mut cb, &["CLUSTER", "ADDSLOTSRANGE", "10000", "16383"]);
    run::<()>(&mut cb, &["CLUSTER", "SET-CONFIG-EPOCH", "2"]);
    meet(&mut ca, &b);
    wait_for(20, "the cluster is up", || {
        [&mut ca, &mut cb].into_iter().all(|c| run::<String>(c, &["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    });
    let found = of_cluster(&mut ca);
    let texts: Vec<_> = found.iter().map(|(id, (severity, _))| (id.as_str(), severity.as_str())).collect();
    assert_eq!(texts, [("few-masters", "warning"), ("no-replica", "warning"), ("slots-uneven", "warning")]);
    assert_eq!(found["no-replica"].1, "No master has a replica that works: when a master goes, its slots go with it.");
    let uneven = format!("Slots are uneven: 127.0.0.1:{} has 10000, 127.0.0.1:{} has 6384.", a.port, b.port);
    assert_eq!(found["slots-uneven"].1, uneven);
    let id: String = run(&mut cb, &["CLUSTER", "MYID"]);
    run::<()>(&mut ca, &["CLUSTER", "SETSLOT", "7", "MIGRATING", &id]);
    let open = &of_cluster(&mut ca)["slots-open"].1;
    assert_eq!(open, "1 slots are leaving this node and 0 are coming: a move is under way, or was given up.");
    run::<()>(&mut ca, &["CLUSTER", "SETSLOT", "7", "STABLE"]);
    // Those who check the cluster are told, too.
    let seed = format!("127.0.0.1:{}", a.port);
    let out = Command::new(CLI).args(["--cluster", "check", &seed]).output().unwrap();
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(shown.contains(">>> What the nodes find...") && shown.contains(&uneven), "{shown}");
    assert!(shown.contains(" and 1 more.)"), "{shown}");
    assert!(!shown.contains("different versions"), "{shown}");
    b.kill();
    wait_for(20, "it is missed", || of_cluster(&mut ca).contains_key("node-unreachable"));
    let found = of_cluster(&mut ca);
    assert_eq!(found["slots-down"].1, "The owners of 6384 slots are not reached: requests for their keys fail.");
    let text = &found["node-unreachable"].1;
    assert!(text.contains(&format!("does not reach 127.0.0.1:{}, for ", b.port)), "{text}");
}

#[test]
fn what_is_announced_and_one_way_links_are_looked_at() {
    let closed = free_port().to_string();
    let (a, b) = (node(&[]), node(&[]));
    let (mut ca, mut cb) = (a.connect(), b.connect());
    meet(&mut ca, &b);
    let knows = |c: &mut Connection| run::<String>(c, &["CLUSTER", "INFO"]).contains("cluster_known_nodes:2");
    wait_for(20, "they know each other", || knows(&mut ca) && knows(&mut cb));
    run::<()>(&mut cb, &["CONFIG", "SET", "cluster-announce-ip", "0.0.0.0"]);
    let text = &of_cluster(&mut cb)["announce"].1;
    assert_eq!(text, "cluster-announce-ip 0.0.0.0 is no address of any machine.");
    run::<()>(&mut cb, &["CONFIG", "SET", "cluster-announce-ip", ""]);
    run::<()>(&mut cb, &["CONFIG", "SET", "cluster-preferred-endpoint-type", "hostname"]);
    assert!(of_cluster(&mut cb)["announce"].1.contains("cluster-announce-hostname is not set"));
    run::<()>(&mut cb, &["CONFIG", "SET", "cluster-preferred-endpoint-type", "ip"]);
    // Others are sent to a port where nobody is.
    run::<()>(&mut cb, &["CONFIG", "SET", "cluster-announce-bus-port", &closed]);
    wait_for(20, "one way is found", || of_cluster(&mut ca).contains_key("one-way"));
    let text = &of_cluster(&mut ca)["one-way"].1;
    let expected =
        format!("127.0.0.1:{} reaches this node, which does not reach its bus port, 127.0.0.1:{closed}.", b.port);
    assert_eq!(*text, expected);
    assert!(!of_cluster(&mut ca).contains_key("node-unreachable"));
    run::<()>(&mut cb, &["CONFIG", "SET", "cluster-announce-bus-port", "0"]);
    wait_for(20, "all is well again", || !of_cluster(&mut ca).contains_key("one-way"));
}

#[test]
fn a_failover_that_does_not_happen_is_explained() {
    let nodes: Vec<TestServer> = (0..4).map(|_| node(&[])).collect();
    let mut c: Vec<Connection> = nodes.iter().map(TestServer::connect).collect();
    for (i, range) in [("0", "5000"), ("5001", "10000"), ("10001", "16383")].into_iter().enumerate() {
        run::<()>(&mut c[i], &["CLUSTER", "ADDSLOTSRANGE", range.0, range.1]);
        run::<()>(&mut c[i], &["CLUSTER", "SET-CONFIG-EPOCH", &(i + 1).to_string()]);
    }
    let (first, rest) = c.split_first_mut().unwrap();
    nodes[1..].iter().for_each(|other| meet(first, other));
    let id: String = run(first, &["CLUSTER", "MYID"]);
    let replica = &mut rest[2];
    wait_for(20, "it follows", || try_run::<()>(replica, &["CLUSTER", "REPLICATE", &id]).is_ok());
    wait_for(20, "the link is up", || run::<String>(replica, &["INFO", "replication"]).contains("link_status:up"));
    run::<()>(replica, &["CONFIG", "SET", "cluster-replica-no-failover", "yes"]);
    // Whoever is to tell of it has to know all nodes before the first of them is gone.
    wait_for(20, "all know all", || {
        c.iter_mut().all(|c| {
            let (info, nodes): (String, String) = (run(c, &["CLUSTER", "INFO"]), run(c, &["CLUSTER", "NODES"]));
            let is_known =
                nodes.lines().count() == 4 && nodes.lines().any(|line| line.contains("slave") && line.contains(&id));
            info.contains("cluster_state:ok") && is_known && !nodes.contains("disconnected")
        })
    });
    let (replica, other) = {
        let [_, other, _, replica] = &mut c[..] else { unreachable!("four") };
        (replica, other)
    };
    let mut nodes = nodes;
    nodes[0].kill();
    wait_for(20, "it is explained", || of_cluster(replica).contains_key("failover-stuck"));
    let text = &of_cluster(replica)["failover-stuck"].1;
    assert!(
        text.contains("'cluster-replica-no-failover' forbids it.") && text.ends_with("(forbidden_by_config)"),
        "{text}"
    );
    wait_for(20, "others see it", || of_cluster(other).contains_key("master-not-replaced"));
    let text = &of_cluster(other)["master-not-replaced"].1;
    let expected = format!(
        "127.0.0.1:{} with 5001 slots has failed, and none of its 1 replicas has taken its place: CLUSTER DOCTOR there tells why.",
        nodes[0].port
    );
    assert_eq!(*text, expected);
}

#[test]
fn clients_near_the_limit_are_told_of() {
    let server = TestServer::start(&["--maxclients", "20"]);
    let mut c = server.connect();
    let mut others: Vec<Connection> = (0..16).map(|_| server.connect()).collect();
    assert_eq!(findings(&mut c, &["DOCTOR"]), BTreeMap::new(), "17 of 20");
    others.push(server.connect());
    let (severity, text) = &findings(&mut c, &["DOCTOR"])["clients-near-limit"];
    assert_eq!(severity, "warning");
    assert_eq!(text, "18 clients are connected, of 20 at most (maxclients): others will be turned away.");
    drop(others);
    wait_for(5, "they are gone", || findings(&mut c, &["DOCTOR"]).is_empty());
}

#[test]
fn refused_writes_are_told_of() {
    let server = TestServer::start(&["--save", "3600 1000000"]);
    let mut c = server.connect();
    run::<()>(&mut c, &["SET", "k", "v"]);
    // Where the snapshot would go stands a folder.
    let target = server.dir.path().join("dump.rdb");
    std::fs::create_dir(&target).unwrap();
    run::<()>(&mut c, &["BGSAVE"]);
    wait_for(10, "it is found", || findings(&mut c, &["DOCTOR"]).contains_key("writes-refused"));
    let (severity, text) = &findings(&mut c, &["DOCTOR"])["writes-refused"];
    assert_eq!(severity, "critical");
    assert_eq!(text, "Writes are refused, as the last snapshot could not be written.");
    assert_eq!(try_run::<()>(&mut c, &["SET", "k", "w"]).unwrap_err().code(), Some("MISCONF"), "they are");
    std::fs::remove_dir(&target).unwrap();
    run::<()>(&mut c, &["SAVE"]);
    assert_eq!(findings(&mut c, &["DOCTOR"]), BTreeMap::new());
}

#[test]
fn a_slow_disk_is_told_of() {
    let options = ["--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"];
    let server = TestServer::start(&options);
    let mut c = server.connect();
    let sync = |c: &mut Connection, us: &str| {
        run::<()>(c, &["DEBUG", "AOF-SYNC-SLEEP", us]);
        run::<()>(c, &["SET", "k", "v"]);
    };
    sync(&mut c, "600000");
    let (severity, text) = &findings(&mut c, &["DOCTOR"])["slow-fsync"];
    assert_eq!(severity, "warning");
    let ms = text.strip_prefix("The disk is slow: a sync of the log took ").unwrap().split(' ').next().unwrap();
    assert!((600..5000).contains(&ms.parse::<u64>().unwrap()), "{text}");
    assert!(text.ends_with(" s ago. Every change waits for it."), "{text}");
    run::<()>(&mut c, &["DEBUG", "AOF-SYNC-SLEEP", "0"]);
    run::<()>(&mut c, &["CONFIG", "SET", "appendfsync", "everysec"]);
    let text = &findings(&mut c, &["DOCTOR"])["slow-fsync"].1;
    assert!(text.ends_with(" Writes wait when one takes too long."), "{text}");
    // Without a log it is of no interest.
    run::<()>(&mut c, &["CONFIG", "SET", "appendonly", "no"]);
    assert!(!findings(&mut c, &["DOCTOR"]).contains_key("slow-fsync"));
}

/// Lets a process stand still, until it is dropped.
struct Stopped<'a>(&'a TestServer);

impl Stopped<'_> {
    fn new(server: &TestServer) -> Stopped<'_> {
        server.signal("-STOP");
        Stopped(server)
    }
}

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.signal("-CONT");
    }
}

#[test]
fn a_replica_that_is_behind_is_told_of() {
    let master = TestServer::start(&["--repl-diskless-sync-delay", "0", "--repl-backlog-size", "64kb"]);
    let replica = TestServer::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let mut c = master.connect();
    wait_for(20, "it follows", || run::<String>(&mut c, &["INFO", "replication"]).contains("state=online"));
    assert_eq!(findings(&mut c, &["DOCTOR"]), BTreeMap::new());
    let who = format!("Replica 127.0.0.1:{} is behind: ", replica.port);
    let stopped = Stopped::new(&replica);
    run::<()>(&mut c, &["SET", "k", &"x".repeat(40 << 10)]);
    let (severity, text) = &findings(&mut c, &["DOCTOR"])["replica-behind"];
    assert_eq!(severity, "warning");
    let text = text.strip_prefix(&who).unwrap();
    assert!(text.starts_with("it takes the stream more slowly than it grows; 40.0"), "{text}");
    // After ten seconds it counts as silent.
    let behind = |c: &mut Connection| findings(c, &["DOCTOR"])["replica-behind"].1.clone();
    wait_for(20, "it is silent", || behind(&mut c).contains("it has acknowledged nothing for 1"));
    assert!(behind(&mut c).ends_with(" of the stream are missing."), "{}", behind(&mut c));
    drop(stopped);
    wait_for(20, "it has caught up", || findings(&mut c, &["DOCTOR"]).is_empty());
}

/// The day that comes after so many days, in UTC.
fn day_in(days: i64) -> (i32, u8, u8) {
    let date = Command::new("date").args(["-u", "+%Y %m %d", "-d", &format!("{days} days")]).output().unwrap();
    let text = String::from_utf8(date.stdout).unwrap();
    let mut parts = text.split_whitespace().map(|part| part.parse::<i32>().unwrap());
    let mut next = || parts.next().unwrap();
    (next(), next() as u8, next() as u8)
}

#[test]
fn certificates_that_end_are_told_of() {
    let certs = Certs::new();
    let tls = TlsServer::start(&certs, &["--tls-auth-clients", "no"]);
    let mut c = tls.server.connect();
    assert_eq!(findings(&mut c, &["DOCTOR"]), BTreeMap::new());
    let mut renew = |serial: u64, days: i64| {
        certs.issue_until("server", serial, Some(day_in(days)));
        let _ = try_run::<()>(&mut c, &["CONFIG", "SET", "tls-cert-file", &certs.text("server.crt")]);
        findings(&mut c, &["DOCTOR"])
    };
    // A day begins at midnight.
    let (severity, text) = &renew(7, 10)["certificate-ends"];
    assert_eq!(severity, "warning");
    // It is shown to clients and to other servers.
    assert!(text.ends_with(" certificate, number 07, ends in 9 days."), "{text}");
    assert_eq!(renew(8, 40), BTreeMap::new());
    let found = renew(9, 30);
    assert!(found["certificate-ends"].1.ends_with(" ends in 29 days."), "{found:?}");
    let (severity, text) = &renew(10, -1)["certificate-ended"];
    assert_eq!(severity, "critical");
    assert!(text.ends_with(" has ended: connections are refused."), "{text}");
}

#[test]
fn a_replica_of_another_version_is_told_of() {
    let master = TestServer::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = TestServer::start(&["--replicaof", "127.0.0.1", &master.port.to_string()]);
    let mut c = master.connect();
    wait_for(20, "it follows", || run::<String>(&mut c, &["INFO", "replication"]).contains("state=online"));
    // Ours is of the same version; what is no version, is not shown.
    let attach = |version: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", master.port)).unwrap();
        let mut say = |words: String, answer: &[u8]| {
            stream.write_all(words.as_bytes()).unwrap();
            let mut got = vec![0; answer.len()];
            stream.read_exact(&mut got).unwrap();
            assert_eq!(got, answer);
        };
        say(format!("REPLCONF listening-port 77 capa eof capa psync2 capa hexad-{version}\r\n"), b"+OK\r\n");
        say("PSYNC ? -1\r\n".into(), b"+FULLRESYNC ");
        stream
    };
    let odd = attach("a<b>");
    assert_eq!(findings(&mut c, &["DOCTOR"]), BTreeMap::new());
    let newer = attach("9.9.9");
    let (severity, text) = &findings(&mut c, &["DOCTOR"])["versions-differ"];
    assert_eq!(severity, "warning");
    let ours = env!("CARGO_PKG_VERSION");
    assert_eq!(*text, format!("Replica 127.0.0.1:77 runs Hexad 9.9.9, and this server {ours}."));
    drop((odd, newer));
    wait_for(20, "it is gone", || findings(&mut c, &["DOCTOR"]).is_empty());
    drop(replica);
}
