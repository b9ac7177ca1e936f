//! A snapshot on its way into databases, a slice at a time.
//!
//! `SnapshotLoad` reads items and puts keys where they belong until its slice is used up, its source has nothing more for the
//! moment, or something comes up that only the server can do. Called again, it goes on where it stood. It keeps all that the
//! load needs between two slices; what others may do in between does not concern it, as long as nobody else writes to the
//! databases it fills.

use super::load::{LoadOptions, LoadedRepl, SLOT_IMPORT, SLOT_TASK, loaded_entry, new_value, parse_number};
use super::rdb::{Ahead, Error, ErrorKind, Item, KeyItem, Reader, Source, Value};
use super::snapshot::debug_delay;
use crate::config::{Config, SanitizeDumpPayload};
use crate::keyspace::object::ValueLimits;
use crate::keyspace::{Db, Entry, Keyspace, Place};
use crate::sys::clock::Clock;
use std::time::{Duration, Instant};

/// How long others wait for a load at once: their next turn comes when a slice has taken so long.
pub(crate) const SLICE_TIME: Duration = Duration::from_millis(2);
/// Bytes between two looks at the clock.
const LOOK_EVERY_BYTES: u64 = 8 << 10;

/// How much is done before others have their turn: something at least.
#[derive(Debug)]
pub(crate) struct Slice {
    look_at: u64,
    end: u64,
    until: Instant,
}

impl Slice {
    /// From `offset` on: so many bytes (0: any number), so much time.
    pub(crate) fn new(offset: u64, bytes: u64, time: Duration) -> Slice {
        let end = if bytes == 0 { u64::MAX } else { offset.saturating_add(bytes) };
        Slice { look_at: offset + 1, end, until: Instant::now() + time }
    }

    /// Whether that is done, having come to `offset`.
    #[inline]
    pub(crate) fn is_over(&mut self, offset: u64) -> bool {
        if offset < self.look_at {
            return false;
        }
        self.look_at = self.end.min(offset + LOOK_EVERY_BYTES);
        offset >= self.end || self.is_late()
    }

    /// Whether the time is over.
    pub(crate) fn is_late(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Has the clock looked at: what was done last may have taken long.
    pub(crate) fn look(&mut self) {
        self.look_at = 0;
    }
}

/// What a load works on besides its own state.
pub(crate) struct Env<'a> {
    pub(crate) ks: &'a mut Keyspace,
    /// The databases to fill, when they are not those being served.
    pub(crate) aside: Option<&'a mut [Db]>,
    /// Tells the age of a snapshot, for the log.
    pub(crate) clock: &'a Clock,
    /// `key-load-delay`.
    pub(crate) delay_us: i64,
}

/// How a snapshot is to be read and taken in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How {
    pub(crate) options: LoadOptions,
    checksum: bool,
    /// Packed collections are searched for damage.
    deep: bool,
    limits: ValueLimits,
    /// The time by which keys have expired, Unix ms: that at which the load began.
    now_ms: i64,
}

impl How {
    pub(crate) fn new(options: LoadOptions, cfg: &Config, ks: &Keyspace, skip_checksum: bool, now_ms: i64) -> How {
        How {
            options,
            checksum: cfg.rdbchecksum && !skip_checksum,
            deep: cfg.sanitize_dump_payload == SanitizeDumpPayload::Yes,
            limits: ValueLimits::of(cfg, ks),
            now_ms,
        }
    }
}

/// What only the server can do. The load may go on when it is done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// To load a library of functions; a refusal is the end of the load.
    Library(Vec<u8>),
    /// To have the replicas delete a key that was left out because its time has come.
    Expired { db: usize, key: Vec<u8> },
    /// To end: there is no such database.
    NoSuchDb,
}

/// How a load goes on.
#[derive(Debug)]
pub(crate) enum Step {
    /// The slice is used up.
    Pause,
    /// The source has no more for the moment.
    Starved,
    Asks(Asks),
    Done(LoadedRepl),
}

/// Numbers of a load for those who watch it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) keys: u64,
    pub(crate) expired: u64,
    /// Keys of empty collections, which no server stores; old ones wrote them.
    empty: u64,
    /// Memory the data set took where it was saved.
    pub(crate) used_mem: u64,
}

/// See the module's description.
pub(crate) struct SnapshotLoad<S: Source> {
    reader: Reader<S>,
    how: How,
    db: usize,
    ahead: Ahead,
    counts: Counts,
    position: LoadedRepl,
}

impl<S: Source> SnapshotLoad<S> {
    pub(crate) fn new(source: S, how: &How) -> SnapshotLoad<S> {
        SnapshotLoad {
            reader: Reader::new(source, how.checksum).deep(how.deep).limits(&how.limits),
            how: *how,
            db: 0,
            ahead: Ahead::new(0),
            counts: Counts::default(),
            position: LoadedRepl::default(),
        }
    }

