//! What survives: snapshots, the append-only log, crashes, and files exchanged with a real server.

use crate::common;

use common::{SERVER, TestServer, real_redis, run, try_run, wait_for};
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Keys of every kind a string can be stored as, in two databases, some with a time to live.
fn fill(server: &TestServer) {
    let mut c = server.connect();
    let long = "abc".repeat(2000);
    let noise: String = (0..300u32).map(|i| char::from(33 + (i * 7919 % 90) as u8)).collect();
    for (key, value) in [
        ("int8", "-5"),
        ("int16", "300"),
        ("int32", "-70000"),
        ("int64", "9223372036854775807"),
        ("zero-led", "007"),
        ("empty", ""),
        ("short", "hello"),
        ("long", long.as_str()),
        ("noise", noise.as_str()),
        ("12345", "integer key"),
    ] {
        run::<()>(&mut c, &["SET", key, value]);
    }
    run::<()>(&mut c, &["SET", "mortal", "x", "PX", "10000000"]);
    run::<()>(&mut c, &["SELECT", "3"]);
    run::<()>(&mut c, &["SET", "elsewhere", "y"]);
}

fn check(server: &TestServer) {
    let mut c = server.connect();
    assert_eq!(run::<i64>(&mut c, &["DBSIZE"]), 11);
    for (key, value) in [
        ("int8", "-5".to_owned()),
        ("int16", "300".into()),
        ("int32", "-70000".into()),
        ("int64", "9223372036854775807".into()),
        ("zero-led", "007".into()),
        ("empty", String::new()),
        ("long", "abc".repeat(2000)),
        ("12345", "integer key".into()),
    ] {
        assert_eq!(run::<String>(&mut c, &["GET", key]), value, "{key}");
    }
    assert_eq!(run::<String>(&mut c, &["GET", "noise"]).len(), 300);
    let left: i64 = run(&mut c, &["PTTL", "mortal"]);
    assert!((1..=10_000_000).contains(&left), "{left}");
    run::<()>(&mut c, &["SELECT", "3"]);
    assert_eq!(run::<String>(&mut c, &["GET", "elsewhere"]), "y");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_snapshot_survives_a_crash() {
    let mut server = TestServer::start(&[]);
    fill(&server);
    run::<()>(&mut server.connect(), &["SAVE"]);
    server.kill();
    server.restart();
    check(&server);
    assert!(server.log().contains("Done loading RDB, keys loaded: 12, keys expired: 0."));
}

#[test]
fn a_background_snapshot_is_of_the_moment_it_was_asked_for() {
    let mut server = TestServer::start(&["--rdb-key-save-delay", "20000"]);
    fill(&server);
    let mut c = server.connect();
    assert_eq!(run::<String>(&mut c, &["BGSAVE"]), "Background saving started");
    assert!(try_run::<()>(&mut c, &["BGSAVE"]).is_err());
    assert!(try_run::<()>(&mut c, &["SAVE"]).is_err());
    run::<()>(&mut c, &["SET", "int8", "changed"]);
    run::<()>(&mut c, &["DEL", "noise", "short"]);
    wait_for(10, "the snapshot", || server.log().contains("Background saving terminated with success"));
    server.kill();
    server.restart();
    check(&server);
}

#[test]
fn a_failed_background_snapshot_stops_writes_until_one_succeeds() {
    let server = TestServer::start(&["--save", "3600 1000000"]);
    let mut c = server.connect();
    run::<()>(&mut c, &["SET", "k", "v"]);
    let target = server.dir.path().join("dump.rdb");
    fs::create_dir(&target).unwrap();
    run::<()>(&mut c, &["BGSAVE"]);
    wait_for(10, "the failure", || server.log().contains("Background saving error"));
    let e = try_run::<()>(&mut c, &["SET", "k", "w"]).unwrap_err();
    assert_eq!(e.code(), Some("MISCONF"));
    assert_eq!(run::<String>(&mut c, &["GET", "k"]), "v");
    fs::remove_dir(&target).unwrap();
    run::<()>(&mut c, &["BGSAVE"]);
    wait_for(10, "writes", || try_run::<()>(&mut c, &["SET", "k", "w"]).is_ok());
}

#[test]
fn the_log_survives_a_crash_and_a_rewrite() {
    let mut server = TestServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    fill(&server);
    server.kill();
    server.restart();
    check(&server);
    let mut c = server.connect();
    run::<()>(&mut c, &["SET", "gone", "1"]);
    run::<()>(&mut c, &["BGREWRITEAOF"]);
    run::<()>(&mut c, &["DEL", "gone"]);
    wait_for(10, "the rewrite", || server.log().contains("Background AOF rewrite finished successfully"));
    server.kill();
    server.restart();
    check(&server);
    let dir = server.dir.path().join("appendonlydir");
    let manifest = fs::read_to_string(dir.join("appendonly.aof.manifest")).unwrap();
    assert_eq!(manifest, "file appendonly.aof.2.base.rdb seq 2 type b\nfile appendonly.aof.2.incr.aof seq 2 type i\n");
    wait_for(5, "removal of history", || fs::read_dir(&dir).unwrap().count() == 3);
}

#[test]
fn a_rewrite_may_be_in_commands() {
    let mut server = TestServer::start(&["--appendonly", "yes", "--aof-use-rdb-preamble", "no"]);
    fill(&server);
    run::<()>(&mut server.connect(), &["BGREWRITEAOF"]);
    wait_for(10, "the rewrite", || server.log().contains("Background AOF rewrite finished successfully"));
    server.kill();
    server.restart();
    check(&server);
}

#[test]
fn the_log_can_be_switched_on_and_off() {
    let mut server = TestServer::start(&["--appendfsync", "always"]);
    fill(&server);
    let mut c = server.connect();
    run::<()>(&mut c, &["CONFIG", "SET", "appendonly", "yes"]);
    run::<()>(&mut c, &["SET", "during", "1"]);
    wait_for(10, "the first rewrite", || server.log().contains("Background AOF rewrite finished successfully"));
    run::<()>(&mut c, &["DEL", "during"]);
    server.kill();
    let with_log = TestServer::start(&["--appendonly", "yes"]);
    copy_dir(&server.dir.path().join("appendonlydir"), &with_log.dir.path().join("appendonlydir"));
    let mut with_log = with_log;
    with_log.kill();
    with_log.restart();
    check(&with_log);
    let mut c = with_log.connect();
    run::<()>(&mut c, &["CONFIG", "SET", "appendonly", "no"]);
    run::<()>(&mut c, &["SET", "unlogged", "1"]);
    with_log.kill();
    with_log.restart();
    check(&with_log);
}

#[test]
fn transactions_are_logged_and_replayed_whole() {
    let mut server = TestServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let mut c = server.connect();
    run::<()>(&mut c, &["MULTI"]);
    run::<()>(&mut c, &["SET", "a", "1"]);
    run::<()>(&mut c, &["SET", "b", "2"]);
    run::<Vec<String>>(&mut c, &["EXEC"]);
    server.kill();
    let log = server.dir.path().join("appendonlydir/appendonly.aof.1.incr.aof");
    let whole = fs::read(&log).unwrap();
    let text = String::from_utf8_lossy(&whole).into_owned();
    assert!(text.contains("MULTI") && text.contains("EXEC"));
    server.restart();
    assert_eq!(run::<String>(&mut server.connect(), &["GET", "b"]), "2");
    // What was replayed is no work for clients.
    let stats: String = run(&mut server.connect(), &["INFO", "commandstats"]);
    assert!(stats.contains("cmdstat_get:calls=1,") && !stats.contains("cmdstat_set:"), "{stats}");
    server.kill();
    // Without its EXEC nothing of it has happened, wherever it was cut.
    let exec = text.rfind("*1\r\n$4\r\nEXEC").unwrap();
    for cut in [exec, exec + 7, exec - 3] {
        fs::write(&log, &whole[..cut]).unwrap();
        server.restart();
        let mut c = server.connect();
        assert_eq!(run::<i64>(&mut c, &["DBSIZE"]), 0);
        assert!(server.log().contains("loaded anyway because aof-load-truncated is enabled"));
        run::<()>(&mut c, &["SET", "after", "1"]);
        server.kill();
        server.restart();
        assert_eq!(run::<i64>(&mut server.connect(), &["DBSIZE"]), 1);
        server.kill();
    }
}

#[test]
fn commands_of_every_kind_are_replayed_in_their_order() {
    let mut server = TestServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    server.kill();
    let log = server.dir.path().join("appendonlydir/appendonly.aof.1.incr.aof");
    let command = |words: &[&str]| {
        let args = words.iter().map(|word| format!("${}\r\n{word}\r\n", word.len())).collect::<String>();
        format!("*{}\r\n{args}", words.len())
    };
    let (long, count) = ("x".repeat(300_000), 3_000);
    let mut text = command(&["SELECT", "1"]);
    for i in 0..count {
        text += &command(&["SET", &format!("key:{i}"), &i.to_string()]);
        text += &command(&["RPUSH", "list", &i.to_string()]);
        match i % 500 {
            0 => text += "#TS:1700000000\r\n",
            1 => text += &command(&["INCR", "list"]),
            2 => text += &command(&["SET", "long", &format!("{long}{i}")]),
            3 => text += &command(&["set", &format!("past:{i}"), "v", "PXAT", "1000"]),
            4 => text += &(command(&["SELECT", "2"]) + &command(&["INCRBY", "sum", "7"]) + &command(&["SELECT", "1"])),
            5 => {
                text += &command(&["MULTI"]);
                text += &(command(&["HSET", "hash", &i.to_string(), "f"]) + &command(&["LPOP", "list"]));
                text += &command(&["EXEC"]);
            }
            6 => text += &command(&["PFADD", "hll", &i.to_string()]),
            7 => text += &command(&["EVAL", "redis.call('INCR', KEYS[1])", "1", "script"]),
            8 => text += &command(&["DEL", &format!("key:{}", i - 1), "none", &format!("key:{}", i - 2)]),
            _ => {}
        }
    }
    let cut = text.clone() + &command(&["SET", "key:0", "cut"])[..20];
    fs::write(&log, &cut).unwrap();
    server.restart();
    let mut c = server.connect();
    run::<()>(&mut c, &["SELECT", "2"]);
    assert_eq!(run::<i64>(&mut c, &["GET", "sum"]), 7 * 6);
    run::<()>(&mut c, &["SELECT", "1"]);
    assert_eq!(run::<i64>(&mut c, &["GET", "key:0"]), 0);
    assert_eq!(run::<Vec<i64>>(&mut c, &["LRANGE", "list", "0", "2"]), [6, 7, 8]);
    assert_eq!(run::<i64>(&mut c, &["LLEN", "list"]), count - 6);
    assert_eq!(run::<String>(&mut c, &["GETRANGE", "long", "299999", "-1"]), "x2502");
    assert_eq!(run::<i64>(&mut c, &["EXISTS", "past:2503", "key:2507", "key:2506", "key:2505"]), 1);
    assert_eq!((run::<i64>(&mut c, &["HLEN", "hash"]), run::<i64>(&mut c, &["PFCOUNT", "hll"])), (6, 6));
    assert_eq!(run::<i64>(&mut c, &["GET", "script"]), 6);
    let written = fs::read(&log).unwrap();
    assert!(written.starts_with(text.as_bytes()) && !written[text.len()..].starts_with(&cut.as_bytes()[text.len()..]));
    assert_eq!(server.log().matches("is sending an error to its AOF-loading-client").count(), 6);
    // A line end that is none is found wherever it is.
    server.kill();
    for (at, broken) in
        [(text.len() - 2, "x\n"), (text.len() - 1, "x"), (text.len() / 2, "\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}\u{1}")]
    {
        let mut damaged = text.clone();
        damaged.replace_range(at..at + broken.len(), broken);
        if damaged.len() == text.len() && at != text.len() / 2 {
            fs::write(&log, &damaged).unwrap();
            assert!(ends(server.dir.path(), &["--appendonly", "yes"]).contains("Bad file format"), "{at}");
        }
    }
}

/// The server ends with this exit code; gives its log.
fn ends(dir: &Path, options: &[&str]) -> String {
    let log = dir.join("ends.log");
    let _ = fs::remove_file(&log);
    let port = common::free_port().to_string();
    let status = Command::new(SERVER)
        .args(["--port", &port, "--save", "", "--logfile", "ends.log", "--dir"])
        .arg(dir)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    let log = fs::read_to_string(log).unwrap_or_default();
    assert_eq!(status.code(), Some(1), "{log}");
    log
}

#[test]
fn a_damaged_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let aof = dir.path().join("appendonlydir");
    fs::create_dir(&aof).unwrap();
    let manifest = aof.join("appendonly.aof.manifest");
    fs::write(&manifest, "file a seq 1 type x\n").unwrap();
    let log = ends(dir.path(), &["--appendonly", "yes"]);
    assert!(log.contains("*** FATAL AOF MANIFEST FILE ERROR ***") && log.contains("Unknown AOF file type"));
    fs::write(&manifest, "file a seq 1 type i\n").unwrap();
    let log = ends(dir.path(), &["--appendonly", "yes"]);
    assert!(log.contains("Unable to obtain the AOF file a length. stat: No such file or directory"));
    fs::write(aof.join("a"), "*1\r\n$4\r\nPING\r\nrubbish\r\n").unwrap();
    let log = ends(dir.path(), &["--appendonly", "yes"]);
    assert!(log.contains(
        "Bad file format reading the append only file a: make a backup of your AOF file, then use ./redis-check-aof --fix"
    ));
    fs::write(aof.join("a"), "*3\r\n$3\r\nSET\r\n$1\r\nk").unwrap();
    let log = ends(dir.path(), &["--appendonly", "yes", "--aof-load-truncated", "no"]);
    assert!(log.contains("Unexpected end of file reading the append only file a."));
    fs::write(aof.join("a"), "*1\r\n$5\r\nNOSUC\r\n").unwrap();
    let log = ends(dir.path(), &["--appendonly", "yes"]);
    assert!(log.contains("Unknown command 'NOSUC' reading the append only file a"));
}

