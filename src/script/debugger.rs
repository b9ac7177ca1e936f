//! The debugger of EVAL scripts: `SCRIPT DEBUG`, and the session of redis-cli --ldb over its connection.
//!
//! During a session the connection is the debugger's: it blocks, and receives commands of the debugger. A session runs
//! in a forked child, whose changes are lost with it, or in the server itself (`SYNC`), which serves no other clients
//! meanwhile. Commands and texts are those of redis-cli's debugger.

use crate::net::Conn;
use crate::resp::{Args, Reply};
use crate::structs::bytes::append_quoted;
use nix::unistd::Pid;
use std::io::{Read, Write};
use std::time::Duration;

/// Most breakpoints of a session.
const MAX_BREAKPOINTS: usize = 64;
/// Bytes of a logged value by default; longer ones are cut.
const DEFAULT_MAX_LEN: usize = 256;
/// Most bytes of a command that is not whole yet.
const MAX_COMMAND_BYTES: usize = 1 << 20;
pub(crate) const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// The debugger's state; without a connection there is no session.
#[derive(Debug, Default)]
pub(crate) struct Debugger {
    pub(crate) conn: Option<Conn>,
    /// Stop at the next line.
    pub(super) step: bool,
    /// `redis.breakpoint()` was called.
    pub(super) asked: bool,
    pub(super) line: i64,
    breakpoints: Vec<i64>,
    pub(crate) source: Vec<Vec<u8>>,
    logs: Vec<Vec<u8>>,
    input: Vec<u8>,
    max_len: usize,
    hinted: bool,
    /// Forked sessions.
    pub(crate) children: Vec<Pid>,
}

/// The result of waiting for a command.
pub(super) enum Next {
    Command(Vec<Vec<u8>>),
    /// The client is gone.
    Gone,
    /// The script is to end with this error.
    Failed(&'static [u8]),
}

impl Debugger {
    /// Prepares for a session, which stops at the first line.
    pub(crate) fn begin(&mut self) {
        let children = std::mem::take(&mut self.children);
        *self = Debugger { step: true, max_len: DEFAULT_MAX_LEN, children, ..Debugger::default() };
    }

    /// Whether there is a session.
    pub(crate) fn is_active(&self) -> bool {
        self.conn.is_some()
    }

    /// Whether each step of the script is logged.
    pub(super) fn logs_steps(&self) -> bool {
        self.is_active() && self.step
    }

    pub(crate) fn log(&mut self, entry: impl Into<Vec<u8>>) {
        self.logs.push(entry.into());
    }

    /// Logs a value, cut to the longest length that is set.
    pub(super) fn log_value(&mut self, mut entry: Vec<u8>) {
        let is_long = self.max_len > 0 && entry.len() > self.max_len;
        if is_long {
            entry.truncate(self.max_len);
            entry.extend_from_slice(b" ...");
        }
        self.log(entry);
        if is_long && !self.hinted {
            self.hinted = true;
            self.log("<hint> The above reply was trimmed. Use 'maxlen 0' to disable trimming.");
        }
    }

    pub(super) fn log_command(&mut self, args: Args<'_>) {
        let mut line = b"<redis>".to_vec();
        for (i, arg) in args.iter().enumerate() {
            if i == 10 {
                line.extend_from_slice(format!(" ... ({} more)", args.len() - i - 1).as_bytes());
                break;
            }
            line.push(b' ');
            line.extend_from_slice(arg);
        }
        self.log(line);
    }

    pub(super) fn log_reply(&mut self, reply: &[u8]) {
        let mut line = b"<reply> ".to_vec();
        describe(&mut line, reply);
        self.log_value(line);
    }

    /// Sends what was logged, as an array of statuses.
    pub(crate) fn send_logs(&mut self) {
        let mut reply = Reply::default();
        reply.array(self.logs.len());
        for entry in self.logs.drain(..) {
            let line: Vec<u8> = entry.iter().map(|b| if matches!(b, b'\r' | b'\n') { b' ' } else { *b }).collect();
            reply.simple_bytes(&line);
        }
        if let Some(conn) = &mut self.conn {
            // A connection that fails shows at the next read.
            let _ = conn.write_all(&reply.buf);
        }
    }

    /// Waits for a command of the client.
    pub(super) fn next_command(&mut self) -> Next {
        loop {
            match parse(&self.input) {
                Ok(Some(command)) => {
                    self.input.clear();
                    return Next::Command(command);
                }
                Ok(None) => {}
                Err(()) => return Next::Failed(b"protocol error"),
            }
            let mut buf = [0; 1024];
            match self.conn.as_mut().map(|conn| conn.read(&mut buf)) {
                Some(Ok(n @ 1..)) => self.input.extend_from_slice(&buf[..n]),
                _ => {
                    // The script goes on without stopping.
                    self.step = false;
                    self.breakpoints.clear();
                    return Next::Gone;
                }
            }
            if self.input.len() > MAX_COMMAND_BYTES {
                self.input.clear();
                return Next::Failed(b"max client buffer reached");
            }
        }
    }

