//! Tests of reading snapshots: layouts of all versions, damage, bounds on what lengths may claim.

use super::super::{AuxInfo, ReplInfo, ValueView, Writer};
use super::*;
use crate::persist::rdb::encode::put_string;
use crate::structs::listpack::Item as Packed;
use proptest::prelude::*;

fn sample() -> Vec<u8> {
    let repl = ReplInfo { stream_db: 0, id: vec![b'f'; 40], offset: 77 };
    let mut w = Writer::new(Vec::new(), true, true);
    let info = AuxInfo { redis_version: "7.2.6", ctime_s: 1, used_memory: 2, repl: Some(&repl), aof_base: false };
    w.header(&info).unwrap();
    w.function(b"#!lua name=x\n").unwrap();
    w.select_db(3, 4, 1).unwrap();
    w.expire_ms(1_700_000_000_123);
    w.idle(9);
    w.key(b"a", ValueView::Int(-5)).unwrap();
    w.freq(200);
    w.key(b"12", ValueView::Str(&[b'z'; 300])).unwrap();
    w.key(b"big", ValueView::Str(&vec![7; 200_000])).unwrap();
    w.key(b"", ValueView::Str(b"")).unwrap();
    w.finish().unwrap()
}

fn read_all(bytes: &[u8]) -> Result<Vec<Item>> {
    let mut r = Reader::new(bytes, true);
    let mut items = Vec::new();
    loop {
        match r.next_item()? {
            Item::Part => continue,
            item => items.push(item),
        }
        if let Some(Item::End { .. }) = items.last() {
            assert_eq!(r.offset(), bytes.len() as u64);
            return Ok(items);
        }
    }
}

fn keys(items: Vec<Item>) -> Vec<KeyItem> {
    items.into_iter().filter_map(|i| if let Item::Key(k) = i { Some(k) } else { None }).collect()
}

#[test]
fn what_is_written_is_read_back() {
    let items = read_all(&sample()).unwrap();
    let aux = |k: &str, v: &str| Item::Aux { key: k.into(), value: v.into() };
    assert_eq!(items[0], aux("redis-ver", "7.2.6"));
    assert_eq!(items[4], aux("repl-stream-db", "0"));
    assert_eq!(items[7], aux("aof-base", "0"));
    assert_eq!(items[8], Item::Function(b"#!lua name=x\n".to_vec()));
    assert_eq!(items[9], Item::SelectDb(3));
    assert_eq!(items[10], Item::ResizeDb { keys: 4, expires: 1 });
    assert_eq!(items.last(), Some(&Item::End { checksum_disabled: false }));
    let keys = keys(items);
    assert_eq!(keys[0].expire_ms, Some(1_700_000_000_123));
    assert_eq!(keys[0].idle_s, Some(9));
    assert_eq!(keys[0].value, Value::String(StringValue::Int(-5)));
    assert_eq!((&keys[1].key[..], keys[1].freq, keys[1].expire_ms), (&b"12"[..], Some(200), None));
    assert_eq!(keys[2].value, Value::String(StringValue::Bytes(vec![7; 200_000])));
    assert_eq!(keys[3].value, Value::String(StringValue::Bytes(vec![])));
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = sample();
    for n in (0..bytes.len()).step_by(7) {
        let e = read_all(&bytes[..n]).unwrap_err();
        assert!(matches!(e.kind, ErrorKind::Eof), "{n}: {e}");
        assert!(e.offset <= n as u64);
    }
}

#[test]
fn a_flipped_bit_is_found() {
    let good = sample();
    for i in (0..good.len()).step_by(3) {
        let mut bad = good.clone();
        bad[i] ^= 1;
        assert!(read_all(&bad).is_err(), "byte {i}");
    }
}

#[test]
fn old_and_new_versions() {
    assert!(read_all(b"REDIS0003\xFE\x00\xFD\x01\x00\x00\x00\x00\x01a\x01b\xFF").is_ok());
    let e = read_all(b"REDIS0014\xFF").unwrap_err();
    assert_eq!(e.kind.to_string(), "Can't handle RDB format version 14");
    assert!(matches!(read_all(b"REDIS0000\xFF").unwrap_err().kind, ErrorKind::Version(0)));
    assert!(matches!(read_all(b"RODIS0009\xFF").unwrap_err().kind, ErrorKind::Signature));
}

#[test]
fn old_expire_opcode_is_in_seconds() {
    let items = read_all(b"REDIS0003\xFD\x01\x00\x00\x00\x00\x01a\x01b\xFF").unwrap();
    assert_eq!(keys(items)[0].expire_ms, Some(1000));
}

#[test]
fn zero_checksum_is_not_checked() {
    let mut w = Writer::new(Vec::new(), false, true);
    w.select_db(0, 0, 0).unwrap();
    let body = w.finish().unwrap();
    let mut bytes = b"REDIS0011".to_vec();
    bytes.extend_from_slice(&body);
    assert_eq!(read_all(&bytes).unwrap().last(), Some(&Item::End { checksum_disabled: true }));
}

