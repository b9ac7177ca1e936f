//! A user and the rules it is written in.

use crate::catalog::row::cat;
use crate::catalog::table::{CmdRef, CommandTable};
use crate::resp::split_args;
use crate::structs::bytes::append;
use sha2::{Digest, Sha256};
use std::cell::OnceCell;
use std::collections::HashMap;

/// Most bytes that a rule has besides its pattern: the marks before it and a blank after it.
const LONGEST_MARKS: usize = 4;
/// From how many bytes on the rules of a selector are kept as they were shown: with thousands of patterns, to put them together
/// anew takes many times as long.
const KEPT_BYTES: usize = 4096;

#[derive(Clone, Debug)]
pub(crate) struct User {
    pub(crate) name: Vec<u8>,
    pub(crate) enabled: bool,
    /// Any password will do.
    pub(crate) nopass: bool,
    /// Payloads of RESTORE are always checked in depth.
    pub(crate) sanitize_payload: bool,
    /// SHA-256 sums in lower-case hexadecimal, in the order they were given.
    pub(crate) passwords: Vec<String>,
    /// The user's own permissions first, then its selectors: a command runs if one of them allows all of it.
    pub(crate) selectors: Vec<Selector>,
}

/// A set of commands with the keys and channels they may touch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    pub(crate) all_keys: bool,
    pub(crate) all_channels: bool,
    /// Commands not in `differing` are allowed.
    all_commands: bool,
    /// Commands whose permission is not that of `all_commands`.
    differing: CommandSet,
    /// First arguments with which a command is allowed that is otherwise not.
    pub(crate) first_args: HashMap<CmdRef, Vec<Vec<u8>>>,
    /// The command rules after `+@all` or `-@all`, as they are shown.
    rules: Vec<String>,
    pub(crate) keys: Vec<KeyPattern>,
    pub(crate) channels: Vec<Vec<u8>>,
    /// The rules as they were shown, if they are long, until one changes.
    shown: OnceCell<Vec<u8>>,
}

/// A set of commands, one bit for each number in the table.
#[derive(Clone, Debug, Default)]
struct CommandSet {
    words: Vec<u64>,
}

impl CommandSet {
    fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    fn clear(&mut self) {
        self.words.clear();
    }

    fn contains(&self, cmd: CmdRef) -> bool {
        self.words.get(usize::from(cmd.0 / 64)).is_some_and(|word| word >> (cmd.0 % 64) & 1 == 1)
    }

    /// Adds or removes all commands of a set given as such bits.
    fn set_all(&mut self, words: &[u64], is_in: bool) {
        if self.words.len() < words.len() {
            self.words.resize(words.len(), 0);
        }
        for (word, other) in self.words.iter_mut().zip(words) {
            *word = if is_in { *word | other } else { *word & !other };
        }
    }

    fn set(&mut self, cmd: CmdRef, is_in: bool) {
        let (at, bit) = (usize::from(cmd.0 / 64), 1 << (cmd.0 % 64));
        if self.words.len() <= at {
            self.words.resize(at + 1, 0);
        }
        if is_in {
            self.words[at] |= bit;
        } else {
            self.words[at] &= !bit;
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyPattern {
    pub(crate) pattern: Vec<u8>,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// Why a rule is refused, in Redis's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RuleError {
    UnknownCommand,
    Syntax,
    KeysAfterAll,
    ChannelsAfterAll,
    NoSuchPassword,
    BadHash,
    FirstArgOfSubcommand,
}

impl RuleError {
    pub(crate) fn text(self) -> &'static str {
        match self {
            RuleError::UnknownCommand => "Unknown command or category name in ACL",
            RuleError::Syntax => "Syntax error",
            RuleError::KeysAfterAll => {
                "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. \
                 Try 'resetkeys' to start with an empty list of patterns"
            }
            RuleError::ChannelsAfterAll => {
                "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any \
                 effect. Try 'resetchannels' to start with an empty list of channels"
            }
            RuleError::NoSuchPassword => "The password you are trying to remove from the user does not exist",
            RuleError::BadHash => {
                "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
            }
            RuleError::FirstArgOfSubcommand => "Allowing first-arg of a subcommand is not supported",
        }
    }
}

/// What rules are read with: the commands, and whether new selectors have all channels.
#[derive(Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) commands: &'a CommandTable,
    /// `acl-pubsub-default allchannels`
    pub(crate) channels_open: bool,
}

/// SHA-256 in lower-case hexadecimal.
pub(crate) fn password_hash(password: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value)]);
    Sha256::digest(password).iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

