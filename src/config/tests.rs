//! Tests of the configuration room.
use std::collections::BTreeMap;

use proptest::prelude::*;

use super::set::Change;
use super::table::{Kind, flag};
use super::*;

/// Set on the command line of the 7.2 server whose values are compared, so they say nothing about defaults.
const SET_BY_THE_RECORDER: [&str; 4] = ["port", "save", "dir", "enable-debug-command"];

fn facts() -> BTreeMap<&'static str, (&'static str, &'static str)> {
    let facts = include_str!("../../tests/facts/config-defaults-7.2.tsv");
    let rows = facts.lines().filter(|line| !line.starts_with('#'));
    rows.map(|line| {
        let mut columns = line.split('\t');
        let mut column = || columns.next().unwrap();
        (column(), (column(), column()))
    })
    .collect()
}

fn print(config: &Config, name: &str) -> String {
    let (row, _) = lookup(name.as_bytes()).unwrap();
    String::from_utf8(row.print(config)).unwrap()
}

fn load(args: &[&str], stdin: &str) -> Result<Loaded, ConfigError> {
    let args: Vec<Vec<u8>> = args.iter().map(|arg| arg.as_bytes().to_vec()).collect();
    Config::load(&args, &mut stdin.as_bytes())
}

fn config(args: &[&str]) -> Config {
    load(args, "").unwrap().config
}

/// The error for lines read from standard input.
fn refusal(lines: &str) -> String {
    load(&["-"], lines).unwrap_err().to_string()
}

fn reason(line: &str) -> String {
    let text = refusal(line);
    let head = format!(
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.2.6) ***\nReading the configuration file, at line 1\n>>> '{line}'\n"
    );
    text.strip_prefix(&head).expect(&text).trim_end_matches('\n').to_owned()
}

fn set(config: &mut Config, pairs: &[(&str, &str)]) -> Result<Change, String> {
    let pairs: Vec<(&[u8], &[u8])> = pairs.iter().map(|(a, b)| (a.as_bytes(), b.as_bytes())).collect();
    let context = SetContext { loading: false, protected_allowed: false };
    set_many(config, &pairs, context).map_err(|error| String::from_utf8(error.reply()).unwrap())
}

fn names() -> impl Iterator<Item = (&'static Row, &'static str)> {
    TABLE.iter().flat_map(|row| std::iter::once(&row.name).chain(row.aliases).map(move |name| (row, *name)))
}

#[test]
fn directives_and_defaults_are_those_of_7_2() {
    let config = Config::default();
    let facts = facts();
    for (name, (default, mutability)) in &facts {
        let (row, _) = lookup(name.as_bytes()).unwrap_or_else(|| panic!("{name} is missing"));
        if !SET_BY_THE_RECORDER.contains(name) {
            assert_eq!(print(&config, name), *default, "{name}");
        }
        assert_eq!(row.has(flag::IMMUTABLE), *mutability == "immutable", "{name}");
    }
    for (_, name) in names().filter(|(row, _)| !row.has(flag::HIDDEN)) {
        assert!(facts.contains_key(name), "{name} is not in 7.2");
    }
    assert_eq!(print(&config, "save"), "3600 1 300 100 60 10000");
    assert_eq!(print(&config, "enable-debug-command"), "no");
    assert_eq!(config.port, 6379);
}

#[test]
fn a_name_stands_for_one_directive() {
    let mut seen = std::collections::HashSet::new();
    for (_, name) in names() {
        assert!(seen.insert(name), "{name} twice");
        assert_eq!(name, name.to_ascii_lowercase());
    }
}

#[test]
fn every_printed_default_reads_back() {
    let defaults = Config::default();
    for row in TABLE.iter().filter(|row| !matches!(row.kind, Kind::Dir | Kind::ReplicaOf)) {
        let mut config = Config::default();
        let value = row.print(&defaults);
        let words: Vec<&[u8]> =
            if row.has(flag::MULTI_ARG) { value.split(|b| *b == b' ').collect() } else { vec![&value] };
        assert_eq!(row.set(&mut config, &words), Ok(false), "{}", row.name);
    }
}

