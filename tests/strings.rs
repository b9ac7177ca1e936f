//! Strings as clients see them: replies, errors, encodings, events and what is left behind.

use crate::common;

use common::{TestServer, run, try_run};
use redis::{Connection, Value};

fn error(c: &mut Connection, words: &[&str]) -> String {
    match try_run::<Value>(c, words) {
        Ok(value) => panic!("{words:?} gave {value:?}"),
        Err(e) => format!("{} {}", e.code().unwrap_or("ERR"), e.detail().unwrap_or_default()),
    }
}

fn text(c: &mut Connection, words: &[&str]) -> Option<String> {
    run(c, words)
}

#[test]
fn set_obeys_its_options() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    assert_eq!(text(c, &["SET", "k", "1", "XX"]), None);
    assert_eq!(text(c, &["SET", "k", "1", "NX"]).as_deref(), Some("OK"));
    assert_eq!(text(c, &["SET", "k", "2", "NX", "GET"]).as_deref(), Some("1"));
    assert_eq!(text(c, &["SET", "k", "2", "get", "xx"]).as_deref(), Some("1"));
    assert_eq!(text(c, &["SET", "k", "3", "EX", "100"]).as_deref(), Some("OK"));
    assert_eq!(run::<i64>(c, &["TTL", "k"]), 100);
    run::<()>(c, &["SET", "k", "4", "KEEPTTL"]);
    assert_eq!(run::<i64>(c, &["TTL", "k"]), 100);
    run::<()>(c, &["SET", "k", "5"]);
    assert_eq!(run::<i64>(c, &["TTL", "k"]), -1);
    for words in [
        &["SET", "k", "v", "NX", "XX"][..],
        &["SET", "k", "v", "EX"],
        &["SET", "k", "v", "EX", "1", "PX", "1"],
        &["SET", "k", "v", "KEEPTTL", "EX", "1"],
        &["SET", "k", "v", "PERSIST"],
        &["GETEX", "k", "KEEPTTL"],
        &["GETEX", "k", "EX", "1", "PERSIST"],
    ] {
        assert_eq!(error(c, words), "ERR syntax error", "{words:?}");
    }
    assert_eq!(error(c, &["SET", "k", "v", "EX", "0"]), "ERR invalid expire time in 'set' command");
    assert_eq!(error(c, &["SETEX", "k", "9223372036854775807", "v"]), "ERR invalid expire time in 'setex' command");
    assert_eq!(error(c, &["SET", "k", "v", "PX", "x"]), "ERR value is not an integer or out of range");
    assert_eq!(text(c, &["GET", "k"]).as_deref(), Some("5"));
}

#[test]
fn numbers_stay_exact() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    assert_eq!(run::<i64>(c, &["INCR", "n"]), 1);
    assert_eq!(run::<i64>(c, &["DECRBY", "n", "11"]), -10);
    run::<()>(c, &["SET", "n", "9223372036854775807"]);
    assert_eq!(error(c, &["INCR", "n"]), "ERR increment or decrement would overflow");
    assert_eq!(error(c, &["DECRBY", "n", "-9223372036854775808"]), "ERR decrement would overflow");
    for not_a_number in ["", " 1", "1 ", "01", "1.0", "9223372036854775808"] {
        run::<()>(c, &["SET", "x", not_a_number]);
        assert_eq!(error(c, &["INCR", "x"]), "ERR value is not an integer or out of range", "{not_a_number:?}");
    }
    run::<()>(c, &["SET", "f", "3.0e3"]);
    assert_eq!(text(c, &["INCRBYFLOAT", "f", "200"]).as_deref(), Some("3200"));
    assert_eq!(text(c, &["INCRBYFLOAT", "f", "0.1"]).as_deref(), Some("3200.10000000000000009"));
    assert_eq!(error(c, &["INCRBYFLOAT", "f", "x"]), "ERR value is not a valid float");
    assert_eq!(error(c, &["INCRBYFLOAT", "f", "inf"]), "ERR increment would produce NaN or Infinity");
}

