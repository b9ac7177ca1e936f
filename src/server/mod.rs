//! The server: the rooms' states side by side, start-up, and the order of work in the loop.
//!
//! One turn: what is due before sleeping (propagation, the AOF, then replies), a slice of the data set being loaded, the
//! poll, the cluster bus and replication links, clients, timers. Order matters in `before_sleep`: nothing leaves before it is as durable as was asked for.

pub(crate) mod acl;
pub(crate) mod admin;
pub(crate) mod clients;
pub(crate) mod cluster;
pub mod commands;
pub(crate) mod dispatch;
pub(crate) mod keyspace;
pub(crate) mod moving;
pub(crate) mod net;
pub(crate) mod persist;
pub(crate) mod pubsub;
pub(crate) mod repl;
pub(crate) mod restoring;
pub(crate) mod script;
pub mod startup;
pub(crate) mod tracking;

use crate::acl::Acl;
use crate::admin::Admin;
use crate::admin::stats::Stats;
use crate::catalog::CommandTable;
use crate::config::Config;
use crate::keyspace::Keyspace;
use crate::net::handshakes::Handshakes;
use crate::net::listener::{self, BindNames, Listener};
use crate::net::reactor::Ready;
use crate::net::{ClientId, Reactor, Source};
use crate::persist::Persist;
use crate::pubsub::PubSub;
use crate::repl::Repl;
use crate::script::Scripting;
use crate::server::clients::Clients;
use crate::server::cluster::bus::Bus;
use crate::server::cluster::slot_memory::SlotMemory;
use crate::server::cluster::slot_meter::SlotMeter;
use crate::server::net::serve::Unaccepted;
use crate::server::net::threads::IoThreads;
use crate::server::persist::load::Loader;
use crate::server::repl::ReplIo;
use crate::structs::table::HashSeed;
use crate::sys::alloc;
use crate::sys::background::Background;
use crate::sys::clock::Clock;
use crate::sys::process::OomScore;
use crate::sys::resolve::Resolver;
use crate::sys::watchdog;
use crate::tracking::Tracking;
use admin::client_memory::ClientMemory;
use admin::findings::Doctor;
use admin::port::Port;
use admin::tls::Tls;
use dispatch::ahead::Ahead;
use dispatch::blocked::Blocked;
use dispatch::call::Run;
use dispatch::pause::Pauses;
use moving::Moving;
use restoring::Restoring;
use std::io;
use std::time::Duration;

/// How long a starting server waits for the address of a host name to listen on.
const LONGEST_LOOK_UP: Duration = Duration::from_secs(60);

pub(crate) struct Server {
    pub(crate) cfg: Config,
    pub(crate) clock: Clock,
    pub(crate) ks: Keyspace,
    pub(crate) clients: Clients,
    pub(crate) client_memory: ClientMemory,
    pub(crate) reactor: Reactor,
    pub(crate) resolver: Resolver,
    pub(crate) listeners: Vec<Listener>,
    /// Where the host names of `bind` are.
    pub(crate) bind_names: BindNames,
    pub(crate) unaccepted: Unaccepted,
    pub(crate) tls: Tls,
    pub(crate) handshakes: Handshakes,
    /// The port for operators.
    pub(crate) port: Port,
    pub(crate) io: IoThreads,
    pub(crate) commands: CommandTable,
    /// What the commands of the table run.
    pub(crate) functions: Vec<Run>,
    pub(crate) stats: Stats,
    pub(crate) admin: Admin,
    pub(crate) doctor: Doctor,
    pub(crate) background: Background,
    pub(crate) persist: Persist,
    /// Keys on their way to other servers.
    pub(crate) moving: Moving,
    /// Large values that RESTORE reads.
    pub(crate) restoring: Restoring,
    pub(crate) blocked: Blocked,
    pub(crate) pauses: Pauses,
    /// The cluster, in cluster mode.
    pub(crate) bus: Option<Box<Bus>>,
    pub(crate) repl: Repl,
    pub(crate) repl_io: ReplIo,
    /// Clients whose commands a pause holds back, in order.
    pub(crate) postponed: Vec<ClientId>,
    pub(crate) pubsub: PubSub,
    pub(crate) tracking: Tracking,
    pub(crate) acl: Acl,
    pub(crate) script: Scripting,
    /// Nested calls: above 0 within a transaction or script.
    pub(crate) depth: usize,
    /// What TIME says within a transaction or script: the wall clock when it began, and of a script that others are served
    /// beside, when that was last done. Microseconds.
    pub(crate) unit_us: i64,
    /// The default user has a password.
    pub(crate) auth_required: bool,
    /// 40 hex digits that name this run.
    pub(crate) run_id: String,
    pub(crate) started_ms: i64,
    /// Absolute paths of the executable and the configuration file (empty: none).
    pub(crate) executable: String,
    pub(crate) config_file: String,
    pub(crate) oom_score: OomScore,
    /// Set when the loop is to end, with the exit code.
    pub(crate) exit: Option<i32>,
    /// Number of cron runs.
    pub(crate) cron_loops: u64,
    next_cron_ms: i64,
    pub(crate) slot_meter: SlotMeter,
    pub(crate) slot_memory: SlotMemory,
    /// Number of the last look-ahead over several clients.
    pub(crate) ahead_serial: u64,
    /// The data set being loaded.
    pub(crate) loader: Option<Box<Loader>>,
    /// In-flight turns, more than one while a script serves others.
    nesting: usize,
    /// Events of the (outermost) turn, and how many of them were seen to.
    events: Vec<Ready>,
    events_seen: usize,
}

