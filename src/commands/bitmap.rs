//! Bit operations on strings. Bit 0 is the highest bit of the first byte.

use super::int_arg;
use super::prelude::*;
use crate::catalog::row::KeyPos;
use crate::keyspace::{Entry, Ttl};
use crate::structs::entry::{INLINE_MAX_LEN, ValueRef};
use crate::structs::numbers::parse_i64;
use std::borrow::Cow;

pub(crate) const COMMANDS: &[DataCommand] = &[
    command(Group::Bitmap, "bitcount", bitcount)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::block("range").optional().of(&[
                Arg::integer("start"),
                Arg::integer("end"),
                Arg::one_of("unit").since("7.0.0").optional().of(&[Arg::word("byte", "BYTE"), Arg::word("bit", "BIT")]),
            ]),
        ])
        .since("2.6.0")
        .history(&["7.0.0"])
        .complexity("O(N) where N is the length of the range.")
        .summary("Counts the bits that are set in a string."),
    command(Group::Bitmap, "bitfield", bitfield)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE | key::VARIABLE_FLAGS, 1, 0, 1)
            .notes("This command allows both access and modification of the key")])
        .get_keys(bitfield_keys)
        .args(&[
            Arg::key("key", 0),
            Arg::one_of("operation").optional().multiple().of(&[
                Arg::block("get-block").token("GET").of(&[Arg::string("encoding"), Arg::integer("offset")]),
                Arg::block("write").of(&[
                    Arg::one_of("overflow-block").token("OVERFLOW").optional().of(&[
                        Arg::word("wrap", "WRAP"),
                        Arg::word("sat", "SAT"),
                        Arg::word("fail", "FAIL"),
                    ]),
                    Arg::one_of("write-operation").of(&[
                        Arg::block("set-block").token("SET").of(&[
                            Arg::string("encoding"),
                            Arg::integer("offset"),
                            Arg::integer("value"),
                        ]),
                        Arg::block("incrby-block").token("INCRBY").of(&[
                            Arg::string("encoding"),
                            Arg::integer("offset"),
                            Arg::integer("increment"),
                        ]),
                    ]),
                ]),
            ]),
        ])
        .since("3.2.0")
        .complexity("O(1) for each operation.")
        .summary("Reads and changes integers of any width within a string."),
    command(Group::Bitmap, "bitfield_ro", |ctx, args| run_ops(ctx, args, true))
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::block("get-block")
                .token("GET")
                .optional()
                .multiple()
                .multiple_token()
                .of(&[Arg::string("encoding"), Arg::integer("offset")]),
        ])
        .since("6.0.0")
        .complexity("O(1) for each operation.")
        .summary("Reads integers of any width within a string."),
    command(Group::Bitmap, "bitop", bitop)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::OW | key::UPDATE, 2, 0, 1), KeySpec::range(key::RO | key::ACCESS, 3, -1, 1)])
        .args(&[
            Arg::one_of("operation").of(&[
                Arg::word("and", "AND"),
                Arg::word("or", "OR"),
                Arg::word("xor", "XOR"),
                Arg::word("not", "NOT"),
            ]),
            Arg::key("destkey", 0),
            Arg::key("key", 1).multiple(),
        ])
        .since("2.6.0")
        .complexity("O(N) where N is the length of the longest string.")
        .summary("Combines strings bit by bit and stores the result."),
    command(Group::Bitmap, "bitpos", bitpos)
        .flags(flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[
            Arg::key("key", 0),
            Arg::integer("bit"),
            Arg::block("range").optional().of(&[
                Arg::integer("start"),
                Arg::block("end-unit-block").optional().of(&[
                    Arg::integer("end"),
                    Arg::one_of("unit")
                        .since("7.0.0")
                        .optional()
                        .of(&[Arg::word("byte", "BYTE"), Arg::word("bit", "BIT")]),
                ]),
            ]),
        ])
        .since("2.8.7")
        .history(&["7.0.0"])
        .complexity("O(N) where N is the length of the range.")
        .summary("Finds the first bit of a string that is set, or is not."),
    command(Group::Bitmap, "getbit", getbit)
        .flags(flag::FAST | flag::READONLY)
        .keys(&[KeySpec::range(key::RO | key::ACCESS, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("offset")])
        .since("2.2.0")
        .summary("Gives a bit of a string."),
    command(Group::Bitmap, "setbit", setbit)
        .flags(flag::DENYOOM | flag::WRITE)
        .keys(&[KeySpec::range(key::RW | key::ACCESS | key::UPDATE, 1, 0, 1)])
        .args(&[Arg::key("key", 0), Arg::integer("offset"), Arg::integer("value")])
        .since("2.2.0")
        .summary("Sets or clears a bit of a string, which is grown as far as needed."),
];

