//! Listpacks against vectors of texts, and arbitrary bytes against the check.

use proptest::prelude::*;

use super::*;
use crate::structs::size_class;

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => any::<i64>().prop_map(|value| value.to_string().into_bytes()),
        2 => (-5000i64..70_000).prop_map(|value| value.to_string().into_bytes()),
        1 => (-9_000_000i64..9_000_000).prop_map(|value| value.to_string().into_bytes()),
        4 => proptest::collection::vec(any::<u8>(), 0..140),
        1 => proptest::collection::vec(any::<u8>(), 4_000..4_200),
        1 => proptest::collection::vec(any::<u8>(), 16_300..16_500),
        1 => prop_oneof![Just(b"".to_vec()), Just(b"-0".to_vec()), Just(b"007".to_vec()), Just(b"12a".to_vec())],
    ]
}

fn texts(list: &Listpack) -> Vec<Vec<u8>> {
    list.iter().map(|item| item.to_vec()).collect()
}

fn compare(list: &Listpack, model: &[Vec<u8>]) {
    list.check_invariants();
    assert_eq!(list.len(), model.len());
    assert_eq!(texts(list), model);
    assert!(list.iter().rev().map(|item| item.to_vec()).eq(model.iter().rev().cloned()));
}

#[test]
fn bytes_are_those_of_the_format() {
    let mut list = Listpack::new();
    assert_eq!(list.as_bytes(), [7, 0, 0, 0, 0, 0, 0xff]);
    for text in ["1", "-1", "4095", "-4096", "4096", "40000", "-8388609", "2147483648", "abc", ""] {
        list.push_back(text.as_bytes());
    }
    let want: &[&[u8]] = &[
        &[1, 1],
        &[0xdf, 0xff, 2],
        &[0xcf, 0xff, 2],
        &[0xd0, 0x00, 2],
        &[0xf1, 0x00, 0x10, 3],
        &[0xf2, 0x40, 0x9c, 0x00, 4],
        &[0xf3, 0xff, 0xff, 0x7f, 0xff, 5],
        &[0xf4, 0, 0, 0, 0x80, 0, 0, 0, 0, 9],
        &[0x83, b'a', b'b', b'c', 4],
        &[0x80, 1],
    ];
    let body = want.concat();
    let total = (body.len() + 7) as u8;
    assert_eq!(list.as_bytes(), [&[total, 0, 0, 0, 10, 0][..], &body, &[0xff]].concat());

    let mut list = Listpack::new();
    list.push_back(&[b'x'; 200]);
    assert_eq!(list.as_bytes()[6..8], [0xe0, 200]);
    assert_eq!(list.as_bytes()[208..], [0x01, 0x80 | (202 & 0x7f), 0xff]);
    let mut list = Listpack::new();
    list.push_back(&[b'x'; 5000]);
    assert_eq!(list.as_bytes()[6..11], [0xf0, 0x88, 0x13, 0, 0]);
    assert_eq!(list.as_bytes()[5011..], [0x27, 0x80 | 0x0d, 0xff]);
}

#[test]
fn more_elements_than_the_header_can_count() {
    let mut list = Listpack::new();
    for n in 0..70_000 {
        list.push_int(n % 100);
    }
    assert_eq!(list.as_bytes()[4..6], [0xff, 0xff]);
    assert_eq!(list.len(), 70_000);
    list.check_invariants();
    assert_eq!(list.seek(-1).map(|pos| list.get(pos)), Some(Item::Int(99)));
    assert_eq!(list.seek(69_999).map(|pos| list.get(pos)), Some(Item::Int(99)));
    assert_eq!(list.seek(70_000), None);
    assert_eq!(
        (list.pop_back(|item| item.as_i64()), list.pop_front(|item| item.as_i64())),
        (Some(Some(99)), Some(Some(0)))
    );
    assert_eq!(list.len(), 69_998);
    list.check_invariants();
    assert_eq!(list.remove_range(10, 59_998), 59_998);
    assert_eq!(list.len(), 10_000);
}

#[test]
fn find_skips_values() {
    let mut list = Listpack::new();
    for text in ["a", "b", "b", "1", "1", "c"] {
        list.push_back(text.as_bytes());
    }
    let first = list.first().expect("not empty");
    assert_eq!(list.find(first, b"b", 0), list.seek(1));
    assert_eq!(list.find(first, b"b", 1), list.seek(2));
    assert_eq!(list.find(first, b"1", 1), list.seek(4));
    assert_eq!(list.find(first, b"c", 1), None);
    assert_eq!(list.find(first, b"01", 0), None);
}

