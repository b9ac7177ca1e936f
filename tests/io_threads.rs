//! I/O threads: what clients see through them is what they see without, however links come, go and move.

use crate::common;
use crate::common_tls;

use common::{CLI, TestServer, run, wait_for};
use common_tls::{Certs, TlsServer};
use redis::{Connection, Value};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const ALWAYS: [&str; 6] = ["--io-threads", "3", "--io-threads-always-active", "yes", "--enable-debug-command", "yes"];

fn info(c: &mut Connection, field: &str) -> String {
    let info: String = run(c, &["INFO", "everything"]);
    let line = info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {field}")).trim().to_owned()
}

fn number(c: &mut Connection, field: &str) -> u64 {
    info(c, field).parse().unwrap()
}

fn raw(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream
}

fn text_of(size: usize) -> String {
    (0..size).map(|i| char::from(b'a' + (i * 7 % 23) as u8)).collect()
}

#[test]
fn values_and_pipelines_of_all_sizes() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &ALWAYS);
    let mut plain = s.server.connect();
    for c in [&mut s.server.connect(), &mut certs.connect(s.tls_port)] {
        for size in [0, 1, 100, 16_383, 16_385, 65_537, 262_143, 262_145, 1_000_000, 9_000_001] {
            let value = text_of(size);
            let () = run(c, &["SET", "big", &value]);
            assert!(run::<String>(c, &["GET", "big"]) == value, "{size}");
            assert_eq!(run::<usize>(&mut plain, &["STRLEN", "big"]), size);
        }
        let mut pipe = redis::pipe();
        (0..20_000).for_each(|i| {
            pipe.cmd("SET").arg(format!("key:{i}")).arg("x".repeat(i % 100));
        });
        (0..20_000).for_each(|i| {
            pipe.cmd("STRLEN").arg(format!("key:{i}"));
        });
        let replies: Vec<Value> = pipe.query(c).unwrap();
        for i in 0..20_000 {
            assert_eq!(replies[20_000 + i], Value::Int((i % 100) as i64));
        }
    }
    assert_eq!(info(&mut plain, "io_threads_active"), "1");
    assert!(number(&mut plain, "io_threaded_reads_processed") > 100);
    assert!(number(&mut plain, "io_threaded_writes_processed") > 100);
}

