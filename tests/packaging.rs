//! What people install and run: `make install`, the package for Debian, manifests for Kubernetes and compose, the Dockerfile.

use crate::common;

use common::{SERVER, TestServer, has_yaml, in_root, is_there, left_out, output, run, text};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The folder with our programs.
fn programs() -> &'static Path {
    Path::new(SERVER).parent().unwrap()
}

#[test]
fn make_install_brings_programs_manual_and_completions() {
    let dir = tempfile::tempdir().unwrap();
    let (built, dest) = (format!("BUILT={}", programs().display()), format!("DESTDIR={}", dir.path().display()));
    let mut make = Command::new("make");
    // Building is cargo's business, and done.
    make.args(["-s", "-o", "build", "install", &built, &dest, "PREFIX=/usr"]);
    make.env_remove("MAKEFLAGS").env_remove("MAKELEVEL");
    text(&mut make);
    let installed = |name: &str| dir.path().join("usr").join(name);
    for name in ["redis-server", "redis-cli", "redis-benchmark", "redis-check-aof", "redis-check-rdb"] {
        let mode = fs::metadata(installed("bin").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755, "{name}");
        let page = fs::read_to_string(installed("share/man/man1").join(format!("{name}.1"))).unwrap();
        assert!(page.starts_with(".TH "), "{page}");
    }
    assert!(text(Command::new(installed("bin/redis-server")).arg("--version")).contains("hexad="));
    // What bash offers at the end of a line.
    let offered = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let script = format!(
            "source \"$1\"; COMP_WORDS=({}); COMP_CWORD={}; _redis_cli; echo \"${{COMPREPLY[@]}}\"",
            words.iter().map(|word| format!("'{word}' ")).collect::<String>(),
            words.len() - 1
        );
        let completions = installed("share/bash-completion/completions/redis-cli");
        text(Command::new("bash").args(["-c", &script, "bash"]).arg(completions)).trim().to_owned()
    };
    for (line, expected) in [
        ("redis-cli --cluster cr", "create"),
        ("redis-cli -p 7000 config re", "resetstat rewrite"),
        ("redis-cli CONFIG RE", "RESETSTAT REWRITE"),
        ("redis-cli set key value KE", "KEEPTTL"),
        ("redis-cli --cluster create a:1 --cluster-y", "--cluster-yes"),
        ("redis-cli -p ", ""),
        ("redis-cli hgetal", "hgetall"),
    ] {
        assert_eq!(offered(line), expected, "{line}");
    }
    zsh_offers(&installed("share/zsh/site-functions/_redis-cli"));
    fish_offers(&installed("share/fish/vendor_completions.d/redis-cli.fish"));
}

/// Programs that make puts into `src` are no change of the source: they would have all of it built again by `make install`.
#[test]
fn what_make_leaves_is_not_built_again_for() {
    let told = fs::read_to_string(Path::new(env!("OUT_DIR")).join("../output")).unwrap();
    let watched: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("cargo:rerun-if-changed=")).collect();
    assert!(["src/lib.rs", "src/bin", "src/server"].iter().all(|path| watched.contains(path)), "{watched:?}");
    let made = ["src", "src/redis-server", "src/redis-cli", "src/redis-benchmark", "src/redis-trib.rb"];
    assert!(made.iter().all(|path| !watched.contains(path)), "{watched:?}");
}