#[test]
fn broken_bytes_are_named() {
    let refuse = |bytes: &[u8]| Listpack::from_bytes(bytes.to_vec()).expect_err("broken");
    assert_eq!(refuse(b"").reason, "too short");
    assert_eq!(refuse(&[8, 0, 0, 0, 0, 0, 0xff]).reason, "another length than its header says");
    assert_eq!(refuse(&[7, 0, 0, 0, 0, 0, 0xfe]).reason, "no end mark");
    assert_eq!(refuse(&[8, 0, 0, 0, 1, 0, 0x85, 0xff]).reason, "broken element");
    assert_eq!(refuse(&[8, 0, 0, 0, 1, 0, 0xf5, 0xff]).reason, "broken element");
    assert_eq!(refuse(&[8, 0, 0, 0, 1, 0, 0xff, 0xff]).reason, "broken element");
    assert_eq!(refuse(&[8, 0, 0, 0, 1, 0, 0x05, 0xff]).reason, "wrong length behind an element");
    assert_eq!(refuse(&[9, 0, 0, 0, 1, 0, 0x05, 0x02, 0xff]).reason, "wrong length behind an element");
    assert_eq!(refuse(&[9, 0, 0, 0, 2, 0, 0x05, 0x01, 0xff]).reason, "another number of elements than its header says");
    assert_eq!(refuse(&[12, 0, 0, 0, 1, 0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff]).offset, 6);
}

#[test]
fn a_listpack_is_a_pointer() {
    assert_eq!(size_of::<Listpack>(), 8);
    assert_eq!(size_of::<Option<Listpack>>(), 8);
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Listpack>();
    assert_eq!(Listpack::new().capacity(), 0);
    assert_eq!(Listpack::new().into_bytes(), Listpack::with_capacity(1).into_bytes());
}

#[test]
fn nothing_changes_an_empty_one() {
    let mut list = Listpack::new();
    list.append(&Listpack::new());
    list.push_items([]);
    list.shrink_to_fit();
    assert_eq!((list.remove_range(0, 1), list.remove_range(-1, 1)), (0, 0));
    compare(&list, &[]);
    compare(&list.clone(), &[]);
    assert_eq!(list.capacity(), 0);
    list.push_front(b"a");
    let pos = list.first().expect("not empty");
    assert_eq!(list.remove(pos), None);
    compare(&list, &[]);
    compare(&Listpack::new(), &[]);
}

#[test]
fn small_ones_take_what_the_allocator_gives() {
    for at_front in [false, true] {
        let mut list = Listpack::new();
        for n in 0..200 {
            let text = format!("element:{n}");
            if at_front {
                list.push_front(text.as_bytes())
            } else {
                list.push_back(text.as_bytes())
            };
            if list.total_bytes() <= 384 {
                assert_eq!(list.capacity(), size_class(list.total_bytes()));
            }
            assert!(list.capacity() <= size_class(list.total_bytes() + list.total_bytes() / 4));
            list.check_invariants();
        }
    }
}

/// Where the last byte is.
fn end_address(list: &Listpack) -> usize {
    list.as_bytes().as_ptr().addr() + list.total_bytes()
}

#[test]
fn a_change_near_the_beginning_moves_what_is_before_it() {
    let mut list = Listpack::new();
    let mut moved = 0;
    for n in 0..600 {
        let end = end_address(&list);
        list.push_front(format!("element:{n}").as_bytes());
        moved += usize::from(list.total_bytes() > 600 && end_address(&list) != end);
        list.check_invariants();
    }
    assert!(moved < 12, "{moved} times all of it was moved");
    for _ in 0..500 {
        let end = end_address(&list);
        let second = list.seek(1).expect("not empty");
        list.remove(second);
        assert_eq!(end_address(&list), end);
        list.check_invariants();
    }
}

