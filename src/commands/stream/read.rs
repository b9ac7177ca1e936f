//! XREAD and XREADGROUP: entries after an id, now or when they come.

use super::*;
use crate::catalog::row::KeyPos;
use crate::keyspace::effects::{Effects, target};
use crate::resp::OwnedArgs;
use crate::structs::stream::{ConsumerId, Group as ConsumerGroup, Log, Pending};
use std::sync::Arc;

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Stream, "xread", xread)
        .flags(flag::BLOCKING | flag::READONLY)
        .keys(&[KeySpec::new(
            key::RO | key::ACCESS,
            Begin::Keyword("STREAMS", 1),
            Find::Range { last: -1, step: 1, limit: 2 },
        )])
        .get_keys(stream_keys)
        .args(&[
            Arg::integer("count").token("COUNT").optional(),
            Arg::integer("milliseconds").token("BLOCK").optional(),
            Arg::block("streams").token("STREAMS").of(&[Arg::key("key", 0).multiple(), Arg::string("id").multiple()]),
        ])
        .since("5.0.0")
        .complexity("")
        .summary("Gives the entries of streams that came after ids; waits until there are some."),
    command(Group::Stream, "xreadgroup", xreadgroup)
        .flags(flag::BLOCKING | flag::WRITE)
        .keys(&[KeySpec::new(
            key::RO | key::ACCESS,
            Begin::Keyword("STREAMS", 4),
            Find::Range { last: -1, step: 1, limit: 2 },
        )])
        .get_keys(stream_keys)
        .args(&[
            Arg::block("group-block").token("GROUP").of(&[Arg::string("group"), Arg::string("consumer")]),
            Arg::integer("count").token("COUNT").optional(),
            Arg::integer("milliseconds").token("BLOCK").optional(),
            Arg::word("noack", "NOACK").optional(),
            Arg::block("streams").token("STREAMS").of(&[Arg::key("key", 0).multiple(), Arg::string("id").multiple()]),
        ])
        .since("5.0.0")
        .complexity("O(M) for each stream, where M is the number of entries given; O(1) with a constant COUNT.")
        .summary(
            "Delivers new entries of streams to a consumer of a group, or what it has pending; waits for new ones.",
        ),
];

/// The group and consumer of XREADGROUP.
#[derive(Clone, Copy)]
struct Reader<'a> {
    group: &'a [u8],
    consumer: &'a [u8],
}

struct ReadOptions<'a> {
    reader: Option<Reader<'a>>,
    /// `None`: no waiting. Inside: when the wait ends, wall clock ms; `None` for never.
    block: Option<Option<i64>>,
    /// 0: all.
    count: u64,
    no_ack: bool,
    /// Index of the first key.
    keys_at: usize,
    keys: Args<'a>,
    ids: Args<'a>,
}

/// A timeout in milliseconds, as the wall clock time at which it ends; `None` for 0: never.
fn timeout_arg(arg: &[u8], now_ms: i64) -> Result<Option<i64>, CmdError> {
    let ms = int_arg(arg).map_err(|_| CmdError::of("ERR timeout is not an integer or out of range"))?;
    if ms < 0 {
        return Err(CmdError::of("ERR timeout is negative"));
    }
    if ms == 0 {
        return Ok(None);
    }
    now_ms.checked_add(ms).map(Some).ok_or(CmdError::of("ERR timeout is out of range"))
}

/// An option, with the index of its first value.
#[derive(Clone, Copy)]
enum Opt {
    Block(usize),
    Count(usize),
    /// The group; the consumer is the next.
    Group(usize),
    NoAck,
    /// The keys, and as many ids: `count` arguments.
    Streams {
        at: usize,
        count: usize,
    },
}

/// The options of a call up to its streams, or up to an unknown argument, which is an error. Used by the command and to
/// find its keys, so that both agree.
struct Options<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> Options<'a> {
    fn of(args: Args<'a>) -> Options<'a> {
        Options { args, next: 1 }
    }
}

impl Iterator for Options<'_> {
    type Item = Result<Opt, CmdError>;

    fn next(&mut self) -> Option<Result<Opt, CmdError>> {
        let at = self.next + 1;
        let option = self.args.get(self.next)?;
        let more = self.args.len() - at;
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        let (option, values) = if more > 0 && is(b"BLOCK") {
            (Ok(Opt::Block(at)), 1)
        } else if more > 0 && is(b"COUNT") {
            (Ok(Opt::Count(at)), 1)
        } else if more > 0 && is(b"STREAMS") {
            (Ok(Opt::Streams { at, count: more }), more)
        } else if more > 1 && is(b"GROUP") {
            (Ok(Opt::Group(at)), 2)
        } else if is(b"NOACK") {
            (Ok(Opt::NoAck), 0)
        } else {
            (Err(error::SYNTAX), more)
        };
        self.next = at + values;
        Some(option)
    }
}

