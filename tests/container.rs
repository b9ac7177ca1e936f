//! What a container starts: the entrypoint under a plain shell, with programs that tell how they were called.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const ENTRYPOINT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/utils/container/entrypoint");

/// A folder with programs in the way of the real ones.
struct Image(TempDir);

impl Image {
    fn new() -> Image {
        let image = Image(tempfile::tempdir().unwrap());
        image.program("redis-server", "echo \"redis-server $* umask=$(umask)\"");
        image.program("redis-cli", "echo \"redis-cli $*\"");
        image.program("id", "echo ${FAKE_UID:-999}");
        image.program("chown", "echo \"chown $*\"");
        image.program("setpriv", "echo \"setpriv $1 $2 $3\"; shift 4; FAKE_UID=999 exec \"$@\"");
        image
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn folder(&self) -> &Path {
        self.0.path()
    }

    fn start(&self, uid: &str, words: &[&str]) -> String {
        let path = format!("{}:/usr/bin:/bin", self.folder().display());
        let mut shell = Command::new("sh");
        // The mask of a container.
        shell.args(["-c", "umask 0022; exec \"$0\" \"$@\"", ENTRYPOINT]).args(words);
        let output = shell.env("PATH", path).env("FAKE_UID", uid).current_dir(self.folder()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn options_and_configuration_files_mean_the_server() {
    let image = Image::new();
    fs::write(image.folder().join("own.conf"), "port 1\n").unwrap();
    for (words, called) in [
        (&[][..], "redis-server --protected-mode no umask=0077\n"),
        (&["--port", "7000"], "redis-server --protected-mode no --port 7000 umask=0077\n"),
        (&["own.conf", "--port", "2"], "redis-server own.conf --protected-mode no --port 2 umask=0077\n"),
        (&["redis-server", "own.conf"], "redis-server own.conf --protected-mode no umask=0077\n"),
        (&["redis-cli", "ping"], "redis-cli ping\n"),
    ] {
        assert_eq!(image.start("999", words), called);
    }
}

#[test]
fn protected_mode_stays_as_it_was_set() {
    let image = Image::new();
    fs::write(image.folder().join("strict.conf"), "# mine\n  Protected-Mode yes\n").unwrap();
    assert_eq!(image.start("999", &["strict.conf"]), "redis-server strict.conf umask=0077\n");
    // The last word counts.
    let words = ["--protected-mode", "yes"];
    let expected = "redis-server --protected-mode no --protected-mode yes umask=0077\n";
    assert_eq!(image.start("999", &words), expected);
}

#[test]
fn root_hands_the_files_over_and_steps_down() {
    let image = Image::new();
    let expected = "chown -R redis:redis /data\nsetpriv --reuid=redis --regid=redis --clear-groups\n\
                    redis-server --protected-mode no --save 1 1 umask=0077\n";
    assert_eq!(image.start("0", &["--save", "1", "1"]), expected);
    // Other programs run as whoever started them.
    assert_eq!(image.start("0", &["redis-cli", "ping"]), "redis-cli ping\n");
}
