//! COMMAND: what the rows say, in the forms clients and tools ask for. Commands are found by the names they are called by
//! and shown with their own, which `rename-command` does not change.

use super::prelude::*;
use crate::catalog::CommandTable;
use crate::catalog::row::ArgKind;
use crate::catalog::table::{CmdRef, Registered};
use crate::resp::Reply;

pub(crate) const COMMANDS: &[ServerCommand] = &[command(Group::Server, "command", all)
    .arity(-1)
    .flags(flag::LOADING | flag::STALE)
    .acl(cat::CONNECTION)
    .since("2.8.13")
    .complexity("O(N) for all N commands that there are.")
    .summary("Describes all commands.")
    .tips(&["nondeterministic_output_order"])
    .subcommands(&[
        command(Group::Server, "command|count", count)
            .flags(flag::LOADING | flag::STALE)
            .acl(cat::CONNECTION)
            .since("2.8.13")
            .summary("Gives the number of commands."),
        command(Group::Server, "command|docs", docs)
            .flags(flag::LOADING | flag::STALE)
            .acl(cat::CONNECTION)
            .args(&[Arg::string("command-name").optional().multiple()])
            .since("7.0.0")
            .complexity("O(N) for N names.")
            .summary("Gives the documentation of commands.")
            .tips(&["nondeterministic_output_order"]),
        command(Group::Server, "command|getkeys", get_keys)
            .flags(flag::LOADING | flag::STALE)
            .acl(cat::CONNECTION)
            .args(&[Arg::string("command"), Arg::string("arg").optional().multiple()])
            .since("2.8.13")
            .complexity("O(N) for N words of the command.")
            .summary("Gives the keys of a call."),
        command(Group::Server, "command|getkeysandflags", |ctx, args| keys_of(ctx, args, true))
            .flags(flag::LOADING | flag::STALE)
            .acl(cat::CONNECTION)
            .args(&[Arg::string("command"), Arg::string("arg").optional().multiple()])
            .since("7.0.0")
            .complexity("O(N) for N words of the command.")
            .summary("Gives the keys of a call and what the command does with each."),
        command(Group::Server, "command|help", help)
            .flags(flag::LOADING | flag::STALE)
            .acl(cat::CONNECTION)
            .since("5.0.0")
            .summary("Lists the subcommands."),
        command(Group::Server, "command|info", info)
            .flags(flag::LOADING | flag::STALE)
            .acl(cat::CONNECTION)
            .args(&[Arg::string("command-name").optional().multiple()])
            .since("2.8.13")
            .history(&["7.0.0"])
            .complexity("O(N) for N names.")
            .summary("Describes commands.")
            .tips(&["nondeterministic_output_order"]),
        command(Group::Server, "command|list", list)
            .flags(flag::LOADING | flag::STALE)
            .acl(cat::CONNECTION)
            .args(&[Arg::one_of("filterby").token("FILTERBY").optional().of(&[
                Arg::string("module-name").token("MODULE"),
                Arg::string("category").token("ACLCAT"),
                Arg::pattern("pattern").token("PATTERN"),
            ])])
            .since("7.0.0")
            .complexity("O(N) for all N commands that there are.")
            .summary("Gives the names of commands.")
            .tips(&["nondeterministic_output_order"]),
    ])];

fn help(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    super::help(
        ctx.out,
        args,
        &[
            "(no subcommand)",
            "    Describe all commands.",
            "COUNT",
            "    Give the number of commands.",
            "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <pattern>)]",
            "    Give the names of commands.",
            "INFO [<command-name> ...]",
            "    Describe these commands (default: all).",
            "DOCS [<command-name> ...]",
            "    Give the documentation of these commands (default: all).",
            "GETKEYS <full-command>",
            "    Give the keys of a call.",
            "GETKEYSANDFLAGS <full-command>",
            "    Give the keys of a call and what is done with them.",
        ],
    )
}

/// The commands that are no subcommands, with their places.
fn top_level(table: &CommandTable) -> Vec<CmdRef> {
    table.refs().filter(|cmd| table.get(*cmd).parent.is_none() && !table.get(*cmd).name.is_empty()).collect()
}

fn all(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let all = top_level(&ctx.srv.commands);
    ctx.out.array(all.len());
    all.into_iter().for_each(|cmd| write_info(&ctx.srv.commands, cmd, ctx.out));
    Ok(())
}

fn count(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    ctx.out.just_int(ctx.srv.commands.top_level_count() as i64)
}

fn info(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    if args.len() == 2 {
        return all(ctx, args);
    }
    let table = &ctx.srv.commands;
    ctx.out.array(args.len() - 2);
    for name in args.iter().skip(2) {
        match table.find_full(name) {
            Some(cmd) => write_info(table, cmd, ctx.out),
            None => ctx.out.null(),
        }
    }
    Ok(())
}

