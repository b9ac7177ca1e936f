//! INFO server: the process and its surroundings.

use super::row::{Figure, field, lines, samples, value};
use crate::admin::figure::Value;
use crate::config::Named;
use crate::server::Server;
use crate::sys::build::{COMMIT, HEXAD_VERSION, IS_DIRTY, REDIS_VERSION, build_id};
use std::sync::OnceLock;

pub(super) static ROWS: &[Figure] = &[
    field("redis_version", |_| REDIS_VERSION.into()),
    field("server_name", |_| "hexad".into()),
    field("hexad_version", |_| HEXAD_VERSION.into()),
    field("redis_git_sha1", |_| COMMIT.into()),
    field("redis_git_dirty", |_| IS_DIRTY.into()),
    field("redis_build_id", |_| Value::text(build_id())),
    field("redis_mode", |f| mode(f.srv.cfg.cluster_enabled).into()),
    field("os", |_| os().into()),
    field("arch_bits", |_| usize::BITS.into()),
    field("monotonic_clock", |_| "POSIX clock_gettime".into()),
    field("multiplexing_api", |_| if cfg!(target_os = "linux") { "epoll".into() } else { "kqueue".into() }),
    field("rustc_version", |_| env!("HEXAD_RUSTC").into()),
    field("process_id", |_| std::process::id().into()).gauge("redis_process_id", "The number of the process."),
    field("process_supervised", |f| f.srv.cfg.supervised.name().into()),
    field("run_id", |f| f.srv.run_id.clone().into()),
    field("tcp_port", |f| tcp_port(f.srv).into()),
    field("server_time_usec", |f| f.srv.clock.us().into()),
    field("uptime_in_seconds", |f| uptime_s(f.srv).into())
        .gauge("redis_uptime_in_seconds", "Time since the server started."),
    field("uptime_in_days", |f| (uptime_s(f.srv) / 86400).into()),
    field("hz", |f| f.srv.hz().into()).gauge("redis_hz", "Periodic runs a second."),
    field("configured_hz", |f| f.srv.cfg.hz.into())
        .gauge("redis_configured_hz", "Periodic runs a second, as configured."),
    field("lru_clock", |f| f.srv.ks.access.lru.into()),
    field("executable", |f| f.srv.executable.clone().into()),
    field("config_file", |f| f.srv.config_file.clone().into()),
    field("io_threads_active", |f| f.srv.io.are_active().into())
        .gauge("redis_io_threads_active", "Whether links live on I/O threads."),
    field("shutdown_in_milliseconds", |f| match f.srv.admin.shutdown.deadline_ms() {
        Some(at_ms) => (at_ms - f.srv.clock.ms()).into(),
        None => Value::Absent,
    }),
    lines(|f, line| {
        let cfg = &f.srv.cfg;
        let bound = cfg.bind.iter().fold(String::new(), |text, addr| text + ",bind=" + addr);
        let over_tcp = |name: &str, port: u16| (port != 0).then(|| format!("name={name}{bound},port={port}"));
        let unix = (!cfg.unixsocket.is_empty()).then(|| format!("name=unix,bind={}", cfg.unixsocket));
        let all = [over_tcp("tcp", cfg.port), over_tcp("tls", cfg.tls_port), unix];
        all.into_iter().flatten().enumerate().for_each(|(i, text)| line(&format!("listener{i}"), text.into()));
    }),
    value(|_| 1u8.into()).gauge("redis_up", "The server answers."),
    value(|f| (f.srv.started_ms / 1000).into())
        .gauge("redis_start_time_seconds", "When the server started, in seconds since 1970."),
    samples(|f, sample| {
        let (cfg, repl) = (&f.srv.cfg, &f.srv.repl);
        sample(
            &[
                ("role", if repl.is_replica() { "slave" } else { "master" }),
                ("redis_version", REDIS_VERSION),
                ("redis_build_id", build_id()),
                ("redis_mode", mode(cfg.cluster_enabled)),
                ("os", os()),
                ("maxmemory_policy", cfg.maxmemory_policy.name()),
                ("tcp_port", &tcp_port(f.srv).to_string()),
                ("run_id", &f.srv.run_id),
                ("process_id", &std::process::id().to_string()),
                ("master_replid", repl.history().id.as_str()),
            ],
            1.0,
        );
    })
    .gauge("redis_instance_info", "What this server is."),
    samples(|_, sample| sample(&[("version", HEXAD_VERSION), ("commit", COMMIT)], 1.0))
        .gauge("hexad_build_info", "What was built."),
    value(|f| f.srv.cfg.io_threads.into()).gauge("redis_config_io_threads", "The directive io-threads."),
    value(|f| f.srv.cfg.maxclients.into()).gauge("redis_config_maxclients", "The directive maxclients."),
    value(|f| f.srv.cfg.maxmemory.into()).gauge("redis_config_maxmemory", "The directive maxmemory."),
    value(|f| f.srv.cfg.repl_backlog_size.into())
        .gauge("redis_config_repl_backlog_size", "The directive repl-backlog-size."),
];

fn mode(is_cluster: bool) -> &'static str {
    if is_cluster { "cluster" } else { "standalone" }
}

fn tcp_port(srv: &Server) -> u16 {
    if srv.cfg.port != 0 { srv.cfg.port } else { srv.cfg.tls_port }
}

fn uptime_s(srv: &Server) -> i64 {
    (srv.clock.ms() - srv.started_ms).max(0) / 1000
}

fn os() -> &'static str {
    static OS: OnceLock<String> = OnceLock::new();
    OS.get_or_init(|| match nix::sys::utsname::uname() {
        Ok(u) => {
            let part = |s: &std::ffi::OsStr| s.to_string_lossy().into_owned();
            format!("{} {} {}", part(u.sysname()), part(u.release()), part(u.machine()))
        }
        Err(_) => std::env::consts::OS.to_string(),
    })
}
