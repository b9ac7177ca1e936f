//! List commands, and what waits for lists to have elements.

use super::collection::{self, PopEnd, blocking_multi_pop, blocking_pop, multi_pop, timeout_arg};
use super::prelude::*;
use super::{count_arg, int_arg, reply_item};
use crate::keyspace::list::{End, List};
use crate::keyspace::{Entry, Object};
use crate::resp::Reply;
use crate::structs::listpack::Item;
use crate::structs::quicklist::Limits;

const ENDS: &[Arg] = &[Arg::word("left", "LEFT"), Arg::word("right", "RIGHT")];
const FROM_TO: &[KeySpec] =
    &[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1), KeySpec::range(key::RW | key::INSERT, 2, 0, 1)];

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::List, "blmove", blmove)
        .flags(flag::BLOCKING | flag::DENYOOM | flag::WRITE)
        .keys(FROM_TO)
        .args(&[
            Arg::key("source", 0),
            Arg::key("destination", 1),
            Arg::one_of("wherefrom").of(ENDS),
            Arg::one_of("whereto").of(ENDS),
            Arg::double("timeout"),
        ])
        .since("6.2.0")
        .summary("Moves an element from an end of a list to an end of another; waits until there is one."),
    command(Group::List, "blmpop", blocking_multi_pop::<End>)
        .flags(flag::BLOCKING | flag::WRITE)
        .keys(&[KeySpec::numbered(key::RW | key::ACCESS | key::DELETE, 2)])
        .args(&[
            Arg::double("timeout"),
            Arg::integer("numkeys"),
            Arg::key("key", 0).multiple(),
            Arg::one_of("where").of(ENDS),
            Arg::integer("count").token("COUNT").optional(),
        ])
        .since("7.0.0")
        .complexity("O(N+M) where N is the number of keys and M the number of elements taken.")
        .summary("Takes elements from the first list that has some; waits until one does."),
    command(Group::List, "blpop", |ctx, args| blocking_pop(ctx, args, End::Head))
        .flags(flag::BLOCKING | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, -2, 1)])
        .args(&[Arg::key("key", 0).multiple(), Arg::double("timeout")])
        .since("2.0.0")
        .history(&["6.0.0"])
        .complexity("O(N) where N is the number of keys.")
        .summary("Takes the first element of the first list that has one; waits until one does."),
    command(Group::List, "brpop", |ctx, args| blocking_pop(ctx, args, End::Tail))
        .flags(flag::BLOCKING | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, -2, 1)])
        .args(&[Arg::key("key", 0).multiple(), Arg::double("timeout")])
        .since("2.0.0")
        .history(&["6.0.0"])
        .complexity("O(N) where N is the number of keys.")
        .summary("Takes the last element of the first list that has one; waits until one does."),
    command(Group::List, "brpoplpush", brpoplpush)
        .flags(flag::BLOCKING | flag::DENYOOM | flag::WRITE)
        .keys(FROM_TO)
        .args(&[Arg::key("source", 0), Arg::key("destination", 1), Arg::double("timeout")])
        .since("2.2.0")
        .history(&["6.0.0"])
        .deprecated("6.2.0", "`BLMOVE` with the `RIGHT` and `LEFT` arguments")
        .summary("Moves the last element of a list to the beginning of another; waits until there is one."),
    command(Group::List, "lindex", lindex)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("index")])
        .complexity("O(N) where N is the number of elements to walk over; O(1) at either end.")
        .summary("Gives the element of an index."),
    command(Group::List, "linsert", linsert)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::one_of("where").of(&[Arg::word("before", "BEFORE"), Arg::word("after", "AFTER")]),
            Arg::string("pivot"),
            Arg::string("element"),
        ])
        .since("2.2.0")
        .complexity("O(N) where N is the number of elements before the pivot; O(1) at the beginning, O(N) at the end.")
        .summary("Adds an element next to another one."),
    command(Group::List, "llen", llen)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .summary("Gives the length of a list."),
    command(Group::List, "lmove", lmove)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(FROM_TO)
        .args(&[
            Arg::key("source", 0),
            Arg::key("destination", 1),
            Arg::one_of("wherefrom").of(ENDS),
            Arg::one_of("whereto").of(ENDS),
        ])
        .since("6.2.0")
        .summary("Moves an element from an end of a list to an end of another."),
    command(Group::List, "lmpop", multi_pop::<End>)
        .flags(flag::WRITE)
        .keys(&[KeySpec::numbered(key::RW | key::ACCESS | key::DELETE, 1)])
        .args(&[
            Arg::integer("numkeys"),
            Arg::key("key", 0).multiple(),
            Arg::one_of("where").of(ENDS),
            Arg::integer("count").token("COUNT").optional(),
        ])
        .since("7.0.0")
        .complexity("O(N+M) where N is the number of keys and M the number of elements taken.")
        .summary("Takes elements from the first list that has some."),
    command(Group::List, "lpop", |ctx, args| pop(ctx, args, End::Head))
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("count").since("6.2.0").optional()])
        .history(&["6.2.0"])
        .complexity("O(N) where N is the number of elements taken.")
        .summary("Takes elements from the beginning of a list."),
    command(Group::List, "lpos", super::list_pos::lpos)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::string("element"),
            Arg::integer("rank").token("RANK").optional(),
            Arg::integer("num-matches").token("COUNT").optional(),
            Arg::integer("len").token("MAXLEN").optional(),
        ])
        .since("6.0.6")
        .complexity(
            "O(N) where N is the length of the list; less with MAXLEN, or when the matches are near the end \
             begun with.",
        )
        .summary("Finds the indexes of elements."),
    command(Group::List, "lpush", |ctx, args| push(ctx, args, End::Head, false))
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("element").multiple()])
        .history(&["2.4.0"])
        .complexity("O(1) for each element.")
        .summary("Adds elements at the beginning of a list, which is created when it is not there."),
    command(Group::List, "lpushx", |ctx, args| push(ctx, args, End::Head, true))
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("element").multiple()])
        .since("2.2.0")
        .history(&["4.0.0"])
        .complexity("O(1) for each element.")
        .summary("Adds elements at the beginning of a list, provided that it is there."),
    command(Group::List, "lrange", lrange)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("start"), Arg::integer("stop")])
        .complexity(
            "O(S+N) where S is the distance of the first element from the nearer end and N the number of \
             elements.",
        )
        .summary("Gives the elements of a range of indexes."),
    command(Group::List, "lrem", lrem)
        .flags(flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("count"), Arg::string("element")])
        .complexity("O(N+M) where N is the length of the list and M the number of elements removed.")
        .summary("Removes elements by their value."),
    command(Group::List, "lset", lset)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("index"), Arg::string("element")])
        .complexity("O(N) where N is the length of the list; O(1) at either end.")
        .summary("Puts another element in the place of one."),
    command(Group::List, "ltrim", ltrim)
        .flags(flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("start"), Arg::integer("stop")])
        .complexity("O(N) where N is the number of elements removed.")
        .summary("Removes what is outside a range of indexes."),
    command(Group::List, "rpop", |ctx, args| pop(ctx, args, End::Tail))
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("count").since("6.2.0").optional()])
        .history(&["6.2.0"])
        .complexity("O(N) where N is the number of elements taken.")
        .summary("Takes elements from the end of a list."),
    command(Group::List, "rpoplpush", rpoplpush)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(FROM_TO)
        .args(&[Arg::key("source", 0), Arg::key("destination", 1)])
        .since("1.2.0")
        .deprecated("6.2.0", "`LMOVE` with the `RIGHT` and `LEFT` arguments")
        .summary("Moves the last element of a list to the beginning of another."),
    command(Group::List, "rpush", |ctx, args| push(ctx, args, End::Tail, false))
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("element").multiple()])
        .history(&["2.4.0"])
        .complexity("O(1) for each element.")
        .summary("Adds elements at the end of a list, which is created when it is not there."),
    command(Group::List, "rpushx", |ctx, args| push(ctx, args, End::Tail, true))
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("element").multiple()])
        .since("2.2.0")
        .history(&["4.0.0"])
        .complexity("O(1) for each element.")
        .summary("Adds elements at the end of a list, provided that it is there."),
];

