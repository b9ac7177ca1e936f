//! The file `nodes.conf`: what a node keeps of its cluster over a restart.
//!
//! Owns the text, in the format of Redis 7.2: a line a node as in CLUSTER NODES, with auxiliary fields after the
//! address (`ip:port@busport,hostname,tls-port=0,nodename=n,shard-id=s`), and a line `vars currentEpoch n lastVoteEpoch
//! n`, which also has what `durable` keeps if that is used. Reads what older versions wrote: no bus port, no host name, no auxiliary fields. Locking, syncing and renaming
//! the file is left to the caller.

use std::fmt;

use super::node::{Node, NodeFlags, NodeId, NodeKey};
use super::slot_migration::{Grant, parse_grants};
use super::{BUS_PORT_OFFSET, Cluster, ClusterConfig};
use crate::structs::slots::{SLOT_COUNT, Slot, SlotSet};

/// What is wrong with a file, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfError {
    /// The line, from 1; 0 if the file as a whole is wrong.
    pub(crate) line: usize,
    pub(crate) reason: &'static str,
    pub(crate) text: String,
}

impl fmt::Display for ConfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl std::error::Error for ConfError {}

impl Cluster {
    /// The node that a file describes. `text` must not be empty: for an empty file start with [`Cluster::new`].
    pub(crate) fn from_nodes_conf(
        config: ClusterConfig,
        seed: u64,
        now_ms: i64,
        text: &str,
    ) -> Result<Cluster, ConfError> {
        let mut cluster = Cluster::new(config, seed, now_ms);
        let placeholder = cluster.myself;
        let mut loader = Loader { cluster: &mut cluster, me: None, now_ms, grants: Vec::new() };
        for (i, line) in text.lines().enumerate() {
            loader.line(line).map_err(|reason| ConfError { line: i + 1, reason, text: line.to_owned() })?;
        }
        let whole = |reason| ConfError { line: 0, reason, text: String::new() };
        let me = loader.me.ok_or(whole("no node is marked as myself"))?;
        loader.settle_shards();
        let grants = loader.grants;
        cluster.myself = me;
        cluster.remove_node(placeholder);
        cluster.warn_of_names();
        cluster.actions.clear();
        cluster.dropped_channels = None;
        let flags = &mut cluster.nodes[me].flags;
        if flags.has(NodeFlags::MASTER) == flags.has(NodeFlags::REPLICA) {
            return Err(whole("myself is neither master nor replica"));
        }
        if cluster.is_replica() && cluster.myself().slot_count > 0 {
            return Err(whole("myself is a replica with slots"));
        }
        // Only in an edited file.
        cluster.current_epoch = cluster.greatest_epoch();
        cluster.take_up_grants(&grants, now_ms);
        cluster.doubtful = cluster.nodes.iter().filter(|(_, n)| n.timed_out()).map(|(key, _)| key).collect();
        (cluster.todo, cluster.to_save) = Default::default();
        cluster.todo.state = true;
        cluster.lease_end_ms = 0;
        cluster.durable_restarted();
        cluster.apply_config(cluster.config.clone(), true);
        Ok(cluster)
    }

    /// Warns of host names in the file. Redis looks up such a name, edited in or announced, whenever it connects.
    fn warn_of_names(&self) {
        let named = |(key, n): &(NodeKey, &Node)| *key != self.myself && !n.ip.is_empty() && !super::is_address(&n.ip);
        for (_, n) in self.nodes.iter().filter(named) {
            log::warn!(
                "Node {} is at '{}' by the cluster configuration file. That is not an IP address, and names are not looked \
                 up: not connecting to it until it connects to this node.",
                n.id,
                n.ip
            );
        }
    }

