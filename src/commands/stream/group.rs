//! Commands on groups of consumers: XGROUP, XACK, XCLAIM, XAUTOCLAIM and XPENDING.

use super::read::{Claim, propagate_group_id};
use super::*;
use crate::commands::{help, unknown_subcommand};
use crate::keyspace::effects::target;
use crate::structs::stream::{ConsumerId, Group as ConsumerGroup, Pending};

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Stream, "xack", xack)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::string("group"), Arg::string("id").multiple()])
        .since("5.0.0")
        .complexity("O(1) for each id.")
        .summary("Acknowledges pending entries and gives the number of those that were pending."),
    command(Group::Stream, "xautoclaim", xautoclaim)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::DELETE, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::string("group"),
            Arg::string("consumer"),
            Arg::string("min-idle-time"),
            Arg::string("start"),
            Arg::integer("count").token("COUNT").optional(),
            Arg::word("justid", "JUSTID").optional(),
        ])
        .since("6.2.0")
        .history(&["7.0.0"])
        .complexity("O(1) with a small COUNT.")
        .summary("Makes pending entries that were idle for long a consumer's own, going through them step by step.")
        .tips(&["nondeterministic_output"]),
    command(Group::Stream, "xclaim", xclaim)
        .flags(flag::FAST | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::UPDATE, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::string("group"),
            Arg::string("consumer"),
            Arg::string("min-idle-time"),
            Arg::string("id").multiple(),
            Arg::integer("ms").token("IDLE").optional(),
            Arg::unix_time("unix-time-milliseconds").token("TIME").optional(),
            Arg::integer("count").token("RETRYCOUNT").optional(),
            Arg::word("force", "FORCE").optional(),
            Arg::word("justid", "JUSTID").optional(),
            Arg::string("lastid").token("LASTID").optional(),
        ])
        .since("5.0.0")
        .complexity("O(log N) for each id, where N is the number of pending entries of the group.")
        .summary("Makes pending entries a consumer's own.")
        .tips(&["nondeterministic_output"]),
    Command::container(Group::Stream, "xgroup").since("5.0.0").summary("Commands on groups of consumers.").subcommands(
        &[
            command(Group::Stream, "xgroup|create", xgroup_create)
                .flags(flag::DENYOOM | flag::WRITE)
                .keys(&[KeySpec::range(key::RW | key::INSERT, 2, 0, 1)])
                .args(&[
                    Arg::key("key", 0),
                    Arg::string("group"),
                    Arg::one_of("id-selector").of(&[Arg::string("id"), Arg::word("new-id", "$")]),
                    Arg::word("mkstream", "MKSTREAM").optional(),
                    Arg::integer("entries-read").token("ENTRIESREAD").optional(),
                ])
                .since("5.0.0")
                .history(&["7.0.0"])
                .summary("Adds a group of consumers."),
            command(Group::Stream, "xgroup|createconsumer", xgroup_createconsumer)
                .flags(flag::DENYOOM | flag::WRITE)
                .keys(&[KeySpec::range(key::RW | key::INSERT, 2, 0, 1)])
                .args(&[Arg::key("key", 0), Arg::string("group"), Arg::string("consumer")])
                .since("6.2.0")
                .summary("Adds a consumer to a group."),
            command(Group::Stream, "xgroup|delconsumer", xgroup_delconsumer)
                .flags(flag::WRITE)
                .keys(&[KeySpec::range(key::RW | key::DELETE, 2, 0, 1)])
                .args(&[Arg::key("key", 0), Arg::string("group"), Arg::string("consumer")])
                .since("5.0.0")
                .complexity("O(N) where N is the number of its pending entries.")
                .summary("Removes a consumer with its pending entries."),
            command(Group::Stream, "xgroup|destroy", xgroup_destroy)
                .flags(flag::WRITE)
                .keys(&[KeySpec::range(key::RW | key::DELETE, 2, 0, 1)])
                .args(&[Arg::key("key", 0), Arg::string("group")])
                .since("5.0.0")
                .complexity("O(N) where N is the number of pending entries of the group.")
                .summary("Removes a group of consumers."),
            command(Group::Stream, "xgroup|help", xgroup_help)
                .flags(flag::LOADING | flag::STALE)
                .since("5.0.0")
                .summary("Lists the subcommands."),
            command(Group::Stream, "xgroup|setid", xgroup_setid)
                .flags(flag::WRITE)
                .keys(&[KeySpec::range(key::RW | key::UPDATE, 2, 0, 1)])
                .args(&[
                    Arg::key("key", 0),
                    Arg::string("group"),
                    Arg::one_of("id-selector").of(&[Arg::string("id"), Arg::word("new-id", "$")]),
                    Arg::integer("entriesread").display("entries-read").token("ENTRIESREAD").optional(),
                ])
                .since("5.0.0")
                .history(&["7.0.0"])
                .summary("Sets how far a group has read."),
        ],
    ),
    command(Group::Stream, "xpending", xpending)
        .flags(flag::READONLY)
        .keys(RANGE_KEY)
        .args(&[
            Arg::key("key", 0),
            Arg::string("group"),
            Arg::block("filters").optional().of(&[
                Arg::integer("min-idle-time").token("IDLE").since("6.2.0").optional(),
                Arg::string("start"),
                Arg::string("end"),
                Arg::integer("count"),
                Arg::string("consumer").optional(),
            ]),
        ])
        .since("5.0.0")
        .history(&["6.2.0"])
        .complexity(
            "O(N) where N is the number of entries looked at; O(M) without a range, where M is the number of \
             consumers.",
        )
        .summary("Tells of the pending entries of a group.")
        .tips(&["nondeterministic_output"]),
];

