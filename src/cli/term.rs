//! Standard input and output of the tools: writing that ends the process quietly when the
//! reader of a pipe went away, colours, a status line, and input that several parties share.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IsTerminal, Read, Write};

/// Moves to the first column and clears the line.
const CLEAR_LINE: &[u8] = b"\r\x1b[K";

thread_local! {
    /// Whether the line of the cursor is a status line, which anything that is printed replaces.
    static STATUS_SHOWN: Cell<bool> = const { Cell::new(false) };
}

/// Writes to standard output. A closed pipe ends the process as the signal would have.
pub(crate) fn put(bytes: &[u8]) {
    clear_status();
    let mut out = io::stdout().lock();
    finish(out.write_all(bytes));
}

/// Writes to standard output and flushes.
pub(crate) fn put_now(bytes: &[u8]) {
    put(bytes);
    finish(io::stdout().lock().flush());
}

/// Shows a line that stays until something else is printed, or another one is shown. It must not be wider than the
/// terminal.
pub(crate) fn show_status(line: &str) {
    let mut out = io::stdout().lock();
    finish(out.write_all(CLEAR_LINE).and_then(|()| out.write_all(line.as_bytes())).and_then(|()| out.flush()));
    STATUS_SHOWN.set(true);
}

pub(crate) fn clear_status() {
    if STATUS_SHOWN.replace(false) {
        let mut out = io::stdout().lock();
        finish(out.write_all(CLEAR_LINE).and_then(|()| out.flush()));
    }
}

/// Columns and rows of the terminal.
pub(crate) fn size() -> (usize, usize) {
    let (columns, rows) = crate::sys::terminal::size(io::stdout()).unwrap_or((80, 24));
    (columns.into(), rows.into())
}

/// Writes formatted text to standard output and flushes; see [`say!`].
pub(crate) fn put_fmt(text: fmt::Arguments<'_>) {
    put_now(text.to_string().as_bytes());
}

/// Writes formatted text to standard error.
pub(crate) fn complain_fmt(text: fmt::Arguments<'_>) {
    clear_status();
    let _ = io::stdout().lock().flush();
    let _ = io::stderr().lock().write_fmt(text);
}

fn finish(result: io::Result<()>) {
    if result.is_err() {
        std::process::exit(141);
    }
}

/// Prints formatted text on standard output, without adding a newline.
macro_rules! say {
    ($($arg:tt)*) => { $crate::cli::term::put_fmt(format_args!($($arg)*)) };
}

/// Prints formatted text on standard error, without adding a newline.
macro_rules! complain {
    ($($arg:tt)*) => { $crate::cli::term::complain_fmt(format_args!($($arg)*)) };
}

pub(crate) use {complain, say};

/// Whether output goes to a terminal. `FAKETTY` in the environment pretends so.
pub(crate) fn stdout_is_tty() -> bool {
    io::stdout().is_terminal() || std::env::var_os("FAKETTY").is_some()
}

/// Whether the terminal understands the colour sequences of xterm, and the user has not turned colours off
/// (<https://no-color.org>).
pub(crate) fn is_color_term() -> bool {
    const COLORED: [&str; 7] = ["xterm", "color", "screen", "tmux", "rxvt", "linux", "alacritty"];
    let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !unwanted && std::env::var("TERM").is_ok_and(|term| COLORED.iter().any(|name| term.contains(name)))
}

/// Lines of standard input for callers that also poll it: what was read ahead is visible
/// here rather than hidden in a library buffer.
#[derive(Default)]
pub(crate) struct InputLines {
    pending: VecDeque<u8>,
    ended: bool,
}

impl InputLines {
    /// Whether the next line (or the end) is there without reading.
    pub(crate) fn has_line(&self) -> bool {
        self.pending.contains(&b'\n')
    }

    /// The next line without its newline, or `None` at the end of input.
    pub(crate) fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.pending.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.pending.drain(..=at).collect();
                line.pop();
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Some(line);
            }
            if self.ended {
                if self.pending.is_empty() {
                    return None;
                }
                return Some(self.pending.drain(..).collect());
            }
            let mut chunk = [0u8; 4096];
            match nix::unistd::read(io::stdin(), &mut chunk) {
                Ok(0) => self.ended = true,
                Ok(n) => self.pending.extend(&chunk[..n]),
                Err(nix::errno::Errno::EINTR) => {}
                Err(_) => self.ended = true,
            }
        }
    }
}

/// All of standard input.
pub(crate) fn read_stdin() -> Vec<u8> {
    let mut all = Vec::new();
    if let Err(error) = io::stdin().lock().read_to_end(&mut all) {
        complain!("Reading from standard input: {error}\n");
        std::process::exit(1);
    }
    all
}

/// Asks for a secret. On a terminal it is read without echo, elsewhere the first line of input is taken.
pub(crate) fn ask_secret(question: &str) -> Vec<u8> {
    use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
    let stdin = io::stdin();
    let saved = tcgetattr(&stdin).ok();
    if let Some(saved) = &saved {
        let mut quiet = saved.clone();
        quiet.local_flags.remove(LocalFlags::ECHO);
        let _ = tcsetattr(&stdin, SetArg::TCSANOW, &quiet);
        say!("{question}");
    }
    let secret = InputLines::default().next_line().unwrap_or_default();
    if let Some(saved) = &saved {
        let _ = tcsetattr(&stdin, SetArg::TCSANOW, saved);
        say!("\n");
    }
    secret
}