impl User {
    /// A user as ACL SETUSER creates it: off, without passwords and permissions.
    pub(crate) fn new(name: &[u8], rules: Rules<'_>) -> User {
        User {
            name: name.to_vec(),
            enabled: false,
            nopass: false,
            sanitize_payload: true,
            passwords: Vec::new(),
            selectors: vec![Selector { all_channels: rules.channels_open, ..Selector::default() }],
        }
    }

    /// The default user of a server without users in its configuration: everybody may do everything.
    pub(crate) fn free_default() -> User {
        let free = Selector { all_keys: true, all_channels: true, all_commands: true, ..Selector::default() };
        User {
            name: super::DEFAULT_USER.to_vec(),
            enabled: true,
            nopass: true,
            sanitize_payload: true,
            passwords: Vec::new(),
            selectors: vec![free],
        }
    }

    pub(crate) fn is_unrestricted(&self) -> bool {
        self.selectors.iter().any(Selector::is_unrestricted)
    }

    pub(crate) fn accepts_password(&self, password: &[u8]) -> bool {
        let hash = password_hash(password);
        // All are compared to the end, so that the time reveals nothing about a guess.
        let same = |p: &String| p.bytes().zip(hash.bytes()).fold(0, |d, (a, b)| d | (a ^ b)) == 0;
        self.nopass | self.passwords.iter().fold(false, |found, p| found | same(p))
    }

    /// Carries out one rule.
    pub(crate) fn apply(&mut self, rule: &[u8], rules: Rules<'_>) -> Result<(), RuleError> {
        let word = rule.to_ascii_lowercase();
        match word.as_slice() {
            b"" => {}
            b"on" => self.enabled = true,
            b"off" => self.enabled = false,
            b"nopass" => {
                self.nopass = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.nopass = false;
                self.passwords.clear();
            }
            b"skip-sanitize-payload" => self.sanitize_payload = false,
            b"sanitize-payload" => self.sanitize_payload = true,
            b"reset" => *self = User::new(&self.name.clone(), rules),
            b"clearselectors" => self.selectors.truncate(1),
            _ => match rule {
                [b'>', password @ ..] => self.add_password(password_hash(password)),
                [b'#', hash @ ..] => self.add_password(valid_hash(hash)?),
                [b'<', password @ ..] => self.remove_password(&password_hash(password))?,
                [b'!', hash @ ..] => self.remove_password(&valid_hash(hash)?)?,
                [b'(', inner @ .., b')'] => self.selectors.push(Selector::parse(inner, rules)?),
                [b'(', ..] => return Err(RuleError::Syntax),
                _ => self.selectors[0].apply(rule, rules)?,
            },
        }
        Ok(())
    }

    fn add_password(&mut self, hash: String) {
        self.nopass = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    fn remove_password(&mut self, hash: &str) -> Result<(), RuleError> {
        let at = self.passwords.iter().position(|p| p == hash).ok_or(RuleError::NoSuchPassword)?;
        self.passwords.remove(at);
        Ok(())
    }

    /// The flags ACL GETUSER lists.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.enabled { "on" } else { "off" }];
        if self.nopass {
            flags.push("nopass");
        }
        flags.push(if self.sanitize_payload { "sanitize-payload" } else { "skip-sanitize-payload" });
        flags
    }

    /// Appends the user as a line: its name and the rules that make it.
    pub(crate) fn write_line(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.name);
        out.push(b' ');
        self.write_rules(out);
    }

    /// Appends the rules that make this user, as ACL LIST shows them after its name.
    fn write_rules(&self, out: &mut Vec<u8>) {
        for (i, flag) in self.flags().into_iter().enumerate() {
            out.extend_from_slice(if i > 0 { b" " } else { b"" });
            out.extend_from_slice(flag.as_bytes());
        }
        for p in &self.passwords {
            out.extend_from_slice(b" #");
            out.extend_from_slice(p.as_bytes());
        }
        for (i, selector) in self.selectors.iter().enumerate() {
            out.extend_from_slice(if i > 0 { b" (" } else { b" " });
            selector.write_rules(out);
            out.extend_from_slice(if i > 0 { b")" } else { b"" });
        }
    }
}

