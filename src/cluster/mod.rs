//! Redis Cluster as a state machine that does no I/O.
//!
//! Owns what a node knows of its cluster: the nodes, who owns which slot, epochs, failure detection, elections, manual
//! failover, replica migration. It takes packets, link events, operator requests and the time, and returns an ordered
//! list of [`Action`]s. Sockets, the file `nodes.conf`, the keyspace and replication belong to the server, which
//! describes them in an [`Env`] at every call. So hundreds of nodes can run in one process under a simulated clock.
//!
//! The contract with the caller:
//!
//! - Packets read in a turn are given to [`Cluster::on_packet`] before [`Cluster::tick`] and before clients are served.
//! - At the end of a turn [`Cluster::flush`] is called and its actions are carried out in order. Nothing is sent before
//!   that, and [`Action::SaveConfig`] comes first. What waits for [`Action::WriteConfig`], which is written beside the loop, is
//!   sent when the caller has said that it is done: a vote or a new epoch is on disk before another node hears of it.
//! - The caller wakes at [`Cluster::next_deadline_ms`], so that what is due happens then and not at the next tenth of a
//!   second.
//!
//! Times are milliseconds since the Unix epoch by a clock that never jumps.
//!
//! The server's side is `server/cluster/`: sockets and files, requests and messages.
//!
//! Files: `wire` (packets), `node` (the table of nodes), `links` (of the bus), `gossip` (packets in and out), `failure` (PFAIL,
//! FAIL, cluster state), `lease` (a master's right to serve), `durable` (what may be acknowledged), `election` (votes), `manual`
//! (manual failover), `migration` (of replicas), `name` (whom a cluster with a name lets in), `seal` (codes of packets, for the
//! server's links), `ownership` (who owns slots), `forming` (clusters that come about by themselves), `admin` (what CLUSTER
//! subcommands change), `describe` (what they show), `nodes_conf` (the file), `saving` (when it is written, and what waits for
//! that), `routing` (clients), `slot_migration` (slots that move as a whole), `sim` (many nodes in one process, for the tests).

mod admin;
mod describe;
mod durable;
mod election;
mod failure;
mod forming;
mod gossip;
mod lease;
mod links;
mod manual;
mod migration;
mod name;
pub(crate) mod node;
pub(crate) mod nodes_conf;
mod ownership;
pub(crate) mod routing;
mod saving;
pub(crate) mod seal;
pub(crate) mod secret;
#[cfg(test)]
mod sim;
pub(crate) mod slot_migration;
pub(crate) mod slot_stats;
pub(crate) mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use crate::structs::slots::{SLOT_COUNT, Slot, SlotSet};
pub(crate) use admin::{AdminError, FailoverMode, SetSlot};
pub(crate) use describe::Endpoint;
pub(crate) use durable::{Confirmation, Lineage, Refusal};
use election::Election;
use links::Link;
pub(crate) use links::{LinkId, LinkMap};
pub(crate) use manual::HandOverState;
use manual::ManualFailover;
use node::{Node, NodeFlags, NodeId, NodeKey, NodeTable};

/// How far the bus port is above the client port unless configured.
pub(crate) const BUS_PORT_OFFSET: u16 = 10000;
/// The usual time between two ticks.
const TICK_MS: i64 = 100;
/// Between attempts to connect to a node.
const RECONNECT_MS: i64 = 100;

/// The endpoint that clients are given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum PreferredEndpoint {
    /// The IP address.
    #[default]
    Ip,
    /// The announced host name, `?` if there is none.
    Hostname,
    /// None: clients use the address they connected to.
    Unknown,
}

