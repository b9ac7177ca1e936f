//! What was read of a data set, as the keyspace takes it: values, entries, and what goes with a load.

use super::rdb::{KeyItem, Reader, Source, StringValue, Value};
use crate::keyspace::hash::Hash;
use crate::keyspace::object::{AccessClock, ValueLimits};
use crate::keyspace::set::Set;
use crate::keyspace::zset::Zset;
use crate::keyspace::{Entry, Object};
use crate::structs::entry::{INLINE_MAX_LEN, NewValue};
use crate::structs::numbers::parse_i64;

/// Longest text that can be an integer.
const MAX_INT_LEN: usize = 20;

/// How a snapshot is to be taken in.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct LoadOptions {
    /// A key that is there already is replaced; otherwise it is an error.
    pub(crate) allow_duplicates: bool,
    /// Keys whose time has come are kept: whoever wrote the snapshot will delete them (a primary, or the log that
    /// follows).
    pub(crate) keep_expired: bool,
    /// The replication history hears of keys that are left out because their time has come.
    pub(crate) feed_replicas: bool,
}

/// The name of the field of a snapshot that tells of slots on their way to the node that wrote it: the name of a job and the
/// ranges. Servers that do not know it pass over it.
pub(crate) const SLOT_IMPORT: &[u8] = b"slot-import";
/// The name that Redis 8 has for such a field.
pub(crate) const SLOT_TASK: &[u8] = b"cluster-asm-task";

/// Replication position found in a snapshot. Complete or useless.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LoadedRepl {
    pub(crate) stream_db: Option<i64>,
    /// 40 hex digits.
    pub(crate) id: Option<Vec<u8>>,
    pub(crate) offset: Option<i64>,
    /// Values of fields named [`SLOT_IMPORT`] or [`SLOT_TASK`].
    pub(crate) imports: Vec<Vec<u8>>,
}

/// A string as the entry takes it: an integer where its text is one.
pub(crate) fn string_value(value: StringValue) -> NewValue<'static, Object> {
    match value {
        StringValue::Int(v) => NewValue::Int(v),
        StringValue::Bytes(bytes) => integer(&bytes).map_or_else(|| NewValue::OwnedStr(bytes), NewValue::Int),
    }
}

/// The integer that a text is stored as.
fn integer(text: &[u8]) -> Option<i64> {
    if text.len() <= MAX_INT_LEN { parse_i64(text) } else { None }
}

/// A value that was read, as the entry takes it. Each type joins here.
/// `None`: it is empty, which no key may be.
pub(crate) fn new_value(value: Value, limits: &ValueLimits) -> Option<NewValue<'static, Object>> {
    Some(match value {
        Value::String(s) => string_value(s),
        Value::List(list) => list.into(),
        Value::Ints(ints) => fitted_set(Set::Ints(ints), limits).into(),
        Value::PackedSet(list) => fitted_set(Set::Packed(list), limits).into(),
        Value::Set(set) => set.into(),
        Value::PackedHash(list) => {
            let mut hash = Hash::Packed(list);
            let len = hash.len();
            hash.fit(&limits.hash);
            warn_of_lost("Hash", len, hash.len());
            hash.into()
        }
        Value::Hash(hash) => hash.into(),
        Value::PackedZset(list) => {
            let mut zset = Zset::Packed(list);
            zset.fit(&limits.zset);
            zset.into()
        }
        Value::Zset(zset) => zset.into(),
        Value::Stream(stream) => NewValue::Object(Object::Stream(stream)),
        Value::Damaged(damaged) => NewValue::Object(Object::Damaged(damaged)),
        Value::Empty => return None,
    })
}

fn fitted_set(mut set: Set, limits: &ValueLimits) -> Set {
    let len = set.len();
    set.fit(&limits.set);
    warn_of_lost("Set", len, set.len());
    set
}

/// A listpack that became a table keeps of equal elements only the first: damage that deserves a word.
fn warn_of_lost(what: &str, before: usize, after: usize) {
    if before != after {
        log::warn!("{what} listpack with dup elements: {} of {before} are left out", before - after);
    }
}

pub(crate) fn parse_number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.trim().parse().ok()
}

/// The entry of a key that was read, with the access clock it had.
/// `None`: it is empty, which no key may be.
#[inline]
pub(crate) fn loaded_entry<S: Source>(
    access: &AccessClock,
    item: KeyItem,
    limits: &ValueLimits,
    reader: &mut Reader<S>,
) -> Option<Entry> {
    let KeyItem { key, value, expire_ms, idle_s, freq } = item;
    let mut entry = match value {
        // The entry has a place for a short string, whose memory serves again.
        Value::String(StringValue::Bytes(bytes)) if bytes.len() <= INLINE_MAX_LEN => {
            let value = integer(&bytes).map_or(NewValue::Str(&bytes), NewValue::Int);
            let entry = Entry::new(&key, value, expire_ms);
            reader.reuse_value(bytes);
            entry
        }
        value => Entry::new(&key, new_value(value, limits)?, expire_ms),
    };
    reader.reuse_key(key);
    access.init(&mut entry);
    access.restore(&mut entry, idle_s, freq);
    Some(entry)
}
