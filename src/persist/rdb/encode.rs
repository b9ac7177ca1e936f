//! Writing a snapshot: primitives over a byte vector, and `Writer`, which streams them to a sink.
//!
//! Invariant: `Writer` counts and checksums every byte that reaches its sink, in order. Flushing to disk (fsync, rename)
//! is the sink's and the caller's matter.

use super::stream::{Place, put_stream};
use super::{VERSION, ValueType, opcode};
use crate::keyspace::damaged::Damaged;
use crate::keyspace::hash::Hash;
use crate::keyspace::list::List;
use crate::keyspace::set::Set;
use crate::keyspace::zset::Zset;
use crate::structs::listpack::Item;
use crate::structs::quicklist::BodyView;
use crate::structs::stream::Stream;
use crate::structs::{crc64, lzf};
use std::io::{self, Write};

const LEN_14: u8 = 0x40;
const LEN_32: u8 = 0x80;
const LEN_64: u8 = 0x81;
const ENC_INT8: u8 = 0xC0;
const ENC_INT16: u8 = 0xC1;
const ENC_INT32: u8 = 0xC2;
const ENC_LZF: u8 = 0xC3;

/// What a node of a list is: one element, or a listpack.
pub(super) const CONTAINER_PLAIN: u64 = 1;
pub(super) const CONTAINER_PACKED: u64 = 2;

/// Strings up to this length never shrink enough to be worth compressing.
const COMPRESS_ABOVE: usize = 20;
/// The writer's buffer goes to the sink at this size; longer strings go there directly.
const FLUSH_AT: usize = 64 * 1024;

/// A length: 1, 2, 5 or 9 bytes, network byte order; the bytes, and how many they are.
fn len_bytes(len: u64) -> ([u8; 9], usize) {
    let mut bytes = [0; 9];
    if len < 1 << 6 {
        bytes[0] = len as u8;
        (bytes, 1)
    } else if len < 1 << 14 {
        bytes[..2].copy_from_slice(&[LEN_14 | (len >> 8) as u8, len as u8]);
        (bytes, 2)
    } else if let Ok(len) = u32::try_from(len) {
        bytes[0] = LEN_32;
        bytes[1..5].copy_from_slice(&len.to_be_bytes());
        (bytes, 5)
    } else {
        bytes[0] = LEN_64;
        bytes[1..].copy_from_slice(&len.to_be_bytes());
        (bytes, 9)
    }
}

/// Appends a length.
pub(crate) fn put_len(buf: &mut Vec<u8>, len: u64) {
    if len < 1 << 6 {
        buf.push(len as u8);
    } else {
        let (bytes, n) = len_bytes(len);
        buf.extend_from_slice(&bytes[..n]);
    }
}

/// Appends an integer in its 8, 16 or 32 bit string encoding. False, and nothing appended, when it needs more bits.
fn put_small_int(buf: &mut Vec<u8>, value: i64) -> bool {
    if let Ok(v) = i8::try_from(value) {
        buf.extend_from_slice(&[ENC_INT8, v as u8]);
    } else if let Ok(v) = i16::try_from(value) {
        buf.push(ENC_INT16);
        buf.extend_from_slice(&v.to_le_bytes());
    } else if let Ok(v) = i32::try_from(value) {
        buf.push(ENC_INT32);
        buf.extend_from_slice(&v.to_le_bytes());
    } else {
        return false;
    }
    true
}

/// Appends an integer as a string value: encoded when it fits 32 bits, else its decimal text.
pub(crate) fn put_int_string(buf: &mut Vec<u8>, value: i64) {
    if !put_small_int(buf, value) {
        let mut text = itoa::Buffer::new();
        let text = text.format(value).as_bytes();
        put_len(buf, text.len() as u64);
        buf.extend_from_slice(text);
    }
}

/// The integer whose canonical decimal text (no sign, zeros or blanks to spare) is `s`, if it fits 32 bits.
fn canonical_i32(s: &[u8]) -> Option<i64> {
    if s.is_empty() || s.len() > 11 {
        return None;
    }
    let digits = s.strip_prefix(b"-").unwrap_or(s);
    if !digits.iter().all(u8::is_ascii_digit) || (digits[..].first()? == &b'0' && s.len() > 1) {
        return None;
    }
    std::str::from_utf8(s).ok()?.parse::<i32>().ok().map(i64::from)
}

