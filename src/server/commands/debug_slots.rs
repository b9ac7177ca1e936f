//! DEBUG: how slots move that are pulled, and replicas, is hindered on purpose.

use super::cluster::machine;
use super::debug::{DebugSub, debug_sub};
use super::int_arg;
use super::prelude::*;
use crate::cluster::slot_migration::FailPoint;
use crate::server::cluster::slot_migration::TrimMethod;

pub(super) const SUBCOMMANDS: &[DebugSub] = &[
    debug_sub(
        "asm-failpoint",
        2..=2,
        &[
            "ASM-FAILPOINT <import|migrate>-<main|rdb>-channel <state>",
            "    Have this link break where a job whose target pulls comes to this state; \"\" \"\" for none. With",
            "    migrate-main-channel, none refuses to begin, and handoff-prep is not come to.",
        ],
        fail_point,
    ),
    debug_sub(
        "asm-trim-method",
        1..=2,
        &[
            "ASM-TRIM-METHOD <default|none|active|bg> [<microseconds>]",
            "    How keys go in slots of other nodes: key by key for replicas, too; not at all; in slices, each node by",
            "    itself; at once. With a time between two keys; negative: none goes.",
        ],
        trim_method,
    ),
    debug_sub(
        "internal_secret",
        0..=0,
        &[
            "INTERNAL_SECRET",
            "    Show by which secret nodes of this server know each other's connections in the cluster.",
        ],
        |ctx, _| {
            let secret = super::cluster::view(ctx)?.secret().copied();
            match secret {
                Some(secret) => ctx.out.bulk(&secret),
                None => ctx.out.null(),
            }
            Ok(())
        },
    ),
    debug_sub(
        "repl-pause",
        1..=1,
        &[
            "REPL-PAUSE <clear|after-fork|on-streaming-repl-buf>",
            "    Have this process stop itself when it has forked for replicas, or when it begins to run what gathered while",
            "    slots that it pulls came.",
        ],
        repl_pause,
    ),
];

fn fail_point(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (channel, state) = (args.at(2), args.at(3));
    let point = match (channel, state) {
        (b"", b"") => None,
        _ => Some(FailPoint::parse(channel, state).ok_or(CmdError::of("ERR Invalid channel or state"))?),
    };
    machine(ctx, |m, _| m.slot_migration_debug().fail_point = point)?;
    ctx.out.just_ok()
}

fn trim_method(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let method = match &*args.at(2).to_ascii_lowercase() {
        b"default" => TrimMethod::ByKey,
        b"none" => TrimMethod::Never,
        b"active" => TrimMethod::BySlot,
        b"bg" => TrimMethod::AtOnce,
        _ => return Err(CmdError::of("ERR Invalid trim method")),
    };
    let delay_us = args.get(3).map_or(Ok(0), int_arg)?;
    super::cluster::view(ctx)?;
    ctx.srv.set_trim_method(method, delay_us);
    ctx.out.just_ok()
}

fn repl_pause(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let stops = &mut ctx.srv.admin.debug.stops;
    match &*args.at(2).to_ascii_lowercase() {
        b"clear" => *stops = Default::default(),
        b"after-fork" => stops.after_fork = true,
        b"on-streaming-repl-buf" => stops.at_gathered_stream = true,
        _ => return Err(super::unknown_subcommand(args)),
    }
    ctx.out.just_ok()
}
