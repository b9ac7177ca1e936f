//! Persistence commands: SAVE, BGSAVE, LASTSAVE, BGREWRITEAOF; and values as payloads: DUMP, RESTORE.

use super::int_arg;
use super::prelude::*;
use crate::config::SanitizeDumpPayload;
use crate::keyspace::object::ValueLimits;
use crate::keyspace::{Entry, Object};
use crate::persist::child::ChildKind;
use crate::persist::load::new_value;
use crate::persist::rdb::{DumpError, DumpHow, Value, decode_dump, encode_dump, is_newer_dump};
use crate::persist::snapshot::{SnapshotOptions, value_view};
use crate::server::clients::ClientFlags;
use crate::server::restoring::Restored;
use crate::structs::entry::NewValue;

pub(crate) const COMMANDS: &[ServerCommand] = &[
    command(Group::Server, "save", save)
        .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING | flag::NO_MULTI)
        .complexity("O(N) for N keys, those of all databases.")
        .summary("Writes a snapshot of the data set to disk while everyone waits."),
    command(Group::Server, "bgsave", bgsave)
        .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING)
        .args(&[Arg::word("schedule", "SCHEDULE").since("3.2.2").optional()])
        .history(&["3.2.2"])
        .summary("Writes a snapshot of the data set to disk in the background."),
    command(Group::Server, "lastsave", |ctx, _| ctx.out.just_int(ctx.srv.persist.saves.last_save_s()))
        .flags(flag::LOADING | flag::STALE | flag::FAST)
        .acl(cat::ADMIN | cat::DANGEROUS)
        .summary("Gives the unix time of the last snapshot that reached the disk.")
        .tips(&["nondeterministic_output"]),
    command(Group::Server, "bgrewriteaof", bgrewriteaof)
        .flags(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING)
        .summary("Rewrites the append-only file in the background."),
    command(Group::Generic, "dump", dump)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("2.6.0")
        .complexity("O(N) for a value whose payload has N bytes.")
        .summary("Gives a value in a form that RESTORE understands.")
        .tips(&["nondeterministic_output"]),
    command(Group::Generic, "restore", restore)
        .flags(flag::WRITE | flag::DENYOOM)
        .acl(cat::KEYSPACE | cat::DANGEROUS)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1)])
        .args(RESTORE_ARGS)
        .since("2.6.0")
        .history(&["3.0.0", "5.0.0", "5.0.0"])
        .complexity(RESTORE_COMPLEXITY)
        .summary("Creates a key from what DUMP gave."),
    command(Group::Server, "restore-asking", restore)
        .flags(flag::WRITE | flag::DENYOOM | flag::ASKING | flag::SYSCMD)
        .acl(cat::KEYSPACE | cat::DANGEROUS)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1)])
        .args(RESTORE_ARGS)
        .since("3.0.0")
        .history(&["3.0.0", "5.0.0", "5.0.0"])
        .complexity(RESTORE_COMPLEXITY)
        .summary("What MIGRATE sends in a cluster: RESTORE into a slot that is being imported."),
];

const RESTORE_COMPLEXITY: &str = "O(N) for a payload of N bytes; a sorted set of M members takes O(M*log(M)).";

const RESTORE_ARGS: &[Arg] = &[
    Arg::key("key", 0),
    Arg::integer("ttl"),
    Arg::string("serialized-value"),
    Arg::word("replace", "REPLACE").since("3.0.0").optional(),
    Arg::word("absttl", "ABSTTL").since("5.0.0").optional(),
    Arg::integer("seconds").token("IDLETIME").since("5.0.0").optional(),
    Arg::integer("frequency").token("FREQ").since("5.0.0").optional(),
];

const BGSAVE_RUNNING: CmdError = CmdError::of("ERR Background save already in progress");
const FAILED: CmdError = CmdError::of("ERR");

/// The command runs as part of a transaction.
fn in_exec(ctx: &Ctx<'_>) -> bool {
    ctx.c().is(ClientFlags::MULTI)
}

fn save(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    if ctx.srv.persist.is_saving() {
        return Err(BGSAVE_RUNNING);
    }
    ctx.srv.persist.saves.count_one();
    if !ctx.srv.save_rdb(false) {
        return Err(FAILED);
    }
    ctx.out.just_ok()
}

