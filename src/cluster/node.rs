//! The known nodes: identity, flags, timings, and the table that holds them.
//!
//! Invariant: a [`NodeKey`] in use anywhere in the machine names a node in the table; only `Cluster::remove_node` takes
//! a node out, and it clears every reference first.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt;

use super::LinkId;
use crate::structs::slots::SlotSet;

/// The id of a node or shard: 40 characters of `a-z0-9` (Redis writes hex).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NodeId([u8; NodeId::LEN]);

/// By their characters. Mostly the first few tell, and nodes are looked for by id all the time.
impl Ord for NodeId {
    fn cmp(&self, other: &NodeId) -> Ordering {
        let [a, b] = [self, other].map(|id| id.0.first_chunk().map(|first| u64::from_be_bytes(*first)));
        a.cmp(&b).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for NodeId {
    fn partial_cmp(&self, other: &NodeId) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl NodeId {
    /// Characters of an id.
    pub(crate) const LEN: usize = 40;

    /// Reads an id; `None` unless it is 40 characters of `a-z0-9`.
    pub(crate) fn parse(text: &[u8]) -> Option<NodeId> {
        let bytes: [u8; Self::LEN] = text.try_into().ok()?;
        // All are looked at, which is quicker than to stop: packets are full of ids.
        let is_fine = bytes.iter().fold(true, |so_far, c| so_far & (c.is_ascii_lowercase() | c.is_ascii_digit()));
        is_fine.then_some(NodeId(bytes))
    }

    /// A new random id, of hexadecimal digits.
    pub(crate) fn random(rng: &mut fastrand::Rng) -> NodeId {
        NodeId(std::array::from_fn(|_| b"0123456789abcdef"[rng.usize(..16)]))
    }

    pub(crate) fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an id is ASCII")
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Ids for tests, always the same ones.
#[cfg(test)]
pub(in crate::cluster) fn some_ids(count: usize) -> Vec<NodeId> {
    let mut rng = fastrand::Rng::with_seed(3);
    (0..count).map(|_| NodeId::random(&mut rng)).collect()
}

/// A set of node flags, with the numbers they have in packets.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NodeFlags(u16);

impl NodeFlags {
    pub(crate) const MASTER: NodeFlags = NodeFlags(1);
    pub(crate) const REPLICA: NodeFlags = NodeFlags(2);
    /// Suspected: we cannot reach it.
    pub(crate) const PFAIL: NodeFlags = NodeFlags(4);
    /// Failed: a majority agreed that it cannot be reached.
    pub(crate) const FAIL: NodeFlags = NodeFlags(8);
    pub(crate) const MYSELF: NodeFlags = NodeFlags(16);
    /// Its id is not known yet: the one in the table is random.
    pub(crate) const HANDSHAKE: NodeFlags = NodeFlags(32);
    /// Its address is not known.
    pub(crate) const NOADDR: NodeFlags = NodeFlags(64);
    /// The first packet to it is to be a MEET.
    pub(crate) const MEET: NodeFlags = NodeFlags(128);
    /// A master that replicas of other masters may migrate to.
    pub(crate) const MIGRATE_TO: NodeFlags = NodeFlags(256);
    /// A replica that will not start an election.
    pub(crate) const NOFAILOVER: NodeFlags = NodeFlags(512);

    /// The flags that others may report about a node we do not know: not that *we* cannot reach it (PFAIL), or that it
    /// is us.
    pub(crate) const GOSSIPED: NodeFlags = NodeFlags(1 | 2 | 8 | 64 | 256 | 512);

    const NAMES: [(NodeFlags, &'static str); 8] = [
        (NodeFlags::MYSELF, "myself"),
        (NodeFlags::MASTER, "master"),
        (NodeFlags::REPLICA, "slave"),
        (NodeFlags::PFAIL, "fail?"),
        (NodeFlags::FAIL, "fail"),
        (NodeFlags::HANDSHAKE, "handshake"),
        (NodeFlags::NOADDR, "noaddr"),
        (NodeFlags::NOFAILOVER, "nofailover"),
    ];

    /// From the bits in a packet, all of which are kept.
    pub(crate) fn from_bits(bits: u16) -> Self {
        NodeFlags(bits)
    }

    /// The bits as in packets.
    pub(crate) fn bits(self) -> u16 {
        self.0
    }

    /// Whether all of `other` are set.
    pub(crate) fn has(self, other: NodeFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether one of `other` is set.
    pub(crate) fn has_any(self, other: NodeFlags) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn set(&mut self, other: NodeFlags) {
        self.0 |= other.0;
    }

    pub(crate) fn clear(&mut self, other: NodeFlags) {
        self.0 &= !other.0;
    }

    /// Sets or clears `other`.
    pub(crate) fn assign(&mut self, other: NodeFlags, on: bool) {
        if on { self.set(other) } else { self.clear(other) }
    }

    /// The flags that are in both.
    pub(crate) fn only(self, other: NodeFlags) -> NodeFlags {
        NodeFlags(self.0 & other.0)
    }

    /// The flag that nodes.conf calls `name`, in any case. `noflags` is the empty set.
    pub(crate) fn parse_name(name: &str) -> Option<NodeFlags> {
        if name.eq_ignore_ascii_case("noflags") {
            return Some(NodeFlags::default());
        }
        Self::NAMES.iter().find(|(_, n)| n.eq_ignore_ascii_case(name)).map(|(f, _)| *f)
    }
}

impl std::ops::BitOr for NodeFlags {
    type Output = NodeFlags;
    fn bitor(self, other: NodeFlags) -> NodeFlags {
        NodeFlags(self.0 | other.0)
    }
}

impl fmt::Display for NodeFlags {
    /// The comma-separated names of CLUSTER NODES.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (flag, name) in Self::NAMES {
            if self.has(flag) {
                if !first {
                    f.write_str(",")?;
                }
                f.write_str(name)?;
                first = false;
            }
        }
        if first { f.write_str("noflags") } else { Ok(()) }
    }
}

impl fmt::Debug for NodeFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}({})", self.0)
    }
}

/// The key of a node in the table. Valid until the node is removed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct NodeKey(std::num::NonZeroU32);

/// See [`Node::secret`].
pub(crate) type Secret = [u8; 40];

/// A node and what we know of it. Times are milliseconds of the machine's clock, 0 meaning never.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// Random while in handshake.
    pub(crate) id: NodeId,
    pub(crate) shard_id: NodeId,
    pub(crate) flags: NodeFlags,
    /// The name of its cluster, if it said one; see `name`.
    pub(crate) said_name: Option<String>,
    /// The newest it announced as a master.
    pub(crate) epochs: Epochs,
    /// The agreed epoch of the latest master of its shard that has a later one; 0: of none.
    pub(crate) heir_epoch: u64,
    /// When we heard of the agreed one, by whomever; 0: before we started.
    pub(crate) epoch_ms: i64,
    /// The slots bound to it, as in `Cluster::owner`.
    pub(crate) slots: SlotSet,
    /// `slots.len()`, cached.
    pub(crate) slot_count: usize,
    /// Its replicas, if it is a master.
    pub(crate) replicas: Vec<NodeKey>,
    /// Its master, if it is a replica and its master is known.
    pub(crate) replica_of: Option<NodeKey>,
    /// When it entered the table.
    pub(crate) created_ms: i64,
    /// Since when a ping waits for its pong, 0 if none does.
    pub(crate) ping_sent_ms: i64,
    /// When its last pong came, to us or, by gossip, to others.
    pub(crate) pong_received_ms: i64,
    /// When its last pong may have come to others at the latest: gossip has whole seconds.
    pub(crate) told_of_ms: i64,
    /// When we told others, or were told, that its answer is late.
    pub(crate) late_news_ms: i64,
    /// How long its answers usually take.
    pub(crate) answers_in_ms: i64,
    /// When anything last came from it.
    pub(crate) data_received_ms: i64,
    /// When FAIL was set.
    pub(crate) fail_time_ms: i64,
    /// When it last answered a ping of ours.
    pub(crate) answered_ms: i64,
    /// When we last voted for a replica of this master.
    pub(crate) voted_ms: i64,
    /// The replica of this master that we voted for.
    pub(crate) voted_for: Option<NodeId>,
    pub(crate) voted_epoch: u64,
    /// When we sent the latest ping that it answered with a grant (see `lease`).
    pub(crate) granted_ms: i64,
    /// The nodes that consider it failed, by the latest gossip of each, and when that came.
    pub(crate) failed_by: Vec<(NodeKey, i64)>,
    /// When we last gave it a grant.
    pub(crate) promised_ms: i64,
    /// When we last sent it a ping on our link.
    pub(crate) pinged_ms: i64,
    /// When it is to be pinged next for its grant, if it and we have slots.
    pub(crate) grant_due_ms: i64,
    /// When `repl_offset` was last announced.
    pub(crate) repl_offset_ms: i64,
    /// Since when this master has had no working replica, 0 if it has one.
    pub(crate) orphaned_ms: i64,
    /// When a connection to it was last attempted.
    pub(crate) connect_ms: i64,
    /// Its replication offset as last announced.
    pub(crate) repl_offset: i64,
    /// Its address; empty when not known.
    pub(crate) ip: String,
    /// By what it knows connections of nodes of its cluster, if it is a Redis 8.
    pub(crate) secret: Option<Secret>,
    /// It is one of ours, by its latest packet; and the version of our common secret that it has told us.
    pub(crate) is_ours: bool,
    pub(crate) secret_agreed: u32,
    /// Its announced host name; empty for none.
    pub(crate) hostname: String,
    /// Its announced name for people; empty for none.
    pub(crate) human_name: String,
    /// Its plain client port, 0 for none.
    pub(crate) tcp_port: u16,
    /// Its TLS client port, 0 for none.
    pub(crate) tls_port: u16,
    pub(crate) bus_port: u16,
    /// The link we opened to it.
    pub(crate) link: Option<LinkId>,
    /// The link it opened to us.
    pub(crate) inbound: Option<LinkId>,
    /// We met it, and it has not been connected to us for long since: it may not know us.
    pub(crate) is_half_met: bool,
    /// The nodes that reported that it cannot be reached, and when each last did.
    pub(crate) fail_reports: Vec<(NodeKey, i64)>,
    /// The masters that said it is there long after we considered it failed.
    pub(crate) fine_by: Vec<super::failure::Fine>,
}

