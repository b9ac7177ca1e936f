//! Lending the bytes of long strings to replies, so that they go from the value to the socket without a copy.
//!
//! Whoever owns a string that can be lent neither frees nor changes its bytes while anything is lent: it passes what is
//! to be freed to [`bury`], and changes a copy ([`for_change`]). Buried strings are freed when the last loan ends. A
//! loan is therefore valid for as long as it is held, whatever happens to the key meanwhile. It should be held briefly:
//! no longer than sending takes.
//!
//! Loans are counted for the whole process, so that a thread that frees values sees those of the loop. It cannot miss a
//! loan of a string that it has: the loan was made before the string was handed over.

#![allow(unsafe_code)]

use std::ops::{Deref, Range};
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static LOANS: AtomicUsize = AtomicUsize::new(0);
static BURIED: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());
static ANY_BURIED: AtomicBool = AtomicBool::new(false);

/// Bytes of a string that stay as they are until this is dropped. It stays on its thread.
#[derive(Debug)]
pub(crate) struct Lent {
    at: NonNull<u8>,
    len: usize,
}

impl Lent {
    /// Lends bytes.
    ///
    /// # Safety
    /// Their owner must keep to what the file's head says.
    pub(super) unsafe fn new(bytes: &[u8]) -> Lent {
        LOANS.fetch_add(1, Ordering::AcqRel);
        Lent { at: NonNull::from(bytes).cast(), len: bytes.len() }
    }
}

impl Lent {
    /// A loan of only some of the bytes.
    pub(crate) fn part(mut self, range: Range<usize>) -> Lent {
        let part = &self[range];
        (self.at, self.len) = (NonNull::from(part).cast(), part.len());
        self
    }
}

impl Deref for Lent {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the owner neither frees nor changes the bytes while the loan is counted.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if LOANS.fetch_sub(1, Ordering::AcqRel) == 1 && ANY_BURIED.load(Ordering::Acquire) {
            let mut buried = buried();
            // Another thread may have lent one of them since; `bury` waits for the lock.
            if !is_lending() {
                ANY_BURIED.store(false, Ordering::Release);
                let unused = std::mem::take(&mut *buried);
                drop(buried);
                drop(unused);
            }
        }
    }
}

fn buried() -> std::sync::MutexGuard<'static, Vec<Vec<u8>>> {
    BURIED.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn is_lending() -> bool {
    LOANS.load(Ordering::Acquire) > 0
}

/// Frees a string that may have been lent: at once, or when the last loan ends.
pub(super) fn bury(bytes: Vec<u8>) {
    if is_lending() {
        let mut buried = buried();
        buried.push(bytes);
        ANY_BURIED.store(true, Ordering::Release);
    }
}

/// A string that may have been lent, for change.
pub(super) fn for_change(bytes: Vec<u8>) -> Vec<u8> {
    if !is_lending() {
        return bytes;
    }
    let copy = bytes.clone();
    bury(bytes);
    copy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_buried_stays_until_the_loan_ends() {
        let string = vec![7u8; 5000];
        // SAFETY: the string goes to `bury`.
        let lent = unsafe { Lent::new(&string) };
        let mut changed = for_change(string);
        changed.fill(1);
        bury(changed);
        assert!(lent.iter().all(|b| *b == 7));
        assert!(!buried().is_empty());
        let part = lent.part(10..4000);
        assert_eq!((part.len(), part[0]), (3990, 7));
    }
}
