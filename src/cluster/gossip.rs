//! Packets in and out: who sent one, what it changes, and what we tell others.
//!
//! `on_packet` is the single entrance: a packet is decoded and its sender identified; then what every packet says
//! (epochs, offset, that the sender lives) is processed, then the body. A packet from a stranger changes nothing but
//! what MEET allows.

use std::rc::Rc;

use super::durable::{self, Message};
use super::forming;
use super::node::{Node, NodeFlags, NodeId, NodeKey};
use super::wire::{self, Body, Extension, Gossip, Header, Packet, PacketType};
use super::{Action, Cluster, Env, LinkId};

/// For how long a forgotten node is not added again.
pub(super) const BLACKLIST_TTL_S: i64 = 60;
/// Bounds on how many nodes a packet tells of without need. Each node gets the more packets the more nodes there are.
const LEAST_GOSSIP: usize = 3;
const MOST_GOSSIP: usize = 10;
/// For how long packets tell of a node that has become known, of how many of those, and how many nodes hear of it at once.
const NEWCOMER_MS: i64 = 10_000;
const MOST_NEWCOMERS: usize = 20;
const NEWS_FANOUT: usize = 4;
/// News of that kind is apart by this much.
const NEWCOMERS_APART_MS: i64 = 100;
/// For how many node timeouts after an election every packet tells of who may have won it and seems to have failed.
const HEIR_TERMS: i64 = 8;
/// How long after a change of our role it is announced a second time.
const ANNOUNCE_AGAIN_MS: i64 = 500;
/// How far ahead another node's clock may be when it reports a pong.
const CLOCK_SKEW_MS: i64 = 500;

impl Cluster {
    /// Processes one whole packet (see [`wire::packet_len`]) that came on `link`.
    pub(crate) fn on_packet(&mut self, link: LinkId, bytes: &[u8], env: &Env) {
        if !self.links.contains_key(&link) {
            return;
        }
        let number = wire::packet_type(bytes);
        if let Some(n) = self.stats.received.get_mut(usize::from(number)) {
            *n += 1;
        }
        if self.broken.dropped.has(number) {
            log::warn!("Dropping packet that matches debug drop filter");
            if self.broken.closes_links {
                self.actions.push(Action::CloseLink { link });
                self.on_link_closed(link, env);
            }
            return;
        }
        let packet = match wire::decode(bytes) {
            Ok(packet) => packet,
            // Packets of another version are ignored; the link stays.
            Err(wire::WireError::Version(_)) => return,
            Err(e) => {
                log::warn!("{e}");
                return;
            }
        };
        self.process(link, packet, env);
    }

    fn process(&mut self, link: LinkId, packet: Packet, env: &Env) {
        let header = packet.header;
        if header.sender == self.myself().id {
            self.on_own_packet(link, &packet.body, env);
            return;
        }
        if !self.admits(link, &header, &packet.body, env) {
            return;
        }
        let sender = self.identify_sender(link, &header);
        if let Some(key) = sender {
            if self.nodes[key].id == header.sender {
                self.note_name(link, key);
            }
            self.nodes[key].data_received_ms = env.now_ms;
            if !self.nodes[key].in_handshake() {
                self.take_in_header(key, &header, env);
            }
        }
        match (packet.body, sender) {
            (Body::Ping { kind, gossip, extensions }, _) => {
                self.on_ping(link, sender, kind, &header, &gossip, &extensions, env);
            }
            (Body::Fail(id), _) => self.on_fail(sender, &header, id, env),
            (Body::Unknown(number), _) => log::warn!("Received unknown packet type: {number}"),
            // The others count from nodes that are known.
            (_, None) => {}
            (Body::Publish { sharded, channel, message }, Some(_)) => {
                self.actions.push(Action::Deliver { sharded, channel: channel.to_vec(), message: message.to_vec() });
            }
            (Body::AuthRequest, Some(sender)) => self.on_vote_request(sender, &header, env),
            (Body::AuthAck, Some(sender)) => self.on_vote(sender, &header, env),
            (Body::Update { epochs, node, slots }, Some(_)) => self.on_update(&header, node, epochs, &slots, env),
            (Body::MfStart, Some(sender)) => self.on_mf_start(link, sender, &header, env),
            (Body::Module { module_id, kind, payload }, Some(sender)) => {
                self.on_module_message(sender, (module_id, kind, payload), env);
            }
        }
    }

    /// There are no modules: what comes under these ids is from nodes of our kind.
    fn on_module_message(&mut self, sender: NodeKey, (module_id, kind, payload): (u64, u8, &[u8]), env: &Env) {
        match module_id {
            durable::MODULE_ID => {
                if let Some(message) = Message::decode(kind, payload) {
                    self.on_durable_message(sender, message, env);
                }
            }
            forming::MODULE_ID => {
                if let Some(message) = forming::Message::decode(kind, payload) {
                    self.on_forming_message(sender, message, env);
                }
            }
            _ => {}
        }
    }

    /// We were told to meet our own address, or another node uses our id: answers, and learns nothing.
    fn on_own_packet(&mut self, link: LinkId, body: &Body<'_>, env: &Env) {
        if let Body::Ping { kind: PacketType::Ping | PacketType::Meet, .. } = body {
            self.send_ping(link, PacketType::Pong, env);
        }
        if let Some(key) = self.links[&link].node.filter(|key| self.nodes[*key].in_handshake()) {
            self.note_own_address(key);
            self.remove_node(key);
        }
    }

