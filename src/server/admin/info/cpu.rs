//! INFO cpu: time spent by the process, its children and the main thread, in seconds.

use super::Facts;
use super::row::{Figure, field};
use crate::admin::figure::Value;
use nix::sys::resource::Usage;
use nix::sys::time::TimeVal;

pub(super) static ROWS: &[Figure] = &[
    field("used_cpu_sys", |f| time(f, 0, Usage::system_time))
        .counter("redis_cpu_sys_seconds_total", "Time of the process in the kernel."),
    field("used_cpu_user", |f| time(f, 0, Usage::user_time))
        .counter("redis_cpu_user_seconds_total", "Time of the process outside the kernel."),
    field("used_cpu_sys_children", |f| time(f, 1, Usage::system_time))
        .counter("redis_cpu_sys_children_seconds_total", "Time of children that have ended, in the kernel."),
    field("used_cpu_user_children", |f| time(f, 1, Usage::user_time))
        .counter("redis_cpu_user_children_seconds_total", "Time of children that have ended, outside the kernel."),
    field("used_cpu_sys_main_thread", |f| time(f, 2, Usage::system_time))
        .counter("redis_cpu_sys_main_thread_seconds_total", "Time of the main thread in the kernel."),
    field("used_cpu_user_main_thread", |f| time(f, 2, Usage::user_time))
        .counter("redis_cpu_user_main_thread_seconds_total", "Time of the main thread outside the kernel."),
];

fn time(f: &Facts<'_>, whose: usize, of: fn(&Usage) -> TimeVal) -> Value {
    f.usage(whose).map_or(Value::Absent, |usage| {
        let time = of(usage);
        Value::Micros(time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64)
    })
}
