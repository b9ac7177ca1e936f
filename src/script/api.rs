//! The functions of `redis` as scripts see them. What a command called by a script may do is decided in
//! `server/script/command.rs`; `convert` turns values into replies and back.
#![allow(unsafe_code)]

use super::convert;
use super::engine::{Bridge, Kind, push_bytes, push_error, string_at};
use super::memory::REFUSED;
use crate::structs::numbers::{f64_text_grisu, f64_to_i64};
use crate::sys::build::REDIS_VERSION;
use mlua::ffi::{self, lua_State};
use sha1::{Digest, Sha1};
use std::ffi::{CStr, c_int};

/// `REDIS_VERSION_NUM`: a byte for each part of the version.
const REDIS_VERSION_NUM: f64 = 0x0007_0206 as f64;

/// The longest command that a script can call, bytes: as long as a client's may be by default.
const ARGS_MAX: usize = 1 << 30;
/// If an argument is at least this long, bytes, all are measured before any is copied.
const LONG_ARG: usize = 4096;
/// The longest line that a script can write to the log, bytes.
const LOG_LINE_MAX: usize = 1 << 20;

type Function = unsafe extern "C-unwind" fn(*mut lua_State) -> c_int;

/// What every `redis` table has, also while a library loads.
const LOG_LEVELS: &[(&CStr, f64)] =
    &[(c"LOG_DEBUG", 0.0), (c"LOG_VERBOSE", 1.0), (c"LOG_NOTICE", 2.0), (c"LOG_WARNING", 3.0)];

/// Where commands are propagated to; the bits are those of `effects::target`.
const REPL_TARGETS: &[(&CStr, f64)] =
    &[(c"REPL_NONE", 0.0), (c"REPL_AOF", 1.0), (c"REPL_SLAVE", 2.0), (c"REPL_REPLICA", 2.0), (c"REPL_ALL", 3.0)];

const FUNCTIONS: &[(&CStr, Function)] = &[
    (c"call", call),
    (c"pcall", pcall),
    (c"setresp", set_resp),
    (c"sha1hex", sha1_hex),
    (c"error_reply", error_reply),
    (c"status_reply", status_reply),
    (c"set_repl", set_repl),
    (c"acl_check_cmd", acl_check_cmd),
];

/// What EVAL has in addition.
const EVAL_FUNCTIONS: &[(&CStr, Function)] =
    &[(c"breakpoint", breakpoint), (c"debug", debug), (c"replicate_commands", replicate_commands)];

/// Pushes the table `redis`.
///
/// # Safety
/// The state is fresh and the bridge outlives it.
pub(super) unsafe fn push_redis(state: *mut lua_State, bridge: *const Bridge, kind: Kind) {
    // SAFETY: as the caller promises.
    unsafe {
        ffi::lua_createtable(state, 0, 32);
        set_functions(state, bridge, FUNCTIONS);
        set_log(state, bridge);
        set_numbers(state, REPL_TARGETS);
        if kind == Kind::Eval {
            set_functions(state, bridge, EVAL_FUNCTIONS);
        }
    }
}

/// Adds `log` and the version to the table on top.
///
/// # Safety
/// As [`push_redis`].
pub(super) unsafe fn set_log(state: *mut lua_State, bridge: *const Bridge) {
    // SAFETY: as the caller promises.
    unsafe {
        set_functions(state, bridge, &[(c"log", log)]);
        set_numbers(state, LOG_LEVELS);
        set_numbers(state, &[(c"REDIS_VERSION_NUM", REDIS_VERSION_NUM)]);
        push_bytes(state, REDIS_VERSION.as_bytes());
        ffi::lua_setfield(state, -2, c"REDIS_VERSION".as_ptr());
    }
}

/// Puts our `random` and `randomseed` into the table on top: their numbers are the same on every machine.
///
/// # Safety
/// As [`push_redis`].
pub(super) unsafe fn set_random(state: *mut lua_State, bridge: *const Bridge) {
    // SAFETY: as the caller promises.
    unsafe { set_functions(state, bridge, &[(c"random", random), (c"randomseed", random_seed)]) }
}

/// Adds functions to the table on top, each with the bridge as its first upvalue.
///
/// # Safety
/// As [`push_redis`].
pub(super) unsafe fn set_functions(state: *mut lua_State, bridge: *const Bridge, functions: &[(&CStr, Function)]) {
    for (name, function) in functions {
        // SAFETY: as the caller promises.
        unsafe {
            ffi::lua_pushlightuserdata(state, bridge.cast_mut().cast());
            ffi::lua_pushcclosure(state, *function, 1);
            ffi::lua_setfield(state, -2, name.as_ptr());
        }
    }
}

