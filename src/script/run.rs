//! Running a script: what is checked before it starts, its call, and its reply.
#![allow(unsafe_code)]

use super::convert::{self, ANSWER_MAX, Answer, ScriptError};
use super::engine::{Engine, Kind, Numbers, push_bytes, push_error, reset_globals};
use super::memory::REFUSED;
use super::{busy, flags, inspect, sandbox};
use crate::catalog::error::{self, CmdError, CmdResult};
use crate::keyspace::effects::target;
use crate::net::ClientId;
use crate::resp::{Args, OwnedArgs, Reply};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::call::Ctx;
use crate::structs::slots::{Slot, key_slot};
use mlua::ffi::{self, lua_State};
use std::ffi::c_int;
use std::rc::Rc;

/// The script that runs.
#[derive(Debug)]
pub struct Running {
    /// Who called it, and the client that its commands run as.
    pub caller: ClientId,
    pub client: ClientId,
    pub kind: Kind,
    /// SHA1 of the script, or name of the function.
    pub name: Rc<[u8]>,
    /// Monotonic, microseconds.
    pub start_us: i64,
    pub read_only: bool,
    pub allow_oom: bool,
    pub allow_cross_slot: bool,
    /// It came from our master or the log: it is not refused what others are.
    pub obeyed: bool,
    /// A command that writes was called.
    pub wrote: bool,
    /// It has run for longer than `busy-reply-threshold`: others are served meanwhile.
    pub busy: bool,
    pub killed: bool,
    /// Where its commands are propagated to.
    pub targets: u8,
    /// Its commands reply in RESP3.
    pub resp3: bool,
    /// Cluster mode: the slot its keys are of, as far as any was named.
    pub slot: Option<Slot>,
    /// The command that runs it; filled in when it is busy.
    pub command: OwnedArgs,
}

/// A script about to run.
pub struct Script<'a> {
    pub kind: Kind,
    pub name: Rc<[u8]>,
    /// As in `flags`.
    pub flags: u32,
    /// It was called by a command that only reads.
    pub read_only: bool,
    /// Number of the function in the registry.
    pub(super) code: c_int,
    /// The command that runs it: keys and arguments stand behind three others.
    pub command: Args<'a>,
    pub key_count: usize,
}

/// Memory that is kept for the reply when what was written of one is taken back, bytes.
const KEPT_REPLY: usize = 64 * 1024;

/// What the protected part of a run works on. It lies below that part, so that an error leaves it whole.
struct Frame<'a> {
    script: &'a Script<'a>,
    server: *mut Server,
    out: &'a mut Reply,
    numbers: Numbers,
    push_collector: bool,
    failure: Option<Failure>,
    /// See `Answer`.
    errors: Vec<Option<Vec<u8>>>,
}

enum Failure {
    Error(ScriptError),
    /// What was raised is no table.
    Other(Option<Vec<u8>>),
}

