//! The command line of redis-benchmark.

use crate::cli::OptionText;
use crate::net::tls::ToolOptions;
use crate::sys::build::REDIS_VERSION;
use std::path::PathBuf;

/// Threads beyond this are more than any load needs.
pub(crate) const MAX_THREADS: usize = 500;

#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) socket: Option<PathBuf>,
    pub(crate) is_tls: bool,
    pub(crate) tls_options: ToolOptions,
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) db: usize,
    pub(crate) resp3: bool,
    pub(crate) clients: usize,
    pub(crate) requests: u64,
    /// Bytes of a value.
    pub(crate) data_size: usize,
    /// Keys, members and fields are drawn from this many; 0 leaves the placeholder alone.
    pub(crate) keyspace: u64,
    pub(crate) pipeline: usize,
    pub(crate) keep_alive: bool,
    pub(crate) threads: usize,
    pub(crate) cluster: bool,
    pub(crate) quiet: bool,
    pub(crate) csv: bool,
    /// Decimals of latencies in the distribution.
    pub(crate) precision: usize,
    pub(crate) endless: bool,
    pub(crate) idle: bool,
    /// `-e`; errors are always shown.
    pub(crate) show_errors: bool,
    /// CLIENT TRACKING on every connection.
    pub(crate) tracking: bool,
    /// Seed of the random numbers; the time if not given.
    pub(crate) seed: Option<u64>,
    /// Names of the tests to run, in lower case; `None`: all.
    pub(crate) tests: Option<Vec<String>>,
    /// The words of a command to run in place of the tests.
    pub(crate) command: Vec<Vec<u8>>,
    /// Its last word came from standard input and is not part of its title.
    pub(crate) stdin_last: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            host: "127.0.0.1".into(),
            port: 6379,
            socket: None,
            is_tls: false,
            tls_options: ToolOptions::default(),
            user: None,
            password: None,
            db: 0,
            resp3: false,
            clients: 50,
            requests: 100_000,
            data_size: 3,
            keyspace: 0,
            pipeline: 1,
            keep_alive: true,
            threads: 1,
            cluster: false,
            quiet: false,
            csv: false,
            precision: 3,
            endless: false,
            idle: false,
            show_errors: false,
            tracking: false,
            seed: None,
            tests: None,
            command: Vec::new(),
            stdin_last: false,
        }
    }
}

impl Options {
    /// What connections under TLS are made with, if they are to be.
    pub(crate) fn tls(&self) -> Option<&ToolOptions> {
        self.is_tls.then_some(&self.tls_options)
    }
}

pub(crate) enum Parsed {
    Run(Box<Options>),
    /// Printed on standard output, and that is all.
    Say(String),
    /// An unknown option, or one without a value. Printed on standard output, as Redis's tool does; the program fails.
    Misspelt(String),
    /// Printed on standard error; the program fails.
    Wrong(String),
}

pub(crate) fn parse(args: Vec<Vec<u8>>) -> Parsed {
    match read(args) {
        Ok(parsed) => parsed,
        Err(Mistake::Option(name)) => {
            Parsed::Misspelt(format!("Invalid option \"{name}\" or option argument missing\n\n{}", usage()))
        }
        Err(Mistake::Value(reason)) => Parsed::Wrong(reason),
    }
}

enum Mistake {
    /// The name of an option that is unknown or lacks its value.
    Option(String),
    /// What is wrong with a value.
    Value(String),
}

impl From<String> for Mistake {
    fn from(reason: String) -> Mistake {
        Mistake::Value(reason)
    }
}

fn read(args: Vec<Vec<u8>>) -> Result<Parsed, Mistake> {
    let mut o = Options::default();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next_if(|a| a.first() == Some(&b'-')) {
        let name = String::from_utf8_lossy(&arg).into_owned();
        match name.as_str() {
            "--help" => return Ok(Parsed::Say(usage())),
            "-v" | "--version" => {
                return Ok(Parsed::Say(format!("redis-benchmark {REDIS_VERSION}\n")));
            }
            _ => {}
        }
        let misspelt = || Mistake::Option(name.clone());
        let flag = FLAGS.iter().find(|flag| flag.names.contains(&name.as_str())).ok_or_else(misspelt)?;
        let bytes = if flag.value.is_empty() { Vec::new() } else { args.next().ok_or_else(misspelt)? };
        (flag.apply)(&mut o, Value { name, bytes })?;
    }
    o.command = args.collect();
    o.stdin_last &= !o.command.is_empty();
    if o.stdin_last {
        let mut last = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut last).map_err(|e| e.to_string())?;
        o.command.push(last);
    }
    o.clients = o.clients.max(1);
    o.pipeline = o.pipeline.max(1);
    o.threads = o.threads.max(1);
    Ok(Parsed::Run(Box::new(o)))
}

