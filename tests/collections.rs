//! Sets, hashes and bitmaps as clients see them.

use crate::common;

use common::{TestServer, run, try_run, wait_for};
use std::collections::{BTreeMap, BTreeSet};

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn int(c: &mut redis::Connection, command: &str) -> i64 {
    run(c, &words(command))
}

fn text(c: &mut redis::Connection, command: &str) -> String {
    run(c, &words(command))
}

fn members(c: &mut redis::Connection, command: &str) -> BTreeSet<String> {
    let all: Vec<String> = run(c, &words(command));
    let set: BTreeSet<String> = all.iter().cloned().collect();
    assert_eq!(set.len(), all.len(), "{command} repeats itself");
    set
}

fn set_of(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(String::from).collect()
}

#[test]
fn sets() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    assert_eq!(int(c, "SADD a 1 2 3 3"), 3);
    assert_eq!(text(c, "OBJECT ENCODING a"), "intset");
    assert_eq!(int(c, "SADD a x"), 1);
    assert_eq!(text(c, "OBJECT ENCODING a"), "listpack");
    let long = "y".repeat(65);
    run::<()>(c, &["SADD", "a", &long]);
    assert_eq!(text(c, "OBJECT ENCODING a"), "hashtable");
    run::<()>(c, &["SREM", "a", &long]);
    assert_eq!(run::<Vec<i64>>(c, &words("SMISMEMBER a 1 x none")), [1, 1, 0]);
    run::<()>(c, &words("SADD b 2 x z"));
    assert_eq!(members(c, "SINTER a b"), set_of("2 x"));
    assert_eq!(members(c, "SUNION a b none"), set_of("1 2 3 x z"));
    assert_eq!(members(c, "SDIFF a b"), set_of("1 3"));
    assert_eq!(members(c, "SDIFF a a"), set_of(""));
    assert_eq!(int(c, "SINTERCARD 2 a b LIMIT 1"), 1);
    assert_eq!(int(c, "SDIFFSTORE d a b"), 2);
    assert_eq!(text(c, "OBJECT ENCODING d"), "intset");
    assert_eq!(int(c, "SINTERSTORE d a none"), 0);
    assert_eq!(int(c, "EXISTS d"), 0);
    assert_eq!(int(c, "SMOVE a b 1"), 1);
    assert_eq!(members(c, "SMEMBERS b"), set_of("1 2 x z"));
    assert_eq!(members(c, "SRANDMEMBER b 3").len(), 3);
    assert_eq!(run::<Vec<String>>(c, &words("SRANDMEMBER b -9")).len(), 9);
    assert_eq!(members(c, "SPOP b 3").len(), 3);
    assert_eq!(int(c, "SCARD b"), 1);
    assert!(run::<Option<String>>(c, &words("SPOP b")).is_some());
    assert_eq!(int(c, "EXISTS b"), 0);
    assert_eq!(try_run::<()>(c, &words("SADD l x")).map(drop), Ok(()));
    assert_eq!(try_run::<()>(c, &words("LPUSH l x")).unwrap_err().code(), Some("WRONGTYPE"));
}

#[test]
fn any_part_of_a_set_is_popped() {
    let mut server = TestServer::start(&["--appendonly", "yes"]);
    let c = &mut server.connect();
    let all: Vec<String> = (0..2000).map(|i| format!("m{i}")).collect();
    let mut left = BTreeMap::new();
    // Of a large set of which nearly all goes, what stays is small again.
    for (name, from, count, encoding) in [
        ("few", &all[..], 10, "hashtable"),
        ("half", &all[..], 1000, "hashtable"),
        ("most", &all[..], 1990, "listpack"),
        ("packed", &all[..100], 60, "listpack"),
    ] {
        let add: Vec<&str> = ["SADD", name].into_iter().chain(from.iter().map(String::as_str)).collect();
        run::<()>(c, &add);
        let popped = members(c, &format!("SPOP {name} {count}"));
        let stays = members(c, &format!("SMEMBERS {name}"));
        assert_eq!((popped.len(), stays.len()), (count, from.len() - count), "{name}");
        assert!(popped.is_disjoint(&stays), "{name}");
        assert_eq!(popped.union(&stays).cloned().collect::<BTreeSet<_>>(), from.iter().cloned().collect());
        assert_eq!(text(c, &format!("OBJECT ENCODING {name}")), encoding, "{name}");
        left.insert(name, stays);
    }
    run::<()>(c, &words("SADD ints 1 2 3 4 5 70000"));
    let popped = members(c, "SPOP ints 4");
    let stays = members(c, "SMEMBERS ints");
    assert!(popped.len() == 4 && stays.len() == 2 && popped.is_disjoint(&stays));
    left.insert("ints", stays);
    // What was popped is gone from the log, too.
    server.kill();
    server.restart();
    let c = &mut server.connect();
    for (name, stays) in left {
        assert_eq!(members(c, &format!("SMEMBERS {name}")), stays, "{name}");
    }
}

