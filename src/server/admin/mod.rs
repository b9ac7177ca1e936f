//! What operators see and do of the whole server: INFO, MONITOR, listings of clients, the slow log, the shutdown.

pub mod after_call;
pub mod client_line;
pub mod client_memory;
pub mod config;
pub mod crash;
pub mod debug;
pub mod doctor;
pub mod info;
pub mod memory;
pub mod monitor;
pub mod rates;
pub mod shutdown;
pub(crate) mod tls;
