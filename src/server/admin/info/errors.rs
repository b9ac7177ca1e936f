//! INFO errorstats: error replies by their code.

use super::{InfoText, safe};
use crate::server::Server;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    for (code, count) in &srv.stats.errors {
        out.field(&format!("errorstat_{}", safe(code)), format_args!("count={count}"));
    }
}
