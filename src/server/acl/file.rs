//! Where the users come from at start and at ACL LOAD, and where ACL SAVE puts them.

use crate::acl::Acl;
use crate::acl::file::{check_declaration, declared_user, parse_users, user_line};
use crate::acl::user::Rules;
use crate::config::{ConfigError, overwrite};
use crate::server::Server;
use crate::sys::os_error;
use std::path::Path;

impl Server {
    pub(crate) fn acl_rules(&self) -> Rules<'_> {
        let open = self.cfg.acl_pubsub_default == crate::config::AclPubsubDefault::Allchannels;
        Rules { commands: &self.commands, channels_open: open }
    }

    /// Looks at the `user` lines of the configuration: what is wrong with one of them is told as a mistake of that line.
    pub(crate) fn check_user_lines(&self) -> Result<(), ConfigError> {
        let lines = &self.cfg.user;
        (0..lines.len()).try_for_each(|i| check_declaration(&lines[i], &lines[..i], self.acl_rules()))
    }

    /// Makes the users that the configuration or `aclfile` names, at start. `requirepass` is the default user's password
    /// until one of the two says something else of that user; an `aclfile` always does. The error is the last line of the log.
    pub(crate) fn load_users(&mut self) -> Result<(), String> {
        let has_file = !self.cfg.aclfile.is_empty();
        if has_file && !self.cfg.user.is_empty() {
            return Err(
                "Configuring Redis with users defined in redis.conf and at the same setting an ACL file path is \
                        invalid. This setup is very likely to lead to configuration errors and security holes, please \
                        define either an ACL file or declare users directly in your redis.conf, but not both."
                    .into(),
            );
        }
        self.acl = Acl::default();
        self.acl.set_default_password(&self.cfg.requirepass);
        for i in 0..self.cfg.user.len() {
            let user = declared_user(&self.cfg.user[i], self.acl_rules()).map_err(|reason| {
                log::warn!("{reason}");
                "Critical error while loading ACLs. Exiting."
            })?;
            if !user.enabled {
                log::info!(
                    "The user '{}' is disabled (there is no 'on' modifier in the user description). Make sure this is not \
                     a configuration error.",
                    String::from_utf8_lossy(&user.name)
                );
            }
            self.acl.put(user);
        }
        if has_file {
            self.load_acl_file().map_err(|reason| format!("Aborting Redis startup because of ACL errors: {reason}"))?;
        }
        self.acl_changed();
        Ok(())
    }

    /// Reads `aclfile` and puts its users in place of all there are; whoever is one of them has to come back. On an error
    /// nothing changes.
    pub(crate) fn load_acl_file(&mut self) -> Result<(), String> {
        let path = self.cfg.aclfile.clone();
        let text =
            std::fs::read(&path).map_err(|e| format!("Error loading ACLs, opening file '{path}': {}", os_error(&e)))?;
        let users = parse_users(&text, &path, self.acl_rules())?;
        let mut acl = Acl { log: std::mem::take(&mut self.acl.log), ..Acl::default() };
        users.into_iter().for_each(|u| acl.put(u));
        self.acl = acl;
        self.acl_changed();
        self.close_clients_of_users();
        self.close_forbidden_clients(None);
        Ok(())
    }

    /// Writes all users to `aclfile`.
    pub(crate) fn save_acl_file(&self) -> std::io::Result<()> {
        let mut text = Vec::new();
        for user in self.acl.users.values() {
            text.extend_from_slice(b"user ");
            user.write_line(&mut text);
            text.push(b'\n');
        }
        overwrite(Path::new(&self.cfg.aclfile), &text)
    }

    /// Every user as a line: its name and the rules that make it.
    pub(crate) fn acl_lines(&self) -> Vec<Vec<u8>> {
        self.acl.users.values().map(user_line).collect()
    }
}
