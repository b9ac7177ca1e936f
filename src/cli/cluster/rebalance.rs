//! `--cluster rebalance`: gives every master the share of slots its weight entitles it to.

use super::move_slots::{MoveOptions, move_slot};
use super::move_whole::move_whole;
use super::node::NodeError;
use super::slots;
use super::view::View;
use super::{Manager, Outcome, Stop, caution, check, err, info, plan};
use crate::cli::term::say;

pub(crate) fn rebalance(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let mut view = manager.load(args)?;
    let weights = weights(manager, &view)?;
    let involved: Vec<usize> = view
        .masters()
        .into_iter()
        .filter(|at| manager.options().use_empty_masters || !view.nodes[*at].slots.is_empty())
        .collect();
    let _ = check::examine(manager, &mut view, true)?;
    if !view.errors.is_empty() {
        err!("*** Please fix your cluster problems before rebalancing\n");
        return Err(Stop);
    }
    let weights: Vec<f32> = involved.iter().map(|at| weights[*at]).collect();
    let have: Vec<u16> = involved.iter().map(|at| slots::count(&view.nodes[*at].slots)).collect();
    let total_weight: f32 = weights.iter().sum();
    if total_weight <= 0.0 {
        err!("*** No node has a weight above zero\n");
        return Err(Stop);
    }
    let threshold = manager.options().threshold;
    let balance = plan::balance(&have, &weights, threshold);
    if !balance.over_threshold {
        caution!("*** No rebalancing needed! All nodes are within the {threshold:.2}% threshold.\n");
        return Ok(());
    }
    info!(">>> Rebalancing across {} nodes. Total weight = {total_weight:.2}\n", involved.len());
    if manager.opts.verbose {
        for at in plan::by_surplus(&balance.surplus) {
            let address = view.nodes[involved[at]].address();
            say!("{address} balance is {} slots\n", balance.surplus[at]);
        }
    }
    let steps = plan::moves(&balance.surplus);
    if !manager.options().simulate {
        let moves = planned(&view, &involved, &steps);
        manager.begin_progress("Rebalancing", &mut view, &moves);
    }
    for step in steps {
        let (source, target) = (involved[step.source], involved[step.target]);
        carry_out(manager, &mut view, source, target, step.count)?;
    }
    manager.end_progress();
    Ok(())
}

/// The slots that the steps move, each with the node it is taken from.
fn planned(view: &View, involved: &[usize], steps: &[plan::Move]) -> Vec<(usize, u16)> {
    let mut taken = vec![0; view.nodes.len()];
    let mut moves = Vec::new();
    for step in steps {
        let source = involved[step.source];
        moves.extend(view.nodes[source].slots.iter().skip(taken[source]).take(step.count).map(|slot| (source, slot)));
        taken[source] += step.count;
    }
    moves
}

fn carry_out(manager: &Manager, view: &mut View, source: usize, target: usize, count: usize) -> Outcome {
    let drawn = manager.progress.borrow().is_shown();
    if !drawn {
        say!("Moving {count} slots from {} to {}\n", view.nodes[source].address(), view.nodes[target].address());
    }
    let slots: Vec<u16> = view.nodes[source].slots.iter().take(count).collect();
    let how = MoveOptions { quiet: true, ..MoveOptions::default() };
    let whole = match manager.options().simulate {
        true => None,
        false => move_whole(manager, view, source, target, &slots),
    };
    let stop = |error: NodeError| {
        err!("*** clusterManagerMoveSlot: {error}\n");
        Stop
    };
    let whole = whole.transpose().map_err(stop)?;
    for slot in slots {
        match whole {
            // It is there.
            Some(()) => {}
            None if manager.options().simulate => {
                view.nodes[source].slots.remove(slot);
                view.nodes[target].slots.insert(slot);
            }
            None => move_slot(manager, view, source, target, slot, how).map_err(stop)?,
        }
        if !drawn {
            say!("#");
        }
    }
    if !drawn {
        say!("\n");
    }
    Ok(())
}

/// The weight of every node: 1 where `--cluster-weight` says nothing.
fn weights(manager: &Manager, view: &View) -> Outcome<Vec<f32>> {
    let mut weights = vec![1.0; view.nodes.len()];
    for pair in &manager.options().weights {
        let Some((name, weight)) = pair.split_once('=') else {
            err!("*** invalid input {pair}\n");
            return Err(Stop);
        };
        let name = name.to_ascii_lowercase();
        // A prefix of the ID is enough.
        let found = view.nodes.iter().position(|node| node.id.starts_with(&name));
        let Some(at) = found else {
            err!("*** No such master node {name}\n");
            return Err(Stop);
        };
        weights[at] = weight.trim().parse::<f32>().unwrap_or(0.0).max(0.0);
    }
    Ok(weights)
}
