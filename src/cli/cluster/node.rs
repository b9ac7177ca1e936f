//! One node of the cluster: what it said about itself, and a connection to it.

use std::fmt;

use super::nodes_text::{self, NodeLine};
use super::slots::{self, SlotSet};
use super::{Outcome, Stop, err};
use crate::cli::connection::{Connection, LinkError, describe, encode_command};
use crate::cli::modes::info_number;
use crate::cli::options::Options;
use crate::cli::term::complain;
use crate::resp::reply_reader::Reply;

/// The cluster bus listens this far above the port for clients, unless configured otherwise.
const BUS_PORT_OFFSET: u16 = 10_000;

/// Why a node did not do what it was asked.
#[derive(Debug)]
pub(crate) enum NodeError {
    /// It replied with an error.
    Refused(String),
    /// The connection broke.
    Link(LinkError),
}

impl fmt::Display for NodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NodeError::Refused(text) => f.write_str(text),
            NodeError::Link(error) => error.fmt(f),
        }
    }
}

/// See the module description.
pub(crate) struct Node {
    /// Host as given by the user or by the cluster.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) bus_port: u16,
    /// 40 hexadecimal digits.
    pub(crate) id: String,
    /// Flags as CLUSTER NODES lists them.
    pub(crate) flags: Vec<String>,
    /// The master this node replicates, or shall replicate.
    pub(crate) master: Option<String>,
    /// Config epoch.
    pub(crate) epoch: u64,
    /// Slots it serves, or shall serve.
    pub(crate) slots: SlotSet,
    /// Slots it gives away, and to whom.
    pub(crate) migrating: Vec<(u16, String)>,
    /// Slots it takes over, and from whom.
    pub(crate) importing: Vec<(u16, String)>,
    /// How many replicas of it the cluster has.
    pub(crate) replicas: usize,
    /// `slots` or `master` are planned; the node does not know of it yet.
    pub(crate) planned: bool,
    conn: Option<Connection>,
}

/// The AUTH command; `None` without a password.
fn login(opts: &Options) -> Option<Vec<&[u8]>> {
    let password = opts.auth.as_deref()?;
    let mut args: Vec<&[u8]> = vec![b"AUTH"];
    args.extend(opts.user.as_deref());
    args.push(password);
    Some(args)
}

impl Node {
    /// A node of which only the address is known.
    pub(crate) fn new(host: &str, port: u16) -> Node {
        Node {
            host: host.to_string(),
            port,
            bus_port: port.wrapping_add(BUS_PORT_OFFSET),
            id: String::new(),
            flags: Vec::new(),
            master: None,
            epoch: 0,
            slots: SlotSet::default(),
            migrating: Vec::new(),
            importing: Vec::new(),
            replicas: 0,
            planned: false,
            conn: None,
        }
    }

    /// `host:port`
    pub(crate) fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Whether CLUSTER NODES calls it a replica.
    pub(crate) fn is_replica(&self) -> bool {
        self.flags.iter().any(|flag| flag == "slave")
    }

    /// Whether the bus is where it is by default, so that CLUSTER MEET need not name it.
    pub(crate) fn has_default_bus_port(&self) -> bool {
        self.bus_port == 0 || self.bus_port == self.port.wrapping_add(BUS_PORT_OFFSET)
    }

    /// Connects and logs in; true if that succeeded. Prints nothing.
    pub(crate) fn connect_quietly(&mut self, opts: &Options) -> bool {
        self.conn = Connection::tcp(&self.host, self.port, opts.connect_timeout, opts.tls()).ok();
        self.conn.is_some() && login(opts).is_none_or(|args| self.call(&args).is_ok())
    }

    /// Connects and logs in; prints the error if that fails.
    pub(crate) fn connect(&mut self, opts: &Options) -> Outcome {
        match Connection::tcp(&self.host, self.port, opts.connect_timeout, opts.tls()) {
            Ok(conn) => self.conn = Some(conn),
            Err(error) => {
                complain!("Could not connect to Redis at {}: {}\n", self.address(), describe(&error));
                return Err(Stop);
            }
        }
        if let Some(args) = login(opts) {
            self.must(&args)?;
        }
        Ok(())
    }

