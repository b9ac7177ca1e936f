//! The configuration of a running server: options, CONFIG, the log, the title and the way it starts and stops.

use crate::common;

use common::{SERVER, assert_is_json, free_port};
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
        Self::start_with("", options)
    }

    /// With these lines in its configuration file.
    fn start_with(lines: &str, options: &[&str]) -> Self {
        let port = free_port();
        let dir = tempfile::tempdir().unwrap();
        let text = format!("# kept\nport {port}\nbind 127.0.0.1\nlogfile log\n{lines}");
        fs::write(dir.path().join("redis.conf"), text).unwrap();
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
        self.ask_of(redis::Client::open(("127.0.0.1", port)).unwrap(), command)
    }

    /// Asks as a user (empty: the default one) with this password.
    fn ask_as(&self, user: &str, password: &str, command: &[&str]) -> Result<redis::Value, String> {
        let address = format!("redis://{user}:{password}@127.0.0.1:{}/", self.port);
        self.ask_of(redis::Client::open(address).unwrap(), command)
    }

    /// Whether the default user may come in with this password, and no other of these.
    fn let_in(&self, password: &str, others: &[&str]) -> bool {
        let knows = |password| self.ask(&["AUTH", password]).is_ok();
        knows(password) && !others.iter().any(|other| knows(other))
    }

    fn ask_of(&self, client: redis::Client, command: &[&str]) -> Result<redis::Value, String> {
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
    assert!(log.contains("Failed to configure TLS: No tls-cert-file configured!"), "{log}");
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
fn a_server_that_starts_itself_again_finds_its_file() {
    let sub = tempfile::tempdir().unwrap();
    let server = Running::start(&["--enable-debug-command", "yes", "--enable-protected-configs", "yes"]);
    server.ask(&["CONFIG", "SET", "dir", sub.path().to_str().unwrap()]).unwrap();
    let id = |server: &Running| {
        let info: String = redis::from_redis_value(&server.ask(&["INFO", "server"]).ok()?).ok()?;
        info.lines().find_map(|l| l.strip_prefix("run_id:").map(str::to_owned))
    };
    let first = id(&server).unwrap();
    // The connection closes.
    let _ = server.ask(&["DEBUG", "RESTART", "0"]);
    wait(|| id(&server).is_some_and(|now| now != first));
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
    // The address of a name is found out; here it is in a local file.
    server.ask_at(other, &["CONFIG", "SET", "bind", "localhost"]).unwrap();
    server.ask_at(other, &["CONFIG", "SET", "bind", "127.0.0.1"]).unwrap();
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

#[test]
fn what_is_said_of_the_default_user_decides_over_requirepass() {
    const USER: &str = "user default on >other ~* &* +@all\n";
    for lines in [format!("requirepass pw\n{USER}"), format!("{USER}requirepass pw\n")] {
        let mut server = Running::start_with(&lines, &[]);
        assert!(server.let_in("other", &["pw"]), "{lines}");
        let admin = |server: &Running, password: &str, command: &[&str]| server.ask_as("", password, command).unwrap();
        assert_eq!(
            admin(&server, "other", &["CONFIG", "GET", "requirepass"]),
            redis::Value::Array(vec![
                redis::Value::BulkString(b"requirepass".to_vec()),
                redis::Value::BulkString(b"pw".to_vec())
            ])
        );
        // Set later, it is the password; written down, both say the same.
        admin(&server, "other", &["CONFIG", "SET", "requirepass", "newer"]);
        assert!(server.let_in("newer", &["pw", "other"]));
        admin(&server, "newer", &["CONFIG", "REWRITE"]);
        server.restart();
        assert!(server.let_in("newer", &["pw", "other"]));
        // A password that was revoked stays revoked.
        admin(&server, "newer", &["ACL", "SETUSER", "default", "resetpass", ">last"]);
        admin(&server, "last", &["CONFIG", "REWRITE"]);
        server.restart();
        assert!(server.let_in("last", &["pw", "other", "newer"]));
    }
    let server = Running::start_with("requirepass pw\nuser bob on >b ~* +@all\n", &[]);
    assert!(server.let_in("pw", &["b"]));
    let server = Running::start_with("requirepass pw\n", &["--user", "default", "on", ">x", "+@all"]);
    assert!(server.let_in("x", &["pw"]));
    let server = Running::start_with("requirepass pw\nuser default on nopass +@all\n", &[]);
    assert!(server.ask(&["PING"]).is_ok());
    let server = Running::start_with("requirepass pw\nrequirepass \"\"\n", &[]);
    assert!(server.ask(&["PING"]).is_ok());
}

#[test]
fn an_acl_file_decides_over_requirepass() {
    let users = tempfile::NamedTempFile::new().unwrap();
    fs::write(users.path(), "user default on >file ~* &* +@all\nuser bob on >b ~\"x\" +get\n").unwrap();
    let lines = format!("requirepass pw\naclfile {}\n", users.path().display());
    let mut server = Running::start_with(&lines, &[]);
    assert!(server.let_in("file", &["pw"]));
    server.ask_as("", "file", &["CONFIG", "SET", "requirepass", "set"]).unwrap();
    assert!(server.let_in("set", &["file", "pw"]));
    server.ask_as("", "set", &["ACL", "LOAD"]).unwrap();
    assert!(server.let_in("file", &["set", "pw"]));
    // Nothing is quoted in this file.
    assert!(server.ask_as("bob", "b", &["GET", "\"x\""]).is_ok());
    assert!(server.ask_as("bob", "b", &["GET", "x"]).is_err());
    // A file that says nothing of the default user leaves it open, whatever the password.
    fs::write(users.path(), "user bob on >b ~* +@all\n").unwrap();
    server.restart();
    assert!(server.ask(&["PING"]).is_ok());
}

#[test]
fn users_that_make_no_sense_end_the_server() {
    let told = |options: &[&str]| {
        let output = refuse(&[&["--port", "0"], options].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        text.trim_end().lines().last().unwrap_or_default().to_owned()
    };
    let declared = |rules: &[&str]| told(&[&["--user", "bob"], rules].concat());
    assert_eq!(declared(&["on", "foo"]), "Error in user declaration 'bob': Syntax error");
    assert_eq!(declared(&["foo"]), "Error in user declaration 'user': Syntax error");
    assert_eq!(declared(&["on", "(+get"]), "Error in user declaration 'bob': Wrong format");
    assert_eq!(
        declared(&["on", "<a"]),
        "Error in user declaration 'bob': The password you are trying to remove from the user does not exist"
    );
    assert_eq!(
        declared(&["on", "--user", "bob"]),
        "Error in user declaration 'bob': Duplicate user found. A user can only be defined once in config files"
    );
    let logged = |options: &[&str]| {
        let output = refuse(&[&["--port", "0"], options].concat());
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
        let log = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<String> =
            log.lines().map(|line| line.split_once(" # ").map_or("", |(_, text)| text).to_owned()).collect();
        lines[lines.len().saturating_sub(2)..].to_vec()
    };
    const CRITICAL: &str = "Critical error while loading ACLs. Exiting.";
    for name in ["bob on >x", "bob\tx", "bob\n", "bob\u{b}"] {
        assert_eq!(logged(&["--user", name]), ["Spaces not allowed in ACL usernames", CRITICAL], "{name:?}");
    }
    assert_eq!(
        logged(&["--user", "bob", "on", "+nosuch"]),
        [
            "Error loading ACL rule '+nosuch' for the user named 'bob': Unknown command or category name in ACL",
            CRITICAL
        ]
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    assert!(logged(&["--user", "bob", "--aclfile", path])[1].starts_with(
        "Configuring Redis with users defined in redis.conf and at the same setting an ACL file path is invalid."
    ));
    fs::write(&file, "user bob on foo\n").unwrap();
    assert_eq!(
        logged(&["--aclfile", path])[1],
        format!(
            "Aborting Redis startup because of ACL errors: {path}:1: Syntax error. WARNING: ACL errors detected, no change \
             to the previously active ACL rules was performed"
        )
    );
}

#[test]
fn a_server_that_would_listen_nowhere_ends() {
    for options in [&["--bind", ""][..], &["--bind"], &["--port", "0"]] {
        let log = String::from_utf8(refuse(options).stdout).unwrap();
        assert!(log.trim_end().ends_with("# Configured to not listen anywhere, exiting."), "{options:?} {log}");
    }
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let server = Running::start(&["--bind", "", "--unixsocket", socket.to_str().unwrap()]);
    assert!(socket.exists() && server.ask(&["PING"]).is_err());
}

#[test]
fn a_renamed_command_keeps_its_own_name() {
    let lines = "rename-command CONFIG XCONF\nrename-command FLUSHALL \"\"\nrename-command GET get\n\
                 user bob on >x ~* +@all -flushall -config +config|get\n";
    let server = Running::start_with(lines, &[]);
    let names = |command: &[&str]| -> Vec<String> { redis::from_redis_value(&server.ask(command).unwrap()).unwrap() };
    // Rules are about own names, and hold for the command whatever it is called by.
    assert!(server.ask_as("bob", "x", &["XCONF", "GET", "maxmemory"]).is_ok());
    assert_eq!(
        server.ask_as("bob", "x", &["XCONF", "SET", "maxmemory", "0"]).unwrap_err(),
        "NOPERM User bob has no permissions to run the 'config|set' command"
    );
    assert!(server.ask(&["ACL", "SETUSER", "eve", "+flushall", "+config|set"]).is_ok());
    let unknown = server.ask(&["ACL", "SETUSER", "eve", "+xconf"]).unwrap_err();
    assert!(unknown.contains("Unknown command or category name"), "{unknown}");
    assert!(names(&["ACL", "CAT", "dangerous"]).contains(&"flushall".into()));
    // It is found by what it is called by, and shown as what it is.
    let info: Vec<redis::Value> =
        redis::from_redis_value(&server.ask(&["COMMAND", "INFO", "xconf", "config", "flushall"]).unwrap()).unwrap();
    let first: Vec<redis::Value> = redis::from_redis_value(&info[0]).unwrap();
    assert_eq!(first[0], redis::Value::BulkString(b"config".to_vec()));
    assert_eq!(info[1..], [redis::Value::Nil, redis::Value::Nil]);
    assert_eq!(names(&["COMMAND", "LIST", "FILTERBY", "PATTERN", "config|s*"]), ["config|set"]);
    let all = names(&["COMMAND", "LIST"]);
    assert!(all.contains(&"config|get".into()) && all.contains(&"get".into()) && !all.contains(&"flushall".into()));
    let stats: String = redis::from_redis_value(&server.ask(&["INFO", "commandstats"]).unwrap()).unwrap();
    assert!(stats.contains("cmdstat_config|get:calls=1,"), "{stats}");
    // Who types it finds help under the name that was typed.
    assert_eq!(server.ask(&["xconf", "foo"]).unwrap_err(), "ERR unknown subcommand 'foo'. Try XCONF HELP.");
    assert!(names(&["XCONF", "HELP"])[0].starts_with("XCONF <subcommand>"));
    assert!(server.ask(&["FLUSHALL"]).unwrap_err().contains("unknown command"));
}

#[test]
fn what_others_send_stays_in_its_line_of_the_log() {
    let server = Running::start(&["--enable-debug-command", "local"]);
    server.ask(&["DEBUG", "LOG", "one\n2:M # two\x1b[2J\0"]).unwrap();
    let log = server.log();
    assert!(log.contains(r"DEBUG LOG: one\n2:M # two\x1b[2J\x00"), "{log}");
}

#[test]
fn the_log_has_the_form_that_is_asked_for() {
    let mut server =
        Running::start(&["--log-format", "json", "--enable-debug-command", "local", "--always-show-logo", "yes"]);
    let pid = server.child.id();
    let say = |text: &str| server.ask(&["DEBUG", "LOG", text]).unwrap();
    let set = |format: &str, time: &str| {
        server.ask(&["CONFIG", "SET", "log-format", format, "log-timestamp-format", time]).unwrap();
    };
    say("a \"b\"\n\\");
    let log = server.log();
    log.lines().for_each(assert_is_json);
    let first = log.lines().next().unwrap();
    assert!(first.starts_with(&format!("{{\"pid\":{pid},\"role\":\"start\",\"timestamp\":\"20")), "{first}");
    let last = log.lines().last().unwrap();
    assert!(last.contains(",\"role\":\"master\",") && last.contains(",\"level\":\"warning\","), "{last}");
    assert!(last.ends_with(r#","message":"DEBUG LOG: a \"b\"\\n\\"}"#), "{last}");
    let last = |text: &str| {
        say(text);
        server.log().lines().last().unwrap().to_owned()
    };
    set("logfmt", "iso8601");
    let line = last("it's \"so\"");
    assert!(line.starts_with(&format!("pid={pid} role=primary timestamp=\"20")), "{line}");
    assert!(line.ends_with("level=warning message=\"DEBUG LOG: it's 'so'\""), "{line}");
    set("text", "milliseconds");
    assert_eq!(server.get("log-format"), "legacy");
    let line = last("x");
    assert!(line.starts_with(&format!("{pid}:M 1")) && line.ends_with(" # DEBUG LOG: x"), "{line}");
    let error = server.ask(&["CONFIG", "SET", "log-format", "xml"]).unwrap_err();
    assert!(error.ends_with("argument(s) must be one of the following: legacy, logfmt, json, text"), "{error}");
    // A crash is told of in lines, too.
    set("json", "legacy");
    let before = server.log().lines().count();
    signal(pid, "ABRT");
    server.child.wait().unwrap();
    let log = server.log();
    let report: Vec<&str> = log.lines().skip(before).collect();
    assert!(report.len() > 100, "{log}");
    report.iter().for_each(|line| assert_is_json(line));
    assert!(
        report.iter().any(|line| line.ends_with("=== REDIS BUG REPORT START: Cut & paste starting from here ===\"}"))
    );
}
