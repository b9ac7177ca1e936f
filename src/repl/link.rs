//! The state of the link to this server's master: where the master is, how far the link has come, and what is known of
//! the master's stream. What moves between the states is in `follow`.
//!
//! Invariants: without an address the link is idle; a connection belongs to the link until the synchronization is done
//! and to a client from then on; while the stream is followed there is no cached position.

use super::LinkId;
use super::bulk::{BulkReader, Framing};
use super::handshake::Handshake;
use super::history::ReplId;
use super::info::{MasterView, TransferView};
use crate::net::ClientId;

/// How far the link has come.
#[derive(Debug, Default)]
pub(super) enum LinkState {
    /// This server follows nobody.
    #[default]
    Idle,
    /// To be connected.
    Connect,
    /// The connection is being made.
    Connecting,
    /// Introducing itself, up to the answer to PSYNC.
    Handshake(Handshake),
    /// Receiving the dataset.
    Transfer(Transfer),
    /// Following the stream.
    Connected(OnlineMaster),
}

impl LinkState {
    /// The name ROLE shows.
    pub(super) fn name(&self) -> &'static str {
        match self {
            LinkState::Idle => "none",
            LinkState::Connect => "connect",
            LinkState::Connecting => "connecting",
            LinkState::Handshake(_) => "handshake",
            LinkState::Transfer(_) => "sync",
            LinkState::Connected(_) => "connected",
        }
    }
}

/// Position in a master's stream, kept to continue from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CachedMaster {
    /// History of the stream.
    pub(super) id: ReplId,
    /// Newest byte that was processed.
    pub(super) offset: i64,
    /// Database the stream has selected.
    pub(super) db: usize,
}

/// The master while its stream is followed.
#[derive(Debug)]
pub(super) struct OnlineMaster {
    /// The client that runs its commands; `None` until it is there.
    pub(super) client: Option<ClientId>,
    /// History of the stream; `None` for a master that knows no PSYNC.
    pub(super) id: Option<ReplId>,
    /// Newest byte that was processed; bytes of an open transaction are not.
    pub(super) applied: i64,
    /// Newest byte that was read.
    pub(super) read: i64,
    /// Bytes of commands that were taken from the stream but do not count yet (an open transaction, a paused command).
    pub(super) unapplied: Vec<u8>,
    /// When it last sent something, in Unix seconds.
    pub(super) last_io_s: i64,
}

/// A dataset being received.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Finds its end.
    pub(super) reader: BulkReader,
    /// Its delimiter, once known.
    pub(super) framing: Option<Framing>,
    /// The stream that follows it: history and offset.
    pub(super) from: Option<(ReplId, i64)>,
    /// Bytes received.
    pub(super) read: u64,
    /// It is received into a file, not straight into the parser.
    pub(super) to_file: bool,
}

/// See the module's description.
#[derive(Debug, Default)]
pub(super) struct MasterLink {
    /// Host and port; `None` when this server is a primary.
    pub(super) address: Option<(String, u16)>,
    /// How far the link has come.
    pub(super) state: LinkState,
    /// The connection, or the newest attempt at one.
    pub(super) link: LinkId,
    /// Where the master's stream was left.
    pub(super) cached: Option<CachedMaster>,
    /// Since when the link is down, in Unix seconds; 0: it never was up.
    pub(super) down_since_s: i64,
    /// When the master was last heard of on the link that was lost, in Unix seconds.
    pub(super) heard_s: i64,
    /// When the next attempt is due, if that is before the periodic work, in Unix milliseconds.
    pub(super) retry_at_ms: Option<i64>,
    /// The master's name is being looked up; the attempt goes on when the answer is there.
    pub(super) looking_up: bool,
    /// How long the next attempt waits after a failure, in milliseconds; 0: the last attempt went well.
    pub(super) retry_pause_ms: i64,
    /// When the master last sent something before being online, in Unix seconds.
    pub(super) last_io_s: i64,
}

impl MasterLink {
    /// A number for what comes now: whatever went before is over.
    pub(super) fn renumber(&mut self) -> LinkId {
        self.link.0 += 1;
        self.link
    }

    /// The master, while its stream is followed.
    pub(super) fn online(&self) -> Option<&OnlineMaster> {
        match &self.state {
            LinkState::Connected(online) => Some(online),
            _ => None,
        }
    }

    /// See [`online`](Self::online).
    pub(super) fn online_mut(&mut self) -> Option<&mut OnlineMaster> {
        match &mut self.state {
            LinkState::Connected(online) => Some(online),
            _ => None,
        }
    }

    /// The dataset that is being received.
    pub(super) fn transfer(&self) -> Option<&Transfer> {
        match &self.state {
            LinkState::Transfer(transfer) => Some(transfer),
            _ => None,
        }
    }

    /// Offset of the newest byte of the master's stream that was processed, if any is known.
    pub(super) fn applied_offset(&self) -> Option<i64> {
        self.online().map(|online| online.applied).or(self.cached.map(|cached| cached.offset))
    }

    /// Bytes received and expected of the dataset being received.
    pub(super) fn progress(&self) -> Option<(u64, i64)> {
        let transfer = self.transfer()?;
        let expected = match transfer.framing {
            Some(Framing::Length(length)) => i64::try_from(length).unwrap_or(i64::MAX),
            Some(Framing::Mark(_)) => 0,
            None => -1,
        };
        Some((transfer.read, expected))
    }

    /// What others are shown of it; `None` when this server is a primary.
    pub(super) fn view(&self, now_s: i64) -> Option<MasterView> {
        let (host, port) = self.address.clone()?;
        let (applied, read) = match (self.online(), &self.cached) {
            (Some(online), _) => (online.applied, online.read),
            (None, Some(cached)) => (cached.offset, cached.offset),
            (None, None) => (1, 1),
        };
        let transfer = self.progress().map(|(read, expected)| TransferView {
            read: read as i64,
            expected,
            last_io_s: now_s - self.last_io_s,
        });
        Some(MasterView {
            host,
            port,
            state: self.state.name(),
            is_up: self.online().is_some(),
            last_io_s: self.online().map_or(-1, |online| now_s - online.last_io_s),
            read,
            applied,
            transfer,
            down_s: if self.down_since_s == 0 { -1 } else { now_s - self.down_since_s },
        })
    }
}
