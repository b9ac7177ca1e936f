//! What the commands of lists, sets, hashes and sorted sets have in common.

use super::prelude::*;
use super::scan::ScanOptions;
use super::{bounded_arg, reply_item};
use crate::keyspace::Object;
use crate::resp::Reply;
use crate::structs::listpack::Item;
use crate::structs::numbers::parse_f64;
use std::collections::HashSet;
use std::hash::Hash;

/// To be called after `count` elements were removed from a key's value: publishes the event, and deletes the key if
/// nothing is left (`is_empty`).
pub(crate) fn elements_removed(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    (class, event): (u32, &'static str),
    count: usize,
    is_empty: bool,
) {
    let lazy = ctx.cfg.lazyfree_lazy_server_del;
    let ks = &mut ctx.ks;
    ks.effects.notify(class, event, key, ctx.db);
    if is_empty {
        ks.delete(ctx.db, key, lazy);
        ks.effects.notify(notify::GENERIC, "del", key, ctx.db);
    } else {
        ks.signal_modified(ctx.db, key);
    }
    ctx.dirty(count as u64);
}

/// Stores what was made of other values, `len` elements, which count as so many changes; or deletes the key if there are none.
/// Replies with their number.
pub(crate) fn store_result(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    (value, len): (Object, usize),
    (class, event): (u32, &'static str),
    changes: usize,
) {
    let lazy = ctx.cfg.lazyfree_lazy_server_del;
    let ks = &mut ctx.ks;
    if len > 0 {
        ks.set(ctx.db, key, NewValue::Object(value), false);
        ks.effects.notify(class, event, key, ctx.db);
        ctx.dirty(changes as u64);
    } else if ks.delete(ctx.db, key, lazy) {
        ks.effects.notify(notify::GENERIC, "del", key, ctx.db);
        ctx.dirty(1);
    }
    ctx.out.int(len as i64);
}

/// The ends from which elements of a type are popped.
pub(crate) trait PopEnd: Copy {
    /// The type, as TYPE prints it.
    const OF: &'static str;

    fn parse(word: &[u8]) -> Result<Self, CmdError>;

    /// Removes elements from the value of the first of the keys that exists, and replies with that key and them. False if
    /// none exists. Without a count one element is removed and is not wrapped in an array.
    fn pop_first(self, ctx: &mut Ctx<'_>, keys: Args<'_>, count: Option<usize>) -> Result<bool, CmdError>;
}

/// LMPOP and ZMPOP.
pub(crate) fn multi_pop<E: PopEnd>(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let what = MultiPop::<E>::parse(args, 1)?;
    if !what.end.pop_first(ctx, what.keys, Some(what.count))? {
        ctx.out.null_array();
    }
    Ok(())
}

/// BLMPOP and BZMPOP.
pub(crate) fn blocking_multi_pop<E: PopEnd>(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let what = MultiPop::<E>::parse(args, 2)?;
    let deadline_ms = timeout_arg(&args[1], ctx.now_ms())?;
    pop_or_wait(ctx, what.keys, what.end, Some(what.count), deadline_ms)
}

/// BLPOP, BZPOPMIN and the like: keys, and a timeout.
pub(crate) fn blocking_pop(ctx: &mut Ctx<'_>, args: Args<'_>, end: impl PopEnd) -> CmdResult {
    let last = args.len() - 1;
    let deadline_ms = timeout_arg(&args[last], ctx.now_ms())?;
    pop_or_wait(ctx, args.between(1, last), end, None, deadline_ms)
}

fn pop_or_wait<E: PopEnd>(
    ctx: &mut Ctx<'_>,
    keys: Args<'_>,
    end: E,
    count: Option<usize>,
    deadline_ms: Option<i64>,
) -> CmdResult {
    if !end.pop_first(ctx, keys, count)? {
        wait_for_keys(ctx, keys, E::OF, deadline_ms);
    }
    Ok(())
}

/// The arguments of LMPOP, ZMPOP and their blocking forms: the keys, of which the first that has something is used, the
/// end, and how many elements.
struct MultiPop<'a, E> {
    keys: Args<'a>,
    end: E,
    count: usize,
}

impl<'a, E: PopEnd> MultiPop<'a, E> {
    /// `at`: the index of the number of keys.
    fn parse(args: Args<'a>, at: usize) -> Result<MultiPop<'a, E>, CmdError> {
        let count_of_keys = bounded_arg(&args[at], 1, "ERR numkeys should be greater than 0")? as usize;
        let end_at = at.checked_add(count_of_keys).and_then(|n| n.checked_add(1)).filter(|n| *n < args.len());
        let end_at = end_at.ok_or(error::SYNTAX)?;
        let end = E::parse(&args[end_at])?;
        let mut count = None;
        let mut i = end_at + 1;
        while i < args.len() {
            match args.get(i + 1) {
                Some(value) if count.is_none() && args[i].eq_ignore_ascii_case(b"COUNT") => {
                    count = Some(bounded_arg(value, 1, "ERR count should be greater than 0")? as usize);
                }
                _ => return Err(error::SYNTAX),
            }
            i += 2;
        }
        Ok(MultiPop { keys: args.between(at + 1, end_at), end, count: count.unwrap_or(1) })
    }
}

/// A timeout in seconds with a fraction, as the wall clock time at which it ends, ms; `None` for 0: never.
pub(super) fn timeout_arg(arg: &[u8], now_ms: i64) -> Result<Option<i64>, CmdError> {
    const TOO_LARGE: CmdError = CmdError::of("ERR timeout is out of range");
    let invalid = CmdError::of("ERR timeout is not a float or out of range");
    let ms = (parse_f64(arg).ok_or(invalid)? * 1000.0).ceil();
    if ms >= i64::MAX as f64 {
        return Err(TOO_LARGE);
    }
    if ms < 0.0 {
        return Err(CmdError::of("ERR timeout is negative"));
    }
    let ms = ms as i64;
    if ms == 0 {
        return Ok(None);
    }
    now_ms.checked_add(ms).map(Some).ok_or(TOO_LARGE)
}

/// Makes the client wait until one of the keys holds a value of the type `wanted`; a client that may not wait gets a
/// null array.
pub(crate) fn wait_for_keys(ctx: &mut Ctx<'_>, keys: Args<'_>, wanted: &'static str, deadline_ms: Option<i64>) {
    if ctx.session.denies_blocking() {
        ctx.out.null_array();
    } else {
        ctx.wait(keys.iter(), wanted, deadline_ms);
    }
}

/// `count` different elements at random, no more than the `len` that there are. `draw` gives one at random and its
/// identity; `None` where going through `all` is cheap enough.
pub(crate) fn choose<K: Hash + Eq, T>(
    count: usize,
    len: usize,
    all: impl Iterator<Item = T>,
    draw: Option<impl FnMut() -> Option<(K, T)>>,
) -> Vec<T> {
    /// For more than this part of the elements (1/3), drawing again what was drawn already takes longer than going
    /// through all.
    const PART: usize = 3;
    if count == len {
        return all.collect();
    }
    if let Some(mut draw) = draw.filter(|_| count.saturating_mul(PART) < len) {
        let mut seen = HashSet::new();
        let mut chosen = Vec::with_capacity(count);
        while chosen.len() < count
            && let Some((name, element)) = draw()
        {
            if seen.insert(name) {
                chosen.push(element);
            }
        }
        return chosen;
    }
    let mut left = count;
    let taken = all.enumerate().filter(|(i, _)| {
        // Each of the elements still to come is as likely as the others.
        let taken = fastrand::usize(..len - i) < left;
        left -= usize::from(taken);
        taken
    });
    taken.map(|(_, element)| element).collect()
}

/// Calls `f` with `count` independent random elements until it returns false; with none if there are none. True if it
/// never did. `all`: the elements, where going through them takes no longer than a few draws.
pub(crate) fn draw_many<T: Copy>(
    count: usize,
    all: Option<impl Iterator<Item = T>>,
    draw: impl Fn() -> Option<T>,
    f: impl FnMut(T) -> bool,
) -> bool {
    /// More draws than this from a packed value take longer than going through it.
    const FEW: usize = 3;
    match all {
        Some(all) if count > FEW => {
            let all: Vec<T> = all.collect();
            (0..count).filter_map(|_| all.get(fastrand::usize(..all.len().max(1))).copied()).all(f)
        }
        _ => (0..count).filter_map(|_| draw()).all(f),
    }
}

/// What one call of SSCAN, HSCAN or ZSCAN finds.
pub(crate) struct Found<'a> {
    options: ScanOptions<'a>,
    reply: Reply,
    matches: usize,
    looked_at: i64,
}

impl Found<'_> {
    /// How many elements are still to be looked at; at least 1.
    pub(crate) fn wanted(&self) -> usize {
        usize::try_from(self.options.count - self.looked_at).unwrap_or(0).max(1)
    }

    /// Looks at an element. If its name matches it is part of the reply; the rest of the element is to be added to the
    /// returned reply.
    pub(crate) fn look_at(&mut self, name: Item<'_>) -> Option<&mut Reply> {
        self.looked_at += 1;
        if !self.options.matches(name.bytes(&mut IntBuf::new())) {
            return None;
        }
        self.matches += 1;
        reply_item(&mut self.reply, name);
        Some(&mut self.reply)
    }
}

