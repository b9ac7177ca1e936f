//! From the command line to a running loop, and from its end to the exit code.

use crate::config::Config;
use crate::persist::{check_aof, check_rdb};
use crate::server::{REDIS_VERSION, Server};
use crate::sys::{log as log_sink, process, signals};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// Runs the server; gives the exit code.
pub fn main(args: Vec<OsString>) -> i32 {
    log_sink::start();
    if let Some(code) = run_as_checker(&args) {
        return code;
    }
    process::collect_title_space();
    let args: Vec<Vec<u8>> = args.into_iter().skip(1).map(OsString::into_vec).collect();
    let loaded = match Config::load(&args, &mut std::io::stdin()) {
        Ok(loaded) => loaded,
        Err(error) => {
            error.report();
            return 1;
        }
    };
    log_sink::configure(&loaded.config);
    log::info!("oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo");
    log::info!(
        "Redis version={REDIS_VERSION}, bits=64, commit=00000000, modified=0, pid={}, just started",
        std::process::id()
    );
    for (level, text) in &loaded.notices {
        log::log!(*level, "{text}");
    }
    let config_file = loaded.config.config_file.as_ref().map(|p| p.display().to_string()).unwrap_or_default();
    if let Err(e) = signals::install() {
        log::warn!("Can't install signal handlers: {e}");
        return 1;
    }
    let mut server = match Server::new(loaded.config, config_file) {
        Ok(server) => server,
        Err(e) => {
            log::warn!("Can't start the server: {e}");
            return 1;
        }
    };
    if let Err(reason) = server.apply_initial_config() {
        log::warn!("{reason}");
        return 1;
    }
    if let Err(reason) = server.listen() {
        log::warn!("{reason}");
        return 1;
    }
    log::info!("Server initialized");
    if server.load_at_start().is_err() {
        return 1;
    }
    if let Some(code) = server.exit {
        return code;
    }
    log::info!("Ready to accept connections tcp");
    server.run()
}

/// Called as one of the two checkers, by the name of the executable, runs it and gives its exit code.
fn run_as_checker(args: &[OsString]) -> Option<i32> {
    let name = std::path::Path::new(args.first()?).file_name()?.to_string_lossy().into_owned();
    let words: Vec<String> = args.iter().map(|a| a.to_string_lossy().into_owned()).collect();
    if name.contains("redis-check-rdb") {
        Some(check_rdb::main(&words, REDIS_VERSION))
    } else if name.contains("redis-check-aof") {
        Some(check_aof::main(&words))
    } else {
        None
    }
}
