//! The operating system: clock, signals, background threads, host names, the allocator, the log sink.

pub mod alloc;
pub mod background;
pub mod build;
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

/// The system's text for an error, as `strerror` gives it.
pub fn os_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
