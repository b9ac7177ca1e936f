//! WAIT and WAITAOF: clients that wait until replicas, or this server's disk, have what they wrote.

use super::primary::{Replica, ReplicaState};
use super::{Action, Env, Repl};
use crate::net::ClientId;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

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

/// How many must have what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Acks { replicas: i64 },
    Disk { local: i64, replicas: i64 },
}

impl Kind {
    /// With the offset.
    fn of(awaited: Awaited) -> (Kind, i64) {
        match awaited {
            Awaited::Acks { offset, replicas } => (Kind::Acks { replicas }, offset),
            Awaited::Disk { offset, local, replicas } => (Kind::Disk { local, replicas }, offset),
        }
    }

    fn from(self, offset: i64) -> Awaited {
        match self {
            Kind::Acks { replicas } => Awaited::Acks { offset, replicas },
            Kind::Disk { local, replicas } => Awaited::Disk { offset, local, replicas },
        }
    }
}

/// Clients that wait, by what for, in the order in which it comes.
pub(super) type Waiters = BTreeMap<Kind, BTreeSet<(i64, ClientId)>>;

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
        let (kind, offset) = Kind::of(awaited);
        self.waiters.entry(kind).or_default().insert((offset, client));
        self.want_acks = true;
    }

    /// A client does not wait any more.
    pub(crate) fn forget_waiter(&mut self, client: ClientId, awaited: Awaited) {
        let (kind, offset) = Kind::of(awaited);
        if let Entry::Occupied(mut clients) = self.waiters.entry(kind) {
            clients.get_mut().remove(&(offset, client));
            if clients.get().is_empty() {
                clients.remove();
            }
        }
    }

    /// Releases those who have what they waited for. It costs as much as there are kinds of them, however many they are.
    pub(super) fn serve_waiters(&mut self, env: &Env) {
        let mut waiters = std::mem::take(&mut self.waiters);
        waiters.retain(|kind, clients| {
            if matches!(kind, Kind::Disk { local: 1.., .. }) && !env.cfg.appendonly {
                let clients = std::mem::take(clients).into_iter();
                clients.for_each(|(_, client)| self.act(Action::Release { client, answer: WaitAnswer::NoAof }));
                return false;
            }
            while let Some((offset, client)) = clients.first().copied() {
                let awaited = kind.from(offset);
                let answer = self.wait_answer(awaited, env.fsynced_offset);
                // Whoever else waits for the same wrote later.
                if !answer.meets(awaited) {
                    break;
                }
                clients.pop_first();
                self.act(Action::Release { client, answer });
            }
            !clients.is_empty()
        });
        self.waiters = waiters;
    }
}
