//! CLIENT: the connection's own properties, and what operators do to the connections of others.

use super::client_filter::Filter;
use super::connection::valid_client_text;
use super::int_arg;
use super::prelude::*;
use crate::net::ClientId;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::blocked::{BlockKind, WaitEnd};
use crate::server::dispatch::pause::{PauseKind, PausePurpose};

/// `ON` or `OFF`, see [`on_off`].
const ENABLED: &[Arg] = &[Arg::one_of("enabled").of(&[Arg::word("on", "ON"), Arg::word("off", "OFF")])];

pub(crate) const COMMANDS: &[ServerCommand] = &[Command::container(Group::Connection, "client")
    .since("2.4.0")
    .complexity("What the subcommand does.")
    .summary("Groups the commands about client connections.")
    .subcommands(&[
        super::client_tracking::CACHING,
        command(Group::Connection, "client|getname", get_name)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("2.6.9")
            .summary("Gives the name of the connection."),
        command(Group::Connection, "client|getredir", get_redirection)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("6.0.0")
            .summary("Gives the client that invalidation messages of the connection go to."),
        command(Group::Connection, "client|help", help)
            .flags(flag::LOADING | flag::STALE)
            .since("5.0.0")
            .summary("Lists the subcommands."),
        command(Group::Connection, "client|id", id)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("5.0.0")
            .summary("Gives the id of the connection."),
        command(Group::Connection, "client|info", info)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("6.2.0")
            .summary("Describes the connection.")
            .tips(&["nondeterministic_output"]),
        command(Group::Connection, "client|kill", kill)
            .arity(-3)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::one_of("filter").of(&[
                Arg::string("old-format").display("ip:port").deprecated_since("2.8.12"),
                Arg::one_of("new-format").multiple().of(&[
                    Arg::integer("client-id").token("ID").since("2.8.12").optional(),
                    Arg::one_of("client-type").token("TYPE").since("2.8.12").optional().of(&[
                        Arg::word("normal", "NORMAL"),
                        Arg::word("master", "MASTER").since("3.2.0"),
                        Arg::word("slave", "SLAVE"),
                        Arg::word("replica", "REPLICA").since("5.0.0"),
                        Arg::word("pubsub", "PUBSUB"),
                    ]),
                    Arg::string("username").token("USER").optional(),
                    Arg::string("addr").display("ip:port").token("ADDR").optional(),
                    Arg::string("laddr").display("ip:port").token("LADDR").since("6.2.0").optional(),
                    Arg::one_of("skipme")
                        .token("SKIPME")
                        .optional()
                        .of(&[Arg::word("yes", "YES"), Arg::word("no", "NO")]),
                ]),
            ])])
            .since("2.4.0")
            .history(&["2.8.12", "2.8.12", "3.2.0", "5.0.0", "6.2.0"])
            .complexity("O(N) for N clients.")
            .summary("Closes connections, one by its address or all that pass the filters."),
        command(Group::Connection, "client|list", list)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[
                Arg::one_of("client-type").token("TYPE").since("5.0.0").optional().of(&[
                    Arg::word("normal", "NORMAL"),
                    Arg::word("master", "MASTER"),
                    Arg::word("replica", "REPLICA"),
                    Arg::word("pubsub", "PUBSUB"),
                ]),
                Arg::integer("client-id").token("ID").since("6.2.0").optional().multiple(),
            ])
            .since("2.4.0")
            .history(&["2.8.12", "5.0.0", "6.0.0", "6.2.0", "7.0.0", "7.0.3"])
            .complexity("O(N) for N clients.")
            .summary("Describes all connections, or those of a type or with given ids.")
            .tips(&["nondeterministic_output"]),
        command(Group::Connection, "client|no-evict", no_evict)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(ENABLED)
            .since("7.0.0")
            .summary("Keeps the connection from being closed when clients use too much memory, or no longer."),
        // Not in Redis.
        command(Group::Connection, "client|durable", durable)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(ENABLED)
            .since("7.2.0")
            .summary(
                "Lets what the connection is told wait until replicas have it (see cluster-durable-acks), or no \
                 longer.",
            ),
        command(Group::Connection, "client|no-touch", no_touch)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(ENABLED)
            .since("7.2.0")
            .summary("Lets the connection's commands leave the access time and frequency of keys alone, or no longer."),
        command(Group::Connection, "client|pause", pause)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[
                Arg::integer("timeout"),
                Arg::one_of("mode")
                    .since("6.2.0")
                    .optional()
                    .of(&[Arg::word("write", "WRITE"), Arg::word("all", "ALL")]),
            ])
            .since("3.0.0")
            .history(&["6.2.0"])
            .summary("Holds back the commands of all clients, or those that may write, for a time."),
        command(Group::Connection, "client|reply", reply)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::one_of("action").of(&[
                Arg::word("on", "ON"),
                Arg::word("off", "OFF"),
                Arg::word("skip", "SKIP"),
            ])])
            .since("3.2.0")
            .summary("Turns replies to the connection off and on."),
        command(Group::Connection, "client|setinfo", set_info)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::one_of("attr")
                .of(&[Arg::string("libname").token("LIB-NAME"), Arg::string("libver").token("LIB-VER")])])
            .since("7.2.0")
            .summary("Sets the name or version of the client library of the connection.")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        command(Group::Connection, "client|setname", set_name)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::string("connection-name")])
            .since("2.6.9")
            .summary("Sets the name of the connection.")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        super::client_tracking::TRACKING,
        super::client_tracking::TRACKING_INFO,
        command(Group::Connection, "client|unblock", unblock)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[
                Arg::integer("client-id"),
                Arg::one_of("unblock-type")
                    .optional()
                    .of(&[Arg::word("timeout", "TIMEOUT"), Arg::word("error", "ERROR")]),
            ])
            .since("5.0.0")
            .complexity("O(log(N)) for N clients.")
            .summary("Releases a client that a blocking command holds, as if its time were over or with an error."),
        command(Group::Connection, "client|unpause", unpause)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("6.2.0")
            .complexity("O(N) for N clients that are paused.")
            .summary("Ends a pause that holds commands back."),
    ])];

