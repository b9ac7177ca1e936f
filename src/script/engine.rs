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

use super::host::Host;
use super::library::Loading;
use super::{api, busy, load, memory, run, sandbox};
use crate::resp::{Args, OwnedArgs, Reply};
use mlua::ffi::{self, lua_State};
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::{CStr, c_int};
use std::ptr::NonNull;
use std::rc::Rc;

/// Which scripts an interpreter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Eval,
    Function,
}

/// The state that functions called by Lua share.
pub(crate) struct Bridge {
    /// The server, while a script runs.
    server: Cell<Option<NonNull<dyn Host>>>,
    /// The library being loaded, if one is.
    pub(super) loading: Cell<*mut Loading>,
    /// A command of the script runs.
    pub(super) in_call: Cell<bool>,
    /// The error with which the script, or the program of the library, is to end: once set, none of its code goes on.
    pub(super) ended: Cell<Option<&'static [u8]>>,
    /// Bytes of large blocks requested since the clock was last checked because of them.
    pub(super) large_bytes: Cell<usize>,
    /// Number of coroutines made.
    pub(super) coroutines: Cell<u32>,
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
    pub(crate) args: OwnedArgs,
    pub(crate) reply: Reply,
}

/// Scratch memory beyond this is given back after a call, bytes.
const KEPT_SCRATCH: usize = 64 * 1024;

impl Bridge {
    /// Lets Lua reach the server until the guard is dropped.
    ///
    /// # Safety
    /// `server` is valid for as long, and nobody else uses it except through the bridge while Lua runs.
    pub(super) unsafe fn enter(&self, server: NonNull<dyn Host>) -> Entered<'_> {
        self.server.set(Some(server));
        self.in_call.set(false);
        self.ended.set(None);
        Entered(self)
    }

    /// The server, `None` outside of a script.
    ///
    /// # Safety
    /// The reference is not kept beyond the next return to Lua, and there is no other one.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn server(&self) -> Option<&mut (dyn Host + 'static)> {
        // SAFETY: the caller of `enter` promised it.
        unsafe { self.server.get().map(|mut server| server.as_mut()) }
    }

    /// # Safety
    /// The reference ends before the next call of this function; `in_call` sees to that.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn scratch(&self) -> &mut Scratch {
        // SAFETY: the caller has the only reference.
        unsafe { &mut *self.scratch.get() }
    }

    /// Takes ownership of a function in the registry.
    pub(super) fn function(&self, id: c_int) -> FunctionRef {
        FunctionRef { id, unref: self.unref.clone() }
    }

    /// Frees memory that an unusually large command or reply took.
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
        self.0.server.set(None);
    }
}

/// A function in the registry of a state; released with the last of its owners.
#[derive(Debug)]
pub(crate) struct FunctionRef {
    pub(super) id: c_int,
    unref: Rc<RefCell<Vec<c_int>>>,
}

impl Drop for FunctionRef {
    fn drop(&mut self) {
        self.unref.borrow_mut().push(self.id);
    }
}

/// Registry numbers of what every run needs.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    /// The table of globals that scripts see.
    pub(crate) globals: c_int,
    pub(crate) handler: c_int,
    /// The protected part of a run: outside of it nothing may allocate in Lua.
    pub(crate) entry: c_int,
}

pub(crate) struct Engine {
    state: *mut lua_State,
    bridge: Box<Bridge>,
    pub(super) numbers: Numbers,
    /// Runs since the last step of the collector.
    runs: u32,
}

/// Every so many runs the collector takes a step of this size, so that it need not do a whole cycle at once.
const GC_PERIOD: u32 = 50;

impl Engine {
    pub(crate) fn new(kind: Kind) -> Engine {
        let bridge = Box::new(Bridge {
            server: Cell::new(None),
            loading: Cell::new(std::ptr::null_mut()),
            in_call: Cell::new(false),
            ended: Cell::new(None),
            large_bytes: Cell::new(0),
            coroutines: Cell::new(0),
            random: Cell::new(api::RANDOM_START),
            command: Cell::new(std::ptr::null()),
            scratch: UnsafeCell::default(),
            unref: Rc::default(),
        });
        // SAFETY: a fresh state, closed when the engine is dropped; the bridge outlives it. Nothing that is done to it here
        // raises an error but for want of memory, which ends the process.
        unsafe {
            let state = ffi::lua_newstate(memory::allocate, std::ptr::from_ref(&*bridge).cast_mut().cast());
            assert!(!state.is_null(), "no memory for an interpreter");
            ffi::lua_atpanic(state, on_panic);
            let (globals, handler) = sandbox::build(state, &*bridge, kind);
            ffi::lua_pushcfunction(state, run::entry);
            let entry = ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
            let engine = Engine { state, bridge, numbers: Numbers { globals, handler, entry }, runs: 0 };
            engine.set_hook();
            engine
        }
    }

