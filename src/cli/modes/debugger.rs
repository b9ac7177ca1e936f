//! `--ldb --eval`: the server's debugger of Lua scripts, stepped through from the prompt.
//!
//! The server answers the EVAL, and every command of the debugger after it, with an array of lines. One that reads
//! `<endsession>` says that the script has ended; its own reply follows. The lines are the server's; only their marks
//! are looked at, to choose colours.

use super::eval;
use crate::cli::format::{Delimiters, OutputMode, render};
use crate::cli::quote::split_args;
use crate::cli::session::{Failed, Session};
use crate::cli::term::{complain, is_color_term, put_now, say, stdout_is_tty};
use crate::resp::reply_reader::Reply;

/// What stands before the cursor while a script is stopped.
pub(crate) const PROMPT: &str = "lua debugger> ";

/// How a script is debugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// In a copy of the server, whose changes are lost.
    Forked,
    /// In the server itself, which serves nobody else meanwhile.
    Sync,
}

/// What a line of input led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The script waits for the next command.
    Stopped,
    /// The script has ended.
    Ended,
}

/// One script under the debugger.
pub(crate) struct Debugger {
    kind: Kind,
    command: Vec<Vec<u8>>,
}

impl Debugger {
    /// A debugger for a script in a file, with its keys and arguments.
    pub(crate) fn new(kind: Kind, file: &[u8], words: &[Vec<u8>]) -> Result<Debugger, Failed> {
        Ok(Debugger { kind, command: eval::read_command(file, words)? })
    }

    /// Starts the script on a fresh connection and stops at its first line.
    pub(crate) fn start(&self, session: &mut Session) -> Result<Step, Failed> {
        session.reconnect(false)?;
        let mode: &[u8] = if self.kind == Kind::Sync { b"SYNC" } else { b"YES" };
        if let Some(reason) = session.internal(&[b"SCRIPT", b"DEBUG", mode])?.error() {
            complain!("{}\n", String::from_utf8_lossy(reason));
            return Err(Failed);
        }
        say!(
            "Lua debugging session started, please use:\n\
             quit    -- End the session.\n\
             restart -- Restart the script in debug mode again.\n\
             help    -- Show Lua script debugging commands.\n\n"
        );
        let reply = exchange(session, &self.command)?;
        if reply.is_error() {
            say!("Eval debugging session can't start:\n");
            show(&reply);
            return Err(Failed);
        }
        self.follow(session, &reply)
    }

    /// Hands a line to the debugger. Prints an error for a line that can not be split.
    pub(crate) fn execute(&self, session: &mut Session, line: &[u8]) -> Result<Step, Failed> {
        let Some(args) = arguments(line) else {
            say!("Invalid argument(s)\n");
            return Ok(Step::Stopped);
        };
        if args.is_empty() {
            return Ok(Step::Stopped);
        }
        if args[0].eq_ignore_ascii_case(b"restart") {
            say!("\n");
            return self.start(session);
        }
        let reply = exchange(session, &args)?;
        self.follow(session, &reply)
    }

    /// Prints what the server says, including the script's own reply if it has ended.
    fn follow(&self, session: &mut Session, reply: &Reply) -> Result<Step, Failed> {
        let Some(lines) = reply.elements() else {
            show(reply);
            return Ok(Step::Stopped);
        };
        let color = stdout_is_tty() && is_color_term();
        let mut ended = false;
        for line in lines {
            let line = line.text().unwrap_or_default();
            if line == b"<endsession>" {
                ended = true;
            } else {
                put_now(&painted(line, color));
            }
        }
        if !ended {
            return Ok(Step::Stopped);
        }
        say!("\n");
        match session.conn.as_mut().map(|conn| conn.read()) {
            Some(Ok(result)) => show(&result),
            _ => say!("(the script left no reply)\n"),
        }
        let fate = if self.kind == Kind::Forked { " -- dataset changes rolled back" } else { "" };
        say!("\n(Lua debugging session ended{fate})\n\n");
        session.reconnect(true)?;
        Ok(Step::Ended)
    }
}

fn exchange(session: &mut Session, args: &[Vec<u8>]) -> Result<Reply, Failed> {
    let args: Vec<&[u8]> = args.iter().map(Vec::as_slice).collect();
    session.internal(&args)
}

fn show(reply: &Reply) {
    put_now(&render(reply, OutputMode::Standard, false, &Delimiters::default()));
}

/// The arguments of a line; code to evaluate is one of them, quotes and all.
fn arguments(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let line = line.trim_ascii();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (command, rest) = (&line[..end], line[end..].trim_ascii());
    let evaluates = command.eq_ignore_ascii_case(b"e") || command.eq_ignore_ascii_case(b"eval");
    if evaluates && !rest.is_empty() {
        return Some(vec![command.to_vec(), rest.to_vec()]);
    }
    split_args(line).ok()
}

/// A line in the colour of its mark.
fn painted(line: &[u8], color: bool) -> Vec<u8> {
    const MARKS: [(&[u8], &str); 8] = [
        (b"<debug>", "1;37;49"),
        (b"<redis>", "0;32;49"),
        (b"<reply>", "0;36;49"),
        (b"<error>", "0;31;49"),
        (b"<hint>", "1;36;49"),
        (b"<value>", "0;35;49"),
        (b"<retval>", "0;35;49"),
        (b"->", "0;33;49"),
    ];
    if !color {
        return [line, b"\n"].concat();
    }
    let code = match MARKS.iter().find(|(mark, _)| line.starts_with(mark)) {
        Some((_, code)) => code,
        // A line with a breakpoint.
        None if line.starts_with(b"  #") => "1;37;49",
        None => "0;37;49",
    };
    [b"\x1b[", code.as_bytes(), b"m", line, b"\x1b[0m\n"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_one_argument() {
        let text = |line: &str| -> Vec<String> {
            let args = arguments(line.as_bytes()).unwrap();
            args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
        };
        assert_eq!(text(" e redis.call(\"get\", 'a b') "), ["e", "redis.call(\"get\", 'a b')"]);
        assert_eq!(text("EVAL 1 + 1"), ["EVAL", "1 + 1"]);
        assert_eq!(text("e"), ["e"]);
        assert_eq!(text("b 4"), ["b", "4"]);
        assert_eq!(arguments(b"p \"open"), None);
    }

    #[test]
    fn marks_are_colours() {
        assert_eq!(painted(b"<redis> get k", true), b"\x1b[0;32;49m<redis> get k\x1b[0m\n");
        assert_eq!(painted(b"* Stopped", true), b"\x1b[0;37;49m* Stopped\x1b[0m\n");
        assert_eq!(painted(b"->#4", false), b"->#4\n");
    }
}
