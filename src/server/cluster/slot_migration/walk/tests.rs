//! Random commands of all types on keys that a walk is sending: what comes out makes the same keys.

use super::super::feed::Feeder;
use super::*;
use crate::catalog::table::Resolved;
use crate::catalog::{CmdError, CommandTable};
use crate::commands::bare::Bare;
use crate::commands::context::Ctx;
use crate::keyspace::digest::Digest;
use crate::keyspace::effects::{PropOp, target};
use crate::keyspace::{ExpirePolicy, Keyspace, Object};
use crate::resp::{Args, Limits, OwnedArgs, Parsed, Reply, RequestParser};
use crate::server::dispatch::call::Run;
use crate::structs::slots::key_slot;
use crate::structs::stream::StreamId;
use crate::structs::table::HashSeed;
use fastrand::Rng;

/// Three slots.
const TAGS: [&str; 3] = ["{a}", "{b}", "{c}"];
/// Kinds of keys, by the values they usually have.
const KINDS: &[u8] = b"slhztxp";

/// Runs a data command.
fn call(node: &mut Bare, (table, functions): (&CommandTable, &[Run]), words: &[&[u8]]) -> Result<(), CmdError> {
    let args = OwnedArgs::from_iter(words.iter().copied());
    let Resolved::Found(cmd) = table.resolve(words[0], words.get(1).copied()) else { panic!("no such command") };
    let (Run::Plain(run) | Run::Data(run)) = functions[cmd.0 as usize] else { panic!("no data command") };
    let mut out = Reply::new(false);
    node.want = None;
    let Bare { ks, cfg, caller, want } = node;
    run(&mut Ctx { ks, cfg, out: &mut out, session: caller, want, db: 0, cmd: table.get(cmd).row }, args.as_args())
}

struct Rig {
    rng: Rng,
    source: Bare,
    target: Bare,
    walk: Walk,
    feeder: Feeder,
    table: CommandTable,
    functions: Vec<Run>,
    /// What was sent and not run.
    stream: Vec<u8>,
    /// Keys and writes go two ways, and all keys are taken in before any write.
    has_two_ways: bool,
    keys: Vec<u8>,
    fed: usize,
    /// Commands that wait for a key that is held, with the keys they name.
    parked: Vec<(String, Vec<String>)>,
}

fn node(seed: u8) -> Bare {
    let mut node = Bare::new();
    let now_ms = node.ks.now_ms;
    node.ks = Keyspace::new(1, true, HashSeed([seed; 16]));
    node.ks.now_ms = now_ms;
    node.ks.effects.has_sinks = true;
    node
}

impl Rig {
    fn new(seed: u64) -> Rig {
        let slots: SlotSet = TAGS.iter().map(|tag| key_slot(tag.as_bytes())).collect();
        let (mut target, mut source) = (node(3), node(seed as u8));
        (target.caller.must_obey, target.caller.keeps_past_keys) = (true, true);
        target.ks.expire_policy = ExpirePolicy::Ignore;
        source.ks.effects.wants_ready = false;
        let (table, functions) = crate::server::commands::table();
        let mut walk = Walk::new(&slots);
        walk.longest_string = 16;
        Rig {
            rng: Rng::with_seed(seed),
            source,
            target,
            walk,
            feeder: Feeder::default(),
            table,
            functions,
            stream: Vec::new(),
            has_two_ways: seed.is_multiple_of(3),
            keys: Vec::new(),
            fed: 0,
            parked: Vec::new(),
        }
    }

    fn fill(&mut self) {
        for tag in TAGS {
            let large = self.rng.usize(1..700);
            let numbers = |from: usize| (from..from + large).map(|n| format!(" {n}v"));
            let pairs = |from: usize| (from..from + large).map(|n| format!(" {n} {n}v"));
            for (words, items) in [
                (format!("rpush {tag}l1"), numbers(1).collect::<String>()),
                (format!("sadd {tag}t1"), numbers(1).collect()),
                (format!("sadd {tag}t2"), (0..large).map(|n| format!(" {n}")).collect()),
                (format!("hset {tag}h1"), pairs(1).collect()),
                (format!("zadd {tag}z1"), pairs(1).collect()),
                (format!("hset {tag}h2"), " f v".repeat(1 + large % 5)),
            ] {
                self.run(&(words + &items));
            }
            self.run(&format!("xgroup create {tag}x1 g 0 mkstream"));
            for n in 0..large / 4 {
                self.run(&format!("xadd {tag}x1 {}-1 f {n} g {n}", n + 1));
            }
            self.run(&format!("xreadgroup group g c count {} streams {tag}x1 >", large / 8 + 1));
            for n in 0..self.rng.usize(0..300) {
                self.run(&format!("set {tag}n{n} {n}"));
            }
        }
        self.drain(false);
    }

