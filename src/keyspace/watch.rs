//! WATCH: who watches which key, and who must fail because one changed.

use super::Db;
use super::expire::is_due;
use crate::net::ClientId;
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

/// A watched key of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchedKey {
    pub(crate) db: usize,
    pub(crate) key: Vec<u8>,
    /// It had expired, but was still there, when WATCH was called: its removal changes nothing for the watcher.
    pub(crate) was_expired: bool,
}

/// A watcher that is no client, but has begun to copy a key: it hears of whatever changes in it.
pub(crate) fn copier(number: u32) -> ClientId {
    ClientId { index: u32::MAX, generation: number }
}

/// The clients that watch each key, and whether it had expired by then. Thousands may watch the same one.
type Watchers = HashMap<Vec<u8>, BTreeMap<ClientId, bool>>;

#[derive(Default)]
pub(crate) struct WatchTable {
    /// By database.
    keys: Vec<Watchers>,
    count: usize,
    /// Clients whose transactions must fail, until `server/dispatch` marks them.
    pub(crate) dirty: Vec<ClientId>,
}

impl WatchTable {
    pub(crate) fn add(&mut self, client: ClientId, watched: &WatchedKey) {
        if self.keys.len() <= watched.db {
            self.keys.resize_with(watched.db + 1, Watchers::new);
        }
        let clients = self.keys[watched.db].entry(watched.key.clone()).or_default();
        if clients.insert(client, watched.was_expired).is_none() {
            self.count += 1;
        }
    }

    pub(crate) fn remove(&mut self, client: ClientId, watched: WatchedKey) {
        let Some(keys) = self.keys.get_mut(watched.db) else { return };
        let Entry::Occupied(mut clients) = keys.entry(watched.key) else { return };
        if clients.get_mut().remove(&client).is_some() {
            self.count -= 1;
        }
        if clients.get().is_empty() {
            clients.remove();
        }
    }