/// The type that blocking commands wait for.
const LIST: &str = "list";

pub(super) fn list_of(entry: &Entry) -> Result<&List, CmdError> {
    match entry.object() {
        Some(Object::List(list)) => Ok(list),
        _ => Err(error::WRONG_TYPE),
    }
}

fn list_mut(entry: &mut Entry) -> Result<&mut List, CmdError> {
    match entry.object_mut() {
        Some(Object::List(list)) => Ok(list),
        _ => Err(error::WRONG_TYPE),
    }
}

fn limits(ctx: &Ctx<'_>) -> Limits {
    ctx.limits().list
}

fn end_arg(arg: &[u8]) -> Result<End, CmdError> {
    if arg.eq_ignore_ascii_case(b"LEFT") {
        Ok(End::Head)
    } else if arg.eq_ignore_ascii_case(b"RIGHT") {
        Ok(End::Tail)
    } else {
        Err(error::SYNTAX)
    }
}

fn push_event(end: End) -> &'static str {
    if end == End::Head { "lpush" } else { "rpush" }
}

fn pop_event(end: End) -> &'static str {
    if end == End::Head { "lpop" } else { "rpop" }
}

fn pop_command(end: End) -> &'static [u8] {
    if end == End::Head { b"LPOP" } else { b"RPOP" }
}

