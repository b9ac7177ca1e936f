//! Which node owns which slot, and which replica follows which master.
//!
//! Owns the binding between slots and nodes, in both directions, and the rule that decides between claims: the greater
//! config epoch wins. A master that loses its last slot follows the winner.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::node::{Epochs, NodeFlags, NodeId, NodeKey};
use super::wire::{Body, Header};
use super::{Action, Cluster, Env};
use crate::structs::slots::{SLOT_COUNT, Slot, SlotSet};

impl Cluster {
    // ---- binding ----

    /// Gives an unbound slot to a node. Panics if it is bound.
    pub(super) fn bind(&mut self, slot: Slot, key: NodeKey) {
        self.set_owner(slot, key);
        self.nodes[key].slots.insert(slot);
        self.has_gained(key, 1);
    }

    /// Gives these slots, which nobody has, to a node.
    pub(super) fn bind_all(&mut self, slots: &SlotSet, key: NodeKey) {
        slots.iter().for_each(|slot| self.set_owner(slot, key));
        self.nodes[key].slots = self.nodes[key].slots.with(slots);
        self.has_gained(key, slots.len());
    }

    fn set_owner(&mut self, slot: Slot, key: NodeKey) {
        assert!(self.owner[usize::from(slot)].is_none(), "slot {slot} is bound");
        self.owner[usize::from(slot)] = Some(key);
        self.slot_stats.reset(slot);
    }

    /// A node has so many slots more.
    fn has_gained(&mut self, key: NodeKey, slots: usize) {
        self.owner_changes += slots as u64;
        self.nodes[key].slot_count += slots;
        if slots == 0 || self.nodes[key].slot_count > slots {
            return;
        }
        self.became_other(key);
        // A master's first slot makes it a target of replica migration, if there are replicas at all.
        if self.nodes.iter().any(|(_, n)| n.is_master() && !n.replicas.is_empty()) {
            self.nodes[key].flags.set(NodeFlags::MIGRATE_TO);
        }
    }

    /// A node is master, replica or a master with slots now, which it was not: when to look at it next was another matter.
    fn became_other(&mut self, key: NodeKey) {
        if key == self.myself { self.nodes.look_at_all() } else { self.nodes.look_at(key, 0) }
    }

    /// Takes a slot from its owner, if it has one.
    pub(super) fn unbind(&mut self, slot: Slot) {
        if self.owner[usize::from(slot)].is_some() {
            self.unbind_all(&SlotSet::of_range(slot, slot));
        }
    }

    /// Takes these slots, which somebody has each, from their owners.
    pub(super) fn unbind_all(&mut self, slots: &SlotSet) {
        if slots.is_empty() {
            return;
        }
        let mut owners: Vec<NodeKey> = Vec::new();
        for slot in slots.iter() {
            let Some(key) = self.owner[usize::from(slot)].take() else { continue };
            self.slot_stats.reset(slot);
            self.nodes[key].slot_count -= 1;
            if owners.last() != Some(&key) {
                owners.push(key);
            }
        }
        owners.sort_unstable();
        owners.dedup();
        for key in owners {
            self.nodes[key].slots = self.nodes[key].slots.without(slots);
        }
        self.owner_changes += slots.len() as u64;
        self.unclaimed = self.unclaimed.without(slots);
        let dropped = self.dropped_channels.get_or_insert_with(SlotSet::default);
        *dropped = dropped.with(slots);
    }

    /// Takes all its slots from a node.
    pub(super) fn unbind_all_of(&mut self, key: NodeKey) {
        self.unbind_all(&self.nodes[key].slots.clone());
    }

    /// Gives these slots, which somebody has each, to a node.
    pub(super) fn rebind_all(&mut self, slots: &SlotSet, key: NodeKey) {
        self.unbind_all(slots);
        self.bind_all(slots, key);
    }

    /// The owner of a slot, unless it has stopped claiming it.
    pub(super) fn claimed_owner(&self, slot: Slot) -> Option<NodeKey> {
        self.owner[usize::from(slot)].filter(|_| !self.unclaimed.contains(slot))
    }

    // ---- what a PING says of its sender ----

    /// Whether a packet says of a master what it was before it was elected in its shard: it comes late, by another link than what
    /// we know came by. Who took its place in turn has a greater epoch. An answer to what we sent since is no older than that
    /// (`answered_ms`: when the ping was sent that this answers).
    pub(super) fn is_from_before_election(&self, key: NodeKey, header: &Header, answered_ms: Option<i64>) -> bool {
        let n = &self.nodes[key];
        let is_older = n.is_voter() && header.epochs.config < n.epochs.agreed && answered_ms <= Some(n.epoch_ms);
        let master = header.replica_of.filter(|_| is_older).and_then(|id| self.nodes.find(&id));
        master.is_some_and(|master| self.nodes[master].shard_id == n.shard_id)
    }

