//! Texts as a 7.2 server wrote them, and the C library as a second opinion.

#![allow(unsafe_code)]

use std::ffi::CString;

use proptest::prelude::*;

use super::super::long_double::LongDouble;
use super::*;

#[test]
fn integers_are_read_strictly() {
    for (text, want) in [
        ("0", Some(0)),
        ("-1", Some(-1)),
        ("9223372036854775807", Some(i64::MAX)),
        ("-9223372036854775808", Some(i64::MIN)),
        ("9223372036854775808", None),
        ("-9223372036854775809", None),
        ("99999999999999999999", None),
        ("18446744073709551616", None),
        ("", None),
        ("-", None),
        ("-0", None),
        ("00", None),
        ("01", None),
        ("+1", None),
        (" 1", None),
        ("1 ", None),
        ("1.0", None),
    ] {
        assert_eq!(parse_i64(text.as_bytes()), want, "{text}");
    }
}

#[test]
fn doubles_print_as_a_server_prints_them() {
    for (bits, reply, grisu, g17) in [
        (0x3fb999999999999a, "0.1", "0.1", "0.10000000000000001"),
        (0x4341c37937e08000, "10000000000000000", "1e+16", "10000000000000000"),
        (0x43e0000000000000, "9223372036854776000", "9223372036854776000", "9.2233720368547758e+18"),
        (0x43d0000000000000, "4611686018427387904", "4611686018427388000", "4.6116860184273879e+18"),
        // Not the shortest digits, but those of Grisu2.
        (0x44b52d02c7e14af6, "99999999999999990000000", "99999999999999990000000", "9.9999999999999992e+22"),
        (0x0000000000000001, "5e-324", "5e-324", "4.9406564584124654e-324"),
        (0x7fefffffffffffff, "1.7976931348623157e+308", "1.7976931348623157e+308", "1.7976931348623157e+308"),
        (0x3e7ad7f29abcaf48, "1e-7", "1e-7", "9.9999999999999995e-08"),
        (0x43abc16d674ec800, "1000000000000000000", "1e+18", "1e+18"),
        (0x444b1ae4d6e2ef50, "1e+21", "1e+21", "1e+21"),
        (0xc05ec00000000000, "-123", "-123", "-123"),
        (0x3f1a36e2eb1c432d, "0.0001", "0.0001", "0.0001"),
        (0x40fe240c9fbe76c9, "123456.789", "123456.789", "123456.789"),
        (0x8000000000000000, "-0", "-0", "-0"),
        (0x7ff0000000000000, "inf", "inf", "inf"),
        (0xfff0000000000000, "-inf", "-inf", "-inf"),
        (0xfff8000000000000, "nan", "-nan", "-nan"),
    ] {
        let value = f64::from_bits(bits);
        assert_eq!(f64_text(value).to_string(), reply, "{bits:x}");
        assert_eq!(f64_text_grisu(value).to_string(), grisu, "{bits:x}");
        assert_eq!(f64_text_g17(value).to_string(), g17, "{bits:x}");
    }
    for (value, text) in [(0.0, "0.0000"), (166274.15156, "166274.1516"), (-0.7775, "-0.7775"), (0.00004, "0.0000")] {
        assert_eq!(f64_text_fixed(value, 4).to_string(), text);
    }
}

#[test]
fn doubles_are_read_as_a_server_reads_them() {
    for (text, want) in [
        ("1e5", Some(1e5)),
        ("0x1.8p1", Some(3.0)),
        ("-inf", Some(f64::NEG_INFINITY)),
        ("+Infinity", Some(f64::INFINITY)),
        ("5e-324", Some(5e-324)),
        (".5", Some(0.5)),
        ("5.", Some(5.0)),
        ("0e99999", Some(0.0)),
        ("0x0p99999", Some(0.0)),
        ("0x1p-1074", Some(5e-324)),
        ("0x1p-1075", None),
        ("0x1p1024", None),
        ("1e999", None),
        ("1e-999", None),
        ("nan", None),
        ("", None),
        (".", None),
        ("+", None),
        ("1e", None),
        ("e1", None),
        ("0x", None),
        (" 1", None),
        ("1 ", None),
        ("--1", None),
        ("infin", None),
    ] {
        assert_eq!(parse_f64(text.as_bytes()), want, "{text}");
    }
}

