//! What operators see and do: start-up, the end, INFO, CLIENT, DEBUG, limits on clients, crash reports.

use crate::common;

use common::{SERVER, TestServer, free_port, wait_for};
use redis::{Connection, Value, cmd};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

fn ask(c: &mut Connection, words: &[&str]) -> Result<Value, redis::RedisError> {
    let mut command = cmd(words[0]);
    words[1..].iter().for_each(|w| {
        command.arg(*w);
    });
    command.query(c)
}

fn text(c: &mut Connection, words: &[&str]) -> String {
    match ask(c, words).unwrap_or_else(|e| panic!("{words:?}: {e}")) {
        Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Value::SimpleString(text) => text,
        Value::Okay => "OK".into(),
        Value::Int(n) => n.to_string(),
        other => panic!("{words:?}: {other:?}"),
    }
}

fn error(c: &mut Connection, words: &[&str]) -> String {
    match ask(c, words) {
        Err(e) => e.to_string(),
        Ok(value) => panic!("{words:?} should fail but gave {value:?}"),
    }
}

fn info(c: &mut Connection, section: &str) -> BTreeMap<String, String> {
    let all = text(c, &["INFO", section]);
    all.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k.to_string(), v.to_string())).collect()
}

/// The field of a client's line, found by the client's name.
fn client_field(c: &mut Connection, name: &str, field: &str) -> Option<String> {
    let list = text(c, &["CLIENT", "LIST"]);
    let line = list.lines().find(|l| l.contains(&format!(" name={name} ")))?;
    line.split(' ').find_map(|f| f.strip_prefix(&format!("{field}="))).map(str::to_string)
}

fn wait_exit(server: &mut TestServer) -> ExitStatus {
    let mut status = None;
    wait_for(20, "the server ends", || {
        status = server.child.try_wait().expect("a child");
        status.is_some()
    });
    status.expect("waited for")
}

const DEBUG: &[&str] = &["--enable-debug-command", "yes"];

#[test]
fn info_has_the_fields_of_a_7_2_server() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let everything = text(&mut c, &["INFO", "everything"]);
    let (mut section, mut ours) = (String::new(), BTreeSet::new());
    for line in everything.lines() {
        if let Some(title) = line.strip_prefix("# ") {
            section = title.to_string();
            ours.insert((section.clone(), String::new()));
        } else if let Some((name, _)) = line.split_once(':') {
            ours.insert((section.clone(), name.to_string()));
        }
    }
    let facts = include_str!("facts/info-fields-7.2.txt");
    for line in facts.lines() {
        match line.strip_prefix("# ") {
            Some(title) => {
                section = title.to_string();
                assert!(ours.contains(&(section.clone(), String::new())), "no section {section}");
            }
            // What commands ran, and with which errors, is another matter.
            None if section.ends_with("stats") && section != "Stats" => {}
            // No C compiler built this: `rustc_version` tells what did.
            None if line == "gcc_version" || line == "atomicvar_api" => {}
            None => assert!(ours.contains(&(section.clone(), line.to_string())), "{section} lacks {line}"),
        }
    }
    assert_eq!(info(&mut c, "server")["redis_version"], "7.2.6");
    assert_eq!(info(&mut c, "server")["server_name"], "hexad");
    assert!(!text(&mut c, &["INFO"]).contains("# Commandstats"));
    assert!(text(&mut c, &["INFO", "keyspace", "Commandstats"]).contains("cmdstat_info:calls="));
    assert_eq!(text(&mut c, &["INFO", "no-such-section"]), "");
}

/// What INFO commandstats says of a command: calls, rejected, failed.
fn command_counts(c: &mut Connection, name: &str) -> [u64; 3] {
    let stats = info(c, "commandstats");
    let field = |key: &str| {
        let fields = stats[&format!("cmdstat_{name}")].split(',');
        fields.filter_map(|f| f.split_once('=')).find(|(k, _)| *k == key).map(|(_, v)| v.parse().unwrap()).unwrap()
    };
    [field("calls"), field("rejected_calls"), field("failed_calls")]
}

