//! Service managers: systemd is told over its socket, upstart by stopping ourselves.

use crate::config::{Config, Supervised};
use nix::sys::signal::{Signal, raise};
use sd_notify::NotifyState;

/// Takes up the supervision the configuration asks for, and says whether there is one. `supervised auto` becomes what was
/// found.
pub fn begin(config: &mut Config) -> bool {
    let mut mode = config.supervised;
    if mode == Supervised::Auto {
        if std::env::var_os("UPSTART_JOB").is_some() {
            log::debug!("Upstart supervision detected.");
            mode = Supervised::Upstart;
        } else if std::env::var_os("NOTIFY_SOCKET").is_some() {
            log::debug!("Systemd supervision detected.");
            mode = Supervised::Systemd;
        }
    }
    let supervised = match mode {
        Supervised::Upstart => begin_upstart(),
        Supervised::Systemd => begin_systemd(),
        Supervised::Auto | Supervised::No => false,
    };
    if supervised {
        config.supervised = mode;
    }
    supervised
}

fn begin_upstart() -> bool {
    if std::env::var_os("UPSTART_JOB").is_none() {
        log::warn!("upstart supervision requested, but UPSTART_JOB not found!");
        return false;
    }
    log::info!("supervised by upstart, will stop to signal readiness.");
    // The manager continues us once it has seen the stop.
    raise(Signal::SIGSTOP).is_ok()
}

fn begin_systemd() -> bool {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        log::warn!("systemd supervision requested, but NOTIFY_SOCKET not found!");
        return false;
    }
    if !tell(&[NotifyState::Status("Redis is loading...")]) {
        return false;
    }
    log::info!(
        "Supervised by systemd. Please make sure you set appropriate values for TimeoutStartSec and TimeoutStopSec in \
         your service unit."
    );
    true
}

/// Clients are served from now on.
pub fn ready(config: &Config) {
    if config.supervised != Supervised::Systemd {
        return;
    }
    let status = match config.replicaof {
        None => "Ready to accept connections",
        Some(_) => "Ready to accept connections in read-only mode. Waiting for MASTER <-> REPLICA sync",
    };
    tell(&[NotifyState::Status(status)]);
    tell(&[NotifyState::Ready]);
}

/// The server is about to end.
pub fn stopping(config: &Config) {
    if config.supervised == Supervised::Systemd {
        tell(&[NotifyState::Stopping]);
    }
}

fn tell(state: &[NotifyState<'_>]) -> bool {
    match sd_notify::notify(false, state) {
        Ok(()) => true,
        Err(e) => {
            log::warn!("Can't send to systemd socket: {}", crate::config::os_error(&e));
            false
        }
    }
}
