//! The table against `std`'s maps: random streams of changes, scans with changes in between.

use std::collections::{HashMap, HashSet};

use fastrand::Rng;
use proptest::prelude::*;

use super::*;

/// A key with a version and a tag.
#[derive(Debug)]
struct Item(Box<(Vec<u8>, u64, bool)>);

impl Item {
    fn new(key: &[u8], version: u64, tagged: bool) -> Item {
        Item(Box::new((key.to_vec(), version, tagged)))
    }
}

impl TableItem for Item {
    fn key(&self) -> &[u8] {
        &self.0.0
    }

    fn tagged(&self) -> bool {
        self.0.2
    }
}

fn seed(n: u8) -> HashSeed {
    HashSeed([n; 16])
}

fn key(n: usize) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

fn filled(len: usize, tagged_each: usize) -> Table<Item> {
    let mut table = Table::new(seed(1));
    for n in 0..len {
        table.insert_new(Item::new(&key(n), n as u64, n % tagged_each == 0));
    }
    table
}

/// Goes over the whole table with one cursor, in pages of about `most` items; `between` may change it after every call.
fn scan_all(
    table: &mut Table<Item>,
    most: usize,
    mut between: impl FnMut(&mut Table<Item>),
) -> HashMap<Vec<u8>, usize> {
    let mut seen = HashMap::new();
    let mut cursor = 0;
    loop {
        let mut page = 0;
        let mut see = |item: &Item| {
            page += 1;
            *seen.entry(item.key().to_vec()).or_insert(0) += 1;
        };
        cursor = match most {
            usize::MAX => table.scan(cursor, &mut see),
            _ => table.scan_page(cursor, most, &mut see),
        };
        assert!(page <= most.saturating_add(2 + most / 16), "{page} items for {most}");
        assert!(cursor < 1 << 50);
        if cursor == 0 {
            return seen;
        }
        between(table);
    }
}

/// A stream of changes weighted by `grow` (0 to 100), checked against a map.
fn churn(
    rng: &mut Rng,
    table: &mut Table<Item>,
    model: &mut HashMap<Vec<u8>, (u64, bool)>,
    steps: usize,
    grow: u32,
    space: usize,
) {
    // Some of them are stale when they are used.
    let mut hints: HashMap<Vec<u8>, Hint> = HashMap::new();
    for step in 0..steps as u64 {
        let name = key(rng.usize(..space));
        let tagged = rng.u8(..4) == 0;
        for _ in 0..2 {
            let name = key(rng.usize(..space));
            hints.insert(name.clone(), table.prefetch_item(table.hash(&name)).1);
        }
        let near = (table.hash(&name), hints.get(&name).copied().unwrap_or_default());
        if rng.u32(..100) < grow {
            match table.entry_near(near, &name) {
                TableEntry::Occupied(mut entry) => {
                    let old = std::mem::replace(entry.get_mut(), Item::new(&name, step, tagged));
                    assert_eq!(model.insert(name, (step, tagged)), Some((old.0.1, old.0.2)));
                }
                TableEntry::Vacant(entry) => {
                    let item = entry.insert(Item::new(&name, step, tagged));
                    assert_eq!(item.key(), name);
                    drop(item);
                    assert_eq!(model.insert(name, (step, tagged)), None);
                }
            }
        } else {
            match rng.u8(..5) {
                4 => {
                    let verdict = [Verdict::Give, Verdict::Hide, Verdict::Take][rng.usize(..3)];
                    let got = match table.get_mut_or_take_near(near, &name, |_| verdict) {
                        Ok(item) => (Some(Verdict::Give), Some((item.0.1, item.0.2))),
                        Err(taken) => (None, taken.map(|item| (item.0.1, item.0.2))),
                    };
                    let known = model.get(&name).copied();
                    let given = known.map(|_| verdict).filter(|verdict| *verdict == Verdict::Give);
                    assert_eq!(got, (given, known.filter(|_| verdict != Verdict::Hide)));
                    if verdict == Verdict::Take {
                        model.remove(&name);
                    }
                }
                0 => {
                    if let TableEntry::Occupied(mut entry) = table.entry(&name) {
                        entry.get_mut().0.2 = tagged;
                        model.get_mut(&name).expect("in the model too").1 = tagged;
                    } else {
                        assert!(!model.contains_key(&name));
                    }
                }
                1 => {
                    if let TableEntry::Occupied(entry) = table.entry(&name) {
                        let item = entry.remove();
                        assert_eq!(model.remove(&name), Some((item.0.1, item.0.2)));
                    } else {
                        assert!(!model.contains_key(&name));
                    }
                }
                _ => {
                    let gone = table.remove(&name).map(|item| (item.0.1, item.0.2));
                    assert_eq!(gone, model.remove(&name));
                }
            }
        }
        if rng.u8(..8) == 0 {
            let name = key(rng.usize(..space));
            let got = table.get(&name).map(|item| (item.0.1, item.0.2));
            assert_eq!(got, model.get(&name).copied());
            // Wherever it stands, and whatever else it may seem to be.
            let likely = table.likely(table.hash(&name), |item| (item.key() == name).then_some((item.0.1, item.0.2)));
            assert_eq!(likely, got);
        }
    }
}

