//! Failure detection: pings, suspicion (PFAIL), agreement (FAIL) and whether the cluster is up.
//!
//! A node is suspected once, for more than the node timeout, a ping of ours has waited for its answer and there has
//! been no other sign of life from it (a packet to us, a pong reported by others); never sooner. So a node that stands
//! still for less than the timeout is never suspected. How late a suspicion may come depends on how soon a ping stays
//! unanswered. A node is declared failed when a majority of the masters with slots suspect it at about the same time and
//! we do too.
//!
//! What a node sends does not grow with the square of the cluster. Who was heard of, by whomever, is not pinged; masters
//! ping each other for their leases only as often as those need. That one of them answers late is seen soon by somebody,
//! as all of them ping it, and then it is told to the others, who ping it at once. A suspicion goes to a few masters
//! that collect them, and those tell all nodes of the failure.

use super::node::{Node, NodeFlags, NodeId, NodeKey};
use super::wire::{Body, PacketType};
use super::{Cluster, Env, LinkId, RECONNECT_MS};
use crate::structs::slots::SLOT_COUNT;

/// A report of failure counts for this many node timeouts.
const REPORT_VALIDITY: i64 = 2;
/// How often a master with slots is pinged within a node timeout by each of few others, and by all of many together.
const PINGS_A_TIMEOUT: i64 = 16;
/// A master pings the one after it each time so many milliseconds times the number of masters have passed, within these bounds;
/// other nodes ping a random one.
const WATCH_MS_A_MASTER: i64 = 8;
const WATCH_MS: std::ops::RangeInclusive<i64> = 200..=400;
const RANDOM_PING_MS: i64 = 1000;
/// An answer is late after this part of the node timeout, within these bounds.
const LATE: i64 = 32;
const LATE_MS: std::ops::RangeInclusive<i64> = 50..=100;
/// How many masters suspicions go to first if there are more.
const COLLECTORS: usize = 5;
/// Suspicions that come together are told together.
const NEWS_APART_MS: i64 = 20;
/// After this time suspicions that led to nothing go to all masters.
const COLLECTION_MS: i64 = 200;
/// A failed master that still has its slots and answers again, us or most others, is taken back after this many node timeouts.
const FAIL_UNDO: i64 = 2;
/// How long a starting master waits before it accepts queries, so that it can learn that it was replaced.
const WRITABLE_DELAY_MS: i64 = 2000;
/// Bounds on the wait of a master that was in a minority, which is one node timeout.
const REJOIN_DELAY_MS: std::ops::RangeInclusive<i64> = 500..=5000;

/// How often within a node timeout a node is looked at, whether there is something to do or not.
const LOOKS_A_TIMEOUT: i64 = 8;
/// The longest time between attempts to connect to a node.
const LONGEST_RECONNECT_MS: i64 = 1000;

/// A master that says of one that we consider failed that it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Fine {
    pub(super) by: NodeKey,
    pub(super) since_ms: i64,
    /// It has said so for so long that it would have missed it otherwise.
    is_certain: bool,
}

/// Whom the nodes that we suspect are still to be told to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PfailNews {
    None,
    ToCollectors,
    ToAll,
}

impl Cluster {
    /// How long a node may give no sign of life, to us or others, before it is pinged. In a large cluster not so short
    /// that what others heard of it, which is told in whole seconds, would be too old.
    fn quiet_ms(&self) -> i64 {
        let (timeout, told_ms) = (self.config.node_timeout_ms, (self.nodes.len() as i64 * 20).min(2000));
        match self.config.ping_interval_ms {
            0 => (timeout / 2).max(told_ms).min(timeout),
            configured => configured,
        }
    }

    /// How often, on average, a master with slots pings another one. In a large cluster there are many to notice its
    /// absence, and the newest half of the grants is enough. More seldom, the pings would come in bursts: while the lease
    /// is short all masters are pinged.
    fn grant_interval_ms(&self) -> i64 {
        let timeout = self.config.node_timeout_ms;
        let often = timeout / PINGS_A_TIMEOUT;
        match self.config.ping_interval_ms {
            0 => often.saturating_mul((self.size as i64 - 1) / 2).min(timeout / 2),
            configured => configured.min(timeout / 4),
        }
        .max(often)
    }

    /// When a node that was pinged now is to be pinged again for its grant: not all at the same time, so that at any
    /// time some masters are about to notice the absence of one, and half of the grants are new.
    pub(super) fn next_grant_ms(&mut self, now_ms: i64) -> i64 {
        let interval = self.grant_interval_ms();
        now_ms + interval / 2 + self.rng.i64(0..=interval)
    }

