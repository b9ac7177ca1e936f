//! What the command line asks for: serving, or something that is done with at once.

use super::{checks, memory_test};
use crate::server::{HEXAD_VERSION, REDIS_VERSION};
use crate::sys::alloc;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is to be done.
pub enum Mode {
    Serve,
    /// It has been done; the exit code.
    Done(i32),
}

/// Looks at the name the program was called by and at its first option.
pub fn mode(argv: &[OsString]) -> Mode {
    let name = argv.first().and_then(|a| Path::new(a).file_name()).map(|n| n.as_bytes().to_vec()).unwrap_or_default();
    if contains(&name, b"redis-sentinel") || argv.iter().skip(1).any(|a| a == "--sentinel") {
        eprintln!(
            "Hexad {HEXAD_VERSION} has no Sentinel mode. Run redis-sentinel of Redis {REDIS_VERSION}; it monitors this \
             server like any other."
        );
        return Mode::Done(1);
    }
    let Some(first) = argv.get(1) else { return Mode::Serve };
    match first.as_bytes() {
        b"-v" | b"--version" => {
            println!("{}", version_line());
            Mode::Done(0)
        }
        b"-h" | b"--help" => {
            eprint!("{}", usage());
            Mode::Done(1)
        }
        b"--test-memory" => match argv.get(2).filter(|_| argv.len() == 3) {
            Some(megabytes) => Mode::Done(memory_test::run(megabytes)),
            None => {
                eprintln!("Please specify the amount of memory to test in megabytes.");
                eprintln!("Example: ./redis-server --test-memory 4096\n");
                Mode::Done(1)
            }
        },
        b"--check-system" => Mode::Done(checks::check_system()),
        _ => Mode::Serve,
    }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}

/// Names the version this server is compatible with, as tools read it, and its own.
pub fn version_line() -> String {
    format!(
        "Redis server v={REDIS_VERSION} sha=00000000:0 malloc={} bits=64 build={} hexad={HEXAD_VERSION}",
        alloc::name(),
        crate::admin::build_id()
    )
}

fn usage() -> String {
    let mut text = String::new();
    for (i, form) in [
        "[/path/to/redis.conf] [options] [-]",
        "- (read config from stdin)",
        "-v or --version",
        "-h or --help",
        "--test-memory <megabytes>",
        "--check-system",
    ]
    .iter()
    .enumerate()
    {
        text += &format!("{} ./redis-server {form}\n", if i == 0 { "Usage:" } else { "      " });
    }
    text += "\nExamples:\n";
    for example in [
        "./redis-server (run the server with default conf)",
        "echo 'maxmemory 128mb' | ./redis-server -",
        "./redis-server /etc/redis/6379.conf",
        "./redis-server --port 7777",
        "./redis-server --port 7777 --replicaof 127.0.0.1 8888",
        "./redis-server /etc/myredis.conf --loglevel verbose -",
        "./redis-server /etc/myredis.conf --loglevel verbose",
    ] {
        text += &format!("       {example}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_names_both() {
        let line = version_line();
        assert!(line.starts_with("Redis server v=7.2.6 sha=00000000:0 malloc=jemalloc-"), "{line}");
        assert!(line.ends_with(&format!("hexad={HEXAD_VERSION}")));
    }
}
