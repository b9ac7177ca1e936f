//! Our own versions of some functions of Lua's libraries: those whose arithmetic can overflow, that can take unbounded
//! time or memory, that change the interpreter for other scripts, or that would catch the end of a script.
//!
//! Arguments, results and errors are those of Lua 5.1. Each of them has two upvalues: Lua's function that it replaces,
//! and the bridge.
#![allow(unsafe_code)]

use super::busy;
use super::engine::{Bridge, push_bytes, string_at};
use super::memory::{REFUSED, STRING_MAX};
use super::{load, sandbox};
use mlua::ffi::{self, lua_State};
use std::ffi::{CStr, c_int, c_void};

/// The functions, by table and name.
const FUNCTIONS: &[(&CStr, &[(&CStr, ffi::lua_CFunction)])] = &[
    (
        c"_G",
        &[
            (c"pcall", protected_call),
            (c"xpcall", handled_call),
            (c"load", load::load),
            (c"loadstring", load::load_string),
            (c"unpack", unpack),
            (c"collectgarbage", collect),
        ],
    ),
    (c"string", &[(c"rep", repeat), (c"find", find), (c"match", with_pattern), (c"gmatch", with_pattern)]),
    (c"string", &[(c"gfind", with_pattern), (c"gsub", with_pattern)]),
    (c"table", &[(c"insert", insert), (c"remove", remove)]),
    (c"coroutine", &[(c"resume", resume), (c"create", begin_coroutine), (c"wrap", begin_coroutine)]),
];

/// Functions that scripts do not get. `newproxy` makes values whose metatable a script may change, and which can have a
/// finalizer: code that runs when the collector does, where nothing can stop it.
const REMOVED: &[&CStr] = &[c"dofile", c"loadfile", c"print", c"newproxy"];

/// Replaces Lua's functions.
///
/// # Safety
/// The state is fresh, its globals are at the index, and the bridge outlives it.
pub(super) unsafe fn replace(state: *mut lua_State, globals: c_int, bridge: *const Bridge) {
    // SAFETY: as the caller promises; no script has run, so there are no metamethods.
    unsafe {
        for (table, functions) in FUNCTIONS {
            ffi::lua_getfield(state, globals, table.as_ptr());
            for (name, function) in *functions {
                ffi::lua_getfield(state, -1, name.as_ptr());
                ffi::lua_pushlightuserdata(state, bridge.cast_mut().cast::<c_void>());
                ffi::lua_pushcclosure(state, *function, 2);
                ffi::lua_setfield(state, -2, name.as_ptr());
            }
            ffi::lua_pop(state, 1);
        }
        for name in REMOVED {
            ffi::lua_pushnil(state);
            ffi::lua_setfield(state, globals, name.as_ptr());
        }
    }
}

unsafe fn bridge<'a>(state: *mut lua_State) -> &'a Bridge {
    // SAFETY: see `replace`.
    unsafe { &*ffi::lua_touserdata(state, ffi::lua_upvalueindex(2)).cast::<Bridge>() }
}

/// Raises the end of the script if it is to end, so that it is not caught.
unsafe fn let_end_pass(state: *mut lua_State, bridge: &Bridge) {
    // SAFETY: called from functions that Lua calls, with nothing to drop.
    unsafe {
        if bridge.ended.get().is_some() {
            busy::raise_end(state, bridge);
        }
    }
}

/// As `let_end_pass`, after checking the clock.
unsafe fn look(state: *mut lua_State, bridge: &Bridge) {
    // SAFETY: as `let_end_pass`; no command of the script runs, as one of its functions does.
    unsafe {
        if !busy::goes_on(bridge) {
            busy::raise_end(state, bridge);
        }
    }
}

/// `pcall`: for an error that is a table it returns the text alone.
unsafe extern "C-unwind" fn protected_call(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        if ffi::lua_gettop(state) == 0 {
            // Redis then calls the slot of the result, a boolean.
            ffi::lua_pushboolean(state, 0);
            push_bytes(state, b"attempt to call a boolean value");
            return 2;
        }
        let args = ffi::lua_gettop(state) - 1;
        let failed = ffi::lua_pcall(state, args, ffi::LUA_MULTRET, 0) != ffi::LUA_OK;
        if failed {
            let_end_pass(state, bridge(state));
            if ffi::lua_type(state, -1) == ffi::LUA_TTABLE {
                ffi::lua_checkstack(state, 2);
                push_bytes(state, b"err");
                ffi::lua_rawget(state, -2);
                if ffi::lua_isstring(state, -1) != 0 {
                    ffi::lua_replace(state, -2);
                } else {
                    ffi::lua_pop(state, 1);
                }
            }
        }
        if ffi::lua_checkstack(state, 1) == 0 {
            return ffi::luaL_error(state, c"stack overflow".as_ptr());
        }
        ffi::lua_pushboolean(state, !failed as c_int);
        ffi::lua_insert(state, 1);
        ffi::lua_gettop(state)
    }
}

