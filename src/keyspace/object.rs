//! Values: what a key can hold, its names in replies, and its access clock.

use super::Keyspace;
use super::damaged::Damaged;
use super::hash::{Hash, HashLimits};
use super::list::List;
use super::set::{Set, SetLimits};
use super::zset::{Zset, ZsetLimits};
use crate::config::Config;
use crate::structs::entry::{NewValue, ValueRef};
use crate::structs::quicklist;
use crate::structs::stream::Stream;
use crate::structs::table::{HashSeed, Step};

/// A key with its value in one allocation.
pub(crate) type Entry = crate::structs::entry::Entry<Object>;

/// Values that live outside their entry. Strings and integers do not: they are part of it.
#[derive(Clone, Debug)]
pub(crate) enum Object {
    List(List),
    Set(Set),
    Hash(Hash),
    Zset(Zset),
    Stream(Box<Stream>),
    Damaged(Box<Damaged>),
}

impl Object {
    /// Some time after the key's entry: prefetches a member or field of this hash, or the place for it; as
    /// [`Table::prefetch`](crate::structs::table::Table::prefetch).
    pub(crate) fn prefetch_member(&self, member: u64, step: Step) -> bool {
        match self {
            Object::Set(set) => set.members().is_some_and(|table| table.prefetch(member, step)),
            Object::Hash(hash) => hash.fields().is_some_and(|table| table.prefetch(member, step)),
            Object::Zset(zset) => zset.prefetch(member, step),
            Object::List(_) | Object::Stream(_) | Object::Damaged(_) => false,
        }
    }
}

impl From<List> for NewValue<'static, Object> {
    fn from(list: List) -> NewValue<'static, Object> {
        NewValue::Object(Object::List(list))
    }
}

impl From<Set> for NewValue<'static, Object> {
    fn from(set: Set) -> NewValue<'static, Object> {
        NewValue::Object(Object::Set(set))
    }
}

impl From<Hash> for NewValue<'static, Object> {
    fn from(hash: Hash) -> NewValue<'static, Object> {
        NewValue::Object(Object::Hash(hash))
    }
}

impl From<Zset> for NewValue<'static, Object> {
    fn from(zset: Zset) -> NewValue<'static, Object> {
        NewValue::Object(Object::Zset(zset))
    }
}

impl From<Damaged> for NewValue<'static, Object> {
    fn from(damaged: Damaged) -> NewValue<'static, Object> {
        NewValue::Object(Object::Damaged(Box::new(damaged)))
    }
}

impl From<Stream> for NewValue<'static, Object> {
    fn from(stream: Stream) -> NewValue<'static, Object> {
        NewValue::Object(Object::Stream(Box::new(stream)))
    }
}

/// The configured limits at which values change their encoding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ValueLimits {
    pub(crate) list: quicklist::Limits,
    pub(crate) set: SetLimits,
    pub(crate) hash: HashLimits,
    pub(crate) zset: ZsetLimits,
}

/// List elements of this size get a node of their own by default, bytes.
pub(crate) const PACKED_THRESHOLD: usize = 1 << 30;
/// The largest size that may be set, bytes: well within what a listpack can hold.
const PACKED_THRESHOLD_MAX: usize = (1 << 32) - (1 << 20);

impl ValueLimits {
    /// The limits of the current configuration.
    #[inline]
    pub(crate) fn of(cfg: &Config, ks: &Keyspace) -> ValueLimits {
        ValueLimits {
            list: quicklist::Limits {
                fill: cfg.list_max_listpack_size,
                plain_from: ks.packed_threshold,
                compress_depth: cfg.list_compress_depth,
            },
            set: SetLimits {
                ints: cfg.set_max_intset_entries.min(1 << 30),
                packed: cfg.set_max_listpack_entries,
                packed_value: cfg.set_max_listpack_value,
                seed: ks.seed,
            },
            hash: HashLimits {
                packed: cfg.hash_max_listpack_entries,
                packed_value: cfg.hash_max_listpack_value,
                seed: ks.seed,
            },
            zset: ZsetLimits {
                packed: cfg.zset_max_listpack_entries,
                packed_value: cfg.zset_max_listpack_value,
                seed: ks.seed,
            },
        }
    }
}