#[test]
fn pipelined_commands_are_counted_one_by_one() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    text(&mut c, &["RPUSH", "list", "x"]);
    text(&mut c, &["CONFIG", "RESETSTAT"]);
    // Quick ones in a row, some of which fail, are refused, or are others.
    let mut pipe = redis::pipe();
    for i in 0..30 {
        pipe.cmd("GET").arg("k");
        if i % 10 == 3 {
            pipe.cmd("GET").arg("list");
            pipe.cmd("GET").arg("too").arg("many");
            pipe.cmd("INCR").arg("n");
        }
    }
    pipe.cmd("INFO").arg("commandstats");
    pipe.cmd("PING");
    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.write_all(&pipe.get_packed_pipeline()).unwrap();
    let (mut replies, mut piece) = (Vec::new(), [0; 4096]);
    while !replies.ends_with(b"+PONG\r\n") {
        let len = stream.read(&mut piece).unwrap();
        assert!(len > 0, "the server closed");
        replies.extend_from_slice(&piece[..len]);
    }
    let replies = String::from_utf8(replies).unwrap();
    assert!(replies.contains("cmdstat_get:calls=33,"), "INFO counts what ran before it: {replies}");
    assert_eq!(command_counts(&mut c, "get"), [33, 3, 3]);
    assert_eq!(command_counts(&mut c, "incr"), [3, 0, 0]);
    let latency = format!("{:?}", ask(&mut c, &["LATENCY", "HISTOGRAM", "get"]));
    assert!(latency.contains("int(33)"), "{latency}");
    // When every call is to be found in the slow log, every call is timed by itself.
    text(&mut c, &["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    text(&mut c, &["SLOWLOG", "RESET"]);
    let mut pipe = redis::pipe();
    (0..20).for_each(|_| {
        pipe.cmd("GET").arg("k");
    });
    pipe.exec(&mut c).unwrap();
    assert_eq!(text(&mut c, &["SLOWLOG", "LEN"]), "21");
}

#[test]
fn clients_are_listed_named_and_killed() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let mut other = server.connect();
    text(&mut other, &["CLIENT", "SETNAME", "other"]);
    assert_eq!(text(&mut other, &["CLIENT", "GETNAME"]), "other");
    assert!(error(&mut other, &["CLIENT", "SETNAME", "a b"]).contains("Client names cannot contain spaces"));
    assert_eq!(client_field(&mut c, "other", "cmd").as_deref(), Some("client|setname"));
    assert!(error(&mut c, &["CLIENT", "KILL", "000.123.321.567:0000"]).contains("No such client"));
    assert!(error(&mut c, &["CLIENT", "KILL", "ID", "0"]).contains("client-id should be greater than 0"));
    assert!(error(&mut c, &["CLIENT", "KILL", "TYPE", "wrong"]).contains("Unknown client type 'wrong'"));
    let id = client_field(&mut c, "other", "id").unwrap();
    assert_eq!(text(&mut c, &["CLIENT", "KILL", "ID", &id]), "1");
    assert_eq!(client_field(&mut c, "other", "id"), None);
    assert!(ask(&mut other, &["PING"]).is_err());
    assert!(error(&mut c, &["CLIENT", "LIST", "ID", "x"]).contains("Invalid client ID"));
    assert!(text(&mut c, &["CLIENT", "INFO"]).contains(" lib-name="));
    assert_eq!(text(&mut c, &["CLIENT", "UNBLOCK", "999"]), "0");
}

#[test]
fn connections_are_listed_and_killed_by_what_they_are() {
    let server = TestServer::start(&["--user", "bob", "on", ">x", "+@all"]);
    let mut c = server.connect();
    // Four connections besides `c`, each with something of its own.
    let mut others: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    for (n, other) in others.iter_mut().enumerate() {
        text(other, &["CLIENT", "SETNAME", &format!("n{n}")]);
    }
    text(&mut c, &["CLIENT", "SETNAME", "me"]);
    text(&mut others[0], &["AUTH", "bob", "x"]);
    text(&mut others[1], &["SELECT", "3"]);
    text(&mut others[2], &["CLIENT", "SETINFO", "LIB-NAME", "lib"]);
    text(&mut others[2], &["CLIENT", "SETINFO", "LIB-VER", "1.2"]);
    text(&mut others[3], &["MULTI"]);
    let ids: Vec<String> = (0..4).map(|n| client_field(&mut c, &format!("n{n}"), "id").unwrap()).collect();
    let addr = client_field(&mut c, "n1", "addr").unwrap();
    let mut listed = |filter: &[&str]| {
        let lines = text(&mut c, &[&["CLIENT", "LIST"], filter].concat());
        let name = |line: &str| line.split(" name=").nth(1).unwrap().split(' ').next().unwrap().to_string();
        lines.lines().map(name).collect::<Vec<_>>().join(" ")
    };
    for (filter, expected) in [
        (&["USER", "bob"][..], "n0"),
        (&["NOT-USER", "bob", "SKIPME", "YES"], "n1 n2 n3"),
        (&["DB", "3"], "n1"),
        (&["not-db", "3"], "me n0 n2 n3"),
        (&["ADDR", &addr], "n1"),
        (&["NOT-ADDR", &addr, "NOT-NAME", "me"], "n0 n2 n3"),
        (&["IP", "127.0.0.1", "SKIPME", "yes"], "n0 n1 n2 n3"),
        (&["NOT-IP", "127.0.0.1"], ""),
        (&["IP", "nowhere"], ""),
        (&["LIB-NAME", "lib", "LIB-VER", "1.2"], "n2"),
        (&["LIB-NAME", "lib", "LIB-VER", "1.3"], ""),
        (&["NOT-LIB-NAME", "lib", "SKIPME", "YES"], "n0 n1 n3"),
        (&["FLAGS", "x"], "n3"),
        (&["FLAGS", "xN"], ""),
        (&["NOT-FLAGS", "N"], "n3"),
        (&["NAME", "n1", "NAME", "n2"], "n2"),
        (&["ID", &ids[2], &ids[0], "ID", &ids[1], &ids[2]], "n2 n0 n1 n2"),
        (&["ID", &ids[2], &ids[0], "NAME", "n0"], "n0"),
        (&["NOT-ID", &ids[2], &ids[0], "TYPE", "normal"], "me n1 n3"),
        (&["TYPE", "replica", "TYPE", "normal", "NOT-TYPE", "normal"], ""),
        (&["TYPE", "primary"], ""),
        (&["MAXAGE", "1000"], ""),
        (&["IDLE", "1000"], ""),
    ] {
        assert_eq!(listed(filter), expected, "{filter:?}");
    }
    for (filter, expected) in [
        (&["FLAGS", "Q"][..], "Unknown flags found in the provided filter: Q"),
        (&["DB", "16"], "DB number should be between 0 and 15"),
        (&["DB", "x"], "DB is not an integer or out of range"),
        (&["IDLE", "x"], "idle is not an integer or out of range"),
        (&["MAXAGE", "0"], "maxage should be greater than 0"),
        (&["NOT-IDLE", "1"], "syntax error"),
        (&["NOT-SKIPME", "YES"], "syntax error"),
        (&["SKIPME", "PERHAPS"], "syntax error"),
        (&["NAME"], "syntax error"),
        (&["ID", "1", "x"], "Invalid client ID"),
        (&["NOT-USER", "eve"], "No such user 'eve'"),
    ] {
        assert!(error(&mut c, &[&["CLIENT", "LIST"], filter].concat()).contains(expected), "{filter:?}");
    }
    std::thread::sleep(Duration::from_millis(2100));
    ask(&mut others[1], &["PING"]).unwrap();
    assert_eq!(text(&mut c, &["CLIENT", "LIST", "IDLE", "2"]).lines().count(), 3);
    assert_eq!(text(&mut c, &["CLIENT", "LIST", "MAXAGE", "2"]).lines().count(), 5);
    let mut killed = |filter: &[&str]| ask(&mut c, &[&["CLIENT", "KILL"], filter].concat()).unwrap();
    assert_eq!(killed(&["NAME", "n1", "IDLE", "2"]), Value::Int(0));
    assert_eq!(killed(&["ID", &ids[0], &ids[0], &ids[1]]), Value::Int(2));
    assert_eq!(killed(&["NOT-FLAGS", "N"]), Value::Int(1));
    assert_eq!(killed(&["MAXAGE", "1"]), Value::Int(1));
    assert_eq!(killed(&["DB", "0"]), Value::Int(0));
    assert_eq!(killed(&["DB", "0", "SKIPME", "NO"]), Value::Int(1));
}

