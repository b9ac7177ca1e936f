//! Moving a slot from one node to another while clients use it.
//!
//! The order of steps keeps keys from getting lost. First the target is told that it imports, then the source that it
//! gives away. From then on the source sends clients to the target (`-ASK`) for keys it does not have, so it gets no
//! new keys, and MIGRATE moves each key in one step. When no key is left, the target is told first that the slot is its
//! own: should it fail right then, nobody has given the slot up. Then come the source and the other masters, so that
//! clients are redirected once at most.

use std::time::{Duration, Instant};

use super::node::{Node, NodeError};
use super::progress::weigh_keys;
use super::view::View;
use super::{Manager, Outcome, Stop, caution, err};
use crate::cli::term::say;
use crate::resp::reply_reader::Reply;

/// The source's error after it lost its last slot and became a replica of the target.
const BECAME_REPLICA: &str = "ERR Please use SETSLOT only with masters.";

/// For this long a target that says the cluster is down is asked again.
const JOINING: Duration = Duration::from_secs(5);

/// How to move a slot.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MoveOptions {
    /// Print a dot for every key.
    pub(crate) dots: bool,
    /// Move keys only and leave the configuration of the nodes alone.
    pub(crate) cold: bool,
    /// Print nothing else.
    pub(crate) quiet: bool,
}

/// Moves a slot with its keys, and updates the view.
pub(crate) fn move_slot(
    manager: &Manager,
    view: &mut View,
    source: usize,
    target: usize,
    slot: u16,
    how: MoveOptions,
) -> Result<(), NodeError> {
    let drawn = manager.progress.borrow().is_shown();
    let how = MoveOptions { dots: how.dots && !drawn, quiet: how.quiet || drawn, ..how };
    manager.progress.borrow_mut().route(&view.nodes[source].address(), &view.nodes[target].address());
    if !how.quiet {
        say!("Moving slot {slot} from {} to {}: ", view.nodes[source].address(), view.nodes[target].address());
    }
    let target_id = view.nodes[target].id.clone();
    let source_id = view.nodes[source].id.clone();
    if !how.cold {
        view.nodes[target].set_slot(slot, "IMPORTING", &source_id)?;
        view.nodes[source].set_slot(slot, "MIGRATING", &target_id)?;
    }
    let moved = move_keys(manager, view, source, target, slot, how.dots);
    if !how.quiet {
        say!("\n");
    }
    moved?;
    if how.cold {
        manager.progress.borrow_mut().slot_done();
        return Ok(());
    }
    view.nodes[target].set_slot(slot, "NODE", &target_id)?;
    tell_owner(view, source, target, slot)?;
    view.nodes[source].slots.remove(slot);
    view.nodes[target].slots.insert(slot);
    manager.progress.borrow_mut().slot_done();
    Ok(())
}

/// Tells the source and the other masters that the slot belongs to the target now. All are told at the same time, as
/// each writes its configuration to disk before it answers.
fn tell_owner(view: &mut View, source: usize, target: usize, slot: u16) -> Result<(), NodeError> {
    let command = format!("CLUSTER SETSLOT {slot} NODE {}", view.nodes[target].id);
    let command: Vec<&str> = command.split(' ').collect();
    let others = view.masters().into_iter().filter(|at| *at != target && *at != source);
    let told: Vec<usize> = std::iter::once(source).chain(others).collect();
    let sent: Vec<_> = told.iter().map(|at| view.nodes[*at].send(&command)).collect();
    let mut result = Ok(());
    for (at, sent) in told.into_iter().zip(sent) {
        let outcome = sent.and_then(|()| view.nodes[at].receive().map(drop));
        match outcome {
            Err(NodeError::Refused(text)) if at == source && text.starts_with(BECAME_REPLICA) => {}
            outcome => result = result.and(outcome),
        }
    }
    result
}

/// As [`move_slot`], but prints the error.
pub(crate) fn must_move_slot(
    manager: &Manager,
    view: &mut View,
    source: usize,
    target: usize,
    slot: u16,
    how: MoveOptions,
) -> Outcome {
    move_slot(manager, view, source, target, slot, how).map_err(|error| view.nodes[source].complain(&error))
}