#[test]
fn command_line_options_are_read_like_lines() {
    let config_of = config;
    let config = config_of(&[
        "--port",
        "7000",
        "--replicaof",
        "127.0.0.1",
        "6380",
        "--SAVE",
        "",
        "--maxmemory",
        "1GB",
        "--loglevel",
        "verbose",
        "--bind",
        "127.0.0.1 ::1",
        "--unixsocketperm",
        "755",
    ]);
    assert_eq!(config.port, 7000);
    assert_eq!(config.replicaof, Some(("127.0.0.1".into(), 6380)));
    assert!(config.save.is_empty());
    assert_eq!(config.maxmemory, 1 << 30);
    assert_eq!(config.loglevel, LogLevel::Verbose);
    assert_eq!(config.bind, ["127.0.0.1", "::1"]);
    assert_eq!(config.unixsocketperm, 0o755);
    // One argument with its value; a value that looks like an option; the empty list in its older spellings.
    assert_eq!(config_of(&["--port 7001"]).port, 7001);
    assert_eq!(config_of(&["--requirepass", "--secret"]).requirepass, b"--secret");
    let config = config_of(&["--save", "--port", "7002"]);
    assert!(config.save.is_empty() && config.port == 7002);
    assert!(config_of(&["--port", "7003", "--save"]).save.is_empty());
    let points = config_of(&["--save", "60", "5", "--save", "10 1"]).save;
    assert_eq!(points, [SavePoint { seconds: 60, changes: 5 }, SavePoint { seconds: 10, changes: 1 }]);
    let points = config_of(&["--save", "60", "5", "--save", ""]).save;
    assert!(points.is_empty());
    assert_eq!(config_of(&["--replicaof", "no", "one"]).replicaof, None);
    assert_eq!(
        config_of(&["--shutdown-on-sigterm", "nosave force", "--shutdown-on-sigint", "now"]).shutdown_on_sigterm,
        ShutdownOnSignal { nosave: true, force: true, ..Default::default() }
    );
    // The mode is chosen before the configuration is read.
    config_of(&["--sentinel"]);
    config_of(&["--sentinel", "--port", "7000"]);
}

#[test]
fn an_option_without_value_is_refused() {
    let error = load(&["--port", "--bind", "127.0.0.1"], "").unwrap_err().to_string();
    assert!(error.contains("at line 2\n>>> 'port \"--bind\" \"127.0.0.1\"'\nwrong number of arguments\n"), "{error}");
    let error = load(&["--port"], "").unwrap_err().to_string();
    assert!(error.contains("at line 2\n>>> 'port'\nwrong number of arguments\n"), "{error}");
    let error = load(&["--wrong", "1"], "").unwrap_err().to_string();
    assert!(error.ends_with(">>> 'wrong \"1\"'\nBad directive or wrong number of arguments\n"), "{error}");
}