    /// Runs one command at the source, and notes what is to be propagated.
    fn run(&mut self, line: &str) {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.source.changes();
        let _ = call(&mut self.source, (&self.table, &self.functions), &words);
        let changed = self.source.changes() > 0;
        let effects = &mut self.source.ks.effects;
        let targets = (if changed { target::ALL } else { 0 } | effects.forced) & !effects.prevented;
        if targets & target::REPLICAS != 0 {
            match effects.replacement.take() {
                None => effects.propagate_now(0, &words),
                Some(commands) => {
                    for command in commands {
                        let start = effects.props.bytes.len();
                        effects.props.bytes.extend_from_slice(&command);
                        let end = effects.props.bytes.len();
                        effects.props.ops.push(PropOp { db: 0, targets, start, end });
                    }
                }
            }
        }
        effects.forget_command();
    }

    /// The end of a unit: what was propagated goes where it is to.
    fn drain(&mut self, is_moving: bool) {
        let props = std::mem::take(&mut self.source.ks.effects.props);
        self.source.ks.effects.garbage.clear();
        for op in props.ops {
            let command = &props.bytes[op.start..op.end];
            let Some((_, keys)) = self.feeder.write_of(command, &self.table) else { continue };
            if is_moving && self.walk.takes(&self.source.ks.dbs[0], &keys) {
                self.stream.extend_from_slice(command);
                self.fed += 1;
            }
        }
    }

    /// A slice of the walk.
    fn go_on(&mut self, most: usize) -> bool {
        let mut left = most;
        let mut out = Output::default();
        let is_done = self.walk.go_on(&self.source.ks.dbs[0], &mut out, &mut |_| {
            left = left.saturating_sub(1);
            left > 0
        });
        if self.has_two_ways { &mut self.keys } else { &mut self.stream }.extend(out.keys);
        self.stream.extend(out.again);
        is_done
    }

    /// The target runs what has come; no command may fail.
    fn catch_up(&mut self) {
        let stream = [std::mem::take(&mut self.keys), std::mem::take(&mut self.stream)].concat();
        self.target.ks.now_ms = self.source.ks.now_ms;
        let (mut parser, mut at) = (RequestParser::default(), 0);
        while at < stream.len() {
            parser.reset();
            let limits = Limits { max_bulk_len: i64::MAX, unauthenticated: false };
            let Ok(Parsed::Command { consumed }) = parser.parse(&stream[at..], limits) else {
                panic!("half a command")
            };
            let args = Args::new(&stream[at..at + consumed], parser.spans());
            let words: Vec<&[u8]> = args.iter().collect();
            if let Err(error) = call(&mut self.target, (&self.table, &self.functions), &words) {
                panic!("{error}: {}", args.iter().map(String::from_utf8_lossy).collect::<Vec<_>>().join(" "));
            }
            self.target.ks.effects = Default::default();
            at += consumed;
        }
    }

    fn key(&mut self, tag: &str, kind: char) -> String {
        let kind = if self.rng.u8(..12) == 0 { char::from(*self.rng.choice(KINDS).unwrap()) } else { kind };
        format!("{tag}{kind}{}", self.rng.u8(..4))
    }