    /// Looks at the nodes that are due: connects, pings, and suspects those that are silent. Of those that are well most are
    /// not, so that this does not grow with the cluster.
    pub(super) fn watch_nodes(&mut self, env: &Env) {
        self.look_sooner(env);
        for key in self.nodes.due(env.now_ms) {
            self.nodes.looked_at(key);
            self.watch_node(key, env);
        }
        self.ping_without_need(env);
    }

    /// What concerns many nodes at once and is not in the times of each.
    fn look_sooner(&mut self, env: &Env) {
        if self.lease_is_short(env.now_ms) {
            return self.nodes.look_at_all();
        }
        if self.is_my_master_silent(env)
            && let Some(master) = self.myself().replica_of
        {
            self.nodes[master].replicas.clone().into_iter().for_each(|key| self.nodes.look_at(key, 0));
        }
        if let Some(key) = self.manual.replica.filter(|_| self.manual.paused) {
            self.nodes.look_at(key, 0);
        }
    }

    fn watch_node(&mut self, key: NodeKey, env: &Env) {
        let (now, timeout, node) = (env.now_ms, self.config.node_timeout_ms, &self.nodes[key]);
        if node.flags.has(NodeFlags::MYSELF) {
            return;
        }
        if node.flags.has(NodeFlags::NOADDR) {
            return self.nodes.look_at(key, 0);
        }
        if node.in_handshake() && now - node.created_ms > self.handshake_ms() {
            return self.remove_node(key);
        }
        self.keep_connected(key, now);
        if !self.nodes[key].in_handshake() {
            self.ping_if_due(key, env);
            self.tell_if_late(key, env);
            self.suspect_if_silent(key, env);
        }
        let due = self.quiet_until_ms(key).map_or(0, |due| due.min(now + timeout / LOOKS_A_TIMEOUT));
        self.nodes.look_at(key, due);
    }

    /// Until when there is nothing to do about a node as it is; `None`: there may be at any time.
    fn quiet_until_ms(&self, key: NodeKey) -> Option<i64> {
        let n = &self.nodes[key];
        let link = &self.links[&n.link?];
        let is_plain = n.healthy() && !n.in_handshake() && n.is_replica() == n.replica_of.is_some();
        if !is_plain || n.ping_sent_ms != 0 || !link.connected || !link.pings.is_empty() {
            return None;
        }
        let grant_due_ms = if self.myself().is_voter() && n.is_voter() { n.grant_due_ms } else { i64::MAX };
        Some(grant_due_ms.min(n.last_sign_ms() + self.quiet_ms() + 1))
    }

    /// How long a handshake may take.
    fn handshake_ms(&self) -> i64 {
        self.config.node_timeout_ms.max(1000)
    }

    fn keep_connected(&mut self, key: NodeKey, now: i64) {
        let node = &self.nodes[key];
        let Some(link) = node.link else {
            if self.broken.no_reconnection {
                return;
            }
            let due = node.connect_ms + self.reconnect_ms(key, now);
            if now >= due {
                self.connect(key, now);
            } else {
                self.nodes.wake_for(key, due);
            }
            return;
        };
        let timeout = self.config.node_timeout_ms;
        let l = &self.links[&link];
        let age = now - l.created_ms;
        let unanswered = node.ping_sent_ms != 0 && now - node.ping_sent_ms > timeout / 4;
        let silent = now - node.data_received_ms > timeout / 2;
        // A silent connection may be broken although the node is fine: try another, once a timeout. Also replace one
        // that lost answers: otherwise later answers would be matched with earlier pings for ever.
        let behind = l.pings.front().is_some_and(|sent_ms| now - sent_ms > self.term_ms() * 3 / 4);
        if (l.connected && age > timeout && (behind || (unanswered && silent))) || (!l.connected && age > timeout / 2) {
            self.close_link(link);
        }
    }

    /// Between two attempts to connect to a node: longer if it has been away for long, unless it connected to us.
    pub(super) fn reconnect_ms(&self, key: NodeKey, now: i64) -> i64 {
        let node = &self.nodes[key];
        let away = if node.inbound.is_some() { 0 } else { now - node.last_alive_ms().max(node.created_ms) };
        (away / 8).clamp(RECONNECT_MS, LONGEST_RECONNECT_MS)
    }

