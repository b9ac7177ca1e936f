//! The subcommands of CLUSTER that change something. Arguments are parsed and replies written in
//! `server/commands/cluster.rs`; the error texts here are those of the replies, without the leading `ERR `.

use std::fmt;
use std::net::IpAddr;

use super::gossip::BLACKLIST_TTL_S;
use super::node::{NodeFlags, NodeId, NodeKey};
use super::{Action, Cluster, Env};
use crate::structs::slots::{Slot, SlotSet};

/// Why a subcommand was refused; the text of the error reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AdminError(pub(crate) String);

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AdminError {}

type Result<T = ()> = std::result::Result<T, AdminError>;

pub(super) fn refuse<T>(text: impl Into<String>) -> Result<T> {
    Err(AdminError(text.into()))
}

/// The mode of CLUSTER FAILOVER.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum FailoverMode {
    /// With the master's help: no write is lost.
    Coordinated,
    /// Without the master, but with votes.
    Force,
    /// Without master and votes.
    Takeover,
}

/// What CLUSTER SETSLOT sets. Ids are as the client wrote them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SetSlot<'a> {
    /// The slot moves to this node: clients are sent there for missing keys.
    Migrating(&'a [u8]),
    /// The slot comes from this node: clients that send ASKING are served.
    Importing(&'a [u8]),
    /// The slot does not move.
    Stable,
    /// The slot belongs to this node.
    Node(&'a [u8]),
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Cluster {
    /// The node with an id as a client writes it.
    pub(crate) fn find(&self, id: &[u8]) -> Option<NodeKey> {
        self.nodes.find(&NodeId::parse(id)?)
    }

    fn known(&self, id: &[u8], unknown: &str) -> Result<NodeKey> {
        self.find(id).ok_or_else(|| AdminError(format!("{unknown} {}", text(id))))
    }

    /// CLUSTER MEET. Meeting an address that is being met already does nothing.
    pub(crate) fn meet(&mut self, ip: &[u8], port: i64, bus_port: i64, env: &Env) -> Result {
        let address = std::str::from_utf8(ip).ok().and_then(|ip| ip.parse::<IpAddr>().ok());
        let in_range = |p: i64| u16::try_from(p).ok().filter(|p| *p != 0);
        let (Some(address), Some(port), Some(bus_port)) = (address, in_range(port), in_range(bus_port)) else {
            return refuse(format!("Invalid node address specified: {}:{port}", text(ip)));
        };
        let ip = address.to_string();
        let tls = self.config.tls_cluster;
        let under_way = self
            .nodes
            .iter()
            .any(|(_, n)| n.in_handshake() && n.ip == ip && n.client_port(tls) == port && n.bus_port == bus_port);
        if under_way {
            return Ok(());
        }
        let id = NodeId::random(&mut self.rng);
        let key = self.add_node(id, NodeFlags::HANDSHAKE | NodeFlags::MEET, env.now_ms);
        let node = &mut self.nodes[key];
        node.ip = ip;
        if tls {
            node.tls_port = port
        } else {
            node.tcp_port = port
        }
        node.bus_port = bus_port;
        Ok(())
    }

    /// CLUSTER ADDSLOTS and ADDSLOTSRANGE: the slots of all ranges become ours, or, on an error, none.
    pub(crate) fn add_slots(&mut self, ranges: &[(Slot, Slot)]) -> Result {
        let slots = self.check_slots(ranges, false)?;
        self.importing.retain(|slot, _| !slots.contains(*slot));
        self.bind_all(&slots, self.myself);
        self.slots_changed();
        Ok(())
    }

    /// CLUSTER DELSLOTS and DELSLOTSRANGE: the slots of all ranges become unowned, or, on an error, none.
    pub(crate) fn del_slots(&mut self, ranges: &[(Slot, Slot)]) -> Result {
        let slots = self.check_slots(ranges, true)?;
        self.importing.retain(|slot, _| !slots.contains(*slot));
        self.unbind_all(&slots);
        self.slots_changed();
        Ok(())
    }

    fn check_slots(&self, ranges: &[(Slot, Slot)], bound: bool) -> Result<SlotSet> {
        let mut seen = SlotSet::default();
        for (first, last) in ranges {
            let owners = &self.owner[usize::from(*first)..=usize::from(*last)];
            let other = owners.iter().position(|owner| owner.is_some() != bound).map(|at| first + at as Slot);
            let again = seen.first_within(*first, *last);
            match (other, again) {
                (Some(slot), again) if again.is_none_or(|again| slot <= again) => {
                    let what = if bound { "unassigned" } else { "busy" };
                    return refuse(format!("Slot {slot} is already {what}"));
                }
                (_, Some(slot)) => return refuse(format!("Slot {slot} specified multiple times")),
                _ => seen.insert_range(*first, *last),
            }
        }
        Ok(seen)
    }

    /// CLUSTER FLUSHSLOTS: this node gives up its slots.
    pub(crate) fn flush_slots(&mut self, has_keys: bool) -> Result {
        if has_keys {
            return refuse("DB must be empty to perform CLUSTER FLUSHSLOTS.");
        }
        self.unbind_all_of(self.myself);
        self.slots_changed();
        Ok(())
    }

    /// An operator changed which slots are ours: all nodes are to hear of it now.
    fn slots_changed(&mut self) {
        self.save_and_update();
        self.todo.announce = true;
    }

    /// CLUSTER SETSLOT.
    pub(crate) fn set_slot(&mut self, slot: Slot, what: SetSlot<'_>, env: &Env) -> Result {
        let mine = self.owner[usize::from(slot)] == Some(self.myself);
        match what {
            SetSlot::Migrating(id) => {
                if !mine {
                    return refuse(format!("I'm not the owner of hash slot {slot}"));
                }
                let target = self.slot_target(id, "I don't know about node")?;
                self.migrating.insert(slot, target);
            }
            SetSlot::Importing(id) => {
                if mine {
                    return refuse(format!("I'm already the owner of hash slot {slot}"));
                }
                let source = self.slot_target(id, "I don't know about node")?;
                self.importing.insert(slot, source);
            }
            SetSlot::Stable => {
                self.migrating.remove(&slot);
                self.importing.remove(&slot);
            }
            SetSlot::Node(id) => {
                let key = self.slot_target(id, "Unknown node")?;
                if key == self.myself && self.importing.contains_key(&slot) && self.has_granted() {
                    return refuse(
                        "This node can't take a new epoch while another one takes slots from it. Try again.",
                    );
                }
                self.assign_slot(slot, key, env)?;
            }
        }
        self.save_and_update();
        Ok(())
    }

    /// SETSLOT is for masters only; this is checked before its other arguments.
    pub(crate) fn check_set_slot_allowed(&self) -> Result {
        if self.is_replica() { refuse("Please use SETSLOT only with masters.") } else { Ok(()) }
    }

    fn slot_target(&self, id: &[u8], unknown: &str) -> Result<NodeKey> {
        let key = self.known(id, unknown)?;
        if self.nodes[key].is_replica() { refuse("Target node is not a master") } else { Ok(key) }
    }

    fn assign_slot(&mut self, slot: Slot, key: NodeKey, env: &Env) -> Result {
        let was_mine = self.owner[usize::from(slot)] == Some(self.myself);
        let has_keys = env.has_keys_in(slot);
        if was_mine && key != self.myself && has_keys {
            return refuse(format!(
                "Can't assign hashslot {slot} to a different node while I still hold keys for this hash slot."
            ));
        }
        if !has_keys {
            self.migrating.remove(&slot);
        }
        self.unbind(slot);
        self.bind(slot, key);
        if was_mine && key != self.myself && self.myself().slot_count == 0 && self.config.allow_replica_migration {
            self.log_following(key);
            self.set_master(key);
            self.save_synced();
        }
        if key == self.myself && self.importing.remove(&slot).is_some() {
            // A new epoch, so that the claim beats the old owner's. If another node takes the same epoch, the collision
            // is resolved later.
            if self.bump_epoch() {
                log::info!("configEpoch updated after importing slot {slot}");
            }
            self.todo.announce = true;
        }
        Ok(())
    }

    /// CLUSTER BUMPEPOCH. Returns whether our epoch is a new one, and the epoch.
    pub(crate) fn bump_my_epoch(&mut self) -> (bool, u64) {
        let bumped = self.bump_epoch();
        (bumped, self.myself().epochs.config)
    }

    /// CLUSTER FORGET.
    pub(crate) fn forget(&mut self, id: &[u8], env: &Env) -> Result {
        let Some(key) = self.find(id) else {
            // Another node may have forgotten it before, and told us.
            let told = NodeId::parse(id).is_some_and(|id| self.is_blacklisted(&id, env));
            return if told { Ok(()) } else { refuse(format!("Unknown node {}", text(id))) };
        };
        if key == self.myself {
            return refuse("I tried hard but I can't forget myself...");
        }
        if self.myself().replica_of == Some(key) {
            return refuse("Can't forget my master!");
        }
        let id = self.nodes[key].id;
        self.blacklist.insert(id, env.now_ms / 1000 + BLACKLIST_TTL_S);
        self.end_jobs_with(&id, env);
        self.remove_node(key);
        self.save_and_update();
        Ok(())
    }

    /// CLUSTER REPLICATE.
    pub(crate) fn replicate(&mut self, id: &[u8], has_keys: bool) -> Result {
        let key = self.known(id, "Unknown node")?;
        if key == self.myself {
            return refuse("Can't replicate myself");
        }
        if self.nodes[key].is_replica() {
            return refuse("I can only replicate a master, not a replica.");
        }
        if self.is_master() && (self.myself().slot_count != 0 || has_keys) {
            return refuse("To set a master the node must be empty and without assigned slots.");
        }
        self.set_master(key);
        self.save_and_update();
        Ok(())
    }

    /// CLUSTER REPLICATE NO ONE: a replica leaves its master, and is an empty master of a shard of its own then.
    pub(crate) fn replicate_no_one(&mut self) {
        if self.is_master() {
            return;
        }
        log::info!("Stop replication and turning myself into empty primary.");
        self.leave_master();
        self.close_all_slots();
        self.leftovers = SlotSet::default();
        self.durable = Default::default();
        self.reset_manual_failover();
        self.forget_election();
        self.save_and_update();
        self.todo.announce = true;
    }

    /// A replica becomes a master without data and slots, which is no member of its master's shard any more.
    fn leave_master(&mut self) {
        self.set_node_as_master(self.myself);
        self.nodes[self.myself].shard_id = NodeId::random(&mut self.rng);
        self.drop_channels_but_of(self.myself);
        self.actions.push(Action::UnsetReplicationMaster);
        self.actions.push(Action::FlushAllData);
    }

    /// CLUSTER REPLICAS: the replicas of a master.
    pub(crate) fn replicas_of(&self, id: &[u8]) -> Result<&[NodeKey]> {
        let key = self.known(id, "Unknown node")?;
        if self.nodes[key].is_replica() {
            return refuse("The specified node is not a master");
        }
        Ok(&self.nodes[key].replicas)
    }

    /// CLUSTER COUNT-FAILURE-REPORTS.
    pub(crate) fn count_failure_reports(&mut self, id: &[u8], env: &Env) -> Result<usize> {
        let key = self.known(id, "Unknown node")?;
        Ok(self.fail_report_count(key, env))
    }

    /// CLUSTER FAILOVER.
    pub(crate) fn failover(&mut self, mode: FailoverMode, env: &Env) -> Result {
        if self.is_master() {
            return refuse("You should send CLUSTER FAILOVER to a replica");
        }
        let Some(master) = self.myself().replica_of else {
            return refuse("I'm a replica but my master is unknown to me");
        };
        if mode == FailoverMode::Coordinated && (self.nodes[master].failed() || self.nodes[master].link.is_none()) {
            return refuse("Master is down or failed, please use CLUSTER FAILOVER FORCE");
        }
        match mode {
            FailoverMode::Takeover => {
                log::info!("Taking over the master (user request).");
                self.reset_manual_failover();
                self.bump_epoch();
                // The operator answers for it.
                let me = &mut self.nodes[self.myself];
                me.set_epoch(me.epochs.config);
                self.replace_my_master(env);
            }
            FailoverMode::Force => {
                log::info!("Forced failover user request accepted.");
                self.begin_manual_failover(true, env);
            }
            FailoverMode::Coordinated => {
                log::info!("Manual failover user request accepted.");
                self.begin_manual_failover(false, env);
            }
        }
        Ok(())
    }

    /// CLUSTER SET-CONFIG-EPOCH, for a node that is alone and fresh.
    pub(crate) fn set_config_epoch(&mut self, epoch: i64) -> Result {
        let Ok(epoch) = u64::try_from(epoch) else {
            return refuse(format!("Invalid config epoch specified: {epoch}"));
        };
        if self.nodes.len() > 1 {
            return refuse("The user can assign a config epoch only when the node does not know any other node.");
        }
        if self.myself().epochs.config != 0 {
            return refuse("Node config epoch is already non-zero");
        }
        self.nodes[self.myself].set_epoch(epoch);
        log::info!("configEpoch set to {epoch} via CLUSTER SET-CONFIG-EPOCH");
        self.current_epoch = self.current_epoch.max(epoch);
        self.save_and_update();
        Ok(())
    }

    /// CLUSTER RESET: forgets all nodes; a hard reset also takes a new id.
    pub(crate) fn reset(&mut self, hard: bool, has_keys: bool) -> Result {
        if self.is_master() && has_keys {
            return refuse("CLUSTER RESET can't be called with master nodes containing keys");
        }
        if self.is_replica() {
            self.leave_master();
        }
        self.close_all_slots();
        self.leftovers = SlotSet::default();
        self.durable = Default::default();
        self.forget_plan();
        self.reset_manual_failover();
        self.forget_election();
        self.forget_what_waits();
        self.unbind_all_of(self.myself);
        for key in self.nodes.keys() {
            if key != self.myself {
                self.remove_node(key);
            }
        }
        self.blacklist.clear();
        if hard {
            self.current_epoch = 0;
            self.last_vote_epoch = 0;
            (self.voted_epochs, self.unknown_votes_until) = Default::default();
            self.nodes[self.myself].set_epoch(0);
            log::info!("configEpoch set to 0 via CLUSTER RESET HARD");
            // Links accepted under the old id must not outlive it.
            let id = NodeId::random(&mut self.rng);
            self.nodes.rename(self.myself, id);
            self.nodes[self.myself].shard_id = NodeId::random(&mut self.rng);
            log::info!("Node hard reset, now I'm {id}");
        }
        self.save_synced();
        self.todo.state = true;
        Ok(())
    }
}
