//! Stream commands on the log itself: adding, trimming, deleting, ranges. `read` holds XREAD and XREADGROUP, `group`
//! the commands on groups and pending entries, `info` XINFO.

pub(crate) mod group;
pub(crate) mod info;
pub(crate) mod read;

use super::prelude::*;
use super::{int_arg, reply_item};
use crate::keyspace::{Entry, Object};
use crate::resp::Reply;
use crate::structs::numbers::{parse_i64, split_sign};
use crate::structs::stream::{self, Limits, Stream, StreamId, Trim, TrimBy};

const RANGE_KEY: &[KeySpec] = &[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)];
const TRIM: &[Arg] = &[
    Arg::one_of("strategy").of(&[Arg::word("maxlen", "MAXLEN"), Arg::word("minid", "MINID").since("6.2.0")]),
    Arg::one_of("operator").optional().of(&[Arg::word("equal", "="), Arg::word("approximately", "~")]),
    Arg::string("threshold"),
    Arg::integer("count").token("LIMIT").since("6.2.0").optional(),
];

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Stream, "xadd", xadd)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)
            .notes("UPDATE instead of INSERT because of the optional trimming feature")])
        .args(&[
            Arg::key("key", 0),
            Arg::word("nomkstream", "NOMKSTREAM").since("6.2.0").optional(),
            Arg::block("trim").optional().of(TRIM),
            Arg::one_of("id-selector").of(&[Arg::word("auto-id", "*"), Arg::string("id")]),
            Arg::block("data").multiple().of(&[Arg::string("field"), Arg::string("value")]),
        ])
        .since("5.0.0")
        .history(&["6.2.0", "7.0.0"])
        .complexity("O(1) to add; O(N) to trim, where N is the number of entries removed.")
        .summary("Adds an entry at the end of a stream, which is created when it is not there.")
        .tips(&["nondeterministic_output"]),
    command(Group::Stream, "xdel", xdel)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("id").multiple()])
        .since("5.0.0")
        .complexity("O(1) for each entry, however long the stream is.")
        .summary("Deletes entries and gives the number of those that were there."),
    command(Group::Stream, "xlen", xlen)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO, 1, 0, 1)])
        .args(&[Arg::key("key", 0)])
        .since("5.0.0")
        .summary("Gives the number of entries of a stream."),
    command(Group::Stream, "xrange", |ctx, args| range(ctx, args, false))
        .flags(flag::READONLY)
        .keys(RANGE_KEY)
        .args(&[
            Arg::key("key", 0),
            Arg::string("start"),
            Arg::string("end"),
            Arg::integer("count").token("COUNT").optional(),
        ])
        .since("5.0.0")
        .history(&["6.2.0"])
        .complexity("O(N) where N is the number of entries given; O(1) with a constant COUNT.")
        .summary("Gives the entries of a range of ids."),
    command(Group::Stream, "xrevrange", |ctx, args| range(ctx, args, true))
        .flags(flag::READONLY)
        .keys(RANGE_KEY)
        .args(&[
            Arg::key("key", 0),
            Arg::string("end"),
            Arg::string("start"),
            Arg::integer("count").token("COUNT").optional(),
        ])
        .since("5.0.0")
        .history(&["6.2.0"])
        .complexity("O(N) where N is the number of entries given; O(1) with a constant COUNT.")
        .summary("Gives the entries of a range of ids, the last one first."),
    command(Group::Stream, "xsetid", xsetid)
        .flags(flag::DENYOOM | flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::string("last-id"),
            Arg::integer("entries-added").token("ENTRIESADDED").since("7.0.0").optional(),
            Arg::string("max-deleted-id").token("MAXDELETEDID").since("7.0.0").optional(),
        ])
        .since("5.0.0")
        .history(&["7.0.0"])
        .summary("Sets what a stream remembers beside its entries. Meant for replication and the append-only log."),
    command(Group::Stream, "xtrim", xtrim)
        .flags(flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::block("trim").of(TRIM)])
        .since("5.0.0")
        .history(&["6.2.0"])
        .complexity("O(N) where N is the number of entries removed; whole nodes of them go at once.")
        .summary("Removes entries from the beginning of a stream.")
        .tips(&["nondeterministic_output"]),
];

/// The type that blocking commands wait for.
const STREAM: &str = "stream";

/// The longest id argument, bytes; a longer one is invalid.
const ID_ARG_MAX: usize = 127;
/// Most bytes of all names and values of an entry.
const ENTRY_BYTES_MAX: usize = 1 << 30;

