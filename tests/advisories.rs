//! What published advisories of Redis and Valkey tell of, tried on this server. `docs/ADVISORIES.md` says which test is for
//! which.

use crate::common;

use common::{TestServer, run, try_run, wait_for};
use redis::Value;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// The text of the error that a command gives.
fn error(c: &mut redis::Connection, line: &str) -> String {
    let answer = try_run::<Value>(c, &words(line));
    answer.expect_err(line).to_string()
}

fn connect(server: &TestServer) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// What comes back until the server closes the connection or `end` came.
fn read_until(stream: &mut TcpStream, end: &[u8]) -> Vec<u8> {
    let mut got = Vec::new();
    let mut piece = [0; 4096];
    while end.is_empty() || !got.ends_with(end) {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => got.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => break,
            Err(e) => panic!("{e} after {:?}", String::from_utf8_lossy(&got)),
        }
    }
    got
}

/// A value as DUMP gives it.
fn payload(layout: u8, value: &[u8]) -> Vec<u8> {
    with_checksum([&[layout], value, &[11, 0]].concat())
}

fn with_checksum(mut payload: Vec<u8>) -> Vec<u8> {
    let checksum = hexad::structs::crc64::crc64(0, &payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

fn restore(c: &mut redis::Connection, key: &str, payload: &[u8]) -> Result<(), String> {
    redis::cmd("RESTORE").arg(key).arg(0).arg(payload).arg("REPLACE").query::<()>(c).map_err(|e| e.to_string())
}

#[test]
fn who_has_not_authenticated_cannot_leave_replies_unread() {
    let server = TestServer::start(&["--requirepass", "secret"]);
    let mut c = connect(&server);
    let requests = b"GET a\r\n".repeat(10_000);
    let mut sent = 0;
    // What the sockets take up is a few MB.
    while sent < 256 << 20 && c.write_all(&requests).is_ok() {
        sent += requests.len();
    }
    assert!(sent < 256 << 20, "it may go on for ever");
    assert!(server.log().contains("overcoming of output buffer limits"));
    let mut c = connect(&server);
    c.write_all(&b"GET a\r\n".repeat(200)).unwrap();
    c.write_all(b"AUTH secret\r\nPING\r\n").unwrap();
    assert!(read_until(&mut c, b"+PONG\r\n").ends_with(b"+OK\r\n+PONG\r\n"));
    // Afterwards there is no such limit.
    let values = format!("*3\r\n$3\r\nSET\r\n$1\r\nv\r\n$100000\r\n{}\r\n", "x".repeat(100_000));
    c.write_all(values.as_bytes()).unwrap();
    c.write_all(&b"GET v\r\n".repeat(300)).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    c.write_all(b"PING\r\n").unwrap();
    assert!(read_until(&mut c, b"+PONG\r\n").len() > 30_000_000);
}

#[test]
fn who_has_not_authenticated_sends_short_requests() {
    let server = TestServer::start(&["--requirepass", "secret"]);
    let refused = [
        (&b"*11\r\n"[..], "unauthenticated multibulk length"),
        (b"*1\r\n$16385\r\n", "unauthenticated bulk length"),
        (b"*1048577\r\n", "unauthenticated multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
    ];
    for (request, why) in refused {
        let mut c = connect(&server);
        c.write_all(request).unwrap();
        assert_eq!(read_until(&mut c, b""), format!("-ERR Protocol error: {why}\r\n").into_bytes());
    }
    let mut c = connect(&server);
    let _ = (0..200).try_for_each(|_| c.write_all(&[b'x'; 10_000]));
    assert!(!read_until(&mut c, b"").ends_with(b"+PONG\r\n"), "a line without end is no request");
}

#[test]
fn empty_requests_leave_nothing_behind() {
    let server = TestServer::start(&[]);
    let empty = [&b"\r\n"[..], b"*0\r\n", b"*-1\r\n", b"\n", b"*-5\r\n"];
    let requests = [&b"PING\r\n"[..], b"*1\r\n$4\r\nPING\r\n"];
    let mut c = connect(&server);
    for before in empty {
        for between in empty {
            for (first, second) in [(0, 1), (1, 0), (0, 0), (1, 1)] {
                c.write_all(&[before, between, requests[first], between, before, requests[second]].concat()).unwrap();
                assert_eq!(read_until(&mut c, b"+PONG\r\n+PONG\r\n"), b"+PONG\r\n+PONG\r\n");
            }
        }
    }
}

#[test]
fn connections_that_fail_at_once_do_not_keep_others_out() {
    let server = TestServer::start(&["--maxclients", "50"]);
    let reset = nix::libc::linger { l_onoff: 1, l_linger: 0 };
    for _ in 0..500 {
        let c = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        nix::sys::socket::setsockopt(&c, nix::sys::socket::sockopt::Linger, &reset).unwrap();
    }
    wait_for(10, "the next one is served", || {
        server.client().get_connection().is_ok_and(|mut c| try_run::<String>(&mut c, &["PING"]).is_ok())
    });
}

#[test]
fn rules_that_are_cut_short_are_refused() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let rules = [
        "%",
        "%~",
        "%~k",
        "%R",
        "%W",
        "%RW",
        "%Q~k",
        "(%)",
        "(%~k)",
        "(%RW)",
        "(%R",
        "(",
        "(~k",
        "((~k))",
        "(%R~k (~l)",
        "+",
        "-",
        "+|",
        "+get|",
        "+@",
        "#",
        "!",
        "+@all|x",
    ];
    for rule in rules {
        let refused = try_run::<()>(c, &["ACL", "SETUSER", "ann", rule]).expect_err(rule).to_string();
        assert!(
            refused.contains("Error in ACL SETUSER modifier") || refused.contains("Unmatched"),
            "{rule}: {refused}"
        );
    }
    let split = try_run::<()>(c, &["ACL", "SETUSER", "ann", "(%R~a", "%"]);
    assert!(split.is_err());
    assert_eq!(run::<Value>(c, &["ACL", "GETUSER", "ann"]), Value::Nil);
}

#[test]
fn counts_and_offsets_at_their_limits() {
    let server = TestServer::start(&["--enable-debug-command", "yes"]);
    let c = &mut server.connect();
    for line in [
        "SADD s a b",
        "HSET h a 1 b 2",
        "ZADD z 1 a 2 b",
        "RPUSH l a b",
        "GEOADD g 1 1 a",
        "XADD x 1-1 a b",
        "XGROUP CREATE x g 0",
        "XREADGROUP GROUP g c STREAMS x >",
        "XDEL x 1-1",
    ] {
        run::<Value>(c, &words(line));
    }
    let out_of_range = [
        "SRANDMEMBER s -9223372036854775808",
        "HRANDFIELD h -9223372036854775808",
        "HRANDFIELD h -4611686018427387904 WITHVALUES",
        "ZRANDMEMBER z -9223372036854775808",
        "ZRANDMEMBER z -4611686018427387904 WITHSCORES",
        "LPOS l a RANK -9223372036854775808",
        "SPOP s -9223372036854775808",
        "LPOP l -1",
        "BITFIELD b SET u8 9223372036854775807 1",
        "BITFIELD b GET u8 #9223372036854775807",
        "SETBIT b 4294967296 1",
    ];
    for line in out_of_range {
        assert!(error(c, line).contains("out of range"), "{line}");
    }
    for (line, text) in [
        ("SETRANGE k 9223372036854775807 a", "string exceeds maximum allowed size"),
        ("SETRANGE k 536870912 a", "string exceeds maximum allowed size"),
        ("SETRANGE k -1 a", "offset is out of range"),
        ("XAUTOCLAIM x g c 0 0-0 COUNT 9223372036854775807", "COUNT must be > 0"),
        ("XAUTOCLAIM x g c 0 0-0 COUNT 0", "COUNT must be > 0"),
        ("HINCRBYFLOAT h a inf", "value is NaN or Infinity"),
        ("HINCRBYFLOAT h a nan", "value is not a valid float"),
        ("INCRBYFLOAT k inf", "increment would produce NaN or Infinity"),
        ("EXPIRE s 9223372036854775807", "invalid expire time"),
        ("SET k v PX 9223372036854775807", "invalid expire time"),
    ] {
        assert!(error(c, line).contains(text), "{line}");
    }
    for line in [
        "SORT s ALPHA LIMIT 9223372036854775807 9223372036854775807",
        "ZRANGEBYSCORE z -inf inf LIMIT 9223372036854775807 9223372036854775807",
    ] {
        assert_eq!(run::<Vec<String>>(c, &words(line)), [""; 0], "{line}");
    }
    for line in [
        "SORT_RO s ALPHA LIMIT -9223372036854775808 9223372036854775807",
        "LRANGE l -9223372036854775808 9223372036854775807",
        "ZRANGE z -9223372036854775808 9223372036854775807",
    ] {
        assert_eq!(run::<Vec<String>>(c, &words(line)), ["a", "b"], "{line}");
    }
    // The deleted entry is dropped from what is pending.
    let claimed: Value = run(c, &words("XAUTOCLAIM x g c 0 0-0 COUNT 461168601842738790"));
    let text = |s: &str| Value::BulkString(s.into());
    assert_eq!(claimed, Value::Array(vec![text("0-0"), Value::Array(vec![]), Value::Array(vec![text("1-1")])]));
    assert_eq!(run::<i64>(c, &words("MSETNX twice 1 twice 2")), 1);
    assert_eq!(run::<String>(c, &["GET", "twice"]), "2");
    let long = "a".repeat(40_000);
    for key in ["p", "q"] {
        run::<()>(c, &["SET", key, &long]);
    }
    assert!(error(c, "LCS p q LEN").contains("Insufficient memory"));
}

/// Where there is an output limit, it ends a reply that would never end.
#[test]
fn a_reply_without_end_ends_at_the_output_limit() {
    let server = TestServer::start(&["--client-output-buffer-limit", "normal 1mb 0 0"]);
    let c = &mut server.connect();
    for line in ["SADD s a", "HSET h a 1", "ZADD z 1 a"] {
        run::<Value>(c, &words(line));
    }
    for line in ["SRANDMEMBER s", "HRANDFIELD h", "ZRANDMEMBER z"] {
        let mut raw = connect(&server);
        raw.write_all(format!("{line} -9223372036854775807\r\n").as_bytes()).unwrap();
        assert!(read_until(&mut raw, b"").len() < 10_000_000, "{line}");
    }
    assert_eq!(run::<String>(c, &["PING"]), "PONG");
}

#[test]
fn key_counts_that_lie_name_no_keys() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &words("ACL SETUSER ann on nopass +@all ~mine"));
    for call in
        ["EVAL x", "EVALSHA x", "SORT", "MIGRATE h", "OBJECT ENCODING", "GEORADIUS a", "XREAD STREAMS", "BITFIELD"]
    {
        let refused = error(c, &format!("COMMAND GETKEYS {call}"));
        assert!(refused.contains("Invalid number of arguments"), "{call}: {refused}");
        assert!(error(c, &format!("ACL DRYRUN ann {call}")).contains("wrong number of arguments"), "{call}");
    }
    for count in ["-1", "2", "2147483648", "4294967297", "9223372036854775807", "18446744073709551617", "x", "1e3"] {
        for call in ["ZUNION N a", "LMPOP N a LEFT", "BLMPOP 0 N a LEFT", "ZINTERSTORE d N a", "SINTERCARD N a"] {
            let call = call.replace('N', count);
            let refused = try_run::<Value>(c, &words(&format!("COMMAND GETKEYSANDFLAGS {call}")));
            // The second of two keys may be the word behind the first.
            let is_key = count == "2" && call.contains("LEFT");
            assert_eq!(refused.is_err(), !is_key, "{call}");
            let _ = try_run::<Value>(c, &words(&call)).expect_err(&call);
        }
        if count != "2" {
            assert_eq!(run::<Vec<String>>(c, &words(&format!("COMMAND GETKEYS EVAL x {count} a"))), [""; 0]);
        }
    }
}

