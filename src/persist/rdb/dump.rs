//! The payload of DUMP and RESTORE: a value as in a snapshot, the format version (two bytes) and a CRC64 of all before
//! it, both little endian.

use super::decode::{Reader, Value};
use super::encode::{ValueView, put_value};
use super::{ErrorKind, NEWEST_READ, Source, VERSION, ValueType, opcode};
use crate::keyspace::object::ValueLimits;
use crate::structs::crc64;
use std::fmt;

const FOOTER_LEN: usize = 10;

/// Why a payload was refused; displayed as the reply's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DumpError {
    /// Too short, from a newer version, or damaged on its way.
    Footer,
    /// Intact, but not a value this server can hold.
    Value,
    /// Intact, but of a type that came later.
    Type(u8),
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DumpError::Footer => f.write_str("DUMP payload version or checksum are wrong"),
            DumpError::Value => f.write_str("Bad data format"),
            DumpError::Type(byte) => write!(f, "A value of type {byte} of a newer version cannot be held here"),
        }
    }
}

impl std::error::Error for DumpError {}

/// Appends the payload of `value` to `out`.
pub(crate) fn encode_dump(out: &mut Vec<u8>, value: ValueView<'_>, compress: bool) {
    let start = out.len();
    out.push(value.value_type() as u8);
    // Nothing is taken out of the buffer on the way, so nothing can fail.
    let _ = put_value(out, value, compress, &mut |_| Ok(()));
    out.extend_from_slice(&(VERSION as u16).to_le_bytes());
    let crc = crc64::crc64(0, &out[start..]);
    out.extend_from_slice(&crc.to_le_bytes());
}

/// How a payload is taken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    /// A node of a newer version sends it: any version is taken, and a checksum of 0 stands for none.
    pub(crate) newer: bool,
    /// The checksum is not looked at.
    pub(crate) skip_checksum: bool,
    /// Looks for what stands twice in packed collections, too.
    pub(crate) deep: bool,
    pub(crate) limits: ValueLimits,
}

/// A payload taken apart.
pub(super) struct Parts<'a> {
    body: &'a [u8],
    /// The bytes in which the value stands: as in Redis, a short one may run into the footer and fail there.
    pub(super) value: &'a [u8],
    /// What the checksum is of.
    pub(super) summed: &'a [u8],
    /// The checksum, if it is to be looked at.
    pub(super) sum: Option<u64>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(payload: &'a [u8], newer: bool, skip_checksum: bool) -> Result<Parts<'a>, DumpError> {
        let (body, [low, high, sum @ ..]) = payload.split_last_chunk::<FOOTER_LEN>().ok_or(DumpError::Footer)?;
        if !newer && u32::from(u16::from_le_bytes([*low, *high])) > VERSION {
            return Err(DumpError::Footer);
        }
        let sum = u64::from_le_bytes(*sum);
        let is_checked = if newer { sum != 0 } else { !skip_checksum };
        let value = if newer { body } else { payload };
        Ok(Parts { body, value, summed: &payload[..body.len() + 2], sum: is_checked.then_some(sum) })
    }

    /// The same, if the checksum is right.
    fn checked(self) -> Result<Parts<'a>, DumpError> {
        let is_right = self.sum.is_none_or(|sum| sum == crc64::crc64(0, self.summed));
        if is_right { Ok(self) } else { Err(DumpError::Footer) }
    }
}

/// Checks version and, unless `skip_checksum`, checksum; returns what lies before them.
pub(crate) fn check_dump_footer(payload: &[u8], skip_checksum: bool) -> Result<&[u8], DumpError> {
    Ok(Parts::of(payload, false, skip_checksum)?.checked()?.body)
}

/// Whether a payload says that a newer version than this one wrote it.
pub(crate) fn is_newer_dump(payload: &[u8]) -> bool {
    let footer = payload.last_chunk::<FOOTER_LEN>();
    footer.is_some_and(|footer| u32::from(u16::from_le_bytes([footer[0], footer[1]])) > VERSION)
}

pub(super) fn refused(e: super::Error) -> DumpError {
    log::debug!("{e}");
    match e.kind {
        ErrorKind::Newer(byte) => DumpError::Type(byte),
        _ => DumpError::Value,
    }
}

/// How the value is laid out.
pub(super) fn read_layout<S: Source>(reader: &mut Reader<S>, how: &How) -> Result<ValueType, DumpError> {
    let byte = reader.byte().map_err(refused)?;
    reader.value_type(byte, if how.newer { NEWEST_READ } else { VERSION }).map_err(|e| match e.kind {
        ErrorKind::UnknownType(byte) if how.newer => DumpError::Type(byte),
        _ => refused(e),
    })
}