const HELP: &[&str] = &[
    "CACHING (YES|NO)",
    "    Track the keys of the next command, or do not, where tracking is OPTIN or OPTOUT.",
    "GETREDIR",
    "    Give the id of the client that invalidation messages go to.",
    "GETNAME",
    "    Give the name of this connection.",
    "ID",
    "    Give the id of this connection.",
    "INFO",
    "    Describe this connection.",
    "KILL <ip:port>",
    "    Close the connection from <ip:port>.",
    "KILL <option> <value> [<option> <value> [...]]",
    "    Close the connections that pass all filters (see LIST), but for this one unless it says SKIPME NO.",
    "LIST [<option> <value> [<option> <value> [...]]]",
    "    Describe all connections, or those that pass all filters:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "      From this address.",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "      To this address of the server.",
    "    * IP <ip>",
    "      From this host.",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Of this type.",
    "    * USER <username>",
    "      Authenticated as this user.",
    "    * ID <client-id> [<client-id> ...]",
    "      With one of these ids.",
    "    * NAME <name>",
    "      With this name.",
    "    * LIB-NAME <name>, LIB-VER <version>",
    "      Of this client library.",
    "    * FLAGS <flags>",
    "      That have all of these flags.",
    "    * DB <index>",
    "      That use this database.",
    "    * MAXAGE <seconds>",
    "      That are that old or older.",
    "    * IDLE <seconds>",
    "      That have said nothing for that long or longer.",
    "    * SKIPME (YES|NO)",
    "      Whether this connection is left out (default: no).",
    "    NOT- before a filter (NOT-TYPE ...) stands for those that do not pass it, but for MAXAGE, IDLE and SKIPME.",
    "UNPAUSE",
    "    End a pause.",
    "PAUSE <timeout> [WRITE|ALL]",
    "    Hold back all commands, or those that may write, for <timeout> milliseconds.",
    "REPLY (ON|OFF|SKIP)",
    "    Turn replies to this connection on or off, or leave the next one out.",
    "SETNAME <name>",
    "    Name this connection.",
    "SETINFO <option> <value>",
    "    Tell about the client library:",
    "    * LIB-NAME: its name.",
    "    * LIB-VER: its version.",
    "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]]",
    "         [OPTIN] [OPTOUT] [NOLOOP]",
    "    Have this connection told of changes to keys it read, or to all keys with a prefix.",
    "TRACKINGINFO",
    "    Tell how keys are tracked for this connection.",
    "UNBLOCK <clientid> [TIMEOUT|ERROR]",
    "    Release a client that a command blocks.",
    "NO-EVICT (ON|OFF)",
    "    Keep this connection when clients use too much memory.",
    "DURABLE (ON|OFF)",
    "    Have replies wait until replicas have what they tell of (see cluster-durable-acks).",
    "NO-TOUCH (ON|OFF)",
    "    Leave the access time and frequency of keys alone.",
];

