//! `--cluster import` and `backup`: data into and out of a cluster as a whole.

use std::path::Path;

use super::move_slots::push_login;
use super::node::Node;
use super::progress::{Progress, Work, unsigned};
use super::slots::key_slot;
use super::view::View;
use super::{Manager, Outcome, Stop, caution, check, err, host_argument, info, ok, parse_address};
use crate::cli::connection::{Connection, describe};
use crate::cli::modes::info_number;
use crate::cli::modes::replica::save_snapshot;
use crate::cli::term::{complain, put_now};
use crate::resp::reply_reader::Reply;

/// Keys that one SCAN call of an import looks at.
const SCAN_COUNT: &str = "1000";

pub(crate) fn import(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let (host, port) = host_argument(args)?;
    let Some(from) = manager.options().from.clone() else {
        complain!("[ERR] Option '--cluster-from' is required for subcommand 'import'.\n");
        return Err(Stop);
    };
    let Some((source_host, source_port, _)) = parse_address(&from) else {
        complain!("[ERR] Invalid --cluster-from host. You need to pass a valid address (ie. 120.0.0.1:7000).\n");
        return Err(Stop);
    };
    info!(">>> Importing data from {source_host}:{source_port} to cluster {host}:{port}\n");
    let mut view = View::load(&manager.opts, &host, port)?;
    if !check::examine(manager, &mut view, false)? {
        return Err(Stop);
    }
    let mut source = Source::open(manager, &source_host, source_port)?;
    let info = source.ask(&[b"INFO"])?;
    if info_number(info.text().unwrap_or_default(), "cluster_enabled") == Some(1) {
        err!("[ERR] The source node should not be a cluster node.\n");
        return Err(Stop);
    }
    let size = source.ask(&[b"DBSIZE"])?.integer().unwrap_or(0);
    caution!("*** Importing {size} keys from DB 0\n");
    let work = Work { slots: 0, keys: u64::try_from(size).unwrap_or(0) };
    *manager.progress.borrow_mut() = Progress::begin("Importing", work);
    let mut cursor = b"0".to_vec();
    loop {
        let page = source.ask(&[b"SCAN", &cursor, b"COUNT", SCAN_COUNT.as_bytes()])?;
        let Some([next, keys]) = page.elements() else {
            err!("Source {} sent no page of keys\n", source.address);
            return Err(Stop);
        };
        for key in keys.elements().unwrap_or_default() {
            let key = key.text().unwrap_or_default();
            import_key(manager, &view, &mut source, key)?;
        }
        cursor = next.text().unwrap_or(b"0").to_vec();
        if cursor == b"0" {
            manager.end_progress();
            return Ok(());
        }
    }
}

fn import_key(manager: &Manager, view: &View, source: &mut Source, key: &[u8]) -> Outcome {
    let slot = key_slot(key);
    let owner = view.nodes.iter().find(|node| node.slots.contains(slot));
    let Some(target) = owner else {
        err!("Nobody serves slot {slot}\n");
        return Err(Stop);
    };
    let drawn = manager.progress.borrow().is_shown();
    let mut bytes = 0;
    if drawn {
        manager.progress.borrow_mut().route(&source.address, &target.address());
        // The import goes on without sizes if the source does not give them.
        let usage = source.conn.command(&[&b"MEMORY"[..], b"USAGE", key]);
        bytes = usage.map(|reply| unsigned(&reply)).unwrap_or(0);
    } else {
        let mut text = b"Migrating ".to_vec();
        text.extend_from_slice(key);
        text.extend_from_slice(format!(" to {}: ", target.address()).as_bytes());
        put_now(&text);
    }
    let port = target.port.to_string();
    let timeout = manager.options().timeout_ms.to_string();
    let mut command: Vec<&[u8]> =
        vec![b"MIGRATE", target.host.as_bytes(), port.as_bytes(), key, b"0", timeout.as_bytes()];
    if manager.options().copy {
        command.push(b"COPY");
    }
    if manager.options().replace {
        command.push(b"REPLACE");
    }
    push_login(&manager.opts, &mut command);
    source.ask(&command)?;
    match drawn {
        true => manager.progress.borrow_mut().moved(1, bytes),
        false => ok!("OK\n"),
    }
    Ok(())
}

/// The instance that data is imported from.
struct Source {
    conn: Connection,
    address: String,
}

