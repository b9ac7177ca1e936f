//! Reading values: what the bytes of each layout become.
//!
//! Elements of large collections are read some at a time and then added together, so that what is touched of the tables is
//! brought near for all of them at once.

use super::{Ahead, CHUNK, LONG, Reader, Result, Scratch, StringValue, Value};
use crate::keyspace::damaged::{Damaged, Kind};
use crate::keyspace::hash::Hash;
use crate::keyspace::list::{End, List};
use crate::keyspace::set::Set;
use crate::keyspace::zset::{self, Zset};
use crate::persist::rdb::encode::{CONTAINER_PACKED, CONTAINER_PLAIN, put_len, put_node, put_string};
use crate::persist::rdb::stream::StreamPart;
use crate::persist::rdb::{ErrorKind, Source, ValueType, module_name};
use crate::structs::entry::IntBuf;
use crate::structs::intset::Intset;
use crate::structs::listpack::{Item as Packed, Listpack};
use crate::structs::numbers::parse_f64;
use crate::structs::quicklist::{Body, Growing};
use crate::structs::table::TOGETHER;
use crate::structs::ziplist;
use std::collections::HashSet;

/// No more of a value than this, and one element, is read together, bytes.
const GROUP_BYTES: u64 = 1 << 15;

/// A value on its way out of a source.
pub(super) enum Part {
    /// Nothing of it, or of its one string, was read.
    New(ValueType),
    Set(Option<Set>, Run),
    Hash(Hash, Run),
    Zset(Zset, Run, Scores),
    /// A list whose elements stand there one by one; so many are left.
    List(List, u64),
    Nodes(Nodes),
    Stream(Box<StreamPart>),
}

impl Part {
    pub(super) fn new(layout: ValueType) -> Part {
        Part::New(layout)
    }

    /// The layout of a value of which nothing was read.
    pub(super) fn begins(&self) -> Option<ValueType> {
        match self {
            Part::New(layout) => Some(*layout),
            _ => None,
        }
    }
}

/// Scores of members that are added together next.
pub(super) struct Scores {
    /// They are written as text.
    as_text: bool,
    read: [f64; TOGETHER],
}

impl Scores {
    fn new(as_text: bool) -> Scores {
        Scores { as_text, read: [0.0; TOGETHER] }
    }
}

/// How far elements that stand one by one were read.
pub(super) struct Run {
    count: u64,
    done: u64,
    ahead: Ahead,
    /// Strings that were read of those that are added together next.
    filled: usize,
}

impl Run {
    fn new(count: u64) -> Run {
        Run { count, done: 0, ahead: Ahead::new(count), filled: 0 }
    }

    /// How many of the elements left are read together.
    fn together(&self) -> usize {
        (self.count - self.done).min(TOGETHER as u64) as usize
    }

    /// Stops after so many strings.
    fn stop(&mut self, filled: usize) -> Result<Option<Value>> {
        self.filled = filled;
        Ok(None)
    }

    /// So many were added. Whether they were the last.
    fn add(&mut self, len: usize, scratch: &mut Scratch) -> bool {
        self.done += len as u64;
        let is_done = self.done == self.count;
        if is_done || self.filled > 0 {
            for text in scratch.iter_mut().flatten() {
                // A long one was an exception.
                if text.capacity() > CHUNK / TOGETHER {
                    *text = Vec::new();
                }
            }
        }
        self.filled = 0;
        is_done
    }
}

/// What follows from the reading of a string.
enum After {
    GoOn,
    /// It is enough that is to be added together.
    Add,
    /// It is a long one: the part ends before it.
    NotThere,
}

/// How far the nodes of a list were read.
pub(super) struct Nodes {
    grown: Growing,
    left: u64,
    /// Of ziplists, or else of listpacks and elements that stand alone.
    ziplists: bool,
    /// What the next one is, if that was read.
    container: Option<u64>,
    /// Why a node, after which others follow, was taken for damaged.
    flaw: Option<&'static str>,
}

const BROKEN_NODE: &str = "Listpack integrity check failed.";

impl<S: Source> Reader<S> {
    /// Goes on with a value; what it gives is all of it. Each type the server can hold has its arm here, in `begin_part` or in `whole`.
    pub(super) fn go_on_with(&mut self, part: &mut Part) -> Result<Option<Value>> {
        match part {
            Part::New(layout) => {
                let layout = *layout;
                self.begin_part(layout, part)
            }
            Part::Set(set, run) => self.set(set, run),
            Part::Hash(hash, run) => self.hash(hash, run),
            Part::Zset(zset, run, scores) => self.zset(zset, run, scores),
            Part::List(list, left) => self.list(list, left),
            Part::Nodes(nodes) => self.nodes(nodes),
            Part::Stream(stream) => self.stream(stream),
        }
    }

