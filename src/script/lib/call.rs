//! Functions of the script libraries, as Lua calls them: arguments, results and errors on Lua's own stack, so that limits,
//! positions in error texts and what a script can catch are those of a library compiled into Lua.
//!
//! Invariant: Lua raises errors (out of memory, a table that cannot grow) by leaving the frames above it without running
//! destructors. So nothing with a destructor lives in a library function across a call that may allocate: buffers live in
//! the library's [`Work`], which the collector owns, and a [`Fault`] is plain bytes. All `unsafe` code of the libraries is here; what
//! the functions do with their arguments is in the files beside this one.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_void};
use std::fmt::{self, Write as _};
use std::marker::PhantomData;

use super::buffer::{Buffer, Full};
use mlua::ffi;

/// The result of a library function: how many values on the top of the stack are its results.
pub(crate) type Answer = Result<usize, Fault>;

/// A library function.
pub(crate) type Native = fn(Call<'_>) -> Answer;

/// The most slots of the stack that one function may use.
const STACK_MAX: usize = 8000;

const MESSAGE_MAX: usize = 104;

/// An error on its way to the script.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    kind: Kind,
    len: u8,
    /// One byte more than the longest message, for the NUL after it.
    text: [u8; MESSAGE_MAX + 1],
}

#[derive(Clone, Copy)]
enum Kind {
    /// Lua's own error for want of memory, which has no position.
    Memory,
    /// Prefixed with the position of the call.
    Error,
    /// "bad argument #n to 'function' (...)".
    Argument(c_int),
    /// As `Argument`, for an argument that is not of the type the text names.
    Type(c_int),
}

impl Fault {
    fn new(kind: Kind, text: fmt::Arguments<'_>) -> Fault {
        let mut fault = Fault { kind, len: 0, text: [0; MESSAGE_MAX + 1] };
        // What does not fit is left out.
        let _ = fault.write_fmt(text);
        fault
    }

    /// An error with the position of the call before it.
    pub(crate) fn error(text: fmt::Arguments<'_>) -> Fault {
        Fault::new(Kind::Error, text)
    }

    /// An error that names an argument, counted from 1, and says what is wrong with it.
    pub(crate) fn argument(index: usize, text: fmt::Arguments<'_>) -> Fault {
        Fault::new(Kind::Argument(index as c_int), text)
    }

    /// The fault with one more byte, of any value, in its text.
    pub(crate) fn with_byte(mut self, byte: u8) -> Fault {
        if usize::from(self.len) < MESSAGE_MAX {
            self.text[usize::from(self.len)] = byte;
            self.len += 1;
        }
        self
    }

    /// The argument is not of the type of that name.
    pub(crate) fn not_of_type(index: usize, name: &str) -> Fault {
        Fault::new(Kind::Type(index as c_int), format_args!("{name}"))
    }
}

impl From<Full> for Fault {
    fn from(_: Full) -> Fault {
        Fault::new(Kind::Memory, format_args!("not enough memory"))
    }
}

impl fmt::Write for Fault {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = usize::from(self.len);
        let take = text.len().min(MESSAGE_MAX - start);
        self.text[start..start + take].copy_from_slice(&text.as_bytes()[..take]);
        self.len = (start + take) as u8;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Type {
    None,
    Nil,
    Boolean,
    LightUserData,
    Number,
    String,
    Table,
    /// Functions, userdata and threads, which no library takes.
    Other,
}

/// Where functions keep what needs a destructor: each library has one, which the collector owns. No function runs while
/// another does, as none calls code of a script.
#[derive(Default)]
pub(crate) struct Work {
    /// What was encoded or decoded so far.
    pub(crate) out: Buffer,
    /// The containers that are open, used by each library in its own way.
    pub(crate) open: Vec<Open>,
}

impl Work {
    fn clear(&mut self) {
        self.out.clear();
        // Lua's stack bounds it: it is never large.
        self.open.clear();
    }
}

/// A container that is being walked through or built.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    pub(crate) map: bool,
    /// Elements or pairs done.
    pub(crate) done: usize,
    /// Elements or pairs that there are, where that is known.
    pub(crate) len: usize,
}

