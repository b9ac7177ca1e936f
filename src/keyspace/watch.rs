//! WATCH: who watches which key, and who must fail because one changed.

use super::Db;
use crate::net::ClientId;
use std::collections::HashMap;

/// A watched key of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchedKey {
    pub db: usize,
    pub key: Vec<u8>,
    /// It was there but past its time when WATCH was called: its removal changes nothing for the watcher.
    pub was_expired: bool,
}

/// Who watches a key, and whether it had expired by then.
type Watchers = HashMap<Vec<u8>, Vec<(ClientId, bool)>>;

#[derive(Default)]
pub struct WatchTable {
    /// By database.
    keys: HashMap<usize, Watchers>,
    count: usize,
    /// Clients whose transactions must fail, until `dispatch` marks them.
    pub dirty: Vec<ClientId>,
}

impl WatchTable {
    pub fn add(&mut self, client: ClientId, watched: &WatchedKey) {
        let clients = self.keys.entry(watched.db).or_default().entry(watched.key.clone()).or_default();
        clients.push((client, watched.was_expired));
        self.count += 1;
    }

    pub fn remove(&mut self, client: ClientId, watched: &WatchedKey) {
        let Some(keys) = self.keys.get_mut(&watched.db) else { return };
        let Some(clients) = keys.get_mut(&watched.key) else { return };
        let before = clients.len();
        clients.retain(|(c, _)| *c != client);
        self.count -= before - clients.len();
        if clients.is_empty() {
            keys.remove(&watched.key);
        }
    }

    /// Number of watched keys, over all clients.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// A key changed.
    pub fn touch(&mut self, db: usize, key: &[u8]) {
        if self.count == 0 {
            return;
        }
        if let Some(clients) = self.keys.get(&db).and_then(|k| k.get(key)) {
            self.dirty.extend(clients.iter().map(|(c, _)| *c));
        }
    }

    /// All of a database goes (`replacement`: and another takes its place): keys that are in either are changed.
    pub fn touch_flushed(&mut self, db: usize, old: &Db, replacement: Option<&Db>) {
        if self.count == 0 {
            return;
        }
        let Some(keys) = self.keys.get(&db) else { return };
        for (key, clients) in keys {
            let there = old.get(key).is_some();
            let comes = replacement.is_some_and(|r| r.get(key).is_some());
            if there || comes {
                // A key that had expired before it was watched and goes without a successor has not changed.
                self.dirty.extend(clients.iter().filter(|(_, expired)| comes || !expired).map(|(c, _)| *c));
            }
        }
    }
}
