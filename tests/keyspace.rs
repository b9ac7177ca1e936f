//! Keys of any kind: life times, renaming, scanning, events, eviction.

use crate::common;

use common::{TestServer, run, try_run, wait_for};
use redis::{Connection, Value};
use std::collections::BTreeSet;
use std::time::Duration;

fn info(c: &mut Connection, field: &str) -> i64 {
    let all: String = run(c, &["INFO"]);
    let line = all.lines().find_map(|l| l.strip_prefix(&format!("{field}:")).map(str::to_owned));
    line.and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{field} in {all}"))
}

#[test]
fn expired_keys_are_gone() {
    let server = TestServer::start(&["--enable-debug-command", "local"]);
    let c = &mut server.connect();
    run::<()>(c, &["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    for key in ["read", "written", "deleted", "counted"] {
        run::<()>(c, &["SET", key, "1", "PX", "20"]);
    }
    std::thread::sleep(Duration::from_millis(40));
    assert_eq!(run::<i64>(c, &["DBSIZE"]), 4);
    assert_eq!(run::<Option<String>>(c, &["GET", "read"]), None);
    assert_eq!(run::<i64>(c, &["INCR", "written"]), 1);
    assert_eq!(run::<i64>(c, &["TTL", "written"]), -1);
    assert_eq!(run::<i64>(c, &["DEL", "deleted"]), 0);
    assert_eq!(run::<i64>(c, &["TTL", "counted"]), -2);
    assert_eq!(info(c, "expired_keys"), 4);
}

#[test]
fn active_expiry_needs_nobody_to_ask() {
    for options in [&[][..], &["--cluster-enabled", "yes"]] {
        let server = TestServer::start(options);
        let c = &mut server.connect();
        if !options.is_empty() {
            run::<()>(c, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
            wait_for(20, "the cluster is up", || run::<String>(c, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        }
        let mut pipe = redis::pipe();
        for i in 0..2000 {
            pipe.cmd("SET").arg(format!("mortal:{i}")).arg(i).arg("PX").arg(50).ignore();
            pipe.cmd("SET").arg(format!("lasting:{i}")).arg(i).ignore();
        }
        let _: () = pipe.query(c).unwrap();
        wait_for(10, "all mortal keys go", || run::<i64>(c, &["DBSIZE"]) == 2000);
        assert_eq!(info(c, "expired_keys"), 2000);
    }
}

#[test]
fn conditions_of_expire() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &["SET", "k", "v"]);
    for (words, changed) in [
        (&["EXPIRE", "k", "100", "XX"][..], 0),
        (&["EXPIRE", "k", "100", "GT"], 0),
        (&["EXPIRE", "k", "100", "NX"], 1),
        (&["EXPIRE", "k", "200", "NX"], 0),
        (&["EXPIRE", "k", "50", "GT"], 0),
        (&["EXPIRE", "k", "50", "LT"], 1),
        (&["EXPIRE", "k", "500", "XX", "GT"], 1),
        (&["PERSIST", "k"], 1),
        (&["PERSIST", "k"], 0),
        (&["EXPIRE", "k", "50", "LT"], 1),
        (&["PEXPIRE", "k", "-5"], 1),
        (&["EXPIRE", "k", "50"], 0),
    ] {
        assert_eq!(run::<i64>(c, words), changed, "{words:?}");
    }
    let detail = |e: redis::RedisError| e.detail().unwrap_or_default().to_owned();
    let refused = |c: &mut Connection, words: &[&str]| detail(try_run::<Value>(c, words).unwrap_err());
    assert_eq!(refused(c, &["EXPIRE", "k", "1", "AB"]), "Unsupported option AB");
    assert_eq!(refused(c, &["EXPIRE", "k", "1", "GT", "LT"]), "GT and LT options at the same time are not compatible");
    assert_eq!(refused(c, &["EXPIRE", "k", "9223372036854775807"]), "invalid expire time in 'expire' command");
}

#[test]
fn scan_meets_every_key() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    for i in 0..1000 {
        run::<()>(c, &["SET", &format!("key:{i}"), "x"]);
    }
    let mut cursor = "0".to_owned();
    let mut seen = BTreeSet::new();
    loop {
        let (next, keys): (String, Vec<String>) =
            run(c, &["SCAN", &cursor, "COUNT", "20", "MATCH", "key:*", "TYPE", "string"]);
        seen.extend(keys);
        cursor = next;
        // Growing in between must hide nothing.
        run::<()>(c, &["SET", &format!("other:{}", seen.len()), "x"]);
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(seen.len(), 1000);
    let (_, none): (String, Vec<String>) = run(c, &["SCAN", "0", "TYPE", "list", "COUNT", "10000"]);
    assert!(none.is_empty());
}

/// Pages of one scan: how many elements each has.
fn pages(c: &mut Connection, command: &[&str], count: usize, width: usize) -> Vec<usize> {
    let (mut cursor, mut pages, count) = ("0".to_owned(), Vec::new(), count.to_string());
    let mut seen = BTreeSet::new();
    loop {
        let args = [command, &[&cursor, "COUNT", &count]].concat();
        let (next, page): (String, Vec<String>) = run(c, &args);
        pages.push(page.len() / width);
        seen.extend(page.into_iter().step_by(width));
        if next == "0" {
            assert_eq!(seen.len(), pages.iter().sum::<usize>(), "met once while nothing changes");
            return pages;
        }
        cursor = next.parse::<u64>().expect("an unsigned number").to_string();
    }
}

#[test]
fn count_bounds_a_page_of_a_scan() {
    for mode in [&[][..], &["--cluster-enabled", "yes"]] {
        let server = TestServer::start(mode);
        let c = &mut server.connect();
        if !mode.is_empty() {
            let _: String = run(c, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
            wait_for(20, "the cluster is up", || run::<String>(c, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        }
        let tag = if mode.is_empty() { "" } else { "{t}" };
        for i in 0..7 {
            let _: String = run(c, &["SET", &format!("{tag}{i}"), "v"]);
        }
        let few = pages(c, &["SCAN"], 4, 1);
        assert!(few.len() > 1 && few.iter().sum::<usize>() == 7, "{few:?}");
        for i in 0..1000 {
            let name = format!("{tag}member that is too long for a small encoding, of which there are many: {i}");
            let _: i64 = run(c, &["SADD", &format!("{tag}s"), &name]);
            let _: i64 = run(c, &["HSET", &format!("{tag}h"), &name, "v"]);
            let _: i64 = run(c, &["ZADD", &format!("{tag}z"), "1", &name]);
        }
        for (command, width) in [("SSCAN", 1), ("HSCAN", 2), ("ZSCAN", 2)] {
            for count in [1, 10, 100] {
                let key = format!("{tag}{}", command[..1].to_lowercase());
                let got = pages(c, &[command, &key], count, width);
                assert_eq!(got.iter().sum::<usize>(), 1000);
                assert!(got.iter().all(|page| *page <= count + 2 + count / 16), "{command} COUNT {count}: {got:?}");
                assert!(got.len() <= 1000 / count + 1, "{command} COUNT {count}: {got:?}");
            }
        }
        // A small one comes at once.
        let _: i64 = run(c, &["SADD", &format!("{tag}i"), "1", "2", "3", "4", "5"]);
        assert_eq!(pages(c, &["SSCAN", &format!("{tag}i")], 2, 1), [5]);
    }
}

#[test]
fn databases_are_apart() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &["SET", "k", "zero", "EX", "100"]);
    assert_eq!(run::<i64>(c, &["MOVE", "k", "1"]), 1);
    assert_eq!(run::<i64>(c, &["EXISTS", "k"]), 0);
    run::<()>(c, &["SELECT", "1"]);
    assert_eq!(run::<i64>(c, &["TTL", "k"]), 100);
    run::<()>(c, &["SWAPDB", "0", "1"]);
    assert_eq!(run::<i64>(c, &["DBSIZE"]), 0);
    run::<()>(c, &["SELECT", "0"]);
    assert_eq!(run::<String>(c, &["RANDOMKEY"]), "k");
    assert_eq!(run::<i64>(c, &["COPY", "k", "k", "DB", "3"]), 1);
    run::<()>(c, &["FLUSHDB"]);
    run::<()>(c, &["SELECT", "3"]);
    assert_eq!(run::<i64>(c, &["DBSIZE"]), 1);
    run::<()>(c, &["FLUSHALL", "ASYNC"]);
    assert_eq!(run::<i64>(c, &["DBSIZE"]), 0);
}

#[test]
fn memory_stays_below_its_limit() {
    for (policy, evicts) in [
        ("noeviction", false),
        ("allkeys-lru", true),
        ("allkeys-lfu", true),
        ("allkeys-random", true),
        ("volatile-lru", false),
        ("volatile-ttl", true),
    ] {
        let server = TestServer::start(&["--maxmemory-policy", policy]);
        let c = &mut server.connect();
        let limit = info(c, "used_memory") + 2 * 1024 * 1024;
        run::<()>(c, &["CONFIG", "SET", "maxmemory", &limit.to_string()]);
        let value = "x".repeat(1000);
        let mortal = policy == "volatile-ttl";
        let mut refused = 0;
        for i in 0..5000 {
            let key = format!("key:{i}");
            let words: &[&str] = if mortal { &["SET", &key, &value, "EX", "10000"] } else { &["SET", &key, &value] };
            if let Err(e) = try_run::<()>(c, words) {
                assert_eq!(e.code(), Some("OOM"), "{policy}: {e}");
                refused += 1;
            }
        }
        assert!(info(c, "used_memory") < limit + 256 * 1024, "{policy}");
        assert_eq!(refused == 0, evicts, "{policy}: {refused} refused");
        assert_eq!(info(c, "evicted_keys") > 0, evicts, "{policy}");
        assert!(run::<i64>(c, &["DBSIZE"]) > 1000, "{policy}");
        // What needs no more memory goes on.
        assert_eq!(run::<i64>(c, &["EXISTS", "nothing"]), 0);
    }
}

#[test]
fn digests_know_contents_not_history() {
    let server = TestServer::start(&["--enable-debug-command", "local"]);
    let c = &mut server.connect();
    let digest = |c: &mut Connection| run::<String>(c, &["DEBUG", "DIGEST"]);
    assert_eq!(digest(c), "0".repeat(40));
    run::<()>(c, &["MSET", "a", "1", "b", "2"]);
    let first = digest(c);
    run::<()>(c, &["FLUSHALL"]);
    run::<()>(c, &["MSET", "b", "2", "c", "1"]);
    assert_ne!(digest(c), first);
    run::<()>(c, &["RENAME", "c", "a"]);
    assert_eq!(digest(c), first);
    run::<()>(c, &["EXPIRE", "a", "100"]);
    assert_ne!(digest(c), first);
}

#[test]
fn room_of_a_large_value_that_was_deleted_counts_as_free_at_once() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    for step in 0..100 {
        let mut pipe = redis::pipe();
        for n in 0..1000 {
            pipe.cmd("HSET").arg("large").arg(format!("field:{step}:{n}")).arg("v".repeat(50)).ignore();
        }
        pipe.query::<()>(c).unwrap();
    }
    let value = "x".repeat(1000);
    let limit = (info(c, "used_memory") - 1_000_000).to_string();
    run::<()>(c, &["CONFIG", "SET", "maxmemory", &limit]);
    let refused = try_run::<()>(c, &["SET", "k", &value]).unwrap_err().to_string();
    assert!(refused.contains("OOM"), "{refused}");
    let mut pipe = redis::pipe();
    pipe.cmd("DEL").arg("large").ignore();
    for n in 0..20 {
        pipe.cmd("SET").arg(format!("k{n}")).arg(&value).ignore();
    }
    pipe.query::<()>(c).expect("there is room");
    wait_for(10, "it is freed", || info(c, "used_memory") < 4_000_000);
    // Nobody had asked for it to be freed aside.
    assert_eq!(info(c, "lazyfreed_objects"), 0);
}

#[test]
fn pages_are_free_again_after_a_flush_that_the_helper_thread_did() {
    let server = TestServer::start(&["--enable-debug-command", "yes", "--hz", "100"]);
    let c = &mut server.connect();
    for size in ["20", "100", "400"] {
        run::<()>(c, &["DEBUG", "POPULATE", "50000", &format!("of{size}"), size]);
    }
    // The cron looks at the allocator's figures ten times a second.
    wait_for(10, "it is seen", || info(c, "allocator_allocated") > 20_000_000);
    run::<()>(c, &["FLUSHALL"]);
    wait_for(10, "it is freed", || info(c, "allocator_allocated") < 4_000_000);
    // Blocks that the thread kept for itself would hold a page each.
    wait_for(10, "no pages are held", || info(c, "allocator_frag_bytes") < 2_000_000);
}
