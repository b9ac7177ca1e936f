//! What connections meet at their edges: requests of other protocols, flags that outlive a command or do not, closing, and a
//! server without free descriptors. Bytes are sent and compared as they are.

use crate::common;

use common::{TestServer, run, wait_for};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection that commands are written to as lines.
struct Raw(TcpStream);

impl Raw {
    fn connect(server: &TestServer) -> Raw {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Raw(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends lines and expects exactly this before the reply to an ECHO that follows them.
    #[track_caller]
    fn ask(&mut self, lines: &[&str], reply: &str) {
        let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(text + "ECHO the-end\r\n");
        self.expect(&format!("{reply}$7\r\nthe-end\r\n"));
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let mut got = vec![0; text.len()];
        if let Err(e) = self.0.read_exact(&mut got) {
            panic!("{e}: expected {text:?}, got {:?}", String::from_utf8_lossy(&got));
        }
        assert_eq!(String::from_utf8_lossy(&got), text);
    }

    /// The server closes without a word.
    #[track_caller]
    fn expect_close(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("{e}"),
        }
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

#[test]
fn requests_of_http_end_the_connection_before_their_body_runs() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let bodies: [&[u8]; 4] = [
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET stolen 1\r\n",
        b"GET / HTTP/1.1\r\nhOsT: 127.0.0.1\r\n\r\nSET stolen 1\r\n",
        b"*2\r\n$4\r\npost\r\n$1\r\n/\r\nSET stolen 1\r\n",
        b"MULTI\r\nPOST /\r\nSET stolen 1\r\nEXEC\r\n",
    ];
    for body in bodies {
        let mut browser = Raw::connect(&server);
        browser.send(body);
        browser.expect_close();
    }
    assert_eq!(run::<i64>(&mut c, &["EXISTS", "stolen"]), 0);
    let log = server.log();
    let line = "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to Redis. This is \
                likely due to an attacker attempting to use Cross Protocol Scripting to compromise your Redis instance. \
                Connection from 127.0.0.1:";
    assert_eq!(log.matches(line).count(), 1, "logged once a minute: {log}");
}

#[test]
fn what_speaks_something_else_is_left_waiting() {
    let server = TestServer::start(&[]);
    let mut c = Raw::connect(&server);
    // NULs in the first line, and line ends of all kinds. (Who begins as TLS does is closed: see `tests/tls.rs`.)
    c.send(b"\x17\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n$1\n*1\r\nPING\r\n\n\n\"\n");
    c.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let got = c.0.read(&mut [0; 100]);
    assert_eq!(got.unwrap_err().kind(), ErrorKind::WouldBlock, "neither a reply nor the end");
    // It does not go on for ever.
    c.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    c.send(vec![b'x'; 70_000]);
    c.expect("-ERR Protocol error: too big inline request\r\n");
}

#[test]
fn replies_are_skipped_for_one_request() {
    let server = TestServer::start(&[]);
    let pong = "+PONG\r\n";
    let mut c = Raw::connect(&server);
    for (lines, reply) in [
        (&["CLIENT REPLY SKIP", "PING", "PING"][..], pong),
        (&["CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "PING", "PING"], pong),
        // Whatever is sent counts: what is no command, what is refused, and nothing at all.
        (&["CLIENT REPLY SKIP", "NOSUCH", "PING"], pong),
        (&["CLIENT REPLY SKIP", "GET", "PING"], pong),
        (&["CLIENT REPLY SKIP", "", "PING"], pong),
        (&["CLIENT REPLY SKIP", "*0", "PING"], pong),
        (&["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "PING", "CLIENT REPLY ON", "PING"], "+OK\r\n+PONG\r\n"),
        (&["CLIENT REPLY OFF", "PING", "RESET", "PING"], "+RESET\r\n+PONG\r\n"),
        // A command that waits is in the middle of its request until it has its answer.
        (&["CLIENT REPLY SKIP", "BLPOP none 0.01", "PING"], pong),
        (&["CLIENT REPLY SKIP", "WAIT 3 10", "PING"], pong),
        (&["CLIENT REPLY OFF", "BLPOP none 0.01", "CLIENT REPLY ON"], "+OK\r\n"),
    ] {
        c.ask(lines, reply);
    }
}

#[test]
fn those_who_want_no_replies_get_none_when_others_release_them() {
    let server = TestServer::start(&[]);
    let mut other = server.connect();
    let id = |c: &mut Raw| {
        c.send("CLIENT ID\r\n");
        let mut id = String::new();
        let mut byte = [0];
        while !id.ends_with("\r\n") {
            c.0.read_exact(&mut byte).unwrap();
            id.push(byte[0] as char);
        }
        id[1..].trim().to_string()
    };
    let blocked = |other: &mut redis::Connection| {
        wait_for(10, "blocked", || run::<String>(other, &["INFO", "clients"]).contains("blocked_clients:1\r\n"));
    };
    for mode in ["SKIP", "OFF"] {
        let mut c = Raw::connect(&server);
        let number = id(&mut c);
        for release in [&["RPUSH", "list", "a"][..], &["CLIENT", "UNBLOCK", &number, "ERROR"]] {
            c.send(format!("CLIENT REPLY {mode}\r\nBLPOP list 0\r\n"));
            blocked(&mut other);
            assert_eq!(run::<i64>(&mut other, release), 1);
            assert_eq!(run::<i64>(&mut other, &["EXISTS", "list"]), 0);
            if mode == "OFF" {
                c.ask(&["CLIENT REPLY ON"], "+OK\r\n");
            } else {
                c.ask(&[], "");
            }
        }
    }
    // What monitors are shown are replies, what subscribers are sent is not.
    let mut monitor = Raw::connect(&server);
    monitor.send("CLIENT REPLY OFF\r\nMONITOR\r\n");
    wait_for(10, "it monitors", || run::<String>(&mut other, &["CLIENT", "LIST"]).contains(" flags=O "));
    run::<()>(&mut other, &["ECHO", "unseen"]);
    monitor.send("CLIENT REPLY ON\r\n");
    monitor.expect("+OK\r\n");
    let mut subscriber = Raw::connect(&server);
    subscriber.send("CLIENT REPLY OFF\r\nSUBSCRIBE news\r\n");
    subscriber.expect("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    assert_eq!(run::<i64>(&mut other, &["PUBLISH", "news", "now"]), 1);
    subscriber.expect("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$3\r\nnow\r\n");
}

#[test]
fn transactions_that_cannot_succeed_keep_no_commands() {
    let server = TestServer::start(&[]);
    let mut other = server.connect();
    let mut queued = |name: &str| {
        let list: String = run(&mut other, &["CLIENT", "LIST"]);
        let line = list.lines().find(|line| line.contains(&format!(" name={name} "))).unwrap().to_string();
        let field = |name: &str| line.split(' ').find_map(|f| f.strip_prefix(name)).unwrap().to_string();
        (field("multi="), field("multi-mem="))
    };
    let mut c = Raw::connect(&server);
    c.send("CLIENT SETNAME refused\r\nMULTI\r\nSET a 1\r\nGET\r\nSET b 2\r\n");
    c.expect("+OK\r\n+OK\r\n+QUEUED\r\n-ERR wrong number of arguments for 'get' command\r\n+QUEUED\r\n");
    assert_eq!(queued("refused"), ("1".into(), "29".into()));
    c.send("EXEC\r\n");
    c.expect("-EXECABORT Transaction discarded because of previous errors.\r\n");
    c.send("CLIENT SETNAME changed\r\nWATCH k\r\nSET k 1\r\nMULTI\r\nSET a 1\r\n");
    c.expect("+OK\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n");
    assert_eq!(queued("changed"), ("0".into(), "0".into()));
    c.send("EXEC\r\n");
    c.expect("*-1\r\n");
}

#[test]
fn what_has_closed_is_gone_before_requests_that_were_sent_later_run() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let clients = |c: &mut redis::Connection| run::<String>(c, &["CLIENT", "LIST"]).lines().count();
    for _ in 0..300 {
        drop(TcpStream::connect(("127.0.0.1", server.port)).unwrap());
        assert_eq!(clients(&mut c), 1);
    }
    // What was sent before the end is run first.
    for i in 0..100 {
        Raw::connect(&server).send(format!("SET key:{i} x\r\n"));
    }
    wait_for(10, "they are gone", || clients(&mut c) == 1);
    assert_eq!(run::<i64>(&mut c, &["DBSIZE"]), 100);
}

/// The smallest number that no open descriptor of a process has.
fn first_free_descriptor(pid: u32) -> u64 {
    let open: std::collections::BTreeSet<u64> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().to_str().unwrap().parse().unwrap())
        .collect();
    (0..).find(|fd| !open.contains(fd)).unwrap()
}

/// Clock ticks of processor time that a process has used.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_data_is_saved_and_clients_wait_their_turn() {
    let server = TestServer::start(&["--appendonly", "yes"]);
    let pid = server.pid();
    let mut c = server.connect();
    let mut crowd: Vec<Raw> = (0..20).map(|_| Raw::connect(&server)).collect();
    crowd.iter_mut().for_each(|one| one.ask(&[], ""));
    // All below the new limit are in use.
    let limit = first_free_descriptor(pid);
    let process = Pid::from_raw(pid as i32).unwrap();
    let hard = getrlimit(Resource::Nofile).maximum;
    prlimit(Some(process), Resource::Nofile, Rlimit { current: Some(limit), maximum: hard }).unwrap();

    let mut waiting: Vec<Raw> = (0..3).map(|_| Raw::connect(&server)).collect();
    for one in &mut waiting {
        one.send("SET k v\r\nECHO served\r\n");
        one.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert_eq!(one.0.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        one.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    let ticks = cpu_ticks(pid);
    std::thread::sleep(Duration::from_millis(300));
    assert!(cpu_ticks(pid) - ticks < 15, "the loop does not spin");

    let info = |c: &mut redis::Connection| run::<String>(c, &["INFO", "persistence"]);
    for _ in 0..2 {
        run::<()>(&mut c, &["SAVE"]);
        for start in ["BGSAVE", "BGREWRITEAOF"] {
            run::<String>(&mut c, &[start]);
            wait_for(10, "it is done", || {
                let info = info(&mut c);
                info.contains("rdb_bgsave_in_progress:0\r\n") && info.contains("aof_rewrite_in_progress:0\r\n")
            });
            for ok in ["rdb_last_bgsave_status:ok", "aof_last_bgrewrite_status:ok", "aof_last_write_status:ok"] {
                assert!(info(&mut c).contains(ok), "{start}: {}", server.log());
            }
        }
    }
    assert_eq!(server.log().matches("Accepting client connection: Too many open files").count(), 1);
    assert_eq!(run::<i64>(&mut c, &["EXISTS", "k"]), 0, "those who wait got none of what the saves had");

    // Each that leaves lets one in.
    for one in &mut waiting {
        crowd.pop();
        one.expect("+OK\r\n$6\r\nserved\r\n");
    }
}

#[test]
fn whoever_sends_no_more_gets_the_replies() {
    for options in [&[][..], &["--appendonly", "yes", "--appendfsync", "always"], &["--io-threads", "3"]] {
        let server = TestServer::start(options);
        for requests in [1, 3, 5000] {
            for i in 0..20 {
                let mut c = Raw::connect(&server);
                let key = format!("k{requests}-{i}");
                let reader = c.0.try_clone().unwrap();
                let mut reader = Raw(reader);
                c.send(format!("INCR {key}\r\n").repeat(requests));
                c.0.shutdown(std::net::Shutdown::Write).unwrap();
                let expected: String = (1..=requests).map(|n| format!(":{n}\r\n")).collect();
                reader.expect(&expected);
                reader.expect_close();
            }
        }
    }
}
