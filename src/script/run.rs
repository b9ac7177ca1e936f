//! Running a script: what is checked before it starts, its call, and its reply.
#![allow(unsafe_code)]

use super::convert::{self, ANSWER_MAX, Answer, ScriptError};
use super::engine::{Engine, Kind, Numbers, push_bytes, push_error, reset_globals};
use super::host::Host;
use super::memory::REFUSED;
use super::{busy, inspect, sandbox};
use crate::catalog::CmdError;
use crate::net::ClientId;
use crate::resp::{Args, OwnedArgs, Reply};
use crate::structs::slots::Slot;
use mlua::ffi::{self, lua_State};
use std::ffi::c_int;
use std::ptr::NonNull;
use std::rc::Rc;

/// The script that runs.
#[derive(Debug)]
pub(crate) struct Running {
    /// Who called it, and the client that its commands run as.
    pub(crate) caller: ClientId,
    pub(crate) client: ClientId,
    pub(crate) kind: Kind,
    /// SHA1 of the script, or name of the function.
    pub(crate) name: Rc<[u8]>,
    /// Monotonic, microseconds.
    pub(crate) start_us: i64,
    pub(crate) read_only: bool,
    pub(crate) allow_oom: bool,
    pub(crate) allow_cross_slot: bool,
    /// It came from our master or the AOF: checks on clients do not apply.
    pub(crate) obeyed: bool,
    /// A command that writes was called.
    pub(crate) wrote: bool,
    /// It has run for longer than `busy-reply-threshold`: other clients are served meanwhile.
    pub(crate) busy: bool,
    pub(crate) killed: bool,
    /// Where its commands are propagated to.
    pub(crate) targets: u8,
    /// Its commands reply in RESP3.
    pub(crate) resp3: bool,
    /// Cluster mode: the slot of its keys, once a key was named.
    pub(crate) slot: Option<Slot>,
    /// The command that runs it; filled in when it is busy.
    pub(crate) command: OwnedArgs,
}

/// A script about to run.
pub(crate) struct Script<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: Rc<[u8]>,
    /// Flags, see `flags`.
    pub(crate) flags: u32,
    /// It was called by a command that only reads.
    pub(crate) read_only: bool,
    /// Number of the function in the registry.
    pub(super) code: c_int,
    /// The command that runs it: keys and arguments follow the first three.
    pub(crate) command: Args<'a>,
    pub(crate) key_count: usize,
}

/// Capacity that a reply keeps when what was written is taken back, bytes.
const KEPT_REPLY: usize = 64 * 1024;

/// What the protected part of a run works on. It is in a frame below that part, so that an error leaves it whole.
struct Frame<'a> {
    script: &'a Script<'a>,
    host: NonNull<dyn Host>,
    out: &'a mut Reply,
    numbers: Numbers,
    push_collector: bool,
    failure: Option<Failure>,
    /// See `Answer`.
    errors: Vec<Option<Vec<u8>>>,
}

enum Failure {
    Error(ScriptError),
    /// The error is not a table.
    Other(Option<Vec<u8>>),
}

impl Failure {
    /// What it means for the script of this name.
    fn outcome(self, script: &[u8]) -> Outcome {
        let error = match self {
            Failure::Error(error) => error,
            Failure::Other(text) => {
                return Outcome::Failed(failed_run(script, text.as_deref().unwrap_or(b"execution failure")));
            }
        };
        let mut text = error.text.unwrap_or_else(|| b"ERR unknown error".to_vec());
        if let (Some(source), Some(line)) = (error.source, error.line) {
            for part in [&b" script: "[..], script, b", on ", &source, b":", &line, b"."] {
                text.extend_from_slice(part);
            }
        }
        if error.counted { Outcome::Counted(text) } else { Outcome::Failed(CmdError::bytes(text)) }
    }
}

/// The result of a script.
pub(crate) enum Outcome {
    /// Its value was written. Holds the code of each error in it; see `Answer::errors`.
    Value(Vec<Option<Vec<u8>>>),
    Failed(CmdError),
    /// It failed with an error that is counted already.
    Counted(Vec<u8>),
}

/// Runs a script that `host` has set as `running`.
pub(crate) fn execute(host: &mut (dyn Host + 'static), out: &mut Reply, script: &Script<'_>) -> Outcome {
    let mark = out.buf.len();
    let is_debugged = script.kind == Kind::Eval && host.scripting().debugger.is_active();
    let engine = host.scripting().engine(script.kind);
    let (state, bridge, numbers) = (engine.state(), engine.bridge(), engine.numbers);
    let push_collector = engine.collector_is_due();
    let mut frame = Frame {
        script,
        host: NonNull::from(&mut *host),
        out: &mut *out,
        numbers,
        push_collector,
        failure: None,
        errors: Vec::new(),
    };
    // SAFETY: the state and the bridge live as long as the engine, which nobody takes away from the server while a script
    // runs (SCRIPT FLUSH is refused within scripts and while one is busy). Until the end of the block the server is used
    // through the bridge only. `entry` gets a frame that outlives it.
    let status = unsafe {
        let _entered = (*bridge).enter(frame.host);
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
        host.scripting().engine(script.kind).set_hook();
    }
    if status != ffi::LUA_OK || failure.is_some() {
        out.buf.truncate(mark);
        out.buf.shrink_to(mark + KEPT_REPLY);
    }
    if status != ffi::LUA_OK {
        // Only want of memory stops `entry` itself.
        return Outcome::Failed(failed_run(&script.name, b"execution failure"));
    }
    failure.map_or(Outcome::Value(errors), |failure| failure.outcome(&script.name))
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
            // It ended because memory was refused.
            push_error(state, text);
        }
        if status == ffi::LUA_OK {
            // The script may have chosen the protocol.
            let resp3 = frame.host.as_mut().scripting().running.as_ref().is_some_and(|r| r.resp3);
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
            // Others need the memory of the script.
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
