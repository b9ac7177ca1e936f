//! What waits to be written to the log, and when it is written and synced.
//!
//! Decides and counts; the server writes and syncs, and says what came of it. The time is told. Which replies wait for a sync
//! is the gate's.

use crate::config::AppendFsync;
use crate::resp::encode::put_command;

/// Seconds between two log lines about failing writes.
const ERROR_LOG_S: i64 = 30;
/// A write waits this long, seconds, for a sync that is under way.
const POSTPONE_S: i64 = 2;
/// A buffer larger than this is not kept for the next turn.
const KEEP_BUF_BYTES: usize = 1 << 20;

/// What is decided by besides the state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WriteEnv {
    /// Unix time.
    pub(crate) now_s: i64,
    pub(crate) policy: AppendFsync,
    /// To be written whatever the disk does.
    pub(crate) forced: bool,
    /// The helper thread syncs.
    pub(crate) syncing: bool,
    /// A child has the disk to itself.
    pub(crate) spares_disk: bool,
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// There is nothing to write: what was written may have to be synced.
    Sync,
    Write,
    /// The same, though a sync has been under way for so long that it is worth a word.
    WriteDespiteSync,
    /// A write would only wait for the disk as the sync does, and the clients with it.
    Wait,
}

/// How what was written is to be synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SyncHow {
    /// Replies wait for it.
    BehindGate,
    /// On the helper thread, and nobody waits.
    Aside,
}

/// What became of a write that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The last line about it was long ago.
    pub(crate) may_say: bool,
    /// Half a command may be in the file.
    pub(crate) is_short: bool,
}

/// See the module's description.
#[derive(Debug)]
pub(crate) struct Writing {
    /// Commands not written yet.
    buf: Vec<u8>,
    /// Database the log has selected, `None` when the next command must say.
    selected_db: Option<usize>,
    /// The second the last `#TS:` line told.
    timestamp_s: i64,
    /// Bytes of the increment being written, and how many of them were given to a sync.
    size: u64,
    synced: u64,
    last_sync_s: i64,
    /// Since when a write waits for a slow sync.
    postponed_since_s: Option<i64>,
    delayed: u64,
    is_ok: bool,
    errno: i32,
    error_said_s: i64,
}

impl Writing {
    pub(crate) fn new(now_s: i64) -> Writing {
        Writing {
            buf: Vec::new(),
            selected_db: None,
            timestamp_s: 0,
            size: 0,
            synced: 0,
            last_sync_s: now_s,
            postponed_since_s: None,
            delayed: 0,
            is_ok: true,
            errno: 0,
            error_said_s: 0,
        }
    }

    /// Takes a command, in the form of the request protocol. With `timestamps`, the log also says when.
    pub(crate) fn feed(&mut self, db: Option<usize>, command: &[u8], timestamps: bool, now_s: i64) {
        if timestamps && self.timestamp_s < now_s {
            self.timestamp_s = now_s;
            self.buf.extend_from_slice(format!("#TS:{now_s}\r\n").as_bytes());
        }
        if let Some(db) = db
            && self.selected_db != Some(db)
        {
            put_command(&mut self.buf, &[b"SELECT", itoa::Buffer::new().format(db).as_bytes()]);
            self.selected_db = Some(db);
        }
        self.buf.extend_from_slice(command);
    }

    /// Has the next command say its database.
    pub(crate) fn select_anew(&mut self) {
        self.selected_db = None;
    }

    /// Commands not written yet.
    #[inline]
    pub(crate) fn buf(&self) -> &[u8] {
        &self.buf
    }

    pub(crate) fn buf_capacity(&self) -> usize {
        self.buf.capacity()
    }

    /// Nothing of what waits is wanted any more.
    pub(crate) fn drop_buf(&mut self) {
        self.buf = Vec::new();
    }

    /// Bytes of the increment being written.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Writes that did not wait for a slow sync any longer.
    pub(crate) fn delayed(&self) -> u64 {
        self.delayed
    }