    /// Processes the sender's role: master, or replica of a node.
    pub(super) fn take_in_role(&mut self, key: NodeKey, header: &Header, env: &Env) {
        let Some(master_id) = header.replica_of else {
            self.set_node_as_master(key);
            return;
        };
        if self.nodes[key].is_master() || !self.nodes[key].is_replica() {
            let (had_slots, shard) = (self.nodes[key].slot_count > 0, self.nodes[key].shard_id);
            self.unbind_all_of(key);
            // Whoever took its place may not have told us yet. It says of its master what an UPDATE would, without which nobody
            // would seem to serve the slots meanwhile.
            if let Some(heir) = self.nodes.find(&master_id).filter(|m| had_slots && ![self.myself, key].contains(m)) {
                if self.nodes[heir].is_replica() {
                    self.set_shard(heir, shard);
                }
                self.on_update(header, master_id, header.epochs, &header.slots, env);
            }
            let flags = &mut self.nodes[key].flags;
            flags.clear(NodeFlags::MASTER | NodeFlags::MIGRATE_TO);
            flags.set(NodeFlags::REPLICA);
            self.became_other(key);
            self.save_later_and_update();
        }
        if let Some(master) = self.nodes.find(&master_id).filter(|m| *m != key)
            && self.nodes[key].replica_of != Some(master)
        {
            self.attach_replica(key, master);
            let shard = self.nodes[master].shard_id;
            self.set_shard(key, shard);
            self.save_later();
            if self.myself().replica_of == Some(key) {
                self.follow_grandmaster();
            }
        }
    }

    pub(super) fn set_node_as_master(&mut self, key: NodeKey) {
        if self.nodes[key].is_master() {
            return;
        }
        if self.nodes[key].replica_of.is_some() {
            self.detach_replica(key);
            if key != self.myself {
                self.nodes[key].flags.set(NodeFlags::MIGRATE_TO);
            }
        }
        let flags = &mut self.nodes[key].flags;
        flags.clear(NodeFlags::REPLICA);
        flags.set(NodeFlags::MASTER);
        self.became_other(key);
        self.save_later_and_update();
    }

    fn attach_replica(&mut self, key: NodeKey, master: NodeKey) {
        self.detach_replica(key);
        self.nodes[key].replica_of = Some(master);
        // In the order of ids, so that all nodes list them alike.
        let id = self.nodes[key].id;
        let at = self.nodes[master].replicas.partition_point(|r| self.nodes[*r].id < id);
        self.nodes[master].replicas.insert(at, key);
        self.nodes[master].flags.set(NodeFlags::MIGRATE_TO);
    }

    fn detach_replica(&mut self, key: NodeKey) {
        if let Some(old) = self.nodes[key].replica_of.take() {
            let old = &mut self.nodes[old];
            old.replicas.retain(|r| *r != key);
            if old.replicas.is_empty() {
                old.flags.clear(NodeFlags::MIGRATE_TO);
            }
        }
    }

    /// The master at the end of the chain of `replica_of` (there are chains while news spreads).
    pub(super) fn top_master(&self, mut key: NodeKey) -> NodeKey {
        for _ in 0..self.nodes.len() {
            match self.nodes[key].replica_of {
                Some(master) => key = master,
                None => break,
            }
        }
        key
    }

    pub(super) fn set_shard(&mut self, key: NodeKey, shard: NodeId) {
        if self.nodes[key].shard_id != shard {
            self.nodes[key].shard_id = shard;
            self.save_later();
        }
        if self.myself().replica_of == Some(key) && self.myself().shard_id != shard {
            self.leave_durable_shard();
            self.nodes[self.myself].shard_id = shard;
            self.save_synced();
        }
    }

    /// Compares the slots that the sender claims, or says its master has, with those we know. If they differ, one of us
    /// is out of date.
    pub(super) fn take_in_slots(&mut self, key: NodeKey, header: &Header, env: &Env) {
        let node = &self.nodes[key];
        let speaks_for = if node.is_master() { Some(key) } else { node.replica_of };
        let Some(owner) = speaks_for else { return };
        if self.nodes[owner].slots == header.slots {
            return;
        }
        if self.nodes[key].is_master() {
            self.take_in_claim(key, header.epochs, &header.slots, env);
        }
        // Another node owns a slot by a greater epoch: tell the sender. One such owner at a time is enough; the
        // sender's next packet brings up the next.
        if let Some(owner) = self.newer_owner(key, header) {
            log::debug!(
                "Node {} has old slots configuration, sending an UPDATE message about {}",
                self.nodes[key].id,
                self.nodes[owner].id
            );
            self.send_update(key, owner, env);
        }
    }

    /// How the claim of a slot's owner compares with one by these epochs that another node makes, for itself or its master. In one
    /// shard mostly an election gives slots to another node, which an epoch that a master took by itself must not beat: there the
    /// agreed epochs count; see [`super::node::Epochs`]. Nor must it beat another shard that may have a slot from who was elected.
    pub(super) fn compare_claims(&self, owner: NodeKey, claimant: NodeKey, epochs: Epochs) -> Ordering {
        let is_of_shard = self.nodes[owner].shard_id == self.nodes[claimant].shard_id;
        let counted = |key: NodeKey, epochs: Epochs, other: Epochs| {
            let is_older = epochs.are_own() && self.is_later_than_heir(key, epochs, other);
            if is_of_shard || is_older { epochs.agreed } else { epochs.config }
        };
        let owned = self.nodes[owner].epochs;
        counted(owner, owned, epochs).cmp(&counted(claimant, epochs, owned))
    }