/// By what a master claims its slots.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Epochs {
    /// Its config epoch.
    pub(crate) config: u64,
    /// The newest one of these that was agreed on: by an election, or as a majority of the masters knows it. One that a master took
    /// by itself, say for a slot that it imported, may be greater than that of who was elected in its place meanwhile.
    pub(crate) agreed: u64,
}

impl Epochs {
    /// Whether the config epoch is one that the master took by itself, and is not agreed on.
    pub(crate) fn are_own(self) -> bool {
        self.agreed < self.config
    }

    /// An epoch that was agreed on.
    pub(crate) fn agreed_on(epoch: u64) -> Epochs {
        Epochs { config: epoch, agreed: epoch }
    }
}

impl Node {
    /// A node of which only id, shard and flags are known.
    pub(crate) fn new(id: NodeId, shard_id: NodeId, flags: NodeFlags, now_ms: i64) -> Node {
        Node {
            id,
            shard_id,
            flags,
            epochs: Epochs::default(),
            heir_epoch: 0,
            epoch_ms: 0,
            slots: SlotSet::default(),
            slot_count: 0,
            replicas: Vec::new(),
            replica_of: None,
            created_ms: now_ms,
            ping_sent_ms: 0,
            pong_received_ms: 0,
            told_of_ms: 0,
            late_news_ms: 0,
            answers_in_ms: 0,
            data_received_ms: 0,
            fail_time_ms: 0,
            answered_ms: 0,
            voted_ms: 0,
            said_name: None,
            voted_for: None,
            voted_epoch: 0,
            granted_ms: 0,
            secret: None,
            is_ours: false,
            secret_agreed: 0,
            failed_by: Vec::new(),
            promised_ms: 0,
            pinged_ms: 0,
            grant_due_ms: 0,
            repl_offset_ms: 0,
            orphaned_ms: 0,
            connect_ms: 0,
            repl_offset: 0,
            ip: String::new(),
            hostname: String::new(),
            human_name: String::new(),
            tcp_port: 0,
            tls_port: 0,
            bus_port: 0,
            link: None,
            inbound: None,
            is_half_met: false,
            fail_reports: Vec::new(),
            fine_by: Vec::new(),
        }
    }

