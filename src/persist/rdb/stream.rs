//! Streams in a snapshot: nodes as they are in memory, what the stream remembers, then the groups with their pending
//! entries, first all of a group and then, by id alone, those of each consumer.
//!
//! Four layouts are read: the oldest without first id, highest deleted id and counts of entries, the second without the
//! times at which consumers were active, the third, which is written, and that of Redis 8.6 if nobody is remembered in it
//! who has added to the stream.

use super::decode::{Reader, Value};
use super::encode::{put_len, put_string};
use super::{Error, ErrorKind, Source, ValueType};
use crate::structs::listpack::Listpack;
use crate::structs::stream::{ConsumerId, Counters, Group, Growing, Log, Node, Pending, Stream, StreamId};
use std::collections::BTreeMap;

const EMPTY_NODE: &str = "Empty listpack inside stream";

type Result<T> = std::result::Result<T, Error>;

fn put_id(buf: &mut Vec<u8>, id: StreamId) {
    put_len(buf, id.ms);
    put_len(buf, id.seq);
}

fn put_node(buf: &mut Vec<u8>, id: StreamId, listpack: &[u8], most_compressed: usize) {
    put_string(buf, &id.to_bytes(), most_compressed > 0);
    put_string(buf, listpack, listpack.len() <= most_compressed);
}

/// What comes next of a stream that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The nodes from this one on.
    Node(usize),
    /// The groups from this one on.
    Group(usize),
    /// Of this group the pending entries from this one on.
    Pending(usize, StreamId),
    /// Of this group the consumers from this one on.
    Consumer(usize, usize),
    /// Of this consumer of this group the pending entries from this one on.
    Owned(usize, usize, StreamId),
    Done,
}

/// Appends a stream from `place` on, until `goes_on` says no; it is asked between the parts, and may take away what has gathered.
/// Strings longer than `most_compressed` bytes are written as they are.
pub(super) fn put_stream<E>(
    buf: &mut Vec<u8>,
    stream: &Stream,
    most_compressed: usize,
    place: &mut Place,
    goes_on: &mut dyn FnMut(&mut Vec<u8>) -> std::result::Result<bool, E>,
) -> std::result::Result<(), E> {
    let log = &stream.log;
    if let Place::Node(first) = *place {
        if first == 0 {
            put_len(buf, log.node_count() as u64);
        }
        for (at, node) in log.nodes().enumerate().skip(first) {
            put_node(buf, node.id, node.as_bytes(), most_compressed);
            *place = Place::Node(at + 1);
            if !goes_on(buf)? {
                return Ok(());
            }
        }
        put_len(buf, log.len());
        put_id(buf, log.counters.last_id);
        put_id(buf, log.first_id());
        put_id(buf, log.counters.max_deleted_id);
        put_len(buf, log.counters.entries_added);
        put_len(buf, stream.group_count() as u64);
        *place = Place::Group(0);
    }
    let first = match *place {
        Place::Node(_) | Place::Done => return Ok(()),
        Place::Group(at) | Place::Pending(at, _) | Place::Consumer(at, _) | Place::Owned(at, ..) => at,
    };
    for (at, (name, group)) in stream.groups().enumerate().skip(first) {
        if *place == Place::Group(at) {
            put_string(buf, name, name.len() <= most_compressed);
            put_id(buf, group.last_id);
            put_len(buf, group.entries_read as u64);
            put_len(buf, group.pending_len() as u64);
            *place = Place::Pending(at, StreamId::MIN);
        }
        if !put_group(buf, (at, group), most_compressed, place, goes_on)? {
            return Ok(());
        }
    }
    *place = Place::Done;
    Ok(())
}