#[test]
fn refused_lines_say_why() {
    for (line, expected) in [
        ("appendonly maybe", "argument must be 'yes' or 'no'"),
        ("activedefrag maybe", "argument must be 'yes' or 'no'"),
        ("cluster-announce-ip \"a b\"", "argument must be an address or a host name that is not too long"),
        ("port 65536", "argument must be between 0 and 65535 inclusive"),
        ("port -1", "argument must be between 0 and 65535 inclusive"),
        ("port 0x10", "argument couldn't be parsed into an integer"),
        ("port 1 2", "wrong number of arguments"),
        ("maxclients 0", "argument must be between 1 and 4294967295 inclusive"),
        ("maxmemory lots", "argument must be a memory value"),
        ("maxmemory -1", "argument must be a memory value"),
        ("maxmemory-clients 101%", "percentage argument must be less or equal to 100"),
        ("maxmemory-clients x", "argument must be a memory or percent value"),
        ("proto-max-bulk-len 1", "argument must be between 1048576 and 9223372036854775807 inclusive"),
        ("unixsocketperm 999", "argument couldn't be parsed as an octal number"),
        ("unixsocketperm 1777", "argument must be between 0 and 777 inclusive"),
        ("appendfsync never", "argument(s) must be one of the following: everysec, always, no"),
        ("oom-score-adj maybe", "argument(s) must be one of the following: no, yes, relative, absolute"),
        ("oom-score-adj-values 1 2", "wrong number of arguments"),
        ("oom-score-adj-values 1 2 2001", "Invalid oom-score-adj-values, elements must be between -2000 and 2000."),
        ("shutdown-on-sigterm save nosave", "shutdown options SAVE and NOSAVE can't be used simultaneously"),
        (
            "shutdown-on-sigint later",
            "argument(s) must be one of the following: default, save, nosave, now, force, failover",
        ),
        ("save 100", "Invalid save parameters"),
        ("save 0 1", "Invalid save parameters"),
        ("notify-keyspace-events Q", "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."),
        ("bind 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17", "Too many bind addresses specified."),
        ("replicaof localhost", "wrong number of arguments"),
        ("replicaof localhost 70000", "Invalid master port"),
        ("dbfilename a/b", "dbfilename can't be a path, just a filename"),
        ("appendfilename \"\"", "appendfilename can't be empty"),
        ("appenddirname a/b", "appenddirname can't be a path, just a dirname"),
        ("dir /nonexistent-directory", "No such file or directory"),
        ("client-output-buffer-limit master 0 0 0", "Invalid client class specified in buffer limit configuration."),
        ("client-output-buffer-limit normal 0", "Wrong number of arguments in buffer limit configuration."),
        (
            "client-output-buffer-limit normal 0 x 0",
            "Error in hard, soft or soft_seconds setting in buffer limit configuration.",
        ),
        ("latency-tracking-info-percentiles a", "Invalid latency-tracking-info-percentiles parameters"),
        (
            "latency-tracking-info-percentiles 101",
            "latency-tracking-info-percentiles parameters should sit between [0.0,100.0]",
        ),
        ("cluster-announce-hostname a_b", "Hostnames may only contain alphanumeric characters, hyphens or dots"),
        ("cluster-announce-human-nodename a$b", "Announced human node name contained invalid character"),
        ("proc-title-template \"  \"", "template format is invalid or contains unknown variables"),
        ("proc-title-template {title", "template format is invalid or contains unknown variables"),
        ("proc-title-template {oops}", "template format is invalid or contains unknown variables"),
        ("requirepass \"abc", "Unbalanced quotes in configuration line"),
        ("sentinel monitor a b 1 2", "sentinel directive while not in sentinel mode"),
        ("module.option", "Module config specified without value"),
        ("rename-command GET", "Bad directive or wrong number of arguments"),
        ("nonsense 1", "Bad directive or wrong number of arguments"),
    ] {
        assert_eq!(reason(line), expected, "{line}");
    }
}

#[test]
fn values_that_exclude_each_other_are_refused() {
    assert_eq!(
        refusal("cluster-enabled yes\nreplicaof localhost 1\n"),
        "\n*** FATAL CONFIG FILE ERROR (Redis 7.2.6) ***\nreplicaof directive not allowed in cluster mode\n"
    );
    let error = refusal("logfile /nonexistent-directory/log\n");
    assert!(error.ends_with("***\nCan't open the log file: No such file or directory\n"), "{error}");
}

#[test]
fn a_cluster_node_has_one_database_and_hz_a_range() {
    let loaded = load(&["-"], "cluster-enabled yes\nhz 0\n").unwrap();
    assert_eq!((loaded.config.databases, loaded.config.hz), (1, 1));
    assert_eq!(loaded.notices.len(), 2);
    assert_eq!(config(&["--hz", "1000"]).hz, 500);
}

#[test]
fn lines_other_rooms_understand_are_kept_with_their_place() {
    let loaded = load(&["-"], "# comment\n\n  rename-command CONFIG \"\"\nuser alice on nopass ~* &* +@all\n").unwrap();
    let rename = &loaded.config.rename_command[0];
    assert_eq!((rename.number, rename.words.len()), (3, 2));
    assert!(
        ConfigError::at(rename, "No such command in rename-command")
            .to_string()
            .ends_with("at line 3\n>>> 'rename-command CONFIG \"\"'\nNo such command in rename-command\n")
    );
    assert_eq!(loaded.config.user[0].words[0], b"alice");
}

#[test]
fn old_spellings_and_units_are_read() {
    let text = "slave-priority 5\nLIST-MAX-ZIPLIST-SIZE -3\nlua-replicate-commands yes\nlist-max-ziplist-value 64\n\
                lua-time-limit 7\nclient-output-buffer-limit slave 1k 1kb 2 pubsub 1m 1MB 3\noom-score-adj yes\n";
    let config = load(&["-"], text).unwrap().config;
    assert_eq!(config.replica_priority, 5);
    assert_eq!(config.list_max_listpack_size, -3);
    assert_eq!(config.busy_reply_threshold, 7);
    assert_eq!(print(&config, "client-output-buffer-limit"), "normal 0 0 0 slave 1000 1024 2 pubsub 1000000 1048576 3");
    assert_eq!(print(&config, "oom-score-adj"), "yes");
    for (text, bytes) in [("1b", 1), ("1g", 1_000_000_000), ("2Gb", 2 << 30), ("", 0), ("k", 0)] {
        assert_eq!(parse_memory(text.as_bytes()), Some(bytes), "{text}");
    }
}