    pub(crate) fn is_master(&self) -> bool {
        self.flags.has(NodeFlags::MASTER)
    }

    pub(crate) fn is_replica(&self) -> bool {
        self.flags.has(NodeFlags::REPLICA)
    }

    /// Whether it is a master with slots: one whose vote counts.
    pub(crate) fn is_voter(&self) -> bool {
        self.is_master() && self.slot_count > 0
    }

    /// Whether a majority agreed that it cannot be reached (FAIL).
    pub(crate) fn failed(&self) -> bool {
        self.flags.has(NodeFlags::FAIL)
    }

    /// Whether we cannot reach it (PFAIL).
    pub(crate) fn timed_out(&self) -> bool {
        self.flags.has(NodeFlags::PFAIL)
    }

    /// Neither PFAIL nor FAIL.
    pub(crate) fn healthy(&self) -> bool {
        !self.flags.has_any(NodeFlags::PFAIL | NodeFlags::FAIL)
    }

    /// Whether its id is not known yet.
    pub(crate) fn in_handshake(&self) -> bool {
        self.flags.has(NodeFlags::HANDSHAKE)
    }

    /// The client port, with or without TLS.
    pub(crate) fn client_port(&self, tls: bool) -> u16 {
        if tls { self.tls_port } else { self.tcp_port }
    }

