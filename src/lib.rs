//! Hexad: a drop-in Redis server and Redis Cluster. The way of a request: `net` reads bytes, `resp` finds the arguments in
//! place, `server` admits and calls, a function in `commands` works on the `keyspace` and writes its reply, and what
//! changed is propagated to `persist` and `repl` before replies leave. Which room may use which is in `docs/ARCHITECTURE.md`.

mod acl;
mod admin;
pub mod bench;
pub mod catalog;
pub mod cli;
mod cluster;
mod commands;
mod config;
mod keyspace;
pub mod manual;
mod net;
mod persist;
mod pubsub;
mod repl;
pub mod resp;
mod script;
pub mod server;
pub mod structs;
mod sys;
mod tracking;