#[test]
fn room_on_the_wrong_side_is_found() {
    // Elements pass through it: those removed at one end make room for those added at the other.
    for from_front in [false, true] {
        let mut list = Listpack::new();
        let text = |n: usize| format!("element:{n:04}").into_bytes();
        for n in 0..400 {
            list.push_back(&text(n));
        }
        let (mut capacity, mut moved) = (list.capacity(), 0);
        for n in 0..4000 {
            let at = list.seek(if from_front { 0 } else { -1 }).expect("not empty");
            list.remove(at);
            let ends = (list.as_bytes().as_ptr(), end_address(&list));
            if from_front {
                list.push_back(&text(n))
            } else {
                list.push_front(&text(n))
            };
            moved += usize::from(list.as_bytes().as_ptr() != ends.0 && end_address(&list) != ends.1);
            list.check_invariants();
            if n == 1000 {
                capacity = list.capacity();
            }
        }
        assert_eq!((list.len(), list.capacity()), (400, capacity));
        assert!(moved < 200, "{moved} times all of it was moved");
        // At both ends alternately.
        moved = 0;
        for n in 0..2000 {
            let ends = (list.as_bytes().as_ptr(), end_address(&list));
            if n % 2 == 0 {
                list.push_back(&text(n))
            } else {
                list.push_front(&text(n))
            };
            moved += usize::from(list.as_bytes().as_ptr() != ends.0 && end_address(&list) != ends.1);
        }
        list.check_invariants();
        assert!(moved < 60, "{moved} times all of it was moved");
    }
}

#[test]
fn elements_larger_than_any_room_before() {
    let (mut list, mut model) = (Listpack::new(), Vec::new());
    for n in 0..100u8 {
        list.push_back(&[n; 30]);
        model.push(vec![n; 30]);
    }
    for len in [900 << 10, 200 << 10, 3 << 20, 100, 1 << 20] {
        list.push_front(&vec![b'x'; len]);
        model.insert(0, vec![b'x'; len]);
        compare(&list, &model);
    }
    while let Some(pos) = list.seek(1) {
        list.remove(pos);
        model.remove(1);
        list.check_invariants();
    }
    compare(&list, &model);
    list.shrink_to_fit();
    compare(&list, &model);
}

#[derive(Clone, Debug)]
enum Change {
    PushBack(Vec<u8>),
    PushFront(Vec<u8>),
    Before(usize, Vec<u8>),
    After(usize, Vec<u8>),
    Replace(usize, Vec<u8>),
    Remove(usize, usize),
    Append(Vec<Vec<u8>>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        text().prop_map(Change::PushBack),
        text().prop_map(Change::PushFront),
        (any::<usize>(), text()).prop_map(|(at, text)| Change::Before(at, text)),
        (any::<usize>(), text()).prop_map(|(at, text)| Change::After(at, text)),
        (any::<usize>(), text()).prop_map(|(at, text)| Change::Replace(at, text)),
        (any::<usize>(), 0usize..4).prop_map(|(at, count)| Change::Remove(at, count)),
        proptest::collection::vec(text(), 0..3).prop_map(Change::Append),
    ]
}

/// Changes of a listpack that is long enough to have room before it.
#[derive(Clone, Debug)]
enum LongChange {
    /// Adds so many elements of so many bytes before the one of an index, counted from an end.
    Insert {
        index: usize,
        from_end: bool,
        count: usize,
        len: usize,
    },
    Remove {
        index: usize,
        from_end: bool,
        count: usize,
        at_once: bool,
    },
    /// Takes so many elements from an end, one after the other.
    Pop {
        from_end: bool,
        count: usize,
    },
    Replace {
        index: usize,
        from_end: bool,
        len: usize,
    },
    /// Goes on with a copy.
    Clone,
    Shrink,
    /// Goes on with the bytes.
    Bytes,
    Take,
}

fn long_change() -> impl Strategy<Value = LongChange> {
    let index = || prop_oneof![3 => Just(0usize), 2 => 0usize..4, 1 => 0usize..300];
    let len = || prop_oneof![4 => 0usize..40, 1 => 100usize..140, 1 => 0usize..3000];
    prop_oneof![
        6 => (index(), any::<bool>(), 1usize..60, len())
            .prop_map(|(index, from_end, count, len)| LongChange::Insert { index, from_end, count, len }),
        5 => (index(), any::<bool>(), 1usize..50, any::<bool>())
            .prop_map(|(index, from_end, count, at_once)| LongChange::Remove { index, from_end, count, at_once }),
        3 => (any::<bool>(), 1usize..50).prop_map(|(from_end, count)| LongChange::Pop { from_end, count }),
        2 => (index(), any::<bool>(), len())
            .prop_map(|(index, from_end, len)| LongChange::Replace { index, from_end, len }),
        1 => Just(LongChange::Clone),
        1 => Just(LongChange::Shrink),
        1 => Just(LongChange::Bytes),
        1 => Just(LongChange::Take),
    ]
}

