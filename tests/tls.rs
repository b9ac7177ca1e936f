//! TLS: clients, certificates and their change, replication, the cluster bus, MIGRATE, the tools; with peers of our own, with
//! openssl's client and with a real server.

use crate::common;
use crate::common_tls;

use common::{CLI, TestServer, free_port, real_redis, run, try_run, wait_for};
use common_tls::{Certs, TlsServer};
use redis::Connection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BENCHMARK: &str = env!("CARGO_BIN_EXE_redis-benchmark");

fn info(c: &mut Connection, section: &str, field: &str) -> String {
    let info: String = run(c, &["INFO", section]);
    let line = info.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

fn cli(certs: &Certs, port: u16, words: &[&str]) -> Output {
    tool(Path::new(CLI), certs, port, words)
}

fn tool(program: &Path, certs: &Certs, port: u16, words: &[&str]) -> Output {
    let port = port.to_string();
    Command::new(program)
        .args(certs.tool_options())
        .args(["-p", &port])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn plain_and_tls_clients_side_by_side() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[]);
    let (mut plain, mut tls) = (s.server.connect(), certs.connect(s.tls_port));
    let () = run(&mut plain, &["SET", "k", "of the plain one"]);
    assert_eq!(run::<String>(&mut tls, &["GET", "k"]), "of the plain one");
    // Values of all sizes, around those of records and buffers, both ways.
    for size in [0, 1, 100, 16_383, 16_384, 16_385, 65_535, 65_537, 1_000_000, 9_000_001] {
        let value: String = (0..size).map(|i| char::from(b'a' + (i % 23) as u8)).collect();
        let () = run(&mut tls, &["SET", "big", &value]);
        assert!(run::<String>(&mut plain, &["GET", "big"]) == value, "{size}");
        assert!(run::<String>(&mut tls, &["GET", "big"]) == value, "{size}");
        assert_eq!(run::<usize>(&mut tls, &["STRLEN", "big"]), size);
    }
    // Pipelines longer than any buffer.
    let mut pipe = redis::pipe();
    (0..20_000).for_each(|i| {
        pipe.cmd("SET").arg(format!("key:{i}")).arg("x".repeat(i % 100));
    });
    (0..20_000).for_each(|i| {
        pipe.cmd("STRLEN").arg(format!("key:{i}"));
    });
    let replies: Vec<redis::Value> = pipe.query(&mut tls).unwrap();
    for i in 0..20_000 {
        assert_eq!(replies[20_000 + i], redis::Value::Int((i % 100) as i64));
    }
    assert_eq!(info(&mut plain, "server", "listener1"), format!("name=tls,bind=127.0.0.1,port={}", s.tls_port));
    wait_for(5, "two clients", || info(&mut plain, "clients", "connected_clients") == "2");
    assert!(s.server.log().contains("Ready to accept connections tls"));
}

