//! Large sorted sets: members by name, and in order of score with equal scores in order of name.
//!
//! A member is one allocation that holds its score and its name. A hash table owns the members and finds them by name;
//! a B+-tree of pointers keeps them in order and counts the members below each branch, so that the rank of a member,
//! the member of a rank and the end of any range take one descent. Leaves are rows of pointers without scores. The
//! branches hold the first score of each leaf, so that few members have to be read.
//!
//! Invariant: tree and table hold the same members; [`OrderedSet::check_invariants`] lists the rest. No score is NaN.
//! Small sorted sets, and the meaning of scores, are left to others.

#![allow(unsafe_code)]

mod member;
mod tree;

#[cfg(test)]
mod tests;

use super::table::{HashSeed, Step, Table, TableEntry};
use member::{Member, Ptr};
use tree::Tree;

/// What [`OrderedSet::update`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Nothing changed: `decide` gave no score, or the one there is.
    Kept,
    Added,
    /// The member has another score now.
    Moved,
}

/// A sorted set. See the file's head.
pub struct OrderedSet {
    table: Table<Member>,
    tree: Tree,
}

impl OrderedSet {
    pub fn new(seed: HashSeed) -> OrderedSet {
        OrderedSet { table: Table::new(seed), tree: Tree::new() }
    }

    /// Makes room for `len` members in all.
    pub(crate) fn reserve(&mut self, len: usize) {
        self.table.reserve(len);
    }

    pub(crate) fn seed(&self) -> HashSeed {
        self.table.seed()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The shape of the table of names, for DEBUG HTSTATS.
    pub(crate) fn table_stats(&self) -> String {
        self.table.stats()
    }

    /// Prefetches what a look-up of a member of this hash will touch; as [`Table::prefetch`].
    pub(crate) fn prefetch(&self, hash: u64, step: Step) -> bool {
        self.table.prefetch(hash, step)
    }

    pub(crate) fn score(&self, name: &[u8]) -> Option<f64> {
        self.table.get(name).map(Member::score)
    }

    /// Calls `decide` with the score of a member (`None`: it is missing) and gives it the returned score, if any.
    pub fn update(&mut self, name: &[u8], decide: impl FnOnce(Option<f64>) -> Option<f64>) -> Update {
        self.update_hashed(self.table.hash(name), name, decide)
    }

    /// Adds some members, at most [`TOGETHER`](super::table::TOGETHER), with a score each. Returns whether all of them
    /// are new.
    pub(crate) fn add_together(&mut self, names: &[Vec<u8>], scores: &[f64]) -> bool {
        let hashes = self.table.hash_together(names);
        let mut members = names.iter().zip(scores).zip(hashes);
        members.all(|((name, score), hash)| self.update_hashed(hash, name, |_| Some(*score)) == Update::Added)
    }

    fn update_hashed(&mut self, hash: u64, name: &[u8], decide: impl FnOnce(Option<f64>) -> Option<f64>) -> Update {
        match self.table.entry_hashed(hash, name) {
            TableEntry::Occupied(place) => {
                let at = place.get().ptr();
                let old = place.get().score();
                let Some(new) = decide(Some(old)).filter(|new| *new != old) else { return Update::Kept };
                debug_assert!(!new.is_nan());
                // SAFETY: the table holds the member, and so does the tree.
                unsafe { self.tree.change_score(at, new) };
                Update::Moved
            }
            TableEntry::Vacant(place) => {
                let Some(score) = decide(None) else { return Update::Kept };
                debug_assert!(!score.is_nan());
                let member = Member::new(name, score);
                let at = member.ptr();
                place.insert(member);
                // SAFETY: the table keeps the member alive, and the tree did not hold it.
                unsafe { self.tree.insert(at) };
                Update::Added
            }
        }
    }

    /// Removes a member and returns its score.
    pub(crate) fn remove(&mut self, name: &[u8]) -> Option<f64> {
        let TableEntry::Occupied(place) = self.table.entry(name) else { return None };
        let at = place.get().ptr();
        // SAFETY: the table holds the member, and so does the tree.
        unsafe { self.tree.remove(at) };
        let member = place.remove();
        Some(member.score())
    }

    /// The rank of a member, 0 being the lowest, and its score.
    pub fn rank(&self, name: &[u8]) -> Option<(usize, f64)> {
        let member = self.table.get(name)?;
        let (score, name) = (member.score(), member.name());
        Some((self.partition_point(|s, n| (s, n) < (score, name)), score))
    }

    /// The number of members for which `before` is true. They must be the lowest ones.
    pub(crate) fn partition_point(&self, before: impl Fn(f64, &[u8]) -> bool) -> usize {
        // SAFETY: the table keeps every member of the tree alive.
        self.tree.partition_point(|at| before(unsafe { at.score() }, unsafe { at.name() }))
    }

    /// Up to `count` members from rank `from` on, upwards or (`back`) downwards.
    pub(crate) fn range(&self, from: usize, count: usize, back: bool) -> Range<'_> {
        let len = self.len();
        let left =
            if back { count.min(if from < len { from + 1 } else { 0 }) } else { count.min(len.saturating_sub(from)) };
        Range { tree: &self.tree, next: from, left, back, leaf: &[], at: 0 }
    }

