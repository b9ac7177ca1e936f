//! `cmsgpack`: values to and from MessagePack, without its extension types and with its binary type never written or read.
//!
//! Packing nests 16 tables deep; deeper ones become nil. Unpacking does not recurse; Lua's stack bounds it.

use super::buffer::{Buffer, Full};
use super::call::{self, Answer, Call, Fault, Native, Open, Type, Work};

/// Makes the library's table.
pub(crate) fn register(lua: &mlua::Lua) -> mlua::Result<mlua::Table> {
    call::open(lua, |call| {
        call::push_module::<()>(call, FUNCTIONS, None);
        call.set_text(c"_NAME", b"cmsgpack");
        call.set_text(c"_VERSION", b"lua-cmsgpack 0.4.0");
        call.set_text(c"_COPYRIGHT", b"Copyright (C) 2012, Salvatore Sanfilippo");
        call.set_text(c"_DESCRIPTION", b"MessagePack C implementation for Lua");
    })
}

const FUNCTIONS: &[(&std::ffi::CStr, Native)] =
    &[(c"pack", pack), (c"unpack", unpack), (c"unpack_one", unpack_one), (c"unpack_limit", unpack_limit)];

/// Tables within tables are nil from here.
const NESTING_MAX: usize = 16;

/// `pack(value, ...)`: one after another.
fn pack(call: Call<'_>) -> Answer {
    let count = call.top();
    if count == 0 {
        return Err(Fault::argument(0, format_args!("MessagePack pack needs input.")));
    }
    if !call.reserve(count) {
        return Err(Fault::argument(0, format_args!("Too many arguments for MessagePack pack.")));
    }
    let work = call.work();
    for index in 1..=count {
        call.need(1, "in function mp_check")?;
        call.push_copy(index as isize);
        pack_value(call, &mut work.out, 0)?;
    }
    call.push_bytes(work.out.as_bytes());
    Ok(1)
}

/// Appends the value on top and pops it. Recurses as deep as tables may nest.
fn pack_value(call: Call<'_>, out: &mut Buffer, depth: usize) -> Result<(), Fault> {
    match call.type_of(-1) {
        Type::String => {
            let text = call.bytes(-1);
            head(out, text.len(), Some((0xa0, 32)), &[0xd9, 0xda, 0xdb])?;
            out.extend(text)?;
        }
        Type::Boolean => out.push(if call.boolean(-1) { 0xc3 } else { 0xc2 })?,
        Type::Number => pack_number(call.to_number(-1), out)?,
        Type::Table if depth < NESTING_MAX => match is_array(call)? {
            true => pack_array(call, out, depth)?,
            false => pack_map(call, out, depth)?,
        },
        _ => out.push(0xc0)?,
    }
    call.pop(1);
    Ok(())
}

/// Appends the head of a string or container of so many bytes or elements: within one byte with `short` (its tag and the
/// first length too long for it), or one of `tags`, the last three of those for lengths of 1, 2 and 4 bytes.
fn head(out: &mut Buffer, len: usize, short: Option<(u8, usize)>, tags: &[u8]) -> Result<(), Full> {
    let &[.., wide, widest] = tags else { unreachable!("two tags at least") };
    match short {
        Some((tag, end)) if len < end => out.push(tag | len as u8),
        _ if tags.len() == 3 && len <= 0xff => out.extend(&[tags[0], len as u8]),
        _ if len <= 0xffff => {
            out.push(wide)?;
            out.extend(&(len as u16).to_be_bytes())
        }
        _ => {
            out.push(widest)?;
            out.extend(&(len as u32).to_be_bytes())
        }
    }
}

fn pack_number(value: f64, out: &mut Buffer) -> Result<(), Full> {
    let whole = call::truncate(value);
    if whole as f64 == value && value.is_finite() {
        pack_integer(whole, out)
    } else if f64::from(value as f32) == value {
        out.push(0xca)?;
        out.extend(&(value as f32).to_be_bytes())
    } else {
        out.push(0xcb)?;
        out.extend(&value.to_be_bytes())
    }
}

