//! The cluster as its reachable nodes describe it, each node about itself.

use std::collections::BTreeMap;
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use super::node::Node;
use super::nodes_text::{self, NodeLine};
use super::slots::{SLOTS, SlotSet};
use super::{Outcome, Stop, caution, err, ok, parse_address};
use crate::cli::options::Options;
use crate::cli::term::{complain, say};
use crate::resp::reply_reader::Reply;

/// How often the nodes are asked whether they have joined.
const JOIN_POLL: Duration = Duration::from_millis(100);

/// Seconds of waiting after which links that are down are reported.
const JOIN_REPORT_AFTER_S: f64 = 15.0;

pub(crate) struct View {
    /// The nodes; the first is the one the user named.
    pub(crate) nodes: Vec<Node>,
    /// Number of masters that could not be asked.
    pub(crate) unreachable_masters: usize,
    /// Problems found so far.
    pub(crate) errors: Vec<String>,
}

impl View {
    /// A view of nodes that are known already.
    pub(crate) fn of(nodes: Vec<Node>) -> View {
        View { nodes, unreachable_masters: 0, errors: Vec::new() }
    }

    /// Asks one node for the others and every node for itself.
    pub(crate) fn load(opts: &Options, host: &str, port: u16) -> Outcome<View> {
        let mut first = Node::new(host, port);
        first.connect(opts)?;
        first.require_cluster_mode()?;
        let others = first.load()?;
        let mut view = View::of(vec![first]);
        for line in others {
            match reach(opts, &line) {
                Some(node) => view.nodes.push(node),
                None => view.unreachable_masters += usize::from(!line.is("slave")),
            }
        }
        view.count_replicas();
        Ok(view)
    }

    fn count_replicas(&mut self) {
        let masters: Vec<Option<String>> = self.nodes.iter().map(|n| n.master.clone()).collect();
        for (index, master) in masters.into_iter().enumerate() {
            let Some(master) = master else { continue };
            match self.find(&master) {
                Some(at) => self.nodes[at].replicas += 1,
                None => caution!(
                    "*** WARNING: {} claims to be slave of unknown node ID {master}.\n",
                    self.nodes[index].address()
                ),
            }
        }
    }

