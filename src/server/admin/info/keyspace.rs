//! INFO keyspace.

use super::InfoText;
use crate::server::Server;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    for (i, db) in srv.ks.dbs.iter().enumerate().filter(|(_, db)| !db.is_empty()) {
        let value =
            format_args!("keys={},expires={},avg_ttl={}", db.len(), db.expires_len(), db.avg_ttl_ms).to_string();
        out.field(&format!("db{i}"), value);
    }
}
