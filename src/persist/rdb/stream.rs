//! Streams in a snapshot: nodes as they are in memory, what the stream remembers, then the groups with their pending
//! entries, first all of a group and then, by id alone, those of each consumer.
//!
//! Three layouts are read: the oldest without first id, highest deleted id and counts of entries, the second without the
//! times at which consumers were active. The newest is written.

use super::decode::{Cursor, Value};
use super::encode::{put_len, put_string};
use super::{Error, ValueType};
use crate::structs::listpack::Listpack;
use crate::structs::stream::{Counters, Group, Log, Node, Pending, Stream, StreamId};
use std::collections::BTreeMap;
use std::io::{self, BufRead};

const EMPTY_NODE: &str = "Empty listpack inside stream";

type Result<T> = std::result::Result<T, Error>;

fn put_id(buf: &mut Vec<u8>, id: StreamId) {
    put_len(buf, id.ms);
    put_len(buf, id.seq);
}

fn put_node(buf: &mut Vec<u8>, id: StreamId, listpack: &[u8], compress: bool) {
    put_string(buf, &id.to_bytes(), compress);
    put_string(buf, listpack, compress);
}

/// Appends a stream. `spill` is called between its parts: it may take away what has gathered.
pub(super) fn put_stream(
    buf: &mut Vec<u8>,
    stream: &Stream,
    compress: bool,
    spill: &mut dyn FnMut(&mut Vec<u8>) -> io::Result<()>,
) -> io::Result<()> {
    let log = &stream.log;
    put_len(buf, log.node_count() as u64);
    for node in log.nodes() {
        put_node(buf, node.id, node.as_bytes(), compress);
        spill(buf)?;
    }
    put_len(buf, log.len());
    put_id(buf, log.counters.last_id);
    put_id(buf, log.first_id());
    put_id(buf, log.counters.max_deleted_id);
    put_len(buf, log.counters.entries_added);
    put_len(buf, stream.group_count() as u64);
    for (name, group) in stream.groups() {
        put_string(buf, name, compress);
        put_id(buf, group.last_id);
        put_len(buf, group.entries_read as u64);
        put_len(buf, group.pending_len() as u64);
        for (id, pending) in group.pending_from(StreamId::MIN) {
            buf.extend_from_slice(&id.to_bytes());
            buf.extend_from_slice(&pending.time_ms.to_le_bytes());
            put_len(buf, pending.deliveries);
            spill(buf)?;
        }
        put_len(buf, group.consumer_count() as u64);
        for consumer in group.consumers() {
            put_string(buf, consumer.name(), compress);
            buf.extend_from_slice(&consumer.seen_ms.to_le_bytes());
            buf.extend_from_slice(&consumer.active_ms.to_le_bytes());
            put_len(buf, consumer.pending_len() as u64);
            for id in consumer.pending_from(StreamId::MIN) {
                buf.extend_from_slice(&id.to_bytes());
                spill(buf)?;
            }
        }
    }
    Ok(())
}

/// A pending entry whose owner is not read yet: time and number of deliveries.
type Unowned = BTreeMap<StreamId, (i64, u64)>;

/// The beginning of a stream of so many nodes, of which these are the first.
fn nodes_before(count: u64, nodes: &[Node]) -> Vec<u8> {
    let mut raw = Vec::new();
    put_len(&mut raw, count);
    nodes.iter().for_each(|node| put_node(&mut raw, node.id, node.as_bytes(), false));
    raw
}

/// A node, and whether its entries are in order; or what is wrong with its bytes, and they.
fn node_of(id: StreamId, bytes: Vec<u8>) -> std::result::Result<(Node, bool), (&'static str, Vec<u8>)> {
    let list = Listpack::from_bytes_or_back(bytes).map_err(|(bad, bytes)| (bad.reason, bytes))?;
    if list.is_empty() {
        return Err((EMPTY_NODE, list.into_bytes()));
    }
    Node::from_listpack(id, list).map_err(|(bad, list)| (bad.0, list.into_bytes()))
}