    /// Index of the node with this ID.
    pub(crate) fn find(&self, id: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.id.eq_ignore_ascii_case(id))
    }

    /// Indices of the masters.
    pub(crate) fn masters(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|at| !self.nodes[*at].is_replica()).collect()
    }

    /// Index of the master with the fewest replicas, other than `except`.
    pub(crate) fn least_replicated_master(&self, except: Option<usize>) -> Option<usize> {
        self.masters().into_iter().filter(|at| Some(*at) != except).min_by_key(|at| self.nodes[*at].replicas)
    }

    /// Two nodes at once.
    ///
    /// # Panics
    /// When both indices are the same.
    pub(crate) fn pair(&mut self, a: usize, b: usize) -> (&mut Node, &mut Node) {
        assert_ne!(a, b);
        let (low, high) = self.nodes.split_at_mut(a.max(b));
        if a < b { (&mut low[a], &mut high[0]) } else { (&mut high[0], &mut low[b]) }
    }

    /// Notes a problem and prints it.
    pub(crate) fn problem(&mut self, text: String) {
        err!("{text}\n");
        self.errors.push(text);
    }

    /// The slots somebody serves.
    pub(crate) fn covered(&self) -> SlotSet {
        self.nodes.iter().flat_map(|node| node.slots.iter()).collect()
    }

    pub(crate) fn show(&self) {
        for node in &self.nodes {
            say!("{}\n", node.describe(0));
        }
    }

    /// Prints keys, slots and replicas of every master.
    pub(crate) fn show_summary(&mut self) -> Outcome {
        let mut total = 0;
        let masters = self.masters();
        for at in &masters {
            let node = &mut self.nodes[*at];
            let reply = node.must_words("DBSIZE")?;
            let keys = reply.integer().unwrap_or(0);
            total += keys;
            let short = node.id.get(..8).unwrap_or(&node.id);
            say!(
                "{} ({short}...) -> {keys} keys | {} slots | {} slaves.\n",
                node.address(),
                node.slots.len(),
                node.replicas
            );
        }
        ok!("[OK] {total} keys in {} masters.\n", masters.len());
        say!("{:.2} keys per slot on average.\n", total as f64 / f64::from(SLOTS));
        Ok(())
    }

    /// Whether all nodes agree on who serves what.
    pub(crate) fn is_consistent(&mut self) -> bool {
        self.nodes.len() <= 1 || self.agreed_views().is_some()
    }

    /// Every node's view, if they agree on who serves what.
    fn agreed_views(&mut self) -> Option<Vec<Vec<NodeLine>>> {
        let mut views = Vec::new();
        let mut agreed = None;
        for node in &mut self.nodes {
            let text = node.words("CLUSTER NODES").ok()?.text_lossy();
            let lines = nodes_text::parse(&text)?;
            let signature = nodes_text::signature(&lines)?;
            match &agreed {
                None => agreed = Some(signature),
                Some(other) if *other == signature => {}
                Some(_) => return None,
            }
            views.push(lines);
        }
        Some(views)
    }

    /// Whether all nodes know each other and agree on who serves what.
    fn has_joined(&mut self) -> bool {
        let Some(views) = self.agreed_views() else {
            return false;
        };
        views.iter().all(|lines| {
            self.nodes.iter().all(|node| lines.iter().any(|line| line.id == node.id && !line.is("handshake")))
        })
    }

    /// Waits until the nodes have joined, a dot a second.
    pub(crate) fn wait_join(&mut self) {
        say!("Waiting for the cluster to join\n");
        let report_after = Duration::from_secs_f64(JOIN_REPORT_AFTER_S + self.nodes.len() as f64 * 0.15);
        let mut next_dot = Instant::now();
        let mut reported = Instant::now();
        while !self.has_joined() {
            if Instant::now() >= next_dot {
                say!(".");
                next_dot += Duration::from_secs(1);
            }
            if reported.elapsed() > report_after {
                self.report_links();
                reported = Instant::now();
            }
            std::thread::sleep(JOIN_POLL);
        }
        say!("\n");
    }

    /// Prints which nodes can not be reached from which.
    fn report_links(&mut self) {
        let mut unreachable: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for node in &mut self.nodes {
            let from = node.address();
            for line in node.cluster_nodes().unwrap_or_default() {
                if !line.is("myself") && (!line.connected || line.is("handshake")) {
                    unreachable.entry(line.address).or_default().push(from.clone());
                }
            }
        }
        if unreachable.is_empty() {
            return;
        }
        say!("\n");
        err!("Warning: {} node(s) may be unreachable\n", unreachable.len());
        for (address, from) in unreachable {
            match parse_address(&address) {
                Some((host, _, Some(bus))) if bus != 0 => {
                    err!(" - The port {bus} of node {host} may be unreachable from:\n")
                }
                _ => err!(" - Node {address} may be unreachable from:\n"),
            }
            for node in from {
                err!("   {node}\n");
            }
        }
        err!(
            "Cluster bus ports must be reachable by every node.\n\
             Remember that cluster bus ports are different from standard instance ports.\n"
        );
    }

    /// Introduces the node at `newcomer` to the one at `known`.
    pub(crate) fn meet(&mut self, newcomer: usize, known: usize) -> Outcome<Reply> {
        let known = &self.nodes[known];
        // CLUSTER MEET takes addresses only; the user may have given a name.
        let address = (known.host.as_str(), known.port).to_socket_addrs().ok().and_then(|mut found| found.next());
        let Some(address) = address else {
            complain!("Invalid IP address or hostname specified: {}\n", known.host);
            return Err(Stop);
        };
        let mut line = format!("CLUSTER MEET {} {}", address.ip(), known.port);
        if !known.has_default_bus_port() {
            line.push_str(&format!(" {}", known.bus_port));
        }
        self.nodes[newcomer].must_words(&line)
    }
}

/// Connects to a node that another one listed, and asks it about itself.
fn reach(opts: &Options, line: &NodeLine) -> Option<Node> {
    if line.host.is_empty() || line.port == 0 || line.is("noaddr") || line.is("handshake") {
        return None;
    }
    let mut node = Node::new(&line.host, line.port);
    node.connect(opts).ok()?;
    if node.load().is_err() {
        err!("[ERR] Unable to load info for node {}\n", node.address());
        return None;
    }
    (!line.is("fail")).then_some(node)
}