    /// Takes the greater ones.
    pub(crate) fn take_epochs(&mut self, epochs: Epochs) {
        self.epochs.config = self.epochs.config.max(epochs.config);
        self.epochs.agreed = self.epochs.agreed.max(epochs.agreed);
    }

    /// Sets an epoch that was agreed on.
    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        self.epochs = Epochs::agreed_on(epoch);
    }

    /// When it last gave a sign of life, to us or by gossip.
    pub(crate) fn last_alive_ms(&self) -> i64 {
        self.data_received_ms.max(self.pong_received_ms)
    }

    /// When it was last pinged or gave a sign of life, as far as that spares it a ping.
    pub(crate) fn last_sign_ms(&self) -> i64 {
        self.last_alive_ms().max(self.told_of_ms)
    }
}

/// All known nodes, by key and by id.
#[derive(Clone, Debug, Default)]
pub(crate) struct NodeTable {
    nodes: slab::Slab<Node>,
    /// In order of id: read for every packet, changed seldom.
    by_id: Vec<(NodeId, NodeKey)>,
    /// By key, close together as they are looked through all the time: when each node is to be looked at next, at the
    /// latest, and whether that is worth a turn of its own.
    look_ms: Vec<i64>,
    wake_ms: Vec<i64>,
    /// The least of the latter, which is asked for in every turn; `None`: it may have become greater.
    next_wake_ms: Cell<Option<i64>>,
}

impl NodeTable {
    /// Adds a node. Panics if its id is taken.
    pub(crate) fn insert(&mut self, node: Node) -> NodeKey {
        let id = node.id;
        let index = u32::try_from(self.nodes.insert(node) + 1).expect("fewer than 2^32 nodes");
        let key = NodeKey(std::num::NonZeroU32::new(index).expect("one was added"));
        self.enter(id, key);
        let room = self.look_ms.len().max(Self::index(key) + 1);
        self.look_ms.resize(room, i64::MAX);
        self.wake_ms.resize(room, i64::MAX);
        self.look_at(key, 0);
        key
    }

