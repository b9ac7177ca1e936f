//! INFO persistence: the room's own text.

use super::InfoText;
use crate::server::Server;

pub(crate) fn write(srv: &Server, out: &mut InfoText) {
    // The room writes its heading, too, which stands already.
    let text = srv.info_persistence();
    out.lines(text.split_once("\r\n").map_or("", |(_, lines)| lines));
}
