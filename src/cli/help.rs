//! What the prompt knows about commands: `help`, completion and hints.
//!
//! The server describes its commands itself (COMMAND DOCS), so the prompt always matches the server it talks to. A
//! server without COMMAND DOCS is assumed to have this server's commands.

use super::connection::Connection;
use super::term::put;
use crate::catalog::row::{Arg, ArgKind, Command};
use crate::resp::reply_reader::Reply;
use crate::server::commands;

/// The commands of one server, see [`Help::load`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Help {
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// Upper case words: `CONFIG`, `GET`.
    words: Vec<String>,
    summary: String,
    since: String,
    group: String,
    arguments: Vec<Argument>,
}

/// One argument of a command, as COMMAND DOCS describes it.
#[derive(Debug, Clone, Default)]
pub(super) struct Argument {
    /// What to show for its value.
    pub(super) name: String,
    pub(super) kind: Kind,
    /// The literal word before the value, or in its place.
    pub(super) token: Option<String>,
    pub(super) optional: bool,
    pub(super) multiple: bool,
    /// Every repetition brings the token again.
    pub(super) multiple_token: bool,
    pub(super) parts: Vec<Argument>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Any text.
    #[default]
    Value,
    Integer,
    Double,
    /// The token alone.
    Token,
    /// One of its parts.
    OneOf,
    /// All of its parts.
    Block,
}

impl Help {
    /// Asks the server with COMMAND DOCS; if it does not answer, uses the commands of this version.
    pub(crate) fn load(conn: Option<&mut Connection>) -> Help {
        let mut help = Help::default();
        if let Some(Ok(docs)) = conn.map(|conn| conn.words("COMMAND DOCS")) {
            help.add_commands(&docs, &[]);
        }
        if help.entries.is_empty() {
            commands::table().0.top_level().for_each(|command| help.add_row(command.row));
        }
        help.entries.sort_by(|a, b| a.words.cmp(&b.words));
        help
    }

    fn add_row(&mut self, row: &Command) {
        self.entries.push(Entry {
            words: row.name.split('|').map(str::to_uppercase).collect(),
            summary: row.summary.to_string(),
            since: row.since.to_string(),
            group: row.group.name().to_string(),
            arguments: row.args.iter().map(Argument::from).collect(),
        });
        row.subcommands.iter().for_each(|sub| self.add_row(sub));
    }

    fn add_commands(&mut self, docs: &Reply, parent: &[String]) {
        for (name, description) in docs.pairs() {
            let name = name.text_lossy().to_uppercase();
            let own = name.rsplit('|').next().unwrap_or(&name).to_string();
            let mut words = parent.to_vec();
            words.push(own);
            let mut entry = Entry {
                words: words.clone(),
                summary: String::new(),
                since: String::new(),
                group: String::new(),
                arguments: Vec::new(),
            };
            for (field, value) in description.pairs() {
                match field.text().unwrap_or_default() {
                    b"summary" => entry.summary = value.text_lossy(),
                    b"since" => entry.since = value.text_lossy(),
                    b"group" => entry.group = value.text_lossy(),
                    b"arguments" => entry.arguments = arguments(value),
                    b"subcommands" => self.add_commands(value, &words),
                    _ => {}
                }
            }
            self.entries.push(entry);
        }
    }

    /// `help`, `help @group` or `help command`.
    pub(crate) fn print(&self, topic: &[Vec<u8>]) {
        put(self.describe(topic).as_bytes());
    }

    fn describe(&self, topic: &[Vec<u8>]) -> String {
        let Some(first) = topic.first() else {
            return format!("redis-cli {}\n{GENERIC}", super::COMPATIBLE_VERSION);
        };
        let mut out = String::new();
        if let Some(group) = first.strip_prefix(b"@") {
            let group = String::from_utf8_lossy(group).to_lowercase();
            for entry in self.entries.iter().filter(|e| e.group.eq_ignore_ascii_case(&group)) {
                entry.describe(false, &mut out);
            }
        } else {
            let words: Vec<String> = topic.iter().map(|word| String::from_utf8_lossy(word).to_uppercase()).collect();
            for entry in self.entries.iter().filter(|e| e.words.starts_with(&words)) {
                entry.describe(true, &mut out);
            }
        }
        out.push_str("\r\n");
        out
    }

    /// Lines that begin like this one.
    pub(crate) fn completions(&self, line: &str) -> Vec<String> {
        let lower = line.to_lowercase();
        let (lead, rest) = match lower.strip_prefix("help ") {
            Some(rest) => {
                let rest = rest.trim_start();
                (&line[..line.len() - rest.len()], rest)
            }
            None => ("", lower.as_str()),
        };
        let mut topics: Vec<String> = self.entries.iter().map(|e| e.words.join(" ")).collect();
        if !lead.is_empty() {
            let mut groups: Vec<&str> = self.entries.iter().map(|e| e.group.as_str()).collect();
            groups.sort_unstable();
            groups.dedup();
            topics.extend(groups.iter().map(|group| format!("@{group}")));
        }
        topics
            .into_iter()
            .filter(|topic| topic.to_lowercase().starts_with(rest))
            .map(|topic| format!("{lead}{topic}"))
            .collect()
    }