    /// A command, and the keys that it names.
    fn command(&mut self) -> (String, Vec<String>) {
        let tag = *self.rng.choice(&TAGS).unwrap();
        const TEMPLATES: &[(char, &str)] = &[
            ('s', "set K V"),
            ('s', "set K V px T"),
            ('s', "append K V"),
            ('s', "incr K"),
            ('s', "setrange K 20 V"),
            ('s', "getdel K"),
            ('s', "getex K persist"),
            ('s', "mset K V L V"),
            ('s', "bitop or K L M"),
            ('s', "setbit K N 1"),
            ('l', "rpush K V V"),
            ('l', "lpush K V"),
            ('l', "lpop K 3"),
            ('l', "rpop K"),
            ('l', "lset K 1 V"),
            ('l', "ltrim K 2 -3"),
            ('l', "linsert K before 5v V"),
            ('l', "lmove K L left right"),
            ('l', "rpoplpush K L"),
            ('l', "lrem K 1 7v"),
            ('l', "sort K alpha limit 0 20 store L"),
            ('t', "sadd K V N"),
            ('t', "srem K Nv N"),
            ('t', "spop K 2"),
            ('t', "smove K L Nv"),
            ('t', "sunionstore K L M"),
            ('t', "sdiffstore K L M"),
            ('t', "sinterstore K L M"),
            ('h', "hset K N V f V"),
            ('h', "hdel K N f"),
            ('h', "hincrby K count 3"),
            ('h', "hincrbyfloat K float 1.5"),
            ('h', "hsetnx K N V"),
            ('z', "zadd K N V N Nv"),
            ('z', "zadd K xx incr 2 Nv"),
            ('z', "zrem K Nv"),
            ('z', "zincrby K 3 Nv"),
            ('z', "zpopmin K 2"),
            ('z', "zremrangebyrank K 3 5"),
            ('z', "zunionstore K 2 L M"),
            ('z', "zrangestore K L 0 50"),
            ('z', "zdiffstore K 2 L M"),
            ('z', "geoadd K 1 2 V"),
            ('x', "xadd K * f V"),
            ('x', "xadd K maxlen 50 * f V"),
            ('x', "xdel K N-1"),
            ('x', "xtrim K maxlen ~ 40"),
            ('x', "xgroup create K h 0"),
            ('x', "xgroup destroy K h"),
            ('x', "xreadgroup group g V count 3 streams K >"),
            ('x', "xack K g N-1"),
            ('x', "xautoclaim K g other 0 0 count 5"),
            ('x', "xgroup createconsumer K g V"),
            ('p', "pfadd K V N"),
            ('p', "pfmerge K L M"),
            ('p', "pfcount K"),
            ('?', "del K L"),
            ('?', "unlink K"),
            ('?', "rename K L"),
            ('?', "rename K L"),
            ('?', "copy K L replace"),
            ('?', "copy K L"),
            ('?', "pexpire K T"),
            ('?', "persist K"),
            ('?', "get K"),
        ];
        let (kind, template) = *self.rng.choice(TEMPLATES).unwrap();
        let kind = if kind == '?' { char::from(*self.rng.choice(KINDS).unwrap()) } else { kind };
        let mut named = Vec::new();
        let words: Vec<String> = template
            .split(' ')
            .map(|word| match word {
                "K" | "L" | "M" => {
                    named.push(self.key(tag, kind));
                    named[named.len() - 1].clone()
                }
                "V" => format!("v{}", self.rng.u32(..1000)),
                "N" => self.rng.u32(..600).to_string(),
                "Nv" => format!("{}v", self.rng.u32(..600)),
                "N-1" => format!("{}-1", self.rng.u32(..150)),
                "T" => self.rng.u32(1..5000).to_string(),
                other => other.to_string(),
            })
            .collect();
        (words.join(" "), named)
    }

    /// A unit of execution: a command, several in a row, keys that expire, or many small keys that come or go.
    fn unit(&mut self) {
        match self.rng.u8(..20) {
            0 => {
                self.source.ks.now_ms += self.rng.i64(0..2000);
                let due = |entry: &&Entry| entry.expire_ms().is_some_and(|at| at < self.source.ks.now_ms);
                let keys: Vec<_> = self.source.ks.dbs[0].iter().filter(due).map(|entry| entry.key().to_vec()).collect();
                keys.iter().for_each(|key| self.source.ks.expire_now(0, key));
            }
            1 => {
                let (tag, from) = (*self.rng.choice(&TAGS).unwrap(), self.rng.usize(..1000));
                let name = if self.rng.bool() { "n" } else { "m" };
                for n in from..from + self.rng.usize(..150) {
                    let line =
                        if self.rng.bool() { format!("set {tag}{name}{n} x") } else { format!("del {tag}{name}{n}") };
                    self.run(&line);
                }
            }
            kind => {
                for _ in 0..if kind == 2 { 4 } else { 1 } {
                    let (line, named) = self.command();
                    // Most clients wait while a value is held, but scripts need not have named it.
                    let is_script = self.rng.u8(..30) == 0;
                    self.run_or_park((line, named), is_script);
                }
            }
        }
        self.drain(true);
        self.release();
    }

    fn run_or_park(&mut self, (line, named): (String, Vec<String>), is_script: bool) {
        let is_held = self.walk.held().is_some_and(|held| named.iter().any(|key| key.as_bytes() == held));
        if is_held && !is_script {
            self.parked.push((line, named));
        } else {
            self.run(&line);
        }
    }

    /// Those who wait for a key that is held no longer try again.
    fn release(&mut self) {
        while self.walk.take_let_go() {
            for waiting in std::mem::take(&mut self.parked) {
                self.run_or_park(waiting, false);
                self.drain(true);
            }
        }
        assert!(self.parked.is_empty() || self.walk.held().is_some(), "nobody would release {:?}", self.parked);
    }

    fn check(&self) {
        let all = |node: &Bare| {
            let mut all: Vec<(Vec<u8>, Option<i64>)> =
                node.ks.dbs[0].iter().map(|entry| (entry.key().to_vec(), entry.expire_ms())).collect();
            all.sort();
            all
        };
        assert_eq!(all(&self.source), all(&self.target));
        for (key, _) in all(&self.source) {
            let of = |node: &Bare| node.ks.dbs[0].get(&key).map(describe);
            assert_eq!(of(&self.source), of(&self.target), "{}", String::from_utf8_lossy(&key));
        }
    }
}

