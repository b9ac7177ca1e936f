//! ACL commands.

use super::prelude::*;
use crate::acl::DEFAULT_USER;
use crate::acl::user::{Selector, User, has_blanks, join_selectors};
use crate::resp::Reply;

pub(crate) const COMMANDS: &[ServerCommand] = &[Command::container(Group::Server, "acl")
    .since("6.0.0")
    .summary("Holds the commands about access control lists.")
    .subcommands(&[
        command(Group::Server, "acl|cat", acl_cat)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::string("category").optional()])
            .since("6.0.0")
            .summary("Lists command categories, or the commands in one."),
        command(Group::Server, "acl|deluser", acl_deluser)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::string("username").multiple()])
            .since("6.0.0")
            .complexity("O(1) for a user, and the clients to close")
            .summary("Removes users and closes their connections.")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        command(Group::Server, "acl|dryrun", acl_dryrun)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::string("username"), Arg::string("command"), Arg::string("arg").optional().multiple()])
            .since("7.0.0")
            .summary("Says whether a user may run a command."),
        command(Group::Server, "acl|genpass", acl_genpass)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::integer("bits").optional()])
            .since("6.0.0")
            .summary("Makes up a random password."),
        command(Group::Server, "acl|getuser", acl_getuser)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::string("username")])
            .since("6.0.0")
            .history(&["6.2.0", "7.0.0"])
            .complexity("O(N), N rules of the user")
            .summary("Shows a user's rules."),
        command(Group::Server, "acl|help", |ctx, args| super::help(ctx.out, args, HELP))
            .flags(flag::LOADING | flag::STALE)
            .since("6.0.0")
            .summary("Explains the subcommands."),
        command(Group::Server, "acl|list", acl_list)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("6.0.0")
            .complexity("O(N), N users")
            .summary("Shows all users as configuration lines."),
        command(Group::Server, "acl|load", acl_load)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("6.0.0")
            .complexity("O(N), N users")
            .summary("Reads the users from the ACL file again."),
        command(Group::Server, "acl|log", acl_log)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::one_of("operation").optional().of(&[Arg::integer("count"), Arg::word("reset", "RESET")])])
            .since("6.0.0")
            .history(&["7.2.0"])
            .complexity("O(N), N entries shown")
            .summary("Shows what was refused lately."),
        command(Group::Server, "acl|save", acl_save)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("6.0.0")
            .complexity("O(N), N users")
            .summary("Writes the users to the ACL file.")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        command(Group::Server, "acl|setuser", acl_setuser)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .args(&[Arg::string("username"), Arg::string("rule").optional().multiple()])
            .since("6.0.0")
            .history(&["6.2.0", "7.0.0"])
            .complexity("O(N), N rules given")
            .summary("Makes or changes a user.")
            .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"]),
        command(Group::Server, "acl|users", acl_users)
            .flags(flag::ADMIN | flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("6.0.0")
            .complexity("O(N), N users")
            .summary("Lists the names of the users."),
        command(Group::Server, "acl|whoami", acl_whoami)
            .flags(flag::LOADING | flag::NOSCRIPT | flag::STALE)
            .since("6.0.0")
            .summary("Shows the user of this connection."),
    ])];

fn acl_whoami(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let user = ctx.c().user.clone();
    ctx.out.just_bulk(&user)
}

fn acl_users(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.out.array(ctx.srv.acl.users.len());
    ctx.srv.acl.users.keys().for_each(|name| ctx.out.bulk(name));
    Ok(())
}

fn acl_list(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let Ctx { srv, out, .. } = ctx;
    out.array(srv.acl.users.len());
    let mut line = Vec::new();
    for user in srv.acl.users.values() {
        line.clear();
        line.extend_from_slice(b"user ");
        user.write_line(&mut line);
        out.bulk(&line);
    }
    Ok(())
}

