//! A cluster that forms from configuration alone: nodes find each other through seeds, one of them founds the cluster, later
//! ones become replicas where some are wanted, and a node whose address has changed is found again.
//!
//! # The rules
//!
//! - Only *blank* nodes form a cluster: masters without slots and keys that know nobody who has slots or a master. And only
//!   with a name, so that they meet none of another cluster.
//! - One node may found it: the one at the first seed, in the order of their texts (of its lowest address, if that seed has
//!   several). It needs as many blank nodes as are wanted, which say that they are configured alike, and whose answers
//!   include those at a majority of the seeds. It makes a plan and asks every member, and every blank node at a seed.
//! - They accept if they are blank and the plan comes from whom they see at the first seed. Accepting binds to nothing but
//!   not to accept another founder's for a while.
//! - When all have accepted, the founder writes the plan to its disk, takes its role, and tells the members to do so. Each
//!   keeps the plan until all members have their roles, and tells those that have none; so whoever has heard of it finishes
//!   what another began, over restarts of any of them. A founder that ends before that has founded nothing.
//!
//! So two clusters cannot come out of one list of seeds: each would need the answers of a majority of them, of nodes that are
//! blank still. What that rests on is that all nodes find the same addresses behind the seeds.
//!
//! A node that comes later finds a whole cluster, and takes a place in it that is vacant: the blank nodes that all see take
//! them in the order of their ids. It stays a spare one if there is none.

mod plan;

use std::collections::{BTreeMap, BTreeSet};

use super::node::{Node, NodeFlags, NodeId, NodeKey};
use super::{Action, BUS_PORT_OFFSET, Cluster, ClusterConfig, Env};
pub(in crate::cluster) use plan::{MODULE_ID, Message, Plan};
use plan::{Status, lay_out};

/// Between attempts to find nodes through the seeds: while there is no cluster or this node has just started, when all may be
/// elsewhere; and later, while a node of it is missed.
const SEEK_MS: i64 = 1000;
const SEEK_MISSED_MS: i64 = 5000;
const JUST_STARTED_MS: i64 = 60_000;
/// Between telling the others how far we are: while something is under way, and while we can only wait. What is older than
/// two of those does not count.
const TELL_MS: i64 = 500;
const TELL_SELDOM_MS: i64 = 5000;
const FRESH_MS: i64 = 11_000;
/// How long a plan may take to be accepted by all.
const ACCEPT_MS: i64 = 10_000;
/// For how long a whole cluster must have been seen before a place in it is taken.
const LOOK_ON_MS: i64 = 2000;
/// A replica that has failed for so long has left its place.
const VACANT_MS: i64 = 60_000;
/// After this, members of a plan that are still missing are told of it less often, and those that nobody knows never.
const PATIENT_MS: i64 = 60_000;

/// A host to ask for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seed {
    /// An address, or a name that is looked up.
    pub(crate) host: String,
    pub(crate) port: u16,
    bus_port: u16,
    /// What was found last, in order.
    addresses: Vec<String>,
}

impl Seed {
    /// `host:port` or `host:port@busport`.
    fn parse(text: &str) -> Option<Seed> {
        let (address, bus_port) = match text.split_once('@') {
            Some((address, bus_port)) => (address, Some(bus_port.parse().ok()?)),
            None => (text, None),
        };
        let (host, port) = address.rsplit_once(':')?;
        let (host, port) = (host.trim_matches(['[', ']']), port.parse::<u16>().ok().filter(|port| *port != 0)?);
        let bus_port = bus_port.or_else(|| port.checked_add(BUS_PORT_OFFSET))?;
        (!host.is_empty()).then(|| Seed { host: host.to_owned(), port, bus_port, addresses: Vec::new() })
    }
}

