//! The checks after every step of a simulation: the promises of the protocol, and whether the cluster has settled.

use super::*;

impl Sim {
    /// Notes since when each node cannot have communicated, in both directions, with a majority of the masters it knows; with one
    /// after the other is enough.
    pub(super) fn note_cuts(&mut self) {
        let (now, count) = (self.now, self.nodes.len());
        for no in 0..count {
            let reached: Vec<bool> = (0..count).map(|v| self.passes(no, v) && self.passes(v, no)).collect();
            let node = &mut self.nodes[no];
            node.reached_ms.resize(count, now);
            // Whom it reaches no more it has reached until now.
            for (last_ms, reached) in node.reached_ms.iter_mut().zip(reached) {
                *last_ms = if reached { i64::MAX } else { (*last_ms).min(now) };
            }
            let node = &self.nodes[no];
            let Some(c) = node.cluster.as_ref().filter(|c| self.is_cut(no, c)) else {
                self.nodes[no].cut_ms = None;
                continue;
            };
            let voters = c.nodes().iter().filter(|(_, n)| n.is_voter()).filter_map(|(_, n)| no_of(&n.ip));
            let mut reached_ms: Vec<i64> = voters.map(|v| node.reached_ms[v]).collect();
            reached_ms.sort_unstable_by_key(|ms| Reverse(*ms));
            self.nodes[no].cut_ms = Some(reached_ms[reached_ms.len() / 2]);
        }
    }

    pub(super) fn is_cut(&self, no: NodeNo, c: &Cluster) -> bool {
        let voters: Vec<NodeNo> =
            c.nodes().iter().filter(|(_, n)| n.is_voter()).filter_map(|(_, n)| no_of(&n.ip)).collect();
        let reached = voters.iter().filter(|v| **v == no || (self.passes(no, **v) && self.passes(**v, no))).count();
        // Nodes with one open direction may still hear of each other, so only full cuts count.
        let half_open = voters.iter().any(|v| *v != no && (self.passes(no, *v) != self.passes(*v, no)));
        // Before there is a cluster there is nothing to be cut off from.
        !voters.is_empty() && reached < voters.len() / 2 + 1 && !half_open
    }

    // ---- promises ----

    pub(super) fn check_packet(&mut self, no: NodeNo, packet: &[u8]) {
        if wire::packet_type(packet) == PacketType::AuthAck as u16 {
            let p = wire::decode(packet).expect("what a node sends");
            let (voter, epoch) = (p.header.sender, p.header.current_epoch);
            let saved = self.nodes[no].saved_vote_epoch;
            assert!(saved >= epoch, "seed {}: {voter} votes before the vote is on disk", self.seed);
            let previous = self.votes.insert((voter, epoch), no);
            assert!(previous.is_none(), "seed {}: {voter} votes twice in epoch {epoch}", self.seed);
        } else if wire::packet_type(packet) == PacketType::AuthRequest as u16 {
            let p = wire::decode(packet).expect("what a node sends");
            self.elections.insert((no, p.header.current_epoch));
        }
    }

    /// Whether nothing has changed that could break a promise about slots; in a large cluster, where looking at every
    /// other node after every step would take all the time.
    fn serves_as_before(&mut self, no: NodeNo) -> bool {
        let writes = self.takes_writes(no);
        let Some(c) = &self.nodes[no].cluster else { return true };
        let (me, large) = (c.myself(), self.is_large());
        let serving = (writes, me.slot_count, me.epochs.config);
        std::mem::replace(&mut self.nodes[no].serving, serving) == serving && large && !self.steps.is_multiple_of(199)
    }