#[test]
fn files_include_files_and_patterns() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    std::fs::create_dir(path("conf.d")).unwrap();
    std::fs::write(path("conf.d/10-a.conf"), "port 7010\nmaxmemory 1mb").unwrap();
    std::fs::write(path("conf.d/20-b.conf"), "\nport 7020\n").unwrap();
    std::fs::write(path("conf.d/.hidden.conf"), "port 7030\n").unwrap();
    let main = format!("timeout 5\ninclude {}\ninclude {}\n", path("conf.d/[0-9]*.conf"), path("none/*.conf"));
    std::fs::write(path("main.conf"), main).unwrap();
    let loaded = config(&[&path("main.conf"), "--timeout", "6"]);
    assert_eq!((loaded.port, loaded.maxmemory, loaded.timeout), (7020, 1 << 20, 6));
    assert_eq!(loaded.config_file, Some(path("main.conf").into()));

    std::fs::write(path("loop.conf"), format!("include {}\n", path("loop.conf"))).unwrap();
    let error = load(&[&path("loop.conf")], "").unwrap_err().to_string();
    assert!(error.ends_with("include directives are nested too deep\n"), "{error}");
    let error = load(&[&path("none.conf")], "").unwrap_err().to_string();
    assert_eq!(
        error,
        format!("Fatal error, can't open config file '{}': No such file or directory", path("none.conf"))
    );
}

#[test]
fn set_changes_all_or_nothing() {
    let mut config = Config::default();
    let change = set(&mut config, &[("maxmemory", "10mb"), ("Save", "10 1 20 2"), ("port", "7000")]).unwrap();
    assert_eq!(change.apply, [(Apply::Maxmemory, "maxmemory"), (Apply::Port, "port")]);
    assert_eq!((config.maxmemory, config.save.len(), config.port), (10 << 20, 2, 7000));
    assert_eq!(change.roll_back(&mut config), [Apply::Maxmemory, Apply::Port]);
    assert_eq!(config, Config::default());
    let error = set(&mut config, &[("maxmemory", "10mb"), ("hz", "x")]).unwrap_err();
    assert_eq!(
        error,
        "ERR CONFIG SET failed (possibly related to argument 'hz') - argument couldn't be parsed into an integer"
    );
    assert_eq!(config, Config::default());
    // Unchanged values are not applied, unless they name something outside.
    assert_eq!(set(&mut config, &[("hz", "10"), ("timeout", "7")]).unwrap().apply, []);
    let change = set(&mut config, &[("bind", "* -::*"), ("save", "")]).unwrap();
    assert_eq!(change.apply, [(Apply::Bind, "bind")]);
    let change = set(&mut config, &[("cluster-announce-port", "1"), ("cluster-announce-bus-port", "2")]);
    assert_eq!(change.unwrap().apply.len(), 1);
}

#[test]
fn set_refusals_are_worded_like_redis() {
    let mut config = Config::default();
    for (pairs, expected) in [
        (&[("none", "1")][..], "ERR Unknown option or number of arguments for CONFIG SET - 'none'"),
        (
            &[("daemonize", "yes")],
            "ERR CONFIG SET failed (possibly related to argument 'daemonize') - can't set immutable config",
        ),
        (
            &[("dbfilename", "x")],
            "ERR CONFIG SET failed (possibly related to argument 'dbfilename') - can't set protected config",
        ),
        (
            &[("timeout", "1"), ("TIMEOUT", "2")],
            "ERR CONFIG SET failed (possibly related to argument 'TIMEOUT') - duplicate parameter",
        ),
        (&[("save", "1")], "ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters"),
    ] {
        assert_eq!(set(&mut config, pairs).unwrap_err(), expected);
    }
    let context = SetContext { loading: true, protected_allowed: true };
    let error = set_many(&mut config, &[(b"appendonly", b"yes")], context).unwrap_err();
    assert_eq!(error.reply(), b"LOADING Redis is loading the dataset in memory");
    assert!(set_many(&mut config, &[(b"dbfilename", b"x.rdb")], context).is_ok());
    assert!(is_sensitive(b"RequirePass") && !is_sensitive(b"port"));
}