#[test]
fn what_is_told_in_errors_cannot_pass_for_replies() {
    let server = TestServer::start(&[]);
    let mut c = connect(&server);
    let requests: [&[&str]; 12] = [
        &["EVAL", "return redis.error_reply('a\r\n+OK\r\n')", "0"],
        &["EVAL", "return {err='My\r\n:1\r\n'}", "0"],
        &["EVAL", "return redis.status_reply('a\r\n+OK')", "0"],
        &["EVAL", "return {ok='a\r\n+OK'}", "0"],
        &["EVAL", "error('x\r\n+OK')", "0"],
        &["EVAL", "error({err='x\r\n+OK'})", "0"],
        &["EVAL", "return redis.call('no\r\n:1')", "0"],
        &["NO\r\n+OK", "a\r\n:1"],
        &["CLIENT", "NO\r\n+OK"],
        &["ACL", "SETUSER", "ann", "+no\r\n+OK"],
        &["CONFIG", "SET", "a\r\n+OK", "b"],
        &["XREADGROUP", "GROUP", "g\r\n+OK", "c", "STREAMS", "no\r\n:1", ">"],
    ];
    for words in requests {
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
        c.write_all(request.as_bytes()).unwrap();
        c.write_all(b"PING\r\n").unwrap();
        let got = String::from_utf8(read_until(&mut c, b"+PONG\r\n")).unwrap();
        assert_eq!(got.matches('\n').count(), 2, "{words:?}: {got:?}");
    }
}

