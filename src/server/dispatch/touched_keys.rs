//! The keys that admission sees are the keys that a call touches: access control, cluster routing and client-side caching
//! rely on it. Calls of every command are made up from what the command says of its arguments, and then spoilt: options
//! twice, out of their places, with names that are keywords.

use crate::catalog::row::{Arg, ArgKind, Command, Group, flag, key};
use crate::catalog::table::CmdRef;
use crate::config::Config;
use crate::keyspace::touched::{self, Touched};
use crate::net::ClientId;
use crate::resp::{Args, OwnedArgs, Reply};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};

/// Calls of each command.
const CALLS: usize = 400;
/// The same for commands whose specifications do not tell where their keys stand.
const CALLS_OF_MOVABLE: usize = 6_000;
/// Faults of a command that are shown.
const SHOWN: usize = 3;

/// Commands that do not run here: they end, stop or empty the server, fork, or change what it does with those after them.
const NOT_RUN: &[&str] = &[
    "acl",
    "bgrewriteaof",
    "bgsave",
    "client",
    "cluster",
    "config",
    "debug",
    "discard",
    "exec",
    "failover",
    "flushall",
    "flushdb",
    "function",
    "hello",
    "latency",
    "module",
    "monitor",
    "multi",
    "pfselftest",
    "psync",
    "quit",
    "replconf",
    "replicaof",
    "reset",
    "save",
    "script",
    "select",
    "shutdown",
    "slaveof",
    "slowlog",
    "swapdb",
    "sync",
];
/// They work on the keyspace rather than on keys, as in Redis: whoever may run them sees every key.
const ON_ALL_KEYS: &[&str] = &["dbsize", "keys", "randomkey", "scan"];
/// They need no right to write for what they change: Redis counts a cached count, and how far a group has read, as reading.
const CHANGES_BY_READING: &[&str] = &["pfcount", "xreadgroup"];

/// They need a peer, or words that their descriptions do not tell.
const NEVER_SUCCEED: &[&str] = &["migrate", "pfdebug"];

/// Fills every kind of key, also under names that are keywords somewhere.
const SETUP: &[&str] = &[
    "SET str value",
    "SET 2 value",
    "SET num 5",
    "RPUSH list 3 1 2",
    "RPUSH by 1 2",
    "RPUSH LIMIT 1 2",
    "SADD set 1 2 3",
    "SADD WEIGHTS 1 2 3",
    "ZADD zset 1 a 2 b",
    "ZADD store 1 a 2 b",
    "HSET hash f 1 g 2",
    "HSET COUNT f 1 g 2",
    "GEOADD geo 1 1 a 2 2 b",
    "GEOADD GET 1 1 a 2 2 b",
    "PFADD hll a b",
    "XADD stream 1-1 f v",
    "XADD STREAMS 1-1 f v",
    "XADD GROUP 1-1 f v",
    "XGROUP CREATE stream STREAMS 0",
    "XGROUP CREATE STREAMS STREAMS 0",
    "XGROUP CREATE GROUP STREAMS 0",
];
const KEYS: &[&str] = &[
    "str",
    "2",
    "num",
    "list",
    "by",
    "LIMIT",
    "set",
    "WEIGHTS",
    "zset",
    "store",
    "hash",
    "COUNT",
    "geo",
    "GET",
    "hll",
    "stream",
    "STREAMS",
    "GROUP",
    "missing",
    "STOREDIST",
    "KEYS",
    "1",
    "ALPHA",
    "",
];
const STRINGS: &[&str] = &[
    "a", "f", "1", "3", "0", "v", "STREAMS", "*", "$", ">", "0-0", "1-1", "u8", "i5", "#1", "-", "+", "-inf", "(1",
    "[a", "m", "get", "store", "BY", "set", "*->f",
];

struct Calls {
    rng: Rng,
    server: Server,
    client: ClientId,
    /// A value as DUMP gives it.
    dump: Vec<u8>,
    /// What the command at hand belongs to, its keywords, and how many of ten of its options are given.
    group: Group,
    keywords: Vec<&'static str>,
    options_of_ten: u8,
}

type Words = Vec<Vec<u8>>;

