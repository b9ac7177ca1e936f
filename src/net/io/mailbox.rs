//! What one thread has for another.

use mio::Waker;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Room for bytes that an empty batch keeps.
const KEPT_BYTES: usize = 256 * 1024;
/// Room for messages that an empty batch keeps.
const KEPT_MESSAGES: usize = 4096;

/// Messages and the bytes that belong to them: each message knows how many are its own, in the order of the messages.
#[derive(Debug)]
pub(crate) struct Batch<M> {
    pub(crate) messages: Vec<M>,
    pub(crate) bytes: Vec<u8>,
}

impl<M> Default for Batch<M> {
    fn default() -> Batch<M> {
        Batch { messages: Vec::new(), bytes: Vec::new() }
    }
}

impl<M> Batch<M> {
    pub(crate) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Forgets everything, and gives back the memory that an unusual amount of it took.
    pub(crate) fn clear(&mut self) {
        self.messages.clear();
        self.messages.shrink_to(KEPT_MESSAGES);
        self.bytes.clear();
        self.bytes.shrink_to(KEPT_BYTES);
    }
}

/// Messages on their way to one reader.
pub(super) struct Mailbox<M> {
    slot: Mutex<Slot<M>>,
    waker: Arc<Waker>,
}

struct Slot<M> {
    batch: Batch<M>,
    /// The reader sleeps, or is about to.
    is_asleep: bool,
}

impl<M> Mailbox<M> {
    /// `waker` ends the reader's sleep.
    pub(super) fn new(waker: Arc<Waker>) -> Mailbox<M> {
        Mailbox { slot: Mutex::new(Slot { batch: Batch::default(), is_asleep: false }), waker }
    }

    fn slot(&self) -> MutexGuard<'_, Slot<M>> {
        // Nobody panics with it; and if so, what is in it is whole.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds everything that is in `batch`, which is empty then, and wakes the reader if it sleeps.
    pub(super) fn post(&self, batch: &mut Batch<M>) -> io::Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let mut slot = self.slot();
        if slot.batch.is_empty() {
            std::mem::swap(&mut slot.batch, batch);
        } else {
            slot.batch.messages.append(&mut batch.messages);
            slot.batch.bytes.append(&mut batch.bytes);
        }
        let was_asleep = std::mem::take(&mut slot.is_asleep);
        drop(slot);
        if was_asleep { self.waker.wake() } else { Ok(()) }
    }

    /// Takes everything there is into `batch`, which has to be empty. The reader is awake.
    pub(super) fn take(&self, batch: &mut Batch<M>) {
        let mut slot = self.slot();
        slot.is_asleep = false;
        std::mem::swap(&mut slot.batch, batch);
    }

    /// To be asked by the reader before it sleeps. If it may, it is woken by the next message.
    pub(super) fn may_sleep(&self) -> bool {
        let mut slot = self.slot();
        slot.is_asleep = slot.batch.is_empty();
        slot.is_asleep
    }
}
