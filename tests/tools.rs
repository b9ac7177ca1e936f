//! The tools as scripts use them: what redis-cli and redis-benchmark print and exit with.

use crate::common;

use common::{CLI, TestServer, in_root, real_redis, run, wait_for};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const BENCHMARK: &str = env!("CARGO_BIN_EXE_redis-benchmark");

struct Output {
    out: String,
    err: String,
    code: Option<i32>,
}

fn run_with(program: &str, args: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(args)
        .env_remove("REDISCLI_AUTH")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that does not read its input may be gone.
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Output { out: text(output.stdout), err: text(output.stderr), code: output.status.code() }
}

/// redis-cli against a server.
fn cli(server: &TestServer, args: &[&str], input: &str) -> Output {
    let port = server.port.to_string();
    let mut all = vec!["-p", &port];
    all.extend(args);
    run_with(CLI, &all, &[], input.as_bytes())
}

fn benchmark(server: &TestServer, args: &[&str]) -> Output {
    let port = server.port.to_string();
    let mut all = vec!["-p", &port, "-n", "100", "-c", "5"];
    all.extend(args);
    run_with(BENCHMARK, &all, &[], b"from stdin")
}

#[test]
fn every_layout_of_a_reply() {
    let server = TestServer::start(&[]);
    cli(&server, &[], "hset h f \"a\\x01\\xc3\\xa9\"\nrpush l 1 2 3\nset s \"x y\"\n");
    let cases: &[(&[&str], &str)] = &[
        (&["get", "s"], "x y\n"),
        (&["--no-raw", "get", "s"], "\"x y\"\n"),
        (&["--no-raw", "get", "none"], "(nil)\n"),
        (&["get", "none"], "\n"),
        (&["--no-raw", "lrange", "l", "0", "-1"], "1) \"1\"\n2) \"2\"\n3) \"3\"\n"),
        (&["-d", ":", "lrange", "l", "0", "-1"], "1:2:3\n"),
        (&["-D", "", "lrange", "l", "0", "-1"], "1\n2\n3"),
        (&["--csv", "lrange", "l", "0", "-1"], "\"1\",\"2\",\"3\"\n"),
        (&["--csv", "hgetall", "h"], "\"f\",\"a\\x01\\xc3\\xa9\"\n"),
        (&["--json", "hgetall", "h"], "{\"f\":\"a\\u0001é\"}\n"),
        (&["-2", "--json", "hgetall", "h"], "[\"f\",\"a\\u0001é\"]\n"),
        (&["--quoted-json", "hgetall", "h"], "{\"f\":\"a\\\\x01\\\\xc3\\\\xa9\"}\n"),
        (&["-3", "--no-raw", "hgetall", "h"], "1# \"f\" => \"a\\x01\\xc3\\xa9\"\n"),
        (&["-n", "3", "--no-raw", "dbsize"], "(integer) 0\n"),
        (&["-r", "2", "ping"], "PONG\nPONG\n"),
        (&["--quoted-input", "get", "\"\\x73\""], "x y\n"),
        (&["-u", "redis://127.0.0.1", "--version"], "redis-cli 7.2.6\n"),
    ];
    for (args, expected) in cases {
        assert_eq!(cli(&server, args, "").out, *expected, "{args:?}");
    }
}

#[test]
fn exit_codes_and_complaints() {
    let server = TestServer::start(&[]);
    let wrong = cli(&server, &["nonsense"], "");
    assert_eq!((wrong.code, wrong.out.starts_with("ERR unknown command")), (Some(0), true));
    let wrong = cli(&server, &["-e", "nonsense"], "");
    assert_eq!((wrong.code, wrong.err.starts_with("ERR unknown command")), (Some(1), true));
    let refused = run_with(CLI, &["-p", "1", "-t", "0.5", "ping"], &[], b"");
    assert_eq!(
        (refused.code, refused.err.as_str()),
        (Some(1), "Could not connect to Redis at 127.0.0.1:1: Connection refused\n")
    );
    let unknown = cli(&server, &["--nonsense"], "");
    assert_eq!(unknown.err, "Unrecognized option or bad number of args for: '--nonsense'\n");
    assert_eq!(unknown.code, Some(1));
}

#[test]
fn input_takes_the_place_of_arguments() {
    let server = TestServer::start(&[]);
    assert_eq!(cli(&server, &["-x", "set", "k"], "from a pipe").out, "OK\n");
    assert_eq!(cli(&server, &["-X", "<here>", "set", "<here>", "v"], "name").out, "OK\n");
    assert_eq!(cli(&server, &["mget", "k", "name"], "").out, "from a pipe\nv\n");
}

