//! Finds commands in a query buffer: RESP arrays of bulk strings, and inline lines as typed into a telnet session.
//!
//! The parser keeps its place between calls, so that a command that arrives in many pieces is read only once. Spans are
//! relative to the start of the command, which lets the owner of the buffer drop what came before it. Format: the Redis
//! serialization protocol specification; limits and error texts as a 7.2 server has them.

use super::args::{OwnedArgs, Span};
use crate::structs::bytes::is_same;
use std::mem::replace;

/// After a command with more arguments, room for this many is kept.
const KEPT_ARGS: usize = 4096;
/// Longest inline line, and longest unterminated length line, in bytes.
const INLINE_MAX: usize = 64 * 1024;
/// Most arguments, and longest argument, of a client that has not authenticated.
const UNAUTH_MAX_ARGS: i64 = 10;
const UNAUTH_MAX_BULK: i64 = 16384;
/// An argument this long is large, in bytes.
const BIG_ARG: usize = 32 * 1024;

/// What the parser lets through.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `proto-max-bulk-len`, bytes.
    pub max_bulk_len: i64,
    /// The client has yet to authenticate.
    pub unauthenticated: bool,
}

/// Why a request cannot be understood. The text is what follows `-ERR ` in the reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolError(pub(crate) String);

#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// A command stands in the first `consumed` bytes; its arguments are `RequestParser::spans`.
    Command { consumed: usize },
    /// An inline command, unquoted into a buffer of its own.
    Inline { consumed: usize, args: OwnedArgs },
    /// An empty line or empty array: nothing to run.
    Empty { consumed: usize },
}

/// Where the parser is within the command at the start of its input.
#[derive(Debug, Default)]
pub struct RequestParser {
    spans: Vec<Span>,
    /// Arguments still to come; 0 when no array header has been read.
    missing: i64,
    /// Length of the argument whose header has been read.
    bulk_len: Option<usize>,
    /// Where to go on reading, relative to the start of the command.
    pos: usize,
}

impl RequestParser {
    /// The arguments found so far; of the whole command after `Parsed::Command`.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// True in the middle of an array of bulk strings.
    pub(crate) fn in_multibulk(&self) -> bool {
        self.missing > 0
    }

    /// Where the argument being read begins, from the start of the command, if it is a large one.
    pub(crate) fn big_arg_start(&self) -> Option<usize> {
        self.bulk_len.filter(|n| *n >= BIG_ARG).map(|_| self.pos)
    }

    /// Where the argument being read will end, in bytes from the start of the command, when that is known: room worth
    /// reserving.
    pub(crate) fn wanted_len(&self) -> Option<usize> {
        self.bulk_len.map(|n| self.pos + n + 2)
    }

    /// Forgets a finished command.
    pub fn reset(&mut self) {
        self.spans.clear();
        if self.spans.capacity() > KEPT_ARGS {
            self.spans = Vec::new();
        }
        self.missing = 0;
        self.bulk_len = None;
        self.pos = 0;
    }

    /// Looks for a command at the start of `buf`.
    pub fn parse(&mut self, buf: &[u8], limits: Limits) -> Result<Parsed, ProtocolError> {
        if self.missing == 0 {
            match buf.first() {
                None => return Ok(Parsed::Incomplete),
                Some(b'*') => match self.array_header(buf, limits)? {
                    Some(0) => {
                        let consumed = self.pos;
                        self.reset();
                        return Ok(Parsed::Empty { consumed });
                    }
                    Some(n) => self.missing = n,
                    None => return Ok(Parsed::Incomplete),
                },
                Some(_) => return parse_inline(buf),
            }
        }
        while self.missing > 0 {
            let len = match self.bulk_len {
                Some(len) => len,
                None => match self.bulk_header(buf, limits)? {
                    Some(len) => len,
                    None => return Ok(Parsed::Incomplete),
                },
            };
            if buf.len() < self.pos + len + 2 {
                self.bulk_len = Some(len);
                return Ok(Parsed::Incomplete);
            }
            self.spans.push(Span { start: self.pos, len });
            self.pos += len + 2;
            self.bulk_len = None;
            self.missing -= 1;
        }
        Ok(Parsed::Command { consumed: self.pos })
    }

