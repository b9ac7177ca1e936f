//! Numbers as Redis reads and writes them.

/// Reads a decimal `i64` the strict way: no spaces, no `+`, no leading zeros, nothing behind it.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
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
        // At most 19 digits: below 10^19, which a u64 holds.
        value = value * 10 + u64::from(digit);
    }
    if negative {
        0i64.checked_sub_unsigned(value)
    } else {
        i64::try_from(value).ok()
    }
}

/// Reads a double as commands do: what `strtod` accepts (decimal or hexadecimal, `inf`, `infinity`, a sign), all of the
/// text, no space before it, not a NaN, and neither too large nor too small to hold.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let (negative, rest) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
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
enum Syntax {
    Infinity,
    /// `zero`: all digits are 0.
    Decimal {
        zero: bool,
    },
    Hex(Hex),
}

/// `mantissa * 2^exponent`, with `sticky` when lower bits were cut off the mantissa.
struct Hex {
    mantissa: u128,
    exponent: i64,
    sticky: bool,
}

impl Syntax {
    fn of(text: &[u8]) -> Option<Syntax> {
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
            let power = power
                .iter()
                .fold(0i64, |sum, digit| (sum * 10 + i64::from(digit - b'0')).min(1 << 40));
            exponent += if negative { -power } else { power };
        } else if !rest.is_empty() {
            return None;
        }
        Some(Hex {
            mantissa,
            exponent,
            sticky,
        })
    }

    fn is_zero(&self) -> bool {
        self.mantissa == 0
    }

    /// Rounds to `bits` bits of mantissa, to nearest and even on a tie, for a format whose smallest exponent of the
    /// last bit is `min_exponent`: `(mantissa, exponent)`.
    fn round(&self, bits: u32, min_exponent: i64) -> (u128, i64) {
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
