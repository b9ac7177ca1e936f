//! `bit`: operations on the 32 low bits of numbers, with signed results.

use super::call::{self, Answer, Call, Fault, Native};

/// Makes the library's table.
pub(crate) fn register(lua: &mlua::Lua) -> mlua::Result<mlua::Table> {
    call::open(lua, |call| call::push_module::<()>(call, FUNCTIONS, None))
}

const FUNCTIONS: &[(&std::ffi::CStr, Native)] = &[
    (c"tobit", |call| answer(call, bits(call, 1)?)),
    (c"bnot", |call| answer(call, !bits(call, 1)?)),
    (c"band", |call| fold(call, |a, b| a & b)),
    (c"bor", |call| fold(call, |a, b| a | b)),
    (c"bxor", |call| fold(call, |a, b| a ^ b)),
    (c"lshift", |call| shift(call, |value, by| value << by)),
    (c"rshift", |call| shift(call, |value, by| value >> by)),
    (c"arshift", |call| shift(call, |value, by| (value as i32 >> by) as u32)),
    (c"rol", |call| shift(call, u32::rotate_left)),
    (c"ror", |call| shift(call, u32::rotate_right)),
    (c"bswap", |call| answer(call, bits(call, 1)?.swap_bytes())),
    (c"tohex", hexadecimal),
];

impl call::Settings for () {}

/// The low 32 bits of an argument, rounded to a whole number; unspecified beyond 2^51.
fn bits(call: Call<'_>, index: usize) -> Result<u32, Fault> {
    /// Added to a double, it moves the whole part into the low bits of the mantissa.
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    let low = (call.to_number(index as isize) + SHIFT).to_bits() as u32;
    if low == 0 && !call.is_number(index as isize) {
        return Err(Fault::not_of_type(index, "number"));
    }
    Ok(low)
}

fn answer(call: Call<'_>, bits: u32) -> Answer {
    call.push_number((bits as i32).into());
    Ok(1)
}

fn fold(call: Call<'_>, op: fn(u32, u32) -> u32) -> Answer {
    let mut all = bits(call, 1)?;
    for index in (2..=call.top()).rev() {
        all = op(all, bits(call, index)?);
    }
    answer(call, all)
}

fn shift(call: Call<'_>, op: fn(u32, u32) -> u32) -> Answer {
    answer(call, op(bits(call, 1)?, bits(call, 2)? & 31))
}

/// `tohex(number [, digits])`: in capitals if `digits` is negative.
fn hexadecimal(call: Call<'_>) -> Answer {
    let value = bits(call, 1)?;
    let digits = match call.top() {
        0 | 1 => 8,
        _ => bits(call, 2)? as i32,
    };
    let count = digits.unsigned_abs().min(8) as usize;
    let alphabet = if digits < 0 { b"0123456789ABCDEF" } else { b"0123456789abcdef" };
    let mut text = [0; 8];
    for (place, byte) in text.iter_mut().enumerate() {
        *byte = alphabet[(value >> (28 - 4 * place) & 15) as usize];
    }
    call.push_bytes(&text[8 - count..]);
    Ok(1)
}

#[cfg(test)]
mod tests {
    fn eval(code: &str) -> String {
        super::super::tests::eval("bit", super::register, code)
    }

    #[test]
    fn results_are_signed() {
        assert_eq!(eval("bit.tobit(0xffffffff), bit.bnot(0), bit.band(7, 14, 6), bit.bor(1, 2, 8)"), "-1 -1 6 11");
        assert_eq!(
            eval("bit.bxor(0xa5a5f0f0, 0xaa55ff00), bit.lshift(1, 31), bit.rshift(-256, 8)"),
            "267390960 -2147483648 16777215"
        );
        assert_eq!(
            eval("bit.arshift(-256, 8), bit.rol(0x12345678, 12), bit.ror(0x12345678, 12)"),
            "-1 1164411171 1736516421"
        );
        assert_eq!(eval("bit.tobit('12'), bit.tobit(1.5), bit.bswap(0x12345678)"), "12 2 2018915346");
    }

    #[test]
    fn hexadecimal_digits() {
        assert_eq!(
            eval("bit.tohex(1), bit.tohex(-1), bit.tohex(-1, 4), bit.tohex(0x21a, -3)"),
            "00000001 ffffffff ffff 21A"
        );
        assert_eq!(eval("bit.tohex(1, 100), bit.tohex(1, -2147483648), bit.tohex(1, 0)"), "00000001 00000001 ");
    }

    #[test]
    fn errors_name_the_argument() {
        assert_eq!(eval("bit.band(1, {})"), "test:1: bad argument #2 to 'band' (number expected, got table)");
        assert_eq!(eval("bit.bnot()"), "test:1: bad argument #1 to 'bnot' (number expected, got no value)");
    }
}
