//! The transaction a client is putting together.

use crate::catalog::table::CmdRef;
use crate::keyspace::watch::WatchedKey;
use crate::resp::OwnedArgs;

#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) cmd: CmdRef,
    pub(crate) args: OwnedArgs,
}

#[derive(Debug, Default)]
pub(crate) struct MultiState {
    pub(crate) queued: Vec<Queued>,
    /// All flags of the queued commands.
    pub(crate) flags: u32,
    /// All flags that some queued command lacks.
    pub(crate) lacking: u32,
    pub(crate) watched: Vec<WatchedKey>,
    bytes: usize,
    arg_bytes: usize,
    watched_bytes: usize,
}

impl MultiState {
    pub(crate) fn queue(&mut self, cmd: CmdRef, flags: u32, args: OwnedArgs) {
        self.bytes += args.mem_bytes() + size_of::<Queued>();
        // Each argument counts with the pointer that Redis keeps to it.
        self.arg_bytes += args.as_args().total_len() + 8 * args.as_args().len();
        self.flags |= flags;
        self.lacking |= !flags;
        self.queued.push(Queued { cmd, args });
    }

    /// Takes the queued commands and forgets them; watched keys stay.
    pub(crate) fn take(&mut self) -> Vec<Queued> {
        self.flags = 0;
        self.lacking = 0;
        self.bytes = 0;
        self.arg_bytes = 0;
        std::mem::take(&mut self.queued)
    }

    /// Memory of the queue and of the watched keys, in bytes.
    pub(crate) fn mem_bytes(&self) -> usize {
        self.bytes + self.watched_bytes
    }

    /// Adds a key to the watched ones.
    pub(crate) fn watch(&mut self, watched: WatchedKey) {
        // It stands here and in the table of watched keys.
        self.watched_bytes += 2 * (watched.key.capacity() + size_of::<WatchedKey>());
        self.watched.push(watched);
    }

    /// Takes the watched keys out.
    pub(crate) fn take_watched(&mut self) -> Vec<WatchedKey> {
        self.watched_bytes = 0;
        std::mem::take(&mut self.watched)
    }

    /// Bytes of the queued arguments (CLIENT LIST's `multi-mem`).
    pub(crate) fn arg_bytes(&self) -> usize {
        self.arg_bytes
    }
}
