//! What one thread has for another.

use super::finder::FoundRequests;
use mio::Waker;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Room for bytes that an empty batch keeps.
pub(super) const KEPT_BYTES: usize = 64 * 1024;
/// Room for messages that an empty batch keeps.
const KEPT_MESSAGES: usize = 1024;
/// Up to so many bytes, and messages, a batch is added to the one before it: that costs less than a batch by itself.
const FEW_BYTES: usize = 4 * 1024;
const FEW_MESSAGES: usize = 128;

/// Messages and the bytes that belong to them: each message knows how many are its own, in the order of the messages.
#[derive(Debug)]
pub(crate) struct Batch<M> {
    pub(crate) messages: Vec<M>,
    pub(crate) bytes: Vec<u8>,
    /// Requests that were found in the bytes: each message knows how many are its own.
    pub(crate) found: FoundRequests,
    /// What it counts for in its mailbox's `on_the_way`.
    counted: usize,
}

impl<M> Default for Batch<M> {
    fn default() -> Batch<M> {
        Batch { messages: Vec::new(), bytes: Vec::new(), found: FoundRequests::default(), counted: 0 }
    }
}

impl<M> Batch<M> {
    /// An empty one that has all the room it will keep, so that no memory is taken for it later, when there may be little.
    pub(super) fn with_room() -> Batch<M> {
        Batch { bytes: Vec::with_capacity(KEPT_BYTES), ..Batch::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Forgets everything, and gives back the memory that an unusual amount of it took.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.messages.shrink_to(KEPT_MESSAGES);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
        self.found.clear();
    }
}

/// Messages on their way to one reader.
pub(super) struct Mailbox<M> {
    slot: Mutex<Slot<M>>,
    waker: Arc<Waker>,
    /// Memory of the bytes that were posted, and not done with by the reader.
    on_the_way: AtomicUsize,
}

struct Slot<M> {
    /// What waits, in order.
    batches: VecDeque<Batch<M>>,
    /// An empty one, whose memory serves again.
    spare: Batch<M>,
    /// The reader sleeps, or is about to.
    is_asleep: bool,
}

impl<M> Mailbox<M> {
    /// `waker` ends the reader's sleep; `spare` is empty.
    pub(super) fn new(waker: Arc<Waker>, spare: Batch<M>) -> Mailbox<M> {
        let slot = Slot { batches: VecDeque::new(), spare, is_asleep: false };
        Mailbox { slot: Mutex::new(slot), waker, on_the_way: AtomicUsize::new(0) }
    }

    fn slot(&self) -> MutexGuard<'_, Slot<M>> {
        // Nobody panics with it; and if so, what is in it is whole.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory of the bytes that were posted, and not done with by the reader.
    pub(super) fn on_the_way(&self) -> usize {
        self.on_the_way.load(Ordering::Relaxed)
    }

    /// The reader has seen to a batch.
    pub(super) fn note_done(&self, batch: &mut Batch<M>) {
        let counted = std::mem::take(&mut batch.counted);
        // The other thread uses it, too: not to be touched for nothing.
        if counted > 0 {
            self.on_the_way.fetch_sub(counted, Ordering::Relaxed);
        }
    }

    /// Adds everything that is in `batch`, which is empty then, and wakes the reader if it sleeps.
    pub(super) fn post(&self, batch: &mut Batch<M>) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let is_little = batch.bytes.len() <= FEW_BYTES && batch.messages.len() <= FEW_MESSAGES;
        batch.counted = if is_little { batch.bytes.len() } else { batch.bytes.capacity() };
        self.on_the_way.fetch_add(batch.counted, Ordering::Relaxed);
        let mut slot = self.slot();
        match slot.batches.back_mut() {
            Some(last) if is_little && last.bytes.len() <= KEPT_BYTES - FEW_BYTES => {
                last.messages.append(&mut batch.messages);
                last.bytes.append(&mut batch.bytes);
                last.found.append(&mut batch.found);
                last.counted += std::mem::take(&mut batch.counted);
            }
            _ => {
                let empty = std::mem::take(&mut slot.spare);
                slot.batches.push_back(std::mem::replace(batch, empty));
            }
        }
        let was_asleep = std::mem::take(&mut slot.is_asleep);
        drop(slot);
        if !is_little && batch.bytes.capacity() == 0 {
            // The next one is likely as large, and need not move as it grows.
            batch.bytes.reserve_exact(KEPT_BYTES);
        }
        if was_asleep { self.waker.wake() } else { Ok(()) }
    }

    /// Takes what has waited longest into `batch`, which has to be empty. The reader is awake. Returns how many more batches
    /// wait.
    pub(super) fn take(&self, batch: &mut Batch<M>) -> usize {
        self.note_done(batch);
        let mut slot = self.slot();
        slot.is_asleep = false;
        let more = slot.batches.len().saturating_sub(1);
        if let Some(first) = slot.batches.pop_front() {
            let second_spare = std::mem::replace(&mut slot.spare, std::mem::replace(batch, first));
            drop(slot);
            drop(second_spare);
        }
        more
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slot().batches.is_empty()
    }

    /// To be asked by the reader before it sleeps. If it may, it is woken by the next message.
    pub(super) fn may_sleep(&self) -> bool {
        let mut slot = self.slot();
        slot.is_asleep = slot.batches.is_empty();
        slot.is_asleep
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_come_in_order_and_little_ones_together() {
        let mailbox = Mailbox::new(
            Arc::new(Waker::new(mio::Poll::new().unwrap().registry(), mio::Token(0)).unwrap()),
            Batch::default(),
        );
        assert!(mailbox.may_sleep());
        let sizes = [10, 20, 100_000, 30, 5000, 40, 50];
        let mut batch = Batch::default();
        for (number, size) in sizes.into_iter().enumerate() {
            batch.messages.push(size);
            batch.bytes.resize(size, number as u8);
            mailbox.post(&mut batch).unwrap();
            assert!(batch.is_empty() && batch.bytes.is_empty());
        }
        assert!(!mailbox.may_sleep());
        let total = sizes.iter().sum::<usize>();
        assert!((total..3 * total).contains(&mailbox.on_the_way()), "{}", mailbox.on_the_way());
        let (mut messages, mut bytes, mut count) = (Vec::new(), Vec::new(), 0);
        while !mailbox.may_sleep() {
            mailbox.take(&mut batch);
            count += 1;
            messages.append(&mut batch.messages);
            bytes.append(&mut batch.bytes);
            batch.clear();
        }
        assert_eq!(messages, sizes);
        let expected = sizes.into_iter().enumerate().flat_map(|(number, size)| std::iter::repeat_n(number as u8, size));
        assert!(bytes.into_iter().eq(expected));
        assert_eq!(count, 4, "10 and 20, 100,000, 30, 5000 with 40 and 50");
        mailbox.note_done(&mut batch);
        assert_eq!(mailbox.on_the_way(), 0);
    }
}
