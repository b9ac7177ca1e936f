//! Towards replicas: what becomes of their clients, sending them what they have waiting, and replies to those who wait for
//! their acknowledgements.
//!
//! A replica is a client with the REPLICA flag. Its output is its reply buffer (only what the machine puts there), then the
//! snapshot file, then the shared stream, strictly in this order. How a snapshot reaches replicas is in `snapshot`.

use crate::catalog::{CmdError, error};
use crate::net::ClientId;
use crate::net::listener::reason;
use crate::repl::{Awaited, Peer, Repl, WaitAnswer};
use crate::resp::Reply;
use crate::server::Server;
use crate::server::clients::{Client, ClientFlags};
use crate::server::dispatch::blocked::{BlockKind, WaitEnd};
use std::io;

/// Bytes of the stream written to one replica in one turn.
const STREAM_BYTES_PER_TURN: usize = 4 << 20;
/// Pieces of one vectored write.
const STREAM_SLICES: usize = 64;

impl Server {
    // ---- clients

    fn peer(&self, id: ClientId) -> Option<Peer> {
        let c = self.clients.get(id)?;
        Some(Peer { client: id, number: c.number, ip: c.peer.map(|peer| peer.ip().to_string()) })
    }

    /// How logs call the replica a client is or is about to be.
    pub(crate) fn replica_name(&self, id: ClientId) -> String {
        self.peer(id).map_or_else(String::new, |peer| self.repl.replica_name(&peer))
    }

    /// PSYNC (`asked` holds the id and the offset wanted) or SYNC. The reply to a replica that continues, or the lack of
    /// one to a replica that has to wait for a snapshot, is all that is written to `out`.
    pub(crate) fn synchronize(&mut self, id: ClientId, asked: Option<(&[u8], i64)>, out: &mut Reply) {
        let Some(peer) = self.peer(id) else { return };
        if self.lacks_acknowledged_data() {
            return out.error(b"NOMASTERLINK This node may lack acknowledged writes: a replica is to take over.");
        }
        if let Some(reply) = self.with_repl(|repl, env| repl.synchronize(peer, asked, env)) {
            out.simple(&reply);
        }
    }

    pub(super) fn become_replica(&mut self, id: ClientId, is_fresh: bool) {
        let Some(c) = self.clients.get_mut(id) else { return };
        c.flags.add(ClientFlags::REPLICA);
        if is_fresh
            && self.cfg.repl_disable_tcp_nodelay
            && let Some(conn) = &c.conn
        {
            conn.set_nodelay(false);
        }
        self.clients.connected = self.clients.connected.saturating_sub(1);
    }

    pub(super) fn dismiss_replica(&mut self, id: ClientId) {
        if let Some(c) = self.clients.get_mut(id) {
            c.flags.remove(ClientFlags::REPLICA);
            c.flags.add(ClientFlags::CLOSE_AFTER_REPLY);
            self.clients.connected += 1;
        }
    }

    /// REPLCONF ACK from a replica.
    pub(crate) fn acknowledge(&mut self, id: ClientId, processed: i64, fsynced: Option<i64>) {
        let now_s = self.now_s();
        self.with_repl(|repl, _| repl.on_ack(id, processed, fsynced, now_s));
        self.with_repl(|repl, _| repl.release_stream(id));
    }

    /// An empty line from a replica shows that it is alive.
    pub(crate) fn note_empty_request(&mut self, id: ClientId) {
        self.repl.note_alive(id, self.now_s());
    }

    /// Bytes of the shared stream that a replica's lag holds.
    pub(crate) fn replica_output_bytes(&self, c: &Client) -> usize {
        self.repl.output_memory(c.id)
    }

    /// Asks replicas for their offsets, so that a wait for them ends soon.
    pub(crate) fn ask_replicas_for_offsets(&mut self) {
        if !self.writes_paused() {
            self.with_repl(|repl, _| repl.ask_for_acks());
        }
    }

    pub(crate) fn has_replicas(&self) -> bool {
        self.repl.replica_count() > 0
    }

    /// Says which replicas have not caught up when the server ends.
    pub(crate) fn log_lagging_replicas(&self) {
        for line in self.repl.shutdown_report(self.now_s()) {
            log::info!("{line}");
        }
    }

    /// Writes need enough good replicas, if any are asked for.
    pub(crate) fn check_good_replicas(&self, is_write: bool) -> Result<(), CmdError> {
        if !is_write {
            return Ok(());
        }
        if self.repl.has_enough_replicas(&self.cfg) { self.check_confirmable() } else { Err(error::NO_REPLICAS) }
    }

    // ---- output

    /// Marks every replica that has something to be sent and whose socket takes it.
    pub(crate) fn want_replica_writes(&mut self) {
        for id in self.repl.ready_replicas() {
            self.clients.want_write(id);
        }
    }

    /// Sends a replica what it has waiting: replies, the snapshot file, the stream.
    pub(crate) fn write_replica(&mut self, id: ClientId) {
        if let Err(e) = self.try_write_replica(id) {
            log::debug!("Error writing to client: {}", reason(&e));
            self.clients.close_later(id);
        }
    }

