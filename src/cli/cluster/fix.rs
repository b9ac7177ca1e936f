//! Repairs: slots left open by an unfinished move, slots nobody serves, slots that several masters claim.
//!
//! Keys decide. Whatever the configuration says, a repair moves all keys of a slot to the node that gets the slot.

use std::process::exit;

use super::move_slots::{MoveOptions, is_served, must_move_slot};
use super::node::{Node, NodeError};
use super::slots::{self, SLOTS, SlotSet};
use super::view::View;
use super::{Manager, Outcome, Stop, caution, err, info};
use crate::cli::term::say;
use crate::resp::reply_reader::Reply;

const DOTS: MoveOptions = MoveOptions { dots: true, cold: false, quiet: false };
const DOTS_COLD: MoveOptions = MoveOptions { dots: true, cold: true, quiet: false };

/// Ends the program when a master is unreachable, unless the user insists: these repairs need to see every master.
fn require_all_masters(manager: &Manager, view: &View, what: &str) {
    let missing = view.unreachable_masters;
    if missing > 0 && !manager.options().fix_with_unreachable_masters {
        caution!(
            "*** Fixing {what} with {missing} unreachable masters is dangerous: redis-cli will assume that slots about masters that are not reachable are not covered, and will try to reassign them to the reachable nodes. This can cause data loss and is rarely what you want to do. If you really want to proceed use the --cluster-fix-with-unreachable-masters option.\n"
        );
        exit(1);
    }
}

/// Slots that one transaction gives to a node: it saves its table once for all of them.
const SLOTS_AT_ONCE: usize = 1024;

/// Makes a node the owner of slots, in one transaction. `close`: none of them is open afterwards.
fn take_ownership(node: &mut Node, slots: &[u16], close: bool) -> Outcome {
    let of = |words: &[&str], slots: &[u16]| -> Vec<String> {
        words.iter().map(ToString::to_string).chain(slots.iter().map(ToString::to_string)).collect()
    };
    let mut steps = vec![of(&["MULTI"], &[])];
    steps.extend(slots.chunks(1).map(|slot| of(&["CLUSTER", "DELSLOTS"], slot)));
    steps.push(of(&["CLUSTER", "ADDSLOTS"], slots));
    if close {
        let closing = slots.iter().map(|slot| of(&["CLUSTER", "SETSLOT", &slot.to_string(), "STABLE"], &[]));
        steps.extend(closing);
    }
    steps.extend([of(&["CLUSTER", "BUMPEPOCH"], &[]), of(&["EXEC"], &[])]);
    let mut replies = node.must_pipeline(&steps)?;
    let is_error = |reply: &&Reply| matches!(reply, Reply::Error(_));
    let executed = replies.pop();
    // Only that the slots are added has to succeed: one may have had no owner before.
    let added = executed.as_ref().and_then(Reply::elements).and_then(|replies| replies.get(slots.len()));
    match (replies.iter().find(is_error), added) {
        (Some(Reply::Error(text)), _) | (None, Some(Reply::Error(text))) => {
            Err(node.complain(&NodeError::Refused(String::from_utf8_lossy(text).into_owned())))
        }
        (None, Some(_)) => {
            for slot in slots {
                node.slots.insert(*slot);
            }
            Ok(())
        }
        _ => Err(Stop),
    }
}

/// Makes a node forget who owns a slot. Not an error if it never knew.
fn forget_owner(node: &mut Node, slot: u16) -> Outcome {
    match node.words(&format!("CLUSTER DELSLOTS {slot}")) {
        Ok(_) => Ok(()),
        Err(error) => match is_served(node, slot) {
            Ok(false) => Ok(()),
            _ => Err(node.complain(&error)),
        },
    }
}

/// Among these masters the one with most keys of the slot.
fn with_most_keys(view: &mut View, among: &[usize], slot: u16) -> Outcome<Option<usize>> {
    let mut best: Option<(i64, usize)> = None;
    for at in among.iter().copied() {
        if view.nodes[at].is_replica() {
            continue;
        }
        let count = view.nodes[at].count_keys(slot)?;
        if best.is_none_or(|(most, _)| count > most) {
            best = Some((count, at));
        }
    }
    Ok(best.map(|(_, at)| at))
}

fn addresses(view: &View, nodes: &[usize]) -> String {
    let list: Vec<String> = nodes.iter().map(|at| view.nodes[*at].address()).collect();
    list.join(",")
}