#[test]
fn a_slow_reader_gets_all_of_a_large_reply() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[]);
    let mut c = s.server.connect();
    let () = run(&mut c, &["SET", "v", &"0123456789abcdef".repeat(1 << 20)]);
    // What is asked for is much more than any socket buffer; the server has to wait for the reader again and again.
    let mut child = Command::new(CLI)
        .args(certs.tool_options())
        .args(["-p", &s.tls_port.to_string(), "-r", "3", "GET", "v"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut total = 0;
    let mut buf = vec![0; 3 << 20];
    loop {
        match out.read(&mut buf).unwrap() {
            0 => break,
            n => total += n,
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(total, 3 * ((16 << 20) + 1));
    assert!(child.wait().unwrap().success());
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    let certs = Certs::new();
    let strangers = Certs::new();
    fs::copy(strangers.path("client.crt"), certs.path("stranger.crt")).unwrap();
    fs::copy(strangers.path("client.key"), certs.path("stranger.key")).unwrap();
    let s = TlsServer::start(&certs, &[]);
    let mut c = s.server.connect();
    let pings = |certificate: Option<&str>| {
        let connected = certs.client(s.tls_port, certificate).get_connection();
        connected.and_then(|mut c| try_run::<String>(&mut c, &["PING"])).is_ok()
    };
    assert_eq!([None, Some("client"), Some("stranger")].map(pings), [false, true, false]);
    assert!(s.server.log().contains("Error accepting a client connection: "), "{}", s.server.log());
    let () = run(&mut c, &["CONFIG", "SET", "tls-auth-clients", "optional"]);
    assert_eq!([None, Some("client"), Some("stranger")].map(pings), [true, true, false]);
    let () = run(&mut c, &["CONFIG", "SET", "tls-auth-clients", "no"]);
    assert_eq!([None, Some("client"), Some("stranger")].map(pings), [true, true, true]);
    let () = run(&mut c, &["CONFIG", "SET", "tls-auth-clients", "yes"]);
    assert_eq!([None, Some("client"), Some("stranger")].map(pings), [false, true, false]);
    // A folder of authorities does as well as a file.
    let folder = certs.path("authorities");
    fs::create_dir(&folder).unwrap();
    fs::copy(certs.path("ca.crt"), folder.join("one.pem")).unwrap();
    fs::copy(strangers.path("ca.crt"), folder.join("two.pem")).unwrap();
    let folder = folder.display().to_string();
    let () = run(&mut c, &["CONFIG", "SET", "tls-ca-cert-file", "", "tls-ca-cert-dir", &folder]);
    assert_eq!([None, Some("client"), Some("stranger")].map(pings), [false, true, true]);
}

#[test]
fn certificates_change_without_a_connection_lost() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &["--tls-auto-reload-interval", "1"]);
    let mut c = certs.connect(s.tls_port);
    assert_eq!(info(&mut c, "tls", "tls_server_cert_serial"), "01");
    assert!(info(&mut c, "tls", "tls_ca_cert_expires_in_seconds").parse::<u64>().unwrap() > 86400);
    certs.issue("next", 77);
    let (crt, key) = (certs.text("next.crt"), certs.text("next.key"));
    let () = run(&mut c, &["CONFIG", "SET", "tls-cert-file", &crt, "tls-key-file", &key]);
    assert_eq!(info(&mut c, "tls", "tls_server_cert_serial"), "4D");
    let mut other = certs.connect(s.tls_port);
    let () = run(&mut other, &["PING"]);
    // The error says which file and why, and what was in use stays in use.
    fs::write(certs.path("junk"), "no certificate").unwrap();
    for (directive, file, why) in [
        ("tls-cert-file", "missing.crt", "No such file or directory"),
        ("tls-cert-file", "junk", "no certificate in PEM form"),
        ("tls-key-file", "junk", "no private key in PEM form"),
        ("tls-key-file", "server.key", "does not belong to the certificate in tls-cert-file"),
        ("tls-ca-cert-file", "junk", "no certificate in PEM form"),
        ("tls-ca-cert-dir", "junk", "Not a directory"),
    ] {
        let path = certs.text(file);
        let refused = try_run::<()>(&mut c, &["CONFIG", "SET", directive, &path]).unwrap_err().to_string();
        assert!(refused.contains("Unable to update TLS configuration"), "{refused}");
        assert!(refused.contains(&format!("{directive} '{path}'")) && refused.contains(why), "{refused}");
        assert!(s.server.log().contains(&format!("{directive} '{path}': ")));
    }
    assert_eq!(info(&mut c, "tls", "tls_server_cert_serial"), "4D");
    assert_eq!(run::<Vec<String>>(&mut c, &["CONFIG", "GET", "tls-cert-file"])[1], crt);
    // Files that change are read again.
    certs.issue("next", 78);
    wait_for(10, "the new certificate", || info(&mut c, "tls", "tls_server_cert_serial") == "4E");
    fs::write(certs.path("next.key"), "cut off").unwrap();
    wait_for(10, "the bad key", || s.server.log().contains("cannot be read; those before stay in use"));
    let () = run(&mut certs.connect(s.tls_port), &["PING"]);
    let () = run(&mut other, &["PING"]);
}

#[test]
fn a_server_that_lacks_something_says_what() {
    let certs = Certs::new();
    let refused = |change: &[(&str, &str)]| {
        let mut options = certs.server_options(free_port());
        for (name, value) in change {
            match options.iter().position(|o| o == name) {
                Some(at) => options[at + 1] = value.to_string(),
                None => options.extend([name.to_string(), value.to_string()]),
            }
        }
        let out = Command::new(common::SERVER).args(["--port", "0", "--save", ""]).args(&options).output().unwrap();
        assert!(!out.status.success());
        stdout(&out)
    };
    assert!(refused(&[("--tls-cert-file", "/none")]).contains("tls-cert-file '/none': No such file or directory"));
    assert!(refused(&[("--tls-key-file", "")]).contains("No tls-key-file configured!"));
    assert!(refused(&[("--tls-ca-cert-file", "")]).contains("Either tls-ca-cert-file or tls-ca-cert-dir must be"));
    assert!(refused(&[("--tls-protocols", "TLSv1.1")]).contains("tls-protocols 'TLSv1.1' names no protocol that is"));
    assert!(refused(&[("--tls-ciphers", "AES256-SHA")]).contains("tls-ciphers 'AES256-SHA' names no cipher suite"));
}

#[test]
fn keys_may_be_under_a_password() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[]);
    let mut c = s.server.connect();
    let sealed = certs.text("sealed.key");
    for more in [&[][..], &["-v2", "des3"], &["-scrypt"], &["-v2prf", "hmacWithSHA1"]] {
        let made = Command::new("openssl")
            .args(["pkcs8", "-topk8", "-in", &certs.text("server.key"), "-out", &sealed, "-passout", "pass:secret"])
            .args(more)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let () = run(&mut c, &["CONFIG", "SET", "tls-key-file", &certs.text("server.key"), "tls-key-file-pass", ""]);
        let refused = try_run::<()>(&mut c, &["CONFIG", "SET", "tls-key-file", &sealed]).unwrap_err().to_string();
        assert!(refused.contains("under a password, and tls-key-file-pass names none"), "{refused}");
        let wrong = try_run::<()>(&mut c, &["CONFIG", "SET", "tls-key-file-pass", "wrong", "tls-key-file", &sealed]);
        assert!(wrong.unwrap_err().to_string().contains("tls-key-file-pass is not its password"));
        let () = run(&mut c, &["CONFIG", "SET", "tls-key-file-pass", "secret", "tls-key-file", &sealed]);
        let () = run(&mut certs.connect(s.tls_port), &["PING"]);
    }
}

