//! The cluster bus as the server drives it: links, timers, what the state machine wants done, and what clients ask of it.

pub(crate) mod bus;
pub(crate) mod clients;
mod codes;
pub(crate) mod durable;
mod nodes_conf;
mod seeds;
pub(crate) mod slot_memory;
pub(crate) mod slot_meter;
pub(crate) mod slot_migration;
