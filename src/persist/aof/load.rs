//! The files of the log on their way into memory, one record at a time.
//!
//! Every file but the last must be whole; the last may end in the middle of a command (the machine went down while it was
//! written), and is then cut there if `aof-load-truncated` says so. A file may begin with a snapshot. The commands are run by
//! the caller.

use super::manifest::{AofDir, Manifest, reason, shown};
use super::reader::{AofReader, ReadError, Record, ValidUpTo};
use crate::persist::loading::{Asks, Counts, Env, How, Slice, SnapshotLoad, Step};
use crate::persist::rdb::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};
use std::time::Instant;

type FileSource = BufReader<File>;

/// Why there is nothing to load of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLoad {
    /// All its files are empty.
    Empty,
    /// There is no log.
    Missing,
    /// A file of it is missing.
    Failed,
}

/// How a load goes on.
#[derive(Debug)]
pub(crate) enum AofStep {
    /// The slice is used up.
    Pause,
    /// A command is to be run: its arguments are [`AofLoad::args`]. Then comes [`AofLoad::command_done`].
    Command,
    /// The file ends here. Then comes [`AofLoad::end_file`].
    FileEnds(Option<ReadError>),
    /// The snapshot that a file begins with asks for something.
    Asks(Asks),
    /// That snapshot cannot be read.
    BadSnapshot(Error),
    Done,
    /// Logged.
    Failed,
}

/// A file that is yet to be loaded.
#[derive(Debug)]
struct ToLoad {
    name: Vec<u8>,
    is_base: bool,
}

enum Phase {
    Snapshot(Box<SnapshotLoad<FileSource>>),
    Commands(AofReader<FileSource>),
}

/// The file being loaded.
struct Current {
    file: ToLoad,
    path: PathBuf,
    size: u64,
    began: Instant,
    phase: Phase,
    /// Where its commands begin.
    commands_at: u64,
    /// As Redis has it, a preamble alone is not yet a whole command.
    valid: ValidUpTo,
}

/// See the module's description.
pub(crate) struct AofLoad {
    dir: AofDir,
    how: How,
    /// Last one first.
    to_load: Vec<ToLoad>,
    current: Option<Current>,
    total: u64,
    base_size: u64,
    /// Bytes of the files before the current one.
    before: u64,
    counts: Counts,
}

impl AofLoad {
    /// Of the files that a manifest names; or how it ends at once.
    pub(crate) fn new(dir: &AofDir, manifest: &Manifest, how: How) -> Result<AofLoad, NoLoad> {
        if manifest.is_empty() {
            return Err(NoLoad::Missing);
        }
        let mut load = AofLoad {
            dir: dir.clone(),
            how,
            to_load: Vec::new(),
            current: None,
            total: 0,
            base_size: 0,
            before: 0,
            counts: Counts::default(),
        };
        for (i, file) in manifest.live_files().enumerate() {
            let size = dir.file_size(&file.name).map_err(|_| NoLoad::Failed)?;
            let is_base = i == 0 && manifest.base.is_some();
            load.total += size;
            if is_base {
                load.base_size = size;
            }
            load.to_load.insert(0, ToLoad { name: file.name.clone(), is_base });
        }
        if load.total == 0 { Err(NoLoad::Empty) } else { Ok(load) }
    }

    pub(crate) fn total_bytes(&self) -> u64 {
        self.total
    }

    pub(crate) fn base_bytes(&self) -> u64 {
        self.base_size
    }

    pub(crate) fn loaded_bytes(&self) -> u64 {
        self.before + self.offset()
    }

    /// Where the current file is being read.
    pub(crate) fn offset(&self) -> u64 {
        match self.current.as_ref().map(|current| &current.phase) {
            None => 0,
            Some(Phase::Snapshot(load)) => load.offset(),
            Some(Phase::Commands(reader)) => reader.offset(),
        }
    }

    /// Of the snapshot at the beginning.
    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// Name and path of the file being loaded.
    pub(crate) fn file(&self) -> (&[u8], &Path) {
        self.current.as_ref().map_or((b"", Path::new("")), |current| (&current.file.name, &current.path))
    }

    /// Arguments of the command to be run.
    pub(crate) fn args(&self) -> impl Iterator<Item = &[u8]> {
        let reader = match self.current.as_ref().map(|current| &current.phase) {
            Some(Phase::Commands(reader)) => Some(reader),
            _ => None,
        };
        reader.into_iter().flat_map(AofReader::args)
    }

    /// What was read of the current file and not given out yet, if it stands where commands begin.
    pub(crate) fn buffered(&mut self) -> &[u8] {
        match self.current.as_mut().map(|current| &mut current.phase) {
            Some(Phase::Commands(reader)) => reader.buffered(),
            _ => &[],
        }
    }

    /// So many bytes of what was buffered were whole commands, none of which begins or ends a transaction, and have been run.
    pub(crate) fn ran(&mut self, bytes: usize) {
        if let Some(Current { phase: Phase::Commands(reader), .. }) = &mut self.current {
            reader.consume(bytes);
        }
        self.command_done();
    }

