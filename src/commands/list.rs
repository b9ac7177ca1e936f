//! List commands, and what waits for lists to have elements.

use super::collection::{self, MultiPop, wait_for_keys};
use super::prelude::*;
use super::{count_arg, int_arg, reply_item};
use crate::keyspace::list::{End, List};
use crate::keyspace::{Entry, Object};
use crate::resp::Reply;
use crate::structs::listpack::Item;
use crate::structs::numbers::parse_f64;
use crate::structs::quicklist::Limits;

const ENDS: &[Arg] = &[arg("left", ArgKind::PureToken).token("LEFT"), arg("right", ArgKind::PureToken).token("RIGHT")];
const FROM_TO: &[KeySpec] =
    &[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1), KeySpec::range(key::RW | key::INSERT, 2, 0, 1)];

pub(crate) const COMMANDS: &[DataCommand] = &[
    Command {
        name: "blmove",
        run: Some(blmove),
        arity: 6,
        flags: flag::BLOCKING | flag::DENYOOM | flag::WRITE,
        acl: cat::LIST,
        keys: FROM_TO,
        group: Group::List,
        since: "6.2.0",
        complexity: "O(1)",
        summary: "Moves an element from an end of a list to an end of another; waits until there is one.",
        args: &[
            arg("source", ArgKind::Key).spec(0),
            arg("destination", ArgKind::Key).spec(1),
            arg("wherefrom", ArgKind::OneOf).of(ENDS),
            arg("whereto", ArgKind::OneOf).of(ENDS),
            arg("timeout", ArgKind::Double),
        ],
        ..Command::ROW
    },
    Command {
        name: "blmpop",
        run: Some(blmpop),
        arity: -5,
        flags: flag::BLOCKING | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::numbered(key::RW | key::ACCESS | key::DELETE, 2)],
        group: Group::List,
        since: "7.0.0",
        complexity: "O(N+M) where N is the number of keys and M the number of elements taken.",
        summary: "Takes elements from the first list that has some; waits until one does.",
        args: &[
            arg("timeout", ArgKind::Double),
            arg("numkeys", ArgKind::Integer),
            arg("key", ArgKind::Key).spec(0).multiple(),
            arg("where", ArgKind::OneOf).of(ENDS),
            arg("count", ArgKind::Integer).token("COUNT").optional(),
        ],
        ..Command::ROW
    },
    Command {
        name: "blpop",
        run: Some(blpop),
        arity: -3,
        flags: flag::BLOCKING | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, -2, 1)],
        group: Group::List,
        since: "2.0.0",
        complexity: "O(N) where N is the number of keys.",
        summary: "Takes the first element of the first list that has one; waits until one does.",
        history: &["6.0.0"],
        args: &[arg("key", ArgKind::Key).spec(0).multiple(), arg("timeout", ArgKind::Double)],
        ..Command::ROW
    },
    Command {
        name: "brpop",
        run: Some(brpop),
        arity: -3,
        flags: flag::BLOCKING | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, -2, 1)],
        group: Group::List,
        since: "2.0.0",
        complexity: "O(N) where N is the number of keys.",
        summary: "Takes the last element of the first list that has one; waits until one does.",
        history: &["6.0.0"],
        args: &[arg("key", ArgKind::Key).spec(0).multiple(), arg("timeout", ArgKind::Double)],
        ..Command::ROW
    },
    Command {
        name: "brpoplpush",
        run: Some(brpoplpush),
        arity: 4,
        flags: flag::BLOCKING | flag::DENYOOM | flag::WRITE,
        acl: cat::LIST,
        keys: FROM_TO,
        group: Group::List,
        since: "2.2.0",
        complexity: "O(1)",
        summary: "Moves the last element of a list to the beginning of another; waits until there is one.",
        history: &["6.0.0"],
        deprecated: Some(("6.2.0", "`BLMOVE` with the `RIGHT` and `LEFT` arguments")),
        args: &[
            arg("source", ArgKind::Key).spec(0),
            arg("destination", ArgKind::Key).spec(1),
            arg("timeout", ArgKind::Double),
        ],
        ..Command::ROW
    },
    Command {
        name: "lindex",
        run: Some(lindex),
        arity: 3,
        flags: flag::READONLY,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(N) where N is the number of elements to walk over; O(1) at either end.",
        summary: "Gives the element of an index.",
        args: &[arg("key", ArgKind::Key).spec(0), arg("index", ArgKind::Integer)],
        ..Command::ROW
    },
    Command {
        name: "linsert",
        run: Some(linsert),
        arity: 5,
        flags: flag::DENYOOM | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)],
        group: Group::List,
        since: "2.2.0",
        complexity: "O(N) where N is the number of elements before the pivot; O(1) at the beginning, O(N) at the end.",
        summary: "Adds an element next to another one.",
        args: &[
            arg("key", ArgKind::Key).spec(0),
            arg("where", ArgKind::OneOf).of(&[
                arg("before", ArgKind::PureToken).token("BEFORE"),
                arg("after", ArgKind::PureToken).token("AFTER"),
            ]),
            arg("pivot", ArgKind::String),
            arg("element", ArgKind::String),
        ],
        ..Command::ROW
    },
    Command {
        name: "llen",
        run: Some(llen),
        arity: 2,
        flags: flag::FAST | flag::READONLY,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RO, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(1)",
        summary: "Gives the length of a list.",
        args: &[arg("key", ArgKind::Key).spec(0)],
        ..Command::ROW
    },
    Command {
        name: "lmove",
        run: Some(lmove),
        arity: 5,
        flags: flag::DENYOOM | flag::WRITE,
        acl: cat::LIST,
        keys: FROM_TO,
        group: Group::List,
        since: "6.2.0",
        complexity: "O(1)",
        summary: "Moves an element from an end of a list to an end of another.",
        args: &[
            arg("source", ArgKind::Key).spec(0),
            arg("destination", ArgKind::Key).spec(1),
            arg("wherefrom", ArgKind::OneOf).of(ENDS),
            arg("whereto", ArgKind::OneOf).of(ENDS),
        ],
        ..Command::ROW
    },
    Command {
        name: "lmpop",
        run: Some(lmpop),
        arity: -4,
        flags: flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::numbered(key::RW | key::ACCESS | key::DELETE, 1)],
        group: Group::List,
        since: "7.0.0",
        complexity: "O(N+M) where N is the number of keys and M the number of elements taken.",
        summary: "Takes elements from the first list that has some.",
        args: &[
            arg("numkeys", ArgKind::Integer),
            arg("key", ArgKind::Key).spec(0).multiple(),
            arg("where", ArgKind::OneOf).of(ENDS),
            arg("count", ArgKind::Integer).token("COUNT").optional(),
        ],
        ..Command::ROW
    },
    Command {
        name: "lpop",
        run: Some(lpop),
        arity: -2,
        flags: flag::FAST | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(N) where N is the number of elements taken.",
        summary: "Takes elements from the beginning of a list.",
        history: &["6.2.0"],
        args: &[arg("key", ArgKind::Key).spec(0), arg("count", ArgKind::Integer).since("6.2.0").optional()],
        ..Command::ROW
    },
    Command {
        name: "lpos",
        run: Some(super::list_pos::lpos),
        arity: -3,
        flags: flag::READONLY,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)],
        group: Group::List,
        since: "6.0.6",
        complexity: "O(N) where N is the length of the list; less with MAXLEN, or when the matches are near the end begun with.",
        summary: "Finds the indexes of elements.",
        args: &[
            arg("key", ArgKind::Key).spec(0),
            arg("element", ArgKind::String),
            arg("rank", ArgKind::Integer).token("RANK").optional(),
            arg("num-matches", ArgKind::Integer).token("COUNT").optional(),
            arg("len", ArgKind::Integer).token("MAXLEN").optional(),
        ],
        ..Command::ROW
    },
    Command {
        name: "lpush",
        run: Some(lpush),
        arity: -3,
        flags: flag::DENYOOM | flag::FAST | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(1) for each element.",
        summary: "Adds elements at the beginning of a list, which is created when it is not there.",
        history: &["2.4.0"],
        args: &[arg("key", ArgKind::Key).spec(0), arg("element", ArgKind::String).multiple()],
        ..Command::ROW
    },
    Command {
        name: "lpushx",
        run: Some(lpushx),
        arity: -3,
        flags: flag::DENYOOM | flag::FAST | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)],
        group: Group::List,
        since: "2.2.0",
        complexity: "O(1) for each element.",
        summary: "Adds elements at the beginning of a list, provided that it is there.",
        history: &["4.0.0"],
        args: &[arg("key", ArgKind::Key).spec(0), arg("element", ArgKind::String).multiple()],
        ..Command::ROW
    },
    Command {
        name: "lrange",
        run: Some(lrange),
        arity: 4,
        flags: flag::READONLY,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(S+N) where S is the distance of the first element from the nearer end and N the number of elements.",
        summary: "Gives the elements of a range of indexes.",
        args: &[arg("key", ArgKind::Key).spec(0), arg("start", ArgKind::Integer), arg("stop", ArgKind::Integer)],
        ..Command::ROW
    },
    Command {
        name: "lrem",
        run: Some(lrem),
        arity: 4,
        flags: flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(N+M) where N is the length of the list and M the number of elements removed.",
        summary: "Removes elements by their value.",
        args: &[arg("key", ArgKind::Key).spec(0), arg("count", ArgKind::Integer), arg("element", ArgKind::String)],
        ..Command::ROW
    },
    Command {
        name: "lset",
        run: Some(lset),
        arity: 4,
        flags: flag::DENYOOM | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(N) where N is the length of the list; O(1) at either end.",
        summary: "Puts another element in the place of one.",
        args: &[arg("key", ArgKind::Key).spec(0), arg("index", ArgKind::Integer), arg("element", ArgKind::String)],
        ..Command::ROW
    },
    Command {
        name: "ltrim",
        run: Some(ltrim),
        arity: 4,
        flags: flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(N) where N is the number of elements removed.",
        summary: "Removes what is outside a range of indexes.",
        args: &[arg("key", ArgKind::Key).spec(0), arg("start", ArgKind::Integer), arg("stop", ArgKind::Integer)],
        ..Command::ROW
    },
    Command {
        name: "rpop",
        run: Some(rpop),
        arity: -2,
        flags: flag::FAST | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::ACCESS | key::DELETE, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(N) where N is the number of elements taken.",
        summary: "Takes elements from the end of a list.",
        history: &["6.2.0"],
        args: &[arg("key", ArgKind::Key).spec(0), arg("count", ArgKind::Integer).since("6.2.0").optional()],
        ..Command::ROW
    },
    Command {
        name: "rpoplpush",
        run: Some(rpoplpush),
        arity: 3,
        flags: flag::DENYOOM | flag::WRITE,
        acl: cat::LIST,
        keys: FROM_TO,
        group: Group::List,
        since: "1.2.0",
        complexity: "O(1)",
        summary: "Moves the last element of a list to the beginning of another.",
        deprecated: Some(("6.2.0", "`LMOVE` with the `RIGHT` and `LEFT` arguments")),
        args: &[arg("source", ArgKind::Key).spec(0), arg("destination", ArgKind::Key).spec(1)],
        ..Command::ROW
    },
    Command {
        name: "rpush",
        run: Some(rpush),
        arity: -3,
        flags: flag::DENYOOM | flag::FAST | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)],
        group: Group::List,
        since: "1.0.0",
        complexity: "O(1) for each element.",
        summary: "Adds elements at the end of a list, which is created when it is not there.",
        history: &["2.4.0"],
        args: &[arg("key", ArgKind::Key).spec(0), arg("element", ArgKind::String).multiple()],
        ..Command::ROW
    },
    Command {
        name: "rpushx",
        run: Some(rpushx),
        arity: -3,
        flags: flag::DENYOOM | flag::FAST | flag::WRITE,
        acl: cat::LIST,
        keys: &[KeySpec::range(key::RW | key::INSERT, 1, 0, 1)],
        group: Group::List,
        since: "2.2.0",
        complexity: "O(1) for each element.",
        summary: "Adds elements at the end of a list, provided that it is there.",
        history: &["4.0.0"],
        args: &[arg("key", ArgKind::Key).spec(0), arg("element", ArgKind::String).multiple()],
        ..Command::ROW
    },
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