/// What was given with an option.
struct Value {
    name: String,
    bytes: Vec<u8>,
}

impl Value {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    fn number(&self) -> Result<u64, String> {
        let text = self.text();
        text.parse().map_err(|_| format!("Invalid number for {}: '{text}'", self.name))
    }

    fn port(&self) -> Result<u16, String> {
        u16::try_from(self.number()?).map_err(|_| "Invalid server port.".to_string())
    }
}

struct Flag {
    names: &'static [&'static str],
    /// Placeholder of its value in the help; empty for a switch.
    value: &'static str,
    help: &'static str,
    apply: fn(&mut Options, Value) -> Result<(), String>,
}

macro_rules! flags {
    ($(($names:expr, $value:literal, $help:literal, |$o:ident, $v:pat_param| $apply:expr)),* $(,)?) => {
        /// One row an option.
        static FLAGS: &[Flag] = &[$(Flag {
            names: &$names,
            value: $value,
            help: $help,
            apply: |$o: &mut Options, $v: Value| {
                $apply;
                Ok(())
            },
        }),*];
    };
}

#[rustfmt::skip]
flags! {
    (["-h"], "<hostname>", "Host to connect to (127.0.0.1).", |o, v| o.host = v.text()),
    (["-p"], "<port>", "Port to connect to (6379).", |o, v| o.port = v.port()?),
    (["-s"], "<socket>", "Connect to this Unix socket, not to host and port.", |o, v| o.socket = Some(v.text().into())),
    (["-a"], "<password>", "Log in with this password.", |o, v| o.password = Some(v.bytes)),
    (["--user"], "<name>", "Log in as this ACL user; needs -a.", |o, v| o.user = Some(v.bytes)),
    (["-u"], "<uri>", "Connect to redis://[[user:]password@]host[:port][/db], or rediss:// for TLS.",
        |o, v| uri(o, &v.text())?),
    (["-c"], "<clients>", "Connections that are busy at the same time (50).", |o, v| o.clients = v.number()? as usize),
    (["-n"], "<requests>", "Requests in all (100000).", |o, v| o.requests = v.number()?),
    (["-d"], "<bytes>", "Size of the values that are written (3).",
        |o, v| o.data_size = (v.number()? as usize).clamp(1, 1 << 30)),
    (["--dbnum"], "<db>", "Database (0).", |o, v| o.db = v.number()? as usize),
    (["-3"], "", "Speak RESP3.", |o, _| o.resp3 = true),
    (["--threads"], "<n>", "Threads that drive the clients (1).", |o, v| o.threads = v.number()? as usize),
    (["--cluster"], "", "Spread the clients over the masters of a cluster. Keys of a command of\nyour own need \"{tag}\" in them, which becomes a tag that the node serves.",
        |o, _| o.cluster = true),
    (["--enable-tracking"], "", "Send CLIENT TRACKING on first.", |o, _| o.tracking = true),
    (["-k"], "<0|1>", "1 keeps connections (the default), 0 opens one for every request.",
        |o, v| o.keep_alive = v.number()? != 0),
    (["-r"], "<n>", "Draw keys, members and fields from n of them: every __rand_int__ becomes\na number below n, of twelve digits. Without -r all use the same.",
        |o, v| o.keyspace = v.number()?),
    (["-P"], "<n>", "Requests in one pipeline (1).", |o, v| o.pipeline = v.number()? as usize),
    (["-q"], "", "One line for each test.", |o, _| o.quiet = true),
    (["-e"], "", "Accepted: errors are always shown.", |o, _| o.show_errors = true),
    (["--precision"], "<n>", "Decimals of the latencies of the distribution (3).",
        |o, v| o.precision = (v.number()? as usize).min(3)),
    (["--csv"], "", "Print the figures as CSV.", |o, _| o.csv = true),
    (["-l"], "", "Run the tests again and again.", |o, _| o.endless = true),
    (["-t"], "<tests>", "Run only these, by comma, in any case: ping,set,get,incr,lpush,rpush,lpop,\nrpop,sadd,hset,spop,zadd,zpopmin,lrange,lrange_100,...,mset,xadd.",
        |o, v| o.tests = Some(v.text().to_ascii_lowercase().split(',').map(|t| t.trim().to_string()).collect())),
    (["-I"], "", "Open the connections and leave them idle.", |o, _| o.idle = true),
    (["-x"], "", "Take the last word of the command from standard input.", |o, _| o.stdin_last = true),
    (["--tls"], "", "Connect under TLS.", |o, _| o.is_tls = true),
    (["--sni"], "<host>", "Name to tell the server that it is asked for by.", |o, v| o.tls_options.sni = Some(v.text())),
    (["--cacert"], "<file>", "Trust the authorities in this file (PEM).", |o, v| o.tls_options.ca_file = Some(v.text())),
    (["--cacertdir"], "<dir>", "Trust those in the files of this directory; without either, the system's.",
        |o, v| o.tls_options.ca_dir = Some(v.text())),
    (["--insecure"], "", "Trust any server.", |o, _| o.tls_options.insecure = true),
    (["--cert"], "<file>", "Certificate to show the server (PEM).", |o, v| o.tls_options.cert = Some(v.text())),
    (["--key"], "<file>", "Its private key (PEM).", |o, v| o.tls_options.key = Some(v.text())),
    (["--tls-ciphers"], "<list>", "Cipher suites of TLS 1.2, by OpenSSL's names, in order of preference.",
        |o, v| o.tls_options.ciphers = v.text()),
    (["--tls-ciphersuites"], "<list>", "Cipher suites of TLS 1.3.", |o, v| o.tls_options.ciphersuites = v.text()),
    (["--seed"], "<n>", "Seed of the random numbers, to repeat a run.", |o, v| o.seed = Some(v.number()?)),
}