    /// Whether these other epochs are later than somebody else's in this node's shard, which are later than the node's agreed one.
    fn is_later_than_heir(&self, key: NodeKey, epochs: Epochs, other: Epochs) -> bool {
        let n = &self.nodes[key];
        let heirs = self.nodes.iter().filter(|(heir, h)| *heir != key && h.is_master() && h.shard_id == n.shard_id);
        let mut all = heirs.map(|(_, heir)| heir.epochs.agreed).chain([n.heir_epoch]);
        all.any(|heir| epochs.agreed < heir && heir < other.config)
    }

    /// A master's agreed epoch is later than it was. It is the heir of all of its shard that have a lesser one, and stays that if it
    /// goes to another shard.
    pub(super) fn note_heir(&mut self, heir: NodeKey) {
        let (shard, epoch) = (self.nodes[heir].shard_id, self.nodes[heir].epochs.agreed);
        self.nodes.for_each_mut(|n| {
            if n.shard_id == shard && n.epochs.agreed < epoch {
                n.heir_epoch = n.heir_epoch.max(epoch);
            }
        });
    }

    /// Those who own some of these slots and have not stopped claiming them, each with the first of these that it owns; in the order
    /// of those.
    pub(super) fn claimed_owners(&self, slots: &SlotSet) -> impl Iterator<Item = (Slot, NodeKey)> {
        let mut left = slots.without(&self.unclaimed);
        let mut from = 0;
        std::iter::from_fn(move || {
            loop {
                let slot = left.first_within(from, SLOT_COUNT as Slot - 1)?;
                from = slot + 1;
                if let Some(owner) = self.owner[usize::from(slot)] {
                    left.remove_all(&self.nodes[owner].slots);
                    return Some((slot, owner));
                }
            }
        })
    }

    /// Who owns, by a greater epoch, a slot that the sender claims for itself or its master.
    fn newer_owner(&self, key: NodeKey, header: &Header) -> Option<NodeKey> {
        if self.nodes[key].slots == header.slots {
            return None;
        }
        let is_newer = |owner: &NodeKey| *owner != key && self.compare_claims(*owner, key, header.epochs).is_gt();
        let owners = || self.claimed_owners(&header.slots).map(|(_, owner)| owner).filter(is_newer);
        // Who was elected in the sender's place first: it is what the sender believes, whatever epoch it has taken by itself.
        let shard = self.nodes[key].shard_id;
        owners().find(|owner| self.nodes[*owner].shard_id == shard).or_else(|| owners().next())
    }

    pub(super) fn send_update(&mut self, to: NodeKey, about: NodeKey, env: &Env) {
        let Some(link) = self.nodes[to].link else {
            return;
        };
        let owner = &self.nodes[about];
        let body = Body::Update { epochs: owner.epochs, node: owner.id, slots: owner.slots.without(&self.unclaimed) };
        self.send(link, &body, 0, env);
    }

    /// Processes an UPDATE: another node tells us of a newer owner.
    pub(super) fn on_update(&mut self, header: &Header, about: NodeId, epochs: Epochs, slots: &SlotSet, env: &Env) {
        let Some(about) = self.nodes.find(&about) else { return };
        let known = &self.nodes[about];
        // A node that does not know of agreed epochs cannot say whether one is that; nor do we know, of a node that we have not
        // heard yet, whether it would.
        let is_unsaid = !header.is_ours && (known.is_ours || known.data_received_ms == 0);
        let agreed = if is_unsaid { known.epochs.agreed.min(epochs.config) } else { epochs.agreed };
        self.take_in_owner(about, Epochs { agreed, ..epochs }, slots, env);
    }

    /// Takes in what another node says of an owner of slots.
    pub(super) fn take_in_owner(&mut self, about: NodeKey, epochs: Epochs, slots: &SlotSet, env: &Env) {
        if self.myself().replica_of == Some(about) {
            self.note_epoch_to_beat(epochs.config, epochs.config > self.nodes[about].epochs.config);
        }
        let known = self.nodes[about].epochs;
        if epochs.config <= known.config && epochs.agreed <= known.agreed {
            return;
        }
        if about == self.myself {
            log::info!("Discarding UPDATE message about myself.");
            return;
        }
        if self.nodes[about].is_replica() {
            if epochs.agreed <= known.agreed {
                return;
            }
            // It may have gone to another shard, and been elected there, since we heard of it.
            let shard = self.shard_of_slots(slots);
            self.set_node_as_master(about);
            shard.into_iter().for_each(|shard| self.set_shard(about, shard));
        }
        let node = &mut self.nodes[about];
        node.take_epochs(epochs);
        node.epoch_ms = env.now_ms;
        if epochs.agreed > known.agreed {
            self.note_heir(about);
            if self.myself().replica_of == Some(about) && epochs.agreed > known.config {
                self.note_other_reign(env);
            }
        }
        self.save_claims();
        self.take_in_claim(about, epochs, slots, env);
    }

