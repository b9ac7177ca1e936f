//! CLIENT: the connection's own properties, and what operators do to the connections of others.

use super::connection::valid_client_text;
use super::int_arg;
use super::prelude::*;
use crate::net::ClientId;
use crate::net::link::shown_addr;
use crate::server::admin::client_memory::ClientClass;
use crate::server::clients::{Client, ClientFlags};
use crate::server::dispatch::blocked::{BlockKind, WaitEnd};
use crate::server::dispatch::pause::{PauseKind, PausePurpose};
use std::net::SocketAddr;

/// `ON` or `OFF`, see [`on_off`].
const ENABLED: &[Arg] = &[arg("enabled", ArgKind::OneOf)
    .of(&[arg("on", ArgKind::PureToken).token("ON"), arg("off", ArgKind::PureToken).token("OFF")])];

pub(crate) const COMMANDS: &[ServerCommand] = &[Command {
    name: "client",
    arity: -2,
    group: Group::Connection,
    since: "2.4.0",
    complexity: "What the subcommand does.",
    summary: "Groups the commands about client connections.",
    subcommands: &[
        super::client_tracking::CACHING,
        Command {
            name: "client|getname",
            run: Some(get_name),
            arity: 2,
            flags: flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "2.6.9",
            complexity: "O(1)",
            summary: "Gives the name of the connection.",
            ..Command::ROW
        },
        Command {
            name: "client|getredir",
            run: Some(get_redirection),
            arity: 2,
            flags: flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "6.0.0",
            complexity: "O(1)",
            summary: "Gives the client that invalidation messages of the connection go to.",
            ..Command::ROW
        },
        Command {
            name: "client|help",
            run: Some(help),
            arity: 2,
            flags: flag::LOADING | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "5.0.0",
            complexity: "O(1)",
            summary: "Lists the subcommands.",
            ..Command::ROW
        },
        Command {
            name: "client|id",
            run: Some(id),
            arity: 2,
            flags: flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "5.0.0",
            complexity: "O(1)",
            summary: "Gives the id of the connection.",
            ..Command::ROW
        },
        Command {
            name: "client|info",
            run: Some(info),
            arity: 2,
            flags: flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "6.2.0",
            complexity: "O(1)",
            summary: "Describes the connection.",
            tips: &["nondeterministic_output"],
            ..Command::ROW
        },
        Command {
            name: "client|kill",
            run: Some(kill),
            arity: -3,
            flags: flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "2.4.0",
            complexity: "O(N) for N clients.",
            summary: "Closes connections, one by its address or all that pass the filters.",
            history: &["2.8.12", "2.8.12", "3.2.0", "5.0.0", "6.2.0"],
            args: &[arg("filter", ArgKind::OneOf).of(&[
                arg("old-format", ArgKind::String).display("ip:port").deprecated_since("2.8.12"),
                arg("new-format", ArgKind::OneOf).multiple().of(&[
                    arg("client-id", ArgKind::Integer).token("ID").since("2.8.12").optional(),
                    arg("client-type", ArgKind::OneOf).token("TYPE").since("2.8.12").optional().of(&[
                        arg("normal", ArgKind::PureToken).token("NORMAL"),
                        arg("master", ArgKind::PureToken).token("MASTER").since("3.2.0"),
                        arg("slave", ArgKind::PureToken).token("SLAVE"),
                        arg("replica", ArgKind::PureToken).token("REPLICA").since("5.0.0"),
                        arg("pubsub", ArgKind::PureToken).token("PUBSUB"),
                    ]),
                    arg("username", ArgKind::String).token("USER").optional(),
                    arg("addr", ArgKind::String).display("ip:port").token("ADDR").optional(),
                    arg("laddr", ArgKind::String).display("ip:port").token("LADDR").since("6.2.0").optional(),
                    arg("skipme", ArgKind::OneOf)
                        .token("SKIPME")
                        .optional()
                        .of(&[arg("yes", ArgKind::PureToken).token("YES"), arg("no", ArgKind::PureToken).token("NO")]),
                ]),
            ])],
            ..Command::ROW
        },
        Command {
            name: "client|list",
            run: Some(list),
            arity: -2,
            flags: flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "2.4.0",
            complexity: "O(N) for N clients.",
            summary: "Describes all connections, or those of a type or with given ids.",
            tips: &["nondeterministic_output"],
            history: &["2.8.12", "5.0.0", "6.0.0", "6.2.0", "7.0.0", "7.0.3"],
            args: &[
                arg("client-type", ArgKind::OneOf).token("TYPE").since("5.0.0").optional().of(&[
                    arg("normal", ArgKind::PureToken).token("NORMAL"),
                    arg("master", ArgKind::PureToken).token("MASTER"),
                    arg("replica", ArgKind::PureToken).token("REPLICA"),
                    arg("pubsub", ArgKind::PureToken).token("PUBSUB"),
                ]),
                arg("client-id", ArgKind::Integer).token("ID").since("6.2.0").optional().multiple(),
            ],
            ..Command::ROW
        },
        Command {
            name: "client|no-evict",
            run: Some(no_evict),
            arity: 3,
            flags: flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "7.0.0",
            complexity: "O(1)",
            summary: "Keeps the connection from being closed when clients use too much memory, or no longer.",
            args: ENABLED,
            ..Command::ROW
        },
        // Not in Redis.
        Command {
            name: "client|durable",
            run: Some(durable),
            arity: 3,
            flags: flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "7.2.0",
            complexity: "O(1)",
            summary: "Lets what the connection is told wait until replicas have it (see cluster-durable-acks), or no longer.",
            args: ENABLED,
            ..Command::ROW
        },
        Command {
            name: "client|no-touch",
            run: Some(no_touch),
            arity: 3,
            flags: flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "7.2.0",
            complexity: "O(1)",
            summary: "Lets the connection's commands leave the access time and frequency of keys alone, or no longer.",
            args: ENABLED,
            ..Command::ROW
        },
        Command {
            name: "client|pause",
            run: Some(pause),
            arity: -3,
            flags: flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "3.0.0",
            complexity: "O(1)",
            summary: "Holds back the commands of all clients, or those that may write, for a time.",
            history: &["6.2.0"],
            args: &[
                arg("timeout", ArgKind::Integer),
                arg("mode", ArgKind::OneOf).since("6.2.0").optional().of(&[
                    arg("write", ArgKind::PureToken).token("WRITE"),
                    arg("all", ArgKind::PureToken).token("ALL"),
                ]),
            ],
            ..Command::ROW
        },
        Command {
            name: "client|reply",
            run: Some(reply),
            arity: 3,
            flags: flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "3.2.0",
            complexity: "O(1)",
            summary: "Turns replies to the connection off and on.",
            args: &[arg("action", ArgKind::OneOf).of(&[
                arg("on", ArgKind::PureToken).token("ON"),
                arg("off", ArgKind::PureToken).token("OFF"),
                arg("skip", ArgKind::PureToken).token("SKIP"),
            ])],
            ..Command::ROW
        },
        Command {
            name: "client|setinfo",
            run: Some(set_info),
            arity: 4,
            flags: flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "7.2.0",
            complexity: "O(1)",
            summary: "Sets the name or version of the client library of the connection.",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            args: &[arg("attr", ArgKind::OneOf).of(&[
                arg("libname", ArgKind::String).token("LIB-NAME"),
                arg("libver", ArgKind::String).token("LIB-VER"),
            ])],
            ..Command::ROW
        },
        Command {
            name: "client|setname",
            run: Some(set_name),
            arity: 3,
            flags: flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "2.6.9",
            complexity: "O(1)",
            summary: "Sets the name of the connection.",
            tips: &["request_policy:all_nodes", "response_policy:all_succeeded"],
            args: &[arg("connection-name", ArgKind::String)],
            ..Command::ROW
        },
        super::client_tracking::TRACKING,
        super::client_tracking::TRACKING_INFO,
        Command {
            name: "client|unblock",
            run: Some(unblock),
            arity: -3,
            flags: flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "5.0.0",
            complexity: "O(log(N)) for N clients.",
            summary: "Releases a client that a blocking command holds, as if its time were over or with an error.",
            args: &[
                arg("client-id", ArgKind::Integer),
                arg("unblock-type", ArgKind::OneOf).optional().of(&[
                    arg("timeout", ArgKind::PureToken).token("TIMEOUT"),
                    arg("error", ArgKind::PureToken).token("ERROR"),
                ]),
            ],
            ..Command::ROW
        },
        Command {
            name: "client|unpause",
            run: Some(unpause),
            arity: 2,
            flags: flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE,
            acl: cat::CONNECTION,
            group: Group::Connection,
            since: "6.2.0",
            complexity: "O(N) for N clients that are paused.",
            summary: "Ends a pause that holds commands back.",
            ..Command::ROW
        },
    ],
    ..Command::ROW
}];

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
    "    Close the connections that pass all filters:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "      From this address.",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "      To this address of the server.",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Of this type.",
    "    * USER <username>",
    "      Authenticated as this user.",
    "    * ID <client-id>",
    "      With this id.",
    "    * SKIPME (YES|NO)",
    "      Whether this connection is left out (default: yes).",
    "LIST [options ...]",
    "    Describe all connections, or with an option some:",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Those of a type.",
    "    * ID <client-id> [<client-id> ...]",
    "      Those with these ids.",
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
    ctx.out.int(number as i64);
    Ok(())
}

