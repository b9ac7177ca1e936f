//! Sets as values: an intset while all members are integers, a listpack while they are few and short, otherwise a
//! table. OBJECT ENCODING shows which, so conversions happen exactly when Redis's do. None goes back, unless most
//! members are popped at once.

use crate::structs::entry::{Entry, NewValue};
use crate::structs::intset::Intset;
use crate::structs::listpack::{Item, Listpack};
use crate::structs::numbers::parse_i64;
use crate::structs::table::{HashSeed, Table, TableEntry};
use std::convert::Infallible;
use std::fmt;

/// A member of a large set, or a field with its value of a large hash.
pub(crate) type Member = Entry<Infallible>;

/// How large a set of each encoding may be: `set-max-*`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetLimits {
    pub(crate) ints: usize,
    pub(crate) packed: usize,
    /// Longest member in a listpack, bytes.
    pub(crate) packed_value: usize,
    /// The seed of the tables of large sets.
    pub(crate) seed: HashSeed,
}

/// Members that were taken out of a set.
pub(crate) enum Popped {
    Few(Vec<Member>),
    /// The removed members as a set.
    Set(Set),
}

impl Popped {
    pub(crate) fn count(&self) -> usize {
        match self {
            Popped::Few(members) => members.len(),
            Popped::Set(set) => set.len(),
        }
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = Item<'_>> + '_> {
        match self {
            Popped::Few(members) => Box::new(members.iter().map(|m| Item::Str(m.key()))),
            Popped::Set(set) => set.iter(),
        }
    }
}

pub(crate) enum Set {
    Ints(Intset),
    Packed(Listpack),
    Table(Box<Table<Member>>),
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl PartialEq for Set {
    /// Whether both have the same members, however they are kept.
    fn eq(&self, other: &Set) -> bool {
        self.len() == other.len() && self.iter().all(|member| other.contains_item(member))
    }
}

impl Clone for Set {
    fn clone(&self) -> Set {
        match self {
            Set::Ints(ints) => Set::Ints(ints.clone()),
            Set::Packed(list) => Set::Packed(list.clone()),
            Set::Table(table) => Set::table(table.seed(), self.iter(), table.len()),
        }
    }
}

fn member(text: &[u8]) -> Member {
    Entry::new(text, NewValue::Str(b""), None)
}

impl Set {
    /// An empty set in the encoding that suits its first member and the number to come.
    pub(crate) fn for_members(first: &[u8], count: usize, limits: &SetLimits) -> Set {
        if parse_i64(first).is_some() && count <= limits.ints {
            Set::Ints(Intset::new())
        } else if count <= limits.packed {
            Set::Packed(Listpack::new())
        } else {
            let mut table = Table::new(limits.seed);
            table.reserve(count);
            Set::Table(Box::new(table))
        }
    }

    /// If it is a table, makes room for `len` members in all.
    pub(crate) fn reserve(&mut self, len: usize) {
        if let Set::Table(table) = self {
            table.reserve(len);
        }
    }

    /// An empty set, an intset until its members call for another encoding.
    pub(crate) fn new() -> Set {
        Set::Ints(Intset::new())
    }

    fn table<'a>(seed: HashSeed, items: impl Iterator<Item = Item<'a>>, len: usize) -> Set {
        let mut table = Table::new(seed);
        table.reserve(len);
        let mut int = Default::default();
        for item in items {
            let text = item.bytes(&mut int);
            // A listpack from outside may name a member twice.
            if let TableEntry::Vacant(place) = table.entry(text) {
                place.insert(member(text));
            }
        }
        Set::Table(Box::new(table))
    }

    fn make_table(&mut self, limits: &SetLimits) {
        if !matches!(self, Set::Table(_)) {
            self.make_table_for(self.len() + 1, limits);
        }
    }

    fn make_table_for(&mut self, len: usize, limits: &SetLimits) {
        *self = Set::table(limits.seed, self.iter(), len);
    }

