//! Replies as text: the terminal layout with indices and quotes, raw, CSV and JSON.
//!
//! Scripts depend on these layouts byte by byte; they are those of redis-cli 7.2.

use crate::resp::reply_reader::Reply;
use crate::structs::bytes::append_quoted;

/// How replies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutputMode {
    /// For people: types, quotes, numbered elements.
    Standard,
    /// The bytes of the reply, for pipes.
    Raw,
    /// One line of comma separated, quoted values.
    Csv,
    /// JSON with UTF-8 text as it is.
    Json,
    /// JSON in ASCII, other bytes as `\\xHH`.
    QuotedJson,
}

/// What separates things in raw output.
#[derive(Debug, Clone)]
pub(crate) struct Delimiters {
    /// Between the elements of one reply (`-d`).
    pub(crate) element: Vec<u8>,
    /// After every reply (`-D`).
    pub(crate) reply: Vec<u8>,
}

impl Default for Delimiters {
    fn default() -> Self {
        Delimiters { element: b"\n".to_vec(), reply: b"\n".to_vec() }
    }
}

/// The whole text to print for a reply. `verbatim` replies (such as INFO's) are printed as they came, whatever the
/// mode.
pub(crate) fn render(reply: &Reply, mode: OutputMode, verbatim: bool, delimiters: &Delimiters) -> Vec<u8> {
    let mut out = Vec::new();
    if verbatim {
        raw(reply, &delimiters.element, &mut out);
        return out;
    }
    match mode {
        OutputMode::Standard => standard(reply, "", &mut out),
        OutputMode::Raw => {
            raw(reply, &delimiters.element, &mut out);
            out.extend_from_slice(&delimiters.reply);
        }
        OutputMode::Csv => {
            csv(reply, &mut out);
            out.push(b'\n');
        }
        OutputMode::Json | OutputMode::QuotedJson => {
            json(reply, mode == OutputMode::QuotedJson, &mut out);
            out.push(b'\n');
        }
    }
    out
}

/// A RESP3 invalidation message on a terminal, or `None` for any other reply.
pub(crate) fn invalidation(reply: &Reply) -> Option<Vec<u8>> {
    let Reply::Push(items) = reply else {
        return None;
    };
    let [Reply::Bulk(kind), Reply::Array(keys)] = items.as_slice() else {
        return None;
    };
    if kind != b"invalidate" {
        return None;
    }
    let mut out = b"-> invalidate: ".to_vec();
    for (index, key) in keys.iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        out.push(b'\'');
        out.extend_from_slice(key.text().unwrap_or_default());
        out.push(b'\'');
    }
    out.push(b'\n');
    Some(out)
}

/// The terminal layout. Every reply ends in a newline; `indent` is what precedes the lines
/// of a nested reply, except its first.
pub(crate) fn standard(reply: &Reply, indent: &str, out: &mut Vec<u8>) {
    let put = |out: &mut Vec<u8>, head: &str, text: &[u8]| {
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(text);
        out.push(b'\n');
    };
    match reply {
        Reply::Error(text) => put(out, "(error) ", text),
        Reply::Status(text) | Reply::BigNumber(text) | Reply::Verbatim { text, .. } => put(out, "", text),
        Reply::Integer(n) => put(out, "(integer) ", n.to_string().as_bytes()),
        Reply::Double(text) => put(out, "(double) ", text),
        Reply::Bulk(text) => {
            append_quoted(out, text);
            out.push(b'\n');
        }
        Reply::Nil => put(out, "(nil)", b""),
        Reply::Bool(true) => put(out, "(true)", b""),
        Reply::Bool(false) => put(out, "(false)", b""),
        Reply::Array(items) if items.is_empty() => put(out, "(empty array)", b""),
        Reply::Map(pairs) if pairs.is_empty() => put(out, "(empty hash)", b""),
        Reply::Set(items) if items.is_empty() => put(out, "(empty set)", b""),
        Reply::Push(items) if items.is_empty() => put(out, "(empty push)", b""),
        Reply::Array(items) | Reply::Push(items) => numbered(items, ')', indent, out),
        Reply::Set(items) => numbered(items, '~', indent, out),
        Reply::Map(pairs) => {
            let width = digits(pairs.len());
            let inner = format!("{indent}{:1$}", "", width + 2);
            for (index, (key, value)) in pairs.iter().enumerate() {
                let lead = if index == 0 { "" } else { indent };
                out.extend_from_slice(format!("{lead}{:>width$}# ", index + 1).as_bytes());
                standard(key, &inner, out);
                out.pop();
                out.extend_from_slice(b" => ");
                if spans_lines(value) {
                    out.push(b'\n');
                    out.extend_from_slice(inner.as_bytes());
                }
                standard(value, &inner, out);
            }
        }
    }
}