fn pack_integer(value: i64, out: &mut Buffer) -> Result<(), Full> {
    let (tag, width) = match value {
        -32..=127 => return out.push(value as u8),
        128..=0xff => (0xcc, 1),
        0x100..=0xffff => (0xcd, 2),
        0x1_0000..=0xffff_ffff => (0xce, 4),
        0x1_0000_0000.. => (0xcf, 8),
        -0x80..-32 => (0xd0, 1),
        -0x8000..-0x80 => (0xd1, 2),
        -0x8000_0000..-0x8000 => (0xd2, 4),
        ..-0x8000_0000 => (0xd3, 8),
    };
    out.push(tag)?;
    out.extend(&value.to_be_bytes()[8 - width..])
}

/// Whether the keys of the table on top are exactly the numbers from 1 on.
fn is_array(call: Call<'_>) -> Result<bool, Fault> {
    let (mut max, mut count) = (0.0, 0.0);
    call.need(2, "in function table_is_an_array")?;
    call.push_nil();
    while call.next() {
        call.pop(1);
        let key = if call.type_of(-1) == Type::Number { call.to_number(-1) } else { 0.0 };
        if key <= 0.0 || f64::from(call::truncate_to_i32(key)) != key {
            call.pop(1);
            return Ok(false);
        }
        max = f64::max(max, key);
        count += 1.0;
    }
    Ok(max == count)
}

fn pack_array(call: Call<'_>, out: &mut Buffer, depth: usize) -> Result<(), Fault> {
    let len = call.length();
    head(out, len, Some((0x90, 16)), &[0xdc, 0xdd])?;
    call.need(1, "in function mp_encode_lua_table_as_array")?;
    for index in 1..=len {
        call.element(index as i32);
        pack_value(call, out, depth + 1)?;
    }
    Ok(())
}

fn pack_map(call: Call<'_>, out: &mut Buffer, depth: usize) -> Result<(), Fault> {
    call.need(3, "in function mp_encode_lua_table_as_map")?;
    let mut len = 0;
    call.push_nil();
    while call.next() {
        call.pop(1);
        len += 1;
    }
    head(out, len, Some((0x80, 16)), &[0xde, 0xdf])?;
    call.push_nil();
    while call.next() {
        call.push_copy(-2);
        pack_value(call, out, depth + 1)?;
        pack_value(call, out, depth + 1)?;
    }
    Ok(())
}

/// `unpack(text)`: all values.
fn unpack(call: Call<'_>) -> Answer {
    unpack_some(call, 0, 0)
}

/// `unpack_one(text [, offset])`: the offset of the next value, or -1, and the value.
fn unpack_one(call: Call<'_>) -> Answer {
    let offset = call.integer_arg_or(2, 0)?;
    call.set_top(call.top().min(1));
    unpack_some(call, 1, offset)
}

/// `unpack_limit(text, limit [, offset])`: the offset of the next value, or -1, and the values.
fn unpack_limit(call: Call<'_>) -> Answer {
    let limit = call.integer_arg(2)?;
    let offset = call.integer_arg_or(3, 0)?;
    call.set_top(1);
    unpack_some(call, limit, offset)
}