/// What openssl's client says of a connection, and what it got for a PING.
fn s_client(certs: &Certs, port: u16, more: &[&str]) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-CAfile", &certs.text("ca.crt")])
        .args(["-cert", &certs.text("client.crt"), "-key", &certs.text("client.key")])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // It may have ended by now.
    let _ = input.write_all(b"PING\r\nQUIT\r\n");
    let out = child.wait_with_output().unwrap();
    drop(input);
    stdout(&out) + &String::from_utf8_lossy(&out.stderr)
}

#[test]
fn protocols_and_ciphers_are_those_that_are_named() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[]);
    let mut c = s.server.connect();
    let mut set = |name: &str, value: &str| run::<()>(&mut c, &["CONFIG", "SET", name, value]);
    let got = |more: &[&str], what: &str| {
        let said = s_client(&certs, s.tls_port, more);
        assert!(said.contains(what), "{what}: {said}");
    };
    got(&["-tls1_3"], "+PONG");
    got(&["-tls1_2"], "+PONG");
    set("tls-protocols", "TLSv1.2");
    got(&["-tls1_2"], "+PONG");
    got(&["-tls1_3"], "alert protocol version");
    set("tls-ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES128-GCM-SHA256");
    got(&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], "alert handshake failure");
    got(&["-tls1_2", "-cipher", "ECDHE+AESGCM"], "ECDHE-ECDSA-AES128-GCM-SHA256");
    // The client's preference, then ours.
    let both = ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305"];
    got(&both, "Cipher is ECDHE-ECDSA-AES128-GCM-SHA256");
    set("tls-prefer-server-ciphers", "yes");
    got(&both, "Cipher is ECDHE-ECDSA-CHACHA20-POLY1305");
    set("tls-protocols", "");
    set("tls-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256");
    got(&["-tls1_3"], "Cipher is TLS_CHACHA20_POLY1305_SHA256");
}

#[test]
fn sessions_are_resumed_if_they_are_kept() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[]);
    let mut c = s.server.connect();
    let session = certs.text("session");
    for version in ["-tls1_2", "-tls1_3"] {
        let is_resumed = || {
            s_client(&certs, s.tls_port, &[version, "-sess_out", &session]);
            s_client(&certs, s.tls_port, &[version, "-sess_in", &session]).contains("Reused, ")
        };
        let () = run(&mut c, &["CONFIG", "SET", "tls-session-caching", "yes"]);
        assert!(is_resumed(), "{version}");
        let () = run(&mut c, &["CONFIG", "SET", "tls-session-cache-timeout", "0"]);
        assert!(!is_resumed(), "{version}");
        let () = run(&mut c, &["CONFIG", "SET", "tls-session-cache-timeout", "300", "tls-session-caching", "no"]);
        let _ = fs::remove_file(&session);
        assert!(!is_resumed(), "{version}");
    }
}

/// How a client that speaks TLS begins.
fn client_hello() -> Vec<u8> {
    let config = rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty());
    let name = "localhost".try_into().unwrap();
    let mut client = rustls::ClientConnection::new(config.with_no_client_auth().into(), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[test]
fn those_at_the_wrong_port_are_told_so() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[]);
    let ends = |port: u16, bytes: &[u8]| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest);
        assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
        rest
    };
    assert_eq!(ends(s.tls_port, b"PING\r\n"), b"");
    assert!(s.server.log().contains("Error accepting a client connection: "), "{}", s.server.log());
    assert_eq!(ends(s.server.port, &client_hello()), b"");
    assert!(s.server.log().contains("on a port without TLS"), "{}", s.server.log());
    let () = run(&mut certs.connect(s.tls_port), &["PING"]);
}

/// The same message in records of so many bytes each.
fn in_records_of(hello: &[u8], bytes: usize) -> Vec<u8> {
    let record = |part: &[u8]| [&hello[..3], &(part.len() as u16).to_be_bytes(), part].concat();
    hello[5..].chunks(bytes).flat_map(record).collect()
}