#[test]
fn patterns_that_would_take_for_ever() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let start = Instant::now();
    let long = "a".repeat(5_000);
    run::<()>(c, &["SET", &long, "1"]);
    let stars = format!("{}b", "a*".repeat(1_000));
    for pattern in [&stars, &format!("{}!", "[a-z]*?".repeat(200)), &format!("{}b", "*a".repeat(500))] {
        assert_eq!(run::<Vec<String>>(c, &["KEYS", pattern]), [""; 0]);
        run::<Value>(c, &["SCAN", "0", "MATCH", pattern]);
        run::<Value>(c, &["COMMAND", "LIST", "FILTERBY", "PATTERN", pattern]);
        run::<Value>(c, &["FUNCTION", "LIST", "LIBRARYNAME", pattern]);
        run::<Value>(c, &["CONFIG", "GET", pattern]);
        run::<()>(c, &["ACL", "SETUSER", "ann", &format!("~{pattern}"), &format!("&{pattern}"), "+@all"]);
        let denied: String = run(c, &["ACL", "DRYRUN", "ann", "GET", &long]);
        assert!(denied.contains("has no permissions"), "{denied}");
        let mut listener = server.connect();
        listener.as_pubsub().psubscribe(pattern).unwrap();
        run::<i64>(c, &["PUBLISH", &long, "x"]);
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn payloads_that_lie_are_refused() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let nan = [&b"\x01\x01m"[..], &f64::NAN.to_le_bytes()].concat();
    let one_twice = [&b"\x02\x01m"[..], &1f64.to_le_bytes(), b"\x01m", &2f64.to_le_bytes()].concat();
    let mut payloads = vec![
        ("a field twice", payload(4, b"\x02\x01f\x011\x01f\x012")),
        ("a field without a value", payload(4, b"\x02\x01f\x011\x01g")),
        ("no number for a score", payload(5, &nan)),
        ("no number for a score, as text", payload(3, b"\x01\x01m\xfd")),
        ("a member twice", payload(5, &one_twice)),
        ("a member of a set twice", payload(2, b"\x02\x01m\x01m")),
        ("more numbers than there are", payload(11, b"\x0c\x02\0\0\0\xff\xff\xff\xff\x01\0\x01\0")),
        ("a zipmap with a length in the long form", payload(9, b"\x0f\x01\xfe\x03\0\0\0foo\x03\x00bar\xff")),
        ("a compressed string of 2 GB", payload(0, b"\xc3\x05\x80\x7f\xff\xff\xff\x00a\xe0\xff\x00")),
        ("a value of a module", payload(7, b"\x81\x12\x12\x12\x12\x12\x12\x12\x12\0")),
        ("a type of the future", payload(99, b"\0")),
    ];
    let lengths = [
        &b"\x80\xff\xff\xff\xff"[..],
        b"\x81\x7f\xff\xff\xff\xff\xff\xff\xff",
        &[0x81, 255, 255, 255, 255, 255, 255, 255, 255],
    ];
    for layout in (0..=5).chain(9..=21).filter(|layout| *layout != 7) {
        payloads.extend(lengths.iter().map(|length| ("a length beyond everything", payload(layout, length))));
    }
    for (what, payload) in &payloads {
        let refused = restore(c, "k", payload).expect_err(what);
        assert!(refused.contains("Bad data format"), "{what}: {refused}");
    }
    assert_eq!(run::<String>(c, &["PING"]), "PONG");
}

