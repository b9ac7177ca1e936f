//! A dataset from the master on its way into memory: from the file it was received into, or straight from the link.
//!
//! The load itself goes on in slices (`server::persist::load`). Meanwhile the link's connection is read by nobody else
//! ([`ReplIo::is_loading`](super::ReplIo::is_loading)), and not waited for: the poll tells when there is more.

use super::follow::TempFile;
use crate::config::ReplDisklessLoad;
use crate::keyspace::Db;
use crate::persist::Logged;
use crate::persist::child::ChildKind;
use crate::persist::feed::{FeedError, FeedLoad, FeedStep};
use crate::persist::load::{LoadOptions, LoadedRepl};
use crate::persist::state::AofState;
use crate::repl::{Framing, Repl, ReplId};
use crate::server::Server;
use crate::server::persist::load::{Loaded, Loader, NotOpened, Origin, Then, What, log_load_error};
use crate::sys::os_error;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What goes with the load of a dataset from the master.
pub(crate) struct SyncLoad {
    /// What followed it on the link and was read already.
    rest: Vec<u8>,
    /// Where it is loaded beside the one being served.
    pub(crate) aside: Option<Vec<Db>>,
    /// The old dataset has made way for it, or will for what is loaded beside that.
    begun: bool,
    /// It is in this file.
    file: Option<PathBuf>,
}

/// The load of a dataset as it comes off the link.
pub(crate) struct LinkLoad {
    feed: FeedLoad,
    /// Bytes announced; 0 if an end mark follows them.
    total: u64,
    /// There may be something to read.
    readable: bool,
    silent_since: Instant,
    /// When it began.
    since: Instant,
}

impl LinkLoad {
    /// Whether there is something to do. `begun`: what was gathered is being loaded.
    pub(crate) fn can_go_on(&mut self, begun: bool) -> bool {
        self.readable || (begun && self.feed.may_go_on(Instant::now()))
    }
}

/// For so long at most a dataset is gathered, however slowly it comes, before it is loaded as it comes.
const GATHER_FOR: Duration = Duration::from_secs(1);
/// What a replica keeps of a snapshot: everything. Its master deletes what has expired.
const AS_REPLICA: LoadOptions = LoadOptions { allow_duplicates: false, keep_expired: true, feed_replicas: false };

impl Server {
    /// Begins to load the file that was received; `rest` is what followed it on the link.
    pub(super) fn load_received_file(&mut self, rest: &[u8]) {
        self.finish_load();
        self.note_data_replaced();
        let link = self.repl_io.master.link;
        let Some(file) = self.repl_io.master.file.take() else { return };
        if let Some(ChildKind::RdbDisk | ChildKind::RdbSocket) = self.child_kind()
            && let Some(child) = &self.persist.child
        {
            log::info!(
                "Replica is about to load the RDB file received from the master, but there is a pending RDB child \
                 running. Killing process {} and removing its temp file to avoid any race",
                child.pid()
            );
        }
        self.prepare_for_dataset();
        self.flush_for_dataset();
        log::info!("MASTER <-> REPLICA sync: Loading DB in memory");
        let path = PathBuf::from(&self.cfg.dbfilename);
        if let Err(line) = install_file(file, &path) {
            log::warn!("{line}");
            self.restart_sync();
            return;
        }
        self.repl_io.loading = Some(link);
        let sync = SyncLoad { rest: rest.to_vec(), aside: None, begun: true, file: Some(path.clone()) };
        match self.open_snapshot(path, AS_REPLICA) {
            Ok((what, size)) => {
                self.begin_load(what, Then::Sync(Box::new(sync)), size, false);
                // A small one is in memory before anybody is told that it is not.
                self.go_on_loading();
            }
            Err(NotOpened::Missing | NotOpened::Failed) => self.after_sync_load(sync, Err(Logged)),
        }
    }

    /// Has the dataset loaded as it comes off the link; `rest` is what of it was read already.
    pub(super) fn load_from_master_link(&mut self, framing: Framing, rest: &[u8]) {
        self.finish_load();
        self.note_data_replaced();
        let link = self.repl_io.master.link;
        let (length, mark) = match framing {
            Framing::Length(length) => (Some(length), None),
            Framing::Mark(mark) => (None, Some(mark.to_vec())),
        };
        let mut feed = FeedLoad::new(&self.how_to_load(AS_REPLICA), length, mark);
        let taken = feed.take(rest);
        let total = length.unwrap_or(0);
        let load = LinkLoad { feed, total, readable: true, silent_since: Instant::now(), since: Instant::now() };
        let sync = SyncLoad { rest: rest[taken..].to_vec(), aside: None, begun: false, file: None };
        self.repl_io.loading = Some(link);
        self.loader = Some(Box::new(Loader { what: What::Link(Box::new(load)), then: Then::Sync(Box::new(sync)) }));
        self.go_on_loading();
    }

