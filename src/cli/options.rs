//! The command line of redis-cli: one row a flag, from which both the parser and `--help` work.
//!
//! The syntax is redis-cli's own and not getopt's: single-dash names of any length, the first
//! word that is no flag starts the command, and everything after it belongs to the command.

use std::time::Duration;

use super::cluster::ClusterOptions;
use super::format::{Delimiters, OutputMode};
use super::modes::debugger;
use super::quote::unquote;
use super::uri;
use crate::net::tls::ToolOptions;

/// The protocol to ask the server for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// RESP2, as a fresh connection speaks it.
    Default,
    /// RESP2, even with options that imply RESP3 (`-2`).
    Resp2,
    /// RESP3 or fail (`-3`).
    Resp3,
    /// RESP3 if the server supports it (`--json`).
    Resp3IfKnown,
}

/// What to do instead of running a command or prompting for them, by the option that asks for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Mode {
    Latency,
    LatencyHistory,
    LatencyDist,
    /// Number of keys.
    LruTest(u64),
    /// Seconds to run.
    IntrinsicLatency(u64),
    Replica,
    /// Where to write the file.
    Rdb(Vec<u8>),
    /// Where to write the file.
    FunctionsRdb(Vec<u8>),
    Pipe,
    BigKeys,
    /// The samples for MEMORY USAGE where given.
    MemKeys(Option<u64>),
    HotKeys,
    Stat,
    Scan,
}

/// Everything the command line says. Defaults are those of redis-cli 7.2.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Host name or address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Unix socket path, instead of host and port.
    pub(crate) socket: Option<Vec<u8>>,
    /// How long connecting may take; `None` leaves it to the system.
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) is_tls: bool,
    /// How connections under TLS are made.
    pub(crate) tls_options: ToolOptions,
    pub(crate) auth: Option<Vec<u8>>,
    /// ACL user.
    pub(crate) user: Option<Vec<u8>>,
    /// Ask for the password.
    pub(crate) askpass: bool,
    /// Database to select.
    pub(crate) db: i64,
    /// Times to run the command; negative for ever.
    pub(crate) repeat: i64,
    /// Pause between runs, in microseconds.
    pub(crate) interval_us: u64,
    pub(crate) protocol: Protocol,
    /// Read the last argument from standard input.
    pub(crate) stdin_last: bool,
    /// Replace this argument by standard input.
    pub(crate) stdin_tag: Option<Vec<u8>>,
    /// Output layout; `None` chooses by whether standard output is a terminal.
    pub(crate) output: Option<OutputMode>,
    /// Separators of raw output.
    pub(crate) delimiters: Delimiters,
    /// Follow redirections of a cluster.
    pub(crate) follow: bool,
    /// Exit with an error code when a command fails.
    pub(crate) fail_on_error: bool,
    /// Arguments are quoted strings.
    pub(crate) quoted_input: bool,
    /// Do not warn about passwords in the process list.
    pub(crate) no_auth_warning: bool,
    pub(crate) verbose: bool,
    /// Print RESP3 push messages.
    pub(crate) show_pushes: Option<bool>,
    pub(crate) mode: Option<Mode>,
    /// Pattern for `--scan`, `--bigkeys` and the like.
    pub(crate) pattern: Option<Vec<u8>>,
    /// COUNT for `--scan`, `--bigkeys` and the like.
    pub(crate) count: i64,
    /// Seconds to wait for the last reply in `--pipe` mode; 0 for ever.
    pub(crate) pipe_timeout_s: u64,
    /// Lua file to run.
    pub(crate) eval: Option<Vec<u8>>,
    /// Debug that file.
    pub(crate) debugger: Option<debugger::Kind>,
    /// A file of hints to check, or one input to show the hint of.
    pub(crate) hint_test: Option<HintTest>,
    /// Subcommand of `--cluster` with its arguments.
    pub(crate) cluster: Option<Vec<Vec<u8>>>,
    /// Options of the cluster manager.
    pub(crate) cluster_options: ClusterOptions,
}