#[test]
fn no_handshake_however_odd_ends_the_server() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[]);
    let hello = client_hello();
    let answer = |bytes: &[u8], pieces: usize| {
        let mut stream = TcpStream::connect(("127.0.0.1", s.tls_port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        for piece in bytes.chunks(bytes.len().div_ceil(pieces).max(1)) {
            let _ = stream.write_all(piece);
            if pieces > 1 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        let mut first = [0; 1];
        stream.read(&mut first).map_or(0, |_| first[0])
    };
    const HANDSHAKE: u8 = 22;
    for (bytes, pieces) in [(1, 1), (1, 7), (2, 3), (50, 9), (5000, 40)] {
        assert_eq!(answer(&in_records_of(&hello, bytes), pieces), HANDSHAKE, "{bytes} in {pieces}");
    }
    fastrand::seed(7);
    for _ in 0..400 {
        let mut bytes = in_records_of(&hello, *fastrand::choice(&[3, 40, 5000]).unwrap());
        for _ in 0..fastrand::usize(1..4) {
            let at = fastrand::usize(..bytes.len());
            bytes[at] = fastrand::u8(..);
        }
        bytes.truncate(fastrand::usize(bytes.len() / 2..=bytes.len()));
        let mut stream = TcpStream::connect(("127.0.0.1", s.tls_port)).unwrap();
        let (first, second) = bytes.split_at(fastrand::usize(..bytes.len()));
        let _ =
            stream.write_all(first).and_then(|()| stream.write_all(second)).and_then(|()| stream.write_all(b"more"));
    }
    let () = run(&mut certs.connect(s.tls_port), &["PING"]);
    assert!(!s.server.log().contains("panicked"));
}

#[test]
fn handshakes_that_do_not_end_take_nobodys_place() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &["--maxclients", "40"]);
    let mut c = s.server.connect();
    let hello = client_hello();
    // Connections left or lost in any state of a handshake.
    let mut open = Vec::new();
    for i in 0..1500 {
        let mut stream = TcpStream::connect(("127.0.0.1", s.tls_port)).unwrap();
        let _ = stream.write_all(&hello[..hello.len() * (i % 11) / 10]);
        if i % 3 == 0 {
            open.push(stream);
        }
        if i % 100 == 0 {
            let () = run(&mut certs.connect(s.tls_port), &["PING"]);
        }
    }
    let begun = Instant::now();
    wait_for(5, "the end of the clients", || info(&mut c, "clients", "connected_clients") == "1");
    let mut clients: Vec<Connection> = (0..20).map(|_| certs.connect(s.tls_port)).collect();
    clients.iter_mut().for_each(|c| run::<()>(c, &["PING"]));
    let memory: u64 = info(&mut c, "memory", "used_memory").parse().unwrap();
    assert!(memory < 40 << 20, "{memory}");
    // Those that are still there are closed in time.
    wait_for(15, "the end of the handshakes", || {
        let _: () = run(&mut c, &["PING"]);
        open.iter_mut().all(|stream| {
            stream.set_nonblocking(true).unwrap();
            let mut bytes = [0; 4096];
            loop {
                match stream.read(&mut bytes) {
                    Ok(0) => return true,
                    Ok(_) => {}
                    Err(e) => return e.kind() != std::io::ErrorKind::WouldBlock,
                }
            }
        })
    });
    assert!(begun.elapsed() < Duration::from_secs(15));
    assert!(s.server.log().contains("the handshake takes too long"));
    clients.iter_mut().for_each(|c| run::<()>(c, &["PING"]));
}