    /// The text of the file.
    pub(crate) fn nodes_conf(&self) -> String {
        let mut out = String::with_capacity(self.nodes.len() * 160);
        for (key, node) in self.nodes.iter() {
            if node.in_handshake() {
                continue;
            }
            out.push_str(&self.describe_node(key, false, true));
            out.push('\n');
        }
        out.push_str(&format!("vars currentEpoch {} lastVoteEpoch {}", self.current_epoch, self.last_vote_epoch));
        if !self.leftovers.is_empty() {
            let ranges: Vec<String> = self.leftovers.ranges().iter().map(|(a, b)| format!("{a}-{b}")).collect();
            out.push_str(&format!(" leftoverSlots {}", ranges.join(",")));
        }
        if let Some(grants) = self.grants_text() {
            out.push_str(&format!(" grantedSlots {grants}"));
        }
        let own = self.nodes.iter().filter(|(_, n)| n.epochs.agreed < n.epochs.config && !n.in_handshake());
        let agreed: Vec<String> = own.map(|(_, n)| format!("{}:{}", n.id, n.epochs.agreed)).collect();
        if !agreed.is_empty() {
            out.push_str(&format!(" agreedEpochs {}", agreed.join(",")));
        }
        out.push_str(&self.durable_vars());
        out.push_str(&self.forming_vars());
        out.push('\n');
        out
    }
}

/// Ranges of slots, as they stand in the file.
fn leftovers(text: &str) -> Option<SlotSet> {
    let mut slots = SlotSet::default();
    for range in text.split(',') {
        let (first, last) = range.split_once('-')?;
        let (first, last) = (first.parse::<Slot>().ok()?, last.parse::<Slot>().ok()?);
        if usize::from(last) >= SLOT_COUNT {
            return None;
        }
        (first..=last).for_each(|slot| _ = slots.insert(slot));
    }
    Some(slots)
}

struct Loader<'a> {
    cluster: &'a mut Cluster,
    me: Option<NodeKey>,
    now_ms: i64,
    /// Slots that other nodes may have taken.
    grants: Vec<Grant>,
}

type Step<T = ()> = Result<T, &'static str>;

