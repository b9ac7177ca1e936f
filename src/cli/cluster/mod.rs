//! The cluster manager, `redis-cli --cluster`: creates, checks, repairs and reshapes a
//! cluster by talking to its nodes one by one.
//!
//! It keeps no state between runs. What it believes about a cluster is what the nodes said when it started (`view`).
//! Every decision is made by plain functions on that (`plan`). Every change goes through the public commands of the
//! nodes, in an order in which a crash at any point leaves a cluster that `fix` can repair.

mod check;
mod commands;
mod create;
mod fix;
mod membership;
mod move_slots;
mod move_whole;
mod node;
mod nodes_text;
mod plan;
mod progress;
mod rebalance;
mod reshard;
mod slots;
mod transfer;
mod view;
mod watch;

use std::cell::RefCell;
use std::io::IsTerminal;
use std::sync::OnceLock;

use super::options::{Options, leading_int};
use super::term::{self, InputLines, complain, is_color_term, say};
use progress::{Progress, Work};
use view::View;

/// The error has been printed; the command ends with an error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stop;

type Outcome<T = ()> = Result<T, Stop>;

/// The options whose names begin with `--cluster-`.
#[derive(Debug, Clone)]
pub(crate) struct ClusterOptions {
    /// Replicas of every master.
    pub(crate) replicas: usize,
    /// The master of a node that is added as a replica.
    pub(crate) master_id: Option<String>,
    /// Node IDs to take slots from, or the address to import from.
    pub(crate) from: Option<String>,
    /// Node ID that gets the slots.
    pub(crate) to: Option<String>,
    /// ACL user at the instance to import from.
    pub(crate) from_user: Option<Vec<u8>>,
    /// Password at the instance to import from.
    pub(crate) from_pass: Option<Vec<u8>>,
    /// Ask for that password.
    pub(crate) from_askpass: bool,
    /// `node=weight` pairs.
    pub(crate) weights: Vec<String>,
    /// Number of slots to move; 0 asks the user.
    pub(crate) slots: i64,
    /// Timeout of a MIGRATE call, milliseconds.
    pub(crate) timeout_ms: i64,
    /// Keys moved by one MIGRATE call.
    pub(crate) pipeline: i64,
    /// Imbalance that is tolerated, percent.
    pub(crate) threshold: f64,
    /// Answer yes to questions.
    pub(crate) yes: bool,
    /// Show the moves of a rebalance and make none.
    pub(crate) simulate: bool,
    /// Overwrite keys at the target.
    pub(crate) replace: bool,
    /// Leave imported keys at the source.
    pub(crate) copy: bool,
    /// Add the node as a replica.
    pub(crate) slave: bool,
    /// Give slots to masters that have none.
    pub(crate) use_empty_masters: bool,
    /// Look for slots with more than one owner.
    pub(crate) search_multiple_owners: bool,
    /// Repair even though masters can not be reached.
    pub(crate) fix_with_unreachable_masters: bool,
    /// Call masters only.
    pub(crate) only_masters: bool,
    /// Call replicas only.
    pub(crate) only_replicas: bool,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        ClusterOptions {
            replicas: 0,
            master_id: None,
            from: None,
            to: None,
            from_user: None,
            from_pass: None,
            from_askpass: false,
            weights: Vec::new(),
            slots: 0,
            timeout_ms: 60_000,
            pipeline: 10,
            threshold: 2.0,
            yes: false,
            simulate: false,
            replace: false,
            copy: false,
            slave: false,
            use_empty_masters: false,
            search_multiple_owners: false,
            fix_with_unreachable_masters: false,
            only_masters: false,
            only_replicas: false,
        }
    }
}

/// What a subcommand works with.
struct Manager {
    opts: Options,
    input: InputLines,
    /// Progress of a move, shown at a terminal.
    progress: RefCell<Progress>,
    /// The subcommand is `fix`, not `check`.
    fix: bool,
}

/// How many arguments a subcommand takes.
enum Arity {
    Exactly(usize),
    AtLeast(usize),
}

struct Subcommand {
    name: &'static str,
    arity: Arity,
    args: &'static str,
    options: &'static [&'static str],
    run: fn(&mut Manager, &[Vec<u8>]) -> Outcome,
}

const ANY_NODE: &str = "<host:port> or <host> <port> - separated by either colon or space";

