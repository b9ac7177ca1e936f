//! Decides which node serves a request: this one, another (MOVED, ASK), or none.

use super::node::NodeKey;
use super::{Cluster, Endpoint};
use crate::structs::slots::{Slot, key_slot};

/// The properties that routing needs of a command, or of all commands of a transaction together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request {
    /// It may write (for EXEC: one of the queued commands may).
    pub(crate) writes: bool,
    /// SSUBSCRIBE, SUNSUBSCRIBE or SPUBLISH: keys are channels.
    pub(crate) shard_channels: bool,
    /// The command is MIGRATE.
    pub(crate) migrate: bool,
    /// The client sent ASKING, or the command implies it (RESTORE-ASKING).
    pub(crate) asking: bool,
    /// The client sent READONLY.
    pub(crate) readonly: bool,
    /// The machine's time; read just now for a write.
    pub(crate) now_ms: i64,
}

/// Why this node does not serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The keys are in different slots.
    CrossSlot,
    /// Several keys of a moving slot, some of which are here.
    TryAgain,
    /// Another node serves the slot.
    Moved(Slot, NodeKey),
    /// The slot is moving to another node, which may have the key.
    Ask(Slot, NodeKey),
    /// The cluster is down.
    Down,
    /// The cluster is down, and only reads are served then.
    DownReadOnly,
    /// Nobody serves the slot.
    Unbound,
}

/// A decision in progress: takes the keys of a request one by one, then decides.
pub(crate) struct Routing<'m, 'k> {
    machine: &'m Cluster,
    shard_channels: bool,
    first: Option<(&'k [u8], Slot, NodeKey)>,
    refusal: Option<Refusal>,
    migrating: Option<NodeKey>,
    importing: bool,
    present: bool,
    missing: bool,
    several: bool,
}

impl<'k> Routing<'_, 'k> {
    /// Adds a key. `exists` says whether it is in the keyspace; it is called only while its slot moves.
    pub(crate) fn key(&mut self, key: &'k [u8], exists: impl FnOnce(&[u8]) -> bool) {
        if self.refusal.is_some() {
            return;
        }
        let machine = self.machine;
        let slot = key_slot(key);
        match self.first {
            None => {
                let Some(owner) = machine.owner_of(slot) else {
                    self.refusal = Some(Refusal::Unbound);
                    return;
                };
                self.first = Some((key, slot, owner));
                if owner == machine.myself {
                    self.migrating = machine.migrating.get(&slot).copied();
                }
                self.importing = self.migrating.is_none() && machine.importing.contains_key(&slot);
            }
            Some((_, first_slot, _)) if first_slot != slot => {
                self.refusal = Some(Refusal::CrossSlot);
                return;
            }
            Some((first_key, ..)) => self.several |= first_key != key,
        }
        if (self.migrating.is_some() || self.importing) && !self.shard_channels {
            if exists(key) { self.present = true } else { self.missing = true }
        }
    }

    /// Decides. `Ok` carries the slot, or `None` if no key was added.
    pub(crate) fn decide(self, request: &Request) -> Result<Option<Slot>, Refusal> {
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
        let Some((_, slot, owner)) = self.first else { return Ok(None) };
        let machine = self.machine;
        if (!machine.state_ok || !machine.holds_lease(request.now_ms)) && !machine.holds_all_clients() {
            let config = &machine.config;
            match request.shard_channels {
                true if !config.allow_pubsubshard_when_down => return Err(Refusal::Down),
                true => {}
                false if !config.allow_reads_when_down => return Err(Refusal::Down),
                false if request.writes => return Err(Refusal::DownReadOnly),
                false => {}
            }
        }
        // MIGRATE may move keys of an open slot, whoever owns it.
        if request.migrate && (self.migrating.is_some() || self.importing) {
            return Ok(Some(slot));
        }
        if let (Some(target), true) = (self.migrating, self.missing) {
            return Err(if self.present { Refusal::TryAgain } else { Refusal::Ask(slot, target) });
        }
        if self.importing && request.asking {
            return if self.several && self.missing { Err(Refusal::TryAgain) } else { Ok(Some(slot)) };
        }
        let reads_of_master = (request.readonly || request.shard_channels)
            && !request.writes
            && machine.myself().is_replica()
            && machine.myself().replica_of == Some(owner);
        if owner == machine.myself || reads_of_master {
            return Ok(Some(slot));
        }
        Err(Refusal::Moved(slot, owner))
    }
}

