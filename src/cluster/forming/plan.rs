//! Who does what in a cluster that is about to form, and what nodes tell each other of it.

use std::collections::{BTreeMap, VecDeque};

use crate::cluster::node::NodeId;
use crate::structs::slots::{SLOT_COUNT, Slot};

/// Messages of forming go as those of a module of this name: Redis nodes skip them.
pub(in crate::cluster) const MODULE_ID: u64 = u64::from_ne_bytes(*b"hxd-form");

/// The nodes of a cluster: its masters, then their replicas, by turns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Plan {
    /// Who made it, and a number that tells its plans apart.
    pub(super) founder: NodeId,
    pub(super) run: u64,
    pub(super) masters: u16,
    pub(super) members: Vec<NodeId>,
}

impl Plan {
    /// The master that a member is to follow; `None` if it is to be one itself.
    pub(super) fn master_of(&self, at: usize) -> Option<NodeId> {
        let masters = usize::from(self.masters);
        (at >= masters).then(|| self.members[(at - masters) % masters])
    }

    pub(super) fn place_of(&self, id: &NodeId) -> Option<usize> {
        self.members.iter().position(|member| member == id)
    }

    /// The slots of each master, rounded as redis-cli does it.
    pub(super) fn slots_of(&self, at: usize) -> std::ops::Range<Slot> {
        let masters = usize::from(self.masters);
        let start = |n: usize| ((2 * n * SLOT_COUNT + masters) / (2 * masters)) as Slot;
        start(at)..start(at + 1)
    }

    /// As `nodes.conf` has it.
    pub(super) fn print(&self) -> String {
        let ids: Vec<&str> = self.members.iter().map(NodeId::as_str).collect();
        format!("{}:{}:{}:{}", self.founder, self.run, self.masters, ids.join(","))
    }

    pub(super) fn parse(text: &str) -> Option<Plan> {
        let mut parts = text.split(':');
        let plan = Plan {
            founder: NodeId::parse(parts.next()?.as_bytes())?,
            run: parts.next()?.parse().ok()?,
            masters: parts.next()?.parse().ok()?,
            members: parts.next()?.split(',').map(|id| NodeId::parse(id.as_bytes())).collect::<Option<_>>()?,
        };
        plan.is_sound().then_some(plan)
    }

    fn is_sound(&self) -> bool {
        self.masters > 0 && usize::from(self.masters) <= self.members.len()
    }
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) struct Status {
    /// How many masters, and replicas of each, it is configured for.
    pub(in crate::cluster) masters: u16,
    pub(in crate::cluster) replicas: u16,
    /// It has neither data nor slots nor a master.
    pub(in crate::cluster) is_blank: bool,
    /// Its availability zone, empty if it does not say.
    pub(in crate::cluster) zone: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cluster) enum Message {
    Status(Status),
    /// Whether the receiver would do as this plan says.
    Propose(Plan),
    Accept(u64),
    /// All have accepted: it is to be carried out.
    Carry(Plan),
}

impl Message {
    pub(super) fn encode(&self) -> (u8, Vec<u8>) {
        let mut out = Vec::new();
        let kind = match self {
            Message::Status(status) => {
                out.extend_from_slice(&status.masters.to_be_bytes());
                out.extend_from_slice(&status.replicas.to_be_bytes());
                out.push(u8::from(status.is_blank));
                out.extend_from_slice(status.zone.as_bytes());
                1
            }
            Message::Accept(run) => {
                out.extend_from_slice(&run.to_be_bytes());
                2
            }
            Message::Propose(plan) | Message::Carry(plan) => {
                out.extend_from_slice(plan.print().as_bytes());
                if matches!(self, Message::Propose(_)) { 3 } else { 4 }
            }
        };
        (kind, out)
    }

    pub(in crate::cluster) fn decode(kind: u8, payload: &[u8]) -> Option<Message> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
        match kind {
            1 => {
                let (numbers, zone) = payload.split_first_chunk::<5>()?;
                let number = |at: usize| u16::from_be_bytes([numbers[at], numbers[at + 1]]);
                let (masters, replicas, is_blank) = (number(0), number(2), numbers[4] != 0);
                Some(Message::Status(Status { masters, replicas, is_blank, zone: text(zone)? }))
            }
            2 => Some(Message::Accept(u64::from_be_bytes(payload.try_into().ok()?))),
            3 => Some(Message::Propose(Plan::parse(&text(payload)?)?)),
            4 => Some(Message::Carry(Plan::parse(&text(payload)?)?)),
            _ => None,
        }
    }
}