    /// The sender of a packet. The link says it once it belongs to a node that is not in handshake; otherwise the id in
    /// the packet does, and an accepted link becomes that node's.
    fn identify_sender(&mut self, link: LinkId, header: &Header) -> Option<NodeKey> {
        let of_link = self.links[&link].node;
        if let Some(key) = of_link
            && !self.nodes[key].in_handshake()
        {
            return Some(key);
        }
        let key = self.nodes.find(&header.sender)?;
        if of_link.is_none() {
            if let Some(older) = self.nodes[key].inbound {
                // The peer reconnected before we noticed that its last connection broke.
                self.close_link(older);
            }
            self.nodes[key].inbound = Some(link);
            // It is back: it is not to wait for our next attempt to connect.
            self.wake_at(0);
            self.links.get_mut(&link).expect("the packet's link").node = Some(key);
        }
        Some(key)
    }

    pub(super) fn take_in_header(&mut self, sender: NodeKey, header: &Header, env: &Env) {
        self.current_epoch = self.current_epoch.max(header.current_epoch);
        let node = &mut self.nodes[sender];
        node.repl_offset = header.offset as i64;
        node.repl_offset_ms = env.now_ms;
        // A replica says its master's, which would be in the way of others' claims if a packet of the time when it was
        // master itself comes later, by its other link.
        let known = node.epochs;
        if header.replica_of.is_none() {
            node.take_epochs(header.epochs);
        }
        if node.epochs != known {
            let (is_own, is_later) = (node.epochs.are_own(), node.epochs.agreed > known.agreed);
            if is_later {
                node.epoch_ms = env.now_ms;
                self.note_heir(sender);
            }
            if self.myself().replica_of == Some(sender) || is_own {
                // Without it we could not take the master's place, and it may not be there to tell us again; or it counts on it
                // that we do not forget it.
                self.save_claims();
            } else {
                self.save_later();
            }
        }
        if self.myself().replica_of == Some(sender) && self.nodes[sender].epochs.agreed > known.config {
            self.note_other_reign(env);
        }
        self.note_master_offset(sender, header);
    }

    // ---- PING, PONG, MEET ----

    fn on_ping(
        &mut self,
        link: LinkId,
        sender: Option<NodeKey>,
        kind: PacketType,
        header: &Header,
        gossip: &[Gossip],
        extensions: &[Extension],
        env: &Env,
    ) {
        if kind != PacketType::Pong {
            self.learn_own_ip(link, kind);
            if sender.is_none() && kind == PacketType::Meet {
                self.greet_back(link, header, env);
            }
            self.answer_ping(link, sender, header, env);
        }
        if !self.links[&link].inbound && !self.settle_outbound(link, sender, header, env) {
            return;
        }
        let node_of_link = self.links[&link].node;
        let sender = sender.or_else(|| {
            // The packet may have completed a handshake: then the sender is known now.
            let key = node_of_link.filter(|_| !self.links[&link].inbound)?;
            self.nodes[key].data_received_ms = env.now_ms;
            self.take_in_header(key, header, env);
            Some(key)
        });

        if let Some(key) = sender {
            let node = &mut self.nodes[key];
            node.flags.assign(NodeFlags::NOFAILOVER, header.flags.has(NodeFlags::NOFAILOVER));
            if kind == PacketType::Ping && !node.in_handshake() {
                self.update_address(key, link, header, env);
            }
        }
        let mut answered_ms = None;
        if let (false, PacketType::Pong, Some(key)) = (self.links[&link].inbound, kind, node_of_link) {
            let mut doubt = self.doubt(gossip);
            // A Redis node that suspects us may vote at once: it has promised nothing.
            if !header.is_ours && doubt != NodeFlags::default() {
                doubt.set(NodeFlags::FAIL);
            }
            answered_ms = self.take_in_answer(link, key, doubt, env);
            self.note_answer_as_told(link, header);
            self.pong_arrived(key, header.state_ok, env);
        }
        let Some(key) = sender.filter(|key| !self.is_from_before_election(*key, header, answered_ms)) else { return };
        // What it claims depends on its shard, which is not known of a node that we have just heard of.
        let shard =
            shard_of(extensions).filter(|shard| header.replica_of.is_none() && self.nodes[key].shard_id != *shard);
        if let Some(shard) = shard {
            self.set_shard(key, shard);
            self.note_heir(key);
        }
        self.take_in_role(key, header, env);
        self.take_in_slots(key, header, env);
        self.resolve_epoch_collision(key, header);
        self.take_in_gossip(key, gossip, env);
        // An extension may remove a node, but never the sender.
        self.nodes[key].is_ours = header.is_ours;
        self.take_in_extensions(key, extensions, env);
    }

    /// Learns our own address from a MEET that reached us there, or from any packet while we know none.
    fn learn_own_ip(&mut self, link: LinkId, kind: PacketType) {
        if !self.config.announce_ip.is_empty() {
            return;
        }
        let local_ip = &self.links[&link].local_ip;
        let me = &self.nodes[self.myself];
        if (kind == PacketType::Meet || me.ip.is_empty()) && !local_ip.is_empty() && *local_ip != me.ip {
            log::info!("IP address for this node updated to {local_ip}");
            let ip = local_ip.clone();
            self.nodes[self.myself].ip = ip;
            self.save_later();
        }
    }

