//! INFO cpu: time spent by the process, its children and the main thread, in seconds.

use super::InfoText;
use crate::server::Server;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;

pub(crate) fn write(_: &Server, out: &mut InfoText) {
    for (suffix, who) in [
        ("", UsageWho::RUSAGE_SELF),
        ("_children", UsageWho::RUSAGE_CHILDREN),
        ("_main_thread", UsageWho::RUSAGE_THREAD),
    ] {
        if let Ok(usage) = getrusage(who) {
            out.field(&format!("used_cpu_sys{suffix}"), seconds(usage.system_time()));
            out.field(&format!("used_cpu_user{suffix}"), seconds(usage.user_time()));
        }
    }
}

fn seconds(time: TimeVal) -> String {
    format!("{}.{:06}", time.tv_sec(), time.tv_usec())
}
