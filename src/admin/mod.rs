//! The state of what operators see and do: counters and rates, memory samples, the slow log, latency events, DEBUG's
//! switches, a shutdown under way. The texts of INFO and the commands are in `server/`; a room's own figures come from
//! that room.

pub(crate) mod debug;
pub(crate) mod figure;
pub(crate) mod finding;
pub(crate) mod history;
pub(crate) mod http;
pub(crate) mod json;
pub(crate) mod latency;
pub(crate) mod logins;
pub(crate) mod memory;
pub(crate) mod metrics;
pub(crate) mod openmetrics;
pub(crate) mod page;
pub(crate) mod redact;
pub(crate) mod shutdown;
pub(crate) mod slowlog;
pub(crate) mod stats;

use std::ffi::OsString;
use std::path::PathBuf;

/// The state of this room.
#[derive(Debug, Default)]
pub(crate) struct Admin {
    pub(crate) slowlog: slowlog::SlowLog,
    pub(crate) latency: latency::LatencyMonitor,
    pub(crate) metrics: metrics::Metrics,
    pub(crate) memory: std::cell::Cell<memory::MemorySamples>,
    pub(crate) shutdown: shutdown::Shutdown,
    pub(crate) debug: debug::DebugState,
    /// When a request that looked like HTTP was last logged, wall clock seconds.
    pub(crate) http_noted_s: i64,
    /// The command line, for DEBUG RESTART and the process title.
    pub(crate) argv: Vec<OsString>,
    /// Where relative paths of the command line are found from.
    pub(crate) started_in: Option<PathBuf>,
    /// Systemd started this server, and is to be told when it is ready.
    pub(crate) under_systemd: bool,
}

/// Bytes as people read them: `512B`, `1.50M`, ...
pub(crate) fn human_bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["K", "M", "G", "T", "P"];
    if n < 1024 {
        return format!("{n}B");
    }
    let mut scaled = n as f64 / 1024.0;
    for (i, unit) in UNITS.iter().enumerate() {
        if n < 1024u64.saturating_pow(i as u32 + 2) {
            return format!("{scaled:.2}{unit}");
        }
        scaled /= 1024.0;
    }
    format!("{n}B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_for_people() {
        assert_eq!(human_bytes(0), "0B");
        assert_eq!(human_bytes(1023), "1023B");
        assert_eq!(human_bytes(1024), "1.00K");
        assert_eq!(human_bytes(1018448), "994.58K");
        assert_eq!(human_bytes(25276514304), "23.54G");
    }
}
