//! The framing of the dataset a master sends: `$<length>` and that many bytes, or `$EOF:<mark>` and bytes up to the mark.
//!
//! Takes the bytes of the link in any pieces and says which of them are RDB. Before the header a master may send empty
//! lines to show that it is alive. Invariant: no byte of the end mark is ever reported as data. Where the data goes is
//! the caller's business.

/// Length of the random end mark of a streamed transfer.
pub(crate) const MARK_LEN: usize = 40;
/// Longest header line that is accepted, in bytes.
const MAX_HEADER: usize = 1024;

/// How the dataset is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// So many bytes.
    Length(u64),
    /// Everything up to this mark; nothing follows the mark until the replica has acknowledged.
    Mark([u8; MARK_LEN]),
}

/// What a piece of the link's bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BulkEvent<'a> {
    /// An empty line: the master is alive and still preparing.
    Keepalive,
    /// The header arrived.
    Header(Framing),
    /// RDB bytes.
    Data(&'a [u8]),
    /// RDB bytes that had been held back, since they looked like the beginning of the mark.
    Held(Vec<u8>),
    /// The dataset is complete.
    End,
}

/// Why a header was refused. The text is what Redis logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BulkError {
    /// The master sent an error instead.
    Aborted(String),
    /// Not a bulk header.
    BadProtocol(String),
    /// The line does not end.
    LineTooLong,
}

impl std::fmt::Display for BulkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BulkError::Aborted(text) => {
                write!(f, "MASTER aborted replication with an error: {text}")
            }
            BulkError::BadProtocol(line) => write!(
                f,
                "Bad protocol from MASTER, the first byte is not '$' (we received '{line}'), are you sure the host and \
                 port are right?"
            ),
            BulkError::LineTooLong => f.write_str("I/O error reading bulk count from MASTER: line too long"),
        }
    }
}

#[derive(Debug)]
enum State {
    Header(Vec<u8>),
    Counted { left: u64 },
    Marked { mark: [u8; MARK_LEN], held: Vec<u8> },
    Ended,
}

/// Reads one dataset off the link.
#[derive(Debug)]
pub(crate) struct BulkReader {
    state: State,
}

impl Default for BulkReader {
    fn default() -> Self {
        Self::new()
    }
}

impl BulkReader {
    /// Waits for a header.
    pub(crate) fn new() -> Self {
        BulkReader { state: State::Header(Vec::new()) }
    }

    /// Takes bytes off the front of `input` and says what they are, or `None` when more bytes are needed. After
    /// [`BulkEvent::End`] the rest of `input` is the replication stream and is left alone.
    ///
    /// # Errors
    /// When what comes is no dataset; the link is of no use then.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<BulkEvent<'a>>, BulkError> {
        match &mut self.state {
            State::Header(line) => {
                let (taken, complete) = match memchr::memchr(b'\n', input) {
                    Some(at) => (at + 1, true),
                    None => (input.len(), false),
                };
                if line.len() + taken > MAX_HEADER {
                    return Err(BulkError::LineTooLong);
                }
                line.extend_from_slice(&input[..taken]);
                *input = &input[taken..];
                if !complete {
                    return Ok(None);
                }
                let line = std::mem::take(line);
                self.header(line.strip_suffix(b"\r\n").unwrap_or(&line[..line.len() - 1])).map(Some)
            }
            State::Counted { left: 0 } => {
                self.state = State::Ended;
                Ok(Some(BulkEvent::End))
            }
            State::Counted { left } => {
                if input.is_empty() {
                    return Ok(None);
                }
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                let (data, rest) = input.split_at(taken);
                *input = rest;
                *left -= taken as u64;
                Ok(Some(BulkEvent::Data(data)))
            }
            State::Marked { mark, held } => {
                let data = if held == mark { None } else { up_to_mark(held, input) };
                if data.is_some() || held != mark {
                    return Ok(data);
                }
                self.state = State::Ended;
                Ok(Some(BulkEvent::End))
            }
            State::Ended => Ok(None),
        }
    }

    fn header(&mut self, line: &[u8]) -> Result<BulkEvent<'static>, BulkError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match line {
            [] => Ok(BulkEvent::Keepalive),
            [b'-', error @ ..] => Err(BulkError::Aborted(text(error))),
            [b'$', count @ ..] => {
                let framing = match count.strip_prefix(b"EOF:").and_then(|mark| mark.first_chunk()) {
                    Some(mark) => Framing::Mark(*mark),
                    None => Framing::Length(leading_number(count).ok_or_else(|| BulkError::BadProtocol(text(line)))?),
                };
                self.state = match framing {
                    Framing::Length(left) => State::Counted { left },
                    Framing::Mark(mark) => State::Marked { mark, held: Vec::new() },
                };
                Ok(BulkEvent::Header(framing))
            }
            other => Err(BulkError::BadProtocol(text(other))),
        }
    }
}