    /// To be called before `count` members are added: many at once are not added one by one to a listpack.
    pub(crate) fn will_grow(&mut self, count: usize, limits: &SetLimits) {
        let too_many = match self {
            Set::Ints(_) => count > limits.ints,
            Set::Packed(_) => count > limits.packed,
            Set::Table(_) => false,
        };
        if too_many {
            self.make_table_for(self.len() + count, limits);
        }
    }

    /// Makes a set from outside a table if it has more members than its encoding may have here.
    pub(crate) fn fit(&mut self, limits: &SetLimits) {
        let too_many = match self {
            Set::Ints(ints) => ints.len() > limits.ints,
            Set::Packed(list) => list.len() > limits.packed,
            Set::Table(_) => false,
        };
        if too_many {
            self.make_table(limits);
        }
    }

    /// Does a share of a resize of its table, if one is under way, so that it ends even if the set is only read.
    pub(crate) fn move_on(&mut self) {
        if let Set::Table(table) = self
            && table.is_rehashing()
        {
            table.rehash_step(1);
        }
    }

    /// The table of its members, if it is one.
    pub(crate) fn members(&self) -> Option<&Table<Member>> {
        match self {
            Set::Table(table) => Some(table),
            Set::Ints(_) | Set::Packed(_) => None,
        }
    }

    pub(crate) fn encoding_name(&self) -> &'static str {
        match self {
            Set::Ints(_) => "intset",
            Set::Packed(_) => "listpack",
            Set::Table(_) => "hashtable",
        }
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Set::Ints(ints) => ints.len(),
            Set::Packed(list) => list.len(),
            Set::Table(table) => table.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of allocations that freeing it takes, roughly.
    pub(crate) fn free_effort(&self) -> usize {
        match self {
            Set::Ints(_) | Set::Packed(_) => 1,
            Set::Table(table) => table.len(),
        }
    }

    /// Bytes of memory besides itself; for a large set an estimate from so many members.
    pub(crate) fn mem_bytes_sampled(&self, samples: usize) -> usize {
        match self {
            Set::Ints(ints) => ints.as_bytes().len(),
            Set::Packed(list) => list.capacity(),
            Set::Table(table) => table_bytes(table, samples),
        }
    }

    /// Adds a member. Returns whether it is new.
    pub(crate) fn add(&mut self, text: &[u8], limits: &SetLimits) -> bool {
        match self {
            Set::Ints(ints) => {
                if let Some(n) = parse_i64(text) {
                    let added = ints.insert(n);
                    if added && ints.len() > limits.ints {
                        self.make_table(limits);
                    }
                    return added;
                }
                let longest = [ints.first(), ints.last()].into_iter().flatten().map(|n| Item::Int(n).text_len()).max();
                let fits = ints.len() < limits.packed
                    && text.len() <= limits.packed_value
                    && longest.unwrap_or(0) <= limits.packed_value;
                if fits {
                    let mut list = Listpack::new();
                    for n in ints.iter() {
                        list.push_int(n);
                    }
                    list.push_back(text);
                    *self = Set::Packed(list);
                    return true;
                }
            }
            Set::Packed(list) => {
                if find(list, text) {
                    return false;
                }
                if list.len() < limits.packed && text.len() <= limits.packed_value && list.safe_to_add(text.len()) {
                    list.push_back(text);
                    return true;
                }
            }
            Set::Table(table) => {
                return match table.entry(text) {
                    TableEntry::Occupied(_) => false,
                    TableEntry::Vacant(place) => {
                        place.insert(member(text));
                        true
                    }
                };
            }
        }
        self.make_table(limits);
        self.add(text, limits)
    }

