//! Keys that leave one server for another: DUMP, RESTORE and MIGRATE.

use crate::common;

use common::{TestServer, run, try_run, wait_for};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

#[test]
fn dump_restore_and_migrate() {
    let (from, to) = (TestServer::start(&[]), TestServer::start(&[]));
    let (mut a, mut b) = (from.connect(), to.connect());
    let payload: Option<Vec<u8>> = run(&mut a, &["DUMP", "k"]);
    assert_eq!(payload, None);
    run::<()>(&mut a, &["SET", "k", "10"]);
    let payload: Vec<u8> = run(&mut a, &["DUMP", "k"]);
    assert_eq!(payload, b"\x00\xc0\n\x0b\x00\x07\x40\xea\x36\xf3\x31\x8a\x32");
    let restore = |c: &mut redis::Connection, key: &str, ttl: i64, words: &[&str]| {
        redis::cmd("RESTORE").arg(key).arg(ttl).arg(&payload).arg(words).query::<String>(c).map_err(|e| e.to_string())
    };
    assert_eq!(restore(&mut b, "k", 5000, &[]).unwrap(), "OK");
    let left: i64 = run(&mut b, &["PTTL", "k"]);
    assert!((4000..=5000).contains(&left));
    assert!(restore(&mut b, "k", 0, &[]).unwrap_err().contains("Target key name already exists"));
    assert_eq!(restore(&mut b, "k", 0, &["REPLACE", "FREQ", "7"]).unwrap(), "OK");
    assert_eq!(restore(&mut b, "past", 1, &["ABSTTL"]).unwrap(), "OK");
    assert_eq!(run::<i64>(&mut b, &["EXISTS", "past"]), 0);
    assert!(restore(&mut b, "x", -1, &[]).unwrap_err().contains("Invalid TTL value, must be >= 0"));
    assert!(restore(&mut b, "x", 0, &["IDLETIME", "-1"]).unwrap_err().contains("Invalid IDLETIME value"));

    let port = to.port.to_string();
    let migrate = |a: &mut redis::Connection, key: &str, rest: &[&str]| {
        let mut words = vec!["MIGRATE", "127.0.0.1", &port, key, "0", "5000"];
        words.extend(rest);
        try_run::<String>(a, &words).map_err(|e| e.to_string())
    };
    assert_eq!(migrate(&mut a, "none", &[]).unwrap(), "NOKEY");
    assert!(migrate(&mut a, "k", &[]).unwrap_err().contains("Target instance replied with error: BUSYKEY"));
    assert_eq!(migrate(&mut a, "k", &["COPY", "REPLACE"]).unwrap(), "OK");
    assert_eq!(run::<i64>(&mut a, &["EXISTS", "k"]), 1);
    run::<()>(&mut a, &["SET", "l", "text", "PX", "100000"]);
    assert_eq!(migrate(&mut a, "", &["REPLACE", "KEYS", "k", "l", "none"]).unwrap(), "OK");
    assert_eq!(run::<i64>(&mut a, &["DBSIZE"]), 0);
    assert_eq!(run::<String>(&mut b, &["GET", "l"]), "text");
    assert!(run::<i64>(&mut b, &["PTTL", "l"]) > 90_000);
    // Many go in slices, and in as many commands for the replicas.
    let names: Vec<String> = (0..2000).map(|n| format!("many:{n}")).collect();
    redis::cmd("MSET").arg(names.iter().map(|name| (name, "v")).collect::<Vec<_>>()).exec(&mut a).unwrap();
    let words: Vec<&str> = ["KEYS"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let before = run::<i64>(&mut b, &["DBSIZE"]);
    assert_eq!(migrate(&mut a, "", &words).unwrap(), "OK");
    assert_eq!((run::<i64>(&mut a, &["DBSIZE"]), run::<i64>(&mut b, &["DBSIZE"])), (0, before + 2000));
    run::<()>(&mut a, &["SET", "m", "1"]);
    drop(to);
    assert!(migrate(&mut a, "m", &[]).unwrap_err().contains("error or timeout"));
    assert_eq!(run::<i64>(&mut a, &["EXISTS", "m"]), 1);
}

#[test]
fn keys_on_their_way_hold_up_only_those_who_would_write_to_them() {
    let server = TestServer::start(&[]);
    let (mut a, mut b, mut other) = (server.connect(), server.connect(), server.connect());
    let target = Deaf::new();
    let port = target.port();
    let fields = |from: usize| (from..from + 1000).flat_map(|n| [format!("field {n}"), format!("value {n}")]);
    for from in (0..20_000).step_by(1000) {
        redis::cmd("HSET").arg("large").arg(fields(from).collect::<Vec<_>>()).exec(&mut other).unwrap();
    }
    let words = |key: &str, timeout: &str, rest: &[&str]| -> Vec<String> {
        [&["MIGRATE", "127.0.0.1", &port, key, "0", timeout], rest].concat().iter().map(|w| w.to_string()).collect()
    };
    let moving = |mut c: redis::Connection, words: Vec<String>| {
        std::thread::spawn(move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let reply = try_run::<String>(&mut c, &words).map_err(|e| e.to_string());
            (c, reply)
        })
    };
    let are_waiting = |c: &mut redis::Connection, count: usize| {
        run::<String>(c, &["INFO", "clients"]).contains(&format!("blocked_clients:{count}\r\n"))
    };
    let waits = |c: &mut redis::Connection, count: usize| wait_for(10, "they wait", || are_waiting(c, count));

    let migrating = moving(a, words("large", "20000", &[]));
    let mut link = target.accept();
    waits(&mut other, 1);
    // Others go on, also with that key.
    assert_eq!(run::<String>(&mut other, &["HGET", "large", "field 7"]), "value 7");
    assert_eq!(run::<String>(&mut other, &["SET", "small", "1"]), "OK");
    let writing = std::thread::spawn(move || {
        let mut transaction = redis::pipe();
        transaction.atomic().cmd("HSET").arg("large").arg("later").arg(1).cmd("HLEN").arg("large");
        let written: (i64, i64) = transaction.query(&mut b).unwrap();
        (b, written)
    });
    waits(&mut other, 2);
    // A script that has not named the key writes to it all the same: it stays.
    let command = std::iter::repeat_with(|| link.read(&mut [0; 1 << 16]).unwrap());
    assert!(command.take_while(|n| *n == 1 << 16).count() < 1000);
    run::<i64>(&mut other, &["EVAL", "return redis.call('HSET', 'large', 'meanwhile', 1)", "0"]);
    link.write_all(b"+OK\r\n+OK\r\n").unwrap();
    let (a2, reply) = migrating.join().unwrap();
    assert!(reply.as_ref().unwrap_err().contains("changed on its way"), "{reply:?}");
    let (b2, written) = writing.join().unwrap();
    assert_eq!(written, (1, 20_002));
    (a, b) = (a2, b2);
    assert!(are_waiting(&mut other, 0));

    // Over the same connection, which has its database: now it goes, and who waited finds nothing.
    let migrating = moving(a, words("large", "20000", &["REPLACE"]));
    waits(&mut other, 1);
    let writing = std::thread::spawn(move || run::<i64>(&mut b, &["HSETNX", "large", "later", "1"]));
    waits(&mut other, 2);
    link.write_all(b"+OK\r\n").unwrap();
    let (a2, reply) = migrating.join().unwrap();
    assert_eq!((reply.as_deref(), writing.join().unwrap()), (Ok("OK"), 1));
    assert_eq!(run::<i64>(&mut other, &["HLEN", "large"]), 1);

    // One that says nothing is given up, and its client may go meanwhile.
    let (mut a, reply) = moving(a2, words("", "50", &["KEYS", "large", "small"])).join().unwrap();
    assert!(reply.unwrap_err().contains("error or timeout reading to target instance"));
    drop(link);
    let id = run::<i64>(&mut a, &["CLIENT", "ID"]);
    let migrating = moving(a, words("small", "20000", &[]));
    let mut link = target.accept();
    waits(&mut other, 1);
    assert_eq!(run::<i64>(&mut other, &["CLIENT", "KILL", "ID", &id.to_string()]), 1);
    assert!(link.read(&mut [0; 1 << 16]).unwrap() > 0);
    link.write_all(b"+OK\r\n+OK\r\n").unwrap();
    assert!(migrating.join().unwrap().1.is_err());
    wait_for(10, "it went", || run::<i64>(&mut other, &["EXISTS", "small"]) == 0);
    // In a transaction nobody can wait.
    run::<()>(&mut other, &["SET", "small", "2"]);
    let answering = std::thread::spawn(move || {
        let _ = link.read(&mut [0; 1 << 16]);
        link.write_all(b"-BUSYKEY Target key name already exists.\r\n").unwrap();
        link
    });
    let mut c = server.connect();
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("MIGRATE").arg(&["127.0.0.1", &port, "small", "0", "5000"]);
    let refused = transaction.query::<Vec<String>>(&mut c).unwrap_err().to_string();
    assert!(refused.contains("Target instance replied with error: BUSYKEY"), "{refused}");
    assert_eq!(run::<String>(&mut other, &["GET", "small"]), "2");
    drop((c, other));
    drop(answering.join().unwrap());
}