/// Whether there is a byte that separates words, or a NUL: a name or pattern with one could not be read back from a
/// file.
pub(crate) fn has_blanks(text: &[u8]) -> bool {
    text.iter().any(|b| matches!(b, 0 | b' ' | b'\t'..=b'\r'))
}

fn valid_hash(hash: &[u8]) -> Result<String, RuleError> {
    let good = hash.len() == 64 && hash.iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if good { Ok(String::from_utf8_lossy(hash).into_owned()) } else { Err(RuleError::BadHash) }
}

/// Puts the words of selectors that were split at blanks together again. The error is the index of the word whose
/// parenthesis is not closed.
pub(crate) fn join_selectors(words: &[&[u8]]) -> Result<Vec<Vec<u8>>, usize> {
    let mut out: Vec<Vec<u8>> = Vec::new();
    let mut open: Option<(usize, Vec<u8>)> = None;
    for (at, word) in words.iter().enumerate() {
        match open.take() {
            None if word.first() == Some(&b'(') && word.last() != Some(&b')') => open = Some((at, word.to_vec())),
            None => out.push(word.to_vec()),
            Some((start, mut selector)) => {
                selector.push(b' ');
                selector.extend_from_slice(word);
                if word.last() == Some(&b')') {
                    out.push(selector);
                } else {
                    open = Some((start, selector));
                }
            }
        }
    }
    match open {
        Some((start, _)) => Err(start),
        None => Ok(out),
    }
}

impl Selector {
    fn parse(text: &[u8], rules: Rules<'_>) -> Result<Selector, RuleError> {
        let mut selector = Selector { all_channels: rules.channels_open, ..Selector::default() };
        let words = split_args(text).ok_or(RuleError::Syntax)?;
        for word in words.as_args().iter() {
            // Written to a file and read again word by word, such a word would end the selector or quote what follows.
            if word.ends_with(b")") || word.iter().any(|b| matches!(b, b'"' | b'\'')) {
                return Err(RuleError::Syntax);
            }
            selector.apply(word, rules)?;
        }
        Ok(selector)
    }

    pub(crate) fn is_unrestricted(&self) -> bool {
        self.all_keys && self.all_channels && self.all_commands && self.differing.is_empty()
    }

    pub(crate) fn allows(&self, cmd: CmdRef) -> bool {
        self.differing.contains(cmd) != self.all_commands
    }

    fn apply(&mut self, rule: &[u8], rules: Rules<'_>) -> Result<(), RuleError> {
        self.shown.take();
        match rule.to_ascii_lowercase().as_slice() {
            b"allkeys" | b"~*" => self.open_keys(),
            b"resetkeys" => {
                self.all_keys = false;
                self.keys.clear();
            }
            b"allchannels" | b"&*" => self.open_channels(),
            b"resetchannels" => {
                self.all_channels = false;
                self.channels.clear();
            }
            b"allcommands" | b"+@all" => self.all(true),
            b"nocommands" | b"-@all" => self.all(false),
            _ => match rule {
                [b'~', pattern @ ..] => self.add_keys(pattern, true, true)?,
                [b'%', rest @ ..] => self.add_typed_keys(rest)?,
                [b'&', pattern @ ..] => self.add_channels(pattern)?,
                [sign @ (b'+' | b'-'), b'@', category @ ..] => self.category(*sign == b'+', category, rules)?,
                [sign @ (b'+' | b'-'), name @ ..] => self.command(*sign == b'+', name, rules)?,
                _ => return Err(RuleError::Syntax),
            },
        }
        Ok(())
    }

    fn open_keys(&mut self) {
        self.all_keys = true;
        self.keys.clear();
    }

    fn open_channels(&mut self) {
        self.all_channels = true;
        self.channels.clear();
    }

    /// `%R~pattern`, `%W~pattern`, `%RW~pattern`
    fn add_typed_keys(&mut self, rest: &[u8]) -> Result<(), RuleError> {
        let tilde = memchr::memchr(b'~', rest).ok_or(RuleError::Syntax)?;
        let (mut read, mut write) = (false, false);
        for letter in &rest[..tilde] {
            match letter.to_ascii_uppercase() {
                b'R' if !read => read = true,
                b'W' if !write => write = true,
                _ => return Err(RuleError::Syntax),
            }
        }
        if !read && !write {
            return Err(RuleError::Syntax);
        }
        self.add_keys(&rest[tilde + 1..], read, write)
    }