/// What of `input` is sure to be data. The last bytes, as many as the mark has, are held back: they may turn out to be it.
fn up_to_mark<'a>(held: &mut Vec<u8>, input: &mut &'a [u8]) -> Option<BulkEvent<'a>> {
    let all = std::mem::take(input);
    if all.len() < MARK_LEN {
        held.extend_from_slice(all);
        let data = held.len().checked_sub(MARK_LEN).filter(|len| *len > 0)?;
        return Some(BulkEvent::Held(held.drain(..data).collect()));
    }
    if !held.is_empty() {
        *input = all;
        return Some(BulkEvent::Held(std::mem::take(held)));
    }
    let (data, tail) = all.split_at(all.len() - MARK_LEN);
    held.extend_from_slice(tail);
    (!data.is_empty()).then_some(BulkEvent::Data(data))
}

fn leading_number(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `stream` cut at `cuts`; returns the data, whether the end was seen, and what was left over.
    fn read(stream: &[u8], cuts: &[usize]) -> Result<(Vec<u8>, bool, Vec<u8>), BulkError> {
        let mut reader = BulkReader::new();
        let (mut data, mut ended, mut rest) = (Vec::new(), false, Vec::new());
        let mut at = 0;
        for end in cuts.iter().map(|cut| cut % (stream.len() + 1)).chain([stream.len()]) {
            let end = end.max(at);
            let mut input = &stream[at..end];
            at = end;
            while let Some(event) = reader.next(&mut input)? {
                match event {
                    BulkEvent::Data(bytes) => data.extend_from_slice(bytes),
                    BulkEvent::Held(bytes) => data.extend_from_slice(&bytes),
                    BulkEvent::End => ended = true,
                    BulkEvent::Keepalive | BulkEvent::Header(_) => {}
                }
            }
            rest.extend_from_slice(input);
        }
        Ok((data, ended, rest))
    }

    #[test]
    fn refuses_what_is_no_bulk() {
        assert_eq!(
            read(b"\n\n-ERR no\r\n", &[]).unwrap_err().to_string(),
            "MASTER aborted replication with an error: ERR no"
        );
        assert!(read(b"+OK\r\n", &[]).unwrap_err().to_string().contains("(we received '+OK')"));
        assert_eq!(read(&[b'x'; 2000], &[]), Err(BulkError::LineTooLong));
        assert!(matches!(read(b"$\r\n", &[]), Err(BulkError::BadProtocol(_))));
    }

    #[test]
    fn an_empty_dataset_ends_at_once() {
        assert_eq!(read(b"$0\r\nrest", &[]), Ok((vec![], true, b"rest".to_vec())));
    }

    proptest! {
        #[test]
        fn counted_data_survives_any_cuts(
            data in prop::collection::vec(any::<u8>(), 0..300),
            rest in prop::collection::vec(any::<u8>(), 0..20),
            mut cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut stream = format!("\n\r\n${}\r\n", data.len()).into_bytes();
            stream.extend_from_slice(&data);
            stream.extend_from_slice(&rest);
            for cut in &mut cuts { *cut %= stream.len() + 1; }
            cuts.sort_unstable();
            prop_assert_eq!(read(&stream, &cuts), Ok((data, true, rest)));
        }

        #[test]
        fn marked_data_survives_any_cuts(
            data in prop::collection::vec(b'a'..=b'b', 0..300),
            mark in prop::collection::vec(b'a'..=b'b', MARK_LEN),
            mut cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut stream = b"$EOF:".to_vec();
            stream.extend_from_slice(&mark);
            stream.extend_from_slice(b"\r\n");
            stream.extend_from_slice(&data);
            stream.extend_from_slice(&mark);
            for cut in &mut cuts { *cut %= stream.len() + 1; }
            cuts.sort_unstable();
            prop_assert_eq!(read(&stream, &cuts), Ok((data, true, vec![])));
        }

        #[test]
        fn arbitrary_bytes_never_panic(
            stream in prop::collection::vec(any::<u8>(), 0..200),
            mut cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            for cut in &mut cuts { *cut %= stream.len() + 1; }
            cuts.sort_unstable();
            let _ = read(&stream, &cuts);
        }
    }
}
