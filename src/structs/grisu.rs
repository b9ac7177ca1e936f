//! Doubles to decimal text with Grisu2 (Florian Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with
//! Integers", 2010).
//!
//! Redis prints scores and double replies with this algorithm, which in about one case in a thousand does not find the
//! shortest text. Clients compare such texts, so an algorithm that always finds it would be wrong here: the digits, the
//! power of ten picked for scaling and the layout below are those of a 7.2 server.

use super::numbers::NumText;

/// `mantissa * 2^exponent`.
#[derive(Clone, Copy)]
struct Scaled {
    mantissa: u64,
    exponent: i32,
}

const FRACTION_BITS: u32 = 52;
const HIDDEN: u64 = 1 << FRACTION_BITS;
/// The decimal exponent of the first cached power, and the distance between two.
const FIRST_POWER: i32 = -348;
const POWER_STEP: i32 = 8;
/// Range of the binary exponent of a scaled number in which digits can be taken from 64-bit integers.
const EXPONENT_MIN: i32 = -60;
const EXPONENT_MAX: i32 = -32;

impl Scaled {
    /// Shifted left until bit 63 is set.
    fn normalized(self) -> Scaled {
        let shift = self.mantissa.leading_zeros();
        Scaled { mantissa: self.mantissa << shift, exponent: self.exponent - shift as i32 }
    }

    /// The upper half of the product, rounded.
    fn times(self, by: Scaled) -> Scaled {
        let product = u128::from(self.mantissa) * u128::from(by.mantissa) + (1 << 63);
        Scaled { mantissa: (product >> 64) as u64, exponent: self.exponent + by.exponent + 64 }
    }
}

/// Decimal digits without leading zero, to be read as an integer times `10^exponent`.
struct Digits {
    digits: [u8; 20],
    len: usize,
    exponent: i32,
}

/// The digits of a finite positive double.
fn digits(value: f64) -> Digits {
    let bits = value.to_bits();
    let fraction = bits & (HIDDEN - 1);
    let biased = (bits >> FRACTION_BITS) as i32;
    let exact = if biased == 0 {
        Scaled { mantissa: fraction, exponent: -1074 }
    } else {
        Scaled { mantissa: fraction | HIDDEN, exponent: biased - 1075 }
    };
    // Half way to the neighbours; below a power of two the lower one is half as far away.
    let upper = Scaled { mantissa: (exact.mantissa << 1) + 1, exponent: exact.exponent - 1 }.normalized();
    let nearer = if exact.mantissa == HIDDEN { 2 } else { 1 };
    let lower_exponent = exact.exponent - nearer;
    let lower = Scaled {
        mantissa: ((exact.mantissa << nearer) - 1) << (lower_exponent - upper.exponent),
        exponent: upper.exponent,
    };

    let (power, decimal) = cached_power(upper.exponent);
    let scaled = exact.normalized().times(power);
    let mut upper = upper.times(power);
    let mut lower = lower.times(power);
    // The products are off by at most one: stay inside.
    lower.mantissa += 1;
    upper.mantissa -= 1;
    generate(scaled, upper, lower, -decimal)
}

/// A power of ten that brings a number with this binary exponent into range, and its decimal exponent. Two powers do;
/// the estimate decides which.
fn cached_power(exponent: i32) -> (Scaled, i32) {
    let estimate = (f64::from(-(exponent + POWERS.len() as i32)) * std::f64::consts::LOG10_2) as i32;
    let mut index = (estimate - FIRST_POWER) / POWER_STEP;
    loop {
        let (mantissa, of_power) = POWERS[index as usize];
        let result = exponent + of_power + 64;
        if result < EXPONENT_MIN {
            index += 1;
        } else if result > EXPONENT_MAX {
            index -= 1;
        } else {
            let power = Scaled { mantissa, exponent: of_power };
            return (power, FIRST_POWER + index * POWER_STEP);
        }
    }
}

