//! Hashes as values: fields and values alternating in a listpack while they are few and short, otherwise a table.
//! OBJECT ENCODING shows which, so the conversion happens exactly when Redis's does. A table stays a table.

use super::set::{Member, table_bytes};
use crate::structs::entry::{Entry, IntBuf, NewValue, ValueRef};
use crate::structs::listpack::{Item, Listpack, Pos};
use crate::structs::table::{HashSeed, Table, TableEntry};
use std::fmt;

/// How large a hash in a listpack may be: `hash-max-listpack-*`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashLimits {
    pub(crate) packed: usize,
    /// Longest field or value in a listpack, bytes.
    pub(crate) packed_value: usize,
    /// The seed of the tables of large hashes.
    pub(crate) seed: HashSeed,
}

pub(crate) enum Hash {
    Packed(Listpack),
    Table(Box<Table<Member>>),
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl PartialEq for Hash {
    /// Whether both have the same fields with the same values, however they are kept.
    fn eq(&self, other: &Hash) -> bool {
        let mut buf = IntBuf::new();
        self.len() == other.len()
            && self.iter().all(|(field, value)| {
                other.get(field.bytes(&mut buf)).is_some_and(|there| there.to_vec() == value.to_vec())
            })
    }
}

impl Clone for Hash {
    fn clone(&self) -> Hash {
        match self {
            Hash::Packed(list) => Hash::Packed(list.clone()),
            Hash::Table(table) => Hash::table(table.seed(), self.iter(), table.len()),
        }
    }
}

impl Default for Hash {
    fn default() -> Hash {
        Hash::new()
    }
}

fn field_of(field: &[u8], value: &[u8]) -> Member {
    Entry::new(field, NewValue::Str(value), None)
}

/// The value of a field in a table.
fn value_of(field: &Member) -> &[u8] {
    match field.value() {
        ValueRef::Str { bytes, .. } => bytes,
        ValueRef::Int(_) => unreachable!("fields hold strings"),
        ValueRef::Object(never) => match *never {},
    }
}

impl Hash {
    pub(crate) fn new() -> Hash {
        Hash::Packed(Listpack::new())
    }

    /// An empty hash for about so many fields.
    pub(crate) fn for_fields(count: usize, limits: &HashLimits) -> Hash {
        if count > limits.packed { Hash::table(limits.seed, std::iter::empty(), count) } else { Hash::new() }
    }

    /// If it is a table, makes room for `len` fields in all.
    pub(crate) fn reserve(&mut self, len: usize) {
        if let Hash::Table(table) = self {
            table.reserve(len);
        }
    }

    fn table<'a>(seed: HashSeed, pairs: impl Iterator<Item = (Item<'a>, Item<'a>)>, len: usize) -> Hash {
        let mut table = Table::new(seed);
        table.reserve(len);
        let (mut a, mut b) = (IntBuf::new(), IntBuf::new());
        for (field, value) in pairs {
            // A listpack from outside may name a field twice: the first counts, as in the listpack.
            if let TableEntry::Vacant(place) = table.entry(field.bytes(&mut a)) {
                place.insert(field_of(field.bytes(&mut a), value.bytes(&mut b)));
            }
        }
        Hash::Table(Box::new(table))
    }

    fn make_table(&mut self, limits: &HashLimits) {
        if !matches!(self, Hash::Table(_)) {
            self.make_table_for(self.len() + 1, limits);
        }
    }

    fn make_table_for(&mut self, len: usize, limits: &HashLimits) {
        *self = Hash::table(limits.seed, self.iter(), len);
    }