/// The error of a missing key or group; `behind` ends its text.
pub(super) fn no_group_in(key: &[u8], group: &[u8], behind: &str) -> CmdError {
    let mut text = b"NOGROUP No such key '".to_vec();
    text.extend_from_slice(until_nul(key));
    text.extend_from_slice(b"' or consumer group '");
    text.extend_from_slice(until_nul(group));
    text.push(b'\'');
    text.extend_from_slice(behind.as_bytes());
    CmdError::bytes(text)
}

/// The error of a missing group of an existing key.
pub(super) fn no_group_of(key: &[u8], group: &[u8]) -> CmdError {
    let mut text = b"NOGROUP No such consumer group '".to_vec();
    text.extend_from_slice(until_nul(group));
    text.extend_from_slice(b"' for key name '");
    text.extend_from_slice(until_nul(key));
    text.push(b'\'');
    CmdError::bytes(text)
}

/// The consumer of this name, created if missing and marked as seen now; and whether it was created.
pub(super) fn find_or_create(group: &mut ConsumerGroup, name: &[u8], now_ms: i64) -> (ConsumerId, bool) {
    match group.find_consumer(name) {
        Some(id) => {
            group.consumer_mut(id).seen_ms = now_ms;
            (id, false)
        }
        None => (group.create_consumer(name, now_ms).expect("it is not there"), true),
    }
}

/// So much changed in the groups of a stream; clients that WATCH the stream are not told.
pub(super) fn group_changed(ctx: &mut Ctx<'_>, key: &[u8], changes: u64) {
    if changes > 0 {
        ctx.dirty(changes);
        ctx.ks.signal_aside(ctx.db, key);
    }
}

/// The effects of creating a consumer.
pub(super) fn consumer_created(ctx: &mut Ctx<'_>, key: &[u8]) {
    group_changed(ctx, key, 1);
    ctx.ks.effects.notify(notify::STREAM, "xgroup-createconsumer", key, ctx.db);
}

fn ids_of(args: Args<'_>) -> Result<Vec<StreamId>, CmdError> {
    args.iter().map(|arg| strict_id_arg(arg, 0)).collect()
}