    /// Whether the last write went well.
    #[inline]
    pub(crate) fn is_ok(&self) -> bool {
        self.is_ok
    }

    /// The system's number for why it did not.
    pub(crate) fn errno(&self) -> i32 {
        self.errno
    }

    /// Forgets that the last write failed. Whether it did.
    pub(crate) fn forgive(&mut self) -> bool {
        !std::mem::replace(&mut self.is_ok, true)
    }

    /// From here on goes to an increment that has so many bytes.
    pub(crate) fn begin_increment(&mut self, size: u64) {
        (self.size, self.synced) = (size, size);
    }

    /// Whether something waits that is to be tried again. `is_new_second`: for what failed.
    pub(crate) fn is_retried(&self, is_new_second: bool) -> bool {
        self.postponed_since_s.is_some() || (!self.is_ok && is_new_second)
    }

    /// What is to be done.
    pub(crate) fn due(&mut self, env: &WriteEnv) -> Due {
        if self.buf.is_empty() {
            return Due::Sync;
        }
        let mut due = Due::Write;
        if env.policy == AppendFsync::Everysec && env.syncing && !env.forced {
            let since_s = *self.postponed_since_s.get_or_insert(env.now_s);
            if env.now_s - since_s < POSTPONE_S {
                return Due::Wait;
            }
            self.delayed += 1;
            due = Due::WriteDespiteSync;
        }
        self.postponed_since_s = None;
        due
    }

    /// Everything that waited was written. Gives how many bytes, and whether writing failed before.
    pub(crate) fn wrote_all(&mut self) -> (u64, bool) {
        let count = self.buf.len() as u64;
        self.size += count;
        if self.buf.capacity() > KEEP_BUF_BYTES {
            self.buf = Vec::new();
        } else {
            self.buf.clear();
        }
        (count, self.forgive())
    }

    /// Only so many bytes were written; the system's number says why, if it does. Then comes [`Self::keep`].
    pub(crate) fn failed(&mut self, written: usize, errno: Option<i32>, now_s: i64) -> Failure {
        let may_say = now_s - self.error_said_s > ERROR_LOG_S;
        if may_say {
            self.error_said_s = now_s;
        }
        let is_short = written > 0;
        self.errno = errno.filter(|_| !is_short).unwrap_or(libc::ENOSPC);
        self.is_ok = false;
        Failure { may_say, is_short }
    }

    /// So many bytes of what was written stay in the file; the rest is to be written again.
    pub(crate) fn keep(&mut self, written: usize) {
        self.size += written as u64;
        self.buf.drain(..written);
    }

    /// How to sync what was written, if that is due.
    pub(crate) fn sync_due(&mut self, env: &WriteEnv) -> Option<SyncHow> {
        if self.synced == self.size || env.spares_disk {
            return None;
        }
        match env.policy {
            AppendFsync::No => None,
            AppendFsync::Always => Some(SyncHow::BehindGate),
            AppendFsync::Everysec if env.now_s <= self.last_sync_s => None,
            AppendFsync::Everysec => {
                self.last_sync_s = env.now_s;
                if env.syncing {
                    return None;
                }
                self.synced = self.size;
                Some(SyncHow::Aside)
            }
        }
    }

    /// A sync has begun or is done, Unix time.
    pub(crate) fn note_sync(&mut self, now_s: i64) {
        self.last_sync_s = now_s;
    }