fn push(ctx: &mut Ctx<'_>, args: Args<'_>, end: End, only_existing: bool) -> CmdResult {
    let limits = limits(ctx);
    let key = &args[1];
    let added = args.from(2);
    let add_to = |list: &mut List| {
        list.will_grow(added.total_len(), added.len(), limits);
        added.iter().for_each(|text| list.push(end, text, limits));
        list.len()
    };
    let len = if let Some(mut entry) = ctx.ks.write(ctx.db, key) {
        add_to(list_mut(&mut entry)?)
    } else if only_existing {
        return ctx.out.just_int(0);
    } else {
        let mut list = List::new();
        let len = add_to(&mut list);
        ctx.ks.insert(ctx.db, key, list.into(), None);
        len
    };
    ctx.changed(notify::LIST, push_event(end), key, added.len() as u64);
    ctx.out.just_int(len as i64)
}

/// To be called after elements were removed from a list. Returns whether it is empty now.
fn is_used_up(list: &mut List, limits: Limits) -> bool {
    list.did_shrink(limits);
    list.is_empty()
}

fn elements_removed(ctx: &mut Ctx<'_>, key: &[u8], event: &'static str, count: usize, is_empty: bool) {
    collection::elements_removed(ctx, key, (notify::LIST, event), count, is_empty);
}

fn pop(ctx: &mut Ctx<'_>, args: Args<'_>, end: End) -> CmdResult {
    let limits = limits(ctx);
    if args.len() > 3 {
        return Err(CmdError::wrong_arity(ctx.cmd.name));
    }
    let count = args.get(2).map(count_arg).transpose()?;
    let key = &args[1];
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else {
        if count.is_some() {
            ctx.out.null_array()
        } else {
            ctx.out.null()
        }
        return Ok(());
    };
    let list = list_mut(&mut entry)?;
    let taken = match count {
        Some(0) => {
            return ctx.out.just_empty();
        }
        count => take(ctx.out, list, end, count),
    };
    let is_empty = is_used_up(list, limits);
    drop(entry);
    elements_removed(ctx, key, pop_event(end), taken, is_empty);
    Ok(())
}

/// Removes up to `count` elements from an end and replies with them, the outermost first; without a count with one that is not
/// in an array. Returns how many.
fn take(out: &mut Reply, list: &mut List, end: End, count: Option<usize>) -> usize {
    let Some(count) = count else {
        list.pop(end, |item| reply_item(out, item));
        return 1;
    };
    let len = list.len();
    let count = count.min(len);
    out.array(count);
    match end {
        End::Head => {
            list.walk(0).take(count).for_each(|item| reply_item(out, item));
            list.remove_range(0, count);
        }
        End::Tail => {
            list.walk_back(len - 1).take(count).for_each(|item| reply_item(out, item));
            list.remove_range(len - count, count);
        }
    }
    count
}

fn llen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let len = match ctx.ks.read(ctx.db, &args[1]) {
        Some(entry) => list_of(entry)?.len(),
        None => 0,
    };
    ctx.out.just_int(len as i64)
}

fn lindex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(entry) = ctx.ks.read(ctx.db, &args[1]) else { return ctx.out.just_null() };
    let list = list_of(entry)?;
    let index = list.index(int_arg(&args[2])?);
    if index.and_then(|i| list.get(i, |item| reply_item(ctx.out, item))).is_none() {
        ctx.out.null();
    }
    Ok(())
}

fn lset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let limits = limits(ctx);
    let (key, text) = (&args[1], &args[3]);
    let mut entry = ctx.ks.write(ctx.db, key).ok_or(error::NO_SUCH_KEY)?;
    let list = list_mut(&mut entry)?;
    let index = int_arg(&args[2])?;
    list.will_grow(text.len(), 1, limits);
    let index = list.index(index).ok_or(error::OUT_OF_RANGE)?;
    list.set(index, text, limits);
    list.did_shrink(limits);
    drop(entry);
    ctx.changed(notify::LIST, "lset", key, 1);
    ctx.out.just_ok()
}

