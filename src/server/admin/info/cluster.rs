//! INFO cluster.

use super::InfoText;
use crate::server::Server;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    out.flag("cluster_enabled", srv.cfg.cluster_enabled);
}