fn unpack_some(call: Call<'_>, limit: i64, offset: i64) -> Answer {
    let all = limit == 0 && offset == 0;
    let text = call.string_arg(1)?;
    if offset < 0 || limit < 0 {
        // The text names the length as the limit, as Redis's does: scripts may match it.
        return Err(Fault::error(format_args!(
            "Invalid request to unpack with offset of {} and limit of {}.",
            offset as i32,
            text.len() as i32
        )));
    }
    if offset as usize > text.len() {
        return Err(Fault::error(format_args!(
            "Start offset {} greater than input length {}.",
            offset as i32,
            text.len() as i32
        )));
    }
    let limit = if all { i64::from(i32::MAX) } else { limit };
    let Work { open, .. } = call.work();
    let first = call.top();
    let mut input = Input { rest: &text[offset as usize..] };
    let mut count = 0;
    while !input.rest.is_empty() && count < limit {
        unpack_value(call, &mut input, open)?;
        count += 1;
    }
    let mut results = call.top() - first;
    if !all {
        call.need(1, "in function mp_unpack_full")?;
        call.push_number(if input.rest.is_empty() { -1.0 } else { (text.len() - input.rest.len()) as f64 });
        call.insert(first + 1);
        results += 1;
    }
    Ok(results)
}

struct Input<'a> {
    rest: &'a [u8],
}

