//! The commands that drive the server, one file a family. Each file holds the rows that describe its commands and, below
//! them, their functions, which may reach every room.

pub(crate) mod acl;
pub(crate) mod client;
mod client_filter;
pub(crate) mod client_tracking;
pub(crate) mod cluster;
mod cluster_debug;
mod cluster_show;
pub(crate) mod command;
pub(crate) mod config;
pub(crate) mod connection;
pub(crate) mod debug;
pub(crate) mod debug_persist;
mod debug_slots;
pub(crate) mod debug_values;
pub(crate) mod function;
pub(crate) mod migrate;
pub(crate) mod module;
pub(crate) mod persistence;
pub(crate) mod pubsub;
pub(crate) mod replication;
pub(crate) mod scripting;
pub(crate) mod server;
mod slot_migration;
mod slot_stats;
mod slot_tasks;
pub(crate) mod transaction;
pub(crate) mod watch_server;

use super::dispatch::call::{Run, ServerFn};
use crate::catalog::CommandTable;
use crate::catalog::row::{Command, Group};
use crate::commands as data;
use std::iter::once;

pub(crate) use crate::commands::{count_arg, help, int_arg, unknown_subcommand};

/// The row of a command that drives the server.
pub(crate) type ServerCommand = Command<ServerFn>;

pub(crate) const fn command(group: Group, name: &'static str, run: ServerFn) -> ServerCommand {
    Command::new(group, name, run)
}

/// Every row. A new family is added here, a new command in its family's rows alone.
pub(crate) const ALL: &[&[ServerCommand]] = &[
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
    slot_tasks::COMMANDS,
    transaction::COMMANDS,
    watch_server::COMMANDS,
];

/// What is known of all commands.
pub fn rows() -> CommandTable {
    table().0
}

/// The table of all commands, and the function of each.
pub(crate) fn table() -> (CommandTable, Vec<Run>) {
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
        // In the order of the table: subcommands after their container.
        for (row, described) in family.iter().zip(Command::described(family)) {
            rows.push(described);
            for (row, described) in once((row, described)).chain(row.subcommands.iter().zip(described.subcommands)) {
                functions.push(row.run.map_or(Run::Nothing, |function| run(described, function)));
            }
        }
    }
}

/// What the rows of every family use.
pub(crate) mod prelude {
    pub(crate) use super::{ServerCommand, command};
    pub(crate) use crate::catalog::error::{self, CmdError, CmdResult};
    pub(crate) use crate::catalog::row::{Arg, Begin, Command, Find, Group, KeySpec, cat, flag, key};
    pub(crate) use crate::keyspace::effects::notify;
    pub(crate) use crate::resp::Args;
    pub(crate) use crate::server::dispatch::call::Ctx;
    pub(crate) use crate::structs::entry::{NewValue, ValueRef};
}
