//! MIGRATE: moves keys to another server, atomically for whoever looks at either.
//!
//! Both servers stand still for it: this one waits for the other's answers, at most the given time. Connections are kept
//! for a few seconds, since keys of a slot are usually moved one after the other.

use super::int_arg;
use super::prelude::*;
use crate::catalog::row::KeyPos;
use crate::keyspace::expire::is_due;
use crate::net::tls::{ClientContext, WaitingStream};
use crate::persist::rdb::encode_dump;
use crate::persist::snapshot::{put_command, value_view};
use crate::server::Server;
use crate::sys::resolve::Resolver;
use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) const COMMANDS: &[ServerCommand] = &[Command {
    name: "migrate",
    run: Some(migrate),
    arity: -6,
    flags: flag::WRITE,
    acl: cat::KEYSPACE | cat::DANGEROUS,
    keys: &[
        KeySpec::range(key::RW | key::ACCESS | key::DELETE, 3, 0, 1),
        KeySpec::new(
            key::RW | key::ACCESS | key::DELETE | key::INCOMPLETE,
            Begin::Keyword("KEYS", -2),
            Find::Range { last: -1, step: 1, limit: 0 },
        ),
    ],
    get_keys: Some(migrate_keys),
    group: Group::Generic,
    since: "2.6.0",
    complexity: "For each key what DUMP and DEL take here and RESTORE there, and the way between them.",
    summary: "Moves keys to another server.",
    tips: &["nondeterministic_output"],
    history: &["3.0.0", "3.0.6", "4.0.7", "6.0.0"],
    args: &[
        arg("host", ArgKind::String),
        arg("port", ArgKind::Integer),
        arg("key-selector", ArgKind::OneOf)
            .of(&[arg("key", ArgKind::Key).spec(0), arg("empty-string", ArgKind::PureToken).token("")]),
        arg("destination-db", ArgKind::Integer),
        arg("timeout", ArgKind::Integer),
        arg("copy", ArgKind::PureToken).token("COPY").since("3.0.0").optional(),
        arg("replace", ArgKind::PureToken).token("REPLACE").since("3.0.0").optional(),
        arg("authentication", ArgKind::OneOf).optional().of(&[
            arg("auth", ArgKind::String).display("password").token("AUTH").since("4.0.7"),
            arg("auth2", ArgKind::Block)
                .token("AUTH2")
                .since("6.0.0")
                .of(&[arg("username", ArgKind::String), arg("password", ArgKind::String)]),
        ]),
        arg("keys", ArgKind::Key).display("key").token("KEYS").spec(1).since("3.0.6").optional().multiple(),
    ],
    ..Command::ROW
}];

/// Connections kept at most.
const CACHE_ITEMS: usize = 64;
/// A connection that was not used for longer than this is closed.
const CACHE_TTL_S: i64 = 10;
/// Bytes written between two looks at the clock.
const CHUNK: usize = 64 * 1024;
/// Longest reply line taken in.
const MAX_REPLY_LINE: u64 = 1024;

/// A connection to a target, kept for the next MIGRATE.
#[derive(Debug)]
struct Cached {
    stream: BufReader<Stream>,
    /// Database the target has selected for it, if known.
    db: Option<i64>,
    used_s: i64,
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Tls(Box<WaitingStream>),
}