impl Server {
    pub(crate) fn new(cfg: Config, config_file: String) -> io::Result<Server> {
        let clock = Clock::new();
        let mut seed = [0u8; 16];
        random_bytes(&mut seed);
        let ks =
            Keyspace::new(if cfg.cluster_enabled { 1 } else { cfg.databases }, cfg.cluster_enabled, HashSeed(seed));
        let executable = std::env::current_exe().map(|p| p.display().to_string()).unwrap_or_default();
        let now_ms = clock.ms();
        let persist = Persist::new(&cfg, now_ms / 1000);
        let background = Background::new(&cfg.bio_cpulist)?;
        let reactor = Reactor::new()?;
        let (table, functions) = commands::table();
        let mut server = Server {
            auth_required: !cfg.requirepass.is_empty(),
            cfg,
            clock,
            ks,
            clients: Clients::default(),
            client_memory: ClientMemory::default(),
            resolver: resolver_waking(&reactor),
            reactor,
            listeners: Vec::new(),
            bind_names: BindNames::new(),
            unaccepted: Unaccepted::default(),
            tls: Tls::default(),
            handshakes: Handshakes::default(),
            port: Port::default(),
            io: IoThreads::default(),
            commands: table,
            functions,
            stats: Stats::default(),
            admin: Admin::default(),
            doctor: Doctor::default(),
            background,
            persist,
            moving: Moving::default(),
            restoring: Restoring::default(),
            blocked: Blocked::default(),
            pauses: Pauses::default(),
            bus: None,
            repl: Repl::new(now_ms / 1000),
            repl_io: ReplIo::default(),
            postponed: Vec::new(),
            slot_meter: SlotMeter::default(),
            slot_memory: SlotMemory::default(),
            pubsub: PubSub::default(),
            tracking: Tracking::default(),
            acl: Acl::default(),
            script: Scripting::default(),
            depth: 0,
            unit_us: 0,
            run_id: random_hex_40(),
            started_ms: now_ms,
            executable,
            config_file,
            oom_score: OomScore::default(),
            exit: None,
            cron_loops: 0,
            next_cron_ms: now_ms,
            ahead_serial: 0,
            loader: None,
            nesting: 0,
            events: Vec::new(),
            events_seen: 0,
        };
        server.start_as_configured();
        server.update_access_clock();
        server.start_io_threads()?;
        Ok(server)
    }

    /// Opens the listeners that the configuration asks for.
    pub(crate) fn listen(&mut self) -> Result<(), String> {
        let mut opened = Vec::new();
        // Nobody is served yet, so nobody is held up.
        for name in listener::names_to_look_up(&self.cfg.bind) {
            match self.resolver.addresses_within(name, LONGEST_LOOK_UP) {
                Ok(found) => self.bind_names.extend(listener::address_to_bind(&found).map(|at| (name.to_owned(), at))),
                Err(e) => log::warn!("Could not look up the bind address {name}: {}", listener::reason(&e)),
            }
        }
        opened.extend(self.listen_tcp().map_err(|at| format!("Failed listening on port {at}, aborting."))?);
        if !self.cfg.unixsocket.is_empty() {
            let l = listener::listen_unix(&self.cfg.unixsocket, self.cfg.unixsocketperm, self.cfg.tcp_backlog)
                .map_err(|e| format!("Failed opening Unix socket: bind: {}", listener::reason(&e)))?;
            opened.push(l);
        }
        self.set_listeners(opened)
            .map_err(|e| format!("Failed to watch the listening sockets: {}", listener::reason(&e)))
    }

