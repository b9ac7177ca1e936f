//! Sorted set commands: members, scores and ranks, and blocking pops. Ranges and joins have files of their own.

use super::collection::{
    Found, PopEnd, blocking_multi_pop, blocking_pop, choose, draw_many, elements_removed, multi_pop, scan_elements,
    store_result,
};
use super::prelude::*;
use super::scan::{SCAN_ARGS, cursor_arg};
use super::{count_arg, random_count_arg, reply_item};
use crate::keyspace::zset::{Update, Zset, ZsetLimits};
use crate::keyspace::{Entry, Object};
use crate::resp::Reply;
use crate::structs::listpack::Item;
use crate::structs::numbers::{NumText, f64_text, f64_text_g17, parse_f64};

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::SortedSet, "bzmpop", blocking_multi_pop::<End>)
        .flags(flag::BLOCKING | flag::WRITE)
        .keys(&[KeySpec::numbered(key::RW | key::ACCESS | key::DELETE, 2)])
        .args(&[
            Arg::double("timeout"),
            Arg::integer("numkeys"),
            Arg::key("key", 0).multiple(),
            Arg::one_of("where").of(&[Arg::word("min", "MIN"), Arg::word("max", "MAX")]),
            Arg::integer("count").token("COUNT").optional(),
        ])
        .since("7.0.0")
        .complexity(
            "O(K)+O(M*log(N)) where K is the number of keys, N the number of members and M the number of \
             members taken.",
        )
        .summary("Takes the lowest or highest members from the first sorted set that has some; waits until one does."),
    command(Group::SortedSet, "bzpopmax", |ctx, args| blocking_pop(ctx, args, End::Max))
        .flags(flag::BLOCKING | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, -2, 1)])
        .args(&[Arg::key("key", 0).multiple(), Arg::double("timeout")])
        .since("5.0.0")
        .history(&["6.0.0"])
        .complexity("O(log(N)) where N is the number of members.")
        .summary("Takes the highest member from the first sorted set that has some; waits until one does."),
    command(Group::SortedSet, "bzpopmin", |ctx, args| blocking_pop(ctx, args, End::Min))
        .flags(flag::BLOCKING | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, -2, 1)])
        .args(&[Arg::key("key", 0).multiple(), Arg::double("timeout")])
        .since("5.0.0")
        .history(&["6.0.0"])
        .complexity("O(log(N)) where N is the number of members.")
        .summary("Takes the lowest member from the first sorted set that has some; waits until one does."),
    command(Group::SortedSet, "zadd", zadd)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::one_of("condition").since("3.0.2").optional().of(&[Arg::word("nx", "NX"), Arg::word("xx", "XX")]),
            Arg::one_of("comparison").since("6.2.0").optional().of(&[Arg::word("gt", "GT"), Arg::word("lt", "LT")]),
            Arg::word("change", "CH").since("3.0.2").optional(),
            Arg::word("increment", "INCR").since("3.0.2").optional(),
            Arg::block("data").multiple().of(&[Arg::double("score"), Arg::string("member")]),
        ])
        .since("1.2.0")
        .history(&["2.4.0", "3.0.2", "6.2.0"])
        .complexity("O(log(N)) for each member, where N is the number of members.")
        .summary("Adds members to a sorted set, or gives them other scores. The set is created when it is not there."),
    command(Group::SortedSet, "zcard", zcard)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("1.2.0")
        .summary("Counts the members of a sorted set."),
    command(Group::SortedSet, "zincrby", zincrby)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("increment"), Arg::string("member")])
        .since("1.2.0")
        .complexity("O(log(N)) where N is the number of members.")
        .summary("Adds a number to the score of a member; a missing one counts from 0."),
    command(Group::SortedSet, "zmpop", multi_pop::<End>)
        .flags(flag::WRITE)
        .keys(&[KeySpec::numbered(key::RW | key::ACCESS | key::DELETE, 1)])
        .args(&[
            Arg::integer("numkeys"),
            Arg::key("key", 0).multiple(),
            Arg::one_of("where").of(&[Arg::word("min", "MIN"), Arg::word("max", "MAX")]),
            Arg::integer("count").token("COUNT").optional(),
        ])
        .since("7.0.0")
        .complexity(
            "O(K)+O(M*log(N)) where K is the number of keys, N the number of members and M the number of \
             members taken.",
        )
        .summary("Takes the lowest or highest members from the first sorted set that has some."),
    command(Group::SortedSet, "zmscore", zmscore)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member").multiple()])
        .since("6.2.0")
        .complexity("O(N) where N is the number of members asked for.")
        .summary("Gives the scores of several members."),
    command(Group::SortedSet, "zpopmax", |ctx, args| pop(ctx, args, End::Max))
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("count").optional()])
        .since("5.0.0")
        .complexity("O(log(N)*M) where N is the number of members and M that of those taken.")
        .summary("Takes the highest members of a sorted set."),
    command(Group::SortedSet, "zpopmin", |ctx, args| pop(ctx, args, End::Min))
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("count").optional()])
        .since("5.0.0")
        .complexity("O(log(N)*M) where N is the number of members and M that of those taken.")
        .summary("Takes the lowest members of a sorted set."),
    command(Group::SortedSet, "zrandmember", zrandmember)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::block("options")
                .optional()
                .of(&[Arg::integer("count"), Arg::word("withscores", "WITHSCORES").optional()]),
        ])
        .since("6.2.0")
        .complexity("O(N*log(M)) where N is the number of members asked for and M that of members.")
        .summary("Gives members of a sorted set at random.")
        .tips(&["nondeterministic_output"]),
    command(Group::SortedSet, "zrank", |ctx, args| rank(ctx, args, false))
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member"), Arg::word("withscore", "WITHSCORE").optional()])
        .since("2.0.0")
        .history(&["7.2.0"])
        .complexity("O(log(N))")
        .summary("Gives the rank of a member, the lowest score first."),
    command(Group::SortedSet, "zrem", zrem)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member").multiple()])
        .since("1.2.0")
        .history(&["2.4.0"])
        .complexity("O(M*log(N)) where N is the number of members and M that of those removed.")
        .summary("Removes members from a sorted set."),
    command(Group::SortedSet, "zrevrank", |ctx, args| rank(ctx, args, true))
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member"), Arg::word("withscore", "WITHSCORE").optional()])
        .since("2.0.0")
        .history(&["7.2.0"])
        .complexity("O(log(N))")
        .summary("Gives the rank of a member, the highest score first."),
    command(Group::SortedSet, "zscan", zscan)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(SCAN_ARGS)
        .since("2.8.0")
        .complexity("O(1) a call; O(N) for a full pass, where N is the number of members.")
        .summary("Goes through the members of a sorted set step by step.")
        .tips(&["nondeterministic_output"]),
    command(Group::SortedSet, "zscore", zscore)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("member")])
        .since("1.2.0")
        .summary("Gives the score of a member."),
];

