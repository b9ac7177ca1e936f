//! Settings of the system that make a server slow or unsafe: warnings at start, and `--check-system`.

use super::process;
use std::fs;

const OVERCOMMIT: &str = "Memory overcommit must be enabled! Without it a background save or a replica's first copy can fail \
     when memory is low, as a child process shares the memory of the server. Set it with 'sysctl vm.overcommit_memory=1', \
     and in /etc/sysctl.conf to keep it.";
const HUGE_PAGES: &str = "You have Transparent Huge Pages (THP) support enabled in your kernel. Writing while a child process \
     saves then copies two megabytes at a time. Set it with 'echo madvise > /sys/kernel/mm/transparent_hugepage/enabled', at \
     every start of the system to keep it, and restart the server.";

/// A check: its name, and a function that returns what is wrong; `None`: it cannot tell.
type Check = (&'static str, fn() -> Option<Result<(), String>>);

const CHECKS: [Check; 3] = [("slow-clocksource", clock_source), ("overcommit", overcommit_check), ("THP", huge_pages)];

/// Logs a warning about overcommit, and one about huge pages unless `disable_thp` turns them off for this process.
pub(crate) fn warn(disable_thp: bool) {
    if let Some(Err(reason)) = overcommit_check() {
        log::warn!("WARNING {reason}");
    }
    if let Some(Err(reason)) = huge_pages()
        && !(disable_thp && process::disable_huge_pages())
    {
        log::warn!("WARNING {reason}");
    }
}

/// Logs a warning if the system's limit of waiting connections is below `tcp_backlog`.
pub(crate) fn warn_of_backlog(tcp_backlog: i32) {
    let limit: Option<i32> = read("/proc/sys/net/core/somaxconn").and_then(|text| text.parse().ok());
    if let Some(limit @ 1..) = limit
        && limit < tcp_backlog
    {
        log::warn!(
            "WARNING: The TCP backlog setting of {tcp_backlog} cannot be enforced because /proc/sys/net/core/somaxconn is \
             set to the lower value of {limit}."
        );
    }
}

/// Prints the result of every check. True: nothing is wrong.
pub(crate) fn print() -> bool {
    let mut is_good = true;
    for (name, check) in CHECKS {
        match check() {
            None => println!("[{name}]...skipped"),
            Some(Ok(())) => println!("[{name}]...OK"),
            Some(Err(reason)) => {
                println!("[{name}]...WARNING:\n{reason}");
                is_good = false;
            }
        }
    }
    is_good
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Whether the system lends memory that it may not have; `None`: it does not say.
pub(crate) fn overcommit() -> Option<bool> {
    Some(read("/proc/sys/vm/overcommit_memory")? == "1")
}

fn overcommit_check() -> Option<Result<(), String>> {
    Some(if overcommit()? { Ok(()) } else { Err(OVERCOMMIT.into()) })
}

fn huge_pages() -> Option<Result<(), String>> {
    let mode = read("/sys/kernel/mm/transparent_hugepage/enabled")?;
    Some(if mode.contains("[always]") { Err(HUGE_PAGES.into()) } else { Ok(()) })
}

/// Checks that the clock source can be read without a system call.
fn clock_source() -> Option<Result<(), String>> {
    let dir = "/sys/devices/system/clocksource/clocksource0";
    let current = read(&format!("{dir}/current_clocksource"))?;
    if matches!(current.as_str(), "tsc" | "kvm-clock" | "hyperv_clocksource_tsc_page" | "arch_sys_counter") {
        return Some(Ok(()));
    }
    let available = read(&format!("{dir}/available_clocksource")).unwrap_or_default();
    Some(Err(format!(
        "Slow system clocksource detected. Each look at the clock is a system call with it. Current clocksource: {current}. \
         Available clocksources: {available}. Set another with 'echo tsc > {dir}/current_clocksource', and with the kernel's \
         parameter 'clocksource=' to keep it."
    )))
}
