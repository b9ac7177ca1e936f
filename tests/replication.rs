//! Replication between real processes: our servers, and a real redis-server as the other side where one is installed.

use crate::common;

use common::{SERVER, TestServer, real_redis, run, try_run, wait_for};
use redis::{Connection, Value};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const QUICK: &[&str] = &["--repl-diskless-sync-delay", "0", "--shutdown-timeout", "0"];

fn start(options: &[&str]) -> TestServer {
    start_binary(Path::new(SERVER), options)
}

fn start_binary(binary: &Path, options: &[&str]) -> TestServer {
    let all: Vec<&str> = QUICK.iter().chain(options).copied().collect();
    TestServer::start_binary(binary, &all)
}

/// What ROLE says of a replica: the state of its link and its offset.
fn link(c: &mut Connection) -> Option<(String, i64)> {
    match try_run::<Value>(c, &["ROLE"]) {
        Ok(Value::Array(parts)) if parts.len() == 5 => {
            let state = redis::from_redis_value(&parts[3]).expect("a state");
            Some((state, redis::from_redis_value(&parts[4]).expect("an offset")))
        }
        _ => None,
    }
}

/// What ROLE says of a master: its offset and the number of replicas that are online.
fn stream(c: &mut Connection) -> Option<(i64, usize)> {
    match try_run::<Value>(c, &["ROLE"]) {
        Ok(Value::Array(parts)) if parts.len() == 3 => match &parts[2] {
            Value::Array(replicas) => Some((redis::from_redis_value(&parts[1]).expect("an offset"), replicas.len())),
            _ => None,
        },
        _ => None,
    }
}

fn follow(replica: &TestServer, port: u16) {
    run::<()>(&mut replica.connect(), &["REPLICAOF", "127.0.0.1", &port.to_string()]);
}

fn wait_in_sync(master: &TestServer, replica: &TestServer) {
    let (mut m, mut r) = (master.connect(), replica.connect());
    wait_for(20, "the replica has everything", || {
        // The master lists the replicas that it holds to be online: that follows a little later.
        let Some((offset, 1..)) = stream(&mut m) else { return false };
        link(&mut r).is_some_and(|(state, at)| state == "connected" && at == offset)
    });
}

/// All keys of all databases: value and time to live.
fn dataset(server: &TestServer) -> BTreeMap<(usize, Vec<u8>), (Vec<u8>, i64)> {
    let mut c = server.connect();
    let mut all = BTreeMap::new();
    for db in 0..16 {
        run::<()>(&mut c, &["SELECT", &db.to_string()]);
        let keys: Vec<Vec<u8>> = run(&mut c, &["KEYS", "*"]);
        for key in keys {
            let value: Vec<u8> = redis::cmd("GET").arg(&key).query(&mut c).expect("a string");
            let at: i64 = redis::cmd("PEXPIRETIME").arg(&key).query(&mut c).expect("a time");
            all.insert((db, key), (value, at));
        }
    }
    all
}

fn fill(c: &mut Connection, keys: usize, tag: &str) {
    let mut pipe = redis::pipe();
    for i in 0..keys {
        pipe.cmd("SET").arg(format!("{tag}:{i}")).arg(format!("value {i} ").repeat(1 + i % 40)).ignore();
    }
    pipe.query::<()>(c).expect("all are set");
}

/// A dataset with several databases, times to live and a large value, then a change while the replica is attached.
fn sync_and_compare(master: &TestServer, replica: &TestServer) {
    let mut m = master.connect();
    fill(&mut m, 500, "before");
    run::<()>(&mut m, &["SET", "large", &"x".repeat(3_000_000)]);
    run::<()>(&mut m, &["SET", "timed", "v", "EX", "1000"]);
    run::<()>(&mut m, &["SELECT", "9"]);
    run::<()>(&mut m, &["SET", "elsewhere", "\u{1}\r\n$"]);
    follow(replica, master.port);
    wait_in_sync(master, replica);
    fill(&mut m, 300, "after");
    run::<()>(&mut m, &["SELECT", "0"]);
    run::<()>(&mut m, &["DEL", "before:1", "before:2"]);
    redis::pipe()
        .atomic()
        .cmd("INCR")
        .arg("n")
        .ignore()
        .cmd("INCR")
        .arg("n")
        .ignore()
        .query::<()>(&mut m)
        .expect("a transaction");
    run::<()>(&mut m, &["SET", "timed too", "v", "PX", "500000"]);
    wait_in_sync(master, replica);
    let (ours, theirs) = (dataset(master), dataset(replica));
    assert_eq!(ours.len(), theirs.len());
    assert!(ours == theirs, "the datasets differ");
    assert_eq!(run::<i64>(&mut m, &["WAIT", "1", "5000"]), 1);
}

