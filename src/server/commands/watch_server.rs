//! Commands that watch the server: SLOWLOG, LATENCY, MEMORY.

use super::int_arg;
use super::prelude::*;
use crate::admin::latency::Series;
use crate::catalog::CmdRef;
use crate::catalog::latency_counts::write_histogram;
use crate::keyspace::object;
use crate::server::admin::findings;
use crate::structs::numbers::f64_text;
use crate::sys::alloc;

pub(crate) const COMMANDS: &[ServerCommand] = &[
    Command::container(Group::Server, "slowlog")
        .since("2.2.12")
        .complexity("What the subcommand does.")
        .summary("Groups the commands about slow commands.")
        .subcommands(&[
            command(Group::Server, "slowlog|get", slowlog_get)
                .flags(flag::ADMIN | flag::LOADING | flag::STALE)
                .args(&[Arg::integer("count").optional()])
                .since("2.2.12")
                .history(&["4.0.0"])
                .complexity("O(N) for N entries that are shown.")
                .summary("Gives the latest entries of the slow log.")
                .tips(&["request_policy:all_nodes", "nondeterministic_output"]),
            command(Group::Server, "slowlog|help", slowlog_help)
                .flags(flag::LOADING | flag::STALE)
                .since("6.2.0")
                .summary("Lists the subcommands."),
            command(Group::Server, "slowlog|len", |ctx, _| ctx.out.just_int(ctx.srv.admin.slowlog.len() as i64))
                .flags(flag::ADMIN | flag::LOADING | flag::STALE)
                .since("2.2.12")
                .summary("Gives the number of entries in the slow log.")
                .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"]),
            command(Group::Server, "slowlog|reset", slowlog_reset)
                .flags(flag::ADMIN | flag::LOADING | flag::STALE)
                .since("2.2.12")
                .complexity("O(N) for N entries that go.")
                .summary("Empties the slow log.")
                .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        ]),
    // Not in Redis.
    command(Group::Server, "doctor", doctor)
        .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
        .since("7.2.0")
        .complexity("O(N) where N is the number of replicas, and of nodes of the cluster.")
        .summary("Tells what is wrong with the server or about to be, and what to do.")
        .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"]),
    Command::container(Group::Server, "latency")
        .since("2.8.13")
        .complexity("What the subcommand does.")
        .summary("Groups the commands about latency events.")
        .subcommands(&[
            command(Group::Server, "latency|doctor", latency_doctor)
                .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
                .since("2.8.13")
                .summary("Explains the latency events in words and advises.")
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"]),
            command(Group::Server, "latency|graph", latency_graph)
                .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
                .args(&[Arg::string("event")])
                .since("2.8.13")
                .summary("Draws the samples of a latency event.")
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"]),
            command(Group::Server, "latency|help", latency_help)
                .flags(flag::LOADING | flag::STALE)
                .since("2.8.13")
                .summary("Lists the subcommands."),
            command(Group::Server, "latency|histogram", latency_histogram)
                .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
                .args(&[Arg::string("command").optional().multiple()])
                .since("7.0.0")
                .complexity("O(N) for N commands that are told of.")
                .summary("Gives the distribution of latencies of commands.")
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"]),
            command(Group::Server, "latency|history", latency_history)
                .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
                .args(&[Arg::string("event")])
                .since("2.8.13")
                .summary("Gives the samples of a latency event with their times.")
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"]),
            command(Group::Server, "latency|latest", latency_latest)
                .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
                .since("2.8.13")
                .summary("Gives the latest sample of every latency event.")
                .tips(&["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"]),
            command(Group::Server, "latency|reset", latency_reset)
                .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
                .args(&[Arg::string("event").optional().multiple()])
                .since("2.8.13")
                .summary("Forgets the samples of latency events.")
                .tips(&["request_policy:all_nodes", "response_policy:agg_sum"]),
        ]),
    Command::container(Group::Server, "memory")
        .since("4.0.0")
        .complexity("What the subcommand does.")
        .summary("Groups the commands about memory use.")
        .subcommands(&[
            MEMORY_USAGE,
            command(Group::Server, "memory|doctor", memory_doctor)
                .since("4.0.0")
                .summary("Explains the memory use in words and advises.")
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
            command(Group::Server, "memory|help", memory_help)
                .flags(flag::LOADING | flag::STALE)
                .since("4.0.0")
                .summary("Lists the subcommands."),
            command(Group::Server, "memory|malloc-stats", |ctx, _| ctx.out.just_verbatim("txt", &alloc::report()))
                .since("4.0.0")
                .complexity("Grows with the memory in use.")
                .summary("Gives the allocator's own report.")
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
            command(Group::Server, "memory|purge", memory_purge)
                .since("4.0.0")
                .complexity("Grows with the memory in use.")
                .summary("Asks the allocator to give unused memory back.")
                .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
            command(Group::Server, "memory|stats", memory_stats)
                .since("4.0.0")
                .summary("Gives the figures of memory use.")
                .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"]),
        ]),
];

