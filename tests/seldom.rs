//! Commands that are seldom sent: each answers as a 7.2 server does. The replies are those of a real one.

use crate::common;

use common::TestServer;
use redis::Value;

/// A reply in short: `+status`, `-error`, `:number`, text, `[elements]`, `(nil)`.
fn text(reply: redis::RedisResult<Value>) -> String {
    match reply {
        Err(e) => format!("-{} {}", e.code().unwrap_or_default(), e.detail().unwrap_or_default()),
        Ok(Value::Nil) => "(nil)".into(),
        Ok(Value::Int(n)) => format!(":{n}"),
        Ok(Value::Okay) => "+OK".into(),
        Ok(Value::SimpleString(status)) => format!("+{status}"),
        Ok(Value::BulkString(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
        Ok(Value::Array(items)) => {
            format!("[{}]", items.into_iter().map(|item| text(Ok(item))).collect::<Vec<_>>().join(", "))
        }
        Ok(other) => format!("{other:?}"),
    }
}

/// Sends the lines in order; of a long reply the beginning is told.
fn check(options: &[&str], lines: &[(&str, &str)]) {
    let server = TestServer::start(options);
    let c = &mut server.connect();
    for (line, expected) in lines {
        let mut command = redis::Cmd::new();
        line.split(' ').for_each(|word| {
            command.arg(word);
        });
        let reply = text(command.query(c));
        assert!(reply == *expected || (expected.len() == 60 && reply.starts_with(expected)), "{line}: {reply}");
    }
}

#[test]
fn commands_that_are_seldom_sent() {
    check(&["--enable-debug-command", "yes"], PLAIN);
}

#[test]
fn commands_that_are_seldom_sent_to_a_cluster() {
    check(&["--enable-debug-command", "yes", "--cluster-enabled", "yes"], CLUSTER);
}

#[test]
fn containers_tell_of_their_subcommands() {
    let server = TestServer::start(&["--enable-debug-command", "yes", "--enable-module-command", "yes"]);
    let c = &mut server.connect();
    let containers = [
        "ACL", "CLIENT", "COMMAND", "CONFIG", "DEBUG", "FUNCTION", "LATENCY", "MEMORY", "MODULE", "OBJECT", "PUBSUB",
        "SCRIPT", "SLOWLOG", "XGROUP", "XINFO",
    ];
    for name in containers {
        let lines: Vec<String> = common::run(c, &[name, "HELP"]);
        assert_eq!(lines[0], format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
        assert_eq!(lines[lines.len() - 2..], ["HELP", "    Print this help."]);
    }
}

const PLAIN: &[(&str, &str)] = &[
    ("SET n 5", "+OK"),
    ("DECR n", ":4"),
    ("PSETEX p 100000 v", "+OK"),
    ("SUBSTR p 0 0", "v"),
    ("UNWATCH", "+OK"),
    ("READWRITE", "-ERR This instance has cluster support disabled"),
    ("LASTSAVE x", "-ERR wrong number of arguments for 'lastsave' command"),
    ("SLAVEOF NO ONE", "+OK"),
    ("CLIENT NO-EVICT ON", "+OK"),
    ("CLIENT NO-EVICT maybe", "-ERR syntax error"),
    ("CLIENT SETINFO lib-name me", "+OK"),
    ("CLIENT SETINFO lib-ver", "-ERR wrong number of arguments for 'client|setinfo' command"),
    ("COMMAND DOCS nothing", "[]"),
    ("COMMAND HELP x", "-ERR wrong number of arguments for 'command|help' command"),
    ("EVALSHA_RO ffffffffffffffffffffffffffffffffffffffff 0", "-NOSCRIPT No matching script. Please use EVAL."),
    ("FUNCTION RESTORE x", "-ERR DUMP payload version or checksum are wrong"),
    ("FUNCTION STATS", "[running_script, (nil), engines, [LUA, [libraries_count, :0, functions_count, :0]]]"),
    ("GEOADD g 13.361389 38.115556 Palermo", ":1"),
    ("GEORADIUS_RO g 15 37 200 km", "[Palermo]"),
    ("GEORADIUS_RO g 15 37 200 km STORE x", "-ERR syntax error"),
    ("LATENCY HISTORY command", "[]"),
    ("MODULE LIST", "[]"),
    ("MODULE LOAD /nothing.so", "-ERR MODULE command not allowed. If the enable-module-comman"),
    ("MODULE LOADEX /nothing.so", "-ERR MODULE command not allowed. If the enable-module-comman"),
    ("MODULE UNLOAD nothing", "-ERR MODULE command not allowed. If the enable-module-comman"),
    ("OBJECT IDLETIME p", ":0"),
    ("PUBSUB NUMSUB a b", "[a, :0, b, :0]"),
    ("PUBSUB SHARDCHANNELS", "[]"),
    ("PUBSUB SHARDNUMSUB a", "[a, :0]"),
    ("SPUBLISH a b", ":0"),
    ("UNSUBSCRIBE a", "[unsubscribe, a, :0]"),
    ("PUNSUBSCRIBE a", "[punsubscribe, a, :0]"),
    ("SUNSUBSCRIBE a", "[sunsubscribe, a, :0]"),
    ("XADD s 1-1 f v", "1-1"),
    ("XGROUP CREATE s g 0", "+OK"),
    ("XINFO CONSUMERS s g", "[]"),
    ("RESTORE-ASKING k 0 x", "-ERR DUMP payload version or checksum are wrong"),
    ("ACL LIST", "[user default on nopass sanitize-payload ~* &* +@all]"),
    ("PFSELFTEST", "+OK"),
    ("DEBUG SET-DISABLE-DENY-SCRIPTS 0", "+OK"),
    ("DEBUG CHANGE-REPL-ID", "+OK"),
    ("DEBUG REPLYBUFFER RESIZING 1", "+OK"),
    ("DEBUG AOF-FLUSH-SLEEP 0", "+OK"),
    ("DEBUG QUICKLIST-PACKED-THRESHOLD 100b", "+OK"),
    ("DEBUG CLIENT-EVICTION", "-ERR maxmemory-clients is disabled."),
];

const CLUSTER: &[(&str, &str)] = &[
    ("CLUSTER ADDSLOTS 1 2 3 4 5", "+OK"),
    ("CLUSTER DELSLOTS 1", "+OK"),
    ("CLUSTER DELSLOTS 1", "-ERR Slot 1 is already unassigned"),
    ("CLUSTER DELSLOTSRANGE 2 3", "+OK"),
    ("CLUSTER DELSLOTSRANGE 5 4", "-ERR start slot number 5 is greater than end slot number 4"),
    ("CLUSTER BUMPEPOCH", "+BUMPED 1"),
    ("CLUSTER BUMPEPOCH", "+STILL 1"),
    (
        "CLUSTER COUNT-FAILURE-REPORTS ffffffffffffffffffffffffffffffffffffffff",
        "-ERR Unknown node ffffffffffffffffffffffffffffffffffffffff",
    ),
    (
        "CLUSTER FORGET ffffffffffffffffffffffffffffffffffffffff",
        "-ERR Unknown node ffffffffffffffffffffffffffffffffffffffff",
    ),
    ("CLUSTER GETKEYSINSLOT 5 10", "[]"),
    ("CLUSTER GETKEYSINSLOT 16384 10", "-ERR Invalid slot or number of keys"),
    ("CLUSTER FLUSHSLOT 5", "+OK"),
    ("CLUSTER FLUSHSLOT x", "-ERR Invalid or out of range slot"),
    ("CLUSTER LINKS", "[]"),
    (
        "CLUSTER SLAVES ffffffffffffffffffffffffffffffffffffffff",
        "-ERR Unknown node ffffffffffffffffffffffffffffffffffffffff",
    ),
    ("CLUSTER FLUSHSLOTS", "+OK"),
    ("CLUSTER SHARDS x", "-ERR wrong number of arguments for 'cluster|shards' command"),
    ("CLUSTER RESET x", "-ERR syntax error"),
    ("CLUSTER RESET SOFT", "+OK"),
    ("READWRITE", "+OK"),
    ("PUBSUB SHARDCHANNELS", "[]"),
    (
        "DEBUG CLUSTERLINK KILL ALL ffffffffffffffffffffffffffffffffffffffff",
        "-ERR Unknown node ffffffffffffffffffffffffffffffffffffffff",
    ),
];
