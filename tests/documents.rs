//! The documents do what they say: what they show in `sh` blocks is run, in order, in a folder of its own, and what follows in a
//! `text` block is what it prints. In it `...` stands for anything.
//!
//! Ports are exchanged for free ones, and the paths of Hexad and of Redis for those of the programs that are tried.

use crate::common;

use common::{CLI, SERVER, free_port, in_root, left_out, real_redis, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

/// Ports that documents use.
const PORTS: [u16; 12] = [6379, 6380, 9121, 7000, 7001, 7002, 7003, 7004, 7005, 7006, 7007, 7008];

/// A document being tried.
struct Walk {
    _alone: MutexGuard<'static, ()>,
    dir: tempfile::TempDir,
    /// As documents name ports, and those in their place.
    ports: Vec<(u16, u16)>,
    name: &'static str,
}

impl Drop for Walk {
    /// Ends what it started: processes that work in its folder. A port may be another's by now.
    fn drop(&mut self) {
        let Ok(dir) = fs::canonicalize(&self.dir) else { return };
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&dir)) {
                let _ = Command::new("kill").arg("-KILL").arg(entry.file_name()).stderr(Stdio::null()).status();
            }
        }
    }
}

/// Who is moved from and back to: a Redis, or who is named, a Valkey say.
fn other_server() -> PathBuf {
    std::env::var_os("MIGRATE_WITH").map_or_else(real_redis, PathBuf::from)
}

/// One after the other: on a machine that is busy with two clusters, nodes take each other for failed.
static WALKS: Mutex<()> = Mutex::new(());

/// What a document shows: commands, and what they print if that is told.
struct Step {
    /// The heading that it stands under.
    part: String,
    line: usize,
    script: String,
    prints: Option<String>,
}

fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let (mut block, mut part, mut kind, mut follows) = (String::new(), String::new(), None, false);
    for (number, line) in text.lines().enumerate() {
        match (kind, line.strip_prefix("```")) {
            (None, Some(name)) => kind = Some(name),
            (Some("sh"), Some(_)) => {
                let line = number + 1;
                steps.push(Step { part: part.clone(), line, script: std::mem::take(&mut block), prints: None });
                (kind, follows) = (None, true);
            }
            (Some(name), Some(_)) => {
                let shown = std::mem::take(&mut block);
                if name == "text" && follows {
                    steps.last_mut().unwrap().prints = Some(shown);
                }
                (kind, follows) = (None, false);
            }
            (Some(_), None) => block += &format!("{line}\n"),
            (None, None) => {
                part = line.strip_prefix("## ").map_or(part, str::to_owned);
                follows &= line.trim().is_empty();
            }
        }
    }
    steps
}