/// Orders nodes, each with its zone, as a plan has them: masters spread over the zones, and replicas in zones in which their
/// master and its other replicas are not, as far as that can be.
pub(super) fn lay_out(nodes: &[(NodeId, String)], masters: usize) -> Vec<NodeId> {
    let mut zones: BTreeMap<&str, VecDeque<NodeId>> = BTreeMap::new();
    for (id, zone) in nodes {
        zones.entry(zone).or_default().push_back(*id);
    }
    let mut order = Vec::new();
    while order.len() < nodes.len() {
        order.extend(zones.values_mut().filter_map(VecDeque::pop_front));
    }
    let zone_of: BTreeMap<NodeId, &str> = nodes.iter().map(|(id, zone)| (*id, zone.as_str())).collect();
    // How many pairs of one shard are in one zone, for the members at these places.
    let conflicts = |order: &[NodeId], at: usize| {
        let shard = (at % masters..order.len()).step_by(masters).filter(|other| *other != at);
        shard.filter(|other| zone_of[&order[*other]] == zone_of[&order[at]]).count()
    };
    // Replicas change places as long as that makes it better.
    for _ in 0..nodes.len() {
        let mut is_better = false;
        for a in masters..order.len() {
            for b in a + 1..order.len() {
                let before = conflicts(&order, a) + conflicts(&order, b);
                order.swap(a, b);
                if conflicts(&order, a) + conflicts(&order, b) < before {
                    is_better = true;
                } else {
                    order.swap(a, b);
                }
            }
        }
        if !is_better {
            break;
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::node::some_ids as ids;
    use proptest::prelude::*;

    #[test]
    fn slots_are_shared_as_redis_cli_does_it() {
        let plan = |masters| Plan { founder: ids(1)[0], run: 1, masters, members: ids(6) };
        let shares = |masters: u16| (0..usize::from(masters)).map(|at| plan(masters).slots_of(at)).collect::<Vec<_>>();
        assert_eq!(plan(1).slots_of(0), 0..16384);
        assert_eq!(shares(3), [0..5461, 5461..10923, 10923..16384]);
        assert_eq!(shares(6)[5], 13653..16384);
        assert_eq!(plan(3).master_of(2), None);
        assert_eq!(plan(3).master_of(4), Some(plan(3).members[1]));
    }

    #[test]
    fn a_shard_is_spread_over_zones() {
        for (zones, masters, conflicts) in [
            (&["a", "a", "b", "b", "c", "c"][..], 3, 0),
            (&["a", "b", "c", "a", "b", "c", "a", "b", "c"], 3, 0),
            (&["a", "a", "a", "b", "b", "b"], 3, 0),
            (&["a", "a", "a", "a", "b", "b"], 3, 1),
            (&["a"; 4], 2, 2),
        ] {
            let nodes: Vec<_> = ids(zones.len()).into_iter().zip(zones.iter().map(|z| z.to_string())).collect();
            let order = lay_out(&nodes, masters);
            let zone = |at: usize| &nodes.iter().find(|(id, _)| *id == order[at]).unwrap().1;
            let same = (0..order.len()).flat_map(|a| (0..a).map(move |b| (a, b)));
            let same = same.filter(|(a, b)| a % masters == b % masters && zone(*a) == zone(*b)).count();
            assert_eq!(same, conflicts, "{zones:?}");
            let of_masters: std::collections::BTreeSet<_> = (0..masters).map(zone).collect();
            assert!(of_masters.len() == masters.min(zones.iter().collect::<std::collections::BTreeSet<_>>().len()));
        }
    }

    #[test]
    fn messages_are_read_back() {
        let plan = Plan { founder: ids(1)[0], run: 77, masters: 2, members: ids(5) };
        let status = Status { masters: 3, replicas: 1, is_blank: true, zone: "eu-1".into() };
        for message in
            [Message::Status(status), Message::Propose(plan.clone()), Message::Accept(9), Message::Carry(plan)]
        {
            let (kind, payload) = message.encode();
            assert_eq!(Message::decode(kind, &payload), Some(message));
        }
        let none = Plan { founder: ids(1)[0], run: 1, masters: 0, members: ids(1) };
        assert_eq!(Plan::parse(&none.print()), None);
    }

    proptest! {
        #[test]
        fn nothing_that_comes_panics(kind in 0u8..6, payload in prop::collection::vec(any::<u8>(), 0..120)) {
            let _ = Message::decode(kind, &payload);
        }
    }
}
