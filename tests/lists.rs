//! Lists as clients see them: replies, encodings, waiting, propagation, persistence.

use crate::common;

use common::{TestServer, run, try_run, wait_for};
use std::thread;
use std::time::{Duration, Instant};

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn strings(c: &mut redis::Connection, command: &str) -> Vec<String> {
    run(c, &words(command))
}

#[test]
fn commands_at_both_ends_and_in_the_middle() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    assert_eq!(run::<i64>(c, &words("RPUSH l b c d")), 3);
    assert_eq!(run::<i64>(c, &words("LPUSH l a 7")), 5);
    assert_eq!(strings(c, "LRANGE l 0 -1"), ["7", "a", "b", "c", "d"]);
    assert_eq!(run::<i64>(c, &words("LPUSHX none x")), 0);
    assert_eq!(run::<i64>(c, &words("LINSERT l BEFORE c x")), 6);
    assert_eq!(run::<i64>(c, &words("LINSERT l AFTER d x")), 7);
    assert_eq!(run::<i64>(c, &words("LINSERT l AFTER none x")), -1);
    assert_eq!(run::<i64>(c, &words("LPOS l x")), 3);
    assert_eq!(run::<Vec<i64>>(c, &words("LPOS l x RANK -1 COUNT 0")), [6, 3]);
    assert_eq!(run::<Vec<i64>>(c, &words("LPOS l x COUNT 0 MAXLEN 4")), [3]);
    assert_eq!(run::<i64>(c, &words("LREM l -1 x")), 1);
    run::<()>(c, &words("LSET l -1 last"));
    assert_eq!(strings(c, "LRANGE l -3 -1"), ["x", "c", "last"]);
    assert_eq!(run::<String>(c, &words("LINDEX l 0")), "7");
    assert_eq!(strings(c, "RPOP l 2"), ["last", "c"]);
    assert_eq!(run::<String>(c, &words("LMOVE l m LEFT RIGHT")), "7");
    assert_eq!(run::<(String, Vec<String>)>(c, &words("LMPOP 2 none l RIGHT COUNT 9")).1, ["x", "b", "a"]);
    assert_eq!(run::<i64>(c, &words("EXISTS l")), 0);
    run::<()>(c, &words("LTRIM m 1 0"));
    assert_eq!(run::<i64>(c, &words("EXISTS m")), 0);
    run::<()>(c, &words("SET s x"));
    assert_eq!(try_run::<()>(c, &words("LPUSH s x")).unwrap_err().code(), Some("WRONGTYPE"));
}

#[test]
fn encodings_follow_the_size() {
    let server = TestServer::start(&["--list-max-listpack-size", "4"]);
    let c = &mut server.connect();
    let encoding = |c: &mut redis::Connection| run::<String>(c, &words("OBJECT ENCODING l"));
    run::<()>(c, &words("RPUSH l 1 2 3 4"));
    assert_eq!(encoding(c), "listpack");
    run::<()>(c, &words("RPUSH l 5"));
    assert_eq!(encoding(c), "quicklist");
    run::<()>(c, &words("RPOP l 2"));
    assert_eq!(encoding(c), "quicklist");
    run::<()>(c, &words("RPOP l"));
    assert_eq!(encoding(c), "listpack");
    let large = "x".repeat(9000);
    run::<()>(c, &["RPUSH", "l", &large]);
    assert_eq!(encoding(c), "quicklist");
}

