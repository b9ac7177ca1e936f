//! Admission: everything that can keep a command from running, in the order Redis checks it.

use super::pause::PauseKind;
use crate::catalog::error::{self, CmdError};
use crate::catalog::row::{Command, flag};
use crate::catalog::table::CmdRef;
use crate::config::ProtectedAction;
use crate::net::ClientId;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};

/// What becomes of a command.
#[derive(Debug)]
pub(crate) enum Admission {
    Run,
    /// Added to the client's transaction.
    Queue,
    /// Held back by a pause.
    Postpone,
    Reject(CmdError),
}

/// Commands that a transaction runs rather than queues.
const IN_MULTI: &[&str] = &["exec", "discard", "multi", "watch", "quit", "reset"];

impl Server {
    pub(crate) fn admit(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Admission {
        match self.check(id, cmd, args) {
            Ok(admission) => admission,
            Err(error) => Admission::Reject(error),
        }
    }

    fn check(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Result<Admission, CmdError> {
        let row = self.commands.get(cmd).row;
        let Some(c) = self.clients.get(id) else { return Ok(Admission::Run) };
        if !row.accepts_arity(args.len()) || (row.run.is_none() && args.len() < 2) {
            return Err(CmdError::wrong_arity(row.name));
        }
        self.check_protected(c, row)?;
        let in_multi = c.is(ClientFlags::MULTI);
        let obeyed = c.is(ClientFlags::MASTER.union(ClientFlags::AOF));

        // A queued transaction counts as what its commands do.
        let own_flags = self.flags_of_call(row, args);
        let flags = if row.name == "exec" { row.flags | c.multi.flags } else { own_flags };
        let is_write = flags & flag::WRITE != 0;
        let may_replicate = flags & (flag::WRITE | flag::MAY_REPLICATE) != 0;
        let denies_oom = flags & flag::DENYOOM != 0;
        let lacking = !own_flags | if row.name == "exec" { c.multi.lacking } else { 0 };
        let denies_stale = lacking & flag::STALE != 0;
        let denies_loading = lacking & flag::LOADING != 0;

        if self.must_authenticate(c) && !row.has(flag::NO_AUTH) {
            return Err(error::NO_AUTH);
        }
        if in_multi && row.has(flag::NO_MULTI) {
            return Err(CmdError::of("ERR Command not allowed inside a transaction"));
        }
        if !obeyed {
            self.check_acl(id, cmd, args)?;
            self.check_slot(id, cmd, args)?;
        }
        self.evict_clients();
        if self.clients.get(id).is_none_or(|c| c.is(ClientFlags::CLOSE_ASAP)) {
            return Err(CmdError::of("ERR the client was evicted"));
        }
        let memory = self.check_memory(id, row, denies_oom, in_multi);
        self.limit_tracking_table();
        memory?;
        if !obeyed {
            self.check_disk(row, is_write)?;
            self.check_good_replicas(is_write)?;
        } else if is_write {
            self.obey_despite_disk();
        }
        let c = self.clients.get(id).expect("checked above");
        if is_write && !obeyed && self.is_read_only_replica() {
            return Err(error::READONLY);
        }
        if c.is(ClientFlags::PUBSUB) && c.resp == 2 && !allowed_while_subscribed(row) {
            return Err(CmdError::text(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                row.name
            )));
        }
        if denies_stale && self.serves_nothing_stale() {
            return Err(error::MASTER_DOWN);
        }
        if denies_loading && self.is_loading() && !c.is(ClientFlags::AOF) && !self.loading_allows(row) {
            return Err(error::LOADING);
        }
        if !row.has(flag::ALLOW_BUSY)
            && let Some(error) = self.script_busy_error()
        {
            return Err(error);
        }
        if c.is(ClientFlags::REPLICA) && flags & (flag::WRITE | flag::READONLY) != 0 {
            return Err(CmdError::of("ERR Replica can't interact with the keyspace"));
        }
        if let Some(kind) = self.pauses.kind()
            && !c.is(ClientFlags::REPLICA)
            && (kind == PauseKind::All || may_replicate)
            && c.conn.is_some()
        {
            return Ok(Admission::Postpone);
        }
        if in_multi && !IN_MULTI.contains(&row.name) {
            return Ok(Admission::Queue);
        }
        Ok(Admission::Run)
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

/// The client connects from this machine.
pub(crate) fn is_local(c: &Client) -> bool {
    c.is(ClientFlags::UNIX_SOCKET) || c.peer.is_some_and(|a| a.ip().is_loopback())
}

fn allowed_while_subscribed(row: &Command) -> bool {
    matches!(
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
    )
}