impl Loader<'_> {
    fn line(&mut self, line: &str) -> Step {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        match fields.first() {
            // Blank lines are left when a shorter file is written over a longer one.
            None => Ok(()),
            Some(first) if first.eq_ignore_ascii_case("vars") => self.vars(&fields[1..]),
            Some(_) if fields.len() < 8 => Err("fewer than eight fields"),
            Some(_) => self.node(&fields),
        }
    }

    fn vars(&mut self, fields: &[&str]) -> Step {
        if !fields.len().is_multiple_of(2) {
            return Err("a variable without value");
        }
        for pair in fields.chunks(2) {
            let value = || pair[1].parse().map_err(|_| "an epoch that is no number");
            if pair[0].eq_ignore_ascii_case("currentEpoch") {
                self.cluster.current_epoch = value()?;
            } else if pair[0].eq_ignore_ascii_case("lastVoteEpoch") {
                self.cluster.last_vote_epoch = value()?;
                self.cluster.unknown_votes_until = self.cluster.last_vote_epoch;
            } else if pair[0] == "agreedEpochs" {
                self.agreed_epochs(pair[1])?;
            } else if pair[0] == "leftoverSlots" {
                self.cluster.leftovers = leftovers(pair[1]).ok_or("slots that are no slots")?;
            } else if pair[0] == "grantedSlots" {
                self.grants = parse_grants(pair[1]).ok_or("slots that are no slots")?;
            } else if !self
                .cluster
                .read_durable_var(pair[0], pair[1])
                .ok_or("a variable of durable acknowledgements")?
                && !self.cluster.read_forming_var(pair[0], pair[1]).ok_or("a variable of a cluster that forms")?
            {
                log::info!("Skipping unknown cluster config variable '{}'", pair[0]);
            }
        }
        Ok(())
    }

    /// The agreed epochs of the nodes whose own one, in their line, is greater.
    fn agreed_epochs(&mut self, text: &str) -> Step {
        for pair in text.split(',') {
            let (id, epoch) = pair.split_once(':').ok_or("an agreed epoch without a node")?;
            let key = self.find_or_add(id)?;
            let node = &mut self.nodes()[key];
            node.epochs.agreed =
                epoch.parse::<u64>().map_err(|_| "an epoch that is no number")?.min(node.epochs.config);
        }
        Ok(())
    }

    fn node(&mut self, fields: &[&str]) -> Step {
        let key = self.find_or_add(fields[0])?;
        self.address(key, fields[1])?;
        self.flags(key, fields[2])?;
        if !fields[3].starts_with('-') {
            let master = self.find_or_add(fields[3])?;
            if master == key {
                return Err("a node that replicates itself");
            }
            if self.nodes()[key].replica_of.is_some() {
                return Err("a node listed twice");
            }
            self.nodes()[key].replica_of = Some(master);
            let m = &mut self.nodes()[master];
            m.replicas.push(key);
            m.flags.set(NodeFlags::MIGRATE_TO);
            let mut replicas = std::mem::take(&mut m.replicas);
            replicas.sort_by_key(|r| self.cluster.nodes[*r].id);
            self.nodes()[master].replicas = replicas;
        }
        let now_ms = self.now_ms;
        let node = &mut self.nodes()[key];
        let happened = |field: &str| field.parse::<i64>().is_ok_and(|n| n != 0);
        if happened(fields[4]) {
            node.ping_sent_ms = now_ms;
        }
        if happened(fields[5]) {
            node.pong_received_ms = now_ms;
        }
        node.set_epoch(match node.replica_of {
            Some(_) if node.is_replica() => 0,
            _ => fields[6].parse().map_err(|_| "a config epoch that is no number")?,
        });
        for slots in &fields[8..] {
            self.slots(key, slots)?;
        }
        Ok(())
    }

    fn nodes(&mut self) -> &mut super::NodeTable {
        &mut self.cluster.nodes
    }

    fn find_or_add(&mut self, id: &str) -> Step<NodeKey> {
        let id = NodeId::parse(id.as_bytes()).ok_or("a node id that is not 40 characters of a-z0-9")?;
        let now_ms = self.now_ms;
        Ok(match self.nodes().find(&id) {
            Some(key) => key,
            None => {
                let shard = NodeId::random(&mut self.cluster.rng);
                self.nodes().insert(Node::new(id, shard, NodeFlags::default(), now_ms))
            }
        })
    }

    /// `ip:port[@busport][,hostname[,name=value]*]`
    fn address(&mut self, key: NodeKey, field: &str) -> Step {
        let mut parts = field.split(',');
        let endpoint = parts.next().unwrap_or_default();
        let hostname = parts.next().unwrap_or_default().to_owned();
        self.nodes()[key].hostname = hostname;
        let (mut tcp, mut tls) = (None, None);
        for aux in parts {
            let (name, value) = aux.split_once('=').ok_or("an auxiliary field without value")?;
            if !value.bytes().chain(name.bytes()).all(is_aux_char) || value.contains('=') {
                return Err("an auxiliary field with a character that is not allowed");
            }
            match name {
                "shard-id" => {
                    let shard = NodeId::parse(value.as_bytes()).ok_or("a shard id that is not 40 characters")?;
                    self.nodes()[key].shard_id = shard;
                }
                "nodename" => self.nodes()[key].human_name = value.to_owned(),
                "tcp-port" => tcp = Some(port(value)?),
                "tls-port" => tls = Some(port(value)?),
                _ => return Err("an unknown auxiliary field"),
            }
        }
        let (ip, ports) = endpoint.rsplit_once(':').ok_or("an address without port")?;
        let (client, bus) = match ports.split_once('@') {
            Some((client, bus)) => (port(client)?, Some(port(bus)?)),
            None => (port(ports)?, None),
        };
        // The port before the @ is the one, plain or TLS, that no auxiliary field gives.
        match (tcp, tls) {
            (None, None) if self.cluster.config.tls_cluster => tls = Some(client),
            (None, _) => tcp = Some(client),
            (Some(_), None) => tls = Some(client),
            (Some(_), Some(_)) => {}
        }
        let tls_cluster = self.cluster.config.tls_cluster;
        let node = &mut self.nodes()[key];
        node.ip = ip.to_owned();
        node.tcp_port = tcp.unwrap_or(0);
        node.tls_port = tls.unwrap_or(0);
        node.bus_port = bus.unwrap_or(node.client_port(tls_cluster).wrapping_add(BUS_PORT_OFFSET));
        Ok(())
    }

    fn flags(&mut self, key: NodeKey, field: &str) -> Step {
        let mut flags = self.nodes()[key].flags;
        for name in field.split(',') {
            flags.set(NodeFlags::parse_name(name).ok_or("an unknown flag")?);
        }
        if flags.has(NodeFlags::MYSELF) && self.me.replace(key).is_some_and(|other| other != key) {
            return Err("more than one node is marked as myself");
        }
        let now_ms = self.now_ms;
        let node = &mut self.nodes()[key];
        node.flags = flags;
        if flags.has(NodeFlags::FAIL) {
            node.fail_time_ms = now_ms;
        }
        Ok(())
    }

    /// `n`, `n-m`, `[n->-id]` or `[n-<-id]`
    fn slots(&mut self, key: NodeKey, field: &str) -> Step {
        if let Some(open) = field.strip_prefix('[') {
            let open = open.strip_suffix(']').ok_or("an open slot without ]")?;
            let (number, rest) = open.split_once('-').ok_or("an open slot without direction")?;
            let slot = slot(number)?;
            let (direction, id) = rest.split_once('-').ok_or("an open slot without direction")?;
            let other = self.find_or_add(id)?;
            match direction {
                ">" => self.cluster.migrating.insert(slot, other),
                "<" => self.cluster.importing.insert(slot, other),
                _ => return Err("an open slot with an unknown direction"),
            };
            return Ok(());
        }
        let (first, last) = field.split_once('-').unwrap_or((field, field));
        for slot in slot(first)?..=slot(last)? {
            // The first line that claims a slot gets it.
            if self.cluster.owner[usize::from(slot)].is_none() {
                self.cluster.bind(slot, key);
            }
        }
        Ok(())
    }

    /// A replica belongs to its master's shard. Files of versions before 7.2 name no shards, and next to such nodes
    /// each node invents its own, so a file that contradicts itself is not damaged.
    fn settle_shards(&mut self) {
        for key in self.cluster.nodes.keys() {
            let Some(master) = self.cluster.nodes[key].replica_of else { continue };
            self.cluster.nodes[key].shard_id = self.cluster.nodes[master].shard_id;
        }
    }
}

