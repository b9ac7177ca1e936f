//! Rates: what INFO shows per second, sampled by the cron and averaged over the last samples; and the time of loop cycles.

use crate::catalog::latency_counts::LatencyCounts;

/// Samples a rate is averaged over.
const SAMPLES: usize = 16;
/// Time between samples, ms.
pub(crate) const SAMPLE_PERIOD_MS: i64 = 100;

/// What is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rate {
    Commands,
    /// Bytes a second, replication included.
    NetInput,
    NetOutput,
    ReplInput,
    ReplOutput,
    /// Loop cycles a second.
    Cycles,
    /// Microseconds a loop cycle takes.
    CycleTime,
}

const RATES: usize = Rate::CycleTime as usize + 1;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Samples {
    samples: [i64; SAMPLES],
    next: usize,
    last_value: i64,
    last_base: i64,
}

impl Samples {
    /// Samples `factor` times the change of `value`, divided by the change of `base`.
    pub(crate) fn note(&mut self, value: i64, base: i64, factor: i64) {
        if self.last_base > 0 {
            let elapsed = base - self.last_base;
            let change = value - self.last_value;
            self.samples[self.next] = if elapsed > 0 { change.saturating_mul(factor) / elapsed } else { 0 };
            self.next = (self.next + 1) % SAMPLES;
        }
        self.last_value = value;
        self.last_base = base;
    }
}

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) rates: [Samples; RATES],
    /// Turns of the loop.
    pub(crate) cycles: u64,
    /// Time spent in turns, sleep excluded, microseconds.
    pub(crate) cycles_us: u64,
    /// Time spent in commands, microseconds.
    pub(crate) commands_us: u64,
    /// Durations of turns.
    pub(crate) turns: LatencyCounts,
    /// The longest turn, microseconds, and the most commands in one.
    pub(crate) longest_cycle_us: u64,
    pub(crate) most_commands: u64,
    /// Time spent on writing the AOF, and in the cron, microseconds.
    pub(crate) aof_us: u64,
    pub(crate) cron_us: u64,
    cycle_start_us: i64,
    /// `commands_processed` when the turn began.
    cycle_start_commands: u64,
}

impl Metrics {
    /// The mean of the last samples.
    pub(crate) fn rate(&self, rate: Rate) -> i64 {
        self.rates[rate as usize].samples.iter().sum::<i64>() / SAMPLES as i64
    }

    /// The loop woke up.
    pub(crate) fn begin_cycle(&mut self, now_us: i64, commands: u64) {
        self.cycle_start_us = now_us;
        self.cycle_start_commands = commands;
    }

    /// The loop is about to sleep.
    pub(crate) fn end_cycle(&mut self, now_us: i64, commands: u64) {
        if self.cycle_start_us != 0 {
            let us = (now_us - self.cycle_start_us).max(0) as u64;
            self.cycles += 1;
            self.cycles_us += us;
            self.turns.note(us, 1);
            self.longest_cycle_us = self.longest_cycle_us.max(us);
            self.most_commands = self.most_commands.max(commands.saturating_sub(self.cycle_start_commands));
            self.cycle_start_us = 0;
        }
    }

    /// Forgets rates and sums (CONFIG RESETSTAT).
    pub(crate) fn reset(&mut self) {
        let cycle_start_us = self.cycle_start_us;
        *self = Metrics { cycle_start_us, ..Metrics::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_means_of_the_last_samples() {
        let mut s = Samples::default();
        s.note(0, 1_000_000, 1_000_000);
        for i in 1..=SAMPLES as i64 {
            s.note(i * 50, 1_000_000 + i * 100_000, 1_000_000);
        }
        assert_eq!(s.samples, [500; SAMPLES]);
    }
}
