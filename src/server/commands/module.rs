//! MODULE: extensions that are loaded at run time, of which this server takes none. What asks for the list gets an empty
//! one, and what wants to load one is told that it cannot be.

use super::prelude::*;

pub(crate) const COMMANDS: &[ServerCommand] = &[Command {
    name: "module",
    arity: -2,
    group: Group::Server,
    since: "4.0.0",
    complexity: "What the subcommand does.",
    summary: "Groups the commands about modules.",
    subcommands: &[
        Command {
            name: "module|help",
            run: Some(help),
            arity: 2,
            flags: flag::LOADING | flag::STALE,
            group: Group::Server,
            since: "5.0.0",
            complexity: "O(1)",
            summary: "Tells what the subcommands of MODULE are.",
            ..Command::ROW
        },
        Command {
            name: "module|list",
            run: Some(list),
            arity: 2,
            flags: flag::ADMIN | flag::NOSCRIPT,
            group: Group::Server,
            since: "4.0.0",
            complexity: "O(N) for N modules.",
            summary: "Lists the modules that are loaded.",
            tips: &["nondeterministic_output_order"],
            ..Command::ROW
        },
        Command {
            name: "module|load",
            run: Some(load),
            arity: -3,
            flags: flag::ADMIN | flag::NO_ASYNC_LOADING | flag::NOSCRIPT | flag::PROTECTED,
            group: Group::Server,
            since: "4.0.0",
            complexity: "O(1)",
            summary: "Loads a module.",
            args: &[arg("path", ArgKind::String), arg("arg", ArgKind::String).optional().multiple()],
            ..Command::ROW
        },
        Command {
            name: "module|loadex",
            run: Some(load),
            arity: -3,
            flags: flag::ADMIN | flag::NO_ASYNC_LOADING | flag::NOSCRIPT | flag::PROTECTED,
            group: Group::Server,
            since: "7.0.0",
            complexity: "O(1)",
            summary: "Loads a module with settings of its own.",
            args: &[
                arg("path", ArgKind::String),
                arg("configs", ArgKind::Block)
                    .token("CONFIG")
                    .optional()
                    .multiple()
                    .multiple_token()
                    .of(&[arg("name", ArgKind::String), arg("value", ArgKind::String)]),
                arg("args", ArgKind::String).token("ARGS").optional().multiple(),
            ],
            ..Command::ROW
        },
        Command {
            name: "module|unload",
            run: Some(unload),
            arity: 3,
            flags: flag::ADMIN | flag::NO_ASYNC_LOADING | flag::NOSCRIPT | flag::PROTECTED,
            group: Group::Server,
            since: "4.0.0",
            complexity: "O(1)",
            summary: "Unloads a module.",
            args: &[arg("name", ArgKind::String)],
            ..Command::ROW
        },
    ],
    ..Command::ROW
}];

fn help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(
        ctx.out,
        args,
        &[
            "LIST",
            "    List the modules that are loaded: none.",
            "LOAD <path> [<arg> ...]",
            "    Refused: this server has no interface for modules.",
            "LOADEX <path> [[CONFIG NAME VALUE] [CONFIG NAME VALUE]] [ARGS ...]",
            "    Refused likewise.",
            "UNLOAD <name>",
            "    Unload a module.",
        ],
    )
}

fn list(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.out.array(0);
    Ok(())
}

fn load(_ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let path = String::from_utf8_lossy(&args[2]).into_owned();
    log::warn!("Module {path} failed to load: this server has no interface for modules");
    Err(CmdError::of("ERR Error loading the extension. Please check the server logs."))
}

fn unload(_ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let name = String::from_utf8_lossy(&args[2]).into_owned();
    log::warn!("Error unloading module {name}: no such module with that name");
    Err(CmdError::of("ERR Error unloading module: no such module with that name"))
}
