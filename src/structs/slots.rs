//! Hash slots: the bitmap that travels on the bus, and which slot a key belongs to.
//!
//! Owns the bit order of the 2,048 byte bitmap (bit `slot % 8` of byte `slot / 8`) and the hash tag rule. Who owns a
//! slot is in `cluster/ownership.rs`.

use crc16::{State, XMODEM};

/// How many hash slots a cluster has.
pub(crate) const SLOT_COUNT: usize = 16384;
/// Bytes of a slot bitmap.
pub(crate) const SLOT_BYTES: usize = SLOT_COUNT / 8;

/// A hash slot, always below [`SLOT_COUNT`].
pub(crate) type Slot = u16;

/// The slot of `key`: CRC16 (XMODEM) of the key, or of its hash tag when it has a non-empty `{tag}`.
pub(crate) fn key_slot(key: &[u8]) -> Slot {
    State::<XMODEM>::calculate(hash_tag(key)) & (SLOT_COUNT as u16 - 1)
}

/// The part of `key` that is hashed: the bytes between the first `{` and the next `}`, if there are any; otherwise the
/// key.
fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else {
        return key;
    };
    let inner = &key[open + 1..];
    match memchr::memchr(b'}', inner) {
        None | Some(0) => key,
        Some(close) => &inner[..close],
    }
}

/// A set of slots. It takes the memory of what lies between the first and the last that were ever in it, a bit each: half of the
/// nodes of a cluster are replicas, and most masters have few ranges.
#[derive(Clone, Default)]
pub(crate) struct SlotSet {
    /// How many words are before the first one here.
    skipped: usize,
    /// 64 slots each, the first in the lowest bit. There are none in words before and after these.
    words: Vec<u64>,
}

impl PartialEq for SlotSet {
    fn eq(&self, other: &SlotSet) -> bool {
        self.full_words() == other.full_words()
    }
}

impl Eq for SlotSet {}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.ranges()).finish()
    }
}

impl SlotSet {
    /// A set from the bitmap of a packet.
    pub(crate) fn from_bytes(bytes: &[u8; SLOT_BYTES]) -> Self {
        let words = bytes.as_chunks().0;
        let is_full = |word: &[u8; 8]| *word != [0; 8];
        let Some(first) = words.iter().position(is_full) else { return SlotSet::default() };
        let end = words.iter().rposition(is_full).map_or(first, |last| last + 1);
        SlotSet { skipped: first, words: words[first..end].iter().map(|word| u64::from_le_bytes(*word)).collect() }
    }

    /// The slots from `first` to `last`.
    pub(crate) fn of_range(first: Slot, last: Slot) -> Self {
        let mut out = SlotSet::default();
        out.insert_range(first, last);
        out
    }

    /// The bitmap, as packets have it.
    pub(crate) fn to_bytes(&self) -> [u8; SLOT_BYTES] {
        let mut out = [0; SLOT_BYTES];
        self.write_to(&mut out);
        out
    }

    /// Writes the bitmap to where there are zeros.
    pub(crate) fn write_to(&self, out: &mut [u8]) {
        let all = out.as_chunks_mut().0.iter_mut().skip(self.skipped);
        all.zip(&self.words).for_each(|(to, word)| *to = word.to_le_bytes());
    }

    fn word(&self, at: usize) -> u64 {
        self.words.get(at.wrapping_sub(self.skipped)).copied().unwrap_or(0)
    }

    fn word_mut(&mut self, at: usize) -> &mut u64 {
        if self.words.is_empty() {
            self.skipped = at;
        }
        if at < self.skipped {
            drop(self.words.splice(..0, std::iter::repeat_n(0, self.skipped - at)));
            self.skipped = at;
        }
        let index = at - self.skipped;
        if index >= self.words.len() {
            self.words.resize(index + 1, 0);
        }
        &mut self.words[index]
    }

    /// The words from the first to the last one with slots, and the number of the first.
    fn full_words(&self) -> Option<(usize, &[u64])> {
        let first = self.words.iter().position(|word| *word != 0)?;
        let last = self.words.iter().rposition(|word| *word != 0)?;
        Some((self.skipped + first, &self.words[first..=last]))
    }

    pub(crate) fn contains(&self, slot: Slot) -> bool {
        self.word(usize::from(slot) / 64) & (1 << (slot % 64)) != 0
    }