#[test]
fn get_answers_each_name_once() {
    let config = Config::default();
    // Enough of a glob for this test.
    let matches = |pattern: &[u8], name: &[u8]| match pattern {
        [prefix @ .., b'*'] => name.starts_with(&prefix.to_ascii_lowercase()),
        _ => false,
    };
    let get = |patterns: &[&str]| -> Vec<(String, String)> {
        let patterns: Vec<&[u8]> = patterns.iter().map(|p| p.as_bytes()).collect();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        get(&config, &patterns, matches).into_iter().map(|(a, b)| (text(a), text(b))).collect()
    };
    assert_eq!(get(&["MaxMemory", "maxmemory"]), [("MaxMemory".into(), "0".into())]);
    assert_eq!(get(&["slave-prio*", "replica-prio*"]).len(), 2);
    assert_eq!(get(&["none"]), []);
    assert_eq!(get(&["use-exit*"]), []);
    assert_eq!(get(&["use-exit-on-panic"]).len(), 1);
    assert_eq!(get(&["*"]).len(), facts().len());
}

#[test]
fn event_classes_print_in_their_order() {
    let mut config = Config::default();
    for (given, printed) in
        [("KEA", "AKE"), ("Kgxe$lshzt", "g$lshzxetK"), ("KEg$lshzxetdmn", "AKEm"), ("", ""), ("nE", "nE")]
    {
        set(&mut config, &[("notify-keyspace-events", given)]).unwrap();
        assert_eq!(print(&config, "notify-keyspace-events"), printed);
    }
}

fn rewritten(old: &str, config: &Config) -> String {
    String::from_utf8(rewrite(old.as_bytes(), config, &[])).unwrap()
}

/// What every rewritten file ends with, as these are always written.
const ALWAYS: &str = "latency-tracking-info-percentiles 50 99 99.9\n";

#[test]
fn rewrite_keeps_comments_and_order() {
    let old = "# mine\nslave-priority 7\n\n\n\ninclude other.conf\nport 6379\nsave 900 1\nsave 300 10\nbind * -::*\n\
               requirepass old\nrename-command A b\nold-module-thing 1\n";
    let mut config = load(&["-"], "port 7000\nreplica-priority 8\nsave 60 1\nlogfile \"\"\n").unwrap().config;
    config.dir.clear();
    let new = rewritten(old, &config);
    let expected = "# mine\nreplica-priority 8\n\ninclude other.conf\nport 7000\nsave 60 1\n\nrename-command A b\n\
                    # ??? old-module-thing 1\n\n# Generated by CONFIG REWRITE\n";
    assert_eq!(new, format!("{expected}{ALWAYS}"));
    assert_eq!(rewritten(&new, &config), new);
}

#[test]
fn rewrite_writes_special_directives() {
    let text = "maxmemory 3gb\nmaxmemory-clients 5%\nclient-output-buffer-limit pubsub 2gb 3kb 7\nsave \"\"\nbind \"\"\n\
                notify-keyspace-events KEA\nrequirepass \"a b\\x00\"\nunixsocketperm 700\nreplicaof localhost 6380\n\
                shutdown-on-sigterm now force\noom-score-adj-values 1 2 3\nlatency-tracking-info-percentiles \"\"\n";
    let mut config = load(&["-"], text).unwrap().config;
    config.dir.clear();
    let new = rewritten("", &config);
    for line in text.lines() {
        assert!(new.lines().any(|other| other == line.replace("events KEA", "events \"AKE\"")), "{line} in {new}");
    }
    let users = [b"default on nopass sanitize-payload ~* &* +@all".to_vec()];
    let new = rewrite(b"user old on\nuser older on\n", &config, &users);
    assert!(String::from_utf8_lossy(&new).starts_with("user default on nopass"), "{new:?}");
    config.aclfile = "users.acl".into();
    let new = rewrite(b"user old on\n", &config, &users);
    assert!(!String::from_utf8_lossy(&new).contains("user "));
}