impl Default for ValueLimits {
    /// The default limits, with a random seed.
    fn default() -> ValueLimits {
        let seed = HashSeed(fastrand::u128(..).to_ne_bytes());
        let (packed, packed_value) = (128, 64);
        ValueLimits {
            list: quicklist::Limits { fill: -2, plain_from: PACKED_THRESHOLD, compress_depth: 0 },
            set: SetLimits { ints: 512, packed, packed_value, seed },
            hash: HashLimits { packed, packed_value, seed },
            zset: ZsetLimits { packed, packed_value, seed },
        }
    }
}

/// The threshold that DEBUG sets for list elements with a node of their own, bytes; 0: the default. `None`: too large.
pub(crate) fn packed_threshold(bytes: usize) -> Option<usize> {
    match bytes {
        0 => Some(PACKED_THRESHOLD),
        _ => (bytes <= PACKED_THRESHOLD_MAX).then_some(bytes),
    }
}

/// The name TYPE prints.
pub(crate) fn type_name(entry: &Entry) -> &'static str {
    match entry.value() {
        ValueRef::Int(_) | ValueRef::Str { .. } => "string",
        ValueRef::Object(Object::List(_)) => "list",
        ValueRef::Object(Object::Set(_)) => "set",
        ValueRef::Object(Object::Hash(_)) => "hash",
        ValueRef::Object(Object::Zset(_)) => "zset",
        ValueRef::Object(Object::Stream(_)) => "stream",
        ValueRef::Object(Object::Damaged(damaged)) => damaged.kind.type_name(),
    }
}

/// Redis's number of the type, as digests have it.
pub(crate) fn type_number(entry: &Entry) -> u32 {
    match entry.value() {
        ValueRef::Int(_) | ValueRef::Str { .. } => 0,
        ValueRef::Object(Object::List(_)) => 1,
        ValueRef::Object(Object::Set(_)) => 2,
        ValueRef::Object(Object::Zset(_)) => 3,
        ValueRef::Object(Object::Hash(_)) => 4,
        ValueRef::Object(Object::Stream(_)) => 6,
        ValueRef::Object(Object::Damaged(damaged)) => damaged.kind.type_number(),
    }
}

/// Longest string that OBJECT ENCODING calls `embstr`, bytes.
pub(crate) const EMBSTR_MAX: usize = 44;

/// The name OBJECT ENCODING prints.
pub(crate) fn encoding_name(entry: &Entry) -> &'static str {
    match entry.value() {
        ValueRef::Int(_) => "int",
        ValueRef::Str { bytes, raw: false } if bytes.len() <= EMBSTR_MAX => "embstr",
        ValueRef::Str { .. } => "raw",
        ValueRef::Object(Object::List(list)) => list.encoding_name(),
        ValueRef::Object(Object::Set(set)) => set.encoding_name(),
        ValueRef::Object(Object::Hash(hash)) => hash.encoding_name(),
        ValueRef::Object(Object::Zset(zset)) => zset.encoding_name(),
        ValueRef::Object(Object::Stream(_)) => "stream",
        ValueRef::Object(Object::Damaged(damaged)) => damaged.kind.encoding_name(),
    }
}

/// Memory of a key and its value, bytes, as MEMORY USAGE has it.
pub(crate) fn memory_usage(entry: &Entry, samples: usize) -> usize {
    // A place in a table that is three quarters full comes on top.
    entry.alloc_size() + value_bytes_sampled(entry, samples) + 12
}

/// Memory of a value beyond its entry's own allocations, bytes; for large ones an estimate from this many elements.
pub(crate) fn value_bytes_sampled(entry: &Entry, samples: usize) -> usize {
    match entry.value() {
        ValueRef::Int(_) | ValueRef::Str { .. } => 0,
        ValueRef::Object(Object::List(list)) => list.mem_bytes_sampled(samples),
        ValueRef::Object(Object::Set(set)) => set.mem_bytes_sampled(samples),
        ValueRef::Object(Object::Hash(hash)) => hash.mem_bytes_sampled(samples),
        ValueRef::Object(Object::Zset(zset)) => zset.mem_bytes_sampled(samples),
        ValueRef::Object(Object::Stream(stream)) => stream.mem_bytes_sampled(samples),
        ValueRef::Object(Object::Damaged(damaged)) => damaged.mem_bytes(),
    }
}

/// A copy of the value, for another entry.
pub(crate) fn duplicate(entry: &Entry) -> NewValue<'_, Object> {
    match entry.value() {
        ValueRef::Int(n) => NewValue::Int(n),
        ValueRef::Str { bytes, raw: true } => NewValue::RawStr(bytes),
        ValueRef::Str { bytes, raw: false } => NewValue::Str(bytes),
        ValueRef::Object(object) => NewValue::Object(object.clone()),
    }
}

