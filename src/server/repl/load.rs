//! A dataset from the master on its way into memory: from the file it was received into, or straight from the link.
//!
//! Loading holds up the loop but for what `persist` serves meanwhile; the link's connection is not read by anyone else
//! during that time ([`MasterLink::loading`](crate::repl::link::MasterLink::loading)).

use crate::config::ReplDisklessLoad;
use crate::keyspace::Db;
use crate::net::Conn;
use crate::persist::child::ChildKind;
use crate::persist::load::{LoadOptions, LoadedRepl, Origin};
use crate::persist::state::AofState;
use crate::repl::bulk::{Framing, MARK_LEN};
use crate::repl::history::ReplId;
use crate::repl::link::TempFile;
use crate::server::Server;
use crate::sys::os_error;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// Bytes read off the link at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// How long the link is waited for at once while a dataset comes off it; in between, others are served.
const WAIT: Duration = Duration::from_millis(300);
/// How often the master is shown that this server is alive.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// How often switching the AOF on again is tried, a second apart.
const AOF_TRIES: u32 = 10;

/// The connection again, to be written to beside whoever reads it; bytes by themselves mean nothing under TLS.
fn keepalive_of(conn: &Conn) -> Option<OwnedFd> {
    if conn.is_tls() { None } else { conn.as_fd().try_clone_to_owned().ok() }
}

/// The link's connection as a source that waits for data.
struct LinkSource {
    conn: Conn,
    buffer: Vec<u8>,
    at: usize,
    /// Bytes that may still be read off the connection.
    left: u64,
    total: u64,
    /// How long the master may be silent, and since when it is.
    timeout: Duration,
    silent_since: Instant,
    /// When the master was last shown that this server is alive: under TLS nobody else can write to it.
    told_at: Instant,
}

