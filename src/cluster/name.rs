//! The name of a cluster: two that have different ones never become one.
//!
//! A node says its name in the first packet on each link that it opens, and in the answer to a packet that says one. Where a
//! name is set, a stranger that says another one or none is not let in: its packets count for nothing, and it is not
//! answered. Nodes that are known already may say none, so that a name can be given to a cluster that runs, or that has
//! Redis nodes; but they introduce nobody. What a node of another name sends is ignored even if it is known.
//!
//! What was said counts for the link on which it was, and for the node if that link is its own: anybody can use a node's id
//! on another link. It is kept where there is no name yet, too.
//!
//! Without a name everything is as in Redis, and nothing is said.

use super::node::{Node, NodeKey};
use super::wire::{Body, Extension, Header, PacketType};
use super::{Cluster, Env, LinkId};

/// Who is turned away is logged at most this often.
const RELOG_MS: i64 = 1000;

impl Cluster {
    /// The name to say in the next packet on this link.
    pub(super) fn name_to_tell(&mut self, link: LinkId) -> Option<Extension> {
        let name = self.config.names.first()?;
        let link = self.links.get_mut(&link)?;
        std::mem::take(&mut link.tells_name).then(|| Extension::ClusterName(name.clone()))
    }

    /// Whether a name that was said, if one was, is of our cluster.
    fn fits(&self, said: Option<&str>) -> Option<bool> {
        said.map(|said| self.config.names.iter().any(|name| name == said))
    }

    /// Whether a packet is one of our cluster, and not of another one.
    pub(super) fn admits(&mut self, link: LinkId, header: &Header, body: &Body<'_>, env: &Env) -> bool {
        let known = self.nodes.find(&header.sender).filter(|key| !self.nodes[*key].in_handshake());
        if let Body::Ping { kind, extensions, .. } = body
            && let Some(said) = extensions.iter().find_map(|extension| match extension {
                Extension::ClusterName(name) => Some(name.as_str()),
                _ => None,
            })
        {
            let answers = *kind != PacketType::Pong && self.fits(Some(said)) == Some(true);
            let state = self.links.get_mut(&link).expect("the packet's link");
            state.tells_name |= answers;
            if state.said.as_deref() != Some(said) {
                state.said = Some(said.to_owned());
            }
            if let Some(key) = known {
                self.note_name(link, key);
            }
        }
        if self.config.names.is_empty() {
            return true;
        }
        let admits = self.fits(self.links[&link].said.as_deref()).unwrap_or_else(|| {
            // Strangers have no say in anything but who they are.
            let may_be_silent = |key: NodeKey| self.fits(self.nodes[key].said_name.as_deref()) != Some(false);
            known.map_or(!matches!(body, Body::Ping { .. }), may_be_silent)
        });
        if !admits {
            self.refuse(link, header, env);
        }
        admits
    }

    /// Keeps what was said on a link for the node, if the link is its own.
    pub(super) fn note_name(&mut self, link: LinkId, key: NodeKey) {
        let node = &mut self.nodes[key];
        let is_own = node.link == Some(link) || node.inbound == Some(link);
        let said = &self.links[&link].said;
        if is_own && said.is_some() && node.said_name != *said {
            node.said_name.clone_from(said);
        }
    }

    fn refuse(&mut self, link: LinkId, header: &Header, env: &Env) {
        let state = self.links.get_mut(&link).expect("the packet's link");
        let (of_link, is_new) = (state.node, !std::mem::replace(&mut state.is_refused, true));
        self.stats.refused_by_name += u64::from(is_new);
        if is_new && env.now_ms - self.refusal_logged_ms >= RELOG_MS {
            self.refusal_logged_ms = env.now_ms;
            let ours = self.config.names.first().map_or("", String::as_str);
            let state = &self.links[&link];
            let theirs = state.said.as_ref().map_or("no cluster".to_owned(), |name| format!("the cluster '{name}'"));
            log::warn!(
                "Refusing node {} at {}: it is of {theirs}, and this node of '{ours}'",
                header.sender,
                state.peer_ip
            );
        }
        let Some(key) = of_link else { return };
        let node = &self.nodes[key];
        if node.in_handshake() {
            // Whom we were told to meet is not met.
            self.remove_node(key);
        } else if node.link == Some(link) && node.id != header.sender {
            self.lose_address(key, link, env);
        }
    }

    /// Whether a node may tell us of others that we do not know.
    pub(super) fn may_introduce(&self, key: NodeKey) -> bool {
        let node: &Node = &self.nodes[key];
        self.config.names.is_empty() || self.fits(node.said_name.as_deref()) == Some(true)
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

    fn accept(to: &mut Cluster) -> LinkId {
        to.on_accept(NOW_MS, "10.0.0.9".into(), "10.0.0.1".into())
    }

    /// Sends what one says in a packet of that kind; what was sent back, and how many handshakes are under way.
    fn say_on(
        link: LinkId,
        to: &mut Cluster,
        from: &Cluster,
        kind: PacketType,
        name: Option<&str>,
        gossip: Vec<Gossip>,
    ) -> (usize, usize) {
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
            let mut us = named(1, ours);
            let link = accept(&mut us);
            let got = say_on(link, &mut us, &stranger, PacketType::Meet, theirs, vec![]);
            assert_eq!(got, expected, "{ours:?} {theirs:?}");
        }
    }