/// What commands say of a value. (As the stream to replicas, they say nothing of pending entries that were deleted, of how many
/// entries a group has read, and of consumers that claimed nothing.)
fn describe(entry: &Entry) -> (Digest, String) {
    let mut digest = Digest::default();
    digest.add_value(entry);
    let mut groups = String::new();
    if let Some(Object::Stream(stream)) = entry.object() {
        groups = format!("{:?} ", stream.log.counters);
        for (name, group) in stream.groups() {
            let pending: Vec<_> = group
                .pending_from(StreamId::MIN)
                .filter(|(id, _)| stream.log.contains(*id))
                .map(|(id, p)| (id, p.time_ms, p.deliveries, group.consumer(p.owner).name().to_vec()))
                .collect();
            groups += &format!("{name:?} {:?} {pending:?}", group.last_id);
        }
    }
    (digest, groups)
}

fn a_run(seed: u64) -> usize {
    let mut rig = Rig::new(seed);
    rig.fill();
    let (slice, busy) = (rig.rng.usize(1..60), rig.rng.usize(1..8));
    let mut slices = 0;
    loop {
        let most = rig.rng.usize(1..=slice);
        let is_done = rig.go_on(most);
        rig.release();
        if is_done && rig.walk.line.is_empty() {
            break;
        }
        for _ in 0..rig.rng.usize(0..busy) {
            rig.unit();
        }
        if !rig.has_two_ways && rig.rng.u8(..4) == 0 {
            rig.catch_up();
        }
        slices += 1;
        assert!(slices < 200_000, "it never ends");
    }
    for _ in 0..50 {
        rig.unit();
    }
    assert_eq!((rig.parked.len(), rig.walk.memory()), (0, 0));
    rig.catch_up();
    rig.check();
    rig.fed
}

/// Goes on until a key is the first one that is late, and has gone in part.
fn begin(rig: &mut Rig, key: &str) {
    let is_begun = |walk: &Walk| {
        let first = walk.line.front().filter(|first| first[..] == *key.as_bytes());
        first.is_some_and(|first| walk.late[first].place != Place::START)
    };
    while !is_begun(&rig.walk) {
        assert!(!rig.go_on(2));
    }
}

#[test]
fn who_waits_for_a_key_is_told_whenever_it_is_held_no_longer() {
    let mut rig = Rig::new(1);
    let pairs: String = (0..1000).map(|n| format!(" {n} {n}")).collect();
    rig.run(&format!("hset {{a}}h{pairs}"));
    rig.drain(false);
    for _ in 0..2 {
        begin(&mut rig, "{a}h");
        assert!(rig.walk.held().is_none());
        rig.run("hset {a}h f v");
        rig.drain(true);
    }
    begin(&mut rig, "{a}h");
    assert!(rig.walk.held().is_some() && !rig.walk.take_let_go());
    // A script has not named it: it is begun again, and somebody else may be the first now.
    rig.run("hset {a}h f w");
    rig.drain(true);
    assert!(rig.walk.has_let_go() && rig.walk.take_let_go() && !rig.walk.has_let_go());
    assert!(rig.walk.memory() > 0);
    while !rig.go_on(100) {}
    assert!(rig.walk.take_let_go());
    assert_eq!(rig.walk.memory(), 0);
    rig.catch_up();
    rig.check();
}

#[test]
fn the_walk_ends_however_fast_keys_become_late() {
    let mut rig = Rig::new(1);
    let mut names: Vec<String> = (0..500).map(|n| format!("{{a}}{n}")).collect();
    names.sort_by_key(|name| rig.source.ks.dbs[0].hash(name.as_bytes()).hash);
    names.iter().for_each(|name| rig.run(&format!("sadd {name} x")));
    rig.drain(false);
    let (first, last) = (&names[..2], &names[499]);
    let mut turns = 0;
    // One key has its turn, and two become late.
    while !rig.go_on(2) {
        for name in first {
            rig.run(&format!("sunionstore {name} {name} {last}"));
            rig.run(&format!("srem {name} y"));
            rig.run(&format!("sadd {name} y"));
        }
        rig.drain(true);
        turns += 1;
        assert!(turns < 5000);
    }
    rig.catch_up();
    rig.check();
}

#[test]
fn whatever_is_written_meanwhile_the_target_has_the_same_keys_in_the_end() {
    let (first, count) = match std::env::var("WALK_SEEDS").ok().and_then(|n| n.parse().ok()) {
        Some(count) => (1000, count),
        None => (1, 20),
    };
    let fed: usize = (first..first + count)
        .map(|seed| {
            let ran = std::panic::catch_unwind(|| a_run(seed));
            ran.unwrap_or_else(|_| panic!("seed {seed}"))
        })
        .sum();
    assert!(fed > 100, "{fed}");
}
