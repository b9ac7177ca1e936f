//! What redis-cli does besides running commands: one file a mode or family of modes.

pub(crate) mod debugger;
pub(crate) mod eval;
pub(crate) mod hints;
pub(crate) mod keys;
pub(crate) mod latency;
pub(crate) mod lru;
pub(crate) mod pipe;
pub(crate) mod replica;
pub(crate) mod scan;
pub(crate) mod spectrum;
pub(crate) mod stat;

use super::options::Mode;
use super::session::Session;

/// Runs a mode on a connected session and returns the exit code.
pub(crate) fn run(session: &mut Session, mode: Mode) -> i32 {
    match mode {
        Mode::Latency => latency::sample(session, latency::Lines::Single),
        Mode::LatencyHistory => latency::sample(session, latency::Lines::History),
        Mode::LatencyDist => spectrum::run(session),
        Mode::LruTest(keys) => lru::run(session, keys),
        Mode::IntrinsicLatency(seconds) => latency::intrinsic(seconds),
        Mode::Replica => replica::run(session),
        Mode::Rdb(file) => replica::fetch_rdb(session, &file, false),
        Mode::FunctionsRdb(file) => replica::fetch_rdb(session, &file, true),
        Mode::Pipe => pipe::run(session),
        Mode::BigKeys => keys::big_keys(session),
        Mode::MemKeys(samples) => keys::memory_keys(session, samples),
        Mode::HotKeys => keys::hot_keys(session),
        Mode::Stat => stat::run(session),
        Mode::Scan => scan::run(session),
    }
}

/// The number after `name:` in the text of INFO or CLUSTER INFO.
pub(crate) fn info_number(info: &[u8], name: &str) -> Option<i64> {
    info_field(info, name).map(|value| super::options::leading_int(value.as_bytes()))
}

/// The text after `name:` in the text of INFO or CLUSTER INFO.
pub(crate) fn info_field(info: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(info);
    text.lines().find_map(|line| {
        let (field, value) = line.trim_end().split_once(':')?;
        (field == name).then(|| value.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_fields() {
        let info = b"# Server\r\nused_memory:12\r\ndb0:keys=3,expires=0\r\nused_memory_peak:99\r\n";
        assert_eq!(info_number(info, "used_memory"), Some(12));
        assert_eq!(info_field(info, "db0").as_deref(), Some("keys=3,expires=0"));
        assert_eq!(info_number(info, "memory"), None);
    }
}
