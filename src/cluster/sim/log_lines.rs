//! What nodes of a simulation log, each line with the time and the number of the node, if `HEXAD_SIM_LOG` says so.

use std::cell::Cell;

use super::NodeNo;

thread_local! {
    /// The node whose turn it is, and when that is.
    static TURN: Cell<(NodeNo, i64)> = const { Cell::new((0, 0)) };
}

struct Lines;

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let (no, ms) = TURN.get();
        println!("{ms:>7} node {no:<2} {}", record.args());
    }

    fn flush(&self) {}
}

pub(super) fn show_if_asked() {
    let asked = std::env::var("HEXAD_SIM_LOG").ok().and_then(|level| level.parse().ok());
    if let Some(level) = asked {
        // Another simulation may have asked before.
        let _ = log::set_logger(&Lines);
        log::set_max_level(level);
    }
}

/// What is logged from now on is of this node, so long after the beginning.
pub(super) fn are_of(no: NodeNo, ms: i64) {
    TURN.set((no, ms));
}
