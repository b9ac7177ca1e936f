//! LZF, the compression of long strings in RDB files.
//!
//! A stream is a row of runs. A control byte below 32 is followed by that many bytes plus one, taken as they are. Any
//! other says "copy": its upper three bits are the length less two (7: the next byte is added), its lower five and the
//! byte behind them the distance back less one. Any stream that LibLZF writes can be read here and the other way round;
//! which matches the writer finds is its own business.

/// Why a stream cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LzfError {
    /// The stream ends inside a run; where, in bytes.
    Truncated(usize),
    /// A copy from before the beginning; where it stands.
    BadDistance(usize),
    /// It does not yield the length that was promised.
    BadLength,
}

impl std::fmt::Display for LzfError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LzfError::Truncated(at) => write!(f, "LZF stream ends inside a run at byte {at}"),
            LzfError::BadDistance(at) => write!(f, "LZF copy from before the beginning at byte {at}"),
            LzfError::BadLength => f.write_str("LZF stream has another length than promised"),
        }
    }
}

impl std::error::Error for LzfError {}

const MAX_LITERAL: usize = 32;
const MIN_MATCH: usize = 3;
const MAX_MATCH: usize = 2 + 7 + 255;
const MAX_DISTANCE: usize = 1 << 13;
const HASH_BITS: u32 = 14;

/// Compresses `input`, or returns `None` if that does not make it at most `max_len` bytes long.
pub fn compress(input: &[u8], max_len: usize) -> Option<Vec<u8>> {
    // Positions plus one of the last occurrence of three bytes; 32 bits each, as strings are below 4 GiB.
    if u32::try_from(input.len()).is_err() {
        return None;
    }
    let mut seen = vec![0u32; 1 << HASH_BITS];
    let mut out = Vec::with_capacity(max_len.min(input.len()));
    let mut literal_from = 0;
    let mut at = 0;
    while at + MIN_MATCH <= input.len() {
        let slot = hash(&input[at..]);
        let candidate = std::mem::replace(&mut seen[slot], at as u32 + 1) as usize;
        let distance = if candidate == 0 { usize::MAX } else { at + 1 - candidate };
        if distance > MAX_DISTANCE || input[at - distance..][..MIN_MATCH] != input[at..][..MIN_MATCH] {
            at += 1;
            continue;
        }
        let longest = MAX_MATCH.min(input.len() - at);
        let len = MIN_MATCH
            + input[at + MIN_MATCH..at + longest]
                .iter()
                .zip(&input[at + MIN_MATCH - distance..])
                .take_while(|(a, b)| a == b)
                .count();
        put_literals(&mut out, &input[literal_from..at]);
        let (code, back) = (len - 2, distance - 1);
        if code < 7 {
            out.push((code << 5 | back >> 8) as u8);
        } else {
            out.push((7 << 5 | back >> 8) as u8);
            out.push((code - 7) as u8);
        }
        out.push(back as u8);
        if out.len() > max_len {
            return None;
        }
        // Remember the match's last positions too: what follows often begins there.
        let end = at + len;
        for inside in end - 2..end {
            if inside + MIN_MATCH <= input.len() {
                seen[hash(&input[inside..])] = inside as u32 + 1;
            }
        }
        at = end;
        literal_from = at;
    }
    put_literals(&mut out, &input[literal_from..]);
    (out.len() <= max_len).then_some(out)
}

fn hash(bytes: &[u8]) -> usize {
    let three = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]);
    (three.wrapping_mul(0x9e37_79b1) >> (32 - HASH_BITS)) as usize
}

fn put_literals(out: &mut Vec<u8>, literals: &[u8]) {
    for run in literals.chunks(MAX_LITERAL) {
        out.push(run.len() as u8 - 1);
        out.extend_from_slice(run);
    }
}

/// Decompresses a stream that must yield exactly `len` bytes.
pub fn decompress(stream: &[u8], len: usize) -> Result<Vec<u8>, LzfError> {
    // A stream yields at most 88 bytes for each of its own: a longer promise is not worth the memory.
    if len > stream.len().saturating_mul(MAX_MATCH) {
        return Err(LzfError::BadLength);
    }
    let mut out = Vec::with_capacity(len);
    let mut at = 0;
    let byte = |at: usize| stream.get(at).copied().map(usize::from).ok_or(LzfError::Truncated(at));
    while at < stream.len() {
        let start = at;
        let control = byte(at)?;
        at += 1;
        if control < MAX_LITERAL {
            let run = stream.get(at..at + control + 1).ok_or(LzfError::Truncated(start))?;
            at += run.len();
            if out.len() + run.len() > len {
                return Err(LzfError::BadLength);
            }
            out.extend_from_slice(run);
            continue;
        }
        let mut count = (control >> 5) + 2;
        if count == 7 + 2 {
            count += byte(at)?;
            at += 1;
        }
        let distance = ((control & 31) << 8 | byte(at)?) + 1;
        at += 1;
        let from = out.len().checked_sub(distance).ok_or(LzfError::BadDistance(start))?;
        if out.len() + count > len {
            return Err(LzfError::BadLength);
        }
        if distance >= count {
            out.extend_from_within(from..from + count);
        } else {
            // The copy runs into what it writes.
            for i in from..from + count {
                out.push(out[i]);
            }
        }
    }
    if out.len() == len { Ok(out) } else { Err(LzfError::BadLength) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn there_and_back(input: &[u8]) -> usize {
        let packed = compress(input, usize::MAX).expect("no limit");
        assert_eq!(decompress(&packed, input.len()).as_deref(), Ok(input));
        packed.len()
    }

    #[test]
    fn repetition_shrinks() {
        assert!(there_and_back(&[b'a'; 10_000]) < 200);
        assert!(there_and_back(&b"the quick brown fox ".repeat(100)) < 100);
        assert_eq!(compress(b"abcdefgh", 8), None);
        assert_eq!(compress(&[0; 100], 20).map(|packed| packed.len() <= 20), Some(true));
    }

    #[test]
    fn a_stream_of_liblzf_is_read() {
        // "aaaaaaaaaaaaaaaaaaaa" as LibLZF 3.6 writes it: a literal, a copy of 18 from one back, a literal.
        let stream = [0x01, b'a', b'a', 0xe0, 0x07, 0x00, 0x01, b'a', b'a'];
        assert_eq!(decompress(&stream, 20), Ok(vec![b'a'; 20]));
    }

    #[test]
    fn broken_streams_are_refused() {
        assert_eq!(decompress(&[5, b'a'], 6), Err(LzfError::Truncated(0)));
        assert_eq!(decompress(&[0, b'a', 0x20], 5), Err(LzfError::Truncated(3)));
        assert_eq!(decompress(&[0, b'a', 0x20, 1], 4), Err(LzfError::BadDistance(2)));
        assert_eq!(decompress(&[0, b'a', 0x20, 0], 3), Err(LzfError::BadLength));
        assert_eq!(decompress(&[0, b'a'], 2), Err(LzfError::BadLength));
        assert_eq!(decompress(&[0, b'a'], usize::MAX), Err(LzfError::BadLength));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(input in any::<Vec<u8>>(), times in 1usize..20) {
            there_and_back(&input.repeat(times));
        }

        #[test]
        fn few_letters_come_back(input in "[ab]{0,2000}") {
            there_and_back(input.as_bytes());
        }

        #[test]
        fn no_stream_panics(stream in any::<Vec<u8>>(), len in 0usize..5_000) {
            let _ = decompress(&stream, len);
        }
    }
}
