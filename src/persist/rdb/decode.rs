//! Reading a snapshot, one item at a time.
//!
//! Invariant: memory is taken only for bytes that have arrived (a length in the file never sizes an allocation by
//! itself), and every refusal is an `Error` with the offset where the source stood.
//!
//! What stands in the source's buffer is read there and consumed only when all of it was, or when somebody else is to go on:
//! the checksum is then computed over all of it at once.
//!
//! `Reader` pulls from any [`Source`] and stops exactly after the checksum, so that whatever follows in the source (the
//! tail of an AOF, the end mark of a replication stream) is still there for the caller.
//!
//! A value is read in parts, between which others may have their turn. What was read of it is kept in the reader; if the source
//! has no more for the moment, the reader goes back to where the last part ended, and nothing that came before is read again.

use super::{Error, ErrorKind, NEWEST_READ, Source, VERSION, ValueType, module_name, newer_kind, opcode};
use crate::keyspace::damaged::Damaged;
use crate::keyspace::hash::Hash;
use crate::keyspace::list::List;
use crate::keyspace::object::ValueLimits;
use crate::keyspace::set::Set;
use crate::keyspace::zset::Zset;
use crate::structs::bytes::append;
use crate::structs::entry::INLINE_MAX_LEN;
use crate::structs::intset::Intset;
use crate::structs::listpack::Listpack;
use crate::structs::stream::Stream;
use crate::structs::table::TOGETHER;
use crate::structs::{crc64, lzf};
use std::io;
use values::Part;

mod values;

type Result<T> = std::result::Result<T, Error>;

const ENC_INT8: u64 = 0;
const ENC_INT16: u64 = 1;
const ENC_INT32: u64 = 2;
const ENC_LZF: u64 = 3;

/// One LZF back reference takes three bytes and yields at most 264; no input expands more than that.
const LZF_MAX_RATIO: u64 = 264 / 2;
/// Room that is made for a string whose bytes are not there yet is no more than this, or as much as has come.
const CHUNK: usize = 1 << 20;
/// After so many bytes of a value others may have a look at the clock.
const PART_BYTES: u64 = 8 << 10;
/// Strings in a value that are longer than this are read in parts.
const LONG: u64 = 1 << 17;

/// A string as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StringValue {
    /// Stored in one of the integer encodings.
    Int(i64),
    Bytes(Vec<u8>),
}

impl StringValue {
    /// The string's bytes, integers as decimal text.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self {
            StringValue::Int(v) => itoa::Buffer::new().format(v).as_bytes().to_vec(),
            StringValue::Bytes(b) => b,
        }
    }
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    String(StringValue),
    /// A list with at least one element.
    List(List),
    /// A set of integers.
    Ints(Intset),
    /// A set in a listpack.
    PackedSet(Listpack),
    /// A set whose members stood there one by one, none of them twice.
    Set(Set),
    /// A hash in a listpack: after each field its value.
    PackedHash(Listpack),
    /// A hash whose fields and values stood there one by one, no field twice.
    Hash(Hash),
    /// A sorted set in a listpack: after each member its score, in order.
    PackedZset(Listpack),
    /// A sorted set whose members stood there one by one with their scores, none of which is NaN, and no member twice.
    Zset(Zset),
    Stream(Box<Stream>),
    /// One that is broken inside.
    Damaged(Box<Damaged>),
    /// A collection without elements: no server stores one, old ones wrote them.
    Empty,
}

/// A key with what the opcodes before it said.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeyItem {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Value,
    /// Unix time, milliseconds.
    pub(crate) expire_ms: Option<i64>,
    pub(crate) idle_s: Option<u64>,
    pub(crate) freq: Option<u8>,
}

/// A key whose value is not read yet.
#[derive(Debug)]
struct Head {
    key: Vec<u8>,
    expire_ms: Option<i64>,
    idle_s: Option<u64>,
    freq: Option<u8>,
}

