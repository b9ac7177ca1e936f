//! Loading a data set: what carries out the loads of `persist`, a slice in each turn of the loop.
//!
//! While a load is under way the loop goes on as ever; commands that need the data are answered with LOADING. What was
//! loaded for goes on at its end (`after_load`): the server starts to serve, a client that asked for it gets its reply, a
//! replica follows its primary's stream.

use crate::catalog::error::CmdError;
use crate::keyspace::{Db, ExpirePolicy};
use crate::net::ClientId;
use crate::persist::aof::load::{AofLoad, NoLoad};
use crate::persist::aof::manifest::reason;
use crate::persist::load::{LoadOptions, LoadedRepl};
use crate::persist::loading::{Asks, Counts, Env, How, SLICE_TIME, Slice, SnapshotLoad, Step};
use crate::persist::rdb::{Error, ErrorKind};
use crate::persist::snapshot::drop_page_cache;
use crate::persist::state::{AofState, Loading};
use crate::persist::{Logged, check_rdb};
use crate::resp::encode::put_command;
use crate::server::Server;
use crate::server::dispatch::blocked::WaitEnd;
use crate::server::repl::load::{LinkLoad, SyncLoad};
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// A load under way.
pub(crate) struct Loader {
    pub(crate) what: What,
    pub(crate) then: Then,
}

/// What is loaded.
pub(crate) enum What {
    Snapshot { load: Box<SnapshotLoad<BufReader<File>>>, path: PathBuf },
    Aof { load: Box<AofLoad>, client: ClientId, now_ms: i64 },
    Link(Box<LinkLoad>),
}

/// What it is loaded for.
pub(crate) enum Then {
    /// To begin serving.
    Start { since: Instant },
    /// A command waits for it.
    Command { command: LoadCommand, client: ClientId },
    /// To follow a primary.
    Sync(Box<SyncLoad>),
}

/// The commands that load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoadCommand {
    /// DEBUG RELOAD.
    Reload,
    /// DEBUG LOADAOF.
    LoadAof,
}

impl LoadCommand {
    /// The error reply.
    fn failure(self) -> &'static str {
        match self {
            LoadCommand::Reload => "ERR Error trying to load the RDB dump, check server logs.",
            LoadCommand::LoadAof => "ERR Error trying to load the AOF files, check server logs.",
        }
    }
}

/// Where a snapshot came from, which decides what an error means.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin<'a> {
    File(&'a Path),
    /// A file that a command, which reports the error, has loaded.
    FileOfCommand,
    Socket,
}

/// How a load ends. What failed is logged.
pub(crate) type Loaded = Result<LoadedRepl, Logged>;

/// Why a snapshot file cannot be loaded.
pub(crate) enum NotOpened {
    /// There is none.
    Missing,
    /// Logged.
    Failed,
}

impl Server {
    // ---- one slice after the other

    /// Begins a load. `is_async` when the databases being filled are not those being served.
    pub(crate) fn begin_load(&mut self, what: What, then: Then, total_bytes: u64, is_async: bool) {
        self.note_load_begins(total_bytes, is_async);
        self.loader = Some(Box::new(Loader { what, then }));
    }

    /// From here on commands that need the data are refused.
    pub(crate) fn note_load_begins(&mut self, total_bytes: u64, is_async: bool) {
        self.persist.loading = Some(Loading { is_async, start_s: self.now_s(), total_bytes, ..Loading::default() });
        self.persist.last_load = Counts::default();
        crate::sys::signals::set_loading(true);
    }

    fn stop_loading(&mut self) {
        self.persist.loading = None;
        crate::sys::signals::set_loading(false);
        self.clock.sync();
        self.update_access_clock();
    }

    pub(crate) fn is_loading(&self) -> bool {
        self.persist.loading.is_some()
    }

