//! Replica migration: a replica that its master can spare goes to a master that has lost all of its own.

use super::node::{NodeFlags, NodeKey};
use super::{Cluster, Env};

/// How long a master must have been without replicas: after a failover, its replicas may be about to announce that they
/// follow it.
const DELAY_MS: i64 = 5000;
/// How often a replica looks whether there is one: it looks at all nodes for that.
const LOOK_MS: i64 = 500;

impl Cluster {
    /// Decides whether this replica moves, and where to.
    pub(super) fn consider_migration(&mut self, env: &Env) {
        let Some(my_master) = self.myself().replica_of else {
            return;
        };
        if env.now_ms - self.orphans_sought_ms < LOOK_MS {
            return;
        }
        self.orphans_sought_ms = env.now_ms;
        let mut target = None;
        for key in self.nodes.keys() {
            let orphaned = self.is_orphaned(key);
            let node = &mut self.nodes[key];
            match (orphaned, node.orphaned_ms) {
                (true, 0) => node.orphaned_ms = env.now_ms,
                (false, _) => node.orphaned_ms = 0,
                _ => {}
            }
            if orphaned && node.slot_count > 0 {
                target = target.or(Some(key));
            }
        }
        let Some(target) = target else { return };

        // One that counts for durable acknowledgements is not its own to give.
        if !self.config.allow_replica_migration || !self.state_ok || self.is_counted() {
            return;
        }
        // My master must keep enough of them.
        let spare = self.nodes[my_master].replicas.iter().filter(|key| self.nodes[**key].healthy()).count();
        if spare <= self.config.migration_barrier.max(self.copies_wanted()) {
            return;
        }
        // Among the masters that have most, the replica with the smallest id moves: all agree on which that is.
        let masters = || self.nodes.iter().filter(|(_, n)| n.is_master() && !n.failed());
        let most = masters().map(|(key, _)| self.working_replicas(key)).max().unwrap_or(0);
        if most < 2 || self.working_replicas(my_master) != most {
            return;
        }
        let first = masters()
            .filter(|(key, _)| self.working_replicas(*key) == most)
            .flat_map(|(_, n)| n.replicas.iter())
            .min_by_key(|key| self.nodes[**key].id);
        if first != Some(&self.myself) || env.now_ms - self.nodes[target].orphaned_ms <= DELAY_MS {
            return;
        }
        log::info!("Migrating to orphaned master {}", self.nodes[target].id);
        self.set_master(target);
    }

    /// Whether it is a working master that had replicas, or took over from one that had, and has none that work.
    fn is_orphaned(&self, key: NodeKey) -> bool {
        let n = &self.nodes[key];
        n.is_master() && !n.failed() && n.flags.has(NodeFlags::MIGRATE_TO) && self.working_replicas(key) == 0
    }

    fn working_replicas(&self, key: NodeKey) -> usize {
        self.nodes[key].replicas.iter().filter(|r| !self.nodes[**r].failed()).count()
    }
}
