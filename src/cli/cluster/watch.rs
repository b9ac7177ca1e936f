//! `--cluster watch`: the masters and replicas of a cluster, again and again, until `q` or Ctrl-C.
//!
//! One node is asked for the list of nodes, and every node about itself. When the first does not answer, the next is
//! asked for the list. On a terminal the table replaces the one before it. Elsewhere it is printed as often as `-r`
//! says, once by default.

use std::collections::HashMap;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

use super::node::Node;
use super::nodes_text::NodeLine;
use super::slots::SLOTS;
use super::{Manager, Outcome, Stop, host_argument};
use crate::cli::modes::stat::human_bytes;
use crate::cli::modes::{info_field, info_number};
use crate::cli::options::Options;
use crate::cli::term::{self, complain, is_color_term, put_now};

/// How long connecting to a node may take before it counts as unreachable.
const CONNECT_WAIT: Duration = Duration::from_millis(500);

const HEADING: &str =
    "  NODE                   ID        SLOTS       KEYS        OFFSET       LAG     OPS/S    MEMORY  CLIENTS  STATE";

pub(crate) fn watch(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let (host, port) = host_argument(args)?;
    let mut opts = manager.opts.clone();
    opts.connect_timeout = opts.connect_timeout.or(Some(CONNECT_WAIT));
    let interval = match opts.interval_us {
        0 => Duration::from_secs(1),
        us => Duration::from_micros(us),
    };
    let mut watcher = Watcher { opts, seeds: vec![(host, port)], links: HashMap::new() };
    let mut sight = watcher.look()?;
    if !std::io::stdout().is_terminal() {
        for round in 1.. {
            put_now(table(&sight, false, usize::MAX).join("\n").as_bytes());
            put_now(b"\n");
            if manager.opts.repeat >= 0 && round >= manager.opts.repeat {
                break;
            }
            std::thread::sleep(interval);
            sight = watcher.look()?;
        }
        return Ok(());
    }
    let mut screen = Screen::open();
    loop {
        let (columns, rows) = term::size();
        screen.show(&table(&sight, is_color_term(), columns), rows);
        if screen.asked_to_end(interval) {
            return Ok(());
        }
        sight = watcher.look()?;
    }
}

/// The cluster at one moment.
struct Sight {
    seed: String,
    state: String,
    epoch: i64,
    masters: Vec<(Member, Vec<Member>)>,
    /// Replicas whose master nobody knows.
    orphans: Vec<Member>,
    at: String,
}

/// One node at one moment.
struct Member {
    line: NodeLine,
    report: Option<Report>,
}

/// What a node says about itself.
#[derive(Debug, Clone, Default, PartialEq)]
struct Report {
    keys: i64,
    offset: i64,
    link_up: bool,
    seconds_since_master: i64,
    syncing: bool,
    loading: bool,
    ops: i64,
    memory: i64,
    clients: i64,
}

/// A connection to a node, and its counters when it was asked last.
struct Link {
    node: Node,
    commands: Option<(i64, Instant)>,
}

struct Watcher {
    opts: Options,
    /// Nodes that may know the cluster, the one that answered last at the front.
    seeds: Vec<(String, u16)>,
    links: HashMap<String, Link>,
}

impl Watcher {
    fn look(&mut self) -> Outcome<Sight> {
        for at in 0..self.seeds.len() {
            let (host, port) = self.seeds[at].clone();
            if let Some(sight) = self.look_from(&host, port) {
                return Ok(sight);
            }
        }
        complain!("No node of the cluster answers at {}\n", addresses(&self.seeds));
        Err(Stop)
    }

    fn look_from(&mut self, host: &str, port: u16) -> Option<Sight> {
        let seed = self.link(host, port)?;
        let lines = seed.node.words("CLUSTER NODES").ok()?;
        let lines = super::nodes_text::parse(&lines.text_lossy())?;
        let info = seed.node.words("CLUSTER INFO").ok()?;
        let info = info.text().unwrap_or_default().to_vec();
        let mut members = Vec::new();
        for mut line in lines.into_iter().filter(|line| !line.is("handshake")) {
            if line.host.is_empty() {
                line.host = host.to_string();
            }
            let report = if line.port == 0 || line.is("noaddr") { None } else { self.ask(&line.host, line.port) };
            members.push(Member { line, report });
        }
        let mut seeds = vec![(host.to_string(), port)];
        seeds.extend(
            members
                .iter()
                .map(|m| (m.line.host.clone(), m.line.port))
                .filter(|(h, p)| (h.as_str(), *p) != (host, port)),
        );
        self.seeds = seeds;
        Some(arrange(format!("{host}:{port}"), &info, members))
    }