fn docs(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let table = &ctx.srv.commands;
    let chosen: Vec<CmdRef> = match args.len() {
        2 => top_level(table),
        _ => args.iter().skip(2).filter_map(|name| table.find_full(name)).collect(),
    };
    ctx.out.map(chosen.len());
    for cmd in chosen {
        ctx.out.bulk_str(table.get(cmd).row.name);
        write_docs(table, cmd, ctx.out);
    }
    Ok(())
}

fn list(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let is = |i: usize, word: &str| args.get(i).is_some_and(|a| a.eq_ignore_ascii_case(word.as_bytes()));
    let table = &ctx.srv.commands;
    let named = |cmd: &CmdRef| {
        let entry = table.get(*cmd);
        !entry.parent.map_or(&entry.name, |p| &table.get(p).name).is_empty()
    };
    let chosen: Vec<CmdRef> = if args.len() == 2 {
        table.refs().filter(named).collect()
    } else if args.len() != 5 || !is(2, "filterby") {
        return Err(error::SYNTAX);
    } else if is(3, "module") {
        // There are no modules, hence no commands of theirs.
        Vec::new()
    } else if is(3, "aclcat") {
        let category = cat::NAMES.iter().find(|(_, name)| is(4, name)).map_or(0, |(bit, _)| *bit);
        table.refs().filter(named).filter(|cmd| table.get(*cmd).row.categories() & category != 0).collect()
    } else if is(3, "pattern") {
        let matches =
            |cmd: &CmdRef| crate::structs::glob::matches_nocase(args.at(4), table.get(*cmd).row.name.as_bytes());
        table.refs().filter(named).filter(matches).collect()
    } else {
        return Err(error::SYNTAX);
    };
    ctx.out.array(chosen.len());
    for cmd in chosen {
        ctx.out.bulk_str(table.get(cmd).row.name);
    }
    Ok(())
}

fn get_keys(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    keys_of(ctx, args, false)
}

fn keys_of(ctx: &mut Ctx<'_>, args: Args<'_>, with_flags: bool) -> CmdResult {
    use crate::catalog::table::Resolved;
    let call = args.from(2);
    let row = match ctx.srv.commands.resolve(call.at(0), call.get(1)) {
        Resolved::Found(cmd) => ctx.srv.commands.get(cmd).row,
        Resolved::Unknown | Resolved::UnknownSub => {
            return Err(CmdError::of("ERR Invalid command specified"));
        }
    };
    let has_keys = row.get_keys.is_some() || row.keys.iter().any(|spec| spec.flags & key::NOT_KEY == 0);
    if !has_keys {
        return Err(CmdError::of("ERR The command has no key arguments"));
    }
    if !row.accepts_arity(call.len()) {
        return Err(CmdError::of("ERR Invalid number of arguments specified for command"));
    }
    let keys: Vec<_> =
        row.keys_of(call).unwrap_or_default().into_iter().filter(|k| k.flags & key::NOT_KEY == 0).collect();
    if keys.is_empty() && !row.has(flag::NO_MANDATORY_KEYS) {
        return Err(CmdError::of("ERR Invalid arguments specified for command"));
    }
    ctx.out.array(keys.len());
    for k in keys {
        if with_flags {
            ctx.out.array(2);
        }
        ctx.out.bulk(call.at(k.index));
        if with_flags {
            write_key_flags(k.flags, ctx.out);
        }
    }
    Ok(())
}

fn write_info(table: &CommandTable, cmd: CmdRef, out: &mut Reply) {
    let Registered { row, subcommands, .. } = table.get(cmd);
    let (first, last, step) = row.legacy_range();
    out.array(10);
    out.bulk_str(row.name);
    out.int(row.arity as i64);
    write_flags(row, out);
    out.int(first as i64);
    out.int(last as i64);
    out.int(step as i64);
    let categories = row.categories();
    let categories: Vec<&str> =
        cat::NAMES.iter().filter(|(bit, _)| categories & bit != 0).map(|(_, name)| *name).collect();
    out.set(categories.len());
    categories.iter().for_each(|name| out.simple(&format!("@{name}")));
    out.set(row.tips.len());
    row.tips.iter().for_each(|tip| out.bulk_str(tip));
    out.set(row.keys.len());
    row.keys.iter().for_each(|spec| write_key_spec(spec, out));
    if row.subcommands.is_empty() {
        out.set(0);
    } else {
        out.array(subcommands.len());
        subcommands.iter().for_each(|sub| write_info(table, *sub, out));
    }
}

fn write_flags(row: &Command, out: &mut Reply) {
    let mut names: Vec<&str> = flag::NAMES.iter().filter(|(bit, _)| row.has(*bit)).map(|(_, name)| *name).collect();
    if row.has_movable_keys() {
        // It stands before the last flag there is.
        let at = names.iter().position(|n| *n == "allow_busy").unwrap_or(names.len());
        names.insert(at, "movablekeys");
    }
    out.set(names.len());
    names.iter().for_each(|name| out.simple(name));
}

fn write_key_flags(flags: u16, out: &mut Reply) {
    let names: Vec<&str> = key::NAMES.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    out.set(names.len());
    names.iter().for_each(|name| out.simple(name));
}

