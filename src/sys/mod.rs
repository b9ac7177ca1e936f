//! The operating system: clock, signals, background threads, the allocator, the log sink.

pub mod alloc;
pub mod background;
pub mod clock;
pub mod crash;
pub mod log;
pub mod process;
pub mod signals;
