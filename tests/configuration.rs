//! The configuration of a running server: options, CONFIG, the log, the title and the way it starts and stops.

mod common;

use common::{SERVER, free_port};
use std::fs;
use std::io::Read;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// A server of its own in a directory of its own; killed and removed when it goes out of scope.
struct Running {
    child: Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Running {
    fn start(options: &[&str]) -> Self {
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("redis.conf"), format!("# kept\nport {port}\nbind 127.0.0.1\nlogfile log\n"))
            .unwrap();
        let child = spawn(&dir, options);
        let mut server = Self { child, dir, port };
        server.wait_ready();
        server
    }

    fn restart(&mut self) {
        self.stop();
        fs::remove_file(self.path("log")).unwrap();
        self.child = spawn(&self.dir, &[]);
        self.wait_ready();
    }

    fn stop(&mut self) -> Option<i32> {
        signal(self.child.id(), "TERM");
        self.child.wait().unwrap().code()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn wait_ready(&mut self) {
        wait(|| self.log().contains("Ready to accept connections tcp"));
    }

    fn ask(&self, command: &[&str]) -> Result<redis::Value, String> {
        self.ask_at(self.port, command)
    }

    fn ask_at(&self, port: u16, command: &[&str]) -> Result<redis::Value, String> {
        let client = redis::Client::open(("127.0.0.1", port)).unwrap();
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(5)).map_err(|e| e.to_string())?;
        let mut query = redis::cmd(command[0]);
        query.arg(&command[1..]);
        query.query(&mut connection).map_err(|error: redis::RedisError| {
            format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default())
        })
    }

    fn get(&self, name: &str) -> String {
        let reply: Vec<String> = redis::from_redis_value(&self.ask(&["CONFIG", "GET", name]).unwrap()).unwrap();
        reply[1].clone()
    }

    fn title(&self) -> String {
        let cmdline = fs::read(format!("/proc/{}/cmdline", self.child.id())).unwrap();
        String::from_utf8_lossy(&cmdline).trim_matches('\0').to_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &tempfile::TempDir, options: &[&str]) -> Child {
    Command::new(SERVER).arg("redis.conf").args(options).current_dir(dir.path()).stdout(Stdio::null()).spawn().unwrap()
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([format!("-{name}"), pid.to_string()]).status().unwrap().success());
}

