//! Replication commands: REPLICAOF, SLAVEOF, ROLE, FAILOVER, WAIT and WAITAOF for operators and clients; PSYNC, SYNC and
//! REPLCONF between servers.

use super::int_arg;
use super::prelude::*;
use crate::cluster::node::NodeId;
use crate::repl::{Awaited, RoleView, Target, VERSION_CAPABILITY};
use crate::server::clients::ClientFlags;
use crate::server::dispatch::blocked::{BlockKind, BlockState};
use crate::server::repl::serve::{WAITAOF_NO_AOF, write_wait_answer};

/// A replica's announced address is shorter than this, in bytes.
const MAX_HOST_LEN: usize = 256;

const REPLICAOF: ServerCommand = command(Group::Server, "replicaof", replicaof)
    .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::NOSCRIPT | flag::STALE)
    .args(&[Arg::one_of("args").of(&[
        Arg::block("host-port").of(&[Arg::string("host"), Arg::integer("port")]),
        Arg::block("no-one").of(&[Arg::word("no", "NO"), Arg::word("one", "ONE")]),
    ])])
    .since("5.0.0")
    .summary("Makes the server a replica of another one, or a master.");

const SYNC: ServerCommand = command(Group::Server, "sync", sync)
    .flags(flag::ADMIN | flag::NO_ASYNC_LOADING | flag::NO_MULTI | flag::NOSCRIPT)
    .complexity("")
    .summary("Replication: asks for the dataset and the stream behind it.");

pub(crate) const COMMANDS: &[ServerCommand] = &[
    REPLICAOF,
    REPLICAOF.named("slaveof").since("1.0.0").deprecated("5.0.0", "`REPLICAOF`"),
    command(Group::Server, "role", role)
        .flags(flag::FAST | flag::LOADING | flag::NOSCRIPT | flag::STALE | flag::SENTINEL)
        .acl(cat::ADMIN | cat::DANGEROUS)
        .since("2.8.12")
        .summary("Tells the server's role in replication."),
    SYNC,
    SYNC.named("psync")
        .run(psync)
        .args(&[Arg::string("replicationid"), Arg::integer("offset")])
        .arity(-3)
        .since("2.8.0")
        .summary("Replication: asks for the stream from an offset on."),
    command(Group::Server, "replconf", replconf)
        .arity(-1)
        .flags(flag::ADMIN | flag::ALLOW_BUSY | flag::LOADING | flag::NOSCRIPT | flag::STALE | flag::SYSCMD)
        .since("3.0.0")
        .summary("Replication: what servers tell each other about the stream."),
    command(Group::Server, "failover", failover)
        .flags(flag::ADMIN | flag::NOSCRIPT | flag::STALE)
        .args(&[
            Arg::block("target").token("TO").optional().of(&[
                Arg::string("host"),
                Arg::integer("port"),
                Arg::word("force", "FORCE").optional(),
            ]),
            Arg::word("abort", "ABORT").optional(),
            Arg::integer("milliseconds").token("TIMEOUT").optional(),
        ])
        .since("6.2.0")
        .summary("Exchanges roles with a replica once it has everything."),
    command(Group::Generic, "wait", wait)
        .acl(cat::CONNECTION)
        .args(&[Arg::integer("numreplicas"), Arg::integer("timeout")])
        .since("3.0.0")
        .summary("Waits until replicas have processed this connection's writes.")
        .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
    command(Group::Generic, "waitaof", waitaof)
        .flags(flag::NOSCRIPT)
        .acl(cat::CONNECTION)
        .args(&[Arg::integer("numlocal"), Arg::integer("numreplicas"), Arg::integer("timeout")])
        .since("7.2.0")
        .summary("Waits until this connection's writes are on disk, here or on replicas.")
        .tips(&["request_policy:all_shards", "response_policy:agg_min"]),
];

fn is(arg: &[u8], word: &str) -> bool {
    arg.eq_ignore_ascii_case(word.as_bytes())
}

fn lossy(arg: &[u8]) -> String {
    String::from_utf8_lossy(arg).into_owned()
}

