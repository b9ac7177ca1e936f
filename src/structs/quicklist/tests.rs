//! Quicklists against a model: a plain deque.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::structs::size_class;

#[derive(Clone, Debug)]
enum Change {
    PushBack(Vec<u8>),
    PushFront(Vec<u8>),
    PopBack,
    PopFront,
    Move(bool, bool),
    Insert(prop::sample::Index, Vec<u8>),
    Set(prop::sample::Index, Vec<u8>),
    RemoveRange(prop::sample::Index, usize),
    RemoveMatching(Vec<u8>, usize, bool),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => "[a-c]{0,3}".prop_map(String::into_bytes),
        4 => (-5000i64..5000).prop_map(|n| n.to_string().into_bytes()),
        1 => (0usize..9000).prop_map(|n| vec![b'x'; n]),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        4 => text().prop_map(Change::PushBack),
        4 => text().prop_map(Change::PushFront),
        1 => Just(Change::PopBack),
        1 => Just(Change::PopFront),
        1 => (any::<bool>(), any::<bool>()).prop_map(|(from, to)| Change::Move(from, to)),
        3 => (index(), text()).prop_map(|(i, t)| Change::Insert(i, t)),
        3 => (index(), text()).prop_map(|(i, t)| Change::Set(i, t)),
        1 => (index(), 0usize..20).prop_map(|(i, n)| Change::RemoveRange(i, n)),
        1 => (text(), 1usize..4, any::<bool>()).prop_map(|(t, n, back)| Change::RemoveMatching(t, n, back)),
    ]
}

fn remove_from_model(model: &mut VecDeque<Vec<u8>>, text: &[u8], max: usize, from_back: bool) -> usize {
    let mut removed = 0;
    while removed < max {
        let found =
            if from_back { model.iter().rposition(|t| t == text) } else { model.iter().position(|t| t == text) };
        let Some(at) = found else { break };
        model.remove(at);
        removed += 1;
    }
    removed
}

fn texts(mut walk: Walk<'_>) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    while let Some(item) = walk.step() {
        out.push(item.to_vec());
    }
    out
}

fn apply(
    change: Change,
    list: &mut Quicklist,
    model: &mut VecDeque<Vec<u8>>,
    limits: Limits,
) -> Result<(), TestCaseError> {
    match change {
        Change::PushBack(t) => {
            list.push_back(&t, limits);
            model.push_back(t);
        }
        Change::PushFront(t) => {
            list.push_front(&t, limits);
            model.push_front(t);
        }
        Change::PopBack => prop_assert_eq!(list.pop_back(|i| i.to_vec()), model.pop_back()),
        Change::PopFront => prop_assert_eq!(list.pop_front(|i| i.to_vec()), model.pop_front()),
        Change::Move(from_front, to_front) => {
            let is_plain = |text: &Vec<u8>| limits.is_plain(text);
            let end = if from_front { model.front() } else { model.back() };
            let want = end.filter(|text| is_plain(text)).cloned();
            prop_assert_eq!(list.take_plain(from_front), want.clone());
            if let Some(text) = want {
                if from_front {
                    model.pop_front()
                } else {
                    model.pop_back()
                };
                list.push(text.clone().into(), to_front, limits);
                if to_front { model.push_front(text) } else { model.push_back(text) }
            }
        }
        Change::Insert(i, t) => {
            let i = i.index(model.len() + 1);
            list.insert(i, &t, limits);
            model.insert(i, t);
        }
        Change::Set(i, t) => {
            let i = i.index(model.len() + 1);
            prop_assert_eq!(list.set(i, &t, limits), i < model.len());
            if i < model.len() {
                model[i] = t;
            }
        }
        Change::RemoveRange(i, n) => {
            let i = i.index(model.len() + 1);
            list.remove_range(i, n);
            model.drain(i..(i + n).min(model.len()));
        }
        Change::RemoveMatching(t, n, back) => {
            prop_assert_eq!(list.remove_matching(&t, n, back), remove_from_model(model, &t, n, back));
        }
    }
    Ok(())
}

/// The list as it is made of its nodes.
fn grown_anew(list: Quicklist, limits: Limits) -> Quicklist {
    let mut grown = Growing::new(limits);
    list.nodes.into_iter().for_each(|node| grown.push(node.into_body()));
    grown.done()
}

