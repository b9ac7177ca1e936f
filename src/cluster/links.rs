//! The links of the bus, as the machine sees them: numbers, whose they are, and what is under way on them.
//!
//! Owns the numbering and the pings that wait for answers. Sockets and buffers are the server's.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use super::node::{NodeFlags, NodeKey};
use super::wire;
use super::{Action, Cluster, Env};

/// A bus connection. The machine numbers the links it opens and those the server accepts; no number is used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct LinkId(pub(crate) u64);

/// What is kept for links.
pub(crate) type LinkMap<V> = HashMap<LinkId, V, BuildHasherDefault<LinkHasher>>;

/// Numbers of links are our own: nobody can choose some that collide.
#[derive(Default)]
pub(crate) struct LinkHasher(u64);

impl Hasher for LinkHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio, odd: other numbers get other low bits, and the high ones are mixed.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

#[derive(Clone, Debug)]
pub(super) struct Link {
    pub(super) node: Option<NodeKey>,
    pub(super) inbound: bool,
    pub(super) connected: bool,
    pub(super) created_ms: i64,
    pub(super) peer_ip: String,
    pub(super) local_ip: String,
    /// When the unanswered pings were sent. Pongs come in the same order.
    pub(super) pings: VecDeque<i64>,
    /// A ping of ours on it was answered.
    pub(super) is_answered: bool,
    /// The next packet on it is to say the name of our cluster.
    pub(super) tells_name: bool,
    /// The version of our secret that was told last; 0: none.
    pub(super) secret_told: u32,
    /// The name of a cluster that the other side said last.
    pub(super) said: Option<String>,
    /// What comes on it is not let in, and that was counted.
    pub(super) is_refused: bool,
}

impl Link {
    /// One that we open to a node or, without a node, one that was accepted: who opened that shows later.
    pub(super) fn new(node: Option<NodeKey>, now_ms: i64, peer_ip: String, local_ip: String) -> Link {
        Link {
            node,
            inbound: node.is_none(),
            connected: node.is_none(),
            created_ms: now_ms,
            peer_ip,
            local_ip,
            pings: VecDeque::new(),
            is_answered: false,
            tells_name: node.is_some(),
            secret_told: 0,
            said: None,
            is_refused: false,
        }
    }
}

impl Cluster {
    /// To be called when a bus connection was accepted; returns its number.
    pub(crate) fn on_accept(&mut self, now_ms: i64, peer_ip: String, local_ip: String) -> LinkId {
        let id = self.new_link_id();
        self.links.insert(id, Link::new(None, now_ms, peer_ip, local_ip));
        id
    }

    /// To be called when a connection of [`Action::Connect`] is established.
    pub(crate) fn on_link_connected(&mut self, link: LinkId, local_ip: String, env: &Env) {
        let Some(l) = self.links.get_mut(&link) else {
            return;
        };
        l.connected = true;
        l.local_ip = local_ip;
        let Some(key) = l.node else { return };
        let node = &mut self.nodes[key];
        // A ping at once keeps a reconnect from looking like silence. A ping that already waits keeps its time: its
        // answer has been due since then.
        let waiting_since = node.ping_sent_ms;
        // One that is to be met is met on each link until it has answered, as it may have lost what came by the last one.
        let kind = if node.flags.has(NodeFlags::MEET) { wire::PacketType::Meet } else { wire::PacketType::Ping };
        self.send_ping(link, kind, env);
        let node = &mut self.nodes[key];
        node.ping_sent_ms = if waiting_since != 0 { waiting_since } else { env.now_ms };
    }

    /// To be called when a connection broke, was refused, or its peer violated the protocol.
    pub(crate) fn on_link_closed(&mut self, link: LinkId, env: &Env) {
        let Some(key) = self.unlink(link) else { return };
        let node = &mut self.nodes[key];
        if node.link.is_none() && node.ping_sent_ms == 0 {
            // It counts as unanswered from now on.
            node.ping_sent_ms = env.now_ms;
        }
        if !self.broken.no_reconnection {
            let due = self.nodes[key].connect_ms + self.reconnect_ms(key, env.now_ms);
            self.nodes.wake_for(key, due.max(env.now_ms));
        }
    }

