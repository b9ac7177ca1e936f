//! FCALL and FUNCTION. Libraries and running their functions are `script`'s.

use super::persistence::takes_newer;
use super::prelude::*;
use super::scripting::{
    CALL_FLAGS, CALL_KEYS, CALL_RO_FLAGS, CALL_RO_KEYS, call_args, check_key_count, show_first, with_err,
};
use crate::persist::rdb::functions_from_newer;
use crate::script::library::RestorePolicy;
use crate::script::{Host, Kind, flags};
use crate::server::script::run;
use crate::structs::glob;
use crate::structs::numbers::parse_i64;

const FCALL_ARGS: &[Arg] = &call_args("function");

pub(crate) const COMMANDS: &[ServerCommand] = &[
    command(Group::Scripting, "fcall", |ctx, args| run_function(ctx, args, false))
        .flags(CALL_FLAGS)
        .keys(CALL_KEYS)
        .args(FCALL_ARGS)
        .since("7.0.0")
        .complexity("Depends on the function.")
        .summary("Runs a function."),
    command(Group::Scripting, "fcall_ro", |ctx, args| run_function(ctx, args, true))
        .flags(CALL_RO_FLAGS)
        .keys(CALL_RO_KEYS)
        .args(FCALL_ARGS)
        .since("7.0.0")
        .complexity("Depends on the function.")
        .summary("Runs a function that only reads."),
    Command::container(Group::Scripting, "function")
        .since("7.0.0")
        .complexity("What the subcommand does.")
        .summary("A container for commands about functions.")
        .subcommands(&[
            command(Group::Scripting, "function|delete", function_delete)
                .flags(flag::NOSCRIPT | flag::WRITE)
                .args(&[Arg::string("library-name")])
                .since("7.0.0")
                .summary("Deletes a library with its functions.")
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
            command(Group::Scripting, "function|dump", function_dump)
                .flags(flag::NOSCRIPT)
                .since("7.0.0")
                .complexity("O(N) for N functions.")
                .summary("Gives all libraries in serialized form."),
            command(Group::Scripting, "function|flush", function_flush)
                .flags(flag::NOSCRIPT | flag::WRITE)
                .args(&[Arg::one_of("flush-type")
                    .optional()
                    .of(&[Arg::word("async", "ASYNC"), Arg::word("sync", "SYNC")])])
                .since("7.0.0")
                .complexity("O(N) for N functions that go.")
                .summary("Deletes all libraries.")
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
            command(Group::Scripting, "function|help", function_help)
                .flags(flag::LOADING | flag::STALE)
                .since("7.0.0")
                .summary("Shows what the subcommands do."),
            command(Group::Scripting, "function|kill", function_kill)
                .flags(flag::ALLOW_BUSY | flag::NOSCRIPT)
                .since("7.0.0")
                .summary("Ends the function that is running.")
                .tips(&["request_policy:all_shards", "response_policy:one_succeeded"]),
            command(Group::Scripting, "function|list", function_list)
                .flags(flag::NOSCRIPT)
                .args(&[
                    Arg::string("library-name-pattern").token("LIBRARYNAME").optional(),
                    Arg::word("withcode", "WITHCODE").optional(),
                ])
                .since("7.0.0")
                .complexity("O(N) for N functions.")
                .summary("Lists the libraries and their functions.")
                .tips(&["nondeterministic_output_order"]),
            command(Group::Scripting, "function|load", function_load)
                .flags(flag::DENYOOM | flag::NOSCRIPT | flag::WRITE)
                .args(&[Arg::word("replace", "REPLACE").optional(), Arg::string("function-code")])
                .since("7.0.0")
                .complexity("O(1), besides compiling and running its program")
                .summary("Loads a library of functions.")
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
            command(Group::Scripting, "function|restore", function_restore)
                .flags(flag::DENYOOM | flag::NOSCRIPT | flag::WRITE)
                .args(&[
                    Arg::string("serialized-value"),
                    Arg::one_of("policy").optional().of(&[
                        Arg::word("flush", "FLUSH"),
                        Arg::word("append", "APPEND"),
                        Arg::word("replace", "REPLACE"),
                    ]),
                ])
                .since("7.0.0")
                .complexity("O(N) for N functions of the payload.")
                .summary("Restores libraries from their serialized form.")
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
            command(Group::Scripting, "function|stats", function_stats)
                .flags(flag::ALLOW_BUSY | flag::NOSCRIPT)
                .since("7.0.0")
                .summary("Tells which function is running, and how many there are.")
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
        ]),
];

