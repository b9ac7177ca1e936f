//! A client: its connection, what it has sent and not yet been answered, and what it is in the middle of.

use super::{Conn, Output};
use crate::catalog::row::Command;
use crate::catalog::table::CmdRef;
use crate::pubsub::Subscriptions;
use crate::resp::{OwnedArgs, RequestParser};
use crate::server::dispatch::blocked::BlockState;
use crate::server::dispatch::multi::MultiState;
use crate::tracking::ClientTracking;
use std::net::SocketAddr;

/// Names a client. Stale ids (the client is gone) find nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    pub index: u32,
    pub generation: u32,
}

/// A set of client flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientFlags(u64);

macro_rules! client_flags {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl ClientFlags {
            $($(#[$doc])* pub const $name: ClientFlags = ClientFlags(1 << $bit);)*
        }
    };
}

client_flags! {
    /// A replica of ours.
    REPLICA = 0;
    /// The link to our master.
    MASTER = 1;
    MONITOR = 2;
    /// In the middle of a transaction.
    MULTI = 3;
    BLOCKED = 4;
    /// A watched key changed: EXEC fails.
    DIRTY_CAS = 5;
    /// A command was refused while queueing: EXEC fails.
    DIRTY_EXEC = 6;
    /// Closed once the reply is out.
    CLOSE_AFTER_REPLY = 7;
    /// Closed at the end of the turn.
    CLOSE_ASAP = 8;
    UNIX_SOCKET = 9;
    READONLY = 10;
    /// The next command, or the transaction it begins, may enter a slot being imported.
    ASKING = 11;
    PUBSUB = 12;
    REPLY_OFF = 13;
    /// The reply of the next command is dropped.
    REPLY_SKIP_NEXT = 14;
    /// The reply of this command is dropped.
    REPLY_SKIP = 15;
    NO_EVICT = 16;
    NO_TOUCH = 17;
    TRACKING = 18;
    AUTHENTICATED = 19;
    /// No connection: commands of the AOF being loaded.
    AOF = 20;
    /// No connection: commands of a script.
    SCRIPT = 21;
    /// Has bytes to send and stands in the list of pending writes.
    PENDING_WRITE = 22;
    /// May have unread bytes; stands in the ready list.
    PENDING_READ = 23;
    /// The request could not be understood.
    PROTOCOL_ERROR = 24;
    /// Was released and has input to go on with.
    UNBLOCKED = 25;
    /// Peer closed its side or the socket failed.
    BROKEN = 26;
    /// Runs a command put off by CLIENT PAUSE.
    REPROCESSING = 27;
    /// Blocked clients are not released in the middle of it (EXEC, scripts).
    DENY_BLOCKING = 28;
    /// REPLICA client made by MONITOR or still in handshake before REPLCONF.
    PRE_PSYNC = 29;
    /// A replica of a version that understands no PSYNC.
    OLD_REPLICA = 30;
    /// `CLIENT KILL` and the like: close even though it is the one running.
    KILLED = 31;
    /// Tracks keys or did so once.
    HAS_TRACKED = 32;
    /// Its EVAL scripts are debugged (`SCRIPT DEBUG`), ...
    SCRIPT_DEBUG = 33;
    /// ... in this process.
    SCRIPT_DEBUG_SYNC = 34;
}

impl ClientFlags {
    pub fn has(self, other: ClientFlags) -> bool {
        self.0 & other.0 != 0
    }
    pub fn add(&mut self, other: ClientFlags) {
        self.0 |= other.0;
    }
    pub fn remove(&mut self, other: ClientFlags) {
        self.0 &= !other.0;
    }
    pub const fn union(self, other: ClientFlags) -> ClientFlags {
        ClientFlags(self.0 | other.0)
    }
    pub fn set(&mut self, other: ClientFlags, on: bool) {
        if on { self.add(other) } else { self.remove(other) }
    }
}

#[derive(Debug)]
pub struct Client {
    pub id: ClientId,
    /// The id that clients see, counted from 1 and never reused.
    pub number: u64,
    /// `None`: commands that come from within.
    pub conn: Option<Conn>,
    pub peer: Option<SocketAddr>,
    pub local: Option<SocketAddr>,
    /// What CLIENT LIST prints when the connection has no socket address: the unix socket's path.
    pub path: Option<String>,
    pub flags: ClientFlags,
    pub query: Vec<u8>,
    /// Where unprocessed input begins in `query`.
    pub query_pos: usize,
    pub parser: RequestParser,
    /// The look-ahead that holds requests of this client; 0: none does.
    pub ahead: u64,
    pub out: Output,
    pub db: usize,
    pub name: Vec<u8>,
    pub lib_name: Vec<u8>,
    pub lib_ver: Vec<u8>,
    /// 2 or 3.
    pub resp: u8,
    pub user: Vec<u8>,
    pub multi: MultiState,
    pub subscriptions: Option<Box<Subscriptions>>,
    /// How its keys are tracked; there exactly with the flag `TRACKING`.
    pub tracking: Option<Box<ClientTracking>>,
    pub block: Option<Box<BlockState>>,
    /// A command to run before the input is gone on with: one that was held back.
    pub resume: Option<(CmdRef, OwnedArgs)>,
    pub created_ms: i64,
    /// Wall clock of the last request, for `timeout` and `idle`.
    pub last_interaction_ms: i64,
    pub last_command: Option<&'static Command>,
    /// When the output passed the soft limit, monotonic ms.
    pub soft_limit_since_ms: Option<i64>,
    /// Largest reply buffer fill of late, and when it was noted (CLIENT LIST's `rbp`).
    pub reply_peak: usize,
    pub reply_peak_at_ms: i64,
    /// Replication offset of the last write this client made, for WAIT and WAITAOF.
    pub write_offset: i64,
    /// Bytes of the request being run that stand in the query buffer (CLIENT LIST's `argv-mem`).
    pub argv_bytes: usize,
    /// While requests run, the query buffer is in their hands: its length and capacity then.
    pub taken_query: (usize, usize),
    /// The largest fill of the query buffer since the cron last looked.
    pub query_peak: usize,
    /// The command that blocks the client, for its statistics.
    pub blocked_call: Option<Box<crate::server::admin::after_call::BlockedCall>>,
    /// What the client counts for in the sums over all clients.
    pub mem_counted: crate::admin::client_memory::Counted,
}

impl Client {
    pub fn new(id: ClientId, number: u64, conn: Option<Conn>, now_ms: i64) -> Client {
        let mut flags = ClientFlags::default();
        flags.set(ClientFlags::UNIX_SOCKET, conn.as_ref().is_some_and(Conn::is_unix));
        Client {
            id,
            number,
            peer: conn.as_ref().and_then(Conn::peer),
            local: conn.as_ref().and_then(Conn::local),
            path: None,
            conn,
            flags,
            query: Vec::new(),
            query_pos: 0,
            parser: RequestParser::default(),
            ahead: 0,
            out: Output::default(),
            db: 0,
            name: Vec::new(),
            lib_name: Vec::new(),
            lib_ver: Vec::new(),
            resp: 2,
            user: crate::acl::DEFAULT_USER.to_vec(),
            multi: MultiState::default(),
            subscriptions: None,
            tracking: None,
            block: None,
            resume: None,
            created_ms: now_ms,
            last_interaction_ms: now_ms,
            last_command: None,
            soft_limit_since_ms: None,
            reply_peak: 0,
            reply_peak_at_ms: now_ms,
            write_offset: 0,
            argv_bytes: 0,
            taken_query: (0, 0),
            query_peak: 0,
            blocked_call: None,
            mem_counted: Default::default(),
        }
    }

    pub fn is(&self, flag: ClientFlags) -> bool {
        self.flags.has(flag)
    }

    /// A request has run or was refused, and what lasts for one request ends: `row` is what it called, `None` if that is no
    /// command. In a transaction the exceptions of ASKING and CLIENT CACHING hold up to EXEC. A client that is blocked is
    /// still in the middle of its request.
    pub fn end_request(&mut self, row: Option<&Command>) {
        if self.is(ClientFlags::BLOCKED) {
            return;
        }
        if !self.is(ClientFlags::MULTI) {
            let name = row.map_or("", |row| row.name);
            if name != "asking" {
                self.flags.remove(ClientFlags::ASKING);
            }
            if let Some(tracking) = self.tracking.as_mut().filter(|_| !name.starts_with("client|")) {
                tracking.caching = false;
            }
        }
        let skips = self.is(ClientFlags::REPLY_SKIP_NEXT);
        self.flags.remove(ClientFlags::REPLY_SKIP_NEXT);
        self.flags.set(ClientFlags::REPLY_SKIP, skips);
    }

    /// No more commands are taken from it.
    pub fn is_closing(&self) -> bool {
        self.is(ClientFlags::CLOSE_ASAP.union(ClientFlags::CLOSE_AFTER_REPLY))
    }

    /// `ip:port`, or `path:0` of a unix socket.
    pub fn addr(&self) -> String {
        shown_addr(self.peer, self.path.as_deref())
    }

    pub fn laddr(&self) -> String {
        shown_addr(self.local, self.path.as_deref())
    }

    /// Appends what `addr` gives.
    pub fn write_addr(&self, out: &mut Vec<u8>) {
        write_addr(self.peer, self.path.as_deref(), out);
    }

    /// Appends what `laddr` gives.
    pub fn write_laddr(&self, out: &mut Vec<u8>) {
        write_addr(self.local, self.path.as_deref(), out);
    }

    /// Length and capacity of the query buffer, wherever it is.
    pub fn query_room(&self) -> (usize, usize) {
        if self.taken_query.1 > 0 { self.taken_query } else { (self.query.len(), self.query.capacity()) }
    }

    /// The same as CLIENT LIST shows it, and bytes of arguments: what stands before a large argument that is still coming
    /// in belongs to the arguments.
    pub fn shown_query(&self) -> (usize, usize, usize) {
        let (len, capacity) = self.query_room();
        let before = match self.parser.big_arg_start() {
            Some(start) if self.taken_query.1 == 0 => (self.query_pos + start).min(len),
            _ => 0,
        };
        let args = if before > 0 { self.parser.spans().iter().map(|s| s.len).sum() } else { self.argv_bytes };
        (len - before, capacity - before, args)
    }

    /// Memory the client costs, in bytes.
    pub fn mem_bytes(&self) -> usize {
        size_of::<Client>()
            + self.query_room().1
            + self.argv_bytes
            + self.out.mem_bytes()
            + self.name.capacity()
            + self.multi.mem_bytes()
            + self.subscriptions.as_ref().map_or(0, |s| s.mem_bytes())
            + self.tracking.as_ref().map_or(0, |t| t.mem_bytes())
            + self.resume.as_ref().map_or(0, |(_, args)| args.mem_bytes())
    }
}

/// An address as clients are shown it: `ip:port`, or `path:0` of a unix socket.
pub fn shown_addr(addr: Option<SocketAddr>, path: Option<&str>) -> String {
    let mut text = Vec::new();
    write_addr(addr, path, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

fn write_addr(addr: Option<SocketAddr>, path: Option<&str>, out: &mut Vec<u8>) {
    match (addr, path) {
        (Some(SocketAddr::V4(a)), _) => {
            let mut number = itoa::Buffer::new();
            for (i, octet) in a.ip().octets().into_iter().enumerate() {
                out.extend_from_slice(if i > 0 { b"." } else { b"" });
                out.extend_from_slice(number.format(octet).as_bytes());
            }
            out.push(b':');
            out.extend_from_slice(number.format(a.port()).as_bytes());
        }
        (Some(SocketAddr::V6(a)), _) => out.extend_from_slice(format!("[{}]:{}", a.ip(), a.port()).as_bytes()),
        (None, path) => {
            out.extend_from_slice(path.unwrap_or("?").as_bytes());
            out.extend_from_slice(b":0");
        }
    }
}