#[test]
fn lists_survive_dump_snapshot_and_log() {
    let mut server =
        TestServer::start(&["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--enable-debug-command", "yes"]);
    let c = &mut server.connect();
    let large = "y".repeat(20_000);
    // Long enough for nodes that are at rest.
    for i in 0..120 {
        let mut push = redis::cmd(if i % 3 == 0 { "LPUSH" } else { "RPUSH" });
        push.arg("long");
        (0..100).for_each(|j| _ = push.arg(format!("element {}", 100 * i + j)));
        push.exec(c).unwrap();
    }
    run::<()>(c, &["RPUSH", "long", &large, "-17"]);
    run::<()>(c, &words("RPUSH short 1 two 3"));
    let digest: String = run(c, &words("DEBUG DIGEST"));
    let before = strings(c, "LRANGE long 0 -1");
    for at in (0..before.len()).step_by(501) {
        assert_eq!(run::<String>(c, &["LINDEX", "long", &at.to_string()]), before[at]);
        let (from, to) = (at.saturating_sub(300), (at + 300).min(before.len() - 1));
        assert_eq!(strings(c, &format!("LRANGE long {from} {to}")), before[from..=to]);
    }
    let payload: Vec<u8> = run(c, &words("DUMP long"));
    redis::cmd("RESTORE").arg("copy").arg(0).arg(payload).query::<()>(c).unwrap();
    assert_eq!(strings(c, "LRANGE copy 0 -1"), before);
    run::<()>(c, &words("DEL copy"));
    run::<()>(c, &words("DEBUG RELOAD"));
    assert_eq!(run::<String>(c, &words("DEBUG DIGEST")), digest);
    run::<()>(c, &words("BGREWRITEAOF"));
    wait_for(20, "the log is rewritten", || {
        run::<String>(&mut server.connect(), &words("INFO persistence")).contains("aof_rewrite_in_progress:0")
    });
    server.kill();
    server.restart();
    let c = &mut server.connect();
    assert_eq!(run::<String>(c, &words("DEBUG DIGEST")), digest);
    assert_eq!(strings(c, "LRANGE long 0 -1"), before);
}

/// Runs a command on a connection of its own.
fn in_background(server: &TestServer, command: &str) -> thread::JoinHandle<redis::Value> {
    let mut c = server.connect();
    let command = command.to_owned();
    thread::spawn(move || run(&mut c, &words(&command)))
}

/// The same of a command that may fail.
fn in_background_or_error(
    server: &TestServer,
    command: &str,
) -> thread::JoinHandle<Result<redis::Value, redis::RedisError>> {
    let mut c = server.connect();
    let command = command.to_owned();
    thread::spawn(move || try_run(&mut c, &words(&command)))
}

fn wait_blocked(c: &mut redis::Connection, count: usize) {
    let wanted = format!("blocked_clients:{count}\r\n");
    wait_for(10, &wanted, || run::<String>(c, &words("INFO clients")).contains(&wanted));
}

fn text_of(value: &redis::Value) -> String {
    redis::from_redis_value(value).unwrap()
}

#[test]
fn waiting_clients_are_served_in_the_order_they_came() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let first = in_background(&server, "BLPOP k 0");
    wait_blocked(c, 1);
    let second = in_background(&server, "BRPOP other k 0");
    wait_blocked(c, 2);
    let third = in_background(&server, "BLMPOP 0 1 k LEFT COUNT 5");
    wait_blocked(c, 3);
    assert!(run::<String>(c, &words("INFO clients")).contains("total_blocking_keys:2\r\n"));
    // A key of another type wakes nobody.
    run::<()>(c, &words("SET k x"));
    run::<()>(c, &words("DEL k"));
    assert_eq!(run::<i64>(c, &words("RPUSH k a b c d")), 4);
    let pair = |v: redis::Value| -> (String, String) { redis::from_redis_value(&v).unwrap() };
    assert_eq!(pair(first.join().unwrap()), ("k".into(), "a".into()));
    assert_eq!(pair(second.join().unwrap()), ("k".into(), "d".into()));
    let (_, rest): (String, Vec<String>) = redis::from_redis_value(&third.join().unwrap()).unwrap();
    assert_eq!(rest, ["b", "c"]);
    assert_eq!(run::<i64>(c, &words("EXISTS k")), 0);
    wait_blocked(c, 0);
}