proptest! {
    #[test]
    fn rewriting_a_rewritten_file_changes_nothing(
        old in proptest::collection::vec(
            prop_oneof![
                Just("port 1"), Just("port 2"), Just(""), Just("# c"), Just("save 1 1"), Just("user a"), Just("\"bad"),
                Just("unknown x"), Just("slaveof a 1"), Just("include x"), Just("client-output-buffer-limit normal 1 1 1"),
                Just("# Generated by CONFIG REWRITE"), Just("requirepass x"), Just("bind 127.0.0.1"),
            ],
            0..12,
        ),
        ends_with_newline: bool,
        port: u16,
        password in "[ -~]{0,8}",
        points in proptest::collection::vec((1..9i64, 0..9i64), 0..3),
        timeout in 0..3i64,
    ) {
        let mut config = Config { port, timeout, requirepass: password.into_bytes(), ..Config::default() };
        config.save = points.into_iter().map(|(seconds, changes)| SavePoint { seconds, changes }).collect();
        let mut old = old.join("\n");
        if ends_with_newline {
            old.push('\n');
        }
        let once = rewritten(&old, &config);
        prop_assert_eq!(&rewritten(&once, &config), &once);
        let lines: String = once.lines().filter(|line| !line.starts_with("include")).map(|line| format!("{line}\n")).collect();
        let mut again = load(&["-"], &lines).unwrap().config;
        again.dir.clear();
        again.user.clear();
        prop_assert_eq!(again, config);
    }

    #[test]
    fn any_file_is_read_or_refused(content: Vec<u8>, name in "[a-z-]{1,30}", value in ".{0,12}") {
        let _ = Config::load(&[b"-".to_vec()], &mut content.as_slice());
        let mut config = Config::default();
        let pairs = [(name.as_bytes(), value.as_bytes())];
        let _ = set_many(&mut config, &pairs, SetContext { loading: false, protected_allowed: true });
        for row in TABLE {
            let words: Vec<&[u8]> = value.as_bytes().split(|b| *b == b' ').collect();
            if row.set(&mut config, &words).is_ok() {
                let printed = row.print(&config);
                let words: Vec<&[u8]> = if row.has(flag::MULTI_ARG) {
                    printed.split(|b| *b == b' ').collect()
                } else {
                    vec![&printed]
                };
                if row.kind != Kind::ReplicaOf {
                    prop_assert_eq!(row.set(&mut config, &words), Ok(false));
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn texts_survive_a_rewrite(values in proptest::collection::vec(
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..8),
            "[a\"'\\\\ \n\t#]{0,8}".prop_map(String::into_bytes),
            Just(b"a.b-c".to_vec()),
        ],
        40,
    )) {
        let mut config = Config::default();
        let is_text = |row: &&Row| matches!(row.kind, Kind::Text(_)) && row.name != "logfile";
        for (row, value) in TABLE.iter().filter(is_text).zip(values.iter().cycle()) {
            let _ = row.set(&mut config, &[value]);
        }
        let text = rewrite(b"", &config, &[]);
        let mut again = Config::load(&[b"-".to_vec()], &mut text.as_slice()).map_err(|e| TestCaseError::fail(e.to_string()))?.config;
        again.dir.clear();
        prop_assert_eq!(again, config);
    }
}

#[test]
fn what_nodes_announce_can_be_written_down() {
    let mut config = Config::default();
    let mut is_taken = |name: &str, value: &[u8]| {
        let context = SetContext { loading: false, protected_allowed: false };
        set_many(&mut config, &[(name.as_bytes(), value)], context).is_ok()
    };
    let longest = "h".repeat(255);
    for (name, value, taken) in [
        ("cluster-announce-ip", "10.0.0.1", true),
        ("cluster-announce-ip", "fe80::1%eth0", true),
        ("cluster-announce-ip", "node-1.example", true),
        ("cluster-announce-ip", "", true),
        ("cluster-announce-ip", &longest[..45], true),
        ("cluster-announce-ip", &longest[..46], false),
        ("cluster-announce-hostname", &longest, true),
        ("cluster-announce-human-nodename", &longest, true),
        ("cluster-announce-human-nodename", "node_1/a", true),
        ("replica-announce-ip", &longest, true),
    ] {
        assert_eq!(is_taken(name, value.as_bytes()), taken, "{name} {value}");
    }
    let too_long = "h".repeat(256);
    for name in
        ["cluster-announce-ip", "cluster-announce-hostname", "cluster-announce-human-nodename", "replica-announce-ip"]
    {
        for value in ["1.1.1.1\n", "\0", "a b", "a,b", "a=b", "a@b", "\"", "é", &too_long] {
            assert!(!is_taken(name, value.as_bytes()), "{name} {value:?}");
        }
    }
}

#[test]
fn what_cannot_be_turned_on_here_may_stand_in_a_file() {
    let loaded = load(&["-"], "activedefrag yes").unwrap().config;
    assert!(loaded.activedefrag && lookup(b"activedefrag").unwrap().0.is_idle(&loaded));
    let refused = set(&mut Config::default(), &[("activedefrag", "yes")]).unwrap_err();
    assert!(refused.contains("Active defragmentation cannot be enabled"), "{refused}");
}

#[test]
fn numbers_come_in_any_form_of_the_c_library() {
    let percentiles = |words: &str| {
        let loaded = load(&["-"], &format!("latency-tracking-info-percentiles {words}"));
        loaded.map(|loaded| print(&loaded.config, "latency-tracking-info-percentiles")).map_err(|_| ())
    };
    assert_eq!(percentiles("0x10 1e1 .5 50. +7 -0 99.999999").unwrap(), "16 10 0.5 50 7 -0 99.999999");
    assert_eq!(percentiles("\"50 99\"").unwrap(), "50 99");
    assert_eq!(percentiles("\"\"").unwrap(), "");
    for wrong in ["nan", "100.1", "-1", "inf", "\" 50x\"", "1e400"] {
        assert!(percentiles(wrong).is_err(), "{wrong}");
    }
    assert_eq!(print(&config(&["--repl-backlog-size", "1"]), "repl-backlog-size"), "16384");
}

#[test]
fn a_file_is_replaced_in_one_step() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("redis.conf");
    overwrite(&path, b"port 1\n").unwrap();
    overwrite(&path, b"port 2\n").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"port 2\n");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert!(overwrite(&dir.path().join("none/redis.conf"), b"").is_err());
}