    /// Reads `*<n>\r\n`; negative counts are empty commands.
    fn array_header(&mut self, buf: &[u8], limits: Limits) -> Result<Option<i64>, ProtocolError> {
        let Some(end) = line_end(buf, 0, "too big mbulk count string")? else { return Ok(None) };
        let n = parse_length(&buf[1..end])
            .filter(|n| *n <= i32::MAX as i64)
            .ok_or_else(|| error("invalid multibulk length"))?;
        if limits.unauthenticated && n > UNAUTH_MAX_ARGS {
            return Err(error("unauthenticated multibulk length"));
        }
        self.pos = end + 2;
        self.spans.clear();
        self.spans.reserve(n.clamp(0, 1024) as usize);
        Ok(Some(n.max(0)))
    }

    /// Reads `$<n>\r\n` at the current place.
    fn bulk_header(&mut self, buf: &[u8], limits: Limits) -> Result<Option<usize>, ProtocolError> {
        if let Some((n, start)) = short_bulk(buf, self.pos) {
            self.pos = start;
            return Ok(Some(n));
        }
        let Some(end) = line_end(buf, self.pos, "too big bulk count string")? else { return Ok(None) };
        if buf[self.pos] != b'$' {
            return Err(error(&format!("expected '$', got '{}'", buf[self.pos] as char)));
        }
        let n = parse_length(&buf[self.pos + 1..end])
            .filter(|n| *n >= 0 && *n <= limits.max_bulk_len)
            .ok_or_else(|| error("invalid bulk length"))?;
        if limits.unauthenticated && n > UNAUTH_MAX_BULK {
            return Err(error("unauthenticated bulk length"));
        }
        self.pos = end + 2;
        Ok(Some(n as usize))
    }
}

/// Finds commands that are whole and have few and short arguments, as nearly all do. Successive commands often begin
/// alike, as they call the same command: then the beginning is only compared.
#[derive(Debug, Default)]
pub struct ShortCommands<'b> {
    /// The array header and the first argument of the last command.
    head: &'b [u8],
    /// The number of arguments, and where the first of them is.
    count: usize,
    name: Span,
    /// The last command began as the one before it.
    pub(crate) is_alike: bool,
}

impl<'b> ShortCommands<'b> {
    /// Finds the command at the start of `buf`: adds the spans of its arguments to `spans`, and returns the length of
    /// the command. `None`: left to [`RequestParser::parse`]; nothing was added. The limits on arguments are not
    /// checked: those on their length are higher, and that on their number is for clients that have not authenticated.
    #[inline]
    pub(crate) fn find(&mut self, buf: &'b [u8], spans: &mut Vec<Span>) -> Option<usize> {
        self.is_alike =
            !self.head.is_empty() && buf.get(..self.head.len()).is_some_and(|head| is_same(head, self.head));
        if !self.is_alike {
            self.head = &[];
            let (count, pos) = array_header(buf)?;
            let (len, start) = short_bulk(buf, pos)?;
            (self.count, self.name) = (count, Span { start, len });
            self.head = buf.get(..start + len + 2)?;
        }
        let first = spans.len();
        spans.reserve(self.count);
        spans.push(self.name);
        let mut pos = self.head.len();
        for _ in 1..self.count {
            let Some((len, start)) = short_bulk(buf, pos).filter(|(len, start)| start + len + 2 <= buf.len()) else {
                spans.truncate(first);
                return None;
            };
            spans.push(Span { start, len });
            pos = start + len + 2;
        }
        Some(pos)
    }
}

/// How many commands at the start of `buf`, `most` at most, have the form of the command `text` with its arguments at
/// `spans`: the same first argument and the same bytes between arguments.
#[inline]
pub fn count_of_form(text: &[u8], spans: &[Span], buf: &[u8], most: usize) -> usize {
    #[inline(always)]
    fn count_while(buf: &[u8], len: usize, most: usize, is_like: impl Fn(&[u8]) -> bool) -> usize {
        let (mut count, mut rest) = (0, buf);
        while count < most
            && let Some((command, more)) = rest.split_at_checked(len)
            && is_like(command)
        {
            (count, rest) = (count + 1, more);
        }
        count
    }
    let end = |arg: &Span| arg.start + arg.len;
    match spans {
        [_, second, later @ ..] if !later.is_empty() => {
            let head = &text[..second.start];
            count_while(buf, text.len(), most, |command| {
                let mut from = end(second);
                is_same(&command[..head.len()], head)
                    && later.iter().all(|arg| {
                        let between = replace(&mut from, end(arg))..arg.start;
                        is_same(&command[between.clone()], &text[between])
                    })
            })
        }
        _ => {
            let head = &text[..spans.get(1).map_or(text.len(), |arg| arg.start)];
            count_while(buf, text.len(), most, |command| is_same(&command[..head.len()], head))
        }
    }
}