/// Every way a dataset can take between these two kinds of servers.
fn every_way(master: &Path, replica: &Path) {
    for diskless_sync in ["yes", "no"] {
        for load in ["disabled", "on-empty-db", "swapdb"] {
            let m = start_binary(master, &["--repl-diskless-sync", diskless_sync]);
            let r = start_binary(replica, &["--repl-diskless-load", load]);
            sync_and_compare(&m, &r);
        }
    }
}

#[test]
fn a_replica_gets_the_dataset_every_way() {
    every_way(Path::new(SERVER), Path::new(SERVER));
}

#[test]
#[cfg_attr(not(has_redis_7_2), ignore = "no redis-server of 7.2 or later is installed")]
fn a_real_replica_follows_us() {
    every_way(Path::new(SERVER), &real_redis());
}

#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn we_follow_a_real_master() {
    every_way(&real_redis(), Path::new(SERVER));
}

/// Forwards connections to a server, and can cut them.
struct Wire {
    port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
    blocked: Arc<AtomicBool>,
}

impl Wire {
    fn to(target: u16) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let blocked = Arc::new(AtomicBool::new(false));
        let (streams, refuse) = (open.clone(), blocked.clone());
        std::thread::spawn(move || {
            for inbound in listener.incoming().flatten() {
                if refuse.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(outbound) = TcpStream::connect(("127.0.0.1", target)) else { continue };
                streams.lock().expect("not poisoned").push(inbound.try_clone().expect("a copy"));
                pump(inbound.try_clone().expect("a copy"), outbound.try_clone().expect("a copy"));
                pump(outbound, inbound);
            }
        });
        Wire { port, open, blocked }
    }

    fn cut(&self) {
        for stream in self.open.lock().expect("not poisoned").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn block(&self, on: bool) {
        self.blocked.store(on, Ordering::SeqCst);
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream) {
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

fn broken_link(master: &Path, replica: &Path) {
    let m = start_binary(master, &[]);
    let r = start_binary(replica, &[]);
    let wire = Wire::to(m.port);
    let mut c = m.connect();
    fill(&mut c, 100, "a");
    follow(&r, wire.port);
    wait_in_sync(&m, &r);
    for round in 0..3 {
        wire.block(true);
        wire.cut();
        fill(&mut c, 200, &format!("round{round}"));
        wire.block(false);
        wait_in_sync(&m, &r);
    }
    assert!(dataset(&m) == dataset(&r), "the datasets differ");
    let accepted = r.log().matches("Master accepted a Partial Resynchronization").count();
    assert_eq!(accepted, 3, "{}", r.log());
    assert_eq!(m.log().matches("Full resync requested by replica").count() + full_after_mismatch(&m), 1);
}

fn full_after_mismatch(master: &TestServer) -> usize {
    master.log().matches("Replication ID mismatch").count()
}

#[test]
fn a_broken_link_costs_only_what_was_missed() {
    broken_link(Path::new(SERVER), Path::new(SERVER));
}

#[test]
#[cfg_attr(not(has_redis_7_2), ignore = "no redis-server of 7.2 or later is installed")]
fn a_broken_link_costs_a_real_replica_only_what_was_missed() {
    broken_link(Path::new(SERVER), &real_redis());
}

#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn a_broken_link_to_a_real_master_costs_only_what_was_missed() {
    broken_link(&real_redis(), Path::new(SERVER));
}

#[test]
fn too_much_missed_costs_everything() {
    let m = start(&["--repl-backlog-size", "16kb"]);
    let r = start(&[]);
    let wire = Wire::to(m.port);
    follow(&r, wire.port);
    wait_in_sync(&m, &r);
    wire.block(true);
    wire.cut();
    let mut c = m.connect();
    wait_for(10, "the master sees the replica gone", || stream(&mut c).is_some_and(|(_, count)| count == 0));
    fill(&mut c, 2000, "much");
    wire.block(false);
    wait_in_sync(&m, &r);
    assert!(dataset(&m) == dataset(&r), "the datasets differ");
    assert!(m.log().contains("for lack of backlog (Replica request was: "));
}

#[test]
fn replicas_of_replicas_get_the_same_stream() {
    let (a, b, c) = (start(&[]), start(&[]), start(&[]));
    follow(&b, a.port);
    wait_in_sync(&a, &b);
    follow(&c, b.port);
    let mut conn = a.connect();
    fill(&mut conn, 200, "x");
    wait_in_sync(&a, &b);
    wait_in_sync(&a, &c);
    assert!(dataset(&a) == dataset(&c), "the datasets differ");
    // The middle one is promoted: its replica goes on with it without a copy.
    run::<()>(&mut b.connect(), &["REPLICAOF", "NO", "ONE"]);
    let mut conn = b.connect();
    fill(&mut conn, 50, "y");
    wait_in_sync(&b, &c);
    assert!(dataset(&b) == dataset(&c), "the datasets differ");
    assert_eq!(c.log().matches("Master replication ID changed to").count(), 1, "{}", c.log());
    // The old top joins below, and continues as well.
    follow(&a, c.port);
    wait_in_sync(&b, &a);
    assert!(a.log().contains("Successful partial resynchronization with master."), "{}", a.log());
}

#[test]
fn a_restarted_replica_continues_from_its_file() {
    let m = start(&[]);
    let master_port = m.port.to_string();
    let mut r = start(&["--replicaof", "127.0.0.1", &master_port]);
    let mut c = m.connect();
    fill(&mut c, 100, "a");
    wait_in_sync(&m, &r);
    run::<()>(&mut r.connect(), &["SAVE"]);
    r.kill();
    fill(&mut c, 100, "b");
    r.restart();
    wait_in_sync(&m, &r);
    assert!(dataset(&m) == dataset(&r), "the datasets differ");
    assert!(r.log().contains("Master accepted a Partial Resynchronization"), "{}", r.log());
}

#[test]
fn wait_counts_replicas_that_have_processed() {
    let m = start(&[]);
    let (r1, r2) = (start(&[]), start(&[]));
    follow(&r1, m.port);
    follow(&r2, m.port);
    wait_in_sync(&m, &r1);
    wait_in_sync(&m, &r2);
    let mut c = m.connect();
    run::<()>(&mut c, &["SET", "k", "1"]);
    assert_eq!(run::<i64>(&mut c, &["WAIT", "2", "5000"]), 2);
    assert_eq!(run::<i64>(&mut c, &["WAIT", "3", "50"]), 2);
    stop(&r2, true);
    run::<()>(&mut c, &["SET", "k", "2"]);
    assert_eq!(run::<i64>(&mut c, &["WAIT", "2", "200"]), 1);
    stop(&r2, false);
    assert_eq!(run::<i64>(&mut c, &["WAIT", "2", "0"]), 2);
    let error = try_run::<i64>(&mut r1.connect(), &["WAIT", "1", "0"]).unwrap_err().to_string();
    assert!(error.contains("WAIT cannot be used with replica instances."), "{error}");
}

#[test]
fn waitaof_counts_disks() {
    let m = start(&["--appendonly", "yes", "--appendfsync", "everysec"]);
    let r = start(&["--appendonly", "yes", "--appendfsync", "always"]);
    follow(&r, m.port);
    wait_in_sync(&m, &r);
    let mut c = m.connect();
    run::<()>(&mut c, &["SET", "k", "1"]);
    assert_eq!(run::<Vec<i64>>(&mut c, &["WAITAOF", "1", "1", "10000"]), [1, 1]);
    let none = start(&[]);
    let error = try_run::<Value>(&mut none.connect(), &["WAITAOF", "1", "0", "0"]).unwrap_err().to_string();
    assert!(error.contains("WAITAOF cannot be used when numlocal is set but appendonly is disabled."), "{error}");
}

fn stop(server: &TestServer, on: bool) {
    use nix::sys::signal::{Signal, kill};
    let signal = if on { Signal::SIGSTOP } else { Signal::SIGCONT };
    kill(nix::unistd::Pid::from_raw(server.pid() as i32), signal).expect("a signal");
}

#[test]
fn failover_exchanges_roles() {
    let (m, r) = (start(&[]), start(&[]));
    let mut c = m.connect();
    fill(&mut c, 100, "a");
    follow(&r, m.port);
    wait_in_sync(&m, &r);
    run::<()>(&mut c, &["FAILOVER", "TO", "127.0.0.1", &r.port.to_string()]);
    wait_in_sync(&r, &m);
    fill(&mut r.connect(), 50, "b");
    wait_in_sync(&r, &m);
    assert!(dataset(&r) == dataset(&m), "the datasets differ");
    assert!(m.log().contains("is synced, failing over."), "{}", m.log());
    assert!(r.log().contains("MASTER MODE enabled (failover request from"), "{}", r.log());
    assert!(m.log().contains("Master accepted a Partial Resynchronization"), "{}", m.log());
}

#[test]
fn failover_gives_up_in_time() {
    let (m, r) = (start(&[]), start(&[]));
    follow(&r, m.port);
    wait_in_sync(&m, &r);
    stop(&r, true);
    let mut c = m.connect();
    run::<()>(&mut c, &["SET", "k", "v"]);
    run::<()>(&mut c, &["FAILOVER", "TO", "127.0.0.1", &r.port.to_string(), "TIMEOUT", "300"]);
    // The write is held back until the plan is given up.
    run::<()>(&mut c, &["SET", "k", "w"]);
    assert!(m.log().contains("aborted: Replica never caught up before timeout"), "{}", m.log());
    assert!(stream(&mut c).is_some());
    stop(&r, false);
    wait_in_sync(&m, &r);
}

#[test]
fn refusals_are_in_redis_words() {
    let m = start(&["--min-replicas-to-write", "1", "--min-replicas-max-lag", "5"]);
    let r = start(&[]);
    let mut c = m.connect();
    let error = |result: redis::RedisResult<Value>| result.unwrap_err().to_string();
    assert!(error(try_run(&mut c, &["SET", "k", "v"])).contains("Not enough good replicas to write."));
    follow(&r, m.port);
    // Replicas in good order are counted once a second.
    wait_for(10, "the replica counts", || try_run::<()>(&mut c, &["SET", "k", "v"]).is_ok());
    wait_in_sync(&m, &r);
    let mut replica = r.connect();
    assert!(error(try_run(&mut replica, &["SET", "k", "w"])).contains("You can't write against a read only replica."));
    assert!(error(try_run(&mut replica, &["FAILOVER"])).contains("FAILOVER is not valid when server is a replica."));
    assert!(error(try_run(&mut c, &["FAILOVER", "ABORT"])).contains("No failover in progress."));
    assert!(error(try_run(&mut c, &["REPLICAOF", "a", "70000"])).contains("Invalid master port"));
    assert!(error(try_run(&mut c, &["REPLCONF", "x", "y"])).contains("Unrecognized REPLCONF option: x"));
}

#[test]
fn a_replica_hides_what_has_expired_until_the_master_deletes_it() {
    let (m, r) = (start(&[]), start(&[]));
    follow(&r, m.port);
    wait_in_sync(&m, &r);
    let mut c = m.connect();
    // Long enough for the master to be stopped before, even on a busy machine.
    run::<()>(&mut c, &["SET", "k", "v", "PX", "2500"]);
    wait_in_sync(&m, &r);
    stop(&m, true);
    std::thread::sleep(Duration::from_millis(2600));
    let mut replica = r.connect();
    assert_eq!(run::<Option<String>>(&mut replica, &["GET", "k"]), None);
    assert_eq!(run::<i64>(&mut replica, &["DBSIZE"]), 1);
    stop(&m, false);
    assert_eq!(run::<Option<String>>(&mut c, &["GET", "k"]), None);
    wait_for(10, "the deletion arrives", || run::<i64>(&mut replica, &["DBSIZE"]) == 0);
}

/// Speaks the protocol of a replica by hand.
struct RawReplica(TcpStream);

impl RawReplica {
    fn connect(server: &TestServer) -> RawReplica {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        RawReplica(stream)
    }

    fn send(&mut self, line: &str) {
        self.0.write_all(format!("{line}\r\n").as_bytes()).expect("it is sent");
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") {
            self.0.read_exact(&mut byte).expect("a line");
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).trim_end().to_owned()
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).expect("bytes");
        bytes
    }
}

