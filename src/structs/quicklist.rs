//! Long lists: a row of nodes, each a listpack of a few kilobytes, or a single element too large for one.
//!
//! Both ends are cheap, the middle costs a walk over the nodes' counts and then within one node. What a node may hold is
//! told by [`Limits`] with each change, so that a changed configuration applies from the next change on.
//!
//! Invariant: no node is empty, and the counts of nodes and list are right.

use std::collections::VecDeque;
use std::collections::vec_deque;

use super::listpack::{self, Item, Listpack, Pos};

#[cfg(test)]
mod tests;

/// Bytes a node may have under the fill factors -1 to -5.
const SIZES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];
/// Bytes that a node may have when its fill factor counts elements.
const SAFE_SIZE: usize = 8192;
/// Largest number of elements that a fill factor asks for.
const MAX_FILL: i32 = 1 << 15;
/// Header and end of a listpack.
const LISTPACK_OVERHEAD: usize = 7;

/// How large nodes may become: `list-max-listpack-size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// At most so many elements; below 0, a size class from -1 (4 kB) to -5 (64 kB).
    pub fill: i32,
    /// Elements of at least so many bytes never share a node with others.
    pub plain_from: usize,
}

impl Limits {
    /// Whether a node of this size has more than is allowed.
    pub fn exceeds(&self, bytes: usize, count: usize) -> bool {
        match self.max_bytes() {
            Some(max) => bytes > max,
            None => bytes > SAFE_SIZE || count > self.max_count(),
        }
    }

    /// Whether a node of this size has more than half of what is allowed.
    pub fn exceeds_half(&self, bytes: usize, count: usize) -> bool {
        match self.max_bytes() {
            Some(max) => bytes > max / 2,
            None => bytes > SAFE_SIZE || count > self.max_count() / 2,
        }
    }

    fn max_bytes(&self) -> Option<usize> {
        let class = usize::try_from(self.fill.checked_neg()?.checked_sub(1)?).ok()?;
        Some(SIZES[class.min(SIZES.len() - 1)])
    }

    fn max_count(&self) -> usize {
        self.fill.clamp(1, MAX_FILL) as usize
    }

    /// Whether an element gets a node of its own in any case.
    fn is_plain(&self, text: &[u8]) -> bool {
        text.len() >= self.plain_from || self.exceeds(LISTPACK_OVERHEAD + Item::of(text).encoded_len(), 1)
    }
}

/// Elements that lie together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Packed(Listpack),
    /// One element.
    Plain(Vec<u8>),
}

#[derive(Clone, Debug)]
struct Node {
    count: usize,
    body: Body,
}

impl Node {
    fn new(body: Body) -> Node {
        let count = match &body {
            Body::Packed(list) => list.len(),
            Body::Plain(_) => 1,
        };
        Node { count, body }
    }

    fn of(text: &[u8], limits: Limits) -> Node {
        if limits.is_plain(text) {
            return Node::new(Body::Plain(text.to_vec()));
        }
        let mut list = Listpack::new();
        list.push_back(text);
        Node::new(Body::Packed(list))
    }

    /// The listpack, if it has room for an element of this text.
    fn room_for(&mut self, text: &[u8], limits: Limits) -> Option<&mut Listpack> {
        let count = self.count + 1;
        match &mut self.body {
            Body::Packed(list)
                if !limits.is_plain(text)
                    && !limits.exceeds(list.total_bytes() + Item::of(text).encoded_len(), count) =>
            {
                Some(list)
            }
            Body::Packed(_) | Body::Plain(_) => None,
        }
    }

    /// Removes `count` elements from `offset` on.
    fn remove_range(&mut self, offset: usize, count: usize) {
        self.count -= count;
        match &mut self.body {
            Body::Packed(list) => {
                list.remove_range(offset as i64, count);
            }
            Body::Plain(_) => debug_assert_eq!((offset, self.count), (0, 0)),
        }
    }

    /// Takes the elements from `offset` on into a node of their own.
    fn split_off(&mut self, offset: usize) -> Node {
        let mut rest = self.clone();
        rest.remove_range(0, offset);
        self.remove_range(offset, self.count - offset);
        rest
    }
}

/// A place between the nodes of a list and within one.
#[derive(Clone, Copy, Debug)]
struct Place {
    node: usize,
    offset: usize,
}

/// A list. See the file's head.
#[derive(Clone, Debug, Default)]
pub struct Quicklist {
    nodes: VecDeque<Node>,
    len: usize,
}

impl Quicklist {
    pub fn new() -> Quicklist {
        Quicklist::default()
    }

