//! Numbers as Redis reads and writes them.
//!
//! Texts must equal a 7.2 server's to the byte: clients compare them, and a replica or a loaded file must arrive at the
//! same numbers. Units of memory (`100mb`) are read in `config`.

use super::grisu;

/// A short text on the stack.
#[derive(Clone, Copy)]
pub(crate) struct NumText {
    bytes: [u8; 48],
    len: usize,
}

impl NumText {
    fn new() -> NumText {
        NumText { bytes: [0; 48], len: 0 }
    }

    pub(super) fn push(&mut self, byte: u8) {
        self.bytes[self.len] = byte;
        self.len += 1;
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.bytes[self.len..self.len + count].fill(b'0');
        self.len += count;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::ops::Deref for NumText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl std::fmt::Display for NumText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(std::str::from_utf8(self).expect("numbers are ASCII"))
    }
}

/// The decimal text of an integer.
pub(crate) fn i64_text(value: i64) -> NumText {
    let mut out = NumText::new();
    out.extend(itoa::Buffer::new().format(value).as_bytes());
    out
}

/// The text of a double in replies and in stored scores: a whole number in plain digits where it fits an integer, else
/// the digits of Grisu2; `inf`, `-inf`, `nan`, `-0`.
pub(crate) fn f64_text(value: f64) -> NumText {
    if value.is_nan() {
        return f64_text_grisu(f64::NAN.copysign(1.0));
    }
    match f64_to_i64(value) {
        Some(whole) if value != 0.0 => i64_text(whole),
        _ => f64_text_grisu(value),
    }
}

/// As [`f64_text`], but without the special case of whole numbers, which differs for large ones, and with the sign of a
/// NaN: for RDB files, the AOF's ZADD and numbers in scripts.
pub(crate) fn f64_text_grisu(value: f64) -> NumText {
    let mut out = NumText::new();
    if value == 0.0 || !value.is_finite() {
        if value.is_sign_negative() {
            out.push(b'-');
        }
        let text: &[u8] = match value {
            0.0 => b"0",
            value if value.is_nan() => b"nan",
            _ => b"inf",
        };
        out.extend(text);
    } else {
        grisu::write(&mut out, value);
    }
    out
}

/// The value as an integer, if it is one and lies between -2^62 and 2^62.
pub(crate) fn f64_to_i64(value: f64) -> Option<i64> {
    const LIMIT: f64 = (1u64 << 62) as f64;
    let whole = value as i64;
    (value.abs() <= LIMIT && whole as f64 == value).then_some(whole)
}

/// A double the way `%.17g` prints it (scores in ZSCAN).
pub(crate) fn f64_text_g17(value: f64) -> NumText {
    const PRECISION: i32 = 17;
    let mut out = NumText::new();
    if value == 0.0 || !value.is_finite() {
        return f64_text_grisu(value);
    }
    if value < 0.0 {
        out.push(b'-');
    }
    let text = format!("{:.16e}", value.abs());
    let (digits, exponent) = text.split_once('e').expect("an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("a small exponent");
    let digits = digits.replace('.', "");
    let digits = digits.trim_end_matches('0').as_bytes();
    if (-4..PRECISION).contains(&exponent) {
        if exponent < 0 {
            out.extend(b"0.");
            out.zeros(exponent.unsigned_abs() as usize - 1);
            out.extend(digits);
        } else {
            let whole = exponent as usize + 1;
            if digits.len() <= whole {
                out.extend(digits);
                out.zeros(whole - digits.len());
            } else {
                out.extend(&digits[..whole]);
                out.push(b'.');
                out.extend(&digits[whole..]);
            }
        }
    } else {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend(&digits[1..]);
        }
        out.push(b'e');
        out.push(if exponent < 0 { b'-' } else { b'+' });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        out.extend(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
    }
    out
}

/// A double with exactly `digits` (1 to 17) digits after the point, scaled and rounded as a double (distances of GEO
/// commands have 4).
pub(crate) fn f64_text_fixed(value: f64, digits: u32) -> NumText {
    let scale = 10u64.pow(digits);
    let scaled = (value * scale as f64).round_ties_even() as i64;
    let mut out = NumText::new();
    if scaled < 0 {
        out.push(b'-');
    }
    let scaled = scaled.unsigned_abs();
    out.extend(itoa::Buffer::new().format(scaled / scale).as_bytes());
    out.push(b'.');
    let mut buffer = itoa::Buffer::new();
    let fraction = buffer.format(scaled % scale);
    out.zeros(digits as usize - fraction.len());
    out.extend(fraction.as_bytes());
    out
}

/// Reads a decimal `i64` the strict way: no spaces, no `+`, no leading zeros, nothing after it.
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] => return if negative { None } else { Some(0) },
        [b'0', ..] => return None,
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut value = 0u64;
    for digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // At most 19 digits: below 10^19, which fits a u64.
        value = value * 10 + u64::from(digit);
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// Whether a number is negative, and what comes after its sign, which need not be there.
#[inline]
pub(crate) fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    }
}

