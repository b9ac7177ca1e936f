//! Values of Lua as replies, and replies as values of Lua, both by the rules that Redis documents for scripts.
#![allow(unsafe_code)]

use super::engine::{push_bytes, push_error, string_at};
use crate::resp::Reply;
use mlua::ffi::{self, lua_State};
use std::ffi::c_int;

/// Pushes a reply of the server, which is whole and well formed, as a value.
///
/// # Safety
/// The state is live, with room for eight values. It may raise an error for want of memory.
pub(super) unsafe fn push_reply(state: *mut lua_State, reply: &[u8]) {
    let mut reader = Reader { bytes: reply, at: 0 };
    // SAFETY: as the caller promises.
    unsafe { reader.push(state) }
}

/// Walks through a reply. Plain data, so that an error may leave it.
#[derive(Clone, Copy)]
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let len = memchr::memchr(b'\r', rest).unwrap_or(rest.len());
        self.at = (self.at + len + 2).min(self.bytes.len());
        &rest[..len]
    }

    fn body(&mut self, len: usize) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let len = len.min(rest.len());
        self.at = (self.at + len + 2).min(self.bytes.len());
        &rest[..len]
    }

    unsafe fn push(&mut self, state: *mut lua_State) {
        let line = self.line();
        let Some((kind, text)) = line.split_first() else {
            // SAFETY: see `push_reply`; so below.
            return unsafe { ffi::lua_pushnil(state) };
        };
        // SAFETY: see `push_reply`. Nested values reserve their own room.
        unsafe {
            match kind {
                b'$' if text != b"-1" => push_bytes(state, self.body(number(text) as usize)),
                b':' => ffi::lua_pushnumber(state, number(text) as f64),
                b'+' => push_field(state, b"ok", text),
                b'-' => {
                    push_error_reply(state, line);
                    mark_counted(state);
                }
                b'*' if text != b"-1" => self.push_array(state, number(text)),
                b'$' | b'*' => ffi::lua_pushboolean(state, 0),
                b'>' => self.push_array(state, number(text)),
                b'%' => self.push_named(state, b"map", number(text), true),
                b'~' => self.push_named(state, b"set", number(text), false),
                b'#' => ffi::lua_pushboolean(state, (text == b"t") as c_int),
                b',' => {
                    ffi::lua_createtable(state, 0, 1);
                    push_bytes(state, b"double");
                    ffi::lua_pushnumber(state, double(text));
                    ffi::lua_rawset(state, -3);
                }
                b'(' => push_field(state, b"big_number", text),
                b'=' => {
                    let body = self.body(number(text) as usize);
                    let (format, text) = body.split_at(body.len().min(4));
                    ffi::lua_createtable(state, 0, 1);
                    push_bytes(state, b"verbatim_string");
                    ffi::lua_createtable(state, 0, 2);
                    set_text(state, b"string", text);
                    set_text(state, b"format", &format[..format.len().min(3)]);
                    ffi::lua_rawset(state, -3);
                }
                b'|' => {
                    // Scripts do not see attributes.
                    for _ in 0..number(text) * 2 {
                        self.push(state);
                        ffi::lua_pop(state, 1);
                    }
                    self.push(state);
                }
                _ => ffi::lua_pushnil(state),
            }
        }
    }

    unsafe fn push_array(&mut self, state: *mut lua_State, len: i64) {
        // SAFETY: see `push_reply`.
        unsafe {
            ffi::lua_checkstack(state, 8);
            ffi::lua_createtable(state, len.clamp(0, 1 << 20) as c_int, 0);
            for index in 1..=len {
                self.push(state);
                ffi::lua_rawseti_(state, -2, index as c_int);
            }
        }
    }

    /// A map or a set: a table inside a table that names the type.
    unsafe fn push_named(&mut self, state: *mut lua_State, name: &[u8], len: i64, is_map: bool) {
        // SAFETY: see `push_reply`.
        unsafe {
            ffi::lua_checkstack(state, 8);
            ffi::lua_createtable(state, 0, 1);
            push_bytes(state, name);
            ffi::lua_createtable(state, 0, len.clamp(0, 1 << 20) as c_int);
            for _ in 0..len {
                self.push(state);
                if is_map {
                    self.push(state);
                } else {
                    ffi::lua_pushboolean(state, 1);
                }
                // Nil and NaN cannot be keys.
                let is_key = match ffi::lua_type(state, -2) {
                    ffi::LUA_TNIL => false,
                    ffi::LUA_TNUMBER => !ffi::lua_tonumber(state, -2).is_nan(),
                    _ => true,
                };
                if is_key {
                    ffi::lua_rawset(state, -3);
                } else {
                    ffi::lua_pop(state, 2);
                }
            }
            ffi::lua_rawset(state, -3);
        }
    }
}