    /// A list of these elements, in order. Empty listpacks are left out.
    pub fn from_bodies(bodies: impl IntoIterator<Item = Body>) -> Quicklist {
        let nodes: VecDeque<Node> = bodies.into_iter().map(Node::new).filter(|n| n.count > 0).collect();
        let len = nodes.iter().map(|n| n.count).sum();
        Quicklist { nodes, len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// What the nodes hold, in order.
    pub fn bodies(&self) -> impl ExactSizeIterator<Item = &Body> {
        self.nodes.iter().map(|n| &n.body)
    }

    /// The elements as one listpack when they lie in one node.
    pub fn single(&self) -> Option<&Body> {
        if self.nodes.len() == 1 { self.nodes.front().map(|n| &n.body) } else { None }
    }

    /// The elements of a list that has one node.
    pub fn into_single(mut self) -> Option<Body> {
        if self.nodes.len() == 1 { self.nodes.pop_front().map(|n| n.body) } else { None }
    }

    /// Bytes of memory the list takes beside itself.
    pub fn mem_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.nodes.iter().map(|n| body_bytes(&n.body)).sum::<usize>()
    }

    /// As `mem_bytes`, from so many nodes at the beginning.
    pub fn mem_bytes_sampled(&self, samples: usize) -> usize {
        let sampled = samples.clamp(1, self.nodes.len().max(1));
        let bytes: usize = self.nodes.iter().take(sampled).map(|n| body_bytes(&n.body)).sum();
        self.nodes.capacity() * size_of::<Node>() + bytes / sampled * self.nodes.len()
    }

    pub fn push_back(&mut self, text: &[u8], limits: Limits) {
        self.len += 1;
        if let Some(last) = self.nodes.back_mut() {
            if let Some(list) = last.room_for(text, limits) {
                list.push_back(text);
                last.count += 1;
                return;
            }
            // It is full: what it has reserved beyond that is not going to be used.
            if let Body::Packed(list) = &mut last.body {
                list.shrink_to_fit();
            }
        }
        self.nodes.push_back(Node::of(text, limits));
    }

    pub fn push_front(&mut self, text: &[u8], limits: Limits) {
        self.len += 1;
        if let Some(first) = self.nodes.front_mut() {
            if let Some(list) = first.room_for(text, limits) {
                list.push_front(text);
                first.count += 1;
                return;
            }
            if let Body::Packed(list) = &mut first.body {
                list.shrink_to_fit();
            }
        }
        self.nodes.push_front(Node::of(text, limits));
    }

    /// Finds the place of an index that is inside the list, from the nearer end.
    fn locate(&self, index: usize) -> Place {
        debug_assert!(index < self.len);
        if index < self.len / 2 {
            let mut offset = index;
            for (node, n) in self.nodes.iter().enumerate() {
                if offset < n.count {
                    return Place { node, offset };
                }
                offset -= n.count;
            }
        } else {
            let mut end = self.len;
            for (node, n) in self.nodes.iter().enumerate().rev() {
                end -= n.count;
                if index >= end {
                    return Place { node, offset: index - end };
                }
            }
        }
        unreachable!("counts add up to the length")
    }

    pub fn get(&self, index: usize) -> Option<Item<'_>> {
        if index >= self.len {
            return None;
        }
        let place = self.locate(index);
        match &self.nodes[place.node].body {
            Body::Packed(list) => list.seek(place.offset as i64).map(|pos| list.get(pos)),
            Body::Plain(bytes) => Some(Item::Str(bytes)),
        }
    }

    /// Puts another element in the place of one. False if there is no such index.
    pub fn set(&mut self, index: usize, text: &[u8], limits: Limits) -> bool {
        if index >= self.len {
            return false;
        }
        let Place { node, offset } = self.locate(index);
        let n = &mut self.nodes[node];
        if let Body::Packed(list) = &mut n.body
            && let Some(pos) = list.seek(offset as i64)
        {
            let grown = list.total_bytes() + Item::of(text).encoded_len() - list.get(pos).encoded_len();
            if !limits.is_plain(text) && (n.count == 1 || !limits.exceeds(grown, 1)) {
                list.replace(pos, text);
                return true;
            }
        }
        let new = Node::of(text, limits);
        if self.nodes[node].count == 1 {
            self.nodes[node] = new;
            self.merge_around(node, limits);
            return true;
        }
        self.len -= 1;
        self.nodes[node].remove_range(offset, 1);
        self.insert_node(Place { node, offset }, new, limits);
        true
    }

