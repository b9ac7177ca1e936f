//! `--latency`, `--latency-history` and `--intrinsic-latency`.

use std::time::{Duration, Instant};

use crate::cli::format::OutputMode;
use crate::cli::session::Session;
use crate::cli::term::{complain, say, stdout_is_tty};

/// Pause between two samples.
const SAMPLE_PAUSE: Duration = Duration::from_millis(10);

/// How the samples are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lines {
    /// One line, for ever.
    Single,
    /// A new line every interval.
    History,
}

#[derive(Default)]
struct Samples {
    min_ms: u64,
    max_ms: u64,
    total_ms: u64,
    count: u64,
}

impl Samples {
    fn add(&mut self, ms: u64) {
        self.min_ms = if self.count == 0 { ms } else { self.min_ms.min(ms) };
        self.max_ms = self.max_ms.max(ms);
        self.total_ms += ms;
        self.count += 1;
    }

    fn show(&self, output: OutputMode) {
        let average = self.total_ms as f64 / self.count.max(1) as f64;
        let (min, max, count) = (self.min_ms, self.max_ms, self.count);
        match output {
            OutputMode::Standard => {
                say!("min: {min}, max: {max}, avg: {average:.2} ({count} samples)")
            }
            OutputMode::Csv => say!("{min},{max},{average:.2},{count}\n"),
            OutputMode::Raw => say!("{min} {max} {average:.2} {count}\n"),
            OutputMode::Json | OutputMode::QuotedJson => {
                say!("{{\"min\": {min}, \"max\": {max}, \"avg\": {average:.2}, \"count\": {count}}}\n")
            }
        }
    }
}

/// Samples the time of a PING for ever, or for one interval when the output is not for a person.
pub(crate) fn sample(session: &mut Session, lines: Lines) -> i32 {
    let default = match (lines, session.output) {
        (Lines::History, OutputMode::Standard) => Duration::from_secs(15),
        _ => Duration::from_secs(1),
    };
    let interval = match session.opts.interval_us {
        0 => default,
        us => Duration::from_micros(us),
    };
    let live = session.output == OutputMode::Standard;
    let one_shot = !live || !stdout_is_tty();
    let mut samples = Samples::default();
    let mut line_started = Instant::now();
    loop {
        let started = Instant::now();
        if session.internal(&[b"PING"]).is_err() {
            return 1;
        }
        samples.add(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX));
        if live && !one_shot {
            say!("\x1b[0G\x1b[2K");
            samples.show(session.output);
        }
        if line_started.elapsed() > interval {
            if one_shot {
                samples.show(session.output);
                if live {
                    say!("\n");
                }
                return 0;
            }
            if lines == Lines::History {
                say!(" -- {:.2} seconds range\n", line_started.elapsed().as_secs_f64());
                line_started = Instant::now();
                samples = Samples::default();
            }
        }
        std::thread::sleep(SAMPLE_PAUSE);
    }
}

/// Measures how long the system keeps this process from running while it only computes.
pub(crate) fn intrinsic(seconds: u64) -> i32 {
    if seconds == 0 {
        complain!("The test needs a duration in seconds.\n");
        return 1;
    }
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut worst, mut runs) = (Duration::ZERO, 0u64);
    let mut sum = Duration::ZERO;
    loop {
        let started = Instant::now();
        work();
        let now = Instant::now();
        let took = now - started;
        runs += 1;
        sum += took;
        if took > worst {
            worst = took;
            say!("Max latency so far: {} microseconds.\n", worst.as_micros());
        }
        if now >= end {
            break;
        }
    }
    let average_us = sum.as_secs_f64() * 1e6 / runs as f64;
    say!(
        "\n{runs} total runs (avg latency: {average_us:.4} microseconds / {:.2} nanoseconds per run).\n\
         Worst run took {:.0}x longer than the average latency.\n",
        average_us * 1e3,
        worst.as_secs_f64() * 1e6 / average_us
    );
    0
}

/// A short and steady amount of computation.
fn work() {
    let mut x = 88172645463325252u64;
    for _ in 0..2000 {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    std::hint::black_box(x);
}