/// The number of arguments, less than 100, and where the first of them begins.
fn array_header(buf: &[u8]) -> Option<(usize, usize)> {
    match *buf.first_chunk::<5>()? {
        [b'*', count @ b'1'..=b'9', b'\r', ..] => Some((usize::from(count - b'0'), 4)),
        [b'*', tens @ b'1'..=b'9', ones @ b'0'..=b'9', b'\r', _] => {
            Some((usize::from(tens - b'0') * 10 + usize::from(ones - b'0'), 5))
        }
        _ => None,
    }
}

/// The length of a bulk string of less than 1,000 bytes whose header stands at `pos`, and where it begins.
#[inline(always)]
fn short_bulk(buf: &[u8], pos: usize) -> Option<(usize, usize)> {
    // The shortest of all, `$0`, takes six bytes.
    let header = buf.get(pos..)?.first_chunk::<6>()?;
    let digit = |b: u8| usize::from(b.wrapping_sub(b'0'));
    let (first, second) = (digit(header[1]), digit(header[2]));
    if header[0] != b'$' || first > 9 {
        return None;
    }
    if header[2] == b'\r' {
        return Some((first, pos + 4));
    }
    if first == 0 || second > 9 {
        return None;
    }
    if header[3] == b'\r' {
        return Some((first * 10 + second, pos + 5));
    }
    let third = digit(header[3]);
    (third <= 9 && header[4] == b'\r').then_some((first * 100 + second * 10 + third, pos + 6))
}

fn error(what: &str) -> ProtocolError {
    ProtocolError(format!("Protocol error: {what}"))
}

/// Index of the `\r` that ends the line at `from`, once the byte after it is there too. A NUL hides what follows it:
/// such a line never ends. (As in Redis, which searches with C's string functions. A peer that speaks another protocol,
/// such as TLS, thus gets no answer, rather than an error for each line that its bytes happen to make.)
fn line_end(buf: &[u8], from: usize, too_long: &str) -> Result<Option<usize>, ProtocolError> {
    let line = buf.get(from..).unwrap_or(&[]);
    // Length lines are short: looking at the first bytes beats a vector search set up for each of them.
    let end = line.iter().take(24).position(|b| matches!(b, b'\r' | 0)).or_else(|| memchr::memchr2(b'\r', 0, line));
    match end.filter(|i| line[*i] == b'\r') {
        Some(i) if i + 1 < line.len() => Ok(Some(from + i)),
        None if line.len() > INLINE_MAX => Err(error(too_long)),
        _ => Ok(None),
    }
}

