//! DEBUG: what tests and operators use to look inside and to break things on purpose.
//!
//! A subcommand is a row of a table; a room with subcommands of its own adds its table to `TABLES`.

use super::debug_values;
use super::prelude::*;
use super::{count_arg, int_arg};
use crate::admin::debug::REPLY_BUFFER_PEAK_RESET_MS;
use crate::keyspace::digest;
use crate::keyspace::object::{self, ValueLimits};
use crate::server::dispatch::call::ServerFn;
use crate::sys::{alloc, crash};
use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) const COMMANDS: &[ServerCommand] = &[command(Group::Server, "debug", debug)
    .arity(-2)
    .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE | flag::SYSCMD | flag::PROTECTED)
    .complexity("What the subcommand does.")
    .summary("Groups the commands about the inside of the server.")];

/// A subcommand of DEBUG.
pub(crate) struct DebugSub {
    /// Lower case.
    pub(crate) name: &'static str,
    /// Fewest and most arguments after the name.
    pub(crate) args: RangeInclusive<usize>,
    /// Gets the whole command: its own arguments begin at 2.
    pub(crate) run: ServerFn,
    /// Lines of DEBUG HELP: the form, then what it does, indented.
    pub(crate) help: &'static [&'static str],
}

pub(super) const fn debug_sub(
    name: &'static str,
    args: RangeInclusive<usize>,
    help: &'static [&'static str],
    run: ServerFn,
) -> DebugSub {
    DebugSub { name, args, run, help }
}

/// As many arguments as there are.
const MANY: usize = usize::MAX;

/// The subcommands of all rooms.
const TABLES: &[&[DebugSub]] = &[
    SUBCOMMANDS,
    super::debug_persist::SUBCOMMANDS,
    super::cluster_debug::SUBCOMMANDS,
    super::debug_slots::SUBCOMMANDS,
];