/// The streams of a call that names as many ids.
fn stream_keys(args: Args<'_>) -> Option<Vec<KeyPos>> {
    let streams = Options::of(args).find_map(|option| match option {
        Ok(Opt::Streams { at, count }) if count.is_multiple_of(2) => Some(at..at + count / 2),
        _ => None,
    })?;
    Some(streams.map(|index| KeyPos { index, flags: key::RO | key::ACCESS }).collect())
}

impl<'a> ReadOptions<'a> {
    fn parse(ctx: &Ctx<'_>, args: Args<'a>, for_group: bool) -> Result<ReadOptions<'a>, CmdError> {
        let mut o = ReadOptions {
            reader: None,
            block: None,
            count: 0,
            no_ack: false,
            keys_at: 0,
            keys: args.between(0, 0),
            ids: args.between(0, 0),
        };
        for option in Options::of(args) {
            match option? {
                Opt::Block(at) => {
                    if ctx.session.is_script() {
                        let mut text = b"ERR ".to_vec();
                        text.extend_from_slice(until_nul(args.at(0)));
                        text.extend_from_slice(b" command is not allowed with BLOCK option from scripts");
                        return Err(CmdError::bytes(text));
                    }
                    o.block = Some(timeout_arg(args.at(at), ctx.now_ms())?);
                }
                Opt::Count(at) => o.count = int_arg(args.at(at))?.max(0) as u64,
                Opt::Streams { at, count } => {
                    if !count.is_multiple_of(2) {
                        let (name, symbol) = (ctx.cmd.name, if for_group { '>' } else { '$' });
                        return Err(CmdError::text(format!(
                            "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{symbol}' must be \
                             specified."
                        )));
                    }
                    o.keys_at = at;
                    o.keys = args.between(at, at + count / 2);
                    o.ids = args.from(at + count / 2);
                }
                Opt::Group(at) => {
                    if !for_group {
                        return Err(CmdError::of(
                            "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
                        ));
                    }
                    o.reader = Some(Reader { group: args.at(at), consumer: args.at(at + 1) });
                }
                Opt::NoAck => {
                    if !for_group {
                        return Err(CmdError::of(
                            "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
                        ));
                    }
                    o.no_ack = true;
                }
            }
        }
        if o.keys.is_empty() {
            return Err(error::SYNTAX);
        }
        if for_group && o.reader.is_none() {
            return Err(CmdError::of("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(o)
    }
}

/// Where reading of a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// After this id; of a group: among the consumer's pending entries.
    After(StreamId),
    /// After the last id that the group has read.
    New,
}

fn xread(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let read = read(ctx, args, false);
    ctx.ks.effects.prevented = target::ALL;
    read
}

/// What was delivered is propagated as other commands, never this command itself.
fn xreadgroup(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let read = read(ctx, args, true);
    ctx.ks.effects.prevented = target::ALL;
    read
}

fn read(ctx: &mut Ctx<'_>, args: Args<'_>, for_group: bool) -> CmdResult {
    let options = ReadOptions::parse(ctx, args, for_group)?;
    let mut places = Vec::with_capacity(options.keys.len());
    for (key, id) in options.keys.iter().zip(options.ids.iter()) {
        places.push(place_of(ctx, key, id, options.reader)?);
    }
    // Nothing is written unless a stream has entries.
    let mark = ctx.out.open();
    let mut served = 0;
    for (key, from) in options.keys.iter().zip(&places) {
        let gave = match options.reader {
            Some(reader) => read_for_group(ctx, key, *from, reader, &options)?,
            None => read_plainly(ctx, key, *from, options.count)?,
        };
        served += usize::from(gave);
    }
    if served > 0 {
        if ctx.out.resp3 {
            ctx.out.close_map(mark, served)
        } else {
            ctx.out.close_array(mark, served)
        }
        return Ok(());
    }
    let Some(deadline_ms) = options.block else { return ctx.out.just_null_array() };
    if ctx.session.denies_blocking() {
        return ctx.out.just_null_array();
    }
    wait(ctx, args, &options, &places, deadline_ms);
    Ok(())
}

/// Makes the client wait. `$` is replaced by the last id now.
fn wait(ctx: &mut Ctx<'_>, args: Args<'_>, options: &ReadOptions<'_>, places: &[From], deadline_ms: Option<i64>) {
    let ids_at = options.keys_at + options.keys.len();
    let mut settled = OwnedArgs::default();
    for (i, arg) in args.iter().enumerate() {
        match i.checked_sub(ids_at).map(|nth| places[nth]) {
            Some(From::After(id)) if arg == b"$" => settled.push(&id.text()),
            _ => settled.push(arg),
        }
    }
    let or_gone = options.reader.is_some();
    let keys = options.keys.iter().map(<[u8]>::to_vec).collect();
    *ctx.want = Some(Want::Wait(Wait { keys, wanted: STREAM, or_gone, deadline_ms, args: Some(settled) }));
}

/// Reads an id argument; fails if the group does not exist.
fn place_of(ctx: &mut Ctx<'_>, key: &[u8], id: &[u8], reader: Option<Reader<'_>>) -> Result<From, CmdError> {
    let entry = ctx.ks.read(ctx.db, key);
    let stream = match &entry {
        Some(entry) => Some(stream_of(entry)?),
        None => None,
    };
    if let Some(reader) = reader
        && stream.is_none_or(|s| s.group(reader.group).is_none())
    {
        return Err(group::no_group_in(key, reader.group, " in XREADGROUP with GROUP option"));
    }
    match id {
        b"$" if reader.is_some() => Err(CmdError::of(
            "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer \
             by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty \
             result set.",
        )),
        b"$" => Ok(From::After(stream.map_or(StreamId::MIN, |s| s.log.last_id()))),
        b">" if reader.is_none() => Err(CmdError::of(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        )),
        b">" => Ok(From::New),
        id => match strict_id_arg(id, 0)? {
            StreamId::MAX if reader.is_some() => Ok(From::New),
            id => Ok(From::After(id)),
        },
    }
}

/// The part of the reply before the entries of a stream.
fn begin_stream(out: &mut Reply, key: &[u8]) {
    if !out.resp3 {
        out.array(2);
    }
    out.bulk(key);
}

/// Replies with entries of a stream. Returns whether there were any after the id.
fn read_plainly(ctx: &mut Ctx<'_>, key: &[u8], from: From, count: u64) -> Result<bool, CmdError> {
    let Some(entry) = ctx.ks.read(ctx.db, key) else { return Ok(false) };
    let log = &stream_of(entry)?.log;
    let From::After(id) = from else { return Ok(false) };
    if log.last_live().is_none_or(|last| last <= id) {
        return Ok(false);
    }
    let Some(start) = id.next() else { return Ok(false) };
    begin_stream(ctx.out, key);
    reply_entries(ctx.out, log.range(start, StreamId::MAX), count);
    Ok(true)
}

/// Replies with new entries, or those that the consumer has pending. Returns whether there is a reply for this stream;
/// pending entries give one even if there are none.
fn read_for_group(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    from: From,
    reader: Reader<'_>,
    options: &ReadOptions<'_>,
) -> Result<bool, CmdError> {
    let now_ms = ctx.now_ms();
    let has_sinks = ctx.ks.effects.has_sinks;
    let Some(mut entry) = ctx.ks.read_mut(ctx.db, key) else { return Ok(false) };
    let Some((log, group)) = stream_mut(&mut entry)?.group_mut(reader.group) else { return Ok(false) };
    let (consumer, created) = group::find_or_create(group, reader.consumer, now_ms);
    let mut claims = Vec::new();
    let mut skipped_to = None;
    let gave = match from {
        From::After(id) => {
            begin_stream(ctx.out, key);
            // After the largest possible id Redis starts again at the first.
            reply_pending(ctx.out, log, group, consumer, id.next().unwrap_or_default(), options.count, now_ms);
            true
        }
        From::New if log.last_live().is_some_and(|last| last > group.last_id) => {
            begin_stream(ctx.out, key);
            let mut delivery = Delivery { log, group, consumer, now_ms, no_ack: options.no_ack };
            delivery.deliver(ctx.out, options.count, |claim| {
                if has_sinks {
                    claims.push(claim);
                }
            });
            if options.no_ack {
                skipped_to = Some((group.last_id, group.entries_read));
            }
            true
        }
        From::New => false,
    };
    drop(entry);
    if created {
        group::consumer_created(ctx, key);
        if options.no_ack {
            let command = [&b"XGROUP"[..], b"CREATECONSUMER", key, reader.group, reader.consumer];
            ctx.ks.effects.propagate_now(ctx.db, &command);
        }
    }
    let effects = &mut ctx.ks.effects;
    claims.iter().for_each(|claim| claim.propagate(effects, ctx.db, key, reader.group));
    if let Some((last_id, entries_read)) = skipped_to {
        propagate_group_id(effects, ctx.db, key, reader.group, last_id, entries_read);
    }
    if gave {
        group::group_changed(ctx, key, 1);
    }
    Ok(gave)
}

/// Replies with the consumer's pending entries, and counts the delivery. Deleted entries are shown by their id alone.
fn reply_pending(
    out: &mut Reply,
    log: &Log,
    group: &mut ConsumerGroup,
    consumer: ConsumerId,
    from: StreamId,
    count: u64,
    now_ms: i64,
) {
    let mark = out.open();
    let mut delivered = Vec::new();
    let most = if count == 0 { usize::MAX } else { count as usize };
    let mut given = 0;
    for id in group.consumer(consumer).pending_from(from).take(most) {
        match log.get(id) {
            Some(entry) => {
                reply_entry(out, &entry);
                delivered.push(id);
            }
            None => {
                out.array(2);
                out.bulk(&id.text());
                out.null_array();
            }
        }
        given += 1;
    }
    delivered.into_iter().for_each(|id| group.redeliver(id, now_ms));
    out.close_array(mark, given);
}

/// Delivers new entries of a log to a consumer.
struct Delivery<'a> {
    log: &'a Log,
    group: &'a mut ConsumerGroup,
    consumer: ConsumerId,
    now_ms: i64,
    no_ack: bool,
}

