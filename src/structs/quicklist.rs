//! Long lists: a row of nodes, each a listpack of a few kilobytes, or a single element too large for one.
//!
//! Both ends are cheap; the middle costs a walk over the nodes' counts and then within one node. [`Limits`] are passed
//! with each change, so that a changed configuration applies from the next change on.
//!
//! Nodes a little away from both ends are at rest ([`Dense`](super::listpack::dense::Dense)): they are smaller, and as
//! full as they may be. Reading one backwards opens a copy; changing one opens it in place, and it stays open.
//!
//! With [`Limits::compress_depth`] nodes away from both ends are LZF streams: reading one opens a copy; changing one
//! opens it in place, and compresses it again with the same change.
//!
//! Invariant: no node is empty, the counts of nodes and list are right, and the first and last node are neither at rest nor
//! compressed.

use std::borrow::Cow;
use std::collections::VecDeque;

use super::listpack::dense::Filler;
use super::listpack::{Item, Listpack};
use node::Node;
pub(crate) use node::{Body, BodyView};
pub(crate) use walk::Walk;

mod node;
#[cfg(test)]
mod tests;
mod walk;

/// Bytes a node may have under the fill factors -1 to -5.
const SIZES: [usize; 5] = [4096, 8192, 16384, 32768, 65536];
/// Bytes that a node may have when its fill factor is a number of elements.
const SAFE_SIZE: usize = 8192;
/// Largest number of elements that a fill factor asks for.
const MAX_FILL: i32 = 1 << 15;
/// Header and end of a listpack, bytes.
const LISTPACK_OVERHEAD: usize = 7;
/// From so many nodes on, room grows by a quarter rather than doubling.
const MANY_NODES: usize = 16;
/// So many nodes at each end are not at rest, so that alternating pushes and pops do not open nodes again and again.
const OPEN_NODES: usize = 2;

/// Limits on nodes, from the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// `list-max-listpack-size`: most elements of a node; below 0, a size class from -1 (4 kB) to -5 (64 kB).
    pub(crate) fill: i32,
    /// Elements of at least so many bytes get a node of their own.
    pub(crate) plain_from: usize,
    /// `list-compress-depth`: nodes farther than this from both ends are compressed; 0 compresses none.
    pub(crate) compress_depth: usize,
}

impl Limits {
    /// Whether a node of this size has more than is allowed.
    pub(crate) fn exceeds(&self, bytes: usize, count: usize) -> bool {
        match self.max_bytes() {
            Some(max) => bytes > max,
            None => bytes > SAFE_SIZE || count > self.max_count(),
        }
    }

    /// Whether a node of this size has more than half of what is allowed.
    pub(crate) fn exceeds_half(&self, bytes: usize, count: usize) -> bool {
        match self.max_bytes() {
            Some(max) => bytes > max / 2,
            None => bytes > SAFE_SIZE || count > self.max_count() / 2,
        }
    }

    fn max_bytes(&self) -> Option<usize> {
        let class = usize::try_from(self.fill.checked_neg()?.checked_sub(1)?).ok()?;
        Some(SIZES[class.min(SIZES.len() - 1)])
    }

    /// Bytes that nodes at rest may have; `None`: nodes are not put at rest, as they are compressed or hold few
    /// elements each.
    fn max_dense_bytes(&self) -> Option<usize> {
        if self.compress_depth == 0 { self.max_bytes() } else { None }
    }

    fn max_count(&self) -> usize {
        self.fill.clamp(1, MAX_FILL) as usize
    }

    /// Whether an element of this text always gets a node of its own.
    fn is_plain(&self, text: &[u8]) -> bool {
        !self.has_room(LISTPACK_OVERHEAD, 1, text, Item::of(text).encoded_len())
    }

    /// Whether an element of this text, which takes `added` bytes, may be the `count`th of a node that has so many bytes.
    #[inline]
    fn has_room(&self, bytes: usize, count: usize, text: &[u8], added: usize) -> bool {
        text.len() < self.plain_from && !self.exceeds(bytes + added, count)
    }
}

/// A place in a list: a node and an offset in it.
#[derive(Clone, Copy, Debug)]
struct Place {
    node: usize,
    offset: usize,
}

