//! What the loop does for the keyspace.

pub mod cron;
