//! Loading a library: running its program, in which all it can do is `redis.register_function`.
#![allow(unsafe_code)]

use super::engine::{Bridge, Engine, push_error, string_at};
use super::library::{BAD_NAME, Function, Loading};
use super::memory::REFUSED;
use super::{api, convert, flags, sandbox};
use mlua::ffi::{self, lua_State};
use std::collections::HashSet;
use std::ffi::c_int;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Pushes the table `redis` of loading libraries.
///
/// # Safety
/// The state is fresh and the bridge outlives it.
pub(super) unsafe fn push_redis(state: *mut lua_State, bridge: *const Bridge) {
    // SAFETY: as the caller promises.
    unsafe {
        ffi::lua_createtable(state, 0, 8);
        api::set_functions(state, bridge, &[(c"register_function", register_function)]);
        api::set_log(state, bridge);
    }
}

impl Engine {
    /// Runs the program of a library and returns the functions it registered. `Err` is the text of the reply.
    pub(super) fn load_library(&mut self, code: &[u8], timeout: Option<Duration>) -> Result<Vec<Function>, Vec<u8>> {
        let compiled = self.load(code, c"@user_function");
        let compiled = compiled.map_err(|message| [b"Error compiling function: ", &message[..]].concat())?;
        let state = self.state();
        let mut loading = Loading { functions: Vec::new(), names: HashSet::new(), start: Instant::now(), timeout };
        let mut program = Program { code: compiled.id, failed: false, error: Default::default() };
        // SAFETY: `loading` and `program` outlive the call, after which the bridge forgets the one. What runs is
        // protected, and setting the globals right again needs no memory.
        let status = unsafe {
            let bridge = &*self.bridge();
            bridge.ended.set(None);
            bridge.loading.set(&mut loading);
            let status = ffi::lua_cpcall(state, run_program, std::ptr::from_mut(&mut program).cast());
            if status != ffi::LUA_OK {
                ffi::lua_pop(state, 1);
            }
            bridge.loading.set(std::ptr::null_mut());
            sandbox::set_loading(state, false);
            status
        };
        if status != ffi::LUA_OK {
            program.failed = true;
            program.error.text = Some([b"ERR ", REFUSED].concat());
        }
        if program.failed {
            return Err([b"Error registering functions: ", &program.error.text.unwrap_or_default()[..]].concat());
        }
        Ok(loading.functions)
    }
}

/// The program of a library. It lies below the protected call.
struct Program {
    /// Registry number of its function.
    code: c_int,
    failed: bool,
    error: convert::ScriptError,
}

unsafe extern "C-unwind" fn run_program(state: *mut lua_State) -> c_int {
    // SAFETY: `load_library` gives a program; whatever is not plain data lies in it.
    unsafe {
        let program = &mut *ffi::lua_touserdata(state, 1).cast::<Program>();
        sandbox::set_loading(state, true);
        ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, program.code.into());
        program.failed = ffi::lua_pcall(state, 0, 0, 0) != ffi::LUA_OK;
        if program.failed {
            if let Some(text) = sandbox::bridge(state).ended.get() {
                push_error(state, text);
            }
            convert::read_error(state, &mut program.error);
        }
        0
    }
}

unsafe extern "C-unwind" fn register_function(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; `register` has dropped all it had.
    unsafe {
        let text = match register(state) {
            Ok(()) => return 0,
            Err(text) => text,
        };
        ffi::lua_checkstack(state, 6);
        push_error(state, text);
        ffi::lua_error(state)
    }
}

/// The arguments of `redis.register_function`.
#[derive(Default)]
struct Wanted {
    name: Option<Vec<u8>>,
    description: Option<Vec<u8>>,
    flags: u32,
    /// Its index on the stack.
    callback: Option<c_int>,
}

unsafe fn register(state: *mut lua_State) -> Result<(), &'static [u8]> {
    // SAFETY: called from a function that Lua calls. Between making values with destructors and dropping them, only
    // `luaL_ref` may raise, for want of memory.
    unsafe {
        let bridge = api::bridge(state);
        // Checks of the clock use it, too, so no reference is kept.
        let loading = bridge.loading.get();
        if loading.is_null() {
            return Err(b"redis.register_function can only be called on FUNCTION LOAD command");
        }
        let wanted = match ffi::lua_gettop(state) {
            1 => named(state)?,
            2 => positional(state)?,
            _ => return Err(b"wrong number of arguments to redis.register_function"),
        };
        let name = wanted.name.ok_or(&b"redis.register_function must get a function name argument"[..])?;
        let callback = wanted.callback.ok_or(&b"redis.register_function must get a callback argument"[..])?;
        if !flags::is_valid_name(&name) {
            return Err(BAD_NAME);
        }
        let name: Rc<[u8]> = name.into();
        if (*loading).names.contains(&name) {
            return Err(b"Function already exists in the library");
        }
        ffi::lua_pushvalue(state, callback);
        let id = ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
        let code = bridge.function(id);
        (*loading).names.insert(name.clone());
        (*loading).functions.push(Function { name, description: wanted.description, flags: wanted.flags, code });
        Ok(())
    }
}

