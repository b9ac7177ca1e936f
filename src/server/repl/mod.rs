//! Replication as the server drives it: the link to the primary, the replicas, the snapshots between them.

pub mod follow;
pub mod hooks;
pub mod load;
pub mod serve;
pub mod snapshot;
