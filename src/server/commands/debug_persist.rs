//! Subcommands of DEBUG about the data set and its files.

use super::debug::{DebugSub, debug_sub};
use super::int_arg;
use super::prelude::*;
use crate::catalog::error;
use crate::keyspace::effects::target;
use crate::server::dispatch::blocked::{BlockKind, BlockState};

pub(crate) const SUBCOMMANDS: &[DebugSub] = &[
    debug_sub(
        "aof-flush-sleep",
        1..=1,
        &["AOF-FLUSH-SLEEP <microsec>", "    Sleep before each write of the append-only log."],
        aof_flush_sleep,
    ),
    debug_sub(
        "aof-sync-sleep",
        1..=1,
        &[
            "AOF-SYNC-SLEEP <microsec>",
            "    Sleep before each sync of the append-only log with 'appendfsync always', as if the disk were slow.",
        ],
        aof_sync_sleep,
    ),
    debug_sub(
        "loadaof",
        0..=0,
        &["LOADAOF", "    Write the append-only log out, forget all data, and load it again from the log."],
        load_aof,
    ),
    debug_sub(
        "reload",
        0..=3,
        &[
            "RELOAD [option ...]",
            "    Save a snapshot, forget all data, and load it again from the snapshot. Options:",
            "    * MERGE: keys in the snapshot replace keys that are there.",
            "    * NOFLUSH: forget nothing before loading.",
            "    * NOSAVE: load the snapshot that is there.",
        ],
        reload,
    ),
    debug_sub(
        "set-skip-checksum-validation",
        1..=1,
        &["SET-SKIP-CHECKSUM-VALIDATION <0|1>", "    Check the checksums of snapshots and RESTORE payloads, or not."],
        skip_checksum,
    ),
];

fn aof_flush_sleep(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let us = int_arg(&args[2])?;
    ctx.srv.persist.aof_flush_sleep_us = us.max(0) as u64;
    ctx.out.just_ok()
}

fn aof_sync_sleep(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let us = int_arg(&args[2])?;
    ctx.srv.persist.aof.sync_sleep_us = us.max(0) as u64;
    ctx.out.just_ok()
}

fn load_aof(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    check_no_load(ctx)?;
    let begun = ctx.srv.begin_load_aof(ctx.client);
    stay_out_of_the_log(ctx);
    begun.map_err(CmdError::of)?;
    wait_for_load(ctx)
}

/// One load after the other. What a replica only gathers for one it gathers anew.
fn check_no_load(ctx: &mut Ctx<'_>) -> CmdResult {
    if ctx.srv.is_loading() {
        return Err(error::LOADING);
    }
    ctx.srv.drop_gathered();
    Ok(())
}

fn reload(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    check_no_load(ctx)?;
    let (mut save, mut flush, mut merge) = (true, true, false);
    for option in args.iter().skip(2) {
        match &*option.to_ascii_lowercase() {
            b"merge" => merge = true,
            b"noflush" => flush = false,
            b"nosave" => save = false,
            _ => {
                return Err(CmdError::of("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options."));
            }
        }
    }
    let begun = ctx.srv.begin_reload(ctx.client, (save, flush, merge));
    stay_out_of_the_log(ctx);
    begun.map_err(CmdError::of)?;
    wait_for_load(ctx)
}

/// Others are served while the client waits for what is being loaded, unless it is in the middle of a transaction.
fn wait_for_load(ctx: &mut Ctx<'_>) -> CmdResult {
    if !ctx.srv.is_loading() || ctx.deny_blocking() {
        ctx.srv.load_to_the_end().map_err(CmdError::of)?;
        return ctx.out.just_ok();
    }
    ctx.srv.block(ctx.client, BlockState { kind: BlockKind::Loading, deadline_ms: None, command: None });
    Ok(())
}

/// What was loaded counts as changes, but the command that had it loaded is nothing to run again.
fn stay_out_of_the_log(ctx: &mut Ctx<'_>) {
    ctx.srv.ks.effects.dirty = 0;
    ctx.srv.ks.effects.prevented |= target::ALL;
}

fn skip_checksum(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    ctx.srv.persist.skip_checksum = int_arg(&args[2])? != 0;
    ctx.out.just_ok()
}