impl Delivery<'_> {
    /// Replies with up to `count` entries (0: all), and calls `claimed` with those that now wait for acknowledgement.
    fn deliver(&mut self, out: &mut Reply, count: u64, mut claimed: impl FnMut(Claim)) {
        let Some(start) = self.group.last_id.next() else { return };
        let mark = out.open();
        let most = if count == 0 { usize::MAX } else { count as usize };
        let mut given = 0;
        for entry in self.log.range(start, StreamId::MAX).take(most) {
            self.read_up_to(entry.id);
            reply_entry(out, &entry);
            if !self.no_ack {
                let pending = Pending { time_ms: self.now_ms, deliveries: 1, owner: self.consumer };
                self.group.assign(entry.id, pending);
                self.group.consumer_mut(self.consumer).active_ms = self.now_ms;
                claimed(Claim::of(self.group, entry.id, &pending));
            }
            given += 1;
        }
        out.close_array(mark, given);
    }

    /// Moves the group on to an entry, and keeps its count of read entries as long as that is known.
    fn read_up_to(&mut self, id: StreamId) {
        if self.group.entries_read != -1 && !self.log.has_deleted_from(id) {
            self.group.entries_read = self.group.entries_read.wrapping_add(1);
        } else if self.log.counters.entries_added > 0 {
            self.group.entries_read = self.log.added_up_to(id).map_or(-1, |n| n as i64);
        }
        self.group.last_id = id;
    }
}

