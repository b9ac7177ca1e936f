//! Reading the commands of one append-only file.
//!
//! The source is any `BufRead` standing where commands begin. Arguments share one buffer, so that replaying allocates
//! nothing per command once the buffer has grown.
//!
//! Invariant: `offset` is the number of bytes taken from the source. Every complete record is handed out before an
//! error is reported, so the offset after the last good one is where a damaged tail begins.

use std::io::{self, BufRead};
use std::ops::Range;

/// Lines longer than this are no part of the format.
const MAX_LINE: usize = 1024;
const CHUNK: usize = 1 << 20;
/// Arguments a command announces before any of them is there; beyond it the list grows as they come.
const ARGS_AHEAD: usize = 1024;

/// Why reading stopped.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// The file ends inside a record.
    Truncated,
    /// The bytes are not the format's.
    Format,
    Io(io::Error),
}

/// What was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Record {
    /// A command; its arguments are `AofReader::args`.
    Command,
    /// A line starting with `#`.
    Annotation,
    /// The file ends here, between two records.
    End,
}

/// Pulls records out of an append-only file.
pub(crate) struct AofReader<S: BufRead> {
    src: S,
    offset: u64,
    line: Vec<u8>,
    bytes: Vec<u8>,
    args: Vec<Range<usize>>,
}

impl<S: BufRead> AofReader<S> {
    /// `offset` is where the source stands in its file.
    pub(crate) fn new(src: S, offset: u64) -> AofReader<S> {
        AofReader { src, offset, line: Vec::new(), bytes: Vec::new(), args: Vec::new() }
    }

    /// Position in the file, after what was read last.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Arguments of the command read last; at least one.
    pub(crate) fn args(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.args.iter().map(|r| &self.bytes[r.clone()])
    }

    /// What was read from the source and not taken yet. An error shows when more is asked for.
    pub(crate) fn buffered(&mut self) -> &[u8] {
        self.fill().unwrap_or_default()
    }

    pub(crate) fn next_record(&mut self) -> Result<Record, ReadError> {
        if !self.read_line()? {
            return Ok(Record::End);
        }
        match self.line[0] {
            b'#' => return Ok(Record::Annotation),
            b'*' => {}
            _ => return Err(ReadError::Format),
        }
        let count = self.line_number(1)?;
        self.bytes.clear();
        self.args.clear();
        self.args.reserve(count.min(ARGS_AHEAD));
        for _ in 0..count {
            if !self.read_line()? {
                return Err(ReadError::Truncated);
            }
            if self.line[0] != b'$' {
                return Err(ReadError::Format);
            }
            let len = self.line_number(0)?;
            let start = self.bytes.len();
            self.read_bytes(len)?;
            self.args.push(start..start + len);
            self.read_bytes(2)?;
            if !self.bytes.ends_with(b"\r\n") {
                return Err(ReadError::Format);
            }
        }
        Ok(Record::Command)
    }

    /// The number after the first byte of the line.
    fn line_number(&self, at_least: usize) -> Result<usize, ReadError> {
        let text = self.line[1..].trim_ascii_end();
        let number = std::str::from_utf8(text).ok().and_then(|t| t.parse::<usize>().ok());
        number.filter(|n| (at_least..=isize::MAX as usize).contains(n)).ok_or(ReadError::Format)
    }

    fn fill(&mut self) -> Result<&[u8], ReadError> {
        // Twice, because a borrow cannot leave the loop it was taken in.
        loop {
            match self.src.fill_buf() {
                Ok(_) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(ReadError::Io(e)),
            }
        }
        self.src.fill_buf().map_err(ReadError::Io)
    }

    /// Takes bytes that were buffered.
    pub(crate) fn consume(&mut self, n: usize) {
        self.src.consume(n);
        self.offset += n as u64;
    }

    /// Reads a line with its end into `line`; false at the end of the file.
    fn read_line(&mut self) -> Result<bool, ReadError> {
        let mut line = std::mem::take(&mut self.line);
        line.clear();
        let found = loop {
            let available = self.fill()?;
            if available.is_empty() {
                break if line.is_empty() { Ok(false) } else { Err(ReadError::Truncated) };
            }
            let newline = memchr::memchr(b'\n', available);
            let n = newline.map_or(available.len(), |at| at + 1);
            line.extend_from_slice(&available[..n.min(MAX_LINE + 1)]);
            if line.len() > MAX_LINE {
                break Err(ReadError::Format);
            }
            self.consume(n);
            if newline.is_some() {
                break Ok(true);
            }
        };
        self.line = line;
        found
    }