fn replicaof(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if ctx.srv.cfg.cluster_enabled {
        return Err(CmdError::of("ERR REPLICAOF not allowed in cluster mode."));
    }
    if ctx.srv.repl.is_failing_over() {
        return Err(CmdError::of("ERR REPLICAOF not allowed while failing over."));
    }
    if is(&args[1], "no") && is(&args[2], "one") {
        if ctx.srv.repl.is_replica() {
            ctx.srv.unset_master();
            let who = ctx.srv.describe_client(ctx.client);
            log::info!("MASTER MODE enabled (user request from '{who}')");
        }
        return ctx.out.just_ok();
    }
    if ctx.c().is(ClientFlags::REPLICA) {
        return Err(CmdError::of("ERR Command is not valid when client is a replica."));
    }
    let port = int_arg(&args[2]).ok().and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or(CmdError::of("ERR Invalid master port"))?;
    let host = lossy(&args[1]);
    if let Some((current, current_port)) = ctx.srv.repl.master_address()
        && current.eq_ignore_ascii_case(&host)
        && *current_port == port
    {
        log::info!(
            "REPLICAOF would result into synchronization with the master we are already connected with. No operation \
             performed."
        );
        return ctx.out.just_simple("OK Already connected to specified master");
    }
    ctx.srv.set_master(&host, port);
    let who = ctx.srv.describe_client(ctx.client);
    log::info!("REPLICAOF {host}:{port} enabled (user request from '{who}')");
    ctx.out.just_ok()
}

fn role(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    match ctx.srv.repl.role() {
        RoleView::Replica { host, port, state, applied } => {
            ctx.out.array(5);
            ctx.out.bulk(b"slave");
            ctx.out.bulk(host.as_bytes());
            ctx.out.int(i64::from(port));
            ctx.out.bulk_str(state);
            ctx.out.int(applied);
        }
        RoleView::Primary { offset, replicas } => {
            ctx.out.array(3);
            ctx.out.bulk(b"master");
            ctx.out.int(offset);
            ctx.out.array(replicas.len());
            for (ip, port, acknowledged) in replicas {
                ctx.out.array(3);
                ctx.out.bulk(ip.as_bytes());
                ctx.out.bulk_int(port);
                ctx.out.bulk_int(acknowledged);
            }
        }
    }
    Ok(())
}

fn sync(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    if ctx.c().is(ClientFlags::REPLICA) {
        return Ok(());
    }
    may_synchronize(ctx)?;
    ctx.srv.synchronize(ctx.client, None, ctx.out);
    Ok(())
}

fn psync(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if ctx.c().is(ClientFlags::REPLICA) {
        return Ok(());
    }
    if args.get(3).is_some_and(|arg| is(arg, "failover")) {
        take_over(ctx, &args[1])?;
    }
    may_synchronize(ctx)?;
    let offset = int_arg(&args[2]).inspect_err(|_| {
        let name = ctx.srv.replica_name(ctx.client);
        log::warn!("Replica {name} asks for synchronization but with a wrong offset");
    })?;
    ctx.srv.synchronize(ctx.client, Some((&args[1], offset)), ctx.out);
    Ok(())
}

/// The master asks this replica to become the master.
fn take_over(ctx: &mut Ctx<'_>, asked_id: &[u8]) -> CmdResult {
    log::info!("Failover request received for replid {}.", lossy(asked_id));
    ctx.srv.repl.may_take_over(asked_id)?;
    ctx.srv.unset_master();
    let who = ctx.srv.describe_client(ctx.client);
    log::info!("MASTER MODE enabled (failover request from '{who}')");
    Ok(())
}

/// What keeps a client from becoming a replica now.
fn may_synchronize(ctx: &mut Ctx<'_>) -> CmdResult {
    ctx.srv.repl.may_synchronize()?;
    // What is waiting would end up in the middle of the dataset.
    if !ctx.out.buf.is_empty() || !ctx.c().out.is_empty() {
        return Err(CmdError::of("ERR SYNC and PSYNC are invalid with pending output"));
    }
    let announced = ctx.srv.repl.announcement_mut(ctx.client);
    if announced.requirements.any() && !announced.capabilities.eof {
        return Err(CmdError::of("ERR Filtered replica requires EOF capability"));
    }
    log::info!("Replica {} asks for synchronization", ctx.srv.replica_name(ctx.client));
    Ok(())
}

