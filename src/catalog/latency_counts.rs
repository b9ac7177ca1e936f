//! Distributions of durations: of the commands, and of the loop's turns.

use crate::resp::Reply;
use hdrhistogram::Histogram;

/// Range and precision of the latency histograms: a nanosecond to a second, two significant digits.
const HISTOGRAM_NS: (u64, u64) = (1, 1_000_000_000);
const HISTOGRAM_DIGITS: u8 = 2;
/// Latencies below this, in microseconds, have a counter each: nearly all commands' are.
const USUAL_US: usize = 8;

/// A histogram of durations.
#[derive(Debug, Default)]
pub(crate) struct LatencyCounts {
    usual: [u64; USUAL_US],
    /// The others, in nanoseconds; made for the first of them.
    others: Option<Box<Histogram<u32>>>,
}

impl LatencyCounts {
    /// Counts `times` that took `us` microseconds each.
    #[inline]
    pub(crate) fn note(&mut self, us: u64, times: u32) {
        match self.usual.get_mut(us as usize) {
            Some(count) => *count += u64::from(times),
            None if times == 0 => {}
            None => self.note_unusual(us, times),
        }
    }

    #[inline(never)]
    fn note_unusual(&mut self, us: u64, times: u32) {
        if let Some(histogram) = others(&mut self.others) {
            histogram.saturating_record_n(us.saturating_mul(1000).clamp(HISTOGRAM_NS.0, HISTOGRAM_NS.1), times);
        }
    }

    /// The distribution in nanoseconds, if any was noted.
    pub(crate) fn histogram(&self) -> Option<Histogram<u32>> {
        let mut all = self.others.clone();
        if self.usual.iter().all(|n| *n == 0) {
            return all.map(|all| *all);
        }
        let histogram = others(&mut all)?;
        for (us, count) in self.usual.iter().enumerate() {
            let count = u32::try_from(*count).unwrap_or(u32::MAX);
            histogram.saturating_record_n((us as u64 * 1000).max(HISTOGRAM_NS.0), count);
        }
        all.map(|all| *all)
    }

    /// The classes of values that occur, ascending: how many there are, and the smallest and the largest value, nanoseconds.
    fn classes(&self) -> impl Iterator<Item = (u64, (u64, u64))> {
        let usual = self.usual.iter().enumerate().filter(|(_, count)| **count > 0);
        let others = self.others.iter().flat_map(|o| o.iter_recorded());
        let usual = usual.map(|(us, count)| (*count, class(us as u64 * 1000)));
        usual.chain(others.map(|step| (u64::from(step.count_at_value()), class(step.value_iterated_to()))))
    }

    /// For each of these bounds, microseconds in ascending order, how many took no longer; and how many there are.
    pub(crate) fn not_above(&self, bounds_us: &[u64]) -> (Vec<u64>, u64) {
        let mut counts = vec![0; bounds_us.len()];
        let mut all = 0;
        for (count, (low, _)) in self.classes() {
            all += count;
            // A class of the histogram belongs where it begins.
            let at = bounds_us.partition_point(|bound| bound * 1000 < low);
            counts.iter_mut().skip(at).take(1).for_each(|n| *n += count);
        }
        let mut so_far = 0;
        counts.iter_mut().for_each(|n| {
            so_far += *n;
            *n = so_far;
        });
        (counts, all)
    }

    /// For each percentage, the nanoseconds that so many percent of all do not exceed, as the histogram rounds them;
    /// `None` if nothing was noted.
    pub(crate) fn percentiles(&self, percents: &[f64]) -> Option<Vec<u64>> {
        let all = self.usual.iter().sum::<u64>() + self.others.as_deref().map_or(0, Histogram::len);
        if all == 0 {
            return None;
        }
        let rank = |percent: f64| ((percent.min(100.0) / 100.0 * all as f64).ceil() as u64).max(1);
        let mut found: Vec<(u64, Option<u64>)> = percents.iter().map(|percent| (rank(*percent), None)).collect();
        let mut so_far = 0;
        // Settles the percentages that one more class of values reaches. True when none is left.
        let mut reach = |count: u64, (low, high): (u64, u64)| {
            so_far += count;
            for ((rank, value), percent) in found.iter_mut().zip(percents) {
                if value.is_none() && *rank <= so_far {
                    *value = Some(if *percent == 0.0 { low } else { high });
                }
            }
            found.iter().all(|(_, value)| value.is_some())
        };
        self.classes().any(|(count, values)| reach(count, values));
        Some(found.into_iter().map(|(_, value)| value.unwrap_or(0)).collect())
    }
}

