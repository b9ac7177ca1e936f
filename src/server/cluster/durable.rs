//! Durable acknowledgements: replicas confirm what they have, and replies wait for that behind the gate that also waits
//! for the disk (`server/persist/gate.rs`). What is to be confirmed, and by whom, is the machine's (`cluster::durable`).

use super::bus::Bus;
use crate::catalog::CmdError;
use crate::cluster::node::NodeId;
use crate::cluster::{Cluster, Confirmation, Lineage, Refusal};
use crate::config::AppendFsync;
use crate::net::ClientId;
use crate::persist::state::AofState;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::ClientFlags;

/// What is told in place of replies that are not known to be true for good.
const UNCERTAIN: &[u8] = b"-UNCERTAIN Too few replicas have confirmed what replies tell: it may last or not\r\n";

/// What the server keeps for it.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// The node that each replica's client is, as it says when it confirms.
    confirmers: Vec<(ClientId, NodeId)>,
    /// What this replica has confirmed, so that it is said once.
    confirmed: Option<Confirmation>,
    /// Why writes are refused, if they are.
    refusal: Option<Refusal>,
    /// Whether acknowledgements had to wait in the last turn.
    had_to_wait: bool,
    /// The data set was loaded from a log at start.
    pub(super) loaded_log: bool,
}

/// Whether acknowledgements wait for replicas, and what has become of that since the last turn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum DurableRole {
    None,
    Master,
    /// They do not wait any more.
    Ended,
    /// This was a master whose acknowledgements waited, and another one is now.
    Deposed,
}

impl Bus {
    /// What an acknowledgement of this offset ends with, if this replica vouches for what it has.
    pub(crate) fn vouch_for(&self, offset: i64) -> Option<Vec<Vec<u8>>> {
        let Confirmation { promised, lineage, offset } = self.machine.confirmation(offset)?;
        let id = self.machine.myself().id.as_bytes().to_vec();
        let numbers = [promised, lineage.epoch, lineage.run, offset.max(0) as u64];
        let numbers = numbers.into_iter().map(|n| n.to_string().into_bytes());
        Some([b"CONFIRM".to_vec(), id].into_iter().chain(numbers).collect())
    }
}

impl Server {
    // ---- the master's side ----

    /// Whether replies to writes wait until replicas have them.
    pub(crate) fn has_durable_acks(&self) -> bool {
        self.cluster().is_some_and(Cluster::has_durable_acks)
    }

    /// Up to which offset of the stream enough replicas have everything.
    pub(crate) fn confirmed_offset(&self) -> i64 {
        self.cluster().map_or(0, Cluster::confirmed_offset)
    }

    /// `REPLCONF ACK <offset> [FACK <offset>] CONFIRM <node> <promise> <epoch> <run> <offset>`: what follows the offsets.
    pub(crate) fn take_confirmation(&mut self, id: ClientId, args: Args<'_>, at: usize) {
        let number = |n: usize| std::str::from_utf8(args.get(at + n)?).ok()?.parse::<u64>().ok();
        let read = || {
            let node = NodeId::parse(args.get(at + 1)?)?;
            let lineage = Lineage { epoch: number(3)?, run: number(4)? };
            let offset = i64::try_from(number(5)?).ok()?;
            Some((node, Confirmation { promised: number(2)?, lineage, offset }))
        };
        let Some((node, confirmation)) = read() else { return };
        let Some(bus) = &mut self.bus else { return };
        let confirmers = &mut bus.durable.confirmers;
        match confirmers.iter_mut().find(|(client, _)| *client == id) {
            Some((_, known)) => *known = node,
            None => confirmers.push((id, node)),
        }
        self.with_cluster(|machine, env| machine.on_confirmation(node, confirmation, env));
    }

    /// A client is gone; it may have been a replica that confirms.
    pub(crate) fn forget_confirmer(&mut self, id: ClientId) {
        let Some(bus) = &mut self.bus else { return };
        let confirmers = &mut bus.durable.confirmers;
        let Some(at) = confirmers.iter().position(|(client, _)| *client == id) else { return };
        let (_, node) = confirmers.swap_remove(at);
        // It may have come back by another connection.
        if confirmers.iter().all(|(_, other)| *other != node) {
            self.with_cluster(|machine, env| machine.on_confirmer_gone(node, env));
            self.note_durable_refusal();
        }
    }

    /// Once a turn, and when a replica is gone.
    pub(super) fn note_durable_refusal(&mut self) {
        if let Some(bus) = &mut self.bus {
            bus.durable.refusal = bus.machine.check_confirmable().err();
        }
    }