/// Reads a double as commands do: what `strtod` accepts (decimal or hexadecimal, `inf`, `infinity`, a sign), all of the
/// text, no space before it, not a NaN, and neither too large nor too small to hold.
pub(crate) fn parse_f64(text: &[u8]) -> Option<f64> {
    let (negative, rest) = split_sign(text);
    let magnitude = match Syntax::of(rest)? {
        Syntax::Infinity => f64::INFINITY,
        Syntax::Hex(hex) => {
            let value = hex.to_f64();
            if value.is_infinite() || (value == 0.0 && !hex.is_zero()) {
                return None;
            }
            value
        }
        Syntax::Decimal { zero } => {
            let value: f64 = std::str::from_utf8(rest).ok()?.parse().ok()?;
            if value.is_infinite() || (value == 0.0 && !zero) {
                return None;
            }
            value
        }
    };
    Some(if negative { -magnitude } else { magnitude })
}

/// The forms of an unsigned number that the C library reads and Redis accepts.
pub(super) enum Syntax {
    Infinity,
    /// `zero`: all digits are 0.
    Decimal {
        zero: bool,
    },
    Hex(Hex),
}

/// `mantissa * 2^exponent`, with `sticky` when lower bits were cut off the mantissa.
pub(super) struct Hex {
    mantissa: u128,
    exponent: i64,
    sticky: bool,
}

impl Syntax {
    pub(super) fn of(text: &[u8]) -> Option<Syntax> {
        match text {
            [b'0', b'x' | b'X', hex @ ..] => return Hex::read(hex).map(Syntax::Hex),
            [b'i' | b'I', ..] => {
                let known = text.eq_ignore_ascii_case(b"inf") || text.eq_ignore_ascii_case(b"infinity");
                return known.then_some(Syntax::Infinity);
            }
            _ => {}
        }
        let mut zero = true;
        let mut digits = 0;
        let mut point = false;
        for (i, byte) in text.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    digits += 1;
                    zero &= *byte == b'0';
                }
                b'.' if !point => point = true,
                b'e' | b'E' if digits > 0 => {
                    let exponent = &text[i + 1..];
                    let exponent = match exponent {
                        [b'+' | b'-', exponent @ ..] => exponent,
                        exponent => exponent,
                    };
                    let whole = !exponent.is_empty() && exponent.iter().all(u8::is_ascii_digit);
                    return whole.then_some(Syntax::Decimal { zero });
                }
                _ => return None,
            }
        }
        (digits > 0).then_some(Syntax::Decimal { zero })
    }
}

impl Hex {
    fn read(text: &[u8]) -> Option<Hex> {
        let mut mantissa = 0u128;
        let mut exponent = 0i64;
        let mut sticky = false;
        let mut digits = 0;
        let mut point = false;
        let mut rest = text;
        while let [byte, behind @ ..] = rest {
            let digit = match byte {
                b'.' if !point => {
                    point = true;
                    rest = behind;
                    continue;
                }
                byte => match char::from(*byte).to_digit(16) {
                    Some(digit) => digit,
                    None => break,
                },
            };
            digits += 1;
            rest = behind;
            if mantissa >> 120 == 0 {
                mantissa = mantissa << 4 | u128::from(digit);
                exponent -= if point { 4 } else { 0 };
            } else {
                sticky |= digit != 0;
                exponent += if point { 0 } else { 4 };
            }
        }
        if digits == 0 {
            return None;
        }
        if let [b'p' | b'P', power @ ..] = rest {
            let (negative, power) = match power {
                [b'-', power @ ..] => (true, power),
                [b'+', power @ ..] => (false, power),
                power => (false, power),
            };
            if power.is_empty() || !power.iter().all(u8::is_ascii_digit) {
                return None;
            }
            let power = power.iter().fold(0i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(1 << 40));
            exponent += if negative { -power } else { power };
        } else if !rest.is_empty() {
            return None;
        }
        Some(Hex { mantissa, exponent, sticky })
    }

    pub(super) fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// Rounds to `bits` bits of mantissa, to nearest, ties to even, for a format whose last bit has at least the
    /// exponent `min_exponent`: `(mantissa, exponent)`.
    pub(super) fn round(&self, bits: u32, min_exponent: i64) -> (u128, i64) {
        let width = i64::from(128 - self.mantissa.leading_zeros());
        let cut = (width - i64::from(bits)).max(min_exponent - self.exponent);
        if cut <= 0 {
            return (self.mantissa, self.exponent);
        }
        if cut > 128 {
            return (0, min_exponent);
        }
        let exponent = self.exponent + cut;
        let kept = self.mantissa.checked_shr(cut as u32).unwrap_or(0);
        let lost = if cut == 128 { self.mantissa } else { self.mantissa & ((1 << cut) - 1) };
        let half = 1u128 << (cut - 1);
        let up = lost > half || (lost == half && (self.sticky || kept & 1 == 1));
        (kept + u128::from(up), exponent)
    }

    fn to_f64(&self) -> f64 {
        let (mantissa, exponent) = self.round(53, -1074);
        if mantissa == 0 {
            return 0.0;
        }
        let width = i64::from(128 - mantissa.leading_zeros());
        if exponent + width > 1024 {
            return f64::INFINITY;
        }
        // Both factors and the product are exact: the mantissa was rounded to what the result can hold.
        let mantissa = mantissa as f64;
        if exponent < -1022 {
            mantissa * 2f64.powi(-1022) * 2f64.powi((exponent + 1022) as i32)
        } else if exponent > 1023 {
            mantissa * 2f64.powi(1023) * 2f64.powi((exponent - 1023) as i32)
        } else {
            mantissa * 2f64.powi(exponent as i32)
        }
    }
}

#[cfg(test)]
mod tests;
