//! The replication buffer: one sequence of bytes that the backlog and every replica's output share.
//!
//! Bytes are named by their replication offset and kept in blocks. A replica does not own output: it holds a cursor, the
//! offset of the next byte it must be sent. A block is given back once the backlog has enough newer bytes and no cursor
//! still needs it, so a slow replica makes the history longer (and partial resynchronization likelier) rather than
//! costing a second copy.
//!
//! Invariants: blocks are contiguous and non-empty, the last one ends at [`Backlog::end_offset`], and every cursor lies
//! between [`Backlog::first_offset`] and [`Backlog::end_offset`]. Closing a replica that lags too much, and the time
//! after which an unused backlog is dropped, are decided elsewhere.

use std::collections::VecDeque;
use std::io::IoSlice;

/// Smallest block, and smallest backlog size a server accepts, in bytes.
pub(crate) const MIN_BLOCK_BYTES: usize = 16 * 1024;
/// How many blocks one append gives back at most, so that a freed laggard does not stall a write.
pub(crate) const TRIM_BLOCKS_PER_APPEND: usize = 64;
/// How many blocks the periodic trim gives back at most.
pub(crate) const TRIM_BLOCKS_PER_CRON: usize = 10 * TRIM_BLOCKS_PER_APPEND;

/// A run of replicated bytes. It never grows past the capacity it was made with.
#[derive(Debug)]
struct Block {
    /// Replication offset of the first byte.
    first: i64,
    bytes: Vec<u8>,
}

impl Block {
    fn end(&self) -> i64 {
        self.first + self.bytes.len() as i64
    }

    fn memory(&self) -> usize {
        self.bytes.capacity() + size_of::<Block>()
    }
}

/// Names a reader of the backlog. It stays valid until removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct CursorId(usize);

/// How the buffer's memory is told apart in reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct BacklogMemory {
    /// Everything the buffer holds, in bytes (`mem_total_replication_buffers`).
    pub(crate) total: usize,
    /// The part within the configured backlog size (`mem_replication_backlog`).
    pub(crate) backlog: usize,
    /// What replicas that lag cost beyond that (`mem_clients_slaves`).
    pub(crate) replicas: usize,
}

/// The shared replication buffer. See the module's description.
#[derive(Debug)]
pub(crate) struct Backlog {
    blocks: VecDeque<Block>,
    /// Offset the next appended byte gets.
    end: i64,
    /// Configured size in bytes; history shorter than this is never given back.
    size: usize,
    /// Sum of `Block::memory`.
    memory: usize,
    cursors: slab::Slab<i64>,
}

impl Backlog {
    /// An empty backlog of `size` bytes whose first byte will have the offset `next_offset`.
    pub(crate) fn new(size: usize, next_offset: i64) -> Self {
        Backlog {
            blocks: VecDeque::new(),
            end: next_offset,
            size: size.max(MIN_BLOCK_BYTES),
            memory: 0,
            cursors: slab::Slab::new(),
        }
    }

    /// Offset of the oldest byte still held; equals [`end_offset`](Self::end_offset) when empty.
    pub(crate) fn first_offset(&self) -> i64 {
        self.blocks.front().map_or(self.end, |block| block.first)
    }

    /// Offset the next appended byte gets: one past the newest byte.
    pub(crate) fn end_offset(&self) -> i64 {
        self.end
    }

    /// How many bytes are held.
    pub(crate) fn history_len(&self) -> u64 {
        (self.end - self.first_offset()) as u64
    }

    /// The configured size in bytes.
    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Whether a reader that has everything before `offset` can continue from here.
    pub(crate) fn can_continue_from(&self, offset: i64) -> bool {
        (self.first_offset()..=self.end).contains(&offset)
    }