    /// The increment is on disk up to here.
    pub(crate) fn synced_to(&mut self, size: u64) {
        self.synced = self.synced.max(size.min(self.size));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYSEC: WriteEnv =
        WriteEnv { now_s: 1000, policy: AppendFsync::Everysec, forced: false, syncing: false, spares_disk: false };

    fn writing() -> Writing {
        let mut w = Writing::new(1000);
        w.feed(Some(0), b"*1\r\n$4\r\nPING\r\n", false, 1000);
        w
    }

    fn at(now_s: i64, env: WriteEnv) -> WriteEnv {
        WriteEnv { now_s, ..env }
    }

    #[test]
    fn commands_say_their_database_once() {
        let mut w = Writing::new(0);
        w.feed(Some(3), b"a", false, 5);
        w.feed(Some(3), b"b", true, 5);
        w.feed(None, b"c", true, 5);
        w.select_anew();
        w.feed(Some(3), b"d", true, 6);
        let select = "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n";
        assert_eq!(String::from_utf8_lossy(w.buf()), format!("{select}a#TS:5\r\nbc#TS:6\r\n{select}d"));
    }

    #[test]
    fn everysec_syncs_once_a_second() {
        let mut w = writing();
        assert_eq!(w.due(&EVERYSEC), Due::Write);
        assert_eq!(w.wrote_all(), (37, false));
        assert_eq!(w.due(&EVERYSEC), Due::Sync);
        assert_eq!(w.sync_due(&EVERYSEC), None, "within the second of the last one");
        assert_eq!(w.sync_due(&WriteEnv { spares_disk: true, ..at(1001, EVERYSEC) }), None);
        assert_eq!(w.sync_due(&at(1001, EVERYSEC)), Some(SyncHow::Aside));
        assert_eq!(w.sync_due(&at(1002, EVERYSEC)), None, "all is synced");
    }

    #[test]
    fn a_slow_sync_has_writes_wait_but_not_for_ever() {
        let slow = WriteEnv { syncing: true, ..EVERYSEC };
        let mut w = writing();
        assert_eq!(w.due(&slow), Due::Wait);
        assert!(w.is_retried(false));
        assert_eq!(w.due(&at(1001, slow)), Due::Wait);
        assert_eq!(w.due(&WriteEnv { forced: true, ..at(1001, slow) }), Due::Write);
        assert_eq!(w.due(&at(1001, slow)), Due::Wait, "the wait begins anew");
        assert_eq!(w.due(&at(1003, slow)), Due::WriteDespiteSync);
        assert_eq!((w.delayed(), w.is_retried(false)), (1, false));
        w.wrote_all();
        assert_eq!(w.sync_due(&at(1003, slow)), None, "one sync at a time");
        assert_eq!(w.sync_due(&at(1004, EVERYSEC)), Some(SyncHow::Aside));
    }

    #[test]
    fn always_syncs_behind_the_gate_and_no_never() {
        let mut w = writing();
        w.wrote_all();
        let always = WriteEnv { policy: AppendFsync::Always, ..EVERYSEC };
        assert_eq!(w.sync_due(&always), Some(SyncHow::BehindGate));
        assert_eq!(w.sync_due(&at(9000, WriteEnv { policy: AppendFsync::No, ..EVERYSEC })), None);
        w.synced_to(u64::MAX);
        assert_eq!(w.sync_due(&always), None);
        // A sync does not hold writes back, as nobody writes before it is done.
        w.feed(None, b"x", false, 1000);
        assert_eq!(w.due(&WriteEnv { syncing: true, ..always }), Due::Write);
    }

    #[test]
    fn a_full_disk_is_said_seldom_and_recovered_from() {
        let mut w = writing();
        assert_eq!(w.due(&EVERYSEC), Due::Write);
        assert_eq!(w.failed(0, Some(libc::EIO), 1000), Failure { may_say: true, is_short: false });
        w.keep(0);
        assert_eq!((w.is_ok(), w.errno(), w.buf().len(), w.size()), (false, libc::EIO, 37, 0));
        assert!(w.is_retried(true) && !w.is_retried(false));
        assert_eq!(w.failed(5, Some(libc::EIO), 1030), Failure { may_say: false, is_short: true });
        assert_eq!(w.errno(), libc::ENOSPC);
        // What could not be cut off again stays, and is not written twice.
        w.keep(5);
        assert_eq!((w.buf().len(), w.size()), (32, 5));
        assert!(w.failed(0, None, 1031).may_say);
        assert_eq!(w.wrote_all(), (32, true));
        assert_eq!((w.is_ok(), w.size()), (true, 37));
        assert_eq!(w.wrote_all(), (0, false));
    }
}