const MEMORY_USAGE: ServerCommand = command(Group::Server, "memory|usage", memory_usage)
    .flags(flag::READONLY)
    .keys(&[KeySpec::range(key::RO, 2, 0, 1)])
    .args(&[Arg::key("key", 0), Arg::integer("count").token("SAMPLES").optional()])
    .since("4.0.0")
    .complexity("O(N) where N is the number of elements looked at.")
    .summary("Estimates the memory that a key takes, in bytes.");

fn slowlog_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(
        ctx.out,
        args,
        &[
            "GET [<count>]",
            "    Give the latest <count> entries (default: 10, -1 means all), each with its id, time, duration in microseconds,",
            "    arguments, and the address and name of the client.",
            "LEN",
            "    Give the number of entries.",
            "RESET",
            "    Remove all entries.",
        ],
    )
}

fn slowlog_get(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() > 3 {
        return Err(super::unknown_subcommand(args));
    }
    let count = match args.get(2) {
        None => 10,
        Some(arg) => {
            let range = CmdError::of("ERR count should be greater than or equal to -1");
            match int_arg(arg).map_err(|_| range.clone())? {
                -1 => usize::MAX,
                n => usize::try_from(n).map_err(|_| range)?,
            }
        }
    };
    ctx.srv.admin.slowlog.write(count, ctx.out);
    Ok(())
}

fn slowlog_reset(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.srv.admin.slowlog.reset();
    ctx.out.just_ok()
}

fn latency_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(
        ctx.out,
        args,
        &[
            "DOCTOR",
            "    Explain the latency events in words.",
            "GRAPH <event>",
            "    Draw the samples of an event.",
            "HISTORY <event>",
            "    Give the samples of an event with their times.",
            "LATEST",
            "    Give the latest sample of every event.",
            "RESET [<event> ...]",
            "    Forget the samples of these events (default: of all).",
            "HISTOGRAM [COMMAND ...]",
            "    Give the distribution of the latencies of these commands (default: of all), cumulated.",
            "    'loop-turn' names the turns of the event loop.",
        ],
    )
}

fn event(ctx: &Ctx<'_>, name: &[u8]) -> Option<(&'static str, Series)> {
    let events = &ctx.srv.admin.latency.events;
    events.iter().find(|(n, _)| n.as_bytes() == name).map(|(n, s)| (*n, s.clone()))
}

fn latency_history(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some((_, series)) = event(ctx, &args[2]) else { return ctx.out.just_empty() };
    ctx.out.array(series.samples().len());
    for sample in series.samples() {
        ctx.out.array(2);
        ctx.out.int(sample.time);
        ctx.out.int(sample.latency as i64);
    }
    Ok(())
}

fn latency_latest(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let events = &ctx.srv.admin.latency.events;
    ctx.out.array(events.len());
    for (name, series) in events {
        let (time, latency) = series.last().map_or((0, 0), |s| (s.time, s.latency));
        ctx.out.array(4);
        ctx.out.bulk_str(name);
        ctx.out.int(time);
        ctx.out.int(latency as i64);
        ctx.out.int(series.max as i64);
    }
    Ok(())
}

fn latency_graph(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some((name, series)) = event(ctx, &args[2]) else {
        let mut text = b"ERR No samples available for event '".to_vec();
        text.extend_from_slice(&args[2]);
        text.push(b'\'');
        return Err(CmdError::bytes(text));
    };
    let text = series.graph(name, ctx.srv.clock.us() / 1_000_000);
    ctx.out.just_verbatim("txt", text.as_bytes())
}

fn doctor(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    findings::write(&ctx.srv.findings(false), ctx.out);
    Ok(())
}

fn latency_doctor(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let text = ctx.srv.latency_report();
    ctx.out.just_verbatim("txt", text.as_bytes())
}

fn latency_reset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let events = &mut ctx.srv.admin.latency.events;
    let before = events.len();
    if args.len() == 2 {
        events.clear();
    } else {
        events.retain(|name, _| !args.iter().skip(2).any(|a| a == name.as_bytes()));
    }
    ctx.out.just_int((before - events.len()) as i64)
}

/// What LATENCY HISTOGRAM calls the turns of the loop; shown when asked for.
const LOOP_TURN: &[u8] = b"loop-turn";