    /// Sends a command and returns any reply but an error.
    pub(crate) fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<Reply, NodeError> {
        self.send(args)?;
        self.receive()
    }

    /// Sends a command, whose reply [`Node::receive`] will return.
    pub(crate) fn send<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Result<(), NodeError> {
        let conn = self.conn.as_mut().ok_or(NodeError::Link(LinkError::Closed))?;
        conn.send(args).map_err(|error| self.lose(error))
    }

    /// The reply to the oldest command without one.
    pub(crate) fn receive(&mut self) -> Result<Reply, NodeError> {
        let conn = self.conn.as_mut().ok_or(NodeError::Link(LinkError::Closed))?;
        match conn.read() {
            Ok(Reply::Error(text)) => Err(NodeError::Refused(String::from_utf8_lossy(&text).into_owned())),
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.lose(error)),
        }
    }

    fn lose(&mut self, error: LinkError) -> NodeError {
        self.conn = None;
        NodeError::Link(error)
    }

    /// Sends commands at once and returns their replies, errors among them; fewer if the link broke.
    pub(crate) fn pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Vec<Reply> {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode_command(command)).collect();
        let mut replies = Vec::with_capacity(commands.len());
        let Some(conn) = self.conn.as_mut() else { return replies };
        let mut exchange = || -> Result<(), LinkError> {
            conn.send_raw(&bytes)?;
            for _ in commands {
                replies.push(conn.read()?);
            }
            Ok(())
        };
        if exchange().is_err() {
            self.conn = None;
        }
        replies
    }

    /// As [`Node::pipeline`], but prints it if the link broke.
    pub(crate) fn must_pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> Outcome<Vec<Reply>> {
        let replies = self.pipeline(commands);
        if replies.len() < commands.len() {
            return Err(self.complain(&NodeError::Link(LinkError::Closed)));
        }
        Ok(replies)
    }

    /// As [`Node::call`], with the words of a line as arguments.
    pub(crate) fn words(&mut self, line: &str) -> Result<Reply, NodeError> {
        let args: Vec<&str> = line.split(' ').collect();
        self.call(&args)
    }

    /// As [`Node::call`], but prints the error.
    pub(crate) fn must<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Outcome<Reply> {
        self.call(args).map_err(|error| self.complain(&error))
    }

    /// As [`Node::words`], but prints the error.
    pub(crate) fn must_words(&mut self, line: &str) -> Outcome<Reply> {
        self.words(line).map_err(|error| self.complain(&error))
    }

    /// Prints what went wrong with this node.
    pub(crate) fn complain(&self, error: &NodeError) -> Stop {
        match error {
            NodeError::Refused(text) => {
                err!("Node {} replied with error:\n{text}\n", self.address())
            }
            NodeError::Link(error) => err!("Node {} is lost: {error}\n", self.address()),
        }
        Stop
    }

    /// Takes the connection out, for a use that ends it.
    pub(crate) fn take_connection(&mut self) -> Option<Connection> {
        self.conn.take()
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.conn.is_some()
    }

    /// Fails, with a message, unless the node runs in cluster mode.
    pub(crate) fn require_cluster_mode(&mut self) -> Outcome {
        let reason = match self.words("INFO") {
            Err(error) => error.to_string(),
            Ok(reply) => {
                let info = reply.text().unwrap_or_default();
                if info_number(info, "cluster_enabled") == Some(1) {
                    return Ok(());
                }
                "is not configured as a cluster node.".into()
            }
        };
        err!("[ERR] Node {} {reason}\n", self.address());
        Err(Stop)
    }

    /// Fails, with a message, unless the node knows no other node and has no keys.
    pub(crate) fn require_empty(&mut self) -> Outcome {
        let empty = self.words("INFO").and_then(|info| {
            let text = info.text_lossy();
            if text.contains("\ndb0:") {
                return Ok(false);
            }
            let cluster = self.words("CLUSTER INFO")?;
            let known = info_number(cluster.text().unwrap_or_default(), "cluster_known_nodes");
            Ok(known == Some(1))
        });
        let reason = match empty {
            Ok(true) => return Ok(()),
            Ok(false) => "is not empty. Either the node already knows other nodes (check with CLUSTER NODES) or contains some key in database 0.".to_string(),
            Err(error) => error.to_string(),
        };
        err!("[ERR] Node {} {reason}\n", self.address());
        Err(Stop)
    }

    /// The cluster as this node sees it.
    pub(crate) fn cluster_nodes(&mut self) -> Outcome<Vec<NodeLine>> {
        let reply = self.must_words("CLUSTER NODES")?;
        nodes_text::parse(&reply.text_lossy()).ok_or_else(|| {
            complain!("Error: invalid CLUSTER NODES reply\n");
            Stop
        })
    }

    /// Fills in what the node says about itself, and returns what it says about the others.
    pub(crate) fn load(&mut self) -> Outcome<Vec<NodeLine>> {
        let (own, others): (Vec<_>, Vec<_>) = self.cluster_nodes()?.into_iter().partition(|line| line.is("myself"));
        let Some(own) = own.into_iter().next() else {
            complain!("Error: invalid CLUSTER NODES reply\n");
            return Err(Stop);
        };
        self.id = own.id;
        self.bus_port = own.bus_port;
        self.master = own.master.filter(|_| own.flags.iter().any(|f| f == "slave"));
        self.flags = own.flags;
        self.epoch = own.epoch;
        self.slots = own.slots;
        self.migrating = own.migrating;
        self.importing = own.importing;
        self.planned = false;
        Ok(others)
    }

    /// CLUSTER SETSLOT with a state that names another node: IMPORTING, MIGRATING or NODE.
    pub(crate) fn set_slot(&mut self, slot: u16, state: &str, node_id: &str) -> Result<(), NodeError> {
        self.words(&format!("CLUSTER SETSLOT {slot} {state} {node_id}")).map(drop)
    }

    /// As [`Node::set_slot`], but prints the error.
    pub(crate) fn must_set_slot(&mut self, slot: u16, state: &str, node_id: &str) -> Outcome {
        self.set_slot(slot, state, node_id).map_err(|error| self.complain(&error))
    }

    /// Closes a slot that was open.
    pub(crate) fn close_slot(&mut self, slot: u16) -> Outcome {
        self.must_words(&format!("CLUSTER SETSLOT {slot} STABLE")).map(drop)
    }

    /// Keys of a slot at this node.
    pub(crate) fn count_keys(&mut self, slot: u16) -> Outcome<i64> {
        let reply = self.must_words(&format!("CLUSTER COUNTKEYSINSLOT {slot}"))?;
        Ok(reply.integer().unwrap_or(0))
    }

    /// How many keys of each of these slots the node has.
    pub(crate) fn count_keys_of(&mut self, slots: &[u16]) -> Outcome<Vec<i64>> {
        let ask = |slot: &u16| vec!["CLUSTER".to_string(), "COUNTKEYSINSLOT".to_string(), slot.to_string()];
        let commands: Vec<Vec<String>> = slots.iter().map(ask).collect();
        let replies = self.must_pipeline(&commands)?;
        let count = |reply: Reply| match reply {
            Reply::Error(text) => Err(self.complain(&NodeError::Refused(String::from_utf8_lossy(&text).into_owned()))),
            reply => Ok(reply.integer().unwrap_or(0)),
        };
        replies.into_iter().map(count).collect()
    }

    /// The text that `check` and `create` show for a node.
    pub(crate) fn describe(&self, indent: usize) -> String {
        let lead = " ".repeat(indent);
        let role = if self.is_replica() { "S" } else { "M" };
        let mut text = if self.planned && self.master.is_some() {
            format!("{lead}S: {} {}", self.id, self.address())
        } else {
            let flags: Vec<&str> = self.flags_without_myself();
            format!(
                "{lead}{role}: {} {}\n{lead}   slots:{} ({} slots) {}",
                self.id,
                self.address(),
                slots::text(&self.slots),
                self.slots.len(),
                flags.join(",")
            )
        };
        if let Some(master) = &self.master {
            text.push_str(&format!("\n{lead}   replicates {master}"));
        } else if self.replicas > 0 {
            text.push_str(&format!("\n{lead}   {} additional replica(s)", self.replicas));
        }
        text
    }

    /// The flags that say something about the node rather than about who was asked.
    pub(crate) fn flags_without_myself(&self) -> Vec<&str> {
        self.flags.iter().map(String::as_str).filter(|flag| *flag != "myself").collect()
    }
}
