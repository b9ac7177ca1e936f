//! Whether a user may run a command with these arguments.

use super::user::{Selector, User};
use super::{Acl, DEFAULT_USER};
use crate::catalog::CmdError;
use crate::catalog::row::{Group, KeyPos, key};
use crate::catalog::table::{CmdRef, CommandTable};
use crate::net::{Client, ClientFlags, ClientId};
use crate::pubsub::Kind;
use crate::resp::Args;
use crate::server::Server;
use crate::structs::glob;

/// What a user was refused. When every selector refuses, the one that came farthest says what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denied {
    Command,
    Key(Vec<u8>),
    Channel(Vec<u8>),
}

impl Denied {
    /// The reason ACL LOG shows.
    pub fn reason(&self) -> &'static str {
        match self {
            Denied::Command => "command",
            Denied::Key(_) => "key",
            Denied::Channel(_) => "channel",
        }
    }

    /// The text of the error; `verbose` names the key or channel.
    pub fn text(&self, user: &[u8], command: &str, verbose: bool) -> String {
        let user = String::from_utf8_lossy(user);
        match self {
            Denied::Command => format!("User {user} has no permissions to run the '{command}' command"),
            Denied::Key(k) if verbose => {
                format!("User {user} has no permissions to access the '{}' key", String::from_utf8_lossy(k))
            }
            Denied::Channel(c) if verbose => {
                format!("User {user} has no permissions to access the '{}' channel", String::from_utf8_lossy(c))
            }
            Denied::Key(_) => "No permissions to access a key".into(),
            Denied::Channel(_) => "No permissions to access a channel".into(),
        }
    }
}

impl User {
    pub fn check(&self, commands: &CommandTable, cmd: CmdRef, args: Args<'_>) -> Result<(), Denied> {
        let mut worst = None;
        for selector in &self.selectors {
            match selector.check(commands, cmd, args) {
                Ok(()) => return Ok(()),
                Err(denied) => worst = worst.max(Some(denied)),
            }
        }
        Err(worst.unwrap_or(Denied::Command))
    }
}

impl User {
    /// Whether the user may run this with every key there is to read.
    fn reads_all_keys(&self, commands: &CommandTable, cmd: CmdRef, args: Args<'_>) -> bool {
        let all = |s: &Selector| s.all_keys || s.keys.iter().any(|k| k.read && k.pattern == b"*");
        self.selectors.iter().any(|s| all(s) && s.check(commands, cmd, args).is_ok())
    }
}

impl Selector {
    fn check(&self, commands: &CommandTable, cmd: CmdRef, args: Args<'_>) -> Result<(), Denied> {
        let row = commands.get(cmd).row;
        if !self.allows(cmd) && row.name != "auth" && row.name != "hello" {
            let first = args.get(1).unwrap_or_default();
            let let_in = self.first_args.get(&cmd).is_some_and(|a| a.iter().any(|a| a.eq_ignore_ascii_case(first)));
            if !let_in {
                return Err(Denied::Command);
            }
        }
        if !self.all_keys {
            let mut refused = None;
            row.each_key(args, |k: KeyPos| {
                if refused.is_none() && k.flags & key::NOT_KEY == 0 && !self.allows_key(&args[k.index], k.flags) {
                    refused = Some(args[k.index].to_vec());
                }
            });
            if let Some(key) = refused {
                return Err(Denied::Key(key));
            }
        }
        if !self.all_channels && row.group == Group::Pubsub {
            let (names, is_pattern) = match row.name {
                "publish" | "spublish" => (1..2, false),
                "subscribe" | "ssubscribe" => (1..args.len(), false),
                "psubscribe" => (1..args.len(), true),
                _ => (0..0, false),
            };
            for name in names.filter_map(|i| args.get(i)) {
                if !self.allows_channel(name, is_pattern) {
                    return Err(Denied::Channel(name.to_vec()));
                }
            }
        }
        Ok(())
    }

    fn allows_key(&self, name: &[u8], flags: u16) -> bool {
        let reads = flags & key::ACCESS != 0;
        let writes = flags & (key::INSERT | key::DELETE | key::UPDATE) != 0;
        self.keys.iter().any(|k| (!reads || k.read) && (!writes || k.write) && glob::matches(&k.pattern, name))
    }

    /// A pattern to subscribe to must be one of the patterns, to the letter.
    pub fn allows_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        self.all_channels || self.channels.iter().any(|p| if is_pattern { p == name } else { glob::matches(p, name) })
    }
}

impl Acl {
    /// A user of this name may do everything: nothing needs to be checked.
    pub fn is_free(&self, user: &[u8]) -> bool {
        self.default_is_free && user == DEFAULT_USER
    }

    /// Whether a user of this name may run this. A user that is gone may nothing.
    pub fn check(&self, user: &[u8], commands: &CommandTable, cmd: CmdRef, args: Args<'_>) -> Result<(), Denied> {
        if self.default_is_free && user == DEFAULT_USER {
            return Ok(());
        }
        self.user(user).map_or(Err(Denied::Command), |u| u.check(commands, cmd, args))
    }
}

impl Acl {
    /// Whether a client may read every key with the command that these arguments call.
    pub fn reads_all_keys(&self, commands: &CommandTable, c: &Client, args: Args<'_>) -> bool {
        if c.is(ClientFlags::MASTER.union(ClientFlags::AOF)) || (self.default_is_free && c.user == DEFAULT_USER) {
            return true;
        }
        let Some(cmd) = commands.find(&args[0]) else { return false };
        self.user(&c.user).is_some_and(|u| u.reads_all_keys(commands, cmd, args))
    }
}

impl Server {
    /// Refuses what the client's user may not do, and logs it.
    pub fn check_acl(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Result<(), CmdError> {
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
    pub fn recheck_queued(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Option<CmdError> {
        let obeyed = self.clients.get(id).is_none_or(|c| c.is(ClientFlags::MASTER.union(ClientFlags::AOF)));
        if obeyed {
            return None;
        }
        self.check_acl_in(id, cmd, args, "multi").err()
    }

    pub fn log_acl(&mut self, id: ClientId, reason: &'static str, context: &str, object: Vec<u8>, user: &[u8]) {
        match reason {
            "auth" => self.stats.acl_denied_auth += 1,
            "command" => self.stats.acl_denied_cmd += 1,
            "key" => self.stats.acl_denied_key += 1,
            _ => self.stats.acl_denied_channel += 1,
        }
        let client_info = self.clients.get(id).map(|c| self.client_line(c)).unwrap_or_default();
        let now_ms = self.clock.ms();
        self.acl.log.add(reason, context, object, user, client_info, now_ms, self.cfg.acllog_max_len);
    }

    /// Closes the clients of users that are gone, and subscribers of channels that their users may not hear any more.
    pub fn close_forbidden_clients(&mut self) {
        let mut closing = Vec::new();
        for c in self.clients.iter().filter(|c| c.conn.is_some() && !c.is(ClientFlags::MASTER)) {
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
    pub fn close_clients_of_users(&mut self) {
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
    pub fn acl_changed(&mut self) {
        self.auth_required = !self.acl.admits_anyone();
    }
}