/// What another node said of itself, and when.
#[derive(Clone, Debug)]
struct Told {
    status: Status,
    at_ms: i64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Forming {
    seeds: Vec<Seed>,
    seek_ms: i64,
    tell_ms: i64,
    /// Addresses at which we met ourselves.
    own: BTreeSet<(String, u16)>,
    told: BTreeMap<NodeId, Told>,
    /// The founder: its plan that is to be accepted, since when, and who has accepted it of those who are to.
    proposal: Option<(Plan, i64)>,
    electors: BTreeSet<NodeId>,
    accepted: BTreeSet<NodeId>,
    /// Whose plan we accepted last, and when.
    accepted_of: Option<(NodeId, i64)>,
    /// A plan that is being carried out, and since when.
    plan: Option<Plan>,
    plan_ms: i64,
    /// Since when a whole cluster without a place of ours has been seen; 0: it is not.
    whole_ms: i64,
}

impl ClusterConfig {
    /// Whether the node forms a cluster with others or joins one.
    fn forms(&self) -> bool {
        self.form_masters > 0 && !self.names.is_empty() && !self.seeds.is_empty()
    }

    /// How many nodes a new cluster has.
    fn wanted(&self) -> usize {
        usize::from(self.form_masters) * (1 + usize::from(self.form_replicas))
    }
}

impl Cluster {
    /// The seeds changed, or are read for the first time.
    pub(super) fn read_seeds(&mut self) {
        let mut texts = self.config.seeds.clone();
        texts.sort();
        texts.dedup();
        self.forming.seeds = texts.iter().filter_map(|text| Seed::parse(text)).collect();
        self.forming.seek_ms = 0;
        if self.forming.seeds.len() < texts.len() {
            log::warn!("A seed of cluster-seeds is not of the form host:port or host:port@bus-port: it is left out.");
        }
        if self.config.form_masters > 0 && self.config.names.is_empty() && !texts.is_empty() {
            log::warn!("This node does not form a cluster: that takes a cluster-name, too.");
        }
        let announces = !self.config.announce_ip.is_empty() || self.config.announce_bus_port != 0;
        if self.config.forms() && announces && !self.has_place() {
            log::info!("This node announces an address: cluster-seeds has to name that one, or no cluster forms.");
        }
    }

    /// The seeds, whose hosts the caller looks up for [`Action::SeekSeeds`].
    pub(crate) fn seeds(&self) -> &[Seed] {
        &self.forming.seeds
    }

    /// Does what is due.
    pub(super) fn form(&mut self, env: &Env) {
        if self.forming.seeds.is_empty() && self.forming.plan.is_none() {
            return;
        }
        self.seek_seeds(env);
        if !self.config.forms() || env.now_ms < self.forming.tell_ms {
            return;
        }
        if self.forming.plan_ms == 0 {
            self.forming.plan_ms = env.now_ms;
        }
        let is_late = self.forming.plan.is_some() && env.now_ms - self.forming.plan_ms > PATIENT_MS;
        let is_spare = self.forming.whole_ms != 0 && env.now_ms - self.forming.whole_ms > 4 * LOOK_ON_MS;
        self.forming.tell_ms = env.now_ms + if is_late || is_spare { TELL_SELDOM_MS } else { TELL_MS };
        if self.has_place() && self.forming.plan.is_none() {
            return;
        }
        self.tell_status(None, env);
        if self.forming.plan.is_some() {
            self.finish_plan(env);
        } else if self.is_blank(env) {
            self.found(env);
        } else {
            self.join(env);
        }
    }

    fn has_place(&self) -> bool {
        self.is_replica() || self.myself().slot_count > 0
    }

    fn all_slots_owned(&self) -> bool {
        self.owner.iter().all(Option::is_some)
    }

    // ---- seeds ----

    fn seek_seeds(&mut self, env: &Env) {
        if env.now_ms < self.forming.seek_ms {
            return;
        }
        let others = || self.nodes.iter().filter(|(key, n)| *key != self.myself && !n.in_handshake());
        let is_new = others().next().is_none() || (self.config.forms() && !self.has_place() && self.size == 0);
        let hurries = is_new || env.now_ms - self.started_ms.unwrap_or(env.now_ms) < JUST_STARTED_MS;
        self.forming.seek_ms = env.now_ms + if hurries { SEEK_MS } else { SEEK_MISSED_MS };
        let is_spare = self.config.forms() && !self.has_place();
        let is_missed =
            |(key, n): (NodeKey, &Node)| !n.healthy() || n.flags.has(NodeFlags::NOADDR) || !self.stands(key).0;
        if is_new || is_spare || others().any(is_missed) {
            self.actions.push(Action::SeekSeeds);
        }
    }

