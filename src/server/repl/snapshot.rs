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
use crate::repl::primary::{ReplicaState, RunningChild, SnapshotConfig, SnapshotPlan, SnapshotTarget};
use crate::repl::snapshot::{
    FILE_BYTES_PER_TURN, PIECE_BYTES, PIPE_BYTES_PER_TURN, PipeTarget, SnapshotFile, SnapshotPipe,
};
use crate::server::Server;
use crate::server::clients::ClientFlags;
use mio::Interest;
use mio::unix::SourceFd;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

impl Server {
    pub(super) fn snapshot_config(&self) -> SnapshotConfig {
        SnapshotConfig {
            diskless: self.cfg.repl_diskless_sync,
            delay_s: self.cfg.repl_diskless_sync_delay,
            max_replicas: self.cfg.repl_diskless_sync_max_replicas as usize,
        }
    }

    pub(super) fn running_child(&self) -> RunningChild {
        match self.child_kind() {
            None => RunningChild::None,
            Some(ChildKind::RdbDisk) => RunningChild::SnapshotToDisk,
            Some(ChildKind::RdbSocket) => RunningChild::SnapshotToSockets,
            Some(ChildKind::Aof) => RunningChild::Other,
        }
    }

    /// The position a snapshot taken now corresponds to, to be stored in it; `None` while there is none to speak of.
    pub(crate) fn repl_info(&self) -> Option<ReplInfo> {
        let repl = &self.repl;
        let stream_db = if !repl.is_replica() {
            repl.backlog.as_ref()?;
            // Whatever was selected: before the next command of the stream comes a SELECT if need be.
            repl.stream_db.unwrap_or(0)
        } else if let Some(online) = &repl.master.online {
            self.clients.get(online.client)?.db
        } else {
            repl.master.cached?.db
        };
        Some(ReplInfo {
            stream_db: stream_db as i64,
            id: repl.history.id.as_bytes().to_vec(),
            offset: repl.history.offset,
        })
    }

    /// Starts the snapshot `plan` asks for, for all replicas that wait for one like it. If that fails they are refused.
    pub(super) fn start_snapshot_for_replicas(&mut self, plan: SnapshotPlan) {
        let to = match plan.target {
            SnapshotTarget::Disk => "disk",
            SnapshotTarget::Sockets => "replicas sockets",
        };
        log::info!("Starting BGSAVE for SYNC with target: {to}");
        let Some(position) = self.repl_info() else {
            log::warn!(
                "BGSAVE for replication: replication information not available, can't generate the RDB file right now. \
                 Try later."
            );
            return self.refuse_waiting_replicas();
        };
        let options = SnapshotOptions {
            repl: Some(position),
            exclude_data: plan.requirements.exclude_data,
            exclude_functions: plan.requirements.exclude_functions,
            ..SnapshotOptions::default()
        };
        let waiting: Vec<ClientId> = self
            .repl
            .replicas
            .iter()
            .filter(|attached| {
                attached.replica.state == ReplicaState::WaitBgsaveStart
                    && attached.replica.announced.requirements == plan.requirements
            })
            .map(|attached| attached.client)
            .collect();
        let started = match plan.target {
            SnapshotTarget::Disk => self.start_bgsave(options),
            SnapshotTarget::Sockets => self.start_snapshot_pipe(options, &waiting),
        };
        if !started {
            return self.refuse_waiting_replicas();
        }
        if plan.target == SnapshotTarget::Disk && self.cfg.rdb_del_sync_files {
            self.repl.dump_is_for_replicas = true;
        }
        let offset = self.repl.history.offset;
        for id in waiting {
            self.setup_full_resync(id, offset);
        }
    }

    fn refuse_waiting_replicas(&mut self) {
        log::warn!("BGSAVE for replication failed");
        let waiting: Vec<ClientId> = self
            .repl
            .replicas
            .iter()
            .filter(|attached| attached.replica.state == ReplicaState::WaitBgsaveStart)
            .map(|attached| attached.client)
            .collect();
        for id in waiting {
            self.repl.replicas.retain(|attached| attached.client != id);
            self.clients.push(id, b"-ERR BGSAVE failed, replication can't continue\r\n");
            if let Some(c) = self.clients.get_mut(id) {
                c.flags.remove(ClientFlags::REPLICA);
                c.flags.add(ClientFlags::CLOSE_AFTER_REPLY);
                self.clients.connected += 1;
            }
        }
    }