/// For each of these slots a node where it is open: the one to take its keys from.
pub(crate) fn keyholders(view: &View, slots: impl Iterator<Item = u16>) -> Vec<(usize, u16)> {
    let holds = |open: &[(u16, String)], slot: u16| open.iter().any(|(other, _)| *other == slot);
    slots
        .filter_map(|slot| {
            let migrating = view.nodes.iter().position(|node| holds(&node.migrating, slot));
            let at = migrating.or_else(|| view.nodes.iter().position(|node| holds(&node.importing, slot)))?;
            Some((at, slot))
        })
        .collect()
}

/// Closes a slot that some node has as migrating or importing.
pub(crate) fn open_slot(manager: &Manager, view: &mut View, slot: u16) -> Outcome {
    require_all_masters(manager, view, "open slots");
    info!(">>> Fixing open slot {slot}\n");
    let masters = view.masters();
    let claims = claims(view, &masters, slot)?;
    let owner = if let [only] = claims[..] { Some(only) } else { None };
    let (mut migrating, mut importing) = where_open(view, &masters, slot, owner)?;
    let owner = match owner {
        Some(owner) => owner,
        None => {
            let chosen = choose_owner(view, &masters, slot)?;
            migrating.retain(|at| *at != chosen);
            importing.retain(|at| *at != chosen);
            chosen
        }
    };
    if claims.len() > 1 {
        // The others become importers, which one of the cases below then empties.
        let owner_id = view.nodes[owner].id.clone();
        for at in claims.into_iter().filter(|at| *at != owner) {
            let node = &mut view.nodes[at];
            forget_owner(node, slot)?;
            node.slots.remove(slot);
            node.must_set_slot(slot, "NODE", &owner_id)?;
            node.must_set_slot(slot, "IMPORTING", &owner_id)?;
            importing.retain(|other| *other != at);
            importing.push(at);
            migrating.retain(|other| *other != at);
        }
    }
    close_open_slot(manager, view, slot, owner, &migrating, &importing)
}

/// The masters that have a slot or keys of it.
fn claims(view: &mut View, masters: &[usize], slot: u16) -> Outcome<Vec<usize>> {
    let mut claims = Vec::new();
    for at in masters {
        let node = &mut view.nodes[*at];
        if node.slots.contains(slot) {
            claims.push(*at);
        } else if node.count_keys(slot)? > 0 {
            caution!("*** Found keys about slot {slot} in non-owner node {}!\n", node.address());
            claims.push(*at);
        }
    }
    Ok(claims)
}

/// The masters that give a slot away, and those that import it or have keys of it, but for the owner.
fn where_open(
    view: &mut View,
    masters: &[usize],
    slot: u16,
    owner: Option<usize>,
) -> Outcome<(Vec<usize>, Vec<usize>)> {
    let (mut migrating, mut importing) = (Vec::new(), Vec::new());
    for at in masters {
        let node = &mut view.nodes[*at];
        if node.migrating.iter().any(|(open, _)| *open == slot) {
            migrating.push(*at);
        } else if node.importing.iter().any(|(open, _)| *open == slot) {
            importing.push(*at);
        } else if owner != Some(*at) && node.count_keys(slot)? > 0 {
            caution!("*** Found keys about slot {slot} in node {}!\n", node.address());
            importing.push(*at);
        }
    }
    for (what, nodes) in [("migrating", &migrating), ("importing", &importing)] {
        if !nodes.is_empty() {
            say!("Set as {what} in: {}\n", addresses(view, nodes));
        }
    }
    Ok((migrating, importing))
}

/// Makes the master with most keys of a slot its owner.
fn choose_owner(view: &mut View, masters: &[usize], slot: u16) -> Outcome<usize> {
    info!(">>> No single clear owner for the slot, selecting an owner by # of keys...\n");
    let Some(chosen) = with_most_keys(view, masters, slot)? else {
        err!("[ERR] Can't select a slot owner. Impossible to fix.\n");
        return Err(Stop);
    };
    let node = &mut view.nodes[chosen];
    caution!("*** Configuring {} as the slot owner\n", node.address());
    node.close_slot(slot)?;
    take_ownership(node, &[slot], false)?;
    Ok(chosen)
}

