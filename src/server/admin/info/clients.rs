//! INFO clients.

use super::InfoText;
use crate::server::Server;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    let (largest_input, largest_output) = srv.client_memory.recent_peaks();
    out.field("connected_clients", srv.clients_but_replicas());
    out.field("cluster_connections", srv.cluster_link_count());
    out.field("maxclients", srv.cfg.maxclients);
    out.field("client_recent_max_input_buffer", largest_input);
    out.field("client_recent_max_output_buffer", largest_output);
    out.field("blocked_clients", srv.blocked.clients.len() + srv.postponed.len());
    out.field("tracking_clients", srv.tracking_clients());
    out.field("clients_in_timeout_table", srv.blocked.deadline_count());
    let (keys, keys_on_nokey) = srv.blocking_key_counts();
    out.field("total_blocking_keys", keys);
    out.field("total_blocking_keys_on_nokey", keys_on_nokey);
}
