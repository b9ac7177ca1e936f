//! Persistence: what the data set looks like on disk, and how it gets there and back.
//!
//! `rdb` is the snapshot format (also the payload of DUMP, of full synchronisation and of an AOF base file), `aof` the
//! append-only log and its manifest, `snapshot` and `rdb_save` take the data set there, `loading` and `feed` back, `child` is the
//! process that does so in the background; `check_aof` and `check_rdb` are the two offline checkers.
//!
//! Invariant: nothing read from disk or from a socket can panic the process; damage is a typed error with an offset.

pub mod aof;
pub mod check_aof;
pub mod check_rdb;
pub mod child;
pub(crate) mod feed;
pub mod gate;
pub mod gather;
pub mod load;
pub(crate) mod loading;
pub mod rdb;
pub(crate) mod saves;
pub mod snapshot;
pub mod state;
pub mod stream_commands;

pub use state::Persist;

/// Something failed, and the log says what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logged;