    /// Listens for clients over tcp, plain ones and those with TLS. The error, logged, is the port and what it is for.
    pub(crate) fn listen_tcp(&self) -> Result<Vec<Listener>, String> {
        let cfg = &self.cfg;
        let open = |port, name| match port {
            0 => Ok(Vec::new()),
            port => listener::listen_tcp(&cfg.bind, port, cfg.tcp_backlog, &self.bind_names)
                .map_err(|_| format!("{port} ({name})")),
        };
        let mut opened = open(cfg.port, "tcp")?;
        opened.extend(open(cfg.tls_port, "tls")?.into_iter().map(Listener::for_tls));
        Ok(opened)
    }

    /// Puts new listeners in place of the old ones.
    pub(crate) fn set_listeners(&mut self, mut opened: Vec<Listener>) -> io::Result<()> {
        for (i, l) in opened.iter_mut().enumerate() {
            // The numbers of the old listeners are free once those are closed below.
            l.register(self.reactor.registry(), Source::Listener(i as u32).token())?;
        }
        self.unaccepted.forget();
        for mut old in std::mem::replace(&mut self.listeners, opened) {
            let _ = old.deregister(self.reactor.registry());
        }
        Ok(())
    }

    /// Runs until something sets `exit`; gives the exit code.
    pub(crate) fn run(&mut self) -> i32 {
        let _told_of_in_a_crash = crate::sys::crash::tell_of(self);
        let mut ahead = Ahead::default();
        loop {
            if let Some(code) = self.exit {
                self.flush_aof();
                self.end_config_write();
                self.stop_io_threads();
                return code;
            }
            if let Err(e) = self.turn(&mut ahead, None) {
                log::warn!("The event loop failed: {}", listener::reason(&e));
                return 1;
            }
        }
    }

    /// Serves what is ready and comes back at once: called from within long scripts.
    pub(crate) fn serve_pending(&mut self) {
        if let Err(e) = self.turn(&mut Ahead::default(), Some(Duration::ZERO)) {
            log::warn!("The event loop failed: {}", listener::reason(&e));
        }
    }

    /// One turn of the loop, with room for the requests found in it. `at_most`: how long to sleep, otherwise until something is due.
    fn turn(&mut self, ahead: &mut Ahead, at_most: Option<Duration>) -> io::Result<()> {
        self.nesting += 1;
        self.before_sleep(ahead);
        let was_loaded = self.loader.is_some() && !self.is_nested_turn() && self.go_on_loading();
        let mut timeout = match at_most {
            Some(timeout) => timeout,
            // The end of a load leaves things to do before sleeping.
            None if was_loaded => Duration::ZERO,
            None => self.sleep_time(),
        };
        let now_us = self.clock.tick_us();
        self.admin.metrics.end_cycle(now_us, self.stats.commands_processed);
        if at_most.is_none() && !timeout.is_zero() {
            timeout = self.gather_changes(now_us, timeout);
        }
        let ready = match self.io.are_there() {
            false => self.reactor.poll(Some(timeout))?,
            true => self.poll_with_io_threads(timeout)?,
        };
        self.clock.begin_turn();
        self.admin.metrics.begin_cycle(self.clock.mono_us(), self.stats.commands_processed);
        self.update_access_clock();
        self.cluster_turn_begins();
        if self.is_nested_turn() {
            // What the turn around this one has yet to do would otherwise wait for the end of its long command.
            self.see_to_events(ahead);
            self.process_rest_of_batch(ahead);
            for event in &ready {
                self.on_ready(ahead, *event);
            }
            if self.io.are_there() {
                self.see_to_io_threads(ahead, &ready);
            }
            self.reactor.recycle(ready);
        } else {
            self.events = ready;
            self.events_seen = 0;
            self.see_to_events(ahead);
            if self.io.are_there() {
                let events = std::mem::take(&mut self.events);
                self.see_to_io_threads(ahead, &events);
                self.events = events;
            }
            self.run_inputs(ahead);
            self.reactor.recycle(std::mem::take(&mut self.events));
        }
        self.read_pending(ahead);
        self.accept_rest(ahead);
        self.run_handshakes(ahead);
        self.serve_operators();
        self.run_timers();
        self.nesting -= 1;
        Ok(())
    }