impl LinkSource {
    /// Waits up to `at_most` for something to read. Whether there is something; an end or an error counts.
    fn poll(&self, at_most: Duration) -> io::Result<bool> {
        if self.conn.holds_more() {
            return Ok(true);
        }
        let mut fds = [PollFd::new(self.conn.as_fd(), PollFlags::POLLIN)];
        let at_most = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
        match nix::poll::poll(&mut fds, at_most) {
            Ok(ready) => Ok(ready > 0),
            Err(nix::errno::Errno::EINTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until there is something to read, or the master was silent for too long.
    fn wait(&self) -> io::Result<()> {
        match self.poll(self.timeout.saturating_sub(self.silent_since.elapsed()))? {
            true => Ok(()),
            false => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Waits a little. Whether reading will not have to wait, or waited long enough to fail.
    fn has_data(&mut self) -> bool {
        if self.conn.is_tls() && self.told_at.elapsed() >= KEEPALIVE {
            self.told_at = Instant::now();
            // One byte either goes or does not; nothing depends on it.
            let _ = self.conn.write(b"\n");
        }
        self.at < self.buffer.len()
            || self.left == 0
            || self.poll(WAIT).unwrap_or(true)
            || self.silent_since.elapsed() >= self.timeout
    }

    fn refill(&mut self) -> io::Result<()> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(BUFFER_BYTES);
        self.at = 0;
        self.buffer.resize(room, 0);
        loop {
            match self.conn.read(&mut self.buffer) {
                Ok(count) => {
                    self.buffer.truncate(count);
                    self.silent_since = Instant::now();
                    self.left -= count as u64;
                    self.total += count as u64;
                    return Ok(());
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.wait().inspect_err(|_| self.buffer.clear())?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.buffer.clear();
                    return Err(e);
                }
            }
        }
    }
}

impl Read for LinkSource {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(out.len());
        out[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for LinkSource {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() && self.left > 0 {
            self.refill()?;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

/// What a replica keeps of a snapshot: everything. Its master deletes what has expired.
const AS_REPLICA: LoadOptions = LoadOptions { allow_duplicates: false, keep_expired: true, feed_replicas: false };

impl Server {
    /// Loads the file that was received; `rest` is what followed it on the link.
    pub(super) fn load_received_file(&mut self, rest: &[u8]) {
        let Some(transfer) = &mut self.repl.master.transfer else { return };
        let (from, framing, file) = (transfer.from, transfer.framing, transfer.file.take());
        let Some(file) = file else { return };
        if let Some(ChildKind::RdbDisk | ChildKind::RdbSocket) = self.child_kind()
            && let Some(child) = &self.persist.child
        {
            log::info!(
                "Replica is about to load the RDB file received from the master, but there is a pending RDB child \
                 running. Killing process {} and removing its temp file to avoid any race",
                child.pid
            );
        }
        self.prepare_for_dataset();
        self.flush_for_dataset();
        log::info!("MASTER <-> REPLICA sync: Loading DB in memory");
        let path = Path::new(&self.cfg.dbfilename).to_path_buf();
        if let Err(line) = install_file(file, &path) {
            log::warn!("{line}");
            self.cancel_sync(true);
            return;
        }
        self.repl.master.loading = true;
        let loaded = self.load_rdb_file(&path, AS_REPLICA);
        self.repl.master.loading = false;
        if self.cfg.rdb_del_sync_files && self.keeps_nothing_on_disk() {
            log::info!("Removing the RDB file obtained from the master. This replica has persistence disabled");
            self.unlink_in_background(&path);
        }
        if self.exit.is_some() {
            return;
        }
        match loaded {
            Ok(position) => self.finish_full_sync(from, stream_db(&position), framing, rest),
            Err(_) => {
                log::warn!("Failed trying to load the MASTER synchronization DB from disk, check server logs.");
                self.cancel_sync(true);
            }
        }
    }

    /// Loads the dataset as it comes off the link; `rest` is what of it was read already.
    pub(super) fn load_from_master_link(&mut self, framing: Framing, rest: &[u8]) {
        let link = &mut self.repl.master;
        let Some(from) = link.transfer.as_ref().map(|transfer| transfer.from) else { return };
        let Some(conn) = link.conn.take() else { return };
        let total = match framing {
            Framing::Length(length) => length,
            Framing::Mark(_) => u64::MAX,
        };
        let source = LinkSource {
            conn,
            buffer: rest.to_vec(),
            at: 0,
            left: total.saturating_sub(rest.len() as u64),
            total: 0,
            timeout: Duration::from_secs(self.cfg.repl_timeout.max(0) as u64),
            silent_since: Instant::now(),
            told_at: Instant::now(),
        };
        self.repl.master.keepalive = keepalive_of(&source.conn);
        self.prepare_for_dataset();
        let swap = self.cfg.repl_diskless_load == ReplDisklessLoad::Swapdb;
        if !swap {
            self.flush_for_dataset();
        }
        log::info!("MASTER <-> REPLICA sync: Loading DB in memory");
        // The old dataset may be served meanwhile if it is an earlier state of the same history.
        let is_async = swap && from.is_some_and(|(id, _)| id == self.repl.history.id);
        let mut aside: Option<Vec<Db>> = swap.then(|| self.ks.dbs.iter().map(Db::empty_like).collect());
        self.script.aside = swap.then(Default::default);
        self.start_loading(if let Framing::Length(length) = framing { length } else { 0 }, is_async);
        self.repl.master.loading = true;
        let loaded = self.load_marked(source, framing, aside.as_deref_mut());
        self.repl.master.loading = false;
        self.stop_loading();
        if self.exit.is_some() {
            return;
        }
        let Some((position, conn)) = loaded else {
            self.cancel_sync(true);
            match aside {
                Some(aside) => {
                    self.script.aside = None;
                    self.free_databases(aside);
                    log::info!("MASTER <-> REPLICA sync: Discarding temporary DB in background");
                }
                // Half a dataset is none.
                None => drop(self.ks.flush(None, self.cfg.replica_lazy_flush)),
            }
            return;
        };
        self.repl.master.conn = Some(conn);
        if let Some(aside) = aside {
            self.adopt_new_dataset();
            log::info!("MASTER <-> REPLICA sync: Swapping active DB with loaded DB");
            let old = self.swap_in(aside);
            self.script.libraries = self.script.aside.take().unwrap_or_default();
            self.free_databases(old);
            log::info!("MASTER <-> REPLICA sync: Discarding old DB in background");
        }
        // Nothing was saved on the way.
        self.ks.effects.dirty += 1;
        self.finish_full_sync(from, stream_db(&position), Some(framing), &[]);
    }

    /// Loads from the link and checks the end mark. Gives the connection back; `None`, logged, when it is of no use.
    fn load_marked(
        &mut self,
        source: LinkSource,
        framing: Framing,
        target: Option<&mut [Db]>,
    ) -> Option<(LoadedRepl, Conn)> {
        let (position, mut source) = match self.load_snapshot(source, AS_REPLICA, target, Some(LinkSource::has_data)) {
            Ok(loaded) => loaded,
            Err(e) => {
                if self.log_load_error(&e, Origin::Socket) {
                    std::process::exit(1);
                }
                log::warn!("Failed trying to load the MASTER synchronization DB from socket, check server logs.");
                return None;
            }
        };
        let mut found = [0; MARK_LEN];
        if let Framing::Mark(mark) = framing
            && (source.read_exact(&mut found).is_err() || found != mark)
        {
            log::warn!("Replication stream EOF marker is broken");
            return None;
        }
        self.stats.note_input(source.total as usize, true);
        Some((position, source.conn))
    }

    /// Nothing may write files of the dataset that is about to go.
    fn prepare_for_dataset(&mut self) {
        if self.persist.aof.state != AofState::Off {
            self.stop_aof();
        }
        self.kill_rdb_child();
        if let Some(conn) = &self.repl.master.conn {
            self.repl.master.keepalive = keepalive_of(conn);
        }
    }

    fn flush_for_dataset(&mut self) {
        self.adopt_new_dataset();
        log::info!("MASTER <-> REPLICA sync: Flushing old data");
        self.ks.flush(None, self.cfg.replica_lazy_flush);
        self.script.libraries.clear();
    }

    /// Puts new databases in place of those being served; gives the old ones.
    fn swap_in(&mut self, new: Vec<Db>) -> Vec<Db> {
        for (number, db) in new.iter().enumerate() {
            self.ks.watch.touch_flushed(number, &self.ks.dbs[number], Some(db), self.ks.now_ms);
        }
        std::mem::replace(&mut self.ks.dbs, new)
    }

    fn free_databases(&mut self, mut dbs: Vec<Db>) {
        for db in &mut dbs {
            let tables = db.take_all();
            self.ks.effects.free_tables(tables, true);
        }
    }

    /// While a dataset is loaded: shows the master that this server is alive.
    pub(crate) fn repl_while_loading(&mut self) {
        if !self.repl.master.loading {
            return;
        }
        let loaded = self.persist.loading.as_ref().map(|loading| loading.loaded_bytes);
        if let (Some(loaded), Some(transfer)) = (loaded, &mut self.repl.master.transfer) {
            transfer.read = transfer.read.max(loaded);
        }
        self.repl.master.last_io_s = self.now_s();
        self.keep_master_link_alive();
    }

    // ---- the dataset this server starts with

    /// A primary's replicas may continue with what it loads, so keys that go while loading are part of the stream.
    pub(crate) fn repl_before_startup_load(&mut self) {
        if !self.repl.is_replica() && self.repl.backlog.is_none() {
            self.repl.create_backlog(self.cfg.repl_backlog_size as usize);
        }
    }

    /// Goes on with the history the dataset was saved with, if it tells.
    pub(crate) fn repl_after_startup_load(&mut self, found: Option<LoadedRepl>) {
        let position = found.and_then(|found| {
            let id = ReplId::from_bytes(&found.id?)?;
            let db = usize::try_from(found.stream_db?).ok().filter(|db| *db < self.ks.dbs.len())?;
            Some((id, found.offset.filter(|offset| *offset != -1)?, db))
        });
        match position {
            Some((id, offset, db)) => self.restore_history(id, offset, db),
            // Without a past there is nothing that a backlog would be good for.
            None if self.repl.backlog.is_some() => self.drop_backlog(),
            None => {}
        }
    }

    // ---- the AOF around a synchronization

    /// Switches the AOF on again after a full synchronization. A replica that cannot keep its promise ends.
    pub(super) fn restart_aof_after_sync(&mut self) {
        if !self.cfg.appendonly {
            return;
        }
        for _ in 0..AOF_TRIES {
            if self.start_aof(false) {
                return;
            }
            log::warn!(
                "Failed enabling the AOF after successful master synchronization! Trying it again in one second."
            );
            std::thread::sleep(Duration::from_secs(1));
        }
        log::warn!(
            "FATAL: this replica instance finished the synchronization with its master, but the AOF can't be turned \
             on. Exiting now."
        );
        std::process::exit(1);
    }

    /// A replica that becomes a primary in the middle of a synchronization has its AOF switched off.
    pub(super) fn restart_aof_after_role_change(&mut self) {
        if self.persist.aof.state == AofState::Off {
            self.restart_aof_after_sync();
        }
    }
}

fn stream_db(position: &LoadedRepl) -> usize {
    position.stream_db.and_then(|db| usize::try_from(db).ok()).unwrap_or(0)
}

/// Makes a received file durable and puts it where the dump file belongs. An error is the line to log.
fn install_file(mut file: TempFile, path: &Path) -> Result<(), String> {
    let failed = |what: String, e: &io::Error| {
        format!("Failed trying to {what} in MASTER <-> REPLICA synchronization: {}", os_error(e))
    };
    file.file.sync_all().map_err(|e| failed("sync the temp DB to disk".into(), &e))?;
    std::fs::rename(&file.path, path).map_err(|e| failed(format!("rename the temp DB into {}", path.display()), &e))?;
    file.kept = true;
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| failed(format!("sync DB directory {}", path.display()), &e))
}
