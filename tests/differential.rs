//! The same random commands, over all types, for our server and for a real one: equal replies, and an equal digest of the
//! dataset every now and then.
//!
//! The commands follow from a seed. `HEXAD_DIFFERENTIAL_SEED` names another one, `HEXAD_DIFFERENTIAL_COMMANDS` makes a run
//! longer. The real server may be older than
//! what we are compatible with, so only what both know is asked, and of errors only the code is compared then.
//!
//! The same for our server with and without its short way for plain calls, which may change nothing but the time taken.

use crate::common;

use common::{TestServer, real_redis, run, wait_for};
use fastrand::Rng;
use redis::Value;
use std::fmt::Write as _;
use std::path::Path;

/// The seeds of a usual run.
const SEEDS: [u64; 3] = [1, 2, 3];
/// Commands for each seed, and between two looks at the digests.
const COMMANDS: usize = 15_000;
const DIGEST_EVERY: usize = 250;
/// Commands shown when something differs.
const SHOWN: usize = 40;

/// How the elements of a reply are ordered.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Fixed,
    /// As the server likes.
    Any,
    /// Pairs, as the server likes.
    Pairs,
}

/// What is asked. In braces: `l s h z x k b p g` a key of a type (lists, sets, hashes, sorted sets, streams, strings,
/// bitmaps, HyperLogLogs, places; now and then of another type), `a` a key of any of those, `e` one of sorted sets whose
/// scores are equal, `m` a member from a small pool, `v` a
/// value of any sort, `n` a small number, `i` a small number of either sign, `f` a floating-point number, `r` the end of a
/// range of scores, `y` one of names, `d` a stream id, `o` a place in a string, `w` longitude and latitude.
const TEMPLATES: &[(&str, Order)] = {
    use Order::{Any, Fixed, Pairs};
    &[
        // Lists.
        ("RPUSH {l} {v} {m} {v}", Fixed),
        ("LPUSH {l} {m} {v}", Fixed),
        ("RPUSHX {l} {v}", Fixed),
        ("LPUSHX {l} {m}", Fixed),
        ("LPOP {l}", Fixed),
        ("RPOP {l} {n}", Fixed),
        ("LRANGE {l} {i} {i}", Fixed),
        ("LRANGE {l} 0 -1", Fixed),
        ("LINDEX {l} {i}", Fixed),
        ("LLEN {l}", Fixed),
        ("LSET {l} {i} {v}", Fixed),
        ("LINSERT {l} BEFORE {m} {v}", Fixed),
        ("LINSERT {l} AFTER {m} {v}", Fixed),
        ("LREM {l} {i} {m}", Fixed),
        ("LTRIM {l} {i} {i}", Fixed),
        ("LPOS {l} {m} RANK {i} COUNT {n}", Fixed),
        ("LMOVE {l} {l} LEFT RIGHT", Fixed),
        ("RPOPLPUSH {l} {l}", Fixed),
        ("LMPOP 2 {l} {l} RIGHT COUNT {n}", Fixed),
        ("SORT {l} ALPHA LIMIT {n} {n}", Fixed),
        ("SORT {l} DESC", Fixed),
        ("SORT {s} ALPHA STORE {l}", Fixed),
        // Sets.
        ("SADD {s} {m} {v} {i}", Fixed),
        ("SADD {s} {i} {i} {i}", Fixed),
        ("SREM {s} {m} {i}", Fixed),
        ("SISMEMBER {s} {m}", Fixed),
        ("SMISMEMBER {s} {m} {i}", Fixed),
        ("SMEMBERS {s}", Any),
        ("SCARD {s}", Fixed),
        ("SMOVE {s} {s} {m}", Fixed),
        ("SINTER {s} {s}", Any),
        ("SUNION {s} {s} {s}", Any),
        ("SDIFF {s} {s} {s}", Any),
        ("SINTERSTORE {s} {s} {s}", Fixed),
        ("SUNIONSTORE {s} {s} {s}", Fixed),
        ("SDIFFSTORE {s} {s} {s}", Fixed),
        ("SINTERCARD 2 {s} {s} LIMIT {n}", Fixed),
        // Hashes.
        ("HSET {h} {m} {v} {i} {f}", Fixed),
        ("HMSET {h} {m} {v}", Fixed),
        ("HSETNX {h} {m} {v}", Fixed),
        ("HDEL {h} {m} {i}", Fixed),
        ("HGET {h} {m}", Fixed),
        ("HMGET {h} {m} {i} {m}", Fixed),
        ("HGETALL {h}", Pairs),
        ("HKEYS {h}", Any),
        ("HVALS {h}", Any),
        ("HLEN {h}", Fixed),
        ("HEXISTS {h} {m}", Fixed),
        ("HSTRLEN {h} {m}", Fixed),
        ("HINCRBY {h} {m} {i}", Fixed),
        ("HINCRBYFLOAT {h} {i} {f}", Fixed),
        // Sorted sets.
        ("ZADD {z} {f} {m} {i} {m}", Fixed),
        ("ZADD {z} NX CH {f} {m}", Fixed),
        ("ZADD {z} XX GT CH {f} {m}", Fixed),
        ("ZADD {z} LT INCR {i} {m}", Fixed),
        ("ZADD {e} 0 {m} 0 {m} 0 {i}", Fixed),
        ("ZREM {e} {m} {m}", Fixed),
        ("ZINCRBY {z} {f} {m}", Fixed),
        ("ZREM {z} {m} {i}", Fixed),
        ("ZSCORE {z} {m}", Fixed),
        ("ZMSCORE {z} {m} {m}", Fixed),
        ("ZRANK {z} {m}", Fixed),
        ("ZREVRANK {z} {m}", Fixed),
        ("ZCARD {z}", Fixed),
        ("ZCOUNT {z} {r} {r}", Fixed),
        ("ZLEXCOUNT {e} {y} {y}", Fixed),
        ("ZRANGE {z} {i} {i} WITHSCORES", Fixed),
        ("ZRANGE {z} {r} {r} BYSCORE LIMIT {n} {i}", Fixed),
        ("ZRANGE {e} {y} {y} BYLEX REV", Fixed),
        ("ZREVRANGE {z} {i} {i} WITHSCORES", Fixed),
        ("ZRANGEBYSCORE {z} {r} {r} WITHSCORES", Fixed),
        ("ZREVRANGEBYSCORE {z} {r} {r} LIMIT {n} {n}", Fixed),
        ("ZRANGEBYLEX {e} {y} {y}", Fixed),
        ("ZREMRANGEBYRANK {z} {i} {i}", Fixed),
        ("ZREMRANGEBYSCORE {z} {r} {r}", Fixed),
        ("ZREMRANGEBYLEX {e} {y} {y}", Fixed),
        ("ZPOPMIN {z} {n}", Fixed),
        ("ZPOPMAX {z}", Fixed),
        ("ZMPOP 2 {z} {z} MIN COUNT {n}", Fixed),
        ("ZRANGESTORE {z} {z} {i} {i}", Fixed),
        ("ZUNION 2 {z} {z} WEIGHTS {i} {f} WITHSCORES", Fixed),
        ("ZINTER 2 {z} {s} AGGREGATE MAX WITHSCORES", Fixed),
        ("ZDIFF 2 {z} {z}", Fixed),
        ("ZUNIONSTORE {z} 2 {z} {s} AGGREGATE MIN", Fixed),
        ("ZINTERSTORE {z} 2 {z} {z}", Fixed),
        ("ZDIFFSTORE {z} 2 {z} {z}", Fixed),
        ("ZINTERCARD 2 {z} {z} LIMIT {n}", Fixed),
        // Streams.
        ("XADD {x} {d} {m} {v}", Fixed),
        ("XADD {x} {d} {m} {v} {i} {m}", Fixed),
        ("XADD {x} NOMKSTREAM MAXLEN = 9 {d} {m} {v}", Fixed),
        ("XLEN {x}", Fixed),
        ("XRANGE {x} - +", Fixed),
        ("XRANGE {x} {d} {d} COUNT {n}", Fixed),
        ("XREVRANGE {x} + {d}", Fixed),
        ("XREAD COUNT {n} STREAMS {x} {x} 0 {d}", Fixed),
        ("XDEL {x} {d} {d}", Fixed),
        ("XTRIM {x} MAXLEN {n}", Fixed),
        ("XTRIM {x} MINID {d}", Fixed),
        ("XSETID {x} {d}", Fixed),
        ("XGROUP CREATE {x} g{n} {d} MKSTREAM", Fixed),
        ("XGROUP SETID {x} g{n} {d}", Fixed),
        ("XGROUP DESTROY {x} g{n}", Fixed),
        ("XGROUP CREATECONSUMER {x} g{n} c{n}", Fixed),
        ("XGROUP DELCONSUMER {x} g{n} c{n}", Fixed),
        ("XREADGROUP GROUP g{n} c{n} COUNT {n} STREAMS {x} >", Fixed),
        ("XREADGROUP GROUP g{n} c{n} STREAMS {x} {d}", Fixed),
        ("XACK {x} g{n} {d} {d}", Fixed),
        ("XPENDING {x} g{n}", Fixed),
        ("XCLAIM {x} g{n} c{n} 0 {d} {d} JUSTID", Fixed),
        ("XAUTOCLAIM {x} g{n} c{n} 0 {d} COUNT 3 JUSTID", Fixed),
        // Strings and numbers.
        ("SET {k} {v}", Fixed),
        ("SET {k} {i} KEEPTTL GET", Fixed),
        ("SET {k} {v} NX EX 10000", Fixed),
        ("SETNX {k} {v}", Fixed),
        ("GETSET {k} {v}", Fixed),
        ("GETDEL {k}", Fixed),
        ("GET {k}", Fixed),
        ("MGET {k} {k} {l}", Fixed),
        ("MSET {k} {v} {k} {i}", Fixed),
        ("MSETNX {k} {v} {k} {v}", Fixed),
        ("APPEND {k} {v}", Fixed),
        ("STRLEN {k}", Fixed),
        ("SETRANGE {k} {o} {v}", Fixed),
        ("GETRANGE {k} {i} {i}", Fixed),
        ("INCR {k}", Fixed),
        ("DECRBY {k} {i}", Fixed),
        ("INCRBYFLOAT {k} {f}", Fixed),
        ("LCS {k} {k} IDX", Fixed),
        // Bits.
        ("SETBIT {b} {o} 1", Fixed),
        ("SETBIT {b} {o} 0", Fixed),
        ("GETBIT {b} {o}", Fixed),
        ("BITCOUNT {b} {i} {i}", Fixed),
        ("BITCOUNT {b} {i} {i} BIT", Fixed),
        ("BITPOS {b} 1 {i}", Fixed),
        ("BITPOS {b} 0 {i} {i} BIT", Fixed),
        ("BITOP XOR {b} {b} {b}", Fixed),
        ("BITOP NOT {b} {b}", Fixed),
        ("BITFIELD {b} SET i5 {o} {i} GET u9 #{n} OVERFLOW FAIL INCRBY u3 {o} {i}", Fixed),
        ("BITFIELD {b} OVERFLOW SAT INCRBY i7 #{n} {i}", Fixed),
        // HyperLogLogs and places.
        ("PFADD {p} {m} {v} {i}", Fixed),
        ("PFCOUNT {p} {p}", Fixed),
        ("PFCOUNT {p}", Fixed),
        ("PFMERGE {p} {p} {p}", Fixed),
        ("GEOADD {g} {w} {m}", Fixed),
        ("GEOPOS {g} {m} {m}", Fixed),
        ("GEOHASH {g} {m}", Fixed),
        ("GEODIST {g} {m} {m} km", Fixed),
        ("GEOSEARCH {g} FROMLONLAT {w} BYRADIUS 5000 km ASC WITHDIST", Fixed),
        ("GEOSEARCHSTORE {g} {g} FROMLONLAT {w} BYBOX 4000 4000 km ASC COUNT {n}", Fixed),
        // Keys.
        ("DEL {a}", Fixed),
        ("UNLINK {a} {a}", Fixed),
        ("EXISTS {a} {a}", Fixed),
        ("TYPE {a}", Fixed),
        ("RENAME {a} {a}", Fixed),
        ("RENAMENX {a} {a}", Fixed),
        ("COPY {a} {a} REPLACE", Fixed),
        ("EXPIREAT {a} 99999999{n}", Fixed),
        ("EXPIREAT {a} 9{n}", Fixed),
        ("PERSIST {a}", Fixed),
        ("EXPIRETIME {a}", Fixed),
        ("DBSIZE", Fixed),
        ("KEYS *", Any),
    ]
};