    /// While changes wait for others before they are synced: sleeps for a step of that time. Gives how long the poll may.
    fn gather_changes(&self, now_us: i64, timeout: Duration) -> Duration {
        /// The poll counts milliseconds, which is too coarse for what waits for a sync to begin.
        const STEP_US: i64 = 150;
        let Some(until_us) = self.gather_deadline_us() else { return timeout };
        let step_us = (until_us - now_us).clamp(0, STEP_US);
        if step_us > 0 {
            std::thread::sleep(Duration::from_micros(step_us as u64));
        }
        Duration::ZERO
    }

    fn see_to_events(&mut self, ahead: &mut Ahead) {
        while let Some(event) = self.events.get(self.events_seen).copied() {
            self.events_seen += 1;
            self.on_ready(ahead, event);
        }
    }

    /// True within a turn that was started from within another one.
    pub(crate) fn is_nested_turn(&self) -> bool {
        self.nesting > 1
    }

    fn on_ready(&mut self, ahead: &mut Ahead, event: Ready) {
        match event.source {
            Source::Listener(i) => self.accept_clients(ahead, i as usize),
            Source::Client(id) => self.on_client_ready(ahead, id, event),
            Source::BusListener(i) => self.on_bus_listener_ready(i),
            Source::BusLink(index, generation) => self.on_bus_link_ready((index, generation), event),
            Source::MasterLink if self.master_link_feeds() => {}
            Source::MasterLink => self.on_master_link_ready(event),
            Source::SnapshotPipe => self.on_snapshot_pipe_ready(),
            Source::Moving(number) => self.on_moving_ready(number, event),
            Source::SlotMigration(number) => self.on_migration_link_ready(number, event),
            Source::Handshake(index, generation) => self.handshakes.note_ready(index, generation),
            Source::OperatorsListener(i) => self.accept_operators(i as usize),
            Source::Operator(index, generation) => self.on_operator_ready(index, generation, event),
            // That the poll ended is all there is to it.
            Source::Waker => {}
            // There are none on this thread.
            Source::Lingering(_) => {}
        }
    }

    /// How long the loop may sleep: not at all with work left over, else until the next thing is due.
    fn sleep_time(&mut self) -> Duration {
        // Whoever is still to be written to had its share of bytes, and its socket takes more: no event will come.
        let busy = !self.clients.pending_reads.is_empty()
            || !self.clients.pending_writes.is_empty()
            || !self.clients.unblocked.is_empty()
            || !self.clients.closing.is_empty()
            || self.unaccepted.is_due()
            || self.handshakes.is_due()
            || self.exit.is_some()
            || self.keyspace_is_busy()
            || self.trims_now()
            || self.is_walking()
            || self.adds_memory_up()
            || self.is_moving()
            || self.restoring.is_busy()
            || self.load_can_go_on();
        if busy {
            return Duration::ZERO;
        }
        let now = self.clock.ms();
        let due = [
            Some(self.next_cron_ms),
            self.blocked.next_deadline_ms(),
            self.pauses.end_ms(),
            self.cluster_deadline_ms(),
            self.repl_deadline_ms(),
            self.operators_deadline_ms(),
            self.walk_deadline_ms(),
            self.trim_deadline_ms(),
            self.moving_deadline_ms(),
        ];
        let next = due.into_iter().flatten().min().unwrap_or(now + 100);
        Duration::from_millis((next - now).clamp(0, 1000) as u64)
    }

