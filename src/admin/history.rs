//! The last minutes, a sample a second, for the charts of the page for operators.

use crate::admin::json::Json;
use std::collections::VecDeque;
use std::sync::LazyLock;

/// Samples that are kept: ten minutes.
const SAMPLES: usize = 600;

/// Durations are counted by these bounds, microseconds: each of the first, then four an octave up to about a second.
pub(crate) static BOUNDS_US: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let rest = (12..80).map(|quarter| 2f64.powf(f64::from(quarter) / 4.0) as u64);
    (1..8).chain(rest).collect()
});

/// What is looked at once a second; counters count since the start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readings {
    /// Unix milliseconds.
    pub(crate) at_ms: i64,
    pub(crate) counters: [u64; COUNTERS.len()],
    pub(crate) gauges: [u64; GAUGES.len()],
    /// How many calls took no longer than each of [`BOUNDS_US`], and how many there were.
    pub(crate) durations: (Vec<u64>, u64),
}

/// What is shown by the second.
pub(crate) const COUNTERS: [&str; 7] = ["ops", "hits", "misses", "evicted", "expired", "received", "sent"];
/// What is shown as it is.
pub(crate) const GAUGES: [&str; 3] = ["used", "rss", "clients"];
/// Of the calls in that second, microseconds.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)];

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// The newest last: when, and the values in the order of `columns`.
    rows: VecDeque<Vec<f64>>,
    before: Option<Readings>,
}

impl History {
    /// Takes a sample.
    pub(crate) fn note(&mut self, now: Readings) {
        if let Some(before) = self.before.as_ref().filter(|before| now.at_ms > before.at_ms) {
            let seconds = (now.at_ms - before.at_ms) as f64 / 1e3;
            let mut row = vec![now.at_ms as f64];
            // Counters may have been set to 0.
            let rates = now.counters.iter().zip(&before.counters);
            row.extend(rates.map(|(now, before)| (now.saturating_sub(*before) as f64 / seconds).round()));
            row.extend(now.gauges.iter().map(|n| *n as f64));
            row.extend(QUANTILES.map(|(_, q)| quantile(&now.durations, &before.durations, q)));
            self.rows.push_back(row);
            if self.rows.len() > SAMPLES {
                self.rows.pop_front();
            }
        }
        self.before = Some(now);
    }

    /// Nobody looks any more.
    pub(crate) fn forget(&mut self) {
        *self = History::default();
    }

    /// The names of the columns, and the rows that are newer than this.
    pub(crate) fn write(&self, since_ms: f64, json: &mut Json) {
        let names = ["t"].into_iter().chain(COUNTERS).chain(GAUGES).chain(QUANTILES.map(|(name, _)| name));
        json.field("columns").array(|j| names.for_each(|name| j.text(name.as_bytes())));
        json.field("rows").array(|j| {
            for row in self.rows.iter().filter(|row| row[0] > since_ms) {
                j.array(|j| row.iter().for_each(|x| j.number(*x)));
            }
        });
    }
}

/// The bound that so many of the calls since then did not exceed; 0 if there were none.
fn quantile(now: &(Vec<u64>, u64), before: &(Vec<u64>, u64), q: f64) -> f64 {
    let all = now.1.saturating_sub(before.1);
    let rank = ((all as f64 * q).ceil() as u64).max(1);
    let not_above = |i: usize| now.0[i].saturating_sub(before.0.get(i).copied().unwrap_or(0));
    let at = (0..now.0.len()).find(|i| not_above(*i) >= rank);
    match at {
        _ if all == 0 => 0.0,
        Some(at) => BOUNDS_US[at] as f64,
        None => 1e6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::latency_counts::LatencyCounts;

    #[test]
    fn samples_are_what_changed_in_a_second() {
        assert!(BOUNDS_US.is_sorted_by(|a, b| a < b) && BOUNDS_US.last().is_some_and(|us| *us > 800_000));
        let (mut history, mut counts) = (History::default(), LatencyCounts::default());
        let mut note = |at_ms: i64, ops: u64, calls: &[u64]| {
            calls.iter().for_each(|us| counts.note(*us, 1));
            let mut now = Readings { at_ms, durations: counts.not_above(&BOUNDS_US), ..Readings::default() };
            (now.counters[0], now.gauges[0]) = (ops, 77);
            history.note(now);
        };
        note(1000, 5, &[3; 100]);
        note(3000, 205, &[[1; 99].as_slice(), &[500]].concat());
        note(4000, 0, &[]);
        let text = String::from_utf8(Json::of(|j| history.write(0.0, j))).unwrap();
        let columns = "\"t\",\"ops\",\"hits\",\"misses\",\"evicted\",\"expired\",\"received\",\"sent\",\"used\",\"rss\",\"clients\",\
                       \"p50\",\"p99\",\"p999\"";
        let rows = "[3000,100,0,0,0,0,0,0,77,0,0,1,1,512],[4000,0,0,0,0,0,0,0,77,0,0,0,0,0]";
        assert_eq!(text, format!("{{\"columns\":[{columns}],\"rows\":[{rows}]}}"));
        let newer = String::from_utf8(Json::of(|j| history.write(3000.0, j))).unwrap();
        assert!(newer.ends_with("\"rows\":[[4000,0,0,0,0,0,0,0,77,0,0,0,0,0]]}"), "{newer}");
        (5..2000).for_each(|s| history.note(Readings { at_ms: s * 1000, ..Readings::default() }));
        assert_eq!(history.rows.len(), SAMPLES);
    }
}
