//! What a container starts: the entrypoint, under a plain shell and as the image has it, and the containers of the compose file and
//! of the manifest for Kubernetes, each as a process with a network, names and a volume.

use crate::common;

use common::load::Load;
use common::network::{Network, address};
use common::{CLI, SERVER, has_yaml, in_root, left_out, output, text, wait_for};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const ENTRYPOINT: &str = "utils/container/entrypoint";
const COMPOSE: &str = "utils/container/compose.yaml";
const MANIFEST: &str = "utils/kubernetes/redis-cluster.yaml";

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
        shell.args(["-c", "umask 0022; exec \"$0\" \"$@\""]).arg(in_root(ENTRYPOINT)).args(words);
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
fn protected_mode_is_left_to_those_who_name_it() {
    let image = Image::new();
    for (name, text) in [
        ("plain.conf", "port 7000\n# protected-mode yes\n"),
        ("strict.conf", "# mine\n  Protected-Mode yes\n"),
        ("own", "port 7000\n  Protected-Mode yes\n"),
        ("outer.conf", "port 7000\ninclude \"in*.conf\"\n"),
        ("inner.conf", "protected-mode yes\n"),
        ("loop.conf", "include loop.conf\n"),
    ] {
        fs::write(image.folder().join(name), text).unwrap();
    }
    for (words, expected) in [
        ("", "--protected-mode no"),
        ("redis-server", "--protected-mode no"),
        ("--port 1", "--protected-mode no --port 1"),
        ("plain.conf", "plain.conf --protected-mode no"),
        // What comes later counts.
        ("plain.conf --protected-mode yes", "plain.conf --protected-mode no --protected-mode yes"),
        ("--protected-mode yes", "--protected-mode no --protected-mode yes"),
        ("strict.conf", "strict.conf"),
        ("redis-server own --port 1", "own --port 1"),
        ("outer.conf", "outer.conf"),
        ("loop.conf", "loop.conf --protected-mode no"),
        ("redis-server missing", "missing --protected-mode no"),
        ("plain.conf -", "plain.conf -"),
        ("-", "-"),
        ("- --port 1", "- --port 1"),
        ("--test-memory 100", "--test-memory 100"),
        ("--version", "--version"),
    ] {
        let started = image.start("999", &words.split_whitespace().collect::<Vec<_>>());
        assert_eq!(started, format!("redis-server {expected} umask=0077\n"), "{words}");
    }
    assert_eq!(image.start("999", &["echo", "--port", "1"]), "--port 1\n");
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
    fs::copy(in_root(ENTRYPOINT), &entrypoint).unwrap();
    fs::set_permissions(&entrypoint, fs::Permissions::from_mode(0o755)).unwrap();
    for (path, text) in [
        ("etc/passwd", "root:x:0:0::/:/bin/sh\nredis:x:999:999::/data:/bin/sh\n"),
        ("etc/group", "redis:x:999:\n"),
        ("etc/nsswitch.conf", "hosts: files\n"),
    ] {
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
        Running(unshare.stdout(Stdio::null()).spawn().unwrap())
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
        let mut container = start(user, &options);
        wait_for(20, "it answers", || ask(&["ping"]) == "PONG");
        let status = fs::read_to_string(format!("/proc/{}/status", container.0.id())).unwrap();
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
        text(Command::new("kill").args(["-TERM", &container.0.id().to_string()]));
        assert!(container.0.wait().unwrap().success());
    }
    // Other programs run, too, as whoever was asked for.
    let mut container = start("0:0", &["redis-cli", "--version"]);
    assert!(container.0.wait().unwrap().success());
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Containers of one image, each with a network and a volume of its own, that know each other by name.
struct Containers {
    /// `user:group` that they are started as.
    user: &'static str,
    image: TempDir,
    volumes: Vec<TempDir>,
    names: Vec<String>,
    /// The last parts of their addresses.
    at: Vec<usize>,
    running: Vec<Option<Running>>,
    network: Network,
}

const WITHIN: &str = "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";

impl Containers {
    fn new(user: &'static str, names: Vec<String>) -> Option<Containers> {
        let image = image()?;
        let at: Vec<usize> = (1..=names.len()).collect();
        let volumes: Vec<TempDir> = at.iter().map(|_| tempfile::tempdir().unwrap()).collect();
        for volume in &volumes {
            let owner: Option<u32> = user.split(':').next().unwrap().parse().ok();
            std::os::unix::fs::chown(volume.path(), owner, owner).unwrap();
        }
        let (network, running) = (Network::new(names.len()), names.iter().map(|_| None).collect());
        let containers = Containers { user, image, volumes, names, at, running, network };
        containers.tell_names();
        Some(containers)
    }

    fn address(&self, no: usize) -> String {
        address(self.at[no])
    }

    fn addresses(&self) -> Vec<String> {
        (0..self.names.len()).map(|no| format!("{}:6379", self.address(no))).collect()
    }

    /// Names lead to those who are there.
    fn tell_names(&self) {
        let lines = self.names.iter().enumerate().map(|(no, name)| format!("{} {name}\n", self.address(no)));
        let etc = self.image.path().join("etc");
        fs::write(etc.join("hosts.new"), lines.collect::<String>()).unwrap();
        fs::rename(etc.join("hosts.new"), etc.join("hosts")).unwrap();
    }

    fn log(&self, no: usize) -> std::path::PathBuf {
        self.image.path().join(format!("tmp/{no}.log"))
    }

    /// A command on the host of one, with this environment.
    fn on_host(&self, no: usize) -> Command {
        let mut ip = Command::new("ip");
        ip.args(["netns", "exec", &self.network.namespace(no + 1), "env", "-i", WITHIN]);
        ip
    }

    fn start(&mut self, no: usize, words: &[String]) {
        let script = "umask 0022; mount --bind \"$3\" \"$1/data\" && mount -t proc proc \"$1/proc\" && root=$1 user=$2 &&
                      shift 3 && cd / && exec chroot --userspec=\"$user\" \"$root\" /bin/sh -c 'cd /data; exec \"$0\" \"$@\"' \
                      /usr/local/bin/docker-entrypoint.sh \"$@\"";
        let mut container = self.on_host(no);
        container.args(["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
        container.arg(self.image.path()).arg(self.user).arg(self.volumes[no].path()).args(words);
        let log = fs::File::options().create(true).append(true).open(self.log(no)).unwrap();
        self.running[no] = Some(Running(container.stdin(Stdio::null()).stdout(log).spawn().unwrap()));
    }

    /// As `docker stop` and Kubernetes do it; how long it took to end.
    fn stop(&mut self, no: usize) -> Duration {
        let start = Instant::now();
        let mut running = self.running[no].take().unwrap();
        text(Command::new("kill").args(["-TERM", &running.0.id().to_string()]));
        wait_for(20, "it ends", || running.0.try_wait().unwrap().is_some());
        start.elapsed()
    }

    /// It is elsewhere from now on, under the same name.
    fn move_on(&mut self, no: usize) {
        let to = self.at[no] + 20;
        self.network.move_to(no + 1, self.at[no], to);
        self.at[no] = to;
        self.tell_names();
    }

    /// What a command prints within a container.
    fn run(&self, no: usize, command: &str) -> std::process::Output {
        output(self.on_host(no).arg("chroot").arg(self.image.path()).args(["/bin/sh", "-c", command]))
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for no in (0..self.names.len()).filter(|_| std::thread::panicking()) {
            eprintln!("log of {}:\n{}", self.names[no], fs::read_to_string(self.log(no)).unwrap_or_default());
        }
    }
}

/// Lines that `utils/kubernetes/check` prints of a file.
fn told(words: &[&str]) -> Vec<String> {
    text(Command::new(in_root("utils/kubernetes/check")).args(words)).lines().map(str::to_owned).collect()
}

/// New containers, at other addresses, one after the other, while clients write.
#[test]
#[cfg_attr(not(has_netns), ignore = "network namespaces cannot be made here")]
fn the_compose_file_makes_a_cluster_whose_containers_are_replaced_unnoticed() {
    if !has_yaml() {
        return;
    }
    let names: Vec<String> = (1..=6).map(|n| format!("node-{n}")).collect();
    let Some(mut nodes) = Containers::new("0:0", names) else { return };
    let words: Vec<Vec<String>> = nodes.names.iter().map(|name| told(&["--args", COMPOSE, name])).collect();
    let health = told(&["--health", COMPOSE, "node-1"]).join("\n");
    let is_healthy = |nodes: &Containers, no: usize| nodes.run(no, &health).status.success();
    (0..6).for_each(|no| nodes.start(no, &words[no]));
    wait_for(30, "all are healthy", || (0..6).all(|no| is_healthy(&nodes, no)));
    let first = nodes.addresses();
    let load = nodes.network.on(0, move || Load::start(&first)).join().unwrap();
    for (no, words) in words.iter().enumerate() {
        let took = nodes.stop(no);
        assert!(took < Duration::from_secs(8), "{took:?}");
        nodes.move_on(no);
        nodes.start(no, words);
        wait_for(30, "it is healthy", || is_healthy(&nodes, no));
        println!("{} ended after {took:?}", nodes.names[no]);
    }
    let last = nodes.addresses();
    nodes.network.on(0, move || load.finish(&last)).join().unwrap();
    let cluster = String::from_utf8(nodes.run(5, "redis-cli cluster nodes").stdout).unwrap();
    assert_eq!((cluster.lines().count(), cluster.matches("master").count()), (6, 3), "{cluster}");
    assert!(nodes.addresses().iter().all(|address| cluster.contains(&format!(" {address}@"))), "{cluster}");
}

/// The pods make a cluster, one is replaced, and all of them at once.
#[test]
#[cfg_attr(not(has_netns), ignore = "network namespaces cannot be made here")]
fn the_manifest_makes_a_cluster_that_comes_back_elsewhere() {
    if !has_yaml() {
        return;
    }
    let names: Vec<String> = (0..6).map(|n| format!("redis-cluster-{n}.redis-cluster-nodes")).collect();
    let Some(mut pods) = Containers::new("999:999", names) else { return };
    fs::create_dir(pods.image.path().join("etc/redis")).unwrap();
    let configuration = told(&["--value", MANIFEST, "ConfigMap", "redis-cluster-config", "redis.conf"]).join("\n");
    fs::write(pods.image.path().join("etc/redis/redis.conf"), configuration).unwrap();
    let args = told(&["--args", MANIFEST, "redis-cluster"]);
    let start = |pods: &mut Containers, no: usize| {
        let (ip, name) = (pods.address(no), format!("redis-cluster-{no}"));
        let machine = format!("machine-{}", no % 3);
        let variables = [("$(POD_IP)", &ip), ("$(POD_NAME)", &name), ("$(NODE_NAME)", &machine)];
        let given =
            |word: &String| variables.iter().fold(word.clone(), |word, (name, value)| word.replace(name, value));
        pods.start(no, &args.iter().map(given).collect::<Vec<_>>());
    };
    let is_ready = |pods: &Containers, no: usize| {
        let ip = pods.address(no);
        let asked = pods.network.on(0, move || {
            let mut answer = String::new();
            let mut at = TcpStream::connect((ip.as_str(), 9121)).ok()?;
            at.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
            at.write_all(format!("GET /readyz HTTP/1.1\r\nHost: {ip}:9121\r\nConnection: close\r\n\r\n").as_bytes())
                .ok()?;
            at.read_to_string(&mut answer).ok()?;
            answer.starts_with("HTTP/1.1 200 ").then_some(())
        });
        asked.join().unwrap().is_some()
    };
    let all_ready = |pods: &Containers| wait_for(40, "all pods are ready", || (0..6).all(|no| is_ready(pods, no)));
    let ask = |pods: &Containers, no: usize, words: &str| {
        String::from_utf8(pods.run(no, &format!("redis-cli {words}")).stdout).unwrap()
    };
    (0..6).for_each(|no| start(&mut pods, no));
    all_ready(&pods);
    assert_eq!(ask(&pods, 0, "-c set greeting hello"), "OK\n");
    // A master and its replica are on different machines.
    let masters: Vec<usize> = (0..6).filter(|no| ask(&pods, *no, "role").starts_with("master")).collect();
    assert_eq!(masters.len(), 3);
    for no in masters.iter().copied() {
        let replica = ask(&pods, no, "info replication");
        let other = (0..6).find(|other| replica.contains(&format!("ip={},", pods.address(*other)))).unwrap();
        assert_ne!(no % 3, other % 3, "{replica}");
    }
    // One goes, and nobody waits for its being missed.
    let gone = masters[0];
    let took = pods.stop(gone);
    assert!(took < Duration::from_secs(4), "{took:?}");
    let others: Vec<usize> = (0..6).filter(|no| *no != gone).collect();
    assert_eq!(others.iter().filter(|no| ask(&pods, **no, "role").starts_with("master")).count(), 3);
    pods.move_on(gone);
    start(&mut pods, gone);
    wait_for(20, "it is ready", || is_ready(&pods, gone));
    assert!(ask(&pods, others[0], "cluster nodes").contains(&format!(" {}:6379@", pods.address(gone))));
    // All of them find each other by the names of the seeds.
    (0..6).for_each(|no| drop(pods.running[no].take()));
    (0..6).for_each(|no| pods.move_on(no));
    (0..6).for_each(|no| start(&mut pods, no));
    all_ready(&pods);
    // A pod that is ready may not have heard yet where the others are.
    wait_for(20, "the data is there", || ask(&pods, 0, "-c get greeting") == "hello\n");
}