#[test]
fn passwords_from_everywhere() {
    let server = TestServer::start(&["--requirepass", "open sesame"]);
    let port = server.port.to_string();
    let ask = |args: &[&str], environment: &[(&str, &str)], input: &str| {
        let mut all = vec!["-p", &port];
        all.extend(args);
        all.push("ping");
        run_with(CLI, &all, environment, input.as_bytes())
    };
    assert_eq!(ask(&[], &[], "").out, "NOAUTH Authentication required.\n\n");
    assert_eq!(ask(&[], &[("REDISCLI_AUTH", "open sesame")], "").out, "PONG\n");
    let warned = ask(&["-a", "open sesame"], &[], "");
    assert_eq!(warned.out, "PONG\n");
    assert!(warned.err.starts_with("Warning: Using a password with '-a' or '-u' option"), "{}", warned.err);
    assert_eq!(ask(&["--user", "default", "--pass", "open sesame", "--no-auth-warning"], &[], "").err, "");
    assert_eq!(ask(&["--askpass"], &[("REDISCLI_AUTH", "wrong")], "open sesame\n").out, "PONG\n");
    let uri = format!("redis://default:open%20sesame@127.0.0.1:{port}");
    assert_eq!(ask(&["-u", &uri], &[], "").out, "PONG\n");
}

#[test]
fn bulk_transfer_counts_replies() {
    let server = TestServer::start(&[]);
    let sent = cli(&server, &["--pipe"], "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\nINCR a\r\nNONSENSE\r\n");
    let expected = "All data transferred. Waiting for the last reply...\nLast reply received from server.\nerrors: 1, replies: 3\n";
    assert_eq!((sent.out.as_str(), sent.code), (expected, Some(1)));
    assert!(sent.err.starts_with("ERR unknown command 'NONSENSE'"), "{}", sent.err);
}