fn latency_histogram(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let table = &ctx.srv.commands;
    let mut chosen: Vec<CmdRef> = Vec::new();
    if args.len() == 2 {
        chosen.extend(table.refs());
    }
    for name in args.iter().skip(2) {
        if let Some(cmd) = table.find_full(name) {
            chosen.push(cmd);
            chosen.extend(&table.get(cmd).subcommands);
        }
    }
    let mark = ctx.out.open();
    let mut count = 0;
    for cmd in chosen {
        let entry = table.get(cmd);
        let Some(histogram) = entry.stats.latency().histogram() else { continue };
        count += 1;
        ctx.out.bulk_str(entry.row.name);
        write_histogram(ctx.out, &histogram);
    }
    let turns = ctx.srv.admin.metrics.turns.histogram();
    if let Some(turns) = turns.filter(|_| args.iter().skip(2).any(|name| name.eq_ignore_ascii_case(LOOP_TURN))) {
        count += 1;
        ctx.out.bulk(LOOP_TURN);
        write_histogram(ctx.out, &turns);
    }
    ctx.out.close_map(mark, count);
    Ok(())
}

fn memory_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(
        ctx.out,
        args,
        &[
            "DOCTOR",
            "    Explain the memory use in words.",
            "MALLOC-STATS",
            "    Give the allocator's own report.",
            "PURGE",
            "    Ask the allocator to give unused memory back.",
            "STATS",
            "    Give the figures of memory use.",
            "USAGE <key> [SAMPLES <count>]",
            "    Give the memory in bytes that <key> and its value use. Nested values are estimated from <count> samples",
            "    (default: 5, 0 means all).",
        ],
    )
}

fn memory_usage(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut samples = 5;
    let mut i = 3;
    while i < args.len() {
        if !args[i].eq_ignore_ascii_case(b"SAMPLES") || i + 1 >= args.len() {
            return Err(error::SYNTAX);
        }
        samples = int_arg(&args[i + 1])?;
        if samples < 0 {
            return Err(error::SYNTAX);
        }
        i += 2;
    }
    let samples = if samples == 0 { usize::MAX } else { samples as usize };
    match ctx.srv.ks.dbs[ctx.db].get(&args[2]) {
        Some(entry) => {
            let bytes = object::memory_usage(entry, samples);
            ctx.out.int(bytes as i64);
        }
        None => ctx.out.null(),
    }
    Ok(())
}

fn memory_doctor(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let text = ctx.srv.memory_report();
    ctx.out.just_verbatim("txt", text.as_bytes())
}

fn memory_purge(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    if !alloc::purge() {
        return Err(CmdError::of("ERR Error purging dirty pages"));
    }
    ctx.out.just_ok()
}

fn memory_stats(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let o = ctx.srv.memory_overhead();
    let s = ctx.srv.memory_samples();
    let out = &mut *ctx.out;
    let mark = out.open();
    let mut count = 0;
    let mut int = |out: &mut crate::resp::Reply, name: &str, value: i64| {
        out.bulk_str(name);
        out.int(value);
        count += 1;
    };
    int(out, "peak.allocated", o.peak as i64);
    int(out, "total.allocated", o.used as i64);
    int(out, "startup.allocated", o.startup as i64);
    int(out, "replication.backlog", o.replication.backlog as i64);
    int(out, "clients.slaves", o.replication.replicas as i64);
    int(out, "clients.normal", o.clients as i64);
    int(out, "cluster.links", o.cluster_links as i64);
    int(out, "aof.buffer", o.aof_buffer as i64);
    int(out, "lua.caches", o.scripts.eval_cache as i64);
    int(out, "functions.caches", o.scripts.function_cache as i64);
    for db in &o.dbs {
        out.bulk_str(&format!("db.{}", db.db));
        out.map(1);
        out.bulk_str("overhead.hashtable.main");
        out.int(db.main as i64);
    }
    int(out, "overhead.total", o.total as i64);
    int(out, "keys.count", o.keys as i64);
    int(out, "keys.bytes-per-key", o.bytes_per_key() as i64);
    int(out, "dataset.bytes", o.dataset as i64);
    for (name, value) in
        [("dataset.percentage", o.dataset_perc()), ("peak.percentage", o.used as f64 * 100.0 / o.peak.max(1) as f64)]
    {
        out.bulk_str(name);
        out.double_text(&String::from_utf8_lossy(f64_text(value).as_bytes()));
    }
    int(out, "allocator.allocated", s.allocated as i64);
    int(out, "allocator.active", s.active as i64);
    int(out, "allocator.resident", s.resident as i64);
    let pairs = [
        ("allocator-fragmentation.ratio", "allocator-fragmentation.bytes", s.active, s.allocated),
        ("allocator-rss.ratio", "allocator-rss.bytes", s.resident, s.active),
        ("rss-overhead.ratio", "rss-overhead.bytes", s.rss, s.resident),
        ("fragmentation", "fragmentation.bytes", s.rss, s.used),
    ];
    for (ratio, bytes, of, to) in pairs {
        out.bulk_str(ratio);
        out.double_text(&String::from_utf8_lossy(f64_text(of as f64 / to.max(1) as f64).as_bytes()));
        int(out, bytes, of as i64 - to as i64);
    }
    // Doubles were written beside `int`.
    out.close_map(mark, count + o.dbs.len() + 2 + pairs.len());
    Ok(())
}