    /// Adds some members, at most [`TOGETHER`](crate::structs::table::TOGETHER). Returns whether all of them are new.
    pub(crate) fn add_together(&mut self, members: &[Vec<u8>], limits: &SetLimits) -> bool {
        let Set::Table(table) = self else {
            return members.iter().all(|member| self.add(member, limits));
        };
        let hashes = table.hash_together(members);
        members.iter().zip(hashes).all(|(text, hash)| match table.entry_hashed(hash, text) {
            TableEntry::Occupied(_) => false,
            TableEntry::Vacant(place) => {
                place.insert(member(text));
                true
            }
        })
    }

    /// Removes a member. Returns whether it was there.
    pub(crate) fn remove(&mut self, text: &[u8]) -> bool {
        match self {
            Set::Ints(ints) => parse_i64(text).is_some_and(|n| ints.remove(n)),
            Set::Packed(list) => match list.first().and_then(|first| list.find(first, text, 0)) {
                Some(pos) => {
                    list.remove(pos);
                    true
                }
                None => false,
            },
            Set::Table(table) => table.remove(text).is_some(),
        }
    }

    /// Removes several members. Returns how many were there.
    pub(crate) fn remove_several<'m>(&mut self, members: impl Iterator<Item = &'m [u8]>) -> usize {
        match self {
            Set::Table(table) => table.remove_several(members),
            Set::Ints(_) | Set::Packed(_) => members.filter(|member| self.remove(member)).count(),
        }
    }

    pub(crate) fn contains(&self, text: &[u8]) -> bool {
        match self {
            Set::Ints(ints) => parse_i64(text).is_some_and(|n| ints.contains(n)),
            Set::Packed(list) => find(list, text),
            Set::Table(table) => table.contains(text),
        }
    }

    pub(crate) fn contains_item(&self, item: Item<'_>) -> bool {
        match (self, item) {
            (Set::Ints(ints), Item::Int(n)) => ints.contains(n),
            _ => self.contains(item.bytes(&mut Default::default())),
        }
    }

    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = Item<'_>> + '_> {
        match self {
            Set::Ints(ints) => Box::new(ints.iter().map(Item::Int)),
            Set::Packed(list) => Box::new(list.iter()),
            Set::Table(table) => Box::new(table.iter().map(|m| Item::Str(m.key()))),
        }
    }

    /// A member, each as likely as any other.
    pub(crate) fn random(&self) -> Option<Item<'_>> {
        let len = self.len();
        if len == 0 {
            return None;
        }
        match self {
            Set::Ints(ints) => ints.get(fastrand::usize(..len)).map(Item::Int),
            Set::Packed(list) => list.seek(fastrand::usize(..len) as i64).map(|pos| list.get(pos)),
            Set::Table(table) => table.random(&mut fastrand::Rng::new()).map(|m| Item::Str(m.key())),
        }
    }

    /// Removes a member at random.
    pub(crate) fn pop_random(&mut self) -> Option<Vec<u8>> {
        let text = self.random()?.to_vec();
        self.remove(&text);
        Some(text)
    }

    /// Removes so many members at random, fewer than there are. If nearly all of a large set go, the few that stay are
    /// moved to a new set in the encoding that suits it.
    pub(crate) fn pop_several(&mut self, count: usize, limits: &SetLimits) -> Popped {
        /// If at most one member in so many stays, the members that stay are moved, not those that go.
        const LEFT_BEHIND: usize = 5;
        /// For more than this part of the members (1/16), drawing one after the other takes longer than going through
        /// all.
        const PART: usize = 16;
        let len = self.len();
        match self {
            Set::Ints(ints) => {
                let mut popped = ints.clone();
                let taken: Vec<bool> = std::iter::repeat_with(picking(count, len)).take(len).collect();
                let is_taken = |wanted: bool| {
                    let mut taken = taken.iter();
                    move |_| taken.next() == Some(&wanted)
                };
                popped.retain(is_taken(true));
                ints.retain(is_taken(false));
                Popped::Set(Set::Ints(popped))
            }
            Set::Packed(list) => {
                let mut pick = picking(count, len);
                let (mut kept, mut popped) = (Listpack::new(), Listpack::new());
                for item in list.iter() {
                    let list = if pick() { &mut popped } else { &mut kept };
                    match item {
                        Item::Int(n) => drop(list.push_int(n)),
                        Item::Str(text) => drop(list.push_back(text)),
                    }
                }
                *list = kept;
                Popped::Set(Set::Packed(popped))
            }
            Set::Table(table) => {
                let remaining = len - count;
                if remaining * LEFT_BEHIND <= count {
                    let mut kept = Set::Packed(Listpack::new());
                    for member in pop_from(table, remaining) {
                        kept.add(member.key(), limits);
                    }
                    return Popped::Set(std::mem::replace(self, kept));
                }
                if count * PART < len {
                    return Popped::Few(pop_from(table, count));
                }
                let mut pick = picking(count, len);
                let names: Vec<Vec<u8>> = table.iter().filter(|_| pick()).map(|m| m.key().to_vec()).collect();
                Popped::Few(table.take_several(names.iter().map(Vec::as_slice)))
            }
        }
    }

    /// One step of SSCAN: calls `f` for some members, about `most` at most, and returns the next cursor, 0 at the end.
    /// Small sets take one step.
    pub(crate) fn scan(&self, cursor: u64, most: usize, f: &mut dyn FnMut(Item<'_>)) -> u64 {
        match self {
            Set::Ints(_) | Set::Packed(_) => {
                self.iter().for_each(f);
                0
            }
            Set::Table(table) => table.scan_page(cursor, most, |m| f(Item::Str(m.key()))),
        }
    }
}

