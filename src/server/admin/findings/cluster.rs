//! What the doctor looks at of the cluster, with the eyes of this node.

use super::{Check, Found, Look};
use crate::admin::finding::Severity::{self, Critical, Warning};
use crate::cluster::node::Node;
use crate::cluster::{Cluster, PreferredEndpoint};
use crate::server::Server;
use crate::structs::slots::SLOT_COUNT;
use std::net::IpAddr;

const fn check(
    id: &'static str,
    severity: Severity,
    look: fn(&Server, &Cluster, i64, &mut Found<'_>),
    advice: &'static str,
) -> Check {
    Check { id, severity, advice, look: Look::AtCluster(look) }
}

pub(super) const CHECKS: &[Check] = &[
    check(
        "slots-uncovered",
        Critical,
        |_, cluster, _, found| {
            let missing = SLOT_COUNT - cluster.counts().assigned;
            if missing > 0 {
                found(
                    "",
                    format!("{missing} of the {SLOT_COUNT} slots belong to no node: requests for their keys fail."),
                );
            }
        },
        "redis-cli --cluster fix gives them to nodes; CLUSTER ADDSLOTSRANGE does so by hand.",
    ),
    check(
        "slots-down",
        Critical,
        |_, cluster, _, found| {
            let counts = cluster.counts();
            let down = counts.fail + counts.pfail;
            if down > 0 {
                found("", format!("The owners of {down} slots are not reached: requests for their keys fail."));
            }
        },
        "Bring the masters back, or let a replica take over: CLUSTER FAILOVER TAKEOVER there, if no majority of the masters is left.",
    ),
    check(
        "cluster-down",
        Critical,
        |_, cluster, _, found| {
            let counts = cluster.counts();
            if !cluster.is_up() && counts.assigned == SLOT_COUNT && counts.fail + counts.pfail == 0 {
                found(
                    "",
                    "This node serves nothing, as it does not reach a majority of the masters, or has just started."
                        .into(),
                );
            }
        },
        "Look at the network between this node and the others, and at their bus ports.",
    ),
    check(
        "node-unreachable",
        Critical,
        |_, cluster, now_ms, found| unreachable(cluster, now_ms, found),
        "See whether it runs, and whether its bus port (the client port + 10000 unless set) is open in both directions. One that is \
         gone for good is removed with CLUSTER FORGET at every node.",
    ),
    check(
        "failover-stuck",
        Critical,
        |_, cluster, now_ms, found| {
            let is_due = |master: &Node| {
                !master.healthy() && master.slot_count > 0 && lasts(cluster, now_ms, master.last_alive_ms(), 2)
            };
            if let Some(why) = cluster.failover_obstacle()
                && let Some(master) = cluster.myself().replica_of.map(|key| cluster.node(key)).filter(|m| is_due(m))
            {
                let reason = cluster.cant_failover_reason();
                found(
                    "",
                    format!("This replica has not taken the place of its master {}: {why} ({reason})", name(master)),
                );
            }
        },
        "If the master does not come back, CLUSTER FAILOVER FORCE here asks for votes at once, and TAKEOVER needs none.",
    ),
    check(
        "master-not-replaced",
        Critical,
        |_, cluster, now_ms, found| {
            let failed = cluster.nodes().iter().map(|(_, n)| n).filter(|n| n.is_voter() && n.failed());
            for master in failed.filter(|m| lasts(cluster, now_ms, m.fail_time_ms, 2)) {
                let left = working_replicas(cluster, master);
                let why = match left {
                    0 => "it has no replica that works".to_owned(),
                    n => format!("none of its {n} replicas has taken its place: CLUSTER DOCTOR there tells why"),
                };
                found(
                    &master.id.to_string(),
                    format!("{} with {} slots has failed, and {why}.", name(master), master.slot_count),
                );
            }
        },
        "Bring it back, or make a replica take over with CLUSTER FAILOVER FORCE, or TAKEOVER without a majority.",
    ),
    check(
        "slots-open",
        Warning,
        |_, cluster, _, found| {
            let (leaving, coming) = cluster.open_slots();
            if leaving + coming > 0 {
                found(
                    "",
                    format!(
                        "{leaving} slots are leaving this node and {coming} are coming: a move is under way, or was given up."
                    ),
                );
            }
        },
        "If nothing moves them, redis-cli --cluster fix brings the move to an end; CLUSTER SETSLOT with STABLE calls it off.",
    ),
    check(
        "one-way",
        Warning,
        |_, cluster, now_ms, found| one_way(cluster, now_ms, found),
        "The bus port has to be open to all nodes, under the address and port that are announced: see firewalls, and \
         cluster-announce-ip and cluster-announce-bus-port behind a translation of addresses.",
    ),
    check(
        "announce",
        Warning,
        |srv, cluster, _, found| announced(srv, cluster, found),
        "See the cluster-announce-* directives: what is announced is where other nodes and clients connect to.",
    ),
    check(
        "no-replica",
        Warning,
        |_, cluster, _, found| {
            let masters: Vec<&Node> =
                cluster.nodes().iter().map(|(_, n)| n).filter(|n| n.is_voter() && n.healthy()).collect();
            let bare: Vec<String> =
                masters.iter().filter(|m| working_replicas(cluster, m) == 0).map(|m| name(m)).collect();
            if !bare.is_empty() {
                let who = match bare.len() == masters.len() {
                    true => "No master has a replica".into(),
                    false => format!("{} has no replica", bare.join(", ")),
                };
                found("", format!("{who} that works: when a master goes, its slots go with it."));
            }
        },
        "redis-cli --cluster add-node with --cluster-slave adds replicas.",
    ),
    check(
        "few-masters",
        Warning,
        |_, cluster, _, found| {
            let size = cluster.counts().size;
            if (1..3).contains(&size) {
                found(
                    "",
                    format!(
                        "Masters with slots: only {size}. Without one of them there is no majority, and no replica takes over."
                    ),
                );
            }
        },
        "Have three masters or more.",
    ),
    check(
        "slots-uneven",
        Warning,
        |_, cluster, _, found| {
            let masters = || cluster.nodes().iter().map(|(_, n)| n).filter(|n| n.is_voter());
            let (most, fewest) = (masters().max_by_key(|n| n.slot_count), masters().min_by_key(|n| n.slot_count));
            if let (Some(most), Some(fewest)) = (most, fewest)
                && most.slot_count > fewest.slot_count * 3 / 2
            {
                found(
                    "",
                    format!(
                        "Slots are uneven: {} has {}, {} has {}.",
                        name(most),
                        most.slot_count,
                        name(fewest),
                        fewest.slot_count
                    ),
                );
            }
        },
        "redis-cli --cluster rebalance evens them out, by weights if that is meant.",
    ),
];

/// How a node is called in words.
fn name(node: &Node) -> String {
    match node.human_name.as_str() {
        "" => format!("{}:{}", node.ip, if node.tcp_port != 0 { node.tcp_port } else { node.tls_port }),
        name => name.to_owned(),
    }
}

/// Whether something that began then has lasted for so many node timeouts.
fn lasts(cluster: &Cluster, now_ms: i64, since_ms: i64, timeouts: i64) -> bool {
    now_ms - since_ms > cluster.config().node_timeout_ms * timeouts
}

fn working_replicas(cluster: &Cluster, master: &Node) -> usize {
    master.replicas.iter().filter(|key| cluster.node(**key).healthy()).count()
}

/// The other nodes, with whether this one reaches them and they reach it: that a connection stands, or that something came over
/// it of late.
fn others(cluster: &Cluster, now_ms: i64) -> impl Iterator<Item = (&Node, (bool, bool))> {
    let others = cluster.nodes().iter().filter(|(key, n)| *key != cluster.my_key() && !n.in_handshake());
    others.map(move |(key, node)| {
        let (out, inbound) = cluster.stands(key);
        (node, (out && node.healthy(), inbound && !lasts(cluster, now_ms, node.data_received_ms, 2)))
    })
}

/// Nodes that are not heard at all.
fn unreachable(cluster: &Cluster, now_ms: i64, found: &mut Found<'_>) {
    for (node, _) in others(cluster, now_ms).filter(|(n, (_, is_heard))| !n.healthy() && !is_heard) {
        let since = match node.last_alive_ms() {
            0 => "since this node started".to_owned(),
            at_ms => format!("for {} s", (now_ms - at_ms) / 1000),
        };
        let (name, port) = (name(node), node.bus_port);
        let who = if node.failed() { "A majority of the masters" } else { "This node" };
        found(
            node.id.as_str(),
            format!("{who} does not reach {name}, {since}: nothing comes from its bus port, {port}."),
        );
    }
}

/// Nodes that are reached in one direction alone.
fn one_way(cluster: &Cluster, now_ms: i64, found: &mut Found<'_>) {
    let is_old = |node: &Node| lasts(cluster, now_ms, node.created_ms.max(cluster.started_ms()), 2);
    for (node, ways) in others(cluster, now_ms).filter(|(n, _)| is_old(n)) {
        let (name, ours, theirs) = (name(node), cluster.myself().bus_port, node.bus_port);
        let text = match ways {
            (true, false) => {
                format!("This node reaches {name}, which does not reach the bus port of this node, {ours}.")
            }
            (false, true) => {
                format!("{name} reaches this node, which does not reach its bus port, {}:{theirs}.", node.ip)
            }
            (true, true) | (false, false) => continue,
        };
        found(node.id.as_str(), text);
    }
}

/// Settings of what is announced that cannot work.
fn announced(srv: &Server, cluster: &Cluster, found: &mut Found<'_>) {
    let cfg = &srv.cfg;
    let mut odd = |name: &str, text: String| found(name, text);
    let are_elsewhere = || {
        let mut others = cluster.nodes().iter().filter(|(key, _)| *key != cluster.my_key());
        others.any(|(_, n)| n.ip.parse::<IpAddr>().is_ok_and(|ip| !ip.is_loopback()))
    };
    for (name, ip) in
        [("cluster-announce-ip", &cfg.cluster_announce_ip), ("replica-announce-ip", &cfg.replica_announce_ip)]
    {
        match ip.parse::<IpAddr>() {
            Err(_) if !ip.is_empty() && name == "cluster-announce-ip" => {
                odd(name, format!("{name} '{ip}' is no address, and nodes look no names up: they cannot connect."));
            }
            Ok(ip) if ip.is_unspecified() => odd(name, format!("{name} {ip} is no address of any machine.")),
            Ok(ip) if ip.is_loopback() && are_elsewhere() => {
                odd(name, format!("{name} {ip} leads every other machine to itself."));
            }
            Ok(_) | Err(_) => {}
        }
    }
    let me = cluster.myself();
    if me.bus_port == me.tcp_port || me.bus_port == me.tls_port {
        odd("bus-port", format!("The bus and clients are announced on the same port, {}.", me.bus_port));
    }
    if cfg.tls_cluster && me.tls_port == 0 {
        odd(
            "tls-port",
            "tls-cluster is on, but no TLS port is announced, so other nodes cannot reach this one.".into(),
        );
    }
    if cluster.config().preferred_endpoint == PreferredEndpoint::Hostname && me.hostname.is_empty() {
        odd(
            "hostname",
            "Clients are to be sent to host names, but cluster-announce-hostname is not set: they get '?'.".into(),
        );
    }
}
