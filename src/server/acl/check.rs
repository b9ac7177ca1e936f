//! Refusing what a client's user may not do, the log of that, and what follows for clients when users change.

use crate::acl::DEFAULT_USER;
use crate::acl::check::Denied;
use crate::acl::user::User;
use crate::catalog::CmdError;
use crate::catalog::table::CmdRef;
use crate::net::ClientId;
use crate::pubsub::Kind;
use crate::resp::Args;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};

impl Server {
    /// Refuses what the client's user may not do, and logs it.
    pub(crate) fn check_acl(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Result<(), CmdError> {
        let in_multi = self.clients.get(id).is_some_and(|c| c.is(ClientFlags::MULTI));
        self.check_acl_in(id, cmd, args, if in_multi { "multi" } else { "toplevel" })
    }

    fn check_acl_in(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, context: &str) -> Result<(), CmdError> {
        let Some(c) = self.clients.get(id) else { return Ok(()) };
        let Err(denied) = self.acl.check(&c.user, &self.commands, cmd, args) else { return Ok(()) };
        let user = c.user.clone();
        let row = self.commands.get(cmd).row;
        let name = row.name;
        let in_exec = self.depth > 0;
        if let Some(c) = self.clients.get_mut(id).filter(|_| !in_exec) {
            // The log shows the client with the command it was refused.
            c.last_command = Some(row);
        }
        let object = match &denied {
            Denied::Command => name.as_bytes().to_vec(),
            Denied::Key(name) | Denied::Channel(name) => name.clone(),
        };
        self.log_acl(id, denied.reason(), context, object, &user);
        Err(CmdError::text(format!("NOPERM {}", denied.text(&user, name, false))))
    }

    /// A queued command is checked again when it runs: the user may have changed since.
    pub(crate) fn recheck_queued(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Option<CmdError> {
        let obeyed = self.clients.get(id).is_none_or(|c| c.is(ClientFlags::MASTER.union(ClientFlags::AOF)));
        if obeyed {
            return None;
        }
        self.check_acl_in(id, cmd, args, "multi").err()
    }

    pub(crate) fn log_acl(&mut self, id: ClientId, reason: &'static str, context: &str, object: Vec<u8>, user: &[u8]) {
        let client_info = self.clients.get(id).map(|c| self.client_line(c)).unwrap_or_default();
        self.log_refusal(reason, context, object, user, client_info);
    }

    /// Takes a refusal to the log, with what is known of who was refused.
    pub(crate) fn log_refusal(
        &mut self,
        reason: &'static str,
        context: &str,
        object: Vec<u8>,
        user: &[u8],
        client_info: String,
    ) {
        match reason {
            "auth" => self.stats.acl_denied_auth += 1,
            "command" => self.stats.acl_denied_cmd += 1,
            "key" => self.stats.acl_denied_key += 1,
            _ => self.stats.acl_denied_channel += 1,
        }
        let now_ms = self.clock.ms();
        self.acl.log.add(reason, context, object, user, client_info, now_ms, self.cfg.acllog_max_len);
    }

    /// Closes the clients of users that are gone, and subscribers of channels that their users may not hear any more.
    /// With a name, only that user's clients are looked at.
    pub(crate) fn close_forbidden_clients(&mut self, changed: Option<&[u8]>) {
        let mut closing = Vec::new();
        let is_looked_at =
            |c: &&Client| changed.is_none_or(|user| c.user == user) && c.conn.is_some() && !c.is(ClientFlags::MASTER);
        for c in self.clients.iter().filter(is_looked_at) {
            let hears_all = |u: &User| {
                let Some(mine) = &c.subscriptions else { return true };
                let allowed = |name: &[u8], pattern| u.selectors.iter().any(|s| s.allows_channel(name, pattern));
                [(Kind::Channel, false), (Kind::Shard, false), (Kind::Pattern, true)]
                    .into_iter()
                    .all(|(kind, pattern)| mine.names(kind).iter().all(|n| allowed(n, pattern)))
            };
            if !self.acl.user(&c.user).is_some_and(hears_all) {
                closing.push(c.id);
            }
        }
        self.close_authenticated(closing);
    }

    /// Closes the clients of all users but the default one: their users were made anew.
    pub(crate) fn close_clients_of_users(&mut self) {
        let named = self.clients.iter().filter(|c| c.conn.is_some() && !c.is(ClientFlags::MASTER));
        let closing = named.filter(|c| c.user != DEFAULT_USER).map(|c| c.id).collect();
        self.close_authenticated(closing);
    }

    fn close_authenticated(&mut self, closing: Vec<ClientId>) {
        for id in closing {
            if self.clients.current == Some(id) {
                // Its reply is still to go out.
                if let Some(c) = self.clients.get_mut(id) {
                    c.flags.add(ClientFlags::CLOSE_AFTER_REPLY);
                }
            } else {
                self.clients.close_later(id);
            }
        }
    }

    /// To be called after users or the default user's password changed.
    pub(crate) fn acl_changed(&mut self) {
        self.auth_required = !self.acl.admits_anyone();
    }
}
