//! The operating system: clock, signals, background threads, host names, the allocator, the log sink.

pub mod alloc;
pub mod background;
pub mod clock;
pub mod crash;
pub mod fork;
pub mod log;
pub mod process;
pub mod reserve;
pub mod resolve;
pub mod service;
pub mod signals;
pub mod symbols;
pub mod system_check;
pub mod terminal;
pub mod watchdog;
