//! Streams against models: a plain list of entries, and maps of who has what pending.

use super::*;
use crate::structs::listpack::{Item, Listpack};
use proptest::prelude::*;
use std::collections::BTreeMap;

type Text = Vec<u8>;
type Plain = (StreamId, Vec<(Text, Text)>);

#[derive(Clone, Debug)]
enum Change {
    Append { ms: u64, seq: u64, fields: Vec<(Text, Text)> },
    Delete(Vec<prop::sample::Index>),
    TrimLen { left: prop::sample::Index, approx: bool, limit: u64 },
    TrimId { at: prop::sample::Index, approx: bool, limit: u64 },
    Reload,
}

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        6 => "[a-c]{0,2}".prop_map(String::into_bytes),
        4 => (-9000i64..9000).prop_map(|n| n.to_string().into_bytes()),
        1 => (0usize..200).prop_map(|n| vec![b'x'; n]),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    let fields = prop_oneof![
        4 => (text(), text()).prop_map(|(a, b)| vec![(b"temp".to_vec(), a), (b"7".to_vec(), b)]),
        1 => prop::collection::vec((text(), text()), 1..4),
    ];
    prop_oneof![
        16 => (0u64..3, 0u64..300, fields).prop_map(|(ms, seq, fields)| Change::Append { ms, seq, fields }),
        3 => prop::collection::vec(index(), 1..4).prop_map(Change::Delete),
        1 => (index(), any::<bool>(), 0u64..20)
            .prop_map(|(left, approx, limit)| Change::TrimLen { left, approx, limit }),
        1 => (index(), any::<bool>(), 0u64..20).prop_map(|(at, approx, limit)| Change::TrimId { at, approx, limit }),
        1 => Just(Change::Reload),
    ]
}

fn plain(entry: Entry<'_>) -> Plain {
    assert_eq!(entry.fields().count(), entry.len());
    (entry.id, entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect())
}

fn append(log: &mut Log, id: StreamId, fields: &[(Text, Text)], limits: Limits) {
    let bytes = fields.iter().map(|(a, b)| a.len() + b.len()).sum();
    log.append(id, fields.len(), bytes, fields.iter().map(|(a, b)| (&a[..], &b[..])), limits);
}

fn from_nodes(nodes: Vec<Node>, in_order: bool, counters: Counters, len: u64) -> Result<Log, &'static str> {
    let mut grown = Growing::default();
    nodes.into_iter().for_each(|node| grown.push(node, in_order));
    grown.done(counters, len)
}

/// The log as it comes back from a snapshot.
fn reloaded(log: &Log) -> Log {
    let nodes = log.nodes().map(|node| {
        let list = Listpack::from_bytes(node.as_bytes().to_vec()).unwrap();
        let (node, in_order) = Node::from_listpack(node.id, list).unwrap();
        assert!(in_order);
        node
    });
    from_nodes(nodes.collect(), true, log.counters, log.len()).unwrap()
}

