//! Streams as clients see them: entries, ranges, trimming, groups, waiting, propagation, persistence.

use crate::common;

use common::{TestServer, run, try_run, wait_for};
use redis::{FromRedisValue, Value};
use std::thread;

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn ask<T: FromRedisValue>(c: &mut redis::Connection, command: &str) -> T {
    run(c, &words(command))
}

fn error(c: &mut redis::Connection, command: &str) -> String {
    let e = try_run::<Value>(c, &words(command)).unwrap_err();
    format!("{} {}", e.code().unwrap_or("ERR"), e.detail().unwrap_or_default()).replace("ResponseError ", "ERR ")
}

type Entries = Vec<(String, Vec<String>)>;

fn ids(c: &mut redis::Connection, command: &str) -> Vec<String> {
    ask::<Entries>(c, command).into_iter().map(|(id, _)| id).collect()
}

/// A field of the flat map that XINFO replies with in RESP2.
fn info(c: &mut redis::Connection, command: &str, field: &str) -> Value {
    let Value::Array(items) = ask::<Value>(c, command) else { panic!("no array") };
    let at = items.iter().position(|v| String::from_redis_value(v).is_ok_and(|name| name == field)).unwrap();
    items[at + 1].clone()
}

#[test]
fn entries_are_added_found_and_deleted() {
    let server = TestServer::start(&["--stream-node-max-entries", "3"]);
    let c = &mut server.connect();
    for i in 1..=10 {
        assert_eq!(ask::<String>(c, &format!("XADD s {i}-0 n {i} odd {}", i % 2)), format!("{i}-0"));
    }
    assert_eq!(ask::<String>(c, "XADD s 10-* other x"), "10-1");
    assert_eq!(ask::<String>(c, "TYPE s"), "stream");
    assert_eq!(ask::<String>(c, "OBJECT ENCODING s"), "stream");
    assert_eq!(ask::<i64>(c, "XLEN s"), 11);
    assert_eq!(ask::<Entries>(c, "XRANGE s 9 9"), [("9-0".into(), ["n", "9", "odd", "1"].map(String::from).to_vec())]);
    assert_eq!(ids(c, "XRANGE s (8-0 +"), ["9-0", "10-0", "10-1"]);
    assert_eq!(ids(c, "XREVRANGE s + - COUNT 2"), ["10-1", "10-0"]);
    assert_eq!(ids(c, "XREVRANGE s (10-0 8"), ["9-0", "8-0"]);
    assert_eq!(ask::<i64>(c, "XDEL s 1 2-0 2-0 77-7"), 2);
    assert_eq!(ids(c, "XRANGE s - + COUNT 1"), ["3-0"]);
    assert_eq!(ask::<i64>(c, "XTRIM s MAXLEN 4"), 5);
    assert_eq!(ids(c, "XRANGE s - +"), ["8-0", "9-0", "10-0", "10-1"]);
    assert_eq!(ask::<i64>(c, "XTRIM s MINID ~ 10"), 2);
    assert_eq!(ids(c, "XRANGE s - +"), ["10-0", "10-1"]);
    assert_eq!(ask::<String>(c, "XADD s MAXLEN = 1 11-0 a b"), "11-0");
    assert_eq!(ask::<Option<String>>(c, "XADD none NOMKSTREAM * a b"), None);
    assert_eq!(ask::<i64>(c, "XTRIM s MAXLEN 0"), 1);
    assert_eq!(ask::<i64>(c, "EXISTS s"), 1, "a stream may be empty");
    let auto: String = ask(c, "XADD s * a b");
    assert!(auto.ends_with("-0") && auto.len() > 13, "{auto}");
}

