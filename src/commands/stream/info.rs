//! XINFO: details of a stream, its groups and their consumers.

use super::*;
use crate::commands::{help, unknown_subcommand};
use crate::structs::stream::Group as ConsumerGroup;

pub(crate) const COMMANDS: &[DataCommand] = &[Command::container(Group::Stream, "xinfo")
    .since("5.0.0")
    .summary("Commands that tell of streams.")
    .subcommands(&[
        command(Group::Stream, "xinfo|consumers", xinfo_consumers)
            .flags(flag::READONLY)
            .keys(&[KeySpec::range(key::RO | key::ACCESS, 2, 0, 1)])
            .args(&[Arg::key("key", 0), Arg::string("group")])
            .since("5.0.0")
            .history(&["7.2.0"])
            .complexity("O(N) where N is the number of consumers.")
            .summary("Tells of the consumers of a group.")
            .tips(&["nondeterministic_output"]),
        command(Group::Stream, "xinfo|groups", xinfo_groups)
            .flags(flag::READONLY)
            .keys(&[KeySpec::range(key::RO | key::ACCESS, 2, 0, 1)])
            .args(&[Arg::key("key", 0)])
            .since("5.0.0")
            .history(&["7.0.0"])
            .complexity("O(N) where N is the number of groups.")
            .summary("Tells of the groups of a stream."),
        command(Group::Stream, "xinfo|help", xinfo_help)
            .flags(flag::LOADING | flag::STALE)
            .since("5.0.0")
            .summary("Lists the subcommands."),
        command(Group::Stream, "xinfo|stream", xinfo_stream)
            .flags(flag::READONLY)
            .keys(&[KeySpec::range(key::RO | key::ACCESS, 2, 0, 1)])
            .args(&[
                Arg::key("key", 0),
                Arg::block("full-block")
                    .optional()
                    .of(&[Arg::word("full", "FULL"), Arg::integer("count").token("COUNT").optional()]),
            ])
            .since("5.0.0")
            .history(&["6.0.0", "7.0.0", "7.2.0"])
            .complexity("O(N) where N is the number of nodes of the stream, of some hundred entries each.")
            .summary("Tells of a stream."),
    ])];

/// Entries and pending entries that XINFO STREAM FULL shows by default.
const FULL_COUNT: u64 = 10;

fn xinfo_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    help(
        ctx.out,
        args,
        &[
            "CONSUMERS <key> <groupname>",
            "    Show consumers of <groupname>.",
            "GROUPS <key>",
            "    Show the stream consumer groups.",
            "STREAM <key> [FULL [COUNT <count>]",
            "    Show information about the stream.",
        ],
    )
}

fn xinfo_consumers(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let now_ms = ctx.now_ms();
    let entry = ctx.ks.read(ctx.db, &args[2]).ok_or(error::NO_SUCH_KEY)?;
    let group = stream_of(entry)?.group(&args[3]).ok_or_else(|| group::no_group_of(&args[2], &args[3]))?;
    ctx.out.array(group.consumer_count());
    for consumer in group.consumers() {
        ctx.out.map(4);
        ctx.out.bulk_str("name");
        ctx.out.bulk(consumer.name());
        ctx.out.bulk_str("pending");
        ctx.out.int(consumer.pending_len() as i64);
        ctx.out.bulk_str("idle");
        ctx.out.int(now_ms.wrapping_sub(consumer.seen_ms).max(0));
        ctx.out.bulk_str("inactive");
        ctx.out.int(match consumer.active_ms {
            -1 => -1,
            active_ms => now_ms.wrapping_sub(active_ms),
        });
    }
    Ok(())
}

fn xinfo_groups(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[2]).ok_or(error::NO_SUCH_KEY)?;
    let stream = stream_of(entry)?;
    ctx.out.array(stream.group_count());
    for (name, group) in stream.groups() {
        ctx.out.map(6);
        ctx.out.bulk_str("name");
        ctx.out.bulk(name);
        ctx.out.bulk_str("consumers");
        ctx.out.int(group.consumer_count() as i64);
        ctx.out.bulk_str("pending");
        ctx.out.int(group.pending_len() as i64);
        reply_progress(ctx.out, stream, group);
    }
    Ok(())
}

