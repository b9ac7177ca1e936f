//! CLUSTER, READONLY, READWRITE and ASKING: arguments and replies. What the subcommands do is in `cluster::admin`, what they
//! show in `cluster::describe`.

use super::prelude::*;
use super::{cluster_show, int_arg, slot_migration, slot_stats, slot_tasks};
use crate::cluster::{AdminError, Cluster, Env, FailoverMode, SetSlot};
use crate::server::admin::findings;
use crate::server::clients::ClientFlags;
use crate::structs::slots::{SLOT_COUNT, Slot, key_slot};
use std::fmt::Write;

pub(super) const DISABLED: CmdError = CmdError::of("ERR This instance has cluster support disabled");
const BAD_SLOT: CmdError = CmdError::of("ERR Invalid or out of range slot");

pub(crate) const COMMANDS: &[ServerCommand] = &[
    Command::container(Group::Cluster, "cluster")
        .since("3.0.0")
        .summary("A container for Redis Cluster commands.")
        .subcommands(&[
            command(Group::Cluster, "cluster|addslots", addslots)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[Arg::integer("slot").multiple()])
                .since("3.0.0")
                .complexity("O(N) where N is the number of slots named.")
                .summary("Makes this node the owner of unassigned slots."),
            command(Group::Cluster, "cluster|addslotsrange", addslots)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[Arg::block("range").multiple().of(&[Arg::integer("start-slot"), Arg::integer("end-slot")])])
                .since("7.0.0")
                .complexity("O(N) where N is the number of slots in the ranges.")
                .summary("Makes this node the owner of ranges of unassigned slots."),
            command(Group::Cluster, "cluster|bumpepoch", bumpepoch)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .since("3.0.0")
                .summary("Gives this node a config epoch greater than all others.")
                .tips(&["nondeterministic_output"]),
            slot_migration::CANCEL,
            command(Group::Cluster, "cluster|count-failure-reports", count_failure_reports)
                .flags(flag::ADMIN | flag::STALE)
                .args(&[Arg::string("node-id")])
                .since("3.0.0")
                .complexity("O(N) where N is the number of reports.")
                .summary("Counts the masters that lately reported a node as unreachable.")
                .tips(&["nondeterministic_output"]),
            command(Group::Cluster, "cluster|countkeysinslot", countkeysinslot)
                .flags(flag::STALE)
                .args(&[Arg::integer("slot")])
                .since("3.0.0")
                .summary("Counts the keys this node holds in a slot."),
            command(Group::Cluster, "cluster|delslots", delslots)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[Arg::integer("slot").multiple()])
                .since("3.0.0")
                .complexity("O(N) where N is the number of slots named.")
                .summary("Takes slots from their owner, in the eyes of this node."),
            command(Group::Cluster, "cluster|delslotsrange", delslots)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[Arg::block("range").multiple().of(&[Arg::integer("start-slot"), Arg::integer("end-slot")])])
                .since("7.0.0")
                .complexity("O(N) where N is the number of slots in the ranges.")
                .summary("Takes ranges of slots from their owner, in the eyes of this node."),
            // Not in Redis.
            command(Group::Cluster, "cluster|doctor", doctor)
                .flags(flag::ADMIN | flag::STALE)
                .since("7.2.0")
                .complexity("O(N) where N is the number of nodes.")
                .summary("Tells what is wrong with the cluster in this node's eyes, and what to do.")
                .tips(&["nondeterministic_output"]),
            command(Group::Cluster, "cluster|failover", failover)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[Arg::one_of("options")
                    .optional()
                    .of(&[Arg::word("force", "FORCE"), Arg::word("takeover", "TAKEOVER")])])
                .since("3.0.0")
                .summary("Makes a replica take the place of its master."),
            FLUSHSLOT,
            command(Group::Cluster, "cluster|flushslots", flushslots)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .since("3.0.0")
                .summary("Makes this node give up all its slots."),
            command(Group::Cluster, "cluster|forget", forget)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[Arg::string("node-id")])
                .since("3.0.0")
                .summary("Removes a node from the table of nodes and keeps it out for a minute."),
            command(Group::Cluster, "cluster|getkeysinslot", getkeysinslot)
                .flags(flag::STALE)
                .args(&[Arg::integer("slot"), Arg::integer("count")])
                .since("3.0.0")
                .complexity("O(N) where N is the number of keys asked for.")
                .summary("Lists keys this node holds in a slot.")
                .tips(&["nondeterministic_output"]),
            slot_migration::GET,
            command(Group::Cluster, "cluster|help", help)
                .flags(flag::LOADING | flag::STALE)
                .since("5.0.0")
                .summary("Describes the subcommands."),
            command(Group::Cluster, "cluster|info", info)
                .flags(flag::STALE)
                .since("3.0.0")
                .summary("Shows the state of the cluster in this node's eyes.")
                .tips(&["nondeterministic_output"]),
            command(Group::Cluster, "cluster|keyslot", keyslot)
                .flags(flag::STALE)
                .args(&[Arg::string("key")])
                .since("3.0.0")
                .complexity("O(N) where N is the length of the key.")
                .summary("Computes the slot of a key."),
            command(Group::Cluster, "cluster|links", cluster_show::links)
                .flags(flag::STALE)
                .since("7.0.0")
                .complexity("O(N) where N is the number of nodes.")
                .summary("Lists the connections of the cluster bus.")
                .tips(&["nondeterministic_output"]),
            command(Group::Cluster, "cluster|meet", meet)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[
                    Arg::string("ip"),
                    Arg::integer("port"),
                    Arg::integer("cluster-bus-port").since("4.0.0").optional(),
                ])
                .since("3.0.0")
                .history(&["4.0.0"])
                .summary("Introduces this node to a node of another cluster, joining the two."),
            slot_migration::MIGRATE,
            slot_tasks::MIGRATION,
            command(Group::Cluster, "cluster|myid", myid)
                .flags(flag::STALE)
                .since("3.0.0")
                .summary("Gives the id of this node."),
            command(Group::Cluster, "cluster|myshardid", myshardid)
                .flags(flag::STALE)
                .since("7.2.0")
                .summary("Gives the id of the shard of this node.")
                .tips(&["nondeterministic_output"]),
            command(Group::Cluster, "cluster|nodes", nodes)
                .flags(flag::STALE)
                .since("3.0.0")
                .complexity("O(N) where N is the number of nodes.")
                .summary("Shows the table of nodes, in the format of nodes.conf.")
                .tips(&["nondeterministic_output"]),
            command(Group::Cluster, "cluster|replicas", replicas_of)
                .flags(flag::ADMIN | flag::STALE)
                .args(&[Arg::string("node-id")])
                .since("5.0.0")
                .complexity("O(N) for N replicas.")
                .summary("Lists the replicas of a master.")
                .tips(&["nondeterministic_output"]),
            command(Group::Cluster, "cluster|replicate", replicate)
                .arity(-3)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[Arg::string("node-id")])
                .since("3.0.0")
                .summary("Makes this node a replica of a master."),
            command(Group::Cluster, "cluster|reset", reset)
                .flags(flag::ADMIN | flag::NOSCRIPT | flag::STALE)
                .args(&[Arg::one_of("reset-type")
                    .optional()
                    .of(&[Arg::word("hard", "HARD"), Arg::word("soft", "SOFT")])])
                .since("3.0.0")
                .complexity("O(N) where N is the number of nodes; a replica's keys are deleted as well.")
                .summary("Makes this node forget the cluster."),
            command(Group::Cluster, "cluster|saveconfig", saveconfig)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .since("3.0.0")
                .summary("Writes nodes.conf to disk."),
            command(Group::Cluster, "cluster|set-config-epoch", set_config_epoch)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[Arg::integer("config-epoch")])
                .since("3.0.0")
                .summary("Sets the config epoch of a node that knows no other."),
            command(Group::Cluster, "cluster|setslot", setslot)
                .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::STALE)
                .args(&[
                    Arg::integer("slot"),
                    Arg::one_of("subcommand").of(&[
                        Arg::string("importing").display("node-id").token("IMPORTING"),
                        Arg::string("migrating").display("node-id").token("MIGRATING"),
                        Arg::string("node").display("node-id").token("NODE"),
                        Arg::word("stable", "STABLE"),
                    ]),
                ])
                .since("3.0.0")
                .summary("Sets the owner of a slot, or where it is moving."),
            command(Group::Cluster, "cluster|shards", cluster_show::shards)
                .flags(flag::LOADING | flag::STALE)
                .since("7.0.0")
                .complexity("O(N) where N is the number of nodes.")
                .summary("Lists the shards with their slots and nodes.")
                .tips(&["nondeterministic_output"]),
            command(Group::Cluster, "cluster|slaves", replicas_of)
                .flags(flag::ADMIN | flag::STALE)
                .args(&[Arg::string("node-id")])
                .since("3.0.0")
                .deprecated("5.0.0", "`CLUSTER REPLICAS`")
                .complexity("O(N) for N replicas.")
                .summary("Lists the replicas of a master.")
                .tips(&["nondeterministic_output"]),
            slot_stats::ROW,
            command(Group::Cluster, "cluster|slots", cluster_show::slots)
                .flags(flag::LOADING | flag::STALE)
                .since("3.0.0")
                .history(&["4.0.0", "7.0.0"])
                .deprecated("7.0.0", "`CLUSTER SHARDS`")
                .complexity("O(N) where N is the number of nodes.")
                .summary("Lists the ranges of slots with the nodes that serve them.")
                .tips(&["nondeterministic_output"]),
            slot_migration::SYNC,
        ]),
    command(Group::Cluster, "readonly", readonly)
        .flags(flag::FAST | flag::LOADING | flag::STALE)
        .acl(cat::CONNECTION)
        .since("3.0.0")
        .summary("Lets this connection read from a replica."),
    command(Group::Cluster, "readwrite", readwrite)
        .flags(flag::FAST | flag::LOADING | flag::STALE)
        .acl(cat::CONNECTION)
        .since("3.0.0")
        .summary("Ends what READONLY began."),
    command(Group::Cluster, "asking", asking)
        .flags(flag::FAST)
        .acl(cat::CONNECTION)
        .since("3.0.0")
        .summary("Lets the next command into a slot that is being imported."),
];

