//! Sorted sets as values: members and scores alternating, in order, in a listpack while they are few and short,
//! otherwise an [`OrderedSet`]. OBJECT ENCODING shows which, so the conversion happens exactly when Redis's does.
//!
//! Invariant: members are in order of score, equal scores in order of member, and no score is NaN.

use crate::structs::entry::IntBuf;
use crate::structs::listpack::{self, Item, Listpack, Pos};
use crate::structs::numbers::{f64_text, f64_to_i64, parse_f64};
pub(crate) use crate::structs::ordered::Update;
use crate::structs::ordered::{self, OrderedSet};
use crate::structs::table::{HashSeed, Step};
use std::cmp::Ordering;
use std::fmt;

/// How large a sorted set in a listpack may be: `zset-max-listpack-*`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ZsetLimits {
    pub(crate) packed: usize,
    /// Longest member in a listpack, bytes.
    pub(crate) packed_value: usize,
    /// The seed of the tables of large sorted sets.
    pub(crate) seed: HashSeed,
}

pub(crate) enum Zset {
    Packed(Listpack),
    Ordered(Box<OrderedSet>),
}

impl fmt::Debug for Zset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Zset {
    /// Whether both have the same members with the same scores, however they are kept.
    fn eq(&self, other: &Zset) -> bool {
        let all = |zset: &Zset| zset.iter().map(|(member, score)| (member.to_vec(), score)).collect::<Vec<_>>();
        self.len() == other.len() && all(self) == all(other)
    }
}

impl Clone for Zset {
    fn clone(&self) -> Zset {
        match self {
            Zset::Packed(list) => Zset::Packed(list.clone()),
            Zset::Ordered(set) => Zset::Ordered(Box::new(ordered(set.seed(), self.iter(), set.len()))),
        }
    }
}

impl Default for Zset {
    fn default() -> Zset {
        Zset::new()
    }
}

fn ordered<'a>(seed: HashSeed, members: impl Iterator<Item = (Item<'a>, f64)>, len: usize) -> OrderedSet {
    let mut set = OrderedSet::new(seed);
    set.reserve(len);
    let mut int = IntBuf::new();
    members.for_each(|(member, score)| {
        set.update(member.bytes(&mut int), |_| Some(score));
    });
    set
}

/// A score as a listpack has it.
fn score_of(item: Item<'_>) -> f64 {
    match item {
        Item::Int(n) => n as f64,
        Item::Str(text) => parse_f64(text).unwrap_or(0.0),
    }
}

/// The place of a member in a listpack.
fn find(list: &Listpack, member: &[u8]) -> Option<Pos> {
    list.find(list.first()?, member, 1)
}

/// The score after a member.
fn score_at(list: &Listpack, member: Pos) -> f64 {
    list.next(member).map_or(0.0, |pos| score_of(list.get(pos)))
}

/// Adds a new member in its place.
fn insert(list: &mut Listpack, member: &[u8], score: f64) {
    let mut behind = None;
    let mut at = list.first();
    while let Some(pos) = at {
        let Some(score_pos) = list.next(pos) else { break };
        let other = score_of(list.get(score_pos));
        if other > score || (other == score && list.get(pos).bytes(&mut IntBuf::new()) > member) {
            behind = Some(pos);
            break;
        }
        at = list.next(score_pos);
    }
    match behind {
        None => {
            list.push_back(member);
            push_score(list, score);
        }
        Some(behind) => {
            let pos = list.insert_before(behind, member);
            let whole = f64_to_i64(score);
            let mut int = IntBuf::new();
            match whole {
                Some(whole) => list.insert_after(pos, int.format(whole)),
                None => list.insert_after(pos, &f64_text(score)),
            };
        }
    }
}

fn push_score(list: &mut Listpack, score: f64) {
    match f64_to_i64(score) {
        Some(whole) => list.push_int(whole),
        None => list.push_back(&f64_text(score)),
    };
}

