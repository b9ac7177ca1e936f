//! Subscribing, unsubscribing, and the delivery of messages and keyspace events.
//!
//! Invariant: a client stands in a channel's list exactly when the channel stands in the client's own set, and carries the
//! `PUBSUB` flag exactly while it has any subscription. Sending messages to other nodes is the cluster's.

use crate::keyspace::effects::{KeyEvent, notify};
use crate::net::ClientId;
use crate::pubsub::{Kind, Message, Name, subscription_push};
use crate::resp::Reply;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::structs::glob;
use crate::structs::slots::key_slot;

impl Server {
    /// Adds a subscription; false if it was there.
    pub(crate) fn subscribe(&mut self, id: ClientId, kind: Kind, name: &[u8]) -> bool {
        let Some(c) = self.clients.get_mut(id) else { return false };
        c.flags.add(ClientFlags::PUBSUB);
        let mine = c.subscriptions.get_or_insert_default().names_mut(kind);
        // One look-up finds the name that others share and the place of the listener.
        let listeners = self.pubsub.listeners_mut(kind).names.entry(Name::from(name));
        let fresh = mine.insert(listeners.key().clone());
        if fresh {
            listeners.or_default().push(id);
        }
        fresh
    }

    /// Ends a subscription; false if there was none.
    pub(crate) fn unsubscribe(&mut self, id: ClientId, kind: Kind, name: &[u8]) -> bool {
        let Some(c) = self.clients.get_mut(id) else { return false };
        let Some(mine) = c.subscriptions.as_mut() else { return false };
        let there = mine.names_mut(kind).remove(name);
        if mine.is_empty() {
            c.subscriptions = None;
            c.flags.remove(ClientFlags::PUBSUB);
        }
        if there {
            self.pubsub.listeners_mut(kind).remove(name, id);
        }
        there
    }

    /// Ends all of a client's subscriptions without a word.
    pub(crate) fn unsubscribe_all(&mut self, id: ClientId) {
        let Some(mine) = self.clients.get_mut(id).and_then(|c| c.subscriptions.take()) else { return };
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.remove(ClientFlags::PUBSUB);
        }
        for kind in Kind::ALL {
            mine.names(kind).iter().for_each(|name| self.pubsub.listeners_mut(kind).remove(name, id));
        }
    }

    /// Delivers a message to the subscribers of this server; gives their number.
    pub(crate) fn deliver(&mut self, sharded: bool, channel: &[u8], payload: &[u8]) -> usize {
        let kind = if sharded { Kind::Shard } else { Kind::Channel };
        let verb: &[u8] = if sharded { b"smessage" } else { b"message" };
        let mut listeners = self.pubsub.listeners(kind).of(channel).to_vec();
        let sent = self.send_to_all(&listeners, &[verb, channel, payload]);
        if sharded && sent > 0 {
            self.meter_sent(channel, sent);
        }
        let mut receivers = listeners.len();
        if sharded || self.pubsub.patterns.is_empty() {
            return receivers;
        }
        // The patterns that match, each with where its listeners end among all of theirs.
        listeners.clear();
        let mut matching = Vec::new();
        for (pattern, clients) in self.pubsub.patterns.names.iter().filter(|(p, _)| glob::matches(p, channel)) {
            listeners.extend_from_slice(clients);
            matching.push((pattern.clone(), listeners.len()));
        }
        receivers += listeners.len();
        let mut start = 0;
        for (pattern, end) in matching {
            self.send_to_all(&listeners[start..end], &[b"pmessage", &pattern, channel, payload]);
            start = end;
        }
        receivers
    }

    /// Gives how many bytes that was.
    fn send_to_all(&mut self, clients: &[ClientId], parts: &[&[u8]]) -> usize {
        let mut message = Message::new(parts);
        let mut sent = 0;
        for id in clients {
            let Some(resp3) = self.clients.get(*id).map(|c| c.resp == 3) else { continue };
            let bytes = message.bytes(resp3);
            sent += bytes.len();
            self.clients.push(*id, bytes);
            self.check_output_limit(*id);
        }
        sent
    }

    /// Publishes the keyspace events that commands left.
    pub(crate) fn publish_key_events(&mut self) {
        for KeyEvent { event, key, db } in std::mem::take(&mut self.ks.effects.events) {
            let flags = self.ks.effects.notify_flags;
            if flags & notify::KEYSPACE != 0 {
                let channel = [format!("__keyspace@{db}__:").as_bytes(), &key].concat();
                self.deliver(false, &channel, event.as_bytes());
            }
            if flags & notify::KEYEVENT != 0 {
                let channel = format!("__keyevent@{db}__:{event}");
                self.deliver(false, channel.as_bytes(), &key);
            }
        }
    }

    /// Ends the subscriptions to sharded channels of slots that this node no longer serves, and tells the subscribers.
    pub(crate) fn unsubscribe_slots(&mut self, moved: &dyn Fn(u16) -> bool) {
        let gone: Vec<Name> = self.pubsub.shards.names().filter(|name| moved(key_slot(name))).cloned().collect();
        for name in gone {
            for id in self.pubsub.shards.of(&name).to_vec() {
                self.unsubscribe(id, Kind::Shard, &name);
                let Some(c) = self.clients.get(id) else { continue };
                let left = c.subscriptions.as_ref().map_or(0, |s| s.count_for(Kind::Shard));
                let mut out = Reply::new(c.resp == 3);
                subscription_push(&mut out, Kind::Shard.verbs().1, Some(&name), left);
                self.clients.push(id, &out.buf);
            }
        }
    }
}
