//! String commands, but for bit operations and LCS.

use super::expire::at_is_past;
use super::int_arg;
use super::prelude::*;
use crate::catalog::row::KeyPos;
use crate::keyspace::{Entry, Object, Ttl};
use crate::resp::Reply;
use crate::structs::long_double::LongDouble;
use crate::structs::numbers::{i64_text, parse_i64};

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::String, "append", append)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("value")])
        .since("2.0.0")
        .complexity("O(1) amortized: the string grows by doubling. Copying the added bytes is O(N).")
        .summary("Adds bytes at the end of a string, which is created when it is not there."),
    command(Group::String, "decr", |ctx, args| add(ctx, &args[1], -1))
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .summary("Takes one off an integer; a missing key counts from 0."),
    command(Group::String, "decrby", decrby)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("decrement")])
        .summary("Takes a number off an integer; a missing key counts from 0."),
    command(Group::String, "get", get)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .summary("Gives the string at a key."),
    command(Group::String, "getdel", getdel)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("6.2.0")
        .summary("Gives the string at a key and deletes the key."),
    command(Group::String, "getex", getex)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)
            .notes("RW and UPDATE because it changes the TTL")])
        .args(&[
            Arg::key("key", 0),
            Arg::one_of("expiration").optional().of(&[
                Arg::integer("seconds").token("EX"),
                Arg::integer("milliseconds").token("PX"),
                Arg::unix_time("unix-time-seconds").token("EXAT"),
                Arg::unix_time("unix-time-milliseconds").token("PXAT"),
                Arg::word("persist", "PERSIST"),
            ]),
        ])
        .since("6.2.0")
        .summary("Gives the string at a key and changes its time to live."),
    command(Group::String, "getrange", getrange)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("start"), Arg::integer("end")])
        .since("2.4.0")
        .complexity("O(N) where N is the length of the part.")
        .summary("Gives a part of a string."),
    command(Group::String, "getset", getset)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("value")])
        .deprecated("6.2.0", "`SET` with the `!GET` argument")
        .summary("Stores a string and gives the one it replaces."),
    command(Group::String, "incr", |ctx, args| add(ctx, &args[1], 1))
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .summary("Adds one to an integer; a missing key counts from 0."),
    command(Group::String, "incrby", |ctx, args| add(ctx, &args[1], int_arg(&args[2])?))
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("increment")])
        .summary("Adds a number to an integer; a missing key counts from 0."),
    command(Group::String, "incrbyfloat", incrbyfloat)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::double("increment")])
        .since("2.6.0")
        .summary("Adds a floating point number to a number; a missing key counts from 0."),
    command(Group::String, "lcs", super::lcs::lcs)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 1, 1)])
        .args(&[
            Arg::key("key1", 0),
            Arg::key("key2", 0),
            Arg::word("len", "LEN").optional(),
            Arg::word("idx", "IDX").optional(),
            Arg::integer("min-match-len").token("MINMATCHLEN").optional(),
            Arg::word("withmatchlen", "WITHMATCHLEN").optional(),
        ])
        .since("7.0.0")
        .complexity("O(N*M) where N and M are the strings' lengths.")
        .summary("Finds the longest common subsequence of two strings."),
    command(Group::String, "mget", mget)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, -1, 1)])
        .args(&[Arg::key("key", 0).multiple()])
        .complexity("O(N) where N is the number of keys.")
        .summary("Gives the strings at several keys.")
        .tips(&["request_policy:multi_shard"]),
    command(Group::String, "mset", mset)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 1, -1, 2)])
        .args(&[Arg::block("data").multiple().of(&[Arg::key("key", 0), Arg::string("value")])])
        .since("1.0.1")
        .complexity("O(N) where N is the number of keys.")
        .summary("Stores several strings at once.")
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"]),
    command(Group::String, "msetnx", msetnx)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::INSERT, 1, -1, 2)])
        .args(&[Arg::block("data").multiple().of(&[Arg::key("key", 0), Arg::string("value")])])
        .since("1.0.1")
        .complexity("O(N) where N is the number of keys.")
        .summary("Stores several strings at once, provided that none of the keys is there."),
    command(Group::String, "psetex", |ctx, args| set_for(ctx, args, TimeForm::PX))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("milliseconds"), Arg::string("value")])
        .since("2.6.0")
        .deprecated("2.6.12", "`SET` with the `PX` argument")
        .summary("Stores a string with a time to live in milliseconds."),
    command(Group::String, "set", set)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE | key::VARIABLE_FLAGS, 1, 0, 1)
            .notes("RW and ACCESS due to the optional `GET` argument")])
        .get_keys(set_keys)
        .args(&[
            Arg::key("key", 0),
            Arg::string("value"),
            Arg::one_of("condition").since("2.6.12").optional().of(&[Arg::word("nx", "NX"), Arg::word("xx", "XX")]),
            Arg::word("get", "GET").since("6.2.0").optional(),
            Arg::one_of("expiration").optional().of(&[
                Arg::integer("seconds").token("EX").since("2.6.12"),
                Arg::integer("milliseconds").token("PX").since("2.6.12"),
                Arg::unix_time("unix-time-seconds").token("EXAT").since("6.2.0"),
                Arg::unix_time("unix-time-milliseconds").token("PXAT").since("6.2.0"),
                Arg::word("keepttl", "KEEPTTL").since("6.0.0"),
            ]),
        ])
        .history(&["2.6.12", "6.0.0", "6.2.0", "7.0.0"])
        .summary("Stores a string, whatever the key held before, with conditions and a time to live when asked for."),
    command(Group::String, "setex", |ctx, args| set_for(ctx, args, TimeForm::EX))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("seconds"), Arg::string("value")])
        .since("2.0.0")
        .deprecated("2.6.12", "`SET` with the `EX` argument")
        .summary("Stores a string with a time to live in seconds."),
    command(Group::String, "setnx", setnx)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::INSERT, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("value")])
        .deprecated("2.6.12", "`SET` with the `NX` argument")
        .summary("Stores a string when the key is not there."),
    command(Group::String, "setrange", setrange)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("offset"), Arg::string("value")])
        .since("2.2.0")
        .complexity("O(M) where M is the length of what is written; growing the string may copy all of it.")
        .summary("Writes over a part of a string from an offset on, which is grown with zeros as far as needed."),
    command(Group::String, "strlen", strlen)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("2.2.0")
        .summary("Gives the length of a string in bytes."),
    command(Group::String, "substr", getrange)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("start"), Arg::integer("end")])
        .deprecated("2.0.0", "`GETRANGE`")
        .complexity("O(N) where N is the length of the part.")
        .summary("Gives a part of a string."),
];

