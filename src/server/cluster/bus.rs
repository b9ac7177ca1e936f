//! The cluster's sockets and files: the machine's actions carried out, and its events brought to it.
//!
//! Owns the bus listeners and the links' buffers (`nodes.conf` is in `nodes_conf`). Decides nothing: what to send and whom to
//! connect to is the machine's (see the module's description for the contract). Links are read before clients are
//! served; what the machine wants done is done before the loop sleeps, the file first.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::RawFd;
use std::rc::Rc;
use std::task::Poll;

use super::codes::random_nonce;
use super::nodes_conf::ConfFile;
use crate::cluster::seal::{Seal, Secrets, Taken};
use crate::cluster::{Action, Cluster, ClusterConfig, Env, LinkId, LinkMap, PreferredEndpoint};
use crate::config::{ClusterPreferredEndpointType, Config};
use crate::keyspace::effects::target;
use crate::net::listener::{self, Listener, reason};
use crate::net::reactor::Ready;
use crate::net::{ClientId, Conn, Secured, Source};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::pause::{PauseKind, PausePurpose};
use crate::server::repl::follow::open_connection;

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 1000;
/// Bytes asked for by one read, and reads from one link in one turn.
const READ_BYTES: usize = 64 * 1024;
/// The beginning of a packet is read on with into the room that all links share up to this size; a larger one gets room of
/// its own, as it would be moved to and fro too often.
const MOVED_BYTES: usize = 16 * 1024;
const READS_PER_TURN: usize = 16;
/// Bytes written to one link in one turn.
const WRITE_BYTES_PER_TURN: usize = 64 * 1024 * 16;
/// Packets handed to one write.
const WRITE_PACKETS: usize = 16;
/// For so many there is room on a link at rest.
const KEPT_PACKETS: usize = 4;
/// What a packet in a send queue costs besides its bytes, by Redis's accounts: a list node and the block's header.
const PACKET_OVERHEAD: usize = 24 + 16;
/// What a link costs with both buffers empty, by the same accounts.
const LINK_OVERHEAD: usize = 48 + 1024;

/// A link's socket.
pub(super) struct Peer {
    pub(super) link: LinkId,
    pub(super) conn: Conn,
    generation: u32,
    /// False until a connection we opened stands.
    connected: bool,
    /// The beginning of a packet whose rest is to come; takes no memory while there is none.
    received: Vec<u8>,
    queue: VecDeque<Rc<[u8]>>,
    /// The codes of its packets.
    pub(super) seal: Seal,
    /// Bytes of the first packet in `queue` that are out.
    head_sent: usize,
    queued_bytes: usize,
    /// The socket takes no more until it says so.
    blocked: bool,
}

impl Peer {
    /// Queues a packet, with its code if there are codes.
    fn enqueue(&mut self, packet: Rc<[u8]>) {
        if self.seal.is_plain() {
            return self.enqueue_bytes(packet);
        }
        self.seal.outgoing(packet).into_iter().for_each(|bytes| self.enqueue_bytes(bytes));
    }

    pub(super) fn enqueue_bytes(&mut self, bytes: Rc<[u8]>) {
        self.queued_bytes += bytes.len();
        self.queue.push_back(bytes);
    }

    fn queue_mem(&self) -> usize {
        48 + self.queued_bytes + self.seal.held_bytes() + self.queue.len() * PACKET_OVERHEAD
    }
}

/// What one read of a link came to.
struct Received {
    link: LinkId,
    bytes: Vec<u8>,
    /// They stand in the room that all links share.
    is_shared: bool,
    /// The socket had no more: what comes later is told of by an event.
    is_all: bool,
    result: io::Result<usize>,
}

/// What CLUSTER LINKS shows of a link.
pub(crate) struct LinkView {
    pub(crate) link: LinkId,
    /// Whether bytes wait to be sent.
    pub(crate) writing: bool,
    /// Memory of the send queue, bytes.
    pub(crate) queue_mem: usize,
}

/// The cluster of a server that runs in cluster mode.
pub(crate) struct Bus {
    pub(crate) machine: Cluster,
    listeners: Vec<Listener>,
    pub(super) peers: slab::Slab<Peer>,
    by_link: LinkMap<usize>,
    next_generation: u32,
    /// Links that may hold more than was read of them in their turn.
    unread: Vec<(usize, u32)>,
    /// What links are read into; empty in between.
    scratch: Vec<u8>,
    /// Whether this node might serve when replies last left, and its replication offset then.
    leased: bool,
    told_offset: i64,
    file: ConfFile,
    /// What `cluster-secret` is.
    pub(super) secrets: Secrets,
    /// When it was last logged that what came has no valid code, ms.
    pub(super) refusal_logged_ms: i64,
    /// Wall clock minus monotonic clock at the start: the machine's clock does not jump.
    clock_offset_ms: i64,
    pub(super) durable: super::durable::Durable,
    pub(crate) migrations: super::slot_migration::Migrations,
}

