//! The nodes of a list: a listpack, open or at rest, or a single large element; either of them may be compressed.

use super::{LISTPACK_OVERHEAD, Limits, remove_matching};
use crate::structs::listpack::dense::Dense;
use crate::structs::listpack::{Item, Listpack};
use crate::structs::lzf;
use std::borrow::Cow;

/// Nodes of fewer bytes are not compressed, nor those where it saves no more than so many.
const MIN_COMPRESS: usize = 48;
const MIN_SAVING: usize = 8;
/// Most room that a new node at an end gets at once, bytes: it then grows to 8 kB in a few steps.
const MAX_FIRST_ROOM: usize = 2048 - LISTPACK_OVERHEAD;

/// The elements of a node, when taken out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    Packed(Listpack),
    /// One element.
    Plain(Vec<u8>),
}

/// The contents of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BodyView<'a> {
    Packed(&'a Listpack),
    /// A listpack at rest.
    Dense(&'a Dense),
    /// One element.
    Plain(&'a [u8]),
    /// A listpack or one element, compressed.
    Lzf(&'a Lzf),
}

impl BodyView<'_> {
    /// Bytes of the listpack or element when it is open and not compressed.
    pub(crate) fn raw_len(&self) -> usize {
        match self {
            BodyView::Packed(list) => list.total_bytes(),
            BodyView::Dense(dense) => dense.raw_len(),
            BodyView::Plain(bytes) => bytes.len(),
            BodyView::Lzf(lzf) => lzf.raw_len,
        }
    }

    /// Whether it is one element with a node of its own.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            BodyView::Packed(_) | BodyView::Dense(_) => false,
            BodyView::Plain(_) => true,
            BodyView::Lzf(lzf) => lzf.plain,
        }
    }

    /// Bytes of memory it takes besides its node.
    pub(super) fn mem_bytes(&self) -> usize {
        match self {
            BodyView::Packed(list) => list.capacity(),
            BodyView::Dense(dense) => dense.capacity(),
            BodyView::Plain(bytes) => size_of::<Plain>() + bytes.len(),
            BodyView::Lzf(lzf) => size_of::<Lzf>() + lzf.stream.len(),
        }
    }
}

/// One element with a node of its own.
#[derive(Clone, Debug)]
pub(super) struct Plain {
    pub(crate) bytes: Box<[u8]>,
}

/// A compressed body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lzf {
    stream: Box<[u8]>,
    raw_len: usize,
    plain: bool,
}

impl Lzf {
    /// The LZF stream, which yields `BodyView::raw_len` bytes.
    pub(crate) fn stream(&self) -> &[u8] {
        &self.stream
    }

    pub(super) fn open(&self) -> Body {
        let bytes = lzf::decompress(&self.stream, self.raw_len).expect("a stream that was written here");
        if self.plain { Body::Plain(bytes) } else { Body::Packed(Listpack::from_own_bytes(bytes)) }
    }
}

/// A node: 16 bytes, as a long list has very many. Compressed and single elements take one more allocation.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// `incompressible`: compressing it in its current state did not save enough.
    Packed {
        count: u32,
        incompressible: bool,
        list: Listpack,
    },
    Plain {
        count: u32,
        incompressible: bool,
        plain: Box<Plain>,
    },
    Dense {
        count: u32,
        dense: Dense,
    },
    Lzf {
        count: u32,
        lzf: Box<Lzf>,
    },
}

impl Node {
    pub(super) fn new(body: Body) -> Node {
        let count = match &body {
            Body::Packed(list) => list.len(),
            Body::Plain(_) => 1,
        };
        Node::counted(body, u32::try_from(count).expect("elements of a listpack"))
    }

    pub(super) fn counted(body: Body, count: u32) -> Node {
        match body {
            Body::Packed(list) => Node::Packed { count, incompressible: false, list },
            Body::Plain(bytes) => {
                let plain = Box::new(Plain { bytes: bytes.into_boxed_slice() });
                Node::Plain { count, incompressible: false, plain }
            }
        }
    }

