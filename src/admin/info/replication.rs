//! INFO replication.

use super::InfoText;
use crate::server::Server;

pub fn write(srv: &Server, out: &mut InfoText) {
    out.field("role", if srv.is_replica() { "slave" } else { "master" });
    out.field("connected_slaves", 0);
    out.field("master_failover_state", "no-failover");
    out.field("master_replid", &srv.run_id);
    out.field("master_replid2", "0".repeat(40));
    out.field("master_repl_offset", srv.repl_offset());
    out.field("second_repl_offset", -1);
    out.field("repl_backlog_active", 0);
    out.field("repl_backlog_size", srv.cfg.repl_backlog_size);
    out.field("repl_backlog_first_byte_offset", 0);
    out.field("repl_backlog_histlen", 0);
}
