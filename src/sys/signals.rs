//! Signals that ask the server to stop, as flags that the loop checks.
#![allow(unsafe_code)]

use super::log::from_signal_handler;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// The signal that asked for a stop; kept until the stop is called off.
static STOP: AtomicI32 = AtomicI32::new(0);
static LOADING: AtomicBool = AtomicBool::new(false);

extern "C" fn on_stop(signal: libc::c_int) {
    if signal == libc::SIGINT && STOP.load(Ordering::Relaxed) != 0 {
        // A second Ctrl-C at a terminal: gives up a save that may be under way.
        from_signal_handler(log::Level::Warn, b"You insist... exiting now.");
        remove_temp_snapshot();
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(1) }
    }
    let text: &[u8] = if LOADING.load(Ordering::Relaxed) {
        b"Received shutdown signal during loading, scheduling shutdown."
    } else if signal == libc::SIGINT {
        b"Received SIGINT scheduling shutdown..."
    } else {
        b"Received SIGTERM scheduling shutdown..."
    };
    from_signal_handler(log::Level::Warn, text);
    STOP.store(signal, Ordering::Relaxed);
}

/// Removes the unfinished snapshot of this process from the working directory, if any.
fn remove_temp_snapshot() {
    let mut name = [0u8; 40];
    // Formatting an integer into a fixed buffer neither allocates nor locks.
    if write!(&mut name[..39], "temp-{}.rdb", std::process::id()).is_ok() {
        // SAFETY: unlink is async-signal-safe; the buffer ends with zeros.
        unsafe { libc::unlink(name.as_ptr().cast()) };
    }
}

/// Installs the handlers for SIGTERM and SIGINT and ignores SIGHUP and SIGPIPE.
pub(crate) fn install() -> nix::Result<()> {
    let stop = SigAction::new(SigHandler::Handler(on_stop), SaFlags::empty(), SigSet::empty());
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does only what is allowed in a signal handler.
    unsafe {
        sigaction(Signal::SIGTERM, &stop)?;
        sigaction(Signal::SIGINT, &stop)?;
        sigaction(Signal::SIGHUP, &ignore)?;
        sigaction(Signal::SIGPIPE, &ignore)?;
    }
    Ok(())
}

/// Ignores the signals that ask to stop: for a child that is not to end with its parent.
pub(crate) fn ignore_stop() {
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    // SAFETY: ignoring a signal runs no code.
    let _ = unsafe { sigaction(Signal::SIGTERM, &ignore).and_then(|_| sigaction(Signal::SIGINT, &ignore)) };
}

/// The signal that asked for a stop, if any.
pub(crate) fn stop_requested() -> Option<i32> {
    match STOP.load(Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}

/// Calls off the stop that a signal asked for.
pub(crate) fn forget_stop() {
    STOP.store(0, Ordering::Relaxed);
}

/// Says whether the data set is being loaded, for the line a signal logs.
pub(crate) fn set_loading(loading: bool) {
    LOADING.store(loading, Ordering::Relaxed);
}
