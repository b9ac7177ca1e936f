//! The house keeps its shape: leaves know nothing of rooms, and files stay readable at one sitting.

use std::fs;
use std::path::{Path, PathBuf};

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

fn all(dir: &str) -> Vec<PathBuf> {
    let mut out = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut out);
    assert!(!out.is_empty());
    out
}

/// The rooms, from the top of the house to its floor: what stands on one line may use what stands on lines below.
const FLOORS: &[&[&str]] = &[
    &["bin"],
    &["manual"],
    &["cli", "bench"],
    &["server"],
    &["commands", "script"],
    &["cluster", "repl", "persist", "pubsub", "tracking", "acl", "admin"],
    &["keyspace"],
    &["net"],
    &["catalog"],
    &["config"],
    &["sys"],
    &["resp"],
    &["structs"],
];
/// What may be used on the same floor: user and used.
const BESIDE: &[(&str, &str)] = &[("bench", "cli")];

fn floor_of(room: &str) -> usize {
    FLOORS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("{room} stands on no floor"))
}

/// The rooms that a line of code names.
fn named_rooms(line: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices("crate::")
        .flat_map(|(at, path)| {
            let rest = &line[at + path.len()..];
            match rest.strip_prefix('{') {
                Some(list) => list.split(", ").map(|part| part.split(|c| !is_name(c)).next().unwrap()).collect(),
                None => vec![rest.split(|c| !is_name(c)).next().unwrap()],
            }
        })
        .collect()
}

/// Arrows run downwards. Unit tests alone may look up: to the table of all commands, say.
#[test]
fn rooms_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in all("src") {
        let shown = path.strip_prefix(&src).unwrap().display().to_string();
        let room = shown.split(['/', '.']).next().unwrap();
        if room == "lib" || shown.ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\n#[cfg(test)]\nmod tests").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for used in named_rooms(line) {
                let is_below = floor_of(used) > floor_of(room) || used == room;
                if !is_below && !BESIDE.contains(&(room, used)) {
                    wrong.push(format!("{shown}: {line}"));
                }
            }
            // Whoever could call anything could not be read, tested or changed alone.
            if line.starts_with("impl Server ") && room != "server" {
                wrong.push(format!("{shown}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn rooms_are_found_in_lines() {
    assert_eq!(named_rooms("use crate::{config, net::ClientId};"), ["config", "net"]);
    assert_eq!(named_rooms("let a = crate::net::a(crate::sys::b);"), ["net", "sys"]);
    assert!(named_rooms("use std::net;").is_empty());
}

/// Unsafe code is in `structs`, `sys` and the script interface only.
#[test]
fn unsafe_stays_where_it_is_allowed() {
    for path in all("src") {
        let text = fs::read_to_string(&path).unwrap();
        let shown = path.display().to_string();
        let allowed = ["src/structs/", "src/sys/", "src/script/"].iter().any(|d| shown.contains(d));
        assert!(allowed || !text.contains("unsafe_code)"), "{shown} allows unsafe code");
    }
}

#[test]
fn every_file_says_what_it_owns() {
    for path in all("src") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("//!"), "{} opens without a description", path.display());
    }
}

/// A file of tests that no program has would never run.
#[test]
fn every_file_of_tests_is_part_of_a_program() {
    let groups = all("tests/groups").iter().map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let is_named = groups.contains(&format!("\"../{name}\""));
        assert!(is_named || !name.ends_with(".rs"), "{name} is in no file of tests/groups");
    }
}

/// Names of tests and files that the documents give are there to be found.
#[test]
fn documents_name_tests_that_exist() {
    let code: String = all("src").iter().chain(&all("tests")).map(|path| fs::read_to_string(path).unwrap()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in ["docs/ADVISORIES.md", "docs/ADVISORIES-LUA.md", "docs/ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let quoted = || text.split('`').skip(1).step_by(2);
        let is_path = |text: &&str| text.ends_with(".rs") && ["src/", "tests/"].iter().any(|dir| text.starts_with(dir));
        for path in quoted().filter(is_path) {
            assert!(root.join(path).is_file(), "{document}: {path}");
        }
        // Long names in small letters are those of tests.
        let is_test = |name: &&str| name.len() > 20 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        for name in quoted().filter(is_test) {
            assert!(code.contains(&format!("fn {name}(")), "{document}: {name}");
        }
    }
}
