//! Pub/sub commands.

use super::prelude::*;
use crate::keyspace::effects::target;
use crate::pubsub::{Kind, Name, subscription_push};
use crate::server::clients::ClientFlags;
use crate::structs::glob;

pub(crate) const COMMANDS: &[ServerCommand] = &[
    Command {
        name: "publish",
        run: Some(publish),
        arity: 3,
        flags: flag::FAST | flag::MAY_REPLICATE | flag::LOADING | flag::PUBSUB | flag::STALE,
        group: Group::Pubsub,
        since: "2.0.0",
        complexity: "O(N+M), N subscribers of the channel and M patterns",
        summary: "Sends a message to everyone who listens to a channel.",
        args: &[arg("channel", ArgKind::String), arg("message", ArgKind::String)],
        ..Command::ROW
    },
    Command {
        name: "spublish",
        run: Some(spublish),
        arity: 3,
        flags: flag::FAST | flag::MAY_REPLICATE | flag::LOADING | flag::PUBSUB | flag::STALE,
        keys: &[KeySpec::range(key::NOT_KEY, 1, 0, 1)],
        group: Group::Pubsub,
        since: "7.0.0",
        complexity: "O(N), N subscribers of the channel",
        summary: "Sends a message to everyone who listens to a sharded channel.",
        args: &[arg("shardchannel", ArgKind::String), arg("message", ArgKind::String)],
        ..Command::ROW
    },
    Command {
        name: "subscribe",
        run: Some(subscribe),
        arity: -2,
        flags: flag::DENYOOM | flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE,
        group: Group::Pubsub,
        since: "2.0.0",
        complexity: "O(N), N channels",
        summary: "Listens to channels.",
        args: &[arg("channel", ArgKind::String).multiple()],
        ..Command::ROW
    },
    Command {
        name: "unsubscribe",
        run: Some(unsubscribe),
        arity: -1,
        flags: flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE,
        group: Group::Pubsub,
        since: "2.0.0",
        complexity: "O(N), N channels",
        summary: "Stops listening to channels, or to all of them.",
        args: &[arg("channel", ArgKind::String).optional().multiple()],
        ..Command::ROW
    },
    Command {
        name: "psubscribe",
        run: Some(psubscribe),
        arity: -2,
        flags: flag::DENYOOM | flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE,
        group: Group::Pubsub,
        since: "2.0.0",
        complexity: "O(N), N patterns",
        summary: "Listens to all channels whose names match a pattern.",
        args: &[arg("pattern", ArgKind::Pattern).multiple()],
        ..Command::ROW
    },
    Command {
        name: "punsubscribe",
        run: Some(punsubscribe),
        arity: -1,
        flags: flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE,
        group: Group::Pubsub,
        since: "2.0.0",
        complexity: "O(N), N patterns",
        summary: "Stops listening to patterns, or to all of them.",
        args: &[arg("pattern", ArgKind::Pattern).optional().multiple()],
        ..Command::ROW
    },
    Command {
        name: "ssubscribe",
        run: Some(ssubscribe),
        arity: -2,
        flags: flag::DENYOOM | flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE,
        keys: &[KeySpec::range(key::NOT_KEY, 1, -1, 1)],
        group: Group::Pubsub,
        since: "7.0.0",
        complexity: "O(N), N channels",
        summary: "Listens to sharded channels.",
        args: &[arg("shardchannel", ArgKind::String).multiple()],
        ..Command::ROW
    },
    Command {
        name: "sunsubscribe",
        run: Some(sunsubscribe),
        arity: -1,
        flags: flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE,
        keys: &[KeySpec::range(key::NOT_KEY, 1, -1, 1)],
        group: Group::Pubsub,
        since: "7.0.0",
        complexity: "O(N), N channels",
        summary: "Stops listening to sharded channels, or to all of them.",
        args: &[arg("shardchannel", ArgKind::String).optional().multiple()],
        ..Command::ROW
    },
    Command {
        name: "pubsub",
        arity: -2,
        group: Group::Pubsub,
        since: "2.8.0",
        complexity: "Depends on the subcommand.",
        summary: "Holds the commands that look into pub/sub.",
        subcommands: &[
            Command {
                name: "pubsub|channels",
                run: Some(pubsub_channels),
                arity: -2,
                flags: flag::LOADING | flag::PUBSUB | flag::STALE,
                group: Group::Pubsub,
                since: "2.8.0",
                complexity: "O(N), N channels",
                summary: "Lists channels that someone listens to.",
                args: &[arg("pattern", ArgKind::Pattern).optional()],
                ..Command::ROW
            },
            Command {
                name: "pubsub|help",
                run: Some(pubsub_help),
                arity: 2,
                flags: flag::LOADING | flag::STALE,
                group: Group::Pubsub,
                since: "6.2.0",
                complexity: "O(1)",
                summary: "Explains the subcommands.",
                ..Command::ROW
            },
            Command {
                name: "pubsub|numpat",
                run: Some(pubsub_numpat),
                arity: 2,
                flags: flag::LOADING | flag::PUBSUB | flag::STALE,
                group: Group::Pubsub,
                since: "2.8.0",
                complexity: "O(1)",
                summary: "Counts the patterns that someone listens to.",
                ..Command::ROW
            },
            Command {
                name: "pubsub|numsub",
                run: Some(pubsub_numsub),
                arity: -2,
                flags: flag::LOADING | flag::PUBSUB | flag::STALE,
                group: Group::Pubsub,
                since: "2.8.0",
                complexity: "O(N), N channels asked about",
                summary: "Counts the listeners of channels.",
                args: &[arg("channel", ArgKind::String).optional().multiple()],
                ..Command::ROW
            },
            Command {
                name: "pubsub|shardchannels",
                run: Some(pubsub_shardchannels),
                arity: -2,
                flags: flag::LOADING | flag::PUBSUB | flag::STALE,
                group: Group::Pubsub,
                since: "7.0.0",
                complexity: "O(N), N sharded channels",
                summary: "Lists sharded channels that someone listens to.",
                args: &[arg("pattern", ArgKind::Pattern).optional()],
                ..Command::ROW
            },
            Command {
                name: "pubsub|shardnumsub",
                run: Some(pubsub_shardnumsub),
                arity: -2,
                flags: flag::LOADING | flag::PUBSUB | flag::STALE,
                group: Group::Pubsub,
                since: "7.0.0",
                complexity: "O(N), N channels asked about",
                summary: "Counts the listeners of sharded channels.",
                args: &[arg("shardchannel", ArgKind::String).optional().multiple()],
                ..Command::ROW
            },
        ],
        ..Command::ROW
    },
];

