//! The room `structs` by itself; see `Cargo.toml` beside this file.

// What the rest of the server uses of it is not used here.
#![allow(dead_code, unused_imports)]

#[path = "../../src/structs/mod.rs"]
mod structs;
