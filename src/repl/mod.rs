//! Replication as a state machine that does no I/O.
//!
//! Owns what a server knows of replication in both roles: the history (ids and offsets), the shared output buffer, the
//! attached replicas, the link to a master of its own, and the planned change of roles. [`Repl`] is fed events (bytes of
//! the master's link, what became of a connection, a file or a child, what replicas ask and acknowledge, the time) with
//! an [`Env`] that describes the rest of the server, and answers with an ordered list of [`Action`]s. So a primary and
//! its replicas run in one process over simulated links; see `sim`.
//!
//! The contract with the caller:
//!
//! - After every event the actions are taken ([`Repl::take_actions`]) and carried out in order, before the next event
//!   from outside. What carrying one out brings about (a connection refused at once, a file that cannot be written) is
//!   the next event, whose actions come before those that are left.
//! - Actions that concern the connection to the master name its [`LinkId`]. Those of a link that is not current any more
//!   ([`Repl::is_current`]) have come too late and are left out.
//!
//! Invariants: while there is a backlog it ends where the history does; attached replicas imply a backlog; a cursor
//! belongs to exactly one attached replica; without a master's address there is no link.
//!
//! Files: `follow` and `link` (the link to the master), `handshake` and `bulk` (what is said on it), `serve` and `primary`
//! (replicas and their snapshots), `stream` (the stream and its way to replicas), `wait` (WAIT), `failover` (FAILOVER),
//! `history` and `backlog`, `info` (what INFO, ROLE and others show).
//!
//! Leaves to others: what a command is (`dispatch`), how an RDB is written or read (`persist`), and sockets, files and
//! children (`server/repl`).

mod backlog;
mod bulk;
mod failover;
mod follow;
mod handshake;
mod history;
mod info;
mod link;
mod primary;
mod serve;
#[cfg(test)]
mod sim;
mod stream;
mod wait;

pub(crate) use backlog::Backlog;
pub(crate) use bulk::Framing;
pub(crate) use failover::Target;
pub(crate) use handshake::VERSION_CAPABILITY;
pub(crate) use history::ReplId;
pub(crate) use info::{Heir, MasterView, ReplicaView, RoleView, TransferView};
pub(crate) use primary::{RunningChild, SnapshotTarget};
pub(crate) use serve::{Peer, Position, SnapshotStart};
pub(crate) use wait::{Awaited, WaitAnswer};

use crate::config::Config;
use crate::net::ClientId;
use crate::sys::log::Role;
use failover::Failover;
use history::History;
use link::MasterLink;
use primary::{Announcement, Replica};

/// A line the server should log, decided by a part that does no logging itself.
///
/// The level follows the project's mapping: `Warn` is Redis's warning (`#`), `Info` its notice (`*`), `Debug` its
/// verbose (`-`) and `Trace` its debug (`.`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    level: log::Level,
    text: String,
}

impl LogLine {
    /// A line at Redis's notice level.
    fn notice(text: impl Into<String>) -> Self {
        LogLine { level: log::Level::Info, text: text.into() }
    }

    /// A line at Redis's warning level.
    fn warning(text: impl Into<String>) -> Self {
        LogLine { level: log::Level::Warn, text: text.into() }
    }

    /// Hands the line to the log.
    pub(crate) fn emit(&self) {
        log::log!(self.level, "{}", self.text);
    }
}

/// A connection to the master, or an attempt at one. No number is used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LinkId(u64);

/// The client that runs the master's commands, as the server knows it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MasterSession {
    /// Database it has selected.
    pub(crate) db: usize,
    /// Its stream turned out to be broken, or it is in the middle of a command: there is no position to continue from.
    pub(crate) is_broken: bool,
}

/// What the machine must know of the server at an event.
pub(crate) struct Env<'a> {
    /// Wall clock, Unix milliseconds.
    pub(crate) now_ms: i64,
    /// The configuration in use.
    pub(crate) cfg: &'a Config,
    /// A dataset is being loaded.
    pub(crate) is_loading: bool,
    /// Writes are held back.
    pub(crate) writes_paused: bool,
    /// A manual failover of the cluster is under way.
    pub(crate) manual_failover: bool,
    /// Newest offset of the stream that is on this server's disk, if the AOF is in use.
    pub(crate) fsynced_offset: Option<i64>,
    /// The child process that is running.
    pub(crate) child: RunningChild,
    /// The client of [`Repl::master_client`], if it is there.
    pub(crate) master: Option<MasterSession>,
    pub(crate) has_no_keys: &'a dyn Fn() -> bool,
    /// What an acknowledgement ends with, if this server vouches for what it has.
    pub(crate) vouch: &'a dyn Fn() -> Option<Vec<Vec<u8>>>,
    /// The cluster node that this server is.
    pub(crate) node_id: Option<&'a [u8]>,
}

