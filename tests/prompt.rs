//! The tools on a terminal: the prompt with its history, hints and completion, subscriptions, the bar of a reshard and the
//! live view of a cluster, all through pseudo-terminals; and a look at the whole through tmux where it is installed.

use crate::common;

use common::{CLI, TestServer, left_out, run, try_run, wait_for};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take to appear.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program on a pseudo-terminal of 24 rows and 160 columns.
struct Terminal {
    keyboard: File,
    child: Child,
    /// All that was written on the screen and not yet looked for.
    unseen: String,
}

impl Terminal {
    fn start(home: &Path, args: &[&str]) -> Terminal {
        let size = Winsize { ws_row: 24, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let screen = || Stdio::from(pty.slave.try_clone().unwrap());
        let child = Command::new(CLI)
            .args(args)
            .env("HOME", home)
            .env("TERM", "xterm-256color")
            .env_remove("REDISCLI_HISTFILE")
            .env_remove("NO_COLOR")
            .stdin(screen())
            .stdout(screen())
            .stderr(screen())
            .spawn()
            .unwrap();
        Terminal { keyboard: File::from(pty.master), child, unseen: String::new() }
    }

    fn prompt(home: &Path, server: &TestServer) -> Terminal {
        let mut terminal = Terminal::start(home, &["-p", &server.port.to_string()]);
        terminal.expect(&format!("127.0.0.1:{}> ", server.port));
        terminal
    }

    fn send(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until the screen has shown this, and returns what came before it.
    fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.unseen.find(text) {
                let rest = self.unseen.split_off(at + text.len());
                return std::mem::replace(&mut self.unseen, rest);
            }
            assert!(Instant::now() < deadline, "{text:?} does not appear, but {:?}", self.unseen);
            assert!(self.read(100) || Instant::now() < deadline, "the program ended: {:?}", self.unseen);
        }
    }

    /// Reads what is there; false once the program has closed the terminal.
    fn read(&mut self, wait_ms: u16) -> bool {
        let mut fds = [PollFd::new(self.keyboard.as_fd(), PollFlags::POLLIN)];
        if poll(&mut fds, PollTimeout::from(wait_ms)).unwrap_or(0) == 0 {
            return true;
        }
        let mut chunk = [0u8; 4096];
        match self.keyboard.read(&mut chunk) {
            Ok(n) if n > 0 => {
                self.unseen.push_str(&String::from_utf8_lossy(&chunk[..n]));
                true
            }
            _ => false,
        }
    }

    /// Waits for the end of the program, which must be a good one, and returns all that is left on the screen.
    fn finish(mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let open = self.read(20);
            if let Some(status) = self.child.try_wait().unwrap() {
                while open && poll_now(&self.keyboard) && self.read(0) {}
                assert!(status.success(), "{status}: {:?}", self.unseen);
                return std::mem::take(&mut self.unseen);
            }
            assert!(Instant::now() < deadline, "no end: {:?}", self.unseen);
        }
    }
}

fn poll_now(file: &File) -> bool {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap_or(0) > 0
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn commands_replies_hints_and_completion() {
    let server = TestServer::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::prompt(home.path(), &server);
    t.send("set greeting ");
    t.expect("\x1b[0;90mvalue ");
    t.send("\"hello world\"\r");
    t.expect("OK\r\n");
    t.send("get greeting\r");
    t.expect("\"hello world\"\r\n");
    t.send("incr n\r");
    t.expect("(integer) 1\r\n");
    t.send("getran\t greeting 0 4\r");
    t.expect("GETRANGE");
    t.expect("\"hello\"\r\n");
    t.send("nonsense\r");
    t.expect("(error) ERR unknown command 'nonsense'");
    t.send("get \"open\r");
    t.expect("Invalid argument(s)\r\n");
    t.send("3 incr n\r");
    t.expect("(integer) 4\r\n");
    t.send("select 3\r");
    t.expect("[3]> ");
    t.send("multi\r");
    t.expect("[3](TX)> ");
    t.send("ping\r");
    t.expect("QUEUED\r\n");
    t.send("exec\r");
    t.expect("1) PONG\r\n");
    t.send("help getrange\r");
    t.expect("\x1b[1mGETRANGE\x1b[0m");
    t.expect("summary:");
    t.send(":set nohints\r");
    t.expect("[3]> ");
    t.send("set greeting ");
    t.send("x\r");
    let typed = t.expect("OK\r\n");
    assert!(!typed.contains("\x1b[0;90m"), "{typed:?}");
    t.send("quit\r");
    t.finish();
}

#[test]
fn history_remembers_commands_but_no_secrets() {
    let server = TestServer::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::prompt(home.path(), &server);
    t.send("set remembered 1\r");
    t.expect("OK\r\n");
    for (secret, answer) in [
        ("auth hunter2", "(error) ERR AUTH"),
        ("config set requirepass \"\"", "OK\r\n"),
        ("hello 2 auth default hunter2", "1) \"server\""),
        ("acl setuser eve >hunter2", "OK\r\n"),
    ] {
        t.send(&format!("{secret}\r"));
        t.expect(answer);
    }
    t.send("ping\r");
    t.expect("PONG\r\n");
    t.send("quit\r");
    t.finish();
    let file = home.path().join(".rediscli_history");
    let history = fs::read_to_string(&file).unwrap();
    assert_eq!(history, "set remembered 1\nping\nquit\n");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // The next prompt knows them.
    let mut t = Terminal::prompt(home.path(), &server);
    t.send("\x1b[A\x1b[A\r");
    t.expect("PONG\r\n");
    // Before the next prompt the terminal would take it for its own.
    t.expect("> ");
    t.send("\x04");
    t.finish();
}

#[test]
fn preferences_come_from_a_file() {
    let server = TestServer::start(&[]);
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".redisclirc"), ":set nohints\n:set tea\n").unwrap();
    let mut t = Terminal::start(home.path(), &["-p", &server.port.to_string()]);
    t.expect(".redisclirc: unknown redis-cli preference 'tea'");
    t.expect("> ");
    t.send("get k");
    t.send("\r");
    let typed = t.expect("(nil)\r\n");
    assert!(!typed.contains("\x1b[0;90m"), "{typed:?}");
}