impl Source {
    fn open(manager: &Manager, host: &str, port: u16) -> Outcome<Source> {
        let address = format!("{host}:{port}");
        let conn = Connection::tcp(host, port, manager.opts.connect_timeout, manager.opts.tls()).map_err(|error| {
            complain!("Could not connect to Redis at {address}: {}.\n", describe(&error));
            Stop
        })?;
        let mut source = Source { conn, address };
        if let Some(password) = &manager.options().from_pass {
            let mut args: Vec<&[u8]> = vec![b"AUTH"];
            args.extend(manager.options().from_user.as_deref());
            args.push(password);
            source.ask(&args)?;
        }
        Ok(source)
    }

    fn ask(&mut self, args: &[&[u8]]) -> Outcome<Reply> {
        match self.conn.command(args) {
            Ok(Reply::Error(text)) => {
                err!("Source {} replied with error:\n{}\n", self.address, String::from_utf8_lossy(&text));
                Err(Stop)
            }
            Ok(reply) => Ok(reply),
            Err(error) => {
                err!("Source {} is lost: {error}\n", self.address);
                Err(Stop)
            }
        }
    }
}

pub(crate) fn backup(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let mut view = manager.load(&args[..1])?;
    let healthy = check::examine(manager, &mut view, false)?;
    let errors = if healthy { 0 } else { view.errors.len() };
    let directory = String::from_utf8_lossy(&args[1]).into_owned();
    let saved = save_all(&mut view, Path::new(&directory), errors);
    if saved.is_err() {
        ok!("[ERR] Failed to back cluster!\n");
        return Err(Stop);
    }
    if !healthy {
        caution!(
            "*** Cluster seems to have some problems, please be aware of it if you're going to restore this backup.\n"
        );
    }
    ok!("[OK] Backup created into: {directory}\n");
    Ok(())
}

fn save_all(view: &mut View, directory: &Path, errors: usize) -> Outcome {
    let mut entries = Vec::new();
    for node in &mut view.nodes {
        entries.push(json(node, errors));
        if node.master.is_some() {
            continue;
        }
        info!(">>> Node {} -> Saving RDB...\n", node.address());
        let name = format!("redis-node-{}-{}-{}.rdb", node.host, node.port, node.id);
        let path = directory.join(name);
        let conn = node.take_connection().ok_or(Stop)?;
        if let Err(reason) = save_snapshot(conn, &path.to_string_lossy()) {
            complain!("{reason}\n");
            return Err(Stop);
        }
    }
    let path = directory.join("nodes.json");
    info!("Saving cluster configuration to: {}\n", path.display());
    std::fs::write(&path, format!("[\n{}\n]", entries.join(",\n"))).map_err(|_| {
        err!("Could not save nodes to: {}\n", path.display());
        Stop
    })
}

/// A node as JSON, for the backup's `nodes.json`.
fn json(node: &Node, errors: usize) -> String {
    let master = match &node.master {
        Some(id) => format!("\"{id}\""),
        None => "null".into(),
    };
    let slots: Vec<String> = node
        .slots
        .ranges()
        .iter()
        .map(|(first, last)| match first == last {
            true => format!("[{first}]"),
            false => format!("[{first},{last}]"),
        })
        .collect();
    let mut text = format!(
        "  {{\n    \"name\": \"{}\",\n    \"host\": \"{}\",\n    \"port\": {},\n    \
         \"replicate\": {master},\n    \"slots\": [{}],\n    \"slots_count\": {},\n    \
         \"flags\": \"{}\",\n    \"current_epoch\": {}",
        node.id,
        node.host,
        node.port,
        slots.join(","),
        node.slots.len(),
        node.flags_without_myself().join(","),
        node.epoch
    );
    if errors > 0 {
        text.push_str(&format!(",\n    \"cluster_errors\": {errors}"));
    }
    for (name, open) in [("migrating", &node.migrating), ("importing", &node.importing)] {
        if !open.is_empty() {
            let pairs: Vec<String> = open.iter().map(|(slot, id)| format!("\"{slot}\": \"{id}\"")).collect();
            text.push_str(&format!(",\n    \"{name}\": {{{}}}", pairs.join(",")));
        }
    }
    text.push_str("\n  }");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_in_a_backup() {
        let mut node = Node::new("h", 7000);
        node.id = "aa".into();
        node.flags = vec!["myself".into(), "master".into()];
        node.slots = (0..=5).chain([9]).collect();
        node.importing.push((7, "bb".into()));
        assert_eq!(
            json(&node, 1),
            "  {\n    \"name\": \"aa\",\n    \"host\": \"h\",\n    \"port\": 7000,\n    \"replicate\": null,\n    \
             \"slots\": [[0,5],[9]],\n    \"slots_count\": 7,\n    \"flags\": \"master\",\n    \"current_epoch\": 0,\n    \
             \"cluster_errors\": 1,\n    \"importing\": {\"7\": \"bb\"}\n  }"
        );
    }
}
