//! The payload of DUMP and RESTORE: a value as in a snapshot, the format version (two bytes) and a CRC64 of all before
//! it, both little endian.

use super::decode::{Reader, Value};
use super::encode::{ValueView, put_value};
use super::{VERSION, ValueType, opcode};
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

/// Checks version and, unless `skip_checksum`, checksum; returns what lies before them.
pub(crate) fn check_dump_footer(payload: &[u8], skip_checksum: bool) -> Result<&[u8], DumpError> {
    let (body, footer) = payload.split_last_chunk::<FOOTER_LEN>().ok_or(DumpError::Footer)?;
    let version = u16::from_le_bytes([footer[0], footer[1]]);
    if u32::from(version) > VERSION {
        return Err(DumpError::Footer);
    }
    if !skip_checksum && footer[2..] != crc64::crc64(0, &payload[..payload.len() - 8]).to_le_bytes() {
        return Err(DumpError::Footer);
    }
    Ok(body)
}

/// Whether a payload says that a newer version than this one wrote it.
pub(crate) fn is_newer_dump(payload: &[u8]) -> bool {
    let footer = payload.last_chunk::<FOOTER_LEN>();
    footer.is_some_and(|footer| u32::from(u16::from_le_bytes([footer[0], footer[1]])) > VERSION)
}

/// The same of what a node of a newer version sends: any version is taken, and a checksum of 0 stands for none.
pub(crate) fn check_newer_footer(payload: &[u8]) -> Result<&[u8], DumpError> {
    let (body, footer) = payload.split_last_chunk::<FOOTER_LEN>().ok_or(DumpError::Footer)?;
    let is_intact = footer[2..] == crc64::crc64(0, &payload[..payload.len() - 8]).to_le_bytes();
    if footer[2..] == [0; 8] || is_intact { Ok(body) } else { Err(DumpError::Footer) }
}

/// Reads the value of what a node of a newer version sends, if it is one that can be held here.
pub(crate) fn decode_newer_dump(payload: &[u8], limits: &ValueLimits) -> Result<Value, DumpError> {
    /// A stream as before, and behind it who has added to it so that the same is not added twice.
    const STREAM_4: u8 = 26;
    let body = check_newer_footer(payload)?;
    let mut reader = Reader::new(body, false).deep(false).limits(limits);
    let refused = |_: super::Error| DumpError::Value;
    let byte = reader.byte().map_err(refused)?;
    if byte != STREAM_4 {
        let value_type = ValueType::from_byte(byte).ok_or(DumpError::Type(byte))?;
        return reader.value(value_type).map_err(refused);
    }
    let value = reader.value(ValueType::StreamListpacks3).map_err(refused)?;
    // For how long and how many are remembered; and who they are, which is what cannot be kept.
    let (_, _, producers) =
        (reader.len().map_err(refused)?, reader.len().map_err(refused)?, reader.len().map_err(refused)?);
    if producers == 0 { Ok(value) } else { Err(DumpError::Type(byte)) }
}

/// The payload of FUNCTION DUMP as this version writes it, of what a node of a newer version sends.
pub(crate) fn functions_from_newer(payload: &[u8]) -> Result<Vec<u8>, DumpError> {
    let mut out = check_newer_footer(payload)?.to_vec();
    out.extend_from_slice(&(VERSION as u16).to_le_bytes());
    let crc = crc64::crc64(0, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(out)
}

/// Checks a payload and reads its value. `deep` also looks for what stands twice in packed collections.
pub(crate) fn decode_dump(
    payload: &[u8],
    skip_checksum: bool,
    deep: bool,
    limits: &ValueLimits,
) -> Result<Value, DumpError> {
    check_dump_footer(payload, skip_checksum)?;
    // The whole payload is the source: as in Redis, a short value may run into the footer and fail there.
    let mut reader = Reader::new(payload, false).deep(deep).limits(limits);
    let refused = |e: super::Error| {
        log::debug!("{e}");
        DumpError::Value
    };
    let byte = reader.byte().map_err(refused)?;
    let value_type = ValueType::from_byte(byte).ok_or(DumpError::Value)?;
    match reader.value(value_type).map_err(refused)? {
        Value::Empty => Err(DumpError::Value),
        value => Ok(value),
    }
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
        decode_dump(payload, skip_checksum, deep, &ValueLimits::default())
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
            decode_newer_dump(&payload, &ValueLimits::default())
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