/// The payload of FUNCTION DUMP as this version writes it, of what a node of a newer version sends.
pub(crate) fn functions_from_newer(payload: &[u8]) -> Result<Vec<u8>, DumpError> {
    let mut out = Parts::of(payload, true, false)?.checked()?.body.to_vec();
    out.extend_from_slice(&(VERSION as u16).to_le_bytes());
    let crc = crc64::crc64(0, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// The value, if it is one that a key can have.
pub(super) fn stored(value: Value) -> Result<Value, DumpError> {
    if matches!(value, Value::Empty) { Err(DumpError::Value) } else { Ok(value) }
}

/// Checks a payload and reads its value.
pub(crate) fn decode_dump(payload: &[u8], how: &How) -> Result<Value, DumpError> {
    let parts = Parts::of(payload, how.newer, how.skip_checksum)?.checked()?;
    let mut reader = Reader::new(parts.value, false).deep(how.deep).limits(&how.limits);
    let layout = read_layout(&mut reader, how)?;
    stored(reader.value(layout).map_err(refused)?)
}

/// The sources in what FUNCTION DUMP gave, without its footer. `Err` is the text of RESTORE's reply.
pub(crate) fn read_functions(body: &[u8]) -> Result<Vec<Vec<u8>>, &'static [u8]> {
    let mut reader = Reader::new(body, false);
    let mut sources = Vec::new();
    while reader.offset() < body.len() as u64 {
        match reader.byte().map_err(|_| &b"can not read data type"[..])? {
            opcode::FUNCTION2 => {}
            opcode::FUNCTION_PRE_GA => return Err(b"Pre-GA function format not supported"),
            _ => return Err(b"given type is not a function"),
        }
        let source = reader.string().map_err(|_| &b"Failed loading library payload"[..])?;
        sources.push(source.into_bytes());
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::super::StringValue;
    use super::*;

    fn decode(payload: &[u8], skip_checksum: bool, deep: bool) -> Result<Value, DumpError> {
        decode_dump(payload, &How { newer: false, skip_checksum, deep, limits: ValueLimits::default() })
    }

    /// `SET foo 10; DUMP foo` of a 7.2 server.
    const TEN: &[u8] = b"\x00\xc0\n\x0b\x00\x07\x40\xea\x36\xf3\x31\x8a\x32";

    #[test]
    fn a_newer_version_is_known_by_the_footer() {
        let mut newer = TEN.to_vec();
        newer[3] = 13;
        assert_eq!([TEN, &newer[..], &TEN[..9], b""].map(is_newer_dump), [false, true, false, false]);
    }

    #[test]
    fn payload_round_trips() {
        for value in [ValueView::Int(10), ValueView::Int(i64::MAX), ValueView::Str(b"hello"), ValueView::Str(&[1; 99])]
        {
            let mut out = b"kept".to_vec();
            encode_dump(&mut out, value, true);
            let payload = &out[4..];
            let want = match value {
                ValueView::Int(v) => v.to_string().into_bytes(),
                ValueView::Str(s) => s.to_vec(),
                _ => unreachable!("only strings are tried"),
            };
            let Ok(Value::String(got)) = decode(payload, false, true) else { panic!("{value:?}") };
            assert_eq!(got.into_bytes(), want);
            for i in 0..payload.len() {
                let mut bad = payload.to_vec();
                bad[i] ^= 0x40;
                assert_eq!(decode(&bad, false, true), Err(DumpError::Footer));
            }
        }
    }

    #[test]
    fn refusals() {
        assert_eq!(decode(b"", false, true), Err(DumpError::Footer));
        assert_eq!(decode(b"123456789", false, true), Err(DumpError::Footer));
        let mut newer = b"\x00\x01a".to_vec();
        newer.extend_from_slice(&12u16.to_le_bytes());
        let crc = crc64::crc64(0, &newer);
        newer.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&newer, false, true), Err(DumpError::Footer));
        let mut unknown = b"\x08\x01a".to_vec();
        unknown.extend_from_slice(&11u16.to_le_bytes());
        let crc = crc64::crc64(0, &unknown);
        unknown.extend_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&unknown, false, true), Err(DumpError::Value));
    }

    #[test]
    fn what_a_newer_version_sends_is_read_if_it_can_be_held() {
        let newer = |body: &[u8], crc: u64| {
            let mut payload = body.to_vec();
            payload.extend_from_slice(&13u16.to_le_bytes());
            payload.extend_from_slice(&crc.to_le_bytes());
            let how = How { newer: true, skip_checksum: false, deep: false, limits: ValueLimits::default() };
            decode_dump(&payload, &how)
        };
        assert_eq!(newer(b"\x00\xc0\n", 0), Ok(Value::String(StringValue::Int(10))));
        assert_eq!(newer(b"\x00\xc0\n", 1), Err(DumpError::Footer));
        // A hash whose fields have a time to live.
        assert_eq!(newer(b"\x19\x00", 0), Err(DumpError::Type(25)));
        assert!(DumpError::Type(25).to_string().contains("type 25"));
        // An empty stream, its last id 1-1, with no groups.
        let stream = b"\x1a\x00\x00\x01\x01\x00\x00\x00\x00\x01\x00";
        let with = |end: &[u8]| newer(&[&stream[..], end].concat(), 0);
        assert!(matches!(with(&[64, 100, 64, 100, 0, 0, 0]), Ok(Value::Stream(_))));
        assert_eq!(with(&[64, 100, 64, 100, 1, 1, b'p', 0, 0, 0]), Err(DumpError::Type(26)));
        assert_eq!(with(&[]), Err(DumpError::Value));
        let functions = functions_from_newer(&[13, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        assert_eq!(check_dump_footer(&functions, false), Ok(&b""[..]));
    }

    #[test]
    fn same_bytes_as_redis() {
        let mut out = Vec::new();
        encode_dump(&mut out, ValueView::Int(10), true);
        assert_eq!(out, TEN);
        assert_eq!(decode(TEN, false, true), Ok(Value::String(StringValue::Int(10))));
    }
}
