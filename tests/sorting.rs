//! SORT, and HyperLogLogs, as clients see them.

use crate::common;

use common::{TestServer, run, try_run};

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn list(c: &mut redis::Connection, command: &str) -> String {
    let all: Vec<Option<String>> = run(c, &words(command));
    all.into_iter().map(|e| e.unwrap_or("-".into())).collect::<Vec<_>>().join(" ")
}

fn error(c: &mut redis::Connection, command: &str) -> String {
    try_run::<redis::Value>(c, &words(command)).expect_err(command).to_string()
}

#[test]
fn sorting() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &words("RPUSH l 10 9 -1 2.5 1e2"));
    assert_eq!(list(c, "SORT l"), "-1 2.5 9 10 1e2");
    assert_eq!(list(c, "SORT l DESC LIMIT 1 2"), "10 9");
    assert_eq!(list(c, "SORT_RO l ALPHA"), "-1 10 1e2 2.5 9");
    assert_eq!(list(c, "SORT l BY nosort LIMIT 3 -1"), "2.5 1e2");
    assert_eq!(list(c, "SORT l BY nosort DESC LIMIT 0 2"), "1e2 2.5");
    assert_eq!(list(c, "SORT l LIMIT 5 1"), "");
    assert_eq!(list(c, "SORT none"), "");
    run::<()>(c, &words("MSET w_9 1 w_10 2 w_-1 3 w_1e2 x"));
    assert!(error(c, "SORT l BY w_*").contains("One or more scores can't be converted into double"));
    assert_eq!(list(c, "SORT l BY w_* ALPHA GET # GET w_*"), "2.5 - 9 1 10 2 -1 3 1e2 x");
    run::<()>(c, &words("HSET h_9 f 3 g v9"));
    run::<()>(c, &words("HSET h_10 f 1"));
    assert_eq!(list(c, "SORT l BY h_*->f DESC GET h_*->g LIMIT 0 2"), "v9 -");
    assert_eq!(run::<i64>(c, &words("SORT l BY w_* ALPHA GET # GET h_*->g STORE d")), 10);
    assert_eq!(run::<String>(c, &words("TYPE d")), "list");
    assert_eq!(run::<Vec<String>>(c, &words("LRANGE d 0 3")), ["2.5", "", "9", "v9"]);
    assert_eq!(run::<i64>(c, &words("SORT none STORE d")), 0);
    assert_eq!(run::<i64>(c, &words("EXISTS d")), 0);
    run::<()>(c, &words("SADD s b a c"));
    assert_eq!(run::<i64>(c, &words("SORT s BY nosort STORE d")), 3);
    assert_eq!(list(c, "LRANGE d 0 -1"), "a b c");
    assert!(error(c, "SORT s").contains("can't be converted"));
    assert!(error(c, "SORT w_9").contains("WRONGTYPE"));
    assert!(error(c, "SORT_RO l STORE d").contains("syntax"));
    assert_eq!(list(c, "COMMAND GETKEYS SORT l BY STORE LIMIT 0 STORE GET x STORE a STORE b"), "l b");
}

