//! Moving slots as a whole: the source sends everything by itself and hands the slots over at one moment, so that clients
//! see one redirection and nothing in between. Nodes that can both do that are asked to; the others have every slot opened
//! and its keys moved one by one (`move_slots`).

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Manager;
use super::node::{Node, NodeError};
use super::progress::count_keys;
use super::slots::SlotSet;
use super::view::View;
use crate::cli::term::say;
use crate::resp::reply_reader::Reply;

/// How often the source is asked how it stands.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// For so long all nodes are given to hear of the new owner.
const NEWS: Duration = Duration::from_secs(5);

/// Whether a node can move slots as a whole, on either side.
fn is_able(node: &mut Node) -> bool {
    let reply = node.words("COMMAND INFO cluster|migrateslots");
    reply.is_ok_and(|reply| reply.elements().is_some_and(|rows| rows.iter().any(|row| row.elements().is_some())))
}

/// Moves slots as a whole, and updates the view. `None` if one of both cannot do that, or does not want to.
pub(crate) fn move_whole(
    manager: &Manager,
    view: &mut View,
    source: usize,
    target: usize,
    slots: &[u16],
) -> Option<Result<(), NodeError>> {
    if slots.is_empty() || !is_able(&mut view.nodes[source]) || !is_able(&mut view.nodes[target]) {
        return None;
    }
    let drawn = manager.progress.borrow().is_shown();
    manager.progress.borrow_mut().route(&view.nodes[source].address(), &view.nodes[target].address());
    let keys = if drawn { count_keys(&mut view.nodes[source], slots) } else { 0 };
    let ranges = slots.iter().copied().collect::<SlotSet>().ranges();
    let id = view.nodes[target].id.clone();
    let numbers = ranges.iter().map(|(first, last)| format!("{first} {last}")).collect::<Vec<_>>().join(" ");
    let begun = view.nodes[source].words(&format!("CLUSTER MIGRATESLOTS SLOTSRANGE {numbers} NODE {id}"));
    if let Err(error) = begun {
        return match error {
            // Slots are open, for example: the other way tells what is wrong.
            NodeError::Refused(_) => None,
            lost => Some(Err(lost)),
        };
    }
    let shown = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(" ");
    let moved = wait_for_end(&mut view.nodes[source], &shown);
    if moved.is_ok() {
        for slot in slots {
            view.nodes[source].slots.remove(*slot);
            view.nodes[target].slots.insert(*slot);
            manager.progress.borrow_mut().slot_done();
        }
        manager.progress.borrow_mut().moved(keys, 0);
        wait_for_news(view);
    }
    Some(moved)
}

/// Waits until the job of these ranges is over.
fn wait_for_end(source: &mut Node, ranges: &str) -> Result<(), NodeError> {
    loop {
        let reply = source.words("CLUSTER GETSLOTMIGRATIONS")?;
        let jobs = reply.elements().unwrap_or_default();
        let field = |job: &Reply, name: &str| {
            let pairs = job.pairs();
            pairs.iter().find(|(key, _)| key.text_lossy() == name).map(|(_, value)| value.text_lossy())
        };
        // The newest comes first.
        let job = jobs.iter().find(|job| field(job, "slot_ranges").is_some_and(|text| text == ranges));
        let Some(job) = job else { return Err(NodeError::Refused("ERR The migration is gone".into())) };
        match field(job, "state").unwrap_or_default().as_str() {
            "success" => return Ok(()),
            state @ ("failed" | "cancelled") => {
                let message = field(job, "message").unwrap_or_default();
                return Err(NodeError::Refused(format!("ERR The migration of slots {ranges} {state}: {message}")));
            }
            _ => sleep(ASK_EVERY),
        }
    }
}

/// The new owner tells everybody: what comes next is to find that known.
fn wait_for_news(view: &mut View) {
    let start = Instant::now();
    while !view.is_consistent() && start.elapsed() < NEWS {
        sleep(ASK_EVERY);
    }
}

/// Says of each slot that it moves, as where they move one by one.
pub(crate) fn announce(view: &View, source: usize, target: usize, slots: &[u16]) {
    let (from, to) = (view.nodes[source].address(), view.nodes[target].address());
    slots.iter().for_each(|slot| say!("Moving slot {slot} from {from} to {to}: \n"));
}
