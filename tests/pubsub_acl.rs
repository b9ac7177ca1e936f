//! Pub/sub and access control, as an outside client sees them.

use crate::common;

use common::{TestServer, run, try_run};
use std::time::Duration;

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

#[test]
fn messages_reach_channels_and_patterns() {
    let server = TestServer::start(&[]);
    let mut listener = server.connect();
    listener.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut c = server.connect();
    let mut pubsub = listener.as_pubsub();
    pubsub.subscribe("news").unwrap();
    pubsub.psubscribe("n*s").unwrap();
    assert_eq!(run::<i64>(&mut c, &words("PUBLISH news hello")), 2);
    assert_eq!(run::<i64>(&mut c, &words("PUBLISH other hello")), 0);
    let first = pubsub.get_message().unwrap();
    assert_eq!((first.get_channel_name(), first.get_payload::<String>().unwrap().as_str()), ("news", "hello"));
    let second = pubsub.get_message().unwrap();
    assert_eq!(second.get_pattern::<Option<String>>().unwrap().as_deref(), Some("n*s"));
    assert_eq!(run::<Vec<String>>(&mut c, &words("PUBSUB CHANNELS")), ["news"]);
    assert_eq!(run::<i64>(&mut c, &words("PUBSUB NUMPAT")), 1);
    drop(pubsub);
    drop(listener);
    common::wait_for(10, "the subscriptions end with the connection", || {
        run::<Vec<String>>(&mut c, &words("PUBSUB CHANNELS")).is_empty()
    });
}

#[test]
fn keyspace_events_are_published() {
    let server = TestServer::start(&["--notify-keyspace-events", "KEA"]);
    let mut listener = server.connect();
    listener.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut c = server.connect();
    let mut pubsub = listener.as_pubsub();
    pubsub.psubscribe("__key*").unwrap();
    run::<()>(&mut c, &words("SET k v PX 30"));
    let mut seen = Vec::new();
    while seen.len() < 6 {
        let m = pubsub.get_message().unwrap();
        seen.push(format!("{} {}", m.get_channel_name(), m.get_payload::<String>().unwrap()));
    }
    assert_eq!(
        seen,
        [
            "__keyspace@0__:k set",
            "__keyevent@0__:set k",
            "__keyspace@0__:k expire",
            "__keyevent@0__:expire k",
            "__keyspace@0__:k expired",
            "__keyevent@0__:expired k",
        ]
    );
}

#[test]
fn users_do_what_they_may_and_nothing_else() {
    let server = TestServer::start(&[]);
    let mut admin = server.connect();
    run::<()>(&mut admin, &words("ACL SETUSER ann on >secret ~a:* &room +@read +set +publish -getdel"));
    let mut c = server.connect();
    let code = |r: redis::RedisResult<()>| r.unwrap_err().code().map(str::to_string);
    assert_eq!(code(try_run(&mut c, &words("AUTH ann wrong"))).as_deref(), Some("WRONGPASS"));
    run::<()>(&mut c, &words("AUTH ann secret"));
    run::<()>(&mut c, &words("SET a:1 x"));
    assert_eq!(run::<String>(&mut c, &words("GET a:1")), "x");
    for refused in ["GET b:1", "DEL a:1", "GETDEL a:1", "PUBLISH hall x", "CONFIG GET port"] {
        assert_eq!(code(try_run(&mut c, &words(refused))).as_deref(), Some("NOPERM"), "{refused}");
    }
    assert_eq!(run::<i64>(&mut c, &words("PUBLISH room x")), 0);
    assert_eq!(run::<Vec<redis::Value>>(&mut admin, &words("ACL LOG")).len(), 6);
    assert_eq!(run::<i64>(&mut admin, &words("ACL DELUSER ann")), 1);
    common::wait_for(10, "a removed user's connections are closed", || try_run::<()>(&mut c, &words("PING")).is_err());
}

