//! Values as the commands that make them: what a rewritten log holds, and what goes to a node that is to have them.
//!
//! A value is written part by part, however large it is: [`Place`] says how far one has come. It stays right while the value
//! does; that its table is resized in between does no harm.

use super::rdb::{ValueView, encode_dump};
use crate::keyspace::hash::Hash;
use crate::keyspace::list::List;
use crate::keyspace::set::Set;
use crate::keyspace::zset::Zset;
use crate::keyspace::{Entry, Object};
use crate::resp::encode::{put_arg, put_command, put_header};
use crate::structs::entry::{IntBuf, ValueRef};
use crate::structs::listpack::Item;
use crate::structs::numbers::f64_text_grisu;
use crate::structs::stream::{Group, Stream, StreamId};

/// Elements that one command adds, as far as they are told apart (pairs count once): about so many, or so many bytes.
const ITEMS_PER_COMMAND: usize = 64;
const BYTES_PER_COMMAND: usize = 64 * 1024;
/// A table that has become sparse gives little: after so many looks at it others have their turn.
const SCANS_PER_QUESTION: usize = 64;

/// How far a key has been written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// So many elements, or bytes of a string, or those before this cursor of a table.
    Elements(u64),
    Stream(StreamPlace),
    /// The value, but not its time to live.
    Expiry,
    Done,
}

impl Place {
    pub(crate) const START: Place = Place::Elements(0);
}

/// What comes next of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamPlace {
    /// The entries from this one on.
    Entries(StreamId),
    Counters,
    /// The groups from this one on.
    Group(usize),
    /// Of this group the consumers from this one on, and of that its pending entries from this one on.
    Pending(usize, usize, StreamId),
}

/// Where commands go. `goes_on` is asked after each: it may take what has gathered out of the buffer.
struct Writer<'a, E> {
    buf: &'a mut Vec<u8>,
    key: &'a [u8],
    place: &'a mut Place,
    /// A longer string is put together from parts of this length.
    longest_string: usize,
    goes_on: &'a mut dyn FnMut(&mut Vec<u8>) -> Result<bool, E>,
}

/// The elements of a command that is being put together.
#[derive(Default)]
struct Elements {
    count: usize,
    args: usize,
    text: Vec<u8>,
}

impl Elements {
    fn add<const N: usize>(&mut self, args: [&[u8]; N]) {
        args.iter().for_each(|arg| put_arg(&mut self.text, arg));
        self.args += N;
        self.count += 1;
    }

    fn is_full(&self) -> bool {
        self.count >= ITEMS_PER_COMMAND || self.text.len() >= BYTES_PER_COMMAND
    }
}

/// Whether all of a value was written.
type IsWhole = bool;

