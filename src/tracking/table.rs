//! The invalidation table: which clients may hold a key in their caches.
//!
//! Invariant: a key is here with at least one client, in its shard's map and in that shard's list at the index the map
//! says. The table is cut into shards, so that the growth of one does not hold up the loop.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::BuildHasher;
use std::sync::Arc;

const SHARDS: usize = 256;

/// Numbers of clients, in order. Nearly all keys are held by one client.
#[derive(Debug, PartialEq, Eq)]
enum Holders {
    One(u64),
    Many(Vec<u64>),
}

impl Holders {
    fn add(&mut self, number: u64) -> bool {
        match self {
            Holders::One(one) if *one == number => false,
            Holders::One(one) => {
                *self = Holders::Many(vec![number.min(*one), number.max(*one)]);
                true
            }
            Holders::Many(many) => match many.binary_search(&number) {
                Ok(_) => false,
                Err(at) => {
                    many.insert(at, number);
                    true
                }
            },
        }
    }

    fn into_vec(self) -> Vec<u64> {
        match self {
            Holders::One(one) => vec![one],
            Holders::Many(many) => many,
        }
    }

    fn len(&self) -> usize {
        match self {
            Holders::One(_) => 1,
            Holders::Many(many) => many.len(),
        }
    }
}

#[derive(Debug)]
struct Slot {
    holders: Holders,
    /// Where the key stands in the shard's list.
    place: u32,
}

#[derive(Debug, Default)]
struct Shard {
    slots: HashMap<Arc<[u8]>, Slot>,
    /// All keys, so that one can be chosen at random.
    list: Vec<Arc<[u8]>>,
}

#[derive(Debug, Default)]
pub(crate) struct KeyTable {
    shards: Vec<Shard>,
    spread: RandomState,
    keys: usize,
    items: usize,
}

impl KeyTable {
    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.keys
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.keys == 0
    }

    /// Number of pairs of a key and a client.
    pub(crate) fn items(&self) -> usize {
        self.items
    }

    /// Notes that a client holds a key.
    pub(crate) fn add(&mut self, key: &[u8], number: u64) {
        if self.shards.is_empty() {
            self.shards.resize_with(SHARDS, Shard::default);
        }
        let at = self.spread.hash_one(key) as usize % SHARDS;
        let Shard { slots, list } = &mut self.shards[at];
        if let Some(slot) = slots.get_mut(key) {
            self.items += usize::from(slot.holders.add(number));
            return;
        }
        let key: Arc<[u8]> = key.into();
        if let Entry::Vacant(vacant) = slots.entry(key.clone()) {
            vacant.insert(Slot { holders: Holders::One(number), place: list.len() as u32 });
            list.push(key);
            self.keys += 1;
            self.items += 1;
        }
    }

    /// Forgets a key and gives the clients that held it.
    pub(crate) fn take(&mut self, key: &[u8]) -> Vec<u64> {
        if self.keys == 0 {
            return Vec::new();
        }
        let at = self.spread.hash_one(key) as usize % SHARDS;
        let Shard { slots, list } = &mut self.shards[at];
        let Some(slot) = slots.remove(key) else { return Vec::new() };
        list.swap_remove(slot.place as usize);
        if let Some(moved) = list.get(slot.place as usize) {
            slots.get_mut(moved).expect("listed keys are in the map").place = slot.place;
        }
        self.keys -= 1;
        self.items -= slot.holders.len();
        slot.holders.into_vec()
    }

    /// A key at random.
    pub(crate) fn random(&self) -> Option<Arc<[u8]>> {
        if self.keys == 0 {
            return None;
        }
        let start = fastrand::usize(..SHARDS);
        let (later, earlier) = (&self.shards[start..], &self.shards[..start]);
        let shard = later.iter().chain(earlier).find(|shard| !shard.list.is_empty())?;
        shard.list.get(fastrand::usize(..shard.list.len())).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn check_invariants(table: &KeyTable) {
        let mut keys = 0;
        let mut items = 0;
        for shard in &table.shards {
            assert_eq!(shard.slots.len(), shard.list.len());
            for (key, slot) in &shard.slots {
                assert_eq!(shard.list[slot.place as usize], *key);
                assert!(slot.holders.len() > 0);
                items += slot.holders.len();
            }
            keys += shard.list.len();
        }
        assert_eq!((keys, items), (table.len(), table.items()));
    }

    #[test]
    fn it_is_a_map_of_sets() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut table = KeyTable::default();
        let mut model: BTreeMap<Vec<u8>, BTreeSet<u64>> = BTreeMap::new();
        for _ in 0..20_000 {
            let key = random.u32(..600).to_string().into_bytes();
            if random.u8(..3) < 2 {
                let number = random.u64(1..6);
                table.add(&key, number);
                model.entry(key).or_default().insert(number);
            } else {
                let held: Vec<u64> = model.remove(&key).unwrap_or_default().into_iter().collect();
                assert_eq!(table.take(&key), held);
            }
        }
        check_invariants(&table);
        assert_eq!(table.len(), model.len());
        assert_eq!(table.items(), model.values().map(BTreeSet::len).sum::<usize>());
    }

    #[test]
    fn random_keys_are_there_until_none_is_left() {
        let mut table = KeyTable::default();
        for number in 0..500u64 {
            table.add(&number.to_be_bytes(), number);
        }
        while let Some(key) = table.random() {
            assert_eq!(table.take(&key).len(), 1);
        }
        check_invariants(&table);
        assert!(table.is_empty());
    }
}
