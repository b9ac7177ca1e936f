//! Replies as a client sees them: an incremental RESP2/RESP3 parser.
//!
//! The reader owns the bytes it was fed until a whole reply is there. It never blocks, and a large bulk string arriving
//! in many pieces costs one pass. Whatever the peer sends is untrusted: lengths do not reserve memory ahead of the
//! data, nesting is bounded, and malformed input is an error that names the offset in the stream.
//!
//! Sockets, timeouts and what a reply means are left to the caller.

use std::fmt;

use memchr::memchr;

/// How deep aggregates may nest. Redis itself stays below ten.
pub(crate) const MAX_NESTING: usize = 128;

/// Items for which room is reserved before any of them has arrived.
const RESERVE_AT_MOST: usize = 1024;

/// One reply. Text is kept as bytes, and numbers that have more than one spelling
/// (doubles, big numbers) keep the spelling of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `+OK`
    Status(Vec<u8>),
    /// `-ERR ...`, or a RESP3 blob error.
    Error(Vec<u8>),
    /// `:1`
    Integer(i64),
    /// `$3 foo`
    Bulk(Vec<u8>),
    /// `$-1`, `*-1` or `_`.
    Nil,
    /// `*2 ...`
    Array(Vec<Reply>),
    /// `%2 ...`
    Map(Vec<(Reply, Reply)>),
    /// `~2 ...`
    Set(Vec<Reply>),
    /// `>2 ...`, out of band.
    Push(Vec<Reply>),
    /// `,1.5` as the server spelled it.
    Double(Vec<u8>),
    /// `#t` or `#f`
    Bool(bool),
    /// `(123...` as the server spelled it.
    BigNumber(Vec<u8>),
    /// `=7 txt:abc`: the three format bytes and the text.
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text after the format and its colon.
        text: Vec<u8>,
    },
}

impl Reply {
    /// The text of a status, bulk, verbatim, error, double or big number reply.
    pub(crate) fn text(&self) -> Option<&[u8]> {
        match self {
            Reply::Status(t)
            | Reply::Error(t)
            | Reply::Bulk(t)
            | Reply::Double(t)
            | Reply::BigNumber(t)
            | Reply::Verbatim { text: t, .. } => Some(t),
            _ => None,
        }
    }

    /// The text as a string, with invalid UTF-8 replaced; empty for replies without text.
    pub(crate) fn text_lossy(&self) -> String {
        self.text().map(|t| String::from_utf8_lossy(t).into_owned()).unwrap_or_default()
    }

    /// The value of an integer reply; `None` for any other.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self {
            Reply::Integer(n) => Some(*n),
            _ => None,
        }
    }

    /// The elements of an array, set or push reply; `None` for any other.
    pub(crate) fn elements(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => Some(items),
            _ => None,
        }
    }

    /// The text of an error reply, code first; `None` for any other.
    pub(crate) fn error(&self) -> Option<&[u8]> {
        match self {
            Reply::Error(t) => Some(t),
            _ => None,
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// Key and value pairs of a map, or of an array that lists them one after another
    /// as RESP2 servers do.
    pub(crate) fn pairs(&self) -> Vec<(&Reply, &Reply)> {
        match self {
            Reply::Map(pairs) => pairs.iter().map(|(k, v)| (k, v)).collect(),
            Reply::Array(items) => items.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect(),
            _ => Vec::new(),
        }
    }
}

/// Why the stream can not be read any further.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplyError {
    /// Bytes of the stream before the offending one.
    pub(crate) offset: u64,
    pub(crate) reason: Malformed,
}

/// The ways in which a reply can be malformed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// No reply starts with this byte.
    TypeByte(u8),
    /// A length or integer that is not a number.
    Number,
    /// A length below -1.
    Length,
    /// A line or bulk string that does not end in CR LF.
    LineEnd,
    /// A boolean, null, double or verbatim string whose body makes no sense.
    Body,
    /// Aggregates nested deeper than [`MAX_NESTING`].
    Nesting,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Malformed::TypeByte(b) => {
                write!(f, "Protocol error, got \"{}\" as reply type byte", b.escape_ascii())
            }
            Malformed::Number => write!(f, "Bad number in a reply at offset {}", self.offset),
            Malformed::Length => write!(f, "Length out of range at offset {}", self.offset),
            Malformed::LineEnd => write!(f, "Missing line end at offset {}", self.offset),
            Malformed::Body => write!(f, "Bad value in a reply at offset {}", self.offset),
            Malformed::Nesting => write!(f, "Replies nested deeper than {MAX_NESTING} levels"),
        }
    }
}