fn write_key_spec(spec: &KeySpec, out: &mut Reply) {
    fn part(out: &mut Reply, name: &str, kind: &str, fields: usize) {
        out.bulk_str(name);
        out.map(2);
        out.bulk(b"type");
        out.bulk_str(kind);
        out.bulk(b"spec");
        out.map(fields);
    }
    fn int(out: &mut Reply, name: &str, value: i64) {
        out.bulk_str(name);
        out.int(value);
    }
    out.map(if spec.notes.is_empty() { 3 } else { 4 });
    if !spec.notes.is_empty() {
        out.bulk(b"notes");
        out.bulk_str(spec.notes);
    }
    out.bulk(b"flags");
    write_key_flags(spec.flags, out);
    match spec.begin {
        Begin::Unknown => part(out, "begin_search", "unknown", 0),
        Begin::Index(index) => {
            part(out, "begin_search", "index", 1);
            int(out, "index", index as i64);
        }
        Begin::Keyword(word, from) => {
            part(out, "begin_search", "keyword", 2);
            out.bulk(b"keyword");
            out.bulk_str(word);
            int(out, "startfrom", from as i64);
        }
    }
    match spec.find {
        Find::Unknown => part(out, "find_keys", "unknown", 0),
        Find::Range { last, step, limit } => {
            part(out, "find_keys", "range", 3);
            int(out, "lastkey", last as i64);
            int(out, "keystep", step as i64);
            int(out, "limit", limit as i64);
        }
        Find::KeyNum { keynum, first, step } => {
            part(out, "find_keys", "keynum", 3);
            int(out, "keynumidx", keynum as i64);
            int(out, "firstkey", first as i64);
            int(out, "keystep", step as i64);
        }
    }
}

fn write_docs(table: &CommandTable, cmd: CmdRef, out: &mut Reply) {
    let Registered { row, subcommands, .. } = table.get(cmd);
    let mark = out.open();
    let mut count = 0;
    let mut text = |out: &mut Reply, name: &str, value: &str| {
        if !value.is_empty() {
            out.bulk_str(name);
            out.bulk_str(value);
            count += 1;
        }
    };
    text(out, "summary", row.summary);
    text(out, "since", row.since);
    text(out, "group", row.group.name());
    text(out, "complexity", row.complexity);
    let (deprecated_since, replaced_by) = row.deprecated.unwrap_or_default();
    let doc_flags: Vec<&str> = [(row.deprecated.is_some(), "deprecated"), (row.has(flag::SYSCMD), "syscmd")]
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| *name)
        .collect();
    let mut more = 0;
    if !doc_flags.is_empty() {
        out.bulk(b"doc_flags");
        out.set(doc_flags.len());
        doc_flags.iter().for_each(|name| out.simple(name));
        more += 1;
    }
    text(out, "deprecated_since", deprecated_since);
    text(out, "replaced_by", replaced_by);
    if !row.history.is_empty() {
        out.bulk(b"history");
        out.set(row.history.len());
        for version in row.history {
            out.array(2);
            out.bulk_str(version);
            out.bulk(b"Changed in this version.");
        }
        more += 1;
    }
    if !row.args.is_empty() {
        out.bulk(b"arguments");
        write_args(row.args, out);
        more += 1;
    }
    if !row.subcommands.is_empty() {
        out.bulk(b"subcommands");
        out.map(subcommands.len());
        for sub in subcommands {
            out.bulk_str(table.get(*sub).row.name);
            write_docs(table, *sub, out);
        }
        more += 1;
    }
    out.close_map(mark, count + more);
}

fn write_args(args: &[Arg], out: &mut Reply) {
    out.array(args.len());
    for a in args {
        let mark = out.open();
        let mut count = 2;
        out.bulk(b"name");
        out.bulk_str(a.name);
        out.bulk(b"type");
        out.bulk_str(a.kind.name());
        let nested = matches!(a.kind, ArgKind::OneOf | ArgKind::Block);
        let mut text = |out: &mut Reply, name: &str, value: Option<&str>| {
            if let Some(value) = value {
                out.bulk_str(name);
                out.bulk_str(value);
                count += 1;
            }
        };
        text(out, "display_text", Some(a.display.unwrap_or(a.name)).filter(|_| !nested));
        let mut more = 0;
        if let Some(index) = a.key_spec {
            out.bulk(b"key_spec_index");
            out.int(index as i64);
            more += 1;
        }
        text(out, "token", a.token);
        text(out, "since", a.since);
        text(out, "deprecated_since", a.deprecated_since);
        let flags: Vec<&str> =
            [(a.optional, "optional"), (a.multiple, "multiple"), (a.multiple_token, "multiple_token")]
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, name)| *name)
                .collect();
        if !flags.is_empty() {
            out.bulk(b"flags");
            out.set(flags.len());
            flags.iter().for_each(|name| out.simple(name));
            more += 1;
        }
        if nested {
            out.bulk(b"arguments");
            write_args(a.args, out);
            more += 1;
        }
        out.close_map(mark, count + more);
    }
}
