//! Scripts and functions, as clients see them.

use crate::common;

use common::{TestServer, run, try_run, wait_for};
use std::io::{Read, Write};
use std::time::Duration;

fn error(c: &mut redis::Connection, command: &[&str]) -> String {
    try_run::<redis::Value>(c, command).expect_err(&command.join(" ")).to_string()
}

fn eval<T: redis::FromRedisValue>(c: &mut redis::Connection, script: &str) -> T {
    run(c, &["EVAL", script, "0"])
}

#[test]
fn scripts_call_commands_and_return_values() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let set = "return redis.call('SET', KEYS[1], ARGV[1])";
    assert_eq!(run::<String>(c, &["EVAL", set, "1", "k", "v"]), "OK");
    assert_eq!(eval::<String>(c, "return redis.call('get', 'k')"), "v");
    assert_eq!(eval::<Vec<i64>>(c, "return {1, 2.9, -3.9}"), [1, 2, -3]);
    assert_eq!(eval::<Option<String>>(c, "return redis.call('get', 'none')"), None);
    assert_eq!(eval::<String>(c, "return redis.sha1hex('')"), "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    assert_eq!(eval::<String>(c, "return cjson.encode({1, 'x'})"), "[1,\"x\"]");
    let sha: String = run(c, &["SCRIPT", "LOAD", set]);
    assert_eq!(run::<Vec<i64>>(c, &["SCRIPT", "EXISTS", &sha, "x"]), [1, 0]);
    assert_eq!(run::<String>(c, &["EVALSHA", &sha.to_uppercase(), "1", "k", "w"]), "OK");
    run::<()>(c, &["SCRIPT", "FLUSH"]);
    assert!(error(c, &["EVALSHA", &sha, "1", "k", "w"]).contains("NoScript"));
    run::<()>(c, &["CONFIG", "SET", "slowlog-log-slower-than", "0"]);
    assert_eq!(eval::<i64>(c, "redis.call('incr', 'n') return redis.call('incr', 'n')"), 2);
}

#[test]
fn errors_say_where_they_happened() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    let text = error(c, &["EVAL", "\nreturn redis.call('nosuch')", "0"]);
    assert!(text.contains("Unknown Redis command called from script script: "), "{text}");
    assert!(text.contains(", on @user_script:2."), "{text}");
    run::<()>(c, &["SET", "k", "v"]);
    assert!(error(c, &["EVAL", "return redis.call('lpush', 'k', 1)", "0"]).contains("WRONGTYPE"));
    assert!(error(c, &["EVAL", "return foo", "0"]).contains("nonexistent global variable 'foo'"));
    for script in
        ["redis.call = 1", "_G.x = 1", "x = 1", "setmetatable(_G, {})", "rawset(_G, 'x', 1)", "table.insert(string, 1)"]
    {
        let text = error(c, &["EVAL", script, "0"]);
        assert!(text.contains("Attempt to modify a readonly table"), "{script}: {text}");
    }
    let caught = "local ok, e = pcall(redis.call, 'nosuch') return tostring(ok) .. ':' .. e";
    assert_eq!(eval::<String>(c, caught), "false:ERR Unknown Redis command called from script");
    assert!(error(c, &["EVAL", "return {err = 'MY error'}", "0"]).contains("MY"));
    assert!(error(c, &["EVAL", "#!lua flags=no-writes\nreturn redis.call('set', 'a', 1)", "0"]).contains("read-only"));
    let stats: String = run(c, &["INFO", "errorstats"]);
    assert!(stats.contains("errorstat_WRONGTYPE:count=1"), "{stats}");
}

#[test]
fn slow_scripts_are_killed_unless_they_wrote() {
    let server = TestServer::start(&["--busy-reply-threshold", "20"]);
    let mut slow = server.connect();
    let c = &mut server.connect();
    let run_slow = |slow: &mut redis::Connection, script: &str| {
        slow.send_packed_command(&redis::cmd("EVAL").arg(script).arg(0).get_packed_command()).unwrap();
    };
    let is_busy = |c: &mut redis::Connection| {
        wait_for(10, "the script is busy", || {
            try_run::<String>(c, &["GET", "x"]).is_err_and(|e| e.code() == Some("BUSY"))
        })
    };
    assert!(error(c, &["SCRIPT", "KILL"]).contains("NOTBUSY") || error(c, &["SCRIPT", "KILL"]).contains("NotBusy"));
    run_slow(&mut slow, "while true do pcall(redis.call, 'get', 'x') end");
    is_busy(c);
    assert!(error(c, &["FUNCTION", "KILL"]).contains("BUSY"));
    run::<()>(c, &["SCRIPT", "KILL"]);
    wait_for(10, "the script is over", || try_run::<Option<String>>(c, &["GET", "x"]).is_ok());
    let answer = slow.recv_response().map_or_else(|e| e.to_string(), |v| format!("{v:?}"));
    assert!(answer.contains("Script killed by user with SCRIPT KILL"), "{answer}");

    let mut slow = server.connect();
    run_slow(&mut slow, "redis.call('set', 'x', 'y') while true do end");
    is_busy(c);
    assert!(error(c, &["SCRIPT", "KILL"]).to_uppercase().contains("UNKILLABLE"));
    let _ = try_run::<redis::Value>(c, &["SHUTDOWN", "NOSAVE"]);
    wait_for(10, "the server is gone", || server.client().get_connection().is_err());
}