fn run_function(ctx: &mut Ctx<'_>, args: Args<'_>, read_only: bool) -> CmdResult {
    show_first(ctx, args);
    let function = ctx.srv.script.libraries.function(args.at(1)).cloned();
    let function = function.ok_or(CmdError::of("ERR Function not found"))?;
    let count = parse_i64(args.at(2)).ok_or(CmdError::of("ERR Bad number of keys provided"))?;
    let key_count = check_key_count(count, args)?;
    run::run(ctx, &function.to_run(read_only, args, key_count))
}

fn function_load(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut replace = false;
    for option in args.between(2, args.len() - 1).iter() {
        if !option.eq_ignore_ascii_case(b"replace") {
            return Err(CmdError::bytes([b"ERR Unknown option given: ", option].concat()));
        }
        replace = true;
    }
    let limited = !ctx.must_obey();
    let name = ctx.srv.script.load_library(args.at(args.len() - 1), replace, limited).map_err(with_err)?;
    ctx.dirty(1);
    ctx.out.just_bulk(&name)
}

fn function_delete(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if !ctx.srv.script.libraries.delete(args.at(2)) {
        return Err(CmdError::of("ERR Library not found"));
    }
    ctx.dirty(1);
    ctx.out.just_ok()
}

fn function_flush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() > 3 {
        return Err(super::unknown_subcommand(args));
    }
    let mode_is = |word: &[u8]| args.get(2).is_some_and(|m| m.eq_ignore_ascii_case(word));
    if args.len() == 3 && !mode_is(b"sync") && !mode_is(b"async") {
        return Err(CmdError::of("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }
    ctx.srv.script.libraries.clear();
    ctx.dirty(1);
    ctx.out.just_ok()
}

fn function_dump(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let payload = ctx.srv.script.libraries.dump(ctx.srv.cfg.rdbcompression);
    ctx.out.just_bulk(&payload)
}

fn function_restore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() > 4 {
        return Err(super::unknown_subcommand(args));
    }
    let policy = match args.get(3).map(<[u8]>::to_ascii_lowercase).as_deref() {
        None | Some(b"append") => RestorePolicy::Append,
        Some(b"replace") => RestorePolicy::Replace,
        Some(b"flush") => RestorePolicy::Flush,
        Some(_) => {
            return Err(CmdError::of(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    let skip_checksum = ctx.srv.persist.skip_checksum;
    if takes_newer(ctx, args.at(2)) {
        // The source of slots, or our master, may be of a newer version; replicas and the log have it as this version writes it.
        let own = functions_from_newer(args.at(2)).map_err(|e| CmdError::text(format!("ERR {e}")))?;
        ctx.srv.script.restore_libraries(&own, policy, skip_checksum).map_err(with_err)?;
        let mut words: Vec<&[u8]> = args.iter().collect();
        words[2] = &own;
        ctx.srv.ks.effects.replace_with(&words);
    } else {
        ctx.srv.script.restore_libraries(args.at(2), policy, skip_checksum).map_err(with_err)?;
    }
    ctx.dirty(1);
    ctx.out.just_ok()
}

fn function_list(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (mut with_code, mut pattern) = (false, None);
    let mut rest = args.iter().skip(2);
    while let Some(option) = rest.next() {
        if !with_code && option.eq_ignore_ascii_case(b"withcode") {
            with_code = true;
        } else if pattern.is_none() && option.eq_ignore_ascii_case(b"libraryname") {
            pattern = Some(rest.next().ok_or(CmdError::of("ERR library name argument was not given"))?);
        } else {
            return Err(CmdError::bytes([b"ERR Unknown argument ", option].concat()));
        }
    }
    let is_wanted = |name: &[u8]| pattern.is_none_or(|p| glob::matches_nocase(p, name));
    let (srv, out) = (&*ctx.srv, &mut *ctx.out);
    let libraries: Vec<_> = srv.script.libraries.iter().filter(|l| is_wanted(&l.name)).collect();
    out.array(libraries.len());
    for library in libraries {
        out.map(if with_code { 4 } else { 3 });
        out.bulk_str("library_name");
        out.bulk(&library.name);
        out.bulk_str("engine");
        out.bulk_str("LUA");
        out.bulk_str("functions");
        out.array(library.functions.len());
        for function in &library.functions {
            out.map(3);
            out.bulk_str("name");
            out.bulk(&function.name);
            out.bulk_str("description");
            match &function.description {
                Some(text) => out.bulk(text),
                None => out.null(),
            }
            out.bulk_str("flags");
            let names = flags::NAMES.iter().filter(|(flag, _)| function.flags & flag != 0);
            out.set(names.clone().count());
            names.for_each(|(_, name)| out.simple(name));
        }
        if with_code {
            out.bulk_str("library_code");
            out.bulk(&library.code);
        }
    }
    Ok(())
}

fn function_stats(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let (srv, out) = (&*ctx.srv, &mut *ctx.out);
    let running = srv.script.running.as_ref();
    if running.is_some_and(|r| r.kind == Kind::Eval)
        && let Some(error) = srv.script_busy_error()
    {
        return Err(error);
    }
    out.map(2);
    out.bulk_str("running_script");
    match running {
        None => out.null(),
        Some(running) => {
            let command = running.command.as_args();
            out.map(3);
            out.bulk_str("name");
            out.bulk(&running.name);
            out.bulk_str("command");
            out.array(command.len());
            command.iter().for_each(|arg| out.bulk(arg));
            out.bulk_str("duration_ms");
            out.int(srv.script_duration_ms());
        }
    }
    out.bulk_str("engines");
    out.map(1);
    out.bulk_str("LUA");
    out.map(2);
    out.bulk_str("libraries_count");
    out.int(srv.script.libraries.iter().len() as i64);
    out.bulk_str("functions_count");
    out.just_int(srv.script.libraries.function_count() as i64)
}

fn function_kill(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.srv.kill_script(Kind::Function)?;
    ctx.out.just_ok()
}

fn function_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(
        ctx.out,
        args,
        &[
            "LOAD [REPLACE] <FUNCTION CODE>",
            "    Create a new library with the given library name and code.",
            "DELETE <LIBRARY NAME>",
            "    Delete the given library.",
            "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
            "    Return general information on all the libraries:",
            "    * Library name",
            "    * The engine used to run the Library",
            "    * Library description",
            "    * Functions list",
            "    * Library code (if WITHCODE is given)",
            "    It also possible to get only function that matches a pattern using LIBRARYNAME argument.",
            "STATS",
            "    Return information about the current function running:",
            "    * Function name",
            "    * Command used to run the function",
            "    * Duration in MS that the function is running",
            "    If no function is running, return nil",
            "    In addition, returns a list of available engines.",
            "KILL",
            "    Kill the current running function.",
            "FLUSH [ASYNC|SYNC]",
            "    Delete all the libraries.",
            "    When called without the optional mode argument, the behavior is determined by the",
            "    lazyfree-lazy-user-flush configuration directive. Valid modes are:",
            "    * ASYNC: Asynchronously flush the libraries.",
            "    * SYNC: Synchronously flush the libraries.",
            "DUMP",
            "    Return a serialized payload representing the current libraries, can be restored using FUNCTION RESTORE command",
            "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
            "    Restore the libraries represented by the given payload, it is possible to give a restore policy to",
            "    control how to handle existing libraries (default APPEND):",
            "    * FLUSH: delete all existing libraries.",
            "    * APPEND: appends the restored libraries to the existing libraries. On collision, abort.",
            "    * REPLACE: appends the restored libraries to the existing libraries, On collision, replace the old",
            "      libraries with the new libraries (notice that even on this option there is a chance of failure",
            "      in case of functions name collision with another library).",
        ],
    )
}