/// The configuration of the state machine. Each field names its directive; units are in the names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClusterConfig {
    /// `cluster-node-timeout`
    pub(crate) node_timeout_ms: i64,
    /// `cluster-ping-interval`, 0 for half the node timeout
    pub(crate) ping_interval_ms: i64,
    /// `cluster-replica-validity-factor`
    pub(crate) replica_validity_factor: i64,
    /// `repl-ping-replica-period`
    pub(crate) repl_ping_period_s: i64,
    /// `cluster-migration-barrier`
    pub(crate) migration_barrier: usize,
    /// `cluster-allow-replica-migration`
    pub(crate) allow_replica_migration: bool,
    /// `cluster-require-full-coverage`
    pub(crate) require_full_coverage: bool,
    /// `cluster-allow-reads-when-down`
    pub(crate) allow_reads_when_down: bool,
    /// `cluster-allow-pubsubshard-when-down`
    pub(crate) allow_pubsubshard_when_down: bool,
    /// `cluster-replica-no-failover`
    pub(crate) replica_no_failover: bool,
    /// `cluster-announce-ip`, empty for none
    pub(crate) announce_ip: String,
    /// `cluster-announce-hostname`, empty for none
    pub(crate) announce_hostname: String,
    /// `cluster-announce-human-nodename`, empty for none
    pub(crate) announce_human_name: String,
    /// `cluster-announce-port`, 0 for none
    pub(crate) announce_port: u16,
    /// `cluster-announce-tls-port`, 0 for none
    pub(crate) announce_tls_port: u16,
    /// `cluster-announce-bus-port`, 0 for none
    pub(crate) announce_bus_port: u16,
    /// `port`
    pub(crate) port: u16,
    /// `tls-port`
    pub(crate) tls_port: u16,
    /// `cluster-port`, 0 for the client port + 10000
    pub(crate) bus_port: u16,
    /// `tls-cluster`
    pub(crate) tls_cluster: bool,
    /// `tls-replication`
    pub(crate) tls_replication: bool,
    /// `cluster-durable-acks`
    pub(crate) durable_acks: u32,
    /// `cluster-manual-failover-timeout`
    pub(crate) manual_failover_timeout_ms: i64,
    /// `repl-timeout`
    pub(crate) repl_timeout_ms: i64,
    /// `cluster-slot-migration-log-max-len`
    pub(crate) slot_migration_log_len: usize,
    /// `slot-migration-max-failover-repl-bytes`, `None` for no limit
    pub(crate) slot_migration_max_backlog: Option<u64>,
    /// `cluster-slot-migration-handoff-max-lag-bytes`
    pub(crate) slot_pull_max_lag: u64,
    /// `cluster-slot-migration-write-pause-timeout`
    pub(crate) slot_pull_hold_ms: i64,
    /// `cluster-slot-migration-sync-buffer-drain-timeout`
    pub(crate) slot_pull_drain_ms: i64,
    /// `cluster-name`: ours, and others that are let in; none: all are
    pub(crate) names: Vec<String>,
    /// `cluster-secret`
    pub(crate) secrets: seal::Secrets,
    /// `cluster-seeds`, each as it was written
    pub(crate) seeds: Vec<String>,
    /// `cluster-form-masters`, 0: none is formed; and `cluster-form-replicas`, of each
    pub(crate) form_masters: u16,
    pub(crate) form_replicas: u16,
    /// `availability-zone`, empty for none
    pub(crate) zone: String,
    /// `cluster-preferred-endpoint-type`
    pub(crate) preferred_endpoint: PreferredEndpoint,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        ClusterConfig {
            node_timeout_ms: 15000,
            secrets: Default::default(),
            ping_interval_ms: 0,
            replica_validity_factor: 10,
            repl_ping_period_s: 10,
            migration_barrier: 1,
            allow_replica_migration: true,
            require_full_coverage: true,
            allow_reads_when_down: false,
            allow_pubsubshard_when_down: true,
            replica_no_failover: false,
            announce_ip: String::new(),
            announce_hostname: String::new(),
            announce_human_name: String::new(),
            announce_port: 0,
            announce_tls_port: 0,
            announce_bus_port: 0,
            port: 6379,
            tls_port: 0,
            bus_port: 0,
            tls_cluster: false,
            tls_replication: false,
            durable_acks: 0,
            manual_failover_timeout_ms: 5000,
            repl_timeout_ms: 60_000,
            slot_migration_log_len: 1000,
            slot_migration_max_backlog: Some(0),
            slot_pull_max_lag: 1 << 20,
            slot_pull_hold_ms: 10_000,
            slot_pull_drain_ms: 60_000,
            names: Vec::new(),
            seeds: Vec::new(),
            form_masters: 0,
            form_replicas: 1,
            zone: String::new(),
            preferred_endpoint: PreferredEndpoint::Ip,
        }
    }
}

