//! A digest of the data: the same for the same keys, values and expirations, in whatever order they are stored.
//!
//! As DEBUG DIGEST of Redis 7.2 computes it, so that servers of both kinds can be compared.

use super::{Entry, Keyspace};
use crate::structs::entry::{IntBuf, ValueRef};
use sha1::{Digest, Sha1};

/// 20 bytes that things are added to, with their order (`mix`) or without (`xor`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DataDigest([u8; 20]);

impl DataDigest {
    fn xor(&mut self, bytes: &[u8]) {
        let hash = Sha1::digest(bytes);
        self.0.iter_mut().zip(hash).for_each(|(mine, theirs)| *mine ^= theirs);
    }

    fn mix(&mut self, bytes: &[u8]) {
        self.xor(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    /// 40 hex digits.
    pub fn text(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Adds a value, with whether it expires.
    fn add_value(&mut self, entry: &Entry) {
        /// Number of the type in the digest.
        const STRING: u32 = 0;
        match entry.value() {
            ValueRef::Int(_) | ValueRef::Str { .. } => {
                self.mix(&STRING.to_be_bytes());
                let mut int = IntBuf::new();
                self.mix(entry.value_bytes(&mut int).unwrap_or_default());
            }
            ValueRef::Object(object) => match *object {},
        }
        if entry.has_expire() {
            self.xor(b"!!expire!!");
        }
    }
}

impl Keyspace {
    /// Of all databases.
    pub fn digest(&self) -> DataDigest {
        let mut all = DataDigest::default();
        for (number, db) in self.dbs.iter().enumerate().filter(|(_, db)| !db.is_empty()) {
            all.mix(&(number as u32).to_be_bytes());
            for entry in db.iter() {
                let mut one = DataDigest::default();
                one.mix(entry.key());
                one.add_value(entry);
                all.xor(&one.0);
            }
        }
        all
    }

    /// Of one value; zeros when there is no such key.
    pub fn digest_value(&self, db: usize, key: &[u8]) -> DataDigest {
        let mut digest = DataDigest::default();
        if let Some(entry) = self.dbs[db].get(key) {
            digest.add_value(entry);
        }
        digest
    }
}