/// The threads look for requests in what comes, but cannot know whether one begins there.
#[test]
fn what_looks_like_a_request_is_one_only_where_requests_begin() {
    let s = TestServer::start(&ALWAYS);
    let mut c = s.connect();
    let mut peer = raw(s.port);
    let mut ask = |pieces: &[&[u8]], replies: &[u8]| {
        for piece in pieces {
            peer.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(3));
        }
        let mut got = vec![0; replies.len()];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(got, replies, "{}", String::from_utf8_lossy(&got));
    };
    let harm = b"*2\r\n$3\r\nDEL\r\n$4\r\nkept\r\n";
    let value = harm.repeat(4);
    let head = format!("*3\r\n$3\r\nSET\r\n$4\r\nkept\r\n${}\r\n", value.len());
    ask(&[head.as_bytes(), &value, b"\r\n"], b"+OK\r\n");
    let (first, rest) = value.split_at(harm.len());
    ask(&[head.as_bytes(), first, rest, b"\r\n*1\r\n$4\r\nPING\r\n"], b"+OK\r\n+PONG\r\n");
    assert!(run::<Vec<u8>>(&mut c, &["GET", "kept"]) == value);
    // Cut in two at any place.
    let both = [head.as_bytes(), &value, b"\r\n*2\r\n$6\r\nSTRLEN\r\n$4\r\nkept\r\n"].concat();
    let replies = format!("+OK\r\n:{}\r\n", value.len()).into_bytes();
    for at in 1..both.len() {
        ask(&[&both[..at], &both[at..]], &replies);
    }
    // What comes while the client is blocked runs later, together.
    let blocked: [&[u8]; 3] = [
        b"*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n$1\r\n0\r\n",
        b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n",
        b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n",
    ];
    ask(&blocked, b"");
    let () = run(&mut c, &["RPUSH", "q", "x"]);
    ask(&[], b"*2\r\n$1\r\nq\r\n$1\r\nx\r\n:1\r\n:2\r\n:3\r\n");
    ask(&[b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n"], b":4\r\n");
}

#[test]
fn what_has_order_or_state_keeps_it() {
    let server = TestServer::start(&ALWAYS);
    let mut c = server.connect();
    // A transaction that watches, and one that another client spoils.
    let mut other = server.connect();
    let () = run(&mut c, &["WATCH", "k"]);
    let () = run(&mut other, &["SET", "k", "1"]);
    let () = run(&mut c, &["MULTI"]);
    let () = run(&mut c, &["INCR", "k"]);
    assert_eq!(run::<Value>(&mut c, &["EXEC"]), Value::Nil);
    // Blocked clients are served in order, and by CLIENT UNBLOCK.
    let id: i64 = run(&mut c, &["CLIENT", "ID"]);
    let blocked = std::thread::spawn(move || (run::<Value>(&mut c, &["BLPOP", "l", "10"]), c));
    wait_for(5, "a blocked client", || number(&mut other, "blocked_clients") == 1);
    let () = run(&mut other, &["RPUSH", "l", "v"]);
    let (popped, mut c) = blocked.join().unwrap();
    assert_eq!(popped, Value::Array(vec![Value::BulkString(b"l".to_vec()), Value::BulkString(b"v".to_vec())]));
    let blocked = std::thread::spawn(move || (run::<Value>(&mut c, &["BLPOP", "l", "10"]), c));
    wait_for(5, "a blocked client", || number(&mut other, "blocked_clients") == 1);
    assert_eq!(run::<i64>(&mut other, &["CLIENT", "UNBLOCK", &id.to_string()]), 1);
    assert_eq!(blocked.join().unwrap().0, Value::Nil);
    // Messages come in the order in which they were published, to all.
    let mut listeners: Vec<TcpStream> = (0..20).map(|_| raw(server.port)).collect();
    for stream in &mut listeners {
        stream.write_all(b"SUBSCRIBE news\r\n").unwrap();
    }
    wait_for(5, "subscribers", || run::<Vec<Value>>(&mut other, &["PUBSUB", "NUMSUB", "news"])[1] == Value::Int(20));
    let mut expected = String::from("*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n");
    for i in 0..500 {
        let message = format!("message {i}");
        let () = run(&mut other, &["PUBLISH", "news", &message]);
        expected += &format!("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n${}\r\n{message}\r\n", message.len());
    }
    for stream in &mut listeners {
        let mut got = vec![0; expected.len()];
        stream.read_exact(&mut got).unwrap();
        assert!(got == expected.as_bytes());
    }
    // Replies that are not wanted do not come, and QUIT's does.
    let mut quiet = raw(server.port);
    quiet.write_all(b"CLIENT REPLY OFF\r\nSET a 1\r\nGET a\r\nCLIENT REPLY ON\r\nCLIENT REPLY SKIP\r\nGET a\r\nECHO x\r\nQUIT\r\n").unwrap();
    let mut got = String::new();
    quiet.read_to_string(&mut got).unwrap();
    assert_eq!(got, "+OK\r\n$1\r\nx\r\n+OK\r\n");
}

#[test]
fn clients_are_shown_and_killed() {
    let server = TestServer::start(&ALWAYS);
    let mut c = server.connect();
    let mut victims: Vec<TcpStream> = (0..30).map(|_| raw(server.port)).collect();
    for victim in &mut victims {
        victim.write_all(b"CLIENT SETNAME victim\r\n").unwrap();
        let mut got = [0; 5];
        victim.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"+OK\r\n");
    }
    let list: String = run(&mut c, &["CLIENT", "LIST"]);
    for victim in &victims {
        let addr = victim.local_addr().unwrap();
        let line = list.lines().find(|line| line.contains(&format!(" addr={addr} "))).expect("its line");
        assert!(
            line.contains(&format!(" laddr=127.0.0.1:{} ", server.port)) && line.contains(" name=victim "),
            "{line}"
        );
        assert!(!line.contains(" fd=-1 "), "{line}");
    }
    let addr = victims[7].local_addr().unwrap().to_string();
    let () = run(&mut c, &["CLIENT", "KILL", &addr]);
    assert_eq!(victims[7].read(&mut [0]).unwrap(), 0);
    assert_eq!(run::<i64>(&mut c, &["CLIENT", "KILL", "TYPE", "normal"]), 29);
    for victim in &mut victims {
        assert_eq!(victim.read(&mut [0]).unwrap(), 0);
    }
    wait_for(5, "one client", || number(&mut c, "connected_clients") == 1);
    // What closed is gone before the next request is answered.
    for _ in 0..50 {
        let short = raw(server.port);
        drop(short);
        let mut ping = raw(server.port);
        ping.write_all(b"PING\r\n").unwrap();
        ping.read_exact(&mut [0; 7]).unwrap();
    }
    wait_for(5, "one client", || number(&mut c, "connected_clients") == 1);
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    let server = TestServer::start(&[&ALWAYS[..], &["--client-output-buffer-limit", "normal 4mb 0 0"]].concat());
    let mut c = server.connect();
    let () = run(&mut c, &["SET", "v", &text_of(1_000_000)]);
    let mut lazy = raw(server.port);
    lazy.write_all("GET v\r\n".repeat(100).as_bytes()).unwrap();
    wait_for(10, "the limit", || server.log().contains("for overcoming of output buffer limits"));
    let mut got = Vec::new();
    let _ = lazy.read_to_end(&mut got);
    assert!(got.len() < 30_000_000, "{}", got.len());
    // One that reads late gets everything.
    let () = run(&mut c, &["CONFIG", "SET", "client-output-buffer-limit", "normal 0 0 0"]);
    let mut late = raw(server.port);
    late.write_all("GET v\r\n".repeat(40).as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let mut got = vec![0; 40 * (10 + 1_000_000 + 2)];
    late.read_exact(&mut got).unwrap();
    assert!(got.ends_with(format!("$1000000\r\n{}\r\n", text_of(1_000_000)).as_bytes()));
}

#[test]
fn few_clients_are_served_without_the_threads_and_many_through_them() {
    let server = TestServer::start(&["--io-threads", "3"]);
    let mut c = server.connect();
    for i in 0..2000 {
        assert_eq!(run::<i64>(&mut c, &["INCR", "n"]), i + 1);
    }
    assert_eq!((info(&mut c, "io_threads_active"), number(&mut c, "io_threaded_reads_processed")), ("0".into(), 0));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (is_over, server) = (&is_over, &server);
        let busy: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    let mut clients: Vec<TcpStream> = (0..16).map(|_| raw(server.port)).collect();
                    let mut rounds = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        rounds += 1;
                        for client in &mut clients {
                            client.write_all(format!("INCR counter:{thread}\r\n").as_bytes()).unwrap();
                        }
                        for client in &mut clients {
                            // Which of them was first is not said.
                            let (mut reply, mut byte) = (Vec::new(), [0]);
                            while byte != *b"\n" {
                                client.read_exact(&mut byte).unwrap();
                                reply.push(byte[0]);
                            }
                            assert!(reply.starts_with(b":") && reply.ends_with(b"\r\n"), "{reply:?}");
                        }
                    }
                    rounds * 16
                })
            })
            .collect();
        wait_for(10, "the threads to be used", || info(&mut c, "io_threads_active") == "1");
        wait_for(10, "reads by them", || number(&mut c, "io_threaded_reads_processed") > 1000);
        is_over.store(true, Ordering::Relaxed);
        for (thread, count) in busy.into_iter().enumerate() {
            let count = count.join().unwrap();
            assert_eq!(run::<usize>(&mut c, &["GET", &format!("counter:{thread}")]), count);
        }
    });
    let begun = Instant::now();
    while info(&mut c, "io_threads_active") == "1" {
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    let reads = number(&mut c, "io_threaded_reads_processed");
    for _ in 0..1000 {
        let () = run(&mut c, &["PING"]);
    }
    // It has come home, but for requests on the way.
    assert!(number(&mut c, "io_threaded_reads_processed") <= reads + 2);
}