/// A timeout in seconds with a fraction, as the wall clock time at which it ends, ms; `None` for 0: never.
pub(crate) fn timeout_arg(arg: &[u8], now_ms: i64) -> Result<Option<i64>, CmdError> {
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

fn push_event(end: End) -> &'static str {
    if end == End::Head { "lpush" } else { "rpush" }
}

fn pop_event(end: End) -> &'static str {
    if end == End::Head { "lpop" } else { "rpop" }
}

fn pop_command(end: End) -> &'static [u8] {
    if end == End::Head { b"LPOP" } else { b"RPOP" }
}

fn lpush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    push(ctx, args, End::Head, false)
}

fn rpush(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    push(ctx, args, End::Tail, false)
}

fn lpushx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    push(ctx, args, End::Head, true)
}

fn rpushx(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    push(ctx, args, End::Tail, true)
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
        ctx.out.int(0);
        return Ok(());
    } else {
        let mut list = List::new();
        let len = add_to(&mut list);
        ctx.ks.insert(ctx.db, key, list.into(), None);
        len
    };
    ctx.ks.signal_modified(ctx.db, key);
    ctx.ks.effects.notify(notify::LIST, push_event(end), key, ctx.db);
    ctx.dirty(added.len() as u64);
    ctx.out.int(len as i64);
    Ok(())
}

