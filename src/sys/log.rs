//! The log: lines as Redis writes them, on standard output, into a file, and to syslog.
//!
//! A line is `<pid>:<role> <dd Mon yyyy hh:mm:ss.mmm> <level> <message>`; role is `M` (master), `S` (replica) or `C` (a
//! child process), level one of `. - * #`. `line` has the forms for machines. The file is opened for each line, so moving it
//! away rotates it.
//!
//! Invariant: logging takes no lock that a forked child could find locked for ever. That is why lines do not pass through
//! the writer of env_logger or through `std::io::Stdout`, why only the main thread asks libc for the local time, and why
//! what goes to syslog does not go through libc, which has a lock for it. The one lock here is only ever write-locked by the
//! main thread, which is also the one that forks.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU8, AtomicU32, Ordering};
use std::sync::{OnceLock, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::reserve;
use line::{Date, Line, Writer};

mod line;

pub(crate) use line::{LogFormat, LogTimestamp};

/// The syslog facility messages are sent with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyslogFacility {
    User,
    Local0,
    Local1,
    Local2,
    Local3,
    Local4,
    Local5,
    Local6,
    Local7,
}

/// The least important messages that are still logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogLevel {
    Debug,
    Verbose,
    Notice,
    Warning,
    Nothing,
}

/// What the server is, as log lines show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `M`, a master.
    Primary,
    /// `S`.
    Replica,
}

/// The file that lines go to; `None`: standard output.
static FILE: RwLock<Option<PathBuf>> = RwLock::new(None);
/// The same path for the signal handler; null is standard output. Never freed, as a handler may be using it.
static FILE_IN_HANDLER: AtomicPtr<libc::c_char> = AtomicPtr::new(ptr::null_mut());
static SYSLOG: OnceLock<Syslog> = OnceLock::new();
/// A role as a number; until one is known, another.
static ROLE: AtomicU8 = AtomicU8::new(u8::MAX);
/// [`LogFormat`] and [`LogTimestamp`] as numbers.
static FORMAT: AtomicU8 = AtomicU8::new(LogFormat::Legacy as u8);
static TIMESTAMP: AtomicU8 = AtomicU8::new(LogTimestamp::Legacy as u8);
/// The id of the main process; others are children.
static MAIN_PROCESS: AtomicU32 = AtomicU32::new(0);
/// Seconds east of UTC when the main thread last looked.
static UTC_OFFSET_SECONDS: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static IS_MAIN_THREAD: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Starts logging to standard output at the default level. To be called by the main thread before anything is logged; a
/// second call only makes this process and thread the main one.
pub(crate) fn start() {
    set_main_process();
    let logger = env_logger::Builder::new()
        // Only this project's messages are part of a Redis log.
        .filter_module("hexad", log::LevelFilter::Trace)
        .filter_module("redis_server", log::LevelFilter::Trace)
        .format(|_, record| {
            write_record(record);
            // The line is out. An error makes env_logger skip its own writer and that writer's lock.
            Err(std::io::ErrorKind::Other.into())
        })
        .build();
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        set_level(LogLevel::Notice);
    }
}

/// Makes the calling process and thread the main one: for use after daemonizing, which changes both.
pub(crate) fn set_main_process() {
    MAIN_PROCESS.store(std::process::id(), Ordering::Relaxed);
    IS_MAIN_THREAD.set(true);
}

/// Logs to this file (an empty name: to standard output), and with `syslog` under that name and facility to syslog as well.
/// To be called by the main thread.
pub(crate) fn configure(level: LogLevel, file: &str, syslog: Option<(&str, SyslogFacility)>) {
    set_level(level);
    let path = (!file.is_empty()).then(|| PathBuf::from(file));
    let in_handler = path.as_ref().and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    FILE_IN_HANDLER.store(in_handler.map_or(ptr::null_mut(), CString::into_raw), Ordering::Release);
    *FILE.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = path;
    if let Some((name, facility)) = syslog {
        SYSLOG.get_or_init(|| Syslog { place: SYSLOG_SOCKET.into(), name: name.to_owned(), facility: code(facility) });
    }
}

/// Sets the least important level that is logged.
pub(crate) fn set_level(level: LogLevel) {
    log::set_max_level(match level {
        LogLevel::Debug => log::LevelFilter::Trace,
        LogLevel::Verbose => log::LevelFilter::Debug,
        LogLevel::Notice => log::LevelFilter::Info,
        LogLevel::Warning => log::LevelFilter::Warn,
        LogLevel::Nothing => log::LevelFilter::Off,
    });
}