impl Stream {
    fn tcp(&self) -> &TcpStream {
        match self {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(stream) => &stream.tcp,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.read(buf),
            Stream::Tls(stream) => stream.read(buf).map_err(|e| match e.kind() {
                io::ErrorKind::WouldBlock => io::ErrorKind::Interrupted.into(),
                _ => e,
            }),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(tcp) => tcp.write(buf),
            Stream::Tls(stream) => stream.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Connections by host and port.
#[derive(Debug, Default)]
pub(crate) struct MigrateCache {
    targets: HashMap<(Vec<u8>, Vec<u8>), Cached>,
}

impl MigrateCache {
    pub(crate) fn len(&self) -> usize {
        self.targets.len()
    }

    /// Closes what has not been used of late.
    pub(crate) fn close_idle(&mut self, now_s: i64) {
        self.targets.retain(|_, cached| now_s - cached.used_s <= CACHE_TTL_S);
    }

    /// Takes the connection to a target, opening one if there is none.
    /// A name is looked up, and connected to, within `timeout` in all.
    /// Nodes whose bus is under TLS take keys under TLS, too.
    fn take(
        &mut self,
        host: &[u8],
        port: &[u8],
        timeout: Duration,
        resolver: &mut Resolver,
        tls: Option<&Arc<ClientContext>>,
    ) -> io::Result<Cached> {
        if let Some(cached) = self.targets.remove(&(host.to_vec(), port.to_vec())) {
            return Ok(cached);
        }
        let unusable = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let name = std::str::from_utf8(host).map_err(unusable)?;
        let number = std::str::from_utf8(port).ok().and_then(|p| p.parse::<u16>().ok());
        let number = number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        let deadline = Instant::now() + timeout;
        for address in resolver.addresses_within(name, timeout)? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match TcpStream::connect_timeout(&SocketAddr::new(address, number), left) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    let left = deadline.saturating_duration_since(Instant::now());
                    let stream = match tls {
                        None => Stream::Plain(stream),
                        Some(tls) => {
                            let mut stream = Box::new(WaitingStream::connect(stream, tls, None, Some(left))?);
                            stream.return_often();
                            Stream::Tls(stream)
                        }
                    };
                    return Ok(Cached { stream: BufReader::new(stream), db: None, used_s: 0 });
                }
                Err(e) => failure = e,
            }
        }
        Err(failure)
    }

    fn put_back(&mut self, host: &[u8], port: &[u8], mut cached: Cached, now_s: i64) {
        cached.used_s = now_s;
        if self.targets.len() >= CACHE_ITEMS
            && let Some(any) = self.targets.keys().next().cloned()
        {
            self.targets.remove(&any);
        }
        self.targets.insert((host.to_vec(), port.to_vec()), cached);
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

impl Cached {
    fn write(&mut self, bytes: &[u8], timeout: Duration) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.tcp().set_write_timeout(Some(timeout))?;
        bytes.chunks(CHUNK).try_for_each(|chunk| stream.write_all(chunk))
    }

    /// One line without its end.
    fn read_line(&mut self, timeout: Duration) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + timeout;
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.get_ref().tcp().set_read_timeout(Some(left))?;
            let available = match self.stream.fill_buf() {
                Ok([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(available) => available,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            let n = memchr::memchr(b'\n', available).map_or(available.len(), |at| at + 1);
            line.extend_from_slice(&available[..n]);
            self.stream.consume(n);
            if line.len() as u64 > MAX_REPLY_LINE {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        line.pop();
        if line.ends_with(b"\r") {
            line.pop();
        }
        Ok(line)
    }
}

/// What a call asks for.
struct Request<'a> {
    host: &'a [u8],
    port: &'a [u8],
    db: i64,
    timeout: Duration,
    copy: bool,
    replace: bool,
    username: Option<&'a [u8]>,
    password: Option<&'a [u8]>,
    keys: Vec<&'a [u8]>,
}

/// An option, and at which argument its first value stands.
#[derive(Clone, Copy)]
enum Opt {
    Copy,
    Replace,
    Auth(usize),
    /// The user; the password is the next.
    Auth2(usize),
    /// The first key; those after it are keys, too.
    Keys(usize),
}

/// The options of a call; an argument that is none is an error by itself. Both the command and who asks for its keys read
/// them here, so they agree about which argument is what.
struct Options<'a> {
    args: Args<'a>,
    next: usize,
}

impl<'a> Options<'a> {
    fn of(args: Args<'a>) -> Options<'a> {
        Options { args, next: 6 }
    }
}

impl Iterator for Options<'_> {
    type Item = Result<Opt, CmdError>;

    fn next(&mut self) -> Option<Result<Opt, CmdError>> {
        let at = self.next + 1;
        let option = self.args.get(self.next)?;
        let left = self.args.len() - at;
        let is = |name: &[u8]| option.eq_ignore_ascii_case(name);
        let (option, values) = if is(b"copy") {
            (Ok(Opt::Copy), 0)
        } else if is(b"replace") {
            (Ok(Opt::Replace), 0)
        } else if is(b"auth") && left >= 1 {
            (Ok(Opt::Auth(at)), 1)
        } else if is(b"auth2") && left >= 2 {
            (Ok(Opt::Auth2(at)), 2)
        } else if is(b"keys") {
            (Ok(Opt::Keys(at)), left)
        } else {
            (Err(error::SYNTAX), 0)
        };
        self.next = at + values;
        Some(option)
    }
}

fn parse<'a>(args: Args<'a>) -> Result<Request<'a>, CmdError> {
    let (mut copy, mut replace, mut username, mut password) = (false, false, None, None);
    let mut keys = vec![args.at(3)];
    for option in Options::of(args) {
        match option? {
            Opt::Copy => copy = true,
            Opt::Replace => replace = true,
            Opt::Auth(at) => password = Some(args.at(at)),
            Opt::Auth2(at) => (username, password) = (Some(args.at(at)), Some(args.at(at + 1))),
            Opt::Keys(at) => {
                if !args[3].is_empty() {
                    return Err(CmdError::of(
                        "ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
                    ));
                }
                keys = args.from(at).iter().collect();
            }
        }
    }
    let timeout_ms = int_arg(&args[5])?;
    let db = int_arg(&args[4])?;
    let timeout = Duration::from_millis(if timeout_ms <= 0 { 1000 } else { timeout_ms.unsigned_abs() });
    Ok(Request { host: args.at(1), port: args.at(2), db, timeout, copy, replace, username, password, keys })
}