impl Env<'_> {
    fn now_s(&self) -> i64 {
        self.now_ms / 1000
    }
}

/// What the caller is to do, in order.
#[derive(Debug)]
pub(crate) enum Action {
    Log(LogLine),
    /// From here on the lines of the log are those of this role.
    LogAs(Role),
    /// The role changed: show it wherever it is shown.
    ShowRole,
    /// The AOF was switched off for a synchronization; switch it on again if that is still so.
    RestartAofAfterRoleChange,
    /// A synchronization is complete: switch the AOF on again if it is to be on.
    RestartAofAfterSync,
    /// Give this backlog's memory back.
    DropBacklog(Backlog),
    /// Hold back writes for a planned change of roles.
    PauseWrites,
    /// Let them go on.
    ResumeWrites,
    /// Release all clients that wait for something only a primary has.
    DisconnectBlocked,

    // towards the master
    /// Connect; then `on_connecting` or `on_connect_failed`, or `on_look_up` while the name is looked up.
    Connect {
        link: LinkId,
        host: String,
        port: u16,
    },
    /// Close the connection and drop what was received.
    CloseLink {
        link: LinkId,
    },
    /// Send bytes to the master, to its client if there is one; `on_write_failed` if that fails on the bare connection.
    SendToMaster {
        link: LinkId,
        bytes: Vec<u8>,
    },
    /// Make the file that the dataset is received into; `on_open_failed` if that fails.
    OpenReceivedFile {
        link: LinkId,
    },
    /// Write bytes of the dataset to that file; `on_store_failed` if that fails.
    StoreReceived {
        link: LinkId,
        bytes: Vec<u8>,
    },
    /// The file is complete: load it, then `finish_full_sync` or `cancel_sync`. `rest` is what followed it.
    LoadReceivedFile {
        link: LinkId,
        rest: Vec<u8>,
    },
    /// Load the dataset as it comes off the connection, then the same; `rest` is what of it was read already.
    LoadFromLink {
        link: LinkId,
        framing: Framing,
        rest: Vec<u8>,
    },
    /// Make the connection a client that runs the master's commands, beginning with `rest`, and tell which one by
    /// `on_adopted`.
    AdoptLink {
        link: LinkId,
        db: usize,
        rest: Vec<u8>,
    },

    // towards clients
    /// The client is a replica from now on; `is_fresh`: one that begins with a snapshot.
    BecomeReplica {
        client: ClientId,
        is_fresh: bool,
    },
    /// The client is no replica any more, and goes when it has got what waits for it.
    DismissReplica {
        client: ClientId,
    },
    /// Queue bytes for a client.
    Push {
        client: ClientId,
        bytes: Vec<u8>,
    },
    /// Write what the client has waiting when it is its turn.
    WantWrite {
        client: ClientId,
    },
    /// See whether the client's output has grown beyond its limit.
    CheckOutput {
        client: ClientId,
    },
    /// Close a client's connection at the end of the turn.
    CloseLater {
        client: ClientId,
    },
    /// Take a client away at once.
    Free {
        client: ClientId,
    },
    /// A client in WAIT or WAITAOF has what it waits for.
    Release {
        client: ClientId,
        answer: WaitAnswer,
    },

    // snapshots
    /// Start the child; then `on_snapshot_started` or `on_snapshot_refused`, and `on_snapshot_ended` when it is gone.
    StartSnapshot(SnapshotStart),
    /// Open the dump file for this replica; then `on_file_opened`, and `on_snapshot_sent` when the replica has it.
    SendFile {
        client: ClientId,
    },
    /// A replica is out of the snapshot that was on its way to it.
    LeaveSnapshot {
        client: ClientId,
    },
    /// The snapshot that is being written to disk is for nobody.
    KillSnapshot,
    /// See whether the child has ended: a replica behaves as if it had.
    ReapChild,
    /// Remove the dump file if it is there, and tell by `on_dump_removed`.
    RemoveDump,
}

/// A replica and the client it came as.
#[derive(Debug)]
struct Attached {
    client: ClientId,
    /// The client's number, for logs.
    number: u64,
    /// Address of the connection.
    peer_ip: Option<String>,
    replica: Replica,
    /// Its socket takes nothing more: wait until it says so.
    stalled: bool,
}

impl Attached {
    /// How logs call it.
    fn name(&self) -> String {
        self.replica.announced.name(self.peer_ip.as_deref(), self.number)
    }