    /// Bytes read so far.
    pub(crate) fn offset(&self) -> u64 {
        self.reader.offset()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    pub(crate) fn options(&self) -> LoadOptions {
        self.how.options
    }

    /// The source, standing after the last byte read.
    pub(crate) fn source_mut(&mut self) -> &mut S {
        self.reader.source_mut()
    }

    /// The source, standing after the last byte read.
    pub(crate) fn into_source(self) -> S {
        self.reader.into_source()
    }

    /// Goes on for a slice. After `Done` or an error there is nothing more to ask for.
    pub(crate) fn step(&mut self, env: &mut Env<'_>, slice: &mut Slice) -> Result<Step, Error> {
        loop {
            match self.reader.next_item()? {
                Item::Part => slice.look(),
                Item::Starved => return Ok(Step::Starved),
                Item::Key(item) => {
                    let expired = item.expire_ms.is_some_and(|at| at < self.how.now_ms);
                    if !expired || self.how.options.keep_expired {
                        self.take_in(item, env)?;
                    } else {
                        self.counts.expired += 1;
                        let gone = Asks::Expired { db: self.db, key: item.key.clone() };
                        self.free(item, env);
                        if self.how.options.feed_replicas {
                            return Ok(Step::Asks(gone));
                        }
                    }
                    if env.delay_us != 0 {
                        debug_delay(env.delay_us);
                        slice.look();
                    }
                }
                Item::Aux { key, value } => self.note_aux(&key, &value, env.clock),
                Item::Function(code) => return Ok(Step::Asks(Asks::Library(code))),
                Item::SelectDb(number) => {
                    if number >= env.ks.dbs.len() as u64 {
                        return Ok(Step::Asks(Asks::NoSuchDb));
                    }
                    self.db = number as usize;
                    self.ahead = Ahead::new(0);
                }
                Item::ResizeDb { keys, .. } => self.ahead = Ahead::new(keys),
                Item::End { checksum_disabled } => {
                    self.log_end(checksum_disabled);
                    return Ok(Step::Done(std::mem::take(&mut self.position)));
                }
            }
            if slice.is_over(self.reader.offset()) {
                return Ok(Step::Pause);
            }
        }
    }

    /// Puts a key into its database.
    #[inline]
    fn take_in(&mut self, item: KeyItem, env: &mut Env<'_>) -> Result<(), Error> {
        match &item.value {
            Value::Damaged(damaged) => env.ks.note_damaged(&item.key, damaged),
            Value::Empty => {
                // A few are worth a line each.
                self.counts.empty += 1;
                if self.counts.empty <= 10 {
                    log::info!("rdbLoadObject skipping empty key: {}", String::from_utf8_lossy(&item.key));
                }
            }
            _ => {}
        }
        let Some(entry) = loaded_entry(&env.ks.access, item, &self.how.limits, &mut self.reader) else {
            return Ok(());
        };
        let dbs = match &mut env.aside {
            Some(dbs) => &mut **dbs,
            None => &mut env.ks.dbs[..],
        };
        let db = &mut dbs[self.db];
        if let Some(len) = self.ahead.next(db.len() as u64) {
            db.reserve(len);
        }
        let hash = db.hash(entry.key());
        let replacing = match db.place(hash, entry.key()) {
            Place::Vacant(place) => {
                place.insert(entry);
                None
            }
            Place::Occupied(old) if self.how.options.allow_duplicates => {
                drop(old.remove());
                Some(entry)
            }
            Place::Occupied(_) => {
                let key = String::from_utf8_lossy(entry.key());
                log::warn!("RDB has duplicated key '{key}' in DB {}", self.db);
                return Err(Error::new(
                    self.reader.offset(),
                    ErrorKind::Corrupt("Duplicated key found in RDB file".into()),
                ));
            }
        };
        if let Some(entry) = replacing {
            db.insert_new_hashed(hash, entry);
        }
        self.counts.keys += 1;
        Ok(())
    }

    /// Frees a value that is not taken in. A large one would hold up the loop.
    #[cold]
    fn free(&self, item: KeyItem, env: &mut Env<'_>) {
        if !matches!(item.value, Value::String(_))
            && let Some(value) = new_value(item.value, &self.how.limits)
        {
            env.ks.effects.free(Entry::new(&item.key, value, None), false);
        }
    }

    fn note_aux(&mut self, key: &[u8], value: &[u8], clock: &Clock) {
        let text = String::from_utf8_lossy(value);
        if key.first() == Some(&b'%') {
            log::info!("RDB '{}': {text}", String::from_utf8_lossy(key));
            return;
        }
        let position = &mut self.position;
        match &*key.to_ascii_lowercase() {
            b"repl-stream-db" => position.stream_db = parse_number(value),
            b"repl-id" if value.len() == 40 => position.id = Some(value.to_vec()),
            b"repl-offset" => position.offset = parse_number(value),
            name if name == SLOT_IMPORT || name == SLOT_TASK => position.imports.push(value.to_vec()),
            b"redis-ver" => log::info!("Loading RDB produced by version {text}"),
            b"ctime" => {
                let age = clock.ms() / 1000 - parse_number(value).unwrap_or(0);
                log::info!("RDB age {} seconds", age.max(0));
            }
            b"used-mem" => {
                let bytes = parse_number(value).unwrap_or(0).max(0);
                log::info!("RDB memory usage when created {:.2} Mb", bytes as f64 / (1024.0 * 1024.0));
                self.counts.used_mem = bytes as u64;
            }
            b"aof-preamble" if parse_number(value).is_some_and(|n| n != 0) => log::info!("RDB has an AOF tail"),
            b"aof-base" if parse_number(value).is_some_and(|n| n != 0) => log::info!("RDB is base AOF"),
            b"repl-id" | b"aof-preamble" | b"aof-base" | b"redis-bits" | b"lua" => {}
            _ => log::trace!("Unrecognized RDB AUX field: '{}'", String::from_utf8_lossy(key)),
        }
    }

    fn log_end(&self, checksum_disabled: bool) {
        if checksum_disabled {
            log::info!("RDB file was saved with checksum disabled: no check performed.");
        }
        let Counts { keys, expired, empty, .. } = self.counts;
        if empty > 0 {
            log::info!("Done loading RDB, keys loaded: {keys}, keys expired: {expired}, empty keys skipped: {empty}.");
        } else {
            log::info!("Done loading RDB, keys loaded: {keys}, keys expired: {expired}.");
        }
    }
}