impl Calls {
    fn new(seed: u64) -> Calls {
        let mut server = Server::new(Config::default(), String::new()).expect("a server");
        let client = server.clients.add(None, 0);
        let flags = ClientFlags::DENY_BLOCKING.union(ClientFlags::AUTHENTICATED);
        server.clients.get_mut(client).expect("it was added").flags.add(flags);
        let mut calls = Calls {
            rng: Rng::with_seed(seed),
            server,
            client,
            dump: Vec::new(),
            group: Group::Generic,
            keywords: Vec::new(),
            options_of_ten: 0,
        };
        calls.fill();
        calls.dump = calls.bulk_reply("DUMP list");
        calls
    }

    fn fill(&mut self) {
        self.server.ks.flush(None, false);
        for line in SETUP {
            let reply = self.run_line(line);
            assert!(!reply.starts_with(b"-"), "{line}: {}", String::from_utf8_lossy(&reply));
        }
    }

    fn run_line(&mut self, line: &str) -> Vec<u8> {
        let args = OwnedArgs::from_iter(line.split(' ').map(str::as_bytes));
        let cmd = self.server.commands.resolve_whole(args.as_args()).expect("a command");
        self.run(cmd, args.as_args())
    }

    fn bulk_reply(&mut self, line: &str) -> Vec<u8> {
        let reply = self.run_line(line);
        let head = reply.windows(2).position(|w| w == b"\r\n").expect("a bulk string") + 2;
        reply[head..reply.len() - 2].to_vec()
    }

    fn run(&mut self, cmd: CmdRef, args: Args<'_>) -> Vec<u8> {
        let mut out = Reply::new(false);
        self.server.call(self.client, cmd, args, &mut out);
        self.server.ks.effects.forget_command();
        self.server.drain_effects();
        if self.server.commands.get(cmd).row.name == "watch" {
            self.run_line("UNWATCH");
        }
        out.buf
    }

    fn one_of(&mut self, words: &[&str]) -> Vec<u8> {
        words[self.rng.usize(..words.len())].as_bytes().to_vec()
    }

    /// A key, of a type that the command at hand works on as a rule.
    fn key(&mut self) -> Vec<u8> {
        let fitting: &[&str] = match self.group {
            Group::Stream => &["stream", "STREAMS", "GROUP"],
            Group::SortedSet => &["zset", "store"],
            Group::Geo => &["geo", "GET"],
            Group::Hash => &["hash", "COUNT"],
            Group::Hyperloglog => &["hll"],
            _ => KEYS,
        };
        match self.rng.u8(..8) {
            0 if !self.keywords.is_empty() => self.keyword(),
            1..=4 => self.one_of(fitting),
            _ => self.one_of(KEYS),
        }
    }

    fn keyword(&mut self) -> Vec<u8> {
        let word = self.rng.choice(&self.keywords).copied().unwrap_or_default();
        if self.rng.bool() { word.into() } else { word.to_ascii_lowercase().into_bytes() }
    }

    /// A call as the command describes it.
    fn call_of(&mut self, row: &Command) -> Words {
        self.group = row.group;
        self.keywords = tokens(row.args);
        self.options_of_ten = self.rng.choice([1, 5, 9]).expect("not empty");
        let mut words: Words = row.name.split('|').map(|word| word.as_bytes().to_vec()).collect();
        self.add_all(row.args, &mut words);
        words
    }

    fn add_all(&mut self, args: &[Arg], words: &mut Words) {
        for (i, arg) in args.iter().enumerate() {
            let before = words.len();
            self.add(arg, words);
            // The count of keys that was given before them is right as a rule.
            let counts = i > 0 && args[i - 1].name == "numkeys" && arg.kind == ArgKind::Key;
            if counts && self.rng.u8(..8) > 0 {
                words[before - 1] = (words.len() - before).to_string().into_bytes();
            }
        }
    }

