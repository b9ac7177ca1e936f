//! Runs a command: its context, its statistics, and what is propagated for it.

use crate::acl::Acl;
use crate::catalog::CommandTable;
use crate::catalog::error::{self, CmdError, CmdResult};
use crate::catalog::row::{Command, cat, flag};
use crate::catalog::table::CmdRef;
use crate::commands::context::{self as data, DataFn, Session, Want};
use crate::config::Config;
use crate::keyspace::effects::target;
use crate::net::ClientId;
use crate::persist::Persist;
use crate::repl::Repl;
use crate::resp::{Args, Reply};
use crate::server::Server;
use crate::server::admin::client_memory::reply_room;
use crate::server::clients::{Client, ClientFlags, Clients};

/// The function of a command that drives the server: reads its arguments (the name included, as argument 0), writes
/// exactly one reply to `ctx.out` unless it blocks or returns an error, and records what it changed in
/// `ctx.srv.ks.effects`.
pub(crate) type ServerFn = fn(&mut Ctx<'_>, Args<'_>) -> CmdResult;

/// The functions of the commands in a table.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Run {
    /// A container, which is nothing without a subcommand.
    Nothing,
    /// Of a data command that neither blocks nor changes how the server treats commands.
    Plain(DataFn),
    Data(DataFn),
    Server(ServerFn),
}

impl Run {
    /// How the function of a data command is run.
    pub(crate) fn data(row: &Command, run: DataFn) -> Run {
        let other = flag::ADMIN | flag::PUBSUB | flag::BLOCKING | flag::NO_AUTH | flag::ASKING | flag::PROTECTED;
        let is_plain = row.has(flag::WRITE | flag::READONLY)
            && !row.name.contains('|')
            && !row.has(other)
            && row.acl & (cat::DANGEROUS | cat::SCRIPTING) == 0;
        if is_plain { Run::Plain(run) } else { Run::Data(run) }
    }
}

/// What a command that drives the server works with. The reply buffer is the client's, taken out for as long as the command
/// runs.
pub(crate) struct Ctx<'a> {
    pub(crate) srv: &'a mut Server,
    pub(crate) out: &'a mut Reply,
    pub(crate) client: ClientId,
    /// The client's database, as SELECT last set it.
    pub(crate) db: usize,
    pub(crate) cmd: &'static Command,
}

impl Ctx<'_> {
    /// The client the command runs for. It cannot go away while its command runs.
    pub(crate) fn c(&self) -> &Client {
        self.srv.clients.get(self.client).expect("the running client is in the slab")
    }

    pub(crate) fn c_mut(&mut self) -> &mut Client {
        self.srv.clients.get_mut(self.client).expect("the running client is in the slab")
    }

    /// Counts a change: the command is propagated.
    pub(crate) fn dirty(&mut self, changes: u64) {
        self.srv.ks.effects.dirty += changes;
    }

    /// See [`Session::must_obey`].
    pub(crate) fn must_obey(&self) -> bool {
        must_obey(self.c())
    }

    /// See [`Session::denies_blocking`].
    pub(crate) fn deny_blocking(&self) -> bool {
        denies_blocking(self.c())
    }

    /// The wall clock the command sees, ms.
    pub(crate) fn now_ms(&self) -> i64 {
        self.srv.ks.now_ms
    }
}

/// What the client sends is obeyed: it is our master, the source of slots, or stands for the log being loaded.
pub(crate) fn must_obey(c: &Client) -> bool {
    c.is(ClientFlags::MASTER.union(ClientFlags::AOF).union(ClientFlags::IMPORT))
}

fn denies_blocking(c: &Client) -> bool {
    c.is(ClientFlags::DENY_BLOCKING.union(ClientFlags::MULTI)) || c.conn.is_none()
}

/// What data commands may ask of the client that they run for.
struct Caller<'a> {
    id: ClientId,
    depth: usize,
    clients: &'a Clients,
    rooms: (&'a Acl, &'a CommandTable, &'a Config, &'a Persist, &'a Repl),
}

impl Caller<'_> {
    fn c(&self) -> &Client {
        self.clients.get(self.id).expect("the running client is in the slab")
    }
}

impl Session for Caller<'_> {
    fn must_obey(&self) -> bool {
        must_obey(self.c())
    }

    fn denies_blocking(&self) -> bool {
        denies_blocking(self.c())
    }

    fn is_script(&self) -> bool {
        self.c().is(ClientFlags::SCRIPT)
    }

    fn is_outermost(&self) -> bool {
        self.depth == 1
    }

    fn keeps_past_keys(&self) -> bool {
        let (.., persist, repl) = self.rooms;
        // The source of slots says when their keys go.
        persist.loading.is_some() || repl.is_replica() || self.c().is(ClientFlags::IMPORT)
    }

    fn reply_room(&self) -> usize {
        let (_, _, cfg, ..) = self.rooms;
        reply_room(self.c(), cfg)
    }

    fn reads_all_keys(&self, args: Args<'_>) -> bool {
        let (acl, commands, ..) = self.rooms;
        self.must_obey() || acl.reads_all_keys(&self.c().user, commands, args)
    }
}