unsafe fn set_numbers(state: *mut lua_State, numbers: &[(&CStr, f64)]) {
    for (name, number) in numbers {
        // SAFETY: as `push_redis`.
        unsafe {
            ffi::lua_pushnumber(state, *number);
            ffi::lua_setfield(state, -2, name.as_ptr());
        }
    }
}

/// The bridge of the running function.
///
/// # Safety
/// The function was made by `set_functions`.
pub(super) unsafe fn bridge<'a>(state: *mut lua_State) -> &'a Bridge {
    // SAFETY: the first upvalue is the bridge.
    unsafe { &*ffi::lua_touserdata(state, ffi::lua_upvalueindex(1)).cast::<Bridge>() }
}

/// How a function ends: it has pushed one result, or an error to raise.
pub(super) enum End {
    Value,
    Raise,
}

/// # Safety
/// No frame of ours below holds anything with a destructor.
pub(super) unsafe fn end(state: *mut lua_State, end: End) -> c_int {
    match end {
        End::Value => 1,
        // SAFETY: as the caller promises.
        End::Raise => unsafe { ffi::lua_error(state) },
    }
}

/// Raises an error table with this text.
unsafe fn raise(state: *mut lua_State, text: &[u8]) -> c_int {
    // SAFETY: called with nothing to drop.
    unsafe {
        ffi::lua_checkstack(state, 6);
        push_error(state, text);
        ffi::lua_error(state)
    }
}

const OUTSIDE: &[u8] = b"redis functions can only be called while a script runs";

unsafe extern "C-unwind" fn call(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; `run_command` has dropped all it had.
    unsafe {
        let done = run_command(state, true);
        end(state, done)
    }
}

unsafe extern "C-unwind" fn pcall(state: *mut lua_State) -> c_int {
    // SAFETY: as `call`.
    unsafe {
        let done = run_command(state, false);
        end(state, done)
    }
}

/// Runs the command whose arguments are on the stack and leaves its reply there, or an error.
unsafe fn run_command(state: *mut lua_State, raises: bool) -> End {
    const RECURSIVE: &[u8] =
        b"luaRedisGenericCommand() recursive call detected. Are you doing funny stuff with Lua debug hooks?";
    let failed = if raises { End::Raise } else { End::Value };
    // SAFETY: the buffers are the bridge's, so an error raised for want of memory leaves nothing behind; `in_call` keeps
    // everyone else from them meanwhile. The server is used by nobody else while Lua runs.
    unsafe {
        let bridge = bridge(state);
        if bridge.in_call.get() {
            log::warn!("{}", String::from_utf8_lossy(RECURSIVE));
            push_error(state, RECURSIVE);
            return End::Value;
        }
        let Some(server) = bridge.server() else {
            push_error(state, OUTSIDE);
            return failed;
        };
        let scratch = bridge.scratch();
        if let Err(text) = take_args(state, &mut scratch.args) {
            push_error(state, text);
            return failed;
        }
        ffi::lua_settop(state, 0);
        bridge.in_call.set(true);
        scratch.reply.buf.clear();
        let is_logged = server.scripting().debugger.logs_steps();
        if is_logged {
            server.scripting().debugger.log_command(scratch.args.as_args());
        }
        let result = server.run_script_command(scratch.args.as_args(), &mut scratch.reply);
        if is_logged {
            log_result(&mut server.scripting().debugger, &result, &scratch.reply.buf);
        }
        ffi::lua_checkstack(state, 8);
        let done = match result {
            Ok(()) => {
                let reply = &scratch.reply.buf[..];
                convert::push_reply(state, reply);
                if reply.first() == Some(&b'-') { failed } else { End::Value }
            }
            Err(error) => {
                // Taken apart so that nothing is left to drop when the table is made.
                scratch.reply.buf.clear();
                scratch.reply.buf.extend_from_slice(&error);
                drop(error);
                push_error(state, &scratch.reply.buf);
                convert::mark_counted(state);
                failed
            }
        };
        bridge.tidy();
        bridge.in_call.set(false);
        done
    }
}

/// Logs the result of a command for the debugger.
fn log_result(debugger: &mut super::debugger::Debugger, result: &Result<(), Vec<u8>>, reply: &[u8]) {
    match result {
        Err(text) => debugger.log([b"<error> ", &text[..]].concat()),
        Ok(()) => {
            if reply.first() == Some(&b'-') {
                debugger.log([b"<error> ", reply.trim_ascii_end()].concat());
            }
            debugger.log_reply(reply);
        }
    }
}

