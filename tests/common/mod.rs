//! Starts real servers for the behaviour tests: on free ports, in folders of their own, stopped when the test ends.
#![allow(dead_code)]

pub(crate) mod cluster;
pub(crate) mod load;
pub(crate) mod network;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Our server and client, as cargo built them for this test run.
pub(crate) const SERVER: &str = env!("CARGO_BIN_EXE_redis-server");
pub(crate) const CLI: &str = env!("CARGO_BIN_EXE_redis-cli");

/// Tells that a test does nothing here, past the harness, which would keep it to itself.
pub(crate) fn left_out(why: &str) {
    let test = std::thread::current();
    let _ = writeln!(std::io::stderr(), "test {} is left out: {why}", test.name().unwrap_or_default());
}

/// Whether a program that a test needs is installed here.
pub(crate) fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success())
}

/// What lies in the project.
pub(crate) fn in_root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a program at the root of the project.
pub(crate) fn output(command: &mut Command) -> Output {
    command.current_dir(in_root("")).output().unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// Its standard output, when it ends well.
pub(crate) fn text(command: &mut Command) -> String {
    let out = output(command);
    let (told, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{told}\n{error}", out.status);
    told.into_owned()
}

/// Whether manifests can be read here.
pub(crate) fn has_yaml() -> bool {
    let has = Command::new("python3").args(["-c", "import yaml"]).output().is_ok_and(|out| out.status.success());
    if !has {
        left_out("there is no python3 with yaml");
    }
    has
}

/// A running server.
pub(crate) struct TestServer {
    pub(crate) port: u16,
    pub(crate) dir: TempDir,
    pub(crate) child: Child,
    binary: PathBuf,
    args: Vec<String>,
}

/// Ports below the ephemeral range, so that no outgoing connection takes one, each with its bus port (+10000) free too.
static NEXT_PORT: AtomicU16 = AtomicU16::new(0);

/// A port that is free now, as is the cluster bus port that goes with it. Never the same twice in one test process.
pub(crate) fn free_port() -> u16 {
    loop {
        let start = 10_000 + (std::process::id() % 120) as u16 * 100;
        let n = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (start - 10_000 + n) % 12_000;
        let free = |p: u16| TcpListener::bind(("127.0.0.1", p)).is_ok();
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
}

/// A real redis-server. Tests that need one are ignored where the build found none (`cfg(has_redis)`).
pub(crate) fn real_redis() -> PathBuf {
    let named = std::env::var_os("REAL_REDIS_SERVER").map(PathBuf::from);
    let candidates = named.into_iter().chain(["/usr/bin/redis-server".into(), "/usr/local/bin/redis-server".into()]);
    candidates.into_iter().find(|path| path.exists()).expect("the redis-server that the build found")
}

impl TestServer {
    /// Our server, with these options behind the usual ones.
    pub(crate) fn start(options: &[&str]) -> TestServer {
        TestServer::start_binary(Path::new(SERVER), options)
    }

    pub(crate) fn start_binary(binary: &Path, options: &[&str]) -> TestServer {
        // A process that another thread is about to start holds our looking for a free port open for a moment.
        const TAKEN: &str = "Address already in use";
        loop {
            match TestServer::try_start(binary, options) {
                Err(log) if log.contains(TAKEN) => {}
                Err(log) => panic!("{log}"),
                Ok(server) => return server,
            }
        }
    }

    fn try_start(binary: &Path, options: &[&str]) -> Result<TestServer, String> {
        let port = free_port();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut args: Vec<String> = [
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--dir",
            &dir.path().display().to_string(),
            "--logfile",
            "server.log",
            "--save",
            "",
        ]
        .map(String::from)
        .to_vec();
        if binary == Path::new(SERVER) {
            // All tests can be run with options of one's choice, such as those of I/O threads.
            let more = std::env::var("TEST_SERVER_OPTIONS").unwrap_or_default();
            args.extend(more.split_whitespace().map(String::from));
        }
        args.extend(options.iter().map(|o| o.to_string()));
        let child = spawn(binary, &args);
        let mut server = TestServer { port, dir, child, binary: binary.to_path_buf(), args };
        server.wait_ready()?;
        Ok(server)
    }

    /// Ends the server if it still runs, and starts it again, with the same options and data.
    pub(crate) fn restart(&mut self) {
        self.kill();
        self.child = spawn(&self.binary, &self.args);
        self.wait_ready().unwrap_or_else(|log| panic!("{log}"));
    }

    /// Ends the process at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks the process to end, and waits until it has, so many seconds at most; how long it took.
    pub(crate) fn terminate(&mut self, within_s: u64) -> Duration {
        let start = Instant::now();
        self.signal("-TERM");
        self.wait_end(within_s);
        start.elapsed()
    }

    /// Sends the process a signal: `-STOP`, say.
    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.pid().to_string()]).status().expect("kill runs").success());
    }

    /// Waits until the process has ended, so many seconds at most.
    pub(crate) fn wait_end(&mut self, within_s: u64) {
        wait_for(within_s, "it ends", || self.child.try_wait().is_ok_and(|status| status.is_some()));
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Descriptors it has open: the fewest of some looks, as those of log lines and of connections about to be closed go soon.
    pub(crate) fn descriptors(&self) -> usize {
        let dir = format!("/proc/{}/fd", self.pid());
        let look = |_| {
            std::thread::sleep(Duration::from_millis(10));
            fs::read_dir(&dir).expect("its descriptors").count()
        };
        (0..30).map(look).min().unwrap_or_default()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("server.log")).unwrap_or_default()
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).expect("a valid address")
    }

    pub(crate) fn connect(&self) -> redis::Connection {
        self.client().get_connection().expect("a connection")
    }

    /// Waits until it answers; the error has its log.
    fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the server ended with {status}:\n{}", self.log()));
            }
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.is_loaded() {
                return Ok(());
            }
            assert!(Instant::now() < deadline, "the server does not come up:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_loaded(&self) -> bool {
        let Ok(mut c) = self.client().get_connection() else { return false };
        match redis::cmd("PING").query::<String>(&mut c) {
            Ok(_) => true,
            Err(e) => e.code() == Some("NOAUTH"),
        }
    }
}