#[test]
fn members_are_drawn_again_and_again() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &words("SADD ints 1 2 3"));
    run::<()>(c, &words("SADD texts a b c"));
    run::<()>(c, &words("HSET hash a 1 b 2 c 3"));
    run::<()>(c, &words("ZADD zset 1 a 2 b 3 c"));
    let pairs: BTreeSet<(String, i64)> = [("a", 1), ("b", 2), ("c", 3)].map(|(a, n)| (a.to_string(), n)).into();
    for count in [2, 100] {
        for (command, all) in [("SRANDMEMBER ints", "1 2 3"), ("SRANDMEMBER texts", "a b c")] {
            let drawn: Vec<String> = run(c, &words(&format!("{command} -{count}")));
            assert_eq!(drawn.len(), count);
            assert!(drawn.iter().cloned().collect::<BTreeSet<_>>().is_subset(&set_of(all)));
        }
        for command in [format!("HRANDFIELD hash -{count} WITHVALUES"), format!("ZRANDMEMBER zset -{count} WITHSCORES")]
        {
            let drawn: Vec<(String, i64)> = run(c, &words(&command));
            assert_eq!(drawn.len(), count, "{command}");
            assert!(drawn.into_iter().collect::<BTreeSet<_>>().is_subset(&pairs), "{command}");
        }
    }
}

#[test]
fn large_collections_are_gone_through_once() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    for i in 0..3000 {
        run::<()>(c, &["SADD", "s", &format!("m{i}")]);
        run::<()>(c, &["HSET", "h", &format!("m{i}"), &format!("v{i}")]);
    }
    for (command, key) in [("SSCAN", "s"), ("HSCAN", "h")] {
        let mut found = BTreeSet::new();
        let mut cursor = "0".to_owned();
        loop {
            let (next, mut part): (String, Vec<String>) =
                run(c, &[command, key, &cursor, "MATCH", "m*", "COUNT", "50"]);
            if key == "h" {
                part = part.chunks(2).inspect(|p| assert_eq!(p[0][1..], p[1][1..])).map(|p| p[0].clone()).collect();
            }
            found.extend(part);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(found.len(), 3000);
    }
    assert_eq!(members(c, "SRANDMEMBER s 100").len(), 100);
    assert_eq!(members(c, "SRANDMEMBER s 2900").len(), 2900);
    assert_eq!(members(c, "HRANDFIELD h 100").len(), 100);
    assert_eq!(members(c, "SPOP s 2500").len(), 2500);
    assert_eq!(int(c, "SCARD s"), 500);
}

#[test]
fn hashes() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    assert_eq!(int(c, "HSET h a 1 b 2 a 3"), 2);
    assert_eq!(text(c, "OBJECT ENCODING h"), "listpack");
    assert_eq!(run::<BTreeMap<String, String>>(c, &words("HGETALL h")).len(), 2);
    assert_eq!(run::<Vec<Option<String>>>(c, &words("HMGET h a none")), [Some("3".into()), None]);
    assert_eq!(int(c, "HINCRBY h a 39"), 42);
    assert_eq!(text(c, "HINCRBYFLOAT h f 10.5"), "10.5");
    assert_eq!(int(c, "HSETNX h a 1"), 0);
    assert_eq!(int(c, "HSTRLEN h a"), 2);
    assert_eq!(int(c, "HEXISTS h b"), 1);
    let e = try_run::<()>(c, &words("HSET h a")).unwrap_err();
    assert_eq!(e.detail(), Some("wrong number of arguments for 'hset' command"));
    run::<()>(c, &words("HSET h t text"));
    let e = try_run::<()>(c, &words("HINCRBY h t 1")).unwrap_err();
    assert_eq!(e.detail(), Some("hash value is not an integer"));
    run::<()>(c, &["HSET", "h", "long", &"x".repeat(65)]);
    assert_eq!(text(c, "OBJECT ENCODING h"), "hashtable");
    assert_eq!(run::<Vec<String>>(c, &words("HRANDFIELD h 2 WITHVALUES")).len(), 4);
    assert_eq!(int(c, "HDEL h a b f t long none"), 5);
    assert_eq!(int(c, "EXISTS h"), 0);
    // A failed change leaves no empty hash behind.
    assert!(try_run::<()>(c, &words("HINCRBYFLOAT h f inf")).is_err());
    assert_eq!(int(c, "EXISTS h"), 0);
}