/// The threads of the clients of this name, in the order of their ids.
fn homes(c: &mut Connection, name: &str) -> Vec<(String, usize)> {
    let list: String = run(c, &["CLIENT", "LIST"]);
    let field =
        |line: &str, name: &str| line.split(' ').find_map(|word| word.strip_prefix(name).map(str::to_owned)).unwrap();
    let of_name = list.lines().filter(|line| field(line, "name=") == name);
    of_name.map(|line| (field(line, "addr="), field(line, "io-thread=").parse().unwrap())).collect()
}

#[test]
fn links_spread_evenly_and_leave_a_busy_thread() {
    let server = TestServer::start(&ALWAYS);
    let mut c = server.connect();
    let mut clients: Vec<TcpStream> = (0..40).map(|_| raw(server.port)).collect();
    for client in &mut clients {
        client.write_all(b"CLIENT SETNAME load\r\n").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
    let spread = homes(&mut c, "load");
    let count = |homes: &[(String, usize)], thread| homes.iter().filter(|(_, at)| *at == thread).count();
    assert_eq!(count(&spread, 1) + count(&spread, 2), 40);
    assert!(count(&spread, 1).abs_diff(count(&spread, 2)) <= 1, "{spread:?}");
    // All that is asked for is asked for by clients of one of the threads.
    let is_of_first = |client: &TcpStream| spread.contains(&(client.local_addr().unwrap().to_string(), 1));
    let (busy, idle): (Vec<_>, Vec<_>) = clients.into_iter().partition(is_of_first);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        scope.spawn(move || {
            let mut busy = busy;
            let request = "PING\r\n".repeat(20);
            while !is_over.load(Ordering::Relaxed) {
                busy.iter_mut().for_each(|client| client.write_all(request.as_bytes()).unwrap());
                busy.iter_mut().for_each(|client| client.read_exact(&mut [0; 7 * 20]).unwrap());
            }
        });
        let begun = Instant::now();
        while !is_over.load(Ordering::Relaxed) && begun.elapsed() < Duration::from_secs(60) {
            let moved = count(&homes(&mut c, "load"), 2) > idle.len() + 2;
            is_over.store(moved, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(20));
        }
        // The clients end before a test that fails does.
        let moved = is_over.swap(true, Ordering::Relaxed);
        assert!(moved, "no links moved");
    });
}

