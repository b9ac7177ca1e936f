//! What commands do with data, one server at a time. See `CONTRIBUTING.md` for how to run one file.

#[path = "../common/mod.rs"]
mod common;

#[path = "../advisories.rs"]
mod advisories;
#[path = "../collections.rs"]
mod collections;
#[path = "../commands.rs"]
mod commands;
#[path = "../differential.rs"]
mod differential;
#[path = "../keyspace.rs"]
mod keyspace;
#[path = "../lists.rs"]
mod lists;
#[path = "../pubsub_acl.rs"]
mod pubsub_acl;
#[path = "../script_limits.rs"]
mod script_limits;
#[path = "../scripting.rs"]
mod scripting;
#[path = "../seldom.rs"]
mod seldom;
#[path = "../sorted_sets.rs"]
mod sorted_sets;
#[path = "../sorting.rs"]
mod sorting;
#[path = "../streams.rs"]
mod streams;
#[path = "../strings.rs"]
mod strings;
#[path = "../tracking.rs"]
mod tracking;