#[test]
fn the_clients_of_a_user_are_killed() {
    let server = TestServer::start(&["--user", "bob", "on", ">x", "+@all"]);
    let mut c = server.connect();
    let mut bob = server.connect();
    ask(&mut bob, &["AUTH", "bob", "x"]).unwrap();
    assert!(error(&mut c, &["CLIENT", "KILL", "USER", "eve"]).ends_with("ResponseError: No such user 'eve'"));
    assert_eq!(ask(&mut c, &["CLIENT", "KILL", "USER", "bob"]).unwrap(), Value::Int(1));
    assert!(ask(&mut bob, &["PING"]).is_err());
    // The stream of a primary is no user's.
    let replica = TestServer::start(&["--replicaof", "127.0.0.1", &server.port.to_string()]);
    let mut r = replica.connect();
    let is_up = |r: &mut Connection| info(r, "replication")["master_link_status"] == "up";
    common::wait_for(20, "the replica follows", || is_up(&mut r));
    assert_eq!(ask(&mut r, &["CLIENT", "KILL", "USER", "default"]).unwrap(), Value::Int(0));
    assert_eq!(ask(&mut r, &["CLIENT", "KILL", "TYPE", "master"]).unwrap(), Value::Int(1));
}

#[test]
fn numbers_that_are_none_are_refused_in_redis_words() {
    let server = TestServer::start(&["--enable-debug-command", "local"]);
    let mut c = server.connect();
    ask(&mut c, &["SET", "key", "1"]).unwrap();
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for (command, expected) in [
        (&["SELECT", "abc"][..], "ResponseError: value is not an integer or out of range"),
        (
            &["SELECT", "9999999999"],
            "ResponseError: value is out of range, value must between -2147483648 and 2147483647",
        ),
        (&["SELECT", "99"], "ResponseError: DB index is out of range"),
        (&["WAITAOF", "2", "0", "0"], "ResponseError: value is out of range, value must between 0 and 1"),
        (&["WAITAOF", "0", "x", "0"], "ResponseError: value is out of range, must be positive"),
        (&["MIGRATE", "127.0.0.1", &refused, "key", "0", "1000"], "IOERR: error or timeout writing to target instance"),
        (&["DEBUG", "POPULATE", "x"], "ResponseError: value is out of range, must be positive"),
        (
            &["ACL", "GENPASS", "5", "5"],
            "ResponseError: unknown subcommand or wrong number of arguments for 'GENPASS'. Try ACL HELP.",
        ),
        (
            &["CLIENT", "UNBLOCK", "5", "ERROR", "x"],
            "ResponseError: unknown subcommand or wrong number of arguments for 'UNBLOCK'. Try CLIENT HELP.",
        ),
    ] {
        let error = error(&mut c, command);
        assert!(error.ends_with(expected), "{command:?} {error}");
    }
    assert_eq!(text(&mut c, &["DEBUG", "STRINGMATCH-TEST"]), "Apparently Redis did not crash: test passed");
    // A backlog has a least size.
    ask(&mut c, &["CONFIG", "SET", "repl-backlog-size", "1kb"]).unwrap();
    assert_eq!(info(&mut c, "replication")["repl_backlog_size"], "16384");
}