/// Of Valkey 9.
const FLUSHSLOT: ServerCommand = command(Group::Cluster, "cluster|flushslot", flushslot)
    .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::WRITE)
    .acl(cat::KEYSPACE)
    .args(&[
        Arg::integer("slot"),
        Arg::one_of("flush-type").optional().of(&[Arg::word("async", "ASYNC"), Arg::word("sync", "SYNC")]),
    ])
    .since("9.0.0")
    .complexity("O(N) where N is the number of keys in the slot.")
    .summary("Deletes all keys in a slot.");

impl From<AdminError> for CmdError {
    fn from(error: AdminError) -> CmdError {
        CmdError::text(format!("ERR {error}"))
    }
}

/// Lets the machine work; an error outside cluster mode.
pub(super) fn machine<R>(ctx: &mut Ctx<'_>, f: impl FnOnce(&mut Cluster, &Env) -> R) -> Result<R, CmdError> {
    ctx.srv.with_cluster(f).ok_or(DISABLED)
}

/// The machine, for showing something.
pub(super) fn view<'a>(ctx: &'a Ctx<'_>) -> Result<&'a Cluster, CmdError> {
    ctx.srv.cluster().ok_or(DISABLED)
}

fn wrong_args(args: Args<'_>) -> CmdError {
    let sub = String::from_utf8_lossy(&args[1][..args[1].len().min(128)]).into_owned();
    CmdError::text(format!("ERR unknown subcommand or wrong number of arguments for '{sub}'. Try CLUSTER HELP."))
}

