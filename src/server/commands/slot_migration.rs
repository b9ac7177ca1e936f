//! The subcommands of CLUSTER that move slots as a whole: arguments and replies. What they do is in `cluster::slot_migration`.

use super::cluster::{machine, slot_arg, view};
use super::debug::DebugSub;
use super::prelude::*;
use super::{int_arg, slot_tasks};
use crate::cluster::node::{NodeId, NodeKey};
use crate::cluster::slot_migration::{Establish, JobView, Message, Origin, Ranges};
use crate::keyspace::effects::target;
use crate::server::clients::ClientFlags;
use crate::structs::slots::{SlotSet, slots_in};

pub(super) const CANCEL: ServerCommand = command(Group::Cluster, "cluster|cancelslotmigrations", cancel)
    .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
    .since("9.0.0")
    .complexity("O(N) where N is the number of migrations.")
    .summary("Cancels all migrations of slots away from this node.");

pub(super) const GET: ServerCommand = command(Group::Cluster, "cluster|getslotmigrations", get)
    .flags(flag::ADMIN | flag::STALE)
    .since("9.0.0")
    .complexity("O(N) where N is the number of migrations.")
    .summary("Lists the migrations of slots to and from this node, under way and lately.")
    .tips(&["nondeterministic_output"]);

pub(super) const MIGRATE: ServerCommand = command(Group::Cluster, "cluster|migrateslots", migrate)
    .arity(-4)
    .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
    .args(&[Arg::block("migration-group").multiple().of(&[
        Arg::word("slotsrange", "SLOTSRANGE"),
        Arg::block("slot-range").multiple().of(&[Arg::integer("start-slot"), Arg::integer("end-slot")]),
        Arg::string("node").display("node-id").token("NODE"),
    ])])
    .since("9.0.0")
    .complexity("O(N) where N is the number of slots; the slots are moved in the background.")
    .summary("Moves slots of this node to another one, as a whole.");

pub(super) const SYNC: ServerCommand = command(Group::Cluster, "cluster|syncslots", sync)
    .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
    .args(&[Arg::string("message"), Arg::string("argument").optional().multiple()])
    .since("9.0.0")
    .summary("What nodes say to each other when slots move.");

pub(super) const DEBUG: DebugSub = DebugSub {
    name: "slotmigration",
    args: 2..=2,
    run: debug,
    help: &[
        "SLOTMIGRATION PREVENT-PAUSE|PREVENT-FAILOVER <0|1>",
        "    Have migrations of slots stop before writes are held back, or before the takeover.",
    ],
};

pub(super) fn refuse<T>(text: String) -> Result<T, CmdError> {
    Err(CmdError::text(format!("ERR {text}")))
}

/// Ranges of slots from argument `from` on, their owner, and where the next argument is. `tracked`: whoever owns them.
fn ranges(
    ctx: &Ctx<'_>,
    args: Args<'_>,
    from: usize,
    tracked: bool,
) -> Result<(Ranges, Option<NodeKey>, usize), CmdError> {
    let (mut ranges, mut owner, mut at) = (Ranges::new(), None, from);
    while let Some(arg) = args.get(at).filter(|arg| int_arg(arg).is_ok()) {
        let first = slot_arg(arg)?;
        let Some(last) = args.get(at + 1) else { return refuse("No end slot for final slot range".into()) };
        let last = slot_arg(last)?;
        if first > last {
            return refuse(format!("Start slot number {first} is greater than end slot number {last}."));
        }
        if tracked {
            ranges.push((first, last));
        } else {
            view(ctx)?.add_range(&mut ranges, &mut owner, (first, last))?;
        }
        at += 2;
    }
    if ranges.is_empty() {
        return refuse("No slot ranges specified".into());
    }
    Ok((ranges, owner, at))
}

pub(super) fn is(arg: Option<&[u8]>, word: &[u8]) -> bool {
    arg.is_some_and(|arg| arg.eq_ignore_ascii_case(word))
}

pub(super) fn caller(ctx: &Ctx<'_>) -> String {
    let c = ctx.c();
    let user = String::from_utf8_lossy(&c.user);
    format!(
        "id={} addr={} laddr={} name={} user={user}",
        c.number,
        c.addr(),
        c.laddr(),
        String::from_utf8_lossy(&c.name)
    )
}

