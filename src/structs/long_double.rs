//! The arithmetic of INCRBYFLOAT and HINCRBYFLOAT: the x87 extended format (64 bits of mantissa), which is what Redis
//! computes with on x86-64, and its text.

use rustc_apfloat::ieee::X87DoubleExtended;
use rustc_apfloat::{Float, Round, Status};

use super::numbers::{Syntax, split_sign};

/// A number of the x87 extended format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LongDouble(X87DoubleExtended);

/// Texts of this length and more are refused unread, bytes.
const MAX_TEXT_LEN: usize = 5 * 1024;
/// Digits after the point in the text form.
const FRACTION_DIGITS: usize = 17;
const EXPONENT_BIAS: i32 = 16383;
const MANTISSA_BITS: i32 = 64;

impl LongDouble {
    /// Reads a number by the rules of [`super::numbers::parse_f64`].
    pub(crate) fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() >= MAX_TEXT_LEN {
            return None;
        }
        let (negative, rest) = split_sign(text);
        let magnitude = match Syntax::of(rest)? {
            Syntax::Infinity => X87DoubleExtended::INFINITY,
            Syntax::Hex(hex) => {
                let (mantissa, exponent) = hex.round(MANTISSA_BITS as u32, 1 - EXPONENT_BIAS as i64 - 63);
                let value = from_parts(mantissa, exponent);
                if value.is_infinite() || (value.is_zero() && !hex.is_zero()) {
                    return None;
                }
                value
            }
            Syntax::Decimal { zero } => {
                let text = std::str::from_utf8(rest).ok()?;
                let read = X87DoubleExtended::from_str_r(text, Round::NearestTiesToEven).ok()?;
                let value = read.value;
                if read.status.contains(Status::OVERFLOW) || value.is_infinite() || (value.is_zero() && !zero) {
                    return None;
                }
                value
            }
        };
        Some(LongDouble(if negative { -magnitude } else { magnitude }))
    }

    pub(crate) fn from_i64(value: i64) -> LongDouble {
        LongDouble(X87DoubleExtended::from_i128(i128::from(value)).value)
    }

    pub(crate) fn is_nan(self) -> bool {
        self.0.is_nan()
    }

    pub(crate) fn is_infinite(self) -> bool {
        self.0.is_infinite()
    }

    /// The text for people: 17 digits after the point, with trailing zeros (and a final point) cut off; `-0` is `0`.
    pub(crate) fn to_human(self) -> String {
        if self.is_nan() {
            return "nan".into();
        }
        if self.is_infinite() {
            return if self.0.is_negative() { "-inf" } else { "inf" }.into();
        }
        let bits = self.0.to_bits();
        let mantissa = bits as u64;
        let biased = ((bits >> 64) & 0x7fff) as i32;
        let exponent = biased.max(1) - EXPONENT_BIAS - (MANTISSA_BITS - 1);
        let mut text = magnitude(mantissa, exponent);
        let kept = text.trim_end_matches('0').trim_end_matches('.').len();
        text.truncate(kept);
        if self.0.is_negative() && text != "0" {
            text.insert(0, '-');
        }
        text
    }
}

impl std::ops::Add for LongDouble {
    type Output = LongDouble;

    fn add(self, by: LongDouble) -> LongDouble {
        LongDouble(self.0.add_r(by.0, Round::NearestTiesToEven).value)
    }
}

/// `mantissa * 2^exponent`, both already rounded to what the format holds.
fn from_parts(mantissa: u128, exponent: i64) -> X87DoubleExtended {
    if mantissa == 0 {
        return X87DoubleExtended::ZERO;
    }
    // A carry out of rounding leaves 65 bits, the lowest of them 0.
    let shift = i64::from(mantissa.leading_zeros()) - 64;
    let (mantissa, exponent) = if shift < 0 { (mantissa >> -shift, exponent - shift) } else { (mantissa, exponent) };
    let shift = shift.max(0).min((exponent + EXPONENT_BIAS as i64 + 62).max(0));
    let mantissa = mantissa << shift;
    let exponent = exponent - shift;
    let biased = exponent + EXPONENT_BIAS as i64 + 63;
    if biased >= 0x7fff {
        return X87DoubleExtended::INFINITY;
    }
    let biased = if mantissa >> 63 == 0 { 0 } else { biased.max(1) };
    X87DoubleExtended::from_bits((biased as u128) << 64 | mantissa)
}

/// `mantissa * 2^exponent` in decimal with 17 digits after the point, rounded to nearest, ties to even.
fn magnitude(mantissa: u64, exponent: i32) -> String {
    if exponent >= 0 {
        let mut text = shifted_decimal(mantissa, exponent as u32);
        text.push('.');
        text.extend(std::iter::repeat_n('0', FRACTION_DIGITS));
        return text;
    }
    let scale = 10u128.pow(FRACTION_DIGITS as u32);
    let cut = exponent.unsigned_abs();
    let wide = u128::from(mantissa);
    // The value is below 2^64 * 10^17 < 2^121, so what a cut of 127 bits or more drops is less than half of the last
    // digit.
    let (whole, numerator) =
        if cut < 64 { (wide >> cut, (wide & ((1 << cut) - 1)) * scale) } else { (0, wide * scale) };
    let (mut fraction, lost, half) =
        if cut < 127 { (numerator >> cut, numerator & ((1 << cut) - 1), 1u128 << (cut - 1)) } else { (0, 0, 1) };
    if lost > half || (lost == half && fraction & 1 == 1) {
        fraction += 1;
    }
    let whole = whole + fraction / scale;
    let fraction = fraction % scale;
    format!("{whole}.{fraction:0width$}", width = FRACTION_DIGITS)
}

/// `mantissa * 2^shift` in decimal.
fn shifted_decimal(mantissa: u64, shift: u32) -> String {
    /// Limbs are base 10^18, lowest first.
    const BASE: u128 = 1_000_000_000_000_000_000;
    let mut limbs = vec![(u128::from(mantissa) % BASE) as u64, (u128::from(mantissa) / BASE) as u64];
    let mut left = shift;
    while left > 0 {
        let by = left.min(60);
        left -= by;
        let mut carry = 0u128;
        for limb in &mut limbs {
            let value = (u128::from(*limb) << by) + carry;
            *limb = (value % BASE) as u64;
            carry = value / BASE;
        }
        while carry > 0 {
            limbs.push((carry % BASE) as u64);
            carry /= BASE;
        }
    }
    while limbs.len() > 1 && limbs.last() == Some(&0) {
        limbs.pop();
    }
    let mut text = limbs.pop().unwrap_or(0).to_string();
    for limb in limbs.iter().rev() {
        text.push_str(&format!("{limb:018}"));
    }
    text
}
