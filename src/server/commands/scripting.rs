//! EVAL and its like, and SCRIPT. Running scripts is `script`'s.

use super::prelude::*;
use crate::script::Kind;
use crate::script::scripts::Script;
use crate::server::clients::ClientFlags;
use crate::server::script::{debugger, run};
use std::rc::Rc;

/// What commands that run Lua have in common: flags, keys after their count, and the arguments after the first.
pub(super) const CALL_FLAGS: u32 =
    flag::MAY_REPLICATE | flag::NO_MANDATORY_KEYS | flag::NOSCRIPT | flag::SKIP_MONITOR | flag::STALE;
pub(super) const CALL_RO_FLAGS: u32 =
    flag::NO_MANDATORY_KEYS | flag::NOSCRIPT | flag::READONLY | flag::SKIP_MONITOR | flag::STALE;
pub(super) const CALL_KEYS: &[KeySpec] =
    &[KEYS.notes("We cannot tell how the keys will be used so we assume the worst, RW and UPDATE")];
pub(super) const CALL_RO_KEYS: &[KeySpec] =
    &[RO_KEYS.notes("We cannot tell how the keys will be used so we assume the worst, RO and ACCESS")];
const KEYS: KeySpec = KeySpec::numbered(key::RW | key::ACCESS | key::UPDATE, 2);
const RO_KEYS: KeySpec = KeySpec::numbered(key::RO | key::ACCESS, 2);

pub(super) const fn call_args(first: &'static str) -> [Arg; 4] {
    [
        Arg::string(first),
        Arg::integer("numkeys"),
        Arg::key("key", 0).optional().multiple(),
        Arg::string("arg").optional().multiple(),
    ]
}

const EVAL_ARGS: &[Arg] = &call_args("script");
const EVALSHA_ARGS: &[Arg] = &call_args("sha1");

pub(crate) const COMMANDS: &[ServerCommand] = &[
    command(Group::Scripting, "eval", |ctx, args| run_body(ctx, args, false))
        .flags(CALL_FLAGS)
        .keys(CALL_KEYS)
        .args(EVAL_ARGS)
        .since("2.6.0")
        .complexity("Depends on the script.")
        .summary("Runs a script that comes with the command."),
    command(Group::Scripting, "eval_ro", |ctx, args| run_body(ctx, args, true))
        .flags(CALL_RO_FLAGS)
        .keys(CALL_RO_KEYS)
        .args(EVAL_ARGS)
        .since("7.0.0")
        .complexity("Depends on the script.")
        .summary("Runs a script that comes with the command and only reads."),
    command(Group::Scripting, "evalsha", |ctx, args| run_cached(ctx, args, false))
        .flags(CALL_FLAGS)
        .keys(&[KEYS])
        .args(EVALSHA_ARGS)
        .since("2.6.0")
        .complexity("Depends on the script.")
        .summary("Runs a cached script, named by its SHA1."),
    command(Group::Scripting, "evalsha_ro", |ctx, args| run_cached(ctx, args, true))
        .flags(CALL_RO_FLAGS)
        .keys(&[RO_KEYS])
        .args(EVALSHA_ARGS)
        .since("7.0.0")
        .complexity("Depends on the script.")
        .summary("Runs a cached script that only reads, named by its SHA1."),
    Command::container(Group::Scripting, "script")
        .since("2.6.0")
        .complexity("What the subcommand does.")
        .summary("A container for commands about scripts.")
        .subcommands(&[
            command(Group::Scripting, "script|debug", script_debug)
                .flags(flag::NOSCRIPT)
                .args(&[Arg::one_of("mode").of(&[
                    Arg::word("yes", "YES"),
                    Arg::word("sync", "SYNC"),
                    Arg::word("no", "NO"),
                ])])
                .since("3.2.0")
                .summary("Sets the debug mode of the scripts that follow."),
            command(Group::Scripting, "script|exists", script_exists)
                .flags(flag::NOSCRIPT)
                .args(&[Arg::string("sha1").multiple()])
                .since("2.6.0")
                .complexity("O(N) where N is the number of scripts asked for")
                .summary("Tells which scripts are cached.")
                .tips(&["request_policy:all_shards", "response_policy:agg_logical_and"]),
            command(Group::Scripting, "script|flush", script_flush)
                .flags(flag::NOSCRIPT)
                .args(&[Arg::one_of("flush-type")
                    .since("6.2.0")
                    .optional()
                    .of(&[Arg::word("async", "ASYNC"), Arg::word("sync", "SYNC")])])
                .since("2.6.0")
                .history(&["6.2.0"])
                .complexity("O(N) for N scripts.")
                .summary("Removes all scripts from the cache.")
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
            command(Group::Scripting, "script|help", script_help)
                .flags(flag::LOADING | flag::STALE)
                .since("5.0.0")
                .summary("Shows what the subcommands do."),
            command(Group::Scripting, "script|kill", script_kill)
                .flags(flag::ALLOW_BUSY | flag::NOSCRIPT)
                .since("2.6.0")
                .summary("Ends the script that is running.")
                .tips(&["request_policy:all_shards", "response_policy:one_succeeded"]),
            command(Group::Scripting, "script|load", script_load)
                .flags(flag::NOSCRIPT | flag::STALE)
                .args(&[Arg::string("script")])
                .since("2.6.0")
                .complexity("O(N) where N is the length of the script in bytes")
                .summary("Puts a script into the cache.")
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        ]),
];