/// Checks alternating members and scores from outside, and puts them in order if they are not. `None`: they are
/// malformed. Duplicate members are not checked for.
pub(crate) fn checked(list: Listpack) -> Option<Listpack> {
    let mut in_order = true;
    let mut last: Option<(Item<'_>, f64)> = None;
    let mut items = list.iter();
    while let Some(member) = items.next() {
        let score = match items.next()? {
            Item::Int(n) => n as f64,
            Item::Str(text) => parse_f64(text)?,
        };
        let here = (member, score);
        in_order &= last.is_none_or(|last| in_order_of(&last, &here) != Ordering::Greater);
        last = Some(here);
    }
    if in_order {
        return Some(list);
    }
    let mut sorted = Listpack::with_capacity(list.total_bytes());
    for (member, score) in Zset::Packed(list).iter() {
        insert(&mut sorted, member.bytes(&mut IntBuf::new()), score);
    }
    Some(sorted)
}

/// How two members are ordered in a sorted set.
fn in_order_of((a, a_score): &(Item<'_>, f64), (b, b_score): &(Item<'_>, f64)) -> Ordering {
    let by_text = || a.bytes(&mut IntBuf::new()).cmp(b.bytes(&mut IntBuf::new()));
    a_score.partial_cmp(b_score).unwrap_or(Ordering::Equal).then_with(by_text)
}

/// Puts members in the order of a sorted set.
pub(crate) fn sort_members(members: &mut [(Item<'_>, f64)]) {
    members.sort_unstable_by(in_order_of);
}

impl Zset {
    pub(crate) fn new() -> Zset {
        Zset::Packed(Listpack::new())
    }

    /// An empty sorted set for about `len` members, the first of which has `first_len` bytes.
    pub(crate) fn for_members(len: usize, first_len: usize, limits: &ZsetLimits) -> Zset {
        let mut set = Zset::new();
        if len > limits.packed || first_len > limits.packed_value {
            set.make_ordered(len, limits);
        }
        set
    }

    /// If it is large, makes room for `len` members in all.
    pub(crate) fn reserve(&mut self, len: usize) {
        if let Zset::Ordered(set) = self {
            set.reserve(len);
        }
    }

    /// A sorted set of members that are in order.
    pub(crate) fn from_sorted(members: &[(Item<'_>, f64)], limits: &ZsetLimits) -> Zset {
        let mut list = Listpack::new();
        let mut int = IntBuf::new();
        let is_small = members.len() <= limits.packed
            && members.iter().all(|(member, score)| {
                let text = member.bytes(&mut int);
                let fits = text.len() <= limits.packed_value && list.safe_to_add(text.len());
                if fits {
                    list.push_back(text);
                    push_score(&mut list, *score);
                }
                fits
            });
        if is_small {
            return Zset::Packed(list);
        }
        Zset::Ordered(Box::new(ordered(limits.seed, members.iter().copied(), members.len())))
    }

    fn make_ordered(&mut self, len: usize, limits: &ZsetLimits) {
        if let Zset::Packed(_) = self {
            *self = Zset::Ordered(Box::new(ordered(limits.seed, self.iter(), len)));
        }
    }

    /// To be called before so many members are added.
    pub(crate) fn will_grow(&mut self, added: usize, limits: &ZsetLimits) {
        if added > limits.packed {
            self.make_ordered(added, limits);
        }
    }

    /// Makes a sorted set from outside large if it has more members than a listpack may have here.
    pub(crate) fn fit(&mut self, limits: &ZsetLimits) {
        if self.len() > limits.packed {
            self.make_ordered(self.len(), limits);
        }
    }

    /// Prefetches what a look-up of a member of this hash will touch; as `Table::prefetch`.
    pub(crate) fn prefetch(&self, hash: u64, step: Step) -> bool {
        matches!(self, Zset::Ordered(set) if set.prefetch(hash, step))
    }

    pub(crate) fn encoding_name(&self) -> &'static str {
        match self {
            Zset::Packed(_) => "listpack",
            Zset::Ordered(_) => "skiplist",
        }
    }

    /// Number of members.
    pub(crate) fn len(&self) -> usize {
        match self {
            Zset::Packed(list) => list.len() / 2,
            Zset::Ordered(set) => set.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        match self {
            Zset::Packed(list) => list.is_empty(),
            Zset::Ordered(set) => set.is_empty(),
        }
    }

    /// Number of allocations that freeing it takes, roughly.
    pub(crate) fn free_effort(&self) -> usize {
        match self {
            Zset::Packed(_) => 1,
            Zset::Ordered(set) => set.len(),
        }
    }

    /// Bytes of memory besides itself; for a large one an estimate from so many members.
    pub(crate) fn mem_bytes_sampled(&self, samples: usize) -> usize {
        match self {
            Zset::Packed(list) => list.capacity(),
            Zset::Ordered(set) => set.mem_bytes(samples),
        }
    }

    pub(crate) fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Zset::Packed(list) => find(list, member).map(|pos| score_at(list, pos)),
            Zset::Ordered(set) => set.score(member),
        }
    }

    /// Calls `decide` with the score of a member (`None`: it is missing) and gives it the returned score, if any, which
    /// must not be NaN.
    pub(crate) fn update(
        &mut self,
        member: &[u8],
        limits: &ZsetLimits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Update {
        let list = match self {
            Zset::Ordered(set) => return set.update(member, decide),
            Zset::Packed(list) => list,
        };
        if let Some(pos) = find(list, member) {
            let old = score_at(list, pos);
            let Some(new) = decide(Some(old)).filter(|new| *new != old) else { return Update::Kept };
            list.remove_run(pos, 2);
            insert(list, member, new);
            return Update::Moved;
        }
        let Some(score) = decide(None) else { return Update::Kept };
        if list.len() / 2 < limits.packed && member.len() <= limits.packed_value && list.safe_to_add(member.len()) {
            insert(list, member, score);
            return Update::Added;
        }
        let mut set = ordered(limits.seed, self.iter(), self.len() + 1);
        set.update(member, |_| Some(score));
        *self = Zset::Ordered(Box::new(set));
        Update::Added
    }

    pub(crate) fn set(&mut self, member: &[u8], score: f64, limits: &ZsetLimits) -> Update {
        self.update(member, limits, |_| Some(score))
    }

    /// Adds some members, at most [`TOGETHER`](crate::structs::table::TOGETHER), with a score each. Returns whether all
    /// of them are new.
    pub(crate) fn add_together(&mut self, members: &[Vec<u8>], scores: &[f64], limits: &ZsetLimits) -> bool {
        if let Zset::Ordered(set) = self {
            return set.add_together(members, scores);
        }
        members.iter().zip(scores).all(|(member, score)| self.set(member, *score, limits) == Update::Added)
    }

    /// Removes a member and returns its score.
    pub(crate) fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match self {
            Zset::Packed(list) => {
                let pos = find(list, member)?;
                let score = score_at(list, pos);
                list.remove_run(pos, 2);
                Some(score)
            }
            Zset::Ordered(set) => set.remove(member),
        }
    }

    /// The rank of a member, 0 being the lowest, and its score.
    pub(crate) fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match self {
            Zset::Packed(_) => {
                let wanted = Item::of(member);
                let is = |item: Item<'_>| item == wanted || matches!(item, Item::Str(text) if text == member);
                self.iter().enumerate().find(|(_, (item, _))| is(*item)).map(|(rank, (_, score))| (rank, score))
            }
            Zset::Ordered(set) => set.rank(member),
        }
    }

    /// The number of members for which `before` is true. They must be the lowest ones.
    pub(crate) fn partition_point(&self, before: impl Fn(f64, &[u8]) -> bool) -> usize {
        match self {
            Zset::Packed(_) => {
                let mut int = IntBuf::new();
                self.iter().take_while(|(member, score)| before(*score, member.bytes(&mut int))).count()
            }
            Zset::Ordered(set) => set.partition_point(before),
        }
    }

    /// Up to `count` members from rank `from` on, upwards or (`back`) downwards.
    pub(crate) fn range(&self, from: usize, count: usize, back: bool) -> Range<'_> {
        match self {
            Zset::Packed(list) => {
                let index = |i: usize| i64::try_from(i).ok().and_then(|i| list.seek(i));
                let start = index(from.saturating_mul(2).saturating_add(usize::from(back)));
                match start {
                    None => Range::Packed { items: list.iter(), left: 0, back },
                    Some(pos) if back => Range::Packed { items: list.iter_to(pos), left: count, back },
                    Some(pos) => Range::Packed { items: list.iter_from(pos), left: count, back },
                }
            }
            Zset::Ordered(set) => Range::Ordered(set.range(from, count, back)),
        }
    }

    /// All members with their scores, in order.
    pub(crate) fn iter(&self) -> Range<'_> {
        match self {
            Zset::Packed(list) => Range::Packed { items: list.iter(), left: usize::MAX, back: false },
            Zset::Ordered(set) => Range::Ordered(set.range(0, usize::MAX, false)),
        }
    }

    /// Removes up to `count` members from rank `from` on, and calls `f` with each before it goes, the lowest first.
    pub(crate) fn remove_range(&mut self, from: usize, count: usize, f: &mut dyn FnMut(Item<'_>, f64)) {
        match self {
            Zset::Packed(_) => {
                self.range(from, count, false).for_each(|(member, score)| f(member, score));
                let Zset::Packed(list) = self else { return };
                if let Some(pos) = i64::try_from(from.saturating_mul(2)).ok().and_then(|i| list.seek(i)) {
                    list.remove_run(pos, count.saturating_mul(2));
                }
            }
            Zset::Ordered(set) => set.remove_range(from, count, |member, score| f(Item::Str(member), score)),
        }
    }

    /// A member with its score, each as likely as any other.
    pub(crate) fn random(&self) -> Option<(Item<'_>, f64)> {
        let len = self.len();
        if len == 0 {
            return None;
        }
        self.range(fastrand::usize(..len), 1, false).next()
    }

    /// One step of ZSCAN: calls `f` for some members, about `most` at most, and returns the next cursor, 0 at the end.
    /// Small sorted sets take one step.
    pub(crate) fn scan(&self, cursor: u64, most: usize, f: &mut dyn FnMut(Item<'_>, f64)) -> u64 {
        match self {
            Zset::Packed(_) => {
                self.iter().for_each(|(member, score)| f(member, score));
                0
            }
            Zset::Ordered(set) => set.scan(cursor, most, |member, score| f(Item::Str(member), score)),
        }
    }
}

/// Members in order, with their scores.
pub(crate) enum Range<'a> {
    Packed { items: listpack::Iter<'a>, left: usize, back: bool },
    Ordered(ordered::Range<'a>),
}

impl<'a> Iterator for Range<'a> {
    type Item = (Item<'a>, f64);

    fn next(&mut self) -> Option<(Item<'a>, f64)> {
        match self {
            Range::Packed { left: 0, .. } => None,
            Range::Packed { items, left, back: false } => {
                *left -= 1;
                Some((items.next()?, score_of(items.next()?)))
            }
            Range::Packed { items, left, back: true } => {
                *left -= 1;
                let score = score_of(items.next_back()?);
                Some((items.next_back()?, score))
            }
            Range::Ordered(range) => range.next().map(|(member, score)| (Item::Str(member), score)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structs::table::TOGETHER;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn limits(packed: usize) -> ZsetLimits {
        ZsetLimits { packed, packed_value: 4, seed: HashSeed([5; 16]) }
    }

    proptest! {
        #[test]
        fn both_encodings_agree_with_a_map(
            packed in 0usize..12,
            changes in proptest::collection::vec((0u8..4, "[a-c1-3]{1,2}", -6i32..6, 0usize..8), 0..80),
        ) {
            let limits = limits(packed);
            let mut set = Zset::new();
            let mut model: BTreeMap<Vec<u8>, f64> = BTreeMap::new();
            let sorted = |model: &BTreeMap<Vec<u8>, f64>| {
                let mut all: Vec<_> = model.iter().map(|(m, s)| (*s, m.clone())).collect();
                all.sort_by(|a, b| a.partial_cmp(b).unwrap());
                all
            };
            for (what, member, score, n) in changes {
                let (member, score) = (member.into_bytes(), f64::from(score) / 4.0);
                match what {
                    0 => prop_assert_eq!(set.remove(&member), model.remove(&member)),
                    1 => {
                        let mut removed = Vec::new();
                        set.remove_range(n, 2, &mut |m, s| removed.push((s, m.to_vec())));
                        let expected: Vec<_> = sorted(&model).into_iter().skip(n).take(2).collect();
                        for (_, member) in &expected {
                            model.remove(member);
                        }
                        prop_assert_eq!(removed, expected);
                    }
                    _ => {
                        set.set(&member, score, &limits);
                        model.insert(member, score);
                    }
                }
                let all = sorted(&model);
                prop_assert_eq!(set.iter().map(|(m, s)| (s, m.to_vec())).collect::<Vec<_>>(), all.clone());
                prop_assert_eq!(set.len(), all.len());
                let back: Vec<_> = set.range(n, 3, true).map(|(m, s)| (s, m.to_vec())).collect();
                let expected: Vec<_> =
                    if n < all.len() { all[..=n].iter().rev().take(3).cloned().collect() } else { Vec::new() };
                prop_assert_eq!(back, expected);
                prop_assert_eq!(set.partition_point(|s, _| s < score), all.iter().filter(|(s, _)| *s < score).count());
                for (rank, (s, member)) in all.iter().enumerate() {
                    prop_assert_eq!(set.rank(member), Some((rank, *s)));
                }
            }
            let members: Vec<_> = set.iter().collect();
            let again = Zset::from_sorted(&members, &limits);
            prop_assert_eq!(again.encoding_name(), if members.len() <= packed { "listpack" } else { "skiplist" });
            let plain = |members: &[(Item<'_>, f64)]| -> Vec<_> { members.iter().map(|(m, s)| (m.to_vec(), *s)).collect() };
            prop_assert_eq!(plain(&again.iter().collect::<Vec<_>>()), plain(&members));
        }
    }

    #[test]
    fn listpacks_from_elsewhere_are_checked() {
        let list = |items: &[&str]| {
            let mut list = Listpack::new();
            for item in items {
                list.push_back(item.as_bytes());
            }
            list
        };
        for bad in [&["a"][..], &["a", "nan"], &["a", "x"]] {
            assert!(checked(list(bad)).is_none());
        }
        let set = Zset::Packed(checked(list(&["b", "2", "c", "inf", "a", "1.5"])).unwrap());
        let order: Vec<_> = set.iter().map(|(m, s)| (m.to_vec(), s)).collect();
        assert_eq!(order, [(b"a".to_vec(), 1.5), (b"b".to_vec(), 2.0), (b"c".to_vec(), f64::INFINITY)]);
    }

    #[test]
    fn members_are_added_together_until_one_is_there() {
        for count in [3, 6, 16, 500] {
            let limits = limits(6);
            let members: Vec<Vec<u8>> = (0..count).map(|n| format!("m{n:03}").into_bytes()).collect();
            // In the order of a snapshot, the highest first; some scores are equal.
            let scores: Vec<f64> = (0..count).map(|n| -((n / 2) as f64)).collect();
            let mut zset = Zset::for_members(count, members[0].len(), &limits);
            let mut some = members.chunks(TOGETHER).zip(scores.chunks(TOGETHER));
            assert!(some.all(|(members, scores)| zset.add_together(members, scores, &limits)));
            assert_eq!(zset.len(), count);
            for (member, score) in members.iter().zip(&scores) {
                assert_eq!(zset.score(member), Some(*score));
            }
            assert!(
                zset.iter().is_sorted_by(|(a, a_score), (b, b_score)| (a_score, a.to_vec()) < (b_score, b.to_vec()))
            );
            assert!(!zset.add_together(&[b"new".to_vec(), members[count / 2].clone()], &[1.0, 2.0], &limits));
            assert_eq!(zset.score(b"new"), Some(1.0));
        }
    }
}
