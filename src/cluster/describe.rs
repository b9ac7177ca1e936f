//! What CLUSTER NODES, INFO, SLOTS and SHARDS show.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::election::CantFailover;
use super::node::{Node, NodeId, NodeKey};
use super::wire::{PacketType, TYPE_COUNT};
use super::{Cluster, Env, LinkId, PreferredEndpoint};
use crate::structs::slots::{SLOT_COUNT, Slot};

/// How clients are to reach a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Endpoint<'a> {
    /// By this address or name.
    Known(&'a str),
    /// By the address they used so far: a null in CLUSTER SLOTS, nothing before the port in a redirection.
    SameAddress,
}

/// A row of CLUSTER SLOTS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SlotRangeView {
    pub(crate) first: Slot,
    /// The last slot, included.
    pub(crate) last: Slot,
    /// The owner, then the replicas that can be read from.
    pub(crate) nodes: Vec<NodeKey>,
}

/// An element of CLUSTER SHARDS.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ShardView {
    /// The master's slots as inclusive ranges.
    pub(crate) ranges: Vec<(Slot, Slot)>,
    /// The master, if there is one, and its replicas.
    pub(crate) nodes: Vec<NodeKey>,
}

/// The figures of CLUSTER INFO. Slots are those with an owner, and of them those whose owner works, is suspected or has failed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) assigned: usize,
    pub(crate) ok: usize,
    pub(crate) pfail: usize,
    pub(crate) fail: usize,
    pub(crate) nodes: usize,
    /// Masters with slots.
    pub(crate) size: usize,
    pub(crate) current_epoch: u64,
    pub(crate) my_epoch: u64,
    pub(crate) links_closed_by_limit: u64,
}

impl Cluster {
    /// CLUSTER NODES. `tls` chooses which client port is shown.
    pub(crate) fn describe_nodes(&self, tls: bool) -> String {
        let mut out = String::with_capacity(self.nodes.len() * 140);
        for (key, _) in self.nodes.iter() {
            out.push_str(&self.describe_node(key, tls, false));
            out.push('\n');
        }
        out
    }

    /// One line of CLUSTER NODES, or of nodes.conf if `for_file`, without newline.
    pub(crate) fn describe_node(&self, key: NodeKey, tls: bool, for_file: bool) -> String {
        let node = &self.nodes[key];
        let mut out = String::new();
        let w = &mut out;
        let ok = "a String takes everything";
        write!(w, "{} {}:{}@{}", node.id, node.ip, node.client_port(tls), node.bus_port).expect(ok);
        if !node.hostname.is_empty() {
            write!(w, ",{}", node.hostname).expect(ok);
        }
        if for_file {
            if node.hostname.is_empty() {
                w.push(',');
            }
            let (name, port) = if tls { ("tcp", node.tcp_port) } else { ("tls", node.tls_port) };
            write!(w, ",{name}-port={port}").expect(ok);
            if !node.human_name.is_empty() {
                write!(w, ",nodename={}", node.human_name).expect(ok);
            }
            write!(w, ",shard-id={}", node.shard_id).expect(ok);
        }
        let master = node.replica_of.map(|m| &self.nodes[m]);
        let master_id = master.map_or("-", |m| m.id.as_str());
        let epoch = master.filter(|_| node.is_replica()).unwrap_or(node).epochs.config;
        let connected = node.link.is_some() || key == self.myself;
        write!(
            w,
            " {} {master_id} {} {} {epoch} {}",
            node.flags,
            node.ping_sent_ms,
            node.pong_received_ms,
            if connected { "connected" } else { "disconnected" }
        )
        .expect(ok);
        for (first, last) in node.slots.ranges() {
            if first == last { write!(w, " {first}") } else { write!(w, " {first}-{last}") }.expect(ok);
        }
        if key == self.myself {
            let migrating = self.migrating.iter().map(|(slot, other)| (slot, '>', other));
            let importing = self
                .importing
                .iter()
                .filter(|(slot, _)| !self.migrating.contains_key(slot))
                .map(|(slot, other)| (slot, '<', other));
            let mut open: Vec<_> = migrating.chain(importing).collect();
            open.sort_by_key(|(slot, ..)| **slot);
            for (slot, direction, other) in open {
                write!(w, " [{slot}-{direction}-{}]", self.nodes[*other].id).expect(ok);
            }
        }
        out
    }

    /// The figures of CLUSTER INFO.
    pub(crate) fn counts(&self) -> Counts {
        let me = self.myself();
        let mut counts = Counts {
            nodes: self.nodes.len(),
            size: self.size,
            current_epoch: self.current_epoch,
            my_epoch: me.replica_of.map_or(me, |m| &self.nodes[m]).epochs.config,
            links_closed_by_limit: self.stats.links_buffer_limit_exceeded,
            ..Counts::default()
        };
        for (_, node) in self.nodes.iter() {
            let count = node.slot_count;
            counts.assigned += count;
            match (node.failed(), node.timed_out()) {
                (true, _) => counts.fail += count,
                (false, true) => counts.pfail += count,
                (false, false) => counts.ok += count,
            }
        }
        counts
    }

    /// How many slots are leaving this node, and how many are coming.
    pub(crate) fn open_slots(&self) -> (usize, usize) {
        let coming = self.importing.keys().filter(|slot| !self.migrating.contains_key(slot));
        (self.migrating.len(), coming.count())
    }

