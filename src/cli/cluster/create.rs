//! `--cluster create`: makes a cluster of empty nodes.

use super::node::Node;
use super::plan::{self, SAME_HOST_AS_MASTER};
use super::view::View;
use super::{Manager, Outcome, Stop, Tone, check, err, info, parse_address, tell};
use crate::cli::term::{complain, say};

/// How often CLUSTER REPLICATE is tried at a replica that does not know its master yet.
const REPLICATE_ATTEMPTS: usize = 10;

pub(crate) fn create(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let mut nodes = Vec::new();
    for arg in args {
        nodes.push(empty_node(manager, &String::from_utf8_lossy(arg))?);
    }
    let replicas = manager.options().replicas;
    if nodes.len() / (replicas + 1) < 3 {
        err!(
            "*** ERROR: Invalid configuration for cluster creation.\n\
             *** Redis Cluster requires at least 3 master nodes.\n\
             *** This is not possible with {} nodes and {replicas} replicas per node.",
            nodes.len()
        );
        err!("\n*** At least {} nodes are required.\n", 3 * (replicas + 1));
        return Err(Stop);
    }
    lay_out(&mut nodes, replicas);
    let mut view = View::of(nodes);
    view.show();
    if !manager.confirm("Can I set the above configuration?", false) {
        return Ok(());
    }
    found(&mut view)?;
    let first = &view.nodes[0];
    let mut view = View::load(&manager.opts, &first.host, first.port)?;
    // The cluster exists whatever this finds.
    let _ = check::examine(manager, &mut view, false);
    Ok(())
}

fn empty_node(manager: &Manager, address: &str) -> Outcome<Node> {
    let Some((host, port, _)) = parse_address(address) else {
        complain!("Invalid address format: {address}\n");
        return Err(Stop);
    };
    let mut node = Node::new(&host, port);
    node.connect(&manager.opts)?;
    node.require_cluster_mode()?;
    node.load()?;
    node.require_empty()?;
    Ok(node)
}

/// Decides masters, replicas and slots, and notes them in the nodes.
fn lay_out(nodes: &mut [Node], replicas: usize) {
    info!(">>> Performing hash slots allocation on {} nodes...\n", nodes.len());
    let hosts: Vec<String> = nodes.iter().map(|node| node.host.clone()).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    let mut layout = plan::layout(&hosts, replicas);
    for (index, (node, (first, last))) in layout.masters.iter().enumerate() {
        say!("Master[{index}] -> Slots {first} - {last}\n");
        let node = &mut nodes[*node];
        node.slots = (*first..=*last).collect();
        node.planned = true;
    }
    for (index, (replica, master)) in layout.replicas.iter().enumerate() {
        if index == layout.regular {
            say!("Adding extra replicas...\n");
        }
        say!("Adding replica {} to {}\n", nodes[*replica].address(), nodes[*master].address());
    }
    improve(&hosts, &mut layout.replicas);
    for (replica, master) in layout.replicas {
        nodes[replica].master = Some(nodes[master].id.clone());
        nodes[replica].planned = true;
    }
}

fn improve(hosts: &[&str], replicas: &mut [(usize, usize)]) {
    if plan::affinity(hosts, replicas) == 0 {
        return;
    }
    info!(">>> Trying to optimize slaves allocation for anti-affinity\n");
    let (tone, verdict) = match plan::optimize_affinity(hosts, replicas, &mut fastrand::Rng::new()) {
        0 => (Tone::Ok, "[OK] Perfect anti-affinity obtained!"),
        score if score >= SAME_HOST_AS_MASTER => {
            (Tone::Warn, "[WARNING] Some slaves are in the same host as their master")
        }
        _ => (Tone::Warn, "[WARNING] Some slaves of the same master are in the same host"),
    };
    tell(tone, format_args!("{verdict}\n"));
}

/// Sends the plan to the nodes.
fn found(view: &mut View) -> Outcome {
    for node in view.nodes.iter_mut().filter(|node| node.master.is_none()) {
        let mut command = vec!["CLUSTER".to_string(), "ADDSLOTS".to_string()];
        command.extend(node.slots.iter().map(|slot| slot.to_string()));
        node.must(&command)?;
        node.planned = false;
    }
    info!(">>> Nodes configuration updated\n");
    info!(">>> Assign a different config epoch to each node\n");
    for (index, node) in view.nodes.iter_mut().enumerate() {
        // A node that has an epoch already keeps it; conflicts resolve themselves later.
        let _ = node.words(&format!("CLUSTER SET-CONFIG-EPOCH {}", index + 1));
    }
    info!(">>> Sending CLUSTER MEET messages to join the cluster\n");
    for newcomer in 1..view.nodes.len() {
        view.meet(newcomer, 0)?;
    }
    view.wait_join();
    for node in view.nodes.iter_mut().filter(|node| node.planned) {
        let Some(master) = node.master.clone() else {
            continue;
        };
        let command = format!("CLUSTER REPLICATE {master}");
        for attempt in 1.. {
            match node.words(&command) {
                Ok(_) => {
                    node.planned = false;
                    break;
                }
                Err(error) if attempt == REPLICATE_ATTEMPTS => return Err(node.complain(&error)),
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(200)),
            }
        }
    }
    Ok(())
}