fn number(text: &[u8]) -> i64 {
    crate::structs::numbers::parse_i64(text).unwrap_or(0)
}

fn double(text: &[u8]) -> f64 {
    std::str::from_utf8(text).ok().and_then(|t| t.parse().ok()).unwrap_or(0.0)
}

/// Pushes an error reply as a table. `line` begins with its `-`.
unsafe fn push_error_reply(state: *mut lua_State, line: &[u8]) {
    // SAFETY: see `push_reply`.
    unsafe { push_error(state, line) }
}

/// Marks the error on top as already counted by the statistics.
///
/// # Safety
/// As [`push_reply`]; a table is on top.
pub(super) unsafe fn mark_counted(state: *mut lua_State) {
    // SAFETY: as the caller promises.
    unsafe {
        push_bytes(state, b"ignore_error_stats_update");
        ffi::lua_pushboolean(state, 1);
        ffi::lua_rawset(state, -3);
    }
}

unsafe fn push_field(state: *mut lua_State, name: &[u8], text: &[u8]) {
    // SAFETY: see `push_reply`.
    unsafe {
        ffi::lua_createtable(state, 0, 1);
        set_text(state, name, text);
    }
}

unsafe fn set_text(state: *mut lua_State, name: &[u8], text: &[u8]) {
    // SAFETY: see `push_reply`; a table is on top.
    unsafe {
        push_bytes(state, name);
        push_bytes(state, text);
        ffi::lua_rawset(state, -3);
    }
}

/// An error as a script left it.
#[derive(Debug, Default)]
pub(super) struct ScriptError {
    /// Code and text; `None` if the error has none.
    pub(crate) text: Option<Vec<u8>>,
    pub(crate) source: Option<Vec<u8>>,
    pub(crate) line: Option<Vec<u8>>,
    /// The statistics have counted it.
    pub(crate) counted: bool,
}

/// Reads the error on top, which stays. Metamethods are not asked.
///
/// # Safety
/// The state is live, with room for two values.
pub(super) unsafe fn read_error(state: *mut lua_State, out: &mut ScriptError) {
    // SAFETY: as the caller promises; nothing here runs code of the script.
    unsafe {
        *out = ScriptError::default();
        if ffi::lua_isstring(state, -1) != 0 {
            out.text = Some([b"ERR ", &text_at(state)[..]].concat());
            return;
        }
        if ffi::lua_type(state, -1) != ffi::LUA_TTABLE {
            return;
        }
        for (name, field) in [("err", &mut out.text), ("source", &mut out.source), ("line", &mut out.line)] {
            push_bytes(state, name.as_bytes());
            ffi::lua_rawget(state, -2);
            if ffi::lua_isstring(state, -1) != 0 {
                *field = Some(text_at(state));
            }
            ffi::lua_pop(state, 1);
        }
        push_bytes(state, b"ignore_error_stats_update");
        ffi::lua_rawget(state, -2);
        out.counted = ffi::lua_toboolean(state, -1) != 0;
        ffi::lua_pop(state, 1);
    }
}

/// The string or number on top as text, up to a NUL, as in Redis.
unsafe fn text_at(state: *mut lua_State) -> Vec<u8> {
    // SAFETY: the value on top is one or the other; a copy of a number is converted.
    unsafe {
        ffi::lua_pushvalue(state, -1);
        ffi::lua_tolstring(state, -1, std::ptr::null_mut());
        let text = string_at(state, -1).unwrap_or_default();
        let len = memchr::memchr(0, text).unwrap_or(text.len());
        let text = text[..len].to_vec();
        ffi::lua_pop(state, 1);
        text
    }
}

