//! What connections meet at their edges: requests of other protocols, flags that outlive a command or do not, closing, and a
//! server without free descriptors. Bytes are sent and compared as they are.

mod common;

use common::{TestServer, run};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection that commands are written to as lines.
struct Raw(TcpStream);

impl Raw {
    fn connect(server: &TestServer) -> Raw {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Raw(stream)
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends lines and expects exactly this before the reply to an ECHO that follows them.
    #[track_caller]
    fn ask(&mut self, lines: &[&str], reply: &str) {
        let text: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(text + "ECHO the-end\r\n");
        self.expect(&format!("{reply}$7\r\nthe-end\r\n"));
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let mut got = vec![0; text.len()];
        if let Err(e) = self.0.read_exact(&mut got) {
            panic!("{e}: expected {text:?}, got {:?}", String::from_utf8_lossy(&got));
        }
        assert_eq!(String::from_utf8_lossy(&got), text);
    }

    /// The server closes without a word.
    #[track_caller]
    fn expect_close(&mut self) {
        let mut rest = Vec::new();
        match self.0.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            Err(e) => panic!("{e}"),
        }
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

#[test]
fn requests_of_http_end_the_connection_before_their_body_runs() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    let bodies: [&[u8]; 4] = [
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET stolen 1\r\n",
        b"GET / HTTP/1.1\r\nhOsT: 127.0.0.1\r\n\r\nSET stolen 1\r\n",
        b"*2\r\n$4\r\npost\r\n$1\r\n/\r\nSET stolen 1\r\n",
        b"MULTI\r\nPOST /\r\nSET stolen 1\r\nEXEC\r\n",
    ];
    for body in bodies {
        let mut browser = Raw::connect(&server);
        browser.send(body);
        browser.expect_close();
    }
    assert_eq!(run::<i64>(&mut c, &["EXISTS", "stolen"]), 0);
    let log = server.log();
    let line = "Possible SECURITY ATTACK detected. It looks like somebody is sending POST or Host: commands to Redis. This is \
                likely due to an attacker attempting to use Cross Protocol Scripting to compromise your Redis instance. \
                Connection from 127.0.0.1:";
    assert_eq!(log.matches(line).count(), 1, "logged once a minute: {log}");
}

#[test]
fn what_speaks_tls_is_left_waiting() {
    let server = TestServer::start(&[]);
    let mut c = Raw::connect(&server);
    // The beginning of a hello, in which the version and lengths hold NULs, and line ends of all kinds.
    c.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n$1\n*1\r\nPING\r\n\n\n\"\n");
    c.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let got = c.0.read(&mut [0; 100]);
    assert_eq!(got.unwrap_err().kind(), ErrorKind::WouldBlock, "neither a reply nor the end");
    // It does not go on for ever.
    c.0.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    c.send(vec![b'x'; 70_000]);
    c.expect("-ERR Protocol error: too big inline request\r\n");
}