/// Characters Redis allows in auxiliary fields.
fn is_aux_char(c: u8) -> bool {
    !b"!#$%&()*+:;<>?@[]^{|}~".contains(&c)
}

fn port(text: &str) -> Step<u16> {
    text.parse().map_err(|_| "a port that is no number below 65536")
}

fn slot(text: &str) -> Step<Slot> {
    text.parse().ok().filter(|s| usize::from(*s) < SLOT_COUNT).ok_or("a slot that is no number below 16384")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    const C: &str = "cccccccccccccccccccccccccccccccccccccccc";

    fn load(text: &str) -> Result<Cluster, ConfError> {
        let cluster = Cluster::from_nodes_conf(ClusterConfig::default(), 1, 1_000_000, text)?;
        cluster.check_invariants();
        Ok(cluster)
    }

    #[test]
    fn a_name_is_kept_but_nobody_replicates_from_it() {
        let text = format!(
            "{A} node-a.invalid:7000@17000 master - 0 0 1 connected 0-16383\n\
             {B} :7001@17001 myself,slave {A} 0 0 1 connected\nvars currentEpoch 1 lastVoteEpoch 0\n"
        );
        let cluster = load(&text).unwrap();
        assert_eq!(cluster.my_master_address(), None);
        assert!(cluster.nodes_conf().contains("node-a.invalid:7000@17000"));
        let cluster = load(&text.replace("node-a.invalid", "::1")).unwrap();
        assert_eq!(cluster.my_master_address(), Some(("::1".into(), 7000)));
    }

    #[test]
    fn a_file_of_redis_is_read_and_written_back() {
        let text = include_str!("../../tests/data/cluster/nodes-7.2.conf");
        let cluster = load(text).unwrap();
        assert_eq!(cluster.nodes().len(), 3);
        assert!(cluster.myself().is_replica());
        assert_eq!(cluster.current_epoch(), 2);
        // What the node announces is taken from its configuration, not from the file.
        let config = ClusterConfig {
            announce_hostname: "host-21026.example".into(),
            announce_human_name: "node21026".into(),
            port: 21026,
            ..ClusterConfig::default()
        };
        let cluster = Cluster::from_nodes_conf(config, 1, 7, text).unwrap();
        // Times are not kept, and the order is ours.
        let strip = |text: &str| {
            let mut lines: Vec<String> = text
                .lines()
                .map(|l| {
                    let f: Vec<&str> = l.split(' ').collect();
                    let kept: Vec<&str> = f
                        .iter()
                        .enumerate()
                        .filter(|(i, _)| !(4..=5).contains(i) && *i != 7)
                        .map(|(_, f)| *f)
                        .collect();
                    if l.starts_with("vars") { l.to_owned() } else { kept.join(" ") }
                })
                .collect();
            lines.sort();
            lines
        };
        assert_eq!(strip(&cluster.nodes_conf()), strip(text));
    }

    #[test]
    fn reads_what_older_versions_wrote() {
        let text = format!(
            "{A} 10.0.0.1:7000 myself,master - 0 0 3 connected 0-5 7 [9->-{B}] [10-<-{C}]\n\n\
             {B} 10.0.0.2:7001@17099 slave,fail? {A} 5 6 9 disconnected\n\
             {C} :0@0 master,noaddr - 0 0 0 disconnected\n\
             vars currentEpoch 2 lastVoteEpoch 1 other 5\n"
        );
        let cluster = load(&text).unwrap();
        let a = cluster.find(A.as_bytes()).unwrap();
        let b = cluster.find(B.as_bytes()).unwrap();
        assert_eq!(cluster.node(a).slots.ranges(), [(0, 5), (7, 7)]);
        assert_eq!((cluster.node(b).bus_port, cluster.node(b).epochs.config), (17099, 0));
        assert_eq!(cluster.node(b).shard_id, cluster.node(a).shard_id);
        assert_eq!(cluster.current_epoch(), 3, "not less than the greatest config epoch");
        assert_eq!(cluster.last_vote_epoch(), 1);
        let again = cluster.nodes_conf();
        assert!(again.contains(&format!("[9->-{B}] [10-<-{C}]")), "{again}");
        load(&again).unwrap();
    }

    #[test]
    fn a_replica_is_in_the_shard_of_its_master_whatever_the_file_says() {
        let cluster = load(&format!(
            "{A} 1.1.1.1:1@2,,shard-id={A} myself,master - 0 0 0 connected\n\
             {B} 1.1.1.1:1@2,,shard-id={B} slave {A} 0 0 0 connected\n"
        ))
        .unwrap();
        let b = cluster.find(B.as_bytes()).unwrap();
        assert_eq!(cluster.node(b).shard_id.as_str(), A);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        let me = format!("{A} 10.0.0.1:7000@17000 myself,master - 0 0 3 connected");
        for (text, line) in [
            (format!("{me} 0-16384\n"), 1),
            (format!("{me}\n{B} 1.1.1.1:1@2 master - 0 0\n"), 2),
            (format!("{me}\nshort 1.1.1.1:1@2 master - 0 0 0 connected\n"), 2),
            (format!("{me}\n{B} 1.1.1.1 master - 0 0 0 connected\n"), 2),
            (format!("{me}\n{B} 1.1.1.1:1@2,h,bogus=1 master - 0 0 0 connected\n"), 2),
            (format!("{me}\n{B} 1.1.1.1:1@2,h,shard-id=1 master - 0 0 0 connected\n"), 2),
            (format!("{me}\n{B} 1.1.1.1:1@2 master,strange - 0 0 0 connected\n"), 2),
            (format!("{me}\nvars currentEpoch\n"), 2),
            (format!("{me} [5->-{B}\n"), 1),
            (format!("{B} 1.1.1.1:1@2 master - 0 0 0 connected\n"), 0),
            (format!("{me}\n{B} 1.1.1.1:1@2 myself,master - 0 0 0 connected\n"), 2),
        ] {
            let error = load(&text).err().unwrap_or_else(|| panic!("accepted: {text}"));
            assert_eq!(error.line, line, "{error} for {text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_announced_is_read_back(texts in proptest::collection::vec(prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..6),
            "[a.:,=@ \n\"'%#-]{0,6}".prop_map(String::into_bytes),
            "[a-z0-9.]{0,300}".prop_map(String::into_bytes),
            Just(b"fe80::1%eth0".to_vec()),
        ], 6)) {
            use crate::config::{Config, SetContext, set_many};
            let mut configured = Config::default();
            let names = ["cluster-announce-ip", "cluster-announce-hostname", "cluster-announce-human-nodename"];
            for (name, text) in names.iter().zip(&texts) {
                // A refused name is not announced.
                let context = SetContext { loading: false, protected_allowed: false };
                let _ = set_many(&mut configured, &[(name.as_bytes(), text)], context);
            }
            let config = ClusterConfig {
                announce_ip: configured.cluster_announce_ip,
                announce_hostname: configured.cluster_announce_hostname,
                announce_human_name: configured.cluster_announce_human_nodename,
                ..ClusterConfig::default()
            };
            let mut cluster = Cluster::new(config.clone(), 1, 7);
            cluster.apply_config(config.clone(), true);
            // A peer that announces what the bus accepts.
            let heard = super::super::wire::tests::heard(&texts[3], &texts[4], &texts[5]);
            let mut peer = Node::new(NodeId::parse(B.as_bytes()).unwrap(), NodeId::parse(C.as_bytes()).unwrap(), NodeFlags::MASTER, 7);
            if let Some((ip, hostname, human_name)) = &heard {
                (peer.ip, peer.hostname, peer.human_name) = (ip.clone(), hostname.clone(), human_name.clone());
            }
            cluster.nodes.insert(peer);
            let shown = |cluster: &Cluster| {
                let mut all: Vec<_> = cluster.nodes.iter().map(|(_, n)| (n.id, n.ip.clone(), n.hostname.clone(), n.human_name.clone())).collect();
                all.sort();
                all
            };
            let text = cluster.nodes_conf();
            let again = Cluster::from_nodes_conf(config, 2, 8, &text).map_err(|e| TestCaseError::fail(format!("{e}: {text}")))?;
            prop_assert_eq!(shown(&again), shown(&cluster));
        }

        #[test]
        fn nothing_in_a_file_panics(words in proptest::collection::vec(prop_oneof![
            Just(A.to_owned()), Just(B.to_owned()), Just("myself,master".into()), Just("slave".into()), Just("-".into()),
            Just("0".into()), Just("connected".into()), Just("1.1.1.1:1@2,h,tls-port=7".into()), Just("5-9".into()),
            Just("\n".into()), Just("vars".into()), Just(format!("[4->-{B}]")), Just("[4-".into()), Just("9-3".into()),
            "[ -~]{0,12}"], 0..40)) {
            let _ = load(&words.join(" "));
        }
    }
}
