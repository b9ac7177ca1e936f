//! The checks after every step of a simulation: the promises of the protocol, and whether the cluster has settled.

use super::*;

impl Sim {
    /// Notes since when each node cannot communicate, in both directions, with a majority of the masters it knows.
    pub(super) fn note_cuts(&mut self) {
        for no in 0..self.nodes.len() {
            let Some(c) = &self.nodes[no].cluster else { continue };
            let since = self.nodes[no].cut_ms;
            self.nodes[no].cut_ms = if self.is_cut(no, c) { Some(since.unwrap_or(self.now)) } else { None };
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

    pub(super) fn check_packet(&mut self, no: NodeNo, packet: &[u8], saved: bool) {
        if wire::packet_type(packet) == PacketType::AuthAck as u16 {
            let p = wire::decode(packet).expect("what a node sends");
            let (voter, epoch) = (p.header.sender, p.header.current_epoch);
            assert!(saved, "seed {}: {voter} votes before the vote is on disk", self.seed);
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
        let (me, large) = (c.myself(), self.nodes.len() > 50);
        let serving = (writes, me.slot_count, me.config_epoch);
        std::mem::replace(&mut self.nodes[no].serving, serving) == serving && large && !self.steps.is_multiple_of(199)
    }

    pub(super) fn check(&mut self, no: NodeNo) {
        let seed = self.seed;
        let now = self.now;
        let as_before = self.serves_as_before(no);
        let Some(c) = self.nodes[no].cluster.as_ref() else { return };
        if self.steps.is_multiple_of(256) {
            c.check_invariants();
        }
        let me = c.myself();
        let node = &self.nodes[no];
        assert!(c.last_vote_epoch() >= node.last_vote_epoch, "seed {seed}: lastVoteEpoch went back");
        assert!(c.current_epoch() >= node.current_epoch, "seed {seed}: currentEpoch went back");
        if me.is_master() && node.my_epoch.0 == me.id {
            assert!(me.config_epoch >= node.my_epoch.1, "seed {seed}: configEpoch went back");
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
            if let Some(heard) = self.heard.get(&(no, n.id)).filter(|_| is_new && self.nodes.len() <= 50) {
                assert!(
                    (now - heard) as f64 * node.rate >= timeout as f64 - 1.0,
                    "seed {seed}: {} suspects {} {} ms after it was heard of",
                    me.id,
                    n.id,
                    now - heard
                );
            }
        }

        // A master without majority stops accepting writes. Packets under way may have told it of other masters since.
        let cut = node.cut_ms.filter(|_| me.is_voter() && c.is_up() && self.is_cut(no, c));
        if let Some(cut) = cut {
            let bound = (timeout.max(SHORTEST_TERM_MS) as f64 / node.rate) as i64 + SLACK_MS;
            assert!(now - cut <= bound, "seed {seed}: {} accepts {} ms into a minority", me.id, now - cut);
        }

        // No slot is served by two masters at one time.
        if self.takes_writes(no) && now >= self.forced_until_ms {
            for (other, c) in self.alive().filter(|(other, _)| *other != no && self.takes_writes(*other)) {
                if let Some(slot) = me.slots.first_common(&c.myself().slots) {
                    self.dump();
                    panic!("seed {seed}: nodes {no} and {other} take writes for slot {slot} at {} ms", now - START_MS);
                }
            }
        }

        // No slot is served by two masters in one epoch, not even at different times.
        let changed = node.my_epoch != (me.id, me.config_epoch);
        let serves = me.is_master() && me.slot_count > 0;
        let (id, epoch) = (me.id, me.config_epoch);
        if serves && (changed || self.steps.is_multiple_of(64)) {
            let slots = me.slots.clone();
            let claims = self.claims.entry(epoch).or_default();
            for (other, theirs) in claims.iter().filter(|(other, _)| *other != id) {
                let both = slots.first_common(theirs);
                assert!(both.is_none(), "seed {seed}: {id} and {other} serve slot {both:?} in epoch {epoch}");
            }
            match claims.iter_mut().find(|(other, _)| *other == id) {
                Some((_, known)) => *known = known.iter().chain(slots.iter()).collect(),
                None => claims.push((id, slots)),
            }
        }
        let (vote, current) = (c.last_vote_epoch(), c.current_epoch());
        let node = &mut self.nodes[no];
        node.last_vote_epoch = vote;
        node.current_epoch = current;
        node.my_epoch = (id, if serves { epoch } else { 0 });
        node.suspects = suspects;
    }

    /// Whether all nodes agree, see the cluster as up, and suspect nobody.
    pub(super) fn is_settled(&self) -> bool {
        let mut views = self.alive().map(|(_, c)| {
            (0..SLOT_COUNT as Slot).step_by(64).map(|s| c.owner_of(s).map(|k| c.node(k).id)).collect::<Vec<_>>()
        });
        let first = views.next().expect("somebody is alive");
        let fine = |c: &Cluster| {
            c.is_up()
                && c.nodes().iter().all(|(_, n)| n.healthy() && (n.is_replica() == n.replica_of.is_some()))
                && c.nodes().iter().all(|(_, n)| !n.flags.has(NodeFlags::NOADDR))
        };
        self.alive().all(|(_, c)| fine(c)) && views.all(|v| v == first) && self.roles_agree()
    }

    pub(super) fn roles_agree(&self) -> bool {
        let mut epochs = HashSet::new();
        self.alive().all(|(_, c)| {
            let me = c.myself();
            let my_master = me.replica_of.map(|m| c.node(m).id);
            let distinct = !me.is_voter() || epochs.insert(me.config_epoch);
            distinct
                && self.alive().all(|(_, other)| {
                    other.find(me.id.as_bytes()).is_some_and(|key| {
                        let n = other.node(key);
                        n.is_master() == me.is_master() && n.replica_of.map(|m| other.node(m).id) == my_master
                    })
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
