//! INFO commandstats and latencystats: calls, time and latency percentiles by command.

use super::Facts;
use super::row::{Figure, Sampled, distributions, lines, samples};
use crate::admin::figure::{Distribution, Value};
use crate::catalog::latency_counts::LatencyCounts;
use crate::catalog::table::{CommandStats, Registered};
use crate::structs::numbers::f64_text;
use std::fmt::Write;

pub(super) static STATS: &[Figure] = &[
    lines(|f, line| {
        for entry in used(f) {
            let s = &entry.stats;
            let per_call = if s.calls == 0 { 0.0 } else { s.us as f32 / s.calls as f32 };
            line(
                &format!("cmdstat_{}", entry.row.name),
                Value::text(format_args!(
                    "calls={},usec={},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
                    s.calls, s.us, s.rejected, s.failed
                )),
            );
        }
    }),
    samples(|f, sample| each(f, sample, |s| s.calls as f64)).counter("redis_commands_total", "Calls by command."),
    samples(|f, sample| each(f, sample, |s| s.us as f64 / 1e6))
        .counter("redis_commands_duration_seconds_total", "Time spent in calls, by command."),
    samples(|f, sample| each(f, sample, |s| s.rejected as f64))
        .counter("redis_commands_rejected_calls_total", "Calls that were refused before they ran, by command."),
    samples(|f, sample| each(f, sample, |s| s.failed as f64))
        .counter("redis_commands_failed_calls_total", "Calls that ended with an error, by command."),
];

pub(super) static LATENCY: &[Figure] = &[
    lines(|f, line| {
        let percents = &f.srv.cfg.latency_tracking_info_percentiles;
        for (entry, values) in measured(f, percents) {
            let mut text = String::new();
            for (percent, ns) in percents.iter().zip(values) {
                let (gap, percent) = (if text.is_empty() { "" } else { "," }, percent_text(*percent));
                let _ = write!(text, "{gap}p{percent}={}.{:03}", ns / 1000, ns % 1000);
            }
            line(&format!("latency_percentiles_usec_{}", entry.row.name), text.into());
        }
    }),
    samples(|f, sample| {
        let percents = &f.srv.cfg.latency_tracking_info_percentiles;
        let names: Vec<_> = percents.iter().map(|p| percent_text(*p)).collect();
        for (entry, values) in measured(f, percents) {
            for (percent, ns) in names.iter().zip(values) {
                sample(&[("cmd", entry.row.name), ("quantile", percent)], ns as f64 / 1e3);
            }
        }
    })
    .gauge(
        "redis_latency_percentiles_usec",
        "Microseconds that so many percent of the calls do not exceed, by command.",
    ),
    samples(|f, sample| {
        measured(f, &[]).for_each(|(entry, _)| sample(&[("cmd", entry.row.name)], entry.stats.us as f64))
    })
    .counter("redis_latency_percentiles_usec_sum", "Microseconds spent in calls, by command."),
    samples(|f, sample| {
        measured(f, &[]).for_each(|(entry, _)| sample(&[("cmd", entry.row.name)], entry.stats.calls as f64))
    })
    .counter("redis_latency_percentiles_usec_count", "Calls by command."),
    distributions(|f, distribution| {
        for (name, stats) in used(f).map(|entry| (entry.row.name, &entry.stats)) {
            if let Some(counts) = histogram(stats.latency(), stats.us) {
                distribution(&[("cmd", name)], counts);
            }
        }
    })
    .histogram("redis_commands_latencies_usec", "Calls by how many microseconds they took at most, by command."),
    distributions(|f, distribution| {
        const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];
        for entry in f.srv.commands.all() {
            let s = &entry.stats;
            let Some(ns) = s.latency().percentiles(&QUANTILES.map(|q| q * 100.0)) else { continue };
            let parts = QUANTILES.into_iter().zip(ns).map(|(q, ns)| (q, ns as f64 / 1e9)).collect();
            distribution(&[("cmd", entry.row.name)], Distribution { parts, count: s.calls, sum: s.us as f64 / 1e6 });
        }
    })
    .summary("hexad_command_duration_seconds", "How long calls take, by command."),
];

/// Commands that were called, with each container's subcommands after it.
/// Our own names hold nothing that would break a line.
fn used<'a>(f: &'a Facts<'_>) -> impl Iterator<Item = &'a Registered> {
    f.srv.commands.all().filter(|e| e.stats.calls > 0 || e.stats.rejected > 0 || e.stats.failed > 0)
}

fn each(f: &Facts<'_>, sample: &mut Sampled<'_>, value: fn(&CommandStats) -> f64) {
    used(f).for_each(|entry| sample(&[("cmd", entry.row.name)], value(&entry.stats)));
}

/// Commands whose calls were timed, with these percentiles, in nanoseconds.
fn measured<'a>(f: &'a Facts<'_>, percents: &'a [f64]) -> impl Iterator<Item = (&'a Registered, Vec<u64>)> {
    let all = f.srv.commands.all().filter(|_| f.srv.cfg.latency_tracking);
    all.filter_map(move |entry| Some((entry, entry.stats.latency().percentiles(percents)?)))
}

fn percent_text(percent: f64) -> String {
    String::from_utf8_lossy(f64_text(percent).as_bytes()).into_owned()
}

/// A distribution by powers of two of a microsecond, with the sum of all, microseconds.
pub(super) fn histogram(of: &LatencyCounts, sum_us: u64) -> Option<Distribution> {
    /// The greatest is about a second.
    const BOUNDS: usize = 21;
    let bounds: [u64; BOUNDS] = std::array::from_fn(|i| 1 << i);
    let (counts, all) = of.not_above(&bounds);
    let parts = bounds.iter().zip(counts).map(|(us, n)| (*us as f64, n as f64)).collect();
    (all > 0).then_some(Distribution { parts, count: all, sum: sum_us as f64 })
}