/// How a value becomes a reply.
pub(super) struct Answer<'a> {
    pub(crate) out: &'a mut Reply,
    /// The script asked for RESP3: booleans are booleans.
    pub(crate) resp3: bool,
    /// How long `out` may become, bytes.
    pub(crate) limit: usize,
    /// The reply is not whole: it exceeded the limit, or there was no memory for it.
    pub(crate) full: bool,
    /// Codes of errors in the reply; `None` for those already counted by the statistics.
    pub(crate) errors: &'a mut Vec<Option<Vec<u8>>>,
}

/// The longest reply that a script can give, bytes. Its value may hold the same string many times.
pub(super) const ANSWER_MAX: usize = 1 << 30;

impl Answer<'_> {
    /// Whether a text of this length, with its framing, can be written.
    fn has_room(&mut self, len: usize) -> bool {
        /// More than the digits, marks and line breaks of any value.
        const AROUND: usize = 64;
        let buf = &mut self.out.buf;
        if len + AROUND > buf.capacity() - buf.len() {
            self.full |= buf.len() + len > self.limit || buf.try_reserve(len + AROUND).is_err();
        }
        !self.full
    }

    /// The text of the string on top; empty if it cannot be written.
    unsafe fn text<'t>(&mut self, state: *mut lua_State) -> &'t [u8] {
        // SAFETY: see `write`.
        let text = unsafe { string_at(state, -1) }.unwrap_or_default();
        if self.has_room(text.len()) { text } else { b"" }
    }

    /// Writes the value on top as a reply and takes it off the stack.
    ///
    /// # Safety
    /// Within a protected call; a value is on top.
    pub(super) unsafe fn write(&mut self, state: *mut lua_State) {
        // SAFETY: as the caller promises. Metamethods are not asked, so no code of the script runs.
        unsafe {
            if ffi::lua_checkstack(state, 4) == 0 {
                self.out.error(b"ERR reached lua stack limit");
                self.errors.push(Some(b"ERR".to_vec()));
                return ffi::lua_pop(state, 1);
            }
            if !self.has_room(0) {
                return ffi::lua_pop(state, 1);
            }
            match ffi::lua_type(state, -1) {
                ffi::LUA_TSTRING => {
                    let text = self.text(state);
                    self.out.bulk(text);
                }
                ffi::LUA_TBOOLEAN => match (self.resp3, ffi::lua_toboolean(state, -1) != 0) {
                    (true, value) => self.out.boolean(value),
                    (false, true) => self.out.int(1),
                    (false, false) => self.out.null(),
                },
                ffi::LUA_TNUMBER => self.out.int(truncate(ffi::lua_tonumber(state, -1))),
                ffi::LUA_TTABLE => self.write_table(state),
                _ => self.out.null(),
            }
            ffi::lua_pop(state, 1);
        }
    }

    /// Writes the table on top, which stays.
    unsafe fn write_table(&mut self, state: *mut lua_State) {
        // SAFETY: see `write`; every field that is pushed is popped.
        unsafe {
            if field(state, b"err") == ffi::LUA_TSTRING {
                ffi::lua_pop(state, 1);
                return self.write_error(state);
            }
            ffi::lua_pop(state, 1);
            if field(state, b"ok") == ffi::LUA_TSTRING {
                let text = self.text(state);
                // As in C, a NUL ends it.
                let len = memchr::memchr(0, text).unwrap_or(text.len());
                self.out.buf.push(b'+');
                self.write_line(&text[..len]);
                return ffi::lua_pop(state, 1);
            }
            ffi::lua_pop(state, 1);
            if field(state, b"double") == ffi::LUA_TNUMBER {
                self.out.double(ffi::lua_tonumber(state, -1));
                return ffi::lua_pop(state, 1);
            }
            ffi::lua_pop(state, 1);
            if field(state, b"big_number") == ffi::LUA_TSTRING {
                let digits = self.text(state);
                if self.out.resp3 {
                    self.out.buf.push(b'(');
                    self.write_line(digits);
                } else {
                    let line: Vec<u8> = digits.iter().map(|b| blank_for_break(*b)).collect();
                    self.out.bulk(&line);
                }
                return ffi::lua_pop(state, 1);
            }
            ffi::lua_pop(state, 1);
            if field(state, b"verbatim_string") == ffi::LUA_TTABLE {
                let has_format = field(state, b"format") == ffi::LUA_TSTRING;
                ffi::lua_insert(state, -2);
                let has_text = field(state, b"string") == ffi::LUA_TSTRING;
                // On the stack: the format, the table, the string.
                if has_format && has_text {
                    let format = string_at(state, -3).unwrap_or_default();
                    let format: String =
                        (0..3).map(|i| format.get(i).filter(|b| b.is_ascii()).map_or(' ', |b| *b as char)).collect();
                    let text = self.text(state);
                    self.out.verbatim(&format, text);
                    return ffi::lua_pop(state, 3);
                }
                ffi::lua_pop(state, 2);
            }
            ffi::lua_pop(state, 1);
            for (name, is_map) in [(&b"map"[..], true), (b"set", false)] {
                if field(state, name) == ffi::LUA_TTABLE {
                    self.write_pairs(state, is_map);
                    return ffi::lua_pop(state, 1);
                }
                ffi::lua_pop(state, 1);
            }
            self.write_array(state);
        }
    }

    /// The keys of the table on top, which stays, and for a map their values.
    unsafe fn write_pairs(&mut self, state: *mut lua_State, is_map: bool) {
        // SAFETY: see `write`; the key is never changed.
        unsafe {
            let mark = self.out.open();
            let mut len = 0;
            ffi::lua_pushnil(state);
            while ffi::lua_next(state, -2) != 0 {
                if !is_map {
                    ffi::lua_pop(state, 1);
                    ffi::lua_pushvalue(state, -1);
                    self.write(state);
                } else {
                    ffi::lua_pushvalue(state, -2);
                    self.write(state);
                    self.write(state);
                }
                len += 1;
                if self.full {
                    ffi::lua_pop(state, 1);
                    break;
                }
            }
            if is_map { self.out.close_map(mark, len) } else { self.out.close_set(mark, len) }
        }
    }

    unsafe fn write_array(&mut self, state: *mut lua_State) {
        // SAFETY: see `write`.
        unsafe {
            let mark = self.out.open();
            let mut len = 0;
            loop {
                ffi::lua_rawgeti_(state, -1, len as c_int + 1);
                if ffi::lua_type(state, -1) == ffi::LUA_TNIL {
                    ffi::lua_pop(state, 1);
                    break;
                }
                self.write(state);
                len += 1;
                if self.full {
                    break;
                }
            }
            self.out.close_array(mark, len);
        }
    }

    unsafe fn write_error(&mut self, state: *mut lua_State) {
        let mut error = ScriptError::default();
        // SAFETY: see `write`.
        unsafe { read_error(state, &mut error) };
        let text = error.text.unwrap_or_default();
        if !self.has_room(text.len()) {
            return;
        }
        self.out.error(&text);
        let len = memchr::memchr(b' ', &text).unwrap_or(text.len());
        self.errors.push((!error.counted).then(|| text[..len].to_vec()));
    }

    fn write_line(&mut self, text: &[u8]) {
        self.out.buf.extend(text.iter().map(|b| blank_for_break(*b)));
        self.out.raw(b"\r\n");
    }
}

/// A number converted to an integer as in C: the lowest one if it does not fit.
fn truncate(number: f64) -> i64 {
    if number >= -(2f64.powi(63)) && number < 2f64.powi(63) { number as i64 } else { i64::MIN }
}

fn blank_for_break(byte: u8) -> u8 {
    if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }
}

/// Pushes a field of the table on top and gives its type.
unsafe fn field(state: *mut lua_State, name: &[u8]) -> c_int {
    // SAFETY: see `Answer::write`.
    unsafe {
        push_bytes(state, name);
        ffi::lua_rawget(state, -2)
    }
}