    /// The send buffer of a link grew beyond the limit: the link is closed, as the peer does not keep up.
    pub(crate) fn on_link_over_limit(&mut self, link: LinkId, used: u64, env: &Env) {
        let Some(l) = self.links.get(&link) else {
            return;
        };
        log::warn!(
            "Freeing cluster link({} node {}, used memory: {used}) due to exceeding send buffer memory limit.",
            if l.inbound { "from" } else { "to" },
            l.node.map_or(String::new(), |k| self.nodes[k].id.to_string()),
        );
        self.stats.links_buffer_limit_exceeded += 1;
        self.actions.push(Action::CloseLink { link });
        self.on_link_closed(link, env);
    }

    /// Closes a link and forgets it; its node may get another.
    pub(super) fn close_link(&mut self, link: LinkId) {
        if self.links.contains_key(&link) {
            self.unlink(link);
            self.actions.push(Action::CloseLink { link });
            self.wake_at(0);
        }
    }

    fn unlink(&mut self, link: LinkId) -> Option<NodeKey> {
        let key = self.links.remove(&link)?.node?;
        self.nodes.look_at(key, 0);
        let node = &mut self.nodes[key];
        if node.link == Some(link) {
            node.link = None;
        }
        if node.inbound == Some(link) {
            node.inbound = None;
        }
        Some(key)
    }

    fn new_link_id(&mut self) -> LinkId {
        self.next_link += 1;
        LinkId(self.next_link)
    }

    pub(super) fn connect(&mut self, key: NodeKey, now_ms: i64) {
        let link = self.new_link_id();
        let node = &mut self.nodes[key];
        node.link = Some(link);
        node.connect_ms = now_ms;
        let (ip, port) = (node.ip.clone(), node.bus_port);
        self.links.insert(link, Link::new(Some(key), now_ms, ip.clone(), String::new()));
        self.actions.push(Action::Connect { link, ip, port });
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClusterConfig;
    use super::super::wire::{Body, PacketType};
    use super::*;

    #[test]
    fn a_node_is_met_on_each_link_until_it_answers() {
        let (mut us, mut now_ms) = (Cluster::new(ClusterConfig::default(), 1, 1000), 1000);
        let other = Cluster::new(ClusterConfig::default(), 2, 1000);
        us.meet(b"127.0.0.1", 7000, 17000, &Env::at(now_ms)).unwrap();
        // What is said first on a new link, and the link.
        let mut connect = |us: &mut Cluster| {
            now_ms += 300;
            us.tick(&Env::at(now_ms));
            let opened = us.flush(&Env::at(now_ms)).into_iter().find_map(|action| match action {
                Action::Connect { link, .. } => Some(link),
                _ => None,
            });
            let opened = opened.expect("a link is opened");
            us.on_link_connected(opened, "127.0.0.1".into(), &Env::at(now_ms));
            let said = us.flush(&Env::at(now_ms)).into_iter().find_map(|action| match action {
                Action::Send { link, packet } if link == opened => Some(wire::packet_type(&packet)),
                _ => None,
            });
            (opened, said, now_ms)
        };
        let (meet, ping) = (Some(PacketType::Meet as u16), Some(PacketType::Ping as u16));
        for _ in 0..3 {
            let (link, said, now_ms) = connect(&mut us);
            assert_eq!(said, meet);
            us.on_link_closed(link, &Env::at(now_ms));
        }
        let (link, said, now_ms) = connect(&mut us);
        assert_eq!(said, meet);
        let pong = Body::Ping { kind: PacketType::Pong, gossip: vec![], extensions: vec![] };
        let header = other.header(0, &Env::at(now_ms));
        us.on_packet(link, &wire::encode(&header, &pong), &Env::at(now_ms));
        us.on_link_closed(link, &Env::at(now_ms));
        assert_eq!(connect(&mut us).1, ping);
    }
}