    pub(crate) fn remove(&mut self, key: NodeKey) -> Node {
        let node = self.nodes.remove(Self::index(key));
        self.looked_at(key);
        self.by_id.retain(|(_, k)| *k != key);
        node
    }

    fn enter(&mut self, id: NodeId, key: NodeKey) {
        match self.by_id.binary_search_by(|(other, _)| other.cmp(&id)) {
            Ok(_) => panic!("node {id} is already in the table"),
            Err(at) => self.by_id.insert(at, (id, key)),
        }
    }

    /// Gives a node another id. Panics if that is taken.
    pub(crate) fn rename(&mut self, key: NodeKey, id: NodeId) {
        self[key].id = id;
        self.by_id.retain(|(_, k)| *k != key);
        self.enter(id, key);
    }

    /// The node called `id`.
    pub(crate) fn find(&self, id: &NodeId) -> Option<NodeKey> {
        let at = self.by_id.binary_search_by(|(other, _)| other.cmp(id)).ok()?;
        Some(self.by_id[at].1)
    }

    /// Number of known nodes, this one included.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// The keys, in order of id.
    pub(crate) fn keys(&self) -> Vec<NodeKey> {
        self.by_id.iter().map(|(_, key)| *key).collect()
    }

    /// The key at this position, in order of id.
    pub(crate) fn key_at(&self, at: usize) -> NodeKey {
        self.by_id[at].1
    }

    /// The position of the first node after `id`, in order of id.
    pub(crate) fn position_after(&self, id: &NodeId) -> usize {
        self.by_id.partition_point(|(other, _)| other <= id)
    }

    // ---- when to look at which ----

    /// A node is to be looked at at this time, if it is not to be sooner; 0: as soon as any is.
    pub(crate) fn look_at(&mut self, key: NodeKey, at_ms: i64) {
        let due = &mut self.look_ms[Self::index(key)];
        *due = at_ms.min(*due);
    }

    /// The same, on time rather than when others are looked at, too.
    pub(crate) fn wake_for(&mut self, key: NodeKey, at_ms: i64) {
        self.look_at(key, at_ms);
        let due = &mut self.wake_ms[Self::index(key)];
        *due = at_ms.min(*due);
        self.next_wake_ms.set(self.next_wake_ms.get().map(|next| next.min(at_ms)));
    }

    /// What it was to be looked at for on time has come about.
    pub(crate) fn forget_wake(&mut self, key: NodeKey) {
        let due = std::mem::replace(&mut self.wake_ms[Self::index(key)], i64::MAX);
        if due < i64::MAX && self.next_wake_ms.get() == Some(due) {
            self.next_wake_ms.set(None);
        }
    }

    /// It is to be looked at when it is said anew.
    pub(crate) fn looked_at(&mut self, key: NodeKey) {
        self.look_ms[Self::index(key)] = i64::MAX;
        self.forget_wake(key);
    }

    /// All are to be looked at as soon as any is.
    pub(crate) fn look_at_all(&mut self) {
        self.by_id.iter().for_each(|(_, key)| self.look_ms[Self::index(*key)] = 0);
    }

    /// The nodes that are to be looked at by now.
    pub(crate) fn due(&self, now_ms: i64) -> Vec<NodeKey> {
        let due = self.look_ms.iter().enumerate().filter(|(_, at_ms)| **at_ms <= now_ms);
        due.filter_map(|(at, _)| std::num::NonZeroU32::new(at as u32 + 1)).map(NodeKey).collect()
    }

    /// When the first is to be looked at on time.
    pub(crate) fn next_wake_ms(&self) -> i64 {
        let next = || self.wake_ms.iter().copied().min().unwrap_or(i64::MAX);
        let next_ms = self.next_wake_ms.get().unwrap_or_else(next);
        self.next_wake_ms.set(Some(next_ms));
        next_ms
    }

