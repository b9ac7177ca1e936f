//! The nodes of a log, found by id: in chunks, so that one may go from anywhere without moving all behind it.
//!
//! Invariant: nodes are ordered by their ids, and no chunk is empty.

use super::id::StreamId;
use super::node::Node;
use std::collections::VecDeque;

/// Most nodes of a chunk.
const CHUNK: usize = 128;

/// The place of a node: chunk, and index in it. Removing a node makes it stale.
pub(super) type At = (usize, usize);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Nodes {
    chunks: VecDeque<VecDeque<Node>>,
    len: usize,
}

impl Nodes {
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn get(&self, at: At) -> &Node {
        &self.chunks[at.0][at.1]
    }

    pub fn get_mut(&mut self, at: At) -> &mut Node {
        &mut self.chunks[at.0][at.1]
    }

    pub fn first(&self) -> Option<At> {
        (self.len > 0).then_some((0, 0))
    }

    pub fn last(&self) -> Option<At> {
        let chunk = self.chunks.len().checked_sub(1)?;
        Some((chunk, self.chunks[chunk].len() - 1))
    }

    pub fn last_mut(&mut self) -> Option<&mut Node> {
        self.chunks.back_mut()?.back_mut()
    }

    pub fn next(&self, at: At) -> Option<At> {
        if at.1 + 1 < self.chunks[at.0].len() {
            Some((at.0, at.1 + 1))
        } else {
            (at.0 + 1 < self.chunks.len()).then_some((at.0 + 1, 0))
        }
    }

    pub fn prev(&self, at: At) -> Option<At> {
        match at {
            (0, 0) => None,
            (chunk, 0) => Some((chunk - 1, self.chunks[chunk - 1].len() - 1)),
            (chunk, index) => Some((chunk, index - 1)),
        }
    }

    /// The last node whose id is not beyond this one: the only one which the entry of that id can be in.
    pub fn floor(&self, id: StreamId) -> Option<At> {
        let chunk = self.chunks.partition_point(|c| c[0].id <= id).checked_sub(1)?;
        let index = self.chunks[chunk].partition_point(|n| n.id <= id).checked_sub(1)?;
        Some((chunk, index))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Node> {
        self.chunks.iter().flatten()
    }

    /// Adds a node behind all others.
    pub fn push(&mut self, node: Node) {
        match self.chunks.back_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push_back(node),
            _ => {
                // Most streams are small; large ones are made of full chunks.
                let capacity = if self.chunks.is_empty() { 1 } else { CHUNK };
                if self.chunks.is_empty() {
                    self.chunks.reserve_exact(1);
                }
                let mut chunk = VecDeque::with_capacity(capacity);
                chunk.push_back(node);
                self.chunks.push_back(chunk);
            }
        }
        self.len += 1;
    }

    pub fn remove(&mut self, at: At) {
        self.len -= 1;
        self.chunks[at.0].remove(at.1);
        let left = self.chunks[at.0].len();
        if left == 0 {
            self.chunks.remove(at.0);
        } else if at.0 + 1 < self.chunks.len() && left + self.chunks[at.0 + 1].len() <= CHUNK / 2 {
            let mut behind = self.chunks.remove(at.0 + 1).unwrap_or_default();
            self.chunks[at.0].append(&mut behind);
        }
    }

    /// Bytes of the chunks themselves.
    pub fn mem_bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|c| c.capacity() * size_of::<Node>());
        self.chunks.capacity() * size_of::<VecDeque<Node>>() + chunks.sum::<usize>()
    }

    pub fn check_invariants(&self) {
        assert_eq!(self.iter().count(), self.len);
        assert!(self.chunks.iter().all(|c| !c.is_empty() && c.len() <= CHUNK));
        assert!(self.iter().zip(self.iter().skip(1)).all(|(a, b)| a.last_id() < b.id));
    }
}