/// The bytes of a string value.
fn string_of<'a>(entry: &'a Entry, int: &'a mut IntBuf) -> Result<&'a [u8], CmdError> {
    entry.value_bytes(int).ok_or(error::WRONG_TYPE)
}

/// The offset of a bit within the largest string there may be. With `width`, `#n` stands for the n-th field of so many
/// bits.
fn bit_offset(ctx: &Ctx<'_>, arg: &[u8], width: Option<u32>) -> Result<u64, CmdError> {
    let parsed = match (arg, width) {
        ([b'#', rest @ ..], Some(width)) => parse_i64(rest).and_then(|n| n.checked_mul(i64::from(width))),
        _ => parse_i64(arg),
    };
    let max_bytes = ctx.cfg.proto_max_bulk_len;
    parsed
        .and_then(|n| u64::try_from(n).ok())
        .filter(|n| ctx.session.must_obey() || n >> 3 < max_bytes)
        .ok_or(CmdError::of("ERR bit offset is not an integer or out of range"))
}

/// Makes the string at the key long enough for a bit, and calls `f` with it and whether it grew.
fn with_room<R>(
    ctx: &mut Ctx<'_>,
    key: &[u8],
    last_bit: u64,
    f: impl FnOnce(&mut [u8], bool) -> R,
) -> Result<R, CmdError> {
    let len = (last_bit >> 3) as usize + 1;
    let ks = &mut ctx.ks;
    let mut grew = false;
    if let Some(entry) = ks.write(ctx.db, key) {
        string_of(&entry, &mut IntBuf::new())?;
    } else {
        ks.insert(ctx.db, key, NewValue::RawStr(b""), None);
        grew = true;
    }
    let mut entry = ks.peek(ctx.db, key).ok_or(error::NO_SUCH_KEY)?;
    let mut text = entry.make_raw_mut().ok_or(error::WRONG_TYPE)?;
    if text.len() < len {
        text.grow_zeroed(len);
        grew = true;
    }
    Ok(f(&mut text, grew))
}

fn setbit(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let offset = bit_offset(ctx, &args[2], None)?;
    let invalid = CmdError::of("ERR bit is not an integer or out of range");
    let bit = parse_i64(&args[3]).filter(|b| matches!(b, 0 | 1)).ok_or(invalid)? as u8;
    let (old, grew) = with_room(ctx, &args[1], offset, |text, grew| {
        let byte = &mut text[(offset >> 3) as usize];
        let shift = 7 - (offset & 7) as u32;
        let old = *byte >> shift & 1;
        *byte = *byte & !(1 << shift) | bit << shift;
        (old, grew)
    })?;
    if grew || old != bit {
        ctx.changed(notify::STRING, "setbit", &args[1], 1);
    }
    ctx.out.just_int(i64::from(old))
}

fn getbit(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let offset = bit_offset(ctx, &args[2], None)?;
    let bit = match ctx.ks.read(ctx.db, &args[1]) {
        Some(entry) => bit_at(string_of(entry, &mut IntBuf::new())?, offset),
        None => 0,
    };
    ctx.out.just_int(i64::from(bit))
}

fn bit_at(text: &[u8], offset: u64) -> u8 {
    usize::try_from(offset >> 3).ok().and_then(|i| text.get(i)).map_or(0, |byte| byte >> (7 - (offset & 7)) & 1)
}

/// Whether a range counts bits rather than bytes.
fn counts_bits(unit: &[u8]) -> Result<bool, CmdError> {
    if unit.eq_ignore_ascii_case(b"BIT") {
        Ok(true)
    } else if unit.eq_ignore_ascii_case(b"BYTE") {
        Ok(false)
    } else {
        Err(error::SYNTAX)
    }
}

