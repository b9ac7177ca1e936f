//! An interpreter: one Lua state with its sandbox, the chunks compiled in it, and the bridge by which functions that Lua
//! calls find the server.
//!
//! Invariant: outside of [`Bridge::enter`] no function called by Lua reaches the server: the bridge's pointer is null.
//! What scripts can reach in the state is `sandbox`'s and `api`'s; running them is `run`'s.
//!
//! Lua raises errors by leaving the frames above a protected call without running destructors. So functions that Lua calls
//! keep nothing with a destructor across a call that may raise: what they need lies in the bridge, or in frames below the
//! protected call.
#![allow(unsafe_code)]

use super::library::Loading;
use super::{api, sandbox};
use crate::resp::{Args, OwnedArgs, Reply};
use crate::server::Server;
use mlua::ffi::{self, lua_State};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::{CStr, c_int};
use std::rc::Rc;

/// Which scripts an interpreter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Eval,
    Function,
}

/// What functions called by Lua work with.
pub struct Bridge {
    /// The server, while a script runs.
    server: Cell<*mut Server>,
    /// The library being loaded, if one is.
    pub(super) loading: Cell<*mut Loading>,
    /// A command of the script runs.
    pub(super) in_call: Cell<bool>,
    /// State of `math.random`.
    pub(super) random: Cell<u64>,
    /// Arguments of the command that runs the script, while it runs.
    pub(super) command: Cell<*const Args<'static>>,
    scratch: UnsafeCell<Scratch>,
    unref: Rc<RefCell<Vec<c_int>>>,
}

/// Buffers of `redis.call`, kept from call to call.
#[derive(Default)]
pub(super) struct Scratch {
    pub args: OwnedArgs,
    pub reply: Reply,
}

/// Scratch memory beyond this is given back after a call, bytes.
const KEPT_SCRATCH: usize = 64 * 1024;

impl Bridge {
    /// Lets Lua reach the server until the guard is dropped.
    ///
    /// # Safety
    /// `server` is valid for as long, and nobody else uses it except through the bridge while Lua runs.
    pub(super) unsafe fn enter(&self, server: *mut Server) -> Entered<'_> {
        self.server.set(server);
        self.in_call.set(false);
        Entered(self)
    }

    /// The server, `None` outside of a script.
    ///
    /// # Safety
    /// The reference is not kept beyond the next return to Lua, and there is no other one.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn server(&self) -> Option<&mut Server> {
        // SAFETY: `enter` was told so.
        unsafe { self.server.get().as_mut() }
    }

    /// # Safety
    /// The reference ends before the next call of this function; `in_call` sees to that.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn scratch(&self) -> &mut Scratch {
        // SAFETY: the caller has the only reference.
        unsafe { &mut *self.scratch.get() }
    }

    /// Takes over a function that was put into the registry.
    pub(super) fn function(&self, id: c_int) -> FunctionRef {
        FunctionRef { id, unref: self.unref.clone() }
    }

    /// Gives back memory that an unusually large command or reply took.
    pub(super) fn tidy(&self) {
        // SAFETY: called between commands.
        let scratch = unsafe { self.scratch() };
        if scratch.args.mem_bytes() > KEPT_SCRATCH {
            scratch.args = OwnedArgs::default();
        }
        if scratch.reply.buf.capacity() > KEPT_SCRATCH {
            scratch.reply.buf = Vec::new();
        }
    }
}

/// A script runs; see [`Bridge::enter`].
pub(super) struct Entered<'a>(&'a Bridge);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.0.server.set(std::ptr::null_mut());
    }
}

/// A function in the registry of a state; released with the last of its owners.
#[derive(Debug)]
pub struct FunctionRef {
    pub(super) id: c_int,
    unref: Rc<RefCell<Vec<c_int>>>,
}

impl Drop for FunctionRef {
    fn drop(&mut self) {
        self.unref.borrow_mut().push(self.id);
    }
}

pub struct Engine {
    state: *mut lua_State,
    bridge: Box<Bridge>,
    /// Registry numbers of the table of globals, and of the error handler.
    globals: c_int,
    pub(super) handler: c_int,
    /// Runs since the collector was last given a push.
    runs: u32,
}

/// Every so many runs the collector is given that much of a push, so that it need not do all of a cycle at once.
const GC_PERIOD: u32 = 50;

impl Engine {
    pub fn new(kind: Kind) -> Engine {
        let bridge = Box::new(Bridge {
            server: Cell::new(std::ptr::null_mut()),
            loading: Cell::new(std::ptr::null_mut()),
            in_call: Cell::new(false),
            random: Cell::new(api::RANDOM_START),
            command: Cell::new(std::ptr::null()),
            scratch: UnsafeCell::default(),
            unref: Rc::default(),
        });
        // SAFETY: a fresh state, closed when the engine is dropped; the bridge outlives it. Nothing that is done to it here
        // raises an error but for want of memory, which ends the process.
        unsafe {
            let state = ffi::luaL_newstate();
            assert!(!state.is_null(), "no memory for an interpreter");
            let (globals, handler) = sandbox::build(state, &*bridge, kind);
            Engine { state, bridge, globals, handler, runs: 0 }
        }
    }

