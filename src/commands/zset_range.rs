//! Sorted set commands about ranges: of ranks, of scores, and of members between two texts.

use super::int_arg;
use super::prelude::*;
use super::zset::{limits, members_header, members_removed, reply_member, store, zset_mut, zset_of};
use crate::keyspace::zset::{Range, Zset};
use crate::structs::numbers::parse_f64;

const LIMIT: Arg = Arg::block("limit").token("LIMIT").optional().of(&[Arg::integer("offset"), Arg::integer("count")]);

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::SortedSet, "zcount", |ctx, args| count(ctx, args, By::Score))
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::double("min"), Arg::double("max")])
        .since("2.0.0")
        .complexity("O(log(N)) where N is the number of members.")
        .summary("Counts the members with scores in a range."),
    command(Group::SortedSet, "zlexcount", |ctx, args| count(ctx, args, By::Lex))
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("min"), Arg::string("max")])
        .since("2.8.9")
        .complexity("O(log(N)) where N is the number of members.")
        .summary("Counts the members of a sorted set between two texts, where all scores are equal."),
    command(Group::SortedSet, "zrange", |ctx, args| range(ctx, args, None, None))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::string("start"),
            Arg::string("stop"),
            Arg::one_of("sortby")
                .since("6.2.0")
                .optional()
                .of(&[Arg::word("byscore", "BYSCORE"), Arg::word("bylex", "BYLEX")]),
            Arg::word("rev", "REV").since("6.2.0").optional(),
            LIMIT.since("6.2.0"),
            Arg::word("withscores", "WITHSCORES").optional(),
        ])
        .since("1.2.0")
        .history(&["6.2.0"])
        .complexity("O(log(N)+M) where N is the number of members and M that of those given.")
        .summary("Gives the members of a sorted set in a range of ranks, scores or texts."),
    command(Group::SortedSet, "zrangebylex", |ctx, args| range(ctx, args, Some(By::Lex), Some(false)))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("min"), Arg::string("max"), LIMIT])
        .since("2.8.9")
        .deprecated("6.2.0", "`ZRANGE` with the `BYLEX` argument")
        .complexity("O(log(N)+M) where N is the number of members and M that of those given.")
        .summary("Gives the members between two texts, where all scores are equal."),
    command(Group::SortedSet, "zrangebyscore", |ctx, args| range(ctx, args, Some(By::Score), Some(false)))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::double("min"),
            Arg::double("max"),
            Arg::word("withscores", "WITHSCORES").since("2.0.0").optional(),
            LIMIT,
        ])
        .since("1.0.5")
        .history(&["2.0.0"])
        .deprecated("6.2.0", "`ZRANGE` with the `BYSCORE` argument")
        .complexity("O(log(N)+M) where N is the number of members and M that of those given.")
        .summary("Gives the members with scores in a range."),
    command(Group::SortedSet, "zrangestore", zrangestore)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1), KeySpec::range(key::RO | key::ACCESS, 2, 0, 1)])
        .args(&[
            Arg::key("dst", 0),
            Arg::key("src", 1),
            Arg::string("min"),
            Arg::string("max"),
            Arg::one_of("sortby").optional().of(&[Arg::word("byscore", "BYSCORE"), Arg::word("bylex", "BYLEX")]),
            Arg::word("rev", "REV").optional(),
            LIMIT,
        ])
        .since("6.2.0")
        .complexity("O(log(N)+M) where N is the number of members and M that of those stored.")
        .summary("Stores the members of a sorted set in a range under another key."),
    command(Group::SortedSet, "zremrangebylex", |ctx, args| remove_range(ctx, args, By::Lex, "zremrangebylex"))
        .flags(flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("min"), Arg::string("max")])
        .since("2.8.9")
        .complexity("O(log(N)+M) where N is the number of members and M that of those removed.")
        .summary("Removes the members between two texts, where all scores are equal."),
    command(Group::SortedSet, "zremrangebyrank", |ctx, args| remove_range(ctx, args, By::Rank, "zremrangebyrank"))
        .flags(flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("start"), Arg::integer("stop")])
        .since("2.0.0")
        .complexity("O(log(N)+M) where N is the number of members and M that of those removed.")
        .summary("Removes the members in a range of ranks."),
    command(Group::SortedSet, "zremrangebyscore", |ctx, args| remove_range(ctx, args, By::Score, "zremrangebyscore"))
        .flags(flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::double("min"), Arg::double("max")])
        .since("1.2.0")
        .complexity("O(log(N)+M) where N is the number of members and M that of those removed.")
        .summary("Removes the members with scores in a range."),
    command(Group::SortedSet, "zrevrange", |ctx, args| range(ctx, args, Some(By::Rank), Some(true)))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::integer("start"),
            Arg::integer("stop"),
            Arg::word("withscores", "WITHSCORES").optional(),
        ])
        .since("1.2.0")
        .deprecated("6.2.0", "`ZRANGE` with the `REV` argument")
        .complexity("O(log(N)+M) where N is the number of members and M that of those given.")
        .summary("Gives the members in a range of ranks, the highest score first."),
    command(Group::SortedSet, "zrevrangebylex", |ctx, args| range(ctx, args, Some(By::Lex), Some(true)))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("max"), Arg::string("min"), LIMIT])
        .since("2.8.9")
        .deprecated("6.2.0", "`ZRANGE` with the `REV` and `BYLEX` arguments")
        .complexity("O(log(N)+M) where N is the number of members and M that of those given.")
        .summary("Gives the members between two texts, the last one first, where all scores are equal."),
    command(Group::SortedSet, "zrevrangebyscore", |ctx, args| range(ctx, args, Some(By::Score), Some(true)))
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::double("max"),
            Arg::double("min"),
            Arg::word("withscores", "WITHSCORES").optional(),
            LIMIT,
        ])
        .since("2.2.0")
        .history(&["2.1.6"])
        .deprecated("6.2.0", "`ZRANGE` with the `REV` and `BYSCORE` arguments")
        .complexity("O(log(N)+M) where N is the number of members and M that of those given.")
        .summary("Gives the members with scores in a range, the highest score first."),
];