    fn ping_if_due(&mut self, key: NodeKey, env: &Env) {
        let node = &self.nodes[key];
        let Some(link) = node.link.filter(|l| self.links[l].connected) else {
            return;
        };
        let (quarter, pinged_ago) = (self.config.node_timeout_ms / 4, env.now_ms - node.pinged_ms);
        // Only its answer ends a failure, only a packet of it says whose replica it is, and whether it has more data.
        let is_unclear = !node.healthy()
            || (node.is_replica() && node.replica_of.is_none())
            || (self.is_sibling(key) && self.is_my_master_silent(env));
        let quiet = if is_unclear { pinged_ago >= quarter } else { env.now_ms - node.last_sign_ms() > self.quiet_ms() };
        // The replica of a manual failover waits for our paused offset.
        let for_failover = self.is_master() && self.manual.paused && self.manual.replica == Some(key);
        // Signs of life of a master spare us no ping: its grant is for us alone.
        let grants = self.myself().is_voter() && node.is_voter();
        let hurry = self.lease_is_short(env.now_ms) && pinged_ago >= self.config.node_timeout_ms / PINGS_A_TIMEOUT;
        let grant_due = grants && (env.now_ms >= node.grant_due_ms || hurry);
        // It sent something since, so the ping or its answer was lost, as DEBUG can do. We ping again, as a node that
        // sends keeps its connection, and its failure is cleared only when it answers.
        let lost = node.data_received_ms > node.pinged_ms;
        // A slow answer must not delay the next ping either: it would delay the next grant by as much.
        let again = node.ping_sent_ms != 0 && pinged_ago >= quarter && (grants || lost);
        if (node.ping_sent_ms == 0 && (quiet || grant_due)) || again || for_failover {
            let waiting_since = node.ping_sent_ms;
            let kind = if self.is_to_meet_again(key, env) { PacketType::Meet } else { PacketType::Ping };
            self.send_ping(link, kind, env);
            if waiting_since != 0 {
                self.nodes[key].ping_sent_ms = waiting_since;
            }
        }
    }

    /// Whether a node that we met answered, but does not connect to us: it did not come to know us, or has not for long enough to
    /// tell.
    fn is_to_meet_again(&mut self, key: NodeKey, env: &Env) -> bool {
        let (handshake_ms, node) = (self.handshake_ms(), &mut self.nodes[key]);
        if let Some(inbound) = node.inbound {
            node.is_half_met &= env.now_ms - self.links[&inbound].created_ms <= handshake_ms;
            return false;
        }
        node.is_half_met && env.now_ms - node.created_ms > handshake_ms
    }

    /// The master after us, by id, if we are both masters with slots: each is watched by the one before it, so that its
    /// absence is noticed soon for certain.
    fn next_voter(&self) -> Option<NodeKey> {
        if !self.myself().is_voter() {
            return None;
        }
        let after = self.nodes.keys_from(self.nodes.position_after(&self.myself().id));
        after
            .take_while(|key| *key != self.myself)
            .find(|key| self.nodes[*key].is_voter() && self.nodes[*key].healthy())
    }

    /// How often the next master is pinged. The more masters there are, the sooner another's ping for its grant shows its absence,
    /// too.
    fn watch_ms(&self) -> i64 {
        let longest = (self.config.node_timeout_ms / 4).clamp(*WATCH_MS.start(), *WATCH_MS.end());
        (self.size as i64 * WATCH_MS_A_MASTER).clamp(*WATCH_MS.start(), longest)
    }

    /// Once a second pings, of five random nodes, the one heard of least recently, so that news spreads even where
    /// nothing is due. A master, which pings many for their grants, pings the next master instead, and more often.
    fn ping_without_need(&mut self, env: &Env) {
        if self.broken.no_random_pings {
            return;
        }
        let next = self.next_voter();
        // A little sooner or later where the loop wakes anyway, rather than on time by a turn of its own.
        let apart = self.tick_ms() / 4;
        let due = self.random_ping_ms + if next.is_some() { self.watch_ms() } else { RANDOM_PING_MS };
        if env.now_ms + apart < due {
            return self.wake_at(due + apart);
        }
        self.random_ping_ms = env.now_ms;
        let link = |key: NodeKey| self.nodes[key].link.filter(|l| self.links[l].connected);
        if let Some(link) = next.filter(|key| self.nodes[*key].ping_sent_ms == 0).and_then(link) {
            return self.send_ping(link, PacketType::Ping, env);
        }
        let oldest = (0..5)
            .map(|_| self.nodes.key_at(self.rng.usize(..self.nodes.len())))
            .filter(|key| {
                let n = &self.nodes[*key];
                let connected = n.link.is_some_and(|l| self.links[&l].connected);
                connected && n.ping_sent_ms == 0 && !n.flags.has_any(NodeFlags::MYSELF | NodeFlags::HANDSHAKE)
            })
            .min_by_key(|key| self.nodes[*key].pong_received_ms);
        if let Some(link) = oldest.and_then(|key| self.nodes[key].link) {
            self.send_ping(link, PacketType::Ping, env);
        }
    }