#[test]
fn parts_can_be_read_and_written() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &["SET", "k", "Hello World"]);
    for (start, end, part) in [
        ("0", "4", "Hello"),
        ("-5", "-1", "World"),
        ("-1", "-5", ""),
        ("5", "2", ""),
        ("-100", "1", "He"),
        ("9", "9223372036854775807", "ld"),
        ("-9223372036854775808", "0", "H"),
    ] {
        assert_eq!(text(c, &["GETRANGE", "k", start, end]).as_deref(), Some(part), "{start} {end}");
    }
    assert_eq!(run::<i64>(c, &["SETRANGE", "k", "6", "Redis"]), 11);
    assert_eq!(run::<i64>(c, &["SETRANGE", "new", "3", "x"]), 4);
    assert_eq!(text(c, &["GET", "new"]).as_deref(), Some("\0\0\0x"));
    assert_eq!(run::<i64>(c, &["SETRANGE", "none", "3", ""]), 0);
    assert_eq!(run::<i64>(c, &["EXISTS", "none"]), 0);
    assert_eq!(error(c, &["SETRANGE", "k", "-1", "x"]), "ERR offset is out of range");
    let too_long = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    assert_eq!(error(c, &["SETRANGE", "k", "536870912", "x"]), too_long);
    assert_eq!(error(c, &["SETRANGE", "none", "9223372036854775807", "x"]), too_long);
    assert_eq!(run::<i64>(c, &["APPEND", "k", "!"]), 12);
    assert_eq!(run::<i64>(c, &["STRLEN", "k"]), 12);
}

#[test]
fn encodings_follow_what_was_done() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let encoding = |c: &mut Connection, key: &str| text(c, &["OBJECT", "ENCODING", key]).unwrap();
    for (value, expected) in [
        ("1", "int"),
        ("-9223372036854775808", "int"),
        ("9223372036854775808", "embstr"),
        ("007", "embstr"),
        ("", "embstr"),
        (&"a".repeat(44), "embstr"),
        (&"a".repeat(45), "raw"),
    ] {
        run::<()>(c, &["SET", "k", value]);
        assert_eq!(encoding(c, "k"), expected, "{value:?}");
    }
    run::<()>(c, &["SET", "k", "1"]);
    run::<()>(c, &["APPEND", "k", "2"]);
    assert_eq!(encoding(c, "k"), "raw");
    run::<()>(c, &["RENAME", "k", "moved"]);
    assert_eq!(encoding(c, "moved"), "raw");
    run::<()>(c, &["COPY", "moved", "copied"]);
    assert_eq!(encoding(c, "copied"), "raw");
    assert_eq!(run::<i64>(c, &["INCR", "moved"]), 13);
    assert_eq!(encoding(c, "moved"), "int");
    run::<()>(c, &["INCRBYFLOAT", "moved", "1"]);
    assert_eq!(encoding(c, "moved"), "embstr");
}

#[test]
fn several_keys_at_once() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &["MSET", "a", "1", "b", "2", "a", "3"]);
    let got: Vec<Option<String>> = run(c, &["MGET", "a", "b", "nothing"]);
    assert_eq!(got, [Some("3".into()), Some("2".into()), None]);
    assert_eq!(run::<i64>(c, &["MSETNX", "c", "1", "a", "2"]), 0);
    assert_eq!(run::<i64>(c, &["EXISTS", "c"]), 0);
    assert_eq!(run::<i64>(c, &["MSETNX", "c", "1", "d", "2"]), 1);
    assert_eq!(error(c, &["MSET", "a", "1", "b"]), "ERR wrong number of arguments for 'mset' command");
}

#[test]
fn getex_and_getdel_leave_what_they_should() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &["SET", "k", "v"]);
    assert_eq!(text(c, &["GETEX", "k", "PX", "100000"]).as_deref(), Some("v"));
    assert!(run::<i64>(c, &["PTTL", "k"]) > 90_000);
    assert_eq!(text(c, &["GETEX", "k", "PERSIST"]).as_deref(), Some("v"));
    assert_eq!(run::<i64>(c, &["TTL", "k"]), -1);
    assert_eq!(text(c, &["GETEX", "k", "EXAT", "10"]).as_deref(), Some("v"));
    assert_eq!(run::<i64>(c, &["EXISTS", "k"]), 0);
    run::<()>(c, &["SET", "k", "v"]);
    assert_eq!(text(c, &["GETDEL", "k"]).as_deref(), Some("v"));
    assert_eq!(text(c, &["GETDEL", "k"]), None);
}