#[test]
fn a_page_of_the_own_order() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let numbers: Vec<String> = (0..5000).map(|i| i.to_string()).collect();
    for i in &numbers {
        run::<()>(c, &["RPUSH", "l", i]);
        run::<()>(c, &["ZADD", "z", i, i]);
        run::<()>(c, &["SADD", "s", i]);
    }
    run::<()>(c, &words("RPUSH short 0 1 2 3"));
    run::<()>(c, &words("ZADD zshort 0 0 1 1 2 2 3 3"));
    for (key, last) in [("l", 4999), ("z", 4999), ("short", 3), ("zshort", 3)] {
        let sort = |c: &mut _, rest: &str| list(c, &format!("SORT {key} BY nosort {rest}"));
        assert_eq!(sort(c, "LIMIT 0 2"), "0 1");
        assert_eq!(sort(c, "LIMIT -5 2"), "0 1");
        assert_eq!(sort(c, "LIMIT 2 0"), "");
        assert_eq!(sort(c, &format!("LIMIT {} 9", last - 1)), format!("{} {last}", last - 1));
        assert_eq!(sort(c, &format!("LIMIT {} 9", last + 1)), "");
        assert_eq!(sort(c, "DESC LIMIT 1 2"), format!("{} {}", last - 1, last - 2));
        assert_eq!(sort(c, &format!("DESC LIMIT {last} 2")), "0");
        assert_eq!(sort(c, "DESC LIMIT 1 2 GET #"), format!("{} {}", last - 1, last - 2));
        assert_eq!(sort(c, &format!("LIMIT {} -1", last - 2)), format!("{} {} {last}", last - 2, last - 1));
    }
    let all: Vec<String> = run(c, &words("SMEMBERS s"));
    assert_eq!(run::<Vec<String>>(c, &words("SORT s BY nosort LIMIT 3000 20")), all[3000..3020]);
    assert_eq!(run::<i64>(c, &words("SORT l BY nosort LIMIT 2500 1000 STORE d")), 1000);
    assert_eq!(run::<Vec<String>>(c, &words("LRANGE d 0 -1")), numbers[2500..3500]);
    // What is stored of a set, or told to a script, does not depend on chance.
    assert_eq!(run::<i64>(c, &words("SORT s BY nosort LIMIT 0 3 STORE d")), 3);
    assert_eq!(list(c, "LRANGE d 0 -1"), "0 1 10");
    let script = "return redis.call('SORT', KEYS[1], 'BY', 'nosort', 'LIMIT', 1, 2)";
    assert_eq!(run::<Vec<String>>(c, &["EVAL", script, "1", "s"]), ["1", "10"]);
}

#[test]
fn sorting_by_other_keys_asks_for_the_right_to_read_all() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &words("RPUSH l 2 1"));
    run::<()>(c, &words("ACL SETUSER some on nopass ~l* +sort"));
    run::<()>(c, &words("ACL SETUSER reader on nopass %R~* +sort"));
    let c = &mut server.connect();
    run::<()>(c, &words("AUTH some x"));
    assert_eq!(list(c, "SORT l"), "1 2");
    assert!(error(c, "SORT l BY w_*").contains("BY option of SORT denied due to insufficient ACL permissions."));
    assert!(error(c, "SORT l GET #").contains("GET option of SORT denied due to insufficient ACL permissions."));
    run::<()>(c, &words("AUTH reader x"));
    assert_eq!(list(c, "SORT l BY w_* GET #"), "1 2");
}

#[test]
fn hyperloglogs() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    assert_eq!(run::<i64>(c, &words("PFADD a 1 2 3")), 1);
    assert_eq!(run::<i64>(c, &words("PFADD a 1 2 3")), 0);
    assert_eq!(run::<i64>(c, &words("PFADD b 3 4")), 1);
    assert_eq!(run::<i64>(c, &words("PFCOUNT a")), 3);
    assert_eq!(run::<i64>(c, &words("PFCOUNT a b none")), 4);
    run::<()>(c, &words("PFMERGE m a b"));
    assert_eq!(run::<i64>(c, &words("PFCOUNT m")), 4);
    assert_eq!(run::<String>(c, &words("PFDEBUG ENCODING m")), "sparse");
    assert_eq!(run::<i64>(c, &words("PFDEBUG TODENSE m")), 1);
    assert_eq!(run::<i64>(c, &words("STRLEN m")), 12304);
    assert_eq!(run::<i64>(c, &words("PFCOUNT m")), 4);
    // The estimate of a set of this size is the one other servers give.
    let many: Vec<String> = (0..50_000).map(|i| format!("element:{i}")).collect();
    for some in many.chunks(1000) {
        let command: Vec<&str> = ["PFADD", "big"].into_iter().chain(some.iter().map(String::as_str)).collect();
        run::<i64>(c, &command);
    }
    assert_eq!(run::<i64>(c, &words("PFCOUNT big")), BIG_COUNT);
    run::<()>(c, &words("APPEND a hello"));
    assert!(error(c, "PFCOUNT a b").contains("INVALIDOBJ: Corrupted HLL object detected"));
    run::<()>(c, &words("SET s HYLL"));
    assert!(error(c, "PFCOUNT s").contains("Key is not a valid HyperLogLog string value."));
    run::<()>(c, &words("RPUSH l a"));
    assert!(error(c, "PFADD l a").contains("WRONGTYPE"));
}

/// What Redis 7.2 counts of the 50,000 elements above.
const BIG_COUNT: i64 = 49_716;