    fn add_keys(&mut self, pattern: &[u8], read: bool, write: bool) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::KeysAfterAll);
        }
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        if pattern == b"*" && read && write {
            self.open_keys();
        } else if let Some(known) = self.keys.iter_mut().find(|k| k.pattern == pattern) {
            known.read |= read;
            known.write |= write;
        } else {
            self.keys.push(KeyPattern { pattern: pattern.to_vec(), read, write });
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::ChannelsAfterAll);
        }
        if has_blanks(pattern) {
            return Err(RuleError::Syntax);
        }
        if !self.channels.iter().any(|c| c == pattern) {
            self.channels.push(pattern.to_vec());
        }
        Ok(())
    }

    fn all(&mut self, allowed: bool) {
        self.all_commands = allowed;
        self.differing.clear();
        self.first_args.clear();
        self.rules.clear();
    }

    fn allow(&mut self, cmd: CmdRef, allowed: bool) {
        self.differing.set(cmd, allowed != self.all_commands);
        if !self.first_args.is_empty() {
            self.first_args.remove(&cmd);
        }
    }

    fn category(&mut self, allowed: bool, name: &[u8], rules: Rules<'_>) -> Result<(), RuleError> {
        let (bit, name) = cat::NAMES
            .iter()
            .find(|(_, n)| n.as_bytes().eq_ignore_ascii_case(name))
            .ok_or(RuleError::UnknownCommand)?;
        let commands = CommandSet { words: rules.commands.in_category(*bit).to_vec() };
        self.differing.set_all(&commands.words, allowed != self.all_commands);
        self.first_args.retain(|cmd, _| !commands.contains(*cmd));
        self.show(allowed, &format!("@{name}"));
        Ok(())
    }

    fn command(&mut self, allowed: bool, name: &[u8], rules: Rules<'_>) -> Result<(), RuleError> {
        let table = rules.commands;
        let shown = String::from_utf8_lossy(name).to_ascii_lowercase();
        let Some((container, rest)) = shown.split_once('|') else {
            let cmd = table.find_own(shown.as_bytes()).ok_or(RuleError::UnknownCommand)?;
            self.allow(cmd, allowed);
            let subs = table.get(cmd).subcommands.clone();
            subs.into_iter().for_each(|sub| self.allow(sub, allowed));
            self.show(allowed, &shown);
            return Ok(());
        };
        let parent = table.find_own(container.as_bytes()).ok_or(RuleError::UnknownCommand)?;
        if let Some((sub, _)) = rest.split_once('|') {
            let known = table.find_sub(parent, sub.as_bytes()).is_some();
            return Err(if known { RuleError::FirstArgOfSubcommand } else { RuleError::UnknownCommand });
        }
        if let Some(sub) = table.find_sub(parent, rest.as_bytes()) {
            self.allow(sub, allowed);
        } else if allowed && rest.is_empty() {
            return Err(RuleError::Syntax);
        } else if !table.get(parent).subcommands.is_empty() {
            return Err(RuleError::UnknownCommand);
        } else if !allowed {
            // A first argument can only be allowed, not denied.
            return Err(RuleError::UnknownCommand);
        } else if has_blanks(rest.as_bytes()) {
            // Written to a file, it would be read as several rules.
            return Err(RuleError::Syntax);
        } else {
            log::warn!(
                "Deprecation warning: Allowing a first arg of an otherwise blocked command is a misuse of ACL and may get \
                 disabled in the future (offender: +{shown})"
            );
            if !self.allows(parent) {
                self.first_args.entry(parent).or_default().push(rest.as_bytes().to_vec());
            }
        }
        self.show(allowed, &shown);
        Ok(())
    }

    /// Notes a rule to be shown, in place of those it overrides.
    fn show(&mut self, allowed: bool, name: &str) {
        let is_void = |rule: &str| rule.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('|'));
        self.rules.retain(|rule| !is_void(&rule[1..]));
        self.rules.push(format!("{}{name}", if allowed { '+' } else { '-' }));
    }

    /// The command rules, as ACL GETUSER shows them.
    pub(crate) fn describe_commands(&self) -> String {
        let mut out = String::from(self.base_rule());
        self.rules.iter().for_each(|r| {
            out.push(' ');
            out.push_str(r);
        });
        out
    }

    fn base_rule(&self) -> &'static str {
        if self.all_commands { "+@all" } else { "-@all" }
    }

    pub(crate) fn describe_keys(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_keys(&mut out);
        without_last(out)
    }

    /// Appends the key patterns, each with a blank after it.
    fn write_keys(&self, out: &mut Vec<u8>) {
        if self.all_keys {
            out.extend_from_slice(b"~* ");
        }
        out.reserve(self.keys.iter().map(|k| k.pattern.len() + LONGEST_MARKS).sum());
        for k in &self.keys {
            let mark: &[u8] = match (k.read, k.write) {
                (true, true) => b"~",
                (true, false) => b"%R~",
                (false, _) => b"%W~",
            };
            append(out, mark);
            append(out, &k.pattern);
            out.push(b' ');
        }
    }

    pub(crate) fn describe_channels(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_channels(&mut out);
        without_last(out)
    }

    /// Appends the channel patterns, each with a blank after it.
    fn write_channels(&self, out: &mut Vec<u8>) {
        if self.all_channels {
            out.extend_from_slice(b"&* ");
        }
        out.reserve(self.channels.iter().map(|c| c.len() + LONGEST_MARKS).sum());
        for c in &self.channels {
            out.push(b'&');
            append(out, c);
            out.push(b' ');
        }
    }

    fn write_rules(&self, out: &mut Vec<u8>) {
        if let Some(shown) = self.shown.get() {
            return out.extend_from_slice(shown);
        }
        let begin = out.len();
        self.write_keys(out);
        if !self.all_channels {
            out.extend_from_slice(b"resetchannels ");
        }
        self.write_channels(out);
        out.extend_from_slice(self.base_rule().as_bytes());
        for rule in &self.rules {
            out.push(b' ');
            out.extend_from_slice(rule.as_bytes());
        }
        if out.len() - begin >= KEPT_BYTES {
            _ = self.shown.set(out[begin..].to_vec());
        }
    }
}

