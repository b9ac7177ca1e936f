//! What operators see and do: INFO and the counters behind it, MONITOR, the slow log, latency events, client listings,
//! the shutdown, the crash report. The commands themselves are in `commands/`; a room's own figures come from that room.

pub mod debug;
pub mod latency;
pub mod memory;
pub mod metrics;
pub mod redact;
pub mod shutdown;
pub mod slowlog;
pub mod stats;

use std::ffi::OsString;

/// The state of this room.
#[derive(Debug, Default)]
pub struct Admin {
    pub slowlog: slowlog::SlowLog,
    pub latency: latency::LatencyMonitor,
    pub metrics: metrics::Metrics,
    pub memory: memory::MemorySamples,
    pub shutdown: shutdown::Shutdown,
    pub debug: debug::DebugState,
    /// When a request that looked like one of HTTP was logged last, wall clock seconds.
    pub http_noted_s: i64,
    /// The command line, for DEBUG RESTART and the process title.
    pub argv: Vec<OsString>,
    /// Systemd started this server, and is to be told when it is ready.
    pub(crate) under_systemd: bool,
}

/// Bytes as people read them: `512B`, `1.50M`, ...
pub fn human_bytes(n: u64) -> String {
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
