//! The operating system: what of it needs unsafe code or a platform's own interface.

pub mod log;