impl Head {
    fn with(self, value: Value) -> KeyItem {
        let Head { key, expire_ms, idle_s, freq } = self;
        KeyItem { key, value, expire_ms, idle_s, freq }
    }
}

/// A key of whose value some was read.
struct Begun {
    head: Head,
    part: Part,
}

/// A long string of which some was read.
#[derive(Debug)]
struct Long {
    bytes: Vec<u8>,
    /// Bytes to come.
    left: usize,
    packed: Option<Packed>,
}

/// What a long string yields that is compressed.
#[derive(Debug)]
struct Packed {
    len: u64,
    /// What it yielded so far, from its bytes before `at`.
    text: Vec<u8>,
    at: usize,
}

/// One step through a snapshot.
#[derive(Debug, PartialEq)]
pub(crate) enum Item {
    Aux {
        key: Vec<u8>,
        value: Vec<u8>,
    },
    /// Source code of a function library.
    Function(Vec<u8>),
    SelectDb(u64),
    /// Sizes announced for the current database: hints, not to be trusted with an allocation.
    ResizeDb {
        keys: u64,
        expires: u64,
    },
    Key(KeyItem),
    /// Some of a key's value: it goes on with the next item.
    Part,
    /// The source has no more for the moment. What there is of the next item is read again.
    Starved,
    /// The snapshot is complete and its checksum right. `checksum_disabled` when it was written without one.
    End {
        checksum_disabled: bool,
    },
}

/// Texts that are read one after the other before the first of them is looked at.
type Texts = [Vec<u8>; TOGETHER];
type Scratch = [Texts; 2];

/// Pulls items out of a source.
pub(crate) struct Reader<S: Source> {
    src: S,
    offset: u64,
    /// Bytes at the beginning of the source's buffer that were read, but neither consumed nor counted in `crc` yet.
    taken: usize,
    crc: u64,
    checksum: bool,
    /// Packed collections are searched for what stands there twice, and refused if they are broken inside.
    deep: bool,
    /// By which collections get their encoding.
    limits: ValueLimits,
    /// While a damaged value is read: its bytes.
    recorded: Option<Vec<u8>>,
    /// Memory for keys, and for strings that are copied to where they stay; `scratch` for those of collections.
    spare_key: Vec<u8>,
    spare_value: Vec<u8>,
    scratch: Option<Box<Scratch>>,
    version: Option<u32>,
    done: bool,
    /// Where to go back to.
    kept: Standing,
    /// What was being read when the last item ended.
    begun: Option<Box<Begun>>,
    /// The string in the value at which that stopped, if it is a long one.
    long: Option<Long>,
}

impl<S: Source> Reader<S> {
    /// `checksum` false skips computing and checking it.
    pub(crate) fn new(src: S, checksum: bool) -> Reader<S> {
        Reader {
            src,
            offset: 0,
            taken: 0,
            crc: 0,
            checksum,
            deep: true,
            limits: ValueLimits::default(),
            recorded: None,
            spare_key: Vec::new(),
            spare_value: Vec::new(),
            scratch: None,
            version: None,
            done: false,
            kept: Standing::default(),
            begun: None,
            long: None,
        }
    }

    /// Whether packed collections are searched for elements that stand there twice, and values of which a listpack cannot be
    /// walked refused, rather than taken as [`Damaged`]. What cannot be told from what follows it is refused in any case.
    pub(crate) fn deep(self, deep: bool) -> Reader<S> {
        Reader { deep, ..self }
    }

    /// With the limits by which collections get their encoding, where it is not the one they had when they were written.
    pub(crate) fn limits(self, limits: &ValueLimits) -> Reader<S> {
        Reader { limits: *limits, ..self }
    }

    /// Bytes read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The source, standing after the last byte read.
    pub(crate) fn into_source(mut self) -> S {
        self.settle();
        self.src
    }

