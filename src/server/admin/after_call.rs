//! What is noted about every command that ran: statistics, latency, the slow log, MONITOR.
//!
//! A command that blocked its client is counted once it is answered: by its next run if it is run again, else by
//! `count_answered`. Its time is what its runs took; how long its client waited between and after them is no part of it. One
//! that is refused when it is to run again, or whose client goes away, is not counted as a call.

use crate::admin::slowlog::{SlowEntry, kept_args};
use crate::catalog::CmdRef;
use crate::catalog::row::flag;
use crate::net::ClientId;
use crate::resp::{Args, OwnedArgs};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use crate::server::dispatch::blocked::BlockKind;

/// A command whose client it blocked.
#[derive(Debug)]
pub(crate) struct BlockedCall {
    cmd: CmdRef,
    /// None, if it is to run again.
    args: OwnedArgs,
    /// Time spent running it so far, microseconds.
    spent_us: i64,
    /// Bytes of its request, if commands are counted by slot.
    pub(crate) request_bytes: u64,
}

impl Server {
    /// Notes a command that ran for `duration_us`. `failed`: its reply is an error.
    pub(crate) fn after_call(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, duration_us: i64, failed: bool) {
        let row = self.commands.get(cmd).row;
        self.note_latency(if row.has(flag::FAST) { "fast-command" } else { "command" }, duration_us / 1000);
        if self.depth == 0 {
            self.admin.metrics.commands_us += duration_us.max(0) as u64;
        }
        let earlier = match self.clients.get_mut(id) {
            Some(c) => {
                let earlier = c.blocked_call.take();
                if c.is(ClientFlags::BLOCKED) {
                    let first = earlier.is_none();
                    let spent_us = earlier.map_or(0, |e| e.spent_us) + duration_us;
                    // One that is put off runs again, with arguments that may be very large.
                    let runs_again = c.block.as_ref().is_some_and(|block| block.kind == BlockKind::Postponed);
                    let kept = if runs_again { OwnedArgs::with_capacity(0, 0) } else { args.to_owned() };
                    let call = BlockedCall { cmd, args: kept, spent_us, request_bytes: 0 };
                    c.blocked_call = Some(Box::new(call));
                    if first {
                        self.feed_monitors(id, row, args);
                    }
                    return;
                }
                earlier
            }
            None => None,
        };
        // Monitors saw it when it blocked.
        if earlier.is_none() {
            self.feed_monitors(id, row, args);
        }
        let duration_us = duration_us + earlier.map_or(0, |e| e.spent_us);
        self.note_slow_command(id, cmd, args, duration_us);
        self.count_call(cmd, duration_us, failed);
        if self.depth == 0 {
            self.meter_time(duration_us);
        }
    }

    /// Counts the command of a client that is answered without running it again.
    pub(crate) fn count_answered(&mut self, id: ClientId, failed: bool) {
        let Some(call) = self.clients.get_mut(id).and_then(|c| c.blocked_call.take()) else { return };
        self.note_slow_command(id, call.cmd, call.args.as_args(), call.spent_us);
        self.count_call(call.cmd, call.spent_us, failed);
        self.meter_answered(call.cmd, call.args.as_args(), call.spent_us, call.request_bytes);
    }

    pub(crate) fn count_call(&mut self, cmd: CmdRef, duration_us: i64, failed: bool) {
        self.count_calls(cmd, 1, duration_us);
        self.commands.stats_mut(cmd).failed += u64::from(failed);
    }

    /// Counts calls that took this long together.
    pub(crate) fn count_calls(&mut self, cmd: CmdRef, calls: u32, duration_us: i64) {
        let tracking = self.cfg.latency_tracking;
        self.commands.stats_mut(cmd).count(calls, duration_us.max(0) as u64, tracking);
        self.stats.commands_processed += u64::from(calls);
    }

    /// Notes how long something took if that is long enough for `latency-monitor-threshold`.
    pub(crate) fn note_latency(&mut self, event: &'static str, latency_ms: i64) {
        let threshold = self.cfg.latency_monitor_threshold;
        if threshold != 0 && latency_ms >= threshold {
            let time = self.clock.us() / 1_000_000;
            let latency = latency_ms.clamp(0, u32::MAX as i64) as u32;
            self.admin.latency.events.entry(event).or_default().add(time, latency);
        }
    }

    /// Notes the command if it was slow.
    pub(crate) fn note_slow_command(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>, duration_us: i64) {
        let limit = self.cfg.slowlog_log_slower_than;
        if limit < 0 {
            return;
        }
        self.admin.slowlog.trim(self.cfg.slowlog_max_len);
        if duration_us < limit || self.cfg.slowlog_max_len == 0 {
            return;
        }
        let row = self.commands.get(cmd).row;
        if row.has(flag::SKIP_SLOWLOG) {
            return;
        }
        let Some(c) = self.clients.get(id) else { return };
        let args = crate::admin::redact::redacted(row, args);
        let log = &mut self.admin.slowlog;
        let entry = SlowEntry {
            id: log.next_id,
            time: self.clock.us() / 1_000_000,
            duration_us,
            args: kept_args(args.iter()),
            peer: c.addr(),
            name: c.name.clone(),
        };
        log.next_id += 1;
        log.entries.push_front(entry);
        log.trim(self.cfg.slowlog_max_len);
    }
}