#[test]
fn a_pause_holds_writes_back() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    text(&mut c, &["CLIENT", "PAUSE", "60000", "WRITE"]);
    let client = server.client();
    let writer = std::thread::spawn(move || {
        let mut w = client.get_connection().unwrap();
        let replies: Vec<String> =
            redis::pipe().cmd("SET").arg("k").arg("v").cmd("GET").arg("k").query(&mut w).unwrap();
        replies
    });
    wait_for(5, "the write is held back", || info(&mut c, "clients")["blocked_clients"] == "1");
    assert!(matches!(ask(&mut c, &["GET", "k"]), Ok(Value::Nil)));
    text(&mut c, &["CLIENT", "UNPAUSE"]);
    assert_eq!(writer.join().unwrap(), ["OK", "v"]);
}

#[test]
fn clients_that_do_not_read_are_closed() {
    let server = TestServer::start(&["--client-output-buffer-limit", "normal 100000 0 0"]);
    let mut c = server.connect();
    text(&mut c, &["SET", "big", &"x".repeat(200_000)]);
    let mut slow = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    slow.write_all(b"GET big\r\n").unwrap();
    let mut received = Vec::new();
    // It is closed before anything is sent.
    let _ = slow.read_to_end(&mut received);
    assert!(received.len() < 200_000);
    assert!(server.log().contains("scheduled to be closed ASAP for overcoming of output buffer limits."));
}

#[test]
fn the_largest_clients_are_evicted() {
    let server = TestServer::start(&["--maxmemory-clients", "3mb"]);
    let mut c = server.connect();
    let mut greedy = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    greedy.write_all(b"*2\r\n$3\r\nGET\r\n$4000000\r\n").unwrap();
    let _ = greedy.write_all(&vec![b'x'; 3_900_000]);
    wait_for(5, "the client is evicted", || info(&mut c, "stats")["evicted_clients"] == "1");
    assert!(server.log().contains("Evicting client: "));
    assert_eq!(text(&mut c, &["PING"]), "PONG");
}

#[test]
fn slow_commands_are_noted_without_secrets() {
    let server = TestServer::start(&["--slowlog-log-slower-than", "0"]);
    let mut c = server.connect();
    text(&mut c, &["SLOWLOG", "RESET"]);
    text(&mut c, &["CONFIG", "SET", "masterauth", "secret"]);
    text(&mut c, &["SET", "k", &"v".repeat(200)]);
    let Ok(Value::Array(entries)) = ask(&mut c, &["SLOWLOG", "GET"]) else { panic!("an array") };
    let all = format!("{entries:?}");
    assert!(all.contains("(redacted)") && all.contains("... (72 more bytes)") && !all.contains("secret"), "{all}");
    assert!(error(&mut c, &["SLOWLOG", "GET", "-2"]).contains("count should be greater than or equal to -1"));
    text(&mut c, &["CONFIG", "SET", "slowlog-log-slower-than", "-1"]);
    text(&mut c, &["SLOWLOG", "RESET"]);
    assert_eq!(text(&mut c, &["SLOWLOG", "LEN"]), "0");
}

#[test]
fn latency_events_are_noted() {
    let server = TestServer::start(&[DEBUG, &["--latency-monitor-threshold", "50"]].concat());
    let mut c = server.connect();
    text(&mut c, &["DEBUG", "SLEEP", "0.1"]);
    let Ok(Value::Array(latest)) = ask(&mut c, &["LATENCY", "LATEST"]) else { panic!("an array") };
    assert!(format!("{latest:?}").contains("command"), "{latest:?}");
    assert!(text(&mut c, &["LATENCY", "GRAPH", "command"]).contains("command - high "));
    assert!(text(&mut c, &["LATENCY", "DOCTOR"]).contains("1. command: 1 latency spikes"));
    assert!(error(&mut c, &["LATENCY", "GRAPH", "none"]).contains("No samples available for event 'none'"));
    assert_eq!(text(&mut c, &["LATENCY", "RESET"]), "1");
    let Ok(Value::Array(histogram)) = ask(&mut c, &["LATENCY", "HISTOGRAM", "debug"]) else { panic!("an array") };
    assert!(format!("{histogram:?}").contains("histogram_usec"), "{histogram:?}");
}

/// A connection with a number that CLIENT UNBLOCK takes.
struct Waiter {
    link: TcpStream,
    id: String,
}

impl Waiter {
    fn new(server: &TestServer) -> Waiter {
        let link = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        link.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut waiter = Waiter { link, id: String::new() };
        waiter.send("CLIENT ID");
        waiter.id = waiter.line()[1..].to_string();
        waiter
    }