const INVALID_ID: CmdError = CmdError::of("ERR Invalid stream ID specified as stream command argument");

fn stream_of(entry: &Entry) -> Result<&Stream, CmdError> {
    match entry.object() {
        Some(Object::Stream(stream)) => Ok(stream),
        _ => Err(error::WRONG_TYPE),
    }
}

fn stream_mut(entry: &mut Entry) -> Result<&mut Stream, CmdError> {
    match entry.object_mut() {
        Some(Object::Stream(stream)) => Ok(stream),
        _ => Err(error::WRONG_TYPE),
    }
}

fn limits(ctx: &Ctx<'_>) -> Limits {
    Limits {
        node_bytes: usize::try_from(ctx.cfg.stream_node_max_bytes).unwrap_or(usize::MAX),
        node_entries: u64::try_from(ctx.cfg.stream_node_max_entries).unwrap_or(0),
    }
}

/// The text up to a zero byte, as C reads it.
fn until_nul(text: &[u8]) -> &[u8] {
    &text[..memchr::memchr(0, text).unwrap_or(text.len())]
}

/// A number of an id, read as C's `strtoull` does it: leading blanks and a sign are accepted, and a minus counts back
/// from the largest. A plain negative number is invalid.
fn id_number(text: &[u8]) -> Option<u64> {
    if parse_i64(text).is_some_and(|n| n < 0) {
        return None;
    }
    let blanks = text.iter().take_while(|b| matches!(b, b' ' | b'\t'..=b'\r')).count();
    let (negative, digits) = split_sign(&text[blanks..]);
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(if negative { number.wrapping_neg() } else { number })
}

/// An id as a client writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IdArg {
    Whole(StreamId),
    /// `ms-*`.
    AutoSeq(u64),
}

/// Reads `ms-seq` or `ms`, where `seq` stands for a missing sequence number.
fn id_parts(text: &[u8], seq: u64, may_be_auto: bool) -> Result<IdArg, CmdError> {
    if text.len() > ID_ARG_MAX {
        return Err(INVALID_ID);
    }
    let text = until_nul(text);
    let (ms, rest) = match memchr::memchr(b'-', text) {
        Some(at) => (&text[..at], Some(&text[at + 1..])),
        None => (text, None),
    };
    let ms = id_number(ms).ok_or(INVALID_ID)?;
    Ok(match rest {
        None => IdArg::Whole(StreamId::new(ms, seq)),
        Some(b"*") if may_be_auto => IdArg::AutoSeq(ms),
        Some(rest) => IdArg::Whole(StreamId::new(ms, id_number(rest).ok_or(INVALID_ID)?)),
    })
}

/// An id; `-` and `+` are errors. `seq` stands for a missing sequence number.
fn strict_id_arg(text: &[u8], seq: u64) -> Result<StreamId, CmdError> {
    match id_parts(text, seq, false)? {
        IdArg::Whole(id) => Ok(id),
        IdArg::AutoSeq(_) => Err(INVALID_ID),
    }
}

/// An id, or `-` or `+` for the smallest and largest possible one.
fn id_arg(text: &[u8], seq: u64) -> Result<StreamId, CmdError> {
    match until_nul(text) {
        b"-" if text.len() <= ID_ARG_MAX => Ok(StreamId::MIN),
        b"+" if text.len() <= ID_ARG_MAX => Ok(StreamId::MAX),
        _ => strict_id_arg(text, seq),
    }
}

/// The first id of an interval; with `(` before it, it is excluded.
fn start_arg(text: &[u8]) -> Result<StreamId, CmdError> {
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => {
            strict_id_arg(rest, 0)?.next().ok_or(CmdError::of("ERR invalid start ID for the interval"))
        }
        _ => id_arg(text, 0),
    }
}

/// The last id of an interval; with `(` before it, it is excluded.
fn end_arg(text: &[u8]) -> Result<StreamId, CmdError> {
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => {
            strict_id_arg(rest, u64::MAX)?.prev().ok_or(CmdError::of("ERR invalid end ID for the interval"))
        }
        _ => id_arg(text, u64::MAX),
    }
}

/// Replies with an entry: its id, and its fields with their values in one array.
fn reply_entry(out: &mut Reply, entry: &stream::Entry<'_>) {
    out.array(2);
    out.bulk(&entry.id.text());
    out.array(entry.len() * 2);
    for (name, value) in entry.fields() {
        reply_item(out, name);
        reply_item(out, value);
    }
}