fn xack(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(mut entry) = ctx.ks.read_mut(ctx.db, &args[1]) else { return ctx.out.just_int(0) };
    let Some((_, group)) = stream_mut(&mut entry)?.group_mut(&args[2]) else { return ctx.out.just_int(0) };
    let acknowledged = ids_of(args.from(3))?.into_iter().filter(|id| group.acknowledge(*id)).count();
    drop(entry);
    group_changed(ctx, &args[1], acknowledged as u64);
    ctx.out.just_int(acknowledged as i64)
}

struct ClaimOptions {
    ids: Vec<StreamId>,
    min_idle_ms: i64,
    /// The time of delivery to note, ms.
    time_ms: i64,
    deliveries: Option<u64>,
    force: bool,
    just_id: bool,
    last_id: StreamId,
}

impl ClaimOptions {
    fn parse(args: Args<'_>, now_ms: i64) -> Result<ClaimOptions, CmdError> {
        let number = |arg: &[u8], message| int_arg(arg).map_err(|_| CmdError::of(message));
        let min_idle_ms = number(&args[4], "ERR Invalid min-idle-time argument for XCLAIM")?.max(0);
        let ids: Vec<StreamId> = args.from(5).iter().map_while(|arg| strict_id_arg(arg, 0).ok()).collect();
        let mut i = 5 + ids.len();
        let mut time_ms = -1;
        let mut o = ClaimOptions {
            ids,
            min_idle_ms,
            time_ms,
            deliveries: None,
            force: false,
            just_id: false,
            last_id: StreamId::MIN,
        };
        while i < args.len() {
            let (option, value) = (args.at(i), args.get(i + 1));
            i += 1;
            if option.eq_ignore_ascii_case(b"FORCE") {
                o.force = true;
                continue;
            }
            if option.eq_ignore_ascii_case(b"JUSTID") {
                o.just_id = true;
                continue;
            }
            i += 1;
            match value {
                Some(v) if option.eq_ignore_ascii_case(b"IDLE") => {
                    time_ms = now_ms.wrapping_sub(number(v, "ERR Invalid IDLE option argument for XCLAIM")?);
                }
                Some(v) if option.eq_ignore_ascii_case(b"TIME") => {
                    time_ms = number(v, "ERR Invalid TIME option argument for XCLAIM")?;
                }
                Some(v) if option.eq_ignore_ascii_case(b"RETRYCOUNT") => {
                    o.deliveries = u64::try_from(number(v, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?).ok();
                }
                Some(v) if option.eq_ignore_ascii_case(b"LASTID") => o.last_id = strict_id_arg(v, 0)?,
                _ => {
                    let mut text = b"ERR Unrecognized XCLAIM option '".to_vec();
                    text.extend_from_slice(until_nul(option));
                    text.push(b'\'');
                    return Err(CmdError::bytes(text));
                }
            }
        }
        // A time in the future, as from a client whose clock is ahead, is not an error: it becomes now.
        o.time_ms = if (0..=now_ms).contains(&time_ms) { time_ms } else { now_ms };
        Ok(o)
    }
}

/// Gives pending entries to a consumer, and gathers what the log and replicas are to be told of it.
struct Giver {
    consumer: ConsumerId,
    now_ms: i64,
    just_id: bool,
    has_sinks: bool,
    /// How many entries it gave.
    given: usize,
    claims: Vec<Claim>,
}

impl Giver {
    /// `delivery`: the time that counts as the last one's, milliseconds, and how many there have been.
    fn give(
        &mut self,
        group: &mut ConsumerGroup,
        id: StreamId,
        found: &stream::Entry<'_>,
        delivery: (i64, u64),
        out: &mut Reply,
    ) {
        let pending = Pending { time_ms: delivery.0, deliveries: delivery.1, owner: self.consumer };
        group.assign(id, pending);
        match self.just_id {
            true => out.bulk(&id.text()),
            false => reply_entry(out, found),
        }
        self.given += 1;
        group.consumer_mut(self.consumer).active_ms = self.now_ms;
        if self.has_sinks {
            self.claims.push(Claim::of(group, id, &pending));
        }
    }

