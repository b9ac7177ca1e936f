//! Samples of the rates that INFO shows.

use crate::admin::metrics::{Rate, SAMPLE_PERIOD_MS};
use crate::server::Server;

impl Server {
    /// Takes the samples when they are due; called by the cron.
    pub(crate) fn sample_rates(&mut self) {
        if !self.every_ms(SAMPLE_PERIOD_MS) {
            return;
        }
        let (s, m) = (&self.stats, &mut self.admin.metrics);
        let now_us = self.clock.mono_us().max(1);
        let (cycles, cycles_us) = (m.cycles as i64, m.cycles_us as i64);
        for (rate, value) in [
            (Rate::Commands, s.commands_processed as i64),
            (Rate::NetInput, (s.net_input_bytes + s.net_repl_input_bytes) as i64),
            (Rate::NetOutput, (s.net_output_bytes + s.net_repl_output_bytes) as i64),
            (Rate::ReplInput, s.net_repl_input_bytes as i64),
            (Rate::ReplOutput, s.net_repl_output_bytes as i64),
            (Rate::Cycles, cycles),
        ] {
            m.rates[rate as usize].note(value, now_us, 1_000_000);
        }
        m.rates[Rate::CycleTime as usize].note(cycles_us, cycles, 1);
    }
}