impl ClusterConfig {
    /// The port the bus listens on.
    pub(crate) fn listen_port(&self) -> u16 {
        match self.bus_port {
            0 => self.default_client_port().wrapping_add(BUS_PORT_OFFSET),
            port => port,
        }
    }

    fn default_client_port(&self) -> u16 {
        if self.tls_cluster { self.tls_port } else { self.port }
    }

    /// The plain, TLS and bus port to announce.
    fn announced_ports(&self) -> (u16, u16, u16) {
        let or = |announced: u16, own: u16| if announced != 0 { announced } else { own };
        (
            or(self.announce_port, self.port),
            or(self.announce_tls_port, self.tls_port),
            or(self.announce_bus_port, self.listen_port()),
        )
    }
}

/// The state of the server that the machine needs in a call.
pub(crate) struct Env<'a> {
    /// By the clock of the module's description.
    pub(crate) now_ms: i64,
    /// Bytes of replication stream: produced, for a master; processed, for a replica.
    pub(crate) repl_offset: i64,
    /// For a replica: how long ago its master was last heard on the replication link, or since when that link is down.
    pub(crate) data_age_ms: i64,
    /// Whether the server has a replication master set.
    pub(crate) replicating: bool,
    /// Whether it follows the stream of that master.
    pub(crate) master_link_up: bool,
    /// The id of the stream that the offset is one of; `None` if there is no offset to speak of.
    pub(crate) stream: Option<[u8; 40]>,
    pub(crate) has_keys: bool,
    /// Whether what a reply tells of is on disk (`appendfsync always`).
    pub(crate) syncs_replies: bool,
    /// Those of the slots that have keys.
    pub(crate) slots_with_keys: &'a dyn Fn(&SlotSet) -> SlotSet,
}

impl Env<'_> {
    fn has_keys_in(&self, slot: Slot) -> bool {
        (self.slots_with_keys)(&SlotSet::of_range(slot, slot)).contains(slot)
    }
}

#[cfg(test)]
impl Env<'static> {
    /// A server without data or replication, at this time.
    fn at(now_ms: i64) -> Env<'static> {
        Env {
            now_ms,
            repl_offset: 0,
            data_age_ms: 0,
            replicating: false,
            master_link_up: false,
            stream: None,
            has_keys: false,
            syncs_replies: false,
            slots_with_keys: &|_| SlotSet::default(),
        }
    }
}

/// What the caller is to do.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Write [`Cluster::nodes_conf`] to the file, before anything else is done. If that fails the server must not go on.
    SaveConfig {
        /// Sync the file: the change must survive a power loss.
        fsync: bool,
    },
    /// Begin to write it as it is now, and call [`Cluster::on_config_written`] when that is done. There is one at a time; it never
    /// takes the place of what is written later by `SaveConfig`. If it fails the server must not go on.
    WriteConfig {
        fsync: bool,
        /// To be said when it is done.
        number: u64,
    },
    /// Open a connection, then call `on_link_connected` or `on_link_closed`. Packets sent meanwhile are queued.
    Connect {
        link: LinkId,
        ip: String,
        /// The bus port.
        port: u16,
    },
    /// Close a connection.
    CloseLink {
        /// Already forgotten by the machine.
        link: LinkId,
    },
    /// Queue a packet on a connection.
    Send {
        link: LinkId,
        /// The bytes; the same for all receivers of a broadcast.
        packet: Rc<[u8]>,
    },
    /// Replicate from this address.
    SetReplicationMaster {
        ip: String,
        /// The client port.
        port: u16,
    },
    /// Stop replicating: this node is a master now.
    UnsetReplicationMaster,
    /// Look up the hosts of [`Cluster::seeds`], and tell [`Cluster::on_seed`] what was found.
    SeekSeeds,
    /// Empty the data set (a replica was reset).
    FlushAllData,
    /// Delete all keys of slots that are served elsewhere now.
    DelKeysInSlots(SlotSet),
    /// These slots changed hands: sharded channels in them are no longer ours to serve.
    DropShardChannels(SlotSet),
    /// Hold back writing clients until this time, for a manual failover.
    PauseClients {
        /// The latest time at which they go on.
        until_ms: i64,
        /// Those who read as well.
        readers_too: bool,
    },
    /// Let them go on.
    UnpauseClients,
    /// Do something for slots that move as a whole.
    SlotMigration(slot_migration::Order),
    /// Deliver a published message to local subscribers.
    Deliver {
        /// Whether the channel is sharded.
        sharded: bool,
        channel: Vec<u8>,
        message: Vec<u8>,
    },
}

