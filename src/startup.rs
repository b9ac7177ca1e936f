//! From the command line to a running loop, and from its end to the exit code.
//!
//! The order follows Redis, as tools that start servers wait for its log lines: the starting lines, the logo with `PID:`,
//! `Server initialized`, and `Ready to accept connections` once a listener is open and the data is loaded.

use crate::config::{Config, Loaded, Supervised};
use crate::net::listener::Listener;
use crate::server::{HEXAD_VERSION, REDIS_VERSION, Server};
use crate::sys::{crash, log as log_sink, process, service, signals, system_check};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Where the process id goes when a daemon names no `pidfile`.
const DEFAULT_PID_FILE: &str = "/var/run/redis.pid";

/// Runs the server; gives the exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    log_sink::start();
    process::collect_title_space();
    let mut args: Vec<Vec<u8>> = args.into_iter().map(OsString::into_vec).collect();
    let program = String::from_utf8_lossy(&args.remove(0)).into_owned();
    if let Some(code) = run_tool(&program, &args) {
        return code;
    }
    let Loaded { config, notices } = match Config::load(&args, &mut std::io::stdin()) {
        Ok(loaded) => loaded,
        Err(error) => {
            error.report();
            return 1;
        }
    };
    log_sink::configure(&config);
    notices.iter().for_each(|(level, text)| log::log!(*level, "{text}"));
    system_check::warn(config.disable_thp);

    let supervised = service::announce(config.supervised);
    let background = config.daemonize && supervised.is_none();
    if background && let Err(error) = service::daemonize() {
        log::warn!("Can't detach from the terminal: {}", error.desc());
        return 1;
    }
    log::info!("oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo");
    log::info!(
        "Redis version={REDIS_VERSION}, bits=64, commit=00000000, modified=0, pid={}, just started",
        std::process::id()
    );
    if args.is_empty() {
        log::warn!(
            "Warning: no config file specified, using the default config. In order to specify a config file use {program} \
             /path/to/redis.conf"
        );
    } else {
        log::info!("Configuration loaded");
    }
    match start(config, background) {
        Ok(mut server) => {
            if supervised == Some(Supervised::Systemd) {
                tell_ready(&server);
            }
            let code = server.run();
            clean_up(&server);
            code
        }
        Err(reason) => {
            log::warn!("{reason}");
            1
        }
    }
}

/// Everything between a configuration and the loop. The error is the last line of the log.
fn start(config: Config, background: bool) -> Result<Server, String> {
    signals::install().map_err(|e| format!("Can't install signal handlers: {}", e.desc()))?;
    crash::set_report(config.crash_log_enabled);
    let config_file = config.config_file.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    let mut server = Server::new(config, config_file).map_err(|e| format!("Can't start the server: {e}"))?;
    server.apply_initial_config()?;
    if background || !server.cfg.pidfile.is_empty() {
        write_pid_file(&mut server.cfg);
    }
    show_logo(&server.cfg);
    system_check::warn_of_backlog(server.cfg.tcp_backlog);
    server.listen()?;
    log::info!("Server initialized");
    for (kind, is_there) in [
        ("tcp", server.listeners.iter().any(|l| matches!(l, Listener::Tcp(_)))),
        ("unix", server.listeners.iter().any(|l| matches!(l, Listener::Unix(..)))),
    ] {
        if is_there {
            log::info!("Ready to accept connections {kind}");
        }
    }
    if (1..1 << 20).contains(&server.cfg.maxmemory) {
        log::warn!(
            "WARNING: You specified a maxmemory value that is less than 1MB (current value is {} bytes). Are you sure this \
             is what you really want?",
            server.cfg.maxmemory
        );
    }
    process::set_cpu_affinity(&server.cfg.server_cpulist);
    Ok(server)
}

/// What the program does besides being a server: its exit code, or `None` to be one.
fn run_tool(program: &str, args: &[Vec<u8>]) -> Option<i32> {
    let name = program.rsplit('/').next().unwrap_or(program);
    if name.contains("redis-sentinel") || args.iter().any(|arg| arg == b"--sentinel") {
        eprintln!("This server has no Sentinel mode.");
        return Some(1);
    }
    match args.first().map(Vec::as_slice) {
        Some(b"-v" | b"--version") => {
            println!(
                "Redis server v={REDIS_VERSION} sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=0 hexad={HEXAD_VERSION}"
            );
            Some(0)
        }
        Some(b"-h" | b"--help") => {
            eprint!("{USAGE}");
            Some(1)
        }
        Some(b"--test-memory") => {
            eprintln!("This server has no memory test; use one that has the machine to itself, such as memtest86+.");
            Some(1)
        }
        Some(b"--check-system") => Some(if system_check::print() { 0 } else { 1 }),
        _ => None,
    }
}

const USAGE: &str = "\
Usage: ./redis-server [/path/to/redis.conf] [options] [-]
       ./redis-server - (read config from stdin)
       ./redis-server -v or --version
       ./redis-server -h or --help
       ./redis-server --check-system

Options are directives of the configuration file with their values, as in
       ./redis-server
       echo 'maxmemory 128mb' | ./redis-server -
       ./redis-server /etc/redis/6379.conf
       ./redis-server --port 7777 --replicaof 127.0.0.1 8888
       ./redis-server /etc/redis/6379.conf --loglevel verbose -
";

/// A failure is only logged: the server runs all the same.
fn write_pid_file(cfg: &mut Config) {
    if cfg.pidfile.is_empty() {
        cfg.pidfile = DEFAULT_PID_FILE.into();
    }
    if let Err(error) = std::fs::write(&cfg.pidfile, format!("{}\n", std::process::id())) {
        log::warn!("Failed to write PID file: {}", crate::config::os_error(&error));
    }
}

/// Shows who this is: the logo on a terminal or if the configuration insists, one line otherwise. Test harnesses read the
/// process id from the logo.
fn show_logo(cfg: &Config) {
    let mode = if cfg.cluster_enabled { "cluster" } else { "standalone" };
    let port = if cfg.port != 0 { cfg.port } else { cfg.tls_port };
    let is_terminal =
        !cfg.syslog_enabled && cfg.logfile.is_empty() && std::io::IsTerminal::is_terminal(&std::io::stdout());
    if !is_terminal && !cfg.always_show_logo {
        log::info!("Running mode={mode}, port={port}.");
        return;
    }
    let pid = std::process::id();
    let logo = format!(
        r"
          ____
         /    \
    ____/      \       Hexad {HEXAD_VERSION}, Redis {REDIS_VERSION} compatible
   /    \      /
  /      \____/        Running in {mode} mode
  \      /    \        Port: {port}
   \____/      \       PID: {pid}
        \      /
         \____/

"
    );
    log_sink::raw(log::Level::Info, logo.as_bytes());
}

fn tell_ready(server: &Server) {
    service::tell_systemd(if server.cfg.replicaof.is_none() {
        "Ready to accept connections\n"
    } else {
        "Ready to accept connections in read-only mode. Waiting for MASTER <-> REPLICA sync\n"
    });
    service::tell_systemd_ready();
}

/// Removes what the server left in the file system.
fn clean_up(server: &Server) {
    if !server.cfg.pidfile.is_empty() {
        log::info!("Removing the pid file.");
        let _ = std::fs::remove_file(&server.cfg.pidfile);
    }
    for listener in &server.listeners {
        if let Listener::Unix(_, path) = listener {
            log::info!("Removing the unix socket file.");
            let _ = std::fs::remove_file(path);
        }
    }
    log::warn!("Redis is now ready to exit, bye bye...");
}