impl Default for Set {
    fn default() -> Set {
        Set::new()
    }
}

/// Says of one member after the other, `len` in all, whether to pick it: `wanted` of them, each as likely as any other.
fn picking(mut wanted: usize, mut len: usize) -> impl FnMut() -> bool {
    move || {
        let picked = fastrand::usize(..len) < wanted;
        len -= 1;
        wanted -= usize::from(picked);
        picked
    }
}

/// Takes members out at random, one after the other.
fn pop_from(table: &mut Table<Member>, count: usize) -> Vec<Member> {
    let mut rng = fastrand::Rng::new();
    let mut name = Vec::new();
    let next = || {
        name.clear();
        name.extend_from_slice(table.random(&mut rng)?.key());
        table.remove(&name)
    };
    std::iter::from_fn(next).take(count).collect()
}

fn find(list: &Listpack, text: &[u8]) -> bool {
    list.first().is_some_and(|first| list.find(first, text, 0).is_some())
}

/// Bytes of a table and its items, estimated from so many of them.
pub(crate) fn table_bytes(table: &Table<Member>, samples: usize) -> usize {
    let samples = samples.clamp(1, table.len().max(1));
    let sampled: usize = table.iter().take(samples).map(Entry::alloc_size).sum();
    size_of::<Table<Member>>() + table.mem_bytes() + sampled / samples * table.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structs::table::TOGETHER;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_member_is_popped_as_often_as_the_others() {
        for (packed, count) in [(0, 2), (0, 5), (0, 9), (20, 5)] {
            for prefix in ["", "m"] {
                let limits = SetLimits { ints: packed, packed, packed_value: 4, seed: HashSeed([7; 16]) };
                let mut seen = [0u32; 10];
                for _ in 0..2000 {
                    let mut set = Set::new();
                    for i in 0..10 {
                        set.add(format!("{prefix}{i}").as_bytes(), &limits);
                    }
                    for member in set.pop_several(count, &limits).iter() {
                        seen[usize::from(member.to_vec().last().unwrap() - b'0')] += 1;
                    }
                }
                let expected = 200 * count as u32;
                assert!(seen.iter().all(|n| n.abs_diff(expected) < expected / 4), "{packed} {count}: {seen:?}");
            }
        }
    }

    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![3 => (-20i64..20).prop_map(|n| n.to_string().into_bytes()), 1 => "[a-d]{1,6}".prop_map(String::into_bytes)]
    }

    proptest! {
        #[test]
        fn changes_agree_with_a_set(
            ints in 0usize..8,
            packed in 0usize..8,
            changes in proptest::collection::vec((any::<bool>(), text()), 0..100),
        ) {
            let limits = SetLimits { ints, packed, packed_value: 4, seed: HashSeed([7; 16]) };
            let mut set = Set::new();
            let mut model = BTreeSet::new();
            for (add, text) in changes {
                if add {
                    prop_assert_eq!(set.add(&text, &limits), model.insert(text.clone()));
                } else {
                    prop_assert_eq!(set.remove(&text), model.remove(&text));
                }
                prop_assert_eq!(set.contains(&text), add);
                prop_assert_eq!(set.len(), model.len());
            }
            let members: BTreeSet<Vec<u8>> = set.iter().map(|i| i.to_vec()).collect();
            prop_assert_eq!(&members, &model);
            let copied: BTreeSet<Vec<u8>> = set.clone().iter().map(|i| i.to_vec()).collect();
            prop_assert_eq!(&copied, &model);
            while let Some(text) = set.pop_random() {
                prop_assert!(model.remove(&text));
            }
            prop_assert!(model.is_empty());
        }

        #[test]
        fn several_are_popped_and_the_others_stay(
            members in proptest::collection::btree_set(prop_oneof![
                (-300i64..300).prop_map(|n| n.to_string().into_bytes()),
                "[a-d]{1,3}".prop_map(String::into_bytes),
            ], 2..300),
            ints_only in any::<bool>(),
            packed in prop_oneof![Just(0usize), Just(100), Just(1000)],
            part in any::<prop::sample::Index>(),
        ) {
            let limits = SetLimits { ints: packed, packed, packed_value: 4, seed: HashSeed([7; 16]) };
            let members: BTreeSet<Vec<u8>> =
                members.into_iter().filter(|m| !ints_only || parse_i64(m).is_some()).collect();
            prop_assume!(members.len() > 1);
            let mut set = Set::new();
            for member in &members {
                set.add(member, &limits);
            }
            let was_table = set.members().is_some();
            let count = part.index(members.len() - 1) + 1;
            let popped = set.pop_several(count, &limits);
            prop_assert_eq!((popped.count(), set.len()), (count, members.len() - count));
            let out: BTreeSet<Vec<u8>> = popped.iter().map(|m| m.to_vec()).collect();
            let left: BTreeSet<Vec<u8>> = set.iter().map(|m| m.to_vec()).collect();
            prop_assert_eq!((out.len(), left.len()), (count, members.len() - count));
            prop_assert!(left.iter().all(|m| set.contains(m) && !out.contains(m)));
            prop_assert_eq!(out.union(&left).cloned().collect::<BTreeSet<_>>(), members);
            // When most of a table goes, what stays is packed again if the limits allow.
            let stays_table = was_table && (left.len() * 5 > count || left.len() > packed);
            prop_assert_eq!(set.members().is_some(), stays_table || was_table && packed == 0);
        }
    }

    #[test]
    fn members_are_added_together_until_one_is_there() {
        let limits = SetLimits { ints: 4, packed: 6, packed_value: 8, seed: HashSeed([3; 16]) };
        for count in [3, 6, 16, 500] {
            let members: Vec<Vec<u8>> = (0..count).map(|n| format!("m{n}").into_bytes()).collect();
            let mut set = Set::for_members(&members[0], count, &limits);
            assert!(members.chunks(TOGETHER).all(|some| set.add_together(some, &limits)));
            assert_eq!(set.len(), count);
            assert!(members.iter().all(|member| set.contains(member)));
            assert!(!set.add_together(&[b"new".to_vec(), members[count / 2].clone()], &limits));
            assert!(!set.add_together(&[b"other".to_vec(), b"other".to_vec()], &limits));
            assert!(set.contains(b"new") && set.contains(b"other"));
        }
    }
}