const SUBCOMMANDS: &[DebugSub] = &[
    debug_sub(
        "digest",
        0..=0,
        &["DIGEST", "    Show a digest of all data, which is the same for the same data."],
        |ctx, _| {
            let digest = ctx.srv.ks.digest();
            ctx.out.just_simple(&digest.to_string())
        },
    ),
    debug_sub(
        "digest-value",
        0..=usize::MAX,
        &["DIGEST-VALUE <key> [<key> ...]", "    Show a digest of the value of each key."],
        |ctx, args| {
            let keys = args.from(2);
            ctx.out.array(keys.len());
            for key in keys.iter() {
                // A key that has expired is looked into as well.
                let found = ctx.srv.ks.dbs[ctx.db].get(key).map(digest::value_digest);
                ctx.out.simple(&found.unwrap_or_default().to_string());
            }
            Ok(())
        },
    ),
    debug_sub(
        "config-rewrite-force-all",
        0..=0,
        &["CONFIG-REWRITE-FORCE-ALL", "    As CONFIG REWRITE, with a line for every directive."],
        |ctx, _| match ctx.srv.rewrite_whole_config() {
            Some(Ok(())) => ctx.out.just_ok(),
            Some(Err(e)) => {
                Err(CmdError::text(format!("ERR CONFIG-REWRITE-FORCE-ALL failed: {}", crate::sys::os_error(&e))))
            }
            None => Err(CmdError::of("ERR CONFIG-REWRITE-FORCE-ALL failed: No such file or directory")),
        },
    ),
    debug_sub(
        "quicklist-packed-threshold",
        1..=1,
        &[
            "QUICKLIST-PACKED-THRESHOLD <size>",
            "    Keep list elements from this size on in nodes of their own. 0 restores the default of 1gb.",
        ],
        |ctx, args| {
            let bytes = crate::config::parse_memory(&args[2]).and_then(|n| usize::try_from(n).ok());
            let Some(threshold) = bytes.and_then(object::packed_threshold) else {
                return Err(CmdError::of("ERR argument must be a memory value bigger than 1 and smaller than 4gb"));
            };
            ctx.srv.ks.packed_threshold = threshold;
            ctx.out.just_ok()
        },
    ),
    debug_sub("assert", 0..=0, &["ASSERT", "    Crash as a failed assertion does."], |_, args| {
        assert!(args.is_empty());
        Ok(())
    }),
    debug_sub(
        "change-repl-id",
        0..=0,
        &["CHANGE-REPL-ID", "    Take new replication ids: replicas have to start over."],
        change_repl_id,
    ),
    debug_sub(
        "client-enforce-reply-list",
        1..=1,
        &["CLIENT-ENFORCE-REPLY-LIST <0|1>", "    Put every reply into the list of reply chunks."],
        client_enforce_reply_list,
    ),
    debug_sub(
        "client-eviction",
        0..=0,
        &["CLIENT-EVICTION", "    Show clients and their memory by size class (maxmemory-clients)."],
        client_eviction,
    ),
    debug_sub(
        "crash-and-recover",
        0..=1,
        &["CRASH-AND-RECOVER [<milliseconds>]", "    Start again without saving anything, after a delay."],
        restart,
    ),
    debug_sub(
        "dict-resizing",
        1..=1,
        &["DICT-RESIZING <0|1>", "    Let tables be resized, or only when they must be."],
        dict_resizing,
    ),
    debug_sub("error", 1..=1, &["ERROR <string>", "    Reply with this error."], |_, args| {
        Err(CmdError::bytes(args[2].to_vec()))
    }),
    debug_sub("htstats", 1..=2, &["HTSTATS <dbid> [full]", "    Show the shape of a database's table."], htstats),
    debug_sub(
        "htstats-key",
        1..=2,
        &["HTSTATS-KEY <key> [full]", "    Show the shape of the table that is the value of a key."],
        htstats_key,
    ),
    debug_sub("leak", 1..=1, &["LEAK <string>", "    Lose the memory of the string for good."], leak),
    debug_sub(
        "listpack",
        1..=1,
        &["LISTPACK <key>", "    Print the elements of a listpack on the standard output."],
        listpack,
    ),
    debug_sub("log", 1..=1, &["LOG <message>", "    Write the message to the log."], log_line),
    debug_sub("mallctl", 1..=2, &["MALLCTL <key> [<val>]", "    Get or set an integer of the allocator."], mallctl),
    debug_sub(
        "mallctl-str",
        1..=2,
        &["MALLCTL-STR <key> [<val>]", "    Get or set a string of the allocator."],
        mallctl_str,
    ),
    debug_sub("object", 1..=2, &["OBJECT <key>", "    Show how the value of a key is stored."], object),
    debug_sub("oom", 0..=0, &["OOM", "    Crash as an allocation does that fails."], oom),
    debug_sub("panic", 0..=0, &["PANIC", "    Crash as a panic does."], |ctx, _| {
        panic!("DEBUG PANIC called at Unix time {}", ctx.srv.clock.us() / 1_000_000)
    }),
    debug_sub(
        "pause-cron",
        1..=1,
        &["PAUSE-CRON <0|1>", "    Stop the periodic work, or go on with it."],
        |ctx, args| {
            ctx.srv.admin.debug.pause_cron = switch(&args[2]);
            ctx.out.just_ok()
        },
    ),
    debug_sub(
        "plain-calls",
        1..=1,
        &[
            "PLAIN-CALLS <0|1>",
            "    Treat every command as one that something may stand against, or only where that is so.",
        ],
        |ctx, args| {
            ctx.srv.admin.debug.plain_calls = switch(&args[2]);
            ctx.out.just_ok()
        },
    ),
    debug_sub(
        "populate",
        1..=3,
        &[
            "POPULATE <count> [<prefix>] [<size>]",
            "    Add keys named <prefix>:<number> (default prefix: key) with values value:<number>, of <size> bytes if that",
            "    is given. They are not propagated.",
        ],
        populate,
    ),
    debug_sub(
        "protocol",
        1..=1,
        &[
            "PROTOCOL <type>",
            "    Reply with an example of a type: string, integer, double, bignum, null, array, set, map, attrib, push,",
            "    verbatim, true, false.",
        ],
        protocol,
    ),
    debug_sub(
        "quicklist",
        1..=2,
        &["QUICKLIST <key> [<0|1>]", "    Print the nodes of a quicklist on the standard output, or all of it."],
        quicklist,
    ),
    debug_sub(
        "replicate",
        1..=MANY,
        &["REPLICATE <command> [<arg> ...]", "    Send a command to replicas alone, so that they differ."],
        replicate,
    ),
    debug_sub(
        "replybuffer",
        2..=2,
        &[
            "REPLYBUFFER PEAK-RESET-TIME <NEVER|RESET|time>",
            "    How long the largest fill of a reply buffer counts, in milliseconds; for ever; or as by default.",
            "REPLYBUFFER RESIZING <0|1>",
            "    Let reply buffers follow what clients need.",
        ],
        reply_buffer,
    ),
    debug_sub(
        "restart",
        0..=1,
        &["RESTART [<milliseconds>]", "    Save configuration and data, and start again after a delay."],
        restart,
    ),
    debug_sub("sdslen", 1..=1, &["SDSLEN <key>", "    Show the lengths of a key and its string value."], sdslen),
    debug_sub("segfault", 0..=0, &["SEGFAULT", "    Crash with an invalid memory access."], |_, _| crash::segfault()),
    debug_sub(
        "set-active-expire",
        1..=1,
        &["SET-ACTIVE-EXPIRE <0|1>", "    Look for expired keys in the background, or only when they are asked for."],
        |ctx, args| {
            ctx.srv.admin.debug.active_expire = switch(&args[2]);
            ctx.out.just_ok()
        },
    ),
    debug_sub(
        "set-disable-deny-scripts",
        1..=1,
        &["SET-DISABLE-DENY-SCRIPTS <0|1>", "    Let scripts call what is not for scripts, or forbid it as usual."],
        |ctx, args| {
            ctx.srv.script.deny_disabled = switch(&args[2]);
            ctx.out.just_ok()
        },
    ),
    debug_sub(
        "sleep",
        1..=1,
        &["SLEEP <seconds>", "    Do nothing at all for a time; decimals are understood."],
        sleep,
    ),
    debug_sub(
        "stringmatch-len",
        2..=2,
        &["STRINGMATCH-LEN <length> <pattern>", "    Match a string of so many A against a pattern."],
        string_match_len,
    ),
    debug_sub(
        "stringmatch-test",
        0..=0,
        &["STRINGMATCH-TEST", "    Match many strings against patterns, both made up."],
        string_match_test,
    ),
    debug_sub("structsize", 0..=0, &["STRUCTSIZE", "    Show the sizes of structures."], struct_size),
];

