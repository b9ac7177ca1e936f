//! Saving, loading and the log as the server drives them: children, files, syncs, and what waits for them.

pub mod aof;
pub mod child;
pub mod gate;
pub mod info;
pub mod load;
pub mod rdb_save;
pub mod snapshot;
