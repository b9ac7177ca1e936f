//! Sorted set commands that combine several: unions, intersections and differences.

use super::prelude::*;
use super::zset::{limits, members_header, reply_member, store};
use super::{bounded_arg, int_arg};
use crate::keyspace::set::Set;
use crate::keyspace::zset::{Zset, sort_members};
use crate::keyspace::{Entry, Object};
use crate::structs::listpack::Item;
use crate::structs::numbers::parse_f64;
use std::collections::HashMap;

const WEIGHTS: Arg = Arg::integer("weight").token("WEIGHTS").optional().multiple();
const AGGREGATE: Arg = Arg::one_of("aggregate").token("AGGREGATE").optional().of(&[
    Arg::word("sum", "SUM"),
    Arg::word("min", "MIN"),
    Arg::word("max", "MAX"),
]);
/// Where the result goes, and what it is made of.
const STORE_KEYS: &[KeySpec] =
    &[KeySpec::range(key::OW | key::UPDATE, 1, 0, 1), KeySpec::numbered(key::RO | key::ACCESS, 2)];

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::SortedSet, "zdiff", |ctx, args| join(ctx, args, Join::Diff, Outcome::Reply))
        .flags(flag::READONLY)
        .keys(&[KeySpec::numbered(key::RO | key::ACCESS, 1)])
        .args(&[
            Arg::integer("numkeys"),
            Arg::key("key", 0).multiple(),
            Arg::word("withscores", "WITHSCORES").optional(),
        ])
        .since("6.2.0")
        .complexity(
            "O(L + (N-K)log(N)) where L is the number of members of all sets, N that of the first one and K \
             that of the result.",
        )
        .summary("Gives the members of the first sorted set that none of the others has."),
    command(Group::SortedSet, "zdiffstore", |ctx, args| join(ctx, args, Join::Diff, Outcome::Store))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(STORE_KEYS)
        .args(&[Arg::key("destination", 0), Arg::integer("numkeys"), Arg::key("key", 1).multiple()])
        .since("6.2.0")
        .complexity(
            "O(L + (N-K)log(N)) where L is the number of members of all sets, N that of the first one and K \
             that of the result.",
        )
        .summary("Stores the members of the first sorted set that none of the others has."),
    command(Group::SortedSet, "zinter", |ctx, args| join(ctx, args, Join::Inter, Outcome::Reply))
        .flags(flag::READONLY)
        .keys(&[KeySpec::numbered(key::RO | key::ACCESS, 1)])
        .args(&[
            Arg::integer("numkeys"),
            Arg::key("key", 0).multiple(),
            WEIGHTS,
            AGGREGATE,
            Arg::word("withscores", "WITHSCORES").optional(),
        ])
        .since("6.2.0")
        .complexity(
            "O(N*K)+O(M*log(M)) where N is the size of the smallest set, K the number of sets and M that of \
             members of the result.",
        )
        .summary("Gives the members that all sorted sets have."),
    command(Group::SortedSet, "zintercard", |ctx, args| join(ctx, args, Join::Inter, Outcome::Count))
        .flags(flag::READONLY)
        .keys(&[KeySpec::numbered(key::RO | key::ACCESS, 1)])
        .args(&[
            Arg::integer("numkeys"),
            Arg::key("key", 0).multiple(),
            Arg::integer("limit").token("LIMIT").optional(),
        ])
        .since("7.0.0")
        .complexity("O(N*K) where N is the size of the smallest set and K the number of sets.")
        .summary("Counts the members that all sorted sets have."),
    command(Group::SortedSet, "zinterstore", |ctx, args| join(ctx, args, Join::Inter, Outcome::Store))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(STORE_KEYS)
        .args(&[Arg::key("destination", 0), Arg::integer("numkeys"), Arg::key("key", 1).multiple(), WEIGHTS, AGGREGATE])
        .since("2.0.0")
        .complexity(
            "O(N*K)+O(M*log(M)) where N is the size of the smallest set, K the number of sets and M that of \
             members of the result.",
        )
        .summary("Stores the members that all sorted sets have."),
    command(Group::SortedSet, "zunion", |ctx, args| join(ctx, args, Join::Union, Outcome::Reply))
        .flags(flag::READONLY)
        .keys(&[KeySpec::numbered(key::RO | key::ACCESS, 1)])
        .args(&[
            Arg::integer("numkeys"),
            Arg::key("key", 0).multiple(),
            WEIGHTS,
            AGGREGATE,
            Arg::word("withscores", "WITHSCORES").optional(),
        ])
        .since("6.2.0")
        .complexity("O(N)+O(M*log(M)) where N is the number of members of all sets and M that of the result.")
        .summary("Gives the members that any of the sorted sets has."),
    command(Group::SortedSet, "zunionstore", |ctx, args| join(ctx, args, Join::Union, Outcome::Store))
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(STORE_KEYS)
        .args(&[Arg::key("destination", 0), Arg::integer("numkeys"), Arg::key("key", 1).multiple(), WEIGHTS, AGGREGATE])
        .since("2.0.0")
        .complexity("O(N)+O(M*log(M)) where N is the number of members of all sets and M that of the result.")
        .summary("Stores the members that any of the sorted sets has."),
];