fn wait(mut done: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !done() {
        assert!(begin.elapsed() < Duration::from_secs(20), "nothing happened for too long");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Runs a server that is expected to refuse its options.
fn refuse(options: &[&str]) -> Output {
    let output = Command::new(SERVER).args(options).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    output
}

#[test]
fn wrong_options_end_the_server() {
    let error = refuse(&["--port", "0", "--loglevel", "--bla"]).stderr;
    assert_eq!(
        String::from_utf8(error).unwrap(),
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.2.6) ***\nReading the configuration file, at line 3\n>>> 'loglevel \"--bla\"'\n\
         argument(s) must be one of the following: debug, verbose, notice, warning, nothing\n"
    );
    let error = refuse(&["--port", "0", "--rename-command", "none", "other"]).stderr;
    assert!(String::from_utf8(error).unwrap().ends_with("No such command in rename-command\n"));
    let log = refuse(&["/nonexistent/redis.conf"]).stdout;
    let log = String::from_utf8(log).unwrap();
    assert!(log.contains("# Fatal error, can't open config file '/nonexistent/redis.conf': No such file or directory"));
    let log = String::from_utf8(refuse(&["--port", "0"]).stdout).unwrap();
    assert!(log.ends_with("# Configured to not listen anywhere, exiting.\n"), "{log}");
    let log = String::from_utf8(refuse(&["--port", "0", "--tls-port", "1"]).stdout).unwrap();
    assert!(log.contains("no TLS"), "{log}");
    let log = String::from_utf8(refuse(&["--port", "0", "--loadmodule", "/none.so"]).stdout).unwrap();
    assert!(log.contains("Can't load module from /none.so: server aborting"), "{log}");
}

#[test]
fn the_configuration_comes_from_standard_input_too() {
    let mut child = Command::new(SERVER)
        .args(["-", "--timeout", "x"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"port 0\n\n").unwrap();
    let mut error = String::new();
    child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(error.contains("at line 4\n>>> 'timeout \"x\"'\nargument couldn't be parsed into an integer\n"), "{error}");
}

#[test]
fn changed_values_survive_a_restart() {
    let mut server = Running::start(&["--maxmemory", "100mb"]);
    server.ask(&["CONFIG", "SET", "save", "10 1 20 2", "maxmemory-policy", "allkeys-lru", "Timeout", "7"]).unwrap();
    server.ask(&["CONFIG", "SET", "notify-keyspace-events", "KEA"]).unwrap();
    server.ask(&["CONFIG", "REWRITE"]).unwrap();
    let file = fs::read_to_string(server.path("redis.conf")).unwrap();
    assert!(file.starts_with(&format!("# kept\nport {}\nbind 127.0.0.1\nlogfile \"log\"\n", server.port)), "{file}");
    server.restart();
    for (name, value) in [
        ("save", "10 1 20 2"),
        ("maxmemory-policy", "allkeys-lru"),
        ("timeout", "7"),
        ("maxmemory", "104857600"),
        ("notify-keyspace-events", "AKE"),
    ] {
        assert_eq!(server.get(name), value);
    }
    server.ask(&["CONFIG", "REWRITE"]).unwrap();
    assert_eq!(fs::read_to_string(server.path("redis.conf")).unwrap(), file);
}

#[test]
fn a_change_that_fails_is_taken_back() {
    let server = Running::start(&[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let used = taken.local_addr().unwrap().port().to_string();
    let error = server
        .ask(&[
            "CONFIG",
            "SET",
            "maxmemory",
            "10mb",
            "oom-score-adj",
            "yes",
            "oom-score-adj-values",
            "9 9 9",
            "port",
            &used,
        ])
        .unwrap_err();
    assert_eq!(
        error,
        "ERR CONFIG SET failed (possibly related to argument 'port') - Unable to listen on this port. Check server logs."
    );
    let values = [("maxmemory", "0"), ("oom-score-adj", "no"), ("oom-score-adj-values", "0 200 800")];
    for (name, value) in values {
        assert_eq!(server.get(name), value);
    }
    let score = fs::read_to_string(format!("/proc/{}/oom_score_adj", server.child.id())).unwrap();
    assert_eq!(score, fs::read_to_string("/proc/self/oom_score_adj").unwrap());
    let error = server.ask(&["CONFIG", "SET", "bind", "999.999.999.999"]).unwrap_err();
    assert!(error.ends_with("'bind') - Failed to bind to specified addresses."), "{error}");
    assert_eq!(server.ask(&["PING"]), Ok(redis::Value::SimpleString("PONG".into())));
    let error = server.ask(&["CONFIG", "SET", "timeout"]).unwrap_err();
    assert!(error.starts_with("ERR wrong number of arguments for 'config|set' command"), "{error}");
    let error = server.ask(&["CONFIG", "SET", "timeout", "1", "hz"]).unwrap_err();
    assert_eq!(error, "ERR syntax error");
}

#[test]
fn the_server_listens_where_it_is_told() {
    let server = Running::start(&["--unixsocket", "socket", "--unixsocketperm", "700"]);
    let other = free_port();
    server.ask(&["CONFIG", "SET", "port", &other.to_string()]).unwrap();
    assert!(server.ask(&["PING"]).is_err());
    server.ask_at(other, &["PING"]).unwrap();
    assert_eq!(server.title(), format!("{SERVER} 127.0.0.1:{other}"));
    server.ask_at(other, &["CONFIG", "SET", "proc-title-template", "a {title} {port}"]).unwrap();
    assert_eq!(server.title(), format!("a {SERVER} {other}"));
    // The unix socket is not touched by it.
    let socket = server.path("socket");
    let client = redis::Client::open(format!("redis+unix://{}", socket.display())).unwrap();
    let mut connection = client.get_connection().unwrap();
    redis::cmd("PING").exec(&mut connection).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn the_log_may_be_moved_away() {
    let mut server = Running::start(&["--pidfile", "pid"]);
    let pid = server.child.id();
    assert_eq!(fs::read_to_string(server.path("pid")).unwrap(), format!("{pid}\n"));
    fs::rename(server.path("log"), server.path("log.1")).unwrap();
    assert_eq!(server.stop(), Some(0));
    let log = server.log();
    let last = log.lines().last().unwrap();
    assert!(
        last.starts_with(&format!("{pid}:M ")) && last.ends_with(" # Redis is now ready to exit, bye bye..."),
        "{log}"
    );
    assert!(!server.path("pid").exists());
}

#[test]
fn a_crash_is_reported() {
    let mut server = Running::start(&[]);
    signal(server.child.id(), "ABRT");
    assert_eq!(server.child.wait().unwrap().code(), None);
    let log = server.log();
    for part in ["=== REDIS BUG REPORT START", "crashed by signal: 6", "STACK TRACE", "=== REDIS BUG REPORT END"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
}

#[test]
fn a_daemon_leaves_its_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let status = Command::new(SERVER)
        .args(["--port", "0", "--unixsocket", "socket", "--daemonize", "yes", "--pidfile", "pid", "--logfile", "log"])
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(status.success());
    let log = dir.path().join("log");
    wait(|| fs::read_to_string(&log).unwrap_or_default().contains("Ready to accept connections unix"));
    let pid: u32 = fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
    signal(pid, "TERM");
    wait(|| !pid_file.exists() && !dir.path().join("socket").exists());
    wait(|| fs::read_to_string(&log).unwrap().contains("bye bye"));
}
