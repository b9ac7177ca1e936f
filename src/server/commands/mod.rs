//! The commands that drive the server, one file a family. Each file holds the rows that describe its commands and, below
//! them, their functions, which may reach every room.

pub mod acl;
pub mod client;
pub mod client_tracking;
pub mod cluster;
pub mod command;
pub mod config;
pub mod connection;
pub mod debug;
pub mod debug_persist;
pub mod debug_values;
pub mod function;
pub mod migrate;
pub mod module;
pub mod persistence;
pub mod pubsub;
pub mod replication;
pub mod scripting;
pub mod server;
pub mod transaction;
pub mod watch_server;

use super::dispatch::call::{Run, ServerFn};
use crate::catalog::CommandTable;
use crate::catalog::row::Command;
use crate::commands as data;
use std::iter::once;

pub use crate::commands::{bounded_arg, count_arg, help, int_arg, unknown_subcommand};

/// The row of a command that drives the server.
pub type ServerCommand = Command<ServerFn>;

/// Every row. A new family is added here, a new command in its family's rows alone.
pub const ALL: &[&[ServerCommand]] = &[
    acl::COMMANDS,
    client::COMMANDS,
    cluster::COMMANDS,
    command::COMMANDS,
    config::COMMANDS,
    connection::COMMANDS,
    debug::COMMANDS,
    function::COMMANDS,
    migrate::COMMANDS,
    module::COMMANDS,
    persistence::COMMANDS,
    pubsub::COMMANDS,
    replication::COMMANDS,
    scripting::COMMANDS,
    server::COMMANDS,
    transaction::COMMANDS,
    watch_server::COMMANDS,
];

/// The table of all commands, and the function of each.
pub fn table() -> (CommandTable, Vec<Run>) {
    let (mut rows, mut functions) = (Vec::new(), Vec::new());
    add(data::ALL, Run::data, &mut rows, &mut functions);
    add(ALL, |_, run| Run::Server(run), &mut rows, &mut functions);
    (CommandTable::new(rows), functions)
}

fn add<F: Copy>(
    families: &[&'static [Command<F>]],
    run: impl Fn(&Command, F) -> Run,
    rows: &mut Vec<&'static Command>,
    functions: &mut Vec<Run>,
) {
    for family in families {
        // In the order of the table: subcommands behind their container.
        for (row, described) in family.iter().zip(Command::described(family)) {
            rows.push(described);
            for (row, described) in once((row, described)).chain(row.subcommands.iter().zip(described.subcommands)) {
                functions.push(row.run.map_or(Run::Nothing, |function| run(described, function)));
            }
        }
    }
}

/// What the rows of every family use.
pub mod prelude {
    pub use super::ServerCommand;
    pub use crate::catalog::error::{self, CmdError, CmdResult};
    pub use crate::catalog::row::{Arg, ArgKind, Begin, Command, Find, Group, KeySpec, arg, cat, flag, key};
    pub use crate::keyspace::effects::notify;
    pub use crate::resp::Args;
    pub use crate::server::dispatch::call::Ctx;
    pub use crate::structs::entry::{IntBuf, NewValue, ValueRef};
}
