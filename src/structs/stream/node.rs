//! A node of a stream's log: up to some hundred entries in one listpack, which RDB files and DUMP payloads contain as
//! it is.
//!
//! | part | elements of the listpack |
//! | --- | --- |
//! | head | live entries, deleted entries, number of names, the names, 0 |
//! | entry | flags, ms and sequence number less those of the node's id, its body, number of its elements before this one |
//! | body | the values, if flagged to have the head's names; else number of fields, then names and values alternating |
//!
//! (Format: that of Redis 7.2.) The last element of the head and of each entry lets a reader go backwards.
//!
//! Invariant: the listpack has that form, the counts are true, and the ids grow, the first being the node's or later.
//! Bytes from outside enter through [`Node::from_listpack`] alone.

use super::id::StreamId;
use crate::structs::listpack::{Item, Iter, Listpack, Pos};
use std::fmt;

/// The entry was deleted; its bytes stay.
const DELETED: i64 = 1;
/// The entry has the names of the head, and only values of its own.
const SAME_FIELDS: i64 = 2;
/// Elements of an entry before its body: flags and id.
const ENTRY_HEAD: usize = 3;

/// Why a listpack is not a node of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadNode(pub(crate) &'static str);

impl fmt::Display for BadNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream node: {}", self.0)
    }
}

impl std::error::Error for BadNode {}

/// Some entries one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// What the ids of its entries are counted from: the first one's when the node was begun.
    pub(crate) id: StreamId,
    list: Listpack,
}

/// What a node says about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub(crate) live: u64,
    /// Number of names.
    names: usize,
    /// The first name, or what follows the names if there are none.
    names_at: Pos,
    /// The first entry.
    pub(crate) entries_at: Option<Pos>,
}

/// An entry in its node.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(crate) id: StreamId,
    /// Where the entry begins.
    pub(crate) at: Pos,
    flags: i64,
    fields: usize,
    /// The first element of fields and values.
    body: Pos,
}

impl Found {
    pub(crate) fn is_deleted(&self) -> bool {
        self.flags & DELETED != 0
    }

    fn has_same_fields(&self) -> bool {
        self.flags & SAME_FIELDS != 0
    }

    /// Number of elements from `body` on, without the entry's last one.
    fn body_len(&self) -> usize {
        if self.has_same_fields() { self.fields } else { 2 * self.fields }
    }
}

/// The next element, an integer. The format has one here.
fn int(items: &mut Iter<'_>) -> i64 {
    items.next().and_then(|item| item.as_i64()).expect("a node holds an integer here")
}

