//! What people install and run: `make install`, the package for Debian, manifests for Kubernetes and compose, the image.

mod common;

use common::{CLI, SERVER, TestServer, free_port, is_there, left_out, run, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The folder with our programs.
fn programs() -> &'static Path {
    Path::new(SERVER).parent().unwrap()
}

fn in_root(path: &str) -> PathBuf {
    Path::new(ROOT).join(path)
}

fn output(command: &mut Command) -> Output {
    command.current_dir(ROOT).output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Its standard output, when it ends well.
fn text(command: &mut Command) -> String {
    let out = output(command);
    let (told, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{told}\n{error}", out.status);
    told.into_owned()
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

/// Whether manifests can be read here.
fn has_yaml() -> bool {
    let has = Command::new("python3").args(["-c", "import yaml"]).output().is_ok_and(|out| out.status.success());
    if !has {
        left_out("there is no python3 with yaml");
    }
    has
}

const CLUSTER: &str = "utils/kubernetes/redis-cluster.yaml";

#[test]
fn manifests_and_compose_file_are_sound() {
    if !has_yaml() {
        return;
    }
    let files = ["utils/kubernetes/redis.yaml", CLUSTER, "utils/container/compose.yaml"];
    text(Command::new("utils/kubernetes/check").args(files));
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

/// The pods of the manifest, each as a process at an address of its own, and its scripts.
#[test]
fn the_cluster_of_the_manifest_forms_hands_over_and_moves() {
    if !has_yaml() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let value = |name: &str, key: &str| {
        let args = ["--value", CLUSTER, "ConfigMap", name, key];
        text(Command::new("utils/kubernetes/check").args(args))
    };
    for key in ["redis.conf", "create", "hand-over"] {
        // Each pod has a volume at /data.
        fs::write(dir.path().join(key), value("redis-cluster-config", key).replace("dir /data\n", "")).unwrap();
    }
    let (conf, port) = (dir.path().join("redis.conf").display().to_string(), free_port().to_string());
    let args = text(Command::new("utils/kubernetes/check").args(["--args", CLUSTER, "redis-cluster"]));
    // Each with its volume, at this address and those after it.
    let start = |n: usize, first: usize| {
        let (ip, name) = (format!("127.0.0.{}", first + n), format!("redis-cluster-{n}"));
        let words = args.lines().skip(1).map(|word| {
            word.replace("/etc/redis/redis.conf", &conf).replace("$(POD_IP)", &ip).replace("$(POD_NAME)", &name)
        });
        let data = dir.path().join(&name);
        fs::create_dir_all(&data).unwrap();
        let data = data.display().to_string();
        let own = ["--dir", &data, "--port", &port, "--bind", &ip, "--admin-port", "0", "--logfile", "log"];
        let mut server = Command::new(SERVER);
        Pod { child: server.args(words).args(own).spawn().unwrap(), ip }
    };
    let mut pods: Vec<Pod> = (0..6).map(|n| start(n, 11)).collect();
    // Names lead to pods, and a pod's redis-cli to its own server.
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let program = |name: &str, text: &str| {
        fs::write(bin.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    program("getent", "n=${2#redis-cluster-}; echo \"127.0.0.$((11 + ${n%%.*}))  STREAM $2\"");
    program(
        "redis-cli",
        &format!(
            "case \"$*\" in *-h*|*-u*|--cluster*) ;; *) set -- -h \"$POD\" -p \"$PORT\" \"$@\" ;; esac\nexec {CLI} \"$@\""
        ),
    );
    let sh = |script: &str, pod: &Pod| {
        let path = format!("{}:/usr/bin:/bin", bin.display());
        let mut sh = Command::new("sh");
        sh.arg(dir.path().join(script)).env("PATH", path).env("PORT", &port).env("POD", &pod.ip);
        text(sh.env("NODES", "6").env("REPLICAS", "1"))
    };
    let ask = |pod: &Pod, words: &[&str]| text(Command::new(CLI).args(["-h", &pod.ip, "-p", &port]).args(words));
    let answers = |pod: &Pod| output(Command::new(CLI).args(["-h", &pod.ip, "-p", &port, "ping"])).stdout == b"PONG\n";
    wait_for(20, "they run", || pods.iter().all(answers));
    let told = sh("create", &pods[0]);
    assert!(told.contains("[OK] All 16384 slots covered."), "{told}");
    wait_for(20, "the cluster is up", || ask(&pods[0], &["cluster", "info"]).contains("cluster_state:ok"));
    assert_eq!(sh("create", &pods[0]), "", "it is there");
    assert!(ask(&pods[0], &["cluster", "nodes"]).contains("127.0.0.16:"));
    // A master hands over before it ends; a replica has nothing to hand over.
    let role = |pod: &Pod| ask(pod, &["info", "replication"]).lines().nth(1).unwrap().trim().to_owned();
    assert_eq!(role(&pods[0]), "role:master");
    wait_for(30, "its replica follows", || ask(&pods[0], &["info", "replication"]).contains("state=online"));
    let told = sh("hand-over", &pods[0]);
    assert_eq!(role(&pods[0]), "role:slave", "{told}");
    let masters = |pods: &[Pod]| pods.iter().filter(|pod| role(pod) == "role:master").count();
    assert_eq!(masters(&pods), 3);
    sh("hand-over", &pods[0]);
    assert_eq!(masters(&pods), 3);
    // A pod that starts anew has another address, and tells the others.
    let is_up = |pods: &[Pod]| pods.iter().all(|pod| ask(pod, &["cluster", "info"]).contains("cluster_state:ok"));
    drop(pods.remove(0));
    pods.insert(0, start(0, 31));
    wait_for(20, "it is known again", || {
        answers(&pods[0]) && ask(&pods[5], &["cluster", "nodes"]).contains("127.0.0.31:") && is_up(&pods)
    });
    // If all have, one of them is told of the others.
    pods.clear();
    let pods: Vec<Pod> = (0..6).map(|n| start(n, 41)).collect();
    wait_for(20, "they run", || pods.iter().all(answers));
    pods[1..].iter().for_each(|pod| assert_eq!(ask(&pods[0], &["cluster", "meet", &pod.ip, &port]), "OK\n"));
    wait_for(30, "the cluster is up again", || is_up(&pods));
}

struct Pod {
    child: std::process::Child,
    ip: String,
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
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

/// What an image has to have beside our programs.
const TOOLS: [&str; 7] = ["sh", "id", "sed", "tr", "chown", "setpriv", "grep"];

/// A root with the entrypoint, the programs, a user and a folder for data.
fn image() -> Option<tempfile::TempDir> {
    let is_root = text(Command::new("id").arg("-u")) == "0\n";
    let mount = ["--mount", "--propagation", "private", "mount", "-t", "proc", "proc", "/proc"];
    let can = is_root && Command::new("unshare").args(mount).output().is_ok_and(|out| out.status.success());
    if !can {
        left_out("only root may have a root of its own");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let place = |from: &Path, to: &str| {
        let to = dir.path().join(to.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // No link: what happens in there must not reach the machine's own programs.
        if !to.exists() {
            fs::copy(from, &to).unwrap();
        }
    };
    let with_libraries = |path: &str, to: &str| {
        place(&fs::canonicalize(path).unwrap(), to);
        for word in text(Command::new("ldd").arg(path)).split_whitespace().filter(|word| word.starts_with('/')) {
            place(&fs::canonicalize(word).unwrap(), word);
        }
    };
    for tool in TOOLS {
        let path = text(Command::new("sh").args(["-c", "command -v \"$0\"", tool]));
        with_libraries(path.trim(), &format!("/bin/{tool}"));
    }
    with_libraries(SERVER, "/usr/local/bin/redis-server");
    with_libraries(CLI, "/usr/local/bin/redis-cli");
    let entrypoint = dir.path().join("usr/local/bin/docker-entrypoint.sh");
    fs::copy(in_root("utils/container/entrypoint"), &entrypoint).unwrap();
    fs::set_permissions(&entrypoint, fs::Permissions::from_mode(0o755)).unwrap();
    for (path, text) in
        [("etc/passwd", "root:x:0:0::/:/bin/sh\nredis:x:999:999::/data:/bin/sh\n"), ("etc/group", "redis:x:999:\n")]
    {
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join(path), text).unwrap();
    }
    for path in ["data", "proc", "tmp"] {
        fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    // Folders of tests are for their owner alone.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    Some(dir)
}

/// What the server is called with; here it only tells.
#[test]
fn the_entrypoint_leaves_protected_mode_to_those_who_name_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    file("redis-server", "#!/bin/sh\necho \"$*\"\n");
    file("id", "#!/bin/sh\necho 1000\n");
    file("plain.conf", "port 7000\n# protected-mode yes\n");
    file("own", "port 7000\n  Protected-Mode yes\n");
    file("outer.conf", "port 7000\ninclude \"in*.conf\"\n");
    file("inner.conf", "protected-mode yes\n");
    file("loop.conf", "include loop.conf\n");
    for (words, expected) in [
        ("", "--protected-mode no"),
        ("redis-server", "--protected-mode no"),
        ("--port 1", "--protected-mode no --port 1"),
        ("plain.conf", "plain.conf --protected-mode no"),
        // What comes later counts.
        ("plain.conf --protected-mode yes", "plain.conf --protected-mode no --protected-mode yes"),
        ("redis-server own --port 1", "own --port 1"),
        ("outer.conf", "outer.conf"),
        ("loop.conf", "loop.conf --protected-mode no"),
        ("redis-server missing", "missing --protected-mode no"),
        ("plain.conf -", "plain.conf -"),
        ("-", "-"),
        ("- --port 1", "- --port 1"),
        ("--test-memory 100", "--test-memory 100"),
        ("--version", "--version"),
        ("echo --port 1", "--port 1"),
    ] {
        let mut entrypoint = Command::new("sh");
        entrypoint.arg(in_root("utils/container/entrypoint")).args(words.split_whitespace());
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let out = entrypoint.current_dir(dir.path()).env("PATH", path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), expected, "{words}: {out:?}");
    }
}

#[test]
fn the_image_runs_as_root_and_as_somebody() {
    let Some(dir) = image() else { return };
    let data = dir.path().join("data");
    let start = |user: &str, words: &[&str]| {
        let script = "umask 0022; mount -t proc proc \"$1/proc\" && root=$1 user=$2 && shift 2 && cd / && \
                      exec chroot --userspec=\"$user\" \"$root\" /bin/sh -c 'cd /data; exec \"$0\" \"$@\"' \
                      /usr/local/bin/docker-entrypoint.sh \"$@\"";
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        // As a container has it; a language of this machine is not there.
        unshare.arg(dir.path()).arg(user).args(words).env_clear();
        unshare.env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
        Pod { child: unshare.stdout(Stdio::null()).spawn().unwrap(), ip: String::new() }
    };
    let ask = |words: &[&str]| {
        let socket = data.join("socket");
        let out = output(Command::new(CLI).arg("-s").arg(socket).args(words));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    };
    let owner = |name: &str| {
        let facts = fs::metadata(data.join(name)).unwrap();
        (std::os::unix::fs::MetadataExt::uid(&facts), facts.permissions().mode() & 0o777)
    };
    let options = ["--port", "0", "--unixsocket", "/data/socket", "--save", "900 1"];
    // A volume as it comes: of root.
    fs::write(data.join("of-root"), "").unwrap();
    for (user, uid, own) in [("0:0", "999", true), ("1234:1234", "1234", false)] {
        let number: u32 = uid.parse().unwrap();
        if !own {
            // Whoever comes with a user of its own has volumes for it.
            for entry in fs::read_dir(&data).unwrap().flatten().map(|e| e.path()).chain([data.clone()]) {
                std::os::unix::fs::chown(entry, Some(number), Some(number)).unwrap();
            }
        }
        let mut pod = start(user, &options);
        wait_for(20, "it answers", || ask(&["ping"]) == "PONG");
        let status = fs::read_to_string(format!("/proc/{}/status", pod.child.id())).unwrap();
        let fact = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap_or_default().to_owned()
        };
        assert_eq!(
            (fact("Name:").as_str(), fact("Uid:").as_str(), fact("Umask:").as_str()),
            ("redis-server", uid, "0077")
        );
        assert_eq!(fact("CapEff:"), "0000000000000000");
        assert_eq!(ask(&["config", "get", "protected-mode"]), "protected-mode\nno");
        assert_eq!((ask(&["set", "k", user]), ask(&["save"])), ("OK".into(), "OK".into()));
        assert_eq!(owner("dump.rdb"), (number, 0o600));
        assert_eq!(owner("of-root").0, number);
        // As `docker stop` does it.
        text(Command::new("kill").args(["-TERM", &pod.child.id().to_string()]));
        assert!(pod.child.wait().unwrap().success());
    }
    // Other programs run, too, as whoever was asked for.
    let mut pod = start("0:0", &["redis-cli", "--version"]);
    assert!(pod.child.wait().unwrap().success());
}
