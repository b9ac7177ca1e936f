//! Snapshots: what goes into one, how its file is written, and how a value is shown to the encoder.

use super::rdb::{AUTOSYNC_BYTES, ReplInfo, ValueView};
use crate::keyspace::{Entry, Object};
use crate::structs::entry::ValueRef;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Commands gather up to this size before they are passed on, bytes.
pub(crate) const FLUSH_AT: usize = 64 * 1024;

/// What goes into a snapshot.
#[derive(Debug, Clone, Default)]
pub(crate) struct SnapshotOptions {
    /// It is the base of an append-only log.
    pub(crate) aof_base: bool,
    /// Replication position to store in it.
    pub(crate) repl: Option<ReplInfo>,
    /// Function libraries only.
    pub(crate) exclude_data: bool,
    pub(crate) exclude_functions: bool,
    /// The file will be read again soon: its pages are worth keeping.
    pub(crate) keep_cache: bool,
}

/// A file which is pushed to the disk as it grows, so that the sync at its end does not stall everyone else.
pub(crate) struct FileSink {
    file: File,
    auto_sync: bool,
    unsynced: u64,
}

impl FileSink {
    pub(crate) fn new(file: File, auto_sync: bool) -> FileSink {
        FileSink { file, auto_sync, unsynced: 0 }
    }

    /// Makes everything durable. Unless `keep_cache`, its pages make room for others: it will not be read soon.
    pub(crate) fn finish(self, keep_cache: bool) -> io::Result<()> {
        self.file.sync_all()?;
        if !keep_cache {
            drop_page_cache(self.file.as_fd());
        }
        Ok(())
    }
}

/// Tells the system that a file's pages will not be needed. Only a hint: a failure is worth a line and nothing else.
pub(crate) fn drop_page_cache(fd: impl AsFd) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    if let Err(e) = posix_fadvise(fd, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        log::info!("Unable to reclaim page cache: {}", e.desc());
    }
}

impl Write for FileSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.unsynced += n as u64;
        if self.auto_sync && self.unsynced >= AUTOSYNC_BYTES {
            self.file.sync_data()?;
            self.unsynced = 0;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A value in the form the snapshot writer takes.
pub(crate) fn value_view(entry: &Entry) -> ValueView<'_> {
    match entry.value() {
        ValueRef::Int(v) => ValueView::Int(v),
        ValueRef::Str { bytes, .. } => ValueView::Str(bytes),
        ValueRef::Object(Object::List(list)) => ValueView::List(list),
        ValueRef::Object(Object::Set(set)) => ValueView::Set(set),
        ValueRef::Object(Object::Hash(hash)) => ValueView::Hash(hash),
        ValueRef::Object(Object::Zset(zset)) => ValueView::Zset(zset),
        ValueRef::Object(Object::Stream(stream)) => ValueView::Stream(stream),
        ValueRef::Object(Object::Damaged(damaged)) => ValueView::Damaged(damaged),
    }
}

/// `rdb-key-save-delay` and `key-load-delay`: microseconds to sleep after each key. A negative number asks for one
/// microsecond after one of so many keys, since the shortest sleep is longer than that.
pub(crate) fn debug_delay(us: i64) {
    match us {
        0 => {}
        1.. => std::thread::sleep(Duration::from_micros(us.unsigned_abs())),
        _ => {
            if fastrand::u64(..us.unsigned_abs()) == 0 {
                std::thread::sleep(Duration::from_micros(1));
            }
        }
    }
}

pub(crate) fn now_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64)
}
