//! Distributions of durations: of the commands, and of the loop's turns.

use crate::resp::Reply;
use hdrhistogram::Histogram;

/// Range and precision of the latency histograms: a nanosecond to a second, two significant digits.
const HISTOGRAM_NS: (u64, u64) = (1, 1_000_000_000);
const HISTOGRAM_DIGITS: u8 = 2;
/// Latencies below this, in microseconds, are counted apart: nearly all commands' are.
const USUAL_US: usize = 8;

/// How often something took how long.
#[derive(Debug, Default)]
pub struct LatencyCounts {
    usual: [u32; USUAL_US],
    /// The others, in nanoseconds; made when there is the first.
    others: Option<Box<Histogram<u32>>>,
}

impl LatencyCounts {
    /// Counts `times` that took `us` microseconds each.
    #[inline]
    pub fn note(&mut self, us: u64, times: u32) {
        match self.usual.get_mut(us as usize) {
            Some(count) if *count <= u32::MAX - times => *count += times,
            _ if times == 0 => {}
            _ => self.note_unusual(us, times),
        }
    }

    #[inline(never)]
    fn note_unusual(&mut self, us: u64, times: u32) {
        if let Some(histogram) = others(&mut self.others) {
            histogram.saturating_record_n(us.saturating_mul(1000).clamp(HISTOGRAM_NS.0, HISTOGRAM_NS.1), times);
        }
    }

    /// The distribution in nanoseconds, if any was noted.
    pub fn histogram(&self) -> Option<Histogram<u32>> {
        let mut all = self.others.clone();
        if self.usual.iter().all(|n| *n == 0) {
            return all.map(|all| *all);
        }
        let histogram = others(&mut all)?;
        for (us, count) in self.usual.iter().enumerate() {
            histogram.saturating_record_n((us as u64 * 1000).max(HISTOGRAM_NS.0), *count);
        }
        all.map(|all| *all)
    }
}

fn others(histogram: &mut Option<Box<Histogram<u32>>>) -> Option<&mut Histogram<u32>> {
    if histogram.is_none() {
        let (low, high) = HISTOGRAM_NS;
        *histogram = Histogram::new_with_bounds(low, high, HISTOGRAM_DIGITS).ok().map(Box::new);
    }
    histogram.as_deref_mut()
}

/// Writes a distribution as LATENCY HISTOGRAM shows it: the count, and for powers of two of a microsecond, as far as there
/// is anything new to say, how many took no longer.
pub fn write_histogram(out: &mut Reply, histogram: &Histogram<u32>) {
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
}