    /// Whether the client watches the key already.
    pub(crate) fn is_watched_by(&self, client: ClientId, db: usize, key: &[u8]) -> bool {
        let clients = self.keys.get(db).and_then(|keys| keys.get(key));
        clients.is_some_and(|clients| clients.contains_key(&client))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Marks the watchers of a key that changed; `present`: it exists now. For a client that watched it when it had
    /// already expired, deletion is no change.
    pub(crate) fn touch(&mut self, db: usize, key: &[u8], present: bool) {
        if self.count == 0 {
            return;
        }
        let Some(clients) = self.keys.get_mut(db).and_then(|k| k.get_mut(key)) else { return };
        for (client, was_expired) in clients {
            if *was_expired && !present {
                *was_expired = false;
            } else {
                self.dirty.push(*client);
            }
        }
    }

    /// Marks those who copy a key that changed in a way in which it did not for clients.
    pub(crate) fn touch_aside(&mut self, db: usize, key: &[u8]) {
        let clients = self.keys.get(db).and_then(|keys| keys.get(key));
        // Their ids come after those of all clients.
        let copiers = clients.into_iter().flat_map(|clients| clients.range(copier(0)..));
        self.dirty.extend(copiers.map(|(client, _)| *client));
    }

    /// Marks the watchers of keys of a database that is emptied or replaced: keys that exist in either are changed,
    /// except those that were expired or missing and still are.
    pub(crate) fn touch_flushed(&mut self, db: usize, old: &Db, replacement: Option<&Db>, now_ms: i64) {
        if self.count == 0 {
            return;
        }
        let Some(keys) = self.keys.get_mut(db) else { return };
        for (key, clients) in keys {
            let was_there = old.get(key).is_some();
            let comes = replacement.and_then(|r| r.get(key));
            if !was_there && comes.is_none() {
                continue;
            }
            let comes_expired = comes.is_some_and(|e| is_due(e.expire_ms(), now_ms));
            for (client, was_expired) in clients {
                match (*was_expired, comes) {
                    (true, None) => *was_expired = false,
                    (true, Some(_)) if comes_expired => {}
                    (false, Some(_)) if comes_expired && !was_there => *was_expired = true,
                    _ => self.dirty.push(*client),
                }
            }
        }
    }

    /// Whether the key had expired when the client began to watch it, and was not changed since.
    pub(crate) fn was_expired(&self, client: ClientId, watched: &WatchedKey) -> bool {
        let clients = self.keys.get(watched.db).and_then(|k| k.get(&watched.key));
        clients.and_then(|clients| clients.get(&client)).is_some_and(|was_expired| *was_expired)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Keyspace;
    use crate::structs::entry::NewValue;
    use crate::structs::table::HashSeed;

    const CLIENT: ClientId = ClientId { index: 1, generation: 0 };

    /// Two databases at time 1000; the key is watched in the first.
    fn watching(expire_ms: Option<Option<i64>>) -> Keyspace {
        let mut ks = Keyspace::new(2, false, HashSeed([0; 16]));
        ks.now_ms = 1000;
        if let Some(expire_ms) = expire_ms {
            ks.insert(0, b"k", NewValue::Int(1), expire_ms);
        }
        let was_expired = expire_ms.flatten().is_some_and(|t| t < 1000);
        ks.watch.add(CLIENT, &WatchedKey { db: 0, key: b"k".to_vec(), was_expired });
        ks
    }

    #[test]
    fn slots_are_emptied_at_once_and_only_their_keys_are_touched() {
        let mut ks = Keyspace::new(1, true, HashSeed([0; 16]));
        let (a, b) = (crate::structs::slots::key_slot(b"a"), crate::structs::slots::key_slot(b"b"));
        for (key, expire_ms) in [(&b"{a}1"[..], None), (&b"{a}2"[..], Some(5000)), (&b"{b}1"[..], Some(5000))] {
            ks.insert(0, key, NewValue::Int(1), expire_ms);
        }
        let others = ClientId { index: 2, generation: 0 };
        ks.watch.add(CLIENT, &WatchedKey { db: 0, key: b"{a}1".to_vec(), was_expired: false });
        ks.watch.add(others, &WatchedKey { db: 0, key: b"{b}1".to_vec(), was_expired: false });
        assert_eq!(ks.flush_slots(&[a, 9].into_iter().collect(), true), 2);
        assert_eq!(
            (ks.dbs[0].len(), ks.dbs[0].expires_len(), ks.dbs[0].slot_len(a), ks.dbs[0].slot_len(b)),
            (1, 1, 0, 1)
        );
        assert_eq!((ks.watch.dirty.as_slice(), ks.flushes), (&[CLIENT][..], 0));
        assert_eq!(ks.flush_slots(&[a].into_iter().collect(), false), 0);
    }

    #[test]
    fn a_stale_key_may_go_but_not_come_back() {
        let mut ks = watching(Some(Some(10)));
        assert!(ks.peek(0, b"k").is_none());
        assert!(ks.watch.dirty.is_empty());
        ks.set(0, b"k", NewValue::Int(2), false);
        assert_eq!(ks.watch.dirty, [CLIENT]);
    }

    #[test]
    fn what_is_no_change_for_clients_is_one_for_who_copies_the_key() {
        let mut ks = watching(Some(None));
        ks.watch.add(copier(7), &WatchedKey { db: 0, key: b"k".to_vec(), was_expired: false });
        ks.signal_aside(0, b"k");
        assert_eq!(ks.watch.dirty, [copier(7)]);
        ks.signal_aside(0, b"other");
        ks.signal_aside(1, b"k");
        assert_eq!(ks.watch.dirty.len(), 1);
        ks.signal_modified(0, b"k");
        assert_eq!(ks.watch.dirty.len(), 3);
    }

    #[test]
    fn each_watcher_is_known_until_it_stops() {
        let mut table = WatchTable::default();
        let other = ClientId { index: 2, generation: 0 };
        let watched = |db| WatchedKey { db, key: b"k".to_vec(), was_expired: false };
        table.add(CLIENT, &watched(0));
        table.add(other, &watched(0));
        table.add(CLIENT, &watched(1));
        assert!(table.is_watched_by(CLIENT, 0, b"k") && table.is_watched_by(other, 0, b"k"));
        assert!(!table.is_watched_by(other, 1, b"k") && !table.is_watched_by(CLIENT, 0, b"other"));
        table.remove(CLIENT, watched(0));
        assert!(!table.is_watched_by(CLIENT, 0, b"k") && table.is_watched_by(other, 0, b"k"));
        table.remove(other, watched(0));
        table.remove(CLIENT, watched(1));
        table.remove(CLIENT, watched(1));
        assert!(table.is_empty());
    }

    #[test]
    fn a_live_key_may_not_go() {
        let mut ks = watching(Some(None));
        ks.delete(0, b"k", false);
        assert_eq!(ks.watch.dirty, [CLIENT]);
    }

    #[test]
    fn swapping_databases_compares_what_can_be_seen() {
        for (before, comes, dirty) in [
            (None, None, false),
            (None, Some(Some(10)), false),
            (None, Some(None), true),
            (Some(Some(10)), None, false),
            (Some(Some(10)), Some(Some(20)), false),
            (Some(Some(10)), Some(None), true),
            (Some(None), None, true),
            (Some(None), Some(Some(10)), true),
        ] {
            let mut ks = watching(before);
            if let Some(expire_ms) = comes {
                ks.insert(1, b"k", NewValue::Int(2), expire_ms);
            }
            ks.swap(0, 1);
            assert_eq!(!ks.watch.dirty.is_empty(), dirty, "{before:?} {comes:?}");
        }
    }
}