fn migrate(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?.check_slot_migration_allowed()?;
    let mut asked: Vec<(Ranges, NodeKey)> = Vec::new();
    let mut at = 2;
    while at < args.len() {
        if !is(args.get(at), b"slotsrange") {
            return Err(error::SYNTAX);
        }
        let (ranges, owner, next) = ranges(ctx, args, at + 1, false)?;
        let m = view(ctx)?;
        if owner != Some(m.my_key()) {
            return refuse("Slots are not served by this node.".into());
        }
        m.check_exportable(&ranges, &asked)?;
        let (true, Some(id)) = (is(args.get(next), b"node"), args.get(next + 1)) else { return Err(error::SYNTAX) };
        if id.len() != NodeId::LEN {
            return refuse(format!("Invalid node name: {}", String::from_utf8_lossy(id)));
        }
        let Some(node) = m.find(id) else {
            return refuse(format!("Unknown node name: {}", String::from_utf8_lossy(id)));
        };
        if node == m.my_key() {
            return refuse("Target node can not be this node.".into());
        }
        asked.push((ranges, node));
        at = next + 2;
    }
    let by = caller(ctx);
    machine(ctx, |m, env| m.migrate_slots(asked, &by, env))?;
    ctx.out.just_ok()
}

fn cancel(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    view(ctx)?;
    let by = caller(ctx);
    machine(ctx, |m, env| m.cancel_slot_migrations(&by, env))??;
    // Writes that were held back go on before this is known.
    ctx.srv.review_slots();
    ctx.out.just_ok()
}

fn get(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.srv.note_migration_links();
    let jobs = view(ctx)?.slot_migrations();
    ctx.out.array(jobs.len());
    for job in jobs {
        write_job(ctx, &job);
    }
    Ok(())
}

fn write_job(ctx: &mut Ctx<'_>, job: &JobView) {
    let out = &mut ctx.out;
    out.map(if job.nodes.is_some() { 12 } else { 10 });
    let mut texts: Vec<(&str, &[u8])> = vec![
        ("name", job.name.as_bytes()),
        ("operation", job.operation.as_bytes()),
        ("slot_ranges", job.slot_ranges.as_bytes()),
    ];
    if let Some((target, source)) = &job.nodes {
        texts.extend([("target_node", &target.as_bytes()[..]), ("source_node", &source.as_bytes()[..])]);
    }
    for (name, text) in texts {
        out.bulk_str(name);
        out.bulk(text);
    }
    for (name, seconds) in
        [("create_time", job.created_s), ("last_update_time", job.updated_s), ("last_ack_time", job.acked_s)]
    {
        out.bulk_str(name);
        out.int(seconds);
    }
    for (name, text) in [("state", job.state), ("message", &job.message)] {
        out.bulk_str(name);
        out.bulk_str(text);
    }
    // No child shares its memory with this process.
    for (name, bytes) in [("cow_size", 0), ("remaining_repl_size", job.backlog)] {
        out.bulk_str(name);
        out.int(bytes as i64);
    }
}

/// What is said over the link of a job has no reply, but for ESTABLISH.
fn sync(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    let word = args.at(2);
    if is(Some(word), b"establish") {
        return establish(ctx, args);
    }
    if is(Some(word), b"finish") {
        return finish(ctx, args);
    }
    if ctx.c().is(ClientFlags::MASTER.union(ClientFlags::AOF)) && is(Some(word), b"conf") {
        return slot_tasks::conf_of_master(ctx, args);
    }
    // That is between our master and the source; and of the capabilities that may be announced none is known.
    if ctx.c().is(ClientFlags::MASTER) || is(Some(word), b"capa") {
        return Ok(());
    }
    let rest: Vec<&[u8]> = args.iter().skip(3).collect();
    match (ctx.srv.job_of(ctx.client), Message::of(word, &rest)) {
        (Some(link), message) => ctx.srv.on_sync_message(link, message),
        (None, _) if ctx.srv.depth > 1 => return refuse("The connection is in use".into()),
        (None, _) if is(Some(word), b"conf") => return slot_tasks::conf(ctx, args),
        (None, _) if is(Some(word), b"sync") => return slot_tasks::sync(ctx, args),
        (None, _) if is(Some(word), b"rdbchannel") && args.len() == 4 => return slot_tasks::rdbchannel(ctx, args),
        (None, Message::Unknown) => return Err(error::SYNTAX),
        (None, _) => {
            let word = String::from_utf8_lossy(word).to_ascii_uppercase();
            return refuse(format!("CLUSTER SYNCSLOTS {word} should only be used by slot migration clients"));
        }
    }
    Ok(())
}

