//! Running under a service manager or as a daemon.
#![allow(unsafe_code)]

use nix::sys::signal::{Signal, raise};
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use sd_notify::NotifyState;

/// The service manager to notify when the server is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Supervised {
    Upstart,
    Systemd,
    Auto,
    No,
}

/// Tells the service manager that the server is starting. Returns the manager of this process, if any. To be called
/// before there are other threads.
pub(crate) fn announce(mode: Supervised) -> Option<Supervised> {
    let has = |name: &str| std::env::var_os(name).is_some();
    let mode = match mode {
        Supervised::Auto if has("UPSTART_JOB") => {
            log::debug!("Upstart supervision detected.");
            Supervised::Upstart
        }
        Supervised::Auto if has("NOTIFY_SOCKET") => {
            log::debug!("Systemd supervision detected.");
            Supervised::Systemd
        }
        other => other,
    };
    let is_supervised = match mode {
        Supervised::No | Supervised::Auto => false,
        Supervised::Upstart if !has("UPSTART_JOB") => {
            log::warn!("upstart supervision requested, but UPSTART_JOB not found!");
            false
        }
        Supervised::Upstart => {
            log::info!("supervised by upstart, will stop to signal readiness.");
            // Upstart waits for the process to stop itself. It cannot fail for a valid signal to oneself.
            let _ = raise(Signal::SIGSTOP);
            // SAFETY: there is one thread, so nobody reads the environment meanwhile.
            unsafe { std::env::remove_var("UPSTART_JOB") };
            true
        }
        Supervised::Systemd if !has("NOTIFY_SOCKET") => {
            log::warn!("systemd supervision error: NOTIFY_SOCKET not found!");
            false
        }
        Supervised::Systemd => {
            let told = tell_systemd("Redis is loading...\n");
            if told {
                log::info!(
                    "Supervised by systemd. Please make sure you set appropriate values for TimeoutStartSec and \
                     TimeoutStopSec in your service unit."
                );
            }
            told
        }
    };
    is_supervised.then_some(mode)
}

/// Sends systemd a line of status. False: that failed, which was logged.
pub(crate) fn tell_systemd(status: &str) -> bool {
    notify(&[NotifyState::Status(status.trim_end())])
}

/// Tells systemd that the server accepts connections.
pub(crate) fn tell_systemd_ready() -> bool {
    notify(&[NotifyState::Ready])
}

/// Tells systemd that the server is about to end.
pub(crate) fn tell_systemd_stopping() -> bool {
    notify(&[NotifyState::Stopping])
}

fn notify(states: &[NotifyState<'_>]) -> bool {
    let result = sd_notify::notify(false, states);
    if let Err(error) = &result {
        log::warn!("systemd supervision error: sd_notify: {error}");
    }
    result.is_ok()
}

/// Goes on in a child process without terminal; the calling process ends. To be called before there are other threads.
pub(crate) fn daemonize() -> nix::Result<()> {
    // SAFETY: there is one thread, so the child may do anything.
    if let ForkResult::Parent { .. } = unsafe { fork()? } {
        std::process::exit(0);
    }
    setsid()?;
    if let Ok(null) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        dup2_stderr(&null)?;
    }
    super::log::set_main_process();
    Ok(())
}