#[test]
fn collections_survive_dump_snapshot_and_log() {
    let mut server =
        TestServer::start(&["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--enable-debug-command", "yes"]);
    let c = &mut server.connect();
    run::<()>(c, &words("SADD ints 1 -70000 5000000000"));
    run::<()>(c, &words("SADD short 1 x"));
    run::<()>(c, &words("HSET hash a 1 b x"));
    for i in 0..600 {
        run::<()>(c, &["SADD", "long", &format!("m{i}")]);
        run::<()>(c, &["HSET", "longhash", &format!("m{i}"), &format!("{i}")]);
    }
    run::<()>(c, &words("SPOP long 70"));
    let digest = text(c, "DEBUG DIGEST");
    for key in ["ints", "short", "hash", "long", "longhash"] {
        let payload: Vec<u8> = run(c, &["DUMP", key]);
        redis::cmd("RESTORE").arg("copy").arg(0).arg(payload).arg("REPLACE").query::<()>(c).unwrap();
        let digests: Vec<String> = run(c, &["DEBUG", "DIGEST-VALUE", key, "copy"]);
        assert_eq!(digests[0], digests[1], "{key}");
        run::<()>(c, &["COPY", key, "copy", "REPLACE"]);
        let digests: Vec<String> = run(c, &["DEBUG", "DIGEST-VALUE", key, "copy"]);
        assert_eq!(digests[0], digests[1], "{key}");
    }
    run::<()>(c, &words("DEL copy"));
    run::<()>(c, &words("DEBUG RELOAD"));
    assert_eq!(text(c, "DEBUG DIGEST"), digest);
    // The log as it was written, with what SPOP took.
    run::<()>(c, &words("DEBUG LOADAOF"));
    assert_eq!(text(c, "DEBUG DIGEST"), digest);
    run::<()>(c, &words("BGREWRITEAOF"));
    wait_for(20, "the log is rewritten", || {
        text(&mut server.connect(), "INFO persistence").contains("aof_rewrite_in_progress:0")
    });
    server.kill();
    server.restart();
    assert_eq!(text(&mut server.connect(), "DEBUG DIGEST"), digest);
}

#[test]
fn bitmaps() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    assert_eq!(int(c, "SETBIT b 7 1"), 0);
    assert_eq!(int(c, "SETBIT b 7 1"), 1);
    assert_eq!(int(c, "GETBIT b 7"), 1);
    assert_eq!(int(c, "GETBIT b 70000"), 0);
    run::<()>(c, &words("SET s foobar"));
    assert_eq!(int(c, "BITCOUNT s"), 26);
    assert_eq!(int(c, "BITCOUNT s 1 1"), 6);
    assert_eq!(int(c, "BITCOUNT s 5 30 BIT"), 17);
    assert_eq!(int(c, "BITPOS s 1"), 1);
    assert_eq!(int(c, "BITPOS s 0 0 -1"), 0);
    run::<()>(c, &["SETRANGE", "ones", "0", "x"]);
    for bit in 0..8 {
        run::<()>(c, &["SETBIT", "ones", &bit.to_string(), "1"]);
    }
    assert_eq!(int(c, "BITPOS ones 0"), 8);
    assert_eq!(int(c, "BITPOS ones 0 0 -1"), -1);
    run::<()>(c, &words("SET n 123"));
    assert_eq!(int(c, "BITOP XOR x s n none"), 6);
    assert_eq!(int(c, "BITOP NOT x ones"), 1);
    assert_eq!(int(c, "GETBIT x 0"), 0);
    assert_eq!(int(c, "BITOP AND x none"), 0);
    assert_eq!(int(c, "EXISTS x"), 0);
    let replies: Vec<Option<i64>> =
        run(c, &words("BITFIELD f SET u8 #1 255 GET u8 8 OVERFLOW FAIL INCRBY u8 8 1 OVERFLOW SAT INCRBY i8 0 -200"));
    assert_eq!(replies, [Some(0), Some(255), None, Some(-128)]);
    assert_eq!(run::<Vec<i64>>(c, &words("BITFIELD_RO f GET i16 0")), [-32513]);
    let e = try_run::<()>(c, &words("BITFIELD_RO f SET u8 0 1")).unwrap_err();
    assert_eq!(e.detail(), Some("BITFIELD_RO only supports the GET subcommand"));
    let e = try_run::<()>(c, &words("SETBIT b 4294967296 1")).unwrap_err();
    assert_eq!(e.detail(), Some("bit offset is not an integer or out of range"));
}
