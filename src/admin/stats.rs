//! Counters of the server's work, as INFO stats has them.

use std::collections::BTreeMap;

/// Error codes counted apart; beyond it clients could grow the map at will.
const MAX_ERROR_CODES: usize = 128;

#[derive(Debug, Default)]
pub struct Stats {
    pub connections_received: u64,
    pub rejected_connections: u64,
    pub commands_processed: u64,
    pub net_input_bytes: u64,
    pub net_output_bytes: u64,
    pub net_repl_input_bytes: u64,
    pub net_repl_output_bytes: u64,
    pub total_error_replies: u64,
    pub client_query_buffer_limit_disconnections: u64,
    pub client_output_buffer_limit_disconnections: u64,
    pub evicted_clients: u64,
    /// Error replies to our master or the AOF: nobody expects any there.
    pub unexpected_error_replies: u64,
    pub dump_payload_sanitizations: u64,
    pub reads_processed: u64,
    pub writes_processed: u64,
    pub reply_buffer_shrinks: u64,
    pub reply_buffer_expands: u64,
    pub acl_denied_auth: u64,
    pub acl_denied_cmd: u64,
    pub acl_denied_key: u64,
    pub acl_denied_channel: u64,
    pub errors: BTreeMap<Vec<u8>, u64>,
}

impl Stats {
    pub fn count_error(&mut self, code: &[u8]) {
        self.total_error_replies += 1;
        if let Some(n) = self.errors.get_mut(code) {
            *n += 1;
        } else if self.errors.len() < MAX_ERROR_CODES {
            self.errors.insert(code.to_vec(), 1);
        }
    }

    pub fn note_input(&mut self, bytes: usize, from_master: bool) {
        if from_master {
            self.net_repl_input_bytes += bytes as u64;
        } else {
            self.net_input_bytes += bytes as u64;
        }
    }
}