    /// The shard that has more than half of these slots, as far as we know. The others may have been moved to it.
    fn shard_of_slots(&self, slots: &SlotSet) -> Option<NodeId> {
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        let owners = slots.iter().filter_map(|slot| self.owner[usize::from(slot)]);
        owners.for_each(|owner| *counts.entry(self.nodes[owner].shard_id).or_default() += 1);
        counts.into_iter().find(|(_, count)| count * 2 > slots.len()).map(|(shard, _)| shard)
    }

    /// Processes a claim of slots under an epoch, in the claimant's shard the agreed one. The claimant gets those that nobody
    /// claims by a greater or equal one, except slots we are importing, unless it has taken their source's place. If that takes the
    /// last slot from us, or from our master, we follow who was elected in that place, or else the claimant.
    fn take_in_claim(&mut self, claimant: NodeKey, epochs: Epochs, claimed: &SlotSet, env: &Env) {
        let mine = if self.is_master() { Some(self.myself) } else { self.myself().replica_of };
        let had = &self.nodes[claimant].slots;
        let (kept, given_up) = (had.common(claimed), had.without(claimed));
        let mut gained = claimed.without(had);
        // What we have let a node take is its own, whatever has become of our epoch since.
        let granted = self.granted_to(claimant);
        let mut stand = SlotSet::default();
        for (_, owner) in self.claimed_owners(&gained) {
            if self.compare_claims(owner, claimant, epochs).is_ge() {
                stand = stand.with(&self.nodes[owner].slots.without(&granted).without(&self.unclaimed));
            }
        }
        gained.remove_all(&stand);
        let imported: Vec<Slot> = self.importing.keys().copied().filter(|slot| gained.contains(*slot)).collect();
        for slot in imported {
            if self.settle_import(slot, claimant) {
                gained.remove(slot);
            }
        }
        self.unclaimed = self.unclaimed.with(&given_up).without(&kept);
        // Those of them that another node had.
        let taken: SlotSet = gained.iter().filter(|slot| self.owner[usize::from(*slot)].is_some()).collect();
        let taken_from_mine = mine.map_or_else(SlotSet::default, |mine| taken.common(&self.nodes[mine].slots));
        let dirty = (env.slots_with_keys)(&taken_from_mine);
        self.leftovers = self.leftovers.with(&dirty);
        self.unbind_all(&taken);
        self.bind_all(&gained, claimant);
        if mine == Some(self.myself) && !taken_from_mine.is_empty() {
            self.save_synced();
        } else if !taken.is_empty() {
            self.save_claims();
        }
        if !gained.is_empty() {
            self.save_later_and_update();
        }

        let left = mine.map_or(0, |m| self.nodes[m].slot_count);
        let takes_all = claimed.len() == taken_from_mine.len();
        let heir = self.heir_of(mine);
        if !taken_from_mine.is_empty()
            && left == 0
            && (self.config.allow_replica_migration || takes_all || heir.is_some())
        {
            let followed = heir.unwrap_or(claimant);
            self.log_following(followed);
            self.set_master(followed);
            self.save_synced();
            // At once, as clients are redirected from now on, and those who voted had withdrawn our lease.
            self.update_state(env);
        } else if !self.follow_grandmaster() && mine == Some(self.myself) && !dirty.is_empty() {
            // We stay a master, so our keys in the lost slots are to be deleted.
            self.actions.push(Action::DelKeysInSlots(dirty));
        }
    }

    /// A node claims a slot that we import, if we do. Who takes the place of its source, or a slot that nobody has, is the source
    /// from now on; of another claim an operator is to say what it is worth: true then.
    fn settle_import(&mut self, slot: Slot, claimant: NodeKey) -> bool {
        let Some(source) = self.importing.get(&slot).copied() else { return false };
        let is_heir = self.nodes[source].shard_id == self.nodes[claimant].shard_id;
        if is_heir || self.owner[usize::from(slot)].is_none() {
            self.importing.insert(slot, claimant);
            return false;
        }
        true
    }

    /// Who was elected in the place of this master, if we know of somebody. Whoever takes the last slot may have got no more than
    /// that one by an operator's order, and is of another shard: its replicas do not have our data.
    fn heir_of(&self, master: Option<NodeKey>) -> Option<NodeKey> {
        let shard = self.nodes[master?].shard_id;
        let others = self.nodes.iter().filter(|(key, _)| *key != self.myself && Some(*key) != master);
        let heirs = others.filter(|(_, n)| n.is_voter() && n.shard_id == shard);
        heirs.max_by_key(|(_, n)| (n.epochs.agreed, n.id)).map(|(key, _)| key)
    }

    /// Follows the master of our master, if that is a replica. It may have become one without losing a slot to another node,
    /// or while we were away, so that nothing else would make us follow. Whether it was so.
    pub(super) fn follow_grandmaster(&mut self) -> bool {
        let grandmaster = self.myself().replica_of.and_then(|m| self.nodes[m].replica_of);
        let Some(grandmaster) = grandmaster.filter(|g| *g != self.myself) else { return false };
        let n = &self.nodes[grandmaster];
        log::info!("I'm a sub-replica! Reconfiguring myself as a replica of grandmaster {} ({})", n.id, n.human_name);
        self.set_master(grandmaster);
        self.save_synced();
        self.todo.state = true;
        true
    }