    /// A command that does not say it may run while loading runs nevertheless when the old data is still served.
    pub(crate) fn loading_allows(&self, row: &crate::catalog::row::Command) -> bool {
        use crate::catalog::row::flag;
        self.persist.loading.as_ref().is_some_and(|l| l.is_async) && !row.has(flag::NO_ASYNC_LOADING)
    }

    /// Whether the load under way can go on without waiting for anything.
    pub(crate) fn load_can_go_on(&mut self) -> bool {
        match self.loader.as_deref_mut() {
            None => false,
            Some(Loader { what: What::Snapshot { .. } | What::Aof { .. }, .. }) => true,
            Some(Loader { what: What::Link(link), .. }) => link.can_go_on(self.persist.loading.is_some()),
        }
    }

    /// Goes on with the load under way, for a slice. Whether that was the end of it.
    pub(crate) fn go_on_loading(&mut self) -> bool {
        if self.exit.is_some() {
            return false;
        }
        let Some((loader, loaded)) = self.step_load() else { return false };
        self.after_load(*loader, loaded);
        true
    }

    /// Loads for a command whose client cannot wait: nobody is served meanwhile. `Err` is the text of the reply.
    pub(crate) fn load_to_the_end(&mut self) -> Result<(), &'static str> {
        while self.loader.is_some() {
            let Some((loader, loaded)) = self.step_load() else { continue };
            if let Then::Command { command, .. } = loader.then {
                return self.after_load_command(command, loaded);
            }
        }
        Ok(())
    }

    /// Comes to the end of a load that a command asked for, before another one.
    pub(crate) fn finish_load(&mut self) {
        while self.is_loading() && self.exit.is_none() {
            self.go_on_loading();
        }
    }

    fn step_load(&mut self) -> Option<(Box<Loader>, Loaded)> {
        let mut loader = self.loader.take()?;
        let Loader { what, then } = &mut *loader;
        let loaded = match (what, then) {
            (_, Then::Sync(_)) if !self.is_sync_loading() => Some(Err(Logged)),
            (What::Snapshot { load, path }, then) => self.step_snapshot(load, path, then),
            (What::Aof { load, client, now_ms }, then) => {
                self.step_aof(load, (*client, *now_ms), matches!(then, Then::Command { .. }))
            }
            (What::Link(link), Then::Sync(sync)) => {
                if self.begin_gathered(link, sync) {
                    self.step_link(link, sync.aside.as_deref_mut())
                } else {
                    None
                }
            }
            (What::Link(_), Then::Start { .. } | Then::Command { .. }) => Some(Err(Logged)),
        };
        crate::sys::alloc::peak();
        self.repl_while_loading();
        let Some(loaded) = loaded else {
            self.loader = Some(loader);
            return None;
        };
        self.stop_loading();
        Some((loader, loaded))
    }

    fn after_load(&mut self, loader: Loader, loaded: Loaded) {
        let is_log = match loader.what {
            What::Aof { .. } => true,
            What::Link(_) => false,
            What::Snapshot { load, .. } => {
                let file = load.into_source().into_inner();
                self.background.files.submit(move || drop_page_cache(&file));
                false
            }
        };
        match loader.then {
            Then::Start { since } => self.after_load_at_start(since, is_log, loaded),
            Then::Sync(sync) => self.after_sync_load(*sync, loaded),
            Then::Command { command, client } => match self.after_load_command(command, loaded) {
                Ok(()) => {
                    self.clients.reply(client, b"+OK\r\n");
                    self.unblock(client, WaitEnd::Answered);
                }
                Err(text) => {
                    self.reply_error_to(client, &CmdError::of(text));
                    self.unblock(client, WaitEnd::Failed);
                }
            },
        }
    }

    // ---- parts of a slice

    /// What may be done now, of a load that has come to `offset`.
    pub(crate) fn load_slice(&self, offset: u64) -> Slice {
        let bytes = self.cfg.loading_process_events_interval_bytes.max(0) as u64;
        Slice::new(offset, bytes, SLICE_TIME)
    }

    pub(crate) fn load_env<'a>(&'a mut self, aside: Option<&'a mut [Db]>) -> Env<'a> {
        Env { clock: &self.clock, delay_us: self.cfg.key_load_delay, ks: &mut self.ks, aside }
    }

    pub(crate) fn how_to_load(&self, options: LoadOptions) -> How {
        How::new(options, &self.cfg, &self.ks, self.persist.skip_checksum, self.clock.ms())
    }

    pub(crate) fn note_load_progress(&mut self, loaded_bytes: u64, counts: Counts) {
        if let Some(loading) = &mut self.persist.loading {
            loading.loaded_bytes = loaded_bytes;
            loading.rdb_used_mem = counts.used_mem;
        }
        self.persist.last_load = counts;
    }

    /// Does what a snapshot, read up to `offset`, asks for.
    pub(crate) fn answer_load(&mut self, asks: Asks, allow_duplicates: bool, offset: u64) -> Result<(), Error> {
        match asks {
            Asks::Library(code) => {
                self.script.load_library(&code, allow_duplicates, false).map_err(|e| {
                    log::warn!("Failed creating function, {}", String::from_utf8_lossy(&e));
                    Error::new(offset, ErrorKind::Eof)
                })?;
            }
            Asks::Expired { db, key } => {
                let verb: &[u8] = if self.cfg.lazyfree_lazy_expire { b"UNLINK" } else { b"DEL" };
                let mut command = Vec::new();
                put_command(&mut command, &[verb, &key]);
                self.feed_replicas(Some(db), &command);
            }
            Asks::NoSuchDb => {
                log::warn!(
                    "FATAL: Data file was created with a Redis server configured to handle more than {} databases. \
                     Exiting\n",
                    self.ks.dbs.len()
                );
                std::process::exit(1);
            }
        }
        Ok(())
    }

    fn step_snapshot(
        &mut self,
        load: &mut SnapshotLoad<BufReader<File>>,
        path: &Path,
        then: &mut Then,
    ) -> Option<Loaded> {
        let mut slice = self.load_slice(load.offset());
        let failed = loop {
            let step = load.step(&mut self.load_env(None), &mut slice);
            self.note_load_progress(load.offset(), load.counts());
            let asks = match step {
                Ok(Step::Pause | Step::Starved) => return None,
                Ok(Step::Done(position)) => return Some(Ok(position)),
                Ok(Step::Asks(asks)) => asks,
                Err(e) => break e,
            };
            if let Err(e) = self.answer_load(asks, load.options().allow_duplicates, load.offset()) {
                break e;
            }
        };
        let of_command = matches!(then, Then::Command { .. });
        let origin = if of_command { Origin::FileOfCommand } else { Origin::File(path) };
        if log_load_error(&failed, origin) {
            std::process::exit(1);
        }
        Some(Err(Logged))
    }

    /// Time stands still for the commands of the log, and no key expires.
    fn step_aof(&mut self, load: &mut AofLoad, (client, now_ms): (ClientId, i64), of_command: bool) -> Option<Loaded> {
        let policy = std::mem::replace(&mut self.ks.expire_policy, ExpirePolicy::Ignore);
        let real_now_ms = std::mem::replace(&mut self.ks.now_ms, now_ms);
        let ended = self.replay_slice(load, client, of_command);
        self.ks.expire_policy = policy;
        self.ks.now_ms = real_now_ms;
        self.note_load_progress(load.loaded_bytes(), load.counts());
        let loaded = ended?;
        self.drop_aof_client(client);
        if loaded.is_ok() {
            self.persist.aof.current_size = load.total_bytes();
            // What the last rewrite left is not recorded anywhere; the base is the part of it that is known.
            self.persist.aof.rewrites.set_base_bytes(load.base_bytes());
        }
        Some(loaded.map(|()| LoadedRepl::default()))
    }

    // ---- files

    /// Opens a snapshot file to be loaded, and gives its size, too.
    pub(crate) fn open_snapshot(&self, path: PathBuf, options: LoadOptions) -> Result<(What, u64), NotOpened> {
        let file = File::open(&path).map_err(|e| {
            if e.kind() == io::ErrorKind::NotFound {
                return NotOpened::Missing;
            }
            log::warn!("Fatal error: can't open the RDB file {} for reading: {}", path.display(), reason(&e));
            NotOpened::Failed
        })?;
        let size = file.metadata().map_or(0, |m| m.len());
        let source = BufReader::with_capacity(1 << 18, file);
        let load = Box::new(SnapshotLoad::new(source, &self.how_to_load(options)));
        Ok((What::Snapshot { load, path }, size))
    }

    /// Begins to load the files that the manifest names; or says how that ended at once.
    fn begin_aof_load(&mut self, then: Then) -> Result<(), NoLoad> {
        let dir = self.persist.aof.dir.clone();
        if dir.needs_upgrade(&self.persist.aof.manifest) && dir.upgrade(&mut self.persist.aof.manifest).is_err() {
            std::process::exit(1);
        }
        let how = self.how_to_load(LoadOptions { keep_expired: true, ..LoadOptions::default() });
        let load = Box::new(AofLoad::new(&dir, &self.persist.aof.manifest, how)?);
        let total = load.total_bytes();
        let client = self.add_aof_client();
        let now_ms = self.ks.now_ms;
        self.begin_load(What::Aof { load, client, now_ms }, then, total, false);
        Ok(())
    }

    // ---- at start

    /// Begins to load the data set when the server starts. What comes afterwards is done by `after_load_at_start`, at once if
    /// there is nothing to load.
    pub(crate) fn load_at_start(&mut self) {
        let since = Instant::now();
        match self.persist.aof.dir.load_manifest() {
            Ok(manifest) => self.persist.aof.manifest = manifest,
            Err(e) => {
                e.log_fatal();
                self.exit = Some(1);
                return;
            }
        }
        if self.persist.aof.state == AofState::On {
            match self.begin_aof_load(Then::Start { since }) {
                Ok(()) => {}
                Err(NoLoad::Failed) => self.exit = Some(1),
                Err(NoLoad::Missing) => self.begin_serving(),
                Err(NoLoad::Empty) => self.after_load_at_start(since, true, Ok(LoadedRepl::default())),
            }
            return;
        }
        let replica = self.is_replica();
        let options = LoadOptions { keep_expired: replica, feed_replicas: !replica, ..LoadOptions::default() };
        self.repl_before_startup_load();
        match self.open_snapshot(PathBuf::from(&self.cfg.dbfilename), options) {
            Ok((what, size)) => self.begin_load(what, Then::Start { since }, size, false),
            Err(NotOpened::Missing) => {
                self.repl_after_startup_load(None);
                self.begin_serving();
            }
            Err(NotOpened::Failed) => self.after_load_at_start(since, false, Err(Logged)),
        }
    }

    fn after_load_at_start(&mut self, since: Instant, is_log: bool, loaded: Loaded) {
        let seconds = since.elapsed().as_secs_f64();
        match loaded {
            Ok(_) if is_log => {
                self.note_log_loaded();
                log::info!("DB loaded from append only file: {seconds:.3} seconds");
            }
            Ok(position) => {
                log::info!("DB loaded from disk: {seconds:.3} seconds");
                self.track_imports(&position.imports);
                self.repl_after_startup_load(Some(position));
            }
            Err(Logged) => {
                if !is_log {
                    log::warn!("Fatal error loading the DB, check server logs. Exiting.");
                }
                self.exit = Some(1);
                return;
            }
        }
        self.begin_serving();
    }

    /// The data set is there: opens the log, and the doors. What fails is logged and ends the server.
    fn begin_serving(&mut self) {
        if self.open_aof_on_start().is_err() {
            self.exit = Some(1);
            return;
        }
        self.remove_aof_history();
        self.finish_start();
    }

    // ---- for commands

    /// DEBUG RELOAD: `save`, then `flush`, then begin to load. `Err` is the text of the reply.
    pub(crate) fn begin_reload(
        &mut self,
        client: ClientId,
        (save, flush, merge): (bool, bool, bool),
    ) -> Result<(), &'static str> {
        if save && !self.save_rdb(false) {
            return Err("ERR");
        }
        if flush {
            self.ks.flush(None, false);
            self.script.libraries.clear();
        }
        let options =
            LoadOptions { allow_duplicates: merge, keep_expired: self.is_replica(), ..LoadOptions::default() };
        let command = LoadCommand::Reload;
        let opened = self.open_snapshot(PathBuf::from(&self.cfg.dbfilename), options);
        let (what, size) = opened.map_err(|_| command.failure())?;
        self.begin_load(what, Then::Command { command, client }, size, false);
        Ok(())
    }

    /// DEBUG LOADAOF: begins it. `Err` is the text of the reply.
    pub(crate) fn begin_load_aof(&mut self, client: ClientId) -> Result<(), &'static str> {
        self.flush_aof_now();
        self.ks.flush(None, false);
        self.script.libraries.clear();
        self.persist.aof.manifest = match self.persist.aof.dir.load_manifest() {
            Ok(manifest) => manifest,
            Err(e) => {
                e.log_fatal();
                std::process::exit(1)
            }
        };
        self.remove_aof_history();
        let command = LoadCommand::LoadAof;
        match self.begin_aof_load(Then::Command { command, client }) {
            Ok(()) => Ok(()),
            Err(NoLoad::Empty) => self.after_load_command(command, Ok(LoadedRepl::default())),
            Err(NoLoad::Missing | NoLoad::Failed) => Err(command.failure()),
        }
    }

    /// `Err` is the text of the reply.
    fn after_load_command(&mut self, command: LoadCommand, loaded: Loaded) -> Result<(), &'static str> {
        // Nothing of this is to be propagated.
        self.ks.effects.dirty = 0;
        loaded.map_err(|Logged| command.failure())?;
        match command {
            LoadCommand::Reload => log::info!("DB reloaded by DEBUG RELOAD"),
            LoadCommand::LoadAof => log::info!("Append Only File loaded by DEBUG LOADAOF"),
        }
        Ok(())
    }
}