/// How sorted sets are combined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Join {
    Inter,
    Union,
    Diff,
}

/// How the scores of a member are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn parse(word: &[u8]) -> Result<Aggregate, CmdError> {
        match word {
            w if w.eq_ignore_ascii_case(b"SUM") => Ok(Aggregate::Sum),
            w if w.eq_ignore_ascii_case(b"MIN") => Ok(Aggregate::Min),
            w if w.eq_ignore_ascii_case(b"MAX") => Ok(Aggregate::Max),
            _ => Err(error::SYNTAX),
        }
    }

    /// No result is NaN: opposite infinities add up to 0, and a NaN that a weight made is ignored.
    fn apply(self, a: f64, b: f64) -> f64 {
        match self {
            Aggregate::Sum => number(a + b),
            Aggregate::Min => {
                if b < a {
                    b
                } else {
                    a
                }
            }
            Aggregate::Max => {
                if b > a {
                    b
                } else {
                    a
                }
            }
        }
    }
}

/// 0 in place of NaN.
fn number(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// A source: a sorted set, or a set whose members all have the score 1.
#[derive(Clone, Copy)]
enum Source<'s> {
    Zset(&'s Zset),
    Set(&'s Set),
    Missing,
}

impl<'s> Source<'s> {
    fn of(entry: &'s Entry) -> Result<Source<'s>, CmdError> {
        match entry.object() {
            Some(Object::Zset(zset)) => Ok(Source::Zset(zset)),
            Some(Object::Set(set)) => Ok(Source::Set(set)),
            _ => Err(error::WRONG_TYPE),
        }
    }

    fn len(&self) -> usize {
        match self {
            Source::Zset(zset) => zset.len(),
            Source::Set(set) => set.len(),
            Source::Missing => 0,
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = (Item<'s>, f64)> + 's> {
        match *self {
            Source::Zset(zset) => Box::new(zset.iter()),
            Source::Set(set) => Box::new(set.iter().map(|item| (item, 1.0))),
            Source::Missing => Box::new(std::iter::empty()),
        }
    }

    fn score(&self, member: Item<'_>) -> Option<f64> {
        match self {
            Source::Zset(zset) => zset.score(member.bytes(&mut IntBuf::new())),
            Source::Set(set) => set.contains_item(member).then_some(1.0),
            Source::Missing => None,
        }
    }

    fn is(&self, other: &Source<'_>) -> bool {
        match (self, other) {
            (Source::Zset(a), Source::Zset(b)) => std::ptr::eq(*a, *b),
            (Source::Set(a), Source::Set(b)) => std::ptr::eq(*a, *b),
            _ => false,
        }
    }
}

/// The arguments of the joining commands.
struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
    limit: usize,
}

/// What is done with the result of a join.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Reply,
    Store,
    Count,
}

impl Options {
    /// Reads the options from argument `at` on.
    fn parse(args: Args<'_>, mut at: usize, keys: usize, how: Join, to: Outcome) -> Result<Options, CmdError> {
        let mut options = Options { weights: vec![1.0; keys], aggregate: Aggregate::Sum, with_scores: false, limit: 0 };
        let has_scores = how != Join::Diff && to != Outcome::Count;
        while at < args.len() {
            let word = args.at(at);
            let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
            let behind = args.len() - at - 1;
            if has_scores && behind >= keys && is(b"WEIGHTS") {
                for (weight, text) in options.weights.iter_mut().zip(args.from(at + 1).iter()) {
                    *weight = parse_f64(text).ok_or(CmdError::of("ERR weight value is not a float"))?;
                }
                at += keys;
            } else if has_scores && behind >= 1 && is(b"AGGREGATE") {
                options.aggregate = Aggregate::parse(&args[at + 1])?;
                at += 1;
            } else if to == Outcome::Reply && is(b"WITHSCORES") {
                options.with_scores = true;
            } else if to == Outcome::Count && behind >= 1 && is(b"LIMIT") {
                options.limit = bounded_arg(&args[at + 1], 0, "ERR LIMIT can't be negative")? as usize;
                at += 1;
            } else {
                return Err(error::SYNTAX);
            }
            at += 1;
        }
        Ok(options)
    }
}

/// Calls `emit` with the members that all sources have, and their scores, until it returns false. The smallest source
/// is first.
fn inter<'s>(sources: &[(Source<'s>, f64)], aggregate: Aggregate, mut emit: impl FnMut(Item<'s>, f64) -> bool) {
    let Some(((first, weight), others)) = sources.split_first() else { return };
    for (member, own) in first.iter() {
        let score = others.iter().try_fold(number(weight * own), |score, (source, weight)| {
            let value = if source.is(first) { own } else { source.score(member)? };
            Some(aggregate.apply(score, value * weight))
        });
        if let Some(score) = score
            && !emit(member, score)
        {
            return;
        }
    }
}

/// A member in the form in which equal ones are equal, whichever encoding they come from.
fn plain(member: Item<'_>) -> Item<'_> {
    match member {
        Item::Str(text) => Item::of(text),
        int => int,
    }
}

fn union<'s>(sources: &[(Source<'s>, f64)], aggregate: Aggregate) -> Vec<(Item<'s>, f64)> {
    let mut all: HashMap<Item<'s>, f64> = HashMap::with_capacity(sources.last().map_or(0, |(s, _)| s.len()));
    for (source, weight) in sources {
        for (member, score) in source.iter() {
            let score = number(weight * score);
            all.entry(plain(member)).and_modify(|s| *s = aggregate.apply(*s, score)).or_insert(score);
        }
    }
    all.into_iter().collect()
}