    fn late_ms(&self) -> i64 {
        (self.config.node_timeout_ms / LATE).clamp(*LATE_MS.start(), *LATE_MS.end())
    }

    /// From when a node's answer is late, if a ping waits for one: unless other packets come from it, or its answers
    /// usually take about as long, as they do over a long way.
    fn late_from_ms(&self, n: &Node) -> Option<i64> {
        let usual_ms = (n.answers_in_ms * 2).min(self.config.node_timeout_ms / 4);
        (n.ping_sent_ms != 0).then(|| n.ping_sent_ms.max(n.data_received_ms) + self.late_ms().max(usual_ms))
    }

    pub(super) fn answers_late(&self, n: &Node, now_ms: i64) -> bool {
        self.late_from_ms(n).is_some_and(|late_ms| late_ms <= now_ms)
    }

    /// Tells the other masters if one of them has not answered us for a while, so that they ping it: its absence counts
    /// from their own pings. Who was told of it does not tell it on.
    fn tell_if_late(&mut self, key: NodeKey, env: &Env) {
        let node = &self.nodes[key];
        let Some(due) = self.late_from_ms(node) else { return };
        if !node.healthy() || !node.is_voter() || !self.myself().is_voter() {
            return;
        }
        let lived_since = node.data_received_ms > node.late_news_ms;
        if env.now_ms < due {
            self.nodes.wake_for(key, due);
        } else if lived_since || env.now_ms - node.late_news_ms > self.config.node_timeout_ms {
            self.nodes[key].late_news_ms = env.now_ms;
            self.todo.late_news = true;
        }
    }

    /// Another node waits for an answer of this one: pings it, too, unless we heard of it just now.
    pub(super) fn check_as_told(&mut self, key: NodeKey, env: &Env) {
        let (late_ms, node) = (self.late_ms(), &self.nodes[key]);
        if !node.is_voter() || !self.myself().is_voter() || env.now_ms - node.data_received_ms < late_ms {
            return;
        }
        let link = node.link.filter(|l| self.links[l].connected && node.ping_sent_ms == 0);
        self.nodes[key].late_news_ms = env.now_ms;
        if let Some(link) = link.filter(|_| env.now_ms - self.nodes[key].pinged_ms >= late_ms) {
            self.send_ping(link, PacketType::Ping, env);
        }
    }

    /// At the end of a turn after answers were found late; not often, as on a machine that is busy many are.
    pub(super) fn spread_late_news(&mut self, env: &Env) {
        let due = self.late_news_ms + self.config.node_timeout_ms / PINGS_A_TIMEOUT;
        if env.now_ms < due {
            self.wake_at(due);
            return;
        }
        self.todo.late_news = false;
        let is_late = |n: &Node| n.is_voter() && n.healthy() && self.answers_late(n, env.now_ms);
        let late = self.nodes.iter().filter(|(_, n)| is_late(n));
        let gossip: Vec<_> = late.map(|(key, _)| self.gossip_entry(key, env)).collect();
        if gossip.is_empty() {
            return;
        }
        self.late_news_ms = env.now_ms;
        let links = self.voter_links(Node::healthy);
        self.send_news(&links, gossip, env);
    }

    fn suspect_if_silent(&mut self, key: NodeKey, env: &Env) {
        let timeout = self.config.node_timeout_ms;
        let node = &mut self.nodes[key];
        if node.ping_sent_ms == 0 || !node.healthy() {
            return;
        }
        // A node never heard of counts as heard of when we learned of it.
        let alive = node.last_alive_ms().max(node.created_ms);
        let due = alive.max(node.ping_sent_ms) + timeout + 1;
        if env.now_ms < due {
            self.nodes.wake_for(key, due);
            return;
        }
        log::trace!("*** NODE {} possibly failing", node.id);
        self.suspect(key, env);
        self.fail_if_agreed(key, env);
    }