/// Positions of the keys: the third argument, or all after KEYS.
fn migrate_keys(args: Args<'_>) -> Option<Vec<KeyPos>> {
    let flags = key::RW | key::ACCESS | key::DELETE;
    let several = Options::of(args).find_map(|option| match option {
        Ok(Opt::Keys(at)) => Some(at..args.len()),
        _ => None,
    });
    match several {
        Some(_) if !args[3].is_empty() => None,
        keys => Some(keys.unwrap_or(3..4).map(|index| KeyPos { index, flags }).collect()),
    }
}

/// How the exchange with the target went.
enum Exchange {
    /// Every key it answered for was taken over; `error` is the first refusal.
    Done { moved: Vec<usize>, error: Option<Vec<u8>> },
    /// The connection failed before any key was answered for.
    NothingSent { writing: bool, cause: io::Error },
    /// It failed after some were.
    Broken { moved: Vec<usize>, error: Option<Vec<u8>> },
}

impl Server {
    /// The commands for the target, and the keys they move. Keys whose time has come meanwhile are left out.
    fn migrate_payload(&mut self, from_db: usize, request: &Request<'_>, found: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let (now_ms, compress) = (self.ks.now_ms, self.cfg.rdbcompression);
        let verb: &[u8] = if self.cfg.cluster_enabled { b"RESTORE-ASKING" } else { b"RESTORE" };
        let (mut buf, mut sent) = (Vec::new(), Vec::new());
        for &index in found {
            let key = request.keys[index];
            let Some(entry) = self.ks.dbs[from_db].get(key) else { continue };
            let ttl_ms = match entry.expire_ms() {
                None => 0,
                at @ Some(_) if is_due(at, now_ms) => continue,
                Some(at) => (at - now_ms).max(1),
            };
            let mut payload = Vec::new();
            encode_dump(&mut payload, value_view(entry), compress);
            let ttl = ttl_ms.to_string();
            let words: [&[u8]; 5] = [verb, key, ttl.as_bytes(), &payload, b"REPLACE"];
            put_command(&mut buf, if request.replace { &words } else { &words[..4] });
            sent.push(index);
        }
        (buf, sent)
    }
}