    pub(super) fn log_following(&self, key: NodeKey) {
        let n = &self.nodes[key];
        log::info!("Configuration change detected. Reconfiguring myself as a replica of {} ({})", n.id, n.human_name);
    }

    /// Resolves two masters with the same epoch: the one with the smaller id takes a new one.
    pub(super) fn resolve_epoch_collision(&mut self, key: NodeKey, header: &Header) {
        let (me, node) = (self.myself(), &self.nodes[key]);
        let collides = me.is_master()
            && node.is_master()
            && header.epochs.config == me.epochs.config
            && node.epochs.config == me.epochs.config;
        // Nor while another node may take slots of ours under an epoch of its own.
        if !collides || node.id <= me.id || self.has_granted() || !self.begin_epoch() {
            return;
        }
        log::debug!(
            "WARNING: configEpoch collision with node {} ({}). configEpoch set to {}",
            self.nodes[key].id,
            self.nodes[key].human_name,
            self.current_epoch
        );
        self.nodes[self.myself].epochs.config = self.current_epoch;
        self.own_epoch_ms = i64::MAX;
        self.save_synced();
        self.todo.announce = true;
    }

    // ---- our own role ----

    /// Follows another master. We must own no slot.
    pub(super) fn set_master(&mut self, master: NodeKey) {
        assert!(master != self.myself && self.myself().slot_count == 0, "only a node without slots can follow another");
        let me = self.myself;
        if self.is_master() {
            let flags = &mut self.nodes[me].flags;
            flags.clear(NodeFlags::MASTER | NodeFlags::MIGRATE_TO);
            flags.set(NodeFlags::REPLICA);
            self.close_all_slots();
        }
        self.attach_replica(me, master);
        let shard = self.nodes[master].shard_id;
        let is_another = self.nodes[me].shard_id != shard;
        self.stop_leading(is_another);
        self.nodes[me].shard_id = shard;
        if is_another {
            self.drop_channels_but_of(master);
        }
        self.save_soon();
        self.todo.announce = true;
        self.replicate_from(master);
        self.heir_asked = None;
        self.reset_manual_failover();
        self.forget_election();
    }

    /// What is published on sharded channels of other nodes does not come here.
    pub(super) fn drop_channels_but_of(&mut self, master: NodeKey) {
        let others = (0..SLOT_COUNT as Slot).filter(|slot| self.owner[usize::from(*slot)] != Some(master));
        let dropped = self.dropped_channels.get_or_insert_with(SlotSet::default);
        others.for_each(|slot| _ = dropped.insert(slot));
    }

    pub(super) fn replicate_from(&mut self, master: NodeKey) {
        let n = &self.nodes[master];
        if !super::is_address(&n.ip) {
            // Tried again when its own packet has shown its address.
            return;
        }
        let action =
            Action::SetReplicationMaster { ip: n.ip.clone(), port: n.client_port(self.config.tls_replication) };
        if self.actions.last() != Some(&action) {
            self.actions.push(action);
        }
    }

    /// Takes the place of our master: its slots become ours. The caller has set the epoch.
    pub(super) fn replace_my_master(&mut self, env: &Env) {
        let Some(old) = self.myself().replica_of else {
            return;
        };
        self.set_node_as_master(self.myself);
        self.actions.push(Action::UnsetReplicationMaster);
        self.rebind_all(&self.nodes[old].slots.clone(), self.myself);
        self.elected_ms = env.now_ms;
        self.lead_from_now(env);
        self.delete_leftovers(env);
        self.update_state(env);
        self.save_synced();
        // At once, so that others hear it from us first.
        self.announce_role(env);
        self.reset_manual_failover();
        self.forget_election();
    }

    pub(super) fn close_all_slots(&mut self) {
        self.migrating.clear();
        self.importing.clear();
    }

    /// Takes a new epoch without asking anybody, unless ours is the greatest already, or slots of ours may be taken under
    /// another at this moment. Returns whether it did. Two nodes
    /// that do this at the same time collide, which is resolved later; only for what an operator orders.
    pub(super) fn bump_epoch(&mut self) -> bool {
        let epoch = self.myself().epochs.config;
        if epoch != 0 && epoch == self.greatest_epoch() || self.has_granted() {
            return false;
        }
        self.take_epoch(1);
        true
    }

    /// Takes an epoch that is so much greater than any other, and than ours.
    pub(super) fn take_epoch(&mut self, more: u64) {
        // The greatest number cannot be exceeded, so it is shared.
        self.current_epoch = self.greatest_epoch().saturating_add(more);
        self.nodes[self.myself].epochs.config = self.current_epoch;
        self.own_epoch_ms = i64::MAX;
        log::info!("New configEpoch set to {}", self.current_epoch);
        self.save_synced();
        // Our replicas need it for an election, and others' claims must not seem to beat ours.
        self.todo.announce = true;
    }

