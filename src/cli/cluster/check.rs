//! `--cluster check`, `info` and `fix`: what is wrong with a cluster.

use std::collections::BTreeMap;

use super::slots::{self, SLOTS};
use super::view::View;
use super::{Manager, Outcome, Stop, err, fix, info, ok};
use crate::cli::modes::info_field;
use crate::resp::reply_reader::Reply;

pub(crate) fn check(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let mut view = manager.load(args)?;
    let _ = view.show_summary();
    let is_healthy = examine(manager, &mut view, false)?;
    show_findings(&mut view);
    show_versions(&mut view);
    if is_healthy { Ok(()) } else { Err(Stop) }
}

/// What nodes find wrong themselves, as far as they have a doctor. It does not count as an error.
fn show_findings(view: &mut View) {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in &mut view.nodes {
        if let Ok(Reply::Array(findings)) = node.call(&["CLUSTER", "DOCTOR"]) {
            let texts = findings.iter().filter_map(finding_text);
            texts.for_each(|text| found.entry(text).or_default().push(node.address()));
        }
    }
    if !found.is_empty() {
        info!(">>> What the nodes find...\n");
    }
    for (text, nodes) in found {
        let (first, more) = (&nodes[0], nodes.len() - 1);
        let others = if more > 0 { format!(" and {more} more") } else { String::new() };
        err!("[WARNING] {text} (Told by {first}{others}.)\n");
    }
}

/// The words of a finding, and what to do.
fn finding_text(finding: &Reply) -> Option<String> {
    let Reply::Array(fields) = finding else { return None };
    let field = |name: &str| {
        fields.chunks(2).find_map(|pair| match pair {
            [Reply::Bulk(key), Reply::Bulk(value)] if key == name.as_bytes() => {
                Some(String::from_utf8_lossy(value).into_owned())
            }
            _ => None,
        })
    };
    Some(format!("{} {}", field("text")?, field("advice")?))
}

/// Tells if nodes run different versions.
fn show_versions(view: &mut View) {
    let mut nodes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in &mut view.nodes {
        let Ok(Reply::Bulk(text)) = node.call(&["INFO", "server"]) else { continue };
        let version = match info_field(&text, "hexad_version") {
            Some(version) => format!("Hexad {version}"),
            None => format!("Redis {}", info_field(&text, "redis_version").unwrap_or_default()),
        };
        nodes.entry(version).or_default().push(node.address());
    }
    if nodes.len() > 1 {
        let list: Vec<String> =
            nodes.iter().map(|(version, nodes)| format!("{version}: {}", nodes.join(", "))).collect();
        err!("[WARNING] The nodes run different versions. {}\n", list.join("; "));
    }
}

pub(crate) fn fix(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    manager.fix = true;
    check(manager, args)
}

pub(crate) fn info(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let mut view = manager.load(args)?;
    let _ = view.show_summary();
    Ok(())
}

/// Looks for everything that can be wrong, and repairs it where the manager is to. True when nothing is wrong; problems
/// are noted in the view.
pub(crate) fn examine(manager: &mut Manager, view: &mut View, quiet: bool) -> Outcome<bool> {
    info!(">>> Performing Cluster Check (using node {})\n", view.nodes[0].address());
    if !quiet {
        view.show();
    }
    let mut healthy = true;
    if view.is_consistent() {
        ok!("[OK] All nodes agree about slots configuration.\n");
    } else {
        view.problem("[ERR] Nodes don't agree about configuration!".into());
        healthy = false;
    }
    healthy &= check_open_slots(manager, view)?;
    healthy = check_coverage(manager, view, healthy)?;
    if manager.options().search_multiple_owners {
        healthy &= check_owners(manager, view)?;
    }
    Ok(healthy)
}

fn check_open_slots(manager: &mut Manager, view: &mut View) -> Outcome<bool> {
    info!(">>> Check for open slots...\n");
    let mut open: BTreeMap<u16, ()> = BTreeMap::new();
    let mut problems = Vec::new();
    for node in &view.nodes {
        for (state, slots) in [("migrating", &node.migrating), ("importing", &node.importing)] {
            if slots.is_empty() {
                continue;
            }
            let numbers: Vec<String> = slots.iter().map(|(slot, _)| slot.to_string()).collect();
            problems.push(format!(
                "[WARNING] Node {} has slots in {state} state {}.",
                node.address(),
                numbers.join(",")
            ));
            open.extend(slots.iter().map(|(slot, _)| (*slot, ())));
        }
    }
    for problem in problems {
        view.problem(problem);
    }
    if open.is_empty() {
        return Ok(true);
    }
    let numbers: Vec<String> = open.keys().map(u16::to_string).collect();
    err!("[WARNING] The following slots are open: {}.\n", numbers.join(","));
    if !manager.fix {
        return Ok(false);
    }
    let moves = fix::keyholders(view, open.keys().copied());
    manager.begin_progress("Fixing open slots", view, &moves);
    let fixed = open.into_keys().all(|slot| fix::open_slot(manager, view, slot).is_ok());
    manager.end_progress();
    Ok(fixed)
}

fn check_coverage(manager: &mut Manager, view: &mut View, healthy: bool) -> Outcome<bool> {
    info!(">>> Check slots coverage...\n");
    let covered = view.covered();
    if slots::count(&covered) == SLOTS {
        ok!("[OK] All {SLOTS} slots covered.\n");
        return Ok(healthy);
    }
    view.problem(format!("[ERR] Not all {SLOTS} slots are covered by nodes.\n"));
    if !manager.fix {
        return Ok(false);
    }
    let fixed = fix::coverage(manager, view, &covered)?;
    Ok(fixed > 0)
}

fn check_owners(manager: &mut Manager, view: &mut View) -> Outcome<bool> {
    info!(">>> Check for multiple slot owners...\n");
    let mut healthy = true;
    let mut contested = 0;
    for slot in 0..SLOTS {
        let mut owners = Vec::new();
        for at in view.masters() {
            // A node that has keys of a slot counts as an owner.
            let node = &mut view.nodes[at];
            if node.slots.contains(slot) || node.count_keys(slot).is_ok_and(|count| count > 0) {
                owners.push(at);
            }
        }
        if owners.len() < 2 {
            continue;
        }
        err!("[WARNING] Slot {slot} has {} owners:\n", owners.len());
        for at in &owners {
            err!("    {}\n", view.nodes[*at].address());
        }
        if !manager.fix {
            contested += 1;
            healthy = false;
        } else if fix::contested_slot(manager, view, slot, &owners).is_err() {
            err!("Failed to fix multiple owners for slot {slot}\n");
            return Ok(false);
        }
    }
    if contested == 0 {
        ok!("[OK] No multiple owners found.\n");
    }
    Ok(healthy)
}