    /// To be called before fields and values are set.
    pub(crate) fn will_grow<'a>(&mut self, added: impl ExactSizeIterator<Item = &'a [u8]>, limits: &HashLimits) {
        let Hash::Packed(list) = self else { return };
        if added.len() / 2 > limits.packed {
            return self.make_table_for(self.len() + added.len() / 2, limits);
        }
        let mut bytes = 0;
        for text in added {
            if text.len() > limits.packed_value {
                return self.make_table(limits);
            }
            bytes += text.len();
        }
        if !list.safe_to_add(bytes) {
            self.make_table(limits);
        }
    }

    /// Makes a hash from outside a table if it has more fields than a listpack may have here.
    pub(crate) fn fit(&mut self, limits: &HashLimits) {
        if let Hash::Packed(list) = self
            && list.len() / 2 > limits.packed
        {
            self.make_table(limits);
        }
    }

    /// Does a share of a resize of its table, if one is under way, so that it ends even if the hash is only read.
    pub(crate) fn move_on(&mut self) {
        if let Hash::Table(table) = self
            && table.is_rehashing()
        {
            table.rehash_step(1);
        }
    }

    /// The table of its fields, if it is one.
    pub(crate) fn fields(&self) -> Option<&Table<Member>> {
        match self {
            Hash::Table(table) => Some(table),
            Hash::Packed(_) => None,
        }
    }

    pub(crate) fn encoding_name(&self) -> &'static str {
        match self {
            Hash::Packed(_) => "listpack",
            Hash::Table(_) => "hashtable",
        }
    }

    /// Number of fields.
    pub(crate) fn len(&self) -> usize {
        match self {
            Hash::Packed(list) => list.len() / 2,
            Hash::Table(table) => table.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of allocations that freeing it takes, roughly.
    pub(crate) fn free_effort(&self) -> usize {
        match self {
            Hash::Packed(_) => 1,
            Hash::Table(table) => table.len(),
        }
    }

    /// Bytes of memory besides itself; for a large hash an estimate from so many fields.
    pub(crate) fn mem_bytes_sampled(&self, samples: usize) -> usize {
        match self {
            Hash::Packed(list) => list.capacity(),
            Hash::Table(table) => table_bytes(table, samples),
        }
    }

    pub(crate) fn get(&self, field: &[u8]) -> Option<Item<'_>> {
        match self {
            Hash::Packed(list) => {
                let value = list.next(find(list, field)?)?;
                Some(list.get(value))
            }
            Hash::Table(table) => table.get(field).map(|f| Item::Str(value_of(f))),
        }
    }

    pub(crate) fn contains(&self, field: &[u8]) -> bool {
        match self {
            Hash::Packed(list) => find(list, field).is_some(),
            Hash::Table(table) => table.contains(field),
        }
    }

    /// Sets a field. Returns whether it is new.
    pub(crate) fn set(&mut self, field: &[u8], value: &[u8], limits: &HashLimits) -> bool {
        if field.len() > limits.packed_value || value.len() > limits.packed_value {
            self.make_table(limits);
        }
        match self {
            Hash::Packed(list) => {
                if let Some(pos) = find(list, field).and_then(|pos| list.next(pos)) {
                    list.replace(pos, value);
                    return false;
                }
                list.push_back(field);
                list.push_back(value);
                self.fit(limits);
                true
            }
            Hash::Table(table) => match table.entry(field) {
                TableEntry::Occupied(mut place) => {
                    place.get_mut().set_value(NewValue::Str(value));
                    false
                }
                TableEntry::Vacant(place) => {
                    place.insert(field_of(field, value));
                    true
                }
            },
        }
    }

    /// Sets some fields, at most [`TOGETHER`](crate::structs::table::TOGETHER), to a value each. Returns whether all of
    /// them are new.
    pub(crate) fn add_together(&mut self, fields: &[Vec<u8>], values: &[Vec<u8>], limits: &HashLimits) -> bool {
        let mut pairs = fields.iter().zip(values);
        let Hash::Table(table) = self else {
            return pairs.all(|(field, value)| {
                self.will_grow([&field[..], value].into_iter(), limits);
                self.set(field, value, limits)
            });
        };
        let hashes = table.hash_together(fields);
        pairs.zip(hashes).all(|((field, value), hash)| match table.entry_hashed(hash, field) {
            TableEntry::Occupied(_) => false,
            TableEntry::Vacant(place) => {
                place.insert(field_of(field, value));
                true
            }
        })
    }

    /// Removes a field. Returns whether it was there.
    pub(crate) fn remove(&mut self, field: &[u8]) -> bool {
        match self {
            Hash::Packed(list) => match find(list, field) {
                Some(pos) => {
                    list.remove_run(pos, 2);
                    true
                }
                None => false,
            },
            Hash::Table(table) => table.remove(field).is_some(),
        }
    }

    /// Fields with their values.
    pub(crate) fn iter(&self) -> Box<dyn Iterator<Item = (Item<'_>, Item<'_>)> + '_> {
        match self {
            Hash::Packed(list) => {
                let mut items = list.iter();
                Box::new(std::iter::from_fn(move || Some((items.next()?, items.next()?))))
            }
            Hash::Table(table) => Box::new(table.iter().map(|f| (Item::Str(f.key()), Item::Str(value_of(f))))),
        }
    }

    /// A field with its value, each as likely as any other.
    pub(crate) fn random(&self) -> Option<(Item<'_>, Item<'_>)> {
        match self {
            Hash::Packed(list) => {
                let len = list.len() / 2;
                let index = if len == 0 { return None } else { fastrand::usize(..len) * 2 };
                let field = list.seek(index as i64)?;
                Some((list.get(field), list.get(list.next(field)?)))
            }
            Hash::Table(table) => {
                table.random(&mut fastrand::Rng::new()).map(|f| (Item::Str(f.key()), Item::Str(value_of(f))))
            }
        }
    }

    /// One step of HSCAN: calls `f` for some fields, about `most` at most, and returns the next cursor, 0 at the end.
    /// Small hashes take one step.
    pub(crate) fn scan(&self, cursor: u64, most: usize, f: &mut dyn FnMut(Item<'_>, Item<'_>)) -> u64 {
        match self {
            Hash::Packed(_) => {
                self.iter().for_each(|(field, value)| f(field, value));
                0
            }
            Hash::Table(table) => table.scan_page(cursor, most, |e| f(Item::Str(e.key()), Item::Str(value_of(e)))),
        }
    }
}