impl Bus {
    /// Locks and reads `nodes.conf`, or begins a new one. The error is for the log; the server cannot start.
    fn open(cfg: &Config, now_ms: i64, clock_offset_ms: i64, seed: u64) -> Result<Bus, String> {
        let file = ConfFile::open(&cfg.cluster_config_file, &cfg.bio_cpulist)?;
        let text = file.read()?;
        let config = machine_config(cfg);
        let mut machine = if text.is_empty() {
            let machine = Cluster::new(config, seed, now_ms);
            log::info!("No cluster configuration found, I'm {}", machine.myself().id);
            machine
        } else {
            let mut machine = Cluster::from_nodes_conf(config, seed, now_ms, &text)
                .map_err(|e| format!("Unrecoverable error: corrupted cluster config file \"{}\" ({e}).", e.text))?;
            if is_elsewhere(&machine.myself().ip) {
                machine.forget_own_ip();
            }
            log::info!("Node configuration loaded, I'm {}", machine.myself().id);
            machine
        };
        let mut secret = [0; 40];
        secret.copy_from_slice(crate::server::random_hex_40().as_bytes());
        let mut challenge_key = [0; 32];
        crate::server::random_bytes(&mut challenge_key);
        machine.set_secret(secret, challenge_key);
        let mut bus = Bus {
            machine,
            listeners: Vec::new(),
            peers: slab::Slab::new(),
            by_link: LinkMap::default(),
            next_generation: 0,
            unread: Vec::new(),
            scratch: Vec::new(),
            leased: false,
            told_offset: 0,
            file,
            secrets: Secrets::parse(&cfg.cluster_secret),
            refusal_logged_ms: 0,
            clock_offset_ms,
            durable: Default::default(),
            migrations: Default::default(),
        };
        if text.is_empty() {
            bus.save(true)?;
        }
        Ok(bus)
    }

    /// Writes `nodes.conf` at once.
    pub(crate) fn save(&mut self, fsync: bool) -> Result<(), String> {
        self.file.replace(&self.machine.nodes_conf(), fsync)
    }

    /// The machine's time at a time of the monotonic clock, microseconds.
    pub(crate) fn machine_ms(&self, mono_us: i64) -> i64 {
        self.clock_offset_ms + mono_us / 1000
    }