/// Appends the compressed form of `s` if that saves at least the four bytes that make it worthwhile; false, and nothing
/// appended, if not.
fn put_compressed(buf: &mut Vec<u8>, s: &[u8]) -> bool {
    if s.len() <= COMPRESS_ABOVE {
        return false;
    }
    let start = buf.len();
    // The length of what comes out stands before it; most often that takes as many bytes as the greatest it may be.
    let most = s.len() - 4;
    put_lzf_header(buf, most, s.len());
    let body = buf.len();
    if !lzf::compress_into(s, most, buf) {
        buf.truncate(start);
        return false;
    }
    let reserved = len_bytes(most as u64).1;
    let (bytes, n) = len_bytes((buf.len() - body) as u64);
    let place = start + 1..start + 1 + reserved;
    if n == reserved {
        buf[place].copy_from_slice(&bytes[..n]);
    } else {
        buf.splice(place, bytes[..n].iter().copied());
    }
    true
}

fn put_lzf_header(buf: &mut Vec<u8>, compressed_len: usize, len: usize) {
    buf.push(ENC_LZF);
    put_len(buf, compressed_len as u64);
    put_len(buf, len as u64);
}

/// Appends a string in its shortest form: integer, LZF (when `compress`), or length and bytes.
pub(crate) fn put_string(buf: &mut Vec<u8>, s: &[u8], compress: bool) {
    if let Some(v) = canonical_i32(s) {
        put_small_int(buf, v);
    } else if !compress || !put_compressed(buf, s) {
        put_len(buf, s.len() as u64);
        buf.extend_from_slice(s);
    }
}

/// Appends an element of a collection as a string: an integer needs no text to be made of it and read again.
pub(super) fn put_item(buf: &mut Vec<u8>, item: Item<'_>, compress: bool) {
    match item {
        Item::Int(value) => put_int_string(buf, value),
        Item::Str(bytes) => put_string(buf, bytes, compress),
    }
}