/// Goes on from `cursor` until enough elements were looked at, and replies with `width` values for each that matches.
/// `step` looks at some elements and gives the next cursor; `None`: there is no such key.
pub(crate) fn scan_elements(
    out: &mut Reply,
    args: Args<'_>,
    mut cursor: u64,
    width: usize,
    step: Option<impl FnMut(u64, &mut Found<'_>) -> u64>,
) -> CmdResult {
    let Some(mut step) = step else {
        out.array(2);
        out.bulk(b"0");
        return out.just_empty();
    };
    let options = ScanOptions::parse(args, 3, false)?;
    let mut found = Found { options, reply: Reply::default(), matches: 0, looked_at: 0 };
    // Steps that find nothing end the call, too, but ten times as many.
    let mut steps = options.count.saturating_mul(10);
    loop {
        cursor = step(cursor, &mut found);
        steps -= 1;
        if cursor == 0 || found.looked_at >= options.count || steps <= 0 {
            break;
        }
    }
    out.array(2);
    out.bulk(cursor.to_string().as_bytes());
    out.array(found.matches * width);
    out.raw(&found.reply.buf);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_is_drawn_now_and_then() {
        for (count, packed) in [(0, true), (2, true), (200, true), (200, false)] {
            let mut seen = [0; 10];
            for _ in 0..500 {
                let mut drawn = 0;
                let finished = draw_many(
                    count,
                    packed.then_some(0..10),
                    || Some(fastrand::usize(..10)),
                    |n| {
                        seen[n] += 1;
                        drawn += 1;
                        drawn < 150
                    },
                );
                assert_eq!((finished, drawn), (count < 150, count.min(150)));
            }
            assert!(count == 0 || seen.iter().all(|n| *n > 0), "{seen:?}");
        }
        assert!(draw_many(5, Some(0..0), || Some(1), |_| panic!("there is nothing")));
    }

    #[test]
    fn what_is_chosen_differs_and_everything_is_chosen_now_and_then() {
        for (count, draws) in [(0, false), (1, true), (3, true), (3, false), (9, true), (10, false), (10, true)] {
            let mut seen = [0; 10];
            for _ in 0..500 {
                let draw = || {
                    let n = fastrand::usize(..10);
                    Some((n, n))
                };
                let chosen = choose(count, 10, 0..10, draws.then_some(draw));
                assert_eq!(chosen.len(), count);
                assert_eq!(chosen.iter().collect::<HashSet<_>>().len(), count);
                chosen.iter().for_each(|n| seen[*n] += 1);
            }
            assert!(count == 0 || seen.iter().all(|n| *n > 0), "{seen:?}");
        }
    }
}