    /// The addresses of a seed were found: whoever is there is met, unless we know him. Of a host with addresses of both kinds
    /// those of IPv4 count, so that it is not two places.
    pub(crate) fn on_seed(&mut self, at: usize, mut addresses: Vec<String>, env: &Env) {
        if addresses.iter().any(|ip| !ip.contains(':')) {
            addresses.retain(|ip| !ip.contains(':'));
        }
        addresses.sort();
        addresses.dedup();
        let Some(seed) = self.forming.seeds.get_mut(at) else { return };
        seed.addresses.clone_from(&addresses);
        let (port, bus_port) = (seed.port, seed.bus_port);
        for ip in addresses {
            if self.holder(&ip, bus_port).is_none() {
                // It is not met twice at a time; and it is an address.
                let _ = self.meet(ip.as_bytes(), i64::from(port), i64::from(bus_port), env);
            }
        }
    }

    /// We were told to meet an address, and met ourselves.
    pub(super) fn note_own_address(&mut self, key: NodeKey) {
        if !self.forming.seeds.is_empty() {
            let node = &self.nodes[key];
            self.forming.own.insert((node.ip.clone(), node.bus_port));
        }
    }

    /// Who is at an address, as far as we know.
    fn holder(&self, ip: &str, bus_port: u16) -> Option<NodeId> {
        let me = self.myself();
        if self.forming.own.contains(&(ip.to_owned(), bus_port)) || (me.ip == ip && me.bus_port == bus_port) {
            return Some(me.id);
        }
        let is_there = |n: &Node| !n.in_handshake() && n.ip == ip && n.bus_port == bus_port;
        self.nodes.iter().find(|(key, n)| *key != self.myself && is_there(n)).map(|(_, n)| n.id)
    }

    /// Who may found the cluster.
    fn first_at_seeds(&self) -> Option<NodeId> {
        let seed = self.forming.seeds.first()?;
        self.holder(seed.addresses.first()?, seed.bus_port)
    }

    /// The nodes at the seeds, and how many places for such there are.
    fn at_seeds(&self) -> (BTreeSet<NodeId>, usize) {
        let seeds = || self.forming.seeds.iter();
        let places: BTreeSet<(&str, u16)> =
            seeds().flat_map(|s| s.addresses.iter().map(|ip| (ip.as_str(), s.bus_port))).collect();
        let unknown = seeds().filter(|s| s.addresses.is_empty()).count();
        let holders = places.iter().filter_map(|(ip, bus_port)| self.holder(ip, *bus_port)).collect();
        (holders, places.len() + unknown)
    }

    // ---- telling ----

    fn tell_forming(&mut self, to: NodeKey, message: &Message, env: &Env) {
        self.send_module(&[to], MODULE_ID, message.encode(), env);
    }

    fn tell_nodes(&mut self, ids: &[NodeId], message: &Message, env: &Env) {
        let keys: Vec<NodeKey> = ids.iter().filter_map(|id| self.nodes.find(id)).collect();
        self.send_module(&keys, MODULE_ID, message.encode(), env);
    }

    /// Tells one node, or all, what we are.
    fn tell_status(&mut self, to: Option<NodeKey>, env: &Env) {
        let status = Status {
            masters: self.config.form_masters,
            replicas: self.config.form_replicas,
            is_blank: !self.has_place() && !env.has_keys,
            zone: self.config.zone.clone(),
        };
        let keys: Vec<NodeKey> = to.map_or_else(|| self.reachable().map(|(key, _)| key).collect(), |key| vec![key]);
        self.send_module(&keys, MODULE_ID, Message::Status(status).encode(), env);
    }