const KINDS: &str = "lshzxkbpg";
/// Older servers write large scores, as those of places are, in another way, and find other faults with HyperLogLogs.
const OLD_KINDS: &str = "lshzxkb";
/// What older servers answer in another way: when a consumer begins to exist has changed, and which ids a stream can be given.
const NOT_FOR_OLD: [&str; 5] = ["XGROUP CREATECONSUMER", "XGROUP DELCONSUMER", "XCLAIM", "XAUTOCLAIM", "XSETID"];

fn fill(letter: char, rng: &mut Rng, is_new: bool, out: &mut Vec<Vec<u8>>) {
    let text = match letter {
        'a' => {
            let kinds = if is_new { KINDS } else { OLD_KINDS };
            format!("{}{}", kinds.as_bytes()[rng.usize(..kinds.len())] as char, rng.u8(..3))
        }
        'm' => format!("member:{}", "x".repeat(rng.usize(..3) * 9) + &rng.u8(..20).to_string()),
        'n' => rng.u8(..6).to_string(),
        'i' => rng.i32(-12..12).to_string(),
        'f' => match rng.u8(..12) {
            0 => "inf".into(),
            1 => "-inf".into(),
            2 => "nan".into(),
            // Older servers write some large numbers with more digits than it takes.
            3 if is_new => "1e300".into(),
            _ => (f64::from(rng.i32(-4000..4000)) / 8.0).to_string(),
        },
        'r' => match rng.u8(..6) {
            0 => "-inf".into(),
            1 => "+inf".into(),
            2 => format!("({}", rng.i32(-20..20)),
            _ => rng.i32(-200..200).to_string(),
        },
        'y' => match rng.u8(..5) {
            0 => "-".into(),
            1 => "+".into(),
            2 => format!("(member:{}", rng.u8(..20)),
            _ => format!("[member:{}", rng.u8(..20)),
        },
        'd' => format!("{}-{}", rng.u8(..40), rng.u8(..3)),
        'o' => rng.u8(..90).to_string(),
        'w' => {
            out.push((f64::from(rng.i32(-1800..1800)) / 10.0).to_string().into_bytes());
            (f64::from(rng.i32(-860..860)) / 10.0).to_string()
        }
        'v' => {
            let longest = [4, 20, 70, 300][rng.usize(..4)];
            let len = rng.usize(..longest);
            let value: Vec<u8> = match rng.u8(..4) {
                0 => rng.i64(..).to_string().into_bytes(),
                1 => (0..len).map(|_| rng.u8(..)).collect(),
                _ => (0..len).map(|_| rng.lowercase() as u8).collect(),
            };
            return out.push(value);
        }
        'e' => format!("e{}", rng.u8(..3)),
        // One time in thirty the key is of another type.
        kind if rng.u8(..30) > 0 || (kind == 'g' && !is_new) => format!("{kind}{}", rng.u8(..3)),
        _ => return fill('a', rng, is_new, out),
    };
    out.push(text.into_bytes());
}

