//! The commands, one file a family. Each file holds the rows that describe its commands and, below them, their functions.

pub mod command;
pub mod config;
pub mod connection;
pub mod migrate;
pub mod persistence;
pub mod replication;
pub mod string;
pub mod transaction;

use crate::dispatch::command::Command;

/// Every row. A new family is added here, a new command in its family's rows alone.
pub const ALL: &[&[Command]] = &[
    command::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    migrate::COMMANDS,
    persistence::COMMANDS,
    replication::COMMANDS,
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
