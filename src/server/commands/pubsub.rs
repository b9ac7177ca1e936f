//! Pub/sub commands.

use super::prelude::*;
use crate::keyspace::effects::target;
use crate::pubsub::{Kind, Name, subscription_push};
use crate::server::clients::ClientFlags;
use crate::structs::glob;

pub(crate) const COMMANDS: &[ServerCommand] = &[
    command(Group::Pubsub, "publish", |ctx, args| publish_to(ctx, args, false))
        .flags(flag::FAST | flag::MAY_REPLICATE | flag::LOADING | flag::PUBSUB | flag::STALE)
        .args(&[Arg::string("channel"), Arg::string("message")])
        .since("2.0.0")
        .complexity("O(N+M), N subscribers of the channel and M patterns")
        .summary("Sends a message to everyone who listens to a channel."),
    command(Group::Pubsub, "spublish", |ctx, args| publish_to(ctx, args, true))
        .flags(flag::FAST | flag::MAY_REPLICATE | flag::LOADING | flag::PUBSUB | flag::STALE)
        .keys(&[KeySpec::range(key::NOT_KEY, 1, 0, 1)])
        .args(&[Arg::string("shardchannel"), Arg::string("message")])
        .since("7.0.0")
        .complexity("O(N), N subscribers of the channel")
        .summary("Sends a message to everyone who listens to a sharded channel."),
    command(Group::Pubsub, "subscribe", subscribe)
        .flags(flag::DENYOOM | flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE)
        .args(&[Arg::string("channel").multiple()])
        .since("2.0.0")
        .complexity("O(N), N channels")
        .summary("Listens to channels."),
    command(Group::Pubsub, "unsubscribe", unsubscribe)
        .flags(flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE)
        .args(&[Arg::string("channel").optional().multiple()])
        .since("2.0.0")
        .complexity("O(N), N channels")
        .summary("Stops listening to channels, or to all of them."),
    command(Group::Pubsub, "psubscribe", |ctx, args| subscribe_to(ctx, args, Kind::Pattern))
        .flags(flag::DENYOOM | flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE)
        .args(&[Arg::pattern("pattern").multiple()])
        .since("2.0.0")
        .complexity("O(N), N patterns")
        .summary("Listens to all channels whose names match a pattern."),
    command(Group::Pubsub, "punsubscribe", |ctx, args| unsubscribe_from(ctx, args, Kind::Pattern))
        .flags(flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE)
        .args(&[Arg::pattern("pattern").optional().multiple()])
        .since("2.0.0")
        .complexity("O(N), N patterns")
        .summary("Stops listening to patterns, or to all of them."),
    command(Group::Pubsub, "ssubscribe", |ctx, args| subscribe_to(ctx, args, Kind::Shard))
        .flags(flag::DENYOOM | flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE)
        .keys(&[KeySpec::range(key::NOT_KEY, 1, -1, 1)])
        .args(&[Arg::string("shardchannel").multiple()])
        .since("7.0.0")
        .complexity("O(N), N channels")
        .summary("Listens to sharded channels."),
    command(Group::Pubsub, "sunsubscribe", |ctx, args| unsubscribe_from(ctx, args, Kind::Shard))
        .flags(flag::LOADING | flag::NOSCRIPT | flag::PUBSUB | flag::STALE)
        .keys(&[KeySpec::range(key::NOT_KEY, 1, -1, 1)])
        .args(&[Arg::string("shardchannel").optional().multiple()])
        .since("7.0.0")
        .complexity("O(N), N channels")
        .summary("Stops listening to sharded channels, or to all of them."),
    Command::container(Group::Pubsub, "pubsub")
        .since("2.8.0")
        .summary("Holds the commands that look into pub/sub.")
        .subcommands(&[
            command(Group::Pubsub, "pubsub|channels", |ctx, args| list_names(ctx, args, Kind::Channel))
                .flags(flag::LOADING | flag::PUBSUB | flag::STALE)
                .args(&[Arg::pattern("pattern").optional()])
                .since("2.8.0")
                .complexity("O(N), N channels")
                .summary("Lists channels that someone listens to."),
            command(Group::Pubsub, "pubsub|help", |ctx, args| super::help(ctx.out, args, HELP))
                .flags(flag::LOADING | flag::STALE)
                .since("6.2.0")
                .summary("Explains the subcommands."),
            command(Group::Pubsub, "pubsub|numpat", pubsub_numpat)
                .flags(flag::LOADING | flag::PUBSUB | flag::STALE)
                .since("2.8.0")
                .summary("Counts the patterns that someone listens to."),
            command(Group::Pubsub, "pubsub|numsub", |ctx, args| count_listeners(ctx, args, Kind::Channel))
                .flags(flag::LOADING | flag::PUBSUB | flag::STALE)
                .args(&[Arg::string("channel").optional().multiple()])
                .since("2.8.0")
                .complexity("O(N), N channels asked about")
                .summary("Counts the listeners of channels."),
            command(Group::Pubsub, "pubsub|shardchannels", |ctx, args| list_names(ctx, args, Kind::Shard))
                .flags(flag::LOADING | flag::PUBSUB | flag::STALE)
                .args(&[Arg::pattern("pattern").optional()])
                .since("7.0.0")
                .complexity("O(N), N sharded channels")
                .summary("Lists sharded channels that someone listens to."),
            command(Group::Pubsub, "pubsub|shardnumsub", |ctx, args| count_listeners(ctx, args, Kind::Shard))
                .flags(flag::LOADING | flag::PUBSUB | flag::STALE)
                .args(&[Arg::string("shardchannel").optional().multiple()])
                .since("7.0.0")
                .complexity("O(N), N channels asked about")
                .summary("Counts the listeners of sharded channels."),
        ]),
];

fn subscribe(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    subscribe_to(ctx, args, Kind::Channel)
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

fn publish_to(ctx: &mut Ctx<'_>, args: Args<'_>, sharded: bool) -> CmdResult {
    let receivers = ctx.srv.deliver(sharded, &args[1], &args[2]);
    if ctx.srv.cfg.cluster_enabled {
        ctx.srv.cluster_publish(sharded, &args[1], &args[2]);
    } else {
        ctx.srv.ks.effects.forced |= target::REPLICAS;
    }
    ctx.out.just_int(receivers as i64)
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
    ctx.out.just_int(ctx.srv.pubsub.listeners(Kind::Pattern).len() as i64)
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