/// A command made from a template.
fn command(template: &str, rng: &mut Rng, is_new: bool) -> Vec<Vec<u8>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    for word in template.split(' ') {
        match word.split_once('{') {
            Some(("", rest)) => fill(rest.chars().next().unwrap(), rng, is_new, &mut words),
            Some((prefix, rest)) => {
                let mut filled = Vec::new();
                fill(rest.chars().next().unwrap(), rng, is_new, &mut filled);
                words.push([prefix.as_bytes(), &filled.concat()].concat());
            }
            None => words.push(word.as_bytes().to_vec()),
        }
    }
    words
}

fn made(words: &[Vec<u8>]) -> redis::Cmd {
    let mut cmd = redis::Cmd::new();
    words.iter().for_each(|w| {
        cmd.arg(w);
    });
    cmd
}

fn ask(c: &mut redis::Connection, words: &[Vec<u8>]) -> redis::RedisResult<Value> {
    made(words).query(c)
}

/// A reply as text, to be compared.
fn shown(reply: &redis::RedisResult<Value>, order: Order, whole_errors: bool) -> String {
    let error = |code: Option<&str>, detail: Option<&str>| {
        let detail = if whole_errors { detail.unwrap_or_default() } else { "" };
        format!("error {} {detail}", code.unwrap_or("?"))
    };
    match reply {
        Err(e) => error(e.code(), e.detail()),
        Ok(Value::Array(items)) if order != Order::Fixed => {
            let mut parts: Vec<String> = items
                .chunks(if order == Order::Pairs { 2 } else { 1 })
                .map(|chunk| chunk.iter().fold(String::new(), |text, v| text + &format!("{v:?} ")))
                .collect();
            parts.sort();
            parts.join(", ")
        }
        Ok(value) => format!("{value:?}"),
    }
}