/// Produces digits of `upper` until the rest is between `lower` and `upper`, then moves the last digit towards `value`.
fn generate(value: Scaled, upper: Scaled, lower: Scaled, exponent: i32) -> Digits {
    let shift = -upper.exponent as u32;
    let one = 1u64 << shift;
    let distance = upper.mantissa - value.mantissa;
    let mut delta = upper.mantissa - lower.mantissa;
    let mut whole = upper.mantissa >> shift;
    let mut fraction = upper.mantissa & (one - 1);
    let mut out = Digits { digits: [0; 20], len: 0, exponent };
    let mut kappa = 10;
    let mut divisor = 1_000_000_000;
    while kappa > 0 {
        let digit = whole / divisor;
        out.push(digit);
        whole %= divisor;
        kappa -= 1;
        let rest = (whole << shift) + fraction;
        if rest <= delta {
            out.exponent += kappa;
            out.round(delta, rest, divisor << shift, distance);
            return out;
        }
        divisor /= 10;
    }
    let mut unit = 1u64;
    loop {
        fraction = fraction.wrapping_mul(10);
        delta = delta.wrapping_mul(10);
        unit = unit.wrapping_mul(10);
        kappa -= 1;
        out.push(fraction >> shift);
        fraction &= one - 1;
        if fraction < delta {
            out.exponent += kappa;
            out.round(delta, fraction, one, distance.wrapping_mul(unit));
            return out;
        }
    }
}

impl Digits {
    fn push(&mut self, digit: u64) {
        if (digit != 0 || self.len > 0) && self.len < self.digits.len() {
            self.digits[self.len] = b'0' + digit as u8;
            self.len += 1;
        }
    }

    /// Lowers the last digit as long as that brings the text nearer to the value, which is `distance` below the upper
    /// bound.
    fn round(&mut self, delta: u64, mut rest: u64, step: u64, distance: u64) {
        while rest < distance
            && delta - rest >= step
            && (rest.wrapping_add(step) < distance || distance - rest > rest.wrapping_add(step).wrapping_sub(distance))
        {
            self.digits[self.len - 1] -= 1;
            rest += step;
        }
    }
}

/// Appends a finite double that is not zero.
pub(super) fn write(out: &mut NumText, value: f64) {
    if value < 0.0 {
        out.push(b'-');
    }
    let negative = value < 0.0;
    let found = digits(value.abs());
    let mut text = &found.digits[..found.len];
    let magnitude = (found.exponent + text.len() as i32 - 1).unsigned_abs() as usize;

    if found.exponent >= 0 && magnitude < text.len() + 7 {
        out.extend(text);
        out.zeros(found.exponent as usize);
        return;
    }
    if found.exponent < 0 && (found.exponent > -7 || magnitude < 4) {
        let behind = found.exponent.unsigned_abs() as usize;
        if behind >= text.len() {
            out.extend(b"0.");
            out.zeros(behind - text.len());
            out.extend(text);
        } else {
            let (whole, fraction) = text.split_at(text.len() - behind);
            out.extend(whole);
            out.push(b'.');
            out.extend(fraction);
        }
        return;
    }
    text = &text[..text.len().min(18 - usize::from(negative))];
    out.push(text[0]);
    if text.len() > 1 {
        out.push(b'.');
        out.extend(&text[1..]);
    }
    out.push(b'e');
    out.push(if found.exponent + (text.len() as i32) < 1 { b'-' } else { b'+' });
    out.extend(itoa::Buffer::new().format(magnitude).as_bytes());
}