/// The smallest and the largest value that share a class of the histogram with `ns`: for two significant digits it
/// keeps eight bits.
fn class(ns: u64) -> (u64, u64) {
    let ns = ns.max(HISTOGRAM_NS.0);
    let rest = (1 << (u64::BITS - ns.leading_zeros()).saturating_sub(8)) - 1;
    (ns & !rest, ns | rest)
}

fn others(histogram: &mut Option<Box<Histogram<u32>>>) -> Option<&mut Histogram<u32>> {
    if histogram.is_none() {
        let (low, high) = HISTOGRAM_NS;
        *histogram = Histogram::new_with_bounds(low, high, HISTOGRAM_DIGITS).ok().map(Box::new);
    }
    histogram.as_deref_mut()
}

/// Writes a distribution as LATENCY HISTOGRAM shows it: the count, and for each power of two of a microsecond where the
/// number changes, how many took no longer.
pub(crate) fn write_histogram(out: &mut Reply, histogram: &Histogram<u32>) {
    out.map(2);
    out.bulk(b"calls");
    out.int(histogram.len() as i64);
    out.bulk(b"histogram_usec");
    let inner = out.open();
    let mut buckets = 0;
    let mut before = 0;
    for step in histogram.iter_log(1024, 2.0) {
        let so_far = before + step.count_since_last_iteration();
        if so_far > before {
            out.int((step.value_iterated_to() / 1000) as i64);
            out.int(so_far as i64);
            buckets += 1;
        }
        before = so_far;
    }
    out.close_map(inner, buckets);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn short_and_long_ones_are_counted_together() {
        let mut counts = LatencyCounts::default();
        assert!(counts.histogram().is_none());
        for us in [0, 3, 3, 7, 8, 900] {
            counts.note(us, 1);
        }
        counts.note(50, 0);
        let histogram = counts.histogram().unwrap();
        assert_eq!(histogram.len(), 6);
        assert!(histogram.equivalent(histogram.value_at_quantile(0.5), 3000));
        assert!(histogram.equivalent(histogram.max(), 900_000));
    }

    #[test]
    fn durations_are_counted_by_bounds() {
        let mut counts = LatencyCounts::default();
        assert_eq!(counts.not_above(&[1, 2]), (vec![0, 0], 0));
        for us in [0, 1, 2, 7, 8, 9, 1024, 2_000_000] {
            counts.note(us, 1);
        }
        assert_eq!(counts.not_above(&[1, 2, 4, 8, 1024, 4096]), (vec![2, 3, 3, 5, 7, 7], 8));
    }

    proptest! {
        #[test]
        fn percentiles_are_those_of_the_histogram(
            counts in proptest::collection::vec((0u64..3_000_000, 1u32..50), 1..30),
            short in proptest::collection::vec((0u64..12, 1u32..50), 0..10),
            percents in proptest::collection::vec(0.0..101.0f64, 0..5),
        ) {
            let mut all = LatencyCounts::default();
            prop_assert_eq!(all.percentiles(&percents), None);
            counts.iter().chain(&short).for_each(|(us, times)| all.note(*us, *times));
            let histogram = all.histogram().unwrap();
            let percents = [&percents[..], &[0.0, 50.0, 99.9, 100.0]].concat();
            let expected: Vec<u64> = percents.iter().map(|p| histogram.value_at_percentile(*p)).collect();
            prop_assert_eq!(all.percentiles(&percents), Some(expected));
        }
    }
}