/// The type that blocking commands wait for.
const ZSET: &str = "zset";

pub(crate) fn zset_of(entry: &Entry) -> Result<&Zset, CmdError> {
    match entry.object() {
        Some(Object::Zset(zset)) => Ok(zset),
        _ => Err(error::WRONG_TYPE),
    }
}

pub(crate) fn zset_mut(entry: &mut Entry) -> Result<&mut Zset, CmdError> {
    match entry.object_mut() {
        Some(Object::Zset(zset)) => Ok(zset),
        _ => Err(error::WRONG_TYPE),
    }
}

pub(crate) fn limits(ctx: &Ctx<'_>) -> ZsetLimits {
    ctx.limits().zset
}

pub(crate) fn score_arg(arg: &[u8]) -> Result<f64, CmdError> {
    parse_f64(arg).ok_or(error::NOT_A_FLOAT)
}

/// Writes the array header for `count` members; with scores, RESP2 has two elements for each.
pub(crate) fn members_header(out: &mut Reply, count: usize, with_scores: bool) {
    out.array(if with_scores && !out.resp3 { count * 2 } else { count });
}

/// Writes a member after [`members_header`].
pub(crate) fn reply_member(out: &mut Reply, member: Item<'_>, score: f64, with_scores: bool) {
    if with_scores && out.resp3 {
        out.array(2);
    }
    reply_item(out, member);
    if with_scores {
        out.double(score);
    }
}

/// Stores a sorted set that was made of others, or deletes the key if it is empty, and replies with its size.
pub(crate) fn store(ctx: &mut Ctx<'_>, key: &[u8], zset: Zset, event: &'static str) {
    let len = zset.len();
    store_result(ctx, key, (Object::Zset(zset), len), (notify::ZSET, event), 1);
}

/// To be called after members were removed from a sorted set.
pub(crate) fn members_removed(ctx: &mut Ctx<'_>, key: &[u8], event: &'static str, count: usize, is_empty: bool) {
    elements_removed(ctx, key, (notify::ZSET, event), count, is_empty);
}