/// To be called after elements were removed from a list. Returns whether it is empty now.
fn is_used_up(list: &mut List, limits: Limits) -> bool {
    list.did_shrink(limits);
    list.is_empty()
}

fn elements_removed(ctx: &mut Ctx<'_>, key: &[u8], event: &'static str, count: usize, is_empty: bool) {
    collection::elements_removed(ctx, key, (notify::LIST, event), count, is_empty);
}

fn lpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    pop(ctx, args, End::Head)
}

fn rpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    pop(ctx, args, End::Tail)
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
            ctx.out.array(0);
            return Ok(());
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
    ctx.out.int(len as i64);
    Ok(())
}

fn lindex(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(entry) = ctx.ks.read(ctx.db, &args[1]) else {
        ctx.out.null();
        return Ok(());
    };
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
    ctx.ks.signal_modified(ctx.db, key);
    ctx.ks.effects.notify(notify::LIST, "lset", key, ctx.db);
    ctx.dirty(1);
    ctx.out.ok();
    Ok(())
}

fn linsert(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let limits = limits(ctx);
    let (key, pivot, text) = (&args[1], &args[3], &args[4]);
    let after = args[2].eq_ignore_ascii_case(b"AFTER");
    if !after && !args[2].eq_ignore_ascii_case(b"BEFORE") {
        return Err(error::SYNTAX);
    }
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else {
        ctx.out.int(0);
        return Ok(());
    };
    let list = list_mut(&mut entry)?;
    list.will_grow(text.len(), 1, limits);
    let wanted = Wanted::new(pivot);
    let Some(at) = list.walk(0).position(|item| wanted.is(item)) else {
        ctx.out.int(-1);
        return Ok(());
    };
    list.insert(at + usize::from(after), text, limits);
    let len = list.len();
    drop(entry);
    ctx.ks.signal_modified(ctx.db, key);
    ctx.ks.effects.notify(notify::LIST, "linsert", key, ctx.db);
    ctx.dirty(1);
    ctx.out.int(len as i64);
    Ok(())
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
    let Some(entry) = ctx.ks.read(ctx.db, &args[1]) else {
        ctx.out.array(0);
        return Ok(());
    };
    let list = list_of(entry)?;
    let Some((start, count)) = index_range(list.len(), start, stop) else {
        ctx.out.array(0);
        return Ok(());
    };
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
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else {
        ctx.out.ok();
        return Ok(());
    };
    let list = list_mut(&mut entry)?;
    let len = list.len();
    let (start, kept) = index_range(len, start, stop).unwrap_or((len, 0));
    list.remove_range(start + kept, len - start - kept);
    list.remove_range(0, start);
    let is_empty = is_used_up(list, limits);
    drop(entry);
    elements_removed(ctx, key, "ltrim", len - kept, is_empty);
    ctx.out.ok();
    Ok(())
}