    /// Gathers what comes off the link until the load begins: when as much is there as is loaded before others are served, or
    /// all of it, or a slow master had its time. Until then the old data is served. Whether it has begun.
    pub(crate) fn begin_gathered(&mut self, link: &mut LinkLoad, sync: &mut SyncLoad) -> bool {
        let enough = self.cfg.loading_process_events_interval_bytes.max(1) as usize;
        while !sync.begun && link.readable && !link.feed.is_complete() && link.feed.gathered() < enough {
            if !self.read_dataset(link) {
                return false;
            }
        }
        self.check_silence(link);
        let is_slow = link.since.elapsed() >= GATHER_FOR && link.feed.gathered() > 0;
        if !sync.begun && (link.feed.is_complete() || link.feed.gathered() >= enough || is_slow) {
            self.begin_sync_load(link.total, sync);
        }
        sync.begun
    }

    /// Drops what was gathered for a load that has not begun, and asks the master anew.
    pub(crate) fn drop_gathered(&mut self) {
        if self.loader.take().is_some() {
            self.repl_io.loading = None;
            self.restart_sync();
        }
    }

    fn begin_sync_load(&mut self, total: u64, sync: &mut SyncLoad) {
        self.prepare_for_dataset();
        let swap = self.cfg.repl_diskless_load == ReplDisklessLoad::Swapdb;
        if !swap {
            self.flush_for_dataset();
        }
        log::info!("MASTER <-> REPLICA sync: Loading DB in memory");
        // The old dataset may be served meanwhile if it is an earlier state of the same history.
        let is_async = swap && self.repl.receives_own_history();
        sync.aside = swap.then(|| self.ks.dbs.iter().map(Db::empty_like).collect());
        self.script.aside = swap.then(Default::default);
        sync.begun = true;
        self.note_load_begins(total, is_async);
    }

