//! `--cluster call` and `set-timeout`: the same command for every node.

use super::node::NodeError;
use super::view::View;
use super::{Manager, Outcome, Stop, caution, err, host_argument, info};
use crate::cli::format::raw;
use crate::cli::options::leading_int;
use crate::cli::term::{complain, put_now};
use crate::resp::reply_reader::Reply;

pub(crate) fn call(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let (host, port) = host_argument(&args[..1])?;
    let command = &args[1..];
    let mut view = View::load(&manager.opts, &host, port)?;
    info!(">>> Calling");
    let mut line = Vec::new();
    for arg in command {
        line.push(b' ');
        line.extend_from_slice(arg);
    }
    line.push(b'\n');
    put_now(&line);
    let (only_masters, only_replicas) = {
        let options = manager.options();
        (options.only_masters, options.only_replicas)
    };
    for node in &mut view.nodes {
        let replica = node.master.is_some();
        if (only_masters && replica) || (only_replicas && !replica) {
            continue;
        }
        if !node.is_connected() && node.connect(&manager.opts).is_err() {
            continue;
        }
        let mut text = format!("{}: ", node.address()).into_bytes();
        match node.call(command) {
            Ok(reply) => raw(&reply, &manager.opts.delimiters.element, &mut text),
            Err(NodeError::Refused(error)) => {
                let error = Reply::Error(error.into_bytes());
                raw(&error, &manager.opts.delimiters.element, &mut text);
            }
            Err(NodeError::Link(_)) => text.extend_from_slice(b"Failed!"),
        }
        text.push(b'\n');
        put_now(&text);
    }
    Ok(())
}

pub(crate) fn set_timeout(manager: &mut Manager, args: &[Vec<u8>]) -> Outcome {
    let (host, port) = host_argument(&args[..1])?;
    let timeout_ms = leading_int(&args[1]);
    if timeout_ms < 100 {
        complain!("Setting a node timeout of less than 100 milliseconds is a bad idea.\n");
        return Err(Stop);
    }
    let mut view = View::load(&manager.opts, &host, port)?;
    info!(">>> Reconfiguring node timeout in every cluster node...\n");
    let (mut done, mut failed) = (0, 0);
    for node in &mut view.nodes {
        let result = node
            .words(&format!("CONFIG SET cluster-node-timeout {timeout_ms}"))
            .and_then(|_| node.words("CONFIG REWRITE"));
        match result {
            Ok(_) => {
                caution!("*** New timeout set for {}\n", node.address());
                done += 1;
            }
            Err(error) => {
                err!("ERR setting node-timeout for {}: {error}\n", node.address());
                failed += 1;
            }
        }
    }
    info!(">>> New node timeout set. {done} OK, {failed} ERR.\n");
    Ok(())
}
