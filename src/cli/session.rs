//! One user's session with a server: connecting and logging in, sending commands, printing replies, following
//! redirections, and tracking the state that the server keeps (database, transaction, subscriptions, protocol).
//!
//! It serves both a single command from the command line and the prompt. Reading lines is left to `prompt`.

use std::os::fd::AsFd;
use std::path::Path;
use std::process::exit;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use super::connection::{Connection, LinkError, describe};
use super::format::{OutputMode, invalidation, render};
use super::help;
use super::modes::replica;
use super::options::{Options, Protocol, leading_int};
use super::term::{complain, put_now, say, stdout_is_tty};
use crate::resp::reply_reader::Reply;

/// Redirections followed without a pause; more mean that slots are moving.
const FAST_REDIRECTS: u32 = 16;

/// What to do with RESP3 push messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pushes {
    /// Print them when they come.
    Print,
    /// Ignore them.
    Drop,
    /// They are what the caller waits for.
    Deliver,
}

/// The command could not be carried out; the reason has been printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed;

enum Broken {
    Link(LinkError),
    /// Ctrl-C while messages were streaming.
    Interrupted,
}

impl From<LinkError> for Broken {
    fn from(error: LinkError) -> Self {
        Broken::Link(error)
    }
}

pub(crate) struct Session {
    /// The options of the command line.
    pub(crate) opts: Options,
    /// Where the next connection goes.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) conn: Option<Connection>,
    /// Whether a person (or a script in their place) types commands.
    pub(crate) interactive: bool,
    /// Messages of subscriptions may come at any time.
    pub(crate) pubsub: bool,
    pub(crate) output: OutputMode,
    wanted_db: i64,
    db: i64,
    in_multi: bool,
    db_before_multi: i64,
    monitor: bool,
    resp3: bool,
    pushes: Pushes,
    print_pushes: bool,
    redirected: bool,
    asking: bool,
    shutting_down: bool,
    interrupts: Option<SignalFd>,
    help: Option<help::Help>,
}

/// What ended a wait in subscribed mode. If several did, the first of these variants is reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Ctrl-C was pressed.
    Interrupt,
    /// The server sent something.
    Message,
    /// Something was typed.
    Input,
    Nothing,
}

/// A redirection of a cluster (`-MOVED`, `-ASK`).
#[derive(Debug, PartialEq, Eq)]
struct Redirection {
    ask: bool,
    slot: i64,
    /// `None` when the server does not know its own name: the host stays the same.
    host: Option<String>,
    port: u16,
}

fn redirection(error: &[u8]) -> Option<Redirection> {
    let text = String::from_utf8_lossy(error);
    let mut words = text.split(' ');
    let ask = match words.next()? {
        "MOVED" => false,
        "ASK" => true,
        _ => return None,
    };
    let slot = words.next()?.parse().ok()?;
    let (host, port) = words.next()?.rsplit_once(':')?;
    Some(Redirection { ask, slot, host: (!host.is_empty()).then(|| host.to_string()), port: port.parse().ok()? })
}

/// Whether the reply is text for people, printed without quotes.
fn prints_verbatim(args: &[Vec<u8>]) -> bool {
    let word = |at: usize, name: &str| args.get(at).is_some_and(|a| a.eq_ignore_ascii_case(name.as_bytes()));
    let any = |names: &[&str]| names.iter().any(|name| word(1, name));
    word(0, "info")
        || word(0, "lolwut")
        || (word(0, "debug") && any(&["htstats", "htstats-key", "client-eviction"]))
        || (word(0, "memory") && any(&["malloc-stats", "doctor"]))
        || (word(0, "cluster") && args.len() == 2 && any(&["nodes", "info"]))
        || (word(0, "client") && any(&["list", "info"]))
        || (word(0, "latency") && args.len() == 3 && any(&["graph"]))
        || (word(0, "latency") && args.len() == 2 && any(&["doctor"]))
        || (word(0, "proxy") && any(&["info"]))
}