#[test]
fn a_huge_length_takes_no_memory() {
    for len in
        [&b"\x81\x00\x00\x7F\xFF\xFF\xFF\xFF\xFF"[..], b"\x80\xFF\xFF\xFF\xFF", b"\x81\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"]
    {
        let mut bytes = b"REDIS0009\x00".to_vec();
        bytes.extend_from_slice(len);
        bytes.extend_from_slice(&[0; 100]);
        assert!(matches!(read_all(&bytes).unwrap_err().kind, ErrorKind::Eof));
    }
    let bomb = b"REDIS0009\x00\xC3\x02\x81\x00\x00\x00\xFF\xFF\xFF\xFF\xFF\x00\x00\x00";
    assert!(matches!(read_all(bomb).unwrap_err().kind, ErrorKind::Corrupt(_)));
}

#[test]
fn scores_are_checked() {
    let read = |bytes: &[u8]| read_all(&[b"REDIS0003", bytes, b"\xFF"].concat());
    let value = |bytes: &[u8]| keys(read(bytes).unwrap()).remove(0).value;
    let scored = |members: &[(&str, f64)]| {
        let (mut zset, limits) = (Zset::new(), ValueLimits::default().zset);
        members.iter().for_each(|(member, score)| _ = zset.set(member.as_bytes(), *score, &limits));
        Value::Zset(zset)
    };
    let (one, inf) = (1f64.to_le_bytes(), f64::NEG_INFINITY);
    assert_eq!(value(b"\x03\x01k\x02\x01a\x031.5\x01b\xFF"), scored(&[("a", 1.5), ("b", inf)]));
    assert_eq!(value(&[&b"\x05\x01k\x01\x01a"[..], &one].concat()), scored(&[("a", 1.0)]));
    assert_eq!(value(b"\x05\x01k\x00"), Value::Empty);
    for (bytes, reason) in [
        (&b"\x03\x01k\x01\x01a\xFD"[..], "Zset with NAN score detected"),
        (b"\x03\x01k\x02\x01a\x011\x01a\x012", "Duplicate zset fields detected"),
        (b"\x11\x01k\x07\x07\x00\x00\x00\x00\x00\xFE", "Zset listpack integrity check failed."),
        (b"\x11\x01k\x09\x09\x00\x00\x00\x01\x00\x01\x01\xFF", "Zset listpack integrity check failed."),
    ] {
        assert_eq!(read(bytes).unwrap_err().kind.to_string(), reason);
    }
    assert!(matches!(read(b"\x03\x01k\x01\x01a\x01x").unwrap_err().kind, ErrorKind::Eof));
}

#[test]
fn nothing_stands_twice_in_sets_and_hashes() {
    let read = |bytes: &[u8]| read_all(&[b"REDIS0003", bytes, b"\xFF"].concat());
    for (kind, what, element) in [(2, "set members", &b"\x01a"[..]), (4, "hash fields", b"\x01a\x01b")] {
        let refusal = format!("Duplicate {what} detected");
        let twice = [&[kind][..], b"\x01k\x02", element, element].concat();
        assert_eq!(read(&twice).unwrap_err().kind.to_string(), refusal);
        // The same in one that is large.
        let mut large = [kind, 1, b'k', 0x43, 0xE9].to_vec();
        for n in 0..1000u32 {
            put_string(&mut large, format!("member {n}").as_bytes(), false);
            if kind == 4 {
                put_string(&mut large, b"value", false);
            }
        }
        assert_eq!(read(&[&large[..], element].concat()).map(|items| items.len()).unwrap(), 2);
        let again = if kind == 4 { &b"\x08member 7\x01b"[..] } else { b"\x08member 7" };
        assert_eq!(read(&[&large[..], again].concat()).unwrap_err().kind.to_string(), refusal);
    }
}