pub(super) fn slot_arg(arg: &[u8]) -> Result<Slot, CmdError> {
    let slot = int_arg(arg).ok().filter(|n| (0..SLOT_COUNT as i64).contains(n));
    slot.map(|n| n as Slot).ok_or(BAD_SLOT)
}

fn has_keys(ctx: &Ctx<'_>) -> bool {
    !ctx.srv.ks.dbs[0].is_empty()
}

/// What a change of roles brings about (another master, an empty data set) is there when the command has returned.
fn apply_now(ctx: &mut Ctx<'_>) {
    ctx.srv.cluster_before_sleep();
    ctx.out.ok();
}

// ---- slots ----

/// The slots that ADDSLOTS and DELSLOTS name, or the ranges of their forms for these.
fn slots_named(ctx: &Ctx<'_>, args: Args<'_>) -> Result<Vec<(Slot, Slot)>, CmdError> {
    view(ctx)?;
    if !ctx.cmd.name.ends_with("range") {
        return args.iter().skip(2).map(|arg| slot_arg(arg).map(|slot| (slot, slot))).collect();
    }
    if args.len() % 2 == 1 {
        return Err(CmdError::wrong_arity(ctx.cmd.name));
    }
    let mut out = Vec::new();
    for i in (2..args.len()).step_by(2) {
        let (first, last) = (slot_arg(&args[i])?, slot_arg(&args[i + 1])?);
        if first > last {
            return Err(CmdError::text(format!(
                "ERR start slot number {first} is greater than end slot number {last}"
            )));
        }
        out.push((first, last));
    }
    Ok(out)
}

