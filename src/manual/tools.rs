//! The programs, each with its options.

use super::directives::default_of;
use crate::config::TABLE;
use crate::{bench, cli};

/// What comes after an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Nothing,
    Path,
    /// One of these words.
    Word(Vec<String>),
    Anything,
}

#[derive(Clone, Debug)]
pub(super) struct Opt {
    pub(super) names: Vec<String>,
    /// Placeholder of the value; empty: there is none.
    pub(super) placeholder: String,
    pub(super) value: Value,
    pub(super) help: String,
}

pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) options: Vec<Opt>,
    /// Its words are a command and its arguments; otherwise they are files.
    pub(super) takes_command: bool,
}

pub(super) fn all() -> [Tool; 5] {
    let check = |name, options| Tool { name, options, takes_command: false };
    let fix = opt("--fix", "", "Cut the file off where it is broken.");
    let cut = opt("--truncate-to-timestamp", "<seconds>", "Cut the log off at a time, in seconds since 1970.");
    [
        Tool { name: "redis-server", options: server(), takes_command: false },
        Tool { name: "redis-cli", options: client(), takes_command: true },
        Tool { name: "redis-benchmark", options: of_texts(bench::option_texts()), takes_command: true },
        check("redis-check-aof", vec![fix, cut]),
        check("redis-check-rdb", Vec::new()),
    ]
}

fn opt(name: &str, placeholder: &str, help: &str) -> Opt {
    let value = match placeholder {
        "" => Value::Nothing,
        "<file>" | "<filename>" | "<dir>" | "<socket>" => Value::Path,
        _ => Value::Anything,
    };
    Opt { names: vec![name.to_owned()], placeholder: placeholder.to_owned(), value, help: help.replace('\n', " ") }
}

fn of_texts(texts: impl Iterator<Item = cli::OptionText>) -> Vec<Opt> {
    let own = |text: cli::OptionText| {
        let names = text.names.iter().map(|name| (*name).to_owned()).collect();
        Opt { names, ..opt("", text.value, text.help) }
    };
    texts.map(own).collect()
}

fn client() -> Vec<Opt> {
    let mut options = of_texts(cli::option_texts());
    if let Some(cluster) = options.iter_mut().find(|o| o.names[0] == "--cluster") {
        cluster.value = Value::Word(cli::cluster_texts().map(|(name, ..)| name.to_owned()).collect());
    }
    let yes = ["yes"];
    let of_commands = cli::cluster_texts().flat_map(|(_, _, options)| options).chain(&yes);
    for (name, placeholder) in of_commands.map(|option| option.split_once(' ').unwrap_or((option, ""))) {
        let name = format!("--cluster-{name}");
        if !options.iter().any(|o| o.names[0] == name) {
            let users = cli::cluster_texts().filter(|(_, _, own)| own.iter().any(|o| is_called(o, &name)));
            let users: Vec<&str> = users.map(|(name, ..)| name).collect();
            let help = match name.as_str() {
                "--cluster-yes" => "Answer yes to the questions of --cluster.".into(),
                _ => format!("For --cluster {}.", users.join(", ")),
            };
            options.push(opt(&name, placeholder, &help));
        }
    }
    options
}

/// Whether an option of the cluster manager has this full name.
fn is_called(option: &str, name: &str) -> bool {
    option.split(' ').next() == name.strip_prefix("--cluster-")
}

fn server() -> Vec<Opt> {
    let directive = |row: &crate::config::Row| {
        let choices: Vec<String> = row.choices().into_iter().map(String::from).collect();
        let is_path = ["dir", "file", "unixsocket"].iter().any(|end| row.name.ends_with(end));
        let value = match choices.is_empty() {
            false => Value::Word(choices),
            true if is_path => Value::Path,
            true => Value::Anything,
        };
        let help = format!("{} ({})", row.values(), default_of(row));
        Opt { value, ..opt(&format!("--{}", row.name), "<value>", &help) }
    };
    let own = [
        opt("--test-memory", "<megabytes>", "Test so much memory of the machine."),
        opt("--check-system", "", "Look at settings of the system that matter."),
        opt("--help", "", "Print how it is called and exit."),
        opt("--version", "", "Print the version and exit."),
    ];
    own.into_iter().chain(TABLE.iter().map(directive)).collect()
}