unsafe fn positional(state: *mut lua_State) -> Result<Wanted, &'static [u8]> {
    // SAFETY: see `register`.
    unsafe {
        let name = text(state, 1).ok_or(&b"first argument to redis.register_function must be a string"[..])?;
        if ffi::lua_type(state, 2) != ffi::LUA_TFUNCTION {
            return Err(b"second argument to redis.register_function must be a function");
        }
        Ok(Wanted { name: Some(name), callback: Some(2), ..Wanted::default() })
    }
}

unsafe fn named(state: *mut lua_State) -> Result<Wanted, &'static [u8]> {
    // SAFETY: see `register`. On the stack: the table, the callback or nil, and while walking a key and a value.
    unsafe {
        if ffi::lua_type(state, 1) != ffi::LUA_TTABLE {
            return Err(
                b"calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
            );
        }
        let mut wanted = Wanted::default();
        ffi::lua_checkstack(state, 6);
        ffi::lua_pushnil(state);
        ffi::lua_pushnil(state);
        while ffi::lua_next(state, 1) != 0 {
            let key = match ffi::lua_type(state, -2) {
                ffi::LUA_TSTRING => string_at(state, -2).unwrap_or_default().to_ascii_lowercase(),
                ffi::LUA_TNUMBER => Vec::new(),
                _ => return Err(b"named argument key given to redis.register_function is not a string"),
            };
            match &key[..] {
                b"function_name" => {
                    let bad = b"function_name argument given to redis.register_function must be a string";
                    wanted.name = Some(text(state, -1).ok_or(&bad[..])?);
                }
                b"description" => {
                    let bad = b"description argument given to redis.register_function must be a string";
                    wanted.description = Some(text(state, -1).ok_or(&bad[..])?);
                }
                b"callback" => {
                    if ffi::lua_type(state, -1) != ffi::LUA_TFUNCTION {
                        return Err(b"callback argument given to redis.register_function must be a function");
                    }
                    ffi::lua_pushvalue(state, -1);
                    ffi::lua_replace(state, 2);
                    wanted.callback = Some(2);
                }
                b"flags" => {
                    if ffi::lua_type(state, -1) != ffi::LUA_TTABLE {
                        return Err(
                            b"flags argument to redis.register_function must be a table representing function flags",
                        );
                    }
                    wanted.flags = read_flags(state)?;
                }
                _ => return Err(b"unknown argument given to redis.register_function"),
            }
            ffi::lua_pop(state, 1);
        }
        Ok(wanted)
    }
}

/// The flags in the table on top, which stays.
unsafe fn read_flags(state: *mut lua_State) -> Result<u32, &'static [u8]> {
    let mut all = 0;
    for index in 1.. {
        // SAFETY: see `register`.
        unsafe {
            ffi::lua_rawgeti_(state, -1, index);
            let is_end = ffi::lua_type(state, -1) == ffi::LUA_TNIL;
            let name = text(state, -1);
            ffi::lua_pop(state, 1);
            if is_end {
                break;
            }
            let known = name.and_then(|n| flags::NAMES.iter().find(|(_, k)| k.as_bytes().eq_ignore_ascii_case(&n)));
            all |= known.ok_or(&b"unknown flag given"[..])?.0;
        }
    }
    Ok(all)
}

/// A string or a number as text.
unsafe fn text(state: *mut lua_State, index: c_int) -> Option<Vec<u8>> {
    // SAFETY: see `register`; a copy of a number is converted, so that the table stays as it is.
    unsafe {
        if ffi::lua_isstring(state, index) == 0 {
            return None;
        }
        ffi::lua_pushvalue(state, index);
        ffi::lua_tolstring(state, -1, std::ptr::null_mut());
        let text = string_at(state, -1).unwrap_or_default().to_vec();
        ffi::lua_pop(state, 1);
        Some(text)
    }
}