#[test]
fn errors_have_the_usual_texts() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    ask::<()>(c, "XADD s 5-5 a b");
    ask::<()>(c, "SET str x");
    for (command, text) in [
        ("XADD s 5-5 a b", "ERR The ID specified in XADD is equal or smaller than the target stream top item"),
        ("XADD s 4-* a b", "ERR The ID specified in XADD is equal or smaller than the target stream top item"),
        ("XADD s 0-0 a b", "ERR The ID specified in XADD must be greater than 0-0"),
        ("XADD s * a", "ERR wrong number of arguments for 'xadd' command"),
        ("XADD s x-1 a b", "ERR Invalid stream ID specified as stream command argument"),
        ("XADD str * a b", "WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("XADD s MAXLEN -1 * a b", "ERR The MAXLEN argument must be >= 0."),
        (
            "XADD s MAXLEN 1 MINID 1 * a b",
            "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
        ),
        ("XTRIM s MAXLEN 1 LIMIT 3", "ERR syntax error, LIMIT cannot be used without the special ~ option"),
        ("XTRIM s LIMIT 3", "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy"),
        ("XRANGE s (18446744073709551615-18446744073709551615 +", "ERR invalid start ID for the interval"),
        ("XRANGE s - (0-0", "ERR invalid end ID for the interval"),
        ("XSETID s 5-4", "ERR The ID specified in XSETID is smaller than the target stream top item"),
        ("XSETID none 1", "ERR no such key"),
        (
            "XREAD STREAMS s t 0",
            "ERR Unbalanced 'xread' list of streams: for each stream key an ID or '$' must be specified.",
        ),
        (
            "XREAD STREAMS s >",
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        ),
        ("XREAD BLOCK -1 STREAMS s $", "ERR timeout is negative"),
        (
            "XREADGROUP GROUP g c STREAMS s >",
            "NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option",
        ),
        ("XGROUP SETID s g 0", "NOGROUP No such consumer group 'g' for key name 's'"),
        ("XPENDING s g", "NOGROUP No such key 's' or consumer group 'g'"),
        ("XCLAIM s g c 0 1", "NOGROUP No such key 's' or consumer group 'g'"),
        ("XAUTOCLAIM s g c 0 0 COUNT 0", "ERR COUNT must be > 0"),
        ("XINFO STREAM none", "ERR no such key"),
        ("XINFO STREAM s SHORT", "ERR unknown subcommand or wrong number of arguments for 'STREAM'. Try XINFO HELP."),
    ] {
        assert_eq!(error(c, command), text, "{command}");
    }
    ask::<()>(c, "XADD s 18446744073709551615-18446744073709551615 a b");
    let text = "ERR The stream has exhausted the last possible ID, unable to add more items";
    assert_eq!(error(c, "XADD s * a b"), text);
}