    pub(super) fn check(&mut self, no: NodeNo) {
        let seed = self.seed;
        let now = self.now;
        let as_before = self.serves_as_before(no);
        let Some(c) = self.nodes[no].cluster.as_ref() else { return };
        if self.steps.is_multiple_of(256 + 5 * self.nodes.len() as u64) {
            c.check_invariants();
        }
        let me = c.myself();
        let node = &self.nodes[no];
        assert!(c.last_vote_epoch() >= node.last_vote_epoch, "seed {seed}: lastVoteEpoch went back");
        assert!(c.current_epoch() >= node.current_epoch, "seed {seed}: currentEpoch went back");
        if me.is_master() && node.my_epoch.0 == me.id {
            assert!(me.epochs.config >= node.my_epoch.1, "seed {seed}: configEpoch went back");
        }

        if as_before {
            return;
        }
        // Nobody is suspected before the node timeout has passed since it was heard of.
        let timeout = node.config.node_timeout_ms;
        let mut suspects = HashSet::new();
        for (_, n) in c.nodes().iter().filter(|(_, n)| n.timed_out()) {
            suspects.insert(n.id);
            let is_new = !node.suspects.contains(&n.id);
            if is_new
                && !self.is_large()
                && let Some(heard) = node.heard.last_ms(n.id)
            {
                let ms = self.local_ms(no) - heard;
                assert!(ms >= timeout - 1, "seed {seed}: {} suspects {} {ms} ms after it was heard of", me.id, n.id);
            }
        }

        // A master without majority stops accepting writes. Packets under way may have told it of other masters since.
        let is_cut = node.cut_ms.is_some() && self.is_cut(no, c);
        let cut = node.cut_ms.filter(|_| is_cut);
        if let Some(cut) = cut.filter(|_| me.is_voter() && c.is_up()) {
            let bound = (timeout.max(SHORTEST_TERM_MS) as f64 / SLOWEST) as i64 + SLACK_MS;
            assert!(now - cut <= bound, "seed {seed}: {} accepts {} ms into a minority", me.id, now - cut);
        }

        // No slot is served by two masters at one time.
        if self.takes_writes(no) && now >= self.forced_until_ms {
            // Of a slot on its way one is the owner, and the other redirects.
            let mine = self.moving.as_ref().map(|m| me.slots.without(&[m.slot].into_iter().collect()));
            let mine = mine.as_ref().unwrap_or(&me.slots);
            for (other, c) in self.alive().filter(|(other, _)| *other != no && self.takes_writes(*other)) {
                if let Some(slot) = mine.first_common(&c.myself().slots) {
                    self.dump();
                    panic!("seed {seed}: nodes {no} and {other} take writes for slot {slot} at {} ms", now - START_MS);
                }
            }
        }

        // No slot is served by two masters in one epoch, not even at different times.
        let changed = node.my_epoch != (me.id, me.epochs.agreed);
        let serves = me.is_master() && me.slot_count > 0;
        let (id, epoch) = (me.id, me.epochs.agreed);
        if serves && (changed || self.steps.is_multiple_of(64)) {
            // An operator's epochs are not agreed on.
            let slots = me.slots.without(&self.changes.moved);
            let claims = self.claims.entry(epoch).or_default();
            for (other, theirs) in claims.iter().filter(|(other, _)| *other != id) {
                let both = slots.first_common(theirs);
                assert!(both.is_none(), "seed {seed}: {id} and {other} serve slot {both:?} in epoch {epoch}");
            }
            match claims.iter_mut().find(|(other, _)| *other == id) {
                Some((_, known)) => *known = known.with(&slots),
                None => claims.push((id, slots)),
            }
        }
        let (vote, current) = (c.last_vote_epoch(), c.current_epoch());
        let node = &mut self.nodes[no];
        // Others have become masters since, whom it reaches.
        node.cut_ms = cut;
        node.last_vote_epoch = vote;
        node.current_epoch = current;
        node.my_epoch = (id, if serves { epoch } else { 0 });
        node.suspects = suspects;
    }

    /// Whether all nodes agree, see the cluster as up, and suspect nobody. Whoever did not agree before is asked first.
    pub(super) fn is_settled(&self) -> bool {
        let view = |c: &Cluster| -> Vec<Option<NodeId>> {
            (0..SLOT_COUNT as Slot).step_by(64).map(|slot| c.owner_of(slot).map(|key| c.node(key).id)).collect()
        };
        let first = self.alive().next().map(|(_, c)| view(c)).expect("somebody is alive");
        let fine = |c: &Cluster| {
            c.is_up()
                && c.nodes().iter().all(|(_, n)| n.healthy() && (n.is_replica() == n.replica_of.is_some()))
                && c.nodes().iter().all(|(_, n)| !n.flags.has(NodeFlags::NOADDR))
                && view(c) == first
        };
        self.all_are(fine) && self.roles_agree()
    }

    /// Whether this is so for all who are alive.
    fn all_are(&self, so: impl Fn(&Cluster) -> bool) -> bool {
        let is_so = |no: NodeNo| {
            let holds = self.nodes[no].cluster.as_ref().is_none_or(&so);
            if !holds {
                self.odd.set(no);
            }
            holds
        };
        is_so(self.odd.get()) && (0..self.nodes.len()).all(is_so)
    }

    pub(super) fn roles_agree(&self) -> bool {
        let mut epochs = HashSet::new();
        let mut roles: Vec<(NodeId, bool, Option<NodeId>)> = Vec::new();
        for (_, c) in self.alive() {
            let me = c.myself();
            if me.is_voter() && !epochs.insert(me.epochs.config) {
                return false;
            }
            roles.push((me.id, me.is_master(), me.replica_of.map(|m| c.node(m).id)));
        }
        roles.sort_unstable();
        // Both are in order of id; nodes that are not alive may be known, too.
        self.all_are(|c| {
            let mut known = c.nodes().iter();
            roles.iter().all(|(id, is_master, master)| {
                let seen = known.find(|(_, n)| n.id >= *id).filter(|(_, n)| n.id == *id);
                seen.is_some_and(|(_, n)| n.is_master() == *is_master && n.replica_of.map(|m| c.node(m).id) == *master)
            })
        })
    }

    pub(super) fn settle(&mut self) -> i64 {
        let timeout = self.nodes[0].config.node_timeout_ms;
        self.run_until("all views agree", 60_000 + 12 * timeout, Sim::is_settled)
    }

    pub(super) fn dump(&self) {
        for (no, c) in self.alive() {
            eprintln!("node {no} state {} epoch {}", c.is_up(), c.current_epoch());
            eprint!("{}", c.describe_durable());
            eprintln!("{}", c.describe_support());
            if c.myself().is_replica() {
                let master = c.myself().replica_of.map(|key| c.node(key));
                eprintln!("{} of {:?}", c.cant_failover_reason(), master.map(|m| (&m.ip, m.flags, m.slot_count)));
            }
            if no < 8 {
                eprintln!("{}", c.describe_nodes(false));
            }
        }
    }

    /// How long until `slot` is served by somebody else than `old`.
    pub(super) fn until_served(&mut self, slot: Slot, old: NodeNo, within_ms: i64) -> i64 {
        self.run_until("the slot is served again", within_ms, |sim| {
            sim.alive().any(|(no, c)| no != old && c.is_up() && c.owner_of(slot) == Some(c.my_key()))
        })
    }
}