/// A list. See the file's head.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quicklist {
    nodes: VecDeque<Node>,
    len: usize,
}

/// A list that gets whole nodes, one after the other, such as one that is read from a snapshot. Those that are no longer near
/// the end are compressed, or put at rest.
pub(crate) struct Growing {
    limits: Limits,
    /// Most nodes at each end that stay as they are.
    open: usize,
    nodes: VecDeque<Node>,
    filler: Option<Filler>,
    /// The last ones, which come after what is in `filler`.
    recent: VecDeque<Node>,
    len: usize,
}

impl Growing {
    pub(crate) fn new(limits: Limits) -> Growing {
        let open = if limits.compress_depth == 0 { OPEN_NODES } else { limits.compress_depth };
        let (nodes, recent) = Default::default();
        Growing { limits, open, nodes, filler: limits.max_dense_bytes().map(Filler::new), recent, len: 0 }
    }

    /// Adds a node, unless it is an empty listpack.
    pub(crate) fn push(&mut self, body: Body) {
        let mut node = Node::new(body);
        if node.count() == 0 {
            return;
        }
        self.len += node.count();
        if self.nodes.len() < self.open {
            self.nodes.push_back(node);
            return;
        }
        node.shrink_to_fit();
        self.recent.push_back(node);
        if self.recent.len() > self.open
            && let Some(node) = self.recent.pop_front()
        {
            self.put_away(node);
        }
    }

    fn put_away(&mut self, mut node: Node) {
        let nodes = &mut self.nodes;
        if self.limits.compress_depth > 0 {
            node.compress();
        }
        if let Some(filler) = &mut self.filler {
            if let Node::Packed { list, .. } = &node
                && node.is_worth_resting(filler.most())
            {
                filler.add(list, |dense, count| nodes.push_back(Node::Dense { count, dense }));
                return;
            }
            nodes.extend(filler.finish().map(|(dense, count)| Node::Dense { count, dense }));
        }
        nodes.push_back(node);
    }

    /// The list, which is whole.
    pub(crate) fn done(mut self) -> Quicklist {
        let last = self.filler.and_then(|mut filler| filler.finish());
        self.nodes.extend(last.map(|(dense, count)| Node::Dense { count, dense }));
        self.nodes.extend(self.recent);
        self.nodes.shrink_to_fit();
        Quicklist { nodes: self.nodes, len: self.len }
    }
}

impl Quicklist {
    pub(crate) fn new() -> Quicklist {
        Quicklist::default()
    }

    /// A list of these elements, in order. Empty listpacks are left out.
    pub(crate) fn from_bodies(bodies: impl IntoIterator<Item = Body>) -> Quicklist {
        let mut nodes: VecDeque<Node> = bodies.into_iter().map(Node::new).filter(|n| n.count() > 0).collect();
        nodes.shrink_to_fit();
        let len = nodes.iter().map(Node::count).sum();
        let mut list = Quicklist { nodes, len };
        list.open_ends();
        list
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// What the nodes hold, in order.
    pub(crate) fn bodies(&self) -> impl ExactSizeIterator<Item = BodyView<'_>> {
        self.nodes.iter().map(Node::view)
    }

    /// To be called after a node was added at an end: puts the node that is no longer near the end at rest, after
    /// filling up the resting node next to it.
    fn rest_behind(&mut self, at_front: bool, limits: Limits) {
        let Some(most) = limits.max_dense_bytes() else { return };
        let len = self.nodes.len();
        if len <= 2 * OPEN_NODES {
            return;
        }
        let (at, behind) =
            if at_front { (OPEN_NODES, OPEN_NODES + 1) } else { (len - 1 - OPEN_NODES, len - 2 - OPEN_NODES) };
        if !self.nodes[at].is_worth_resting(most) {
            return;
        }
        let mut node = std::mem::replace(&mut self.nodes[at], Node::new(Body::Packed(Listpack::new())));
        self.nodes[behind].take_in(&mut node, at_front, most);
        if node.count() == 0 {
            self.nodes.remove(at);
        } else {
            node.rest();
            self.nodes[at] = node;
        }
    }