fn is_as_new(real: &mut redis::Connection) -> bool {
    let info: String = run(real, &["INFO", "server"]);
    let version = info.lines().find_map(|l| l.strip_prefix("redis_version:")).unwrap_or_default();
    let mut parts = version.split('.').map(|p| p.parse::<u32>().unwrap_or(0));
    (parts.next(), parts.next()) >= (Some(7), Some(2))
}

/// What differs between two datasets, key by key.
fn difference(ours: &mut redis::Connection, real: &mut redis::Connection) -> String {
    let mut keys: Vec<String> = run(real, &["KEYS", "*"]);
    keys.extend(run::<Vec<String>>(ours, &["KEYS", "*"]));
    keys.sort();
    keys.dedup();
    let mut text = String::new();
    for key in keys {
        let digest = ["DEBUG", "DIGEST-VALUE", &key];
        let (a, b): (Vec<String>, Vec<String>) = (run(ours, &digest), run(real, &digest));
        if a != b {
            let _ = writeln!(text, "{key}: ours {a:?}, theirs {b:?}");
        }
    }
    text
}

fn compare(real: &Path, seed: u64, commands: usize) {
    // Values change their encodings early and often.
    let options = [
        "--enable-debug-command yes --hash-max-listpack-entries 8 --hash-max-listpack-value 20",
        "--set-max-intset-entries 6 --zset-max-listpack-entries 8 --zset-max-listpack-value 20",
        "--list-max-listpack-size 4 --list-compress-depth 1 --stream-node-max-entries 5 --hll-sparse-max-bytes 60",
    ];
    let options: Vec<&str> = options.iter().flat_map(|line| line.split(' ')).collect();
    let (ours, real) = (TestServer::start(&options), TestServer::start_binary(real, &options));
    let (mut ours, mut real) = (ours.connect(), real.connect());
    let is_new = is_as_new(&mut real);
    let mut rng = Rng::with_seed(seed);
    let mut told: Vec<String> = Vec::new();
    // The end of a transaction, while one is open.
    let mut ends_at = None;
    for n in 0..commands {
        let (words, order) = if ends_at == Some(n) {
            ends_at = None;
            (vec![b"EXEC".to_vec()], Order::Fixed)
        } else if ends_at.is_none() && rng.u8(..60) == 0 {
            ends_at = Some(n + rng.usize(1..8));
            (vec![b"MULTI".to_vec()], Order::Fixed)
        } else {
            let fits = |(template, order): (&str, Order)| {
                (ends_at.is_none() || order == Order::Fixed)
                    && (is_new || !NOT_FOR_OLD.iter().any(|name| template.starts_with(name)))
            };
            let pick = loop {
                let pick = TEMPLATES[rng.usize(..TEMPLATES.len())];
                if fits(pick) {
                    break pick;
                }
            };
            (command(pick.0, &mut rng, is_new), pick.1)
        };
        let line: Vec<String> = words.iter().map(|w| w.escape_ascii().to_string()).collect();
        told.push(line.join(" "));
        let replies = [ask(&mut ours, &words), ask(&mut real, &words)];
        let [a, b] = replies.each_ref().map(|reply| shown(reply, order, is_new));
        let before = || told[told.len().saturating_sub(SHOWN)..].join("\n");
        assert!(a == b, "seed {seed}, command {n}:\nours   {a}\ntheirs {b}\nafter\n{}", before());
        if n % DIGEST_EVERY == 0 && ends_at.is_none() {
            let [a, b]: [String; 2] = [&mut ours, &mut real].map(|c| run(c, &["DEBUG", "DIGEST"]));
            assert!(
                a == b,
                "seed {seed}, command {n}: other data\n{}after\n{}",
                difference(&mut ours, &mut real),
                before()
            );
        }
    }
}

