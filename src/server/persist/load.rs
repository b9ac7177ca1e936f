//! Loading a data set: snapshots from a file or a socket, and what goes on meanwhile.
//!
//! Clients are served between keys, and inside long values, each `loading-process-events-interval-bytes`, and while a slow
//! source makes one wait; commands that need the data are answered with LOADING.

use crate::config::SanitizeDumpPayload;
use crate::keyspace::object::ValueLimits;
use crate::keyspace::{Db, Place};
use crate::persist::aof::manifest::reason;
use crate::persist::load::{
    LoadError, LoadOptions, LoadedRepl, Origin, SERVE_AFTER_US, alloc_peak, loaded_entry, parse_number,
};
use crate::persist::rdb::{Ahead, Error, ErrorKind, Item, Reader, Value};
use crate::persist::snapshot::{debug_delay, put_command};
use crate::persist::state::Loading;
use crate::persist::{Logged, check_rdb};
use crate::server::Server;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

impl Server {
    /// Marks the beginning. `is_async` when the databases being filled are not those being served.
    pub(crate) fn start_loading(&mut self, total_bytes: u64, is_async: bool) {
        let loading = Loading { is_async, start_s: self.now_s(), total_bytes, ..Loading::default() };
        self.persist.loading = Some(loading);
        self.persist.rdb.loaded_keys = 0;
        self.persist.rdb.loaded_expired = 0;
        crate::sys::signals::set_loading(true);
    }

