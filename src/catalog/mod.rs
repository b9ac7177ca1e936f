//! What commands are: the row that describes each of them, the table that finds them by name, the keys of a call, the
//! errors they return. What commands do is elsewhere: the table holds no functions that run them.

pub(crate) mod error;
pub(crate) mod latency_counts;
mod reply;
pub mod row;
pub mod table;

pub(crate) use error::{CmdError, CmdResult};
pub(crate) use table::{CmdRef, CommandTable};