    /// The source, standing after the last byte read.
    pub(crate) fn source_mut(&mut self) -> &mut S {
        self.settle();
        &mut self.src
    }

    /// Gives back the memory of a key that was copied to where it stays, for the next one.
    #[inline]
    pub(crate) fn reuse_key(&mut self, key: Vec<u8>) {
        // A long one was an exception.
        if key.capacity() <= CHUNK {
            self.spare_key = key;
        }
    }

    /// As [`Self::reuse_key`], of a string value.
    pub(crate) fn reuse_value(&mut self, value: Vec<u8>) {
        self.spare_value = value;
    }

    /// Consumes what was read, and counts it in the checksum.
    fn settle(&mut self) {
        let taken = std::mem::take(&mut self.taken);
        if taken == 0 {
            return;
        }
        if self.checksum
            && let Ok(buffer) = self.src.fill_buf()
        {
            self.crc = crc64::crc64(self.crc, &buffer[..taken]);
        }
        self.src.consume(taken);
    }

    /// The next item. The first call also reads the magic. After `End` there is nothing more to ask for.
    #[inline]
    pub(crate) fn next_item(&mut self) -> Result<Item> {
        assert!(!self.done, "a finished snapshot has no next item");
        self.keep_place();
        let item = match self.begun.take() {
            None => self.item(),
            Some(begun) => self.go_on(begun),
        };
        match item {
            Ok(item) => {
                self.done = matches!(item, Item::End { .. });
                Ok(item)
            }
            Err(e) => self.starved_or(e),
        }
    }

    #[cold]
    fn starved_or(&mut self, e: Error) -> Result<Item> {
        if e.is_starved() && self.go_back() { Ok(Item::Starved) } else { Err(e) }
    }

    /// From the next item on, a value of this layout is read that stands alone. It comes as that of a key without a name.
    pub(crate) fn begin_value(&mut self, layout: ValueType) {
        let head = Head { key: Vec::new(), expire_ms: None, idle_s: None, freq: None };
        self.begun = Some(Box::new(Begun { head, part: Part::new(layout) }));
    }

    /// A value of the given layout, all of it.
    pub(crate) fn value(&mut self, value_type: ValueType) -> Result<Value> {
        let mut part = Part::new(value_type);
        loop {
            if let Some(value) = self.go_on_with(&mut part)? {
                return Ok(value);
            }
        }
    }

    /// Begins to read a value that is not read as a whole.
    #[inline(never)]
    fn begin(&mut self, head: Head, value_type: ValueType) -> Result<Item> {
        let mut part = Part::new(value_type);
        // What comes before a long string is not read again.
        if self.long.is_none()
            && let Some(value) = self.go_on_with(&mut part)?
        {
            return Ok(Item::Key(head.with(value)));
        }
        self.keep_place();
        self.go_on(Box::new(Begun { head, part }))
    }

    /// Goes on with a value for a while.
    #[inline(never)]
    fn go_on(&mut self, mut begun: Box<Begun>) -> Result<Item> {
        let start = self.offset;
        loop {
            let (before, begins) = (self.offset, begun.part.begins());
            match self.go_on_with(&mut begun.part) {
                Ok(Some(value)) => return Ok(Item::Key(begun.head.with(value))),
                Ok(None) => self.keep_place(),
                Err(e) => {
                    // The place to go back to is where it began.
                    if let Some(layout) = begins {
                        begun.part = Part::new(layout);
                    }
                    self.begun = Some(begun);
                    return Err(e);
                }
            }
            // Decompressing a long string takes time, but no bytes.
            if self.offset == before || self.offset - start >= PART_BYTES {
                self.begun = Some(begun);
                return Ok(Item::Part);
            }
        }
    }

    /// The place to go back to is here.
    #[inline]
    fn keep_place(&mut self) {
        self.src.keep();
        let recorded = self.recorded.as_ref().map_or(0, Vec::len);
        self.kept = Standing { offset: self.offset, taken: self.taken, crc: self.crc, version: self.version, recorded };
    }

