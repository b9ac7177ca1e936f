//! Looking into values: OBJECT, and the parts of MEMORY and DEBUG that are about them.

use super::prelude::*;
use crate::keyspace::{EntryMut, Touch, object};

pub(crate) const COMMANDS: &[DataCommand] = &[Command::container(Group::Generic, "object")
    .since("2.2.3")
    .complexity("What the subcommand does.")
    .summary("A container for the commands that look into a value.")
    .subcommands(&[
        command(Group::Generic, "object|encoding", object_encoding)
            .flags(flag::READONLY)
            .keys(&[KeySpec::range(key::RO, 2, 0, 1)])
            .args(&[Arg::key("key", 0)])
            .since("2.2.3")
            .summary("Tells how a value is stored.")
            .tips(&["nondeterministic_output"]),
        command(Group::Generic, "object|freq", object_freq)
            .flags(flag::READONLY)
            .keys(&[KeySpec::range(key::RO, 2, 0, 1)])
            .args(&[Arg::key("key", 0)])
            .since("4.0.0")
            .summary("Tells how often a key was used of late, on a logarithmic scale.")
            .tips(&["nondeterministic_output"]),
        command(Group::Generic, "object|help", object_help)
            .flags(flag::LOADING | flag::STALE)
            .since("6.2.0")
            .summary("Lists the subcommands."),
        command(Group::Generic, "object|idletime", object_idletime)
            .flags(flag::READONLY)
            .keys(&[KeySpec::range(key::RO, 2, 0, 1)])
            .args(&[Arg::key("key", 0)])
            .since("2.2.3")
            .summary("Tells for how many seconds a key was not used.")
            .tips(&["nondeterministic_output"]),
        command(Group::Generic, "object|refcount", object_refcount)
            .flags(flag::READONLY)
            .keys(&[KeySpec::range(key::RO, 2, 0, 1)])
            .args(&[Arg::key("key", 0)])
            .since("2.2.3")
            .summary("Tells how many references a value has.")
            .tips(&["nondeterministic_output"]),
    ])];

/// The value of an OBJECT subcommand; `None`: there is none, and the reply is null.
fn looked_at<'a>(ctx: &'a mut Ctx<'_>, key: &[u8]) -> Option<EntryMut<'a>> {
    let entry = ctx.ks.lookup(ctx.db, key, Touch::Inspect);
    if entry.is_none() {
        ctx.out.null();
    }
    entry
}

fn object_encoding(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if let Some(name) = looked_at(ctx, &args[2]).map(|e| object::encoding_name(&e)) {
        ctx.out.bulk_str(name);
    }
    Ok(())
}

fn object_refcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    // A value is part of its key's entry, so it has one reference.
    if looked_at(ctx, &args[2]).is_some() {
        ctx.out.int(1);
    }
    Ok(())
}

fn object_idletime(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(field) = looked_at(ctx, &args[2]).map(|e| e.lru()) else { return Ok(()) };
    if ctx.cfg.maxmemory_policy.is_lfu() {
        return Err(CmdError::of(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
             policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    ctx.out.just_int(ctx.ks.access.idle_seconds(field) as i64)
}

fn object_freq(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(field) = looked_at(ctx, &args[2]).map(|e| e.lru()) else { return Ok(()) };
    if !ctx.cfg.maxmemory_policy.is_lfu() {
        return Err(CmdError::of(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
             between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    ctx.out.just_int(ctx.ks.access.lfu_counter(field) as i64)
}

fn object_help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(
        ctx.out,
        args,
        &[
            "ENCODING <key>",
            "    Return the kind of internal representation used in order to store the value",
            "    associated with a <key>.",
            "FREQ <key>",
            "    Return the access frequency index of the <key>. The returned integer is",
            "    proportional to the logarithm of the recent access frequency of the key.",
            "IDLETIME <key>",
            "    Return the idle time of the <key>, that is the approximated number of",
            "    seconds elapsed since the last access to the key.",
            "REFCOUNT <key>",
            "    Return the number of references of the value associated with the specified",
            "    <key>.",
        ],
    )
}

#[cfg(test)]
mod tests {
    use crate::commands::bare::Bare;

    #[test]
    fn values_tell_their_encodings() {
        let mut bare = Bare::new();
        bare.run("mset n 5 s text");
        assert_eq!(
            (bare.run("object encoding n"), bare.run("object encoding s")),
            ("$3 int".into(), "$6 embstr".into())
        );
        assert_eq!((bare.run("object refcount n"), bare.run("object encoding none")), (":1".into(), "$-1".into()));
        assert!(bare.run("object freq n").starts_with("-ERR An LFU maxmemory policy is not selected"));
    }
}