/// Appends what is pending in a group and its consumers. Whether that is all.
fn put_group<E>(
    buf: &mut Vec<u8>,
    (number, group): (usize, &Group),
    most_compressed: usize,
    place: &mut Place,
    goes_on: &mut dyn FnMut(&mut Vec<u8>) -> std::result::Result<bool, E>,
) -> std::result::Result<bool, E> {
    if let Place::Pending(_, from) = *place {
        for (id, pending) in group.pending_from(from) {
            buf.extend_from_slice(&id.to_bytes());
            buf.extend_from_slice(&pending.time_ms.to_le_bytes());
            put_len(buf, pending.deliveries);
            // After the greatest id there is none.
            *place = id.next().map_or(Place::Consumer(number, 0), |next| Place::Pending(number, next));
            if *place != Place::Consumer(number, 0) && !goes_on(buf)? {
                return Ok(false);
            }
        }
        put_len(buf, group.consumer_count() as u64);
        *place = Place::Consumer(number, 0);
    }
    let first = match *place {
        Place::Consumer(_, at) | Place::Owned(_, at, _) => at,
        _ => 0,
    };
    for (at, consumer) in group.consumers().enumerate().skip(first) {
        if *place == Place::Consumer(number, at) {
            put_string(buf, consumer.name(), consumer.name().len() <= most_compressed);
            buf.extend_from_slice(&consumer.seen_ms.to_le_bytes());
            buf.extend_from_slice(&consumer.active_ms.to_le_bytes());
            put_len(buf, consumer.pending_len() as u64);
            *place = Place::Owned(number, at, StreamId::MIN);
        }
        let from = if let Place::Owned(_, _, from) = *place { from } else { StreamId::MAX };
        for id in consumer.pending_from(from) {
            buf.extend_from_slice(&id.to_bytes());
            *place = id.next().map_or(Place::Consumer(number, at + 1), |next| Place::Owned(number, at, next));
            if !goes_on(buf)? {
                return Ok(false);
            }
        }
        *place = Place::Consumer(number, at + 1);
    }
    *place = Place::Group(number + 1);
    Ok(true)
}

/// A pending entry whose owner is not read yet: time and number of deliveries.
type Unowned = BTreeMap<StreamId, (i64, u64)>;

/// A node, and whether its entries are in order; or what is wrong, with its bytes.
fn node_of(id: StreamId, bytes: Vec<u8>) -> std::result::Result<(Node, bool), (&'static str, Vec<u8>)> {
    let list = Listpack::from_bytes_or_back(bytes).map_err(|(bad, bytes)| (bad.reason, bytes))?;
    if list.is_empty() {
        return Err((EMPTY_NODE, list.into_bytes()));
    }
    Node::from_listpack(id, list).map_err(|(bad, list)| (bad.0, list.into_bytes()))
}

/// How far a stream was read.
pub(super) struct StreamPart {
    layout: ValueType,
    node_count: u64,
    grown: Growing,
    /// What is wrong with it, if it is taken for damaged.
    flaw: Option<&'static str>,
    log: Log,
    groups: BTreeMap<Box<[u8]>, Group>,
    next: Next,
}

/// What of a stream is read next. Numbers count what is left.
enum Next {
    Nodes(u64),
    /// The listpack of the node of this id, which is the first of so many.
    Listpack(StreamId, u64),
    Groups(u64),
    Group(u64, Box<GroupPart>),
}

/// How far a group was read.
struct GroupPart {
    name: Box<[u8]>,
    group: Group,
    unowned: Unowned,
    next: NextOfGroup,
}

enum NextOfGroup {
    Pending(u64),
    Consumers(u64),
    /// What is pending for the consumer before so many others.
    Owned(u64, ConsumerId, u64),
}

impl StreamPart {
    pub(super) fn new(layout: ValueType, node_count: u64) -> StreamPart {
        StreamPart {
            layout,
            node_count,
            grown: Growing::default(),
            flaw: None,
            log: Log::default(),
            groups: BTreeMap::new(),
            next: Next::Nodes(node_count),
        }
    }

    fn with_counters(&self) -> bool {
        self.layout != ValueType::StreamListpacks
    }

    /// The beginning of the stream, as far as its nodes were taken.
    fn nodes_before(&self) -> Vec<u8> {
        let mut raw = Vec::new();
        put_len(&mut raw, self.node_count);
        self.grown.nodes().for_each(|node| put_node(&mut raw, node.id, node.as_bytes(), 0));
        raw
    }
}

