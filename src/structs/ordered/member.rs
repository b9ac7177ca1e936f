//! A member of a large sorted set: its score (8 bytes), the length of its name (1 byte, or 255 and 8 bytes) and the name,
//! in one allocation.

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use super::super::size_class;
use super::super::table::TableItem;

const LENGTH_AT: usize = size_of::<f64>();
const SHORT_MAX: usize = 254;
const LONG: u8 = 255;

/// A pointer to a member. Reading through it requires that the member is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ptr(NonNull<u8>);

// SAFETY: a plain address; reading through it is what needs a promise.
unsafe impl Send for Ptr {}
// SAFETY: as above.
unsafe impl Sync for Ptr {}

impl Ptr {
    /// No member; fills unused places of a leaf.
    pub(super) const NONE: Ptr = Ptr(NonNull::dangling());

    /// # Safety
    /// The member must be alive.
    pub(super) unsafe fn score(self) -> f64 {
        // SAFETY: a member begins with its score.
        unsafe { self.0.cast::<f64>().read() }
    }

    /// # Safety
    /// The member must be alive, and in a tree it must stay in order.
    pub(super) unsafe fn set_score(self, score: f64) {
        // SAFETY: a member begins with its score, and references to members cover their names only.
        unsafe { self.0.cast::<f64>().write(score) }
    }

    /// # Safety
    /// The member must be alive for as long as the name is used.
    pub(super) unsafe fn name<'a>(self) -> &'a [u8] {
        // SAFETY: the length is after the score, the name after the length.
        unsafe {
            let length = self.0.add(LENGTH_AT);
            match length.read() {
                LONG => {
                    let len = length.add(1).cast::<usize>().read_unaligned();
                    NonNull::slice_from_raw_parts(length.add(1 + size_of::<usize>()), len).as_ref()
                }
                len => NonNull::slice_from_raw_parts(length.add(1), usize::from(len)).as_ref(),
            }
        }
    }
}

fn layout(name_len: usize) -> Layout {
    let length = if name_len > SHORT_MAX { 1 + size_of::<usize>() } else { 1 };
    Layout::from_size_align(LENGTH_AT + length + name_len, align_of::<f64>()).expect("a name fits the address space")
}

/// A member, owned.
pub(super) struct Member(Ptr);

impl Member {
    pub(super) fn new(name: &[u8], score: f64) -> Member {
        let layout = layout(name.len());
        // SAFETY: the layout is not empty; everything is written inside it.
        unsafe {
            let Some(block) = NonNull::new(alloc(layout)) else { handle_alloc_error(layout) };
            block.cast::<f64>().write(score);
            let length = block.add(LENGTH_AT);
            let at = if name.len() > SHORT_MAX {
                length.write(LONG);
                length.add(1).cast::<usize>().write_unaligned(name.len());
                length.add(1 + size_of::<usize>())
            } else {
                length.write(name.len() as u8);
                length.add(1)
            };
            at.copy_from_nonoverlapping(NonNull::from(name).cast(), name.len());
            Member(Ptr(block))
        }
    }

    pub(super) fn ptr(&self) -> Ptr {
        self.0
    }

    pub(super) fn score(&self) -> f64 {
        // SAFETY: a member that is owned is alive.
        unsafe { self.0.score() }
    }

    pub(super) fn name(&self) -> &[u8] {
        // SAFETY: as above, and it stays so while it is borrowed.
        unsafe { self.0.name() }
    }

    /// Bytes that the allocator hands out for it.
    pub(super) fn alloc_size(&self) -> usize {
        size_class(layout(self.name().len()).size())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let layout = layout(self.name().len());
        // SAFETY: allocated with the same layout, and not used again.
        unsafe { dealloc(self.0.0.as_ptr(), layout) }
    }
}

impl TableItem for Member {
    fn key(&self) -> &[u8] {
        self.name()
    }

    fn tagged(&self) -> bool {
        false
    }
}