/// The options of ZADD.
#[derive(Clone, Copy, Default)]
pub(crate) struct AddOptions {
    /// Only add (NX), or only change what is there (XX).
    pub(crate) nx: bool,
    pub(crate) xx: bool,
    /// Only raise (GT) or lower (LT) scores that are there.
    pub(crate) gt: bool,
    pub(crate) lt: bool,
    /// Reply with the number of changed members, too.
    pub(crate) ch: bool,
    /// Add to the score, and reply with it.
    pub(crate) incr: bool,
}

impl AddOptions {
    /// Reads an option. False: the word is not one.
    fn read(&mut self, word: &[u8]) -> bool {
        let options: [(&[u8], &mut bool); 6] = [
            (b"nx", &mut self.nx),
            (b"xx", &mut self.xx),
            (b"gt", &mut self.gt),
            (b"lt", &mut self.lt),
            (b"ch", &mut self.ch),
            (b"incr", &mut self.incr),
        ];
        for (name, set) in options {
            if word.eq_ignore_ascii_case(name) {
                *set = true;
                return true;
            }
        }
        false
    }
}

/// The result of adding members.
#[derive(Default)]
struct Added {
    added: usize,
    changed: usize,
    /// The score of the last member, unless an option kept the old one.
    score: Option<f64>,
}

fn zadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut options = AddOptions::default();
    let mut at = 2;
    while at < args.len() && options.read(&args[at]) {
        at += 1;
    }
    add(ctx, &args[1], args.from(at), options)
}

fn zincrby(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let options = AddOptions { incr: true, ..AddOptions::default() };
    add(ctx, &args[1], args.from(2), options)
}

/// Adds members, given as alternating scores and members, and replies as ZADD does.
pub(crate) fn add(ctx: &mut Ctx<'_>, key: &[u8], pairs: Args<'_>, options: AddOptions) -> CmdResult {
    let AddOptions { nx, xx, gt, lt, ch, incr } = options;
    if pairs.is_empty() || !pairs.len().is_multiple_of(2) {
        return Err(error::SYNTAX);
    }
    if nx && xx {
        return Err(CmdError::of("ERR XX and NX options at the same time are not compatible"));
    }
    if (nx && (gt || lt)) || (gt && lt) {
        return Err(CmdError::of("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    if incr && pairs.len() > 2 {
        return Err(CmdError::of("ERR INCR option supports a single increment-element pair"));
    }
    // All scores are read before anything changes; a single one is not stored.
    let first = score_arg(&pairs[0])?;
    let scores: Vec<f64> =
        if pairs.len() > 2 { pairs.iter().step_by(2).map(score_arg).collect::<Result<_, _>>()? } else { Vec::new() };
    let members = (1..pairs.len()).step_by(2).map(|i| {
        let score = scores.get(i / 2).copied().unwrap_or(first);
        (pairs.at(i), score)
    });
    let limits = limits(ctx);
    let ks = &mut ctx.ks;
    let result = if let Some(mut entry) = ks.write(ctx.db, key) {
        let zset = zset_mut(&mut entry)?;
        zset.will_grow(pairs.len() / 2, &limits);
        add_members(zset, members, options, &limits)?
    } else if xx {
        Added::default()
    } else {
        let mut zset = Zset::for_members(pairs.len() / 2, pairs[1].len(), &limits);
        let result = add_members(&mut zset, members, options, &limits)?;
        ks.insert(ctx.db, key, zset.into(), None);
        result
    };
    let Added { added, changed, score } = result;
    if added + changed > 0 {
        ctx.changed(notify::ZSET, if incr { "zincr" } else { "zadd" }, key, (added + changed) as u64);
    }
    match score {
        Some(score) if incr => ctx.out.double(score),
        None if incr => ctx.out.null(),
        _ => ctx.out.int(if ch { added + changed } else { added } as i64),
    }
    Ok(())
}

fn add_members<'a>(
    zset: &mut Zset,
    members: impl Iterator<Item = (&'a [u8], f64)>,
    options: AddOptions,
    limits: &ZsetLimits,
) -> Result<Added, CmdError> {
    let mut result = Added::default();
    for (member, given) in members {
        let mut wanted = None;
        let done = zset.update(member, limits, |old| {
            wanted = match old {
                None if options.xx => None,
                None => Some(given),
                Some(_) if options.nx => None,
                Some(old) => {
                    let new = if options.incr { old + given } else { given };
                    let refused = (options.lt && new >= old) || (options.gt && new <= old);
                    (!refused).then_some(new)
                }
            };
            wanted.filter(|score| !score.is_nan())
        });
        // INCR takes a single member, so nothing was changed before it.
        if wanted.is_some_and(f64::is_nan) {
            return Err(CmdError::of("ERR resulting score is not a number (NaN)"));
        }
        result.added += usize::from(done == Update::Added);
        result.changed += usize::from(done == Update::Moved);
        result.score = wanted;
    }
    Ok(result)
}

fn zrem(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let key = &args[1];
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_int(0) };
    let zset = zset_mut(&mut entry)?;
    let removed = args.from(2).iter().filter(|m| zset.remove(m).is_some()).count();
    let is_empty = zset.is_empty();
    drop(entry);
    if removed > 0 {
        members_removed(ctx, key, "zrem", removed, is_empty);
    }
    ctx.out.just_int(removed as i64)
}

fn zcard(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let len = match ctx.ks.read(ctx.db, &args[1]) {
        Some(entry) => zset_of(entry)?.len(),
        None => 0,
    };
    ctx.out.just_int(len as i64)
}

fn reply_score(out: &mut Reply, score: Option<f64>) {
    match score {
        Some(score) => out.double(score),
        None => out.null(),
    }
}

fn zscore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let zset = entry.as_ref().map(|e| zset_of(e)).transpose()?;
    reply_score(ctx.out, zset.and_then(|z| z.score(&args[2])));
    Ok(())
}

