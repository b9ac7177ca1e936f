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
    // cluster
    pub fn check_slot(&mut self, _id: ClientId, _cmd: CmdRef, _args: Args<'_>) -> Result<(), CmdError> {
        Ok(())
    }
    // memory
    pub fn check_memory(
        &mut self,
        _id: ClientId,
        _row: &Command,
        _denies_oom: bool,
        _in_multi: bool,
    ) -> Result<(), CmdError> {
        Ok(())
    }
    // persist
    pub fn check_disk(&mut self, _row: &Command, _is_write: bool) -> Result<(), CmdError> {
        Ok(())
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
    pub fn is_replica(&self) -> bool {
        false
    }
    /// A queued command is checked again when it runs, where that can have changed (ACL).
    pub fn recheck_queued(&mut self, _id: ClientId, _cmd: CmdRef, _args: Args<'_>) -> Option<CmdError> {
        None
    }
    /// A user of this name exists.
    pub fn user_exists(&self, name: &[u8]) -> bool {
        name == b"default"
    }
    /// Gives this server's history a new name, so that replicas have to start over.
    pub fn change_replication_ids(&mut self) {}
}