/// The bits of a range given in bits or bytes, both ends included and counted from the end when negative; `None` when
/// the range is empty.
fn bit_range(len: usize, start: i64, end: i64, in_bits: bool) -> Option<(u64, u64)> {
    let total = len as i64 * if in_bits { 8 } else { 1 };
    let from_end = |i: i64| if i < 0 { (i + total).max(0) } else { i };
    let (start, end) = (from_end(start), from_end(end).min(total - 1));
    if start > end {
        return None;
    }
    let (start, end) = (start as u64, end as u64);
    Some(if in_bits { (start, end) } else { (start * 8, end * 8 + 7) })
}

/// Counts the bits that are set from `start` to `end`, both included.
fn count_bits(text: &[u8], start: u64, end: u64) -> u64 {
    let (first, last) = ((start >> 3) as usize, (end >> 3) as usize);
    let head = 0xffu8 >> (start & 7);
    let tail = 0xffu8 << (7 - (end & 7));
    if first == last {
        return u64::from((text[first] & head & tail).count_ones());
    }
    let ends = (text[first] & head).count_ones() + (text[last] & tail).count_ones();
    let (words, rest) = text[first + 1..last].as_chunks::<8>();
    let words: u64 = words.iter().map(|w| u64::from(u64::from_ne_bytes(*w).count_ones())).sum();
    words + u64::from(ends + rest.iter().map(|b| b.count_ones()).sum::<u32>())
}

/// The first byte that is not `byte`.
fn find_other(text: &[u8], byte: u8) -> Option<usize> {
    // Each chunk is tested as a whole, without a branch inside.
    let (chunks, rest) = text.as_chunks::<64>();
    let is_other = |chunk: &[u8; 64]| chunk.iter().fold(0, |all, b| all | (b ^ byte)) != 0;
    let chunk = chunks.iter().position(is_other);
    let (from, within) = chunk.map_or((text.len() - rest.len(), rest), |i| (i * 64, &chunks[i][..]));
    within.iter().position(|b| *b != byte).map(|at| from + at)
}

/// The first bit from `start` to `end`, both included, that is `bit`.
fn find_bit(text: &[u8], bit: bool, start: u64, end: u64) -> Option<u64> {
    // Flipped, the wanted bit is a 1.
    let flip = if bit { 0 } else { 0xff };
    let (first, last) = ((start >> 3) as usize, (end >> 3) as usize);
    let found = |i: usize| {
        let mut byte = text[i] ^ flip;
        if i == first {
            byte &= 0xff >> (start & 7);
        }
        if i == last {
            byte &= 0xff << (7 - (end & 7));
        }
        (byte != 0).then(|| i as u64 * 8 + u64::from(byte.leading_zeros()))
    };
    found(first)
        .or_else(|| find_other(text.get(first + 1..last)?, flip).and_then(|i| found(first + 1 + i)))
        .or_else(|| found(last))
}

fn bitcount(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let mut int = IntBuf::new();
    let Some(text) = entry.as_ref().map(|e| string_of(e, &mut int)).transpose()? else { return ctx.out.just_int(0) };
    let range = match args.len() {
        2 => bit_range(text.len(), 0, -1, false),
        4 | 5 => {
            let (start, end) = (int_arg(&args[2])?, int_arg(&args[3])?);
            if start < 0 && end < 0 && start > end {
                None
            } else {
                let in_bits = args.get(4).map(counts_bits).transpose()?.unwrap_or(false);
                bit_range(text.len(), start, end, in_bits)
            }
        }
        _ => return Err(error::SYNTAX),
    };
    ctx.out.just_int(range.map_or(0, |(start, end)| count_bits(text, start, end)) as i64)
}

