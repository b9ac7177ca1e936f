//! The name of a cluster: two that have different ones never become one.
//!
//! A node says its name in the first packet on each link that it opens, and in the answer to a packet that says one. Where a
//! name is set, a stranger that says another one or none is not let in: its packets count for nothing, and it is not
//! answered. Nodes that are known already may say none, so that a name can be given to a cluster that runs, or that has
//! Redis nodes; but they introduce nobody. What a node of another name sends is ignored even if it is known.
//!
//! Without a name everything is as in Redis, and nothing is said.

use super::node::NodeKey;
use super::wire::{Body, Extension, Header, PacketType};
use super::{Cluster, LinkId};

impl Cluster {
    /// The name to say in the next packet on this link.
    pub(super) fn name_to_tell(&mut self, link: LinkId) -> Option<Extension> {
        let name = self.config.names.first()?;
        let link = self.links.get_mut(&link)?;
        std::mem::take(&mut link.tells_name).then(|| Extension::ClusterName(name.clone()))
    }

    /// Whether a packet is one of our cluster, and not of another one.
    pub(super) fn admits(&mut self, link: LinkId, header: &Header, body: &Body<'_>) -> bool {
        if self.config.names.is_empty() {
            return true;
        }
        let known = self.nodes.find(&header.sender).filter(|key| !self.nodes[*key].in_handshake());
        let Body::Ping { kind, extensions, .. } = body else {
            // Strangers have no say in anything else.
            return known.is_none_or(|key| !self.nodes[key].is_foreign);
        };
        let said = extensions.iter().find_map(|extension| match extension {
            Extension::ClusterName(name) => Some(name.as_str()),
            _ => None,
        });
        let fits = match said {
            Some(said) => self.config.names.iter().any(|name| name == said),
            None => known.is_some_and(|key| !self.nodes[key].is_foreign),
        };
        if said.is_some() {
            self.links.get_mut(&link).expect("the packet's link").tells_name |= fits && *kind != PacketType::Pong;
            if let Some(key) = known {
                let node = &mut self.nodes[key];
                (node.is_foreign, node.says_name) = (!fits, fits);
            }
        }
        if !fits {
            self.refuse(link, header, said);
        }
        fits
    }

    fn refuse(&mut self, link: LinkId, header: &Header, said: Option<&str>) {
        let ours = self.config.names.first().cloned().unwrap_or_default();
        let link_state = self.links.get_mut(&link).expect("the packet's link");
        let in_handshake = link_state.node;
        if !std::mem::replace(&mut link_state.is_refused, true) {
            self.stats.refused_by_name += 1;
            let theirs = said.map_or("no cluster".to_owned(), |name| format!("the cluster '{name}'"));
            log::warn!(
                "Refusing node {} at {}: it is of {theirs}, and this node of '{ours}'",
                header.sender,
                link_state.peer_ip
            );
        }
        // Whom we were told to meet is not met.
        if let Some(key) = in_handshake.filter(|key| self.nodes[*key].in_handshake()) {
            self.remove_node(key);
        }
    }

    /// Whether a node may tell us of others that we do not know.
    pub(super) fn may_introduce(&self, key: NodeKey) -> bool {
        self.config.names.is_empty() || self.nodes[key].says_name
    }
}

#[cfg(test)]
mod tests {
    use super::super::node::{NodeFlags, NodeId};
    use super::super::wire::{self, Gossip};
    use super::super::{Action, ClusterConfig, Env};
    use super::*;

    const NOW_MS: i64 = 1_700_000_000_000;

    fn named(seed: u64, names: &[&str]) -> Cluster {
        let names = names.iter().map(|name| name.to_string()).collect();
        Cluster::new(ClusterConfig { names, ..ClusterConfig::default() }, seed, NOW_MS)
    }

