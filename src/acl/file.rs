//! Users in the configuration file and in the file that `aclfile` names.

use super::Acl;
use super::user::{Rules, User, join_selectors};
use crate::config::{ConfigError, os_error, overwrite};
use crate::resp::split_args;
use crate::server::Server;
use std::path::Path;

/// Reads `user NAME RULE...` lines; all mistakes are told at once, a line each.
fn parse_users(text: &[u8], path: &str, rules: Rules<'_>) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let mut errors = String::new();
    for (i, line) in text.split(|b| *b == b'\n').enumerate() {
        let number = i + 1;
        let line = line.trim_ascii();
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        let Some(words) = split_args(line) else {
            errors += &format!("{path}:{number}: unbalanced quotes in acl line. ");
            continue;
        };
        let words: Vec<&[u8]> = words.as_args().iter().collect();
        if words.len() < 2 || !words[0].eq_ignore_ascii_case(b"user") {
            errors += &format!("{path}:{number} should start with user keyword followed by the username. ");
            continue;
        }
        if words[1].iter().any(|b| b.is_ascii_whitespace() || *b == 0) {
            errors += &format!(
                "'{path}:{number}: username '{}' contains invalid characters. ",
                String::from_utf8_lossy(words[1])
            );
            continue;
        }
        if users.iter().any(|u| u.name == words[1]) {
            errors +=
                &format!("WARNING: Duplicate user '{}' found on line {number}. ", String::from_utf8_lossy(words[1]));
            continue;
        }
        match build(words[1], &words[2..], rules) {
            Ok(user) => users.push(user),
            Err(reason) => errors += &format!("{path}:{number}: {reason}. "),
        }
    }
    if errors.is_empty() {
        return Ok(users);
    }
    Err(format!("{errors}WARNING: ACL errors detected, no change to the previously active ACL rules was performed"))
}

fn build(name: &[u8], words: &[&[u8]], rules: Rules<'_>) -> Result<User, String> {
    let words = join_selectors(words).map_err(|_| "Unmatched parenthesis in selector definition.".to_string())?;
    let mut user = User::new(name, rules);
    for word in &words {
        user.apply(word, rules).map_err(|e| e.text().to_string())?;
    }
    Ok(user)
}

impl Server {
    pub fn acl_rules(&self) -> Rules<'_> {
        let open = self.cfg.acl_pubsub_default == crate::config::AclPubsubDefault::Allchannels;
        Rules { commands: &self.commands, channels_open: open }
    }

    /// Reads the users that the configuration or `aclfile` names, at start.
    pub fn load_users(&mut self) -> Result<(), ConfigError> {
        let mut acl = Acl::default();
        for (i, line) in self.cfg.user.iter().enumerate() {
            if self.cfg.user[..i].iter().any(|other| other.words[0] == line.words[0]) {
                let name = String::from_utf8_lossy(&line.words[0]);
                let reason = format!(
                    "Error in user declaration '{name}': Duplicate user found. A user can only be defined once in config \
                     files"
                );
                return Err(ConfigError::at(line, reason));
            }
            let words: Vec<&[u8]> = line.words.iter().skip(1).map(Vec::as_slice).collect();
            let user = build(&line.words[0], &words, self.acl_rules())
                .map_err(|reason| ConfigError::at(line, format!("Error in user declaration: {reason}")))?;
            acl.put(user);
        }
        if !self.cfg.requirepass.is_empty() {
            acl.set_default_password(self.cfg.requirepass.as_ref());
        }
        self.acl = acl;
        if !self.cfg.aclfile.is_empty() {
            let reason = if self.cfg.user.is_empty() {
                self.load_acl_file().err()
            } else {
                Some(
                    "Configuring Redis with users defined in redis.conf and at the same setting an ACL file path is \
                     invalid. This setup is very likely to lead to configuration errors and security holes, please \
                     define either an ACL file or declare users directly in your redis.conf, but not both."
                        .to_string(),
                )
            };
            if let Some(reason) = reason {
                log::warn!("Aborting Redis startup because of ACL errors: {reason}");
                return Err(ConfigError::Whole { reason: "The users could not be loaded; see the log.".into() });
            }
        }
        self.acl_changed();
        Ok(())
    }

    /// Reads `aclfile` and puts its users in place of all there are; whoever is one of them has to come back. On an error
    /// nothing changes.
    pub fn load_acl_file(&mut self) -> Result<(), String> {
        let path = self.cfg.aclfile.clone();
        let text =
            std::fs::read(&path).map_err(|e| format!("Error loading ACLs, opening file '{path}': {}", os_error(&e)))?;
        let users = parse_users(&text, &path, self.acl_rules())?;
        let mut acl = Acl { log: std::mem::take(&mut self.acl.log), ..Acl::default() };
        users.into_iter().for_each(|u| acl.put(u));
        self.acl = acl;
        self.acl_changed();
        self.close_clients_of_users();
        self.close_forbidden_clients();
        Ok(())
    }

    /// Writes all users to `aclfile`.
    pub fn save_acl_file(&self) -> std::io::Result<()> {
        let mut text = Vec::new();
        for line in self.acl_lines() {
            text.extend_from_slice(b"user ");
            text.extend_from_slice(&line);
            text.push(b'\n');
        }
        overwrite(Path::new(&self.cfg.aclfile), &text)
    }

    /// Every user as a line: its name and the rules that make it.
    pub fn acl_lines(&self) -> Vec<Vec<u8>> {
        self.acl.users.values().map(|u| [u.name.as_slice(), b" ", &u.describe()].concat()).collect()
    }
}
