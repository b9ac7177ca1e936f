//! The configuration: one table of directives ([`TABLE`]), their typed values ([`Config`]), reading it from files and
//! command line, CONFIG GET and SET on it, and writing it back into a file.
//!
//! Invariant: a value in [`Config`] has passed its row's checks. What a changed directive means for a running server is
//! named by its row's [`Apply`]; the server carries it out.

mod load;
mod rewrite;
mod set;
mod table;
#[cfg(test)]
mod tests;
mod types;
mod value;
pub(crate) mod words;

pub(crate) use load::{ConfigError, Loaded};
pub(crate) use rewrite::{overwrite, rewrite, rewrite_all};
pub(crate) use set::{SetContext, SetError, get, is_sensitive, set_many};
pub(crate) use table::{Apply, Config, Row, TABLE, flag};
pub(crate) use types::*;
pub(crate) use value::{expand_title, is_address, is_node_name, parse_memory};

/// The range of `hz`; other values are brought into it.
pub(crate) const MIN_HZ: i64 = 1;
/// See [`MIN_HZ`].
pub(crate) const MAX_HZ: i64 = 500;
/// The smallest replication backlog, bytes; a smaller value is raised to it.
pub(crate) const MIN_BACKLOG_SIZE: u64 = 16 << 10;

/// Finds a directive by its name or an alias, without regard to case, and returns that name as the table spells it.
pub(crate) fn lookup(name: &[u8]) -> Option<(&'static Row, &'static str)> {
    TABLE.iter().find_map(|row| {
        std::iter::once(&row.name)
            .chain(row.aliases)
            .find(|known| known.as_bytes().eq_ignore_ascii_case(name))
            .map(|known| (row, *known))
    })
}