/// Reads the arguments of a command from the stack: strings, and numbers as Redis writes them.
unsafe fn take_args(state: *mut lua_State, args: &mut crate::resp::OwnedArgs) -> Result<(), &'static [u8]> {
    // SAFETY: reads values that stay where they are; nothing here allocates in Lua.
    unsafe {
        args.clear();
        let count = ffi::lua_gettop(state);
        if count == 0 {
            return Err(b"Please specify at least one argument for this redis lib call");
        }
        let mut has_room = false;
        for index in 1..=count {
            if let Some(text) = string_at(state, index) {
                if text.len() > LONG_ARG && !has_room {
                    let rest: usize = (index..=count).map(|i| string_at(state, i).map_or(0, <[u8]>::len)).sum();
                    has_room = rest <= ARGS_MAX && args.try_reserve(rest);
                    if !has_room {
                        return Err(REFUSED);
                    }
                }
                args.push(text);
            } else if ffi::lua_type(state, index) == ffi::LUA_TNUMBER {
                let number = ffi::lua_tonumber(state, index);
                match f64_to_i64(number) {
                    Some(whole) => args.push(itoa::Buffer::new().format(whole).as_bytes()),
                    None => args.push(&f64_text_grisu(number)),
                }
            } else {
                return Err(b"Lua redis lib command arguments must be strings or integers");
            }
        }
        Ok(())
    }
}

unsafe extern "C-unwind" fn acl_check_cmd(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; as `run_command`.
    unsafe {
        let bridge = bridge(state);
        let Some(server) = bridge.server() else { return raise(state, OUTSIDE) };
        let scratch = bridge.scratch();
        if let Err(text) = take_args(state, &mut scratch.args) {
            return raise(state, text);
        }
        match server.script_caller_may(scratch.args.as_args()) {
            Some(may) => {
                ffi::lua_pushboolean(state, may as c_int);
                1
            }
            None => raise(state, b"Invalid command passed to redis.acl_check_cmd()"),
        }
    }
}

unsafe extern "C-unwind" fn log(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; `write_log` has dropped all it had.
    unsafe {
        let count = ffi::lua_gettop(state);
        if count < 2 {
            return raise(state, b"redis.log() requires two arguments or more.");
        }
        if ffi::lua_isnumber(state, 1) == 0 {
            return raise(state, b"First argument must be a number (log level).");
        }
        let level = ffi::lua_tonumber(state, 1) as i64;
        if !(0..=3).contains(&level) {
            return raise(state, b"Invalid debug level.");
        }
        for index in 2..=count {
            // Numbers become strings in place; values of other types are left out.
            ffi::lua_tolstring(state, index, std::ptr::null_mut());
        }
        write_log(state, level, count);
        0
    }
}

unsafe fn write_log(state: *mut lua_State, level: i64, count: c_int) {
    let mut line = Vec::new();
    for index in 2..=count {
        // SAFETY: the values stay on the stack.
        if let Some(text) = unsafe { string_at(state, index) } {
            if index > 2 {
                line.push(b' ');
            }
            line.extend_from_slice(&text[..text.len().min(LOG_LINE_MAX.saturating_sub(line.len()))]);
        }
    }
    let level = match level {
        0 => log::Level::Trace,
        1 => log::Level::Debug,
        2 => log::Level::Info,
        _ => log::Level::Warn,
    };
    log::log!(level, "{}", String::from_utf8_lossy(&line));
}

unsafe extern "C-unwind" fn set_resp(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        let Some(server) = bridge(state).server() else { return raise(state, OUTSIDE) };
        if ffi::lua_gettop(state) != 1 {
            return raise(state, b"redis.setresp() requires one argument.");
        }
        let version = ffi::lua_tonumber(state, 1) as i64;
        if version != 2 && version != 3 {
            return raise(state, b"RESP version must be 2 or 3.");
        }
        server.set_script_protocol(version == 3);
        0
    }
}

unsafe extern "C-unwind" fn set_repl(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        let Some(server) = bridge(state).server() else { return raise(state, OUTSIDE) };
        if ffi::lua_gettop(state) != 1 {
            return raise(state, b"redis.set_repl() requires one argument.");
        }
        let targets = ffi::lua_tonumber(state, 1) as i64;
        if !(0..=3).contains(&targets) {
            return raise(state, b"Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.");
        }
        if let Some(running) = server.scripting().running.as_mut() {
            running.targets = targets as u8;
        }
        0
    }
}

unsafe extern "C-unwind" fn sha1_hex(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; a number becomes a string in its place.
    unsafe {
        if ffi::lua_gettop(state) != 1 {
            return raise(state, b"wrong number of arguments");
        }
        ffi::lua_tolstring(state, 1, std::ptr::null_mut());
        push_bytes(state, &sha1_text(string_at(state, 1).unwrap_or_default()));
        1
    }
}

