//! Sorted sets and places as clients see them: replies, encodings, waiting, propagation, persistence.

use crate::common;

use common::{TestServer, run, try_run, wait_for};
use std::thread;

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn strings(c: &mut redis::Connection, command: &str) -> Vec<String> {
    run(c, &words(command))
}

fn int(c: &mut redis::Connection, command: &str) -> i64 {
    run(c, &words(command))
}

/// The text of the error that a command gives.
fn error(c: &mut redis::Connection, command: &str) -> String {
    let error = try_run::<()>(c, &words(command)).unwrap_err();
    format!("{} {}", error.code().unwrap_or("ERR"), error.detail().unwrap_or_default())
}

#[test]
fn options_of_zadd() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    assert_eq!(int(c, "ZADD z 1 a 2 b"), 2);
    assert_eq!(int(c, "ZADD z NX 5 a 3 c"), 1);
    assert_eq!(int(c, "ZADD z XX CH 5 a 5 new"), 1);
    assert_eq!(int(c, "ZADD z GT CH 4 a 9 b"), 1);
    assert_eq!(int(c, "ZADD z LT CH 4 a 10 b 7 new"), 2);
    assert_eq!(strings(c, "ZRANGE z 0 -1 WITHSCORES"), ["c", "3", "a", "4", "new", "7", "b", "9"]);
    assert_eq!(run::<Option<String>>(c, &words("ZADD z NX INCR 1 a")), None);
    assert_eq!(run::<String>(c, &words("ZADD z INCR 0.25 a")), "4.25");
    assert_eq!(run::<String>(c, &words("ZINCRBY z -inf fresh")), "-inf");
    assert_eq!(error(c, "ZINCRBY z inf fresh"), "ERR resulting score is not a number (NaN)");
    assert_eq!(error(c, "ZADD z NX XX 1 a"), "ERR XX and NX options at the same time are not compatible");
    assert_eq!(error(c, "ZADD z GT LT 1 a"), "ERR GT, LT, and/or NX options at the same time are not compatible");
    assert_eq!(error(c, "ZADD z INCR 1 a 2 b"), "ERR INCR option supports a single increment-element pair");
    assert_eq!(error(c, "ZADD z 1 a x b"), "ERR value is not a valid float");
    assert_eq!(error(c, "ZADD z 1 a 2"), "ERR syntax error");
    assert_eq!(int(c, "ZADD none XX 1 a"), 0);
    assert_eq!(int(c, "EXISTS none"), 0);
    run::<()>(c, &words("SET s x"));
    assert!(error(c, "ZADD s 1 a").starts_with("WRONGTYPE"));
    assert_eq!(int(c, "ZREM z a b none"), 2);
    assert_eq!(int(c, "ZREM z c new fresh"), 3);
    assert_eq!(int(c, "EXISTS z"), 0);
}

