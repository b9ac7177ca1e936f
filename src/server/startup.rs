//! From the command line to a running loop, and from its end to the exit code.
//!
//! The order follows Redis, as tools that start servers wait for its log lines: the starting lines, the logo with `PID:`,
//! `Server initialized`, and `Ready to accept connections` once a listener is open and the data is loaded. How a running
//! server ends is `admin::shutdown`'s.

mod memory_test;

use crate::catalog::table::RenameError;
use crate::config::{Config, ConfigError, Loaded, LogFormat, Supervised};
use crate::persist;
use crate::server::Server;
use crate::sys::build::{COMMIT, IS_DIRTY};
use crate::sys::build::{HEXAD_VERSION, REDIS_VERSION};
use crate::sys::log::Role;
use crate::sys::{alloc, crash, log as log_sink, process, service, signals, system_check};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Where the process id goes when a daemon names no `pidfile`.
const DEFAULT_PID_FILE: &str = "/var/run/redis.pid";

/// Runs the server; gives the exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    log_sink::start();
    alloc::keep_large_blocks();
    process::collect_title_space();
    let words: Vec<Vec<u8>> = args.iter().cloned().map(OsString::into_vec).collect();
    let program = String::from_utf8_lossy(&words[0]);
    if let Some(code) = run_tool(&program, &words[1..]) {
        return code;
    }
    match run(&program, &words[1..], args) {
        Ok(code) => return code,
        Err(StartError::Config(error)) => error.report(),
        Err(StartError::Other(reason)) => log::warn!("{reason}"),
    }
    1
}