    /// Has keys deleted that were left when their slots went to other nodes.
    fn delete_leftovers(&mut self, env: &Env) {
        self.leftovers = self.still_left(env);
        if !self.leftovers.is_empty() {
            self.actions.push(Action::DelKeysInSlots(self.leftovers.clone()));
        }
    }

    fn still_left(&self, env: &Env) -> SlotSet {
        let ours = [Some(self.myself), self.myself().replica_of];
        let is_elsewhere = |slot: &Slot| {
            let owner = self.owner[usize::from(*slot)];
            owner.is_some() && !ours.contains(&owner)
        };
        (env.slots_with_keys)(&self.leftovers.iter().filter(is_elsewhere).collect())
    }

    /// Forgets slots in which no keys are left.
    pub(super) fn note_leftovers(&mut self, env: &Env) {
        // What our master has is not seen while it does not come.
        if self.leftovers.is_empty() || self.is_replica() && !env.master_link_up {
            return;
        }
        let left = self.still_left(env);
        if left != self.leftovers {
            self.leftovers = left;
            self.save_later();
        }
    }

    /// Raises the current epoch. False if it is the greatest number already: epochs come in packets, so any may arrive,
    /// and wrapping to 0 would make the oldest claims win.
    pub(super) fn begin_epoch(&mut self) -> bool {
        let next = self.current_epoch.checked_add(1);
        self.current_epoch = next.unwrap_or(self.current_epoch);
        next.is_some()
    }

    /// The greatest epoch known.
    pub(super) fn greatest_epoch(&self) -> u64 {
        self.nodes.iter().map(|(_, n)| n.epochs.config).max().unwrap_or(0).max(self.current_epoch)
    }