    /// Adds `slot`; true if it was not there.
    pub(crate) fn insert(&mut self, slot: Slot) -> bool {
        let word = self.word_mut(usize::from(slot) / 64);
        let bit = 1 << (slot % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Adds the slots from `first` to `last`.
    pub(crate) fn insert_range(&mut self, first: Slot, last: Slot) {
        masks(first, last).for_each(|(at, mask)| *self.word_mut(at) |= mask);
    }

    /// The first slot of the set from `first` to `last`.
    pub(crate) fn first_within(&self, first: Slot, last: Slot) -> Option<Slot> {
        let here = masks(first, last).map(|(at, mask)| (at, self.word(at) & mask));
        first_of(here)
    }

    /// Takes `slot` out; true if it was there.
    pub(crate) fn remove(&mut self, slot: Slot) -> bool {
        let was = self.contains(slot);
        if was {
            *self.word_mut(usize::from(slot) / 64) &= !(1 << (slot % 64));
        }
        was
    }

    pub(crate) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Takes the slots of `other` out.
    pub(crate) fn remove_all(&mut self, other: &SlotSet) {
        let start = self.skipped.max(other.skipped);
        let mine = self.words.iter_mut().skip(start - self.skipped);
        mine.zip(other.words.iter().skip(start - other.skipped)).for_each(|(word, out)| *word &= !out);
    }

    /// The set without the slots of `other`.
    pub(crate) fn without(&self, other: &SlotSet) -> SlotSet {
        let mut out = self.clone();
        out.remove_all(other);
        out
    }

    /// The set together with the slots of `other`.
    pub(crate) fn with(&self, other: &SlotSet) -> SlotSet {
        let mut out = self.clone();
        other.words().filter(|(_, word)| *word != 0).for_each(|(at, word)| *out.word_mut(at) |= word);
        out
    }

    /// The slots that are in the other set, too.
    pub(crate) fn common(&self, other: &SlotSet) -> SlotSet {
        let mut out = self.clone();
        out.words.iter_mut().enumerate().for_each(|(index, word)| *word &= other.word(self.skipped + index));
        out
    }

    /// The first slot that is in the other set, too.
    pub(crate) fn first_common(&self, other: &SlotSet) -> Option<Slot> {
        first_of(self.words().map(|(at, word)| (at, word & other.word(at))))
    }

    /// The words, and the number of each.
    fn words(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.words.iter().enumerate().map(|(index, word)| (self.skipped + index, *word))
    }

    /// The slots, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        self.words().filter(|(_, word)| *word != 0).flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros())?;
                word &= word - 1;
                Some((at * 64) as Slot + bit as Slot)
            })
        })
    }

    /// The slots as inclusive ranges, ascending and maximal.
    pub(crate) fn ranges(&self) -> Vec<(Slot, Slot)> {
        let mut out: Vec<(Slot, Slot)> = Vec::new();
        for (at, mut word) in self.words() {
            while word != 0 {
                let skipped = word.trailing_zeros();
                let run = (word >> skipped).trailing_ones();
                let first = (at * 64) as Slot + skipped as Slot;
                let last = first + (run - 1) as Slot;
                match out.last_mut() {
                    Some((_, end)) if *end + 1 == first => *end = last,
                    _ => out.push((first, last)),
                }
                word &= !(u64::MAX >> (64 - run) << skipped);
            }
        }
        out
    }
}

/// The numbers of the words that slots from `first` to `last` are in, and the bits of these.
fn masks(first: Slot, last: Slot) -> impl Iterator<Item = (usize, u64)> {
    let (from, to) = (usize::from(first) / 64, usize::from(last) / 64);
    (from..=to).map(move |at| {
        let above = if at == from { u64::MAX << (first % 64) } else { u64::MAX };
        let below = if at == to { u64::MAX >> (63 - last % 64) } else { u64::MAX };
        (at, above & below)
    })
}

/// The first slot of words with their numbers.
fn first_of(mut words: impl Iterator<Item = (usize, u64)>) -> Option<Slot> {
    let (at, word) = words.find(|(_, word)| *word != 0)?;
    Some((at * 64) as Slot + word.trailing_zeros() as Slot)
}

