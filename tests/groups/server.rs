//! The server itself: its connections, files, replicas, ports and settings. See `CONTRIBUTING.md` for how to run one file.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/tls.rs"]
mod common_tls;
#[path = "../common/openmetrics.rs"]
mod openmetrics;

#[path = "../admin_port.rs"]
mod admin_port;
#[path = "../configuration.rs"]
mod configuration;
#[path = "../connections.rs"]
mod connections;
#[path = "../doctor.rs"]
mod doctor;
#[path = "../io_threads.rs"]
mod io_threads;
#[path = "../moving_keys.rs"]
mod moving_keys;
#[path = "../persistence.rs"]
mod persistence;
#[path = "../replication.rs"]
mod replication;
#[path = "../server.rs"]
mod server;
#[path = "../tls.rs"]
mod tls;