/// Checks whether a script may start here and now, then runs it. Its reply, or an error, is written.
pub fn run(ctx: &mut Ctx<'_>, script: &Script<'_>) -> CmdResult {
    let running = ctx.srv.prepare_script(ctx.client, script)?;
    ctx.srv.script.running = Some(running);
    let result = execute(ctx, script);
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

fn execute(ctx: &mut Ctx<'_>, script: &Script<'_>) -> CmdResult {
    let mark = ctx.out.buf.len();
    let is_debugged = script.kind == Kind::Eval && ctx.srv.script.debugger.is_active();
    let engine = ctx.srv.script.engine(script.kind);
    let (state, bridge, numbers) = (engine.state(), engine.bridge(), engine.numbers);
    let push_collector = engine.collector_is_due();
    let mut frame = Frame {
        script,
        server: &mut *ctx.srv,
        out: ctx.out,
        numbers,
        push_collector,
        failure: None,
        errors: Vec::new(),
    };
    // SAFETY: the state and the bridge live as long as the engine, which nobody takes away from the server while a script
    // runs (SCRIPT FLUSH is refused within scripts and while one is busy). Until the end of the block the server is used
    // through the bridge only. `entry` gets a frame that outlives it.
    let status = unsafe {
        let _entered = (*bridge).enter(frame.server);
        (*bridge).command.set(std::ptr::from_ref(&script.command).cast());
        let top = ffi::lua_gettop(state);
        if is_debugged {
            let mask = ffi::LUA_MASKLINE | ffi::LUA_MASKCOUNT;
            ffi::lua_sethook(state, Some(inspect::on_line), mask, busy::INSTRUCTIONS);
        }
        ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, numbers.entry.into());
        ffi::lua_pushlightuserdata(state, std::ptr::from_mut(&mut frame).cast());
        let status = ffi::lua_pcall(state, 1, 0, 0);
        (*bridge).command.set(std::ptr::null());
        ffi::lua_settop(state, top);
        status
    };
    let Frame { failure, errors, .. } = frame;
    if is_debugged {
        ctx.srv.script.engine(script.kind).set_hook();
    }
    if status != ffi::LUA_OK || failure.is_some() {
        ctx.out.buf.truncate(mark);
        ctx.out.buf.shrink_to(mark + KEPT_REPLY);
    }
    if status != ffi::LUA_OK {
        // Only want of memory stops `entry` itself.
        return Err(failed_run(&script.name, b"execution failure"));
    }
    match failure {
        None => reply(ctx, mark, errors),
        Some(Failure::Other(text)) => Err(failed_run(&script.name, text.as_deref().unwrap_or(b"execution failure"))),
        Some(Failure::Error(error)) => {
            let mut text = error.text.unwrap_or_else(|| b"ERR unknown error".to_vec());
            if let (Some(source), Some(line)) = (error.source, error.line) {
                for part in [&b" script: "[..], &script.name, b", on ", &source, b":", &line, b"."] {
                    text.extend_from_slice(part);
                }
            }
            if error.counted {
                ctx.out.error(&text);
                count_failed(ctx, 1);
                return Ok(());
            }
            Err(CmdError::bytes(text))
        }
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

fn failed_run(name: &[u8], text: &[u8]) -> CmdError {
    CmdError::bytes([b"ERR Error running script ", name, b", ", &text[..text.len().min(100)]].concat())
}

/// The protected part of a run: everything that may raise an error of Lua's.
///
/// # Safety
/// Its argument is a pointer to a frame.
pub(super) unsafe extern "C-unwind" fn entry(state: *mut lua_State) -> c_int {
    // SAFETY: `execute` calls it with a frame, to which nobody else has access meanwhile. Whatever is not plain data lies
    // in the frame.
    unsafe {
        let frame = &mut *ffi::lua_touserdata(state, 1).cast::<Frame>();
        let script = frame.script;
        ffi::lua_settop(state, 0);
        reset_globals(state, frame.numbers.globals);
        ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, frame.numbers.handler.into());
        ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, script.code.into());
        let values = script.command.from(3);
        let keys = values.between(0, script.key_count);
        let args = values.from(script.key_count);
        push_array(state, keys);
        let count = match script.kind {
            Kind::Eval => {
                sandbox::set_global(state, b"KEYS");
                push_array(state, args);
                sandbox::set_global(state, b"ARGV");
                0
            }
            Kind::Function => {
                push_array(state, args);
                2
            }
        };
        let status = ffi::lua_pcall(state, count, 1, 1);
        if let Some(text) = sandbox::bridge(state).ended.get()
            && ffi::lua_type(state, -1) != ffi::LUA_TTABLE
        {
            // What ended it was that no memory was granted any more.
            push_error(state, text);
        }
        if status == ffi::LUA_OK {
            // Within a script it could be said which protocol is meant.
            let resp3 = (*frame.server).script.running.as_ref().is_some_and(|r| r.resp3);
            let limit = frame.out.buf.len() + ANSWER_MAX;
            let mut answer = Answer { out: frame.out, resp3, limit, full: false, errors: &mut frame.errors };
            answer.write(state);
            if answer.full {
                frame.failure = Some(Failure::Other(Some(REFUSED.to_vec())));
            }
        } else if ffi::lua_type(state, -1) == ffi::LUA_TTABLE {
            let mut error = ScriptError::default();
            convert::read_error(state, &mut error);
            frame.failure = Some(Failure::Error(error));
        } else {
            let text = super::engine::string_at(state, -1).map(<[u8]>::to_vec);
            frame.failure = Some(Failure::Other(text));
        }
        if let Some(Failure::Other(Some(text))) = &frame.failure
            && text == REFUSED
        {
            // What the script had is what others need.
            ffi::lua_settop(state, 0);
            ffi::lua_gc(state, ffi::LUA_GCCOLLECT, 0);
        } else if frame.push_collector {
            Engine::push_collector(state);
        }
        0
    }
}

unsafe fn push_array(state: *mut lua_State, values: Args<'_>) {
    // SAFETY: see `entry`.
    unsafe {
        ffi::lua_createtable(state, values.len() as c_int, 0);
        for (index, value) in values.iter().enumerate() {
            push_bytes(state, value);
            ffi::lua_rawseti_(state, -2, index as c_int + 1);
        }
    }
}
