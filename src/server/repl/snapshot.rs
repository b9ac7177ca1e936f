//! How a snapshot reaches replicas: from the dump file, or streamed by a child through a pipe.
//!
//! Disk: the child writes the dump file; when it is done every waiting replica gets `$<length>` and the file. Sockets:
//! the child writes into a pipe, and this process hands every piece to all replicas that take part before it reads the
//! next one, so that the slowest sets the pace and nothing piles up. The child stays until its end of the transfer has
//! been read, so that "child gone" always means "transfer over".

use crate::net::listener::reason;
use crate::net::{ClientId, Source};
use crate::persist::child::ChildKind;
use crate::persist::rdb::ReplInfo;
use crate::persist::snapshot::SnapshotOptions;
use crate::repl::{Position, SnapshotStart, SnapshotTarget};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use mio::Interest;
use mio::unix::SourceFd;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

/// Bytes of a file or of the pipe handed on at once.
const PIECE_BYTES: usize = 64 * 1024;
/// Bytes of a file sent to one replica in one turn.
const FILE_BYTES_PER_TURN: usize = 4 << 20;
/// Bytes taken from the pipe in one turn.
const PIPE_BYTES_PER_TURN: usize = 4 << 20;

/// The dump file on its way to a replica.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    client: ClientId,
    file: File,
    size: u64,
    sent: u64,
}

/// A replica that a streamed snapshot goes to.
#[derive(Debug)]
struct PipeTarget {
    client: ClientId,
    /// Bytes of the current piece it has got.
    sent: usize,
}

/// A streamed snapshot on its way to replicas.
#[derive(Debug)]
pub(super) struct SnapshotPipe {
    /// Where the child writes to; `None` once its end was read.
    reader: Option<File>,
    /// Closing it lets the child go.
    release: Option<OwnedFd>,
    /// What was read last.
    piece: Vec<u8>,
    targets: Vec<PipeTarget>,
}

impl SnapshotPipe {
    /// Some replica has not got all of the current piece.
    fn is_held_up(&self) -> bool {
        self.targets.iter().any(|target| target.sent < self.piece.len())
    }
}

impl Server {
    /// The position a snapshot taken now corresponds to, to be stored in it; `None` while there is none to speak of.
    pub(crate) fn repl_info(&self) -> Option<ReplInfo> {
        self.repl.position(self.master_session()).map(repl_info)
    }

    /// Starts the child that makes a snapshot for replicas.
    pub(super) fn start_snapshot_for_replicas(&mut self, start: SnapshotStart) {
        let options = SnapshotOptions {
            repl: Some(repl_info(start.position)),
            exclude_data: start.exclude_data,
            exclude_functions: start.exclude_functions,
            ..SnapshotOptions::default()
        };
        let started = match start.target {
            SnapshotTarget::Disk => self.start_bgsave(options),
            SnapshotTarget::Sockets => self.start_snapshot_pipe(options, &start.waiting),
        };
        if started {
            self.with_repl(|repl, env| repl.on_snapshot_started(start, env));
        } else {
            self.with_repl(|repl, _| repl.on_snapshot_refused());
        }
    }

    fn start_snapshot_pipe(&mut self, options: SnapshotOptions, waiting: &[ClientId]) -> bool {
        if self.has_child() || self.repl_io.pipe.is_some() {
            return false;
        }
        match self.open_snapshot_pipe(options) {
            Ok((reader, release)) => {
                let targets = waiting.iter().map(|client| PipeTarget { client: *client, sent: 0 }).collect();
                self.repl_io.pipe =
                    Some(SnapshotPipe { reader: Some(reader), release: Some(release), piece: Vec::new(), targets });
                true
            }
            Err(e) => {
                log::warn!("Can't stream a snapshot to replicas: {}", reason(&e));
                false
            }
        }
    }

