//! INFO: the list of sections, and one function a section. A room that has figures of its own keeps its section in a file
//! of its own here, or takes it to its room.

mod clients;
mod cluster;
mod commands;
mod cpu;
mod debug;
mod errors;
mod keyspace;
mod memory;
mod persistence;
mod replication;
mod server;
mod stats;

use crate::server::Server;
use std::fmt::Display;
use std::fmt::Write;

/// Text of the sections written so far.
#[derive(Debug, Default)]
pub(crate) struct InfoText {
    text: String,
}

impl InfoText {
    fn section(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push_str("\r\n");
        }
        let _ = write!(self.text, "# {title}\r\n");
    }

    /// One line `name:value`.
    pub(crate) fn field(&mut self, name: &str, value: impl Display) {
        self.text.push_str(name);
        self.text.push(':');
        let _ = write!(self.text, "{value}");
        self.text.push_str("\r\n");
    }

    /// Whole lines, each with its CR LF.
    pub(crate) fn lines(&mut self, lines: &str) {
        self.text.push_str(lines);
    }

    /// A truth as 0 or 1.
    pub(crate) fn flag(&mut self, name: &str, value: bool) {
        self.field(name, value as u8);
    }

    /// A figure with two decimals.
    pub(crate) fn decimal(&mut self, name: &str, value: f64) {
        self.field(name, format_args!("{value:.2}"));
    }
}

type SectionFn = fn(&Server, &mut InfoText);

struct Section {
    /// What INFO's argument calls it.
    names: &'static [&'static str],
    title: &'static str,
    part_of: Part,
    write: SectionFn,
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
}

const SECTIONS: &[Section] = &[
    Section { names: &["server"], title: "Server", part_of: Part::Default, write: server::write },
    Section { names: &["clients"], title: "Clients", part_of: Part::Default, write: clients::write },
    Section { names: &["memory"], title: "Memory", part_of: Part::Default, write: memory::write },
    Section { names: &["persistence"], title: "Persistence", part_of: Part::Default, write: persistence::write },
    Section { names: &["stats"], title: "Stats", part_of: Part::Default, write: stats::write },
    Section { names: &["replication"], title: "Replication", part_of: Part::Default, write: replication::write },
    Section { names: &["cpu"], title: "CPU", part_of: Part::Default, write: cpu::write },
    // There are no modules to list.
    Section { names: &["module_list", "modules"], title: "Modules", part_of: Part::Default, write: |_, _| {} },
    Section { names: &["commandstats"], title: "Commandstats", part_of: Part::All, write: commands::write_stats },
    Section { names: &["errorstats"], title: "Errorstats", part_of: Part::Default, write: errors::write },
    Section { names: &["latencystats"], title: "Latencystats", part_of: Part::All, write: commands::write_latency },
    Section { names: &["cluster"], title: "Cluster", part_of: Part::Default, write: cluster::write },
    Section { names: &["keyspace"], title: "Keyspace", part_of: Part::Default, write: keyspace::write },
    // Not in Redis.
    Section { names: &["tls"], title: "TLS", part_of: Part::All, write: crate::server::admin::tls::write_info },
    Section { names: &["debug"], title: "Debug", part_of: Part::Named, write: debug::write },
];

impl Server {
    /// The text of the sections with these names; of the default ones when there are no names.
    pub(crate) fn info<'a>(&self, names: impl Iterator<Item = &'a [u8]> + Clone) -> String {
        let given = |name: &str| names.clone().any(|n| n.eq_ignore_ascii_case(name.as_bytes()));
        let all = given("all") || given("everything");
        let defaults = given("default") || names.clone().next().is_none();
        // It grows as it is written: room for all of it would be part of the memory that it tells of.
        let mut out = InfoText::default();
        for section in SECTIONS {
            if (all && section.part_of <= Part::All)
                || (defaults && section.part_of == Part::Default)
                || section.names.iter().any(|n| given(n))
            {
                out.section(section.title);
                (section.write)(self, &mut out);
            }
        }
        out.text
    }
}

/// Text for a field's name or value that came from outside: what would break the line or the field is replaced.
pub(crate) fn safe(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().map(|c| if matches!(c, '#' | ':' | '\n' | '\r') { '_' } else { c }).collect()
}