fn bitpos(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let bit = match int_arg(&args[2])? {
        0 => false,
        1 => true,
        _ => return Err(CmdError::of("ERR The bit argument must be 1 or 0.")),
    };
    let entry = ctx.ks.read(ctx.db, &args[1]);
    let mut int = IntBuf::new();
    let Some(text) = entry.as_ref().map(|e| string_of(e, &mut int)).transpose()? else {
        // A missing key is zeros without end.
        return ctx.out.just_int(if bit { -1 } else { 0 });
    };
    let range = match args.len() {
        3 => bit_range(text.len(), 0, -1, false),
        4..=6 => {
            let start = int_arg(&args[3])?;
            let in_bits = args.get(5).map(counts_bits).transpose()?.unwrap_or(false);
            let end = args.get(4).map(int_arg).transpose()?.unwrap_or(-1);
            bit_range(text.len(), start, end, in_bits)
        }
        _ => return Err(error::SYNTAX),
    };
    let found = range.map(|(start, end)| find_bit(text, bit, start, end));
    let position = match found {
        Some(Some(at)) => at as i64,
        // Without an end the string goes on with zeros.
        Some(None) if !bit && args.len() < 5 => text.len() as i64 * 8,
        _ => -1,
    };
    ctx.out.just_int(position)
}

/// What BITOP does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    And,
    Or,
    Xor,
    Not,
}

impl Operation {
    fn parse(name: &[u8]) -> Option<Operation> {
        let named: [(&[u8], Operation); 4] =
            [(b"AND", Operation::And), (b"OR", Operation::Or), (b"XOR", Operation::Xor), (b"NOT", Operation::Not)];
        named.into_iter().find(|(known, _)| name.eq_ignore_ascii_case(known)).map(|(_, operation)| operation)
    }

    /// The strings combined; shorter ones are padded with zeros.
    fn combine(self, texts: &[Cow<'_, [u8]>]) -> Vec<u8> {
        /// Bytes worked on at one time: they and their sources stay in the nearest cache.
        const STEP: usize = 8 * 1024;
        let len = texts.iter().map(|text| text.len()).max().unwrap_or(0);
        let Some((first, others)) = texts.split_first() else { return Vec::new() };
        let mut result = Vec::with_capacity(len);
        for start in (0..len).step_by(STEP) {
            let end = len.min(start + STEP);
            let part = |text: &'_ Cow<'_, [u8]>| start.min(text.len())..end.min(text.len());
            result.extend_from_slice(&first[part(first)]);
            result.resize(end, 0);
            let done = &mut result[start..];
            if self == Operation::Not {
                done.iter_mut().for_each(|byte| *byte = !*byte);
            }
            for text in others {
                let text = &text[part(text)];
                let both = done.iter_mut().zip(text);
                match self {
                    Operation::Or => both.for_each(|(byte, other)| *byte |= other),
                    Operation::Xor => both.for_each(|(byte, other)| *byte ^= other),
                    Operation::And => {
                        both.for_each(|(byte, other)| *byte &= other);
                        done[text.len()..].fill(0);
                    }
                    Operation::Not => {}
                }
            }
        }
        result
    }
}

fn bitop(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let operation = Operation::parse(&args[1]).ok_or(error::SYNTAX)?;
    if operation == Operation::Not && args.len() != 4 {
        return Err(CmdError::of("ERR BITOP NOT must be called with a single source key."));
    }
    let target = &args[2];
    let sources = args.from(3);
    let mut there = Vec::with_capacity(sources.len());
    for key in sources.iter() {
        let entry = ctx.ks.read(ctx.db, key);
        there.push(entry.is_some());
        if let Some(entry) = entry {
            string_of(entry, &mut IntBuf::new())?;
        }
    }
    let db = &ctx.ks.dbs[ctx.db];
    let text_of = |(key, there): (&[u8], bool)| match db.get(key).filter(|_| there).map(|entry| entry.value()) {
        Some(ValueRef::Str { bytes, .. }) => Cow::Borrowed(bytes),
        Some(ValueRef::Int(n)) => Cow::Owned(n.to_string().into_bytes()),
        Some(ValueRef::Object(_)) | None => Cow::Borrowed(&b""[..]),
    };
    let texts: Vec<Cow<'_, [u8]>> = sources.iter().zip(there).map(text_of).collect();
    let result = operation.combine(&texts);
    let len = result.len();
    let lazy = ctx.cfg.lazyfree_lazy_server_del;
    let ks = &mut ctx.ks;
    if len > 0 {
        // A long one is `raw` in any case.
        let value = if len > INLINE_MAX_LEN { NewValue::OwnedStr(result) } else { NewValue::RawStr(&result) };
        ks.store(ctx.db, target, value, Ttl::Clear);
        ks.effects.notify(notify::STRING, "set", target, ctx.db);
        ctx.dirty(1);
    } else if ks.delete(ctx.db, target, lazy) {
        ks.effects.notify(notify::GENERIC, "del", target, ctx.db);
        ctx.dirty(1);
    }
    ctx.out.just_int(len as i64)
}

/// What a field does when a value does not fit it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Overflow {
    Wrap,
    Saturate,
    Fail,
}

