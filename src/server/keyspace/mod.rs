//! What the loop does for the keyspace.

pub(crate) mod cron;
