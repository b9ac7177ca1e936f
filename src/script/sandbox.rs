//! What scripts can reach, and what keeps them from changing it: shared tables are seen through empty ones that pass
//! reads on and refuse writes.
//!
//! Lua 5.1 has no read-only tables. So every table that scripts share (the globals, `redis`, the libraries) is hidden
//! behind a guard: an empty table whose metatable names the real one as `__index`, refuses `__newindex`, and has a marker
//! by which the few functions that ignore metatables (`rawset`, `setmetatable`, `table.insert`, ...) know it. Those are
//! replaced by ones that look for the marker first.
#![allow(unsafe_code)]

use super::api;
use super::base;
use super::engine::{Bridge, Kind, push_bytes};
use super::lib;
use super::register;
use mlua::ffi::{self, lua_State};
use std::ffi::{CStr, c_int, c_void};

/// Its address is the key of the real table in a guard's metatable.
static MARKER: u8 = 0;
/// Its address is the key of the bridge in the registry.
static BRIDGE: u8 = 0;
/// Its address is the key, in the registry, of the guard that stands for the metatables of guards.
static SHIELD: u8 = 0;
/// Its address is the key, in the registry, of the metatable of the globals' guard.
static GLOBALS_META: u8 = 0;
/// Its address is the key, in the registry, of the table that passes for the real globals while a library loads.
static LOADING_GLOBALS: u8 = 0;
/// Its address is the key of the real globals.
static REAL_GLOBALS: u8 = 0;

fn key(of: &'static u8) -> *const c_void {
    std::ptr::from_ref(of).cast()
}

/// Lua's own libraries that scripts have.
const LUA_TABLES: &[&CStr] = &[c"string", c"math", c"table", c"coroutine"];
const READ_ONLY: &CStr = c"Attempt to modify a readonly table";

/// Builds all that scripts see, in a fresh state. Returns the registry numbers of the globals and of the error handler.
///
/// # Safety
/// The state is fresh, and the bridge outlives it.
pub(super) unsafe fn build(state: *mut lua_State, bridge: *const Bridge, kind: Kind) -> (c_int, c_int) {
    // SAFETY: a fresh state has room for all that is pushed here, and everything pushed is taken off again. No script has
    // run, so no metamethod of one interferes.
    unsafe {
        let registry = ffi::LUA_REGISTRYINDEX;
        ffi::lua_pushlightuserdata(state, bridge.cast_mut().cast());
        ffi::lua_rawsetp(state, registry, key(&BRIDGE));
        for (name, open) in [
            (c"", ffi::luaopen_base as ffi::lua_CFunction),
            (c"table", ffi::luaopen_table),
            (c"string", ffi::luaopen_string),
            (c"math", ffi::luaopen_math),
        ] {
            ffi::lua_pushcfunction(state, open);
            ffi::lua_pushstring(state, name.as_ptr());
            ffi::lua_call(state, 1, 0);
        }
        // The real globals.
        ffi::lua_pushvalue(state, ffi::LUA_GLOBALSINDEX);
        let globals = ffi::lua_gettop(state);
        ffi::lua_pushvalue(state, globals);
        ffi::lua_rawsetp(state, registry, key(&REAL_GLOBALS));
        make_shield(state);
        open_libraries(state, globals);
        replace_functions(state, globals, bridge);
        api::push_redis(state, bridge, kind);
        guard_top(state);
        ffi::lua_pushvalue(state, -1);
        ffi::lua_setfield(state, globals, c"server".as_ptr());
        ffi::lua_setfield(state, globals, c"redis".as_ptr());
        for name in LUA_TABLES {
            ffi::lua_getfield(state, globals, name.as_ptr());
            guard_top(state);
            ffi::lua_setfield(state, globals, name.as_ptr());
        }
        shield_strings(state, globals);

        ffi::lua_pushcfunction(state, error_handler);
        if kind == Kind::Eval {
            ffi::lua_pushvalue(state, -1);
            ffi::lua_setfield(state, globals, c"__redis__err__handler".as_ptr());
        }
        let handler = ffi::luaL_ref(state, registry);
        guard_globals(state, globals);
        if kind == Kind::Function {
            make_loading_globals(state, bridge);
        }
        ffi::lua_pushvalue(state, -1);
        ffi::lua_replace(state, ffi::LUA_GLOBALSINDEX);
        let guard = ffi::luaL_ref(state, registry);
        ffi::lua_settop(state, globals - 1);
        (guard, handler)
    }
}

