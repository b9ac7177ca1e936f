//! What the figures mean, in words: LATENCY DOCTOR and MEMORY DOCTOR.

use crate::server::Server;
use std::fmt::Write;

/// What can be done about latency.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Advice {
    TurnSlowlogOn,
    TuneSlowlog,
    ReadSlowlog,
    LargeObjects,
    Scheduler,
    BetterMachine,
    DiskContention,
    FasterDisk,
    RelaxFsync,
    NoFsyncOnRewrite,
    RaiseHz,
    MassEviction,
    HugePages,
}

impl Advice {
    /// What to look at after an event of this kind.
    fn for_event(event: &str) -> &'static [Advice] {
        use Advice::*;
        match event {
            "command" => &[TurnSlowlogOn, TuneSlowlog, ReadSlowlog, LargeObjects],
            "fast-command" => &[Scheduler],
            "fork" => &[BetterMachine, HugePages],
            "aof-write-pending-fsync" => &[DiskContention, FasterDisk],
            "aof-write-active-child" => &[NoFsyncOnRewrite, FasterDisk],
            "aof-write" | "aof-write-alone" => &[FasterDisk],
            "aof-fsync-always" => &[RelaxFsync, FasterDisk],
            "aof-fstat" | "rdb-unlink-temp-file" => &[DiskContention],
            "aof-rename" => &[DiskContention, FasterDisk],
            "expire-cycle" | "expire-del" => &[RaiseHz, LargeObjects],
            "eviction-del" | "eviction-lazyfree" | "eviction-cycle" => &[MassEviction, LargeObjects],
            _ => &[],
        }
    }

    /// The advice, unless things are already that way.
    fn text(self, srv: &Server) -> Option<String> {
        let slower_than = srv.cfg.slowlog_log_slower_than;
        let threshold_us = srv.cfg.latency_monitor_threshold * 1000;
        Some(match self {
            Advice::TurnSlowlogOn if slower_than >= 0 => return None,
            Advice::TurnSlowlogOn => {
                "The slow log is off: 'CONFIG SET slowlog-log-slower-than 1000' would show which commands are slow."
                    .into()
            }
            Advice::TuneSlowlog if slower_than <= threshold_us || slower_than < 0 => return None,
            Advice::TuneSlowlog => format!(
                "The slow log leaves out commands that count here: lower it with 'CONFIG SET slowlog-log-slower-than \
                 {threshold_us}'."
            ),
            Advice::ReadSlowlog => "Look for commands that take long with SLOWLOG GET.".into(),
            Advice::LargeObjects => {
                "Deleting, expiring or evicting large values takes long: use UNLINK rather than DEL, set \
                                     the lazyfree-lazy-* directives, or split such values."
                    .into()
            }
            Advice::Scheduler => "Commands that cannot be slow by themselves were: something else took the processor. \
                                  Measure it with 'redis-cli --intrinsic-latency 100' and look for busy neighbours."
                .into(),
            Advice::BetterMachine => {
                "Forks are slow: on some virtual machines they are slower by far than on others or on hardware.".into()
            }
            Advice::DiskContention => "Other processes seem to keep the disk busy: find them, or move them.".into(),
            Advice::FasterDisk => "The disk is slow for what is asked of it: a local SSD may be what it takes.".into(),
            Advice::RelaxFsync if srv.cfg.appendfsync != crate::config::AppendFsync::Always => return None,
            Advice::RelaxFsync => {
                "'appendfsync always' waits for the disk: 'everysec' does not, if losing a second is acceptable.".into()
            }
            Advice::NoFsyncOnRewrite if srv.cfg.no_appendfsync_on_rewrite => return None,
            Advice::NoFsyncOnRewrite => {
                "Syncing the AOF while a child writes is slow: 'no-appendfsync-on-rewrite yes' \
                                         leaves it out, if losing more in a crash is acceptable."
                    .into()
            }
            Advice::RaiseHz if srv.cfg.hz >= 100 => return None,
            Advice::RaiseHz => "Expiring more often and less at a time may help: raise 'hz'.".into(),
            Advice::MassEviction => {
                "Many keys are evicted at once: avoid lowering maxmemory in large steps and bursts of writes.".into()
            }
            Advice::HugePages => "If transparent huge pages are on, turn them off.".into(),
        })
    }
}