fn resting(list: &Quicklist) -> usize {
    list.nodes.iter().filter(|n| n.is_at_rest()).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn lists_with_nodes_at_rest_agree_with_a_deque(
        fill in -2..0i32,
        compress_depth in prop_oneof![4 => Just(0usize), 1 => Just(1usize)],
        // How many elements to push (negative: pop) at the back, and at the front; and a change of another kind.
        rounds in proptest::collection::vec((-3000..3000i32, -3000..3000i32, change()), 1..12),
    ) {
        let limits = Limits { fill, plain_from: 1 << 30, compress_depth: 0 };
        let mut list = Quicklist::new();
        let mut model = VecDeque::new();
        let mut next = 0;
        let mut rested = 0;
        for (back, front, change) in rounds {
            for (at_front, count) in [(false, back), (true, front)] {
                for _ in 0..count.unsigned_abs() {
                    next += 1;
                    let text = if next % 50 == 0 { vec![b'y'; next % 300] } else { format!("text:{next}").into_bytes() };
                    let change = match (at_front, count > 0) {
                        (false, true) => Change::PushBack(text),
                        (true, true) => Change::PushFront(text),
                        (false, false) => Change::PopBack,
                        (true, false) => Change::PopFront,
                    };
                    apply(change, &mut list, &mut model, limits)?;
                }
                list.check_invariants();
            }
            apply(change, &mut list, &mut model, limits)?;
            list.check_invariants();
            prop_assert_eq!(list.len(), model.len());
            rested = rested.max(resting(&list));
            prop_assert!(resting(&list) > 0 || list.node_count() < 5 + 2 * OPEN_NODES || rested > 0);
        }
        list = grown_anew(list, Limits { compress_depth, ..limits });
        list.check_invariants();
        prop_assert!(compress_depth == 0 || resting(&list) == 0);
        prop_assert!(texts(list.walk(0)).iter().eq(model.iter()));
        let mut all = Vec::new();
        list.walk(0).for_each(|item| all.push(item.to_vec()));
        prop_assert!(all.iter().eq(model.iter()));
        for i in (0..model.len()).step_by(97) {
            prop_assert_eq!(list.get(i, |i| i.to_vec()), Some(model[i].clone()));
            prop_assert!(texts(list.walk(i).take(500)).iter().eq(model.range(i..).take(500)));
            prop_assert!(texts(list.walk_back(i).take(500)).iter().eq(model.range(..=i).rev().take(500)));
        }
    }
}