impl Server {
    /// Runs an admitted command with the reply going to `out`. Nested calls (EXEC, scripts) come back here.
    pub(crate) fn call(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, out: &mut Reply) {
        let row = self.commands.get(cmd).row;
        // What the log being loaded calls is no work for clients, and the time it sees stands still.
        let is_of_log = self.is_loading() && self.clients.current.is_some_and(|id| self.is_of_log(id));
        let start_us = if is_of_log { 0 } else { self.clock.tick_us() };
        if self.depth == 0 && !is_of_log {
            self.unit_us = self.clock.us();
            self.ks.now_ms = self.unit_us / 1000;
        }
        let Some(db) = self.clients.get(id).map(|c| c.db) else { return };
        let dirty_before = self.ks.effects.dirty;
        let replacement = self.ks.effects.replacement.take();
        let (forced, prevented) =
            (std::mem::take(&mut self.ks.effects.forced), std::mem::take(&mut self.ks.effects.prevented));

        let result = self.run_function((id, db), cmd, args, out);

        let failed = result.is_err();
        if let Err(error) = result {
            self.write_call_error((cmd, args, db), out, error);
        }
        if !is_of_log {
            let duration_us = self.clock.tick_us() - start_us;
            self.after_call(id, cmd, args, duration_us, failed);
        }

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

    /// The client stands for the log being loaded.
    fn is_of_log(&self, id: ClientId) -> bool {
        self.clients.get(id).is_some_and(|c| c.is(ClientFlags::AOF))
    }

    /// Runs or queues a command of the log being loaded, for the client that stands for it.
    pub(crate) fn run_of_log(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) {
        let outer = self.clients.current.replace(id);
        let policy = self.ks.expire_policy;
        // Nobody reads the reply: its room is that of the one before.
        let mut out = self.clients.get_mut(id).map(|c| c.out.take_cur()).unwrap_or_default();
        self.run_resolved(id, cmd, args, &mut out);
        if let Some(c) = self.clients.get_mut(id) {
            out.buf.clear();
            c.out.cur = out;
        }
        self.ks.expire_policy = policy;
        self.clients.current = outer;
    }

    /// Runs the function of a command for a client with this database, and carries out what it wants besides its reply.
    fn run_function(&mut self, (id, db): (ClientId, usize), cmd: CmdRef, args: Args<'_>, out: &mut Reply) -> CmdResult {
        let row = self.commands.get(cmd).row;
        self.begin_effects();
        self.depth += 1;
        let result = match self.functions[cmd.0 as usize] {
            Run::Nothing => Err(CmdError::wrong_arity(row.name)),
            Run::Server(run) => run(&mut Ctx { srv: self, out, client: id, db, cmd: row }, args),
            Run::Plain(run) | Run::Data(run) => {
                let mut want = None;
                let result = self.with_data((id, db), row, out, &mut want, |ctx| run(ctx, args));
                if let Some(want) = want {
                    self.carry_out(want, id, args);
                }
                result
            }
        };
        self.depth -= 1;
        result
    }

    /// Has calls of a data command made with what they work on. `want` gets what the last of them wants done that it had no
    /// means to do itself.
    #[inline(always)]
    pub(super) fn with_data<R>(
        &mut self,
        (id, db): (ClientId, usize),
        cmd: &'static Command,
        out: &mut Reply,
        want: &mut Option<Want>,
        calls: impl FnOnce(&mut data::Ctx<'_>) -> R,
    ) -> R {
        let rooms = (&self.acl, &self.commands, &self.cfg, &self.persist, &self.repl);
        let caller = Caller { id, depth: self.depth, clients: &self.clients, rooms };
        let (ks, cfg, session) = (&mut self.ks, &self.cfg, &caller);
        calls(&mut data::Ctx { ks, cfg, out, session, want, db, cmd })
    }

    /// Does what a data command had no means to do itself.
    #[cold]
    pub(super) fn carry_out(&mut self, want: Want, id: ClientId, args: Args<'_>) {
        match want {
            Want::Wait(wait) => self.block_for_keys(id, args, wait),
            Want::Close => self.close_over_limit(id),
            Want::Flushed => self.after_flush_all(),
        }
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
    pub(crate) fn write_error(&mut self, out: &mut Reply, error: &CmdError) {
        out.error(&error.0);
        self.stats.count_error(error.code());
    }
}
