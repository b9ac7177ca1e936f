//! The size of the terminal. What is drawn on it belongs to the tools.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

/// Columns and rows of a descriptor's terminal; `None` if it is no terminal or the size is unknown.
pub(crate) fn size(of: impl AsFd) -> Option<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request fills one `winsize`, which `size` is; the descriptor is borrowed, so it is open.
    let done = unsafe { libc::ioctl(of.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    (done == 0 && size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col, size.ws_row))
}
