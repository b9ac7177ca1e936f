//! `cjson`: tables to and from JSON text (RFC 8259), with settings that scripts can change.
//!
//! Neither direction recurses: open containers are on Lua's stack, whose limit bounds them where the settings do not.

use std::cell::Cell;

use super::buffer::{Buffer, Full};
use super::call::{self, Answer, Call, Fault, Native, Open, Settings, Type, Work};

/// Makes the library's table, with settings of its own.
pub(crate) fn register(lua: &mlua::Lua) -> mlua::Result<mlua::Table> {
    call::open(lua, push)
}

const FUNCTIONS: &[(&std::ffi::CStr, Native)] = &[
    (c"encode", encode),
    (c"decode", decode),
    (c"encode_sparse_array", set_sparse),
    (c"encode_max_depth", |call| set_one(call, |s| &mut s.encode_max_depth, 1, i32::MAX)),
    (c"decode_max_depth", |call| set_one(call, |s| &mut s.decode_max_depth, 1, i32::MAX)),
    (c"encode_number_precision", |call| set_one(call, |s| &mut s.precision, 1, 14)),
    (c"encode_keep_buffer", |call| set_choice(call, |s| &mut s.keep_buffer, SWITCH)),
    (c"encode_invalid_numbers", |call| set_choice(call, |s| &mut s.encode_invalid, INVALID_NUMBERS)),
    (c"decode_invalid_numbers", |call| set_choice(call, |s| &mut s.decode_invalid, SWITCH)),
    (c"new", |call| {
        call.need(8, "too many arguments")?;
        push(call);
        Ok(1)
    }),
];

fn push(call: Call<'_>) {
    call::push_module(call, FUNCTIONS, Some(Options::default()));
    call.push_null();
    call.set_field(c"null");
    call.set_text(c"_NAME", b"cjson");
    call.set_text(c"_VERSION", b"2.1.0");
}

/// The value "on" of settings that are off or on.
const ON: i32 = 1;
/// The setting of invalid numbers that makes them null.
const NULL: i32 = 2;
const SWITCH: &[&str] = &["off", "on"];
const INVALID_NUMBERS: &[&str] = &["off", "on", "null"];

#[derive(Clone, Copy)]
struct Options {
    sparse_convert: i32,
    sparse_ratio: i32,
    sparse_safe: i32,
    encode_max_depth: i32,
    decode_max_depth: i32,
    encode_invalid: i32,
    decode_invalid: i32,
    /// Significant digits of numbers.
    precision: i32,
    /// Kept for scripts that read it; here buffers end with the call.
    keep_buffer: i32,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            sparse_convert: 0,
            sparse_ratio: 2,
            sparse_safe: 10,
            encode_max_depth: 1000,
            decode_max_depth: 1000,
            encode_invalid: 0,
            decode_invalid: ON,
            precision: 14,
            keep_buffer: ON,
        }
    }
}

impl Settings for Options {}

type Field = fn(&mut Options) -> &mut i32;

/// At most `max` arguments, nil for those that are missing.
fn take_args(call: Call<'_>, max: usize) -> Result<&Cell<Options>, Fault> {
    if call.top() > max {
        return Err(Fault::argument(max + 1, format_args!("found too many arguments")));
    }
    while call.top() < max {
        call.push_nil();
    }
    Ok(call.settings::<Options>())
}

fn change(settings: &Cell<Options>, field: Field, value: i32) {
    let mut options = settings.get();
    *field(&mut options) = value;
    settings.set(options);
}

/// Sets a number if the argument gives one, and pushes the current value.
fn number_setting(
    call: Call<'_>,
    index: usize,
    settings: &Cell<Options>,
    field: Field,
    min: i32,
    max: i32,
) -> Result<(), Fault> {
    if call.type_of(index as isize) != Type::Nil {
        let value = call.integer_arg(index)? as i32;
        if !(min..=max).contains(&value) {
            return Err(Fault::argument(1, format_args!("expected integer between {min} and {max}")));
        }
        change(settings, field, value);
    }
    call.push_number((*field(&mut settings.get())).into());
    Ok(())
}