/// `--test_hint` and `--test_hint_file`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HintTest {
    /// Show the hint for this input.
    Input(Vec<u8>),
    /// Check inputs and hints listed in this file.
    File(Vec<u8>),
}

impl Default for Options {
    fn default() -> Self {
        Options {
            host: "127.0.0.1".into(),
            port: 6379,
            socket: None,
            connect_timeout: None,
            is_tls: false,
            tls_options: ToolOptions::default(),
            auth: None,
            user: None,
            askpass: false,
            db: 0,
            repeat: 1,
            interval_us: 0,
            protocol: Protocol::Default,
            stdin_last: false,
            stdin_tag: None,
            output: None,
            delimiters: Delimiters::default(),
            follow: false,
            fail_on_error: false,
            quoted_input: false,
            no_auth_warning: false,
            verbose: false,
            show_pushes: None,
            mode: None,
            pattern: None,
            count: 10,
            pipe_timeout_s: 30,
            eval: None,
            debugger: None,
            hint_test: None,
            cluster: None,
            cluster_options: ClusterOptions::default(),
        }
    }
}

impl Options {
    /// What connections under TLS are made with, if they are to be.
    pub(crate) fn tls(&self) -> Option<&ToolOptions> {
        self.is_tls.then_some(&self.tls_options)
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// Run with these options and this command.
    Run(Box<Options>, Vec<Vec<u8>>),
    /// Print the help and exit with this code.
    Help(i32),
    /// Print the version.
    Version,
    /// Complain (a whole line) and exit with 1.
    Fail(String),
}

type Apply = fn(&mut Options, Vec<u8>) -> Result<(), String>;

struct Flag {
    names: &'static [&'static str],
    /// Placeholder of its value in the help; empty for a switch.
    value: &'static str,
    /// Help lines; empty for a flag that `--help` does not show.
    help: &'static str,
    apply: Apply,
}