    /// Goes on.
    pub(crate) fn step(&mut self, env: &mut Env<'_>, slice: &mut Slice) -> AofStep {
        loop {
            let Some(current) = &mut self.current else {
                let Some(file) = self.to_load.pop() else { return AofStep::Done };
                match self.open(file) {
                    Ok(()) => continue,
                    Err(()) => return AofStep::Failed,
                }
            };
            match &mut current.phase {
                Phase::Commands(reader) => {
                    if slice.is_over(reader.offset()) {
                        return AofStep::Pause;
                    }
                    match reader.next_record() {
                        Ok(Record::Annotation) => {}
                        Ok(Record::End) => return AofStep::FileEnds(None),
                        Err(e) => return AofStep::FileEnds(Some(e)),
                        Ok(Record::Command) => {
                            let name = reader.args().next().unwrap_or_default();
                            current.valid.on_command(name);
                            return AofStep::Command;
                        }
                    }
                }
                Phase::Snapshot(load) => {
                    let step = load.step(env, slice);
                    self.counts = load.counts();
                    match step {
                        // Regular files never keep their readers waiting.
                        Ok(Step::Pause | Step::Starved) => return AofStep::Pause,
                        Ok(Step::Asks(asks)) => return AofStep::Asks(asks),
                        Err(e) => return AofStep::BadSnapshot(e),
                        Ok(Step::Done(_)) => self.begin_commands(),
                    }
                }
            }
        }
    }

    /// Goes on with the next file, unless that is empty. `Err`: logged.
    fn open(&mut self, file: ToLoad) -> Result<(), ()> {
        let path = self.dir.path(&file.name);
        let name = shown(&file.name);
        let opened = File::open(&path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => log::warn!("The append log file {name} doesn't exist: {}", reason(&e)),
            _ => log::warn!("Fatal error: can't open the append log file {name} for reading: {}", reason(&e)),
        })?;
        let size = opened.metadata().map_or(0, |m| m.len());
        if size == 0 {
            return Ok(());
        }
        let mut source = BufReader::with_capacity(1 << 18, opened);
        let phase = if source.fill_buf().is_ok_and(|head| head.starts_with(b"REDIS")) {
            log::info!(
                "{}",
                if self.is_old_style(&file.name) {
                    "Reading RDB preamble from AOF file..."
                } else {
                    "Reading RDB base file on AOF loading..."
                }
            );
            Phase::Snapshot(Box::new(SnapshotLoad::new(source, &self.how)))
        } else {
            Phase::Commands(AofReader::new(source, 0))
        };
        let (began, valid) = (Instant::now(), ValidUpTo::default());
        self.current = Some(Current { file, path, size, began, phase, commands_at: 0, valid });
        Ok(())
    }

    /// One file that holds everything, as old versions wrote it.
    fn is_old_style(&self, name: &[u8]) -> bool {
        name == self.dir.filename
    }

    /// The snapshot that the current file begins with is loaded.
    fn begin_commands(&mut self) {
        let Some(Current { phase: Phase::Snapshot(load), file, path, size, began, valid, .. }) = self.current.take()
        else {
            return;
        };
        if self.is_old_style(&file.name) {
            log::info!("Reading the remaining AOF tail...");
        }
        let mut source = load.into_source();
        let commands_at = source.stream_position().unwrap_or(0);
        let phase = Phase::Commands(AofReader::new(source, commands_at));
        self.current = Some(Current { file, path, size, began, phase, commands_at, valid });
    }

    /// The snapshot that the current file begins with could not be loaded, which is logged: so is what that means.
    pub(crate) fn log_bad_snapshot(&self) {
        let (name, _) = self.file();
        let what = if self.is_old_style(name) { "RDB preamble of the AOF file" } else { "RDB base file" };
        log::warn!("Error reading the {what} {}, AOF loading aborted", shown(name));
    }

    /// The command that was given out has been run.
    pub(crate) fn command_done(&mut self) {
        let offset = self.offset();
        if let Some(current) = &mut self.current {
            current.valid.on_done(offset);
        }
    }

    /// Ends the current file, which `end` says how; `in_multi`: within a transaction. Cuts its end off if that is broken and
    /// `may_cut`. False, logged: the data set is incomplete.
    pub(crate) fn end_file(&mut self, end: Option<ReadError>, in_multi: bool, may_cut: bool) -> bool {
        let Some(current) = self.current.take() else { return false };
        self.before += current.size;
        let name = shown(&current.file.name);
        let is_broken = end.is_some() || in_multi;
        if is_broken && !current.mend(end, in_multi, may_cut) {
            return false;
        }
        if is_broken && !self.to_load.is_empty() {
            log::warn!("Fatal error: the truncated file is not the last file");
            return false;
        }
        log::info!(
            "DB loaded from {} file {name}: {:.3} seconds",
            if current.file.is_base { "base" } else { "incr" },
            current.began.elapsed().as_secs_f64()
        );
        true
    }
}

impl Current {
    /// Cuts off what is broken at the end, if that may be. What it does, or why it does not, is logged.
    fn mend(&self, end: Option<ReadError>, in_multi: bool, may_cut: bool) -> bool {
        let name = shown(&self.file.name);
        match end {
            None => log::warn!("Revert incomplete MULTI/EXEC transaction in AOF file {name}"),
            Some(ReadError::Truncated) => {}
            Some(ReadError::Io(e)) => {
                log::warn!("Unrecoverable error reading the append only file {name}: {}", reason(&e));
                return false;
            }
            Some(ReadError::Format) => {
                log::warn!(
                    "Bad file format reading the append only file {name}: make a backup of your AOF file, then use \
                     ./redis-check-aof --fix <filename.manifest>"
                );
                return false;
            }
        }
        let valid_up_to = if in_multi { self.valid.before_multi } else { self.valid.command };
        if may_cut && cut(&self.file.name, &self.path, valid_up_to.max(self.commands_at)) {
            return true;
        }
        log::warn!(
            "Unexpected end of file reading the append only file {name}. You can: 1) Make a backup of your AOF file, then use \
             ./redis-check-aof --fix <filename.manifest>. 2) Alternatively you can set the 'aof-load-truncated' \
             configuration option to yes and restart the server."
        );
        false
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