    fn link(&mut self, host: &str, port: u16) -> Option<&mut Link> {
        let address = format!("{host}:{port}");
        if !self.links.get(&address).is_some_and(|link| link.node.is_connected()) {
            let mut node = Node::new(host, port);
            if !node.connect_quietly(&self.opts) {
                self.links.remove(&address);
                return None;
            }
            self.links.insert(address.clone(), Link { node, commands: None });
        }
        self.links.get_mut(&address)
    }

    fn ask(&mut self, host: &str, port: u16) -> Option<Report> {
        let link = self.link(host, port)?;
        let info = link.node.words("INFO").ok()?;
        let info = info.text().unwrap_or_default();
        let mut report = read_info(info);
        let now = Instant::now();
        if let Some(total) = info_number(info, "total_commands_processed") {
            if let Some((before, at)) = link.commands {
                let seconds = now.duration_since(at).as_secs_f64().max(1e-3);
                report.ops = ((total - before).max(0) as f64 / seconds).round() as i64;
            }
            link.commands = Some((total, now));
        }
        Some(report)
    }
}

fn addresses(seeds: &[(String, u16)]) -> String {
    let list: Vec<String> = seeds.iter().map(|(host, port)| format!("{host}:{port}")).collect();
    list.join(", ")
}

fn read_info(info: &[u8]) -> Report {
    let number = |name: &str| info_number(info, name).unwrap_or(0);
    let replica = info_field(info, "role").as_deref() == Some("slave");
    let keys = info_field(info, "db0").unwrap_or_default();
    let keys = keys.split(',').find_map(|part| part.strip_prefix("keys=")).and_then(|n| n.parse().ok());
    Report {
        keys: keys.unwrap_or(0),
        offset: number(if replica { "slave_repl_offset" } else { "master_repl_offset" }),
        link_up: !replica || info_field(info, "master_link_status").as_deref() == Some("up"),
        seconds_since_master: info_number(info, "master_last_io_seconds_ago").unwrap_or(-1),
        syncing: number("master_sync_in_progress") != 0,
        loading: number("loading") != 0,
        ops: number("instantaneous_ops_per_sec"),
        memory: number("used_memory"),
        clients: number("connected_clients"),
    }
}

/// Puts replicas under their masters: masters by their first slot, those without at the end.
fn arrange(seed: String, info: &[u8], members: Vec<Member>) -> Sight {
    let (replicas, masters): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.line.is("slave"));
    let mut masters: Vec<(Member, Vec<Member>)> = masters.into_iter().map(|master| (master, Vec::new())).collect();
    masters.sort_by_key(|(master, _)| {
        (master.line.slots.iter().next().unwrap_or(SLOTS), master.line.host.clone(), master.line.port)
    });
    let mut orphans = Vec::new();
    for replica in replicas {
        let id = replica.line.master.clone().unwrap_or_default();
        match masters.iter_mut().find(|(master, _)| master.line.id == id) {
            Some((_, replicas)) => replicas.push(replica),
            None => orphans.push(replica),
        }
    }
    for (_, replicas) in &mut masters {
        replicas.sort_by_key(|replica| (replica.line.host.clone(), replica.line.port));
    }
    Sight {
        seed,
        state: info_field(info, "cluster_state").unwrap_or_else(|| "unknown".into()),
        epoch: info_number(info, "cluster_current_epoch").unwrap_or(0),
        masters,
        orphans,
        at: local_time(),
    }
}

fn local_time() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    let today = now % 86_400;
    format!("{:02}:{:02}:{:02} UTC", today / 3600, today / 60 % 60, today % 60)
}

/// The style of a row.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Title,
    Good,
    Doubtful,
    Bad,
    Faint,
}