/// A value as SET stores it: an integer where the text is exactly that of one.
fn value_of(text: &[u8]) -> NewValue<'_, Object> {
    match parse_i64(text) {
        Some(n) => NewValue::Int(n),
        None => NewValue::Str(text),
    }
}

/// The bytes of a string value.
fn string_of<'a>(entry: &'a Entry, int: &'a mut IntBuf) -> Result<&'a [u8], CmdError> {
    entry.value_bytes(int).ok_or(error::WRONG_TYPE)
}

/// Refuses a string that would become longer than `proto-max-bulk-len`. Does not apply to commands that must be obeyed.
pub(crate) fn check_string_len(ctx: &Ctx<'_>, len: usize, added: usize) -> CmdResult {
    let fits = len.checked_add(added).is_some_and(|total| total as u64 <= ctx.cfg.proto_max_bulk_len);
    if fits || ctx.session.must_obey() {
        return Ok(());
    }
    Err(CmdError::of("ERR string exceeds maximum allowed size (proto-max-bulk-len)"))
}

/// Replies with the string at a key, or null. Returns whether the key is there.
#[inline(always)]
fn reply_value(ctx: &mut Ctx<'_>, key: &[u8]) -> Result<bool, CmdError> {
    let Some(entry) = ctx.ks.read(ctx.db, key) else {
        ctx.out.null();
        return Ok(false);
    };
    match entry.value() {
        ValueRef::Int(n) => ctx.out.bulk_int(n),
        ValueRef::Str { bytes, .. } => reply_string(ctx.out, entry, bytes),
        ValueRef::Object(_) => return Err(error::WRONG_TYPE),
    }
    Ok(true)
}