    /// The entry is in the log no more, so nobody can process it.
    fn drop_deleted(&mut self, group: &mut ConsumerGroup, id: StreamId, pending: &Pending) {
        if self.has_sinks {
            self.claims.push(Claim::of(group, id, pending));
        }
        group.acknowledge(id);
    }
}

fn xclaim(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (key, group_name) = (&args[1], &args[2]);
    let now_ms = ctx.now_ms();
    let has_sinks = ctx.ks.effects.has_sinks;
    let Some(mut entry) = ctx.ks.read_mut(ctx.db, key) else {
        return Err(no_group_in(key, group_name, ""));
    };
    let Some((log, group)) = stream_mut(&mut entry)?.group_mut(group_name) else {
        return Err(no_group_in(key, group_name, ""));
    };
    let options = ClaimOptions::parse(args, now_ms)?;
    let mut tell_last_id = options.last_id > group.last_id;
    group.last_id = group.last_id.max(options.last_id);
    let (consumer, created) = find_or_create(group, &args[3], now_ms);
    let mut giver = Giver { consumer, now_ms, just_id: options.just_id, has_sinks, given: 0, claims: Vec::new() };
    let mut deleted = 0;
    let mark = ctx.out.open();
    for id in options.ids.iter().copied() {
        let before = group.pending(id).copied();
        let Some(found) = log.get(id) else {
            // It was deleted, so nobody can process it any more.
            if let Some(pending) = before {
                giver.drop_deleted(group, id, &pending);
                deleted += 1;
            }
            continue;
        };
        if before.is_none() && !options.force {
            continue;
        }
        if before.is_some_and(|p| options.min_idle_ms > 0 && now_ms.wrapping_sub(p.time_ms) < options.min_idle_ms) {
            continue;
        }
        let deliveries = before.map_or(1, |p| p.deliveries);
        let deliveries = options.deliveries.unwrap_or(deliveries.wrapping_add(u64::from(!options.just_id)));
        giver.give(group, id, &found, (options.time_ms, deliveries), ctx.out);
    }
    let Giver { given, claims, .. } = giver;
    tell_last_id &= given + deleted == 0;
    let (last_id, entries_read) = (group.last_id, group.entries_read);
    ctx.out.close_array(mark, given);
    drop(entry);
    if created {
        consumer_created(ctx, key);
    }
    let effects = &mut ctx.ks.effects;
    claims.iter().for_each(|claim| claim.propagate(effects, ctx.db, key, group_name));
    if tell_last_id {
        propagate_group_id(effects, ctx.db, key, group_name, last_id, entries_read);
    }
    effects.prevented = target::ALL;
    group_changed(ctx, key, (given + deleted + usize::from(tell_last_id)) as u64);
    Ok(())
}

struct AutoClaimOptions {
    min_idle_ms: i64,
    start: StreamId,
    count: u64,
    just_id: bool,
}

impl AutoClaimOptions {
    fn parse(args: Args<'_>) -> Result<AutoClaimOptions, CmdError> {
        const COUNT_MAX: i64 = i64::MAX / 16;
        let min_idle_ms =
            int_arg(&args[4]).map_err(|_| CmdError::of("ERR Invalid min-idle-time argument for XAUTOCLAIM"))?.max(0);
        let mut options = AutoClaimOptions { min_idle_ms, start: start_arg(&args[5])?, count: 100, just_id: false };
        let mut i = 6;
        while i < args.len() {
            let (option, value) = (args.at(i), args.get(i + 1));
            i += 1;
            match value {
                Some(value) if option.eq_ignore_ascii_case(b"COUNT") => {
                    let number = int_arg(value).ok().filter(|n| (1..=COUNT_MAX).contains(n));
                    options.count = number.ok_or(CmdError::of("ERR COUNT must be > 0"))? as u64;
                    i += 1;
                }
                _ if option.eq_ignore_ascii_case(b"JUSTID") => options.just_id = true,
                _ => return Err(error::SYNTAX),
            }
        }
        Ok(options)
    }
}

fn xautoclaim(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    /// Pending entries looked at for each that may be claimed.
    const ATTEMPTS: u64 = 10;
    let AutoClaimOptions { min_idle_ms, start, mut count, just_id } = AutoClaimOptions::parse(args)?;
    let (key, group_name) = (&args[1], &args[2]);
    let now_ms = ctx.now_ms();
    let has_sinks = ctx.ks.effects.has_sinks;
    let Some(mut entry) = ctx.ks.read_mut(ctx.db, key) else {
        return Err(no_group_in(key, group_name, ""));
    };
    let Some((log, group)) = stream_mut(&mut entry)?.group_mut(group_name) else {
        return Err(no_group_in(key, group_name, ""));
    };
    let (consumer, created) = find_or_create(group, &args[3], now_ms);
    // The reply begins with the next cursor, which is known only at the end.
    let mut claimed = Reply::new(ctx.out.resp3);
    let mut giver = Giver { consumer, now_ms, just_id, has_sinks, given: 0, claims: Vec::new() };
    let mut deleted = Vec::new();
    let mut attempts = count.saturating_mul(ATTEMPTS);
    let mut next = Some(start);
    let cursor = loop {
        let found = next.and_then(|from| group.pending_from(from).next()).map(|(id, pending)| (id, *pending));
        let Some((id, before)) = found else { break StreamId::MIN };
        if attempts == 0 || count == 0 {
            break id;
        }
        attempts -= 1;
        next = id.next();
        let Some(found) = log.get(id) else {
            giver.drop_deleted(group, id, &before);
            deleted.push(id);
            count -= 1;
            continue;
        };
        if min_idle_ms > 0 && now_ms.wrapping_sub(before.time_ms) < min_idle_ms {
            continue;
        }
        let deliveries = before.deliveries.wrapping_add(u64::from(!just_id));
        giver.give(group, id, &found, (now_ms, deliveries), &mut claimed);
        count -= 1;
    };
    drop(entry);
    let Giver { given, claims, .. } = giver;
    ctx.out.array(3);
    ctx.out.bulk(&cursor.text());
    ctx.out.array(given);
    ctx.out.raw(&claimed.buf);
    ctx.out.array(deleted.len());
    deleted.iter().for_each(|id| ctx.out.bulk(&id.text()));
    if created {
        consumer_created(ctx, key);
    }
    let effects = &mut ctx.ks.effects;
    claims.iter().for_each(|claim| claim.propagate(effects, ctx.db, key, group_name));
    effects.prevented = target::ALL;
    group_changed(ctx, key, (given + deleted.len()) as u64);
    Ok(())
}

fn xpending(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() != 3 && !(6..=9).contains(&args.len()) {
        return Err(error::SYNTAX);
    }
    let mut range = None;
    if args.len() >= 6 {
        let (mut at, mut min_idle_ms) = (3, 0);
        if args[3].eq_ignore_ascii_case(b"IDLE") {
            min_idle_ms = int_arg(&args[4])?;
            if args.len() < 8 {
                return Err(error::SYNTAX);
            }
            at = 5;
        }
        let count = int_arg(&args[at + 2])?.max(0) as u64;
        let (start, end) = (start_arg(&args[at])?, end_arg(&args[at + 1])?);
        range = Some(PendingRange { start, end, count, min_idle_ms, consumer: args.get(at + 3) });
    }
    let (key, group_name) = (&args[1], &args[2]);
    let now_ms = ctx.now_ms();
    let Some(entry) = ctx.ks.read(ctx.db, key) else {
        return Err(no_group_in(key, group_name, ""));
    };
    let Some(group) = stream_of(entry)?.group(group_name) else {
        return Err(no_group_in(key, group_name, ""));
    };
    match range {
        Some(range) => reply_pending_range(ctx.out, group, &range, now_ms),
        None => reply_pending_summary(ctx.out, group),
    }
    Ok(())
}

fn reply_pending_summary(out: &mut Reply, group: &ConsumerGroup) {
    out.array(4);
    out.int(group.pending_len() as i64);
    let mut ids = group.pending_from(StreamId::MIN).map(|(id, _)| id);
    let Some(first) = ids.next() else {
        out.null();
        out.null();
        out.null_array();
        return;
    };
    out.bulk(&first.text());
    out.bulk(&ids.next_back().unwrap_or(first).text());
    let mark = out.open();
    let mut owners = 0;
    for consumer in group.consumers().filter(|c| c.pending_len() > 0) {
        out.array(2);
        out.bulk(consumer.name());
        out.bulk_int(consumer.pending_len() as i64);
        owners += 1;
    }
    out.close_array(mark, owners);
}

/// Which pending entries XPENDING is to show.
struct PendingRange<'a> {
    start: StreamId,
    end: StreamId,
    count: u64,
    min_idle_ms: i64,
    /// Only entries of this consumer.
    consumer: Option<&'a [u8]>,
}