/// Replies with up to `count` entries (0: all).
fn reply_entries<'a>(out: &mut Reply, entries: impl Iterator<Item = stream::Entry<'a>>, count: u64) {
    let mark = out.open();
    let mut given = 0;
    for entry in entries.take(if count == 0 { usize::MAX } else { count as usize }) {
        reply_entry(out, &entry);
        given += 1;
    }
    out.close_array(mark, given);
}

/// The arguments of XADD up to the fields, or of XTRIM.
struct AddOptions {
    /// `None`: `*`.
    id: Option<IdArg>,
    /// Index of the id's argument.
    id_at: usize,
    create: bool,
    trim: Option<Trim>,
    /// Index of the argument with the length or id to trim to.
    trim_at: usize,
}

impl AddOptions {
    fn parse(ctx: &Ctx<'_>, args: Args<'_>, adds: bool) -> Result<AddOptions, CmdError> {
        let mut o = AddOptions { id: None, id_at: args.len(), create: true, trim: None, trim_at: 0 };
        let mut limit = None;
        let mut i = 2;
        while i < args.len() {
            let option = args.at(i);
            let has_more = i + 1 < args.len();
            if adds && option == b"*" {
                o.id_at = i;
                break;
            }
            let by_len = option.eq_ignore_ascii_case(b"MAXLEN");
            if has_more && (by_len || option.eq_ignore_ascii_case(b"MINID")) {
                if o.trim.is_some() {
                    return Err(CmdError::of(
                        "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
                    ));
                }
                let mut approx = false;
                if i + 2 < args.len() && matches!(args.at(i + 1), b"~" | b"=") {
                    approx = args.at(i + 1) == b"~";
                    i += 1;
                }
                i += 1;
                o.trim_at = i;
                let by = if by_len {
                    let len = u64::try_from(int_arg(args.at(i))?);
                    TrimBy::Len(len.map_err(|_| CmdError::of("ERR The MAXLEN argument must be >= 0."))?)
                } else {
                    TrimBy::MinId(strict_id_arg(args.at(i), 0)?)
                };
                o.trim = Some(Trim { by, approx, limit: 0 });
            } else if has_more && option.eq_ignore_ascii_case(b"LIMIT") {
                i += 1;
                let n = u64::try_from(int_arg(args.at(i))?);
                limit = Some(n.map_err(|_| CmdError::of("ERR The LIMIT argument must be >= 0."))?);
            } else if adds && option.eq_ignore_ascii_case(b"NOMKSTREAM") {
                o.create = false;
            } else if adds {
                o.id = Some(id_parts(option, 0, true)?);
                o.id_at = i;
                break;
            } else {
                return Err(error::SYNTAX);
            }
            i += 1;
        }
        o.set_limit(ctx, adds, limit)?;
        Ok(o)
    }

    /// Sets how much may be trimmed at most.
    fn set_limit(&mut self, ctx: &Ctx<'_>, adds: bool, limit: Option<u64>) -> Result<(), CmdError> {
        let Some(trim) = &mut self.trim else {
            if limit.is_some_and(|n| n > 0) {
                return Err(CmdError::of(
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
                ));
            }
            if !adds {
                return Err(CmdError::of("ERR syntax error, XTRIM must be called with a trimming strategy"));
            }
            // Without a strategy even LIMIT 0 is an error, unless the command must be obeyed.
            return match limit {
                Some(_) if !ctx.session.must_obey() => Err(LIMIT_WITHOUT_APPROX),
                _ => Ok(()),
            };
        };
        // The master propagates exact trimming.
        if ctx.session.must_obey() {
            return Ok(());
        }
        trim.limit = match limit {
            Some(_) if !trim.approx => return Err(LIMIT_WITHOUT_APPROX),
            Some(limit) => limit,
            None if trim.approx => match ctx.cfg.stream_node_max_entries.checked_mul(100) {
                Some(limit @ 1..) => limit.min(1_000_000) as u64,
                _ => 10_000,
            },
            None => 0,
        };
        Ok(())
    }
}

const LIMIT_WITHOUT_APPROX: CmdError =
    CmdError::of("ERR syntax error, LIMIT cannot be used without the special ~ option");

/// The result of approximate trimming, as the argument of an exact one.
fn exact_threshold(stream: &Stream, trim: &Trim) -> Vec<u8> {
    match trim.by {
        TrimBy::Len(_) => IntBuf::new().format(stream.log.len() as i64).to_vec(),
        TrimBy::MinId(_) => stream.log.first_stored().text().to_vec(),
    }
}

/// An added entry.
struct Added {
    id: StreamId,
    trimmed: u64,
    /// The argument of the trimming to propagate.
    threshold: Option<Vec<u8>>,
}