    /// An unknown node sent a MEET: connects to it and learns its id from its answer.
    fn greet_back(&mut self, link: LinkId, header: &Header, env: &Env) {
        let ip = self.announced_or_peer_ip(link, header);
        let (tcp, tls) = self.plain_and_tls(header.port, header.second_port);
        if ip.is_empty() || header.bus_port == 0 {
            return;
        }
        if !header.ip.is_empty() && header.ip != ip {
            log::info!("A node says that it is at '{}', which is not an IP address: met at {ip}", header.ip);
        }
        let id = NodeId::random(&mut self.rng);
        let key = self.add_node(id, NodeFlags::HANDSHAKE, env.now_ms);
        let node = &mut self.nodes[key];
        node.ip = ip;
        (node.tcp_port, node.tls_port, node.bus_port) = (tcp, tls, header.bus_port);
    }

    /// A packet came on a link we opened: checks that the node at the other end is the expected one. False if the link
    /// was closed.
    fn settle_outbound(&mut self, link: LinkId, sender: Option<NodeKey>, header: &Header, env: &Env) -> bool {
        let Some(key) = self.links[&link].node else {
            return true;
        };
        if self.nodes[key].in_handshake() {
            if let Some(known) = sender {
                log::debug!(
                    "Handshake: we already know node {} ({}), updating the address if needed.",
                    self.nodes[known].id,
                    self.nodes[known].human_name
                );
                self.update_address(known, link, header, env);
                self.remove_node(key);
                return false;
            }
            log::trace!("Renaming node {} into {}", self.nodes[key].id, header.sender);
            self.nodes.rename(key, header.sender);
            log::trace!("Handshake with node {} completed.", header.sender);
            let node = &mut self.nodes[key];
            node.is_half_met = node.flags.has(NodeFlags::MEET);
            node.flags.clear(NodeFlags::HANDSHAKE | NodeFlags::MEET);
            node.flags.set(header.flags.only(NodeFlags::MASTER | NodeFlags::REPLICA));
            self.note_name(link, key);
            self.welcome(key, env);
            // In a cluster of two nobody could tell us again.
            self.save_soon();
        } else if self.nodes[key].id != header.sender {
            self.lose_address(key, link, env);
            return false;
        }
        true
    }

    /// Another node has the address of this one now.
    pub(super) fn lose_address(&mut self, key: NodeKey, link: LinkId, env: &Env) {
        let node = &mut self.nodes[key];
        log::trace!(
            "PONG contains mismatching sender ID. About node {} added {} ms ago, having flags {}",
            node.id,
            env.now_ms - node.created_ms,
            node.flags.bits()
        );
        node.flags.set(NodeFlags::NOADDR);
        node.ip.clear();
        (node.tcp_port, node.tls_port, node.bus_port) = (0, 0, 0);
        self.close_link(link);
        self.save_later();
    }

    fn pong_arrived(&mut self, key: NodeKey, serves: bool, env: &Env) {
        let node = &mut self.nodes[key];
        (node.pong_received_ms, node.answered_ms) = (env.now_ms, env.now_ms);
        node.ping_sent_ms = 0;
        self.nodes.forget_wake(key);
        let node = &mut self.nodes[key];
        if node.timed_out() {
            node.flags.clear(NodeFlags::PFAIL);
            self.todo.state = true;
        } else if node.failed() {
            self.clear_failure_if_possible(key, serves, env);
        }
    }

    /// The node's address as its own packet gives it. A change closes our link to it, and the next one goes there.
    fn update_address(&mut self, key: NodeKey, link: LinkId, header: &Header, env: &Env) {
        // On our own link we would only learn the address we connected to.
        if self.nodes[key].link == Some(link) {
            return;
        }
        let ip = self.announced_or_peer_ip(link, header);
        let (tcp, tls) = self.plain_and_tls(header.port, header.second_port);
        let node = &mut self.nodes[key];
        let known = (node.ip.as_str(), node.tcp_port, node.tls_port, node.bus_port);
        if ip.is_empty() || known == (ip.as_str(), tcp, tls, header.bus_port) {
            return;
        }
        node.ip = ip;
        (node.tcp_port, node.tls_port, node.bus_port) = (tcp, tls, header.bus_port);
        node.flags.clear(NodeFlags::NOADDR);
        log::info!(
            "Address updated for node {} ({}), now {}:{}",
            node.id,
            node.human_name,
            node.ip,
            node.client_port(self.config.tls_cluster)
        );
        if let Some(old) = node.link {
            self.close_link(old);
        }
        if self.myself().replica_of == Some(key) {
            self.replicate_from(key);
        }
        self.save_later_and_update();
        self.wake_at(env.now_ms);
    }

    /// The announced address; if it is none, the one of the connection.
    fn announced_or_peer_ip(&self, link: LinkId, header: &Header) -> String {
        if super::is_address(&header.ip) { header.ip.clone() } else { self.links[&link].peer_ip.clone() }
    }

    /// The plain and TLS port from the two ports of a packet: the first is TLS if the bus is.
    fn plain_and_tls(&self, first: u16, second: u16) -> (u16, u16) {
        if self.config.tls_cluster { (second, first) } else { (first, second) }
    }

    // ---- gossip section and extensions ----

