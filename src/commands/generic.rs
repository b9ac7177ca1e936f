//! Commands on keys of any type and on whole databases.

use super::int_arg;
use super::prelude::*;
use crate::keyspace::effects::target;
use crate::keyspace::{Touch, object};

const FLUSH_TYPE: Arg = Arg::one_of("flush-type")
    .optional()
    .of(&[Arg::word("async", "ASYNC").since("4.0.0"), Arg::word("sync", "SYNC").since("6.2.0")]);

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Generic, "del", del)
        .flags(flag::WRITE)
        .keys(&[KeySpec::range(key::RM | key::DELETE, 1, -1, 1)])
        .args(&[Arg::key("key", 0).multiple()])
        .complexity("O(N) where N is the number of keys; a key that holds M elements takes O(M) more.")
        .summary("Deletes keys.")
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    command(Group::Generic, "unlink", |ctx, args| delete_keys(ctx, args, true))
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RM | key::DELETE, 1, -1, 1)])
        .args(&[Arg::key("key", 0).multiple()])
        .since("4.0.0")
        .complexity("O(N) where N is the number of keys; the values are freed in the background.")
        .summary("Deletes keys and leaves the freeing of large values to a thread in the background.")
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    command(Group::Generic, "exists", |ctx, args| count_found(ctx, args, Touch::Look))
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, -1, 1)])
        .args(&[Arg::key("key", 0).multiple()])
        .history(&["3.0.3"])
        .complexity("O(N) where N is the number of keys.")
        .summary("Counts how many of the keys are there.")
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    command(Group::Generic, "touch", touch)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, -1, 1)])
        .args(&[Arg::key("key", 0).multiple()])
        .since("3.2.1")
        .complexity("O(N) where N is the number of keys.")
        .summary("Counts how many of the keys are there and notes the access to them.")
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"]),
    command(Group::Generic, "type", type_of)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .summary("Tells the type of the value at a key."),
    command(Group::Generic, "rename", rename)
        .flags(flag::WRITE)
        .keys(&[
            KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1),
            KeySpec::range(key::OW | key::UPDATE, 2, 0, 1),
        ])
        .args(&[Arg::key("key", 0), Arg::key("newkey", 1)])
        .complexity("O(1), and the freeing of a value that is replaced.")
        .summary("Gives a key another name, in place of what that name had."),
    command(Group::Generic, "renamenx", renamenx)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[
            KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1),
            KeySpec::range(key::OW | key::INSERT, 2, 0, 1),
        ])
        .args(&[Arg::key("key", 0), Arg::key("newkey", 1)])
        .history(&["3.2.0"])
        .summary("Gives a key another name, provided that the name is free."),
    command(Group::Generic, "copy", copy)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1), KeySpec::range(key::OW | key::UPDATE, 2, 0, 1)])
        .args(&[
            Arg::key("source", 0),
            Arg::key("destination", 1),
            Arg::integer("destination-db").token("DB").optional(),
            Arg::word("replace", "REPLACE").optional(),
        ])
        .since("6.2.0")
        .complexity("O(N) for values of N elements, O(1) for strings.")
        .summary("Copies a value to another key, also of another database."),
    command(Group::Generic, "move", move_key)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("db")])
        .summary("Moves a key into another database."),
    command(Group::Generic, "randomkey", randomkey).flags(flag::READONLY).summary("Gives a key at random.").tips(&[
        "request_policy:all_shards",
        "response_policy:special",
        "nondeterministic_output",
    ]),
    command(Group::Server, "dbsize", |ctx, _| ctx.out.just_int(ctx.ks.dbs[ctx.db].shown_len() as i64))
        .flags(flag::FAST | flag::READONLY)
        .acl(cat::KEYSPACE)
        .summary("Counts the keys of the database.")
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"]),
    command(Group::Server, "flushdb", flushdb)
        .flags(flag::WRITE)
        .acl(cat::DANGEROUS | cat::KEYSPACE)
        .args(&[FLUSH_TYPE])
        .history(&["4.0.0", "6.2.0"])
        .complexity("O(N) where N is the number of keys; O(1) in the foreground with ASYNC.")
        .summary("Deletes every key of the database.")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    command(Group::Server, "flushall", flushall)
        .flags(flag::WRITE)
        .acl(cat::DANGEROUS | cat::KEYSPACE)
        .args(&[FLUSH_TYPE])
        .history(&["4.0.0", "6.2.0"])
        .complexity("O(N) where N is the number of keys; O(1) in the foreground with ASYNC.")
        .summary("Deletes every key of every database.")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    command(Group::Server, "swapdb", swapdb)
        .flags(flag::FAST | flag::WRITE)
        .acl(cat::DANGEROUS | cat::KEYSPACE)
        .args(&[Arg::integer("index1"), Arg::integer("index2")])
        .since("4.0.0")
        .complexity("O(N) where N is the number of clients that watch or wait for keys of them.")
        .summary("Exchanges two databases."),
];

