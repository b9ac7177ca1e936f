//! The stream this server produces or hands on, and its way into the connections of replicas.

use super::backlog::{Backlog, TRIM_BLOCKS_PER_CRON};
use super::{Action, Attached, Env, Repl};
use crate::net::ClientId;
use crate::resp::encode::command;
use std::io::IoSlice;

impl Repl {
    // ---- feeding it

    /// Whether a command that changed something has to be turned into stream bytes.
    pub(crate) fn takes_stream(&self) -> bool {
        self.backlog.is_some() && !self.is_replica()
    }

    /// Adds a command to the stream as a primary; `db` is `None` for commands that concern no database. Does nothing on
    /// a replica: it hands its master's stream on unchanged.
    pub(crate) fn feed(&mut self, db: Option<usize>, bytes: &[u8]) {
        if self.is_replica() {
            return;
        }
        if self.backlog.is_none() {
            // Nothing keeps the bytes, but the offset moves on: it also tells which writes are on disk.
            self.history.offset += 1;
            return;
        }
        if let Some(db) = db
            && self.stream_db != Some(db)
        {
            let digits = db.to_string();
            self.append(&command(&[b"SELECT", digits.as_bytes()]));
            self.stream_db = Some(db);
        }
        self.append(bytes);
    }

    /// Adds bytes to the stream as they are.
    pub(super) fn append(&mut self, bytes: &[u8]) {
        let Some(backlog) = &mut self.backlog else { return };
        let has_grown = backlog.append(bytes) > 0;
        self.history.offset += bytes.len() as i64;
        debug_assert_eq!(backlog.end_offset(), self.history.offset + 1);
        if has_grown {
            let fed = self.replicas.iter().filter(|attached| attached.replica.cursor.is_some());
            self.actions.extend(fed.map(|attached| Action::CheckOutput { client: attached.client }));
        }
    }

    /// Asks every replica to acknowledge at once.
    pub(crate) fn ask_for_acks(&mut self) {
        if !self.replicas.is_empty() {
            let before = self.history.offset;
            self.feed(None, &command(&[b"REPLCONF", b"GETACK", b"*"]));
            self.asked_at = (before, self.history.offset);
        }
    }

    /// The offset at which a replica has all there is: the question for it alone may follow, which the answer does not count.
    pub(super) fn newest_content(&self) -> i64 {
        let (before, after) = self.asked_at;
        if self.history.offset == after { before } else { self.history.offset }
    }

    /// Tells this node, by the stream that all replicas follow, to take this one's place in the cluster.
    pub(crate) fn tell_to_take_over(&mut self, node_id: &[u8]) {
        self.feed(None, &command(&[b"CLUSTER", b"FAILOVER", b"FORCE", b"REPLICAID", node_id]));
    }

    // ---- keeping it

    /// Keeps a backlog from now on if there is none.
    pub(super) fn need_backlog(&mut self, env: &Env) {
        if self.backlog.is_none() {
            self.backlog = Some(Backlog::new(env.cfg.repl_backlog_size as usize, self.history.offset + 1));
        }
    }

    /// A primary's replicas may continue with what it loads as it starts, so keys that go while loading are part of the
    /// stream.
    pub(crate) fn before_startup_load(&mut self, env: &Env) {
        if !self.is_replica() && self.backlog.is_none() {
            self.need_backlog(env);
        }
    }

    /// Gives the backlog up, if there is one; there are no replicas.
    pub(crate) fn drop_backlog(&mut self) {
        assert!(self.replicas.is_empty(), "replicas read from the backlog");
        if let Some(backlog) = self.backlog.take() {
            self.act(Action::DropBacklog(backlog));
        }
    }

    pub(super) fn drop_unused_backlog(&mut self, env: &Env) {
        let ttl_s = env.cfg.repl_backlog_ttl;
        let unused = self.replicas.is_empty() && self.backlog.is_some() && !self.is_replica();
        if ttl_s == 0 || !unused || env.now_s() - self.no_replicas_since_s <= ttl_s {
            return;
        }
        // Without a backlog the offset no longer tells how much was written, so the history must not be continued.
        self.history.start_new();
        self.drop_backlog();
        self.notice(format!("Replication backlog freed after {ttl_s} seconds without connected replicas."));
    }

    /// `repl-backlog-size` changed.
    pub(crate) fn resize_backlog(&mut self, size: usize) {
        if let Some(backlog) = &mut self.backlog {
            backlog.resize(size);
        }
    }

    /// Gives history back that is no longer needed.
    pub(crate) fn trim(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.trim(TRIM_BLOCKS_PER_CRON);
        }
    }

    /// The newest bytes of the stream, at most `count`; `None` if there are none.
    pub(crate) fn latest_stream(&self, count: usize) -> Option<Vec<u8>> {
        let backlog = self.backlog.as_ref().filter(|backlog| backlog.history_len() > 0)?;
        Some(backlog.latest(count))
    }

    /// Gives this server's history a new name, so that replicas have to start over.
    pub(crate) fn change_ids(&mut self) {
        self.notice("Changing replication IDs after receiving DEBUG change-repl-id");
        self.history.start_new();
    }

    // ---- sending it

    fn has_output(&self, attached: &Attached) -> bool {
        match (&self.backlog, attached.replica.cursor) {
            (Some(backlog), Some(cursor)) => attached.replica.may_stream() && backlog.pending(cursor) > 0,
            _ => false,
        }
    }

    /// Replicas that have something to be sent and whose sockets take it.
    pub(crate) fn ready_replicas(&self) -> Vec<ClientId> {
        let ready = self.replicas.iter().filter(|attached| !attached.stalled && self.has_output(attached));
        ready.map(|attached| attached.client).collect()
    }

    /// What of the stream a replica is to be sent next, at most so much; empty when there is nothing.
    pub(crate) fn output(&self, client: ClientId, max_slices: usize, max_bytes: usize) -> Vec<IoSlice<'_>> {
        let ready = self.attached(client).filter(|attached| self.has_output(attached));
        match (&self.backlog, ready.and_then(|attached| attached.replica.cursor)) {
            (Some(backlog), Some(cursor)) => backlog.slices_from(backlog.cursor_offset(cursor), max_slices, max_bytes),
            _ => Vec::new(),
        }
    }

    /// So many bytes of the stream went into a replica's connection.
    pub(crate) fn note_sent(&mut self, client: ClientId, count: usize) {
        let cursor = self.attached(client).and_then(|attached| attached.replica.cursor);
        if let (Some(backlog), Some(cursor)) = (&mut self.backlog, cursor) {
            backlog.advance(cursor, count);
        }
    }

    /// Notes whether a replica's connection is full.
    pub(crate) fn note_stalled(&mut self, client: ClientId, stalled: bool) {
        if let Some(attached) = self.attached_mut(client) {
            attached.stalled = stalled;
        }
    }
}
