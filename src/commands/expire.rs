//! The time to live of keys: EXPIRE, TTL and similar commands.

use super::int_arg;
use super::prelude::*;
use crate::keyspace::Touch;
use crate::structs::numbers::i64_text;

const CONDITION: Arg = Arg::one_of("condition").since("7.0.0").optional().of(&[
    Arg::word("nx", "NX"),
    Arg::word("xx", "XX"),
    Arg::word("gt", "GT"),
    Arg::word("lt", "LT"),
]);

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Generic, "expire", expire)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("seconds"), CONDITION])
        .history(&["7.0.0"])
        .summary("Sets how many seconds a key lives."),
    command(Group::Generic, "pexpire", pexpire)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("milliseconds"), CONDITION])
        .since("2.6.0")
        .history(&["7.0.0"])
        .summary("Sets how many milliseconds a key lives."),
    command(Group::Generic, "expireat", |ctx, args| expire_at(ctx, args, 0, 1000))
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::unix_time("unix-time-seconds"), CONDITION])
        .since("1.2.0")
        .history(&["7.0.0"])
        .summary("Sets the time a key lives until, in seconds of Unix time."),
    command(Group::Generic, "pexpireat", |ctx, args| expire_at(ctx, args, 0, 1))
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::unix_time("unix-time-milliseconds"), CONDITION])
        .since("2.6.0")
        .history(&["7.0.0"])
        .summary("Sets the time a key lives until, in milliseconds of Unix time."),
    command(Group::Generic, "expiretime", expiretime)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("7.0.0")
        .summary("Tells until when a key lives, in seconds of Unix time."),
    command(Group::Generic, "pexpiretime", |ctx, args| reply_time(ctx, args, |at, _| at.max(0)))
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("7.0.0")
        .summary("Tells until when a key lives, in milliseconds of Unix time."),
    command(Group::Generic, "ttl", ttl)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .history(&["2.8.0"])
        .summary("Tells how many seconds a key has to live.")
        .tips(&["nondeterministic_output"]),
    command(Group::Generic, "pttl", |ctx, args| reply_time(ctx, args, |at, now| at.saturating_sub(now).max(0)))
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("2.6.0")
        .history(&["2.8.0"])
        .summary("Tells how many milliseconds a key has to live.")
        .tips(&["nondeterministic_output"]),
    command(Group::Generic, "persist", persist)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("2.2.0")
        .summary("Lets a key live for ever."),
];

fn expire(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let base = ctx.now_ms();
    expire_at(ctx, args, base, 1000)
}

fn pexpire(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let base = ctx.now_ms();
    expire_at(ctx, args, base, 1)
}

/// The conditions for setting an expire time.
#[derive(Clone, Copy, Default)]
struct Conditions {
    nx: bool,
    xx: bool,
    gt: bool,
    lt: bool,
}