#[test]
fn connections_come_and_go_in_any_state() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &ALWAYS);
    let mut c = s.server.connect();
    let hello: &[u8] = &[0x16, 3, 1, 0, 200, 1, 0, 0, 196, 3, 3];
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (certs, s) = (&certs, &s);
            scope.spawn(move || {
                for i in 0..250 {
                    let port = if i % 2 == 0 { s.tls_port } else { s.server.port };
                    let mut stream = raw(port);
                    match (i + thread) % 5 {
                        0 => {}
                        1 => drop(stream.write_all(&hello[..1 + i % hello.len()])),
                        2 => drop(stream.write_all(b"*3\r\n$3\r\nSET\r\n$5\r\nhal")),
                        3 => {
                            let _ = stream.write_all(b"PING\r\n");
                            let _ = stream.shutdown(Shutdown::Write);
                            let mut got = Vec::new();
                            let _ = stream.read_to_end(&mut got);
                            assert_eq!(got == b"+PONG\r\n", port == s.server.port);
                        }
                        _ if i % 25 == 4 => {
                            let mut secure = certs.connect(s.tls_port);
                            assert_eq!(run::<String>(&mut secure, &["ECHO", "x"]), "x");
                        }
                        _ => drop(stream.write_all(b"SET k v\r\nGET k\r\n")),
                    }
                }
            });
        }
    });
    wait_for(15, "one client", || number(&mut c, "connected_clients") == 1);
    assert_eq!(run::<String>(&mut c, &["PING"]), "PONG");
    assert_eq!(run::<String>(&mut certs.connect(s.tls_port), &["PING"]), "PONG");
}

/// What a client may be in the middle of.
const STATES: [&str; 10] = [
    "",
    "PING\r\n",
    "*2\r\n$3\r\nGET\r\n$1000000\r\nthe beginning of it",
    "GET big\r\nGET big\r\nGET big\r\nGET big\r\n",
    "SUBSCRIBE news\r\nPSUBSCRIBE n*\r\n",
    "MULTI\r\nSET k v\r\n",
    "WATCH k\r\n",
    "BLPOP none 0\r\nPING\r\n",
    "MONITOR\r\n",
    "HELLO 3\r\nCLIENT TRACKING ON BCAST\r\n",
];