/// The bounds of a range.
enum Bounds<'a> {
    /// From rank to rank, both included; negative ones count from the end.
    Rank(i64, i64),
    Score(ScoreRange),
    Lex(LexBound<'a>, LexBound<'a>),
}

struct ScoreRange {
    min: f64,
    max: f64,
    without_min: bool,
    without_max: bool,
}

impl ScoreRange {
    fn parse(min: &[u8], max: &[u8]) -> Result<ScoreRange, CmdError> {
        let invalid = CmdError::of("ERR min or max is not a float");
        let bound = |text: &[u8]| match text {
            [b'(', rest @ ..] => lenient_f64(rest).map(|score| (score, true)),
            text => lenient_f64(text).map(|score| (score, false)),
        };
        let (Some((min, without_min)), Some((max, without_max))) = (bound(min), bound(max)) else {
            return Err(invalid);
        };
        Ok(ScoreRange { min, max, without_min, without_max })
    }

    /// Whether a score comes before the range.
    fn is_after(&self, score: f64) -> bool {
        if self.without_min { score <= self.min } else { score < self.min }
    }

    /// Whether a score comes before the end of the range.
    fn ends_after(&self, score: f64) -> bool {
        if self.without_max { score < self.max } else { score <= self.max }
    }
}

/// Reads a score as C's `strtod` does, up to the first zero byte: leading blanks are skipped, an empty text is 0, and
/// what is too large is infinite.
fn lenient_f64(text: &[u8]) -> Option<f64> {
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let start = text.iter().position(|b| !b.is_ascii_whitespace() && *b != 0x0b)?;
    let text = &text[start..];
    let other = || std::str::from_utf8(text).ok()?.parse::<f64>().ok();
    parse_f64(text).or_else(other).filter(|score| !score.is_nan())
}

