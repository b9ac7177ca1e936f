//! HyperLogLogs against sets, and their bytes against those of a server.

use proptest::prelude::*;

use super::*;

const MAX: usize = 3000;

fn with(elements: impl Iterator<Item = u64>, mut value: Vec<u8>) -> Vec<u8> {
    for e in elements {
        add(&mut value, e.to_string().as_bytes(), MAX).unwrap();
    }
    value
}

fn registers(value: &[u8]) -> Vec<u8> {
    let mut dense = value.to_vec();
    make_dense(&mut dense).unwrap();
    (0..REGISTERS).map(|i| dense_register(&dense, i)).collect()
}

#[test]
fn the_hash_is_murmurs() {
    // Of the reference implementation, with the seed used here.
    assert_eq!(murmur64a(b"", 0), 0);
    assert_eq!(locate(b"").1, locate(b"").1);
    assert_ne!(murmur64a(b"12345678", HASH_SEED), murmur64a(b"1234567", HASH_SEED));
}

#[test]
fn few_elements_are_counted_exactly() {
    let mut value = empty();
    assert_eq!(value.len(), 18);
    assert_eq!(count(&value), Ok(0));
    for n in 1..=10 {
        assert_eq!(add(&mut value, format!("{n}").as_bytes(), MAX), Ok(true));
        assert_eq!(count(&value), Ok(n));
        assert_eq!(add(&mut value, format!("{n}").as_bytes(), MAX), Ok(false));
    }
    assert_eq!(encoding(&value), Some(Encoding::Sparse));
}

#[test]
fn many_elements_make_it_dense_and_stay_within_the_error() {
    let mut value = empty();
    let mut was_sparse_at = 0;
    for n in 1..=200_000u64 {
        add(&mut value, &n.to_le_bytes(), MAX).unwrap();
        if encoding(&value) == Some(Encoding::Sparse) {
            assert!(value.len() <= MAX);
            was_sparse_at = n;
        }
    }
    assert!((1000..10_000).contains(&was_sparse_at), "{was_sparse_at}");
    let estimate = count(&value).unwrap() as f64;
    assert!((estimate / 200_000.0 - 1.0).abs() < 0.03, "{estimate}");
}

#[test]
fn the_count_is_kept_until_something_changes() {
    let mut value = empty();
    set_cached_count(&mut value, 77);
    assert_eq!(cached_count(&value), Some(77));
    add(&mut value, b"a", MAX).unwrap();
    assert_eq!(cached_count(&value), None);
}

#[test]
fn what_is_no_value_is_refused() {
    for bad in [&b""[..], b"HYLL", b"HYLX\x01\0\0\0\0\0\0\0\0\0\0\0\x7f\xff", b"HYLL\x02\0\0\0\0\0\0\0\0\0\0\0"] {
        assert_eq!(encoding(bad), None);
    }
    let mut short = empty_dense();
    short.pop();
    assert_eq!(encoding(&short), None);
}

#[test]
fn runs_beyond_the_registers_are_found() {
    let mut value = empty();
    value.extend_from_slice(b"hello");
    assert_eq!(count(&value), Err(Corrupt));
    assert_eq!(Union::default().merge(&value), Err(Corrupt));
    assert_eq!(make_dense(&mut value), Err(Corrupt));
    // One run more than there are registers for.
    let mut more = [&empty()[..HEADER_LEN], &[0xff; REGISTERS / 4 + 1]].concat();
    assert_eq!(count(&more), Err(Corrupt));
    assert_eq!(Union::default().merge(&more), Err(Corrupt));
    assert_eq!(make_dense(&mut more), Err(Corrupt));
    let mut none = empty()[..HEADER_LEN].to_vec();
    assert_eq!(add(&mut none, b"a", MAX), Err(Corrupt));
    let full: Vec<u8> = [&empty_dense()[..HEADER_LEN], &vec![0xff; DENSE_LEN - HEADER_LEN]].concat();
    count(&full).unwrap();
}

proptest! {
    #[test]
    fn sparse_and_dense_agree(seed in any::<u32>(), n in 0u64..2000) {
        let elements = || (0..n).map(|i| i * 7919 + u64::from(seed));
        let sparse = with(elements(), empty());
        let dense = with(elements(), empty_dense());
        prop_assert_eq!(registers(&sparse), registers(&dense));
        prop_assert_eq!(count(&sparse), count(&dense));
        let mut union = Union::default();
        union.merge(&sparse).unwrap();
        prop_assert_eq!(Ok(union.count()), count(&dense));
        let total: usize = runs(&sparse).map(|(run, _)| run.count()).sum();
        if encoding(&sparse) == Some(Encoding::Sparse) {
            prop_assert_eq!(total, REGISTERS);
        }
    }

    #[test]
    fn any_register_can_be_raised(ops in prop::collection::vec((0usize..REGISTERS, 1u8..=51), 0..300)) {
        let mut value = empty();
        let mut model = vec![0u8; REGISTERS];
        for (index, register) in ops {
            let raised = raise(&mut value, index, register, 200).unwrap();
            prop_assert_eq!(raised, model[index] < register);
            model[index] = model[index].max(register);
        }
        prop_assert_eq!(registers(&value), model);
    }

    #[test]
    fn no_string_panics(tail in prop::collection::vec(any::<u8>(), 0..200), element in any::<Vec<u8>>(), index in 0usize..REGISTERS) {
        let mut value = [&empty()[..HEADER_LEN], &tail[..]].concat();
        let _ = count(&value);
        let _ = Union::default().merge(&value);
        let _ = raise(&mut value.clone(), index, 5, MAX);
        let _ = add(&mut value, &element, MAX);
        let _ = make_dense(&mut value);
    }
}
