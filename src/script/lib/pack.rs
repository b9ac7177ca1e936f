//! `struct`: values to and from the bytes of C structures, by a format of letters.

use super::buffer::{Buffer, Full};
use super::call::{self, Answer, Call, Fault, Native};

/// Makes the library's table.
pub(crate) fn register(lua: &mlua::Lua) -> mlua::Result<mlua::Table> {
    call::open(lua, |call| call::push_module::<()>(call, FUNCTIONS, None))
}

const FUNCTIONS: &[(&std::ffi::CStr, Native)] = &[(c"pack", pack), (c"unpack", unpack), (c"size", size)];

/// The widest integer of a format, in bytes.
const INTEGER_MAX: usize = 32;

/// The alignment that a lone `!` asks for.
const ALIGN_DEFAULT: i32 = 8;

/// A format being read.
struct Format<'a> {
    rest: &'a [u8],
    little_endian: bool,
    /// A power of two.
    align: usize,
}

/// A letter of a format.
struct Item {
    letter: u8,
    /// Bytes that it takes; 0 if that depends on the value.
    size: usize,
    /// Bytes that are skipped before it.
    padding: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Format<'a> {
        Format { rest: text, little_endian: cfg!(target_endian = "little"), align: 1 }
    }

    /// The next letter, at a position in the structure.
    #[inline]
    fn next(&mut self, position: usize) -> Result<Option<Item>, Fault> {
        // A NUL also ends it.
        let Some((&letter, rest)) = self.rest.split_first().filter(|(letter, _)| **letter != 0) else {
            return Ok(None);
        };
        self.rest = rest;
        let size = match letter {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'f' => 4,
            b'c' => self.count(1)? as usize,
            b'i' | b'I' => {
                let size = self.count(4)?;
                if size as usize > INTEGER_MAX {
                    return Err(Fault::error(format_args!(
                        "integral size {size} is larger than limit of {INTEGER_MAX}"
                    )));
                }
                size as usize
            }
            _ => 0,
        };
        let padding = match letter {
            b'c' => 0,
            _ if size == 0 => 0,
            _ => {
                let unit = size.min(self.align);
                unit.wrapping_sub(position & (unit - 1)) & (unit - 1)
            }
        };
        Ok(Some(Item { letter, size, padding }))
    }

    /// The number after a letter.
    fn count(&mut self, default: i32) -> Result<i32, Fault> {
        if !self.rest.first().is_some_and(u8::is_ascii_digit) {
            return Ok(default);
        }
        let mut count = 0i32;
        while let Some((&digit, rest)) = self.rest.split_first().filter(|(digit, _)| digit.is_ascii_digit()) {
            count = count
                .checked_mul(10)
                .and_then(|count| count.checked_add((digit - b'0').into()))
                .ok_or_else(|| Fault::error(format_args!("integral size overflow")))?;
            self.rest = rest;
        }
        Ok(count)
    }

    /// Applies a letter that stands for no value.
    fn control(&mut self, letter: u8) -> Result<(), Fault> {
        match letter {
            b' ' => {}
            b'>' => self.little_endian = false,
            b'<' => self.little_endian = true,
            b'!' => {
                let align = self.count(ALIGN_DEFAULT)?;
                if align <= 0 || align & (align - 1) != 0 {
                    return Err(Fault::error(format_args!("alignment {align} is not a power of 2")));
                }
                self.align = align as usize;
            }
            _ => return Err(invalid(letter)),
        }
        Ok(())
    }
}

fn invalid(letter: u8) -> Fault {
    Fault::argument(1, format_args!("invalid format option '")).with_byte(letter).with_byte(b'\'')
}

fn too_short() -> Fault {
    Fault::argument(2, format_args!("data string too short"))
}

