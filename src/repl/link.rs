//! The state of the link to this server's master: where the master is, how far the link has come, and what is known of
//! the master's stream.
//!
//! Invariants: without an address there is no link; a connection belongs to the link until the synchronization is done
//! and to a client from then on; at most one of "online" and "cached" holds the stream's position. What moves between the
//! states is in `follow`.

use super::bulk::{BulkReader, Framing};
use super::handshake::Handshake;
use super::history::ReplId;
use crate::net::{ClientId, Conn};
use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// How far the link has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum LinkState {
    /// This server follows nobody.
    #[default]
    None,
    /// To be connected.
    Connect,
    /// The connection is being made.
    Connecting,
    /// Introducing itself, up to the answer to PSYNC.
    Handshake,
    /// Receiving the dataset.
    Transfer,
    /// Following the stream.
    Connected,
}

impl LinkState {
    /// The name ROLE shows.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LinkState::None => "none",
            LinkState::Connect => "connect",
            LinkState::Connecting => "connecting",
            LinkState::Handshake => "handshake",
            LinkState::Transfer => "sync",
            LinkState::Connected => "connected",
        }
    }
}

/// Position in a master's stream, kept to continue from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CachedMaster {
    /// History of the stream.
    pub(crate) id: ReplId,
    /// Newest byte that was processed.
    pub(crate) offset: i64,
    /// Database the stream has selected.
    pub(crate) db: usize,
}

/// The master while its stream is followed.
#[derive(Debug)]
pub(crate) struct OnlineMaster {
    /// The client that runs its commands.
    pub(crate) client: ClientId,
    /// History of the stream; `None` for a master that knows no PSYNC.
    pub(crate) id: Option<ReplId>,
    /// Newest byte that was processed; bytes of an open transaction are not.
    pub(crate) applied: i64,
    /// Newest byte that was read.
    pub(crate) read: i64,
    /// Bytes of commands that were taken from the stream but do not count yet (an open transaction, a paused command).
    pub(crate) unapplied: Vec<u8>,
    /// When it last sent something, in Unix seconds.
    pub(crate) last_io_s: i64,
}

/// A dataset being received.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// Finds its end.
    pub(crate) reader: BulkReader,
    /// Its delimiter, once known.
    pub(crate) framing: Option<Framing>,
    /// The stream that follows it: history and offset.
    pub(crate) from: Option<(ReplId, i64)>,
    /// Bytes received.
    pub(crate) read: u64,
    /// Where it is written to; `None` when it goes straight to the parser.
    pub(crate) file: Option<TempFile>,
}

/// A file that is removed unless it is kept.
#[derive(Debug)]
pub(crate) struct TempFile {
    /// Open for writing.
    pub(crate) file: File,
    /// Where it is.
    pub(crate) path: PathBuf,
    /// So many bytes were handed to the disk.
    pub(crate) synced: u64,
    /// It has been moved to where it belongs.
    pub(crate) kept: bool,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            // Nothing depends on the removal.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// See the module's description.
#[derive(Debug, Default)]
pub(crate) struct MasterLink {
    /// Host and port; `None` when this server is a primary.
    pub(crate) address: Option<(String, u16)>,
    /// How far the link has come.
    pub(crate) state: LinkState,
    /// The connection until it becomes a client's.
    pub(crate) conn: Option<Conn>,
    /// Bytes the connection did not take yet.
    pub(crate) outbox: Vec<u8>,
    /// The introduction, while it goes on.
    pub(crate) handshake: Option<Handshake>,
    /// The dataset, while it is received.
    pub(crate) transfer: Option<Transfer>,
    /// The master, while its stream is followed.
    pub(crate) online: Option<OnlineMaster>,
    /// Where its stream was left.
    pub(crate) cached: Option<CachedMaster>,
    /// Since when the link is down, in Unix seconds; 0: it never was up.
    pub(crate) down_since_s: i64,
    /// When the master was last heard of on the link that was lost, in Unix seconds.
    pub(crate) heard_s: i64,
    /// When the next attempt is due, if that is before the periodic work, in Unix milliseconds.
    pub(crate) retry_at_ms: Option<i64>,
    /// The master's name is being looked up; the attempt goes on when the answer is there.
    pub(crate) looking_up: bool,
    /// How long the next attempt waits after a failure, in milliseconds; 0: the last attempt went well.
    pub(crate) retry_pause_ms: i64,
    /// When the master last sent something before being online, in Unix seconds.
    pub(crate) last_io_s: i64,
    /// The connection again, to show being alive while a dataset is loaded.
    pub(crate) keepalive: Option<OwnedFd>,
    /// A dataset is being loaded: nobody else reads the connection.
    pub(crate) loading: bool,
    /// It sent something while a script ran, in the middle of which no dataset may be replaced; that is read afterwards.
    pub(crate) held_back: bool,
    /// When a keepalive was last sent, in Unix seconds.
    pub(crate) keepalive_sent_s: i64,
}

impl MasterLink {
    /// Offset of the newest byte of the master's stream that was processed, if any is known.
    pub(crate) fn applied_offset(&self) -> Option<i64> {
        self.online.as_ref().map(|online| online.applied).or(self.cached.map(|cached| cached.offset))
    }

    /// Bytes received and expected of the dataset being received.
    pub(crate) fn progress(&self) -> Option<(u64, i64)> {
        let transfer = self.transfer.as_ref()?;
        let expected = match transfer.framing {
            Some(Framing::Length(length)) => i64::try_from(length).unwrap_or(i64::MAX),
            Some(Framing::Mark(_)) => 0,
            None => -1,
        };
        Some((transfer.read, expected))
    }

    /// INFO's lines about the link.
    pub(crate) fn info(&self, out: &mut String, now_s: i64) {
        let Some((host, port)) = &self.address else { return };
        let (applied, read) = match (&self.online, &self.cached) {
            (Some(online), _) => (online.applied, online.read),
            (None, Some(cached)) => (cached.offset, cached.offset),
            (None, None) => (1, 1),
        };
        let up = self.state == LinkState::Connected;
        let last_io = self.online.as_ref().map_or(-1, |online| now_s - online.last_io_s);
        let _ = write!(
            out,
            "master_host:{host}\r\nmaster_port:{port}\r\nmaster_link_status:{}\r\nmaster_last_io_seconds_ago:{last_io}\r\n\
             master_sync_in_progress:{}\r\nslave_read_repl_offset:{read}\r\nslave_repl_offset:{applied}\r\n",
            if up { "up" } else { "down" },
            u8::from(self.state == LinkState::Transfer),
        );
        if let Some((read, expected)) = self.progress() {
            let read = read as i64;
            let percent = if expected != 0 { read as f64 / expected as f64 * 100.0 } else { 0.0 };
            let _ = write!(
                out,
                "master_sync_total_bytes:{expected}\r\nmaster_sync_read_bytes:{read}\r\nmaster_sync_left_bytes:{}\r\n\
                 master_sync_perc:{percent:.2}\r\nmaster_sync_last_io_seconds_ago:{}\r\n",
                expected - read,
                now_s - self.last_io_s,
            );
        }
        if !up {
            let down_s = if self.down_since_s == 0 { -1 } else { now_s - self.down_since_s };
            let _ = write!(out, "master_link_down_since_seconds:{down_s}\r\n");
        }
    }
}