/// An end of a range of texts.
#[derive(Clone, Copy)]
enum LexBound<'a> {
    /// Before all texts.
    Low,
    /// After all texts.
    High,
    With(&'a [u8]),
    Without(&'a [u8]),
}

impl<'a> LexBound<'a> {
    fn parse(text: &'a [u8]) -> Result<LexBound<'a>, CmdError> {
        match text {
            [b'-'] | [b'-', 0, ..] => Ok(LexBound::Low),
            [b'+'] | [b'+', 0, ..] => Ok(LexBound::High),
            [b'[', rest @ ..] => Ok(LexBound::With(rest)),
            [b'(', rest @ ..] => Ok(LexBound::Without(rest)),
            _ => Err(CmdError::of("ERR min or max not valid string range item")),
        }
    }

    /// As the lower end: whether a text comes before the range.
    fn is_after(self, text: &[u8]) -> bool {
        match self {
            LexBound::Low => false,
            LexBound::High => true,
            LexBound::With(bound) => text < bound,
            LexBound::Without(bound) => text <= bound,
        }
    }

    /// As the upper end: whether a text comes before the end of the range.
    fn ends_after(self, text: &[u8]) -> bool {
        match self {
            LexBound::Low => false,
            LexBound::High => true,
            LexBound::With(bound) => text <= bound,
            LexBound::Without(bound) => text < bound,
        }
    }
}

/// The kind of a range's bounds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Rank,
    Score,
    Lex,
}

impl<'a> Bounds<'a> {
    fn parse(by: By, min: &'a [u8], max: &'a [u8]) -> Result<Bounds<'a>, CmdError> {
        Ok(match by {
            By::Rank => Bounds::Rank(int_arg(min)?, int_arg(max)?),
            By::Score => Bounds::Score(ScoreRange::parse(min, max)?),
            By::Lex => Bounds::Lex(LexBound::parse(min)?, LexBound::parse(max)?),
        })
    }

    /// The members of the range: the first rank and how many there are. `back`: ranks in the bounds count from the
    /// other end, the result's do not.
    fn in_zset(&self, zset: &Zset, back: bool) -> (usize, usize) {
        let between = |start: usize, end: usize| (start, end.saturating_sub(start));
        match self {
            Bounds::Rank(start, stop) => {
                let len = zset.len() as i64;
                let from_end = |i: i64| if i < 0 { i + len } else { i };
                let (start, stop) = (from_end(*start).max(0), from_end(*stop).min(len - 1));
                if start > stop {
                    return (0, 0);
                }
                let (start, stop) = if back { (len - 1 - stop, len - 1 - start) } else { (start, stop) };
                between(start as usize, stop as usize + 1)
            }
            Bounds::Score(range) => between(
                zset.partition_point(|score, _| range.is_after(score)),
                zset.partition_point(|score, _| range.ends_after(score)),
            ),
            Bounds::Lex(min, max) => between(
                zset.partition_point(|_, member| min.is_after(member)),
                zset.partition_point(|_, member| max.ends_after(member)),
            ),
        }
    }
}

/// A range query: the arguments of ZRANGE and similar commands.
struct Query<'a> {
    bounds: Bounds<'a>,
    back: bool,
    with_scores: bool,
    offset: i64,
    /// Negative: all.
    limit: i64,
}