#[test]
fn links_that_fail_in_any_state_leave_nothing() {
    let server = TestServer::start(&ALWAYS);
    let mut c = server.connect();
    let () = run(&mut c, &["SET", "big", &text_of(300_000)]);
    let before = server.descriptors();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (is_over, server) = (&is_over, &server);
        // Everybody who listens is written to all the time.
        scope.spawn(move || {
            let mut c = server.connect();
            while !is_over.load(Ordering::Relaxed) {
                let () = run(&mut c, &["PUBLISH", "news", &text_of(5000)]);
                let () = run(&mut c, &["INCR", "k"]);
            }
        });
        let failing: Vec<_> = (0..4)
            .map(|thread| {
                scope.spawn(move || {
                    let mut dice = fastrand::Rng::with_seed(thread);
                    let mut c = server.connect();
                    for i in 0..200 {
                        let mut stream = raw(server.port);
                        let id: i64 = match i % 4 {
                            3 => {
                                stream.write_all(b"CLIENT ID\r\n").unwrap();
                                let (mut reply, mut byte) = (String::new(), [0]);
                                while byte != *b"\n" {
                                    stream.read_exact(&mut byte).unwrap();
                                    reply.push(char::from(byte[0]));
                                }
                                reply.trim_start_matches(':').trim_end().parse().unwrap()
                            }
                            _ => 0,
                        };
                        stream.write_all(STATES[dice.usize(..STATES.len())].as_bytes()).unwrap();
                        if dice.bool() {
                            std::thread::sleep(Duration::from_micros(dice.u64(..3000)));
                        }
                        match i % 4 {
                            0 => {}
                            1 => rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap(),
                            2 => {
                                stream.shutdown(Shutdown::Write).unwrap();
                                let _ = stream.read_to_end(&mut Vec::new());
                            }
                            _ => {
                                let () = run(&mut c, &["CLIENT", "KILL", "ID", &id.to_string()]);
                                let _ = stream.read_to_end(&mut Vec::new());
                            }
                        }
                    }
                })
            })
            .collect();
        failing.into_iter().for_each(|thread| thread.join().unwrap());
        is_over.store(true, Ordering::Relaxed);
    });
    wait_for(20, "one client", || number(&mut c, "connected_clients") == 1);
    wait_for(20, "the descriptors", || server.descriptors() == before);
    for field in ["blocked_clients", "pubsub_channels", "pubsub_patterns", "tracking_clients"] {
        assert_eq!(number(&mut c, field), 0, "{field}");
    }
    // The threads are thought to have as many links as they have.
    let mut clients: Vec<TcpStream> = (0..41).map(|_| raw(server.port)).collect();
    for client in &mut clients {
        client.write_all(b"CLIENT SETNAME new\r\n").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    }
    let at_first = homes(&mut c, "new").iter().filter(|(_, at)| *at == 1).count();
    assert!((20..=21).contains(&at_first), "{at_first} of 41");
}

#[test]
fn what_is_on_its_way_to_the_threads_evicts_no_keys() {
    let server = TestServer::start(&[&ALWAYS[..], &["--maxmemory-policy", "allkeys-lru"]].concat());
    let mut c = server.connect();
    let mut trackers: Vec<TcpStream> = (0..10).map(|_| raw(server.port)).collect();
    for tracker in &mut trackers {
        tracker.write_all(b"HELLO 3\r\nCLIENT TRACKING ON BCAST\r\n").unwrap();
    }
    wait_for(5, "all of them", || number(&mut c, "tracking_clients") == 10);
    for i in 0..300 {
        let () = run(&mut c, &["SET", &format!("{i}{}", "x".repeat(1000)), "v"]);
    }
    // The buffers of queries and replies are given back.
    std::thread::sleep(Duration::from_millis(1500));
    // Every key that goes is told of in ten messages as long as itself.
    let limit = number(&mut c, "used_memory") - number(&mut c, "mem_not_counted_for_evict") - 40_000;
    let () = run(&mut c, &["CONFIG", "SET", "maxmemory", &limit.to_string()]);
    for _ in 0..20 {
        let () = run(&mut c, &["SET", "k", "v"]);
    }
    let left: u64 = run(&mut c, &["DBSIZE"]);
    assert!((200..300).contains(&left), "{left} keys are left");
}