/// The same questions to a packed and to a large sorted set.
#[test]
fn ranges_of_both_encodings() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    for (limit, encoding) in [("128", "listpack"), ("0", "skiplist")] {
        run::<()>(c, &["CONFIG", "SET", "zset-max-listpack-entries", limit]);
        run::<()>(c, &words("DEL z lex d"));
        run::<()>(c, &words("ZADD z -inf low 1 a 2 b 2 c 3.5 d inf high"));
        run::<()>(c, &words("ZADD lex 0 a 0 b 0 c 0 d"));
        assert_eq!(run::<String>(c, &words("OBJECT ENCODING z")), encoding);
        assert_eq!(strings(c, "ZRANGE z 1 2"), ["a", "b"]);
        assert_eq!(strings(c, "ZREVRANGE z 0 1 WITHSCORES"), ["high", "inf", "d", "3.5"]);
        assert_eq!(strings(c, "ZRANGE z (1 +inf BYSCORE LIMIT 1 2"), ["c", "d"]);
        assert_eq!(strings(c, "ZRANGE z +inf (1 BYSCORE REV LIMIT 1 2"), ["d", "c"]);
        assert_eq!(strings(c, "ZRANGEBYSCORE z -inf (2"), ["low", "a"]);
        assert_eq!(strings(c, "ZREVRANGEBYSCORE z 2 1"), ["c", "b", "a"]);
        assert_eq!(strings(c, "ZRANGEBYLEX lex [b (d"), ["b", "c"]);
        assert_eq!(strings(c, "ZREVRANGEBYLEX lex + (b LIMIT 0 1"), ["d"]);
        assert_eq!(int(c, "ZCOUNT z 1 2"), 3);
        assert_eq!(int(c, "ZLEXCOUNT lex - [b"), 2);
        assert_eq!(int(c, "ZRANK z c"), 3);
        assert_eq!(run::<(i64, String)>(c, &words("ZREVRANK z c WITHSCORE")), (2, "2".into()));
        assert_eq!(run::<Vec<Option<String>>>(c, &words("ZMSCORE z d none")), [Some("3.5".into()), None]);
        assert_eq!(int(c, "ZRANGESTORE d z 0 1 REV"), 2);
        assert_eq!(strings(c, "ZRANGE d 0 -1"), ["d", "high"]);
        assert_eq!(strings(c, "ZPOPMIN z 2"), ["low", "-inf", "a", "1"]);
        assert_eq!(strings(c, "ZPOPMAX z"), ["high", "inf"]);
        assert_eq!(int(c, "ZREMRANGEBYSCORE z 2 (3"), 2);
        assert_eq!(int(c, "ZREMRANGEBYLEX lex - (c"), 2);
        assert_eq!(int(c, "ZREMRANGEBYRANK lex -1 -1"), 1);
        assert_eq!(strings(c, "ZRANGE lex 0 -1"), ["c"]);
        assert_eq!(int(c, "ZREMRANGEBYRANK z 0 -1"), 1);
        assert_eq!(int(c, "EXISTS z"), 0);
    }
    let text = "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX";
    assert_eq!(error(c, "ZRANGE d 0 1 LIMIT 1 2"), text);
    assert_eq!(error(c, "ZRANGEBYSCORE d x 2"), "ERR min or max is not a float");
    assert_eq!(error(c, "ZRANGEBYLEX d a [b"), "ERR min or max not valid string range item");
}

#[test]
fn joins_of_sorted_sets_and_sets() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &words("ZADD a 1 x 2 y 3 7"));
    run::<()>(c, &words("ZADD b 10 y 20 7 30 z"));
    run::<()>(c, &words("SADD s 7 y q"));
    assert_eq!(strings(c, "ZUNION 2 a b WITHSCORES"), ["x", "1", "y", "12", "7", "23", "z", "30"]);
    assert_eq!(strings(c, "ZINTER 3 a b s WEIGHTS 1 0 5 AGGREGATE MAX WITHSCORES"), ["7", "5", "y", "5"]);
    assert_eq!(strings(c, "ZDIFF 2 a s WITHSCORES"), ["x", "1"]);
    assert_eq!(int(c, "ZINTERCARD 2 a b LIMIT 1"), 1);
    assert_eq!(int(c, "ZUNIONSTORE d 3 a b none AGGREGATE MIN"), 4);
    assert_eq!(strings(c, "ZRANGE d 0 -1 WITHSCORES"), ["x", "1", "y", "2", "7", "3", "z", "30"]);
    assert_eq!(int(c, "ZDIFFSTORE d 2 a a"), 0);
    assert_eq!(int(c, "EXISTS d"), 0);
    assert_eq!(error(c, "ZUNION 0 a"), "ERR at least 1 input key is needed for 'zunion' command");
    assert_eq!(error(c, "ZUNION 1 a WEIGHTS x"), "ERR weight value is not a float");
    assert_eq!(strings(c, "COMMAND GETKEYS ZINTERSTORE d 2 a b WEIGHTS 1 2"), ["d", "a", "b"]);
}