/// The slots of inclusive ranges, in the order of these.
pub(crate) fn slots_in(ranges: &[(Slot, Slot)]) -> impl Iterator<Item = Slot> {
    ranges.iter().flat_map(|(first, last)| *first..=*last)
}

impl FromIterator<Slot> for SlotSet {
    fn from_iter<I: IntoIterator<Item = Slot>>(iter: I) -> Self {
        let mut out = SlotSet::default();
        for slot in iter {
            out.insert(slot);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn slots_of_known_keys() {
        assert_eq!(key_slot(b"123456789"), 0x31C3);
        assert_eq!(key_slot(b"foo"), 12182);
        assert_eq!(key_slot(b""), 0);
    }

    #[test]
    fn hash_tags() {
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"{user1000}.followers"));
        assert_eq!(key_slot(b"foo{}{bar}"), State::<XMODEM>::calculate(b"foo{}{bar}") & 16383);
        assert_eq!(key_slot(b"foo{{bar}}zap"), key_slot(b"{bar"));
        assert_eq!(key_slot(b"foo{bar}{zap}"), key_slot(b"bar"));
        assert_eq!(key_slot(b"foo{bar"), State::<XMODEM>::calculate(b"foo{bar") & 16383);
    }

    #[test]
    fn bit_order_is_low_bit_first() {
        let mut s = SlotSet::default();
        assert!(s.insert(0) && s.insert(9) && s.insert(16383) && !s.insert(9));
        let bytes = s.to_bytes();
        assert_eq!((bytes[0], bytes[1], bytes[2047]), (1, 2, 128));
        assert_eq!(s.ranges(), vec![(0, 0), (9, 9), (16383, 16383)]);
    }

    #[test]
    fn an_empty_set_is_the_same_however_it_became_so() {
        let mut emptied = SlotSet::default();
        emptied.insert(5);
        assert!(emptied.remove(5) && !emptied.remove(5));
        assert!(emptied == SlotSet::default() && SlotSet::from_bytes(&[0; SLOT_BYTES]) == emptied);
        assert!(SlotSet::default().is_empty() && !SlotSet::default().remove(5) && !SlotSet::default().contains(5));
        assert_eq!(SlotSet::default().to_bytes(), [0; SLOT_BYTES]);
    }

    proptest! {
        #[test]
        fn behaves_as_a_set(
            slots in proptest::collection::btree_set(0u16..16384, 0..300),
            others in proptest::collection::btree_set(0u16..16384, 0..300),
            (first, count) in (0u16..16000, 0u16..300),
        ) {
            let slots: std::collections::BTreeSet<Slot> = slots.into_iter().chain(first..first + count).collect();
            let s: SlotSet = slots.iter().copied().collect();
            let t: SlotSet = others.iter().copied().collect();
            prop_assert_eq!(s.first_common(&t), slots.intersection(&others).next().copied());
            prop_assert_eq!(s.iter().collect::<Vec<_>>(), slots.iter().copied().collect::<Vec<_>>());
            prop_assert_eq!(s.len(), slots.len());
            prop_assert_eq!(s.with(&t).iter().collect::<Vec<_>>(), slots.union(&others).copied().collect::<Vec<_>>());
            let left: Vec<Slot> = slots.difference(&others).copied().collect();
            prop_assert_eq!(s.without(&t).iter().collect::<Vec<_>>(), left);
            // However many words there are, it is the same set.
            let mut fewer = s.with(&t);
            others.difference(&slots).for_each(|slot| assert!(fewer.remove(*slot) && !fewer.contains(*slot)));
            prop_assert_eq!(&fewer, &s);
            for set in [&s, &fewer, &s.without(&t)] {
                prop_assert_eq!(&SlotSet::from_bytes(&set.to_bytes()), set);
            }
            prop_assert_eq!(s.common(&t).iter().collect::<Vec<_>>(), slots.intersection(&others).copied().collect::<Vec<_>>());
            let last = first + count;
            prop_assert_eq!(t.first_within(first, last), others.range(first..=last).next().copied());
            let mut with_range = t.clone();
            with_range.insert_range(first, last);
            prop_assert_eq!(with_range, t.with(&(first..=last).collect()));
            prop_assert_eq!(SlotSet::of_range(first, last).ranges(), vec![(first, last)]);
            let from_ranges: SlotSet = slots_in(&s.ranges()).collect();
            prop_assert_eq!(from_ranges, s);
        }
    }
}
