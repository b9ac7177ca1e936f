//! Sets of integers in the format of RDB files and DUMP payloads: a width (2, 4 or 8) and a count, 32 bits each, then
//! the integers in ascending order, all little-endian.
//!
//! Invariant: the bytes are always a valid intset. The width is that of the widest integer ever added; removing does not
//! make it narrower.

/// Why bytes are no intset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BadIntset {
    /// The width is none of 2, 4, 8, or the count does not fit the length.
    Header,
    /// The integer of this index is not above the one before it.
    Order(usize),
}

impl std::fmt::Display for BadIntset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BadIntset::Header => f.write_str("intset header does not fit its length"),
            BadIntset::Order(index) => write!(f, "intset out of order at index {index}"),
        }
    }
}

impl std::error::Error for BadIntset {}

const HEADER_LEN: usize = 8;

/// A sorted set of integers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Intset {
    bytes: Vec<u8>,
}

impl Default for Intset {
    fn default() -> Intset {
        Intset::new()
    }
}

impl Intset {
    pub(crate) fn new() -> Intset {
        Intset { bytes: vec![2, 0, 0, 0, 0, 0, 0, 0] }
    }

    /// Takes over bytes from outside after checking them all.
    pub(crate) fn from_bytes(bytes: Vec<u8>) -> Result<Intset, BadIntset> {
        Intset::from_bytes_or_back(bytes).map_err(|(bad, _)| bad)
    }