    /// Sends what one says in a packet of that kind; what was sent back, and whether a handshake began.
    fn say(
        to: &mut Cluster,
        from: &Cluster,
        kind: PacketType,
        name: Option<&str>,
        gossip: Vec<Gossip>,
    ) -> (usize, usize) {
        let link = to.on_accept(NOW_MS, "10.0.0.9".into(), "10.0.0.1".into());
        let extensions = name.map(|name| Extension::ClusterName(name.into())).into_iter().collect();
        let header = from.header(0, &Env::at(NOW_MS));
        to.on_packet(link, &wire::encode(&header, &Body::Ping { kind, gossip, extensions }), &Env::at(NOW_MS));
        let sent = to.actions.iter().filter(|a| matches!(a, Action::Send { .. })).count();
        to.actions.clear();
        (sent, to.nodes.iter().filter(|(_, n)| n.in_handshake()).count())
    }

    #[test]
    fn strangers_are_let_in_by_the_name_that_they_say() {
        let stranger = named(9, &[]);
        for (ours, theirs, admits) in [
            (&[][..], None, true),
            (&[], Some("a"), true),
            (&["a"], Some("a"), true),
            (&["a"], Some("b"), false),
            (&["a"], None, false),
            (&["a"], Some(""), false),
            (&["new", "old"], Some("old"), true),
        ] {
            let expected = if admits { (1, 1) } else { (0, 0) };
            let got = say(&mut named(1, ours), &stranger, PacketType::Meet, theirs, vec![]);
            assert_eq!(got, expected, "{ours:?} {theirs:?}");
        }
    }

    #[test]
    fn a_known_node_may_be_silent_but_introduces_nobody() {
        let (mut us, member) = (named(1, &["a"]), named(9, &[]));
        let key = us.add_node(member.myself().id, NodeFlags::MASTER, NOW_MS);
        let third = Gossip {
            id: NodeId::random(&mut fastrand::Rng::with_seed(4)),
            ping_sent_s: 0,
            pong_received_s: 0,
            ip: "10.0.0.7".into(),
            port: 6379,
            bus_port: 16379,
            flags: NodeFlags::MASTER,
            second_port: 0,
        };
        assert_eq!(say(&mut us, &member, PacketType::Ping, None, vec![third.clone()]), (1, 0));
        assert_eq!(us.nodes.len(), 2);
        // It has got a name meanwhile.
        assert_eq!(say(&mut us, &member, PacketType::Ping, Some("a"), vec![third.clone()]), (1, 0));
        assert_eq!(us.nodes.len(), 3);
        // And now another one: it counts for nothing, however it goes on, until it is one of us again.
        assert_eq!(say(&mut us, &member, PacketType::Ping, Some("b"), vec![]), (0, 0));
        assert_eq!(say(&mut us, &member, PacketType::Ping, None, vec![]), (0, 0));
        assert!(us.nodes[key].is_foreign);
        assert_eq!(say(&mut us, &member, PacketType::Ping, Some("a"), vec![]), (1, 0));
        assert!(!us.nodes[key].is_foreign);
    }

    #[test]
    fn the_name_is_said_once_a_link_and_in_answer_to_one() {
        let mut us = named(1, &["a", "b"]);
        let link = us.on_accept(NOW_MS, "10.0.0.9".into(), "10.0.0.1".into());
        assert_eq!(us.name_to_tell(link), None);
        say(&mut us, &named(9, &[]), PacketType::Meet, Some("b"), vec![]);
        let key = us.nodes.keys().into_iter().find(|key| us.nodes[*key].in_handshake()).unwrap();
        us.connect(key, NOW_MS);
        let link = us.nodes[key].link.unwrap();
        assert_eq!(us.name_to_tell(link), Some(Extension::ClusterName("a".into())));
        assert_eq!(us.name_to_tell(link), None);
        us.set_config(ClusterConfig { names: vec!["c".into()], ..us.config().clone() });
        assert_eq!(us.name_to_tell(link), Some(Extension::ClusterName("c".into())));
        us.set_config(ClusterConfig { names: vec![], ..us.config().clone() });
        assert_eq!(us.name_to_tell(link), None);
    }
}
