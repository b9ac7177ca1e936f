//! Reading the configuration at start-up: the file, what it includes, standard input, and the options of the command
//! line, which are read as if they stood at the end of the file.
//!
//! Invariant: either every line was understood and every value passed its checks, or a [`ConfigError`] says which did not.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::table::{Config, Kind, Row, flag};
use super::types::SourceLine;
use super::value::ValueError;
use super::{MAX_HZ, MIN_BACKLOG_SIZE, MIN_HZ, lookup, words};
use crate::sys::build::REDIS_VERSION;
use crate::sys::os_error;

/// How deep `include` may nest; a file that includes itself would otherwise exhaust the stack.
const MAX_INCLUDE_DEPTH: usize = 64;

/// Directives that 7.2 reads over, each with one argument.
const TOLERATED: [&[u8]; 3] = [b"list-max-ziplist-entries", b"list-max-ziplist-value", b"lua-replicate-commands"];

/// What reading the configuration led to.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// What is to be logged about it, once there is a log.
    pub(crate) notices: Vec<(log::Level, String)>,
}

/// Why the configuration was refused. The process ends with status 1 for each of these.
#[derive(Debug)]
pub(crate) enum ConfigError {
    /// A file cannot be read. Goes to the log, as in Redis.
    Open {
        /// As the configuration names it.
        path: PathBuf,
        error: io::Error,
    },
    /// A line was not understood, or its value was refused. Goes to standard error, as in Redis.
    Line {
        /// From 1, in its own file.
        number: usize,
        /// Without blanks around it.
        text: Vec<u8>,
        /// In Redis's words.
        reason: ValueError,
    },
    /// Values do not fit together. Goes to standard error, as in Redis.
    Whole {
        /// In Redis's words.
        reason: ValueError,
    },
}

impl ConfigError {
    /// Refuses a line that another room has to understand.
    pub(crate) fn at(line: &SourceLine, reason: impl Into<ValueError>) -> Self {
        Self::Line { number: line.number, text: line.text.clone(), reason: reason.into() }
    }