    pub(super) fn on_forming_message(&mut self, sender: NodeKey, message: Message, env: &Env) {
        if !self.config.forms() || self.nodes[sender].in_handshake() {
            return;
        }
        let id = self.nodes[sender].id;
        match message {
            Message::Status(status) => {
                let asks = status.is_blank && self.has_place() && self.forming.plan.is_none();
                self.forming.told.insert(id, Told { status, at_ms: env.now_ms });
                if asks {
                    self.tell_status(Some(sender), env);
                }
            }
            Message::Propose(plan) => {
                if let Err(why) = self.may_accept(&plan, id, env) {
                    log::debug!("Not accepting the plan of node {id} for a new cluster: {why}");
                    return;
                }
                self.forming.accepted_of = Some((id, env.now_ms));
                self.tell_forming(sender, &Message::Accept(plan.run), env);
            }
            Message::Accept(run) => {
                if self.forming.proposal.as_ref().is_some_and(|(plan, _)| plan.run == run) {
                    self.forming.accepted.insert(id);
                    self.carry_out_if_accepted(env);
                }
            }
            Message::Carry(plan) => {
                if self.has_place() {
                    self.tell_status(Some(sender), env);
                } else if self.forming.plan.is_none() && self.may_carry_out(&plan, env) {
                    self.carry_out(plan, env);
                }
            }
        }
    }

    pub(super) fn forget_forming(&mut self, key: NodeKey) {
        self.forming.told.remove(&self.nodes[key].id);
    }

    pub(super) fn forget_plan(&mut self) {
        (self.forming.plan, self.forming.proposal, self.forming.whole_ms) = (None, None, 0);
        self.forming.told.clear();
    }

    // ---- founding ----

    /// Whether nothing would be lost, here or elsewhere, if this node became part of a new cluster.
    fn is_blank(&self, env: &Env) -> bool {
        let is_of_cluster = |n: &Node| n.slot_count > 0 || n.is_replica();
        !self.has_place() && !env.has_keys && !self.nodes.iter().any(|(_, n)| is_of_cluster(n))
    }

    /// Blank nodes that are configured as we are, and would answer, ourselves included; those at seeds first.
    fn candidates(&self, env: &Env) -> Vec<NodeId> {
        let is_one = |(key, n): &(NodeKey, &Node)| {
            let alike = |told: &Told| {
                told.status.is_blank
                    && told.status.masters == self.config.form_masters
                    && told.status.replicas == self.config.form_replicas
                    && env.now_ms - told.at_ms <= FRESH_MS
            };
            *key == self.myself || (n.healthy() && n.link.is_some() && self.forming.told.get(&n.id).is_some_and(alike))
        };
        let (holders, _) = self.at_seeds();
        let mut found: Vec<NodeId> = self.nodes.iter().filter(is_one).map(|(_, n)| n.id).collect();
        found.sort_by_key(|id| (*id != self.myself().id, !holders.contains(id), *id));
        found
    }

    fn zone_of(&self, id: &NodeId) -> String {
        let node = self.nodes.find(id).map(|key| &self.nodes[key]);
        let told = match *id == self.myself().id {
            true => self.config.zone.clone(),
            false => self.forming.told.get(id).map_or(String::new(), |told| told.status.zone.clone()),
        };
        if told.is_empty() { node.map_or(String::new(), |n| n.ip.clone()) } else { told }
    }

    /// The node at the first seed makes a plan as soon as all that it takes are there.
    fn found(&mut self, env: &Env) {
        if self.first_at_seeds() != Some(self.myself().id) {
            return;
        }
        if self.forming.proposal.as_ref().is_none_or(|(_, since_ms)| env.now_ms - since_ms > ACCEPT_MS) {
            let found = self.candidates(env);
            let (holders, places) = self.at_seeds();
            let at_seeds: Vec<NodeId> = found.iter().copied().filter(|id| holders.contains(id)).collect();
            if found.len() < self.config.wanted() || 2 * at_seeds.len() <= places {
                self.forming.proposal = None;
                return;
            }
            let chosen: Vec<_> = found[..self.config.wanted()].iter().map(|id| (*id, self.zone_of(id))).collect();
            let masters = self.config.form_masters;
            let members = lay_out(&chosen, usize::from(masters));
            let plan = Plan { founder: self.myself().id, run: self.rng.u64(..), masters, members };
            self.forming.electors = plan.members.iter().copied().chain(at_seeds).collect();
            self.forming.accepted = BTreeSet::from([plan.founder]);
            self.forming.proposal = Some((plan, env.now_ms));
        }
        let Some((plan, _)) = self.forming.proposal.clone() else { return };
        let waiting: Vec<NodeId> = self.forming.electors.difference(&self.forming.accepted).copied().collect();
        self.tell_nodes(&waiting, &Message::Propose(plan), env);
        self.carry_out_if_accepted(env);
    }

