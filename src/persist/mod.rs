//! Persistence: what the data set looks like on disk, and how it gets there and back.
//!
//! `rdb` is the snapshot format (also the payload of DUMP, of full synchronisation and of an AOF base file), `aof` the
//! append-only log and its manifest. `snapshot` and `as_commands` say how values are written, `loading` and `feed` take
//! them back; `saves`, `gate` and `child` decide when something is written, who waits for it, and what the process that does
//! it reports. `check_aof` and `check_rdb` are the two offline checkers.
//!
//! Invariant: nothing read from disk or from a socket can panic the process; damage is a typed error with an offset.

pub(crate) mod aof;
pub(crate) mod as_commands;
pub(crate) mod check_aof;
pub(crate) mod check_rdb;
pub(crate) mod child;
pub(crate) mod feed;
#[cfg(test)]
mod fuzz;
pub(crate) mod gate;
pub(crate) mod gather;
pub(crate) mod load;
pub(crate) mod loading;
pub(crate) mod rdb;
pub(crate) mod saves;
pub(crate) mod snapshot;
pub(crate) mod state;

pub(crate) use state::Persist;

/// Something failed, and the log says what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Logged;