fn reply_pending_range(out: &mut Reply, group: &ConsumerGroup, range: &PendingRange<'_>, now_ms: i64) {
    let mark = out.open();
    let mut given = 0;
    let mut show = |id: StreamId, pending: &Pending| -> bool {
        if given == range.count || id > range.end {
            return false;
        }
        let idle_ms = now_ms.wrapping_sub(pending.time_ms);
        if range.min_idle_ms == 0 || idle_ms >= range.min_idle_ms {
            out.array(4);
            out.bulk(&id.text());
            out.bulk(group.consumer(pending.owner).name());
            out.int(idle_ms.max(0));
            out.int(pending.deliveries as i64);
            given += 1;
        }
        true
    };
    match range.consumer {
        None => drop(group.pending_from(range.start).all(|(id, pending)| show(id, pending))),
        Some(name) => {
            if let Some(owner) = group.find_consumer(name) {
                let mut ids = group.consumer(owner).pending_from(range.start);
                ids.all(|id| group.pending(id).is_some_and(|pending| show(id, pending)));
            }
        }
    }
    out.close_array(mark, given as usize);
}

/// The options of XGROUP CREATE and SETID.
#[derive(Default)]
struct GroupOptions {
    make_stream: bool,
    entries_read: Option<i64>,
}

impl GroupOptions {
    fn parse(args: Args<'_>, creates: bool) -> Result<GroupOptions, CmdError> {
        let mut o = GroupOptions::default();
        let mut i = 5;
        while i < args.len() {
            match args.get(i + 1) {
                _ if creates && args[i].eq_ignore_ascii_case(b"MKSTREAM") => o.make_stream = true,
                Some(value) if args[i].eq_ignore_ascii_case(b"ENTRIESREAD") => {
                    let n = int_arg(value)?;
                    if n < -1 {
                        return Err(CmdError::of("ERR value for ENTRIESREAD must be positive or -1"));
                    }
                    o.entries_read = Some(n);
                    i += 1;
                }
                _ => return Err(unknown_subcommand(args)),
            }
            i += 1;
        }
        Ok(o)
    }
}

