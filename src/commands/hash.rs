//! Hash commands.

use super::collection::{Found, choose, draw_many, elements_removed, scan_elements};
use super::prelude::*;
use super::scan::{SCAN_ARGS, cursor_arg};
use super::{int_arg, random_count_arg, reply_item};
use crate::keyspace::hash::{Hash, HashLimits};
use crate::keyspace::{Entry, Object};
use crate::resp::Reply;
use crate::structs::listpack::Item;
use crate::structs::long_double::LongDouble;
use crate::structs::numbers::parse_i64;

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Hash, "hdel", hdel)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("field").multiple()])
        .since("2.0.0")
        .history(&["2.4.0"])
        .complexity("O(N) where N is the number of fields to remove.")
        .summary("Removes fields from a hash."),
    command(Group::Hash, "hexists", hexists)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("field")])
        .since("2.0.0")
        .summary("Tells whether a hash has a field."),
    command(Group::Hash, "hget", hget)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("field")])
        .since("2.0.0")
        .summary("Gives the value of a field."),
    command(Group::Hash, "hgetall", hgetall)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("2.0.0")
        .complexity("O(N) where N is the number of fields.")
        .summary("Gives all fields of a hash with their values.")
        .tips(&["nondeterministic_output_order"]),
    command(Group::Hash, "hincrby", hincrby)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("field"), Arg::integer("increment")])
        .since("2.0.0")
        .summary("Adds a number to the integer in a field; a missing one counts from 0."),
    command(Group::Hash, "hincrbyfloat", hincrbyfloat)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("field"), Arg::double("increment")])
        .since("2.6.0")
        .summary("Adds a floating point number to the number in a field; a missing one counts from 0."),
    command(Group::Hash, "hkeys", hkeys)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("2.0.0")
        .complexity("O(N) where N is the number of fields.")
        .summary("Gives all fields of a hash.")
        .tips(&["nondeterministic_output_order"]),
    command(Group::Hash, "hlen", hlen)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("2.0.0")
        .summary("Counts the fields of a hash."),
    command(Group::Hash, "hmget", hmget)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("field").multiple()])
        .since("2.0.0")
        .complexity("O(N) where N is the number of fields asked for.")
        .summary("Gives the values of several fields."),
    command(Group::Hash, "hmset", hmset)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::block("data").multiple().of(&[Arg::string("field"), Arg::string("value")])])
        .since("2.0.0")
        .deprecated("4.0.0", "`HSET` with multiple field-value pairs")
        .complexity("O(N) where N is the number of fields.")
        .summary("Sets several fields of a hash."),
    command(Group::Hash, "hrandfield", hrandfield)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::block("options")
                .optional()
                .of(&[Arg::integer("count"), Arg::word("withvalues", "WITHVALUES").optional()]),
        ])
        .since("6.2.0")
        .complexity("O(N) where N is the number of fields asked for.")
        .summary("Gives fields of a hash at random.")
        .tips(&["nondeterministic_output"]),
    command(Group::Hash, "hscan", hscan)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(SCAN_ARGS)
        .since("2.8.0")
        .complexity("O(1) a call; O(N) for a full pass, where N is the number of fields.")
        .summary("Goes through the fields of a hash step by step.")
        .tips(&["nondeterministic_output"]),
    command(Group::Hash, "hset", hset)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::block("data").multiple().of(&[Arg::string("field"), Arg::string("value")])])
        .since("2.0.0")
        .history(&["4.0.0"])
        .complexity("O(1) for each field.")
        .summary("Sets fields of a hash, which is created when it is not there."),
    command(Group::Hash, "hsetnx", hsetnx)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("field"), Arg::string("value")])
        .since("2.0.0")
        .summary("Sets a field of a hash when it is not there."),
    command(Group::Hash, "hstrlen", hstrlen)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("field")])
        .since("3.2.0")
        .summary("Gives the length of the value of a field."),
    command(Group::Hash, "hvals", hvals)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("2.0.0")
        .complexity("O(N) where N is the number of fields.")
        .summary("Gives all values of a hash.")
        .tips(&["nondeterministic_output_order"]),
];

fn hash_of(entry: &Entry) -> Result<&Hash, CmdError> {
    match entry.object() {
        Some(Object::Hash(hash)) => Ok(hash),
        _ => Err(error::WRONG_TYPE),
    }
}

fn hash_mut(entry: &mut Entry) -> Result<&mut Hash, CmdError> {
    match entry.object_mut() {
        Some(Object::Hash(hash)) => Ok(hash),
        _ => Err(error::WRONG_TYPE),
    }
}

