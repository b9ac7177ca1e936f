//! Replication: the stream a primary feeds, and the link a replica keeps.
//!
//! Owns the replication history (ids and offsets), the shared output buffer, what a primary knows about each of its
//! replicas, and the state of the link to this server's own master. The pure parts ([`backlog`], [`history`],
//! [`handshake`], [`bulk`], [`primary`], [`failover`]) take bytes, offsets and the time and return what to send, log and
//! do; they never touch a socket. Around them, [`state`] and [`link`] hold the room's state, [`serve`] and [`snapshot`]
//! work towards replicas, [`follow`] and [`load`] towards the master, and [`hooks`] is what the rest of the server calls.
//! Leaves to others: what a command is (`dispatch`), how an RDB is written or read
//! (`persist`), and sockets (`net`).

pub(crate) mod backlog;
pub(crate) mod bulk;
pub(crate) mod failover;
pub(crate) mod handshake;
pub(crate) mod history;
pub(crate) mod link;
pub(crate) mod primary;
pub(crate) mod snapshot;
pub(crate) mod state;

pub(crate) use state::Repl;

/// A line the server should log, decided by a part that does no logging itself.
///
/// The level follows the project's mapping: `Warn` is Redis's warning (`#`), `Info` its notice (`*`), `Debug` its
/// verbose (`-`) and `Trace` its debug (`.`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogLine {
    /// How important the line is.
    pub(crate) level: log::Level,
    /// The text, without a line end.
    pub(crate) text: String,
}

impl LogLine {
    /// A line at Redis's notice level.
    pub(crate) fn notice(text: impl Into<String>) -> Self {
        LogLine { level: log::Level::Info, text: text.into() }
    }

    /// A line at Redis's warning level.
    pub(crate) fn warning(text: impl Into<String>) -> Self {
        LogLine { level: log::Level::Warn, text: text.into() }
    }

    /// Hands the line to the log.
    pub(crate) fn emit(&self) {
        log::log!(self.level, "{}", self.text);
    }
}