    fn take_in_gossip(&mut self, reporter: NodeKey, gossip: &[Gossip], env: &Env) {
        for g in gossip {
            match self.nodes.find(&g.id) {
                Some(key) if key == self.myself => {}
                Some(key) => self.gossip_of_known(reporter, key, g, env),
                None => {
                    if self.may_introduce(reporter)
                        && !g.flags.has(NodeFlags::NOADDR)
                        && !self.is_blacklisted(&g.id, env)
                    {
                        self.gossip_of_unknown(g, env);
                    }
                }
            }
        }
    }

    fn gossip_of_known(&mut self, reporter: NodeKey, key: NodeKey, g: &Gossip, env: &Env) {
        let bad = g.flags.has_any(NodeFlags::PFAIL | NodeFlags::FAIL);
        self.note_opinion(key, reporter, g.flags.has(NodeFlags::FAIL), env);
        if self.nodes[reporter].is_master() {
            if bad {
                self.add_fail_report(key, reporter, env);
                self.fail_if_agreed(key, env);
            } else {
                self.withdraw_fail_report(key, reporter, env);
            }
            if self.nodes[key].failed() {
                self.note_report_of_failed(key, reporter, !bad, env);
                if g.flags.has(NodeFlags::PFAIL) {
                    self.tell_of_failure(key, reporter, env);
                }
            }
        }
        // Pongs reported by others spare us pings, as long as nobody reports a failure of the node.
        if !bad && self.nodes[key].ping_sent_ms == 0 && self.fail_report_count(key, env) == 0 {
            let pong_ms = i64::from(g.pong_received_s) * 1000;
            let node = &mut self.nodes[key];
            if pong_ms <= env.now_ms + CLOCK_SKEW_MS && pong_ms > node.pong_received_ms {
                node.pong_received_ms = pong_ms;
            }
            if pong_ms <= env.now_ms + CLOCK_SKEW_MS {
                // It came within that second. For a ping less or more, the latest time is good enough.
                node.told_of_ms = node.told_of_ms.max((pong_ms + 999).min(env.now_ms));
            }
        }
        if !bad && g.ping_sent_s != 0 {
            self.check_as_told(key, env);
        }
        // A node we cannot reach, but the sender can, elsewhere: go there.
        let (tcp, tls) = self.plain_and_tls(g.port, g.second_port);
        let node = &mut self.nodes[key];
        let elsewhere = !node.ip.eq_ignore_ascii_case(&g.ip)
            || (node.tcp_port, node.tls_port, node.bus_port) != (tcp, tls, g.bus_port);
        if !node.healthy() && !bad && !g.flags.has(NodeFlags::NOADDR) && elsewhere && super::is_address(&g.ip) {
            node.ip = g.ip.clone();
            (node.tcp_port, node.tls_port, node.bus_port) = (tcp, tls, g.bus_port);
            node.flags.clear(NodeFlags::NOADDR);
            if let Some(link) = node.link {
                self.close_link(link);
            }
        }
    }

    /// Adds a node that others know, under its id. A handshake would be unsafe, as its address may be another node's by
    /// now, perhaps in another cluster.
    fn gossip_of_unknown(&mut self, g: &Gossip, env: &Env) {
        if g.ip.is_empty() || g.bus_port == 0 {
            return;
        }
        if !super::is_address(&g.ip) {
            log::debug!("Node {} is said to be at '{}', which is not an IP address: not looked up", g.id, g.ip);
            return;
        }
        let (tcp, tls) = self.plain_and_tls(g.port, g.second_port);
        let key = self.add_node(g.id, g.flags.only(NodeFlags::GOSSIPED), env.now_ms);
        let node = &mut self.nodes[key];
        node.ip = g.ip.clone();
        (node.tcp_port, node.tls_port, node.bus_port) = (tcp, tls, g.bus_port);
        if node.failed() {
            node.fail_time_ms = env.now_ms;
        }
        self.welcome(key, env);
    }

    /// Tells others of a node that has become known.
    fn welcome(&mut self, key: NodeKey, env: &Env) {
        self.newcomers.push_back((key, env.now_ms));
        self.todo.newcomers = true;
    }

    /// At the end of a turn: tells some nodes, of which each does the same, of those that have become known.
    pub(super) fn spread_newcomers(&mut self, env: &Env) {
        let due = self.newcomers_told_ms + NEWCOMERS_APART_MS;
        if env.now_ms < due {
            self.wake_at(due);
            return;
        }
        self.todo.newcomers = false;
        self.newcomers_told_ms = env.now_ms;
        // Who has not answered yet has a ping of ours on its way, which tells the same.
        let mut links: Vec<LinkId> =
            self.reachable().filter_map(|(_, n)| n.link).filter(|link| self.links[link].is_answered).collect();
        self.rng.shuffle(&mut links);
        links.truncate(NEWS_FANOUT);
        let gossip = self.gossip_section(self.gossip_wanted(), env);
        self.send_news(&links, gossip, env);
    }