#[test]
fn doubles_and_pairs_in_the_third_protocol() {
    let server = TestServer::start(&[]);
    let info = format!("redis://127.0.0.1:{}/?protocol=resp3", server.port);
    let c = &mut redis::Client::open(info).unwrap().get_connection().unwrap();
    use redis::Value::{Array, BulkString, Double};
    let pair = |member: &str, score: f64| Array(vec![BulkString(member.into()), Double(score)]);
    run::<()>(c, &words("ZADD z 1.5 a 2 b inf c"));
    assert_eq!(run::<redis::Value>(c, &words("ZSCORE z a")), Double(1.5));
    let all = Array(vec![pair("a", 1.5), pair("b", 2.0), pair("c", f64::INFINITY)]);
    assert_eq!(run::<redis::Value>(c, &words("ZRANGE z 0 -1 WITHSCORES")), all);
    assert_eq!(run::<redis::Value>(c, &words("ZUNION 1 z WITHSCORES")), all);
    assert_eq!(run::<redis::Value>(c, &words("ZPOPMIN z 1")), Array(vec![pair("a", 1.5)]));
    assert_eq!(run::<redis::Value>(c, &words("ZPOPMIN z")), pair("b", 2.0));
}

/// Members at random are members, as many as asked for, and none twice unless that is asked for.
#[test]
fn random_members_and_scans() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    for limit in ["1000", "10"] {
        run::<()>(c, &["CONFIG", "SET", "zset-max-listpack-entries", limit]);
        run::<()>(c, &words("DEL z"));
        for i in 0..300 {
            let (score, member) = (format!("{}.5", i % 7), format!("m{i}"));
            run::<()>(c, &["ZADD", "z", &score, &member]);
        }
        for count in [1, 40, 200, 300] {
            let mut some = strings(c, &format!("ZRANDMEMBER z {count}"));
            some.sort();
            some.dedup();
            assert_eq!(some.len(), count);
        }
        assert_eq!(strings(c, "ZRANDMEMBER z 1000").len(), 300);
        assert_eq!(strings(c, "ZRANDMEMBER z -1000 WITHSCORES").len(), 2000);
        let mut seen = std::collections::BTreeMap::new();
        let mut cursor = "0".to_owned();
        loop {
            let (next, found): (String, Vec<(String, String)>) = run(c, &["ZSCAN", "z", &cursor, "MATCH", "m*"]);
            seen.extend(found);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        assert_eq!(seen.len(), 300);
        assert_eq!(seen["m8"], "1.5");
    }
}

#[test]
fn sorted_sets_survive_dump_snapshot_and_log() {
    let mut server =
        TestServer::start(&["--appendonly", "yes", "--aof-use-rdb-preamble", "no", "--enable-debug-command", "yes"]);
    let c = &mut server.connect();
    for i in 0..2000 {
        let (score, member) = (format!("{}", f64::from(i % 97) / 3.0), format!("member {i}"));
        run::<()>(c, &["ZADD", "large", &score, &member]);
    }
    run::<()>(c, &words("ZADD small 1 a -inf 7 0.1 c inf d 1e300 e"));
    run::<()>(c, &words("ZPOPMAX large 5"));
    run::<()>(c, &words("ZMPOP 2 none small MIN"));
    let digest: String = run(c, &words("DEBUG DIGEST"));
    let before = strings(c, "ZRANGE large 0 -1 WITHSCORES");
    for key in ["large", "small"] {
        let payload: Vec<u8> = run(c, &["DUMP", key]);
        redis::cmd("RESTORE").arg("copy").arg(0).arg(payload).arg("REPLACE").query::<()>(c).unwrap();
        let digests: Vec<String> = run(c, &["DEBUG", "DIGEST-VALUE", key, "copy"]);
        assert_eq!(digests[0], digests[1]);
    }
    run::<()>(c, &words("DEL copy"));
    run::<()>(c, &words("DEBUG RELOAD"));
    assert_eq!(run::<String>(c, &words("DEBUG DIGEST")), digest);
    assert_eq!(run::<String>(c, &words("OBJECT ENCODING small")), "listpack");
    assert_eq!(run::<String>(c, &words("OBJECT ENCODING large")), "skiplist");
    server.kill();
    server.restart();
    let c = &mut server.connect();
    assert_eq!(run::<String>(c, &words("DEBUG DIGEST")), digest);
    run::<()>(c, &words("BGREWRITEAOF"));
    wait_for(20, "the log is rewritten", || {
        run::<String>(&mut server.connect(), &words("INFO persistence")).contains("aof_rewrite_in_progress:0")
    });
    server.kill();
    server.restart();
    let c = &mut server.connect();
    assert_eq!(run::<String>(c, &words("DEBUG DIGEST")), digest);
    assert_eq!(strings(c, "ZRANGE large 0 -1 WITHSCORES"), before);
    assert!(run::<i64>(c, &words("MEMORY USAGE large SAMPLES 0")) > 2000 * 26);
}