    fn begin_part(&mut self, layout: ValueType, part: &mut Part) -> Result<Option<Value>> {
        match layout {
            ValueType::ModulePreGa => Err(self.corrupt("Pre-release module format not supported")),
            ValueType::Module2 => {
                let name = module_name(self.len()?);
                Err(self.err(ErrorKind::Module { name, aux: false }))
            }
            ValueType::Set | ValueType::Hash | ValueType::Zset | ValueType::Zset2 | ValueType::List => {
                let count = self.len()?;
                if count == 0 {
                    return Ok(Some(Value::Empty));
                }
                let run = Run::new(count);
                *part = match layout {
                    ValueType::Set => Part::Set(None, run),
                    ValueType::Hash => Part::Hash(Hash::for_fields(run.ahead.first(), &self.limits.hash), run),
                    ValueType::Zset => Part::Zset(Zset::new(), run, Scores::new(true)),
                    ValueType::Zset2 => Part::Zset(Zset::new(), run, Scores::new(false)),
                    _ => Part::List(List::new(), count),
                };
                self.go_on_with(part)
            }
            ValueType::ListQuicklist | ValueType::ListQuicklist2 => {
                *part = Part::Nodes(Nodes {
                    grown: Growing::new(self.limits.list),
                    left: self.len()?,
                    ziplists: layout == ValueType::ListQuicklist,
                    container: None,
                    flaw: None,
                });
                self.go_on_with(part)
            }
            ValueType::StreamListpacks
            | ValueType::StreamListpacks2
            | ValueType::StreamListpacks3
            | ValueType::StreamListpacks4 => {
                *part = Part::Stream(Box::new(StreamPart::new(layout, self.len()?)));
                Ok(None)
            }
            _ => self.whole(layout),
        }
    }

    /// A value that is one string, unless that is a long one. `None`: it is to be read in parts.
    #[inline]
    pub(super) fn whole(&mut self, layout: ValueType) -> Result<Option<Value>> {
        match layout {
            ValueType::String => self.string_value(),
            ValueType::ListZiplist
            | ValueType::SetIntset
            | ValueType::SetListpack
            | ValueType::HashZipmap
            | ValueType::HashZiplist
            | ValueType::HashListpack
            | ValueType::ZsetZiplist
            | ValueType::ZsetListpack => match self.element_bytes()? {
                Some(bytes) => self.packed(layout, bytes).map(Some),
                None => Ok(None),
            },
            _ => Ok(None),
        }
    }

    #[inline]
    fn string_value(&mut self) -> Result<Option<Value>> {
        let string = if self.long.is_some() {
            self.element_bytes()?.map(StringValue::Bytes)
        } else {
            let spare = std::mem::take(&mut self.spare_value);
            self.string_with::<LONG>(spare)?
        };
        Ok(string.map(Value::String))
    }

    /// The value that these bytes are.
    fn packed(&mut self, layout: ValueType, bytes: Vec<u8>) -> Result<Value> {
        match layout {
            ValueType::SetIntset => {
                let read = if self.deep { Intset::from_bytes } else { Intset::from_unordered };
                let ints = read(bytes).map_err(|_| self.corrupt("Intset integrity check failed."))?;
                Ok(if ints.is_empty() { Value::Empty } else { Value::Ints(ints) })
            }
            ValueType::SetListpack => self.listpack(layout, bytes, "Set listpack", |c, list, what| {
                if c.deep {
                    c.refuse_twice(list.iter(), what)?;
                }
                Ok(if list.is_empty() { Value::Empty } else { Value::PackedSet(list) })
            }),
            ValueType::HashZipmap => self.zipmap(&bytes),
            ValueType::HashZiplist => {
                let list = self.ziplist(&bytes, "Hash ziplist")?;
                self.packed_hash(list, true, "Hash ziplist")
            }
            ValueType::HashListpack => {
                self.listpack(layout, bytes, "Hash listpack", |c, list, what| c.packed_hash(list, c.deep, what))
            }
            ValueType::ZsetZiplist => {
                let list = self.ziplist(&bytes, "Zset ziplist")?;
                self.packed_zset(list, true, "Zset ziplist")
            }
            ValueType::ZsetListpack => match Listpack::from_pairs_in_order(bytes) {
                Ok(list) if !self.deep && !list.is_empty() => Ok(Value::PackedZset(list)),
                Ok(list) => self.packed_zset(list, self.deep, "Zset listpack"),
                Err(bytes) => {
                    self.listpack(layout, bytes, "Zset listpack", |c, list, what| c.packed_zset(list, c.deep, what))
                }
            },
            _ => {
                let mut list = Growing::new(self.limits.list);
                list.push(Body::Packed(self.ziplist(&bytes, "List ziplist")?));
                Ok(self.grown(list))
            }
        }
    }