fn find(list: &Listpack, field: &[u8]) -> Option<Pos> {
    list.find(list.first()?, field, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structs::table::TOGETHER;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn changes_agree_with_a_map(
            packed in 0usize..8,
            changes in proptest::collection::vec((any::<bool>(), "[a-e1-5]{1,2}", "[a-e0-9]{0,6}"), 0..100),
        ) {
            let limits = HashLimits { packed, packed_value: 5, seed: HashSeed([7; 16]) };
            let mut hash = Hash::new();
            let mut model = BTreeMap::new();
            for (set, field, value) in changes {
                let (field, value) = (field.into_bytes(), value.into_bytes());
                if set {
                    prop_assert_eq!(hash.set(&field, &value, &limits), model.insert(field.clone(), value).is_none());
                } else {
                    prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                }
                prop_assert_eq!(hash.get(&field).map(|i| i.to_vec()), model.get(&field).cloned());
                prop_assert_eq!(hash.len(), model.len());
            }
            let pairs: BTreeMap<_, _> = hash.clone().iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect();
            prop_assert_eq!(pairs, model);
        }
    }

    #[test]
    fn fields_are_set_together_until_one_is_there() {
        let limits = HashLimits { packed: 6, packed_value: 8, seed: HashSeed([3; 16]) };
        for count in [3, 6, 16, 500] {
            let text = |kind: &str| -> Vec<Vec<u8>> { (0..count).map(|n| format!("{kind}{n}").into_bytes()).collect() };
            let (fields, values) = (text("f"), text("v"));
            let mut hash = Hash::for_fields(count, &limits);
            let mut some = fields.chunks(TOGETHER).zip(values.chunks(TOGETHER));
            assert!(some.all(|(fields, values)| hash.add_together(fields, values, &limits)));
            assert_eq!(hash.len(), count);
            for (field, value) in fields.iter().zip(&values) {
                assert_eq!(hash.get(field).map(|item| item.to_vec()).as_ref(), Some(value));
            }
            let again = [b"new".to_vec(), fields[count / 2].clone()];
            assert!(!hash.add_together(&again, &[b"1".to_vec(), b"2".to_vec()], &limits));
            assert!(hash.contains(b"new"));
        }
    }
}