    /// Goes back to that place, if the source can.
    fn go_back(&mut self) -> bool {
        let can = self.src.go_back();
        if can {
            let Standing { offset, taken, crc, version, recorded } = self.kept;
            (self.offset, self.taken, self.crc, self.version) = (offset, taken, crc, version);
            match &mut self.recorded {
                Some(bytes) if recorded > 0 => bytes.truncate(recorded),
                recorded => *recorded = None,
            }
        }
        can
    }
}

/// Where a reader stood when it was told to keep the place.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    offset: u64,
    taken: usize,
    crc: u64,
    version: Option<u32>,
    /// Of `recorded`.
    recorded: usize,
}

/// How large a table is made for elements that are still to come: never more than so many times what came already, whatever
/// number was announced.
pub(crate) struct Ahead {
    count: u64,
    made: u64,
}

impl Ahead {
    /// Less than a table shrinks at.
    const TIMES: u64 = 8;
    /// A table of so many takes [`CHUNK`] bytes.
    const FIRST: u64 = 1 << 17;

    /// Of so many elements.
    pub(crate) fn new(count: u64) -> Ahead {
        Ahead { count, made: count.min(Ahead::FIRST) }
    }

    /// What to make room for before the first one.
    pub(crate) fn first(&self) -> usize {
        self.made as usize
    }

    /// What to make room for before the next one, when `len` have come; most often that was done.
    #[inline]
    pub(crate) fn next(&mut self, len: u64) -> Option<usize> {
        if len < self.made || self.made == self.count {
            return None;
        }
        self.made = self.count.min(len.saturating_mul(Ahead::TIMES)).max(len);
        Some(self.made as usize)
    }
}

/// Makes room for the next `here` of `left` bytes: doubling, but never past what was asked for.
fn make_room(out: &mut Vec<u8>, here: usize, left: usize) {
    if out.capacity() - out.len() < here {
        out.reserve_exact(out.len().max(CHUNK).min(left));
    }
}

const BROKEN_LZF: &str = "Invalid LZF compressed string";

/// Whether so many compressed bytes may be a string of `len` bytes.
fn is_possible(packed: &[u8], len: u64) -> bool {
    len <= (packed.len() as u64).saturating_mul(LZF_MAX_RATIO)
}

/// Decompresses a part of a long string. Whether that was the last; `None`: it is none.
fn unpack_part(bytes: &[u8], packed: &mut Packed) -> Option<bool> {
    let Packed { len, text, at } = packed;
    if is_possible(bytes, *len) { lzf::decompress_part(bytes, at, *len as usize, text).ok() } else { None }
}

/// Decompresses a string of `len` bytes, in place of what is in `out`. False: it is none.
fn unpack(packed: &[u8], len: u64, out: &mut Vec<u8>) -> bool {
    if !is_possible(packed, len) {
        return false;
    }
    if out.capacity() > 0 {
        return lzf::decompress_into(packed, len as usize, out).is_ok();
    }
    lzf::decompress(packed, len as usize).map(|unpacked| *out = unpacked).is_ok()
}

/// A length, or the number of a special string encoding.
enum Len {
    Plain(u64),
    Encoded(u64),
}

impl<S: Source> Reader<S> {
    #[track_caller]
    pub(crate) fn err(&self, kind: ErrorKind) -> Error {
        Error::new(self.offset, kind)
    }

    #[track_caller]
    pub(crate) fn corrupt(&self, reason: impl Into<String>) -> Error {
        self.err(ErrorKind::Corrupt(reason.into()))
    }