#[test]
fn a_hint_is_only_taken_where_it_was_made_and_while_its_memory_is_there() {
    let mut table = filled(100, 2);
    let hash = table.hash(&key(7));
    let (_, hint) = table.prefetch_item(hash);
    let version = |table: &mut Table<Item>, hint, name: &[u8]| {
        table.get_mut_or_take_near((hash, hint), name, |_| Verdict::Give).ok().map(|item| item.0.1)
    };
    assert_eq!(hint.of, table.memory);
    assert_eq!(version(&mut table, hint, &key(7)), Some(7));
    // Another table with an item of the same key.
    let mut other = filled(100, 2);
    let TableEntry::Occupied(mut entry) = other.entry(&key(7)) else { panic!("it is there") };
    *entry.get_mut() = Item::new(&key(7), 70, false);
    drop(entry);
    assert_ne!(hint.of, other.memory);
    assert_eq!(version(&mut other, hint, &key(7)), Some(70));
    // The memory is gone, and the table filled again.
    for n in 0..100 {
        table.remove(&key(n));
    }
    finish_resize(&mut table);
    for n in 0..100_000 {
        table.insert_new(Item::new(&key(n), n as u64 + 1, false));
    }
    finish_resize(&mut table);
    assert_ne!(hint.of, table.memory);
    assert_eq!(version(&mut table, hint, &key(7)), Some(8));
    assert_eq!(version(&mut table, hint, b"none"), None);
    // An empty one has none.
    assert_eq!(Table::<Item>::new(seed(1)).prefetch_item(hash).1, Hint::NONE);
}

/// Shrinks the table if it is sparse, and moves all that a resize has left to move.
fn finish_resize(table: &mut Table<Item>) {
    table.shrink_if_sparse();
    while table.rehash_step(10) {}
}

fn compare(table: &Table<Item>, model: &HashMap<Vec<u8>, (u64, bool)>) {
    table.check_invariants();
    assert_eq!(table.len(), model.len());
    assert_eq!(table.tagged_len(), model.values().filter(|(_, tagged)| *tagged).count());
    let mut met = 0;
    for item in table.iter() {
        assert_eq!(model.get(item.key()), Some(&(item.0.1, item.0.2)));
        met += 1;
    }
    assert_eq!(met, model.len());
    for (name, (version, _)) in model {
        assert_eq!(table.get(name).map(|item| item.0.1), Some(*version));
    }
}