const fn flag(names: &'static [&'static str], value: &'static str, help: &'static str, apply: Apply) -> Flag {
    Flag { names, value, help, apply }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The leading integer of a text as C's `atoi` reads it; 0 if there is none.
pub(crate) fn leading_int(bytes: &[u8]) -> i64 {
    let text = text(bytes);
    let text = text.trim_start();
    let end = text
        .char_indices()
        .find(|(i, c)| !(c.is_ascii_digit() || (*i == 0 && (*c == '-' || *c == '+'))))
        .map_or(text.len(), |(i, _)| i);
    text[..end].parse().unwrap_or(0)
}

fn float(bytes: &[u8]) -> f64 {
    text(bytes).trim().parse().unwrap_or(0.0)
}

fn timeout(bytes: &[u8]) -> Result<Option<Duration>, String> {
    let seconds = text(bytes).trim().parse::<f64>().ok();
    match seconds.and_then(|s| Duration::try_from_secs_f64(s).ok()) {
        Some(timeout) => Ok((!timeout.is_zero()).then_some(timeout)),
        None => Err("Invalid connection timeout for -t.".into()),
    }
}

fn port(bytes: &[u8]) -> Result<u16, String> {
    u16::try_from(leading_int(bytes)).map_err(|_| "Invalid server port.".to_string())
}

fn unsigned(bytes: &[u8]) -> u64 {
    u64::try_from(leading_int(bytes)).unwrap_or(0)
}

macro_rules! set {
    (|$o:ident| $body:expr) => {
        |$o: &mut Options, _: Vec<u8>| {
            $body;
            Ok(())
        }
    };
    (|$o:ident, $v:ident| $body:expr) => {
        |$o: &mut Options, $v: Vec<u8>| {
            $body;
            Ok(())
        }
    };
}

fn wants_json(o: &mut Options, output: OutputMode) {
    if o.protocol == Protocol::Default {
        o.protocol = Protocol::Resp3IfKnown;
    }
    o.output = Some(output);
}

fn wants_resp3(o: &mut Options) -> Result<(), String> {
    if o.protocol == Protocol::Resp2 {
        return Err("Options -2 and -3 are mutually exclusive.".into());
    }
    o.protocol = Protocol::Resp3;
    Ok(())
}

fn wants_resp2(o: &mut Options) -> Result<(), String> {
    if o.protocol == Protocol::Resp3 {
        return Err("Options -2 and -3 are mutually exclusive.".into());
    }
    o.protocol = Protocol::Resp2;
    Ok(())
}

fn rdb_mode(o: &mut Options, mode: Mode) -> Result<(), String> {
    if matches!(o.mode, Some(Mode::Rdb(_) | Mode::FunctionsRdb(_))) {
        return Err("Option --functions-rdb and --rdb are mutually exclusive.".into());
    }
    o.mode = Some(mode);
    Ok(())
}

fn show_pushes(o: &mut Options, value: Vec<u8>) -> Result<(), String> {
    match value.first().map(u8::to_ascii_lowercase) {
        Some(b'y') => o.show_pushes = Some(true),
        Some(b'n') => o.show_pushes = Some(false),
        _ => super::term::complain!("Unknown --show-pushes value '{}' (valid: '[y]es', '[n]o')\n", text(&value)),
    }
    Ok(())
}

#[rustfmt::skip]
static FLAGS: &[Flag] = &[
    flag(&["-h"], "<hostname>", "Host to connect to (127.0.0.1).",
        set!(|o, v| o.host = text(&v))),
    flag(&["-p"], "<port>", "Port to connect to (6379).",
        |o, v| { o.port = port(&v)?; Ok(()) }),
    flag(&["-s"], "<socket>", "Connect to this Unix socket, not to host and port.",
        set!(|o, v| o.socket = Some(v))),
    flag(&["-t"], "<timeout>", "Seconds a connection may take to be made, decimals allowed (0: as long as\nthe system lets it).",
        |o, v| { o.connect_timeout = timeout(&v)?; Ok(()) }),
    flag(&["-a", "--pass"], "<password>", "Log in with this password. Other users of the machine may see it in the\nprocess list; the environment variable REDISCLI_AUTH keeps it from them.",
        set!(|o, v| o.auth = Some(v))),
    flag(&["--user"], "<username>", "Log in as this ACL user (goes with -a).",
        set!(|o, v| o.user = Some(v))),
    flag(&["--askpass"], "", "Ask for the password; -a and REDISCLI_AUTH are ignored.",
        set!(|o| o.askpass = true)),
    flag(&["-u"], "<uri>", "Connect to redis://[[user:]password@]host[:port][/db], or rediss:// for TLS.",
        |o, v| uri::apply(o, &v)),
    flag(&["-r"], "<repeat>", "Run the command this many times, -1 for ever.",
        set!(|o, v| o.repeat = leading_int(&v))),
    flag(&["-i"], "<interval>", "Pause between runs of -r, --scan and --stat, in seconds (0.1 is fine).",
        set!(|o, v| o.interval_us = (float(&v).max(0.0) * 1e6) as u64)),
    flag(&["-n"], "<db>", "Database number.",
        set!(|o, v| o.db = leading_int(&v))),
    flag(&["-2"], "", "Speak RESP2.",
        |o, _| wants_resp2(o)),
    flag(&["-3"], "", "Speak RESP3.",
        |o, _| wants_resp3(o)),
    flag(&["-x"], "", "Take the last argument from standard input.",
        set!(|o| o.stdin_last = true)),
    flag(&["-X"], "<tag>", "Put standard input in place of the argument that reads <tag>.",
        set!(|o, v| o.stdin_tag = Some(v))),
    flag(&["-d"], "<delimiter>", "What parts the elements of a reply in raw output (\\n).",
        set!(|o, v| o.delimiters.element = v)),
    flag(&["-D"], "<delimiter>", "What ends every reply in raw output (\\n).",
        set!(|o, v| o.delimiters.reply = v)),
    flag(&["-c"], "", "Follow the redirections of a cluster (-MOVED and -ASK).",
        set!(|o| o.follow = true)),
    flag(&["-e"], "", "Exit with an error code when the command fails.",
        set!(|o| o.fail_on_error = true)),
    flag(&["--raw"], "", "Print replies as they are (the default when output is not a terminal).",
        set!(|o| o.output = Some(OutputMode::Raw))),
    flag(&["--no-raw"], "", "Print replies for people even when output is not a terminal.",
        set!(|o| o.output = Some(OutputMode::Standard))),
    flag(&["--quoted-input"], "", "Arguments are quoted strings with escapes.",
        set!(|o| o.quoted_input = true)),
    flag(&["--csv"], "", "Print replies as CSV.",
        set!(|o| o.output = Some(OutputMode::Csv))),
    flag(&["--json"], "", "Print replies as JSON (over RESP3 where possible, or with -2 RESP2).",
        set!(|o| wants_json(o, OutputMode::Json))),
    flag(&["--quoted-json"], "", "The same, in ASCII only.",
        set!(|o| wants_json(o, OutputMode::QuotedJson))),
    flag(&["--show-pushes"], "<yn>", "Print RESP3 push messages or not (yes on a terminal).",
        show_pushes),
    flag(&["--stat"], "", "Print a line of server statistics every second.",
        set!(|o| o.mode = Some(Mode::Stat))),
    flag(&["--latency"], "", "Sample the time of a PING. Prints one line for a second of samples\n(see -i) when output is not a terminal, with --raw or with --csv.",
        set!(|o| if o.mode != Some(Mode::LatencyHistory) { o.mode = Some(Mode::Latency) })),
    flag(&["--latency-history"], "", "The same, with a new line every 15 seconds (see -i).",
        set!(|o| o.mode = Some(Mode::LatencyHistory))),
    flag(&["--latency-dist"], "", "The same, as a spectrum of 256 colours every second (see -i).",
        set!(|o| o.mode = Some(Mode::LatencyDist))),
    flag(&["--lru-test"], "<keys>", "Simulate a cache workload where 20% of the keys get 80% of the requests.",
        set!(|o, v| o.mode = Some(Mode::LruTest(unsigned(&v))))),
    flag(&["--replica", "--slave"], "", "Act as a replica and print the commands the master sends.",
        set!(|o| o.mode = Some(Mode::Replica))),
    flag(&["--rdb"], "<filename>", "Fetch a snapshot from the server into a file, or - for standard output.",
        |o, v| rdb_mode(o, Mode::Rdb(v))),
    flag(&["--functions-rdb"], "<filename>", "The same with the functions only.",
        |o, v| rdb_mode(o, Mode::FunctionsRdb(v))),
    flag(&["--pipe"], "", "Send standard input, which is raw protocol, to the server.",
        set!(|o| o.mode = Some(Mode::Pipe))),
    flag(&["--pipe-timeout"], "<n>", "Seconds --pipe waits for the last replies (30; 0 for ever).",
        set!(|o, v| o.pipe_timeout_s = unsigned(&v))),
    flag(&["--bigkeys"], "", "Look for keys with many elements.",
        set!(|o| o.mode = Some(Mode::BigKeys))),
    flag(&["--memkeys"], "", "Look for keys that take much memory.",
        set!(|o| o.mode = Some(Mode::MemKeys(None)))),
    flag(&["--memkeys-samples"], "<n>", "The same, with this many elements sampled in each key.",
        set!(|o, v| o.mode = Some(Mode::MemKeys(Some(unsigned(&v)))))),
    flag(&["--hotkeys"], "", "Look for keys in frequent use; needs an LFU maxmemory-policy.",
        set!(|o| o.mode = Some(Mode::HotKeys))),
    flag(&["--scan"], "", "List all keys by SCAN.",
        set!(|o| o.mode = Some(Mode::Scan))),
    flag(&["--pattern"], "<pat>", "Keys that --scan, --bigkeys and the like look at (*).",
        set!(|o, v| o.pattern = Some(v))),
    flag(&["--count"], "<count>", "COUNT of their SCAN calls (10).",
        set!(|o, v| o.count = leading_int(&v))),
    flag(&["--quoted-pattern"], "<pat>", "Like --pattern, given as a quoted string with escapes.",
        |o, v| match unquote(&v) {
            Some(pattern) => { o.pattern = Some(pattern); Ok(()) }
            None => Err("Invalid quoted string specified for --quoted-pattern.".into()),
        }),
    flag(&["--intrinsic-latency"], "<sec>", "Measure for so many seconds what latency this machine itself adds.",
        set!(|o, v| o.mode = Some(Mode::IntrinsicLatency(unsigned(&v))))),
    flag(&["--eval"], "<file>", "Run the Lua script in a file; a comma parts its keys from its arguments.",
        set!(|o, v| o.eval = Some(v))),
    flag(&["--ldb"], "", "Step through that script with the server's debugger. It runs in a copy of\nthe server, so that what it changes is lost.",
        set!(|o| o.debugger = o.debugger.or(Some(debugger::Kind::Forked)))),
    flag(&["--ldb-sync-mode"], "", "The same in the server itself, which serves nobody else meanwhile.",
        set!(|o| o.debugger = Some(debugger::Kind::Sync))),
    flag(&["--tls"], "", "Connect under TLS.",
        set!(|o| o.is_tls = true)),
    flag(&["--sni"], "<host>", "Name to tell the server that it is asked for by.",
        set!(|o, v| o.tls_options.sni = Some(text(&v)))),
    flag(&["--cacert"], "<file>", "Trust the authorities in this file (PEM).",
        set!(|o, v| o.tls_options.ca_file = Some(text(&v)))),
    flag(&["--cacertdir"], "<dir>", "Trust the authorities in the files of this directory. Without either, those\nthat the system trusts.",
        set!(|o, v| o.tls_options.ca_dir = Some(text(&v)))),
    flag(&["--insecure"], "", "Trust any server.",
        set!(|o| o.tls_options.insecure = true)),
    flag(&["--cert"], "<file>", "Certificate to show the server (PEM).",
        set!(|o, v| o.tls_options.cert = Some(text(&v)))),
    flag(&["--key"], "<file>", "Its private key (PEM).",
        set!(|o, v| o.tls_options.key = Some(text(&v)))),
    flag(&["--tls-ciphers"], "<list>", "Cipher suites of TLS 1.2, by OpenSSL's names, in order of preference.",
        set!(|o, v| o.tls_options.ciphers = text(&v))),
    flag(&["--tls-ciphersuites"], "<list>", "Cipher suites of TLS 1.3.",
        set!(|o, v| o.tls_options.ciphersuites = text(&v))),
    flag(&["--verbose"], "", "Say more.",
        set!(|o| o.verbose = true)),
    flag(&["--no-auth-warning"], "", "Do not warn about passwords on the command line.",
        set!(|o| o.no_auth_warning = true)),
    flag(&["--test_hint"], "<input>", "",
        set!(|o, v| o.hint_test = Some(HintTest::Input(v)))),
    flag(&["--test_hint_file"], "<file>", "",
        set!(|o, v| o.hint_test = Some(HintTest::File(v)))),
    // Options of the cluster manager; `--cluster help` lists them by subcommand.
    flag(&["--cluster-replicas"], "<n>", "", set!(|o, v| o.cluster_options.replicas = unsigned(&v) as usize)),
    flag(&["--cluster-master-id"], "<id>", "", set!(|o, v| o.cluster_options.master_id = Some(text(&v)))),
    flag(&["--cluster-from"], "<arg>", "", set!(|o, v| o.cluster_options.from = Some(text(&v)))),
    flag(&["--cluster-to"], "<arg>", "", set!(|o, v| o.cluster_options.to = Some(text(&v)))),
    flag(&["--cluster-from-user"], "<arg>", "", set!(|o, v| o.cluster_options.from_user = Some(v))),
    flag(&["--cluster-from-pass"], "<arg>", "", set!(|o, v| o.cluster_options.from_pass = Some(v))),
    flag(&["--cluster-from-askpass"], "", "", set!(|o| o.cluster_options.from_askpass = true)),
    flag(&["--cluster-slots"], "<n>", "", set!(|o, v| o.cluster_options.slots = leading_int(&v))),
    flag(&["--cluster-timeout"], "<ms>", "", set!(|o, v| o.cluster_options.timeout_ms = leading_int(&v))),
    flag(&["--cluster-pipeline"], "<n>", "", set!(|o, v| o.cluster_options.pipeline = leading_int(&v))),
    flag(&["--cluster-threshold"], "<n>", "", set!(|o, v| o.cluster_options.threshold = float(&v))),
    flag(&["--cluster-yes"], "", "", set!(|o| o.cluster_options.yes = true)),
    flag(&["--cluster-simulate"], "", "", set!(|o| o.cluster_options.simulate = true)),
    flag(&["--cluster-replace"], "", "", set!(|o| o.cluster_options.replace = true)),
    flag(&["--cluster-copy"], "", "", set!(|o| o.cluster_options.copy = true)),
    flag(&["--cluster-slave"], "", "", set!(|o| o.cluster_options.slave = true)),
    flag(&["--cluster-use-empty-masters"], "", "", set!(|o| o.cluster_options.use_empty_masters = true)),
    flag(&["--cluster-search-multiple-owners"], "", "", set!(|o| o.cluster_options.search_multiple_owners = true)),
    flag(&["--cluster-fix-with-unreachable-masters"], "", "", set!(|o| o.cluster_options.fix_with_unreachable_masters = true)),
    flag(&["--cluster-only-masters"], "", "", set!(|o| o.cluster_options.only_masters = true)),
    flag(&["--cluster-only-replicas"], "", "", set!(|o| o.cluster_options.only_replicas = true)),
];

const WEIGHTS_TWICE: &str = "WARNING: you cannot use --cluster-weight more than once.\n\
    You can set more weights by adding them as a space-separated list, ie:\n\
    --cluster-weight n1=w n2=w";

/// Reads the command line, without the program's name.
pub(crate) fn parse(args: Vec<Vec<u8>>) -> Parsed {
    let mut options = Options::default();
    let mut at = 0;
    while let Some(arg) = args.get(at) {
        let is_last = at + 1 == args.len();
        let flag = FLAGS.iter().find(|flag| flag.names.iter().any(|name| name.as_bytes() == arg));
        match (arg.as_slice(), flag) {
            (b"--help", _) => return Parsed::Help(0),
            (b"-h", _) if is_last => return Parsed::Help(0),
            (b"-v" | b"--version", _) => return Parsed::Version,
            (b"--cluster", _) if is_last || options.cluster.is_some() => return Parsed::Help(1),
            (b"--cluster", _) => {
                at += 2;
                options.cluster = Some(vec![args[at - 1].clone()]);
            }
            (b"--cluster-weight", _) if !is_last => {
                let weights = &mut options.cluster_options.weights;
                if !weights.is_empty() {
                    return Parsed::Fail(WEIGHTS_TWICE.into());
                }
                let is_weight = |word: &&Vec<u8>| !word.starts_with(b"--") && word.contains(&b'=');
                weights.extend(args[at + 1..].iter().take_while(is_weight).map(|word| text(word)));
                at += 1 + weights.len();
            }
            (_, Some(flag)) if flag.value.is_empty() || !is_last => {
                let value = if flag.value.is_empty() { Vec::new() } else { args[at + 1].clone() };
                at += if flag.value.is_empty() { 1 } else { 2 };
                if let Err(reason) = (flag.apply)(&mut options, value) {
                    return Parsed::Fail(reason);
                }
            }
            _ if arg.starts_with(b"-") => {
                return Parsed::Fail(format!("Unrecognized option or bad number of args for: '{}'", text(arg)));
            }
            // Its arguments may come after its options too.
            _ => match &mut options.cluster {
                Some(words) => {
                    words.push(arg.clone());
                    at += 1;
                }
                None => break,
            },
        }
    }
    match cannot_be_together(&options) {
        Some(reason) => Parsed::Fail(reason.into()),
        None => Parsed::Run(Box::new(options), args[at..].to_vec()),
    }
}

/// Why these options make no sense beside each other, if so.
fn cannot_be_together(options: &Options) -> Option<&'static str> {
    if options.socket.is_some() && options.follow {
        return Some("Options -c and -s are mutually exclusive.");
    }
    if options.stdin_last && options.stdin_tag.is_some() {
        return Some("Options -x and -X are mutually exclusive.");
    }
    (options.debugger.is_some() && options.eval.is_none())
        .then_some("Options --ldb and --ldb-sync-mode require --eval.\nTry redis-cli --help for more information.")
}

