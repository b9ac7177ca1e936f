//! The text of CLUSTER NODES: one line a node, as one node sees them.

use super::parse_address;
use super::slots::{SLOTS, SlotSet};

/// One line of CLUSTER NODES.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct NodeLine {
    /// Node ID, 40 hex digits.
    pub(crate) id: String,
    /// Host; empty when the cluster does not know it.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) bus_port: u16,
    /// The address as written in the line.
    pub(crate) address: String,
    /// `myself`, `master`, `fail` and so on.
    pub(crate) flags: Vec<String>,
    /// The master of a replica.
    pub(crate) master: Option<String>,
    /// Config epoch.
    pub(crate) epoch: u64,
    /// Whether the link to the node is up.
    pub(crate) connected: bool,
    /// Slots it serves.
    pub(crate) slots: SlotSet,
    /// Slots it gives away, and to whom.
    pub(crate) migrating: Vec<(u16, String)>,
    /// Slots it takes over, and from whom.
    pub(crate) importing: Vec<(u16, String)>,
}

impl NodeLine {
    pub(crate) fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|f| f == flag)
    }
}

/// Reads the reply of CLUSTER NODES. `None` when a line is malformed.
pub(crate) fn parse(text: &str) -> Option<Vec<NodeLine>> {
    text.lines().filter(|line| !line.is_empty()).map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<NodeLine> {
    let mut words = line.split(' ');
    let id = words.next()?.to_string();
    let address = words.next()?.to_string();
    let flags: Vec<String> = words.next()?.split(',').map(str::to_string).collect();
    let master = words.next()?;
    let _ping_sent = words.next()?;
    let _pong_received = words.next()?;
    let epoch = words.next()?.parse().ok()?;
    let connected = words.next()? == "connected";
    let (host, port, bus_port) = parse_address(&address)?;
    let mut node = NodeLine {
        id,
        host,
        port,
        bus_port: bus_port.unwrap_or_default(),
        address,
        flags,
        master: (master != "-").then(|| master.to_string()),
        epoch,
        connected,
        ..NodeLine::default()
    };
    for word in words.filter(|word| !word.is_empty()) {
        match word.strip_prefix('[').and_then(|w| w.strip_suffix(']')) {
            Some(open) => {
                if let Some((slot, id)) = open.split_once("->-") {
                    node.migrating.push((slot_number(slot)?, id.to_string()));
                } else {
                    let (slot, id) = open.split_once("-<-")?;
                    node.importing.push((slot_number(slot)?, id.to_string()));
                }
            }
            None => {
                let (first, last) = word.split_once('-').unwrap_or((word, word));
                for slot in slot_number(first)?..=slot_number(last)? {
                    node.slots.insert(slot);
                }
            }
        }
    }
    Some(node)
}

fn slot_number(text: &str) -> Option<u16> {
    text.parse().ok().filter(|slot| *slot < SLOTS)
}

/// The nodes that serve slots, by ID, with the ranges each serves.
pub(crate) type Signature = Vec<(String, Vec<(u16, u16)>)>;

/// Who serves what; equal for two views that agree. `None` when no slot is assigned at all.
pub(crate) fn signature(nodes: &[NodeLine]) -> Option<Signature> {
    let mut owners: Vec<_> =
        nodes.iter().filter(|node| !node.slots.is_empty()).map(|node| (node.id.clone(), node.slots.ranges())).collect();
    owners.sort();
    (!owners.is_empty()).then_some(owners)
}

#[cfg(test)]
mod tests {
    use super::super::slots;
    use super::*;

    const TEXT: &str = "\
aa 127.0.0.1:7000@17000 myself,master - 0 1700000000000 1 connected 0-5460 6000 [93-<-bb] [94->-bb]
bb 127.0.0.1:7001@17001,host.example,,shard-id=x master - 0 0 2 disconnected 5461-5999
cc :0@0 slave,fail,noaddr aa 0 0 0 disconnected
";

    #[test]
    fn lines() {
        let nodes = parse(TEXT).unwrap();
        assert_eq!(nodes.len(), 3);
        let a = &nodes[0];
        assert!(a.is("myself") && a.connected && a.master.is_none());
        assert_eq!((a.port, a.bus_port, a.epoch), (7000, 17000, 1));
        assert_eq!(slots::text(&a.slots), "[0-5460],[6000]");
        assert_eq!(a.importing, [(93, "bb".to_string())]);
        assert_eq!(a.migrating, [(94, "bb".to_string())]);
        assert_eq!(nodes[1].host, "127.0.0.1");
        assert!(!nodes[1].connected);
        assert_eq!(nodes[2].master.as_deref(), Some("aa"));
        assert_eq!(nodes[2].host, "");
    }

    #[test]
    fn nonsense() {
        for line in [
            "aa",
            "aa b:1 master - 0 0 x connected",
            "aa b:1 master - 0 0 1 connected 16384",
            "aa b:1 master - 0 0 1 connected [93-bb]",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn signatures_ignore_order_and_what_is_open() {
        let nodes = parse(TEXT).unwrap();
        let mut other = nodes.clone();
        other.reverse();
        other[2].migrating.clear();
        assert_eq!(signature(&nodes), signature(&other));
        other[2].slots.remove(0);
        assert_ne!(signature(&nodes), signature(&other));
        assert_eq!(signature(&nodes[2..]), None);
    }
}