    pub(super) fn state(&self) -> *mut lua_State {
        self.state
    }

    pub(super) fn bridge(&self) -> *const Bridge {
        &*self.bridge
    }

    /// From now on the clock is checked every so many instructions, in new coroutines as well.
    pub(super) fn set_hook(&self) {
        // SAFETY: the hook's own; the state is live.
        unsafe {
            ffi::lua_sethook(self.state, Some(busy::on_instructions), ffi::LUA_MASKCOUNT, busy::INSTRUCTIONS);
        }
    }

    /// Compiles a chunk; `Err` is the compiler's message.
    pub(crate) fn load(&mut self, code: &[u8], name: &CStr) -> Result<FunctionRef, Vec<u8>> {
        self.release();
        let state = self.state;
        let mut chunk = Chunk { code, name, globals: self.numbers.globals, id: None };
        // SAFETY: `chunk` outlives the call, which catches errors; the stack is as it was before in the end.
        unsafe {
            if ffi::lua_cpcall(state, compile, std::ptr::from_mut(&mut chunk).cast()) != ffi::LUA_OK {
                let message = string_at(state, -1).unwrap_or_default().to_vec();
                ffi::lua_pop(state, 1);
                return Err(message);
            }
        }
        let id = chunk.id.ok_or_else(|| memory::REFUSED.to_vec())?;
        Ok(self.bridge.function(id))
    }

    /// Drops functions that nobody owns any more.
    fn release(&mut self) {
        for id in self.bridge.unref.borrow_mut().drain(..) {
            // SAFETY: the number came from `luaL_ref` on this state, and had one owner.
            unsafe { ffi::luaL_unref(self.state, ffi::LUA_REGISTRYINDEX, id) }
        }
    }

    /// Memory of the interpreter, bytes.
    pub(crate) fn memory(&self) -> usize {
        // SAFETY: asks for a figure.
        unsafe { ffi::lua_gc(self.state, ffi::LUA_GCCOUNT, 0) as usize * 1024 }
    }

    /// To be called after every run. True: a step of the collector is due.
    pub(super) fn collector_is_due(&mut self) -> bool {
        self.runs = (self.runs + 1) % GC_PERIOD;
        self.runs == 0
    }

    /// Lets the collector take a step.
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

/// A chunk to compile.
struct Chunk<'a> {
    code: &'a [u8],
    name: &'a CStr,
    globals: c_int,
    id: Option<c_int>,
}

unsafe extern "C-unwind" fn compile(state: *mut lua_State) -> c_int {
    // SAFETY: `Engine::load` gives a chunk. Nothing with a destructor is here.
    unsafe {
        let chunk = &mut *ffi::lua_touserdata(state, 1).cast::<Chunk>();
        reset_globals(state, chunk.globals);
        if load::text(state, chunk.code, chunk.name) != ffi::LUA_OK {
            ffi::lua_error(state);
        }
        chunk.id = Some(ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX));
        0
    }
}

/// Gives a thread the globals that scripts see again: a script may have changed them.
///
/// # Safety
/// The state is live, with room for a value.
pub(super) unsafe fn reset_globals(state: *mut lua_State, globals: c_int) {
    // SAFETY: the number is that of the table.
    unsafe {
        ffi::lua_rawgeti(state, ffi::LUA_REGISTRYINDEX, globals.into());
        ffi::lua_replace(state, ffi::LUA_GLOBALSINDEX);
    }
}

/// Lua cannot go on after an error that nothing protects from.
unsafe extern "C-unwind" fn on_panic(state: *mut lua_State) -> c_int {
    // SAFETY: the error is on top.
    let text = unsafe { string_at(state, -1) }.unwrap_or_default();
    log::error!("The interpreter of scripts failed: {}", String::from_utf8_lossy(text));
    std::process::abort()
}

/// The bytes of the string at an index; `None` if the value is not a string.
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