#[test]
fn groups_deliver_claim_and_acknowledge() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    ask::<()>(c, "XGROUP CREATE s g $ MKSTREAM");
    assert_eq!(error(c, "XGROUP CREATE s g $"), "BUSYGROUP Consumer Group name already exists");
    for i in 1..=5 {
        ask::<()>(c, &format!("XADD s {i} n {i}"));
    }
    type Read = Vec<(String, Entries)>;
    let first: Read = ask(c, "XREADGROUP GROUP g alice COUNT 3 STREAMS s >");
    assert_eq!(first[0].1.iter().map(|e| &e.0[..]).collect::<Vec<_>>(), ["1-0", "2-0", "3-0"]);
    let second: Read = ask(c, "XREADGROUP GROUP g bob STREAMS s >");
    assert_eq!(second[0].1.len(), 2);
    assert_eq!(ask::<Option<Read>>(c, "XREADGROUP GROUP g bob STREAMS s >"), None);
    assert_eq!(ask::<i64>(c, "XACK s g 1 1 9"), 1);
    assert_eq!(ask::<i64>(c, "XDEL s 2-0"), 1);
    // What was deleted still is in the history, without its fields.
    type History = Vec<(String, Vec<(String, Option<Vec<String>>)>)>;
    let history: History = ask(c, "XREADGROUP GROUP g alice STREAMS s 0");
    assert_eq!(history[0].1[0], ("2-0".into(), None));
    assert!(history[0].1[1].1.is_some());
    let (total, from, to, owners): (i64, String, String, Vec<(String, String)>) = ask(c, "XPENDING s g");
    assert_eq!((total, &from[..], &to[..]), (4, "2-0", "5-0"));
    assert_eq!(owners, [("alice".into(), "2".into()), ("bob".into(), "2".into())]);
    let pending: Vec<(String, String, i64, i64)> = ask(c, "XPENDING s g - + 10 alice");
    assert_eq!((&pending[0].0[..], pending[0].3, &pending[1].0[..], pending[1].3), ("2-0", 1, "3-0", 2));
    assert_eq!(ask::<Vec<(String, String, i64, i64)>>(c, "XPENDING s g IDLE 100000 - + 10"), []);
    assert_eq!(ask::<Vec<String>>(c, "XCLAIM s g bob 0 3-0 2-0 JUSTID"), ["3-0"]);
    assert_eq!(ask::<Vec<String>>(c, "XCLAIM s g bob 100000 3-0 JUSTID"), [""; 0]);
    assert_eq!(ask::<Vec<String>>(c, "XCLAIM s g carol 0 1-0 FORCE JUSTID RETRYCOUNT 7"), ["1-0"]);
    ask::<()>(c, "XDEL s 4-0");
    let claimed: (String, Vec<String>, Vec<String>) = ask(c, "XAUTOCLAIM s g dave 0 - COUNT 3 JUSTID");
    assert_eq!(claimed, ("5-0".into(), vec!["1-0".into(), "3-0".into()], vec!["4-0".into()]));
    assert_eq!(ask::<i64>(c, "XGROUP DELCONSUMER s g dave"), 2);
    assert_eq!(ask::<i64>(c, "XGROUP CREATECONSUMER s g eve"), 1);
    assert_eq!(ask::<i64>(c, "XGROUP CREATECONSUMER s g eve"), 0);
    assert_eq!(info(c, "XINFO STREAM s", "length"), Value::Int(3));
    assert_eq!(info(c, "XINFO STREAM s", "groups"), Value::Int(1));
    assert_eq!(info(c, "XINFO STREAM s", "entries-added"), Value::Int(5));
    assert_eq!(String::from_redis_value(&info(c, "XINFO STREAM s", "max-deleted-entry-id")).unwrap(), "4-0");
    assert_eq!(ask::<i64>(c, "XGROUP DESTROY s g"), 1);
    assert_eq!(ask::<i64>(c, "XGROUP DESTROY s g"), 0);
}

#[test]
fn lag_follows_reading() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    for i in 1..=5 {
        ask::<()>(c, &format!("XADD s {i} n {i}"));
    }
    ask::<()>(c, "XGROUP CREATE s g 0");
    let group = |c: &mut redis::Connection| -> (Value, Value) {
        let Value::Array(mut groups) = ask::<Value>(c, "XINFO GROUPS s") else { panic!("no array") };
        let Value::Array(fields) = groups.remove(0) else { panic!("no map") };
        (fields[9].clone(), fields[11].clone())
    };
    assert_eq!(group(c), (Value::Nil, Value::Int(5)));
    ask::<Value>(c, "XREADGROUP GROUP g c COUNT 2 STREAMS s >");
    assert_eq!(group(c), (Value::Int(2), Value::Int(3)));
    ask::<i64>(c, "XDEL s 4");
    assert_eq!(group(c), (Value::Int(2), Value::Nil));
    ask::<Value>(c, "XREADGROUP GROUP g c STREAMS s >");
    assert_eq!(group(c), (Value::Int(5), Value::Int(0)));
}

/// Runs a command on a connection of its own.
fn in_background(server: &TestServer, command: &str) -> thread::JoinHandle<redis::RedisResult<Value>> {
    let mut c = server.connect();
    let command = command.to_owned();
    thread::spawn(move || try_run(&mut c, &words(&command)))
}

fn wait_blocked(c: &mut redis::Connection, count: usize) {
    let wanted = format!("blocked_clients:{count}\r\n");
    wait_for(10, &wanted, || ask::<String>(c, "INFO clients").contains(&wanted));
}

