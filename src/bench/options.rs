//! The command line of redis-benchmark.

use crate::server::{HEXAD_VERSION, REDIS_VERSION};
use std::path::PathBuf;

#[derive(Clone, Debug)]
pub struct Options {
    pub host: String,
    pub port: u16,
    pub socket: Option<PathBuf>,
    pub user: Option<Vec<u8>>,
    pub password: Option<Vec<u8>>,
    pub db: usize,
    pub resp3: bool,
    pub clients: usize,
    pub requests: u64,
    /// Bytes of a value.
    pub data_size: usize,
    /// Keys, members and fields are drawn from this many; 0 leaves the placeholder alone.
    pub keyspace: u64,
    pub pipeline: usize,
    pub keep_alive: bool,
    pub threads: usize,
    pub cluster: bool,
    pub quiet: bool,
    pub csv: bool,
    /// Decimals of latencies in the distribution.
    pub precision: usize,
    pub endless: bool,
    pub idle: bool,
    pub show_errors: bool,
    /// Names of the tests to run, lower case; `None`: all.
    pub tests: Option<Vec<String>>,
    /// A command of the user's own.
    pub command: Vec<Vec<u8>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            host: "127.0.0.1".into(),
            port: 6379,
            socket: None,
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
            tests: None,
            command: Vec::new(),
        }
    }
}

pub enum Parsed {
    Run(Box<Options>),
    /// Printed on standard output, and that is all.
    Say(String),
    /// Printed on standard error; the program fails.
    Wrong(String),
}

pub fn parse(args: Vec<Vec<u8>>) -> Parsed {
    match read(args) {
        Ok(parsed) => parsed,
        Err(reason) => Parsed::Wrong(format!("{reason}\n\n{}", usage())),
    }
}

fn read(args: Vec<Vec<u8>>) -> Result<Parsed, String> {
    let mut o = Options::default();
    let mut args = args.into_iter().peekable();
    while let Some(arg) = args.next_if(|a| a.first() == Some(&b'-')) {
        let name = String::from_utf8_lossy(&arg).into_owned();
        match name.as_str() {
            "--help" => return Ok(Parsed::Say(usage())),
            "-v" | "--version" => {
                return Ok(Parsed::Say(format!("redis-benchmark {REDIS_VERSION} (hexad {HEXAD_VERSION})\n")));
            }
            "-q" => o.quiet = true,
            "--csv" => o.csv = true,
            "-l" => o.endless = true,
            "-I" => o.idle = true,
            "-e" => o.show_errors = true,
            "-3" => o.resp3 = true,
            "--cluster" => o.cluster = true,
            "-x" => {
                let mut last = Vec::new();
                std::io::Read::read_to_end(&mut std::io::stdin(), &mut last).map_err(|e| e.to_string())?;
                let mut command: Vec<_> = args.by_ref().collect();
                command.push(last);
                o.command = command;
            }
            _ => {
                let value =
                    args.next().ok_or_else(|| format!("Unrecognized option or bad number of args for: '{name}'"))?;
                with_value(&mut o, &name, value)?;
            }
        }
    }
    if o.command.is_empty() {
        o.command = args.collect();
    }
    o.clients = o.clients.max(1);
    o.pipeline = o.pipeline.max(1);
    o.threads = o.threads.clamp(1, o.clients);
    Ok(Parsed::Run(Box::new(o)))
}

fn with_value(o: &mut Options, name: &str, value: Vec<u8>) -> Result<(), String> {
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
        "-t" => o.tests = Some(text.to_ascii_lowercase().split(',').map(|t| t.trim().to_string()).collect()),
        _ => return Err(format!("Unrecognized option or bad number of args for: '{name}'")),
    }
    Ok(())
}

/// `redis://[user:password@]host[:port][/db]`
fn uri(o: &mut Options, text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("redis://").ok_or_else(|| "Invalid URI scheme".to_string())?;
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

  -h <hostname>      Server (default 127.0.0.1)
  -p <port>          Port (default 6379)
  -s <socket>        Unix socket, in place of host and port
  -a <password>      Password
  --user <name>      User, for AUTH with two arguments; needs -a
  -u <uri>           redis://user:password@host:port/db
  -c <clients>       Connections at the same time (default 50)
  -n <requests>      Requests in all (default 100000)
  -d <bytes>         Size of values (default 3)
  --dbnum <db>       Database (default 0)
  -3                 Speak RESP3
  --threads <n>      Threads that drive the clients (default 1)
  --cluster          Spread the clients over the masters of a cluster
  -k <0|1>           Keep connections (1, default) or reconnect for each request
  -r <n>             Draw keys, members and fields from n of them: __rand_int__ becomes a
                     twelve-digit number below n
  -P <n>             Requests in one pipeline (default 1)
  -q                 One line a test
  --precision <n>    Decimals of latencies (default 3)
  --csv              Figures as CSV
  -l                 Run the tests again and again
  -t <tests>         Only these, by comma: ping,set,get,incr,lpush,...
  -I                 Open the connections and leave them idle
  -x                 Read the last argument of the command from standard input
  -e                 Show error replies
  --help, --version

With a COMMAND, that command is measured in place of the usual tests.
"
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> Options {
        match parse(line.split_whitespace().map(|w| w.as_bytes().to_vec()).collect()) {
            Parsed::Run(o) => *o,
            Parsed::Say(t) | Parsed::Wrong(t) => panic!("{t}"),
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
        assert!(matches!(parse(vec![b"--nope".to_vec()]), Parsed::Wrong(_)));
    }
}