fn info(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let mut line = Vec::new();
    ctx.srv.write_client_line(ctx.c(), &mut line);
    line.push(b'\n');
    ctx.out.verbatim("txt", &line);
    Ok(())
}

fn list(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let is = |i: usize, word: &str| args.get(i).is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()));
    let text = if args.len() == 2 {
        ctx.srv.client_lines(|_| true)
    } else if args.len() == 4 && is(2, "type") {
        let class = class_arg(&args[3])?;
        ctx.srv.client_lines(|c| ClientClass::of(c) == class)
    } else if args.len() > 3 && is(2, "id") {
        let mut text = Vec::new();
        for arg in args.iter().skip(3) {
            let number = int_arg(arg).map_err(|_| CmdError::of("ERR Invalid client ID"))?;
            if let Some(c) = ctx.srv.clients.by_number(number as u64).and_then(|id| ctx.srv.clients.get(id)) {
                ctx.srv.write_client_line(c, &mut text);
                text.push(b'\n');
            }
        }
        text
    } else {
        return Err(error::SYNTAX);
    };
    ctx.out.verbatim("txt", &text);
    Ok(())
}

fn class_arg(name: &[u8]) -> Result<ClientClass, CmdError> {
    ClientClass::by_name(name).ok_or_else(|| {
        let mut text = b"ERR Unknown client type '".to_vec();
        text.extend_from_slice(name);
        text.push(b'\'');
        CmdError::bytes(text)
    })
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
    ctx.out.ok();
    Ok(())
}

