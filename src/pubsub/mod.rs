//! Pub/sub: who listens to which channel, pattern and sharded channel, and messages as subscribers get them.

use crate::net::ClientId;
use crate::resp::Reply;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// The three kinds of subscription, each with a namespace of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Channel,
    Pattern,
    Shard,
}

impl Kind {
    pub(crate) const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];

    /// The names of the pushes about subscribing and unsubscribing.
    pub(crate) fn verbs(self) -> (&'static [u8], &'static [u8]) {
        match self {
            Kind::Channel => (b"subscribe", b"unsubscribe"),
            Kind::Pattern => (b"psubscribe", b"punsubscribe"),
            Kind::Shard => (b"ssubscribe", b"sunsubscribe"),
        }
    }
}

/// The name of a channel or a pattern, shared by its listeners.
pub(crate) type Name = Arc<[u8]>;

/// The listeners of each name.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    pub(crate) names: HashMap<Name, Vec<ClientId>>,
}

impl Listeners {
    pub(crate) fn of(&self, name: &[u8]) -> &[ClientId] {
        self.names.get(name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &Name> {
        self.names.keys()
    }

    /// Names with at least one listener.
    pub(crate) fn len(&self) -> usize {
        self.names.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    pub(crate) fn remove(&mut self, name: &[u8], client: ClientId) {
        // Many names have one listener, so taking each out and putting back those with others costs one look-up.
        let Some((name, mut clients)) = self.names.remove_entry(name) else { return };
        clients.retain(|c| *c != client);
        if !clients.is_empty() {
            self.names.insert(name, clients);
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct PubSub {
    channels: Listeners,
    pub(crate) patterns: Listeners,
    pub(crate) shards: Listeners,
}

impl PubSub {
    pub(crate) fn listeners(&self, kind: Kind) -> &Listeners {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shards,
        }
    }

    pub(crate) fn listeners_mut(&mut self, kind: Kind) -> &mut Listeners {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }
}

/// The subscriptions of one client.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    channels: HashSet<Name>,
    patterns: HashSet<Name>,
    shards: HashSet<Name>,
}

impl Subscriptions {
    pub(crate) fn names(&self, kind: Kind) -> &HashSet<Name> {
        match kind {
            Kind::Channel => &self.channels,
            Kind::Pattern => &self.patterns,
            Kind::Shard => &self.shards,
        }
    }

    pub(crate) fn names_mut(&mut self, kind: Kind) -> &mut HashSet<Name> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
            Kind::Shard => &mut self.shards,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        Kind::ALL.iter().all(|k| self.names(*k).is_empty())
    }

    /// The number in pushes about this kind: sharded channels are counted apart from channels and patterns.
    pub(crate) fn count_for(&self, kind: Kind) -> usize {
        match kind {
            Kind::Channel | Kind::Pattern => self.channels.len() + self.patterns.len(),
            Kind::Shard => self.shards.len(),
        }
    }

    /// Memory of the entries, in bytes, without that of long names: this is asked after every command.
    pub(crate) fn mem_bytes(&self) -> usize {
        const SHORT_NAME: usize = 16;
        Kind::ALL.iter().map(|k| self.names(*k).len() * (size_of::<Name>() + SHORT_NAME)).sum()
    }
}

/// A message as subscribers get it.
pub(crate) fn message(resp3: bool, parts: &[&[u8]]) -> Vec<u8> {
    // What goes before and after a part takes less than this, bytes.
    const AROUND: usize = 24;
    let mut out = Reply::new(resp3);
    out.buf.reserve(AROUND + parts.iter().map(|p| p.len() + AROUND).sum::<usize>());
    out.push(parts.len());
    parts.iter().for_each(|p| out.bulk(p));
    out.buf
}

/// The same message in the two protocols, each made when first needed.
pub(crate) struct Message<'a> {
    parts: &'a [&'a [u8]],
    made: [Option<Vec<u8>>; 2],
}

impl<'a> Message<'a> {
    pub(crate) fn new(parts: &'a [&'a [u8]]) -> Message<'a> {
        Message { parts, made: [None, None] }
    }

    pub(crate) fn bytes(&mut self, resp3: bool) -> &[u8] {
        let parts = self.parts;
        self.made[resp3 as usize].get_or_insert_with(|| message(resp3, parts))
    }
}

/// The push that confirms a change of subscriptions.
pub(crate) fn subscription_push(out: &mut Reply, verb: &[u8], name: Option<&[u8]>, count: usize) {
    out.push(3);
    out.bulk(verb);
    match name {
        Some(name) => out.bulk(name),
        None => out.null(),
    }
    out.int(count as i64);
}