/// Sets a choice if the argument gives one, and pushes the current value.
fn choice_setting(
    call: Call<'_>,
    index: usize,
    settings: &Cell<Options>,
    field: Field,
    choices: &[&str],
) -> Result<(), Fault> {
    match call.type_of(index as isize) {
        Type::Nil => {}
        Type::Boolean => change(settings, field, call.boolean(index as isize).into()),
        _ => {
            let word = call.string_arg(index)?;
            let word = &word[..memchr::memchr(0, word).unwrap_or(word.len())];
            match choices.iter().position(|choice| choice.as_bytes() == word) {
                Some(choice) => change(settings, field, choice as i32),
                None => {
                    let fault = Fault::argument(index, format_args!("invalid option '"));
                    return Err(word.iter().fold(fault, |fault, &byte| fault.with_byte(byte)).with_byte(b'\''));
                }
            }
        }
    }
    match *field(&mut settings.get()) {
        value @ 0..=ON => call.push_boolean(value == ON),
        value => call.push_bytes(choices[value as usize].as_bytes()),
    }
    Ok(())
}

fn set_one(call: Call<'_>, field: Field, min: i32, max: i32) -> Answer {
    let settings = take_args(call, 1)?;
    number_setting(call, 1, settings, field, min, max)?;
    Ok(1)
}

fn set_choice(call: Call<'_>, field: Field, choices: &[&str]) -> Answer {
    let settings = take_args(call, 1)?;
    choice_setting(call, 1, settings, field, choices)?;
    Ok(1)
}

/// `encode_sparse_array([convert [, ratio [, safe]]])`.
fn set_sparse(call: Call<'_>) -> Answer {
    let settings = take_args(call, 3)?;
    choice_setting(call, 1, settings, |s| &mut s.sparse_convert, SWITCH)?;
    number_setting(call, 2, settings, |s| &mut s.sparse_ratio, 0, i32::MAX)?;
    number_setting(call, 3, settings, |s| &mut s.sparse_safe, 0, i32::MAX)?;
    Ok(3)
}

fn one_argument(call: Call<'_>) -> Result<(), Fault> {
    match call.top() {
        1 => Ok(()),
        _ => Err(Fault::argument(1, format_args!("expected 1 argument"))),
    }
}

/// `encode(value)`.
fn encode(call: Call<'_>) -> Answer {
    one_argument(call)?;
    let options = call.settings::<Options>().get();
    let work = call.work();
    call.push_copy(1);
    begin_value(call, &options, work)?;
    while let Some(open) = work.open.last_mut() {
        // On the stack: the container, and for a map the key of the pair that was last written.
        let first = open.done == 0;
        let more = match open.map {
            true => call.next(),
            false => {
                let more = open.done < open.len;
                if more {
                    call.element(open.done as i32 + 1);
                }
                more
            }
        };
        if !more {
            work.out.push(if open.map { b'}' } else { b']' })?;
            work.open.pop();
            call.pop(1);
            continue;
        }
        open.done += 1;
        if !first {
            work.out.push(b',')?;
        }
        if open.map {
            match call.type_of(-2) {
                Type::Number => {
                    work.out.push(b'"')?;
                    write_number(call, -2, &options, &mut work.out)?;
                    work.out.push(b'"')?;
                }
                Type::String => write_string(call.bytes(-2), &mut work.out)?,
                _ => return Err(cannot(call, -2, "table key must be a number or string")),
            }
            work.out.push(b':')?;
        }
        begin_value(call, &options, work)?;
    }
    call.push_bytes(work.out.as_bytes());
    Ok(1)
}

fn cannot(call: Call<'_>, index: isize, reason: &str) -> Fault {
    Fault::error(format_args!("Cannot serialise {}: {reason}", call.type_name(index)))
}

/// Writes the value on top and pops it; for a table writes only the opening, and the table stays.
fn begin_value(call: Call<'_>, options: &Options, work: &mut Work) -> Result<(), Fault> {
    match call.type_of(-1) {
        Type::String => write_string(call.bytes(-1), &mut work.out)?,
        Type::Number => write_number(call, -1, options, &mut work.out)?,
        Type::Boolean => work.out.extend(if call.boolean(-1) { b"true" } else { b"false" })?,
        Type::Nil => work.out.extend(b"null")?,
        Type::LightUserData if call.is_null(-1) => work.out.extend(b"null")?,
        Type::Table => {
            let depth = work.open.len() + 1;
            if depth > options.encode_max_depth as usize || !call.reserve(3) {
                return Err(Fault::error(format_args!("Cannot serialise, excessive nesting ({depth})")));
            }
            let len = array_length(call, options)?;
            match len {
                Some(_) => work.out.push(b'[')?,
                None => {
                    work.out.push(b'{')?;
                    call.push_nil();
                }
            }
            work.open.push(Open { map: len.is_none(), done: 0, len: len.unwrap_or(0) });
            return Ok(());
        }
        _ => return Err(cannot(call, -1, "type not supported")),
    }
    call.pop(1);
    Ok(())
}