fn trim(log: &mut Log, model: &mut Vec<Plain>, wanted: usize, trim: Trim) {
    let before = model.len();
    let removed = log.trim(trim) as usize;
    if trim.limit > 0 {
        assert!(removed <= trim.limit as usize || !trim.approx, "{removed} of {}", trim.limit);
    }
    if !trim.approx && trim.limit == 0 {
        assert_eq!(removed, wanted);
    }
    assert!(removed <= wanted);
    model.drain(..removed);
    assert_eq!(model.len(), before - removed);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn logs_agree_with_a_list(
        node_bytes in prop_oneof![Just(0usize), 50usize..300, Just(4096)],
        node_entries in 0u64..7,
        changes in prop::collection::vec(change(), 1..250),
        bounds in prop::collection::vec(any::<prop::sample::Index>(), 8),
    ) {
        let limits = Limits { node_bytes, node_entries };
        let mut log = Log::default();
        let mut model: Vec<Plain> = Vec::new();
        let mut highest = StreamId::MIN;
        let mut added = 0;
        for change in changes {
            match change {
                Change::Append { ms, seq, fields } => {
                    // A later time, with sequence numbers that start again.
                    let id = match ms {
                        0 => StreamId::new(log.last_id().ms, log.last_id().seq + seq + 1),
                        ms => StreamId::new(log.last_id().ms + ms * seq + 1, seq),
                    };
                    append(&mut log, id, &fields, limits);
                    model.push((id, fields));
                    added += 1;
                }
                Change::Delete(which) if !model.is_empty() => {
                    let mut ids: Vec<StreamId> = which.iter().map(|i| i.get(&model).0).collect();
                    ids.push(StreamId::new(u64::MAX, 1));
                    let before = model.len();
                    model.retain(|(id, _)| !ids.contains(id));
                    prop_assert_eq!(log.delete(&ids) as usize, before - model.len());
                    prop_assert_eq!(log.delete(&ids), 0);
                    ids.pop();
                    highest = ids.into_iter().fold(highest, StreamId::max);
                }
                Change::TrimLen { left, approx, limit } if !model.is_empty() => {
                    let left = left.index(model.len());
                    let by = TrimBy::Len(left as u64);
                    let wanted = model.len() - left;
                    trim(&mut log, &mut model, wanted, Trim { by, approx, limit });
                }
                Change::TrimId { at, approx, limit } if !model.is_empty() => {
                    let at = at.index(model.len());
                    let by = TrimBy::MinId(model[at].0);
                    trim(&mut log, &mut model, at, Trim { by, approx, limit });
                }
                Change::Reload => {
                    let back = reloaded(&log);
                    prop_assert_eq!(&back, &log);
                    log = back;
                }
                _ => {}
            }
            prop_assert_eq!(log.len(), model.len() as u64);
            prop_assert_eq!(log.first_id(), model.first().map_or(StreamId::MIN, |e| e.0));
            prop_assert_eq!(log.last_live(), model.last().map(|e| e.0));
        }
        log.check_invariants();
        prop_assert_eq!(log.counters.max_deleted_id, highest);
        prop_assert_eq!(log.counters.entries_added, added);
        prop_assert_eq!(log.iter().map(plain).collect::<Vec<_>>(), model.clone());
        for pair in bounds.chunks(2) {
            if model.is_empty() {
                break;
            }
            let (a, b) = (pair[0].get(&model).0, pair[1].get(&model).0);
            // Bounds between entries, too.
            for (start, end) in [(a, b), (a.next().unwrap(), b.prev().unwrap()), (StreamId::MIN, b), (a, StreamId::MAX)] {
                let want: Vec<Plain> = model.iter().filter(|e| e.0 >= start && e.0 <= end).cloned().collect();
                prop_assert_eq!(log.range(start, end).map(plain).collect::<Vec<_>>(), want.clone());
                let mut back: Vec<Plain> = log.range_back(start, end).map(plain).collect();
                back.reverse();
                prop_assert_eq!(back, want);
            }
            prop_assert!(log.contains(a));
        }
    }

    #[test]
    fn groups_agree_with_maps(changes in prop::collection::vec((0u8..8, 0u64..30, 0u8..4), 1..200)) {
        let mut group = Group::new(StreamId::MIN, -1);
        let mut model: BTreeMap<StreamId, (u8, i64, u64)> = BTreeMap::new();
        let mut consumers: BTreeMap<u8, ()> = BTreeMap::new();
        for (now, (what, seq, name)) in changes.into_iter().enumerate() {
            let (id, now) = (StreamId::new(1, seq), now as i64);
            match what {
                0 => {
                    let created = group.create_consumer(&[name], now).is_some();
                    prop_assert_eq!(created, consumers.insert(name, ()).is_none());
                }
                1 => {
                    let pending = model.values().filter(|p| p.0 == name).count();
                    let there = consumers.remove(&name).is_some();
                    prop_assert_eq!(group.remove_consumer(&[name]), there.then_some(pending));
                    model.retain(|_, p| p.0 != name);
                }
                2 | 3 => prop_assert_eq!(group.acknowledge(id), model.remove(&id).is_some()),
                4 => {
                    group.redeliver(id, now);
                    if let Some(pending) = model.get_mut(&id) {
                        *pending = (pending.0, now, pending.2 + 1);
                    }
                }
                _ => {
                    if let Some(owner) = group.find_consumer(&[name]) {
                        group.assign(id, Pending { time_ms: now, deliveries: seq, owner });
                        model.insert(id, (name, now, seq));
                    }
                }
            }
        }
        group.check_invariants();
        let all = group.pending_from(StreamId::MIN);
        let all: Vec<_> = all.map(|(id, p)| (id, (group.consumer(p.owner).name()[0], p.time_ms, p.deliveries))).collect();
        prop_assert_eq!(all, model.clone().into_iter().collect::<Vec<_>>());
        prop_assert!(group.consumers().map(|c| c.name()[0]).eq(consumers.keys().copied()));
        for consumer in group.consumers() {
            let own: Vec<_> = model.iter().filter(|(_, p)| p.0 == consumer.name()[0]).map(|(id, _)| *id).collect();
            prop_assert_eq!(consumer.pending_from(StreamId::MIN).collect::<Vec<_>>(), own);
        }
        prop_assert_eq!(&group.clone(), &group);
    }

    #[test]
    fn arbitrary_listpacks_are_refused_or_hold(
        items in prop::collection::vec(prop_oneof![8 => 0i64..6, 1 => any::<i64>()].prop_map(Some), 0..40),
        texts in prop::collection::vec(any::<prop::sample::Index>(), 0..2),
    ) {
        let mut items: Vec<Option<i64>> = items;
        for at in texts {
            if !items.is_empty() {
                let at = at.index(items.len());
                items[at] = None;
            }
        }
        let mut list = Listpack::new();
        list.push_items(items.iter().map(|item| item.map_or(Item::Str(b"x"), Item::Int)));
        if let Ok((node, in_order)) = Node::from_listpack(StreamId::new(5, 5), list) {
            let counters = Counters { last_id: StreamId::MAX, ..Counters::default() };
            if let Ok(log) = from_nodes(vec![node], in_order, counters, 1) {
                log.check_invariants();
                prop_assert_eq!(log.iter().count(), log.range_back(StreamId::MIN, StreamId::MAX).count());
            }
        }
    }
}

