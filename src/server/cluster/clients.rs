//! What the rest of the server asks of the cluster: may this request be served here, who hears a published message.

use crate::catalog::CmdError;
use crate::catalog::row::flag;
use crate::catalog::table::CmdRef;
use crate::cluster::routing::{Refusal, Request};
use crate::keyspace::expire::is_due;
use crate::net::{ClientId, Conn};
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::structs::slots::{Slot, SlotSet};

/// Commands whose keys are sharded channels.
const ON_SHARD_CHANNELS: [&str; 3] = ["ssubscribe", "sunsubscribe", "spublish"];

impl Server {
    /// Refuses a call in cluster mode whose keys this node does not serve. For EXEC, all that was queued counts.
    pub(crate) fn check_slot(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Result<(), CmdError> {
        self.cluster_route(id, cmd, args).map(|_| ()).map_err(|refusal| self.cluster_refusal(refusal))
    }

    /// The same, with the slot of the keys if there are any.
    pub(crate) fn cluster_route(&self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Result<Option<Slot>, Refusal> {
        let (Some(bus), Some(client)) = (&self.bus, self.clients.get(id)) else { return Ok(None) };
        let machine = &bus.machine;
        let row = self.commands.get(cmd).row;
        let is_exec = row.name == "exec";
        if is_exec && !client.is(ClientFlags::MULTI) {
            return Ok(None);
        }
        if !is_exec && row.keys.is_empty() && row.get_keys.is_none() {
            return Ok(None);
        }
        let db = &self.ks.dbs[0];
        let now_ms = self.clock.ms();
        let exists = |key: &[u8]| db.get(key).is_some_and(|e| !is_due(e.expire_ms(), now_ms));
        let shard_channels = ON_SHARD_CHANNELS.contains(&row.name);
        let mut routing = machine.routing(shard_channels);
        let mut flags = self.flags_of_call(row, args);
        if is_exec {
            flags |= client.multi.flags;
            for (cmd, queued_args) in client.multi.queued.iter() {
                let queued_row = self.commands.get(cmd).row;
                queued_row.each_key(queued_args, |key| {
                    if key.index < queued_args.len() {
                        routing.key(queued_args.at(key.index), exists);
                    }
                });
            }
        } else {
            row.each_key(args, |key| {
                if key.index < args.len() {
                    routing.key(args.at(key.index), exists);
                }
            });
        }
        let writes = flags & flag::WRITE != 0;
        // The turn may have begun long ago, and this process may not have run since.
        let mono_us = if writes { self.clock.fresh_us() } else { self.clock.mono_us() };
        let request = Request {
            writes,
            shard_channels,
            migrate: row.name == "migrate",
            asking: client.is(ClientFlags::ASKING) || row.flags & flag::ASKING != 0,
            readonly: client.is(ClientFlags::READONLY),
            now_ms: bus.machine_ms(mono_us),
        };
        routing.decide(&request)
    }

    /// The error reply for a refusal.
    pub(crate) fn cluster_refusal(&self, refusal: Refusal) -> CmdError {
        CmdError::text(self.cluster().map(|m| m.refusal_text(refusal, self.names_tls_ports())).unwrap_or_default())
    }

    /// Whether nodes are shown with their TLS ports: whoever came over TLS is to go on so.
    pub(crate) fn names_tls_ports(&self) -> bool {
        let asking = self.clients.current.and_then(|id| self.clients.get(id)).and_then(|c| c.conn.as_ref());
        asking.map_or(self.cfg.tls_cluster, Conn::is_tls)
    }

    /// Sends a published message to the cluster (or to our shard). Nothing outside cluster mode.
    pub(crate) fn cluster_publish(&mut self, sharded: bool, channel: &[u8], message: &[u8]) {
        self.with_cluster(|machine, env| machine.publish(sharded, channel, message, env));
    }

    /// How many connections the bus may take.
    pub(crate) fn cluster_link_count(&self) -> usize {
        self.cluster().map_or(0, |m| (m.nodes().len() - 1) * 2)
    }

    /// The offset this node announces: for a replica what it has processed of its master's stream, 0 while it has no data of
    /// that master (clients are not sent to it then).
    pub(super) fn announced_offset(&self) -> i64 {
        if self.repl.is_replica() { self.repl.replica_offset() } else { self.repl.offset() }
    }

    /// For a replica: how long ago its master was last heard of on the replication link, or that link was lost, ms.
    pub(super) fn replication_data_age_ms(&self) -> i64 {
        self.repl.data_age_s(self.now_s()) * 1000
    }

    /// A manual failover is under way.
    pub(crate) fn cluster_manual_failover(&self) -> bool {
        self.cluster().is_some_and(|m| m.manual_failover_in_progress())
    }

    /// Sharded channels in these slots are served by another node now.
    pub(super) fn drop_shard_channels(&mut self, slots: &SlotSet) {
        self.unsubscribe_slots(&|slot| slots.contains(slot));
    }
}
