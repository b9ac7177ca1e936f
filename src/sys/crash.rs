//! The report of a crash in the log, for signals that mean a fault and for panics, which are broken invariants.
//!
//! A report is made in a process that can no longer be trusted, so nothing depends on its success: the process ends
//! with the signal that hit it or, if the report hangs, with SIGALRM.
#![allow(unsafe_code)]

use std::backtrace::Backtrace;
use std::panic::PanicHookInfo;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use super::build::REDIS_VERSION;

const FAULTS: [Signal; 5] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGFPE, Signal::SIGILL, Signal::SIGABRT];

/// Finding the names of functions takes far more stack than the system's default for handlers.
const HANDLER_STACK_BYTES: usize = 512 << 10;

/// A report that takes longer is given up, seconds.
const REPORT_LIMIT_SECONDS: u32 = 20;

static REPORTED: AtomicBool = AtomicBool::new(false);
static IS_ON: AtomicBool = AtomicBool::new(false);
static PREPARED: Once = Once::new();

/// The parts of the report besides the crash itself.
pub(crate) trait CrashDetails {
    /// Writes the parts of the report, each with its heading.
    fn crash_details(&self, write: &mut dyn FnMut(&str));
}

type WriteDetails = fn(*const ());
/// The subject of the details and the function that knows its type; null and 0 when there is none.
static SUBJECT: AtomicPtr<()> = AtomicPtr::new(ptr::null_mut());
static WRITE_DETAILS: AtomicUsize = AtomicUsize::new(0);

/// Adds the details of `subject` to a report until the guard goes.
pub(crate) fn tell_of<T: CrashDetails>(subject: &T) -> Telling {
    fn write_details<T: CrashDetails>(subject: *const ()) {
        // SAFETY: the pointer was made from a reference to a T, and the guard takes it away before the T goes. The crash
        // may have left it in any state, and it may be in the middle of a change: a second fault then ends the process,
        // with what has been written so far in the log.
        let subject = unsafe { &*subject.cast::<T>() };
        subject.crash_details(&mut |text| super::log::raw(log::Level::Warn, text.as_bytes()));
    }
    WRITE_DETAILS.store(write_details::<T> as WriteDetails as usize, Ordering::Release);
    SUBJECT.store(ptr::from_ref(subject).cast_mut().cast(), Ordering::Release);
    Telling(())
}

/// Takes the subject away when it is dropped.
pub(crate) struct Telling(());

impl Drop for Telling {
    fn drop(&mut self) {
        SUBJECT.store(ptr::null_mut(), Ordering::Release);
    }
}

fn write_details() {
    let subject = SUBJECT.load(Ordering::Acquire);
    let write = WRITE_DETAILS.load(Ordering::Acquire);
    if !subject.is_null() && write != 0 {
        // SAFETY: only `tell_of` stores the number, and it stores a function of this type.
        let write = unsafe { std::mem::transmute::<usize, WriteDetails>(write) };
        write(subject);
    }
}

/// Turns reports on or off (`crash-log-enabled`). To be called by the main thread.
pub(crate) fn set_report(on: bool) {
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
pub(crate) fn segfault() -> ! {
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
extern "C" fn on_fault(signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: both are async-signal-safe. The watchdog's handler would let the report hang for ever.
    unsafe {
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        libc::alarm(REPORT_LIMIT_SECONDS);
    }
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
        let registers = registers(context);
        if let Some((_, at)) = registers.iter().find(|(name, _)| *name == "RIP" || *name == "PC") {
            log::warn!("Crashed running the instruction at: {at:#x}");
        }
        write_trace();
        write_registers(&registers);
        write_details();
        end();
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
    let reason = reason.unwrap_or("panic");
    begin();
    if reason.starts_with("assertion") {
        log::warn!("=== ASSERTION FAILED ===");
        log::warn!("==> {place} '{reason}' is not true");
    } else {
        log::warn!("------------------------------------------------");
        log::warn!("!!! Software Failure. Press left mouse button to continue");
        log::warn!("Guru Meditation: {reason} #{place}");
    }
    write_trace();
    write_details();
    end();
    // Where panics unwind, a thread's panic would otherwise go by unseen.
    std::process::abort()
}

fn begin() {
    super::log::raw(log::Level::Warn, b"\n\n=== REDIS BUG REPORT START: Cut & paste starting from here ===\n");
}

fn write_trace() {
    let trace = Backtrace::force_capture();
    super::log::raw(log::Level::Warn, format!("\n------ STACK TRACE ------\n{trace}\n").as_bytes());
}

fn write_registers(registers: &[(&str, u64)]) {
    let mut text = String::from("\n------ REGISTERS ------\n");
    for (i, (name, value)) in registers.iter().enumerate() {
        text += &format!("{name:>3}:{value:016x}{}", if i % 4 == 3 { '\n' } else { ' ' });
    }
    if !registers.is_empty() {
        super::log::raw(log::Level::Warn, (text + "\n").as_bytes());
    }
}

/// The registers at the fault, by name.
#[cfg(target_arch = "x86_64")]
fn registers(context: *mut libc::c_void) -> Vec<(&'static str, u64)> {
    const NAMES: [(&str, libc::c_int); 18] = [
        ("RAX", libc::REG_RAX),
        ("RBX", libc::REG_RBX),
        ("RCX", libc::REG_RCX),
        ("RDX", libc::REG_RDX),
        ("RDI", libc::REG_RDI),
        ("RSI", libc::REG_RSI),
        ("RBP", libc::REG_RBP),
        ("RSP", libc::REG_RSP),
        ("R8", libc::REG_R8),
        ("R9", libc::REG_R9),
        ("R10", libc::REG_R10),
        ("R11", libc::REG_R11),
        ("R12", libc::REG_R12),
        ("R13", libc::REG_R13),
        ("R14", libc::REG_R14),
        ("R15", libc::REG_R15),
        ("RIP", libc::REG_RIP),
        ("EFL", libc::REG_EFL),
    ];
    // SAFETY: with SA_SIGINFO the kernel passes a ucontext_t.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() };
    context.map_or(Vec::new(), |c| {
        NAMES.iter().map(|(name, at)| (*name, c.uc_mcontext.gregs[*at as usize] as u64)).collect()
    })
}

#[cfg(target_arch = "aarch64")]
fn registers(context: *mut libc::c_void) -> Vec<(&'static str, u64)> {
    // SAFETY: with SA_SIGINFO the kernel passes a ucontext_t.
    let context = unsafe { context.cast::<libc::ucontext_t>().as_ref() };
    context.map_or(Vec::new(), |c| vec![("PC", c.uc_mcontext.pc), ("SP", c.uc_mcontext.sp)])
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn registers(_context: *mut libc::c_void) -> Vec<(&'static str, u64)> {
    Vec::new()
}

fn end() {
    let text = format!(
        "\n=== REDIS BUG REPORT END. Make sure to include from START to END. ===\n\n\
         This is Hexad {}, which is compatible with Redis {REDIS_VERSION} but another program: report the crash to Hexad.\n\
         If the memory of the machine is in doubt, test it with redis-server --test-memory.\n",
        env!("CARGO_PKG_VERSION")
    );
    super::log::raw(log::Level::Warn, text.as_bytes());
}
