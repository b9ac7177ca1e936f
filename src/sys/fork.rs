//! Forking a child that shares our memory, and waiting for it.
#![allow(unsafe_code)]

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::io;

/// The side of the fork that this process is.
pub(crate) enum Side {
    Parent(Pid),
    Child,
}

/// Forks. The child has only this thread: it must not wait for the others, must not return into the event loop, and
/// must end with [`exit_child`].
pub(crate) fn fork_process() -> io::Result<Side> {
    // SAFETY: the child goes on with one thread. What it uses of the process is safe then: the allocator resets its locks
    // in the child (jemalloc registers atfork handlers), and the log takes no lock that another thread may hold against it.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Side::Parent(child)),
        ForkResult::Child => Ok(Side::Child),
    }
}

/// Ends a forked child without running the parent's exit handlers.
pub(crate) fn exit_child(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Gives the signals that the server handles their default action, so that SIGUSR1 ends the child.
pub(crate) fn reset_child_signals() {
    // SAFETY: SIG_DFL is a valid disposition, and no other thread exists in the child.
    unsafe {
        libc::signal(libc::SIGUSR1, libc::SIG_DFL);
    }
}

/// Shows the child under another name, cut to 15 bytes, in `ps` and `top`.
pub(crate) fn set_process_name(name: &str) {
    let mut buf = [0u8; 16];
    let n = name.len().min(15);
    buf[..n].copy_from_slice(&name.as_bytes()[..n]);
    // SAFETY: the buffer is a NUL-terminated string of at most 16 bytes, as PR_SET_NAME wants it.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, buf.as_ptr());
    }
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Exit(i32),
    Signal(i32),
}

/// The child that ended, if one did. With `block`, waits for it.
pub(crate) fn reap(pid: Pid, block: bool) -> nix::Result<Option<Ended>> {
    let flags = if block { WaitPidFlag::empty() } else { WaitPidFlag::WNOHANG };
    loop {
        return match waitpid(pid, Some(flags)) {
            Ok(WaitStatus::Exited(_, code)) => Ok(Some(Ended::Exit(code))),
            Ok(WaitStatus::Signaled(_, signal, _)) => Ok(Some(Ended::Signal(signal as i32))),
            Ok(WaitStatus::StillAlive) => Ok(None),
            Ok(_) if block => continue,
            Ok(_) => Ok(None),
            Err(nix::errno::Errno::EINTR) => continue,
            Err(e) => Err(e),
        };
    }
}

/// Memory of this process that is private and was changed since the fork, bytes.
pub(crate) fn private_dirty_bytes() -> u64 {
    let text = match std::fs::read_to_string("/proc/self/smaps_rollup") {
        Ok(text) => text,
        // Older kernels have only the long form.
        Err(_) => std::fs::read_to_string("/proc/self/smaps").unwrap_or_default(),
    };
    text.lines()
        .filter_map(|line| line.strip_prefix("Private_Dirty:"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
        .sum::<u64>()
        * 1024
}
