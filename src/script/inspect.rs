//! The debugger inside the interpreter: stopping at lines, showing variables and frames, running code.
//!
//! Invariant: nothing here keeps a reference to the server while Lua runs, as code from the client may use the server
//! through `redis.call`.
#![allow(unsafe_code)]

use super::debugger::Next;
use super::engine::{Bridge, push_bytes, push_error, string_at};
use super::{load, sandbox};
use crate::structs::bytes::append_quoted;
use mlua::ffi::{self, lua_Debug, lua_State};
use std::ffi::{CStr, c_int};

/// Tables within tables that are shown.
const MAX_DEPTH: usize = 10;
/// How long a script may run without a stop when `busy-reply-threshold` is 0, ms.
const DEFAULT_THRESHOLD_MS: i64 = 5000;

/// Called by Lua at every line, and every so many instructions, of a debugged script.
pub(super) unsafe extern "C-unwind" fn on_line(state: *mut lua_State, at: *mut lua_Debug) {
    // SAFETY: `run` sets the hook after it entered the bridge. Nothing is left to drop when an error is raised.
    unsafe {
        let bridge = sandbox::bridge(state);
        if let Some(text) = stop(state, at, bridge) {
            ffi::lua_checkstack(state, 6);
            push_error(state, text);
            ffi::lua_error(state);
        }
    }
}

/// Stops here if there is a reason to. Returns the error with which the script is to end, if any.
unsafe fn stop(state: *mut lua_State, at: *mut lua_Debug, bridge: &Bridge) -> Option<&'static [u8]> {
    // SAFETY: called from a hook: the running function is at level 0. The server is used in between calls of Lua only.
    unsafe {
        ffi::lua_getstack(state, 0, at);
        ffi::lua_getinfo(state, c"Sl".as_ptr(), at);
        let line = i64::from((*at).currentline);
        let is_script = CStr::from_ptr((*at).short_src.as_ptr()).to_bytes().starts_with(b"user_script");
        let server = bridge.server()?;
        let elapsed_ms = server.script_duration_ms();
        let threshold_ms = match server.busy_reply_threshold_ms() {
            0 => DEFAULT_THRESHOLD_MS,
            threshold => threshold,
        };
        let debugger = &mut server.scripting().debugger;
        debugger.line = line;
        let at_breakpoint = debugger.is_breakpoint(line) || debugger.asked;
        if !is_script {
            return None;
        }
        let mut timed_out = false;
        if (*at).event == ffi::LUA_HOOKCOUNT && !debugger.step && !at_breakpoint {
            if elapsed_ms < threshold_ms {
                return None;
            }
            timed_out = true;
            debugger.step = true;
        }
        if !debugger.step && !at_breakpoint {
            return None;
        }
        let reason = match (debugger.asked, at_breakpoint, timed_out) {
            (true, ..) => "redis.breakpoint() called",
            (_, true, _) => "break point",
            (.., true) => "timeout reached, infinite loop?",
            _ => "step over",
        };
        debugger.step = false;
        debugger.asked = false;
        debugger.log(format!("* Stopped at {line}, stop reason = {reason}"));
        debugger.log_line(line);
        debugger.send_logs();
        let error = match converse(state, bridge) {
            Told::Go => None,
            Told::Gone if timed_out => Some(&b"timeout during Lua debugging with client closing connection"[..]),
            Told::Gone => None,
            Told::Fail(text) => Some(text),
        };
        let server = bridge.server()?;
        let now_us = server.tick_us();
        if let Some(running) = server.scripting().running.as_mut() {
            running.start_us = now_us;
        }
        error
    }
}