fn subscribe(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    subscribe_to(ctx, args, Kind::Channel)
}

fn psubscribe(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    subscribe_to(ctx, args, Kind::Pattern)
}

fn ssubscribe(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    subscribe_to(ctx, args, Kind::Shard)
}

fn subscribe_to(ctx: &mut Ctx<'_>, args: Args<'_>, kind: Kind) -> CmdResult {
    let c = ctx.c();
    // A transaction has always been allowed to subscribe, a script never.
    let in_multi = c.is(ClientFlags::MULTI) && kind != Kind::Shard;
    if c.is(ClientFlags::DENY_BLOCKING) && !in_multi {
        return Err(CmdError::text(format!(
            "ERR {} isn't allowed for a DENY BLOCKING client",
            ctx.cmd.name.to_ascii_uppercase()
        )));
    }
    for name in args.iter().skip(1) {
        ctx.srv.subscribe(ctx.client, kind, name);
        let count = subscription_count(ctx, kind);
        subscription_push(ctx.out, kind.verbs().0, Some(name), count);
    }
    Ok(())
}

fn unsubscribe(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    unsubscribe_from(ctx, args, Kind::Channel)
}

fn punsubscribe(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    unsubscribe_from(ctx, args, Kind::Pattern)
}

fn sunsubscribe(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    unsubscribe_from(ctx, args, Kind::Shard)
}

