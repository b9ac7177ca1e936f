//! Which node serves a request: this one, another (MOVED, ASK), or none.

use super::node::NodeKey;
use super::slots::{Slot, key_slot};
use super::{Cluster, Endpoint};

/// What routing must know of a command, or of all commands of a transaction together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// It may write (for EXEC: one of the queued commands may).
    pub writes: bool,
    /// SSUBSCRIBE, SUNSUBSCRIBE or SPUBLISH: keys are channels.
    pub shard_channels: bool,
    /// MIGRATE.
    pub migrate: bool,
    /// The client said ASKING, or the command implies it (RESTORE-ASKING).
    pub asking: bool,
    /// The client said READONLY.
    pub readonly: bool,
}

/// Why this node does not serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The keys are of different slots.
    CrossSlot,
    /// Several keys of a slot that is moving, of which some are here.
    TryAgain,
    /// Another node serves the slot.
    Moved(Slot, NodeKey),
    /// Another node is about to serve the slot, and may have the key.
    Ask(Slot, NodeKey),
    /// The cluster is down.
    Down,
    /// The cluster is down, and only reads are served then.
    DownReadOnly,
    /// Nobody serves the slot.
    Unbound,
}

impl Cluster {
    /// Decides about a request with these keys, in their order. `exists` says whether a key is in the keyspace; it is asked
    /// only while a slot moves. `Ok` carries the slot, or `None` if there is no key.
    pub fn route<'k>(
        &self,
        request: &Request,
        keys: impl IntoIterator<Item = &'k [u8]>,
        mut exists: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Slot>, Refusal> {
        let mut first: Option<(&[u8], Slot, NodeKey)> = None;
        let (mut migrating, mut importing) = (None, false);
        let (mut present, mut missing, mut several) = (false, false, false);
        for key in keys {
            let slot = key_slot(key);
            match first {
                None => {
                    let owner = self.owner_of(slot).ok_or(Refusal::Unbound)?;
                    first = Some((key, slot, owner));
                    if owner == self.myself {
                        migrating = self.migrating.get(&slot).copied();
                    }
                    importing = migrating.is_none() && self.importing.contains_key(&slot);
                }
                Some((_, first_slot, _)) if first_slot != slot => return Err(Refusal::CrossSlot),
                Some((first_key, ..)) => several |= first_key != key,
            }
            if (migrating.is_some() || importing) && !request.shard_channels {
                if exists(key) { present = true } else { missing = true }
            }
        }
        let Some((_, slot, owner)) = first else {
            return Ok(None);
        };

        if !self.state_ok {
            let config = &self.config;
            match request.shard_channels {
                true if !config.allow_pubsubshard_when_down => return Err(Refusal::Down),
                true => {}
                false if !config.allow_reads_when_down => return Err(Refusal::Down),
                false if request.writes => return Err(Refusal::DownReadOnly),
                false => {}
            }
        }
        // MIGRATE moves keys of an open slot, whoever they belong to.
        if request.migrate && (migrating.is_some() || importing) {
            return Ok(Some(slot));
        }
        if let (Some(target), true) = (migrating, missing) {
            return Err(if present { Refusal::TryAgain } else { Refusal::Ask(slot, target) });
        }
        if importing && request.asking {
            return if several && missing { Err(Refusal::TryAgain) } else { Ok(Some(slot)) };
        }
        let reads_of_master = (request.readonly || request.shard_channels)
            && !request.writes
            && self.myself().is_replica()
            && self.myself().replica_of == Some(owner);
        if owner == self.myself || reads_of_master {
            return Ok(Some(slot));
        }
        Err(Refusal::Moved(slot, owner))
    }

    /// Must a client that is blocked on `key` be sent away? `readonly` if it said READONLY and only reads.
    pub fn route_blocked(&self, key: &[u8], readonly: bool) -> Result<(), Refusal> {
        if !self.state_ok {
            return Err(Refusal::Down);
        }
        let slot = key_slot(key);
        let owner = self.owner_of(slot);
        let reads_of_master =
            readonly && self.myself().is_replica() && owner.is_some() && self.myself().replica_of == owner;
        if owner == Some(self.myself) || reads_of_master || self.importing.contains_key(&slot) {
            return Ok(());
        }
        Err(owner.map_or(Refusal::Unbound, |key| Refusal::Moved(slot, key)))
    }

    /// The error reply for a refusal, with its code but without the leading `-`. `tls` chooses the port.
    pub fn refusal_text(&self, refusal: Refusal, tls: bool) -> String {
        let redirect = |word: &str, slot: Slot, key: NodeKey| {
            let node = self.node(key);
            let address = match self.endpoint(node) {
                Endpoint::Known(address) => address,
                Endpoint::SameAddress => "",
            };
            format!("{word} {slot} {address}:{}", node.client_port(tls))
        };
        match refusal {
            Refusal::CrossSlot => "CROSSSLOT Keys in request don't hash to the same slot".into(),
            Refusal::TryAgain => "TRYAGAIN Multiple keys request during rehashing of slot".into(),
            Refusal::Down => "CLUSTERDOWN The cluster is down".into(),
            Refusal::DownReadOnly => "CLUSTERDOWN The cluster is down and only accepts read commands".into(),
            Refusal::Unbound => "CLUSTERDOWN Hash slot not served".into(),
            Refusal::Moved(slot, key) => redirect("MOVED", slot, key),
            Refusal::Ask(slot, key) => redirect("ASK", slot, key),
        }
    }
}
