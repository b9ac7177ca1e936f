//! The nodes of a log, found by id: in chunks, so that removing one does not move all that follow.
//!
//! Invariant: nodes are ordered by their ids, no chunk is empty, and the size of the radix tree is right.

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
    /// Nodes of a radix tree over the ids, as clients see them; 0 if there are no ids.
    radix_len: usize,
}

/// Bytes of an id as a key.
const KEY_LEN: usize = 16;

fn key_of(id: StreamId) -> u128 {
    u128::from_be_bytes(id.to_bytes())
}

/// Length of the common prefix of two different keys, bytes.
fn shared(a: u128, b: u128) -> usize {
    ((a ^ b).leading_zeros() / 8) as usize
}

/// Nodes of a radix tree for the bytes between a fork (with the byte that leads on from it), or its root, and what is
/// below: one, if there are such bytes.
fn stretch(above: Option<usize>, below: usize) -> usize {
    usize::from(below > above.map_or(0, |depth| depth + 1))
}

impl Nodes {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn get(&self, at: At) -> &Node {
        &self.chunks[at.0][at.1]
    }

    pub(crate) fn get_mut(&mut self, at: At) -> &mut Node {
        &mut self.chunks[at.0][at.1]
    }

    pub(crate) fn first(&self) -> Option<At> {
        (self.len > 0).then_some((0, 0))
    }

    pub(crate) fn last(&self) -> Option<At> {
        let chunk = self.chunks.len().checked_sub(1)?;
        Some((chunk, self.chunks[chunk].len() - 1))
    }

    pub(crate) fn last_mut(&mut self) -> Option<&mut Node> {
        self.chunks.back_mut()?.back_mut()
    }

    pub(crate) fn next(&self, at: At) -> Option<At> {
        if at.1 + 1 < self.chunks[at.0].len() {
            Some((at.0, at.1 + 1))
        } else {
            (at.0 + 1 < self.chunks.len()).then_some((at.0 + 1, 0))
        }
    }

    pub(crate) fn prev(&self, at: At) -> Option<At> {
        match at {
            (0, 0) => None,
            (chunk, 0) => Some((chunk - 1, self.chunks[chunk - 1].len() - 1)),
            (chunk, index) => Some((chunk, index - 1)),
        }
    }

