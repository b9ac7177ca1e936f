//! Listpacks against vectors of texts, and arbitrary bytes against the check.

use proptest::prelude::*;

use super::*;

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
    list.clear();
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
    assert_eq!(list.remove_range(10, 60_000), 60_000);
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