/// `pack(format, value, ...)`.
fn pack(call: Call<'_>) -> Answer {
    let mut format = Format::new(call.string_arg(1)?);
    // A missing value counts as nil.
    call.push_nil();
    let out = &mut call.work().out;
    let mut arg = 2;
    let mut next_arg = || {
        arg += 1;
        arg - 1
    };
    while let Some(item) = format.next(out.len())? {
        out.pad(item.padding)?;
        let little_endian = format.little_endian;
        match item.letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let value = call.number_arg(next_arg())?;
                let value = call::truncate_to_u64(value);
                match item.size {
                    1 => out.push(value as u8)?,
                    2 => append(out, &mut (value as u16).to_le_bytes(), little_endian)?,
                    4 => append(out, &mut (value as u32).to_le_bytes(), little_endian)?,
                    8 => append(out, &mut value.to_le_bytes(), little_endian)?,
                    size => {
                        let mut bytes = [0; INTEGER_MAX];
                        bytes[..8].copy_from_slice(&value.to_le_bytes());
                        append(out, &mut bytes[..size], little_endian)?;
                    }
                }
            }
            b'x' => out.push(0)?,
            b'f' => append(out, &mut (call.number_arg(next_arg())? as f32).to_le_bytes(), little_endian)?,
            b'd' => append(out, &mut call.number_arg(next_arg())?.to_le_bytes(), little_endian)?,
            b'c' | b's' => {
                let index = next_arg();
                let text = call.string_arg(index)?;
                let size = if item.size == 0 { text.len() } else { item.size };
                if text.len() < size {
                    return Err(Fault::argument(index + 1, format_args!("string too short")));
                }
                out.extend(&text[..size])?;
                if item.letter == b's' {
                    out.push(0)?;
                }
            }
            letter => format.control(letter)?,
        }
    }
    call.push_bytes(out.as_bytes());
    Ok(1)
}

/// Appends bytes that are given lowest first.
#[inline]
fn append(out: &mut Buffer, bytes: &mut [u8], little_endian: bool) -> Result<(), Full> {
    if !little_endian {
        bytes.reverse();
    }
    out.extend(bytes)
}

/// The lowest 8 bytes of an integer, lowest first.
fn low_bytes(bytes: &[u8], little_endian: bool) -> [u8; 8] {
    let mut low = [0; 8];
    for (place, low) in low.iter_mut().enumerate().take(bytes.len()) {
        *low = if little_endian { bytes[place] } else { bytes[bytes.len() - 1 - place] };
    }
    low
}

/// `unpack(format, data [, position])`: the values and the position after them.
fn unpack(call: Call<'_>) -> Answer {
    let mut format = Format::new(call.string_arg(1)?);
    let data = call.string_arg(2)?;
    let first = call.integer_arg_or(3, 1)?;
    if first == 0 {
        return Err(Fault::argument(3, format_args!("offset must be 1 or greater")));
    }
    // 0 less one wraps, beyond every string.
    let mut position = (first as usize).wrapping_sub(1);
    let before = call.top();
    while let Some(item) = format.next(position)? {
        position = position.wrapping_add(item.padding);
        let rest = data.get(position..).ok_or_else(too_short)?;
        let bytes = rest.get(..item.size).ok_or_else(too_short)?;
        call.need(2, "too many results")?;
        let mut taken = item.size;
        match item.letter {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                call.push_number(integer(bytes, item.letter.is_ascii_lowercase(), format.little_endian));
            }
            b'f' => {
                let low = low_bytes(bytes, format.little_endian);
                call.push_number(f32::from_le_bytes([low[0], low[1], low[2], low[3]]).into());
            }
            b'd' => call.push_number(f64::from_le_bytes(low_bytes(bytes, format.little_endian))),
            b'c' if item.size == 0 => {
                if call.top() == before || !call.is_number(-1) {
                    return Err(Fault::error(format_args!("format 'c0' needs a previous size")));
                }
                taken = call::truncate_to_u64(call.to_number(-1)) as usize;
                call.pop(1);
                call.push_bytes(rest.get(..taken).ok_or_else(too_short)?);
            }
            b'c' => call.push_bytes(bytes),
            b's' => {
                let Some(end) = memchr::memchr(0, rest) else {
                    return Err(Fault::error(format_args!("unfinished string in data")));
                };
                taken = end + 1;
                call.push_bytes(&rest[..end]);
            }
            b'x' => {}
            letter => format.control(letter)?,
        }
        position += taken;
    }
    call.push_number(position.wrapping_add(1) as i64 as f64);
    Ok(call.top() - before)
}