fn run(program: &str, args: &[Vec<u8>], argv: Vec<OsString>) -> Result<i32, StartError> {
    let started_in = std::env::current_dir().ok();
    let Loaded { config, notices } = Config::load(args, &mut std::io::stdin())?;
    let syslog = config.syslog_enabled.then_some((&*config.syslog_ident, config.syslog_facility));
    log_sink::set_format(config.log_format, config.log_timestamp_format);
    log_sink::configure(config.loglevel, &config.logfile, syslog);
    notices.iter().for_each(|(level, text)| log::log!(*level, "{text}"));
    system_check::warn(config.disable_thp);

    let supervised = service::announce(config.supervised);
    let background = config.daemonize && supervised.is_none();
    if background {
        service::daemonize().map_err(|error| format!("Can't detach from the terminal: {}", error.desc()))?;
    }
    log::info!("oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo");
    log::info!(
        "Redis version={REDIS_VERSION}, bits=64, commit={COMMIT}, modified={IS_DIRTY}, pid={}, just started",
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
    let mut server = start(config, background)?;
    (server.admin.argv, server.admin.started_in) = (argv, started_in);
    server.admin.under_systemd = supervised == Some(Supervised::Systemd);
    server.load_at_start();
    let code = server.run();
    server.restart_if_asked();
    Ok(code)
}

/// Why the server does not start.
enum StartError {
    /// A line of the configuration.
    Config(ConfigError),
    /// The last line of the log.
    Other(String),
}

impl From<String> for StartError {
    fn from(reason: String) -> Self {
        Self::Other(reason)
    }
}

impl From<ConfigError> for StartError {
    fn from(error: ConfigError) -> Self {
        Self::Config(error)
    }
}

/// Everything between a configuration and the data set.
fn start(config: Config, background: bool) -> Result<Server, StartError> {
    signals::install().map_err(|e| format!("Can't install signal handlers: {}", e.desc()))?;
    crash::set_report(config.crash_log_enabled);
    let config_file = config.config_file.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    let mut server = Server::new(config, config_file).map_err(|e| format!("Can't start the server: {e}"))?;
    log_sink::set_role(if server.cfg.replicaof.is_some() { Role::Replica } else { Role::Primary });
    rename_commands(&mut server)?;
    server.check_user_lines()?;
    server.apply_initial_config()?;
    if background || !server.cfg.pidfile.is_empty() {
        write_pid_file(&mut server.cfg);
    }
    show_logo(&server.cfg);
    system_check::warn_of_backlog(server.cfg.tcp_backlog);
    refuse_modules(&server.cfg)?;
    server.load_users()?;
    server.listen()?;
    if server.listeners.is_empty() {
        return Err(String::from("Configured to not listen anywhere, exiting.").into());
    }
    server.open_operators_port().map_err(|reason| format!("{reason}, aborting."))?;
    server.open_cluster()?;
    log::info!("Server initialized");
    server.note_initial_memory();
    Ok(server)
}

impl Server {
    /// What remains to be done when the data set is loaded. What fails is logged and ends the server.
    pub(crate) fn finish_start(&mut self) {
        if let Err(reason) = self.start_cluster() {
            log::warn!("{reason}");
            self.exit = Some(1);
            return;
        }
        if self.cfg.port != 0 {
            log::info!("Ready to accept connections tcp");
        }
        if self.cfg.tls_port != 0 {
            log::info!("Ready to accept connections tls");
        }
        if !self.cfg.unixsocket.is_empty() {
            log::info!("Ready to accept connections unix");
        }
        if (1..1 << 20).contains(&self.cfg.maxmemory) {
            log::warn!(
                "WARNING: You specified a maxmemory value that is less than 1MB (current value is {} bytes). Are you sure \
                 this is what you really want?",
                self.cfg.maxmemory
            );
        }
        process::set_cpu_affinity(&self.cfg.server_cpulist);
        process::sleep_exactly();
        if self.admin.under_systemd {
            tell_ready(self);
        }
    }
}

/// Carries the `rename-command` lines out.
fn rename_commands(server: &mut Server) -> Result<(), ConfigError> {
    for line in &server.cfg.rename_command {
        let [from, to] = line.words.as_slice() else { continue };
        let (from, to) = (String::from_utf8_lossy(from), String::from_utf8_lossy(to));
        server.commands.rename(&from, &to).map_err(|error| {
            let reason = match error {
                RenameError::NoSuchCommand => "No such command in rename-command",
                RenameError::NameTaken => "Target command name already exists",
            };
            ConfigError::at(line, reason)
        })?;
    }
    Ok(())
}

/// There are no modules. A server that was meant to have one must not come up without it.
fn refuse_modules(cfg: &Config) -> Result<(), String> {
    if let Some(line) = cfg.loadmodule.first() {
        let path = String::from_utf8_lossy(&line.words[0]);
        log::warn!("Module {path} failed to load: this server has no module interface");
        return Err(format!("Can't load module from {path}: server aborting"));
    }
    if cfg.module_config.is_empty() {
        return Ok(());
    }
    log::warn!("Unresolved Configuration(s) Detected:");
    for line in &cfg.module_config {
        log::warn!(">>> '{}'", String::from_utf8_lossy(&line.text));
    }
    Err("Module Configuration detected without loadmodule directive or no ApplyConfig call: aborting".into())
}

/// What the program does besides being a server: its exit code, or `None` to be one.
fn run_tool(program: &str, args: &[Vec<u8>]) -> Option<i32> {
    let name = program.rsplit('/').next().unwrap_or(program);
    let tool_args = || -> Vec<String> {
        let rest = args.iter().filter(|a| !a.starts_with(b"--check-")).map(|a| String::from_utf8_lossy(a).into_owned());
        std::iter::once(program.to_string()).chain(rest).collect()
    };
    if name.contains("redis-check-aof") || args.first().is_some_and(|a| a == b"--check-aof") {
        return Some(persist::check_aof::main(&tool_args()));
    }
    if name.contains("redis-check-rdb") || args.first().is_some_and(|a| a == b"--check-rdb") {
        return Some(persist::check_rdb::main(&tool_args(), REDIS_VERSION));
    }
    if name.contains("redis-sentinel") || args.iter().any(|arg| arg == b"--sentinel") {
        eprintln!(
            "Hexad {HEXAD_VERSION} has no Sentinel mode. Run redis-sentinel of Redis {REDIS_VERSION}: it monitors this server \
             like any other."
        );
        return Some(1);
    }
    match args.first().map(Vec::as_slice) {
        Some(b"-v" | b"--version") => {
            println!("{}", version_line());
            Some(0)
        }
        Some(b"-h" | b"--help") => {
            eprint!("{USAGE}");
            Some(1)
        }
        Some(b"--test-memory") if args.len() == 2 => Some(memory_test::run(&String::from_utf8_lossy(&args[1]))),
        Some(b"--test-memory") => {
            eprintln!("Please specify the amount of memory to test in megabytes.");
            eprintln!("Example: ./redis-server --test-memory 4096\n");
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
       ./redis-server --test-memory <megabytes>
       ./redis-server --check-system

Options are directives of the configuration file with their values, as in
       ./redis-server
       echo 'maxmemory 128mb' | ./redis-server -
       ./redis-server /etc/redis/6379.conf
       ./redis-server --port 7777 --replicaof 127.0.0.1 8888
       ./redis-server /etc/redis/6379.conf --loglevel verbose -
";

/// Names the version this server is compatible with, as tools read it, and its own.
fn version_line() -> String {
    let (malloc, build) = (alloc::name(), crate::sys::build::build_id());
    format!(
        "Redis server v={REDIS_VERSION} sha={COMMIT}:{IS_DIRTY} malloc={malloc} bits=64 build={build} hexad={HEXAD_VERSION}"
    )
}

/// A failure is only logged: the server runs all the same.
fn write_pid_file(cfg: &mut Config) {
    if cfg.pidfile.is_empty() {
        cfg.pidfile = DEFAULT_PID_FILE.into();
    }
    if let Err(error) = std::fs::write(&cfg.pidfile, format!("{}\n", std::process::id())) {
        log::warn!("Failed to write PID file: {}", crate::sys::os_error(&error));
    }
}

/// Shows who this is: the logo on a terminal or if the configuration insists, one line otherwise and to machines. Test harnesses
/// read the process id from the logo.
fn show_logo(cfg: &Config) {
    let mode = if cfg.cluster_enabled { "cluster" } else { "standalone" };
    let port = if cfg.port != 0 { cfg.port } else { cfg.tls_port };
    let is_terminal =
        !cfg.syslog_enabled && cfg.logfile.is_empty() && std::io::IsTerminal::is_terminal(&std::io::stdout());
    if cfg.log_format != LogFormat::Legacy || (!is_terminal && !cfg.always_show_logo) {
        log::info!("Running mode={mode}, port={port}.");
        return;
    }
    let pid = std::process::id();
    let facts = [
        format!("Redis {REDIS_VERSION} ({COMMIT}/{IS_DIRTY}) 64 bit"),
        format!("Hexad {HEXAD_VERSION}"),
        String::new(),
        format!("Running in {mode} mode"),
        format!("Port: {port}"),
        format!("PID: {pid}"),
    ];
    let mut logo = String::from("\n");
    for (i, line) in LOGO.iter().enumerate() {
        let fact = facts.get(i.wrapping_sub(1)).map_or("", String::as_str);
        logo.push_str(format!("{line:<24} {fact}").trim_end());
        logo.push('\n');
    }
    logo.push('\n');
    log_sink::raw(log::Level::Info, logo.as_bytes());
}

/// Cells of a honeycomb.
const LOGO: [&str; 9] = [
    r"          ____",
    r"         /    \",
    r"    ____/      \____",
    r"   /    \      /    \",
    r"  /      \____/      \",
    r"  \      /    \      /",
    r"   \____/      \____/",
    r"        \      /",
    r"         \____/",
];

fn tell_ready(server: &Server) {
    service::tell_systemd(if server.cfg.replicaof.is_none() {
        "Ready to accept connections\n"
    } else {
        "Ready to accept connections in read-only mode. Waiting for MASTER <-> REPLICA sync\n"
    });
    service::tell_systemd_ready();
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_version_names_both() {
        let line = super::version_line();
        let start = format!("Redis server v=7.2.6 sha={}:{} malloc=jemalloc-5", super::COMMIT, super::IS_DIRTY);
        assert!(line.starts_with(&start), "{line}");
        assert!(line.ends_with(&format!("hexad={}", super::HEXAD_VERSION)));
    }
}