impl std::error::Error for ReplyError {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aggregate {
    Array,
    Map,
    Set,
    Push,
    /// Attributes describe the reply after them; they are read and dropped.
    Attribute,
}

#[derive(Debug)]
struct Frame {
    kind: Aggregate,
    missing: usize,
    items: Vec<Reply>,
}

enum Token {
    Value(Reply),
    Open(Aggregate, usize),
}

/// The incremental parser. Feed it what the socket gave, then take replies until it has none.
#[derive(Debug, Default)]
pub(crate) struct ReplyReader {
    buf: Vec<u8>,
    /// Where the next token starts in `buf`.
    pos: usize,
    /// No line end lies in `buf[pos..scanned]`.
    scanned: usize,
    /// Bytes of the stream dropped from the front of `buf`.
    dropped: u64,
    stack: Vec<Frame>,
}

impl ReplyReader {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Appends bytes read from the peer.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        if self.pos > 0 && (self.pos == self.buf.len() || self.pos >= 64 * 1024) {
            self.buf.drain(..self.pos);
            self.dropped += self.pos as u64;
            self.scanned = self.scanned.saturating_sub(self.pos);
            self.pos = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// Takes out the bytes that no reply has consumed, for a stream that changes its protocol (replication).
    pub(crate) fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.buf.split_off(self.pos);
        self.dropped += self.buf.len() as u64;
        self.buf.clear();
        self.pos = 0;
        self.scanned = 0;
        rest
    }

    /// The next whole reply, or `None` when more bytes are needed.
    ///
    /// After an error the stream has lost its framing and the reader must be thrown away.
    pub(crate) fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let Some(token) = self.token()? else {
                return Ok(None);
            };
            let mut value = match token {
                Token::Value(value) => value,
                Token::Open(kind, 0) => match close(kind, Vec::new()) {
                    Some(value) => value,
                    None => continue,
                },
                Token::Open(kind, count) => {
                    if self.stack.len() >= MAX_NESTING {
                        return Err(self.error(Malformed::Nesting));
                    }
                    self.stack.push(Frame {
                        kind,
                        missing: count,
                        items: Vec::with_capacity(count.min(RESERVE_AT_MOST)),
                    });
                    continue;
                }
            };
            loop {
                let Some(frame) = self.stack.last_mut() else {
                    return Ok(Some(value));
                };
                frame.items.push(value);
                frame.missing -= 1;
                if frame.missing > 0 {
                    break;
                }
                let Some(frame) = self.stack.pop() else { break };
                match close(frame.kind, frame.items) {
                    Some(whole) => value = whole,
                    None => break,
                }
            }
        }
    }

    fn error(&self, reason: Malformed) -> ReplyError {
        ReplyError { offset: self.dropped + self.pos as u64, reason }
    }

    /// The line that starts at `pos` without its CR LF, as a range, if it is complete.
    fn line(&mut self) -> Result<Option<(usize, usize)>, ReplyError> {
        let from = self.scanned.max(self.pos);
        match memchr(b'\n', &self.buf[from..]) {
            None => {
                self.scanned = self.buf.len();
                Ok(None)
            }
            Some(at) => {
                let end = from + at;
                if end == self.pos || self.buf[end - 1] != b'\r' {
                    return Err(self.error(Malformed::LineEnd));
                }
                // The same line may be asked for again while its body is incomplete.
                self.scanned = from;
                Ok(Some((self.pos, end - 1)))
            }
        }
    }

    fn number(&self, digits: &[u8]) -> Result<i64, ReplyError> {
        std::str::from_utf8(digits)
            .ok()
            .and_then(|s| s.parse::<i64>().ok())
            .ok_or_else(|| self.error(Malformed::Number))
    }

    fn token(&mut self) -> Result<Option<Token>, ReplyError> {
        let Some(&kind) = self.buf.get(self.pos) else {
            return Ok(None);
        };
        if !b"+-:$*_%~>,#(=!|".contains(&kind) {
            return Err(self.error(Malformed::TypeByte(kind)));
        }
        let Some((start, end)) = self.line()? else {
            return Ok(None);
        };
        let after = end + 2;
        let body = &self.buf[start + 1..end];
        let token = match kind {
            b'+' => Token::Value(Reply::Status(body.to_vec())),
            b'-' => Token::Value(Reply::Error(body.to_vec())),
            b':' => Token::Value(Reply::Integer(self.number(body)?)),
            b'(' => {
                let digits = body.strip_prefix(b"-").unwrap_or(body);
                if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                    return Err(self.error(Malformed::Body));
                }
                Token::Value(Reply::BigNumber(body.to_vec()))
            }
            b',' => {
                let readable = std::str::from_utf8(body).is_ok_and(|s| s.parse::<f64>().is_ok());
                if !readable {
                    return Err(self.error(Malformed::Body));
                }
                Token::Value(Reply::Double(body.to_vec()))
            }
            b'#' => match body {
                b"t" => Token::Value(Reply::Bool(true)),
                b"f" => Token::Value(Reply::Bool(false)),
                _ => return Err(self.error(Malformed::Body)),
            },
            b'_' if body.is_empty() => Token::Value(Reply::Nil),
            b'_' => return Err(self.error(Malformed::Body)),
            b'$' | b'=' | b'!' => match self.number(body)? {
                -1 => Token::Value(Reply::Nil),
                length => return self.text(kind, after, length),
            },
            _ => self.aggregate(kind, body)?,
        };
        self.advance(after);
        Ok(Some(token))
    }

    /// A text of so many bytes that begins here.
    fn text(&mut self, kind: u8, at: usize, length: i64) -> Result<Option<Token>, ReplyError> {
        let length = usize::try_from(length).map_err(|_| self.error(Malformed::Length))?;
        let whole =
            at.checked_add(length).and_then(|n| n.checked_add(2)).ok_or_else(|| self.error(Malformed::Length))?;
        if self.buf.len() < whole {
            return Ok(None);
        }
        if &self.buf[whole - 2..whole] != b"\r\n" {
            return Err(self.error(Malformed::LineEnd));
        }
        let text = &self.buf[at..whole - 2];
        let value = match kind {
            b'$' => Reply::Bulk(text.to_vec()),
            b'!' => Reply::Error(text.to_vec()),
            _ => match text {
                [a, b, c, b':', text @ ..] => Reply::Verbatim { format: [*a, *b, *c], text: text.to_vec() },
                _ => return Err(self.error(Malformed::Body)),
            },
        };
        self.advance(whole);
        Ok(Some(Token::Value(value)))
    }

    /// The head of a collection.
    fn aggregate(&self, kind: u8, body: &[u8]) -> Result<Token, ReplyError> {
        let kind = match kind {
            b'*' => Aggregate::Array,
            b'%' => Aggregate::Map,
            b'~' => Aggregate::Set,
            b'>' => Aggregate::Push,
            _ => Aggregate::Attribute,
        };
        let count = self.number(body)?;
        if count == -1 && kind == Aggregate::Array {
            return Ok(Token::Value(Reply::Nil));
        }
        let count = usize::try_from(count).map_err(|_| self.error(Malformed::Length))?;
        let count = match kind {
            Aggregate::Map | Aggregate::Attribute => count.checked_mul(2),
            _ => Some(count),
        };
        Ok(Token::Open(kind, count.ok_or_else(|| self.error(Malformed::Length))?))
    }

    fn advance(&mut self, to: usize) {
        self.pos = to;
        self.scanned = to;
    }
}