/// A call from a script. Indexes count from 1 at the first argument, or from -1 at the top of the stack.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    state: *mut ffi::lua_State,
    /// The library's work; null while the library is opened.
    work: *mut Work,
    life: PhantomData<&'a ()>,
}

const UPVALUE_FUNCTION: c_int = ffi::lua_upvalueindex(1);
const UPVALUE_SETTINGS: c_int = ffi::lua_upvalueindex(2);
const UPVALUE_WORK: c_int = ffi::lua_upvalueindex(3);

impl<'a> Call<'a> {
    /// How many values there are: arguments, and what was pushed.
    pub(crate) fn top(self) -> usize {
        // SAFETY: the state is live while its function runs; so below.
        unsafe { ffi::lua_gettop(self.state) as usize }
    }

    pub(crate) fn set_top(self, top: usize) {
        assert!(top <= self.top() + 1, "only nil for an absent argument is added");
        // SAFETY: at most one slot is added, and a function starts with more.
        unsafe { ffi::lua_settop(self.state, top as c_int) }
    }

    pub(crate) fn pop(self, count: usize) {
        assert!(count <= self.top());
        // SAFETY: there are that many values.
        unsafe { ffi::lua_pop(self.state, count as c_int) }
    }

    /// Whether `slots` more values fit; they do afterwards.
    pub(crate) fn reserve(self, slots: usize) -> bool {
        // SAFETY: growing the stack is always allowed.
        slots <= STACK_MAX && unsafe { ffi::lua_checkstack(self.state, slots as c_int) != 0 }
    }

    /// As [`reserve`](Call::reserve), with the error that Lua's own check raises.
    pub(crate) fn need(self, slots: usize, what: &str) -> Result<(), Fault> {
        match self.reserve(slots) {
            true => Ok(()),
            false => Err(Fault::error(format_args!("stack overflow ({what})"))),
        }
    }

    pub(crate) fn type_of(self, index: isize) -> Type {
        // SAFETY: the type of any acceptable index may be asked for, that of an absent one too.
        match unsafe { ffi::lua_type(self.state, index as c_int) } {
            ffi::LUA_TNONE => Type::None,
            ffi::LUA_TNIL => Type::Nil,
            ffi::LUA_TBOOLEAN => Type::Boolean,
            ffi::LUA_TLIGHTUSERDATA => Type::LightUserData,
            ffi::LUA_TNUMBER => Type::Number,
            ffi::LUA_TSTRING => Type::String,
            ffi::LUA_TTABLE => Type::Table,
            _ => Type::Other,
        }
    }

