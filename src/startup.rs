//! From the command line to a running loop, and from its end to the exit code.
//!
//! Owns the order of start-up and its log lines, the process's surroundings (daemon, supervision, pid file, title) and the
//! options that do something else than serve. What a signal or SHUTDOWN does to a running server is `admin::shutdown`'s.

mod checks;
mod memory_test;
mod options;
mod supervise;

pub use supervise::stopping as tell_stopping;

use crate::config::{Config, Loaded};
use crate::server::{REDIS_VERSION, Server};
use crate::sys::{log as log_sink, process, signals};
use options::Mode;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Where the pid goes when the server is a daemon and the configuration names no file.
const DEFAULT_PID_FILE: &str = "/var/run/redis.pid";

/// Runs the program; gives the exit code.
pub fn main(argv: Vec<OsString>) -> i32 {
    log_sink::start();
    match options::mode(&argv) {
        Mode::Serve => match start(&argv) {
            Ok(mut server) => {
                let code = server.run();
                server.restart_if_asked();
                code
            }
            Err(code) => code,
        },
        Mode::Done(code) => code,
    }
}

/// Everything up to the first turn of the loop. `Err`: the exit code; what went wrong has been said.
fn start(argv: &[OsString]) -> Result<Server, i32> {
    let args: Vec<Vec<u8>> = argv.iter().skip(1).cloned().map(OsString::into_vec).collect();
    let Loaded { mut config, notices } = Config::load(&args, &mut std::io::stdin()).map_err(|error| {
        error.report();
        1
    })?;
    log_sink::configure(&config);
    for (level, text) in &notices {
        log::log!(*level, "{text}");
    }
    checks::warn_about_system(&config);
    let supervised = supervise::begin(&mut config);
    let background = config.daemonize && !supervised;
    if background {
        daemonize()?;
    }
    log::info!("oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo");
    log::info!(
        "Redis version={REDIS_VERSION}, bits=64, commit=00000000, modified=0, pid={}, just started",
        std::process::id()
    );
    if args.is_empty() {
        let program = argv.first().map(|a| a.to_string_lossy().into_owned()).unwrap_or_default();
        log::warn!(
            "Warning: no config file specified, using the default config. In order to specify a config file use \
             {program} /path/to/redis.conf"
        );
    } else {
        log::info!("Configuration loaded");
    }
    let mut server = init(config, argv)?;
    if background && server.cfg.pidfile.is_empty() {
        server.cfg.pidfile = DEFAULT_PID_FILE.into();
    }
    write_pid_file(&server.cfg.pidfile);
    process::collect_title_space();
    server.show_title();
    show_logo(&server.cfg);
    checks::warn_about_backlog(server.cfg.tcp_backlog);
    server.listen().map_err(|reason| {
        log::warn!("{reason}");
        1
    })?;
    if server.listeners.is_empty() {
        log::warn!("Configured to not listen anywhere, exiting.");
        return Err(1);
    }
    server.note_initial_memory();
    log::info!("Server initialized");
    ready(&server);
    Ok(server)
}

/// The server's state, with the limits of the process fitted to it.
fn init(mut config: Config, argv: &[OsString]) -> Result<Server, i32> {
    if let Err(e) = signals::install() {
        log::warn!("Can't install signal handlers: {}", e.desc());
        return Err(1);
    }
    config.maxclients = process::raise_open_files(config.maxclients).map_err(|few| {
        log::warn!(
            "Your current 'ulimit -n' of {} is not enough for the server to start. Please increase your open file limit \
             to at least {}. Exiting.",
            few.limit,
            few.needed
        );
        1
    })?;
    log::info!("monotonic clock: POSIX clock_gettime");
    let config_file = config.config_file.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    let mut server = Server::new(config, config_file).map_err(|e| {
        log::warn!("Can't start the server: {e}");
        1
    })?;
    server.admin.argv = argv.to_vec();
    if let Some(name) = argv.first() {
        server.executable = absolute_program(name.as_bytes());
    }

    Ok(server)
}

