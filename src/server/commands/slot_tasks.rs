//! CLUSTER MIGRATION, and what a target that pulls says to the source: arguments and replies. What they do is in
//! `cluster::slot_migration`.

use super::cluster::{machine, slot_arg, view};
use super::int_arg;
use super::prelude::*;
use super::slot_migration::{caller, is, refuse};
use crate::cluster::node::NodeId;
use crate::cluster::slot_migration::{NUMBERS, Ranges, Sync, TaskView, in_order};
use crate::keyspace::effects::target;
use crate::server::clients::ClientFlags;
use crate::structs::slots::{SLOT_COUNT, SlotSet, slots_in};

const RANGE: &[Arg] = &[Arg::integer("start-slot"), Arg::integer("end-slot")];

pub(super) const MIGRATION: ServerCommand = command(Group::Cluster, "cluster|migration", migration)
    .arity(-4)
    .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
    .args(&[Arg::one_of("subcommand").of(&[
        Arg::block("import").token("IMPORT").multiple().of(RANGE),
        Arg::one_of("cancel").token("CANCEL").of(&[Arg::string("task-id").token("ID"), Arg::word("all", "ALL")]),
        Arg::one_of("status")
            .token("STATUS")
            .of(&[Arg::string("task-id").token("ID").optional(), Arg::word("all", "ALL").optional()]),
    ])])
    .since("8.4.0")
    .complexity("O(N) where N is the number of slots; the slots are moved in the background.")
    .summary("Moves slots of another node to this one, as a whole; shows and cancels such tasks.");

pub(super) const COMMANDS: &[ServerCommand] = &[command(Group::Cluster, "trimslots", trimslots)
    .flags(flag::WRITE)
    .acl(cat::KEYSPACE | cat::DANGEROUS)
    .args(&[Arg::block("ranges")
        .token("RANGES")
        .of(&[Arg::integer("numranges"), Arg::block("slots").multiple().of(RANGE)])])
    .since("8.4.0")
    .complexity("O(N) where N is the number of keys in the slots, which go in the background.")
    .summary("Deletes the keys in slots that another node serves.")];

fn wrong_count<T>(args: Args<'_>) -> Result<T, CmdError> {
    let sub = String::from_utf8_lossy(args.at(1)).to_ascii_lowercase();
    Err(CmdError::wrong_arity(&format!("cluster|{sub}")))
}

/// Ranges of slots from argument `from` to the last one, in order.
fn ranges(args: Args<'_>, from: usize) -> Result<Ranges, CmdError> {
    let mut ranges = Ranges::new();
    for at in (from..args.len()).step_by(2) {
        let (first, last) = (slot_arg(args.at(at))?, slot_arg(args.at(at + 1))?);
        if first > last {
            return refuse(format!("start slot number {first} is greater than end slot number {last}"));
        }
        ranges.push((first, last));
    }
    in_order(&ranges).or_else(|slot| refuse(format!("Slot {slot} specified multiple times")))
}

/// The task that `ID id` or `ALL` means.
fn named<'a>(args: Args<'a>) -> Result<Option<&'a [u8]>, CmdError> {
    match args.len() {
        4 | 5 => {}
        _ => return wrong_count(args),
    }
    match (is(args.get(3), b"id"), is(args.get(3), b"all"), args.get(4)) {
        (true, _, Some(id)) => Ok(Some(id)),
        (_, true, None) => Ok(None),
        (false, false, _) => refuse("unknown argument".into()),
        _ => wrong_count(args),
    }
}

fn migration(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    let word = args.get(2);
    if is(word, b"import") {
        if !(args.len() - 3).is_multiple_of(2) {
            return wrong_count(args);
        }
        let (ranges, by) = (ranges(args, 3)?, caller(ctx));
        let name = machine(ctx, |m, env| m.pull_slots(ranges, &by, env))??;
        ctx.out.bulk(name.as_bytes());
    } else if is(word, b"status") {
        let tasks = view(ctx)?.slot_tasks(named(args)?);
        ctx.out.array(tasks.len());
        tasks.iter().for_each(|task| write_task(ctx, task));
    } else if is(word, b"cancel") {
        let name = named(args)?;
        let count = machine(ctx, |m, env| m.cancel_tasks(name, env))?;
        // Writes that were held back go on before this is known.
        ctx.srv.review_slots();
        ctx.out.int(count as i64);
    } else {
        return refuse("unknown argument".into());
    }
    Ok(())
}

fn write_task(ctx: &mut Ctx<'_>, task: &TaskView) {
    let out = &mut ctx.out;
    out.map(12);
    let (source, target) = &task.nodes;
    let texts: [(&str, &[u8]); 7] = [
        ("id", task.name.as_bytes()),
        ("slots", task.slots.as_bytes()),
        ("source", source.as_bytes()),
        ("dest", target.as_bytes()),
        ("operation", task.operation.as_bytes()),
        ("state", task.state.as_bytes()),
        ("last_error", task.last_error.as_bytes()),
    ];
    for (name, text) in texts {
        out.bulk_str(name);
        out.bulk(text);
    }
    for (name, number) in [
        ("retries", task.retries as i64),
        ("create_time", task.created_ms),
        ("start_time", task.begun_ms.unwrap_or(-1)),
        ("end_time", task.ended_ms.unwrap_or(-1)),
        ("write_pause_ms", task.held_ms),
    ] {
        out.bulk_str(name);
        out.int(number);
    }
}