fn close_open_slot(
    manager: &Manager,
    view: &mut View,
    slot: u16,
    owner: usize,
    migrating: &[usize],
    importing: &[usize],
) -> Outcome {
    match (migrating, importing) {
        ([source], [target]) => {
            info!(
                ">>> Case 1: Moving slot {slot} from {} to {}\n",
                view.nodes[*source].address(),
                view.nodes[*target].address()
            );
            must_move_slot(manager, view, *source, *target, slot, DOTS)
        }
        ([], [_, ..]) => gather_at_owner(manager, view, slot, owner, importing),
        ([source], [_, _, ..]) => {
            let wanted = view.nodes[*source].migrating.iter().find(|(open, _)| *open == slot).map(|(_, id)| id.clone());
            let mut target = None;
            for at in importing {
                if view.nodes[*at].count_keys(slot)? > 0 {
                    return Err(not_handled(view, slot, owner, migrating, importing));
                }
                if Some(&view.nodes[*at].id) == wanted.as_ref() {
                    target = Some(*at);
                }
            }
            finish_or_close(manager, view, slot, *source, target, importing)
        }
        ([only], []) => {
            let harmless = *only == owner || view.nodes[*only].count_keys(slot)? == 0;
            if !harmless {
                return Err(not_handled(view, slot, owner, migrating, importing));
            }
            info!(">>> Case 4: Closing slot {slot} on {}\n", view.nodes[*only].address());
            view.nodes[*only].close_slot(slot)
        }
        // The owner was the only one to have it open, and closed it when it was chosen.
        ([], []) => Ok(()),
        _ => Err(not_handled(view, slot, owner, migrating, importing)),
    }
}

/// No node gives the slot away, some hold keys of it: the owner gets the keys.
fn gather_at_owner(manager: &Manager, view: &mut View, slot: u16, owner: usize, importing: &[usize]) -> Outcome {
    info!(">>> Case 2: Moving all the {slot} slot keys to its owner {}\n", view.nodes[owner].address());
    for at in importing.iter().copied().filter(|at| *at != owner) {
        must_move_slot(manager, view, at, owner, slot, DOTS_COLD)?;
        info!(">>> Setting {slot} as STABLE in {}\n", view.nodes[at].address());
        view.nodes[at].close_slot(slot)?;
    }
    if importing.contains(&owner) {
        view.nodes[owner].close_slot(slot)?;
    }
    let owner_id = view.nodes[owner].id.clone();
    for at in view.masters().into_iter().filter(|at| *at != owner) {
        view.nodes[at].must_set_slot(slot, "NODE", &owner_id)?;
    }
    Ok(())
}

/// One node gives the slot away and many import it, none with keys: the one that the giver names gets it, or nobody
/// does.
fn finish_or_close(
    manager: &Manager,
    view: &mut View,
    slot: u16,
    source: usize,
    target: Option<usize>,
    importing: &[usize],
) -> Outcome {
    match target {
        Some(target) => {
            info!(
                ">>> Case 3: Moving slot {slot} from {} to {} and closing it on all the other importing nodes.\n",
                view.nodes[source].address(),
                view.nodes[target].address()
            );
            must_move_slot(manager, view, source, target, slot, DOTS)?;
        }
        None => {
            info!(">>> Case 3: Closing slot {slot} on both migrating and importing nodes.\n");
            view.nodes[source].close_slot(slot)?;
        }
    }
    for at in importing.iter().filter(|at| Some(**at) != target) {
        view.nodes[*at].close_slot(slot)?;
    }
    Ok(())
}

fn not_handled(view: &View, slot: u16, owner: usize, migrating: &[usize], importing: &[usize]) -> Stop {
    err!(
        "[ERR] Sorry, redis-cli can't fix slot {slot}: it is set as migrating in {}, as importing in {}, owner is {}\n",
        addresses(view, migrating),
        addresses(view, importing),
        view.nodes[owner].address()
    );
    Stop
}