/// A client's side of TLS.
fn client_config(certs: &Certs, version: &'static rustls::SupportedProtocolVersion) -> Arc<rustls::ClientConfig> {
    let certificate = |name: &str| CertificateDer::from_pem_file(certs.path(name)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate("ca.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certs.path("client.key")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    let config = builder.with_root_certificates(roots).with_client_auth_cert(vec![certificate("client.crt")], key);
    Arc::new(config.unwrap())
}

/// Connects, asks for something, and is gone when so many bytes were sent. Whether there was a reply before that.
fn ask_and_leave(config: &Arc<rustls::ClientConfig>, port: u16, after: usize, how: usize) -> io::Result<bool> {
    let mut tcp = TcpStream::connect(("127.0.0.1", port))?;
    tcp.set_read_timeout(Some(Duration::from_secs(20)))?;
    let name = ServerName::IpAddress(std::net::IpAddr::from(Ipv4Addr::LOCALHOST).into());
    let mut tls = rustls::ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
    let mut left = after;
    let mut has_asked = false;
    loop {
        if !tls.is_handshaking() && !std::mem::replace(&mut has_asked, true) {
            tls.writer().write_all(b"SET k v\r\nGET k\r\n")?;
        }
        while tls.wants_write() {
            let mut bytes = Vec::new();
            tls.write_tls(&mut bytes)?;
            let part = &bytes[..bytes.len().min(left)];
            tcp.write_all(part)?;
            left -= part.len();
            if left == 0 {
                match how {
                    // What the server sends meanwhile is not read.
                    0 => {}
                    1 => {
                        tcp.set_read_timeout(Some(Duration::from_millis(2)))?;
                        let _ = tcp.read(&mut [0; 700]);
                    }
                    _ => {
                        tcp.shutdown(Shutdown::Write)?;
                        let _ = tcp.read_to_end(&mut Vec::new());
                    }
                }
                return Ok(false);
            }
        }
        if tls.read_tls(&mut tcp)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if tls.process_new_packets().map_err(io::Error::other)?.plaintext_bytes_to_read() > 0 {
            return Ok(true);
        }
    }
}

#[test]
fn connections_that_are_cut_at_any_byte_leave_nothing() {
    for options in [&[][..], &["--io-threads", "3", "--io-threads-always-active", "yes"]] {
        let certs = Certs::new();
        let s = TlsServer::start(&certs, options);
        let mut c = s.server.connect();
        let configs = [&rustls::version::TLS12, &rustls::version::TLS13].map(|version| client_config(&certs, version));
        for config in &configs {
            assert!(ask_and_leave(config, s.tls_port, usize::MAX, 0).unwrap());
        }
        wait_for(5, "one client", || info(&mut c, "clients", "connected_clients") == "1");
        let before = s.server.descriptors();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (configs, port) = (&configs, s.tls_port);
                scope.spawn(move || {
                    let mut dice = fastrand::Rng::with_seed(thread);
                    let mut replies = 0;
                    for i in 0..250 {
                        let asked = ask_and_leave(&configs[i % 2], port, dice.usize(1..3000), dice.usize(..3));
                        replies += usize::from(asked.unwrap());
                    }
                    assert!((1..250).contains(&replies), "{replies}");
                });
            }
        });
        wait_for(20, "one client", || info(&mut c, "clients", "connected_clients") == "1");
        wait_for(20, "the descriptors", || s.server.descriptors() == before);
        assert!(info(&mut c, "memory", "used_memory").parse::<u64>().unwrap() < 8 << 20);
        let () = run(&mut certs.connect(s.tls_port), &["PING"]);
        assert!(!s.server.log().contains("panicked"));
    }
}