    fn take_in_extensions(&mut self, sender: NodeKey, extensions: &[Extension], env: &Env) {
        let (mut hostname, mut human_name, mut secret) = ("", "", None);
        for extension in extensions {
            match extension {
                Extension::Hostname(name) => hostname = name,
                Extension::HumanName(name) => human_name = name,
                Extension::ShardId(_) => {}
                Extension::Forgotten(id, ttl_s) => self.forget_as_told(sender, id, *ttl_s, env),
                Extension::Secret(said) => secret = Some(*said),
                // See `admits`.
                Extension::ClusterName(_) => {}
                Extension::Unknown(number) => {
                    log::warn!("Received unknown extension type {number}")
                }
            }
        }
        let shard = shard_of(extensions);
        let node = &mut self.nodes[sender];
        if node.is_ours {
            node.secret = None;
            if let Some(said) = secret {
                self.take_in_secret(sender, &said);
            }
        } else if secret.is_some() || shard.is_some() {
            // Not all packets have extensions, but those of a Redis 8 that have any have this one.
            node.secret = secret;
        }
        let node = &mut self.nodes[sender];
        if node.hostname != hostname || node.human_name != human_name {
            node.hostname = hostname.to_owned();
            node.human_name = human_name.to_owned();
            self.save_later();
        }
        // A sender too old to announce a shard belongs to its master's.
        let shard = shard.unwrap_or_else(|| self.nodes[self.top_master(sender)].shard_id);
        self.set_shard(sender, shard);
    }

    fn forget_as_told(&mut self, sender: NodeKey, id: &NodeId, ttl_s: u64, env: &Env) {
        let Some(key) = self.nodes.find(id) else {
            return;
        };
        if key == self.myself || key == sender || self.myself().replica_of == Some(key) {
            return;
        }
        let ttl_s = i64::try_from(ttl_s).unwrap_or(i64::MAX).min(10 * BLACKLIST_TTL_S);
        self.blacklist.insert(*id, env.now_ms / 1000 + ttl_s);
        self.end_jobs_with(id, env);
        self.remove_node(key);
        self.save_and_update();
    }

    pub(super) fn is_blacklisted(&mut self, id: &NodeId, env: &Env) -> bool {
        self.blacklist.retain(|_, until_s| *until_s >= env.now_ms / 1000);
        self.blacklist.contains_key(id)
    }

    // ---- sending ----

    /// Sends a PING, PONG or MEET with as much gossip as fits its purpose.
    pub(super) fn send_ping(&mut self, link: LinkId, kind: PacketType, env: &Env) {
        let Some(l) = self.links.get(&link) else {
            return;
        };
        let (inbound, key) = (l.inbound, l.node);
        if let (PacketType::Ping | PacketType::Meet, false) = (kind, inbound) {
            self.links.get_mut(&link).expect("it is there").pings.push_back(env.now_ms);
        }
        if let (PacketType::Ping, false, Some(key)) = (kind, inbound, key) {
            let grant_due_ms = self.next_grant_ms(env.now_ms);
            let node = &mut self.nodes[key];
            (node.ping_sent_ms, node.pinged_ms, node.grant_due_ms) = (env.now_ms, env.now_ms, grant_due_ms);
            self.nodes.look_at(key, 0);
        }
        let gossip = self.gossip_section(self.gossip_wanted(), env);
        self.send_ping_body(link, kind, gossip, env);
    }

    pub(super) fn send_ping_body(&mut self, link: LinkId, kind: PacketType, gossip: Vec<Gossip>, env: &Env) {
        let mut extensions = self.extensions(env);
        extensions.extend(self.name_to_tell(link));
        extensions.extend(self.secret_to_tell(link));
        self.send(link, &Body::Ping { kind, gossip, extensions }, 0, env);
    }

    /// Sends a PONG that nobody asked for.
    pub(super) fn send_news(&mut self, links: &[LinkId], gossip: Vec<Gossip>, env: &Env) {
        if !links.is_empty() {
            let extensions = self.extensions(env);
            self.send_to_all(links, &Body::Ping { kind: PacketType::Pong, gossip, extensions }, 0, env);
        }
    }

    /// Tells every node of our new role. And once more later, as an answer sent before may arrive by another link after
    /// it, and links may just be made.
    pub(super) fn announce_role(&mut self, env: &Env) {
        self.todo.announce = false;
        self.announce_again_ms = env.now_ms + ANNOUNCE_AGAIN_MS;
        self.wake_at(self.announce_again_ms);
        self.broadcast_pong(env);
    }

    /// Sends every node our state: for changes that should spread at once.
    pub(super) fn broadcast_pong(&mut self, env: &Env) {
        let links: Vec<LinkId> = self.reachable().filter_map(|(_, n)| n.link).collect();
        let gossip = self.gossip_section(self.gossip_wanted(), env);
        // Those who are to hear our name, too, get a packet of their own.
        let has_name = !self.config.names.is_empty();
        let (named, others): (Vec<_>, Vec<_>) =
            links.into_iter().partition(|link| has_name && self.links[link].tells_name);
        for link in named {
            self.send_ping_body(link, PacketType::Pong, gossip.clone(), env);
        }
        self.send_news(&others, gossip, env);
    }

    /// Sends the other replicas of our master our state.
    pub(super) fn pong_to_siblings(&mut self, env: &Env) {
        let master = self.myself().replica_of.unwrap_or(self.myself);
        let links: Vec<LinkId> =
            self.reachable().filter(|(_, n)| n.replica_of == Some(master)).filter_map(|(_, n)| n.link).collect();
        let gossip = self.gossip_section(self.gossip_wanted(), env);
        self.send_news(&links, gossip, env);
    }