#[test]
fn a_directive_of_our_own_that_is_gone_still_loads() {
    let idle = |text: &str| {
        let config = load(&["-"], text).unwrap().config;
        TABLE.iter().filter(|row| row.is_idle(&config)).map(|row| row.name).collect::<Vec<_>>()
    };
    assert_eq!(idle("loop-coalesce-usec 150"), ["loop-coalesce-usec"]);
    assert!(idle("loop-coalesce-usec 0").is_empty());
}

#[test]
fn the_shipped_file_says_the_truth() {
    let text = include_str!("../../conf/redis.conf");
    let shipped = load(&["-"], text).unwrap().config;
    // Lines in use: where the file differs from the defaults.
    let differing: Vec<&str> =
        TABLE.iter().filter(|row| !row.same(&shipped, &Config::default())).map(|row| row.name).collect();
    let mut expected = ["bind", "enable-debug-command", "dir"];
    let mut differing = differing;
    differing.sort();
    expected.sort();
    assert_eq!(differing, expected);
    // Lines commented out: they show the default.
    let shown: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .collect();
    assert!(shown.len() > 130);
    let mut again = load(&["-"], &shown.join("\n")).unwrap().config;
    again.dir.clear();
    assert_eq!(again, Config::default());
    // Nothing a user may want to know is missing.
    let words: std::collections::HashSet<&str> = text.split(|c: char| c.is_whitespace() || c == '#').collect();
    for row in TABLE.iter().filter(|row| !row.has(flag::HIDDEN)) {
        assert!(words.contains(row.name), "{} is not in conf/redis.conf", row.name);
    }
}

#[test]
fn titles_are_made_from_templates() {
    let expand = |template: &str| {
        let title = expand_title(template, |variable| (variable == "title").then(|| String::from("redis")));
        title.map(|title| title.trim().to_owned())
    };
    assert_eq!(expand("a {title} b").as_deref(), Some("a redis b"));
    assert_eq!(expand("{{title} {title}").as_deref(), Some("{title} redis"));
    assert_eq!(expand("{port}"), None);
    assert_eq!(expand("{title"), None);
}

#[test]
fn a_file_with_every_directive_reads_back() {
    let mut config = Config::default();
    let all = rewrite_all(b"", &config, &[b"default on".to_vec()]);
    let text = String::from_utf8(all).unwrap();
    let count = text.lines().filter(|line| !line.starts_with('#')).count();
    assert!(count > 150, "{count}");
    let mut again = load(&["-"], &text).unwrap().config;
    again.dir.clear();
    config.user = again.user.clone();
    assert_eq!(again, config);
}
