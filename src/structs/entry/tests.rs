//! Entries against a plain model of what they hold.

#![allow(unsafe_code)]

use proptest::prelude::*;

use super::*;

type Object = Vec<u32>;

#[derive(Clone, Debug, PartialEq)]
enum Value {
    Int(i64),
    Str(Vec<u8>, bool),
    Object(Object),
}

#[derive(Clone, Debug)]
struct Model {
    key: Vec<u8>,
    expire_ms: Option<i64>,
    lru: u32,
    value: Value,
}

impl Value {
    fn give(&self, owned: bool) -> NewValue<'_, Object> {
        match self {
            Value::Int(value) => NewValue::Int(*value),
            Value::Str(bytes, true) => NewValue::RawStr(bytes),
            Value::Str(bytes, false) if owned => NewValue::OwnedStr(bytes.clone()),
            Value::Str(bytes, false) => NewValue::Str(bytes),
            Value::Object(object) => NewValue::Object(object.clone()),
        }
    }

    fn is(&self, got: ValueRef<'_, Object>) -> bool {
        match (self, got) {
            (Value::Int(a), ValueRef::Int(b)) => *a == b,
            (Value::Str(a, marked), ValueRef::Str { bytes, raw }) => {
                a == bytes && raw == (*marked || bytes.len() > EMBSTR_MAX_LEN)
            }
            (Value::Object(a), ValueRef::Object(b)) => a == b,
            _ => false,
        }
    }
}

fn compare(entry: &Entry<Object>, model: &Model) {
    entry.check_invariants();
    assert_eq!(entry.key(), model.key);
    assert_eq!(entry.expire_ms(), model.expire_ms);
    assert_eq!(entry.has_expire(), model.expire_ms.is_some());
    assert_eq!(entry.lru(), model.lru);
    assert!(model.value.is(entry.value()), "{entry:?} is not {model:?}");
    let mut int = IntBuf::new();
    let bytes = entry.value_bytes(&mut int).map(<[u8]>::to_vec);
    match &model.value {
        Value::Int(value) => assert_eq!(bytes, Some(value.to_string().into_bytes())),
        Value::Str(text, _) => assert_eq!(bytes.as_ref(), Some(text)),
        Value::Object(_) => assert_eq!(bytes, None),
    }
    assert!(entry.alloc_size() >= model.key.len());
    // The block is freed with the layout that its contents imply: the allocator must agree.
    #[cfg(not(checked_allocator))]
    {
        // SAFETY: the block is a live allocation of the global allocator, which is jemalloc.
        let usable = unsafe { tikv_jemalloc_sys::malloc_usable_size(entry.block.as_ptr().cast()) };
        assert_eq!(usable, size_class(entry.used_len()));
    }
}

fn value() -> impl Strategy<Value = Value> {
    let len = prop_oneof![0usize..70, 240usize..270, 1000usize..1100, 3000usize..5000];
    let text = len.prop_flat_map(|len| proptest::collection::vec(any::<u8>(), len));
    prop_oneof![
        any::<i64>().prop_map(Value::Int),
        (text, any::<bool>()).prop_map(|(text, raw)| Value::Str(text, raw)),
        proptest::collection::vec(any::<u32>(), 0..5).prop_map(Value::Object),
    ]
}

#[derive(Clone, Debug)]
enum Change {
    Expire(Option<i64>),
    Lru(u32),
    Value(Value, bool),
    Int(i64),
    Append(Vec<u8>),
    Grow(usize),
    Flip(usize),
    Push(u32),
    Key(Vec<u8>),
}

fn change() -> impl Strategy<Value = Change> {
    let key = prop_oneof![0usize..40, 250usize..300];
    prop_oneof![
        any::<Option<i64>>().prop_map(Change::Expire),
        (0u32..1 << 24).prop_map(Change::Lru),
        (value(), any::<bool>()).prop_map(|(value, owned)| Change::Value(value, owned)),
        any::<i64>().prop_map(Change::Int),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Change::Append),
        (0usize..2000).prop_map(Change::Grow),
        any::<usize>().prop_map(Change::Flip),
        any::<u32>().prop_map(Change::Push),
        key.prop_flat_map(|len| proptest::collection::vec(any::<u8>(), len)).prop_map(Change::Key),
    ]
}

fn apply(mut entry: Entry<Object>, model: &mut Model, change: Change) -> Entry<Object> {
    match change {
        Change::Expire(expire_ms) => {
            entry.set_expire(expire_ms);
            model.expire_ms = expire_ms;
        }
        Change::Lru(lru) => {
            entry.set_lru(lru);
            model.lru = lru;
        }
        Change::Value(value, owned) => {
            entry.set_value(value.give(owned));
            model.value = value;
        }
        Change::Int(value) => {
            entry.set_int(value);
            model.value = Value::Int(value);
        }
        Change::Append(bytes) => match entry.make_raw_mut() {
            Some(mut text) => {
                text.append(&bytes);
                model.value = match &model.value {
                    Value::Int(value) => Value::Str([value.to_string().as_bytes(), &bytes].concat(), true),
                    Value::Str(text, _) => Value::Str([text, &bytes[..]].concat(), true),
                    Value::Object(_) => panic!("an object is not a string"),
                };
            }
            None => assert!(matches!(model.value, Value::Object(_))),
        },
        Change::Grow(len) => {
            if let Some(mut text) = entry.make_raw_mut() {
                text.grow_zeroed(len);
                let mut bytes = match &model.value {
                    Value::Int(value) => value.to_string().into_bytes(),
                    Value::Str(text, _) => text.clone(),
                    Value::Object(_) => panic!("an object is not a string"),
                };
                bytes.resize(bytes.len().max(len), 0);
                model.value = Value::Str(bytes, true);
            }
        }
        Change::Flip(at) => match (entry.str_bytes_mut(), &mut model.value) {
            (Some(bytes), Value::Str(text, raw)) => {
                assert_eq!(bytes, text);
                *raw = true;
                if !text.is_empty() {
                    let at = at % text.len();
                    bytes[at] ^= 1;
                    text[at] ^= 1;
                }
            }
            (None, Value::Int(_) | Value::Object(_)) => {}
            (got, want) => panic!("{got:?} for {want:?}"),
        },
        Change::Push(number) => match (entry.object_mut(), &mut model.value) {
            (Some(object), Value::Object(want)) => {
                object.push(number);
                want.push(number);
            }
            (None, Value::Int(_) | Value::Str(..)) => {}
            (got, want) => panic!("{got:?} for {want:?}"),
        },
        Change::Key(key) => {
            entry = entry.with_key(&key);
            model.key = key;
        }
    }
    entry
}