    /// Adds an element before the one of an index, or at the end.
    pub fn insert(&mut self, index: usize, text: &[u8], limits: Limits) {
        if index == 0 {
            return self.push_front(text, limits);
        }
        if index >= self.len {
            return self.push_back(text, limits);
        }
        let place = self.locate(index);
        let n = &mut self.nodes[place.node];
        if let Some(list) = n.room_for(text, limits)
            && let Some(pos) = list.seek(place.offset as i64)
        {
            list.insert_before(pos, text);
            n.count += 1;
            self.len += 1;
            return;
        }
        if place.offset == 0 {
            let before = &mut self.nodes[place.node - 1];
            if let Some(list) = before.room_for(text, limits) {
                list.push_back(text);
                before.count += 1;
                self.len += 1;
                return;
            }
        }
        self.insert_node(place, Node::of(text, limits), limits);
    }

    /// Puts a node at a place, which may be in the middle or at the end of another one.
    fn insert_node(&mut self, place: Place, new: Node, limits: Limits) {
        self.len += new.count;
        let at = match place.offset {
            0 => place.node,
            offset if offset == self.nodes[place.node].count => place.node + 1,
            offset => {
                let rest = self.nodes[place.node].split_off(offset);
                self.nodes.insert(place.node + 1, rest);
                place.node + 1
            }
        };
        self.nodes.insert(at, new);
        self.merge_around(at, limits);
    }

    /// Joins a node with its neighbours as far as the limits let them.
    fn merge_around(&mut self, node: usize, limits: Limits) {
        self.merge_with_next(node, limits);
        if let Some(before) = node.checked_sub(1) {
            self.merge_with_next(before, limits);
        }
    }

    fn merge_with_next(&mut self, node: usize, limits: Limits) {
        let (Some(a), Some(b)) = (self.nodes.get(node), self.nodes.get(node + 1)) else { return };
        let (Body::Packed(left), Body::Packed(right)) = (&a.body, &b.body) else { return };
        let bytes = left.total_bytes() + right.total_bytes() - LISTPACK_OVERHEAD;
        if limits.exceeds(bytes, a.count + b.count) {
            return;
        }
        let Some(Node { count, body: Body::Packed(right) }) = self.nodes.remove(node + 1) else { return };
        let a = &mut self.nodes[node];
        if let Body::Packed(left) = &mut a.body {
            left.append(&right);
            a.count += count;
        }
    }

    /// Removes up to `count` elements from an index on.
    pub fn remove_range(&mut self, start: usize, count: usize) {
        let count = count.min(self.len.saturating_sub(start));
        if count == 0 {
            return;
        }
        let Place { mut node, offset } = self.locate(start);
        self.len -= count;
        let mut left = count;
        if offset > 0 {
            let here = left.min(self.nodes[node].count - offset);
            self.nodes[node].remove_range(offset, here);
            left -= here;
            node += 1;
        }
        let mut end = node;
        while left > 0 && self.nodes[end].count <= left {
            left -= self.nodes[end].count;
            end += 1;
        }
        self.nodes.drain(node..end);
        if left > 0 {
            self.nodes[node].remove_range(0, left);
        }
    }

    /// Removes the first element and shows it to `f`.
    pub fn pop_front<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let first = self.nodes.front_mut()?;
        let shown = match &mut first.body {
            Body::Packed(list) => pop_front(list, f)?,
            Body::Plain(bytes) => f(Item::Str(bytes)),
        };
        first.count -= 1;
        self.len -= 1;
        if first.count == 0 {
            self.nodes.pop_front();
        }
        Some(shown)
    }

    /// Removes the last element and shows it to `f`.
    pub fn pop_back<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let last = self.nodes.back_mut()?;
        let shown = match &mut last.body {
            Body::Packed(list) => pop_back(list, f)?,
            Body::Plain(bytes) => f(Item::Str(bytes)),
        };
        last.count -= 1;
        self.len -= 1;
        if last.count == 0 {
            self.nodes.pop_back();
        }
        Some(shown)
    }

    /// Removes up to `max` elements of this text, the first ones or, `from_back`, the last ones. How many.
    pub fn remove_matching(&mut self, text: &[u8], max: usize, from_back: bool) -> usize {
        let mut removed = 0;
        let mut emptied = false;
        for i in 0..self.nodes.len() {
            if removed == max {
                break;
            }
            let n = if from_back { self.nodes.len() - 1 - i } else { i };
            let n = &mut self.nodes[n];
            let here = match &mut n.body {
                Body::Packed(list) => remove_matching(list, text, max - removed, from_back),
                Body::Plain(bytes) => usize::from(bytes == text),
            };
            n.count -= here;
            removed += here;
            emptied |= n.count == 0;
        }
        self.len -= removed;
        if emptied {
            self.nodes.retain(|n| n.count > 0);
        }
        removed
    }

    /// The elements from an index on towards the end.
    pub fn walk(&self, index: usize) -> Walk<'_> {
        if index >= self.len {
            return Walk { current: Run::None, nodes: None, reverse: false };
        }
        let Place { node, offset } = self.locate(index);
        let current = match &self.nodes[node].body {
            Body::Packed(list) => walk_packed(list, offset),
            Body::Plain(bytes) => Run::One(bytes),
        };
        Walk { current, nodes: Some(self.nodes.range(node + 1..)), reverse: false }
    }

    /// The elements from an index on towards the beginning.
    pub fn walk_back(&self, index: usize) -> Walk<'_> {
        if index >= self.len {
            return Walk { current: Run::None, nodes: None, reverse: true };
        }
        let Place { node, offset } = self.locate(index);
        let current = match &self.nodes[node].body {
            Body::Packed(list) => walk_packed_back(list, offset),
            Body::Plain(bytes) => Run::One(bytes),
        };
        Walk { current, nodes: Some(self.nodes.range(..node)), reverse: true }
    }

    /// Asserts what the file's head promises.
    pub fn check_invariants(&self) {
        let mut len = 0;
        for n in &self.nodes {
            assert!(n.count > 0, "an empty node");
            match &n.body {
                Body::Packed(list) => {
                    list.check_invariants();
                    assert_eq!(list.len(), n.count);
                }
                Body::Plain(_) => assert_eq!(n.count, 1),
            }
            len += n.count;
        }
        assert_eq!(len, self.len);
    }
}