fn acl_getuser(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(user) = ctx.srv.acl.user(&args[2]) else { return ctx.out.just_null() };
    let out = &mut *ctx.out;
    out.map(6);
    out.bulk(b"flags");
    let flags = user.flags();
    out.set(flags.len());
    flags.iter().for_each(|f| out.bulk_str(f));
    out.bulk(b"passwords");
    out.array(user.passwords.len());
    user.passwords.iter().for_each(|p| out.bulk_str(p));
    let (root, more) = user.selectors.split_first().expect("a user has its own permissions");
    describe_selector(out, root);
    out.bulk(b"selectors");
    out.array(more.len());
    for selector in more {
        out.map(3);
        describe_selector(out, selector);
    }
    Ok(())
}

fn describe_selector(out: &mut Reply, selector: &Selector) {
    out.bulk(b"commands");
    out.bulk_str(&selector.describe_commands());
    out.bulk(b"keys");
    out.bulk(&selector.describe_keys());
    out.bulk(b"channels");
    out.bulk(&selector.describe_channels());
}

fn acl_setuser(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let name = args.at(2);
    if has_blanks(name) {
        return Err(CmdError::of("ERR Usernames can't contain spaces or null characters"));
    }
    let words: Vec<&[u8]> = args.iter().skip(3).collect();
    let words = join_selectors(&words).map_err(|open| {
        let word = String::from_utf8_lossy(words[open]);
        CmdError::text(format!("ERR Unmatched parenthesis in acl selector starting at '{word}'."))
    })?;
    // All rules or none: they are tried on a copy.
    let rules = ctx.srv.acl_rules();
    let mut user = ctx.srv.acl.user(name).cloned().unwrap_or_else(|| User::new(name, rules));
    for word in &words {
        user.apply(word, rules).map_err(|e| {
            CmdError::text(format!(
                "ERR Error in ACL SETUSER modifier '{}': {}",
                String::from_utf8_lossy(word),
                e.text()
            ))
        })?;
    }
    ctx.srv.acl.put(user);
    ctx.srv.acl_changed();
    ctx.srv.close_forbidden_clients(Some(name));
    ctx.out.just_ok()
}

fn acl_deluser(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let mut deleted = 0;
    for name in args.iter().skip(2) {
        if name == DEFAULT_USER {
            return Err(CmdError::of("ERR The 'default' user cannot be removed"));
        }
    }
    for name in args.iter().skip(2) {
        deleted += ctx.srv.acl.users.remove(name).is_some() as i64;
    }
    if deleted > 0 {
        ctx.srv.close_forbidden_clients(None);
    }
    ctx.out.just_int(deleted)
}

fn acl_cat(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(name) = args.get(2) else {
        ctx.out.array(cat::NAMES.len());
        cat::NAMES.iter().for_each(|(_, name)| ctx.out.bulk_str(name));
        return Ok(());
    };
    if args.len() > 3 {
        return Err(super::unknown_subcommand(args));
    }
    let (bit, _) = cat::NAMES
        .iter()
        .find(|(_, n)| n.as_bytes().eq_ignore_ascii_case(name))
        .ok_or_else(|| CmdError::text(format!("ERR Unknown category '{}'", String::from_utf8_lossy(name))))?;
    let mark = ctx.out.open();
    let mut count = 0;
    for entry in ctx.srv.commands.all().filter(|e| e.row.categories() & bit != 0) {
        ctx.out.bulk_str(entry.row.name);
        count += 1;
    }
    ctx.out.close_array(mark, count);
    Ok(())
}

fn acl_genpass(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() > 3 {
        return Err(super::unknown_subcommand(args));
    }
    let bits = match args.get(2) {
        None => 256,
        Some(text) => super::int_arg(text)?,
    };
    if !(1..=4096).contains(&bits) {
        return Err(CmdError::of(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
        ));
    }
    let digits = (bits as usize).div_ceil(4);
    let mut bytes = vec![0u8; digits.div_ceil(2)];
    crate::server::random_bytes(&mut bytes);
    let halves = bytes.iter().flat_map(|b| [b >> 4, b & 15]);
    let text: Vec<u8> = halves.map(|half| b"0123456789abcdef"[usize::from(half)]).take(digits).collect();
    ctx.out.just_bulk(&text)
}

