//! Listpacks at rest: the elements of one or several without the lengths behind them, which only those need who come from
//! the back. That saves a byte of every short element.
//!
//! Eight bytes of header (length of the whole, and length of a listpack of the same elements, 32 bits each, little-endian),
//! then each element's encoding and value as in a listpack. This form stays in memory; what leaves is opened before.
//!
//! Invariant: the bytes are always valid elements, as they come from a listpack.

use super::block::Block;
use super::{END, HEADER_LEN, Item, Listpack, UNKNOWN_COUNT, back_len_len, before, read_item, write_back_len};
use crate::structs::bytes::{append, append_piece};

const HEAD_LEN: usize = 8;
/// What a listpack has beside its elements.
const LISTPACK_OVERHEAD: usize = HEADER_LEN + 1;

/// A row of elements that is rarely changed. One pointer large.
#[derive(Clone)]
pub(crate) struct Dense {
    block: Block,
}

impl std::fmt::Debug for Dense {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// The length of the element at `at`, without the length behind it.
#[inline(always)]
fn element_len(bytes: &[u8], at: usize) -> usize {
    #[inline(never)]
    fn of_any(bytes: &[u8], at: usize) -> usize {
        read_item(bytes, at).expect("an element").1
    }
    // Most are short strings.
    match bytes[at] {
        first @ 0x80..=0xbf => 1 + usize::from(first & 0x3f),
        _ => of_any(bytes, at),
    }
}

/// Bytes under way to becoming one.
struct Builder {
    bytes: Vec<u8>,
    raw_len: usize,
}

impl Builder {
    /// `most`: bytes that will not be exceeded.
    fn with_capacity(most: usize) -> Builder {
        let mut bytes = Vec::with_capacity(most);
        bytes.resize(HEAD_LEN, 0);
        Builder { bytes, raw_len: LISTPACK_OVERHEAD }
    }

    /// Adds elements as they lie in a listpack.
    fn add_packed(&mut self, elements: &[u8]) {
        let mut at = 0;
        while at < elements.len() {
            let len = element_len(elements, at);
            append_piece(&mut self.bytes, elements, at, len);
            at += len + back_len_len(len);
        }
        self.raw_len += elements.len();
    }

    fn add_dense(&mut self, dense: &Dense) {
        self.bytes.extend_from_slice(dense.elements());
        self.raw_len += dense.raw_len() - LISTPACK_OVERHEAD;
    }

    fn done(mut self) -> Dense {
        let lens = [self.bytes.len(), self.raw_len].map(|len| u32::try_from(len).expect("a listpack below 4 GiB"));
        self.bytes[..4].copy_from_slice(&lens[0].to_le_bytes());
        self.bytes[4..HEAD_LEN].copy_from_slice(&lens[1].to_le_bytes());
        Dense { block: Block::from_vec(self.bytes) }
    }
}

impl Dense {
    /// The elements of a listpack.
    pub(crate) fn of(list: &Listpack) -> Dense {
        let mut builder = Builder::with_capacity(HEAD_LEN + list.total_bytes());
        builder.add_packed(&list.as_bytes()[HEADER_LEN..list.end()]);
        builder.done()
    }

    /// The listpack of these elements.
    pub(crate) fn open(&self) -> Listpack {
        let mut bytes = Vec::with_capacity(self.raw_len());
        let mut count = 0;
        bytes.extend_from_slice(&(self.raw_len() as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 2]);
        let elements = self.elements();
        let mut at = 0;
        while at < elements.len() {
            let len = element_len(elements, at);
            append_piece(&mut bytes, elements, at, len);
            let mut back = [0; 5];
            let back = &mut back[..back_len_len(len)];
            write_back_len(back, len);
            append(&mut bytes, back);
            at += len;
            count += 1;
        }
        bytes.push(END);
        let count = u16::try_from(count).unwrap_or(UNKNOWN_COUNT);
        bytes[4..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
        Listpack::from_own_bytes(bytes)
    }

    /// Takes elements out of a listpack that stands before this, or behind it: from the near end of it, as many as there are
    /// or as fit so that `most` bytes are not exceeded. How many.
    pub(crate) fn take_in(&mut self, list: &mut Listpack, is_before: bool, most: usize) -> usize {
        let room = most.saturating_sub(self.block.len());
        let bytes = list.as_bytes();
        let (start, end) = (HEADER_LEN, list.end());
        let (mut from, mut to, mut taken, mut count) = if is_before { (end, end, 0, 0) } else { (start, start, 0, 0) };
        while if is_before { from > start } else { to < end } {
            let at = if is_before { before(bytes, from) } else { to };
            let len = element_len(bytes, at);
            if taken + len > room {
                break;
            }
            if is_before {
                from = at;
            } else {
                to += len + back_len_len(len);
            }
            taken += len;
            count += 1;
        }
        if count > 0 {
            let mut builder = Builder::with_capacity(self.block.len() + taken);
            if is_before {
                builder.add_packed(&bytes[from..to]);
                builder.add_dense(self);
            } else {
                builder.add_dense(self);
                builder.add_packed(&bytes[from..to]);
            }
            *self = builder.done();
            list.splice(from, to, [&[]; 3], count, 0);
        }
        count
    }

    /// Whether an element's text is `text`.
    pub(crate) fn contains(&self, text: &[u8]) -> bool {
        let wanted = Item::of(text);
        // An integer may be stored as a string in bytes from outside.
        self.iter().any(|item| item == wanted || matches!(item, Item::Str(_)) && item.is(text))
    }

    /// Length in bytes of a listpack of the same elements.
    pub(crate) fn raw_len(&self) -> usize {
        let head = self.block.bytes();
        u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize
    }

    /// Bytes allocated.
    pub(crate) fn capacity(&self) -> usize {
        self.block.capacity()
    }

    fn elements(&self) -> &[u8] {
        &self.block.bytes()[HEAD_LEN..]
    }

    /// The elements, from the first on.
    pub(crate) fn iter(&self) -> Iter<'_> {
        Iter { rest: self.elements() }
    }
}

/// The elements of a [`Dense`], forwards.
#[derive(Clone)]
pub(crate) struct Iter<'a> {
    rest: &'a [u8],
}

