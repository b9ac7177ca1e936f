//! INFO errorstats: error replies by their code.

use super::row::{Figure, lines, samples};
use super::safe;
use crate::admin::figure::Value;

pub(super) static ROWS: &[Figure] = &[
    lines(|f, line| {
        for (code, count) in &f.srv.stats.errors {
            line(&format!("errorstat_{}", safe(code)), Value::text(format_args!("count={count}")));
        }
    }),
    samples(|f, sample| {
        f.srv.stats.errors.iter().for_each(|(code, count)| sample(&[("err", &safe(code))], *count as f64));
    })
    .counter("redis_errors_total", "Error replies by their code."),
];