/// The functions that a script defines.
fn functions_of(script: &str) -> String {
    let (mut functions, mut is_within) = (String::new(), false);
    for line in script.lines() {
        is_within |=
            line.split_once("() {").is_some_and(|(name, _)| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        if is_within {
            functions += &format!("{line}\n");
            is_within = !line.ends_with('}');
        }
    }
    functions
}

/// Whether a text is what was told, in which `...` stands for anything, also for several lines.
fn fits(told: &str, text: &str) -> bool {
    let mut parts = told.split("...");
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (i, part) in parts.iter().enumerate() {
        let at = if i + 1 == parts.len() { rest.strip_suffix(part).map(str::len) } else { rest.find(part) };
        match at {
            Some(at) => rest = &rest[at + part.len().min(rest.len() - at)..],
            None => return false,
        }
    }
    !parts.is_empty() || rest.is_empty()
}

impl Walk {
    fn new(name: &'static str) -> Walk {
        let alone = WALKS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let dir = tempfile::tempdir().unwrap();
        let ports = PORTS.map(|port| (port, free_port())).to_vec();
        let walk = Walk { _alone: alone, dir, ports, name };
        let program = |name: &str, text: &str| walk.program(name, text);
        program("redis-server", &format!("exec {SERVER} \"$@\""));
        let port = walk.port(6379);
        // The usual port is another here.
        program(
            "redis-cli",
            &format!(
                "case \" $*\" in *' -p '*|*' -u '*|*' --cluster '*|*' -s '*) ;; *) set -- -p {port} \"$@\" ;; esac\nexec {CLI} \"$@\""
            ),
        );
        for name in ["redis-check-aof", "redis-check-rdb"] {
            std::os::unix::fs::symlink(SERVER, walk.bin().join(name)).unwrap();
        }
        fs::copy(in_root("conf/redis.conf"), walk.dir.path().join("redis.conf")).unwrap();
        walk
    }

    fn bin(&self) -> PathBuf {
        let bin = self.dir.path().join(".bin");
        fs::create_dir_all(&bin).unwrap();
        bin
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.bin().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn port(&self, named: u16) -> u16 {
        self.ports.iter().find(|(name, _)| *name == named).unwrap().1
    }

    /// With ports and programs that are there.
    fn placed(&self, text: &str) -> String {
        let text = self
            .ports
            .iter()
            .fold(text.to_owned(), |text, (named, port)| text.replace(&named.to_string(), &format!("<{port}>")));
        // Numbers that are put in must not be taken for others.
        let text =
            self.ports.iter().fold(text, |text, (_, port)| text.replace(&format!("<{port}>"), &port.to_string()));
        let text = text.replace("/usr/local/bin/redis-server", SERVER).replace("/usr/local/bin/redis-cli", CLI);
        if text.contains("/usr/bin/redis-server") {
            return text.replace("/usr/bin/redis-server", &other_server().display().to_string());
        }
        text
    }

    fn run(&self) {
        self.run_parts(|_| true);
    }

    fn run_parts(&self, is_meant: impl Fn(&str) -> bool) {
        let path = in_root("docs").join(self.name);
        let text = fs::read_to_string(path).unwrap();
        let steps: Vec<Step> = steps(&text).into_iter().filter(|step| is_meant(&step.part)).collect();
        assert!(!steps.is_empty());
        let path = format!("{}:{}", self.bin().display(), std::env::var("PATH").unwrap());
        // Functions last, as they would in one's shell.
        let mut functions = String::new();
        for step in steps {
            let script = self.placed(&step.script);
            let own = functions_of(&script);
            let script = format!("set -eu\n{functions}{script}");
            functions += &own;
            // Some wait for what might never come.
            let mut sh = Command::new("timeout");
            sh.args(["120", "sh", "-c", &script])
                .current_dir(self.dir.path())
                .env("PATH", &path)
                .env("REDISCLI_HISTFILE", "/dev/null");
            // What is started in the background must not hold the output open.
            let (out, err) = (self.dir.path().join(".out"), self.dir.path().join(".err"));
            let begun = std::time::Instant::now();
            let status = sh
                .stdin(Stdio::null())
                .stdout(fs::File::create(&out).unwrap())
                .stderr(fs::File::create(&err).unwrap())
                .status()
                .unwrap();
            let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
            let (printed, error, place) = (text(&out), text(&err), format!("docs/{}, line {}", self.name, step.line));
            println!("{place}: {:?}", begun.elapsed());
            assert!(status.success(), "{place}: {status}\n{script}\n{printed}\n{error}");
            if let Some(told) = step.prints.map(|told| self.placed(&told)) {
                assert!(fits(&told, &printed), "{place}: {script}\ntold:\n{told}\nprinted:\n{printed}\n{error}");
            }
        }
    }
}

#[test]
fn texts_fit_with_gaps() {
    for (told, text, expected) in [
        ("a\n", "a\n", true),
        ("a\n", "ab\n", false),
        ("a\n", "", false),
        ("...\n", "anything\nof all\n", true),
        ("a...c\n", "abc\nabc\n", true),
        ("a...b...c\n", "a-b-c\n", true),
        ("a...b...c\n", "a-c\n", false),
        ("a...\n", "b\n", false),
    ] {
        assert_eq!(fits(told, text), expected, "{told:?} {text:?}");
    }
}

/// README has a choice of the figures, and leads to documents that are there.
#[test]
fn the_readme_agrees_with_the_documents() {
    let read = |name: &str| fs::read_to_string(in_root(name)).unwrap();
    let (readme, performance) = (read("README.md"), read("docs/PERFORMANCE.md"));
    let measured = readme.split("## Measured").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = measured.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 3);
    for row in rows {
        let (_, figures) = row[2..].split_once(" | ").unwrap();
        assert!(performance.contains(&format!("| {figures}\n")), "{row}");
    }
    for named in
        readme.split('`').skip(1).step_by(2).filter(|text| text.starts_with("docs/") || text.starts_with("utils/"))
    {
        let path = named.split(' ').next().unwrap();
        assert!(in_root(path).exists(), "{path}");
    }
}

#[test]
fn start_does_what_it_says() {
    if Command::new("curl").arg("--version").output().is_err() {
        return left_out("there is no curl");
    }
    Walk::new("START.md").run();
}

#[test]
fn cluster_does_what_it_says() {
    Walk::new("CLUSTER.md").run();
}

#[test]
fn persistence_does_what_it_says() {
    Walk::new("PERSISTENCE.md").run();
}

/// All the while a client writes, to whoever takes it, and in the end everything that was acknowledged is there.
#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn migrating_does_what_it_says_and_loses_nothing() {
    let walk = Walk::new("MIGRATING.md");
    let (old, new) = (walk.port(6379), walk.port(6380));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut acknowledged, mut longest) = (0, std::time::Duration::ZERO);
            let (mut at, mut connection): (usize, Option<redis::Connection>) = (0, None);
            let mut last = std::time::Instant::now();
            while !stop.load(Ordering::Relaxed) {
                let port = [old, new][at];
                let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
                connection = connection.or_else(|| client.get_connection().ok());
                let written = connection.as_mut().map(|c| redis::cmd("INCR").arg("writes").query::<i64>(c));
                if let Some(Ok(_)) = written {
                    longest = longest.max(if acknowledged > 0 { last.elapsed() } else { longest });
                    (acknowledged, last) = (acknowledged + 1, std::time::Instant::now());
                } else {
                    // Not here (any more): the other one, as whoever follows a name or a proxy would.
                    (connection, at) = (None, 1 - at);
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            (acknowledged, longest)
        });
        let result =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| walk.run_parts(|part| !part.contains("cluster"))));
        let value = || {
            let out = Command::new(CLI).args(["-p", &old.to_string(), "get", "writes"]).output().unwrap();
            String::from_utf8_lossy(&out.stdout).trim().parse::<i64>().unwrap_or_default()
        };
        stop.store(true, Ordering::Relaxed);
        let (acknowledged, longest) = writer.join().unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
        println!("{acknowledged} writes were acknowledged, the longest time without one was {longest:?}");
        assert!(acknowledged > 20, "{acknowledged}");
        // One whose acknowledgement did not come may have counted, too.
        wait_for(5, "all that was acknowledged is there", || value() >= acknowledged);
        assert!(value() <= acknowledged + 5, "{} of {acknowledged}", value());
    });
}

#[test]
#[cfg_attr(not(has_redis_7_2), ignore = "no redis-server 7.2 is installed")]
fn migrating_a_cluster_does_what_it_says() {
    Walk::new("MIGRATING.md").run_parts(|part| part.contains("cluster"));
}