#[test]
fn who_waits_for_a_key_is_woken_by_what_it_waits_for() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let mut waiting = Vec::new();
    for command in ["BLPOP k k other 0", "BZPOPMIN k 0", "BLPOP k 0"] {
        waiting.push(in_background(&server, command));
        wait_blocked(c, waiting.len());
    }
    run::<()>(c, &words("XGROUP CREATE k g $ MKSTREAM"));
    let reader = in_background_or_error(&server, "XREADGROUP GROUP g me BLOCK 0 STREAMS k >");
    wait_blocked(c, 4);
    // The stream's reader alone is told that the stream is gone; nobody waits for a string.
    run::<()>(c, &words("SET k text"));
    assert_eq!(reader.join().expect("a thread").expect_err("no stream").code(), Some("WRONGTYPE"));
    wait_blocked(c, 3);
    run::<()>(c, &words("DEL k"));
    // A sorted set for one that came later than those who wait for lists.
    run::<()>(c, &words("ZADD k 1 member"));
    wait_blocked(c, 2);
    // What a database brings along with it wakes, too, and the first who came is served first.
    run::<()>(c, &words("SELECT 1"));
    run::<()>(c, &words("RPUSH k a"));
    run::<()>(c, &words("SWAPDB 0 1"));
    wait_blocked(c, 1);
    run::<()>(c, &words("SELECT 0"));
    run::<()>(c, &words("RPUSH k b"));
    wait_blocked(c, 0);
    let told: Vec<Vec<String>> = waiting
        .into_iter()
        .map(|waiting| redis::from_redis_value(&waiting.join().expect("a thread")).expect("strings"))
        .collect();
    assert_eq!(told, [vec!["k", "a"], vec!["k", "member", "1"], vec!["k", "b"]]);
    let info: String = run(c, &words("INFO clients"));
    assert!(info.contains("total_blocking_keys:0\r\ntotal_blocking_keys_on_nokey:0\r\n"), "{info}");
}

#[test]
fn waiting_clients_form_chains() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let last = in_background(&server, "BLPOP c 0");
    wait_blocked(c, 1);
    let middle = in_background(&server, "BLMOVE b c LEFT RIGHT 0");
    wait_blocked(c, 2);
    let first = in_background(&server, "BRPOPLPUSH a b 0");
    wait_blocked(c, 3);
    run::<()>(c, &words("LPUSH a x"));
    assert_eq!(text_of(&first.join().unwrap()), "x");
    assert_eq!(text_of(&middle.join().unwrap()), "x");
    assert_eq!(redis::from_redis_value::<(String, String)>(&last.join().unwrap()).unwrap().1, "x");
}

#[test]
fn waiting_ends_with_a_timeout_or_by_order() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let start = Instant::now();
    assert_eq!(run::<Option<Vec<String>>>(c, &words("BLPOP k 0.1")), None);
    assert!(start.elapsed() >= Duration::from_millis(100));
    let e = try_run::<()>(c, &words("BLPOP k -1")).unwrap_err();
    assert_eq!(e.detail(), Some("timeout is negative"));
    let e = try_run::<()>(c, &words("BLPOP k 0x7FFFFFFFFFFFFF")).unwrap_err();
    assert_eq!(e.detail(), Some("timeout is out of range"));
    let mut other = server.connect();
    let id: i64 = run(&mut other, &words("CLIENT ID"));
    let waiting = thread::spawn(move || try_run::<()>(&mut other, &words("BLPOP k 0")));
    wait_blocked(c, 1);
    assert_eq!(run::<i64>(c, &["CLIENT", "UNBLOCK", &id.to_string(), "ERROR"]), 1);
    assert_eq!(waiting.join().unwrap().unwrap_err().code(), Some("UNBLOCKED"));
}

#[test]
fn transactions_do_not_wait_and_release_at_their_end() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let answers: Vec<redis::Value> = redis::pipe().atomic().cmd("BLPOP").arg("k").arg(0).query(c).unwrap();
    assert_eq!(answers, [redis::Value::Nil]);
    let waiting = in_background(&server, "BLPOP k 0");
    wait_blocked(c, 1);
    redis::pipe()
        .atomic()
        .cmd("LPUSH")
        .arg("k")
        .arg("a")
        .cmd("DEL")
        .arg("k")
        .cmd("LPUSH")
        .arg("k")
        .arg("b")
        .query::<()>(c)
        .unwrap();
    assert_eq!(redis::from_redis_value::<(String, String)>(&waiting.join().unwrap()).unwrap().1, "b");
}