/// The rows to show, none wider than the terminal.
fn table(sight: &Sight, color: bool, columns: usize) -> Vec<String> {
    let masters = sight.masters.iter().filter(|(master, _)| !master.line.slots.is_empty()).count();
    let replicas = sight.masters.iter().map(|(_, replicas)| replicas.len()).sum::<usize>() + sight.orphans.len();
    let slots: usize = sight.masters.iter().map(|(master, _)| master.line.slots.len()).sum();
    let reports = || sight.masters.iter().filter_map(|(master, _)| master.report.as_ref());
    let failures = all(sight).filter(|member| is_failing(member)).count();
    let well = sight.state == "ok" && failures == 0 && slots == usize::from(SLOTS);
    let mut rows = vec![
        (
            Look::Title,
            format!(
                "Cluster seen from {}   state: {}   epoch: {}   {}",
                sight.seed, sight.state, sight.epoch, sight.at
            ),
        ),
        (
            if well { Look::Good } else { Look::Bad },
            format!(
                "{masters} masters, {replicas} replicas, {slots}/{SLOTS} slots covered, {failures} failing; {} keys, {} operations/s, {}",
                reports().map(|r| r.keys).sum::<i64>(),
                reports().map(|r| r.ops).sum::<i64>(),
                human_bytes(reports().map(|r| r.memory).sum::<i64>()),
            ),
        ),
        (Look::Plain, String::new()),
        (Look::Faint, HEADING.to_string()),
    ];
    for (master, replicas) in &sight.masters {
        rows.push(row(master, None));
        rows.extend(replicas.iter().map(|replica| row(replica, Some(master))));
    }
    rows.extend(sight.orphans.iter().map(|orphan| row(orphan, None)));
    let paint = |(look, text): (Look, String)| {
        let text: String = text.chars().take(columns.saturating_sub(1)).collect();
        let code = match look {
            _ if !color => return text,
            Look::Plain => return text,
            Look::Title => "1",
            Look::Good => "32;1",
            Look::Doubtful => "33;1",
            Look::Bad => "31;1",
            Look::Faint => "90",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    };
    rows.into_iter().map(paint).collect()
}

fn all(sight: &Sight) -> impl Iterator<Item = &Member> {
    sight.masters.iter().flat_map(|(master, replicas)| std::iter::once(master).chain(replicas)).chain(&sight.orphans)
}

fn is_failing(member: &Member) -> bool {
    member.report.is_none() || member.line.is("fail") || member.line.is("fail?")
}

fn row(member: &Member, master: Option<&Member>) -> (Look, String) {
    let line = &member.line;
    let replica = line.is("slave");
    let name = format!("{}{}:{}", if replica { "  " } else { "" }, line.host, line.port);
    let id = line.id.get(..8).unwrap_or(&line.id);
    let slots = if replica { String::new() } else { line.slots.len().to_string() };
    let (look, state) = state(member);
    let Some(report) = &member.report else {
        return (
            look,
            format!(
                "  {name:<22} {id:<8} {slots:>6} {:>10} {:>13} {:>9} {:>9} {:>9} {:>8}  {state}",
                "", "", "", "", "", ""
            ),
        );
    };
    let lag = match master.and_then(|master| master.report.as_ref()) {
        Some(master) if replica => human_bytes((master.offset - report.offset).max(0)),
        _ => String::new(),
    };
    (
        look,
        format!(
            "  {name:<22} {id:<8} {slots:>6} {:>10} {:>13} {lag:>9} {:>9} {:>9} {:>8}  {state}",
            report.keys,
            report.offset,
            report.ops,
            human_bytes(report.memory),
            report.clients
        ),
    )
}

/// The text of the last column of a row, and its style.
fn state(member: &Member) -> (Look, String) {
    let line = &member.line;
    let role = if line.is("slave") { "replica" } else { "master" };
    let moving = line.migrating.len() + line.importing.len();
    let doubt = match &member.report {
        _ if line.is("fail") => return (Look::Bad, format!("{role}, failed")),
        _ if line.is("fail?") => return (Look::Bad, format!("{role}, suspected")),
        None => return (Look::Bad, format!("{role}, unreachable")),
        Some(report) if report.loading => Some("loading".to_string()),
        Some(report) if report.syncing => Some("syncing".to_string()),
        Some(report) if !report.link_up => Some("link to its master down".to_string()),
        Some(report) if report.seconds_since_master > 10 => {
            Some(format!("silent master for {} s", report.seconds_since_master))
        }
        Some(_) if moving > 0 => Some(format!("{moving} slots in motion")),
        Some(_) => None,
    };
    match doubt {
        Some(doubt) => (Look::Doubtful, format!("{role}, {doubt}")),
        None => (Look::Plain, role.to_string()),
    }
}

/// The terminal while the table is shown: no echo, no cursor. Dropping it restores the terminal.
struct Screen {
    saved: Option<Termios>,
    signals: Option<SignalFd>,
}

impl Screen {
    fn open() -> Screen {
        let stdin = std::io::stdin();
        let saved = tcgetattr(&stdin).ok();
        if let Some(saved) = &saved {
            let mut keys = saved.clone();
            keys.local_flags.remove(LocalFlags::ECHO | LocalFlags::ICANON);
            let _ = tcsetattr(&stdin, SetArg::TCSANOW, &keys);
        }
        let mut ending = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| ending.add(signal));
        let signals =
            ending.thread_block().ok().and_then(|()| SignalFd::with_flags(&ending, SfdFlags::SFD_CLOEXEC).ok());
        put_now(b"\x1b[?1049h\x1b[?25l");
        Screen { saved, signals }
    }

    fn show(&self, rows: &[String], height: usize) {
        let mut text = String::from("\x1b[H");
        for (at, row) in rows.iter().take(height.saturating_sub(1)).enumerate() {
            if at > 0 {
                text.push_str("\r\n");
            }
            text.push_str(row);
            text.push_str("\x1b[K");
        }
        text.push_str("\x1b[J");
        put_now(text.as_bytes());
    }

    /// Waits until the next update is due. True when the user wants to end.
    fn asked_to_end(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left.as_millis() as i32).unwrap_or(PollTimeout::ZERO);
            let stdin = std::io::stdin();
            let mut fds = vec![PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
            fds.extend(self.signals.as_ref().map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
            let ready = poll(&mut fds, timeout).unwrap_or(0);
            let (key, signal) = (fds[0].any().unwrap_or(false), fds.get(1).is_some_and(|fd| fd.any().unwrap_or(false)));
            if signal {
                return true;
            }
            if key {
                let mut byte = [0u8; 1];
                match stdin.lock().read(&mut byte) {
                    Ok(0) | Err(_) => return true,
                    Ok(_) if byte[0].eq_ignore_ascii_case(&b'q') => return true,
                    Ok(_) => {}
                }
            }
            if ready == 0 {
                return false;
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        put_now(b"\x1b[?25h\x1b[?1049l");
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, saved);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight() -> Sight {
        let text = "\
aaaaaaaaaa 127.0.0.1:7001@17001 master - 0 0 2 connected 8192-16383 [5-<-bbbbbbbbbb]
bbbbbbbbbb 127.0.0.1:7000@17000 myself,master - 0 0 1 connected 0-8191
cccccccccc 127.0.0.1:7003@17003 slave bbbbbbbbbb 0 0 1 connected
dddddddddd 127.0.0.1:7004@17004 slave,fail aaaaaaaaaa 0 0 1 disconnected
";
        let lines = super::super::nodes_text::parse(text).unwrap();
        let members = lines
            .into_iter()
            .map(|line| {
                let offset = if line.port == 7003 { 900 } else { 1000 };
                let report = Report { keys: 7, offset, link_up: true, ops: 5, ..Report::default() };
                Member { report: (line.port != 7004).then_some(report), line }
            })
            .collect();
        arrange("127.0.0.1:7000".into(), b"cluster_state:ok\r\ncluster_current_epoch:6\r\n", members)
    }

    #[test]
    fn replicas_stand_under_their_masters() {
        let rows = table(&sight(), false, usize::MAX);
        let text = rows.join("\n");
        assert!(rows[0].starts_with("Cluster seen from 127.0.0.1:7000   state: ok   epoch: 6"), "{text}");
        assert!(rows[1].starts_with("2 masters, 2 replicas, 16384/16384 slots covered, 1 failing; 14 keys"), "{text}");
        let at = |name: &str| 4 + rows[4..].iter().position(|row| row.contains(name)).unwrap();
        assert!(at("7000 ") < at("7003 ") && at("7003 ") < at("7001 ") && at("7001 ") < at("7004 "), "{text}");
        assert!(rows[at("7003 ")].contains("100B") && rows[at("7003 ")].ends_with("  replica"), "{text}");
        assert!(rows[at("7004 ")].ends_with("  replica, failed"), "{text}");
        assert!(rows[at("7001 ")].ends_with("  master, 1 slots in motion"), "{text}");
        // Columns stand under their headings.
        let end = |row: &str, word: &str| row.find(word).map(|from| from + word.len());
        assert_eq!(end(HEADING, "SLOTS"), end(&rows[at("7000 ")], "8192"));
        assert_eq!(end(HEADING, "OFFSET"), end(&rows[at("7000 ")], "1000"));
    }

    #[test]
    fn rows_fit_and_have_colours_where_they_are_wanted() {
        assert!(table(&sight(), false, 40).iter().all(|row| row.chars().count() < 40));
        let rows = table(&sight(), true, 200);
        assert!(rows[1].starts_with("\x1b[31;1m") && rows[1].ends_with("\x1b[0m"));
    }

    #[test]
    fn what_a_replica_says() {
        let report = read_info(
            b"role:slave\r\nmaster_link_status:down\r\nslave_repl_offset:42\r\nmaster_repl_offset:42\r\n\
              master_last_io_seconds_ago:-1\r\ndb0:keys=3,expires=1\r\nused_memory:10\r\n",
        );
        assert_eq!((report.keys, report.offset, report.link_up), (3, 42, false));
    }
}