/// Whether a text is an IP address. Host names from peers or `nodes.conf` are not looked up: anybody can send them, and
/// a name server may not answer.
fn is_address(text: &str) -> bool {
    text.parse::<std::net::IpAddr>().is_ok()
}

/// Work put off to the end of the turn.
#[derive(Clone, Copy, Debug, Default)]
struct Todo {
    state: bool,
    failover: bool,
    /// There are grants that the lease does not count yet.
    lease: bool,
    /// All nodes are to hear of our role, slots or epoch now.
    announce: bool,
    /// There are answers so late that others should hear of it.
    late_news: bool,
    /// There are nodes that others may not know yet.
    newcomers: bool,
}

/// Which packets DEBUG has us drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Dropped {
    #[default]
    None,
    /// Those of a type.
    Type(u16),
    All,
}

impl Dropped {
    fn has(self, packet_type: u16) -> bool {
        self == Dropped::All || self == Dropped::Type(packet_type)
    }
}

/// What DEBUG breaks on purpose.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Broken {
    pub(crate) dropped: Dropped,
    /// The link of a packet that is dropped is closed.
    pub(crate) closes_links: bool,
    /// No node is pinged that need not be.
    pub(crate) no_random_pings: bool,
    /// Links that are closed are not opened again.
    pub(crate) no_reconnection: bool,
}

/// Counters of CLUSTER INFO.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stats {
    /// Packets sent, by type.
    pub(crate) sent: [u64; wire::TYPE_COUNT],
    /// Packets received, by type.
    pub(crate) received: [u64; wire::TYPE_COUNT],
    /// Links closed because their send buffer grew beyond the limit.
    pub(crate) links_buffer_limit_exceeded: u64,
    /// Links whose other end is of a cluster with another name.
    pub(crate) refused_by_name: u64,
    /// Links that broke off because of what came without a valid code.
    pub(crate) refused_by_code: u64,
}

/// One node's view of the cluster. See the module's description for the contract.
pub(crate) struct Cluster {
    config: ClusterConfig,
    rng: fastrand::Rng,
    nodes: NodeTable,
    myself: NodeKey,
    current_epoch: u64,
    last_vote_epoch: u64,
    /// The epochs we voted in, of those greater than `unknown_votes_until`; in those up to that we may have voted.
    voted_epochs: BTreeSet<u64>,
    unknown_votes_until: u64,
    state_ok: bool,
    /// Number of masters with slots.
    size: usize,
    owner: Box<[Option<NodeKey>; SLOT_COUNT]>,
    /// How often a slot got or lost its owner.
    owner_changes: u64,
    slot_stats: slot_stats::SlotStats,
    migrating: BTreeMap<Slot, NodeKey>,
    importing: BTreeMap<Slot, NodeKey>,
    jobs: slot_migration::Jobs,
    /// Slots that we, or our master, lost to another node while there were keys in them, which are to go.
    leftovers: SlotSet,
    /// Slots whose owner no longer claims them, and nobody else does. They stay bound, so that clients see no error,
    /// but we do not tell others that the owner has them.
    unclaimed: SlotSet,
    /// Until when (unix seconds) a forgotten node must not be added again.
    blacklist: BTreeMap<NodeId, i64>,
    links: LinkMap<Link>,
    next_link: u64,
    election: Election,
    durable: durable::Durable,
    forming: forming::Forming,
    manual: ManualFailover,
    /// The replica that last asked for our own vote to take our place, and when it did first and last.
    heir_asked: Option<(NodeId, i64, i64)>,
    cant_failover: election::CantFailover,
    cant_failover_logged_ms: i64,
    todo: Todo,
    to_save: saving::ToSave,
    saving: saving::Saving,
    /// The nodes that every packet may have to tell of, see `gossip`.
    doubtful: Vec<NodeKey>,
    /// The nodes that have become known lately, and since when; and when we last told others of such.
    newcomers: VecDeque<(NodeKey, i64)>,
    newcomers_told_ms: i64,
    /// When our role is to be announced a second time; 0: it is not.
    announce_again_ms: i64,
    dropped_channels: Option<SlotSet>,
    actions: Vec<Action>,
    next_due_ms: i64,
    last_tick_ms: i64,
    last_turn_ms: i64,
    random_ping_ms: i64,
    /// When we last looked for masters without replicas.
    orphans_sought_ms: i64,
    pfail_news: failure::PfailNews,
    pfail_news_due_ms: i64,
    /// When we last told others of late answers.
    late_news_ms: i64,
    started_ms: Option<i64>,
    minority_ms: i64,
    /// When this process last went on after standing still; 0: never. Voters count as reached only if heard of since.
    awake_ms: i64,
    /// When we took an epoch by ourselves last; `i64::MAX`: since the last tick.
    own_epoch_ms: i64,
    /// When our lease ends, see `lease`; `i64::MAX`: never.
    lease_end_ms: i64,
    /// When the grants were counted last.
    lease_counted_ms: i64,
    /// When we last took our master's place.
    elected_ms: i64,
    stats: Stats,
    /// When it was last logged that a node of another cluster is not let in.
    refusal_logged_ms: i64,
    broken: Broken,
    common_secret: secret::CommonSecret,
}

