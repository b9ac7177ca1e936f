//! The commands, one file a family. Each file holds the rows that describe its commands and, below them, their functions.

pub mod command;
pub mod config;
pub mod connection;
pub mod expire;
pub mod generic;
pub mod lcs;
pub mod object;
pub mod scan;
pub mod string;
pub mod transaction;

use crate::dispatch::command::Command;

/// Every row. A new family is added here, a new command in its family's rows alone.
pub const ALL: &[&[Command]] = &[
    command::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    expire::COMMANDS,
    generic::COMMANDS,
    object::COMMANDS,
    scan::COMMANDS,
    string::COMMANDS,
    transaction::COMMANDS,
];

/// What the rows of every family use.
pub mod prelude {
    pub use crate::dispatch::call::Ctx;
    pub use crate::dispatch::command::{Arg, ArgKind, Begin, Command, Find, Group, KeySpec, arg, cat, flag, key};
    pub use crate::dispatch::error::{self, CmdError, CmdResult};
    pub use crate::keyspace::effects::notify;
    pub use crate::resp::Args;
    pub use crate::structs::entry::{IntBuf, NewValue, ValueRef};
}

/// An argument as a 64-bit integer, or the usual error.
pub fn int_arg(arg: &[u8]) -> Result<i64, crate::dispatch::CmdError> {
    crate::structs::numbers::parse_i64(arg).ok_or(crate::dispatch::error::NOT_AN_INTEGER)
}

/// Replies with the help of a container: its name in capitals, then the lines that describe its subcommands.
pub fn reply_help(ctx: &mut crate::dispatch::call::Ctx<'_>, container: &str, lines: &[&str]) {
    ctx.out.array(lines.len() + 3);
    ctx.out.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    lines.iter().for_each(|line| ctx.out.simple(line));
    ctx.out.simple("HELP");
    ctx.out.simple("    Print this help.");
}