/// An argument that must fit a C `int`.
fn i32_arg(arg: &[u8]) -> Result<i32, CmdError> {
    i32::try_from(int_arg(arg)?).map_err(|_| {
        CmdError::text(format!("ERR value is out of range, value must between {} and {}", i32::MIN, i32::MAX))
    })
}

/// The index of an existing database.
fn db_arg(ctx: &Ctx<'_>, n: i32) -> Result<usize, CmdError> {
    usize::try_from(n).ok().filter(|n| *n < ctx.ks.dbs.len()).ok_or(CmdError::of("ERR DB index is out of range"))
}

fn del(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let lazy = ctx.cfg.lazyfree_lazy_user_del;
    delete_keys(ctx, args, lazy)
}

fn delete_keys(ctx: &mut Ctx<'_>, args: Args<'_>, lazy: bool) -> CmdResult {
    let mut deleted = 0;
    for key in args.from(1).iter() {
        if ctx.ks.delete_unexpired(ctx.db, key, lazy) {
            ctx.ks.effects.notify(notify::GENERIC, "del", key, ctx.db);
            deleted += 1;
        }
    }
    ctx.dirty(deleted);
    ctx.out.just_int(deleted as i64)
}

fn touch(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    // CLIENT NO-TOUCH does not apply to TOUCH.
    let no_touch = std::mem::take(&mut ctx.ks.no_touch);
    let done = count_found(ctx, args, Touch::Read);
    ctx.ks.no_touch = no_touch;
    done
}

fn count_found(ctx: &mut Ctx<'_>, args: Args<'_>, touch: Touch) -> CmdResult {
    let (ks, db) = (&mut ctx.ks, ctx.db);
    let found = args.from(1).iter().filter(|key| ks.lookup(db, key, touch).is_some()).count();
    ctx.out.just_int(found as i64)
}

fn type_of(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.lookup(ctx.db, &args[1], Touch::Look);
    ctx.out.just_simple(entry.map_or("none", |e| object::type_name(&e)))
}

fn rename(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if rename_key(ctx, args, true)? != Renamed::Refused {
        ctx.out.ok();
    }
    Ok(())
}

fn renamenx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let renamed = rename_key(ctx, args, false)?;
    ctx.out.just_int((renamed == Renamed::Done) as i64)
}

#[derive(PartialEq, Eq)]
enum Renamed {
    Done,
    /// Both names are the same.
    Same,
    /// The new name is taken.
    Refused,
}

fn rename_key(ctx: &mut Ctx<'_>, args: Args<'_>, replace: bool) -> Result<Renamed, CmdError> {
    let (from, to, db) = (&args[1], &args[2], ctx.db);
    let lazy = ctx.cfg.lazyfree_lazy_server_del;
    let ks = &mut ctx.ks;
    if ks.write(db, from).is_none() {
        return Err(error::NO_SUCH_KEY);
    }
    if from == to {
        return Ok(Renamed::Same);
    }
    if ks.write(db, to).is_some() {
        if !replace {
            return Ok(Renamed::Refused);
        }
        ks.remove(db, to, lazy);
    }
    ks.move_key((db, from), (db, to));
    ks.effects.notify(notify::GENERIC, "rename_from", from, db);
    ks.effects.notify(notify::GENERIC, "rename_to", to, db);
    ctx.dirty(1);
    Ok(Renamed::Done)
}

fn move_key(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if ctx.cfg.cluster_enabled {
        return Err(CmdError::of("ERR MOVE is not allowed in cluster mode"));
    }
    let to = db_arg(ctx, i32_arg(&args[2])?)?;
    let (key, from) = (&args[1], ctx.db);
    if to == from {
        return Err(error::SAME_OBJECT);
    }
    let ks = &mut ctx.ks;
    if ks.write(from, key).is_none() || ks.write(to, key).is_some() {
        return ctx.out.just_int(0);
    }
    ks.move_key((from, key), (to, key));
    ks.effects.notify(notify::GENERIC, "move_from", key, from);
    ks.effects.notify(notify::GENERIC, "move_to", key, to);
    ctx.dirty(1);
    ctx.out.just_int(1)
}