/// A target of MIGRATE that answers what it is told to, whatever it hears.
struct Deaf(TcpListener);

impl Deaf {
    fn new() -> Deaf {
        Deaf(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn port(&self) -> String {
        self.0.local_addr().unwrap().port().to_string()
    }

    /// Sends MIGRATE of a key, over a connection of its own.
    fn migrate(&self, server: &TestServer, key: &str, rest: &[&str]) -> BufReader<TcpStream> {
        let port = self.port();
        let words = [&["MIGRATE", "127.0.0.1", &port, key, "0", "9223372036854775807"], rest].concat();
        let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        client.write_all((words.join(" ") + "\r\n").as_bytes()).unwrap();
        BufReader::new(client)
    }

    fn accept(&self) -> TcpStream {
        self.0.accept().unwrap().0
    }
}

/// Waits for a payload, which is small.
fn hear(link: &mut TcpStream) {
    let (mut heard, mut buffer) = (Vec::new(), [0; 1 << 16]);
    while !heard.windows(7).any(|word| word == b"RESTORE") {
        let count = link.read(&mut buffer).unwrap();
        assert!(count > 0);
        heard.extend_from_slice(&buffer[..count]);
    }
}

/// Waits for a payload, and answers.
fn answer(link: &mut TcpStream, text: &str) {
    hear(link);
    link.write_all(text.as_bytes()).unwrap();
}

fn line(client: &mut BufReader<TcpStream>) -> String {
    let mut line = String::new();
    client.read_line(&mut line).unwrap();
    line
}

#[test]
fn a_stream_on_its_way_stays_if_its_groups_change() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let target = Deaf::new();
    run::<()>(&mut c, &["XGROUP", "CREATE", "s", "g", "0", "MKSTREAM"]);
    run::<String>(&mut c, &["XADD", "s", "1-1", "f", "v"]);
    run::<redis::Value>(&mut c, &["XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"]);
    let mut client = target.migrate(&server, "s", &[]);
    let mut link = target.accept();
    let mut answers = "+OK\r\n+OK\r\n";
    for (n, script) in
        ["'XACK','s','g','1-1'", "'XGROUP','SETID','s','g','7-7'", "'XGROUP','CREATECONSUMER','s','g','d'"]
            .into_iter()
            .enumerate()
    {
        if n > 0 {
            client = target.migrate(&server, "s", &["REPLACE"]);
        }
        hear(&mut link);
        // It has not named the key.
        run::<redis::Value>(&mut c, &["EVAL", &format!("return redis.call({script})"), "0"]);
        link.write_all(answers.as_bytes()).unwrap();
        assert!(line(&mut client).contains("changed on its way"), "{script}");
        assert_eq!(run::<i64>(&mut c, &["EXISTS", "s"]), 1);
        answers = "+OK\r\n";
    }
}

#[test]
fn what_a_target_says_unasked_answers_nothing() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let target = Deaf::new();
    run::<()>(&mut c, &["MSET", "a", "1", "b", "2"]);
    let mut client = target.migrate(&server, "a", &[]);
    answer(&mut target.accept(), "+OK\r\n+OK\r\n+OK\r\n");
    assert_eq!(line(&mut client), "+OK\r\n");
    // That connection is not used again.
    let mut client = target.migrate(&server, "b", &[]);
    answer(&mut target.accept(), "+OK\r\n-BUSYKEY Target key name already exists.\r\n");
    assert!(line(&mut client).contains("BUSYKEY"));
    assert_eq!(run::<i64>(&mut c, &["EXISTS", "a", "b"]), 1);
}