/// An option of a tool as its help and its manual tell of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OptionText {
    pub(crate) names: &'static [&'static str],
    /// Placeholder of its value; empty for a switch.
    pub(crate) value: &'static str,
    /// May have several lines.
    pub(crate) help: &'static str,
}

impl OptionText {
    pub(crate) const HELP: OptionText = OptionText { names: &["--help"], value: "", help: "Print this and exit." };
    pub(crate) const VERSION: OptionText =
        OptionText { names: &["--version", "-v"], value: "", help: "Print the version and exit." };

    /// Adds its lines to a list of options.
    pub(crate) fn write_to(&self, out: &mut String) {
        const COLUMN: usize = 21;
        let mut head =
            format!("  {}{}{}", self.names.join(", "), if self.value.is_empty() { "" } else { " " }, self.value);
        for line in self.help.lines() {
            if head.len() >= COLUMN {
                out.push_str(&head);
                out.push('\n');
                head.clear();
            }
            out.push_str(&format!("{head:COLUMN$}{line}\n"));
            head.clear();
        }
    }
}

/// The options that are no secret, but for those of the cluster manager.
pub(crate) fn texts() -> impl Iterator<Item = OptionText> {
    let shown = FLAGS.iter().filter(|flag| !flag.help.is_empty());
    let cluster = OptionText {
        names: &["--cluster"],
        value: "<command> [args...] [opts...]",
        help: "Manage a cluster; --cluster help lists the commands.",
    };
    shown.map(|Flag { names, value, help, .. }| OptionText { names, value, help }).chain([
        cluster,
        OptionText::HELP,
        OptionText::VERSION,
    ])
}

