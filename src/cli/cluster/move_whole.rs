//! Moving slots as a whole: the source sends everything to the target, and hands the slots over at one moment, so that
//! clients see one redirection and nothing in between. Nodes that can both do that in the same way are asked to; the others
//! have every slot opened and its keys moved one by one (`move_slots`).

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::Manager;
use super::node::{Node, NodeError};
use super::progress::count_keys;
use super::slots::SlotSet;
use super::view::View;
use crate::cli::term::say;
use crate::resp::reply_reader::Reply;

/// How often the node that moves them is asked how it stands.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// For so long all nodes are given to hear of the new owner.
const NEWS: Duration = Duration::from_secs(5);
/// Attempts of a target that failed before it is told to give up.
const ATTEMPTS: i64 = 3;

/// Who is asked to move slots as a whole.
#[derive(Clone, Copy)]
enum Way {
    /// The source, as in Valkey 9.
    Push,
    /// The target, as in Redis 8.4.
    Pull,
}

fn way(source: &mut Node, target: &mut Node) -> Option<Way> {
    let knows = |node: &mut Node, command: &str| {
        let reply = node.words(&format!("COMMAND INFO {command}"));
        reply.is_ok_and(|reply| reply.elements().is_some_and(|rows| rows.iter().any(|row| row.elements().is_some())))
    };
    let mut both = |command| knows(source, command) && knows(target, command);
    if both("cluster|migrateslots") { Some(Way::Push) } else { both("cluster|migration").then_some(Way::Pull) }
}

/// Moves slots as a whole, and updates the view. `None` if one of both cannot do that, or does not want to.
pub(crate) fn move_whole(
    manager: &Manager,
    view: &mut View,
    source: usize,
    target: usize,
    slots: &[u16],
) -> Option<Result<(), NodeError>> {
    if slots.is_empty() || source == target {
        return None;
    }
    let [from, to] = view.nodes.get_disjoint_mut([source, target]).ok()?;
    let way = way(from, to)?;
    let drawn = manager.progress.borrow().is_shown();
    manager.progress.borrow_mut().route(&view.nodes[source].address(), &view.nodes[target].address());
    let keys = if drawn { count_keys(&mut view.nodes[source], slots) } else { 0 };
    let ranges = slots.iter().copied().collect::<SlotSet>().ranges();
    let id = view.nodes[target].id.clone();
    let numbers = ranges.iter().map(|(first, last)| format!("{first} {last}")).collect::<Vec<_>>().join(" ");
    let begun = match way {
        Way::Push => view.nodes[source].words(&format!("CLUSTER MIGRATESLOTS SLOTSRANGE {numbers} NODE {id}")),
        Way::Pull => view.nodes[target].words(&format!("CLUSTER MIGRATION IMPORT {numbers}")),
    };
    let shown = ranges.iter().map(|(first, last)| format!("{first}-{last}")).collect::<Vec<_>>().join(" ");
    let moved = match (way, begun) {
        // Slots are open, for example: the other way tells what is wrong.
        (_, Err(NodeError::Refused(_))) => return None,
        (_, Err(lost)) => return Some(Err(lost)),
        (Way::Push, Ok(_)) => wait_for_end(&mut view.nodes[source], &shown),
        (Way::Pull, Ok(id)) => wait_for_task(manager, &mut view.nodes[target], &id.text_lossy(), &shown),
    };
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

fn field(job: &Reply, name: &str) -> Option<String> {
    let pairs = job.pairs();
    pairs.iter().find(|(key, _)| key.text_lossy() == name).map(|(_, value)| value.text_lossy())
}

/// Waits until the task of a target is over. It would try for ever by itself.
fn wait_for_task(manager: &Manager, target: &mut Node, id: &str, ranges: &str) -> Result<(), NodeError> {
    loop {
        let reply = match target.words(&format!("CLUSTER MIGRATION STATUS ID {id}")) {
            Ok(reply) => reply,
            Err(error) => return Err(give_task_up(manager, target, id, error)),
        };
        let Some(task) = reply.elements().and_then(|tasks| tasks.first()) else {
            return Err(NodeError::Refused("ERR The migration is gone".into()));
        };
        let failed = || {
            let message = field(task, "last_error").unwrap_or_default();
            NodeError::Refused(format!("ERR The migration of slots {ranges} failed: {message}"))
        };
        let retries = field(task, "retries").and_then(|text| text.parse().ok()).unwrap_or(0);
        match field(task, "state").unwrap_or_default().as_str() {
            "completed" => return Ok(()),
            "canceled" => return Err(failed()),
            "failed" if retries >= ATTEMPTS => {
                let error = failed();
                target.words(&format!("CLUSTER MIGRATION CANCEL ID {id}"))?;
                return Err(error);
            }
            _ => sleep(ASK_EVERY),
        }
    }
}

/// Cancels a task of which the target does not tell any more; or says that it goes on.
fn give_task_up(manager: &Manager, target: &mut Node, id: &str, error: NodeError) -> NodeError {
    let cancel = format!("CLUSTER MIGRATION CANCEL ID {id}");
    let is_reached = target.is_connected() || target.connect_quietly(&manager.opts);
    if is_reached && target.words(&cancel).is_ok() {
        return error;
    }
    let address = target.address();
    NodeError::Refused(format!("ERR {error}. The node at {address} goes on with the migration unless told: {cancel}"))
}

/// Waits until the job of these ranges is over.
fn wait_for_end(source: &mut Node, ranges: &str) -> Result<(), NodeError> {
    loop {
        let reply = match source.words("CLUSTER GETSLOTMIGRATIONS") {
            // It gave its last slots away, and loads what its new master has.
            Err(NodeError::Refused(text)) if text.starts_with("LOADING") => {
                sleep(ASK_EVERY);
                continue;
            }
            reply => reply?,
        };
        let jobs = reply.elements().unwrap_or_default();
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