    /// Lua's name of the type.
    pub(crate) fn type_name(self, index: isize) -> &'static str {
        // SAFETY: Lua's names of types are static C strings in ASCII.
        unsafe {
            let kind = ffi::lua_type(self.state, index as c_int);
            CStr::from_ptr(ffi::lua_typename(self.state, kind)).to_str().unwrap_or("?")
        }
    }

    pub(crate) fn boolean(self, index: isize) -> bool {
        // SAFETY: any acceptable index may be asked for.
        unsafe { ffi::lua_toboolean(self.state, index as c_int) != 0 }
    }

    /// Whether this is the light userdata that stands for null.
    pub(crate) fn is_null(self, index: isize) -> bool {
        // SAFETY: any acceptable index may be asked for.
        self.type_of(index) == Type::LightUserData
            && unsafe { ffi::lua_touserdata(self.state, index as c_int).is_null() }
    }

    /// A number, or a string that reads as one; 0 for anything else.
    pub(crate) fn to_number(self, index: isize) -> f64 {
        // SAFETY: any acceptable index may be asked for.
        unsafe { ffi::lua_tonumber(self.state, index as c_int) }
    }

    /// Whether this is a number or a string that reads as one.
    pub(crate) fn is_number(self, index: isize) -> bool {
        // SAFETY: any acceptable index may be asked for.
        unsafe { ffi::lua_isnumber(self.state, index as c_int) != 0 }
    }

    /// The bytes of a string, which must be one and stay on the stack. There is a NUL after them.
    pub(crate) fn bytes(self, index: isize) -> &'a [u8] {
        assert_eq!(self.type_of(index), Type::String);
        let mut len = 0;
        // SAFETY: it is a string, so nothing is converted; the collector does not move strings, and it stays reachable.
        unsafe {
            let data = ffi::lua_tolstring(self.state, index as c_int, &mut len);
            std::slice::from_raw_parts(data.cast(), len)
        }
    }

    /// An argument that must be a number or read as one.
    pub(crate) fn number_arg(self, index: usize) -> Result<f64, Fault> {
        // Nearly all are numbers, and few of them are 0.
        let number = self.to_number(index as isize);
        match number != 0.0 || self.is_number(index as isize) {
            true => Ok(number),
            false => Err(Fault::not_of_type(index, "number")),
        }
    }

    /// As [`number_arg`](Call::number_arg), without its fraction.
    pub(crate) fn integer_arg(self, index: usize) -> Result<i64, Fault> {
        Ok(truncate(self.number_arg(index)?))
    }

    /// As [`integer_arg`](Call::integer_arg), of an argument that may be missing or nil.
    pub(crate) fn integer_arg_or(self, index: usize, default: i64) -> Result<i64, Fault> {
        match self.type_of(index as isize) {
            Type::None | Type::Nil => Ok(default),
            _ => self.integer_arg(index),
        }
    }

    /// An argument that must be a string; a number becomes one, in its place.
    pub(crate) fn string_arg(self, index: usize) -> Result<&'a [u8], Fault> {
        let mut len = 0;
        // SAFETY: an argument, which may be converted in its place, and nothing else than a number is; the collector does
        // not move strings, and it stays reachable.
        unsafe {
            let data = ffi::lua_tolstring(self.state, index as c_int, &mut len);
            match data.is_null() {
                true => Err(Fault::not_of_type(index, "string")),
                false => Ok(std::slice::from_raw_parts(data.cast(), len)),
            }
        }
    }

    pub(crate) fn push_nil(self) {
        // SAFETY: the caller has reserved a slot; so in all that push.
        unsafe { ffi::lua_pushnil(self.state) }
    }

    pub(crate) fn push_boolean(self, value: bool) {
        // SAFETY: see `push_nil`.
        unsafe { ffi::lua_pushboolean(self.state, value as c_int) }
    }

    pub(crate) fn push_number(self, value: f64) {
        // SAFETY: see `push_nil`.
        unsafe { ffi::lua_pushnumber(self.state, value) }
    }

    pub(crate) fn push_bytes(self, value: &[u8]) {
        // SAFETY: see `push_nil`; Lua copies the bytes.
        unsafe { ffi::lua_pushlstring_(self.state, value.as_ptr().cast(), value.len()) }
    }

    /// Pushes the light userdata that stands for null.
    pub(crate) fn push_null(self) {
        // SAFETY: see `push_nil`.
        unsafe { ffi::lua_pushlightuserdata(self.state, std::ptr::null_mut()) }
    }

    pub(crate) fn push_table(self) {
        // SAFETY: see `push_nil`.
        unsafe { ffi::lua_createtable(self.state, 0, 0) }
    }

    pub(crate) fn push_copy(self, index: isize) {
        assert_ne!(self.type_of(index), Type::None);
        // SAFETY: there is such a value; see `push_nil`.
        unsafe { ffi::lua_pushvalue(self.state, index as c_int) }
    }

    /// Moves the value on top to `index`, and what was there one up.
    pub(crate) fn insert(self, index: usize) {
        assert!((1..=self.top()).contains(&index));
        // SAFETY: there is such a place.
        unsafe { ffi::lua_insert(self.state, index as c_int) }
    }

    /// Pops a key and pushes the next key and value of the table under it; nothing at the end. The key must be nil or
    /// one of the table's.
    pub(crate) fn next(self) -> bool {
        assert_eq!(self.type_of(-2), Type::Table);
        // SAFETY: a table is there; a foreign key is an error of Lua's, no undefined behaviour.
        unsafe { ffi::lua_next(self.state, -2) != 0 }
    }

    /// Pushes an element of the table on top.
    pub(crate) fn element(self, index: i32) {
        assert_eq!(self.type_of(-1), Type::Table);
        // SAFETY: a table is there; see `push_nil`.
        unsafe { ffi::lua_rawgeti_(self.state, -1, index) }
    }

    /// The border of the table on top.
    pub(crate) fn length(self) -> usize {
        assert_eq!(self.type_of(-1), Type::Table);
        // SAFETY: a table is there.
        unsafe { ffi::lua_objlen(self.state, -1) }
    }

    /// Pops a value and makes it an element of the table under it.
    pub(crate) fn set_element(self, index: i32) {
        assert_eq!(self.type_of(-2), Type::Table);
        // SAFETY: a table is there.
        unsafe { ffi::lua_rawseti_(self.state, -2, index) }
    }

    /// Pops a value and the key under it and puts them into the table under both. Lua raises an error for a key that is
    /// nil or not a number.
    pub(crate) fn set_pair(self) {
        assert_eq!(self.type_of(-3), Type::Table);
        // SAFETY: a table is there.
        unsafe { ffi::lua_rawset(self.state, -3) }
    }

    /// Sets a field of the table on top to a string.
    pub(crate) fn set_text(self, name: &CStr, value: &[u8]) {
        self.push_bytes(value);
        self.set_field(name);
    }

    /// Pops a value and makes it a field of the table under it.
    pub(crate) fn set_field(self, name: &CStr) {
        assert_eq!(self.type_of(-2), Type::Table);
        // SAFETY: a table is there.
        unsafe { ffi::lua_setfield(self.state, -2, name.as_ptr()) }
    }

    /// The place for what needs a destructor, emptied. A function may call this once.
    #[allow(clippy::mut_from_ref)]
    pub(crate) fn work(self) -> &'a mut Work {
        // SAFETY: `enter` put the function's `Work` there, which the function keeps alive. Nobody else uses it: no other function
        // of a library runs meanwhile, and this one asks once.
        let work = unsafe { self.work.as_mut().expect("a function of a library") };
        work.clear();
        work
    }

    /// The settings that the functions of a module share.
    pub(crate) fn settings<T: Settings>(self) -> &'a Cell<T> {
        // SAFETY: `open` put a `Cell<T>` there for the functions of this library, and the function keeps it alive. `T` is
        // plain data.
        unsafe {
            let settings = ffi::lua_touserdata(self.state, UPVALUE_SETTINGS).cast::<Cell<T>>();
            assert!(!settings.is_null(), "a function of a library with settings");
            &*settings
        }
    }
}

