//! What the append-only log's writer shares with the thread that syncs, and writing to its file.

use super::manifest::reason;
use crate::persist::snapshot::now_s;
use crate::sys::reserve::open_in_need;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, AtomicU64, Ordering};
use std::time::Instant;

/// What the syncing thread tells the loop.
#[derive(Debug)]
pub(crate) struct FsyncShared {
    ok: AtomicBool,
    pub(crate) errno: AtomicI32,
    /// Replication offset that the last sync has put on disk.
    reploff: AtomicI64,
    /// Syncs that are done, how long they took together and the last one took, microseconds, and when that was, Unix seconds.
    pub(crate) syncs: AtomicU64,
    pub(crate) syncs_us: AtomicU64,
    pub(crate) last_us: AtomicU64,
    pub(crate) last_s: AtomicI64,
    /// How long the last slow one took, milliseconds, and when that was.
    slow_ms: AtomicU64,
    slow_s: AtomicI64,
}

/// A sync that takes so long is slow, microseconds.
const SLOW_US: u64 = 500_000;

impl Default for FsyncShared {
    fn default() -> FsyncShared {
        FsyncShared {
            ok: AtomicBool::new(true),
            errno: AtomicI32::new(0),
            reploff: AtomicI64::new(0),
            syncs: AtomicU64::new(0),
            syncs_us: AtomicU64::new(0),
            last_us: AtomicU64::new(0),
            last_s: AtomicI64::new(0),
            slow_ms: AtomicU64::new(0),
            slow_s: AtomicI64::new(0),
        }
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

    /// A sync is done, which took so long.
    pub(crate) fn took(&self, us: u64) {
        let now_s = now_s();
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.syncs_us.fetch_add(us, Ordering::Relaxed);
        self.last_us.store(us, Ordering::Relaxed);
        self.last_s.store(now_s, Ordering::Relaxed);
        if us >= SLOW_US {
            self.slow_ms.store(us / 1000, Ordering::Relaxed);
            self.slow_s.store(now_s, Ordering::Relaxed);
        }
    }

    /// How long the last slow sync took, milliseconds, and when it was done, Unix seconds; 0: there was none.
    pub(crate) fn slow_sync(&self) -> (u64, i64) {
        (self.slow_ms.load(Ordering::Relaxed), self.slow_s.load(Ordering::Relaxed))
    }

    pub(crate) fn sync(&self, file: &File, offset: i64) {
        let begun = Instant::now();
        match file.sync_data() {
            Ok(()) => {
                self.took(begun.elapsed().as_micros() as u64);
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
