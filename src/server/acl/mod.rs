//! Whether users may do what they ask, and where users are read from.

pub(crate) mod check;
pub(crate) mod file;