    fn may_accept(&self, plan: &Plan, sender: NodeId, env: &Env) -> Result<(), &'static str> {
        let is_bound = |(founder, at_ms): (NodeId, i64)| founder != sender && env.now_ms - at_ms <= ACCEPT_MS;
        if !self.is_blank(env) || self.forming.plan.is_some() {
            Err("this node is not blank")
        } else if plan.founder != sender || self.first_at_seeds() != Some(sender) {
            Err("it is not at the first seed")
        } else if plan.masters != self.config.form_masters || plan.members.len() != self.config.wanted() {
            Err("it wants another number of nodes")
        } else if self.forming.accepted_of.is_some_and(is_bound) {
            Err("that of another node is accepted")
        } else {
            Ok(())
        }
    }

    fn carry_out_if_accepted(&mut self, env: &Env) {
        // After that time those who accepted it first may accept another node's.
        let is_late = self.forming.proposal.as_ref().is_none_or(|(_, since_ms)| env.now_ms - since_ms > ACCEPT_MS);
        if is_late || !self.forming.electors.is_subset(&self.forming.accepted) || !self.is_blank(env) {
            return;
        }
        if let Some((plan, _)) = self.forming.proposal.take() {
            self.carry_out(plan, env);
        }
    }

    // ---- carrying out a plan ----

    /// Whether we are to do as the plan says, of which others have heard before.
    fn may_carry_out(&self, plan: &Plan, env: &Env) -> bool {
        let is_of_it = |n: &Node| n.slot_count == 0 || plan.place_of(&n.id).is_some();
        let is_ours = plan.masters == self.config.form_masters && plan.members.len() == self.config.wanted();
        let is_empty = !self.has_place() && !env.has_keys;
        is_ours && is_empty && self.nodes.iter().all(|(_, n)| is_of_it(n)) && plan.place_of(&self.myself().id).is_some()
    }

    /// Takes our role in the plan. The slots of all masters are bound, so that a replica knows what its master has even if
    /// that is gone before it could say so.
    fn carry_out(&mut self, plan: Plan, env: &Env) {
        log::info!(
            "Forming a cluster of {} masters and {} replicas, as node {} planned.",
            plan.masters,
            plan.members.len() - usize::from(plan.masters),
            plan.founder
        );
        for at in 0..usize::from(plan.masters) {
            let Some(key) = self.nodes.find(&plan.members[at]) else { continue };
            for slot in plan.slots_of(at) {
                if self.owner[usize::from(slot)].is_none() {
                    self.bind(slot, key);
                }
            }
        }
        // The lease is what the others grant from now on: they may have missed us before.
        self.lease_end_ms = 0;
        self.forming.plan = Some(plan);
        self.forming.plan_ms = env.now_ms;
        self.forming.told.clear();
        self.save_synced();
        self.todo.state = true;
        self.todo.announce = true;
        self.forming.tell_ms = 0;
        self.finish_plan(env);
    }

