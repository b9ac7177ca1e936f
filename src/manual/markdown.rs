//! `docs/COMMANDS.md` and `docs/CONFIGURATION.md`.

use super::directives::{self, Paragraph, changes, default_of};
use super::{File, NOT_OF_REDIS, all_commands};
use crate::catalog::row::{Group, cat};
use crate::cli::syntax;
use crate::config::Row;
use std::fmt::Write;

pub(super) fn documents() -> Vec<File> {
    vec![("COMMANDS.md".into(), commands()), ("CONFIGURATION.md".into(), configuration())]
}

const GROUPS: [(Group, &str); 16] = [
    (Group::Generic, "Keys of any type"),
    (Group::String, "Strings"),
    (Group::Bitmap, "Bitmaps"),
    (Group::Hash, "Hashes"),
    (Group::List, "Lists"),
    (Group::Set, "Sets"),
    (Group::SortedSet, "Sorted sets"),
    (Group::Geo, "Places"),
    (Group::Stream, "Streams"),
    (Group::Hyperloglog, "HyperLogLogs"),
    (Group::Pubsub, "Pub/sub"),
    (Group::Transactions, "Transactions"),
    (Group::Scripting, "Scripts and functions"),
    (Group::Connection, "Connections"),
    (Group::Cluster, "Cluster"),
    (Group::Server, "Server"),
];

/// What a cell of a table may hold.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;").replace('\n', " ")
}

fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}

fn commands() -> String {
    let all = all_commands();
    let mut out = format!(
        "# Commands\n\nAll {} commands, with subcommands. They are those of Redis 7.2 and {NOT_OF_REDIS}; what differs is in \
         `COMPATIBILITY.md`. *Since* is the version that first had a command. `redis-cli help COMMAND` and `man redis-commands` show the same.\n\n\
         This file is made from the rows that describe the commands, by `make docs`.\n",
        all.len()
    );
    for (group, title) in GROUPS {
        let _ = write!(out, "\n## {title}\n\n| Command | What it does | Since | Cost | ACL |\n|---|---|---|---|---|\n");
        for (words, row) in all.iter().filter(|(_, row)| row.group == group) {
            let call = format!("{words} {}", syntax(row));
            let categories = cat::NAMES.iter().filter(|(bit, _)| row.categories() & bit != 0);
            let acl: Vec<String> = categories.map(|(_, name)| format!("@{name}")).collect();
            let old = row.deprecated.map_or(String::new(), |(since, by)| format!(" Deprecated since {since}: {by}."));
            let _ = writeln!(
                out,
                "| {} | {}{} | {} | {} | {} |",
                code(call.trim_end()),
                cell(row.summary),
                cell(&old).replace("..", "."),
                row.since,
                cell(row.complexity),
                acl.join(" ")
            );
        }
    }
    out
}

fn configuration() -> String {
    let (intro, sections) = directives::read();
    let mut out = String::from(
        "# Configuration\n\nEvery directive, as a line of the configuration file (`conf/redis.conf` is one to begin with), as an option \
         (`redis-server --port 7000`) or, at run time, with CONFIG SET. `man redis.conf` shows the same.\n\n\
         This file is made from the rows of the directives and from `conf/redis.conf`, by `make docs`.\n\n",
    );
    intro.iter().for_each(|p| write_paragraph(p, &mut out));
    for section in sections {
        let _ = write!(out, "## {}\n\n", section.title);
        section.paragraphs.iter().for_each(|p| write_paragraph(p, &mut out));
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn write_paragraph(p: &Paragraph, out: &mut String) {
    if !p.text.is_empty() {
        let _ = write!(out, "{}\n\n", p.text.replace('<', "&lt;").replace('*', "\\*"));
    }
    if !p.example.is_empty() {
        let _ = write!(out, "```\n{}\n```\n\n", p.example.join("\n"));
    }
    if p.rows.is_empty() {
        return;
    }
    out.push_str("| Directive | Value | Default | Can be changed |\n|---|---|---|---|\n");
    p.rows.iter().for_each(|row| write_row(row, out));
    out.push('\n');
    if !p.shipped.is_empty() {
        let _ = write!(out, "`conf/redis.conf` has `{}`.\n\n", p.shipped.join("`, `"));
    }
}

fn write_row(row: &Row, out: &mut String) {
    let also = match row.aliases {
        [] => String::new(),
        names => format!(" ({})", names.iter().map(|name| code(name)).collect::<Vec<_>>().join(", ")),
    };
    let (values, default) = (cell(&row.values()), code(&default_of(row)));
    let _ = writeln!(out, "| {}{also} | {values} | {default} | {} |", code(row.name), changes(row));
}