impl<S: Source> Reader<S> {
    /// Reads one of the things that a stream is made of.
    pub(super) fn stream(&mut self, part: &mut StreamPart) -> Result<Option<Value>> {
        match &mut part.next {
            Next::Nodes(0) => {
                let groups = self.stream_log(part)?;
                part.next = Next::Groups(groups);
            }
            Next::Nodes(left) => {
                let Ok(id) = <[u8; 16]>::try_from(self.string()?.into_bytes()) else {
                    return Err(self.corrupt("Stream node key entry is not the size of a stream ID"));
                };
                let (id, left) = (StreamId::from_bytes(id), *left);
                self.stream_node(part, id, left)?;
            }
            Next::Listpack(id, left) => {
                let (id, left) = (*id, *left);
                self.stream_node(part, id, left)?;
            }
            Next::Groups(0) => {
                if part.layout == ValueType::StreamListpacks4 {
                    self.stream_producers()?;
                }
                return Ok(Some(match part.flaw {
                    Some(flaw) => self.recorded_value(part.layout, flaw),
                    None => {
                        let (log, groups) = (std::mem::take(&mut part.log), std::mem::take(&mut part.groups));
                        Value::Stream(Box::new(Stream::from_parts(log, groups)))
                    }
                }));
            }
            Next::Groups(left) => {
                let left = *left - 1;
                part.next = Next::Group(left, Box::new(self.stream_group(part)?));
            }
            Next::Group(left, group) => {
                let left = *left;
                if self.stream_consumers(group, part.layout)?
                    && let Next::Group(_, whole) = std::mem::replace(&mut part.next, Next::Groups(left))
                {
                    part.groups.insert(whole.name, whole.group);
                }
            }
        }
        Ok(None)
    }

    /// For how long and how many are remembered that were added; by whom; and how many there were, and were there before.
    fn stream_producers(&mut self) -> Result<()> {
        let (_, _, producers) = (self.len()?, self.len()?, self.len()?);
        if producers > 0 {
            return Err(self.err(ErrorKind::Newer(ValueType::StreamListpacks4 as u8)));
        }
        let (_, _) = (self.len()?, self.len()?);
        Ok(())
    }

    /// The listpack of the next node, the first of `left`.
    fn stream_node(&mut self, part: &mut StreamPart, id: StreamId, left: u64) -> Result<()> {
        let Some(bytes) = self.element_bytes()? else {
            part.next = Next::Listpack(id, left);
            return Ok(());
        };
        if part.flaw.is_none() {
            match node_of(id, bytes) {
                Ok((node, in_order)) => part.grown.push(node, in_order),
                Err((reason, bytes)) => {
                    // What is kept is written as it is, in an older version.
                    if part.layout == ValueType::StreamListpacks4 || !self.keeps_damaged(&bytes) {
                        let is_empty = reason == EMPTY_NODE;
                        return Err(self.corrupt(if is_empty {
                            reason
                        } else {
                            "Stream listpack integrity check failed."
                        }));
                    }
                    let mut raw = part.nodes_before();
                    put_node(&mut raw, id, &bytes, 0);
                    self.record(raw);
                    part.flaw = Some(reason);
                }
            }
        }
        part.next = Next::Nodes(left - 1);
        Ok(())
    }

    /// What follows the nodes: what the stream remembers. Gives the number of its groups.
    fn stream_log(&mut self, part: &mut StreamPart) -> Result<u64> {
        let len = self.number()?;
        let mut counters = Counters { last_id: self.stream_id()?, ..Counters::default() };
        let mut first_id = StreamId::MIN;
        if part.with_counters() {
            // What the first id is, the entries tell.
            first_id = self.stream_id()?;
            counters.max_deleted_id = self.stream_id()?;
            counters.entries_added = self.number()?;
        } else {
            counters.entries_added = len;
        }
        // All of it is read before anything is taken: it is read again if the source has no more.
        let groups = self.len()?;
        if part.flaw.is_some() {
            return Ok(groups);
        }
        if part.node_count == 0 && len > 0 {
            return Err(self.corrupt("Stream length inconsistent with rax entries"));
        }
        match part.grown.done(counters, len) {
            Ok(whole) => part.log = whole,
            Err(contradiction) => {
                if self.is_deep() {
                    return Err(self.corrupt(format!("Stream integrity check failed: {contradiction}")));
                }
                let mut raw = part.nodes_before();
                put_len(&mut raw, len);
                put_id(&mut raw, counters.last_id);
                if part.with_counters() {
                    put_id(&mut raw, first_id);
                    put_id(&mut raw, counters.max_deleted_id);
                    put_len(&mut raw, counters.entries_added);
                }
                put_len(&mut raw, groups);
                self.record(raw);
                part.flaw = Some(contradiction);
            }
        }
        Ok(groups)
    }