/// Sends everything and reads the answers.
fn exchange(target: &mut Cached, request: &Request<'_>, restore: &[u8], sent: &[usize]) -> Exchange {
    let mut head = Vec::new();
    let mut replies_before = 0;
    if let Some(password) = request.password {
        match request.username {
            Some(username) => put_command(&mut head, &[b"AUTH", username, password]),
            None => put_command(&mut head, &[b"AUTH", password]),
        }
        replies_before += 1;
    }
    if target.db != Some(request.db) {
        put_command(&mut head, &[b"SELECT", request.db.to_string().as_bytes()]);
        replies_before += 1;
    }
    head.extend_from_slice(restore);
    if let Err(cause) = target.write(&head, request.timeout) {
        return Exchange::NothingSent { writing: true, cause };
    }
    let mut refused_before = None;
    for _ in 0..replies_before {
        match target.read_line(request.timeout) {
            Ok(line) if line.starts_with(b"-") && refused_before.is_none() => refused_before = Some(line),
            Ok(_) => {}
            Err(cause) => return Exchange::NothingSent { writing: false, cause },
        }
    }
    let (mut moved, mut error) = (Vec::new(), None);
    for (i, &index) in sent.iter().enumerate() {
        let line = match target.read_line(request.timeout) {
            Ok(line) => line,
            Err(cause) if i == 0 && error.is_none() => return Exchange::NothingSent { writing: false, cause },
            Err(_) => return Exchange::Broken { moved, error },
        };
        match (&refused_before, line.first()) {
            (Some(refusal), _) => {
                error.get_or_insert_with(|| refusal[1..].to_vec());
            }
            (None, Some(b'-')) => {
                error.get_or_insert_with(|| line[1..].to_vec());
            }
            (None, _) => moved.push(index),
        }
    }
    Exchange::Done { moved, error }
}

fn migrate(ctx: &mut Ctx<'_>, args: Args<'_>) -> CmdResult {
    let request = parse(args)?;
    let db = ctx.db;
    let found: Vec<usize> =
        (0..request.keys.len()).filter(|i| ctx.srv.ks.read(db, request.keys[*i]).is_some()).collect();
    if found.is_empty() {
        ctx.out.simple("NOKEY");
        return Ok(());
    }
    let mut may_retry = true;
    loop {
        let mut cache = std::mem::take(&mut ctx.srv.migrate);
        let tls = ctx.srv.tls.contexts().filter(|_| ctx.srv.cfg.tls_cluster).and_then(|c| c.client.as_ref());
        let taken = cache.take(request.host, request.port, request.timeout, &mut ctx.srv.resolver, tls);
        ctx.srv.migrate = cache;
        let mut target = match taken {
            Ok(target) => target,
            // Redis does not wait for a connection and only hears of this when it writes.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused || is_timeout(&e) => return Err(io_error(true)),
            Err(_) => return Err(CmdError::of("IOERR error or timeout connecting to the client")),
        };
        let (restore, sent) = ctx.srv.migrate_payload(db, &request, &found);
        let outcome = exchange(&mut target, &request, &restore, &sent);
        let (moved, error, broken) = match outcome {
            Exchange::NothingSent { writing, cause } => {
                // It is common for a kept connection to have been closed; a timeout would only be doubled.
                if may_retry && !is_timeout(&cause) {
                    may_retry = false;
                    continue;
                }
                return Err(io_error(writing));
            }
            Exchange::Done { moved, error } => (moved, error, false),
            Exchange::Broken { moved, error } => (moved, error, true),
        };
        if !broken {
            target.db = error.is_none().then_some(request.db);
            let now_s = ctx.srv.now_s();
            ctx.srv.migrate.put_back(request.host, request.port, target, now_s);
        }
        if !request.copy {
            remove_moved(ctx, db, &request, &moved);
        } else {
            // Copied keys are still here: nothing changed.
        }
        return match error {
            Some(text) => {
                let text = [b"ERR Target instance replied with error: ", &text[..]].concat();
                Err(CmdError::bytes(text))
            }
            None if broken => Err(io_error(false)),
            None => {
                ctx.out.ok();
                Ok(())
            }
        };
    }
}

fn io_error(writing: bool) -> CmdError {
    CmdError::of(if writing {
        "IOERR error or timeout writing to target instance"
    } else {
        "IOERR error or timeout reading to target instance"
    })
}

/// Deletes the keys the target has confirmed; the log and the replicas hear of a DEL.
fn remove_moved(ctx: &mut Ctx<'_>, db: usize, request: &Request<'_>, moved: &[usize]) {
    if moved.is_empty() {
        return;
    }
    let mut words: Vec<&[u8]> = vec![b"DEL"];
    for &index in moved {
        let key = request.keys[index];
        ctx.srv.ks.delete(db, key, false);
        ctx.srv.ks.effects.notify(notify::GENERIC, "del", key, db);
        ctx.dirty(1);
        words.push(key);
    }
    ctx.srv.ks.effects.replace_with(&words);
}