    /// The address INFO and ROLE show.
    fn ip(&self) -> Option<String> {
        match &self.replica.announced.ip {
            Some(ip) => Some(String::from_utf8_lossy(ip).into_owned()),
            None => self.peer_ip.clone(),
        }
    }
}

/// Counters INFO reports.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReplStats {
    /// Full synchronizations asked for.
    pub(crate) sync_full: u64,
    /// Partial ones served.
    pub(crate) sync_partial_ok: u64,
    /// Partial ones asked for and refused.
    pub(crate) sync_partial_err: u64,
}

/// The machine. See the module's description for the contract.
#[derive(Debug)]
pub(crate) struct Repl {
    history: History,
    /// The stream; `None` until someone needs it.
    backlog: Option<Backlog>,
    /// Database the stream has selected; `None`: the next command is to select one.
    stream_db: Option<usize>,
    /// The offset before and after replicas were last asked for acknowledgements.
    asked_at: (i64, i64),
    /// Attached replicas, in the order they came.
    replicas: Vec<Attached>,
    /// What clients announced with REPLCONF and have not used yet.
    announced: Vec<(ClientId, Announcement)>,
    /// Since when there are no replicas, in Unix seconds.
    no_replicas_since_s: i64,
    /// Replicas that count for `min-replicas-to-write`.
    good_replicas: usize,
    /// Clients in WAIT and WAITAOF, and some that no longer are.
    waiters: wait::Waiters,
    /// Ask all replicas for an acknowledgement before the loop sleeps.
    want_acks: bool,
    /// The dump file was written only for replicas, and is to be removed when they have it.
    dump_is_for_replicas: bool,
    /// How often the periodic work ran.
    cron_loops: u64,
    /// A snapshot is being streamed to replicas.
    streaming: bool,
    /// The link to our master.
    master: MasterLink,
    /// The planned change of roles.
    failover: Failover,
    stats: ReplStats,
    actions: Vec<Action>,
}

impl Repl {
    /// A server that starts as a primary without replicas.
    pub(crate) fn new(now_s: i64) -> Self {
        Repl {
            history: History::new(),
            backlog: None,
            stream_db: None,
            asked_at: (0, 0),
            replicas: Vec::new(),
            announced: Vec::new(),
            no_replicas_since_s: now_s,
            good_replicas: 0,
            waiters: wait::Waiters::new(),
            want_acks: false,
            dump_is_for_replicas: false,
            // The run at number 0 would be before any replica can be there.
            cron_loops: 1,
            streaming: false,
            master: MasterLink::default(),
            failover: Failover::default(),
            stats: ReplStats::default(),
            actions: Vec::new(),
        }
    }

    /// Whether this server is a replica.
    pub(crate) fn is_replica(&self) -> bool {
        self.master.address.is_some()
    }

    /// Whether there is something to carry out.
    pub(crate) fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// What is to be carried out, in order.
    pub(crate) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The periodic work, about once a second, and ten times as often during a planned change of roles.
    pub(crate) fn cron(&mut self, env: &Env) {
        self.cron_towards_master(env);
        self.cron_towards_replicas(env);
    }

    /// Whether [`before_sleep`](Self::before_sleep) has anything to do.
    pub(crate) fn is_restless(&self) -> bool {
        !self.waiters.is_empty() || self.want_acks || self.failover.is_waiting()
    }

    /// Before the loop sleeps: serves those who wait, asks for acknowledgements, moves a change of roles on.
    pub(crate) fn before_sleep(&mut self, env: &Env) {
        self.serve_waiters(env);
        if self.want_acks && !env.writes_paused {
            self.ask_for_acks();
            self.want_acks = false;
        }
        self.step_failover(env);
    }

    /// A client is about to go: it may be the master's or a replica's.
    pub(crate) fn on_client_gone(&mut self, client: ClientId, env: &Env) {
        if self.master_client() == Some(client) {
            self.lose_online_master(env);
        }
        self.detach(client, env);
    }

    /// Whether a client matters here.
    pub(crate) fn knows(&self, client: ClientId) -> bool {
        self.master_client() == Some(client)
            || self.announced.iter().any(|(id, _)| *id == client)
            || self.attached(client).is_some()
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn log(&mut self, line: LogLine) {
        self.actions.push(Action::Log(line));
    }

    fn notice(&mut self, text: impl Into<String>) {
        self.log(LogLine::notice(text));
    }

    fn warn(&mut self, text: impl Into<String>) {
        self.log(LogLine::warning(text));
    }
}
