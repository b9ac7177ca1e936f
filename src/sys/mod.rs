//! The operating system: clock, signals, processes, threads, host names, the allocator, the log sink, crash reports.

pub(crate) mod alloc;
pub(crate) mod background;
pub(crate) mod build;
pub(crate) mod clock;
pub(crate) mod crash;
pub(crate) mod fork;
pub(crate) mod log;
pub(crate) mod process;
pub(crate) mod reserve;
pub(crate) mod resolve;
pub(crate) mod service;
pub(crate) mod signals;
pub(crate) mod symbols;
pub(crate) mod system_check;
pub(crate) mod terminal;
pub(crate) mod watchdog;

/// The system's text for an error, as `strerror` gives it.
pub(crate) fn os_error(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}
