//! Damaged values: whatever RESTORE, a snapshot or its checker is given, it is refused or used, but nothing panics,
//! hangs or takes memory without end.
//!
//! Each run of the tests tries a fixed series of damages, the same every time. `HEXAD_FUZZ_SECONDS=600 cargo test --lib
//! persist::fuzz` goes on for so many seconds a test instead, from a new beginning each time; what makes a test fail is printed as
//! hexadecimal bytes either way.

use crate::keyspace::digest::Digest;
use crate::keyspace::hash::{Hash, HashLimits};
use crate::keyspace::list::{End, List};
use crate::keyspace::object::{self, ValueLimits};
use crate::keyspace::set::{Set, SetLimits};
use crate::keyspace::zset::{Zset, ZsetLimits};
use crate::keyspace::{Entry, Object};
use crate::persist::load::new_value;
use crate::persist::rdb::{
    AuxInfo, DumpError, DumpHow, Item, Reader, SlicedRestore, Source, Value, Writer, decode_dump, encode_dump,
};
use crate::persist::snapshot::value_view;
use crate::persist::{check_rdb, rdb};
use crate::structs::intset::Intset;
use crate::structs::listpack::Listpack;
use crate::structs::table::HashSeed;
use crate::structs::{hll, quicklist, ziplist};
use fastrand::Rng;
use std::io::{self, BufRead, Read};
use std::time::{Duration, Instant};

/// Shows what was tried when that panics.
struct OnPanic<'a>(&'a [u8]);

impl Drop for OnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let hex: String = self.0.iter().map(|b| format!("{b:02x}")).collect();
            eprintln!("while trying {hex}");
        }
    }
}

/// Calls `f` with sources of chance: so many times, or for as long as the environment says.
fn for_a_while(times: u64, mut f: impl FnMut(&mut Rng)) {
    let seconds = std::env::var("HEXAD_FUZZ_SECONDS").ok().and_then(|s| s.parse().ok());
    match seconds {
        None => (0..times).for_each(|n| f(&mut Rng::with_seed(n))),
        Some(seconds) => {
            let end = Instant::now() + Duration::from_secs(seconds);
            let mut rng = Rng::new();
            while Instant::now() < end {
                f(&mut rng);
            }
        }
    }
}

/// Damages bytes in one to four places.
fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    const TELLING: [u8; 12] = [0, 1, 2, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xc0, 0xf0, 0xfe, 0xff];
    for _ in 0..rng.usize(1..=4) {
        if bytes.is_empty() {
            bytes.push(rng.u8(..));
        }
        let at = rng.usize(..bytes.len());
        match rng.u8(..10) {
            0 | 1 => bytes[at] ^= 1 << rng.u8(..8),
            2 => bytes[at] = rng.u8(..),
            3 | 4 => bytes[at] = TELLING[rng.usize(..TELLING.len())],
            5 => bytes[at] = bytes[at].wrapping_add(if rng.bool() { 1 } else { 255 }),
            6 => bytes.insert(at, TELLING[rng.usize(..TELLING.len())]),
            7 => drop(bytes.remove(at)),
            8 => {
                let word = if rng.bool() { rng.u32(..) } else { rng.u32(..300) };
                bytes.iter_mut().skip(at).zip(word.to_le_bytes()).for_each(|(b, w)| *b = w);
            }
            _ => {
                let end = rng.usize(at..bytes.len().min(at + 20));
                let part = bytes[at..end].to_vec();
                let to = rng.usize(..=bytes.len());
                bytes.splice(to..to, part);
            }
        }
    }
}

fn limits(rng: &mut Rng) -> ValueLimits {
    let seed = HashSeed([7; 16]);
    let packed = [2, 8, 128][rng.usize(..3)];
    ValueLimits {
        list: quicklist::Limits {
            fill: [-2, -1, 3][rng.usize(..3)],
            plain_from: [1 << 30, 30][rng.usize(..2)],
            compress_depth: rng.usize(..3),
        },
        set: SetLimits { ints: packed, packed, packed_value: 64, seed },
        hash: HashLimits { packed, packed_value: 64, seed },
        zset: ZsetLimits { packed, packed_value: 64, seed },
    }
}

