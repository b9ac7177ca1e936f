//! Hashes of keys that were computed before the command that names them runs.

use super::KeyHash;

/// Keys of the running command. A key is known by where it stands, so only the very argument that was hashed is found;
/// what they hold is only to be trusted for as long as those arguments stay where they are: until `clear`.
#[derive(Debug, Default)]
pub struct ExpectedKeys {
    keys: Vec<(*const u8, usize, KeyHash)>,
    /// The one found last; the next is looked for from here on.
    at: usize,
}

impl ExpectedKeys {
    pub fn clear(&mut self) {
        self.keys.clear();
        self.at = 0;
    }

    /// Adds a key with its hash; in the order in which the command will most likely ask.
    pub fn expect(&mut self, key: &[u8], hash: KeyHash) {
        self.keys.push((key.as_ptr(), key.len(), hash));
    }

    /// The hash of a key, if it is this one or the next that is expected.
    pub fn take(&mut self, key: &[u8]) -> Option<KeyHash> {
        for at in self.at..(self.at + 2).min(self.keys.len()) {
            let (start, len, hash) = self.keys[at];
            if start == key.as_ptr() && len == key.len() {
                self.at = at;
                return Some(hash);
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
        let hash = |hash| KeyHash { hash, slot: 0 };
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
        assert_eq!(keys.take(first), None);
        keys.clear();
        assert_eq!(keys.take(third), None);
    }
}