fn lrem(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let limits = limits(ctx);
    let (key, text) = (&args[1], &args[3]);
    let count = int_arg(&args[2])?;
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else {
        ctx.out.int(0);
        return Ok(());
    };
    let max = if count == 0 { usize::MAX } else { count.unsigned_abs() as usize };
    let list = list_mut(&mut entry)?;
    let removed = list.remove_matching(text, max, count < 0);
    let is_empty = removed > 0 && is_used_up(list, limits);
    drop(entry);
    if removed > 0 {
        elements_removed(ctx, key, "lrem", removed, is_empty);
    }
    ctx.out.int(removed as i64);
    Ok(())
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

/// Removes elements from the first of the lists that exists, and replies with its key and them. False if none exists.
/// Without a count one element is removed and is not wrapped in an array.
fn pop_first(ctx: &mut Ctx<'_>, keys: Args<'_>, end: End, count: Option<usize>) -> Result<bool, CmdError> {
    let limits = limits(ctx);
    for key in keys.iter() {
        let Some(mut entry) = ctx.ks.write(ctx.db, key) else { continue };
        let list = list_mut(&mut entry)?;
        ctx.out.array(2);
        ctx.out.bulk(key);
        let taken = take(ctx.out, list, end, count);
        let is_empty = is_used_up(list, limits);
        drop(entry);
        elements_removed(ctx, key, pop_event(end), taken, is_empty);
        let effects = &mut ctx.ks.effects;
        match count {
            Some(_) => effects.replace_with(&[pop_command(end), key, IntBuf::new().format(taken as i64)]),
            None => effects.replace_with(&[pop_command(end), key]),
        }
        return Ok(true);
    }
    Ok(false)
}

fn lmpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let what = MultiPop::parse(args, 1, end_arg)?;
    if !pop_first(ctx, what.keys, what.end, Some(what.count))? {
        ctx.out.null_array();
    }
    Ok(())
}

fn blmpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let what = MultiPop::parse(args, 2, end_arg)?;
    let deadline_ms = timeout_arg(&args[1], ctx.now_ms())?;
    pop_or_wait(ctx, what.keys, what.end, Some(what.count), deadline_ms)
}

fn blpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    blocking_pop(ctx, args, End::Head)
}

fn brpop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    blocking_pop(ctx, args, End::Tail)
}

fn blocking_pop(ctx: &mut Ctx<'_>, args: Args<'_>, end: End) -> CmdResult {
    let last = args.len() - 1;
    let deadline_ms = timeout_arg(&args[last], ctx.now_ms())?;
    pop_or_wait(ctx, args.between(1, last), end, None, deadline_ms)
}

fn pop_or_wait(
    ctx: &mut Ctx<'_>,
    keys: Args<'_>,
    end: End,
    count: Option<usize>,
    deadline_ms: Option<i64>,
) -> CmdResult {
    if !pop_first(ctx, keys, end, count)? {
        wait_for_keys(ctx, keys, LIST, deadline_ms);
    }
    Ok(())
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