fn replconf(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len().is_multiple_of(2) {
        return Err(error::SYNTAX);
    }
    for at in (1..args.len()).step_by(2) {
        let (option, value) = (args.at(at), args.at(at + 1));
        if is(option, "ack") {
            // Acknowledgements get no reply, not even when they are wrong.
            let fsynced = match (args.get(at + 2), args.get(at + 3)) {
                (Some(word), Some(offset)) if is(word, "fack") => int_arg(offset).ok(),
                _ => None,
            };
            if let Ok(processed) = int_arg(value)
                && ctx.c().is(ClientFlags::REPLICA)
            {
                ctx.srv.acknowledge(ctx.client, processed, fsynced);
                let confirms = at + if fsynced.is_some() { 4 } else { 2 };
                if args.get(confirms).is_some_and(|word| is(word, "confirm")) {
                    ctx.srv.take_confirmation(ctx.client, args, confirms);
                }
            }
            return Ok(());
        }
        if is(option, "getack") {
            ctx.srv.acknowledge_to_master();
            return Ok(());
        }
        announce(ctx, option, value)?;
    }
    ctx.out.just_ok()
}

/// Whether it may be shown as a version, whoever it comes from.
fn is_version(text: &[u8]) -> bool {
    (1..=32).contains(&text.len()) && text.iter().all(|b| b.is_ascii_alphanumeric() || b".-+".contains(b))
}

/// A future replica tells something about itself.
fn announce(ctx: &mut Ctx<'_>, option: &[u8], value: &[u8]) -> CmdResult {
    let client = ctx.client;
    if is(option, "set-cluster-node-id") && ctx.srv.cluster().is_some() {
        if NodeId::parse(value).is_none() {
            return Err(CmdError::text(format!("ERR Unknown node {}", lossy(value))));
        }
        ctx.srv.repl.announcement_mut(client).node_id = Some(value.to_vec());
        return Ok(());
    }
    let repl = &mut ctx.srv.repl;
    if is(option, "listening-port") {
        repl.announcement_mut(client).listening_port = int_arg(value)?;
    } else if is(option, "ip-address") {
        if value.len() >= MAX_HOST_LEN {
            return Err(CmdError::text(format!(
                "ERR REPLCONF ip-address provided by replica instance is too long: {} bytes",
                value.len()
            )));
        }
        if !crate::config::is_address(value) {
            return Err(CmdError::of("ERR REPLCONF ip-address provided by replica instance is not an address"));
        }
        repl.announcement_mut(client).ip = Some(value.to_vec());
    } else if is(option, "capa") {
        // What is not understood here is of no use.
        let capabilities = &mut repl.announcement_mut(client).capabilities;
        capabilities.eof |= is(value, "eof");
        capabilities.psync2 |= is(value, "psync2");
        if let Some(version) = value.strip_prefix(VERSION_CAPABILITY.as_bytes()).filter(|v| is_version(v)) {
            repl.announcement_mut(client).version = Some(lossy(version).to_string());
        }
    } else if is(option, "rdb-only") {
        let wanted = int_arg(value)?;
        if !(0..=1).contains(&wanted) {
            return Err(CmdError::of("ERR value is out of range, must be between 0 and 1"));
        }
        repl.announcement_mut(client).rdb_only = wanted == 1;
    } else if is(option, "rdb-filter-only") {
        let filters = crate::config::words::split(value).ok_or(CmdError::of("ERR Missing rdb-filter-only values"))?;
        let requirements = &mut repl.announcement_mut(client).requirements;
        requirements.exclude_data = true;
        requirements.exclude_functions = true;
        for filter in filters {
            if !is(&filter, "functions") {
                return Err(CmdError::text(format!("ERR Unsupported rdb-filter-only option: {}", lossy(&filter))));
            }
            requirements.exclude_functions = false;
        }
    } else {
        return Err(CmdError::text(format!("ERR Unrecognized REPLCONF option: {}", lossy(option))));
    }
    Ok(())
}

/// What FAILOVER asks for.
struct FailoverRequest {
    timeout_ms: i64,
    target: Option<Target>,
    force: bool,
}

