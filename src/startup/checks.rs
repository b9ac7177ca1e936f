//! Settings of the system that are known to make trouble: warned about at start-up, listed by `--check-system`.

use crate::config::Config;
use crate::sys::process;
use std::fs;
use std::time::{Duration, Instant};

/// How a check came out.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    Good,
    /// What is wrong and what can be done about it.
    Bad(String),
    /// The system does not say.
    Skipped,
}

const CLOCK_SOURCE: &str = "/sys/devices/system/clocksource/clocksource0";

/// Logs what is wrong with the system.
pub fn warn_about_system(config: &Config) {
    if let Finding::Bad(reason) = overcommit() {
        log::warn!("WARNING {reason}");
    }
    if let Finding::Bad(reason) = huge_pages()
        && !(config.disable_thp && process::disable_huge_pages())
    {
        log::warn!("WARNING {reason}");
    }
    if let Finding::Bad(reason) = xen_clock() {
        log::warn!("WARNING {reason}");
    }
}

/// Logs that the kernel cuts the listen backlog short, if it does.
pub fn warn_about_backlog(backlog: i32) {
    let Some(limit) = first_line("/proc/sys/net/core/somaxconn").and_then(|l| l.parse::<i32>().ok()) else { return };
    if limit > 0 && limit < backlog {
        log::warn!(
            "WARNING: The TCP backlog setting of {backlog} cannot be enforced because /proc/sys/net/core/somaxconn is set \
             to the lower value of {limit}."
        );
    }
}

/// `--check-system`: prints every check; gives the exit code.
pub fn check_system() -> i32 {
    let mut code = 0;
    for (name, check) in [
        ("slow-clocksource", clock as fn() -> Finding),
        ("xen-clocksource", xen_clock),
        ("overcommit", overcommit),
        ("THP", huge_pages),
    ] {
        print!("[{name}]...");
        match check() {
            Finding::Good => println!("OK"),
            Finding::Skipped => println!("skipped"),
            Finding::Bad(reason) => {
                println!("WARNING:\n{reason}\n");
                code = 1;
            }
        }
    }
    code
}

fn first_line(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.lines().next().unwrap_or("").trim().to_string())
}

fn overcommit() -> Finding {
    match first_line("/proc/sys/vm/overcommit_memory").as_deref() {
        None => Finding::Skipped,
        Some("1") => Finding::Good,
        Some(_) => Finding::Bad(
            "Memory overcommit must be enabled! As it is, the fork of a background save or of a replication can be refused \
             when memory is low. Set it with 'sysctl vm.overcommit_memory=1', and for later boots with \
             'vm.overcommit_memory = 1' in /etc/sysctl.conf."
                .into(),
        ),
    }
}

fn huge_pages() -> Finding {
    match first_line("/sys/kernel/mm/transparent_hugepage/enabled") {
        None => Finding::Skipped,
        Some(line) if !line.contains("[always]") => Finding::Good,
        Some(_) => Finding::Bad(
            "You have Transparent Huge Pages (THP) support enabled in your kernel. After a fork, each small write copies a \
             huge page, which costs latency and memory. Turn it off with 'echo madvise > \
             /sys/kernel/mm/transparent_hugepage/enabled' as root, keep that over reboots (in /etc/rc.local for instance), \
             and restart the server."
                .into(),
        ),
    }
}

fn xen_clock() -> Finding {
    match first_line(&format!("{CLOCK_SOURCE}/current_clocksource")).as_deref() {
        None => Finding::Skipped,
        Some("xen") => Finding::Bad(
            "Your system is configured to use the 'xen' clocksource, which may be slow. 'redis-server --check-system' \
             measures it (slow-clocksource)."
                .into(),
        ),
        Some(_) => Finding::Good,
    }
}

/// Reading the clock should not enter the kernel: reads it for a while and looks where the time went.
fn clock() -> Finding {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let Ok(before) = getrusage(UsageWho::RUSAGE_SELF) else { return Finding::Skipped };
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(50) {}
    let Ok(after) = getrusage(UsageWho::RUSAGE_SELF) else { return Finding::Skipped };
    let system = (after.system_time() - before.system_time()).num_microseconds();
    let user = (after.user_time() - before.user_time()).num_microseconds();
    if system * 10 <= system + user {
        return Finding::Good;
    }
    let read = |name: &str| first_line(&format!("{CLOCK_SOURCE}/{name}")).unwrap_or_default();
    Finding::Bad(format!(
        "Slow system clocksource detected: reading it enters the kernel. Current clocksource: {}. Available clocksources: \
         {}. For example, 'echo tsc > {CLOCK_SOURCE}/current_clocksource' as root selects another, and the 'clocksource=' \
         parameter of the kernel does so for good.",
        read("current_clocksource"),
        read("available_clocksource"),
    ))
}
