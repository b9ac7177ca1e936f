//! `--stat`: a line of server statistics every second.

use std::time::Duration;

use super::info_number;
use crate::cli::session::Session;
use crate::cli::term::{complain, say};

/// Lines between two headings.
const LINES_A_PAGE: usize = 20;

const HEADING: &str = "\
------- data ------ --------------------- load -------------------- - child -
keys       mem      clients blocked requests            connections          
";

/// Prints lines until the program is stopped; connects again when the link breaks.
pub(crate) fn run(session: &mut Session) -> i32 {
    if session.opts.interval_us == 0 {
        session.opts.interval_us = 1_000_000;
    }
    let mut requests = None;
    for line in 0.. {
        let info = loop {
            match session.conn.as_mut().map(|conn| conn.words("INFO")) {
                Some(Ok(reply)) => break reply,
                _ => reconnect(session),
            }
        };
        if let Some(reason) = info.error() {
            complain!("ERROR: {}\n", String::from_utf8_lossy(reason));
            return 1;
        }
        if line % LINES_A_PAGE == 0 {
            say!("{HEADING}");
        }
        let text = info.text().unwrap_or_default();
        say!("{}\n", row(text, &mut requests));
        std::thread::sleep(Duration::from_micros(session.opts.interval_us));
    }
    0
}

fn reconnect(session: &mut Session) {
    for attempt in 1.. {
        say!("\r\x1b[0KReconnecting... {attempt}\r");
        let quiet = true;
        let done = session.reconnect(quiet).is_ok();
        std::thread::sleep(Duration::from_secs(1));
        if done {
            say!("\r\x1b[0K");
            return;
        }
    }
}

/// One line. `requests` is the count of the line before.
fn row(info: &[u8], requests: &mut Option<i64>) -> String {
    let number = |name: &str| info_number(info, name).unwrap_or(0);
    let text = String::from_utf8_lossy(info);
    let keys: i64 = text
        .lines()
        .filter_map(|line| line.strip_prefix("db")?.split_once(":keys="))
        .map(|(_, counts)| crate::cli::options::leading_int(counts.as_bytes()))
        .sum();
    let total = number("total_commands_processed");
    let new = requests.replace(total).map_or(0, |before| total - before);
    let flag = |name: &str| number(name) != 0;
    let saving = flag("rdb_bgsave_in_progress");
    let rewriting = flag("aof_rewrite_in_progress");
    let child = match (flag("loading"), saving, rewriting) {
        (true, ..) => "LOAD",
        (_, true, true) => "SAVE+AOF",
        (_, true, false) => "SAVE",
        (_, false, true) => "AOF",
        _ => "",
    };
    format!(
        "{keys:<11}{:<8} {:<8}{:<8}{:<19} {:<12}{child}",
        human_bytes(number("used_memory")),
        number("connected_clients"),
        number("blocked_clients"),
        format!("{total} (+{new})"),
        number("total_connections_received"),
    )
}

/// A size with a unit: `512B`, `1.50K`, `2.00M`, `3.25G`.
pub(crate) fn human_bytes(n: i64) -> String {
    let sign = if n < 0 { "-" } else { "" };
    let n = n.unsigned_abs();
    if n < 1024 {
        return format!("{sign}{n}B");
    }
    let mut value = n as f64 / 1024.0;
    for unit in ["K", "M", "G"] {
        if value < 1024.0 {
            return format!("{sign}{value:.2}{unit}");
        }
        value /= 1024.0;
    }
    format!("{sign}{value:.2}T")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(human_bytes(1023), "1023B");
        assert_eq!(human_bytes(1536), "1.50K");
        assert_eq!(human_bytes(-2 * 1024 * 1024), "-2.00M");
        assert_eq!(human_bytes(3 << 30), "3.00G");
    }

    #[test]
    fn rows_count_requests_between_them() {
        let info = |n: i64| {
            format!(
                "used_memory:1048576\r\nconnected_clients:1\r\nblocked_clients:0\r\n\
                 total_commands_processed:{n}\r\ntotal_connections_received:3\r\n\
                 db0:keys=2,expires=0\r\ndb9:keys=1,expires=0\r\n"
            )
        };
        let mut requests = None;
        assert_eq!(
            row(info(5).as_bytes(), &mut requests).trim_end(),
            "3          1.00M    1       0       5 (+0)              3"
        );
        assert!(row(info(9).as_bytes(), &mut requests).contains("9 (+4)"));
    }
}