    fn start_snapshot_pipe(&mut self, options: SnapshotOptions, waiting: &[ClientId]) -> bool {
        if self.has_child() || self.repl.pipe.is_some() {
            return false;
        }
        match self.open_snapshot_pipe(options) {
            Ok((reader, release)) => {
                let targets = waiting.iter().map(|client| PipeTarget { client: *client, sent: 0 }).collect();
                self.repl.pipe =
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
            let Some(pipe) = &mut self.repl.pipe else { return };
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
            if self.repl.pipe.as_ref().is_some_and(|pipe| pipe.targets.is_empty()) {
                log::warn!("Diskless rdb transfer, last replica dropped, killing fork child.");
                self.kill_rdb_child();
                return self.end_snapshot_reading();
            }
        }
    }

    /// Stops reading and lets the child go; what follows from that comes with its end.
    fn end_snapshot_reading(&mut self) {
        let Some(pipe) = &mut self.repl.pipe else { return };
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
        let Some(pipe) = &mut self.repl.pipe else { return Ok(()) };
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
        let done = target.sent == pipe.piece.len();
        if let Some(attached) = self.repl.replica_of_mut(id) {
            let since = &mut attached.replica.partial_write_since_s;
            if done {
                *since = None;
            } else if progress || since.is_none() {
                *since = Some(now_s);
            }
        }
        Ok(())
    }

    /// A replica's socket takes bytes again while a streamed snapshot is on its way to it.
    pub(super) fn write_snapshot_piece(&mut self, id: ClientId) -> io::Result<()> {
        let Some(pipe) = &self.repl.pipe else { return Ok(()) };
        if !pipe.targets.iter().any(|target| target.client == id && target.sent < pipe.piece.len()) {
            return Ok(());
        }
        self.write_piece(id).inspect_err(|e| log::warn!("Write error sending DB to replica: {}", reason(e)))?;
        self.pump_snapshot_pipe();
        Ok(())
    }

    fn leave_pipe(&mut self, id: ClientId) {
        if let Some(pipe) = &mut self.repl.pipe {
            pipe.targets.retain(|target| target.client != id);
        }
    }

    /// A replica in this state went away: a snapshot made for it alone is made for nobody.
    pub(super) fn replica_left_snapshot(&mut self, id: ClientId, state: ReplicaState) {
        let took_part = self.repl.pipe.as_ref().is_some_and(|pipe| pipe.targets.iter().any(|t| t.client == id));
        if took_part {
            self.leave_pipe(id);
            // The others may have waited for this one; if there are none, reading on finds that out.
            self.pump_snapshot_pipe();
        }
        let others_wait = self.repl.records().any(|replica| replica.state == ReplicaState::WaitBgsaveEnd);
        if state == ReplicaState::WaitBgsaveEnd
            && !others_wait
            && self.cfg.save.is_empty()
            && self.child_kind() == Some(ChildKind::RdbDisk)
        {
            self.kill_rdb_child();
        }
    }

    // ---- the end of the child

    /// A snapshot child has ended: replicas that waited for it go on, or are dropped if it failed.
    pub(crate) fn repl_bgsave_done(&mut self, kind: ChildKind, ok: bool) {
        if kind == ChildKind::RdbSocket {
            self.end_snapshot_reading();
            self.repl.pipe = None;
        }
        let waiting: Vec<ClientId> = self
            .repl
            .replicas
            .iter()
            .filter(|attached| attached.replica.state == ReplicaState::WaitBgsaveEnd)
            .map(|attached| attached.client)
            .collect();
        for id in waiting {
            if !ok {
                log::warn!("SYNC failed. BGSAVE child returned an error");
                self.clients.close_later(id);
            } else if kind == ChildKind::RdbSocket {
                self.snapshot_was_streamed(id);
            } else if let Err(e) = self.begin_sending_file(id) {
                log::warn!("SYNC failed. Can't open/stat DB after BGSAVE: {}", reason(&e));
                self.clients.close_later(id);
            }
        }
        self.start_due_snapshot();
    }

    fn snapshot_was_streamed(&mut self, id: ClientId) {
        let Some(attached) = self.repl.replica_of_mut(id) else { return };
        log::info!(
            "Streamed RDB transfer with replica {} succeeded (socket). Waiting for REPLCONF ACK from replica to enable \
             streaming",
            attached.name()
        );
        // The replica finds the end mark by nothing following it: the stream waits until it says that it has it.
        attached.replica.stream_waits_for_ack = true;
        if !self.put_replica_online(id) {
            self.clients.close_later(id);
        }
    }

    fn begin_sending_file(&mut self, id: ClientId) -> io::Result<()> {
        let file = File::open(&self.cfg.dbfilename)?;
        let size = file.metadata()?.len();
        let Some(attached) = self.repl.replica_of_mut(id) else { return Ok(()) };
        attached.replica.state = ReplicaState::SendBulk;
        attached.file = Some(SnapshotFile { file, size, sent: 0 });
        self.clients.push(id, format!("${size}\r\n").as_bytes());
        Ok(())
    }

    /// Sends a replica the file it is to get, if any. Returns whether there is nothing left of it.
    pub(super) fn send_snapshot_file(&mut self, id: ClientId) -> io::Result<bool> {
        let Some(conn) = self.clients.get_mut(id).and_then(|c| c.conn.as_mut()) else { return Ok(false) };
        let Some(attached) = self.repl.replicas.iter_mut().find(|attached| attached.client == id) else {
            return Ok(false);
        };
        let Some(snapshot) = &mut attached.file else { return Ok(true) };
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
        if let Some(done) = attached.file.take() {
            self.background.files.submit(move || drop(done));
        }
        if !self.put_replica_online(id) {
            self.clients.close_later(id);
            return Ok(false);
        }
        Ok(true)
    }

    /// Removes the dump file in a server that keeps none for itself, once no replica needs it.
    pub(super) fn remove_dump_made_for_replicas(&mut self) {
        if !self.cfg.rdb_del_sync_files {
            self.repl.dump_is_for_replicas = false;
            return;
        }
        let needed = self.repl.records().any(|replica| replica.state.needs_snapshot());
        if !self.repl.dump_is_for_replicas || !self.keeps_nothing_on_disk() || needed {
            return;
        }
        let path = std::path::Path::new(&self.cfg.dbfilename);
        if path.symlink_metadata().is_ok() {
            self.repl.dump_is_for_replicas = false;
            log::info!("Removing the RDB file used to feed replicas in a persistence-less instance");
            self.unlink_in_background(path);
        }
    }

    /// Neither save points nor the AOF are in use.
    pub(super) fn keeps_nothing_on_disk(&self) -> bool {
        self.cfg.save.is_empty() && !self.cfg.appendonly
    }
}
