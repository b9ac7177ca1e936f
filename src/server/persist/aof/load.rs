//! Replaying the append-only log.
//!
//! Commands run for a client without a connection. Every file but the last must be whole; the last may end in the middle
//! of a command (the machine went down while it was written), and is then cut there if `aof-load-truncated` says so.

use crate::catalog::table::Resolved;
use crate::net::ClientId;
use crate::persist::aof::manifest::{reason, shown};
use crate::persist::aof::reader::{AofReader, ReadError, Record, ValidUpTo};
use crate::persist::load::{LoadOptions, Origin};
use crate::persist::snapshot::debug_delay;
use crate::resp::OwnedArgs;
use crate::server::Server;
use crate::server::clients::ClientFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::time::Instant;

/// How loading the log ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AofLoaded {
    Loaded,
    /// All its files are empty.
    Empty,
    /// There is no log.
    Nothing,
    /// Logged; the data set is incomplete.
    Failed,
}

/// How loading one file ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FileLoaded {
    Whole,
    /// Cut after the last whole command.
    Truncated,
    Empty,
    Failed,
}

/// Commands replayed between two looks at the clients.
const COMMANDS_PER_LOOK: u64 = 1024;

impl Server {
    /// Loads the files the manifest names.
    pub(crate) fn load_aof_files(&mut self) -> AofLoaded {
        let dir = self.persist.aof.dir.clone();
        if dir.needs_upgrade(&self.persist.aof.manifest) && dir.upgrade(&mut self.persist.aof.manifest).is_err() {
            std::process::exit(1);
        }
        let manifest = self.persist.aof.manifest.clone();
        if manifest.is_empty() {
            return AofLoaded::Nothing;
        }
        let mut total = 0;
        for file in manifest.live_files() {
            match dir.file_size(&file.name) {
                Ok(size) => total += size,
                Err(_) => return AofLoaded::Failed,
            }
        }
        if total == 0 {
            return AofLoaded::Empty;
        }
        self.start_loading(total, false);
        let policy = std::mem::replace(&mut self.ks.expire_policy, crate::keyspace::ExpirePolicy::Ignore);
        let client = self.add_aof_client();
        let count = manifest.live_files().count();
        let mut loaded_before = 0;
        let mut ok = true;
        for (i, file) in manifest.live_files().enumerate() {
            let is_base = i == 0 && manifest.base.is_some();
            let is_last = i + 1 == count;
            let start = Instant::now();
            let size = dir.file_size(&file.name).unwrap_or(0);
            let result = self.load_aof_file(client, &file.name, loaded_before);
            loaded_before += size;
            match result {
                FileLoaded::Whole | FileLoaded::Truncated if is_last || result == FileLoaded::Whole => log::info!(
                    "DB loaded from {} file {}: {:.3} seconds",
                    if is_base { "base" } else { "incr" },
                    shown(&file.name),
                    start.elapsed().as_secs_f64()
                ),
                FileLoaded::Empty => {}
                FileLoaded::Whole | FileLoaded::Truncated => {
                    log::warn!("Fatal error: the truncated file is not the last file");
                    ok = false;
                }
                FileLoaded::Failed => ok = false,
            }
            if !ok || self.exit.is_some() {
                break;
            }
        }
        self.drop_aof_client(client);
        self.ks.expire_policy = policy;
        self.stop_loading();
        if !ok {
            return AofLoaded::Failed;
        }
        self.persist.aof.current_size = total;
        // What the last rewrite left is not recorded anywhere; the base is the part of it that is known.
        self.persist.aof.rewrite_base_size =
            manifest.base.as_ref().and_then(|b| dir.file_size(&b.name).ok()).unwrap_or(0);
        AofLoaded::Loaded
    }

