//! Server commands that stand alone: INFO, TIME, SHUTDOWN, MONITOR, LOLWUT.

use super::int_arg;
use super::prelude::*;
use crate::admin::shutdown::ShutdownFlags;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::blocked::{BlockKind, BlockState};
use crate::sys::build::{HEXAD_VERSION, REDIS_VERSION};

pub(crate) const COMMANDS: &[ServerCommand] = &[
    command(Group::Server, "info", info)
        .flags(flag::LOADING | flag::STALE)
        .acl(cat::DANGEROUS)
        .args(&[Arg::string("section").optional().multiple()])
        .history(&["7.0.0"])
        .summary("Gives the server's figures and statistics by section.")
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
    command(Group::Server, "shutdown", shutdown)
        .flags(flag::ADMIN | flag::ALLOW_BUSY | flag::LOADING | flag::NO_MULTI | flag::NOSCRIPT | flag::STALE)
        .args(&[
            Arg::one_of("save-selector").optional().of(&[Arg::word("nosave", "NOSAVE"), Arg::word("save", "SAVE")]),
            Arg::word("now", "NOW").since("7.0.0").optional(),
            Arg::word("force", "FORCE").since("7.0.0").optional(),
            Arg::word("abort", "ABORT").since("7.0.0").optional(),
        ])
        .history(&["7.0.0"])
        .complexity("O(1), and O(N) for a snapshot of N keys.")
        .summary("Ends the server, after saving the data set if that is configured or asked for."),
    command(Group::Server, "time", time)
        .flags(flag::FAST | flag::LOADING | flag::STALE)
        .since("2.6.0")
        .summary("Gives the server's time.")
        .tips(&["nondeterministic_output"]),
    command(Group::Server, "lolwut", lolwut)
        .flags(flag::FAST | flag::READONLY)
        .args(&[Arg::integer("version").token("VERSION").optional()])
        .since("5.0.0")
        .complexity("")
        .summary("Draws a picture and gives the version."),
    command(Group::Server, "monitor", monitor)
        .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
        .complexity("")
        .summary("Shows every command the server runs to this connection as it runs."),
];

fn info(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let text = ctx.srv.info(args.from(1).iter().collect::<Vec<_>>().into_iter());
    ctx.out.just_verbatim("txt", text.as_bytes())
}

fn time(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    // Within a transaction or a script time stands still.
    if ctx.srv.depth == 1 {
        ctx.srv.clock.tick_us();
        ctx.srv.unit_us = ctx.srv.clock.us();
    }
    let us = ctx.srv.unit_us;
    ctx.out.array(2);
    ctx.out.bulk_int(us / 1_000_000);
    ctx.out.bulk_int(us % 1_000_000);
    Ok(())
}

fn shutdown(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut flags = ShutdownFlags::default();
    let mut abort = false;
    for arg in args.iter().skip(1) {
        match arg.to_ascii_lowercase().as_slice() {
            b"nosave" => flags.nosave = true,
            b"save" => flags.save = true,
            b"now" => flags.now = true,
            b"force" => flags.force = true,
            b"failover" => flags.failover = true,
            b"abort" => abort = true,
            _ => return Err(error::SYNTAX),
        }
    }
    if (abort && flags != ShutdownFlags::default()) || (flags.save && flags.nosave) {
        return Err(error::SYNTAX);
    }
    if flags.failover && ctx.srv.cluster().is_none() {
        return Err(CmdError::of("ERR SHUTDOWN FAILOVER is only supported in cluster mode."));
    }
    if abort {
        if !ctx.srv.abort_shutdown() {
            return Err(CmdError::of("ERR No shutdown in progress."));
        }
        return ctx.out.just_ok();
    }
    if !flags.now && ctx.c().is(ClientFlags::DENY_BLOCKING) {
        return Err(CmdError::of("ERR SHUTDOWN without NOW or ABORT isn't allowed for DENY BLOCKING client"));
    }
    if !flags.nosave
        && let Some(error) = ctx.srv.script_busy_error()
    {
        return Err(error);
    }
    // There is no reply to a shutdown that succeeds: the client waits for the connection to end.
    let state = BlockState { kind: BlockKind::Shutdown, deadline_ms: None, command: None };
    ctx.srv.block(ctx.client, state);
    ctx.srv.begin_shutdown(flags);
    Ok(())
}

fn monitor(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    if ctx.c().is(ClientFlags::DENY_BLOCKING) {
        return Err(CmdError::of("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if ctx.c().is(ClientFlags::REPLICA.union(ClientFlags::MONITOR)) {
        return Ok(());
    }
    ctx.c_mut().flags.add(ClientFlags::MONITOR);
    ctx.srv.clients.monitors.push(ctx.client);
    ctx.out.just_ok()
}

/// A picture of the ring of slots: six shards on a hexagon, their sizes at random.
fn lolwut(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut rest = args.from(1);
    if rest.len() >= 2 && rest[0].eq_ignore_ascii_case(b"version") {
        int_arg(&rest[1])?;
        rest = rest.from(2);
    }
    // As in Redis, what is no number is no mistake.
    let shown =
        |i: usize, default: i64| rest.get(i).and_then(|arg| int_arg(arg).ok()).map_or(default, |n| n.clamp(1, 100));
    let (rows, columns) = (shown(0, 6), shown(1, 12));
    let mut text = String::new();
    for row in 0..rows {
        let indent = if row % 2 == 0 { "" } else { "  " };
        let cells =
            |faces: &[&str]| -> String { (0..columns).map(|_| faces[fastrand::usize(..faces.len())]).collect() };
        text += &format!("{indent}{}\n", "/ \\ ".repeat(columns as usize).trim_end());
        text += &format!("{indent}{}\n", cells(&["| | ", "|.| ", "|o| ", "|*| "]).trim_end());
    }
    text += &format!("\nRedis ver. {REDIS_VERSION} (Hexad {HEXAD_VERSION})\n");
    ctx.out.just_verbatim("txt", text.as_bytes())
}