    /// Follows our master, if that is our role and it is known, or whoever was elected in our place before we could take it; and tells
    /// members that have not heard of the plan, until all have their roles.
    fn finish_plan(&mut self, env: &Env) {
        let Some(plan) = self.forming.plan.clone() else { return };
        let me = self.myself().id;
        let place = plan.place_of(&me);
        let master = place.and_then(|at| plan.master_of(at)).and_then(|id| self.nodes.find(&id));
        let slot = place.filter(|at| *at < usize::from(plan.masters)).and_then(|at| plan.slots_of(at).next());
        let heir = slot.and_then(|slot| self.owner[usize::from(slot)]).filter(|owner| *owner != self.myself);
        let known = master.or(heir).filter(|_| !self.has_place() && !env.has_keys);
        if let Some(master) = known.filter(|key| self.nodes[*key].is_master()) {
            self.set_master(master);
            self.save_synced();
            self.todo.state = true;
        }
        let is_late = env.now_ms - self.forming.plan_ms > PATIENT_MS;
        let has_role = |id: &&NodeId| {
            let says_so = self.forming.told.get(id).is_some_and(|told| !told.status.is_blank);
            **id == me || says_so || (is_late && self.nodes.find(id).is_none())
        };
        let missing: Vec<NodeId> = plan.members.iter().filter(|id| !has_role(id)).copied().collect();
        self.tell_nodes(&missing, &Message::Carry(plan), env);
        // Who came too late finds its part done by another.
        let is_done_by_others = is_late && !self.has_place() && self.all_slots_owned();
        if (missing.is_empty() && self.has_place()) || is_done_by_others {
            log::info!("The cluster is formed.");
            // The others are to hear that we have our role.
            self.tell_status(None, env);
            self.forming.plan = None;
            self.save_soon();
        }
    }

    // ---- coming later ----

    /// Takes a vacant place in a cluster that is there, if there is one for us.
    fn join(&mut self, env: &Env) {
        // Somebody becomes known; a seed where nobody answers is met again and again.
        let is_new = |(key, n): (NodeKey, &Node)| {
            n.in_handshake() && self.stands(key).0 && env.now_ms - n.created_ms < LOOK_ON_MS
        };
        if env.has_keys || !self.all_slots_owned() || self.nodes.iter().any(is_new) {
            self.forming.whole_ms = 0;
            return;
        }
        if self.forming.whole_ms == 0 {
            self.forming.whole_ms = env.now_ms;
        }
        if env.now_ms - self.forming.whole_ms < LOOK_ON_MS {
            return;
        }
        let Some(master) = self.vacancy(env) else { return };
        let node = &self.nodes[master];
        log::info!("Joining the cluster as a replica of {} ({}).", node.id, node.human_name);
        self.set_master(master);
        self.save_and_update();
    }

    /// The master that we are to follow. Every blank node comes to the same, as long as all see the same.
    fn vacancy(&self, env: &Env) -> Option<NodeKey> {
        let is_there = |key: &NodeKey| {
            let n = &self.nodes[*key];
            !n.failed() || env.now_ms - n.fail_time_ms < VACANT_MS
        };
        let mut shards: Vec<(NodeKey, Vec<String>)> = Vec::new();
        for (key, n) in self.nodes.iter().filter(|(_, n)| n.is_voter() && n.healthy()) {
            let members = n.replicas.iter().filter(|replica| is_there(replica)).chain([&key]);
            shards.push((key, members.map(|key| self.zone_of(&self.nodes[*key].id)).collect()));
        }
        let is_spare = |id: &NodeId, n: &Node| {
            let said = self.forming.told.get(id).filter(|told| env.now_ms - told.at_ms <= FRESH_MS);
            n.is_master() && n.slot_count == 0 && n.healthy() && said.is_some_and(|told| told.status.is_blank)
        };
        let spares = self.nodes.iter().filter(|(key, n)| *key == self.myself || is_spare(&n.id, n)).map(|(_, n)| n.id);
        let mut spares: Vec<NodeId> = spares.collect();
        spares.sort();
        for spare in spares {
            let zone = self.zone_of(&spare);
            let vacant = shards.iter_mut().filter(|(_, zones)| zones.len() <= usize::from(self.config.form_replicas));
            // Where most are missing, and none is where the spare one is.
            let best = vacant.min_by_key(|(key, zones)| {
                (zones.len(), zones.iter().filter(|z| **z == zone).count(), self.nodes[*key].id)
            })?;
            if spare == self.myself().id {
                return Some(best.0);
            }
            best.1.push(zone);
        }
        None
    }