fn limits(ctx: &Ctx<'_>) -> HashLimits {
    ctx.limits().hash
}

/// Calls `f` with the hash at a key, which is created if it is missing.
fn change<R>(ctx: &mut Ctx<'_>, key: &[u8], f: impl FnOnce(&mut Hash) -> Result<R, CmdError>) -> Result<R, CmdError> {
    let ks = &mut ctx.ks;
    if let Some(mut entry) = ks.write(ctx.db, key) {
        return f(hash_mut(&mut entry)?);
    }
    let mut hash = Hash::new();
    let result = f(&mut hash)?;
    ks.insert(ctx.db, key, hash.into(), None);
    Ok(result)
}

fn hset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let created = set_fields(ctx, args)?;
    ctx.out.just_int(created as i64)
}

fn hmset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    set_fields(ctx, args)?;
    ctx.out.just_ok()
}

/// Sets the fields; returns how many of them are new.
fn set_fields(ctx: &mut Ctx<'_>, args: Args<'_>) -> Result<usize, CmdError> {
    if !args.len().is_multiple_of(2) {
        return Err(CmdError::wrong_arity(ctx.cmd.name));
    }
    let limits = limits(ctx);
    let created = change(ctx, &args[1], |hash| {
        hash.will_grow(args.from(2).iter(), &limits);
        Ok((2..args.len()).step_by(2).filter(|i| hash.set(&args[*i], &args[i + 1], &limits)).count())
    })?;
    ctx.changed(notify::HASH, "hset", &args[1], (args.len() / 2 - 1) as u64);
    Ok(created)
}

fn hsetnx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let limits = limits(ctx);
    let is_new = change(ctx, &args[1], |hash| {
        let is_new = !hash.contains(&args[2]);
        if is_new {
            hash.will_grow(args.from(2).iter(), &limits);
            hash.set(&args[2], &args[3], &limits);
        }
        Ok(is_new)
    })?;
    if is_new {
        ctx.changed(notify::HASH, "hset", &args[1], 1);
    }
    ctx.out.just_int(is_new as i64)
}

fn hincrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let by = int_arg(&args[3])?;
    let limits = limits(ctx);
    let sum = change(ctx, &args[1], |hash| {
        let old = match hash.get(&args[2]) {
            Some(Item::Int(n)) => n,
            Some(Item::Str(text)) => parse_i64(text).ok_or(CmdError::of("ERR hash value is not an integer"))?,
            None => 0,
        };
        let sum = old.checked_add(by).ok_or(CmdError::of("ERR increment or decrement would overflow"))?;
        hash.set(&args[2], IntBuf::new().format(sum), &limits);
        Ok(sum)
    })?;
    ctx.changed(notify::HASH, "hincrby", &args[1], 1);
    ctx.out.just_int(sum)
}

fn hincrbyfloat(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let by = LongDouble::parse(&args[3]).ok_or(error::NOT_A_FLOAT)?;
    if by.is_nan() || by.is_infinite() {
        return Err(CmdError::of("ERR value is NaN or Infinity"));
    }
    let limits = limits(ctx);
    let text = change(ctx, &args[1], |hash| {
        let old = match hash.get(&args[2]) {
            Some(Item::Int(n)) => LongDouble::from_i64(n),
            Some(Item::Str(text)) => LongDouble::parse(text).ok_or(CmdError::of("ERR hash value is not a float"))?,
            None => LongDouble::from_i64(0),
        };
        let sum = old + by;
        if sum.is_nan() || sum.is_infinite() {
            return Err(CmdError::of("ERR increment would produce NaN or Infinity"));
        }
        let text = sum.to_human();
        hash.set(&args[2], text.as_bytes(), &limits);
        Ok(text)
    })?;
    ctx.changed(notify::HASH, "hincrbyfloat", &args[1], 1);
    ctx.out.bulk(text.as_bytes());
    // The result is propagated, not the increment: other machines may round differently.
    ctx.ks.effects.replace_with(&[b"HSET", &args[1], &args[2], text.as_bytes()]);
    Ok(())
}

fn hdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let key = &args[1];
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_int(0) };
    let hash = hash_mut(&mut entry)?;
    let removed = args.from(2).iter().filter(|f| hash.remove(f)).count();
    let is_empty = hash.is_empty();
    drop(entry);
    if removed > 0 {
        elements_removed(ctx, key, (notify::HASH, "hdel"), removed, is_empty);
    }
    ctx.out.just_int(removed as i64)
}

fn reply_value(out: &mut Reply, value: Option<Item<'_>>) {
    match value {
        Some(item) => reply_item(out, item),
        None => out.null(),
    }
}