    /// To be called after a change of the nodes `changed`: inner ones free unused room, and are compressed if deep
    /// inside; nodes near the ends get their state after nodes came or went there.
    fn settle(&mut self, limits: Limits, changed: std::ops::Range<usize>) {
        let (depth, len) = (limits.compress_depth, self.nodes.len());
        for i in changed.start.max(1)..changed.end.min(len.saturating_sub(1)) {
            self.nodes[i].shrink_to_fit();
        }
        self.open_ends();
        if depth == 0 || len <= depth.saturating_mul(2) {
            return;
        }
        let inner_end = len - depth;
        for i in 1..depth {
            self.nodes[i].open();
            self.nodes[len - 1 - i].open();
        }
        self.nodes[depth].compress();
        self.nodes[inner_end - 1].compress();
        for i in changed.start.max(depth)..changed.end.min(inner_end) {
            self.nodes[i].compress();
        }
    }

    fn open_ends(&mut self) {
        if let Some(first) = self.nodes.front_mut() {
            first.open();
        }
        if let Some(last) = self.nodes.back_mut() {
            last.open();
        }
    }

    /// The elements if there is only one node.
    pub(crate) fn single(&self) -> Option<BodyView<'_>> {
        if self.nodes.len() == 1 { self.nodes.front().map(Node::view) } else { None }
    }

    /// The elements of a list that has only one node.
    pub(crate) fn into_single(mut self) -> Option<Body> {
        if self.nodes.len() == 1 { self.nodes.pop_front().map(Node::into_body) } else { None }
    }

    /// Bytes of memory the list takes besides itself.
    pub(crate) fn mem_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>() + self.bodies().map(|body| body.mem_bytes()).sum::<usize>()
    }

    /// As `mem_bytes`, estimated from so many nodes at the beginning.
    pub(crate) fn mem_bytes_sampled(&self, samples: usize) -> usize {
        let sampled = samples.clamp(1, self.nodes.len().max(1));
        let bytes: usize = self.bodies().take(sampled).map(|body| body.mem_bytes()).sum();
        self.nodes.capacity() * size_of::<Node>() + bytes / sampled * self.nodes.len()
    }

    /// Makes room for one more node.
    fn make_room(&mut self) {
        let len = self.nodes.len();
        if len == self.nodes.capacity() && len >= MANY_NODES {
            self.nodes.reserve_exact(len / 4);
        }
    }

    pub(crate) fn push_back(&mut self, text: &[u8], limits: Limits) {
        self.push(text.into(), false, limits);
    }

    pub(crate) fn push_front(&mut self, text: &[u8], limits: Limits) {
        self.push(text.into(), true, limits);
    }

    /// Adds an element at an end. One that gets a node of its own is not copied if it is owned.
    pub(crate) fn push(&mut self, text: Cow<'_, [u8]>, at_front: bool, limits: Limits) {
        self.len += 1;
        let end = if at_front { self.nodes.front_mut() } else { self.nodes.back_mut() };
        let new = match end {
            Some(end) => {
                if end.push(&text, at_front, limits) {
                    return;
                }
                end.following(text, limits)
            }
            None => Node::of(text, limits, 0),
        };
        self.make_room();
        if at_front {
            self.nodes.push_front(new)
        } else {
            self.nodes.push_back(new)
        }
        self.settle(limits, 0..0);
        self.rest_behind(at_front, limits);
    }

    /// Finds the place of an index that is inside the list, from the nearer end.
    fn locate(&self, index: usize) -> Place {
        debug_assert!(index < self.len);
        if index < self.len / 2 {
            let mut offset = index;
            for (node, n) in self.nodes.iter().enumerate() {
                if offset < n.count() {
                    return Place { node, offset };
                }
                offset -= n.count();
            }
        } else {
            let mut end = self.len;
            for (node, n) in self.nodes.iter().enumerate().rev() {
                end -= n.count();
                if index >= end {
                    return Place { node, offset: index - end };
                }
            }
        }
        unreachable!("counts add up to the length")
    }

    /// Calls `f` with the element of an index.
    pub(crate) fn get<R>(&self, index: usize, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        self.walk(index).step().map(f)
    }

    /// Replaces an element. False if there is no such index.
    pub(crate) fn set(&mut self, index: usize, text: &[u8], limits: Limits) -> bool {
        if index >= self.len {
            return false;
        }
        let Place { node, offset } = self.locate(index);
        let n = &mut self.nodes[node];
        let count = n.count();
        if let Some(list) = n.edit()
            && let Some(pos) = list.seek(offset as i64)
        {
            let grown = list.total_bytes() + Item::of(text).encoded_len() - list.get(pos).encoded_len();
            // A node that was at rest may have more bytes than one that never was.
            let lens_behind = if limits.max_dense_bytes().is_some() { count } else { 0 };
            if !limits.is_plain(text) && (count == 1 || !limits.exceeds(grown - lens_behind, 1)) {
                list.replace(pos, text);
                self.settle(limits, node..node + 1);
                return true;
            }
        }
        let new = Node::of(text.into(), limits, 0);
        if self.nodes[node].count() == 1 {
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
    pub(crate) fn insert(&mut self, index: usize, text: &[u8], limits: Limits) {
        if index == 0 {
            return self.push_front(text, limits);
        }
        if index >= self.len {
            return self.push_back(text, limits);
        }
        let place = self.locate(index);
        let n = &mut self.nodes[place.node];
        if let Some(list) = n.room_for(text, Item::of(text), limits)
            && let Some(pos) = list.seek(place.offset as i64)
        {
            list.insert_before(pos, text);
            n.set_count(n.count() + 1);
            self.len += 1;
            return self.settle(limits, place.node..place.node + 1);
        }
        if place.offset == 0 && self.nodes[place.node - 1].push(text, false, limits) {
            self.len += 1;
            return self.settle(limits, place.node - 1..place.node + 1);
        }
        self.insert_node(place, Node::of(text.into(), limits, 0), limits);
    }

    /// Inserts a node at a place, which may be in the middle or at the end of another one.
    fn insert_node(&mut self, place: Place, new: Node, limits: Limits) {
        self.len += new.count();
        let at = match place.offset {
            0 => place.node,
            offset if offset == self.nodes[place.node].count() => place.node + 1,
            offset => {
                let rest = self.nodes[place.node].split_off(offset);
                self.make_room();
                self.nodes.insert(place.node + 1, rest);
                place.node + 1
            }
        };
        self.make_room();
        self.nodes.insert(at, new);
        self.merge_around(at, limits);
    }

    /// Merges a node with its neighbours as far as the limits allow.
    fn merge_around(&mut self, node: usize, limits: Limits) {
        self.merge_with_next(node, limits);
        if let Some(before) = node.checked_sub(1) {
            self.merge_with_next(before, limits);
        }
        // A split and an insertion change up to three nodes.
        self.settle(limits, node.saturating_sub(2)..node + 3);
    }

    fn merge_with_next(&mut self, node: usize, limits: Limits) {
        let (Some(a), Some(b)) = (self.nodes.get(node), self.nodes.get(node + 1)) else { return };
        if a.view().is_plain() || b.view().is_plain() {
            return;
        }
        let bytes = a.view().raw_len() + b.view().raw_len() - LISTPACK_OVERHEAD;
        if limits.exceeds(bytes, a.count() + b.count()) {
            return;
        }
        let Some(mut b) = self.nodes.remove(node + 1) else { return };
        let a = &mut self.nodes[node];
        if let (Some(left), Some(right)) = (a.edit(), b.edit()) {
            left.append(right);
            a.set_count(a.count() + b.count());
        }
    }

    /// Removes up to `count` elements from an index on.
    pub(crate) fn remove_range(&mut self, start: usize, count: usize) {
        let count = count.min(self.len.saturating_sub(start));
        if count == 0 {
            return;
        }
        let Place { mut node, offset } = self.locate(start);
        self.len -= count;
        let mut left = count;
        if offset > 0 {
            let here = left.min(self.nodes[node].count() - offset);
            self.nodes[node].remove_range(offset, here);
            left -= here;
            node += 1;
        }
        let mut end = node;
        while left > 0 && self.nodes[end].count() <= left {
            left -= self.nodes[end].count();
            end += 1;
        }
        self.nodes.drain(node..end);
        if left > 0 {
            self.nodes[node].remove_range(0, left);
        }
        self.open_ends();
    }

    /// Removes the element at an end and returns it, if it has a node of its own.
    pub(crate) fn take_plain(&mut self, at_front: bool) -> Option<Vec<u8>> {
        let end = if at_front { self.nodes.front_mut() } else { self.nodes.back_mut() }?;
        if !end.view().is_plain() {
            return None;
        }
        end.open();
        let node = if at_front { self.nodes.pop_front() } else { self.nodes.pop_back() }?;
        self.len -= 1;
        self.open_ends();
        match node.into_body() {
            Body::Plain(bytes) => Some(bytes),
            Body::Packed(_) => unreachable!("it is plain"),
        }
    }

    /// Removes the first element and calls `f` with it.
    pub(crate) fn pop_front<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let first = self.nodes.front_mut()?;
        first.open();
        let shown = match first {
            Node::Packed { list, incompressible, .. } => {
                *incompressible = false;
                list.pop_front(f)?
            }
            Node::Plain { plain, .. } => f(Item::Str(&plain.bytes)),
            Node::Dense { .. } | Node::Lzf { .. } => unreachable!("it was opened"),
        };
        let left = first.count() - 1;
        first.set_count(left);
        self.len -= 1;
        if left == 0 {
            self.nodes.pop_front();
            self.open_ends();
        }
        Some(shown)
    }

    /// Removes the last element and calls `f` with it.
    pub(crate) fn pop_back<R>(&mut self, f: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let last = self.nodes.back_mut()?;
        last.open();
        let shown = match last {
            Node::Packed { list, incompressible, .. } => {
                *incompressible = false;
                list.pop_back(f)?
            }
            Node::Plain { plain, .. } => f(Item::Str(&plain.bytes)),
            Node::Dense { .. } | Node::Lzf { .. } => unreachable!("it was opened"),
        };
        let left = last.count() - 1;
        last.set_count(left);
        self.len -= 1;
        if left == 0 {
            self.nodes.pop_back();
            self.open_ends();
        }
        Some(shown)
    }

    /// Removes up to `max` elements with this text, the first ones or (`from_back`) the last ones. Returns how many.
    pub(crate) fn remove_matching(&mut self, text: &[u8], max: usize, from_back: bool) -> usize {
        let mut removed = 0;
        let mut emptied = false;
        for i in 0..self.nodes.len() {
            if removed == max {
                break;
            }
            let n = if from_back { self.nodes.len() - 1 - i } else { i };
            let n = &mut self.nodes[n];
            let here = n.remove_matching(text, max - removed, from_back);
            removed += here;
            emptied |= n.count() == 0;
        }
        self.len -= removed;
        if emptied {
            self.nodes.retain(|n| n.count() > 0);
            self.open_ends();
        }
        removed
    }

    /// The elements from an index on towards the end.
    pub(crate) fn walk(&self, index: usize) -> Walk<'_> {
        if index >= self.len {
            return Walk::nothing();
        }
        let Place { node, offset } = self.locate(index);
        Walk::of(self.nodes[node].view(), offset, self.nodes.range(node + 1..), false)
    }

    /// The elements from an index on towards the beginning.
    pub(crate) fn walk_back(&self, index: usize) -> Walk<'_> {
        if index >= self.len {
            return Walk::nothing();
        }
        let Place { node, offset } = self.locate(index);
        Walk::of(self.nodes[node].view(), offset, self.nodes.range(..node), true)
    }

    /// Asserts what the file's head promises.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let mut len = 0;
        for end in [self.nodes.front(), self.nodes.back()].into_iter().flatten() {
            assert!(!end.is_compressed() && !end.is_at_rest(), "a node at an end that is not open");
        }
        for n in &self.nodes {
            assert!(n.count() > 0, "an empty node");
            let mut opened = n.clone();
            opened.open();
            assert_eq!(opened.view().raw_len(), n.view().raw_len());
            match &opened {
                Node::Packed { list, .. } => {
                    list.check_invariants();
                    assert_eq!(list.len(), n.count());
                }
                Node::Plain { .. } => assert_eq!(n.count(), 1),
                Node::Dense { .. } | Node::Lzf { .. } => panic!("closed twice"),
            }
            len += n.count();
        }
        assert_eq!(len, self.len);
    }
}

/// Removes up to `max` elements with this text from a listpack, from either end. Returns how many.
pub(crate) fn remove_matching(list: &mut Listpack, text: &[u8], max: usize, from_back: bool) -> usize {
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