    /// Every node a broadcast goes to.
    pub(super) fn reachable(&self) -> impl Iterator<Item = (NodeKey, &Node)> {
        self.nodes.iter().filter(|(key, n)| *key != self.myself && !n.in_handshake() && n.link.is_some())
    }

    /// Sends one packet to every node.
    pub(super) fn broadcast(&mut self, body: &Body<'_>, mflags: u8, env: &Env) {
        let links: Vec<LinkId> = self.reachable().filter_map(|(_, n)| n.link).collect();
        self.send_to_all(&links, body, mflags, env);
    }

    pub(super) fn send_to_all(&mut self, links: &[LinkId], body: &Body<'_>, mflags: u8, env: &Env) {
        self.send_packet(links, &self.header(mflags, env), body);
    }

    pub(super) fn send_packet(&mut self, links: &[LinkId], header: &Header, body: &Body<'_>) {
        let packet: Rc<[u8]> = wire::encode(header, body).into();
        self.stats.sent[usize::from(wire::packet_type(&packet))] += links.len() as u64;
        for &link in links {
            self.actions.push(Action::Send { link, packet: packet.clone() });
        }
    }

    pub(super) fn send(&mut self, link: LinkId, body: &Body<'_>, mflags: u8, env: &Env) {
        self.send_to_all(&[link], body, mflags, env);
    }

    /// Sends a message of a module, encoded, to nodes: on our link or, if there is none, on theirs.
    pub(super) fn send_module(&mut self, to: &[NodeKey], module_id: u64, (kind, payload): (u8, Vec<u8>), env: &Env) {
        let link_of = |key: &NodeKey| self.nodes[*key].link.or(self.nodes[*key].inbound);
        let links: Vec<LinkId> = to.iter().filter_map(link_of).collect();
        if !links.is_empty() {
            self.send_to_all(&links, &Body::Module { module_id, kind, payload: &payload }, 0, env);
        }
    }

    /// Sends a published message to the cluster or, if `sharded`, to the nodes of our shard.
    pub(crate) fn publish(&mut self, sharded: bool, channel: &[u8], message: &[u8], env: &Env) {
        let shard = self.myself().shard_id;
        let links: Vec<LinkId> =
            self.reachable().filter(|(_, n)| !sharded || n.shard_id == shard).filter_map(|(_, n)| n.link).collect();
        if !links.is_empty() {
            self.send_to_all(&links, &Body::Publish { sharded, channel, message }, 0, env);
        }
    }

    pub(super) fn header(&self, mflags: u8, env: &Env) -> Header {
        let me = self.myself();
        // A replica announces its master's slots; the flags say that it does not own them.
        let owner = me.replica_of.map_or(me, |m| &self.nodes[m]);
        let (tcp, tls, bus_port) = self.config.announced_ports();
        let (port, second_port) = if self.config.tls_cluster { (tls, tcp) } else { (tcp, tls) };
        let paused = if me.is_master() && self.manual.paused { wire::MFLAG_PAUSED } else { 0 };
        Header {
            port,
            second_port,
            bus_port,
            current_epoch: self.current_epoch,
            epochs: owner.epochs,
            offset: env.repl_offset as u64,
            sender: me.id,
            slots: owner.slots.clone(),
            replica_of: me.replica_of.map(|m| self.nodes[m].id),
            ip: self.config.announce_ip.clone(),
            flags: me.flags,
            state_ok: self.state_ok,
            mflags: mflags | paused,
            is_ours: true,
        }
    }

    /// How many nodes a PING or PONG tells of, whether there is news of them or not: a tenth of them, and few of many.
    pub(super) fn gossip_wanted(&self) -> usize {
        (self.nodes.len() / 10).clamp(LEAST_GOSSIP, MOST_GOSSIP).min(self.nodes.len().saturating_sub(2))
    }

    /// So many random nodes; and every node we cannot reach, so that failures spread soon.
    pub(super) fn gossip_section(&mut self, wanted: usize, env: &Env) -> Vec<Gossip> {
        let start = self.rng.usize(..self.nodes.len());
        // While a large cluster forms there are many, and many packets to tell of them.
        while self.newcomers.front().is_some_and(|(_, since_ms)| env.now_ms - since_ms >= NEWCOMER_MS) {
            self.newcomers.pop_front();
        }
        let (most, first) = (MOST_NEWCOMERS.min(wanted * MOST_NEWCOMERS), self.rng.usize(..=self.newcomers.len()));
        let newcomers =
            self.newcomers.range(first..).chain(self.newcomers.range(..first)).map(|(key, _)| key).take(most);
        let mut doubtful = std::mem::take(&mut self.doubtful);
        // Also of one that is not doubtful at the moment: what makes a vote open may change until the election is over.
        let may_become = |n: &Node| n.voted_ms != 0 && env.now_ms - n.voted_ms <= self.election_lasts_ms();
        doubtful.retain(|key| self.is_doubtful(*key) || may_become(&self.nodes[*key]));
        let eligible = |key: &NodeKey| {
            let n = &self.nodes[*key];
            *key != self.myself
                && !n.flags.has_any(NodeFlags::PFAIL | NodeFlags::HANDSHAKE | NodeFlags::NOADDR)
                && (n.link.is_some() || n.slot_count > 0)
        };
        let others = self.nodes.keys_from(start).filter(eligible).take(wanted);
        let others = others.chain(newcomers.copied().filter(eligible));
        let has_address = |key: &NodeKey| !self.nodes[*key].flags.has(NodeFlags::NOADDR);
        let to_tell = doubtful.iter().copied().filter(|key| has_address(key) && self.is_doubtful(*key));
        let keys = others.chain(to_tell.take(usize::from(u16::MAX) - 1000));
        let out = keys.map(|key| self.gossip_entry(key, env)).collect();
        self.doubtful = doubtful;
        out
    }

