//! What scrapes have beside INFO: the slow log, latency events, the port for operators itself.

use super::row::{Figure, samples, value};
use crate::admin::figure::Value;
use crate::admin::finding::Severity;

pub(super) static ROWS: &[Figure] = &[
    value(|f| f.srv.admin.slowlog.len().into()).gauge("redis_slowlog_length", "Entries of the slow log."),
    value(|f| (f.srv.admin.slowlog.next_id - 1).max(0).into())
        .gauge("redis_slowlog_last_id", "The number of the newest entry of the slow log."),
    value(|f| Value::Micros(f.srv.admin.slowlog.entries.front().map_or(0, |entry| entry.duration_us.max(0) as u64)))
        .gauge("redis_last_slow_execution_duration_seconds", "How long the newest entry of the slow log took."),
    samples(|f, sample| {
        for (name, last) in f.srv.admin.latency.events.iter().filter_map(|(name, s)| Some((name, s.last()?))) {
            sample(&[("event_name", name)], last.time as f64);
        }
    })
    .gauge("redis_latency_spike_last", "When an event last held up the loop."),
    samples(|f, sample| {
        for (name, last) in f.srv.admin.latency.events.iter().filter_map(|(name, s)| Some((name, s.last()?))) {
            sample(&[("event_name", name)], f64::from(last.latency) / 1e3);
        }
    })
    .gauge("redis_latency_spike_duration_seconds", "For how long it did so then."),
    samples(|f, sample| {
        let found = f.srv.findings(false);
        for severity in [Severity::Warning, Severity::Critical] {
            let mut ids: Vec<_> = found.iter().filter(|x| x.severity == severity).map(|x| x.id).collect();
            ids.sort_unstable();
            for same in ids.chunk_by(|a, b| a == b) {
                sample(&[("id", same[0]), ("severity", severity.name())], same.len() as f64);
            }
        }
    })
    .gauge("hexad_doctor_findings", "What DOCTOR finds, by kind."),
    value(|f| f.srv.port.connections().into()).gauge("hexad_admin_connections", "Connections of operators."),
    samples(|f, sample| {
        for ((path, status), count) in &f.srv.port.requests {
            sample(&[("path", path), ("status", itoa::Buffer::new().format(*status))], *count as f64);
        }
    })
    .counter("hexad_admin_requests_total", "Requests of operators by path (empty: there is none such) and status."),
    value(|f| {
        f.srv.port.requests.iter().filter(|((path, _), _)| *path == "/metrics").map(|(_, n)| n).sum::<u64>().into()
    })
    .counter("redis_exporter_scrapes_total", "Scrapes."),
    value(|f| Value::Micros(f.srv.port.scrape_us))
        .gauge("redis_exporter_last_scrape_duration_seconds", "How long the scrape before this one took."),
    samples(|_, sample| sample(&[("err", "")], 0.0)).gauge("redis_exporter_last_scrape_error", "A scrape cannot fail."),
];