#[test]
fn time_stands_still_in_transactions_and_in_scripts_until_they_are_busy() {
    let server = TestServer::start(&["--busy-reply-threshold", "100", "--enable-debug-command", "yes"]);
    let c = &mut server.connect();
    let micros = |t: &(i64, i64)| t.0 * 1_000_000 + t.1;
    let mut pipe = redis::pipe();
    pipe.atomic().cmd("TIME").cmd("DEBUG").arg("SLEEP").arg("0.02").ignore().cmd("TIME");
    let (first, second): ((i64, i64), (i64, i64)) = pipe.query(c).unwrap();
    assert_eq!(first, second);
    let now: (i64, i64) = run(c, &["TIME"]);
    assert!(micros(&now) >= micros(&first) + 20_000, "{now:?} {first:?}");
    // A script that nobody is served beside sees one time.
    let twice = "local a = redis.call('time') for i = 1, 300000 do end local b = redis.call('time') return a[1] == b[1] and a[2] == b[2]";
    run::<()>(c, &["CONFIG", "SET", "busy-reply-threshold", "60000"]);
    assert_eq!(eval::<i64>(c, twice), 1);
    // One that takes longer than the threshold sees it go on, so that it may wait for it.
    run::<()>(c, &["CONFIG", "SET", "busy-reply-threshold", "50"]);
    let wait = "local a = redis.call('time')[1] while redis.call('time')[1] - a < 1 do end return 'over'";
    c.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(eval::<String>(c, wait), "over");
}

#[test]
fn requests_that_came_together_with_a_slow_script_are_answered() {
    let server = TestServer::start(&["--busy-reply-threshold", "20", "--enable-debug-command", "yes"]);
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    let send = |c: &mut redis::Connection, args: &[&str]| {
        let mut cmd = redis::Cmd::new();
        for arg in args {
            cmd.arg(*arg);
        }
        c.send_packed_command(&cmd.get_packed_command()).unwrap();
    };
    // While the server sleeps, requests gather: it finds them all at once.
    send(&mut server.connect(), &["DEBUG", "SLEEP", "0.3"]);
    std::thread::sleep(std::time::Duration::from_millis(50));
    send(&mut clients[0], &["EVAL", "while true do end", "0"]);
    clients[1..].iter_mut().for_each(|c| send(c, &["GET", "x"]));
    for c in &mut clients[1..] {
        c.set_read_timeout(Some(std::time::Duration::from_secs(10))).unwrap();
        let answer = c.recv_response();
        assert!(format!("{answer:?}").contains("BUSY"), "{answer:?}");
    }
    run::<()>(&mut clients[1], &["SCRIPT", "KILL"]);
    let answer = format!("{:?}", clients[0].recv_response());
    assert!(answer.contains("Script killed by user"), "{answer}");
}

const LIBRARY: &str = "#!lua name=lib\n\
    redis.register_function('put', function(keys, args) return redis.call('set', keys[1], args[1]) end)\n\
    redis.register_function{function_name = 'look', description = 'reads', flags = {'no-writes'}, \
    callback = function(keys) return redis.call('get', keys[1]) end}";

#[test]
fn functions_live_in_the_data_set() {
    for preamble in ["yes", "no"] {
        let options = ["--appendonly", "yes", "--aof-use-rdb-preamble", preamble, "--enable-debug-command", "yes"];
        let mut server = TestServer::start(&options);
        let c = &mut server.connect();
        assert_eq!(run::<String>(c, &["FUNCTION", "LOAD", LIBRARY]), "lib");
        assert!(error(c, &["FUNCTION", "LOAD", LIBRARY]).contains("Library 'lib' already exists"));
        assert_eq!(run::<String>(c, &["FCALL", "put", "1", "k", "v"]), "OK");
        assert_eq!(run::<String>(c, &["FCALL_RO", "LOOK", "1", "k"]), "v");
        assert!(error(c, &["FCALL_RO", "put", "1", "k", "v"]).contains("Can not execute a script with write flag"));
        run::<()>(c, &["BGREWRITEAOF"]);
        wait_for(20, "the log is rewritten", || {
            run::<String>(c, &["INFO", "persistence"]).contains("aof_rewrite_in_progress:0")
        });
        run::<()>(c, &["FLUSHALL"]);
        server.kill();
        server.restart();
        let c = &mut server.connect();
        assert_eq!(run::<String>(c, &["FCALL", "put", "1", "k", "w"]), "OK");
        run::<()>(c, &["DEBUG", "RELOAD"]);
        assert_eq!(run::<String>(c, &["FCALL_RO", "look", "1", "k"]), "w");
        let dump: Vec<u8> = run(c, &["FUNCTION", "DUMP"]);
        run::<()>(c, &["FUNCTION", "FLUSH"]);
        assert!(error(c, &["FCALL", "put", "1", "k", "v"]).contains("Function not found"));
        redis::cmd("FUNCTION").arg("RESTORE").arg(&dump).exec(c).unwrap();
        assert_eq!(run::<String>(c, &["FCALL_RO", "look", "1", "k"]), "w");
        run::<()>(c, &["FUNCTION", "DELETE", "lib"]);
        let damaged = [&dump[..dump.len() - 1], b"x"].concat();
        assert!(redis::cmd("FUNCTION").arg("RESTORE").arg(damaged).exec(c).is_err());
    }
}

