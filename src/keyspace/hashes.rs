//! Hashes of keys that were computed before the command that names them runs.

use super::KeyHash;

/// Keys of the running command. A key is found by its address, so only the very argument that was hashed is found. The
/// contents are valid only as long as those arguments stay where they are: until `clear`.
#[derive(Debug)]
pub(crate) struct ExpectedKeys {
    /// The first, or only, one.
    first: ExpectedKey,
    rest: Vec<ExpectedKey>,
    /// Index of the one of `rest` found last; the next is searched from here on.
    at: usize,
}

#[derive(Clone, Copy, Debug)]
struct ExpectedKey {
    start: *const u8,
    len: usize,
    hash: KeyHash,
}

impl ExpectedKey {
    const NONE: ExpectedKey = ExpectedKey { start: std::ptr::null(), len: 0, hash: KeyHash::NONE };

    fn is(&self, key: &[u8]) -> bool {
        self.start == key.as_ptr() && self.len == key.len()
    }
}

impl Default for ExpectedKeys {
    fn default() -> ExpectedKeys {
        ExpectedKeys { first: ExpectedKey::NONE, rest: Vec::new(), at: 0 }
    }
}

impl ExpectedKeys {
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.first = ExpectedKey::NONE;
        if !self.rest.is_empty() {
            self.rest.clear();
        }
        self.at = 0;
    }

    /// Forgets all keys but this one.
    #[inline]
    pub(crate) fn expect_only(&mut self, key: &[u8], hash: KeyHash) {
        if !self.rest.is_empty() {
            self.clear();
        }
        self.first = ExpectedKey { start: key.as_ptr(), len: key.len(), hash };
    }

    /// Adds a key with its hash. The order should be that in which the command will ask.
    #[inline]
    pub(crate) fn expect(&mut self, key: &[u8], hash: KeyHash) {
        let expected = ExpectedKey { start: key.as_ptr(), len: key.len(), hash };
        if self.first.start.is_null() {
            self.first = expected;
        } else {
            self.rest.push(expected);
        }
    }

    /// The hash of a key, if it is the first, the one found last, or the next one.
    #[inline]
    pub(crate) fn take(&mut self, key: &[u8]) -> Option<KeyHash> {
        if self.first.is(key) {
            return Some(self.first.hash);
        }
        for at in self.at..(self.at + 2).min(self.rest.len()) {
            if self.rest[at].is(key) {
                self.at = at;
                return Some(self.rest[at].hash);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_arguments_themselves_are_found() {
        let hash = |hash| KeyHash { hash, ..KeyHash::NONE };
        let buffer = b"first second third".to_vec();
        let (first, second, third) = (&buffer[..5], &buffer[6..12], &buffer[13..]);
        let mut keys = ExpectedKeys::default();
        for (i, key) in [first, second, third].into_iter().enumerate() {
            keys.expect(key, hash(i as u64));
        }
        assert_eq!(keys.take(first), Some(hash(0)));
        assert_eq!(keys.take(first), Some(hash(0)));
        assert_eq!(keys.take(b"first"), None);
        assert_eq!(keys.take(&buffer[..4]), None);
        assert_eq!(keys.take(second), Some(hash(1)));
        assert_eq!(keys.take(third), Some(hash(2)));
        assert_eq!(keys.take(first), Some(hash(0)));
        keys.clear();
        assert_eq!(keys.take(first), None);
        assert_eq!(keys.take(third), None);
    }
}
