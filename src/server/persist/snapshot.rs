//! Writing the data set: as a snapshot or as commands, to a file or to any other sink.
//!
//! Works on a server that does not change meanwhile: in a child process, or in the loop's thread for SAVE.

use crate::config::MaxmemoryPolicy;
use crate::persist::as_commands::{Place, put_entry};
use crate::persist::child::Reporter;
use crate::persist::load::{SLOT_IMPORT, SLOT_TASK};
use crate::persist::rdb::{AuxInfo, Writer};
use crate::persist::snapshot::{FLUSH_AT, SnapshotOptions, debug_delay, now_s, value_view};
use crate::resp::encode::put_command;
use crate::server::Server;
use crate::sys::alloc;
use crate::sys::build::REDIS_VERSION;
use std::io::{self, Write};

impl Server {
    /// Writes a snapshot to `out` and returns it flushed. `reporter` hears of progress.
    pub(crate) fn write_snapshot<W: Write>(
        &self,
        out: W,
        options: &SnapshotOptions,
        mut reporter: Option<&mut Reporter>,
    ) -> io::Result<W> {
        let mut writer = Writer::new(out, self.cfg.rdbchecksum, self.cfg.rdbcompression);
        self.write_preface(&mut writer, options)?;
        if options.exclude_data {
            return writer.finish();
        }
        use MaxmemoryPolicy as P;
        let policy = self.cfg.maxmemory_policy;
        let with_idle = matches!(policy, P::AllkeysLru | P::VolatileLru);
        let with_freq = matches!(policy, P::AllkeysLfu | P::VolatileLfu);
        let mut keys = 0;
        let trimmed = self.slots_trimmed();
        for (number, db) in self.ks.dbs.iter().enumerate() {
            if db.is_empty() {
                continue;
            }
            writer.select_db(number as u64, db.len() as u64, db.expires_len() as u64)?;
            for entry in db.iter_besides(&trimmed) {
                if let Some(at_ms) = entry.expire_ms() {
                    writer.expire_ms(at_ms);
                }
                if with_idle {
                    writer.idle(u64::from(self.ks.access.idle_seconds(entry.lru())));
                }
                if with_freq {
                    writer.freq(self.ks.access.lfu_counter(entry.lru()) as u8);
                }
                writer.key(entry.key(), value_view(entry))?;
                keys += 1;
                if let Some(reporter) = reporter.as_deref_mut() {
                    reporter.key_done(keys);
                }
                debug_delay(self.cfg.rdb_key_save_delay);
            }
        }
        self.log_skipped("BGSAVE", keys);
        writer.finish()
    }

    /// Writes what stands before the data.
    fn write_preface<W: Write>(&self, writer: &mut Writer<W>, options: &SnapshotOptions) -> io::Result<()> {
        writer.header(&AuxInfo {
            redis_version: REDIS_VERSION,
            ctime_s: now_s(),
            used_memory: alloc::used() as u64,
            repl: options.repl.as_ref(),
            aof_base: options.aof_base,
        })?;
        // The log has commands that say so.
        if !options.aof_base {
            for import in self.imports_text() {
                writer.aux(SLOT_IMPORT, import.as_bytes())?;
            }
            if let Some(task) = self.cluster().and_then(|machine| machine.task_text()) {
                writer.aux(SLOT_TASK, task.as_bytes())?;
            }
        }
        if !options.exclude_functions {
            for library in self.script.libraries.iter() {
                writer.function(&library.code)?;
            }
        }
        Ok(())
    }

    /// Keys that are about to go are no part of what is written.
    fn log_skipped(&self, what: &str, saved: u64) {
        let skipped = (self.ks.total_keys() as u64).saturating_sub(saved);
        if skipped > 0 {
            log::info!("{what} done, {saved} keys saved, {skipped} keys skipped");
        }
    }

    /// Writes a snapshot whose end a reader of a stream can tell: `$EOF:`, 40 random hex digits and a line end before it,
    /// the digits again after it.
    pub(crate) fn write_framed_snapshot<W: Write>(
        &self,
        mut out: W,
        options: &SnapshotOptions,
        reporter: Option<&mut Reporter>,
    ) -> io::Result<W> {
        let mark = crate::server::random_hex_40();
        write!(out, "$EOF:{mark}\r\n")?;
        let mut out = self.write_snapshot(out, options, reporter)?;
        out.write_all(mark.as_bytes())?;
        out.flush()?;
        Ok(out)
    }

    /// Writes the commands that make the data set.
    pub(crate) fn write_commands<W: Write>(&self, mut out: W, mut reporter: Option<&mut Reporter>) -> io::Result<W> {
        let mut buf = Vec::with_capacity(FLUSH_AT + 4096);
        if self.cfg.aof_timestamp_enabled {
            write!(buf, "#TS:{}\r\n", now_s())?;
        }
        for library in self.script.libraries.iter() {
            put_command(&mut buf, &[b"FUNCTION", b"LOAD", &library.code]);
        }
        let mut flush = |buf: &mut Vec<u8>| -> io::Result<bool> {
            if buf.len() >= FLUSH_AT {
                out.write_all(buf)?;
                buf.clear();
            }
            Ok(true)
        };
        let mut keys = 0;
        let trimmed = self.slots_trimmed();
        for (number, db) in self.ks.dbs.iter().enumerate() {
            if db.is_empty() {
                continue;
            }
            put_command(&mut buf, &[b"SELECT", number.to_string().as_bytes()]);
            for entry in db.iter_besides(&trimmed) {
                let mut place = Place::START;
                put_entry(&mut buf, entry, &mut place, usize::MAX, &mut flush)?;
                flush(&mut buf)?;
                keys += 1;
                if let Some(reporter) = reporter.as_deref_mut() {
                    reporter.key_done(keys);
                }
                debug_delay(self.cfg.rdb_key_save_delay);
            }
        }
        self.log_skipped("AOF rewrite", keys);
        out.write_all(&buf)?;
        out.flush()?;
        Ok(out)
    }
}
