//! Admission: what becomes of a command in view of everything that can keep it from running.

use super::call::must_obey;
use super::obstacle::{Obstacle, Obstacles};
use super::pause::PauseKind;
use crate::catalog::error::{self, CmdError};
use crate::catalog::row::{Command, Group, flag};
use crate::catalog::table::CmdRef;
use crate::config::ProtectedAction;
use crate::net::ClientId;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use crate::structs::slots::{Slot, SlotSet, key_slot};

/// What becomes of a command.
#[derive(Debug)]
pub(crate) enum Admission {
    Run,
    /// Added to the client's transaction.
    Queue,
    /// Held back by a pause.
    Postpone,
    /// Nobody is there any more who called it.
    Drop,
    Reject(CmdError),
}

/// Commands that a transaction runs rather than queues.
const IN_MULTI: &[&str] = &["exec", "discard", "multi", "watch", "quit", "reset"];

/// A command that a client calls, and what it counts as.
pub(super) struct Call<'a> {
    cmd: CmdRef,
    row: &'static Command,
    args: Args<'a>,
    /// A queued transaction counts as what its commands do: flags that some of them has, and that some of them lacks.
    flags: u32,
    lacking: u32,
    in_multi: bool,
    /// It comes from our master or from the log.
    obeyed: bool,
}

impl Call<'_> {
    fn is_write(&self) -> bool {
        self.flags & flag::WRITE != 0
    }

    fn may_replicate(&self) -> bool {
        self.flags & (flag::WRITE | flag::MAY_REPLICATE) != 0
    }

    fn is_of_keys(&self) -> bool {
        self.may_replicate() || self.flags & flag::READONLY != 0
    }

    /// It makes no sense while the data is not there.
    fn needs_data(&self) -> bool {
        self.lacking & flag::LOADING != 0
    }

    fn wrong_arity(&self) -> Option<CmdError> {
        let (row, args) = (self.row, self.args);
        let is_wrong = !row.accepts_arity(args.len()) || (row.run.is_none() && args.len() < 2);
        is_wrong.then(|| CmdError::wrong_arity(row.name))
    }
}