impl Cluster {
    /// A node that belongs to no cluster yet. The first `flush` saves it.
    pub(crate) fn new(config: ClusterConfig, seed: u64, now_ms: i64) -> Cluster {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut nodes = NodeTable::default();
        let (id, shard) = (NodeId::random(&mut rng), NodeId::random(&mut rng));
        let myself = nodes.insert(Node::new(id, shard, NodeFlags::MYSELF | NodeFlags::MASTER, now_ms));
        let mut cluster = Cluster {
            config: config.clone(),
            rng,
            nodes,
            myself,
            current_epoch: 0,
            last_vote_epoch: 0,
            voted_epochs: BTreeSet::new(),
            unknown_votes_until: 0,
            state_ok: false,
            size: 0,
            owner: vec![None; SLOT_COUNT].try_into().expect("a table of that size"),
            owner_changes: 0,
            common_secret: Default::default(),
            slot_stats: Default::default(),
            migrating: BTreeMap::new(),
            importing: BTreeMap::new(),
            jobs: slot_migration::Jobs::default(),
            leftovers: SlotSet::default(),
            unclaimed: SlotSet::default(),
            blacklist: BTreeMap::new(),
            links: LinkMap::default(),
            next_link: 0,
            election: Election::default(),
            durable: durable::Durable::default(),
            forming: forming::Forming::default(),
            manual: ManualFailover::default(),
            heir_asked: None,
            cant_failover: election::CantFailover::No,
            cant_failover_logged_ms: 0,
            todo: Todo::default(),
            to_save: saving::ToSave::at_once(),
            saving: saving::Saving::default(),
            doubtful: Vec::new(),
            newcomers: VecDeque::new(),
            newcomers_told_ms: 0,
            announce_again_ms: 0,
            dropped_channels: None,
            actions: Vec::new(),
            next_due_ms: now_ms,
            last_tick_ms: 0,
            last_turn_ms: now_ms,
            random_ping_ms: now_ms,
            orphans_sought_ms: 0,
            pfail_news: failure::PfailNews::None,
            pfail_news_due_ms: now_ms,
            late_news_ms: 0,
            started_ms: None,
            minority_ms: 0,
            awake_ms: 0,
            own_epoch_ms: 0,
            lease_end_ms: i64::MAX,
            lease_counted_ms: 0,
            elected_ms: 0,
            stats: Stats::default(),
            refusal_logged_ms: 0,
            broken: Broken::default(),
        };
        cluster.apply_config(config, true);
        cluster
    }

    pub(crate) fn config(&self) -> &ClusterConfig {
        &self.config
    }

