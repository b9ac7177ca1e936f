//! `--cluster reshard`: moves slots from some nodes to another one.

use super::move_slots::{MoveOptions, move_slot};
use super::move_whole::{announce, move_whole};
use super::slots::{SLOTS, SlotSet};
use super::view::View;
use super::{Manager, Outcome, Stop, check, err, plan};
use crate::cli::options::leading_int;
use crate::cli::term::{complain, say};

pub(crate) fn reshard(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let mut view = manager.load(args)?;
    let _ = check::examine(manager, &mut view, false)?;
    if !view.errors.is_empty() {
        complain!("*** Please fix your cluster problems before resharding\n");
        return Err(Stop);
    }
    let count = how_many(manager)?;
    let target = receiving_node(manager, &view)?;
    let sources = source_nodes(manager, &view, target)?;
    if sources.is_empty() {
        complain!("*** No source nodes given, operation aborted.\n");
        return Err(Stop);
    }
    say!("\nReady to move {count} slots.\n  Source nodes:\n");
    for source in &sources {
        say!("{}\n", view.nodes[*source].describe(4));
    }
    say!("  Destination node:\n{}\n", view.nodes[target].describe(4));
    let sets: Vec<&SlotSet> = sources.iter().map(|at| &view.nodes[*at].slots).collect();
    let table = plan::reshard(&sets, count);
    let mut text = String::from("  Resharding plan:\n");
    for (source, slot) in &table {
        let id = &view.nodes[sources[*source]].id;
        text.push_str(&format!("    Moving slot {slot} from {id}\n"));
    }
    say!("{text}");
    if !manager.options().yes {
        say!("Do you want to proceed with the proposed reshard plan (yes/no)? ");
        if manager.answer()? != "yes" {
            return Err(Stop);
        }
    }
    let how = MoveOptions { dots: true, ..MoveOptions::default() };
    let moves: Vec<(usize, u16)> = table.iter().map(|(source, slot)| (sources[*source], *slot)).collect();
    manager.begin_progress("Resharding", &mut view, &moves);
    for of_source in moves.chunk_by(|(a, _), (b, _)| a == b) {
        let source = of_source[0].0;
        let slots: Vec<u16> = of_source.iter().map(|(_, slot)| *slot).collect();
        let moved = match move_whole(manager, &mut view, source, target, &slots) {
            Some(moved) => moved.inspect(|()| {
                if !manager.progress.borrow().is_shown() {
                    announce(&view, source, target, &slots);
                }
            }),
            None => slots.iter().try_for_each(|slot| move_slot(manager, &mut view, source, target, *slot, how)),
        };
        if let Err(error) = moved {
            err!("clusterManagerMoveSlot failed: {error}\n");
            return Err(Stop);
        }
    }
    manager.end_progress();
    Ok(())
}

fn how_many(manager: &mut Manager) -> Outcome<usize> {
    let mut count = manager.options().slots;
    while !(1..=i64::from(SLOTS)).contains(&count) {
        say!("How many slots do you want to move (from 1 to {SLOTS})? ");
        count = leading_int(manager.answer()?.as_bytes());
    }
    usize::try_from(count).map_err(|_| Stop)
}

fn receiving_node(manager: &mut Manager, view: &View) -> Outcome<usize> {
    let mut id = manager.options().to.clone().unwrap_or_default();
    while id.is_empty() {
        say!("What is the receiving node ID? ");
        id = manager.answer()?;
    }
    known_master(view, &id)
}

fn known_master(view: &View, id: &str) -> Outcome<usize> {
    match view.find(id).filter(|at| !view.nodes[*at].is_replica()) {
        Some(at) => Ok(at),
        None => {
            err!("*** The specified node ({id}) is not known or not a master, please retry.\n");
            Err(Stop)
        }
    }
}

/// Adds a source unless it is the target.
fn add_source(view: &View, id: &str, target: usize, sources: &mut Vec<usize>) -> Outcome {
    let at = known_master(view, id)?;
    if at == target {
        err!("*** It is not possible to use the target node as source node.\n");
    } else if !sources.contains(&at) {
        sources.push(at);
    }
    Ok(())
}

fn source_nodes(manager: &mut Manager, view: &View, target: usize) -> Outcome<Vec<usize>> {
    let all = || {
        let masters = view.masters().into_iter();
        masters.filter(|at| *at != target).collect()
    };
    let mut sources = Vec::new();
    if let Some(from) = manager.options().from.clone() {
        for id in from.split(',').filter(|id| !id.is_empty()) {
            if id == "all" {
                return Ok(all());
            }
            add_source(view, id, target, &mut sources)?;
        }
        return Ok(sources);
    }
    say!(
        "Please enter all the source node IDs.\n  \
         Type 'all' to use all the nodes as source nodes for the hash slots.\n  \
         Type 'done' once you entered all the source nodes IDs.\n"
    );
    loop {
        say!("Source node #{}: ", sources.len() + 1);
        match manager.answer()?.as_str() {
            "done" => return Ok(sources),
            "all" => return Ok(all()),
            id => add_source(view, id, target, &mut sources)?,
        }
    }
}
