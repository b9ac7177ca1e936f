//! Failure detection: pings, suspicion (PFAIL), agreement (FAIL) and whether the cluster is up.
//!
//! A node is suspected once, for more than the node timeout, a ping of ours has waited for its answer and there has
//! been no other sign of life from it (a packet to us, a pong reported by others); never sooner. So a node that stands
//! still for less than the timeout is never suspected. How late a suspicion may come depends on how often nodes are
//! pinged. A node is declared failed when a majority of the masters with slots suspect it at about the same time and we
//! do too.

use super::node::{Node, NodeFlags, NodeId, NodeKey};
use super::wire::{Body, PacketType};
use super::{Cluster, Env, LinkId, RECONNECT_MS};

/// A report of failure counts for this many node timeouts.
const REPORT_VALIDITY: i64 = 2;
/// How often a master with slots is pinged within a node timeout.
const PINGS_A_TIMEOUT: i64 = 16;
/// Two pings of one master to another are apart by at least this much for each pair of masters, which limits the pings
/// of all together.
const PING_SPACING_MS: i64 = 4;
/// A failed master that still has its slots and answers again is taken back after this many node timeouts.
const FAIL_UNDO: i64 = 2;
/// How long a starting master waits before it accepts queries, so that it can learn that it was replaced.
const WRITABLE_DELAY_MS: i64 = 2000;
/// Bounds on the wait of a master that was in a minority, which is one node timeout.
const REJOIN_DELAY_MS: std::ops::RangeInclusive<i64> = 500..=5000;

impl Cluster {
    /// How long a node may be quiet before it is pinged. Masters with slots ping each other often, as the absence of
    /// one counts from the first ping that it does not answer; in a large cluster less often, to limit the number of
    /// pings. Reports of others do not matter.
    fn ping_interval_ms(&self, key: NodeKey) -> i64 {
        let quarter = self.config.node_timeout_ms / 4;
        match self.config.ping_interval_ms {
            0 if self.nodes[key].is_voter() && self.myself().is_voter() => {
                let pairs = (self.size * self.size) as i64;
                (self.config.node_timeout_ms / PINGS_A_TIMEOUT).max(pairs * PING_SPACING_MS).min(quarter)
            }
            0 => quarter,
            configured => configured,
        }
    }

    /// Looks at every node: connects, pings, and suspects those that are silent.
    pub(super) fn watch_nodes(&mut self, env: &Env) {
        let now = env.now_ms;
        let timeout = self.config.node_timeout_ms;
        for key in self.nodes.keys() {
            let node = &self.nodes[key];
            if node.flags.has_any(NodeFlags::MYSELF | NodeFlags::NOADDR) {
                continue;
            }
            if node.in_handshake() && now - node.created_ms > timeout.max(1000) {
                self.remove_node(key);
                continue;
            }
            self.keep_connected(key, now);
            if !self.nodes[key].in_handshake() {
                self.ping_if_quiet(key, env);
                self.suspect_if_silent(key, env);
            }
        }
        self.ping_a_random_node(env);
    }

    fn keep_connected(&mut self, key: NodeKey, now: i64) {
        let node = &self.nodes[key];
        let Some(link) = node.link else {
            let due = node.connect_ms + RECONNECT_MS;
            if now >= due {
                self.connect(key, now);
            } else {
                self.wake_at(due);
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

    fn ping_if_quiet(&mut self, key: NodeKey, env: &Env) {
        let node = &self.nodes[key];
        let Some(link) = node.link.filter(|l| self.links[l].connected) else {
            return;
        };
        let quiet = env.now_ms - node.pong_received_ms > self.ping_interval_ms(key);
        // The replica of a manual failover waits for our paused offset.
        let for_failover = self.is_master() && self.manual.paused && self.manual.replica == Some(key);
        // Reports of others about a master spare us no ping: its grant is for us alone.
        let (quarter, pinged_ago) = (self.config.node_timeout_ms / 4, env.now_ms - node.pinged_ms);
        let grants = self.is_master() && node.is_master();
        let grant_due = grants && pinged_ago >= self.ping_interval_ms(key).min(quarter);
        // It sent something since, so the ping or its answer was lost, as DEBUG can do. We ping again, as a node that
        // sends keeps its connection, and its failure is cleared only when it answers.
        let lost = node.data_received_ms > node.pinged_ms;
        // A slow answer must not delay the next ping either: it would delay the next grant by as much.
        let again = node.ping_sent_ms != 0 && pinged_ago >= quarter && (grants || lost);
        if (node.ping_sent_ms == 0 && (quiet || grant_due)) || again || for_failover {
            let waiting_since = node.ping_sent_ms;
            self.send_ping(link, PacketType::Ping, env);
            if waiting_since != 0 {
                self.nodes[key].ping_sent_ms = waiting_since;
            }
        }
    }

    /// Once a second pings, of five random nodes, the one heard of least recently, so that news spreads even where
    /// nothing is due.
    fn ping_a_random_node(&mut self, env: &Env) {
        if env.now_ms - self.random_ping_ms < 1000 {
            return;
        }
        self.random_ping_ms = env.now_ms;
        let keys = self.nodes.keys();
        let oldest = (0..5)
            .map(|_| keys[self.rng.usize(..keys.len())])
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
            self.wake_at(due);
            return;
        }
        node.flags.set(NodeFlags::PFAIL);
        log::trace!("*** NODE {} possibly failing", node.id);
        self.todo.state = true;
        self.todo.pfail_news = self.myself().is_voter();
        self.fail_if_agreed(key, env);
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
        self.drop_old_reports(key, env);
        let voters = self.nodes[key].fail_reports.iter().filter(|(who, _)| self.nodes[*who].is_voter()).count()
            + usize::from(self.myself().is_voter());
        if voters < self.quorum() {
            return;
        }
        let node = &self.nodes[key];
        log::info!("Marking node {} ({}) as failing (quorum reached).", node.id, node.human_name);
        let id = node.id;
        self.mark_failed(key, env);
        self.broadcast(&Body::Fail(id), 0, env);
    }

    fn mark_failed(&mut self, key: NodeKey, env: &Env) {
        let node = &mut self.nodes[key];
        node.flags.clear(NodeFlags::PFAIL);
        node.flags.set(NodeFlags::FAIL);
        node.fail_time_ms = env.now_ms;
        self.save_and_update();
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
    /// in which we voted.
    pub(super) fn clear_failure_if_possible(&mut self, key: NodeKey, env: &Env) {
        let undo_after = self.config.node_timeout_ms * FAIL_UNDO;
        let undecided = self.vote_is_open(key);
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
        self.save_and_update();
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
        self.size = self.nodes.iter().filter(|(_, n)| n.is_voter()).count();
        let reachable = self.nodes.iter().filter(|(_, n)| n.is_voter() && n.healthy()).count();
        let heard = |n: &Node| n.data_received_ms >= self.awake_ms || n.flags.has(NodeFlags::MYSELF);
        let heard = self.nodes.iter().filter(|(_, n)| n.is_voter() && n.healthy() && heard(n)).count();

        if master && !self.state_ok && now - started_ms < WRITABLE_DELAY_MS {
            self.wake_at(started_ms + WRITABLE_DELAY_MS);
            return;
        }
        let served = |owner: &Option<NodeKey>| owner.is_some_and(|key| !self.nodes[key].failed());
        let covered = !self.config.require_full_coverage || self.owner.iter().all(served);
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
        let ok = covered && majority && leased && heard >= self.quorum();
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