    /// The number of elements; 0 only in a node about to be removed.
    pub(super) fn count(&self) -> usize {
        match self {
            Node::Packed { count, .. }
            | Node::Plain { count, .. }
            | Node::Dense { count, .. }
            | Node::Lzf { count, .. } => *count as usize,
        }
    }

    pub(super) fn set_count(&mut self, new: usize) {
        match self {
            Node::Packed { count, .. }
            | Node::Plain { count, .. }
            | Node::Dense { count, .. }
            | Node::Lzf { count, .. } => *count = new as u32,
        }
    }

    pub(super) fn view(&self) -> BodyView<'_> {
        match self {
            Node::Packed { list, .. } => BodyView::Packed(list),
            Node::Plain { plain, .. } => BodyView::Plain(&plain.bytes),
            Node::Dense { dense, .. } => BodyView::Dense(dense),
            Node::Lzf { lzf, .. } => BodyView::Lzf(lzf),
        }
    }

    pub(super) fn into_body(self) -> Body {
        match self {
            Node::Packed { list, .. } => Body::Packed(list),
            Node::Plain { plain, .. } => Body::Plain(plain.bytes.into_vec()),
            Node::Dense { dense, .. } => Body::Packed(dense.open()),
            Node::Lzf { lzf, .. } => lzf.open(),
        }
    }

    pub(super) fn is_compressed(&self) -> bool {
        matches!(self, Node::Lzf { .. })
    }

    pub(super) fn is_at_rest(&self) -> bool {
        matches!(self, Node::Dense { .. })
    }

    #[inline(always)]
    pub(super) fn open(&mut self) {
        if self.is_at_rest() || self.is_compressed() {
            self.open_closed();
        }
    }

    #[inline(never)]
    fn open_closed(&mut self) {
        match self {
            Node::Dense { count, dense } => *self = Node::counted(Body::Packed(dense.open()), *count),
            Node::Lzf { count, lzf } => *self = Node::counted(lzf.open(), *count),
            Node::Packed { .. } | Node::Plain { .. } => {}
        }
    }

    /// Puts it at rest, if it is a listpack.
    pub(super) fn rest(&mut self) {
        if let Node::Packed { count, list, .. } = self {
            *self = Node::Dense { count: *count, dense: Dense::of(list) };
        }
    }

    /// Whether it is a listpack large enough to be worth putting at rest.
    pub(super) fn is_worth_resting(&self, most: usize) -> bool {
        matches!(self, Node::Packed { list, .. } if list.total_bytes() > most / 2)
    }

    /// Moves elements here, to a node at rest, from a node next to it; see [`Dense::take_in`].
    pub(super) fn take_in(&mut self, other: &mut Node, is_before: bool, most: usize) {
        if let Node::Dense { count, dense } = self
            && let Node::Packed { count: left, list, .. } = other
        {
            let taken = dense.take_in(list, is_before, most) as u32;
            *count += taken;
            *left -= taken;
        }
    }

    /// Opens it for a change, and returns the listpack, if it is one.
    pub(super) fn edit(&mut self) -> Option<&mut Listpack> {
        self.open();
        match self {
            Node::Packed { list, incompressible, .. } => {
                *incompressible = false;
                Some(list)
            }
            Node::Plain { incompressible, .. } => {
                *incompressible = false;
                None
            }
            Node::Dense { .. } | Node::Lzf { .. } => unreachable!("it was opened"),
        }
    }

    pub(super) fn compress(&mut self) {
        if self.is_at_rest() {
            self.open();
        }
        let plain = matches!(self, Node::Plain { .. });
        let (bytes, incompressible) = match self {
            Node::Packed { list, incompressible, .. } => (list.as_bytes(), incompressible),
            Node::Plain { plain, incompressible, .. } => (&plain.bytes[..], incompressible),
            Node::Dense { .. } | Node::Lzf { .. } => return,
        };
        if *incompressible || bytes.len() < MIN_COMPRESS {
            return;
        }
        match lzf::compress(bytes, bytes.len() - MIN_SAVING - 1) {
            Some(stream) => {
                let lzf = Box::new(Lzf { stream: stream.into_boxed_slice(), raw_len: bytes.len(), plain });
                *self = Node::Lzf { count: self.count() as u32, lzf };
            }
            None => *incompressible = true,
        }
    }

    /// Frees memory that is not in use.
    pub(super) fn shrink_to_fit(&mut self) {
        if let Node::Packed { list, .. } = self {
            list.shrink_to_fit();
        }
    }

    /// A node of one element. `room`: bytes expected for further elements.
    pub(super) fn of(text: Cow<'_, [u8]>, limits: Limits, room: usize) -> Node {
        if limits.is_plain(&text) {
            return Node::new(Body::Plain(text.into_owned()));
        }
        let mut list = Listpack::with_capacity(room);
        list.push_back(&text);
        Node::new(Body::Packed(list))
    }

    /// A node to follow this one, which is full and at an end: it will likely get as many bytes.
    pub(super) fn following(&mut self, text: Cow<'_, [u8]>, limits: Limits) -> Node {
        // Its spare room will not be used.
        self.shrink_to_fit();
        Node::of(text, limits, (self.view().raw_len() / 4).min(MAX_FIRST_ROOM))
    }

    /// Adds an element at an end if there is room for it.
    pub(super) fn push(&mut self, text: &[u8], at_front: bool, limits: Limits) -> bool {
        self.open();
        let Node::Packed { count, incompressible, list } = self else { return false };
        let item = Item::of(text);
        if !limits.has_room(list.total_bytes(), *count as usize + 1, text, item.encoded_len()) {
            return false;
        }
        *incompressible = false;
        *count += 1;
        if at_front {
            list.push_item_front(item)
        } else {
            list.push_item(item)
        };
        true
    }

    /// The listpack, if it has room for an element of this text, which is `item`.
    pub(super) fn room_for(&mut self, text: &[u8], item: Item<'_>, limits: Limits) -> Option<&mut Listpack> {
        let count = self.count() + 1;
        let list = self.edit()?;
        limits.has_room(list.total_bytes(), count, text, item.encoded_len()).then_some(list)
    }

    /// Removes `count` elements from `offset` on.
    pub(super) fn remove_range(&mut self, offset: usize, count: usize) {
        self.set_count(self.count() - count);
        let was_compressed = self.is_compressed();
        if let Some(list) = self.edit() {
            list.remove_range(offset as i64, count);
        }
        if was_compressed {
            self.compress();
        }
    }

    /// Removes elements with this text. Returns how many.
    pub(super) fn remove_matching(&mut self, text: &[u8], max: usize, from_back: bool) -> usize {
        if let Node::Dense { dense, .. } = self
            && !dense.contains(text)
        {
            return 0;
        }
        if self.is_compressed() || self.is_at_rest() {
            let mut opened = self.clone();
            opened.open();
            let removed = opened.remove_matching(text, max, from_back);
            if removed > 0 {
                if self.is_at_rest() {
                    opened.rest();
                } else {
                    opened.compress();
                }
                *self = opened;
            }
            return removed;
        }
        let (removed, incompressible) = match self {
            Node::Packed { list, incompressible, .. } => (remove_matching(list, text, max, from_back), incompressible),
            Node::Plain { plain, incompressible, .. } => (usize::from(*plain.bytes == *text), incompressible),
            Node::Dense { .. } | Node::Lzf { .. } => unreachable!("it is open"),
        };
        if removed > 0 {
            *incompressible = false;
            self.set_count(self.count() - removed);
        }
        removed
    }

    /// Moves the elements from `offset` on to a node of their own.
    pub(super) fn split_off(&mut self, offset: usize) -> Node {
        self.open();
        let mut rest = self.clone();
        rest.remove_range(0, offset);
        self.remove_range(offset, self.count() - offset);
        rest
    }
}