    /// Whether every packet is to tell of this node. Also of one with an open vote: the leases of others must not rest
    /// on a node that may have been replaced. And of who may have replaced it: whether it serves depends on how many say so.
    fn is_doubtful(&self, key: NodeKey) -> bool {
        let n = &self.nodes[key];
        let may_rest_ms = self.election_lasts_ms() + self.term_ms() * HEIR_TERMS;
        let is_heir = |master: &NodeKey| {
            let master = &self.nodes[*master];
            master.voted_for == Some(n.id) && self.last_turn_ms - master.voted_ms < may_rest_ms
        };
        let is_open = (n.voted_for.is_some() && self.vote_is_open(key)) || n.replica_of.as_ref().is_some_and(is_heir);
        n.timed_out() || (n.failed() && is_open)
    }

    /// To be called where a node may become doubtful.
    pub(super) fn note_doubtful(&mut self, key: NodeKey) {
        if !self.doubtful.contains(&key) {
            self.doubtful.push(key);
        }
    }

    /// It says that a ping waits for its answer only if that is late: a Hexad node that hears of it looks, too.
    pub(super) fn gossip_entry(&self, key: NodeKey, env: &Env) -> Gossip {
        let n = &self.nodes[key];
        let (port, second_port) =
            if self.config.tls_cluster { (n.tls_port, n.tcp_port) } else { (n.tcp_port, n.tls_port) };
        Gossip {
            id: n.id,
            ping_sent_s: if self.answers_late(n, env.now_ms) { (n.ping_sent_ms / 1000) as u32 } else { 0 },
            pong_received_s: (n.pong_received_ms / 1000) as u32,
            ip: n.ip.clone(),
            port,
            bus_port: n.bus_port,
            flags: n.flags,
            second_port,
        }
    }

    fn extensions(&mut self, env: &Env) -> Vec<Extension> {
        let now_s = env.now_ms / 1000;
        let me = self.myself();
        let mut out = Vec::new();
        if !me.hostname.is_empty() {
            out.push(Extension::Hostname(me.hostname.clone()));
        }
        if !me.human_name.is_empty() {
            out.push(Extension::HumanName(me.human_name.clone()));
        }
        let forgotten = self.blacklist.iter().filter(|(_, until_s)| **until_s >= now_s);
        out.extend(forgotten.map(|(id, until_s)| Extension::Forgotten(*id, (until_s - now_s) as u64)));
        out.push(Extension::ShardId(me.shard_id));
        out
    }
}

