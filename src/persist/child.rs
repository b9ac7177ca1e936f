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
    pid: Pid,
    kind: ChildKind,
    pipe: File,
    /// What came of a report that is not whole yet.
    partial: Vec<u8>,
}

impl Child {
    /// `pipe`: what it reports through.
    pub(crate) fn new(pid: Pid, kind: ChildKind, pipe: File) -> Child {
        Child { pid, kind, pipe, partial: Vec::new() }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn kind(&self) -> ChildKind {
        self.kind
    }

    pub(crate) fn pipe(&mut self) -> &mut File {
        &mut self.pipe
    }

    /// Bytes came through the pipe.
    pub(crate) fn take_reports(&mut self, bytes: &[u8], stats: &mut ChildStats) {
        self.partial.extend_from_slice(bytes);
        let (reports, rest) = self.partial.as_chunks::<REPORT_LEN>();
        for report in reports {
            stats.take(report, self.kind);
        }
        self.partial = rest.to_vec();
    }
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
const REPORT_LEN: usize = 24;

impl ChildStats {
    /// A child was forked, which took so long; it has so many keys to write.
    pub(crate) fn forked(&mut self, fork_us: u64, keys_total: u64) {
        self.total_forks += 1;
        self.latest_fork_us = fork_us;
        self.cow_peak = 0;
        self.gone();
        self.keys_total = keys_total;
    }

    /// There is no child any more.
    pub(crate) fn gone(&mut self) {
        self.cow_bytes = 0;
        self.cow_at = None;
        self.keys_processed = 0;
        self.keys_total = 0;
    }

    fn take(&mut self, report: &[u8; REPORT_LEN], kind: ChildKind) {
        let number = |at: usize| report[at..at + 8].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
        let (keys, cow) = (number(8), number(16));
        self.cow_peak = self.cow_peak.max(cow);
        match (report[0], kind) {
            (0, _) => {
                self.cow_bytes = cow;
                self.cow_at = Some(Instant::now());
                self.keys_processed = keys;
            }
            (_, ChildKind::Aof) => self.aof_last_cow_bytes = self.cow_peak,
            (_, ChildKind::RdbDisk | ChildKind::RdbSocket) => self.rdb_last_cow_bytes = self.cow_peak,
        }
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn report(kind: u8, keys: u64, cow: u64) -> Vec<u8> {
        [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &keys.to_le_bytes(), &cow.to_le_bytes()].concat()
    }

    #[test]
    fn reports_come_in_pieces_of_any_size() {
        let bytes = [report(0, 1000, 70), report(0, 2000, 50), report(1, 0, 60)].concat();
        for size in 1..bytes.len() {
            let pipe = File::open("/dev/null").unwrap();
            let mut child = Child::new(Pid::from_raw(1), ChildKind::Aof, pipe);
            let mut stats = ChildStats::default();
            stats.forked(7, 5000);
            bytes.chunks(size).for_each(|piece| child.take_reports(piece, &mut stats));
            assert_eq!((stats.keys_processed, stats.cow_bytes, stats.cow_peak), (2000, 50, 70));
            assert_eq!((stats.aof_last_cow_bytes, stats.rdb_last_cow_bytes), (70, 0));
            stats.gone();
            assert_eq!((stats.keys_processed, stats.keys_total, stats.total_forks), (0, 0, 1));
            assert_eq!((stats.cow_bytes, stats.cow_at, stats.latest_fork_us), (0, None, 7));
        }
    }
}