#[test]
fn long_doubles_add_as_on_a_server() {
    for (a, b, sum) in [
        ("3.0", "1.00", "4"),
        ("0.1", "0.2", "0.3"),
        ("5.0e3", "200", "5200"),
        ("17179869184", "17179869184.5", "34359738368.5"),
        ("-1.1", "1.1", "0"),
        ("-0.00000000000000000001", "0", "0"),
        ("10.50", "0.1", "10.6"),
        ("0x1p-3", "1", "1.125"),
        ("999999999999999999", "0.999999999999999", "1000000000000000000"),
        ("1e-20", "1e-17", "0.00000000000000001"),
        ("inf", "1", "inf"),
        ("-inf", "1", "-inf"),
        ("inf", "-inf", "nan"),
    ] {
        let read = |text: &str| LongDouble::parse(text.as_bytes()).expect(text);
        assert_eq!((read(a) + read(b)).to_human(), sum, "{a} + {b}");
    }
    let huge = LongDouble::parse(b"1e4000").expect("in range").to_human();
    assert_eq!(huge.len(), 4000);
    assert!(
        huge.starts_with("999999999999999999996546387309962378493249258350695763130150833304326194330634235548182164")
    );
    assert_eq!((LongDouble::from_i64(i64::MIN) + LongDouble::from_i64(-1)).to_human(), "-9223372036854775809");
    for text in ["1e5000", "1e-5000", "nan", "", " 1", "1 ", "1.2.3"] {
        assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text}");
    }
    assert_eq!(LongDouble::parse(&vec![b'1'; 5 * 1024]), None);
    assert!(LongDouble::parse(&[&b"0."[..], &vec![b'1'; 5 * 1024 - 3]].concat()).is_some());
}

fn c_g17(value: f64) -> String {
    let mut out = [0u8; 64];
    // SAFETY: the buffer is longer than any text of this format.
    let len = unsafe { libc::snprintf(out.as_mut_ptr().cast(), out.len(), c"%.17g".as_ptr(), value) };
    String::from_utf8_lossy(&out[..len as usize]).into_owned()
}

fn c_parse(text: &str) -> f64 {
    let text = CString::new(text).expect("no NUL");
    // SAFETY: the text ends in NUL; no end is asked for.
    unsafe { libc::strtod(text.as_ptr(), std::ptr::null_mut()) }
}

proptest! {
    #[test]
    fn texts_of_doubles_read_back_the_same(bits in any::<u64>(), scale in -40i32..40, digits in any::<i64>()) {
        for value in [f64::from_bits(bits), digits as f64 * 10f64.powi(scale)] {
            if value.is_finite() {
                for text in [f64_text(value), f64_text_grisu(value), f64_text_g17(value)] {
                    prop_assert_eq!(parse_f64(&text).map(f64::to_bits), Some(value.to_bits()), "{}", text);
                }
                prop_assert_eq!(f64_text_g17(value).to_string(), c_g17(value));
            }
        }
    }

    #[test]
    fn hexadecimal_is_read_as_the_c_library_reads_it(
        whole in "[0-9a-f]{1,20}", fraction in "[0-9a-f]{0,20}", power in -1200i32..1200,
    ) {
        let text = format!("0x{whole}.{fraction}p{power}");
        let want = c_parse(&text);
        if let Some(got) = parse_f64(text.as_bytes()) {
            prop_assert_eq!(got.to_bits(), want.to_bits(), "{}", text);
        } else {
            prop_assert!(want.is_infinite() || want == 0.0, "{}", text);
        }
    }

    #[test]
    fn integers_and_anything_else_read_as_text_says(value in any::<i64>(), junk in any::<Vec<u8>>()) {
        prop_assert_eq!(parse_i64(&i64_text(value)), Some(value));
        parse_i64(&junk);
        parse_f64(&junk);
        LongDouble::parse(&junk);
    }

    #[test]
    fn integers_are_exact_as_long_doubles(a in any::<i64>(), b in any::<i32>()) {
        let sum = LongDouble::from_i64(a) + LongDouble::from_i64(i64::from(b));
        let want = i128::from(a) + i128::from(b);
        prop_assert_eq!(sum.to_human(), want.to_string());
    }
}