fn addslots(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let slots = slots_named(ctx, args)?;
    if ctx.srv.waits_for_trim(ctx.client, args, Some(&slots))? {
        return Ok(());
    }
    machine(ctx, |m, _| m.add_slots(&slots))??;
    ctx.out.just_ok()
}

fn delslots(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let slots = slots_named(ctx, args)?;
    machine(ctx, |m, _| m.del_slots(&slots))??;
    ctx.out.just_ok()
}

/// CLUSTER FLUSHSLOT <slot> [ASYNC|SYNC], whoever serves the slot.
fn flushslot(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    let slot = slot_arg(&args[2])?;
    let lazy = match (args.get(3), args.len()) {
        (None, _) => ctx.srv.cfg.lazyfree_lazy_user_flush,
        (Some(how), 4) if how.eq_ignore_ascii_case(b"async") => true,
        (Some(how), 4) if how.eq_ignore_ascii_case(b"sync") => false,
        (Some(_), 4) => return Err(error::SYNTAX),
        _ => return Err(wrong_args(args)),
    };
    let ks = &mut ctx.srv.ks;
    if ks.effects.wants_events(notify::GENERIC) {
        for entry in ks.dbs[0].slot_entries(slot) {
            ks.effects.notify(notify::GENERIC, "del", entry.key(), 0);
        }
    }
    let removed = ks.flush_slots(&std::iter::once(slot).collect(), lazy);
    ks.effects.dirty += removed as u64;
    // What has gone of it to another node, or has come from one, would have to go as well.
    machine(ctx, |m, env| m.on_data_flushed(Some(slot), env))?;
    ctx.srv.review_slots();
    ctx.out.just_ok()
}

fn flushslots(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if ctx.srv.waits_for_trim(ctx.client, args, None)? {
        return Ok(());
    }
    let has_keys = has_keys(ctx);
    machine(ctx, |m, _| m.flush_slots(has_keys))??;
    ctx.out.just_ok()
}