#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn random_commands_are_answered_as_by_a_real_server() {
    let real = real_redis();
    let number = |name| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    let commands = number("HEXAD_DIFFERENTIAL_COMMANDS").map_or(COMMANDS, |n| n as usize);
    match number("HEXAD_DIFFERENTIAL_SEED") {
        Some(seed) => compare(&real, seed, commands),
        None => SEEDS.into_iter().for_each(|seed| compare(&real, seed, commands)),
    }
}

/// Commands sent at once.
const PIPELINE: usize = 50;
/// Calls that are refused, or not made for their replies.
const REFUSED: &[(&str, Order)] = &[
    ("GET", Order::Fixed),
    ("SET {k}", Order::Fixed),
    ("INCR {k} {k}", Order::Fixed),
    ("NOSUCH {k}", Order::Fixed),
    ("CONFIG NOSUCH", Order::Fixed),
    ("PING", Order::Fixed),
    ("TOUCH {a} {a}", Order::Fixed),
    ("OBJECT ENCODING {a}", Order::Fixed),
];

/// INFO fields that follow from what was asked.
const COUNTED: &[&str] = &[
    "total_commands_processed",
    "total_error_replies",
    "keyspace_hits",
    "keyspace_misses",
    "expired_keys",
    "evicted_keys",
    "rdb_changes_since_last_save",
];

