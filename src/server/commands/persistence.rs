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
    Command {
        name: "save",
        run: Some(save),
        arity: 1,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING | flag::NO_MULTI,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(N) for N keys, those of all databases.",
        summary: "Writes a snapshot of the data set to disk while everyone waits.",
        ..Command::ROW
    },
    Command {
        name: "bgsave",
        run: Some(bgsave),
        arity: -1,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Writes a snapshot of the data set to disk in the background.",
        history: &["3.2.2"],
        args: &[arg("schedule", ArgKind::PureToken).token("SCHEDULE").since("3.2.2").optional()],
        ..Command::ROW
    },
    Command {
        name: "lastsave",
        run: Some(lastsave),
        arity: 1,
        flags: flag::LOADING | flag::STALE | flag::FAST,
        acl: cat::ADMIN | cat::DANGEROUS,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Gives the unix time of the last snapshot that reached the disk.",
        tips: &["nondeterministic_output"],
        ..Command::ROW
    },
    Command {
        name: "bgrewriteaof",
        run: Some(bgrewriteaof),
        arity: 1,
        flags: flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING,
        group: Group::Server,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Rewrites the append-only file in the background.",
        ..Command::ROW
    },
    Command {
        name: "dump",
        run: Some(dump),
        arity: 2,
        flags: flag::READONLY,
        acl: cat::KEYSPACE,
        keys: &[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)],
        group: Group::Generic,
        since: "2.6.0",
        complexity: "O(N) for a value whose payload has N bytes.",
        summary: "Gives a value in a form that RESTORE understands.",
        tips: &["nondeterministic_output"],
        args: &[arg("key", ArgKind::Key).spec(0)],
        ..Command::ROW
    },
    Command {
        name: "restore",
        run: Some(restore),
        arity: -4,
        flags: flag::WRITE | flag::DENYOOM,
        acl: cat::KEYSPACE | cat::DANGEROUS,
        keys: &[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1)],
        group: Group::Generic,
        since: "2.6.0",
        complexity: RESTORE_COMPLEXITY,
        summary: "Creates a key from what DUMP gave.",
        history: &["3.0.0", "5.0.0", "5.0.0"],
        args: RESTORE_ARGS,
        ..Command::ROW
    },
    Command {
        name: "restore-asking",
        run: Some(restore),
        arity: -4,
        flags: flag::WRITE | flag::DENYOOM | flag::ASKING | flag::SYSCMD,
        acl: cat::KEYSPACE | cat::DANGEROUS,
        keys: &[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1)],
        group: Group::Server,
        since: "3.0.0",
        complexity: RESTORE_COMPLEXITY,
        summary: "What MIGRATE sends in a cluster: RESTORE into a slot that is being imported.",
        history: &["3.0.0", "5.0.0", "5.0.0"],
        args: RESTORE_ARGS,
        ..Command::ROW
    },
];

const RESTORE_COMPLEXITY: &str = "O(N) for a payload of N bytes; a sorted set of M members takes O(M*log(M)).";

const RESTORE_ARGS: &[Arg] = &[
    arg("key", ArgKind::Key).spec(0),
    arg("ttl", ArgKind::Integer),
    arg("serialized-value", ArgKind::String),
    arg("replace", ArgKind::PureToken).token("REPLACE").since("3.0.0").optional(),
    arg("absttl", ArgKind::PureToken).token("ABSTTL").since("5.0.0").optional(),
    arg("seconds", ArgKind::Integer).token("IDLETIME").since("5.0.0").optional(),
    arg("frequency", ArgKind::Integer).token("FREQ").since("5.0.0").optional(),
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
    ctx.out.ok();
    Ok(())
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
        ctx.out.simple("Background saving scheduled");
        return Ok(());
    }
    let options = SnapshotOptions { repl: ctx.srv.repl_info(), ..SnapshotOptions::default() };
    if !ctx.srv.start_bgsave(options) {
        return Err(FAILED);
    }
    ctx.out.simple("Background saving started");
    Ok(())
}

fn lastsave(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.out.int(ctx.srv.persist.saves.last_save_s());
    Ok(())
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
    let Some(entry) = ctx.srv.ks.read(ctx.db, &args[1]) else {
        ctx.out.null();
        return Ok(());
    };
    let mut payload = Vec::new();
    encode_dump(&mut payload, value_view(entry), compress);
    ctx.out.bulk(&payload);
    Ok(())
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
        ctx.out.ok();
        return Ok(());
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
    ctx.out.ok();
    Ok(())
}
