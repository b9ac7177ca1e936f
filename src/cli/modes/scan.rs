//! `--scan`: lists all keys.

use std::process::exit;
use std::time::Duration;

use crate::cli::format::OutputMode;
use crate::cli::session::Session;
use crate::cli::term::{complain, put};
use crate::structs::bytes::append_quoted;

/// Prints every key on a line of its own.
pub(crate) fn run(session: &mut Session) -> i32 {
    let quoted = session.output == OutputMode::Standard;
    let mut cursor = b"0".to_vec();
    loop {
        let keys = page(session, &mut cursor);
        let mut text = Vec::new();
        for key in keys {
            if quoted {
                append_quoted(&mut text, &key);
            } else {
                text.extend_from_slice(&key);
            }
            text.push(b'\n');
        }
        put(&text);
        if cursor == b"0" {
            return 0;
        }
        pause(session);
    }
}

/// One SCAN call: moves the cursor and returns the keys. A failure ends the program.
pub(crate) fn page(session: &mut Session, cursor: &mut Vec<u8>) -> Vec<Vec<u8>> {
    let count = session.opts.count.to_string();
    let mut args: Vec<&[u8]> = vec![b"SCAN", cursor];
    let pattern = session.opts.pattern.clone();
    if let Some(pattern) = &pattern {
        args.extend([&b"MATCH"[..], pattern]);
    }
    args.extend([&b"COUNT"[..], count.as_bytes()]);
    let Ok(reply) = session.internal(&args) else {
        exit(1);
    };
    if let Some(reason) = reply.error() {
        complain!("SCAN error: {}\n", String::from_utf8_lossy(reason));
        exit(1);
    }
    let Some([next, keys]) = reply.elements() else {
        complain!("Invalid response from SCAN.\n");
        exit(1);
    };
    *cursor = next.text().unwrap_or(b"0").to_vec();
    keys.elements().unwrap_or_default().iter().map(|key| key.text().unwrap_or_default().to_vec()).collect()
}

/// Sleeps for the time of `-i`.
pub(crate) fn pause(session: &Session) {
    if session.opts.interval_us > 0 {
        std::thread::sleep(Duration::from_micros(session.opts.interval_us));
    }
}