fn numbered(items: &[Reply], separator: char, indent: &str, out: &mut Vec<u8>) {
    let width = digits(items.len());
    let inner = format!("{indent}{:1$}", "", width + 2);
    for (index, item) in items.iter().enumerate() {
        let lead = if index == 0 { "" } else { indent };
        out.extend_from_slice(format!("{lead}{:>width$}{separator} ", index + 1).as_bytes());
        standard(item, &inner, out);
    }
}

fn digits(n: usize) -> usize {
    n.to_string().len()
}

/// Whether the terminal layout of a reply needs more than one line.
fn spans_lines(reply: &Reply) -> bool {
    match reply {
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => match items.as_slice() {
            [] => false,
            [only] => spans_lines(only),
            _ => true,
        },
        Reply::Map(pairs) => match pairs.as_slice() {
            [] => false,
            [(_, value)] => spans_lines(value),
            _ => true,
        },
        _ => false,
    }
}

/// The bytes of a reply, elements joined by `delimiter`.
pub(crate) fn raw(reply: &Reply, delimiter: &[u8], out: &mut Vec<u8>) {
    match reply {
        Reply::Nil => {}
        Reply::Error(text) => {
            out.extend_from_slice(text);
            out.push(b'\n');
        }
        Reply::Status(text)
        | Reply::Bulk(text)
        | Reply::Verbatim { text, .. }
        | Reply::Double(text)
        | Reply::BigNumber(text) => out.extend_from_slice(text),
        Reply::Bool(value) => out.extend_from_slice(if *value { b"(true)" } else { b"(false)" }),
        Reply::Integer(n) => out.extend_from_slice(n.to_string().as_bytes()),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.extend_from_slice(delimiter);
                }
                raw(item, delimiter, out);
            }
        }
        Reply::Map(pairs) => {
            for (index, (key, value)) in pairs.iter().enumerate() {
                if index > 0 {
                    out.extend_from_slice(delimiter);
                }
                raw(key, delimiter, out);
                out.push(b' ');
                raw(value, delimiter, out);
            }
        }
    }
}

fn csv(reply: &Reply, out: &mut Vec<u8>) {
    fn join<'a>(items: impl Iterator<Item = &'a Reply>, out: &mut Vec<u8>) {
        for (index, item) in items.enumerate() {
            if index > 0 {
                out.push(b',');
            }
            csv(item, out);
        }
    }
    match reply {
        Reply::Error(text) => {
            out.extend_from_slice(b"ERROR,");
            append_quoted(out, text);
        }
        Reply::Status(text) | Reply::Bulk(text) | Reply::Verbatim { text, .. } => append_quoted(out, text),
        Reply::Integer(n) => out.extend_from_slice(n.to_string().as_bytes()),
        Reply::Double(text) | Reply::BigNumber(text) => out.extend_from_slice(text),
        Reply::Nil => out.extend_from_slice(b"NULL"),
        Reply::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => join(items.iter(), out),
        Reply::Map(pairs) => join(pairs.iter().flat_map(|(k, v)| [k, v]), out),
    }
}

fn json(reply: &Reply, ascii: bool, out: &mut Vec<u8>) {
    match reply {
        Reply::Error(text) => {
            out.extend_from_slice(b"error:");
            json_string(text, ascii, out);
        }
        Reply::Status(text) | Reply::Bulk(text) | Reply::Verbatim { text, .. } => json_string(text, ascii, out),
        Reply::Integer(n) => out.extend_from_slice(n.to_string().as_bytes()),
        Reply::Double(text) | Reply::BigNumber(text) => out.extend_from_slice(text),
        Reply::Nil => out.extend_from_slice(b"null"),
        Reply::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                json(item, ascii, out);
            }
            out.push(b']');
        }
        Reply::Map(pairs) => {
            out.push(b'{');
            for (index, (key, value)) in pairs.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                // JSON allows only strings as keys, RESP3 any type.
                let mut name = Vec::new();
                json(key, ascii, &mut name);
                if key.text().is_some() && !matches!(key, Reply::Double(_) | Reply::BigNumber(_)) {
                    out.extend_from_slice(&name);
                } else {
                    out.push(b'"');
                    out.extend_from_slice(&name);
                    out.push(b'"');
                }
                out.push(b':');
                json(value, ascii, out);
            }
            out.push(b'}');
        }
    }
}