impl Iter<'_> {
    /// Whether no element is left.
    pub(crate) fn is_over(&self) -> bool {
        self.rest.is_empty()
    }

    /// Goes past elements without looking at them.
    pub(crate) fn skip_elements(&mut self, count: usize) {
        for _ in 0..count {
            self.rest = &self.rest[element_len(self.rest, 0)..];
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        let (first, rest) = self.rest.split_first()?;
        if let 0x80..=0xbf = first
            && let Some((text, rest)) = rest.split_at_checked(usize::from(first & 0x3f))
        {
            self.rest = rest;
            return Some(Item::Str(text));
        }
        let (item, len) = read_item(self.rest, 0)?;
        self.rest = &self.rest[len..];
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Texts of every kind that a listpack tells apart.
    fn any_text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            4 => prop::collection::vec(any::<u8>(), 0..70),
            2 => any::<i64>().prop_map(|n| n.to_string().into_bytes()),
            2 => (-5000..5000i64).prop_map(|n| n.to_string().into_bytes()),
            1 => (100..5000usize).prop_map(|n| vec![b'x'; n]),
        ]
    }

    fn packed(texts: &[Vec<u8>]) -> Listpack {
        let mut list = Listpack::new();
        texts.iter().for_each(|t| _ = list.push_back(t));
        list
    }

    proptest! {
        #[test]
        fn what_is_opened_is_what_it_was_made_of(texts in prop::collection::vec(any_text(), 0..60), skip: prop::sample::Index) {
            let list = packed(&texts);
            let dense = Dense::of(&list);
            prop_assert_eq!(dense.raw_len(), list.total_bytes());
            prop_assert_eq!(dense.open(), list.clone());
            prop_assert!(dense.iter().eq(list.iter()));
            let skip = skip.index(texts.len() + 1);
            let mut rest = dense.iter();
            rest.skip_elements(skip);
            prop_assert!(rest.clone().eq(list.iter().skip(skip)));
            prop_assert_eq!(rest.is_over(), skip == texts.len());
        }

        #[test]
        fn elements_are_taken_in_at_either_end_as_far_as_they_fit(
            inner in prop::collection::vec(any_text(), 0..30),
            outer in prop::collection::vec(any_text(), 0..30),
            is_before: bool,
            most in 0..20_000usize,
        ) {
            let mut dense = Dense::of(&packed(&inner));
            let mut list = packed(&outer);
            let len_before = dense.block.len();
            let taken = dense.take_in(&mut list, is_before, most);
            list.check_invariants();
            prop_assert_eq!(list.len(), outer.len() - taken);
            prop_assert!(dense.block.len() <= most.max(len_before));
            let next = if is_before { list.iter().next_back() } else { list.iter().next() };
            if let Some(next) = next {
                let len = next.encoded_len() - back_len_len(next.encoded_len() - 1);
                prop_assert!(dense.block.len() + len > most || len >= 0x7f, "there was room for one more");
            }
            let all: Vec<Item<'_>> =
                if is_before { list.iter().chain(dense.iter()).collect() } else { dense.iter().chain(list.iter()).collect() };
            let (a, b) = if is_before { (&outer, &inner) } else { (&inner, &outer) };
            let expected: Vec<Vec<u8>> = a.iter().chain(b).cloned().collect();
            prop_assert_eq!(all.iter().map(|item| item.to_vec()).collect::<Vec<_>>(), expected);
            prop_assert_eq!(dense.open().total_bytes(), dense.raw_len());
        }
    }
}
