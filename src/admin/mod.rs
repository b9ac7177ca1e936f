//! What operators see and do: INFO and the counters behind it, MONITOR, the slow log, latency events, client listings,
//! the shutdown, the crash report. The commands themselves are in `commands/`; a room's own figures come from that room.

pub mod client_memory;
pub mod crash;
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
    pub client_memory: client_memory::ClientMemory,
    pub shutdown: shutdown::Shutdown,
    pub debug: debug::DebugState,
    /// When a request that looked like one of HTTP was logged last, wall clock seconds.
    pub http_noted_s: i64,
    /// The command line, for DEBUG RESTART and the process title.
    pub argv: Vec<OsString>,
}

/// The commit that this was built from, 8 hexadecimal digits; zeros where that is not known.
pub const COMMIT: &str = match option_env!("HEXAD_COMMIT") {
    Some(commit) => commit,
    None => "00000000",
};
/// "1" if what was built differed from that commit.
pub const IS_DIRTY: &str = match option_env!("HEXAD_DIRTY") {
    Some(dirty) => dirty,
    None => "0",
};

/// Names the build: 16 hexadecimal digits that differ between versions and targets.
pub fn build_id() -> String {
    let text = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"), " ", env!("CARGO_PKG_RUST_VERSION"));
    let target = format!("{text} {} {}", std::env::consts::ARCH, std::env::consts::OS);
    format!("{:016x}", crc::Crc::<u64>::new(&crc::CRC_64_REDIS).checksum(target.as_bytes()))
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

    #[test]
    fn the_build_has_a_name() {
        assert_eq!(build_id().len(), 16);
    }
}
