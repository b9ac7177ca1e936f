//! Connection commands: PING, ECHO, SELECT, AUTH, HELLO, RESET, QUIT.

use super::int_arg;
use super::prelude::*;
use crate::acl::DEFAULT_USER;
use crate::cluster::secret::ASKS_FOR_CHALLENGE;
use crate::server::clients::ClientFlags;
use crate::sys::build::{HEXAD_VERSION, REDIS_VERSION};

pub(crate) const COMMANDS: &[ServerCommand] = &[
    command(Group::Connection, "ping", ping)
        .flags(flag::FAST)
        .args(&[Arg::string("message").optional()])
        .summary("Answers, to show that the server is there.")
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"]),
    command(Group::Connection, "echo", |ctx, args| ctx.out.just_bulk(&args[1]))
        .flags(flag::FAST | flag::LOADING | flag::STALE)
        .args(&[Arg::string("message")])
        .summary("Answers with what it is given."),
    command(Group::Connection, "select", select)
        .flags(flag::FAST | flag::LOADING | flag::STALE)
        .args(&[Arg::integer("index")])
        .summary("Changes the database of the connection."),
    command(Group::Connection, "auth", auth)
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NO_AUTH | flag::NOSCRIPT | flag::STALE)
        .args(&[Arg::string("username").since("6.0.0").optional(), Arg::string("password")])
        .history(&["6.0.0"])
        .complexity("O(N) where N is the number of the user's passwords.")
        .summary("Signs the connection in."),
    command(Group::Connection, "hello", hello)
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NO_AUTH | flag::NOSCRIPT | flag::STALE)
        .args(&[Arg::block("arguments").optional().of(&[
            Arg::integer("protover"),
            Arg::block("auth").token("AUTH").optional().of(&[Arg::string("username"), Arg::string("password")]),
            Arg::string("clientname").token("SETNAME").optional(),
        ])])
        .since("6.0.0")
        .history(&["6.2.0"])
        .summary("Tells about the server, and changes the protocol of the connection."),
    command(Group::Connection, "reset", reset)
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NO_AUTH | flag::NOSCRIPT | flag::STALE)
        .since("6.2.0")
        .summary("Makes the connection as it was when it was new."),
    command(Group::Connection, "quit", quit)
        .arity(-1)
        .flags(flag::ALLOW_BUSY | flag::FAST | flag::LOADING | flag::NO_AUTH | flag::NOSCRIPT | flag::STALE)
        .deprecated("7.2.0", "just closing the connection")
        .summary("Closes the connection."),
];

fn ping(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() > 2 {
        return Err(CmdError::wrong_arity("ping"));
    }
    let c = ctx.c();
    if c.is(ClientFlags::PUBSUB) && c.resp == 2 {
        ctx.out.array(2);
        ctx.out.bulk(b"pong");
        ctx.out.bulk(args.get(1).unwrap_or(b""));
    } else if let Some(message) = args.get(1) {
        ctx.out.bulk(message);
    } else {
        ctx.out.simple("PONG");
    }
    Ok(())
}

fn select(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Ok(db) = i32::try_from(int_arg(&args[1])?) else {
        let text = format!("ERR value is out of range, value must between {} and {}", i32::MIN, i32::MAX);
        return Err(CmdError::text(text));
    };
    if ctx.srv.cfg.cluster_enabled && db != 0 {
        return Err(CmdError::of("ERR SELECT is not allowed in cluster mode"));
    }
    if db < 0 || db as usize >= ctx.srv.ks.dbs.len() {
        return Err(CmdError::of("ERR DB index is out of range"));
    }
    ctx.db = db as usize;
    ctx.c_mut().db = db as usize;
    ctx.out.just_ok()
}

fn quit(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.out.ok();
    ctx.c_mut().flags.add(ClientFlags::CLOSE_AFTER_REPLY);
    Ok(())
}

fn auth(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() > 3 {
        return Err(error::SYNTAX);
    }
    let (user, password) = if args.len() == 3 { (args.at(1), args.at(2)) } else { (DEFAULT_USER, args.at(1)) };
    if args.len() == 2 && ctx.srv.acl.user(DEFAULT_USER).is_some_and(|u| u.nopass) {
        return Err(CmdError::of(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ));
    }
    // No user has a name with a space in it.
    let says_node = user == b"internal connection";
    if says_node && password == ASKS_FOR_CHALLENGE {
        let number = ctx.c().number;
        if let Some(challenge) = ctx.srv.cluster().and_then(|machine| machine.challenge_to(number)) {
            return ctx.out.just_simple(&format!("CHALLENGE {challenge}"));
        }
    }
    if says_node && is_node(ctx, password) {
        ctx.c_mut().flags.add(ClientFlags::AUTHENTICATED.union(ClientFlags::INTERNAL));
    } else {
        authenticate(ctx, args, user, password)?;
    }
    ctx.out.just_ok()
}

/// Whether who says this is a node of our cluster. Where everybody may do everything it need not be a secret.
fn is_node(ctx: &Ctx<'_>, said: &[u8]) -> bool {
    let needs_none = ctx.srv.acl.admits_anyone() && ctx.srv.acl.is_free(DEFAULT_USER);
    let Some(machine) = ctx.srv.cluster() else { return false };
    machine.is_secret_of_node(said)
        || machine.is_answer_of(ctx.c().number, said)
        || needs_none && machine.is_common_number(said)
}