    fn suspect(&mut self, key: NodeKey, env: &Env) {
        self.nodes[key].flags.set(NodeFlags::PFAIL);
        // What it says of others next may be old.
        self.nodes.for_each_mut(|n| n.fine_by.retain(|fine| fine.by != key));
        self.note_doubtful(key);
        self.todo.state = true;
        if self.myself().is_voter() {
            self.pfail_news = PfailNews::ToCollectors;
            self.pfail_news_due_ms = self.pfail_news_due_ms.min(env.now_ms + NEWS_APART_MS);
        }
    }

    /// Tells other masters, and the replicas of the suspected nodes, which nodes we cannot reach, without waiting for
    /// the next ping. It is a PONG, which asks for no answer. All masters choose the same few to collect suspicions; if
    /// that leads to nothing, all get them.
    pub(super) fn spread_pfail_news(&mut self, env: &Env) {
        if self.pfail_news == PfailNews::None {
            return;
        }
        if env.now_ms < self.pfail_news_due_ms {
            self.wake_at(self.pfail_news_due_ms);
            return;
        }
        self.pfail_news_due_ms = env.now_ms + NEWS_APART_MS;
        let mut voters = self.voter_links(Node::healthy);
        if self.pfail_news == PfailNews::ToCollectors && voters.len() > COLLECTORS {
            voters.truncate(COLLECTORS);
            self.pfail_news = PfailNews::ToAll;
            self.pfail_news_due_ms = env.now_ms + COLLECTION_MS;
            self.wake_at(self.pfail_news_due_ms);
        } else {
            self.pfail_news = PfailNews::None;
        }
        let suspects = || self.nodes.iter().filter(|(_, n)| n.timed_out());
        let heirs = suspects().flat_map(|(_, n)| &n.replicas).map(|key| &self.nodes[*key]);
        let heirs: Vec<LinkId> = heirs.filter(|n| n.healthy()).filter_map(|n| n.link).collect();
        if suspects().next().is_some() {
            let gossip = self.gossip_section(0, env);
            self.send_news(&[voters, heirs].concat(), gossip, env);
        }
    }

    // ---- reports and agreement ----

    pub(super) fn add_fail_report(&mut self, key: NodeKey, reporter: NodeKey, env: &Env) {
        let reports = &mut self.nodes[key].fail_reports;
        match reports.iter_mut().find(|(who, _)| *who == reporter) {
            Some((_, when)) => *when = env.now_ms,
            None => {
                reports.push((reporter, env.now_ms));
                let (by, about) = (&self.nodes[reporter], &self.nodes[key]);
                log::debug!(
                    "Node {} ({}) reported node {} ({}) as not reachable.",
                    by.id,
                    by.human_name,
                    about.id,
                    about.human_name
                );
            }
        }
    }

    pub(super) fn withdraw_fail_report(&mut self, key: NodeKey, reporter: NodeKey, env: &Env) {
        let reports = &mut self.nodes[key].fail_reports;
        let before = reports.len();
        reports.retain(|(who, _)| *who != reporter);
        if reports.len() < before {
            let (by, about) = (&self.nodes[reporter], &self.nodes[key]);
            log::debug!(
                "Node {} ({}) reported node {} ({}) is back online.",
                by.id,
                by.human_name,
                about.id,
                about.human_name
            );
            self.drop_old_reports(key, env);
        }
    }

    fn drop_old_reports(&mut self, key: NodeKey, env: &Env) {
        let oldest = env.now_ms - self.config.node_timeout_ms * REPORT_VALIDITY;
        self.nodes[key].fail_reports.retain(|(_, when)| *when >= oldest);
    }

    /// How many masters reported lately that they cannot reach the node.
    pub(super) fn fail_report_count(&mut self, key: NodeKey, env: &Env) -> usize {
        self.drop_old_reports(key, env);
        self.nodes[key].fail_reports.len()
    }

    /// Declares a suspected node failed if a majority of voters suspects it, and tells all nodes. A replica does so
    /// too: it only spreads the decision of the masters.
    pub(super) fn fail_if_agreed(&mut self, key: NodeKey, env: &Env) {
        if !self.nodes[key].timed_out() || self.nodes[key].failed() {
            return;
        }
        if self.nodes[key].fail_reports.len() + 1 < self.quorum() {
            return;
        }
        if !self.is_agreed(key, env) {
            return;
        }
        let node = &self.nodes[key];
        log::info!("Marking node {} ({}) as failing (quorum reached).", node.id, node.human_name);
        let id = node.id;
        self.mark_failed(key, env);
        self.broadcast(&Body::Fail(id), 0, env);
    }

