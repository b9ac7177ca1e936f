//! INFO server: the process and its surroundings.

use super::InfoText;
use crate::config::Named;
use crate::server::Server;
use crate::sys::build::{COMMIT, HEXAD_VERSION, IS_DIRTY, REDIS_VERSION};
use std::sync::OnceLock;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    out.field("redis_version", REDIS_VERSION);
    out.field("server_name", "hexad");
    out.field("hexad_version", HEXAD_VERSION);
    out.field("redis_git_sha1", COMMIT);
    out.field("redis_git_dirty", IS_DIRTY);
    out.field("redis_build_id", crate::sys::build::build_id());
    out.field("redis_mode", if srv.cfg.cluster_enabled { "cluster" } else { "standalone" });
    static OS: OnceLock<String> = OnceLock::new();
    out.field("os", OS.get_or_init(os));
    out.field("arch_bits", usize::BITS);
    out.field("monotonic_clock", "POSIX clock_gettime");
    out.field("multiplexing_api", if cfg!(target_os = "linux") { "epoll" } else { "kqueue" });
    out.field("rustc_version", env!("HEXAD_RUSTC"));
    out.field("process_id", std::process::id());
    out.field("process_supervised", srv.cfg.supervised.name());
    out.field("run_id", &srv.run_id);
    out.field("tcp_port", if srv.cfg.port != 0 { srv.cfg.port } else { srv.cfg.tls_port });
    out.field("server_time_usec", srv.clock.us());
    let uptime = (srv.clock.ms() - srv.started_ms).max(0) / 1000;
    out.field("uptime_in_seconds", uptime);
    out.field("uptime_in_days", uptime / 86400);
    out.field("hz", srv.hz());
    out.field("configured_hz", srv.cfg.hz);
    out.field("lru_clock", srv.ks.access.lru);
    out.field("executable", &srv.executable);
    out.field("config_file", &srv.config_file);
    out.field("io_threads_active", u8::from(srv.io.are_active()));
    if let Some(at) = srv.admin.shutdown.deadline_ms() {
        out.field("shutdown_in_milliseconds", at - srv.clock.ms());
    }
    write_listeners(srv, out);
}

fn write_listeners(srv: &Server, out: &mut InfoText) {
    let mut count = 0;
    let mut listener = |text: String| {
        out.field(&format!("listener{count}"), text);
        count += 1;
    };
    let bound = srv.cfg.bind.iter().fold(String::new(), |text, addr| text + ",bind=" + addr);
    if srv.cfg.port != 0 {
        listener(format!("name=tcp{bound},port={}", srv.cfg.port));
    }
    if srv.cfg.tls_port != 0 {
        listener(format!("name=tls{bound},port={}", srv.cfg.tls_port));
    }
    if !srv.cfg.unixsocket.is_empty() {
        listener(format!("name=unix,bind={}", srv.cfg.unixsocket));
    }
}

fn os() -> String {
    match nix::sys::utsname::uname() {
        Ok(u) => {
            let part = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
            format!("{} {} {}", part(u.sysname()), part(u.release()), part(u.machine()))
        }
        Err(_) => std::env::consts::OS.to_string(),
    }
}