    fn try_write_replica(&mut self, id: ClientId) -> io::Result<()> {
        if self.clients.current == Some(id) {
            return Ok(()); // Its replies are elsewhere while its command runs.
        }
        let Some(c) = self.clients.get_mut(id) else { return Ok(()) };
        if c.is(ClientFlags::CLOSE_ASAP) {
            return Ok(()); // It is to come back and see what became of its place in the stream.
        }
        let Some(conn) = c.link.conn.as_mut() else { return Ok(()) };
        if !c.link.out.is_empty() {
            let sent = c.link.out.write_to(usize::MAX, |slices| conn.write_vectored(slices))?;
            self.stats.net_repl_output_bytes += sent as u64;
            if !c.out.is_empty() {
                return Ok(());
            }
        }
        if c.is(ClientFlags::CLOSE_AFTER_REPLY) {
            self.clients.close_later(id);
            return Ok(());
        }
        self.write_snapshot_piece(id)?;
        if !self.send_snapshot_file(id)? {
            return Ok(());
        }
        self.send_stream(id)
    }

    fn send_stream(&mut self, id: ClientId) -> io::Result<()> {
        let Some(conn) = self.clients.get_mut(id).and_then(|c| c.conn.as_mut()) else { return Ok(()) };
        let repl: &mut Repl = &mut self.repl;
        repl.note_stalled(id, false);
        let mut total = 0;
        loop {
            let slices = repl.output(id, STREAM_SLICES, STREAM_BYTES_PER_TURN);
            if slices.is_empty() {
                break;
            }
            if total >= STREAM_BYTES_PER_TURN {
                self.clients.want_write(id);
                break;
            }
            match conn.write_vectored(&slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => {
                    repl.note_sent(id, sent);
                    total += sent;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    repl.note_stalled(id, true);
                    break;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.stats.net_repl_output_bytes += total as u64;
        Ok(())
    }

    /// Tries to send all replicas everything now: before evicting, so that what waits for them does not count against
    /// the memory limit longer than needed.
    pub(crate) fn flush_replicas(&mut self) {
        for id in self.repl.ready_replicas() {
            self.write_replica(id);
        }
    }

    // ---- waiting for acknowledgements

    /// A client blocked in WAIT or WAITAOF: replicas are asked to acknowledge before the loop sleeps.
    pub(crate) fn wait_for_acks(&mut self, id: ClientId) {
        if let Some(awaited) = self.awaited_by(id) {
            self.repl.wait_for(id, awaited);
        }
    }

    /// What a client in WAIT or WAITAOF waits for.
    fn awaited_by(&self, id: ClientId) -> Option<Awaited> {
        awaited(&self.clients.get(id)?.block.as_ref()?.kind)
    }

    /// A client does not wait any more.
    pub(crate) fn forget_waiter(&mut self, id: ClientId, kind: &BlockKind) {
        if let Some(awaited) = awaited(kind) {
            self.repl.forget_waiter(id, awaited);
        }
    }

    /// How it stands with what a client waits for.
    pub(crate) fn wait_answer(&self, awaited: Awaited) -> WaitAnswer {
        self.repl.wait_answer(awaited, self.persist.aof.fsynced_reploff)
    }

    /// Releases a client that has what it waited for.
    pub(super) fn release_waiter(&mut self, id: ClientId, answer: WaitAnswer) {
        if self.awaited_by(id).is_none() {
            return;
        }
        let mut reply = Reply::default();
        let end = match answer {
            WaitAnswer::NoAof => {
                self.write_error(&mut reply, &WAITAOF_NO_AOF);
                WaitEnd::Failed
            }
            answer => {
                write_wait_answer(&mut reply, answer);
                WaitEnd::Answered
            }
        };
        self.clients.reply(id, &reply.buf);
        self.unblock(id, end);
    }

    /// What a client that waited in vain is told, if it waited for replication. Returns whether it did.
    pub(crate) fn repl_reply_on_timeout(&mut self, id: ClientId, kind: &BlockKind) -> bool {
        let Some(awaited) = awaited(kind) else { return false };
        let mut reply = Reply::default();
        write_wait_answer(&mut reply, self.wait_answer(awaited));
        self.clients.reply(id, &reply.buf);
        true
    }
}

fn awaited(kind: &BlockKind) -> Option<Awaited> {
    match *kind {
        BlockKind::Wait { offset, replicas } => Some(Awaited::Acks { offset, replicas }),
        BlockKind::WaitAof { offset, local, replicas } => Some(Awaited::Disk { offset, local, replicas }),
        BlockKind::Postponed
        | BlockKind::Shutdown
        | BlockKind::Loading
        | BlockKind::Moving
        | BlockKind::Resting
        | BlockKind::Keys { .. } => None,
    }
}

/// WAITAOF asks for the local disk while there is no AOF.
pub(crate) const WAITAOF_NO_AOF: CmdError =
    CmdError::of("ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.");

/// The reply of WAIT or WAITAOF.
pub(crate) fn write_wait_answer(out: &mut Reply, answer: WaitAnswer) {
    match answer {
        WaitAnswer::Acks(acked) => out.int(acked),
        WaitAnswer::Disk { local, replicas } => {
            out.array(2);
            out.int(local);
            out.int(replicas);
        }
        WaitAnswer::NoAof => {}
    }
}