fn bgsave(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let schedule = match args.len() {
        1 => false,
        2 if args[1].eq_ignore_ascii_case(b"schedule") => true,
        _ => return Err(error::SYNTAX),
    };
    if ctx.srv.persist.is_saving() {
        return Err(BGSAVE_RUNNING);
    }
    if ctx.srv.has_child() || in_exec(ctx) {
        if !schedule && !in_exec(ctx) {
            return Err(CmdError::of(
                "ERR Another child process is active (AOF?): can't BGSAVE right now. Use BGSAVE SCHEDULE in order to \
                 schedule a BGSAVE whenever possible.",
            ));
        }
        ctx.srv.persist.saves.schedule();
        return ctx.out.just_simple("Background saving scheduled");
    }
    let options = SnapshotOptions { repl: ctx.srv.repl_info(), ..SnapshotOptions::default() };
    if !ctx.srv.start_bgsave(options) {
        return Err(FAILED);
    }
    ctx.out.just_simple("Background saving started")
}

fn bgrewriteaof(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    if ctx.srv.child_kind() == Some(ChildKind::Aof) {
        return Err(CmdError::of("ERR Background append only file rewriting already in progress"));
    }
    if ctx.srv.has_child() || in_exec(ctx) {
        ctx.srv.persist.aof.rewrites.schedule_now();
        ctx.out.simple("Background append only file rewriting scheduled");
    } else if ctx.srv.start_bgrewrite() {
        ctx.out.simple("Background append only file rewriting started");
    } else {
        return Err(CmdError::of(
            "ERR Can't execute an AOF background rewriting. Please check the server logs for more information.",
        ));
    }
    Ok(())
}

fn dump(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let compress = ctx.srv.cfg.rdbcompression;
    let Some(entry) = ctx.srv.ks.read(ctx.db, &args[1]) else { return ctx.out.just_null() };
    let mut payload = Vec::new();
    encode_dump(&mut payload, value_view(entry), compress);
    ctx.out.just_bulk(&payload)
}

/// The options after the payload.
#[derive(Default)]
struct RestoreOptions {
    replace: bool,
    absolute_ttl: bool,
    idle_s: Option<u64>,
    freq: Option<u8>,
}

fn restore_options(args: Args<'_>) -> Result<RestoreOptions, CmdError> {
    let mut options = RestoreOptions::default();
    let mut at = 4;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1);
        match (&*word.to_ascii_lowercase(), value) {
            (b"replace", _) => options.replace = true,
            (b"absttl", _) => options.absolute_ttl = true,
            (b"idletime", Some(value)) if options.freq.is_none() => {
                let idle = int_arg(value)?;
                options.idle_s =
                    Some(idle.try_into().map_err(|_| CmdError::of("ERR Invalid IDLETIME value, must be >= 0"))?);
                at += 1;
            }
            (b"freq", Some(value)) if options.idle_s.is_none() => {
                let freq = int_arg(value)?;
                let invalid = |_| CmdError::of("ERR Invalid FREQ value, must be >= 0 and <= 255");
                options.freq = Some(freq.try_into().map_err(invalid)?);
                at += 1;
            }
            _ => return Err(error::SYNTAX),
        }
        at += 1;
    }
    Ok(options)
}

/// Whether what the client restores is looked through for elements that stand there twice.
fn checks_deeply(ctx: &Ctx<'_>) -> bool {
    match ctx.srv.cfg.sanitize_dump_payload {
        SanitizeDumpPayload::No => false,
        SanitizeDumpPayload::Yes => true,
        SanitizeDumpPayload::Clients => {
            !ctx.must_obey() && ctx.srv.acl.user(&ctx.c().user).is_some_and(|user| user.sanitize_payload)
        }
    }
}

/// Who restores is the source of slots, which says when keys go.
fn is_import(ctx: &Ctx<'_>) -> bool {
    ctx.c().is(ClientFlags::IMPORT)
}

/// Of the source of slots and of our master what a newer version wrote is taken.
pub(super) fn takes_newer(ctx: &Ctx<'_>, payload: &[u8]) -> bool {
    is_import(ctx) || ctx.c().is(ClientFlags::MASTER) && is_newer_dump(payload)
}