/// What completes only within its editor only tells here.
fn zsh_offers(completions: &Path) {
    if !is_there("zsh") {
        return left_out("there is no zsh");
    }
    for (line, expected) in [
        ("CONFIG re", "resetstat:Sets statistics back to zero."),
        ("set key value ke", "KEEPTTL"),
        ("hget", "hgetall:Gives all fields of a hash with their values."),
    ] {
        let script = "_arguments() { state=command; return 1 }
            _describe() { print -l -- ${(P)4} }
            compadd() { print -l -- ${(P)@[-1]} }
            offer() { local -a words=(${=2}); local CURRENT=$#words; source $1 }
            offer $1 $2";
        let mut zsh = Command::new("zsh");
        let told = text(zsh.args(["-f", "-c", script, "zsh"]).arg(completions).arg(line));
        assert!(told.lines().any(|told| told == expected), "{line}: {told}");
    }
}

fn fish_offers(completions: &Path) {
    if !is_there("fish") {
        return left_out("there is no fish");
    }
    for (line, expected) in [
        ("redis-cli -p 7000 CONFIG re", "resetstat rewrite"),
        ("redis-cli set k v KE", "KEEPTTL"),
        ("redis-cli hgetal", "hgetall"),
        ("redis-cli --cluster cr", "create"),
        ("redis-cli --cluster create a:1 --cluster-y", "--cluster-yes"),
    ] {
        let script = "source $argv[1]; complete -C $argv[2]";
        let mut fish = Command::new("fish");
        let home = tempfile::tempdir().unwrap();
        fish.args(["--no-config", "-c", script]).arg(completions).arg(line).env("HOME", home.path());
        let told = text(&mut fish);
        let words: Vec<&str> = told.lines().map(|told| told.split('\t').next().unwrap()).collect();
        assert_eq!(words.join(" "), expected, "{line}");
    }
}

#[test]
fn the_package_for_debian_installs_and_goes() {
    let out = output(Command::new("utils/package/try").arg(programs()));
    let told = String::from_utf8_lossy(&out.stdout);
    match out.status.code() {
        Some(0) => assert!(told.ends_with("the package was installed, upgraded, removed and purged\n"), "{told}"),
        Some(77) => left_out(told.trim()),
        code => panic!("{code:?}: {told}{}", String::from_utf8_lossy(&out.stderr)),
    }
}

/// systemd reads the units without a complaint; the program is elsewhere here.
#[test]
fn the_units_are_sound() {
    if !is_there("systemd-analyze") {
        return left_out("there is no systemd-analyze");
    }
    let dir = tempfile::tempdir().unwrap();
    for name in ["redis-server.service", "redis-server@.service"] {
        let unit = fs::read_to_string(in_root("utils/systemd").join(name)).unwrap();
        let there = unit.replace("/usr/local/bin/redis-server", SERVER);
        assert_ne!(unit, there);
        fs::write(dir.path().join(name), there).unwrap();
    }
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["verify", "--man=no", "--recursive-errors=no"]);
    let out =
        output(analyze.arg(dir.path().join("redis-server.service")).arg(dir.path().join("redis-server@7000.service")));
    assert!(out.status.success() && out.stderr.is_empty(), "{out:?}");
}

/// The units leave the server no more than it needs, as systemd counts it (in tenths), and both the same.
#[test]
fn the_units_shut_the_server_in() {
    let read = |name: &str| fs::read_to_string(in_root("utils/systemd").join(name)).unwrap();
    let (one, by_name) = (read("redis-server.service"), read("redis-server@.service"));
    let confines = |unit: &str| -> Vec<String> {
        let kept =
            ["Protect", "Private", "Restrict", "SystemCall", "Capability", "ReadWrite", "Limit", "NoNew", "Memory"];
        unit.lines().filter(|line| kept.iter().any(|word| line.starts_with(word))).map(str::to_owned).collect()
    };
    assert_eq!(confines(&one), confines(&by_name));
    assert!(confines(&one).len() > 15, "{one}");
    let can = || output(Command::new("systemd-analyze").arg("--version")).stdout;
    let version = is_there("systemd-analyze").then(can).unwrap_or_default();
    let version = String::from_utf8_lossy(&version).split(' ').nth(1).and_then(|v| v.parse().ok()).unwrap_or(0);
    if version < 250 {
        return left_out("there is no systemd-analyze that reads files");
    }
    for name in ["redis-server.service", "redis-server@.service"] {
        let mut analyze = Command::new("systemd-analyze");
        analyze.args(["security", "--no-pager", "--offline=true", "--threshold=20"]);
        let out = output(analyze.arg(in_root("utils/systemd").join(name)));
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    }
}

const CLUSTER: &str = "utils/kubernetes/redis-cluster.yaml";