#[test]
fn lcs_finds_text_and_places() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &["MSET", "a", "ohmytext", "b", "mynewtext"]);
    assert_eq!(text(c, &["LCS", "a", "b"]).as_deref(), Some("mytext"));
    assert_eq!(run::<i64>(c, &["LCS", "a", "b", "LEN"]), 6);
    assert_eq!(text(c, &["LCS", "a", "nothing"]).as_deref(), Some(""));
    let got: Value = run(c, &["LCS", "a", "b", "IDX", "MINMATCHLEN", "4", "WITHMATCHLEN"]);
    let int = Value::Int;
    let pair = |x, y| Value::Array(vec![int(x), int(y)]);
    let expected = Value::Array(vec![
        Value::BulkString(b"matches".to_vec()),
        Value::Array(vec![Value::Array(vec![pair(4, 7), pair(5, 8), int(4)])]),
        Value::BulkString(b"len".to_vec()),
        int(6),
    ]);
    assert_eq!(got, expected);
    assert_eq!(
        error(c, &["LCS", "a", "b", "IDX", "LEN"]),
        "ERR If you want both the length and indexes, please just use IDX."
    );
}

/// What reaches the append-only file, command by command.
#[test]
fn the_log_gets_what_gives_the_same_later() {
    let server = TestServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let c = &mut server.connect();
    for words in [
        &["SET", "a", "1", "EX", "100"][..],
        &["SET", "a", "1", "PXAT", "99999999999999"],
        &["SET", "a", "1", "GET"],
        &["SETEX", "b", "100", "x"],
        &["GETEX", "b", "PERSIST"],
        &["GETEX", "b", "EX", "100"],
        &["GETEX", "b", "EXAT", "1"],
        &["INCRBYFLOAT", "f", "1.5"],
        &["GETSET", "a", "2"],
        &["EXPIRE", "a", "100", "NX"],
        &["EXPIREAT", "a", "1"],
        &["SET", "d", "1"],
        &["GETDEL", "d"],
        &["SET", "d", "1", "XX"],
        &["DEL", "nothing"],
    ] {
        let _: Value = run(c, words);
    }
    let dir = server.dir.path().join("appendonlydir");
    let incr = std::fs::read_dir(dir)
        .unwrap()
        .map(|f| f.unwrap().path())
        .find(|p| p.to_string_lossy().ends_with(".incr.aof"))
        .expect("an incremental file");
    let log = String::from_utf8_lossy(&std::fs::read(incr).unwrap()).into_owned();
    let words: Vec<&str> = log.split("\r\n").filter(|w| !w.starts_with(['$', '*'])).collect();
    let is_time = |w: &str| w.len() == 13 && w.bytes().all(|b| b.is_ascii_digit());
    let shown: Vec<&str> = words.into_iter().map(|w| if is_time(w) { "<time>" } else { w }).collect();
    let expected = "SELECT 0 SET a 1 PXAT <time> SET a 1 PXAT 99999999999999 SET a 1 SET b x PXAT <time> PERSIST b \
                    PEXPIREAT b <time> DEL b SET f 1.5 KEEPTTL SET a 2 PEXPIREAT a <time> NX DEL a SET d 1 DEL d ";
    assert_eq!(shown.join(" "), expected);
}