    /// Takes a changed configuration: what this node announces and how it behaves follow at once.
    pub(crate) fn set_config(&mut self, config: ClusterConfig) {
        self.apply_config(config, false);
    }

    fn apply_config(&mut self, config: ClusterConfig, starting: bool) {
        let old = std::mem::replace(&mut self.config, config);
        let (tcp_port, tls_port, bus_port) = self.config.announced_ports();
        let me = &mut self.nodes[self.myself];
        (me.tcp_port, me.tls_port, me.bus_port) = (tcp_port, tls_port, bus_port);
        if old.announce_ip != self.config.announce_ip || (starting && !self.config.announce_ip.is_empty()) {
            // Emptied, it is found out again from the next packet.
            me.ip = self.config.announce_ip.clone();
        }
        let flags = me.flags;
        me.flags.assign(NodeFlags::NOFAILOVER, self.config.replica_no_failover);
        if me.flags != flags {
            self.save_and_update();
        }
        let me = &mut self.nodes[self.myself];
        if me.hostname != self.config.announce_hostname || me.human_name != self.config.announce_human_name {
            me.hostname = self.config.announce_hostname.clone();
            me.human_name = self.config.announce_human_name.clone();
            self.save_soon();
        }
        if old.seeds != self.config.seeds || starting {
            self.read_seeds();
        }
        if old.names != self.config.names {
            self.links.values_mut().for_each(|link| link.tells_name = true);
            self.todo.announce |= !starting;
        }
        // What others should know does not wait for the next ping.
        self.todo.announce |= !starting && self.is_to_be_saved_now();
        self.nodes.look_at_all();
        self.next_due_ms = 0;
    }

    /// To be called at the start, if our address of the last time is none of this machine's any more: it is learnt from the
    /// next packet, as one that was never known.
    pub(crate) fn forget_own_ip(&mut self) {
        if self.config.announce_ip.is_empty() {
            self.nodes[self.myself].ip.clear();
        }
    }

    // ---- what the server asks in passing ----

    pub(crate) fn myself(&self) -> &Node {
        &self.nodes[self.myself]
    }

    /// Where to replicate from, if this is a replica and the address is known.
    pub(crate) fn my_master_address(&self) -> Option<(String, u16)> {
        let master = &self.nodes[self.myself().replica_of?];
        self.knows_master_address().then(|| (master.ip.clone(), master.client_port(self.config.tls_replication)))
    }

    fn knows_master_address(&self) -> bool {
        let master = self.myself().replica_of.map(|m| &self.nodes[m]);
        master.is_some_and(|m| !m.flags.has(NodeFlags::NOADDR) && is_address(&m.ip))
    }