#[rustfmt::skip]
static SUBCOMMANDS: &[Subcommand] = &[
    Subcommand { name: "create", arity: Arity::AtLeast(2), args: "host1:port1 ... hostN:portN",
        options: &["replicas <arg>"], run: create::create },
    Subcommand { name: "check", arity: Arity::AtLeast(1), args: ANY_NODE,
        options: &["search-multiple-owners"], run: check::check },
    Subcommand { name: "info", arity: Arity::AtLeast(1), args: ANY_NODE,
        options: &[], run: check::info },
    Subcommand { name: "fix", arity: Arity::AtLeast(1), args: ANY_NODE,
        options: &["search-multiple-owners", "fix-with-unreachable-masters"], run: check::fix },
    Subcommand { name: "reshard", arity: Arity::AtLeast(1), args: ANY_NODE,
        options: &["from <arg>", "to <arg>", "slots <arg>", "yes", "timeout <arg>", "pipeline <arg>", "replace"],
        run: reshard::reshard },
    Subcommand { name: "rebalance", arity: Arity::AtLeast(1), args: ANY_NODE,
        options: &["weight <node1=w1...nodeN=wN>", "use-empty-masters", "timeout <arg>", "simulate",
            "pipeline <arg>", "threshold <arg>", "replace"],
        run: rebalance::rebalance },
    Subcommand { name: "add-node", arity: Arity::Exactly(2), args: "new_host:new_port existing_host:existing_port",
        options: &["slave", "master-id <arg>"], run: membership::add_node },
    Subcommand { name: "del-node", arity: Arity::Exactly(2), args: "host:port node_id",
        options: &[], run: membership::del_node },
    Subcommand { name: "call", arity: Arity::AtLeast(2), args: "host:port command arg arg .. arg",
        options: &["only-masters", "only-replicas"], run: commands::call },
    Subcommand { name: "set-timeout", arity: Arity::Exactly(2), args: "host:port milliseconds",
        options: &[], run: commands::set_timeout },
    Subcommand { name: "import", arity: Arity::Exactly(1), args: "host:port",
        options: &["from <arg>", "from-user <arg>", "from-pass <arg>", "from-askpass", "copy", "replace"],
        run: transfer::import },
    Subcommand { name: "backup", arity: Arity::Exactly(2), args: "host:port backup_directory",
        options: &[], run: transfer::backup },
    Subcommand { name: "watch", arity: Arity::AtLeast(1), args: ANY_NODE,
        options: &[], run: watch::watch },
    Subcommand { name: "help", arity: Arity::Exactly(0), args: "",
        options: &[], run: help },
];

/// Each subcommand with its arguments and its options, without their `--cluster-`.
pub(crate) fn texts() -> impl Iterator<Item = (&'static str, &'static str, &'static [&'static str])> {
    SUBCOMMANDS.iter().map(|s| (s.name, s.args, s.options))
}

/// Runs `--cluster` with its words and returns the exit code.
pub(crate) fn run(opts: Options, words: Vec<Vec<u8>>) -> i32 {
    let name = words.first().map(Vec::as_slice).unwrap_or_default();
    let args = words.get(1..).unwrap_or_default();
    let Some(subcommand) = SUBCOMMANDS.iter().find(|s| s.name.as_bytes() == name) else {
        complain!("Unknown --cluster subcommand\n");
        return 1;
    };
    let fits = match subcommand.arity {
        // `help` takes any arguments.
        Arity::Exactly(0) => true,
        Arity::Exactly(n) => args.len() == n,
        Arity::AtLeast(n) => args.len() >= n,
    };
    if !fits {
        complain!("[ERR] Wrong number of arguments for specified --cluster sub command\n");
        return 1;
    }
    let mut manager = Manager { opts, input: InputLines::default(), progress: RefCell::default(), fix: false };
    let outcome = (subcommand.run)(&mut manager, args);
    term::clear_status();
    match outcome {
        Ok(()) => 0,
        Err(Stop) => 1,
    }
}

fn help(_: &mut Manager, _: &[Vec<u8>]) -> Outcome {
    const COLUMN: usize = 15;
    let mut out = String::from("Cluster Manager Commands:\n");
    for subcommand in SUBCOMMANDS {
        out.push_str(&format!("  {:COLUMN$}{}\n", subcommand.name, subcommand.args));
        for option in subcommand.options {
            out.push_str(&format!("{:COLUMN$}  --cluster-{option}\n", ""));
        }
    }
    out.push_str(
        "\nFor check, fix, reshard, del-node, set-timeout, info, rebalance, call, import, backup, watch \
         you can specify the host and port of any working node in the cluster.\n\
         \nCluster Manager Options:\n  --cluster-yes  Automatic yes to cluster commands prompts\n\n",
    );
    say!("{out}");
    // Redis's redis-cli exits with 1 here.
    Err(Stop)
}

impl Manager {
    fn options(&self) -> &ClusterOptions {
        &self.opts.cluster_options
    }

    /// Begins to show, on a terminal, how far the move of these slots has come. Each is given with the node it leaves.
    fn begin_progress(&self, title: &'static str, view: &mut View, moves: &[(usize, u16)]) {
        if !std::io::stdout().is_terminal() {
            return;
        }
        let mut keys = 0;
        for at in 0..view.nodes.len() {
            let slots: Vec<u16> = moves.iter().filter(|(from, _)| *from == at).map(|(_, slot)| *slot).collect();
            keys += progress::count_keys(&mut view.nodes[at], &slots);
        }
        *self.progress.borrow_mut() = Progress::begin(title, Work { slots: moves.len() as u64, keys });
    }