/// Logs why a snapshot could not be loaded. For one from a file also prints a check of it. True when the server has to
/// end: the file is what it lives on, or the bytes are damaged rather than missing.
pub(crate) fn log_load_error(error: &Error, origin: Origin<'_>) -> bool {
    match &error.kind {
        ErrorKind::Signature | ErrorKind::Version(_) | ErrorKind::Newer(_) => {
            log::warn!("{}", error.kind);
            return false;
        }
        ErrorKind::Module { aux: true, .. } => {
            log::warn!("{}", error.kind);
            return true;
        }
        ErrorKind::Checksum { expected, got } => {
            log::warn!("Wrong RDB checksum expected: ({expected:x}) but got ({got:x}). Aborting now.");
        }
        ErrorKind::Eof | ErrorKind::Io(_) => {
            log::warn!("Short read or OOM loading DB. Unrecoverable error, aborting now.");
        }
        ErrorKind::Corrupt(_) | ErrorKind::UnknownType(_) | ErrorKind::Module { .. } => {}
    }
    match origin {
        Origin::Socket if error.is_corruption() => {
            log::warn!("{error}. Failure loading rdb format");
            log::warn!("Terminating server after rdb file reading failure.");
            true
        }
        Origin::Socket => {
            log::warn!(
                "{error}. Failure loading rdb format from socket, assuming connection error, resuming operation."
            );
            false
        }
        Origin::FileOfCommand => {
            log::debug!("{error}");
            false
        }
        Origin::File(path) => {
            log::warn!("{error}");
            // The report is for whoever looks at the console; the log has the reason already.
            let _ = check_rdb::check_file(path, &mut io::stdout().lock());
            true
        }
    }
}