#[test]
fn many_nodes_come_and_go() {
    let limits = Limits { node_bytes: 0, node_entries: 1 };
    let mut log = Log::default();
    for i in 1..=2000 {
        append(&mut log, StreamId::new(i, 0), &[(b"f".to_vec(), b"v".to_vec())], limits);
    }
    assert_eq!(log.node_count(), 2000);
    let odd: Vec<StreamId> = (1..=2000).step_by(2).map(|i| StreamId::new(i, 0)).collect();
    assert_eq!(log.delete(&odd), 1000);
    log.check_invariants();
    let most: Vec<StreamId> = (1..=1900).map(|i| StreamId::new(i, 0)).collect();
    assert_eq!(log.delete(&most), 950);
    log.check_invariants();
    assert_eq!(log.iter().count(), 50);
    assert_eq!(log.trim(Trim { by: TrimBy::Len(10), approx: true, limit: 0 }), 40);
    log.check_invariants();
    assert_eq!(log.first_id(), StreamId::new(1982, 0));
}

/// As a 7.2 server lays out `XADD s 1-1 temp 20 7 hot`, `XADD s 1-3 temp 21 7 x`, `XADD s 2-0 other 1`, `XDEL s 1-3`.
#[test]
fn nodes_are_those_of_redis() {
    let limits = Limits { node_bytes: 4096, node_entries: 100 };
    let mut log = Log::default();
    let pair = |a: &str, b: &str| (a.as_bytes().to_vec(), b.as_bytes().to_vec());
    append(&mut log, StreamId::new(1, 1), &[pair("temp", "20"), pair("7", "hot")], limits);
    append(&mut log, StreamId::new(1, 3), &[pair("temp", "21"), pair("7", "x")], limits);
    append(&mut log, StreamId::new(2, 0), &[pair("other", "1")], limits);
    log.delete(&[StreamId::new(1, 3)]);
    let node = log.nodes().next().unwrap();
    let head = [Item::Int(2), Item::Int(1), Item::Int(2), Item::Str(b"temp"), Item::Int(7), Item::Int(0)];
    let first = [Item::Int(2), Item::Int(0), Item::Int(0), Item::Int(20), Item::Str(b"hot"), Item::Int(5)];
    let second = [Item::Int(3), Item::Int(0), Item::Int(2), Item::Int(21), Item::Str(b"x"), Item::Int(5)];
    let third =
        [Item::Int(0), Item::Int(1), Item::Int(-1), Item::Int(1), Item::Str(b"other"), Item::Int(1), Item::Int(6)];
    let mut list = Listpack::new();
    list.push_items(head.into_iter().chain(first).chain(second).chain(third));
    assert_eq!(node.as_bytes(), list.as_bytes());
}

#[test]
fn ids_are_ordered_as_their_bytes() {
    let ids = [(0, 0), (0, 1), (0, u64::MAX), (1, 0), (255, 3), (256, 0), (u64::MAX, u64::MAX)];
    let ids = ids.map(|(ms, seq)| StreamId::new(ms, seq));
    for pair in ids.windows(2) {
        assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
    }
    for id in ids {
        assert_eq!(StreamId::from_bytes(id.to_bytes()), id);
        assert_eq!(id.next().and_then(StreamId::prev), id.next().map(|_| id));
        assert_eq!(id.text().to_vec(), id.to_string().into_bytes());
    }
    assert_eq!(StreamId::MAX.next(), None);
    assert_eq!(StreamId::MIN.prev(), None);
}