/// The number of elements if the table on top is to be written as an array; `None`: as an object.
fn array_length(call: Call<'_>, options: &Options) -> Result<Option<usize>, Fault> {
    let mut max = 0i32;
    let mut items = 0i32;
    call.push_nil();
    while call.next() {
        let key = if call.type_of(-2) == Type::Number { call.to_number(-2) } else { 0.0 };
        if key < 1.0 || key.floor() != key {
            call.pop(2);
            return Ok(None);
        }
        if key > max.into() {
            max = call::truncate_to_i32(key);
        }
        items = items.wrapping_add(1);
        call.pop(1);
    }
    let sparse =
        options.sparse_ratio > 0 && max > items.wrapping_mul(options.sparse_ratio) && max > options.sparse_safe;
    if sparse && options.sparse_convert == 0 {
        return Err(cannot(call, -1, "excessively sparse array"));
    }
    Ok(if sparse || max <= 0 { None } else { Some(max as usize) })
}

fn write_number(call: Call<'_>, index: isize, options: &Options, out: &mut Buffer) -> Result<(), Fault> {
    let value = call.to_number(index);
    if value.is_finite() {
        return Ok(write_digits(value, options.precision as usize, out)?);
    }
    let text: &[u8] = match options.encode_invalid {
        0 => return Err(cannot(call, index, "must not be NaN or Inf")),
        NULL => b"null",
        _ if value.is_nan() => b"nan",
        _ if value < 0.0 => b"-inf",
        _ => b"inf",
    };
    Ok(out.extend(text)?)
}

/// Writes a finite double with at most so many significant digits, as C's `%g`.
fn write_digits(value: f64, precision: usize, out: &mut Buffer) -> Result<(), Full> {
    if value.abs() < 1e14
        && value.abs() < 10f64.powi(precision as i32)
        && value.trunc() == value
        && (value != 0.0 || value.is_sign_positive())
    {
        return out.extend(itoa::Buffer::new().format(value as i64).as_bytes());
    }
    let text = format!("{:.*e}", precision - 1, value.abs());
    let (digits, exponent) = text.split_once('e').expect("an exponent was asked for");
    let exponent: i32 = exponent.parse().expect("a small exponent");
    let digits = digits.replace('.', "");
    let kept = digits.trim_end_matches('0').len().max(1);
    let digits = &digits.as_bytes()[..kept];
    if value.is_sign_negative() {
        out.push(b'-')?;
    }
    if exponent < -4 || exponent >= precision as i32 {
        out.push(digits[0])?;
        if kept > 1 {
            out.push(b'.')?;
            out.extend(&digits[1..])?;
        }
        out.extend(if exponent < 0 { b"e-" } else { b"e+" })?;
        if exponent.abs() < 10 {
            out.push(b'0')?;
        }
        out.extend(itoa::Buffer::new().format(exponent.abs()).as_bytes())?;
    } else if exponent < 0 {
        out.extend(b"0.")?;
        out.extend(&b"000"[..(-exponent - 1) as usize])?;
        out.extend(digits)?;
    } else {
        let whole = exponent as usize + 1;
        out.extend(&digits[..kept.min(whole)])?;
        for _ in kept..whole {
            out.push(b'0')?;
        }
        if kept > whole {
            out.push(b'.')?;
            out.extend(&digits[whole..])?;
        }
    }
    Ok(())
}

fn write_string(text: &[u8], out: &mut Buffer) -> Result<(), Full> {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"')?;
    let mut plain = 0;
    for (at, &byte) in text.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' | b'/' => byte,
            8 => b'b',
            9 => b't',
            10 => b'n',
            12 => b'f',
            13 => b'r',
            0..0x20 | 0x7f => 0,
            _ => continue,
        };
        out.extend(&text[plain..at])?;
        plain = at + 1;
        match short {
            0 => out.extend(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]])?,
            short => out.extend(&[b'\\', short])?,
        }
    }
    out.extend(&text[plain..])?;
    out.push(b'"')
}

/// A token of JSON text.
#[derive(Clone, Copy, PartialEq)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    /// A string; its text was written to the reader's output.
    String,
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Broken(&'static str),
}

impl Token {
    /// Its name in error texts.
    fn name(self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::String => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Broken(reason) => reason,
        }
    }
}