#[test]
fn old_payloads_are_read() {
    let server = TestServer::start(&["--enable-debug-command", "yes"]);
    let c = &mut server.connect();
    run::<()>(c, &words("DEBUG SET-SKIP-CHECKSUM-VALIDATION 1"));
    let footer = b"\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    // A ziplist of "a" and 5, bare and as the node of a quicklist.
    let ziplist = b"\x10\x00\x00\x00\x0d\x00\x00\x00\x02\x00\x00\x01a\x03\xf6\xff";
    let mut payloads = vec![b"\x01\x02\x01a\x015".to_vec(), b"\x0a\x10".to_vec(), b"\x0e\x01\x10".to_vec()];
    payloads[1].extend_from_slice(ziplist);
    payloads[2].extend_from_slice(ziplist);
    for mut payload in payloads {
        payload.extend_from_slice(footer);
        redis::cmd("RESTORE").arg("k").arg(0).arg(&payload).arg("REPLACE").query::<()>(c).unwrap();
        assert_eq!(strings(c, "LRANGE k 0 -1"), ["a", "5"], "{payload:?}");
        assert_eq!(run::<String>(c, &words("OBJECT ENCODING k")), "listpack");
        payload[3] ^= 0x40;
        let _ = redis::cmd("RESTORE").arg("bad").arg(0).arg(&payload).arg("REPLACE").query::<redis::Value>(c);
    }
}

#[test]
fn compressed_lists_read_and_change_like_others() {
    let server = TestServer::start(&[
        "--list-compress-depth",
        "1",
        "--list-max-listpack-size",
        "5",
        "--enable-debug-command",
        "yes",
    ]);
    let c = &mut server.connect();
    let mut model: Vec<String> = (0..100).map(|i| format!("{i} {}", "abc".repeat(30))).collect();
    for element in &model {
        run::<i64>(c, &["RPUSH", "l", element]);
    }
    let details: String = run(c, &["DEBUG", "OBJECT", "l"]);
    assert!(details.contains(" ql_nodes:20 ql_avg_node:5.00 ql_listpack_max:5 ql_compressed:1 "), "{details}");
    let bytes = |c: &mut redis::Connection| run::<usize>(c, &["MEMORY", "USAGE", "l", "SAMPLES", "0"]);
    assert!(bytes(c) < 100 * 60, "{}", bytes(c));
    run::<()>(c, &["LSET", "l", "50", "changed"]);
    model[50] = "changed".into();
    run::<i64>(c, &["LINSERT", "l", "AFTER", "changed", "added"]);
    model.insert(51, "added".into());
    assert_eq!(run::<i64>(c, &["LREM", "l", "1", &model[30].clone()]), 1);
    model.remove(30);
    run::<()>(c, &["LTRIM", "l", "3", "-4"]);
    model = model[3..model.len() - 3].to_vec();
    assert_eq!(run::<Vec<String>>(c, &["LRANGE", "l", "0", "-1"]), model);
    assert_eq!(run::<String>(c, &["LINDEX", "l", "40"]), model[40]);
    let dump: Vec<u8> = run(c, &["DUMP", "l"]);
    redis::cmd("RESTORE").arg("m").arg(0).arg(&dump).exec(c).unwrap();
    assert_eq!(run::<Vec<String>>(c, &["LRANGE", "m", "0", "-1"]), model);
    let digest = |c: &mut redis::Connection| run::<String>(c, &["DEBUG", "DIGEST"]);
    let before = digest(c);
    run::<()>(c, &["DEBUG", "RELOAD"]);
    assert_eq!(digest(c), before);
    run::<()>(c, &["CONFIG", "SET", "list-compress-depth", "0"]);
    while let Some(element) = run::<Option<String>>(c, &["RPOP", "l"]) {
        assert_eq!(Some(element), model.pop());
    }
    assert!(model.is_empty());
}