/// Every pending entry of a group belongs to one consumer, and an intset has every number once: what says otherwise is
/// put right as it is read, or refused where everything is looked at.
#[test]
fn what_two_have_or_nobody_is_put_right_or_refused() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let number_twice = payload(11, b"\x0c\x02\0\0\0\x02\0\0\0\x01\0\x01\0");
    for line in [
        "XADD x 7-1 a b",
        "XADD x 7-2 a b",
        "XGROUP CREATE x g 0",
        "XREADGROUP GROUP g ann COUNT 1 STREAMS x >",
        "XREADGROUP GROUP g bob COUNT 1 STREAMS x >",
    ] {
        run::<Value>(c, &words(line));
    }
    let sound: Vec<u8> = run(c, &["DUMP", "x"]);
    let value = &sound[..sound.len() - 8];
    let id = |seq: u64| [7u64.to_be_bytes(), seq.to_be_bytes()].concat();
    let last = |id: &[u8]| value.windows(16).rposition(|bytes| bytes == id).expect("a pending entry");
    // The consumers come last, each with the number of its pending entries before them.
    let bobs = last(&id(2));
    let anns = last(&id(1));
    assert!(bobs > anns && value[bobs - 1] == 1);
    assert_eq!(restore(c, "copy", &with_checksum(value.to_vec())), Ok(()));
    let mut shared = value.to_vec();
    shared[bobs..bobs + 16].copy_from_slice(&id(1));
    let mut unclaimed = value.to_vec();
    unclaimed.drain(bobs..bobs + 16);
    unclaimed[bobs - 1] = 0;
    let (shared, unclaimed) = (with_checksum(shared), with_checksum(unclaimed));
    for (key, payload) in [("numbers", &number_twice), ("shared", &shared), ("unclaimed", &unclaimed)] {
        assert_eq!(restore(c, key, payload), Ok(()), "{key}");
    }
    assert_eq!(run::<Vec<i64>>(c, &["SMEMBERS", "numbers"]), [1]);
    type Pending = (i64, Option<String>, Option<String>, Option<Vec<(String, i64)>>);
    let pending = |c: &mut _, key| run::<Pending>(c, &["XPENDING", key, "g"]);
    let to = |name: &str, count| Some(vec![(name.to_owned(), count)]);
    // Bob's claim to the first comes later; the second is nobody's, and so is what he had.
    let first = Some("7-1".to_owned());
    assert_eq!(pending(c, "shared"), (1, first.clone(), first.clone(), to("bob", 1)));
    assert_eq!(pending(c, "unclaimed"), (1, first.clone(), first, to("ann", 1)));
    assert_eq!(run::<i64>(c, &["XACK", "shared", "g", "7-1"]), 1);
    assert_eq!(run::<Pending>(c, &["XPENDING", "shared", "g"]), (0, None, None, None));
    run::<()>(c, &["CONFIG", "SET", "sanitize-dump-payload", "yes"]);
    for (what, payload) in [("a number twice", number_twice), ("of both", shared), ("of nobody", unclaimed)] {
        let refused = restore(c, "y", &payload).expect_err(what);
        assert!(refused.contains("Bad data format"), "{what}: {refused}");
    }
}

