//! Looking into values: OBJECT, and the parts of MEMORY and DEBUG that are about them.

use super::debug::DebugSub;
use super::int_arg;
use super::prelude::*;
use crate::keyspace::{EntryMut, Touch, digest, object};

pub const COMMANDS: &[Command] = &[Command {
    name: "object",
    arity: -2,
    group: Group::Generic,
    since: "2.2.3",
    complexity: "Depends on subcommand.",
    summary: "A container for the commands that look into a value.",
    subcommands: &[
        Command {
            name: "object|encoding",
            run: Some(object_encoding),
            arity: 3,
            flags: flag::READONLY,
            acl: cat::KEYSPACE,
            keys: &[KeySpec::range(key::RO, 2, 0, 1)],
            group: Group::Generic,
            since: "2.2.3",
            complexity: "O(1)",
            summary: "Tells how a value is stored.",
            tips: &["nondeterministic_output"],
            args: &[arg("key", ArgKind::Key).spec(0)],
            ..Command::ROW
        },
        Command {
            name: "object|freq",
            run: Some(object_freq),
            arity: 3,
            flags: flag::READONLY,
            acl: cat::KEYSPACE,
            keys: &[KeySpec::range(key::RO, 2, 0, 1)],
            group: Group::Generic,
            since: "4.0.0",
            complexity: "O(1)",
            summary: "Tells how often a key was used of late, on a logarithmic scale.",
            tips: &["nondeterministic_output"],
            args: &[arg("key", ArgKind::Key).spec(0)],
            ..Command::ROW
        },
        Command {
            name: "object|help",
            run: Some(object_help),
            arity: 2,
            flags: flag::LOADING | flag::STALE,
            acl: cat::KEYSPACE,
            group: Group::Generic,
            since: "6.2.0",
            complexity: "O(1)",
            summary: "Lists the subcommands.",
            ..Command::ROW
        },
        Command {
            name: "object|idletime",
            run: Some(object_idletime),
            arity: 3,
            flags: flag::READONLY,
            acl: cat::KEYSPACE,
            keys: &[KeySpec::range(key::RO, 2, 0, 1)],
            group: Group::Generic,
            since: "2.2.3",
            complexity: "O(1)",
            summary: "Tells for how many seconds a key was not used.",
            tips: &["nondeterministic_output"],
            args: &[arg("key", ArgKind::Key).spec(0)],
            ..Command::ROW
        },
        Command {
            name: "object|refcount",
            run: Some(object_refcount),
            arity: 3,
            flags: flag::READONLY,
            acl: cat::KEYSPACE,
            keys: &[KeySpec::range(key::RO, 2, 0, 1)],
            group: Group::Generic,
            since: "2.2.3",
            complexity: "O(1)",
            summary: "Tells how many references a value has.",
            tips: &["nondeterministic_output"],
            args: &[arg("key", ArgKind::Key).spec(0)],
            ..Command::ROW
        },
    ],
    ..Command::ROW
}];

/// MEMORY USAGE, a part of the MEMORY container.
pub const MEMORY_USAGE: Command = Command {
    name: "memory|usage",
    run: Some(memory_usage),
    arity: -3,
    flags: flag::READONLY,
    keys: &[KeySpec::range(key::RO, 2, 0, 1)],
    group: Group::Server,
    since: "4.0.0",
    complexity: "O(N) where N is the number of elements looked at.",
    summary: "Estimates the memory that a key takes, in bytes.",
    args: &[arg("key", ArgKind::Key).spec(0), arg("count", ArgKind::Integer).token("SAMPLES").optional()],
    ..Command::ROW
};

/// The value that an OBJECT subcommand is about; without one it has already replied with null.
fn looked_at<'a>(ctx: &'a mut Ctx<'_>, key: &[u8]) -> Option<EntryMut<'a>> {
    let entry = ctx.srv.ks.lookup(ctx.db, key, Touch::Inspect);
    if entry.is_none() {
        ctx.out.null();
    }
    entry
}

fn object_encoding(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if let Some(name) = looked_at(ctx, &args[2]).map(|e| object::encoding_name(&e)) {
        ctx.out.bulk_str(name);
    }
    Ok(())
}

fn object_refcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    // Values lie in their keys' entries, so each has the one reference.
    if looked_at(ctx, &args[2]).is_some() {
        ctx.out.int(1);
    }
    Ok(())
}

fn object_idletime(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(field) = looked_at(ctx, &args[2]).map(|e| e.lru()) else { return Ok(()) };
    if ctx.srv.cfg.maxmemory_policy.is_lfu() {
        return Err(CmdError::of(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
             policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    ctx.out.int(ctx.srv.ks.access.idle_seconds(field) as i64);
    Ok(())
}

fn object_freq(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(field) = looked_at(ctx, &args[2]).map(|e| e.lru()) else { return Ok(()) };
    if !ctx.srv.cfg.maxmemory_policy.is_lfu() {
        return Err(CmdError::of(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
             between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    ctx.out.int(ctx.srv.ks.access.lfu_counter(field) as i64);
    Ok(())
}

fn object_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(
        ctx,
        args,
        &[
            "ENCODING <key>",
            "    Return the kind of internal representation used in order to store the value",
            "    associated with a <key>.",
            "FREQ <key>",
            "    Return the access frequency index of the <key>. The returned integer is",
            "    proportional to the logarithm of the recent access frequency of the key.",
            "IDLETIME <key>",
            "    Return the idle time of the <key>, that is the approximated number of",
            "    seconds elapsed since the last access to the key.",
            "REFCOUNT <key>",
            "    Return the number of references of the value associated with the specified",
            "    <key>.",
        ],
    )
}

fn memory_usage(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut samples = 5;
    let mut i = 3;
    while i < args.len() {
        if !args[i].eq_ignore_ascii_case(b"SAMPLES") || i + 1 >= args.len() {
            return Err(error::SYNTAX);
        }
        samples = int_arg(&args[i + 1])?;
        if samples < 0 {
            return Err(error::SYNTAX);
        }
        i += 2;
    }
    let samples = if samples == 0 { usize::MAX } else { samples as usize };
    match ctx.srv.ks.dbs[ctx.db].get(&args[2]) {
        Some(entry) => {
            // A place in a table that is three quarters full comes on top.
            let bytes = entry.alloc_size() + object::value_bytes_sampled(entry, samples) + 12;
            ctx.out.int(bytes as i64);
        }
        None => ctx.out.null(),
    }
    Ok(())
}

/// Subcommands of DEBUG about the data.
pub const DEBUG_SUBCOMMANDS: &[DebugSub] = &[
    DebugSub {
        name: "digest",
        args: 0..=0,
        run: |ctx, _| {
            let digest = ctx.srv.ks.digest();
            ctx.out.simple(&digest.to_string());
            Ok(())
        },
        help: &["DIGEST", "    Show a digest of all data, which is the same for the same data."],
    },
    DebugSub {
        name: "digest-value",
        args: 0..=usize::MAX,
        run: |ctx, args| {
            let keys = args.from(2);
            ctx.out.array(keys.len());
            for key in keys.iter() {
                // A key that has expired is looked into as well.
                let found = ctx.srv.ks.dbs[ctx.db].get(key).map(digest::value_digest);
                ctx.out.simple(&found.unwrap_or_default().to_string());
            }
            Ok(())
        },
        help: &["DIGEST-VALUE <key> [<key> ...]", "    Show a digest of the value of each key."],
    },
];
