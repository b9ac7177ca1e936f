//! Memory of the interpreters: where it comes from, and what is refused.
//!
//! Lua makes an error of an allocation that fails ("not enough memory"), which a script can catch. So everything that a
//! script could make too large is refused here, whichever function of Lua's asks for it. A single block, such as a
//! string or the store of a table, has a limit. All blocks together have none: a script that fills them executes
//! instructions, and so can be killed.
//!
//! Single instructions and C functions may move much memory, so that a script takes long between two checks of the
//! clock. So requests for large blocks check the clock, too.
#![allow(unsafe_code)]

use super::busy;
use super::engine::Bridge;
use std::ffi::c_void;

/// The longest string that scripts can make, bytes: as long as the longest that clients can store by default.
pub(crate) const STRING_MAX: usize = 512 << 20;
/// Lua's error when memory is refused.
pub(super) const REFUSED: &[u8] = b"not enough memory";

/// Room for the header of a string.
const HEAD: usize = 64;
/// Blocks of this size and more count as large.
const LARGE: usize = 64 * 1024;
/// Bytes of large blocks requested between two checks of the clock.
const LOOK_BYTES: usize = 64 << 20;

/// Lua's allocator: makes, resizes or frees a block.
///
/// # Safety
/// `bridge` is that of the state; `block` is null or came from here.
pub(super) unsafe extern "C" fn allocate(
    bridge: *mut c_void,
    block: *mut c_void,
    old_len: usize,
    len: usize,
) -> *mut c_void {
    // SAFETY: as the caller promises; null may be freed and resized.
    unsafe {
        if len == 0 {
            libc::free(block);
            return std::ptr::null_mut();
        }
        if len >= LARGE && len > old_len && !is_granted(&*bridge.cast::<Bridge>(), len) {
            return std::ptr::null_mut();
        }
        libc::realloc(block, len)
    }
}

/// Whether a script may have a large block.
///
/// # Safety
/// As [`busy::goes_on`].
unsafe fn is_granted(bridge: &Bridge, len: usize) -> bool {
    if len > STRING_MAX + HEAD {
        return false;
    }
    let asked = bridge.large_bytes.get() + len;
    if asked < LOOK_BYTES {
        bridge.large_bytes.set(asked);
        return true;
    }
    bridge.large_bytes.set(0);
    // SAFETY: passed on; while a command of the script runs, the server is its own.
    bridge.in_call.get() || unsafe { busy::goes_on(bridge) }
}