/// From the named ones, or from all there are; with none at all, one push says so.
fn unsubscribe_from(ctx: &mut Ctx<'_>, args: Args<'_>, kind: Kind) -> CmdResult {
    let verb = kind.verbs().1;
    if args.len() > 1 {
        args.iter().skip(1).for_each(|name| unsubscribe_from_one(ctx, kind, name));
        return Ok(());
    }
    let names: Vec<Name> = ctx.c().subscriptions.iter().flat_map(|s| s.names(kind)).cloned().collect();
    if names.is_empty() {
        let count = subscription_count(ctx, kind);
        subscription_push(ctx.out, verb, None, count);
    }
    names.iter().for_each(|name| unsubscribe_from_one(ctx, kind, name));
    Ok(())
}

fn unsubscribe_from_one(ctx: &mut Ctx<'_>, kind: Kind, name: &[u8]) {
    ctx.srv.unsubscribe(ctx.client, kind, name);
    let count = subscription_count(ctx, kind);
    subscription_push(ctx.out, kind.verbs().1, Some(name), count);
}

fn subscription_count(ctx: &Ctx<'_>, kind: Kind) -> usize {
    ctx.c().subscriptions.as_ref().map_or(0, |s| s.count_for(kind))
}

fn publish(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    publish_to(ctx, args, false)
}

fn spublish(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    publish_to(ctx, args, true)
}

fn publish_to(ctx: &mut Ctx<'_>, args: Args<'_>, sharded: bool) -> CmdResult {
    let receivers = ctx.srv.deliver(sharded, &args[1], &args[2]);
    if ctx.srv.cfg.cluster_enabled {
        ctx.srv.cluster_publish(sharded, &args[1], &args[2]);
    } else {
        ctx.srv.ks.effects.forced |= target::REPLICAS;
    }
    ctx.out.int(receivers as i64);
    Ok(())
}

fn pubsub_channels(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    list_names(ctx, args, Kind::Channel)
}

fn pubsub_shardchannels(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    list_names(ctx, args, Kind::Shard)
}

fn list_names(ctx: &mut Ctx<'_>, args: Args<'_>, kind: Kind) -> CmdResult {
    if args.len() > 3 {
        return Err(super::unknown_subcommand(args));
    }
    let pattern = args.get(2);
    let mark = ctx.out.open();
    let mut count = 0;
    for name in ctx.srv.pubsub.listeners(kind).names().filter(|n| pattern.is_none_or(|p| glob::matches(p, n))) {
        ctx.out.bulk(name);
        count += 1;
    }
    ctx.out.close_array(mark, count);
    Ok(())
}

fn pubsub_numsub(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    count_listeners(ctx, args, Kind::Channel)
}

fn pubsub_shardnumsub(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    count_listeners(ctx, args, Kind::Shard)
}

fn count_listeners(ctx: &mut Ctx<'_>, args: Args<'_>, kind: Kind) -> CmdResult {
    let names = args.from(2);
    ctx.out.array(names.len() * 2);
    for name in names.iter() {
        ctx.out.bulk(name);
        ctx.out.int(ctx.srv.pubsub.listeners(kind).of(name).len() as i64);
    }
    Ok(())
}

fn pubsub_numpat(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.out.int(ctx.srv.pubsub.listeners(Kind::Pattern).len() as i64);
    Ok(())
}

fn pubsub_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(ctx.out, args, HELP)
}

const HELP: &[&str] = &[
    "CHANNELS [<pattern>]",
    "    List the channels that someone listens to, of those that match the pattern.",
    "NUMPAT",
    "    Count the patterns that someone listens to.",
    "NUMSUB [<channel> ...]",
    "    Count the listeners of each channel, those of patterns left out.",
    "SHARDCHANNELS [<pattern>]",
    "    List the sharded channels that someone listens to.",
    "SHARDNUMSUB [<shardchannel> ...]",
    "    Count the listeners of each sharded channel.",
];
