//! What simulated clients have written: sets of the numbers of a slot's writes, and a node's log of all writes it has.
//!
//! Logs are compared and looked at all the time, so what that takes does not grow with them.

use std::collections::BTreeMap;

use crate::structs::slots::Slot;

/// A write to a slot, and its number there.
pub(super) type Write = (Slot, u32);

/// A set of numbers of writes, a bit each.
#[derive(Clone, Default)]
pub(super) struct Numbers(Vec<u64>);

impl Numbers {
    pub(super) fn insert(&mut self, number: u32) {
        let at = number as usize / 64;
        if at >= self.0.len() {
            self.0.resize(at + 1, 0);
        }
        self.0[at] |= 1 << (number % 64);
    }

    fn contains(&self, number: u32) -> bool {
        self.0.get(number as usize / 64).is_some_and(|word| word & 1 << (number % 64) != 0)
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first number that is here and not there.
    pub(super) fn first_missing_in(&self, there: Option<&Numbers>) -> Option<u32> {
        self.0.iter().enumerate().find_map(|(at, word)| {
            let missing = word & !there.and_then(|there| there.0.get(at)).copied().unwrap_or(0);
            (missing != 0).then(|| at as u32 * 64 + missing.trailing_zeros())
        })
    }
}

/// The writes that a node has, in the order in which they came.
#[derive(Clone, Default)]
pub(super) struct Log {
    writes: Vec<Write>,
    /// For each number of writes, what stands for those at the beginning, of 64 bits: two logs that have the same there begin alike.
    sums: Vec<u64>,
    numbers: BTreeMap<Slot, Numbers>,
}

impl Log {
    pub(super) fn len(&self) -> usize {
        self.writes.len()
    }

    pub(super) fn clear(&mut self) {
        self.writes.clear();
        self.sums.clear();
        self.numbers.clear();
    }

    pub(super) fn push(&mut self, write: Write) {
        let (slot, number) = write;
        let before = self.sums.last().copied().unwrap_or(0);
        let mixed =
            (before ^ u64::from(slot) << 32 ^ u64::from(number)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.sums.push(mixed ^ mixed >> 29);
        self.writes.push(write);
        self.numbers.entry(slot).or_default().insert(number);
    }

    /// The writes from a place on, at most so many.
    pub(super) fn part(&self, from: usize, count: usize) -> &[Write] {
        let from = from.min(self.len());
        &self.writes[from..(from + count).min(self.len())]
    }

    pub(super) fn contains(&self, (slot, number): Write) -> bool {
        self.of(slot).is_some_and(|numbers| numbers.contains(number))
    }

    /// Which writes to a slot it has.
    pub(super) fn of(&self, slot: Slot) -> Option<&Numbers> {
        self.numbers.get(&slot)
    }

    pub(super) fn is_beginning_of(&self, longer: &Log) -> bool {
        match self.len() {
            0 => true,
            len => longer.sums.get(len - 1) == self.sums.last(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_agree_with_plain_lists() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut logs: Vec<(Log, Vec<Write>)> = vec![Default::default(); 4];
        for _ in 0..3000 {
            let at = rng.usize(0..logs.len());
            match rng.u32(0..20) {
                0 => logs[at] = logs[rng.usize(0..logs.len())].clone(),
                1 => {
                    logs[at].0.clear();
                    logs[at].1.clear();
                }
                // Often the same in several logs.
                _ => {
                    let write = (rng.u16(0..3), rng.u32(0..130) & if rng.bool() { 1 } else { 255 });
                    logs[at].0.push(write);
                    logs[at].1.push(write);
                }
            }
            let ((a, a_list), (b, b_list)) = (&logs[at], &logs[rng.usize(0..logs.len())]);
            assert_eq!(a.len(), a_list.len());
            assert_eq!(a.is_beginning_of(b), b_list.starts_with(a_list));
            assert_eq!(b.is_beginning_of(a), a_list.starts_with(b_list));
            let from = rng.usize(0..=a_list.len());
            assert_eq!(a.part(from, 5), &a_list[from..(from + 5).min(a_list.len())]);
            let slot = rng.u16(0..3);
            let numbers = |list: &[Write]| -> std::collections::BTreeSet<u32> {
                list.iter().filter(|write| write.0 == slot).map(|write| write.1).collect()
            };
            let (a_set, b_set) = (numbers(a_list), numbers(b_list));
            assert_eq!(a.of(slot).map_or(0, Numbers::len), a_set.len());
            let missing = a.of(slot).and_then(|numbers| numbers.first_missing_in(b.of(slot)));
            assert_eq!(missing, a_set.difference(&b_set).next().copied());
            assert!(a_set.iter().all(|number| a.contains((slot, *number))));
        }
    }
}
