//! redis-cli: one command, a prompt, bulk modes, and the cluster manager.
//!
//! - `options`, `uri`: the command line
//! - `connection`: a blocking link to a server
//! - `session`: a user's conversation with a server or cluster
//! - `prompt`, `help`, `hint`: typing commands
//! - `quote`, `format`, `term`: text in, text out
//! - `modes`: `--scan`, `--stat`, `--pipe` and others
//! - `cluster`: `--cluster ...`

mod cluster;
mod connection;
mod format;
mod help;
mod hint;
mod modes;
mod options;
mod prompt;
mod quote;
mod session;
mod term;
mod uri;

use std::os::unix::ffi::OsStringExt;

use options::{Mode, Options, Parsed};
use session::Session;
use term::complain;

pub(crate) use cluster::texts as cluster_texts;
pub(crate) use connection::describe as describe_error;
pub(crate) use help::syntax;
pub(crate) use options::{EXAMPLES, OptionText, texts as option_texts};

/// The version of redis-cli that this one behaves like.
pub(crate) const COMPATIBLE_VERSION: &str = "7.2.6";

/// The whole program: reads the process's arguments and returns its exit code.
pub fn main() -> i32 {
    let args = std::env::args_os().skip(1).map(OsStringExt::into_vec).collect();
    let (mut options, command) = match options::parse(args) {
        Parsed::Run(options, command) => (*options, command),
        Parsed::Help(code) => {
            let text = options::usage(COMPATIBLE_VERSION);
            match code {
                0 => term::put(text.as_bytes()),
                _ => complain!("{text}"),
            }
            return code;
        }
        Parsed::Version => {
            term::say!("redis-cli {COMPATIBLE_VERSION}\n");
            return 0;
        }
        Parsed::Fail(reason) => {
            complain!("{reason}\n");
            return 1;
        }
    };
    if options.auth.is_some() && !options.no_auth_warning {
        complain!(
            "Warning: Using a password with '-a' or '-u' option on the command line interface may not be safe.\n"
        );
    }
    apply_environment(&mut options);
    if options.askpass {
        options.auth = Some(term::ask_secret("Please input password: "));
    }
    if options.cluster_options.from_askpass {
        options.cluster_options.from_pass = Some(term::ask_secret("Please input import source node password: "));
    }
    if let Some(words) = options.cluster.take() {
        return match place_stdin(&options, words) {
            Ok(words) => cluster::run(options, words),
            Err(reason) => {
                complain!("{reason}\n");
                1
            }
        };
    }
    if let Some(test) = options.hint_test.take() {
        return modes::hints::run(&mut Session::new(options), test);
    }
    if let Some(Mode::IntrinsicLatency(seconds)) = options.mode {
        return modes::latency::intrinsic(seconds);
    }
    with_server(Session::new(options), command)
}

/// What needs a connection: a mode, a script, a prompt, or one command.
fn with_server(mut session: Session, mut command: Vec<Vec<u8>>) -> i32 {
    if let Some(mode) = session.opts.mode.clone() {
        if session.connect(false).is_err() {
            return 1;
        }
        return modes::run(&mut session, mode);
    }
    if let Some(file) = session.opts.eval.clone() {
        if session.connect(false).is_err() {
            return 1;
        }
        if let Some(kind) = session.opts.debugger {
            return match modes::debugger::Debugger::new(kind, &file, &command) {
                Ok(debugger) => prompt::debug(&mut session, &debugger),
                Err(session::Failed) => 1,
            };
        }
        return modes::eval::run(&mut session, &file, &command);
    }
    if command.is_empty() {
        let _ = session.connect(false);
        prompt::run(&mut session);
    }
    let quiet = true;
    let _ = session.connect(quiet);
    if session.opts.quoted_input {
        let unquoted: Option<Vec<_>> = command.iter().map(|arg| quote::unquote(arg)).collect();
        match unquoted {
            Some(args) => command = args,
            None => {
                term::say!("Invalid quoted string\n");
                return 1;
            }
        }
    }
    match place_stdin(&session.opts, command) {
        Ok(command) => run_once(&mut session, &command),
        Err(reason) => {
            complain!("{reason}\n");
            1
        }
    }
}

fn apply_environment(options: &mut Options) {
    if options.auth.is_none() {
        options.auth = std::env::var_os("REDISCLI_AUTH").map(OsStringExt::into_vec);
    }
    if std::env::var_os("REDISCLI_CLUSTER_YES").is_some_and(|value| value == "1") {
        options.cluster_options.yes = true;
    }
}

/// Puts standard input where `-x` or `-X` want it among the arguments.
fn place_stdin(options: &Options, mut args: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, &'static str> {
    if options.stdin_last {
        args.push(term::read_stdin());
    } else if let Some(tag) = &options.stdin_tag {
        match args.iter_mut().find(|arg| *arg == tag) {
            Some(place) => *place = term::read_stdin(),
            None => return Err("Using -X option but stdin tag not match."),
        }
    }
    Ok(args)
}

/// Runs the command of the command line, then its subscriptions for ever.
fn run_once(session: &mut Session, command: &[Vec<u8>]) -> i32 {
    let code = match session.issue(command) {
        Ok(()) => 0,
        Err(session::Failed) => 1,
    };
    while session.pubsub {
        match session.show_reply(false) {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(_) => return 1,
        }
    }
    code
}