#[test]
fn keys_that_became_a_masters_on_their_way_stay_and_are_answered_for_once() {
    let server = TestServer::start(&["--replica-read-only", "no"]);
    let mut c = server.connect();
    let target = Deaf::new();
    run::<()>(&mut c, &["MSET", "a", "1", "b", "2"]);
    let mut client = target.migrate(&server, "a", &[]);
    let mut link = target.accept();
    hear(&mut link);
    run::<()>(&mut c, &["REPLICAOF", "127.0.0.1", "1"]);
    link.write_all(b"+OK\r\n+OK\r\n").unwrap();
    let mut replies = String::new();
    client.read_to_string(&mut replies).unwrap();
    assert!(replies.starts_with("-UNBLOCKED") && replies.lines().count() == 1, "{replies}");
    // When nothing more of it is under way, the connection serves the next one. Who was a replica before may give keys away.
    wait_for(10, "it is over", || run::<String>(&mut c, &["INFO", "stats"]).contains("migrate_cached_sockets:1\r\n"));
    let mut client = target.migrate(&server, "b", &[]);
    answer(&mut link, "+OK\r\n");
    assert_eq!(line(&mut client), "+OK\r\n");
    assert_eq!(run::<Vec<Option<String>>>(&mut c, &["MGET", "a", "b"]), [Some("1".to_string()), None]);
}