#[test]
fn a_damaged_snapshot_is_refused() {
    let server = TestServer::start(&[]);
    fill(&server);
    run::<()>(&mut server.connect(), &["SAVE"]);
    let good = fs::read(server.dir.path().join("dump.rdb")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dump.rdb");
    fs::write(&file, &good[..good.len() - 30]).unwrap();
    assert!(ends(dir.path(), &[]).contains("Short read or OOM loading DB. Unrecoverable error, aborting now."));
    let mut bad = good.clone();
    let at = bad.len() - 12;
    bad[at] ^= 1;
    fs::write(&file, &bad).unwrap();
    ends(dir.path(), &[]);
    fs::write(&file, b"REDIS0014").unwrap();
    let log = ends(dir.path(), &[]);
    assert!(log.contains("Can't handle RDB format version 14"));
    assert!(log.contains("Fatal error loading the DB, check server logs. Exiting."));
}

#[test]
fn an_old_single_file_log_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("appendonly.aof"), "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n").unwrap();
    let path = dir.path().display().to_string();
    let mut server = TestServer::start(&["--appendonly", "yes", "--dir", &path]);
    assert_eq!(run::<String>(&mut server.connect(), &["GET", "k"]), "v");
    server.kill();
    assert!(!dir.path().join("appendonly.aof").exists());
    let manifest = fs::read_to_string(dir.path().join("appendonlydir/appendonly.aof.manifest")).unwrap();
    assert!(manifest.starts_with("file appendonly.aof seq 1 type b\n"));
    server.restart();
    assert_eq!(run::<String>(&mut server.connect(), &["GET", "k"]), "v");
}