/// What INFO counts: the fields of `COUNTED`, and the calls, rejections and failures of commands and errors by code.
fn counted(c: &mut redis::Connection) -> Vec<String> {
    let info: String = run(c, &["INFO", "everything"]);
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        if let Some(command) = name.strip_prefix("cmdstat_") {
            let counts = value.split(',').filter(|part| !part.starts_with("usec"));
            return Some(format!("{command}: {}", counts.collect::<Vec<_>>().join(" ")));
        }
        (COUNTED.contains(&name) || name.starts_with("errorstat_")).then(|| line.to_string())
    };
    let mut lines: Vec<String> = info.lines().filter_map(line).collect();
    lines.sort();
    lines
}

/// The commands of a log, without the times in it.
fn logged(server: &TestServer) -> String {
    let dir = server.dir.path().join("appendonlydir");
    let increment = std::fs::read_dir(dir).expect("the log's folder").flatten().map(|entry| entry.path());
    let increment = increment.into_iter().find(|path| path.extension().is_some_and(|e| e == "aof"));
    let text = std::fs::read(increment.expect("the increment")).expect("the log");
    let mut words = text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut shown = String::new();
    let mut is_time = false;
    while let Some(word) = words.next() {
        let hides = std::mem::replace(&mut is_time, false) && !word.starts_with(b"$");
        if hides {
            shown.push_str("(time)");
        } else {
            let _ = write!(shown, "{}", word.escape_ascii());
        }
        is_time = [&b"TIME"[..], b"PXAT"].contains(&word);
        if is_time {
            // Its length comes first, which is that of all such times.
            let _ = write!(shown, " {}", words.next().unwrap_or_default().escape_ascii());
        }
        shown.push('\n');
    }
    shown
}

