//! The child process at work, as its parent knows it, and the pipe through which it reports.

use crate::sys::fork::{self};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{self, Write};
use std::time::Instant;

/// What a child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildKind {
    /// A snapshot into a file (BGSAVE).
    RdbDisk,
    /// A snapshot into a pipe whose other end feeds replicas.
    RdbSocket,
    /// A new base for the append-only log.
    Aof,
}

impl ChildKind {
    /// Name in log lines about its memory.
    pub(crate) fn label(self) -> &'static str {
        match self {
            ChildKind::RdbDisk | ChildKind::RdbSocket => "RDB",
            ChildKind::Aof => "AOF rewrite",
        }
    }

    pub(crate) fn process_name(self) -> &'static str {
        match self {
            ChildKind::RdbDisk => "redis-rdb-bgsave",
            ChildKind::RdbSocket => "redis-rdb-to-slaves",
            ChildKind::Aof => "redis-aof-rewrite",
        }
    }

    pub(crate) fn is_rdb(self) -> bool {
        matches!(self, ChildKind::RdbDisk | ChildKind::RdbSocket)
    }
}

/// The parent's view of its child.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) pid: Pid,
    pub(crate) kind: ChildKind,
    pub(crate) info: File,
    pub(crate) partial: Vec<u8>,
}

/// Figures about forks and the child at work, for INFO.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChildStats {
    pub(crate) total_forks: u64,
    pub(crate) latest_fork_us: u64,
    pub(crate) cow_peak: u64,
    pub(crate) cow_bytes: u64,
    /// When `cow_bytes` was measured.
    pub(crate) cow_at: Option<Instant>,
    pub(crate) keys_processed: u64,
    pub(crate) keys_total: u64,
    pub(crate) rdb_last_cow_bytes: u64,
    pub(crate) aof_last_cow_bytes: u64,
}

/// One report: kind (0 progress, 1 last), keys written, memory copied.
pub(crate) const REPORT_LEN: usize = 24;

/// The child's end of the pipe.
pub(crate) struct Reporter {
    pipe: File,
    label: &'static str,
    cow: u64,
    cow_peak: u64,
    cow_sum: u64,
    cow_count: u64,
    cow_at: Option<Instant>,
    cow_cost_us: u128,
    reported_at: Option<Instant>,
}

impl Reporter {
    pub(crate) fn new(pipe: File, label: &'static str) -> Reporter {
        Reporter {
            pipe,
            label,
            cow: 0,
            cow_peak: 0,
            cow_sum: 0,
            cow_count: 0,
            cow_at: None,
            cow_cost_us: 0,
            reported_at: None,
        }
    }

    /// To be called for each key written; reports about once a second.
    pub(crate) fn key_done(&mut self, keys: u64) {
        if keys & 1023 != 1 {
            return;
        }
        if self.reported_at.is_none_or(|at| at.elapsed().as_millis() >= 1000) {
            self.send(false, keys);
            self.reported_at = Some(Instant::now());
        }
    }

    pub(crate) fn send(&mut self, last: bool, keys: u64) {
        // Measuring takes long in a large process, so it is done for at most a hundredth of the time.
        const DUTY: u128 = 100;
        let due = self.cow_at.is_none_or(|at| at.elapsed().as_micros() > self.cow_cost_us * DUTY);
        if last || due {
            let start = Instant::now();
            self.cow = fork::private_dirty_bytes();
            self.cow_cost_us = start.elapsed().as_micros();
            self.cow_at = Some(Instant::now());
            self.cow_peak = self.cow_peak.max(self.cow);
            self.cow_sum += self.cow;
            self.cow_count += 1;
            if self.cow > 0 || last {
                let mb = |bytes: u64| bytes >> 20;
                let level = if last { log::Level::Info } else { log::Level::Debug };
                log::log!(
                    level,
                    "Fork CoW for {}: current {} MB, peak {} MB, average {} MB",
                    self.label,
                    mb(self.cow),
                    mb(self.cow_peak),
                    mb(self.cow_sum / self.cow_count)
                );
            }
        }
        let mut report = [0; REPORT_LEN];
        report[0] = u8::from(last);
        report[8..16].copy_from_slice(&keys.to_le_bytes());
        report[16..].copy_from_slice(&self.cow.to_le_bytes());
        if let Err(e) = self.pipe.write_all(&report)
            && e.kind() != io::ErrorKind::WouldBlock
        {
            log::warn!("Child failed reporting info to parent, exiting. {}", super::aof::manifest::reason(&e));
            fork::exit_child(1);
        }
    }
}
