//! The allocator: jemalloc, with a count of what is allocated, its statistics and controls.
#![allow(unsafe_code)]

use crate::structs::{QUANTUM, size_class};
use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::ffi::CString;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use tikv_jemallocator::Jemalloc;

/// jemalloc with a counter: `used_memory` is the sum of the size classes handed out, as Redis counts it.
pub(crate) struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The allocator's options at start: see [`keep_large_blocks`]. And a free stretch of memory may be cut for a block up to
/// 4,096 times smaller than it, not 64 times: otherwise what a burst of large replies leaves, which is one long stretch once
/// they are sent, is given back to the system while the next burst is paged in anew. All threads share one arena but those that
/// ask for [their own](OwnArena): most hardly allocate anything, and each arena takes memory, and time to be summed up.
// SAFETY: the allocator reads the symbol of this name as a pointer to a C string, which this is.
#[unsafe(export_name = "malloc_conf")]
#[used]
pub(crate) static OPTIONS: &[u8; 59] = b"narenas:1,oversize_threshold:0,lg_extent_max_active_fit:12\0";

/// Bytes allocated, as far as the threads have reported them.
static USED: AtomicIsize = AtomicIsize::new(0);
/// The largest value `peak` has seen.
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// A thread reports when it has this many unreported bytes; `used` is off by at most this much for each thread.
const REPORT_BYTES: isize = 16 * 1024;

thread_local! {
    static LOCAL: Cell<isize> = const { Cell::new(0) };
}

