//! Whether a user may run a command with these arguments.

use super::user::{Selector, User};
use super::{Acl, DEFAULT_USER};
use crate::catalog::row::{Group, KeyPos, key};
use crate::catalog::table::{CmdRef, CommandTable};
use crate::resp::Args;
use crate::structs::glob;

/// What a user was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    Command,
    Key(Vec<u8>),
    Channel(Vec<u8>),
}

/// What a selector refuses; keys and channels by the positions of their arguments. When every selector refuses, the one
/// that got farthest is reported: the greatest in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Refusal {
    Command,
    Key(usize),
    Channel(usize),
}

impl Refusal {
    fn of(self, args: Args<'_>) -> Denied {
        match self {
            Refusal::Command => Denied::Command,
            Refusal::Key(at) => Denied::Key(args[at].to_vec()),
            Refusal::Channel(at) => Denied::Channel(args[at].to_vec()),
        }
    }
}

impl Denied {
    /// The reason ACL LOG shows.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Denied::Command => "command",
            Denied::Key(_) => "key",
            Denied::Channel(_) => "channel",
        }
    }

    /// The text of the error; `verbose` names the key or channel.
    pub(crate) fn text(&self, user: &[u8], command: &str, verbose: bool) -> String {
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
    pub(crate) fn check(&self, commands: &CommandTable, cmd: CmdRef, args: Args<'_>) -> Result<(), Denied> {
        let mut worst = Refusal::Command;
        for selector in &self.selectors {
            match selector.check(commands, cmd, args) {
                Ok(()) => return Ok(()),
                Err(refusal) => worst = worst.max(refusal),
            }
        }
        Err(worst.of(args))
    }
}

impl User {
    /// Whether the user may run this command and read every key.
    fn reads_all_keys(&self, commands: &CommandTable, cmd: CmdRef, args: Args<'_>) -> bool {
        let all = |s: &Selector| s.all_keys || s.keys.iter().any(|k| k.read && k.pattern == b"*");
        self.selectors.iter().any(|s| all(s) && s.check(commands, cmd, args).is_ok())
    }
}

impl Selector {
    fn check(&self, commands: &CommandTable, cmd: CmdRef, args: Args<'_>) -> Result<(), Refusal> {
        let row = commands.get(cmd).row;
        if !self.allows(cmd) && row.name != "auth" && row.name != "hello" {
            let first = args.get(1).unwrap_or_default();
            let let_in = self.first_args.get(&cmd).is_some_and(|a| a.iter().any(|a| a.eq_ignore_ascii_case(first)));
            if !let_in {
                return Err(Refusal::Command);
            }
        }
        if !self.all_keys {
            let mut refused = None;
            row.each_key(args, |k: KeyPos| {
                if refused.is_none() && k.flags & key::NOT_KEY == 0 && !self.allows_key(&args[k.index], k.flags) {
                    refused = Some(k.index);
                }
            });
            if let Some(at) = refused {
                return Err(Refusal::Key(at));
            }
        }
        if !self.all_channels && row.group == Group::Pubsub {
            let (names, is_pattern) = match row.name {
                "publish" | "spublish" => (1..2, false),
                "subscribe" | "ssubscribe" => (1..args.len(), false),
                "psubscribe" => (1..args.len(), true),
                _ => (0..0, false),
            };
            let refused =
                names.into_iter().find(|at| args.get(*at).is_some_and(|n| !self.allows_channel(n, is_pattern)));
            if let Some(at) = refused {
                return Err(Refusal::Channel(at));
            }
        }
        Ok(())
    }

    fn allows_key(&self, name: &[u8], flags: u16) -> bool {
        let reads = flags & key::ACCESS != 0;
        let writes = flags & (key::INSERT | key::DELETE | key::UPDATE) != 0;
        self.keys.iter().any(|k| (!reads || k.read) && (!writes || k.write) && glob::matches(&k.pattern, name))
    }

    /// A pattern to subscribe to must equal one of the user's patterns.
    pub(crate) fn allows_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        self.all_channels || self.channels.iter().any(|p| if is_pattern { p == name } else { glob::matches(p, name) })
    }
}

impl Acl {
    /// True if a user of this name may do everything: nothing needs to be checked.
    pub(crate) fn is_free(&self, user: &[u8]) -> bool {
        self.default_is_free && user == DEFAULT_USER
    }

    /// Whether a user of this name may run this. A user that is gone may run nothing.
    pub(crate) fn check(
        &self,
        user: &[u8],
        commands: &CommandTable,
        cmd: CmdRef,
        args: Args<'_>,
    ) -> Result<(), Denied> {
        if self.is_free(user) {
            return Ok(());
        }
        self.user(user).map_or(Err(Denied::Command), |u| u.check(commands, cmd, args))
    }

    /// Whether a user of this name may read every key with the command that these arguments call.
    pub(crate) fn reads_all_keys(&self, user: &[u8], commands: &CommandTable, args: Args<'_>) -> bool {
        if self.is_free(user) {
            return true;
        }
        let Some(cmd) = commands.find(&args[0]) else { return false };
        self.user(user).is_some_and(|u| u.reads_all_keys(commands, cmd, args))
    }
}

#[cfg(test)]
mod tests {
    use super::super::user::Rules;
    use super::*;
    use crate::resp::OwnedArgs;

    #[test]
    fn of_several_refusals_the_one_that_came_farthest_is_told() {
        let commands = crate::server::commands::table().0;
        let rules = Rules { commands: &commands, channels_open: false };
        let refused = |rights: &[&str], words: &[&str]| {
            let mut user = User::new(b"u", rules);
            rights.iter().for_each(|right| user.apply(right.as_bytes(), rules).unwrap());
            let args = OwnedArgs::from_iter(words.iter().map(|word| word.as_bytes()));
            user.check(&commands, commands.find(words[0].as_bytes()).unwrap(), args.as_args()).err()
        };
        let key = |name: &str| Some(Denied::Key(name.into()));
        assert_eq!(refused(&["+mget", "~k*"], &["mget", "k1", "k2"]), None);
        assert_eq!(refused(&["+get", "~k*"], &["mget", "k1"]), Some(Denied::Command));
        assert_eq!(refused(&["+get", "~k*", "(+mget ~a*)"], &["mget", "k1"]), key("k1"));
        assert_eq!(refused(&["+mget", "~a*", "(+mget ~k*)"], &["mget", "k1", "a1"]), key("a1"));
        assert_eq!(refused(&["+mget", "~k*", "(+mget ~a*)"], &["mget", "k1", "a1"]), key("a1"));
        let channel = Some(Denied::Channel(b"d".to_vec()));
        assert_eq!(refused(&["+subscribe", "&c", "(+subscribe &x)"], &["subscribe", "c", "d"]), channel);
    }
}