    // ---- what is shown and kept ----

    /// The variable of `nodes.conf`, with a blank before it; none unless a plan is being carried out.
    pub(super) fn forming_vars(&self) -> String {
        self.forming.plan.as_ref().map_or(String::new(), |plan| format!(" formingPlan {}", plan.print()))
    }

    /// Reads a variable of that kind; whether it is one, and `None` if it is broken.
    pub(super) fn read_forming_var(&mut self, name: &str, value: &str) -> Option<bool> {
        if name != "formingPlan" {
            return Some(false);
        }
        self.forming.plan = Some(Plan::parse(value)?);
        Some(true)
    }

    /// The line of CLUSTER INFO.
    pub(super) fn describe_forming(&self, now_ms: i64) -> String {
        if !self.config.forms() {
            return String::new();
        }
        let state = match (&self.forming.plan, self.has_place()) {
            (Some(_), _) => "forming".to_owned(),
            (None, true) => "done".to_owned(),
            (None, false) if self.size > 0 => "spare".to_owned(),
            (None, false) => {
                let is_blank = |told: &&Told| told.status.is_blank && now_ms - told.at_ms <= FRESH_MS;
                let seen = 1 + self.forming.told.values().filter(is_blank).count();
                format!("waiting,seen={seen},wanted={}", self.config.wanted())
            }
        };
        format!("cluster_forming:{state}\r\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_at_a_seed_is_met_once() {
        let seeds = vec!["a.example:7000".to_owned(), "b.example:7001".to_owned()];
        let mut c = Cluster::new(ClusterConfig { seeds, ..ClusterConfig::default() }, 1, 1000);
        let env = Env::at(1000);
        let met = |c: &Cluster| c.nodes.iter().filter(|(_, n)| n.in_handshake()).count();
        for _ in 0..2 {
            c.on_seed(0, vec!["::1".into(), "10.0.0.2".into(), "10.0.0.1".into()], &env);
            assert_eq!((met(&c), c.at_seeds().1), (2, 3), "two addresses, and a seed that is not found yet");
        }
        // One of them is we.
        let ourselves = c.nodes.iter().find(|(_, n)| n.ip == "10.0.0.1").map(|(key, _)| key).unwrap();
        c.note_own_address(ourselves);
        c.remove_node(ourselves);
        c.on_seed(0, vec!["10.0.0.1".into()], &env);
        assert_eq!((met(&c), c.first_at_seeds()), (1, Some(c.myself().id)));
        c.on_seed(2, vec!["10.0.0.9".into()], &env);
        assert_eq!(met(&c), 1, "there is no such seed");
    }

    /// Those who accepted it are bound to it no longer.
    #[test]
    fn an_answer_that_comes_late_founds_nothing() {
        for (late_ms, founds) in [(ACCEPT_MS, true), (ACCEPT_MS + 1, false)] {
            let mut c = Cluster::new(ClusterConfig::default(), 1, 1000);
            let me = c.myself().id;
            let plan = Plan { founder: me, run: 1, masters: 1, members: vec![me] };
            c.forming.proposal = Some((plan, 1000));
            c.carry_out_if_accepted(&Env::at(1000 + late_ms));
            assert_eq!(c.myself().slot_count > 0, founds);
        }
    }

    #[test]
    fn seeds_are_read() {
        let seed = |text: &str| Seed::parse(text).map(|s| (s.host, s.port, s.bus_port));
        assert_eq!(seed("redis-0.redis:6379"), Some(("redis-0.redis".into(), 6379, 16379)));
        assert_eq!(seed("10.0.0.1:7000@7100"), Some(("10.0.0.1".into(), 7000, 7100)));
        assert_eq!(seed("[::1]:7000"), Some(("::1".into(), 7000, 17000)));
        for wrong in ["", "host", ":7000", "host:0", "host:65000", "host:x", "host:7000@x"] {
            assert_eq!(seed(wrong), None, "{wrong}");
        }
    }
}