/// A text of a length that differs from all others.
fn nth_text(n: &mut usize, len: usize) -> Vec<u8> {
    *n += 1;
    format!("{n:x}:").into_bytes().into_iter().chain(std::iter::repeat(b'x')).take(len).collect()
}

fn seek(list: &Listpack, index: usize, len: usize, from_end: bool) -> Pos {
    let index = if from_end { index as i64 - len as i64 } else { index as i64 };
    list.seek(index).expect("inside")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn changes_agree_with_a_vector(changes in proptest::collection::vec((change(), any::<bool>()), 0..30)) {
        let mut list = Listpack::new();
        let mut model: Vec<Vec<u8>> = Vec::new();
        for (change, from_end) in changes {
            let len = model.len();
            match change {
                Change::PushBack(text) => {
                    list.push_back(&text);
                    model.push(text);
                }
                Change::PushFront(text) => {
                    list.push_front(&text);
                    model.insert(0, text);
                }
                Change::Append(texts) => {
                    let mut other = Listpack::new();
                    for text in &texts {
                        other.push_back(text);
                    }
                    list.append(&other);
                    model.extend(texts);
                }
                _ if len == 0 => {}
                Change::Before(at, text) => {
                    let pos = list.insert_before(seek(&list, at % len, len, from_end), &text);
                    prop_assert!(list.get(pos).is(&text));
                    model.insert(at % len, text);
                }
                Change::After(at, text) => {
                    let pos = list.insert_after(seek(&list, at % len, len, from_end), &text);
                    prop_assert!(list.get(pos).is(&text));
                    model.insert(at % len + 1, text);
                }
                Change::Replace(at, text) => {
                    list.replace(seek(&list, at % len, len, from_end), &text);
                    model[at % len] = text;
                }
                Change::Remove(at, count) => {
                    let at = at % len;
                    let next = list.remove_run(seek(&list, at, len, from_end), count);
                    model.drain(at..(at + count).min(len));
                    prop_assert_eq!(next.map(|pos| list.get(pos).to_vec()), model.get(at).cloned());
                }
            }
            compare(&list, &model);
        }
        for (index, text) in model.iter().enumerate() {
            let first = model.iter().position(|other| other == text).expect("it is there");
            prop_assert_eq!(list.find(list.first().expect("not empty"), text, 0), list.seek(first as i64));
            prop_assert!(list.get(seek(&list, index, model.len(), true)).is(text));
        }
        let again = Listpack::from_bytes(list.as_bytes().to_vec());
        prop_assert_eq!(again.as_ref(), Ok(&list));
    }

    #[test]
    fn changes_at_both_ends_agree_with_a_vector(changes in proptest::collection::vec(long_change(), 0..60)) {
        let mut list = Listpack::new();
        let mut model: Vec<Vec<u8>> = Vec::new();
        let mut n = 0;
        for change in changes {
            let place = |index: usize, from_end: bool, len: usize| {
                if from_end { len - index.min(len) } else { index.min(len) }
            };
            match change {
                LongChange::Insert { index, from_end, count, len } => {
                    for _ in 0..count {
                        let at = place(index, from_end, model.len());
                        let text = nth_text(&mut n, len);
                        match list.seek(at as i64) {
                            _ if at == model.len() => list.push_back(&text),
                            Some(_) if at == 0 => list.push_front(&text),
                            Some(pos) if n % 2 == 0 => list.insert_before(pos, &text),
                            Some(_) => list.insert_after(list.seek(at as i64 - 1).expect("inside"), &text),
                            None => panic!("inside"),
                        };
                        model.insert(at, text);
                        list.check_invariants();
                    }
                }
                LongChange::Remove { index, from_end, count, at_once } => {
                    let at = place(index, from_end, model.len().saturating_sub(1));
                    let end = (at + count).min(model.len());
                    model.drain(at..end);
                    for _ in 0..if at_once { 1 } else { end - at } {
                        list.remove_range(at as i64, if at_once { count } else { 1 });
                        list.check_invariants();
                    }
                }
                LongChange::Pop { from_end, count } => {
                    for _ in 0..count {
                        let (popped, wanted) = match model.len() {
                            0 => (list.pop_back(|item| item.to_vec()).or_else(|| list.pop_front(|item| item.to_vec())), None),
                            _ if from_end => (list.pop_back(|item| item.to_vec()), model.pop()),
                            _ => (list.pop_front(|item| item.to_vec()), Some(model.remove(0))),
                        };
                        prop_assert_eq!(popped, wanted);
                        list.check_invariants();
                    }
                }
                LongChange::Replace { index, from_end, len } => {
                    let at = place(index, from_end, model.len().saturating_sub(1));
                    if let Some(pos) = list.seek(at as i64) {
                        let text = nth_text(&mut n, len);
                        list.replace(pos, &text);
                        prop_assert!(list.get(pos).is(&text));
                        model[at] = text;
                    }
                }
                LongChange::Clone => {
                    let copy = list.clone();
                    prop_assert_eq!(&copy, &list);
                    prop_assert!(copy.capacity() <= size_class(copy.total_bytes()));
                    compare(&std::mem::replace(&mut list, copy), &model);
                }
                LongChange::Shrink => {
                    list.shrink_to_fit();
                    prop_assert!(list.capacity() <= size_class(list.total_bytes()));
                }
                LongChange::Bytes => {
                    let bytes = std::mem::take(&mut list).into_bytes();
                    list = Listpack::from_bytes(bytes).expect("what a listpack gave");
                }
                LongChange::Take => {
                    let moved = std::mem::take(&mut list);
                    compare(&list, &[]);
                    list = moved;
                }
            }
            compare(&list, &model);
        }
    }

    #[test]
    fn no_bytes_panic(junk in any::<Vec<u8>>(), count in 0u16..4) {
        let _ = Listpack::from_bytes(junk.clone());
        let mut bytes = (junk.len() as u32 + 7).to_le_bytes().to_vec();
        bytes.extend_from_slice(&count.to_le_bytes());
        bytes.extend_from_slice(&junk);
        bytes.push(0xff);
        if let Ok(list) = Listpack::from_bytes(bytes) {
            prop_assert_eq!(list.iter().count(), list.iter().rev().count());
        }
    }

    #[test]
    fn pairs_in_order_are_known_at_one_look(
        pairs in proptest::collection::vec((text(), any::<i16>()), 1..8), narrow in any::<bool>(), flip in any::<Option<(usize, u8)>>(),
    ) {
        let mut pairs: Vec<_> = pairs.into_iter().map(|(text, int)| (if narrow { int % 4 } else { int }, text)).collect();
        let in_order = pairs.is_sorted();
        let pack = |pairs: &[(i16, Vec<u8>)]| {
            let mut list = Listpack::new();
            for (int, text) in pairs {
                list.push_back(text);
                list.push_int(i64::from(*int));
            }
            list.into_bytes()
        };
        let is_short = pairs.iter().all(|(_, text)| text.len() < 64);
        let found = Listpack::from_pairs_in_order(pack(&pairs)).map(Listpack::into_bytes);
        prop_assert_eq!(found.is_ok(), in_order && is_short);
        pairs.sort();
        let mut bytes = pack(&pairs);
        let found = Listpack::from_pairs_in_order(bytes.clone()).map(Listpack::into_bytes);
        prop_assert_eq!(found, if is_short { Ok(bytes.clone()) } else { Err(bytes.clone()) });

        // What is taken at one look is taken by the thorough one.
        if let Some((at, bit)) = flip {
            let at = at % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
        }
        if Listpack::from_pairs_in_order(bytes.clone()).is_ok() {
            let list = Listpack::from_bytes(bytes).expect("a whole one");
            let items: Vec<_> = list.iter().map(Item::to_vec).collect();
            let (pairs, rest) = items.as_chunks::<2>();
            prop_assert!(rest.is_empty());
            let int = |pair: &[Vec<u8>; 2]| parse_i64(&pair[1]).expect("an integer");
            prop_assert!(pairs.is_sorted_by(|a, b| (int(a), &a[0]) <= (int(b), &b[0])));
        }
    }

    #[test]
    fn a_flipped_bit_is_refused_or_harmless(
        texts in proptest::collection::vec(text(), 1..6), at in any::<usize>(), bit in 0u8..8,
    ) {
        let mut list = Listpack::new();
        for text in &texts {
            list.push_back(text);
        }
        let mut bytes = list.into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok(list) = Listpack::from_bytes(bytes) {
            list.check_invariants();
            prop_assert_eq!(list.iter().count(), list.iter().rev().count());
        }
    }
}
