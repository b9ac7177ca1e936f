//! The commands that work on data, one file a family. Each file holds the rows that describe its commands and, below
//! them, their functions. They see the keyspace, the configuration, the session and their reply, see [`context`].

#[cfg(test)]
pub(crate) mod bare;
pub(crate) mod bitmap;
pub(crate) mod collection;
pub(crate) mod context;
pub(crate) mod expire;
pub(crate) mod generic;
pub(crate) mod geo;
pub(crate) mod hash;
pub(crate) mod hyperloglog;
pub(crate) mod lcs;
pub(crate) mod list;
mod list_pos;
pub(crate) mod object;
pub(crate) mod scan;
pub(crate) mod set;
pub(crate) mod sort;
pub(crate) mod stream;
pub(crate) mod string;
pub(crate) mod zset;
pub(crate) mod zset_join;
pub(crate) mod zset_range;

use crate::catalog::row::{Command, Group};
use context::DataFn;

/// The row of a command that works on data.
pub(crate) type DataCommand = Command<DataFn>;

pub(crate) const fn command(group: Group, name: &'static str, run: DataFn) -> DataCommand {
    Command::new(group, name, run)
}

/// Every row. A new family is added here, a new command in its family's rows alone.
pub(crate) const ALL: &[&[DataCommand]] = &[
    bitmap::COMMANDS,
    expire::COMMANDS,
    generic::COMMANDS,
    geo::COMMANDS,
    hash::COMMANDS,
    hyperloglog::COMMANDS,
    list::COMMANDS,
    object::COMMANDS,
    scan::COMMANDS,
    set::COMMANDS,
    sort::COMMANDS,
    stream::COMMANDS,
    stream::group::COMMANDS,
    stream::info::COMMANDS,
    stream::read::COMMANDS,
    string::COMMANDS,
    zset::COMMANDS,
    zset_join::COMMANDS,
    zset_range::COMMANDS,
];

/// What the rows of every family use.
pub(crate) mod prelude {
    pub(crate) use super::context::{Ctx, Wait, Want};
    pub(crate) use super::{DataCommand, command};
    pub(crate) use crate::catalog::error::{self, CmdError, CmdResult};
    pub(crate) use crate::catalog::row::{Arg, Begin, Command, Find, Group, KeySpec, cat, flag, key};
    pub(crate) use crate::keyspace::effects::notify;
    pub(crate) use crate::resp::Args;
    pub(crate) use crate::structs::entry::{IntBuf, NewValue, ValueRef};
}

/// An argument as a 64-bit integer, or the error `NOT_AN_INTEGER`.
pub(crate) fn int_arg(arg: &[u8]) -> Result<i64, crate::catalog::CmdError> {
    crate::structs::numbers::parse_i64(arg).ok_or(crate::catalog::error::NOT_AN_INTEGER)
}

/// An integer of at least `min`, or the error `message` whatever is wrong with it.
pub(crate) fn bounded_arg(arg: &[u8], min: i64, message: &'static str) -> Result<i64, crate::catalog::CmdError> {
    int_arg(arg).ok().filter(|n| *n >= min).ok_or(crate::catalog::CmdError::of(message))
}

/// A count, not negative.
pub(crate) fn count_arg(arg: &[u8]) -> Result<usize, crate::catalog::CmdError> {
    bounded_arg(arg, 0, "ERR value is out of range, must be positive").map(|n| n as usize)
}

/// A count of elements to choose at random; below 0 the same element may be chosen again.
pub(crate) fn random_count_arg(arg: &[u8]) -> Result<i64, crate::catalog::CmdError> {
    match int_arg(arg)? {
        i64::MIN => Err(crate::catalog::CmdError::text(format!(
            "ERR value is out of range, value must between {} and {}",
            -i64::MAX,
            i64::MAX
        ))),
        n => Ok(n),
    }
}

/// Replies with an element of a collection.
pub(crate) fn reply_item(out: &mut crate::resp::Reply, item: crate::structs::listpack::Item<'_>) {
    match item {
        crate::structs::listpack::Item::Int(n) => out.bulk_int(n),
        crate::structs::listpack::Item::Str(bytes) => out.bulk(bytes),
    }
}

/// Writes the reply of a container's HELP: `lines` between the usual first and last ones.
pub(crate) fn help(
    out: &mut crate::resp::Reply,
    args: crate::resp::Args<'_>,
    lines: &[&str],
) -> crate::catalog::CmdResult {
    let name = String::from_utf8_lossy(&args[0]).to_ascii_uppercase();
    out.array(lines.len() + 3);
    out.simple(&format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    lines.iter().for_each(|line| out.simple(line));
    out.simple("HELP");
    out.just_simple("    Print this help.")
}

/// The error of commands that parse their subcommands themselves.
pub(crate) fn unknown_subcommand(args: crate::resp::Args<'_>) -> crate::catalog::CmdError {
    let mut text = b"ERR unknown subcommand or wrong number of arguments for '".to_vec();
    text.extend_from_slice(&args[1][..args[1].len().min(128)]);
    text.extend_from_slice(b"'. Try ");
    text.extend_from_slice(&args[0].to_ascii_uppercase());
    text.extend_from_slice(b" HELP.");
    crate::catalog::CmdError::bytes(text)
}