#[test]
fn strings_that_pass_for_cardinalities() {
    let server = TestServer::start(&["--enable-debug-command", "yes"]);
    let c = &mut server.connect();
    // No cached count, so that everything is looked at.
    let sparse = [&b"HYLL\x01\0\0\0"[..], &[0, 0, 0, 0, 0, 0, 0, 0x80]].concat();
    let dense = [&b"HYLL\x00\0\0\0"[..], &[0, 0, 0, 0, 0, 0, 0, 0x80]].concat();
    let bodies = [
        [&sparse[..], &b"\x7f\xff".repeat(600_000)].concat(),
        [&sparse[..], &[0xff; 20_000]].concat(),
        [&sparse[..], b"\x7f"].concat(),
        [&sparse[..], b"\x7f\xff\x80"].concat(),
        [&sparse[..], &[0x3f; 100]].concat(),
        [&dense[..], &[1; 100]].concat(),
        [&dense[..], &[0xff; 12_289]].concat(),
        [&b"HYLL\x09\0\0\0"[..], &[0; 9_000]].concat(),
        b"HYLL".to_vec(),
    ];
    for body in &bodies {
        redis::cmd("SET").arg("bad").arg(body).query::<()>(c).unwrap();
        for line in ["PFCOUNT bad", "PFCOUNT bad other", "PFMERGE to bad", "PFDEBUG GETREG bad"] {
            let refused = error(c, line);
            let known = ["INVALIDOBJ", "WRONGTYPE"].iter().any(|code| refused.contains(code));
            assert!(known, "{line} of {} bytes: {refused}", body.len());
        }
        // It may find the registers it needs.
        let _ = try_run::<Value>(c, &words("PFADD bad a b c d e f g h i j k l m n o p"));
        let _ = try_run::<Value>(c, &words("PFCOUNT bad"));
    }
    assert_eq!(run::<String>(c, &["PING"]), "PONG");
}

#[test]
fn nobody_subscribes_without_memory() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &words("CONFIG SET maxmemory 1"));
    for line in ["SUBSCRIBE a", "PSUBSCRIBE a", "SSUBSCRIBE a"] {
        assert!(error(&mut server.connect(), line).contains("OOM"), "{line}");
    }
}

