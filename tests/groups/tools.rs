//! What people install, run and read, and how the sources are laid out. See `CONTRIBUTING.md` for how to run one file.

#[path = "../common/mod.rs"]
mod common;

#[path = "../container.rs"]
mod container;
#[path = "../documents.rs"]
mod documents;
#[path = "../layout.rs"]
mod layout;
#[path = "../packaging.rs"]
mod packaging;
#[path = "../prompt.rs"]
mod prompt;
#[path = "../tools.rs"]
mod tools;