/// `10^(-348 + 8i)` as a normalized mantissa, rounded to nearest, and a binary exponent.
const POWERS: [(u64, i32); 87] = [
    (0xfa8fd5a0081c0288, -1220),
    (0xbaaee17fa23ebf76, -1193),
    (0x8b16fb203055ac76, -1166),
    (0xcf42894a5dce35ea, -1140),
    (0x9a6bb0aa55653b2d, -1113),
    (0xe61acf033d1a45df, -1087),
    (0xab70fe17c79ac6ca, -1060),
    (0xff77b1fcbebcdc4f, -1034),
    (0xbe5691ef416bd60c, -1007),
    (0x8dd01fad907ffc3c, -980),
    (0xd3515c2831559a83, -954),
    (0x9d71ac8fada6c9b5, -927),
    (0xea9c227723ee8bcb, -901),
    (0xaecc49914078536d, -874),
    (0x823c12795db6ce57, -847),
    (0xc21094364dfb5637, -821),
    (0x9096ea6f3848984f, -794),
    (0xd77485cb25823ac7, -768),
    (0xa086cfcd97bf97f4, -741),
    (0xef340a98172aace5, -715),
    (0xb23867fb2a35b28e, -688),
    (0x84c8d4dfd2c63f3b, -661),
    (0xc5dd44271ad3cdba, -635),
    (0x936b9fcebb25c996, -608),
    (0xdbac6c247d62a584, -582),
    (0xa3ab66580d5fdaf6, -555),
    (0xf3e2f893dec3f126, -529),
    (0xb5b5ada8aaff80b8, -502),
    (0x87625f056c7c4a8b, -475),
    (0xc9bcff6034c13053, -449),
    (0x964e858c91ba2655, -422),
    (0xdff9772470297ebd, -396),
    (0xa6dfbd9fb8e5b88f, -369),
    (0xf8a95fcf88747d94, -343),
    (0xb94470938fa89bcf, -316),
    (0x8a08f0f8bf0f156b, -289),
    (0xcdb02555653131b6, -263),
    (0x993fe2c6d07b7fac, -236),
    (0xe45c10c42a2b3b06, -210),
    (0xaa242499697392d3, -183),
    (0xfd87b5f28300ca0e, -157),
    (0xbce5086492111aeb, -130),
    (0x8cbccc096f5088cc, -103),
    (0xd1b71758e219652c, -77),
    (0x9c40000000000000, -50),
    (0xe8d4a51000000000, -24),
    (0xad78ebc5ac620000, 3),
    (0x813f3978f8940984, 30),
    (0xc097ce7bc90715b3, 56),
    (0x8f7e32ce7bea5c70, 83),
    (0xd5d238a4abe98068, 109),
    (0x9f4f2726179a2245, 136),
    (0xed63a231d4c4fb27, 162),
    (0xb0de65388cc8ada8, 189),
    (0x83c7088e1aab65db, 216),
    (0xc45d1df942711d9a, 242),
    (0x924d692ca61be758, 269),
    (0xda01ee641a708dea, 295),
    (0xa26da3999aef774a, 322),
    (0xf209787bb47d6b85, 348),
    (0xb454e4a179dd1877, 375),
    (0x865b86925b9bc5c2, 402),
    (0xc83553c5c8965d3d, 428),
    (0x952ab45cfa97a0b3, 455),
    (0xde469fbd99a05fe3, 481),
    (0xa59bc234db398c25, 508),
    (0xf6c69a72a3989f5c, 534),
    (0xb7dcbf5354e9bece, 561),
    (0x88fcf317f22241e2, 588),
    (0xcc20ce9bd35c78a5, 614),
    (0x98165af37b2153df, 641),
    (0xe2a0b5dc971f303a, 667),
    (0xa8d9d1535ce3b396, 694),
    (0xfb9b7cd9a4a7443c, 720),
    (0xbb764c4ca7a44410, 747),
    (0x8bab8eefb6409c1a, 774),
    (0xd01fef10a657842c, 800),
    (0x9b10a4e5e9913129, 827),
    (0xe7109bfba19c0c9d, 853),
    (0xac2820d9623bf429, 880),
    (0x80444b5e7aa7cf85, 907),
    (0xbf21e44003acdd2d, 933),
    (0x8e679c2f5e44ff8f, 960),
    (0xd433179d9c8cb841, 986),
    (0x9e19db92b4e31ba9, 1013),
    (0xeb96bf6ebadf77d9, 1039),
    (0xaf87023b9bf0ee6b, 1066),
];