proptest! {
    #[test]
    fn changes_agree_with_a_model(
        key in proptest::collection::vec(any::<u8>(), 0..40),
        first in value(),
        expire_ms in any::<Option<i64>>(),
        changes in proptest::collection::vec(change(), 0..20),
    ) {
        let mut model = Model { key, expire_ms, lru: 0, value: first };
        let mut entry = Entry::new(&model.key, model.value.give(false), expire_ms);
        compare(&entry, &model);
        for change in changes {
            entry = apply(entry, &mut model, change);
            compare(&entry, &model);
        }
        match (entry.take_value(), model.value) {
            (OwnedValue::Int(a), Value::Int(b)) => assert_eq!(a, b),
            (OwnedValue::Str(bytes), Value::Str(text, _)) => assert_eq!(bytes, text),
            (OwnedValue::Object(a), Value::Object(b)) => assert_eq!(a, b),
            (got, want) => panic!("{got:?} for {want:?}"),
        }
    }
}

#[test]
fn an_entry_is_a_pointer() {
    assert_eq!(mem::size_of::<Entry<Object>>(), 8);
    assert_eq!(mem::size_of::<Option<Entry<Object>>>(), 8);
}

#[test]
fn small_entries_take_one_small_block() {
    let key = [b'k'; 16];
    let text = Entry::<Object>::new(&key, NewValue::Str(&[b'v'; 16]), None);
    assert_eq!(text.used_len(), 38);
    let expiring = Entry::<Object>::new(&key, NewValue::Str(&[b'v'; 16]), Some(1));
    assert_eq!(expiring.alloc_size(), 48);
    let int = Entry::<Object>::new(&key, NewValue::Int(1), None);
    assert_eq!(int.alloc_size(), 32);
}

#[test]
fn growing_a_string_leaves_slack_up_to_a_mebibyte() {
    let moves_of = || {
        let mut entry = Entry::<Object>::new(b"k", NewValue::Int(12), None);
        let mut moves = 0;
        let mut capacity = 0;
        for _ in 0..100_000 {
            let mut text = entry.make_raw_mut().expect("a string");
            text.append(b"0123456789abcdef");
            if text.capacity() != capacity {
                capacity = text.capacity();
                moves += 1;
            }
        }
        assert!(entry.alloc_size() <= 1_600_002 + (1 << 20) + (1 << 19));
        moves
    };
    // While another test has lent a string, any string is copied for a change.
    let mut moves = 0;
    let is_seldom = (0..10).any(|_| {
        moves = moves_of();
        moves < 25
    });
    assert!(is_seldom, "{moves} moves");
}

// An allocator that looks for leaks finds this one.
#[cfg(not(checked_allocator))]
#[test]
fn a_leaked_guard_leaves_a_sound_entry() {
    let mut entry = Entry::<Object>::new(b"k", NewValue::Str(b"text"), Some(5));
    mem::forget(entry.make_raw_mut());
    assert!(matches!(entry.value(), ValueRef::Str { bytes: b"", .. }));
    entry.check_invariants();
    drop(entry);
}

#[test]
fn a_lent_string_outlives_every_change_of_its_entry() {
    type E = Entry<u8>;
    let long = || E::new(b"key", NewValue::Str(&[7; 3000]), None);
    let changes: [fn(E); 7] = [
        |e| drop(e),
        |mut e| e.set_int(1),
        |mut e| e.set_value(NewValue::Str(&[1; 3000])),
        |mut e| e.str_bytes_mut().unwrap().fill(1),
        |mut e| e.make_raw_mut().unwrap().fill(1),
        |e| match e.take_value() {
            OwnedValue::Str(mut bytes) => bytes.fill(1),
            _ => unreachable!(),
        },
        |e| e.with_key(b"other").str_bytes_mut().unwrap().fill(1),
    ];
    for change in changes {
        let entry = long();
        let lent = entry.lend().unwrap();
        change(entry);
        // Memory that was freed would be taken for this.
        let others: Vec<Vec<u8>> = (0..20).map(|_| vec![9; 3000]).collect();
        assert!(lent.iter().all(|b| *b == 7));
        drop(others);
    }
    assert!(E::new(b"key", NewValue::Str(b"short"), None).lend().is_none());
    let mut changed = long();
    let lent = changed.lend().unwrap();
    changed.str_bytes_mut().unwrap().fill(1);
    assert_eq!(changed.value_bytes(&mut IntBuf::new()).unwrap(), [1; 3000]);
    drop(lent);
}
