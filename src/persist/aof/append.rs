//! What the append-only log's writer shares with the thread that syncs, and writing to its file.

use super::manifest::reason;
use crate::sys::reserve::open_in_need;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};

/// Seconds between two log lines about failing writes.
pub(crate) const ERROR_LOG_S: i64 = 30;
/// A write waits this long, seconds, for a sync that is under way.
pub(crate) const POSTPONE_S: i64 = 2;
/// A buffer larger than this is not kept for the next turn.
pub(crate) const KEEP_BUF_BYTES: usize = 1 << 20;

/// What the syncing thread tells the loop.
#[derive(Debug)]
pub(crate) struct FsyncShared {
    ok: AtomicBool,
    pub(crate) errno: AtomicI32,
    /// Replication offset that the last sync has put on disk.
    reploff: AtomicI64,
}

impl Default for FsyncShared {
    fn default() -> FsyncShared {
        FsyncShared { ok: AtomicBool::new(true), errno: AtomicI32::new(0), reploff: AtomicI64::new(0) }
    }
}

impl FsyncShared {
    pub(crate) fn is_ok(&self) -> bool {
        self.ok.load(Ordering::Acquire)
    }

    pub(crate) fn forgive(&self) {
        self.ok.store(true, Ordering::Release);
    }

    pub(crate) fn reploff(&self) -> i64 {
        self.reploff.load(Ordering::Acquire)
    }

    pub(crate) fn set_reploff(&self, offset: i64) {
        self.reploff.store(offset, Ordering::Release);
    }

    pub(crate) fn sync(&self, file: &File, offset: i64) {
        match file.sync_data() {
            Ok(()) => {
                self.ok.store(true, Ordering::Release);
                self.set_reploff(offset);
            }
            Err(e) => {
                self.errno.store(e.raw_os_error().unwrap_or(libc::EIO), Ordering::Release);
                if self.ok.swap(false, Ordering::AcqRel) {
                    log::warn!("Fail to fsync the AOF file: {}", reason(&e));
                }
            }
        }
    }
}

/// Opens an increment for appending. `truncate` for a new one.
pub(crate) fn open_incr(path: &std::path::Path, truncate: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o644);
    if truncate {
        options.write(true).truncate(true)
    } else {
        options.append(true)
    };
    open_in_need(|| options.open(path))
}

/// Writes as much as the file takes; the number of bytes, and why it was not all.
pub(crate) fn write_most(mut file: &File, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return (written, None),
            Ok(n) => written += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return (written, Some(e)),
        }
    }
    (written, None)
}