#[test]
fn readers_wait_for_entries() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    ask::<()>(c, "XADD s 1 n 1");
    ask::<()>(c, "XGROUP CREATE s g $");
    let from_now = in_background(&server, "XREAD BLOCK 0 STREAMS none s $ $");
    wait_blocked(c, 1);
    let for_group = in_background(&server, "XREADGROUP GROUP g c BLOCK 20000 STREAMS s >");
    wait_blocked(c, 2);
    ask::<()>(c, "XADD s 2 n 2");
    for reader in [from_now, for_group] {
        let got: Vec<(String, Entries)> = redis::from_redis_value(&reader.join().unwrap().unwrap()).unwrap();
        assert_eq!(got, [("s".into(), vec![("2-0".into(), vec!["n".into(), "2".into()])])]);
    }
    assert_eq!(ask::<Value>(c, "XREAD BLOCK 1 STREAMS s $"), Value::Nil);
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("XREAD").arg(&["BLOCK", "0", "STREAMS", "s", "$"]);
    assert_eq!(pipe.query::<Vec<Value>>(c).unwrap(), [Value::Nil]);
}

#[test]
fn readers_for_a_group_learn_that_it_is_gone() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let endings = [
        ("DEL s", "NOGROUP"),
        ("XGROUP DESTROY s g", "NOGROUP"),
        ("SET s x", "WRONGTYPE"),
        ("FLUSHALL", "NOGROUP"),
        ("RENAME s other", "NOGROUP"),
        ("SWAPDB 0 1", "NOGROUP"),
        ("PEXPIREAT s 1", "NOGROUP"),
    ];
    for (ending, code) in endings {
        ask::<()>(c, "FLUSHALL");
        ask::<()>(c, "XGROUP CREATE s g $ MKSTREAM");
        let reader = in_background(&server, "XREADGROUP GROUP g c BLOCK 0 STREAMS s >");
        wait_blocked(c, 1);
        // Who does not read for a group goes on waiting.
        let plain = in_background(&server, "XREAD BLOCK 0 STREAMS s $");
        wait_blocked(c, 2);
        ask::<Value>(c, ending);
        assert_eq!(reader.join().unwrap().unwrap_err().code(), Some(code), "{ending}");
        wait_blocked(c, 1);
        ask::<()>(c, "FLUSHALL");
        ask::<()>(c, "XADD s 5 a b");
        plain.join().unwrap().unwrap();
    }
}

#[test]
fn streams_survive_dump_snapshot_and_log() {
    let options = ["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--enable-debug-command", "yes"];
    let mut server = TestServer::start(&options);
    let c = &mut server.connect();
    for i in 1..=500 {
        ask::<()>(c, &format!("XADD s {i}-{} temp {} hum {}", i % 3, i % 50, i * 7));
    }
    ask::<()>(c, "XADD s 600 another field -12 text");
    ask::<i64>(c, "XDEL s 7-1 600-0");
    ask::<()>(c, "XTRIM s MAXLEN 450");
    ask::<()>(c, "XGROUP CREATE s g 100");
    ask::<()>(c, "XGROUP CREATE s 12 0 ENTRIESREAD 3");
    ask::<()>(c, "XGROUP CREATECONSUMER s g idle");
    ask::<Value>(c, "XREADGROUP GROUP g alice COUNT 5 STREAMS s >");
    ask::<Value>(c, "XREADGROUP GROUP g bob COUNT 3 NOACK STREAMS s >");
    ask::<Value>(c, "XREADGROUP GROUP g bob COUNT 3 STREAMS s >");
    ask::<()>(c, "XGROUP CREATE empty g $ MKSTREAM");
    let digest: String = ask(c, "DEBUG DIGEST");
    let before: Value = ask(c, "XINFO STREAM s FULL COUNT 0");
    let payload: Vec<u8> = ask(c, "DUMP s");
    redis::cmd("RESTORE").arg("copy").arg(0).arg(&payload).query::<()>(c).unwrap();
    assert_eq!(ask::<Value>(c, "XINFO STREAM copy FULL COUNT 0"), before);
    assert_eq!(ask::<Vec<u8>>(c, "DUMP copy"), payload);
    ask::<()>(c, "COPY s copy REPLACE");
    assert_eq!(ask::<Value>(c, "XINFO STREAM copy FULL COUNT 0"), before);
    ask::<()>(c, "DEL copy");
    ask::<()>(c, "DEBUG RELOAD");
    assert_eq!(ask::<String>(c, "DEBUG DIGEST"), digest);
    assert_eq!(ask::<Value>(c, "XINFO STREAM s FULL COUNT 0"), before);
    let pending: Value = ask(c, "XPENDING s g");
    let last: Value = ask(c, "XINFO STREAM empty");
    ask::<()>(c, "BGREWRITEAOF");
    wait_for(20, "the log is rewritten", || {
        ask::<String>(&mut server.connect(), "INFO persistence").contains("aof_rewrite_in_progress:0")
    });
    server.kill();
    server.restart();
    let c = &mut server.connect();
    assert_eq!(ask::<String>(c, "DEBUG DIGEST"), digest);
    assert_eq!(ask::<Value>(c, "XPENDING s g"), pending);
    assert_eq!(ask::<Value>(c, "XINFO STREAM empty"), last);
    assert_eq!(ids(c, "XRANGE s - + COUNT 1"), ["51-0"]);
}