fn debug(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let name = args[1].to_ascii_lowercase();
    let all = || TABLES.iter().flat_map(|t| t.iter());
    if name == b"help" && args.len() == 2 {
        let lines: Vec<&str> = all().flat_map(|s| s.help.iter().copied()).collect();
        return super::help(ctx.out, args, &lines);
    }
    match all().find(|s| s.name.as_bytes() == name && s.args.contains(&(args.len() - 2))) {
        Some(sub) => (sub.run)(ctx, args),
        None => Err(super::unknown_subcommand(args)),
    }
}

/// `0` or anything else, as a number.
fn switch(arg: &[u8]) -> bool {
    int_arg(arg).is_ok_and(|n| n != 0)
}

fn change_repl_id(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.srv.with_repl(|repl, _| repl.change_ids());
    ctx.out.just_ok()
}

fn client_enforce_reply_list(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    ctx.srv.admin.debug.enforce_reply_list = switch(&args[2]);
    ctx.out.just_ok()
}

fn client_eviction(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let text = ctx.srv.client_eviction_classes().ok_or(CmdError::of("ERR maxmemory-clients is disabled."))?;
    ctx.out.just_verbatim("txt", text.as_bytes())
}

fn dict_resizing(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let on = switch(&args[2]);
    ctx.srv.admin.debug.dict_resizing = on;
    ctx.srv.ks.dbs.iter_mut().for_each(|db| db.set_avoid_resize(!on));
    ctx.out.just_ok()
}

fn restart(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let delay_ms = args.get(2).map_or(Ok(0), int_arg)?.max(0);
    let gracefully = args[1].eq_ignore_ascii_case(b"restart");
    ctx.srv.restart(Duration::from_millis(delay_ms as u64), gracefully);
    if ctx.srv.exit.is_some() {
        return Ok(());
    }
    Err(CmdError::of("ERR failed to restart the server. Check server logs."))
}

fn htstats(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let db = int_arg(&args[2])?;
    let db = usize::try_from(db).ok().and_then(|db| ctx.srv.ks.dbs.get(db));
    let db = db.ok_or(CmdError::of("ERR Out of range database"))?;
    let text = format!("[Dictionary HT]\n{}{} of the keys have a time to live\n", db.stats(), db.expires_len());
    ctx.out.just_verbatim("txt", text.as_bytes())
}

fn htstats_key(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.srv.ks.dbs[ctx.db].get(&args[2]).ok_or(error::NO_SUCH_KEY)?;
    let text = debug_values::table_stats(entry)
        .ok_or(CmdError::of("ERR The value stored at the specified key is not represented using an hash table"))?;
    ctx.out.just_verbatim("txt", text.as_bytes())
}