/// An integer of some width, with or without sign.
#[derive(Clone, Copy)]
struct Field {
    signed: bool,
    width: u32,
}

impl Field {
    fn parse(arg: &[u8]) -> Result<Field, CmdError> {
        let invalid = CmdError::of(
            "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is.",
        );
        let (signed, max) = match arg.first() {
            Some(b'i') => (true, 64),
            Some(b'u') => (false, 63),
            _ => return Err(invalid),
        };
        let width = parse_i64(&arg[1..]).filter(|n| (1..=max).contains(n)).ok_or(invalid)?;
        Ok(Field { signed, width: width as u32 })
    }

    /// Reads the field; bits after the end of the string are zeros.
    fn read(self, text: &[u8], offset: u64) -> i64 {
        let mut bits = 0u128;
        let first = usize::try_from(offset >> 3).unwrap_or(usize::MAX);
        for i in 0..9 {
            let byte = first.checked_add(i).and_then(|i| text.get(i)).copied().unwrap_or(0);
            bits = bits << 8 | u128::from(byte);
        }
        // 72 bits; the field begins after the first `offset & 7`.
        let value = (bits >> (72 - (offset & 7) as u32 - self.width)) as u64;
        let unused = 64 - self.width;
        if self.signed { (value << unused) as i64 >> unused } else { (value << unused >> unused) as i64 }
    }

    /// Writes the low bits of a value; the string is long enough.
    fn write(self, text: &mut [u8], offset: u64, value: i64) {
        for i in 0..self.width {
            let at = offset + u64::from(self.width - 1 - i);
            let shift = 7 - (at & 7) as u32;
            let byte = &mut text[(at >> 3) as usize];
            *byte = *byte & !(1 << shift) | ((value >> i & 1) as u8) << shift;
        }
    }

    /// A value as the field can hold it; `None` when it does not fit and that is a failure.
    fn fit(self, value: i128, overflow: Overflow) -> Option<i64> {
        let (min, max) = if self.signed {
            (-(1i128 << (self.width - 1)), (1i128 << (self.width - 1)) - 1)
        } else {
            (0, (1i128 << self.width) - 1)
        };
        if (min..=max).contains(&value) {
            return Some(value as i64);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(if value > max { max } else { min } as i64),
            Overflow::Wrap => {
                let wrapped = value.rem_euclid(1i128 << self.width);
                Some(if wrapped > max { wrapped - (1i128 << self.width) } else { wrapped } as i64)
            }
        }
    }
}

enum Action {
    Get,
    Set(i64),
    Add(i64),
}

struct FieldOp {
    field: Field,
    offset: u64,
    overflow: Overflow,
    action: Action,
}

/// The word that begins an operation of BITFIELD.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OpWord {
    Overflow,
    Get,
    Set,
    IncrBy,
}

impl OpWord {
    /// The operation at an argument, and how many arguments it takes; `None`: an error. Used by the command and to find
    /// its keys, so that both agree.
    fn at(args: Args<'_>, at: usize) -> Option<(OpWord, usize)> {
        let words: [(&[u8], OpWord, usize); 4] = [
            (b"OVERFLOW", OpWord::Overflow, 2),
            (b"GET", OpWord::Get, 3),
            (b"SET", OpWord::Set, 4),
            (b"INCRBY", OpWord::IncrBy, 4),
        ];
        let (_, word, len) = words.into_iter().find(|(name, ..)| args[at].eq_ignore_ascii_case(name))?;
        (at + len <= args.len()).then_some((word, len))
    }
}