/// `xpcall(function, handler)`.
unsafe extern "C-unwind" fn handled_call(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        ffi::luaL_checkany(state, 2);
        ffi::lua_settop(state, 2);
        if ffi::lua_type(state, 2) == ffi::LUA_TFUNCTION {
            ffi::lua_pushvalue(state, ffi::lua_upvalueindex(2));
            ffi::lua_pushcclosure(state, handle, 2);
        }
        ffi::lua_insert(state, 1);
        let failed = ffi::lua_pcall(state, 0, ffi::LUA_MULTRET, 1) != ffi::LUA_OK;
        if failed {
            let_end_pass(state, bridge(state));
        }
        if ffi::lua_checkstack(state, 1) == 0 {
            return ffi::luaL_error(state, c"stack overflow".as_ptr());
        }
        ffi::lua_pushboolean(state, !failed as c_int);
        ffi::lua_replace(state, 1);
        ffi::lua_gettop(state)
    }
}

/// Calls the handler of a script, unless the error is the end of the script, which is passed on.
unsafe extern "C-unwind" fn handle(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua with the error, with nothing to drop.
    unsafe {
        if bridge(state).ended.get().is_none() {
            ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
            ffi::lua_insert(state, 1);
            ffi::lua_call(state, ffi::lua_gettop(state) - 1, 1);
        }
        1
    }
}

/// `unpack(table [, first [, last]])`.
unsafe extern "C-unwind" fn unpack(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        ffi::luaL_checktype(state, 1, ffi::LUA_TTABLE);
        let first = ffi::luaL_optinteger(state, 2, 1) as c_int;
        let last = match ffi::lua_type(state, 3) {
            ffi::LUA_TNONE | ffi::LUA_TNIL => ffi::lua_objlen(state, 1) as c_int,
            _ => ffi::luaL_checkinteger(state, 3) as c_int,
        };
        if first > last {
            return 0;
        }
        let count = c_int::try_from(i64::from(last) - i64::from(first) + 1).unwrap_or(c_int::MAX);
        if ffi::lua_checkstack(state, count) == 0 {
            return ffi::luaL_error(state, c"too many results to unpack".as_ptr());
        }
        for place in 0..count {
            ffi::lua_rawgeti_(state, 1, first + place);
        }
        count
    }
}

/// What `collectgarbage` says of the settings that scripts cannot change.
const COLLECTOR_SETTING: f64 = 200.0;

/// `collectgarbage([what [, argument]])`. The collector's settings stay: other scripts share it.
unsafe extern "C-unwind" fn collect(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        let answer = match string_at(state, 1) {
            Some(b"stop") => 0.0,
            Some(b"setpause" | b"setstepmul") => COLLECTOR_SETTING,
            _ => return sandbox::go_on(state),
        };
        ffi::luaL_optinteger(state, 2, 0);
        ffi::lua_pushnumber(state, answer);
        1
    }
}

/// Results up to this size, bytes, are left to Lua, which builds them without an extra block.
const SHORT_RESULT: usize = 4096;

/// `string.rep(text, times)`.
unsafe extern "C-unwind" fn repeat(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua. The buffer is Lua's, on the stack, and as long as what is written to it; text and buffer do
    // not overlap.
    unsafe {
        let mut len = 0;
        let text = ffi::luaL_checklstring(state, 1, &mut len);
        let times = ffi::luaL_checkinteger(state, 2) as c_int;
        let total = len.saturating_mul(times.max(0) as usize);
        if total == 0 {
            push_bytes(state, b"");
            return 1;
        }
        if total > STRING_MAX {
            push_bytes(state, REFUSED);
            ffi::lua_error(state);
        }
        if total <= SHORT_RESULT {
            return sandbox::go_on(state);
        }
        let buffer = ffi::lua_newuserdata(state, total).cast::<u8>();
        std::ptr::copy_nonoverlapping(text.cast::<u8>(), buffer, len);
        let mut done = len;
        while done < total {
            let more = done.min(total - done);
            std::ptr::copy_nonoverlapping(buffer, buffer.add(done), more);
            done += more;
        }
        push_bytes(state, std::slice::from_raw_parts(buffer, total));
        1
    }
}

