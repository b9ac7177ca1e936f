//! Access control lists: the users, what each may run and touch, and the log of refusals.
//!
//! - `user`: a user, its passwords and selectors, and the rules they are written in
//! - `check`: whether a user may run a command
//! - `log`: refusals, for ACL LOG
//! - `file`: users in the configuration and in `aclfile`
//!
//! Invariant: the user `default` is always there. Rules as documented at
//! <https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>.

pub(crate) mod check;
pub(crate) mod file;
pub(crate) mod log;
pub(crate) mod user;

pub(crate) use user::User;

use std::collections::BTreeMap;

pub(crate) const DEFAULT_USER: &[u8] = b"default";

pub(crate) struct Acl {
    pub(crate) users: BTreeMap<Vec<u8>, User>,
    pub(crate) log: log::AclLog,
    /// The default user may do everything: the common case, which needs no look-up.
    pub(crate) default_is_free: bool,
}

impl Default for Acl {
    fn default() -> Acl {
        let mut acl = Acl { users: BTreeMap::new(), log: log::AclLog::default(), default_is_free: true };
        acl.put(User::free_default());
        acl
    }
}

impl Acl {
    pub(crate) fn user(&self, name: &[u8]) -> Option<&User> {
        self.users.get(name)
    }

    /// Adds a user, or replaces the one of the same name.
    pub(crate) fn put(&mut self, user: User) {
        if user.name == DEFAULT_USER {
            self.default_is_free = user.is_unrestricted();
        }
        self.users.insert(user.name.clone(), user);
    }

    /// Whether clients are logged in when they connect, without a password.
    pub(crate) fn admits_anyone(&self) -> bool {
        self.user(DEFAULT_USER).is_some_and(|u| u.nopass && u.enabled)
    }

    /// Gives the default user this password, or none when it is empty (`requirepass`).
    pub(crate) fn set_default_password(&mut self, password: &[u8]) {
        let Some(user) = self.users.get_mut(DEFAULT_USER) else { return };
        user.passwords.clear();
        user.nopass = password.is_empty();
        if !password.is_empty() {
            user.passwords.push(user::password_hash(password));
        }
    }
}