fn setslot(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?.check_set_slot_allowed()?;
    let slot = slot_arg(&args[2])?;
    let action = args[3].to_ascii_lowercase();
    let what = match (action.as_slice(), args.len()) {
        (b"migrating", 5) => SetSlot::Migrating(&args[4]),
        (b"importing", 5) => SetSlot::Importing(&args[4]),
        (b"node", 5) => SetSlot::Node(&args[4]),
        (b"stable", 4) => SetSlot::Stable,
        _ => {
            return Err(CmdError::of("ERR Invalid CLUSTER SETSLOT action or number of arguments. Try CLUSTER HELP"));
        }
    };
    let opens = matches!(what, SetSlot::Migrating(_) | SetSlot::Importing(_));
    view(ctx)?.check_no_slot_migration(slot, opens)?;
    if ctx.srv.waits_for_trim(ctx.client, args, Some(&[(slot, slot)]))? {
        return Ok(());
    }
    machine(ctx, |m, env| m.set_slot(slot, what, env))??;
    apply_now(ctx);
    Ok(())
}

fn keyslot(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    ctx.out.just_int(i64::from(key_slot(&args[2])))
}

fn countkeysinslot(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    let slot = int_arg(&args[2])?;
    if !(0..SLOT_COUNT as i64).contains(&slot) {
        return Err(CmdError::of("ERR Invalid slot"));
    }
    ctx.out.just_int(ctx.srv.ks.dbs[0].slot_len(slot as Slot) as i64)
}

