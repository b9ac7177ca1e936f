//! INFO cluster, and of scrapes what CLUSTER INFO tells and more of the nodes.

use super::Facts;
use super::row::{Figure, field, samples, value};
use crate::admin::figure::Value;
use crate::cluster::Cluster;
use crate::cluster::node::Node;
use crate::cluster::wire::PacketType;

pub(super) static ROWS: &[Figure] = &[
    field("cluster_enabled", |f| f.srv.cfg.cluster_enabled.into())
        .gauge("redis_cluster_enabled", "Whether this server is a node of a cluster."),
    value(|f| of_cluster(f, |c| c.is_up().into()))
        .gauge("redis_cluster_state", "Whether the cluster serves, from this node's view."),
    value(|f| of_cluster(f, |c| c.counts().assigned.into()))
        .gauge("redis_cluster_slots_assigned", "Slots with an owner."),
    value(|f| of_cluster(f, |c| c.counts().ok.into())).gauge("redis_cluster_slots_ok", "Slots whose owner works."),
    value(|f| of_cluster(f, |c| c.counts().pfail.into()))
        .gauge("redis_cluster_slots_pfail", "Slots whose owner this node does not reach."),
    value(|f| of_cluster(f, |c| c.counts().fail.into()))
        .gauge("redis_cluster_slots_fail", "Slots whose owner has failed."),
    value(|f| of_cluster(f, |c| c.counts().nodes.into()))
        .gauge("redis_cluster_known_nodes", "Nodes that this node knows."),
    value(|f| of_cluster(f, |c| c.counts().size.into())).gauge("redis_cluster_size", "Masters with slots."),
    value(|f| of_cluster(f, |c| c.counts().current_epoch.into()))
        .gauge("redis_cluster_current_epoch", "The greatest epoch this node knows of."),
    value(|f| of_cluster(f, |c| c.counts().my_epoch.into()))
        .gauge("redis_cluster_my_epoch", "The config epoch of this node, or of its master."),
    value(|f| of_cluster(f, |c| c.packet_counts()[0].1.iter().sum::<u64>().into()))
        .gauge("redis_cluster_messages_sent_total", "Packets of the cluster bus that were sent."),
    value(|f| of_cluster(f, |c| c.packet_counts()[1].1.iter().sum::<u64>().into()))
        .gauge("redis_cluster_messages_received_total", "Packets of the cluster bus that were received."),
    samples(|f, sample| {
        for (direction, counts) in f.srv.cluster().iter().flat_map(|c| c.packet_counts()) {
            for (kind, n) in PacketType::ALL.iter().zip(counts).filter(|(_, n)| **n > 0) {
                sample(&[("type", kind.name()), ("direction", direction)], *n as f64);
            }
        }
    })
    .counter("hexad_cluster_messages_total", "Packets of the cluster bus by type and direction."),
    value(|f| of_cluster(f, |c| c.counts().links_closed_by_limit.into()))
        .counter("hexad_cluster_links_closed_total", "Links of the bus closed as their buffers grew beyond the limit."),
    samples(|f, sample| {
        let Some(cluster) = f.srv.cluster() else { return };
        for state in ["ok", "pfail", "fail", "handshake"] {
            let count = cluster.nodes().iter().filter(|(_, node)| state_of(node) == state).count();
            sample(&[("state", state)], count as f64);
        }
    })
    .gauge("hexad_cluster_nodes", "Nodes by what this node knows of them."),
    samples(|f, sample| {
        let Some(cluster) = f.srv.cluster() else { return };
        let reason = cluster.cant_failover_reason();
        let reason = reason.split(',').next().unwrap_or_default();
        sample(&[("reason", reason)], f64::from(u8::from(reason != "none")));
    })
    .gauge("hexad_cluster_cant_failover", "Why this replica has not taken its master's place, if that has failed."),
    value(|f| {
        of_cluster(f, |c| (c.elected_ms() / 1000).into()).only_if(f.srv.cluster().is_some_and(|c| c.elected_ms() > 0))
    })
    .gauge("hexad_cluster_last_promotion_timestamp_seconds", "When this node last took its master's place."),
];

fn of_cluster(f: &Facts<'_>, value: fn(&Cluster) -> Value) -> Value {
    f.srv.cluster().map_or(Value::Absent, value)
}

fn state_of(node: &Node) -> &'static str {
    match (node.failed(), node.timed_out(), node.in_handshake()) {
        (true, ..) => "fail",
        (false, true, _) => "pfail",
        (false, false, true) => "handshake",
        (false, false, false) => "ok",
    }
}