    /// The last node whose id does not exceed this one: the only one that can hold the entry of that id.
    pub(crate) fn floor(&self, id: StreamId) -> Option<At> {
        let chunk = self.chunks.partition_point(|c| c[0].id <= id).checked_sub(1)?;
        let index = self.chunks[chunk].partition_point(|n| n.id <= id).checked_sub(1)?;
        Some((chunk, index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.chunks.iter().flatten()
    }

    /// Adds a node after all others.
    pub(crate) fn push(&mut self, node: Node) {
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
        self.radix_len += self.last().map_or(0, |at| self.radix_share(at));
    }

    pub(crate) fn remove(&mut self, at: At) {
        self.radix_len -= self.radix_share(at);
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

    /// Number of nodes of a radix tree over the ids.
    pub(crate) fn radix_len(&self) -> usize {
        // An empty tree has its root.
        self.radix_len.max(1)
    }

    /// How many nodes of the radix tree exist only for this id: its leaf, and the fork where it parts from the ids with
    /// the longest common prefix, unless others part there, too.
    fn radix_share(&self, at: At) -> usize {
        let key_at = |at: At| key_of(self.get(at).id);
        let key = key_at(at);
        let (before, behind) = (self.prev(at), self.next(at));
        let depths = [before, behind].map(|neighbour| neighbour.map(|at| shared(key_at(at), key)));
        let [depth_before, depth_behind] = depths;
        let Some(fork) = depth_before.max(depth_behind) else { return 1 + stretch(None, KEY_LEN) };
        let leaf = 1 + stretch(Some(fork), KEY_LEN);
        if depth_before == depth_behind {
            return leaf;
        }
        // The others below the fork are all on one side.
        let rest = u128::MAX >> (8 * fork);
        let group = if depth_before < depth_behind {
            behind.zip(self.floor(StreamId::from_bytes((key | rest).to_be_bytes())))
        } else {
            let first =
                (key & !rest).checked_sub(1).and_then(|key| self.floor(StreamId::from_bytes(key.to_be_bytes())));
            first.map_or_else(|| self.first(), |at| self.next(at)).zip(before)
        };
        let Some((first, last)) = group else { return leaf };
        let (low, high) = (key_at(first), key_at(last));
        let below = if first == last { KEY_LEN } else { shared(low, high) };
        if below == fork {
            return leaf;
        }
        let above_low = if depth_before < depth_behind { before } else { self.prev(first) };
        let above_high = if depth_before < depth_behind { self.next(last) } else { behind };
        let above = above_low.map(|at| shared(key_at(at), low)).max(above_high.map(|at| shared(key_at(at), high)));
        leaf + 1 + stretch(above, fork) + stretch(Some(fork), below) - stretch(above, below)
    }

    /// Bytes of the chunks themselves.
    pub(crate) fn mem_bytes(&self) -> usize {
        let chunks = self.chunks.iter().map(|c| c.capacity() * size_of::<Node>());
        self.chunks.capacity() * size_of::<VecDeque<Node>>() + chunks.sum::<usize>()
    }

    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.iter().count(), self.len);
        assert!(self.chunks.iter().all(|c| !c.is_empty() && c.len() <= CHUNK));
        assert!(self.iter().zip(self.iter().skip(1)).all(|(a, b)| a.last_id() < b.id));
        assert_eq!(self.radix_len(), radix_nodes(self.iter().map(|n| n.id.to_bytes())));
    }
}

/// Counts the nodes of a radix tree with these keys, which are sorted: one for each key, one where keys part, and one
/// for each stretch of bytes between those.
#[cfg(test)]
fn radix_nodes(keys: impl Iterator<Item = [u8; 16]>) -> usize {
    const LEN: usize = 16;
    // Depths at which the last key parts from ones before, from the root down.
    let mut forks: Vec<usize> = Vec::new();
    let mut nodes = 0;
    let mut last: Option<[u8; 16]> = None;
    // A stretch lies between a fork (with the byte that leads on from it) and what is below.
    let stretch = |above: Option<usize>, below: usize| usize::from(below > above.map_or(0, |d| d + 1));
    for key in keys {
        if let Some(last) = last {
            let shared = last.iter().zip(&key).take_while(|(a, b)| a == b).count();
            // What is below the new fork is complete.
            let mut below = LEN;
            while let Some(&deepest) = forks.last()
                && deepest > shared
            {
                nodes += 1 + stretch(Some(deepest), below);
                below = deepest;
                forks.pop();
            }
            if forks.last() == Some(&shared) {
                nodes += stretch(Some(shared), below);
            } else {
                nodes += stretch(Some(shared), below);
                forks.push(shared);
            }
        }
        nodes += 1;
        last = Some(key);
    }
    if last.is_none() {
        return 1;
    }
    let mut below = LEN;
    while let Some(deepest) = forks.pop() {
        nodes += 1 + stretch(Some(deepest), below);
        below = deepest;
    }
    nodes + stretch(None, below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_size_of_the_radix_tree_follows_what_comes_and_goes(
            ids in proptest::collection::btree_set((0u64..4, prop_oneof![0u64..6, 250u64..260, Just(70_000)]), 0..40),
            scattered in any::<bool>(),
            removed in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
        ) {
            let mut nodes = Nodes::default();
            for (ms, seq) in ids {
                let ms = if scattered { ms * 0x0101_0000_0101 } else { ms };
                nodes.push(Node::new(StreamId { ms, seq: seq + 1 }, 1, [(&b"f"[..], &b"v"[..])].into_iter(), 0));
                nodes.check_invariants();
            }
            for index in removed {
                let Some(mut at) = nodes.first() else { break };
                for _ in 0..index.index(nodes.len()) {
                    at = nodes.next(at).unwrap();
                }
                nodes.remove(at);
                nodes.check_invariants();
            }
        }
    }
}