fn close(kind: Aggregate, items: Vec<Reply>) -> Option<Reply> {
    match kind {
        Aggregate::Array => Some(Reply::Array(items)),
        Aggregate::Set => Some(Reply::Set(items)),
        Aggregate::Push => Some(Reply::Push(items)),
        Aggregate::Map => {
            let mut pairs = Vec::with_capacity(items.len() / 2);
            let mut items = items.into_iter();
            while let (Some(key), Some(value)) = (items.next(), items.next()) {
                pairs.push((key, value));
            }
            Some(Reply::Map(pairs))
        }
        Aggregate::Attribute => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(input: &[u8]) -> Result<Vec<Reply>, ReplyError> {
        let mut reader = ReplyReader::new();
        reader.feed(input);
        let mut replies = Vec::new();
        while let Some(reply) = reader.next_reply()? {
            replies.push(reply);
        }
        Ok(replies)
    }

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.into())
    }

    #[test]
    fn every_kind_of_reply() {
        let input = b"+OK\r\n-ERR no\r\n:-7\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n_\r\n*2\r\n:1\r\n*0\r\n\
            %1\r\n+k\r\n:1\r\n~1\r\n:1\r\n>1\r\n+p\r\n,1.50\r\n,inf\r\n#t\r\n#f\r\n(-123\r\n=7\r\ntxt:abc\r\n!3\r\nERR\r\n";
        let replies = whole(input).unwrap();
        assert_eq!(
            replies,
            vec![
                Reply::Status(b"OK".to_vec()),
                Reply::Error(b"ERR no".to_vec()),
                Reply::Integer(-7),
                bulk("a\r\n"),
                Reply::Nil,
                Reply::Nil,
                Reply::Nil,
                Reply::Array(vec![Reply::Integer(1), Reply::Array(vec![])]),
                Reply::Map(vec![(Reply::Status(b"k".to_vec()), Reply::Integer(1))]),
                Reply::Set(vec![Reply::Integer(1)]),
                Reply::Push(vec![Reply::Status(b"p".to_vec())]),
                Reply::Double(b"1.50".to_vec()),
                Reply::Double(b"inf".to_vec()),
                Reply::Bool(true),
                Reply::Bool(false),
                Reply::BigNumber(b"-123".to_vec()),
                Reply::Verbatim { format: *b"txt", text: b"abc".to_vec() },
                Reply::Error(b"ERR".to_vec()),
            ]
        );
    }

    #[test]
    fn attributes_are_skipped() {
        let replies = whole(b"*2\r\n|1\r\n+ttl\r\n*1\r\n:9\r\n:1\r\n:2\r\n").unwrap();
        assert_eq!(replies, vec![Reply::Array(vec![Reply::Integer(1), Reply::Integer(2)])]);
    }

    #[test]
    fn malformed_input_is_an_error_with_its_offset() {
        let cases: [(&[u8], Malformed); 9] = [
            (b"?", Malformed::TypeByte(b'?')),
            (b":x\r\n", Malformed::Number),
            (b"$-2\r\n", Malformed::Length),
            (b"*-2\r\n", Malformed::Length),
            (b"+OK\n", Malformed::LineEnd),
            (b"$1\r\nabc", Malformed::LineEnd),
            (b"#x\r\n", Malformed::Body),
            (b",abc\r\n", Malformed::Body),
            (b"=2\r\nab\r\n", Malformed::Body),
        ];
        for (input, reason) in cases {
            let mut all = b"+first\r\n".to_vec();
            all.extend_from_slice(input);
            let error = whole(&all).unwrap_err();
            assert_eq!(error, ReplyError { offset: 8, reason });
        }
    }

    #[test]
    fn nesting_is_bounded() {
        assert!(whole(&b"*1\r\n".repeat(MAX_NESTING)).unwrap().is_empty());
        let error = whole(&b"*1\r\n".repeat(MAX_NESTING + 1)).unwrap_err();
        assert_eq!(error.reason, Malformed::Nesting);
    }

    #[test]
    fn a_huge_count_reserves_nothing() {
        assert!(whole(b"*9223372036854775807\r\n:1\r\n").unwrap().is_empty());
        assert!(whole(b"$9223372036854775000\r\nabc").unwrap().is_empty());
    }

    #[test]
    fn rest_is_handed_over() {
        let mut reader = ReplyReader::new();
        reader.feed(b"+FULLRESYNC x 0\r\n$9\r\nREDIS");
        assert!(reader.next_reply().unwrap().is_some());
        assert_eq!(reader.take_rest(), b"$9\r\nREDIS");
    }

    fn encode(reply: &Reply, out: &mut Vec<u8>) {
        fn head(out: &mut Vec<u8>, kind: char, n: usize) {
            out.extend_from_slice(format!("{kind}{n}\r\n").as_bytes());
        }
        match reply {
            Reply::Integer(n) => out.extend_from_slice(format!(":{n}\r\n").as_bytes()),
            Reply::Bulk(t) => {
                head(out, '$', t.len());
                out.extend_from_slice(t);
                out.extend_from_slice(b"\r\n");
            }
            Reply::Array(items) => {
                head(out, '*', items.len());
                items.iter().for_each(|i| encode(i, out));
            }
            Reply::Map(pairs) => {
                head(out, '%', pairs.len());
                for (k, v) in pairs {
                    encode(k, out);
                    encode(v, out);
                }
            }
            _ => out.extend_from_slice(b"_\r\n"),
        }
    }

    fn any_reply() -> impl Strategy<Value = Reply> {
        let leaf = prop_oneof![
            any::<i64>().prop_map(Reply::Integer),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(Reply::Bulk),
            Just(Reply::Nil),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Reply::Array),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_replies(
            replies in prop::collection::vec(any_reply(), 1..5),
            piece in 1usize..50,
        ) {
            let mut bytes = Vec::new();
            replies.iter().for_each(|r| encode(r, &mut bytes));
            let mut reader = ReplyReader::new();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(piece) {
                reader.feed(chunk);
                while let Some(reply) = reader.next_reply().unwrap() {
                    seen.push(reply);
                }
            }
            prop_assert_eq!(seen, replies);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = whole(&bytes);
        }
    }
}