fn body_bytes(body: &Body) -> usize {
    match body {
        Body::Packed(list) => list.capacity(),
        Body::Plain(bytes) => bytes.capacity(),
    }
}

/// Removes the first element of a listpack and shows it to `f`.
pub fn pop_front<R>(list: &mut Listpack, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
    let pos = list.first()?;
    let shown = f(list.get(pos));
    list.remove(pos);
    Some(shown)
}

/// Removes the last element of a listpack and shows it to `f`.
pub fn pop_back<R>(list: &mut Listpack, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
    let pos = list.last()?;
    let shown = f(list.get(pos));
    list.remove(pos);
    Some(shown)
}

/// Removes up to `max` elements of this text from a listpack, from either end. How many.
pub fn remove_matching(list: &mut Listpack, text: &[u8], max: usize, from_back: bool) -> usize {
    let wanted = Item::of(text);
    let mut removed = 0;
    if !from_back {
        let mut from = list.first();
        while let Some(at) = from
            && removed < max
            && let Some(found) = list.find(at, text, 0)
        {
            from = list.remove(found);
            removed += 1;
        }
        return removed;
    }
    let mut at = list.last();
    while let Some(pos) = at
        && removed < max
    {
        at = list.prev(pos);
        let item = list.get(pos);
        if item == wanted || matches!(item, Item::Str(bytes) if bytes == text) {
            list.remove(pos);
            removed += 1;
        }
    }
    removed
}

fn place_in(list: &Listpack, offset: usize) -> Option<Pos> {
    i64::try_from(offset).ok().and_then(|i| list.seek(i))
}

fn walk_packed(list: &Listpack, offset: usize) -> Run<'_> {
    place_in(list, offset).map_or(Run::None, |pos| Run::Many(list.iter_from(pos)))
}

fn walk_packed_back(list: &Listpack, offset: usize) -> Run<'_> {
    place_in(list, offset).map_or(Run::None, |pos| Run::Many(list.iter_to(pos)))
}

/// What is left of the node a walk is in.
enum Run<'a> {
    None,
    One(&'a [u8]),
    Many(listpack::Iter<'a>),
}

/// Goes through elements in one direction.
pub struct Walk<'a> {
    current: Run<'a>,
    /// The nodes that are still to come; `None` for a lone listpack.
    nodes: Option<vec_deque::Iter<'a, Node>>,
    reverse: bool,
}

impl<'a> Walk<'a> {
    /// The elements of a lone listpack from an index on towards the end.
    pub fn packed(list: &'a Listpack, index: usize) -> Walk<'a> {
        Walk { current: walk_packed(list, index), nodes: None, reverse: false }
    }

    /// The elements of a lone listpack from an index on towards the beginning.
    pub fn packed_back(list: &'a Listpack, index: usize) -> Walk<'a> {
        Walk { current: walk_packed_back(list, index), nodes: None, reverse: true }
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        loop {
            match &mut self.current {
                Run::None => {}
                Run::One(bytes) => {
                    let bytes = *bytes;
                    self.current = Run::None;
                    return Some(Item::Str(bytes));
                }
                Run::Many(items) => {
                    let item = if self.reverse { items.next_back() } else { items.next() };
                    if item.is_some() {
                        return item;
                    }
                }
            }
            let nodes = self.nodes.as_mut()?;
            let node = if self.reverse { nodes.next_back() } else { nodes.next() };
            self.current = match &node?.body {
                Body::Packed(list) => Run::Many(list.iter()),
                Body::Plain(bytes) => Run::One(bytes),
            };
        }
    }
}