fn copy(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (from, to) = (&args[1], &args[2]);
    let mut to_db = ctx.db;
    let mut replace = false;
    let mut i = 3;
    while i < args.len() {
        if args[i].eq_ignore_ascii_case(b"REPLACE") {
            replace = true;
        } else if args[i].eq_ignore_ascii_case(b"DB") && i + 1 < args.len() {
            let n = i32_arg(&args[i + 1])?;
            if ctx.cfg.cluster_enabled && n > 0 && n < ctx.cfg.databases as i32 {
                return Err(CmdError::of("ERR Copying to another database is not allowed in cluster mode"));
            }
            to_db = db_arg(ctx, n)?;
            i += 1;
        } else {
            return Err(error::SYNTAX);
        }
        i += 1;
    }
    if to_db == ctx.db && from == to {
        return Err(error::SAME_OBJECT);
    }
    let lazy = ctx.cfg.lazyfree_lazy_server_del;
    let ks = &mut ctx.ks;
    if ks.read(ctx.db, from).is_none() {
        return ctx.out.just_int(0);
    }
    if ks.write(to_db, to).is_some() {
        if !replace {
            return ctx.out.just_int(0);
        }
        ks.remove(to_db, to, lazy);
    }
    ks.copy_key((ctx.db, from), (to_db, to));
    ks.effects.notify(notify::GENERIC, "copy_to", to, to_db);
    ctx.dirty(1);
    ctx.out.just_int(1)
}

/// Lets the deletions of expired keys that the command finds be propagated one by one, unless they are part of a
/// transaction or script.
pub(crate) fn unwrap_deletions(ctx: &mut Ctx<'_>) {
    ctx.ks.effects.no_multi = ctx.session.is_outermost();
}

fn randomkey(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    unwrap_deletions(ctx);
    match ctx.ks.random_key(ctx.db) {
        Some(key) => ctx.out.bulk(&key),
        None => ctx.out.null(),
    }
    Ok(())
}

/// Whether a flush leaves the freeing to the background.
fn flush_is_lazy(ctx: &Ctx<'_>, args: Args<'_>) -> Result<bool, CmdError> {
    match args.get(1) {
        None => Ok(ctx.cfg.lazyfree_lazy_user_flush),
        Some(how) if args.len() == 2 && how.eq_ignore_ascii_case(b"SYNC") => Ok(false),
        Some(how) if args.len() == 2 && how.eq_ignore_ascii_case(b"ASYNC") => Ok(true),
        Some(_) => Err(error::SYNTAX),
    }
}

fn flushdb(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let lazy = flush_is_lazy(ctx, args)?;
    let db = ctx.db;
    flush(ctx, Some(db), lazy);
    Ok(())
}

fn flushall(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let lazy = flush_is_lazy(ctx, args)?;
    flush(ctx, None, lazy);
    *ctx.want = Some(Want::Flushed);
    Ok(())
}

fn flush(ctx: &mut Ctx<'_>, db: Option<usize>, lazy: bool) {
    let removed = ctx.ks.flush(db, lazy);
    ctx.dirty(removed as u64);
    // Replicas may hold keys that we do not: they flush even when there was nothing here.
    ctx.ks.effects.forced |= target::ALL;
    ctx.out.ok();
}

fn swapdb(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if ctx.cfg.cluster_enabled {
        return Err(CmdError::of("ERR SWAPDB is not allowed in cluster mode"));
    }
    let a = i32_arg(&args[1]).map_err(|_| CmdError::of("ERR invalid first DB index"))?;
    let b = i32_arg(&args[2]).map_err(|_| CmdError::of("ERR invalid second DB index"))?;
    let (a, b) = (db_arg(ctx, a)?, db_arg(ctx, b)?);
    ctx.ks.swap(a, b);
    ctx.dirty(1);
    ctx.out.just_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;

    #[test]
    fn keys_are_renamed_copied_and_flushed() {
        let mut bare = Bare::new();
        bare.run("set a 1");
        assert_eq!((bare.run("rename a b"), bare.run("rename a b")), ("+OK".into(), "-ERR no such key".into()));
        assert_eq!((bare.run("copy b c"), bare.run("del b c d")), (":1".into(), ":2".into()));
        bare.run("set a 1");
        assert_eq!((bare.run("flushall"), bare.want.take()), ("+OK".into(), Some(Want::Flushed)));
        assert_eq!(bare.run("dbsize"), ":0");
    }
}
