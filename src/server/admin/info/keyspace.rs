//! INFO keyspace.

use super::Facts;
use super::row::{Figure, Sampled, lines, samples};
use crate::admin::figure::Value;
use crate::keyspace::Db;

pub(super) static ROWS: &[Figure] = &[
    lines(|f, line| {
        for (i, db) in f.srv.ks.dbs.iter().enumerate().filter(|(_, db)| db.shown_len() > 0) {
            let (keys, expires, ttl) = (db.shown_len(), db.shown_expires_len(), db.avg_ttl_ms);
            line(&format!("db{i}"), Value::text(format_args!("keys={keys},expires={expires},avg_ttl={ttl}")));
        }
    }),
    samples(|f, sample| each(f, sample, |db| db.shown_len() as f64)).gauge("redis_db_keys", "Keys by database."),
    samples(|f, sample| each(f, sample, |db| db.shown_expires_len() as f64))
        .gauge("redis_db_keys_expiring", "Keys with a time to live, by database."),
    samples(|f, sample| each(f, sample, |db| db.avg_ttl_ms as f64 / 1e3))
        .gauge("redis_db_avg_ttl_seconds", "The mean time to live, by database."),
];

fn each(f: &Facts<'_>, sample: &mut Sampled<'_>, value: fn(&Db) -> f64) {
    for (i, db) in f.srv.ks.dbs.iter().enumerate() {
        sample(&[("db", &format!("db{i}"))], value(db));
    }
}