/// A JSON string (RFC 8259, section 7), either with the bytes as they are or in ASCII.
fn json_string(text: &[u8], ascii: bool, out: &mut Vec<u8>) {
    if ascii {
        let mut repr = Vec::new();
        append_quoted(&mut repr, text);
        for byte in repr {
            if byte == b'\\' {
                out.push(b'\\');
            }
            out.push(byte);
        }
        return;
    }
    out.push(b'"');
    for &byte in text {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..=0x1f => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    fn show(reply: &Reply, mode: OutputMode) -> String {
        String::from_utf8_lossy(&render(reply, mode, false, &Delimiters::default())).into_owned()
    }

    fn sample() -> Reply {
        Reply::Array(vec![
            Reply::Integer(1),
            bulk("a\n\"\u{1}"),
            Reply::Nil,
            Reply::Array(vec![bulk("x"), Reply::Array(vec![])]),
            Reply::Error(b"ERR no".to_vec()),
        ])
    }

    #[test]
    fn standard_layout() {
        assert_eq!(
            show(&sample(), OutputMode::Standard),
            "1) (integer) 1\n2) \"a\\n\\\"\\x01\"\n3) (nil)\n4) 1) \"x\"\n   2) (empty array)\n5) (error) ERR no\n"
        );
        let ten = Reply::Array(vec![Reply::Array(vec![bulk("v"), bulk("w")]); 10]);
        let text = show(&ten, OutputMode::Standard);
        assert!(text.starts_with(" 1) 1) \"v\"\n    2) \"w\"\n 2) 1)"));
        assert!(text.ends_with("10) 1) \"v\"\n    2) \"w\"\n"));
    }

    #[test]
    fn standard_resp3() {
        let map = Reply::Map(vec![
            (bulk("one"), Reply::Double(b"1.5".to_vec())),
            (bulk("two"), Reply::Set(vec![bulk("x"), bulk("y")])),
            (bulk("three"), Reply::Array(vec![bulk("z")])),
        ]);
        assert_eq!(
            show(&map, OutputMode::Standard),
            "1# \"one\" => (double) 1.5\n2# \"two\" => \n   1~ \"x\"\n   2~ \"y\"\n3# \"three\" => 1) \"z\"\n"
        );
        assert_eq!(show(&Reply::Bool(true), OutputMode::Standard), "(true)\n");
        assert_eq!(show(&Reply::Map(vec![]), OutputMode::Standard), "(empty hash)\n");
        let text = Reply::Verbatim { format: *b"txt", text: b"a\nb".to_vec() };
        assert_eq!(show(&text, OutputMode::Standard), "a\nb\n");
    }

    #[test]
    fn raw_layout() {
        assert_eq!(show(&sample(), OutputMode::Raw), "1\na\n\"\u{1}\n\nx\n\nERR no\n\n");
        let map = Reply::Map(vec![(bulk("k"), bulk("v")), (bulk("l"), bulk("w"))]);
        assert_eq!(show(&map, OutputMode::Raw), "k v\nl w\n");
        let delimiters = Delimiters { element: b"|".to_vec(), reply: b"".to_vec() };
        let list = Reply::Array(vec![bulk("a"), bulk("b")]);
        assert_eq!(render(&list, OutputMode::Raw, false, &delimiters), b"a|b");
    }

    #[test]
    fn csv_layout() {
        assert_eq!(show(&sample(), OutputMode::Csv), "1,\"a\\n\\\"\\x01\",NULL,\"x\",,ERROR,\"ERR no\"\n");
    }

    #[test]
    fn json_layout() {
        let map = Reply::Map(vec![
            (Reply::Integer(1), bulk("\u{f0}\u{0}\\")),
            (bulk("k"), Reply::Array(vec![Reply::Nil, Reply::Bool(false)])),
        ]);
        assert_eq!(show(&map, OutputMode::Json), "{\"1\":\"\u{f0}\\u0000\\\\\",\"k\":[null,false]}\n");
        assert_eq!(show(&bulk("\u{f0}"), OutputMode::QuotedJson), "\"\\\\xc3\\\\xb0\"\n");
    }

    #[test]
    fn invalidation_message() {
        let message = Reply::Push(vec![bulk("invalidate"), Reply::Array(vec![bulk("a"), bulk("b")])]);
        assert_eq!(invalidation(&message).unwrap(), b"-> invalidate: 'a', 'b'\n");
        assert_eq!(invalidation(&Reply::Nil), None);
    }
}
