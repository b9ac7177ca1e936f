//! `--latency-dist`: samples of the time of a PING as a spectrum, a line an interval.
//!
//! Every column is a band of latency, its colour the share of samples in it, on terminals with 256 colours.

use std::time::{Duration, Instant};

use crate::cli::session::Session;
use crate::cli::term::say;

/// Colours from no samples to all of them, as numbers of the xterm palette.
const PALETTE: [u8; 19] = [0, 233, 234, 235, 237, 239, 241, 243, 245, 247, 144, 143, 142, 184, 226, 214, 208, 202, 196];

/// The upper bound of every band in microseconds, with its sign; the last one has none.
#[rustfmt::skip]
const BANDS: [(u64, char); 22] = [
    (10, '.'), (125, '-'), (250, '*'), (500, '#'), (1000, '1'), (2000, '2'), (3000, '3'), (4000, '4'), (5000, '5'),
    (6000, '6'), (7000, '7'), (8000, '8'), (9000, '9'), (10_000, 'A'), (20_000, 'B'), (30_000, 'C'), (40_000, 'D'),
    (50_000, 'E'), (100_000, 'F'), (200_000, 'G'), (500_000, 'H'), (u64::MAX, '>'),
];

/// Lines between two legends.
const LINES_A_PAGE: usize = 40;

/// Pause between two samples.
const SAMPLE_PAUSE: Duration = Duration::from_millis(1);

/// Samples until the program is stopped.
pub(crate) fn run(session: &mut Session) -> i32 {
    let interval = match session.opts.interval_us {
        0 => Duration::from_secs(1),
        us => Duration::from_micros(us),
    };
    for line in 0.. {
        if line % LINES_A_PAGE == 0 {
            legend();
        }
        let started = Instant::now();
        let mut counts = [0u64; BANDS.len()];
        while started.elapsed() < interval {
            let sent = Instant::now();
            if session.internal(&[b"PING"]).is_err() {
                return 1;
            }
            counts[band(sent.elapsed())] += 1;
            std::thread::sleep(SAMPLE_PAUSE);
        }
        say!("{}\n", spectrum(&counts));
    }
    0
}

fn band(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    BANDS.iter().position(|(limit, _)| us <= *limit).unwrap_or(BANDS.len() - 1)
}

/// The columns of one line.
fn spectrum(counts: &[u64]) -> String {
    let total: u64 = counts.iter().sum();
    let top = PALETTE.len() - 1;
    let columns = counts.iter().zip(BANDS).map(|(count, (_, sign))| {
        let shade = (*count as f64 / total.max(1) as f64 * top as f64).ceil() as usize;
        let ink = if shade > top / 2 { 0 } else { 231 };
        format!("\x1b[48;5;{};38;5;{ink}m{sign}", PALETTE[shade.min(top)])
    });
    columns.collect::<String>() + "\x1b[0m"
}

fn legend() {
    let shades: String = PALETTE.iter().map(|color| format!("\x1b[48;5;{color}m ")).collect();
    say!(
        "---------------------------------------------\n\
         . - * #          .01 .125 .25 .5 milliseconds\n\
         1,2,3,...,9      from 1 to 9     milliseconds\n\
         A,B,C,D,E        10,20,30,40,50  milliseconds\n\
         F,G,H            .1,.2,.5        seconds\n\
         >                more than that\n\
         From 0 to 100%: {shades}\x1b[0m\n\
         ---------------------------------------------\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands() {
        assert_eq!(BANDS[band(Duration::from_micros(5))].1, '.');
        assert_eq!(BANDS[band(Duration::from_micros(900))].1, '1');
        assert_eq!(BANDS[band(Duration::from_millis(11))].1, 'B');
        assert_eq!(BANDS[band(Duration::from_secs(9))].1, '>');
    }

    #[test]
    fn shares_are_shades() {
        let mut counts = [0; BANDS.len()];
        assert!(spectrum(&counts).starts_with("\x1b[48;5;0;38;5;231m."));
        counts[0] = 10;
        assert!(spectrum(&counts).starts_with("\x1b[48;5;196;38;5;0m."));
    }
}