impl Node {
    /// Begins a node with an entry of `count` fields. `capacity`: bytes it is expected to come to.
    pub(super) fn new<'a, F>(id: StreamId, count: usize, fields: F, capacity: usize) -> Node
    where
        F: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let mut node = Node { id, list: Listpack::with_capacity(capacity) };
        let head = [1, 0, count as i64].into_iter().map(Item::Int);
        let names = fields.clone().map(|(name, _)| Item::of(name));
        node.list.push_items(head.chain(names).chain([Item::Int(0)]));
        node.push_entry(id, count, fields, true);
        node
    }

    /// Adds an entry at the end.
    pub(super) fn append<'a, F>(&mut self, id: StreamId, count: usize, fields: F)
    where
        F: Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    {
        let mut items = self.list.iter();
        let live_at = items.place().expect("a node has a head");
        let live = int(&mut items);
        int(&mut items);
        let names = int(&mut items);
        let same = names == count as i64 && fields.clone().zip(items).all(|((name, _), of_head)| of_head.is(name));
        self.list.replace_int(live_at, live + 1);
        self.push_entry(id, count, fields, same);
    }

    fn push_entry<'a, F>(&mut self, id: StreamId, count: usize, fields: F, same: bool)
    where
        F: Iterator<Item = (&'a [u8], &'a [u8])>,
    {
        let (ms, seq) = (id.ms.wrapping_sub(self.id.ms) as i64, id.seq.wrapping_sub(self.id.seq) as i64);
        if same {
            let head = [SAME_FIELDS, ms, seq].into_iter().map(Item::Int);
            let end = Item::Int((ENTRY_HEAD + count) as i64);
            self.list.push_items(head.chain(fields.map(|(_, value)| Item::of(value))).chain([end]));
        } else {
            let head = [0, ms, seq, count as i64].into_iter().map(Item::Int);
            let end = Item::Int((ENTRY_HEAD + 1 + 2 * count) as i64);
            let body = fields.flat_map(|(name, value)| [Item::of(name), Item::of(value)]);
            self.list.push_items(head.chain(body).chain([end]));
        }
    }

    /// Checks that a listpack from outside is a node's. Also returns whether the ids of all entries grow: those of
    /// deleted ones need not, if the last id of their stream was ever set back. The error returns the listpack.
    pub(crate) fn from_listpack(id: StreamId, list: Listpack) -> Result<(Node, bool), (BadNode, Listpack)> {
        match check(id, &list) {
            Ok(in_order) => Ok((Node { id, list }, in_order)),
            Err(bad) => Err((bad, list)),
        }
    }

    /// The node without the deleted entries; `None` if nothing is left.
    pub(super) fn compacted(&self) -> Option<Node> {
        let mut out: Option<Node> = None;
        let head = self.head();
        let mut next = head.entries_at;
        while let Some(at) = next {
            let found = self.entry_at(&head, at);
            next = self.behind(&found);
            if found.is_deleted() {
                continue;
            }
            let entry = self.view(&head, &found);
            let fields: Vec<_> = entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
            let fields = fields.iter().map(|(name, value)| (&name[..], &value[..]));
            match &mut out {
                Some(node) => node.append(entry.id, entry.len(), fields),
                None => out = Some(Node::new(entry.id, entry.len(), fields, 0)),
            }
        }
        out
    }

    /// The bytes that a snapshot holds.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.list.as_bytes()
    }

    pub(super) fn total_bytes(&self) -> usize {
        self.list.total_bytes()
    }

    /// Bytes allocated.
    pub(super) fn capacity(&self) -> usize {
        self.list.capacity()
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.list.shrink_to_fit();
    }

    /// Live and deleted entries.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let mut items = self.list.iter();
        (int(&mut items) as u64, int(&mut items) as u64)
    }

    pub(super) fn head(&self) -> Head {
        let mut items = self.list.iter();
        let (live, _, names) = (int(&mut items) as u64, int(&mut items), int(&mut items) as usize);
        let names_at = items.place().expect("a head has an end");
        items.by_ref().take(names + 1).for_each(drop);
        Head { live, names, names_at, entries_at: items.place() }
    }

    /// The entry that begins at a place.
    pub(super) fn entry_at(&self, head: &Head, at: Pos) -> Found {
        let mut items = self.list.iter_from(at);
        let (flags, ms, seq) = (int(&mut items), int(&mut items), int(&mut items));
        let id = StreamId::new(self.id.ms.wrapping_add(ms as u64), self.id.seq.wrapping_add(seq as u64));
        let fields = if flags & SAME_FIELDS != 0 { head.names } else { int(&mut items) as usize };
        let body = items.place().expect("an entry has an end");
        Found { id, at, flags, fields, body }
    }

    /// Where the entry after this one begins.
    pub(super) fn behind(&self, entry: &Found) -> Option<Pos> {
        let mut items = self.list.iter_from(entry.body);
        items.by_ref().take(entry.body_len() + 1).for_each(drop);
        items.place()
    }

    /// Where the last entry begins.
    pub(super) fn last_entry(&self) -> Option<Pos> {
        self.begin_of_entry_ending(self.list.last()?)
    }

    /// Where the entry before this one begins.
    pub(super) fn before(&self, entry: &Found) -> Option<Pos> {
        self.begin_of_entry_ending(self.list.prev(entry.at)?)
    }

    fn begin_of_entry_ending(&self, mut at: Pos) -> Option<Pos> {
        let elements = self.list.get(at).as_i64().filter(|n| *n != 0)?;
        for _ in 0..elements {
            at = self.list.prev(at)?;
        }
        Some(at)
    }

    /// The id of the last entry, deleted or not.
    pub(super) fn last_id(&self) -> StreamId {
        self.last_entry().map_or(self.id, |at| self.entry_at(&self.head(), at).id)
    }

    /// An entry with access to its fields.
    pub(super) fn view(&self, head: &Head, found: &Found) -> Entry<'_> {
        let names = found.has_same_fields().then_some(head.names_at);
        Entry { id: found.id, len: found.fields, names, body: found.body, list: &self.list }
    }

    /// Marks an entry as deleted; see `count_deleted`.
    pub(super) fn mark_deleted(&mut self, entry: &Found) {
        debug_assert!(!entry.is_deleted());
        self.list.replace_int(entry.at, entry.flags | DELETED);
    }

    /// Counts `count` entries that were marked as deleted rather than live. Makes places stale.
    pub(super) fn count_deleted(&mut self, count: u64) {
        let (live, deleted) = self.counts();
        let first = self.list.first().expect("a node has a head");
        self.list.replace_int(first, (live - count) as i64);
        let second = self.list.next(first).expect("a node has a head");
        self.list.replace_int(second, (deleted + count) as i64);
    }

    #[cfg(test)]
    pub(super) fn check_invariants(&self) {
        self.list.check_invariants();
        assert_eq!(check(self.id, &self.list), Ok(true));
    }
}