    /// What is left of the source's buffer, which is filled again when there is nothing. Never empty.
    #[track_caller]
    #[inline]
    fn rest(&mut self) -> Result<&[u8]> {
        loop {
            let len = match self.src.fill_buf() {
                Ok(buffer) => buffer.len(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.err(ErrorKind::Io(e))),
            };
            if len > self.taken {
                break;
            }
            if len == 0 {
                return Err(self.err(ErrorKind::Eof));
            }
            self.settle();
        }
        let taken = self.taken;
        match self.src.fill_buf() {
            Ok(buffer) => Ok(&buffer[taken..]),
            Err(e) => Err(Error::new(self.offset, ErrorKind::Io(e))),
        }
    }

    /// The next `len` bytes, if all of them stand in the source's buffer. They are not taken yet.
    #[inline]
    fn at_hand(&mut self, len: usize) -> Option<&[u8]> {
        let taken = self.taken;
        // Asking an empty source would make it wait, which `rest` sees to.
        if taken == 0 {
            return None;
        }
        match self.src.fill_buf() {
            Ok(buffer) => buffer.get(taken..)?.get(..len),
            Err(_) => None,
        }
    }

    /// Takes so many bytes of what `rest` gave.
    #[track_caller]
    #[inline]
    fn take(&mut self, count: usize) {
        if self.recorded.is_some() {
            self.note_recorded(count);
        }
        self.taken += count;
        self.offset += count as u64;
    }

    #[cold]
    fn note_recorded(&mut self, count: usize) {
        let taken = self.taken;
        if let (Some(recorded), Ok(buffer)) = (&mut self.recorded, self.src.fill_buf()) {
            recorded.extend_from_slice(&buffer[taken..taken + count]);
        }
    }

    /// Shows `f` the next `len` bytes, piece by piece. The offset moves only when all of them were there.
    #[track_caller]
    fn pieces(&mut self, len: usize, mut f: impl FnMut(&[u8])) -> Result<()> {
        let start = self.offset;
        let mut left = len;
        while left > 0 {
            let rest = match self.rest() {
                Ok(rest) => rest,
                Err(e) => {
                    self.offset = start;
                    return Err(Error { offset: start, ..e });
                }
            };
            let here = rest.len().min(left);
            f(&rest[..here]);
            self.take(here);
            left -= here;
        }
        Ok(())
    }