fn authenticate(ctx: &mut Ctx<'_>, args: Args<'_>, user: &[u8], password: &[u8]) -> CmdResult {
    let accepted = ctx.srv.acl.user(user).is_some_and(|u| u.enabled && u.accepts_password(password));
    if !accepted {
        let context = if ctx.c().is(ClientFlags::MULTI) { "multi" } else { "toplevel" };
        ctx.srv.log_acl(ctx.client, "auth", context, args[0].to_vec(), user);
        return Err(CmdError::of("WRONGPASS invalid username-password pair or user is disabled."));
    }
    let c = ctx.c_mut();
    c.flags.add(ClientFlags::AUTHENTICATED);
    c.flags.remove(ClientFlags::INTERNAL);
    c.user = user.to_vec();
    Ok(())
}

#[derive(Default)]
struct HelloOptions<'a> {
    /// User and password.
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

impl<'a> HelloOptions<'a> {
    /// What stands from the argument `next` on.
    fn parse(args: Args<'a>, mut next: usize) -> Result<Self, CmdError> {
        let mut options = HelloOptions::default();
        while next < args.len() {
            let option = args.at(next);
            let more = args.len() - next - 1;
            if option.eq_ignore_ascii_case(b"AUTH") && more >= 2 {
                options.credentials = Some((args.at(next + 1), args.at(next + 2)));
                next += 3;
            } else if option.eq_ignore_ascii_case(b"SETNAME") && more >= 1 {
                if !valid_client_text(args.at(next + 1)) {
                    return Err(CmdError::of(
                        "ERR Client names cannot contain spaces, newlines or special characters.",
                    ));
                }
                options.name = Some(args.at(next + 1));
                next += 2;
            } else {
                let option = String::from_utf8_lossy(option);
                return Err(CmdError::text(format!("ERR Syntax error in HELLO option '{option}'")));
            }
        }
        Ok(options)
    }
}

fn hello(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut resp = None;
    let mut next = 1;
    if let Some(version) = args.get(1) {
        let n = int_arg(version).map_err(|_| CmdError::of("ERR Protocol version is not an integer or out of range"))?;
        if !(2..=3).contains(&n) {
            return Err(CmdError::of("NOPROTO unsupported protocol version"));
        }
        resp = Some(n as u8);
        next = 2;
    }
    let HelloOptions { credentials, name } = HelloOptions::parse(args, next)?;
    if let Some((user, password)) = credentials {
        authenticate(ctx, args, user, password)?;
    }
    if ctx.srv.must_authenticate(ctx.c()) {
        return Err(CmdError::of(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> \
             <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        ctx.c_mut().name = name.to_vec();
    }
    if let Some(resp) = resp {
        ctx.c_mut().resp = resp;
        ctx.out.resp3 = resp == 3;
    }
    let (number, resp) = (ctx.c().number, ctx.c().resp);
    let role = if ctx.srv.is_replica() { "replica" } else { "master" };
    let mode = if ctx.srv.cfg.cluster_enabled { "cluster" } else { "standalone" };
    let out = &mut ctx.out;
    out.map(8);
    out.bulk(b"server");
    out.bulk(b"redis");
    out.bulk(b"version");
    out.bulk_str(REDIS_VERSION);
    out.bulk(b"proto");
    out.int(resp as i64);
    out.bulk(b"id");
    out.int(number as i64);
    out.bulk(b"mode");
    out.bulk_str(mode);
    out.bulk(b"role");
    out.bulk_str(role);
    out.bulk(b"modules");
    out.array(0);
    out.bulk(b"hexad_version");
    out.bulk_str(HEXAD_VERSION);
    Ok(())
}

/// Names and library names that clients give themselves: printable, without blanks.
pub(crate) fn valid_client_text(text: &[u8]) -> bool {
    // Without an end at the first bad byte, so that the compiler takes many bytes at a time.
    !text.iter().fold(false, |bad, b| bad | !(b'!'..=b'~').contains(b))
}

fn reset(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let id = ctx.client;
    if ctx.c().is(ClientFlags::REPLICA.union(ClientFlags::MASTER)) && !ctx.c().is(ClientFlags::MONITOR) {
        return Err(CmdError::of("ERR can only reset normal client connections"));
    }
    ctx.srv.discard_transaction(id);
    ctx.srv.unwatch_all(id);
    ctx.srv.unsubscribe_all(id);
    ctx.srv.stop_tracking(id);
    ctx.srv.clients.monitors.retain(|m| *m != id);
    ctx.srv.set_durable_default(id);
    let auth_required = ctx.srv.auth_required;
    let c = ctx.c_mut();
    let kept = ClientFlags::REPLICA.union(ClientFlags::MONITOR);
    c.flags.remove(kept);
    for gone in [
        ClientFlags::READONLY,
        ClientFlags::ASKING,
        ClientFlags::REPLY_OFF,
        ClientFlags::REPLY_SKIP_NEXT,
        ClientFlags::NO_TOUCH,
        ClientFlags::NO_EVICT,
        ClientFlags::PUBSUB,
        ClientFlags::INTERNAL,
    ] {
        c.flags.remove(gone);
    }
    c.flags.set(ClientFlags::AUTHENTICATED, !auth_required);
    c.user = DEFAULT_USER.to_vec();
    c.name.clear();
    c.db = 0;
    c.resp = 2;
    ctx.db = 0;
    ctx.out.resp3 = false;
    ctx.out.just_simple("RESET")
}