/// Number of allocations that freeing the value takes, roughly: decides about the helper thread.
pub(crate) fn free_effort(entry: &Entry) -> usize {
    match entry.value() {
        ValueRef::Int(_) | ValueRef::Str { .. } => 1,
        ValueRef::Object(Object::List(list)) => list.free_effort(),
        ValueRef::Object(Object::Set(set)) => set.free_effort(),
        ValueRef::Object(Object::Hash(hash)) => hash.free_effort(),
        ValueRef::Object(Object::Zset(zset)) => zset.free_effort(),
        ValueRef::Object(Object::Stream(stream)) => stream.free_effort(),
        ValueRef::Object(Object::Damaged(_)) => 1,
    }
}

/// Initial LFU counter of a new key.
pub(crate) const LFU_INIT: u32 = 5;

/// Computes the 24-bit access field of entries: seconds of the LRU clock, or minutes (16 bits) and a logarithmic
/// counter (8 bits) for LFU. Format of the field: <https://redis.io/docs/latest/develop/reference/eviction/>.
#[derive(Debug, Default, Clone)]
pub(crate) struct AccessClock {
    /// `maxmemory-policy` is one of the LFU ones.
    pub(crate) lfu: bool,
    /// LRU clock, seconds modulo 2^24.
    pub(crate) lru: u32,
    /// Minutes modulo 2^16.
    pub(crate) minutes: u32,
    pub(crate) lfu_log_factor: u32,
    pub(crate) lfu_decay_minutes: u32,
}

impl AccessClock {
    /// Sets the clock from the wall time.
    pub(crate) fn set_time(&mut self, now_ms: i64) {
        self.lru = (now_ms / 1000) as u32 & 0xff_ffff;
        self.minutes = (now_ms / 60_000) as u32 & 0xffff;
    }

    pub(crate) fn init(&self, entry: &mut Entry) {
        entry.set_lru(if self.lfu { self.minutes << 8 | LFU_INIT } else { self.lru });
    }

    /// For an overwritten key: keeps its frequency and moves its clock on.
    pub(crate) fn reset(&self, entry: &mut Entry) {
        if !self.lfu {
            entry.set_lru(self.lru);
        }
    }

    /// Gives an entry the idle time or frequency that came with it from outside, if the current policy uses it.
    pub(crate) fn restore(&self, entry: &mut Entry, idle_s: Option<u64>, freq: Option<u8>) {
        if self.lfu {
            if let Some(freq) = freq {
                entry.set_lru(self.minutes << 8 | u32::from(freq));
            }
        } else if let Some(idle) = idle_s {
            // The clock wraps; what is older than half a round counts as that old.
            let half = 1 << 23;
            entry.set_lru(self.lru.wrapping_sub(idle.min(half) as u32) & 0xff_ffff);
        }
    }

    #[inline]
    pub(crate) fn touch(&self, entry: &mut Entry) {
        if self.lfu {
            self.touch_lfu(entry);
        } else if entry.lru() != self.lru {
            entry.set_lru(self.lru);
        }
    }

    #[inline(never)]
    fn touch_lfu(&self, entry: &mut Entry) {
        let counter = self.lfu_bump(self.lfu_counter(entry.lru()));
        entry.set_lru(self.minutes << 8 | counter);
    }

    /// The counter after its decay by the minutes that have passed.
    pub(crate) fn lfu_counter(&self, field: u32) -> u32 {
        let counter = field & 0xff;
        if self.lfu_decay_minutes == 0 {
            return counter;
        }
        let elapsed = self.minutes.wrapping_sub(field >> 8) & 0xffff;
        counter.saturating_sub(elapsed / self.lfu_decay_minutes)
    }

    /// Raises the counter with a probability that falls as it grows.
    fn lfu_bump(&self, counter: u32) -> u32 {
        if counter >= 255 {
            return 255;
        }
        let base = counter.saturating_sub(LFU_INIT) as f64;
        let p = 1.0 / (base * self.lfu_log_factor as f64 + 1.0);
        if fastrand::f64() < p { counter + 1 } else { counter }
    }

    /// Seconds since the last access, from an LRU field.
    pub(crate) fn idle_seconds(&self, field: u32) -> u32 {
        self.lru.wrapping_sub(field) & 0xff_ffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects are part of their keys' blocks, so each byte counts for every key.
    #[test]
    fn objects_are_small() {
        assert_eq!(size_of::<Object>(), 24);
    }
}
