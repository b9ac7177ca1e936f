//! The prompt: lines in, commands to the session, until the input ends.
//!
//! On a terminal lines are edited and remembered (`~/.rediscli_history`, one command a line,
//! or the file that `REDISCLI_HISTFILE` names); elsewhere they are simply read.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::exit;
use std::time::Instant;

use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{DefaultHistory, History};
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};

use super::format::OutputMode;
use super::modes::debugger::{Debugger, PROMPT, Step};
use super::options::leading_int;
use super::quote::split_args;
use super::session::{Awaited, Failed, Session};
use super::term::{InputLines, complain, is_color_term, put_now, say, stdout_is_tty};

/// Commands kept in the history file.
const HISTORY_LINES: usize = 1000;

/// Times of commands below this are not shown.
const SLOW_COMMAND_MS: u128 = 500;

/// Steps through a script until it has ended, then goes on as [`run`] does. Returns 1 if the script can not be started,
/// or the link breaks.
pub(crate) fn debug(session: &mut Session, debugger: &Debugger) -> i32 {
    session.output = OutputMode::Standard;
    let mut input = Input::open(session);
    let mut step = debugger.start(session);
    while let Ok(Step::Stopped) = step {
        let Some(line) = input.debugger_line() else { return 0 };
        input.remember(&line);
        if [&b"quit"[..], b"exit"].iter().any(|word| line.trim_ascii().eq_ignore_ascii_case(word)) {
            return 0;
        }
        step = debugger.execute(session, &line);
    }
    match step {
        Err(Failed) => 1,
        Ok(_) => read_commands(session, input),
    }
}

/// Reads and runs commands until the input ends. Never returns.
pub(crate) fn run(session: &mut Session) -> ! {
    let input = Input::open(session);
    read_commands(session, input)
}

fn read_commands(session: &mut Session, mut input: Input) -> ! {
    session.make_interactive();
    loop {
        session.hold_interrupts(false);
        let line = input.line(session);
        session.hold_interrupts(true);
        let Some(line) = line else {
            if session.pubsub {
                session.pubsub = false;
                if session.reconnect(false).is_ok() {
                    continue;
                }
            }
            exit(0);
        };
        if !line.is_empty() {
            let Ok(args) = split_args(&line) else {
                say!("Invalid argument(s)\n");
                input.remember(&line);
                continue;
            };
            if args.is_empty() {
                continue;
            }
            if !execute(session, &mut input, &line, &args) {
                continue;
            }
        }
        if session.pubsub {
            wait_for_messages(session, &input);
        }
    }
}

/// A leading count, as in `5 incr x`.
fn repeat_count(args: &[Vec<u8>]) -> Option<Result<i64, ()>> {
    let text = std::str::from_utf8(args.first()?).ok()?;
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if args.len() < 2 || digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(match text.parse::<i64>() {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(()),
    })
}

/// Carries out one line. False when it was not for the server.
fn execute(session: &mut Session, input: &mut Input, line: &[u8], args: &[Vec<u8>]) -> bool {
    let (repeat, command) = match repeat_count(args) {
        None => (1, args),
        Some(Ok(n)) => (n, &args[1..]),
        Some(Err(())) => {
            say!("Invalid redis-cli repeat command option value.\n");
            return false;
        }
    };
    if !is_sensitive(command) {
        input.remember(line);
    }
    let is = |name: &str| args[0].eq_ignore_ascii_case(name.as_bytes());
    if is("quit") || is("exit") {
        exit(0);
    }
    if args[0].starts_with(b":") {
        if let Err(complaint) = input.preferences.set(args) {
            say!("{complaint}\n");
        }
        return false;
    }
    if is("connect") && args.len() == 3 {
        session.host = String::from_utf8_lossy(&args[1]).into_owned();
        session.port = u16::try_from(leading_int(&args[2])).unwrap_or(0);
        let _ = session.reconnect(false);
    } else if is("restart") {
        say!("Use 'restart' only in Lua debugging mode.\n");
    } else if is("clear") && args.len() == 1 {
        put_now(b"\x1b[H\x1b[2J");
    } else {
        let started = Instant::now();
        let _: Result<(), Failed> = session.issue_repeatedly(command, repeat);
        let elapsed = started.elapsed();
        if elapsed.as_millis() >= SLOW_COMMAND_MS && session.output == OutputMode::Standard {
            say!("({:.2}s)\n", elapsed.as_secs_f64());
        }
    }
    true
}