    /// Whether our connection to a node stands, and whether it has one to us.
    pub(crate) fn stands(&self, key: NodeKey) -> (bool, bool) {
        let node = &self.nodes[key];
        let is_connected =
            |link: Option<LinkId>| link.and_then(|link| self.links.get(&link)).is_some_and(|l| l.connected);
        (is_connected(node.link), node.inbound.is_some())
    }

    /// Why this replica has not taken its master's place, in words, if something is in its way.
    pub(crate) fn failover_obstacle(&self) -> Option<&'static str> {
        (self.cant_failover != CantFailover::No).then(|| self.cant_failover.text())
    }

    /// The packets sent, by type, and those received.
    pub(crate) fn packet_counts(&self) -> [(&'static str, &[u64; TYPE_COUNT]); 2] {
        [("sent", &self.stats.sent), ("received", &self.stats.received)]
    }

    /// CLUSTER INFO.
    pub(crate) fn describe_info(&self) -> String {
        let c = self.counts();
        let mut out = format!("cluster_state:{}\r\n", if self.is_up() { "ok" } else { "fail" });
        for (name, n) in [
            ("slots_assigned", c.assigned as u64),
            ("slots_ok", c.ok as u64),
            ("slots_pfail", c.pfail as u64),
            ("slots_fail", c.fail as u64),
            ("known_nodes", c.nodes as u64),
            ("size", c.size as u64),
            ("current_epoch", c.current_epoch),
            ("my_epoch", c.my_epoch),
        ] {
            let _ = write!(out, "cluster_{name}:{n}\r\n");
        }
        for (direction, counts) in self.packet_counts() {
            for (kind, n) in PacketType::ALL.iter().zip(counts).filter(|(_, n)| **n > 0) {
                let _ = write!(out, "cluster_stats_messages_{}_{direction}:{n}\r\n", kind.name());
            }
            let _ = write!(out, "cluster_stats_messages_{direction}:{}\r\n", counts.iter().sum::<u64>());
        }
        let _ = write!(out, "cluster_slot_migration_active_tasks:{}\r\n", self.open_slot_tasks());
        out.push_str(&self.describe_durable());
        out.push_str(&self.describe_forming(self.last_turn_ms));
        let _ = write!(out, "cluster_cant_failover_reason:{}\r\n", self.cant_failover_reason());
        for (what, n) in [("name", self.stats.refused_by_name), ("secret", self.stats.refused_by_code)] {
            if n > 0 {
                let _ = write!(out, "total_cluster_links_refused_by_{what}:{n}\r\n");
            }
        }
        let _ = write!(out, "total_cluster_links_buffer_limit_exceeded:{}\r\n", c.links_closed_by_limit);
        out
    }

    /// CLUSTER SLOTS.
    pub(crate) fn slot_ranges(&self, env: &Env) -> Vec<SlotRangeView> {
        let mut out: Vec<SlotRangeView> = Vec::new();
        let mut previous = None;
        for slot in 0..SLOT_COUNT as Slot {
            let owner = self.owner[usize::from(slot)];
            match (owner, out.last_mut()) {
                (Some(_), Some(range)) if owner == previous => range.last = slot,
                (Some(key), _) => {
                    let readable = self.nodes[key].replicas.iter().copied().filter(|r| self.is_readable(*r, env));
                    out.push(SlotRangeView {
                        first: slot,
                        last: slot,
                        nodes: std::iter::once(key).chain(readable).collect(),
                    });
                }
                (None, _) => {}
            }
            previous = owner;
        }
        out
    }

    /// Whether a replica works and has finished its first synchronization.
    fn is_readable(&self, key: NodeKey, env: &Env) -> bool {
        !self.nodes[key].failed() && self.offset_of(key, env) != 0
    }

    /// The replication offset of a node, bytes, as far as we know.
    pub(crate) fn offset_of(&self, key: NodeKey, env: &Env) -> i64 {
        // Our own is not kept in the table.
        if key == self.myself { env.repl_offset } else { self.nodes[key].repl_offset }
    }

    /// CLUSTER SHARDS.
    pub(crate) fn shards(&self) -> Vec<ShardView> {
        let mut by_shard: BTreeMap<NodeId, Vec<NodeKey>> = BTreeMap::new();
        for (key, node) in self.nodes.iter().filter(|(_, n)| !n.in_handshake()) {
            by_shard.entry(node.shard_id).or_default().push(key);
        }
        by_shard
            .into_values()
            .map(|mut nodes| {
                nodes.sort_by_key(|key| (self.nodes[*key].is_replica(), self.nodes[*key].id));
                let master = self.top_master(nodes[0]);
                ShardView { ranges: self.nodes[master].slots.ranges(), nodes }
            })
            .collect()
    }

    /// The health of a node, as CLUSTER SHARDS shows it.
    pub(crate) fn health(&self, key: NodeKey, env: &Env) -> &'static str {
        let node = &self.nodes[key];
        if node.failed() {
            "fail"
        } else if node.is_replica() && self.offset_of(key, env) == 0 {
            "loading"
        } else {
            "online"
        }
    }

    /// How clients are to reach a node, as configured.
    pub(crate) fn endpoint<'a>(&self, node: &'a Node) -> Endpoint<'a> {
        match self.config.preferred_endpoint {
            PreferredEndpoint::Ip => Endpoint::Known(&node.ip),
            PreferredEndpoint::Hostname if node.hostname.is_empty() => Endpoint::Known("?"),
            PreferredEndpoint::Hostname => Endpoint::Known(&node.hostname),
            PreferredEndpoint::Unknown => Endpoint::SameAddress,
        }
    }
}