fn move_keys(
    manager: &Manager,
    view: &mut View,
    source: usize,
    target: usize,
    slot: u16,
    dots: bool,
) -> Result<(), NodeError> {
    let list = format!("CLUSTER GETKEYSINSLOT {slot} {}", manager.options().pipeline.max(1));
    loop {
        let reply = view.nodes[source].words(&list)?;
        let keys: Vec<Vec<u8>> =
            reply.elements().unwrap_or_default().iter().map(|key| key.text().unwrap_or_default().to_vec()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let drawn = manager.progress.borrow().is_shown();
        let bytes = if drawn { weigh_keys(&mut view.nodes[source], &keys) } else { 0 };
        match migrate(manager, view, source, target, &keys, false) {
            Ok(_) => {}
            Err(NodeError::Refused(text)) => {
                let replace = resolve(manager, view, (source, target, slot), &keys, text)?;
                migrate(manager, view, source, target, &keys, replace).inspect_err(|error| {
                    say!("\n");
                    view.nodes[source].complain(error);
                })?;
            }
            Err(lost) => return Err(lost),
        }
        manager.progress.borrow_mut().moved(keys.len() as u64, bytes);
        if dots {
            say!("{}", ".".repeat(keys.len()));
        }
    }
}

fn migrate(
    manager: &Manager,
    view: &mut View,
    source: usize,
    target: usize,
    keys: &[Vec<u8>],
    replace: bool,
) -> Result<Reply, NodeError> {
    let (source, target) = view.pair(source, target);
    let port = target.port.to_string();
    let timeout = manager.options().timeout_ms.to_string();
    let mut args: Vec<&[u8]> = vec![b"MIGRATE", target.host.as_bytes(), port.as_bytes(), b"", b"0", timeout.as_bytes()];
    if replace {
        args.push(b"REPLACE");
    }
    push_login(&manager.opts, &mut args);
    args.push(b"KEYS");
    args.extend(keys.iter().map(Vec::as_slice));
    let started = Instant::now();
    loop {
        match source.call(&args) {
            // A master that has just joined refuses writes for a moment.
            Err(NodeError::Refused(text)) if text.contains("CLUSTERDOWN") && started.elapsed() < JOINING => {
                std::thread::sleep(Duration::from_millis(100));
            }
            outcome => return outcome,
        }
    }
}

/// The arguments by which MIGRATE logs in at the target.
pub(crate) fn push_login<'a>(opts: &'a crate::cli::options::Options, args: &mut Vec<&'a [u8]>) {
    let Some(password) = &opts.auth else { return };
    match &opts.user {
        Some(user) => args.extend([&b"AUTH2"[..], user, password]),
        None => args.extend([&b"AUTH"[..], password]),
    }
}

/// Decides what to do after MIGRATE failed: try again, with keys of the target replaced
/// (true) or not (false), or give up.
fn resolve(
    manager: &Manager,
    view: &mut View,
    (source, target, slot): (usize, usize, u16),
    keys: &[Vec<u8>],
    text: String,
) -> Result<bool, NodeError> {
    if !text.contains("BUSYKEY") {
        let served = is_served(&mut view.nodes[source], slot)?;
        if served {
            say!("\n");
            let error = NodeError::Refused(text);
            view.nodes[source].complain(&error);
            return Err(error);
        }
        if manager.fix {
            caution!("*** Slot was not served, setting owner to node {}.\n", view.nodes[target].address());
            let id = view.nodes[target].id.clone();
            let _ = view.nodes[source].must_set_slot(slot, "NODE", &id);
        }
        return Ok(false);
    }
    caution!("\n*** Target key exists\n");
    if !manager.options().replace {
        caution!("*** Checking key values on both nodes...\n");
        let Ok(different) = different_keys(view, source, target, keys) else {
            err!("*** Value check failed!\n");
            return Err(NodeError::Refused(text));
        };
        if !different.is_empty() {
            err!(
                "*** Found {} key(s) in both source node and target node having different values.\n    \
                 Source node: {}\n    Target node: {}\n    Keys(s):\n",
                different.len(),
                view.nodes[source].address(),
                view.nodes[target].address()
            );
            for key in different {
                err!("    - {}\n", String::from_utf8_lossy(&key));
            }
            err!(
                "Please fix the above key(s) manually and try again or relaunch the command \n\
                 with --cluster-replace option to force key overriding.\n"
            );
            return Err(NodeError::Refused(text));
        }
    }
    caution!("*** Replacing target keys...\n");
    Ok(true)
}

/// Whether the node knows an owner of the slot.
pub(crate) fn is_served(node: &mut Node, slot: u16) -> Result<bool, NodeError> {
    let reply = node.words("CLUSTER SLOTS")?;
    let number = |part: &Reply| part.integer().unwrap_or(-1);
    Ok(reply.elements().unwrap_or_default().iter().filter_map(Reply::elements).any(|range| match range {
        [first, last, ..] => (number(first)..=number(last)).contains(&i64::from(slot)),
        _ => false,
    }))
}

/// Keys that exist at both nodes with different values.
fn different_keys(view: &mut View, source: usize, target: usize, keys: &[Vec<u8>]) -> Outcome<Vec<Vec<u8>>> {
    const MISSING: &str = "0000000000000000000000000000000000000000";
    let mut args: Vec<&[u8]> = vec![b"DEBUG", b"DIGEST-VALUE"];
    args.extend(keys.iter().map(Vec::as_slice));
    let mut digests = |at: usize| -> Outcome<Vec<String>> {
        let reply = view.nodes[at].must(&args)?;
        let digests = reply.elements().unwrap_or_default();
        if digests.len() != keys.len() {
            return Err(Stop);
        }
        Ok(digests.iter().map(Reply::text_lossy).collect())
    };
    let (here, there) = (digests(source)?, digests(target)?);
    Ok(keys
        .iter()
        .zip(here.iter().zip(&there))
        .filter(|(_, (a, b))| *a != MISSING && *b != MISSING && a != b)
        .map(|(key, _)| key.clone())
        .collect())
}