/// The options as help and manual tell of them.
pub(crate) fn texts() -> impl Iterator<Item = OptionText> {
    let rows = FLAGS.iter().map(|Flag { names, value, help, .. }| OptionText { names, value, help });
    rows.chain([OptionText::HELP, OptionText::VERSION])
}

/// `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS
fn uri(o: &mut Options, text: &str) -> Result<(), String> {
    let rest = match text.strip_prefix("rediss://") {
        Some(rest) => {
            o.is_tls = true;
            rest
        }
        None => text.strip_prefix("redis://").ok_or_else(|| "Invalid URI scheme".to_string())?,
    };
    let (rest, db) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, address) = rest.rsplit_once('@').map_or((None, rest), |(c, a)| (Some(c), a));
    if let Some(credentials) = credentials {
        match credentials.split_once(':') {
            Some((user, password)) => {
                o.user = (!user.is_empty()).then(|| percent_decoded(user));
                o.password = Some(percent_decoded(password));
            }
            None => o.password = Some(percent_decoded(credentials)),
        }
    }
    match address.rsplit_once(':') {
        Some((host, port)) => {
            o.host = host.to_string();
            o.port = port.parse().map_err(|_| "Invalid server port.".to_string())?;
        }
        None if !address.is_empty() => o.host = address.to_string(),
        None => {}
    }
    if !db.is_empty() {
        o.db = db.parse().map_err(|_| "Invalid database number in the URI".to_string())?;
    }
    Ok(())
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |k: usize| bytes.get(k).and_then(|d| (*d as char).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (bytes[i], hex(i + 1), hex(i + 2)) {
            out.push((high * 16 + low) as u8);
            i += 3;
        } else {
            out.push(bytes[i]);
            i += 1;
        }
    }
    out
}

fn usage() -> String {
    let mut out = String::from("Usage: redis-benchmark [OPTIONS] [COMMAND ARGS...]\n\nOptions:\n");
    texts().for_each(|option| option.write_to(&mut out));
    out + "\nA COMMAND is measured in place of the usual tests. An error reply ends the run.\n\nExamples:\n" + EXAMPLES
}

pub(crate) const EXAMPLES: &str = "  redis-benchmark -t set,get -n 1000000 -P 16 -q
  redis-benchmark -t set -r 100000000 -n 1000000       a million writes all over the keyspace
  redis-benchmark -r 10000 -n 10000 lpush mylist __rand_int__
  redis-benchmark --cluster -p 7000 -t get --csv
";

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        match parse(line.split_whitespace().map(|w| w.as_bytes().to_vec()).collect()) {
            Parsed::Run(o) => *o,
            Parsed::Say(t) | Parsed::Misspelt(t) | Parsed::Wrong(t) => panic!("{t}"),
        }
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let o = options("-s /tmp/x -n 10000000 -r 1000 incr __rand_int__ -n");
        assert_eq!((o.requests, o.keyspace), (10_000_000, 1000));
        assert_eq!(o.command, vec![b"incr".to_vec(), b"__rand_int__".to_vec(), b"-n".to_vec()]);
    }

    #[test]
    fn uris_carry_credentials() {
        let o = options("-u redis://al:p%40ss@example:7000/3");
        assert_eq!((o.host.as_str(), o.port, o.db), ("example", 7000, 3));
        assert_eq!((o.user.unwrap(), o.password.unwrap()), (b"al".to_vec(), b"p@ss".to_vec()));
    }

    #[test]
    fn unknown_options_are_refused() {
        let parsed = |line: &str| parse(line.split_whitespace().map(|w| w.as_bytes().to_vec()).collect());
        for line in ["--nope x", "-p", "--csv -n"] {
            assert!(matches!(parsed(line), Parsed::Misspelt(t) if t.starts_with("Invalid option \"-")), "{line}");
        }
        assert!(matches!(parsed("-n many"), Parsed::Wrong(_)));
    }
}
