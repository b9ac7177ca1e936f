//! What operators see and do of the whole server: INFO, MONITOR, listings of clients, the slow log, the shutdown.

pub(crate) mod after_call;
pub(crate) mod client_line;
pub(crate) mod client_memory;
pub(crate) mod config;
pub(crate) mod crash;
pub(crate) mod debug;
pub(crate) mod doctor;
pub(crate) mod findings;
mod hand_over;
pub(crate) mod info;
pub(crate) mod memory;
pub(crate) mod monitor;
pub(crate) mod port;
pub(crate) mod rates;
pub(crate) mod shutdown;
pub(crate) mod tls;
