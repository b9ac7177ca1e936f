//! Replication as the server drives it: the link to the primary, the replicas, the snapshots between them.

pub(crate) mod follow;
pub(crate) mod hooks;
pub(crate) mod load;
pub(crate) mod serve;
pub(crate) mod snapshot;