    fn add_aof_client(&mut self) -> ClientId {
        let id = self.clients.add(None, self.clock.ms());
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.add(ClientFlags::AOF.union(ClientFlags::DENY_BLOCKING).union(ClientFlags::AUTHENTICATED));
        }
        id
    }

    fn drop_aof_client(&mut self, id: ClientId) {
        self.discard_transaction(id);
        self.clients.remove(id);
    }

    fn load_aof_file(&mut self, client: ClientId, name: &[u8], loaded_before: u64) -> FileLoaded {
        let dir = self.persist.aof.dir.clone();
        let path = dir.path(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                log::warn!("The append log file {} doesn't exist: {}", shown(name), reason(&e));
                return FileLoaded::Failed;
            }
            Err(e) => {
                log::warn!("Fatal error: can't open the append log file {} for reading: {}", shown(name), reason(&e));
                return FileLoaded::Failed;
            }
        };
        let size = file.metadata().map_or(0, |m| m.len());
        if size == 0 {
            return FileLoaded::Empty;
        }
        let mut source = BufReader::with_capacity(1 << 18, file);
        let mut offset = 0;
        let starts_with_rdb = source.fill_buf().is_ok_and(|head| head.starts_with(b"REDIS"));
        if starts_with_rdb {
            let old_style = name == self.persist.aof.dir.filename;
            log::info!(
                "{}",
                if old_style {
                    "Reading RDB preamble from AOF file..."
                } else {
                    "Reading RDB base file on AOF loading..."
                }
            );
            let options = LoadOptions { keep_expired: true, ..LoadOptions::default() };
            match self.load_snapshot(source, options, None, None) {
                Ok((_, mut rest)) => {
                    use std::io::Seek;
                    offset = rest.stream_position().unwrap_or(0);
                    source = rest;
                    if old_style {
                        log::info!("Reading the remaining AOF tail...");
                    }
                }
                Err(e) => {
                    if self.log_load_error(&e, Origin::File(&path)) {
                        std::process::exit(1);
                    }
                    let what = if old_style { "RDB preamble of the AOF file" } else { "RDB base file" };
                    log::warn!("Error reading the {what} {}, AOF loading aborted", shown(name));
                    return FileLoaded::Failed;
                }
            }
        }
        self.replay(client, source, offset, name, &path, loaded_before)
    }

    fn replay(
        &mut self,
        client: ClientId,
        source: BufReader<File>,
        offset: u64,
        name: &[u8],
        path: &Path,
        loaded_before: u64,
    ) -> FileLoaded {
        if let Some(c) = self.clients.get_mut(client) {
            c.db = 0;
        }
        let mut reader = AofReader::new(source, offset);
        // As Redis has it, a preamble alone is not yet a whole command.
        let mut valid = ValidUpTo::default();
        let mut args = OwnedArgs::default();
        let mut records = 0;
        let end = loop {
            if records % COMMANDS_PER_LOOK == 0 && self.loading_progress(loaded_before + reader.offset()).is_break() {
                return FileLoaded::Whole;
            }
            records += 1;
            match reader.next_record() {
                Ok(Record::End) => break None,
                Ok(Record::Annotation) => continue,
                Ok(Record::Command) => {}
                Err(e) => break Some(e),
            }
            args.clear();
            reader.args().for_each(|arg| args.push(arg));
            let name_arg = args.as_args().at(0);
            valid.on_command(name_arg);
            if !self.replay_command(client, &args, name) {
                return FileLoaded::Failed;
            }
            valid.on_done(reader.offset());
            debug_delay(self.cfg.key_load_delay);
        };
        let in_multi = self.clients.get(client).is_some_and(|c| c.is(ClientFlags::MULTI));
        match end {
            None if !in_multi => return FileLoaded::Whole,
            None => {
                log::warn!("Revert incomplete MULTI/EXEC transaction in AOF file {}", shown(name));
                valid.command = valid.before_multi;
            }
            Some(ReadError::Truncated) if in_multi => valid.command = valid.before_multi,
            Some(ReadError::Truncated) => {}
            Some(ReadError::Io(e)) => {
                log::warn!("Unrecoverable error reading the append only file {}: {}", shown(name), reason(&e));
                return FileLoaded::Failed;
            }
            Some(ReadError::Format) => {
                log::warn!(
                    "Bad file format reading the append only file {}: make a backup of your AOF file, then use \
                     ./redis-check-aof --fix <filename.manifest>",
                    shown(name)
                );
                return FileLoaded::Failed;
            }
        }
        self.discard_transaction(client);
        if self.cfg.aof_load_truncated && cut(name, path, valid.command.max(offset)) {
            return FileLoaded::Truncated;
        }
        log::warn!(
            "Unexpected end of file reading the append only file {}. You can: 1) Make a backup of your AOF file, then use \
             ./redis-check-aof --fix <filename.manifest>. 2) Alternatively you can set the 'aof-load-truncated' \
             configuration option to yes and restart the server.",
            shown(name)
        );
        FileLoaded::Failed
    }

    /// Runs or queues one command of the log. False when there is no such command.
    fn replay_command(&mut self, client: ClientId, args: &OwnedArgs, file: &[u8]) -> bool {
        let args = args.as_args();
        let Resolved::Found(cmd) = self.commands.resolve(args.at(0), args.get(1)) else {
            log::warn!(
                "Unknown command '{}' reading the append only file {}",
                String::from_utf8_lossy(args.at(0)),
                shown(file)
            );
            return false;
        };
        self.run_of_log(client, cmd, args);
        true
    }
}

/// Shortens a file to its last whole command. Logs what it does and what fails.
fn cut(name: &[u8], path: &Path, valid_up_to: u64) -> bool {
    let name = shown(name);
    log::warn!("!!! Warning: short read while loading the AOF file {name}!!!");
    log::warn!("!!! Truncating the AOF {name} at offset {valid_up_to} !!!");
    let result = OpenOptions::new().write(true).open(path).and_then(|file| {
        file.set_len(valid_up_to)?;
        file.sync_all()
    });
    match result {
        Ok(()) => {
            log::warn!("AOF {name} loaded anyway because aof-load-truncated is enabled");
            true
        }
        Err(e) => {
            log::warn!("Error truncating the AOF file {name}: {}", reason(&e));
            false
        }
    }
}