const NO_SCRIPT: CmdError = CmdError::of("NOSCRIPT No matching script. Please use EVAL.");

fn run_body(ctx: &mut Ctx<'_>, args: Args<'_>, read_only: bool) -> CmdResult {
    show_first(ctx, args);
    if ctx.c().is(ClientFlags::SCRIPT_DEBUG) {
        return debugger::debug(ctx, args, |ctx| load_and_run(ctx, args, read_only));
    }
    load_and_run(ctx, args, read_only)
}

fn load_and_run(ctx: &mut Ctx<'_>, args: Args<'_>, read_only: bool) -> CmdResult {
    let key_count = key_count(args)?;
    let script = ctx.srv.script.load_script(args.at(1)).map_err(with_err)?;
    run_script(ctx, args, &script, key_count, read_only)
}

fn run_cached(ctx: &mut Ctx<'_>, args: Args<'_>, read_only: bool) -> CmdResult {
    show_first(ctx, args);
    if args[1].len() != 40 {
        return Err(NO_SCRIPT);
    }
    if ctx.c().is(ClientFlags::SCRIPT_DEBUG) {
        return Err(CmdError::of("ERR Please use EVAL instead of EVALSHA for debugging"));
    }
    let key_count = key_count(args)?;
    let script = ctx.srv.script.cache.by_sha(args.at(1)).cloned().ok_or(NO_SCRIPT)?;
    run_script(ctx, args, &script, key_count, read_only)
}

fn run_script(ctx: &mut Ctx<'_>, args: Args<'_>, script: &Rc<Script>, key_count: usize, read_only: bool) -> CmdResult {
    run::run(ctx, &script.to_run(read_only, args, key_count))
}

/// Monitors see the script before the commands it calls.
pub(super) fn show_first(ctx: &mut Ctx<'_>, args: Args<'_>) {
    let (id, row) = (ctx.client, ctx.cmd);
    ctx.srv.show_to_monitors(id, row, args);
}

/// The text of an error of the script room as that of a reply.
pub(super) fn with_err(text: Vec<u8>) -> CmdError {
    CmdError::bytes([b"ERR ", &text[..]].concat())
}

/// The number of keys, which stands before them.
fn key_count(args: Args<'_>) -> Result<usize, CmdError> {
    check_key_count(super::int_arg(args.at(2))?, args)
}

pub(super) fn check_key_count(count: i64, args: Args<'_>) -> Result<usize, CmdError> {
    if count > args.len() as i64 - 3 {
        return Err(CmdError::of("ERR Number of keys can't be greater than number of args"));
    }
    usize::try_from(count).map_err(|_| CmdError::of("ERR Number of keys can't be negative"))
}

fn script_load(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let script = ctx.srv.script.load_script(args.at(2)).map_err(with_err)?;
    ctx.out.just_bulk(&script.sha)
}

fn script_exists(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    ctx.out.array(args.len() - 2);
    for sha in args.iter().skip(2) {
        let is_there = ctx.srv.script.cache.by_sha(sha).is_some();
        ctx.out.int(is_there as i64);
    }
    Ok(())
}

fn script_flush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mode_is = |word: &[u8]| args.len() == 3 && args[2].eq_ignore_ascii_case(word);
    if args.len() != 2 && !mode_is(b"sync") && !mode_is(b"async") {
        return Err(CmdError::of("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    if ctx.srv.script.running.is_some() {
        // Only by way of DEBUG SET-DISABLE-DENY-SCRIPTS: the script would lose the interpreter it runs in.
        return Err(CmdError::of("ERR SCRIPT FLUSH is not possible while a script runs"));
    }
    ctx.srv.script.flush_scripts();
    ctx.out.just_ok()
}

fn script_debug(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if !ctx.out.buf.is_empty() || !ctx.c().out.is_empty() {
        return Err(CmdError::of("ERR SCRIPT DEBUG must be called outside a pipeline"));
    }
    let id = ctx.client;
    match args[2].to_ascii_lowercase().as_slice() {
        b"no" => ctx.srv.disable_debugging(id),
        b"yes" | b"sync" if !ctx.srv.bring_home(id) => {
            return Err(CmdError::of("ERR SCRIPT DEBUG is not possible while replies are on their way"));
        }
        b"yes" => ctx.srv.enable_debugging(id, false),
        b"sync" => ctx.srv.enable_debugging(id, true),
        _ => return Err(CmdError::of("ERR Use SCRIPT DEBUG YES/SYNC/NO")),
    }
    ctx.out.just_ok()
}

fn script_kill(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.srv.kill_script(Kind::Eval)?;
    ctx.out.just_ok()
}

fn script_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(
        ctx.out,
        args,
        &[
            "DEBUG (YES|SYNC|NO)",
            "    Set the debug mode for subsequent scripts executed.",
            "EXISTS <sha1> [<sha1> ...]",
            "    Return information about the existence of the scripts in the script cache.",
            "FLUSH [ASYNC|SYNC]",
            "    Flush the Lua scripts cache. Very dangerous on replicas.",
            "    When called without the optional mode argument, the behavior is determined by the",
            "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "    * ASYNC: Asynchronously flush the scripts cache.",
            "    * SYNC: Synchronously flush the scripts cache.",
            "KILL",
            "    Kill the currently executing Lua script.",
            "LOAD <script>",
            "    Load a script into the scripts cache without executing it.",
        ],
    )
}