/// Reads a listpack from outside, checking each element for what it should be.
struct Checked<'a> {
    items: Iter<'a>,
    left: usize,
}

impl Checked<'_> {
    fn int(&mut self) -> Result<i64, BadNode> {
        let value = self.items.next().ok_or(BadNode("it ends too early"))?;
        self.left -= 1;
        value.as_i64().ok_or(BadNode("no integer where one should be"))
    }

    fn count(&mut self) -> Result<usize, BadNode> {
        usize::try_from(self.int()?).map_err(|_| BadNode("a count below zero"))
    }

    fn skip(&mut self, elements: usize) -> Result<(), BadNode> {
        self.left = self.left.checked_sub(elements).ok_or(BadNode("it ends too early"))?;
        self.items.by_ref().take(elements).for_each(drop);
        Ok(())
    }
}

/// Checks a listpack from outside as a node of entries. Returns whether the ids grow, those of deleted entries
/// included.
fn check(id: StreamId, list: &Listpack) -> Result<bool, BadNode> {
    let mut from = Checked { items: list.iter(), left: list.len() };
    let (live, deleted, names) = (from.count()?, from.count()?, from.count()?);
    from.skip(names)?;
    if from.int()? != 0 {
        return Err(BadNode("the head does not end with zero"));
    }
    let (mut seen_live, mut seen_deleted) = (0, 0);
    let (mut last, mut last_live) = (None, None);
    let mut in_order = true;
    while from.left > 0 {
        let (flags, ms, seq) = (from.int()?, from.int()?, from.int()?);
        let this = StreamId::new(id.ms.wrapping_add(ms as u64), id.seq.wrapping_add(seq as u64));
        in_order &= last.map_or(this >= id, |last| this > last);
        last = Some(this);
        let same = flags & SAME_FIELDS != 0;
        let body = if same { Some(names) } else { from.count()?.checked_mul(2) };
        let body = body.ok_or(BadNode("it ends too early"))?;
        from.skip(body)?;
        if from.int()? != (body + ENTRY_HEAD + usize::from(!same)) as i64 {
            return Err(BadNode("an entry with a wrong number of elements"));
        }
        if flags & DELETED != 0 {
            seen_deleted += 1;
            continue;
        }
        seen_live += 1;
        if last_live.is_some_and(|last| this <= last) {
            return Err(BadNode("ids that do not grow"));
        }
        last_live = Some(this);
    }
    if (seen_live, seen_deleted) != (live, deleted) {
        return Err(BadNode("another number of entries than its head says"));
    }
    if last.is_none() {
        return Err(BadNode("no entries"));
    }
    Ok(in_order)
}

/// An entry of a stream.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) id: StreamId,
    len: usize,
    /// The head's names, if they are the entry's.
    names: Option<Pos>,
    body: Pos,
    list: &'a Listpack,
}

impl<'a> Entry<'a> {
    /// Number of fields.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Names and values.
    pub(crate) fn fields(&self) -> Fields<'a> {
        let names = self.names.map(|at| self.list.iter_from(at));
        Fields { names, items: self.list.iter_from(self.body), left: self.len }
    }
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.id)?;
        f.debug_map().entries(self.fields()).finish()
    }
}

/// The fields of an entry: names with values.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    names: Option<Iter<'a>>,
    items: Iter<'a>,
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Item<'a>, Item<'a>);

    fn next(&mut self) -> Option<(Item<'a>, Item<'a>)> {
        self.left = self.left.checked_sub(1)?;
        let name = match &mut self.names {
            Some(names) => names.next()?,
            None => self.items.next()?,
        };
        Some((name, self.items.next()?))
    }
}