    /// Writes it to standard error or the log, wherever Redis writes it.
    pub(crate) fn report(&self) {
        match self {
            Self::Open { .. } => log::warn!("{self}"),
            Self::Line { .. } | Self::Whole { .. } => eprint!("{self}"),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Self::Open { path, error } = self {
            return write!(f, "Fatal error, can't open config file '{}': {}", path.display(), os_error(error));
        }
        writeln!(f, "\n*** FATAL CONFIG FILE ERROR (Redis {REDIS_VERSION}) ***")?;
        match self {
            Self::Open { .. } => Ok(()),
            Self::Line { number, text, reason } => writeln!(
                f,
                "Reading the configuration file, at line {number}\n>>> '{}'\n{reason}",
                String::from_utf8_lossy(text)
            ),
            Self::Whole { reason } => writeln!(f, "{reason}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// Reads the configuration a command line asks for. `args` are the arguments after the program's name; the first is a
    /// file unless it starts with `-`, and a single `-` at either end means to read `stdin` after the file.
    ///
    /// A `dir` line changes the working directory when it is read, so that later relative paths are found from there.
    pub(crate) fn load(args: &[Vec<u8>], stdin: &mut dyn Read) -> Result<Loaded, ConfigError> {
        let command_line = CommandLine::read(args);
        let mut loader = Loader { config: Config::default(), notices: Vec::new(), save_seen: false };
        let mut content = Vec::new();
        if let Some(path) = command_line.file {
            let path = PathBuf::from(OsStr::from_bytes(path));
            let path = std::path::absolute(&path).unwrap_or(path);
            content = read_files(&path)?;
            loader.config.config_file = Some(path);
        }
        if command_line.stdin {
            loader.notices.push((log::Level::Info, "Reading config from stdin".into()));
            stdin.read_to_end(&mut content).map_err(|error| ConfigError::Open { path: PathBuf::from("-"), error })?;
        }
        if !args.is_empty() {
            content.push(b'\n');
            content.extend(command_line.options);
        }
        loader.read(&content, 0)?;
        if let Ok(dir) = std::env::current_dir() {
            loader.config.dir = String::from_utf8_lossy(dir.as_os_str().as_bytes()).into_owned();
        }
        Ok(Loaded { config: loader.config, notices: loader.notices })
    }
}

struct CommandLine<'a> {
    file: Option<&'a [u8]>,
    stdin: bool,
    /// What the options are as lines of a configuration file.
    options: Vec<u8>,
}

impl<'a> CommandLine<'a> {
    fn read(args: &'a [Vec<u8>]) -> Self {
        let (file, start) = match args.first() {
            Some(first) if first.first() != Some(&b'-') => (Some(first.as_slice()), 1),
            _ => (None, 0),
        };
        let mut stdin = false;
        let mut options = Vec::new();
        // An option name must be followed by a value before `--` starts a name again: `--requirepass --x` is a password.
        let mut may_start_option = true;
        for (at, arg) in args.iter().enumerate().skip(start) {
            let is_last = at + 1 == args.len();
            if arg == b"-" && (at == 0 || is_last) {
                stdin = true;
                continue;
            }
            let Some(name) = arg.strip_prefix(b"--").filter(|_| may_start_option) else {
                options.extend(words::quote(arg));
                options.push(b' ');
                may_start_option = true;
                continue;
            };
            if !options.is_empty() {
                options.push(b'\n');
            }
            options.extend(name);
            options.push(b' ');
            // `--port 6380` may also come as one argument.
            let has_value = words::split(arg).is_none_or(|words| words.len() != 1);
            let option_follows = args.get(at + 1).is_some_and(|next| next.starts_with(b"--"));
            may_start_option = has_value;
            if !has_value && arg.eq_ignore_ascii_case(b"--save") && (is_last || option_follows) {
                // An empty list of save points, as scripts write it.
                options.extend(b"\"\"");
                may_start_option = option_follows;
            } else if !has_value && arg.eq_ignore_ascii_case(b"--sentinel") {
                may_start_option = option_follows;
            }
        }
        Self { file, stdin, options }
    }
}

/// The content of a file, or of all files that match a pattern. A pattern that matches nothing is empty, so that an
/// empty directory of snippets can be included.
fn read_files(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let open_error = |path: &Path, error| ConfigError::Open { path: path.to_owned(), error };
    let is_pattern = path.as_os_str().as_bytes().iter().any(|b| matches!(b, b'*' | b'?' | b'['));
    if !is_pattern {
        return std::fs::read(path).map_err(|error| open_error(path, error));
    }
    let mut content = Vec::new();
    for file in glob(path) {
        content.extend(std::fs::read(&file).map_err(|error| open_error(&file, error))?);
    }
    Ok(content)
}

/// The paths that match a pattern, in order; each component of the path may be a pattern. A leading dot has to be
/// matched by a dot.
fn glob(pattern: &Path) -> Vec<PathBuf> {
    let bytes = pattern.as_os_str().as_bytes();
    let mut found = vec![if bytes.starts_with(b"/") { PathBuf::from("/") } else { PathBuf::new() }];
    for component in bytes.split(|b| *b == b'/').filter(|component| !component.is_empty()) {
        let mut next = Vec::new();
        for dir in &found {
            if !component.iter().any(|b| matches!(b, b'*' | b'?' | b'[')) {
                let path = dir.join(OsStr::from_bytes(component));
                if path.exists() {
                    next.push(path);
                }
                continue;
            }
            let listed = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            let Ok(entries) = std::fs::read_dir(listed) else {
                continue;
            };
            let mut names: Vec<Vec<u8>> = entries
                .filter_map(|entry| Some(entry.ok()?.file_name().into_vec()))
                .filter(|name| (!name.starts_with(b".") || component.starts_with(b".")) && matches(component, name))
                .collect();
            names.sort();
            next.extend(names.iter().map(|name| dir.join(OsStr::from_bytes(name))));
        }
        found = next;
    }
    found
}

/// Whether a file name matches a shell pattern: `*`, `?`, `[a-z]`, `[!a-z]`, `\` for the next character itself.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], _) => name.is_empty(),
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        (_, []) => false,
        ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([b'[', class @ ..], [byte, tail @ ..]) => match match_class(class, *byte) {
            Some((hit, rest)) => hit && matches(rest, tail),
            None => *byte == b'[' && matches(class, tail),
        },
        ([b'\\', literal, rest @ ..], [byte, name @ ..]) | ([literal, rest @ ..], [byte, name @ ..]) => {
            literal == byte && matches(rest, name)
        }
    }
}

/// Whether a byte is in the class that starts after `[`, and the pattern after the class. `None`: the class has no end.
fn match_class(class: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match class {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, class),
    };
    let mut hit = false;
    let mut first = true;
    loop {
        match rest {
            [] => return None,
            [b']', rest @ ..] if !first => return Some((hit != negated, rest)),
            [low, b'-', high, tail @ ..] if *high != b']' => {
                hit |= (*low..=*high).contains(&byte);
                rest = tail;
            }
            [one, tail @ ..] => {
                hit |= *one == byte;
                rest = tail;
            }
        }
        first = false;
    }
}

struct Loader {
    config: Config,
    notices: Vec<(log::Level, String)>,
    /// The first `save` line replaces the default save points, later ones add to it.
    save_seen: bool,
}

impl Loader {
    /// Reads the lines of one file with its checks at the end, as Redis does for each included file too.
    fn read(&mut self, content: &[u8], depth: usize) -> Result<(), ConfigError> {
        for (at, line) in content.split(|b| *b == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            self.read_line(line, at + 1, depth).map_err(|stop| match stop {
                Stop::Refused(reason) => ConfigError::Line { number: at + 1, text: line.to_vec(), reason },
                Stop::Included(error) => error,
            })?;
        }
        self.check_whole()
    }