/// Replies with the string of an entry, `bytes`.
fn reply_string(out: &mut Reply, entry: &Entry, bytes: &[u8]) {
    if out.borrows(bytes.len())
        && let Some(lent) = entry.lend()
    {
        return out.bulk_lent(lent);
    }
    out.bulk(bytes);
}

fn get(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    reply_value(ctx, &args[1]).map(drop)
}

fn mget(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    ctx.out.array(args.len() - 1);
    for key in args.from(1).iter() {
        let Some(entry) = ctx.ks.read(ctx.db, key) else {
            ctx.out.null();
            continue;
        };
        match entry.value() {
            ValueRef::Int(n) => ctx.out.bulk_int(n),
            ValueRef::Str { bytes, .. } => reply_string(ctx.out, entry, bytes),
            ValueRef::Object(_) => ctx.out.null(),
        }
    }
    Ok(())
}

fn strlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(entry) = ctx.ks.read(ctx.db, &args[1]) else { return ctx.out.just_int(0) };
    let len = string_of(entry, &mut IntBuf::new())?.len();
    ctx.out.just_int(len as i64)
}

fn getrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (start, end) = (int_arg(&args[2])?, int_arg(&args[3])?);
    let Some(entry) = ctx.ks.read(ctx.db, &args[1]) else { return ctx.out.just_bulk(b"") };
    let mut int = IntBuf::new();
    let text = string_of(entry, &mut int)?;
    let range = range_of(text.len(), start, end).unwrap_or(0..0);
    match entry.lend().filter(|_| ctx.out.borrows(range.len())) {
        Some(lent) => ctx.out.bulk_lent(lent.part(range)),
        None => ctx.out.bulk(&text[range]),
    }
    Ok(())
}

/// The bytes from `start` to `end`, both included and counted from the end when negative; `None` when the range is
/// empty.
fn range_of(len: usize, start: i64, end: i64) -> Option<std::ops::Range<usize>> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let len = len as i64;
    let from_end = |i: i64| if i < 0 { (i + len).max(0) } else { i };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    (start <= end).then(|| start as usize..end as usize + 1)
}

/// Conditions and extras of SET and GETEX, from their options.
#[derive(Clone, Copy, Default)]
struct Options<'a> {
    nx: bool,
    xx: bool,
    get: bool,
    keep_ttl: bool,
    persist: bool,
    expire: Option<(&'a [u8], TimeForm)>,
}

/// The form of a time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TimeForm {
    seconds: bool,
    absolute: bool,
}

impl TimeForm {
    const EX: TimeForm = TimeForm { seconds: true, absolute: false };
    const PX: TimeForm = TimeForm { seconds: false, absolute: false };
    const EXAT: TimeForm = TimeForm { seconds: true, absolute: true };
    const PXAT: TimeForm = TimeForm { seconds: false, absolute: true };

    fn of_option(option: &[u8]) -> Option<TimeForm> {
        [(&b"EX"[..], Self::EX), (b"PX", Self::PX), (b"EXAT", Self::EXAT), (b"PXAT", Self::PXAT)]
            .into_iter()
            .find(|(name, _)| option.eq_ignore_ascii_case(name))
            .map(|(_, form)| form)
    }
}