    pub(crate) fn stop_loading(&mut self) {
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

    /// Notes how far loading has come and serves whoever waits. `Break` when the server has been told to stop.
    pub(crate) fn loading_progress(&mut self, loaded_bytes: u64) -> ControlFlow<()> {
        if let Some(loading) = &mut self.persist.loading {
            loading.loaded_bytes = loaded_bytes;
        }
        alloc_peak();
        self.serve_while_loading();
        if self.exit.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    pub(super) fn serve_while_loading(&mut self) {
        // Time stands still for the data set being loaded, but not for the clients.
        let now_ms = self.ks.now_ms;
        self.serve_pending();
        self.repl_while_loading();
        self.ks.now_ms = now_ms;
    }

    /// Reads a snapshot into the databases, or into `target` when they are to be swapped in later. Nothing is flushed
    /// before. `has_data` is given for a source that is slower than a disk: it waits a little for data and says whether
    /// there are any (or will never be). The caller marks beginning and end, and logs an error with `log_load_error`.
    pub(crate) fn load_snapshot<S: BufRead>(
        &mut self,
        source: S,
        options: LoadOptions,
        mut target: Option<&mut [Db]>,
        has_data: Option<fn(&mut S) -> bool>,
    ) -> Result<(LoadedRepl, S), Error> {
        let interval = self.cfg.loading_process_events_interval_bytes.max(0) as u64;
        let checksum = self.cfg.rdbchecksum && !self.persist.skip_checksum;
        let mut reader =
            Reader::new(source, checksum, interval).deep(self.cfg.sanitize_dump_payload == SanitizeDumpPayload::Yes);
        let limits = ValueLimits::of(&self.cfg, &self.ks);
        reader = reader.limits(&limits);
        let mut repl = LoadedRepl::default();
        let mut db = 0;
        let now_ms = self.clock.ms();
        let mut ahead = Ahead::new(0);
        let mut empty_keys = 0u64;
        let mut served_us = self.clock.tick_us();
        loop {
            if let Some(has_data) = has_data
                && interval > 0
            {
                while !has_data(reader.source_mut()) || self.clock.tick_us() - served_us > SERVE_AFTER_US {
                    if self.loading_progress(reader.offset()).is_break() {
                        return Err(Error::new(reader.offset(), ErrorKind::Aborted));
                    }
                    served_us = self.clock.tick_us();
                }
            }
            let item = reader.next_item(&mut |offset| self.loading_progress(offset))?;
            match item {
                Item::Aux { key, value } => self.note_aux(&key, &value, &mut repl),
                Item::Function(code) => {
                    if let Err(e) = self.script.load_library(&code, options.allow_duplicates, false) {
                        log::warn!("Failed creating function, {}", String::from_utf8_lossy(&e));
                        return Err(Error::new(reader.offset(), ErrorKind::Eof));
                    }
                }
                Item::SelectDb(number) => {
                    if number >= self.ks.dbs.len() as u64 {
                        log::warn!(
                            "FATAL: Data file was created with a Redis server configured to handle more than {} \
                             databases. Exiting\n",
                            self.ks.dbs.len()
                        );
                        std::process::exit(1);
                    }
                    db = number as usize;
                    ahead = Ahead::new(0);
                }
                Item::ResizeDb { keys, .. } => ahead = Ahead::new(keys),
                Item::Key(item) => {
                    let expired = item.expire_ms.is_some_and(|at| at < now_ms);
                    if expired && !options.keep_expired {
                        self.persist.rdb.loaded_expired += 1;
                        if options.feed_replicas {
                            let verb: &[u8] = if self.cfg.lazyfree_lazy_expire { b"UNLINK" } else { b"DEL" };
                            let mut command = Vec::new();
                            put_command(&mut command, &[verb, &item.key]);
                            self.feed_replicas(Some(db), &command);
                        }
                    } else {
                        if let Value::Damaged(damaged) = &item.value {
                            self.ks.note_damaged(&item.key, damaged);
                        }
                        let dbs = match &mut target {
                            Some(dbs) => &mut **dbs,
                            None => &mut self.ks.dbs[..],
                        };
                        if matches!(item.value, Value::Empty) {
                            // Old versions could come to have such keys; a few are worth a line each.
                            empty_keys += 1;
                            if empty_keys <= 10 {
                                log::info!("rdbLoadObject skipping empty key: {}", String::from_utf8_lossy(&item.key));
                            }
                        }
                        let Some(entry) = loaded_entry(&self.ks.access, item, &limits, &mut reader) else { continue };
                        if let Some(len) = ahead.next(dbs[db].len() as u64) {
                            dbs[db].reserve(len);
                        }
                        let hash = dbs[db].hash(entry.key());
                        let replacing = match dbs[db].place(hash, entry.key()) {
                            Place::Vacant(place) => {
                                place.insert(entry);
                                None
                            }
                            Place::Occupied(old) if options.allow_duplicates => {
                                drop(old.remove());
                                Some(entry)
                            }
                            Place::Occupied(_) => {
                                let key = String::from_utf8_lossy(entry.key());
                                log::warn!("RDB has duplicated key '{key}' in DB {db}");
                                return Err(Error::new(
                                    reader.offset(),
                                    ErrorKind::Corrupt("Duplicated key found in RDB file".into()),
                                ));
                            }
                        };
                        if let Some(entry) = replacing {
                            dbs[db].insert_new_hashed(hash, entry);
                        }
                        self.persist.rdb.loaded_keys += 1;
                    }
                    debug_delay(self.cfg.key_load_delay);
                }
                Item::End { checksum_disabled } => {
                    if checksum_disabled {
                        log::info!("RDB file was saved with checksum disabled: no check performed.");
                    }
                    let (loaded, expired) = (self.persist.rdb.loaded_keys, self.persist.rdb.loaded_expired);
                    if empty_keys > 0 {
                        log::info!(
                            "Done loading RDB, keys loaded: {loaded}, keys expired: {expired}, empty keys skipped: {empty_keys}."
                        );
                    } else {
                        log::info!("Done loading RDB, keys loaded: {loaded}, keys expired: {expired}.");
                    }
                    return Ok((repl, reader.into_source()));
                }
            }
        }
    }

    fn note_aux(&mut self, key: &[u8], value: &[u8], repl: &mut LoadedRepl) {
        let text = String::from_utf8_lossy(value);
        if key.first() == Some(&b'%') {
            log::info!("RDB '{}': {text}", String::from_utf8_lossy(key));
            return;
        }
        match &*key.to_ascii_lowercase() {
            b"repl-stream-db" => repl.stream_db = parse_number(value),
            b"repl-id" if value.len() == 40 => repl.id = Some(value.to_vec()),
            b"repl-offset" => repl.offset = parse_number(value),
            b"redis-ver" => log::info!("Loading RDB produced by version {text}"),
            b"ctime" => {
                let age = self.now_s() - parse_number(value).unwrap_or(0);
                log::info!("RDB age {} seconds", age.max(0));
            }
            b"used-mem" => {
                let bytes = parse_number(value).unwrap_or(0).max(0);
                log::info!("RDB memory usage when created {:.2} Mb", bytes as f64 / (1024.0 * 1024.0));
                if let Some(loading) = &mut self.persist.loading {
                    loading.rdb_used_mem = bytes as u64;
                }
            }
            b"aof-preamble" if parse_number(value).is_some_and(|n| n != 0) => log::info!("RDB has an AOF tail"),
            b"aof-base" if parse_number(value).is_some_and(|n| n != 0) => log::info!("RDB is base AOF"),
            b"repl-id" | b"aof-preamble" | b"aof-base" | b"redis-bits" | b"lua" => {}
            _ => log::trace!("Unrecognized RDB AUX field: '{}'", String::from_utf8_lossy(key)),
        }
    }

    /// Logs why a snapshot could not be loaded. For one from a file also prints a check of it. True when the server has to
    /// end: the file is what it lives on, or the bytes are damaged rather than missing.
    pub(crate) fn log_load_error(&self, error: &Error, origin: Origin<'_>) -> bool {
        match &error.kind {
            ErrorKind::Signature | ErrorKind::Version(_) => {
                log::warn!("{}", error.kind);
                return false;
            }
            ErrorKind::Module { aux: true, .. } => {
                log::warn!("{}", error.kind);
                return true;
            }
            ErrorKind::Aborted => return false,
            ErrorKind::Checksum { expected, got } => {
                log::warn!("Wrong RDB checksum expected: ({expected:x}) but got ({got:x}). Aborting now.");
            }
            ErrorKind::Eof | ErrorKind::Io(_) => {
                log::warn!("Short read or OOM loading DB. Unrecoverable error, aborting now.");
            }
            ErrorKind::Corrupt(_) | ErrorKind::UnknownType(_) | ErrorKind::Module { .. } => {}
        }
        if self.depth > 0 && matches!(origin, Origin::File(_)) {
            // Within a command, which reports it.
            log::debug!("{error}");
            return false;
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
            Origin::File(path) => {
                log::warn!("{error}");
                // The report is for whoever looks at the console; the log has the reason already.
                let _ = check_rdb::check_file(path, &mut io::stdout().lock());
                true
            }
        }
    }

    /// Loads a snapshot file. Errors are logged; one that leaves the data set in pieces ends the process.
    pub(crate) fn load_rdb_file(&mut self, path: &Path, options: LoadOptions) -> Result<LoadedRepl, LoadError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(LoadError::NotFound),
            Err(e) => {
                log::warn!("Fatal error: can't open the RDB file {} for reading: {}", path.display(), reason(&e));
                return Err(LoadError::Open);
            }
        };
        let size = file.metadata().map_or(0, |m| m.len());
        self.start_loading(size, false);
        let result = self.load_snapshot(BufReader::with_capacity(1 << 18, file), options, None, None);
        self.stop_loading();
        match result {
            Ok((repl, source)) => {
                let file = source.into_inner();
                self.background.files.submit(move || crate::persist::snapshot::drop_page_cache(&file));
                Ok(repl)
            }
            Err(e) => {
                if self.log_load_error(&e, Origin::File(path)) {
                    std::process::exit(1);
                }
                Err(LoadError::Rdb)
            }
        }
    }