fn integer(bytes: &[u8], is_signed: bool, little_endian: bool) -> f64 {
    let value = u64::from_le_bytes(low_bytes(bytes, little_endian));
    if !is_signed {
        return value as f64;
    }
    let sign = u64::MAX.wrapping_shl((bytes.len() * 8).wrapping_sub(1) as u32);
    (if value & sign != 0 { value | sign } else { value }) as i64 as f64
}

/// `size(format)`: how many bytes it takes.
fn size(call: Call<'_>) -> Answer {
    let mut format = Format::new(call.string_arg(1)?);
    let mut position = 0usize;
    while let Some(item) = format.next(position)? {
        match item.letter {
            b's' => return Err(Fault::argument(1, format_args!("option 's' has no fixed size"))),
            b'c' if item.size == 0 => return Err(Fault::argument(1, format_args!("option 'c0' has no fixed size"))),
            letter if letter.is_ascii_alphanumeric() => {}
            letter => format.control(letter)?,
        }
        position = position.wrapping_add(item.padding).wrapping_add(item.size);
    }
    call.push_number(position as i64 as f64);
    Ok(1)
}

#[cfg(test)]
mod tests {
    fn eval(code: &str) -> String {
        super::super::tests::eval("struct", super::register, code)
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        assert_eq!(
            eval("struct.unpack('>HBsc3d', struct.pack('>HBsc3d', 513, -1, 'ab', 'xyzw', 0.5))"),
            "513 255 ab xyz 0.5 18"
        );
        assert_eq!(eval("struct.unpack('<!8bi8', struct.pack('<!8bi8', 1, -5))"), "1 -5 17");
        assert_eq!(eval("struct.unpack('bc0', struct.pack('bc0', 3, 'abc'))"), "abc 5");
        assert_eq!(eval("struct.size('!4bihd'), struct.size('i3'), struct.size('')"), "20 3 0");
        assert_eq!(eval("struct.unpack('>i12', struct.pack('>i12', 7))"), "7 13");
    }

    #[test]
    fn errors() {
        for (code, error) in [
            ("struct.pack('i')", "test:1: bad argument #2 to 'pack' (number expected, got nil)"),
            ("struct.pack('c5', 'abc')", "test:1: bad argument #3 to 'pack' (string too short)"),
            ("struct.pack('q')", "test:1: bad argument #1 to 'pack' (invalid format option 'q')"),
            ("struct.pack('i33', 1)", "test:1: integral size 33 is larger than limit of 32"),
            ("struct.pack('c99999999999', 'a')", "test:1: integral size overflow"),
            ("struct.pack('!3', 'a')", "test:1: alignment 3 is not a power of 2"),
            ("struct.unpack('i', 'abc')", "test:1: bad argument #2 to 'unpack' (data string too short)"),
            ("struct.unpack('c0', 'abc')", "test:1: format 'c0' needs a previous size"),
            ("struct.unpack('s', 'abc')", "test:1: unfinished string in data"),
            ("struct.unpack('b', 'abc', 0)", "test:1: bad argument #3 to 'unpack' (offset must be 1 or greater)"),
            ("struct.unpack('b', 'abc', -1)", "test:1: bad argument #2 to 'unpack' (data string too short)"),
            ("struct.unpack('bc0', '\\255abc')", "test:1: bad argument #2 to 'unpack' (data string too short)"),
            ("struct.unpack(('b'):rep(9000), ('a'):rep(9000))", "test:1: stack overflow (too many results)"),
            ("struct.size('s')", "test:1: bad argument #1 to 'size' (option 's' has no fixed size)"),
            ("struct.size('c0')", "test:1: bad argument #1 to 'size' (option 'c0' has no fixed size)"),
        ] {
            assert_eq!(eval(code), error, "{code}");
        }
    }
}
