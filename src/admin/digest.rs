//! DEBUG DIGEST: a number of 20 bytes that is the same for the same dataset, however it is stored, on any server that
//! computes it as Redis does.
//!
//! Two ways of taking bytes in: one by which their order counts, one by which it does not.

use crate::keyspace::{Db, Entry};
use crate::structs::entry::ValueRef;
use sha1::{Digest as _, Sha1};

/// The number, while it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest([u8; 20]);

impl Digest {
    /// Takes bytes in; the order of calls does not matter.
    pub fn unordered(&mut self, bytes: &[u8]) {
        let hash = Sha1::digest(bytes);
        self.0.iter_mut().zip(hash).for_each(|(own, other)| *own ^= other);
    }

    /// Takes bytes in; the order of calls matters.
    pub fn ordered(&mut self, bytes: &[u8]) {
        self.unordered(bytes);
        self.0 = Sha1::digest(self.0).into();
    }

    /// Takes another digest in; the order of calls does not matter.
    pub fn add(&mut self, other: &Digest) {
        self.unordered(&other.0);
    }

    /// 40 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The type's number in a digest.
fn type_number(entry: &Entry) -> u32 {
    match entry.value() {
        ValueRef::Int(_) | ValueRef::Str { .. } => 0,
        ValueRef::Object(object) => match *object {},
    }
}

/// Takes a value and whether it expires in.
fn take_value(digest: &mut Digest, entry: &Entry) {
    digest.ordered(&type_number(entry).to_be_bytes());
    match entry.value() {
        ValueRef::Int(value) => digest.ordered(itoa::Buffer::new().format(value).as_bytes()),
        ValueRef::Str { bytes, .. } => digest.ordered(bytes),
        ValueRef::Object(object) => match *object {},
    }
    if entry.expire_ms().is_some() {
        digest.unordered(b"!!expire!!");
    }
}

/// The digest of one value.
pub fn of_value(entry: &Entry) -> Digest {
    let mut digest = Digest::default();
    take_value(&mut digest, entry);
    digest
}

/// The digest of all databases.
pub fn of_dataset(dbs: &[Db]) -> Digest {
    let mut all = Digest::default();
    for (number, db) in dbs.iter().enumerate() {
        if db.is_empty() {
            continue;
        }
        all.ordered(&(number as u32).to_be_bytes());
        for entry in db.iter() {
            let mut one = Digest::default();
            one.ordered(entry.key());
            take_value(&mut one, entry);
            all.add(&one);
        }
    }
    all
}