fn parse_ops(ctx: &Ctx<'_>, args: Args<'_>) -> Result<Vec<FieldOp>, CmdError> {
    let mut ops = Vec::new();
    let mut overflow = Overflow::Wrap;
    let mut i = 2;
    while i < args.len() {
        let (word, len) = OpWord::at(args, i).ok_or(error::SYNTAX)?;
        if word == OpWord::Overflow {
            let kinds: [(&[u8], Overflow); 3] =
                [(b"WRAP", Overflow::Wrap), (b"SAT", Overflow::Saturate), (b"FAIL", Overflow::Fail)];
            let kind = kinds.into_iter().find(|(name, _)| args[i + 1].eq_ignore_ascii_case(name));
            overflow = kind.ok_or(CmdError::of("ERR Invalid OVERFLOW type specified"))?.1;
        } else {
            let field = Field::parse(&args[i + 1])?;
            let offset = bit_offset(ctx, &args[i + 2], Some(field.width))?;
            let action = match word {
                OpWord::Set => Action::Set(int_arg(&args[i + 3])?),
                OpWord::IncrBy => Action::Add(int_arg(&args[i + 3])?),
                OpWord::Get | OpWord::Overflow => Action::Get,
            };
            ops.push(FieldOp { field, offset, overflow, action });
        }
        i += len;
    }
    Ok(ops)
}

fn bitfield(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    run_ops(ctx, args, false)
}

fn run_ops(ctx: &mut Ctx<'_>, args: Args<'_>, read_only: bool) -> CmdResult {
    let key = &args[1];
    let ops = parse_ops(ctx, args)?;
    let last_written = ops
        .iter()
        .filter(|op| !matches!(op.action, Action::Get))
        .map(|op| op.offset + u64::from(op.field.width) - 1)
        .max();
    let Some(last_bit) = last_written else {
        let entry = ctx.ks.read(ctx.db, key);
        let mut int = IntBuf::new();
        let text = entry.as_ref().map(|e| string_of(e, &mut int)).transpose()?.unwrap_or_default();
        ctx.out.array(ops.len());
        ops.iter().for_each(|op| ctx.out.int(op.field.read(text, op.offset)));
        return Ok(());
    };
    if read_only {
        return Err(CmdError::of("ERR BITFIELD_RO only supports the GET subcommand"));
    }
    let mut replies = Vec::with_capacity(ops.len());
    let changes = with_room(ctx, key, last_bit, |text, grew| {
        let mut changes = 0;
        for op in &ops {
            let old = op.field.read(text, op.offset);
            let (new, shows_old) = match op.action {
                Action::Get => {
                    replies.push(Some(old));
                    continue;
                }
                // The value for an unsigned field is taken as unsigned.
                Action::Set(value) if !op.field.signed => (i128::from(value as u64), true),
                Action::Set(value) => (i128::from(value), true),
                Action::Add(by) => (i128::from(old) + i128::from(by), false),
            };
            let fitted = op.field.fit(new, op.overflow);
            if let Some(new) = fitted {
                op.field.write(text, op.offset, new);
                changes += u64::from(grew || old != new);
            }
            replies.push(fitted.map(|new| if shows_old { old } else { new }));
        }
        changes
    })?;
    if changes > 0 {
        ctx.changed(notify::STRING, "setbit", key, changes);
    }
    ctx.out.array(replies.len());
    for reply in replies {
        match reply {
            Some(n) => ctx.out.int(n),
            None => ctx.out.null(),
        }
    }
    Ok(())
}