const SAMPLE_LIMITS: ValueLimits = ValueLimits {
    list: quicklist::Limits { fill: 8, plain_from: 100, compress_depth: 1 },
    set: SetLimits { ints: 20, packed: 10, packed_value: 64, seed: HashSeed([1; 16]) },
    hash: HashLimits { packed: 10, packed_value: 64, seed: HashSeed([1; 16]) },
    zset: ZsetLimits { packed: 10, packed_value: 64, seed: HashSeed([1; 16]) },
};

fn text(n: usize) -> Vec<u8> {
    match n % 5 {
        0 => n.to_string().into_bytes(),
        1 => format!("element {n}").into_bytes(),
        2 => (n as i64 * -1_000_003).to_string().into_bytes(),
        3 => vec![b'a' + (n % 20) as u8; 20 + n],
        _ => Vec::new(),
    }
}

/// Values of every kind and encoding, as they are written now.
fn entries() -> Vec<Entry> {
    let mut entries = vec![
        Entry::new(b"int", crate::structs::entry::NewValue::Int(-7), None),
        Entry::new(b"str", crate::structs::entry::NewValue::Str(&[b'x'; 80]), None),
        Entry::new(b"hll", crate::structs::entry::NewValue::Str(&hll::empty()), None),
    ];
    for len in [3, 9, 70] {
        let mut list = List::new();
        let mut set = Set::new();
        let mut ints = Set::new();
        let mut hash = Hash::new();
        let mut zset = Zset::new();
        for n in 0..len {
            let text = text(n);
            list.will_grow(text.len(), 1, SAMPLE_LIMITS.list);
            list.push(End::Tail, &text, SAMPLE_LIMITS.list);
            set.add(&text, &SAMPLE_LIMITS.set);
            ints.add((n * n * 37).to_string().as_bytes(), &SAMPLE_LIMITS.set);
            hash.will_grow([&text[..], b"value"].into_iter(), &SAMPLE_LIMITS.hash);
            hash.set(&text, b"value", &SAMPLE_LIMITS.hash);
            zset.set(&text, (n * n % 13) as f64 / 4.0, &SAMPLE_LIMITS.zset);
        }
        entries.push(Entry::new(b"list", list.into(), None));
        entries.push(Entry::new(b"set", set.into(), None));
        entries.push(Entry::new(b"ints", ints.into(), None));
        entries.push(Entry::new(b"hash", hash.into(), None));
        entries.push(Entry::new(b"zset", zset.into(), None));
    }
    entries
}

/// A ziplist of these short texts.
fn ziplist(texts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![0; 10];
    let (mut tail, mut before) = (10, 0);
    for text in texts {
        tail = out.len();
        out.push(before);
        match text {
            [digit @ b'1'..=b'9'] => out.push(0xf1 + (digit - b'0')),
            _ => {
                out.push(text.len() as u8);
                out.extend_from_slice(text);
            }
        }
        before = (out.len() - tail) as u8;
    }
    out.push(0xff);
    let total = out.len() as u32;
    out[..4].copy_from_slice(&total.to_le_bytes());
    out[4..8].copy_from_slice(&(tail as u32).to_le_bytes());
    out[8..10].copy_from_slice(&(texts.len() as u16).to_le_bytes());
    out
}

