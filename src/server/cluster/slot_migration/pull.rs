//! What is done only where the target pulls: who says that it is another node, what leads a snapshot, and when this node may
//! begin to pull.

use super::JobId;
use crate::cluster::node::NodeId;
use crate::net::ClientId;
use crate::resp::encode::put_command;
use crate::server::Server;
use crate::structs::slots::SlotSet;

/// A client that has said which node it is (CLUSTER SYNCSLOTS CONF NODE-ID).
#[derive(Debug)]
pub(super) struct Caller {
    client: ClientId,
    node: NodeId,
    /// It wants the grant numbered.
    is_numbered: bool,
}

impl Server {
    /// A client says which node it is, and whether it wants the grant numbered.
    pub(crate) fn note_caller(&mut self, client: ClientId, node: NodeId, is_numbered: bool) {
        let Some(bus) = &mut self.bus else { return };
        let callers = &mut bus.migrations.callers;
        callers.retain(|caller| caller.client != client && self.clients.get(caller.client).is_some());
        callers.push(Caller { client, node, is_numbered });
    }

    /// What it said.
    pub(crate) fn caller(&self, client: ClientId) -> Option<(NodeId, bool)> {
        let callers = &self.bus.as_ref()?.migrations.callers;
        callers.iter().find(|caller| caller.client == client).map(|caller| (caller.node, caller.is_numbered))
    }

    /// The snapshot of a job is about to begin: if that has a link of its own, says so there, and sends the functions.
    pub(super) fn begin_pulled_snapshot(&mut self, job: JobId) {
        let link = self.bus.as_mut().and_then(|bus| bus.migrations.link(job.snapshot()));
        let Some(client) = link.and_then(|link| link.client()) else { return };
        let mut out = b"+SLOTSSNAPSHOT\r\n".to_vec();
        if self.script.libraries.iter().next().is_some() {
            let functions = self.script.libraries.dump(false);
            put_command(&mut out, &[&b"FUNCTION"[..], b"RESTORE", &functions, b"REPLACE"]);
        }
        self.clients.push_all(client, out);
    }

    /// Lets a job begin to pull, once nothing is left in its slots of another time. Where a replica is about to take over,
    /// nothing more is to be told to it.
    pub(super) fn prepare_import(&mut self, job: JobId, slots: &SlotSet) {
        let Some(bus) = &mut self.bus else { return };
        let is_news = bus.migrations.waiting_import.replace(job) != Some(job);
        if self.trims_first(slots) {
            if is_news {
                log::info!("Can not start import task: trim in progress for some of the slots");
            }
        } else if !self.writes_paused() {
            if let Some(bus) = &mut self.bus {
                bus.migrations.waiting_import = None;
            }
            self.with_cluster(|machine, env| machine.on_import_ready(job, env));
            self.review_slots();
        }
    }
}