fn help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(ctx.out, args, HELP)
}

fn id(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let number = ctx.c().number;
    ctx.out.just_int(number as i64)
}

fn info(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let mut line = Vec::new();
    ctx.srv.write_client_line(ctx.c(), &mut line);
    line.push(b'\n');
    ctx.out.just_verbatim("txt", &line)
}

fn list(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let filter = Filter::of_list(ctx, args)?;
    let text = ctx.srv.client_lines(filter.clients(&ctx.srv.clients), filter.names_ids());
    ctx.out.just_verbatim("txt", &text)
}

fn reply(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mode = args.at(2);
    let flags = &mut ctx.srv.clients.get_mut(ctx.client).expect("the running client is in the slab").flags;
    if mode.eq_ignore_ascii_case(b"on") {
        flags.remove(ClientFlags::REPLY_OFF.union(ClientFlags::REPLY_SKIP));
        ctx.out.ok();
    } else if mode.eq_ignore_ascii_case(b"off") {
        flags.add(ClientFlags::REPLY_OFF);
    } else if mode.eq_ignore_ascii_case(b"skip") {
        if !flags.has(ClientFlags::REPLY_OFF) {
            flags.add(ClientFlags::REPLY_SKIP_NEXT);
        }
    } else {
        return Err(error::SYNTAX);
    }
    Ok(())
}

/// `ON` or `OFF`.
fn on_off(arg: &[u8]) -> Result<bool, CmdError> {
    if arg.eq_ignore_ascii_case(b"on") {
        Ok(true)
    } else if arg.eq_ignore_ascii_case(b"off") {
        Ok(false)
    } else {
        Err(error::SYNTAX)
    }
}

fn no_evict(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let on = on_off(&args[2])?;
    ctx.c_mut().flags.set(ClientFlags::NO_EVICT, on);
    // Only clients that may be evicted count towards the limit.
    ctx.srv.update_client_memory(ctx.client);
    ctx.out.just_ok()
}

fn durable(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let on = on_off(&args[2])?;
    ctx.c_mut().flags.set(ClientFlags::NOT_DURABLE, !on);
    ctx.out.just_ok()
}

fn no_touch(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let on = on_off(&args[2])?;
    ctx.c_mut().flags.set(ClientFlags::NO_TOUCH, on);
    ctx.out.just_ok()
}

fn kill(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let by_address = args.len() == 3;
    let filter = if by_address {
        // This form may close the connection it came by.
        Filter::of_address(args.at(2))
    } else {
        Filter::of_kill(ctx, args)?
    };
    let mut found: Vec<ClientId> = filter.clients(&ctx.srv.clients).map(|c| c.id).collect();
    // An id may be named twice.
    found.sort_unstable_by_key(|id| (id.index, id.generation));
    found.dedup();
    for id in &found {
        if *id == ctx.client {
            ctx.c_mut().flags.add(ClientFlags::CLOSE_AFTER_REPLY);
        } else {
            ctx.srv.kill_client(*id);
        }
    }
    match (by_address, found.len()) {
        (true, 0) => return Err(CmdError::of("ERR No such client")),
        (true, _) => ctx.out.ok(),
        (false, n) => ctx.out.int(n as i64),
    }
    Ok(())
}