#[test]
fn random_streams_agree_with_a_map() {
    for round in 0..8 {
        let mut rng = Rng::with_seed(round);
        let mut table = Table::new(seed(round as u8));
        let mut model = HashMap::new();
        let space = [20, 300, 3_000, 30_000][round as usize % 4];
        for phase in 0..10 {
            let grow = [90, 50, 10, 95, 3][phase % 5];
            match rng.u8(..6) {
                0 => table.set_resize_policy(ResizePolicy::Avoid),
                1 => table.set_resize_policy(ResizePolicy::Forbid),
                _ => table.set_resize_policy(ResizePolicy::Allow),
            }
            churn(&mut rng, &mut table, &mut model, space.clamp(200, 5_000), grow, space);
            compare(&table, &model);
            if rng.bool() {
                finish_resize(&mut table);
                compare(&table, &model);
            }
        }
    }
}

#[test]
fn a_table_of_many_segments_grows_and_shrinks() {
    let mut table = filled(200_000, 3);
    table.check_invariants();
    assert!(table.arrays[0].segments.len() + table.arrays[1].segments.len() >= 8);
    let full = table.mem_bytes();
    for n in 0..200_000 {
        if n % 64 != 0 {
            assert_eq!(table.remove(&key(n)).map(|item| item.0.1), Some(n as u64));
        }
        if n % 50_000 == 0 {
            table.check_invariants();
        }
    }
    finish_resize(&mut table);
    table.check_invariants();
    assert_eq!(table.len(), 200_000 / 64);
    assert!(table.mem_bytes() * 8 < full, "{} of {full} bytes left", table.mem_bytes());
    for n in (0..200_000).step_by(64) {
        assert!(table.contains(&key(n)));
    }
    assert_eq!(std::thread::spawn(move || table.len()).join().expect("a thread"), 200_000 / 64);
}

#[test]
fn a_scan_meets_each_item_once_when_nothing_changes() {
    for len in [0, 1, 7, 8, 100, 5_000, 40_000] {
        for most in [1, 2, 4, 7, 100, usize::MAX] {
            let mut table = filled(len, 2);
            let seen = scan_all(&mut table, most, |_| {});
            assert_eq!(seen.len(), len);
            assert!(seen.values().all(|count| *count == 1));
        }
    }
}

#[test]
fn a_scan_meets_what_stays_whatever_else_changes() {
    for round in 0..36 {
        let most = [usize::MAX, 1, 3][round as usize / 12];
        let mut rng = Rng::with_seed(round);
        let start = [10, 200, 3_000, 12_000][round as usize % 4];
        let mut table = filled(start, 5);
        let stays: HashSet<Vec<u8>> = (0..start).step_by(11).map(key).collect();
        let mut extra = start;
        let mut victim = 0;
        // Rounds that grow, that shrink, and that alternate.
        let mode = round % 3;
        let calls = table.arrays[0].buckets();
        let per_call = (start * 8 / calls).max(1);
        let mut call = 0;
        let seen = scan_all(&mut table, most, |table| {
            call += 1;
            let growing = mode == 0 || (mode == 2 && (call / 50) % 2 == 0);
            for _ in 0..rng.usize(..=per_call) {
                if growing && extra < start * 20 {
                    table.insert_new(Item::new(&key(extra), 0, false));
                    extra += 1;
                } else if victim < start {
                    let name = key(victim);
                    if !stays.contains(&name) {
                        table.remove(&name);
                    }
                    victim += 1;
                }
            }
            if rng.u8(..10) == 0 {
                table.rehash_step(rng.usize(..5));
            }
        });
        table.check_invariants();
        for name in &stays {
            assert!(seen.contains_key(name), "round {round}: {}", name.escape_ascii());
        }
    }
}

#[test]
fn a_scan_survives_any_cursor() {
    let table = filled(5_000, 2);
    let mut rng = Rng::with_seed(1);
    for _ in 0..10_000 {
        table.scan(rng.u64(..), |_| {});
        table.scan_page(rng.u64(..), 1 + rng.usize(..4), |_| {});
        table.scan_tagged(rng.u64(..), |_| {});
    }
    table.scan(u64::MAX, |_| {});
    table.scan_page(u64::MAX, 1, |_| {});
    table.scan_tagged(u64::MAX, |_| {});
}

