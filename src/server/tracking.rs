//! Client-side caching as the server drives it: noting what calls read, and telling clients what changed.
//!
//! Invariant: changes enter the table in the order in which commands made and read them, so a change never cancels a later
//! read; `Effects::wants_modified` is on exactly while somebody tracks or the table holds something.

use crate::catalog::row::{Command, flag, key};
use crate::net::ClientId;
use crate::resp::{Args, Reply};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::sys::background::Discarded;
use crate::tracking::{CHANNEL, Change, EFFORT, SMALL_TABLE, Wish, key_array};

impl Server {
    /// Begins to track for a client, or changes how that is done. What it asks for has been checked.
    pub(crate) fn start_tracking(&mut self, id: ClientId, wish: &Wish<'_>) {
        let Some(c) = self.clients.get_mut(id) else { return };
        if !c.is(ClientFlags::TRACKING) {
            c.flags.add(ClientFlags::TRACKING);
            self.tracking.clients += 1;
        }
        if !c.is(ClientFlags::HAS_TRACKED) {
            c.flags.add(ClientFlags::HAS_TRACKED);
            self.tracking.veterans += 1;
        }
        let state = c.tracking.get_or_insert_default();
        state.redirect = wish.redirect;
        state.broken_redirect = false;
        (state.bcast, state.optin, state.optout, state.noloop) = (wish.bcast, wish.optin, wish.optout, wish.noloop);
        if wish.bcast {
            let all: &[&[u8]] = if wish.prefixes.is_empty() { &[b""] } else { &wish.prefixes };
            for prefix in all {
                self.tracking.join(prefix, id);
                state.prefixes.insert(prefix.to_vec());
            }
        }
        self.ks.effects.wants_modified = true;
    }

    /// Ends tracking for a client. What is in the table for it stays: it may come back.
    pub(crate) fn stop_tracking(&mut self, id: ClientId) {
        let Some(c) = self.clients.get_mut(id) else { return };
        let Some(state) = c.tracking.take() else { return };
        c.flags.remove(ClientFlags::TRACKING);
        for prefix in &state.prefixes {
            self.tracking.leave(prefix, id);
        }
        self.tracking.clients -= 1;
        self.ks.effects.wants_modified = self.tracking.is_needed();
    }

    /// A client goes away for good.
    pub(crate) fn forget_tracking(&mut self, id: ClientId) {
        self.stop_tracking(id);
        if !self.clients.get(id).is_some_and(|c| c.is(ClientFlags::HAS_TRACKED)) {
            return;
        }
        self.tracking.veterans -= 1;
        if self.tracking.veterans == 0 {
            // Nobody is left who could be told of what the table holds.
            self.drop_tracking_table();
        }
    }

    fn drop_tracking_table(&mut self) {
        let table = std::mem::take(&mut self.tracking.table);
        if table.len() > SMALL_TABLE {
            self.background.free(vec![Discarded { counted: 0, bytes: 0, garbage: Box::new(table) }]);
        }
        self.ks.effects.wants_modified = self.tracking.is_needed();
    }

    /// Takes note of what a command changed, and then of the keys it read. Called after each command, nested ones too,
    /// while `wants_modified`.
    pub(crate) fn track_call(&mut self, id: ClientId, row: &Command, args: Args<'_>) {
        self.track_changes(Some(id));
        // The keys are those of the command that runs, the client is the one outside that caused it. Of scripts only the
        // commands they run count.
        let reads = row.has(flag::READONLY) && !matches!(row.name, "eval_ro" | "evalsha_ro" | "fcall_ro");
        let reader = self.clients.current.filter(|_| reads && !row.has(flag::PUBSUB));
        let Some(reader) = reader.and_then(|id| self.clients.get(id)) else { return };
        let Some(state) = reader.tracking.as_ref() else { return };
        if state.bcast || (state.optin && !state.caching) || (state.optout && state.caching) {
            return;
        }
        for found in row.keys_of(args).unwrap_or_default() {
            if found.flags & key::NOT_KEY == 0 {
                self.tracking.table.add(&args[found.index], reader.number);
            }
        }
    }

    /// Takes note of what changed so far, `by` a client or by nobody in particular, and tells those who cache it.
    pub(crate) fn track_changes(&mut self, by: Option<ClientId>) {
        let effects = &mut self.ks.effects;
        if effects.modified_keys.is_empty() && !effects.flushed {
            return;
        }
        let flushed = std::mem::take(&mut effects.flushed);
        for change in std::mem::take(&mut effects.modified_keys) {
            self.tracking.note_change(&change.key, by.filter(|_| change.by_command));
            self.invalidate(&change.key);
        }
        if flushed {
            self.invalidate_all();
        }
        self.ks.effects.wants_modified = self.tracking.is_needed();
    }

    /// Tells the clients that may hold a key in the ordinary mode, and forgets that they do.
    fn invalidate(&mut self, key: &[u8]) {
        let current = self.clients.current;
        for number in self.tracking.table.take(key) {
            let Some(id) = self.clients.by_number(number) else { continue };
            let Some(state) = self.clients.get(id).and_then(|c| c.tracking.as_ref()) else { continue };
            // It may have changed to broadcasting since.
            if state.bcast || (state.noloop && current == Some(id)) {
                continue;
            }
            if current == Some(id) {
                self.tracking.pending.push(Some(key.to_vec()));
            } else {
                self.send_invalidation(id, Change::Key(key));
            }
        }
    }