fn zmscore(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let zset = entry.as_ref().map(|e| zset_of(e)).transpose()?;
    let members = args.from(2);
    ctx.out.array(members.len());
    members.iter().for_each(|m| reply_score(ctx.out, zset.and_then(|z| z.score(m))));
    Ok(())
}

fn rank(ctx: &mut Ctx<'_>, args: Args<'_>, from_end: bool) -> CmdResult {
    let with_score = match (args.len(), args.get(3)) {
        (..=3, _) => false,
        (4, Some(word)) if word.eq_ignore_ascii_case(b"WITHSCORE") => true,
        (4, _) => return Err(error::SYNTAX),
        _ => return Err(CmdError::wrong_arity(ctx.cmd.name)),
    };
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let zset = entry.as_ref().map(|e| zset_of(e)).transpose()?;
    let found = zset.and_then(|z| z.rank(&args[2]).map(|(rank, score)| (z.len(), rank, score)));
    match found {
        Some((len, rank, score)) => {
            if with_score {
                ctx.out.array(2);
            }
            ctx.out.int(if from_end { len - 1 - rank } else { rank } as i64);
            if with_score {
                ctx.out.double(score);
            }
        }
        None if with_score => ctx.out.null_array(),
        None => ctx.out.null(),
    }
    Ok(())
}

/// An end of a sorted set.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Min,
    Max,
}

impl End {
    fn event(self) -> &'static str {
        if self == End::Min { "zpopmin" } else { "zpopmax" }
    }

    fn command(self) -> &'static [u8] {
        if self == End::Min { b"ZPOPMIN" } else { b"ZPOPMAX" }
    }
}

/// Removes up to `count` members from an end and calls `f` with each, the outermost first. `count` is at least 1 and
/// the sorted set not empty. Returns how many.
fn take(zset: &mut Zset, end: End, count: usize, f: &mut dyn FnMut(Item<'_>, f64)) -> usize {
    let len = zset.len();
    let count = count.min(len);
    match end {
        End::Min => zset.remove_range(0, count, f),
        End::Max => {
            zset.range(len - 1, count, true).for_each(|(member, score)| f(member, score));
            zset.remove_range(len - count, count, &mut |_, _| {});
        }
    }
    count
}

fn pop(ctx: &mut Ctx<'_>, args: Args<'_>, end: End) -> CmdResult {
    if args.len() > 3 {
        return Err(error::SYNTAX);
    }
    let count = args.get(2).map(count_arg).transpose()?;
    let key = &args[1];
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_empty() };
    let zset = zset_mut(&mut entry)?;
    if count == Some(0) {
        return ctx.out.just_empty();
    }
    let out = &mut *ctx.out;
    let pairs_apart = count.is_some() && out.resp3;
    let wanted = count.unwrap_or(1).min(zset.len());
    out.array(if pairs_apart { wanted } else { wanted * 2 });
    let taken = take(zset, end, wanted, &mut |member, score| {
        if pairs_apart {
            out.array(2);
        }
        reply_item(out, member);
        out.double(score);
    });
    let is_empty = zset.is_empty();
    drop(entry);
    members_removed(ctx, key, end.event(), taken, is_empty);
    Ok(())
}

impl PopEnd for End {
    const OF: &'static str = ZSET;

    fn parse(word: &[u8]) -> Result<End, CmdError> {
        match word {
            w if w.eq_ignore_ascii_case(b"MIN") => Ok(End::Min),
            w if w.eq_ignore_ascii_case(b"MAX") => Ok(End::Max),
            _ => Err(error::SYNTAX),
        }
    }