    fn add(&mut self, arg: &Arg, words: &mut Words) {
        if arg.optional && self.rng.u8(..10) >= self.options_of_ten {
            return;
        }
        let times = if arg.multiple { self.rng.usize(1..=3) } else { 1 };
        for nth in 0..times {
            if let Some(token) = arg.token.filter(|_| nth == 0 || arg.multiple_token) {
                words.push(token.as_bytes().to_vec());
            }
            match arg.kind {
                ArgKind::PureToken => {}
                ArgKind::OneOf => {
                    let chosen = self.rng.usize(..arg.args.len());
                    self.add(&Arg { optional: false, ..arg.args[chosen] }, words);
                }
                ArgKind::Block => self.add_all(arg.args, words),
                ArgKind::Key => {
                    let word = self.key();
                    words.push(word);
                }
                ArgKind::String if arg.name == "serialized-value" => words.push(self.dump.clone()),
                ArgKind::String => {
                    let word = match arg.name {
                        "group" => self.one_of(&["STREAMS"]),
                        "member" => self.one_of(&["a", "b", "1"]),
                        "id" | "last-id" => self.one_of(&["1-1", "0", "$", ">", "5-5"]),
                        "start" | "stop" | "end" | "min" | "max" => self.one_of(&["-", "+", "[a", "0", "1"]),
                        "min-idle-time" => self.one_of(&["0"]),
                        _ if !self.keywords.is_empty() && self.rng.u8(..4) == 0 => self.keyword(),
                        _ => self.one_of(STRINGS),
                    };
                    words.push(word);
                }
                ArgKind::Integer | ArgKind::UnixTime => {
                    let word = self.one_of(&["1", "0", "2", "3", "-1", "100"]);
                    words.push(word);
                }
                ArgKind::Double if arg.name.ends_with("itude") => words.push(b"1".to_vec()),
                ArgKind::Double => {
                    let word = self.one_of(&["1", "0.5", "1000"]);
                    words.push(word);
                }
                ArgKind::Pattern => {
                    let word = self.one_of(&["s*", "#", "nosort", "missing*", "*->f"]);
                    words.push(word);
                }
            }
        }
    }

    /// Does to a call what nobody expects: repeats, moves, exchanges or leaves out some of its arguments.
    fn spoil(&mut self, row: &Command, words: &mut Words) {
        let fixed = row.name.split('|').count();
        for _ in 0..self.rng.usize(..4) {
            let len = words.len();
            if len <= fixed {
                return;
            }
            let from = self.rng.usize(fixed..len);
            let to = self.rng.usize(from + 1..=(from + 3).min(len));
            match self.rng.u8(..8) {
                // An option once more, most likely with another value, where options begin, end or do not belong.
                0..=2 => {
                    let options: Vec<&Arg> = row.args.iter().filter(|arg| arg.optional).collect();
                    if let Some(option) = self.rng.choice(options) {
                        let mut piece = Words::new();
                        self.add(&Arg { optional: false, ..*option }, &mut piece);
                        let at = self.rng.choice([fixed, from, len, len]).expect("not empty");
                        drop(words.splice(at..at, piece));
                    }
                }
                3 => {
                    let piece = words[from..to].to_vec();
                    words.extend(piece);
                }
                4 => words[from..].rotate_left(to - from),
                5 => {
                    let keyword = self.keyword();
                    words.insert(from, keyword);
                }
                6 => words[from] = if self.rng.bool() { self.one_of(KEYS) } else { self.one_of(STRINGS) },
                _ => drop(words.remove(from)),
            }
        }
    }
}

/// All keywords of a command.
fn tokens(args: &[Arg]) -> Vec<&'static str> {
    let inner = args.iter().flat_map(|arg| tokens(arg.args));
    args.iter().filter_map(|arg| arg.token).chain(inner).filter(|token| !token.is_empty()).collect()
}

/// The keys that admission sees, with what the command does to them. `None`: it cannot tell.
fn admitted<'a>(row: &Command, args: Args<'a>) -> Option<BTreeMap<&'a [u8], u16>> {
    let mut keys = BTreeMap::new();
    let mut places = Vec::new();
    let is_known = row.each_key(args, |found| {
        places.push(found);
        if found.flags & key::NOT_KEY == 0 {
            *keys.entry(args.at(found.index)).or_default() |= found.flags;
        }
    });
    assert_eq!(row.keys_of(args), is_known.then_some(places));
    is_known.then_some(keys)
}