#[test]
fn manifests_and_compose_file_are_sound() {
    if !has_yaml() {
        return;
    }
    let files = ["utils/kubernetes/redis.yaml", CLUSTER, "utils/container/compose.yaml"];
    text(Command::new("utils/kubernetes/check").args(files));
    // The schemas of Kubernetes, from the package of this name for Python.
    if is_there("kubernetes-validate") {
        text(Command::new("kubernetes-validate").args(["--strict", "--quiet"]).args(&files[..2]));
    }
    // Images are those of this version.
    let image = format!("hexad:{}", env!("CARGO_PKG_VERSION"));
    for file in files.into_iter().chain(["Dockerfile"]) {
        let named = fs::read_to_string(in_root(file)).unwrap();
        let images: Vec<&str> = named.split_whitespace().filter(|word| word.starts_with("hexad:")).collect();
        assert!(!images.is_empty() && images.iter().all(|named| *named == image), "{file}: {images:?}");
    }
    // What is wrong is found.
    let broken = fs::read_to_string(in_root(CLUSTER)).unwrap().replace("targetPort: bus", "targetPort: bas");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.yaml"), broken).unwrap();
    let out = output(Command::new("utils/kubernetes/check").arg(dir.path().join("x.yaml")));
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stdout).contains("no container has a port bas"));
}

/// The configuration of the other manifest is understood.
#[test]
fn the_server_of_the_manifest_runs() {
    if !has_yaml() {
        return;
    }
    let args = ["--value", "utils/kubernetes/redis.yaml", "ConfigMap", "redis-config", "redis.conf"];
    let text = text(Command::new("utils/kubernetes/check").args(args));
    let own = |line: &&str| !line.starts_with("dir ") && !line.starts_with("admin-port ") && !line.starts_with('#');
    let options: Vec<String> =
        text.lines().filter(own).filter(|line| !line.starts_with("include ")).map(|line| format!("--{line}")).collect();
    let words: Vec<&str> = options.iter().flat_map(|line| line.split(' ')).collect();
    let server = TestServer::start(&words);
    assert_eq!(run::<Vec<String>>(&mut server.connect(), &["CONFIG", "GET", "appendonly"])[1], "yes");
    assert!(server.log().lines().all(|line| line.starts_with("{\"pid\":")));
}

/// Rules that builders of images go by.
#[test]
fn the_dockerfile_keeps_to_the_rules() {
    let text = fs::read_to_string(in_root("Dockerfile")).unwrap().replace("\\\n", " ");
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
    let of = |word: &str| -> Vec<&str> {
        lines.iter().filter_map(|line| line.strip_prefix(word)?.strip_prefix(' ')).collect()
    };
    for image in of("FROM") {
        let (_, tag) = image.split(' ').next().unwrap().split_once(':').expect("a tag");
        assert!(tag != "latest" && tag.contains("slim"), "{image}");
    }
    let rust = of("FROM")[0];
    let manifest = fs::read_to_string(in_root("Cargo.toml")).unwrap();
    let least = manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap().trim_matches('"');
    assert!(rust.starts_with(&format!("rust:{least}-")), "{rust} is not what Cargo.toml asks for");
    for line in of("RUN").into_iter().filter(|line| line.contains("apt-get install")) {
        let is_clean = line.contains("apt-get update") && line.contains("rm -rf /var/lib/apt/lists/*");
        assert!(is_clean && line.contains("--no-install-recommends") && line.contains(" -y "), "{line}");
    }
    assert!(of("ADD").is_empty() && of("MAINTAINER").is_empty());
    assert!(of("WORKDIR").iter().all(|path| path.starts_with('/')));
    for word in ["CMD", "ENTRYPOINT"] {
        assert_eq!(of(word).len(), 1, "{word}");
        assert!(of(word)[0].starts_with("[\""), "{word} is no list");
    }
    assert!(of("HEALTHCHECK")[0].contains("CMD [\""));
    // What is copied from here is here, and what the build needs is not left out.
    let ignored = fs::read_to_string(in_root(".dockerignore")).unwrap();
    for line in of("COPY").into_iter().filter(|line| !line.contains("--from=")) {
        let from = line.split(' ').find(|word| !word.starts_with("--")).unwrap();
        assert!(in_root(from).exists(), "{from}");
    }
    for needed in ["src", "conf", "utils", "build.rs", "Makefile", "Cargo.lock"] {
        assert!(ignored.lines().all(|line| line.trim_end_matches('/') != needed), "{needed} is left out");
    }
}