#[inline]
fn count(bytes: isize) {
    // A thread that is ending has no counter any more; its last bytes are counted directly.
    let counted = LOCAL.try_with(|local| {
        let sum = local.get() + bytes;
        if sum.abs() >= REPORT_BYTES {
            USED.fetch_add(sum, Ordering::Relaxed);
            local.set(0);
        } else {
            local.set(sum);
        }
    });
    if counted.is_err() {
        USED.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Counts a block unless there was no memory for it, and gives it.
#[inline]
fn count_if(block: *mut u8, bytes: isize) -> *mut u8 {
    if !block.is_null() {
        count(bytes);
    }
    block
}

/// The request as it is passed on. Classes are 8 bytes apart, and only those that are multiples of 16 are aligned to
/// 16, which the allocator's wrapper assumes of all: so requests with that alignment become multiples of it.
#[inline]
fn fitted(layout: Layout) -> Layout {
    if layout.align() <= QUANTUM {
        return layout;
    }
    let size = layout.size().next_multiple_of(16);
    // SAFETY: the alignment is that of a layout; a size that large would have been refused by whoever made that.
    unsafe { Layout::from_size_align_unchecked(size, layout.align()) }
}

/// Size class of a request, without asking the allocator for the block.
#[inline]
fn class(layout: &Layout) -> isize {
    size_class(layout.size()) as isize
}

// SAFETY: every call goes to jemalloc with a size that is the same for the same layout; the counter does not touch the
// memory.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let layout = fitted(layout);
        // SAFETY: the caller's contract is jemalloc's.
        let block = unsafe { Jemalloc.alloc(layout) };
        count_if(block, class(&layout))
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let layout = fitted(layout);
        // SAFETY: as above.
        let block = unsafe { Jemalloc.alloc_zeroed(layout) };
        count_if(block, class(&layout))
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        let layout = fitted(layout);
        count(-class(&layout));
        // SAFETY: as above.
        unsafe { Jemalloc.dealloc(ptr, layout) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let layout = fitted(layout);
        let new_size = if layout.align() <= QUANTUM { new_size } else { new_size.next_multiple_of(16) };
        // SAFETY: as above.
        let block = unsafe { Jemalloc.realloc(ptr, layout, new_size) };
        count_if(block, size_class(new_size) as isize - class(&layout))
    }
}

/// Bytes allocated now (INFO's `used_memory`).
pub(crate) fn used() -> usize {
    let local = LOCAL.try_with(Cell::get).unwrap_or(0);
    (USED.load(Ordering::Relaxed) + local).max(0) as usize
}

/// Updates the peak and returns it, bytes. Called by the cron.
pub(crate) fn peak() -> usize {
    PEAK.fetch_max(used(), Ordering::Relaxed).max(used())
}

/// jemalloc's own figures: allocated, active and resident bytes. It sums them up anew once for all three: that is most of
/// what an idle server does.
pub(crate) fn jemalloc_stats() -> (usize, usize, usize) {
    let mut epoch: u64 = 1;
    let mut epoch_len = size_of::<u64>();
    // SAFETY: the name is NUL-terminated, and the pointers are valid for the lengths given.
    unsafe {
        tikv_jemalloc_sys::mallctl(
            c"epoch".as_ptr(),
            (&raw mut epoch).cast(),
            &mut epoch_len,
            (&raw mut epoch).cast(),
            size_of::<u64>(),
        );
    }
    (read_stat(c"stats.allocated"), read_stat(c"stats.active"), read_stat(c"stats.resident"))
}

fn read_stat(name: &std::ffi::CStr) -> usize {
    let mut value: usize = 0;
    let mut len = size_of::<usize>();
    // SAFETY: the name is NUL-terminated, and the out pointers are valid for the length given.
    unsafe {
        tikv_jemalloc_sys::mallctl(name.as_ptr(), (&raw mut value).cast(), &mut len, std::ptr::null_mut(), 0);
    }
    value
}

/// The allocator's name with its version (INFO's `mem_allocator`).
pub(crate) fn name() -> String {
    let version = control_text(b"version", None).unwrap_or_default();
    let version = String::from_utf8_lossy(&version).into_owned();
    format!("jemalloc-{}", version.split('-').next().unwrap_or_default())
}

/// Reads an integer of the allocator and sets it if a new one is given (DEBUG MALLCTL). `None`: there is no such integer.
pub(crate) fn control_int(key: &[u8], new: Option<i64>) -> Option<i64> {
    let key = CString::new(key).ok()?;
    let mut value: i64 = 0;
    let mut new = new;
    // The allocator refuses a length that is not the value's, so widths are tried in turn.
    for mut len in [8usize, 4, 1] {
        let new_ptr = new.as_mut().map_or(std::ptr::null_mut::<libc::c_void>(), |n| (n as *mut i64).cast());
        let new_len = if new_ptr.is_null() { 0 } else { len };
        // SAFETY: the name is NUL-terminated; both values have room for `len` bytes, at most 8, little-endian.
        let code =
            unsafe { tikv_jemalloc_sys::mallctl(key.as_ptr(), (&raw mut value).cast(), &mut len, new_ptr, new_len) };
        match code {
            0 => return Some(value),
            libc::EINVAL => continue,
            // Values that can only be written.
            libc::EPERM if new.is_some() => {
                // SAFETY: as above, with nothing to read.
                let code = unsafe {
                    tikv_jemalloc_sys::mallctl(
                        key.as_ptr(),
                        std::ptr::null_mut(),
                        std::ptr::null_mut(),
                        new_ptr,
                        new_len,
                    )
                };
                if code == 0 {
                    return new;
                }
            }
            _ => return None,
        }
    }
    None
}

/// Keys of the allocator whose values are C strings. Reading any other as one would follow a number as a pointer.
const TEXT_KEYS: [&[u8]; 11] = [
    b"version",
    b"config.malloc_conf",
    b"opt.dss",
    b"opt.percpu_arena",
    b"opt.thp",
    b"opt.junk",
    b"opt.stats_print_opts",
    b"opt.stats_interval_opts",
    b"opt.zero_realloc",
    b"opt.prof_prefix",
    b"thread.prof.name",
];

/// Reads a text of the allocator (DEBUG MALLCTL-STR). `None`: there is no such text, or it cannot be set.
pub(crate) fn control_text(key: &[u8], new: Option<&[u8]>) -> Option<Vec<u8>> {
    if !TEXT_KEYS.contains(&key) || new.is_some() {
        return None;
    }
    let key = CString::new(key).ok()?;
    let mut value: *const libc::c_char = std::ptr::null();
    let mut len = size_of::<*const libc::c_char>();
    // SAFETY: the name is NUL-terminated, and these keys give a pointer to a C string that lives as long as the process.
    unsafe {
        let code = tikv_jemalloc_sys::mallctl(key.as_ptr(), (&raw mut value).cast(), &mut len, std::ptr::null_mut(), 0);
        (code == 0 && !value.is_null()).then(|| std::ffi::CStr::from_ptr(value).to_bytes().to_vec())
    }
}

/// Runs an action of the allocator that takes no value (DEBUG MALLCTL-STR with `VOID`). False: there is no such action,
/// or it could free memory in use.
pub(crate) fn control_action(key: &[u8]) -> bool {
    let is_of_arena = |verb: &[u8]| {
        let arena = key.strip_prefix(b"arena.").and_then(|rest| rest.strip_suffix(verb));
        arena.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit))
    };
    let is_harmless =
        matches!(key, b"thread.tcache.flush" | b"thread.idle") || is_of_arena(b".purge") || is_of_arena(b".decay");
    let Some(key) = is_harmless.then(|| CString::new(key).ok()).flatten() else { return false };
    act(&key)
}

/// Runs an action of the allocator that takes no value. False: it refused.
fn act(key: &std::ffi::CStr) -> bool {
    let (nothing, no_len) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the name is NUL-terminated; nothing is read or written. The callers' actions return unused memory.
    unsafe { tikv_jemalloc_sys::mallctl(key.as_ptr(), nothing, no_len, std::ptr::null_mut(), 0) == 0 }
}

unsafe extern "C" fn append_report(out: *mut libc::c_void, text: *const libc::c_char) {
    // SAFETY: `report` passes its own vector, and the allocator a C string.
    unsafe { (*out.cast::<Vec<u8>>()).extend_from_slice(std::ffi::CStr::from_ptr(text).to_bytes()) }
}

