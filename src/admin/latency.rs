//! Latency events: for each kind of event that held up the loop, the worst of each second it happened in.

use std::collections::BTreeMap;

/// Samples kept of an event.
const SAMPLES: usize = 160;

/// The worst of one second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Seconds since 1970.
    pub(crate) time: i64,
    /// Milliseconds.
    pub(crate) latency: u32,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    /// Oldest first.
    samples: std::collections::VecDeque<Sample>,
    /// The worst ever, ms.
    pub(crate) max: u32,
}

impl Series {
    pub(crate) fn samples(&self) -> impl ExactSizeIterator<Item = &Sample> {
        self.samples.iter()
    }

    pub(crate) fn last(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    pub(crate) fn add(&mut self, time: i64, latency: u32) {
        self.max = self.max.max(latency);
        match self.samples.back_mut() {
            Some(last) if last.time == time => last.latency = last.latency.max(latency),
            _ => {
                if self.samples.len() == SAMPLES {
                    self.samples.pop_front();
                }
                self.samples.push_back(Sample { time, latency });
            }
        }
    }
}

/// What the samples of an event say, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) all_time_high: u32,
    pub(crate) avg: u32,
    pub(crate) min: u32,
    pub(crate) max: u32,
    /// Mean absolute deviation from the average.
    pub(crate) mad: u32,
    pub(crate) samples: u32,
    /// Seconds since the oldest sample.
    pub(crate) period: i64,
}

impl Series {
    pub(crate) fn summary(&self, now: i64) -> Summary {
        let n = self.samples.len() as u64;
        if n == 0 {
            return Summary { all_time_high: self.max, ..Summary::default() };
        }
        let values = || self.samples.iter().map(|s| s.latency as u64);
        let avg = values().sum::<u64>() / n;
        Summary {
            all_time_high: self.max,
            avg: avg as u32,
            min: values().min().unwrap_or(0) as u32,
            max: values().max().unwrap_or(0) as u32,
            mad: (values().map(|v| v.abs_diff(avg)).sum::<u64>() / n) as u32,
            samples: n as u32,
            period: (now - self.samples[0].time).max(1),
        }
    }
}

/// Columns and rows of a graph.
const GRAPH_COLUMNS: usize = 80;
const GRAPH_ROWS: u64 = 4;

impl Series {
    /// A bar for each sample, and below it how long ago it was.
    pub(crate) fn graph(&self, name: &str, now: i64) -> String {
        let low = self.samples.iter().map(|s| s.latency).min().unwrap_or(0);
        let high = self.samples.iter().map(|s| s.latency).max().unwrap_or(0);
        let mut text = format!("{name} - high {high} ms, low {low} ms (all time high {} ms)\n", self.max);
        text += &"-".repeat(GRAPH_COLUMNS);
        text.push('\n');
        let samples: Vec<Sample> = self.samples.iter().copied().collect();
        for part in samples.chunks(GRAPH_COLUMNS) {
            text += &graph_part(part, low, high, now);
        }
        text
    }
}

fn graph_part(samples: &[Sample], low: u32, high: u32, now: i64) -> String {
    let range = u64::from(high - low).max(1);
    let mut text = String::new();
    // Each row has three heights, so that small differences show.
    for row in (0..GRAPH_ROWS).rev() {
        for s in samples {
            let height = u64::from(s.latency - low) * (GRAPH_ROWS * 3 - 1) / range;
            text.push(match height.checked_sub(row * 3) {
                None => ' ',
                Some(0) => '_',
                Some(1) => 'o',
                Some(_) => '#',
            });
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text.push('\n');
    let labels: Vec<String> = samples.iter().map(|s| ago((now - s.time).max(0))).collect();
    for row in 0..labels.iter().map(String::len).max().unwrap_or(0) {
        text.extend(labels.iter().map(|label| label.as_bytes().get(row).map_or(' ', |b| *b as char)));
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
    }
    text
}

fn ago(seconds: i64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[derive(Debug, Default)]
pub(crate) struct LatencyMonitor {
    pub(crate) events: BTreeMap<&'static str, Series>,
}

impl LatencyMonitor {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_a_second_and_no_more_than_fit() {
        let mut s = Series::default();
        for i in 0..300 {
            s.add(i, 10);
            s.add(i, 20);
            s.add(i, 15);
        }
        assert_eq!(s.samples().len(), SAMPLES);
        assert_eq!(s.last(), Some(Sample { time: 299, latency: 20 }));
    }

    #[test]
    fn graphs_have_a_bar_for_each_sample() {
        let mut s = Series::default();
        s.add(100, 10);
        s.add(160, 30);
        let text = s.graph("command", 165);
        assert!(text.starts_with("command - high 30 ms, low 10 ms (all time high 30 ms)\n---"), "{text}");
        assert!(text.ends_with("\n_#\n\n15\nms\n"), "{text}");
    }

    #[test]
    fn summaries() {
        let mut s = Series::default();
        s.add(100, 10);
        s.add(101, 30);
        let expected = Summary { all_time_high: 30, avg: 20, min: 10, max: 30, mad: 10, samples: 2, period: 5 };
        assert_eq!(s.summary(105), expected);
    }
}