impl FailoverRequest {
    fn parse(args: Args<'_>) -> Result<Self, CmdError> {
        let mut request = FailoverRequest { timeout_ms: 0, target: None, force: false };
        let mut at = 1;
        while at < args.len() {
            if is(&args[at], "timeout") && at + 1 < args.len() && request.timeout_ms == 0 {
                request.timeout_ms = int_arg(&args[at + 1])?;
                if request.timeout_ms <= 0 {
                    return Err(CmdError::of("ERR FAILOVER timeout must be greater than 0"));
                }
                at += 2;
            } else if is(&args[at], "to") && at + 2 < args.len() && request.target.is_none() {
                let port = int_arg(&args[at + 2])?;
                request.target = Some(Target { host: lossy(&args[at + 1]), port });
                at += 3;
            } else if is(&args[at], "force") && !request.force {
                request.force = true;
                at += 1;
            } else {
                return Err(error::SYNTAX);
            }
        }
        Ok(request)
    }
}

fn failover(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if ctx.srv.cfg.cluster_enabled {
        return Err(CmdError::of("ERR FAILOVER not allowed in cluster mode. Use CLUSTER FAILOVER command instead."));
    }
    if args.len() == 2 && is(&args[1], "abort") {
        if !ctx.srv.repl.is_failing_over() {
            return Err(CmdError::of("ERR No failover in progress."));
        }
        ctx.srv.with_repl(|repl, env| repl.abort_failover("Failover manually aborted", env));
        return ctx.out.just_ok();
    }
    let FailoverRequest { timeout_ms, target, force } = FailoverRequest::parse(args)?;
    ctx.srv.with_repl(|repl, env| repl.request_failover(target, timeout_ms, force, env))?;
    ctx.out.just_ok()
}

/// A timeout in milliseconds as a deadline; `None`: none.
fn deadline_arg(arg: &[u8], now_ms: i64) -> Result<Option<i64>, CmdError> {
    let timeout_ms = int_arg(arg).map_err(|_| CmdError::of("ERR timeout is not an integer or out of range"))?;
    match timeout_ms {
        ..0 => Err(CmdError::of("ERR timeout is negative")),
        0 => Ok(None),
        _ => match now_ms.checked_add(timeout_ms) {
            Some(deadline_ms) => Ok(Some(deadline_ms)),
            None => Err(CmdError::of("ERR timeout is out of range")),
        },
    }
}

fn wait(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if ctx.srv.repl.is_replica() {
        return Err(CmdError::of(
            "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is \
             configured to be writable (which is not the default) writes to replicas are just local and are not \
             propagated.",
        ));
    }
    let replicas = int_arg(&args[1])?;
    let deadline_ms = deadline_arg(&args[2], ctx.now_ms())?;
    let offset = ctx.c().write_offset;
    wait_for(ctx, BlockKind::Wait { offset, replicas }, Awaited::Acks { offset, replicas }, deadline_ms)
}

/// Answers at once if what is waited for is there, or the client may not be blocked.
fn wait_for(ctx: &mut Ctx<'_>, kind: BlockKind, awaited: Awaited, deadline_ms: Option<i64>) -> CmdResult {
    let answer = ctx.srv.wait_answer(awaited);
    if answer.meets(awaited) || ctx.deny_blocking() {
        write_wait_answer(ctx.out, answer);
        return Ok(());
    }
    ctx.srv.block(ctx.client, BlockState { kind, deadline_ms, command: None });
    ctx.srv.wait_for_acks(ctx.client);
    Ok(())
}

fn waitaof(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let local = int_arg(&args[1])?;
    if !(0..=1).contains(&local) {
        return Err(CmdError::of("ERR value is out of range, value must between 0 and 1"));
    }
    let replicas = super::count_arg(&args[2])? as i64;
    let deadline_ms = deadline_arg(&args[3], ctx.now_ms())?;
    if ctx.srv.repl.is_replica() {
        return Err(CmdError::of(
            "ERR WAITAOF cannot be used with replica instances. Please also note that writes to replicas are just \
             local and are not propagated.",
        ));
    }
    if local > 0 && !ctx.srv.cfg.appendonly {
        return Err(WAITAOF_NO_AOF);
    }
    let offset = ctx.c().write_offset;
    let kind = BlockKind::WaitAof { offset, local, replicas };
    wait_for(ctx, kind, Awaited::Disk { offset, local, replicas }, deadline_ms)
}