/// Payloads without their last ten bytes: of the values above, and in the layouts of old.
fn payloads() -> Vec<Vec<u8>> {
    let mut payloads: Vec<Vec<u8>> = entries()
        .iter()
        .flat_map(|entry| [false, true].map(|compress| (entry, compress)))
        .map(|(entry, compress)| {
            let mut out = Vec::new();
            encode_dump(&mut out, value_view(entry), compress);
            out.truncate(out.len() - 10);
            out
        })
        .collect();
    let mut old = |kind: u8, parts: &[&[u8]]| {
        let mut out = vec![kind];
        for part in parts {
            rdb::put_string(&mut out, part, false);
        }
        payloads.push(out);
    };
    let list = ziplist(&[b"a", b"5", b"", b"long enough"]);
    let scored = ziplist(&[b"a", b"1", b"b", b"2.5", b"c", b"3"]);
    let (list_type, zipmap, zset, hash, quick) = (10, 9, 12, 13, 14);
    old(list_type, &[&list]);
    old(hash, &[&list]);
    old(zset, &[&scored]);
    old(zipmap, &[b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world!!\xff"]);
    payloads.push([&[quick, 2, list.len() as u8], &list[..], &[scored.len() as u8], &scored].concat());
    for (kind, body) in [
        (1, &b"\x03\x01a\x021x\xc0\x05"[..]),
        (2, b"\x03\x01a\x021x\xc0\x05"),
        (3, b"\x02\x01a\x031.5\x01b\xff"),
        (4, b"\x02\x01a\x021x\x01b\xc1\x05\x05"),
        (5, b"\x02\x01a12345678\x01b\x00\x00\x00\x00\x00\x00\xf0\x3f"),
        (17, b"\x0c\x0c\x00\x00\x00\x02\x00\x81a\x02\x03\x01\xff"),
    ] {
        payloads.push([&[kind], body].concat());
    }
    payloads.push(STREAM.to_vec());
    payloads
}

/// `DUMP` of a 7.2 server: a stream of five entries without its second, with a group that has read three.
const STREAM: &[u8] = b"\x15\x01\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\xc3@N@j\x12j\0\0\0$\0\x04\x01\x01\x01\x02\
    \x01\x81f\x02\x81g\x02\0 \x09\0\0 \x01\x0b\x01\x01\x85hello\x06\x05\x01\x03 \x0c@\x16\xe0\0\x10\0\x02 \x01\0\0 \
    \x16\xe0\x02\x10\0\x03 \x10\0\x04\xe0\x03\x10\0\x04 \x10\0\x05\xe0\0\x10\x01\x01\xff\x04\x05\x01\x01\x01\x02\x01\x05\
    \x01\x01g\x03\x01\x03\x03\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\xb9\x09\xdf\x03\xa2\x01\0\0\x01\0\0\0\0\0\0\0\x02\
    \0\0\0\0\0\0\0\x01\xb9\x09\xdf\x03\xa2\x01\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\xb9\x09\xdf\x03\xa2\x01\0\0\
    \x01\x01\x01c\xb9\x09\xdf\x03\xa2\x01\0\0\xb9\x09\xdf\x03\xa2\x01\0\0\x03\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\
    \0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01";

fn with_footer(mut payload: Vec<u8>) -> Vec<u8> {
    payload.extend_from_slice(&[11, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    payload
}

/// Does with a value what commands do.
fn use_value(mut entry: Entry, limits: &ValueLimits, rng: &mut Rng) {
    look_at(&entry, limits);
    drop(Entry::new(b"copy", object::duplicate(&entry), None));
    if let Some(mut bytes) = entry.make_raw_mut() {
        if hll::encoding(&bytes).is_some() {
            let _ = hll::count(&bytes);
            let _ = hll::add(&mut bytes, &[rng.u8(..)], 3000);
        }
        return;
    }
    for n in 0..20 {
        let text = text(rng.usize(..80));
        match entry.object_mut() {
            Some(Object::List(list)) if !list.is_empty() => use_list(list, n, &text, limits.list, rng),
            Some(Object::Set(set)) => use_set(set, n, &text, &limits.set),
            Some(Object::Hash(hash)) => use_hash(hash, n, &text, &limits.hash),
            Some(Object::Zset(zset)) => use_zset(zset, n, &text, &limits.zset, rng),
            Some(Object::Stream(stream)) => stream.check_invariants(),
            _ => {}
        }
    }
    let emptied = match entry.object() {
        Some(Object::List(list)) => list.is_empty(),
        Some(Object::Set(set)) => set.is_empty(),
        Some(Object::Hash(hash)) => hash.is_empty(),
        Some(Object::Zset(zset)) => zset.is_empty(),
        _ => false,
    };
    if !emptied {
        look_at(&entry, limits);
    }
}

fn look_at(entry: &Entry, limits: &ValueLimits) {
    object::type_name(entry);
    object::encoding_name(entry);
    object::value_bytes_sampled(entry, 5);
    object::free_effort(entry);
    Digest::default().add_value(entry);
    let mut out = Vec::new();
    encode_dump(&mut out, value_view(entry), true);
    let again = decode_dump(&out, &how(false, limits)).expect("what is written is read back");
    if let Some(Object::Damaged(damaged)) = entry.object() {
        assert_eq!(again, Value::Damaged(damaged.clone()));
    }
}

fn use_list(list: &mut List, n: usize, text: &[u8], limits: quicklist::Limits, rng: &mut Rng) {
    let at = rng.usize(..list.len());
    list.will_grow(text.len(), 1, limits);
    match n % 7 {
        0 => list.push(End::Head, text, limits),
        1 => list.push(End::Tail, text, limits),
        2 => list.insert(at, text, limits),
        3 => drop(list.set(at, text, limits)),
        4 => drop(list.remove_matching(text, 2, rng.bool())),
        5 => drop(list.pop(if rng.bool() { End::Head } else { End::Tail }, |item| item.to_vec())),
        _ => list.remove_range(at, rng.usize(..3)),
    }
    list.did_shrink(limits);
    assert_eq!(list.walk_back(list.len().wrapping_sub(1)).position(|_| false), None);
}

fn use_set(set: &mut Set, n: usize, text: &[u8], limits: &SetLimits) {
    match n % 3 {
        0 => drop(set.add(text, limits)),
        1 => drop(set.remove(text)),
        _ => drop(set.pop_random()),
    }
    set.scan(0, 10, &mut |_| ());
    set.random();
    assert!(set.iter().count() == set.len());
}

fn use_hash(hash: &mut Hash, n: usize, text: &[u8], limits: &HashLimits) {
    match n % 3 {
        0 => {
            hash.will_grow([text, text].into_iter(), limits);
            hash.set(text, text, limits);
        }
        1 => drop(hash.remove(text)),
        _ => drop(hash.get(text)),
    }
    hash.scan(0, 10, &mut |_, _| ());
    hash.random();
    assert!(hash.iter().count() == hash.len());
}

fn use_zset(zset: &mut Zset, n: usize, text: &[u8], limits: &ZsetLimits, rng: &mut Rng) {
    match n % 5 {
        0 => drop(zset.remove(text)),
        1 => zset.remove_range(rng.usize(..8), rng.usize(..3), &mut |_, _| ()),
        _ => drop(zset.set(text, f64::from(rng.i8(..)), limits)),
    }
    zset.rank(text);
    zset.scan(0, 10, &mut |_, _| ());
    zset.random();
    zset.partition_point(|score, _| score < 1.0);
    assert!(zset.range(zset.len().wrapping_sub(1), zset.len(), true).count() == zset.len());
    assert!(zset.iter().count() == zset.len());
}

fn how(deep: bool, limits: &ValueLimits) -> DumpHow {
    DumpHow { newer: false, skip_checksum: true, deep, limits: *limits }
}

/// What a payload comes to with a small window, a part in each slice.
fn restored_in_slices(payload: &[u8], how: &DumpHow, rng: &mut Rng) -> Result<Value, DumpError> {
    let mut sliced = SlicedRestore::new(*how).fed(1 + rng.u64(..40));
    loop {
        if let Some(value) = sliced.step(payload, Instant::now()) {
            return value;
        }
    }
}

#[test]
fn damaged_payloads() {
    let payloads = payloads();
    let (mut used, mut kept, mut refused) = (0, 0, 0);
    for_a_while(12_000, |rng| {
        let mut payload = payloads[rng.usize(..payloads.len())].clone();
        damage(&mut payload, rng);
        let payload = with_footer(payload);
        let _shown = OnPanic(&payload);
        let limits = limits(rng);
        let how = how(rng.bool(), &limits);
        let value = decode_dump(&payload, &how);
        assert_eq!(restored_in_slices(&payload, &how, rng), value);
        match value {
            Ok(value) => {
                used += 1;
                kept += u64::from(matches!(value, Value::Damaged(_)));
                if let Some(value) = new_value(value, &limits) {
                    use_value(Entry::new(b"key", value, None), &limits, rng);
                }
            }
            Err(_) => refused += 1,
        }
    });
    assert!(used > 100 && kept > 100 && refused > 100, "{used} used, {kept} of them damaged, {refused} refused");
}

#[test]
fn sound_payloads_are_taken() {
    for payload in payloads() {
        let payload = with_footer(payload);
        let _shown = OnPanic(&payload);
        let mut rng = Rng::with_seed(1);
        let limits = limits(&mut rng);
        let value = decode_dump(&payload, &how(true, &limits)).expect("a sound payload");
        use_value(Entry::new(b"key", new_value(value, &limits).expect("not empty"), None), &limits, &mut rng);
    }
}

#[test]
fn damaged_blobs() {
    let list = {
        let mut list = Listpack::new();
        for n in 0..40 {
            list.push_back(&text(n));
        }
        list.into_bytes()
    };
    let ints: Vec<u8> =
        [8u32, 4].iter().flat_map(|n| n.to_le_bytes()).chain((0i64..4).flat_map(i64::to_le_bytes)).collect();
    let old = ziplist(&[b"a", b"5", b"", b"long enough", b"7"]);
    let map = b"\x02\x03foo\x03\x00bar\x05hello\x05\x02world!!\xff".to_vec();
    for_a_while(40_000, |rng| {
        let mut bytes = [&list, &ints, &old, &map][rng.usize(..4)].clone();
        damage(&mut bytes, rng);
        let _shown = OnPanic(&bytes);
        if let Ok(list) = Listpack::from_bytes(bytes.clone()) {
            assert_eq!(list.iter().count(), list.len());
            assert!(list.iter().rev().count() == list.len());
            (0..list.len()).for_each(|i| assert!(list.seek(i as i64).is_some()));
        }
        if let Ok(ints) = Intset::from_bytes(bytes.clone()) {
            assert!(ints.iter().is_sorted());
        }
        let _ = ziplist::read_ziplist(&bytes);
        let _ = ziplist::read_zipmap(&bytes);
        let _ = crate::structs::lzf::decompress(&bytes, rng.usize(..100_000));
    });
}

/// Bytes that come by and by.
struct Trickle<'a> {
    bytes: &'a [u8],
    at: usize,
    kept: usize,
    arrived: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        unreachable!("a snapshot is read from the buffer")
    }
}

impl BufRead for Trickle<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.arrived && self.arrived < self.bytes.len() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.bytes[self.at..self.arrived])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

impl Source for Trickle<'_> {
    fn keep(&mut self) {
        self.kept = self.at;
    }

    fn go_back(&mut self) -> bool {
        self.at = self.kept;
        true
    }
}