    /// Removes up to `count` members from rank `from` on, and calls `f` with each before it goes.
    pub(crate) fn remove_range(&mut self, from: usize, count: usize, mut f: impl FnMut(&[u8], f64)) {
        let mut left = count.min(self.len().saturating_sub(from));
        while left > 0 {
            let table = &mut self.table;
            left -= self.tree.remove_run(from, left, |at| {
                // SAFETY: the table keeps the member alive until it is removed, which is after its name was used.
                let name = unsafe { at.name() };
                let member = table.remove(name).expect("a member of the tree is in the table");
                f(member.name(), member.score());
            });
        }
        self.table.shrink_if_sparse();
    }

    /// One step over all members in no order: calls `f` for some, about `most` at most, and returns the next cursor, 0
    /// at the end. Members present throughout are seen.
    pub(crate) fn scan(&self, cursor: u64, most: usize, mut f: impl FnMut(&[u8], f64)) -> u64 {
        self.table.scan_page(cursor, most, |member| f(member.name(), member.score()))
    }

    /// Bytes of memory; for the members an estimate from so many of them.
    pub(crate) fn mem_bytes(&self, samples: usize) -> usize {
        let samples = samples.clamp(1, self.len().max(1));
        let sampled: usize = self.table.iter().take(samples).map(Member::alloc_size).sum();
        size_of::<OrderedSet>() + self.table.mem_bytes() + self.tree.mem_bytes() + sampled / samples * self.len()
    }

    /// Asserts everything the set relies on; reads every member.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        self.table.check_invariants();
        let mut in_tree = Vec::new();
        self.tree.check_invariants(&mut in_tree);
        assert_eq!(in_tree.len(), self.table.len());
        let held: std::collections::HashSet<Ptr> = self.table.iter().map(Member::ptr).collect();
        assert!(in_tree.iter().all(|at| held.contains(at)), "the tree names a member that the table does not hold");
        let all: Vec<_> = self.range(0, self.len(), false).collect();
        assert_eq!(all.len(), self.len());
        assert!(all.windows(2).all(|w| (w[0].1, w[0].0) < (w[1].1, w[1].0)), "members out of order");
        assert!(all.iter().all(|(_, score)| !score.is_nan()));
    }
}

/// Members in order, with their scores.
pub(crate) struct Range<'a> {
    tree: &'a Tree,
    /// Rank of the next member.
    next: usize,
    left: usize,
    back: bool,
    leaf: &'a [Ptr],
    /// Index in `leaf` of the next member; out of range when it is in another leaf.
    at: usize,
}

impl<'a> Iterator for Range<'a> {
    type Item = (&'a [u8], f64);

    fn next(&mut self) -> Option<(&'a [u8], f64)> {
        if self.left == 0 {
            return None;
        }
        if self.at >= self.leaf.len() {
            (self.leaf, self.at) = self.tree.leaf_of(self.next)?;
        }
        let here = self.leaf[self.at];
        self.left -= 1;
        if self.back {
            self.next = self.next.wrapping_sub(1);
            // Below 0 it wraps, and so is out of range, too.
            self.at = self.at.wrapping_sub(1);
        } else {
            self.next += 1;
            self.at += 1;
        }
        // SAFETY: the set is borrowed for 'a, and keeps every member of its tree alive.
        Some(unsafe { (here.name(), here.score()) })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Range<'_> {}