/// TRIMSLOTS RANGES <number> <start> <end> [...]
///
/// A Redis 8 says so to its replicas and in its log of keys that it left behind, or that came in vain: they are gone before
/// what comes next is run. Said by anybody else, the keys go one by one, as those do that were left behind here.
fn trimslots(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    if !is(args.get(1), b"ranges") {
        return refuse("missing ranges argument".into());
    }
    let count = usize::try_from(int_arg(args.at(2))?).ok().filter(|count| (1..=SLOT_COUNT).contains(count));
    if count.is_none_or(|count| args.len() != 3 + 2 * count) {
        return refuse("invalid number of ranges".into());
    }
    let slots: SlotSet = slots_in(&ranges(args, 3)?).collect();
    if ctx.c().is(ClientFlags::MASTER.union(ClientFlags::AOF)) {
        let by_master = ctx.c().is(ClientFlags::MASTER);
        ctx.srv.trim_as_told(&slots, by_master);
        ctx.srv.ks.effects.forced |= target::ALL;
        machine(ctx, |m, env| m.on_slots_trimmed(&slots, env))?;
        ctx.srv.review_slots();
    } else {
        view(ctx)?.check_trimmable(&slots)?;
        ctx.srv.trims_first(&slots);
    }
    ctx.out.just_ok()
}

/// CLUSTER SYNCSLOTS CONF ... in the stream of our master, which says how it stands with what it imports.
pub(super) fn conf_of_master(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    for at in (3..args.len()).step_by(2) {
        let (true, Some(task)) = (is(args.get(at), b"asm-task"), args.get(at + 1)) else { continue };
        if machine(ctx, |m, env| m.track_task(task, env))? {
            ctx.srv.review_slots();
            ctx.srv.ks.effects.forced |= target::ALL;
        }
    }
    ctx.out.just_ok()
}

// ---- what a target that pulls says before there is a job, or a link of it ----

/// CLUSTER SYNCSLOTS CONF <option> <value> [...], of a client that is no link yet.
pub(super) fn conf(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() < 5 || args.len().is_multiple_of(2) {
        return wrong_count(args);
    }
    let (mut node, mut is_numbered) = (None, false);
    for at in (3..args.len()).step_by(2) {
        let (option, value) = (args.get(at), args.at(at + 1));
        if is(option, b"node-id") {
            if value.len() != NodeId::LEN {
                return refuse(format!("Invalid node id length {}", value.len()));
            }
            let known = NodeId::parse(value).filter(|_| view(ctx).is_ok_and(|m| m.find(value).is_some()));
            let Some(known) = known else {
                return refuse(format!("Node {} not found in cluster", String::from_utf8_lossy(value)));
            };
            if view(ctx)?.myself().id == known {
                return refuse("The destination node is this node itself".into());
            }
            node = Some(known);
        } else if is(option, b"capa") {
            is_numbered |= value == NUMBERS;
        } else {
            return refuse(format!("Unknown option {}", String::from_utf8_lossy(args.at(at))));
        }
    }
    if let Some(node) = node {
        ctx.srv.note_caller(ctx.client, node, is_numbered);
    }
    ctx.out.just_ok()
}

/// CLUSTER SYNCSLOTS SYNC <task-id> <start> <end> [...]
pub(super) fn sync(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    const NOT_READY: &str = "NOTREADY Cluster is not ready to migrate slots";
    if args.len() < 6 || !args.len().is_multiple_of(2) {
        return wrong_count(args);
    }
    let Some(name) = NodeId::parse(args.at(3)) else { return refuse("Invalid task id".into()) };
    let ranges = ranges(args, 4)?;
    let Some((node, is_numbered)) = ctx.srv.caller(ctx.client) else {
        return refuse("The destination node has not said which one it is".into());
    };
    let Some(target) = view(ctx)?.find(node.as_bytes()) else {
        return refuse(format!("Destination node {node} is not a master"));
    };
    if ctx.srv.writes_paused() {
        return Err(CmdError::of(NOT_READY));
    }
    let asked = Sync { name, ranges, target, is_numbered };
    let Some(job) = machine(ctx, |m, env| m.serve_pull(asked, env))?? else { return Err(CmdError::of(NOT_READY)) };
    ctx.srv.adopt_link(ctx.client, job.main());
    // From now on replies are not sent.
    ctx.srv.clients.push(ctx.client, b"+RDBCHANNELSYNCSLOTS\r\n");
    Ok(())
}

/// CLUSTER SYNCSLOTS RDBCHANNEL <task-id>
pub(super) fn rdbchannel(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(name) = NodeId::parse(args.at(3)) else { return refuse("Invalid task id".into()) };
    let job = machine(ctx, |m, env| m.open_snapshot_channel(name, env))??;
    ctx.srv.adopt_link(ctx.client, job.snapshot());
    Ok(())
}