    /// Reads bytes of the dataset, if there are some. False if the link is gone.
    fn read_dataset(&mut self, link: &mut LinkLoad) -> bool {
        let Some(conn) = &mut self.repl_io.master.conn else { return false };
        match link.feed.receive(|room| conn.read(room)) {
            Ok(count) => {
                link.silent_since = Instant::now();
                // After the end there is no more to be told.
                link.readable = count > 0;
                self.stats.note_input(count, true);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => link.readable = false,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => link.feed.fail(e.kind()),
        }
        true
    }

    /// Whether the load under way still is for the master it was begun for: that may have been taken from us.
    pub(crate) fn is_sync_loading(&self) -> bool {
        self.repl_io.loading.is_some_and(|link| self.repl.is_current(link))
    }

    /// The link's connection is ready for something while a dataset is loaded.
    pub(crate) fn master_link_feeds(&mut self) -> bool {
        match self.loader.as_deref_mut() {
            Some(Loader { what: What::Link(link), .. }) => {
                link.readable = true;
                true
            }
            _ => false,
        }
    }

    /// Goes on with the load of what comes off the link, for a slice. Never waits.
    pub(crate) fn step_link(&mut self, link: &mut LinkLoad, mut aside: Option<&mut [Db]>) -> Option<Loaded> {
        let mut slice = self.load_slice(link.feed.snapshot().offset());
        loop {
            if link.feed.may_go_on(Instant::now()) {
                let step = link.feed.step(&mut self.load_env(aside.as_deref_mut()), &mut slice);
                let snapshot = link.feed.snapshot();
                let (offset, duplicates) = (snapshot.offset(), snapshot.options().allow_duplicates);
                self.note_load_progress(offset, snapshot.counts());
                match step {
                    Ok(FeedStep::Starved) => {}
                    Ok(FeedStep::Pause) => return None,
                    Ok(FeedStep::Done(position)) => return Some(Ok(position)),
                    Ok(FeedStep::Asks(asks)) => {
                        if let Err(e) = self.answer_load(asks, duplicates, offset) {
                            return Some(refuse_dataset(&FeedError::Snapshot(e)));
                        }
                        continue;
                    }
                    Err(e) => return Some(refuse_dataset(&e)),
                }
            }
            if slice.is_late() || !link.readable {
                self.check_silence(link);
                return None;
            }
            if !self.read_dataset(link) {
                return Some(Err(Logged));
            }
        }
    }

    /// Ends the load when the master has been silent for too long.
    fn check_silence(&self, link: &mut LinkLoad) {
        let timeout = Duration::from_secs(self.cfg.repl_timeout.max(0) as u64);
        if !link.readable && link.silent_since.elapsed() >= timeout {
            link.feed.fail(io::ErrorKind::TimedOut);
        }
    }

    /// The dataset is in memory, or could not be loaded, which is logged.
    pub(crate) fn after_sync_load(&mut self, sync: SyncLoad, loaded: Loaded) {
        let is_ours = self.is_sync_loading();
        let from_link = sync.file.is_none();
        self.repl_io.loading = None;
        if let Some(path) = &sync.file
            && self.cfg.rdb_del_sync_files
            && self.keeps_nothing_on_disk()
        {
            log::info!("Removing the RDB file obtained from the master. This replica has persistence disabled");
            self.unlink_in_background(path);
        }
        let Ok(position) = loaded else { return self.drop_half_dataset(sync, is_ours) };
        if let Some(aside) = sync.aside {
            self.adopt_new_dataset();
            log::info!("MASTER <-> REPLICA sync: Swapping active DB with loaded DB");
            let old = self.swap_in(aside);
            self.script.libraries = self.script.aside.take().unwrap_or_default();
            self.free_databases(old);
            log::info!("MASTER <-> REPLICA sync: Discarding old DB in background");
        }
        if from_link {
            // Nothing was saved on the way.
            self.ks.effects.dirty += 1;
        }
        self.track_imports(&position.imports);
        self.finish_full_sync(stream_db(&position), &sync.rest);
    }

    /// Half a dataset is none. `is_ours`: the master that it came from still is ours, and is asked again.
    fn drop_half_dataset(&mut self, sync: SyncLoad, is_ours: bool) {
        if is_ours {
            let from = if sync.file.is_some() { "disk" } else { "socket" };
            log::warn!("Failed trying to load the MASTER synchronization DB from {from}, check server logs.");
            self.restart_sync();
        }
        match sync.aside {
            Some(aside) => {
                self.script.aside = None;
                self.free_databases(aside);
                log::info!("MASTER <-> REPLICA sync: Discarding temporary DB in background");
            }
            None if sync.begun => drop(self.ks.flush(None, self.cfg.replica_lazy_flush)),
            None => {}
        }
        // What another master sent meanwhile was not looked at.
        self.repl_io.master.held_back |= !is_ours;
        self.release_master_link();
    }

    /// Nothing may write files of the dataset that is about to go.
    fn prepare_for_dataset(&mut self) {
        self.stop_aof();
        self.kill_rdb_child();
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
        if self.repl_io.loading.is_none() {
            return;
        }
        let loaded = self.persist.loading.as_ref().map(|loading| loading.loaded_bytes);
        self.repl.note_loaded(loaded, self.now_s());
        self.keep_master_link_alive();
    }

    // ---- the dataset this server starts with

    /// A primary's replicas may continue with what it loads, so keys that go while loading are part of the stream.
    pub(crate) fn repl_before_startup_load(&mut self) {
        self.with_repl(Repl::before_startup_load);
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
            None => self.with_repl(|repl, _| repl.drop_backlog()),
        }
    }

    // ---- the AOF around a synchronization

    /// Switches the AOF on again after a full synchronization.
    pub(super) fn restart_aof_after_sync(&mut self) {
        if self.cfg.appendonly {
            self.persist.aof.restart.begin();
            self.restart_aof();
        }
    }

    /// A replica that becomes a primary in the middle of a synchronization has its AOF switched off.
    pub(super) fn restart_aof_after_role_change(&mut self) {
        if self.persist.aof.state == AofState::Off {
            self.restart_aof_after_sync();
        }
    }
}

/// Logs why what came off the link is of no use. Ends the process if the bytes are damaged.
fn refuse_dataset(error: &FeedError) -> Loaded {
    match error {
        FeedError::Mark => log::warn!("Replication stream EOF marker is broken"),
        FeedError::Snapshot(e) => {
            if log_load_error(e, Origin::Socket) {
                std::process::exit(1);
            }
        }
    }
    Err(Logged)
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