#[test]
fn subscriptions_stream_until_ctrl_c() {
    let server = TestServer::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::prompt(home.path(), &server);
    t.send("subscribe news\r");
    t.expect("1) \"subscribe\"\r\n2) \"news\"\r\n3) (integer) 1\r\n");
    t.expect("Reading messages... (press Ctrl-C to quit or any key to type command)");
    let mut c = server.connect();
    assert_eq!(run::<i64>(&mut c, &["PUBLISH", "news", "flash"]), 1);
    t.expect("1) \"message\"\r\n2) \"news\"\r\n3) \"flash\"\r\n");
    // A key brings the prompt, a command goes through, and the messages go on.
    t.send("x");
    t.expect("(subscribed mode)> ");
    t.send("\x7fping\r");
    t.expect("1) \"pong\"");
    t.expect("Reading messages...");
    kill(Pid::from_raw(t.child.id() as i32), Signal::SIGINT).unwrap();
    t.expect(&format!("127.0.0.1:{}> ", server.port));
    t.send("ping\r");
    t.expect("PONG\r\n");
}

#[test]
fn the_prompt_connects_again() {
    let mut server = TestServer::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::prompt(home.path(), &server);
    server.kill();
    t.send("ping\r");
    t.expect("Could not connect to Redis");
    t.expect("not connected> ");
    server.restart();
    t.send("select 3\r");
    t.expect("[3]> ");
    // A connection that breaks between two commands is made again, with the database that was chosen.
    server.kill();
    server.restart();
    t.send("set there 1\r");
    t.expect("OK\r\n");
    t.expect("[3]> ");
    let mut c = server.connect();
    run::<()>(&mut c, &["SELECT", "3"]);
    assert_eq!(run::<i64>(&mut c, &["GET", "there"]), 1);
    // Not so inside a transaction, where half of it would be lost.
    t.send("multi\r");
    t.expect("(TX)> ");
    server.kill();
    server.restart();
    t.send("incr there\r");
    t.expect("Error: ");
    t.send("exists there\r");
    t.expect("(integer) 0\r\n");
}

#[test]
fn what_is_typed_ahead_or_pasted_runs_line_by_line() {
    let server = TestServer::start(&[]);
    let home = tempfile::tempdir().unwrap();
    let mut t = Terminal::prompt(home.path(), &server);
    t.send("incr ahead\rincr ahead\rincr ahead\r");
    t.expect("(integer) 3\r\n");
    t.send("\x1b[200~incr pasted\nincr pasted\n\x1b[201~\r");
    t.expect("(integer) 1\r\n");
    t.expect("(integer) 2\r\n");
    t.send("quit\r");
    t.finish();
    let history = fs::read_to_string(home.path().join(".rediscli_history")).unwrap();
    // One that repeats the last is not kept again.
    assert_eq!(history, "incr ahead\nincr pasted\nquit\n");
}