/// The value that a payload holds, to be that of a key. `None`: the command runs again when it has been read.
fn restored_value(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    payload: &[u8],
) -> Result<Option<NewValue<'static, Object>>, CmdError> {
    let limits = ValueLimits::of(&ctx.srv.cfg, &ctx.srv.ks);
    let (newer, skip_checksum) = (takes_newer(ctx, payload), ctx.srv.persist.skip_checksum);
    let how = DumpHow { newer, skip_checksum, deep: !newer && checks_deeply(ctx), limits };
    let value = match ctx.srv.restored(ctx.client, payload, how) {
        Restored::Later => return Ok(None),
        Restored::AtOnce => decode_dump(payload, &how),
        Restored::Value(value) => value,
    };
    let value = match value {
        // What our master or the log has taken in is kept as it is there; nobody else can bring it.
        Ok(Value::Damaged(damaged)) if ctx.must_obey() => {
            ctx.srv.ks.note_damaged(key, &damaged);
            Ok(Value::Damaged(damaged))
        }
        Ok(Value::Damaged(_)) => Err(DumpError::Value),
        value => value,
    };
    value
        .and_then(|value| new_value(value, &limits).ok_or(DumpError::Value))
        .map(Some)
        .map_err(|e| CmdError::text(format!("ERR {e}")))
}

/// Replicas and the log are told when a key expires instead of after how long, and of the value as this version writes it.
fn tell_restored(ctx: &mut Ctx<'_>, args: Args<'_>, relative: Option<i64>, own: Option<&Vec<u8>>) {
    if relative.is_none() && own.is_none() {
        return;
    }
    let relative = relative.map(|at| at.to_string());
    let mut words: Vec<&[u8]> = args.iter().collect();
    if let Some(at) = &relative {
        words[2] = at.as_bytes();
        words.push(b"ABSTTL");
    }
    if let Some(own) = own {
        words[3] = own;
    }
    ctx.srv.ks.effects.replace_with(&words);
}

fn restore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let options = restore_options(args)?;
    let (db, key) = (ctx.db, &args[1]);
    if !options.replace && ctx.srv.ks.write(db, key).is_some() {
        return Err(error::BUSY_KEY);
    }
    let ttl = int_arg(&args[2])?;
    if ttl < 0 {
        return Err(CmdError::of("ERR Invalid TTL value, must be >= 0"));
    }
    let Some(value) = restored_value(ctx, key, &args[3])? else { return Ok(()) };
    let deleted = options.replace && ctx.srv.ks.delete(db, key, ctx.srv.cfg.lazyfree_lazy_server_del);
    let expire_ms = match (ttl, options.absolute_ttl) {
        (0, _) => None,
        (at, true) => Some(at),
        (ttl, false) => Some(ttl.saturating_add(ctx.now_ms())),
    };
    let is_newer = takes_newer(ctx, &args[3]);
    let already_past = !ctx.srv.is_loading() && !ctx.srv.is_replica() && !is_import(ctx);
    if let Some(at) = expire_ms
        && at <= ctx.now_ms()
        && already_past
    {
        // A large one takes its time to go.
        ctx.srv.ks.effects.free(Entry::new(key, value, None), false);
        if deleted {
            let verb: &[u8] = if ctx.srv.cfg.lazyfree_lazy_server_del { b"UNLINK" } else { b"DEL" };
            ctx.srv.ks.effects.replace_with(&[verb, key]);
            ctx.srv.ks.effects.notify(notify::GENERIC, "del", key, db);
            ctx.dirty(1);
        }
        return ctx.out.just_ok();
    }
    let ks = &mut ctx.srv.ks;
    ks.insert(db, key, value, expire_ms);
    let access = ks.access.clone();
    let mut own = Vec::new();
    if let Some(mut entry) = ks.dbs[db].get_mut(key) {
        access.restore(&mut entry, options.idle_s, options.freq);
        if is_newer {
            encode_dump(&mut own, value_view(&entry), false);
        }
    }
    let relative = expire_ms.filter(|_| !options.absolute_ttl);
    tell_restored(ctx, args, relative, is_newer.then_some(&own));
    let ks = &mut ctx.srv.ks;
    ks.signal_modified(db, key);
    ks.effects.notify(notify::GENERIC, "restore", key, db);
    ctx.dirty(1);
    ctx.out.just_ok()
}
