//! Client-side caching, as an outside client sees it: who is told of which keys, and when.

use crate::common;

use common::{TestServer, run, try_run};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// A connection whose input is compared byte by byte.
struct Raw(TcpStream);

impl Raw {
    fn connect(server: &TestServer, resp3: bool) -> Raw {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut c = Raw(stream);
        if resp3 {
            c.send("HELLO 3");
            c.skip_greeting();
        }
        c
    }

    /// The reply to HELLO.
    fn skip_greeting(&mut self) {
        self.skip_to("hexad_version\r\n");
        self.skip_to("\r\n");
        self.skip_to("\r\n");
    }

    fn send(&mut self, commands: &str) {
        for line in commands.lines() {
            self.0.write_all(format!("{}\r\n", line.trim()).as_bytes()).unwrap();
        }
    }

    fn skip_to(&mut self, end: &str) {
        let mut seen = Vec::new();
        while !seen.ends_with(end.as_bytes()) {
            let mut byte = [0];
            self.0.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
    }

    /// What comes next, with the line breaks as blanks.
    #[track_caller]
    fn expect(&mut self, words: &str) {
        let text = words.split_whitespace().map(|word| format!("{word}\r\n")).collect::<String>();
        let mut got = vec![0; text.len()];
        if let Err(e) = self.0.read_exact(&mut got) {
            panic!("{e}: expected {words}, got {}", String::from_utf8_lossy(&got));
        }
        assert_eq!(String::from_utf8_lossy(&got), text);
    }

    #[track_caller]
    fn ask(&mut self, command: &str, reply: &str) {
        self.send(command);
        self.expect(reply);
    }

    /// Nothing but the reply to a PING is to be read.
    #[track_caller]
    fn expect_nothing(&mut self) {
        self.ask("PING", "+PONG");
    }
}

fn invalidation(key: &str) -> String {
    format!(">2 $10 invalidate *1 ${} {key}", key.len())
}

#[test]
fn readers_are_told_once() {
    let server = TestServer::start(&[]);
    let (mut a, mut b) = (Raw::connect(&server, true), Raw::connect(&server, true));
    a.ask("CLIENT TRACKING on", "+OK");
    a.ask("GET k", "_");
    b.ask("SET k 1", "+OK");
    b.ask("SET k 2", "+OK");
    a.expect(&invalidation("k"));
    a.expect_nothing();
    a.ask("MGET k l", "*2 $1 2 _");
    b.ask("DEL k", ":1");
    b.ask("SET l 1 PX 1", "+OK");
    a.expect(&invalidation("k"));
    a.expect(&invalidation("l"));
    a.expect_nothing();
}

#[test]
fn a_clients_own_changes_follow_its_replies() {
    let server = TestServer::start(&[]);
    let mut c = Raw::connect(&server, true);
    c.ask("CLIENT TRACKING on", "+OK");
    c.send("GET k\nSET k 1\nGET k\nINCR k\nPING");
    c.expect("_ +OK");
    c.expect(&invalidation("k"));
    c.expect("$1 1 :2");
    c.expect(&invalidation("k"));
    c.expect("+PONG");
    c.send("GET k\nMULTI\nINCR k\nGET k\nINCR k\nEXEC\nPING");
    c.expect("$1 2 +OK +QUEUED +QUEUED +QUEUED *3 :3 $1 3 :4");
    c.expect(&invalidation("k"));
    c.expect(&invalidation("k"));
    c.expect("+PONG");
    c.send("GET k\nMULTI\nFLUSHALL\nGET k\nEXEC\nINCR k");
    c.expect("$1 4 +OK +QUEUED +QUEUED *2 +OK _ >2 $10 invalidate _ :1");
    c.expect(&invalidation("k"));
    // A transaction that changes to the older protocol is told nothing behind its reply.
    c.send("GET k\nMULTI\nINCR k\nHELLO 2\nEXEC\nPING");
    c.expect("$1 1 +OK +QUEUED +QUEUED *2 :2");
    c.skip_greeting();
    c.expect("+PONG");
    c.send("HELLO 3");
    c.skip_greeting();
    c.ask("CLIENT TRACKING on NOLOOP", "+OK");
    c.send("GET k\nINCR k");
    c.expect("$1 2 :3");
    c.expect_nothing();
}

#[test]
fn messages_go_to_another_client() {
    let server = TestServer::start(&[]);
    let mut c = Raw::connect(&server, false);
    let mut other = server.connect();
    let mut to = Raw::connect(&server, false);
    to.send("CLIENT ID");
    to.skip_to(":");
    to.skip_to("\r\n");
    let number = run::<String>(&mut other, &["CLIENT", "LIST"])
        .lines()
        .find(|line| line.contains("cmd=client|id"))
        .and_then(|line| line.strip_prefix("id="))
        .and_then(|line| line.split(' ').next())
        .unwrap()
        .to_string();
    c.ask(&format!("CLIENT TRACKING on REDIRECT {number}"), "+OK");
    c.ask("CLIENT GETREDIR", &format!(":{number}"));
    c.ask("GET k", "$-1");
    // It does not subscribe yet and hears nothing.
    run::<()>(&mut other, &["SET", "k", "1"]);
    to.expect_nothing();
    to.ask("SUBSCRIBE __redis__:invalidate", "*3 $9 subscribe $20 __redis__:invalidate :1");
    c.ask("GET k", "$1 1");
    run::<()>(&mut other, &["SET", "k", "2"]);
    to.expect("*3 $7 message $20 __redis__:invalidate *1 $1 k");
    run::<()>(&mut other, &["FLUSHALL"]);
    to.expect("*3 $7 message $20 __redis__:invalidate $-1");
    c.ask("GET k", "$-1");
    drop(to);
    common::wait_for(10, "the connection is gone", || {
        !run::<String>(&mut other, &["CLIENT", "LIST"]).contains(&format!("id={number} "))
    });
    run::<()>(&mut other, &["SET", "k", "3"]);
    c.ask(
        "CLIENT TRACKINGINFO",
        &format!("*6 $5 flags *2 $2 on $15 broken_redirect $8 redirect :{number} $8 prefixes *0"),
    );
    let list = run::<String>(&mut other, &["CLIENT", "LIST"]);
    assert!(list.contains("flags=tR ") && list.contains(&format!("redir={number} ")), "{list}");
    c.send("HELLO 3");
    c.skip_greeting();
    c.ask("GET k", "$1 3");
    run::<()>(&mut other, &["SET", "k", "4"]);
    c.expect(&format!(">2 $21 tracking-redir-broken :{number}"));
}

#[test]
fn broadcasts_come_once_a_turn_for_each_prefix() {
    let server = TestServer::start(&[]);
    let (mut all, mut some, mut quiet) =
        (Raw::connect(&server, true), Raw::connect(&server, true), Raw::connect(&server, true));
    let mut c = server.connect();
    all.ask("CLIENT TRACKING on BCAST", "+OK");
    some.ask("CLIENT TRACKING on BCAST PREFIX a PREFIX b", "+OK");
    quiet.ask("CLIENT TRACKING on BCAST NOLOOP", "+OK");
    assert_eq!(info(&mut c, "tracking_total_prefixes"), "3");
    assert_eq!(info(&mut c, "tracking_clients"), "3");
    run::<()>(&mut c, &["MSET", "b1", "1", "a2", "1", "c", "1", "a1", "1"]);
    all.expect(">2 $10 invalidate *4 $2 a1 $2 a2 $2 b1 $1 c");
    quiet.expect(">2 $10 invalidate *4 $2 a1 $2 a2 $2 b1 $1 c");
    some.expect(">2 $10 invalidate *2 $2 a1 $2 a2 >2 $10 invalidate *1 $2 b1");
    quiet.ask("SET a1 2", "+OK");
    all.expect(">2 $10 invalidate *1 $2 a1");
    some.expect(">2 $10 invalidate *1 $2 a1");
    quiet.expect_nothing();
    let list = run::<String>(&mut c, &["CLIENT", "LIST"]);
    assert_eq!(list.matches("flags=tB ").count(), 3, "{list}");
    for client in [all, some, quiet] {
        drop(client);
    }
    common::wait_for(10, "prefixes go with their clients", || info(&mut c, "tracking_total_prefixes") == "0");
}

fn info(c: &mut redis::Connection, field: &str) -> String {
    let text = run::<String>(c, &["INFO", "all"]);
    let line = text.lines().find(|line| line.starts_with(&format!("{field}:")));
    line.unwrap_or_else(|| panic!("no {field}")).split(':').nth(1).unwrap().to_string()
}

#[test]
fn the_next_command_may_be_an_exception() {
    let server = TestServer::start(&[]);
    let (mut a, mut b) = (Raw::connect(&server, true), Raw::connect(&server, true));
    a.send("CLIENT TRACKING on OPTIN\nGET k\nCLIENT CACHING yes\nCLIENT GETREDIR\nGET l\nGET m");
    a.expect("+OK _ +OK :0 _ _");
    b.ask("MSET k 1 l 1 m 1", "+OK");
    a.expect(&invalidation("l"));
    a.send("CLIENT CACHING yes\nMULTI\nGET k\nGET l\nEXEC\nGET m");
    a.expect("+OK +OK +QUEUED +QUEUED *2 $1 1 $1 1 $1 1");
    b.ask("MSET k 2 l 2 m 2", "+OK");
    a.expect(&invalidation("k"));
    a.expect(&invalidation("l"));
    a.send("CLIENT TRACKING off\nCLIENT TRACKING on OPTOUT\nCLIENT CACHING no\nGET k\nGET l");
    a.expect("+OK +OK +OK $1 2 $1 2");
    b.ask("MSET k 3 l 3", "+OK");
    a.expect(&invalidation("l"));
    // A command that fails ends the exception as well.
    a.send("CLIENT CACHING no\nGET\nGET k");
    a.skip_to("command\r\n");
    a.expect("$1 3");
    b.ask("SET k 4", "+OK");
    a.expect(&invalidation("k"));
    a.ask("RESET", "+RESET");
    a.ask("CLIENT TRACKINGINFO", "*6 $5 flags *1 $3 off $8 redirect :-1 $8 prefixes *0");
}

#[test]
fn the_table_keeps_its_limit() {
    let server = TestServer::start(&["--tracking-table-max-keys", "10"]);
    let mut c = Raw::connect(&server, true);
    let mut other = server.connect();
    c.ask("CLIENT TRACKING on", "+OK");
    for i in 0..500 {
        c.send(&format!("GET key:{i}"));
    }
    c.send("ECHO end");
    c.skip_to("end\r\n");
    common::wait_for(10, "keys leave the table", || {
        info(&mut other, "tracking_total_keys") == "10" && info(&mut other, "tracking_total_items") == "10"
    });
    run::<()>(&mut other, &["FLUSHALL"]);
    assert_eq!(info(&mut other, "tracking_total_keys"), "0");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let server = TestServer::start(&[]);
    let mut c = server.connect();
    for (options, error) in [
        ("x", "syntax error"),
        ("on FOO", "syntax error"),
        ("on REDIRECT", "syntax error"),
        ("on REDIRECT 0", "The client ID you want redirect to does not exist"),
        ("on REDIRECT x", "value is not an integer or out of range"),
        ("on PREFIX a", "PREFIX option requires BCAST mode to be enabled"),
        ("on BCAST OPTIN", "OPTIN and OPTOUT are not compatible with BCAST"),
        ("on OPTOUT OPTIN", "You can't specify both OPTIN mode and OPTOUT mode"),
        (
            "on BCAST PREFIX foo PREFIX fo",
            "Prefix 'foo' overlaps with another provided prefix 'fo'. Prefixes for a single client must not overlap.",
        ),
    ] {
        let words: Vec<&str> = ["CLIENT", "TRACKING"].into_iter().chain(options.split(' ')).collect();
        let shown = try_run::<()>(&mut c, &words).unwrap_err().to_string();
        assert!(shown.contains(error), "{options}: {shown}");
    }
    run::<()>(&mut c, &["CLIENT", "TRACKING", "on", "BCAST", "PREFIX", "foo"]);
    let again = try_run::<()>(&mut c, &["CLIENT", "TRACKING", "on", "BCAST", "PREFIX", "foobar"]).unwrap_err();
    assert!(again.to_string().contains("'foobar' overlaps with an existing prefix 'foo'"), "{again}");
    let switch = try_run::<()>(&mut c, &["CLIENT", "TRACKING", "on"]).unwrap_err();
    assert!(switch.to_string().contains("You can't switch BCAST mode on/off before disabling tracking"), "{switch}");
}