/// What is in a snapshot, and how it ends. `more` is called when the source has no more.
fn items<S: Source>(mut reader: Reader<S>, mut more: impl FnMut(&mut S)) -> (Vec<Item>, Option<String>) {
    let mut items = Vec::new();
    loop {
        match reader.next_item() {
            Ok(Item::Part) => {}
            Ok(Item::Starved) => more(reader.source_mut()),
            Ok(item @ Item::End { .. }) => {
                items.push(item);
                return (items, None);
            }
            Ok(item) => items.push(item),
            Err(e) => return (items, Some(format!("{:?} {}", e.kind, e.offset))),
        }
    }
}

#[test]
fn a_damaged_snapshot_is_the_same_however_it_comes() {
    let sound = snapshot();
    for_a_while(1_500, |rng| {
        let mut bytes = sound.clone();
        if rng.u8(..8) > 0 {
            damage(&mut bytes, rng);
        }
        let _shown = OnPanic(&bytes);
        let (limits, deep) = (limits(rng), rng.bool());
        let whole = items(Reader::new(&bytes[..], true).deep(deep).limits(&limits), |_| unreachable!("all is there"));
        let trickle = Trickle { bytes: &bytes, at: 0, kept: 0, arrived: 0 };
        let most = [3, 50, 2000][rng.usize(..3)];
        let parts = items(Reader::new(trickle, true).deep(deep).limits(&limits), |trickle| {
            trickle.arrived = bytes.len().min(trickle.arrived + rng.usize(1..=most));
        });
        assert!(parts == whole, "{parts:?}\n{whole:?}");
    });
}

/// A snapshot of values of every kind.
fn snapshot() -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), true, true);
    let info = AuxInfo { redis_version: "7.2.6", ctime_s: 1, used_memory: 2, repl: None, aof_base: false };
    writer.header(&info).unwrap();
    writer.select_db(0, 15, 1).unwrap();
    writer.expire_ms(1_700_000_000_123);
    for entry in entries() {
        writer.key(entry.key(), value_view(&entry)).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn damaged_snapshots() {
    let sound = snapshot();
    for_a_while(1_500, |rng| {
        let mut bytes = sound.clone();
        damage(&mut bytes, rng);
        let _shown = OnPanic(&bytes);
        let limits = limits(rng);
        let mut reader = Reader::new(&bytes[..], false).deep(rng.bool()).limits(&limits);
        while let Ok(item) = reader.next_item() {
            match item {
                Item::Key(key) => {
                    if let Some(value) = new_value(key.value, &limits) {
                        use_value(Entry::new(&key.key, value, key.expire_ms), &limits, rng);
                    }
                }
                Item::End { .. } => break,
                _ => {}
            }
        }
        let mut report = Vec::new();
        check_rdb::check(&bytes[..], "damaged.rdb", &mut report).expect("a report");
    });
}
