//! Hexad: a drop-in Redis server and Redis Cluster. The way of a request: `net` reads bytes, `resp` finds the arguments in
//! place, `server` admits and calls, a function in `commands` works on the `keyspace` and writes its reply, and what
//! changed is propagated to `persist` and `repl` before replies leave. Which room may use which is in `docs/ARCHITECTURE.md`.

pub mod acl;
pub mod admin;
pub mod bench;
pub mod catalog;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod keyspace;
pub mod net;
pub mod persist;
pub mod pubsub;
pub mod repl;
pub mod resp;
pub mod script;
pub mod server;
pub mod structs;
pub mod sys;
pub mod tracking;
