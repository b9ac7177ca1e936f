//! Tests of loading what comes in pieces.

use super::*;
use crate::config::Config;
use crate::keyspace::digest::Digest;
use crate::keyspace::hash::Hash;
use crate::keyspace::list::{End, List};
use crate::keyspace::object::ValueLimits;
use crate::keyspace::set::Set;
use crate::keyspace::zset::Zset;
use crate::keyspace::{Keyspace, Object};
use crate::persist::load::LoadOptions;
use crate::persist::rdb::{AuxInfo, ErrorKind, ReplInfo, ValueView, Writer, encode_dump, put_string};
use crate::persist::snapshot::value_view;
use crate::structs::entry::ValueRef;
use crate::structs::listpack::{Item as Packed, Listpack};
use crate::structs::stream::{self, Pending, Stream, StreamId};
use crate::structs::table::HashSeed;
use crate::sys::clock::Clock;

const MARK: &[u8] = &[b'm'; 40];

/// Ten short strings, a long one, and a library.
fn sample() -> Vec<u8> {
    let repl = ReplInfo { stream_db: 3, id: vec![b'f'; 40], offset: 77 };
    let mut w = Writer::new(Vec::new(), true, true);
    let info = AuxInfo { redis_version: "7.2.6", ctime_s: 1, used_memory: 2, repl: Some(&repl), aof_base: false };
    w.header(&info).unwrap();
    w.function(b"#!lua name=x\n").unwrap();
    w.select_db(3, 11, 0).unwrap();
    for i in 0..10 {
        w.key(format!("key:{i}").as_bytes(), ValueView::Str(format!("value {i}").as_bytes())).unwrap();
    }
    let long: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect();
    w.key(b"long", ValueView::Str(&long)).unwrap();
    w.finish().unwrap()
}

/// A value of each kind that is read in parts, as they are written for replicas.
fn large_values() -> Vec<u8> {
    let limits = ValueLimits::default();
    let (mut list, mut set, mut hash, mut zset) = (List::new(), Set::new(), Hash::new(), Zset::new());
    let mut stream = Stream::new();
    let node = stream::Limits { node_bytes: 4096, node_entries: 100 };
    for n in 0..3000u32 {
        let text = match n {
            1000 | 2017 => (0..300_000u32).map(|i| (i.wrapping_mul(i + n) >> 7) as u8).collect(),
            1500 => format!("compressed {n}").repeat(40_000).into_bytes(),
            _ => format!("element {n}").into_bytes(),
        };
        list.will_grow(text.len(), 1, limits.list);
        list.push(End::Tail, &text, limits.list);
        set.will_grow(1000, &limits.set);
        set.add(&text, &limits.set);
        hash.will_grow([&text[..], &text].into_iter(), &limits.hash);
        hash.set(&text, if n % 2 == 0 { &text } else { b"short" }, &limits.hash);
        zset.will_grow(1000, &limits.zset);
        zset.set(&text, f64::from(n % 77), &limits.zset);
        let fields = [(&b"field"[..], &text[..])];
        stream.log.append(StreamId::new(u64::from(n), 1), 1, text.len(), fields.into_iter(), node);
    }
    for name in [&b"a"[..], b"b"] {
        stream.create_group(name, StreamId::new(500, 1), 500);
        let Some((_, group)) = stream.group_mut(name) else { panic!() };
        let owners = [&b"one"[..], b"two"].map(|name| group.create_consumer(name, 7).unwrap());
        for n in 0..400 {
            let pending = Pending { time_ms: 9, deliveries: n, owner: owners[n as usize % 2] };
            group.assign(StreamId::new(n, 1), pending);
        }
    }
    let mut w = Writer::new(Vec::new(), true, true);
    let info = AuxInfo { redis_version: "7.2.6", ctime_s: 1, used_memory: 2, repl: None, aof_base: false };
    w.header(&info).unwrap();
    w.select_db(0, 7, 0).unwrap();
    let text = b"what is compressed ".repeat(50_000);
    for (key, value) in [
        (&b"string"[..], ValueView::Str(&text)),
        (b"list", ValueView::List(&list)),
        (b"set", ValueView::Set(&set)),
        (b"hash", ValueView::Hash(&hash)),
        (b"zset", ValueView::Zset(&zset)),
        (b"stream", ValueView::Stream(&stream)),
    ] {
        w.key(key, value).unwrap();
    }
    w.finish().unwrap()
}