    /// Appends bytes to the stream and returns how many blocks were started. Output limits of replicas need a look only
    /// when that is not zero.
    pub(crate) fn append(&mut self, mut bytes: &[u8]) -> usize {
        let mut started = 0;
        while !bytes.is_empty() {
            let room = self.blocks.back().map_or(0, |block| block.bytes.capacity() - block.bytes.len());
            if room == 0 {
                self.start_block(bytes.len());
                started += 1;
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            let tail = self.blocks.back_mut().expect("a block with room is there");
            tail.bytes.extend_from_slice(now);
            self.end += now.len() as i64;
            bytes = later;
        }
        if started > 0 {
            self.trim(TRIM_BLOCKS_PER_APPEND);
        }
        started
    }

    /// A block takes at most a sixteenth of the backlog, so that keeping a little of it does not hold much.
    fn start_block(&mut self, wanted: usize) {
        let largest = (self.size / 16).max(MIN_BLOCK_BYTES);
        let capacity = wanted.clamp(MIN_BLOCK_BYTES, largest);
        let block = Block { first: self.end, bytes: Vec::with_capacity(capacity) };
        self.memory += block.memory();
        self.blocks.push_back(block);
    }

    /// Gives back up to `max_blocks` blocks that neither the configured size nor a cursor needs; returns how many went.
    pub(crate) fn trim(&mut self, max_blocks: usize) -> usize {
        let needed_from = self.cursors.iter().map(|(_, offset)| *offset).min().unwrap_or(self.end);
        let mut trimmed = 0;
        while trimmed < max_blocks && self.blocks.len() > 1 {
            let front = &self.blocks[0];
            let left = (self.end - front.end()) as u64;
            if left <= self.size as u64 || front.end() > needed_from {
                break;
            }
            self.memory -= front.memory();
            self.blocks.pop_front();
            trimmed += 1;
        }
        trimmed
    }

    /// Changes the configured size. The newest bytes stay; what no longer fits goes by and by.
    pub(crate) fn resize(&mut self, size: usize) {
        self.size = size.max(MIN_BLOCK_BYTES);
        self.trim(TRIM_BLOCKS_PER_APPEND);
    }

    /// Moves every offset by `delta`: what was recorded before the true offset was known now follows it.
    pub(crate) fn rebase(&mut self, delta: i64) {
        self.end += delta;
        for block in &mut self.blocks {
            block.first += delta;
        }
        for (_, cursor) in self.cursors.iter_mut() {
            *cursor += delta;
        }
    }

    /// Adds a reader whose next byte is at `offset`, or `None` when the backlog cannot continue from there.
    pub(crate) fn add_cursor(&mut self, offset: i64) -> Option<CursorId> {
        self.can_continue_from(offset).then(|| CursorId(self.cursors.insert(offset)))
    }

    /// Adds a reader at the same place as another one.
    pub(crate) fn copy_cursor(&mut self, other: CursorId) -> CursorId {
        let offset = self.cursors[other.0];
        CursorId(self.cursors.insert(offset))
    }

    /// Forgets a reader.
    pub(crate) fn remove_cursor(&mut self, cursor: CursorId) {
        self.cursors.remove(cursor.0);
        self.trim(TRIM_BLOCKS_PER_APPEND);
    }

    /// Offset of the next byte a reader needs.
    pub(crate) fn cursor_offset(&self, cursor: CursorId) -> i64 {
        self.cursors[cursor.0]
    }

    /// How many bytes a reader has still to take.
    pub(crate) fn pending(&self, cursor: CursorId) -> u64 {
        (self.end - self.cursors[cursor.0]) as u64
    }

    /// Bytes of all blocks from this reader's own on: what its output buffer limit counts.
    pub(crate) fn held_by(&self, cursor: CursorId) -> usize {
        let offset = self.cursors[cursor.0];
        match (self.blocks.get(self.block_index(offset)), self.blocks.back()) {
            (Some(own), Some(last)) => (last.first - own.first) as usize + last.memory(),
            _ => 0,
        }
    }

    /// Notes that a reader took `count` bytes.
    ///
    /// # Panics
    /// When that is more than [`pending`](Self::pending).
    pub(crate) fn advance(&mut self, cursor: CursorId, count: usize) {
        let offset = &mut self.cursors[cursor.0];
        assert!(count as i64 <= self.end - *offset, "a replica took more than there is");
        *offset += count as i64;
    }

    /// The bytes from `offset` on, at most `max_bytes` in at most `max_slices` pieces, for one vectored write. Empty when
    /// the backlog does not hold `offset`.
    pub(crate) fn slices_from(&self, offset: i64, max_slices: usize, max_bytes: usize) -> Vec<IoSlice<'_>> {
        let mut slices = Vec::new();
        if offset < self.first_offset() || offset >= self.end {
            return slices;
        }
        let mut left = max_bytes;
        let mut from = offset;
        for block in self.blocks.range(self.block_index(offset)..).take(max_slices) {
            let bytes = &block.bytes[(from - block.first) as usize..];
            let bytes = &bytes[..bytes.len().min(left)];
            if bytes.is_empty() {
                break;
            }
            slices.push(IoSlice::new(bytes));
            left -= bytes.len();
            from = block.end();
        }
        slices
    }