/// Replies with long values are sent from where the values lie, so what follows in the pipeline must not reach them, and a
/// client that reads slowly gets the same.
#[test]
fn long_values_arrive_as_they_were_when_they_were_read() {
    use std::io::{Read, Write};
    let server = TestServer::start(&[]);
    let value = |fill: char, len: usize| fill.to_string().repeat(len);
    for len in [2047, 2048, 5000, 700_000] {
        let (a, b) = (value('a', len), value('b', len));
        let requests: Vec<Vec<&str>> = vec![
            vec!["SET", "k", &a],
            vec!["GET", "k"],
            vec!["SET", "k", &b],
            vec!["GET", "k"],
            vec!["SETRANGE", "k", "0", "xyz"],
            vec!["MGET", "k", "none", "k"],
            vec!["APPEND", "k", "end"],
            vec!["GET", "k"],
            vec!["MULTI"],
            vec!["GET", "k"],
            vec!["EXEC"],
            vec!["SET", "k", &a, "GET"],
            vec!["GET", "k"],
            vec!["EVAL", "return redis.call('GET', KEYS[1])", "1", "k"],
            vec!["GETDEL", "k"],
            vec!["GET", "k"],
        ];
        let bulk = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        let ranged = format!("xyz{}", &b[3..]);
        let appended = format!("{ranged}end");
        let expected = [
            "+OK\r\n".into(),
            bulk(&a),
            "+OK\r\n".into(),
            bulk(&b),
            format!(":{len}\r\n"),
            format!("*3\r\n{}$-1\r\n{}", bulk(&ranged), bulk(&ranged)),
            format!(":{}\r\n", len + 3),
            bulk(&appended),
            "+OK\r\n+QUEUED\r\n*1\r\n".into(),
            bulk(&appended),
            bulk(&appended),
            bulk(&a),
            bulk(&a),
            bulk(&a),
            "$-1\r\n".into(),
        ]
        .concat();
        let mut wire = Vec::new();
        for words in &requests {
            wire.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
            words.iter().for_each(|w| wire.extend_from_slice(bulk(w).as_bytes()));
        }
        for pause_ms in [0, 100] {
            let mut socket = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            let mut writer = socket.try_clone().unwrap();
            let wire = wire.clone();
            let sender = std::thread::spawn(move || writer.write_all(&wire));
            std::thread::sleep(std::time::Duration::from_millis(pause_ms));
            let mut got = vec![0; expected.len()];
            socket.read_exact(&mut got).unwrap();
            sender.join().unwrap().unwrap();
            assert!(got == expected.as_bytes(), "values of {len} bytes");
        }
    }
}

#[test]
fn parts_of_long_values_arrive_as_they_were() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let value: String = (0..100_000).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
    run::<()>(c, &["SET", "long", &value]);
    // The value changes and goes after parts of it were read, in one go.
    let (first, _, second, _, third): (String, i64, String, i64, Option<String>) = redis::pipe()
        .cmd("GETRANGE")
        .arg(&["long", "5", "-7"])
        .cmd("SETRANGE")
        .arg(&["long", "10", "XYZ"])
        .cmd("GETRANGE")
        .arg(&["long", "8", "50007"])
        .cmd("DEL")
        .arg("long")
        .cmd("GET")
        .arg("long")
        .query(c)
        .unwrap();
    assert_eq!(first, value[5..value.len() - 6]);
    assert_eq!(second, format!("{}XYZ{}", &value[8..10], &value[13..50008]));
    assert_eq!(third, None);
    // A long value keeps its text, its time and its encoding under another name.
    run::<()>(c, &["SET", "long", &value, "EX", "100"]);
    run::<()>(c, &["RENAME", "long", "other"]);
    assert_eq!(text(c, &["GET", "other"]), Some(value));
    assert_eq!(run::<i64>(c, &["TTL", "other"]), 100);
    run::<()>(c, &["APPEND", "short", "x"]);
    run::<()>(c, &["APPEND", "short", "y"]);
    run::<()>(c, &["RENAME", "short", "other"]);
    assert_eq!(text(c, &["OBJECT", "ENCODING", "other"]).as_deref(), Some("raw"));
}

#[test]
fn strings_of_any_kind_are_combined() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &["SET", "n", "1234"]);
    run::<()>(c, &["SET", "text", "\x7f\x7f\x7f\x7f\x7f\x7f"]);
    for (command, expected) in [
        ("BITOP AND d n text none", "\0\0\0\0\0\0"),
        ("BITOP AND d n text", "1234\0\0"),
        ("BITOP OR d n none", "1234"),
        ("BITOP XOR d n text", "NMLK\x7f\x7f"),
    ] {
        let words: Vec<&str> = command.split(' ').collect();
        assert_eq!(run::<i64>(c, &words), expected.len() as i64, "{command}");
        assert_eq!(text(c, &["GET", "d"]).as_deref(), Some(expected), "{command}");
        assert_eq!(text(c, &["OBJECT", "ENCODING", "d"]).as_deref(), Some("raw"));
    }
    assert_eq!(run::<i64>(c, &["BITOP", "OR", "d", "none", "nothing"]), 0);
    assert_eq!(text(c, &["GET", "d"]), None);
    run::<()>(c, &["RPUSH", "list", "x"]);
    assert!(error(c, &["BITOP", "OR", "d", "n", "list"]).starts_with("WRONGTYPE"));
    assert!(error(c, &["BITOP", "NAND", "d", "n"]).contains("syntax error"));
}