#[test]
fn the_stream_is_what_a_replica_expects_byte_for_byte() {
    let m = start(&["--repl-diskless-sync", "no"]);
    let mut c = m.connect();
    run::<()>(&mut c, &["SET", "k", "v"]);
    let mut raw = RawReplica::connect(&m);
    raw.send("REPLCONF listening-port 1234 capa eof capa psync2");
    assert_eq!(raw.line(), "+OK");
    raw.send("PSYNC ? -1");
    let full = raw.line();
    let words: Vec<&str> = full.split(' ').collect();
    assert_eq!((words[0], words.len()), ("+FULLRESYNC", 3));
    let (id, offset) = (words[1].to_owned(), words[2].parse::<i64>().expect("an offset"));
    let mut header = raw.line();
    while header.is_empty() {
        header = raw.line();
    }
    let rdb = raw.bytes(header.strip_prefix('$').expect("a length").parse().expect("a number"));
    assert!(rdb.starts_with(b"REDIS0011"));
    run::<()>(&mut c, &["SET", "a", "b"]);
    let expected = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n";
    assert_eq!(String::from_utf8_lossy(&raw.bytes(expected.len())), expected);
    drop(raw);

    // Another connection continues in the middle of it.
    let mut raw = RawReplica::connect(&m);
    raw.send("REPLCONF capa psync2");
    assert_eq!(raw.line(), "+OK");
    let select = "*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n".len() as i64;
    raw.send(&format!("PSYNC {id} {}", offset + 1 + select));
    assert_eq!(raw.line(), format!("+CONTINUE {id}"));
    let rest = &expected[select as usize..];
    assert_eq!(String::from_utf8_lossy(&raw.bytes(rest.len())), rest);
    let mut raw = RawReplica::connect(&m);
    raw.send(&format!("PSYNC {id} x"));
    assert_eq!(raw.line(), "-ERR value is not an integer or out of range");
    assert_eq!(run::<i64>(&mut c, &["DBSIZE"]), 2);
}