/// Sets the role that later lines show.
pub(crate) fn set_role(role: Role) {
    ROLE.store(role as u8, Ordering::Relaxed);
}

/// Sets the form of later lines.
pub(crate) fn set_format(format: LogFormat, timestamp: LogTimestamp) {
    FORMAT.store(format as u8, Ordering::Relaxed);
    TIMESTAMP.store(timestamp as u8, Ordering::Relaxed);
}

/// Writes text as it is, without time and level: the logo, crash reports. In a form for machines each of its lines becomes one of
/// the log.
pub(crate) fn raw(level: log::Level, text: &[u8]) {
    if level > log::max_level() {
        return;
    }
    if format() == LogFormat::Legacy {
        return write(level, text, text);
    }
    for line in String::from_utf8_lossy(text).lines().filter(|line| !line.trim().is_empty()) {
        // Whole, however long: who reads a report wants its command line and memory addresses.
        write_message(level, &without_controls(line.to_owned()));
    }
}

fn format() -> LogFormat {
    let formats = [LogFormat::Legacy, LogFormat::Logfmt, LogFormat::Json];
    formats[usize::from(FORMAT.load(Ordering::Relaxed)) % formats.len()]
}

/// A line of now, whoever writes it.
fn line(pid: u32, writer: Writer, since_epoch: Duration, level: log::Level, message: &str) -> Line<'_> {
    let forms = [LogTimestamp::Legacy, LogTimestamp::Iso8601, LogTimestamp::Milliseconds];
    Line {
        format: format(),
        timestamp: forms[usize::from(TIMESTAMP.load(Ordering::Relaxed)) % forms.len()],
        pid,
        writer,
        since_epoch,
        utc_offset: UTC_OFFSET_SECONDS.load(Ordering::Relaxed),
        level,
        message,
    }
}

/// Writes a line from a signal handler. Async-signal-safe: no allocation, no lock.
pub(crate) fn from_signal_handler(level: log::Level, message: &[u8]) {
    if level > log::max_level() {
        return;
    }
    let path = FILE_IN_HANDLER.load(Ordering::Acquire);
    let fd = if path.is_null() {
        libc::STDOUT_FILENO
    } else {
        // SAFETY: the path is a C string that is never freed; open is async-signal-safe.
        unsafe { libc::open(path, libc::O_APPEND | libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC, 0o644) }
    };
    if fd < 0 {
        return;
    }
    // SAFETY: time with a null pointer only returns the time, and is async-signal-safe.
    let now = unsafe { libc::time(ptr::null_mut()) };
    let pid = std::process::id();
    let mut text = [0; 1024];
    let mut rest = &mut text[..];
    // A message that does not fit is cut.
    let _ = match format() {
        LogFormat::Legacy => write!(rest, "{pid}:signal-handler ({now}) ").and_then(|()| {
            let fits = message.len().min(rest.len().saturating_sub(1));
            rest.write_all(&message[..fits])?;
            rest.write_all(b"\n")
        }),
        LogFormat::Logfmt | LogFormat::Json => {
            /// However much of it has to be escaped, this fits.
            const FITS: usize = 128;
            let message = std::str::from_utf8(&message[..message.len().min(FITS)]).unwrap_or_default();
            let since_epoch = Duration::from_secs(now.unsigned_abs());
            write!(rest, "{}", line(pid, Writer::SignalHandler, since_epoch, level, message))
        }
    };
    let left = rest.len();
    let len = text.len() - left;
    // SAFETY: the first `len` bytes of `text` are initialized, and write is async-signal-safe. A failure cannot be
    // reported.
    unsafe {
        libc::write(fd, text.as_ptr().cast(), len);
        if !path.is_null() {
            libc::close(fd);
        }
    }
}

fn write_record(record: &log::Record<'_>) {
    write_message(record.level(), &printable(record.args().to_string()));
}

fn write_message(level: log::Level, message: &str) {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let pid = std::process::id();
    let is_child = pid != MAIN_PROCESS.load(Ordering::Relaxed);
    if !is_child && IS_MAIN_THREAD.get() {
        UTC_OFFSET_SECONDS.store(utc_offset_seconds(since_epoch.as_secs() as i64), Ordering::Relaxed);
    }
    let writer = match ROLE.load(Ordering::Relaxed) {
        _ if is_child => Writer::Child,
        role if role == Role::Primary as u8 => Writer::Master,
        role if role == Role::Replica as u8 => Writer::Replica,
        _ => Writer::Starting,
    };
    let line = line(pid, writer, since_epoch, level, message).to_string();
    write(level, line.as_bytes(), message.as_bytes());
}

/// The longest message, in bytes; the same in Redis.
const MESSAGE_MAX: usize = 1023;