    /// Sets whether what a client is told waits for replicas to what it is unless the client says otherwise.
    pub(crate) fn set_durable_default(&mut self, id: ClientId) {
        let waits = self.cfg.cluster_durable_acks_default;
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.set(ClientFlags::NOT_DURABLE, !waits);
        }
    }

    /// Whether there may be writes that are refused because they cannot be confirmed.
    pub(crate) fn refuses_unconfirmable(&self) -> bool {
        self.bus.as_ref().is_some_and(|bus| bus.durable.refusal.is_some())
    }

    /// What a write is refused with that cannot be confirmed.
    pub(crate) fn check_confirmable(&self) -> Result<(), CmdError> {
        let refusal = self.bus.as_ref().and_then(|bus| bus.durable.refusal);
        let may_be_lost = || {
            let client = self.clients.current.and_then(|id| self.clients.get(id));
            client.is_some_and(|c| c.is(ClientFlags::NOT_DURABLE))
        };
        match refusal {
            None => Ok(()),
            // It waits until it is known who takes it.
            Some(_) if self.cluster().is_some_and(Cluster::holds_all_clients) => Ok(()),
            Some(Refusal::TooFewReplicas | Refusal::NotAgreed) if may_be_lost() => Ok(()),
            Some(Refusal::TooFewReplicas) => {
                Err(CmdError::of("NOREPLICAS Not enough good replicas to write: too few confirm what they have."))
            }
            Some(Refusal::NotAgreed) => Err(CmdError::of(
                "NOREPLICAS Not enough good replicas to write: which of them count is not agreed on yet.",
            )),
            Some(Refusal::Promised) => {
                Err(CmdError::of("NOREPLICAS Not enough good replicas to write: one of them is taking over."))
            }
            Some(Refusal::Incomplete) => {
                Err(CmdError::of("NOREPLICAS This node may lack acknowledged writes: a replica is to take over."))
            }
        }
    }

    /// Whether replicas must not take this server's data set.
    pub(crate) fn lacks_acknowledged_data(&self) -> bool {
        self.cluster().is_some_and(Cluster::lacks_data)
    }

    /// What has become of acknowledgements that wait; to be asked once a turn.
    pub(crate) fn note_durable_role(&mut self) -> DurableRole {
        let Some(bus) = &mut self.bus else { return DurableRole::None };
        let waits = bus.machine.has_durable_acks();
        let did = std::mem::replace(&mut bus.durable.had_to_wait, waits);
        match (did, waits) {
            (_, true) => DurableRole::Master,
            (false, false) => DurableRole::None,
            (true, false) if bus.machine.myself().is_voter() => DurableRole::Ended,
            (true, false) => DurableRole::Deposed,
        }
    }

    /// Whether confirmations have been missing for long.
    pub(crate) fn note_stalled(&mut self, is_stalled: bool) {
        if let Some(bus) = &mut self.bus {
            bus.machine.set_stalled(is_stalled);
        }
    }

    /// Those who wait for confirmations that do not come are told that what they wrote may be there or not, and go.
    pub(crate) fn give_up_unconfirmed(&mut self, ids: &[ClientId]) {
        for id in ids {
            let Some(c) = self.clients.get_mut(*id) else { continue };
            let waits = !c.is(ClientFlags::REPLICA.union(ClientFlags::MASTER).union(ClientFlags::NOT_DURABLE));
            if !waits || c.out.pending() <= c.out.released() {
                continue;
            }
            c.out.drop_unreleased();
            c.out.append(UNCERTAIN);
            c.out.release_all();
            c.flags.add(ClientFlags::CLOSE_AFTER_REPLY);
            self.clients.want_write(*id);
        }
    }

    // ---- a replica's side ----

    /// Confirms at once what has come since the last time.
    pub(super) fn confirm_what_came(&mut self) {
        let offset = self.vouched_offset();
        let Some(bus) = &mut self.bus else { return };
        let now = offset.and_then(|offset| bus.machine.confirmation(offset));
        if now.is_some() && bus.durable.confirmed != now {
            bus.durable.confirmed = now;
            self.acknowledge_to_master();
        }
    }

    /// The offset up to which this replica has the stream: on disk if it promises that of all it writes. `None` while it
    /// cannot.
    pub(crate) fn vouched_offset(&self) -> Option<i64> {
        let applied = self.repl.replica_offset();
        let promises = self.cfg.appendonly && self.cfg.appendfsync == AppendFsync::Always;
        match (promises, self.persist.aof.fsynced_reploff) {
            (false, _) => Some(applied),
            (true, Some(fsynced)) if self.persist.aof.state == AofState::On => Some(fsynced.min(applied)),
            (true, _) => None,
        }
    }

    /// The data set is about to be replaced by that of a master.
    pub(crate) fn note_data_replaced(&mut self) {
        self.forget_trims();
        self.with_cluster(|machine, env| {
            machine.on_data_replaced();
            machine.forget_imports(env);
        });
        self.review_slots();
    }

    /// The data set was loaded at start from a log.
    pub(crate) fn note_log_loaded(&mut self) {
        if let Some(bus) = &mut self.bus {
            bus.durable.loaded_log = true;
        }
    }

    /// Tells the machine whether all data is in a log that is synced before anybody is told of it.
    pub(super) fn note_whether_logged(&mut self) {
        let is_logged = self.persist.aof.state == AofState::On && self.syncs_always();
        if let Some(bus) = &mut self.bus {
            bus.machine.set_logged(is_logged);
        }
    }
}