/// A request as it goes over the wire.
fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend([word, &b"\r\n"[..]].concat());
    }
    bytes
}

#[test]
fn a_large_payload_holds_up_nobody_but_its_client() {
    let options = ["--appendonly", "yes", "--enable-debug-command", "yes"];
    let mut server = TestServer::start(&options);
    let port = server.port.to_string();
    let replica = TestServer::start(&["--replicaof", "127.0.0.1", &port, "--enable-debug-command", "yes"]);
    let mut other = server.connect();
    let fields = |from: usize| (from..from + 1000).flat_map(|n| [format!("field {n}"), format!("value {n}")]);
    for from in (0..300_000).step_by(1000) {
        redis::cmd("HSET").arg("large").arg(fields(from).collect::<Vec<_>>()).exec(&mut other).unwrap();
    }
    let payload: Vec<u8> = run(&mut other, &["DUMP", "large"]);
    let digest = |c: &mut redis::Connection, key: &str| run::<Vec<String>>(c, &["DEBUG", "DIGEST-VALUE", key]);
    let original = digest(&mut other, "large");

    let sending = |bytes: Vec<u8>| {
        let mut client = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        client.write_all(&bytes).unwrap();
        client
    };
    // A client of which the request is there, and which waits.
    let restoring = |other: &mut redis::Connection, bytes: Vec<u8>| {
        let client = sending(bytes);
        let address = format!(" addr={} ", client.local_addr().unwrap());
        let begun = Instant::now();
        loop {
            let list: String = run(other, &["CLIENT", "LIST"]);
            if list.lines().any(|line| line.contains(&address) && line.contains(" flags=b ")) {
                return client;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "it never waited: {list}");
        }
    };
    let restore = |key: &str| request(&[b"RESTORE", key.as_bytes(), b"0", &payload]);
    let replies = |client: &mut TcpStream, wanted: &str| {
        let mut bytes = vec![0; wanted.len()];
        client.read_exact(&mut bytes).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), wanted);
    };

    // Others go on, and for them nothing has happened; what the client sent next comes after it.
    let mut first = restoring(&mut other, [restore("first"), request(&[b"EXISTS", b"first"])].concat());
    let mut second = restoring(&mut other, restore("second"));
    assert_eq!(run::<i64>(&mut other, &["EXISTS", "first", "second"]), 0);
    replies(&mut first, "+OK\r\n:1\r\n");
    replies(&mut second, "+OK\r\n");
    // Whoever gives the key a value meanwhile was the first.
    let mut late = restoring(&mut other, restore("taken"));
    run::<()>(&mut other, &["SET", "taken", "1"]);
    replies(&mut late, "-BUSYKEY Target key name already exists.\r\n");
    // Nor does it matter when a client goes away in the midst of it, or waits once more.
    drop(restoring(&mut other, restore("gone")));
    let mut paused = restoring(&mut other, restore("paused"));
    run::<()>(&mut other, &["CLIENT", "PAUSE", "100000", "WRITE"]);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(run::<i64>(&mut other, &["EXISTS", "gone", "paused"]), 0);
    run::<()>(&mut other, &["CLIENT", "UNPAUSE"]);
    replies(&mut paused, "+OK\r\n");
    // One that was damaged on its way is refused.
    let mut damaged = payload.clone();
    damaged[100] ^= 1;
    let mut client = sending(request(&[b"RESTORE", b"damaged", b"0", &damaged]));
    replies(&mut client, "-ERR DUMP payload version or checksum are wrong\r\n");
    // A transaction does it all at once.
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("RESTORE").arg("within").arg(0).arg(&payload).cmd("HLEN").arg("within");
    assert_eq!(transaction.query::<(String, i64)>(&mut other).unwrap(), ("OK".into(), 300_000));

    let keys = ["first", "second", "paused", "within"];
    for key in keys {
        assert_eq!(digest(&mut other, key), original, "{key}");
    }
    let calls: String = run(&mut other, &["INFO", "commandstats"]);
    assert!(calls.contains("cmdstat_restore:calls=6,"), "{calls}");
    let mut followed = replica.connect();
    let offset = |c: &mut redis::Connection| {
        let info: String = run(c, &["INFO", "replication"]);
        info.lines().find(|line| line.starts_with("master_repl_offset")).map(str::to_string)
    };
    wait_for(60, "the replica has it", || offset(&mut other) == offset(&mut followed));
    let whole: String = run(&mut other, &["DEBUG", "DIGEST"]);
    assert_eq!(run::<String>(&mut followed, &["DEBUG", "DIGEST"]), whole);
    drop(other);
    server.restart();
    assert_eq!(run::<String>(&mut server.connect(), &["DEBUG", "DIGEST"]), whole);
}