    /// Descriptors a child process must not keep: ports and locks, so that a successor of a killed parent can start.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        self.listeners.iter().map(Listener::raw_fd).chain(self.file.descriptors()).collect()
    }

    /// Memory of all links, bytes.
    pub(crate) fn links_mem(&self) -> usize {
        let links: usize = self.peers.iter().map(|(_, p)| p.queue_mem() + LINK_OVERHEAD + p.received.capacity()).sum();
        links + self.scratch.capacity() + self.machine.unsent_packets().map(|len| len + PACKET_OVERHEAD).sum::<usize>()
    }

    /// The links of known nodes, for CLUSTER LINKS.
    pub(crate) fn links(&self) -> Vec<LinkView> {
        let links = self.machine.nodes().iter().flat_map(|(_, n)| [n.link, n.inbound]).flatten();
        links
            .map(|link| {
                let peer = self.by_link.get(&link).map(|i| &self.peers[*i]);
                LinkView {
                    link,
                    writing: peer.is_some_and(|p| !p.queue.is_empty() || !p.connected),
                    queue_mem: peer.map_or(0, Peer::queue_mem),
                }
            })
            .collect()
    }

    fn add_peer(&mut self, link: LinkId, conn: Conn, connected: bool, registry: &mio::Registry) -> io::Result<()> {
        let (seal, greeting) = match connected {
            true => (Seal::accept(&self.secrets), None),
            false => Seal::open(&self.secrets, random_nonce()),
        };
        self.next_generation = self.next_generation.wrapping_add(1) & ((1 << 28) - 1);
        let generation = self.next_generation;
        let index = self.peers.insert(Peer {
            link,
            conn,
            generation,
            connected,
            received: Vec::new(),
            queued_bytes: greeting.as_ref().map_or(0, Vec::len),
            queue: greeting.into_iter().map(Rc::from).collect(),
            seal,
            head_sent: 0,
            blocked: false,
        });
        self.by_link.insert(link, index);
        self.peers[index].conn.register(registry, Source::BusLink(index as u32, generation).token())
    }

    fn drop_peer(&mut self, link: LinkId, registry: &mio::Registry) {
        if let Some(index) = self.by_link.remove(&link) {
            let mut peer = self.peers.remove(index);
            let _ = peer.conn.deregister(registry);
        }
    }

    fn peer(&mut self, index: usize, generation: u32) -> Option<&mut Peer> {
        self.peers.get_mut(index).filter(|p| p.generation == generation)
    }

    /// Reads a link once: its bytes, of which the beginning of a packet may have been there before.
    fn read(&mut self, index: usize, generation: u32) -> Option<Received> {
        let peer = self.peers.get_mut(index).filter(|p| p.generation == generation && p.connected)?;
        let mut bytes = std::mem::take(&mut peer.received);
        let is_shared = bytes.len() <= MOVED_BYTES;
        if is_shared {
            let rest = std::mem::replace(&mut bytes, std::mem::take(&mut self.scratch));
            bytes.extend_from_slice(&rest);
        }
        bytes.reserve(READ_BYTES);
        let result = peer.conn.read_to_spare(&mut bytes);
        let is_all = bytes.len() < bytes.capacity() && !peer.conn.holds_more();
        Some(Received { link: peer.link, bytes, is_shared, is_all, result })
    }

    /// Takes back what was read, of which `taken` bytes are done with; `None`: the link is gone.
    fn put_back(&mut self, at: (usize, u32), mut bytes: Vec<u8>, taken: Option<usize>, is_shared: bool) {
        if let (Some(taken), Some(peer)) = (taken, self.peer(at.0, at.1)) {
            peer.received = rest_of(&mut bytes, taken, is_shared);
        }
        if is_shared {
            bytes.clear();
            self.scratch = bytes;
        }
    }

    /// Writes what the socket takes.
    fn write(&mut self, index: usize) -> io::Result<()> {
        let peer = &mut self.peers[index];
        let mut budget = WRITE_BYTES_PER_TURN;
        while peer.connected && !peer.blocked && !peer.queue.is_empty() && budget > 0 {
            let mut slices = [IoSlice::new(&[]); WRITE_PACKETS];
            let waiting = peer.queue.len().min(WRITE_PACKETS);
            slices.iter_mut().zip(&peer.queue).for_each(|(slice, packet)| *slice = IoSlice::new(packet));
            slices[0] = IoSlice::new(&peer.queue[0][peer.head_sent..]);
            match peer.conn.write_vectored(&slices[..waiting]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    budget = budget.saturating_sub(n);
                    peer.head_sent += n;
                    while let Some(len) = peer.queue.front().map(|p| p.len()).filter(|len| peer.head_sent >= *len) {
                        peer.queue.pop_front();
                        peer.head_sent -= len;
                        peer.queued_bytes -= len;
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => peer.blocked = true,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if peer.queue.is_empty() && peer.queue.capacity() > KEPT_PACKETS {
            peer.queue = VecDeque::new();
        }
        Ok(())
    }
}

/// Whether an address is none of this machine's.
fn is_elsewhere(ip: &str) -> bool {
    let Ok(ip) = ip.parse::<IpAddr>() else { return false };
    UdpSocket::bind((ip, 0)).is_err_and(|e| e.kind() == io::ErrorKind::AddrNotAvailable)
}

/// What the machine needs of the configuration.
fn machine_config(cfg: &Config) -> ClusterConfig {
    ClusterConfig {
        // So that sums and multiples of it are numbers, too: 35 years.
        node_timeout_ms: cfg.cluster_node_timeout.min(1 << 40),
        ping_interval_ms: cfg.cluster_ping_interval,
        replica_validity_factor: cfg.cluster_replica_validity_factor,
        repl_ping_period_s: cfg.repl_ping_replica_period,
        migration_barrier: cfg.cluster_migration_barrier.max(0) as usize,
        allow_replica_migration: cfg.cluster_allow_replica_migration,
        require_full_coverage: cfg.cluster_require_full_coverage,
        allow_reads_when_down: cfg.cluster_allow_reads_when_down,
        allow_pubsubshard_when_down: cfg.cluster_allow_pubsubshard_when_down,
        replica_no_failover: cfg.cluster_replica_no_failover,
        announce_ip: cfg.cluster_announce_ip.clone(),
        announce_hostname: cfg.cluster_announce_hostname.clone(),
        announce_human_name: cfg.cluster_announce_human_nodename.clone(),
        announce_port: cfg.cluster_announce_port,
        announce_tls_port: cfg.cluster_announce_tls_port,
        announce_bus_port: cfg.cluster_announce_bus_port,
        port: cfg.port,
        tls_port: cfg.tls_port,
        bus_port: cfg.cluster_port,
        tls_cluster: cfg.tls_cluster,
        tls_replication: cfg.tls_replication,
        durable_acks: cfg.cluster_durable_acks,
        manual_failover_timeout_ms: cfg.cluster_manual_failover_timeout,
        repl_timeout_ms: cfg.repl_timeout.saturating_mul(1000),
        slot_migration_log_len: cfg.cluster_slot_migration_log_max_len.try_into().unwrap_or(usize::MAX),
        slot_migration_max_backlog: u64::try_from(cfg.slot_migration_max_failover_repl_bytes).ok(),
        slot_pull_max_lag: cfg.cluster_slot_migration_handoff_max_lag_bytes,
        slot_pull_hold_ms: cfg.cluster_slot_migration_write_pause_timeout,
        slot_pull_drain_ms: cfg.cluster_slot_migration_sync_buffer_drain_timeout,
        secrets: Secrets::parse(&cfg.cluster_secret),
        seeds: cfg.cluster_seeds.clone(),
        form_masters: cfg.cluster_form_masters,
        form_replicas: cfg.cluster_form_replicas,
        zone: cfg.availability_zone.clone(),
        names: cfg.cluster_name.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
        preferred_endpoint: match cfg.cluster_preferred_endpoint_type {
            ClusterPreferredEndpointType::Ip => PreferredEndpoint::Ip,
            ClusterPreferredEndpointType::Hostname => PreferredEndpoint::Hostname,
            ClusterPreferredEndpointType::UnknownEndpoint => PreferredEndpoint::Unknown,
        },
    }
}

/// Without its file a node must not go on.
fn or_die<T>(result: Result<T, String>) -> T {
    result.unwrap_or_else(|reason| {
        log::warn!("{reason}");
        log::warn!("Fatal: can't update cluster config file.");
        std::process::exit(1)
    })
}

/// What is left of a buffer, its first `taken` bytes being done with; in memory of its own, and no more than it needs, if
/// the buffer is shared or much too large.
fn rest_of(buffer: &mut Vec<u8>, taken: usize, is_shared: bool) -> Vec<u8> {
    let left = buffer.len() - taken;
    if is_shared || left <= MOVED_BYTES {
        return buffer[taken..].to_vec();
    }
    buffer.drain(..taken);
    std::mem::take(buffer)
}

impl Server {
    /// In cluster mode: takes up `nodes.conf` and the bus port. To be called before data is loaded; nobody is answered
    /// until [`Server::start_cluster`].
    pub(crate) fn open_cluster(&mut self) -> Result<(), String> {
        if !self.cfg.cluster_enabled {
            return Ok(());
        }
        let port = if self.cfg.tls_cluster { self.cfg.tls_port } else { self.cfg.port };
        if self.cfg.cluster_port == 0 && port > 65535 - crate::cluster::BUS_PORT_OFFSET {
            return Err(
                "Redis port number too high. Cluster communication port is 10,000 port numbers higher than your \
                        Redis port. Your Redis port number must be 55535 or less."
                    .into(),
            );
        }
        if self.cfg.bind.is_empty() {
            return Err("No bind address is configured, but it is required for the Cluster bus.".into());
        }
        let mut seed = [0; 8];
        crate::server::random_bytes(&mut seed);
        let now_ms = self.clock.ms();
        let offset = now_ms - self.clock.mono_ms();
        let mut bus = Box::new(Bus::open(&self.cfg, now_ms, offset, u64::from_ne_bytes(seed))?);
        let port = bus.machine.config().listen_port();
        bus.listeners = listener::listen_tcp(&self.cfg.bind, port, self.cfg.tcp_backlog, &self.bind_names)
            .map_err(|_| format!("Failed listening on port {port} (cluster), aborting."))?;
        if let Some((ip, port)) = bus.machine.my_master_address() {
            self.start_as_replica_of(ip, port);
        }
        self.bus = Some(bus);
        Ok(())
    }

    /// In cluster mode: sees to keys in slots of others, and takes part in the cluster. To be called once the data is
    /// loaded.
    pub(crate) fn start_cluster(&mut self) -> Result<(), String> {
        self.with_cluster(|machine, env| {
            machine.on_imports_loaded(env);
            machine.adopt_loaded_keys(env);
        });
        let Some(bus) = &mut self.bus else { return Ok(()) };
        bus.machine.on_data_loaded(bus.durable.loaded_log);
        for (i, l) in bus.listeners.iter_mut().enumerate() {
            l.register(self.reactor.registry(), Source::BusListener(i as u32).token())
                .map_err(|e| format!("Failed to watch the cluster bus: {}", reason(&e)))?;
        }
        Ok(())
    }

    /// The machine, for reading.
    pub(crate) fn cluster(&self) -> Option<&Cluster> {
        self.bus.as_ref().map(|bus| &bus.machine)
    }

    /// Lets the machine work with what it must know of the server. `None` outside cluster mode.
    pub(crate) fn with_cluster<R>(&mut self, f: impl FnOnce(&mut Cluster, &Env) -> R) -> Option<R> {
        self.bus.as_ref()?;
        let (repl_offset, data_age_ms) = (self.announced_offset(), self.replication_data_age_ms());
        let syncs_replies = self.syncs_always();
        let Server { bus, ks, clock, repl, .. } = self;
        let bus = bus.as_mut()?;
        let db = &ks.dbs[0];
        let env = Env {
            now_ms: bus.machine_ms(clock.mono_us()),
            repl_offset,
            data_age_ms,
            replicating: repl.is_replica(),
            master_link_up: repl.follows_stream(),
            stream: repl.stream_id(),
            has_keys: !db.is_empty(),
            syncs_replies,
            slots_with_keys: &|slots| db.slots_with_keys(slots),
        };
        Some(f(&mut bus.machine, &env))
    }

    /// To be called when the loop wakes, before anything is served.
    pub(crate) fn cluster_turn_begins(&mut self) {
        let now_ms = self.clock.mono_ms();
        if let Some(bus) = &mut self.bus {
            bus.machine.turn_begins(bus.clock_offset_ms + now_ms);
        }
    }

    /// To be called when the configuration has changed.
    pub(crate) fn cluster_config_changed(&mut self) {
        if let Some(bus) = &mut self.bus {
            let config = machine_config(&self.cfg);
            if *bus.machine.config() != config {
                bus.machine.set_config(config);
            }
        }
        self.secret_changed();
    }

    /// When the cluster has something to do, wall clock.
    pub(crate) fn cluster_deadline_ms(&self) -> Option<i64> {
        let bus = self.bus.as_ref().filter(|_| !self.loads_own_data())?;
        if !bus.unread.is_empty() {
            return Some(0);
        }
        let monotonic_ms = bus.machine.next_deadline_ms() - bus.clock_offset_ms;
        Some(self.clock.ms() + (monotonic_ms - self.clock.mono_ms()))
    }

    /// Whether the data set is being read from disk at start. Until that is done the node keeps out of the cluster: to
    /// become a replica in between would mix what the master sends with what is still to be read.
    pub(crate) fn loads_own_data(&self) -> bool {
        self.is_loading() && !self.repl_io.is_loading()
    }

    /// Does what is due.
    pub(crate) fn cluster_timers(&mut self) {
        if self.loads_own_data() {
            return;
        }
        let Some(bus) = &mut self.bus else { return };
        for (index, generation) in std::mem::take(&mut bus.unread) {
            self.read_link(index, generation, true);
        }
        self.with_cluster(|machine, env| machine.tick(env));
    }

    /// Ten times a second: what is not worth a deadline.
    pub(crate) fn cluster_cron(&mut self) {
        let limit = self.cfg.cluster_link_sendbuf_limit;
        let Some(bus) = self.bus.as_ref().filter(|_| limit > 0) else { return };
        let used = bus.peers.iter().map(|(_, p)| (p.link, p.queue_mem() as u64));
        let over: Vec<(LinkId, u64)> = used.filter(|(_, used)| *used > limit).collect();
        for (link, used) in over {
            self.with_cluster(|machine, env| machine.on_link_over_limit(link, used, env));
        }
    }

    /// Ends the machine's turn and does what it asks for.
    pub(crate) fn cluster_before_sleep(&mut self) {
        self.note_config_written();
        if self.cluster_manual_failover() {
            // The offset that the machine tells must be that of all that was executed.
            self.drain_effects();
        }
        if !self.loads_own_data() {
            self.note_whether_logged();
        }
        while let Some(actions) = self.with_cluster(|machine, env| machine.flush(env)).filter(|a| !a.is_empty()) {
            // Carrying out one thing may bring about another: a connection refused at once, an answer to be sent.
            actions.into_iter().for_each(|action| self.act(action));
            // A quick disk is done already: what waited for it leaves in this turn.
            self.note_config_written();
        }
        self.note_durable_refusal();
        self.confirm_what_came();
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::SaveConfig { fsync } => {
                if let Some(bus) = &mut self.bus {
                    or_die(bus.save(fsync));
                }
            }
            Action::WriteConfig { fsync, number } => {
                if let Some(bus) = &mut self.bus {
                    or_die(bus.file.begin(bus.machine.nodes_conf(), fsync, number, self.reactor.waker()));
                }
            }
            Action::Connect { link, ip, port } => self.open_link(link, &ip, port),
            Action::CloseLink { link } => self.drop_link(link),
            Action::Send { link, packet } => self.send_on_link(link, packet),
            Action::SetReplicationMaster { ip, port } => self.set_master(&ip, port),
            Action::UnsetReplicationMaster => self.unset_master(),
            Action::SeekSeeds => self.seek_seeds(),
            Action::FlushAllData => self.forget_all_data(),
            Action::DelKeysInSlots(slots) => self.add_to_trim(&slots, true),
            Action::DropShardChannels(slots) => {
                self.drop_shard_channels(&slots);
                self.redirect_blocked();
            }
            Action::PauseClients { until_ms, readers_too } => {
                let left_ms = until_ms - self.bus.as_ref().map_or(0, |bus| bus.machine_ms(self.clock.mono_us()));
                let kind = if readers_too { PauseKind::Keys } else { PauseKind::Write };
                self.pause_clients(PausePurpose::Failover, kind, self.clock.ms() + left_ms);
            }
            Action::UnpauseClients => self.unpause_clients(PausePurpose::Failover),
            Action::SlotMigration(order) => self.do_for_slot_migration(order),
            Action::Deliver { sharded, channel, message } => {
                self.deliver(sharded, &channel, &message);
            }
        }
    }

    /// The data were another master's, and are not to come back from the disk when this node is started again.
    fn forget_all_data(&mut self) {
        self.begin_effects();
        self.ks.flush(None, false);
        self.ks.effects.propagate(0, target::AOF, [&b"FLUSHALL"[..]].into_iter());
        if self.depth == 0 {
            self.drain_effects();
        }
        self.after_flush_all();
    }

    /// Looks whether what was written beside the loop is in its place.
    fn note_config_written(&mut self) {
        if let Some(number) = self.bus.as_mut().and_then(|bus| or_die(bus.file.written())) {
            self.with_cluster(|machine, env| machine.on_config_written(number, env));
        }
    }

    /// Ends what is being written, so that nothing half done is left.
    pub(crate) fn end_config_write(&mut self) {
        if let Some(bus) = &mut self.bus {
            or_die(bus.file.wait());
        }
    }

    fn open_link(&mut self, link: LinkId, ip: &str, port: u16) {
        let opened = match ip.parse::<IpAddr>() {
            // While the address to connect from is looked up, the attempt fails, to be repeated soon.
            Ok(_) => match self.connection_ends(ip, port) {
                Poll::Ready(ends) => ends
                    .and_then(|(target, source)| open_connection(target, source))
                    .and_then(|conn| self.secure(conn, self.cfg.tls_cluster)),
                Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
            },
            Err(_) => Err(io::Error::other("not an IP address, and names of nodes are not looked up")),
        };
        let opened = opened.and_then(|conn| {
            conn.set_nodelay(true);
            self.add_link(link, conn, false)
        });
        if let Err(e) = opened {
            log::trace!("Unable to connect to Cluster Node [{ip}]:{port} -> {}", reason(&e));
            self.note_if_refused(link, &e);
            self.lose_link(link);
        }
    }

    fn add_link(&mut self, link: LinkId, conn: Conn, connected: bool) -> io::Result<()> {
        let Some(bus) = &mut self.bus else { return Ok(()) };
        bus.add_peer(link, conn, connected, self.reactor.registry())
    }

    fn drop_link(&mut self, link: LinkId) {
        if let Some(bus) = &mut self.bus {
            bus.drop_peer(link, self.reactor.registry());
        }
    }

    fn send_on_link(&mut self, link: LinkId, packet: Rc<[u8]>) {
        let Some(bus) = &mut self.bus else { return };
        let Some(&index) = bus.by_link.get(&link) else { return };
        bus.peers[index].enqueue(packet);
        self.write_link(index);
    }

    pub(super) fn write_link(&mut self, index: usize) {
        let Some(bus) = &mut self.bus else { return };
        if let Err(e) = bus.write(index) {
            log::trace!("I/O error writing to node link: {}", reason(&e));
            let link = bus.peers[index].link;
            self.lose_link(link);
        }
    }

    pub(super) fn lose_link(&mut self, link: LinkId) {
        self.drop_link(link);
        self.with_cluster(|machine, env| machine.on_link_closed(link, env));
    }

    /// A listener of the bus has connections.
    pub(crate) fn on_bus_listener_ready(&mut self, listener: u32) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(l) = self.bus.as_ref().and_then(|bus| bus.listeners.get(listener as usize)) else { return };
            let conn = match l.accept() {
                Ok(conn) => conn,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted) => continue,
                Err(e) => {
                    log::debug!("Error accepting cluster node: {}", reason(&e));
                    return;
                }
            };
            // While our own data is loaded, the other side tries again.
            if self.loads_own_data() {
                continue;
            }
            if self.cfg.tls_cluster {
                self.begin_handshake(conn, Secured::Bus);
            } else {
                self.accept_link(conn);
            }
        }
    }

    /// Makes a link of another node's connection, which has its handshake done if there is to be one and is not registered.
    pub(crate) fn accept_link(&mut self, conn: Conn) {
        let (Some(peer), Some(local)) = (conn.peer(), conn.local()) else { return };
        log::debug!("Accepting cluster node connection from {}:{}", peer.ip(), peer.port());
        conn.set_nodelay(true);
        conn.set_keepalive(self.cfg.cluster_node_timeout / 1000 * 2);
        let Some(bus) = &mut self.bus else { return };
        let now_ms = bus.machine_ms(self.clock.mono_us());
        let link = bus.machine.on_accept(now_ms, peer.ip().to_string(), local.ip().to_string());
        if let Err(e) = self.add_link(link, conn, true) {
            log::debug!("Error accepting cluster node connection: {}", reason(&e));
            return self.lose_link(link);
        }
        // What came along with the end of a handshake is told of by no event.
        let Some(bus) = &mut self.bus else { return };
        if let Some(index) = bus.by_link.get(&link).copied()
            && bus.peers[index].conn.holds_more()
        {
            let generation = bus.peers[index].generation;
            bus.unread.push((index, generation));
        }
    }

    /// The socket of a link is ready.
    pub(crate) fn on_bus_link_ready(&mut self, (index, generation): (u32, u32), event: Ready) {
        let index = index as usize;
        if !self.link_stands(index, generation, event) {
            return;
        }
        let Some(bus) = &mut self.bus else { return };
        if event.writable
            && let Some(peer) = bus.peer(index, generation)
        {
            peer.blocked = false;
            self.write_link(index);
        }
        if event.readable {
            self.read_link(index, generation, event.closed);
        }
    }

    /// Whether a link is there to be used. One that we opened has just come to stand, or failed, if this is the first event.
    fn link_stands(&mut self, index: usize, generation: u32, event: Ready) -> bool {
        let Some(bus) = &mut self.bus else { return false };
        let Some(peer) = bus.peer(index, generation) else { return false };
        if peer.connected {
            return true;
        }
        let stands = peer.conn.finish_connecting();
        let (link, local, is_open) = (peer.link, peer.conn.local(), peer.conn.peer().is_some());
        if stands.is_err() || event.closed && !is_open {
            if let Err(e) = &stands {
                self.note_if_refused(link, e);
            }
            let bus = self.bus.as_mut().expect("it is there");
            if let Some((Some(key), _)) = bus.machine.link_peer(link) {
                let node = bus.machine.node(key);
                let why = stands.map_or_else(|e| reason(&e), |_| "connection closed".into());
                log::debug!("Connection with Node {} at {}:{} failed: {why}", node.id, node.ip, node.bus_port);
            }
            self.lose_link(link);
            return false;
        }
        if !matches!(stands, Ok(true)) {
            // Woken for nothing, or the handshake goes on.
            return false;
        }
        bus.peers[index].connected = true;
        if bus.peers[index].seal.waits() {
            self.write_link(index);
        } else {
            self.link_may_be_used(link, local);
        }
        true
    }

    /// Nobody listens at the node's address.
    fn note_if_refused(&mut self, link: LinkId, e: &io::Error) {
        if e.kind() == io::ErrorKind::ConnectionRefused {
            self.with_cluster(|machine, _| machine.on_link_refused(link));
        }
    }

    /// A link that we opened stands, and both sides have greeted if they are to.
    pub(super) fn link_may_be_used(&mut self, link: LinkId, local: Option<SocketAddr>) {
        let local_ip = local.map(|a| a.ip().to_string()).unwrap_or_default();
        self.with_cluster(|machine, env| machine.on_link_connected(link, local_ip, env));
    }

    /// Reads a link up to its share of the turn and hands over its packets. `to_end`: it was closed, which only a read tells.
    fn read_link(&mut self, index: usize, generation: u32, to_end: bool) {
        for _ in 0..READS_PER_TURN {
            // What is read was sent before this, however long the turn has taken.
            self.clock.tick_us();
            let Some(Received { link, bytes, is_shared, is_all, result }) =
                self.bus.as_mut().and_then(|bus| bus.read(index, generation))
            else {
                return;
            };
            let taken = if matches!(result, Ok(1..)) { self.take_packets(index, link, &bytes) } else { Some(0) };
            if let Some(bus) = &mut self.bus {
                bus.put_back((index, generation), bytes, taken, is_shared);
            }
            match result {
                Ok(0) => {
                    log::trace!("I/O error reading from node link: connection closed");
                    return self.lose_link(link);
                }
                Ok(_) if taken.is_none() || is_all && !to_end => return,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    log::trace!("I/O error reading from node link: {}", reason(&e));
                    return self.lose_link(link);
                }
            }
        }
        if let Some(bus) = &mut self.bus {
            bus.unread.push((index, generation));
        }
    }

    /// Hands over the whole packets among the bytes; how many bytes those are, `None` if the link is gone.
    fn take_packets(&mut self, index: usize, link: LinkId, received: &[u8]) -> Option<usize> {
        let mut at = 0;
        loop {
            let peer = self.bus.as_mut()?.peers.get_mut(index).filter(|peer| peer.link == link)?;
            match peer.seal.take(&received[at..], random_nonce) {
                Ok(Taken::Packet(len, code_len)) => {
                    let packet = &received[at..at + len];
                    self.with_cluster(|machine, env| machine.on_packet(link, packet, env));
                    at += len + code_len;
                }
                Ok(Taken::Greeting(len, answer)) => {
                    self.on_greeting(index, answer)?;
                    at += len;
                }
                Ok(Taken::None) => return Some(at),
                Err(broken) => {
                    self.give_up_link(index, &broken);
                    return None;
                }
            }
        }
    }

    /// Whether a client must not be told any more that its write took place: the lease has ended since replies last left, in a
    /// turn that took long or because this process stood still. The clock is read anew.
    pub(crate) fn is_reply_late(&self, id: ClientId) -> bool {
        let Some(bus) = self.bus.as_ref().filter(|bus| bus.leased) else { return false };
        if bus.machine.holds_lease(bus.machine_ms(self.clock.fresh_us())) {
            return false;
        }
        let links = ClientFlags::REPLICA.union(ClientFlags::MASTER);
        self.clients.get(id).is_some_and(|c| c.write_offset > bus.told_offset && !c.is(links))
    }

    /// To be called when replies have left.
    pub(crate) fn note_replies_left(&mut self) {
        let (offset, mono_us) = (self.repl_offset(), self.clock.fresh_us());
        if let Some(bus) = &mut self.bus {
            bus.leased = bus.machine.holds_lease(bus.machine_ms(mono_us));
            bus.told_offset = offset;
        }
    }

    /// Closes links to or from a node, as DEBUG CLUSTERLINK KILL asks.
    pub(crate) fn kill_cluster_links(&mut self, id: &[u8], to: bool, from: bool) -> Result<(), String> {
        let Some(bus) = &self.bus else { return Ok(()) };
        let Some(key) = bus.machine.find(id) else {
            return Err(format!("Unknown node {}", String::from_utf8_lossy(id)));
        };
        let node = bus.machine.node(key);
        let links = [node.link.filter(|_| to), node.inbound.filter(|_| from)];
        links.into_iter().flatten().for_each(|link| self.lose_link(link));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::is_elsewhere;

    #[test]
    fn an_address_of_the_last_time_may_be_anothers() {
        for (ip, expected) in
            [("127.0.0.1", false), ("", false), ("a name", false), ("192.0.2.7", true), ("2001:db8::7", true)]
        {
            assert_eq!(is_elsewhere(ip), expected, "{ip}");
        }
    }
}