impl Server {
    pub(crate) fn admit(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Admission {
        let Some(c) = self.clients.get(id) else { return Admission::Run };
        let obstacles = self.obstacles(c) | Obstacles::OF_CALL;
        let call = self.call_of(c, cmd, args);
        self.overcome(obstacles, id, &call)
    }

    pub(super) fn call_of<'a>(&self, c: &Client, cmd: CmdRef, args: Args<'a>) -> Call<'a> {
        let row = self.commands.get(cmd).row;
        let own_flags = self.flags_of_call(row, args);
        let is_exec = row.name == "exec";
        Call {
            cmd,
            row,
            args,
            flags: if is_exec { row.flags | c.multi.flags } else { own_flags },
            lacking: !own_flags | if is_exec { c.multi.lacking } else { 0 },
            in_multi: c.is(ClientFlags::MULTI),
            obeyed: must_obey(c),
        }
    }

    /// Meets the obstacles that may stand against a call, until one does.
    pub(super) fn overcome(&mut self, obstacles: Obstacles, id: ClientId, call: &Call<'_>) -> Admission {
        for obstacle in obstacles.iter() {
            match self.meet(obstacle, id, call) {
                Admission::Run => {}
                stopped => return stopped,
            }
        }
        Admission::Run
    }

    /// What becomes of a call in view of one obstacle that may stand against it.
    fn meet(&mut self, obstacle: Obstacle, id: ClientId, call: &Call<'_>) -> Admission {
        use Obstacle as O;
        let Call { cmd, row, args, .. } = *call;
        let Some(c) = self.clients.get(id) else { return Admission::Drop };
        let error = match obstacle {
            O::Blocked | O::BusyForMaster | O::Closing => return Admission::Drop,
            O::Arity => call.wrong_arity(),
            O::SlotLink => self.check_slot_link(id, row, args).err(),
            O::Protected => self.check_protected(c, row).err(),
            O::NoAuth => (!row.has(flag::NO_AUTH)).then_some(error::NO_AUTH),
            O::NoMulti => {
                row.has(flag::NO_MULTI).then_some(CmdError::of("ERR Command not allowed inside a transaction"))
            }
            O::Acl if c.is(ClientFlags::INTERNAL) => not_for_nodes(row),
            O::Acl => self.check_acl(id, cmd, args).err(),
            O::Slot => return self.meet_slot(id, c, call),
            O::ClientMemory => {
                self.evict_clients();
                match self.clients.get(id) {
                    Some(c) if !c.is(ClientFlags::CLOSE_ASAP) => None,
                    _ => return Admission::Drop,
                }
            }
            O::Memory => self.check_memory(id, row, call.flags & flag::DENYOOM != 0, call.in_multi).err(),
            O::TrackingTable => {
                self.limit_tracking_table();
                None
            }
            O::Disk => self.disk_refuses(call),
            O::GoodReplicas => self.check_good_replicas(call.is_write()).err(),
            O::ReadOnly => call.is_write().then_some(error::READONLY),
            O::Subscribed => (c.resp == 2).then(|| not_while_subscribed(row)).flatten(),
            O::Stale => (call.lacking & flag::STALE != 0).then_some(error::MASTER_DOWN),
            O::Loading => call.needs_data().then(|| self.loading_refuses(row)).flatten(),
            O::Busy if row.has(flag::ALLOW_BUSY) => None,
            O::Busy => self.script_busy_error(),
            O::ReplicaLink => call.is_of_keys().then_some(CmdError::of("ERR Replica can't interact with the keyspace")),
            O::Paused if self.is_put_off(c, call) => return Admission::Postpone,
            O::Paused => {
                if self.trims_as_replica() && call.may_replicate() {
                    self.trim_before_master_writes(id, || slots_of(row, args));
                }
                None
            }
            O::Multi if !IN_MULTI.contains(&row.name) => return Admission::Queue,
            O::Multi => None,
            // The whole call sees to these.
            O::Resumed
            | O::Unheard
            | O::Asking
            | O::Tracking
            | O::Monitored
            | O::Timed
            | O::Nested
            | O::Ending
            | O::Debugged => None,
        };
        error.map_or(Admission::Run, Admission::Reject)
    }

    fn meet_slot(&self, id: ClientId, c: &Client, call: &Call<'_>) -> Admission {
        match self.cluster_route(id, call.cmd, call.args) {
            Ok(slot) if self.waits_for_hand_over(c, slot, call) => Admission::Postpone,
            Ok(_) if call.row.name == "exec" && self.transaction_waits_for_trim(c) => Admission::Postpone,
            Ok(_) => Admission::Run,
            Err(refusal) => Admission::Reject(self.cluster_refusal(refusal)),
        }
    }

    /// What is to be obeyed cannot be refused.
    fn disk_refuses(&mut self, call: &Call<'_>) -> Option<CmdError> {
        if !call.obeyed {
            return self.check_disk(call.row, call.is_write()).err();
        }
        if call.is_write() {
            self.obey_despite_disk();
        }
        None
    }

    fn loading_refuses(&self, row: &Command) -> Option<CmdError> {
        (!self.loading_allows(row)).then_some(error::LOADING)
    }

    fn is_put_off(&self, c: &Client, call: &Call<'_>) -> bool {
        self.is_held_back_by_pause(c, call) || self.waits_for_key(c, call)
    }

    fn is_held_back_by_pause(&self, c: &Client, call: &Call<'_>) -> bool {
        let is_paused = match self.pauses.kind() {
            Some(PauseKind::All) => true,
            Some(PauseKind::Keys) => call.may_replicate() || call.is_of_keys(),
            Some(PauseKind::Write) => call.may_replicate(),
            None => false,
        };
        is_paused && !c.is(ClientFlags::REPLICA.union(ClientFlags::MONITOR)) && c.conn.is_some()
    }

    /// Whether a write has to wait until it is known which node it is for. One without keys may write anywhere, and so may a
    /// script, whatever keys it names.
    #[inline]
    fn waits_for_hand_over(&self, c: &Client, slot: Option<Slot>, call: &Call<'_>) -> bool {
        let Some(bus) = self.bus.as_ref().filter(|bus| bus.migrations.holds_any()) else { return false };
        call.may_replicate()
            && call.row.group != Group::Pubsub
            && (bus.migrations.holds(slot) || self.may_write_anywhere(c, call))
    }

    /// Whether a write has to wait until a key that it names is on its way to another node.
    fn waits_for_key(&self, c: &Client, call: &Call<'_>) -> bool {
        call.may_replicate() && !call.obeyed && c.conn.is_some() && self.names_held_key(c, call.cmd, call.args)
    }

    fn may_write_anywhere(&self, c: &Client, call: &Call<'_>) -> bool {
        let has_keys = |row: &Command, args: Args<'_>| row.keys_of(args).is_some_and(|keys| !keys.is_empty());
        let is_anywhere = |row: &Command, args: Args<'_>| {
            let may_write = self.flags_of_call(row, args) & (flag::WRITE | flag::MAY_REPLICATE) != 0;
            may_write && row.group != Group::Pubsub && (row.group == Group::Scripting || !has_keys(row, args))
        };
        if call.row.name != "exec" {
            return is_anywhere(call.row, call.args);
        }
        c.multi.queued.iter().any(|(cmd, args)| is_anywhere(self.commands.get(cmd).row, args))
    }

    /// Whether the client has yet to authenticate.
    pub(crate) fn must_authenticate(&self, c: &Client) -> bool {
        self.auth_required && !c.is(ClientFlags::AUTHENTICATED) && c.conn.is_some() && !c.is(ClientFlags::MASTER)
    }

    /// DEBUG and MODULE are for those whom the configuration trusts with them.
    fn check_protected(&self, c: &Client, row: &Command) -> Result<(), CmdError> {
        if !row.has(flag::PROTECTED) {
            return Ok(());
        }
        let (action, name, directive) = match row.name.split('|').next() {
            Some("debug") => (self.cfg.enable_debug_command, "DEBUG", "enable-debug-command"),
            Some("module") => (self.cfg.enable_module_command, "MODULE", "enable-module-command"),
            _ => return Ok(()),
        };
        let allowed = match action {
            ProtectedAction::Yes => true,
            ProtectedAction::No => false,
            ProtectedAction::Local => is_local(c),
        };
        if allowed || c.conn.is_none() {
            return Ok(());
        }
        Err(CmdError::text(format!(
            "ERR {name} command not allowed. If the {directive} option is set to \"local\", you can run it from a local \
             connection, otherwise you need to set this option in the configuration file, and then restart the server."
        )))
    }
}

