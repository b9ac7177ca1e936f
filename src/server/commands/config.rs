//! CONFIG: showing, changing and keeping the configuration.

use super::prelude::*;
use crate::config;
use crate::structs::glob;
use crate::sys::os_error;
use std::task::Poll;

pub(crate) const COMMANDS: &[ServerCommand] = &[Command::container(Group::Server, "config")
    .since("2.0.0")
    .complexity("What the subcommand does.")
    .summary("Groups the commands that show and change the configuration.")
    .subcommands(&[
        command(Group::Server, "config|get", get)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::string("parameter").multiple()])
            .since("2.0.0")
            .history(&["7.0.0"])
            .complexity("O(N) for N parameters given.")
            .summary("Shows the values of directives."),
        command(Group::Server, "config|help", help)
            .flags(flag::LOADING | flag::STALE)
            .since("5.0.0")
            .summary("Describes the subcommands."),
        command(Group::Server, "config|resetstat", resetstat)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("2.0.0")
            .summary("Sets statistics back to zero.")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        command(Group::Server, "config|rewrite", rewrite)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("2.8.0")
            .summary("Writes the values in use back into the configuration file.")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        command(Group::Server, "config|set", set)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::block("data").multiple().of(&[Arg::string("parameter"), Arg::string("value")])])
            .since("2.0.0")
            .history(&["7.0.0"])
            .complexity("O(N) for N parameters given.")
            .summary("Changes directives, all of them or none.")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
    ])];

fn get(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let patterns: Vec<&[u8]> = args.from(2).iter().collect();
    let found = config::get(&ctx.srv.cfg, &patterns, glob::matches_nocase);
    ctx.out.map(found.len());
    for (name, value) in found {
        ctx.out.bulk(&name);
        ctx.out.bulk(&value);
    }
    Ok(())
}

fn set(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let words: Vec<&[u8]> = args.from(2).iter().collect();
    if !words.len().is_multiple_of(2) {
        return Err(error::SYNTAX);
    }
    let pairs: Vec<(&[u8], &[u8])> = words.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    let may_wait = !ctx.deny_blocking();
    match ctx.srv.set_config(ctx.client, &pairs, may_wait) {
        Poll::Ready(done) => {
            done?;
            ctx.out.ok();
        }
        Poll::Pending => ctx.srv.postpone_this(ctx.client, args),
    }
    Ok(())
}

fn rewrite(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    match ctx.srv.rewrite_config() {
        None => Err(CmdError::of("ERR The server is running without a config file")),
        Some(Ok(())) => {
            log::info!("CONFIG REWRITE executed with success.");
            ctx.out.just_ok()
        }
        Some(Err(error)) => {
            let reason = os_error(&error);
            log::warn!("CONFIG REWRITE failed: {reason}");
            Err(CmdError::text(format!("ERR Rewriting config file: {reason}")))
        }
    }
}

fn resetstat(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.srv.reset_stats();
    ctx.out.just_ok()
}

fn help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    const LINES: &[&str] = &[
        "GET <pattern>",
        "    Return parameters matching the glob-like <pattern> and their values.",
        "SET <directive> <value>",
        "    Set the configuration <directive> to <value>.",
        "RESETSTAT",
        "    Reset statistics reported by the INFO command.",
        "REWRITE",
        "    Rewrite the configuration file.",
    ];
    super::help(ctx.out, args, LINES)
}