fn xadd(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let options = AddOptions::parse(ctx, args, true)?;
    let pairs = args.from(options.id_at + 1);
    if pairs.is_empty() || pairs.len() % 2 == 1 {
        return Err(CmdError::wrong_arity(ctx.cmd.name));
    }
    if options.id == Some(IdArg::Whole(StreamId::MIN)) {
        return Err(CmdError::of("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let limits = limits(ctx);
    let now_ms = u64::try_from(ctx.now_ms()).unwrap_or(0);
    let key = &args[1];
    let has_sinks = ctx.ks.effects.has_sinks;
    let add = |stream: &mut Stream| add_entry(stream, &options, pairs, now_ms, limits, has_sinks);
    let (added, is_new) = if let Some(mut entry) = ctx.ks.write(ctx.db, key) {
        (add(stream_mut(&mut entry)?)?, false)
    } else if options.create {
        let mut stream = Stream::new();
        let added = add(&mut stream)?;
        ctx.ks.insert(ctx.db, key, stream.into(), None);
        (added, true)
    } else {
        return ctx.out.just_null();
    };
    let id = added.id.text();
    ctx.out.bulk(&id);
    let ks = &mut ctx.ks;
    ks.signal_modified(ctx.db, key);
    ks.effects.notify(notify::STREAM, "xadd", key, ctx.db);
    if added.trimmed > 0 {
        ks.effects.notify(notify::STREAM, "xtrim", key, ctx.db);
    }
    let auto_id = !matches!(options.id, Some(IdArg::Whole(_)));
    if has_sinks && (auto_id || added.threshold.is_some()) {
        let mut command: Vec<&[u8]> = args.iter().collect();
        if auto_id {
            command[options.id_at] = &id;
        }
        if let Some(threshold) = &added.threshold {
            command[options.trim_at - 1] = b"=";
            command[options.trim_at] = threshold;
        }
        ks.effects.replace_with(&command);
    }
    if !is_new {
        ks.effects.ready(ctx.db, key);
    }
    ctx.dirty(1);
    Ok(())
}

fn add_entry(
    stream: &mut Stream,
    options: &AddOptions,
    pairs: Args<'_>,
    now_ms: u64,
    limits: Limits,
    has_sinks: bool,
) -> Result<Added, CmdError> {
    let last = stream.log.last_id();
    if last == StreamId::MAX {
        return Err(CmdError::of("ERR The stream has exhausted the last possible ID, unable to add more items"));
    }
    let id = match options.id {
        None => stream.log.next_id(now_ms),
        Some(IdArg::Whole(id)) => Some(id),
        Some(IdArg::AutoSeq(ms)) if ms == last.ms => last.seq.checked_add(1).map(|seq| StreamId::new(ms, seq)),
        Some(IdArg::AutoSeq(ms)) => Some(StreamId::new(ms, 0)),
    };
    let id = id
        .filter(|id| *id > last)
        .ok_or(CmdError::of("ERR The ID specified in XADD is equal or smaller than the target stream top item"))?;
    let bytes = pairs.total_len();
    if bytes > ENTRY_BYTES_MAX {
        return Err(CmdError::of("ERR Elements are too large to be stored"));
    }
    let count = pairs.len() / 2;
    stream.log.append(id, count, bytes, (0..count).map(|i| (pairs.at(2 * i), pairs.at(2 * i + 1))), limits);
    let mut added = Added { id, trimmed: 0, threshold: None };
    if let Some(trim) = options.trim {
        added.trimmed = stream.log.trim(trim);
        if trim.approx && has_sinks {
            added.threshold = Some(exact_threshold(stream, &trim));
        }
    }
    Ok(added)
}

fn xtrim(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let options = AddOptions::parse(ctx, args, false)?;
    let key = &args[1];
    let (Some(trim), Some(mut entry)) = (options.trim, ctx.ks.write(ctx.db, key)) else { return ctx.out.just_int(0) };
    let stream = stream_mut(&mut entry)?;
    let removed = stream.log.trim(trim);
    let threshold = trim.approx.then(|| exact_threshold(stream, &trim));
    drop(entry);
    if removed > 0 {
        let ks = &mut ctx.ks;
        ks.effects.notify(notify::STREAM, "xtrim", key, ctx.db);
        if let Some(threshold) = &threshold {
            let mut command: Vec<&[u8]> = args.iter().collect();
            command[options.trim_at - 1] = b"=";
            command[options.trim_at] = threshold;
            ks.effects.replace_with(&command);
        }
        ks.signal_modified(ctx.db, key);
        ctx.dirty(removed);
    }
    ctx.out.just_int(removed as i64)
}

fn xdel(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let key = &args[1];
    let Some(mut entry) = ctx.ks.write(ctx.db, key) else { return ctx.out.just_int(0) };
    let stream = stream_mut(&mut entry)?;
    let ids = args.from(2).iter().map(|arg| strict_id_arg(arg, 0)).collect::<Result<Vec<_>, _>>()?;
    let deleted = stream.log.delete(&ids);
    drop(entry);
    if deleted > 0 {
        ctx.changed(notify::STREAM, "xdel", key, deleted);
    }
    ctx.out.just_int(deleted as i64)
}

fn xlen(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let len = match ctx.ks.read(ctx.db, &args[1]) {
        Some(entry) => stream_of(entry)?.log.len(),
        None => 0,
    };
    ctx.out.just_int(len as i64)
}

fn range(ctx: &mut Ctx<'_>, args: Args<'_>, back: bool) -> CmdResult {
    let (start_at, end_at) = if back { (3, 2) } else { (2, 3) };
    let (start, end) = (start_arg(&args[start_at])?, end_arg(&args[end_at])?);
    let mut count = None;
    let mut i = 4;
    while i < args.len() {
        match args.get(i + 1) {
            Some(value) if args[i].eq_ignore_ascii_case(b"COUNT") => count = Some(int_arg(value)?.max(0) as u64),
            _ => return Err(error::SYNTAX),
        }
        i += 2;
    }
    let Some(entry) = ctx.ks.read(ctx.db, &args[1]) else { return ctx.out.just_empty() };
    let log = &stream_of(entry)?.log;
    if count == Some(0) {
        return ctx.out.just_null_array();
    }
    let entries = if back { log.range_back(start, end) } else { log.range(start, end) };
    reply_entries(ctx.out, entries, count.unwrap_or(0));
    Ok(())
}

fn xsetid(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let id = strict_id_arg(&args[2], 0)?;
    let mut entries_added = None;
    let mut max_deleted = StreamId::MIN;
    let mut i = 3;
    while i < args.len() {
        match args.get(i + 1) {
            Some(value) if args[i].eq_ignore_ascii_case(b"ENTRIESADDED") => {
                let n = u64::try_from(int_arg(value)?);
                entries_added = Some(n.map_err(|_| CmdError::of("ERR entries_added must be positive"))?);
            }
            Some(value) if args[i].eq_ignore_ascii_case(b"MAXDELETEDID") => {
                max_deleted = strict_id_arg(value, 0)?;
                if id < max_deleted {
                    return Err(CmdError::of(
                        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                    ));
                }
            }
            _ => return Err(error::SYNTAX),
        }
        i += 2;
    }
    let key = &args[1];
    let mut entry = ctx.ks.write(ctx.db, key).ok_or(error::NO_SUCH_KEY)?;
    let log = &mut stream_mut(&mut entry)?.log;
    if id < log.counters.max_deleted_id {
        return Err(CmdError::of("ERR The ID specified in XSETID is smaller than current max_deleted_entry_id"));
    }
    if let Some(last) = log.last_live() {
        if id < last {
            return Err(CmdError::of("ERR The ID specified in XSETID is smaller than the target stream top item"));
        }
        if entries_added.is_some_and(|n| n < log.len()) {
            return Err(CmdError::of(
                "ERR The entries_added specified in XSETID is smaller than the target stream length",
            ));
        }
    }
    log.set_last_id(id);
    if let Some(n) = entries_added {
        log.counters.entries_added = n;
    }
    if max_deleted != StreamId::MIN {
        log.counters.max_deleted_id = max_deleted;
    }
    drop(entry);
    ctx.out.ok();
    group::group_changed(ctx, key, 1);
    ctx.ks.effects.notify(notify::STREAM, "xsetid", key, ctx.db);
    Ok(())
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn entries_are_added_and_read_by_their_ids() {
        let mut bare = Bare::new();
        assert_eq!(bare.run("xadd s 5-1 f v"), "$3 5-1");
        assert_eq!(
            bare.run("xadd s 5-1 f v"),
            "-ERR The ID specified in XADD is equal or smaller than the target stream top item"
        );
        assert_eq!((bare.run("xadd s * f v"), bare.run("xlen s")), ("$15 1700000000000-0".into(), ":2".into()));
        assert_eq!(bare.run("xrange s - 9 "), "-ERR syntax error");
        assert_eq!(bare.run("xdel s 5-1 5-2"), ":1");
    }
}