    /// Whether a majority of the voters, with us if we are one, missed it lately.
    fn is_agreed(&mut self, key: NodeKey, env: &Env) -> bool {
        self.drop_old_reports(key, env);
        let reports = self.nodes[key].fail_reports.iter().filter(|(who, _)| self.nodes[*who].is_voter());
        reports.count() + usize::from(self.myself().is_voter()) >= self.quorum()
    }

    fn mark_failed(&mut self, key: NodeKey, env: &Env) {
        let node = &mut self.nodes[key];
        node.flags.clear(NodeFlags::PFAIL);
        node.flags.set(NodeFlags::FAIL);
        node.fail_time_ms = env.now_ms;
        node.fine_by.clear();
        self.nodes.look_at(key, 0);
        self.save_later_and_update();
        if self.myself().replica_of == Some(key) {
            self.todo.failover = true;
        }
    }

    pub(super) fn on_fail(&mut self, sender: Option<NodeKey>, header: &super::wire::Header, id: NodeId, env: &Env) {
        let Some(sender) = sender else {
            log::info!("Ignoring FAIL message from unknown node {} about {id}", header.sender);
            return;
        };
        let Some(key) = self.nodes.find(&id) else {
            return;
        };
        if key == self.myself {
            self.forget_grants(env);
        }
        // Somebody knows of a majority that misses it now.
        self.nodes[key].fine_by.clear();
        if self.nodes[key].flags.has_any(NodeFlags::FAIL | NodeFlags::MYSELF) {
            return;
        }
        log::info!(
            "FAIL message received from {} ({}) about {id} ({})",
            header.sender,
            self.nodes[sender].human_name,
            self.nodes[key].human_name
        );
        self.mark_failed(key, env);
    }

    /// Clears the failure of a node that answers again. For replicas and masters without slots at once; for a master
    /// with slots only when it is clear that nobody took them over: not while we do not know the result of an election
    /// in which we voted. A replica that still reaches its master, which says that it does not serve (`serves`), stays ready to
    /// take its place while others cannot reach it.
    pub(super) fn clear_failure_if_possible(&mut self, key: NodeKey, serves: bool, env: &Env) {
        let undo_after = self.config.node_timeout_ms * FAIL_UNDO;
        let is_missed = !serves && self.myself().replica_of == Some(key) && self.is_doubted_by_voter(key, env.now_ms);
        let undecided = is_missed || self.vote_is_open(key);
        let node = &mut self.nodes[key];
        if node.is_replica() || node.slot_count == 0 {
            log::info!(
                "Clear FAIL state for node {} ({}):{} is reachable again.",
                node.id,
                node.human_name,
                if node.is_replica() { "replica" } else { "master without slots" }
            );
        } else if node.is_master() && env.now_ms - node.fail_time_ms > undo_after && !undecided {
            log::info!(
                "Clear FAIL state for node {} ({}): is reachable again and nobody is serving its slots after some time.",
                node.id,
                node.human_name
            );
        } else {
            return;
        }
        node.flags.clear(NodeFlags::FAIL);
        self.save_later_and_update();
    }

    /// A master says of one that we consider failed, and whose answers we do not get, that it is there (`is_fine`), or that it misses
    /// it. That may be a failure which only some see, by then or at all. As long as we said so, its grants would count for nobody
    /// who hears us, and we would not serve where its slots have to be served.
    pub(super) fn note_report_of_failed(&mut self, key: NodeKey, reporter: NodeKey, is_fine: bool, env: &Env) {
        let undo_after = self.config.node_timeout_ms * FAIL_UNDO;
        let node = &mut self.nodes[key];
        if !is_fine {
            node.fine_by.retain(|fine| fine.by != reporter);
            return;
        }
        if env.now_ms - node.fail_time_ms <= undo_after || !node.is_voter() {
            return;
        }
        match node.fine_by.iter_mut().find(|fine| fine.by == reporter) {
            // By now it would have missed it itself.
            Some(fine) => fine.is_certain |= env.now_ms - fine.since_ms > undo_after,
            None => node.fine_by.push(Fine { by: reporter, since_ms: env.now_ms, is_certain: false }),
        }
        self.clear_failure_if_refuted(key, env);
    }

    /// Clears the failure of a master that is refuted; it is suspected instead, unless others told us lately of its answers. About its
    /// own master a replica waits for that one's answers.
    fn clear_failure_if_refuted(&mut self, key: NodeKey, env: &Env) {
        if self.myself().replica_of == Some(key) || self.vote_is_open(key) || !self.is_refuted(key, env) {
            return;
        }
        let node = &self.nodes[key];
        log::info!(
            "Clear FAIL state for node {} ({}): others reach it and nobody is serving its slots after some time.",
            node.id,
            node.human_name
        );
        let timeout = self.config.node_timeout_ms;
        let node = &mut self.nodes[key];
        node.flags.clear(NodeFlags::FAIL);
        if env.now_ms - node.last_alive_ms() > timeout {
            self.suspect(key, env);
        }
        self.save_later_and_update();
    }

