//! What admission and the loop ask of rooms that have nothing to say.

use super::blocked::BlockKind;
use crate::catalog::error::CmdError;
use crate::catalog::table::CmdRef;
use crate::net::reactor::Ready;
use crate::net::{ClientId, Source};
use crate::resp::{Args, Reply};
use crate::server::Server;

impl Server {
    // cluster
    pub fn cluster_manual_failover_in_progress(&self) -> bool {
        self.cluster_manual_failover()
    }
    pub fn check_slot(&mut self, id: ClientId, cmd: CmdRef, args: Args<'_>) -> Result<(), CmdError> {
        if self.bus.is_none() {
            return Ok(());
        }
        self.check_cluster_slot(id, cmd, args)
    }
    /// To be called when the log is switched, loading begins or ends, or a backlog comes or goes.
    pub fn update_sinks(&mut self) {
        self.ks.effects.has_sinks = self.aof_wants_commands() || self.repl.takes_stream();
    }
    // blocked clients
    pub fn reply_on_timeout(&mut self, id: ClientId, kind: BlockKind) {
        if let BlockKind::Keys { .. } = kind {
            let mut reply = Reply::new(self.clients.get(id).is_some_and(|c| c.resp == 3));
            reply.null_array();
            self.clients.reply(id, &reply.buf);
        } else {
            self.repl_reply_on_timeout(id, &kind);
        }
    }
    /// A client is about to go.
    pub fn before_free(&mut self, id: ClientId) {
        self.repl_before_free(id);
        self.unsubscribe_all(id);
        self.forget_tracking(id);
    }
    /// FLUSHALL emptied everything: a save under way is of no use, and the file of the last one is to say so.
    pub fn after_flush_all(&mut self) {
        self.kill_rdb_child();
        if !self.cfg.save.is_empty() {
            self.save_rdb(false);
        }
    }
    // loop
    pub fn on_room_ready(&mut self, source: Source, event: Ready) {
        match source {
            Source::BusListener(_) | Source::BusLink(..) => self.on_bus_ready(source, event),
            Source::MasterLink => self.on_master_link_ready(event),
            Source::Pipe(crate::repl::snapshot::PIPE_NUMBER) => self.on_snapshot_pipe_ready(),
            // The loop has served these; no other pipe is watched.
            Source::Listener(_) | Source::Client(_) | Source::Waker | Source::Pipe(_) => {}
        }
    }
    pub fn next_room_deadline_ms(&self) -> Option<i64> {
        [self.cluster_deadline_ms(), self.repl_deadline_ms()].into_iter().flatten().min()
    }
    pub fn rooms_before_sleep(&mut self) {
        self.cluster_before_sleep();
        self.repl_before_sleep();
    }
    pub fn rooms_timers(&mut self) {
        self.cluster_timers();
        self.repl_timers();
        self.names_were_looked_up();
    }
    pub fn rooms_cron(&mut self) {
        self.repl_cron();
        self.persist_cron();
        self.reap_debug_sessions();
        self.limit_tracking_table();
        self.cluster_cron();
        if self.bus.is_some() && self.every_ms(1000) {
            self.redirect_blocked();
        }
    }
    pub fn cluster_connections(&self) -> usize {
        self.cluster_link_count()
    }
}