    /// Refuses a collection, `what`, that names something twice.
    fn refuse_twice<'a>(&self, items: impl Iterator<Item = Packed<'a>>, what: &str) -> Result<()> {
        let mut seen = HashSet::new();
        for item in items {
            // An integer may also stand there as text.
            let item = match item {
                Packed::Str(text) => Packed::of(text),
                Packed::Int(_) => item,
            };
            if !seen.insert(item) {
                return Err(self.corrupt(format!("{what} integrity check failed.")));
            }
        }
        Ok(())
    }

    /// Reads the next string of those that are added together, the first of which stood at `start`. What it gives is when not to
    /// go on with the one after it.
    #[inline(always)]
    fn member(&mut self, out: &mut Vec<u8>, start: u64) -> Result<After> {
        self.text_into::<LONG>(out)?;
        Ok(if self.long.is_some() {
            After::NotThere
        } else if self.offset - start > GROUP_BYTES {
            After::Add
        } else {
            After::GoOn
        })
    }

    /// Goes on with a long string. The part ends with it: it is not there to be read again if the source has no more.
    fn long_member(&mut self, out: &mut Vec<u8>, run: &mut Run) -> Result<Option<Value>> {
        run.filled += usize::from(self.long_element(out)?);
        Ok(None)
    }

    fn set(&mut self, set: &mut Option<Set>, run: &mut Run) -> Result<Option<Value>> {
        let limits = self.limits.set;
        let start = self.offset;
        self.with_scratch(|c, scratch| {
            let [members, _] = &mut *scratch;
            if c.long.is_some() {
                return c.long_member(&mut members[run.filled], run);
            }
            let mut here = run.together();
            for (i, member) in members[..here].iter_mut().enumerate().skip(run.filled) {
                match c.member(member, start)? {
                    After::GoOn => {}
                    After::Add => {
                        here = i + 1;
                        break;
                    }
                    After::NotThere => return run.stop(i),
                }
            }
            let members = &members[..here];
            let into = set.get_or_insert_with(|| Set::for_members(&members[0], run.ahead.first(), &limits));
            if let Some(len) = run.ahead.next(run.done) {
                into.reserve(len);
            }
            if !into.add_together(members, &limits) {
                return Err(c.corrupt("Duplicate set members detected"));
            }
            Ok(if run.add(here, scratch) { set.take().map(Value::Set) } else { None })
        })
    }

    fn hash(&mut self, hash: &mut Hash, run: &mut Run) -> Result<Option<Value>> {
        let limits = self.limits.hash;
        let start = self.offset;
        self.with_scratch(|c, scratch| {
            if c.long.is_some() {
                return c.long_member(&mut scratch[run.filled % 2][run.filled / 2], run);
            }
            let [fields, values] = &mut *scratch;
            if let Some(len) = run.ahead.next(run.done) {
                hash.reserve(len);
            }
            let mut here = run.together();
            // Of a pair that was begun the field is there.
            let mut has_field = run.filled % 2 == 1;
            for (i, (field, value)) in fields[..here].iter_mut().zip(&mut *values).enumerate().skip(run.filled / 2) {
                if !std::mem::take(&mut has_field)
                    && let After::NotThere = c.member(field, start)?
                {
                    return run.stop(2 * i);
                }
                match c.member(value, start)? {
                    After::GoOn => {}
                    After::Add => {
                        here = i + 1;
                        break;
                    }
                    After::NotThere => return run.stop(2 * i + 1),
                }
            }
            if !hash.add_together(&fields[..here], &values[..here], &limits) {
                return Err(c.corrupt("Duplicate hash fields detected"));
            }
            Ok(run.add(here, scratch).then(|| Value::Hash(std::mem::take(hash))))
        })
    }

    fn zset(&mut self, zset: &mut Zset, run: &mut Run, scores: &mut Scores) -> Result<Option<Value>> {
        let limits = self.limits.zset;
        let start = self.offset;
        self.with_scratch(|c, scratch| {
            let [members, _] = &mut *scratch;
            if c.long.is_some() {
                return c.long_member(&mut members[run.filled / 2], run);
            }
            let mut here = run.together();
            // Of a pair that was begun the member is there.
            let mut has_member = run.filled % 2 == 1;
            for (i, (member, at)) in members[..here].iter_mut().zip(&mut scores.read).enumerate().skip(run.filled / 2) {
                let after = if std::mem::take(&mut has_member) { After::GoOn } else { c.member(member, start)? };
                if let After::NotThere = after {
                    return run.stop(2 * i);
                }
                *at = if scores.as_text { c.text_double()? } else { f64::from_le_bytes(c.array()?) };
                if at.is_nan() {
                    return Err(c.corrupt("Zset with NAN score detected"));
                }
                if let After::Add = after {
                    here = i + 1;
                    break;
                }
            }
            let members = &members[..here];
            if run.done == 0 {
                *zset = Zset::for_members(run.ahead.first(), members[0].len(), &limits);
            } else if let Some(len) = run.ahead.next(run.done) {
                zset.reserve(len);
            }
            if !zset.add_together(members, &scores.read, &limits) {
                return Err(c.corrupt("Duplicate zset fields detected"));
            }
            Ok(run.add(here, scratch).then(|| Value::Zset(std::mem::take(zset))))
        })
    }

    /// A score as text: one length byte, of which the three highest values stand for NaN and the infinities.
    fn text_double(&mut self) -> Result<f64> {
        match self.byte()? {
            255 => Ok(f64::NEG_INFINITY),
            254 => Ok(f64::INFINITY),
            253 => Ok(f64::NAN),
            len => {
                let text = self.bytes(u64::from(len))?;
                parse_f64(&text).ok_or_else(|| self.err(ErrorKind::Eof))
            }
        }
    }

    fn packed_zset(&self, list: Listpack, deep: bool, what: &str) -> Result<Value> {
        if list.is_empty() {
            return Ok(Value::Empty);
        }
        if deep {
            self.refuse_twice(list.iter().step_by(2), what)?;
        }
        let list = zset::checked(list).ok_or_else(|| self.corrupt(format!("{what} integrity check failed.")))?;
        Ok(Value::PackedZset(list))
    }

    fn zipmap(&self, bytes: &[u8]) -> Result<Value> {
        let Some(strings) = ziplist::read_zipmap(bytes) else {
            return Err(self.corrupt("Zipmap integrity check failed."));
        };
        self.refuse_twice(strings.iter().step_by(2).map(|text| Packed::Str(text)), "Hash zipmap")?;
        let mut hash = Hash::new();
        hash.will_grow(strings.iter().copied(), &self.limits.hash);
        for [field, value] in strings.as_chunks::<2>().0 {
            hash.set(field, value, &self.limits.hash);
        }
        Ok(if hash.is_empty() { Value::Empty } else { Value::Hash(hash) })
    }

    fn packed_hash(&self, list: Listpack, deep: bool, what: &str) -> Result<Value> {
        if !list.len().is_multiple_of(2) {
            return Err(self.corrupt(format!("{what} integrity check failed.")));
        }
        if deep {
            self.refuse_twice(list.iter().step_by(2), what)?;
        }
        Ok(if list.is_empty() { Value::Empty } else { Value::PackedHash(list) })
    }

    fn list(&mut self, list: &mut List, left: &mut u64) -> Result<Option<Value>> {
        let Some(text) = self.element_bytes()? else { return Ok(None) };
        list.will_grow(text.len(), 1, self.limits.list);
        list.push(End::Tail, &text, self.limits.list);
        *left -= 1;
        Ok((*left == 0).then(|| Value::List(std::mem::take(list))))
    }

    /// The value that a list is whose nodes were read.
    fn grown(&self, list: Growing) -> Value {
        let list = list.done();
        if list.is_empty() { Value::Empty } else { Value::List(List::of(list, self.limits.list)) }
    }

    /// A node of a list.
    fn nodes(&mut self, part: &mut Nodes) -> Result<Option<Value>> {
        if part.left == 0 {
            return Ok(Some(match part.flaw {
                None => self.grown(std::mem::replace(&mut part.grown, Growing::new(self.limits.list))),
                Some(flaw) => self.recorded_value(ValueType::ListQuicklist2, flaw),
            }));
        }
        let container = match part.container {
            Some(container) => container,
            None if part.ziplists => CONTAINER_PACKED,
            None => self.len()?,
        };
        if !matches!(container, CONTAINER_PACKED | CONTAINER_PLAIN) {
            return Err(self.corrupt("Quicklist integrity check failed."));
        }
        let Some(bytes) = self.element_bytes()? else {
            part.container = Some(container);
            return Ok(None);
        };
        part.container = None;
        part.left -= 1;
        self.take_node(part, container == CONTAINER_PLAIN, bytes)?;
        if part.left == 0 { self.nodes(part) } else { Ok(None) }
    }

    fn take_node(&mut self, part: &mut Nodes, is_plain: bool, bytes: Vec<u8>) -> Result<()> {
        if part.flaw.is_some() {
            if !is_plain && !Listpack::is_framed(&bytes) {
                return Err(self.corrupt(BROKEN_NODE));
            }
        } else if is_plain {
            if bytes.is_empty() {
                return Err(self.err(ErrorKind::Eof));
            }
            part.grown.push(Body::Plain(bytes));
        } else if part.ziplists {
            part.grown.push(Body::Packed(self.ziplist(&bytes, "Ziplist")?));
        } else {
            match Listpack::from_bytes_or_back(bytes) {
                // Redis, too, passes over empty nodes.
                Ok(list) => part.grown.push(Body::Packed(list)),
                Err((bad, bytes)) => {
                    self.record_damaged_list(part, &bytes)?;
                    part.flaw = Some(bad.reason);
                }
            }
        }
        Ok(())
    }

    /// Keeps what was read of a list of which a node is broken.
    fn record_damaged_list(&mut self, part: &mut Nodes, broken: &[u8]) -> Result<()> {
        if !self.keeps_damaged(broken) {
            return Err(self.corrupt(BROKEN_NODE));
        }
        let before = std::mem::replace(&mut part.grown, Growing::new(self.limits.list)).done();
        let mut raw = Vec::new();
        put_len(&mut raw, before.node_count() as u64 + 1 + part.left);
        before.bodies().for_each(|node| put_node(&mut raw, node, false));
        put_len(&mut raw, CONTAINER_PACKED);
        put_string(&mut raw, broken, false);
        self.record(raw);
        Ok(())
    }

    /// Whether a listpack that cannot be walked is no reason to refuse the value it is of.
    pub(in crate::persist::rdb) fn keeps_damaged(&self, listpack: &[u8]) -> bool {
        !self.deep && Listpack::is_framed(listpack)
    }

    /// Whether what contradicts itself is refused rather than taken as well as can be.
    pub(in crate::persist::rdb) fn is_deep(&self) -> bool {
        self.deep
    }

    /// Begins to keep what is read of a damaged value, of which `before` was read.
    pub(in crate::persist::rdb) fn record(&mut self, before: Vec<u8>) {
        self.recorded = Some(before);
    }

    /// Keeps a damaged value whose last byte was read.
    pub(in crate::persist::rdb) fn recorded_value(&mut self, layout: ValueType, flaw: &'static str) -> Value {
        damaged(layout, self.recorded.take().unwrap_or_default(), flaw)
    }

    /// A value, `what`, that is one listpack, of which `value` makes it.
    fn listpack(
        &self,
        layout: ValueType,
        bytes: Vec<u8>,
        what: &str,
        value: fn(&Self, Listpack, &str) -> Result<Value>,
    ) -> Result<Value> {
        match Listpack::from_bytes_or_back(bytes) {
            Ok(list) => value(self, list, what),
            Err((bad, bytes)) if self.keeps_damaged(&bytes) => {
                let mut raw = Vec::new();
                put_string(&mut raw, &bytes, false);
                Ok(damaged(layout, raw, bad.reason))
            }
            Err(_) => Err(self.corrupt(format!("{what} integrity check failed."))),
        }
    }

    /// A ziplist, of the value `what`, as a listpack.
    fn ziplist(&self, bytes: &[u8], what: &str) -> Result<Listpack> {
        let Some(items) = ziplist::read_ziplist(bytes) else {
            return Err(self.corrupt(format!("{what} integrity check failed.")));
        };
        let mut list = Listpack::with_capacity(bytes.len());
        for item in items {
            // Text that reads as an integer is one in a listpack.
            list.push_item(Packed::of(item.bytes(&mut IntBuf::new())));
        }
        Ok(list)
    }
}

fn damaged(layout: ValueType, bytes: Vec<u8>, flaw: &'static str) -> Value {
    let kind = match layout {
        ValueType::SetListpack => Kind::Set,
        ValueType::HashListpack => Kind::Hash,
        ValueType::ZsetListpack => Kind::Zset,
        ValueType::ListQuicklist2 => Kind::List,
        _ => Kind::Stream,
    };
    Value::Damaged(Box::new(Damaged { kind, layout: layout as u8, bytes: bytes.into_boxed_slice(), flaw }))
}