#[test]
fn collections_that_stood_there_one_by_one_have_the_encoding_that_suits_them() {
    let value = |bytes: &[u8]| keys(read_all(&[b"REDIS0003", bytes, b"\xFF"].concat()).unwrap()).remove(0).value;
    let long = [&b"\x40\x41"[..], &[b'x'; 65]].concat();
    assert!(matches!(value(b"\x02\x01k\x02\xC0\x05\xC0\x07"), Value::Set(Set::Ints(_))));
    assert!(matches!(value(b"\x02\x01k\x02\xC0\x05\x01a"), Value::Set(Set::Packed(_))));
    assert!(matches!(value(&[&b"\x02\x01k\x02\xC0\x05"[..], &long[..]].concat()), Value::Set(Set::Table(_))));
    assert!(matches!(value(b"\x04\x01k\x01\x01a\xC0\x05"), Value::Hash(Hash::Packed(_))));
    let Value::Hash(hash) = value(&[&b"\x04\x01k\x02\x01a\xC0\x05\x01b"[..], &long[..]].concat()) else { panic!() };
    assert_eq!((hash.encoding_name(), hash.len()), ("hashtable", 2));
    assert_eq!(hash.get(b"a").map(|item| item.to_vec()), Some(b"5".to_vec()));
    assert_eq!(hash.get(b"b").map(|item| item.to_vec()), Some(vec![b'x'; 65]));
    let score = 1.5f64.to_le_bytes();
    let Value::Zset(zset) = value(&[&b"\x05\x01k\x01"[..], &long[..], &score].concat()) else { panic!() };
    assert_eq!((zset.encoding_name(), zset.score(&[b'x'; 65])), ("skiplist", Some(1.5)));
}

#[test]
fn an_announced_number_makes_no_more_room_than_came_already_calls_for() {
    let mut ahead = Ahead::new(u64::MAX);
    assert_eq!(ahead.first(), 1 << 17);
    assert_eq!([0, (1 << 17) - 1].map(|len| ahead.next(len)), [None, None]);
    assert_eq!(ahead.next(1 << 17), Some(1 << 20));
    assert_eq!(ahead.next((1 << 17) + 1), None);
    assert_eq!(ahead.next(1 << 20), Some(1 << 23));
    let mut ahead = Ahead::new(300_000);
    assert_eq!(ahead.next(1 << 17), Some(300_000));
    assert_eq!([299_999, 300_000, 300_001].map(|len| ahead.next(len)), [None; 3]);
    assert_eq!(Ahead::new(5).first(), 5);
}

#[test]
fn a_source_that_gives_a_byte_at_a_time_is_read_as_any_other() {
    let bytes = [&sample()[..], b"*1\r\n"].concat();
    for room in [1, 2, 7, 300] {
        let mut r = Reader::new(io::BufReader::with_capacity(room, &bytes[..]), true);
        let mut items = Vec::new();
        while !matches!(items.last(), Some(Item::End { .. })) {
            match r.next_item().unwrap() {
                Item::Part => {}
                item => items.push(item),
            }
            // Whoever asks for the source finds it after what was read.
            r.source_mut();
        }
        assert_eq!(items, read_all(&sample()).unwrap());
        let mut behind = Vec::new();
        io::Read::read_to_end(&mut r.into_source(), &mut behind).unwrap();
        assert_eq!(behind, b"*1\r\n");
    }
}

/// A stream of one entry, recorded as `len`, with one group; `groups` is what comes after its last id.
fn stream(len: u8, group: &[u8]) -> Vec<u8> {
    let mut list = Listpack::new();
    let head = [Packed::Int(1), Packed::Int(0), Packed::Int(1), Packed::Str(b"f"), Packed::Int(0)];
    let entry = [Packed::Int(2), Packed::Int(0), Packed::Int(0), Packed::Str(b"v"), Packed::Int(4)];
    list.push_items(head.into_iter().chain(entry));
    let mut bytes = b"REDIS0009\x0f\x01k\x01".to_vec();
    put_string(&mut bytes, &ID, false);
    put_string(&mut bytes, list.as_bytes(), false);
    bytes.extend_from_slice(&[len, 7, 0, 1, 1, b'g', 7, 0]);
    bytes.extend_from_slice(group);
    bytes.push(opcode::EOF);
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

/// Of the entry of that stream: 7-0.
const ID: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0];

fn read_shallow(bytes: &[u8]) -> Result<Value> {
    let mut r = Reader::new(bytes, true).deep(false);
    loop {
        if let Item::Key(key) = r.next_item()? {
            return Ok(key.value);
        }
    }
}

#[test]
fn a_stream_keeps_the_length_that_was_recorded() {
    for len in [0, 1, 3] {
        let bytes = stream(len, &[0, 0]);
        for read in [read_shallow(&bytes), read_all(&bytes).map(|items| keys(items).remove(0).value)] {
            let Ok(Value::Stream(read)) = read else { panic!("{read:?}") };
            assert_eq!((read.log.len(), read.log.iter().count()), (u64::from(len), 1));
            // And it is written as it was read.
            let mut w = Writer::new(Vec::new(), true, true);
            w.key(b"k", ValueView::Stream(&read)).unwrap();
            let again = [&b"REDIS0011"[..], &w.finish().unwrap()].concat();
            let mut r = Reader::new(&again[..], false);
            let item = std::iter::repeat_with(|| r.next_item().unwrap()).find(|item| *item != Item::Part);
            assert_eq!(keys(item.into_iter().collect())[0].value, Value::Stream(read));
        }
    }
    // A length and no node to have it.
    assert!(read_shallow(b"REDIS0009\x0f\x01k\x00\x02\x07\x00\x00\xff").is_err());
}