fn missing() -> Fault {
    Fault::error(format_args!("Missing bytes in input."))
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(missing)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned number of `width` bytes, 8 at most.
    fn number(&mut self, width: usize) -> Result<u64, Fault> {
        Ok(self.take(width)?.iter().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    /// A signed number of `width` bytes.
    fn signed(&mut self, width: usize) -> Result<i64, Fault> {
        let unused = 64 - 8 * width as u32;
        Ok((self.number(width)? << unused) as i64 >> unused)
    }
}

/// The head of a value.
enum Item {
    /// That was all of it, and is pushed.
    Done,
    Text(usize),
    Array(usize),
    Map(usize),
}

fn take_head(call: Call<'_>, input: &mut Input<'_>) -> Result<Item, Fault> {
    let tag = input.number(1)? as u8;
    Ok(match tag {
        0x00..=0x7f => number(call, tag.into()),
        0x80..=0x8f => Item::Map((tag & 15).into()),
        0x90..=0x9f => Item::Array((tag & 15).into()),
        0xa0..=0xbf => Item::Text((tag & 31).into()),
        0xc0 => {
            call.push_nil();
            Item::Done
        }
        0xc2 | 0xc3 => {
            call.push_boolean(tag == 0xc3);
            Item::Done
        }
        0xca => number(call, f32::from_bits(input.number(4)? as u32).into()),
        0xcb => number(call, f64::from_bits(input.number(8)?)),
        0xcc..=0xce => number(call, input.number(1 << (tag - 0xcc))? as f64),
        // Beyond the signed range a number comes out negative.
        0xcf | 0xd3 => number(call, input.number(8)? as i64 as f64),
        0xd0..=0xd2 => number(call, input.signed(1 << (tag - 0xd0))? as f64),
        0xd9..=0xdb => Item::Text(input.number(1 << (tag - 0xd9))? as usize),
        0xdc | 0xdd => Item::Array(input.number(2 << (tag - 0xdc))? as usize),
        0xde | 0xdf => Item::Map(input.number(2 << (tag - 0xde))? as usize),
        0xe0..=0xff => number(call, (tag as i8).into()),
        _ => return Err(Fault::error(format_args!("Bad data format in input."))),
    })
}

/// Pushes the next value.
fn unpack_value(call: Call<'_>, input: &mut Input<'_>, open: &mut Vec<Open>) -> Result<(), Fault> {
    loop {
        call.need(1, "too many return values at once; use unpack_one or unpack_limit instead.")?;
        match take_head(call, input)? {
            Item::Done => {}
            Item::Text(len) => call.push_bytes(input.take(len)?),
            Item::Array(len) => {
                call.push_table();
                call.need(1, "in function mp_decode_to_lua_array")?;
                if len > 0 {
                    open.push(Open { map: false, done: 0, len });
                    push_index(call, 1);
                    continue;
                }
            }
            Item::Map(len) => {
                call.push_table();
                if len > 0 {
                    open.push(Open { map: true, done: 0, len: len * 2 });
                    continue;
                }
            }
        }
        // A value is complete; so may be the containers that it is the last one of.
        loop {
            let Some(container) = open.last_mut() else { return Ok(()) };
            container.done += 1;
            match container.map {
                // A key stays on the stack until its value comes.
                true if container.done % 2 == 1 => break,
                _ => call.set_pair(),
            }
            if container.done < container.len {
                if !container.map {
                    push_index(call, container.done + 1);
                }
                break;
            }
            open.pop();
        }
    }
}

/// The index of an element is under it, as a key is.
fn push_index(call: Call<'_>, index: usize) {
    call.push_number(index as f64);
}

fn number(call: Call<'_>, value: f64) -> Item {
    call.push_number(value);
    Item::Done
}

#[cfg(test)]
mod tests {
    fn eval(code: &str) -> String {
        super::super::tests::eval("cmsgpack", super::register, code)
    }

    fn hex(code: &str) -> String {
        eval(&format!("(cmsgpack.pack({code}):gsub('.', function(c) return ('%02x'):format(c:byte()) end))"))
    }

    #[test]
    fn shortest_forms_are_written() {
        assert_eq!(
            hex("nil, true, false, 0, 127, 128, 256, 65536, 4294967296"),
            "c0c3c2007fcc80cd0100ce00010000cf0000000100000000"
        );
        assert_eq!(hex("-1, -32, -33, -129, -32769, -2147483649"), "ffe0d0dfd1ff7fd2ffff7fffd3ffffffff7fffffff");
        assert_eq!(
            hex("0.5, 0.1, {}, {1, 2}, {a = 1}, 'abc'"),
            "ca3f000000cb3fb999999999999a909201028 1a16101a3616263".replace(' ', "")
        );
        assert_eq!(hex("('x'):rep(32)"), format!("d920{}", "78".repeat(32)));
    }

    #[test]
    fn tables_nest_16_deep() {
        assert_eq!(
            hex("(function() local t = {} for i = 1, 20 do t = {t} end return t end)()"),
            format!("{}c0", "91".repeat(16))
        );
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        assert_eq!(eval("cmsgpack.unpack(cmsgpack.pack(1, 'two', 3.5, nil, true))"), "1 two 3.5 nil true");
        assert_eq!(eval("cmsgpack.unpack(cmsgpack.pack({a = {1, {b = 'c'}}})).a[2].b"), "c");
        assert_eq!(eval("cmsgpack.unpack_one(cmsgpack.pack(7, 8, 9), 1)"), "2 8");
        assert_eq!(eval("cmsgpack.unpack_limit(cmsgpack.pack(7, 8, 9), 5, 1)"), "-1 8 9");
        assert_eq!(eval("cmsgpack.unpack('\\207' .. ('\\255'):rep(8))"), "-1");
    }

    #[test]
    fn errors() {
        for (code, error) in [
            ("cmsgpack.pack()", "test:1: bad argument #0 to 'pack' (MessagePack pack needs input.)"),
            ("cmsgpack.unpack('\\202')", "test:1: Missing bytes in input."),
            ("cmsgpack.unpack('\\219\\255\\255\\255\\255x')", "test:1: Missing bytes in input."),
            ("cmsgpack.unpack('\\193')", "test:1: Bad data format in input."),
            ("cmsgpack.unpack('\\129\\192\\1')", "table index is nil"),
            ("cmsgpack.unpack_limit('abc', -1)", "test:1: Invalid request to unpack with offset of 0 and limit of 3."),
            ("cmsgpack.unpack_one('abc', 4)", "test:1: Start offset 4 greater than input length 3."),
            (
                "cmsgpack.unpack_limit('abc')",
                "test:1: bad argument #2 to 'unpack_limit' (number expected, got no value)",
            ),
            ("cmsgpack.unpack(('\\145'):rep(100000))", "test:1: stack overflow (in function mp_decode_to_lua_array)"),
        ] {
            assert_eq!(eval(code), error, "{code}");
        }
    }
}
