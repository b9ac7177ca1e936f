//! What slots hold, on its way to a target: a child writes it as commands into a pipe, and this process hands that on as the
//! target's connection takes it.
//!
//! A child sees the slots as they were at one moment, however large a value is and however long the target takes, and the
//! loop has no more to do with it than to move bytes. To walk the tables on the loop would need no fork, but a write to a
//! value of which a part has been sent would have to wait for the rest, or have it sent anew.

use super::JobId;
use crate::net::Source;
use crate::persist::child::{ChildKind, Reporter};
use crate::persist::snapshot::{FLUSH_AT, debug_delay, put_entry};
use crate::server::Server;
use crate::structs::slots::SlotSet;
use crate::sys::fork::Ended;
use mio::Interest;
use mio::unix::SourceFd;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;

/// Bytes taken from the pipe at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes taken in one turn.
const BYTES_PER_TURN: usize = 1 << 20;
/// No more is taken while so much waits to be sent, bytes.
const MOST_WAITING: usize = 1 << 20;
/// What the pipe is to hold, bytes, so that the child seldom waits.
const PIPE_BYTES: i32 = 1 << 20;

/// A snapshot on its way.
#[derive(Debug)]
pub(super) struct Snapshot {
    job: JobId,
    /// `None` once the end was read.
    reader: Option<File>,
    /// Whether the child did well, once it has ended.
    child_ok: Option<bool>,
}

impl Server {
    /// Has a child write what the slots hold, unless another one is at work.
    pub(super) fn begin_slot_snapshot(&mut self, job: JobId, slots: SlotSet) {
        let Some(bus) = &self.bus else { return };
        if self.has_child() || bus.migrations.snapshot.is_some() {
            return;
        }
        match self.fork_slot_snapshot(&slots) {
            Ok(reader) => {
                self.begin_feed(job, slots);
                if let Some(bus) = &mut self.bus {
                    bus.migrations.snapshot = Some(Snapshot { job, reader: Some(reader), child_ok: None });
                }
                self.with_cluster(|machine, env| machine.on_snapshot_started(job, env));
            }
            Err(e) => {
                log::warn!("Can't begin slot migration snapshot in background: {}", crate::net::listener::reason(&e));
                self.fail_migration(job, "Failed to start snapshot");
            }
        }
    }

    /// Gives the reading end of the pipe.
    fn fork_slot_snapshot(&mut self, slots: &SlotSet) -> io::Result<File> {
        let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // There is a limit for all of a user's pipes; with a smaller one it takes longer.
        let _ = fcntl(&read, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        let parents_end = read.as_raw_fd();
        let pid = self.fork_child(ChildKind::SlotMigration, |server, reporter| {
            // As long as this process has it too, a parent that is gone does not show.
            let _ = nix::unistd::close(parents_end);
            let mut pipe = File::from(write);
            let written = server.write_slots(&mut pipe, slots, reporter);
            // It is closed when this process ends, which the parent then hears of.
            std::mem::forget(pipe);
            written.is_ok()
        })?;
        log::info!("Started child process {pid} for a slot migration");
        let token = Source::SnapshotPipe.token();
        self.reactor.registry().register(&mut SourceFd(&read.as_raw_fd()), token, Interest::READABLE)?;
        Ok(File::from(read))
    }

    /// Writes the commands that make the keys of these slots.
    fn write_slots(&self, out: &mut File, slots: &SlotSet, reporter: &mut Reporter) -> io::Result<()> {
        let mut buf = Vec::with_capacity(FLUSH_AT + 4096);
        let mut keys = 0;
        for entry in slots.iter().flat_map(|slot| self.ks.dbs[0].slot_entries(slot)) {
            put_entry(&mut buf, out, entry)?;
            if buf.len() >= FLUSH_AT {
                out.write_all(&buf)?;
                buf.clear();
            }
            keys += 1;
            reporter.key_done(keys);
            debug_delay(self.cfg.rdb_key_save_delay);
        }
        out.write_all(&buf)
    }

    /// Hands on what the child has written, as far as the target's connection keeps up.
    pub(crate) fn pump_slot_snapshot(&mut self) {
        let mut total = 0;
        loop {
            let Some(bus) = &mut self.bus else { return };
            let Some(Snapshot { job, reader: Some(reader), .. }) = &mut bus.migrations.snapshot else { return };
            let (job, fd) = (*job, reader.as_raw_fd());
            let client = super::snapshot_client(&bus.migrations.links, job);
            let Some(c) = client.and_then(|id| self.clients.get_mut(id)) else { return };
            if c.out.pending() >= MOST_WAITING {
                return; // Some more is taken when some of it has gone.
            }
            if total >= BYTES_PER_TURN {
                // The edge is used up: ask to be told again.
                let token = Source::SnapshotPipe.token();
                let _ = self.reactor.registry().reregister(&mut SourceFd(&fd), token, Interest::READABLE);
                return;
            }
            let mut piece = vec![0; PIECE_BYTES];
            match reader.read(&mut piece) {
                Ok(0) => return self.end_slot_pipe(),
                Ok(count) => {
                    total += count;
                    piece.truncate(count);
                    let id = c.id;
                    self.clients.push_all(id, piece);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.end_slot_pipe(),
            }
        }
    }

    fn end_slot_pipe(&mut self) {
        let Some(snapshot) = self.bus.as_mut().and_then(|bus| bus.migrations.snapshot.as_mut()) else { return };
        if let Some(reader) = snapshot.reader.take() {
            // Closing takes it out of the poll as well.
            let _ = self.reactor.registry().deregister(&mut SourceFd(&reader.as_raw_fd()));
        }
        // It has ended by now, or is about to.
        self.check_child_done();
        self.finish_slot_snapshot();
    }

    /// The child has ended.
    pub(crate) fn slot_snapshot_child_done(&mut self, ended: Ended) {
        match ended {
            Ended::Exit(0) => log::info!("Background SLOT MIGRATION transfer terminated with success"),
            Ended::Exit(_) => log::warn!("Background SLOT MIGRATION transfer error"),
            Ended::Signal(signal) => {
                log::warn!("Background SLOT MIGRATION transfer terminated by signal {signal}");
            }
        }
        if let Some(snapshot) = self.bus.as_mut().and_then(|bus| bus.migrations.snapshot.as_mut()) {
            snapshot.child_ok = Some(ended == Ended::Exit(0));
            self.finish_slot_snapshot();
        }
    }

    /// Goes on with the job when all was read and the child has ended.
    fn finish_slot_snapshot(&mut self) {
        let cow_bytes = self.persist.child_stats.slots_last_cow_bytes;
        let Some(bus) = &mut self.bus else { return };
        let Some(Snapshot { job, reader: None, child_ok: Some(ok) }) = bus.migrations.snapshot else { return };
        bus.migrations.snapshot = None;
        self.with_cluster(|machine, env| machine.on_snapshot_ended(job, ok, cow_bytes, env));
    }

    /// Ends the child of a job that is over.
    pub(super) fn stop_slot_snapshot(&mut self, job: JobId) {
        let Some(bus) = &mut self.bus else { return };
        let Some(snapshot) = bus.migrations.snapshot.take_if(|snapshot| snapshot.job == job) else { return };
        if let Some(reader) = snapshot.reader {
            let _ = self.reactor.registry().deregister(&mut SourceFd(&reader.as_raw_fd()));
        }
        if snapshot.child_ok.is_none() {
            self.kill_slot_child();
        }
    }
}