fn durable(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let on = on_off(&args[2])?;
    ctx.c_mut().flags.set(ClientFlags::NOT_DURABLE, !on);
    ctx.out.ok();
    Ok(())
}

fn no_touch(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let on = on_off(&args[2])?;
    ctx.c_mut().flags.set(ClientFlags::NO_TOUCH, on);
    ctx.out.ok();
    Ok(())
}

/// An address as CLIENT LIST shows it, and what it means if it is that of a socket.
#[derive(Clone, Copy)]
struct Address<'a> {
    text: &'a [u8],
    socket: Option<SocketAddr>,
}

impl<'a> Address<'a> {
    fn new(text: &'a [u8]) -> Address<'a> {
        // Only what we would write so ourselves means a socket: an address has one text.
        let socket = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
        let socket = socket.filter(|socket| shown_addr(Some(*socket), None).as_bytes() == text);
        Address { text, socket }
    }

    /// False if it is surely not that of a client with this socket address.
    #[inline(always)]
    fn may_be_of(&self, socket: Option<SocketAddr>) -> bool {
        match (socket, self.socket) {
            (Some(SocketAddr::V4(theirs)), Some(SocketAddr::V4(ours))) => theirs == ours,
            _ => true,
        }
    }

    /// Whether it is that of a client with this socket address, or else with what `shown` gives.
    fn is_of(&self, socket: Option<SocketAddr>, shown: impl Fn() -> String) -> bool {
        match (socket, self.socket) {
            (Some(SocketAddr::V4(theirs)), Some(SocketAddr::V4(ours))) => theirs == ours,
            (Some(SocketAddr::V4(_)), _) => false,
            _ => shown().as_bytes() == self.text,
        }
    }
}

/// What CLIENT KILL looks for.
#[derive(Default)]
struct Filter<'a> {
    addr: Option<Address<'a>>,
    laddr: Option<Address<'a>>,
    class: Option<ClientClass>,
    number: Option<u64>,
    user: Option<&'a [u8]>,
    skip: Option<ClientId>,
}