/// Plain settings, of which a module has one copy.
pub(crate) trait Settings: Copy + 'static {}

/// A double converted to a 64-bit integer as C does on x86-64: the lowest one if it does not fit.
pub(crate) fn truncate(value: f64) -> i64 {
    if value >= -(2f64.powi(63)) && value < 2f64.powi(63) { value as i64 } else { i64::MIN }
}

/// As [`truncate`], to 32 bits.
pub(crate) fn truncate_to_i32(value: f64) -> i32 {
    let whole = value.trunc();
    if whole >= i32::MIN as f64 && whole <= i32::MAX as f64 { whole as i32 } else { i32::MIN }
}

/// As [`truncate`], to an unsigned integer.
pub(crate) fn truncate_to_u64(value: f64) -> u64 {
    if value < 0.0 {
        truncate(value) as u64
    } else if value < 2f64.powi(64) {
        value as u64
    } else if value.is_nan() {
        1 << 63
    } else {
        0
    }
}

/// The number at the start of `text`, which is followed by a NUL, as C's `strtod` reads it (also hexadecimal, infinite
/// or NaN), and its length: 0 if there is none.
pub(crate) fn leading_number(text: &[u8]) -> (f64, usize) {
    let mut end = std::ptr::null_mut();
    // SAFETY: the callers pass the end of a Lua string, after which there is a NUL; `strtod` reads no further.
    unsafe {
        let value = libc::strtod(text.as_ptr().cast(), &mut end);
        (value, end as usize - text.as_ptr() as usize)
    }
}