/// Three pairs: the last delivered id, the entries read, and the entries left.
fn reply_progress(out: &mut Reply, stream: &Stream, group: &ConsumerGroup) {
    out.bulk_str("last-delivered-id");
    out.bulk(&group.last_id.text());
    out.bulk_str("entries-read");
    match group.entries_read {
        -1 => out.null(),
        n => out.int(n),
    }
    out.bulk_str("lag");
    match stream.lag(group) {
        Some(lag) => out.int(lag),
        None => out.null(),
    }
}

fn xinfo_stream(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[2]).ok_or(error::NO_SUCH_KEY)?;
    let stream = stream_of(entry)?;
    let full = match args.len() {
        3 => None,
        4 | 6 if args[3].eq_ignore_ascii_case(b"FULL") => match args.get(5) {
            None => Some(FULL_COUNT),
            Some(count) if args[4].eq_ignore_ascii_case(b"COUNT") => {
                Some(u64::try_from(int_arg(count)?).unwrap_or(FULL_COUNT))
            }
            Some(_) => return Err(unknown_subcommand(args)),
        },
        _ => return Err(unknown_subcommand(args)),
    };
    let out = &mut *ctx.out;
    let log = &stream.log;
    out.map(if full.is_some() { 9 } else { 10 });
    out.bulk_str("length");
    out.int(log.len() as i64);
    out.bulk_str("radix-tree-keys");
    out.int(log.node_count() as i64);
    out.bulk_str("radix-tree-nodes");
    out.int(log.radix_node_count() as i64);
    for (name, id) in [("last-generated-id", log.last_id()), ("max-deleted-entry-id", log.counters.max_deleted_id)] {
        out.bulk_str(name);
        out.bulk(&id.text());
    }
    out.bulk_str("entries-added");
    out.int(log.counters.entries_added as i64);
    out.bulk_str("recorded-first-entry-id");
    out.bulk(&log.first_id().text());
    if let Some(count) = full {
        out.bulk_str("entries");
        reply_entries(out, log.iter(), count);
        out.bulk_str("groups");
        out.array(stream.group_count());
        stream.groups().for_each(|(name, group)| reply_full_group(out, stream, name, group, count));
        return Ok(());
    }
    out.bulk_str("groups");
    out.int(stream.group_count() as i64);
    let first = log.iter().next();
    let last = log.range_back(StreamId::MIN, StreamId::MAX).next();
    for (name, entry) in [("first-entry", first), ("last-entry", last)] {
        out.bulk_str(name);
        match entry {
            Some(entry) => reply_entry(out, &entry),
            None => out.null(),
        }
    }
    Ok(())
}

fn reply_full_group(out: &mut Reply, stream: &Stream, name: &[u8], group: &ConsumerGroup, count: u64) {
    let most = if count == 0 { usize::MAX } else { count as usize };
    out.map(7);
    out.bulk_str("name");
    out.bulk(name);
    reply_progress(out, stream, group);
    out.bulk_str("pel-count");
    out.int(group.pending_len() as i64);
    out.bulk_str("pending");
    out.array(group.pending_len().min(most));
    for (id, pending) in group.pending_from(StreamId::MIN).take(most) {
        out.array(4);
        out.bulk(&id.text());
        out.bulk(group.consumer(pending.owner).name());
        out.int(pending.time_ms);
        out.int(pending.deliveries as i64);
    }
    out.bulk_str("consumers");
    out.array(group.consumer_count());
    for consumer in group.consumers() {
        out.map(5);
        out.bulk_str("name");
        out.bulk(consumer.name());
        out.bulk_str("seen-time");
        out.int(consumer.seen_ms);
        out.bulk_str("active-time");
        out.int(consumer.active_ms);
        out.bulk_str("pel-count");
        out.int(consumer.pending_len() as i64);
        out.bulk_str("pending");
        out.array(consumer.pending_len().min(most));
        for id in consumer.pending_from(StreamId::MIN).take(most) {
            let Some(pending) = group.pending(id) else { continue };
            out.array(3);
            out.bulk(&id.text());
            out.int(pending.time_ms);
            out.int(pending.deliveries as i64);
        }
    }
}
