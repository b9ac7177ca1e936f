//! Going through the elements of a list.

use super::node::Node;
use super::{Body, BodyView};
use crate::structs::listpack::{self, Item, Listpack, Pos, dense};
use std::collections::vec_deque;

fn place_in(list: &Listpack, offset: usize) -> Option<Pos> {
    i64::try_from(offset).ok().and_then(|i| list.seek(i))
}

/// What is left of the node a walk is in.
enum Run<'a> {
    None,
    One(Option<&'a [u8]>),
    Many(listpack::Iter<'a>),
    /// Forwards.
    Resting(dense::Iter<'a>),
    /// A copy of a compressed element; `true`: it was returned.
    OpenedOne(Vec<u8>, bool),
    Opened(Listpack, Option<Pos>),
}

impl<'a> Run<'a> {
    /// The elements of a body from an offset on, or all of them.
    fn of(body: BodyView<'a>, offset: Option<usize>, reverse: bool) -> Run<'a> {
        match body {
            BodyView::Packed(list) => Run::packed(list, offset, reverse),
            BodyView::Plain(bytes) => Run::One(Some(bytes)),
            BodyView::Dense(dense) if reverse => Run::opened(dense.open(), offset, reverse),
            BodyView::Dense(dense) => {
                let mut items = dense.iter();
                items.skip_elements(offset.unwrap_or(0));
                Run::Resting(items)
            }
            BodyView::Lzf(lzf) => match lzf.open() {
                Body::Packed(list) => Run::opened(list, offset, reverse),
                Body::Plain(bytes) => Run::OpenedOne(bytes, false),
            },
        }
    }

    fn opened(list: Listpack, offset: Option<usize>, reverse: bool) -> Run<'a> {
        let at = match offset {
            Some(offset) => place_in(&list, offset),
            None if reverse => list.last(),
            None => list.first(),
        };
        Run::Opened(list, at)
    }

    fn packed(list: &'a Listpack, offset: Option<usize>, reverse: bool) -> Run<'a> {
        match offset {
            None => Run::Many(list.iter()),
            Some(offset) => match place_in(list, offset) {
                Some(pos) if reverse => Run::Many(list.iter_to(pos)),
                Some(pos) => Run::Many(list.iter_from(pos)),
                None => Run::None,
            },
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Run::None => true,
            Run::One(bytes) => bytes.is_none(),
            Run::Many(items) => items.is_over(),
            Run::Resting(items) => items.is_over(),
            Run::OpenedOne(_, shown) => *shown,
            Run::Opened(_, at) => at.is_none(),
        }
    }
}

/// Goes past the next element for which `f` is true. Returns whether there is one. Counts `left` down.
fn position_in<'a>(
    items: &mut impl Iterator<Item = Item<'a>>,
    left: &mut usize,
    f: &mut impl FnMut(Item<'_>) -> bool,
) -> bool {
    items.take(*left).any(|item| {
        *left -= 1;
        f(item)
    })
}

/// Goes through elements in one direction. Not an iterator: an element may be stored in the walk itself, and so is
/// valid only until the next step.
pub(crate) struct Walk<'a> {
    current: Run<'a>,
    /// The nodes that are still to come; `None` for a lone listpack.
    nodes: Option<vec_deque::Iter<'a, Node>>,
    reverse: bool,
    /// Number of elements still to return.
    left: usize,
}

impl<'a> Walk<'a> {
    pub(super) fn nothing() -> Walk<'a> {
        Walk { current: Run::None, nodes: None, reverse: false, left: 0 }
    }

    /// The elements of a node from an offset on, and then those of the other nodes.
    pub(super) fn of(node: BodyView<'a>, offset: usize, others: vec_deque::Iter<'a, Node>, reverse: bool) -> Walk<'a> {
        let current = Run::of(node, Some(offset), reverse);
        Walk { current, nodes: Some(others), reverse, left: usize::MAX }
    }

    /// The elements of a lone listpack from an index on towards the end.
    pub(crate) fn packed(list: &'a Listpack, index: usize) -> Walk<'a> {
        Walk { current: Run::packed(list, Some(index), false), nodes: None, reverse: false, left: usize::MAX }
    }

    /// The elements of a lone listpack from an index on towards the beginning.
    pub(crate) fn packed_back(list: &'a Listpack, index: usize) -> Walk<'a> {
        Walk { current: Run::packed(list, Some(index), true), nodes: None, reverse: true, left: usize::MAX }
    }

    /// Ends after so many elements.
    pub(crate) fn take(self, count: usize) -> Walk<'a> {
        Walk { left: self.left.min(count), ..self }
    }

    /// The next element.
    pub(crate) fn step(&mut self) -> Option<Item<'_>> {
        if self.left == 0 {
            return None;
        }
        while self.current.is_over() {
            let nodes = self.nodes.as_mut()?;
            let node = if self.reverse { nodes.next_back() } else { nodes.next() };
            self.current = Run::of(node?.view(), None, self.reverse);
        }
        self.left -= 1;
        match &mut self.current {
            Run::None => None,
            Run::One(bytes) => bytes.take().map(Item::Str),
            Run::Many(items) => {
                if self.reverse {
                    items.next_back()
                } else {
                    items.next()
                }
            }
            Run::Resting(items) => items.next(),
            Run::OpenedOne(bytes, shown) => {
                *shown = true;
                Some(Item::Str(bytes))
            }
            Run::Opened(list, at) => {
                let pos = at.take()?;
                *at = if self.reverse { list.prev(pos) } else { list.next(pos) };
                Some(list.get(pos))
            }
        }
    }

    pub(crate) fn for_each(mut self, mut f: impl FnMut(Item<'_>)) {
        loop {
            if let (Run::Many(items), false) = (&mut self.current, self.reverse) {
                // The rest of a node at once.
                let left = self.left;
                items.take(left).for_each(|item| {
                    self.left -= 1;
                    f(item);
                });
            } else if let Run::Resting(items) = &mut self.current {
                let left = self.left;
                items.take(left).for_each(|item| {
                    self.left -= 1;
                    f(item);
                });
            }
            let Some(item) = self.step() else { return };
            f(item);
        }
    }

    /// How many elements come before the next one for which `f` is true; the walk goes on after that one.
    pub(crate) fn position(&mut self, mut f: impl FnMut(Item<'_>) -> bool) -> Option<usize> {
        let before = self.left;
        loop {
            // The rest of a node at once.
            let found = match &mut self.current {
                Run::Many(items) if !self.reverse => position_in(items, &mut self.left, &mut f),
                Run::Resting(items) => position_in(items, &mut self.left, &mut f),
                _ => false,
            };
            if found || f(self.step()?) {
                return Some(before - self.left - 1);
            }
        }
    }
}