impl<'a> Options<'a> {
    /// Reads the options from argument `from` on; `for_set`: those of SET, otherwise of GETEX.
    fn parse(args: Args<'a>, from: usize, for_set: bool) -> Result<Options<'a>, CmdError> {
        let mut o = Options::default();
        let mut i = from;
        while i < args.len() {
            let option = args.at(i);
            let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
            if for_set && is(b"NX") && !o.xx {
                o.nx = true;
            } else if for_set && is(b"XX") && !o.nx {
                o.xx = true;
            } else if for_set && is(b"GET") {
                o.get = true;
            } else if for_set && is(b"KEEPTTL") && o.expire.is_none() {
                o.keep_ttl = true;
            } else if !for_set && is(b"PERSIST") && o.expire.is_none() {
                o.persist = true;
            } else if let Some(form) = TimeForm::of_option(option)
                && !o.keep_ttl
                && !o.persist
                && o.expire.is_none_or(|(_, earlier)| earlier == form)
                && i + 1 < args.len()
            {
                o.expire = Some((args.at(i + 1), form));
                i += 1;
            } else {
                return Err(error::SYNTAX);
            }
            i += 1;
        }
        Ok(o)
    }
}

/// A time to live as an absolute time, ms.
fn expire_time(ctx: &Ctx<'_>, text: &[u8], form: TimeForm) -> Result<i64, CmdError> {
    let n = int_arg(text)?;
    let unit = if form.seconds { 1000 } else { 1 };
    let base = if form.absolute { 0 } else { ctx.now_ms() };
    Some(n)
        .filter(|n| *n > 0)
        .and_then(|n| n.checked_mul(unit))
        .and_then(|ms| ms.checked_add(base))
        .ok_or_else(|| CmdError::text(format!("ERR invalid expire time in '{}' command", ctx.cmd.name)))
}

fn set(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() == 3 {
        store(ctx, &args[1], &args[2], Ttl::Clear);
        return ctx.out.just_ok();
    }
    let options = Options::parse(args, 3, true)?;
    let expire_ms = match options.expire {
        Some((text, form)) => Some(expire_time(ctx, text, form)?),
        None => None,
    };
    if options.get {
        reply_value(ctx, &args[1])?;
    }
    if (options.nx || options.xx) && ctx.ks.write(ctx.db, &args[1]).is_some() == options.nx {
        if !options.get {
            ctx.out.null();
        }
        return Ok(());
    }
    match expire_ms {
        Some(at) => {
            store(ctx, &args[1], &args[2], Ttl::At(at));
            let is_pxat = options.expire.is_some_and(|(_, form)| form == TimeForm::PXAT);
            if !is_pxat {
                propagate_with_expire(ctx, &args[1], &args[2], at);
            }
        }
        None => {
            store(ctx, &args[1], &args[2], if options.keep_ttl { Ttl::Keep } else { Ttl::Clear });
            if options.get {
                // GET is left out: replicas need no reply.
                let kept: Vec<&[u8]> = args
                    .iter()
                    .enumerate()
                    .filter(|(i, a)| *i < 3 || !a.eq_ignore_ascii_case(b"GET"))
                    .map(|(_, a)| a)
                    .collect();
                ctx.ks.effects.replace_with(&kept);
            }
        }
    }
    if !options.get {
        ctx.out.ok();
    }
    Ok(())
}

/// Stores a string with the events that go with it.
fn store(ctx: &mut Ctx<'_>, key: &[u8], value: &[u8], ttl: Ttl) {
    ctx.ks.store(ctx.db, key, value_of(value), ttl);
    ctx.ks.effects.notify(notify::STRING, "set", key, ctx.db);
    ctx.dirty(1);
    if let Ttl::At(_) = ttl {
        ctx.ks.note_own_expire(ctx.db, key);
        ctx.ks.effects.notify(notify::GENERIC, "expire", key, ctx.db);
    }
}

/// Propagates a SET with an absolute expire time, as replicas and the AOF run it later.
fn propagate_with_expire(ctx: &mut Ctx<'_>, key: &[u8], value: &[u8], at: i64) {
    ctx.ks.effects.replace_with(&[b"SET", key, value, b"PXAT", i64_text(at).as_bytes()]);
}

/// SET's variable key flags: with GET it reads the key, otherwise it only overwrites it.
fn set_keys(args: Args<'_>) -> Option<Vec<KeyPos>> {
    let gets = args.from(3).iter().any(|a| a.eq_ignore_ascii_case(b"GET"));
    let flags = if gets { key::RW | key::ACCESS | key::UPDATE } else { key::OW | key::UPDATE };
    Some(vec![KeyPos { index: 1, flags }])
}

fn setnx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let there = ctx.ks.write(ctx.db, &args[1]).is_some();
    if !there {
        store(ctx, &args[1], &args[2], Ttl::Clear);
    }
    ctx.out.just_int(!there as i64)
}

fn set_for(ctx: &mut Ctx<'_>, args: Args<'_>, form: TimeForm) -> CmdResult {
    let at = expire_time(ctx, &args[2], form)?;
    store(ctx, &args[1], &args[3], Ttl::At(at));
    propagate_with_expire(ctx, &args[1], &args[3], at);
    ctx.out.just_ok()
}