/// Serving one of those who wait for a key may close another of them.
#[test]
fn a_client_that_waits_is_evicted_while_another_is_served() {
    let server = TestServer::start(&["--maxmemory-clients", "2mb"]);
    let c = &mut server.connect();
    let mut waiting: Vec<TcpStream> = (0..4).map(|_| connect(&server)).collect();
    for (i, client) in waiting.iter_mut().enumerate() {
        client.write_all(b"BLPOP list 0\r\n").unwrap();
        wait_for(10, "it waits", || {
            run::<String>(c, &["INFO", "clients"]).contains(&format!("blocked_clients:{}", i + 1))
        });
    }
    // What one of them sends meanwhile waits in its buffer; only what is looked at makes it the largest.
    let large = format!("*2\r\n$4\r\nECHO\r\n$1500000\r\n{}", "x".repeat(1_400_000));
    for client in &mut waiting[1..3] {
        let _ = client.write_all(large.as_bytes());
    }
    wait_for(10, "one of them is too large", || {
        run::<i64>(c, &words("RPUSH list a b c d e f g h"));
        run::<()>(c, &["DEL", "list"]);
        run::<String>(c, &["INFO", "stats"])
            .lines()
            .any(|l| l.starts_with("evicted_clients:") && l != "evicted_clients:0")
    });
    assert!(read_until(&mut waiting[0], b"a\r\n").starts_with(b"*2\r\n$4\r\nlist\r\n"));
    for round in 0..20 {
        let mut others: Vec<TcpStream> = (0..5).map(|_| connect(&server)).collect();
        others.iter_mut().for_each(|other| other.write_all(b"BLPOP list 0\r\n").unwrap());
        wait_for(10, "they wait", || {
            let info = run::<String>(c, &["INFO", "clients"]);
            info.lines().any(|l| l.strip_prefix("blocked_clients:").is_some_and(|n| n.parse::<u32>().unwrap() >= 5))
        });
        // Killed and served in the same turn.
        run::<Value>(c, &words("CLIENT KILL TYPE normal SKIPME yes"));
        assert_eq!(run::<i64>(c, &words("RPUSH list a")), 1, "round {round}");
        run::<()>(c, &["DEL", "list"]);
    }
}

/// A data set that arrives while a script runs takes the place of the old one afterwards.
#[test]
fn a_replica_finishes_a_script_before_it_takes_a_new_data_set() {
    let library = "#!lua name=lib\nredis.register_function{function_name='slow', flags={'no-writes'}, \
                   callback=function(keys, args) local n = 0 while redis.call('GET', 'stop') == false and n < 3e6 do \
                   n = n + 1 end return {redis.call('GET', 'stop') or 'none', redis.call('DBSIZE')} end}";
    let primary = TestServer::start(&["--repl-diskless-sync-delay", "0"]);
    run::<()>(&mut primary.connect(), &["SET", "stop", "now"]);
    let replica = TestServer::start(&["--busy-reply-threshold", "20", "--repl-diskless-load", "swapdb"]);
    let c = &mut replica.connect();
    run::<Value>(c, &["FUNCTION", "LOAD", library]);
    run::<()>(c, &["SET", "old", "1"]);
    let mut caller = connect(&replica);
    // The link is up and the data set under way when the script begins, or soon after.
    caller.write_all(format!("REPLICAOF 127.0.0.1 {}\r\nFCALL_RO slow 0\r\n", primary.port).as_bytes()).unwrap();
    let said = read_until(&mut caller, b":1\r\n");
    assert_eq!(String::from_utf8_lossy(&said), "+OK\r\n*2\r\n$4\r\nnone\r\n:1\r\n");
    wait_for(20, "the replica has the data set of its primary", || {
        try_run::<Option<String>>(&mut replica.connect(), &["GET", "stop"]).is_ok_and(|v| v.as_deref() == Some("now"))
    });
    assert_eq!(run::<Vec<Value>>(&mut replica.connect(), &["FUNCTION", "LIST"]), []);
}

#[test]
fn a_file_name_of_any_length() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("redis-check-aof");
    std::os::unix::fs::symlink(common::SERVER, &link).unwrap();
    for len in [4096, 100_000] {
        let output = Command::new(&link).arg(format!("/{}", "a".repeat(len))).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stdout.len() + output.stderr.len() > 0);
    }
}