    /// After loading the data set: slots that nobody owns become ours if they have keys; slots of others that have keys
    /// are marked as importing, so that an operator can resolve them, unless we were deleting those keys.
    pub(crate) fn adopt_loaded_keys(&mut self, env: &Env) {
        if self.is_replica() {
            return;
        }
        self.delete_leftovers(env);
        let coming = self.importing_slots();
        let is_known = self.myself().slots.with(&coming).with(&self.leftovers);
        let with_keys = (env.slots_with_keys)(&SlotSet::of_range(0, SLOT_COUNT as Slot - 1));
        for slot in with_keys.without(&is_known).iter() {
            let owner = self.owner[usize::from(slot)];
            if self.importing.contains_key(&slot) {
                continue;
            }
            match owner {
                None => {
                    log::info!("I have keys for unassigned slot {slot}. Taking responsibility for it.");
                    self.bind(slot, self.myself);
                }
                Some(other) => {
                    log::info!(
                        "I have keys for slot {slot}, but the slot is assigned to another node. Setting it to importing state."
                    );
                    self.importing.insert(slot, other);
                }
            }
            self.save_synced();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ClusterConfig;
    use super::*;

    const NOW_MS: i64 = 1_000_000;

    fn id(digit: char) -> NodeId {
        NodeId::parse(digit.to_string().repeat(NodeId::LEN).as_bytes()).unwrap()
    }

    /// The node `me` of two masters, `a` and `b`, and two replicas of the first, `c` and `d`.
    fn node(me: char, config: ClusterConfig) -> Cluster {
        let lines = [
            ('a', "master - 0 0 1 connected 0-999".to_owned()),
            ('b', "master - 0 0 2 connected 1000-1999".to_owned()),
            ('c', format!("slave {} 0 0 1 connected", id('a'))),
            ('d', format!("slave {} 0 0 1 connected", id('a'))),
        ];
        let text: String = lines
            .iter()
            .map(|(name, rest)| {
                let myself = if *name == me { "myself," } else { "" };
                format!("{} 127.0.0.1:7000@17000 {myself}{rest}\n", id(*name))
            })
            .collect();
        let text = format!("{text}vars currentEpoch 5 lastVoteEpoch 1\n");
        Cluster::from_nodes_conf(config, 1, NOW_MS, &text).unwrap()
    }

    #[test]
    fn the_first_slot_is_named_that_does_not_fit() {
        let mut c = node('b', ClusterConfig::default());
        let refused = |result: Result<(), super::super::AdminError>| result.unwrap_err().0;
        let mut add = |ranges: &[(Slot, Slot)]| refused(c.add_slots(ranges));
        assert_eq!(add(&[(3000, 3005), (3003, 3010)]), "Slot 3003 specified multiple times");
        assert_eq!(add(&[(3000, 3001), (1999, 3000)]), "Slot 1999 is already busy");
        assert_eq!(add(&[(2500, 2500), (2400, 2600), (0, 0)]), "Slot 2500 specified multiple times");
        assert_eq!(refused(c.del_slots(&[(1000, 1999), (1990, 2005)])), "Slot 1990 specified multiple times");
        assert_eq!(refused(c.del_slots(&[(1990, 2005)])), "Slot 2000 is already unassigned");
        assert_eq!(c.myself().slots.ranges(), vec![(1000, 1999)]);
        c.add_slots(&[(3000, 3005), (2000, 2999)]).unwrap();
        assert_eq!((c.myself().slots.ranges(), c.myself().slot_count), (vec![(1000, 3005)], 2006));
        // Those of others, too.
        let other = c.nodes.find(&id('a')).unwrap();
        c.del_slots(&[(900, 1099), (3005, 3005)]).unwrap();
        assert_eq!((c.myself().slots.ranges(), c.myself().slot_count), (vec![(1100, 3004)], 1905));
        assert_eq!((c.nodes[other].slots.ranges(), c.nodes[other].slot_count), (vec![(0, 899)], 900));
        assert!(c.owner_of(950).is_none() && c.owner_of(3005).is_none() && c.owner_of(1100) == Some(c.myself));
    }

    fn claims(c: &mut Cluster, claimant: char, epoch: u64, slots: std::ops::Range<Slot>) {
        let key = c.nodes.find(&id(claimant)).unwrap();
        c.set_node_as_master(key);
        c.nodes[key].set_epoch(epoch);
        c.take_in_claim(key, Epochs::agreed_on(epoch), &slots.collect(), &Env::at(NOW_MS));
    }

    fn followed(c: &Cluster) -> Option<NodeId> {
        c.myself().replica_of.map(|key| c.nodes[key].id)
    }

    /// A replica was elected, and a slot moved from it before this node heard of either.
    #[test]
    fn who_loses_all_slots_follows_who_was_elected_whoever_took_the_last_one() {
        for me in ['a', 'd'] {
            for allow_replica_migration in [true, false] {
                let config = ClusterConfig { allow_replica_migration, ..ClusterConfig::default() };
                let mut c = node(me, config.clone());
                let before = followed(&c);
                claims(&mut c, 'c', 6, 0..999);
                assert_eq!(followed(&c), before, "one slot is left");
                claims(&mut c, 'b', 7, 999..2000);
                assert_eq!(followed(&c), Some(id('c')), "{me} {allow_replica_migration}");
                // In the other order, too.
                let mut c = node(me, config);
                claims(&mut c, 'b', 7, 999..2000);
                claims(&mut c, 'c', 6, 0..999);
                assert_eq!(followed(&c), Some(id('c')), "{me} {allow_replica_migration}");
            }
        }
    }

    /// A packet that `sender` sent when it was no master yet, or that says so, comes: at this time, as an answer to a ping sent then.
    fn hears_replica(c: &mut Cluster, sender: char, config_epoch: u64, (now_ms, answers_ms): (i64, Option<i64>)) {
        use super::super::wire::{self, Body, PacketType};
        let header = Header {
            epochs: Epochs::agreed_on(config_epoch),
            ..node(sender, ClusterConfig::default()).header(0, &Env::at(NOW_MS))
        };
        assert!(header.replica_of.is_some());
        let kind = if answers_ms.is_some() { PacketType::Pong } else { PacketType::Ping };
        let link = match answers_ms {
            Some(sent_ms) => {
                let key = c.nodes.find(&id(sender)).unwrap();
                c.connect(key, sent_ms);
                let link = c.nodes[key].link.unwrap();
                c.links.get_mut(&link).unwrap().pings = [sent_ms].into();
                link
            }
            None => c.on_accept(now_ms, "127.0.0.1".into(), "127.0.0.1".into()),
        };
        let body = Body::Ping { kind, gossip: vec![], extensions: vec![] };
        c.on_packet(link, &wire::encode(&header, &body), &Env::at(now_ms));
    }

    /// With one link in either direction packets of one node may come in another order than they left.
    #[test]
    fn what_a_node_said_before_it_was_elected_makes_it_no_replica_again() {
        let elected = || {
            let mut c = node('a', ClusterConfig::default());
            let heir = c.nodes.find(&id('c')).unwrap();
            c.take_in_owner(heir, Epochs::agreed_on(6), &(0..999).collect(), &Env::at(NOW_MS));
            (c, heir)
        };
        let (mut c, heir) = elected();
        hears_replica(&mut c, 'c', 1, (NOW_MS + 5, None));
        hears_replica(&mut c, 'c', 1, (NOW_MS + 6, Some(NOW_MS - 1)));
        assert!(c.nodes[heir].is_master() && c.owner_of(5) == Some(heir));
        // So whoever loses its last slot follows it.
        claims(&mut c, 'b', 7, 999..2000);
        assert_eq!(followed(&c), Some(id('c')));
        // Its master was elected again; or it was reset, and says so after we knew that it was elected.
        let (mut c, heir) = elected();
        hears_replica(&mut c, 'c', 7, (NOW_MS + 5, None));
        assert!(c.nodes[heir].is_replica());
        let (mut c, heir) = elected();
        hears_replica(&mut c, 'c', 1, (NOW_MS + 5, Some(NOW_MS + 1)));
        assert!(c.nodes[heir].is_replica());
    }

    /// What it claims depends on its shard: by an epoch of its own it takes nothing from who was elected there.
    #[test]
    fn the_shard_of_a_node_just_heard_of_counts_before_its_claim() {
        use super::super::wire::{self, Body, Extension, PacketType};
        let mut c = node('b', ClusterConfig::default());
        let heir = c.nodes.find(&id('c')).unwrap();
        let shard = c.nodes[heir].shard_id;
        claims(&mut c, 'c', 6, 0..1000);
        c.add_node(id('e'), NodeFlags::MASTER, NOW_MS);
        let header = Header {
            sender: id('e'),
            epochs: Epochs { config: 9, agreed: 1 },
            slots: (0..1000).collect(),
            ..node('a', ClusterConfig::default()).header(0, &Env::at(NOW_MS))
        };
        let body = Body::Ping { kind: PacketType::Ping, gossip: vec![], extensions: vec![Extension::ShardId(shard)] };
        let link = c.on_accept(NOW_MS, "127.0.0.1".into(), "127.0.0.1".into());
        c.on_packet(link, &wire::encode(&header, &body), &Env::at(NOW_MS));
        assert_eq!(c.owner_of(5), Some(heir));
    }

    /// Its own epoch is later than what others took over from its heir.
    #[test]
    fn an_own_epoch_counts_against_another_shard_unless_an_heir_s_lies_between() {
        let mut c = node('b', ClusterConfig::default());
        let [old, heir] = ['a', 'c'].map(|name| c.nodes.find(&id(name)).unwrap());
        let own = Epochs { config: 9, agreed: 1 };
        let me = c.myself;
        c.nodes[me].set_epoch(8);
        assert!(c.compare_claims(me, old, own).is_lt());
        claims(&mut c, 'c', 6, 0..1000);
        c.note_heir(heir);
        assert!(c.compare_claims(me, old, own).is_gt());
        // The heir may have gone since.
        c.nodes[heir].shard_id = c.nodes[me].shard_id;
        assert!(c.compare_claims(me, old, own).is_gt());
        // What was not taken over from it is another matter.
        c.nodes[me].set_epoch(5);
        assert!(c.compare_claims(me, old, own).is_lt());
    }

    /// An operator gave it to the other master while this node was away, and moved a slot of ours there. Only others tell of its
    /// election so far, or the one that it replaced.
    #[test]
    fn a_replica_that_was_elected_elsewhere_is_no_heir() {
        for is_told_by_replaced in [false, true] {
            let mut c = node('a', ClusterConfig::default());
            let [gone, other, heir] = ['c', 'b', 'd'].map(|name| c.nodes.find(&id(name)).unwrap());
            let (env, shard) = (Env::at(NOW_MS), c.nodes[other].shard_id);
            let claimed: SlotSet = (1000..2000).chain([5]).collect();
            if is_told_by_replaced {
                let header = node('b', ClusterConfig::default()).header(0, &env);
                let header =
                    Header { epochs: Epochs::agreed_on(7), replica_of: Some(id('c')), slots: claimed, ..header };
                c.take_in_role(other, &header, &env);
            } else {
                c.take_in_owner(gone, Epochs::agreed_on(7), &claimed, &env);
            }
            assert!(c.nodes[gone].is_voter() && c.nodes[gone].shard_id == shard);
            c.take_in_owner(heir, Epochs::agreed_on(6), &(0..1000).collect(), &env);
            assert_eq!((followed(&c), c.nodes[heir].shard_id), (Some(id('d')), c.myself().shard_id));
        }
    }

    /// The target of a slot would see no owner of it otherwise, and the cluster as down, when the source's place is taken.
    #[test]
    fn a_slot_is_imported_from_who_was_elected_in_its_source_s_place() {
        let mut c = node('b', ClusterConfig::default());
        let [source, heir] = ['a', 'c'].map(|name| c.nodes.find(&id(name)).unwrap());
        c.importing.insert(5, source);
        claims(&mut c, 'c', 6, 0..1000);
        assert_eq!((c.owner_of(5), c.importing[&5]), (Some(heir), heir));
        // It may have become a replica before we hear who took its place.
        let mut c = node('b', ClusterConfig::default());
        c.importing.insert(5, source);
        c.unbind(5);
        claims(&mut c, 'd', 6, 0..1000);
        assert_eq!(c.owner_of(5).map(|key| c.nodes[key].id), Some(id('d')));
        // Of another shard's claim the operator decides.
        let mut c = node('a', ClusterConfig::default());
        let source = c.nodes.find(&id('b')).unwrap();
        c.importing.insert(1500, source);
        claims(&mut c, 'c', 6, 1500..1501);
        assert_eq!((c.owner_of(1500), c.importing[&1500]), (Some(source), source));
    }

    /// An operator moved all slots: where they are, there is something to do.
    #[test]
    fn who_loses_all_slots_to_another_shard_follows_it_if_it_may() {
        for me in ['a', 'd'] {
            for allow_replica_migration in [true, false] {
                let mut c = node(me, ClusterConfig { allow_replica_migration, ..ClusterConfig::default() });
                let before = followed(&c);
                claims(&mut c, 'b', 7, 0..2000);
                let expected = if allow_replica_migration { Some(id('b')) } else { before };
                assert_eq!(followed(&c), expected, "{me} {allow_replica_migration}");
            }
        }
    }
}
