//! Runs a command: its context, its statistics, and what is propagated for it.

use super::command::Command;
use super::error::{self, CmdError};
use super::table::CmdRef;
use crate::keyspace::effects::target;
use crate::net::{Client, ClientFlags, ClientId};
use crate::resp::{Args, Reply};
use crate::server::Server;

/// What a command works with. The reply buffer is the client's, taken out for as long as the command runs.
pub struct Ctx<'a> {
    pub srv: &'a mut Server,
    pub out: &'a mut Reply,
    pub client: ClientId,
    /// The client's database, as SELECT last set it.
    pub db: usize,
    pub cmd: &'static Command,
}

impl Ctx<'_> {
    /// The client the command runs for. It cannot go away while its command runs.
    pub fn c(&self) -> &Client {
        self.srv.clients.get(self.client).expect("the running client is in the slab")
    }

    pub fn c_mut(&mut self) -> &mut Client {
        self.srv.clients.get_mut(self.client).expect("the running client is in the slab")
    }

    /// Counts a change: the command is propagated.
    pub fn dirty(&mut self, changes: u64) {
        self.srv.ks.effects.dirty += changes;
    }

    /// The command comes from our master or from the AOF: it is obeyed, whatever it would be from a client.
    pub fn must_obey(&self) -> bool {
        self.c().is(ClientFlags::MASTER.union(ClientFlags::AOF))
    }

    /// The client may not be blocked: it is in a transaction, in a script, or no client at all.
    pub fn deny_blocking(&self) -> bool {
        let c = self.c();
        c.is(ClientFlags::DENY_BLOCKING.union(ClientFlags::MULTI)) || c.conn.is_none()
    }

    /// The wall clock the command sees, ms.
    pub fn now_ms(&self) -> i64 {
        self.srv.ks.now_ms
    }
}

impl Server {
    /// Runs an admitted command with the reply going to `out`. Nested calls (EXEC, scripts) come back here.
    pub fn call(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, out: &mut Reply) {
        let row = self.commands.get(cmd).row;
        let Some(run) = row.run else {
            out.error(CmdError::wrong_arity(row.name).0.as_ref());
            return;
        };
        let outermost = self.depth == 0;
        let start_us = self.clock.tick_us();
        if outermost {
            self.unit_us = self.clock.us();
            self.ks.now_ms = self.unit_us / 1000;
        }
        let Some(db) = self.clients.get(id).map(|c| c.db) else { return };
        let dirty_before = self.ks.effects.dirty;
        let replacement = self.ks.effects.replacement.take();
        let (forced, prevented) =
            (std::mem::take(&mut self.ks.effects.forced), std::mem::take(&mut self.ks.effects.prevented));

        self.depth += 1;
        let result = run(&mut Ctx { srv: self, out, client: id, db, cmd: row }, args);
        self.depth -= 1;

        let failed = result.is_err();
        if let Err(error) = result {
            self.write_call_error((cmd, args, db), out, error);
        }
        let duration_us = self.clock.tick_us() - start_us;
        self.after_call(id, cmd, args, duration_us, failed);

        // A transaction is propagated as the commands it ran, which have done so themselves.
        if row.name != "exec" {
            self.propagate_call(db, args, self.ks.effects.dirty > dirty_before);
        }
        if self.ks.effects.wants_modified {
            self.track_call(self.caller_behind(id), row, args);
        }
        let effects = &mut self.ks.effects;
        effects.replacement = replacement;
        effects.forced = forced;
        effects.prevented = prevented;
    }

    /// Queues the command for the sinks if it changed something or asked for it.
    pub(super) fn propagate_call(&mut self, db: usize, args: Args<'_>, changed: bool) {
        let effects = &mut self.ks.effects;
        let targets = (if changed { target::ALL } else { 0 } | effects.forced) & !effects.prevented & !effects.withheld;
        if targets == 0 || !effects.has_sinks {
            return;
        }
        effects.unsynced.command_propagated();
        match effects.replacement.take() {
            None => effects.propagate(db, targets, args.iter()),
            Some(commands) => {
                for command in commands {
                    let start = effects.props.bytes.len();
                    effects.props.bytes.extend_from_slice(&command);
                    let end = effects.props.bytes.len();
                    effects.props.ops.push(crate::keyspace::effects::PropOp { db, targets, start, end });
                }
            }
        }
    }

    /// As `write_error`, for what the call of a command came to.
    pub(super) fn write_call_error(
        &mut self,
        (cmd, args, db): (CmdRef, Args<'_>, usize),
        out: &mut Reply,
        error: CmdError,
    ) {
        // To the commands, a damaged value is just not what they look for.
        let is_damage = self.ks.may_be_damaged
            && error == error::WRONG_TYPE
            && self
                .commands
                .get(cmd)
                .row
                .keys_of(args)
                .is_some_and(|keys| keys.iter().any(|key| self.ks.is_damaged(db, args.at(key.index))));
        let error = if is_damage { error::DAMAGED } else { error };
        self.write_error(out, &error);
    }

    /// Writes an error reply and counts it.
    pub fn write_error(&mut self, out: &mut Reply, error: &CmdError) {
        out.error(&error.0);
        self.stats.count_error(error.code());
    }
}
