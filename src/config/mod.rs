//! The configuration: one table of directives ([`TABLE`]), the typed values behind it ([`Config`]), reading it from
//! files and command line, CONFIG GET and SET on it, and writing it back into a file.
//!
//! Invariant: a value in [`Config`] has passed its row's checks. This room does no server I/O: what a changed directive
//! means for a running server is named by its row's [`Apply`], and the server does it.

mod table;
mod types;
mod value;

pub use table::{Apply, Config, Kind, Row, TABLE, flag};
pub use types::*;
pub use value::Setting;