    /// Whether so many others certainly reach a failed master, long after it was declared failed, that those of whom we know that
    /// they may still miss it are no majority. If it answers us, its answers decide. One more vote about it would keep its failure
    /// up, as [`Self::is_back`] tells. If there is a majority that misses it, who knows of that says so: see
    /// [`Self::tell_of_failure`].
    pub(super) fn is_refuted(&self, key: NodeKey, env: &Env) -> bool {
        let (timeout, node) = (self.config.node_timeout_ms, &self.nodes[key]);
        if !node.failed() || !node.is_voter() || env.now_ms - node.answered_ms <= timeout {
            return false;
        }
        let oldest = env.now_ms - timeout * REPORT_VALIDITY;
        // In a large cluster there are many voters.
        let is_voter = |other: NodeKey| other != key && self.nodes[other].is_voter();
        let reached = self.nodes.iter().filter(|(other, n)| is_voter(*other) && n.healthy()).count();
        let reports =
            node.fail_reports.iter().filter(|(by, ms)| is_voter(*by) && *ms >= oldest && !self.nodes[*by].healthy());
        let fine =
            node.fine_by.iter().filter(|fine| fine.is_certain && is_voter(fine.by) && self.nodes[fine.by].healthy());
        let fine = fine.count();
        fine > 0 && reached + reports.count() - fine < self.quorum()
    }

    /// A master says that it suspects one of which we know that a majority misses it, which everybody was told long ago. It may have
    /// dropped that, as it does not know of the others.
    pub(super) fn tell_of_failure(&mut self, key: NodeKey, reporter: NodeKey, env: &Env) {
        let was_long_ago = env.now_ms - self.nodes[key].fail_time_ms > self.config.node_timeout_ms * FAIL_UNDO;
        let link = self.nodes[reporter].link.filter(|link| self.links[link].connected);
        let Some(link) = link.filter(|_| was_long_ago && self.is_agreed(key, env)) else { return };
        self.send(link, &Body::Fail(self.nodes[key].id), 0, env);
    }

    /// Whether a failed master answers us again, and for so long that only an election whose end we do not know keeps its failure
    /// up. One more vote about it would keep that up for as long again: where others do not consider it failed, and do not vote, it
    /// would be refused its lease as often as its replica asks, and never be replaced.
    pub(super) fn is_back(&self, key: NodeKey, env: &Env) -> bool {
        let (timeout, n) = (self.config.node_timeout_ms, &self.nodes[key]);
        n.failed() && n.answered_ms - n.fail_time_ms > timeout * FAIL_UNDO && env.now_ms - n.answered_ms <= timeout
    }

    // ---- the cluster's state ----

    /// Decides whether the cluster is up: every slot served (if that is required) and a majority of voters in reach. A
    /// master that starts, or comes back from a minority, waits before it says so.
    pub(super) fn update_state(&mut self, env: &Env) {
        self.todo.state = false;
        let now = env.now_ms;
        let master = self.is_master();
        // Counted from here and not from the start of the process, so that loading the data does not count.
        let started_ms = *self.started_ms.get_or_insert(now);
        // Once over all nodes: there may be many, of which news comes in many packets.
        let (mut size, mut reachable, mut heard, mut served) = (0, 0, 0, 0);
        for (_, n) in self.nodes.iter() {
            served += if n.failed() { 0 } else { n.slot_count };
            size += usize::from(n.is_voter());
            let is_reached = n.is_voter() && n.healthy();
            reachable += usize::from(is_reached);
            let is_heard = n.data_received_ms >= self.awake_ms || n.flags.has(NodeFlags::MYSELF);
            heard += usize::from(is_reached && is_heard);
        }
        self.size = size;

        if master && !self.state_ok && now - started_ms < WRITABLE_DELAY_MS {
            self.wake_at(started_ms + WRITABLE_DELAY_MS);
            return;
        }
        let covered = !self.config.require_full_coverage || served == SLOT_COUNT;
        let majority = reachable >= self.quorum();
        if !majority {
            self.minority_ms = now;
        }
        self.renew_lease(now);
        let leased = self.holds_lease(now);
        if !leased && self.state_ok {
            log::warn!(
                "No majority of masters answered what was sent in the last {} milliseconds: not accepting queries.",
                self.lease_ms()
            );
            // The grants came from nodes that know who serves; the shortest delay is for Redis, which reports that on
            // another link.
            self.minority_ms = self.minority_ms.max(now - self.rejoin_delay_ms() + REJOIN_DELAY_MS.start());
        }
        let ok = covered && majority && leased && heard >= self.quorum() && !self.lacks_data();
        if ok == self.state_ok {
            return;
        }
        if ok && master {
            let delay = self.rejoin_delay_ms();
            if now - self.minority_ms < delay {
                self.wake_at(self.minority_ms + delay);
                return;
            }
        }
        self.set_state(ok);
    }