/// Strings find their methods in the real table; scripts do not get to it.
///
/// # Safety
/// As for [`build`]; `globals` is where the real globals stand on the stack.
unsafe fn shield_strings(state: *mut lua_State, globals: c_int) {
    // SAFETY: what is pushed is taken off again, and the tables are there.
    unsafe {
        push_bytes(state, b"");
        ffi::lua_getmetatable(state, -1);
        ffi::lua_createtable(state, 0, 1);
        ffi::lua_getfield(state, globals, c"string".as_ptr());
        ffi::lua_setfield(state, -2, c"__index".as_ptr());
        guard_top(state);
        ffi::lua_setfield(state, -2, c"__metatable".as_ptr());
        ffi::lua_pop(state, 2);
    }
}

/// Pushes what scripts see of the globals, of which reading an unknown name is an error.
///
/// # Safety
/// As for [`shield_strings`].
unsafe fn guard_globals(state: *mut lua_State, globals: c_int) {
    // SAFETY: as there.
    unsafe {
        set_strict(state);
        ffi::lua_pushvalue(state, globals);
        guard_top(state);
        ffi::lua_pushvalue(state, -1);
        ffi::lua_setfield(state, globals, c"_G".as_ptr());
        ffi::lua_getmetatable(state, -1);
        ffi::lua_rawsetp(state, ffi::LUA_REGISTRYINDEX, key(&GLOBALS_META));
    }
}

/// The globals that a library sees while it is loaded, for it to register its functions.
///
/// # Safety
/// As for [`build`], which has the guarded globals on top of the stack.
unsafe fn make_loading_globals(state: *mut lua_State, bridge: *const Bridge) {
    // SAFETY: what is pushed is taken off again.
    unsafe {
        ffi::lua_createtable(state, 0, 2);
        register::push_redis(state, bridge);
        set_strict(state);
        guard_top(state);
        ffi::lua_pushvalue(state, -1);
        ffi::lua_setfield(state, -3, c"server".as_ptr());
        ffi::lua_setfield(state, -2, c"redis".as_ptr());
        set_strict(state);
        ffi::lua_rawsetp(state, ffi::LUA_REGISTRYINDEX, key(&LOADING_GLOBALS));
    }
}

/// The bridge of a state.
///
/// # Safety
/// `build` made the state; there is room for a value.
pub(super) unsafe fn bridge<'a>(state: *mut lua_State) -> &'a Bridge {
    // SAFETY: the engine keeps the bridge for as long as the state.
    unsafe {
        ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, key(&BRIDGE));
        let bridge = ffi::lua_touserdata(state, -1).cast::<Bridge>();
        ffi::lua_pop(state, 1);
        &*bridge
    }
}

/// Sets a real global. Pops the value.
///
/// # Safety
/// The state is live; a value is on top and there is room for two more.
pub(super) unsafe fn set_global(state: *mut lua_State, name: &[u8]) {
    // SAFETY: as the caller promises.
    unsafe {
        ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, key(&REAL_GLOBALS));
        push_bytes(state, name);
        ffi::lua_pushvalue(state, -3);
        ffi::lua_rawset(state, -3);
        ffi::lua_pop(state, 2);
    }
}

/// Pushes a real global.
///
/// # Safety
/// As [`set_global`].
pub(super) unsafe fn push_global(state: *mut lua_State, name: &[u8]) {
    // SAFETY: as the caller promises.
    unsafe {
        ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, key(&REAL_GLOBALS));
        push_bytes(state, name);
        ffi::lua_rawget(state, -2);
        ffi::lua_remove(state, -2);
    }
}

/// Switches the globals: while a library loads, all it can do is register functions.
///
/// # Safety
/// The state is that of functions, with room for three values.
pub(super) unsafe fn set_loading(state: *mut lua_State, loading: bool) {
    // SAFETY: as the caller promises; `build` put the tables there.
    unsafe {
        let registry = ffi::LUA_REGISTRYINDEX;
        ffi::lua_rawgetp(state, registry, key(&GLOBALS_META));
        push_bytes(state, b"__index");
        ffi::lua_rawgetp(state, registry, key(if loading { &LOADING_GLOBALS } else { &REAL_GLOBALS }));
        ffi::lua_rawset(state, -3);
        ffi::lua_pop(state, 1);
    }
}

unsafe fn open_libraries(state: *mut lua_State, globals: c_int) {
    // SAFETY: the state is fresh; the wrapper that the libraries ask for lives in it and goes with it.
    unsafe {
        let lua = mlua::Lua::get_or_init_from_ptr(state);
        let tables = [
            ("cjson", lib::json::register(lua)),
            ("cmsgpack", lib::msgpack::register(lua)),
            ("struct", lib::pack::register(lua)),
            ("bit", lib::bit::register(lua)),
        ];
        for (name, table) in tables {
            let table = table.expect("a library opens in a fresh state");
            // Through the registry, from mlua's wrapper to the bare stack.
            lua.set_named_registry_value(name, table).expect("memory for a library");
            ffi::lua_getfield(state, ffi::LUA_REGISTRYINDEX, c_name(name).as_ptr());
            guard_top(state);
            ffi::lua_setfield(state, globals, c_name(name).as_ptr());
            lua.unset_named_registry_value(name).expect("memory for a library");
        }
    }
}

