//! What commands are: the row that describes each of them, the table that finds them by name, the keys of a call, the
//! errors they return. What they do is elsewhere; a table holds no functions.

pub mod error;
pub mod latency_counts;
pub mod row;
pub mod table;

pub use error::{CmdError, CmdResult};
pub use table::{CmdRef, CommandTable};