/// A value to write. Every type the server can hold has its variant here, and its arm in the `match`es below.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ValueView<'a> {
    Int(i64),
    Str(&'a [u8]),
    List(&'a List),
    Set(&'a Set),
    Hash(&'a Hash),
    Zset(&'a Zset),
    Stream(&'a Stream),
    Damaged(&'a Damaged),
}

impl ValueView<'_> {
    /// The layout the value is written in.
    pub(crate) fn value_type(&self) -> ValueType {
        match self {
            ValueView::Int(_) | ValueView::Str(_) => ValueType::String,
            ValueView::List(_) => ValueType::ListQuicklist2,
            ValueView::Set(Set::Ints(_)) => ValueType::SetIntset,
            ValueView::Set(Set::Packed(_)) => ValueType::SetListpack,
            ValueView::Set(Set::Table(_)) => ValueType::Set,
            ValueView::Hash(Hash::Packed(_)) => ValueType::HashListpack,
            ValueView::Hash(Hash::Table(_)) => ValueType::Hash,
            ValueView::Zset(Zset::Packed(_)) => ValueType::ZsetListpack,
            ValueView::Zset(Zset::Ordered(_)) => ValueType::Zset2,
            ValueView::Stream(_) => ValueType::StreamListpacks3,
            ValueView::Damaged(damaged) => ValueType::from_byte(damaged.layout).expect("a layout that was read"),
        }
    }
}

/// Appends a value without its type byte. Within collections `spill` is called between elements: it may take away what
/// has gathered in the buffer.
pub(crate) fn put_value(
    buf: &mut Vec<u8>,
    value: ValueView<'_>,
    compress: bool,
    spill: &mut dyn FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    match value {
        ValueView::Int(v) => put_int_string(buf, v),
        ValueView::Str(s) => put_string(buf, s, compress),
        ValueView::Set(Set::Ints(ints)) => put_string(buf, ints.as_bytes(), compress),
        ValueView::Set(Set::Packed(list)) => put_string(buf, list.as_bytes(), compress),
        ValueView::Set(set @ Set::Table(_)) => {
            put_len(buf, set.len() as u64);
            for item in set.iter() {
                put_item(buf, item, compress);
                spill(buf)?;
            }
        }
        ValueView::Hash(Hash::Packed(list)) => put_string(buf, list.as_bytes(), compress),
        ValueView::Hash(hash @ Hash::Table(_)) => {
            put_len(buf, hash.len() as u64);
            for (field, value) in hash.iter() {
                put_item(buf, field, compress);
                put_item(buf, value, compress);
                spill(buf)?;
            }
        }
        ValueView::Zset(Zset::Packed(list)) => put_string(buf, list.as_bytes(), compress),
        ValueView::Zset(Zset::Ordered(set)) => {
            put_len(buf, set.len() as u64);
            // Redis, too, begins at the end: its loading likes that.
            for (member, score) in set.range(set.len().saturating_sub(1), set.len(), true) {
                put_string(buf, member, compress);
                buf.extend_from_slice(&score.to_le_bytes());
                spill(buf)?;
            }
        }
        ValueView::Stream(stream) => {
            let most_compressed = if compress { usize::MAX } else { 0 };
            put_stream(buf, stream, most_compressed, &mut Place::Node(0), &mut |buf| spill(buf).map(|()| true))?;
        }
        ValueView::Damaged(damaged) => buf.extend_from_slice(&damaged.bytes),
        ValueView::List(List::Packed(list)) => {
            put_len(buf, 1);
            put_len(buf, CONTAINER_PACKED);
            put_string(buf, list.as_bytes(), compress);
        }
        ValueView::List(List::Quick(list)) => {
            put_len(buf, list.node_count() as u64);
            for body in list.bodies() {
                put_node(buf, body, compress);
                spill(buf)?;
            }
        }
    }
    Ok(())
}

/// Appends a node of a list.
pub(super) fn put_node(buf: &mut Vec<u8>, node: BodyView<'_>, compress: bool) {
    put_len(buf, if node.is_plain() { CONTAINER_PLAIN } else { CONTAINER_PACKED });
    match node {
        BodyView::Packed(list) => put_string(buf, list.as_bytes(), compress),
        BodyView::Dense(dense) => put_string(buf, dense.open().as_bytes(), compress),
        BodyView::Plain(bytes) => put_string(buf, bytes, compress),
        BodyView::Lzf(lzf) => {
            put_lzf_header(buf, lzf.stream().len(), node.raw_len());
            buf.extend_from_slice(lzf.stream());
        }
    }
}

/// Replication position stored with a snapshot, so that a restarted server can continue its stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplInfo {
    /// Database the stream has selected.
    pub(crate) stream_db: i64,
    /// 40 hex digits.
    pub(crate) id: Vec<u8>,
    pub(crate) offset: i64,
}

/// What the AUX fields at the head of a snapshot say.
#[derive(Debug, Clone)]
pub(crate) struct AuxInfo<'a> {
    pub(crate) redis_version: &'a str,
    pub(crate) ctime_s: i64,
    pub(crate) used_memory: u64,
    pub(crate) repl: Option<&'a ReplInfo>,
    /// The snapshot is the base file of an AOF.
    pub(crate) aof_base: bool,
}

/// Streams a snapshot to `out`.
pub(crate) struct Writer<W: Write> {
    out: W,
    buf: Vec<u8>,
    crc: u64,
    checksum: bool,
    compress: bool,
    flushed: u64,
}

impl<W: Write> Writer<W> {
    /// `checksum` false writes a zero checksum, which readers do not verify; `compress` allows LZF.
    pub(crate) fn new(out: W, checksum: bool, compress: bool) -> Writer<W> {
        Writer { out, buf: Vec::with_capacity(FLUSH_AT + 4096), crc: 0, checksum, compress, flushed: 0 }
    }

    fn flush_buf(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buf)?;
        if self.checksum {
            self.crc = crc64::crc64(self.crc, &self.buf);
        }
        self.flushed += self.buf.len() as u64;
        self.buf.clear();
        Ok(())
    }

    fn flush_if_full(&mut self) -> io::Result<()> {
        if self.buf.len() >= FLUSH_AT { self.flush_buf() } else { Ok(()) }
    }

    fn write_through(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.flush_buf()?;
        self.out.write_all(bytes)?;
        if self.checksum {
            self.crc = crc64::crc64(self.crc, bytes);
        }
        self.flushed += bytes.len() as u64;
        Ok(())
    }

    /// Magic and AUX fields.
    pub(crate) fn header(&mut self, info: &AuxInfo<'_>) -> io::Result<()> {
        write!(self.buf, "REDIS{VERSION:04}")?;
        self.aux(b"redis-ver", info.redis_version.as_bytes())?;
        self.aux_int(b"redis-bits", i64::from(usize::BITS))?;
        self.aux_int(b"ctime", info.ctime_s)?;
        self.aux_int(b"used-mem", info.used_memory as i64)?;
        if let Some(repl) = info.repl {
            self.aux_int(b"repl-stream-db", repl.stream_db)?;
            self.aux(b"repl-id", &repl.id)?;
            self.aux_int(b"repl-offset", repl.offset)?;
        }
        self.aux_int(b"aof-base", i64::from(info.aof_base))
    }

    pub(crate) fn aux(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.buf.push(opcode::AUX);
        put_string(&mut self.buf, key, self.compress);
        put_string(&mut self.buf, value, self.compress);
        self.flush_if_full()
    }

    fn aux_int(&mut self, key: &[u8], value: i64) -> io::Result<()> {
        let mut text = itoa::Buffer::new();
        self.aux(key, text.format(value).as_bytes())
    }

    /// One function library, by its source code.
    pub(crate) fn function(&mut self, code: &[u8]) -> io::Result<()> {
        self.buf.push(opcode::FUNCTION2);
        self.string(code)
    }

    /// Opens a database: its number, its keys and how many of them expire.
    pub(crate) fn select_db(&mut self, db: u64, keys: u64, expires: u64) -> io::Result<()> {
        self.buf.push(opcode::SELECTDB);
        put_len(&mut self.buf, db);
        self.buf.push(opcode::RESIZEDB);
        put_len(&mut self.buf, keys);
        put_len(&mut self.buf, expires);
        self.flush_if_full()
    }

    /// Idle time of the next key, in seconds.
    pub(crate) fn idle(&mut self, idle_s: u64) {
        self.buf.push(opcode::IDLE);
        put_len(&mut self.buf, idle_s);
    }

    /// LFU counter of the next key.
    pub(crate) fn freq(&mut self, freq: u8) {
        self.buf.extend_from_slice(&[opcode::FREQ, freq]);
    }

    /// Expire time of the next key, unix milliseconds. Comes before `idle` and `freq`.
    pub(crate) fn expire_ms(&mut self, at_ms: i64) {
        self.buf.push(opcode::EXPIRETIME_MS);
        self.buf.extend_from_slice(&at_ms.to_le_bytes());
    }

    pub(crate) fn key(&mut self, key: &[u8], value: ValueView<'_>) -> io::Result<()> {
        self.buf.push(value.value_type() as u8);
        self.string(key)?;
        match value {
            ValueView::Str(s) => self.string(s),
            ValueView::Int(_)
            | ValueView::List(_)
            | ValueView::Set(_)
            | ValueView::Hash(_)
            | ValueView::Zset(_)
            | ValueView::Stream(_)
            | ValueView::Damaged(_) => {
                let mut buf = std::mem::take(&mut self.buf);
                let compress = self.compress;
                let put = put_value(&mut buf, value, compress, &mut |buf| {
                    std::mem::swap(buf, &mut self.buf);
                    let flushed = self.flush_if_full();
                    std::mem::swap(buf, &mut self.buf);
                    flushed
                });
                self.buf = buf;
                put?;
                self.flush_if_full()
            }
        }
    }

    /// A string; long ones do not pass through the buffer.
    fn string(&mut self, s: &[u8]) -> io::Result<()> {
        if s.len() < FLUSH_AT {
            put_string(&mut self.buf, s, self.compress);
            return self.flush_if_full();
        }
        let mut packed = Vec::new();
        if self.compress && put_compressed(&mut packed, s) {
            return self.write_through(&packed);
        }
        put_len(&mut self.buf, s.len() as u64);
        self.write_through(s)
    }

    /// End opcode and checksum; returns the flushed sink.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.buf.push(opcode::EOF);
        self.flush_buf()?;
        let crc = if self.checksum { self.crc } else { 0 };
        self.out.write_all(&crc.to_le_bytes())?;
        self.out.flush()?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(s: &[u8]) -> Vec<u8> {
        let mut buf = Vec::new();
        put_string(&mut buf, s, true);
        buf
    }

    #[test]
    fn lengths_take_the_shortest_form() {
        let len = |n| {
            let mut buf = Vec::new();
            put_len(&mut buf, n);
            buf
        };
        assert_eq!(len(0), [0]);
        assert_eq!(len(63), [63]);
        assert_eq!(len(64), [0x40, 64]);
        assert_eq!(len(16383), [0x7F, 0xFF]);
        assert_eq!(len(16384), [0x80, 0, 0, 0x40, 0]);
        assert_eq!(len(u64::from(u32::MAX)), [0x80, 255, 255, 255, 255]);
        assert_eq!(len(1 << 32), [0x81, 0, 0, 0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn integers_are_encoded_only_in_canonical_form() {
        assert_eq!(string(b"0"), [0xC0, 0]);
        assert_eq!(string(b"-128"), [0xC0, 0x80]);
        assert_eq!(string(b"128"), [0xC1, 0x80, 0]);
        assert_eq!(string(b"-32769"), [0xC2, 0xFF, 0x7F, 0xFF, 0xFF]);
        assert_eq!(string(b"2147483647"), [0xC2, 0xFF, 0xFF, 0xFF, 0x7F]);
        for s in [&b"2147483648"[..], b"-0", b"00", b"01", b"+1", b" 1", b"", b"-"] {
            let enc = string(s);
            assert_eq!(enc[0] as usize, s.len());
            assert_eq!(&enc[1..], s);
        }
        let mut buf = Vec::new();
        put_int_string(&mut buf, i64::MIN);
        assert_eq!(&buf[1..], b"-9223372036854775808");
    }

    #[test]
    fn an_integer_element_is_written_as_its_text_is() {
        let edges = [0, 1 << 7, 1 << 8, 1 << 15, 1 << 16, 1 << 31, 1 << 32, i64::MAX, i64::MIN + 2];
        for value in edges
            .into_iter()
            .flat_map(|edge| [-1, 0, 1].map(|by| edge.wrapping_add(by)))
            .flat_map(|v| [v, v.wrapping_neg()])
        {
            let mut buf = Vec::new();
            put_item(&mut buf, Item::Int(value), true);
            assert_eq!(buf, string(value.to_string().as_bytes()), "{value}");
        }
    }

    #[test]
    fn the_length_of_what_was_compressed_takes_its_shortest_form() {
        // Of 68 bytes up to 64 may come out, of 16388 up to 16384: lengths that take a byte or three more.
        for (len, header) in [(60, 3), (67, 4), (68, 4), (100, 4), (1000, 4), (16387, 8), (16388, 8), (70_000, 8)] {
            let bytes = string(&vec![b'a'; len]);
            assert_eq!(bytes[0], ENC_LZF, "{len}");
            let mut want = Vec::new();
            put_lzf_header(&mut want, bytes.len() - header, len);
            assert_eq!((&bytes[..header], want.len()), (&want[..], header), "{len}");
            assert_eq!(lzf::decompress(&bytes[header..], len).unwrap(), vec![b'a'; len]);
        }
    }

    #[test]
    fn compression_starts_above_twenty_bytes() {
        assert_eq!(string(&[b'a'; 20])[0], 20);
        assert_eq!(string(&[b'a'; 21])[0], ENC_LZF);
        let noise: Vec<u8> = (0..100u8).map(|i| i.wrapping_mul(167)).collect();
        assert_eq!(string(&noise)[..2], [LEN_14, 100], "what does not shrink is stored as it is");
    }
}