impl Cluster {
    /// Begins to decide about a request. `shard_channels`: its keys are channels.
    pub(crate) fn routing<'k>(&self, shard_channels: bool) -> Routing<'_, 'k> {
        Routing {
            machine: self,
            shard_channels,
            first: None,
            refusal: None,
            migrating: None,
            importing: false,
            present: false,
            missing: false,
            several: false,
        }
    }

    /// The error reply for a refusal, with its code but without the leading `-`. `tls` chooses the port.
    pub(crate) fn refusal_text(&self, refusal: Refusal, tls: bool) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterConfig, Env, SetSlot};

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    /// A node that owns the lower half of the slots; another one has the upper half, without its last slot.
    fn cluster(role: &str) -> Cluster {
        let (mine, theirs) = if role == "slave" { (B, A) } else { (A, B) };
        let text = format!(
            "{A} 10.0.0.1:7000@17000 {}master - 0 0 1 connected 0-8191\n\
             {B} 10.0.0.2:7001@17001 {}{} 0 0 2 connected {}\n",
            if mine == A { "myself," } else { "" },
            if mine == B { "myself," } else { "" },
            if role == "slave" { format!("slave {A}") } else { "master -".into() },
            if role == "slave" { "" } else { "8192-16382" },
        );
        let config = ClusterConfig { require_full_coverage: false, ..ClusterConfig::default() };
        let mut c = Cluster::from_nodes_conf(config, 1, 1000, &text).unwrap();
        let env = |now_ms| Env { replicating: true, master_link_up: true, ..Env::at(now_ms) };
        c.flush(&env(1000));
        c.tick(&env(9000));
        c.flush(&env(9000));
        (c.state_ok, c.lease_end_ms) = (true, 10_000);
        assert!(c.find(theirs.as_bytes()).is_some());
        c
    }

    fn route(c: &Cluster, request: Request, keys: &[&str], there: &[&str]) -> Result<Option<Slot>, String> {
        let mut routing = c.routing(request.shard_channels);
        for key in keys {
            routing.key(key.as_bytes(), |k| there.iter().any(|t| t.as_bytes() == k));
        }
        routing.decide(&request).map_err(|r| c.refusal_text(r, false))
    }

    fn key_for(slots: std::ops::RangeInclusive<Slot>) -> String {
        (0..).map(|i: u32| format!("key{i}")).find(|k| slots.contains(&key_slot(k.as_bytes()))).unwrap()
    }

    #[test]
    fn masters_serve_their_own_slots() {
        let c = cluster("master");
        let (mine, other) = (key_for(0..=8191), key_for(8192..=16382));
        let plain = Request::default();
        assert_eq!(route(&c, plain, &[], &[]), Ok(None));
        assert_eq!(route(&c, plain, &[&mine, &mine], &[]), Ok(Some(key_slot(mine.as_bytes()))));
        let slot = key_slot(other.as_bytes());
        assert_eq!(route(&c, plain, &[&other], &[]), Err(format!("MOVED {slot} 10.0.0.2:7001")));
        let cross = "CROSSSLOT Keys in request don't hash to the same slot";
        assert_eq!(route(&c, plain, &[&mine, &other], &[]), Err(cross.into()));
        let nobody = key_for(16383..=16383);
        assert_eq!(route(&c, plain, &[&nobody], &[]), Err("CLUSTERDOWN Hash slot not served".into()));
    }

    #[test]
    fn slots_that_move() {
        let mut c = cluster("master");
        let env = Env { ..Env::at(9000) };
        let slot = key_slot(b"{m}");
        let (other, from) = (key_for(8192..=16382), key_slot(key_for(8192..=16382).as_bytes()));
        let mine = (0..).map(|i: u32| format!("k{i}")).find(|k| key_slot(k.as_bytes()) < 8192).unwrap();
        let (a, b) = (format!("{{{mine}}}a"), format!("{{{mine}}}b"));
        let moving = key_slot(mine.as_bytes());
        c.set_slot(moving, SetSlot::Migrating(B.as_bytes()), &env).unwrap();
        c.set_slot(from, SetSlot::Importing(B.as_bytes()), &env).unwrap();
        let plain = Request::default();
        assert_eq!(route(&c, plain, &[&a], &[&a]), Ok(Some(moving)));
        assert_eq!(route(&c, plain, &[&a], &[]), Err(format!("ASK {moving} 10.0.0.2:7001")));
        let again = "TRYAGAIN Multiple keys request during rehashing of slot";
        assert_eq!(route(&c, plain, &[&a, &b], &[&a]), Err(again.into()));
        assert_eq!(route(&c, Request { migrate: true, ..plain }, &[&a], &[]), Ok(Some(moving)));
        let asking = Request { asking: true, ..plain };
        assert!(route(&c, plain, &[&other], &[]).unwrap_err().starts_with("MOVED"));
        assert_eq!(route(&c, asking, &[&other], &[]), Ok(Some(from)));
        let (x, y) = (format!("{{{other}}}x"), format!("{{{other}}}y"));
        assert_eq!(route(&c, asking, &[&x, &y], &[&x]), Err(again.into()));
        assert_eq!(route(&c, asking, &[&x, &y], &[&x, &y]), Ok(Some(from)));
        let _ = slot;
    }

    #[test]
    fn replicas_read_for_those_who_say_readonly() {
        let c = cluster("slave");
        let key = key_for(0..=8191);
        let plain = Request::default();
        assert!(route(&c, plain, &[&key], &[]).unwrap_err().starts_with("MOVED"));
        let readonly = Request { readonly: true, ..plain };
        assert!(route(&c, readonly, &[&key], &[]).is_ok());
        assert!(route(&c, Request { writes: true, ..readonly }, &[&key], &[]).is_err());
        assert!(route(&c, Request { shard_channels: true, ..plain }, &[&key], &[]).is_ok());
    }
}