impl Conditions {
    fn parse(args: Args<'_>) -> Result<Conditions, CmdError> {
        let mut c = Conditions::default();
        for option in args.iter() {
            let place = [(&b"NX"[..], &mut c.nx), (b"XX", &mut c.xx), (b"GT", &mut c.gt), (b"LT", &mut c.lt)]
                .into_iter()
                .find(|(name, _)| option.eq_ignore_ascii_case(name));
            match place {
                Some((_, set)) => *set = true,
                None => return Err(CmdError::bytes([b"ERR Unsupported option ", option].concat())),
            }
        }
        if c.nx && (c.xx || c.gt || c.lt) {
            return Err(CmdError::of("ERR NX and XX, GT or LT options at the same time are not compatible"));
        }
        if c.gt && c.lt {
            return Err(CmdError::of("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(c)
    }

    /// Whether the new time may replace the current one; no expire time counts as later than any.
    fn allow(self, at: i64, current: Option<i64>) -> bool {
        match current {
            None => !self.xx && !self.gt,
            Some(current) => !self.nx && (!self.gt || at > current) && (!self.lt || at < current),
        }
    }
}

/// Whether a key set to expire at this time is deleted at once instead. A replica and a server that loads wait for the
/// DEL.
pub(crate) fn at_is_past(ctx: &Ctx<'_>, at: i64) -> bool {
    at <= ctx.now_ms() && !ctx.session.keeps_past_keys()
}

fn expire_at(ctx: &mut Ctx<'_>, args: Args<'_>, base: i64, unit: i64) -> CmdResult {
    let key = &args[1];
    let conditions = Conditions::parse(args.from(3))?;
    let at = int_arg(&args[2])?
        .checked_mul(unit)
        .and_then(|ms| ms.checked_add(base))
        .ok_or_else(|| CmdError::text(format!("ERR invalid expire time in '{}' command", ctx.cmd.name)))?;
    let is_past = at_is_past(ctx, at);
    let lazy = ctx.cfg.lazyfree_lazy_expire;
    let ks = &mut ctx.ks;
    let Some(mut entry) = ks.write(ctx.db, key) else { return ctx.out.just_int(0) };
    if !conditions.allow(at, entry.expire_ms()) {
        return ctx.out.just_int(0);
    }
    if is_past {
        drop(entry);
        ks.delete(ctx.db, key, lazy);
        ks.effects.replace_with(&[if lazy { b"UNLINK" } else { b"DEL" }, key]);
        ks.effects.notify(notify::GENERIC, "del", key, ctx.db);
    } else {
        entry.set_expire(Some(at));
        drop(entry);
        ks.note_own_expire(ctx.db, key);
        if base != 0 || unit != 1 {
            // The conditions are propagated as well: they hold there, too.
            let at = i64_text(at);
            let options = args.from(3);
            let mut command: Vec<&[u8]> = vec![b"PEXPIREAT", key, at.as_bytes()];
            command.extend(options.iter());
            ks.effects.replace_with(&command);
        }
        ks.signal_modified(ctx.db, key);
        ks.effects.notify(notify::GENERIC, "expire", key, ctx.db);
    }
    ctx.dirty(1);
    ctx.out.just_int(1)
}

fn ttl(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    reply_time(ctx, args, |at, now| to_seconds(at.saturating_sub(now).max(0)))
}

fn expiretime(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    reply_time(ctx, args, |at, _| to_seconds(at.max(0)))
}

/// Milliseconds (not negative) as seconds, rounded to the nearest.
fn to_seconds(ms: i64) -> i64 {
    ms / 1000 + (ms % 1000 >= 500) as i64
}

/// Replies with `form` of the expire time and now (both wall clock ms); -1 when there is none and -2 when there is no
/// key.
fn reply_time(ctx: &mut Ctx<'_>, args: Args<'_>, form: impl Fn(i64, i64) -> i64) -> CmdResult {
    let now = ctx.now_ms();
    let entry = ctx.ks.lookup(ctx.db, &args[1], Touch::Look);
    ctx.out.int(match entry.map(|e| e.expire_ms()) {
        None => -2,
        Some(None) => -1,
        Some(Some(at)) => form(at, now),
    });
    Ok(())
}

fn persist(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let key = &args[1];
    let mut removed = false;
    if let Some(mut entry) = ctx.ks.write(ctx.db, key)
        && entry.has_expire()
    {
        entry.set_expire(None);
        removed = true;
    }
    if removed {
        ctx.changed(notify::GENERIC, "persist", key, 1);
    }
    ctx.out.just_int(removed as i64)
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn a_time_that_is_past_deletes_unless_others_decide_over_that() {
        let mut bare = Bare::new();
        bare.run("set k v");
        assert_eq!((bare.run("expire k 10"), bare.run("pttl k")), (":1".into(), ":10000".into()));
        bare.ks.now_ms += 10_001;
        assert_eq!((bare.run("get k"), bare.run("ttl k")), ("$-1".into(), ":-2".into()));
        bare.run("set k v");
        bare.caller.keeps_past_keys = true;
        assert_eq!((bare.run("pexpireat k 1"), bare.run("expiretime k")), (":1".into(), ":-2".into()));
        bare.caller.keeps_past_keys = false;
        bare.run("set k v");
        assert_eq!((bare.run("pexpireat k 1"), bare.run("exists k")), (":1".into(), ":0".into()));
    }
}