#[test]
fn cursors_are_small_numbers() {
    let table = filled(1_000, 2);
    let buckets = table.arrays[0].buckets().max(table.arrays[1].buckets()) as u64;
    let mut cursor = 0;
    loop {
        cursor = table.scan(cursor, |_| {});
        assert!(cursor < buckets);
        if cursor == 0 {
            break;
        }
    }
}

#[test]
fn a_tagged_scan_meets_the_tagged_alone_and_all_of_them() {
    for (len, each) in [(10, 1), (1_000, 10), (50_000, 7), (120_000, 40_000)] {
        let mut table = filled(len, each);
        for rehashed in [false, true] {
            if rehashed {
                finish_resize(&mut table);
            }
            let mut seen = HashSet::new();
            let mut cursor = 0;
            let mut calls = 0;
            loop {
                cursor = table.scan_tagged(cursor, |item| {
                    assert!(item.tagged());
                    seen.insert(item.key().to_vec());
                });
                calls += 1;
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(seen.len(), table.tagged_len());
            assert!(calls <= table.tagged_len() + table.arrays[0].buckets() / 64 + 2, "{calls} calls");
        }
    }
}

#[test]
fn random_items_are_fair() {
    for len in [1, 5, 100, 1_000] {
        let mut table = filled(len, 4);
        let mut rng = Rng::with_seed(7);
        for _ in 0..2 {
            let mut hits = vec![0usize; len];
            let draws = len * 200;
            for _ in 0..draws {
                hits[table.random(&mut rng).expect("not empty").0.1 as usize] += 1;
            }
            // 200 expected a draw, with a deviation of 14: six of them leave room for the odd full chain.
            assert!(hits.iter().all(|hits| (116..=284).contains(hits)), "{len}: {hits:?}");
            let mut hits = vec![0usize; len];
            for _ in 0..draws {
                hits[table.random_tagged(&mut rng).expect("some are tagged").0.1 as usize] += 1;
            }
            for (n, hits) in hits.iter().enumerate() {
                assert_eq!(*hits > 0, n % 4 == 0);
            }
            finish_resize(&mut table);
        }
    }
    assert!(filled(0, 1).random(&mut Rng::with_seed(1)).is_none());
}

#[test]
fn random_items_are_fair_where_a_cursor_left_them() {
    let mut table = filled(20_000, 4);
    let mut in_order = Vec::new();
    let mut cursor = 0;
    loop {
        cursor = table.scan(cursor, |item| in_order.push(item.key().to_vec()));
        if cursor == 0 {
            break;
        }
    }
    let (gone, left) = in_order.split_at(19_900);
    assert_eq!(table.remove_several(gone.iter().map(Vec::as_slice)), gone.len());
    assert!(table.is_rehashing(), "it begins to shrink once it is known how far");
    table.check_invariants();
    let mut rng = Rng::with_seed(9);
    for _ in 0..2 {
        let mut hits = std::collections::HashMap::new();
        for _ in 0..left.len() * 200 {
            *hits.entry(table.random(&mut rng).expect("not empty").key().to_vec()).or_insert(0) += 1;
        }
        assert!(left.iter().all(|key| (116..=284).contains(&hits[key])), "{hits:?}");
        finish_resize(&mut table);
    }
}

#[test]
fn random_finds_the_last_item_of_a_sparse_table() {
    let mut table = filled(50_000, 50_000);
    let mut rng = Rng::with_seed(2);
    for _ in 0..20 {
        assert_eq!(table.random_tagged(&mut rng).expect("one is tagged").0.1, 0);
    }
    table.set_resize_policy(ResizePolicy::Forbid);
    for n in 1..50_000 {
        table.remove(&key(n));
    }
    for _ in 0..20 {
        assert_eq!(table.random(&mut rng).expect("one is left").0.1, 0);
        assert_eq!(table.random_tagged(&mut rng).expect("one is left").0.1, 0);
    }
}

#[test]
fn a_child_process_keeps_a_table_from_resizing_until_it_is_overfull() {
    let mut table = filled(100, 2);
    finish_resize(&mut table);
    let buckets = table.arrays[0].buckets();
    table.set_resize_policy(ResizePolicy::Avoid);
    let mut n = 100;
    while !table.is_rehashing() {
        table.insert_new(Item::new(&key(n), 0, false));
        n += 1;
        assert!(n < 100_000);
    }
    assert!(n >= buckets * GROW_LOAD * FORCE_RATIO);
    table.check_invariants();
    table.set_resize_policy(ResizePolicy::Forbid);
    assert!(!table.rehash_step(1));
    table.set_resize_policy(ResizePolicy::Allow);
    finish_resize(&mut table);
    table.check_invariants();
}

#[test]
fn reserve_makes_room_without_rehashing_later() {
    let mut table = Table::new(seed(4));
    table.reserve(10_000);
    for n in 0..10_000 {
        table.insert_new(Item::new(&key(n), 0, false));
        assert!(!table.is_rehashing());
    }
    table.check_invariants();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_stream_agrees_with_a_map(stream in 0u64.., grow in 0u32..100, space in 1usize..600, steps in 1usize..3_000) {
        let mut rng = Rng::with_seed(stream);
        let mut table = Table::new(seed(stream as u8));
        let mut model = HashMap::new();
        churn(&mut rng, &mut table, &mut model, steps, 80, space);
        churn(&mut rng, &mut table, &mut model, steps, grow, space);
        compare(&table, &model);
    }
}

/// A table of `len` items caught when about half of a resize is done.
fn halfway(len: usize, tagged: impl Fn(usize) -> bool, grows: bool) -> Table<Item> {
    let mut table = Table::new(seed(9));
    table.set_resize_policy(ResizePolicy::Forbid);
    if grows {
        table.arrays[0] = bucket::Array::new(log2_for(len));
        for n in 0..len {
            table.insert_new(Item::new(&key(n), n as u64, tagged(n)));
        }
        table.resize(log2_for(len) + 1);
    } else {
        table.arrays[0] = bucket::Array::new(log2_for(len) + 2);
        for n in 0..len {
            table.insert_new(Item::new(&key(n), n as u64, tagged(n)));
        }
        table.resize(log2_for(len));
    }
    assert!(table.is_rehashing());
    table.set_resize_policy(ResizePolicy::Allow);
    table.rehash_step((1 << table.unit_log2()) / 2);
    assert!(table.is_rehashing());
    table.set_resize_policy(ResizePolicy::Forbid);
    table.check_invariants();
    table
}

#[test]
fn a_lone_tagged_item_is_found_in_the_middle_of_a_resize() {
    for grows in [true, false] {
        for lone in 0..60 {
            let table = halfway(60, |n| n == lone, grows);
            let mut seen = 0;
            let mut cursor = 0;
            loop {
                cursor = table.scan_tagged(cursor, |item| seen += usize::from(item.0.1 == lone as u64));
                if cursor == 0 {
                    break;
                }
            }
            assert_eq!(seen, 1);
            let mut rng = Rng::with_seed(lone as u64);
            assert_eq!(table.random_tagged(&mut rng).map(|item| item.0.1), Some(lone as u64));
        }
    }
}

#[test]
fn random_items_are_fair_in_the_middle_of_a_resize() {
    for grows in [true, false] {
        let table = halfway(100, |_| false, grows);
        let mut rng = Rng::with_seed(11);
        let mut hits = [0usize; 100];
        for _ in 0..100 * 400 {
            hits[table.random(&mut rng).expect("not empty").0.1 as usize] += 1;
        }
        // 400 expected, with a deviation of 20.
        assert!(hits.iter().all(|hits| (290..=510).contains(hits)), "{hits:?}");
    }
}