    fn pop_first(self, ctx: &mut Ctx<'_>, keys: Args<'_>, count: Option<usize>) -> Result<bool, CmdError> {
        for key in keys.iter() {
            let Some(mut entry) = ctx.ks.write(ctx.db, key) else { continue };
            let zset = zset_mut(&mut entry)?;
            let out = &mut *ctx.out;
            match count {
                Some(count) => {
                    out.array(2);
                    out.bulk(key);
                    out.array(count.min(zset.len()));
                }
                None => {
                    out.array(3);
                    out.bulk(key);
                }
            }
            let taken = take(zset, self, count.unwrap_or(1), &mut |member, score| {
                if count.is_some() {
                    out.array(2);
                }
                reply_item(out, member);
                out.double(score);
            });
            let is_empty = zset.is_empty();
            drop(entry);
            members_removed(ctx, key, self.event(), taken, is_empty);
            let effects = &mut ctx.ks.effects;
            match count {
                Some(_) => effects.replace_with(&[self.command(), key, IntBuf::new().format(taken as i64)]),
                None => effects.replace_with(&[self.command(), key]),
            }
            return Ok(true);
        }
        Ok(false)
    }
}

fn zrandmember(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let count = args.get(2).map(random_count_arg).transpose()?;
    let with_scores = match args.get(3) {
        None => false,
        Some(word) if args.len() == 4 && word.eq_ignore_ascii_case(b"WITHSCORES") => true,
        Some(_) => return Err(error::SYNTAX),
    };
    // The length of the reply, twice the count, must not overflow.
    if with_scores && count.is_some_and(|n| n.unsigned_abs() > i64::MAX as u64 / 2) {
        return Err(CmdError::of("ERR value is out of range"));
    }
    let room = ctx.session.reply_room();
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let zset = entry.as_ref().map(|e| zset_of(e)).transpose()?;
    let Some(count) = count else {
        match zset.and_then(Zset::random) {
            Some((member, _)) => reply_item(ctx.out, member),
            None => ctx.out.null(),
        }
        return Ok(());
    };
    let Some(zset) = zset else { return ctx.out.just_empty() };
    let wanted = count.unsigned_abs() as usize;
    let out = &mut *ctx.out;
    let mut finished = true;
    if count < 0 {
        members_header(out, wanted, with_scores);
        let all = matches!(zset, Zset::Packed(_)).then(|| zset.iter());
        finished = draw_many(
            wanted,
            all,
            || zset.random(),
            |(member, score)| {
                reply_member(out, member, score, with_scores);
                out.buf.len() <= room
            },
        );
    } else {
        let members = random_members(zset, wanted.min(zset.len()));
        members_header(out, members.len(), with_scores);
        members.into_iter().for_each(|(member, score)| reply_member(out, member, score, with_scores));
    }
    if !finished {
        ctx.close_client();
    }
    Ok(())
}

/// `count` different members at random, no more than there are, with their scores.
fn random_members(zset: &Zset, count: usize) -> Vec<(Item<'_>, f64)> {
    let draw = || {
        let rank = fastrand::usize(..zset.len());
        zset.range(rank, 1, false).next().map(|member| (rank, member))
    };
    choose(count, zset.len(), zset.iter(), matches!(zset, Zset::Ordered(_)).then_some(draw))
}

fn zscan(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let cursor = cursor_arg(&args[2])?;
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let zset = entry.as_ref().map(|e| zset_of(e)).transpose()?;
    let step = zset.map(|zset| {
        // Scores of large sorted sets are printed with `%.17g`, those of small ones as they are stored.
        let text: fn(f64) -> NumText = if matches!(zset, Zset::Ordered(_)) { f64_text_g17 } else { f64_text };
        move |cursor, found: &mut Found<'_>| {
            zset.scan(cursor, found.wanted(), &mut |member, score| {
                if let Some(reply) = found.look_at(member) {
                    reply.bulk(&text(score));
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
    fn scores_decide_the_order() {
        let mut bare = Bare::new();
        assert_eq!(bare.run("zadd z 2 b 1 a 3 c"), ":3");
        assert_eq!(bare.run("zrange z 0 -1"), "*3 $1 a $1 b $1 c");
        assert_eq!((bare.run("zadd z gt ch 1 c 9 a"), bare.run("zrank z a")), (":1".into(), ":2".into()));
        assert_eq!((bare.run("zpopmin z"), bare.changes()), ("*2 $1 b $1 2".into(), 5));
        assert_eq!(bare.run("zadd z nan a"), "-ERR value is not a valid float");
    }
}