    /// Loads the data set when the server starts and opens the log. `Err` ends the server.
    pub(crate) fn load_at_start(&mut self) -> Result<(), Logged> {
        self.persist.aof.manifest = self.persist.aof.dir.load_manifest().map_err(|e| {
            e.log_fatal();
            Logged
        })?;
        self.load_data_from_disk()?;
        if self.exit.is_none() {
            self.open_aof_on_start()?;
            self.remove_aof_history();
        }
        Ok(())
    }

    fn load_data_from_disk(&mut self) -> Result<(), Logged> {
        use crate::persist::state::AofState;
        let start = Instant::now();
        if self.persist.aof.state == AofState::On {
            let loaded = self.load_aof_files();
            return match loaded {
                // Told to stop: the rest of the data is not wanted.
                _ if self.exit.is_some() => Ok(()),
                crate::server::persist::aof::load::AofLoaded::Failed => Err(Logged),
                crate::server::persist::aof::load::AofLoaded::Nothing => Ok(()),
                crate::server::persist::aof::load::AofLoaded::Empty
                | crate::server::persist::aof::load::AofLoaded::Loaded => {
                    log::info!("DB loaded from append only file: {:.3} seconds", start.elapsed().as_secs_f64());
                    Ok(())
                }
            };
        }
        let replica = self.is_replica();
        let options = LoadOptions { keep_expired: replica, feed_replicas: !replica, ..LoadOptions::default() };
        self.repl_before_startup_load();
        let path = Path::new(&self.cfg.dbfilename).to_path_buf();
        match self.load_rdb_file(&path, options) {
            Ok(repl) => {
                log::info!("DB loaded from disk: {:.3} seconds", start.elapsed().as_secs_f64());
                self.repl_after_startup_load(Some(repl));
                Ok(())
            }
            Err(LoadError::NotFound) => {
                self.repl_after_startup_load(None);
                Ok(())
            }
            Err(_) if self.exit.is_some() => Ok(()),
            Err(_) => {
                log::warn!("Fatal error loading the DB, check server logs. Exiting.");
                Err(Logged)
            }
        }
    }

    /// DEBUG RELOAD: `save`, then `flush`, then load. `Err` is the text of the reply.
    pub(crate) fn debug_reload(&mut self, save: bool, flush: bool, merge: bool) -> Result<(), &'static str> {
        if save && !self.save_rdb(false) {
            return Err("ERR");
        }
        if flush {
            self.ks.flush(None, false);
            self.script.libraries.clear();
        }
        let options =
            LoadOptions { allow_duplicates: merge, keep_expired: self.is_replica(), ..LoadOptions::default() };
        let path = Path::new(&self.cfg.dbfilename).to_path_buf();
        self.load_rdb_file(&path, options).map_err(|_| "ERR Error trying to load the RDB dump, check server logs.")?;
        log::info!("DB reloaded by DEBUG RELOAD");
        Ok(())
    }

    /// DEBUG LOADAOF. `Err` is the text of the reply.
    pub(crate) fn debug_load_aof(&mut self) -> Result<(), &'static str> {
        const FAILED: &str = "ERR Error trying to load the AOF files, check server logs.";
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
        match self.load_aof_files() {
            crate::server::persist::aof::load::AofLoaded::Loaded
            | crate::server::persist::aof::load::AofLoaded::Empty => {
                // Nothing of this is to be propagated.
                self.ks.effects.dirty = 0;
                log::info!("Append Only File loaded by DEBUG LOADAOF");
                Ok(())
            }
            crate::server::persist::aof::load::AofLoaded::Nothing
            | crate::server::persist::aof::load::AofLoaded::Failed => Err(FAILED),
        }
    }
}