/// Whether a reply is a message or confirmation of a subscription.
fn is_pubsub_message(reply: &Reply, resp3: bool) -> bool {
    let items = match reply {
        Reply::Push(items) if resp3 => items,
        Reply::Array(items) if !resp3 => items,
        _ => return false,
    };
    match items.as_slice() {
        [Reply::Bulk(kind), _, _, ..] => kind.ends_with(b"message") || kind.ends_with(b"subscribe"),
        _ => false,
    }
}

impl Session {
    /// A session that is not connected yet.
    pub(crate) fn new(opts: Options) -> Session {
        let tty = stdout_is_tty();
        let default_output = if tty { OutputMode::Standard } else { OutputMode::Raw };
        Session {
            host: opts.host.clone(),
            port: opts.port,
            conn: None,
            interactive: false,
            pubsub: false,
            output: opts.output.unwrap_or(default_output),
            wanted_db: opts.db,
            db: 0,
            in_multi: false,
            db_before_multi: 0,
            monitor: false,
            resp3: false,
            pushes: Pushes::Drop,
            print_pushes: opts.show_pushes.unwrap_or(tty),
            redirected: false,
            asking: false,
            shutting_down: false,
            interrupts: None,
            help: None,
            opts,
        }
    }

    /// From now on Ctrl-C ends streaming rather than the process.
    pub(crate) fn make_interactive(&mut self) {
        self.interactive = true;
        self.catch_interrupts();
    }