impl Server {
    /// LATENCY DOCTOR.
    pub(crate) fn latency_report(&self) -> String {
        let events = &self.admin.latency.events;
        if events.is_empty() {
            return match self.cfg.latency_monitor_threshold {
                0 => "Latency monitoring is off. 'CONFIG SET latency-monitor-threshold <milliseconds>' turns it on.\n"
                    .into(),
                ms => format!("No event has taken {ms} milliseconds or more so far.\n"),
            };
        }
        let now = self.clock.us() / 1_000_000;
        let mut text = String::from("Latency spikes were observed:\n\n");
        let mut advice: Vec<Advice> = Vec::new();
        for (i, (name, series)) in events.iter().enumerate() {
            let s = series.summary(now);
            let _ = writeln!(
                text,
                "{}. {name}: {} latency spikes (average {}ms, mean deviation {}ms, period {:.2} sec). Worst all time event \
                 {}ms.",
                i + 1,
                s.samples,
                s.avg,
                s.mad,
                s.period as f64 / s.samples.max(1) as f64,
                s.all_time_high
            );
            advice.extend(Advice::for_event(name).iter().filter(|a| !advice.contains(a)).collect::<Vec<_>>());
        }
        let lines: Vec<String> = advice.iter().filter_map(|a| a.text(self)).collect();
        if !lines.is_empty() {
            text += "\nWhat may help:\n\n";
            lines.iter().for_each(|line| {
                let _ = writeln!(text, "- {line}");
            });
        }
        text
    }

    /// MEMORY DOCTOR.
    pub(crate) fn memory_report(&self) -> String {
        const MEGABYTE: usize = 1 << 20;
        let o = self.memory_overhead();
        let s = self.memory_samples();
        if o.used < 5 * MEGABYTE {
            return "This instance is empty or almost so: there is nothing to be said about its memory use.\n".into();
        }
        let much_more = |of: usize, than: usize, ratio: f64| {
            of as f64 / than.max(1) as f64 > ratio && of.saturating_sub(than) > 10 * MEGABYTE
        };
        let replicas = self.repl.replica_count();
        let clients = self.clients_but_replicas().max(1);
        let mut found: Vec<&str> = Vec::new();
        if o.peak as f64 / o.used.max(1) as f64 > 1.5 {
            found.push(
                "Peak memory: more than 150% of what is used now has been used before. The allocator keeps much of it for \
                 what comes; MEMORY PURGE or a restart gives it back.",
            );
        }
        if much_more(s.rss, s.used, 1.4) {
            found.push(
                "High total RSS: the process takes up more than 1.4 times what was allocated. That follows a peak, or a \
                 load that fragments memory.",
            );
        }
        if much_more(s.active, s.allocated, 1.1) {
            found.push("High allocator fragmentation: pages of the allocator are far from full.");
        }
        if much_more(s.resident, s.active, 1.1) {
            found.push("High allocator RSS overhead: the allocator holds free pages. MEMORY PURGE gives them back.");
        }
        if much_more(s.rss, s.resident, 1.1) {
            found.push("High process RSS overhead: memory beside the allocator's is large, such as that of scripts.");
        }
        if replicas > 0 && o.replication.replicas / replicas > 10 * MEGABYTE {
            found.push(
                "Big replica buffers: replicas take the stream slower than it grows. INFO replication shows which.",
            );
        }
        if o.clients / clients > 200 * 1024 {
            found.push(
                "Big client buffers: clients take replies slowly or send large requests. CLIENT LIST shows which.",
            );
        }
        if o.scripts.cached_scripts > 1000 {
            found.push(
                "Many scripts: more than 1000 are cached. Scripts that differ only in values should take them as arguments.",
            );
        }
        if found.is_empty() {
            return "Nothing is wrong with the memory use of this instance, as far as its figures tell.\n".into();
        }
        found
            .iter()
            .fold(String::from("The memory use of this instance shows:\n\n"), |text, line| text + " * " + line + "\n\n")
    }
}
