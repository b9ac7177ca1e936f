//! Sets of hash slots.

use std::fmt;

/// Number of hash slots of a cluster.
pub const SLOTS: u16 = 16384;

/// The slot of a key: CRC16 (XMODEM) of the key, or of the part in braces if there is one.
pub fn key_slot(key: &[u8]) -> u16 {
    let hashed = key
        .iter()
        .position(|b| *b == b'{')
        .and_then(|open| {
            let rest = &key[open + 1..];
            let close = rest.iter().position(|b| *b == b'}')?;
            (close > 0).then(|| &rest[..close])
        })
        .unwrap_or(key);
    crc16::State::<crc16::XMODEM>::calculate(hashed) % SLOTS
}

/// A set of slots that knows how many it holds.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet {
    bits: Box<[u64; SLOTS as usize / 64]>,
    count: u16,
}

impl Default for SlotSet {
    fn default() -> Self {
        SlotSet { bits: Box::new([0; SLOTS as usize / 64]), count: 0 }
    }
}

impl SlotSet {
    /// Adds a slot; true if it was not there.
    pub fn insert(&mut self, slot: u16) -> bool {
        let (word, bit) = (usize::from(slot / 64), 1u64 << (slot % 64));
        let new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        self.count += u16::from(new);
        new
    }

    /// Takes a slot out; true if it was there.
    pub fn remove(&mut self, slot: u16) -> bool {
        let (word, bit) = (usize::from(slot / 64), 1u64 << (slot % 64));
        let held = self.bits[word] & bit != 0;
        self.bits[word] &= !bit;
        self.count -= u16::from(held);
        held
    }

    /// Whether the slot is in the set.
    pub fn contains(&self, slot: u16) -> bool {
        self.bits[usize::from(slot / 64)] & (1 << (slot % 64)) != 0
    }

    /// How many slots there are.
    pub fn len(&self) -> u16 {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The slots in order.
    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..SLOTS).filter(|slot| self.contains(*slot))
    }

    /// The runs of neighbouring slots, first and last slot of each.
    pub fn ranges(&self) -> Vec<(u16, u16)> {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for slot in self.iter() {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == slot => *last = slot,
                _ => ranges.push((slot, slot)),
            }
        }
        ranges
    }
}

impl Extend<u16> for SlotSet {
    fn extend<T: IntoIterator<Item = u16>>(&mut self, slots: T) {
        for slot in slots {
            self.insert(slot);
        }
    }
}

impl FromIterator<u16> for SlotSet {
    fn from_iter<T: IntoIterator<Item = u16>>(slots: T) -> Self {
        let mut set = SlotSet::default();
        set.extend(slots);
        set
    }
}

/// `[0-5460],[6000]`
impl fmt::Display for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges().into_iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if first == last {
                write!(f, "[{first}]")?;
            } else {
                write!(f, "[{first}-{last}]")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_counts() {
        let mut set: SlotSet = (0..=5460).chain([6000, 16383]).collect();
        assert_eq!(set.to_string(), "[0-5460],[6000],[16383]");
        assert_eq!(set.len(), 5463);
        assert!(!set.insert(0));
        assert!(set.remove(1) && !set.remove(1));
        assert_eq!(set.to_string(), "[0],[2-5460],[6000],[16383]");
        assert_eq!(set.len(), 5462);
        assert_eq!(SlotSet::default().to_string(), "");
    }

    #[test]
    fn slots_of_keys() {
        assert_eq!(key_slot(b"foo"), 12182);
        assert_eq!(key_slot(b"123456789"), 0x31c3);
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"user1000"));
        assert_eq!(key_slot(b"foo{}{bar}"), key_slot(b"foo{}{bar}"));
        assert_eq!(key_slot(b"foo{{bar}}zap"), key_slot(b"{bar"));
        assert_ne!(key_slot(b"foo{}{bar}"), key_slot(b"bar"));
    }
}
