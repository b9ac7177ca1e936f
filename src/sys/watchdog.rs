//! The software watchdog (`watchdog-period`): when a turn of the loop takes too long, a signal handler notes where it
//! is.
//!
//! The handler only notes return addresses and writes them to the log; the loop, once it goes on, adds their names. If
//! it never does, the addresses in the log can be given to addr2line.
#![allow(unsafe_code)]

use super::log::from_signal_handler;
use super::symbols::Symbols;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io::Write;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

const MAX_FRAMES: usize = 64;

static FRAMES: [AtomicUsize; MAX_FRAMES] = [const { AtomicUsize::new(0) }; MAX_FRAMES];
/// Frames noted and not yet named.
static COUNT: AtomicUsize = AtomicUsize::new(0);
/// Read when the watchdog is turned on, as that takes long.
static SYMBOLS: OnceLock<Symbols> = OnceLock::new();

unsafe extern "C" {
    /// Of glibc: fills in return addresses, at most `size`, and returns their number.
    fn backtrace(buffer: *mut *mut libc::c_void, size: libc::c_int) -> libc::c_int;
}

fn note_frames() -> usize {
    let mut buffer = [ptr::null_mut(); MAX_FRAMES];
    // SAFETY: the buffer has room for so many.
    let count = unsafe { backtrace(buffer.as_mut_ptr(), MAX_FRAMES as libc::c_int) }.max(0) as usize;
    for (slot, address) in FRAMES.iter().zip(&buffer[..count]) {
        slot.store(address.addr(), Ordering::Relaxed);
    }
    count
}

extern "C" fn on_alarm(_signal: libc::c_int) {
    from_signal_handler(log::Level::Warn, b"--- WATCHDOG TIMER EXPIRED ---");
    let count = note_frames();
    let mut line = [0u8; 32];
    for frame in FRAMES.iter().take(count) {
        let mut rest = &mut line[..];
        // Formatting a number into a fixed buffer neither allocates nor locks.
        let _ = write!(rest, "{:#x}", frame.load(Ordering::Relaxed));
        let len = 32 - rest.len();
        from_signal_handler(log::Level::Warn, &line[..len]);
    }
    from_signal_handler(log::Level::Warn, b"--------");
    COUNT.store(count, Ordering::Release);
}

/// Sets the watchdog to go off after so many milliseconds, unless it is set again before; 0 turns it off.
pub(crate) fn set(after_ms: i64) {
    if after_ms > 0 {
        // The first call loads the unwinder, which a handler must not do.
        note_frames();
        SYMBOLS.get_or_init(Symbols::of_this_program);
        let action = SigAction::new(SigHandler::Handler(on_alarm), SaFlags::SA_RESTART, SigSet::empty());
        // SAFETY: the handler does only what is allowed in one.
        let _ = unsafe { sigaction(Signal::SIGALRM, &action) };
    }
    schedule(after_ms);
    if after_ms == 0 {
        let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
        // SAFETY: ignoring a signal runs nothing.
        let _ = unsafe { sigaction(Signal::SIGALRM, &ignore) };
    }
}

/// Restarts the watchdog's timer. Called by each cron.
pub(crate) fn schedule(after_ms: i64) {
    let none = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let value = libc::timeval { tv_sec: after_ms / 1000, tv_usec: after_ms % 1000 * 1000 };
    let timer = libc::itimerval { it_interval: none, it_value: value };
    // SAFETY: the timer is a valid value, and the old one is not asked for.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) };
}

/// If the watchdog has gone off, logs where the loop was then.
pub(crate) fn report() {
    let count = COUNT.swap(0, Ordering::Acquire);
    if count == 0 {
        return;
    }
    let frames: Vec<usize> = FRAMES.iter().take(count).map(|frame| frame.load(Ordering::Relaxed)).collect();
    let symbols = SYMBOLS.get_or_init(Symbols::of_this_program);
    log::warn!("------ STACK TRACE ------ (when the watchdog timer expired)");
    for address in frames {
        match symbols.name(address) {
            Some((name, offset)) => log::warn!("{address:#x} {name}+{offset:#x}"),
            None => log::warn!("{address:#x}"),
        }
    }
}
