//! The digest of the dataset (DEBUG DIGEST): equal for equal data, whatever its encoding or order, and equal to the one
//! that Redis computes. Tests and tools compare servers by it.
//!
//! A digest is 20 bytes. What has an order is *mixed* in, what has none is *folded* in. Format: that of Redis 7.2, a
//! chain of SHA-1 sums.

use super::{Entry, Keyspace, Object, object};
use crate::structs::entry::{IntBuf, ValueRef};
use crate::structs::numbers::f64_text_grisu;
use sha1::{Digest as _, Sha1};
use std::fmt;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) [u8; 20]);

impl Digest {
    /// Adds bytes whose order among the others does not matter.
    pub(crate) fn fold(&mut self, bytes: &[u8]) {
        self.0.iter_mut().zip(Sha1::digest(bytes)).for_each(|(d, h)| *d ^= h);
    }

    /// Adds bytes that come after what was added before.
    pub(crate) fn mix(&mut self, bytes: &[u8]) {
        self.fold(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    /// Adds a value: its type, its contents, and whether it has a time to live.
    pub(crate) fn add_value(&mut self, entry: &Entry) {
        self.mix(&object::type_number(entry).to_be_bytes());
        match entry.value() {
            ValueRef::Int(n) => self.mix(IntBuf::new().format(n)),
            ValueRef::Str { bytes, .. } => self.mix(bytes),
            ValueRef::Object(Object::Set(set)) => {
                set.iter().for_each(|item| self.fold(item.bytes(&mut IntBuf::new())));
            }
            ValueRef::Object(Object::Hash(hash)) => {
                for (field, value) in hash.iter() {
                    let mut pair = Digest::default();
                    pair.mix(field.bytes(&mut IntBuf::new()));
                    pair.mix(value.bytes(&mut IntBuf::new()));
                    self.fold(&pair.0);
                }
            }
            ValueRef::Object(Object::Zset(zset)) => {
                for (member, score) in zset.iter() {
                    let mut pair = Digest::default();
                    pair.mix(member.bytes(&mut IntBuf::new()));
                    pair.mix(&f64_text_grisu(score));
                    self.fold(&pair.0);
                }
            }
            ValueRef::Object(Object::List(list)) => {
                list.walk(0).for_each(|item| self.mix(item.bytes(&mut IntBuf::new())));
            }
            ValueRef::Object(Object::Damaged(damaged)) => self.mix(&damaged.bytes),
            ValueRef::Object(Object::Stream(stream)) => {
                for entry in stream.log.iter() {
                    self.mix(&entry.id.digest_text());
                    for (name, value) in entry.fields() {
                        self.mix(name.bytes(&mut IntBuf::new()));
                        self.mix(value.bytes(&mut IntBuf::new()));
                    }
                }
            }
        }
        if entry.has_expire() {
            self.fold(b"!!expire!!");
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

/// The digest of one value, as DEBUG DIGEST-VALUE has it: without its key.
pub(crate) fn value_digest(entry: &Entry) -> Digest {
    let mut digest = Digest::default();
    digest.add_value(entry);
    digest
}

impl Keyspace {
    /// The digest of all databases, as DEBUG DIGEST has it.
    pub(crate) fn digest(&self) -> Digest {
        let mut all = Digest::default();
        for (number, db) in self.dbs.iter().enumerate().filter(|(_, db)| !db.is_empty()) {
            all.mix(&(number as u32).to_be_bytes());
            for entry in db.iter() {
                let mut digest = Digest::default();
                digest.mix(entry.key());
                digest.add_value(entry);
                all.fold(&digest.0);
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::structs::entry::NewValue;
    use crate::structs::table::HashSeed;

    #[test]
    fn digests_are_those_of_redis() {
        let mut ks = Keyspace::new(4, false, HashSeed([1; 16]));
        assert_eq!(ks.digest().to_string(), "0".repeat(40));
        ks.insert(0, b"a", NewValue::Str(b"hello"), None);
        ks.insert(0, b"n", NewValue::Int(42), None);
        ks.insert(2, b"t", NewValue::Str(b"x"), Some(1 << 50));
        assert_eq!(ks.digest().to_string(), "93c1ab0603b545474d98d706df649623723d7562");
        assert_eq!(value_digest(ks.dbs[0].get(b"a").unwrap()).to_string(), "36b23a1456b2dce2c3ed252c456761301dba8060");
        assert_eq!(value_digest(ks.dbs[2].get(b"t").unwrap()).to_string(), "0745672cb1bf060476eedeb8a28f5ffe1ff5a2be");
    }
}