    fn before_sleep(&mut self, ahead: &mut Ahead) {
        if self.script_is_busy() {
            // It is in the middle of something: nothing but bytes moves.
            self.flush_aof();
            self.write_pending();
            return self.free_closing();
        }
        self.process_unblocked(ahead);
        self.keyspace_before_sleep();
        self.go_on_moving();
        if self.restoring.is_any() {
            self.go_on_restoring();
        }
        self.slot_migrations_before_sleep();
        self.cluster_before_sleep();
        if self.trim_slots() {
            self.cluster_before_sleep();
        }
        self.add_memory_up();
        self.repl_before_sleep();
        self.drain_effects();
        self.go_on_shutting_down(false);
        self.serve_ready_keys();
        self.broadcast_invalidations();
        // What was executed reaches the disk first, if it is to: then replies may leave.
        self.flush_aof();
        self.write_pending();
        self.free_closing();
        self.evict_clients();
        self.free_closing();
    }

    fn run_timers(&mut self) {
        if self.script_is_busy() {
            return;
        }
        self.expire_blocked();
        self.expire_pauses();
        self.cluster_timers();
        self.repl_timers();
        self.names_were_looked_up();
        let now = self.clock.ms();
        if now >= self.next_cron_ms || now + 10_000 < self.next_cron_ms {
            if !self.admin.debug.pause_cron {
                self.cron_loops += 1;
                let start_us = self.clock.tick_us();
                self.cron();
                self.admin.metrics.cron_us += (self.clock.tick_us() - start_us).max(0) as u64;
            }
            self.next_cron_ms = now + 1000 / self.hz();
        }
    }

    /// Cron runs a second: `hz`, more with many clients when `dynamic-hz` is on.
    pub(crate) fn hz(&self) -> i64 {
        let mut hz = self.cfg.hz;
        if self.cfg.dynamic_hz {
            while self.clients.len() as i64 / hz > 200 && hz < 500 {
                hz *= 2;
            }
        }
        hz.clamp(1, 500)
    }

    /// True about every `ms` milliseconds, when asked once a cron run.
    pub(crate) fn every_ms(&self, ms: i64) -> bool {
        let period = 1000 / self.hz();
        ms <= period || self.cron_loops.is_multiple_of((ms / period).max(1) as u64)
    }

    fn cron(&mut self) {
        self.update_access_clock();
        if self.cfg.watchdog_period > 0 {
            // As in Redis, a load counts as one piece of work.
            if !self.is_loading() {
                watchdog::schedule(self.cfg.watchdog_period);
            }
            watchdog::report();
        }
        self.sample_rates();
        alloc::peak();
        self.shutdown_cron();
        self.doctor_cron();
        self.clients_cron();
        self.retry_accepting();
        self.handshakes_cron();
        self.operators_cron();
        self.reload_tls();
        self.keyspace_cron();
        self.repl_cron();
        self.persist_cron();
        self.reap_debug_sessions();
        self.limit_tracking_table();
        self.cluster_cron();
        if self.bus.is_some() && self.every_ms(1000) {
            self.redirect_blocked();
        }
        self.drain_effects();
    }

    /// Gives the keyspace the clock and policy that keys' access fields follow.
    pub(crate) fn update_access_clock(&mut self) {
        use crate::config::MaxmemoryPolicy as P;
        let access = &mut self.ks.access;
        access.set_time(self.clock.ms());
        access.lfu = matches!(self.cfg.maxmemory_policy, P::AllkeysLfu | P::VolatileLfu);
        access.lfu_log_factor = self.cfg.lfu_log_factor as u32;
        access.lfu_decay_minutes = self.cfg.lfu_decay_time as u32;
        self.ks.lazy_expire = self.cfg.lazyfree_lazy_expire;
        self.ks.lazy_server_del = self.cfg.lazyfree_lazy_server_del;
        self.ks.now_ms = self.clock.ms();
    }
}

/// A resolver that wakes the loop when it has answers.
fn resolver_waking(reactor: &Reactor) -> Resolver {
    let waker = reactor.waker();
    Resolver::new(move || {
        // The loop looks again after its longest sleep at the latest.
        let _ = waker.wake();
    })
}

/// Fills a buffer from the system's random source; the clock helps out if it has none.
pub(crate) fn random_bytes(out: &mut [u8]) {
    if !crate::sys::process::entropy(out) {
        out.iter_mut().for_each(|b| *b = fastrand::u8(..));
    }
}

/// 40 random hexadecimal digits: run ids, replication ids, node ids.
pub(crate) fn random_hex_40() -> String {
    let mut bytes = [0u8; 20];
    random_bytes(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