    fn end_progress(&self) {
        self.progress.borrow_mut().end();
    }

    /// Loads the cluster that the node named by these arguments belongs to.
    fn load(&self, args: &[Vec<u8>]) -> Outcome<View> {
        let (host, port) = host_argument(args)?;
        View::load(&self.opts, &host, port)
    }

    /// The next line of input, without blanks around it; the end of input stops the command.
    fn answer(&mut self) -> Outcome<String> {
        let line = self.input.next_line().ok_or(Stop)?;
        Ok(String::from_utf8_lossy(&line).trim().to_string())
    }

    /// Asks for a yes. With `--cluster-yes` the answer is yes unasked, unless `always_ask`.
    fn confirm(&mut self, question: &str, always_ask: bool) -> bool {
        if self.options().yes && !always_ask {
            return true;
        }
        say!("{question} (type 'yes' to accept): ");
        self.answer().is_ok_and(|answer| answer == "yes")
    }
}

/// `host:port[@bus_port]`, as users and CLUSTER NODES write it.
fn parse_address(text: &str) -> Option<(String, u16, Option<u16>)> {
    let (address, bus) = match text.rsplit_once('@') {
        Some((address, bus)) => (address, Some(leading_int(bus.as_bytes()))),
        None => (text, None),
    };
    let (host, port) = address.rsplit_once(':')?;
    let port = u16::try_from(leading_int(port.as_bytes())).ok()?;
    Some((host.to_string(), port, bus.and_then(|b| u16::try_from(b).ok())))
}

/// The node that a subcommand starts from: `host:port` or `host port`.
fn host_argument(args: &[Vec<u8>]) -> Outcome<(String, u16)> {
    let text = |at: usize| args.get(at).map(|arg| String::from_utf8_lossy(arg).into_owned());
    let found = match (text(0), text(1)) {
        (Some(address), None) => parse_address(&address).map(|(host, port, _)| (host, port)),
        (Some(host), Some(port)) => u16::try_from(leading_int(port.as_bytes())).ok().map(|port| (host, port)),
        _ => None,
    };
    match found {
        Some((host, port)) if !host.is_empty() && port != 0 => Ok((host, port)),
        _ => {
            complain!(
                "[ERR] Invalid arguments: you need to pass either a valid address (ie. 120.0.0.1:7000) or space separated IP and port (ie. 120.0.0.1 7000)\n"
            );
            Err(Stop)
        }
    }
}

/// The kind of a message, shown by its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tone {
    Info,
    Warn,
    Err,
    Ok,
}

/// Prints a message in the colour of its tone, on terminals that have colours.
fn tell(tone: Tone, text: std::fmt::Arguments<'_>) {
    static COLOR: OnceLock<bool> = OnceLock::new();
    if !*COLOR.get_or_init(|| is_color_term() && std::io::stdout().is_terminal()) {
        say!("{text}");
        return;
    }
    let code = match tone {
        Tone::Info => "29;1",
        Tone::Warn => "33;1",
        Tone::Err => "31;1",
        Tone::Ok => "32;1",
    };
    say!("\x1b[{code}m{text}\x1b[0m");
}

macro_rules! info { ($($arg:tt)*) => { $crate::cli::cluster::tell($crate::cli::cluster::Tone::Info, format_args!($($arg)*)) }; }
macro_rules! caution { ($($arg:tt)*) => { $crate::cli::cluster::tell($crate::cli::cluster::Tone::Warn, format_args!($($arg)*)) }; }
macro_rules! err { ($($arg:tt)*) => { $crate::cli::cluster::tell($crate::cli::cluster::Tone::Err, format_args!($($arg)*)) }; }
macro_rules! ok { ($($arg:tt)*) => { $crate::cli::cluster::tell($crate::cli::cluster::Tone::Ok, format_args!($($arg)*)) }; }
use {caution, err, info, ok};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let read = |text| parse_address(text).unwrap();
        assert_eq!(read("a:1"), ("a".into(), 1, None));
        assert_eq!(read("10.0.0.1:7000@17000"), ("10.0.0.1".into(), 7000, Some(17000)));
        assert_eq!(read("::1:7000@17000,name"), ("::1".into(), 7000, Some(17000)));
        assert_eq!(read(":0@0"), (String::new(), 0, Some(0)));
        assert_eq!(parse_address("nothing"), None);
        assert_eq!(parse_address("a:70000"), None);
    }

    #[test]
    fn the_starting_node() {
        let args = |line: &str| -> Vec<Vec<u8>> { line.split(' ').map(|w| w.into()).collect() };
        assert_eq!(host_argument(&args("a:1")), Ok(("a".into(), 1)));
        assert_eq!(host_argument(&args("a 1")), Ok(("a".into(), 1)));
        assert_eq!(host_argument(&args("a")), Err(Stop));
        assert_eq!(host_argument(&args("a x")), Err(Stop));
    }
}