fn diff<'s>(sources: &[(Source<'s>, f64)]) -> Vec<(Item<'s>, f64)> {
    let Some(((first, _), others)) = sources.split_first() else { return Vec::new() };
    if others.iter().any(|(source, _)| source.is(first)) {
        return Vec::new();
    }
    let mut others: Vec<Source<'_>> = others.iter().map(|(source, _)| *source).filter(|s| s.len() > 0).collect();
    // The larger a set, the more likely it settles the question.
    others.sort_by_key(|source| std::cmp::Reverse(source.len()));
    first.iter().filter(|(member, _)| !others.iter().any(|s| s.score(*member).is_some())).collect()
}

fn join(ctx: &mut Ctx<'_>, args: Args<'_>, how: Join, to: Outcome) -> CmdResult {
    let keynum_at = if to == Outcome::Store { 2 } else { 1 };
    let count = int_arg(&args[keynum_at])?;
    if count < 1 {
        return Err(CmdError::text(format!("ERR at least 1 input key is needed for '{}' command", ctx.cmd.name)));
    }
    let keys_at = keynum_at + 1;
    let count = usize::try_from(count).ok().filter(|n| *n <= args.len() - keys_at).ok_or(error::SYNTAX)?;
    let keys = args.between(keys_at, keys_at + count);
    // All keys are looked up first, as that may delete expired ones.
    let mut is_there = Vec::with_capacity(count);
    for key in keys.iter() {
        let entry = ctx.ks.read(ctx.db, key);
        is_there.push(entry.as_ref().map(|e| Source::of(e).map(drop)).transpose()?.is_some());
    }
    let options = Options::parse(args, keys_at + count, count, how, to)?;
    let limits = limits(ctx);
    let db = &ctx.ks.dbs[ctx.db];
    let mut sources: Vec<(Source<'_>, f64)> = Vec::with_capacity(count);
    for ((key, is_there), weight) in keys.iter().zip(is_there).zip(&options.weights) {
        let entry = if is_there { db.get(key) } else { None };
        sources.push((entry.map_or(Ok(Source::Missing), Source::of)?, *weight));
    }
    if how != Join::Diff {
        sources.sort_by_key(|(source, _)| source.len());
    }
    let mut members = Vec::new();
    match how {
        Join::Inter if to == Outcome::Count => {
            let mut found = 0;
            inter(&sources, options.aggregate, |_, _| {
                found += 1;
                options.limit == 0 || found < options.limit
            });
            return ctx.out.just_int(found as i64);
        }
        Join::Inter => inter(&sources, options.aggregate, |member, score| {
            members.push((member, score));
            true
        }),
        Join::Union => members = union(&sources, options.aggregate),
        Join::Diff => members = diff(&sources),
    }
    sort_members(&mut members);
    if to == Outcome::Reply {
        members_header(ctx.out, members.len(), options.with_scores);
        members.iter().for_each(|(member, score)| reply_member(ctx.out, *member, *score, options.with_scores));
        return Ok(());
    }
    let zset = Zset::from_sorted(&members, &limits);
    let event = match how {
        Join::Inter => "zinterstore",
        Join::Union => "zunionstore",
        Join::Diff => "zdiffstore",
    };
    store(ctx, &args[1], zset, event);
    Ok(())
}