enum Told {
    Go,
    Gone,
    Fail(&'static [u8]),
}

/// Carries out the client's commands until the script is to go on.
unsafe fn converse(state: *mut lua_State, bridge: &Bridge) -> Told {
    // SAFETY: as `stop`; the debugger is asked for anew after everything that runs Lua.
    unsafe {
        loop {
            let Some(server) = bridge.server() else { return Told::Gone };
            let debugger = &mut server.scripting().debugger;
            let args = match debugger.next_command() {
                Next::Command(args) => args,
                Next::Gone => return Told::Gone,
                Next::Failed(text) => return Told::Fail(text),
            };
            match args[0].to_ascii_lowercase().as_slice() {
                b"s" | b"step" | b"n" | b"next" => {
                    debugger.step = true;
                    return Told::Go;
                }
                b"c" | b"continue" => return Told::Go,
                b"a" | b"abort" => return Told::Fail(b"script aborted for user request"),
                b"h" | b"help" => debugger.help(),
                b"m" | b"maxlen" => debugger.limit(&args),
                b"b" | b"break" => debugger.break_at(&args),
                b"l" | b"list" => debugger.list(&args),
                b"w" | b"whole" => debugger.whole(),
                b"t" | b"trace" => trace(state, bridge),
                b"e" | b"eval" => evaluate(state, bridge, &args[1..].join(&b' ')),
                b"r" | b"redis" if args.len() > 1 => call_redis(state, bridge, &args[1..]),
                b"p" | b"print" => match &args[..] {
                    [_, name] => print(state, bridge, name),
                    _ => print_all(state, bridge),
                },
                _ => debugger.log("<error> Unknown Redis Lua debugger command or wrong number of arguments."),
            }
            if let Some(server) = bridge.server() {
                server.scripting().debugger.send_logs();
            }
        }
    }
}

/// Logs the value on top and takes it off the stack.
unsafe fn log_top(state: *mut lua_State, bridge: &Bridge, prefix: &str) {
    let mut line = prefix.as_bytes().to_vec();
    // SAFETY: see `converse`.
    unsafe {
        append_value(&mut line, state, ffi::lua_gettop(state), 0);
        ffi::lua_pop(state, 1);
        if let Some(server) = bridge.server() {
            server.scripting().debugger.log_value(line);
        }
    }
}

unsafe fn log(bridge: &Bridge, line: impl Into<Vec<u8>>) {
    // SAFETY: see `converse`.
    if let Some(server) = unsafe { bridge.server() } {
        server.scripting().debugger.log(line);
    }
}

/// Shows a local variable, of the innermost frame that has it, or `KEYS` or `ARGV`.
unsafe fn print(state: *mut lua_State, bridge: &Bridge, wanted: &[u8]) {
    // SAFETY: see `converse`; names of locals are C strings. `lua_Debug` is plain data.
    unsafe {
        ffi::lua_checkstack(state, 4);
        let mut at: lua_Debug = std::mem::zeroed();
        let mut level = 0;
        while ffi::lua_getstack(state, level, &mut at) != 0 {
            level += 1;
            for index in 1.. {
                let name = ffi::lua_getlocal(state, &at, index);
                if name.is_null() {
                    break;
                }
                if CStr::from_ptr(name).to_bytes() == wanted {
                    return log_top(state, bridge, "<value> ");
                }
                ffi::lua_pop(state, 1);
            }
        }
        if wanted == b"KEYS" || wanted == b"ARGV" {
            sandbox::push_global(state, wanted);
            return log_top(state, bridge, "<value> ");
        }
        log(bridge, "No such variable.");
    }
}

unsafe fn print_all(state: *mut lua_State, bridge: &Bridge) {
    // SAFETY: as `print`.
    unsafe {
        ffi::lua_checkstack(state, 4);
        let mut at: lua_Debug = std::mem::zeroed();
        let mut any = false;
        if ffi::lua_getstack(state, 0, &mut at) != 0 {
            for index in 1.. {
                let name = ffi::lua_getlocal(state, &at, index);
                if name.is_null() {
                    break;
                }
                let name = CStr::from_ptr(name).to_string_lossy().into_owned();
                if name.contains("(*temporary)") {
                    ffi::lua_pop(state, 1);
                    continue;
                }
                any = true;
                log_top(state, bridge, &format!("<value> {name} = "));
            }
        }
        if !any {
            log(bridge, "No local variables in the current context.");
        }
    }
}

/// Runs code of the client: an expression, whose value is shown, or a statement.
unsafe fn evaluate(state: *mut lua_State, bridge: &Bridge, code: &[u8]) {
    // SAFETY: see `converse`; loading and the call catch their errors.
    unsafe {
        ffi::lua_checkstack(state, 4);
        let mut status = load::text(state, &[b"return ", code].concat(), c"@ldb_eval");
        if status != ffi::LUA_OK {
            ffi::lua_pop(state, 1);
            status = load::text(state, code, c"@ldb_eval");
        }
        if status == ffi::LUA_OK {
            status = ffi::lua_pcall(state, 0, 1, 0);
        }
        if status == ffi::LUA_OK {
            return log_top(state, bridge, "<retval> ");
        }
        let text = string_at(state, -1).unwrap_or(b"(null)");
        let line = [b"<error> ", text].concat();
        ffi::lua_pop(state, 1);
        log(bridge, line);
    }
}

/// Calls a command as the script would; `redis.call` logs it.
unsafe fn call_redis(state: *mut lua_State, bridge: &Bridge, args: &[Vec<u8>]) {
    // SAFETY: see `converse`; the call is protected.
    unsafe {
        if ffi::lua_checkstack(state, args.len() as c_int + 4) == 0 {
            return log(bridge, "<reply> max lua stack reached");
        }
        sandbox::push_global(state, b"redis");
        ffi::lua_getfield(state, -1, c"call".as_ptr());
        args.iter().for_each(|arg| push_bytes(state, arg));
        set_step(bridge, true);
        ffi::lua_pcall(state, args.len() as c_int, 1, 0);
        set_step(bridge, false);
        ffi::lua_pop(state, 2);
    }
}

unsafe fn set_step(bridge: &Bridge, step: bool) {
    // SAFETY: see `converse`.
    if let Some(server) = unsafe { bridge.server() } {
        server.scripting().debugger.step = step;
    }
}

unsafe fn trace(state: *mut lua_State, bridge: &Bridge) {
    // SAFETY: as `print`.
    unsafe {
        let mut at: lua_Debug = std::mem::zeroed();
        let mut level = 0;
        while ffi::lua_getstack(state, level, &mut at) != 0 {
            ffi::lua_getinfo(state, c"Snl".as_ptr(), &mut at);
            let is_script = CStr::from_ptr(at.short_src.as_ptr()).to_bytes().starts_with(b"user_script");
            if is_script && let Some(server) = bridge.server() {
                let word = if level == 0 { "In" } else { "From" };
                let name = match at.name.is_null() {
                    true => "top level".into(),
                    false => CStr::from_ptr(at.name).to_string_lossy(),
                };
                server.scripting().debugger.log(format!("{word} {name}:"));
                server.scripting().debugger.log_line(at.currentline.into());
            }
            level += 1;
        }
        if level == 0 {
            log(bridge, "<error> Can't retrieve Lua stack.");
        }
    }
}

/// Appends a value in readable form.
///
/// # Safety
/// `index` is that of a value, counted from the bottom.
pub(super) unsafe fn append_value(out: &mut Vec<u8>, state: *mut lua_State, index: c_int, depth: usize) {
    if depth == MAX_DEPTH {
        return out.extend_from_slice(b"<max recursion level reached! Nested table?>");
    }
    // SAFETY: as the caller promises; metamethods are not asked.
    unsafe {
        match ffi::lua_type(state, index) {
            ffi::LUA_TSTRING => append_quoted(out, string_at(state, index).unwrap_or_default()),
            ffi::LUA_TBOOLEAN => {
                out.extend_from_slice(if ffi::lua_toboolean(state, index) != 0 { b"true" } else { b"false" });
            }
            ffi::LUA_TNUMBER => {
                let mut text = [0u8; 40];
                let number = ffi::lua_tonumber(state, index);
                let len = libc::snprintf(text.as_mut_ptr().cast(), text.len(), c"%g".as_ptr(), number);
                out.extend_from_slice(&text[..len.clamp(0, 39) as usize]);
            }
            ffi::LUA_TNIL => out.extend_from_slice(b"nil"),
            ffi::LUA_TTABLE => append_table(out, state, index, depth),
            other => {
                let name = match other {
                    ffi::LUA_TFUNCTION => "function",
                    ffi::LUA_TUSERDATA => "userdata",
                    ffi::LUA_TTHREAD => "thread",
                    _ => "light-userdata",
                };
                let text = format!("\"{name}@{:p}\"", ffi::lua_topointer(state, index));
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// Appends a table: its values if it is an array, otherwise keys and values.
unsafe fn append_table(out: &mut Vec<u8>, state: *mut lua_State, index: c_int, depth: usize) {
    // SAFETY: see `append_value`.
    unsafe {
        if ffi::lua_checkstack(state, 4) == 0 {
            return;
        }
        let (mut values, mut pairs) = (Vec::new(), Vec::new());
        let mut is_array = true;
        let mut expected = 1.0;
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, index) != 0 {
            let top = ffi::lua_gettop(state);
            is_array &= ffi::lua_type(state, -2) == ffi::LUA_TNUMBER && ffi::lua_tonumber(state, -2) == expected;
            let mut value = Vec::new();
            append_value(&mut value, state, top, depth + 1);
            let mut pair = b"[".to_vec();
            append_value(&mut pair, state, top - 1, depth + 1);
            pair.extend_from_slice(b"]=");
            pair.extend_from_slice(&value);
            values.push(value);
            pairs.push(pair);
            ffi::lua_pop(state, 1);
            expected += 1.0;
        }
        out.push(b'{');
        out.extend_from_slice(&if is_array { values } else { pairs }.join(&b"; "[..]));
        out.push(b'}');
    }
}