#[test]
fn a_data_set_of_redis_8_is_read_if_7_2_could_hold_it() {
    // With what a node of a cluster says of slots, and nobody remembered who has added to the stream.
    let Ok(Value::Stream(as_before)) = read_shallow(&stream(1, &[0, 0])) else { panic!() };
    let mut w = Writer::new(Vec::new(), true, false);
    w.key(b"k", ValueView::Stream(&as_before)).unwrap();
    let older = w.finish().unwrap();
    let newer = |version: &[u8], producers: u8| {
        let of_stream = &older[1..older.len() - 9];
        let tail = [50, 50, producers, 0, 0, opcode::EOF, 0, 0, 0, 0, 0, 0, 0, 0];
        [b"REDIS00", version, &[opcode::SLOT_INFO, 5, 1, 0, 26], of_stream, &tail].concat()
    };
    assert_eq!(read_shallow(&newer(b"13", 0)).unwrap(), Value::Stream(as_before));
    let refused = |bytes: &[u8]| read_shallow(bytes).unwrap_err().kind.to_string();
    assert!(refused(&newer(b"13", 1)).contains("a stream that remembers who has added to it"));
    assert!(refused(b"REDIS0012\x19\x01h").contains("a hash whose fields have a time to live"));
    assert_eq!(refused(b"REDIS0011\x19\x01h"), "Unknown RDB encoding type 25");
    assert_eq!(refused(&newer(b"11", 0)), "Unknown RDB encoding type 244");
    assert_eq!(refused(b"REDIS0014"), "Can't handle RDB format version 14");
}

#[test]
fn a_pending_entry_of_two_consumers_is_the_later_ones_and_without_one_it_is_nobodys() {
    let group = |owners: &[&[u8]]| {
        let mut bytes = [&[1][..], &ID, &[9; 8], &[1], &[owners.len() as u8]].concat();
        for owner in owners {
            bytes.extend_from_slice(owner);
            bytes.extend_from_slice(&[9; 8]);
            bytes.push(1);
            bytes.extend_from_slice(&ID);
        }
        bytes
    };
    let Ok(Value::Stream(read)) = read_shallow(&stream(1, &group(&[b"\x01a", b"\x01b"]))) else { panic!() };
    let read_group = read.groups().next().unwrap().1;
    read_group.check_invariants();
    let counts: Vec<_> = read_group.consumers().map(|c| (c.name(), c.pending_len())).collect();
    assert_eq!(counts, [(&b"a"[..], 0), (b"b", 1)]);
    let Ok(Value::Stream(read)) = read_shallow(&stream(1, &group(&[]))) else { panic!() };
    assert_eq!(read.groups().next().unwrap().1.pending_len(), 0);
    assert!(read_all(&stream(1, &group(&[]))).is_err());
}

#[test]
fn an_intset_out_of_order_is_put_in_order_unless_it_is_to_be_refused() {
    let ints = |values: &[u8]| {
        let mut bytes = b"REDIS0009\x0b\x01k".to_vec();
        let pairs = values.iter().flat_map(|value| [*value, 0]);
        let header = [2, 0, 0, 0, values.len() as u8, 0, 0, 0];
        put_string(&mut bytes, &header.into_iter().chain(pairs).collect::<Vec<_>>(), false);
        bytes.push(opcode::EOF);
        bytes.extend_from_slice(&[0; 8]);
        bytes
    };
    let Ok(Value::Ints(read)) = read_shallow(&ints(&[3, 1, 2, 3])) else { panic!() };
    assert_eq!(read.iter().collect::<Vec<_>>(), [1, 2, 3]);
    assert!(read_all(&ints(&[3, 1, 2, 3])).is_err());
    assert!(read_all(&ints(&[1, 2, 3])).is_ok());
}

#[test]
fn the_source_stands_after_the_snapshot() {
    let mut bytes = sample();
    bytes.extend_from_slice(b"*1\r\n");
    let mut r = Reader::new(&bytes[..], true);
    while !matches!(r.next_item().unwrap(), Item::End { .. }) {}
    assert_eq!(r.into_source(), b"*1\r\n");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"REDIS0011".to_vec();
        bytes.extend_from_slice(&tail);
        let _ = read_all(&bytes);
    }

    #[test]
    fn strings_round_trip(s in proptest::collection::vec(0u8..4, 0..600)) {
        let mut w = Writer::new(Vec::new(), true, true);
        w.key(b"k", ValueView::Str(&s)).unwrap();
        let body = w.finish().unwrap();
        let mut r = Reader::new(&body[..], true);
        r.version = Some(11);
        let Item::Key(k) = r.next_item().unwrap() else { panic!() };
        let Value::String(v) = k.value else { panic!() };
        prop_assert_eq!(v.into_bytes(), s);
    }
}
