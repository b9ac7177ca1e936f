//! Pub/sub and access control, as an outside client sees them.

mod common;

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
