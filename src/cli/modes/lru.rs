//! `--lru-test`: a cache under a workload where a fifth of the keys gets four fifths of the requests.
//!
//! Every round writes some keys and reads others, chosen by the same distribution; a line a second shows how many reads
//! found their key.

use std::time::{Duration, Instant};

use crate::cli::connection::{LinkError, encode_command};
use crate::cli::session::Session;
use crate::cli::term::{complain, say};
use crate::resp::reply_reader::Reply;

/// Commands sent before their replies are read.
const PIPELINE: usize = 250;

/// Exponent of the power law that gives the 80-20 distribution.
const SKEW: f64 = 6.2;

/// Runs for ever; ends with 1 when the link or a command fails.
pub(crate) fn run(session: &mut Session, keys: u64) -> i32 {
    let mut rng = fastrand::Rng::new();
    loop {
        let started = Instant::now();
        let (mut reads, mut hits) = (0u64, 0u64);
        while started.elapsed() < Duration::from_secs(1) {
            match round(session, keys, &mut rng) {
                Ok(Ok(found)) => {
                    reads += PIPELINE as u64;
                    hits += found;
                }
                Ok(Err(refused)) => {
                    complain!("{}\n", String::from_utf8_lossy(&refused));
                    return 1;
                }
                Err(error) => {
                    complain!("Error: {error}\n");
                    return 1;
                }
            }
        }
        let misses = reads - hits;
        let percent = |n: u64| 100.0 * n as f64 / reads.max(1) as f64;
        say!("{reads} Gets/sec | Hits: {hits} ({:.2}%) | Misses: {misses} ({:.2}%)\n", percent(hits), percent(misses));
    }
}

/// Writes and reads once; returns how many reads found their key, or what the server refused.
fn round(session: &mut Session, keys: u64, rng: &mut fastrand::Rng) -> Result<Result<u64, Vec<u8>>, LinkError> {
    let conn = session.conn.as_mut().ok_or(LinkError::Closed)?;
    let mut bytes = Vec::new();
    for _ in 0..PIPELINE {
        let value: String = (0..8).map(|_| rng.alphanumeric()).collect();
        bytes.extend(encode_command(&["SET", &key(keys, rng), &value]));
    }
    for _ in 0..PIPELINE {
        bytes.extend(encode_command(&["GET", &key(keys, rng)]));
    }
    conn.send_raw(&bytes)?;
    let mut hits = 0;
    let mut refused = None;
    for at in 0..2 * PIPELINE {
        match conn.read()? {
            Reply::Error(text) => refused = Some(text),
            Reply::Bulk(_) if at >= PIPELINE => hits += 1,
            _ => {}
        }
    }
    Ok(refused.map_or(Ok(hits), Err))
}

fn key(keys: u64, rng: &mut fastrand::Rng) -> String {
    format!("lru:{}", skewed(keys, rng.f64()))
}

/// Maps a uniform number from 0 to 1 to a number from 1 to `keys`, low ones more often.
fn skewed(keys: u64, uniform: f64) -> u64 {
    let top = (keys.max(1) + 1) as f64;
    let power = SKEW + 1.0;
    let drawn = ((top.powf(power) - 1.0) * uniform + 1.0).powf(1.0 / power);
    (top - drawn).ceil().clamp(1.0, top - 1.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_keys_gets_most_requests() {
        let mut rng = fastrand::Rng::with_seed(1);
        let drawn: Vec<u64> = (0..10_000).map(|_| skewed(1000, rng.f64())).collect();
        assert!(drawn.iter().all(|n| (1..=1000).contains(n)));
        let popular = drawn.iter().filter(|n| **n <= 200).count();
        assert!((7500..8500).contains(&popular), "{popular}");
        assert_eq!(skewed(1, 0.5), 1);
    }
}
