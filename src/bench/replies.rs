//! Finds where replies end, without building them.

use memchr::memchr;

/// Aggregates deeper than this are refused.
const MAX_DEPTH: usize = 32;

/// What stands at the start of a buffer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Incomplete,
    /// A reply of this many bytes; whether it is an error.
    Reply {
        len: usize,
        is_error: bool,
    },
    /// An out-of-band push of this many bytes, which answers nothing.
    Push {
        len: usize,
    },
    Malformed,
}

pub(crate) fn next(buf: &[u8]) -> Found {
    match end_of(buf, 0, 0) {
        Ok(Some(len)) if buf[0] == b'>' => Found::Push { len },
        Ok(Some(len)) => Found::Reply { len, is_error: matches!(buf[0], b'-' | b'!') },
        Ok(None) => Found::Incomplete,
        Err(()) => Found::Malformed,
    }
}

/// The index after the reply at `at`; `None` while it is not complete, an error if it is malformed.
fn end_of(buf: &[u8], at: usize, depth: usize) -> Result<Option<usize>, ()> {
    let Some(kind) = buf.get(at) else { return Ok(None) };
    let Some(cr) = memchr(b'\r', &buf[at..]).map(|i| at + i) else { return Ok(None) };
    let line_end = cr + 2;
    if line_end > buf.len() {
        return Ok(None);
    }
    let count = || std::str::from_utf8(&buf[at + 1..cr]).ok().and_then(|t| t.parse::<i64>().ok()).ok_or(());
    match kind {
        b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => Ok(Some(line_end)),
        b'$' | b'=' | b'!' => {
            let n = count()?;
            let end = if n < 0 { line_end } else { line_end + n as usize + 2 };
            Ok((end <= buf.len()).then_some(end))
        }
        b'*' | b'~' | b'>' | b'%' | b'|' => {
            if depth == MAX_DEPTH {
                return Err(());
            }
            let n = count()?.max(0) * if matches!(kind, b'%' | b'|') { 2 } else { 1 };
            // An attribute stands before the reply it belongs to.
            let n = n + i64::from(*kind == b'|');
            let mut end = line_end;
            for _ in 0..n {
                match end_of(buf, end, depth + 1)? {
                    Some(e) => end = e,
                    None => return Ok(None),
                }
            }
            Ok(Some(end))
        }
        _ => Err(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_replies_are_measured() {
        for (reply, error) in [
            (&b"+OK\r\n"[..], false),
            (b"-ERR x\r\n", true),
            (b"$3\r\nabc\r\n", false),
            (b"$-1\r\n", false),
            (b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n", false),
            (b"%1\r\n+a\r\n:1\r\n", false),
        ] {
            assert_eq!(next(reply), Found::Reply { len: reply.len(), is_error: error });
            for cut in 0..reply.len() {
                assert_eq!(next(&reply[..cut]), Found::Incomplete, "{reply:?} cut at {cut}");
            }
        }
        assert_eq!(next(b">1\r\n:1\r\n"), Found::Push { len: 8 });
        assert_eq!(next(b"?\r\n"), Found::Malformed);
    }
}