/// The shard that a packet says its sender is of.
fn shard_of(extensions: &[Extension]) -> Option<NodeId> {
    extensions.iter().find_map(|extension| match extension {
        Extension::ShardId(id) => Some(*id),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::ClusterConfig;
    use super::*;

    /// Anybody can send this, so the name must not be looked up.
    #[test]
    fn a_stranger_that_names_itself_is_met_where_it_came_from() {
        let env = Env::at(1000);
        let stranger = Cluster::new(ClusterConfig::default(), 2, 1000);
        for (says, met_at) in [("node.invalid", "10.0.0.9"), ("", "10.0.0.9"), ("10.0.0.8", "10.0.0.8"), ("::1", "::1")]
        {
            let mut c = Cluster::new(ClusterConfig::default(), 1, 1000);
            let link = c.on_accept(1000, "10.0.0.9".into(), "10.0.0.1".into());
            let header = Header { ip: says.into(), ..stranger.header(0, &env) };
            let meet = Body::Ping { kind: PacketType::Meet, gossip: vec![], extensions: vec![] };
            c.on_packet(link, &wire::encode(&header, &meet), &env);
            let met: Vec<&str> = c.nodes.iter().filter(|(_, n)| n.in_handshake()).map(|(_, n)| n.ip.as_str()).collect();
            assert_eq!(met, [met_at], "{says}");
        }
    }

    #[test]
    fn news_of_newcomers_goes_to_those_who_have_answered() {
        let (mut env, mut us) = (Env::at(1000), Cluster::new(ClusterConfig::default(), 1, 1000));
        let member = Cluster::new(ClusterConfig::default(), 2, 1000);
        let third = Cluster::new(ClusterConfig::default(), 3, 1000);
        let key = us.add_node(member.myself().id, NodeFlags::MASTER, 1000);
        us.connect(key, 1000);
        let link = us.nodes[key].link.unwrap();
        us.on_link_connected(link, "10.0.0.1".into(), &env);
        us.flush(&env);
        let news = |us: &mut Cluster, env: &Env| {
            us.spread_newcomers(env);
            let sent = us.flush(env).into_iter().filter(
                |action| matches!(action, Action::Send { packet, .. } if wire::packet_type(packet) == PacketType::Pong as u16),
            );
            sent.count()
        };
        let newcomer = us.add_node(third.myself().id, NodeFlags::MASTER, 1000);
        us.welcome(newcomer, &env);
        assert_eq!(news(&mut us, &env), 0);
        let pong = Body::Ping { kind: PacketType::Pong, gossip: vec![], extensions: vec![] };
        us.on_packet(link, &wire::encode(&member.header(0, &env), &pong), &env);
        us.flush(&env);
        env.now_ms += NEWCOMERS_APART_MS;
        us.welcome(newcomer, &env);
        assert_eq!(news(&mut us, &env), 1);
    }

    const NOW_MS: i64 = 1_000_000;

    fn id(number: usize) -> NodeId {
        NodeId::parse(format!("{number:040x}").as_bytes()).unwrap()
    }

    /// A node that knows so many others, with links to all of them.
    fn knows(count: usize) -> (Cluster, Vec<NodeKey>) {
        let mut c = Cluster::new(ClusterConfig::default(), 1, NOW_MS);
        let known: Vec<NodeKey> = (0..count).map(|n| c.add_node(id(n), NodeFlags::MASTER, NOW_MS)).collect();
        for key in &known {
            c.nodes[*key].ip = "10.0.0.1".into();
            c.connect(*key, NOW_MS);
            let link = c.nodes[*key].link.unwrap();
            c.links.get_mut(&link).unwrap().is_answered = true;
        }
        c.flush(&Env::at(NOW_MS));
        (c, known)
    }

    /// One of them tells of a node that is new.
    fn hears_of(c: &mut Cluster, reporter: NodeKey, number: usize, now_ms: i64) -> NodeKey {
        let gossip = Gossip {
            id: id(number),
            ping_sent_s: 0,
            pong_received_s: 0,
            ip: "10.0.0.2".into(),
            port: 6379,
            bus_port: 16379,
            flags: NodeFlags::MASTER,
            second_port: 0,
        };
        c.take_in_gossip(reporter, &[gossip], &Env::at(now_ms));
        let key = c.nodes.find(&id(number)).unwrap();
        // It is told of once there is a link to it.
        c.connect(key, now_ms);
        key
    }

    /// Whom each packet that is sent tells of, and to how many nodes it goes.
    fn told(c: &mut Cluster, now_ms: i64) -> Vec<Vec<NodeId>> {
        let packets = c.flush(&Env::at(now_ms)).into_iter().filter_map(|action| match action {
            Action::Send { packet, .. } => Some(packet),
            _ => None,
        });
        let gossip = packets.filter_map(|packet| match wire::decode(&packet).unwrap().body {
            Body::Ping { gossip, .. } => Some(gossip.iter().map(|g| g.id).collect()),
            _ => None,
        });
        gossip.collect()
    }

    #[test]
    fn some_are_told_at_once_of_who_is_new_and_of_many_together() {
        let (mut c, known) = knows(30);
        hears_of(&mut c, known[0], 100, NOW_MS);
        let first = told(&mut c, NOW_MS);
        assert_eq!(first.len(), NEWS_FANOUT);
        assert!(first.iter().all(|ids| ids.contains(&id(100))));
        for (number, later_ms) in [(101, 1), (102, 40), (103, 99)] {
            hears_of(&mut c, known[1], number, NOW_MS + later_ms);
            assert!(told(&mut c, NOW_MS + later_ms).is_empty(), "not so soon again");
        }
        let second = told(&mut c, NOW_MS + NEWCOMERS_APART_MS);
        assert_eq!(second.len(), NEWS_FANOUT);
        assert!(second.iter().all(|ids| [101, 102, 103].iter().all(|number| ids.contains(&id(*number)))));
        assert!(told(&mut c, NOW_MS + 5000).is_empty(), "that was all");
    }

    /// Who is known already is no news, whoever tells of it.
    #[test]
    fn nobody_is_told_of_a_node_twice() {
        let (mut c, known) = knows(10);
        hears_of(&mut c, known[0], 100, NOW_MS);
        told(&mut c, NOW_MS);
        for key in &known[1..4] {
            hears_of(&mut c, *key, 100, NOW_MS + 500);
        }
        assert!(told(&mut c, NOW_MS + 500).is_empty());
    }

    #[test]
    fn packets_tell_of_who_is_new_for_a_while_and_of_some_at_a_time() {
        let (mut c, known) = knows(30);
        let newcomers = MOST_NEWCOMERS * 3;
        for number in 0..newcomers {
            hears_of(&mut c, known[0], 100 + number, NOW_MS);
        }
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let ids: Vec<NodeId> = c.gossip_section(1, &Env::at(NOW_MS + 100)).iter().map(|g| g.id).collect();
            assert!(ids.len() <= 1 + MOST_NEWCOMERS);
            seen.extend(ids.into_iter().filter(|told| *told >= id(100)));
        }
        assert_eq!(seen.len(), newcomers, "each has its turn");
        // News of suspicions alone is no matter of theirs.
        assert!(c.gossip_section(0, &Env::at(NOW_MS + 100)).is_empty());
        // Who has gone again is told of no more, and in time nobody is.
        let gone = c.nodes.find(&id(100)).unwrap();
        c.remove_node(gone);
        assert!(c.newcomers.iter().all(|(key, _)| *key != gone) && c.newcomers.len() == newcomers - 1);
        let late = c.gossip_section(1, &Env::at(NOW_MS + NEWCOMER_MS));
        assert!(late.len() == 1 && c.newcomers.is_empty());
    }
}