/// The slots of the keys that a call names.
fn slots_of(row: &Command, args: Args<'_>) -> SlotSet {
    let mut slots = SlotSet::default();
    row.each_key(args, |key| {
        if key.index < args.len() {
            slots.insert(key_slot(args.at(key.index)));
        }
    });
    slots
}

/// The client connects from this machine.
pub(crate) fn is_local(c: &Client) -> bool {
    c.is(ClientFlags::UNIX_SOCKET) || c.peer.is_some_and(|a| a.ip().is_loopback())
}

/// Why another node of the cluster, which has not logged in as a user, may not call this.
fn not_for_nodes(row: &Command) -> Option<CmdError> {
    (row.name != "cluster|syncslots" && !row.has(flag::NO_AUTH)).then_some(error::NO_AUTH)
}

/// Why a subscriber that speaks RESP2 may not call this.
fn not_while_subscribed(row: &Command) -> Option<CmdError> {
    let is_allowed = matches!(
        row.name,
        "ping"
            | "subscribe"
            | "ssubscribe"
            | "unsubscribe"
            | "sunsubscribe"
            | "psubscribe"
            | "punsubscribe"
            | "quit"
            | "reset"
    );
    let text = || {
        CmdError::text(format!(
            "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
            row.name
        ))
    };
    (!is_allowed).then(text)
}
