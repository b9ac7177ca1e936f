//! The command line of redis-benchmark.

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
            "-q" => o.quiet = true,
            "--csv" => o.csv = true,
            "-l" => o.endless = true,
            "-I" => o.idle = true,
            "-e" => o.show_errors = true,
            "-3" => o.resp3 = true,
            "--cluster" => o.cluster = true,
            "--enable-tracking" => o.tracking = true,
            "-x" => o.stdin_last = true,
            "--tls" => o.is_tls = true,
            "--insecure" => o.tls_options.insecure = true,
            _ => {
                let value = args.next().ok_or_else(|| Mistake::Option(name.clone()))?;
                with_value(&mut o, &name, value)?;
            }
        }
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

fn with_value(o: &mut Options, name: &str, value: Vec<u8>) -> Result<(), Mistake> {
    let text = String::from_utf8_lossy(&value).into_owned();
    let number = || -> Result<u64, String> { text.parse().map_err(|_| format!("Invalid number for {name}: '{text}'")) };
    match name {
        "-h" => o.host = text,
        "-p" => o.port = u16::try_from(number()?).map_err(|_| "Invalid server port.".to_string())?,
        "-s" => o.socket = Some(PathBuf::from(text)),
        "-a" => o.password = Some(value),
        "--user" => o.user = Some(value),
        "-u" => uri(o, &text)?,
        "-c" => o.clients = number()? as usize,
        "-n" => o.requests = number()?,
        "-d" => o.data_size = (number()? as usize).clamp(1, 1 << 30),
        "--dbnum" => o.db = number()? as usize,
        "-k" => o.keep_alive = number()? != 0,
        "-r" => o.keyspace = number()?,
        "-P" => o.pipeline = number()? as usize,
        "--precision" => o.precision = (number()? as usize).min(3),
        "--threads" => o.threads = number()? as usize,
        "--seed" => o.seed = Some(number()?),
        "--sni" => o.tls_options.sni = Some(text),
        "--cacert" => o.tls_options.ca_file = Some(text),
        "--cacertdir" => o.tls_options.ca_dir = Some(text),
        "--cert" => o.tls_options.cert = Some(text),
        "--key" => o.tls_options.key = Some(text),
        "--tls-ciphers" => o.tls_options.ciphers = text,
        "--tls-ciphersuites" => o.tls_options.ciphersuites = text,
        "-t" => o.tests = Some(text.to_ascii_lowercase().split(',').map(|t| t.trim().to_string()).collect()),
        _ => return Err(Mistake::Option(name.to_string())),
    }
    Ok(())
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
    "\
Usage: redis-benchmark [OPTIONS] [COMMAND ARGS...]

Options:
  -h <hostname>      Host to connect to (127.0.0.1)
  -p <port>          Port to connect to (6379)
  -s <socket>        Connect to this Unix socket, not to host and port
  -a <password>      Log in with this password
  --user <name>      Log in as this ACL user; needs -a
  -u <uri>           Connect to redis://[[user:]password@]host[:port][/db], or rediss:// for TLS
  -c <clients>       Connections that are busy at the same time (50)
  -n <requests>      Requests in all (100000)
  -d <bytes>         Size of the values that are written (3)
  --dbnum <db>       Database (0)
  -3                 Speak RESP3
  --threads <n>      Threads that drive the clients (1)
  --cluster          Spread the clients over the masters of a cluster. Keys of a command of
                     your own need \"{tag}\" in them, which becomes a tag that the node serves
  --enable-tracking  Send CLIENT TRACKING on first
  -k <0|1>           1 keeps connections (the default), 0 opens one for every request
  -r <n>             Draw keys, members and fields from n of them: every __rand_int__ becomes
                     a number below n, of twelve digits. Without -r all use the same
  -P <n>             Requests in one pipeline (1)
  -q                 One line for each test
  --precision <n>    Decimals of the latencies of the distribution (3)
  --csv              Print the figures as CSV
  -l                 Run the tests again and again
  -t <tests>         Run only these, by comma, in any case: ping,set,get,incr,lpush,rpush,lpop,
                     rpop,sadd,hset,spop,zadd,zpopmin,lrange,lrange_100,...,mset,xadd
  -I                 Open the connections and leave them idle
  -x                 Take the last word of the command from standard input
  --tls              Connect under TLS
  --sni <host>       Name to tell the server that it is asked for by
  --cacert <file>    Trust the authorities in this file (PEM)
  --cacertdir <dir>  Trust those in the files of this directory; without either, the system's
  --insecure         Trust any server
  --cert <file>      Certificate to show the server (PEM)
  --key <file>       Its private key (PEM)
  --tls-ciphers <list>       Cipher suites of TLS 1.2, by OpenSSL's names, in order of preference
  --tls-ciphersuites <list>  Cipher suites of TLS 1.3
  --seed <n>         Seed of the random numbers, to repeat a run
  --help             Print this and exit
  --version          Print the version and exit

A COMMAND is measured in place of the usual tests. An error reply ends the run.

Examples:
  redis-benchmark -t set,get -n 1000000 -P 16 -q
  redis-benchmark -t set -r 100000000 -n 1000000       a million writes all over the keyspace
  redis-benchmark -r 10000 -n 10000 lpush mylist __rand_int__
  redis-benchmark --cluster -p 7000 -t get --csv
"
    .to_string()
}

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