#[test]
fn our_tools_speak_tls() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[]);
    assert_eq!(stdout(&cli(&certs, s.tls_port, &["SET", "k", "v"])), "OK\n");
    let uri = format!("rediss://127.0.0.1:{}", s.tls_port);
    let identity = [certs.text("client.crt"), certs.text("client.key"), certs.text("ca.crt")];
    let [crt, key, ca] = identity.each_ref().map(String::as_str);
    let run_cli = |words: &[&str]| Command::new(CLI).args(words).stdin(Stdio::null()).output().unwrap();
    let got = run_cli(&["-u", &uri, "--cert", crt, "--key", key, "--cacert", ca, "--sni", "localhost", "GET", "k"]);
    assert_eq!(stdout(&got), "v\n");
    let got = run_cli(&["-u", &uri, "--cert", crt, "--key", key, "--insecure", "GET", "k"]);
    assert_eq!(stdout(&got), "v\n");
    let got = run_cli(&["-u", &uri, "--cert", crt, "--key", key, "GET", "k"]);
    assert!(!got.status.success());
    assert!(String::from_utf8_lossy(&got.stderr).contains("Could not connect to Redis at 127.0.0.1:"));
    let ciphers = ["--tls-ciphersuites", "TLS_AES_128_GCM_SHA256", "--tls-ciphers", "DEFAULT"];
    assert_eq!(stdout(&cli(&certs, s.tls_port, &[&ciphers[..], &["GET", "k"]].concat())), "v\n");
    // The bulk modes.
    let mut child = Command::new(CLI)
        .args(certs.tool_options())
        .args(["-p", &s.tls_port.to_string(), "--pipe"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let commands: String = (0..50_000).map(|i| format!("SET key:{i} value:{i}\r\n")).collect();
    child.stdin.take().unwrap().write_all(commands.as_bytes()).unwrap();
    assert!(stdout(&child.wait_with_output().unwrap()).contains("errors: 0, replies: 50000"));
    assert_eq!(stdout(&cli(&certs, s.tls_port, &["DBSIZE"])), "50001\n");
    let file = certs.text("dump.rdb");
    assert!(cli(&certs, s.tls_port, &["--rdb", &file]).status.success());
    assert!(fs::metadata(&file).unwrap().len() > 500_000);
    assert_eq!(stdout(&cli(&certs, s.tls_port, &["--scan", "--pattern", "key:4999?"])).lines().count(), 10);
    // The load generator, with connections kept and with one for each request.
    for more in [&["-n", "20000", "-P", "16"][..], &["-n", "200", "-k", "0", "-c", "5"]] {
        let out = Command::new(BENCHMARK)
            .args(certs.tool_options())
            .args(["-p", &s.tls_port.to_string(), "-t", "set,get", "-q"])
            .args(more)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(stdout(&out).contains("GET: "), "{}", stdout(&out));
    }
}

/// A replica that follows a master over TLS, each of either kind.
fn replicates(certs: &Certs, master: &Path, replica: &Path, options: &[&str]) {
    let options = [options, &["--tls-replication", "yes", "--repl-backlog-size", "10mb"]].concat();
    let m = TlsServer::start_binary(master, certs, &options);
    let r = TlsServer::start_binary(replica, certs, &options);
    let (mut mc, mut rc) = (m.server.connect(), r.server.connect());
    for i in 0..200 {
        let () = run(&mut mc, &["SET", &format!("k{i}"), &format!("{i}").repeat(20_000)]);
    }
    let () = run(&mut rc, &["REPLICAOF", "127.0.0.1", &m.tls_port.to_string()]);
    wait_for(30, "the link", || info(&mut rc, "replication", "master_link_status") == "up");
    let mut agree = |what: &str| {
        wait_for(20, what, || {
            run::<String>(&mut mc, &["DEBUG", "DIGEST"]) == run::<String>(&mut rc, &["DEBUG", "DIGEST"])
        });
        let () = run(&mut mc, &["INCR", "counter"]);
    };
    agree("the data set");
    agree("the stream");
    // A master is reached by the TLS port that it was told.
    assert!(info(&mut mc, "replication", "slave0").contains(&format!("port={}", r.tls_port)));
    let () = run(&mut mc, &["CLIENT", "KILL", "TYPE", "replica"]);
    let () = run(&mut mc, &["SET", "large", &"x".repeat(3_000_000)]);
    wait_for(30, "the second link", || run::<usize>(&mut rc, &["STRLEN", "large"]) == 3_000_000);
    assert_eq!(info(&mut mc, "stats", "sync_full"), "1");
    // They change places, and the new replica goes on where it is.
    let () = run(&mut mc, &["FAILOVER"]);
    wait_for(30, "the other link", || {
        info(&mut rc, "replication", "role") == "master" && info(&mut mc, "replication", "master_link_status") == "up"
    });
    let () = run(&mut rc, &["SET", "large", "no more"]);
    wait_for(20, "the other stream", || run::<String>(&mut mc, &["GET", "large"]) == "no more");
    assert_eq!(info(&mut rc, "stats", "sync_full"), "0");
    let digest = |c: &mut Connection| run::<String>(c, &["DEBUG", "DIGEST"]);
    assert_eq!(digest(&mut mc), digest(&mut rc));
}

#[test]
fn replicas_follow_over_tls() {
    let certs = Certs::new();
    let ours = Path::new(common::SERVER);
    for way in [
        &["--repl-diskless-sync", "no", "--repl-diskless-load", "disabled"][..],
        &["--repl-diskless-sync", "yes", "--repl-diskless-load", "swapdb"],
    ] {
        replicates(&certs, ours, ours, &[&AT_ONCE, way].concat());
    }
}

/// Options of a server that replicates at once, and lets itself be compared.
const AT_ONCE: [&str; 4] = ["--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0"];

#[test]
#[cfg_attr(not(has_redis_7_2), ignore = "no redis-server of 7.2 or later is installed")]
fn a_real_replica_follows_us_over_tls() {
    replicates(&Certs::new(), Path::new(common::SERVER), &real_redis(), &AT_ONCE);
}

#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn we_follow_a_real_master_over_tls() {
    replicates(&Certs::new(), &real_redis(), Path::new(common::SERVER), &AT_ONCE);
}

/// Nodes of a cluster whose bus is under TLS.
fn nodes(certs: &Certs, binaries: &[&Path]) -> Vec<TlsServer> {
    let options = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "3000",
        "--tls-cluster",
        "yes",
        "--tls-replication",
        "yes",
    ];
    binaries.iter().map(|binary| TlsServer::start_binary(binary, certs, &options)).collect()
}

