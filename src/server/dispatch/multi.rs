//! The transaction a client is putting together.

use crate::catalog::table::CmdRef;
use crate::keyspace::watch::WatchedKey;
use crate::resp::{Args, OwnedArgs, Span};

/// A queued command: whose, and where its arguments stand.
#[derive(Clone, Copy, Debug)]
struct Queued {
    cmd: CmdRef,
    part: u32,
    /// The first of its spans in that part, and how many there are.
    start: u32,
    count: u32,
}

/// Commands with their arguments, in order. The arguments of many stand in one piece of memory, which seldom has to be
/// asked for; what stands is never moved.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    commands: Vec<Queued>,
    parts: Vec<OwnedArgs>,
    /// Memory of the parts, in bytes.
    part_bytes: usize,
}

/// Room of a queue's first part and, as each next one has twice as much, at most; bytes. What is larger stands alone.
const PART_BYTES: (usize, usize) = (256, 32 * 1024);

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.commands.len()
    }

    fn push(&mut self, cmd: CmdRef, args: Args<'_>) {
        let bytes = args.total_len();
        if !self.parts.last().is_some_and(|part| part.has_room(bytes, args.len())) {
            let room = PART_BYTES.0.checked_shl(self.parts.len() as u32).unwrap_or(PART_BYTES.1).clamp(1, PART_BYTES.1);
            // It takes so many commands of this one's shape.
            let times = (room / (bytes + size_of::<Span>() * args.len()).max(1)).max(1);
            let part = OwnedArgs::with_capacity(bytes * times, args.len() * times);
            self.part_bytes += part.mem_bytes();
            self.parts.push(part);
        }
        let part = self.parts.len() - 1;
        let start = self.parts[part].as_args().len();
        args.iter().for_each(|arg| self.parts[part].push(arg));
        self.commands.push(Queued { cmd, part: part as u32, start: start as u32, count: args.len() as u32 });
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (CmdRef, Args<'_>)> {
        self.commands.iter().map(|queued| {
            let (start, end) = (queued.start as usize, (queued.start + queued.count) as usize);
            (queued.cmd, self.parts[queued.part as usize].as_args().between(start, end))
        })
    }

    fn mem_bytes(&self) -> usize {
        self.part_bytes + self.commands.capacity() * size_of::<Queued>()
    }
}

#[derive(Debug, Default)]
pub(crate) struct MultiState {
    pub(crate) queued: Queue,
    /// All flags of the queued commands.
    pub(crate) flags: u32,
    /// All flags that some queued command lacks.
    pub(crate) lacking: u32,
    pub(crate) watched: Vec<WatchedKey>,
    /// Bytes of the request that began it, if commands are counted by slot.
    pub(crate) request_bytes: u64,
    arg_bytes: usize,
    watched_bytes: usize,
}

impl MultiState {
    pub(crate) fn queue(&mut self, cmd: CmdRef, flags: u32, args: Args<'_>) {
        // Each argument counts with the pointer that Redis keeps to it.
        self.arg_bytes += args.total_len() + 8 * args.len();
        self.flags |= flags;
        self.lacking |= !flags;
        self.queued.push(cmd, args);
    }

    /// Takes the queued commands and forgets them; watched keys stay.
    pub(crate) fn take(&mut self) -> Queue {
        self.flags = 0;
        self.lacking = 0;
        self.arg_bytes = 0;
        std::mem::take(&mut self.queued)
    }

    /// Memory of the queue and of the watched keys, in bytes.
    pub(crate) fn mem_bytes(&self) -> usize {
        self.queued.mem_bytes() + self.watched_bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_queued_comes_back_in_order() {
        let mut multi = MultiState::default();
        let mut wanted = Vec::new();
        for i in 0..3000u16 {
            // Short ones, none at all, many in one command, and some that are larger than a part.
            let len = if i % 700 == 3 { 100_000 } else { usize::from(i) % 40 };
            let args: Vec<Vec<u8>> = (0..i % 9).map(|n| vec![(i + n) as u8; len]).collect();
            let owned: OwnedArgs = args.iter().map(Vec::as_slice).collect();
            multi.queue(CmdRef(i), 1, owned.as_args());
            wanted.push((CmdRef(i), args));
        }
        assert_eq!(multi.queued.len(), 3000);
        let bytes: usize = wanted.iter().flat_map(|(_, args)| args).map(Vec::len).sum();
        assert!((bytes..bytes * 2).contains(&multi.mem_bytes()), "{bytes} {}", multi.mem_bytes());
        let queued = multi.take();
        let found: Vec<_> =
            queued.iter().map(|(cmd, args)| (cmd, args.iter().map(<[u8]>::to_vec).collect::<Vec<_>>())).collect();
        assert!(found == wanted);
        assert_eq!((multi.mem_bytes(), multi.arg_bytes(), multi.flags), (0, 0, 0));
    }
}