/// The text of `--help`.
pub(crate) fn usage(version: &str) -> String {
    let mut out = format!("redis-cli {version}\n\nUsage: redis-cli [OPTIONS] [cmd [arg [arg ...]]]\n");
    texts().for_each(|option| option.write_to(&mut out));
    out.push_str(&format!(
        "\nExamples:\n{EXAMPLES}\n\
         Without a command redis-cli prompts for commands; \"help\" explains what it knows.\n"
    ));
    out
}

pub(crate) const EXAMPLES: &str = "\x20 \
     redis-cli -x set page < page.html\n  \
     redis-cli -D \"\" --raw dump key | redis-cli -X payload restore copy 0 payload\n  \
     redis-cli -r -1 -i 1 info memory | grep used_memory_human\n  \
     redis-cli --quoted-input set '\"zero \\x00 inside\"' value\n  \
     redis-cli --eval script.lua key1 key2 , arg1 arg2\n  \
     redis-cli --scan --pattern 'user:*' --count 1000\n  \
     redis-cli --cluster create 10.0.0.1:7000 10.0.0.2:7000 10.0.0.3:7000\n";

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> (Options, Vec<String>) {
        match parse(words(line)) {
            Parsed::Run(options, rest) => (*options, rest.iter().map(|w| text(w)).collect()),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn words(line: &str) -> Vec<Vec<u8>> {
        line.split_whitespace().map(|w| w.into()).collect()
    }

    #[test]
    fn options_end_at_the_command() {
        let (o, rest) = run("-h example -p 7000 -n 2 -c set -p 1");
        assert_eq!((o.host.as_str(), o.port, o.db), ("example", 7000, 2));
        assert!(o.follow);
        assert_eq!(rest, ["set", "-p", "1"]);
    }

    #[test]
    fn cluster_commands_take_words_up_to_options() {
        let (o, rest) = run("--cluster create a:1 b:2 --cluster-replicas 1 --cluster-yes -a x");
        assert_eq!(o.cluster.unwrap(), words("create a:1 b:2"));
        assert_eq!(o.cluster_options.replicas, 1);
        assert!(o.cluster_options.yes);
        assert!(rest.is_empty());
        let (o, _) = run("--cluster-yes --cluster create --cluster-replicas 1 a:1 b:2");
        assert_eq!(o.cluster.unwrap(), words("create a:1 b:2"));
        let (o, _) = run("--cluster rebalance --cluster-weight a=1 b=2.5 --verbose a:1");
        assert_eq!(o.cluster_options.weights, ["a=1", "b=2.5"]);
        assert_eq!(o.cluster.unwrap(), words("rebalance a:1"));
    }

    #[test]
    fn mistakes_are_reported() {
        let cases = [
            ("--nonsense", "Unrecognized option or bad number of args for: '--nonsense'"),
            ("-p", "Unrecognized option or bad number of args for: '-p'"),
            ("-p 70000 get a", "Invalid server port."),
            ("-t -1 ping", "Invalid connection timeout for -t."),
            ("-t soon ping", "Invalid connection timeout for -t."),
            ("-2 -3", "Options -2 and -3 are mutually exclusive."),
            ("-c -s /tmp/x", "Options -c and -s are mutually exclusive."),
            (
                "--ldb ping",
                "Options --ldb and --ldb-sync-mode require --eval.\nTry redis-cli --help for more information.",
            ),
            ("-x -X tag", "Options -x and -X are mutually exclusive."),
        ];
        for (line, expected) in cases {
            match parse(words(line)) {
                Parsed::Fail(reason) => assert_eq!(reason, expected),
                other => panic!("{line}: {other:?}"),
            }
        }
        assert!(matches!(parse(words("-h")), Parsed::Help(0)));
        assert!(matches!(parse(words("--cluster")), Parsed::Help(1)));
        assert!(matches!(parse(words("-v")), Parsed::Version));
    }

    #[test]
    fn json_prefers_resp3_unless_told() {
        assert_eq!(run("--json ping").0.protocol, Protocol::Resp3IfKnown);
        assert_eq!(run("-2 --json ping").0.protocol, Protocol::Resp2);
        assert_eq!(run("--json -3 ping").0.protocol, Protocol::Resp3);
    }

    #[test]
    fn help_names_every_public_flag() {
        let help = usage("1.2.3");
        for flag in FLAGS.iter().filter(|flag| !flag.help.is_empty()) {
            assert!(help.contains(flag.names[0]));
        }
    }

    #[test]
    fn integers_read_leniently() {
        assert_eq!(leading_int(b" 12ab"), 12);
        assert_eq!(leading_int(b"-1"), -1);
        assert_eq!(leading_int(b"x"), 0);
    }
}