fn spawn(binary: &Path, args: &[String]) -> Child {
    Command::new(binary)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server starts")
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("log of the server on port {}:\n{}", self.port, self.log());
        }
        self.kill();
    }
}

/// Asks again until the condition holds; panics with `what` after `seconds`.
pub(crate) fn wait_for(seconds: u64, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(Instant::now() < deadline, "no success in {seconds} s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a command given as words and panics on an error reply.
pub(crate) fn run<T: redis::FromRedisValue>(c: &mut redis::Connection, words: &[&str]) -> T {
    try_run(c, words).unwrap_or_else(|e| panic!("{words:?}: {e}"))
}

pub(crate) fn try_run<T: redis::FromRedisValue>(c: &mut redis::Connection, words: &[&str]) -> redis::RedisResult<T> {
    let mut cmd = redis::cmd(words[0]);
    for word in &words[1..] {
        cmd.arg(word);
    }
    cmd.query(c)
}

/// Whether a text is JSON, roughly: brackets and quotes match.
pub(crate) fn assert_is_json(text: &str) {
    let (mut open, mut chars) = (Vec::new(), text.chars());
    while let Some(c) = chars.next() {
        match c {
            '"' => loop {
                match chars.next().expect(text) {
                    '"' => break,
                    '\\' => drop(chars.next()),
                    c => assert!(c >= ' ', "{text}"),
                }
            },
            '{' | '[' => open.push(c),
            '}' => assert_eq!(open.pop(), Some('{'), "{text}"),
            ']' => assert_eq!(open.pop(), Some('['), "{text}"),
            c => assert!(c.is_ascii_alphanumeric() || "-+.,:".contains(c), "{c} in {text}"),
        }
    }
    assert!(open.is_empty() && !text.is_empty(), "{text}");
}