fn compare_ways(seed: u64, commands: usize, more: &[&str]) {
    let options = [&["--appendonly", "yes", "--enable-debug-command", "yes"][..], more].concat();
    let servers = [1, 0].map(|_| TestServer::start(&options));
    let mut connections = servers.each_ref().map(|server| server.connect());
    for (c, plain) in connections.iter_mut().zip(["1", "0"]) {
        run::<()>(c, &["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
        run::<()>(c, &["DEBUG", "PLAIN-CALLS", plain]);
        run::<()>(c, &["CONFIG", "RESETSTAT"]);
    }
    let templates: Vec<(&str, Order)> = TEMPLATES.iter().chain(REFUSED).copied().collect();
    let mut rng = Rng::with_seed(seed);
    for round in 0..commands / PIPELINE {
        let mut words = Vec::new();
        let has_transaction = rng.u8(..5) == 0;
        while words.len() < PIPELINE {
            let (template, order) = templates[rng.usize(..templates.len())];
            if has_transaction && order != Order::Fixed {
                continue;
            }
            // Many in a row are of one form, as in most pipelines.
            let times = if rng.u8(..3) == 0 { rng.usize(1..24) } else { 1 };
            words.extend((0..times).map(|_| (command(template, &mut rng, true), order)));
        }
        if has_transaction {
            let at = rng.usize(..words.len());
            words.insert(at, (vec![b"MULTI".to_vec()], Order::Fixed));
            words.push((vec![b"EXEC".to_vec()], Order::Fixed));
        }
        let packed: Vec<u8> = words.iter().flat_map(|(words, _)| made(words).get_packed_command()).collect();
        let replies = connections.each_mut().map(|c| {
            c.send_packed_command(&packed).expect("a connection");
            let replies = words.iter().map(|(_, order)| shown(&c.recv_response(), *order, true));
            replies.collect::<Vec<_>>()
        });
        let differs = (0..words.len()).find(|i| replies[0][*i] != replies[1][*i]);
        if let Some(at) = differs {
            let asked: Vec<String> = words[at].0.iter().map(|w| w.escape_ascii().to_string()).collect();
            panic!("seed {seed}, round {round}: {asked:?}: {} or {}", replies[0][at], replies[1][at]);
        }
    }
    let counts = connections.each_mut().map(counted);
    assert_eq!(counts[0], counts[1], "seed {seed}, {more:?}");
    let [a, b]: [String; 2] = connections.each_mut().map(|c| run(c, &["DEBUG", "DIGEST"]));
    assert_eq!(a, b, "seed {seed}, {more:?}");
    // A sync that takes long holds writing to the log up, though not the replies.
    for c in &mut connections {
        let is_written =
            |c: &mut redis::Connection| run::<String>(c, &["INFO", "persistence"]).contains("aof_buffer_length:0\r");
        wait_for(20, "the log is written", || is_written(c));
    }
    let [a, b] = servers.each_ref().map(logged);
    assert!(a.len() > commands, "{a}");
    let differs = a.lines().zip(b.lines()).position(|(a, b)| a != b);
    let near = |text: &str, at: usize| text.lines().skip(at.saturating_sub(12)).take(24).collect::<Vec<_>>().join(" ");
    if let Some(at) = differs {
        panic!("seed {seed}, {more:?}: the logs differ:\n{}\nor\n{}", near(&a, at), near(&b, at));
    }
    assert_eq!(a.len(), b.len(), "seed {seed}, {more:?}");
}

#[test]
fn the_short_way_of_plain_calls_changes_nothing() {
    compare_ways(11, 15_000, &[]);
    compare_ways(12, 8_000, &["--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"]);
    compare_ways(13, 8_000, &["--appendfsync", "always", "--slowlog-log-slower-than", "0"]);
}