/// Two masters that know each other, one with all slots and some keys.
fn small_cluster() -> [TestServer; 2] {
    let start = || TestServer::start(&["--cluster-enabled", "yes", "--cluster-node-timeout", "5000"]);
    let nodes = [start(), start()];
    let mut first = nodes[0].connect();
    run::<()>(&mut first, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    run::<()>(&mut first, &["CLUSTER", "MEET", "127.0.0.1", &nodes[1].port.to_string()]);
    for node in &nodes {
        let mut c = node.connect();
        wait_for(20, "the nodes agree", || {
            let info: String = run(&mut c, &["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:2")
        });
    }
    for i in 0..500 {
        wait_for(20, "keys can be written", || try_run::<()>(&mut first, &["SET", &format!("key:{i}"), "v"]).is_ok());
    }
    nodes
}

fn id(node: &TestServer) -> String {
    run(&mut node.connect(), &["CLUSTER", "MYID"])
}

#[test]
fn a_reshard_shows_how_far_it_is() {
    let nodes = small_cluster();
    let home = tempfile::tempdir().unwrap();
    let (from, to) = (id(&nodes[0]), id(&nodes[1]));
    let address = format!("127.0.0.1:{}", nodes[0].port);
    let args =
        ["--cluster", "reshard", &address, "--cluster-from", &from, "--cluster-to", &to, "--cluster-slots", "300"];
    let mut t = Terminal::start(home.path(), &args);
    t.expect("Do you want to proceed with the proposed reshard plan (yes/no)? ");
    t.send("yes\r");
    t.expect("Resharding [");
    let rest = t.finish();
    let last = rest.rsplit("Resharding [").next().unwrap();
    assert!(last.starts_with("########################] 100%  300/300 slots  "), "{last:?}");
    assert!(last.contains(" keys (") && last.contains("/s)") && last.contains("  in 0:"), "{last:?}");
    assert!(!rest.contains("Moving slot"), "{rest:?}");
}

#[test]
fn the_live_view_is_drawn_again_until_q() {
    let nodes = small_cluster();
    let home = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", nodes[0].port);
    let mut t = Terminal::start(home.path(), &["-i", "0.1", "--cluster", "watch", &address]);
    t.expect("\x1b[?1049h");
    t.expect(&format!("Cluster seen from {address}   state: ok"));
    t.expect("\x1b[32;1m1 masters, 0 replicas, 16384/16384 slots covered, 0 failing; 500 keys");
    t.expect(&format!("  127.0.0.1:{}", nodes[1].port));
    run::<()>(&mut nodes[0].connect(), &["SET", "one-more", "v"]);
    t.expect("0 failing; 501 keys");
    t.send("q");
    assert!(t.finish().ends_with("\x1b[?25h\x1b[?1049l"));
}

/// A terminal in tmux, with tmux's own idea of what a person sees.
struct Tmux {
    home: tempfile::TempDir,
}

impl Tmux {
    /// `None` where no tmux is installed.
    fn start() -> Option<Tmux> {
        let is_here = Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_ok_and(|s| s.success());
        if !is_here {
            left_out("there is no tmux");
            return None;
        }
        Some(Tmux { home: tempfile::tempdir().unwrap() })
    }

    fn tmux(&self, args: &[&str]) -> String {
        let socket = self.home.path().join("tmux");
        let mut command = Command::new("tmux");
        let out = command.arg("-S").arg(socket).args(args).env("HOME", self.home.path()).output().unwrap();
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Runs redis-cli in a terminal of this name, which stays when it ends.
    fn run(&self, name: &str, args: &[&str]) {
        let size = ["-f", "/dev/null", "new-session", "-d", "-s", name, "-x", "100", "-y", "30"];
        self.tmux(&[&size[..], &["env", "LC_ALL=C.UTF-8", CLI], args].concat());
        self.tmux(&["set-option", "-t", name, "remain-on-exit", "on"]);
    }

    fn send(&self, name: &str, keys: &[&str]) {
        self.tmux(&[&["send-keys", "-t", name], keys].concat());
    }

    /// The screen, with its colours, once it shows this.
    fn screen(&self, name: &str, what: &str) -> String {
        let mut seen = String::new();
        wait_for(20, what, || {
            seen = self.tmux(&["capture-pane", "-p", "-e", "-t", name]);
            seen.contains(what)
        });
        seen
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn a_walk_through_tmux() {
    let Some(tmux) = Tmux::start() else { return };
    let server = TestServer::start(&[]);
    let port = server.port.to_string();
    tmux.run("prompt", &["-p", &port]);
    tmux.screen("prompt", &format!("127.0.0.1:{port}>"));
    tmux.send("prompt", &["set color "]);
    let seen = tmux.screen("prompt", "value");
    assert!(seen.contains("\x1b[90mvalue "), "the hint is grey: {seen:?}");
    tmux.send("prompt", &["blue", "Enter", "lrange x", "Enter"]);
    let seen = tmux.screen("prompt", "wrong number");
    assert!(
        seen.contains("OK\n") && seen.contains("(error) ERR wrong number of arguments for 'lrange' command"),
        "{seen}"
    );
}

#[test]
fn a_cluster_through_tmux() {
    let Some(tmux) = Tmux::start() else { return };
    let nodes = small_cluster();
    let (from, to) = (id(&nodes[0]), id(&nodes[1]));
    let address = format!("127.0.0.1:{}", nodes[0].port);
    tmux.run("watch", &["-i", "0.1", "--cluster", "watch", &address]);
    let seen = tmux.screen("watch", "16384/16384 slots covered");
    assert!(seen.contains("\x1b[32m") || seen.contains("\x1b[1m\x1b[32m"), "what is well is green: {seen:?}");
    let plan =
        ["--cluster", "reshard", &address, "--cluster-from", &from, "--cluster-to", &to, "--cluster-slots", "300"];
    tmux.run("reshard", &plan);
    tmux.screen("reshard", "(yes/no)?");
    tmux.send("reshard", &["yes", "Enter"]);
    tmux.screen("reshard", "Resharding [########################] 100%  300/300 slots");
    // The live view follows: both masters have slots now.
    tmux.screen("watch", "2 masters");
    tmux.send("watch", &["q"]);
}