fn getset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    reply_value(ctx, &args[1])?;
    store(ctx, &args[1], &args[2], Ttl::Clear);
    ctx.ks.effects.replace_with(&[b"SET", &args[1], &args[2]]);
    Ok(())
}

fn getdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if reply_value(ctx, &args[1])? && ctx.ks.delete(ctx.db, &args[1], false) {
        ctx.ks.effects.replace_with(&[b"DEL", &args[1]]);
        ctx.ks.effects.notify(notify::GENERIC, "del", &args[1], ctx.db);
        ctx.dirty(1);
    }
    Ok(())
}

fn getex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let options = Options::parse(args, 2, false)?;
    let key = &args[1];
    let Some(entry) = ctx.ks.read(ctx.db, key) else { return ctx.out.just_null() };
    if matches!(entry.value(), ValueRef::Object(_)) {
        return Err(error::WRONG_TYPE);
    }
    let expire = match options.expire {
        Some((text, form)) => Some((expire_time(ctx, text, form)?, form.absolute)),
        None => None,
    };
    let is_past = expire.is_some_and(|(at, absolute)| absolute && at_is_past(ctx, at));
    let lazy = ctx.cfg.lazyfree_lazy_expire;
    let ks = &mut ctx.ks;
    let Some(mut entry) = ks.peek(ctx.db, key) else { return Ok(()) };
    match entry.value() {
        ValueRef::Int(n) => ctx.out.bulk_int(n),
        ValueRef::Str { bytes, .. } => ctx.out.bulk(bytes),
        ValueRef::Object(_) => return Err(error::WRONG_TYPE),
    }
    let event = match expire {
        Some(_) if is_past => {
            drop(entry);
            ks.remove(ctx.db, key, lazy);
            ks.effects.replace_with(&[if lazy { b"UNLINK" } else { b"DEL" }, key]);
            "del"
        }
        Some((at, _)) => {
            entry.set_expire(Some(at));
            drop(entry);
            ks.note_own_expire(ctx.db, key);
            ks.effects.replace_with(&[b"PEXPIREAT", key, i64_text(at).as_bytes()]);
            "expire"
        }
        None if options.persist && entry.has_expire() => {
            entry.set_expire(None);
            drop(entry);
            ks.effects.replace_with(&[b"PERSIST", key]);
            "persist"
        }
        None => return Ok(()),
    };
    ctx.changed(notify::GENERIC, event, key, 1);
    Ok(())
}

fn mset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len().is_multiple_of(2) {
        return Err(CmdError::wrong_arity("mset"));
    }
    store_pairs(ctx, args);
    ctx.out.just_ok()
}

fn msetnx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len().is_multiple_of(2) {
        return Err(CmdError::wrong_arity("msetnx"));
    }
    let ks = &mut ctx.ks;
    if args.from(1).iter().step_by(2).any(|key| ks.write(ctx.db, key).is_some()) {
        return ctx.out.just_int(0);
    }
    store_pairs(ctx, args);
    ctx.out.just_int(1)
}

fn store_pairs(ctx: &mut Ctx<'_>, args: Args<'_>) {
    for i in (1..args.len()).step_by(2) {
        store(ctx, &args[i], &args[i + 1], Ttl::Clear);
    }
}

fn append(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (key, added) = (&args[1], &args[2]);
    let Some(entry) = ctx.ks.write(ctx.db, key) else {
        ctx.ks.insert(ctx.db, key, value_of(added), None);
        return finish_resize(ctx, "append", key, added.len());
    };
    let len = string_of(&entry, &mut IntBuf::new())?.len();
    drop(entry);
    check_string_len(ctx, len, added.len())?;
    if let Some(mut entry) = ctx.ks.peek(ctx.db, key)
        && let Some(mut text) = entry.make_raw_mut()
    {
        text.append(added);
    }
    finish_resize(ctx, "append", key, len + added.len())
}

