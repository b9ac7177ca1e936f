//! `--cluster add-node` and `del-node`.

use super::node::{Node, NodeError};
use super::view::View;
use super::{Manager, Outcome, Stop, check, err, host_argument, info, ok};
use crate::cli::term::say;

pub(crate) fn add_node(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let (known_host, known_port) = host_argument(&args[1..])?;
    let (host, port) = host_argument(&args[..1])?;
    info!(">>> Adding node {host}:{port} to cluster {known_host}:{known_port}\n");
    let mut view = View::load(&manager.opts, &known_host, known_port)?;
    if !check::examine(manager, &mut view, false)? {
        return Err(Stop);
    }
    let master = match manager.options().slave {
        true => Some(choose_master(manager, &view)?),
        false => None,
    };
    let mut node = Node::new(&host, port);
    if node.connect(&manager.opts).is_err() {
        err!("[ERR] Sorry, can't connect to node {host}:{port}\n");
        return Err(Stop);
    }
    node.require_cluster_mode()?;
    node.load()?;
    node.require_empty()?;
    if master.is_none() {
        // A replica gets its functions from its master.
        copy_functions(&mut view.nodes[0], &mut node)?;
    }
    view.nodes.push(node);
    let newcomer = view.nodes.len() - 1;
    info!(">>> Send CLUSTER MEET to node {host}:{port} to make it join the cluster.\n");
    view.meet(newcomer, 0)?;
    if let Some(master) = master {
        view.wait_join();
        info!(">>> Configure node as replica of {}.\n", view.nodes[master].address());
        let id = view.nodes[master].id.clone();
        view.nodes[newcomer].must_words(&format!("CLUSTER REPLICATE {id}"))?;
    }
    ok!("[OK] New node added correctly.\n");
    Ok(())
}

fn choose_master(manager: &Manager, view: &View) -> Outcome<usize> {
    if let Some(id) = &manager.options().master_id {
        return view.find(id).ok_or_else(|| {
            err!("[ERR] No such master ID {id}\n");
            Stop
        });
    }
    let chosen = view.least_replicated_master(None).ok_or(Stop)?;
    say!("Automatically selected master {}\n", view.nodes[chosen].address());
    Ok(chosen)
}

/// Every master of a cluster has the same functions, so a new one gets them before it joins.
fn copy_functions(from: &mut Node, to: &mut Node) -> Outcome {
    info!(">>> Getting functions from cluster\n");
    let dump = match from.words("FUNCTION DUMP") {
        Ok(dump) => dump,
        Err(error) => {
            info!(
                ">>> Failed retrieving Functions from the cluster, skip this step as Redis version do not support function command (error = '{error}')\n"
            );
            return Ok(());
        }
    };
    let address = to.address();
    info!(">>> Send FUNCTION LIST to {address} to verify there is no functions in it\n");
    let list = to.words("FUNCTION LIST").map_err(|error| {
        err!(">>> Failed on FUNCTION LIST (error = '{error}')\r\n");
        Stop
    })?;
    if list.elements().is_some_and(|libraries| !libraries.is_empty()) {
        err!(
            ">>> New node already contains functions and can not be added to the cluster. Use FUNCTION FLUSH and try again.\r\n"
        );
        return Err(Stop);
    }
    info!(">>> Send FUNCTION RESTORE to {address}\n");
    let payload = dump.text().unwrap_or_default();
    let restored = match to.call(&[&b"FUNCTION"[..], b"RESTORE", payload]) {
        // A payload of a newer version, even without anything in it.
        Err(NodeError::Refused(_)) => load_libraries(from, to),
        restored => restored.map(drop),
    };
    restored.map_err(|error| {
        err!(">>> Failed loading functions to the new node (error = '{error}')\r\n");
        Stop
    })
}

/// Has each library loaded by its code.
fn load_libraries(from: &mut Node, to: &mut Node) -> Result<(), NodeError> {
    let list = from.words("FUNCTION LIST WITHCODE")?;
    for library in list.elements().unwrap_or_default() {
        let pairs = library.pairs();
        let code = pairs.iter().find(|(key, _)| key.text_lossy() == "library_code");
        let code = code.and_then(|(_, code)| code.text()).unwrap_or_default();
        to.call(&[&b"FUNCTION"[..], b"LOAD", code])?;
    }
    Ok(())
}

pub(crate) fn del_node(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let (host, port) = host_argument(&args[..1])?;
    let id = String::from_utf8_lossy(&args[1]).into_owned();
    info!(">>> Removing node {id} from cluster {host}:{port}\n");
    let mut view = View::load(&manager.opts, &host, port)?;
    let Some(leaving) = view.find(&id) else {
        err!("[ERR] No such node ID {id}\n");
        return Err(Stop);
    };
    if !view.nodes[leaving].slots.is_empty() {
        err!("[ERR] Node {} is not empty! Reshard data away and try again.\n", view.nodes[leaving].address());
        return Err(Stop);
    }
    info!(">>> Sending CLUSTER FORGET messages to the cluster...\n");
    let id = view.nodes[leaving].id.clone();
    for at in 0..view.nodes.len() {
        if at == leaving {
            continue;
        }
        if view.nodes[at].master.as_deref() == Some(id.as_str()) {
            let master = view.least_replicated_master(Some(leaving)).ok_or(Stop)?;
            info!(">>> {} as replica of {}\n", view.nodes[at].address(), view.nodes[master].address());
            let master_id = view.nodes[master].id.clone();
            view.nodes[at].must_words(&format!("CLUSTER REPLICATE {master_id}"))?;
            view.nodes[master].replicas += 1;
        }
        view.nodes[at].must_words(&format!("CLUSTER FORGET {id}"))?;
    }
    info!(">>> Sending CLUSTER RESET SOFT to the deleted node.\n");
    view.nodes[leaving].must_words("CLUSTER RESET SOFT").map(drop)
}