/// The text without its last byte, a blank.
fn without_last(mut text: Vec<u8>) -> Vec<u8> {
    text.pop();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(line: &[&str]) -> Result<User, RuleError> {
        let commands = crate::server::commands::table().0;
        let rules = Rules { commands: &commands, channels_open: false };
        let mut user = User::new(b"u", rules);
        line.iter().try_for_each(|r| user.apply(r.as_bytes(), rules))?;
        Ok(user)
    }

    #[test]
    fn many_patterns_are_shown_as_they_are_also_after_one_more() {
        let commands = crate::server::commands::table().0;
        let rules = Rules { commands: &commands, channels_open: false };
        let mut bob = User::new(b"bob", rules);
        let mut expected = String::from("bob off sanitize-payload ");
        for i in 0..1000 {
            bob.apply(format!("~pattern{i}").as_bytes(), rules).unwrap();
            expected += &format!("~pattern{i} ");
        }
        let shown = |user: &User| {
            let mut out = Vec::new();
            user.write_line(&mut out);
            String::from_utf8(out).unwrap()
        };
        let end = "resetchannels -@all";
        assert_eq!([shown(&bob), shown(&bob)], [expected.clone() + end, expected.clone() + end]);
        let other = bob.clone();
        bob.apply(b"%R~more", rules).unwrap();
        bob.apply(b"+get", rules).unwrap();
        assert_eq!(shown(&bob), expected.clone() + "%R~more " + end + " +get");
        assert_eq!(shown(&other), expected + end);
        bob.apply(b"resetkeys", rules).unwrap();
        assert_eq!(shown(&bob), "bob off sanitize-payload resetchannels -@all +get");
    }

    fn rules(user: &User) -> String {
        let mut text = Vec::new();
        user.write_rules(&mut text);
        String::from_utf8(text).unwrap()
    }

    fn shown(line: &[&str]) -> String {
        rules(&user(line).unwrap())
    }

    #[test]
    fn a_set_of_commands_holds_what_was_put_in_last() {
        let mut set = CommandSet::default();
        assert!(set.is_empty() && !set.contains(CmdRef(0)) && !set.contains(CmdRef(u16::MAX)));
        let numbers = [0, 1, 63, 64, 65, 300];
        numbers.iter().for_each(|n| set.set(CmdRef(*n), true));
        for n in 0..400 {
            assert_eq!(set.contains(CmdRef(n)), numbers.contains(&n), "{n}");
        }
        numbers.iter().for_each(|n| set.set(CmdRef(*n), false));
        assert!(set.is_empty());
        set.set(CmdRef(3), true);
        set.set_all(&[0b110, 0, 1], true);
        let held: Vec<u16> = (0..400).filter(|n| set.contains(CmdRef(*n))).collect();
        assert_eq!(held, [1, 2, 3, 128]);
        set.set_all(&[0b1010], false);
        let held: Vec<u16> = (0..400).filter(|n| set.contains(CmdRef(*n))).collect();
        assert_eq!(held, [2, 128]);
    }

    #[test]
    fn a_category_is_all_of_its_commands() {
        let commands = crate::server::commands::table().0;
        for (bit, name) in cat::NAMES {
            let some = user(&[&format!("+@{name}")]).unwrap();
            let all_but = user(&["+@all", &format!("-@{name}")]).unwrap();
            for cmd in commands.refs() {
                let is_in = commands.get(cmd).row.categories() & bit != 0;
                assert_eq!(some.selectors[0].allows(cmd), is_in, "{name} {}", commands.get(cmd).row.name);
                assert_eq!(all_but.selectors[0].allows(cmd), !is_in, "{name} {}", commands.get(cmd).row.name);
            }
        }
        let with_first_arg = |rules: &[&str]| user(rules).unwrap().selectors[0].first_args.len();
        assert_eq!((with_first_arg(&["+select|0"]), with_first_arg(&["+select|0", "-@connection"])), (1, 0));
        assert_eq!(with_first_arg(&["+select|0", "-@hash"]), 1);
    }

    #[test]
    fn passwords_are_kept_as_their_sums() {
        assert_eq!(password_hash(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn users_are_shown_as_they_were_written() {
        assert_eq!(rules(&User::free_default()), "on nopass sanitize-payload ~* &* +@all");
        assert_eq!(
            shown(&["on", "~a*", "%R~b", "&ch", "+@read", "-get", "+config|get"]),
            "on sanitize-payload ~a* %R~b resetchannels &ch -@all +@read -get +config|get"
        );
        assert_eq!(shown(&["+@all", "-psync"]), "off sanitize-payload resetchannels +@all -psync");
        assert_eq!(
            shown(&["(~x +get)", "allkeys"]),
            "off sanitize-payload ~* resetchannels -@all (~x resetchannels -@all +get)"
        );
        // Allowing what is allowed already is no mistake.
        assert_eq!(shown(&["allkeys", "~*", "allchannels", "&*"]), "off sanitize-payload ~* &* -@all");
        // A rule takes the place of the one it overrides.
        assert_eq!(
            shown(&["+config|get", "+get", "-config", "+get"]),
            "off sanitize-payload resetchannels -@all -config +get"
        );
    }

    #[test]
    fn wrong_rules_say_why() {
        for (rules, error) in [
            (&["+nosuch"][..], RuleError::UnknownCommand),
            (&["+@nosuch"], RuleError::UnknownCommand),
            (&["%~x"], RuleError::Syntax),
            (&["allkeys", "~x"], RuleError::KeysAfterAll),
            (&["allchannels", "&x"], RuleError::ChannelsAfterAll),
            (&["<x"], RuleError::NoSuchPassword),
            (&["#12"], RuleError::BadHash),
            (&["+config|get|x"], RuleError::FirstArgOfSubcommand),
            (&["+get|a|b"], RuleError::UnknownCommand),
            (&["what"], RuleError::Syntax),
        ] {
            assert_eq!(user(rules).unwrap_err(), error, "{rules:?}");
        }
    }

    #[test]
    fn passwords() {
        let u = user(&[">one", ">two", "<one"]).unwrap();
        assert!(!u.accepts_password(b"one") && u.accepts_password(b"two"));
        assert!(user(&["nopass"]).unwrap().accepts_password(b"anything"));
    }

    #[test]
    fn selectors_may_come_in_pieces() {
        let words: Vec<&[u8]> = vec![b"on", b"(+get", b"~x)", b"+set"];
        assert_eq!(join_selectors(&words).unwrap(), vec![b"on".to_vec(), b"(+get ~x)".to_vec(), b"+set".to_vec()]);
        assert!(join_selectors(&[&b"(+get"[..]]).is_err());
    }
}