fn leak(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    std::mem::forget(args[2].to_vec());
    ctx.out.just_ok()
}

/// Writes to the standard output, where somebody debugs this server.
fn print(text: &str) {
    use std::io::Write;
    // Nobody may be there to read it.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn listpack(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.srv.ks.dbs[ctx.db].get(&args[2]).ok_or(error::NO_SUCH_KEY)?;
    let list = debug_values::listpack_of(entry).ok_or(CmdError::of("ERR Not a listpack encoded object."))?;
    print(&debug_values::listpack_text(list));
    ctx.out.just_simple("Listpack structure printed on stdout")
}

fn quicklist(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    use crate::keyspace::{Object, list::List};
    let full = args.get(3).is_some_and(switch);
    let limits = ValueLimits::of(&ctx.srv.cfg, &ctx.srv.ks);
    let entry = ctx.srv.ks.dbs[ctx.db].get(&args[2]).ok_or(error::NO_SUCH_KEY)?;
    let Some(Object::List(List::Quick(list))) = entry.object() else {
        return Err(CmdError::of("ERR Not a quicklist encoded object."));
    };
    print(&debug_values::quicklist_text(list, &limits, full));
    ctx.out.just_simple("Quicklist structure printed on stdout")
}

fn log_line(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    log::warn!("DEBUG LOG: {}", String::from_utf8_lossy(&args[2]));
    ctx.out.just_ok()
}

fn mallctl(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let new = args.get(3).map(int_arg).transpose()?;
    match alloc::control_int(&args[2], new) {
        Some(value) => ctx.out.int(value),
        None => return Err(CmdError::of("ERR No such file or directory")),
    }
    Ok(())
}

fn mallctl_str(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.get(3).is_some_and(|new| new == b"VOID") && alloc::control_action(&args[2]) {
        return ctx.out.just_ok();
    }
    match alloc::control_text(&args[2], args.get(3)) {
        Some(value) => ctx.out.bulk(&value),
        None => return Err(CmdError::of("ERR No such file or directory")),
    }
    Ok(())
}

fn object(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    use crate::keyspace::object;
    let srv = &ctx.srv;
    let entry = srv.ks.dbs[ctx.db].get(&args[2]).ok_or(error::NO_SUCH_KEY)?;
    let access = &srv.ks.access;
    let text = format!(
        "Value at:{:p} refcount:1 encoding:{} serializedlength:{} lru:{} lru_seconds_idle:{}{}",
        entry.key().as_ptr(),
        object::encoding_name(entry),
        debug_values::serialized_len(entry),
        entry.lru(),
        if access.lfu { 0 } else { access.idle_seconds(entry.lru()) },
        debug_values::object_details(entry, &ValueLimits::of(&srv.cfg, &srv.ks)),
    );
    ctx.out.just_simple(&text)
}

fn oom(_ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let bytes = usize::MAX / 2;
    let mut memory: Vec<u8> = Vec::new();
    if memory.try_reserve_exact(bytes).is_err() {
        log::warn!("Out Of Memory allocating {bytes} bytes!");
        panic!("Redis aborting for OUT OF MEMORY. Allocating {bytes} bytes!");
    }
    Err(CmdError::of("ERR so much memory is there"))
}

fn populate(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let count = count_arg(&args[2])?;
    let prefix = args.get(3).unwrap_or(b"key");
    let size = args.get(4).map_or(Ok(0), count_arg)?;
    let db = ctx.db;
    let mut value = Vec::new();
    for i in 0..count {
        let mut key = prefix.to_vec();
        key.extend_from_slice(format!(":{i}").as_bytes());
        if ctx.srv.ks.exists(db, &key) {
            continue;
        }
        value.clear();
        value.extend_from_slice(format!("value:{i}").as_bytes());
        if size > 0 {
            value.resize(size, 0);
        }
        ctx.srv.ks.insert(db, &key, if size > 0 { NewValue::RawStr(&value) } else { NewValue::Str(&value) }, None);
        ctx.srv.ks.signal_modified(db, &key);
    }
    ctx.out.just_ok()
}