    pub(super) fn is_breakpoint(&self, line: i64) -> bool {
        self.breakpoints.contains(&line)
    }

    pub(super) fn log_line(&mut self, line: i64) {
        let text = usize::try_from(line - 1).ok().and_then(|i| self.source.get(i));
        let text = text.map_or(&b"<out of range source code line>"[..], Vec::as_slice);
        let mark = match (self.line == line, self.is_breakpoint(line)) {
            (true, true) => "->#",
            (true, false) => "-> ",
            (false, true) => "  #",
            (false, false) => "   ",
        };
        let entry = [format!("{mark}{line:<3} ").as_bytes(), text].concat();
        self.log(entry);
    }

    fn log_lines(&mut self, around: i64, context: i64) {
        for line in 1..=self.source.len() as i64 {
            if around == 0 || (around - line).abs() <= context {
                self.log_line(line);
            }
        }
    }

    /// `list [line [context]]`.
    pub(super) fn list(&mut self, args: &[Vec<u8>]) {
        let around = args.get(1).map(|a| leading_int(a)).filter(|n| *n > 0).unwrap_or(self.line);
        let context = args.get(2).map_or(5, |a| leading_int(a));
        self.log_lines(around, context);
    }

    pub(super) fn whole(&mut self) {
        self.log_lines(1, 1_000_000);
    }

    /// `break [line ...]`.
    pub(super) fn break_at(&mut self, args: &[Vec<u8>]) {
        if args.len() == 1 {
            if self.breakpoints.is_empty() {
                return self.log("No breakpoints set. Use 'b <line>' to add one.");
            }
            self.log(format!("{} breakpoints set:", self.breakpoints.len()));
            return self.breakpoints.clone().into_iter().for_each(|line| self.log_line(line));
        }
        for arg in &args[1..] {
            let Some(line) = crate::structs::numbers::parse_i64(arg) else {
                self.log([b"Invalid argument:'", &arg[..], b"'"].concat());
                continue;
            };
            if line == 0 {
                self.breakpoints.clear();
                self.log("All breakpoints removed.");
            } else if line < 0 {
                let before = self.breakpoints.len();
                self.breakpoints.retain(|b| *b != line.saturating_neg());
                let is_gone = self.breakpoints.len() < before;
                self.log(if is_gone { "Breakpoint removed." } else { "No breakpoint in the specified line." });
            } else if self.breakpoints.len() == MAX_BREAKPOINTS {
                self.log("Too many breakpoints set.");
            } else if line > self.source.len() as i64 || self.is_breakpoint(line) {
                self.log("Wrong line number.");
            } else {
                self.breakpoints.push(line);
                self.log_lines(line, 1);
            }
        }
    }

    /// `maxlen [bytes]`.
    pub(super) fn limit(&mut self, args: &[Vec<u8>]) {
        if let [_, arg] = args {
            self.hinted = true;
            let bytes = leading_int(arg);
            self.max_len = if bytes == 0 { 0 } else { bytes.max(60) as usize };
        }
        match self.max_len {
            0 => self.log("<value> replies are unlimited."),
            bytes => self.log(format!("<value> replies are truncated at {bytes} bytes.")),
        }
    }

