//! Drains what commands changed: to the AOF, the replicas, and clients that watch or wait.

use crate::keyspace::effects::{PropOp, target};
use crate::server::Server;
use crate::server::clients::ClientFlags;

impl Server {
    /// To be called at the end of a unit of execution: a command, a transaction, a script, a cron step. Several commands
    /// of one unit reach the sinks wrapped in MULTI and EXEC.
    pub(crate) fn drain_effects(&mut self) {
        if self.depth > 0 {
            return;
        }
        self.drain_propagation();
        self.track_changes(self.clients.current);
        self.send_own_invalidations();
        if !self.ks.effects.events.is_empty() {
            self.publish_key_events();
        }
        for id in std::mem::take(&mut self.ks.watch.dirty) {
            match self.clients.get_mut(id) {
                Some(c) => c.flags.add(ClientFlags::DIRTY_CAS),
                None => self.moving.note_changed(id),
            }
        }
        if !self.ks.effects.garbage.is_empty() {
            let garbage = std::mem::take(&mut self.ks.effects.garbage);
            self.background.free(garbage);
        }
    }

    fn drain_propagation(&mut self) {
        let effects = &mut self.ks.effects;
        let no_multi = std::mem::take(&mut effects.no_multi);
        if effects.props.ops.is_empty() {
            return;
        }
        let mut queue = std::mem::take(&mut effects.props);
        let wrap = queue.ops.len() > 1 && !no_multi;
        let targets = queue.ops.iter().fold(0, |t, op| t | op.targets);
        if wrap {
            self.feed(None, targets, b"*1\r\n$5\r\nMULTI\r\n");
        }
        for PropOp { db, targets, start, end } in queue.ops.drain(..) {
            self.feed(Some(db), targets, &queue.bytes[start..end]);
        }
        if wrap {
            self.feed(None, targets, b"*1\r\n$4\r\nEXEC\r\n");
        }
        // The buffer is kept for the next unit, unless it grew out of proportion.
        if queue.bytes.capacity() <= 1 << 20 {
            queue.bytes.clear();
            self.ks.effects.props = queue;
        }
    }

    /// Gives one command to the sinks; without a database no SELECT goes before it.
    fn feed(&mut self, db: Option<usize>, targets: u8, command: &[u8]) {
        if targets & target::AOF != 0 {
            self.feed_aof(db, command);
        }
        if targets & target::REPLICAS != 0 {
            self.feed_replicas(db, command);
            self.meter_replicated(command.len());
            if db.is_some() && self.feeds_targets() {
                self.feed_targets(command);
            }
        }
    }

    /// Finds out whether anybody is told of changes. Everything that is about to change data begins with this: a call, plain
    /// calls, a round of expiry or eviction, the end of a slot.
    pub(crate) fn begin_effects(&mut self) {
        // What the log is loaded from is in it, and replicas have had it: told again, it would be there twice.
        self.ks.effects.has_sinks =
            (self.aof_wants_commands() || self.repl.takes_stream() || self.feeds_targets()) && !self.loads_own_data();
    }
}