/// BITFIELD's variable key flags: it only reads the key, unless an operation writes it. A call that will fail counts as
/// a write.
fn bitfield_keys(args: Args<'_>) -> Option<Vec<KeyPos>> {
    let mut reads_only = true;
    let mut i = 2;
    while i < args.len() && reads_only {
        let (word, len) = OpWord::at(args, i).unwrap_or((OpWord::Set, 1));
        reads_only = matches!(word, OpWord::Get | OpWord::Overflow);
        i += len;
    }
    let flags = if reads_only { key::RO | key::ACCESS } else { key::RW | key::ACCESS | key::UPDATE };
    Some(vec![KeyPos { index: 1, flags }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bare::Bare;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn counting_and_finding_agree_with_bit_by_bit(
            text in proptest::collection::vec(prop_oneof![8 => Just(0u8), 8 => Just(0xff), 1 => any::<u8>()], 1..60),
            run in (0usize..400, any::<bool>(), any::<prop::sample::Index>()),
            a in any::<prop::sample::Index>(),
            b in any::<prop::sample::Index>(),
        ) {
            // A long run of one byte at a random place.
            let (run, ones, at) = run;
            let at = at.index(text.len());
            let text = [&text[..at], &vec![if ones { 0xff } else { 0 }; run], &text[at..]].concat();
            let bits = text.len() as u64 * 8;
            let (a, b) = (a.index(bits as usize) as u64, b.index(bits as usize) as u64);
            let (start, end) = (a.min(b), a.max(b));
            let set = |i: &u64| bit_at(&text, *i) == 1;
            prop_assert_eq!(count_bits(&text, start, end), (start..=end).filter(set).count() as u64);
            prop_assert_eq!(find_bit(&text, true, start, end), (start..=end).find(set));
            prop_assert_eq!(find_bit(&text, false, start, end), (start..=end).find(|i| !set(i)));
        }

        #[test]
        fn strings_are_combined_as_byte_by_byte(
            lens in proptest::collection::vec(0usize..20_000, 1..4),
            seed in any::<u64>(),
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let texts: Vec<Cow<'_, [u8]>> =
                lens.iter().map(|len| Cow::Owned((0..*len).map(|_| rng.u8(..)).collect())).collect();
            let len = *lens.iter().max().unwrap();
            for (operation, combine) in [
                (Operation::And, (|a, b| a & b) as fn(u8, u8) -> u8),
                (Operation::Or, |a, b| a | b),
                (Operation::Xor, |a, b| a ^ b),
            ] {
                let at = |i: usize| texts.iter().map(|t| t.get(i).copied().unwrap_or(0)).reduce(combine).unwrap();
                prop_assert_eq!(operation.combine(&texts), (0..len).map(at).collect::<Vec<u8>>());
            }
            let negated: Vec<u8> = texts[0].iter().map(|b| !b).collect();
            prop_assert_eq!(Operation::Not.combine(&texts[..1]), negated);
        }

        #[test]
        fn fields_are_read_as_written(
            mut text in proptest::collection::vec(any::<u8>(), 20),
            signed in any::<bool>(),
            width in 1u32..64,
            offset in 0u64..80,
            value in any::<i64>(),
        ) {
            let field = Field { signed, width };
            let before = text.clone();
            let value = field.fit(i128::from(value), Overflow::Wrap).unwrap();
            field.write(&mut text, offset, value);
            prop_assert_eq!(field.read(&text, offset), value);
            for i in (0..offset).chain(offset + u64::from(width)..160) {
                prop_assert_eq!(bit_at(&text, i), bit_at(&before, i));
            }
        }
    }

    #[test]
    fn values_wrap_saturate_or_fail() {
        let (i8, u8) = (Field { signed: true, width: 8 }, Field { signed: false, width: 8 });
        assert_eq!(i8.fit(128, Overflow::Wrap), Some(-128));
        assert_eq!(i8.fit(-129, Overflow::Wrap), Some(127));
        assert_eq!(i8.fit(1000, Overflow::Saturate), Some(127));
        assert_eq!(i8.fit(-1000, Overflow::Saturate), Some(-128));
        assert_eq!(u8.fit(-1, Overflow::Wrap), Some(255));
        assert_eq!(u8.fit(256, Overflow::Saturate), Some(255));
        assert_eq!(u8.fit(256, Overflow::Fail), None);
        let i64_field = Field { signed: true, width: 64 };
        assert_eq!(i64_field.fit(i128::from(i64::MAX) + 1, Overflow::Wrap), Some(i64::MIN));
    }

    #[test]
    fn bits_are_set_and_counted() {
        let mut bare = Bare::new();
        assert_eq!((bare.run("setbit k 7 1"), bare.run("setbit k 7 1"), bare.changes()), (":0".into(), ":1".into(), 1));
        assert_eq!((bare.run("bitcount k"), bare.run("bitpos k 1")), (":1".into(), ":7".into()));
        assert_eq!(bare.run("setbit k 4294967296 1"), "-ERR bit offset is not an integer or out of range");
    }
}