/// Pushes a table with the functions of a library. With settings, they share a copy of them.
pub(crate) fn push_module<T: Settings>(call: Call<'_>, functions: &[(&CStr, Native)], settings: Option<T>) {
    let state = call.state;
    // SAFETY: seven slots are used at most, which `reserve` and every fresh function have. `Cell<T>` is plain data without
    // a destructor; it and `Work` are aligned as Lua aligns userdata. The work is initialised before the metatable with
    // its destructor is set.
    unsafe {
        const { assert!(align_of::<Cell<T>>() <= align_of::<f64>() && align_of::<Work>() <= align_of::<f64>()) };
        const { assert!(!std::mem::needs_drop::<T>()) };
        ffi::lua_createtable(state, 0, functions.len() as c_int);
        match settings {
            None => ffi::lua_pushnil(state),
            Some(settings) => {
                ffi::lua_newuserdata(state, size_of::<Cell<T>>()).cast::<Cell<T>>().write(Cell::new(settings));
            }
        }
        ffi::lua_newuserdata(state, size_of::<Work>()).cast::<Work>().write(Work::default());
        ffi::lua_createtable(state, 0, 1);
        ffi::lua_pushcclosure(state, drop_work, 0);
        ffi::lua_setfield(state, -2, c"__gc".as_ptr());
        ffi::lua_setmetatable(state, -2);
        for &(name, function) in functions {
            ffi::lua_pushlightuserdata(state, function as *mut c_void);
            ffi::lua_pushvalue(state, -3);
            ffi::lua_pushvalue(state, -3);
            ffi::lua_pushcclosure(state, enter, 3);
            ffi::lua_setfield(state, -4, name.as_ptr());
        }
        ffi::lua_pop(state, 2);
    }
}

/// Makes a module with `push`, which leaves a table on the stack.
pub(crate) fn open(lua: &mlua::Lua, push: fn(Call<'_>)) -> mlua::Result<mlua::Table> {
    // SAFETY: runs protected; `push` leaves one value and has no destructors to run.
    unsafe {
        lua.exec_raw((), |state| {
            ffi::luaL_checkstack_(state, 12, c"a library".as_ptr());
            push(Call { state, work: std::ptr::null_mut(), life: PhantomData });
        })
    }
}

/// Called by Lua: runs the function of the first upvalue and raises its error.
unsafe extern "C-unwind" fn enter(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: `push_module` made the closure with a `Native` as its first upvalue. When an error is raised, nothing with a
    // destructor is left in this frame, and none in frames below: those of Lua.
    unsafe {
        let function = ffi::lua_touserdata(state, UPVALUE_FUNCTION);
        let function = std::mem::transmute::<*mut c_void, Native>(function);
        let work = ffi::lua_touserdata(state, UPVALUE_WORK).cast::<Work>();
        let answer = function(Call { state, work, life: PhantomData });
        (*work).clear();
        let fault = match answer {
            Ok(count) => return count as c_int,
            Err(fault) => fault,
        };
        let text = fault.text.as_ptr().cast();
        // Makes room for the error's values, in case the stack is full.
        let keep = if let Kind::Type(index) = fault.kind { index.max(0) } else { 0 };
        ffi::lua_settop(state, keep.min(ffi::lua_gettop(state)));
        match fault.kind {
            Kind::Argument(index) => ffi::luaL_argerror(state, index, text),
            Kind::Type(index) => ffi::luaL_typerror(state, index, text),
            Kind::Memory => {
                ffi::lua_pushlstring_(state, text, fault.len.into());
                ffi::lua_error(state)
            }
            Kind::Error => {
                ffi::luaL_where(state, 1);
                ffi::lua_pushlstring_(state, text, fault.len.into());
                ffi::lua_concat(state, 2);
                ffi::lua_error(state)
            }
        }
    }
}

/// The collector's way to drop a [`Work`].
unsafe extern "C-unwind" fn drop_work(state: *mut ffi::lua_State) -> c_int {
    // SAFETY: only a `Work` has this metatable, which no script can reach, so it runs once for each.
    unsafe { ffi::lua_touserdata(state, 1).cast::<Work>().drop_in_place() };
    0
}