fn make_cluster(program: &Path, certs: &Certs, nodes: &[TlsServer], replicas: usize) {
    let addresses: Vec<String> = nodes.iter().map(|n| format!("127.0.0.1:{}", n.tls_port)).collect();
    let replicas = replicas.to_string();
    let mut words = vec!["--cluster", "create"];
    words.extend(addresses.iter().map(String::as_str));
    words.extend(["--cluster-yes", "--cluster-replicas", &replicas]);
    let made = tool(program, certs, nodes[0].tls_port, &words);
    assert!(made.status.success(), "{}{}", stdout(&made), String::from_utf8_lossy(&made.stderr));
    for node in nodes {
        let mut c = certs.connect(node.tls_port);
        wait_for(20, "the cluster", || run::<String>(&mut c, &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    }
}

#[test]
fn a_cluster_with_tls_moves_slots_and_names_tls_ports() {
    let certs = Certs::new();
    let nodes = nodes(&certs, &[Path::new(common::SERVER); 3]);
    make_cluster(Path::new(CLI), &certs, &nodes, 0);
    let tls_ports: Vec<u16> = nodes.iter().map(|n| n.tls_port).collect();
    let plain_ports: Vec<u16> = nodes.iter().map(|n| n.server.port).collect();
    // Whoever came over TLS is sent on to TLS ports, whoever did not is not.
    let moved_to = |c: &mut Connection| {
        let moved = |key: &&str| try_run::<String>(c, &["GET", key]).err().filter(|e| e.code() == Some("MOVED"));
        let error = ["a", "b", "c"].iter().find_map(moved).expect("a redirection");
        let detail = error.detail().unwrap_or_default().to_owned();
        detail.rsplit(':').next().unwrap().trim().parse::<u16>().unwrap()
    };
    let (mut tls, mut plain) = (certs.connect(tls_ports[0]), nodes[0].server.connect());
    assert!(tls_ports.contains(&moved_to(&mut tls)));
    assert!(plain_ports.contains(&moved_to(&mut plain)));
    let listed: String = run(&mut tls, &["CLUSTER", "NODES"]);
    assert!(tls_ports.iter().all(|port| listed.contains(&format!("127.0.0.1:{port}@{}", port + 10_000))), "{listed}");
    let listed: String = run(&mut plain, &["CLUSTER", "NODES"]);
    assert!(plain_ports.iter().all(|port| listed.contains(&format!("127.0.0.1:{port}@"))), "{listed}");
    let slots = format!("{:?}", run::<redis::Value>(&mut tls, &["CLUSTER", "SLOTS"]));
    assert!(tls_ports.iter().all(|port| slots.contains(&format!("int({port})"))), "{slots}");
    let file = fs::read_to_string(nodes[0].server.dir.path().join("nodes.conf")).unwrap();
    assert!(tls_ports.iter().all(|port| file.contains(&format!("tls-port={port}"))), "{file}");
    assert!(plain_ports.iter().all(|port| file.contains(&format!(":{port}@"))), "{file}");
    // Keys move by MIGRATE, under TLS.
    const SLOTS: u16 = 200;
    let slot_of = |c: &mut Connection, key: &str| run::<u16>(c, &["CLUSTER", "KEYSLOT", key]);
    let keys: Vec<String> =
        (0..).map(|i| format!("key:{i}")).filter(|k| slot_of(&mut tls, k) < SLOTS).take(5).collect();
    for key in &keys {
        let out = cli(&certs, tls_ports[2], &["-c", "SET", key, &format!("value of {key}")]);
        assert_eq!(stdout(&out).lines().last(), Some("OK"));
    }
    assert_eq!(run::<usize>(&mut tls, &["DBSIZE"]), keys.len());
    let slots = SLOTS.to_string();
    let from: String = run(&mut tls, &["CLUSTER", "MYID"]);
    let to: String = run(&mut certs.connect(tls_ports[1]), &["CLUSTER", "MYID"]);
    let seed = format!("127.0.0.1:{}", tls_ports[0]);
    let words =
        ["--cluster", "reshard", &seed, "--cluster-from", &from, "--cluster-to", &to, "--cluster-slots", &slots];
    let moved = cli(&certs, tls_ports[0], &[&words[..], &["--cluster-yes"]].concat());
    assert!(moved.status.success(), "{}", stdout(&moved));
    assert_eq!(run::<usize>(&mut tls, &["DBSIZE"]), 0);
    for key in &keys {
        let out = cli(&certs, tls_ports[0], &["-c", "GET", key]);
        assert_eq!(stdout(&out).lines().last(), Some(format!("value of {key}").as_str()));
    }
    let checked = cli(&certs, tls_ports[2], &["--cluster", "check", &seed]);
    assert!(checked.status.success() && stdout(&checked).contains("All 16384 slots covered"));
}

#[test]
#[cfg_attr(not(has_redis), ignore = "no redis-server is installed")]
fn a_cluster_of_both_kinds_fails_over_under_tls() {
    let certs = Certs::new();
    let (ours, real) = (Path::new(common::SERVER), real_redis());
    // Replicas are ours, as an older server does not read what a newer one sends.
    let mut nodes = nodes(&certs, &[&real, &real, ours, ours, ours, ours]);
    make_cluster(Path::new(CLI), &certs, &nodes, 1);
    wait_for(30, "the links of the replicas", || {
        nodes.iter().all(|n| {
            let mut c = n.server.connect();
            info(&mut c, "replication", "role") == "master" || info(&mut c, "replication", "master_link_status") == "up"
        })
    });
    nodes[0].server.kill();
    let mut c = nodes[2].server.connect();
    wait_for(30, "the failover", || {
        let listed: String = run(&mut c, &["CLUSTER", "NODES"]);
        let failed = listed.lines().any(|l| l.contains("fail") && !l.contains("fail?"));
        failed && run::<String>(&mut c, &["CLUSTER", "INFO"]).contains("cluster_state:ok")
    });
}

#[test]
#[cfg_attr(not(has_redis_7_2), ignore = "no redis-server of 7.2 or later is installed")]
fn slots_move_both_ways_in_a_cluster_of_both_kinds_under_tls() {
    let (ours, real) = (Path::new(common::SERVER), real_redis());
    let real_cli = real.with_file_name("redis-cli");
    for program in [Path::new(CLI), &real_cli].into_iter().filter(|program| program.exists()) {
        let certs = Certs::new();
        let mut nodes = nodes(&certs, &[ours, &real, ours, &real, ours, &real]);
        make_cluster(program, &certs, &nodes, 1);
        let keys: Vec<String> = (0..300).map(|i| format!("key:{i}")).collect();
        let ports: Vec<u16> = nodes.iter().map(|n| n.tls_port).collect();
        let of_key = |port: u16, words: &[&str]| {
            stdout(&tool(program, &certs, port, &[&["-c"], words].concat())).lines().last().map(str::to_owned)
        };
        for key in &keys {
            assert_eq!(of_key(ports[0], &["SET", key, &format!("value of {key}")]).as_deref(), Some("OK"));
        }
        let ids = [0, 1].map(|at| run::<String>(&mut certs.connect(ports[at]), &["CLUSTER", "MYID"]));
        let seed = format!("127.0.0.1:{}", ports[0]);
        for (from, to, slots) in [(0, 1, "900"), (1, 0, "1500")] {
            // Redis's tool does not wait until all have heard of the last slots.
            wait_for(10, "all nodes to agree", || {
                tool(program, &certs, ports[0], &["--cluster", "check", &seed]).status.success()
            });
            let words = ["--cluster", "reshard", &seed, "--cluster-from", &ids[from], "--cluster-to", &ids[to]];
            let words = [&words[..], &["--cluster-slots", slots, "--cluster-yes"]].concat();
            let moved = tool(program, &certs, ports[0], &words);
            assert!(moved.status.success(), "{}{}", stdout(&moved), String::from_utf8_lossy(&moved.stderr));
        }
        // A master of either kind goes.
        for (killed, asked) in [(1, [0, 3]), (0, [2, 3])] {
            wait_for(30, "the links of the replicas", || {
                nodes.iter().enumerate().all(|(at, n)| {
                    (killed == 0 && at == 1)
                        || ["role:master", "master_link_status:up"]
                            .iter()
                            .any(|up| run::<String>(&mut n.server.connect(), &["INFO", "replication"]).contains(up))
                })
            });
            let id: String = run(&mut nodes[killed].server.connect(), &["CLUSTER", "MYID"]);
            nodes[killed].server.kill();
            for at in asked {
                let mut c = nodes[at].server.connect();
                wait_for(30, "the failover", || {
                    let listed: String = run(&mut c, &["CLUSTER", "NODES"]);
                    let is_failed = listed.lines().any(|l| l.starts_with(&id) && l.contains("fail "));
                    is_failed && run::<String>(&mut c, &["CLUSTER", "INFO"]).contains("cluster_state:ok")
                });
            }
        }
        for key in &keys {
            assert_eq!(of_key(ports[2], &["GET", key]), Some(format!("value of {key}")), "{}", program.display());
        }
    }
}

/// A plain bus and a plain stream beside clients with TLS.
#[test]
fn tls_for_clients_alone_leaves_the_rest_plain() {
    let certs = Certs::new();
    let m = TlsServer::start(&certs, &[]);
    let r = TestServer::start(&["--replicaof", "127.0.0.1", &m.server.port.to_string()]);
    let (mut mc, mut rc) = (certs.connect(m.tls_port), r.connect());
    let () = run(&mut mc, &["SET", "k", "v"]);
    wait_for(20, "the stream", || try_run::<String>(&mut rc, &["GET", "k"]).is_ok_and(|v| v == "v"));
    // A port for TLS comes and goes.
    let port = free_port().to_string();
    let () = run(&mut mc, &["CONFIG", "SET", "tls-port", &port]);
    let () = run(&mut certs.connect(port.parse().unwrap()), &["PING"]);
    let () = run(&mut mc, &["CONFIG", "SET", "tls-port", "0"]);
    assert!(TcpStream::connect(("127.0.0.1", port.parse().unwrap())).is_err());
    let () = run(&mut mc, &["PING"]);
}

#[test]
fn scripts_are_debugged_over_tls() {
    let certs = Certs::new();
    let s = TlsServer::start(&certs, &[]);
    for how in ["YES", "SYNC"] {
        let mut c = certs.connect(s.tls_port);
        let () = run(&mut c, &["SCRIPT", "DEBUG", how]);
        let stopped: Vec<String> = run(&mut c, &["EVAL", "local x = 1\nreturn x", "0"]);
        assert!(stopped[0].starts_with("* Stopped at 1"), "{stopped:?}");
        let shown: Vec<String> = run(&mut c, &["step"]);
        assert!(shown[0].starts_with("* Stopped at 2"), "{shown:?}");
        let ended: Vec<String> = run(&mut c, &["continue"]);
        assert_eq!(ended.last().map(String::as_str), Some("<endsession>"), "{ended:?}");
    }
    assert_eq!(run::<String>(&mut certs.connect(s.tls_port), &["PING"]), "PONG");
}