fn getkeysinslot(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    let (slot, count) = (int_arg(&args[2])?, int_arg(&args[3])?);
    if !(0..SLOT_COUNT as i64).contains(&slot) || count < 0 {
        return Err(CmdError::of("ERR Invalid slot or number of keys"));
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let db = &ctx.srv.ks.dbs[0];
    ctx.out.array(count.min(db.slot_len(slot as Slot)));
    db.slot_entries(slot as Slot).take(count).for_each(|entry| ctx.out.bulk(entry.key()));
    Ok(())
}

// ---- nodes ----

fn meet(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    if args.len() > 5 {
        return Err(wrong_args(args));
    }
    let port_arg = |what: &str, arg: &[u8]| {
        let text = String::from_utf8_lossy(arg).into_owned();
        int_arg(arg).map_err(|_| CmdError::text(format!("ERR Invalid {what} port specified: {text}")))
    };
    let port = port_arg("base", &args[3])?;
    let bus_port = match args.get(4) {
        Some(arg) => port_arg("bus", arg)?,
        None => port.saturating_add(i64::from(crate::cluster::BUS_PORT_OFFSET)),
    };
    machine(ctx, |m, env| m.meet(&args[2], port, bus_port, env))??;
    ctx.out.just_ok()
}

fn forget(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    machine(ctx, |m, env| m.forget(&args[2], env))??;
    ctx.out.just_ok()
}

fn replicate(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    match args.len() {
        3 => {}
        4 if args[2].eq_ignore_ascii_case(b"no") && args[3].eq_ignore_ascii_case(b"one") => {
            machine(ctx, |m, _| m.replicate_no_one())?;
            apply_now(ctx);
            return Ok(());
        }
        4 => return Err(wrong_args(args)),
        _ => return Err(CmdError::wrong_arity("cluster|replicate")),
    }
    if ctx.srv.waits_for_trim(ctx.client, args, None)? {
        return Ok(());
    }
    let has_keys = has_keys(ctx);
    machine(ctx, |m, _| m.replicate(&args[2], has_keys))??;
    apply_now(ctx);
    Ok(())
}

fn failover(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    if ctx.c().is(ClientFlags::MASTER) && args.len() == 5 && args.at(3).eq_ignore_ascii_case(b"replicaid") {
        return take_over_as_told(ctx, args.at(4));
    }
    let mode = match (args.get(2).map(|arg| arg.to_ascii_lowercase()).as_deref(), args.len()) {
        (None, _) => FailoverMode::Coordinated,
        (Some(b"force"), 3) => FailoverMode::Force,
        (Some(b"takeover"), 3) => FailoverMode::Takeover,
        (Some(_), 3) => return Err(error::SYNTAX),
        _ => return Err(wrong_args(args)),
    };
    machine(ctx, |m, env| m.failover(mode, env))??;
    apply_now(ctx);
    Ok(())
}

/// `CLUSTER FAILOVER FORCE REPLICAID <node>` from a master that stops, to all its replicas.
fn take_over_as_told(ctx: &mut Ctx<'_>, id: &[u8]) -> CmdResult {
    let is_meant = machine(ctx, |m, _| &m.myself().id.as_bytes()[..] == id)?;
    if is_meant && ctx.srv.admin.shutdown.waiting.is_some() {
        log::info!("Not taking over from a master that stops: this node stops, too.");
    } else if is_meant {
        log::info!("Forced failover primary request accepted.");
        machine(ctx, |m, env| m.take_over_as_told(env))?;
    }
    ctx.out.just_ok()
}

fn reset(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    let hard = match (args.get(2).map(|arg| arg.to_ascii_lowercase()).as_deref(), args.len()) {
        (None, _) | (Some(b"soft"), 3) => false,
        (Some(b"hard"), 3) => true,
        (Some(_), 3) => return Err(error::SYNTAX),
        _ => return Err(wrong_args(args)),
    };
    if ctx.srv.waits_for_trim(ctx.client, args, None)? {
        return Ok(());
    }
    let has_keys = has_keys(ctx);
    machine(ctx, |m, _| m.reset(hard, has_keys))??;
    apply_now(ctx);
    Ok(())
}

fn bumpepoch(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let (bumped, epoch) = machine(ctx, |m, _| m.bump_my_epoch())?;
    ctx.out.just_simple(&format!("{} {epoch}", if bumped { "BUMPED" } else { "STILL" }))
}

fn set_config_epoch(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    let epoch = int_arg(&args[2])?;
    machine(ctx, |m, _| m.set_config_epoch(epoch))??;
    ctx.out.just_ok()
}

fn count_failure_reports(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let count = machine(ctx, |m, env| m.count_failure_reports(&args[2], env))??;
    ctx.out.just_int(count as i64)
}

fn saveconfig(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let bus = ctx.srv.bus.as_mut().ok_or(DISABLED)?;
    bus.save(true).map_err(|reason| CmdError::text(format!("ERR error saving the cluster node config: {reason}")))?;
    ctx.out.just_ok()
}

fn myid(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let id = view(ctx)?.myself().id;
    ctx.out.just_bulk(id.as_bytes())
}

fn myshardid(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let id = view(ctx)?.myself().shard_id;
    ctx.out.just_bulk(id.as_bytes())
}

fn info(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let mut text = view(ctx)?.describe_info();
    let trims = ctx.srv.trim_figures();
    for (name, n) in [
        ("active_trim_running", trims.running as u64),
        ("active_trim_current_job_keys", trims.keys as u64),
        ("active_trim_current_job_trimmed", trims.trimmed as u64),
        ("stats_active_trim_started", trims.started),
        ("stats_active_trim_completed", trims.completed),
        ("stats_active_trim_cancelled", trims.cancelled),
    ] {
        let _ = write!(text, "cluster_slot_migration_{name}:{n}\r\n");
    }
    ctx.out.just_verbatim("txt", text.as_bytes())
}

fn doctor(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    view(ctx)?;
    findings::write(&ctx.srv.findings(true), ctx.out);
    Ok(())
}

fn nodes(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let tls = ctx.srv.names_tls_ports();
    let text = view(ctx)?.describe_nodes(tls);
    ctx.out.just_verbatim("txt", text.as_bytes())
}

fn replicas_of(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let tls = ctx.srv.names_tls_ports();
    let machine = view(ctx)?;
    let lines: Vec<String> =
        machine.replicas_of(&args[2])?.iter().map(|key| machine.describe_node(*key, tls, false)).collect();
    ctx.out.array(lines.len());
    lines.iter().for_each(|line| ctx.out.bulk_str(line));
    Ok(())
}

fn help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    view(ctx)?;
    super::help(ctx.out, args, HELP)
}