    /// Sends an inline command.
    fn send(&mut self, command: &str) {
        self.link.write_all(format!("{command}\r\n").as_bytes()).unwrap();
    }

    /// Reads a line of a reply, byte by byte so that nothing after it is lost; what there is if the connection ends.
    fn line(&mut self) -> String {
        let (mut line, mut byte) = (Vec::new(), [0]);
        while !line.ends_with(b"\r\n") && self.link.read(&mut byte).unwrap() == 1 {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).trim_end().to_string()
    }
}

/// What INFO commandstats says of a command: calls, microseconds, rejected calls, failed calls.
fn command_stats(c: &mut Connection, name: &str) -> [u64; 4] {
    let stats = info(c, "commandstats");
    let Some(row) = stats.get(&format!("cmdstat_{name}")) else { return [0; 4] };
    ["calls", "usec", "rejected_calls", "failed_calls"].map(|field| {
        let value = row.split(',').find_map(|f| f.strip_prefix(&format!("{field}="))).expect("a field of the row");
        value.parse().expect("a number")
    })
}

/// How long the clients below wait, and what a command may take to run, in microseconds.
const WAITED_US: u64 = 600_000;
const RUN_US: u64 = 500_000;

#[test]
fn time_spent_waiting_is_no_run_time() {
    let limits = ["--slowlog-log-slower-than", "500000", "--latency-monitor-threshold", "500"];
    let server = TestServer::start(&limits);
    let mut c = server.connect();
    text(&mut c, &["XGROUP", "CREATE", "s", "g", "$", "MKSTREAM"]);
    text(&mut c, &["ACL", "SETUSER", "u", "on", "nopass", "+@all", "~*"]);
    let mut clients: Vec<Waiter> = (0..9).map(|_| Waiter::new(&server)).collect();
    let [late, timeout, failed, gone, served, wait, waitaof, refused, demoted] = &mut clients[..] else { panic!() };
    refused.send("AUTH u x");
    assert_eq!(refused.line(), "+OK");
    text(&mut c, &["CONFIG", "RESETSTAT"]);
    late.send("BLPOP none 0.6");
    timeout.send("BZPOPMIN none 0");
    failed.send("BLMOVE none other LEFT LEFT 0");
    gone.send("XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
    served.send("BRPOP none l 0");
    wait.send("WAIT 1 600");
    waitaof.send("WAITAOF 0 1 600");
    refused.send("BLMPOP 0 1 m LEFT");
    demoted.send("XREAD BLOCK 0 STREAMS t $");
    wait_for(10, "all are blocked", || info(&mut c, "clients")["blocked_clients"] == "9");
    assert_eq!(info(&mut c, "clients")["total_blocking_keys"], "5");
    std::thread::sleep(Duration::from_micros(WAITED_US));
    assert_eq!(late.line(), "*-1");
    text(&mut c, &["CLIENT", "UNBLOCK", &timeout.id]);
    assert_eq!(timeout.line(), "*-1");
    text(&mut c, &["CLIENT", "UNBLOCK", &failed.id, "ERROR"]);
    assert!(failed.line().starts_with("-UNBLOCKED client unblocked via CLIENT UNBLOCK"));
    text(&mut c, &["DEL", "s"]);
    assert!(gone.line().starts_with("-NOGROUP"));
    text(&mut c, &["RPUSH", "l", "x"]);
    assert_eq!(served.line(), "*2");
    assert_eq!(wait.line(), ":0");
    assert_eq!(waitaof.line(), "*2");
    text(&mut c, &["ACL", "SETUSER", "u", "-blmpop"]);
    text(&mut c, &["RPUSH", "m", "x"]);
    assert!(refused.line().starts_with("-NOPERM"));
    text(&mut c, &["REPLICAOF", "127.0.0.1", "1"]);
    assert!(demoted.line().starts_with("-UNBLOCKED force unblock"));

    for (name, calls, rejected, failed) in [
        ("blpop", 1, 0, 0),
        ("bzpopmin", 1, 0, 0),
        ("blmove", 1, 0, 1),
        ("xreadgroup", 1, 0, 1),
        ("brpop", 1, 0, 0),
        ("wait", 1, 0, 0),
        ("waitaof", 1, 0, 0),
        ("blmpop", 0, 1, 0),
        ("xread", 1, 0, 1),
    ] {
        let [c, us, r, f] = command_stats(&mut c, name);
        assert_eq!((c, r, f), (calls, rejected, failed), "{name}");
        assert!(us < RUN_US, "{name} took {us} us");
    }
    assert_eq!(info(&mut c, "errorstats").len(), 3);
    assert_eq!(info(&mut c, "clients")["blocked_clients"], "0");
    assert_eq!(text(&mut c, &["SLOWLOG", "LEN"]), "0");
    assert_eq!(ask(&mut c, &["LATENCY", "LATEST"]), Ok(Value::Array(vec![])));
    for (name, percentiles) in info(&mut c, "latencystats") {
        let worst: f64 = percentiles.rsplit('=').next().and_then(|p| p.parse().ok()).expect("a number");
        assert!(worst < RUN_US as f64, "{name}: {percentiles}");
    }
}

#[test]
fn a_refused_command_that_waited_leaves_nothing_to_the_next() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    text(&mut c, &["ACL", "SETUSER", "u", "on", "nopass", "+@all", "~*"]);
    let mut waiter = Waiter::new(&server);
    waiter.send("AUTH u x");
    assert_eq!(waiter.line(), "+OK");
    waiter.send("BLPOP l 0");
    wait_for(10, "it is blocked", || info(&mut c, "clients")["blocked_clients"] == "1");
    text(&mut c, &["ACL", "SETUSER", "u", "-blpop"]);
    text(&mut c, &["RPUSH", "l", "x"]);
    assert!(waiter.line().starts_with("-NOPERM"));
    let mut monitor = Waiter::new(&server);
    monitor.send("MONITOR");
    assert_eq!(monitor.line(), "+OK");
    // Monitors see a command when it blocks and not when it runs again: this one has not blocked.
    waiter.send("LLEN l");
    assert_eq!(waiter.line(), ":1");
    assert!(monitor.line().ends_with(r#""LLEN" "l""#));
    assert_eq!(command_stats(&mut c, "llen")[0], 1);
    assert_eq!(command_stats(&mut c, "blpop")[0], 0);
}

#[test]
fn a_shutdown_that_is_called_off_has_failed() {
    let primary = TestServer::start(&["--shutdown-timeout", "600"]);
    let replica = TestServer::start(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]);
    let mut c = primary.connect();
    wait_for(20, "the replica is in step", || text(&mut c, &["WAIT", "1", "1"]) == "1");
    replica.signal("-STOP");
    text(&mut c, &["SET", "k", "v"]);
    let mut waiter = Waiter::new(&primary);
    waiter.send("SHUTDOWN NOSAVE");
    wait_for(10, "it waits", || info(&mut c, "clients")["blocked_clients"] == "1");
    std::thread::sleep(Duration::from_micros(WAITED_US));
    text(&mut c, &["SHUTDOWN", "ABORT"]);
    replica.signal("-CONT");
    assert!(waiter.line().starts_with("-ERR Errors trying to SHUTDOWN"));
    let [calls, us, _, failed] = command_stats(&mut c, "shutdown");
    assert_eq!((calls, failed), (2, 1));
    assert!(us < RUN_US, "{us} us");
}

#[test]
fn monitors_see_commands_in_order() {
    let server = TestServer::start(&[]);
    let mut monitor = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    monitor.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut seen = String::new();
    let mut buffer = [0; 4096];
    while !seen.contains("+OK") {
        let n = monitor.read(&mut buffer).unwrap();
        seen += &String::from_utf8_lossy(&buffer[..n]);
    }
    let mut c = server.connect();
    text(&mut c, &["SET", "k", "a\nb\"c"]);
    let _ = ask(&mut c, &["AUTH", "user", "secret"]);
    while !seen.contains("(redacted)") {
        let n = monitor.read(&mut buffer).unwrap();
        seen += &String::from_utf8_lossy(&buffer[..n]);
    }
    assert!(seen.contains(r#""SET" "k" "a\nb\"c""#), "{seen}");
    assert!(!seen.contains("secret"), "{seen}");
    // A monitor is to the keyspace what a replica is, and what is replicated is part of that.
    monitor.write_all(b"PUBLISH channel message\r\n").unwrap();
    while !seen.contains("-ERR Replica can't interact with the keyspace\r\n") {
        let n = monitor.read(&mut buffer).unwrap();
        seen += &String::from_utf8_lossy(&buffer[..n]);
    }
}

#[test]
fn large_replies_do_not_wait_for_the_cron() {
    let server = TestServer::start(&["--hz", "1"]);
    let mut c = server.connect();
    let mut reader = Waiter::new(&server);
    let text_len = 16_000_000;
    text(&mut c, &["SETRANGE", "k", &(text_len - 1).to_string(), "x"]);
    let began = std::time::Instant::now();
    // One is sent from where it lies, the other is made.
    reader.send("GET k");
    reader.send("EVAL \"return redis.call('GET','k')\" 0");
    for _ in 0..2 {
        assert_eq!(reader.line(), format!("${text_len}"));
        reader.link.read_exact(&mut vec![0; text_len]).unwrap();
        assert_eq!(reader.line(), "");
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn commands_describe_themselves() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let Ok(Value::Array(info)) = ask(&mut c, &["COMMAND", "INFO", "get", "no-such", "client|kill"]) else { panic!() };
    assert_eq!(info.len(), 3);
    assert!(matches!(&info[0], Value::Array(row) if row.len() == 10));
    assert_eq!(info[1], Value::Nil);
    let Ok(Value::Array(keys)) = ask(&mut c, &["COMMAND", "GETKEYS", "SET", "a", "b"]) else { panic!() };
    assert_eq!(keys, [Value::BulkString(b"a".to_vec())]);
    assert!(error(&mut c, &["COMMAND", "GETKEYS", "PING"]).contains("The command has no key arguments"));
    assert!(error(&mut c, &["COMMAND", "GETKEYS", "GET"]).contains("Invalid number of arguments"));
    let count: i64 = text(&mut c, &["COMMAND", "COUNT"]).parse().unwrap();
    let Ok(Value::Array(all)) = ask(&mut c, &["COMMAND"]) else { panic!() };
    assert_eq!(all.len() as i64, count);
    let Ok(Value::Array(list)) = ask(&mut c, &["COMMAND", "LIST", "FILTERBY", "PATTERN", "client|*"]) else { panic!() };
    assert!(list.contains(&Value::BulkString(b"client|list".to_vec())));
    assert!(error(&mut c, &["CLIENT", "NONSENSE"]).contains("unknown subcommand 'NONSENSE'. Try CLIENT HELP."));
}

#[test]
fn shutdown_and_signals_end_the_server_with_status_0() {
    let mut server = TestServer::start(&["--pidfile", "server.pid", "--unixsocket", "server.sock"]);
    let mut c = server.connect();
    assert!(error(&mut c, &["SHUTDOWN", "ABORT"]).contains("No shutdown in progress."));
    assert!(error(&mut c, &["SHUTDOWN", "SAVE", "NOSAVE"]).contains("syntax error"));
    assert!(server.dir.path().join("server.pid").exists());
    let _ = ask(&mut c, &["SHUTDOWN", "NOSAVE"]);
    assert_eq!(wait_exit(&mut server).code(), Some(0));
    let log = server.log();
    for line in [
        "User requested shutdown...",
        "Removing the pid file.",
        "Removing the unix socket file.",
        "Redis is now ready to exit, bye bye...",
    ] {
        assert!(log.contains(line), "{line}");
    }
    assert!(!server.dir.path().join("server.pid").exists() && !server.dir.path().join("server.sock").exists());

    server.restart();
    let pid = nix::unistd::Pid::from_raw(server.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(wait_exit(&mut server).code(), Some(0));
    assert!(server.log().contains("Received SIGTERM scheduling shutdown..."));
}

#[test]
fn a_signalled_shutdown_can_be_called_off() {
    let server = TestServer::start(DEBUG);
    let mut c = server.connect();
    text(&mut c, &["DEBUG", "PAUSE-CRON", "1"]);
    let pid = nix::unistd::Pid::from_raw(server.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    wait_for(5, "the signal arrives", || server.log().contains("Received SIGTERM"));
    assert_eq!(text(&mut c, &["SHUTDOWN", "ABORT"]), "OK");
    text(&mut c, &["DEBUG", "PAUSE-CRON", "0"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(text(&mut c, &["PING"]), "PONG");
    assert!(server.log().contains("Shutdown manually aborted."));
}

#[test]
fn a_signal_that_comes_while_the_first_aof_is_written_is_obeyed_then() {
    let mut server = TestServer::start(&["--save", "", "--rdb-key-save-delay", "20000"]);
    let mut c = server.connect();
    (0..50).for_each(|i| assert_eq!(text(&mut c, &["SET", &format!("key:{i}"), "x"]), "OK"));
    text(&mut c, &["CONFIG", "SET", "appendonly", "yes"]);
    assert_eq!(info(&mut c, "persistence")["aof_rewrite_in_progress"], "1");
    assert!(error(&mut c, &["SHUTDOWN"]).contains("Errors trying to SHUTDOWN"));
    let pid = nix::unistd::Pid::from_raw(server.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    wait_for(5, "the signal cannot be obeyed", || server.log().contains("going to exit when the AOF is written"));
    assert_eq!(text(&mut c, &["SHUTDOWN", "ABORT"]), "OK");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(wait_exit(&mut server).code(), Some(0));
    let log = server.log();
    assert_eq!(log.matches("Writing initial AOF, can't exit.").count(), 3, "{log}");
    assert!(server.dir.path().join("appendonlydir/appendonly.aof.1.base.rdb").exists());
}

#[test]
fn a_crash_leaves_a_report_and_ends_by_its_signal() {
    let mut server = TestServer::start(DEBUG);
    let mut c = server.connect();
    let _ = ask(&mut c, &["DEBUG", "SEGFAULT"]);
    assert_eq!(wait_exit(&mut server).signal(), Some(libc::SIGSEGV));
    let log = server.log();
    let mut rest = log.as_str();
    for part in [
        "=== REDIS BUG REPORT START: Cut & paste starting from here ===",
        "Redis 7.2.6 crashed by signal: 11, si_code: ",
        "------ STACK TRACE ------",
        "commands::debug",
        "------ INFO OUTPUT ------",
        "# Server",
        "------ CLIENT LIST OUTPUT ------",
        "------ CURRENT CLIENT INFO ------",
        "cmd=debug",
        "=== REDIS BUG REPORT END. Make sure to include from START to END. ===",
    ] {
        let at = rest.find(part).unwrap_or_else(|| panic!("{part} is missing or out of order:\n{log}"));
        rest = &rest[at..];
    }
}

#[test]
fn broken_invariants_leave_a_report() {
    for (sub, line) in [
        ("PANIC", "Guru Meditation: DEBUG PANIC called at Unix time "),
        ("ASSERT", "=== ASSERTION FAILED ==="),
        ("OOM", "Out Of Memory allocating "),
    ] {
        let mut server = TestServer::start(DEBUG);
        let mut c = server.connect();
        let _ = ask(&mut c, &["DEBUG", sub]);
        assert_eq!(wait_exit(&mut server).signal(), Some(libc::SIGABRT), "{sub}");
        assert!(server.log().contains(line), "{sub}: {line}");
    }
}

#[test]
fn a_restarted_server_is_the_same_process_with_its_data() {
    let server = TestServer::start(DEBUG);
    let mut c = server.connect();
    let run_id = info(&mut c, "server")["run_id"].clone();
    let _ = ask(&mut c, &["DEBUG", "CRASH-AND-RECOVER"]);
    wait_for(10, "the server is back", || {
        server.client().get_connection().is_ok_and(|mut c| info(&mut c, "server")["run_id"] != run_id)
    });
    let mut c = server.connect();
    assert_eq!(info(&mut c, "server")["process_id"], server.pid().to_string());
}

#[test]
fn debug_answers_with_every_type() {
    let server = TestServer::start(DEBUG);
    let mut c = server.connect();
    assert_eq!(text(&mut c, &["DEBUG", "PROTOCOL", "string"]), "Hello World");
    assert_eq!(error(&mut c, &["DEBUG", "ERROR", "OOPS it went wrong"]), "OOPS: it went wrong");
    assert!(
        error(&mut c, &["DEBUG", "NONSENSE"])
            .contains("unknown subcommand or wrong number of arguments for 'NONSENSE'")
    );
    text(&mut c, &["DEBUG", "POPULATE", "100", "p", "50"]);
    assert_eq!(text(&mut c, &["DBSIZE"]), "100");
    assert_eq!(text(&mut c, &["GET", "p:7"]).len(), 50);
    assert!(text(&mut c, &["DEBUG", "OBJECT", "p:7"]).contains("encoding:raw serializedlength:"));
    assert!(text(&mut c, &["DEBUG", "HTSTATS", "0"]).contains("[Dictionary HT]"));
}

#[test]
fn debug_needs_to_be_enabled() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    assert!(error(&mut c, &["DEBUG", "SLEEP", "0"]).contains("DEBUG command not allowed."));
}

#[test]
fn memory_is_accounted_for() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let used = |c: &mut Connection| info(c, "memory")["used_memory"].parse::<i64>().unwrap();
    let before = used(&mut c);
    text(&mut c, &["SET", "big", &"x".repeat(5_000_000)]);
    let after = used(&mut c);
    assert!((after - before - 5_000_000).abs() < 2_500_000, "{before} {after}");
    let Ok(Value::Array(stats)) = ask(&mut c, &["MEMORY", "STATS"]) else { panic!("an array") };
    assert!(stats.contains(&Value::BulkString(b"fragmentation.bytes".to_vec())));
    assert_eq!(stats.len() % 2, 0);
    assert!(text(&mut c, &["MEMORY", "MALLOC-STATS"]).contains("jemalloc"));
    assert_eq!(text(&mut c, &["MEMORY", "PURGE"]), "OK");
    assert!(!text(&mut c, &["MEMORY", "DOCTOR"]).is_empty());
}

fn run(args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(SERVER).args(args).stdin(Stdio::null()).output().expect("the server runs");
    let all = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code(), all)
}

#[test]
fn options_that_are_not_servers() {
    let (code, out) = run(&["--version"]);
    assert_eq!(code, Some(0));
    assert!(out.starts_with("Redis server v=7.2.6 sha=00000000:0 malloc=jemalloc-5."), "{out}");
    let (code, out) = run(&["--help"]);
    assert_eq!(code, Some(1));
    assert!(out.starts_with("Usage: ./redis-server"), "{out}");
    let (code, out) = run(&["--sentinel"]);
    assert_eq!(code, Some(1));
    assert!(out.contains("no Sentinel mode"), "{out}");
    assert_eq!(run(&["--test-memory"]).0, Some(1));
    assert_eq!(run(&["--test-memory", "1"]).0, Some(0));
}

#[test]
fn a_daemon_writes_its_pid() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let status = Command::new(SERVER)
        .args(["--daemonize", "yes", "--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
        .args(["--dir", dir.path().to_str().unwrap(), "--pidfile", "daemon.pid", "--logfile", "daemon.log"])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    wait_for(10, "the daemon serves", || client.get_connection().is_ok());
    let mut c = client.get_connection().unwrap();
    let pid = std::fs::read_to_string(dir.path().join("daemon.pid")).unwrap();
    assert_eq!(info(&mut c, "server")["process_id"], pid.trim());
    let _ = ask(&mut c, &["SHUTDOWN", "NOSAVE"]);
    wait_for(10, "the daemon ends", || !dir.path().join("daemon.pid").exists());
    let log = std::fs::read_to_string(dir.path().join("daemon.log")).unwrap();
    assert!(log.contains("Server initialized") && log.contains(&format!("pid={}, just started", pid.trim())), "{log}");
}
