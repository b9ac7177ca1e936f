//! Benchmarks of what every request pays for, one structure or codec at a time: `cargo bench`, or `make bench` for these and
//! the whole server. Figures are wall-clock times, so run them on a quiet machine.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use hexad::resp::{Limits, Parsed, Reply, RequestParser};
use hexad::structs::entry::{Entry, NewValue};
use hexad::structs::listpack::Listpack;
use hexad::structs::ordered::OrderedSet;
use hexad::structs::table::{HashSeed, Table, TableEntry};
use hexad::structs::{crc64, glob, lzf};
use std::convert::Infallible;
use std::hint::black_box;

type Key = Entry<Infallible>;

const SEED: HashSeed = HashSeed(*b"sixteen byte key");

fn key(i: usize) -> Vec<u8> {
    format!("key:{i:012}").into_bytes()
}

fn entry(i: usize) -> Key {
    Entry::new(&key(i), NewValue::Str(b"a value of thirty-two bytes long"), None)
}

fn filled(len: usize) -> Table<Key> {
    let mut table = Table::new(SEED);
    (0..len).for_each(|i| table.insert_new(entry(i)));
    table
}

/// A cheap sequence that touches keys in no order.
fn scattered(i: &mut usize, len: usize) -> usize {
    *i = i.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*i >> 20) % len
}

fn tables(c: &mut Criterion) {
    let mut group = c.benchmark_group("table");
    for len in [1_000, 100_000, 2_000_000] {
        let mut table = filled(len);
        let keys: Vec<Vec<u8>> = (0..len).map(key).collect();
        let mut at = 1;
        group.bench_function(BenchmarkId::new("get", len), |b| {
            b.iter(|| table.get(&keys[scattered(&mut at, len)]).map(Key::has_expire))
        });
        group.bench_function(BenchmarkId::new("get a missing key", len), |b| {
            let missing: Vec<Vec<u8>> = (0..1000).map(|i| key(len + i)).collect();
            b.iter(|| table.get(&missing[scattered(&mut at, 1000)]).is_some())
        });
        group.bench_function(BenchmarkId::new("overwrite in place", len), |b| {
            b.iter(|| match table.entry(&keys[scattered(&mut at, len)]) {
                TableEntry::Occupied(mut place) => {
                    place.get_mut().set_value(NewValue::Str(b"another one of thirty-two bytes."))
                }
                TableEntry::Vacant(_) => unreachable!("every key is there"),
            })
        });
    }
    group.bench_function("insert, growing from nothing", |b| {
        b.iter_batched(|| (0..10_000).map(entry).collect::<Vec<_>>(), fill_from, BatchSize::LargeInput)
    });
    group.finish();
}

fn fill_from(entries: Vec<Key>) -> Table<Key> {
    let mut table = Table::new(SEED);
    entries.into_iter().for_each(|e| table.insert_new(e));
    table
}

fn protocol(c: &mut Criterion) {
    let mut group = c.benchmark_group("protocol");
    let request = b"*3\r\n$3\r\nSET\r\n$16\r\nkey:000000001234\r\n$32\r\na value of thirty-two bytes long\r\n";
    let pipeline = request.repeat(16);
    let limits = Limits { max_bulk_len: 512 << 20, unauthenticated: false };
    group.throughput(Throughput::Elements(16));
    group.bench_function("parse 16 pipelined SETs", |b| {
        let mut parser = RequestParser::default();
        b.iter(|| {
            let mut at = 0;
            while let Ok(Parsed::Command { consumed }) = parser.parse(&pipeline[at..], limits) {
                black_box(parser.spans());
                parser.reset();
                at += consumed;
                if at == pipeline.len() {
                    break;
                }
            }
            at
        })
    });
    group.bench_function("write 16 bulk replies", |b| {
        let mut reply = Reply::new(false);
        b.iter(|| {
            reply.buf.clear();
            (0..16).for_each(|_| reply.bulk(b"a value of thirty-two bytes long"));
            reply.buf.len()
        })
    });
    group.finish();
}

fn collections(c: &mut Criterion) {
    let mut group = c.benchmark_group("collections");
    group.bench_function("listpack: push 128 elements", |b| {
        b.iter(|| {
            let mut list = Listpack::new();
            for i in 0..128u32 {
                list.push_back(&i.to_le_bytes());
            }
            list.total_bytes()
        })
    });
    let members: Vec<Vec<u8>> = (0..100_000).map(key).collect();
    let mut set = OrderedSet::new(SEED);
    let mut at = 1;
    for member in &members {
        let score = scattered(&mut at, 1 << 20) as f64;
        set.update(member, |_| Some(score));
    }
    group.bench_function("ordered set of 100,000: change a score", |b| {
        b.iter(|| {
            let member = &members[scattered(&mut at, members.len())];
            let score = scattered(&mut at, 1 << 20) as f64;
            set.update(member, |_| Some(score))
        })
    });
    group.bench_function("ordered set of 100,000: rank", |b| {
        b.iter(|| set.rank(&members[scattered(&mut at, members.len())]))
    });
    group.finish();
}

fn codecs(c: &mut Criterion) {
    let mut group = c.benchmark_group("codecs");
    let text: Vec<u8> = (0..1024).flat_map(key).collect();
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("lzf: compress 16 KiB", |b| b.iter(|| lzf::compress(&text, text.len())));
    let packed = lzf::compress(&text, text.len()).expect("it is full of repetitions");
    group.bench_function("lzf: decompress 16 KiB", |b| b.iter(|| lzf::decompress(&packed, text.len())));
    group.bench_function("crc64 of 16 KiB", |b| b.iter(|| crc64::crc64(0, &text)));
    group.throughput(Throughput::Elements(1));
    group.bench_function("glob", |b| b.iter(|| glob::matches(b"key:*12[0-9]4", black_box(b"key:000000001234"))));
    group.finish();
}

criterion_group!(benches, tables, protocol, collections, codecs);
criterion_main!(benches);
