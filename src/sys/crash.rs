//! The crash report.
#![allow(unsafe_code)]

/// Writes where nothing may be written.
pub fn segfault() -> ! {
    use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
    let size = std::num::NonZeroUsize::new(4096).expect("a constant");
    // SAFETY: a private read-only page of our own; the write to it is meant to kill the process and harms nothing else.
    unsafe {
        if let Ok(page) = mmap_anonymous(None, size, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE) {
            page.cast::<u8>().as_ptr().write_volatile(b'x');
        }
        libc::abort()
    }
}

pub fn panic_report(text: &str) -> ! {
    panic!("{text}")
}
