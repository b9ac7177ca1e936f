//! Lists as values: one listpack while they are small, otherwise a quicklist. OBJECT ENCODING shows which, so
//! conversions happen exactly when Redis's do.

use crate::structs::listpack::{Item, Listpack};
use crate::structs::quicklist::{self, Body, BodyView, Limits, Quicklist, Walk};

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Head,
    Tail,
}

#[derive(Clone, Debug)]
pub(crate) enum List {
    Packed(Listpack),
    Quick(Box<Quicklist>),
}

impl Default for List {
    fn default() -> List {
        List::new()
    }
}

impl PartialEq for List {
    fn eq(&self, other: &List) -> bool {
        let (mut a, mut b) = (self.walk(0), other.walk(0));
        self.len() == other.len() && (0..self.len()).all(|_| a.step() == b.step())
    }
}

impl List {
    pub(crate) fn new() -> List {
        List::Packed(Listpack::new())
    }

    /// A list of these elements, in the encoding that its size calls for.
    pub(crate) fn of(list: Quicklist, limits: Limits) -> List {
        let mut list = List::Quick(Box::new(list));
        list.try_pack(limits, false);
        list
    }

    pub(crate) fn encoding_name(&self) -> &'static str {
        match self {
            List::Packed(_) => "listpack",
            List::Quick(_) => "quicklist",
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            List::Packed(list) => list.len(),
            List::Quick(list) => list.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            List::Packed(list) => list.is_empty(),
            List::Quick(list) => list.is_empty(),
        }
    }

    /// Number of allocations that freeing it takes, roughly.
    pub(crate) fn free_effort(&self) -> usize {
        match self {
            List::Packed(_) => 1,
            List::Quick(list) => list.node_count(),
        }
    }

    /// Bytes of memory besides itself; for a long list an estimate from so many nodes.
    pub(crate) fn mem_bytes_sampled(&self, samples: usize) -> usize {
        match self {
            List::Packed(list) => list.capacity(),
            List::Quick(list) => size_of::<Quicklist>() + list.mem_bytes_sampled(samples),
        }
    }

    /// To be called before `count` elements of `bytes` in all are added (or replace others).
    pub(crate) fn will_grow(&mut self, bytes: usize, count: usize, limits: Limits) {
        if let List::Packed(list) = self
            && limits.exceeds(list.total_bytes() + bytes, list.len() + count)
        {
            let list = std::mem::take(list);
            *self = List::Quick(Box::new(Quicklist::from_bodies([Body::Packed(list)])));
        }
    }

    /// To be called after elements were removed or replaced.
    pub(crate) fn did_shrink(&mut self, limits: Limits) {
        self.try_pack(limits, true);
    }

    /// To be called on a new list after filling it.
    pub(crate) fn fit(&mut self, limits: Limits) {
        self.try_pack(limits, false);
    }

    /// Makes a listpack of a quicklist that is small enough; one that shrinks has to be well below the limit.
    fn try_pack(&mut self, limits: Limits, shrinking: bool) {
        let List::Quick(list) = self else { return };
        let Some(BodyView::Packed(packed)) = list.single() else { return };
        let (bytes, count) = (packed.total_bytes(), list.len());
        let too_large = if shrinking { limits.exceeds_half(bytes, count) } else { limits.exceeds(bytes, count) };
        if !too_large && let Some(Body::Packed(packed)) = std::mem::take(&mut **list).into_single() {
            *self = List::Packed(packed);
        }
    }

    /// Adds an element; see `will_grow`.
    pub(crate) fn push(&mut self, end: End, text: &[u8], limits: Limits) {
        match (self, end) {
            (List::Packed(list), End::Head) => drop(list.push_front(text)),
            (List::Packed(list), End::Tail) => drop(list.push_back(text)),
            (List::Quick(list), End::Head) => list.push_front(text, limits),
            (List::Quick(list), End::Tail) => list.push_back(text, limits),
        }
    }

    /// Adds an element at an end; a large one is not copied.
    pub(crate) fn push_owned(&mut self, end: End, text: Vec<u8>, limits: Limits) {
        match self {
            List::Packed(_) => self.push(end, &text, limits),
            List::Quick(list) => list.push(text.into(), end == End::Head, limits),
        }
    }

    /// Removes the element at an end and returns it; a large one is not copied.
    pub(crate) fn take(&mut self, end: End) -> Option<Vec<u8>> {
        if let List::Quick(list) = self
            && let Some(text) = list.take_plain(end == End::Head)
        {
            return Some(text);
        }
        self.pop(end, |item| item.to_vec())
    }

    /// Removes the element at an end and calls `f` with it.
    pub(crate) fn pop<R>(&mut self, end: End, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        match (self, end) {
            (List::Packed(list), End::Head) => list.pop_front(f),
            (List::Packed(list), End::Tail) => list.pop_back(f),
            (List::Quick(list), End::Head) => list.pop_front(f),
            (List::Quick(list), End::Tail) => list.pop_back(f),
        }
    }

    /// An index from the beginning, for one that may be negative and count from the end; `None` if out of range.
    pub(crate) fn index(&self, index: i64) -> Option<usize> {
        let len = self.len();
        let from_start = if index < 0 { index.checked_add_unsigned(len as u64)? } else { index };
        usize::try_from(from_start).ok().filter(|i| *i < len)
    }

    /// Calls `f` with the element of an index.
    pub(crate) fn get<R>(&self, index: usize, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        match self {
            List::Packed(list) => i64::try_from(index).ok().and_then(|i| list.seek(i)).map(|pos| f(list.get(pos))),
            List::Quick(list) => list.get(index, f),
        }
    }

    /// Replaces an element. False if there is no such index. See `will_grow`.
    pub(crate) fn set(&mut self, index: usize, text: &[u8], limits: Limits) -> bool {
        match self {
            List::Packed(list) => match i64::try_from(index).ok().and_then(|i| list.seek(i)) {
                Some(pos) => {
                    list.replace(pos, text);
                    true
                }
                None => false,
            },
            List::Quick(list) => list.set(index, text, limits),
        }
    }

    /// Adds an element before the one of an index, or at the end. See `will_grow`.
    pub(crate) fn insert(&mut self, index: usize, text: &[u8], limits: Limits) {
        match self {
            List::Packed(list) => match i64::try_from(index).ok().and_then(|i| list.seek(i)) {
                Some(pos) => drop(list.insert_before(pos, text)),
                None => drop(list.push_back(text)),
            },
            List::Quick(list) => list.insert(index, text, limits),
        }
    }

    /// Removes up to `count` elements from an index on.
    pub(crate) fn remove_range(&mut self, start: usize, count: usize) {
        match self {
            List::Packed(list) => drop(i64::try_from(start).map(|i| list.remove_range(i, count))),
            List::Quick(list) => list.remove_range(start, count),
        }
    }

    /// Removes up to `max` elements with this text, the first ones or (`from_back`) the last ones. Returns how many.
    pub(crate) fn remove_matching(&mut self, text: &[u8], max: usize, from_back: bool) -> usize {
        match self {
            List::Packed(list) => quicklist::remove_matching(list, text, max, from_back),
            List::Quick(list) => list.remove_matching(text, max, from_back),
        }
    }

    /// The elements from an index on towards the end.
    pub(crate) fn walk(&self, index: usize) -> Walk<'_> {
        match self {
            List::Packed(list) => Walk::packed(list, index),
            List::Quick(list) => list.walk(index),
        }
    }

    /// The elements from an index on towards the beginning.
    pub(crate) fn walk_back(&self, index: usize) -> Walk<'_> {
        match self {
            List::Packed(list) => Walk::packed_back(list, index),
            List::Quick(list) => list.walk_back(index),
        }
    }
}