const HELP: &[&str] = &[
    "ADDSLOTS <slot> [<slot> ...]",
    "    Make this node the owner of unassigned slots.",
    "ADDSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
    "    Make this node the owner of all slots from <start slot> to <end slot>.",
    "BUMPEPOCH",
    "    Take a config epoch greater than all others.",
    "CANCELSLOTMIGRATIONS",
    "    Cancel all migrations of slots away from this node that are under way.",
    "COUNT-FAILURE-REPORTS <node-id>",
    "    Return how many masters report <node-id> as unreachable.",
    "COUNTKEYSINSLOT <slot>",
    "    Return the number of keys in <slot>.",
    "DELSLOTS <slot> [<slot> ...]",
    "    Make slots unassigned in the eyes of this node.",
    "DELSLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...]",
    "    Make all slots from <start slot> to <end slot> unassigned in the eyes of this node.",
    "DOCTOR",
    "    Return what is wrong with the cluster in the eyes of this node, and what to do.",
    "FAILOVER [FORCE|TAKEOVER]",
    "    Make this replica take the place of its master.",
    "FORGET <node-id>",
    "    Remove a node from the table of nodes.",
    "GETKEYSINSLOT <slot> <count>",
    "    Return names of keys that this node holds in a slot.",
    "GETSLOTMIGRATIONS",
    "    Return the migrations of slots to and from this node, under way and lately.",
    "FLUSHSLOT <slot> [ASYNC|SYNC]",
    "    Delete all keys in <slot>.",
    "FLUSHSLOTS",
    "    Give up all slots of this node.",
    "INFO",
    "    Return the state of the cluster.",
    "KEYSLOT <key>",
    "    Return the hash slot of <key>.",
    "MEET <ip> <port> [<bus-port>]",
    "    Join the cluster of the node at that address.",
    "MIGRATESLOTS SLOTSRANGE <start slot> <end slot> [<start slot> <end slot> ...] NODE <node-id> [SLOTSRANGE ...]",
    "    Move slots of this node to another one, as a whole.",
    "MIGRATION IMPORT <start slot> <end slot> [<start slot> <end slot> ...]",
    "    Move slots of another node to this one, as a whole.",
    "MIGRATION STATUS|CANCEL ID <task id>|ALL",
    "    Show or cancel tasks that move slots.",
    "MYID",
    "    Return the id of this node.",
    "MYSHARDID",
    "    Return the id of the shard of this node.",
    "NODES",
    "    Return the table of nodes, a line a node:",
    "    <id> <ip:port@bus-port[,hostname]> <flags> <master> <pings> <pongs> <epoch> <link> <slot> ...",
    "REPLICATE (<node-id>|NO ONE)",
    "    Make this node a replica of <node-id>, or an empty master.",
    "RESET [HARD|SOFT]",
    "    Make this node forget the cluster (default: soft).",
    "SET-CONFIG-EPOCH <epoch>",
    "    Set the config epoch of a node that is alone.",
    "SETSLOT <slot> (IMPORTING <node-id>|MIGRATING <node-id>|STABLE|NODE <node-id>)",
    "    Set the owner of a slot, or where it is moving.",
    "REPLICAS <node-id>",
    "    Return the replicas of <node-id>.",
    "SAVECONFIG",
    "    Write nodes.conf to disk.",
    "SLOTS",
    "    Return the ranges of slots: start, end, and address, port and id of master and replicas.",
    "SHARDS",
    "    Return the shards with their slots and nodes.",
    "LINKS",
    "    Return the connections between this node and others, a map of attributes each.",
];

// ---- what a connection asks for ----

fn readonly(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    view(ctx)?;
    ctx.c_mut().flags.add(ClientFlags::READONLY);
    ctx.out.just_ok()
}

fn readwrite(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    view(ctx)?;
    ctx.c_mut().flags.remove(ClientFlags::READONLY);
    ctx.out.just_ok()
}

fn asking(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    view(ctx)?;
    ctx.c_mut().flags.add(ClientFlags::ASKING);
    ctx.out.just_ok()
}