impl<E> Writer<'_, E> {
    /// Appends a command with these elements, after which `place` is reached.
    fn put_elements(&mut self, verb: &[u8], elements: &mut Elements, place: Place) -> Result<bool, E> {
        put_header(self.buf, 2 + elements.args);
        put_arg(self.buf, verb);
        put_arg(self.buf, self.key);
        self.buf.extend_from_slice(&elements.text);
        elements.text.clear();
        (elements.args, elements.count) = (0, 0);
        self.came_to(place)
    }

    fn put(&mut self, args: &[&[u8]], place: Place) -> Result<bool, E> {
        put_command(self.buf, args);
        self.came_to(place)
    }

    fn came_to(&mut self, place: Place) -> Result<bool, E> {
        *self.place = place;
        (self.goes_on)(self.buf)
    }

    /// A table: `scan` adds elements from a cursor on and gives the next one, 0 at the end.
    fn put_table(
        &mut self,
        verb: &[u8],
        mut cursor: u64,
        scan: impl Fn(u64, &mut Elements) -> u64,
    ) -> Result<IsWhole, E> {
        let (mut elements, mut scans) = (Elements::default(), 0);
        loop {
            cursor = scan(cursor, &mut elements);
            scans += 1;
            if elements.is_full() || scans == SCANS_PER_QUESTION || cursor == 0 {
                scans = 0;
                let place = if cursor == 0 { Place::Expiry } else { Place::Elements(cursor) };
                let goes_on = match elements.count {
                    0 => self.came_to(place)?,
                    _ => self.put_elements(verb, &mut elements, place)?,
                };
                if !goes_on {
                    return Ok(false);
                }
            }
            if cursor == 0 {
                return Ok(true);
            }
        }
    }

    /// Elements in order: `add` adds the next one, or none at the end.
    fn put_in_order(
        &mut self,
        verb: &[u8],
        from: u64,
        mut add: impl FnMut(&mut Elements) -> bool,
    ) -> Result<IsWhole, E> {
        let (mut elements, mut at) = (Elements::default(), from);
        loop {
            let is_over = !add(&mut elements);
            at += u64::from(!is_over);
            if elements.is_full() || is_over && elements.count > 0 {
                let place = if is_over { Place::Expiry } else { Place::Elements(at) };
                if !self.put_elements(verb, &mut elements, place)? {
                    return Ok(false);
                }
            }
            if is_over {
                return Ok(true);
            }
        }
    }

    /// The rest of a string.
    fn put_string(&mut self, from: u64, text: &[u8]) -> Result<IsWhole, E> {
        let mut at = from as usize;
        loop {
            let (verb, rest) = (if at == 0 { "SET" } else { "APPEND" }, text.get(at..).unwrap_or_default());
            if rest.len() <= self.longest_string {
                put_command(self.buf, &[verb.as_bytes(), self.key, rest]);
                return Ok(true);
            }
            at += self.longest_string;
            if !self.put(&[verb.as_bytes(), self.key, &rest[..self.longest_string]], Place::Elements(at as u64))? {
                return Ok(false);
            }
        }
    }

    fn put_hash(&mut self, from: u64, hash: &Hash) -> Result<IsWhole, E> {
        let add = |elements: &mut Elements, field: Item<'_>, value: Item<'_>| {
            elements.add([field.bytes(&mut IntBuf::new()), value.bytes(&mut IntBuf::new())]);
        };
        if hash.fields().is_some() {
            let scan = |cursor, elements: &mut Elements| {
                hash.scan(cursor, ITEMS_PER_COMMAND, &mut |field, value| add(elements, field, value))
            };
            return self.put_table(b"HMSET", from, scan);
        }
        let mut items = hash.iter().skip(from as usize);
        self.put_in_order(b"HMSET", from, |elements| items.next().map(|(f, v)| add(elements, f, v)).is_some())
    }

    fn put_set(&mut self, from: u64, set: &Set) -> Result<IsWhole, E> {
        let add = |elements: &mut Elements, member: Item<'_>| elements.add([member.bytes(&mut IntBuf::new())]);
        if set.members().is_some() {
            let scan = |cursor, elements: &mut Elements| {
                set.scan(cursor, ITEMS_PER_COMMAND, &mut |member| add(elements, member))
            };
            return self.put_table(b"SADD", from, scan);
        }
        let mut members = set.iter().skip(from as usize);
        self.put_in_order(b"SADD", from, |elements| members.next().map(|m| add(elements, m)).is_some())
    }

    fn put_zset(&mut self, from: u64, zset: &Zset) -> Result<IsWhole, E> {
        let mut members = zset.range(from as usize, usize::MAX, false);
        self.put_in_order(b"ZADD", from, |elements| {
            let Some((member, score)) = members.next() else { return false };
            elements.add([&f64_text_grisu(score), member.bytes(&mut IntBuf::new())]);
            true
        })
    }

    fn put_list(&mut self, from: u64, list: &List) -> Result<IsWhole, E> {
        let mut walk = list.walk(from as usize);
        self.put_in_order(b"RPUSH", from, |elements| {
            let Some(item) = walk.step() else { return false };
            elements.add([item.bytes(&mut IntBuf::new())]);
            true
        })
    }

    fn put_stream(&mut self, from: StreamPlace, stream: &Stream) -> Result<IsWhole, E> {
        let log = &stream.log;
        if let StreamPlace::Entries(from) = from {
            for entry in log.range(from, StreamId::MAX) {
                let id = entry.id.text();
                let fields: Vec<_> = entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
                let mut command: Vec<&[u8]> = vec![b"XADD", self.key, &id];
                command.extend(fields.iter().flat_map(|(name, value)| [&name[..], &value[..]]));
                let next = entry.id.next().map_or(StreamPlace::Counters, StreamPlace::Entries);
                if !self.put(&command, Place::Stream(next))? {
                    return Ok(false);
                }
            }
            if log.is_empty() {
                // An entry that is trimmed at once leaves an empty stream.
                put_command(self.buf, &[b"XADD", self.key, b"MAXLEN", b"0", b"0-1", b"x", b"y"]);
            }
        }
        if matches!(from, StreamPlace::Entries(_) | StreamPlace::Counters) {
            let mut added = IntBuf::new();
            let command: [&[u8]; 7] = [
                b"XSETID",
                self.key,
                &log.counters.last_id.text(),
                b"ENTRIESADDED",
                added.format(log.counters.entries_added as i64),
                b"MAXDELETEDID",
                &log.counters.max_deleted_id.text(),
            ];
            if !self.put(&command, Place::Stream(StreamPlace::Group(0)))? {
                return Ok(false);
            }
        }
        let (first, mut within) = match from {
            StreamPlace::Entries(_) | StreamPlace::Counters => (0, None),
            StreamPlace::Group(group) => (group, None),
            StreamPlace::Pending(group, consumer, id) => (group, Some((consumer, id))),
        };
        for (number, (name, group)) in stream.groups().enumerate().skip(first) {
            if !self.put_group((number, name), group, within.take())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A group of a stream; `from`: which consumer and pending entry comes next, if it was begun.
    fn put_group(
        &mut self,
        (number, name): (usize, &[u8]),
        group: &Group,
        from: Option<(usize, StreamId)>,
    ) -> Result<IsWhole, E> {
        let pending = |consumer, id| Place::Stream(StreamPlace::Pending(number, consumer, id));
        let (first, mut first_id) = from.unwrap_or((0, StreamId::MIN));
        if from.is_none() {
            let (mut read, last_id) = (IntBuf::new(), group.last_id.text());
            let read = read.format(group.entries_read);
            let command: [&[u8]; 7] = [b"XGROUP", b"CREATE", self.key, name, &last_id, b"ENTRIESREAD", read];
            if !self.put(&command, pending(0, StreamId::MIN))? {
                return Ok(false);
            }
        }
        for (at, consumer) in group.consumers().enumerate().skip(first) {
            // What it has pending may be deleted, and XCLAIM knows nothing of that.
            if first_id == StreamId::MIN {
                let command: [&[u8]; 5] = [b"XGROUP", b"CREATECONSUMER", self.key, name, consumer.name()];
                let from = consumer.pending_from(StreamId::MIN).next();
                if !self.put(&command, from.map_or(pending(at + 1, StreamId::MIN), |id| pending(at, id)))? {
                    return Ok(false);
                }
            }
            for id in consumer.pending_from(std::mem::replace(&mut first_id, StreamId::MIN)) {
                let Some(delivered) = group.pending(id) else { continue };
                let (mut time, mut deliveries) = (IntBuf::new(), IntBuf::new());
                let command: [&[u8]; 12] = [
                    b"XCLAIM",
                    self.key,
                    name,
                    consumer.name(),
                    b"0",
                    &id.text(),
                    b"TIME",
                    time.format(delivered.time_ms),
                    b"RETRYCOUNT",
                    deliveries.format(delivered.deliveries as i64),
                    b"JUSTID",
                    b"FORCE",
                ];
                let next = id.next().map_or(pending(at + 1, StreamId::MIN), |next| pending(at, next));
                if !self.put(&command, next)? {
                    return Ok(false);
                }
            }
        }
        self.came_to(Place::Stream(StreamPlace::Group(number + 1)))
    }

    fn put_value(&mut self, entry: &Entry) -> Result<IsWhole, E> {
        let (from, stream_from) = match *self.place {
            Place::Elements(from) => (from, StreamPlace::Entries(StreamId::MIN)),
            Place::Stream(from) => (0, from),
            Place::Expiry | Place::Done => return Ok(true),
        };
        match entry.value() {
            ValueRef::Int(v) => put_command(self.buf, &[b"SET", self.key, itoa::Buffer::new().format(v).as_bytes()]),
            ValueRef::Str { bytes, .. } => return self.put_string(from, bytes),
            ValueRef::Object(Object::Set(set)) => return self.put_set(from, set),
            ValueRef::Object(Object::Hash(hash)) => return self.put_hash(from, hash),
            ValueRef::Object(Object::Zset(zset)) => return self.put_zset(from, zset),
            ValueRef::Object(Object::List(list)) => return self.put_list(from, list),
            ValueRef::Object(Object::Stream(stream)) => return self.put_stream(stream_from, stream),
            ValueRef::Object(Object::Damaged(damaged)) => {
                let mut payload = Vec::new();
                encode_dump(&mut payload, ValueView::Damaged(damaged), false);
                put_command(self.buf, &[b"RESTORE", self.key, b"0", &payload]);
            }
        }
        Ok(true)
    }
}

/// Appends the commands that make a key, from `place` on, until `goes_on` says no after one of them. Strings longer than
/// `longest_string` take several.
pub(crate) fn put_entry<E>(
    buf: &mut Vec<u8>,
    entry: &Entry,
    place: &mut Place,
    longest_string: usize,
    goes_on: &mut dyn FnMut(&mut Vec<u8>) -> Result<bool, E>,
) -> Result<(), E> {
    let mut writer = Writer { buf, key: entry.key(), place, longest_string, goes_on };
    if writer.put_value(entry)? {
        if let (Some(at_ms), false) = (entry.expire_ms(), *place == Place::Done) {
            put_command(buf, &[b"PEXPIREAT", entry.key(), itoa::Buffer::new().format(at_ms).as_bytes()]);
        }
        *place = Place::Done;
    }
    Ok(())
}