/// Escapes control characters and cuts what is too long: some of the text comes from clients and peers.
fn printable(message: String) -> String {
    let mut message = without_controls(message);
    if message.len() > MESSAGE_MAX {
        let end = (0..=MESSAGE_MAX).rev().find(|end| message.is_char_boundary(*end));
        message.truncate(end.unwrap_or(0));
    }
    message
}

fn without_controls(message: String) -> String {
    if !message.contains(char::is_control) {
        return message;
    }
    let mut out = String::with_capacity(message.len() + 16);
    for c in message.chars() {
        match c {
            '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// `line` goes to the file or standard output in one write, so that lines of several processes do not mix; `message` to
/// syslog. A log that cannot be written must not stop the server.
fn write(level: log::Level, line: &[u8], message: &[u8]) {
    {
        let file = FILE.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        match file.as_ref() {
            Some(path) => {
                let mut options = std::fs::OpenOptions::new();
                options.append(true).create(true);
                let _ = reserve::open_in_need(|| options.open(path)).and_then(|mut file| file.write_all(line));
            }
            None => write_stdout(line),
        }
    }
    if let Some(syslog) = SYSLOG.get() {
        syslog.write(level, message);
    }
}

fn write_stdout(mut line: &[u8]) {
    let stdout = std::io::stdout();
    while !line.is_empty() {
        match nix::unistd::write(stdout.as_fd(), line) {
            Ok(written) => line = &line[written..],
            Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return,
        }
    }
}

/// Where the system's log listens.
const SYSLOG_SOCKET: &str = "/dev/log";
/// How long it may take for a message: a log that is slow must not stop the server.
const SYSLOG_PATIENCE: Duration = Duration::from_millis(100);

/// The system's log, and as what it gets messages.
struct Syslog {
    place: PathBuf,
    name: String,
    facility: libc::c_int,
}

fn code(facility: SyslogFacility) -> libc::c_int {
    match facility {
        SyslogFacility::User => libc::LOG_USER,
        SyslogFacility::Local0 => libc::LOG_LOCAL0,
        SyslogFacility::Local1 => libc::LOG_LOCAL1,
        SyslogFacility::Local2 => libc::LOG_LOCAL2,
        SyslogFacility::Local3 => libc::LOG_LOCAL3,
        SyslogFacility::Local4 => libc::LOG_LOCAL4,
        SyslogFacility::Local5 => libc::LOG_LOCAL5,
        SyslogFacility::Local6 => libc::LOG_LOCAL6,
        SyslogFacility::Local7 => libc::LOG_LOCAL7,
    }
}

impl Syslog {
    /// Every message is on its own: whoever listens may be restarted at any time. If nobody does, it is lost.
    fn write(&self, level: log::Level, message: &[u8]) {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let local = since_epoch.as_secs() as i64 + UTC_OFFSET_SECONDS.load(Ordering::Relaxed);
        let text = self.text(level, local, std::process::id(), message);
        let sent = reserve::open_in_need(UnixDatagram::unbound).and_then(|socket| {
            socket.set_write_timeout(Some(SYSLOG_PATIENCE))?;
            socket.send_to(&text, &self.place)
        });
        if sent.is_err_and(|e| e.raw_os_error() == Some(libc::EPROTOTYPE)) {
            // Some listen for streams of messages that each end with a NUL.
            let _ = UnixStream::connect(&self.place).and_then(|mut stream| {
                stream.set_write_timeout(Some(SYSLOG_PATIENCE))?;
                stream.write_all(&[&text, &b"\0"[..]].concat())
            });
        }
    }

    /// As libc would send it: `<priority>Mon dd hh:mm:ss name[pid]: message`.
    fn text(&self, level: log::Level, local_seconds: i64, pid: u32, message: &[u8]) -> Vec<u8> {
        let severity = match level {
            log::Level::Error | log::Level::Warn => libc::LOG_WARNING,
            log::Level::Info => libc::LOG_NOTICE,
            log::Level::Debug => libc::LOG_INFO,
            log::Level::Trace => libc::LOG_DEBUG,
        };
        let (priority, time) = (self.facility | severity, Date::of(local_seconds).for_syslog());
        let mut text = format!("<{priority}>{time} {}[{pid}]: ", self.name).into_bytes();
        text.extend(message.iter().filter(|byte| **byte != 0));
        text
    }
}

/// Seconds east of UTC at a time. Takes libc's time zone lock.
fn utc_offset_seconds(seconds: i64) -> i64 {
    // SAFETY: tm is plain data, for which zeros are valid; localtime_r fills it in and keeps no pointer.
    let local = unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&seconds, &mut local).is_null() {
            return 0;
        }
        local
    };
    local.tm_gmtoff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_others_stays_in_its_line() {
        let shown = |text: &str| printable(text.to_owned());
        assert_eq!(shown("name 'a\nb\r\t\x1b[2J\u{9b}\0\\n'"), r"name 'a\nb\r\t\x1b[2J\x9b\x00\n'");
        assert_eq!(shown("déjà vu"), "déjà vu");
        assert_eq!(shown(&"é".repeat(1000)), "é".repeat(511));
    }

    #[test]
    fn lines_go_to_the_file_that_is_there_when_they_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        start();
        configure(LogLevel::Verbose, path.to_str().unwrap(), None);
        set_role(Role::Replica);
        log::info!("first");
        std::fs::rename(&path, dir.path().join("log.1")).unwrap();
        set_role(Role::Primary);
        log::debug!("second");
        log::trace!("not logged");
        log::warn!(target: "mio", "not ours");
        raw(log::Level::Warn, b"raw\n");
        from_signal_handler(log::Level::Warn, b"signal");
        set_format(LogFormat::Json, LogTimestamp::Legacy);
        raw(log::Level::Warn, format!("\n{}\n", "long".repeat(1000)).as_bytes());
        set_format(LogFormat::Legacy, LogTimestamp::Legacy);
        let first = std::fs::read_to_string(dir.path().join("log.1")).unwrap_or_default();
        let rest = std::fs::read_to_string(&path).unwrap();
        configure(LogLevel::Notice, "", None);
        let pid = std::process::id();
        let first = first.lines().find(|line| line.ends_with(" * first")).unwrap();
        let time = first.strip_prefix(&format!("{pid}:S ")).unwrap().strip_suffix(" * first").unwrap();
        assert_eq!(time.len(), "22 Nov 2026 11:13:42.123".len(), "{time}");
        // Other tests of this process may log too.
        let ours = ["second", "not logged", "not ours", "raw", "signal"];
        let lines: Vec<&str> = rest.lines().filter(|line| ours.iter().any(|end| line.ends_with(end))).collect();
        assert_eq!(lines.len(), 3, "{rest}");
        assert!(lines[0].starts_with(&format!("{pid}:M ")) && lines[0].ends_with(" - second"));
        assert_eq!(lines[1], "raw");
        assert!(lines[2].starts_with(&format!("{pid}:signal-handler (")) && lines[2].ends_with(") signal"));
        // A report is not cut.
        assert!(rest.contains(&format!("\"message\":\"{}\"}}\n", "long".repeat(1000))), "{rest}");
    }

    #[test]
    fn syslog_gets_messages_in_its_form_however_it_listens() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("log");
        let syslog = Syslog { place: place.clone(), name: "redis".into(), facility: code(SyslogFacility::Local3) };
        let text = |seconds, message: &[u8]| syslog.text(log::Level::Info, seconds, 12, message);
        assert_eq!(text(1_795_346_022, b"a\0b"), b"<157>Nov 22 11:13:42 redis[12]: ab");
        assert_eq!(text(4_107_542_400, b""), b"<157>Mar  1 00:00:00 redis[12]: ");
        assert_eq!(text(1_709_251_199 - 86400 * 9, b""), b"<157>Feb 20 23:59:59 redis[12]: ");
        // Nobody listens.
        syslog.write(log::Level::Warn, b"lost");
        let listener = UnixDatagram::bind(&place).unwrap();
        syslog.write(log::Level::Warn, b"first");
        let mut got = [0; 200];
        let len = listener.recv(&mut got).unwrap();
        assert!(got.starts_with(b"<156>") && got[..len].ends_with(b": first"), "{:?}", &got[..len]);
        drop(listener);
        std::fs::remove_file(&place).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(&place).unwrap();
        syslog.write(log::Level::Trace, b"second");
        let mut got = Vec::new();
        std::io::Read::read_to_end(&mut listener.accept().unwrap().0, &mut got).unwrap();
        assert!(got.starts_with(b"<159>") && got.ends_with(b": second\0"), "{got:?}");
    }

    /// Run by hand for the cost of a line: `cargo test --release -- --ignored --nocapture cost_of_a_line`.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_a_line() {
        let dir = tempfile::tempdir().unwrap();
        start();
        configure(LogLevel::Notice, dir.path().join("log").to_str().unwrap(), None);
        let begin = std::time::Instant::now();
        for _ in 0..100_000 {
            log::info!("a line of usual length, as 10000 others");
        }
        println!("{:?} a line", begin.elapsed() / 100_000);
        configure(LogLevel::Notice, "", None);
    }
}