#[test]
fn nonsense_from_a_master_does_no_harm() {
    let r = start(&["--repl-timeout", "3"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let id = "0123456789abcdef0123456789abcdef01234567";
    let mut answers: Vec<Vec<u8>> = vec![
        b"".to_vec(),
        b"-LOADING wait\r\n".to_vec(),
        b"\xff\xfe\x00\r\n".to_vec(),
        b"+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC x\r\n$9\r\nREDIS9999".to_vec(),
        format!("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC {id} 1\r\n$99999999999999999999999\r\n").into_bytes(),
        format!("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC {id} 1\r\n$9\r\nREDIS9999").into_bytes(),
        format!("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC {id} 1\r\n-ERR no\r\n").into_bytes(),
        b"+PONG\r\n+OK\r\n+OK\r\n+CONTINUE\r\n*1\r\n$4\r\nPING\r\n*x\r\n".to_vec(),
        b"+PONG\r\n".repeat(50),
    ];
    let served = Arc::new(AtomicBool::new(false));
    let done = served.clone();
    std::thread::spawn(move || {
        answers.reverse();
        for mut stream in listener.incoming().flatten() {
            let Some(answer) = answers.pop() else { break };
            let _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer);
            let _ = stream.write_all(&answer);
            let _ = stream.read(&mut buffer);
            std::thread::sleep(Duration::from_millis(50));
        }
        done.store(true, Ordering::SeqCst);
    });
    follow(&r, port);
    let mut c = r.connect();
    wait_for(60, "all answers are given", || {
        assert_eq!(run::<String>(&mut c, &["PING"]), "PONG");
        served.load(Ordering::SeqCst)
    });
    run::<()>(&mut c, &["REPLICAOF", "NO", "ONE"]);
    run::<()>(&mut c, &["SET", "k", "v"]);
}

#[test]
fn a_master_whose_stream_holds_lines_is_left() {
    let r = start(&[]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    follow(&r, listener.local_addr().expect("an address").port());
    let (mut master, _) = listener.accept().expect("the replica");
    let id = "0123456789abcdef0123456789abcdef01234567";
    master.write_all(format!("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC {id} 1\r\n$18\r\n").as_bytes()).unwrap();
    // No keys, and no checksum.
    master.write_all(b"REDIS0011\xff\0\0\0\0\0\0\0\0").unwrap();
    let mut c = r.connect();
    wait_for(10, "it follows", || run::<String>(&mut c, &["INFO", "replication"]).contains("master_link_status:up"));
    master.write_all(b"\n*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n\r\nSET b 2\r\nSET c 3\r\n").unwrap();
    wait_for(10, "it has left", || r.log().contains("Connection with master lost."));
    assert!(
        r.log().contains("WARNING: Receiving inline protocol from master, master stream corruption?"),
        "{}",
        r.log()
    );
    assert!(!r.log().contains("Caching the disconnected master state."));
    assert_eq!(run::<i64>(&mut c, &["EXISTS", "a", "b", "c"]), 1);
}

/// The longest that an answer to PING, be it that the server loads, takes within `time`.
fn slowest_ping(c: &mut Connection, time: Duration) -> Duration {
    let (start, mut slowest) = (Instant::now(), Duration::ZERO);
    while start.elapsed() < time {
        let asked = Instant::now();
        let _ = try_run::<String>(c, &["PING"]);
        slowest = slowest.max(asked.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    slowest
}

/// A key of a snapshot with a value of 2 KB: with less than 1 KB, the load of a dataset does not begin.
fn large_item() -> Vec<u8> {
    [&[0, 1, b'z', 0x48, 0][..], &[b'z'; 0x800]].concat()
}

#[test]
fn a_small_dataset_is_loaded_in_one_go() {
    for load in ["disabled", "on-empty-db", "swapdb"] {
        let r = start(&["--repl-diskless-load", load]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        follow(&r, listener.local_addr().expect("an address").port());
        let (mut master, _) = listener.accept().expect("the replica");
        let id = "0123456789abcdef0123456789abcdef01234567";
        master.write_all(format!("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC {id} 1\r\n$25\r\n").as_bytes()).unwrap();
        let mut c = r.connect();
        // Nobody is told of a load while it waits for the rest, nor while it is done.
        for piece in [&b"REDIS0011"[..], b"\xfe\0\0\x01a\x01b", b"\xff\0\0\0\0\0\0\0\0"] {
            assert_ne!(try_run::<Option<String>>(&mut c, &["GET", "a"]).expect("no refusal"), Some("b".into()));
            master.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
        wait_for(10, "it is there", || try_run::<Option<String>>(&mut c, &["GET", "a"]).expect("no refusal").is_some());
    }
}

#[test]
fn a_master_that_falls_silent_within_a_dataset_holds_up_nobody() {
    let r = start(&["--repl-diskless-load", "swapdb", "--loading-process-events-interval-bytes", "1024"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    follow(&r, listener.local_addr().expect("an address").port());
    let (mut master, _) = listener.accept().expect("the replica");
    let (id, mark) = ("0123456789abcdef0123456789abcdef01234567", "m".repeat(40));
    master.write_all(format!("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC {id} 1\r\n$EOF:{mark}\r\n").as_bytes()).unwrap();
    let value = "v".repeat(50);
    let mut rdb = [&b"REDIS0011\xfe\0"[..], &large_item()].concat();
    let begins = rdb.len();
    for key in [b'a', b'b'] {
        rdb.extend([0, 1, key, value.len() as u8]);
        rdb.extend(value.as_bytes());
    }
    rdb.extend(b"\xff\0\0\0\0\0\0\0\0");
    rdb.extend(mark.as_bytes());
    // Up to the middle of the second value.
    let (first, rest) = rdb.split_at(begins + 90);
    master.write_all(first).unwrap();
    let mut c = r.connect();
    wait_for(10, "it loads", || run::<String>(&mut c, &["INFO", "persistence"]).contains("\r\nloading:1"));
    let slowest = slowest_ping(&mut c, Duration::from_secs(1));
    assert!(slowest < Duration::from_millis(150), "{slowest:?}");
    assert!(try_run::<String>(&mut c, &["GET", "a"]).unwrap_err().to_string().contains("loading"));
    for byte in rest {
        master.write_all(&[*byte]).unwrap();
        std::thread::sleep(Duration::from_millis(1));
    }
    wait_for(10, "it follows", || run::<String>(&mut c, &["INFO", "replication"]).contains("master_link_status:up"));
    assert_eq!(run::<Vec<String>>(&mut c, &["MGET", "a", "b"]), [value.clone(), value]);
    master.write_all(b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n").unwrap();
    wait_for(10, "the stream arrives", || run::<String>(&mut c, &["GET", "a"]) == "1");
}

#[test]
fn a_master_lost_within_a_dataset_leaves_the_old_one() {
    let r = start(&[
        "--repl-diskless-load",
        "swapdb",
        "--replica-read-only",
        "no",
        "--loading-process-events-interval-bytes",
        "1024",
    ]);
    let mut c = r.connect();
    run::<()>(&mut c, &["SET", "old", "v"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    follow(&r, listener.local_addr().expect("an address").port());
    let (mut master, _) = listener.accept().expect("the replica");
    let id = "0123456789abcdef0123456789abcdef01234567";
    master.write_all(format!("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC {id} 1\r\n$5000\r\n").as_bytes()).unwrap();
    master.write_all(&[b"REDIS0011\xfe\0", &large_item()[..], b"\0\x01a\x01b\0\x01c"].concat()).unwrap();
    wait_for(10, "it loads", || run::<String>(&mut c, &["INFO", "persistence"]).contains("\r\nloading:1"));
    drop(master);
    wait_for(10, "it gives up", || r.log().contains("Discarding temporary DB in background"));
    assert!(r.log().contains("assuming connection error, resuming operation."), "{}", r.log());
    // It tries again.
    listener.accept().expect("the replica");
    wait_for(10, "it serves", || try_run::<i64>(&mut c, &["EXISTS", "old", "a"]).is_ok());
    assert_eq!(run::<i64>(&mut c, &["EXISTS", "old", "a"]), 1);
}

#[test]
fn a_command_that_loads_does_not_end_a_synchronization_for_good() {
    let r = start(&["--repl-diskless-load", "swapdb", "--replica-read-only", "no", "--enable-debug-command", "yes"]);
    let mut c = r.connect();
    run::<()>(&mut c, &["SET", "old", "v"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    follow(&r, listener.local_addr().expect("an address").port());
    let answer =
        format!("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC {} 1\r\n$25\r\n", "0123456789abcdef".repeat(3).split_at(40).0);
    let dataset = b"REDIS0011\xfe\0\0\x01a\x01b\xff\0\0\0\0\0\0\0\0";
    for _ in 0..2 {
        let (mut master, _) = listener.accept().expect("the replica");
        master.write_all(&[answer.as_bytes(), &dataset[..12]].concat()).unwrap();
        wait_for(10, "it gathers", || {
            run::<String>(&mut c, &["INFO", "replication"]).contains("master_sync_in_progress:1")
        });
        run::<()>(&mut c, &["DEBUG", "RELOAD"]);
    }
    let (mut master, _) = listener.accept().expect("the replica");
    master.write_all(&[answer.as_bytes(), &dataset[..]].concat()).unwrap();
    wait_for(10, "it follows", || run::<String>(&mut c, &["INFO", "replication"]).contains("master_link_status:up"));
    assert_eq!(run::<String>(&mut c, &["GET", "a"]), "b");
}

#[test]
fn a_stream_right_after_a_short_dataset_is_followed() {
    for load in ["disabled", "swapdb"] {
        let r = start(&["--repl-diskless-load", load]);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        follow(&r, listener.local_addr().expect("an address").port());
        let (mut master, _) = listener.accept().expect("the replica");
        let id = "0123456789abcdef0123456789abcdef01234567";
        let mut all = format!("+PONG\r\n+OK\r\n+OK\r\n+FULLRESYNC {id} 1\r\n$18\r\n").into_bytes();
        all.extend(b"REDIS0011\xff\0\0\0\0\0\0\0\0*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n");
        master.write_all(&all).unwrap();
        let mut c = r.connect();
        wait_for(10, "the stream arrives", || {
            try_run::<Option<String>>(&mut c, &["GET", "a"]).is_ok_and(|value| value.as_deref() == Some("1"))
        });
    }
}

#[test]
fn a_replica_whose_log_cannot_be_switched_on_yet_serves_meanwhile() {
    let m = start(&[]);
    let r = start(&["--appendonly", "yes"]);
    let mut c = r.connect();
    let dir = r.dir.path().join("appendonlydir");
    std::fs::rename(&dir, r.dir.path().join("moved")).unwrap();
    std::fs::write(&dir, "no directory").unwrap();
    follow(&r, m.port);
    wait_for(10, "it tried", || r.log().contains("Failed enabling the AOF after successful master synchronization!"));
    let slowest = slowest_ping(&mut c, Duration::from_millis(1500));
    assert!(slowest < Duration::from_millis(500), "{slowest:?}");
    run::<()>(&mut m.connect(), &["SET", "k", "v"]);
    wait_for(10, "the stream is followed", || run::<Option<String>>(&mut c, &["GET", "k"]).is_some());
    assert!(run::<String>(&mut c, &["INFO", "persistence"]).contains("\r\naof_enabled:0"));
    std::fs::remove_file(&dir).unwrap();
    wait_for(10, "the log is on", || r.log().contains("Background AOF rewrite finished successfully"));
    assert!(run::<String>(&mut c, &["INFO", "persistence"]).contains("\r\naof_enabled:1"));
}

/// With a server of Redis 8 (`REDIS_8_SERVER`): a replica of ours takes its data set, whose format is a newer one, as long as
/// nothing is in it that 7.2 does not have; and says what there is otherwise.
#[test]
fn we_follow_a_redis_8_as_far_as_7_2_goes() {
    let Some(binary) = std::env::var_os("REDIS_8_SERVER") else {
        return common::left_out("REDIS_8_SERVER names no redis-server");
    };
    for cluster in ["no", "yes"] {
        let m = start_binary(Path::new(&binary), &["--cluster-enabled", cluster]);
        let mut c = m.connect();
        if cluster == "yes" {
            run::<()>(&mut c, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
            wait_for(10, "it serves", || try_run::<String>(&mut c, &["SET", "k", "v"]).is_ok());
        }
        fill(&mut c, 200, "plain");
        for words in [
            &["RPUSH", "l", "a", "b"][..],
            &["SADD", "s", "1", "2"],
            &["SADD", "S", "x", "y"],
            &["ZADD", "z", "1", "a"],
            &["HSET", "h", "f", "v"],
            &["XADD", "x", "1-1", "f", "v"],
            &["XADD", "x", "2-1", "f", "v"],
            &["XGROUP", "CREATE", "x", "g", "0"],
            &["XREADGROUP", "GROUP", "g", "me", "COUNT", "1", "STREAMS", "x", ">"],
        ] {
            run::<Value>(&mut c, words);
        }
        let options: &[&str] = if cluster == "yes" { &["--cluster-enabled", "yes"] } else { &[] };
        let r = start(options);
        let mut replica = r.connect();
        if cluster == "yes" {
            run::<()>(&mut replica, &["CLUSTER", "MEET", "127.0.0.1", &m.port.to_string()]);
            let id: String = run(&mut c, &["CLUSTER", "MYID"]);
            wait_for(20, "it follows", || try_run::<()>(&mut replica, &["CLUSTER", "REPLICATE", &id]).is_ok());
        } else {
            follow(&r, m.port);
        }
        wait_in_sync(&m, &r);
        if cluster == "yes" {
            run::<()>(&mut replica, &["READONLY"]);
        }
        assert_eq!(run::<i64>(&mut replica, &["DBSIZE"]), run::<i64>(&mut c, &["DBSIZE"]));
        assert_eq!(run::<Vec<String>>(&mut replica, &["LRANGE", "l", "0", "-1"]), ["a", "b"]);
        assert_eq!(run::<i64>(&mut replica, &["SCARD", "S"]), 2);
        assert_eq!(run::<String>(&mut replica, &["HGET", "h", "f"]), "v");
        let pending: Vec<Value> = run(&mut replica, &["XPENDING", "x", "g"]);
        assert_eq!((run::<i64>(&mut replica, &["XLEN", "x"]), &pending[0]), (2, &Value::Int(1)));
        run::<()>(&mut c, &["SET", "plain:1", "later"]);
        wait_in_sync(&m, &r);
        assert_eq!(run::<String>(&mut replica, &["GET", "plain:1"]), "later");
        if cluster == "yes" {
            continue;
        }
        // What it cannot hold it does not take in, says so, and goes on with what it has.
        run::<Value>(&mut c, &["HEXPIRE", "h", "1000", "FIELDS", "1", "f"]);
        let late = start(&[]);
        follow(&late, m.port);
        let wanted = "it has a hash whose fields have a time to live, which cannot be held here";
        wait_for(20, "it says why", || late.log().contains(wanted));
        assert_eq!(run::<String>(&mut late.connect(), &["PING"]), "PONG");
    }
}
