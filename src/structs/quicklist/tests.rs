//! Quicklists against a model: a plain deque.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Change {
    PushBack(Vec<u8>),
    PushFront(Vec<u8>),
    PopBack,
    PopFront,
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn changes_agree_with_a_deque(
        fill in prop_oneof![Just(-2), Just(-1), 0i32..6],
        plain_from in prop_oneof![Just(1usize << 30), Just(3usize)],
        changes in proptest::collection::vec(change(), 0..120),
    ) {
        let limits = Limits { fill, plain_from };
        let mut list = Quicklist::new();
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        for change in changes {
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
                    prop_assert_eq!(list.remove_matching(&t, n, back), remove_from_model(&mut model, &t, n, back));
                }
            }
            list.check_invariants();
            prop_assert_eq!(list.len(), model.len());
        }
        prop_assert!(list.walk(0).map(|i| i.to_vec()).eq(model.iter().cloned()));
        for i in 0..model.len() {
            prop_assert_eq!(list.get(i).map(|i| i.to_vec()), Some(model[i].clone()));
            prop_assert!(list.walk(i).map(|i| i.to_vec()).eq(model.range(i..).cloned()));
            prop_assert!(list.walk_back(i).map(|i| i.to_vec()).eq(model.range(..=i).rev().cloned()));
        }
        prop_assert!(list.walk_back(model.len()).next().is_none());
    }
}

#[test]
fn nodes_keep_to_their_limits() {
    let limits = Limits { fill: 4, plain_from: 1 << 30 };
    let mut list = Quicklist::new();
    (0..10).for_each(|i| list.push_back(format!("e{i}").as_bytes(), limits));
    assert_eq!(list.node_count(), 3);
    list.push_back(&[b'x'; 10_000], limits);
    assert!(matches!(list.bodies().last(), Some(Body::Plain(_))));
    assert_eq!(list.node_count(), 4);
}
