//! INFO debug: where the time of the loop goes.

use super::InfoText;
use crate::server::Server;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    let m = &srv.admin.metrics;
    out.field("eventloop_duration_aof_sum", m.aof_us);
    out.field("eventloop_duration_cron_sum", m.cron_us);
    out.field("eventloop_duration_max", m.longest_cycle_us);
    out.field("eventloop_cmd_per_cycle_max", m.most_commands);
}