fn c_name(name: &str) -> &'static CStr {
    match name {
        "cjson" => c"cjson",
        "cmsgpack" => c"cmsgpack",
        "struct" => c"struct",
        _ => c"bit",
    }
}

/// Makes the guard that passes for the metatable of guards, its own one included.
unsafe fn make_shield(state: *mut lua_State) {
    // SAFETY: as `build`.
    unsafe {
        ffi::lua_createtable(state, 0, 0);
        guard_top(state);
        ffi::lua_pushvalue(state, -1);
        ffi::lua_rawsetp(state, ffi::LUA_REGISTRYINDEX, key(&SHIELD));
        ffi::lua_getmetatable(state, -1);
        push_shield(state);
        ffi::lua_setfield(state, -2, c"__metatable".as_ptr());
        ffi::lua_pop(state, 2);
    }
}

unsafe fn push_shield(state: *mut lua_State) {
    // SAFETY: as `build`.
    unsafe {
        ffi::lua_rawgetp(state, ffi::LUA_REGISTRYINDEX, key(&SHIELD));
    }
}

/// Replaces the table on top by a guard.
unsafe fn guard_top(state: *mut lua_State) {
    // SAFETY: as `build`. On the stack: the table, the guard, its metatable.
    unsafe {
        ffi::lua_createtable(state, 0, 0);
        ffi::lua_createtable(state, 0, 4);
        ffi::lua_pushvalue(state, -3);
        ffi::lua_setfield(state, -2, c"__index".as_ptr());
        ffi::lua_pushcfunction(state, refuse_write);
        ffi::lua_setfield(state, -2, c"__newindex".as_ptr());
        push_shield(state);
        ffi::lua_setfield(state, -2, c"__metatable".as_ptr());
        ffi::lua_pushvalue(state, -3);
        ffi::lua_rawsetp(state, -2, key(&MARKER));
        ffi::lua_setmetatable(state, -2);
        ffi::lua_remove(state, -2);
    }
}

/// Makes reading an unknown field of the table on top an error.
unsafe fn set_strict(state: *mut lua_State) {
    // SAFETY: as `build`.
    unsafe {
        ffi::lua_createtable(state, 0, 1);
        ffi::lua_pushcfunction(state, refuse_read);
        ffi::lua_setfield(state, -2, c"__index".as_ptr());
        ffi::lua_setmetatable(state, -2);
    }
}

/// Whether the value at an index is a guard. If so, pushes the table that it guards.
unsafe fn push_guarded(state: *mut lua_State, index: c_int) -> bool {
    // SAFETY: called from functions that Lua calls, which have room.
    unsafe {
        if ffi::lua_type(state, index) != ffi::LUA_TTABLE || ffi::lua_getmetatable(state, index) == 0 {
            return false;
        }
        ffi::lua_rawgetp(state, -1, key(&MARKER));
        ffi::lua_remove(state, -2);
        if ffi::lua_isnil(state, -1) != 0 {
            ffi::lua_pop(state, 1);
            return false;
        }
        true
    }
}

unsafe extern "C-unwind" fn refuse_write(state: *mut lua_State) -> c_int {
    // SAFETY: raises an error with nothing to drop.
    unsafe { ffi::luaL_error(state, READ_ONLY.as_ptr()) }
}

unsafe extern "C-unwind" fn refuse_read(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls it with the table and the key; a script that finds it may call it with anything.
    unsafe {
        if ffi::lua_gettop(state) != 2 {
            return ffi::luaL_error(state, c"Wrong number of arguments to luaProtectedTableError".as_ptr());
        }
        if ffi::lua_isstring(state, 2) == 0 {
            let text = c"Second argument to luaProtectedTableError must be a string or number";
            return ffi::luaL_error(state, text.as_ptr());
        }
        let name = ffi::lua_tolstring(state, 2, std::ptr::null_mut());
        ffi::luaL_error(state, c"Script attempted to access nonexistent global variable '%s'".as_ptr(), name)
    }
}

