//! WAIT and WAITAOF: clients that wait until replicas, or this server's disk, have what they wrote.

use super::primary::{Replica, ReplicaState};
use super::{Action, Env, Repl};
use crate::net::ClientId;

/// What a client waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// So many replicas have processed `offset`.
    Acks { offset: i64, replicas: i64 },
    /// This server (0 or 1) and so many replicas have `offset` on disk.
    Disk { offset: i64, local: i64, replicas: i64 },
}

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitAnswer {
    /// How many replicas have processed the offset.
    Acks(i64),
    /// Whether this server (0 or 1) and how many replicas have it on disk.
    Disk { local: i64, replicas: i64 },
    /// The local disk was asked for, and there is no AOF.
    NoAof,
}

impl WaitAnswer {
    /// Whether this is what a client waits for.
    pub(crate) fn meets(self, awaited: Awaited) -> bool {
        match (self, awaited) {
            (WaitAnswer::Acks(acked), Awaited::Acks { replicas, .. }) => acked >= replicas,
            (WaitAnswer::Disk { local: on_disk, replicas: acked }, Awaited::Disk { local, replicas, .. }) => {
                on_disk >= local && acked >= replicas
            }
            _ => false,
        }
    }
}

impl Repl {
    /// How it stands with what a client waits for.
    pub(crate) fn wait_answer(&self, awaited: Awaited, fsynced_offset: Option<i64>) -> WaitAnswer {
        let online = || self.records().filter(|replica| replica.state == ReplicaState::Online);
        let count = |has: &dyn Fn(&Replica) -> bool| online().filter(|replica| has(replica)).count() as i64;
        match awaited {
            Awaited::Acks { offset, .. } => WaitAnswer::Acks(count(&|replica| replica.ack_offset >= offset)),
            Awaited::Disk { offset, .. } => WaitAnswer::Disk {
                local: i64::from(fsynced_offset.unwrap_or(-1) >= offset),
                replicas: count(&|replica| replica.aof_ack_offset >= offset),
            },
        }
    }

    /// A client waits from now on: replicas are asked to acknowledge before the loop sleeps.
    pub(crate) fn wait_for(&mut self, client: ClientId, awaited: Awaited) {
        self.waiters.retain(|(id, _)| *id != client);
        self.waiters.push((client, awaited));
        self.want_acks = true;
    }

    /// Forgets clients that do not wait any more.
    pub(crate) fn retain_waiters(&mut self, still_waits: impl Fn(ClientId) -> bool) {
        self.waiters.retain(|(client, _)| still_waits(*client));
    }

    pub(super) fn serve_waiters(&mut self, env: &Env) {
        for (client, awaited) in std::mem::take(&mut self.waiters) {
            let answer = self.wait_answer(awaited, env.fsynced_offset);
            let is_void = matches!(awaited, Awaited::Disk { local, .. } if local > 0 && !env.cfg.appendonly);
            if is_void {
                self.act(Action::Release { client, answer: WaitAnswer::NoAof });
            } else if answer.meets(awaited) {
                self.act(Action::Release { client, answer });
            } else {
                self.waiters.push((client, awaited));
            }
        }
    }
}