/// Shows messages of subscriptions until a key is pressed.
fn wait_for_messages(session: &mut Session, input: &Input) {
    let show_info = session.output != OutputMode::Raw && stdout_is_tty();
    let color = show_info && is_color_term();
    let stdin = std::io::stdin();
    let saved = tcgetattr(&stdin).ok();
    if let Some(saved) = &saved {
        let mut any_key = saved.clone();
        any_key.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON);
        let _ = tcsetattr(&stdin, SetArg::TCSANOW, &any_key);
    }
    while session.pubsub {
        session.show_buffered();
        if show_info {
            let info = "Reading messages... (press Ctrl-C to quit or any key to type command)\r";
            let (on, off) = if color { ("\x1b[1;90m", "\x1b[0m") } else { ("", "") };
            say!("{on}{info}{off}");
        }
        let awaited = if input.has_line() { Awaited::Input } else { session.wait_message_or_input(5000) };
        if show_info {
            put_now(b"\x1b[K");
        }
        match awaited {
            Awaited::Interrupt => {
                session.take_interrupt();
                session.pubsub = false;
                if session.reconnect(false).is_err() {
                    exit(1);
                }
            }
            Awaited::Message => {
                if let Err(error) = session.show_reply(false) {
                    if let Some(error) = error {
                        complain!("Error: {error}\n");
                    }
                    exit(1);
                }
            }
            Awaited::Input => break,
            Awaited::Nothing => {}
        }
    }
    if let Some(saved) = &saved {
        let _ = tcsetattr(&stdin, SetArg::TCSANOW, saved);
    }
}

/// Whether a command carries secrets that do not belong in the history.
fn is_sensitive(args: &[Vec<u8>]) -> bool {
    let is = |at: usize, name: &str| args.get(at).is_some_and(|arg| arg.eq_ignore_ascii_case(name.as_bytes()));
    let any_from = |from: usize, names: &[&str]| (from..args.len()).any(|at| names.iter().any(|name| is(at, name)));
    let secret_settings = ["masterauth", "masteruser", "requirepass", "tls-key-file-pass", "tls-client-key-file-pass"];
    is(0, "auth")
        || (is(0, "acl") && ["setuser", "getuser", "deluser"].iter().any(|name| is(1, name)))
        || (is(0, "config")
            && is(1, "set")
            && (2..args.len()).step_by(2).any(|at| secret_settings.iter().any(|name| is(at, name))))
        || (is(0, "sentinel") && is(1, "config") && is(2, "set") && any_from(3, &["sentinel-user", "sentinel-pass"]))
        || (is(0, "sentinel") && is(1, "set") && any_from(3, &["auth-pass", "auth-user"]))
        || (is(0, "hello") && any_from(2, &["auth"]))
        || (is(0, "migrate") && args.len() > 7 && {
            let keys = (6..args.len()).find(|at| is(*at, "keys"));
            let end = keys.unwrap_or(args.len());
            (6..end).any(|at| is(at, "auth") || is(at, "auth2"))
        })
}

/// What `:set` and `~/.redisclirc` change.
struct Preferences {
    hints: bool,
}

impl Preferences {
    fn set(&mut self, args: &[Vec<u8>]) -> Result<(), String> {
        let text = |at: usize| args.get(at).map(|a| String::from_utf8_lossy(a).to_lowercase());
        match (text(0).as_deref(), text(1).as_deref()) {
            (Some(":set"), Some("hints")) => self.hints = true,
            (Some(":set"), Some("nohints")) => self.hints = false,
            (Some(":set"), Some(other)) => {
                return Err(format!("unknown redis-cli preference '{other}'"));
            }
            (other, _) => {
                let other = other.unwrap_or_default();
                return Err(format!("unknown redis-cli internal command '{other}'"));
            }
        }
        Ok(())
    }
}

/// The path of a file in the home directory, unless the environment names another; `None` for `/dev/null`, or without a
/// home.
fn dotfile(variable: &str, name: &str) -> Option<PathBuf> {
    let path = match std::env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").filter(|home| !home.is_empty())?).join(name),
    };
    (path.as_os_str() != "/dev/null").then_some(path)
}

struct Input {
    lines: InputLines,
    /// Lines that were pasted together with the current one and come after it.
    pasted: VecDeque<Vec<u8>>,
    editor: Option<Editor<Assistant, DefaultHistory>>,
    history_file: Option<PathBuf>,
    preferences: Preferences,
}

impl Input {
    fn open(session: &mut Session) -> Input {
        let mut input = Input {
            lines: InputLines::default(),
            pasted: VecDeque::new(),
            editor: None,
            history_file: None,
            preferences: Preferences { hints: true },
        };
        if !std::io::stdin().is_terminal() {
            return input;
        }
        let config = rustyline::Config::builder()
            .auto_add_history(false)
            .history_ignore_space(false)
            .completion_type(rustyline::CompletionType::Circular)
            .build();
        if let Ok(mut editor) = Editor::with_config(config) {
            let _ = editor.history_mut().set_max_len(HISTORY_LINES);
            editor.set_helper(Some(Assistant { help: session.help().clone(), hints: true }));
            input.editor = Some(editor);
        }
        input.history_file = dotfile("REDISCLI_HISTFILE", ".rediscli_history");
        input.load_history();
        input.load_preferences();
        input
    }