#[test]
fn last_ids_may_be_set_back_before_deleted_entries() {
    let limits = Limits { node_bytes: 4096, node_entries: 3 };
    let one = [(b"f".to_vec(), b"v".to_vec())];
    let mut log = Log::default();
    for ms in 1..=7 {
        append(&mut log, StreamId::new(ms, 0), &one, limits);
    }
    let nodes: Vec<Node> = log.nodes().cloned().collect();
    log.delete(&[4, 5, 6, 7].map(|ms| StreamId::new(ms, 0)));
    assert_eq!(log.trim(Trim { by: TrimBy::MinId(StreamId::new(2, 0)), approx: false, limit: 0 }), 1);
    // As a server lays it out that leaves deleted entries in place.
    let mut list = Listpack::new();
    let head = [1i64, 1, 1].map(Item::Int).into_iter().chain([Item::Str(b"f"), Item::Int(0)]);
    let deleted = [3i64, 4, 0].map(Item::Int).into_iter().chain([Item::Str(b"v"), Item::Int(4)]);
    let live = [2i64, 1, 5].map(Item::Int).into_iter().chain([Item::Str(b"w"), Item::Int(4)]);
    list.push_items(head.chain(deleted).chain(live));
    let (node, in_order) = Node::from_listpack(StreamId::new(8, 0), list).unwrap();
    assert!(!in_order);
    let counters = Counters { last_id: StreamId::new(9, 5), ..Counters::default() };
    let mixed = from_nodes(nodes.into_iter().chain([node]).collect(), in_order, counters, 8).unwrap();
    mixed.check_invariants();
    assert_eq!((mixed.len(), mixed.last_live()), (8, Some(StreamId::new(9, 5))));
    log.set_last_id(StreamId::new(3, 0));
    log.check_invariants();
    append(&mut log, StreamId::new(3, 1), &one, limits);
    assert_eq!(log.iter().map(|e| e.id.ms).collect::<Vec<_>>(), [2, 3, 3]);
    assert_eq!(log.delete(&[StreamId::new(3, 1)]), 1);
    log.check_invariants();
}

#[test]
fn a_recorded_length_that_is_wrong_stays_as_far_off() {
    let limits = Limits { node_bytes: 4096, node_entries: 3 };
    let one = [(b"f".to_vec(), b"v".to_vec())];
    let mut seven = Log::default();
    for ms in 1..=7 {
        append(&mut seven, StreamId::new(ms, 0), &one, limits);
    }
    let recorded_as = |len| {
        let log = from_nodes(seven.nodes().cloned().collect(), true, seven.counters, len).unwrap();
        assert_eq!((log.len(), log.iter().count()), (len, 7));
        log
    };
    let by_len = |len| Trim { by: TrimBy::Len(len), approx: false, limit: 0 };
    // Too high by two: trimming to a length removes as many entries as the recorded length implies.
    let mut log = recorded_as(9);
    append(&mut log, StreamId::new(8, 0), &one, limits);
    assert_eq!((log.delete(&[StreamId::new(8, 0), StreamId::new(8, 0)]), log.len()), (1, 9));
    assert_eq!((log.trim(by_len(5)), log.len(), log.iter().count()), (4, 5, 3));
    assert_eq!(log.first_id(), StreamId::new(5, 0));
    assert_eq!((log.trim(by_len(0)), log.len(), log.iter().count()), (3, 2, 0));
    assert_eq!(log.first_id(), StreamId::MIN);
    append(&mut log, StreamId::new(9, 0), &one, limits);
    assert_eq!((log.len(), log.first_id()), (3, StreamId::new(9, 0)));
    log.check_invariants();
    // Too low: it does not fall below zero, and all entries stay within reach.
    for recorded in [0, 2] {
        let mut log = recorded_as(recorded);
        assert_eq!((log.trim(by_len(recorded)), log.iter().count()), (0, 7));
        assert_eq!(log.delete(&(1..=6).map(|ms| StreamId::new(ms, 0)).collect::<Vec<_>>()), 6);
        assert_eq!((log.len(), log.iter().count()), (0, 1));
        append(&mut log, StreamId::new(9, 0), &one, limits);
        assert_eq!(log.trim(Trim { by: TrimBy::MinId(StreamId::MAX), approx: true, limit: 0 }), 2);
        assert_eq!((log.len(), log.iter().count()), (0, 0));
        log.check_invariants();
    }
    // Below zero, as a wrapped count.
    let below = from_nodes(seven.nodes().cloned().collect(), true, seven.counters, u64::MAX).unwrap();
    assert_eq!((below.len(), below.iter().count()), (0, 7));
}