    fn stream_id(&mut self) -> Result<StreamId> {
        Ok(StreamId::new(self.number()?, self.number()?))
    }

    fn raw_stream_id(&mut self) -> Result<StreamId> {
        Ok(StreamId::from_bytes(self.array()?))
    }

    /// The beginning of a group.
    fn stream_group(&mut self, part: &StreamPart) -> Result<GroupPart> {
        let name = self.string()?.into_bytes().into_boxed_slice();
        let last_id = self.stream_id()?;
        let entries_read = if part.with_counters() {
            self.number()? as i64
        } else {
            part.log.added_up_to(last_id).map_or(-1, |n| n as i64)
        };
        let pending = self.len()?;
        if part.groups.contains_key(&name) {
            let name = String::from_utf8_lossy(&name);
            return Err(self.corrupt(format!("Duplicated consumer group name {name}")));
        }
        let group = Group::new(last_id, entries_read);
        Ok(GroupPart { name, group, unowned: Unowned::new(), next: NextOfGroup::Pending(pending) })
    }

    /// One of the pending entries of a group or of its consumers, one of whom each belongs to. Whether that was all.
    fn stream_consumers(&mut self, part: &mut GroupPart, layout: ValueType) -> Result<bool> {
        match &mut part.next {
            NextOfGroup::Pending(0) => part.next = NextOfGroup::Consumers(self.len()?),
            NextOfGroup::Pending(left) => {
                let id = self.raw_stream_id()?;
                let delivered = (i64::from_le_bytes(self.array()?), self.number()?);
                if part.unowned.insert(id, delivered).is_some() {
                    return Err(self.corrupt("Duplicated global PEL entry loading stream consumer group"));
                }
                *left -= 1;
            }
            NextOfGroup::Consumers(0) => {
                self.refuse_unowned(&part.unowned)?;
                return Ok(true);
            }
            NextOfGroup::Consumers(left) => {
                let left = *left - 1;
                let name = self.string()?.into_bytes();
                let seen_ms = i64::from_le_bytes(self.array()?);
                let active_ms = match layout {
                    ValueType::StreamListpacks3 | ValueType::StreamListpacks4 => i64::from_le_bytes(self.array()?),
                    _ => seen_ms,
                };
                let owned = self.len()?;
                let Some(owner) = part.group.create_consumer(&name, seen_ms) else {
                    return Err(self.corrupt("Duplicate stream consumer detected."));
                };
                part.group.consumer_mut(owner).active_ms = active_ms;
                part.next = NextOfGroup::Owned(owned, owner, left);
            }
            NextOfGroup::Owned(0, _, consumers) => part.next = NextOfGroup::Consumers(*consumers),
            NextOfGroup::Owned(left, owner, _) => {
                let (id, owner) = (self.raw_stream_id()?, *owner);
                *left -= 1;
                let pending = match part.unowned.remove(&id) {
                    Some((time_ms, deliveries)) => Pending { time_ms, deliveries, owner },
                    // Versions there were that left an entry with whom it was taken from: the later one has it.
                    None => match part.group.pending(id) {
                        Some(before) if before.owner != owner => Pending { owner, ..*before },
                        Some(_) => {
                            return Err(self.corrupt("Duplicated consumer PEL entry  loading a stream consumer group"));
                        }
                        None => return Err(self.corrupt("Consumer entry not found in group global PEL")),
                    },
                };
                part.group.assign(id, pending);
            }
        }
        Ok(false)
    }

    fn refuse_unowned(&self, unowned: &Unowned) -> Result<()> {
        if unowned.is_empty() {
            return Ok(());
        }
        if self.is_deep() {
            return Err(self.corrupt("Stream CG PEL entry without consumer"));
        }
        // Nobody could ask for them by name, and nobody would get them again.
        log::warn!("{} pending entries of a stream's consumer group belong to no consumer: left out", unowned.len());
        Ok(())
    }
}
