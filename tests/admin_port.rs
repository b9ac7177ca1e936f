//! The port for operators: scrapes, probes, who may ask for what, and what comes of bad input.

use crate::common;
use crate::common_tls;
use crate::openmetrics;

use common::{TestServer, assert_is_json, free_port, is_there, left_out, run, wait_for};
use common_tls::{Certs, TlsServer};
use openmetrics::Scrape;
use redis::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A server with a port for operators.
struct Watched {
    server: TestServer,
    port: u16,
}

impl Watched {
    fn start(options: &[&str]) -> Watched {
        let port = free_port();
        let text = port.to_string();
        let options = [&["--admin-port", text.as_str()], options].concat();
        Watched { server: TestServer::start(&options), port }
    }

    fn open(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// The response to a request for this, with these lines in its head.
    fn get_with(&self, target: &str, lines: &str) -> Answer {
        let mut stream = self.open();
        write!(stream, "GET {target} HTTP/1.1\r\nHost: localhost:{}\r\n{lines}\r\n", self.port).unwrap();
        read_answer(&mut stream)
    }

    fn get(&self, target: &str) -> Answer {
        self.get_with(target, "")
    }

    fn scrape(&self) -> Scrape {
        let answer = self.get_with("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
        openmetrics::read(&answer.body, true)
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

fn read_until(stream: &mut impl Read, end: &[u8]) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    while !bytes.ends_with(end) {
        stream.read_exact(&mut byte).unwrap_or_else(|e| panic!("{e} after {}", String::from_utf8_lossy(&bytes)));
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}

fn read_text(stream: &mut impl Read, len: usize) -> String {
    let mut bytes = vec![0; len];
    stream.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Reads a response, and no more than that.
fn read_answer(stream: &mut impl Read) -> Answer {
    let head = read_until(stream, b"\r\n\r\n");
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let mut answer = Answer { status, head, body: String::new() };
    if answer.header("transfer-encoding") != "chunked" {
        let len = answer.header("content-length").parse().unwrap();
        answer.body = read_text(stream, len);
        return answer;
    }
    loop {
        let len = usize::from_str_radix(read_until(stream, b"\r\n").trim(), 16).unwrap();
        answer.body += &read_text(stream, len);
        assert_eq!(read_text(stream, 2), "\r\n");
        if len == 0 {
            return answer;
        }
    }
}

fn text(c: &mut redis::Connection, words: &[&str]) -> String {
    run(c, words)
}

/// Something of every kind of metric: commands of several names, errors, slow ones, keys, a replica, a log.
fn keep_busy(c: &mut redis::Connection) {
    for i in 0..200 {
        text(c, &["SET", &format!("key:{i}"), "value"]);
        let _: Value = run(c, &["GET", &format!("key:{}", i * 2)]);
    }
    text(c, &["SET", "leaves", "soon", "PX", "100000"]);
    let _: Value = run(c, &["DEBUG", "SLEEP", "0.02"]);
    assert!(common::try_run::<Value>(c, &["NO\"SUCH\\COMMAND"]).is_err());
}

#[test]
fn a_scrape_is_well_formed_and_has_the_names_of_the_exporter() {
    let options = ["--appendonly", "yes", "--enable-debug-command", "yes", "--latency-monitor-threshold", "15"];
    let watched = Watched::start(&options);
    let replica = Watched::start(&["--replicaof", "127.0.0.1", &watched.server.port.to_string()]);
    let mut c = watched.server.connect();
    keep_busy(&mut c);
    wait_for(10, "the replica is there", || text(&mut c, &["INFO", "replication"]).contains("state=online"));
    let scrape = watched.scrape();
    let facts = include_str!("facts/exporter-metrics.txt");
    for line in facts.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once(' ').unwrap_or((line, ""));
        let samples = scrape.samples.get(name).unwrap_or_else(|| panic!("no {name}"));
        let keys: Vec<_> = samples[0].0.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys.join(" "), labels, "{name}");
    }
    // Figures are those of INFO, in the metric's units.
    let info: BTreeMap<String, String> = text(&mut c, &["INFO", "everything"])
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (field, name) in [
        ("maxclients", "redis_max_clients"),
        ("connected_slaves", "redis_connected_slaves"),
        ("total_error_replies", "redis_total_error_replies"),
        ("keyspace_misses", "redis_keyspace_misses_total"),
        ("rdb_last_bgsave_time_sec", "redis_rdb_last_bgsave_duration_sec"),
    ] {
        assert_eq!(scrape.value(name, None), info[field].parse::<f64>().unwrap(), "{name}");
    }
    let fork_s = info["latest_fork_usec"].parse::<f64>().unwrap() / 1e6;
    assert!((scrape.value("redis_latest_fork_seconds", None) - fork_s).abs() < 1e-9);
    assert_eq!(scrape.value("redis_commands_total", Some(("cmd", "set"))), 201.0);
    assert_eq!(scrape.value("redis_commands_latencies_usec_count", Some(("cmd", "get"))), 200.0);
    assert_eq!(scrape.value("redis_db_keys", Some(("db", "db0"))), 201.0);
    assert_eq!(scrape.value("redis_db_keys", Some(("db", "db15"))), 0.0);
    assert_eq!(scrape.value("redis_errors_total", Some(("err", "ERR"))), 1.0);
    assert_eq!(scrape.value("redis_aof_last_write_status", None), 1.0);
    assert!(scrape.value("hexad_loop_turn_usec_count", None) > 200.0);
    let spike = scrape.value("redis_latency_spike_duration_seconds", Some(("event_name", "command")));
    assert!(spike >= 0.015, "{spike}");
    let of_replica = replica.scrape();
    let operations = include_str!("../docs/OPERATIONS.md");
    for name in scrape.families.iter().chain(&of_replica.families).filter(|name| name.starts_with("hexad_")) {
        let is_told = ["", "_total"].iter().any(|suffix| operations.contains(&format!("`{name}{suffix}`")));
        assert!(is_told, "docs/OPERATIONS.md does not tell of {name}");
    }
    assert_eq!(of_replica.value("redis_master_link_up", None), 1.0);
    assert_eq!(of_replica.value("redis_slave_info", Some(("master_host", "127.0.0.1"))), 1.0);
    // The same for those who know OpenMetrics not.
    let plain = watched.get_with("/metrics", "Accept: text/plain;version=0.0.4\r\n");
    assert_eq!(plain.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let plain = openmetrics::read(&plain.body, false);
    // The first one is counted by now.
    assert!(scrape.samples.keys().all(|name| plain.samples.contains_key(name)));
    assert_eq!(plain.value("redis_exporter_scrapes_total", None), 1.0);
}

#[test]
fn slots_are_shown_when_asked_for() {
    let watched = Watched::start(&["--cluster-enabled", "yes"]);
    let mut c = watched.server.connect();
    text(&mut c, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_for(10, "the cluster is up", || text(&mut c, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    for i in 0..100 {
        text(&mut c, &["SET", &format!("{{a}}{i}"), "x"]);
    }
    let answer = watched.get_with("/metrics?slots=1", "Accept: application/openmetrics-text\r\n");
    assert_eq!(answer.header("transfer-encoding"), "chunked");
    let scrape = openmetrics::read(&answer.body, true);
    // The slot of "a".
    assert_eq!(scrape.value("hexad_slot_keys", Some(("slot", "15495"))), 100.0);
    assert_eq!(scrape.value("redis_cluster_state", None), 1.0);
    assert_eq!(scrape.value("redis_cluster_slots_ok", None), 16384.0);
    assert!(!watched.scrape().samples.contains_key("hexad_slot_keys"));
    // HTTP/1.0 knows no chunks: the end of the connection is the end.
    let mut stream = watched.open();
    stream.write_all(b"GET /metrics?slots=1 HTTP/1.0\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(all.contains("\nhexad_slot_keys{slot=\"15495\"} 100\n"));
}

#[test]
fn probes_tell_whether_and_why_not() {
    let node = Watched::start(&["--cluster-enabled", "yes", "--requirepass", "secret"]);
    assert_eq!((node.get("/healthz").status, node.get("/healthz").body.as_str()), (200, "ok\n"));
    let answer = node.get("/readyz");
    let why = "not ready: the cluster is down: 16384 slots are served by no node\n";
    assert_eq!((answer.status, answer.body.as_str()), (503, why));
    let replica = Watched::start(&["--replicaof", "127.0.0.1", "1"]);
    let answer = replica.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.starts_with("not ready: it is a replica, and its link to the master is not up: "),
        "{}",
        answer.body
    );
    text(&mut replica.server.connect(), &["REPLICAOF", "NO", "ONE"]);
    assert_eq!((replica.get("/readyz").status, replica.get("/readyz").body.as_str()), (200, "ready\n"));
    // A probe may come under any name.
    let mut stream = replica.open();
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: pod.example.com\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).status, 200);
}

#[test]
fn a_server_that_loads_is_not_ready() {
    let mut watched = Watched::start(&["--appendonly", "yes", "--key-load-delay", "300"]);
    let mut c = watched.server.connect();
    let pairs: Vec<String> = (0..20_000).map(|i| format!("k{i}")).collect();
    for some in pairs.chunks(1000) {
        let mut words = vec!["MSET"];
        some.iter().for_each(|key| words.extend([key.as_str(), "v"]));
        text(&mut c, &words);
    }
    text(&mut c, &["BGREWRITEAOF"]);
    wait_for(20, "the rewrite", || watched.server.log().contains("AOF rewrite finished successfully"));
    drop(c);
    watched.server.kill();
    let begin = std::thread::spawn({
        let port = watched.port;
        move || {
            let deadline = Instant::now() + Duration::from_secs(20);
            while Instant::now() < deadline {
                if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
                    let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
                    return read_answer(&mut stream);
                }
            }
            panic!("the port does not open");
        }
    });
    watched.server.restart();
    let answer = begin.join().unwrap();
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("not ready: it loads its data set"), "{}", answer.body);
    assert_eq!(watched.get("/readyz").status, 200);
}

#[test]
fn bad_input_is_answered_or_cut_off() {
    let watched = Watched::start(&[]);
    let mut slow = watched.open();
    slow.write_all(b"GET /metrics").unwrap();
    let begun = Instant::now();
    let long = "x".repeat(9000);
    let many = "A: b\r\n".repeat(100);
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc".to_owned(), 405),
        ("OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 405),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".into(), 413),
        ("GET /metrics HTTP/1.1\r\n\r\n".into(), 400),
        ("GET /metrics HTTP/3.0\r\nHost: localhost\r\n\r\n".into(), 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(), 505),
        ("*1\r\n$4\r\nPING\r\n".into(), 400),
        ("\0\u{1}\u{16}\u{3}\u{1}\r\n\r\n".into(), 400),
        (format!("GET /{long} HTTP/1.1\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nA: {long}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"), 431),
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 404),
        ("GET /metrics/ HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 404),
        ("GET //metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 404),
        ("GET /%6detrics HTTP/1.1\r\nHost: localhost\r\n\r\n".into(), 404),
        ("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n".into(), 421),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n".into(), 403),
        ("GET /metrics HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site\r\n\r\n".into(), 403),
        ("GET http://localhost/metrics HTTP/1.1\r\nHost: evil\r\n\r\n".into(), 200),
        ("GET /metrics HTTP/1.1\r\nHost: [::1]:1\r\nSec-Fetch-Site: none\r\n\r\n".into(), 200),
    ] {
        let mut stream = watched.open();
        stream.write_all(request.as_bytes()).unwrap();
        let answer = read_answer(&mut stream);
        assert_eq!(answer.status, status, "{request}\n{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        // After what was not understood nothing is a request.
        let is_over = !matches!(status, 200 | 403 | 404 | 421);
        assert_eq!(answer.header("connection"), if is_over { "close" } else { "keep-alive" }, "{request}");
    }
    // Only the head of a response is sent for HEAD.
    let (mut stream, asked) = (watched.open(), Instant::now());
    stream.write_all(b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut all = String::new();
    stream.read_to_string(&mut all).unwrap();
    assert!(asked.elapsed() < Duration::from_millis(900), "the end comes with the response: {:?}", asked.elapsed());
    assert!(all.contains("Content-Length: 3\r\n") && all.ends_with("\r\n\r\n"), "{all}");
    // Whoever does not come to an end is cut off.
    let mut rest = Vec::new();
    while begun.elapsed() < Duration::from_secs(3) {
        slow.write_all(b"x").unwrap();
        std::thread::sleep(Duration::from_millis(500));
    }
    let _ = slow.read_to_end(&mut rest);
    assert!(rest.is_empty() && begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    assert_eq!(watched.get("/healthz").status, 200);
}

#[test]
fn random_bytes_harm_nobody() {
    let watched = Watched::start(&[]);
    let mut c = watched.server.connect();
    let parts: [&[u8]; 12] = [
        b"GET ",
        b"/metrics",
        b" HTTP/1.1",
        b"\r\n",
        b"\r\n\r\n",
        b"Host: localhost",
        b"Content-Length: ",
        b"99999999999999999999",
        b"\0",
        b"Authorization: Basic ",
        b":",
        b"Connection: close",
    ];
    for seed in 0..300 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bytes = Vec::new();
        for _ in 0..rng.usize(1..40) {
            match rng.bool() {
                true => bytes.extend_from_slice(parts[rng.usize(..parts.len())]),
                false => bytes.extend((0..rng.usize(..30)).map(|_| rng.u8(..))),
            }
        }
        let mut stream = watched.open();
        let _ = stream.write_all(&bytes);
    }
    let asked = Instant::now();
    assert_eq!(text(&mut c, &["PING"]), "PONG");
    assert!(asked.elapsed() < Duration::from_secs(1));
    // As long as it has not seen that they are gone, there are too many.
    while watched.get("/healthz").status != 200 {
        assert!(asked.elapsed() < Duration::from_secs(5), "they count though they are gone");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn requests_in_one_go_are_answered_in_order() {
    let watched = Watched::start(&[]);
    let mut stream = watched.open();
    let requests: String = ["/healthz", "/metrics", "/nowhere", "/readyz"]
        .map(|path| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
        .concat();
    stream.write_all(requests.as_bytes()).unwrap();
    let answers: Vec<_> = (0..4).map(|_| read_answer(&mut stream)).collect();
    assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [200, 200, 404, 200]);
    assert_eq!((answers[0].body.as_str(), answers[3].body.as_str()), ("ok\n", "ready\n"));
}

/// Each response tells how long the scrape before it took.
#[test]
fn whoever_asks_all_the_time_gets_a_share_of_it() {
    let watched = Watched::start(&[]);
    let mut stream = watched.open();
    let mut writer = stream.try_clone().unwrap();
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(50);
    let flood = std::thread::spawn(move || while writer.write_all(request.as_bytes()).is_ok() {});
    let (begun, mut taken_s) = (Instant::now(), 0.0);
    while begun.elapsed() < Duration::from_secs(2) {
        let scrape = openmetrics::read(&read_answer(&mut stream).body, false);
        taken_s += scrape.value("redis_exporter_last_scrape_duration_seconds", None);
    }
    assert!(taken_s < begun.elapsed().as_secs_f64() / 10.0, "{taken_s}");
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    flood.join().unwrap();
}

#[test]
fn connections_are_limited_and_no_clients() {
    let watched = Watched::start(&["--admin-max-connections", "4", "--maxclients", "1"]);
    let mut held: Vec<_> = (0..4).map(|_| watched.open()).collect();
    for stream in &mut held {
        // They have begun to ask, so none of them is idle.
        stream.write_all(b"GET /he").unwrap();
    }
    std::thread::sleep(Duration::from_millis(200));
    let mut all = String::new();
    watched.open().read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.1 503 "), "{all}");
    let mut c = watched.server.connect();
    assert_eq!(text(&mut c, &["CLIENT", "LIST"]).lines().count(), 1);
    assert!(text(&mut c, &["INFO", "clients"]).contains("connected_clients:1\r\n"));
    // Idle ones make room.
    for stream in &mut held {
        stream.write_all(b"althz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(read_answer(stream).status, 200);
    }
    assert_eq!(watched.get("/healthz").status, 200);
}

#[test]
fn whoever_may_ask_signs_in() {
    let watched = Watched::start(&["--requirepass", "secret"]);
    let mut c = watched.server.client().get_connection().unwrap();
    text(&mut c, &["AUTH", "secret"]);
    text(&mut c, &["ACL", "SETUSER", "scraper", "on", ">pass:word", "+info"]);
    text(&mut c, &["ACL", "SETUSER", "nobody", "on", ">nothing"]);
    let ask =
        |credentials: &str| watched.get_with("/metrics", &format!("Authorization: Basic {credentials}\r\n")).status;
    let refused = watched.get("/metrics");
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, "Basic realm=\"Hexad\", charset=\"UTF-8\""));
    // What there is, is not told either.
    assert_eq!(watched.get("/nowhere").status, 401);
    assert_eq!(watched.get("/healthz").status, 200);
    assert_eq!(ask("c2NyYXBlcjpwYXNzOndvcmQ="), 200, "scraper:pass:word");
    assert_eq!(ask("OnNlY3JldA=="), 200, ":secret");
    assert_eq!(ask("bm9ib2R5Om5vdGhpbmc="), 403, "nobody:nothing");
    assert_eq!(ask("c2NyYXBlcjp3cm9uZw=="), 401, "scraper:wrong");
    let log = format!("{:?}", run::<Value>(&mut c, &["ACL", "LOG"]));
    assert!(log.contains("admin-port") && log.contains("scraper"), "{log}");
    assert!(text(&mut c, &["INFO", "stats"]).contains("acl_access_denied_auth:1\r\n"));
    for _ in 0..4 {
        assert_eq!(ask("c2NyYXBlcjp3cm9uZw=="), 401);
    }
    let blocked = watched.get_with("/metrics", "Authorization: Basic OnNlY3JldA==\r\n");
    assert_eq!(blocked.status, 429, "even with the right password");
    assert!((1..=60).contains(&blocked.header("retry-after").parse().unwrap()));
}

#[test]
fn the_port_opens_and_closes_while_the_server_runs() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let watched = Watched { server, port: free_port() };
    text(&mut c, &["CONFIG", "SET", "admin-port", &watched.port.to_string()]);
    assert_eq!(watched.get("/healthz").status, 200);
    let taken = watched.server.port.to_string();
    assert!(common::try_run::<Value>(&mut c, &["CONFIG", "SET", "admin-port", &taken]).is_err());
    assert_eq!(watched.get("/healthz").status, 200, "as before");
    text(&mut c, &["CONFIG", "SET", "admin-hosts", "redis.example.com other"]);
    let mut stream = watched.open();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: Redis.Example.com\r\n\r\n").unwrap();
    assert_eq!(read_answer(&mut stream).status, 200);
    text(&mut c, &["CONFIG", "SET", "admin-port", "0"]);
    assert!(TcpStream::connect(("127.0.0.1", watched.port)).is_err());
    // Those who were there are gone.
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn the_port_speaks_tls() {
    let (certs, port) = (Certs::new(), free_port());
    let options = ["--admin-port", &port.to_string(), "--admin-tls", "yes", "--tls-auth-clients", "no"];
    let tls = TlsServer::start(&certs, &options);
    let url = format!("https://127.0.0.1:{port}/metrics");
    let out = std::process::Command::new("curl").args(["-s", "--cacert", &certs.text("ca.crt"), &url]).output();
    let Ok(out) = out else { return left_out("there is no curl") };
    let scrape = openmetrics::read(&String::from_utf8(out.stdout).unwrap(), false);
    assert!(scrape.value("hexad_tls_certificate_expiry_timestamp_seconds", Some(("certificate", "server"))) > 1e9);
    // Without TLS nothing is to be had.
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut all = Vec::new();
    let _ = stream.read_to_end(&mut all);
    assert!(!all.starts_with(b"HTTP"));
    drop(tls);
}

#[test]
fn the_page_stands_alone_and_is_fed() {
    let options = ["--cluster-enabled", "yes", "--slowlog-log-slower-than", "0", "--enable-debug-command", "yes"];
    let watched = Watched::start(&options);
    let mut c = watched.server.connect();
    text(&mut c, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_for(10, "the cluster is up", || text(&mut c, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    text(&mut c, &["SET", "odd\"\\\n<b>", "x"]);
    let big = "x".repeat(5000);
    text(&mut c, &["SET", "big", &big]);
    let page = watched.get_with("/", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; ") && policy.contains("frame-ancestors 'none'"));
    assert!(!policy.contains("unsafe"), "{policy}");
    for path in ["/", "/page.css", "/page.js"] {
        let body = watched.get(path).body;
        let elsewhere = body.replace("http://www.w3.org/2000/svg", "");
        assert!(!elsewhere.contains("://") && !elsewhere.contains("url("), "{path} asks others");
        assert!(!body.contains(" style=") && !body.contains(" onclick="), "{path} has what the policy forbids");
    }
    let api = |name: &str| {
        let answer = watched.get(&format!("/api/{name}"));
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{name}");
        assert_is_json(&answer.body);
        answer.body
    };
    wait_for(10, "samples are taken", || api("state").contains("\"rows\":[["));
    let rows = |body: &str| body.rsplit_once("\"rows\":").unwrap().1.matches('[').count() - 1;
    assert!(rows(&api("state")) >= 1);
    assert_eq!(rows(&api("state?since=9000000000000")), 0);
    assert!(api("state").contains("\"keys\":2,") && api("cluster").contains("\"slots\":[[0,16383]]"));
    assert!(api("slowlog").contains("odd\\\"\\\\\\u000a<b>"));
    assert!(api("clients").contains("\"total\":") && api("doctor").contains("\"few-masters\""));
    let keys = api("keys");
    let biggest = keys.split_once("\"biggest\":[{\"db\":0,\"key\":\"").expect(&keys).1;
    assert!(biggest.starts_with("big\"") && keys.starts_with("{\"seen\":2,"), "{keys}");
}

#[test]
fn few_keys_are_all_seen_and_many_are_sampled() {
    let watched = Watched::start(&["--enable-debug-command", "yes"]);
    let mut c = watched.server.connect();
    text(&mut c, &["DEBUG", "POPULATE", "2000", "a"]);
    text(&mut c, &["SELECT", "3"]);
    text(&mut c, &["DEBUG", "POPULATE", "3000", "b"]);
    text(&mut c, &["SET", "big", &"x".repeat(5000)]);
    let keys = watched.get("/api/keys").body;
    assert!(keys.starts_with("{\"seen\":5001,") && keys.contains("\"biggest\":[{\"db\":3,\"key\":\"big\","), "{keys}");
    text(&mut c, &["DEBUG", "POPULATE", "20000", "c"]);
    let keys = watched.get("/api/keys").body;
    let seen: usize = keys["{\"seen\":".len()..].split_once(',').unwrap().0.parse().unwrap();
    assert!((10_000..20_000).contains(&seen), "{keys}");
}

#[test]
fn each_part_of_the_page_asks_for_its_permission() {
    let watched = Watched::start(&["--requirepass", "secret"]);
    let mut c = watched.server.client().get_connection().unwrap();
    text(&mut c, &["AUTH", "secret"]);
    // "viewer:v"
    text(&mut c, &["ACL", "SETUSER", "viewer", "on", ">v", "+info", "+randomkey", "~a*"]);
    let ask = |path: &str| watched.get_with(path, "Authorization: Basic dmlld2VyOnY=\r\n").status;
    for (path, status) in [
        ("/", 200),
        ("/page.js", 200),
        ("/api/state", 200),
        ("/api/cluster", 403),
        ("/api/slowlog", 403),
        ("/api/clients", 403),
        ("/api/doctor", 403),
        ("/api/keys", 403),
    ] {
        assert_eq!(ask(path), status, "{path}");
        assert_eq!(watched.get(path).status, 401, "{path}");
    }
    text(&mut c, &["ACL", "SETUSER", "viewer", "allkeys", "+slowlog|get"]);
    assert_eq!((ask("/api/keys"), ask("/api/slowlog")), (200, 200));
}

/// The page's script asks for what it shows, and shows what it is given.
#[test]
fn everything_that_feeds_the_page_is_shown() {
    let options = ["--cluster-enabled", "yes", "--slowlog-log-slower-than", "0", "--repl-diskless-sync-delay", "0"];
    let (watched, other) = (Watched::start(&options), Watched::start(&options));
    let mut c = watched.server.connect();
    text(&mut c, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    text(&mut c, &["CLUSTER", "MEET", "127.0.0.1", &other.server.port.to_string()]);
    let id = text(&mut c, &["CLUSTER", "MYID"]);
    let mut replica = other.server.connect();
    wait_for(20, "it follows", || common::try_run::<()>(&mut replica, &["CLUSTER", "REPLICATE", &id]).is_ok());
    wait_for(20, "the link is up", || text(&mut replica, &["INFO", "replication"]).contains("link_status:up"));
    wait_for(20, "the cluster is up", || text(&mut c, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    text(&mut c, &["SET", "k", "v"]);
    let script = watched.get("/page.js").body;
    for of in [&watched, &other] {
        for path in ["state", "cluster", "doctor", "slowlog", "clients", "keys"] {
            let body = of.get(&format!("/api/{path}")).body;
            for (at, _) in body.match_indices("\":") {
                let name = body[..at].rsplit('"').next().unwrap();
                assert!(script.contains(&format!(".{name}")), "{name} of {path} is shown nowhere");
            }
        }
    }
}

#[test]
fn clients_that_are_held_back_wait() {
    let watched = Watched::start(&[]);
    let mut c = watched.server.connect();
    let waiting = || watched.get("/api/state").body.contains("\"blocked\":1,");
    assert!(!waiting());
    text(&mut c, &["CLIENT", "PAUSE", "100000", "WRITE"]);
    let mut held = watched.server.connect();
    std::thread::scope(|scope| {
        scope.spawn(move || text(&mut held, &["SET", "k", "v"]));
        wait_for(10, "it waits", waiting);
        text(&mut c, &["CLIENT", "UNPAUSE"]);
    });
    wait_for(10, "it waits no longer", || !waiting());
}

/// In a real browser, by its dialog, and with name and password in the address.
#[test]
fn a_browser_signs_in() {
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let Some(chromium) = browsers.into_iter().find(|name| is_there(name)) else {
        return left_out("there is no chromium");
    };
    if !is_there("python3") {
        return left_out("there is no python3");
    }
    let watched = Watched::start(&["--requirepass", "secret"]);
    let port = watched.port;
    for url in [format!("http://127.0.0.1:{port}/"), format!("http://:secret@127.0.0.1:{port}/")] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sign_in.py");
        let out = std::process::Command::new("python3").args([script, chromium, &url, "", "secret"]).output().unwrap();
        let (shown, error) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(shown.contains("master · ready · up for "), "{url}: {shown}{error}");
        // It is as wide as a phone's screen, and asks nobody else.
        assert!(shown.contains("\n390 of 390\n320 of 320\nasks 127.0.0.1\n"), "{shown}");
        assert!(shown.ends_with("asked 1 times\n") || url.contains('@'), "{shown}");
    }
}

/// What a hostile peer does on a connection, by its seed; after a second it leaves.
fn misbehave(seed: u64, port: u16) {
    const PATHS: [&str; 12] = [
        "/../../etc/passwd",
        "/%2e%2e/",
        "//metrics",
        "/metrics%00",
        "/metrics?slots=1&slots=2",
        "/api/../metrics",
        "*",
        "http://x/y",
        "/\u{fffd}",
        "/?",
        "/api/keys",
        "/metrics?slots=1",
    ];
    const METHODS: [&str; 11] =
        ["POST", "PUT", "DELETE", "OPTIONS", "CONNECT", "TRACE", "get", "G\0T", "PRI", "GET", "HEAD"];
    const PARTS: [&[u8]; 10] = [
        b"GET ",
        b"/metrics",
        b" HTTP/1.1\r\n",
        b"\r\n\r\n",
        b"Host: localhost\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"0\r\n",
        b"\n",
        b":",
        b"Authorization: Basic \xff\r\n",
    ];
    let mut rng = fastrand::Rng::with_seed(seed);
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return };
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let begun = Instant::now();
    let is_over = || begun.elapsed() > Duration::from_secs(1);
    let mut send = |bytes: &[u8]| !is_over() && stream.write_all(bytes).is_ok();
    let all = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let _is_sent = match seed % 8 {
        // Nonsense.
        0 => send(&(0..rng.usize(1..20_000)).map(|_| rng.u8(..)).collect::<Vec<_>>()),
        // Slow.
        1 => all.bytes().all(|byte| {
            std::thread::sleep(Duration::from_millis(30));
            send(&[byte])
        }),
        // A head without an end.
        2 => {
            let line = "y".repeat(200);
            send(b"GET / HTTP/1.1\r\n") && (0..2000).all(|i| send(format!("X-{i}: {line}\r\n").as_bytes()))
        }
        // A huge body.
        3 => {
            send(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n")
                && (0..100).all(|_| send(&[b'x'; 65536]))
        }
        // Many at once, and nobody reads for a while.
        4 => send(all.repeat(300).as_bytes()),
        // Methods and paths that are none.
        5 | 6 => (0..20).all(|_| {
            let (method, path) = (METHODS[rng.usize(..METHODS.len())], PATHS[rng.usize(..PATHS.len())]);
            let version = ["HTTP/1.1", "HTTP/1.0", "HTTP/9", ""][rng.usize(..4)];
            send(format!("{method} {path} {version}\r\nHost: localhost\r\n\r\n").as_bytes())
        }),
        // Parts of requests in no order.
        _ => (0..50).all(|_| send(PARTS[rng.usize(..PARTS.len())])),
    };
    let mut some = [0; 4096];
    while !is_over() && matches!(stream.read(&mut some), Ok(1..)) && rng.u8(..) >= 8 {}
}

/// Whatever comes to the port, clients are served as ever.
#[test]
fn nothing_that_comes_holds_up_clients() {
    let watched = Watched::start(&["--appendonly", "yes"]);
    let mut c = watched.server.connect();
    keep_some(&mut c);
    let seeds = std::sync::atomic::AtomicU64::new(0);
    let (begun, mut took) = (Instant::now(), Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| {
                while begun.elapsed() < Duration::from_secs(4) {
                    misbehave(seeds.fetch_add(1, std::sync::atomic::Ordering::Relaxed), watched.port);
                }
            });
        }
        while begun.elapsed() < Duration::from_secs(5) {
            let asked = Instant::now();
            text(&mut c, &["PING"]);
            took.push(asked.elapsed());
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    took.sort();
    let (half, most) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("{} seeds; half of the pings took {half:?} at most, 99 % {most:?}", seeds.into_inner());
    // Machines that run tests are busy with others, too.
    assert!(half < Duration::from_millis(50), "{half:?}");
    assert!(most < Duration::from_millis(500), "{most:?}");
    // Those who are gone leave nothing behind.
    let connections = || watched.scrape().value("hexad_admin_connections", None);
    wait_for(20, "they are gone", || connections() <= 2.0);
    assert!(!watched.server.log().contains("BUG REPORT"));
    assert_eq!(text(&mut c, &["GET", "kept"]), "value");
}

fn keep_some(c: &mut redis::Connection) {
    text(c, &["SET", "kept", "value"]);
    for i in 0..1000 {
        text(c, &["SET", &format!("key:{i}"), "value"]);
    }
}
