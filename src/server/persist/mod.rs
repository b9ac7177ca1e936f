//! Saving, loading and the log as the server drives them: children, files, syncs, and what waits for them.

pub(crate) mod aof;
pub(crate) mod child;
pub(crate) mod gate;
pub(crate) mod load;
pub(crate) mod rdb_save;
pub(crate) mod snapshot;
