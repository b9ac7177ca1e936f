//! CLUSTER SLOTS, SHARDS and LINKS: the replies that are tables. Their rows are in `cluster`.

use super::cluster::{DISABLED, machine};
use super::prelude::*;
use crate::cluster::node::NodeKey;
use crate::cluster::{Cluster, Endpoint, Env, PreferredEndpoint};
use crate::resp::Reply;

pub(super) fn slots(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let mut out = Reply::new(ctx.out.resp3);
    let tls = ctx.srv.names_tls_ports();
    machine(ctx, |m, env| {
        let ranges = m.slot_ranges(env);
        out.array(ranges.len());
        for range in ranges {
            out.array(2 + range.nodes.len());
            out.int(i64::from(range.first));
            out.int(i64::from(range.last));
            range.nodes.iter().for_each(|key| reply_slot_node(&mut out, m, *key, tls));
        }
    })?;
    ctx.out.raw(&out.buf);
    Ok(())
}

/// A node in CLUSTER SLOTS: preferred endpoint, port, id, and what else it is known by.
fn reply_slot_node(out: &mut Reply, m: &Cluster, key: NodeKey, tls: bool) {
    let node = m.node(key);
    out.array(4);
    match m.endpoint(node) {
        Endpoint::Known(address) => out.bulk_str(address),
        Endpoint::SameAddress => out.null(),
    }
    out.int(i64::from(node.client_port(tls)));
    out.bulk(node.id.as_bytes());
    let preferred = m.config().preferred_endpoint;
    let with_ip = preferred != PreferredEndpoint::Ip;
    let with_hostname = preferred != PreferredEndpoint::Hostname && !node.hostname.is_empty();
    out.map(usize::from(with_ip) + usize::from(with_hostname));
    if with_ip {
        out.bulk(b"ip");
        out.bulk_str(&node.ip);
    }
    if with_hostname {
        out.bulk(b"hostname");
        out.bulk_str(&node.hostname);
    }
}

pub(super) fn shards(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let mut out = Reply::new(ctx.out.resp3);
    machine(ctx, |m, env| {
        let shards = m.shards();
        out.array(shards.len());
        for shard in shards {
            out.map(2);
            out.bulk(b"slots");
            out.array(shard.ranges.len() * 2);
            for (first, last) in shard.ranges {
                out.int(i64::from(first));
                out.int(i64::from(last));
            }
            out.bulk(b"nodes");
            out.array(shard.nodes.len());
            shard.nodes.iter().for_each(|key| reply_shard_node(&mut out, m, *key, env));
        }
    })?;
    ctx.out.raw(&out.buf);
    Ok(())
}

fn reply_shard_node(out: &mut Reply, m: &Cluster, key: NodeKey, env: &Env) {
    let node = m.node(key);
    let mark = out.open();
    let mut fields = 0;
    let mut field = |out: &mut Reply, name: &str, value: Result<&[u8], i64>| {
        out.bulk_str(name);
        match value {
            Ok(text) => out.bulk(text),
            Err(number) => out.int(number),
        }
        fields += 1;
    };
    field(out, "id", Ok(node.id.as_bytes()));
    if node.tcp_port != 0 {
        field(out, "port", Err(i64::from(node.tcp_port)));
    }
    if node.tls_port != 0 {
        field(out, "tls-port", Err(i64::from(node.tls_port)));
    }
    field(out, "ip", Ok(node.ip.as_bytes()));
    let endpoint = match m.endpoint(node) {
        Endpoint::Known(address) => address,
        Endpoint::SameAddress => "",
    };
    field(out, "endpoint", Ok(endpoint.as_bytes()));
    if !node.hostname.is_empty() {
        field(out, "hostname", Ok(node.hostname.as_bytes()));
    }
    field(out, "role", Ok(if node.is_replica() { b"replica" } else { b"master" }));
    field(out, "replication-offset", Err(m.offset_of(key, env)));
    field(out, "health", Ok(m.health(key, env).as_bytes()));
    out.close_map(mark, fields);
}

pub(super) fn links(ctx: &mut Ctx<'_>, _args: Args<'_>) -> CmdResult {
    let bus = ctx.srv.bus.as_ref().ok_or(DISABLED)?;
    let views = bus.links();
    ctx.out.array(views.len());
    for view in views {
        let (node, inbound) = bus.machine.link_peer(view.link).unwrap_or((None, false));
        ctx.out.map(6);
        ctx.out.bulk(b"direction");
        ctx.out.bulk(if inbound { b"from" } else { b"to" });
        ctx.out.bulk(b"node");
        ctx.out.bulk_str(node.map_or("", |key| bus.machine.node(key).id.as_str()));
        ctx.out.bulk(b"create-time");
        ctx.out.int(bus.machine.link_created_ms(view.link).unwrap_or(0));
        ctx.out.bulk(b"events");
        ctx.out.bulk(if view.writing { b"rw" } else { b"r" });
        for name in ["send-buffer-allocated", "send-buffer-used"] {
            ctx.out.bulk_str(name);
            ctx.out.int(view.queue_mem as i64);
        }
    }
    Ok(())
}
