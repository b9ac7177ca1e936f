//! Whether users may do what they ask, and where users are read from.

pub mod check;
pub mod file;