fn setrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (key, part) = (&args[1], &args[3]);
    let offset = int_arg(&args[2])?;
    let offset = usize::try_from(offset).map_err(|_| CmdError::of("ERR offset is out of range"))?;
    let old_len = match ctx.ks.write(ctx.db, key) {
        Some(entry) => Some(string_of(&entry, &mut IntBuf::new())?.len()),
        None => None,
    };
    if part.is_empty() {
        return ctx.out.just_int(old_len.unwrap_or(0) as i64);
    }
    check_string_len(ctx, offset, part.len())?;
    let end = offset + part.len();
    if old_len.is_none() {
        ctx.ks.insert(ctx.db, key, NewValue::RawStr(b""), None);
    }
    let mut len = 0;
    if let Some(mut entry) = ctx.ks.peek(ctx.db, key)
        && let Some(mut text) = entry.make_raw_mut()
    {
        text.grow_zeroed(end);
        text[offset..end].copy_from_slice(part);
        len = text.len();
    }
    finish_resize(ctx, "setrange", key, len)
}

/// Signals the change and replies with the new length.
fn finish_resize(ctx: &mut Ctx<'_>, event: &'static str, key: &[u8], len: usize) -> CmdResult {
    ctx.changed(notify::STRING, event, key, 1);
    ctx.out.just_int(len as i64)
}

fn decrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let by = int_arg(&args[2])?.checked_neg().ok_or(CmdError::of("ERR decrement would overflow"))?;
    add(ctx, &args[1], by)
}

fn add(ctx: &mut Ctx<'_>, key: &[u8], by: i64) -> CmdResult {
    const OVERFLOW: CmdError = CmdError::of("ERR increment or decrement would overflow");
    let sum = if let Some(mut entry) = ctx.ks.write(ctx.db, key) {
        let old = match entry.value() {
            ValueRef::Int(n) => n,
            ValueRef::Str { bytes, .. } => parse_i64(bytes).ok_or(error::NOT_AN_INTEGER)?,
            ValueRef::Object(_) => return Err(error::WRONG_TYPE),
        };
        let Some(sum) = old.checked_add(by) else { return Err(OVERFLOW) };
        entry.set_int(sum);
        sum
    } else {
        ctx.ks.insert(ctx.db, key, NewValue::Int(by), None);
        by
    };
    ctx.changed(notify::STRING, "incrby", key, 1);
    ctx.out.just_int(sum)
}

fn incrbyfloat(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let key = &args[1];
    let text = if let Some(mut entry) = ctx.ks.write(ctx.db, key) {
        let old = match entry.value() {
            ValueRef::Int(n) => LongDouble::from_i64(n),
            ValueRef::Str { bytes, .. } => LongDouble::parse(bytes).ok_or(error::NOT_A_FLOAT)?,
            ValueRef::Object(_) => return Err(error::WRONG_TYPE),
        };
        let text = float_sum(old, &args[2])?;
        entry.set_value(NewValue::Str(text.as_bytes()));
        text
    } else {
        let text = float_sum(LongDouble::from_i64(0), &args[2])?;
        ctx.ks.insert(ctx.db, key, NewValue::Str(text.as_bytes()), None);
        text
    };
    ctx.changed(notify::STRING, "incrbyfloat", key, 1);
    ctx.out.bulk(text.as_bytes());
    // The result is propagated, not the increment: other machines may round differently.
    ctx.ks.effects.replace_with(&[b"SET", key, text.as_bytes(), b"KEEPTTL"]);
    Ok(())
}

fn float_sum(old: LongDouble, by: &[u8]) -> Result<String, CmdError> {
    let sum = old + LongDouble::parse(by).ok_or(error::NOT_A_FLOAT)?;
    if sum.is_nan() || sum.is_infinite() {
        return Err(CmdError::of("ERR increment would produce NaN or Infinity"));
    }
    Ok(sum.to_human())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;

    #[test]
    fn values_are_set_read_and_counted() {
        let mut bare = Bare::new();
        assert_eq!(bare.run("set k 5"), "+OK");
        assert_eq!((bare.run("incrby k 37"), bare.run("get k")), (":42".into(), "$2 42".into()));
        assert_eq!((bare.run("append k x"), bare.run("incr k")), (":3".into(), format!("-{}", error::NOT_AN_INTEGER)));
        assert_eq!(bare.changes(), 3);
        assert_eq!((bare.run("get none"), bare.changes()), ("$-1".into(), 0));
        assert_eq!(bare.run("set k v px 0"), "-ERR invalid expire time in 'set' command");
    }
}
