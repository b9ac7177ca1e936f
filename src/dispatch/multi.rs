//! The transaction a client is putting together.

use super::table::CmdRef;
use crate::keyspace::watch::WatchedKey;
use crate::resp::OwnedArgs;

#[derive(Debug)]
pub struct Queued {
    pub cmd: CmdRef,
    pub args: OwnedArgs,
}

#[derive(Debug, Default)]
pub struct MultiState {
    pub queued: Vec<Queued>,
    /// All flags of the queued commands, and those that all of them have in common are not needed by anyone.
    pub flags: u32,
    pub watched: Vec<WatchedKey>,
    bytes: usize,
}

impl MultiState {
    pub fn queue(&mut self, cmd: CmdRef, flags: u32, args: OwnedArgs) {
        self.bytes += args.mem_bytes() + size_of::<Queued>();
        self.flags |= flags;
        self.queued.push(Queued { cmd, args });
    }

    /// Takes the queued commands and forgets them; watched keys stay.
    pub fn take(&mut self) -> Vec<Queued> {
        self.flags = 0;
        self.bytes = 0;
        std::mem::take(&mut self.queued)
    }

    /// Memory of the queue, in bytes.
    pub fn mem_bytes(&self) -> usize {
        self.bytes
    }
}