impl<S: BufRead> Cursor<'_, S> {
    pub(super) fn stream(&mut self, layout: ValueType) -> Result<Value> {
        let with_counters = layout != ValueType::StreamListpacks;
        let (mut nodes, mut in_order) = (Vec::new(), true);
        let mut flaw = None;
        let node_count = self.len()?;
        for _ in 0..node_count {
            let (id, bytes) = self.stream_node()?;
            if flaw.is_some() {
                continue;
            }
            match node_of(id, bytes) {
                Ok((node, node_in_order)) => {
                    nodes.push(node);
                    in_order &= node_in_order;
                }
                Err((reason, bytes)) => {
                    if !self.keeps_damaged(&bytes) {
                        let is_empty = reason == EMPTY_NODE;
                        return Err(self.corrupt(if is_empty {
                            reason
                        } else {
                            "Stream listpack integrity check failed."
                        }));
                    }
                    let mut raw = nodes_before(node_count, &nodes);
                    put_node(&mut raw, id, &bytes, false);
                    self.record(raw);
                    flaw = Some(reason);
                }
            }
        }
        let len = self.number()?;
        let mut counters = Counters { last_id: self.stream_id()?, ..Counters::default() };
        let mut first_id = StreamId::MIN;
        if with_counters {
            // What the first id is, the entries tell.
            first_id = self.stream_id()?;
            counters.max_deleted_id = self.stream_id()?;
            counters.entries_added = self.number()?;
        } else {
            counters.entries_added = len;
        }
        let mut log = Log::default();
        if flaw.is_none() {
            if nodes.is_empty() && len > 0 {
                return Err(self.corrupt("Stream length inconsistent with rax entries"));
            }
            match Log::from_nodes(nodes, in_order, counters, len) {
                Ok(whole) => log = whole,
                Err((contradiction, nodes)) => {
                    if self.is_deep() {
                        return Err(self.corrupt(format!("Stream integrity check failed: {contradiction}")));
                    }
                    let mut raw = nodes_before(node_count, &nodes);
                    put_len(&mut raw, len);
                    put_id(&mut raw, counters.last_id);
                    if with_counters {
                        put_id(&mut raw, first_id);
                        put_id(&mut raw, counters.max_deleted_id);
                        put_len(&mut raw, counters.entries_added);
                    }
                    self.record(raw);
                    flaw = Some(contradiction);
                }
            }
        }
        let mut groups = BTreeMap::new();
        for _ in 0..self.len()? {
            let name = self.string()?.into_bytes();
            let last_id = self.stream_id()?;
            let entries_read =
                if with_counters { self.number()? as i64 } else { log.added_up_to(last_id).map_or(-1, |n| n as i64) };
            let mut group = Group::new(last_id, entries_read);
            self.stream_consumers(&mut group, layout)?;
            if groups.insert(name.clone().into_boxed_slice(), group).is_some() {
                let name = String::from_utf8_lossy(&name);
                return Err(self.corrupt(format!("Duplicated consumer group name {name}")));
            }
        }
        Ok(match flaw {
            Some(flaw) => self.recorded_value(layout, flaw),
            None => Value::Stream(Box::new(Stream::from_parts(log, groups))),
        })
    }

    fn stream_id(&mut self) -> Result<StreamId> {
        Ok(StreamId::new(self.number()?, self.number()?))
    }

    fn raw_stream_id(&mut self) -> Result<StreamId> {
        Ok(StreamId::from_bytes(self.array()?))
    }

    /// The id of a node, and what should be its listpack.
    fn stream_node(&mut self) -> Result<(StreamId, Vec<u8>)> {
        let Ok(id) = <[u8; 16]>::try_from(self.string()?.into_bytes()) else {
            return Err(self.corrupt("Stream node key entry is not the size of a stream ID"));
        };
        Ok((StreamId::from_bytes(id), self.string()?.into_bytes()))
    }

    /// The pending entries of a group, and its consumers, one of whom each belongs to.
    fn stream_consumers(&mut self, group: &mut Group, layout: ValueType) -> Result<()> {
        let mut unowned = Unowned::new();
        for _ in 0..self.len()? {
            let id = self.raw_stream_id()?;
            let delivered = (i64::from_le_bytes(self.array()?), self.number()?);
            if unowned.insert(id, delivered).is_some() {
                return Err(self.corrupt("Duplicated global PEL entry loading stream consumer group"));
            }
        }
        for _ in 0..self.len()? {
            let name = self.string()?.into_bytes();
            let seen_ms = i64::from_le_bytes(self.array()?);
            let active_ms = match layout {
                ValueType::StreamListpacks3 => i64::from_le_bytes(self.array()?),
                _ => seen_ms,
            };
            let Some(owner) = group.create_consumer(&name, seen_ms) else {
                return Err(self.corrupt("Duplicate stream consumer detected."));
            };
            group.consumer_mut(owner).active_ms = active_ms;
            for _ in 0..self.len()? {
                let id = self.raw_stream_id()?;
                let pending = match unowned.remove(&id) {
                    Some((time_ms, deliveries)) => Pending { time_ms, deliveries, owner },
                    // Versions there were that left an entry with whom it was taken from: the later one has it.
                    None => match group.pending(id) {
                        Some(before) if before.owner != owner => Pending { owner, ..*before },
                        Some(_) => {
                            return Err(self.corrupt("Duplicated consumer PEL entry  loading a stream consumer group"));
                        }
                        None => return Err(self.corrupt("Consumer entry not found in group global PEL")),
                    },
                };
                group.assign(id, pending);
            }
        }
        if !unowned.is_empty() {
            if self.is_deep() {
                return Err(self.corrupt("Stream CG PEL entry without consumer"));
            }
            // Nobody could ask for them by name, and nobody would get them again.
            log::warn!(
                "{} pending entries of a stream's consumer group belong to no consumer: left out",
                unowned.len()
            );
        }
        Ok(())
    }
}
