//! Tests of loading what comes in pieces.

use super::*;
use crate::config::Config;
use crate::keyspace::Keyspace;
use crate::persist::load::LoadOptions;
use crate::persist::rdb::{AuxInfo, ErrorKind, ReplInfo, ValueView, Writer};
use crate::structs::entry::ValueRef;
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
    // The library ends a slice of its own, and so does the end.
    assert_eq!(bench.pauses, 8 + 2 + 11);
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