fn unblock(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let with_error = match args.get(3) {
        None => false,
        Some(reason) if args.len() == 4 && reason.eq_ignore_ascii_case(b"timeout") => false,
        Some(reason) if args.len() == 4 && reason.eq_ignore_ascii_case(b"error") => true,
        Some(_) if args.len() == 4 => return Err(CmdError::of("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
        Some(_) => return Err(super::unknown_subcommand(args)),
    };
    let number = int_arg(&args[2])?;
    let target = ctx.srv.clients.by_number(number as u64);
    let kind = target.and_then(|id| ctx.srv.clients.get(id)).and_then(|c| c.block.as_ref()).map(|b| b.kind.clone());
    match (target, kind) {
        // Those wait for something that nobody else can give them.
        (
            _,
            None
            | Some(
                BlockKind::Postponed
                | BlockKind::Shutdown
                | BlockKind::Loading
                | BlockKind::Moving
                | BlockKind::Resting,
            ),
        )
        | (None, _) => ctx.out.int(0),
        (Some(id), Some(kind)) => {
            let end = if with_error {
                ctx.srv.reply_error_to(id, &CmdError::of("UNBLOCKED client unblocked via CLIENT UNBLOCK"));
                WaitEnd::Failed
            } else {
                ctx.srv.reply_on_timeout(id, kind);
                WaitEnd::Answered
            };
            ctx.srv.unblock(id, end);
            ctx.out.int(1);
        }
    }
    Ok(())
}

fn set_name(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if !valid_client_text(&args[2]) {
        return Err(CmdError::of("ERR Client names cannot contain spaces, newlines or special characters."));
    }
    ctx.c_mut().name = args[2].to_vec();
    ctx.out.just_ok()
}

fn get_name(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let name = ctx.c().name.clone();
    if name.is_empty() {
        ctx.out.null()
    } else {
        ctx.out.bulk(&name)
    }
    Ok(())
}

fn set_info(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let (option, value) = (args.at(2), args.at(3));
    let is_name = option.eq_ignore_ascii_case(b"lib-name");
    if !is_name && !option.eq_ignore_ascii_case(b"lib-ver") {
        let mut text = b"ERR Unrecognized option '".to_vec();
        text.extend_from_slice(option);
        text.push(b'\'');
        return Err(CmdError::bytes(text));
    }
    if !valid_client_text(value) {
        let mut text = b"ERR ".to_vec();
        text.extend_from_slice(option);
        text.extend_from_slice(b" cannot contain spaces, newlines or special characters.");
        return Err(CmdError::bytes(text));
    }
    let c = ctx.c_mut();
    if is_name {
        c.lib_name = value.to_vec();
    } else {
        c.lib_ver = value.to_vec();
    }
    ctx.out.just_ok()
}

fn get_redirection(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let to = ctx.srv.tracking_redirection(ctx.c());
    ctx.out.just_int(to)
}

fn pause(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let kind = match args.get(3) {
        None => PauseKind::All,
        Some(_) if args.len() > 4 => return Err(super::unknown_subcommand(args)),
        Some(mode) if mode.eq_ignore_ascii_case(b"write") => PauseKind::Write,
        Some(mode) if mode.eq_ignore_ascii_case(b"all") => PauseKind::All,
        Some(_) => return Err(CmdError::of("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let timeout = int_arg(&args[2]).map_err(|_| CmdError::of("ERR timeout is not an integer or out of range"))?;
    if timeout < 0 {
        return Err(CmdError::of("ERR timeout is negative"));
    }
    let end = timeout.checked_add(ctx.srv.clock.ms()).ok_or(CmdError::of("ERR timeout is out of range"))?;
    // What comes from another node is written here, too.
    ctx.srv.with_cluster(|machine, env| machine.cancel_pulls("client pause requested", env));
    ctx.srv.pause_clients(PausePurpose::ClientCommand, kind, end);
    ctx.out.just_ok()
}

fn unpause(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.srv.unpause_clients(PausePurpose::ClientCommand);
    ctx.out.just_ok()
}