    /// Sizes of the packets that the next flush will return, once for each link they go to, bytes.
    pub(crate) fn unsent_packets(&self) -> impl Iterator<Item = usize> + '_ {
        self.actions.iter().chain(self.packets_that_wait()).filter_map(|action| match action {
            Action::Send { packet, .. } => Some(packet.len()),
            _ => None,
        })
    }

    pub(crate) fn nodes(&self) -> &NodeTable {
        &self.nodes
    }

    pub(crate) fn node(&self, key: NodeKey) -> &Node {
        &self.nodes[key]
    }

    pub(crate) fn my_key(&self) -> NodeKey {
        self.myself
    }

    /// Whether the cluster is up from this node's view.
    pub(crate) fn is_up(&self) -> bool {
        self.state_ok
    }

    /// When this node last took its master's place; 0: never.
    pub(crate) fn elected_ms(&self) -> i64 {
        self.elected_ms
    }

    /// When this node began to take part.
    pub(crate) fn started_ms(&self) -> i64 {
        self.started_ms.unwrap_or(i64::MAX)
    }

    /// The newest epoch seen.
    #[cfg(test)]
    pub(crate) fn current_epoch(&self) -> u64 {
        self.current_epoch
    }

    /// The epoch of the last vote given.
    #[cfg(test)]
    pub(crate) fn last_vote_epoch(&self) -> u64 {
        self.last_vote_epoch
    }

    pub(crate) fn owner_of(&self, slot: Slot) -> Option<NodeKey> {
        self.owner[usize::from(slot)]
    }

    /// The node at the other end of a link and whether that node opened it.
    pub(crate) fn link_peer(&self, link: LinkId) -> Option<(Option<NodeKey>, bool)> {
        self.links.get(&link).map(|l| (l.node, l.inbound))
    }

    /// When a link was opened or accepted.
    pub(crate) fn link_created_ms(&self, link: LinkId) -> Option<i64> {
        self.links.get(&link).map(|l| l.created_ms)
    }

    /// Whether a manual failover is under way, on either side.
    pub(crate) fn manual_failover_in_progress(&self) -> bool {
        self.manual.in_progress()
    }

    /// What DEBUG breaks.
    pub(crate) fn broken_mut(&mut self) -> &mut Broken {
        self.next_due_ms = 0;
        &mut self.broken
    }

    /// A link broke off because of what came without a valid code.
    pub(crate) fn note_refused_by_code(&mut self) {
        self.stats.refused_by_code += 1;
    }

    // ---- the table ----

    fn add_node(&mut self, id: NodeId, flags: NodeFlags, now_ms: i64) -> NodeKey {
        let shard = NodeId::random(&mut self.rng);
        self.wake_at(0);
        self.nodes.insert(Node::new(id, shard, flags, now_ms))
    }

    /// Removes every reference to a node, then the node.
    fn remove_node(&mut self, key: NodeKey) {
        assert!(key != self.myself, "a node cannot forget itself");
        self.migrating.retain(|_, n| *n != key);
        self.importing.retain(|_, n| *n != key);
        self.unbind_all_of(key);
        self.doubtful.retain(|n| *n != key);
        self.newcomers.retain(|(n, _)| *n != key);
        self.forget_durable(key);
        self.forget_forming(key);
        self.nodes.for_each_mut(|n| {
            n.fail_reports.retain(|(reporter, _)| *reporter != key);
            n.failed_by.retain(|(voter, _)| *voter != key);
            n.fine_by.retain(|fine| fine.by != key);
            n.replicas.retain(|r| *r != key);
            if n.replica_of == Some(key) {
                n.replica_of = None;
            }
        });
        if self.manual.replica == Some(key) {
            self.reset_manual_failover();
        }
        let node = &self.nodes[key];
        for link in [node.link, node.inbound].into_iter().flatten() {
            self.close_link(link);
        }
        self.nodes.remove(key);
        // In a smaller cluster some are pinged sooner.
        self.nodes.look_at_all();
    }

    fn is_master(&self) -> bool {
        self.myself().is_master()
    }

    fn is_replica(&self) -> bool {
        self.myself().is_replica()
    }

    /// Votes that make a majority.
    fn quorum(&self) -> usize {
        self.size / 2 + 1
    }

    // ---- the turn ----

    /// Makes the machine look again no later than `at_ms`.
    fn wake_at(&mut self, at_ms: i64) {
        self.next_due_ms = self.next_due_ms.min(at_ms);
    }

    /// When [`Cluster::tick`] next has something to do; the caller must not sleep longer.
    pub(crate) fn next_deadline_ms(&self) -> i64 {
        self.next_due_ms.min(self.nodes.next_wake_ms())
    }

    /// To be called first in every turn: finds out if this process stood still. A master that did so for long may have
    /// been replaced, so it must not accept anything before others had a chance to say so. They count from when they
    /// last heard of it, so even less than a node timeout may be too long.
    pub(crate) fn turn_begins(&mut self, now_ms: i64) {
        let gap = now_ms - self.last_turn_ms;
        self.last_turn_ms = now_ms;
        let timeout = self.config.node_timeout_ms;
        if gap <= timeout / 2 || gap < TICK_MS * 2 {
            return;
        }
        // Nobody could reach us meanwhile: give the others time to answer before suspecting them.
        self.nodes.for_each_mut(|n| {
            if n.ping_sent_ms != 0 {
                n.ping_sent_ms = now_ms;
            }
        });
        // While the lease lasts nobody can have taken our place.
        if self.is_master() && self.size > 1 && self.state_ok && !self.holds_lease(now_ms) {
            log::warn!("This node was not running for {gap} milliseconds: not accepting queries for a while.");
            self.wait_for_news(now_ms, gap >= timeout);
        }
        self.wake_at(now_ms);
    }

    /// The usual time between two ticks: short enough to renew grants in time.
    fn tick_ms(&self) -> i64 {
        TICK_MS.min(self.term_ms() / 16)
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, env: &Env) {
        let tick_ms = self.tick_ms();
        if env.now_ms < self.next_deadline_ms() && env.now_ms - self.last_tick_ms < tick_ms / 2 {
            return;
        }
        self.last_tick_ms = env.now_ms;
        self.own_epoch_ms = if self.own_epoch_ms == i64::MAX { env.now_ms } else { self.own_epoch_ms };
        // The server wakes as often for other things: the tick is to fall in with those.
        self.next_due_ms = env.now_ms + if tick_ms < TICK_MS { tick_ms } else { tick_ms + tick_ms / 2 };
        self.watch_nodes(env);
        self.watch_lease(env);
        self.renew_own_epoch(env);
        match self.announce_again_ms {
            0 => {}
            due if env.now_ms < due => self.wake_at(due),
            _ => {
                self.announce_again_ms = 0;
                self.broadcast_pong(env);
            }
        }

        if let (false, Some(master), true) = (env.replicating, self.myself().replica_of, self.knows_master_address()) {
            self.replicate_from(master);
        }
        self.forget_old_jobs();
        self.note_leftovers(env);
        self.manual_failover_cron(env);
        self.durable_tick(env);
        self.form(env);
        if self.is_replica() {
            self.follow_grandmaster();
            self.advance_manual_failover(env);
            self.advance_election(env);
            self.consider_migration(env);
        }
        if !self.state_ok {
            self.todo.state = true;
        }
    }

    /// Ends the turn: does what was put off and returns all actions, in order.
    pub(crate) fn flush(&mut self, env: &Env) -> Vec<Action> {
        self.pause_for_failover(env);
        if self.manual.waits_for_offset() {
            self.advance_manual_failover(env);
        }
        if std::mem::take(&mut self.todo.failover) && self.is_replica() {
            self.advance_election(env);
        }
        if self.todo.state {
            self.update_state(env);
        }
        self.spread_pfail_news(env);
        if self.todo.late_news {
            self.spread_late_news(env);
        }
        if self.todo.newcomers {
            self.spread_newcomers(env);
        }
        if self.todo.announce {
            self.announce_role(env);
        }
        let first = self.save_as_due(env);
        self.durable_flushed();
        let mut actions = std::mem::take(&mut self.actions);
        if let Some(slots) = self.dropped_channels.take() {
            actions.push(Action::DropShardChannels(slots));
        }
        actions.splice(0..0, first);
        actions
    }

    /// Panics unless the tables agree with each other. For tests and simulations.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let mut owned = 0;
        for (key, node) in self.nodes.iter() {
            for (first, last) in node.slots.ranges() {
                let owners = &self.owner[usize::from(first)..=usize::from(last)];
                let other = owners.iter().position(|owner| *owner != Some(key));
                assert_eq!(other, None, "owner table and node disagree on a slot after {first}");
                owned += owners.len();
            }
            assert_eq!(self.nodes.find(&node.id), Some(key));
            assert_eq!(node.slots.len(), node.slot_count, "slot count of {}", node.id);
            for replica in &node.replicas {
                assert_eq!(self.nodes[*replica].replica_of, Some(key), "replica list of {}", node.id);
            }
            if let Some(master) = node.replica_of {
                assert!(self.nodes[master].replicas.contains(&key), "{} is missing at its master", node.id);
            }
            for (link, inbound) in [(node.link, false), (node.inbound, true)] {
                if let Some(link) = link {
                    let l = &self.links[&link];
                    assert_eq!((l.node, l.inbound), (Some(key), inbound));
                }
            }
        }
        assert_eq!(owned, self.owner.iter().flatten().count(), "a slot whose owner does not know of it");
        let me = self.myself();
        assert!(me.flags.has(NodeFlags::MYSELF) && me.is_master() != me.is_replica());
        assert!(me.is_master() || me.slot_count == 0, "a replica owns no slots");
    }
}