    pub(super) fn state(&self) -> *mut lua_State {
        self.state
    }

    pub(super) fn bridge(&self) -> *const Bridge {
        &*self.bridge
    }

    /// Compiles a chunk; `Err` is what the compiler says.
    pub fn load(&mut self, code: &[u8], name: &CStr) -> Result<FunctionRef, Vec<u8>> {
        self.release();
        let state = self.state;
        // SAFETY: the stack is as it was before in the end; loading catches its errors.
        unsafe {
            // A script may have given its thread other globals.
            ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, self.globals.into());
            ffi::lua_replace(state, ffi::LUA_GLOBALSINDEX);
            if load_text(state, code, name) != ffi::LUA_OK {
                let message = string_at(state, -1).unwrap_or_default().to_vec();
                ffi::lua_pop(state, 1);
                return Err(message);
            }
            let id = ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
            Ok(self.bridge.function(id))
        }
    }

    /// Drops functions that nobody owns any more.
    fn release(&mut self) {
        for id in self.bridge.unref.borrow_mut().drain(..) {
            // SAFETY: the number came from `luaL_ref` on this state, and had one owner.
            unsafe { ffi::luaL_unref(self.state, ffi::LUA_REGISTRYINDEX, id) }
        }
    }

    /// Memory of the interpreter, bytes.
    pub fn memory(&self) -> usize {
        // SAFETY: asks for a figure.
        unsafe { ffi::lua_gc(self.state, ffi::LUA_GCCOUNT, 0) as usize * 1024 }
    }

    /// To be called after every run. True: the collector is to be given a push.
    pub(super) fn collector_is_due(&mut self) -> bool {
        self.runs = (self.runs + 1) % GC_PERIOD;
        self.runs == 0
    }

    /// Gives the collector a push.
    ///
    /// # Safety
    /// Within a protected call: finalizers that scripts made may raise errors.
    pub(super) unsafe fn push_collector(state: *mut lua_State) {
        // SAFETY: passed on.
        unsafe {
            ffi::lua_gc(state, ffi::LUA_GCSTEP, GC_PERIOD as c_int);
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // SAFETY: the state is ours, and the bridge that its finalizers may ask for is dropped after this.
        unsafe { ffi::lua_close(self.state) }
    }
}

/// Compiles program text, never the compiled form, which could do anything. Leaves the function or a message.
///
/// # Safety
/// The state is live and has room for a value.
pub(super) unsafe fn load_text(state: *mut lua_State, code: &[u8], name: &CStr) -> c_int {
    let text: Vec<u8>;
    let mut code = code;
    if code.first() == Some(&ffi::LUA_SIGNATURE[0]) {
        // With a blank before it the parser takes it for text, and says what is wrong with it.
        text = [b" ", code].concat();
        code = &text;
    }
    // SAFETY: errors come back as a status; the buffer lives long enough.
    unsafe { ffi::luaL_loadbuffer(state, code.as_ptr().cast(), code.len(), name.as_ptr()) }
}

/// The bytes of a string at an index; `None` for what is no string.
///
/// # Safety
/// The index is acceptable, and the string stays on the stack for as long as the bytes are used.
pub(super) unsafe fn string_at<'a>(state: *mut lua_State, index: c_int) -> Option<&'a [u8]> {
    // SAFETY: strings do not move; numbers are left alone.
    unsafe {
        if ffi::lua_type(state, index) != ffi::LUA_TSTRING {
            return None;
        }
        let mut len = 0;
        let data = ffi::lua_tolstring(state, index, &mut len);
        Some(std::slice::from_raw_parts(data.cast(), len))
    }
}

/// Pushes a string.
///
/// # Safety
/// The state is live and has room for it; it may raise an error for want of memory.
pub(super) unsafe fn push_bytes(state: *mut lua_State, bytes: &[u8]) {
    // SAFETY: Lua copies the bytes.
    unsafe { ffi::lua_pushlstring_(state, bytes.as_ptr().cast(), bytes.len()) }
}

/// Pushes the table that stands for an error: `{err = "CODE text"}`. `text` begins with `-` and a code, or has none.
///
/// # Safety
/// As [`push_bytes`], for five values.
pub(super) unsafe fn push_error(state: *mut lua_State, text: &[u8]) {
    let (code, rest) = match text.strip_prefix(b"-") {
        None => (&b"ERR"[..], text),
        Some(text) => match memchr::memchr(b' ', text) {
            Some(blank) => (&text[..blank], &text[blank + 1..]),
            None => (&b"ERR"[..], text),
        },
    };
    let is_break = |b: &u8| matches!(b, b'\r' | b'\n');
    let start = rest.iter().position(|b| !is_break(b)).unwrap_or(rest.len());
    let end = rest.iter().rposition(|b| !is_break(b)).map_or(start, |i| i + 1);
    // SAFETY: as the caller promises.
    unsafe {
        ffi::lua_createtable(state, 0, 4);
        push_bytes(state, b"err");
        push_bytes(state, code);
        push_bytes(state, b" ");
        push_bytes(state, &rest[start..end]);
        ffi::lua_concat(state, 3);
        ffi::lua_rawset(state, -3);
    }
}