/// Where options are given twice, or names are keywords, the key that is used is the key that is checked.
#[test]
fn the_keys_that_are_checked_are_those_that_are_used() {
    let server = TestServer::start(&[]);
    let mut admin = server.connect();
    for line in [
        "ACL SETUSER ann on >secret +@all resetkeys %R~src* %W~pub* ~STREAMS ~by",
        "ACL SETUSER all on >secret +@all %R~* %W~pub*",
        "GEOADD src 1 1 m",
        "RPUSH src2 1",
        "SET secret keep",
        "PFADD hidden a",
        "XADD private 1-1 pin 1234",
        "XGROUP CREATE private g 0",
    ] {
        run::<redis::Value>(&mut admin, &words(line));
    }
    let mut ann = server.connect();
    run::<()>(&mut ann, &words("AUTH ann secret"));
    let error =
        |c: &mut redis::Connection, line: &str| try_run::<redis::Value>(c, &words(line)).expect_err(line).to_string();
    for (line, keys) in [
        ("GEORADIUS src 1 1 10 km STORE pub1 STORE secret", "src secret"),
        ("GEORADIUS src 1 1 10 km STORE pub1 STOREDIST secret", "src secret"),
        ("GEORADIUS src 1 1 10 km COUNT 1 STORE STORE STORE secret", "src secret"),
        ("GEORADIUSBYMEMBER src m 10 km STOREDIST pub1 STORE secret", "src secret"),
        ("SORT src2 STORE by STORE secret", "src2 secret"),
        ("SORT src2 STORE pub1 STORE secret", "src2 secret"),
        ("SORT src2 BY nosort STORE limit STORE secret", "src2 secret"),
        ("XREADGROUP NOACK GROUP g STREAMS STREAMS private >", "private"),
        ("XREADGROUP GROUP STREAMS STREAMS STREAMS private >", "private"),
        ("XREADGROUP GROUP streams c STREAMS STREAMS private > 0", "STREAMS private"),
        ("XREAD COUNT 1 STREAMS STREAMS private 0 0", "STREAMS private"),
        ("PFMERGE hidden", "hidden"),
        ("PFMERGE by hidden", "by hidden"),
    ] {
        assert!(error(&mut ann, line).contains("No permissions to access a key"), "{line}");
        let found: Vec<String> = run(&mut admin, &words(&format!("COMMAND GETKEYS {line}")));
        assert_eq!(found.join(" "), keys, "{line}");
        let told: String = run(&mut admin, &words(&format!("ACL DRYRUN ann {line}")));
        assert!(told.contains("no permissions to access the"), "{line}: {told}");
    }
    assert_eq!(run::<String>(&mut admin, &words("GET secret")), "keep");
    for line in ["GEORADIUS src 1 1 10 km STORE secret STORE pub1", "SORT src2 STORE secret STORE pub2", "PFMERGE by"] {
        run::<redis::Value>(&mut ann, &words(line));
    }
    assert!(run::<bool>(&mut admin, &words("EXISTS pub1")));
    // Patterns may lead to any key: whoever uses them has to be allowed to read all.
    for line in ["SORT src2 BY w_*", "SORT src2 GET #", "SORT src2 GET secret*->f", "SORT_RO src2 GET secret*"] {
        assert!(error(&mut ann, line).contains("denied due to insufficient ACL permissions"), "{line}");
        let mut all = server.connect();
        run::<()>(&mut all, &words("AUTH all secret"));
        run::<redis::Value>(&mut all, &words(line));
    }
    let script = ["EVAL", "return redis.call('SORT', 'src2', 'GET', 'secret*')", "0"];
    let denied = try_run::<redis::Value>(&mut ann, &script).unwrap_err().to_string();
    assert!(denied.contains("insufficient ACL permissions"), "{denied}");
}

#[test]
fn a_user_is_configured_once() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_redis-server"))
        .args(["--port", "0", "--user", "ann", "--user", "ann"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Duplicate user"), "{output:?}");
}

#[test]
fn users_survive_in_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("users.acl");
    std::fs::write(&path, "user default on nopass ~* &* +@all\nuser bob on >pw ~* +get\n").unwrap();
    // What is open already may be opened again.
    let options = ["--aclfile", path.to_str().unwrap(), "--acl-pubsub-default", "allchannels"];
    let mut server = TestServer::start(&options);
    let mut c = server.connect();
    run::<()>(&mut c, &words("ACL SETUSER eve on nopass +ping"));
    run::<()>(&mut c, &words("ACL SAVE"));
    server.kill();
    server.restart();
    let mut c = server.connect();
    assert_eq!(run::<Vec<String>>(&mut c, &words("ACL USERS")), ["bob", "default", "eve"]);
    std::fs::write(&path, "user default on nopass ~* &* +@all\nuser bob on +nosuch\n").unwrap();
    assert!(try_run::<()>(&mut c, &words("ACL LOAD")).is_err());
    std::fs::write(&path, "user default on nopass ~* &* +@all\nuser bob on >pw ~* +get\nuser eve on nopass +ping\n")
        .unwrap();
    let mut eve = server.connect();
    run::<()>(&mut eve, &words("AUTH eve any"));
    run::<()>(&mut c, &words("ACL LOAD"));
    common::wait_for(10, "users made anew have to come back", || try_run::<()>(&mut eve, &words("PING")).is_err());
    assert_eq!(run::<Vec<String>>(&mut c, &words("ACL USERS")), ["bob", "default", "eve"]);
}