    pub(super) fn help(&mut self) {
        HELP.lines().for_each(|line| self.log(line));
    }
}

const HELP: &str = "\
Redis Lua debugger help:
[h]elp               Show this help.
[s]tep               Run current line and stop again.
[n]ext               Alias for step.
[c]ontinue           Run till next breakpoint.
[l]ist               List source code around current line.
[l]ist [line]        List source code around [line].
                     line = 0 means: current position.
[l]ist [line] [ctx]  In this form [ctx] specifies how many lines
                     to show before/after [line].
[w]hole              List all source code. Alias for 'list 1 1000000'.
[p]rint              Show all the local variables.
[p]rint <var>        Show the value of the specified variable.
                     Can also show global vars KEYS and ARGV.
[b]reak              Show all breakpoints.
[b]reak <line>       Add a breakpoint to the specified line.
[b]reak -<line>      Remove breakpoint from the specified line.
[b]reak 0            Remove all breakpoints.
[t]race              Show a backtrace.
[e]val <code>        Execute some Lua code (in a different callframe).
[r]edis <cmd>        Execute a Redis command.
[m]axlen [len]       Trim logged Redis replies and Lua var dumps to len.
                     Specifying zero as <len> means unlimited.
[a]bort              Stop the execution of the script. In sync
                     mode dataset changes will be retained.

Debugger functions you can call from Lua scripts:
redis.debug()        Produce logs in the debugger console.
redis.breakpoint()   Stop execution like if there was a breakpoint in the
                     next line of code.";

/// The number that a text begins with, 0 without one.
fn leading_int(text: &[u8]) -> i64 {
    let (sign, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let digits = digits.iter().take_while(|b| b.is_ascii_digit());
    sign * digits.fold(0i64, |n, b| n.saturating_mul(10).saturating_add(i64::from(b - b'0')))
}

/// A command as redis-cli sends it; `None`: not all of it is there.
fn parse(input: &[u8]) -> Result<Option<Vec<Vec<u8>>>, ()> {
    /// Most arguments, and most bytes of each.
    const MAX: i64 = 1024;
    fn header<'a>(input: &mut &'a [u8], kind: u8) -> Result<Option<i64>, ()> {
        let Some((first, rest)) = input.split_first() else { return Ok(None) };
        if *first != kind {
            return Err(());
        }
        let Some(end) = memchr::memmem::find(rest, b"\r\n") else { return Ok(None) };
        let (line, after): (&'a [u8], &'a [u8]) = (&rest[..end], &rest[end + 2..]);
        let count = leading_int(line);
        if !(1..=MAX).contains(&count) {
            return Err(());
        }
        *input = after;
        Ok(Some(count))
    }
    if input.is_empty() {
        return Ok(None);
    }
    let start = memchr::memchr(b'*', input).ok_or(())?;
    let mut rest = &input[start..];
    let Some(count) = header(&mut rest, b'*')? else { return Ok(None) };
    let mut args = Vec::new();
    for _ in 0..count {
        let Some(len) = header(&mut rest, b'$')? else { return Ok(None) };
        let len = len as usize;
        if rest.len() < len + 2 {
            return Ok(None);
        }
        if &rest[len..len + 2] != b"\r\n" {
            return Err(());
        }
        args.push(rest[..len].to_vec());
        rest = &rest[len + 2..];
    }
    Ok(Some(args))
}

/// Appends a reply in readable form, and returns the bytes after it.
fn describe<'a>(out: &mut Vec<u8>, reply: &'a [u8]) -> &'a [u8] {
    let Some(end) = memchr::memmem::find(reply, b"\r\n") else { return b"" };
    let (line, mut rest) = (&reply[..end], &reply[end + 2..]);
    let text = line.get(1..).unwrap_or_default();
    let count = leading_int(text);
    let (open, close, is_map) = match line.first() {
        Some(b':') => {
            out.extend_from_slice(text);
            return rest;
        }
        Some(b'+' | b'-') => {
            append_quoted(out, line);
            return rest;
        }
        Some(b'$') if count >= 0 => {
            let len = (count as usize).min(rest.len());
            append_quoted(out, &rest[..len]);
            return rest.get(len + 2..).unwrap_or_default();
        }
        Some(b'$') => {
            out.extend_from_slice(b"NULL");
            return rest;
        }
        Some(b'*') if count < 0 => {
            out.extend_from_slice(b"NULL");
            return rest;
        }
        Some(b'_') => {
            out.extend_from_slice(b"(null)");
            return rest;
        }
        Some(b'#') => {
            out.extend_from_slice(if text == b"t" { b"#true" } else { b"#false" });
            return rest;
        }
        Some(b',') => {
            out.extend_from_slice(b"(double) ");
            out.extend_from_slice(text);
            return rest;
        }
        Some(b'*') => ("[", "]", false),
        Some(b'~') => ("~(", ")", false),
        Some(b'%') => ("{", "}", true),
        _ => return rest,
    };
    out.extend_from_slice(open.as_bytes());
    for i in 0..count {
        if i > 0 {
            out.push(b',');
        }
        rest = describe(out, rest);
        if is_map {
            out.extend_from_slice(b" => ");
            rest = describe(out, rest);
        }
    }
    out.extend_from_slice(close.as_bytes());
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_in_pieces() {
        assert_eq!(parse(b""), Ok(None));
        assert_eq!(parse(b"*1\r\n$4\r\nst"), Ok(None));
        assert_eq!(parse(b"*1\r\n$4\r\nstep\r\n"), Ok(Some(vec![b"step".to_vec()])));
        assert_eq!(parse(b"*1\r\n$0\r\n\r\n"), Err(()));
        assert_eq!(parse(b"step"), Err(()));
        assert_eq!(parse(b"*1\r\n$3\r\nstep\r\n"), Err(()));
    }

    #[test]
    fn replies_are_shown_to_people() {
        let text = |reply: &[u8]| {
            let mut out = Vec::new();
            assert_eq!(describe(&mut out, reply), b"");
            String::from_utf8(out).unwrap()
        };
        assert_eq!(text(b"*3\r\n:1\r\n$1\r\nx\r\n$-1\r\n"), "[1,\"x\",NULL]");
        assert_eq!(text(b"%1\r\n+a\r\n~1\r\n,3.5\r\n"), "{\"+a\" => ~((double) 3.5)}");
        assert_eq!(text(b"-ERR x\r\n"), "\"-ERR x\"");
        assert_eq!(text(b"#t\r\n"), "#true");
    }
}