const NEEDS_KEY: CmdError = CmdError::of(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option \
     to create an empty stream automatically.",
);

fn xgroup_create(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    const BUSY_GROUP: CmdError = CmdError::of("BUSYGROUP Consumer Group name already exists");
    let options = GroupOptions::parse(args, true)?;
    let (key, name) = (&args[2], &args[3]);
    let entries_read = options.entries_read.unwrap_or(-1);
    let id_behind = |last: StreamId| if &args[4] == b"$" { Ok(last) } else { strict_id_arg(&args[4], 0) };
    let max_args = 8;
    if let Some(mut entry) = ctx.ks.write(ctx.db, key) {
        let stream = stream_mut(&mut entry)?;
        if args.len() > max_args {
            return Err(unknown_subcommand(args));
        }
        let id = id_behind(stream.log.last_id())?;
        if !stream.create_group(name, id, entries_read) {
            return Err(BUSY_GROUP);
        }
    } else {
        if !options.make_stream {
            return Err(NEEDS_KEY);
        }
        if args.len() > max_args {
            return Err(unknown_subcommand(args));
        }
        let mut stream = Stream::new();
        stream.create_group(name, id_behind(StreamId::MIN)?, entries_read);
        ctx.ks.insert(ctx.db, key, stream.into(), None);
        ctx.ks.signal_modified(ctx.db, key);
    }
    ctx.out.ok();
    group_changed(ctx, key, 1);
    ctx.ks.effects.notify(notify::STREAM, "xgroup-create", key, ctx.db);
    Ok(())
}