/// A decimal length: an optional sign, digits without leading zeros.
fn parse_length(digits: &[u8]) -> Option<i64> {
    let (negative, rest) = match digits {
        [b'-', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    if rest.is_empty() || rest.len() > 18 || (rest[0] == b'0' && digits.len() > 1) {
        return None;
    }
    let mut n = 0i64;
    for d in rest {
        if !d.is_ascii_digit() {
            return None;
        }
        n = n * 10 + (d - b'0') as i64;
    }
    Some(if negative { -n } else { n })
}

fn parse_inline(buf: &[u8]) -> Result<Parsed, ProtocolError> {
    // A NUL hides the end, as in length lines.
    let Some(newline) = memchr::memchr2(b'\n', 0, buf).filter(|i| buf[*i] == b'\n') else {
        if buf.len() > INLINE_MAX {
            return Err(error("too big inline request"));
        }
        return Ok(Parsed::Incomplete);
    };
    let line = &buf[..newline];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let args = split_args(line).ok_or_else(|| error("unbalanced quotes in request"))?;
    let consumed = newline + 1;
    if args.as_args().is_empty() { Ok(Parsed::Empty { consumed }) } else { Ok(Parsed::Inline { consumed, args }) }
}

/// Splits a line as typed by a person, or of a configuration file: blanks separate, double quotes understand `\xHH`, `\n`,
/// `\r`, `\t`, `\b`, `\a` and escaped characters, single quotes only `\'`. `None`: a quote is not closed, or a closing
/// quote is not followed by a blank.
pub fn split_args(line: &[u8]) -> Option<OwnedArgs> {
    let blank = |b: u8| b.is_ascii_whitespace() || b == 0x0b;
    let mut out = OwnedArgs::default();
    let mut word = Vec::new();
    let mut i = 0;
    loop {
        while i < line.len() && blank(line[i]) {
            i += 1;
        }
        if i >= line.len() || line[i] == 0 {
            return Some(out);
        }
        word.clear();
        // Not all blanks end a word that has begun.
        while i < line.len() && !matches!(line[i], b' ' | b'\n' | b'\r' | b'\t' | 0) {
            let quote = line[i];
            i += 1;
            if quote != b'"' && quote != b'\'' {
                word.push(quote);
                continue;
            }
            i = quoted(line, i, quote, &mut word)?;
            if i < line.len() && !blank(line[i]) {
                return None;
            }
            break;
        }
        out.push(&word);
    }
}

/// Reads up to the closing quote and returns the index after it; `None`: it is missing.
fn quoted(line: &[u8], mut i: usize, quote: u8, word: &mut Vec<u8>) -> Option<usize> {
    loop {
        let b = *line.get(i)?;
        i += 1;
        match b {
            b if b == quote => return Some(i),
            b'\\' if quote == b'\'' && line.get(i) == Some(&b'\'') => {
                word.push(b'\'');
                i += 1;
            }
            b'\\' if quote == b'"' => {
                let hex = |k: usize| line.get(k).and_then(|d| (*d as char).to_digit(16));
                if let (Some(b'x'), Some(high), Some(low)) = (line.get(i), hex(i + 1), hex(i + 2)) {
                    word.push((high * 16 + low) as u8);
                    i += 3;
                    continue;
                }
                let escaped = *line.get(i)?;
                i += 1;
                word.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => other,
                });
            }
            other => word.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OPEN: Limits = Limits { max_bulk_len: 512 << 20, unauthenticated: false };

    fn words(parser: &RequestParser, buf: &[u8]) -> Vec<Vec<u8>> {
        parser.spans().iter().map(|s| buf[s.start..s.start + s.len].to_vec()).collect()
    }

    #[test]
    fn whole_command() {
        let mut p = RequestParser::default();
        let buf = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nrest";
        assert_eq!(p.parse(buf, OPEN), Ok(Parsed::Command { consumed: 20 }));
        assert_eq!(words(&p, buf), vec![b"GET".to_vec(), b"k".to_vec()]);
    }

    #[test]
    fn errors_carry_the_known_texts() {
        for (input, text) in [
            (&b"*3000000000\r\n"[..], "Protocol error: invalid multibulk length"),
            (b"*1\r\nfoo\r\n", "Protocol error: expected '$', got 'f'"),
            (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$99999999999\r\n", "Protocol error: invalid bulk length"),
            (b"set 'x\r\n", "Protocol error: unbalanced quotes in request"),
        ] {
            let got = RequestParser::default().parse(input, OPEN);
            assert_eq!(got, Err(ProtocolError(text.to_string())), "{input:?}");
        }
        let closed = Limits { unauthenticated: true, ..OPEN };
        let got = RequestParser::default().parse(b"*11\r\n", closed);
        assert_eq!(got, Err(ProtocolError("Protocol error: unauthenticated multibulk length".into())));
    }

    #[test]
    fn a_nul_hides_the_end_of_a_line() {
        for start in
            [&b"ping\0"[..], b"\0", b"*1\0", b"*\0", b"*1\r\n$4\0", b"*1\r\n\0", b"*100000000000000000000000000\0"]
        {
            let mut p = RequestParser::default();
            let line = [start, b"\r\nping\r\n*1\r\n$4\r\nping\r\n"].concat();
            assert_eq!(p.parse(&line, OPEN), Ok(Parsed::Incomplete), "{start:?}");
            let long = [&line[..], &[b'x'; INLINE_MAX]].concat();
            assert!(p.parse(&long, OPEN).unwrap_err().0.starts_with("Protocol error: too big "), "{start:?}");
        }
        // Not after the end of a line, and not in an argument.
        let whole = b"*1\r\n$3\r\na\0b\r\n\0";
        assert_eq!(RequestParser::default().parse(whole, OPEN), Ok(Parsed::Command { consumed: 13 }));
        let args = split_args(b"ping").unwrap();
        let inline = RequestParser::default().parse(b"ping\r\n\0", OPEN);
        assert_eq!(inline, Ok(Parsed::Inline { consumed: 6, args }));
    }

    #[test]
    fn inline_quotes() {
        let args = split_args(b"set  \"a\\x41\\n\" 'b\\'c' d").unwrap();
        let got: Vec<_> = args.as_args().iter().map(|a| a.to_vec()).collect();
        assert_eq!(got, vec![b"set".to_vec(), b"aA\n".to_vec(), b"b'c".to_vec(), b"d".to_vec()]);
        assert!(split_args(b"\"x\"y").is_none());
        // Not all that separates words ends one.
        let args = split_args(b"\x0bset k a\x0bb\x0c c").unwrap();
        assert_eq!(args.as_args().iter().collect::<Vec<_>>(), [&b"set"[..], b"k", b"a\x0bb\x0c", b"c"]);
        assert_eq!(split_args(b"\"a\"\x0b b").unwrap().as_args().iter().collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(split_args(b"\"\"").unwrap().as_args().len(), 1);
    }

    fn encode(command: &[Vec<u8>]) -> Vec<u8> {
        let mut buf = format!("*{}\r\n", command.len()).into_bytes();
        for word in command {
            buf.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            buf.extend_from_slice(word);
            buf.extend_from_slice(b"\r\n");
        }
        buf
    }

    proptest! {
        #[test]
        fn pieces_give_the_same_as_the_whole(
            command in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 1..8),
            cuts in proptest::collection::vec(0usize..400, 0..6),
        ) {
            let buf = encode(&command);
            let mut p = RequestParser::default();
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|c| *c < buf.len()).collect();
            cuts.sort_unstable();
            for cut in cuts {
                prop_assert_eq!(p.parse(&buf[..cut], OPEN), Ok(Parsed::Incomplete));
            }
            prop_assert_eq!(p.parse(&buf, OPEN), Ok(Parsed::Command { consumed: buf.len() }));
            prop_assert_eq!(words(&p, &buf), command);
        }

        #[test]
        fn the_short_way_finds_the_same(
            command in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..130), 1..30),
            cut in 0usize..3000,
            damage in proptest::option::of((0usize..40, any::<u8>())),
            alike in any::<bool>(),
        ) {
            let mut buf = encode(&command);
            let whole = buf.len();
            let whole_command = buf.clone();
            buf.extend_from_slice(b"*1\r\n");
            buf.truncate(if cut < 1500 { cut } else { buf.len() });
            if let Some((at, byte)) = damage && at < buf.len() {
                buf[at] = byte;
            }
            let mut spans = vec![Span { start: 7, len: 7 }];
            // With and without a command before it that begins alike.
            let mut short = ShortCommands::default();
            if alike {
                short.find(&whole_command, &mut Vec::new());
            }
            let found = short.find(&buf, &mut spans);
            let mut parser = RequestParser::default();
            match found {
                Some(consumed) => {
                    prop_assert_eq!(parser.parse(&buf, OPEN), Ok(Parsed::Command { consumed }));
                    prop_assert_eq!(&spans[1..], parser.spans());
                }
                None => {
                    prop_assert_eq!(spans.len(), 1);
                    prop_assert!(damage.is_some() || buf.len() < whole);
                }
            }
        }

        #[test]
        fn commands_of_a_form_are_those_whose_arguments_stand_where_those_of_the_first_do(
            commands in proptest::collection::vec(
                proptest::collection::vec(proptest::collection::vec(b'a'..b'c', 0..3), 1..4), 1..6),
            damage in proptest::option::of((0usize..200, any::<u8>())),
            most in 0usize..6,
        ) {
            let text = encode(&commands[0]);
            let mut parser = RequestParser::default();
            prop_assert_eq!(parser.parse(&text, OPEN), Ok(Parsed::Command { consumed: text.len() }));
            let spans = parser.spans().to_vec();
            let mut buf: Vec<u8> = commands[1..].iter().flat_map(|command| encode(command)).collect();
            if let Some((at, byte)) = damage && at < buf.len() {
                buf[at] = byte;
            }
            let count = count_of_form(&text, &spans, &buf, most);
            prop_assert!(count <= most);
            let mut rest = &buf[..];
            for at in 0..most {
                parser.reset();
                let name = spans[0].of(&text);
                let is_alike = matches!(parser.parse(rest, OPEN), Ok(Parsed::Command { .. }))
                    && parser.spans() == spans
                    && parser.spans()[0].of(rest) == name;
                // The parser takes any two bytes for the line end after an argument; `ShortCommands` wants a line end,
                // so it may miss a few.
                prop_assert!(is_alike || at >= count, "{at} of {count}");
                prop_assert!(!is_alike || at < count || damage.is_some(), "{at} of {count}");
                if !is_alike {
                    break;
                }
                rest = &rest[text.len()..];
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut p = RequestParser::default();
            let mut at = 0;
            while at < bytes.len() {
                match p.parse(&bytes[at..], OPEN) {
                    Ok(Parsed::Command { consumed } | Parsed::Inline { consumed, .. } | Parsed::Empty { consumed }) => {
                        prop_assert!(consumed > 0);
                        at += consumed;
                        p.reset();
                    }
                    Ok(Parsed::Incomplete) | Err(_) => break,
                }
            }
        }
    }
}
