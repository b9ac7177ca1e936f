//! INFO debug: where the time of the loop goes.

use super::row::{Figure, field};

pub(super) static ROWS: &[Figure] = &[
    field("eventloop_duration_aof_sum", |f| f.srv.admin.metrics.aof_us.into())
        .counter(
            "hexad_loop_aof_seconds_total",
            "Time of the loop spent on writing the log, with what it waited for the disk.",
        )
        .in_units_of(1e-6),
    field("eventloop_duration_cron_sum", |f| f.srv.admin.metrics.cron_us.into())
        .counter("hexad_loop_cron_seconds_total", "Time of the loop spent on periodic work.")
        .in_units_of(1e-6),
    field("eventloop_duration_max", |f| f.srv.admin.metrics.longest_cycle_us.into()),
    field("eventloop_cmd_per_cycle_max", |f| f.srv.admin.metrics.most_commands.into())
        .gauge("hexad_loop_turn_commands_max", "The most commands in one turn of the loop."),
];