/// Most parts of a pattern in which matching recurses. Lua's own functions do not count them.
const PATTERN_PARTS_MAX: usize = 5000;

/// `string.find`; with its fourth argument true the text is not a pattern.
unsafe extern "C-unwind" fn find(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        if ffi::lua_toboolean(state, 4) == 0 {
            check_pattern(state);
        }
        sandbox::go_on(state)
    }
}

unsafe extern "C-unwind" fn with_pattern(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        check_pattern(state);
        sandbox::go_on(state)
    }
}

/// Refuses a pattern that could overflow the stack. Every recursion belongs to one of these letters.
unsafe fn check_pattern(state: *mut lua_State) {
    // SAFETY: called from functions that Lua calls, with nothing to drop.
    unsafe {
        let pattern = string_at(state, 2).unwrap_or_default();
        if pattern.len() > PATTERN_PARTS_MAX {
            let parts = pattern.iter().filter(|b| matches!(b, b'*' | b'+' | b'-' | b'?' | b'(' | b')')).count();
            if parts > PATTERN_PARTS_MAX {
                ffi::luaL_error(state, c"pattern too complex".as_ptr());
            }
        }
    }
}

/// Elements moved between two checks of the clock. A small table may claim to have half a billion elements.
const LOOK_MOVES: c_int = 1 << 20;

/// `table.insert(table, [place,] value)`.
unsafe extern "C-unwind" fn insert(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        sandbox::refuse_guard(state);
        ffi::luaL_checktype(state, 1, ffi::LUA_TTABLE);
        let end = (ffi::lua_objlen(state, 1) as c_int).saturating_add(1);
        let place = match ffi::lua_gettop(state) {
            2 => end,
            3 => ffi::luaL_checkinteger(state, 2) as c_int,
            _ => return ffi::luaL_error(state, c"wrong number of arguments to 'insert'".as_ptr()),
        };
        let mut at = end;
        while at > place {
            ffi::lua_rawgeti_(state, 1, at - 1);
            ffi::lua_rawseti_(state, 1, at);
            at -= 1;
            if at % LOOK_MOVES == 0 {
                look(state, bridge(state));
            }
        }
        ffi::lua_rawseti_(state, 1, place);
        0
    }
}

/// `table.remove(table [, place])`.
unsafe extern "C-unwind" fn remove(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        ffi::luaL_checktype(state, 1, ffi::LUA_TTABLE);
        let end = ffi::lua_objlen(state, 1) as c_int;
        let place = ffi::luaL_optinteger(state, 2, end as ffi::lua_Integer) as c_int;
        if !(1..=end).contains(&place) {
            return 0;
        }
        ffi::lua_rawgeti_(state, 1, place);
        for at in place..end {
            ffi::lua_rawgeti_(state, 1, at + 1);
            ffi::lua_rawseti_(state, 1, at);
            if at % LOOK_MOVES == 0 {
                look(state, bridge(state));
            }
        }
        ffi::lua_pushnil(state);
        ffi::lua_rawseti_(state, 1, end);
        1
    }
}

/// `coroutine.resume`: the end of the script is not caught.
unsafe extern "C-unwind" fn resume(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        let results = sandbox::go_on(state);
        if results > 0 && ffi::lua_toboolean(state, -results) == 0 {
            let_end_pass(state, bridge(state));
        }
        results
    }
}

/// Coroutines made between two checks of the clock: each counts its instructions from 0.
const LOOK_COROUTINES: u32 = 16;

/// `coroutine.create` and `coroutine.wrap`.
unsafe extern "C-unwind" fn begin_coroutine(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        let bridge = bridge(state);
        let made = bridge.coroutines.get().wrapping_add(1);
        bridge.coroutines.set(made);
        if made.is_multiple_of(LOOK_COROUTINES) {
            look(state, bridge);
        }
        sandbox::go_on(state)
    }
}