    fn rejoin_delay_ms(&self) -> i64 {
        self.config.node_timeout_ms.clamp(*REJOIN_DELAY_MS.start(), *REJOIN_DELAY_MS.end())
    }

    /// Considers the cluster down, as after a minority: for the whole rejoin delay if `long`, else for the shortest.
    pub(super) fn wait_for_news(&mut self, now_ms: i64, long: bool) {
        let waited = if long { 0 } else { self.rejoin_delay_ms() - REJOIN_DELAY_MS.start() };
        self.minority_ms = now_ms - waited;
        self.awake_ms = now_ms;
        self.set_state(false);
    }

    fn set_state(&mut self, ok: bool) {
        if ok {
            log::info!("Cluster state changed: ok");
        } else {
            log::warn!("Cluster state changed: fail");
        }
        self.state_ok = ok;
    }

    /// Our links to the wanted voters that are not marked as failed.
    pub(super) fn voter_links(&self, wanted: impl Fn(&Node) -> bool) -> Vec<LinkId> {
        let voters = self.nodes.iter().filter(|(key, n)| *key != self.myself && n.is_voter() && !n.failed());
        voters.filter(|(_, n)| wanted(n)).filter_map(|(_, n)| n.link).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClusterConfig;
    use super::*;

    fn alone() -> (Cluster, NodeKey) {
        let mut c = Cluster::new(ClusterConfig { node_timeout_ms: 16_000, ..ClusterConfig::default() }, 1, 1000);
        let key = c.add_node(NodeId::random(&mut fastrand::Rng::with_seed(2)), NodeFlags::MASTER, 1000);
        (c, key)
    }

    #[test]
    fn who_is_away_for_long_is_called_seldom() {
        let (mut c, key) = alone();
        let after = |c: &Cluster, away_ms: i64| c.reconnect_ms(key, 1000 + away_ms);
        assert_eq!([0, 800, 4000, 3_600_000].map(|away| after(&c, away)), [100, 100, 500, 1000]);
        // It calls us: it is back.
        c.nodes[key].inbound = Some(LinkId(9));
        assert_eq!(after(&c, 3_600_000), 100);
    }

    #[test]
    fn an_answer_is_late_after_twice_its_usual_time() {
        let (mut c, key) = alone();
        let env = |now_ms| Env::at(now_ms);
        let told = |c: &Cluster, now_ms: i64| c.gossip_entry(key, &env(now_ms)).ping_sent_s;
        assert_eq!(told(&c, 60_000), 0, "no ping waits");
        c.nodes[key].ping_sent_ms = 50_000;
        assert_eq!([50_000, 50_099, 50_100].map(|now_ms| told(&c, now_ms)), [0, 0, 50]);
        c.nodes[key].data_received_ms = 50_050;
        assert_eq!([50_149, 50_150].map(|now_ms| told(&c, now_ms)), [0, 50]);
        c.nodes[key].answers_in_ms = 80;
        assert_eq!([50_209, 50_210].map(|now_ms| told(&c, now_ms)), [0, 50]);
    }

    #[test]
    fn masters_ping_each_other_as_often_as_few_or_many_need() {
        let (mut c, _) = alone();
        let intervals = [1, 2, 3, 5, 9, 30, 500].map(|size| {
            c.size = size;
            c.grant_interval_ms()
        });
        assert_eq!(intervals, [1000, 1000, 1000, 2000, 4000, 8000, 8000]);
        let apart = [1, 3, 25, 30, 50, 500].map(|size| {
            c.size = size;
            c.watch_ms()
        });
        assert_eq!(apart, [200, 200, 200, 240, 400, 400]);
        c.config.ping_interval_ms = 2500;
        assert_eq!(c.grant_interval_ms(), 2500);
    }
}
