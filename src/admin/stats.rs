//! Counters of the server's work, as INFO stats has them.

use std::collections::BTreeMap;

/// Error codes counted separately; without a bound clients could grow the map at will.
const MAX_ERROR_CODES: usize = 128;

#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) connections_received: u64,
    pub(crate) rejected_connections: u64,
    pub(crate) commands_processed: u64,
    pub(crate) net_input_bytes: u64,
    pub(crate) net_output_bytes: u64,
    pub(crate) net_repl_input_bytes: u64,
    pub(crate) net_repl_output_bytes: u64,
    pub(crate) total_error_replies: u64,
    pub(crate) client_query_buffer_limit_disconnections: u64,
    pub(crate) client_output_buffer_limit_disconnections: u64,
    pub(crate) evicted_clients: u64,
    /// Error replies to commands of our master or the AOF, where none are expected.
    pub(crate) unexpected_error_replies: u64,
    pub(crate) dump_payload_sanitizations: u64,
    pub(crate) reads_processed: u64,
    pub(crate) writes_processed: u64,
    pub(crate) reply_buffer_shrinks: u64,
    pub(crate) reply_buffer_expands: u64,
    pub(crate) acl_denied_auth: u64,
    pub(crate) acl_denied_cmd: u64,
    pub(crate) acl_denied_key: u64,
    pub(crate) acl_denied_channel: u64,
    pub(crate) errors: BTreeMap<Vec<u8>, u64>,
}

impl Stats {
    pub(crate) fn count_error(&mut self, code: &[u8]) {
        self.total_error_replies += 1;
        if let Some(n) = self.errors.get_mut(code) {
            *n += 1;
        } else if self.errors.len() < MAX_ERROR_CODES {
            self.errors.insert(code.to_vec(), 1);
        }
    }

    pub(crate) fn note_input(&mut self, bytes: usize, from_master: bool) {
        if from_master {
            self.net_repl_input_bytes += bytes as u64;
        } else {
            self.net_input_bytes += bytes as u64;
        }
    }
}
