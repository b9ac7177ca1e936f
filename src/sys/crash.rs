//! The report of a crash in the log, for signals that mean a fault and for panics, which are broken invariants.
//!
//! A report is made in a process that can no longer be trusted, so nothing that follows depends on it: the process ends
//! with the signal that hit it, and if making the report hangs, with SIGALRM.
#![allow(unsafe_code)]

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::config::REDIS_VERSION;

const FAULTS: [Signal; 5] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGABRT];

/// Finding the names of functions takes far more stack than the system's default for handlers.
const HANDLER_STACK_BYTES: usize = 512 << 10;

/// A report that takes longer is given up.
const REPORT_LIMIT_SECONDS: u32 = 20;

static REPORTED: AtomicBool = AtomicBool::new(false);
static IS_ON: AtomicBool = AtomicBool::new(false);
static PREPARED: Once = Once::new();

/// Turns reports on or off (`crash-log-enabled`). To be called by the main thread.
pub fn set_report(on: bool) {
    IS_ON.store(on, Ordering::Relaxed);
    if on {
        PREPARED.call_once(|| {
            use_own_stack();
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                if IS_ON.load(Ordering::Relaxed) { report_panic(info) } else { usual(info) }
            }));
        });
    }
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_NODEFER | SaFlags::SA_RESETHAND | SaFlags::SA_ONSTACK;
    let action = match on {
        true => SigAction::new(SigHandler::SigAction(on_fault), flags, SigSet::empty()),
        false => SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty()),
    };
    for signal in FAULTS {
        // SAFETY: the handler runs in a process that is about to end, see there.
        let _ = unsafe { sigaction(signal, &action) };
    }
}

/// Crashes on purpose: DEBUG SEGFAULT.
pub fn segfault() -> ! {
    // SAFETY: this is not sound, which is what it is for: the write faults, and abort follows if it did not.
    unsafe { ptr::without_provenance_mut::<u8>(0x40).write_volatile(b'x') };
    std::process::abort()
}

/// Gives handlers of this thread a stack of their own, as the usual one may be what ran out.
fn use_own_stack() {
    let memory = Box::leak(vec![0u8; HANDLER_STACK_BYTES].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory is never freed and used for nothing else.
    unsafe { libc::sigaltstack(&stack, ptr::null_mut()) };
}

/// Reports and lets the signal end the process, its handler being the default one by now (SA_RESETHAND).
///
/// Logging and naming functions allocate, which a handler must not do: if the allocator was hit, this hangs. Without it
/// there would be no report either, and the alarm ends the process.
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: alarm is async-signal-safe.
    unsafe { libc::alarm(REPORT_LIMIT_SECONDS) };
    if !REPORTED.swap(true, Ordering::Relaxed) {
        begin();
        // SAFETY: the kernel passes a valid siginfo_t, and the fields read are those that exist for the signal: an
        // address for a fault, a sender for a code of 0 or below.
        unsafe {
            if let Some(info) = info.as_ref() {
                log::warn!("Redis {REDIS_VERSION} crashed by signal: {signal}, si_code: {}", info.si_code);
                if info.si_code <= 0 {
                    log::warn!("Killed by PID: {}, UID: {}", info.si_pid(), info.si_uid());
                } else if signal == libc::SIGSEGV || signal == libc::SIGBUS {
                    log::warn!("Accessing address: {:p}", info.si_addr());
                }
            }
        }
        end(&Backtrace::force_capture());
    }
    // SAFETY: the handler was reset, so this ends the process; raise is async-signal-safe.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

fn report_panic(info: &PanicHookInfo<'_>) {
    if REPORTED.swap(true, Ordering::Relaxed) {
        return;
    }
    let payload = info.payload();
    let reason = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    begin();
    log::warn!("=== ASSERTION FAILED ===");
    log::warn!("==> {place} '{}' is not true", reason.unwrap_or("panic"));
    end(&Backtrace::force_capture());
    // Where panics unwind, a thread's panic would otherwise go by unseen.
    std::process::abort()
}

fn begin() {
    super::log::raw(log::Level::Warn, b"\n\n=== REDIS BUG REPORT START: Cut & paste starting from here ===\n");
}

fn end(trace: &Backtrace) {
    let text = format!(
        "\n------ STACK TRACE ------\n{trace}\n\n=== REDIS BUG REPORT END. Make sure to include from START to END. ===\n\n\
         This is Hexad {}, which is compatible with Redis {REDIS_VERSION} but another program: report the crash to Hexad.\n",
        env!("CARGO_PKG_VERSION")
    );
    super::log::raw(log::Level::Warn, text.as_bytes());
}
