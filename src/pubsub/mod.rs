//! Pub/sub: who listens to which channel, pattern and sharded channel, and the delivery of messages and keyspace events.
//!
//! Invariant: a client stands in a channel's list exactly when the channel stands in the client's own set, and carries the
//! `PUBSUB` flag exactly while it has any subscription. Sending messages to other nodes is the cluster's.

use crate::cluster::slots::key_slot;
use crate::keyspace::effects::{KeyEvent, notify};
use crate::net::{ClientFlags, ClientId};
use crate::resp::Reply;
use crate::server::Server;
use crate::structs::glob;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The three kinds of subscription, each with a namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

impl Kind {
    pub const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];

    /// What the pushes about subscribing and unsubscribing are called.
    pub fn verbs(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Kind::Channel => (b"subscribe", b"unsubscribe"),
            Kind::Pattern => (b"psubscribe", b"punsubscribe"),
            Kind::Shard => (b"ssubscribe", b"sunsubscribe"),
        }
    }
}

/// The name of a channel or a pattern, which its listeners share.
pub type Name = Arc<[u8]>;

/// Who listens, by name.
#[derive(Debug, Default)]
pub struct Listeners {
    names: HashMap<Name, Vec<ClientId>>,
}

impl Listeners {
    pub fn of(&self, name: &[u8]) -> &[ClientId] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.keys()
    }

    /// Names with at least one listener.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn add(&mut self, name: Name, client: ClientId) {
        self.names.entry(name).or_default().push(client);
    }

    fn remove(&mut self, name: &[u8], client: ClientId) {
        // Many names have one listener: to take them out and put the others back looks them up once.
        let Some((name, mut clients)) = self.names.remove_entry(name) else { return };
        clients.retain(|c| *c != client);
        if !clients.is_empty() {
            self.names.insert(name, clients);
        }
    }
}

#[derive(Debug, Default)]
pub struct PubSub {
    channels: Listeners,
    patterns: Listeners,
    shards: Listeners,
}

impl PubSub {
    pub fn listeners(&self, kind: Kind) -> &Listeners {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shards,
        }
    }

    fn listeners_mut(&mut self, kind: Kind) -> &mut Listeners {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }
}

/// What one client listens to.
#[derive(Debug, Default)]
pub struct Subscriptions {
    channels: HashSet<Name>,
    patterns: HashSet<Name>,
    shards: HashSet<Name>,
}

impl Subscriptions {
    pub fn names(&self, kind: Kind) -> &HashSet<Name> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shards,
        }
    }

    fn names_mut(&mut self, kind: Kind) -> &mut HashSet<Name> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }

    pub fn is_empty(&self) -> bool {
        Kind::ALL.iter().all(|k| self.names(*k).is_empty())
    }

    /// The number that pushes about this kind carry: sharded channels count apart from channels and patterns.
    pub fn count_for(&self, kind: Kind) -> usize {
        match kind {
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
            Kind::Shard => self.shards.len(),
        }
    }

    /// Memory of the entries, in bytes, without that of long names: this is asked after every command.
    pub fn mem_bytes(&self) -> usize {
        const SHORT_NAME: usize = 16;
        Kind::ALL.iter().map(|k| self.names(*k).len() * (size_of::<Name>() + SHORT_NAME)).sum()
    }
}

/// A message as subscribers get it.
fn message(resp3: bool, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Reply::new(resp3);
    out.push(parts.len());
    parts.iter().for_each(|p| out.bulk(p));
    out.buf
}

/// The same message in the two protocols, each made when first needed.
struct Message<'a> {
    parts: &'a [&'a [u8]],
    made: [Option<Vec<u8>>; 2],
}

impl<'a> Message<'a> {
    fn new(parts: &'a [&'a [u8]]) -> Message<'a> {
        Message { parts, made: [None, None] }
    }

    fn bytes(&mut self, resp3: bool) -> &[u8] {
        let parts = self.parts;
        self.made[resp3 as usize].get_or_insert_with(|| message(resp3, parts))
    }
}

impl Server {
    /// Adds a subscription; false if it was there.
    pub fn subscribe(&mut self, id: ClientId, kind: Kind, name: &[u8]) -> bool {
        let Some(c) = self.clients.get_mut(id) else { return false };
        c.flags.add(ClientFlags::PUBSUB);
        let mine = c.subscriptions.get_or_insert_default().names_mut(kind);
        let listeners = self.pubsub.listeners_mut(kind);
        let name = listeners.names.get_key_value(name).map_or_else(|| Name::from(name), |(name, _)| name.clone());
        let fresh = mine.insert(name.clone());
        if fresh {
            listeners.add(name, id);
        }
        fresh
    }

    /// Ends a subscription; false if there was none.
    pub fn unsubscribe(&mut self, id: ClientId, kind: Kind, name: &[u8]) -> bool {
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
    pub fn unsubscribe_all(&mut self, id: ClientId) {
        let Some(mine) = self.clients.get_mut(id).and_then(|c| c.subscriptions.take()) else { return };
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.remove(ClientFlags::PUBSUB);
        }
        for kind in Kind::ALL {
            mine.names(kind).iter().for_each(|name| self.pubsub.listeners_mut(kind).remove(name, id));
        }
    }

    /// Delivers a message to the subscribers of this server; gives their number.
    pub fn deliver(&mut self, sharded: bool, channel: &[u8], payload: &[u8]) -> usize {
        let kind = if sharded { Kind::Shard } else { Kind::Channel };
        let verb: &[u8] = if sharded { b"smessage" } else { b"message" };
        let mut receivers = self.send_to_all(kind, channel, &[verb, channel, payload]);
        if sharded || self.pubsub.patterns.is_empty() {
            return receivers;
        }
        let matching: Vec<Name> = self.pubsub.patterns.names().filter(|p| glob::matches(p, channel)).cloned().collect();
        for pattern in matching {
            receivers += self.send_to_all(Kind::Pattern, &pattern, &[b"pmessage", &pattern, channel, payload]);
        }
        receivers
    }

    fn send_to_all(&mut self, kind: Kind, name: &[u8], parts: &[&[u8]]) -> usize {
        let clients = self.pubsub.listeners(kind).of(name).to_vec();
        let mut message = Message::new(parts);
        for id in &clients {
            let Some(resp3) = self.clients.get(*id).map(|c| c.resp == 3) else { continue };
            self.clients.push(*id, message.bytes(resp3));
            self.check_output_limit(*id);
        }
        clients.len()
    }

    /// Publishes the keyspace events that commands left.
    pub fn publish_key_events(&mut self) {
        for KeyEvent { event, key, db, .. } in std::mem::take(&mut self.ks.effects.events) {
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
    pub fn unsubscribe_slots(&mut self, moved: &dyn Fn(u16) -> bool) {
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

/// The push that confirms a change of subscriptions.
pub fn subscription_push(out: &mut Reply, verb: &[u8], name: Option<&[u8]>, count: usize) {
    out.push(3);
    out.bulk(verb);
    match name {
        Some(name) => out.bulk(name),
        None => out.null(),
    }
    out.int(count as i64);
}