    /// The keys in order of id, beginning with the one at this position and going round.
    pub(crate) fn keys_from(&self, at: usize) -> impl Iterator<Item = NodeKey> {
        let (before, after) = self.by_id.split_at(at.min(self.by_id.len()));
        after.iter().chain(before).map(|(_, key)| *key)
    }

    /// The nodes, in order of id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeKey, &Node)> {
        self.by_id.iter().map(|&(_, key)| (key, &self[key]))
    }

    /// Calls `f` with every node, in no particular order.
    pub(crate) fn for_each_mut(&mut self, mut f: impl FnMut(&mut Node)) {
        self.nodes.iter_mut().for_each(|(_, node)| f(node));
    }

    fn index(key: NodeKey) -> usize {
        key.0.get() as usize - 1
    }
}

impl std::ops::Index<NodeKey> for NodeTable {
    type Output = Node;
    fn index(&self, key: NodeKey) -> &Node {
        &self.nodes[Self::index(key)]
    }
}

impl std::ops::IndexMut<NodeKey> for NodeTable {
    fn index_mut(&mut self, key: NodeKey) -> &mut Node {
        &mut self.nodes[Self::index(key)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_forty_lower_case_characters() {
        assert!(NodeId::parse(&[b'f'; 40]).is_some());
        assert!(NodeId::parse(&[b'z'; 40]).is_some());
        assert!(NodeId::parse(&[b'F'; 40]).is_none());
        assert!(NodeId::parse(&[b'f'; 39]).is_none());
        assert!(NodeId::parse(&[0; 40]).is_none());
    }

    #[test]
    fn flag_names() {
        let flags = NodeFlags::MASTER | NodeFlags::MYSELF | NodeFlags::MIGRATE_TO;
        assert_eq!(flags.to_string(), "myself,master");
        assert_eq!(NodeFlags::default().to_string(), "noflags");
        assert_eq!(
            (NodeFlags::REPLICA | NodeFlags::PFAIL | NodeFlags::NOFAILOVER).to_string(),
            "slave,fail?,nofailover"
        );
        assert_eq!(NodeFlags::parse_name("SLAVE"), Some(NodeFlags::REPLICA));
        assert_eq!(NodeFlags::parse_name("bogus"), None);
    }

    #[test]
    fn table_by_key_and_id() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut t = NodeTable::default();
        let (a, b, c) = (NodeId::random(&mut rng), NodeId::random(&mut rng), NodeId::random(&mut rng));
        let ka = t.insert(Node::new(a, a, NodeFlags::MASTER, 5));
        let kb = t.insert(Node::new(b, b, NodeFlags::HANDSHAKE, 6));
        t.rename(kb, c);
        assert_eq!((t.find(&a), t.find(&b), t.find(&c)), (Some(ka), None, Some(kb)));
        assert_eq!(t.remove(ka).id, a);
        assert_eq!((t.len(), t.find(&a)), (1, None));
    }

    #[test]
    fn the_first_to_be_woken_for_is_known_whatever_changes() {
        let mut t = NodeTable::default();
        let keys: Vec<NodeKey> =
            some_ids(3).into_iter().map(|id| t.insert(Node::new(id, id, NodeFlags::MASTER, 5))).collect();
        assert_eq!(t.next_wake_ms(), i64::MAX);
        keys.iter().zip([70, 50, 60]).for_each(|(key, at_ms)| t.wake_for(*key, at_ms));
        assert_eq!(t.next_wake_ms(), 50);
        t.wake_for(keys[1], 55);
        t.forget_wake(keys[0]);
        assert_eq!(t.next_wake_ms(), 50);
        t.looked_at(keys[1]);
        assert_eq!(t.next_wake_ms(), 60);
        t.wake_for(keys[0], 40);
        assert_eq!(t.next_wake_ms(), 40);
        t.remove(keys[0]);
        assert_eq!(t.next_wake_ms(), 60);
        t.remove(keys[2]);
        assert_eq!(t.next_wake_ms(), i64::MAX);
    }
}