#[test]
fn walks_over_all_keys() {
    let server = TestServer::start(&["--maxmemory-policy", "allkeys-lfu"]);
    cli(&server, &[], "mset user:1 aaa user:2 b \"odd\\nname\" c\nrpush queue 1 2 3 4\nsadd tags x\n");
    let mut keys: Vec<String> =
        cli(&server, &["--scan", "--pattern", "user:*"], "").out.lines().map(String::from).collect();
    keys.sort();
    assert_eq!(keys, ["user:1", "user:2"]);
    assert_eq!(cli(&server, &["--no-raw", "--scan", "--quoted-pattern", "\"odd\\n*\""], "").out, "\"odd\\nname\"\n");
    let big = cli(&server, &["--bigkeys"], "").out;
    for line in [
        "Sampled 5 keys in the keyspace!",
        "Biggest string found '\"user:1\"' has 3 bytes",
        "Biggest   list found '\"queue\"' has 4 items",
        "3 strings with 5 bytes (60.00% of keys, avg size 1.67)",
        "1 lists with 4 items (20.00% of keys, avg size 4.00)",
        "0 zsets with 0 members (00.00% of keys, avg size 0.00)",
    ] {
        assert!(big.lines().any(|l| l == line), "{line} in {big}");
    }
    let heavy = cli(&server, &["--memkeys", "--pattern", "queue"], "").out;
    assert!(
        heavy.contains("Biggest   list found '\"queue\"' has ") && heavy.contains("0 strings with 0 bytes"),
        "{heavy}"
    );
    let hot = cli(&server, &["--hotkeys"], "").out;
    assert!(hot.contains("hot key found with counter: ") && hot.contains("keyname: \"queue\""), "{hot}");
    run::<()>(&mut server.connect(), &["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let refused = cli(&server, &["--hotkeys"], "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("An LFU maxmemory policy is not selected"), "{}", refused.err);
}

#[test]
fn samples_of_latency_and_statistics() {
    let server = TestServer::start(&[]);
    let sampled = cli(&server, &["--latency", "--csv", "-i", "0.05"], "").out;
    assert_eq!(sampled.trim_end().split(',').count(), 4, "{sampled}");
    let intrinsic = run_with(CLI, &["--intrinsic-latency", "1"], &[], b"").out;
    assert!(intrinsic.contains(" total runs (avg latency: ") && intrinsic.contains("Worst run took "), "{intrinsic}");
}

#[test]
fn a_snapshot_over_the_wire() {
    let server = TestServer::start(&[]);
    cli(&server, &["set", "k", "v"], "");
    let file = server.dir.path().join("copy.rdb");
    let fetched = cli(&server, &["--rdb", file.to_str().unwrap()], "");
    assert_eq!(fetched.code, Some(0), "{}", fetched.err);
    let bytes = fs::read(&file).unwrap();
    assert!(bytes.starts_with(b"REDIS0011"));
    assert!(cli(&server, &["--rdb", "-"], "").out.starts_with("REDIS0011"));
}

/// A stream of what a server does, read until it contains all of `expected`.
fn stream(args: &[&str], expected: &[&str], mut act: impl FnMut()) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut child = Command::new(CLI)
        .args(args)
        .stdin(Stdio::null())
        .stdout(file.reopen().unwrap())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = String::new();
    wait_for(20, &format!("{expected:?}"), || {
        act();
        seen = fs::read_to_string(file.path()).unwrap_or_default();
        expected.iter().all(|text| seen.contains(text))
    });
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn streams() {
    let server = TestServer::start(&["--repl-diskless-sync-delay", "0"]);
    let port = server.port.to_string();
    let mut c = server.connect();
    stream(&["-p", &port, "monitor"], &["OK\n", "\"SET\" \"watched\" \"1\""], || run(&mut c, &["SET", "watched", "1"]));
    stream(&["-p", &port, "subscribe", "ch"], &["subscribe\nch\n1\n", "message\nch\nhello\n"], || {
        run(&mut c, &["PUBLISH", "ch", "hello"])
    });
    stream(&["-p", &port, "--replica"], &["\"SET\",\"streamed\",\"2\""], || run(&mut c, &["SET", "streamed", "2"]));
    stream(&["-p", &port, "--stat", "-i", "0.05"], &["- data -", "keys       mem      clients", "\n2 "], || ());
    stream(&["-p", &port, "--lru-test", "100"], &["Gets/sec | Hits: "], || ());
    stream(&["-p", &port, "-3", "--show-pushes", "yes", "-r", "-1", "-i", "0.05", "ping"], &["PONG\nPONG\n"], || ());
}

#[test]
fn a_cluster_at_a_glance() {
    let server = TestServer::start(&["--cluster-enabled", "yes"]);
    run::<()>(&mut server.connect(), &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    let mut c = server.connect();
    wait_for(20, "the cluster is up", || run::<String>(&mut c, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    let address = format!("127.0.0.1:{}", server.port);
    let seen = run_with(CLI, &["--cluster", "watch", &address], &[], b"");
    assert_eq!(seen.code, Some(0), "{}", seen.err);
    assert!(seen.out.starts_with(&format!("Cluster seen from {address}   state: ok   epoch: 0   ")), "{}", seen.out);
    assert!(seen.out.contains("1 masters, 0 replicas, 16384/16384 slots covered, 0 failing"), "{}", seen.out);
    let trib = in_root("utils/redis-trib.rb");
    let tools = Path::new(CLI).parent().unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    // The script prefers the redis-cli beside it; here there is none but the one just built.
    let copy = server.dir.path().join("redis-trib.rb");
    fs::copy(&trib, &copy).unwrap();
    let checked = run_with(copy.to_str().unwrap(), &["check", &address], &[("PATH", &path)], b"");
    assert_eq!(checked.code, Some(0), "{}{}", checked.out, checked.err);
    assert!(checked.out.contains("[OK] All 16384 slots covered."), "{}", checked.out);
}

#[test]
fn a_benchmark_reports_in_the_usual_shapes() {
    let server = TestServer::start(&[]);
    let quiet = benchmark(&server, &["-q", "-t", "set,get"]).out.replace('\r', "\n");
    let lines: Vec<&str> = quiet.lines().filter(|l| l.contains("requests per second")).collect();
    assert_eq!(lines.len(), 2, "{quiet}");
    assert!(lines[0].starts_with("SET: ") && lines[0].contains(" requests per second, p50="), "{quiet}");
    let csv = benchmark(&server, &["--csv", "-t", "get"]).out;
    let mut rows = csv.lines();
    assert_eq!(
        rows.next(),
        Some(
            "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\"p99_latency_ms\",\"max_latency_ms\""
        )
    );
    assert!(rows.next().unwrap().starts_with("\"GET\",\""));
    let long = benchmark(&server, &["-P", "10", "-x", "set", "k"]).out;
    for part in [
        "====== set k ======\n  100 requests completed in ",
        "  5 parallel clients\n  37 bytes payload\n  keep alive: 1\n  host configuration \"save\": \n",
        "Latency by percentile distribution:\n0.000% <= ",
        "Cumulative distribution of latencies:\n",
        "Summary:\n  throughput summary: ",
        "          avg       min       p50       p95       p99       max\n",
    ] {
        assert!(long.contains(part), "{part:?} in {long}");
    }
    assert_eq!(cli(&server, &["get", "k"], "").out, "from stdin\n");
}

#[test]
fn a_benchmark_draws_keys() {
    let server = TestServer::start(&[]);
    let keys = |args: &[&str]| {
        let mut c = server.connect();
        run::<()>(&mut c, &["FLUSHALL"]);
        assert_eq!(benchmark(&server, args).code, Some(0), "{args:?}");
        let mut keys: Vec<String> = run(&mut c, &["KEYS", "*"]);
        keys.sort();
        keys
    };
    assert_eq!(keys(&["-t", "set", "-q"]), ["key:__rand_int__"]);
    let drawn = keys(&["-t", "set", "-r", "20", "-P", "4", "-q"]);
    assert!(drawn.len() > 5 && drawn.iter().all(|k| k.starts_with("key:00000000") && k.len() == 16), "{drawn:?}");
    assert_eq!(keys(&["-r", "3", "-q", "incr", "n:__rand_int__"]).len(), 3);
    let seeded = ["-r", "1000000", "-c", "1", "--seed", "7", "-q", "set", "__rand_int__", "v"];
    assert_eq!(keys(&seeded), keys(&seeded));
}

#[test]
fn a_benchmark_ends_at_an_error() {
    let server = TestServer::start(&["--maxclients", "10"]);
    let refused = benchmark(&server, &["-q", "nonsense"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.starts_with("Error from server: ERR unknown command 'nonsense'"), "{}", refused.err);
    let crowded = benchmark(&server, &["-c", "20", "-I"]);
    assert_eq!(crowded.code, Some(1));
    assert!(crowded.err.contains("Error from server: ERR max number of clients reached"), "{}", crowded.err);
    let misspelt = benchmark(&server, &["--nonsense"]);
    assert_eq!(misspelt.code, Some(1));
    assert!(misspelt.out.starts_with("Invalid option \"--nonsense\" or option argument missing\n"), "{}", misspelt.out);
}

#[test]
fn a_benchmark_spreads_over_a_cluster() {
    let server = TestServer::start(&["--cluster-enabled", "yes"]);
    let mut c = server.connect();
    run::<()>(&mut c, &["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_for(20, "the cluster is up", || run::<String>(&mut c, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    let loaded = benchmark(&server, &["--cluster", "-t", "set,mset", "-r", "100", "-P", "3"]);
    assert_eq!(loaded.code, Some(0), "{}", loaded.err);
    assert!(loaded.out.starts_with("Cluster has 1 master nodes:\n\nMaster 0: "), "{}", loaded.out);
    assert!(
        loaded.out.contains("  cluster mode: yes (1 masters)\n  node [0] configuration:\n    save: NONE\n"),
        "{}",
        loaded.out
    );
    let keys: Vec<String> = run(&mut c, &["KEYS", "*"]);
    assert!(keys.len() > 50 && keys.iter().all(|key| key.starts_with("key{")), "{keys:?}");
}

/// Against a real Redis, as it takes a server with scripts and a debugger for them.
#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn a_script_is_stepped_through() {
    let redis = real_redis();
    let server = TestServer::start_binary(&redis, &[]);
    let script = server.dir.path().join("script.lua");
    fs::write(&script, "local a = redis.call('set', KEYS[1], ARGV[1])\nlocal b = 2\nreturn {a, b, ARGV[2]}\n").unwrap();
    let args = ["--ldb", "--eval", script.to_str().unwrap(), "k", ",", "v", "w"];
    let debugged = cli(&server, &args, "s\np a\ne 1 + \"2\"\nc\nget k\n");
    let expected = "\
Lua debugging session started, please use:
quit    -- End the session.
restart -- Restart the script in debug mode again.
help    -- Show Lua script debugging commands.

* Stopped at 1, stop reason = step over
-> 1   local a = redis.call('set', KEYS[1], ARGV[1])
<redis> set k v
<reply> \"+OK\"
* Stopped at 2, stop reason = step over
-> 2   local b = 2
<value> {[\"ok\"]=\"OK\"}
<retval> 3

1) OK
2) (integer) 2
3) \"w\"

(Lua debugging session ended -- dataset changes rolled back)

(nil)
";
    assert_eq!(debugged.out, expected, "{}", debugged.err);
    // In the server itself changes stay.
    let args = ["--ldb-sync-mode", "--eval", script.to_str().unwrap(), "k", ",", "v", "w"];
    let debugged = cli(&server, &args, "restart\nc\nget k\n").out;
    assert!(debugged.ends_with("(Lua debugging session ended)\n\n\"v\"\n"), "{debugged}");
    let alone = cli(&server, &["--ldb", "ping"], "");
    assert_eq!(
        (alone.code, alone.err.starts_with("Options --ldb and --ldb-sync-mode require --eval.")),
        (Some(1), true)
    );
}