#[test]
fn clients_are_told_that_the_server_is_loading() {
    let mut server = TestServer::start(&[]);
    let mut c = server.connect();
    for i in 0..2000 {
        run::<()>(&mut c, &["SET", &format!("key:{i}"), &"x".repeat(50)]);
    }
    run::<()>(&mut c, &["SAVE"]);
    server.kill();
    let path = server.dir.path().display().to_string();
    let port = common::free_port().to_string();
    let mut child = Command::new(SERVER)
        .args(["--port", &port, "--dir", &path, "--logfile", "loading.log", "--key-load-delay", "1000"])
        .args(["--loading-process-events-interval-bytes", "1024"])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let mut seen = false;
    wait_for(20, "the end of loading", || {
        let Ok(mut c) = client.get_connection() else { return false };
        match try_run::<String>(&mut c, &["GET", "key:0"]) {
            Ok(_) => true,
            Err(e) => {
                seen |= e.to_string().contains("loading the dataset in memory");
                false
            }
        }
    });
    assert!(seen);
    let mut c = client.get_connection().unwrap();
    assert_eq!(run::<i64>(&mut c, &["DBSIZE"]), 2000);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What others see while `load` is carried out: how long PING took at most, and how often the server said that it loads.
fn watch_load(server: &TestServer, load: &[&str]) -> (Duration, usize) {
    std::thread::scope(|scope| {
        let loads = scope.spawn(|| run::<String>(&mut server.connect(), load));
        let mut c = server.connect();
        let (mut slowest, mut seen) = (Duration::ZERO, 0);
        while !loads.is_finished() {
            slowest = slowest.max(took(|| drop(try_run::<String>(&mut c, &["PING"]))));
            let info = run::<String>(&mut c, &["INFO", "persistence"]);
            if info.contains("\r\nloading:1") {
                if seen == 0 {
                    assert!(try_run::<()>(&mut c, &["DEBUG", "RELOAD"]).unwrap_err().to_string().contains("loading"));
                }
                assert!(info.contains("\r\nloading_loaded_bytes:"), "{info}");
                seen += usize::from(
                    try_run::<String>(&mut c, &["GET", "key:0"]).is_err_and(|e| e.to_string().contains("loading")),
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(loads.join().unwrap(), "OK");
        (slowest, seen)
    })
}

#[test]
fn clients_are_served_while_a_data_set_is_loaded() {
    let options = ["--enable-debug-command", "yes", "--appendonly", "yes", "--aof-use-rdb-preamble", "no"];
    let server = TestServer::start(&options);
    let mut c = server.connect();
    for i in 0..1000 {
        run::<()>(&mut c, &["SET", &format!("key:{i}"), "value"]);
    }
    run::<()>(&mut c, &["CONFIG", "SET", "key-load-delay", "1000"]);
    run::<()>(&mut c, &["CONFIG", "SET", "watchdog-period", "500"]);
    for load in [&["DEBUG", "RELOAD"][..], &["DEBUG", "LOADAOF"]] {
        let (slowest, seen) = watch_load(&server, load);
        assert!(slowest < Duration::from_millis(200), "{load:?}: {slowest:?}");
        assert!(seen > 20, "{load:?}: {seen}");
        assert_eq!(run::<i64>(&mut c, &["DBSIZE"]), 1000);
        assert_eq!(run::<String>(&mut c, &["GET", "key:999"]), "value");
    }
    // As in Redis, a load counts as one piece of work.
    assert!(server.log().contains("--- WATCHDOG TIMER EXPIRED ---"));
    assert!(server.log().contains("DB reloaded by DEBUG RELOAD"));
    assert!(server.log().contains("Append Only File loaded by DEBUG LOADAOF"));
}

#[test]
fn a_transaction_loads_before_its_next_command() {
    let server = TestServer::start(&["--enable-debug-command", "yes", "--appendonly", "yes"]);
    let mut c = server.connect();
    run::<()>(&mut c, &["SET", "k", "v"]);
    let mut transaction = redis::pipe();
    transaction.atomic().cmd("DEBUG").arg("RELOAD").cmd("GET").arg("k").cmd("DEBUG").arg("LOADAOF").cmd("DBSIZE");
    let replies: (String, String, String, i64) = transaction.query(&mut c).unwrap();
    assert_eq!(replies, ("OK".into(), "v".into(), "OK".into(), 1));
}

#[test]
fn a_client_that_leaves_does_not_stop_what_it_had_loaded() {
    let server = TestServer::start(&["--enable-debug-command", "yes", "--key-load-delay", "1000"]);
    let mut c = server.connect();
    for i in 0..500 {
        run::<()>(&mut c, &["SET", &format!("key:{i}"), "value"]);
    }
    let mut leaving = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    leaving.write_all(b"DEBUG RELOAD\r\n").unwrap();
    wait_for(10, "it loads", || run::<String>(&mut c, &["INFO", "persistence"]).contains("\r\nloading:1"));
    drop(leaving);
    wait_for(10, "it has loaded", || run::<String>(&mut c, &["INFO", "persistence"]).contains("\r\nloading:0"));
    assert_eq!(run::<i64>(&mut c, &["DBSIZE"]), 500);
}

#[test]
fn a_server_told_to_stop_while_it_loads_stops() {
    let server = TestServer::start(&["--enable-debug-command", "yes", "--save", "1 1", "--key-load-delay", "1000"]);
    let mut c = server.connect();
    for i in 0..2000 {
        run::<()>(&mut c, &["SET", &format!("key:{i}"), "value"]);
    }
    let mut other = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    other.write_all(b"DEBUG RELOAD\r\n").unwrap();
    wait_for(10, "it loads", || run::<String>(&mut c, &["INFO", "persistence"]).contains("\r\nloading:1"));
    let took = took(|| drop(try_run::<()>(&mut c, &["SHUTDOWN"])));
    assert!(took < Duration::from_secs(1), "{took:?}");
    // Half of the data set did not replace the whole one.
    let check = Command::new(SERVER).arg("--check-rdb").arg(server.dir.path().join("dump.rdb")).output().unwrap();
    assert!(String::from_utf8_lossy(&check.stdout).contains("[info] 2000 keys read"), "{check:?}");
}

/// Rounds of killing the server under load; `HEXAD_CRASH_ROUNDS` asks for more than the usual few.
#[test]
fn no_acknowledged_write_is_lost() {
    let rounds: u64 = std::env::var("HEXAD_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(4);
    const WRITERS: usize = 8;
    let mut server = TestServer::start(&[
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--auto-aof-rewrite-min-size",
        "16kb",
        "--auto-aof-rewrite-percentage",
        "50",
    ]);
    let acknowledged: Arc<Vec<AtomicU64>> = Arc::new((0..WRITERS).map(|_| AtomicU64::new(0)).collect());
    for round in 0..rounds {
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..WRITERS)
            .map(|w| {
                let (client, acknowledged, stop) = (server.client(), acknowledged.clone(), stop.clone());
                std::thread::spawn(move || {
                    let Ok(mut c) = client.get_connection() else { return };
                    while !stop.load(Ordering::Relaxed) {
                        let n = acknowledged[w].load(Ordering::Relaxed) + 1;
                        let (key, value) = (format!("writer:{w}"), n.to_string());
                        if try_run::<()>(&mut c, &["SET", &key, &value]).is_err() {
                            return;
                        }
                        acknowledged[w].store(n, Ordering::Relaxed);
                        if n % 50 == 0 && try_run::<()>(&mut c, &["SET", &format!("{key}:{n}"), &value]).is_err() {
                            return;
                        }
                    }
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(150 + 37 * (round % 11)));
        server.kill();
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|w| w.join().unwrap());
        server.restart();
        let mut c = server.connect();
        for (w, acknowledged) in acknowledged.iter().enumerate() {
            let want = acknowledged.load(Ordering::Relaxed);
            let got: Option<u64> = run(&mut c, &["GET", &format!("writer:{w}")]);
            let got = got.unwrap_or(0);
            // One write may have been logged whose reply did not make it.
            assert!((want..=want + 1).contains(&got), "round {round}, writer {w}: {want} acknowledged, {got} found");
            acknowledged.store(got, Ordering::Relaxed);
        }
    }
    let total: u64 = acknowledged.iter().map(|n| n.load(Ordering::Relaxed)).sum();
    assert!(total > rounds * WRITERS as u64, "hardly anything was written: {total}");
}

#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn files_of_a_real_server_are_loaded() {
    let real = real_redis();
    for options in [&[][..], &["--appendonly", "yes"], &["--appendonly", "yes", "--aof-use-rdb-preamble", "no"]] {
        let mut theirs = TestServer::start_binary(&real, options);
        fill(&theirs);
        if options.is_empty() {
            run::<()>(&mut theirs.connect(), &["SAVE"]);
        } else {
            run::<()>(&mut theirs.connect(), &["BGREWRITEAOF"]);
            wait_for(10, "the rewrite", || theirs.log().contains("Background AOF rewrite finished successfully"));
        }
        theirs.kill();
        let path = theirs.dir.path().display().to_string();
        let mut options = options.to_vec();
        options.extend(["--dir", &path]);
        let ours = TestServer::start(&options);
        check(&ours);
    }
}

fn a_real_server_loads(options: &[&str]) {
    let mut ours = TestServer::start(options);
    fill(&ours);
    if options.is_empty() {
        run::<()>(&mut ours.connect(), &["SAVE"]);
    } else {
        run::<()>(&mut ours.connect(), &["BGREWRITEAOF"]);
        wait_for(10, "the rewrite", || ours.log().contains("Background AOF rewrite finished successfully"));
    }
    ours.kill();
    let path = ours.dir.path().display().to_string();
    let options = [options, &["--dir", &path]].concat();
    check(&TestServer::start_binary(&real_redis(), &options));
}

#[test]
#[cfg_attr(not(has_redis_7_2), ignore = "no redis-server of 7.2 or later is installed")]
fn a_real_server_loads_our_snapshots() {
    a_real_server_loads(&[]);
    a_real_server_loads(&["--appendonly", "yes"]);
}

#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn a_real_server_loads_our_logs() {
    a_real_server_loads(&["--appendonly", "yes", "--aof-use-rdb-preamble", "no"]);
}

/// A payload for RESTORE: a value in the layout of this number, and a footer with the right checksum.
fn payload(layout: u8, value: &[u8]) -> Vec<u8> {
    let mut payload = [&[layout], value, &[11, 0]].concat();
    let checksum = hexad::structs::crc64::crc64(0, &payload);
    payload.extend_from_slice(&checksum.to_le_bytes());
    payload
}

#[test]
fn damaged_values_of_a_snapshot_are_kept_but_not_used() {
    let mut server = TestServer::start(&[
        "--aof-use-rdb-preamble",
        "no",
        "--enable-debug-command",
        "yes",
        "--repl-diskless-sync-delay",
        "0",
    ]);
    let c = &mut server.connect();
    // Two elements; the length behind the second is wrong.
    let listpack = b"\x0d\x0d\0\0\0\x02\0\x81f\x02\x81v\x09\xff";
    // A stream of one such node: number of entries, last, first and highest deleted id, entries ever, no groups.
    let stream = [&b"\x01\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01"[..], listpack, b"\x01\x01\x01\x01\x01\0\0\x01\0"];
    let values = [
        ("hash", "HGET hash f", payload(16, listpack)),
        ("zset", "ZSCORE zset f", payload(17, listpack)),
        ("list", "LLEN list", payload(18, &[&b"\x02\x02"[..], listpack, b"\x01\x05plain"].concat())),
        ("set", "SADD set f", payload(20, listpack)),
        ("stream", "XLEN stream", payload(21, &stream.concat())),
    ];
    let restore = |c: &mut redis::Connection, key: &str, payload: &[u8]| {
        redis::cmd("RESTORE").arg(key).arg(0).arg(payload).arg("REPLACE").query::<()>(c).map_err(|e| e.to_string())
    };
    for how in ["yes", "clients", "no"] {
        run::<()>(c, &["CONFIG", "SET", "sanitize-dump-payload", how]);
        for (key, _, payload) in &values {
            assert!(restore(c, key, payload).unwrap_err().contains("Bad data format"), "{key}");
        }
    }
    let mut snapshot = b"REDIS0011\xfe\x00".to_vec();
    for (key, _, payload) in &values {
        let value = &payload[1..payload.len() - 10];
        snapshot.extend_from_slice(&[payload[0], key.len() as u8]);
        snapshot.extend_from_slice(key.as_bytes());
        snapshot.extend_from_slice(value);
    }
    snapshot.extend_from_slice(b"\x00\x05whole\x05value\xff");
    let checksum = hexad::structs::crc64::crc64(0, &snapshot);
    snapshot.extend_from_slice(&checksum.to_le_bytes());
    let file = server.dir.path().join("dump.rdb");
    std::fs::write(&file, &snapshot).unwrap();
    run::<()>(c, &["DEBUG", "RELOAD", "NOSAVE"]);
    for (key, _, _) in &values {
        let line = format!("The {key} of key '{key}' is damaged: wrong length behind an element.");
        assert!(server.log().contains(&line), "{line}");
    }
    assert_eq!(run::<String>(c, &["GET", "whole"]), "value");
    run::<()>(c, &["PEXPIRE", "hash", "1000000"]);
    run::<()>(c, &["CONFIG", "SET", "appendonly", "yes"]);
    let rewritten = |c: &mut redis::Connection| {
        // Nor does a child still send a replica its data set.
        let idle = ["aof_rewrite_in_progress:0", "aof_rewrite_scheduled:0", "rdb_bgsave_in_progress:0"];
        wait_for(20, "the log is rewritten", || {
            let info: String = run(c, &["INFO", "persistence"]);
            idle.iter().all(|line| info.contains(line))
        });
    };
    rewritten(c);
    let check = |c: &mut redis::Connection| {
        for (key, command, payload) in &values {
            assert_eq!(&run::<Vec<u8>>(c, &["DUMP", key]), payload, "{key}");
            assert_eq!(run::<String>(c, &["TYPE", key]), *key);
            let words: Vec<&str> = command.split(' ').collect();
            let error = |e: redis::RedisError| e.to_string();
            let plain = try_run::<redis::Value>(c, &words).map_err(error).unwrap_err();
            assert!(plain.contains("The value of the key is damaged"), "{plain}");
            let script: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
            let script = format!("return redis.call({})", script.join(","));
            let scripted = try_run::<redis::Value>(c, &["EVAL", &script, "0"]).map_err(error).unwrap_err();
            assert!(scripted.contains("The value of the key is damaged"), "{scripted}");
        }
        assert!((1..=1_000_000).contains(&run::<i64>(c, &["PTTL", "hash"])));
    };
    check(c);
    let digest: String = run(c, &["DEBUG", "DIGEST"]);
    run::<()>(c, &["DEBUG", "RELOAD"]);
    check(c);
    assert_eq!(run::<String>(c, &["DEBUG", "DIGEST"]), digest);
    let replica = TestServer::start(&["--replicaof", "127.0.0.1", &server.port.to_string()]);
    wait_for(20, "the replica has it all", || {
        try_run::<String>(&mut replica.connect(), &["TYPE", "stream"]).is_ok_and(|name| name == "stream")
    });
    assert_eq!(run::<Vec<u8>>(&mut replica.connect(), &["DUMP", "list"]), values[2].2);
    run::<()>(c, &["BGREWRITEAOF"]);
    rewritten(c);
    run::<()>(c, &["DEBUG", "LOADAOF"]);
    check(c);
    run::<()>(c, &["SAVE"]);
    server.kill();
    server.restart();
    let c = &mut server.connect();
    check(c);
    assert_eq!(run::<i64>(c, &["COPY", "stream", "copy"]), 1);
    run::<()>(c, &["RENAME", "copy", "moved"]);
    assert_eq!(run::<Vec<u8>>(c, &["DUMP", "moved"]), values[4].2);
    assert!(run::<i64>(c, &["MEMORY", "USAGE", "moved"]) > 0);
    assert_eq!(run::<i64>(c, &["DEL", "moved", "hash"]), 2);
    run::<()>(c, &["HSET", "hash", "f", "v"]);
    run::<()>(c, &["SET", "list", "a string now"]);
    assert_eq!(run::<String>(c, &["HGET", "hash", "f"]), "v");
    let wrong = try_run::<()>(c, &["LLEN", "list"]).unwrap_err().to_string();
    assert!(wrong.contains("WRONGTYPE"), "{wrong}");
}

#[test]
fn the_checkers_run_under_their_names() {
    let mut server = TestServer::start(&["--appendonly", "yes"]);
    fill(&server);
    run::<()>(&mut server.connect(), &["SAVE"]);
    server.kill();
    let dir = server.dir.path();
    let tool = |name: &str, args: &[&str]| {
        let path = dir.join(name);
        if !path.exists() {
            symlink(SERVER, &path).unwrap();
        }
        let mut child = Command::new(&path)
            .current_dir(dir)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(b"y\n").unwrap_or(());
        let out = child.wait_with_output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (code, out) = tool("redis-check-rdb", &["dump.rdb"]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("\\o/ RDB looks OK! \\o/\n[info] 12 keys read\n[info] 1 expires"));
    let manifest = "appendonlydir/appendonly.aof.manifest";
    let (code, out) = tool("redis-check-aof", &[manifest]);
    assert_eq!(code, Some(0), "{out}");
    assert!(out.ends_with("All AOF files and manifest are valid\n"));
    let incr = dir.join("appendonlydir/appendonly.aof.1.incr.aof");
    fs::OpenOptions::new().append(true).open(incr).unwrap().write_all(b"*2\r\n").unwrap();
    assert_eq!(tool("redis-check-aof", &[manifest]).0, Some(1));
    let (code, out) = tool("redis-check-aof", &["--fix", manifest]);
    assert_eq!(code, Some(0), "{out}");
    assert_eq!(tool("redis-check-aof", &[manifest]).0, Some(0));
    server.restart();
    check(&server);
}

#[test]
fn what_is_loaded_from_the_log_is_neither_logged_nor_told_again() {
    let server = TestServer::start(&["--appendonly", "yes", "--enable-debug-command", "yes"]);
    let replica = TestServer::start(&["--replicaof", "127.0.0.1", &server.port.to_string()]);
    let c = &mut server.connect();
    wait_for(20, "the replica follows", || {
        run::<String>(&mut replica.connect(), &["INFO", "replication"]).contains("master_link_status:up")
    });
    for n in 0..500 {
        run::<()>(c, &["RPUSH", "list", &n.to_string()]);
    }
    let offset = |c: &mut redis::Connection| {
        let info: String = run(c, &["INFO", "replication"]);
        info.lines().find_map(|l| l.strip_prefix("master_repl_offset:")?.trim().parse::<u64>().ok()).unwrap()
    };
    let logged = || fs::metadata(server.dir.path().join("appendonlydir/appendonly.aof.1.incr.aof")).unwrap().len();
    let before = offset(c);
    // What stands in the log is on its way to the file until the turn ends.
    run::<()>(c, &["WAITAOF", "1", "0", "5000"]);
    let size = logged();
    for _ in 0..3 {
        run::<()>(c, &["DEBUG", "LOADAOF"]);
        assert_eq!((run::<i64>(c, &["LLEN", "list"]), logged()), (500, size));
    }
    // Nothing but a ping may have gone there.
    assert!(offset(c) < before + 100, "{before} {}", offset(c));
    run::<()>(c, &["RPUSH", "list", "last"]);
    wait_for(20, "the replica has the same", || run::<i64>(&mut replica.connect(), &["LLEN", "list"]) == 501);
}

#[test]
fn saving_and_reloading_are_not_logged() {
    let mut server = TestServer::start(&["--appendonly", "yes", "--enable-debug-command", "yes"]);
    fill(&server);
    let mut c = server.connect();
    run::<()>(&mut c, &["SAVE"]);
    run::<()>(&mut c, &["DEBUG", "LOADAOF"]);
    run::<()>(&mut c, &["DEBUG", "RELOAD"]);
    run::<()>(&mut c, &["SET", "int8", "-5"]);
    let log = fs::read(server.dir.path().join("appendonlydir/appendonly.aof.1.incr.aof")).unwrap();
    let text = String::from_utf8_lossy(&log).to_ascii_uppercase();
    assert!(!text.contains("SAVE") && !text.contains("LOADAOF") && !text.contains("RELOAD"));
    server.kill();
    server.restart();
    check(&server);
}

fn took<T>(f: impl FnOnce() -> T) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

#[test]
fn a_slow_disk_holds_up_only_those_who_are_told_of_changes() {
    const SYNC: Duration = Duration::from_millis(60);
    const WRITERS: usize = 20;
    let options = ["--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"];
    let server = TestServer::start(&options);
    let mut c = server.connect();
    run::<()>(&mut c, &["SET", "untouched", "u"]);
    run::<()>(&mut c, &["DEBUG", "AOF-SYNC-SLEEP", &SYNC.as_micros().to_string()]);
    // From the second slow sync on they run beside the loop.
    (0..2).for_each(|_| run::<()>(&mut c, &["SET", "first", "x"]));

    /// Ends the writers, also when the test fails: it would wait for them for ever.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let start = Instant::now();
    std::thread::scope(|threads| {
        for i in 0..WRITERS {
            let (stop, written, mut c) = (&stop, &written, server.connect());
            threads.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    run::<()>(&mut c, &["SET", &format!("written:{i}"), "x"]);
                    written.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _end = End(&stop);
        std::thread::sleep(SYNC);
        let mut untouched: Vec<Duration> = (0..500)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(1));
                took(|| assert_eq!(run::<String>(&mut c, &["GET", "untouched"]), "u"))
            })
            .collect();
        untouched.sort();
        assert!(untouched[490] < SYNC / 2, "reads of a key that nobody writes: {:?}", &untouched[490..]);
        // Between two changes the key can be read at once; a read after a change waits with it.
        let (began, mut longest) = (Instant::now(), Duration::ZERO);
        while began.elapsed() < 4 * SYNC {
            longest = longest.max(took(|| run::<String>(&mut c, &["GET", "written:0"])));
        }
        assert!(longest > SYNC / 4, "reads of a key whose changes are on their way to the disk: {longest:?}");
        // Replies keep their order: what follows a change waits with it.
        let mixed = || redis::pipe().cmd("SET").arg("mine").arg(1).cmd("GET").arg("untouched").exec(&mut c).unwrap();
        let mixed = took(mixed);
        assert!(mixed >= SYNC * 9 / 10, "a change and a read in one go: {mixed:?}");
    });
    // If each sync began with the first change that came, the disk would serve two groups by turns: half of this.
    let most = WRITERS as f64 * start.elapsed().as_secs_f64() / SYNC.as_secs_f64();
    let written = written.load(Ordering::Relaxed) as f64;
    assert!(written >= most * 0.55, "{written} writes, while syncs for all of them would have allowed {most}");
}

/// A number of INFO.
fn number(c: &mut redis::Connection, name: &str) -> u64 {
    let info = run::<String>(c, &["INFO", "everything"]);
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {name} in {info}"))
}

#[test]
fn no_value_holds_up_the_loop_while_it_is_loaded() {
    const FILL: &str = "
        for i = 1, 10000 do
            redis.call('HSET', 'hash', 'field ' .. i, i)
            redis.call('SADD', 'set', 'member ' .. i)
            redis.call('ZADD', 'zset', i % 77, 'member ' .. i)
            redis.call('RPUSH', 'list', 'element ' .. i)
            redis.call('XADD', 'stream', i .. '-1', 'field', i)
        end
        redis.call('XGROUP', 'CREATE', 'stream', 'group', '0')
        redis.call('XREADGROUP', 'GROUP', 'group', 'one', 'COUNT', 5000, 'STREAMS', 'stream', '>')
        redis.call('SETRANGE', 'compressed', 8000000, 'x')
        local long = {}
        for i = 1, 100000 do long[i] = tostring(i * i * 1.1) end
        redis.call('SET', 'long', table.concat(long))";
    // A turn ends with the bytes that are read at once, so the number of turns shows what a value is cut into.
    let options = ["--save", "", "--enable-debug-command", "yes", "--loading-process-events-interval-bytes", "1024"];
    let mut server = TestServer::start(&options);
    let mut c = server.connect();
    run::<()>(&mut c, &["EVAL", FILL, "0"]);
    let digest = run::<String>(&mut c, &["DEBUG", "DIGEST"]);
    run::<()>(&mut c, &["SAVE"]);
    server.kill();
    server.restart();
    let mut c = server.connect();
    let bytes = fs::metadata(server.dir.path().join("dump.rdb")).unwrap().len();
    let turns = number(&mut c, "eventloop_cycles");
    assert!(turns > bytes / 40_000, "{turns} turns for {bytes} bytes");
    let longest_us = number(&mut c, "loop_turn_usec_max");
    assert!(longest_us < 200_000, "{longest_us} us");
    assert_eq!(run::<String>(&mut c, &["DEBUG", "DIGEST"]), digest);
}
