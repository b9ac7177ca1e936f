//! A client: the session above a link, who it is and what it is in the middle of. It is its link, too, with something above.

use crate::catalog::row::Command;
use crate::catalog::table::CmdRef;
use crate::net::{ClientId, Link};
use crate::pubsub::Subscriptions;
use crate::resp::OwnedArgs;
use crate::server::dispatch::blocked::BlockState;
use crate::server::dispatch::multi::MultiState;
use crate::tracking::ClientTracking;
use std::ops::{Deref, DerefMut};

/// A set of client flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientFlags(u64);

macro_rules! client_flags {
    ($($(#[$doc:meta])* $name:ident = $bit:expr;)*) => {
        impl ClientFlags {
            $($(#[$doc])* pub(crate) const $name: ClientFlags = ClientFlags(1 << $bit);)*
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
    /// What it is told does not wait until replicas have it.
    NOT_DURABLE = 26;
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
    /// Runs a command put off by CLIENT PAUSE.
    REPROCESSING = 27;
    /// Blocked clients are not released in the middle of it (EXEC, scripts).
    DENY_BLOCKING = 28;
    /// The source of slots that move here.
    IMPORT = 29;
    /// The target of slots that move away.
    EXPORT = 30;
    /// `CLIENT KILL` and the like: close even though it is the one running.
    KILLED = 31;
    /// Tracks keys or did so once.
    HAS_TRACKED = 32;
    /// Another node of the cluster: it needs no permissions for the dialogue of slots that move, and may do nothing else.
    INTERNAL = 35;
    /// Its EVAL scripts are debugged (`SCRIPT DEBUG`), ...
    SCRIPT_DEBUG = 33;
    /// ... in this process.
    SCRIPT_DEBUG_SYNC = 34;
}

impl ClientFlags {
    pub(crate) fn has(self, other: ClientFlags) -> bool {
        self.0 & other.0 != 0
    }
    pub(crate) fn add(&mut self, other: ClientFlags) {
        self.0 |= other.0;
    }
    pub(crate) fn remove(&mut self, other: ClientFlags) {
        self.0 &= !other.0;
    }
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }
    pub(crate) const fn union(self, other: ClientFlags) -> ClientFlags {
        ClientFlags(self.0 | other.0)
    }
    pub(crate) fn set(&mut self, other: ClientFlags, on: bool) {
        if on { self.add(other) } else { self.remove(other) }
    }
}

/// Laid out as it is declared: what those who look at all clients ask for stands in its first cache lines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Client {
    pub(crate) id: ClientId,
    /// The id that clients see, counted from 1 and never reused.
    pub(crate) number: u64,
    pub(crate) flags: ClientFlags,
    pub(crate) link: Link,
    /// The look-ahead that holds requests of this client; 0: none does.
    pub(crate) ahead: u64,
    pub(crate) db: usize,
    pub(crate) name: Vec<u8>,
    pub(crate) lib_name: Vec<u8>,
    pub(crate) lib_ver: Vec<u8>,
    /// 2 or 3.
    pub(crate) resp: u8,
    pub(crate) user: Vec<u8>,
    pub(crate) multi: MultiState,
    pub(crate) subscriptions: Option<Box<Subscriptions>>,
    /// How its keys are tracked; there exactly with the flag `TRACKING`.
    pub(crate) tracking: Option<Box<ClientTracking>>,
    pub(crate) block: Option<Box<BlockState>>,
    /// A command to run before the input is gone on with: one that was held back.
    pub(crate) resume: Option<(CmdRef, OwnedArgs)>,
    pub(crate) created_ms: i64,
    /// Wall clock of the last request, for `timeout` and `idle`.
    pub(crate) last_interaction_ms: i64,
    pub(crate) last_command: Option<&'static Command>,
    /// When the output passed the soft limit, monotonic ms.
    pub(crate) soft_limit_since_ms: Option<i64>,
    /// Largest reply buffer fill of late, and when it was noted (CLIENT LIST's `rbp`).
    pub(crate) reply_peak: usize,
    pub(crate) reply_peak_at_ms: i64,
    /// Replication offset of the last write this client made, for WAIT and WAITAOF.
    pub(crate) write_offset: i64,
    /// The command that blocks the client, for its statistics.
    pub(crate) blocked_call: Option<Box<crate::server::admin::after_call::BlockedCall>>,
    /// What the client counts for in the sums over all clients.
    pub(crate) mem_counted: crate::server::admin::client_memory::Counted,
}

impl Deref for Client {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

impl DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Link {
        &mut self.link
    }
}

impl Client {
    pub(crate) fn new(id: ClientId, number: u64, link: Link, now_ms: i64) -> Client {
        let mut flags = ClientFlags::default();
        flags.set(ClientFlags::UNIX_SOCKET, link.is_unix());
        Client {
            id,
            number,
            link,
            flags,
            ahead: 0,
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
            blocked_call: None,
            mem_counted: Default::default(),
        }
    }

    pub(crate) fn is(&self, flag: ClientFlags) -> bool {
        self.flags.has(flag)
    }

    /// A request has run or was refused, and what lasts for one request ends: `row` is what it called, `None` if that is no
    /// command. In a transaction the exceptions of ASKING and CLIENT CACHING hold up to EXEC. A client that is blocked is
    /// still in the middle of its request.
    pub(crate) fn end_request(&mut self, row: Option<&Command>) {
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
    pub(crate) fn is_closing(&self) -> bool {
        self.is(ClientFlags::CLOSE_ASAP.union(ClientFlags::CLOSE_AFTER_REPLY))
    }

    /// Memory the client costs, in bytes.
    pub(crate) fn mem_bytes(&self) -> usize {
        size_of::<Client>()
            + self.link.mem_bytes()
            + self.name.capacity()
            + self.multi.mem_bytes()
            + self.subscriptions.as_ref().map_or(0, |s| s.mem_bytes())
            + self.tracking.as_ref().map_or(0, |t| t.mem_bytes())
            + self.resume.as_ref().map_or(0, |(_, args)| args.mem_bytes())
    }
}