    /// Forks the child that writes into the pipe. Gives the reading end, and what lets the child go when closed.
    fn open_snapshot_pipe(&mut self, options: SnapshotOptions) -> io::Result<(File, OwnedFd)> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let (data_read, data_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        let (exit_read, exit_write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        fcntl(&data_read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let parents_ends = [data_read.as_raw_fd(), exit_write.as_raw_fd()];
        self.start_rdb_to_pipe(options, File::from(data_write), File::from(exit_read), parents_ends)?;
        let both = Interest::READABLE;
        let token = Source::SnapshotPipe.token();
        if let Err(e) = self.reactor.registry().register(&mut SourceFd(&data_read.as_raw_fd()), token, both) {
            self.kill_rdb_child();
            return Err(e);
        }
        Ok((File::from(data_read), exit_write))
    }

    // ---- the pipe

    /// The pipe has something to read.
    pub(crate) fn on_snapshot_pipe_ready(&mut self) {
        self.pump_snapshot_pipe();
    }

    /// Hands pieces on until the pipe is empty or a replica takes no more.
    fn pump_snapshot_pipe(&mut self) {
        let mut total = 0;
        loop {
            let Some(pipe) = &mut self.repl_io.pipe else { return };
            if pipe.is_held_up() {
                return;
            }
            let Some(reader) = &mut pipe.reader else { return };
            if total >= PIPE_BYTES_PER_TURN {
                // The edge is used up: ask to be told again.
                let token = Source::SnapshotPipe.token();
                let fd = reader.as_raw_fd();
                if self.reactor.registry().reregister(&mut SourceFd(&fd), token, Interest::READABLE).is_ok() {
                    return;
                }
            }
            pipe.piece.resize(PIECE_BYTES, 0);
            let read = reader.read(&mut pipe.piece);
            pipe.piece.truncate(*read.as_ref().unwrap_or(&0));
            pipe.targets.iter_mut().for_each(|target| target.sent = 0);
            match read {
                Ok(0) => {
                    log::info!(
                        "Diskless rdb transfer, done reading from pipe, {} replicas still up.",
                        pipe.targets.len()
                    );
                    return self.end_snapshot_reading();
                }
                Ok(count) => total += count,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => {
                    log::warn!("Diskless rdb transfer, read error sending DB to replicas: {}", reason(&e));
                    for target in std::mem::take(&mut pipe.targets) {
                        self.clients.close_later(target.client);
                    }
                    self.kill_rdb_child();
                    return self.end_snapshot_reading();
                }
            }
            let targets: Vec<ClientId> = pipe.targets.iter().map(|target| target.client).collect();
            for id in targets {
                if let Err(e) = self.write_piece(id) {
                    let why = reason(&e);
                    log::warn!("Diskless rdb transfer, write error sending DB to replica: {why}");
                    self.leave_pipe(id);
                    self.clients.close_later(id);
                }
            }
            if self.repl_io.pipe.as_ref().is_some_and(|pipe| pipe.targets.is_empty()) {
                log::warn!("Diskless rdb transfer, last replica dropped, killing fork child.");
                self.kill_rdb_child();
                return self.end_snapshot_reading();
            }
        }
    }

    /// Stops reading and lets the child go; what follows from that comes with its end.
    fn end_snapshot_reading(&mut self) {
        let Some(pipe) = &mut self.repl_io.pipe else { return };
        if let Some(reader) = pipe.reader.take() {
            // Closing takes it out of the poll as well.
            let _ = self.reactor.registry().deregister(&mut SourceFd(&reader.as_raw_fd()));
        }
        pipe.release = None;
    }

    /// Sends a replica what it lacks of the current piece. Its reply, if it is still waiting, goes first.
    fn write_piece(&mut self, id: ClientId) -> io::Result<()> {
        let now_s = self.now_s();
        if self.clients.current == Some(id) {
            return Ok(()); // Its replies are elsewhere while its command runs.
        }
        let Some(pipe) = &mut self.repl_io.pipe else { return Ok(()) };
        let Some(target) = pipe.targets.iter_mut().find(|target| target.client == id) else { return Ok(()) };
        let Some(c) = self.clients.get_mut(id) else { return Ok(()) };
        let Some(conn) = c.link.conn.as_mut() else { return Ok(()) };
        c.link.out.write_to(usize::MAX, |slices| conn.write_vectored(slices))?;
        let mut progress = false;
        while c.link.out.is_empty() && target.sent < pipe.piece.len() {
            match conn.write(&pipe.piece[target.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    target.sent += count;
                    progress = true;
                    self.stats.net_repl_output_bytes += count as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let is_whole = target.sent == pipe.piece.len();
        self.repl.note_piece(id, is_whole, progress, now_s);
        Ok(())
    }

    /// A replica's socket takes bytes again while a streamed snapshot is on its way to it.
    pub(super) fn write_snapshot_piece(&mut self, id: ClientId) -> io::Result<()> {
        let Some(pipe) = &self.repl_io.pipe else { return Ok(()) };
        if !pipe.targets.iter().any(|target| target.client == id && target.sent < pipe.piece.len()) {
            return Ok(());
        }
        self.write_piece(id).inspect_err(|e| log::warn!("Write error sending DB to replica: {}", reason(e)))?;
        self.pump_snapshot_pipe();
        Ok(())
    }

    fn leave_pipe(&mut self, id: ClientId) {
        if let Some(pipe) = &mut self.repl_io.pipe {
            pipe.targets.retain(|target| target.client != id);
        }
    }

    /// A replica that a snapshot was on its way to went away.
    pub(super) fn leave_snapshot(&mut self, id: ClientId) {
        self.drop_snapshot_file(id);
        if self.repl_io.pipe.as_ref().is_some_and(|pipe| pipe.targets.iter().any(|target| target.client == id)) {
            self.leave_pipe(id);
            // The others may have waited for this one; if there are none, reading on finds that out.
            self.pump_snapshot_pipe();
        }
    }

    // ---- the end of the child

    /// A snapshot child has ended.
    pub(crate) fn repl_bgsave_done(&mut self, kind: ChildKind, ok: bool) {
        let target = if kind == ChildKind::RdbSocket { SnapshotTarget::Sockets } else { SnapshotTarget::Disk };
        if target == SnapshotTarget::Sockets {
            self.end_snapshot_reading();
            self.repl_io.pipe = None;
        }
        self.with_repl(|repl, env| repl.on_snapshot_ended(target, ok, env));
    }

    // ---- the dump file

    /// Opens the dump file for a replica that is to get it.
    pub(super) fn begin_sending_file(&mut self, id: ClientId) {
        let opened = File::open(&self.cfg.dbfilename).and_then(|file| Ok((file.metadata()?.len(), file)));
        match opened {
            Ok((size, file)) => {
                self.repl_io.files.push(SnapshotFile { client: id, file, size, sent: 0 });
                self.with_repl(|repl, _| repl.on_file_opened(id, size));
            }
            Err(e) => self.with_repl(|repl, _| repl.on_file_failed(id, &reason(&e))),
        }
    }

    /// Closing a file that was removed gives its blocks back, which takes long for a large one.
    fn drop_snapshot_file(&mut self, id: ClientId) {
        if let Some(at) = self.repl_io.files.iter().position(|snapshot| snapshot.client == id) {
            let done = self.repl_io.files.swap_remove(at);
            self.background.files.submit(move || drop(done));
        }
    }

    /// Sends a replica the file it is to get, if any. Returns whether there is nothing left of it.
    pub(super) fn send_snapshot_file(&mut self, id: ClientId) -> io::Result<bool> {
        let Some(conn) = self.clients.get_mut(id).and_then(|c| c.conn.as_mut()) else { return Ok(false) };
        let Some(snapshot) = self.repl_io.files.iter_mut().find(|snapshot| snapshot.client == id) else {
            return Ok(true);
        };
        let mut piece = vec![0u8; PIECE_BYTES];
        let mut total = 0;
        while snapshot.sent < snapshot.size {
            if total >= FILE_BYTES_PER_TURN {
                self.clients.want_write(id);
                return Ok(false);
            }
            let count = match snapshot.file.read_at(&mut piece, snapshot.sent) {
                Ok(0) => Err(io::Error::other("premature EOF")),
                other => other,
            };
            let count = count.inspect_err(|e| log::warn!("Read error sending DB to replica: {}", reason(e)))?;
            let left = (snapshot.size - snapshot.sent).min(count as u64) as usize;
            match conn.write(&piece[..left]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    snapshot.sent += sent as u64;
                    total += sent;
                    self.stats.net_repl_output_bytes += sent as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    log::warn!("Write error sending DB to replica: {}", reason(&e));
                    return Err(e);
                }
            }
        }
        self.drop_snapshot_file(id);
        self.with_repl(|repl, env| repl.on_snapshot_sent(id, env));
        // One that wanted no more than the snapshot is to be closed.
        Ok(self.clients.get(id).is_some_and(|c| !c.is(ClientFlags::CLOSE_ASAP)))
    }

    /// Removes the dump file if it is there.
    pub(super) fn remove_dump_made_for_replicas(&mut self) {
        let path = std::path::PathBuf::from(&self.cfg.dbfilename);
        if path.symlink_metadata().is_ok() {
            self.with_repl(|repl, _| repl.on_dump_removed());
            self.unlink_in_background(&path);
        }
    }

    /// Neither save points nor the AOF are in use.
    pub(super) fn keeps_nothing_on_disk(&self) -> bool {
        self.cfg.save.is_empty() && !self.cfg.appendonly
    }
}

fn repl_info(position: Position) -> ReplInfo {
    ReplInfo { stream_db: position.db as i64, id: position.id.as_bytes().to_vec(), offset: position.offset }
}