struct Reader<'a> {
    /// Ends at the first NUL; there is one after it.
    text: &'a [u8],
    at: usize,
    /// Where the last token is, or what is wrong in it.
    token_at: usize,
    invalid_numbers: bool,
}

impl Reader<'_> {
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn broken(&mut self, reason: &'static str) -> Token {
        self.token_at = self.at;
        Token::Broken(reason)
    }

    /// The next token; the text of a string goes to `out`.
    fn next(&mut self, out: &mut Vec<u8>) -> Token {
        while matches!(self.byte(self.at), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.token_at = self.at;
        let single = match self.byte(self.at) {
            0 => return Token::End,
            b'"' => return self.string(out),
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            b'-' | b'0'..=b'9' => {
                if !self.invalid_numbers && self.is_invalid_number() {
                    return self.broken("invalid number");
                }
                return self.number();
            }
            b'f' | b'i' | b'I' | b'n' | b'N' | b't' | b'+' => return self.word(),
            _ => return self.broken("invalid token"),
        };
        self.at += 1;
        single
    }

    fn word(&mut self) -> Token {
        for (word, token) in [("true", Token::Boolean(true)), ("false", Token::Boolean(false)), ("null", Token::Null)] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return token;
            }
        }
        match self.invalid_numbers && self.is_invalid_number() {
            true => self.number(),
            false => self.broken("invalid token"),
        }
    }

    /// Whether this is a number for C, but not in JSON.
    fn is_invalid_number(&self) -> bool {
        let mut at = self.at;
        if self.byte(at) == b'+' {
            return true;
        }
        if self.byte(at) == b'-' {
            at += 1;
        }
        match self.byte(at) {
            b'0' => matches!(self.byte(at + 1), b'x' | b'X' | b'0'..=b'9'),
            // C compares signed characters here.
            first if (first as i8) <= b'9' as i8 => false,
            _ => self.text[at..]
                .get(..3)
                .is_some_and(|word| word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")),
        }
    }

    fn number(&mut self) -> Token {
        match call::leading_number(&self.text[self.at..]) {
            (_, 0) => self.broken("invalid number"),
            (value, len) => {
                self.at += len;
                Token::Number(value)
            }
        }
    }

    fn string(&mut self, out: &mut Vec<u8>) -> Token {
        out.clear();
        self.at += 1;
        loop {
            let plain = self.text[self.at..].iter().take_while(|&&byte| byte != b'"' && byte != b'\\').count();
            out.extend_from_slice(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.byte(self.at) {
                b'"' => {
                    self.at += 1;
                    return Token::String;
                }
                b'\\' => {}
                _ => return self.broken("unexpected end of string"),
            }
            let escaped = match self.byte(self.at + 1) {
                byte @ (b'"' | b'\\' | b'/') => byte,
                b'b' => 8,
                b't' => 9,
                b'n' => 10,
                b'f' => 12,
                b'r' => 13,
                b'u' => match self.unicode(out) {
                    Some(len) => {
                        self.at += len;
                        continue;
                    }
                    None => return self.broken("invalid unicode escape code"),
                },
                _ => return self.broken("invalid escape code"),
            };
            out.push(escaped);
            self.at += 2;
        }
    }

    /// The code unit of `\uXXXX` at `at`.
    fn code_unit(&self, at: usize) -> Option<u32> {
        let digits = self.text.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
    }

    /// Decodes the escape here and returns its length: 12 bytes for a pair of surrogates.
    fn unicode(&self, out: &mut Vec<u8>) -> Option<usize> {
        let first = self.code_unit(self.at)?;
        let (code, len) = match first {
            0xd800..0xdc00 => match self.code_unit(self.at + 6)? {
                low @ 0xdc00..0xe000 => (0x10000 + ((first & 0x3ff) << 10 | low & 0x3ff), 12),
                _ => return None,
            },
            _ => (first, 6),
        };
        out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
        Some(len)
    }

    fn expected(&self, what: &str, found: Token) -> Fault {
        Fault::error(format_args!("Expected {what} but found {} at character {}", found.name(), self.token_at + 1))
    }

    /// Pushes the key of a pair, whose token was read, and returns the token of the value.
    fn key(&mut self, call: Call<'_>, token: Token, out: &mut Vec<u8>) -> Result<Token, Fault> {
        if token != Token::String {
            return Err(self.expected("object key string", token));
        }
        call.push_bytes(out);
        match self.next(out) {
            Token::Colon => Ok(self.next(out)),
            token => Err(self.expected("colon", token)),
        }
    }

    /// Pushes a table for an object or array that begins, and returns the token of its first value; `None`: it has none.
    fn begin(
        &mut self,
        call: Call<'_>,
        map: bool,
        max_depth: usize,
        open: &mut Vec<Open>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Token>, Fault> {
        let depth = open.len() + 1;
        if depth > max_depth || !call.reserve(if map { 3 } else { 2 }) {
            let at = self.at;
            return Err(Fault::error(format_args!(
                "Found too many nested data structures ({depth}) at character {at}"
            )));
        }
        call.push_table();
        let token = self.next(out);
        if token == if map { Token::ObjectEnd } else { Token::ArrayEnd } {
            return Ok(None);
        }
        open.push(Open { map, done: 0, len: 0 });
        if map { self.key(call, token, out).map(Some) } else { Ok(Some(token)) }
    }

    /// A value is complete, and perhaps containers that it was the last of: puts them where they belong, and returns the token of
    /// the next value; `None` at the end.
    fn end_value(&mut self, call: Call<'_>, open: &mut Vec<Open>, out: &mut Vec<u8>) -> Result<Option<Token>, Fault> {
        while let Some(container) = open.last_mut() {
            container.done += 1;
            let map = container.map;
            match map {
                true => call.set_pair(),
                false => call.set_element(container.done as i32),
            }
            match (self.next(out), map) {
                (Token::ObjectEnd, true) | (Token::ArrayEnd, false) => {
                    open.pop();
                }
                (Token::Comma, true) => {
                    let token = self.next(out);
                    return self.key(call, token, out).map(Some);
                }
                (Token::Comma, false) => return Ok(Some(self.next(out))),
                (token, true) => return Err(self.expected("comma or object end", token)),
                (token, false) => return Err(self.expected("comma or array end", token)),
            }
        }
        match self.next(out) {
            Token::End => Ok(None),
            token => Err(self.expected("the end", token)),
        }
    }
}

/// `decode(text)`.
fn decode(call: Call<'_>) -> Answer {
    one_argument(call)?;
    let options = call.settings::<Options>().get();
    let text = call.string_arg(1)?;
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(Fault::error(format_args!("JSON parser does not support UTF-16 or UTF-32")));
    }
    let Work { out, open } = call.work();
    // What is decoded is never longer than its text.
    let out = out.with_room(text.len())?;
    let text = &text[..memchr::memchr(0, text).unwrap_or(text.len())];
    let mut reader = Reader { text, at: 0, token_at: 0, invalid_numbers: options.decode_invalid == ON };
    let mut token = reader.next(out);
    loop {
        match token {
            Token::String => call.push_bytes(out),
            Token::Number(value) => call.push_number(value),
            Token::Boolean(value) => call.push_boolean(value),
            Token::Null => call.push_null(),
            Token::ObjectBegin | Token::ArrayBegin => {
                let map = token == Token::ObjectBegin;
                if let Some(first) = reader.begin(call, map, options.decode_max_depth as usize, open, out)? {
                    token = first;
                    continue;
                }
            }
            _ => return Err(reader.expected("value", token)),
        }
        match reader.end_value(call, open, out)? {
            Some(next) => token = next,
            None => return Ok(1),
        }
    }
}

#[cfg(test)]
mod tests {
    fn eval(code: &str) -> String {
        super::super::tests::eval("cjson", super::register, code)
    }

    #[test]
    fn values_are_written() {
        assert_eq!(eval(r#"cjson.encode({1, 'a/"\\', true, cjson.null, {}})"#), r#"[1,"a\/\"\\",true,null,{}]"#);
        assert_eq!(eval("cjson.encode({[1] = 1, [3] = 3}), cjson.encode({a = {1.5}})"), r#"[1,null,3] {"a":[1.5]}"#);
        assert_eq!(eval("cjson.encode('\\0\\127\\n')"), r#""\u0000\u007f\n""#);
        assert_eq!(
            eval("cjson.encode({0.1, 1e15, 1e14, 123456789012345, 1e-5, 0.0001, -0.0, 3.14159265358979, 1e300})"),
            "[0.1,1e+15,1e+14,1.2345678901234e+14,1e-05,0.0001,-0,3.1415926535898,1e+300]"
        );
    }

    #[test]
    fn values_are_read() {
        assert_eq!(
            eval(r#"unpack(cjson.decode('[1, -2.5e1, "x\\u00e9\\ud83d\\ude00", true, 0x10]'))"#),
            "1 -25 x\u{e9}\u{1f600} true 16"
        );
        assert_eq!(eval(r#"cjson.decode('{"a":{"b":[7]}}').a.b[1], cjson.decode(' null ') == cjson.null"#), "7 true");
        assert_eq!(eval("#cjson.decode(('['):rep(1000) .. (']'):rep(1000))"), "1");
    }

    #[test]
    fn nesting_is_bounded() {
        assert_eq!(
            eval("cjson.decode(('['):rep(1001))"),
            "test:1: Found too many nested data structures (1001) at character 1001"
        );
        assert!(
            eval("cjson.decode_max_depth(100000) and cjson.decode(('['):rep(20000))")
                .starts_with("test:1: Found too many nested data structures (79")
        );
        let itself = |depth| {
            format!("(function() local t = {{}} t.t = t cjson.encode_max_depth({depth}) return cjson.encode(t) end)()")
        };
        assert_eq!(eval(&itself(1000)), "test:1: Cannot serialise, excessive nesting (1001)");
        assert!(eval(&itself(100_000)).starts_with("test:1: Cannot serialise, excessive nesting (39"));
    }

    #[test]
    fn errors() {
        for (code, error) in [
            ("cjson.encode()", "test:1: bad argument #1 to 'encode' (expected 1 argument)"),
            ("cjson.encode(print)", "test:1: Cannot serialise function: type not supported"),
            ("cjson.encode({[1]=1,[50]=2})", "test:1: Cannot serialise table: excessively sparse array"),
            ("cjson.encode({[{}]=1})", "test:1: Cannot serialise table: table key must be a number or string"),
            ("cjson.encode(0/0)", "test:1: Cannot serialise number: must not be NaN or Inf"),
            ("cjson.decode('')", "test:1: Expected value but found T_END at character 1"),
            ("cjson.decode('[1,]')", "test:1: Expected value but found T_ARR_END at character 4"),
            ("cjson.decode('[1 2]')", "test:1: Expected comma or array end but found T_NUMBER at character 4"),
            ("cjson.decode('{1:2}')", "test:1: Expected object key string but found T_NUMBER at character 2"),
            ("cjson.decode('\"ab')", "test:1: Expected value but found unexpected end of string at character 4"),
            ("cjson.decode('\"\\\\q\"')", "test:1: Expected value but found invalid escape code at character 2"),
            (
                "cjson.decode('\"\\\\ud800\"')",
                "test:1: Expected value but found invalid unicode escape code at character 2",
            ),
            ("cjson.decode('nope')", "test:1: Expected value but found invalid token at character 1"),
            ("cjson.decode('a\\0')", "test:1: JSON parser does not support UTF-16 or UTF-32"),
            (
                "cjson.encode_max_depth(0)",
                "test:1: bad argument #1 to 'encode_max_depth' (expected integer between 1 and 2147483647)",
            ),
            (
                "cjson.encode_max_depth(1, 2)",
                "test:1: bad argument #2 to 'encode_max_depth' (found too many arguments)",
            ),
            (
                "cjson.encode_invalid_numbers('x')",
                "test:1: bad argument #1 to 'encode_invalid_numbers' (invalid option 'x')",
            ),
        ] {
            assert_eq!(eval(code), error, "{code}");
        }
    }

    #[test]
    fn settings() {
        assert_eq!(eval("cjson.encode_sparse_array(true, 0, 5)"), "true 0 5");
        assert_eq!(eval("cjson.encode_sparse_array(true) and cjson.encode({[1]=1,[50]=2})"), r#"{"1":1,"50":2}"#);
        assert_eq!(eval("cjson.encode_invalid_numbers('null'), cjson.encode(1/0)"), "null null");
        assert_eq!(eval("cjson.encode_invalid_numbers(true), cjson.encode({1/0, -1/0, 0/0})"), "true [inf,-inf,nan]");
        assert_eq!(eval("cjson.encode_number_precision(3), cjson.encode({3.14159, 12345})"), "3 [3.14,1.23e+04]");
        assert_eq!(
            eval("cjson.decode_invalid_numbers(false), pcall(cjson.decode, '0x10')"),
            "false false Expected value but found invalid number at character 1"
        );
        assert_eq!(
            eval("cjson.encode_max_depth(5), cjson.new().encode_max_depth(), cjson.encode_keep_buffer(false)"),
            "5 1000 false"
        );
    }
}
