//! Redis Cluster.

pub mod slots;