#[test]
fn broken_payloads_are_refused() {
    let server = TestServer::start(&["--enable-debug-command", "yes"]);
    let c = &mut server.connect();
    ask::<()>(c, "XADD s 1 a b");
    ask::<()>(c, "XADD s 2 a c");
    ask::<()>(c, "XDEL s 1");
    ask::<()>(c, "XGROUP CREATE s g 0");
    ask::<Value>(c, "XREADGROUP GROUP g c STREAMS s >");
    let payload: Vec<u8> = ask(c, "DUMP s");
    ask::<()>(c, "DEBUG SET-SKIP-CHECKSUM-VALIDATION 1");
    let mut restored = 0;
    for at in 0..payload.len() - 10 {
        for bit in [0x01, 0x10, 0x80] {
            let mut bad = payload.clone();
            bad[at] ^= bit;
            let answer = redis::cmd("RESTORE").arg("bad").arg(0).arg(&bad).arg("REPLACE").query::<()>(c);
            if answer.is_ok() {
                restored += 1;
                // Whatever was taken for good can be worked with.
                for command in ["XINFO STREAM bad FULL COUNT 0", "XREVRANGE bad + -", "XTRIM bad MAXLEN 0", "XLEN bad"]
                {
                    let _ = try_run::<Value>(c, &words(command));
                }
            }
        }
    }
    assert!(restored > 0 && ask::<String>(c, "PING") == "PONG");
}

#[test]
fn delivery_is_propagated_as_claims() {
    let server = TestServer::start(&["--appendonly", "yes"]);
    let c = &mut server.connect();
    ask::<()>(c, "XGROUP CREATE s g $ MKSTREAM");
    ask::<()>(c, "XADD s 1-* n 1");
    ask::<()>(c, "XADD s MAXLEN ~ 100 2 n 2");
    ask::<Value>(c, "XREADGROUP GROUP g alice COUNT 1 STREAMS s >");
    ask::<Value>(c, "XREADGROUP GROUP g bob NOACK STREAMS s >");
    let text = |server: &TestServer| -> String {
        let folder = server.dir.path().join("appendonlydir");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().flatten().map(|f| f.path()).collect();
        files.retain(|f| f.display().to_string().contains(".incr."));
        let bytes = std::fs::read(&files[0]).unwrap();
        let words: Vec<&[u8]> = bytes.split(|b| *b == b'\n').collect();
        let words = words.iter().map(|w| String::from_utf8_lossy(w).trim_end().to_string());
        words.filter(|w| !w.starts_with('$')).collect::<Vec<_>>().join(" ")
    };
    for wanted in [
        "XADD s 1-0 n 1",
        "XADD s MAXLEN = 2 2 n 2",
        "XCLAIM s g alice 0 1-0 TIME",
        "RETRYCOUNT 1 FORCE JUSTID LASTID 1-0",
        "*5 XGROUP CREATECONSUMER s g bob",
        "*7 XGROUP SETID s g 2-0 ENTRIESREAD 2",
    ] {
        wait_for(10, wanted, || text(&server).contains(wanted));
    }
    assert!(!text(&server).contains("XREADGROUP"));
}
