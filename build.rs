//! What the program tells of its own making, and whether there is a real server that the tests can talk to.
//!
//! - `HEXAD_RUSTC`: version of the compiler.
//! - `HEXAD_COMMIT`, `HEXAD_DIRTY`: the commit that was built (8 hex digits), and 1 if the tree differs from it. In release
//!   builds from a git checkout alone, as others would be built anew for every commit.
//! - `cfg(has_redis)`: a redis-server is installed, or named by `REAL_REDIS_SERVER`. `cfg(has_redis_7_2)`: one that reads
//!   what we write. Tests that need one are ignored, and say so, where it is missing.
//! - `cfg(has_netns)`: whoever builds may make network namespaces, which tests cut from each other.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    watch_sources();
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = output(&rustc, &["--version"]);
    println!("cargo:rustc-env=HEXAD_RUSTC={}", version.split(' ').nth(1).unwrap_or("unknown"));
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        tell_commit();
    }
    println!("cargo:rustc-check-cfg=cfg(has_redis, has_redis_7_2, has_netns)");
    if has_netns() {
        println!("cargo:rustc-cfg=has_netns");
    }
    println!("cargo:rerun-if-env-changed=REAL_REDIS_SERVER");
    if let Some(real) = real_redis() {
        println!("cargo:rerun-if-changed={}", real.display());
        println!("cargo:rustc-cfg=has_redis");
        if version_of(&real) >= (7, 2) {
            println!("cargo:rustc-cfg=has_redis_7_2");
        }
    }
}

/// What lies in `src`, without the programs that make puts there: `make install` after `make` would build all of it once more.
/// What comes to it later has to be named by what is there, and is looked at then.
fn watch_sources() {
    for entry in std::fs::read_dir("src").into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() || path.extension().is_some_and(|end| end == "rs") {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}

/// What a program prints; nothing if it cannot be run or fails.
fn output(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> String {
    let run = Command::new(program).args(args).output();
    let text = run.ok().filter(|out| out.status.success()).map(|out| out.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_string()
}

fn tell_commit() {
    let commit = output("git", &["rev-parse", "--short=8", "HEAD"]);
    if commit.is_empty() {
        return;
    }
    println!("cargo:rerun-if-changed={}", output("git", &["rev-parse", "--git-path", "logs/HEAD"]));
    let dirty = !output("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    println!("cargo:rustc-env=HEXAD_COMMIT={commit}");
    println!("cargo:rustc-env=HEXAD_DIRTY={}", u8::from(dirty));
}

/// Whether a network namespace can be made here, and is gone again.
fn has_netns() -> bool {
    let name = format!("hx{}", std::process::id());
    let ip = |args: &[&str]| Command::new("ip").args(args).output().is_ok_and(|out| out.status.success());
    let made = ip(&["netns", "add", &name]);
    let works = made && ip(&["-n", &name, "link", "add", "sw", "type", "bridge"]);
    made && ip(&["netns", "del", &name]) && works
}

/// As `tests/common` looks for it.
fn real_redis() -> Option<PathBuf> {
    let named = std::env::var_os("REAL_REDIS_SERVER").map(PathBuf::from);
    let candidates = named.into_iter().chain(["/usr/bin/redis-server".into(), "/usr/local/bin/redis-server".into()]);
    candidates.into_iter().find(|path| path.exists())
}

/// Major and minor version of a redis-server.
fn version_of(server: &Path) -> (u32, u32) {
    let text = output(server, &["--version"]);
    let version = text.split("v=").nth(1).unwrap_or_default();
    let mut numbers = version.split(['.', ' ']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