/// Finds owners for slots that have none; returns how many slots got one.
pub(crate) fn coverage(manager: &mut Manager, view: &mut View, covered: &SlotSet) -> Outcome<usize> {
    require_all_masters(manager, view, "slots coverage");
    info!(">>> Fixing slots coverage...\n");
    let masters = view.masters();
    let (mut none, mut single, mut multi) = (SlotSet::default(), Vec::new(), Vec::new());
    let uncovered: Vec<u16> = (0..SLOTS).filter(|slot| !covered.contains(*slot)).collect();
    let mut holders = vec![Vec::new(); uncovered.len()];
    for at in &masters {
        let counts = view.nodes[*at].count_keys_of(&uncovered)?;
        holders.iter_mut().zip(counts).filter(|(_, count)| *count > 0).for_each(|(holders, _)| holders.push(*at));
    }
    for (slot, holders) in uncovered.into_iter().zip(holders) {
        match holders.as_slice() {
            [] => drop(none.insert(slot)),
            [only] => single.push((slot, *only)),
            _ => multi.push((slot, holders)),
        }
    }
    let mut fixed = 0;
    // These questions are asked even with --cluster-yes.
    if !none.is_empty() {
        say!("The following uncovered slots have no keys across the cluster:\n{}\n", slots::text(&none));
        if manager.confirm("Fix these slots by covering with a random node?", true) {
            let chosen = masters[fastrand::usize(..masters.len())];
            let slots: Vec<u16> = none.iter().collect();
            cover(view, &slots, chosen)?;
            fixed += slots.len();
        }
    }
    if !single.is_empty() {
        let list = slots::text(&single.iter().map(|(slot, _)| *slot).collect());
        say!("The following uncovered slots have keys in just one node:\n{list}\n");
        if manager.confirm("Fix these slots by covering with those nodes?", true) {
            for holder in &masters {
                let slots: Vec<u16> = single.iter().filter(|(_, at)| at == holder).map(|(slot, _)| *slot).collect();
                cover(view, &slots, *holder)?;
                fixed += slots.len();
            }
        }
    }
    if !multi.is_empty() {
        let list = slots::text(&multi.iter().map(|(slot, _)| *slot).collect());
        say!("The following uncovered slots have keys in multiple nodes:\n{list}\n");
        if manager.confirm("Fix these slots by moving keys into a single node?", true) {
            let moves: Vec<(usize, u16)> =
                multi.iter().flat_map(|(slot, holders)| holders.iter().skip(1).map(|at| (*at, *slot))).collect();
            manager.begin_progress("Uniting keys", view, &moves);
            for (slot, holders) in multi {
                unite(manager, view, slot, &holders)?;
                fixed += 1;
            }
            manager.end_progress();
        }
    }
    Ok(fixed)
}

fn cover(view: &mut View, slots: &[u16], at: usize) -> Outcome {
    let node = &mut view.nodes[at];
    for some in slots.chunks(SLOTS_AT_ONCE) {
        some.iter().for_each(|slot| info!(">>> Covering slot {slot} with {}\n", node.address()));
        take_ownership(node, some, false)?;
    }
    Ok(())
}

/// Gives a slot to the node with most of its keys and moves the others there.
fn unite(manager: &Manager, view: &mut View, slot: u16, holders: &[usize]) -> Outcome {
    let target = with_most_keys(view, holders, slot)?.ok_or(Stop)?;
    let node = &mut view.nodes[target];
    info!(">>> Covering slot {slot} moving keys to {}\n", node.address());
    take_ownership(node, &[slot], true)?;
    let target_id = node.id.clone();
    for source in holders.iter().copied().filter(|at| *at != target) {
        let node = &mut view.nodes[source];
        node.must_set_slot(slot, "NODE", &target_id)?;
        // An importing node may run MIGRATE on keys of a slot that is not its own.
        node.must_set_slot(slot, "IMPORTING", &target_id)?;
        must_move_slot(manager, view, source, target, slot, DOTS_COLD)?;
        view.nodes[source].close_slot(slot)?;
    }
    Ok(())
}

/// Settles a slot that several masters claim.
pub(crate) fn contested_slot(manager: &Manager, view: &mut View, slot: u16, owners: &[usize]) -> Outcome {
    info!(">>> Fixing multiple owners for slot {slot}...\n");
    let owner = with_most_keys(view, owners, slot)?.unwrap_or(owners[0]);
    info!(">>> Setting slot {slot} owner: {}\n", view.nodes[owner].address());
    take_ownership(&mut view.nodes[owner], &[slot], false)?;
    let owner_id = view.nodes[owner].id.clone();
    for at in view.masters().into_iter().filter(|at| *at != owner) {
        let node = &mut view.nodes[at];
        let keys = node.count_keys(slot)?;
        forget_owner(node, slot)?;
        node.slots.remove(slot);
        node.must_set_slot(slot, "NODE", &owner_id)?;
        if keys > 0 {
            node.must_set_slot(slot, "IMPORTING", &owner_id)?;
            must_move_slot(manager, view, at, owner, slot, DOTS_COLD)?;
            view.nodes[at].close_slot(slot)?;
        }
    }
    Ok(())
}