fn acl_dryrun(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    use crate::catalog::table::Resolved;
    let Some(user) = ctx.srv.acl.user(&args[2]) else {
        return Err(CmdError::text(format!("ERR User '{}' not found", String::from_utf8_lossy(&args[2]))));
    };
    let command = args.from(3);
    let Resolved::Found(cmd) = ctx.srv.commands.resolve(&command[0], command.get(1)) else {
        return Err(CmdError::text(format!("ERR Command '{}' not found", String::from_utf8_lossy(&command[0]))));
    };
    let row = ctx.srv.commands.get(cmd).row;
    if !row.accepts_arity(command.len()) {
        return Err(CmdError::wrong_arity(row.name));
    }
    match user.check(&ctx.srv.commands, cmd, command) {
        Ok(()) => ctx.out.ok(),
        Err(denied) => ctx.out.bulk_str(&denied.text(&user.name, row.name, true)),
    }
    Ok(())
}

fn acl_log(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() > 3 {
        return Err(super::unknown_subcommand(args));
    }
    let mut count = 10;
    if let Some(word) = args.get(2) {
        if word.eq_ignore_ascii_case(b"reset") {
            ctx.srv.acl.log.entries.clear();
            return ctx.out.just_ok();
        }
        count = super::int_arg(word)?.max(0) as usize;
    }
    let now_ms = ctx.srv.clock.ms();
    let entries = &ctx.srv.acl.log.entries;
    ctx.out.array(count.min(entries.len()));
    for e in entries.iter().take(count) {
        let out = &mut *ctx.out;
        out.map(10);
        out.bulk(b"count");
        out.int(e.count as i64);
        for (name, value) in [
            ("reason", e.reason.as_bytes()),
            ("context", e.context.as_bytes()),
            ("object", &e.object),
            ("username", &e.user),
        ] {
            out.bulk_str(name);
            out.bulk(value);
        }
        out.bulk(b"age-seconds");
        out.double_text(&format!("{}", (now_ms - e.created_ms).max(0) as f64 / 1000.0));
        out.bulk(b"client-info");
        out.bulk_str(&e.client_info);
        for (name, value) in
            [("entry-id", e.id as i64), ("timestamp-created", e.created_ms), ("timestamp-last-updated", e.updated_ms)]
        {
            out.bulk_str(name);
            out.int(value);
        }
    }
    Ok(())
}

fn has_acl_file(ctx: &Ctx<'_>) -> CmdResult {
    if ctx.srv.cfg.aclfile.is_empty() {
        return Err(CmdError::of(
            "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL \
             SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order \
             to store users in the Redis configuration.",
        ));
    }
    Ok(())
}

fn acl_load(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    has_acl_file(ctx)?;
    ctx.srv.load_acl_file().map_err(|reason| CmdError::text(format!("ERR {reason}")))?;
    ctx.out.just_ok()
}

fn acl_save(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    has_acl_file(ctx)?;
    if let Err(e) = ctx.srv.save_acl_file() {
        log::warn!("The ACL file could not be written: {}", crate::sys::os_error(&e));
        return Err(CmdError::of(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        ));
    }
    ctx.out.just_ok()
}

const HELP: &[&str] = &[
    "CAT [<category>]",
    "    List the categories, or the commands in one of them.",
    "DELUSER <username> [<username> ...]",
    "    Remove users and close their connections.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Say whether the user may run the command, without running it.",
    "GETUSER <username>",
    "    Show a user.",
    "GENPASS [<bits>]",
    "    Make up a password.",
    "LIST",
    "    Show all users as lines of a configuration file.",
    "LOAD",
    "    Read the users from the ACL file again.",
    "LOG [<count> | RESET]",
    "    Show the latest refusals, or forget them.",
    "SAVE",
    "    Write the users to the ACL file.",
    "SETUSER <username> <attribute> [<attribute> ...]",
    "    Make or change a user.",
    "USERS",
    "    List the names of the users.",
    "WHOAMI",
    "    Show the user of this connection.",
];