impl Filter<'_> {
    /// Whether a cheap look does not rule the client out, as it does nearly all of many. Inlined, so that the processor
    /// fetches the next clients meanwhile.
    #[inline(always)]
    fn may_match(&self, c: &Client) -> bool {
        self.class.is_none_or(|class| ClientClass::of(c) == class)
            && self.addr.is_none_or(|a| a.may_be_of(c.peer))
            && self.laddr.is_none_or(|a| a.may_be_of(c.local))
    }

    fn matches(&self, c: &Client) -> bool {
        self.addr.is_none_or(|a| a.is_of(c.peer, || c.addr()))
            && self.laddr.is_none_or(|a| a.is_of(c.local, || c.laddr()))
            && self.class.is_none_or(|class| ClientClass::of(c) == class)
            && self.number.is_none_or(|n| c.number == n)
            // What comes from our primary is nobody's.
            && self.user.is_none_or(|u| c.user == u && !c.is(ClientFlags::MASTER))
            && self.skip != Some(c.id)
    }
}

fn kill(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let by_address = args.len() == 3;
    let filter = if by_address {
        // This form may close the connection it came by.
        Filter { addr: args.get(2).map(Address::new), ..Filter::default() }
    } else {
        kill_filter(ctx, args)?
    };
    let clients = &ctx.srv.clients;
    let is_meant = |c: &&Client| filter.matches(c) && c.conn.is_some();
    let found: Vec<ClientId> = match filter.number {
        Some(number) => clients
            .by_number(number)
            .and_then(|id| clients.get(id))
            .filter(is_meant)
            .map(|c| c.id)
            .into_iter()
            .collect(),
        None => clients.iter().filter(|c| filter.may_match(c)).filter(is_meant).map(|c| c.id).collect(),
    };
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

fn kill_filter<'a>(ctx: &Ctx<'_>, args: Args<'a>) -> Result<Filter<'a>, CmdError> {
    let mut filter = Filter { skip: Some(ctx.client), ..Filter::default() };
    for i in (2..args.len()).step_by(2) {
        let option = args.at(i);
        let value = args.get(i + 1).ok_or(error::SYNTAX)?;
        let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
        if is("id") {
            let number = int_arg(value).ok().filter(|n| *n >= 1);
            let number = number.ok_or(CmdError::of("ERR client-id should be greater than 0"))?;
            filter.number = Some(number as u64);
        } else if is("type") {
            filter.class = Some(class_arg(value)?);
        } else if is("addr") {
            filter.addr = Some(Address::new(value));
        } else if is("laddr") {
            filter.laddr = Some(Address::new(value));
        } else if is("user") {
            if ctx.srv.acl.user(value).is_none() {
                let mut text = b"ERR No such user '".to_vec();
                text.extend_from_slice(value);
                text.push(b'\'');
                return Err(CmdError::bytes(text));
            }
            filter.user = Some(value);
        } else if is("skipme") && value.eq_ignore_ascii_case(b"yes") {
            filter.skip = Some(ctx.client);
        } else if is("skipme") && value.eq_ignore_ascii_case(b"no") {
            filter.skip = None;
        } else {
            return Err(error::SYNTAX);
        }
    }
    Ok(filter)
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
        (_, None | Some(BlockKind::Postponed | BlockKind::Shutdown | BlockKind::Loading | BlockKind::Moving))
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
    ctx.out.ok();
    Ok(())
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
    ctx.out.ok();
    Ok(())
}

fn get_redirection(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let to = ctx.srv.tracking_redirection(ctx.c());
    ctx.out.int(to);
    Ok(())
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
    ctx.out.ok();
    Ok(())
}

fn unpause(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.srv.unpause_clients(PausePurpose::ClientCommand);
    ctx.out.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_that_of_the_client_that_is_shown_so() {
        let is = |text: &str, socket: Option<&str>, path: Option<&str>| {
            let socket = socket.map(|s| s.parse().unwrap());
            Address::new(text.as_bytes()).is_of(socket, || shown_addr(socket, path))
        };
        assert!(is("127.0.0.1:80", Some("127.0.0.1:80"), None));
        assert!(!is("127.0.0.1:81", Some("127.0.0.1:80"), None));
        assert!(!is("127.0.0.1:080", Some("127.0.0.1:80"), None));
        assert!(is("[::1]:80", Some("[::1]:80"), None));
        assert!(!is("[0::1]:80", Some("[::1]:80"), None));
        assert!(!is("127.0.0.1:80", Some("[::1]:80"), None));
        assert!(!is("[::1]:80", Some("127.0.0.1:80"), None));
        assert!(is("/run/redis.sock:0", None, Some("/run/redis.sock")));
        assert!(!is("127.0.0.1:80", None, Some("/run/redis.sock")));
        assert!(is("?:0", None, None));
    }
}