fn protocol(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let resp3 = ctx.out.resp3;
    let out = &mut *ctx.out;
    let three = |out: &mut crate::resp::Reply| (0..3).for_each(|i| out.int(i));
    match args[2].to_ascii_lowercase().as_slice() {
        b"string" => out.bulk(b"Hello World"),
        b"integer" => out.int(12345),
        b"double" => out.double_text("3.141"),
        b"bignum" => out.big_number("1234567999999999999999999999999999999"),
        b"null" => out.null(),
        b"array" => {
            out.array(3);
            three(out);
        }
        b"set" => {
            out.set(3);
            three(out);
        }
        b"map" => {
            out.map(3);
            for i in 0..3 {
                out.int(i);
                out.boolean(i == 1);
            }
        }
        b"attrib" => {
            if resp3 {
                out.raw(b"|1\r\n");
                out.bulk(b"key-popularity");
                out.array(2);
                out.bulk(b"key:123");
                out.int(90);
            }
            // An attribute is no reply, so that one follows.
            out.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if !resp3 {
                return Err(CmdError::of("ERR RESP2 is not supported by this command"));
            }
            out.push(2);
            out.bulk(b"server-cpu-usage");
            out.int(42);
            out.bulk(b"Some real reply following the push reply");
        }
        b"true" => out.boolean(true),
        b"false" => out.boolean(false),
        b"verbatim" => out.verbatim("txt", b"This is a verbatim\nstring"),
        _ => {
            return Err(CmdError::of(
                "ERR Wrong protocol type name. Please use one of the following: \
                 string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

fn replicate(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    use crate::keyspace::effects::target;
    ctx.srv.ks.effects.propagate(ctx.db, target::REPLICAS, args.from(2).iter());
    ctx.out.just_ok()
}

fn reply_buffer(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let debug = &mut ctx.srv.admin.debug;
    match (args[2].to_ascii_lowercase().as_slice(), args[3].to_ascii_lowercase().as_slice()) {
        (b"peak-reset-time", b"never") => debug.reply_buffer_peak_reset_ms = -1,
        (b"peak-reset-time", b"reset") => debug.reply_buffer_peak_reset_ms = REPLY_BUFFER_PEAK_RESET_MS,
        (b"peak-reset-time", time) => debug.reply_buffer_peak_reset_ms = int_arg(time)?,
        (b"resizing", on) => debug.reply_buffer_resizing = switch(on),
        _ => return Err(super::unknown_subcommand(args)),
    }
    ctx.out.just_ok()
}

fn sdslen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.srv.ks.dbs[ctx.db].get(&args[2]).ok_or(error::NO_SUCH_KEY)?;
    let ValueRef::Str { bytes, .. } = entry.value() else {
        return Err(CmdError::of("ERR Not an sds encoded string."));
    };
    // Key and value share one allocation.
    let (key_len, len, size) = (entry.key().len(), bytes.len(), entry.alloc_size());
    ctx.out.just_simple(&format!("key_sds_len:{key_len}, val_sds_len:{len}, zmalloc:{size}"))
}

fn sleep(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let seconds = crate::structs::numbers::parse_f64(&args[2]).unwrap_or(0.0);
    if let Ok(time) = Duration::try_from_secs_f64(seconds) {
        std::thread::sleep(time);
    }
    ctx.out.just_ok()
}

fn string_match_len(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let len = count_arg(&args[2])?.min(1 << 30);
    let matched = crate::structs::glob::matches(&args[3], &vec![b'A'; len]);
    ctx.out.just_int(matched as i64)
}

/// The patterns are mostly made of what means something in one. One that matches a text must match it with a `*` more, too.
fn string_match_test(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    const TRIES: usize = 200_000;
    let made_up =
        |of: &[u8]| -> Vec<u8> { (0..fastrand::usize(1..32)).map(|_| of[fastrand::usize(..of.len())]).collect() };
    for _ in 0..TRIES {
        let (mut pattern, text) = (made_up(b"*?[]^-\\abc\0\xff"), made_up(b"abc-]\\\0\xff"));
        let is_plain = !pattern.iter().any(|b| matches!(b, b'\\' | b'['));
        if crate::structs::glob::matches(&pattern, &text) && is_plain {
            pattern.push(b'*');
            if !crate::structs::glob::matches(&pattern, &text) {
                let (pattern, text) = (pattern.escape_ascii(), text.escape_ascii());
                return Err(CmdError::text(format!("ERR {pattern} does not match {text}")));
            }
        }
    }
    ctx.out.just_simple("Apparently Redis did not crash: test passed")
}

fn struct_size(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    use crate::keyspace::{Entry, Object};
    ctx.out.bulk_str(&format!(
        "bits:{} entry:{} object:{} client:{} command:{} ",
        usize::BITS,
        size_of::<Entry>(),
        size_of::<Object>(),
        size_of::<crate::server::clients::Client>(),
        size_of::<Command>(),
    ));
    Ok(())
}
