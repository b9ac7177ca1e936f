//! Client-side caching: which keys clients may hold in caches of their own.
//!
//! A client in the default mode is remembered for every key it reads, and gets one message when the key changes. A
//! client in broadcasting mode gets the changed keys with its prefixes, once a turn of the loop. The table holds
//! clients by number, also those that are gone: they are dropped when a message for them is due.

pub(crate) mod table;

use crate::net::ClientId;
use crate::resp::Reply;
use std::collections::{BTreeMap, BTreeSet};
use table::KeyTable;

/// The channel on which clients in RESP2 get invalidation messages.
pub(crate) const CHANNEL: &[u8] = b"__redis__:invalidate";
/// Keys taken out at a time of a table that is too full; as many more each time in a row that this was not enough.
pub(crate) const EFFORT: usize = 100;
/// A table of at most so many keys is freed at once.
pub(crate) const SMALL_TABLE: usize = 64;

/// How a client asked for its keys to be tracked.
#[derive(Debug, Default)]
pub(crate) struct ClientTracking {
    /// Number of the client that gets the messages; 0: the client itself.
    pub(crate) redirect: u64,
    pub(crate) bcast: bool,
    pub(crate) optin: bool,
    pub(crate) optout: bool,
    pub(crate) noloop: bool,
    /// CLIENT CACHING was sent: the next command is the exception to `optin` or `optout`.
    pub(crate) caching: bool,
    /// The client that is to get the messages is gone.
    pub(crate) broken_redirect: bool,
    /// The prefixes of broadcasting mode.
    pub(crate) prefixes: BTreeSet<Vec<u8>>,
}

impl ClientTracking {
    /// Memory held, bytes.
    pub(crate) fn mem_bytes(&self) -> usize {
        size_of::<ClientTracking>() + self.prefixes.iter().map(|p| size_of::<Vec<u8>>() + p.capacity()).sum::<usize>()
    }
}

/// What CLIENT TRACKING on asks for.
#[derive(Debug, Default)]
pub(crate) struct Wish<'a> {
    pub(crate) redirect: u64,
    pub(crate) bcast: bool,
    pub(crate) optin: bool,
    pub(crate) optout: bool,
    pub(crate) noloop: bool,
    pub(crate) prefixes: Vec<&'a [u8]>,
}

/// The clients that broadcasting mode sends keys with a prefix.
#[derive(Debug, Default)]
pub(crate) struct Prefix {
    pub(crate) clients: BTreeSet<ClientId>,
    /// Keys changed since the last broadcast, each with the client that last changed it, if it was a client.
    pub(crate) changed: BTreeMap<Vec<u8>, Option<ClientId>>,
}

#[derive(Debug, Default)]
pub(crate) struct Tracking {
    /// Number of clients that track.
    pub(crate) clients: usize,
    /// Number of connected clients that track or once did: the table may still hold keys they read.
    pub(crate) veterans: usize,
    pub(crate) table: KeyTable,
    pub(crate) prefixes: BTreeMap<Vec<u8>, Prefix>,
    /// Number of prefixes of each length.
    lengths: BTreeMap<usize, usize>,
    /// How many times in a row the table stayed above its limit.
    pub(crate) overfull: usize,
    /// Messages for the client whose command runs, sent after its reply; `None`: everything may have changed.
    pub(crate) pending: Vec<Option<Vec<u8>>>,
}

impl Tracking {
    /// Keys in the invalidation table.
    pub(crate) fn total_keys(&self) -> usize {
        self.table.len()
    }

    /// Pairs of a key and a client in the invalidation table.
    pub(crate) fn total_items(&self) -> usize {
        self.table.items()
    }

    pub(crate) fn total_prefixes(&self) -> usize {
        self.prefixes.len()
    }

    pub(crate) fn is_needed(&self) -> bool {
        self.clients > 0 || !self.table.is_empty()
    }

    pub(crate) fn join(&mut self, prefix: &[u8], client: ClientId) {
        let state = self.prefixes.entry(prefix.to_vec()).or_insert_with(|| {
            *self.lengths.entry(prefix.len()).or_default() += 1;
            Prefix::default()
        });
        state.clients.insert(client);
    }

    pub(crate) fn leave(&mut self, prefix: &[u8], client: ClientId) {
        let Some(state) = self.prefixes.get_mut(prefix) else { return };
        state.clients.remove(&client);
        if state.clients.is_empty() {
            self.prefixes.remove(prefix);
            if let Some(count) = self.lengths.get_mut(&prefix.len()) {
                *count -= 1;
                if *count == 0 {
                    self.lengths.remove(&prefix.len());
                }
            }
        }
    }

    /// Notes a change for the clients in broadcasting mode.
    pub(crate) fn note_change(&mut self, key: &[u8], by: Option<ClientId>) {
        for &len in self.lengths.keys().take_while(|len| **len <= key.len()) {
            if let Some(state) = self.prefixes.get_mut(&key[..len]) {
                state.changed.insert(key.to_vec(), by);
            }
        }
    }
}

/// What a message says.
#[derive(Clone, Copy)]
pub(crate) enum Change<'a> {
    Key(&'a [u8]),
    /// These keys, as an array in the protocol.
    Keys(&'a [u8]),
    /// Everything may have changed.
    All,
}

pub(crate) fn key_array<'a>(keys: impl Iterator<Item = &'a Vec<u8>> + Clone) -> Vec<u8> {
    let mut out = Reply::default();
    out.array(keys.clone().count());
    keys.for_each(|key| out.bulk(key));
    out.buf
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(index: u32) -> ClientId {
        ClientId { index, generation: 0 }
    }

    #[test]
    fn changes_reach_every_prefix_of_a_key_once() {
        let mut tracking = Tracking::default();
        for (prefix, index) in [("", 1), ("a", 2), ("a", 3), ("ab", 1), ("b", 4)] {
            tracking.join(prefix.as_bytes(), client(index));
        }
        tracking.note_change(b"abc", Some(client(2)));
        tracking.note_change(b"abc", None);
        tracking.note_change(b"x", None);
        let changed = |prefix: &str| tracking.prefixes[prefix.as_bytes()].changed.len();
        assert_eq!((changed(""), changed("a"), changed("ab"), changed("b")), (2, 1, 1, 0));
        assert_eq!(tracking.prefixes[&b"a"[..]].changed[&b"abc"[..]], None);
    }

    #[test]
    fn prefixes_go_with_their_last_client() {
        let mut tracking = Tracking::default();
        tracking.join(b"a", client(1));
        tracking.join(b"a", client(2));
        tracking.join(b"b", client(1));
        tracking.leave(b"a", client(1));
        assert_eq!(tracking.total_prefixes(), 2);
        tracking.leave(b"a", client(2));
        tracking.leave(b"b", client(1));
        assert_eq!((tracking.total_prefixes(), tracking.lengths.len()), (0, 0));
    }
}
