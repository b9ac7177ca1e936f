//! Clients that wait: for what, until when, and how they are released.
//!
//! A command blocks its client with `Server::block`; its reply comes when the client is released. While a client is
//! blocked its input gathers, unprocessed.

use super::table::CmdRef;
use crate::net::{ClientFlags, ClientId};
use crate::resp::OwnedArgs;
use crate::server::Server;
use std::collections::BTreeSet;

/// What a blocked client waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlockKind {
    /// CLIENT PAUSE, a failover or a shutdown holds the command; it runs afterwards.
    Postponed,
    /// WAIT: replicas that acknowledge an offset.
    Wait { offset: i64, replicas: i64 },
    /// WAITAOF: local (0 or 1) and replicas that have an offset on disk.
    WaitAof { offset: i64, local: i64, replicas: i64 },
    /// SHUTDOWN waits for replicas.
    Shutdown,
}

#[derive(Debug)]
pub struct BlockState {
    pub kind: BlockKind,
    /// Wall clock ms; `None`: for ever.
    pub deadline_ms: Option<i64>,
    /// The command to run again on release, where that is how it goes on.
    pub command: Option<(CmdRef, OwnedArgs)>,
}

/// All blocked clients, and those with a deadline in its order.
#[derive(Debug, Default)]
pub struct Blocked {
    pub clients: BTreeSet<ClientId>,
    deadlines: BTreeSet<(i64, ClientId)>,
}

impl Blocked {
    /// The earliest deadline, wall clock ms.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Number of clients that wait with a deadline (INFO's `clients_in_timeout_table`).
    pub fn deadline_count(&self) -> usize {
        self.deadlines.len()
    }
}

impl Server {
    /// Blocks a client. Its command returns without a reply.
    pub fn block(&mut self, id: ClientId, state: BlockState) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.flags.add(ClientFlags::BLOCKED);
        if let Some(at) = state.deadline_ms {
            self.blocked.deadlines.insert((at, id));
        }
        if state.kind != BlockKind::Postponed {
            self.blocked.clients.insert(id);
        }
        c.block = Some(Box::new(state));
    }

    /// Ends a client's wait and gives what it was; its input is gone on with later in the turn. Replying is the caller's.
    pub fn unblock(&mut self, id: ClientId) -> Option<Box<BlockState>> {
        let c = self.clients.get_mut(id)?;
        let state = c.block.take()?;
        c.flags.remove(ClientFlags::BLOCKED);
        if !c.is(ClientFlags::UNBLOCKED) {
            c.flags.add(ClientFlags::UNBLOCKED);
            self.clients.unblocked.push(id);
        }
        self.forget_block(id, &state);
        Some(state)
    }

    /// Takes a client that goes away off the lists.
    pub fn forget_block(&mut self, id: ClientId, state: &BlockState) {
        self.blocked.clients.remove(&id);
        self.postponed.retain(|c| *c != id);
        if let Some(at) = state.deadline_ms {
            self.blocked.deadlines.remove(&(at, id));
        }
    }

    /// Releases the clients whose deadline has come, each with the reply its command gives then.
    pub fn expire_blocked(&mut self) {
        let now = self.clock.ms();
        while let Some((at, id)) = self.blocked.deadlines.first().copied() {
            if at > now {
                return;
            }
            self.blocked.deadlines.pop_first();
            let Some(kind) = self.clients.get(id).and_then(|c| c.block.as_ref()).map(|b| b.kind.clone()) else {
                continue;
            };
            self.reply_on_timeout(id, kind);
            self.count_unblocked(id, false);
            self.unblock(id);
        }
    }
}
