//! INFO and scrapes: every figure has one row, which says its names, what it means and where its value comes from. A
//! section of INFO is a list of rows. A new figure is a new row, and nothing else.
//!
//! Metrics that redis_exporter has too are named as there, `redis_...`, so that dashboards and alerts made for it go on working;
//! the others are `hexad_...`.

mod clients;
mod cluster;
mod commands;
mod cpu;
mod debug;
mod errors;
mod keyspace;
mod memory;
mod operators;
mod persistence;
mod replication;
mod row;
mod server;
mod stats;
mod tls;

use crate::admin::figure::Value;
use crate::admin::memory::Overhead;
use crate::admin::openmetrics::{Exposition, Format};
use crate::repl::MasterView;
use crate::server::Server;
use nix::sys::resource::{Usage, UsageWho, getrusage};
use row::{Figure, Source};
use std::cell::OnceCell;
use std::fmt::Write;

/// What rows look at. What takes long is found out once, if a row asks for it.
pub(crate) struct Facts<'a> {
    pub(crate) srv: &'a Server,
    memory: OnceCell<Overhead>,
    master: OnceCell<Option<MasterView>>,
    turns_us: OnceCell<Vec<u64>>,
    usage: [OnceCell<Option<Usage>>; 3],
    pub(crate) now_s: i64,
}

impl Facts<'_> {
    fn new(srv: &Server) -> Facts<'_> {
        Facts {
            srv,
            memory: OnceCell::new(),
            master: OnceCell::new(),
            turns_us: OnceCell::new(),
            usage: Default::default(),
            now_s: srv.now_s(),
        }
    }

    fn memory(&self) -> &Overhead {
        self.memory.get_or_init(|| self.srv.memory_overhead())
    }

    /// How long half, 99 % and 99.9 % of the turns of the loop take at most.
    fn turns_us(&self) -> &[u64] {
        self.turns_us.get_or_init(|| {
            let ns = self.srv.admin.metrics.turns.percentiles(&[50.0, 99.0, 99.9]);
            ns.unwrap_or(vec![0; 3]).into_iter().map(|ns| ns / 1000).collect()
        })
    }

    /// What the process, its children and the main thread have used, in this order.
    fn usage(&self, whose: usize) -> Option<&Usage> {
        const ALL: [UsageWho; 3] = [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN, UsageWho::RUSAGE_THREAD];
        self.usage[whose].get_or_init(|| getrusage(ALL[whose]).ok()).as_ref()
    }

    /// The link to our master, if this is a replica.
    fn master(&self) -> Option<&MasterView> {
        self.master.get_or_init(|| self.srv.repl.master_view(self.now_s)).as_ref()
    }
}

struct Section {
    /// What INFO's argument calls it.
    names: &'static [&'static str],
    title: &'static str,
    part_of: Part,
    rows: &'static [Figure],
}

/// When a section is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Without arguments, too.
    Default,
    /// With `all` and `everything`.
    All,
    /// By its name alone.
    Named,
    /// Never: scrapes have it.
    Scrapes,
}

const fn section(
    names: &'static [&'static str],
    title: &'static str,
    part_of: Part,
    rows: &'static [Figure],
) -> Section {
    Section { names, title, part_of, rows }
}

static SECTIONS: &[Section] = &[
    section(&["server"], "Server", Part::Default, server::ROWS),
    section(&["clients"], "Clients", Part::Default, clients::ROWS),
    section(&["memory"], "Memory", Part::Default, memory::ROWS),
    section(&["persistence"], "Persistence", Part::Default, persistence::ROWS),
    section(&["stats"], "Stats", Part::Default, stats::ROWS),
    section(&["replication"], "Replication", Part::Default, replication::ROWS),
    section(&["cpu"], "CPU", Part::Default, cpu::ROWS),
    // There are no modules to list.
    section(&["module_list", "modules"], "Modules", Part::Default, &[]),
    section(&["commandstats"], "Commandstats", Part::All, commands::STATS),
    section(&["errorstats"], "Errorstats", Part::Default, errors::ROWS),
    section(&["latencystats"], "Latencystats", Part::All, commands::LATENCY),
    section(&["cluster"], "Cluster", Part::Default, cluster::ROWS),
    section(&["keyspace"], "Keyspace", Part::Default, keyspace::ROWS),
    // Not in Redis.
    section(&["tls"], "TLS", Part::All, tls::ROWS),
    section(&["debug"], "Debug", Part::Named, debug::ROWS),
    section(&[], "", Part::Scrapes, operators::ROWS),
];

impl Server {
    /// The text of the sections with these names; of the default ones when there are no names.
    pub(crate) fn info<'a>(&self, names: impl Iterator<Item = &'a [u8]> + Clone) -> String {
        let given = |name: &str| names.clone().any(|n| n.eq_ignore_ascii_case(name.as_bytes()));
        let all = given("all") || given("everything");
        let defaults = given("default") || names.clone().next().is_none();
        let facts = Facts::new(self);
        // It grows as it is written: room for all of it would be part of the memory that it tells of.
        let mut out = String::new();
        for section in SECTIONS {
            if (all && section.part_of <= Part::All)
                || (defaults && section.part_of == Part::Default)
                || section.names.iter().any(|n| given(n))
            {
                let gap = if out.is_empty() { "" } else { "\r\n" };
                let _ = write!(out, "{gap}# {}\r\n", section.title);
                section.rows.iter().for_each(|row| write_lines(row, &facts, &mut out));
            }
        }
        out
    }

    /// What a scrape gets.
    pub(crate) fn metrics(&self, format: Format) -> Exposition {
        let facts = Facts::new(self);
        let mut out = Exposition::new(format);
        SECTIONS.iter().flat_map(|section| section.rows).for_each(|row| write_samples(row, &facts, &mut out));
        out
    }
}

/// The lines of a row in INFO.
fn write_lines(row: &Figure, facts: &Facts<'_>, out: &mut String) {
    let mut line = |name: &str, value: Value| {
        if value != Value::Absent {
            out.push_str(name);
            out.push(':');
            value.write(out);
            out.push_str("\r\n");
        }
    };
    match row.source {
        Source::Value(value) if !row.field.is_empty() => line(row.field, value(facts)),
        Source::Lines(lines) => lines(facts, &mut line),
        Source::Value(_) | Source::Samples(_) | Source::Distributions(_) => {}
    }
}

fn write_samples(row: &Figure, facts: &Facts<'_>, out: &mut Exposition) {
    let Some(metric) = row.metric else { return };
    out.begin(metric);
    match row.source {
        Source::Value(value) => value(facts).number().into_iter().for_each(|x| out.sample(&[], x)),
        Source::Samples(samples) => samples(facts, &mut |labels, value| out.sample(labels, value)),
        Source::Distributions(each) => each(facts, &mut |labels, of| out.distribution(labels, &of)),
        Source::Lines(_) => {}
    }
}

/// Text for a field's name or value that came from outside: what would break the line or the field is replaced.
fn safe(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if matches!(c, '#' | ':' | '\n' | '\r') { '_' } else { c }).collect()
}