    /// The arguments that are still to be typed after `line`.
    pub(crate) fn hint(&self, line: &[u8]) -> Option<String> {
        let mut words: Vec<String> = super::quote::split_args(line)
            .ok()?
            .iter()
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        // A word counts only when a blank follows it.
        if !line.last().is_some_and(u8::is_ascii_whitespace) {
            words.pop();
        }
        let entry = self
            .entries
            .iter()
            .filter(|entry| {
                entry.words.len() <= words.len()
                    && entry.words.iter().zip(&words).all(|(have, typed)| have.eq_ignore_ascii_case(typed))
            })
            .max_by_key(|entry| entry.words.len())?;
        Some(super::hint::remaining(&entry.arguments, &words[entry.words.len()..]))
    }
}

const GENERIC: &str = "To get help about Redis commands type:
      \"help @<group>\" to get a list of commands in <group>
      \"help <command>\" for help on <command>
      \"help <tab>\" to get a list of possible help topics
      \"quit\" to exit

To set redis-cli preferences:
      \":set hints\" enable online hints
      \":set nohints\" disable online hints
Set your preferences in ~/.redisclirc
";

impl Entry {
    fn describe(&self, with_group: bool, out: &mut String) {
        let name = self.words.join(" ");
        let syntax = super::hint::remaining(&self.arguments, &[]);
        out.push_str(&format!("\r\n  \x1b[1m{name}\x1b[0m \x1b[90m{syntax}\x1b[0m\r\n"));
        let mut row = |title: &str, text: &str| {
            out.push_str(&format!("  \x1b[33m{title}:\x1b[0m {text}\r\n"));
        };
        row("summary", &self.summary);
        row("since", &self.since);
        if with_group {
            row("group", &self.group);
        }
    }
}

/// The arguments of a command as they are shown.
pub(crate) fn syntax(row: &Command) -> String {
    super::hint::remaining(&row.args.iter().map(Argument::from).collect::<Vec<_>>(), &[])
}

fn arguments(docs: &Reply) -> Vec<Argument> {
    let Some(items) = docs.elements() else {
        return Vec::new();
    };
    items.iter().map(argument).collect()
}

fn argument(docs: &Reply) -> Argument {
    let mut argument = Argument::default();
    let mut display = None;
    for (field, value) in docs.pairs() {
        match field.text().unwrap_or_default() {
            b"name" => argument.name = value.text_lossy(),
            b"display_text" => display = Some(value.text_lossy()),
            b"token" => argument.token = Some(value.text_lossy()),
            b"arguments" => argument.parts = arguments(value),
            b"type" => {
                argument.kind = match value.text().unwrap_or_default() {
                    b"pure-token" => Kind::Token,
                    b"oneof" => Kind::OneOf,
                    b"block" => Kind::Block,
                    b"integer" | b"unix-time" => Kind::Integer,
                    b"double" => Kind::Double,
                    _ => Kind::Value,
                }
            }
            b"flags" => {
                for flag in value.elements().unwrap_or_default() {
                    match flag.text().unwrap_or_default() {
                        b"optional" => argument.optional = true,
                        b"multiple" => argument.multiple = true,
                        b"multiple_token" => argument.multiple_token = true,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if let Some(display) = display {
        argument.name = display;
    }
    argument
}

impl From<&Arg> for Argument {
    fn from(row: &Arg) -> Argument {
        Argument {
            name: row.display.unwrap_or(row.name).to_string(),
            kind: match row.kind {
                ArgKind::PureToken => Kind::Token,
                ArgKind::OneOf => Kind::OneOf,
                ArgKind::Block => Kind::Block,
                ArgKind::Integer | ArgKind::UnixTime => Kind::Integer,
                ArgKind::Double => Kind::Double,
                ArgKind::String | ArgKind::Key | ArgKind::Pattern => Kind::Value,
            },
            token: row.token.map(str::to_string),
            optional: row.optional,
            multiple: row.multiple,
            multiple_token: row.multiple_token,
            parts: row.args.iter().map(Argument::from).collect(),
        }
    }
}

impl Argument {
    /// The token as it is shown: an empty one in quotes.
    pub(super) fn shown_token(&self) -> Option<&str> {
        self.token.as_deref().map(|token| if token.is_empty() { "\"\"" } else { token })
    }
}