    /// Index of the block that holds `offset`, which must be held.
    fn block_index(&self, offset: i64) -> usize {
        self.blocks.partition_point(|block| block.end() <= offset)
    }

    /// The newest `count` bytes (or fewer), for the log when a stream looks broken.
    pub(crate) fn latest(&self, count: usize) -> Vec<u8> {
        let from = self.first_offset().max(self.end - count as i64);
        self.slices_from(from, usize::MAX, usize::MAX).iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    /// Memory figures; `replicas` says whether any replica is attached.
    pub(crate) fn memory(&self, replicas: bool) -> BacklogMemory {
        let within = if replicas { self.memory.min(self.size) } else { self.memory };
        BacklogMemory { total: self.memory, backlog: within, replicas: self.memory - within }
    }

    /// Memory beyond what the configured size explains, in bytes. It shrinks on its own, so eviction does not count it.
    pub(crate) fn memory_beyond_size(&self) -> usize {
        let blocks = self.size / MIN_BLOCK_BYTES + 1;
        self.memory.saturating_sub(self.size + blocks * size_of::<Block>())
    }

    /// Checks the invariants of the module's description.
    ///
    /// # Panics
    /// When one does not hold.
    #[cfg(test)]
    pub(crate) fn check_invariants(&self) {
        let mut expected = self.first_offset();
        for block in &self.blocks {
            assert_eq!(block.first, expected, "blocks are contiguous");
            assert!(!block.bytes.is_empty(), "no block is empty");
            expected = block.end();
        }
        assert_eq!(expected, self.end, "the last block ends the stream");
        assert_eq!(self.memory, self.blocks.iter().map(Block::memory).sum::<usize>());
        for (_, &offset) in &self.cursors {
            assert!(self.can_continue_from(offset), "a cursor fell out of the backlog");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes_at(offset: i64, len: usize) -> Vec<u8> {
        (offset..offset + len as i64).map(|o| (o.wrapping_mul(31) >> 3) as u8).collect()
    }

    fn collect(slices: &[IoSlice<'_>]) -> Vec<u8> {
        slices.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn a_fresh_backlog_continues_only_from_its_next_byte() {
        let backlog = Backlog::new(1 << 20, 101);
        assert!(backlog.can_continue_from(101));
        assert!(!backlog.can_continue_from(100));
        assert!(!backlog.can_continue_from(102));
        assert_eq!(backlog.history_len(), 0);
        assert!(backlog.slices_from(101, 8, 100).is_empty());
    }

    #[test]
    fn a_laggard_keeps_history_and_leaving_frees_it() {
        let mut backlog = Backlog::new(MIN_BLOCK_BYTES, 1);
        let slow = backlog.add_cursor(1).unwrap();
        for _ in 0..100 {
            let end = backlog.end_offset();
            backlog.append(&bytes_at(end, 10_000));
        }
        assert_eq!(backlog.first_offset(), 1);
        assert_eq!(backlog.pending(slow), 1_000_000);
        let memory = backlog.memory(true);
        assert_eq!(memory.backlog, MIN_BLOCK_BYTES);
        assert!(memory.replicas > 900_000);
        backlog.remove_cursor(slow);
        while backlog.trim(TRIM_BLOCKS_PER_CRON) > 0 {}
        assert!(backlog.history_len() <= 2 * MIN_BLOCK_BYTES as u64);
        assert!(backlog.history_len() >= MIN_BLOCK_BYTES as u64);
        backlog.check_invariants();
    }

    #[test]
    fn blocks_stay_small_against_the_size() {
        let mut backlog = Backlog::new(1 << 20, 1);
        backlog.append(&vec![b'x'; 3 << 20]);
        assert!(backlog.blocks.iter().all(|block| block.bytes.capacity() <= 1 << 16));
        backlog.check_invariants();
    }

    #[test]
    fn rebase_moves_history_and_readers() {
        let mut backlog = Backlog::new(1 << 20, 1);
        backlog.append(b"0123456789");
        let cursor = backlog.add_cursor(4).unwrap();
        backlog.rebase(1000);
        assert_eq!((backlog.first_offset(), backlog.end_offset()), (1001, 1011));
        assert_eq!(collect(&backlog.slices_from(backlog.cursor_offset(cursor), 9, 99)), b"3456789");
        backlog.check_invariants();
    }

    #[derive(Debug, Clone)]
    enum Step {
        Append(usize),
        Attach(i64),
        Copy(usize),
        Take(usize, usize),
        Leave(usize),
        Resize(usize),
        Trim(usize),
        Rebase(i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (1usize..60_000).prop_map(Step::Append),
            2 => (-50_000i64..10).prop_map(Step::Attach),
            1 => (0usize..8).prop_map(Step::Copy),
            4 => (0usize..8, 0usize..80_000).prop_map(|(who, count)| Step::Take(who, count)),
            1 => (0usize..8).prop_map(Step::Leave),
            1 => (1usize..600_000).prop_map(Step::Resize),
            1 => (0usize..4).prop_map(Step::Trim),
            1 => (0i64..1000).prop_map(Step::Rebase),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Against a plain vector of everything ever appended: what a reader gets is what was written at its offset,
        /// and at least the configured size is always there once written.
        #[test]
        fn behaves_like_one_long_vector(start in 1i64..1_000_000, steps in prop::collection::vec(step(), 1..60)) {
            let mut backlog = Backlog::new(64 * 1024, start);
            let mut stream: Vec<u8> = Vec::new();
            let mut base = start;
            let mut largest_size = backlog.size();
            let mut readers: Vec<CursorId> = Vec::new();
            for step in steps {
                match step {
                    Step::Append(len) => {
                        let bytes = bytes_at(stream.len() as i64, len);
                        backlog.append(&bytes);
                        stream.extend_from_slice(&bytes);
                    }
                    Step::Attach(from_end) => {
                        let offset = backlog.end_offset() + from_end;
                        let reader = backlog.add_cursor(offset);
                        prop_assert_eq!(reader.is_some(), backlog.can_continue_from(offset));
                        readers.extend(reader);
                    }
                    Step::Copy(who) if !readers.is_empty() => {
                        let other = readers[who % readers.len()];
                        let copy = backlog.copy_cursor(other);
                        prop_assert_eq!(backlog.cursor_offset(copy), backlog.cursor_offset(other));
                        readers.push(copy);
                    }
                    Step::Take(who, count) if !readers.is_empty() => {
                        let reader = readers[who % readers.len()];
                        let at = backlog.cursor_offset(reader);
                        let got = collect(&backlog.slices_from(at, 3, count));
                        let from = (at - base) as usize;
                        prop_assert_eq!(&got[..], &stream[from..from + got.len()]);
                        prop_assert!(count == 0 || backlog.pending(reader) == 0 || !got.is_empty());
                        backlog.advance(reader, got.len());
                    }
                    Step::Leave(who) if !readers.is_empty() => {
                        backlog.remove_cursor(readers.swap_remove(who % readers.len()));
                    }
                    Step::Resize(size) => {
                        backlog.resize(size);
                        // Enlarging does not bring history back: the promise restarts from what is held.
                        largest_size = backlog.size().min(backlog.history_len() as usize);
                    }
                    Step::Trim(blocks) => {
                        prop_assert!(backlog.trim(blocks) <= blocks);
                    }
                    Step::Rebase(delta) => {
                        backlog.rebase(delta);
                        base += delta;
                    }
                    Step::Copy(_) | Step::Take(..) | Step::Leave(_) => {}
                }
                backlog.check_invariants();
                prop_assert_eq!(backlog.end_offset(), base + stream.len() as i64);
                let promised = largest_size.min(stream.len()) as u64;
                prop_assert!(backlog.history_len() >= promised);
                let memory = backlog.memory(true);
                prop_assert_eq!(memory.total, memory.backlog + memory.replicas);
            }
            let first = backlog.first_offset();
            let all = collect(&backlog.slices_from(first, usize::MAX, usize::MAX));
            prop_assert_eq!(&all[..], &stream[(first - base) as usize..]);
        }
    }
}