    #[track_caller]
    #[inline(always)]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        if let Some(bytes) = self.at_hand(N)
            && let Some(bytes) = bytes.first_chunk::<N>()
        {
            let bytes = *bytes;
            self.take(N);
            return Ok(bytes);
        }
        self.array_of_pieces()
    }

    #[track_caller]
    #[inline(never)]
    fn array_of_pieces<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        let mut filled = 0;
        self.pieces(N, |piece| {
            out[filled..filled + piece.len()].copy_from_slice(piece);
            filled += piece.len();
        })?;
        Ok(out)
    }

    #[track_caller]
    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// `len` raw bytes.
    #[track_caller]
    pub(crate) fn bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.bytes_into(len, &mut out)?;
        Ok(out)
    }

    /// As `bytes`, in place of what is in `out`.
    #[track_caller]
    fn bytes_into(&mut self, len: u64, out: &mut Vec<u8>) -> Result<()> {
        let Ok(len) = usize::try_from(len) else {
            return Err(self.err(ErrorKind::Eof));
        };
        out.clear();
        if let Some(bytes) = self.at_hand(len) {
            append(out, bytes);
            self.take(len);
            return Ok(());
        }
        self.pieces(len, |piece| {
            make_room(out, piece.len(), len - out.len());
            out.extend_from_slice(piece);
        })
    }

    /// Reads and forgets `len` bytes.
    #[track_caller]
    pub(crate) fn skip(&mut self, mut len: u64) -> Result<()> {
        while len > 0 {
            let here = len.min(1 << 30);
            self.pieces(here as usize, |_| {})?;
            len -= here;
        }
        Ok(())
    }

    #[track_caller]
    fn len_or_encoding(&mut self) -> Result<Len> {
        let first = self.byte()?;
        let low = u64::from(first & 0x3F);
        Ok(match first >> 6 {
            0 => Len::Plain(low),
            1 => Len::Plain(low << 8 | u64::from(self.byte()?)),
            3 => Len::Encoded(low),
            _ => match first {
                0x80 => Len::Plain(u64::from(u32::from_be_bytes(self.array()?))),
                0x81 => Len::Plain(u64::from_be_bytes(self.array()?)),
                _ => {
                    return Err(self.corrupt(format!("Unknown length encoding {} in rdbLoadLen()", first >> 6)));
                }
            },
        })
    }

    /// A length where no encoding may stand. As Redis, the number of an encoding is taken for a length.
    #[track_caller]
    pub(crate) fn len(&mut self) -> Result<u64> {
        match self.len_or_encoding()? {
            Len::Plain(u64::MAX) => Err(self.err(ErrorKind::Eof)),
            Len::Plain(n) | Len::Encoded(n) => Ok(n),
        }
    }

    /// A number in the form of a length, of any size.
    #[track_caller]
    pub(crate) fn number(&mut self) -> Result<u64> {
        match self.len_or_encoding()? {
            Len::Plain(n) | Len::Encoded(n) => Ok(n),
        }
    }

    #[track_caller]
    pub(crate) fn string(&mut self) -> Result<StringValue> {
        match self.string_with::<{ u64::MAX }>(Vec::new())? {
            Some(string) => Ok(string),
            None => unreachable!("no string has more"),
        }
    }

    /// A string of at most `MOST` bytes, in memory that was used before if it is one that is copied to where it stays.
    /// `None`: it has more, and is to be read in parts.
    #[track_caller]
    fn string_with<const MOST: u64>(&mut self, spare: Vec<u8>) -> Result<Option<StringValue>> {
        let reuses = |len: u64| len <= INLINE_MAX_LEN as u64;
        Ok(Some(match self.len_or_encoding()? {
            Len::Plain(n) => {
                if n > MOST {
                    return self.begin_long(n, None).map(|_| None);
                }
                let mut out = if reuses(n) { spare } else { Vec::new() };
                self.bytes_into(n, &mut out)?;
                StringValue::Bytes(out)
            }
            Len::Encoded(ENC_LZF) => {
                let (packed_len, len) = (self.len()?, self.len()?);
                if packed_len.max(len) > MOST {
                    return self.begin_long(packed_len, Some(len)).map(|_| None);
                }
                let mut out = if reuses(len) { spare } else { Vec::new() };
                self.lzf_into(packed_len, len, &mut out)?;
                StringValue::Bytes(out)
            }
            Len::Encoded(n) => StringValue::Int(self.int(n)?),
        }))
    }

    /// An integer in one of the encodings.
    #[track_caller]
    fn int(&mut self, encoding: u64) -> Result<i64> {
        Ok(match encoding {
            ENC_INT8 => i64::from(self.byte()? as i8),
            ENC_INT16 => i64::from(i16::from_le_bytes(self.array()?)),
            ENC_INT32 => i64::from(i32::from_le_bytes(self.array()?)),
            n => return Err(self.corrupt(format!("Unknown RDB string encoding type {n}"))),
        })
    }

    /// A compressed string, in place of what is in `out`.
    #[track_caller]
    fn lzf_into(&mut self, packed_len: u64, len: u64, out: &mut Vec<u8>) -> Result<()> {
        if let Ok(packed_len) = usize::try_from(packed_len)
            && let Some(packed) = self.at_hand(packed_len)
        {
            let done = unpack(packed, len, out);
            self.take(packed_len);
            return if done { Ok(()) } else { Err(self.corrupt(BROKEN_LZF)) };
        }
        let packed = self.bytes(packed_len)?;
        if unpack(&packed, len, out) { Ok(()) } else { Err(self.corrupt(BROKEN_LZF)) }
    }

    /// The bytes of a string, integers as decimal text, in place of what is in `out`; if it has more than `MOST` bytes, only its
    /// beginning is read, and `long` is set.
    #[track_caller]
    fn text_into<const MOST: u64>(&mut self, out: &mut Vec<u8>) -> Result<()> {
        match self.len_or_encoding()? {
            Len::Plain(n) if n > MOST => self.begin_long(n, None),
            Len::Plain(n) => self.bytes_into(n, out),
            Len::Encoded(ENC_LZF) => {
                let (packed_len, len) = (self.len()?, self.len()?);
                if packed_len.max(len) > MOST {
                    return self.begin_long(packed_len, Some(len));
                }
                self.lzf_into(packed_len, len, out)
            }
            Len::Encoded(n) => {
                let value = self.int(n)?;
                out.clear();
                out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
                Ok(())
            }
        }
    }

    #[cold]
    #[track_caller]
    fn begin_long(&mut self, len: u64, unpacked_len: Option<u64>) -> Result<()> {
        let Ok(left) = usize::try_from(len) else { return Err(self.err(ErrorKind::Eof)) };
        let packed = unpacked_len.map(|len| Packed { len, text: Vec::new(), at: 0 });
        self.long = Some(Long { bytes: Vec::new(), left, packed });
        Ok(())
    }

    /// Goes on with a long string by what the source has at hand. True: that was all of it, which is in `out`.
    #[cold]
    #[track_caller]
    fn long_element(&mut self, out: &mut Vec<u8>) -> Result<bool> {
        let Some(mut long) = self.long.take() else { return Ok(false) };
        if long.left > 0 {
            let read = self.rest().map(|rest| {
                let here = rest.len().min(long.left).min(LONG as usize);
                make_room(&mut long.bytes, here, long.left);
                long.bytes.extend_from_slice(&rest[..here]);
                here
            });
            if let Ok(here) = read {
                self.take(here);
                long.left -= here;
            }
            self.long = Some(long);
            return read.map(|_| false);
        }
        let Some(packed) = &mut long.packed else {
            *out = long.bytes;
            return Ok(true);
        };
        match unpack_part(&long.bytes, packed) {
            Some(true) => *out = std::mem::take(&mut packed.text),
            Some(false) => self.long = Some(long),
            None => return Err(self.corrupt(BROKEN_LZF)),
        }
        Ok(self.long.is_none())
    }

    /// A string of a value; `None`: it is a long one, to be asked for again with the next part.
    #[track_caller]
    pub(super) fn element_bytes(&mut self) -> Result<Option<Vec<u8>>> {
        let mut out = Vec::new();
        if self.long.is_some() {
            return Ok(self.long_element(&mut out)?.then_some(out));
        }
        self.text_into::<LONG>(&mut out)?;
        Ok(self.long.is_none().then_some(out))
    }

    /// Has `f` read a part of a collection, with memory for texts that are copied to where they stay.
    fn with_scratch<T>(&mut self, f: impl FnOnce(&mut Self, &mut Scratch) -> T) -> T {
        let mut scratch = self.scratch.take().unwrap_or_default();
        let result = f(self, &mut scratch);
        self.scratch = Some(scratch);
        result
    }

    /// Magic and version.
    pub(crate) fn header(&mut self) -> Result<u32> {
        let magic: [u8; 9] = self.array()?;
        if &magic[..5] != b"REDIS" {
            return Err(self.err(ErrorKind::Signature));
        }
        let digits = magic[5..].iter().take_while(|b| b.is_ascii_digit());
        let version = digits.fold(0u32, |v, d| v * 10 + u32::from(d - b'0'));
        if !(1..=NEWEST_READ).contains(&version) {
            return Err(self.err(ErrorKind::Version(i64::from(version))));
        }
        Ok(version)
    }

    #[inline]
    fn item(&mut self) -> Result<Item> {
        let version = match self.version {
            Some(v) => v,
            None => {
                let v = self.header()?;
                self.version = Some(v);
                v
            }
        };
        let (mut expire_ms, mut idle_s, mut freq) = (None, None, None);
        loop {
            match self.byte()? {
                opcode::EXPIRETIME => expire_ms = Some(self.expire_s()?),
                opcode::EXPIRETIME_MS => expire_ms = Some(self.expire_ms()?),
                opcode::FREQ => freq = Some(self.byte()?),
                opcode::IDLE => idle_s = Some(self.len()?),
                opcode::EOF => return self.end(version),
                opcode::SELECTDB => return Ok(Item::SelectDb(self.len()?)),
                opcode::RESIZEDB => {
                    return Ok(Item::ResizeDb { keys: self.len()?, expires: self.len()? });
                }
                opcode::SLOT_INFO if version > VERSION => self.slot_info()?,
                opcode::AUX => {
                    let key = self.string()?.into_bytes();
                    let value = self.string()?.into_bytes();
                    return Ok(Item::Aux { key, value });
                }
                opcode::MODULE_AUX => {
                    let name = self.module_aux_header()?;
                    return Err(self.err(ErrorKind::Module { name, aux: true }));
                }
                opcode::FUNCTION_PRE_GA => {
                    return Err(self.corrupt("Pre-release function format not supported."));
                }
                opcode::FUNCTION2 => return Ok(Item::Function(self.string()?.into_bytes())),
                byte => {
                    let value_type = self.value_type(byte, version)?;
                    let mut key = std::mem::take(&mut self.spare_key);
                    self.text_into::<{ u64::MAX }>(&mut key)?;
                    let value = self.whole(value_type)?;
                    let head = Head { key, expire_ms, idle_s, freq };
                    return match value {
                        Some(value) => Ok(Item::Key(head.with(value))),
                        None => self.begin(head, value_type),
                    };
                }
            }
        }
    }

    /// The type of value that a byte stands for in this version.
    pub(crate) fn value_type(&self, byte: u8, version: u32) -> Result<ValueType> {
        let is_newer = version > VERSION;
        let known = ValueType::from_byte(byte).filter(|found| is_newer || *found != ValueType::StreamListpacks4);
        known.ok_or_else(|| {
            let is_known = is_newer && newer_kind(byte).is_some();
            self.err(if is_known { ErrorKind::Newer(byte) } else { ErrorKind::UnknownType(byte) })
        })
    }

    /// How many keys a slot has is a hint.
    pub(crate) fn slot_info(&mut self) -> Result<()> {
        for _ in 0..3 {
            self.len()?;
        }
        Ok(())
    }

    /// Name of the module whose auxiliary data follows.
    pub(crate) fn module_aux_header(&mut self) -> Result<String> {
        const WHEN_OPCODE: u64 = 2;
        let id = self.len()?;
        let when_opcode = self.len()?;
        self.len()?;
        if when_opcode != WHEN_OPCODE {
            return Err(self.corrupt("bad when_opcode"));
        }
        Ok(module_name(id))
    }

    fn end(&mut self, version: u32) -> Result<Item> {
        const CHECKSUM_SINCE: u32 = 5;
        if version < CHECKSUM_SINCE {
            return Ok(Item::End { checksum_disabled: false });
        }
        Ok(Item::End { checksum_disabled: self.checksum()? })
    }

    /// Reads and checks the checksum of everything before it. True when there is none to check.
    pub(crate) fn checksum(&mut self) -> Result<bool> {
        self.settle();
        let expected = self.crc;
        let got = u64::from_le_bytes(self.array()?);
        if self.checksum && got != 0 && got != expected {
            return Err(self.err(ErrorKind::Checksum { expected, got }));
        }
        Ok(self.checksum && got == 0)
    }

    /// Operand of the old expire opcode, as milliseconds.
    pub(crate) fn expire_s(&mut self) -> Result<i64> {
        Ok(i64::from(i32::from_le_bytes(self.array()?)) * 1000)
    }

    pub(crate) fn expire_ms(&mut self) -> Result<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests;