/// A pending entry as it is propagated: as an XCLAIM with its final state.
pub(super) struct Claim {
    id: StreamId,
    owner: Arc<[u8]>,
    time_ms: i64,
    deliveries: u64,
    last_id: StreamId,
}

impl Claim {
    pub(super) fn of(group: &ConsumerGroup, id: StreamId, pending: &Pending) -> Claim {
        Claim {
            id,
            owner: group.consumer(pending.owner).shared_name(),
            time_ms: pending.time_ms,
            deliveries: pending.deliveries,
            last_id: group.last_id,
        }
    }

    pub(super) fn propagate(&self, effects: &mut Effects, db: usize, key: &[u8], group: &[u8]) {
        let (mut time, mut deliveries) = (IntBuf::new(), IntBuf::new());
        effects.propagate_now(
            db,
            &[
                b"XCLAIM",
                key,
                group,
                &self.owner,
                b"0",
                &self.id.text(),
                b"TIME",
                time.format(self.time_ms),
                b"RETRYCOUNT",
                deliveries.format(self.deliveries as i64),
                b"FORCE",
                b"JUSTID",
                b"LASTID",
                &self.last_id.text(),
            ],
        );
    }
}

/// Propagates the last id of a group, where no claim does.
pub(super) fn propagate_group_id(
    effects: &mut Effects,
    db: usize,
    key: &[u8],
    group: &[u8],
    last_id: StreamId,
    entries_read: i64,
) {
    let mut number = IntBuf::new();
    let id = last_id.text();
    effects.propagate_now(db, &[b"XGROUP", b"SETID", key, group, &id, b"ENTRIESREAD", number.format(entries_read)]);
}