/// The SHA1 as 40 hexadecimal digits.
pub(crate) fn sha1_text(bytes: &[u8]) -> [u8; 40] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = [0; 40];
    for (pair, byte) in out.chunks_exact_mut(2).zip(Sha1::digest(bytes)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    out
}

/// Whether the one argument is a string; leaves an error otherwise.
unsafe fn takes_one_string(state: *mut lua_State) -> bool {
    // SAFETY: called from functions that Lua calls.
    unsafe {
        let fits = ffi::lua_gettop(state) == 1 && ffi::lua_type(state, 1) == ffi::LUA_TSTRING;
        if !fits {
            ffi::lua_checkstack(state, 6);
            push_error(state, b"wrong number or type of arguments");
        }
        fits
    }
}

unsafe extern "C-unwind" fn error_reply(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; the text stays on the stack, and is joined there.
    unsafe {
        if !takes_one_string(state) {
            return 1;
        }
        if string_at(state, 1).unwrap_or_default().first() != Some(&b'-') {
            push_bytes(state, b"-");
            ffi::lua_insert(state, 1);
            ffi::lua_concat(state, 2);
        }
        push_error(state, string_at(state, 1).unwrap_or_default());
        1
    }
}

unsafe extern "C-unwind" fn status_reply(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        if takes_one_string(state) {
            ffi::lua_createtable(state, 0, 1);
            push_bytes(state, b"ok");
            ffi::lua_pushvalue(state, 1);
            ffi::lua_rawset(state, -3);
        }
        1
    }
}

unsafe extern "C-unwind" fn breakpoint(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        let debugger = bridge(state).server().map(|s| &mut s.scripting().debugger).filter(|d| d.is_active());
        let is_active = debugger.map(|d| d.asked = true).is_some();
        ffi::lua_pushboolean(state, is_active as c_int);
    }
    1
}

unsafe extern "C-unwind" fn debug(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; `log_debug` has dropped all it had.
    unsafe { log_debug(state) };
    0
}

unsafe fn log_debug(state: *mut lua_State) {
    // SAFETY: called from a function that Lua calls; showing values does not change them.
    unsafe {
        let Some(debugger) = bridge(state).server().map(|s| &mut s.scripting().debugger).filter(|d| d.is_active())
        else {
            return;
        };
        let mut line = format!("<debug> line {}: ", debugger.line).into_bytes();
        for index in 1..=ffi::lua_gettop(state) {
            if index > 1 {
                line.extend_from_slice(b", ");
            }
            super::inspect::append_value(&mut line, state, index, 0);
        }
        debugger.log(line);
    }
}

unsafe extern "C-unwind" fn replicate_commands(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe { ffi::lua_pushboolean(state, 1) };
    1
}

/// The initial state of the random numbers: the sequence is that of `lrand48`, whose 48 bits are `x -> x * A + C`.
pub(crate) const RANDOM_START: u64 = 0x1234_ABCD_330E;
const RANDOM_A: u64 = 0x5_DEEC_E66D;
const RANDOM_C: u64 = 0xB;
const RANDOM_MASK: u64 = (1 << 48) - 1;
/// The largest number of 31 bits, by which they are divided.
const RANDOM_MAX: u64 = i32::MAX as u64;

/// `math.random`, with the arguments and errors of Lua's.
unsafe extern "C-unwind" fn random(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        let random = &bridge(state).random;
        random.set((random.get().wrapping_mul(RANDOM_A) + RANDOM_C) & RANDOM_MASK);
        let share = ((random.get() >> 17) % RANDOM_MAX) as f64 / RANDOM_MAX as f64;
        let number = match ffi::lua_gettop(state) {
            0 => share,
            1 => {
                let upper = ffi::luaL_checkinteger(state, 1) as c_int;
                if upper < 1 {
                    return ffi::luaL_argerror(state, 1, c"interval is empty".as_ptr());
                }
                (share * f64::from(upper)).floor() + 1.0
            }
            2 => {
                let lower = ffi::luaL_checkinteger(state, 1) as c_int;
                let upper = ffi::luaL_checkinteger(state, 2) as c_int;
                if lower > upper {
                    return ffi::luaL_argerror(state, 2, c"interval is empty".as_ptr());
                }
                (share * f64::from(upper.wrapping_sub(lower).wrapping_add(1))).floor() + f64::from(lower)
            }
            _ => return ffi::luaL_error(state, c"wrong number of arguments".as_ptr()),
        };
        ffi::lua_pushnumber(state, number);
        1
    }
}

unsafe extern "C-unwind" fn random_seed(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        let seed = ffi::luaL_checkinteger(state, 1) as u32;
        bridge(state).random.set(u64::from(seed) << 16 | (RANDOM_START & 0xFFFF));
        0
    }
}
