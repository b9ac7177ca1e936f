//! MODULE: extensions that are loaded at run time, of which this server takes none. What asks for the list gets an empty
//! one, and what wants to load one is told that it cannot be.

use super::prelude::*;

pub(crate) const COMMANDS: &[ServerCommand] = &[Command::container(Group::Server, "module")
    .since("4.0.0")
    .complexity("What the subcommand does.")
    .summary("Groups the commands about modules.")
    .subcommands(&[
        command(Group::Server, "module|help", help)
            .flags(flag::LOADING | flag::STALE)
            .since("5.0.0")
            .summary("Tells what the subcommands of MODULE are."),
        command(Group::Server, "module|list", list)
            .flags(flag::ADMIN | flag::NOSCRIPT)
            .since("4.0.0")
            .complexity("O(N) for N modules.")
            .summary("Lists the modules that are loaded.")
            .tips(&["nondeterministic_output_order"]),
        command(Group::Server, "module|load", load)
            .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::NOSCRIPT | flag::PROTECTED)
            .args(&[Arg::string("path"), Arg::string("arg").optional().multiple()])
            .since("4.0.0")
            .summary("Loads a module."),
        command(Group::Server, "module|loadex", load)
            .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::NOSCRIPT | flag::PROTECTED)
            .args(&[
                Arg::string("path"),
                Arg::block("configs")
                    .token("CONFIG")
                    .optional()
                    .multiple()
                    .multiple_token()
                    .of(&[Arg::string("name"), Arg::string("value")]),
                Arg::string("args").token("ARGS").optional().multiple(),
            ])
            .since("7.0.0")
            .summary("Loads a module with settings of its own."),
        command(Group::Server, "module|unload", unload)
            .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::NOSCRIPT | flag::PROTECTED)
            .args(&[Arg::string("name")])
            .since("4.0.0")
            .summary("Unloads a module."),
    ])];

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
    ctx.out.just_empty()
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