    fn read_line(&mut self, line: &[u8], number: usize, depth: usize) -> Result<(), Stop> {
        let words = words::split(line).ok_or("Unbalanced quotes in configuration line")?;
        let Some((name, values)) = words.split_first() else {
            return Ok(());
        };
        let name = name.to_ascii_lowercase();
        let values: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        if let Some((row, _)) = lookup(&name) {
            return Ok(self.set(row, &values)?);
        }
        let source =
            || SourceLine { words: values.iter().map(|word| word.to_vec()).collect(), number, text: line.to_vec() };
        match (name.as_slice(), values.as_slice()) {
            (name, [_]) if TOLERATED.contains(&name) => {}
            (b"include", [path]) => self.include(path, depth)?,
            (b"rename-command", [_, _]) => self.config.rename_command.push(source()),
            (b"user", [_, ..]) => self.config.user.push(source()),
            (b"loadmodule", [_, ..]) => self.config.loadmodule.push(source()),
            (dotted, []) if dotted.contains(&b'.') => {
                return Err("Module config specified without value".into());
            }
            (dotted, _) if dotted.contains(&b'.') => {
                let mut source = source();
                source.words.insert(0, name);
                self.config.module_config.push(source);
            }
            // The option by itself asks for Sentinel mode, which is decided before the configuration is read.
            (b"sentinel", []) => {}
            (b"sentinel", _) => return Err("sentinel directive while not in sentinel mode".into()),
            _ => return Err("Bad directive or wrong number of arguments".into()),
        }
        Ok(())
    }

    fn set(&mut self, row: &Row, values: &[&[u8]]) -> Result<(), ValueError> {
        if !row.has(flag::MULTI_ARG) {
            if values.len() != 1 {
                return Err("wrong number of arguments".into());
            }
            row.set_at_start(&mut self.config, values)?;
            if row.kind == Kind::Dir {
                std::env::set_current_dir(&self.config.dir).map_err(|error| os_error(&error))?;
            }
            return Ok(());
        }
        // `save "900 1"` is the same as `save 900 1`; an empty word stays a word.
        let parts = match values {
            [one] if !one.is_empty() => Some(words::split(one).unwrap_or_default()),
            _ => None,
        };
        let parts: Option<Vec<&[u8]>> = parts.as_ref().map(|parts| parts.iter().map(Vec::as_slice).collect());
        let values = parts.as_deref().unwrap_or(values);
        if row.kind == Kind::Save {
            let before = if values == [b""] || !self.save_seen { Vec::new() } else { self.config.save.clone() };
            row.set(&mut self.config, values)?;
            self.save_seen = true;
            self.config.save.splice(0..0, before);
            return Ok(());
        }
        row.set(&mut self.config, values).map(|_| ())
    }

    fn include(&mut self, path: &[u8], depth: usize) -> Result<(), Stop> {
        if depth == MAX_INCLUDE_DEPTH {
            return Err("include directives are nested too deep".into());
        }
        let content = read_files(Path::new(OsStr::from_bytes(path))).map_err(Stop::Included)?;
        self.read(&content, depth + 1).map_err(Stop::Included)
    }

    fn check_whole(&mut self) -> Result<(), ConfigError> {
        let refuse = |reason: ValueError| Err(ConfigError::Whole { reason });
        let config = &mut self.config;
        if !config.logfile.is_empty() {
            // Later it could no longer be refused.
            let opened = std::fs::OpenOptions::new().append(true).create(true).open(&config.logfile);
            if let Err(error) = opened {
                return refuse(format!("Can't open the log file: {}", os_error(&error)).into());
            }
        }
        if config.cluster_enabled && config.replicaof.is_some() {
            return refuse("replicaof directive not allowed in cluster mode".into());
        }
        if config.cluster_enabled && config.databases > 1 {
            self.notices.push((
                log::Level::Warn,
                format!(
                    "WARNING: Changing databases number from {} to 1 since we are in cluster mode",
                    config.databases
                ),
            ));
            config.databases = 1;
        }
        config.hz = config.hz.clamp(MIN_HZ, MAX_HZ);
        config.repl_backlog_size = config.repl_backlog_size.max(MIN_BACKLOG_SIZE);
        Ok(())
    }
}

/// Why the reading of a line failed.
enum Stop {
    Refused(ValueError),
    /// In a file this line includes; that error already names its own line.
    Included(ConfigError),
}

impl From<ValueError> for Stop {
    fn from(reason: ValueError) -> Self {
        Self::Refused(reason)
    }
}

impl From<&'static str> for Stop {
    fn from(reason: &'static str) -> Self {
        Self::Refused(reason.into())
    }
}