    /// Appends the next `len` bytes to `bytes`. Memory is taken as they arrive.
    fn read_bytes(&mut self, len: usize) -> Result<(), ReadError> {
        let mut left = len;
        while left > 0 {
            let mut bytes = std::mem::take(&mut self.bytes);
            let available = self.fill()?;
            let n = available.len().min(left).min(CHUNK);
            bytes.extend_from_slice(&available[..n]);
            self.bytes = bytes;
            if n == 0 {
                return Err(ReadError::Truncated);
            }
            self.consume(n);
            left -= n;
        }
        Ok(())
    }
}

/// Which part of a file being replayed is good: where its tail has to be cut if it turns out to be damaged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ValidUpTo {
    /// End of the last command replayed.
    pub(crate) command: u64,
    /// The same, before the MULTI that is open.
    pub(crate) before_multi: u64,
}

impl ValidUpTo {
    /// A command named `name` was read.
    pub(crate) fn on_command(&mut self, name: &[u8]) {
        if name.eq_ignore_ascii_case(b"multi") {
            self.before_multi = self.command;
        }
    }

    /// The command that was read has been run; `offset` is where it ended.
    pub(crate) fn on_done(&mut self, offset: u64) {
        self.command = offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(bytes: &[u8]) -> (Vec<Vec<Vec<u8>>>, u64, Result<(), ReadError>) {
        let mut r = AofReader::new(bytes, 0);
        let (mut all, mut good) = (Vec::new(), 0);
        loop {
            match r.next_record() {
                Ok(Record::End) => return (all, good, Ok(())),
                Ok(Record::Annotation) => {}
                Ok(Record::Command) => {
                    all.push(r.args().map(<[u8]>::to_vec).collect());
                    good = r.offset();
                }
                Err(e) => return (all, good, Err(e)),
            }
        }
    }

    const TWO: &[u8] = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n#TS:123\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n";

    #[test]
    fn commands_and_annotations() {
        let (all, good, end) = records(TWO);
        assert!(end.is_ok());
        assert_eq!(good, TWO.len() as u64);
        assert_eq!(all, [vec![b"SELECT".to_vec(), b"0".to_vec()], vec![b"SET".to_vec(), b"k".to_vec(), vec![]]]);
    }

    #[test]
    fn every_cut_is_a_truncation_after_the_last_whole_command() {
        let ends = [0, 23, 32, TWO.len()];
        for n in 0..=TWO.len() {
            let (_, good, end) = records(&TWO[..n]);
            match end {
                Ok(()) => assert!(ends.contains(&n), "{n}"),
                Err(ReadError::Truncated) => assert!(!ends.contains(&n), "{n}"),
                Err(e) => panic!("{n}: {e:?}"),
            }
            assert_eq!(
                good,
                match n {
                    0..23 => 0,
                    23..58 => 23,
                    _ => n as u64,
                }
                .min(n as u64)
            );
        }
    }

    #[test]
    fn damage_is_a_format_error() {
        for bad in [
            &b"PING\r\n"[..],
            b"*0\r\n",
            b"*-1\r\n",
            b"*x\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n$-1\r\n",
            b"*1\r\n$1\r\nabc\r\n",
            b"*99999999999999999999\r\n",
            b"\0\0\0\0\n",
        ] {
            assert!(matches!(records(bad).2, Err(ReadError::Format)), "{bad:?}");
        }
        let long = [b"*".to_vec(), b"1".repeat(2000)].concat();
        assert!(matches!(records(&long).2, Err(ReadError::Format)));
    }

    #[test]
    fn a_huge_length_takes_no_memory() {
        assert!(matches!(records(b"*1\r\n$9000000000000000000\r\nx").2, Err(ReadError::Truncated)));
        assert!(matches!(records(b"*9000000000000000000\r\n").2, Err(ReadError::Truncated)));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = records(&bytes);
        }
    }
}