    /// From now on Ctrl-C is reported by [`Session::interrupted`] and the like.
    pub(crate) fn catch_interrupts(&mut self) {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        if signals.thread_block().is_ok() {
            self.interrupts = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).ok();
        }
    }

    /// Whether Ctrl-C is held until asked for. Where nobody asks (connecting, reading a line), it has its usual effect.
    pub(crate) fn hold_interrupts(&self, hold: bool) {
        if self.interrupts.is_none() {
            return;
        }
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        let _ = if hold { signals.thread_block() } else { signals.thread_unblock() };
    }

    /// The text before the cursor.
    pub(crate) fn prompt(&self) -> String {
        if self.conn.is_none() {
            return "not connected> ".into();
        }
        let mut prompt = match &self.opts.socket {
            Some(path) => format!("redis {}", String::from_utf8_lossy(path)),
            None if self.host.contains(':') => format!("[{}]:{}", self.host, self.port),
            None => format!("{}:{}", self.host, self.port),
        };
        if self.db != 0 {
            prompt.push_str(&format!("[{}]", self.db));
        }
        if self.in_multi {
            prompt.push_str("(TX)");
        }
        if self.pubsub {
            prompt.push_str("(subscribed mode)");
        }
        prompt.push_str("> ");
        prompt
    }

    /// Connects unless connected, and prepares the connection: login, database, protocol.
    pub(crate) fn connect(&mut self, quiet: bool) -> Result<(), Failed> {
        if self.conn.is_some() {
            return Ok(());
        }
        self.reconnect(quiet)
    }

    /// Closes the connection and makes a new one.
    pub(crate) fn reconnect(&mut self, quiet: bool) -> Result<(), Failed> {
        // A fresh connection has none of the state of the last one.
        self.conn = None;
        self.db = 0;
        self.in_multi = false;
        self.pubsub = false;
        self.hold_interrupts(false);
        let (opened, peer) = match &self.opts.socket {
            Some(path) => {
                let path = String::from_utf8_lossy(path).into_owned();
                (Connection::unix(Path::new(&path)), path)
            }
            None => (
                Connection::tcp(&self.host, self.port, self.opts.connect_timeout, self.opts.tls()),
                format!("{}:{}", self.host, self.port),
            ),
        };
        self.hold_interrupts(true);
        match opened {
            Ok(conn) => self.conn = Some(conn),
            Err(error) => {
                if !quiet {
                    complain!("Could not connect to Redis at {peer}: {}\n", describe(&error));
                }
                return Err(Failed);
            }
        }
        self.resp3 = false;
        self.pushes = if self.print_pushes { Pushes::Print } else { Pushes::Drop };
        self.log_in()?;
        self.select()?;
        self.negotiate_protocol()
    }

    /// Runs a command of the session itself, whose reply is not printed.
    pub(crate) fn internal(&mut self, args: &[&[u8]]) -> Result<Reply, Failed> {
        let conn = self.conn.as_mut().ok_or(Failed)?;
        conn.command(args).map_err(|_| {
            complain!("\nI/O error\n");
            Failed
        })
    }

    fn log_in(&mut self) -> Result<(), Failed> {
        let Some(password) = self.opts.auth.clone() else {
            return Ok(());
        };
        let user = self.opts.user.clone();
        let mut args: Vec<&[u8]> = vec![b"AUTH"];
        args.extend(user.as_deref());
        args.push(&password);
        match self.internal(&args)?.error() {
            None => Ok(()),
            Some(reason) => {
                complain!("AUTH failed: {}\n", String::from_utf8_lossy(reason));
                Err(Failed)
            }
        }
    }

    fn select(&mut self) -> Result<(), Failed> {
        if self.wanted_db == self.db {
            return Ok(());
        }
        let db = self.wanted_db.to_string();
        match self.internal(&[b"SELECT", db.as_bytes()])?.error() {
            None => {
                self.db = self.wanted_db;
                Ok(())
            }
            Some(reason) => {
                complain!("SELECT {db} failed: {}\n", String::from_utf8_lossy(reason));
                Err(Failed)
            }
        }
    }

    fn negotiate_protocol(&mut self) -> Result<(), Failed> {
        let required = match self.opts.protocol {
            Protocol::Default | Protocol::Resp2 => return Ok(()),
            Protocol::Resp3 => true,
            Protocol::Resp3IfKnown => false,
        };
        match self.internal(&[b"HELLO", b"3"])?.error() {
            None => {
                self.resp3 = true;
                Ok(())
            }
            Some(reason) => {
                complain!("HELLO 3 failed: {}\n", String::from_utf8_lossy(reason));
                if required { Err(Failed) } else { Ok(()) }
            }
        }
    }

    /// Runs a command as often as the options say.
    pub(crate) fn issue(&mut self, args: &[Vec<u8>]) -> Result<(), Failed> {
        let repeat = self.opts.repeat;
        self.issue_repeatedly(args, repeat)
    }

    /// Runs a command so many times, following redirections of a cluster.
    pub(crate) fn issue_repeatedly(&mut self, args: &[Vec<u8>], repeat: i64) -> Result<(), Failed> {
        let Some(command) = args.first() else {
            return Ok(());
        };
        if command.eq_ignore_ascii_case(b"help") || command == b"?" {
            let quiet = true;
            let _ = self.connect(quiet);
            self.help().print(&args[1..]);
            return Ok(());
        }
        let mut hops = 0u32;
        let mut retried = false;
        loop {
            let moved = std::mem::take(&mut self.redirected);
            if moved || self.conn.is_none() {
                self.reconnect(false)?;
            }
            if std::mem::take(&mut self.asking)
                && let Some(reason) = self.internal(&[b"ASKING"])?.error()
            {
                complain!("ASKING failed: {}\n", String::from_utf8_lossy(reason));
                return Err(Failed);
            }
            if let Err(error) = self.run(args, repeat) {
                // A server that was restarted, or closed an idle connection, gets the command again, unless it was part
                // of a transaction.
                let lone = self.interactive && !self.in_multi && !self.monitor && !self.pubsub;
                self.conn = None;
                if lone && !retried && error.as_ref().is_some_and(LinkError::is_disconnect) {
                    retried = true;
                    self.reconnect(false)?;
                    continue;
                }
                self.monitor = false;
                if let Some(error) = error {
                    complain!("Error: {error}\n");
                }
                return Err(Failed);
            }
            if !(self.opts.follow && self.redirected) {
                return Ok(());
            }
            hops += 1;
            if hops > FAST_REDIRECTS {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// What the prompt knows about commands, asked from the server once.
    pub(crate) fn help(&mut self) -> &help::Help {
        if self.help.is_none() {
            self.help = Some(help::Help::load(self.conn.as_mut()));
        }
        self.help.get_or_insert_with(help::Help::default)
    }

    fn run(&mut self, args: &[Vec<u8>], repeat: i64) -> Result<(), Option<LinkError>> {
        let is = |name: &str| args[0].eq_ignore_ascii_case(name.as_bytes());
        let verbatim = prints_verbatim(args);
        let subscribes = is("subscribe") || is("psubscribe") || is("ssubscribe");
        let unsubscribes = is("unsubscribe") || is("punsubscribe") || is("sunsubscribe");
        self.shutting_down |= is("shutdown");
        self.monitor |= is("monitor");
        let mut left = repeat;
        while left != 0 {
            left -= i64::from(left > 0);
            let Some(conn) = self.conn.as_mut() else {
                return Err(None);
            };
            let sent = conn.send(args);
            self.lost(sent)?;
            if self.monitor {
                self.stream_monitor()?;
                return Ok(());
            }
            if is("sync") || is("psync") {
                say!("Entering replica output mode...  (press Ctrl-C to quit)\n");
                replica::follow(self, false);
                return Err(None);
            }
            let mut confirmations = 0;
            if subscribes || unsubscribes {
                confirmations = args.len().saturating_sub(1).max(1);
                self.pushes = Pushes::Deliver;
            }
            let Some(reply) = self.show_up_to_reply(args, verbatim, subscribes, confirmations)? else {
                return Ok(());
            };
            self.note(args, &reply, subscribes || unsubscribes);
            if self.redirected {
                return Ok(());
            }
            if self.opts.interval_us > 0 {
                std::thread::sleep(Duration::from_micros(self.opts.interval_us));
            }
        }
        Ok(())
    }

    /// Shows what comes up to the reply of a command, or to the last of the confirmations that it gets.
    fn show_up_to_reply(
        &mut self,
        args: &[Vec<u8>],
        verbatim: bool,
        subscribes: bool,
        mut confirmations: usize,
    ) -> Result<Option<Reply>, Option<LinkError>> {
        while let Some(reply) = self.show_reply(verbatim)? {
            if !self.pubsub && confirmations == 0 {
                return Ok(Some(reply));
            }
            if is_pubsub_message(&reply, self.resp3) {
                let kind = reply.elements().and_then(|items| items[0].text());
                let confirms = kind.is_some_and(|kind| args[0].eq_ignore_ascii_case(kind));
                if confirmations > 0 && confirms {
                    self.pubsub |= subscribes;
                    confirmations -= 1;
                    if confirmations == 0 {
                        return Ok(Some(reply));
                    }
                }
            } else if !matches!(reply, Reply::Push(_)) {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// Tracks what a command changed in the state of the connection.
    fn note(&mut self, args: &[Vec<u8>], reply: &Reply, about_subscriptions: bool) {
        let is = |name: &str| args[0].eq_ignore_ascii_case(name.as_bytes());
        let alone = args.len() == 1;
        let ok = !reply.is_error();
        if is("select") && args.len() == 2 && ok {
            self.db = leading_int(&args[1]);
            self.wanted_db = self.db;
        } else if is("auth") && (args.len() == 2 || args.len() == 3) {
            let _ = self.select();
        } else if is("multi") && alone && ok {
            self.in_multi = true;
            self.db_before_multi = self.db;
        } else if is("exec") && alone && self.in_multi {
            self.in_multi = false;
            if !ok || *reply == Reply::Nil {
                self.db = self.db_before_multi;
                self.wanted_db = self.db;
            }
        } else if is("discard") && alone && ok {
            self.in_multi = false;
            self.db = self.db_before_multi;
            self.wanted_db = self.db;
        } else if is("reset") && alone && ok {
            self.in_multi = false;
            self.db = 0;
            self.wanted_db = 0;
            self.resp3 = false;
            if self.pubsub && self.print_pushes {
                self.pushes = Pushes::Print;
            }
            self.pubsub = false;
        } else if is("hello") {
            match reply {
                Reply::Map(_) => self.resp3 = true,
                Reply::Array(_) => self.resp3 = false,
                _ => {}
            }
        } else if about_subscriptions && !self.pubsub && self.print_pushes {
            self.pushes = Pushes::Print;
        }
    }

    /// Prints what MONITOR reports until it fails or Ctrl-C is pressed.
    fn stream_monitor(&mut self) -> Result<(), Option<LinkError>> {
        while self.monitor {
            match self.show_reply(false)? {
                Some(reply) if reply.is_error() => self.monitor = false,
                Some(_) => {}
                None => self.monitor = false,
            }
        }
        Ok(())
    }

    /// Handles a broken link: at the prompt the caller reports it and a later command connects again; elsewhere the
    /// program ends.
    fn lost<T>(&mut self, result: Result<T, LinkError>) -> Result<T, Option<LinkError>> {
        result.map_err(|error| {
            if self.interactive && error.is_disconnect() {
                return Some(error);
            }
            complain!("Error: {error}\n");
            exit(1);
        })
    }

    /// Reads a reply, prints it or notes the redirection it carries.
    ///
    /// `None` means that no reply will come, and that this is no error: the server shut down as asked, or Ctrl-C ended
    /// the stream and the connection is new.
    pub(crate) fn show_reply(&mut self, verbatim: bool) -> Result<Option<Reply>, Option<LinkError>> {
        let reply = match self.receive() {
            Ok(reply) => reply,
            Err(Broken::Interrupted) => {
                self.monitor = false;
                self.pubsub = false;
                return match self.reconnect(false) {
                    Ok(()) => Ok(None),
                    Err(Failed) => Err(None),
                };
            }
            Err(Broken::Link(_)) if self.shutting_down => {
                self.shutting_down = false;
                self.conn = None;
                return Ok(None);
            }
            Err(Broken::Link(error)) => return self.lost(Err(error)),
        };
        if let Reply::Error(text) = &reply {
            let target = redirection(text).filter(|_| self.opts.follow);
            if let Some(target) = target {
                self.redirect_to(target);
                return Ok(Some(reply));
            }
            if self.opts.fail_on_error && !self.interactive {
                complain!("{}\n", String::from_utf8_lossy(text));
                exit(1);
            }
        }
        put_now(&render(&reply, self.output, verbatim, &self.opts.delimiters));
        Ok(Some(reply))
    }

    fn redirect_to(&mut self, target: Redirection) {
        if let Some(host) = target.host {
            self.host = host;
        }
        self.port = target.port;
        if self.interactive {
            say!("-> Redirected to slot [{}] located at {}:{}\n", target.slot, self.host, self.port);
        }
        self.redirected = true;
        self.asking = target.ask;
    }

    fn receive(&mut self) -> Result<Reply, Broken> {
        loop {
            let Some(conn) = self.conn.as_mut() else {
                return Err(LinkError::Closed.into());
            };
            match conn.buffered()? {
                Some(push @ Reply::Push(_)) if self.pushes != Pushes::Deliver => {
                    if self.pushes == Pushes::Print {
                        self.print_push(&push);
                    }
                }
                Some(reply) => return Ok(reply),
                None => {
                    self.wait_readable()?;
                    if let Some(conn) = self.conn.as_mut() {
                        conn.fill()?;
                    }
                }
            }
        }
    }

    fn print_push(&self, push: &Reply) {
        let text = match invalidation(push).filter(|_| self.output == OutputMode::Standard) {
            Some(text) => text,
            None => render(push, self.output, false, &self.opts.delimiters),
        };
        put_now(&text);
    }

    /// Waits for bytes from the server. Ctrl-C ends a stream of messages, or the process.
    fn wait_readable(&mut self) -> Result<(), Broken> {
        let (Some(conn), Some(interrupts)) = (&self.conn, &self.interrupts) else {
            return Ok(());
        };
        let mut fds =
            [PollFd::new(conn.as_fd(), PollFlags::POLLIN), PollFd::new(interrupts.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(LinkError::Io(error.into()).into()),
                Ok(_) => break,
            }
        }
        let interrupted = fds[1].any().unwrap_or(false);
        if interrupted {
            self.take_interrupt();
            if self.monitor || self.pubsub {
                return Err(Broken::Interrupted);
            }
            exit(1);
        }
        Ok(())
    }

    /// Whether Ctrl-C has been pressed.
    pub(crate) fn interrupted(&mut self) -> bool {
        let Some(interrupts) = &self.interrupts else { return false };
        let mut fds = [PollFd::new(interrupts.as_fd(), PollFlags::POLLIN)];
        let pressed = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0);
        if pressed {
            self.take_interrupt();
        }
        pressed
    }

    /// Consumes a pending Ctrl-C.
    pub(crate) fn take_interrupt(&mut self) {
        if let Some(interrupts) = &mut self.interrupts {
            let _ = interrupts.read_signal();
        }
    }

    /// Waits in subscribed mode, for `timeout_ms` at most.
    pub(crate) fn wait_message_or_input(&mut self, timeout_ms: u16) -> Awaited {
        let Some(conn) = &self.conn else {
            // Reading will show that the connection is gone.
            return Awaited::Message;
        };
        let stdin = std::io::stdin();
        let mut fds = vec![PollFd::new(conn.as_fd(), PollFlags::POLLIN), PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        if let Some(interrupts) = &self.interrupts {
            fds.push(PollFd::new(interrupts.as_fd(), PollFlags::POLLIN));
        }
        if poll(&mut fds, PollTimeout::from(timeout_ms)).is_err() {
            return Awaited::Nothing;
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| fd.any().unwrap_or(false));
        if ready(2) {
            Awaited::Interrupt
        } else if ready(0) {
            Awaited::Message
        } else if ready(1) {
            Awaited::Input
        } else {
            Awaited::Nothing
        }
    }

    /// Prints messages that have already been read from the socket.
    pub(crate) fn show_buffered(&mut self) {
        while let Some(conn) = self.conn.as_mut() {
            match conn.buffered() {
                Ok(Some(reply)) => put_now(&render(&reply, self.output, false, &self.opts.delimiters)),
                Ok(None) => return,
                Err(error) => {
                    complain!("Error: {error}\n");
                    exit(1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections() {
        assert_eq!(
            redirection(b"MOVED 3999 127.0.0.1:6381"),
            Some(Redirection { ask: false, slot: 3999, host: Some("127.0.0.1".into()), port: 6381 })
        );
        let unknown_host = redirection(b"ASK 1 :7000").unwrap();
        assert_eq!((unknown_host.ask, unknown_host.host), (true, None));
        assert_eq!(redirection(b"MOVED 1 ::1:7000").unwrap().host.as_deref(), Some("::1"));
        for other in ["ERR no", "MOVED", "MOVED x y:1", "MOVED 1 nowhere", "ASKING 1 a:1"] {
            assert_eq!(redirection(other.as_bytes()), None);
        }
    }

    #[test]
    fn text_for_people_is_not_quoted() {
        let verbatim = |line: &str| {
            let args: Vec<Vec<u8>> = line.split(' ').map(|w| w.into()).collect();
            prints_verbatim(&args)
        };
        for line in ["INFO", "info all", "cluster nodes", "CLIENT LIST", "latency doctor"] {
            assert!(verbatim(line), "{line}");
        }
        for line in ["get info", "cluster slots", "cluster nodes x", "latency graph"] {
            assert!(!verbatim(line), "{line}");
        }
    }

    #[test]
    fn prompts() {
        let mut session = Session::new(Options::default());
        assert_eq!(session.prompt(), "not connected> ");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        session.port = listener.local_addr().unwrap().port();
        session.connect(false).unwrap();
        let base = format!("127.0.0.1:{}", session.port);
        assert_eq!(session.prompt(), format!("{base}> "));
        session.db = 2;
        session.in_multi = true;
        assert_eq!(session.prompt(), format!("{base}[2](TX)> "));
    }

    #[test]
    fn pubsub_messages() {
        let parts = |kind: &str| vec![Reply::Bulk(kind.into()), Reply::Bulk(b"ch".to_vec()), Reply::Integer(1)];
        assert!(is_pubsub_message(&Reply::Array(parts("subscribe")), false));
        assert!(is_pubsub_message(&Reply::Push(parts("pmessage")), true));
        assert!(!is_pubsub_message(&Reply::Push(parts("pmessage")), false));
        assert!(!is_pubsub_message(&Reply::Array(parts("invalidate")), false));
    }
}