#[test]
fn old_and_broken_payloads() {
    let server = TestServer::start(&["--enable-debug-command", "yes"]);
    let c = &mut server.connect();
    run::<()>(c, &words("DEBUG SET-SKIP-CHECKSUM-VALIDATION 1"));
    let restore = |c: &mut redis::Connection, payload: &[u8]| {
        let payload = [payload, b"\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00"].concat();
        redis::cmd("RESTORE").arg("k").arg(0).arg(payload).arg("REPLACE").query::<()>(c)
    };
    // Scores as text, as doubles, in a ziplist, in a listpack.
    for good in [
        &b"\x03\x02\x01b\xfe\x01a\x031.5"[..],
        b"\x05\x02\x01b\x00\x00\x00\x00\x00\x00\xf0\x7f\x01a\x00\x00\x00\x00\x00\x00\xf8\x3f",
        b"\x0c\x1b\x1b\x00\x00\x00\x15\x00\x00\x00\x04\x00\x00\x01a\x03\x031.5\x05\x01b\x03\x03inf\xff",
        b"\x11\x17\x17\x00\x00\x00\x04\x00\x81a\x02\x831.5\x04\x81b\x02\x83inf\x04\xff",
        // Out of order.
        b"\x11\x17\x17\x00\x00\x00\x04\x00\x81b\x02\x83inf\x04\x81a\x02\x831.5\x04\xff",
    ] {
        restore(c, good).unwrap_or_else(|e| panic!("{good:?}: {e}"));
        assert_eq!(strings(c, "ZRANGE k 0 -1 WITHSCORES"), ["a", "1.5", "b", "inf"], "{good:?}");
        assert_eq!(run::<String>(c, &words("OBJECT ENCODING k")), "listpack");
    }
    // NaN, a member twice, a member without a score, something that is no score.
    for bad in [
        &b"\x03\x01\x01a\xfd"[..],
        b"\x05\x01\x01a\x00\x00\x00\x00\x00\x00\xf8\x7f",
        b"\x03\x02\x01a\xfe\x01a\xff",
        b"\x11\x0d\x0d\x00\x00\x00\x02\x00\x81a\x02\x83nan\x04\xff",
        b"\x11\x0f\x0f\x00\x00\x00\x04\x00\x81a\x02\x01\x01\x81a\x02\x02\x01\xff",
        b"\x11\x0a\x0a\x00\x00\x00\x01\x00\x81a\x02\xff",
    ] {
        assert!(restore(c, bad).is_err(), "{bad:?}");
    }
}

#[test]
fn waiting_clients_are_served_in_the_order_they_came() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let in_background = |command: &'static str| {
        let mut c = server.connect();
        thread::spawn(move || run::<redis::Value>(&mut c, &words(command)))
    };
    let wait_blocked = |count: usize| {
        let wanted = format!("blocked_clients:{count}\r\n");
        wait_for(10, &wanted, || run::<String>(&mut server.connect(), &words("INFO clients")).contains(&wanted));
    };
    let mut replica = server.connect();
    run::<()>(&mut replica, &words("CONFIG RESETSTAT"));
    let first = in_background("BZPOPMIN z other 0");
    wait_blocked(1);
    let second = in_background("BZPOPMAX other z 0");
    wait_blocked(2);
    let third = in_background("BZMPOP 0 1 z MIN COUNT 5");
    wait_blocked(3);
    run::<()>(c, &words("SET z x"));
    run::<()>(c, &words("DEL z"));
    assert_eq!(int(c, "ZADD z 1 a 2 b 3 c 4 d"), 4);
    let text = |v: redis::Value| -> Vec<String> { redis::from_redis_value(&v).unwrap() };
    assert_eq!(text(first.join().unwrap()), ["z", "a", "1"]);
    assert_eq!(text(second.join().unwrap()), ["z", "d", "4"]);
    let (_, rest): (String, Vec<(String, String)>) = redis::from_redis_value(&third.join().unwrap()).unwrap();
    assert_eq!(rest, [("b".into(), "2".into()), ("c".into(), "3".into())]);
    assert_eq!(int(c, "EXISTS z"), 0);
    assert_eq!(run::<Option<Vec<String>>>(c, &words("BZPOPMIN z 0.05")), None);
    assert_eq!(error(c, "BZPOPMIN z -1"), "ERR timeout is negative");
}