/// A list whose second node is broken, and after it a stream of which the same is true; a string comes last.
fn damaged_values() -> Vec<u8> {
    let nodes = |put_id: bool| {
        let mut bytes = Vec::new();
        for n in 0..200u32 {
            let mut list = Listpack::new();
            if put_id {
                let head = [1i64, 0, 1].map(Packed::Int).into_iter().chain([Packed::Str(b"f"), Packed::Int(0)]);
                let entry = [2i64, 0, 0].map(Packed::Int).into_iter().chain([Packed::Str(b"v"), Packed::Int(4)]);
                list.push_items(head.chain(entry));
                put_string(&mut bytes, &StreamId::new(u64::from(n), 0).to_bytes(), false);
            } else {
                list.push_back(format!("element {n}").as_bytes());
                bytes.push(2);
            }
            let mut raw = list.into_bytes();
            if n == 1 {
                raw[8] = 0xf5;
            }
            put_string(&mut bytes, &raw, false);
        }
        bytes
    };
    let (list, stream) = (nodes(false), nodes(true));
    let end = [0x40, 200, 0x40, 199, 0, 0, 0, 0, 0, 0x40, 200, 0];
    [
        &b"REDIS0011\x12\x04list\x40\xc8"[..],
        &list,
        b"\x15\x06stream\x40\xc8",
        &stream,
        &end,
        b"\0\x04last\x01v\xff",
        &[0; 8],
    ]
    .concat()
}

/// What the values of a database are when they are dumped.
fn dumped(ks: &Keyspace) -> Vec<(&'static str, Vec<u8>)> {
    let keys = ["string", "list", "set", "hash", "zset", "stream", "last"];
    let dump = |key: &'static str| {
        let entry = ks.dbs[0].get(key.as_bytes())?;
        let mut out = Vec::new();
        match entry.object() {
            // The order of what is in tables is not that of the file.
            Some(Object::Set(_) | Object::Hash(_)) => {
                let mut digest = Digest::default();
                digest.add_value(entry);
                out = format!("{digest:?}").into_bytes();
            }
            _ => encode_dump(&mut out, value_view(entry), true),
        }
        Some((key, out))
    };
    keys.into_iter().filter_map(dump).collect()
}

/// Loads what comes in pieces of these sizes, with slices of so much time. Gives how often others had their turn, too.
fn loaded_in_pieces(all: &[u8], sizes: &mut dyn FnMut() -> usize, time: Duration) -> (Bench, usize) {
    let mut bench = Bench::new();
    let mut load = bench.load(Some(all.len() as u64), None);
    let mut rest = all;
    let mut position = None;
    while !rest.is_empty() {
        assert_eq!(position, None);
        let piece;
        (piece, rest) = rest.split_at(sizes().min(rest.len()));
        assert_eq!(load.take(piece), piece.len());
        position = bench.go_on(&mut load, time).unwrap();
    }
    assert!(position.is_some());
    let pauses = bench.pauses;
    (bench, pauses)
}

#[test]
fn a_value_goes_on_where_it_stopped() {
    for (all, keys) in [(large_values(), 6), (damaged_values(), 3)] {
        let (whole, _) = loaded_in_pieces(&all, &mut || usize::MAX, Duration::MAX / 4);
        let expected = dumped(&whole.ks);
        assert_eq!(expected.len(), keys);
        let mut rng = fastrand::Rng::with_seed(5);
        for most in [200, 3000, 50_000, 1 << 20] {
            let (bench, _) = loaded_in_pieces(&all, &mut || rng.usize(1..=most), Duration::MAX / 4);
            assert!(dumped(&bench.ks) == expected, "pieces of {most} bytes at most");
        }
        let (bench, pauses) = loaded_in_pieces(&all, &mut || usize::MAX, Duration::ZERO);
        assert!(dumped(&bench.ks) == expected);
        assert!(pauses > all.len() / 100_000, "{pauses}");
    }
}

#[test]
fn a_value_is_read_in_short_parts() {
    // Sizes of what is read between two looks at the clock.
    let all = large_values();
    let bench = Bench::new();
    let mut load = bench.load(Some(all.len() as u64), None);
    load.take(&all);
    let (mut ks, clock) = (bench.ks, Clock::new());
    let mut before = 0;
    loop {
        let mut slice = Slice::new(load.snapshot().offset(), 0, Duration::ZERO);
        let mut env = Env { ks: &mut ks, aside: None, clock: &clock, delay_us: 0 };
        if let FeedStep::Done(_) = load.step(&mut env, &mut slice).unwrap() {
            break;
        }
        let offset = load.snapshot().offset();
        assert!(offset - before < 200_000, "{} bytes at once", offset - before);
        before = offset;
    }
}

struct Bench {
    ks: Keyspace,
    cfg: Config,
    libraries: usize,
    pauses: usize,
}

impl Bench {
    fn new() -> Bench {
        Bench { ks: Keyspace::new(16, false, HashSeed([0; 16])), cfg: Config::default(), libraries: 0, pauses: 0 }
    }

    fn load(&self, length: Option<u64>, mark: Option<&[u8]>) -> FeedLoad {
        let how = How::new(LoadOptions::default(), &self.cfg, &self.ks, false, 0);
        FeedLoad::new(&how, length, mark.map(<[u8]>::to_vec))
    }