    fn third() -> Gossip {
        Gossip {
            id: NodeId::random(&mut fastrand::Rng::with_seed(4)),
            ping_sent_s: 0,
            pong_received_s: 0,
            ip: "10.0.0.7".into(),
            port: 6379,
            bus_port: 16379,
            flags: NodeFlags::MASTER,
            second_port: 0,
        }
    }

    #[test]
    fn a_known_node_may_be_silent_but_introduces_nobody() {
        let (mut us, member) = (named(1, &["a"]), named(9, &[]));
        let key = us.add_node(member.myself().id, NodeFlags::MASTER, NOW_MS);
        let link = accept(&mut us);
        let mut say = |name, gossip| (say_on(link, &mut us, &member, PacketType::Ping, name, gossip), us.nodes.len());
        assert_eq!(say(None, vec![third()]), ((1, 0), 2));
        // It has got a name meanwhile.
        assert_eq!(say(Some("a"), vec![third()]), ((1, 0), 3));
        // And now another one: it counts for nothing, however it goes on, until it is one of us again.
        assert_eq!(say(Some("b"), vec![]).0, (0, 0));
        assert_eq!(say(None, vec![]).0, (0, 0));
        // Nor does it on a new link if it says nothing there.
        let other = accept(&mut us);
        assert_eq!(say_on(other, &mut us, &member, PacketType::Ping, None, vec![]), (0, 0));
        assert_eq!(say_on(link, &mut us, &member, PacketType::Ping, Some("a"), vec![]), (1, 0));
        assert_eq!((us.nodes[key].said_name.as_deref(), us.may_introduce(key)), (Some("a"), true));
    }

    /// Such as a copy of it that another cluster has.
    #[test]
    fn whoever_uses_the_id_of_a_member_does_it_no_harm() {
        let (mut us, member) = (named(1, &["a"]), named(9, &[]));
        let key = us.add_node(member.myself().id, NodeFlags::MASTER, NOW_MS);
        let (link, other) = (accept(&mut us), accept(&mut us));
        assert_eq!(say_on(link, &mut us, &member, PacketType::Ping, Some("a"), vec![]), (1, 0));
        for name in [Some("b"), None] {
            assert_eq!(say_on(other, &mut us, &member, PacketType::Ping, name, vec![]), (0, 0));
            assert_eq!(us.nodes[key].inbound, Some(link));
            assert_eq!(say_on(link, &mut us, &member, PacketType::Ping, None, vec![]), (1, 0));
        }
        assert_eq!(us.stats.refused_by_name, 1);
    }

    #[test]
    fn a_newcomer_says_its_name_once() {
        let (mut us, newcomer) = (named(1, &["a"]), named(9, &[]));
        let link = accept(&mut us);
        assert_eq!(say_on(link, &mut us, &newcomer, PacketType::Meet, Some("a"), vec![]), (1, 1));
        assert_eq!(say_on(link, &mut us, &newcomer, PacketType::Ping, None, vec![]), (1, 1));
    }

    #[test]
    fn what_was_said_before_there_was_a_name_counts() {
        let (mut us, member) = (named(1, &[]), named(9, &[]));
        let key = us.add_node(member.myself().id, NodeFlags::MASTER, NOW_MS);
        let link = accept(&mut us);
        say_on(link, &mut us, &member, PacketType::Ping, None, vec![]);
        say_on(link, &mut us, &member, PacketType::Pong, Some("a"), vec![]);
        us.set_config(ClusterConfig { names: vec!["a".into()], ..us.config().clone() });
        assert!(us.may_introduce(key));
        say_on(link, &mut us, &member, PacketType::Ping, None, vec![third()]);
        assert_eq!(us.nodes.len(), 3);
    }

    #[test]
    fn a_member_whose_address_a_stranger_has_is_looked_for() {
        let (mut us, stranger) = (named(1, &["a"]), named(9, &[]));
        let key = us.add_node(named(8, &[]).myself().id, NodeFlags::MASTER, NOW_MS);
        (us.nodes[key].ip, us.nodes[key].bus_port) = ("10.0.0.9".into(), 16379);
        us.connect(key, NOW_MS);
        let link = us.nodes[key].link.unwrap();
        say_on(link, &mut us, &stranger, PacketType::Pong, None, vec![]);
        assert!(us.nodes[key].flags.has(NodeFlags::NOADDR) && us.nodes[key].link.is_none());
    }

    #[test]
    fn the_name_is_said_once_a_link_and_in_answer_to_one() {
        let mut us = named(1, &["a", "b"]);
        let link = accept(&mut us);
        assert_eq!(us.name_to_tell(link), None);
        let other = accept(&mut us);
        say_on(other, &mut us, &named(9, &[]), PacketType::Meet, Some("b"), vec![]);
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