/// What the client that sets the limit has in its buffers at that moment is no reason to close one more.
#[test]
fn as_many_clients_are_evicted_as_have_to_go() {
    const SIZE: u64 = 1 << 20;
    for options in [&ALWAYS[..], &["--enable-debug-command", "yes"]] {
        let server = TestServer::start(options);
        let mut c = server.connect();
        let () = run(&mut c, &["DEBUG", "REPLYBUFFER", "RESIZING", "0"]);
        let () = run(&mut c, &["CLIENT", "SETNAME", "control"]);
        let () = run(&mut c, &["CLIENT", "NO-EVICT", "on"]);
        let sizes = |c: &mut Connection, name: &str| -> Vec<u64> {
            let list: String = run(c, &["CLIENT", "LIST"]);
            let size = |line: &str| line.split_once(" tot-mem=")?.1.split(' ').next()?.parse().ok();
            list.lines().filter(|line| line.contains(&format!(" name={name} "))).filter_map(size).collect()
        };
        let mut clients: Vec<TcpStream> = (0..10).map(|_| raw(server.port)).collect();
        for client in &mut clients {
            client
                .write_all(format!("CLIENT SETNAME large\r\n*2\r\n${SIZE}\r\n{}", text_of(1 << 20)).as_bytes())
                .unwrap();
        }
        wait_for(10, "all of it came", || sizes(&mut c, "large").iter().filter(|size| **size >= SIZE).count() == 10);
        let largest = sizes(&mut c, "large").into_iter().max().unwrap();
        let limit = largest * 5 + sizes(&mut c, "control")[0];
        let () = run(&mut c, &["CONFIG", "SET", "maxmemory-clients", &limit.to_string()]);
        for _ in 0..50 {
            assert_eq!(sizes(&mut c, "large").len(), 5, "{}", server.log());
        }
    }
}

#[test]
fn the_tools_get_on_with_it() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &ALWAYS);
    let port = s.tls_port.to_string();
    let ask = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(certs.tool_options()).args(["-p", &port]).args(words).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(ask(CLI, &["SET", "k", "v"]), "OK\n");
    let out =
        ask(env!("CARGO_BIN_EXE_redis-benchmark"), &["-c", "40", "-n", "4000", "-P", "4", "-t", "set,lpush", "--csv"]);
    assert_eq!(out.lines().count(), 3, "{out}");
    assert_eq!(ask(CLI, &["LLEN", "mylist"]), "4000\n");
}

#[test]
fn half_open_handshakes_take_no_clients_place() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[&ALWAYS[..], &["--maxclients", "50"]].concat());
    let stalled: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = raw(s.tls_port);
            stream.write_all(&[0x16, 3, 1, 2, 0]).unwrap();
            stream
        })
        .collect();
    let mut clients: Vec<Connection> = (0..20).map(|_| certs.connect(s.tls_port)).collect();
    for c in &mut clients {
        assert_eq!(run::<String>(c, &["PING"]), "PONG");
    }
    assert_eq!(number(&mut clients[0], "connected_clients"), 20);
    drop(stalled);
}

#[test]
fn replicas_follow_through_the_threads() {
    let master = TestServer::start(&ALWAYS);
    let mut m = master.connect();
    let () = run(&mut m, &["DEBUG", "POPULATE", "20000", "key", "200"]);
    let replica = TestServer::start(&[&ALWAYS[..], &["--replicaof", &format!("127.0.0.1 {}", master.port)]].concat());
    let mut r = replica.connect();
    wait_for(15, "the link", || info(&mut r, "master_link_status") == "up");
    let mut pipe = redis::pipe();
    (0..5000).for_each(|i| {
        pipe.cmd("SET").arg(format!("more:{i}")).arg(text_of(i)).ignore();
    });
    let () = pipe.query(&mut m).unwrap();
    assert_eq!(run::<i64>(&mut m, &["WAIT", "1", "10000"]), 1);
    let digest = |c: &mut Connection| run::<String>(c, &["DEBUG", "DIGEST"]);
    assert_eq!(digest(&mut r), digest(&mut m));
    assert_eq!(run::<usize>(&mut r, &["DBSIZE"]), 25_000);
}
