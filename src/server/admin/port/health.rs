//! Whether this server is ready to serve, in words when it is not. The words tell nothing that only those who sign in may know.

use crate::server::Server;
use crate::structs::slots::SLOT_COUNT;

impl Server {
    /// Why requests should not be sent here now; nothing: they should.
    pub(crate) fn reasons_not_ready(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.admin.shutdown.waiting.is_some() || self.exit.is_some() {
            reasons.push("it is about to end".to_owned());
        }
        if let Some(loading) = &self.persist.loading {
            reasons.push(match loading.total_bytes {
                0 => "it loads its data set".to_owned(),
                total => format!("it loads its data set: {} % are read", loading.loaded_bytes.min(total) * 100 / total),
            });
        } else if self.repl.is_replica() && self.repl.may_be_stale() {
            let state = self.repl.master_view(self.now_s()).map_or("none", |m| m.state);
            reasons.push(format!("it is a replica, and its link to the master is not up: {state}"));
        }
        if let Some(cluster) = self.cluster().filter(|c| !c.is_up()) {
            let counts = cluster.counts();
            reasons.push(match (SLOT_COUNT - counts.assigned, counts.fail) {
                (0, 0) => "the cluster is down: this node does not reach a majority of the masters".to_owned(),
                (0, failed) => format!("the cluster is down: the owners of {failed} slots have failed"),
                (open, _) => format!("the cluster is down: {open} slots are served by no node"),
            });
        }
        reasons
    }
}