    fn invalidate_all(&mut self) {
        if self.tracking.clients > 0 {
            let mut trackers: Vec<(u64, ClientId)> =
                self.clients.iter().filter(|c| c.is(ClientFlags::TRACKING)).map(|c| (c.number, c.id)).collect();
            trackers.sort_unstable();
            for (_, id) in trackers {
                if self.clients.current == Some(id) {
                    self.tracking.pending.push(None);
                } else {
                    self.send_invalidation(id, Change::All);
                }
            }
        }
        self.drop_tracking_table();
    }

    /// Tells the client whose command ran what it changed itself, in the protocol that it speaks by now.
    pub(crate) fn send_own_invalidations(&mut self) {
        let pending = std::mem::take(&mut self.tracking.pending);
        let Some(id) = self.clients.current else { return };
        for key in &pending {
            self.send_invalidation(id, key.as_deref().map_or(Change::All, Change::Key));
        }
    }

    /// Sends a message on behalf of a client that tracks: to it, or where it asked for.
    fn send_invalidation(&mut self, id: ClientId, change: Change<'_>) {
        let Some(c) = self.clients.get_mut(id) else { return };
        let own_resp3 = c.resp == 3;
        let Some(state) = c.tracking.as_mut() else { return };
        let redirect = state.redirect;
        let target = match redirect {
            0 => Some(id),
            number => self.clients.by_number(number),
        };
        let Some(to) = target.and_then(|id| self.clients.get(id)) else {
            if let Some(state) = self.clients.get_mut(id).and_then(|c| c.tracking.as_mut()) {
                state.broken_redirect = true;
            }
            if own_resp3 {
                let mut out = Reply::new(true);
                out.push(2);
                out.bulk(b"tracking-redir-broken");
                out.int(redirect as i64);
                self.deliver_push(id, &out.buf);
            }
            return;
        };
        let mut out = Reply::new(to.resp == 3);
        if to.resp == 3 {
            out.push(2);
            out.bulk(b"invalidate");
        } else if redirect != 0 && to.is(ClientFlags::PUBSUB) {
            out.push(3);
            out.bulk(b"message");
            out.bulk(CHANNEL);
        } else {
            // Nothing can be sent outside of replies in the older protocol.
            return;
        }
        match change {
            Change::Key(key) => {
                out.array(1);
                out.bulk(key);
            }
            Change::Keys(keys) => out.raw(keys),
            Change::All => {
                // In the protocol of the client that tracks, wherever it goes.
                out.resp3 = own_resp3;
                out.null();
            }
        }
        let to = to.id;
        self.deliver_push(to, &out.buf);
    }

    fn deliver_push(&mut self, id: ClientId, bytes: &[u8]) {
        self.clients.push(id, bytes);
        if self.clients.current != Some(id) {
            self.check_output_limit(id);
            self.update_client_memory(id);
        }
    }

    /// Tells the clients in broadcasting mode what changed in this turn of the loop.
    pub(crate) fn broadcast_invalidations(&mut self) {
        if self.tracking.prefixes.is_empty() {
            return;
        }
        let changed: Vec<_> = self
            .tracking
            .prefixes
            .values_mut()
            .filter(|state| !state.changed.is_empty())
            .map(|state| (state.clients.clone(), std::mem::take(&mut state.changed)))
            .collect();
        for (clients, keys) in changed {
            let all = key_array(keys.keys());
            for id in clients {
                let noloop = self.clients.get(id).and_then(|c| c.tracking.as_ref()).is_some_and(|t| t.noloop);
                if !noloop {
                    self.send_invalidation(id, Change::Keys(&all));
                } else if keys.values().any(|by| *by != Some(id)) {
                    let others = keys.iter().filter(|(_, by)| **by != Some(id)).map(|(key, _)| key);
                    self.send_invalidation(id, Change::Keys(&key_array(others)));
                }
            }
        }
    }

    /// Whether `limit_tracking_table` has anything to do.
    pub(crate) fn tracking_table_is_full(&self) -> bool {
        let (max, tracking) = (self.cfg.tracking_table_max_keys, &self.tracking);
        tracking.clients != 0 && max != 0 && (tracking.table.len() > max || tracking.overfull > 0)
    }

    /// Keeps the table within `tracking-table-max-keys`: clients are told to forget keys as if those had changed.
    pub(crate) fn limit_tracking_table(&mut self) {
        let max = self.cfg.tracking_table_max_keys;
        if self.tracking.clients == 0 || max == 0 {
            return;
        }
        if self.tracking.table.len() > max {
            for _ in 0..EFFORT * (self.tracking.overfull + 1) {
                let Some(key) = self.tracking.table.random() else { break };
                self.invalidate(&key);
                if self.tracking.table.len() <= max {
                    break;
                }
            }
        }
        self.send_own_invalidations();
        self.tracking.overfull = if self.tracking.table.len() > max { self.tracking.overfull + 1 } else { 0 };
    }

    /// Number of clients that track.
    pub(crate) fn tracking_clients(&self) -> usize {
        self.tracking.clients
    }
}