    fn from_bytes_or_back(bytes: Vec<u8>) -> Result<Intset, (BadIntset, Vec<u8>)> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_LEN>() else {
            return Err((BadIntset::Header, bytes));
        };
        let [a, b, c, d, e, f, g, h] = *header;
        let width = u32::from_le_bytes([a, b, c, d]) as usize;
        let count = u32::from_le_bytes([e, f, g, h]) as usize;
        if !matches!(width, 2 | 4 | 8) || count.checked_mul(width) != Some(rest.len()) {
            return Err((BadIntset::Header, bytes));
        }
        let out_of_order = match width {
            2 => out_of_order(rest, |bytes| i64::from(i16::from_le_bytes(bytes))),
            4 => out_of_order(rest, |bytes| i64::from(i32::from_le_bytes(bytes))),
            _ => out_of_order(rest, i64::from_le_bytes),
        };
        match out_of_order {
            None => Ok(Intset { bytes }),
            Some(index) => Err((BadIntset::Order(index), bytes)),
        }
    }

    /// As [`Self::from_bytes`], but integers out of order are sorted, and duplicates removed.
    pub(crate) fn from_unordered(bytes: Vec<u8>) -> Result<Intset, BadIntset> {
        match Intset::from_bytes_or_back(bytes) {
            Err((BadIntset::Order(_), bytes)) => {
                let width = usize::from(bytes[0]);
                let mut values: Vec<i64> = bytes[HEADER_LEN..].chunks_exact(width).filter_map(read).collect();
                values.sort_unstable();
                values.dedup();
                let mut ordered = bytes[..4].to_vec();
                ordered.extend_from_slice(&(values.len() as u32).to_le_bytes());
                values.iter().for_each(|value| ordered.extend_from_slice(&value.to_le_bytes()[..width]));
                Intset::from_bytes(ordered)
            }
            whole_or_not => whole_or_not.map_err(|(bad, _)| bad),
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn width(&self) -> usize {
        usize::from(self.bytes[0])
    }

    pub(crate) fn len(&self) -> usize {
        (self.bytes.len() - HEADER_LEN) / self.width()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER_LEN
    }

    /// The integer of an index in ascending order.
    pub(crate) fn get(&self, index: usize) -> Option<i64> {
        let width = self.width();
        let at = HEADER_LEN + index.checked_mul(width)?;
        read(self.bytes.get(at..at + width)?)
    }

    pub(crate) fn first(&self) -> Option<i64> {
        self.get(0)
    }

    pub(crate) fn last(&self) -> Option<i64> {
        self.get(self.len().checked_sub(1)?)
    }

    /// The integers in ascending order.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator + '_ {
        self.bytes[HEADER_LEN..].chunks_exact(self.width()).map(|bytes| read(bytes).expect("a whole integer"))
    }

    /// The index of an integer, or the one it would have.
    fn search(&self, value: i64) -> Result<usize, usize> {
        let (mut low, mut high) = (0, self.len());
        // Adding in ascending order is the usual way.
        if self.last().is_some_and(|last| value > last) {
            return Err(high);
        }
        while low < high {
            let middle = low.midpoint(high);
            match self.get(middle).expect("inside").cmp(&value) {
                std::cmp::Ordering::Equal => return Ok(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    pub(crate) fn contains(&self, value: i64) -> bool {
        width_of(value) <= self.width() && self.search(value).is_ok()
    }

    /// Adds an integer. Returns whether it is new.
    pub(crate) fn insert(&mut self, value: i64) -> bool {
        let width = width_of(value);
        if width > self.width() {
            self.widen(width);
        }
        let Err(index) = self.search(value) else {
            return false;
        };
        let width = self.width();
        let at = HEADER_LEN + index * width;
        self.bytes.splice(at..at, value.to_le_bytes()[..width].iter().copied());
        self.write_count();
        true
    }

    /// Keeps the integers that `f` is true for, which sees them in ascending order.
    pub(crate) fn retain(&mut self, mut f: impl FnMut(i64) -> bool) {
        let width = self.width();
        let mut to = HEADER_LEN;
        for from in (HEADER_LEN..self.bytes.len()).step_by(width) {
            if read(&self.bytes[from..from + width]).is_some_and(&mut f) {
                self.bytes.copy_within(from..from + width, to);
                to += width;
            }
        }
        self.bytes.truncate(to);
        self.write_count();
    }

    /// Removes an integer. Returns whether it was there.
    pub(crate) fn remove(&mut self, value: i64) -> bool {
        if width_of(value) > self.width() {
            return false;
        }
        let Ok(index) = self.search(value) else {
            return false;
        };
        let width = self.width();
        let at = HEADER_LEN + index * width;
        self.bytes.drain(at..at + width);
        self.write_count();
        true
    }

    fn widen(&mut self, width: usize) {
        let mut wider = Vec::with_capacity(HEADER_LEN + (self.len() + 1) * width);
        wider.extend_from_slice(&(width as u32).to_le_bytes());
        wider.extend_from_slice(&self.bytes[4..HEADER_LEN]);
        for value in self.iter() {
            wider.extend_from_slice(&value.to_le_bytes()[..width]);
        }
        self.bytes = wider;
    }

    fn write_count(&mut self) {
        let count = u32::try_from(self.len()).expect("an intset has a 32-bit count");
        self.bytes[4..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
    }

    /// Asserts that the bytes are a valid intset.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        assert_eq!(Intset::from_bytes(self.bytes.clone()).as_ref(), Ok(self));
    }
}

/// The index of the first integer that is not greater than the one before it.
fn out_of_order<const WIDTH: usize>(bytes: &[u8], read: impl Fn([u8; WIDTH]) -> i64) -> Option<usize> {
    bytes.as_chunks().0.windows(2).position(|pair| read(pair[0]) >= read(pair[1])).map(|before| before + 1)
}

fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

fn read(bytes: &[u8]) -> Option<i64> {
    Some(match bytes.len() {
        2 => i64::from(i16::from_le_bytes(bytes.try_into().ok()?)),
        4 => i64::from(i32::from_le_bytes(bytes.try_into().ok()?)),
        8 => i64::from_le_bytes(bytes.try_into().ok()?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = i64> {
        prop_oneof![-20i64..20, any::<i16>().prop_map(i64::from), any::<i32>().prop_map(i64::from), any::<i64>()]
    }

    #[test]
    fn bytes_are_those_of_the_format() {
        let mut set = Intset::new();
        for value in [5, -1, 300] {
            assert!(set.insert(value));
        }
        assert_eq!(set.as_bytes(), [2, 0, 0, 0, 3, 0, 0, 0, 0xff, 0xff, 5, 0, 0x2c, 1]);
        assert!(set.insert(70_000));
        assert_eq!(set.as_bytes()[..16], [4, 0, 0, 0, 4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 5, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn changes_agree_with_a_set(changes in proptest::collection::vec((any::<bool>(), number()), 0..200)) {
            let mut set = Intset::new();
            let mut model = BTreeSet::new();
            for (add, value) in changes {
                if add {
                    prop_assert_eq!(set.insert(value), model.insert(value));
                } else {
                    prop_assert_eq!(set.remove(value), model.remove(&value));
                }
                prop_assert!(set.contains(value) == add);
                prop_assert_eq!(set.len(), model.len());
            }
            set.check_invariants();
            prop_assert!(set.iter().eq(model.iter().copied()));
            prop_assert_eq!((set.first(), set.last()), (model.first().copied(), model.last().copied()));
            prop_assert_eq!(set.get(model.len()), None);
        }

        #[test]
        fn no_bytes_panic(mut bytes in any::<Vec<u8>>(), width in 0u8..9, count in 0u8..9) {
            let _ = Intset::from_bytes(bytes.clone());
            bytes.splice(0..0, [width, 0, 0, 0, count, 0, 0, 0]);
            if let Ok(set) = Intset::from_bytes(bytes) {
                set.check_invariants();
            }
        }
    }
}