fn xgroup_setid(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let options = GroupOptions::parse(args, false)?;
    let (key, name) = (&args[2], &args[3]);
    let mut entry = ctx.ks.write(ctx.db, key).ok_or(NEEDS_KEY)?;
    let Some((log, group)) = stream_mut(&mut entry)?.group_mut(name) else {
        return Err(no_group_of(key, name));
    };
    if !matches!(args.len(), 5 | 7) {
        return Err(unknown_subcommand(args));
    }
    group.last_id = if &args[4] == b"$" { log.last_id() } else { id_arg(&args[4], 0)? };
    group.entries_read = options.entries_read.unwrap_or(-1);
    drop(entry);
    ctx.out.ok();
    group_changed(ctx, key, 1);
    ctx.ks.effects.notify(notify::STREAM, "xgroup-setid", key, ctx.db);
    Ok(())
}

fn xgroup_destroy(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (key, name) = (&args[2], &args[3]);
    let mut entry = ctx.ks.write(ctx.db, key).ok_or(NEEDS_KEY)?;
    let destroyed = stream_mut(&mut entry)?.destroy_group(name);
    drop(entry);
    if destroyed {
        group_changed(ctx, key, 1);
        let effects = &mut ctx.ks.effects;
        effects.notify(notify::STREAM, "xgroup-destroy", key, ctx.db);
        // Clients that wait for new entries of the group get an error now.
        effects.ready(ctx.db, key);
    }
    ctx.out.just_int(i64::from(destroyed))
}

fn xgroup_createconsumer(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (key, name) = (&args[2], &args[3]);
    let now_ms = ctx.now_ms();
    let mut entry = ctx.ks.write(ctx.db, key).ok_or(NEEDS_KEY)?;
    let Some((_, group)) = stream_mut(&mut entry)?.group_mut(name) else {
        return Err(no_group_of(key, name));
    };
    let created = group.create_consumer(&args[4], now_ms).is_some();
    drop(entry);
    if created {
        consumer_created(ctx, key);
    }
    ctx.out.just_int(i64::from(created))
}

fn xgroup_delconsumer(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (key, name) = (&args[2], &args[3]);
    let mut entry = ctx.ks.write(ctx.db, key).ok_or(NEEDS_KEY)?;
    let Some((_, group)) = stream_mut(&mut entry)?.group_mut(name) else {
        return Err(no_group_of(key, name));
    };
    let pending = group.remove_consumer(&args[4]);
    drop(entry);
    if pending.is_some() {
        group_changed(ctx, key, 1);
        ctx.ks.effects.notify(notify::STREAM, "xgroup-delconsumer", key, ctx.db);
    }
    ctx.out.just_int(pending.unwrap_or(0) as i64)
}

fn xgroup_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    help(
        ctx.out,
        args,
        &[
            "CREATE <key> <groupname> <id|$> [option]",
            "    Create a new consumer group. Options are:",
            "    * MKSTREAM",
            "      Create the empty stream if it does not exist.",
            "    * ENTRIESREAD entries_read",
            "      Set the group's entries_read counter (internal use).",
            "CREATECONSUMER <key> <groupname> <consumer>",
            "    Create a new consumer in the specified group.",
            "DELCONSUMER <key> <groupname> <consumer>",
            "    Remove the specified consumer.",
            "DESTROY <key> <groupname>",
            "    Remove the specified group.",
            "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
            "    Set the current group ID and entries_read counter.",
        ],
    )
}