fn linsert(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let limits = limits(ctx);
    let (key, pivot, text) = (&args[1], &args[3], &args[4]);
    let after = args[2].eq_ignore_ascii_case(b"AFTER");
    if !after && !args[2].eq_ignore_ascii_case(b"BEFORE") {
        return Err(error::SYNTAX);
    }
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_int(0) };
    let list = list_mut(&mut entry)?;
    list.will_grow(text.len(), 1, limits);
    let wanted = Wanted::new(pivot);
    let Some(at) = list.walk(0).position(|item| wanted.is(item)) else { return ctx.out.just_int(-1) };
    list.insert(at + usize::from(after), text, limits);
    let len = list.len();
    drop(entry);
    ctx.changed(notify::LIST, "linsert", key, 1);
    ctx.out.just_int(len as i64)
}

/// A text that elements are compared with: read as an integer once.
pub(super) struct Wanted<'a> {
    text: &'a [u8],
    item: Item<'a>,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(text: &'a [u8]) -> Wanted<'a> {
        Wanted { text, item: Item::of(text) }
    }

    pub(super) fn is(&self, item: Item<'_>) -> bool {
        item == self.item || matches!(item, Item::Str(bytes) if bytes == self.text)
    }
}

/// The indexes from `start` to `stop`, both included and counted from the end when negative: first index and number;
/// `None` when the range is empty.
fn index_range(len: usize, start: i64, stop: i64) -> Option<(usize, usize)> {
    let len = len as i64;
    let from_end = |i: i64| if i < 0 { i + len } else { i };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(len - 1));
    (start <= stop).then(|| (start as usize, (stop - start) as usize + 1))
}

fn lrange(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    /// Bytes of RESP around a bulk string of some hundred bytes.
    const BULK_OVERHEAD: usize = 8;
    let (start, stop) = (int_arg(&args[2])?, int_arg(&args[3])?);
    let Some(entry) = ctx.ks.read(ctx.db, &args[1]) else { return ctx.out.just_empty() };
    let list = list_of(entry)?;
    let Some((start, count)) = index_range(list.len(), start, stop) else { return ctx.out.just_empty() };
    ctx.out.array(count);
    if let List::Quick(quick) = list
        && count > list.len() / 2
    {
        // A reply that grows as it is written is moved again and again, so its size is estimated from that of the list.
        ctx.out.buf.reserve(quick.mem_bytes() + count * BULK_OVERHEAD);
    }
    list.walk(start).take(count).for_each(|item| reply_item(ctx.out, item));
    Ok(())
}

fn ltrim(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let limits = limits(ctx);
    let (start, stop) = (int_arg(&args[2])?, int_arg(&args[3])?);
    let key = &args[1];
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_ok() };
    let list = list_mut(&mut entry)?;
    let len = list.len();
    let (start, kept) = index_range(len, start, stop).unwrap_or((len, 0));
    list.remove_range(start + kept, len - start - kept);
    list.remove_range(0, start);
    let is_empty = is_used_up(list, limits);
    drop(entry);
    elements_removed(ctx, key, "ltrim", len - kept, is_empty);
    ctx.out.just_ok()
}

fn lrem(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let limits = limits(ctx);
    let (key, text) = (&args[1], &args[3]);
    let count = int_arg(&args[2])?;
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_int(0) };
    let max = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
    let list = list_mut(&mut entry)?;
    let removed = list.remove_matching(text, max, count < 0);
    let is_empty = removed > 0 && is_used_up(list, limits);
    drop(entry);
    if removed > 0 {
        elements_removed(ctx, key, "lrem", removed, is_empty);
    }
    ctx.out.just_int(removed as i64)
}

fn lmove(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (from, to) = (end_arg(&args[3])?, end_arg(&args[4])?);
    move_or_null(ctx, args, from, to)
}

fn rpoplpush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    move_or_null(ctx, args, End::Tail, End::Head)
}

fn move_or_null(ctx: &mut Ctx<'_>, args: Args<'_>, from: End, to: End) -> CmdResult {
    if !move_element(ctx, &args[1], &args[2], from, to)? {
        ctx.out.null();
    }
    Ok(())
}