#[test]
fn replicas_get_effects_and_functions() {
    let master = TestServer::start(&[]);
    let port = master.port.to_string();
    let c = &mut master.connect();
    run::<()>(c, &["FUNCTION", "LOAD", LIBRARY]);
    let replica = TestServer::start(&["--replicaof", &format!("127.0.0.1 {port}")]);
    let r = &mut replica.connect();
    wait_for(20, "the link is up", || run::<String>(r, &["INFO", "replication"]).contains("master_link_status:up"));
    let script = "redis.call('set', 'a', math.random()) redis.set_repl(redis.REPL_NONE) redis.call('set', 'b', 1)
                  redis.set_repl(redis.REPL_ALL) redis.call('incr', 'n')";
    run::<()>(c, &["EVAL", script, "3", "a", "b", "n"]);
    run::<()>(c, &["FCALL", "put", "1", "k", "v"]);
    wait_for(20, "the function's effect is there", || run::<Option<String>>(r, &["GET", "k"]).is_some());
    assert_eq!(run::<String>(r, &["GET", "a"]), run::<String>(c, &["GET", "a"]));
    assert_eq!(run::<i64>(r, &["EXISTS", "b"]), 0);
    assert_eq!(run::<String>(r, &["FCALL_RO", "look", "1", "k"]), "v");
    assert!(error(r, &["FCALL", "put", "1", "k", "v"]).to_uppercase().contains("READONLY"));
    assert!(error(r, &["EVAL", "return redis.call('set', 'x', 1)", "0"]).to_uppercase().contains("READONLY"));
}

#[test]
fn callers_lend_scripts_their_rights() {
    let server = TestServer::start(&[]);
    let c = &mut server.connect();
    run::<()>(c, &["ACL", "SETUSER", "some", "on", "nopass", "~a*", "+@all", "-incr"]);
    run::<()>(c, &["AUTH", "some", "x"]);
    assert!(error(c, &["EVAL", "return redis.call('incr', 'a')", "0"]).contains("ACL failure in script"));
    assert!(error(c, &["EVAL", "return redis.call('get', 'b')", "0"]).contains("No permissions to access a key"));
    assert!(eval::<Option<i64>>(c, "return redis.acl_check_cmd('incr', 'a')").is_none());
    assert_eq!(eval::<i64>(c, "return redis.acl_check_cmd('get', 'a')"), 1);
}

#[test]
fn the_debugger_steps_through_a_script() {
    let server = TestServer::start(&[]);
    let mut said = String::new();
    let mut c = std::net::TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    c.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    for (words, expected) in [
        (&["SCRIPT", "DEBUG", "YES"][..], "+OK\r\n"),
        (&["EVAL", "local a = {1, 'x'}\nredis.call('set', 'k', 'v')\nreturn a", "0"], "-> 1   local a = {1, 'x'}"),
        (&["step"], "-> 2 "),
        (&["print", "a"], "<value> {1; \"x\"}"),
        (&["step"], "<reply> \"+OK\""),
        (&["redis", "get", "k"], "<reply> \"v\""),
        (&["eval", "1 + 1"], "<retval> 2"),
        (&["break", "2"], "  #2 "),
        (&["nosuch"], "Unknown Redis Lua debugger command"),
        (&["continue"], "<endsession>"),
    ] {
        let mut packed = format!("*{}\r\n", words.len());
        words.iter().for_each(|w| packed.push_str(&format!("${}\r\n{w}\r\n", w.len())));
        c.write_all(packed.as_bytes()).unwrap();
        said.clear();
        read_until(&mut c, &mut said, expected);
    }
    let c = &mut server.connect();
    assert_eq!(run::<i64>(c, &["EXISTS", "k"]), 0, "the child's changes are its own");
}

fn read_until(c: &mut std::net::TcpStream, said: &mut String, expected: &str) {
    let mut buf = [0; 4096];
    while !said.contains(expected) {
        let n = c.read(&mut buf).unwrap_or_else(|e| panic!("{e}, after: {said}"));
        assert!(n > 0, "{expected} is not in: {said}");
        said.push_str(&String::from_utf8_lossy(&buf[..n]));
    }
}