/// The allocator's own report about itself (MEMORY MALLOC-STATS), summed up over its arenas: each helper thread has one,
/// and one after the other they would make most of the text.
pub(crate) fn report() -> Vec<u8> {
    let mut text: Vec<u8> = Vec::with_capacity(64 * 1024);
    // SAFETY: the callback gets the vector back, which outlives the call; it may allocate, as the allocator holds no lock
    // while it calls.
    unsafe {
        tikv_jemalloc_sys::malloc_stats_print(Some(append_report), (&raw mut text).cast(), c"a".as_ptr());
    }
    text
}

/// Lets the allocator return unused memory in a thread of its own, or not. False if it refused.
pub(crate) fn set_background_thread(on: bool) -> bool {
    let mut on = on;
    // SAFETY: "background_thread" takes one bool, which is what it gets; nothing is asked for.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(
            c"background_thread".as_ptr(),
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            (&raw mut on).cast(),
            size_of::<bool>(),
        )
    };
    code == 0
}

/// Makes the allocator keep freed blocks of 8 MiB and more for reuse, as it does all others (ten seconds,
/// `dirty_decay_ms`). By default it gives them back to the system at once. Then every large argument, value and reply
/// is paged in anew, which takes longer than all other work on it. To be called first of all.
pub(crate) fn keep_large_blocks() {
    // The first arena, the main thread's, is made before the option is read.
    if control_int(b"arena.0.oversize_threshold", Some(i64::MAX)).is_none() {
        log::debug!("The allocator does not know of large blocks");
    }
}

/// An arena that no other thread has, so that it waits for nobody's locks. Dropped, it is kept for the next who asks.
pub(crate) struct OwnArena(i64);

/// Arenas that are nobody's at the moment.
static FREE_ARENAS: Mutex<Vec<i64>> = Mutex::new(Vec::new());

impl OwnArena {
    /// One for the calling thread. `None` if the allocator has no more: it goes on with the one that it shares.
    pub(crate) fn take() -> Option<OwnArena> {
        let free = FREE_ARENAS.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let arena = OwnArena(free.or_else(|| control_int(b"arenas.create", None))?);
        control_int(b"thread.arena", Some(arena.0))?;
        Some(arena)
    }
}

impl Drop for OwnArena {
    fn drop(&mut self) {
        FREE_ARENAS.lock().unwrap_or_else(PoisonError::into_inner).push(self.0);
    }
}

/// Gives unused pages back to the system (MEMORY PURGE). False if the allocator refused.
pub(crate) fn purge() -> bool {
    // MALLCTL_ARENAS_ALL is 4096.
    act(c"arena.4096.purge")
}

/// Gives back the free blocks that the calling thread caches. A thread that only frees would keep some hundred of each
/// size in vain, and each may be the last of its slab.
pub(crate) fn flush_thread_cache() {
    act(c"thread.tcache.flush");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_an_arena_unless_they_ask_for_one() {
        let arena = || control_int(b"thread.arena", None);
        let with_own = || {
            let own = OwnArena::take().expect("there are thousands of arenas");
            // So that both have one at the same time.
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert_eq!(arena(), Some(own.0));
            own.0
        };
        std::thread::scope(|scope| {
            assert_eq!(scope.spawn(arena).join().unwrap(), Some(0));
            let two = [scope.spawn(with_own), scope.spawn(with_own)].map(|thread| thread.join().unwrap());
            assert!(two[0] > 0 && two[1] > 0 && two[0] != two[1], "{two:?}");
            assert!(two.contains(&scope.spawn(with_own).join().unwrap()), "a free one is taken again");
        });
    }

    #[test]
    fn classes_are_those_of_the_allocator() {
        for size in (1..5000).chain([10_000, 70_000, 1 << 20, (1 << 20) + 1]) {
            // SAFETY: nallocx only computes.
            let real = unsafe { tikv_jemalloc_sys::nallocx(size, 0) };
            assert_eq!(size_class(size), real, "size {size}");
        }
    }

    #[test]
    fn blocks_are_aligned_as_asked() {
        for align in [1, 8, 16, 32, 64, 4096] {
            for size in 1..200 {
                let layout = Layout::from_size_align(size, align).unwrap();
                // SAFETY: the size is not zero, and every block is freed with the layout it was asked with.
                unsafe {
                    let at = Counting.alloc(layout);
                    assert_eq!(at as usize % align, 0, "{size} bytes");
                    let at = Counting.realloc(at, layout, size + 24);
                    assert_eq!(at as usize % align, 0, "{size} bytes and 24");
                    Counting.dealloc(at, Layout::from_size_align(size + 24, align).unwrap());
                }
            }
        }
    }

    #[test]
    fn large_blocks_are_kept_for_the_next() {
        assert_eq!(control_int(b"opt.oversize_threshold", None), Some(0));
        keep_large_blocks();
        assert_eq!(control_int(b"arena.0.oversize_threshold", None), Some(i64::MAX));
        assert_eq!(control_int(b"opt.lg_extent_max_active_fit", None), Some(12));
    }

    #[test]
    fn used_follows_allocations() {
        // Far more than what other tests free meanwhile.
        let before = used();
        let block = Vec::<u8>::with_capacity(1 << 30);
        assert!(used() > before + (1 << 29));
        drop(block);
    }
}