#[test]
fn places() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    assert_eq!(int(c, "GEOADD sicily 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"), 2);
    assert_eq!(int(c, "GEOADD sicily CH XX 13.5 38.2 Palermo 1 1 none"), 1);
    assert_eq!(int(c, "GEOADD sicily CH 13.361389 38.115556 Palermo"), 1);
    assert_eq!(run::<String>(c, &words("GEODIST sicily Palermo Catania")), "166274.1516");
    assert_eq!(run::<String>(c, &words("GEODIST sicily Palermo Catania km")), "166.2742");
    assert_eq!(run::<Option<String>>(c, &words("GEODIST sicily Palermo none")), None);
    assert_eq!(strings(c, "GEOHASH sicily Palermo Catania"), ["sqc8b49rny0", "sqdtr74hyu0"]);
    let places: Vec<Option<(String, String)>> = run(c, &words("GEOPOS sicily Palermo none"));
    assert_eq!(places, [Some(("13.36138933897018433".into(), "38.11555639549629859".into())), None]);
    let around = "GEOSEARCH sicily FROMLONLAT 15 37";
    assert_eq!(strings(c, &format!("{around} BYRADIUS 100 km")), ["Catania"]);
    assert_eq!(strings(c, &format!("{around} BYBOX 400 400 km ASC")), ["Catania", "Palermo"]);
    assert_eq!(strings(c, &format!("{around} BYRADIUS 200 km DESC COUNT 1")), ["Palermo"]);
    assert_eq!(strings(c, &format!("{around} BYRADIUS 200 km COUNT 1 ANY")).len(), 1);
    let full: Vec<(String, String, i64)> = run(c, &words("GEORADIUS sicily 15 37 200 km WITHDIST WITHHASH ASC"));
    assert_eq!(full[0], ("Catania".into(), "56.4413".into(), 3479447370796909));
    assert_eq!(strings(c, "GEORADIUSBYMEMBER_RO sicily Palermo 10 m"), ["Palermo"]);
    assert_eq!(int(c, "GEOSEARCHSTORE d sicily FROMMEMBER Palermo BYRADIUS 200 km STOREDIST"), 2);
    assert_eq!(strings(c, "ZRANGE d 0 -1 WITHSCORES")[..3], ["Palermo", "0", "Catania"]);
    assert_eq!(int(c, "GEORADIUS sicily 0 0 1 m STORE d"), 0);
    assert_eq!(int(c, "EXISTS d"), 0);
    assert_eq!(error(c, "GEOADD sicily 200 100 x"), "ERR invalid longitude,latitude pair 200.000000,100.000000");
    assert_eq!(error(c, &format!("{around} BYRADIUS 1 x")), "ERR unsupported unit provided. please use M, KM, FT, MI");
    let text = "ERR exactly one of BYRADIUS and BYBOX can be specified for GEOSEARCH";
    assert_eq!(error(c, &format!("{around} ASC ASC ASC")), text);
    let text = "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options";
    assert_eq!(error(c, "GEORADIUS sicily 15 37 200 km WITHDIST STORE d"), text);
    assert_eq!(strings(c, "COMMAND GETKEYS GEORADIUS sicily 15 37 200 km STORE d"), ["sicily", "d"]);
}