/// Moves an element between lists and replies with it. False if there is none.
fn move_element(ctx: &mut Ctx<'_>, source: &[u8], target: &[u8], from: End, to: End) -> Result<bool, CmdError> {
    let limits = limits(ctx);
    let ks = &mut ctx.ks;
    let Some(entry) = ks.write(ctx.db, source) else { return Ok(false) };
    list_of(&entry)?;
    drop(entry);
    let target_is_there = match ks.write(ctx.db, target) {
        Some(entry) => list_of(&entry).map(|_| true)?,
        None => false,
    };
    let taken = match ks.dbs[ctx.db].get_mut(source) {
        Some(mut entry) => list_mut(&mut entry)?.take(from),
        None => None,
    };
    let Some(text) = taken else { return Ok(false) };
    ctx.out.bulk(&text);
    let add_to = |list: &mut List| {
        list.will_grow(text.len(), 1, limits);
        list.push_owned(to, text, limits);
    };
    if target_is_there && let Some(mut entry) = ks.dbs[ctx.db].get_mut(target) {
        add_to(list_mut(&mut entry)?);
    } else {
        let mut list = List::new();
        add_to(&mut list);
        ks.insert(ctx.db, target, list.into(), None);
    }
    ks.signal_modified(ctx.db, target);
    ks.effects.notify(notify::LIST, push_event(to), target, ctx.db);
    // Only now: source and target may be one list.
    let is_empty = match ks.dbs[ctx.db].get_mut(source) {
        Some(mut entry) => is_used_up(list_mut(&mut entry)?, limits),
        None => false,
    };
    elements_removed(ctx, source, pop_event(from), 1, is_empty);
    Ok(true)
}

impl PopEnd for End {
    const OF: &'static str = LIST;

    fn parse(word: &[u8]) -> Result<End, CmdError> {
        end_arg(word)
    }

    fn pop_first(self, ctx: &mut Ctx<'_>, keys: Args<'_>, count: Option<usize>) -> Result<bool, CmdError> {
        let limits = limits(ctx);
        for key in keys.iter() {
            let Some(mut entry) = ctx.ks.write(ctx.db, key) else { continue };
            let list = list_mut(&mut entry)?;
            ctx.out.array(2);
            ctx.out.bulk(key);
            let taken = take(ctx.out, list, self, count);
            let is_empty = is_used_up(list, limits);
            drop(entry);
            elements_removed(ctx, key, pop_event(self), taken, is_empty);
            let effects = &mut ctx.ks.effects;
            match count {
                Some(_) => effects.replace_with(&[pop_command(self), key, IntBuf::new().format(taken as i64)]),
                None => effects.replace_with(&[pop_command(self), key]),
            }
            return Ok(true);
        }
        Ok(false)
    }
}

fn blmove(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (from, to) = (end_arg(&args[3])?, end_arg(&args[4])?);
    let deadline_ms = timeout_arg(&args[5], ctx.now_ms())?;
    if move_or_wait(ctx, args, from, to, deadline_ms)? {
        ctx.ks.effects.replace_with(&[b"LMOVE", &args[1], &args[2], &args[3], &args[4]]);
    }
    Ok(())
}

fn brpoplpush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let deadline_ms = timeout_arg(&args[3], ctx.now_ms())?;
    if move_or_wait(ctx, args, End::Tail, End::Head, deadline_ms)? {
        ctx.ks.effects.replace_with(&[b"RPOPLPUSH", &args[1], &args[2]]);
    }
    Ok(())
}

/// Whether it moved an element; otherwise the client waits, or has its reply.
fn move_or_wait(
    ctx: &mut Ctx<'_>,
    args: Args<'_>,
    from: End,
    to: End,
    deadline_ms: Option<i64>,
) -> Result<bool, CmdError> {
    let (source, target) = (&args[1], &args[2]);
    if move_element(ctx, source, target, from, to)? {
        return Ok(true);
    }
    if ctx.session.denies_blocking() {
        ctx.out.null();
    } else {
        ctx.wait([source], LIST, deadline_ms);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;

    #[test]
    fn who_finds_no_element_waits_unless_that_is_denied() {
        let mut bare = Bare::new();
        assert_eq!(bare.run("blpop a b 0"), "");
        let wait = Wait {
            keys: vec![b"a".to_vec(), b"b".to_vec()],
            wanted: LIST,
            or_gone: false,
            deadline_ms: None,
            args: None,
        };
        assert_eq!(bare.want, Some(Want::Wait(wait)));
        bare.caller.denies_blocking = true;
        assert_eq!((bare.run("blpop a b 0"), bare.want.take()), ("*-1".into(), None));
        assert_eq!(bare.run("rpush b 1 2 3"), ":3");
        assert_eq!(bare.run("blpop a b 0"), "*2 $1 b $1 1");
        assert_eq!(bare.run("lrange b 0 -1"), "*2 $1 2 $1 3");
        assert_eq!(bare.changes(), 4);
    }
}