#[test]
fn nodes_at_rest_are_as_full_as_they_may_be() {
    let limits = Limits { fill: -2, plain_from: 1 << 30, compress_depth: 0 };
    for (at_front, reload) in [(false, false), (true, false), (false, true)] {
        let mut list = Quicklist::new();
        for n in 0..100_000 {
            list.push(format!("element:{n:010}").into_bytes().into(), at_front, limits);
        }
        if reload {
            list = grown_anew(list, limits);
        }
        list.check_invariants();
        let len = list.nodes.len();
        // One node may hold the rest after filling up the one before.
        assert!(resting(&list) >= len - 2 * OPEN_NODES - 1, "{} of {len}", resting(&list));
        // 18 bytes and the encoding byte before them.
        let per_element = list.mem_bytes() as f64 / list.len() as f64;
        assert!((19.0..19.4).contains(&per_element), "{per_element} bytes");
        // Nodes that become the first or last are opened.
        for _ in 0..50_000 {
            list.pop_front(|_| ());
        }
        list.check_invariants();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn changes_agree_with_a_deque(
        fill in prop_oneof![Just(-2), Just(-1), 0i32..6],
        plain_from in prop_oneof![Just(1usize << 30), Just(3usize)],
        compress_depth in prop_oneof![2 => Just(0usize), 2 => Just(1usize), 1 => Just(3usize), 1 => Just(usize::MAX)],
        other_depth in 0usize..3,
        changes in proptest::collection::vec(change(), 0..120),
    ) {
        let mut limits = Limits { fill, plain_from, compress_depth };
        let mut list = Quicklist::new();
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        for (n, change) in changes.into_iter().enumerate() {
            if n == 100 {
                limits.compress_depth = other_depth;
            }
            apply(change, &mut list, &mut model, limits)?;
            list.check_invariants();
            prop_assert_eq!(list.len(), model.len());
        }
        prop_assert!(texts(list.walk(0)).iter().eq(model.iter()));
        for i in 0..model.len() {
            prop_assert_eq!(list.get(i, |i| i.to_vec()), Some(model[i].clone()));
            prop_assert!(texts(list.walk(i)).iter().eq(model.range(i..)));
            prop_assert!(texts(list.walk_back(i)).iter().eq(model.range(..=i).rev()));
        }
        prop_assert!(list.walk_back(model.len()).step().is_none());
    }
}

#[test]
fn nodes_between_others_keep_no_room() {
    assert_eq!(size_of::<Node>(), 16);
    let limits = Limits { fill: -2, plain_from: 1 << 30, compress_depth: 0 };
    for at_front in [false, true] {
        let mut list = Quicklist::new();
        let mut model = VecDeque::new();
        let trimmed = |list: &Quicklist| {
            list.check_invariants();
            for node in list.nodes.iter().take(list.nodes.len() - 1).skip(1) {
                match node.view() {
                    BodyView::Packed(packed) => assert_eq!(packed.capacity(), size_class(packed.total_bytes())),
                    BodyView::Dense(dense) => assert!(dense.capacity() <= 8192),
                    _ => panic!("no listpack"),
                }
            }
            assert!(list.nodes.capacity() <= list.nodes.len().max(MANY_NODES) * 5 / 4 + 1);
        };
        for n in 0..20_000 {
            let text = format!("element:{n:010}").into_bytes();
            if at_front {
                list.push_front(&text, limits);
                model.push_front(text);
            } else {
                list.push_back(&text, limits);
                model.push_back(text);
            }
        }
        trimmed(&list);
        // The nodes at the ends may have some.
        let full = list.nodes.len() * 8192 + 4096 + list.nodes.capacity() * size_of::<Node>();
        assert!(list.mem_bytes() <= full, "{} of {full} bytes", list.mem_bytes());
        // Room that pops leave, and then another node before it.
        for _ in 0..300 {
            assert_eq!(list.pop_front(|i| i.to_vec()), model.pop_front());
            assert_eq!(list.pop_back(|i| i.to_vec()), model.pop_back());
        }
        for n in 0..1000 {
            let text = vec![b'y'; n % 100];
            list.push_front(&text, limits);
            list.push_back(&text, limits);
            model.push_front(text.clone());
            model.push_back(text);
        }
        trimmed(&list);
        // Changes in the middle, which split nodes.
        for n in 0..400 {
            let at = 1000 + n * 37;
            let text = vec![b'z'; n * 7 % 200];
            list.insert(at, &text, limits);
            model.insert(at, text.clone());
            assert!(list.set(at + 9000 / (n + 1), &text, limits));
            model[at + 9000 / (n + 1)] = text;
        }
        trimmed(&list);
        assert!(texts(list.walk(0)).iter().eq(model.iter()));
        assert!(texts(list.walk_back(model.len() - 1)).iter().eq(model.iter().rev()));
    }
}

#[test]
fn nodes_keep_to_their_limits() {
    let limits = Limits { fill: 4, plain_from: 1 << 30, compress_depth: 0 };
    let mut list = Quicklist::new();
    (0..10).for_each(|i| list.push_back(format!("e{i}").as_bytes(), limits));
    assert_eq!(list.node_count(), 3);
    list.push_back(&[b'x'; 10_000], limits);
    assert!(matches!(list.bodies().last(), Some(BodyView::Plain(_))));
    assert_eq!(list.node_count(), 4);
}

#[test]
fn nodes_deep_inside_are_compressed() {
    let limits = Limits { fill: 10, plain_from: 500, compress_depth: 2 };
    let compressed = |list: &Quicklist| -> Vec<bool> { list.bodies().map(|b| matches!(b, BodyView::Lzf(_))).collect() };
    let mut list = Quicklist::new();
    for i in 0..70 {
        list.push_back(format!("{i} {}", "x".repeat(50)).as_bytes(), limits);
    }
    let inside = [false, false, true, true, true, false, false];
    assert_eq!(compressed(&list), inside);
    let bytes = list.mem_bytes();
    assert!(list.set(35, b"other", limits));
    assert_eq!(compressed(&list), inside);
    assert_eq!(list.get(35, |i| i.to_vec()), Some(b"other".to_vec()));
    assert_eq!(compressed(&list), inside, "reading changes nothing");
    assert_eq!(list.remove_matching(b"other", 1, false), 1);
    assert_eq!(compressed(&list), inside);
    list.insert(30, &[b'p'; 600], limits);
    assert_eq!(compressed(&list), [false, false, true, true, true, true, false, false]);
    assert!(list.bodies().any(|b| b.is_plain() && b.raw_len() == 600));
    list.remove_range(30, 1);
    for _ in 0..30 {
        list.pop_front(|_| ());
    }
    list.check_invariants();
    // Nothing that is compressed is lost with the option.
    let none = Limits { compress_depth: 0, ..limits };
    list.push_back(b"end", none);
    list.push_front(b"start", none);
    assert_eq!(texts(list.walk(0)).len(), list.len());
    assert!(bytes > 0);
}

#[test]
fn positions_are_those_of_the_elements() {
    let limits = Limits { fill: -1, plain_from: 1 << 30, compress_depth: 0 };
    let mut list = Quicklist::new();
    (0..5000).for_each(|i| list.push_back(format!("element {}", i % 701).as_bytes(), limits));
    list = grown_anew(list, limits);
    assert!(resting(&list) > 0);
    let mut packed = Listpack::new();
    for i in 0..50 {
        packed.push_back(if i % 7 == 3 { b"element 5" } else { b"another" });
    }
    for which in 0..4 {
        let walk = || match which {
            0 => list.walk(17),
            1 => list.walk_back(4321),
            2 => Walk::packed(&packed, 2),
            _ => Walk::packed_back(&packed, 44),
        };
        for most in [0, 1, 5, 40, 3000, usize::MAX] {
            let all = texts(walk().take(most));
            let expected: Vec<usize> = (0..all.len()).filter(|i| all[*i] == b"element 5").collect();
            let mut walk = walk().take(most);
            let mut passed = 0;
            let next = || {
                let at = passed + walk.position(|item| item.is(b"element 5"))?;
                passed = at + 1;
                Some(at)
            };
            assert_eq!(std::iter::from_fn(next).collect::<Vec<_>>(), expected);
        }
    }
}
