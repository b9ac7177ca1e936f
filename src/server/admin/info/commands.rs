//! INFO commandstats and latencystats: calls, time and latency percentiles by command.

use super::InfoText;
use crate::catalog::table::Registered;
use crate::server::Server;
use crate::structs::numbers::f64_text;
use std::fmt::Write;

/// Commands with each container's subcommands after it, with the names that are shown for them.
/// Our own names hold nothing that would break a line.
fn with_names(srv: &Server) -> impl Iterator<Item = (&'static str, &Registered)> {
    srv.commands.all().map(|entry| (entry.row.name, entry))
}

pub(crate) fn write_stats(srv: &Server, out: &mut InfoText) {
    for (name, entry) in with_names(srv) {
        let s = &entry.stats;
        if s.calls == 0 && s.rejected == 0 && s.failed == 0 {
            continue;
        }
        let per_call = if s.calls == 0 { 0.0 } else { s.us as f32 / s.calls as f32 };
        out.field(
            &format!("cmdstat_{name}"),
            format_args!(
                "calls={},usec={},usec_per_call={per_call:.2},rejected_calls={},failed_calls={}",
                s.calls, s.us, s.rejected, s.failed
            ),
        );
    }
}

pub(crate) fn write_latency(srv: &Server, out: &mut InfoText) {
    if !srv.cfg.latency_tracking {
        return;
    }
    let percents = &srv.cfg.latency_tracking_info_percentiles;
    let labels: Vec<String> =
        percents.iter().map(|p| format!("p{}", String::from_utf8_lossy(f64_text(*p).as_bytes()))).collect();
    for (name, entry) in with_names(srv) {
        let Some(values) = entry.stats.percentiles(percents) else { continue };
        let mut text = String::new();
        for (label, ns) in labels.iter().zip(values) {
            let _ = write!(text, "{}{label}={}.{:03}", if text.is_empty() { "" } else { "," }, ns / 1000, ns % 1000);
        }
        out.field(&format!("latency_percentiles_usec_{name}"), text);
    }
}