fn hget(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    reply_value(ctx.out, hash.and_then(|h| h.get(&args[2])));
    Ok(())
}

fn hmget(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    let fields = args.from(2);
    ctx.out.array(fields.len());
    fields.iter().for_each(|f| reply_value(ctx.out, hash.and_then(|h| h.get(f))));
    Ok(())
}

fn hexists(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    ctx.out.just_int(hash.is_some_and(|h| h.contains(&args[2])) as i64)
}

fn hstrlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    ctx.out.just_int(hash.and_then(|h| h.get(&args[2])).map_or(0, |v| v.text_len()) as i64)
}

fn hlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    ctx.out.just_int(hash.map_or(0, Hash::len) as i64)
}

fn hkeys(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    ctx.out.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|h| h.iter()).for_each(|(field, _)| reply_item(ctx.out, field));
    Ok(())
}

fn hvals(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    ctx.out.array(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|h| h.iter()).for_each(|(_, value)| reply_item(ctx.out, value));
    Ok(())
}

fn hgetall(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    ctx.out.map(hash.map_or(0, Hash::len));
    hash.iter().flat_map(|h| h.iter()).for_each(|(field, value)| {
        reply_item(ctx.out, field);
        reply_item(ctx.out, value);
    });
    Ok(())
}

fn hrandfield(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let count = args.get(2).map(random_count_arg).transpose()?;
    let with_values = match args.get(3) {
        None => false,
        Some(word) if args.len() == 4 && word.eq_ignore_ascii_case(b"WITHVALUES") => true,
        Some(_) => return Err(error::SYNTAX),
    };
    // The length of the reply, twice the count, must not overflow.
    if with_values && count.is_some_and(|n| n.unsigned_abs() > i64::MAX as u64 / 2) {
        return Err(CmdError::of("ERR value is out of range"));
    }
    let room = ctx.session.reply_room();
    let mut entry = ctx.ks.read_mut(ctx.db, &args[1]);
    if let Some(entry) = &mut entry {
        hash_mut(entry)?.move_on();
    }
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    let Some(count) = count else {
        reply_value(ctx.out, hash.and_then(Hash::random).map(|(field, _)| field));
        return Ok(());
    };
    let Some(hash) = hash else { return ctx.out.just_empty() };
    let out = &mut *ctx.out;
    let pairs_apart = out.resp3 && with_values;
    let wanted = count.unsigned_abs() as usize;
    let wanted = if count < 0 { wanted } else { wanted.min(hash.len()) };
    out.array(if with_values && !pairs_apart { wanted * 2 } else { wanted });
    let reply = |(field, value): (Item<'_>, Item<'_>)| {
        if pairs_apart {
            out.array(2);
        }
        reply_item(out, field);
        if with_values {
            reply_item(out, value);
        }
        out.buf.len() <= room
    };
    let finished = if count < 0 {
        draw_many(wanted, matches!(hash, Hash::Packed(_)).then(|| hash.iter()), || hash.random(), reply)
    } else {
        random_fields(hash, wanted).into_iter().all(reply)
    };
    drop(entry);
    if !finished {
        ctx.close_client();
    }
    Ok(())
}

/// `count` different fields at random, no more than there are, with their values.
fn random_fields(hash: &Hash, count: usize) -> Vec<(Item<'_>, Item<'_>)> {
    let draw = || hash.random().map(|pair| (pair.0, pair));
    choose(count, hash.len(), hash.iter(), matches!(hash, Hash::Table(_)).then_some(draw))
}

fn hscan(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let cursor = cursor_arg(&args[2])?;
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let hash = entry.as_ref().map(|e| hash_of(e)).transpose()?;
    let step = hash.map(|hash| {
        move |cursor, found: &mut Found<'_>| {
            hash.scan(cursor, found.wanted(), &mut |field, value| {
                if let Some(reply) = found.look_at(field) {
                    reply_item(reply, value);
                }
            })
        }
    });
    scan_elements(ctx.out, args, cursor, 2, step)
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn fields_are_set_counted_and_removed() {
        let mut bare = Bare::new();
        assert_eq!((bare.run("hset h a 1 b 2"), bare.changes()), (":2".into(), 2));
        assert_eq!((bare.run("hset h a 3"), bare.run("hget h a")), (":0".into(), "$1 3".into()));
        assert_eq!(bare.run("hincrbyfloat h b 0.5"), "$3 2.5");
        assert_eq!((bare.run("hdel h a b c"), bare.run("exists h")), (":2".into(), ":0".into()));
        assert_eq!(bare.run("hset h a"), "-ERR wrong number of arguments for 'hset' command");
    }
}
