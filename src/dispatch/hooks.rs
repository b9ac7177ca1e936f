//! What admission and the loop ask of rooms that have nothing to say.

use super::blocked::BlockKind;
use super::command::Command;
use super::error::CmdError;
use super::table::CmdRef;
use crate::net::reactor::Ready;
use crate::net::{ClientId, Source};
use crate::resp::Args;
use crate::server::Server;

impl Server {
    // acl
    pub fn check_acl(&mut self, _id: ClientId, _cmd: CmdRef, _args: Args<'_>) -> Result<(), CmdError> {
        Ok(())
    }
    /// The users as `user` lines of the configuration file: name and rules.
    pub fn acl_lines(&self) -> Vec<Vec<u8>> {
        self.cfg.user.iter().map(|line| line.words.join(&b' ')).collect()
    }
    // cluster
    pub fn check_slot(&mut self, _id: ClientId, _cmd: CmdRef, _args: Args<'_>) -> Result<(), CmdError> {
        Ok(())
    }
    // memory
    pub fn evict_clients(&mut self) {}
    /// Memory that `maxmemory` does not count: output buffers of replicas beyond the backlog, and the AOF's buffer.
    pub fn memory_not_counted(&self) -> usize {
        0
    }
    // persist
    pub fn check_disk(&mut self, _row: &Command, _is_write: bool) -> Result<(), CmdError> {
        Ok(())
    }
    /// Turns the AOF on or off, as `appendonly` says.
    pub fn apply_appendonly(&mut self) -> Result<(), String> {
        if self.cfg.appendonly { Err("Unable to turn on AOF. Check server logs.".into()) } else { Ok(()) }
    }
    pub fn feed_aof(&mut self, _db: usize, _command: &[u8]) {}
    /// Writes and syncs the AOF before replies leave.
    pub fn flush_aof(&mut self) {}
    pub fn is_loading(&self) -> bool {
        false
    }
    pub fn loading_allows(&self, _row: &Command) -> bool {
        false
    }
    /// FLUSHALL emptied everything: a save under way is of no use, and the file of the last one is to say so.
    pub fn after_flush_all(&mut self) {}
    // repl
    pub fn check_good_replicas(&mut self, _is_write: bool) -> Result<(), CmdError> {
        Ok(())
    }
    pub fn is_read_only_replica(&self) -> bool {
        false
    }
    pub fn serves_nothing_stale(&self) -> bool {
        false
    }
    pub fn feed_replicas(&mut self, _db: usize, _command: &[u8]) {}
    pub fn repl_offset(&self) -> i64 {
        0
    }
    pub fn input_consumed(&mut self, _id: ClientId, _bytes: &[u8]) {}
    pub fn note_empty_request(&mut self, _id: ClientId) {}
    pub fn note_internal_error(&mut self, _id: ClientId, _error: &CmdError) {}
    /// Sets how lookups of this client treat expired keys.
    pub fn set_expire_policy(&mut self, _id: ClientId) {}
    pub fn reply_on_timeout(&mut self, _id: ClientId, _kind: BlockKind) {}
    pub fn write_replica(&mut self, _id: ClientId) {}
    /// A client is about to go; false keeps it (our master's link is cached for a partial resync).
    pub fn before_free(&mut self, _id: ClientId) -> bool {
        true
    }
    // loop
    pub fn on_room_ready(&mut self, _source: Source, _event: Ready) {}
    pub fn next_room_deadline_ms(&self) -> Option<i64> {
        None
    }
    pub fn rooms_before_sleep(&mut self) {}
    pub fn rooms_timers(&mut self) {}
    pub fn rooms_cron(&mut self) {}
    pub fn cluster_connections(&self) -> usize {
        0
    }
    pub fn on_stop_signal(&mut self, _signal: i32) {
        self.exit = Some(0);
    }
    // admin
    pub fn check_output_limit(&mut self, _id: ClientId) {}
    pub fn after_call(&mut self, _id: ClientId, _cmd: CmdRef, _args: Args<'_>, _duration_us: i64) {}
    pub fn is_replica(&self) -> bool {
        false
    }
    /// A queued command is checked again when it runs, where that can have changed (ACL).
    pub fn recheck_queued(&mut self, _id: ClientId, _cmd: CmdRef, _args: Args<'_>) -> Option<CmdError> {
        None
    }
    pub fn describe_client(&self, id: ClientId) -> String {
        self.clients.get(id).map(|c| format!("id={} addr={}", c.number, c.addr())).unwrap_or_default()
    }
}
