//! Sorted sets against a model: a map from names to scores, sorted when it is asked.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Change {
    Set(Vec<u8>, f64),
    Remove(Vec<u8>),
    RemoveRange(usize, usize),
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-c]{0,4}".prop_map(String::into_bytes),
        1 => (250usize..260).prop_map(|len| vec![b'x'; len]),
    ]
}

fn score() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => (-3i32..4).prop_map(|n| f64::from(n) / 2.0),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
        1 => Just(-0.0),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        10 => (name(), score()).prop_map(|(n, s)| Change::Set(n, s)),
        3 => name().prop_map(Change::Remove),
        1 => (0usize..40, 0usize..10).prop_map(|(from, count)| Change::RemoveRange(from, count)),
    ]
}

fn sorted(model: &BTreeMap<Vec<u8>, f64>) -> Vec<(Vec<u8>, f64)> {
    let mut all: Vec<_> = model.iter().map(|(n, s)| (n.clone(), *s)).collect();
    all.sort_by(|a, b| (a.1, &a.0).partial_cmp(&(b.1, &b.0)).unwrap());
    all
}

fn contents(set: &OrderedSet) -> Vec<(Vec<u8>, f64)> {
    set.range(0, usize::MAX, false).map(|(n, s)| (n.to_vec(), s)).collect()
}

proptest! {
    #[test]
    fn changes_agree_with_a_model(changes in proptest::collection::vec(change(), 0..400)) {
        let mut set = OrderedSet::new(HashSeed([3; 16]));
        let mut model: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
        for change in changes {
            match change {
                Change::Set(name, score) => {
                    let old = model.get(&name).copied();
                    let mut shown = None;
                    let done = set.update(&name, |old| {
                        shown = old;
                        Some(score)
                    });
                    prop_assert_eq!(shown, old);
                    let expected = match old {
                        None => Update::Added,
                        Some(old) if old == score => Update::Kept,
                        Some(_) => Update::Moved,
                    };
                    prop_assert_eq!(done, expected);
                    model.insert(name, score);
                }
                Change::Remove(name) => prop_assert_eq!(set.remove(&name), model.remove(&name)),
                Change::RemoveRange(from, count) => {
                    let mut removed = Vec::new();
                    set.remove_range(from, count, |name, score| removed.push((name.to_vec(), score)));
                    let expected: Vec<_> = sorted(&model).into_iter().skip(from).take(count).collect();
                    prop_assert_eq!(&removed, &expected);
                    for (name, _) in &removed {
                        model.remove(name);
                    }
                }
            }
            set.check_invariants();
        }
        let all = sorted(&model);
        prop_assert_eq!(contents(&set), all.clone());
        for (rank, (name, score)) in all.iter().enumerate() {
            prop_assert_eq!(set.rank(name), Some((rank, *score)));
            prop_assert_eq!(set.score(name), Some(*score));
        }
        for from in 0..all.len() + 1 {
            let back: Vec<_> = set.range(from, 3, true).map(|(n, s)| (n.to_vec(), s)).collect();
            let expected: Vec<_> = all.iter().take(from + 1).rev().take(3).cloned().collect();
            prop_assert_eq!(back, if from < all.len() { expected } else { Vec::new() });
        }
    }
}

/// Large enough for several levels, in every order of arrival.
#[test]
fn many_members_in_any_order() {
    const COUNT: usize = 20_000;
    let mut rng = fastrand::Rng::with_seed(7);
    let mut shuffled: Vec<usize> = (0..COUNT).collect();
    rng.shuffle(&mut shuffled);
    let upwards: Vec<usize> = (0..COUNT).collect();
    let downwards: Vec<usize> = (0..COUNT).rev().collect();
    let strides: Vec<usize> = (0..COUNT).map(|i| i * 7919 % COUNT).collect();
    for order in [upwards, downwards, strides, shuffled] {
        let mut set = OrderedSet::new(HashSeed([9; 16]));
        for i in &order {
            set.update(format!("member:{i:06}").as_bytes(), |_| Some((*i / 3) as f64));
        }
        set.check_invariants();
        assert!(set.tree.mem_bytes() / COUNT < 14, "{} bytes a member in the tree", set.tree.mem_bytes() / COUNT);
        for rank in (0..COUNT).step_by(97) {
            let name = format!("member:{rank:06}");
            assert_eq!(set.rank(name.as_bytes()), Some((rank, (rank / 3) as f64)));
            assert_eq!(set.range(rank, 1, false).next(), Some((name.as_bytes(), (rank / 3) as f64)));
        }
        assert_eq!(set.partition_point(|s, _| s < 100.0), 300);
        // Scores that change move members about.
        for i in order.iter().take(5000) {
            set.update(format!("member:{i:06}").as_bytes(), |old| old.map(|s| (s * 31.0) % 977.0));
        }
        set.check_invariants();
        let mut seen = std::collections::HashSet::new();
        let mut cursor = 0;
        loop {
            cursor = set.scan(cursor, 10, |name, _| {
                seen.insert(name.to_vec());
            });
            if cursor == 0 {
                break;
            }
        }
        assert_eq!(seen.len(), COUNT);
        let mut last = f64::NEG_INFINITY;
        while set.len() > 100 {
            let before = set.len();
            set.remove_range(0, 73, |_, score| {
                assert!(score >= last);
                last = score;
            });
            set.remove_range(set.len() / 2, 30, |_, _| {});
            assert!(set.len() < before);
        }
        set.check_invariants();
        let names: Vec<Vec<u8>> = set.range(0, usize::MAX, false).map(|(n, _)| n.to_vec()).collect();
        for name in names {
            assert!(set.remove(&name).is_some());
        }
        set.check_invariants();
        assert!(set.is_empty());
    }
}