    /// Goes on as far as the bytes go.
    fn go_on(&mut self, load: &mut FeedLoad, time: Duration) -> Result<Option<LoadedRepl>, FeedError> {
        while load.may_go_on(Instant::now()) {
            let mut slice = Slice::new(load.snapshot().offset(), 0, time);
            let mut env = Env { ks: &mut self.ks, aside: None, clock: &Clock::new(), delay_us: 0 };
            match load.step(&mut env, &mut slice)? {
                FeedStep::Pause => self.pauses += 1,
                FeedStep::Starved => {}
                FeedStep::Asks(Asks::Library(_)) => self.libraries += 1,
                FeedStep::Asks(other) => panic!("{other:?}"),
                FeedStep::Done(position) => return Ok(Some(position)),
            }
        }
        Ok(None)
    }

    fn check(&self) {
        assert_eq!((self.ks.dbs[3].len(), self.libraries), (11, 1));
        let Some(ValueRef::Str { bytes, .. }) = self.ks.dbs[3].get(b"long").map(|e| e.value()) else { panic!() };
        assert_eq!(bytes.len(), 200_000);
    }
}

#[test]
fn pieces_of_any_size_make_the_same_data_set() {
    let all = [&sample()[..], MARK].concat();
    for size in [1, 7, 100, 5000, 70_000, all.len()] {
        let mut bench = Bench::new();
        let mut load = bench.load(None, Some(MARK));
        let mut position = None;
        for piece in all.chunks(size) {
            assert_eq!(position, None);
            assert_eq!(load.take(piece), piece.len());
            position = bench.go_on(&mut load, Duration::MAX / 4).unwrap();
        }
        while position.is_none() {
            // The long item waits a while before it is tried again.
            std::thread::sleep(Duration::from_millis(1));
            position = bench.go_on(&mut load, Duration::MAX / 4).unwrap();
        }
        assert_eq!(position.unwrap().offset, Some(77), "{size}");
        assert_eq!(load.snapshot().counts().keys, 11);
        bench.check();
    }
}

#[test]
fn a_slice_without_time_takes_one_item() {
    let all = sample();
    let mut bench = Bench::new();
    let mut load = bench.load(Some(all.len() as u64), None);
    load.take(&all);
    assert!(bench.go_on(&mut load, Duration::ZERO).unwrap().is_some());
    // The library ends a slice of its own, and so does the end. The long string is read in two parts.
    assert_eq!(bench.pauses, 8 + 2 + 11 + 1);
    bench.check();
}

#[test]
fn what_follows_the_length_is_not_taken() {
    let all = sample();
    let mut bench = Bench::new();
    let mut load = bench.load(Some(all.len() as u64), None);
    assert_eq!(load.take(&[&all[..], b"*1\r\n$4\r\nPING\r\n"].concat()), all.len());
    assert!(bench.go_on(&mut load, Duration::MAX / 4).unwrap().is_some());
    bench.check();
}

#[test]
fn an_end_too_early_is_an_error() {
    let all = sample();
    for n in (0..all.len()).step_by(997) {
        let mut bench = Bench::new();
        let mut load = bench.load(None, Some(MARK));
        load.take(&all[..n]);
        assert!(bench.go_on(&mut load, Duration::MAX / 4).unwrap().is_none());
        assert_eq!(load.receive(|_| Ok(0)).unwrap(), 0);
        let Err(FeedError::Snapshot(e)) = bench.go_on(&mut load, Duration::MAX / 4) else { panic!("{n}") };
        assert!(matches!(e.kind, ErrorKind::Eof), "{n}: {e}");
    }
    let mut bench = Bench::new();
    let mut load = bench.load(None, Some(MARK));
    load.take(&all[..300]);
    assert!(bench.go_on(&mut load, Duration::MAX / 4).unwrap().is_none());
    load.fail(io::ErrorKind::TimedOut);
    let Err(FeedError::Snapshot(e)) = bench.go_on(&mut load, Duration::MAX / 4) else { panic!() };
    assert!(matches!(&e.kind, ErrorKind::Io(e) if e.kind() == io::ErrorKind::TimedOut), "{e}");
}

#[test]
fn another_mark_is_an_error() {
    let all = sample();
    for wrong in [&b"x"[..], &[MARK, b"x"].concat()[1..]] {
        let mut bench = Bench::new();
        let mut load = bench.load(None, Some(MARK));
        load.take(&[&all[..], wrong].concat());
        assert!(matches!(bench.go_on(&mut load, Duration::MAX / 4), Err(FeedError::Mark)));
    }
}

#[test]
fn a_large_item_is_not_tried_again_and_again() {
    let now = Instant::now();
    let tried = |len| Tried { len, at: now };
    assert!(!tried(100).is_over(100, now));
    assert!(tried(100).is_over(101, now));
    let large = 10 << 20;
    assert!(!tried(large).is_over(large + (1 << 20), now));
    assert!(tried(large).is_over(2 * large, now));
    assert!(tried(large).is_over(large + 1, now + Duration::from_secs(1)));
    assert!(!tried(large).is_over(large, now + Duration::from_secs(1)));
}
