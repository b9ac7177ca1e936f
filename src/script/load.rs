//! Compiling: from text in one piece, or from the pieces that a function of a script returns.
//!
//! Invariants, for everything that is compiled: it is text, never bytecode, which could do anything. Its length fits
//! the compiler's counters. The name of the chunk is on the stack, so that Lua, which has only one string of each text,
//! cannot free the one in use. The collector is stopped, except while a script's own function runs in between.
#![allow(unsafe_code)]

use super::busy;
use super::engine::push_bytes;
use super::sandbox;
use mlua::ffi::{self, lua_State};
use std::ffi::{CStr, c_char, c_int, c_void};

/// The longest program, bytes. The compiler counts brackets and lines in 32 bits.
pub(crate) const SOURCE_MAX: usize = 64 << 20;
const TOO_LONG: &CStr = c"the program is too long";

/// Pieces read between two checks of the clock: the function that returns them may be one of Lua's own, in which
/// nothing else checks.
const LOOK_PIECES: u32 = 1024;

/// With a blank before it, bytecode is taken for text by the compiler, which then fails.
const BLANK: &CStr = c" ";

/// Compiles a text. Pushes the function, or a message, and returns Lua's status.
///
/// # Safety
/// The state is live and has room for three values; may raise an error for want of memory.
pub(super) unsafe fn text(state: *mut lua_State, code: &[u8], name: &CStr) -> c_int {
    if code.len() > SOURCE_MAX {
        // SAFETY: as the caller promises.
        unsafe { push_bytes(state, TOO_LONG.to_bytes()) };
        return ffi::LUA_ERRSYNTAX;
    }
    let mut whole = Whole { rest: code.as_ptr(), len: code.len(), first: code.first().copied() };
    // SAFETY: `whole` outlives the call.
    unsafe { compile(state, read_whole, std::ptr::from_mut(&mut whole).cast(), name) }
}

/// Runs the compiler on the output of a reader.
///
/// # Safety
/// As [`text`]; `data` is what the reader takes.
unsafe fn compile(state: *mut lua_State, reader: ffi::lua_Reader, data: *mut c_void, name: &CStr) -> c_int {
    // SAFETY: as the caller promises. Errors of the compiler come back as a status.
    unsafe {
        ffi::lua_pushstring(state, name.as_ptr());
        ffi::lua_gc(state, ffi::LUA_GCSTOP, 0);
        let status = ffi::lua_load(state, reader, data, name.as_ptr());
        ffi::lua_gc(state, ffi::LUA_GCRESTART, 0);
        ffi::lua_remove(state, -2);
        status
    }
}

/// A text being read by the compiler.
struct Whole {
    rest: *const u8,
    len: usize,
    first: Option<u8>,
}

unsafe extern "C-unwind" fn read_whole(_: *mut lua_State, data: *mut c_void, len: *mut usize) -> *const c_char {
    // SAFETY: `text` gives both pointers.
    unsafe {
        let whole = &mut *data.cast::<Whole>();
        if whole.first.take() == Some(ffi::LUA_SIGNATURE[0]) {
            *len = 1;
            return BLANK.as_ptr();
        }
        *len = std::mem::take(&mut whole.len);
        whole.rest.cast()
    }
}

/// Returns the result of compiling to Lua: the function, or nil and a message.
unsafe fn answer(state: *mut lua_State, status: c_int) -> c_int {
    // SAFETY: a value is on top.
    unsafe {
        if status == ffi::LUA_OK {
            return 1;
        }
        // The end of a script is not caught.
        let bridge = sandbox::bridge(state);
        if bridge.ended.get().is_some() {
            return busy::raise_end(state, bridge);
        }
        ffi::lua_pushnil(state);
        ffi::lua_insert(state, -2);
        2
    }
}

/// `loadstring(text [, name])`.
pub(super) unsafe extern "C-unwind" fn load_string(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua; the strings stay on the stack, and nothing with a destructor is left when an error is raised.
    unsafe {
        let mut len = 0;
        let code = ffi::luaL_checklstring(state, 1, &mut len);
        let name = CStr::from_ptr(ffi::luaL_optlstring(state, 2, code, std::ptr::null_mut()));
        let code = std::slice::from_raw_parts(code.cast(), len);
        let status = text(state, code, name);
        answer(state, status)
    }
}

/// The pieces that a script's function has returned so far.
#[derive(Default)]
struct Pieces {
    /// Bytes of all pieces.
    len: usize,
    count: u32,
    /// A piece still to be passed on, after a blank.
    held: Option<(*const c_char, usize)>,
}

/// Indices on the stack of `load`: the function, and the piece that the compiler reads.
const FUNCTION: c_int = 1;
const PIECE: c_int = 3;

/// `load(function [, name])`: compiles the pieces that the function returns.
pub(super) unsafe extern "C-unwind" fn load(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua. `pieces` has no destructor, so that an error may leave this frame.
    unsafe {
        ffi::luaL_checktype(state, FUNCTION, ffi::LUA_TFUNCTION);
        let name = CStr::from_ptr(ffi::luaL_optlstring(state, 2, c"=(load)".as_ptr(), std::ptr::null_mut()));
        ffi::lua_settop(state, PIECE);
        let mut pieces = Pieces::default();
        let status = compile(state, read_piece, std::ptr::from_mut(&mut pieces).cast(), name);
        answer(state, status)
    }
}

unsafe extern "C-unwind" fn read_piece(state: *mut lua_State, data: *mut c_void, len: *mut usize) -> *const c_char {
    // SAFETY: the compiler calls it within `load`, whose stack begins as above. Nothing with a destructor is here.
    unsafe {
        let pieces = &mut *data.cast::<Pieces>();
        if let Some((piece, size)) = pieces.held.take() {
            *len = size;
            return piece;
        }
        pieces.count += 1;
        if pieces.count.is_multiple_of(LOOK_PIECES) {
            let bridge = sandbox::bridge(state);
            if !busy::goes_on(bridge) {
                busy::raise_end(state, bridge);
            }
        }
        ffi::luaL_checkstack_(state, 2, c"too many nested functions".as_ptr());
        ffi::lua_gc(state, ffi::LUA_GCRESTART, 0);
        ffi::lua_pushvalue(state, FUNCTION);
        ffi::lua_call(state, 0, 1);
        ffi::lua_gc(state, ffi::LUA_GCSTOP, 0);
        *len = 0;
        if ffi::lua_type(state, -1) == ffi::LUA_TNIL {
            ffi::lua_pop(state, 1);
            return std::ptr::null();
        }
        if ffi::lua_isstring(state, -1) == 0 {
            ffi::luaL_error(state, c"reader function must return a string".as_ptr());
        }
        ffi::lua_replace(state, PIECE);
        let piece = ffi::lua_tolstring(state, PIECE, len);
        let starts = pieces.len == 0;
        pieces.len = pieces.len.saturating_add(*len);
        if pieces.len > SOURCE_MAX {
            ffi::luaL_error(state, TOO_LONG.as_ptr());
        }
        if starts && *len > 0 && *piece == ffi::LUA_SIGNATURE[0] as c_char {
            pieces.held = Some((piece, *len));
            *len = 1;
            return BLANK.as_ptr();
        }
        piece
    }
}