/// CLUSTER SYNCSLOTS ESTABLISH SOURCE <node-id> NAME <job> SLOTSRANGE <start> <end> ...
fn establish(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let tracked = ctx.c().is(ClientFlags::MASTER.union(ClientFlags::AOF));
    if !tracked {
        view(ctx)?.check_slot_migration_allowed()?;
        if ctx.srv.job_of(ctx.client).is_some() || ctx.srv.depth > 1 {
            return refuse("The connection is in use".into());
        }
    }
    let (mut source, mut name, mut slots) = (None, None, None);
    let mut at = 3;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1);
        let id = value.and_then(NodeId::parse);
        if is(Some(word), b"source") && source.is_none() && id.is_some() {
            // Which node that is matters to the target alone.
            if !tracked {
                source = Some(source_node(ctx, value.unwrap_or_default())?);
            }
        } else if is(Some(word), b"name") && name.is_none() && id.is_some() {
            name = id;
        } else if is(Some(word), b"slotsrange") && slots.is_none() {
            let (ranges, owner, next) = ranges(ctx, args, at + 1, tracked)?;
            if !tracked {
                view(ctx)?.check_importable(&ranges)?;
            }
            slots = Some((ranges, owner));
            at = next;
            continue;
        } else {
            return Err(error::SYNTAX);
        }
        at += 2;
    }
    let (Some(name), Some((ranges, owner)), true) = (name, slots, tracked || source.is_some()) else {
        return Err(error::SYNTAX);
    };
    let named: SlotSet = slots_in(&ranges).collect();
    // What is left in them of another time has to go first. And where a replica is about to take over, nothing more is to be
    // told to it.
    if !tracked && source == owner && (ctx.srv.trims_first(&named) || ctx.srv.writes_paused()) {
        ctx.srv.postpone_this(ctx.client, args);
        return Ok(());
    }
    let origin = if tracked { Origin::Tracked } else { Origin::Source };
    let asked = Establish { source, name, ranges, owner };
    let job = machine(ctx, |m, env| m.establish(asked, origin, env))??;
    ctx.srv.review_slots();
    ctx.srv.ks.effects.forced |= target::ALL;
    if tracked {
        ctx.out.ok();
    } else {
        ctx.srv.adopt_link(ctx.client, job.main());
        // From now on replies are not sent.
        ctx.srv.clients.push(ctx.client, b"+OK\r\n");
    }
    Ok(())
}

fn source_node(ctx: &Ctx<'_>, id: &[u8]) -> Result<NodeKey, CmdError> {
    let m = view(ctx)?;
    match m.find(id) {
        None => refuse("Target node does not know the source node".into()),
        Some(key) if key == m.my_key() => refuse("Source node is target node itself".into()),
        Some(key) => Ok(key),
    }
}

/// CLUSTER SYNCSLOTS FINISH STATE SUCCESS|FAILED NAME <job> [MESSAGE <text>]
fn finish(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if !ctx.c().is(ClientFlags::MASTER.union(ClientFlags::AOF)) {
        return refuse("CLUSTER SYNCSLOTS FINISH is for replicas only".into());
    }
    let (mut state, mut name, mut message) = (None, None, None);
    for at in (3..args.len()).step_by(2) {
        let (word, Some(value)) = (args.get(at), args.get(at + 1)) else { return Err(error::SYNTAX) };
        let place = match word {
            word if is(word, b"state") => &mut state,
            word if is(word, b"name") => &mut name,
            word if is(word, b"message") => &mut message,
            _ => return Err(error::SYNTAX),
        };
        if place.replace(value).is_some() {
            return Err(error::SYNTAX);
        }
    }
    let (Some(state), Some(name)) = (state, name.and_then(NodeId::parse)) else { return Err(error::SYNTAX) };
    let is_success = is(Some(state), b"success");
    if !is_success && !is(Some(state), b"failed") {
        return Err(error::SYNTAX);
    }
    let message = String::from_utf8_lossy(message.unwrap_or_default()).into_owned();
    machine(ctx, |m, env| m.finish_import(name, is_success, &message, env))??;
    ctx.srv.review_slots();
    ctx.srv.ks.effects.forced |= target::ALL;
    ctx.out.just_ok()
}

fn debug(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let on = int_arg(args.at(3))? != 0;
    machine(ctx, |m, _| {
        let jobs = m.slot_migration_debug();
        if is(args.get(2), b"prevent-pause") {
            jobs.prevents_pause = on;
        } else if is(args.get(2), b"prevent-failover") {
            jobs.prevents_failover = on;
        } else {
            return Err(error::SYNTAX);
        }
        Ok(())
    })??;
    ctx.out.just_ok()
}
