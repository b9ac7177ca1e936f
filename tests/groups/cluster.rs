//! Several nodes as one cluster. See `CONTRIBUTING.md` for how to run one file.

#[path = "../common/mod.rs"]
mod common;

#[path = "../cluster.rs"]
mod cluster;
#[path = "../durable.rs"]
mod durable;
#[path = "../forming.rs"]
mod forming;
#[path = "../hand_over.rs"]
mod hand_over;
#[path = "../partition.rs"]
mod partition;
#[path = "../slot_migration.rs"]
mod slot_migration;
#[path = "../slot_stats.rs"]
mod slot_stats;
#[path = "../slot_tasks.rs"]
mod slot_tasks;
#[path = "../tutorial.rs"]
mod tutorial;
