//! Listpacks at rest: the elements of one or several listpacks without the lengths at their ends, which only reading
//! backwards needs. That saves a byte for every short element.
//!
//! Eight bytes of header (length of the whole, and length of a listpack of the same elements, 32 bits each,
//! little-endian), then each element's encoding and value as in a listpack. This form never leaves memory: it is opened
//! first.
//!
//! Invariant: the bytes are always valid elements, as they come from a listpack.

use super::block::Block;
use super::{
    END, HEADER_LEN, Item, Listpack, ShortLens, UNKNOWN_COUNT, back_len_len, before, read_item, write_back_len,
};
use crate::structs::bytes::{append, append_piece};

const HEAD_LEN: usize = 8;
/// Bytes that a listpack has besides its elements.
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

/// The length of the element at `at`, without the length after it.
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

/// The length of the element at `at`, without the length after it, and the size of that length.
#[inline(always)]
fn element_lens(bytes: &[u8], at: usize, short: &mut ShortLens) -> (usize, usize) {
    #[inline(never)]
    fn of_any(bytes: &[u8], at: usize) -> (usize, usize) {
        let len = read_item(bytes, at).expect("an element").1;
        (len, back_len_len(len))
    }
    match short.of(bytes[at]) {
        0 => of_any(bytes, at),
        len => (len, 1),
    }
}

/// Builds the bytes of a [`Dense`].
struct Builder {
    bytes: Vec<u8>,
    raw_len: usize,
    /// Number of elements added.
    count: u32,
}

impl Builder {
    /// `most`: an upper bound of its bytes.
    fn with_capacity(most: usize) -> Builder {
        let mut bytes = Vec::with_capacity(most);
        bytes.resize(HEAD_LEN, 0);
        Builder { bytes, raw_len: LISTPACK_OVERHEAD, count: 0 }
    }

    /// Adds elements as they lie in a listpack, as many as fit into `most` bytes in all. Returns where the next one
    /// begins.
    fn add_packed(&mut self, elements: &[u8], most: usize) -> usize {
        let mut at = 0;
        let mut short = ShortLens::new();
        while at < elements.len() {
            let (len, back_len) = element_lens(elements, at, &mut short);
            if self.bytes.len() + len > most {
                break;
            }
            append_piece(&mut self.bytes, elements, at, len);
            at += len + back_len;
            self.count += 1;
        }
        self.raw_len += at;
        at
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
        builder.add_packed(&list.as_bytes()[HEADER_LEN..list.end()], usize::MAX);
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
        let mut short = ShortLens::new();
        while at < elements.len() {
            let (len, back_len) = element_lens(elements, at, &mut short);
            append_piece(&mut bytes, elements, at, len);
            if back_len == 1 {
                bytes.push(len as u8);
            } else {
                let mut back = [0; 5];
                write_back_len(&mut back[..back_len], len);
                append(&mut bytes, &back[..back_len]);
            }
            at += len;
            count += 1;
        }
        bytes.push(END);
        let count = u16::try_from(count).unwrap_or(UNKNOWN_COUNT);
        bytes[4..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
        Listpack::from_own_bytes(bytes)
    }

    /// Moves elements here from a listpack that comes before this (`is_before`) or after it, starting at its near end,
    /// as far as they fit into `most` bytes. Returns how many.
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
                builder.add_packed(&bytes[from..to], usize::MAX);
                builder.add_dense(self);
            } else {
                builder.add_dense(self);
                builder.add_packed(&bytes[from..to], usize::MAX);
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

/// Puts the elements of successive listpacks at rest, in blocks as full as allowed.
pub(crate) struct Filler {
    /// Bytes that a block may have if its elements are of several listpacks.
    most: usize,
    last: Option<Builder>,
}

impl Filler {
    pub(crate) fn new(most: usize) -> Filler {
        Filler { most, last: None }
    }

    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Adds the elements of a listpack. `full` gets the block that has no room for more, and how many elements are in it.
    pub(crate) fn add(&mut self, list: &Listpack, full: impl FnOnce(Dense, u32)) {
        let elements = &list.as_bytes()[HEADER_LEN..list.end()];
        let taken = self.last.as_mut().map_or(0, |last| last.add_packed(elements, self.most));
        if taken == elements.len() {
            return;
        }
        if let Some((dense, count)) = self.finish() {
            full(dense, count);
        }
        let mut next = Builder::with_capacity(self.most);
        next.add_packed(&elements[taken..], usize::MAX);
        self.last = Some(next);
    }

    /// The last block and its number of elements, if there is one.
    pub(crate) fn finish(&mut self) -> Option<(Dense, u32)> {
        let last = self.last.take()?;
        let count = last.count;
        Some((last.done(), count))
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

    /// Skips elements without reading their values.
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

    /// Texts of every encoding of a listpack.
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
        fn blocks_are_filled_with_the_elements_of_several_listpacks(
            lists in prop::collection::vec(prop::collection::vec(any_text(), 0..20), 0..8),
            most in 0..3000usize,
        ) {
            let mut filler = Filler::new(most);
            let mut blocks = Vec::new();
            for texts in &lists {
                filler.add(&packed(texts), |dense, count| blocks.push((dense, count)));
            }
            blocks.extend(filler.finish());
            let largest = lists.iter().map(|texts| packed(texts).total_bytes()).max().unwrap_or(0);
            for (at, (dense, count)) in blocks.iter().enumerate() {
                prop_assert!(dense.block.len() <= most.max(HEAD_LEN + largest));
                prop_assert_eq!(dense.iter().count(), *count as usize);
                prop_assert_eq!(dense.raw_len(), dense.open().total_bytes());
                if let Some(next) = blocks.get(at + 1).and_then(|(next, _)| next.elements().first().map(|_| next)) {
                    prop_assert!(dense.block.len() + element_len(next.elements(), 0) > most, "there was room for one more");
                }
            }
            let all: Vec<_> = blocks.iter().flat_map(|(dense, _)| dense.iter()).map(|item| item.to_vec()).collect();
            prop_assert_eq!(all, lists.concat());
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
