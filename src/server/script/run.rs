//! Running a script: what is checked before it starts, its call, and what is counted of it.

use crate::catalog::error::{self, CmdError, CmdResult};
use crate::keyspace::effects::target;
use crate::net::ClientId;
use crate::resp::OwnedArgs;
use crate::script::flags;
use crate::script::run::{Outcome, Running, Script, execute};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::call::Ctx;
use crate::structs::slots::key_slot;

/// Checks whether a script may start here and now, then runs it. Its reply, or an error, is written.
pub(crate) fn run(ctx: &mut Ctx<'_>, script: &Script<'_>) -> CmdResult {
    let running = ctx.srv.prepare_script(ctx.client, script)?;
    ctx.srv.script.running = Some(running);
    let mark = ctx.out.buf.len();
    let result = match execute(ctx.srv, ctx.out, script) {
        Outcome::Value(errors) => reply(ctx, mark, errors),
        Outcome::Failed(error) => Err(error),
        Outcome::Counted(text) => {
            ctx.out.error(&text);
            count_failed(ctx, 1);
            Ok(())
        }
    };
    ctx.srv.end_script();
    result
}

impl Server {
    fn prepare_script(&mut self, caller: ClientId, script: &Script<'_>) -> Result<Running, CmdError> {
        let obeyed = self.clients.get(caller).is_none_or(|c| c.is(ClientFlags::MASTER.union(ClientFlags::AOF)));
        let has = |flag: u32| script.flags & flag != 0;
        let compat = has(flags::COMPAT);
        if compat {
            if self.serves_nothing_stale() {
                return Err(error::MASTER_DOWN);
            }
        } else {
            self.check_script_flags(script, obeyed)?;
        }
        let client = self.script_client(caller);
        let keys = script.command.from(3);
        let slot = (self.bus.is_some() && script.key_count > 0).then(|| keys.get(0).map(key_slot)).flatten();
        Ok(Running {
            caller,
            client,
            kind: script.kind,
            name: script.name.clone(),
            start_us: self.clock.mono_us(),
            read_only: script.read_only || (!compat && has(flags::NO_WRITES)),
            allow_oom: !compat && has(flags::ALLOW_OOM),
            allow_cross_slot: compat || has(flags::ALLOW_CROSS_SLOT),
            obeyed,
            wrote: false,
            busy: false,
            killed: false,
            targets: target::ALL,
            resp3: false,
            slot,
            command: OwnedArgs::default(),
        })
    }

    /// What a script that says what it does may be refused for.
    fn check_script_flags(&mut self, script: &Script<'_>, obeyed: bool) -> Result<(), CmdError> {
        let has = |flag: u32| script.flags & flag != 0;
        if has(flags::NO_CLUSTER) && self.bus.is_some() {
            return Err(CmdError::of("ERR Can not run script on cluster, 'no-cluster' flag is set."));
        }
        if !has(flags::ALLOW_STALE) && self.serves_nothing_stale() {
            return Err(CmdError::of(
                "MASTERDOWN Link with MASTER is down, replica-serve-stale-data is set to 'no' and 'allow-stale' flag is \
                 not set on the script.",
            ));
        }
        if !has(flags::NO_WRITES) {
            if self.is_read_only_replica() && !obeyed {
                return Err(CmdError::of("READONLY Can not run script with write flag on readonly replica"));
            }
            if !obeyed && let Some(error) = self.disk_error() {
                return Err(for_scripts(&error));
            }
            if script.read_only {
                return Err(CmdError::of("ERR Can not execute a script with write flag using *_ro command."));
            }
            self.check_good_replicas(true)?;
        }
        let needs_memory = !has(flags::ALLOW_OOM) && !has(flags::NO_WRITES);
        if needs_memory && self.cfg.maxmemory != 0 && self.ks.eviction.out_of_memory {
            return Err(CmdError::of(
                "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
            ));
        }
        Ok(())
    }

    /// The client that the commands of scripts run as, made to look like the caller.
    fn script_client(&mut self, caller: ClientId) -> ClientId {
        let id = match self.script.client {
            Some(id) => id,
            None => {
                let id = self.clients.add(None, self.clock.ms());
                let c = self.clients.get_mut(id).expect("just added");
                c.flags.add(ClientFlags::SCRIPT.union(ClientFlags::DENY_BLOCKING).union(ClientFlags::AUTHENTICATED));
                self.script.client = Some(id);
                id
            }
        };
        let (Some(caller), Some(c)) = (self.clients.get(caller), self.clients.get(id)) else { return id };
        let db = caller.db;
        let user = (caller.user != c.user).then(|| caller.user.clone());
        if let Some(c) = self.clients.get_mut(id) {
            c.db = db;
            c.resp = 2;
            if let Some(user) = user {
                c.user = user;
            }
        }
        id
    }

    fn end_script(&mut self) {
        self.ks.effects.withheld = 0;
        // Its commands speak for themselves; what goes around them is added where they are sent on.
        self.ks.effects.prevented = target::ALL;
        if let Some(running) = self.script.running.take().filter(|r| r.busy) {
            self.end_busy(&running);
        }
    }
}

/// As the error of commands, for scripts that may write.
fn for_scripts(error: &CmdError) -> CmdError {
    let text = error.to_string();
    match text.strip_prefix("MISCONF Errors writing to the AOF file: ") {
        None => CmdError::of(
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Writable \
             scripts are blocked. Use 'no-writes' flag for read only scripts.",
        ),
        Some(reason) => CmdError::text(format!(
            "MISCONF Redis is configured to persist data to AOF, but it's currently unable to persist to disk. Writable \
             scripts are blocked. Use 'no-writes' flag for read only scripts. AOF error: {reason}"
        )),
    }
}

/// The script's value has been written; errors in it are yet to be counted.
fn reply(ctx: &mut Ctx<'_>, mark: usize, errors: Vec<Option<Vec<u8>>>) -> CmdResult {
    if let ([Some(_)], Some(b'-')) = (&errors[..], ctx.out.buf.get(mark)) {
        // It is an error as a whole: the call failed.
        let text = ctx.out.buf[mark + 1..].strip_suffix(b"\r\n").unwrap_or_default().to_vec();
        ctx.out.buf.truncate(mark);
        return Err(CmdError::bytes(text));
    }
    // As Redis counts: each error that a command of the script gave, and the others together.
    let own = errors.iter().flatten().count();
    count_failed(ctx, errors.len() - own + own.min(1));
    for code in errors.iter().flatten() {
        ctx.srv.stats.count_error(code);
    }
    Ok(())
}

/// Counts failed calls of the command that runs the script, beyond what an error it returns does.
fn count_failed(ctx: &mut Ctx<'_>, times: usize) {
    if times == 0 {
        return;
    }
    let commands = &mut ctx.srv.commands;
    let this = commands.refs().find(|r| std::ptr::eq(commands.get(*r).row, ctx.cmd));
    if let Some(cmd) = this {
        commands.stats_mut(cmd).failed += times as u64;
    }
}