    fn has_line(&self) -> bool {
        !self.pasted.is_empty() || self.lines.has_line()
    }

    fn line(&mut self, session: &Session) -> Option<Vec<u8>> {
        match &mut self.editor {
            None => self.lines.next_line(),
            Some(editor) => {
                if let Some(assistant) = editor.helper_mut() {
                    assistant.hints = self.preferences.hints;
                }
                if self.pasted.is_empty() {
                    let text = editor.readline(&session.prompt()).ok()?;
                    // A paste may be many lines.
                    self.pasted = text.split(['\n', '\r']).map(|line| line.as_bytes().to_vec()).collect();
                }
                self.pasted.pop_front()
            }
        }
    }

    /// Reads a line for the debugger, without hints, which do not know its commands.
    fn debugger_line(&mut self) -> Option<Vec<u8>> {
        let Some(editor) = &mut self.editor else {
            return self.lines.next_line();
        };
        if let Some(assistant) = editor.helper_mut() {
            assistant.hints = false;
        }
        editor.readline(PROMPT).ok().map(String::into_bytes)
    }

    fn remember(&mut self, line: &[u8]) {
        let Some(editor) = &mut self.editor else {
            return;
        };
        let line = String::from_utf8_lossy(line);
        if !editor.add_history_entry(line.as_ref()).unwrap_or(false) {
            return;
        }
        if let Some(path) = &self.history_file {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
            if let Ok(mut file) = file {
                let _ = writeln!(file, "{line}");
            }
        }
    }

    fn load_history(&mut self) {
        let (Some(path), Some(editor)) = (&self.history_file, &mut self.editor) else {
            return;
        };
        let Ok(text) = std::fs::read(path) else {
            return;
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let kept = &lines[lines.len().saturating_sub(HISTORY_LINES)..];
        for line in kept {
            let _ = editor.add_history_entry(*line);
        }
        if lines.len() > 2 * HISTORY_LINES {
            let _ = std::fs::write(path, kept.join("\n") + "\n");
        }
    }

    fn load_preferences(&mut self) {
        let Some(path) = dotfile("REDISCLI_RCFILE", ".redisclirc") else {
            return;
        };
        let text = std::fs::read(path).unwrap_or_default();
        for line in text.split(|b| *b == b'\n') {
            let args = split_args(line).unwrap_or_default();
            if !args.is_empty()
                && let Err(complaint) = self.preferences.set(&args)
            {
                say!(".redisclirc: {complaint}\n");
            }
        }
    }
}

/// Completes command names and shows the arguments they take.
struct Assistant {
    help: super::help::Help,
    hints: bool,
}

impl Helper for Assistant {}
impl Validator for Assistant {}

impl Highlighter for Assistant {
    fn highlight_hint<'h>(&self, hint: &'h str) -> std::borrow::Cow<'h, str> {
        format!("\x1b[0;90m{hint}\x1b[0m").into()
    }
}

impl Completer for Assistant {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok((0, self.help.completions(&line[..pos])))
    }
}

impl Hinter for Assistant {
    type Hint = String;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<String> {
        if !self.hints || pos < line.len() || line.is_empty() {
            return None;
        }
        let hint = self.help.hint(line.as_bytes())?;
        let gap = if line.ends_with(' ') { "" } else { " " };
        (!hint.is_empty()).then(|| format!("{gap}{hint}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Vec<Vec<u8>> {
        line.split(' ').map(|w| w.into()).collect()
    }

    #[test]
    fn counts_before_commands() {
        assert_eq!(repeat_count(&args("5 incr x")), Some(Ok(5)));
        assert_eq!(repeat_count(&args("0 incr x")), Some(Err(())));
        assert_eq!(repeat_count(&args("99999999999999999999 incr x")), Some(Err(())));
        assert_eq!(repeat_count(&args("5")), None);
        assert_eq!(repeat_count(&args("get 5")), None);
    }

    #[test]
    fn secrets_stay_out_of_the_history() {
        for line in [
            "auth x",
            "ACL SETUSER me >x",
            "config set maxmemory 1 requirepass x",
            "hello 3 auth me x",
            "migrate h 1 k 0 10 copy auth x",
            "config set tls-key-file-pass x",
            "sentinel set mymaster auth-pass x",
            "sentinel config set sentinel-pass x",
            "acl getuser me",
        ] {
            assert!(is_sensitive(&args(line)), "{line}");
        }
        for line in
            ["get auth", "acl whoami", "config get requirepass", "hello 3", "migrate h 1 k 0 10 copy keys auth x"]
        {
            assert!(!is_sensitive(&args(line)), "{line}");
        }
    }

    #[test]
    fn preferences() {
        let mut preferences = Preferences { hints: true };
        preferences.set(&args(":set nohints")).unwrap();
        assert!(!preferences.hints);
        assert!(preferences.set(&args(":set colours")).is_err());
        assert!(preferences.set(&args(":what")).is_err());
    }
}
