//! String commands.

use super::prelude::*;

pub const COMMANDS: &[Command] = &[Command {
    name: "get",
    run: Some(get),
    arity: 2,
    flags: flag::FAST | flag::READONLY,
    acl: cat::STRING,
    keys: &[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)],
    group: Group::String,
    since: "1.0.0",
    complexity: "",
    summary: "",
    args: &[arg("key", ArgKind::Key).spec(0)],
    ..Command::ROW
}];

fn get(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let Some(entry) = ctx.srv.ks.read(ctx.db, &args[1]) else {
        ctx.out.null();
        return Ok(());
    };
    match entry.value() {
        ValueRef::Int(n) => ctx.out.bulk_int(n),
        ValueRef::Str { bytes, .. } => ctx.out.bulk(bytes),
        ValueRef::Object(_) => return Err(error::WRONG_TYPE),
    }
    Ok(())
}