/// Turns an error into a table with its text and its position.
unsafe extern "C-unwind" fn error_handler(state: *mut lua_State) -> c_int {
    // SAFETY: called with the error; it runs before the stack unwinds, so the levels are still there. `lua_Debug` is plain
    // data, which Lua fills before it is read.
    unsafe {
        let mut at: ffi::lua_Debug = std::mem::zeroed();
        let mut found = ffi::lua_getstack(state, 1, &mut at) != 0;
        if found {
            ffi::lua_getinfo(state, c"nSl".as_ptr(), &mut at);
            // An error of a C function is shown at its caller.
            if CStr::from_ptr(at.what) == c"C" {
                found = ffi::lua_getstack(state, 2, &mut at) != 0;
                if found {
                    ffi::lua_getinfo(state, c"nSl".as_ptr(), &mut at);
                }
            }
        }
        if ffi::lua_type(state, 1) != ffi::LUA_TTABLE {
            ffi::lua_createtable(state, 0, 3);
            push_bytes(state, b"ERR ");
            push_text_of(state, 1);
            ffi::lua_concat(state, 2);
            ffi::lua_setfield(state, -2, c"err".as_ptr());
        } else {
            ffi::lua_pushvalue(state, 1);
        }
        if found && !push_guarded(state, -1) {
            push_bytes(state, b"source");
            ffi::lua_pushstring(state, at.source);
            ffi::lua_rawset(state, -3);
            push_bytes(state, b"line");
            ffi::lua_pushnumber(state, at.currentline.into());
            ffi::lua_rawset(state, -3);
        }
        1
    }
}

/// Pushes a value as a string: what `tostring` gives for plain values.
unsafe fn push_text_of(state: *mut lua_State, index: c_int) {
    // SAFETY: called from `error_handler`; strings of values are made by the copy, which is converted in place.
    unsafe {
        match ffi::lua_type(state, index) {
            ffi::LUA_TSTRING | ffi::LUA_TNUMBER => {
                ffi::lua_pushvalue(state, index);
                ffi::lua_tolstring(state, -1, std::ptr::null_mut());
            }
            ffi::LUA_TBOOLEAN => {
                push_bytes(state, if ffi::lua_toboolean(state, index) != 0 { b"true" } else { b"false" });
            }
            ffi::LUA_TNIL | ffi::LUA_TNONE => push_bytes(state, b"nil"),
            other => {
                let name = ffi::lua_typename(state, other);
                ffi::lua_pushfstring(state, c"%s: %p".as_ptr(), name, ffi::lua_topointer(state, index));
            }
        }
    }
}

/// Replaces functions of Lua by ours: those that respect guards, and others.
unsafe fn replace_functions(state: *mut lua_State, globals: c_int, bridge: *const Bridge) {
    // SAFETY: as `build`.
    unsafe {
        for (name, function) in [
            (c"setmetatable", keep_guard as ffi::lua_CFunction),
            (c"rawset", keep_guard),
            (c"rawget", see_through_guard),
            (c"next", see_through_guard),
        ] {
            ffi::lua_getfield(state, globals, name.as_ptr());
            ffi::lua_pushcclosure(state, function, 1);
            ffi::lua_setfield(state, globals, name.as_ptr());
        }
        ffi::lua_getfield(state, globals, c"next".as_ptr());
        ffi::lua_pushcclosure(state, pairs, 1);
        ffi::lua_setfield(state, globals, c"pairs".as_ptr());
        base::replace(state, globals, bridge);
        ffi::lua_getfield(state, globals, c"math".as_ptr());
        api::set_random(state, bridge);
        ffi::lua_pop(state, 1);
    }
}

/// Calls the C function in the first upvalue as if it had been called itself: arguments, results and the name in errors
/// are its own. It must have no upvalues.
///
/// # Safety
/// Called by Lua, from a closure with such an upvalue.
pub(super) unsafe fn go_on(state: *mut lua_State) -> c_int {
    // SAFETY: as the caller promises.
    unsafe {
        match ffi::lua_tocfunction(state, ffi::lua_upvalueindex(1)) {
            Some(function) => function(state),
            None => 0,
        }
    }
}

/// Raises an error if the first argument is a guard.
///
/// # Safety
/// Called by Lua, with nothing to drop.
pub(super) unsafe fn refuse_guard(state: *mut lua_State) {
    // SAFETY: as the caller promises.
    unsafe {
        if push_guarded(state, 1) {
            push_bytes(state, READ_ONLY.to_bytes());
            ffi::lua_error(state);
        }
    }
}

unsafe extern "C-unwind" fn keep_guard(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        refuse_guard(state);
        go_on(state)
    }
}

unsafe extern "C-unwind" fn see_through_guard(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        if push_guarded(state, 1) {
            ffi::lua_replace(state, 1);
        }
        go_on(state)
    }
}

unsafe extern "C-unwind" fn pairs(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; nothing to drop.
    unsafe {
        ffi::luaL_checktype(state, 1, ffi::LUA_TTABLE);
        ffi::lua_pushvalue(state, ffi::lua_upvalueindex(1));
        ffi::lua_pushvalue(state, 1);
        ffi::lua_pushnil(state);
        3
    }
}