impl<'a> Query<'a> {
    /// Reads the query whose key is argument `key`. `by` and `back` are given by the command's name, if at all.
    fn parse(
        args: Args<'a>,
        key: usize,
        by: Option<By>,
        back: Option<bool>,
        stores: bool,
    ) -> Result<Query<'a>, CmdError> {
        let (mut by_option, mut back_option) = (by, back);
        let (mut with_scores, mut offset, mut limit) = (false, 0, -1);
        let mut i = key + 3;
        while i < args.len() {
            let word = args.at(i);
            let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
            if !stores && is(b"WITHSCORES") {
                with_scores = true;
            } else if is(b"LIMIT") && i + 2 < args.len() {
                (offset, limit) = (int_arg(&args[i + 1])?, int_arg(&args[i + 2])?);
                i += 2;
            } else if back_option.is_none() && is(b"REV") {
                back_option = Some(true);
            } else if by_option.is_none() && is(b"BYLEX") {
                by_option = Some(By::Lex);
            } else if by_option.is_none() && is(b"BYSCORE") {
                by_option = Some(By::Score);
            } else {
                return Err(error::SYNTAX);
            }
            i += 1;
        }
        let (by, back) = (by_option.unwrap_or(By::Rank), back_option.unwrap_or(false));
        if limit != -1 && by == By::Rank {
            return Err(CmdError::of(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && by == By::Lex {
            return Err(CmdError::of("ERR syntax error, WITHSCORES not supported in combination with BYLEX"));
        }
        let (mut min, mut max) = (args.at(key + 1), args.at(key + 2));
        if back && by != By::Rank {
            (min, max) = (max, min);
        }
        Ok(Query { bounds: Bounds::parse(by, min, max)?, back, with_scores, offset, limit })
    }

    /// The number of members asked for, and the members.
    fn run<'z>(&self, zset: &'z Zset) -> (usize, Range<'z>) {
        let (mut start, mut count) = self.bounds.in_zset(zset, self.back);
        if !matches!(self.bounds, Bounds::Rank(..)) {
            // A negative offset leaves nothing.
            let skipped = usize::try_from(self.offset).unwrap_or(usize::MAX).min(count);
            let kept = usize::try_from(self.limit).unwrap_or(usize::MAX).min(count - skipped);
            if !self.back {
                start += skipped;
            } else {
                start += count - skipped - kept;
            }
            count = kept;
        }
        let from = if self.back { (start + count).saturating_sub(1) } else { start };
        (count, zset.range(from, count, self.back))
    }
}

fn range(ctx: &mut Ctx<'_>, args: Args<'_>, by: Option<By>, back: Option<bool>) -> CmdResult {
    let query = Query::parse(args, 1, by, back, false)?;
    let Some(entry) = ctx.ks.read(ctx.db, &args[1]) else { return ctx.out.just_empty() };
    let (count, members) = query.run(zset_of(entry)?);
    members_header(ctx.out, count, query.with_scores);
    members.for_each(|(member, score)| reply_member(ctx.out, member, score, query.with_scores));
    Ok(())
}

fn zrangestore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let query = Query::parse(args, 2, None, None, true)?;
    let limits = limits(ctx);
    let mut stored = Zset::new();
    if let Some(entry) = ctx.ks.read(ctx.db, &args[2]) {
        let (count, members) = query.run(zset_of(entry)?);
        let announced = if matches!(query.bounds, Bounds::Rank(..)) { count } else { 0 };
        stored = Zset::for_members(announced, 0, &limits);
        members.for_each(|(member, score)| {
            stored.set(member.bytes(&mut IntBuf::new()), score, &limits);
        });
    }
    store(ctx, &args[1], stored, "zrangestore");
    Ok(())
}

fn count(ctx: &mut Ctx<'_>, args: Args<'_>, by: By) -> CmdResult {
    let bounds = Bounds::parse(by, args.at(2), args.at(3))?;
    let count = match ctx.ks.read(ctx.db, &args[1]) {
        Some(entry) => bounds.in_zset(zset_of(entry)?, false).1,
        None => 0,
    };
    ctx.out.just_int(count as i64)
}

fn remove_range(ctx: &mut Ctx<'_>, args: Args<'_>, by: By, event: &'static str) -> CmdResult {
    let bounds = Bounds::parse(by, args.at(2), args.at(3))?;
    let key = &args[1];
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_int(0) };
    let zset = zset_mut(&mut entry)?;
    let (start, count) = bounds.in_zset(zset, false);
    if count < zset.len() {
        zset.remove_range(start, count, &mut |_, _| {});
        let is_empty = zset.is_empty();
        drop(entry);
        if count > 0 {
            members_removed(ctx, key, event, count, is_empty);
        }
    } else {
        // All members go: the value as a whole can be freed on the helper thread.
        drop(entry);
        let lazy = ctx.cfg.lazyfree_lazy_server_del;
        let ks = &mut ctx.ks;
        ks.effects.notify(notify::ZSET, event, key, ctx.db);
        ks.delete(ctx.db, key, lazy);
        ks.effects.notify(notify::GENERIC, "del", key, ctx.db);
        ctx.dirty(count as u64);
    }
    ctx.out.just_int(count as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_strtod_does() {
        for (text, value) in [
            (&b""[..], Some(0.0)),
            (b"  1.5", Some(1.5)),
            (b"1\0x", Some(1.0)),
            (b"1e400", Some(f64::INFINITY)),
            (b"-1e-400", Some(-0.0)),
            (b"-inf", Some(f64::NEG_INFINITY)),
            (b"+3", Some(3.0)),
            (b"0x10", Some(16.0)),
            (b" ", None),
            (b"nan", None),
            (b"1 ", None),
            (b"x", None),
        ] {
            assert_eq!(lenient_f64(text), value, "{text:?}");
        }
    }
}
