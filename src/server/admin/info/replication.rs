//! INFO replication: the room's own text.

use super::InfoText;
use crate::server::Server;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    out.lines(&srv.replication_info());
}
