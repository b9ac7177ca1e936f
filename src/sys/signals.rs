//! Signals that ask the server to stop, as flags the loop looks at.
#![allow(unsafe_code)]

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::sync::atomic::{AtomicI32, Ordering};

static STOP: AtomicI32 = AtomicI32::new(0);

extern "C" fn on_stop(signal: libc::c_int) {
    // A second SIGINT means it: the first may hang on a slow save.
    if signal == libc::SIGINT && STOP.load(Ordering::Relaxed) == libc::SIGINT {
        // SAFETY: _exit is async-signal-safe.
        unsafe { libc::_exit(1) }
    }
    STOP.store(signal, Ordering::Relaxed);
}

/// Installs the handlers for SIGTERM and SIGINT and ignores SIGHUP and SIGPIPE.
pub fn install() -> nix::Result<()> {
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

/// The signal that asked for the stop, once.
pub fn take_stop() -> Option<i32> {
    match STOP.swap(0, Ordering::Relaxed) {
        0 => None,
        signal => Some(signal),
    }
}

/// The signal that asked for the stop, left in place.
pub fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed) != 0
}
