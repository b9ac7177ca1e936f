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

/// `structs` and `resp` import nothing of the project but each other's and their own.
#[test]
fn leaves_import_no_rooms() {
    for leaf in ["src/structs", "src/resp"] {
        for path in all(leaf) {
            for line in fs::read_to_string(&path).unwrap().lines() {
                let foreign = line.match_indices("crate::").any(|(i, _)| {
                    let rest = &line[i + 7..];
                    !rest.starts_with("structs") && !rest.starts_with("resp")
                });
                assert!(!foreign, "{}: {line}", path.display());
            }
        }
    }
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

/// Names of tests and files that the documents give are there to be found.
#[test]
fn documents_name_tests_that_exist() {
    let code: String = all("src").iter().chain(&all("tests")).map(|path| fs::read_to_string(path).unwrap()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for document in ["docs/ADVISORIES.md", "docs/ADVISORIES-LUA.md"] {
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