/// What is wrong with the keys that a call touched.
fn fault(row: &Command, args: Args<'_>, touched: &Touched, succeeded: bool) -> Option<String> {
    const CHANGES: u16 = key::INSERT | key::DELETE | key::UPDATE;
    let keys = admitted(row, args).unwrap_or_default();
    // Who may use patterns may read every key, which SORT asks for itself.
    let reads_any = row.name.starts_with("sort") && args.iter().any(|a| memchr::memchr(b'*', a).is_some());
    let of_any = ON_ALL_KEYS.contains(&row.name);
    let shown = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    for name in &touched.looked_up {
        if !reads_any && !of_any && !keys.contains_key(&name[..]) {
            return Some(format!("looks up {:?}", shown(name)));
        }
    }
    for name in &touched.changed {
        let flags = keys.get(&name[..]).copied();
        let may_change = flags.is_some_and(|flags| flags & CHANGES != 0 || CHANGES_BY_READING.contains(&row.name));
        if !may_change {
            return Some(format!("changes {:?}, admitted with flags {flags:?}", shown(name)));
        }
    }
    let is_told =
        !row.has(flag::WRITE) && succeeded && !touched.changed.is_empty() && !CHANGES_BY_READING.contains(&row.name);
    is_told.then(|| "is no write command but changes keys".into())
}

#[test]
fn a_call_touches_the_keys_that_admission_saw_and_no_others() {
    let mut calls = Calls::new(7);
    let table = &calls.server.commands;
    let rows: Vec<(CmdRef, &'static Command)> = table.refs().map(|cmd| (cmd, table.get(cmd).row)).collect();
    let (mut told, mut rare, mut misled) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (cmd, row) in rows {
        let container = row.name.split('|').next().unwrap_or_default();
        if row.run.is_none() || NOT_RUN.contains(&container) {
            continue;
        }
        let (mut successes, mut with_keys, mut faults) = (0, 0, 0);
        for _ in 0..if row.get_keys.is_some() { CALLS_OF_MOVABLE } else { CALLS } {
            let mut words = calls.call_of(row);
            calls.spoil(row, &mut words);
            if row.name == "migrate" {
                // No name is looked up, and nobody listens there.
                words.resize_with(words.len().max(3), Vec::new);
                (words[1], words[2]) = (b"127.0.0.1".to_vec(), b"1".to_vec());
            }
            if !row.accepts_arity(words.len()) {
                continue;
            }
            let args = OwnedArgs::from_iter(words.iter().map(Vec::as_slice));
            let args = args.as_args();
            let mut reply = Vec::new();
            let touched = touched::during(|| reply = calls.run(cmd, args));
            let succeeded = !reply.starts_with(b"-");
            successes += usize::from(succeeded);
            with_keys += usize::from(succeeded && !(touched.looked_up.is_empty() && touched.changed.is_empty()));
            if !touched.changed.is_empty() || (succeeded && row.has(flag::WRITE)) {
                calls.fill();
            }
            // Going by its specifications alone, a command of this kind is seen to touch other keys.
            let specified = Command { get_keys: None, ..*row };
            if row.get_keys.is_some() && fault(&specified, args, &touched, succeeded).is_some() {
                misled.insert(row.name);
            }
            if let Some(fault) = fault(row, args, &touched, succeeded) {
                faults += 1;
                if faults > SHOWN {
                    continue;
                }
                let line: Vec<_> = args.iter().map(|a| String::from_utf8_lossy(a).into_owned()).collect();
                told.push(format!("{line:?} {fault}"));
            }
        }
        let has_keys = row.keys.iter().any(|spec| spec.flags & key::NOT_KEY == 0);
        if has_keys && !row.has(flag::NO_MANDATORY_KEYS) && !NEVER_SUCCEED.contains(&row.name) {
            rare.extend((with_keys < 5).then(|| format!("{}: {with_keys} of {successes}", row.name)));
        }
    }
    for name in ["georadius", "georadiusbymember", "xreadgroup", "sort"] {
        assert!(misled.contains(name), "no call of {name} needs more than specifications");
    }
    assert!(rare.is_empty(), "too few successful calls that touch keys: {rare:?}");
    assert!(told.is_empty(), "{}", told.join("\n"));
}