/// Tells everyone who waits that clients are served now.
fn ready(server: &Server) {
    if server.cfg.port != 0 {
        log::info!("Ready to accept connections tcp");
    }
    if !server.cfg.unixsocket.is_empty() {
        log::info!("Ready to accept connections unix");
    }
    supervise::ready(&server.cfg);
    if (1..1 << 20).contains(&server.cfg.maxmemory) {
        log::warn!(
            "WARNING: You specified a maxmemory value that is less than 1MB (current value is {} bytes). Are you sure this \
             is what you really want?",
            server.cfg.maxmemory
        );
    }
}

/// Leaves the terminal: the parent ends here, the child goes on in a session of its own with `/dev/null` for its streams.
fn daemonize() -> Result<(), i32> {
    // The working directory stays: the configuration's relative paths depend on it.
    nix::unistd::daemon(true, false).map_err(|e| {
        log::warn!("Can't run in the background: {}", e.desc());
        1
    })?;
    log_sink::set_main_process();
    Ok(())
}

/// A pid file that cannot be written is no reason not to serve.
fn write_pid_file(path: &str) {
    if path.is_empty() {
        return;
    }
    if let Err(e) = std::fs::write(path, format!("{}\n", std::process::id())) {
        log::warn!("Failed to write PID file: {}", crate::config::os_error(&e));
    }
}

/// The program's path as it was called, made absolute; a bare name that came by way of `PATH` is found through `/proc`.
fn absolute_program(name: &[u8]) -> String {
    let name = std::path::Path::new(std::ffi::OsStr::from_bytes(name));
    if name.components().count() > 1 || name.exists() {
        if let Ok(path) = std::path::absolute(name) {
            return path.display().to_string();
        }
    }
    std::env::current_exe().map(|p| p.display().to_string()).unwrap_or_default()
}

/// The logo on a terminal (or when asked for), else one line of log with the same facts.
fn show_logo(config: &Config) {
    let mode = if config.cluster_enabled { "cluster" } else { "standalone" };
    let port = if config.port != 0 { config.port } else { config.tls_port };
    let on_terminal = !config.syslog_enabled && config.logfile.is_empty() && std::io::stdout().is_terminal();
    if !on_terminal && !config.always_show_logo {
        log::info!("Running mode={mode}, port={port}.");
        return;
    }
    let facts = [
        format!("Redis {REDIS_VERSION} (00000000/0) 64 bit"),
        format!("Hexad {}", crate::server::HEXAD_VERSION),
        String::new(),
        format!("Running in {mode} mode"),
        format!("Port: {port}"),
        format!("PID: {}", std::process::id()),
    ];
    let mut text = String::from("\n");
    for (i, line) in LOGO.iter().enumerate() {
        let fact = i.checked_sub(2).and_then(|i| facts.get(i)).map_or("", String::as_str);
        text.push_str(format!("{line:<32} {fact}").trim_end());
        text.push('\n');
    }
    text.push('\n');
    log_sink::raw(log::Level::Info, text.as_bytes());
}

/// Six sides, six slots of a table's edge.
const LOGO: [&str; 11] = [
    "        ______________",
    "       /\\            /\\",
    "      /  \\  ______  /  \\",
    "     /    \\/      \\/    \\",
    "    /     /\\      /\\     \\",
    "   /_____/  \\    /  \\_____\\",
    "   \\     \\  /    \\  /     /",
    "    \\     \\/______\\/     /",
    "     \\    /        \\    /",
    "      \\  /          \\  /",
    "       \\/____________\\/",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_program_are_absolute() {
        assert!(absolute_program(b"./no/such/server").starts_with('/'));
        assert!(absolute_program(b"no-such-server-on-the-path").starts_with('/'));
    }

    #[test]
    fn the_logo_has_a_line_for_every_fact() {
        assert!(LOGO.len() >= 8);
        assert!(LOGO.iter().all(|line| line.len() < 32));
    }
}
